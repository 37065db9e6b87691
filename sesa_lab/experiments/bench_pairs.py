"""What the benchmarks share: paired rounds, ratios with intervals, and how they are printed."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from sesa_lab import statistics

Spent = tuple[float, float]
"""Wall-clock and processor seconds."""


def progress(count: int, name: str) -> Any:
    """The numbers 0 to ``count`` - 1, with a bar where somebody watches."""
    return tqdm(range(count), desc=name, leave=False, disable=not sys.stderr.isatty())


def median_spent(spents: Sequence[Spent]) -> dict[str, float]:
    """Medians over rounds: a busy machine's outliers say nothing."""
    return {"seconds": float(np.median([s[0] for s in spents])), "cpu": float(np.median([s[1] for s in spents]))}


def ratios(a: Sequence[Spent], b: Sequence[Spent]) -> dict[str, Any]:
    """Ratios a / b over rounds, of wall-clock and of processor seconds, each with its 95 % interval (None: no interval)."""
    found = {}
    for position, name in enumerate(("seconds", "cpu")):
        ratio = statistics.paired_ratio([s[position] for s in a], [s[position] for s in b])
        found[name] = {key: None if math.isnan(value) else value for key, value in ratio._asdict().items()}
    return found


def one(ratio: Mapping[str, Any]) -> str:
    """``1.9 [1.8, 2.0] (n=5)``."""
    mean, low, high = (math.nan if ratio[key] is None else float(ratio[key]) for key in ("mean", "low", "high"))
    return statistics.text(mean, low, high, ratio["n"])


def both(ratios: Mapping[str, Mapping[str, Any]]) -> str:
    """``1.9 [1.8, 2.0] (n=5) in wall-clock, ... in processor seconds``."""
    return f"{one(ratios['seconds'])} in wall-clock, {one(ratios['cpu'])} in processor seconds"


def say(lines: Sequence[str]) -> None:
    """Printed as soon as it is known: a run that is stopped early has still said something."""
    print("\n".join([*lines, ""]), flush=True)
