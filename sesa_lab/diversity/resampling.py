"""How sure and how fair a measure of diversity is: bootstrap intervals, a null of matched lengths, sensitivity tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from sesa_lab.diversity.clusters import agglomerative, number_of_clusters
from sesa_lab.diversity.embeddings import DEFAULT, embed
from sesa_lab.statistics import Interval

T = TypeVar("T")
Items: TypeAlias = Sequence[T] | NDArray[Any]
"""Texts, strategies, groups ... as a list, or as an array with one row an item."""
Embed: TypeAlias = Callable[[Sequence[str], str], NDArray[Any]]


def bootstrap(
    items: Items[T],
    statistic: Callable[[Any], float],
    generator: np.random.Generator,
    level: float = 0.95,
    resamples: int = 1_000,
) -> Interval:
    """A statistic with the percentile interval of resamples with replacement (Efron 1979), centred on the statistic.

    A resample holds some items twice and so is less diverse than the sample: its statistics lie low by that much, and the
    interval is moved by the difference of their mean from the statistic. Only their spread is used. That suits means
    over pairs (``mean_pairwise_distance``) and means over groups; what counts distinct texts (``distinct``, ``richness``,
    ``vendi_score``) has too narrow an interval over texts: give it groups as items, and a mean over these as statistic.

    Args:
        items: independent ones: texts, rows of vectors, or groups. Samples of one group that saw each other (sequential
            drafts) are not independent: resample groups.
        statistic: of items of the same type, in any order.
        generator: draws the resamples.
        level: of confidence, in (0, 1).
        resamples: how many, >= 1; those whose statistic is NaN are left out.

    Returns:
        (statistic, low, high, number of items); no interval (NaN) below two items, or where the statistic or all resamples'
        are NaN. Somewhat narrow for fewer than 20 items; the ends may lie outside the statistic's range.

    Raises:
        ValueError: a level outside (0, 1), or no resamples.
    """
    if not 0.0 < level < 1.0 or resamples < 1:
        raise ValueError(f"expected a level in (0, 1) and resamples >= 1, got {level} and {resamples}")
    n = len(items)
    value = float(statistic(items)) if n else math.nan
    if n < 2 or math.isnan(value):
        return Interval(value, math.nan, math.nan, n)
    drawn = [float(statistic(_take(items, generator.integers(0, n, n)))) for _ in range(resamples)]
    known = np.asarray(drawn)[~np.isnan(drawn)]
    if not len(known):
        return Interval(value, math.nan, math.nan, n)
    low, high = np.quantile(known - known.mean(), [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, value + float(low), value + float(high), n)


class LengthNull(NamedTuple):
    """A statistic of each group, and what it is for groups of texts of like lengths that are otherwise mixed; NaN: no value.

    Attributes:
        observed: (groups,) of the groups as they are.
        mean: (groups,) over the shuffles.
        low: (groups,) lower end of the interval over the shuffles.
        high: (groups,) upper end.
    """

    observed: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def length_matched_null(
    groups: Sequence[Items[T]],
    lengths: Sequence[ArrayLike],
    statistic: Callable[[Any], float],
    generator: np.random.Generator,
    level: float = 0.95,
    shuffles: int = 200,
    bands: int = 10,
) -> LengthNull:
    """A statistic of texts shuffled between groups among texts of similar length: what length alone gives.

    All texts are put in order of length and cut into ``bands`` of equally many (texts of equal length stay together); within
    each band they change places at random. Each group then has as many texts of every length as before, and content from everywhere
    (a permutation test within strata, Good 2005). Two groups, say ways of sampling, that differ observed and differ as much
    in ``mean`` differ by length alone; a group observed within low..high is as diverse as any texts of its lengths.

    Args:
        groups: at least two: texts, or vectors (n_g, d), or anything with a statistic.
        lengths: one a text, in the same order; characters or tokens.
        statistic: of one group.
        generator: shuffles.
        level: of the interval over shuffles, in (0, 1).
        shuffles: how many, >= 1.
        bands: more of them match lengths more closely and mix fewer texts.

    Returns:
        One entry a group; mean, low and high are over the shuffles with a value, NaN where there is none.

    Raises:
        ValueError: fewer than two groups, lengths that do not fit, or numbers out of range.
    """
    sizes = [len(group) for group in groups]
    if len(groups) < 2 or [len(np.atleast_1d(np.asarray(each))) for each in lengths] != sizes:
        raise ValueError(f"expected two or more groups with a length for each text, got groups of {sizes} texts")
    if not 0.0 < level < 1.0 or shuffles < 1 or bands < 1:
        raise ValueError(f"expected a level in (0, 1), shuffles and bands >= 1, got {level}, {shuffles} and {bands}")
    pool = _joined(groups)
    flat = np.concatenate([np.asarray(each, dtype=np.float64).ravel() for each in lengths])
    ends = np.cumsum(sizes)[:-1]
    within = _bands(flat, bands)
    null = np.empty((shuffles, len(groups)))
    for row in null:
        shuffled = np.empty(len(flat), dtype=np.int64)
        for band in within:
            shuffled[band] = generator.permutation(band)
        row[:] = [statistic(_take(pool, part)) for part in np.split(shuffled, ends)]
    observed = np.asarray([statistic(group) for group in groups], dtype=np.float64)
    spread = np.full((3, len(groups)), math.nan)
    for g, column in enumerate(null.T):
        known = column[~np.isnan(column)]
        if len(known):
            spread[:, g] = known.mean(), *np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return LengthNull(observed, *spread)


def clusters_at(vectors: ArrayLike, threshold: float) -> float:
    """Number of agglomerative clusters (average linkage) at a cosine distance: 1..n; 0 without texts."""
    return float(number_of_clusters(agglomerative(vectors, threshold)))


def sensitivity(
    texts: Sequence[str],
    thresholds: Sequence[float],
    models: Sequence[str] = (DEFAULT,),
    statistic: Callable[[Any, float], float] = clusters_at,
    cache: Path | None = None,
    embedder: Embed | None = None,
) -> pd.DataFrame:
    """A statistic at every threshold under every embedding model: whether a finding hangs on the choice of either.

    Distances of two models are on scales of their own: compare the order of arms down a column, not values across.

    Args:
        texts: of one group.
        thresholds: whatever the statistic takes, such as cosine distances.
        models: as ``embed`` takes them.
        statistic: of (n, d) vectors and a threshold.
        cache: as ``embed`` takes it.
        embedder: of texts and a model's name; None: ``embed``.

    Returns:
        One row a model and threshold, in the order given: ``model``, ``threshold``, ``value`` (NaN where the statistic has
        none).
    """
    rows = []
    for model in models:
        vectors = embed(texts, model, cache) if embedder is None else embedder(texts, model)
        rows += [(model, float(threshold), float(statistic(vectors, threshold))) for threshold in thresholds]
    return pd.DataFrame(rows, columns=["model", "threshold", "value"])


def _bands(lengths: NDArray[np.float64], bands: int) -> list[NDArray[np.int64]]:
    """Indices of texts of similar length. A band is that of the mean rank of a length, so that equal ones share it."""
    ordered = np.sort(lengths)
    ranks = (np.searchsorted(ordered, lengths) + np.searchsorted(ordered, lengths, "right") - 1) / 2
    band = np.floor(ranks * bands / max(1, len(lengths)))
    return [np.flatnonzero(band == each) for each in np.unique(band)]


def _take(items: Items[T], index: NDArray[np.int64]) -> Items[T]:
    return items[index] if isinstance(items, np.ndarray) else [items[i] for i in index.tolist()]


def _joined(groups: Sequence[Items[T]]) -> Items[T]:
    """All items in a row: an array where all groups are arrays, else a list."""
    if all(isinstance(group, np.ndarray) for group in groups):
        return np.concatenate([np.asarray(group) for group in groups])
    return [item for group in groups for item in group]
