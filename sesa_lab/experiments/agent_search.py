"""Which learning rate each of the agents' arms takes: from the runs of the search to lines that can be pasted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sesa_lab import plots
from sesa_lab.errors import InputError
from sesa_lab.experiments import tables
from sesa_lab.experiments.agent_tables import MEASURES as MEASURES_SHOWN
from sesa_lab.experiments.agents import BASES, LABELS
from sesa_lab.experiments.jobs import Job
from sesa_lab.experiments.matrix import read

MEASURES = ("accuracy", "pass_at_64")

SLACK = 0.05
"""How far below an arm's best mean pass@1 a rate may be and still be picked."""


def cells(last: pd.DataFrame) -> pd.DataFrame:
    """The rows of a search with what their names say: columns task, base, arm, rate and the measures.

    Args:
        last: as ``scores`` takes it.
    """
    names = last["arm"].str.partition("@")
    groups = last["group"].str.split("-", n=2, expand=True)
    return last.assign(arm=names[0], rate=names[2].astype(float), task=groups[1], base=groups[2])


def scores(last: pd.DataFrame) -> pd.DataFrame:
    """Every searched rate's mean over tasks and seeds: columns base, arm, rate, accuracy, pass_at_64.

    Args:
        last: validation measures at the last step: columns arm ('NAME@RATE'), seed, group ('search-TASK-BASE'), accuracy,
            pass_at_64.

    Raises:
        InputError: rates of one arm and base that were not run on the same tasks and seeds.
    """
    frame = cells(last)
    for (base, arm), part in frame.groupby(["base", "arm"], sort=False):
        behind = part.groupby("rate")[["task", "seed"]].apply(lambda own: frozenset(own.itertuples(index=False)))
        if behind.nunique() > 1:
            raise InputError(
                f"{arm} on the {base} base: its rates have different tasks or seeds behind them, expected the same:"
                " run the search again, it does what is missing"
            )
    return frame.groupby(["base", "arm", "rate"], sort=False)[list(MEASURES)].mean().reset_index()


def picked(last: pd.DataFrame) -> pd.DataFrame:
    """The rate of each base and arm, by the rule of ``tables.picked``.

    From means over the tasks and seeds of the search, on validation tasks at the last step: among the rates whose pass@1 is
    within ``SLACK`` of the arm's best, the one of highest pass@64; of equal ones that of the higher pass@1, then the smaller
    rate. So every arm gives up at most ``SLACK`` of the pass@1 it can reach for being as broad as it can.

    Args:
        last: as ``scores`` takes it.

    Returns:
        One row a base and arm: the columns of ``scores``.
    """
    found = scores(last).sort_values(
        ["accuracy", "rate"], ascending=[False, True]
    )  # of equal pass@64 the first is picked
    found["pass_at_64"] = found["pass_at_64"].round(12)
    best = found.groupby(["base", "arm"])["accuracy"].transform("max")
    enough = found[found["accuracy"] >= best - SLACK]
    chosen = enough.groupby(["base", "arm"])["pass_at_64"].idxmax()
    return found.loc[sorted(chosen)].reset_index(drop=True)


def table(last: pd.DataFrame) -> pd.DataFrame:
    """Base and arm x rate, each 'pass@1 / pass@64', the picked one with a star."""
    chosen = set(picked(last)[["base", "arm", "rate"]].itertuples(index=False, name=None))
    frame = scores(last)
    frame["text"] = [
        f"{row.accuracy:.3f} / {row.pass_at_64:.3f}" + "*" * ((row.base, row.arm, row.rate) in chosen)
        for row in frame.itertuples(index=False)
    ]
    wide = frame.pivot_table("text", ["base", "arm"], "rate", aggfunc="first", sort=False)
    return wide.reindex(columns=sorted(wide.columns)).rename(columns="{:g}".format)


def pasted(last: pd.DataFrame) -> str:
    """The picked rates of a search, as lines of ``agents._RATES``: one an arm, one column a base that was searched."""
    rates = picked(last).set_index(["base", "arm"])["rate"]
    lines = []
    for arm in dict.fromkeys(rates.index.get_level_values("arm")):
        searched = [rates[base, arm] for base in BASES if (base, arm) in rates.index]
        values = [np.format_float_scientific(rate, trim="-", exp_digits=1) for rate in searched]
        lines.append(f'    "{arm}": ({", ".join(values)}{"," * (len(values) == 1)}),')
    return "\n".join(lines)


def draw(jobs: Sequence[Job]) -> Any:
    """Every searched run's last policy in the plane of pass@1 and pass@64, a panel a task and base, an arm's rates joined.

    What a single choice of learning rates hides: how far each arm can trade one for the other.
    """
    evaluations, loaded = read(jobs)
    steps = max(job.config.run.steps for job in jobs)
    ends = cells(evaluations[evaluations["step"] == steps])
    starts = cells(evaluations[evaluations["step"] == 0]).drop_duplicates("group").assign(arm=plots.START)
    frame = pd.concat([starts, ends], ignore_index=True)
    headings = {name: MEASURES_SHOWN[name] for name in MEASURES}
    shown = frame.assign(arm=frame["arm"].replace(LABELS), panel=frame["task"] + ", " + frame["base"] + " base").rename(
        columns={**headings, "rate": "learning rate"}
    )
    caption = tables.source(jobs, loaded, "validation tasks; larger markers: larger learning rates; crosses: untrained")
    x, y = headings.values()
    return plots.planes(shown, x, y, "learning rate", "What each arm can reach, by learning rate", caption)
