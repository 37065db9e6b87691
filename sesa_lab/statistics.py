"""Means and intervals over seeds, paired comparisons, curves read at a token budget. Pure functions on numbers.

Conventions: NaN means "no value". NaN values are dropped before anything is computed, and ``n`` counts what was kept,
so a dropped seed shows in every text and caption. Below two kept values there is no interval (NaN): one seed says
nothing about the spread between seeds. Infinite values are an error upstream and raise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from scipy import stats

from sesa_lab.errors import InputError, suggest

Paired: TypeAlias = Mapping[Any, float] | pd.Series | Sequence[float]
"""Values by seed (a mapping, or a Series with the seed as index), or plain sequences paired by position."""


class Interval(NamedTuple):
    """A point estimate, the ends of its interval (NaN where there is none) and the number of values behind it."""

    mean: float
    low: float
    high: float
    n: int


def mean_interval(values: Iterable[float], level: float = 0.95) -> Interval:
    """Mean of independent values with Student's t interval: mean -+ t(n - 1) s / sqrt(n).

    Args:
        values: one a seed, any unit; NaN is dropped and not counted.
        level: of confidence, in (0, 1).

    Returns:
        (mean, low, high, n). n = 0: all NaN. n = 1: mean without an interval. Equal values: an interval of width 0.
    """
    if not 0.0 < level < 1.0:
        raise InputError(f"level is {level}, expected a number in (0, 1), such as 0.95")
    kept = _finite(values)
    n = len(kept)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = float(kept.mean())
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1)
    half = float(stats.t.ppf(0.5 + level / 2.0, n - 1)) * float(kept.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def bootstrap_mean(
    values: Iterable[float], generator: np.random.Generator, level: float = 0.95, resamples: int = 10_000
) -> Interval:
    """Mean of independent values with the percentile interval of means of resamples with replacement (Efron 1979).

    For values that are far from normal, such as a task's share of successes; it is somewhat narrow for fewer than 20.

    Args:
        values: one a task, any unit; NaN is dropped and not counted.
        generator: draws the resamples.
        level: of confidence, in (0, 1).
        resamples: how many.

    Returns:
        (mean, low, high, n); no interval (NaN) below two values.
    """
    kept = _finite(values)
    n = len(kept)
    if n < 2:
        return Interval(float(kept.mean()) if n else math.nan, math.nan, math.nan, n)
    means = kept[generator.integers(0, n, (resamples, n))].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(kept.mean()), float(low), float(high), n)


def paired_difference(a: Paired, b: Paired, level: float = 0.95) -> Interval:
    """Mean of a - b over pairs with the t interval of the differences; n counts the pairs with both values."""
    first, second = _pairs(a, b)
    return mean_interval(first - second, level)


def paired_ratio(a: Paired, b: Paired, level: float = 0.95) -> Interval:
    """Geometric mean of a / b over pairs: exp of the mean, and of the t interval, of log(a / b).

    The log makes the ratio symmetric (swapping a and b inverts all three numbers) and keeps the interval positive; it
    is the ratio of geometric means, not of arithmetic means.

    Returns:
        (ratio, low, high, n). All NaN but n where any paired value is <= 0: the log does not exist there, and leaving
        such a pair out would bias the ratio. Use ``paired_difference`` then.
    """
    first, second = _pairs(a, b)
    if len(first) and min(first.min(), second.min()) <= 0.0:
        return Interval(math.nan, math.nan, math.nan, len(first))
    logs = mean_interval(np.log(first / second), level)
    return Interval(math.exp(logs.mean), math.exp(logs.low), math.exp(logs.high), logs.n)


def ratio_of_means(a: Paired, b: Paired, level: float = 0.95) -> Interval:
    """mean(a) / mean(b) over pairs with Fieller's interval (1954); values may be 0, as a collapsed policy's coverage is.

    The interval holds every rho for which the mean of a - rho b does not differ from 0 by the paired t test at ``level``.

    Returns:
        (ratio, low, high, n). The ratio is NaN where mean(b) = 0; low and high are NaN for n < 2, and where mean(b) does
        not itself differ from 0 at ``level``: any ratio would do then.
    """
    first, second = (side.to_numpy() for side in _pairs(a, b))
    n = len(first)
    if n == 0 or second.mean() == 0.0:
        return Interval(math.nan, math.nan, math.nan, n)
    ratio = float(first.mean() / second.mean())
    if n < 2:
        return Interval(ratio, math.nan, math.nan, n)
    spread = np.cov(first, second) * float(stats.t.ppf((1 + level) / 2, n - 1)) ** 2 / n
    # (mean(a) - rho mean(b))^2 <= t^2 var(a - rho b) / n is p rho^2 - 2 q rho + r <= 0 with
    p = second.mean() ** 2 - spread[1, 1]
    q = first.mean() * second.mean() - spread[0, 1]
    r = first.mean() ** 2 - spread[0, 0]
    if p <= 0.0:
        return Interval(ratio, math.nan, math.nan, n)
    root = math.sqrt(max(q * q - p * r, 0.0))
    return Interval(ratio, float((q - root) / p), float((q + root) / p), n)


def at_tokens(frame: pd.DataFrame, x: str, column: str, budget: float) -> float:
    """``column`` of one curve at x = ``budget``, linear between the two nearest points.

    Args:
        frame: one run's curve, in any order; rows with NaN in either column are dropped (so a gap is bridged).
        x: the column of the budget, such as ``tokens_total``.
        column: what to read.
        budget: in the unit of x.

    Returns:
        The value; NaN outside the range of x: nothing is extrapolated, not even held constant.

    Raises:
        InputError: an unknown column, or an x that occurs twice (several runs in one frame).
    """
    for name in (x, column):
        if name not in frame.columns:
            raise InputError(f"no column {name!r} in the curve; {suggest(name, [str(c) for c in frame.columns])}")
    curve = frame[[x, column]].dropna().sort_values(x)
    xs = curve[x].to_numpy(dtype=float)
    if len(np.unique(xs)) != len(xs):
        raise InputError(f"{x} holds a value twice, expected one run's curve: choose one arm and seed first")
    if len(xs) == 0 or not xs[0] <= budget <= xs[-1]:
        return math.nan
    return float(np.interp(budget, xs, curve[column].to_numpy(dtype=float)))


def summary(table: pd.DataFrame, column: str, by: str = "arm", level: float = 0.95) -> pd.DataFrame:
    """Mean and t interval of ``column`` over the seeds of each ``by``, in the order of first appearance.

    Args:
        table: one row a (``by``, seed); two rows of one seed would count it twice and raise.

    Returns:
        Columns ``by``, mean, low, high, n.
    """
    for name in (by, "seed", column):
        if name not in table.columns:
            raise InputError(f"no column {name!r} in the table; {suggest(name, [str(c) for c in table.columns])}")
    twice = table.duplicated([by, "seed"])
    if twice.any():
        row = table[twice].iloc[0]
        raise InputError(f"{by} {row[by]!r}, seed {row['seed']} has several rows, expected one: choose a step first")
    rows = [(key, *mean_interval(part[column], level)) for key, part in table.groupby(by, sort=False)]
    return pd.DataFrame(rows, columns=[by, "mean", "low", "high", "n"])


def text(mean: float, low: float, high: float, n: int, digits: int = 3) -> str:
    """``14.7 [13.9, 15.5] (n=5)``: ``digits`` significant digits of the largest number, the same decimals for all."""
    if math.isnan(mean):
        return f"no value (n={n})"
    largest = max(abs(value) for value in (mean, low, high) if math.isfinite(value))
    if largest != 0.0 and not 1e-4 <= largest < 1e6:
        style = f".{digits - 1}e"
    else:
        size = math.floor(math.log10(largest)) if largest else 0
        style = f".{max(0, digits - 1 - size)}f"
    if math.isnan(low) or math.isnan(high):
        return f"{mean:{style}} (n={n}, no interval)"
    return f"{mean:{style}} [{low:{style}}, {high:{style}}] (n={n})"


def _finite(values: Iterable[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The values without NaN as float64; infinite ones raise."""
    array = np.asarray([math.nan if value is None else value for value in values], dtype=np.float64)
    if np.isinf(array).any():
        raise InputError("a value is infinite, expected finite numbers or NaN: look for a division by zero upstream")
    return array[~np.isnan(array)]


def _pairs(a: Paired, b: Paired) -> tuple[pd.Series, pd.Series]:
    """Both sides of the pairs that have both values; by key for mappings and Series, by position for sequences."""
    keyed = [isinstance(side, Mapping | pd.Series) for side in (a, b)]
    if keyed[0] != keyed[1]:
        raise InputError("one side is keyed by seed and the other is not, expected both alike: give two Series")
    if not keyed[0] and len(a) != len(b):
        raise InputError(f"{len(a)} and {len(b)} values, expected as many on each side: pair them by seed")
    sides = [side if isinstance(side, pd.Series) else pd.Series(side, dtype=float) for side in (a, b)]
    for side in sides:
        if not side.index.is_unique:
            raise InputError("a seed occurs twice on one side, expected one value a seed: choose a step first")
    both = pd.concat([side.astype(float).rename(name) for side, name in zip(sides, "ab", strict=True)], axis=1)
    both = both.dropna()
    return both["a"], both["b"]
