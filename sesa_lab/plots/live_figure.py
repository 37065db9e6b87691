"""A figure in a live notebook whose clicks and selections reach Python, and that is redrawn in its place.

Made on plotly's own ``FigureWidget``: while live it needs no other machine. It is gone from an exported notebook, as every
widget is: end a cell with a plain figure to keep what it shows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import plotly
import plotly.graph_objects as go
from plotly.callbacks import Points
from plotly.utils import PlotlyJSONEncoder


class Hit(NamedTuple):
    """A point that was clicked or selected.

    Attributes:
        trace: place of its trace in the figure, from 0.
        point: its place in the trace, from 0; (row, column) in a heat map.
        x: as drawn.
        y: as drawn.
        data: its ``customdata``; None where the trace has none.
    """

    trace: int
    point: int | tuple[int, int]
    x: Any
    y: Any
    data: Any


class LiveFigure:
    """Wraps a widget; put ``plot`` where it is to be seen.

    Attributes:
        plot: the widget.
    """

    def __init__(
        self,
        figure: go.Figure,
        on_click: Callable[[Hit], None] | None = None,
        on_select: Callable[[list[Hit]], None] | None = None,
    ) -> None:
        """Draw.

        Args:
            figure: what is drawn first.
            on_click: called with the point that was clicked.
            on_select: called once with all points of a lasso or a box, of all traces; with none of them where a selection
                is taken back (by a double click).
        """
        self._on_click, self._on_select = on_click, on_select
        self._drawn = _plain(figure)
        self._picked: list[Hit] = []
        self.plot = _Plot(self._drawn)
        # The widget has no public way to say so. The button would upload the figure, and what its labels say.
        self.plot._config = {"displaylogo": False, "modeBarButtonsToRemove": ["sendChartToCloud"]}
        self._listen(self.plot.data)

    def draw(self, figure: go.Figure) -> None:
        """Draw another figure in the place of this one; only what differs is sent. A zoom stays where the axes do.

        Args:
            figure: its traces have the same types in the same order, as far as there were as many.

        Raises:
            ValueError: a trace of another type.
        """
        new, plot = _plain(figure), self.plot
        for place, (was, wanted) in enumerate(zip(self._drawn["data"], new["data"], strict=False)):
            if was["type"] != wanted["type"]:
                raise ValueError(f"trace {place} is a {wanted['type']}, expected a {was['type']} as it was")
        more = new["data"][len(plot.data) :]
        if more:
            plot.add_traces(more)
            self._listen(plot.data[-len(more) :])
            self._drawn["data"] += more
        # Traces too many are hidden, not taken away: whoever hears of a selection may draw while others are still told.
        new["data"] += [{**trace, "visible": False} for trace in self._drawn["data"][len(new["data"]) :]]
        with plot.batch_update():
            for trace, was, wanted in zip(plot.data, self._drawn["data"], new["data"], strict=True):
                _change(trace, was, wanted)
                if "selectedpoints" in trace:  # whether its type has them; the page may have changed them
                    trace.selectedpoints = wanted.get("selectedpoints")
            _change(plot.layout, self._drawn["layout"], new["layout"])
        # An outline that was drawn in the page is known to the widget, but not to its ``layout``.
        plot.plotly_relayout({"selections": new["layout"].get("selections")})
        self._drawn = new

    def _listen(self, traces: Sequence[Any]) -> None:
        for trace in traces:
            trace.on_click(self._clicked)
            trace.on_selection(self._selected)
            trace.on_deselect(self._deselected)

    def _hits(self, points: Points) -> list[Hit]:
        data = self._drawn["data"][points.trace_index].get("customdata")
        found = []
        for index, x, y in zip(points.point_inds, points.xs, points.ys, strict=True):
            place = tuple(index) if isinstance(index, list) else index
            own = data
            for part in place if isinstance(place, tuple) else (place,):
                own = None if own is None else own[part]
            found.append(Hit(points.trace_index, place, x, y, own))
        return found

    def _clicked(self, _: Any, points: Points, state: Any) -> None:
        """Every trace is told of every click; one of them has the point."""
        hits = self._hits(points)
        if hits and self._on_click is not None:
            self._on_click(hits[0])

    def _selected(self, _: Any, points: Points, selector: Any) -> None:
        """Every trace is told in turn, also of no point at all: the last one makes the selection whole."""
        self._picked = [*(self._picked if points.trace_index else []), *self._hits(points)]
        if points.trace_index == len(self.plot.data) - 1 and self._on_select is not None:
            self._on_select(self._picked)

    def _deselected(self, trace: Any, points: Points) -> None:
        self._selected(trace, points, None)


_MENDED = """
;(view => {
  // A message that waits for the kernel is overwritten by the next one of its kind: a hover after a selection would undo it.
  view.handle_plotly_hover = view.handle_plotly_unhover = () => {};
  // It is drawn before it is in the page, 700 pixels wide, and was told of the page's width by what there is no more.
  const { perform_render, remove } = view;
  view.perform_render = function () {
    this.el.classList.add("sesa-live-figure");
    perform_render.call(this);
    this.watching = new ResizeObserver(() => {
      if (this.el._fullLayout && this.el.getClientRects().length) this.autosizeFigure();
    });
    this.watching.observe(this.el);
  };
  view.remove = function () { this.watching.disconnect(); remove.call(this); };
})(VIEW.prototype);
"""


def _script() -> str:
    """Plotly's own script of the widget, and what it lacks."""
    script = (Path(plotly.__file__).parent / "package_data" / "widgetbundle.js").read_text(encoding="utf-8")
    view = re.search(r"([\w$]+) as FigureView\b", script)
    if view is None:
        raise RuntimeError(
            f"plotly {plotly.__version__} has another script for its widget, expected one with a FigureView"
        )
    return script + _MENDED.replace("VIEW", view[1])


class _Plot(go.FigureWidget):  # type: ignore[misc]  # plotly is not annotated
    """Plotly's own, but a page that is loaded again gets the figure as it is now, not as it was first."""

    _esm = _script()
    # Else what is selected could not be hovered over or clicked any more: the outline would lie above it.
    _css = ".sesa-live-figure .selectionlayer path { pointer-events: none !important; }"

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> Any:
        state = super().get_state(key, drop_defaults)
        if "_layout_obj" in self.__dict__:  # while it is being made it has nothing yet
            now = {"_widget_data": self._data, "_widget_layout": self._layout_obj._props}
            for name in state.keys() & now.keys():
                state[name] = self.trait_metadata(name, "to_json")(now[name], self)
        return state


def _plain(figure: go.Figure) -> dict[str, Any]:
    """As JSON has it: lists, and None for NaN, which a message to the page cannot carry.

    Part by part: a whole figure packs its arrays, and what the page then reports of them would not be what was sent.
    """
    parts = {
        "data": [trace.to_plotly_json() for trace in figure.data],
        "layout": figure.layout.to_plotly_json(),
    }
    plain: dict[str, Any] = json.loads(json.dumps(parts, cls=PlotlyJSONEncoder))
    return plain


def _change(target: Any, was: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name in sorted((was.keys() | wanted.keys()) - {"type"}):
        if was.get(name) != wanted.get(name):
            target[name] = wanted.get(name)
