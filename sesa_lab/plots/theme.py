"""What every figure shares: one theme, colours, escaped labels, and the caption that says where it comes from."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sesa_lab.errors import InputError, suggest, visible
from sesa_lab.runs.environment import short_commit

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8B5A2B", "#8A8A8A")
"""Okabe-Ito without its yellow and black, which vanish on a white or a dark page; a brown and a grey in their place."""
BANDS = "bands: 95 % t interval over seeds"
BARS = "bars: 95 % t interval over seeds"
OTHERS, UNREADABLE = "others", "unreadable"
"""Strategies that have no name of their own: those that are not among the ones shown, and what cannot be read as one."""
CAPTION_LINES = 10
"""Of a caption, at most: what follows is cut."""
_AXIS = {
    "gridcolor": "rgba(128,128,128,0.25)",
    "linecolor": "#767b84",
    "zeroline": False,
    "automargin": True,
    "title": {"standoff": 10},
}

TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#767b84"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": list(COLOURS),
        "title": {"x": 0.0, "xref": "paper", "font": {"size": 16}, "y": 0.97, "yanchor": "top"},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "hovermode": "closest",
        "modebar": {"remove": ["sendChartToCloud"]},  # no figure offers to send itself away
        "margin": {"l": 60, "r": 20, "t": 80, "b": 60},
    }
)


def escape(value: object, limit: int = 80) -> str:
    """Text for a label or a hover: one line, what is ``errors.UNSEEN`` shown as a dot, cut at ``limit``, HTML escaped."""
    line = visible(str(value))
    return html.escape(line if len(line) <= limit else line[: limit - 1] + "\u2026", quote=False)


def provenance(runs: Iterable[Mapping[str, Any]], bands: str = BANDS) -> str:
    """Where a figure comes from, in one plain line for its caption.

    Args:
        runs: one mapping a run with the keys ``run`` (folder), ``commit``, ``config`` (a short name) and ``seed``; what
            is missing reads "unknown".
        bands: what the bands or bars mean; empty where there are none.

    Returns:
        ``'runs a/0, a/1; commit abc1234; config: fast; seeds 0-1; n = 2; bands: ...'``. n counts the distinct seeds of a config,
        'n = 3 to 5' where some have fewer than others.
    """
    rows = list(runs)
    seeds = {row["seed"] for row in rows if row.get("seed") is not None}
    of_config: dict[str, set[Any]] = {}
    for row in rows:
        of_config.setdefault(str(row.get("config")), set()).update({row["seed"]} if row.get("seed") is not None else ())
    counts = sorted(map(len, of_config.values()))
    known = {key: list(dict.fromkeys(str(row.get(key) or "unknown") for row in rows)) for key in ("run", "config")}
    commits = dict.fromkeys(short_commit(str(row.get("commit") or "unknown")) for row in rows)
    shown = known["run"] if len(known["run"]) <= 6 else [*known["run"][:5], f"and {len(known['run']) - 5} more"]
    parts = [f"runs {', '.join(shown) or 'unknown'}", f"commit {', '.join(commits) or 'unknown'}"]
    parts += [f"config: {', '.join(known['config']) or 'unknown'}", *_seeds(seeds)]
    if seeds and counts[0] < counts[-1]:
        parts[-1] = f"n = {counts[0]} to {counts[-1]}"
    return "; ".join([*parts, bands] if bands else parts)


def need(table: pd.DataFrame, *names: str) -> None:
    """Raise an ``InputError`` that names the first of ``names`` that is no column of the table."""
    for name in names:
        if name not in table.columns:
            raise InputError(f"no column {name!r} in the table; {suggest(name, [str(c) for c in table.columns])}")


def _seeds(seeds: set[Any]) -> list[str]:
    """``['seeds 0-4', 'n = 5']``; a list where they do not follow one another."""
    if not seeds:
        return ["seeds unknown"]
    whole = all(isinstance(seed, int | np.integer) for seed in seeds)
    ordered: list[Any] = sorted(seeds) if whole else sorted(map(str, seeds))
    if whole and len(ordered) > 2 and ordered[-1] - ordered[0] == len(ordered) - 1:
        return [f"seeds {ordered[0]}-{ordered[-1]}", f"n = {len(ordered)}"]
    return [f"seeds {', '.join(map(str, ordered))}", f"n = {len(ordered)}"]


def places(column: pd.Series) -> dict[Any, int]:
    """Name -> the place that decides its colour and dash: that among the categories, or that of its first appearance.

    Figures of one notebook that show other arms each keep an arm's colour by a categorical column with all arms' names.
    """
    dtype = column.dtype
    names = dtype.categories if isinstance(dtype, pd.CategoricalDtype) else column.unique()
    return {name: place for place, name in enumerate(names)}


def legend_letters(figure: go.Figure) -> int:
    """How long the legend would be in one row, in letters; a name's line and the gap after it count as eight."""
    return sum(len(trace.name) + 8 for trace in figure.data if trace.name and trace.showlegend is not False)


def room_above(figure: go.Figure) -> int:
    """Pixels for the title and as many rows of legend as its names need at the width of a page."""
    return 84 + 22 * (legend_letters(figure) // 100)


def caption_or(caption: str | None, table: pd.DataFrame | None, bands: str) -> str:
    """The caption given; else what the table itself tells: seeds and n, and that the runs were not stated."""
    if caption is not None:
        return caption
    return "; ".join(["runs not stated", *(_seeds(set(table["seed"].dropna())) if table is not None else []), bands])


def finish(figure: go.Figure, title: str, caption: str, height: int, below: int = 64, top: int = 84) -> go.Figure:
    """Template, title, caption. ``height`` is the panel's in pixels, ``below`` and ``top`` what stands around it."""
    wrapped = textwrap.wrap(caption, 115, max_lines=CAPTION_LINES, placeholder=" \u2026")
    lines = [escape(line, 400) for line in wrapped]
    figure.add_annotation(
        text="<br>".join(lines),
        x=0,
        y=0,
        xref="paper",
        yref="paper",
        xanchor="left",
        yanchor="top",
        align="left",
        yshift=-below,
        showarrow=False,
        font={"size": 11},
    )
    bottom = below + 15 * len(lines) + 12
    figure.update_layout(template=TEMPLATE, title={"text": escape(title, 200)}, height=top + height + bottom)
    figure.update_layout(margin={"b": bottom, "t": top})
    return figure
