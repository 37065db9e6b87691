"""A live figure: what it is told reaches Python whole and once, what is drawn replaces what was."""

from __future__ import annotations

import math
from typing import Any

import plotly.graph_objects as go
import pytest
from plot_page import as_shown, click, deselect, select

from sesa_lab.plots.live_figure import Hit, LiveFigure


def dots(*counts: int, **layout: Any) -> go.Figure:
    """A trace each of so many points."""
    traces = [
        go.Scatter(x=list(range(n)), y=[0.5] * n, mode="markers", customdata=[f"{number}-{i}" for i in range(n)])
        for number, n in enumerate(counts)
    ]
    return go.Figure(traces, layout=layout)


def test_a_click_is_told_once_with_its_data() -> None:
    heard: list[Hit] = []
    live = LiveFigure(dots(2, 3), on_click=heard.append)
    click(live.plot, 1, 2, 2.0, 0.5)
    assert heard == [Hit(1, 2, 2.0, 0.5, "1-2")]


def test_a_click_on_a_heat_map_names_row_and_column() -> None:
    heard: list[Hit] = []
    figure = go.Figure(go.Heatmap(z=[[1.0, math.nan], [2.0, 3.0]], x=[10, 20], customdata=[["a", "b"], ["c", "d"]]))
    live = LiveFigure(figure, on_click=heard.append)
    click(live.plot, 0, [1, 0], 10, 1)
    assert heard == [Hit(0, (1, 0), 10, 1, "c")]
    assert live.plot.data[0].z[0][1] is None  # a message cannot carry NaN


def test_a_selection_is_told_once_whole_and_when_it_is_taken_back() -> None:
    heard: list[list[str]] = []
    live = LiveFigure(dots(2, 3, 1), on_select=lambda hits: heard.append([hit.data for hit in hits]))
    select(live.plot, [(0, 1), (1, 0), (1, 2)])
    select(live.plot, [(1, 1)])
    select(live.plot, [])
    select(live.plot, [(2, 0)])
    deselect(live.plot)
    assert heard == [["0-1", "1-0", "1-2"], ["1-1"], [], ["2-0"], []]


def test_without_ears_nothing_happens() -> None:
    live = LiveFigure(dots(1))
    before = live.plot.to_plotly_json()
    click(live.plot, 0, 0, 0.0, 0.5)
    assert live.plot.to_plotly_json() == before
    select(live.plot, [(0, 0)])
    assert list(live.plot.data[0].selectedpoints) == [0], "what the page marks is marked, and no more happens"


def test_drawing_replaces_data_layout_and_selections() -> None:
    live = LiveFigure(dots(2, 3, height=300, shapes=[{"type": "line", "x0": 1, "x1": 1, "y0": 0, "y1": 1}]))
    select(live.plot, [(0, 1)])
    assert list(live.plot.data[0].selectedpoints) == [1]
    live.plot.set_state(
        {"_js2py_relayout": {"relayout_data": {"selections": [{"type": "path"}]}, "source_view_id": "a"}}
    )
    for counts in ((2, 3), (1,), (4, 1, 2), (2, 2), ()):
        wanted = dots(*counts, height=300 + len(counts), title={"text": str(counts)})
        live.draw(wanted)
        assert as_shown(live.plot) == as_shown(wanted)
    assert all(trace.selectedpoints is None for trace in live.plot.data)
    assert "selections" not in live.plot.to_dict()["layout"]


def test_traces_that_came_later_are_heard_too_and_a_hidden_one_keeps_quiet() -> None:
    heard: list[Any] = []
    live = LiveFigure(
        dots(1),
        on_click=lambda hit: heard.append(hit.data),
        on_select=lambda hits: heard.append([h.data for h in hits]),
    )
    live.draw(dots(1, 2))
    click(live.plot, 1, 1, 1.0, 0.5)
    select(live.plot, [(0, 0), (1, 0)])
    live.draw(dots(2))
    select(live.plot, [(0, 1)])
    assert heard == ["1-1", ["0-0", "1-0"], ["0-1"]]


def test_who_is_told_may_draw() -> None:
    heard: list[int] = []

    def told(hits: list[Hit]) -> None:
        heard.append(len(hits))
        live.draw(dots(*([1] * (4 - len(heard)))))

    live = LiveFigure(dots(1, 1), on_select=told)
    for _ in range(3):
        select(live.plot, [(0, 0)])
    assert heard == [1, 1, 1]


def test_a_page_that_asks_anew_gets_what_is_drawn_now() -> None:
    live = LiveFigure(dots(2))
    live.draw(dots(3, title={"text": "now"}))
    state = live.plot.get_state()
    assert state["_widget_data"][0]["x"] == [0, 1, 2]
    assert state["_widget_layout"]["title"] == {"text": "now"}


def test_another_type_of_trace_is_refused() -> None:
    with pytest.raises(ValueError, match="trace 0 is a bar, expected a scatter"):
        LiveFigure(dots(1)).draw(go.Figure(go.Bar(y=[1])))
