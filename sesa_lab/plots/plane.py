"""One measure against another: arms as paths through the plane, several planes side by side."""

from __future__ import annotations

import html

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sesa_lab.plots.lines import DASHES
from sesa_lab.plots.theme import COLOURS, caption_or, escape, finish, need, room_above

START = "start"
"""The arm that is a single point, where all others began; drawn as a cross."""


def planes(
    table: pd.DataFrame, x: str, y: str, along: str, title: str, caption: str | None = None, columns: int = 2
) -> go.Figure:
    """Where each arm ends up by a setting of its own, e.g. the learning rate: up and to the right is better at both.

    Args:
        table: columns arm, panel (title of its plane), ``x``, ``y`` and ``along``; one row a point. Points of one arm and
            panel are joined in the order of ``along``, larger markers later. Points of the arm ``START`` are crosses.
        along: the setting, shown on hovering.
        title: of the figure.
        caption: see ``provenance``; None: that the runs were not stated.
        columns: panels side by side.
    """
    need(table, "arm", "panel", x, y, along)
    names = list(table["panel"].unique())
    arms = [arm for arm in table["arm"].unique() if arm != START]
    rows = -(-len(names) // columns)
    figure = make_subplots(rows=rows, cols=columns, subplot_titles=[escape(name) for name in names])
    for place, name in enumerate(names):
        at = {"row": place // columns + 1, "col": place % columns + 1}
        own = table[table["panel"] == name]
        for i, arm in enumerate([START, *arms]):
            points = own[own["arm"] == arm].sort_values(along)
            colour = "#767b84" if arm == START else COLOURS[(i - 1) % len(COLOURS)]
            sizes = [10.0] * len(points) if arm == START else [8.0 + 3.0 * n for n in range(len(points))]
            figure.add_scatter(
                x=points[x].to_numpy(dtype=float),
                y=points[y].to_numpy(dtype=float),
                name=escape(arm),
                legendgroup=escape(arm),
                showlegend=not place,
                mode="markers" if arm == START else "lines+markers",
                line={"color": colour, "dash": DASHES[i % len(DASHES)], "width": 1.5},
                marker={"color": colour, "size": sizes, "symbol": "x" if arm == START else "circle"},
                customdata=[html.escape(f"{value:g}") for value in points[along]],
                hovertemplate=f"{escape(along)} %{{customdata}}<br>%{{x:.3f}}, %{{y:.3f}}",
                **at,
            )
        figure.update_xaxes(title=escape(x), **at)
        figure.update_yaxes(title=escape(y), **at)
    figure.update_layout(legend={"y": 1.0 + 0.16 / rows})
    return finish(figure, title, caption_or(caption, None, ""), height=330 * rows, top=46 + room_above(figure))
