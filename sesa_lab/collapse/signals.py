"""What a training step tells about collapse: five signals, each a good that a collapse takes away.

They are read off the groups that training draws anyway, so watching costs nothing. What is drawn under the task alone shows the
policy itself: where a run draws two or more such candidates in every group (``direct_of``; a sequence has its first alone) only
these are read, else all. Then the signals are of what is drawn with history or sketches, and the policy's own answers may have
collapsed unseen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from sesa_lab.diversity import hill_number, strategy_counts
from sesa_lab.errors import InputError, suggest
from sesa_lab.settings import SamplerConfig

SIGNALS = ("breadth", "live", "spread", "entropy", "success")
"""Names, in the order of ``step_signals``; higher is healthier throughout.

- ``breadth``: effective number (Hill's of order 1, exp of the entropy) of the *correct* strategies of a group, mean over the groups
  with one. 1..group size: 1 = whatever is solved is solved in one way. NaN where no correct answer has a strategy.
- ``live``: share of groups whose credited rewards differ (one minus the zero-variance share), so that they have a gradient. 0..1.
- ``spread``: pass@G - pass@1 within the step: share of groups with a success minus the share of successes. 0..1: 0 = every
  group is solved by all of its candidates or by none.
- ``entropy``: mean token entropy of the policy when it drew, nats, as the step's metrics have it; NaN where they have none.
- ``success``: share of candidates that succeed, 0..1.
"""

COLUMNS = ("step", "group", "success", "strategy", "credited", "drawn_under")
"""What ``of_rollouts`` reads of a run's rollouts."""


class Drawn(NamedTuple):
    """One group as the signals see it; every list has one entry a candidate.

    Attributes:
        strategies: None where unreadable.
        correct: whether it succeeded.
        credited: rewards after the rule for repeats.
        contexts: kinds of the contexts drawn under.
    """

    strategies: Sequence[Hashable | None]
    correct: Sequence[bool]
    credited: Sequence[float]
    contexts: Sequence[str]


def direct_of(sampler: SamplerConfig) -> bool:
    """Whether a sampler draws two or more candidates of every group under the task alone.

    Said by its settings, not by what a step happens to hold: signals that changed their meaning from step to step would look
    like collapse.
    """
    if sampler.name == "parallel":
        return True
    return math.ceil(sampler.on_policy_fraction * sampler.group_size - 1e-9) >= 2


def step_signals(groups: Iterable[Drawn], direct: bool, entropy: float = math.nan) -> dict[str, float]:
    """The signals of one step.

    Args:
        groups: drawn in this step; a group without candidates that count is left out.
        direct: whether only candidates drawn under the task alone count, see ``direct_of``.
        entropy: of the step's metrics, nats a token.

    Returns:
        ``SIGNALS`` -> value; NaN where undefined.
    """
    breadth, live, solved, correct = [], [], [], []
    for group in groups:
        # What decides whether a group has a gradient is all of it, whatever it was drawn under.
        live.append(len(set(group.credited)) > 1)
        kept = [i for i, kind in enumerate(group.contexts) if kind == "task" or not direct]
        if not kept:
            continue
        hits = [bool(group.correct[i]) for i in kept]
        solved.append(any(hits))
        correct.append(float(np.mean(hits)))
        counts = strategy_counts([group.strategies[i] for i in kept], hits)
        if len(counts):
            breadth.append(hill_number(counts, 1))
    return {
        "breadth": _mean(breadth),
        "live": _mean(live),
        "spread": _mean(solved) - _mean(correct),
        "entropy": float(entropy),
        "success": _mean(correct),
    }


def of_rollouts(rollouts: pd.DataFrame, direct: bool, entropy: Mapping[int, float] | None = None) -> pd.DataFrame:
    """The signals of every step of stored candidates, as training would have read them.

    Args:
        rollouts: columns ``COLUMNS``, one row a candidate, in the order drawn.
        direct: as in ``step_signals``.
        entropy: step -> mean token entropy, nats; None: unknown.

    Returns:
        One row a step, in order: ``step`` and ``SIGNALS``.

    Raises:
        InputError: a column is missing.
    """
    for name in COLUMNS:
        if name not in rollouts:
            raise InputError(f"rollouts have no column {name!r}; {suggest(name, [str(c) for c in rollouts.columns])}")
    known = entropy or {}
    rows = [
        {"step": step, **step_signals(groups, direct, known.get(step, math.nan))} for step, groups in _drawn(rollouts)
    ]
    return pd.DataFrame(rows, columns=["step", *SIGNALS])


def _drawn(rollouts: pd.DataFrame) -> Iterator[tuple[int, list[Drawn]]]:
    """Every step's groups, both in order. By slices of lists: a data frame a group takes ten times as long."""
    rows = rollouts.sort_values(["step", "group"], kind="stable")
    strategies = rows["strategy"].astype(object).where(rows["strategy"].notna(), None).tolist()
    others = [rows[name].tolist() for name in ("success", "credited", "drawn_under")]
    keys = rows[["step", "group"]].to_numpy()
    edges = [*np.flatnonzero((np.diff(keys, axis=0, prepend=keys[:1] - 1) != 0).any(axis=1)).tolist(), len(rows)]
    groups: list[Drawn] = []
    for start, end in itertools.pairwise(edges):
        groups.append(Drawn(strategies[start:end], *(column[start:end] for column in others)))
        if end == len(rows) or keys[end, 0] != keys[start, 0]:
            yield int(keys[start, 0]), groups
            groups = []


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan
