"""Numbers with intervals as a grid: one row a method, one column a case, the darker the larger."""

from __future__ import annotations

import html
import math

import pandas as pd
import plotly.graph_objects as go

from sesa_lab.plots.theme import escape, finish, need
from sesa_lab.statistics import text

_LIGHT, _DARK, _INK = "#f2f7fb", "#56B4E9", "#1c2530"  # opaque: the numbers read on a light and on a dark page


def grid(
    table: pd.DataFrame,
    row: str,
    column: str,
    title: str,
    caption: str,
    low: float = 0.0,
    high: float = 1.0,
) -> go.Figure:
    """A cell for every (row, column) with its mean to two decimals; the interval is on hover.

    Args:
        table: columns ``row``, ``column``, mean, low, high, n; one row a cell, in the order shown (first row on top). A missing
            or NaN cell stays empty.
        row: column of the rows' names.
        column: column of the columns' names; shown a word a line.
        title: of the figure.
        caption: what the intervals are, and where the numbers come from.
        low: what is lightest; below it too.
        high: what is darkest.
    """
    need(table, row, column, "mean", "low", "high", "n")
    rows, columns = list(table[row].unique()), list(table[column].unique())
    means = [[math.nan] * len(columns) for _ in rows]
    hover = [[""] * len(columns) for _ in rows]
    for cell in table.to_dict("records"):
        i, j = rows.index(cell[row]), columns.index(cell[column])
        means[i][j] = float(cell["mean"])
        hover[i][j] = html.escape(text(cell["mean"], cell["low"], cell["high"], int(cell["n"])))
    figure = go.Figure(
        go.Heatmap(
            z=means,
            x=[escape(name, 40).replace("_", " ").replace(" ", "<br>") for name in columns],
            y=[escape(name, 60) for name in rows],
            text=[["" if math.isnan(value) else f"{round(value, 2) + 0.0:.2f}" for value in line] for line in means],
            texttemplate="%{text}",
            textfont={"color": _INK},
            customdata=hover,
            hovertemplate="%{y}, %{x}<br>%{customdata}<extra></extra>",
            zmin=low,
            zmax=high,
            colorscale=[[0.0, _LIGHT], [1.0, _DARK]],
            showscale=False,
            xgap=2,
            ygap=2,
        )
    )
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="")
    figure.update_xaxes(side="top", showgrid=False, ticks="", tickangle=0)
    return finish(figure, title, caption, height=30 + 26 * len(rows), below=12, top=112)
