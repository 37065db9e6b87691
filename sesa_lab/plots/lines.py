"""Curves with bands, estimates with intervals, and estimates along an axis."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sesa_lab.errors import InputError
from sesa_lab.plots.theme import BANDS, COLOURS, caption_or, escape, finish, need, places, room_above
from sesa_lab.statistics import mean_interval, text

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_LABELS = {"step": "training step", "tokens_total": "tokens sampled since the run began"}


def curves(
    table: pd.DataFrame,
    y: str,
    by: str = "arm",
    x: str = "step",
    title: str = "",
    unit: str = "",
    caption: str | None = None,
) -> go.Figure:
    """Mean over seeds of ``y`` against ``x``, one line a ``by``, with the 95 % t interval of the mean as a band.

    Args:
        table: tidy, columns ``by`` (categorical: see ``places``), ``seed``, ``x``, ``y``; one row a (``by``, seed, x). NaN is
            dropped; where one seed is left, there is a line and no band. Seeds whose x differ (tokens) are interpolated
            inside the range they share.
        unit: of y, on its axis.
        caption: see ``provenance``; None: seeds and n as the table has them.
    """
    need(table, by, "seed", x, y)
    figure = go.Figure()
    place = places(table[by])
    for arm, part in table.groupby(by, sort=False, observed=True):
        i, name = place[arm], escape(arm)
        colour = COLOURS[i % len(COLOURS)]
        xs, rows = _curve(part, x, y)
        band = [(a, row.low, row.high) for a, row in zip(xs, rows, strict=True)]
        for piece in _finite_pieces(band):
            around = [*piece, *((a, high, low) for a, low, high in reversed(piece))]
            figure.add_scatter(
                x=np.array([p[0] for p in around]),
                y=np.array([p[1] for p in around], dtype=np.float32),
                fill="toself",
                fillcolor=_faint(colour),
                line={"width": 0},
                mode="lines",
                hoverinfo="skip",
                legendgroup=name,
                showlegend=False,
            )
        figure.add_scatter(
            x=xs,
            y=np.array([row.mean for row in rows], dtype=np.float32),
            name=name,
            legendgroup=name,
            mode="lines" if len(xs) > 1 else "markers",
            line={"color": colour, "dash": DASHES[i % len(DASHES)], "width": 2},
            customdata=[html.escape(text(*row)) for row in rows],
            hovertemplate=f"{escape(x)} %{{x}}<br>%{{customdata}}",
        )
    figure.update_xaxes(title=_LABELS.get(x, escape(x)), tickformat="~s" if x == "tokens_total" else None)
    if pd.api.types.is_integer_dtype(table[x]) and 0 < table[x].max() - table[x].min() < 10:
        figure.update_xaxes(dtick=1)  # counted things have no halves
    figure.update_yaxes(title=_axis(y, unit))
    figure.update_layout(showlegend=True)  # plotly leaves it out where there is one line, which then has no name
    return finish(figure, title, caption_or(caption, table, BANDS), height=330, top=room_above(figure))


def bars(
    summary: pd.DataFrame,
    by: str = "arm",
    seeds: pd.DataFrame | None = None,
    title: str = "",
    label: str = "",
    unit: str = "",
    caption: str | None = None,
) -> go.Figure:
    """Point estimates with intervals, best on top, one row a ``by``; individual seeds as faint dots.

    Args:
        summary: columns ``by``, mean, low, high, n (``statistics.summary``); a NaN interval draws no bar.
        seeds: columns ``by``, seed, value; None draws no faint dots.
        label: what is measured, on the axis with its unit.
    """
    need(summary, by, "mean", "low", "high", "n")
    if seeds is not None:
        need(seeds, by, "seed", "value")
    figure = go.Figure()
    colours = {arm: COLOURS[i % len(COLOURS)] for i, arm in enumerate(summary[by])}
    ordered = summary.sort_values("mean", na_position="first", kind="stable").reset_index(drop=True)
    for place, row in ordered.iterrows():
        colour = colours[row[by]]
        if seeds is not None:
            dots = seeds[seeds[by] == row[by]]
            figure.add_scatter(
                x=dots["value"].to_numpy(dtype=float),
                y=[place] * len(dots),
                mode="markers",
                opacity=0.6,
                marker={"color": colour, "size": 8, "symbol": "circle-open"},
                customdata=[escape(s) for s in dots["seed"]],
                hovertemplate="seed %{customdata}: %{x:.4g}<extra></extra>",
            )
        bar = {"type": "data", "array": [row["high"] - row["mean"]], "arrayminus": [row["mean"] - row["low"]]}
        figure.add_scatter(
            x=[row["mean"]],
            y=[place],
            mode="markers",
            marker={"color": colour, "size": 11},
            name=escape(row[by]),
            error_x={**bar, "color": colour, "thickness": 2, "width": 6} if math.isfinite(row["low"]) else None,
            customdata=[html.escape(text(row["mean"], row["low"], row["high"], int(row["n"])))],
            hovertemplate="%{customdata}<extra></extra>",
        )
    names = [escape(arm, 40) for arm in ordered[by]]
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=names, range=[-0.6, len(names) - 0.4], showgrid=False
    )
    figure.update_xaxes(title=_axis(label, unit))
    figure.update_layout(showlegend=False)
    bands = "bars: 95 % t interval over seeds, circles: single seeds"
    return finish(figure, title, caption_or(caption, seeds, bands), height=20 + 46 * len(names), top=50)


def axis(along: pd.DataFrame, label: str, x: str, caption: str | None = None) -> go.Figure:
    """Estimates with intervals along one axis of an experiment, one line an arm.

    Args:
        along: columns arm, ``x``, mean, low, high, n; one row an (arm, x).
        label: what is measured, title of the figure and of its axis.
    """
    need(along, "arm", x, "mean", "low", "high", "n")
    figure = go.Figure()
    for i, (arm, part) in enumerate(along.groupby("arm", sort=False)):
        rows = part.sort_values(x)
        figure.add_scatter(
            x=rows[x].to_numpy(dtype=float)
            * (1 + 0.012 * (i - 1)),  # side by side, so that bars do not hide each other
            y=rows["mean"].to_numpy(dtype=float),
            error_y={
                "type": "data",
                "array": (rows["high"] - rows["mean"]).to_numpy(dtype=float),
                "arrayminus": (rows["mean"] - rows["low"]).to_numpy(dtype=float),
            },
            name=escape(arm),
            line={"color": COLOURS[i % len(COLOURS)], "dash": DASHES[i % len(DASHES)], "width": 2},
            customdata=[html.escape(text(r.mean, r.low, r.high, int(r.n))) for r in rows.itertuples(index=False)],
            hovertemplate=f"{escape(x)} %{{x:.2g}}<br>%{{customdata}}",
        )
    figure.update_xaxes(title=escape(x))
    figure.update_yaxes(title=escape(label))
    bars_mean = "bars: 95 % interval over seeds"
    return finish(figure, label, caption_or(caption, None, bars_mean), height=330, top=room_above(figure))


def panels(along: pd.DataFrame, x: str, title: str, caption: str | None = None) -> go.Figure:
    """Estimates with intervals along one axis, several measures side by side, one line an arm in every panel.

    Args:
        along: columns arm, panel (what its panel shows), ``x``, mean, low, high, n; one row an (arm, panel, x).
        x: the axis that all panels share; bars of one x stand side by side, so that they do not hide each other.
        title: of the figure.
        caption: see ``provenance``; None: that the runs were not stated.
    """
    need(along, "arm", "panel", x, "mean", "low", "high", "n")
    names, arms = list(along["panel"].unique()), list(along["arm"].unique())
    figure = make_subplots(rows=1, cols=len(names), horizontal_spacing=0.3 / max(2, len(names)))
    apart = 0.01 * float(along[x].max() - along[x].min())
    for (arm, panel), part in along.groupby(["arm", "panel"], sort=False):
        i, rows = arms.index(arm), part.sort_values(x)
        figure.add_scatter(
            x=rows[x].to_numpy(dtype=float) + apart * (i - (len(arms) - 1) / 2),
            y=rows["mean"].to_numpy(dtype=float),
            error_y={
                "type": "data",
                "array": (rows["high"] - rows["mean"]).to_numpy(dtype=float),
                "arrayminus": (rows["mean"] - rows["low"]).to_numpy(dtype=float),
            },
            name=escape(arm),
            legendgroup=escape(arm),
            showlegend=panel == names[0],
            line={"color": COLOURS[i % len(COLOURS)], "dash": DASHES[i % len(DASHES)], "width": 2},
            customdata=[html.escape(text(r.mean, r.low, r.high, int(r.n))) for r in rows.itertuples(index=False)],
            hovertemplate=f"{escape(x)} %{{x:.2g}}<br>%{{customdata}}",
            row=1,
            col=names.index(panel) + 1,
        )
    for col, name in enumerate(names, start=1):
        figure.update_yaxes(title=escape(name), row=1, col=col)
    figure.update_xaxes(title=escape(x))
    bars_mean = "bars: 95 % interval over seeds"
    return finish(figure, title, caption_or(caption, None, bars_mean), height=330, top=room_above(figure))


def _curve(part: pd.DataFrame, x: str, y: str) -> tuple[np.ndarray, list[Any]]:
    """The x of one arm's line and the interval of the mean over its seeds at each."""
    wide = part[["seed", x, y]].dropna()
    if wide.duplicated(["seed", x]).any():
        raise InputError(f"one seed has several rows at one {x}, expected one run a (arm, seed): choose one first")
    seeds = [(s[x].to_numpy(dtype=float), s[y].to_numpy(dtype=float)) for _, s in wide.sort_values(x).groupby("seed")]
    xs = np.unique(wide[x].to_numpy())
    if x != "step" and any(len(a) != len(xs) for a, _ in seeds):
        xs = xs[(xs >= max(a[0] for a, _ in seeds)) & (xs <= min(a[-1] for a, _ in seeds))]
        xs = xs[np.unique(np.linspace(0, len(xs) - 1, min(len(xs), 200)).astype(int))]
        values = np.array([np.interp(xs, a, b) for a, b in seeds])
        return xs, [mean_interval(column) for column in values.T]
    return xs, [mean_interval(at[y]) for _, at in wide.groupby(x)]


def _finite_pieces(band: list[tuple[Any, float, float]]) -> Iterator[list[tuple[Any, float, float]]]:
    """Stretches of a band without NaN."""
    piece: list[tuple[Any, float, float]] = []
    for point in [*band, (None, math.nan, math.nan)]:
        if math.isfinite(point[1]):
            piece.append(point)
        elif piece:
            yield piece
            piece = []


def _faint(colour: str) -> str:
    r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({r},{g},{b},0.2)"


def _axis(name: str, unit: str) -> str:
    return escape(name.replace("_", " ")) + (f" ({escape(unit)})" if unit else "")
