"""The curves of one run that is being trained: small enough to stay in a saved notebook, however long the run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sesa_lab.plots.theme import COLOURS, finish
from sesa_lab.runs import Run

POINTS = 300
"""Of a line, at most: a longer one is drawn as means of stretches of equal length."""
PANELS: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    ("success", (("step", "success", "success, drawn"), ("evaluation", "accuracy", "accuracy, evaluated"))),
    (
        "strategies",
        (("step", "distinct", "distinct a group, drawn"), ("evaluation", "coverage", "coverage@k, evaluated")),
    ),
    (
        "entropy (nats)",
        (("step", "entropy", "of a token, drawn"), ("evaluation", "entropy", "of an answer, evaluated")),
    ),
)
"""Title of a panel, and its lines: kind, column, name. What was drawn while training, and what an evaluation found."""


def curves(run: Run) -> go.Figure:
    """Success, distinct strategies and entropy of ``run`` as far as it has come, against the training step."""
    figure = make_subplots(rows=1, cols=len(PANELS), horizontal_spacing=0.08)
    tables = {"step": run.steps, "evaluation": run.evaluations}
    for col, (title, lines) in enumerate(PANELS, start=1):
        for place, (kind, column, name) in enumerate(lines):
            xs, ys = thinned(tables[kind], column)
            figure.add_scatter(
                x=xs,
                y=ys,
                name=name,
                mode="lines+markers" if kind == "evaluation" or len(xs) == 1 else "lines",
                line={"color": COLOURS[2 * (col - 1) + place], "width": 2 if kind == "evaluation" else 1},
                hovertemplate="step %{x:.0f}: %{y:.4g}",
                row=1,
                col=col,
            )
        figure.update_yaxes(title=title, rangemode="tozero", row=1, col=col)
    figure.update_xaxes(title="training step", rangemode="tozero")
    if len(run.steps) < 8:
        figure.update_xaxes(dtick=1)  # steps have no halves
    caption = f"run {sendable(run.label)}; steps as drawn, evaluations by the run's own settings; one seed, no bands"
    return finish(figure, sendable(run.path.resolve().name), caption, height=260, top=110)


def sendable(value: object) -> str:
    """As text that a kernel can send: what a file's name may hold that is no character is replaced."""
    return str(value).encode("utf-8", "replace").decode()


def thinned(table: pd.DataFrame, column: str) -> tuple[list[float], list[float]]:
    """Steps and values of ``column`` where it has one, at most ``POINTS`` of them."""
    part = table[["step", column]].dropna()
    steps, values = part["step"].to_numpy(dtype=float), part[column].to_numpy(dtype=float)
    if len(part) <= POINTS:
        return steps.tolist(), values.tolist()
    stretches = np.array_split(np.arange(len(part)), POINTS)
    return [float(steps[found].mean()) for found in stretches], [float(values[found].mean()) for found in stretches]
