"""Credit: from the environment's verdicts on one group to its advantages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sesa_lab.types import Candidate, Group, Score

EPSILON = 1e-6  # RAGEN's: added to the standard deviation, and the spread below which a group counts as uniform


def verdicts(environment: Any, group: Group) -> list[Score]:
    """The environment's verdict on each candidate: of its episode, or of its whole answer."""
    return [
        environment.score(group.task, candidate.turns[0].completion.text)
        if candidate.episode is None
        else candidate.episode.verdict
        for candidate in group.candidates
    ]


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


def sketch_rewards(
    candidates: Sequence[Candidate], scores: Sequence[Score], rewards: Sequence[float], count: int, rule: str
) -> list[float]:
    """What each of a group's sketches earns, from the candidates that follow it.

    Args:
        candidates: of one group, in the order drawn.
        scores: the environment's verdicts on them.
        rewards: theirs after the rule for repeats.
        count: sketches of the group.
        rule: ``best`` or ``mean`` of the candidates' ``rewards``; ``novelty``: the best reward among those whose strategy no
            earlier candidate took (0 where there is none).

    Returns:
        One reward a sketch; 0 for a sketch that no candidate follows (it was dropped).
    """
    credit = credited(scores, "zero") if rule == "novelty" else list(rewards)
    found = []
    for number in range(count):
        own = [r for candidate, r in zip(candidates, credit, strict=True) if number in candidate.sketches]
        found.append(0.0 if not own else sum(own) / len(own) if rule == "mean" else max(own))
    return found


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
