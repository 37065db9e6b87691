"""What a page tells of a live figure, without a page: the messages that plotly's script sends when it is clicked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from plotly.utils import PlotlyJSONEncoder


def click(plot: Any, trace: int, point: Any, x: float, y: float) -> None:
    """A click on one point; ``point`` is (row, column) in a heat map."""
    _tell(plot, "plotly_click", [(trace, point, x, y)])


def select(plot: Any, points: Sequence[tuple[int, int]]) -> None:
    """A lasso around points, (trace, place in it) each."""
    _tell(plot, "plotly_selected", [(trace, place, 0.0, 0.0) for trace, place in points])


def deselect(plot: Any) -> None:
    """A double click beside all points."""
    _tell(plot, "plotly_deselect", [])


def as_shown(figure: Any) -> Any:
    """What a figure shows, as plain data; traces that are hidden show nothing."""
    traces = [trace.to_plotly_json() for trace in figure.data if trace.visible is not False]
    for trace in traces:
        trace.pop("uid", None)
    layout = {name: value for name, value in figure.layout.to_plotly_json().items() if value}  # no shape is none given
    return json.loads(json.dumps([traces, layout], cls=PlotlyJSONEncoder, sort_keys=True))


def _tell(plot: Any, kind: str, points: Sequence[tuple[int, Any, float, float]]) -> None:
    names = ("trace_indexes", "point_indexes", "xs", "ys")
    columns = {name: [point[place] for point in points] for place, name in enumerate(names)}
    lasso = {"type": "lasso", "selector_state": {"xs": [0, 1, 1], "ys": [0, 0, 1]}}
    told = {"event_type": kind, "points": columns, "selector": lasso if kind == "plotly_selected" else None}
    plot.set_state({"_js2py_pointsCallback": told})
