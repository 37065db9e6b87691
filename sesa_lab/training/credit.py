"""Credit: from the environment's verdicts on one group to its advantages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sesa_lab.types import Score

EPSILON = 1e-6  # RAGEN's: added to the standard deviation, and the spread below which a group counts as uniform


def credited(scores: Sequence[Score], repeats: str) -> list[float]:
    """Rewards after the rule for repeats.

    Args:
        scores: verdicts on the candidates of one group, in the order drawn.
        repeats: ``count`` leaves rewards as they are; ``zero`` pays nothing for a strategy that an earlier candidate of
            the group already took. An unreadable answer (strategy None) repeats nothing.

    Returns:
        One reward a candidate.
    """
    seen: set[str] = set()
    rewards = []
    for score in scores:
        repeated = score.strategy is not None and score.strategy in seen
        rewards.append(0.0 if repeats == "zero" and repeated else score.reward)
        if score.strategy is not None:
            seen.add(score.strategy)
    return rewards


def advantages(rewards: Sequence[float], normalise: str) -> list[float]:
    """Group-relative advantages (GRPO, arXiv 2402.03300; without the division: Dr. GRPO, arXiv 2503.20783).

    ``std``: (r - mean) / (s + 1e-6) with s the sample standard deviation (n - 1, as in TRL and verl); ``mean``: r - mean.
    A group whose rewards do not differ (s <= 1e-6) has advantage 0 throughout, never NaN.
    """
    r = np.asarray(rewards, dtype=np.float64)
    spread = r.std(ddof=1) if len(r) > 1 else 0.0
    if spread <= EPSILON:
        return [0.0] * len(r)
    centred = r - r.mean()
    return list(map(float, centred / (spread + EPSILON) if normalise == "std" else centred))
