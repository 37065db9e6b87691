"""How often solutions follow the sketch they are given, and the one they are not: one panel a policy."""

from __future__ import annotations

import html
import math
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sesa_lab.plots.theme import COLOURS, escape, finish, need
from sesa_lab.statistics import text

ARMS = {
    "own": "given its own",
    "swapped": "given another of the task",
    "foreign": "given another task's",
    "none": "given none",
}
"""Arm -> which sketch a solution is given, from the top down."""
MARKS: dict[str, tuple[str, dict[str, Any]]] = {
    "follows": ("follows the sketch given", {"symbol": "circle", "size": 11, "color": COLOURS[0]}),
    "stubborn": ("follows its own sketch, not given", {"symbol": "diamond-open", "size": 11, "color": COLOURS[1]}),
    "chance": (
        "as often by chance",
        {"symbol": "line-ns-open", "size": 14, "color": COLOURS[-1], "line": {"width": 2}},
    ),
}
"""Measure -> its name in the legend, and its marker."""
BANDS = "bars: 95 % bootstrap over tasks"


def following(
    estimates: pd.DataFrame, title: str = "Solutions and the sketches they are given", caption: str = BANDS
) -> go.Figure:
    """Shares by arm: solutions that follow the given sketch, that follow their own though it was not given, and chance.

    Args:
        estimates: columns policy, arm, measure, mean, low, high, n, as ``sesa-lab fidelity --csv`` writes them; other arms and
            measures are not drawn, nor is NaN.
        title: of the figure.
        caption: where it comes from.
    """
    need(estimates, "policy", "arm", "measure", "mean", "low", "high", "n")
    policies = list(estimates["policy"].unique())
    names = [escape(policy, 40) for policy in policies]
    across = min(3, max(1, len(policies)))
    down = max(1, math.ceil(len(policies) / across))
    figure = make_subplots(
        rows=down, cols=across, shared_yaxes=True, subplot_titles=names, horizontal_spacing=0.06,
        vertical_spacing=0.32 / down,
    )  # fmt: skip
    shown = {arm: place for place, arm in enumerate(reversed(ARMS))}
    kept = estimates[estimates["arm"].isin(list(ARMS)) & estimates["mean"].notna()]
    for (policy, measure), part in kept.groupby(["policy", "measure"], sort=False):
        if measure in MARKS:
            row, col = divmod(policies.index(policy), across)
            trace = _marks(part, str(measure), shown)
            figure.add_trace(trace.update(showlegend=False), row=row + 1, col=col + 1)
    for label, marker in MARKS.values():  # the legend stands alone: a measure may lack from some panels
        figure.add_scatter(x=[None], y=[None], mode="markers", name=label, marker=marker, row=1, col=1)
    figure.update_xaxes(range=[-0.03, 1.03], tickformat=".0%")
    figure.update_yaxes(tickvals=list(shown.values()), ticktext=[ARMS[arm] for arm in shown], range=[-0.6, 3.6])
    figure.update_yaxes(showgrid=False)
    figure.update_xaxes(title="share of readable solutions", row=down)
    finish(figure, title, caption, height=down * 230 - 30, top=110)
    figure.update_layout(legend={"y": 1, "yanchor": "bottom", "yref": "paper", "tracegroupgap": 0})
    figure.layout.legend.y = 1 + 32 / (down * 230 - 30)  # above the panels' titles
    return figure


def _marks(part: pd.DataFrame, measure: str, shown: dict[str, int]) -> go.Scatter:
    label, marker = MARKS[measure]
    lift = {"follows": 0.12, "stubborn": -0.12}.get(
        measure, 0.12
    )  # chance lies on the line of what it is compared with
    mean, low, high = (part[name].to_numpy(dtype=float) for name in ("mean", "low", "high"))
    error = {"type": "data", "array": high - mean, "arrayminus": mean - low, "thickness": 2, "width": 5}
    return go.Scatter(
        x=mean,
        y=[shown[arm] + lift for arm in part["arm"]],
        mode="markers",
        name=label,
        marker=marker,
        error_x={**error, "color": marker["color"]} if measure != "chance" else None,
        customdata=[html.escape(text(r.mean, r.low, r.high, int(r.n))) for r in part.itertuples(index=False)],
        hovertemplate=f"{label}: %{{customdata}}<extra></extra>",
    )
