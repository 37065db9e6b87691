"""What became of a run, by its evaluations: the truth that the detector's alarms are judged by.

Evaluations are of the policy's own answers, exact or on held-out tasks; the detector reads training groups alone. The two
share no number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from sesa_lab.errors import InputError

COLLAPSED, HEALTHY = 0.6, 0.8
"""Final coverage as a share of the run's best: at most the first has collapsed, at least the second is healthy."""


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        kind: collapsed, healthy, or neither (a decline between the two).
        kept: final coverage (distinct correct strategies in k samples) as a share of the best, 0..1; NaN where it never was
            above 0, which is neither.
        onset: step of the first evaluation from which on coverage stays below ``HEALTHY`` of the best *before* it; None where
            the last evaluation does not. What was lost was lost after ``good`` and by ``onset``.
        good: step of the evaluation before it; None where there is no onset, or none before.
    """

    kind: Literal["collapsed", "healthy", "neither"]
    kept: float
    onset: int | None
    good: int | None = None


def outcome(evaluations: pd.DataFrame) -> Outcome:
    """What became of a run.

    Args:
        evaluations: columns ``step`` and ``coverage``, in order, at least two rows (``Run.evaluations``).

    Raises:
        InputError: fewer than two evaluations.
    """
    if len(evaluations) < 2:
        raise InputError(f"a run's outcome needs two evaluations or more, got {len(evaluations)}; let it train on")
    coverage = evaluations["coverage"].astype(float).to_numpy()
    best = float(coverage.max())
    if not best > 0.0:
        return Outcome("neither", math.nan, None)
    kept = float(coverage[-1]) / best
    peaks = evaluations["coverage"].astype(float).cummax().to_numpy()
    below = coverage < HEALTHY * peaks
    first = len(below)
    while first and below[first - 1]:
        first -= 1
    steps = [int(step) for step in evaluations["step"]]
    onset = steps[first] if first < len(below) else None
    good = steps[first - 1] if onset is not None and first else None
    return Outcome("collapsed" if kept <= COLLAPSED else "healthy" if kept >= HEALTHY else "neither", kept, onset, good)


def score_alarms(outcomes: Sequence[Outcome], alarms: Sequence[int | None]) -> dict[str, float]:
    """How well first alarms tell collapsed from healthy runs.

    Args:
        outcomes: of each run.
        alarms: step of each run's first alarm, or None.

    Returns:
        ``collapsed``, ``healthy`` and ``neither``: numbers of runs; ``detected``, ``false_alarms`` and ``neither_alarms``: how many
        of each had an alarm; ``premature``: of the detected, how many had it before the last evaluation that was still good.
        ``detected_low`` ... ``false_high``: ends of the 95 % Clopper-Pearson intervals of the shares detected and false.
        ``delay``: steps from the onset, which evaluations show up to one interval late, to the alarm: the median over the detected,
        ``delay_low`` and ``delay_high`` the lowest and highest. NaN where there is none.
    """
    pairs = list(zip(outcomes, alarms, strict=True))
    found = {kind: sum(own.kind == kind for own, _ in pairs) for kind in ("collapsed", "healthy", "neither")}
    caught = {kind: sum(own.kind == kind and alarm is not None for own, alarm in pairs) for kind in found}
    collapsed = [(own, alarm) for own, alarm in pairs if own.kind == "collapsed" and alarm is not None]
    delays = sorted(alarm - own.onset for own, alarm in collapsed if own.onset is not None)
    return {
        **found,
        "detected": caught["collapsed"],
        "premature": sum(own.good is not None and alarm < own.good for own, alarm in collapsed),
        "false_alarms": caught["healthy"],
        "neither_alarms": caught["neither"],
        **_share("detected", caught["collapsed"], found["collapsed"]),
        **_share("false", caught["healthy"], found["healthy"]),
        "delay": float(pd.Series(delays, dtype=float).median()),
        "delay_low": float(delays[0]) if delays else math.nan,
        "delay_high": float(delays[-1]) if delays else math.nan,
    }


def _share(name: str, some: int, of: int) -> dict[str, float]:
    """Ends of the exact 95 % interval of some / of."""
    from scipy.stats import binomtest  # loads slowly, and a training loop does not need it

    if not of:
        return {f"{name}_low": math.nan, f"{name}_high": math.nan}
    ends = binomtest(some, of).proportion_ci()
    return {f"{name}_low": float(ends.low), f"{name}_high": float(ends.high)}
