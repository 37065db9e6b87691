"""The tree of places coloured by policy mass, with a slider over training steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sesa_lab.errors import InputError, suggest
from sesa_lab.plots.theme import caption_or, escape, finish, need

MASS_LIGHT = [[0.0, "#d9dee5"], [0.33, "#8fc1e3"], [0.67, "#0072B2"], [1.0, "#08245c"]]
MASS_DARK = [[0.0, "#333b47"], [0.33, "#0b5a94"], [0.67, "#56B4E9"], [1.0, "#fff6c2"]]


def tree(
    hierarchy_paths: Sequence[str],
    frames: Mapping[str, pd.DataFrame],
    separator: str = "||",
    title: str = "",
    caption: str | None = None,
    floor: float = 1e-5,
    steps: int = 20,
) -> go.Figure:
    """The tree of places, one panel an arm: nodes coloured by policy mass (log scale), stars at treasures; a slider if need be.

    Args:
        hierarchy_paths: every leaf as ``strategy`` names it, levels parted by ``separator``; the root is not named.
        frames: by arm, columns step, strategy, probability, success; one row a (step, strategy). Leaves that have no
            row have mass 0; a node has the mass of the leaves below it. Steps shown are those that all arms have.
        floor: masses at or below it share the palest colour; hover shows the mass itself (3 significant digits).
        steps: at most so many steps on the slider, evenly chosen, the first and the last among them.
    """
    nodes, positions, above = _layout(hierarchy_paths, separator)
    for frame in frames.values():
        need(frame, "step", "strategy", "probability", "success")
    shared = sorted(set.intersection(*(set(frame["step"]) for frame in frames.values()))) if frames else []
    if not shared:
        raise InputError(f"no step is in all of {list(frames)}, expected at least one: compare runs evaluated alike")
    shown = [shared[i] for i in np.unique(np.linspace(0, len(shared) - 1, min(steps, len(shared))).round().astype(int))]
    leaves = {leaf: i for i, leaf in enumerate(hierarchy_paths)}
    masses = {arm: _masses(frame, leaves, shown) for arm, frame in frames.items()}
    found = pd.concat(list(frames.values()))
    treasures = [leaves[leaf] for leaf in found.loc[found["success"].astype(bool), "strategy"].unique()]
    figure = make_subplots(1, len(frames), subplot_titles=[" "] * len(frames), horizontal_spacing=0.01)
    for column in range(1, len(frames) + 1):
        for trace in _panel(nodes, positions, treasures, separator):
            figure.add_trace(trace, 1, column)
    states = [_state(masses, above, treasures, place, step, floor) for place, step in enumerate(shown)]
    _attach(figure, states, floor)
    height = min(520, 960 // len(frames))
    return finish(
        figure, title, caption_or(caption, None, "stars: treasures, colour: policy mass"), height, below=95, top=96
    )


def _attach(figure: go.Figure, states: list[dict[str, Any]], floor: float) -> None:
    """The slider over ``states`` (the last one drawn first), the colour scale and bare square axes."""
    nodes, heads = states[-1]["args"]
    targets = list(range(2, len(figure.data), 3))
    for column, target in enumerate(targets):
        figure.data[target].update(marker_color=nodes["marker.color"][column], customdata=nodes["customdata"][column])
        figure.layout.annotations[column].update(text=heads[f"annotations[{column}].text"], font={"size": 13})
    slider = {
        "steps": [{**state, "args": [*state["args"], targets]} for state in states],
        "active": len(states) - 1,
        "currentvalue": {"prefix": "training step "},
        "pad": {"t": 10},
        "ticklen": 4,
        "bordercolor": "#767b84",
        "bgcolor": "rgba(128,128,128,0.3)",
    }
    lowest = math.floor(math.log10(floor))
    bar = {
        "title": {"text": "policy mass"},
        "thickness": 12,
        "x": 1.01,
        "outlinewidth": 0,
        "tickvals": list(range(lowest, 1)),
        "ticktext": [
            f"\u2264 10<sup>{lowest}</sup>",
            *(f"10<sup>{power}</sup>" for power in range(lowest + 1, 0)),
            "1",
        ],
    }
    scale = {"cmin": math.log10(floor), "cmax": 0, "colorscale": MASS_LIGHT, "colorbar": bar}
    sliders = [slider] if len(states) > 1 else []
    figure.update_layout(coloraxis=scale, sliders=sliders, showlegend=False, dragmode="pan")
    figure.update_layout(meta={"dark": {"coloraxis.colorscale": MASS_DARK}})
    figure.update_xaxes(visible=False, range=[-1.18, 1.18])
    figure.update_yaxes(visible=False, range=[-1.18, 1.18])
    for i in range(1, len(targets) + 1):
        figure.update_yaxes(scaleanchor=f"x{i if i > 1 else ''}", col=i)


def _layout(
    paths: Sequence[str], separator: str
) -> tuple[list[tuple[str, ...]], list[tuple[float, float]], np.ndarray]:
    """Nodes (leaves first, in order), places on circles (root in the centre), and (nodes, leaves) 0/1 "is above"."""
    keys = [tuple(path.split(separator)) for path in paths]
    if not keys or len(set(keys)) != len(keys):
        raise InputError(f"{len(keys)} paths, {len(set(keys))} different; expected at least one, none twice")
    nodes = list(dict.fromkeys([*keys, *(key[:depth] for key in keys for depth in range(len(key)))]))
    above = np.array([[key[: len(node)] == node for key in keys] for node in nodes], dtype=float)
    turn = np.empty(len(keys))
    turn[sorted(range(len(keys)), key=lambda i: keys[i])] = np.arange(len(keys)) * 2.0 * math.pi / len(keys)
    deepest = max(map(len, keys))
    angles = (above @ turn) / above.sum(axis=1)
    radii = [len(node) / deepest for node in nodes]
    return nodes, [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)], above


def _masses(frame: pd.DataFrame, leaves: Mapping[str, int], steps: Sequence[int]) -> np.ndarray:
    """(steps, leaves) probabilities; strategies outside the tree and doubled rows raise."""
    rows = frame[frame["step"].isin(steps)]
    unknown = sorted({str(s) for s in rows["strategy"]} - set(leaves))
    if unknown:
        raise InputError(f"strategy {unknown[0]!r} is no leaf of the tree; {suggest(unknown[0], list(leaves)[:8])}")
    if rows.duplicated(["step", "strategy"]).any():
        raise InputError("a strategy has several rows at one step, expected one run and one task: choose them first")
    result = np.zeros((len(steps), len(leaves)))
    places = {step: place for place, step in enumerate(steps)}
    result[rows["step"].map(places), rows["strategy"].map(dict(leaves))] = rows["probability"]
    return result


def _panel(
    nodes: Sequence[tuple[str, ...]], positions: Sequence[tuple[float, float]], treasures: Sequence[int], separator: str
) -> list[go.Scatter]:
    """Edges, treasure marks just outside their leaves, and the nodes that the slider recolours."""
    at = {node: (round(x, 3), round(y, 3)) for node, (x, y) in zip(nodes, positions, strict=True)}
    ends = [point for node in nodes if node for point in (at[node[:-1]], at[node], (None, None))]
    marks = [(round(1.08 * positions[i][0], 3), round(1.08 * positions[i][1], 3)) for i in treasures]
    deepest = max(map(len, nodes))
    sizes = [5 + 3 * (deepest - len(node)) for node in nodes]
    names = [escape(separator.join(node)) if node else "root: all answers in the tree" for node in nodes]
    return [
        go.Scatter(
            x=[p[0] for p in ends],
            y=[p[1] for p in ends],
            mode="lines",
            hoverinfo="skip",
            line={"color": "rgba(128,128,128,0.35)", "width": 0.7},
        ),
        go.Scatter(
            x=[m[0] for m in marks],
            y=[m[1] for m in marks],
            mode="markers",
            hoverinfo="skip",
            marker={"symbol": "star", "size": 8, "color": "#D55E00"},
        ),
        go.Scatter(
            x=[at[n][0] for n in nodes],
            y=[at[n][1] for n in nodes],
            mode="markers",
            text=names,
            hovertemplate="%{text}<br>mass %{customdata:.3g}<extra></extra>",
            marker={"coloraxis": "coloraxis", "opacity": 1, "size": sizes, "line": {"width": 0.5, "color": "#8A8A8A"}},
        ),
    ]


def _state(
    masses: Mapping[str, np.ndarray], above: np.ndarray, treasures: Sequence[int], place: int, step: int, floor: float
) -> dict[str, Any]:
    """One stop of the slider: colours and masses of every panel's nodes, and its heading."""
    sums = [above @ mass[place] for mass in masses.values()]
    heads = {
        f"annotations[{i}].text": f"<b>{escape(arm, 40)}</b><br>mass on treasures {mass[place][treasures].sum():.3f}"
        for i, (arm, mass) in enumerate(masses.items())
    }
    restyle = {
        "marker.color": [[round(math.log10(max(v, floor)), 2) for v in values] for values in sums],
        "customdata": [[float(f"{v:.3g}") for v in values] for values in sums],
    }
    return {"method": "update", "label": str(step), "args": [restyle, heads]}
