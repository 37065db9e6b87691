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
            the group already took: min(0, reward), so that a penalty stays and no repeat is better off for being one. An
            unreadable answer (strategy None) repeats nothing.

    Returns:
        One reward a candidate.
    """
    seen: set[str] = set()
    rewards = []
    for score in scores:
        repeated = score.strategy is not None and score.strategy in seen
        rewards.append(min(0.0, score.reward) if repeats == "zero" and repeated else score.reward)
        if score.strategy is not None:
            seen.add(score.strategy)
    return rewards


def sketch_rewards(
    candidates: Sequence[Candidate], scores: Sequence[Score], rewards: Sequence[float], count: int, rule: str
) -> list[float | None]:
    """What each of a group's sketches earns, from the candidates that follow it.

    Args:
        candidates: of one group, in the order drawn.
        scores: the environment's verdicts on them.
        rewards: theirs after the rule for repeats.
        count: sketches of the group.
        rule: ``best`` or ``mean`` of the candidates' ``rewards``; ``novelty``: the best of what the environment gave them,
            where a strategy that an earlier candidate took earns nothing (``credited`` with ``zero``).

    Returns:
        One reward a sketch; None for a sketch that no candidate follows (it was dropped): nothing is known of it.
    """
    credit = credited(scores, "zero") if rule == "novelty" else list(rewards)
    found: list[float | None] = []
    for number in range(count):
        own = [r for candidate, r in zip(candidates, credit, strict=True) if number in candidate.sketches]
        found.append(None if not own else sum(own) / len(own) if rule == "mean" else max(own))
    return found


def sketch_advantages(rewards: Sequence[float | None], normalise: str) -> list[float]:
    """``advantages`` among the sketches of a group that have a reward; 0 for the others, which no mean or spread counts."""
    known = iter(advantages([reward for reward in rewards if reward is not None], normalise))
    return [0.0 if reward is None else next(known) for reward in rewards]


def transfers(candidates: Sequence[Candidate], scores: Sequence[Score], rule: str) -> list[bool]:
    """Whether each candidate of a group trains the answer given the task alone (``update.transfer``).

    ``always``: all do. ``unsolved``: those drawn with a sketch do only where none drawn without one succeeded.
    """
    solved = any(score.success for candidate, score in zip(candidates, scores, strict=True) if not candidate.sketches)
    return [rule == "always" or not (solved and candidate.sketches) for candidate in candidates]


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
