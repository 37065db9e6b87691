"""The panel: controls, and below them what they change; a click on a cell chooses it. Reads runs; nothing is trained."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import pandas as pd
import plotly.graph_objects as go
import traitlets as t

from sesa_lab.errors import InputError
from sesa_lab.microscope import figures
from sesa_lab.microscope.data import SOURCES, Heat, Selection, View, heat, paths, read, samples
from sesa_lab.plots import notebook
from sesa_lab.plots.live_figure import Hit, LiveFigure
from sesa_lab.plots.panel import Panel, cut, sample_table
from sesa_lab.plots.theme import OTHERS, UNREADABLE, escape
from sesa_lab.runs.load import Run

_ALL = -1  # of a dropdown None means that nothing is chosen


class CollapseMicroscope(Panel):
    """One run, or two linked on one training step: strategies x time, curves with alarms, and the samples behind a cell.

    Where answers are places of a tree (``path_exploration``), the policy's mass on it stands below.

    A click on a cell chooses its run, step and strategy; the controls and ``select`` do the same.

    A live panel is gone from an exported notebook: end a cell with ``microscope.heat_map().show()`` (or ``curves()``) to keep
    what it shows.

    Attributes:
        views: the runs as they were read.
        controls: the controls by the name of what they set.
        heat: strategies and shares that are shown.
        selected: the chosen samples, a ``Selection``; observe it to be told.
    """

    selected = t.Instance(Selection, allow_none=True)

    def __init__(self, shown: Run | str | Path | Sequence[Run | str | Path], inspector: Any = None) -> None:
        """Read the runs and draw.

        Args:
            shown: one or two runs, or their folders.
            inspector: a ``SketchInspector`` whose first run is the first of these; it is moved to what is selected. Of the second
                run's samples it shows those of a task that the first run has at that step too.

        Raises:
            InputError: no run or more than two, no run there, or one without committed candidates.
        """
        given = [shown] if isinstance(shown, (Run, str, Path)) else list(shown)
        if not 1 <= len(given) <= 2:
            raise InputError(f"expected one or two runs, got {len(given)}")
        self.views: list[View] = [read(run) for run in given]
        self.inspector = inspector
        self.controls = _controls(self.views)
        self._lock = (
            threading.RLock()
        )  # callbacks may come from a thread of their own, beside a cell that sets a control
        self._drawn: dict[str, Any] = {}
        self._said = widgets.HTML()
        self._samples = widgets.HTML()
        self._below, self._tree = widgets.Output(), widgets.Output()
        self._paths = paths(self.views)
        self.heat: Heat = self._heat()
        self._list(self._selection())
        self._map = LiveFigure(self.heat_map(), on_click=self._clicked)
        wide = {"layout": {"flex_flow": "row wrap"}}
        first = widgets.HBox([self.controls[name] for name in ("step", "source", "most", "success")], **wide)
        second = widgets.HBox([self.controls[name] for name in ("run", "strategy")], **wide)
        super().__init__([first, second, self._map.plot, self._below, self._tree, self._said, self._samples])
        for control in self.controls.values():
            control.observe(self._changed, names="value")
        self._show()

    def heat_map(self) -> go.Figure:
        """The strategies under the present settings."""
        row = self.controls["strategy"].value
        return figures.heat_map(
            self.views, self.heat, self.controls["source"].value, self._step, row if row >= 0 else None
        )

    def curves(self) -> go.Figure:
        """The curves, with the chosen step."""
        return figures.curves(self.views, self._step)

    def tree(self) -> go.Figure:
        """The policy's mass on the tree of places at the chosen step.

        Raises:
            InputError: the answers are no places of a tree, or their masses are not known.
        """
        if self._paths is None:
            raise InputError(
                "these runs' answers are no paths of a tree with exact masses, as those of path_exploration are; look at"
                " heat_map() instead"
            )
        return figures.tree(self.views, self._paths, self._step)

    def select(self, step: int, strategy: str | None = None, run: int = 0) -> None:
        """Choose a cell from code.

        Args:
            step: one that some run has.
            strategy: one of those shown; None: all.
            run: place of the run among those shown.

        Raises:
            InputError: what is not there to be chosen.
        """
        with self._lock:
            place = _ALL
            if strategy is not None:
                if strategy not in self.heat.names:
                    raise InputError(
                        f"strategy {strategy!r} is not among the {len(self.heat.names)} shown; show more of them"
                    )
                place = self.heat.names.index(strategy)
            self._choose({"step": step, "run": run, "strategy": place})

    def _choose(self, wanted: Mapping[str, int]) -> None:
        """Set several controls at once.

        Raises:
            InputError: what is not there to be chosen; nothing is changed then.
        """
        with self._lock:
            for name, value in wanted.items():
                known = [option[1] if isinstance(option, tuple) else option for option in self.controls[name].options]
                if value not in known:
                    raise InputError(
                        f"{name} {value} is not there to be chosen; expected one of {known[0]} .. {known[-1]}"
                    )
            with self._quietly():
                for name, value in wanted.items():
                    self.controls[name].value = value
            self._show()

    def _clicked(self, hit: Hit) -> None:
        """Choose the cell; where its step or its row is none to be chosen, say why and leave everything as it is."""
        with self._lock:
            row, step = int(hit.y), int(hit.x)
            names = [*self.heat.names, *self.heat.rest]
            why = ""
            if step not in self.controls["step"].options:
                why = f"step {step} was evaluated, but no candidates were drawn there: choose another step"
            elif row >= len(self.heat.names) and names[row] == OTHERS:
                why = "others are many strategies: show more of them to choose one"
            if why:
                self._said.value = f"<b>{escape(why, 200)}</b>"
                self._samples.value = ""
                return
            self._choose({"run": hit.trace // figures.TRACES_A_RUN, "step": step, "strategy": row})

    @property
    def _step(self) -> int:
        return int(self.controls["step"].value)

    def _heat(self) -> Heat:
        own = self.controls
        return heat(self.views, own["source"].value, own["most"].value, own["success"].value)

    def _changed(self, change: Any) -> None:
        with self._lock:
            if self._quiet:
                return
            if change["owner"] in (self.controls["source"], self.controls["most"], self.controls["success"]):
                chosen = self._selection()  # by the rows as they were
                self.heat = self._heat()
                self._list(chosen)
            self._show()

    def _list(self, chosen: Selection) -> None:
        """List the strategies that have a row; the chosen one stays chosen where it has one."""
        names, rest = self.heat.names, self.heat.rest
        listed = list(enumerate(names))
        # Others are not to be chosen: who they are depends on how many are shown.
        listed += [(len(names) + rest.index(UNREADABLE), UNREADABLE)] if UNREADABLE in rest else []
        kept = names.index(chosen.strategy) if chosen.strategy in names else _ALL
        if chosen.unreadable and UNREADABLE in rest:
            kept = listed[-1][0]
        control = self.controls["strategy"]
        with self._quietly():
            control.options = [("all", _ALL), *((f"{place + 1}. {escape(name, 60)}", place) for place, name in listed)]
            control.value = kept

    def _show(self) -> None:
        """Draw, list the samples, tell the inspector and who observes."""
        self._map.draw(self.heat_map())
        drawn = notebook.bundle(self.curves())
        if self._drawn != drawn:
            self._drawn = drawn
            notebook.fill(self._below, drawn)
            if self._paths is not None:
                notebook.fill(self._tree, notebook.bundle(self.tree()))
        chosen = self._selection()
        view = self.views[chosen.run]
        rows = samples(view, chosen)
        self._said.value = _said(view, chosen, len(rows))
        self._samples.value = sample_table(rows)
        if self.inspector is not None:
            self._move(chosen, rows)
        self.selected = chosen

    def _selection(self) -> Selection:
        place, own = self.controls["strategy"].value, self.controls
        named = 0 <= place < len(self.heat.names)
        return Selection(
            run=own["run"].value,
            step=self._step,
            strategy=self.heat.names[place] if named else None,
            unreadable=place != _ALL and not named,
            success=own["success"].value,
        )

    def _move(self, chosen: Selection, rows: pd.DataFrame) -> None:
        """Show the first group with such a sample in the inspector; where it cannot, say why and leave it as it is."""
        outcome = "unreadable" if chosen.unreadable else "solved" if chosen.success else "all"
        there = rows
        if chosen.run:
            # The inspector's groups are those of the first run; the second follows it by the task.
            first = samples(self.views[0], Selection(0, chosen.step))
            there = first[first["task"].isin(rows["task"])]
        if not len(there):
            return
        try:
            self.inspector.step = chosen.step
            self.inspector.group = int(there["group"].iloc[0])
            self.inspector.filter = {**self.inspector.filter, "strategy": chosen.strategy, "outcome": outcome}
        except InputError as error:
            self._said.value += f"<br><small>inspector: {escape(error, 300)}</small>"


def _controls(views: Sequence[View]) -> dict[str, Any]:
    steps = sorted({step for view in views for step in view.steps})
    shared = sorted(set.intersection(*(set(view.steps) for view in views)))
    names = {"candidates": "candidates of a step", "answers": "evaluated answers"}
    sources = [(names[source], source) for source in SOURCES if all(len(view.shares[source]) for view in views)]
    # Exact masses show the policy itself, not what a few draws took.
    start = "answers" if len(sources) > 1 and all(view.exact for view in views) else "candidates"
    labels = [(f"{place + 1}. {escape(view.run.label, 60)}", place) for place, view in enumerate(views)]
    style = {"description_width": "70px"}
    return {
        "step": widgets.SelectionSlider(
            options=steps, value=(shared or steps)[-1], description="step", continuous_update=False, style=style,
            layout={"width": "420px"},
        ),
        "source": widgets.Dropdown(options=sources, value=start, description="shares of", style=style, layout={"width": "270px"}),
        "most": widgets.BoundedIntText(
            value=12, min=1, max=60, description="strategies", style=style, layout={"width": "140px"}
        ),
        "success": widgets.Checkbox(value=False, description="success only", indent=False, layout={"width": "130px"}),
        "run": widgets.Dropdown(options=labels, value=0, description="run", style=style, layout={"width": "420px"}),
        "strategy": widgets.Dropdown(
            options=[("all", _ALL)], value=_ALL, description="strategy", style=style, layout={"width": "420px"}
        ),
    }  # fmt: skip


def _said(view: View, chosen: Selection, found: int) -> str:
    if chosen.step not in view.steps:
        return f"<b>{escape(view.run.label)} has no candidates at step {chosen.step}</b>; its last step is {view.steps[-1]}"
    who = (
        "unreadable" if chosen.unreadable else "all strategies" if chosen.strategy is None else escape(chosen.strategy)
    )
    only = ", successes only" if chosen.success else ""
    return f"<b>{escape(view.run.label)}, step {chosen.step}, {who}{only}: {found} candidates</b>{cut(found)}"
