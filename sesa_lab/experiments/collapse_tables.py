"""What the detector says of stored runs, beside what became of them: tables and figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sesa_lab import runs
from sesa_lab.collapse import COLUMNS, Alarm, Outcome, Thresholds, detect, of_rollouts, outcome
from sesa_lab.errors import InputError
from sesa_lab.plots import collapse as plot


@dataclass(frozen=True)
class Looked:
    """One run as the detector sees it.

    Attributes:
        run: the run.
        alarms: all of them.
        signals: one row a step, as ``collapse.detect`` returns it.
        outcome: what became of it, by its own evaluations and, where it began at another run's checkpoint, that run's before;
            None: fewer than two.
    """

    run: runs.Run
    alarms: list[Alarm]
    signals: pd.DataFrame
    outcome: Outcome | None


def look(paths: Iterable[Path], thresholds: Thresholds | None = None) -> list[Looked]:
    """Read runs, their candidates' few columns at a time.

    Raises:
        InputError: no run folder, or a damaged one.
    """
    found = []
    for path in paths:
        run = runs.load(path)
        entropy = dict(zip(run.steps["step"], run.steps["entropy"], strict=True))
        signals = of_rollouts(run.read_rollouts(list(COLUMNS)), entropy)
        alarms, traced = detect(signals, thresholds)
        evaluations = _with_past(run)
        found.append(Looked(run, alarms, traced, outcome(evaluations) if len(evaluations) > 1 else None))
    return found


def _with_past(run: runs.Run) -> pd.DataFrame:
    """A run's evaluations after those of the runs that it comes from, as far as their folders are still there."""
    columns, origin = ["step", "coverage"], run.lineage
    own = run.evaluations[columns]
    if origin is None or not Path(origin.run).is_dir():
        return own
    past = _with_past(runs.load(origin.run))
    return pd.concat([past[past["step"] < origin.step], own], ignore_index=True)


def table(looked: Sequence[Looked]) -> pd.DataFrame:
    """One row a run: outcome, coverage kept, when it was lost, first alarm and its change point, signals that were down."""
    rows = []
    for each in looked:
        alarm, became = (each.alarms[0] if each.alarms else None), each.outcome
        rows.append(
            {
                "run": each.run.path.name,
                "steps": len(each.signals),
                "outcome": became.kind if became else "unknown",
                "coverage kept": f"{became.kept:.2f}" if became else "",
                "lost from step": _text(became.onset if became else None),
                "alarm": _text(alarm.step if alarm else None),
                "change point": _text(alarm.onset if alarm else None),
                "down": ", ".join(alarm.down) if alarm else "",
            }
        )
    return pd.DataFrame(rows)


def figure(looked: Sequence[Looked], caption: str | None = None) -> Any:
    """Every run's signals as shares of their best, alarms marked, one column a run."""
    if not looked:
        raise InputError("no runs to draw; expected at least one")
    parts = [each.signals.assign(run=each.run.path.name) for each in looked]
    marks = [(each.run.path.name, alarm.onset, alarm.step) for each in looked for alarm in each.alarms]
    return plot.signals(pd.concat(parts, ignore_index=True), marks, caption)


def _text(value: int | None) -> str:
    return "" if value is None else str(value)
