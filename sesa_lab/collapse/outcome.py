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
            the last evaluation does not.
    """

    kind: Literal["collapsed", "healthy", "neither"]
    kept: float
    onset: int | None


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
    onset = int(evaluations["step"].iloc[first]) if first < len(below) else None
    return Outcome("collapsed" if kept <= COLLAPSED else "healthy" if kept >= HEALTHY else "neither", kept, onset)


def score_alarms(kinds: Sequence[str], alarms: Sequence[int | None], onsets: Sequence[int | None]) -> dict[str, float]:
    """How well first alarms tell collapsed from healthy runs.

    Args:
        kinds: ``Outcome.kind`` of each run; ``neither`` is counted apart.
        alarms: step of each run's first alarm, or None.
        onsets: ``Outcome.onset`` of each.

    Returns:
        ``collapsed``, ``healthy`` and ``neither``: numbers of runs. ``detected`` and ``false_alarms``: how many of the first two
        had an alarm. ``delay``: steps from the onset to the alarm, the median over the detected; ``delay_low`` and
        ``delay_high``: the lowest and highest; negative: before coverage has left the healthy range; NaN where nothing is
        detected.
    """
    delays = sorted(
        alarm - onset
        for kind, alarm, onset in zip(kinds, alarms, onsets, strict=True)
        if kind == "collapsed" and alarm is not None and onset is not None
    )
    kinds = list(kinds)
    alarmed = [kind for kind, alarm in zip(kinds, alarms, strict=True) if alarm is not None]
    return {
        "collapsed": kinds.count("collapsed"),
        "detected": alarmed.count("collapsed"),
        "healthy": kinds.count("healthy"),
        "false_alarms": alarmed.count("healthy"),
        "neither": kinds.count("neither"),
        "delay": float(pd.Series(delays, dtype=float).median()),
        "delay_low": float(delays[0]) if delays else math.nan,
        "delay_high": float(delays[-1]) if delays else math.nan,
    }
