"""Measures on strategies: how many, how evenly, how many are still unseen, and when drafts stop bringing new ones.

A strategy is any hashable label that an environment reads off a sample; None (unreadable) is no strategy, throughout.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sesa_lab.diversity.sampled import effective_number_of

Strategies: TypeAlias = Sequence[Hashable | None]
"""One a sample; None where it has none."""


def distinct(strategies: Strategies, correct: Sequence[bool] | None = None) -> int:
    """Number of different strategies: |{s_i}|, or |{s_i : correct_i}|.

    It grows with the number of samples: compare equally many, or take ``coverage_at_k``.

    Args:
        strategies: one a sample.
        correct: one a sample; given, only strategies of correct samples count.

    Returns:
        0..number of samples; 0 where no sample counts, 1 = all take one strategy.

    Raises:
        ValueError: not as many ``correct`` as samples.
    """
    return len(strategy_counts(strategies, correct))


def strategy_counts(strategies: Strategies, correct: Sequence[bool] | None = None) -> NDArray[np.int64]:
    """(distinct,) int64: how many samples took each strategy, largest first; what the measures below take.

    Args:
        strategies: one a sample.
        correct: one a sample; given, only correct samples count.

    Raises:
        ValueError: not as many ``correct`` as samples.
    """
    if correct is not None and len(correct) != len(strategies):
        raise ValueError(f"expected one `correct` a sample, got {len(correct)} for {len(strategies)} samples")
    kept = strategies if correct is None else [s for s, hit in zip(strategies, correct, strict=True) if hit]
    return np.asarray(sorted(Counter(s for s in kept if s is not None).values(), reverse=True), dtype=np.int64)


def hill_number(counts: ArrayLike, order: float) -> float:
    """How many equally common strategies are as diverse as these: (sum_s p_s^q)^(1 / (1 - q)) (Hill 1973).

    Order q = 0 counts strategies, 1 is exp of their entropy (``effective_number_of``), 2 the inverse of the probability
    that two samples agree (Simpson 1949). The higher the order, the less rare strategies count; it never rises with q.

    Args:
        counts: one a strategy, counts or shares, not negative; they need not sum to 1.
        order: q >= 0; infinite: 1 / max p.

    Returns:
        1..number of strategies: 1 = one has all, their number = all equally common; 0 where there is none (as
        ``effective_number_of``). Of few samples it is somewhat low, most so at order 0.

    Raises:
        ValueError: a negative or non-finite count, or an order below 0.
    """
    w = _weights(counts)
    if not order >= 0:
        raise ValueError(f"expected an order >= 0, such as 0, 1 or 2, got {order}")
    w = w[w > 0]
    if not len(w):
        return 0.0
    if order == 1:
        return effective_number_of(w)
    shares = w / w.sum()
    largest = float(shares.max())
    if math.isinf(order):
        return 1.0 / largest
    # The largest share is taken out of the power, which would otherwise underflow at high orders.
    total = float(((shares / largest) ** order).sum())
    return float(np.exp((order * np.log(largest) + np.log(total)) / (1.0 - order)))


def unseen_mass(counts: ArrayLike) -> float:
    """Good-Turing estimate of the probability that one more sample takes a strategy not yet seen: f1 / n (Good 1953).

    f1 strategies were seen exactly once, in n samples. The mean over samples of size n is the probability that the n-th
    was new: an unbiased estimate for n - 1 samples, and so a little high for n.

    Args:
        counts: one a strategy, whole numbers; zeros are ignored.

    Returns:
        0..1: 0 = each was seen at least twice, 1 = no two samples agree; NaN without samples.

    Raises:
        ValueError: a count that is negative or not whole.
    """
    w = _whole(counts)
    return float((w == 1).sum() / w.sum()) if w.sum() > 0 else math.nan


def richness(counts: ArrayLike) -> float:
    """Chao1 estimate of how many strategies there are, unseen ones included, bias-corrected (Chao 1984, 1987).

    S + f1 (f1 - 1) / (2 (f2 + 1)): S strategies seen, f1 of them once, f2 twice. It is a lower bound on average, and
    close to the truth where rare strategies are about equally rare; of n samples it cannot exceed n (n + 1) / 2.

    Args:
        counts: one a strategy, whole numbers; zeros are ignored.

    Returns:
        S (at most one strategy was seen only once).. n (n + 1) / 2 (no two samples agree); NaN without samples.

    Raises:
        ValueError: a count that is negative or not whole.
    """
    w = _whole(counts)
    once, twice = float((w == 1).sum()), float((w == 2).sum())
    return float((w > 0).sum() + once * (once - 1.0) / (2.0 * (twice + 1.0))) if w.sum() > 0 else math.nan


def novelty_by_index(groups: Sequence[Strategies]) -> NDArray[np.float64]:
    """Share of groups in which the i-th draft's strategy is new within its group: did no earlier draft take it.

    An unreadable draft (None) counts, and is not new.

    Args:
        groups: each one's strategies in the order of drafting; lengths may differ.

    Returns:
        (longest group,) float64 in 0..1, over the groups that have an i-th draft; empty where no group has any.
        1 throughout = no draft repeats; 1, 0, 0 ... = all repeat the first. It need not fall from one i to the next.
    """
    new = np.zeros(max(map(len, groups), default=0), dtype=np.float64)
    drafted = np.zeros_like(new)
    for group in groups:
        drafted[: len(group)] += 1.0
        seen: set[Hashable] = set()
        for i, strategy in enumerate(group):
            if strategy is not None and strategy not in seen:
                seen.add(strategy)
                new[i] += 1.0
    return new / drafted


def saturation(novelty: ArrayLike, share: float = 0.5) -> float:
    """After how many drafts fewer than ``share`` of the drafts are new, there and at every later index.

    The largest i, counted from 1, with novelty_i >= share. (Ours; a censored crossing, read from the far end, so that one
    chance dip early on does not end it.)

    Args:
        novelty: (n,) what ``novelty_by_index`` returns.
        share: in (0, 1].

    Returns:
        0..n - 1: 0 = even first drafts reach it in too few groups, 1 = only first drafts reach it; infinite where the last
        index still does, so that saturation lies beyond what was drawn; NaN where nothing was drawn.

    Raises:
        ValueError: not a vector, or a share outside (0, 1].
    """
    found = np.asarray(novelty, dtype=np.float64)
    if found.ndim != 1 or not 0.0 < share <= 1.0:
        raise ValueError(f"expected a vector and a share in (0, 1], got shape {found.shape} and {share}")
    if not len(found):
        return math.nan
    reached = np.flatnonzero(found >= share)
    last = int(reached[-1]) + 1 if len(reached) else 0
    return math.inf if last == len(found) else float(last)


def _weights(counts: ArrayLike) -> NDArray[np.float64]:
    w = np.asarray(counts, dtype=np.float64)
    if w.ndim != 1 or not np.isfinite(w).all() or (w < 0).any():
        raise ValueError(f"expected a vector of counts >= 0, got shape {w.shape}, values {np.unique(w)[:5]}")
    return w


def _whole(counts: ArrayLike) -> NDArray[np.float64]:
    w = _weights(counts)
    if (w != np.floor(w)).any():
        raise ValueError(f"expected whole numbers (how many samples took each strategy), got {w[w != np.floor(w)][:5]}")
    return w
