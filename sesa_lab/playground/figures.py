"""Figures of the loss playground: a group's candidates as bars, their tokens as strips, all corrections side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sesa_lab.errors import InputError, suggest
from sesa_lab.playground.compute import Result
from sesa_lab.plots.theme import COLOURS, escape, finish, provenance
from sesa_lab.runs.browse import told

Words = Callable[[Sequence[int]], list[str]]
"""Token ids -> one text a token; hostile text, escaped here."""
MEASURES = {
    "change": "predicted change<br>of log p, nats",
    "weight": "weight: sum of<br>\u2212dL/dlog p, per nat",
    "advantage": "advantage",
    "importance": "importance weight",
}
"""Column of ``Result.items`` -> what its axis says."""
_UNITS = {"std": "advantage, s.d. of<br>the group's rewards", "mean": "advantage,<br>reward units"}
_KINDS = {
    (True, False): ("success, new", COLOURS[0], ""),
    (True, True): ("success, repeat", COLOURS[0], "/"),
    (False, False): ("failure, new", COLOURS[1], ""),
    (False, True): ("failure, repeat", COLOURS[1], "/"),
}
"""(success, repeat) -> name, colour, hatching."""
_DOWN, _ZERO, _UP, _INK = "#E69F00", "#f1f3f5", "#56B4E9", "#1c2530"  # opaque: cells read on a light and on a dark page
_ROW, _GAP = 22, 0.34  # pixels a candidate, and the room between two bars as a share of it
_A_TOKEN = {"weight": "weight:<br>\u2212dL/dlog p,<br>per nat", "change": "predicted<br>change of<br>log p, nats"}
_MOST_TEXT = 20  # tokens a completion up to which their words stand in the cells
MOST_TOKENS = 2000
"""Cells of a figure: a page of more is slow to send and to draw."""
_HOVER = ("index", "token", "old", "weight", "change")
_TOKEN_HOVER = (
    "candidate %{customdata[0]}, token %{x}: <b>%{text}</b> (id %{customdata[1]})"
    "<br>log p when drawn %{customdata[2]:.3g} nats"
    "<br>weight %{customdata[3]:.3g}; predicted change %{customdata[4]:.3g} nats<extra></extra>"
)
"""Of ``_HOVER``: numbers and one template, not a text a cell."""
ASSUMPTION = (
    "predicted change: one plain gradient step of size 1, of all groups of the step, on a table of logits, one row a prefix,"
    " no generalisation between prefixes; read signs and order, not sizes"
)


def candidates(result: Result, group: int, second: bool = False) -> go.Figure:
    """Advantage, importance weight, total weight and predicted change of each candidate of a group, in the order drawn.

    Args:
        result: of ``compute``.
        group: number of the group in its step.
        second: of the second likelihood, where candidates are trained under two contexts.
    """
    rows, update = _rows(result, group, second), result.rule.update
    shown = ("advantage", "importance", "weight", "change")
    figure = make_subplots(rows=1, cols=len(shown), shared_yaxes=True, horizontal_spacing=0.03)
    for col, measure in enumerate(shown, start=1):
        _bars(figure, rows, measure, col)
        title = _UNITS[update.advantage] if measure == "advantage" else MEASURES[measure]
        figure.update_xaxes(title=title, nticks=4, row=1, col=col)
    title = f"Step {result.step.number}, group {group}: correction {update.correction}, loss {update.loss}"
    return _finish(figure, result, rows, title, ASSUMPTION)


def corrections(results: Mapping[str, Result], group: int, measure: str = "change", second: bool = False) -> go.Figure:
    """Which candidates of a group each correction pushes up and which down: one panel a correction, one axis for all.

    Args:
        results: of ``compare``.
        group: number of the group in its step.
        measure: ``change``, ``weight`` or ``importance``.
        second: as in ``candidates``.
    """
    if measure not in MEASURES:
        raise InputError(f"measure {measure!r} is not one of the playground; {suggest(measure, list(MEASURES))}")
    figure = make_subplots(
        rows=1,
        cols=len(results),
        shared_yaxes=True,
        shared_xaxes="all",
        horizontal_spacing=0.035,
        subplot_titles=list(results),
    )
    tables = [_rows(result, group, second) for result in results.values()]
    for col, rows in enumerate(tables, start=1):
        _bars(figure, rows, measure, col)
    figure.update_annotations(font={"size": 13}, yshift=2)
    reach = 1.08 * max((abs(value) for rows in tables for value in rows[measure]), default=0.0) or 1.0
    low = 0.0 if all((rows[measure] >= 0).all() for rows in tables) else -reach
    figure.update_xaxes(range=[low, reach], nticks=3, tickangle=0, tickfont={"size": 11})
    figure.update_xaxes(title=MEASURES[measure].replace("<br>", " "), row=1, col=(len(results) + 1) // 2)
    result = next(iter(results.values()))
    title = f"Step {result.step.number}, group {group}: every correction, loss {result.rule.update.loss}"
    return _finish(figure, result, tables[0], title, ASSUMPTION if measure == "change" else "", above=24)


def tokens(
    result: Result,
    group: int,
    second: bool = False,
    words: Words | None = None,
    measure: str = "weight",
    first: int = 0,
) -> go.Figure:
    """One cell a token: its weight (or predicted change); blue is pushed up, orange down, a cross says that the clip acts.

    Only one page of long completions is drawn, at most ``MOST_TOKENS`` cells (see ``pages``).

    Args:
        result: of ``compute``.
        group: number of the group in its step.
        second: as in ``candidates``.
        words: token ids of a completion -> the text of each; None: ids are shown.
        measure: ``weight`` or ``change``.
        first: place of the first token that is drawn, from 0, in all completions.

    Raises:
        InputError: another measure, no such group, or a place that is not the first of a page.
    """
    if measure not in ("weight", "change"):
        raise InputError(f"measure {measure!r} is not one of a token; {suggest(measure, ['weight', 'change'])}")
    rows = _rows(result, group, second)
    table = result.tokens[(result.tokens["group"] == group) & (result.tokens["second"] == second)]
    reach = float(table[measure].abs().max()) if len(table) else 0.0  # one scale for all pages
    starts = [start for start, _ in pages(result, group, second)]
    if first not in starts:
        raise InputError(f"first = {first!r} begins no page of tokens; expected one of {told(starts)}")
    width = min(_longest(table) - first, _a_page(len(rows)))
    said = {i: words(ids.tolist()) if words else ids.tolist() for i, ids in table.groupby("index")["token"]}
    place = {index: row for row, index in enumerate(rows["index"])}
    z = np.full((len(rows), width), np.nan)
    text, known = np.full(z.shape, "", dtype=object), np.full((*z.shape, len(_HOVER)), np.nan, dtype=np.float32)
    for cell in table[table["place"].between(first, first + width - 1)].to_dict("records"):
        at = place[cell["index"]], cell["place"] - first
        z[at] = cell[measure]
        text[at] = ("\u00d7 " if cell["clipped"] else "") + escape(said[cell["index"]][cell["place"]], 24)
        known[at] = [cell[name] for name in _HOVER]
    reach = reach or 1.0
    figure = go.Figure(
        go.Heatmap(
            z=z,
            x=list(range(first, first + width)),
            y=list(range(len(rows))),
            text=text,
            texttemplate="%{text}" if width <= _MOST_TEXT else None,
            textfont={"color": _INK, "size": 12},
            customdata=known,
            hovertemplate=_TOKEN_HOVER,
            hoverongaps=False,
            zmin=-reach,
            zmax=reach,
            colorscale=[[0.0, _DOWN], [0.5, _ZERO], [1.0, _UP]],
            xgap=2 if width <= 3 * _MOST_TEXT else 0,  # between many narrow cells there would be little but gaps
            ygap=3,
            colorbar={"title": {"text": _A_TOKEN[measure]}, "thickness": 14, "nticks": 5, "exponentformat": "power"},
        )
    )
    figure.update_xaxes(title="token of the completion", dtick=1 if width <= _MOST_TEXT else None, showgrid=False)
    title = f"Step {result.step.number}, group {group}: tokens under {result.rule.update.correction}"
    clipped = "\u00d7" if width <= _MOST_TEXT else "\u00d7 (on hover)"
    note = f"{clipped}: the clip leaves the token no policy gradient; one candidate a row, in the order drawn"
    return _finish(figure, result, rows, title, f"{note}; {ASSUMPTION}" if measure == "change" else note, legend=0)


def pages(result: Result, group: int, second: bool = False) -> list[tuple[int, int]]:
    """What of long completions is drawn at a time: the first token's place and the last one's, page by page; one at least."""
    rows = _rows(result, group, second)
    table = result.tokens[(result.tokens["group"] == group) & (result.tokens["second"] == second)]
    longest, each = _longest(table), _a_page(len(rows))
    return [(start, min(start + each, longest) - 1) for start in range(0, longest, each)]


def _longest(table: pd.DataFrame) -> int:
    return 1 + int(table["place"].max()) if len(table) else 1


def _a_page(rows: int) -> int:
    return max(1, MOST_TOKENS // max(1, rows))


def _rows(result: Result, group: int, second: bool) -> pd.DataFrame:
    if group not in result.step.groups:
        raise InputError(f"group {group!r} is not in step {result.step.number}; it has groups {result.step.groups}")
    items = result.items
    return items[(items["group"] == group) & (items["second"] == second)].reset_index(drop=True)


def _bars(figure: go.Figure, rows: pd.DataFrame, measure: str, col: int) -> None:
    """One trace a kind of candidate, so that the legend names what is there."""
    hover = np.array([_hover(row) for row in rows.to_dict("records")], dtype=object)
    for (success, repeat), (name, colour, hatch) in _KINDS.items():
        chosen = ((rows["success"] == success) & (rows["repeat"] == repeat)).to_numpy()
        if not chosen.any():
            continue
        figure.add_bar(
            x=rows.loc[chosen, measure].to_numpy(dtype=float),
            y=np.flatnonzero(chosen),
            orientation="h",
            name=name,
            legendgroup=name,
            showlegend=col == 1,
            # Repeats are hollow and hatched: told apart on any ground, and by who sees no colours.
            marker={"color": colour, "line": {"width": 1, "color": colour}, "pattern": {"shape": hatch, "size": 6}},
            width=1 - _GAP,
            customdata=hover[chosen],
            hovertemplate="%{customdata}<extra></extra>",
            row=1,
            col=col,
        )


def _hover(row: Mapping[Any, Any]) -> str:
    strategy = "unreadable" if pd.isna(row["strategy"]) else f"strategy {escape(row['strategy'], 60)}"
    lines = [
        f"<b>{row['index']}</b> {escape(row['completion'], 90)}",
        f"{strategy}; {'success' if row['success'] else 'failure'}{', repeat' if row['repeat'] else ''}",
        f"advantage {row['advantage']:.3g}; importance weight {row['importance']:.3g} (p/q {row['ratio']:.3g})",
        f"weight {row['weight']:.3g}; predicted change {row['change']:.3g} nats; clipped {row['clipped']:.0%} of tokens",
    ]
    return "<br>".join(lines)


def _finish(
    figure: go.Figure, result: Result, rows: pd.DataFrame, title: str, note: str, above: int = 0, legend: int = 28
) -> go.Figure:
    names = [
        f"{row.index_} \u00b7 {escape(row.completion, 26)}"
        for row in rows.rename(columns={"index": "index_"}).itertuples()
    ]
    figure.update_yaxes(range=[len(rows) - 0.5, -0.5], tickvals=list(range(len(rows))), ticktext=names, showgrid=False)
    figure.update_layout(barmode="overlay")
    figure.update_xaxes(
        exponentformat="power", zeroline=not isinstance(figure.data[0], go.Heatmap), zerolinecolor="#767b84"
    )
    source = result.step.run.source(result.step.config.environment.name)
    height = _ROW * len(rows) + 30
    finish(figure, title, provenance([source], note), height=height, below=76, top=60 + legend + above)
    figure.update_layout(legend={"y": 1 + (6 + above) / height})  # above the panels' names
    return figure
