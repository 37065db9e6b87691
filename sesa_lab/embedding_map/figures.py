"""Draws the map: one trace a colour, so that a legend can hide it, and the text of a point on hovering."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from sesa_lab.embedding_map.data import DISC, Places, Points
from sesa_lab.errors import InputError, suggest
from sesa_lab.plots.theme import COLOURS, OTHERS, UNREADABLE, escape, finish, provenance, room_above

Colour = Literal["cluster", "strategy", "reward", "step"]
COLOUR: tuple[Colour, ...] = ("cluster", "strategy", "reward", "step")
UNDEFINED = "reward undefined"
_GREY = COLOURS[-1]
_NAMED = COLOURS[:-1]
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "star", "hexagon", "triangle-down")
# Of middling lightness throughout, so that neither end is lost on a white or a dark page.
_SCALE = [[0.0, "#56B4E9"], [0.5, "#CC79A7"], [1.0, "#D55E00"]]
_HEIGHT = 430
_LETTERS, _LINES = 70, 4  # of a text, on hovering
_ALL_LETTERS = 160_000  # of all texts together: a page of many points gets less of each, not megabytes


def figure(
    points: Points,
    places: Places,
    colour: Colour = "step",
    shown: NDArray[np.bool_] | None = None,
    clusters: NDArray[np.int64] | None = None,
    selected: Sequence[int] | None = None,
    said: str = "",
) -> go.Figure:
    """The map of the points ``shown``. Colours and axes are those of all points, whatever is shown.

    Args:
        points: the sample.
        places: of them.
        colour: one of ``COLOUR``.
        shown: (rows,) which are drawn; None: all.
        clusters: (rows,), of ``data.clusters``; needed to colour by them.
        selected: rows that stand out; None: none does.
        said: what is shown, in a few words for the title.

    Raises:
        InputError: another colour, or colour ``cluster`` without clusters.
    """
    if colour not in COLOUR:
        raise InputError(f"colour by {colour!r}; {suggest(str(colour), list(COLOUR))}")
    shown = np.ones(len(points.table), dtype=bool) if shown is None else shown
    drawn = go.Figure()
    if colour in ("reward", "step"):
        _scaled(drawn, points, places, colour, shown)
    else:
        _named(drawn, points, places, _categories(points, colour, clusters), shown)
    if selected is not None:
        chosen = set(selected)
        for trace in drawn.data:
            trace.selectedpoints = [i for i, row in enumerate(trace.customdata) if row in chosen]
    for axis, values, name in (("xaxis", places.x, places.names[0]), ("yaxis", places.y, places.names[1])):
        low, high = float(values.min()), float(values.max())
        room = 0.05 * (high - low) or 0.5
        # Said, not found by the browser: the same at every step.
        drawn.update_layout({axis: {"range": [low - room, high + room], "title": {"text": escape(name)}}})
    title = f"Embedding map of {points.of}{', ' if said else ''}{said}; colour: {colour}"
    finish(drawn, title, _caption(points, places, colour), height=_HEIGHT, below=62, top=room_above(drawn))
    drawn.update_layout(
        dragmode="lasso",
        hoverlabel={"align": "left"},
        newselection={"line": {"color": _GREY}},
        legend={"y": 1 + 8 / _HEIGHT, "itemsizing": "constant"},
        margin={"r": 90},
    )
    return drawn


def _caption(points: Points, places: Places, colour: str) -> str:
    run = points.run
    notes = [f"{len(points.table)} of {points.whole} {points.of}, {len(points.texts)} different"]
    notes += [
        f"{points.embedder}, {places.projection}",
        f"copies of a text lie around its place, in a disc that grows up to {DISC} of them",
    ]
    notes += ["clusters: k-means of the different texts"] if colour == "cluster" else []
    notes += [f"seed of the sample {points.seed}"]
    return provenance([run.source(run.config.sampler.name)], "; ".join(notes))


def _categories(points: Points, colour: str, clusters: NDArray[np.int64] | None) -> list[str | None]:
    """A name a row; None: it has none."""
    if colour == "strategy":
        return [None if pd.isna(name) else str(name) for name in points.table["strategy"]]
    if clusters is None:
        raise InputError("colour by cluster without clusters; expected those of data.clusters")
    return [f"cluster {number + 1}" for number in clusters]


def _named(drawn: go.Figure, points: Points, places: Places, names: list[str | None], shown: NDArray[np.bool_]) -> None:
    """A colour and a symbol each for the most frequent names; the rest is grey."""
    counts = pd.Series([name for name in names if name is not None], dtype=object).value_counts()
    order = sorted(counts.index, key=lambda name: (-counts[name], name))
    slot = {name: place for place, name in enumerate(order[: len(_NAMED)])}
    slots = np.array([-1 if name is None else slot.get(name, len(_NAMED)) for name in names])
    for name, place in slot.items():
        marker = {"color": _NAMED[place], "symbol": _SYMBOLS[place]}
        _add(drawn, points, places, shown & (slots == place), _short(name), marker)
    for place, name, symbol in ((len(_NAMED), OTHERS, "circle"), (-1, UNREADABLE, "x")):
        if (slots == place).any():
            _add(drawn, points, places, shown & (slots == place), name, {"color": _GREY, "symbol": symbol})


def _scaled(drawn: go.Figure, points: Points, places: Places, column: str, shown: NDArray[np.bool_]) -> None:
    """Numbers on a scale; those that are undefined in grey."""
    values = points.table[column].to_numpy(dtype=float)
    known = np.isfinite(values)
    if known.any():
        low, high = float(values[known].min()), float(values[known].max())
        marker = {
            "color": values[shown & known],
            "cmin": low if high > low else low - 0.5,
            "cmax": high if high > low else high + 0.5,
            "colorscale": _SCALE,
            "colorbar": {"title": {"text": column}, "thickness": 12, "x": 1.01, "outlinewidth": 0, "nticks": 6},
        }
        _add(drawn, points, places, shown & known, column, marker, legend=False)
    if not known.all():
        _add(drawn, points, places, shown & ~known, UNDEFINED, {"color": _GREY, "symbol": "x"})


def _add(
    drawn: go.Figure,
    points: Points,
    places: Places,
    rows: NDArray[np.bool_],
    name: str,
    marker: dict[str, Any],
    legend: bool = True,
) -> None:
    own = np.flatnonzero(rows)
    room = _ALL_LETTERS // max(1, len(points.table))  # alike whatever is shown
    letters = max(20, min(_LETTERS, room))
    lines = max(1, min(_LINES, room // letters))
    drawn.add_scatter(
        x=places.x[own],
        y=places.y[own],
        mode="markers",
        name=name,
        showlegend=legend,
        marker={"size": 8, "opacity": 0.75, "line": {"width": 0.5, "color": "#767b84"}, **marker},
        unselected={"marker": {"opacity": 0.12}},
        customdata=own.tolist(),  # its row; the table behind it is in Python alone
        hovertext=[_hover(row, lines, letters) for row in points.table.iloc[own].itertuples(index=False)],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _hover(row: Any, most: int, letters: int) -> str:
    """What is known of a point, and its text in at most so many lines."""
    strategy = UNREADABLE if pd.isna(row.strategy) else row.strategy
    reward = "undefined" if pd.isna(row.reward) else f"{row.reward:.3g}"
    lines = textwrap.wrap(row.text[: 2 * letters * most], letters, max_lines=most, placeholder=" \u2026")
    facts = f"step {row.step}, group {row.group}, task {row.task}, reward {reward}, {'success' if row.success else 'no success'}"
    return "<br>".join([facts, f"strategy {_short(str(strategy))}", *(escape(line) for line in lines or ["(empty)"])])


def _short(name: str) -> str:
    """The end of a long name is kept too: paths and plans differ there."""
    return escape(name if len(name) <= 28 else f"{name[:12]}\u2026{name[-15:]}", 30)
