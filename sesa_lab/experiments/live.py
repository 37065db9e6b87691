"""Curves that grow while runs train: one plotly figure in the notebook, redrawn from the run folders.

A plain figure under a display id, not a widget: what is left in the saved notebook is the last state, and it reopens
without a kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from IPython import get_ipython
from IPython.display import display

from sesa_lab import plots, runs
from sesa_lab.errors import InputError
from sesa_lab.experiments import agents, path_exploration
from sesa_lab.experiments.jobs import Job
from sesa_lab.plots import notebook

LABELS = {**path_exploration.LABELS, **agents.LABELS}
"""What the curves call the arms of either kind of experiment; no name is of both."""


class LiveCurves:
    """Give it to ``execute(jobs, watch=...)``; called again and again, it redraws when there is news."""

    def __init__(self, jobs: Sequence[Job], column: str, unit: str = "") -> None:
        """``column`` is a measure of the evaluations; arms are lines, seeds make the band.

        Its place is that where it is made: above the progress of ``execute``, which would be torn in two by a later one.
        """
        self.jobs, self.column, self.unit = jobs, column, unit
        self.rows = -1
        self.handle: Any = None
        if get_ipython() is not None:
            self.handle = display({"text/plain": ""}, raw=True, display_id=True)  # type: ignore[no-untyped-call]

    def __call__(self) -> None:
        found = [_evaluations(job) for job in self.jobs]
        table = pd.concat([frame for frame in found if frame is not None] or [_EMPTY])
        if len(table) in (0, self.rows):
            return
        self.rows = len(table)
        of_agents = set(table["arm"]) <= set(agents.LABELS)
        table = table.assign(arm=agents.labelled(table["arm"]) if of_agents else table["arm"].replace(LABELS))
        begun = sum(frame is not None for frame in found)
        title = f"live: {self.column.replace('_', ' ')}, {begun} of {len(self.jobs)} runs begun"
        figure = plots.curves(table, self.column, title=title, unit=self.unit, caption="as far as the runs have come")
        if self.handle is not None:  # None outside of IPython
            notebook.redraw(self.handle, notebook.bundle(figure))


_EMPTY = pd.DataFrame({"arm": [], "seed": [], "step": []})


def _evaluations(job: Job) -> pd.DataFrame | None:
    try:
        frame = runs.load(job.folder).evaluations
    except InputError:  # not begun, or its folder is being made this moment
        return None
    return frame.assign(arm=job.arm, seed=job.seed) if len(frame) else None
