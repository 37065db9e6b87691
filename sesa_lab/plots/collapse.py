"""The four signals of collapse over training steps, and where the detector saw it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sesa_lab.plots.theme import COLOURS, caption_or, escape, finish, need

NAMES = {
    "breadth": "variety of correct answers",
    "live": "groups with a gradient",
    "spread": "pass@G - pass@1",
    "entropy": "token entropy",
}
"""Signal -> what the legend calls it."""
_COLUMNS = 4
_INK = "#8A8A8A"
_DASHES = ("solid", "dash", "dot", "dashdot")


def signals(table: pd.DataFrame, marks: Sequence[tuple[str, int, int]], caption: str | None = None) -> go.Figure:
    """Each signal's average as a share of the best it has been, one panel a run.

    Args:
        table: columns run, step and, of each signal, ``*_loss`` (``collapse.detect``).
        marks: (run, change point, step of the alarm); the stretch between is shaded, the alarm is a line.
        caption: see ``provenance``; None: that the runs were not stated.
    """
    need(table, "run", "step", *(f"{name}_loss" for name in NAMES))
    runs = list(table["run"].unique())
    wide = min(_COLUMNS, len(runs))
    rows = -(-len(runs) // wide)
    figure = make_subplots(
        rows=rows,
        cols=wide,
        shared_yaxes=True,
        horizontal_spacing=0.02,
        vertical_spacing=0.25 / rows,
        subplot_titles=[escape(run, 130 // wide) for run in runs],
    )
    figure.update_annotations(font={"size": 11})
    for number, run in enumerate(runs):
        place = {"row": number // wide + 1, "col": number % wide + 1}
        part = table[table["run"] == run]
        for i, (name, label) in enumerate(NAMES.items()):
            figure.add_scatter(
                x=part["step"],
                y=1.0 - part[f"{name}_loss"],
                name=label,
                legendgroup=name,
                showlegend=number == 0,
                mode="lines",
                line={"color": COLOURS[i], "dash": _DASHES[i], "width": 2},
                hovertemplate=f"{label}<br>step %{{x}}: %{{y:.0%}} of the best<extra></extra>",
                **place,
            )
        for _, onset, step in (mark for mark in marks if mark[0] == run):
            mark_alarm(figure, onset, step, **place)
    figure.update_xaxes(title="training step", row=rows)
    if len(table) and table["step"].max() - table["step"].min() < 10:
        figure.update_xaxes(dtick=1)  # there are no half steps
    figure.update_yaxes(range=[0, 1.05], tickformat=".0%")
    figure.update_yaxes(title="share of the best so far", col=1)
    figure.update_layout(legend={"y": 1 + 26 / (240 * rows)})
    shown = caption_or(caption, None, "grey: from the change point to the alarm")
    return finish(figure, "Signals of collapse", shown, height=60 + 240 * rows, top=112)


def mark_alarm(figure: go.Figure, onset: int, step: int, **where: Any) -> None:
    """Shade from the change point to the alarm, and draw a line at the alarm.

    Args:
        figure: with training steps on its x axis.
        onset: the change point.
        step: of the alarm.
        where: in which panels, as plotly's ``add_vline`` takes it.
    """
    figure.add_vrect(x0=onset, x1=step, fillcolor=_INK, opacity=0.25, line_width=0, **where)
    figure.add_vline(x=step, line={"color": _INK, "width": 2}, **where)
