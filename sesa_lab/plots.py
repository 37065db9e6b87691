"""Figures from tables: curves with bands, estimates with intervals, the tree of places. Nothing here reads a run.

One template for all, transparent and mid-grey so that it reads on a light and on a dark page; arms are told apart by
the Okabe-Ito colours (colour-blind safe) and by dashes. Every text that may hold a model's words is escaped here.
A report recolours figures for dark pages; ``layout.meta["dark"]`` holds what a figure wants changed there.
"""

from __future__ import annotations

import html
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sesa_lab.errors import InputError, suggest
from sesa_lab.statistics import mean_interval, text

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A8A8A")
"""Okabe-Ito without its yellow and black, which vanish on a white or a dark page."""
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid")
MASS_LIGHT = [[0.0, "#d9dee5"], [0.33, "#8fc1e3"], [0.67, "#0072B2"], [1.0, "#08245c"]]
MASS_DARK = [[0.0, "#333b47"], [0.33, "#0b5a94"], [0.67, "#56B4E9"], [1.0, "#fff6c2"]]
BANDS = "bands: 95 % t interval over seeds"
_LABELS = {"step": "training step", "tokens_total": "tokens sampled since the run began"}
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
        "margin": {"l": 60, "r": 20, "t": 80, "b": 60},
    }
)


def escape(value: object, limit: int = 80) -> str:
    """Text for a label or a hover: one line, control characters shown as a dot, cut at ``limit``, HTML escaped."""
    line = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", "\u00b7", str(value))
    return html.escape(line if len(line) <= limit else line[: limit - 1] + "\u2026", quote=False)


def provenance(runs: Iterable[Mapping[str, Any]], bands: str = BANDS) -> str:
    """Where a figure comes from, in one plain line for its caption.

    Args:
        runs: one mapping a run with the keys ``run`` (folder), ``commit``, ``config`` (a short name) and ``seed``; what
            is missing reads "unknown".
        bands: what the bands or bars mean; empty where there are none.

    Returns:
        ``'runs a/0, a/1; commit abc1234; config: fast; seeds 0-1; n = 2; bands: ...'``. n counts distinct seeds.
    """
    rows = list(runs)
    seeds = {row["seed"] for row in rows if row.get("seed") is not None}
    known = {key: list(dict.fromkeys(str(row.get(key) or "unknown") for row in rows)) for key in ("run", "config")}
    commits = dict.fromkeys(str(row.get("commit") or "unknown")[:7] for row in rows)
    shown = known["run"] if len(known["run"]) <= 6 else [*known["run"][:5], f"and {len(known['run']) - 5} more"]
    parts = [f"runs {', '.join(shown) or 'unknown'}", f"commit {', '.join(commits) or 'unknown'}"]
    parts += [f"config: {', '.join(known['config']) or 'unknown'}", *_seeds(seeds)]
    return "; ".join([*parts, bands] if bands else parts)


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
        table: tidy, columns ``by``, ``seed``, ``x``, ``y``; one row a (``by``, seed, x). NaN is dropped; where one
            seed is left, there is a line and no band. Seeds whose x differ (tokens) are interpolated inside the range
            they share.
        unit: of y, on its axis.
        caption: see ``provenance``; None: seeds and n as the table has them.
    """
    _need(table, by, "seed", x, y)
    figure = go.Figure()
    for i, (arm, part) in enumerate(table.groupby(by, sort=False)):
        colour, name = COLOURS[i % len(COLOURS)], escape(arm)
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
    figure.update_yaxes(title=_axis(y, unit))
    return _finish(figure, title, _caption(caption, table, BANDS), height=330)


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
    _need(summary, by, "mean", "low", "high", "n")
    if seeds is not None:
        _need(seeds, by, "seed", "value")
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
    return _finish(figure, title, _caption(caption, seeds, bands), height=20 + 46 * len(names), top=50)


def axis(along: pd.DataFrame, label: str, x: str, caption: str | None = None, reference: float = 1.0) -> go.Figure:
    """Estimates with intervals along one axis of an experiment, one line an arm; a dotted line at ``reference``.

    Args:
        along: columns arm, ``x``, mean, low, high, n; one row an (arm, x).
        label: what is measured, title of the figure and of its axis.
    """
    _need(along, "arm", x, "mean", "low", "high", "n")
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
    figure.add_hline(y=reference, line={"dash": "dot", "width": 1, "color": "gray"})
    figure.update_xaxes(title=escape(x))
    figure.update_yaxes(title=escape(label))
    return _finish(figure, label, _caption(caption, None, "bars: 95 % t interval over seeds"), height=330)


def tree(
    hierarchy_paths: Sequence[str],
    frames: Mapping[str, pd.DataFrame],
    separator: str = "||",
    title: str = "",
    caption: str | None = None,
    floor: float = 1e-5,
    steps: int = 20,
) -> go.Figure:
    """The tree of places, one panel an arm: nodes coloured by policy mass (log scale), stars at treasures, one slider.

    Args:
        hierarchy_paths: every leaf as ``strategy`` names it, levels parted by ``separator``; the root is not named.
        frames: by arm, columns step, strategy, probability, success; one row a (step, strategy). Leaves that have no
            row have mass 0; a node has the mass of the leaves below it. Steps shown are those that all arms have.
        floor: masses at or below it share the palest colour; hover shows the mass itself (3 significant digits).
        steps: at most so many steps on the slider, evenly chosen, the first and the last among them.
    """
    nodes, positions, above = _layout(hierarchy_paths, separator)
    for frame in frames.values():
        _need(frame, "step", "strategy", "probability", "success")
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
    return _finish(
        figure, title, _caption(caption, None, "stars: treasures, colour: policy mass"), height, below=95, top=96
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
    figure.update_layout(coloraxis=scale, sliders=[slider], showlegend=False, dragmode="pan")
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


def _need(table: pd.DataFrame, *names: str) -> None:
    for name in names:
        if name not in table.columns:
            raise InputError(f"no column {name!r} in the table; {suggest(name, [str(c) for c in table.columns])}")


def _faint(colour: str) -> str:
    r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({r},{g},{b},0.2)"


def _axis(name: str, unit: str) -> str:
    return escape(name.replace("_", " ")) + (f" ({escape(unit)})" if unit else "")


def _seeds(seeds: set[Any]) -> list[str]:
    """``['seeds 0-4', 'n = 5']``; a list where they do not follow one another."""
    if not seeds:
        return ["seeds unknown"]
    whole = all(isinstance(seed, int | np.integer) for seed in seeds)
    ordered: list[Any] = sorted(seeds) if whole else sorted(map(str, seeds))
    if whole and len(ordered) > 2 and ordered[-1] - ordered[0] == len(ordered) - 1:
        return [f"seeds {ordered[0]}-{ordered[-1]}", f"n = {len(ordered)}"]
    return [f"seeds {', '.join(map(str, ordered))}", f"n = {len(ordered)}"]


def _caption(caption: str | None, table: pd.DataFrame | None, bands: str) -> str:
    if caption is not None:
        return caption
    return "; ".join(["runs not stated", *(_seeds(set(table["seed"].dropna())) if table is not None else []), bands])


def _finish(figure: go.Figure, title: str, caption: str, height: int, below: int = 64, top: int = 84) -> go.Figure:
    """Template, title, caption. ``height`` is the panel's in pixels, ``below`` and ``top`` what stands around it."""
    lines = [escape(line, 400) for line in textwrap.wrap(caption, 115)]
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
