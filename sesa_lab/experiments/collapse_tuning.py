"""How the detector's thresholds were chosen: a grid, on runs apart from those that are reported, before any of these was looked at.

The rule: of the thresholds that err on no run, neither missing a collapse nor alarming in a healthy run, whose neighbours in slack
of breadth and in patience do not either, whose patience is not the grid's least, and with two votes or more: those of the smallest
longest delay, then of the smallest median one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sesa_lab.collapse import Thresholds, detect, score_alarms
from sesa_lab.experiments.collapse_tables import Looked, look
from sesa_lab.experiments.jobs import Job

GRID: dict[str, tuple[float, ...]] = {
    "breadth": (0.1, 0.15, 0.2, 0.25, 0.3),
    "live": (0.2, 0.3, 0.5),
    "spread": (0.5, 0.7),
    "entropy": (0.5, 0.7),
    "patience": (0.5, 1.0, 2.0, 4.0),
    "votes": (1, 2, 3),
    "smoothing": (5.0, 10.0),
}
"""Slack of four signals, and the other thresholds. Slack of success and the warm-up are not searched."""


def grid(jobs: Sequence[Job]) -> pd.DataFrame:
    """One row a point of the grid.

    Columns: ``GRID``'s names, ``collapse.score_alarms``, ``errors``, and ``errors_near``: the most of itself and of the
    next points in breadth and in patience.
    """
    looked = look(job.folder for job in jobs)
    rows = pd.DataFrame([dict(zip(GRID, point, strict=True)) for point in itertools.product(*GRID.values())])
    scores = pd.DataFrame([_scores(looked, row) for row in rows.to_dict("records")])
    found = pd.concat([rows, scores], axis=1)
    found["errors"] = found["collapsed"] - found["detected"] + found["false_alarms"]
    others = [name for name in GRID if name not in ("breadth", "patience")]
    near = []
    for _, part in found.groupby(others, sort=False):
        table = part.pivot(index="breadth", columns="patience", values="errors")
        values = np.pad(table.to_numpy(), 1)  # what lies beyond the grid does not count
        worst = np.max(
            [values[1:-1, 1:-1], values[:-2, 1:-1], values[2:, 1:-1], values[1:-1, :-2], values[1:-1, 2:]], axis=0
        )
        worst = pd.DataFrame(worst, table.index, table.columns)
        near += [(at, int(worst.at[found.at[at, "breadth"], found.at[at, "patience"]])) for at in part.index]
    return found.assign(errors_near=pd.Series(dict(near)))


def chosen(found: pd.DataFrame) -> Thresholds:
    """What the rule picks of ``grid``."""
    inner = found[(found["patience"] > min(GRID["patience"])) & (found["votes"] >= 2) & (found["errors_near"] == 0)]
    best = inner.sort_values(["delay_high", "delay"], kind="stable").iloc[0]
    return _thresholds(best.to_dict())


def _scores(looked: Sequence[Looked], row: dict[Any, Any]) -> dict[str, float]:
    thresholds = _thresholds(row)
    alarms = []
    for each in looked:
        raised = detect(each.signals, thresholds)[0]
        alarms.append(raised[0].step if raised else None)
    return score_alarms([each.outcome for each in looked if each.outcome is not None], alarms)


def _thresholds(row: dict[Any, Any]) -> Thresholds:
    usual = Thresholds()
    slack = {**usual.slack, **{name: float(row[name]) for name in ("breadth", "live", "spread", "entropy")}}
    return Thresholds(float(row["smoothing"]), slack, float(row["patience"]), int(row["votes"]), usual.warmup)
