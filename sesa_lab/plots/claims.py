"""The paper's claims as a forest plot: an interval for the paper's rule, the best of ours, and the best control."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any, Protocol

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sesa_lab.plots.theme import COLOURS, escape, finish


class Interval(Protocol):
    """An estimate with its interval."""

    mean: float
    low: float
    high: float

    @property
    def text(self) -> str: ...


class Shown(Protocol):
    """A claim with its estimates."""

    text: str
    measure: str
    size: float | None
    verdict: str

    @property
    def paper(self) -> Interval | None: ...
    @property
    def best(self) -> Interval | None: ...
    @property
    def best_control(self) -> Interval | None: ...


KINDS = {
    "the paper's rule": ("paper", "circle"),
    "ours, the best": ("best", "diamond"),
    "without sequence, the best": ("best_control", "square-open"),
}
"""Legend -> the estimate, and its marker: told apart without colours too."""
_ROW = 62  # pixels a claim
_LETTERS = 46  # of a claim's line: where it were longer, little were left of the page's width


def forest(claims: Sequence[Shown], caption: str) -> go.Figure:
    """One row a claim that has estimates; probabilities on the left, numbers of strategies on the right.

    Args:
        claims: in the order of their rows, from the top.
        caption: what they were made from.
    """
    panels = [
        [claim for claim in claims if (claim.measure == "coverage") is counted and (claim.paper or claim.best)]
        for counted in (False, True)
    ]
    figure = make_subplots(rows=2, cols=1, row_heights=[max(len(p), 1) for p in panels], vertical_spacing=0.14)
    for place, shown in enumerate(panels, start=1):
        for number, (name, (attribute, symbol)) in enumerate(KINDS.items()):
            found = [(row, getattr(claim, attribute)) for row, claim in enumerate(shown)]
            kept = [(row, estimate) for row, estimate in found if estimate is not None]
            figure.add_scatter(
                **_marks(kept, number, symbol), name=name, legendgroup=name, showlegend=place == 1, row=place, col=1
            )
        sizes = [(row, claim.size) for row, claim in enumerate(shown) if claim.size is not None]
        if sizes:
            figure.add_scatter(
                x=[size for _, size in sizes], y=[row for row, _ in sizes], mode="markers", name="the paper reports",
                marker={"symbol": "line-ns-open", "size": 22, "color": "#888888", "line": {"width": 3}},
                hovertemplate="the paper: %{x:+.2f}<extra></extra>", row=place, col=1,
            )  # fmt: skip
        figure.add_vline(x=0, line={"width": 1, "color": "#888888"}, row=place, col=1)
        words = [f"{_wrapped(claim.text)}<br><b>{escape(claim.verdict)}</b>" for claim in shown]
        figure.update_yaxes(
            tickvals=list(range(len(shown))),
            ticktext=words,
            range=[len(shown) - 0.4, -0.6],
            automargin=True,
            row=place,
            col=1,
        )
    figure.update_xaxes(title="difference (probability)", row=1, col=1)
    figure.update_xaxes(title="difference (distinct correct strategies)", row=2, col=1)
    rows = sum(map(len, panels))
    finish(figure, "The paper's claims on small policies", caption, _ROW * rows + 120, top=110)
    legend = {"xref": "container", "x": 0.02, "yref": "container", "y": 1 - 56 / figure.layout.height, "yanchor": "top"}
    figure.update_layout(legend={"orientation": "h", **legend}, title={"x": 0.02, "xref": "container"})
    return figure


def _wrapped(text: str) -> str:
    """A claim on at most two lines."""
    lines = textwrap.wrap(text, _LETTERS, max_lines=2, placeholder=" \u2026")
    return "<br>".join(escape(line, _LETTERS + 2) for line in lines)


def _marks(kept: Sequence[tuple[int, Interval]], number: int, symbol: str) -> dict[str, Any]:
    """Estimates of one kind, moved up or down so that the three of a claim do not lie on each other."""
    colour, shift = COLOURS[number], (number - 1) * 0.22
    ends = [
        (e.high - e.mean, e.mean - e.low) if math.isfinite(e.low) and math.isfinite(e.high) else (0.0, 0.0)
        for _, e in kept
    ]
    return {
        "x": [estimate.mean for _, estimate in kept],
        "y": [row + shift for row, _ in kept],
        "mode": "markers",
        "marker": {"color": colour, "size": 10, "symbol": symbol},
        "error_x": {
            "type": "data", "array": [high for high, _ in ends], "arrayminus": [low for _, low in ends],
            "color": colour, "thickness": 2, "width": 5,
        },
        "customdata": [escape(estimate.text) for _, estimate in kept],
        "hovertemplate": "%{customdata}<extra></extra>",
    }  # fmt: skip
