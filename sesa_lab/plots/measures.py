"""Many measures, each on a scale of its own: one small panel a measure, along steps or as one estimate."""

from __future__ import annotations

import html
import textwrap
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sesa_lab.errors import InputError
from sesa_lab.plots.theme import COLOURS, escape, finish, need
from sesa_lab.statistics import text

ACROSS = 3
HEIGHT = 190
"""Pixels of a panel, with what stands above it."""


def measures(averages: pd.DataFrame, title: str = "", caption: str = "") -> go.Figure:
    """Estimates with intervals, one panel a measure.

    Args:
        averages: columns measure, label (above its panel), mean, low, high, n, and step where there are steps; one row a
            (measure, step). A NaN interval draws no bar.
        title: of the figure.
        caption: where the numbers come from, and what the bars mean.

    Raises:
        InputError: a column is missing, or there is no row.
    """
    need(averages, "measure", "label", "mean", "low", "high", "n")
    if averages.empty:
        raise InputError("no measure has a value, expected at least one row")
    parts = list(averages.groupby("measure", sort=False))
    down = -(-len(parts) // ACROSS)
    figure = make_subplots(
        rows=down,
        cols=ACROSS,
        subplot_titles=[_wrapped(part["label"].iloc[0]) for _, part in parts],
        horizontal_spacing=0.09,
        vertical_spacing=0.42 / down,
    )
    figure.update_annotations(font={"size": 12})
    for i, (_, part) in enumerate(parts):
        _panel(figure, part, i // ACROSS + 1, i % ACROSS + 1)
        if "step" in part.columns and i + ACROSS >= len(parts):
            figure.update_xaxes(title="step", row=i // ACROSS + 1, col=i % ACROSS + 1)
    figure.update_layout(showlegend=False)
    finish(figure, title, caption, height=down * HEIGHT, top=96)
    figure.update_layout(
        title={"y": 1.0 - 14 / figure.layout.height}
    )  # a share of the height would slide into tall figures
    return figure


def _panel(figure: go.Figure, part: pd.DataFrame, row: int, col: int) -> None:
    stepped = "step" in part.columns
    rows = part.sort_values("step") if stepped else part
    # Rounded, since an axis would resolve 1 - 1e-15.
    mean, low, high = (rows[name].to_numpy(dtype=float).round(9) for name in ("mean", "low", "high"))
    look: dict[str, Any] = {"mode": "lines+markers", "line": {"color": COLOURS[0], "width": 2}, "marker": {"size": 4}}
    if not stepped:
        look = {"mode": "markers+text", "text": [f"{value:.4g}" for value in mean], "textposition": "middle right"}
        look["cliponaxis"] = False  # a mean of 0 stands on the edge
        look["marker"] = {"color": COLOURS[0], "size": 11}
    figure.add_scatter(
        x=rows["step"].to_numpy() if stepped else [0] * len(rows),
        y=mean,
        error_y={
            "type": "data",
            "array": high - mean,
            "arrayminus": mean - low,
            "thickness": 1,
            "width": 0 if stepped else 6,
            "color": COLOURS[0],
        },
        customdata=[html.escape(text(r.mean, r.low, r.high, int(r.n))) for r in rows.itertuples(index=False)],
        hovertemplate=("step %{x}<br>" if stepped else "") + "%{customdata}<extra></extra>",
        row=row,
        col=col,
        **look,
    )
    figure.update_yaxes(tickformat=".4~g", rangemode="normal" if stepped else "tozero", row=row, col=col)
    if not stepped:
        figure.update_xaxes(showticklabels=False, showgrid=False, range=[-1, 1], row=row, col=col)


def _wrapped(label: object) -> str:
    return "<br>".join(textwrap.wrap(escape(label), 42))
