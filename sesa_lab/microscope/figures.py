"""The microscope's figures: strategies x time, below it curves on the same axis of steps, and places on their tree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sesa_lab import plots
from sesa_lab.errors import InputError
from sesa_lab.microscope.clusters import Clusters
from sesa_lab.microscope.data import Heat, Paths, Source, View, stretches
from sesa_lab.plots.collapse import mark_alarm
from sesa_lab.plots.theme import COLOURS, escape, finish, legend_letters, provenance

LEFT, RIGHT = 235, 110
"""Margins in pixels, alike in both figures, so that a step is at the same place in both."""
TRACES_A_RUN = 2
"""Of the heat map: cells of which some succeeded, then those of which none did."""
_ROW, _PANEL, _SCALES = 24, 105, 170  # pixels a strategy, a panel of curves, and two scales of colours below each other
_BLUE, _ORANGE = "0,114,178", "213,94,0"
_SPACING = 0.04
_FEW_STEPS = 10
_OF = {
    "candidates": "Strategies: share of a step's candidates",
    "answers": "Strategies: share of the evaluated answers",
    "clusters": "Clusters of texts: share of a step's sampled candidates",
}
_LETTERS = 85
"""Of the legend, a row: at the width of a notebook beside a file browser."""
_ALARMS = "grey line: alarm, grey band: from its change point on"
_PANELS = ("entropy,<br>nats", "distinct<br>correct", "pass@k,<br>0..1", "zero-variance<br>share, 0..1")
_FAN_LOOKS = (
    ("#0072B2", "solid"),
    ("#56B4E9", "dash"),
    ("#CC79A7", "dashdot"),
    ("#009E73", "dot"),
    ("#E69F00", "solid"),
)
"""Of pass@k, by the place of its k."""


def heat_map(
    views: Sequence[View],
    heat: Heat,
    source: Source | Literal["clusters"] = "candidates",
    step: int | None = None,
    row: int | None = None,
) -> go.Figure:
    """One panel a run: a cell a (strategy, step), the darker the larger its share; blue where some of it succeeded, else orange.

    Of a long run a cell is the mean of a few steps (``data.stretches``).

    Args:
        views: the runs.
        heat: of them (``data.heat``).
        source: that it was made with; ``clusters``: its names are those of clusters.
        step: marked by a line; None: none.
        row: of the chosen strategy, in bold; None: none.
    """
    names = [*heat.names, *heat.rest]
    figure = _panels(views, 1, [1.0])
    most = max((float(share.max()) for share in heat.share if share.size), default=0.0) or 1.0
    for col, (steps, share, success) in enumerate(zip(heat.steps, heat.share, heat.success, strict=True), start=1):
        parts = stretches(len(steps))
        share, success = (
            np.array([table[:, part].mean(axis=1) for part in parts]).T.reshape(len(names), len(parts))
            for table in (share, success)
        )
        drawn = [float(np.mean(steps[part])) for part in parts]
        each = parts[0].stop if parts else 1
        when = "step %{x}" if each == 1 else f"mean of {each} steps around step %{{x:.0f}}"
        for kind, solved in enumerate((True, False)):
            # A cell is in one of two traces; where the share is 0 it is in none, and the page shows through.
            z = np.where((share > 0) & ((success > 0) == solved), share, np.nan)
            figure.add_trace(_cells(z, drawn, success, when, solved, most, col == 1, kind), 1, col)
    labels = [_label(name, i < len(heat.names) and heat.solved[i]) for i, name in enumerate(names)]
    if row is not None and row < len(names):
        labels[row] = f"<b>{labels[row]}</b>"
    figure.update_xaxes(showgrid=False)  # cells let it shine through
    figure.update_yaxes(
        range=[len(names) - 0.5, -0.5], tickvals=list(range(len(names))), ticktext=labels, showgrid=False
    )
    note = "\u2605: succeeded at some step; others: those that are not listed"
    return _finish(figure, views, _OF[source], note, max(_SCALES, _ROW * len(names)), step)


def curves(views: Sequence[View], step: int | None = None) -> go.Figure:
    """One column a run: entropy, distinct correct strategies, pass@k of its evaluations and zero-variance share over steps.

    Args:
        views: the runs.
        step: marked by a line; None: none.
    """
    figure = _panels(views, len(_PANELS), [1.0] * len(_PANELS))
    fan = sorted({k for view in views for k in view.fan})
    for col, view in enumerate(views, start=1):
        _curves_of(figure, view, col, fan)
        for _, alarm in view.alarms.iterrows():
            mark_alarm(
                figure, int(alarm["onset"]), int(alarm["step"]), row="all", col=col, exclude_empty_subplots=False
            )
    for number, title in enumerate(_PANELS, start=1):
        figure.update_yaxes(title={"text": title, "font": {"size": 12}}, row=number, col=1)
        # Said, not found by the browser: beside shapes that span a panel it takes an axis that is shared for an empty one.
        top = _top(views, number)
        figure.update_yaxes(range=[-0.04 * top, 1.06 * top], nticks=4, row=number)
    for number in (3, 4):
        figure.update_yaxes(tickvals=[0, 0.5, 1], row=number)
    kinds = {"noticed while training" if view.watched else "by the detector now" for view in views}
    return _finish(figure, views, "Signs of collapse", f"{_ALARMS}; {', '.join(sorted(kinds))}", 4 * _PANEL, step)


def tree(views: Sequence[View], paths: Paths, step: int) -> go.Figure:
    """The tree of places, one panel a run, coloured by the policy's exact mass when it was last evaluated before ``step``.

    Args:
        views: runs whose evaluations are exact.
        paths: theirs, of ``data.paths``.
        step: a training step; of a run that was evaluated later only, its first evaluation is shown.
    """
    frames = {}
    for number, view in enumerate(views, start=1):
        answers = view.shares["answers"]
        there = np.unique(answers["step"])
        at = int(there[max(0, int(np.searchsorted(there, step, side="right")) - 1)])
        rows = answers[(answers["step"] == at) & answers["strategy"].notna()]
        frames[f"{number}. step {at}, {view.run.label}"] = pd.DataFrame(
            {
                "step": step,
                "strategy": rows["strategy"],
                "probability": rows["share"],
                "success": rows["success"] > 0,
            }
        )
    note = provenance(_sources(views), "stars: treasures; colour: policy mass, exact")
    return plots.tree(paths.leaves, frames, paths.separator, "Policy mass on the tree of places", note)


def masses(views: Sequence[View], clusters: Clusters, step: int) -> go.Figure:
    """What the policy gives to each cluster of texts, one panel a run, as far as the step's candidates tell.

    Args:
        views: the runs.
        clusters: of their texts.
        step: a training step; the last one before it that has texts in the sample is shown.
    """
    found = [clusters.mass(place, step) for place in range(len(views))]
    figure = make_subplots(
        rows=1,
        cols=len(views),
        shared_yaxes=True,
        horizontal_spacing=_SPACING,
        column_titles=[escape(f"{v.run.label}: step {m.step}", 60) for v, m in zip(views, found, strict=True)],
    )
    figure.update_annotations(font={"size": 12})
    for col, mass in enumerate(found, start=1):
        failed = [whole - part for whole, part in zip(mass.share, mass.success, strict=True)]
        who = "drawn given the task alone" if mass.direct else "however drawn"
        for name, values, colour in (("succeeds", mass.success, COLOURS[0]), ("does not", failed, COLOURS[1])):
            figure.add_bar(
                x=values,
                y=list(range(len(values))),
                orientation="h",
                name=name,
                legendgroup=name,
                showlegend=col == 1,
                marker={"color": colour, "pattern": {"shape": "" if colour == COLOURS[0] else "/", "size": 6}},
                hovertemplate=f"%{{y}}<br>%{{x:.3g}} of {mass.candidates} candidates {who}<extra></extra>",
                row=1,
                col=col,
            )
    labels = [_label(name, False) for name in clusters.names]
    figure.update_yaxes(
        range=[len(labels) - 0.5, -0.5],
        tickvals=list(range(len(labels))),
        ticktext=labels,
        showgrid=False,
        ticks="outside",
    )
    figure.update_xaxes(range=[0, 1], title="share of the candidates, 0..1")
    figure.update_layout(barmode="stack")
    counted = "those drawn given the task alone, where there are any" if any(m.direct for m in found) else "all alike"
    note = f"of the step's sampled candidates ({counted}); k-means of {clusters.embedder} vectors, all runs together"
    return _finish(figure, views, "Policy mass on clusters of texts", note, _ROW * len(labels), None)


def _curves_of(figure: go.Figure, view: View, col: int, fan: Sequence[int]) -> None:
    training, evaluated = view.training, view.evaluated
    k = evaluated["coverage_k"].dropna()
    of_k = f" in {k.iloc[-1]:.0f} samples" if len(k) else ""
    lines = [
        (1, training, "entropy", "entropy a token", COLOURS[0], "solid"),
        (1, evaluated, "entropy", "entropy an answer, evaluated", COLOURS[1], "dash"),
        (2, training, "distinct", "distinct correct in a group", COLOURS[0], "solid"),
        (2, evaluated, "coverage", f"distinct correct{of_k}, evaluated", COLOURS[1], "dash"),
        *(
            (3, evaluated, f"pass_{n}", f"pass@{n}", *_FAN_LOOKS[place % len(_FAN_LOOKS)])
            for place, n in enumerate(fan)
            if f"pass_{n}" in evaluated
        ),
        (4, training, "zero_variance", "zero-variance groups", COLOURS[0], "solid"),
    ]
    for row, table, column, name, colour, dash in lines:
        there = table[table[column].notna()]
        if not len(there):
            continue
        steps, values = there["step"].to_numpy(), there[column].to_numpy(dtype=float)
        parts = stretches(len(there))
        figure.add_scatter(
            x=[steps[part].mean() for part in parts] if len(parts) < len(steps) else steps,
            y=[values[part].mean() for part in parts] if len(parts) < len(steps) else values,
            name=name,
            legendgroup=name,
            showlegend=not any(trace.legendgroup == name for trace in figure.data),
            mode="lines" if len(there) > 30 else "lines+markers",
            marker={"size": 5},
            line={"color": colour, "dash": dash, "width": 2},
            hovertemplate=f"{name}<br>step %{{x:.0f}}: %{{y:.3g}}<extra></extra>",
            row=row,
            col=col,
        )


def _top(views: Sequence[View], row: int) -> float:
    """The largest value of a panel; 1 for shares, and where there is none."""
    columns = {1: ("entropy", "entropy"), 2: ("distinct", "coverage")}.get(row)
    if columns is None:
        return 1.0
    values = [value for view in views for value in (*view.training[columns[0]], *view.evaluated[columns[1]])]
    return max((float(value) for value in values if np.isfinite(value)), default=0.0) or 1.0


def _panels(views: Sequence[View], rows: int, heights: list[float]) -> go.Figure:
    if not views:
        raise InputError("no run to draw; expected one or two")
    figure = make_subplots(
        rows=rows,
        cols=len(views),
        shared_xaxes="columns" if rows > 1 else False,
        shared_yaxes=True,
        horizontal_spacing=_SPACING,
        vertical_spacing=0.05,
        row_heights=heights,
        column_titles=[escape(f"{view.run.label}, {view.run.config.sampler.name}", 60) for view in views],
    )
    figure.update_annotations(font={"size": 12})
    # One range for all: in both figures, though evaluations have other steps than candidates, and for runs of any length.
    steps = [step for view in views for step in (*view.steps, *view.evaluated["step"])]
    figure.update_xaxes(range=[min(steps) - 0.5, max(steps) + 0.5])
    if max(steps) - min(steps) <= _FEW_STEPS:
        figure.update_xaxes(dtick=1)  # there is no half a step
    figure.update_xaxes(title="training step", row=rows)
    return figure


def _cells(
    z: np.ndarray,
    steps: list[float],
    success: np.ndarray,
    when: str,
    solved: bool,
    most: float,
    scale: bool,
    place: int,
) -> go.Heatmap:
    """Numbers of half the usual length, and no words a cell: a long run's page has tens of thousands of them."""
    colour, some = (_BLUE, "%{customdata:.3g}") if solved else (_ORANGE, "none")
    # Alpha, not lightness: what is rare fades into the page, be it light or dark. Steep at first: most shares are small.
    stops = [[x, f"rgba({colour},{0.12 + 0.88 * x**0.5:.3f})"] for x in (0.0, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)]
    bar = {
        "title": {"text": "share, some<br>succeed" if solved else "share, none<br>succeeds", "font": {"size": 11}},
        "thickness": 10, "len": 0.5, "y": 1.0 - 0.5 * place, "yanchor": "top", "x": 1.01, "nticks": 4,
        "tickfont": {"size": 10}, "outlinewidth": 0,
    }  # fmt: skip
    return go.Heatmap(
        z=z.astype(np.float32),
        x=steps,
        y=list(range(len(z))),
        customdata=success.astype(np.float32) if solved else None,
        hovertemplate=f"%{{y}}<br>{when}: %{{z:.3g}} of all, {some} with success<extra></extra>",
        hoverongaps=False,
        zmin=0.0,
        zmax=most,
        colorscale=stops,
        showscale=scale,
        colorbar=bar,
        ygap=2,
    )


def _label(name: str, solved: bool) -> str:
    """The end of a long name is kept too: paths and plans differ there."""
    short = name if len(name) <= 28 else f"{name[:12]}\u2026{name[-15:]}"
    return f"{escape(short, 30)} {chr(0x2605)}" if solved else escape(short, 30)


def _finish(
    figure: go.Figure, views: Sequence[View], title: str, note: str, height: int, step: int | None
) -> go.Figure:
    if step is not None:
        for col in range(1, len(views) + 1):
            figure.add_vline(
                x=step,
                line={"color": "#CC79A7", "width": 2, "dash": "dot"},
                row="all",
                col=col,
                exclude_empty_subplots=False,
            )
    legend = 25 * math.ceil(legend_letters(figure) / _LETTERS)  # pixels
    finish(figure, title, provenance(_sources(views), note), height=height, below=62, top=70 + legend)
    figure.update_layout(margin={"l": LEFT, "r": RIGHT}, legend={"y": 1 + 26 / height}, hovermode="closest")
    figure.update_yaxes(automargin=False)
    return figure


def _sources(views: Sequence[View]) -> list[dict[str, Any]]:
    return [view.run.source(view.run.config.sampler.name) for view in views]
