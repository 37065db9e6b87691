"""Figures, cells and notebooks to report on, and texts that try to break out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sesa_lab import plots, statistics

NB: Any = nbformat.v4
"""nbformat's constructors, which carry no types."""
ATTACKS = [
    "<script>window.pwned=1</script>",
    '<img src=x onerror="window.pwned=1">',
    "</script><script>window.pwned=1</script>",
    '"><svg onload=window.pwned=1>',
    "<a href='javascript:window.pwned=1'>x</a>",
    "\u2028window.pwned=1\u2029",
]


def places() -> list[str]:
    """A tree of 8 x 5 x 5 places."""
    return [f"Land {a}||Town {a}{b}||Spot {a}{b}{c}" for a in range(8) for b in range(5) for c in range(5)]


def evaluations(paths: list[str], gain: float, steps: int = 20, seed: int = 0) -> pd.DataFrame:
    """Softmax policies over leaves whose 20 treasures gain ``gain`` nats over the steps."""
    generator = np.random.default_rng(seed)
    base = generator.normal(size=len(paths)) * 2
    good = np.isin(np.arange(len(paths)), generator.choice(len(paths), min(20, len(paths)), replace=False))
    rows = []
    for step in range(steps):
        mass = np.exp(base + gain * good * step / max(1, steps - 1))
        rows.append(
            pd.DataFrame({"step": step * 10, "strategy": paths, "probability": mass / mass.sum(), "success": good})
        )
    return pd.concat(rows, ignore_index=True)


def learning_curves(arms: list[str], seeds: int = 5, steps: int = 200) -> pd.DataFrame:
    generator = np.random.default_rng(1)
    parts = []
    for i, arm in enumerate(arms):
        for seed in range(seeds):
            step = np.arange(1, steps + 1)
            noise = generator.normal(0, 0.3, steps)
            coverage = (8 + 4 * i) * (1 - np.exp(-step / 40)) + noise + generator.normal(0, 0.8)
            tokens = step * (100 + seed)
            parts.append(
                pd.DataFrame({"arm": arm, "seed": seed, "step": step, "tokens_total": tokens, "coverage": coverage})
            )
    return pd.concat(parts, ignore_index=True)


def gallery(arms: list[str]) -> list[go.Figure]:
    """Curves over steps and tokens, bars, and the tree."""
    table = learning_curves(arms)
    last = table[table["step"] == table["step"].max()]
    runs = [
        {"run": f"exp/{a}-{s}", "commit": "abc1234def", "config": "fast", "seed": s} for a in arms for s in range(5)
    ]
    common: dict[str, Any] = {"unit": "treasures", "caption": plots.provenance(runs)}
    seeds = last.rename(columns={"coverage": "value"})
    masses = {arm: evaluations(places(), 6.0 * i) for i, arm in enumerate(arms)}
    bars = statistics.summary(last, "coverage")
    return [
        plots.curves(table, "coverage", title="Coverage while training", **common),
        plots.curves(table, "coverage", x="tokens_total", title="Coverage per token", **common),
        plots.bars(bars, seeds=seeds, label="coverage", title="Coverage at the end", **common),
        plots.tree(places(), masses, title="Where the mass goes", caption=common["caption"]),
    ]


def shown(figure: go.Figure) -> Any:
    """The output that ``figure.show()`` leaves in a notebook."""
    return NB.new_output("display_data", {"application/vnd.plotly.v1+json": json.loads(figure.to_json())})


def code(source: str, *outputs: Any, tags: tuple[str, ...] = ()) -> Any:
    return NB.new_code_cell(source, outputs=list(outputs), execution_count=1, metadata={"tags": list(tags)})


def text(value: str) -> Any:
    return NB.new_markdown_cell(value)


def save(path: Path, *cells: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(NB.new_notebook(cells=list(cells))))
    return path


def table_output(frame: pd.DataFrame) -> Any:
    return NB.new_output("execute_result", {"text/html": frame._repr_html_(), "text/plain": repr(frame)})
