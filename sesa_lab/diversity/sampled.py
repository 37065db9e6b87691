"""Unbiased estimates from samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike


def pass_at_k(n: int, successes: int, k: int) -> float:
    """Unbiased estimate of the probability that at least one of k samples succeeds (Chen et al., arXiv 2107.03374).

    1 - C(n - c, k) / C(n, k): the share of k-subsets of the n samples, drawn without replacement, that hold a success.

    Args:
        n: samples drawn, >= k.
        successes: c, how many of them succeeded, 0..n.
        k: >= 1.

    Returns:
        0..1; NaN where k > n (not estimable without bias).

    Raises:
        ValueError: k < 1, or successes outside 0..n.
    """
    if k < 1 or not 0 <= successes <= n:
        raise ValueError(f"expected k >= 1 and 0 <= successes <= n, got n = {n}, successes = {successes}, k = {k}")
    return 1.0 - _share_without(n, successes, k)


def coverage_at_k(strategies: Sequence[Hashable | None], k: int) -> float:
    """Unbiased estimate of the expected number of distinct strategies among k samples (rarefaction, Hurlbert 1971).

    Sum over strategies of 1 - C(n - n_s, k) / C(n, k), with n_s the samples that took strategy s.

    Args:
        strategies: one a sample; None (unreadable or unsuccessful, as the caller decides) is no strategy.
        k: 1 <= k.

    Returns:
        0..min(k, distinct strategies); NaN where k exceeds the number of samples.

    Raises:
        ValueError: k < 1.
    """
    if k < 1:
        raise ValueError(f"expected k >= 1, got {k}")
    n = len(strategies)
    if k > n:
        return float("nan")
    counts = Counter(s for s in strategies if s is not None).values()
    return float(sum(1.0 - _share_without(n, count, k) for count in counts))


def duplicate_rate(strategies: Sequence[Hashable | None]) -> float:
    """Share of the valid samples whose strategy came earlier: 1 - distinct / valid; 0 = all differ; NaN if none is valid."""
    valid = [s for s in strategies if s is not None]
    return 1.0 - len(set(valid)) / len(valid) if valid else float("nan")


def effective_number_of(weights: ArrayLike) -> float:
    """Exp of the entropy of strategies' shares: how many equally common ones are as diverse (Hill 1973, order 1).

    1 = one has all, their number = all equally common; 0 where there is none. Of shares of few samples it is somewhat low.

    Args:
        weights: one a strategy, counts or shares, not negative; they need not sum to 1.
    """
    w = np.asarray(weights, dtype=np.float64)
    shares = w[w > 0] / w.sum() if w.sum() > 0 else w[:0]
    return float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 0.0


def effective_sample_size(weights: ArrayLike) -> float:
    """(sum w)^2 / (n sum w^2) of non-negative importance weights (Kish 1965), as a share of the n samples.

    1 = all weights alike; 1/n = one sample carries everything; NaN where there are none or all are 0.
    """
    w = np.asarray(weights, dtype=np.float64)
    total = float(np.square(w).sum())
    return float(w.sum() ** 2 / (w.size * total)) if total > 0 else float("nan")


def _share_without(n: int, marked: int, k: int) -> float:
    """C(n - marked, k) / C(n, k); NaN where k > n."""
    if k > n:
        return float("nan")
    if n - marked < k:
        return 0.0
    few, many = sorted((marked, k))  # the ratio is the same with marked and k exchanged
    # As a product: exactly 1 where nothing is marked, and no digits lost to differences of large log-factorials.
    return float(np.prod(1.0 - many / np.arange(n - few + 1, n + 1)))
