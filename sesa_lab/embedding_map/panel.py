"""The panel: controls, the map, and the samples that were selected in it. Reads a run; nothing is trained."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import traitlets as t
from numpy.typing import NDArray

from sesa_lab.diversity.embeddings import DEFAULT
from sesa_lab.embedding_map import data, figures
from sesa_lab.embedding_map.data import Embedder, Of, Places, Points, Projection
from sesa_lab.embedding_map.link import Link, Place, check_among
from sesa_lab.errors import InputError, suggest
from sesa_lab.plots.live_figure import Hit, LiveFigure
from sesa_lab.plots.panel import Panel, cut, reload_button, sample_table
from sesa_lab.plots.theme import escape
from sesa_lab.runs.load import Run, load

ALL, ONE, UP_TO = "all steps", "one step", "up to a step"


class EmbeddingMap(Panel):
    """The texts of a run as points, near where their embeddings are; a lasso, a box or a click lists the samples.

    A live panel is gone from an exported notebook: end a cell with ``the_map.figure().show()`` to keep what it shows.

    Attributes:
        points: the sample, as it was read.
        controls: the controls by the name of what they set: ``colour``, ``projection``, ``steps`` (``ALL``, ``ONE`` or
            ``UP_TO``), ``step``, ``success``.
        selected: the selected rows of ``points.table``, whose index they keep; observe it to be told.
        link: moves the inspector through what is selected, if there is one.
    """

    selected = t.Instance(pd.DataFrame)

    def __init__(
        self,
        run: Run | str | Path,
        *,
        of: Of = "solutions",
        most: int = 2000,
        embedder: Embedder = DEFAULT,
        projection: Projection = "pca",
        inspector: Any = None,
        seed: int = 0,
        cache: str | Path | None = None,
    ) -> None:
        """Read, embed, project and draw.

        Args:
            run: a run or its folder.
            of: ``solutions`` or ``sketches``.
            most: texts that are shown, a sample balanced over steps.
            embedder: model of ``diversity.embed``, or a function from texts to (texts, d) vectors.
            projection: ``pca`` or ``tsne``, which takes longer.
            inspector: a ``SketchInspector`` that shows this run, alone or beside another; it is moved to the first of what is
                selected, and by two buttons through the others.
            seed: of the sample, the clusters and t-SNE.
            cache: file that keeps vectors; None: ``embeddings.sqlite`` beside the run folder.

        Raises:
            InputError: no run there, nothing to be mapped in it, an inspector of another run, or an argument out of range.
        """
        if projection not in data.PROJECTIONS:  # before anything is embedded
            raise InputError(f"projection {projection!r}; {suggest(str(projection), list(data.PROJECTIONS))}")
        run = run if isinstance(run, Run) else load(run)
        self.link = Link(inspector)
        if inspector is not None:
            said = "the inspector is of {known}, the map of {found}: open the inspector on the map's run, SketchInspector(run)"
            check_among([run], self.link.runs, said)
        self._read = partial(data.read, of=of, most=most, embedder=embedder, seed=seed, cache=cache)
        self.points: Points = self._read(run)
        self._places: dict[Projection, Places] = {}
        self._clusters: NDArray[np.int64] | None = None
        # Callbacks may come from a thread of their own, beside a cell that sets a control.
        self._lock = threading.RLock()
        self._said, self._samples = widgets.HTML(), widgets.HTML()
        self.controls = _controls(self.points, projection)
        nothing = self.points.table.iloc[:0]
        self.selected = nothing
        self._map = LiveFigure(self.figure(), on_click=self._clicked, on_select=self._lassoed)
        wide = {"layout": {"flex_flow": "row wrap"}}
        again = reload_button(self.reload)
        first = widgets.HBox([*(self.controls[name] for name in ("colour", "projection", "success")), again], **wide)
        second = widgets.HBox([self.controls[name] for name in ("steps", "step")], **wide)
        shown = [first, second, self._map.plot, self._said, self.link.box, self._samples]
        super().__init__(shown, selected=nothing)
        for control in self.controls.values():
            control.observe(self._changed, names="value")
        self._tell()

    def figure(self) -> go.Figure:
        """The map under the present settings, with what is selected, as a plain figure for a report."""
        own = self.controls
        colour, projection = own["colour"].value, own["projection"].value
        if projection not in self._places:
            self._places[projection] = data.place(self.points, projection)
        if colour == "cluster" and self._clusters is None:
            self._clusters = data.clusters(self.points)
        return figures.figure(
            self.points,
            self._places[projection],
            colour,
            self._shown(),
            self._clusters if colour == "cluster" else None,
            self.selected.index.tolist() if len(self.selected) else None,
            self._range(),
        )

    def select(self, rows: Sequence[int]) -> None:
        """Select points from code.

        Args:
            rows: of ``points.table``, by its index; those of which are shown; none: nothing is selected.

        Raises:
            InputError: a row that is not there, or not shown.
        """
        with self._lock:
            shown = self._shown()
            for row in rows:
                if not 0 <= row < len(shown) or not shown[row]:
                    raise InputError(f"row {row} is not shown; expected one of the {int(shown.sum())} shown points")
            self._choose(rows)
            self._map.draw(self.figure())

    def reload(self) -> None:
        """Read the run again, for it may have grown: another sample, embedded and placed anew; what stays in it stays selected.

        Raises:
            InputError: the run is not there any more, or damaged; nothing is changed then.
        """
        with self._lock:
            points = self._read(load(self.points.run.path))
            self.link.refresh()
            key = ["step", "group", "index"]
            chosen = pd.MultiIndex.from_frame(self.selected[key])
            own = self.controls["step"]
            last = own.value == self.points.steps[-1]
            step = points.steps[-1] if last or own.value not in points.steps else own.value
            self.points, self._places, self._clusters = points, {}, None
            with self._quietly():
                own.options, own.value = points.steps, step
            there = pd.MultiIndex.from_frame(points.table[key])
            self._choose(np.flatnonzero(there.isin(chosen) & self._shown()).tolist())
            self._map.draw(self.figure())

    def _shown(self) -> NDArray[np.bool_]:
        table, own = self.points.table, self.controls
        step, steps = own["step"].value, table["step"].to_numpy()
        shown = {ALL: np.ones(len(table), dtype=bool), ONE: steps == step, UP_TO: steps <= step}[own["steps"].value]
        return np.asarray(shown & table["success"].to_numpy(dtype=bool) if own["success"].value else shown)

    def _range(self) -> str:
        own = self.controls
        which = {ALL: ALL, ONE: f"step {own['step'].value}", UP_TO: f"up to step {own['step'].value}"}
        return which[own["steps"].value] + (", successes only" if own["success"].value else "")

    def _changed(self, change: Any) -> None:
        with self._lock:
            if self._quiet:
                return
            own = self.controls
            if change["owner"] is own["step"] and own["steps"].value == ALL:
                with self._quietly():  # a step that is chosen is to be seen
                    own["steps"].value = UP_TO
            if change["owner"] not in (own["colour"], own["projection"]) and len(self.selected):
                kept = [row for row in self.selected.index if self._shown()[row]]
                if len(kept) < len(self.selected):
                    self._choose(kept)
            self._map.draw(self.figure())
            self._tell()

    def _clicked(self, hit: Hit) -> None:
        self._lassoed([hit])

    def _lassoed(self, hits: list[Hit]) -> None:
        """The page has marked the points already."""
        with self._lock:
            self._choose(sorted(int(hit.data) for hit in hits))

    def _choose(self, rows: Sequence[int]) -> None:
        self.selected = self.points.table.loc[list(rows)]
        self._tell()
        of_sketches = self.points.of == "sketches"
        self.link.follow(self.points.run, self.selected, candidate=self._follower if of_sketches else None)

    def _tell(self) -> None:
        found, shown = len(self.selected), int(self._shown().sum())
        what = escape(self._range(), 60)
        if not found:
            why = "select some with the lasso, or click one" if shown else "none is there: choose other steps"
            self._said.value = f"{what}: {shown} of {len(self.points.table)} {self.points.of} shown; {why}"
        else:
            self._said.value = f"<b>{what}: {found} of {shown} {self.points.of} selected</b>{cut(found)}"
        self._samples.value = sample_table(self.selected)

    def _follower(self, sketch: Place) -> int:
        """The first candidate that follows a sketch; where there is none, the first of the group."""
        rows = self.points.run.read_rollouts(["group", "index", "sketches"], [sketch.step])
        rows = rows[rows["group"] == sketch.group].sort_values("index")
        own = rows["index"][[sketch.number in followed for followed in rows["sketches"]]]
        return int((own if len(own) else rows["index"]).iloc[0])


def _controls(points: Points, projection: Projection) -> dict[str, Any]:
    style = {"description_width": "70px"}
    names = {"pca": "PCA", "tsne": "t-SNE"}
    return {
        "colour": widgets.Dropdown(
            options=list(figures.COLOUR), value="cluster", description="colour by", style=style, layout={"width": "220px"}
        ),
        "projection": widgets.Dropdown(
            options=[(names[known], known) for known in data.PROJECTIONS], value=projection, description="projection",
            style=style, layout={"width": "220px"},
        ),
        "success": widgets.Checkbox(value=False, description="success only", indent=False, layout={"width": "130px"}),
        "steps": widgets.Dropdown(
            options=[ALL, ONE, UP_TO], value=ALL, description="show", style=style, layout={"width": "220px"}
        ),
        "step": widgets.SelectionSlider(
            options=points.steps, value=points.steps[-1], description="step", continuous_update=False, style=style,
            layout={"width": "420px"},
        ),
    }  # fmt: skip
