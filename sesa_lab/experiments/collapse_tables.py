"""What the detector says of stored runs, beside what became of them: tables and figures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sesa_lab import runs
from sesa_lab.collapse import COLUMNS, Alarm, Outcome, Thresholds, detect, direct_of, of_rollouts, outcome
from sesa_lab.config import Config
from sesa_lab.errors import InputError
from sesa_lab.plots import collapse as plot
from sesa_lab.training.watch import thresholds as watched_by


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

    As while training, a run that was switched is looked at anew from there on.

    Args:
        paths: run folders.
        thresholds: of the detector; None: those that each run was watched by, or the defaults.

    Raises:
        InputError: no run folder, or a damaged one.
    """
    found = []
    for path in paths:
        run = runs.load(path)
        own = thresholds or (watched_by(run.config.watch) if run.config.watch.on_alarm != "none" else None)
        rollouts = run.read_rollouts(list(COLUMNS))
        entropy = dict(zip(run.steps["step"], run.steps["entropy"], strict=True))
        alarms, traced = [], []
        for config, part in _stretches(run, rollouts):
            raised, signals = detect(of_rollouts(part, direct_of(config.sampler), entropy), own)
            alarms += raised
            traced.append(signals)
        evaluations = _with_past(run)
        became = outcome(evaluations) if len(evaluations) > 1 else None
        found.append(Looked(run, alarms, pd.concat(traced, ignore_index=True), became))
    return found


def _stretches(run: runs.Run, rollouts: pd.DataFrame) -> list[tuple[Config, pd.DataFrame]]:
    """The settings a run had, and its candidates under them: one stretch, or two where it was switched."""
    last = run.switched_after
    if last is None:
        return [(run.config, rollouts)]
    before = rollouts["step"] <= last
    return [(run.config, rollouts[before]), (run.config_at(last + 1), rollouts[~before])]


def _with_past(run: runs.Run) -> pd.DataFrame:
    """A run's evaluations after those of the runs that it comes from, as far as these are still there, and the same."""
    columns, origin = ["step", "coverage"], run.lineage
    own = run.evaluations[columns]
    if origin is None:
        return own
    try:
        past = _with_past(runs.load(origin.checked().run))
    except InputError:  # gone, moved or made anew: what became of it is then said of this run alone
        return own
    return pd.concat([past[past["step"] < origin.step], own], ignore_index=True)


def _names(looked: Sequence[Looked]) -> list[str]:
    """What tells the runs apart: their paths below the folder that they have in common."""
    paths = [each.run.path.resolve() for each in looked]
    common = Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()
    return [str(path.relative_to(common)) for path in paths]


def table(looked: Sequence[Looked]) -> pd.DataFrame:
    """One row a run: outcome, coverage kept, when it was lost, first alarm and its change point, signals that were down."""
    rows = []
    for name, each in zip(_names(looked), looked, strict=True):
        alarm, became = (each.alarms[0] if each.alarms else None), each.outcome
        rows.append(
            {
                "run": name,
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
    named = [(name, each) for name, each in zip(_names(looked), looked, strict=True) if len(each.signals)]
    if not named:
        raise InputError("none of the runs has a committed step yet; let them train on")
    parts = [each.signals.assign(run=name) for name, each in named]
    marks = [(name, alarm.onset, alarm.step) for name, each in named for alarm in each.alarms]
    return plot.signals(pd.concat(parts, ignore_index=True), marks, caption)


def _text(value: int | None) -> str:
    return "" if value is None else str(value)
