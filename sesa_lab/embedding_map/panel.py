"""The panel: controls, the map, and the samples that were selected in it. Reads a run; nothing is trained."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
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
from sesa_lab.errors import InputError, suggest
from sesa_lab.plots.live_figure import Hit, LiveFigure
from sesa_lab.plots.panel import Panel, cut, sample_table
from sesa_lab.plots.theme import escape
from sesa_lab.runs.load import Run

ALL, ONE, UP_TO = "all steps", "one step", "up to a step"


class EmbeddingMap(Panel):
    """The texts of a run as points, near where their embeddings are; a lasso, a box or a click lists the samples.

    A live panel is gone from an exported notebook: end a cell with ``the_map.figure().show()`` to keep what it shows.

    Attributes:
        points: the sample, as it was read.
        controls: the controls by the name of what they set: ``colour``, ``projection``, ``steps`` (``ALL``, ``ONE`` or
            ``UP_TO``), ``step``, ``success``.
        selected: the selected rows of ``points.table``, whose index they keep; observe it to be told.
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
            inspector: a ``SketchInspector`` of the same run; it is moved to the first of what is selected.
            seed: of the sample, the clusters and t-SNE.
            cache: file that keeps vectors; None: ``embeddings.sqlite`` beside the run folder.

        Raises:
            InputError: no run there, nothing to be mapped in it, or an argument out of range.
        """
        if projection not in data.PROJECTIONS:  # before anything is embedded
            raise InputError(f"projection {projection!r}; {suggest(str(projection), list(data.PROJECTIONS))}")
        self.points: Points = data.read(run, of, most, embedder, seed, cache)
        self.inspector = inspector
        self._places: dict[Projection, Places] = {}
        # Callbacks may come from a thread of their own, beside a cell that sets a control.
        self._lock = threading.RLock()
        self._said, self._samples = widgets.HTML(), widgets.HTML()
        self.controls = _controls(self.points, projection)
        nothing = self.points.table.iloc[:0]
        self.selected = nothing
        self._map = LiveFigure(self.figure(), on_click=self._clicked, on_select=self._lassoed)
        wide = {"layout": {"flex_flow": "row wrap"}}
        first = widgets.HBox([self.controls[name] for name in ("colour", "projection", "success")], **wide)
        second = widgets.HBox([self.controls[name] for name in ("steps", "step")], **wide)
        super().__init__([first, second, self._map.plot, self._said, self._samples], selected=nothing)
        for control in self.controls.values():
            control.observe(self._changed, names="value")
        self._tell()

    def figure(self) -> go.Figure:
        """The map under the present settings, with what is selected, as a plain figure for a report."""
        own = self.controls
        colour, projection = own["colour"].value, own["projection"].value
        if projection not in self._places:
            self._places[projection] = data.place(self.points, projection)
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

    @cached_property
    def _clusters(self) -> NDArray[np.int64]:
        return data.clusters(self.points)

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
        if self.inspector is not None and len(self.selected):
            self._move()

    def _tell(self) -> None:
        found, shown = len(self.selected), int(self._shown().sum())
        what = escape(self._range(), 60)
        if not found:
            why = "select some with the lasso, or click one" if shown else "none is there: choose other steps"
            self._said.value = f"{what}: {shown} of {len(self.points.table)} {self.points.of} shown; {why}"
        else:
            self._said.value = f"<b>{what}: {found} of {shown} {self.points.of} selected</b>{cut(found)}"
        self._samples.value = sample_table(self.selected)

    def _move(self) -> None:
        """Show the first selected one in the inspector; where it cannot, say why and leave it where it is."""
        first = self.selected.iloc[0]
        step, group, index = (int(first[name]) for name in ("step", "group", "index"))
        try:
            candidate = index if self.points.of == "solutions" else self._follower(step, group, index)
            self.inspector.step = step
            self.inspector.group = group
            self.inspector.candidates = [candidate, *self.inspector.candidates[1:]]
        except InputError as error:
            self._said.value += f"<br><small>inspector: {escape(error, 300)}</small>"

    def _follower(self, step: int, group: int, sketch: int) -> int:
        """The first candidate that follows a sketch; where there is none, the first of the group."""
        rows = self.points.run.read_rollouts(["group", "index", "sketches"], [step])
        rows = rows[rows["group"] == group].sort_values("index")
        own = rows["index"][[sketch in followed for followed in rows["sketches"]]]
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
