"""What every metric is where that is known beforehand, and how it moves with the number of samples alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sesa_lab import diversity
from sesa_lab.errors import InputError
from sesa_lab.experiments.calibration_samples import Group
from sesa_lab.seeding import stream

_WORDS = 4  # of a text: enough for BLEU's 4-grams


def closed_forms(n: int = 12, k: int = 3) -> pd.DataFrame:
    """Every metric on n samples that are all the same, all different, or k equal groups, beside its closed form.

    Strategies are numbers; texts are four words each, no word in two different texts; vectors of different texts are at right
    angles. Orders, thresholds and the like are the defaults.

    Args:
        n: samples, a multiple of k, so that groups are equal.
        k: groups of at least five samples each, 2..10, so that HDBSCAN and k-means can find them.

    Returns:
        Rows: metrics; columns: ``all same``, ``all different``, ``k equal groups``, and after each ``..., expected``; NaN where
        there is no value or no closed form.

    Raises:
        InputError: n and k that do not go together.
    """
    if not 2 <= k <= 10 or n % k or n // k < 5:
        raise InputError(f"n = {n}, k = {k}: expected k of 2 to 10 groups and n a multiple of it of at least {5 * k}")
    cases = {"all same": 1, "all different": n, f"{k} equal groups": k}
    rows: dict[str, dict[str, float]] = {}
    for case, kinds in cases.items():
        found, known = _measured(n, kinds), _expected(n, kinds)
        for name, value in found.items():
            rows.setdefault(name, {})[case] = value
            rows[name][f"{case}, expected"] = known.get(name, math.nan)
    return pd.DataFrame.from_dict(rows, orient="index")


def _measured(n: int, kinds: int) -> dict[str, float]:
    """All metrics on n samples of ``kinds`` equally common strategies."""
    strategies = [i % kinds for i in range(n)]
    texts = [" ".join(f"word{i}x{j}" for j in range(_WORDS)) for i in strategies]
    vectors = np.eye(kinds)[strategies]
    counts = diversity.strategy_counts(strategies)
    return {
        "distinct": diversity.distinct(strategies),
        "Hill number, order 0": diversity.hill_number(counts, 0),
        "Hill number, order 1": diversity.hill_number(counts, 1),
        "Hill number, order 2": diversity.hill_number(counts, 2),
        "coverage@4": diversity.coverage_at_k(strategies, 4),
        "duplicate rate": diversity.duplicate_rate(strategies),
        "unseen mass (Good-Turing)": diversity.unseen_mass(counts),
        "richness (Chao1)": diversity.richness(counts),
        "distinct-2": diversity.distinct_n(texts, 2),
        "self-BLEU": diversity.self_bleu(texts),
        "compression ratio": diversity.compression_ratio(texts),
        "mean distance": diversity.mean_pairwise_distance(vectors),
        "Vendi": diversity.vendi_score(vectors),
        "agglomerative clusters": diversity.number_of_clusters(diversity.agglomerative(vectors)),
        "cluster entropy (nats)": diversity.cluster_entropy(diversity.agglomerative(vectors)),
        "k-means clusters": diversity.number_of_clusters(diversity.kmeans(vectors, stream(0, "evaluation"))),
        "HDBSCAN clusters": diversity.number_of_clusters(diversity.hdbscan(vectors)),
    }


def _expected(n: int, kinds: int) -> dict[str, float]:
    """Closed forms for n samples of ``kinds`` strategies of m = n / kinds samples each; what has none is left out."""
    m = n // kinds
    lonely = float(m == 1)
    found = {
        "distinct": kinds,
        **{f"Hill number, order {order}": kinds for order in (0, 1, 2)},
        "coverage@4": kinds * (1.0 - math.comb(n - m, 4) / math.comb(n, 4)),
        "duplicate rate": 1.0 - kinds / n,
        "unseen mass (Good-Turing)": lonely,
        # Chao1: S + f1 (f1 - 1) / (2 (f2 + 1)), with f1 = n, f2 = 0 where no two agree.
        "richness (Chao1)": n + n * (n - 1) / 2 if lonely else kinds,
        "distinct-2": kinds / n,
        "self-BLEU": 1.0 - lonely,
        "mean distance": 1.0 - (m - 1) / (n - 1),
        "Vendi": kinds,
        "agglomerative clusters": kinds,
        "cluster entropy (nats)": math.log(kinds),
        "HDBSCAN clusters": kinds * (1.0 - lonely),
    }
    # k-means looks for 2 to 10; where all differ the silhouette does not say how many.
    return found if lonely else {**found, "k-means clusters": kinds}


Statistic = Callable[[Sequence[str], Sequence[str], Any], float]
"""Of texts, strategies and vectors of the same samples."""

OF_SIZE: dict[str, Statistic] = {
    "strategies, number": lambda texts, strategies, vectors: len(set(strategies)),
    "strategies, coverage@4": lambda texts, strategies, vectors: diversity.coverage_at_k(strategies, 4),
    "strategies, Hill 1": lambda t, strategies, v: diversity.hill_number(diversity.strategy_counts(strategies), 1),
    "distinct-2": lambda texts, strategies, vectors: diversity.distinct_n(texts, 2),
    "self-BLEU": lambda texts, strategies, vectors: diversity.self_bleu(texts),
    "Vendi": lambda texts, strategies, vectors: diversity.vendi_score(vectors),
    "mean distance": lambda texts, strategies, vectors: diversity.mean_pairwise_distance(vectors),
}


def by_size(
    groups: Sequence[Group], vectors: Sequence[Any], sizes: Sequence[int], names: Mapping[str, Statistic] = OF_SIZE
) -> pd.DataFrame:
    """Metrics of the first n samples of each group, as a multiple of their value at the largest n.

    Samples are independent, so the first n are as good as any: a metric that is not flat says something about n.

    Args:
        groups: of at least the largest size.
        vectors: of each group's texts, of length 1.
        sizes: numbers of samples, rising.
        names: the metrics.

    Returns:
        Columns arm (the metric), seed (the group's place), n, value (NaN where the metric has none, or is 0 at the largest n).

    Raises:
        InputError: a group that is smaller than the largest size.
    """
    smallest = min((len(group.texts) for group in groups), default=0)
    if not sizes or max(sizes) > smallest:
        raise InputError(f"sizes {list(sizes)} of groups of {smallest} samples: expected sizes up to that number")
    rows = []
    for place, (group, x) in enumerate(zip(groups, vectors, strict=True)):
        for name, statistic in names.items():
            found = [float(statistic(group.texts[:n], group.strategies[:n], x[:n])) for n in sizes]
            last = found[-1] or math.nan
            rows += [(name, place, n, value / last) for n, value in zip(sizes, found, strict=True)]
    return pd.DataFrame(rows, columns=["arm", "seed", "n", "value"])
