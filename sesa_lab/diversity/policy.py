"""Measures on the policy's own probabilities and rewards: entropy by token and by answer, surprisal, idle groups."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def token_entropy(logprobs: ArrayLike, loss_mask: ArrayLike | None = None) -> float:
    """Mean over tokens of the entropy of the distribution each was drawn from: mean_t -sum_v p_tv log p_tv (Shannon 1948).

    Args:
        logprobs: (..., vocabulary) log-probs of every possible token at each place, nats, of one policy and context, raw
            or after temperature: the entropy is of that same distribution. -inf is probability 0.
        loss_mask: (...) bool, True where a token counts; None: all do.

    Returns:
        Nats a token, 0..log(vocabulary): 0 = every token was certain, log(vocabulary) = all equally likely; NaN where no
        token counts.

    Raises:
        ValueError: shapes that do not fit, or a counted place whose probabilities do not sum to 1 (within 1 %, as in
            bfloat16): sampled tokens' log-probs alone are ``surprisal``'s business.
    """
    logp = np.asarray(logprobs, dtype=np.float64)
    counted = np.ones(logp.shape[:-1], dtype=bool) if loss_mask is None else np.asarray(loss_mask, dtype=bool)
    if logp.ndim < 1 or counted.shape != logp.shape[:-1]:
        raise ValueError(f"expected log-probs (..., vocabulary) and a mask (...), got {logp.shape} and {counted.shape}")
    rows = logp[counted]
    if not len(rows):
        return math.nan
    p = np.exp(rows)
    off = float(np.abs(p.sum(-1) - 1.0).max())
    if not off <= 0.01:
        raise ValueError(f"expected probabilities that sum to 1 at each place, got a sum off by {off:.3g}")
    # A log-prob of -inf would make 0 * inf; its share of the entropy is 0.
    return float(-(p * np.where(p > 0.0, rows, 0.0)).sum(-1).mean())


def sequence_entropy(probability: ArrayLike) -> float:
    """Exact entropy of the distribution over whole answers: -sum_a p(a) log p(a) (Shannon 1948).

    Where answers cannot be enumerated, the mean ``surprisal`` of samples estimates it without bias.

    Args:
        probability: (n,) of every possible answer, invalid ones included (one entry may hold all of these: the entropy is
            then of the coarser distribution, and lower).

    Returns:
        Nats an answer, 0..log n: 0 = always one answer, log n = all equally likely; NaN where there is none.

    Raises:
        ValueError: not a vector, a negative value, or a sum off 1 by more than 0.01 (up to that it is rounding, and divided
            out): answers are missing; ``exact_measures`` renormalises over the valid ones.
    """
    p = np.asarray(probability, dtype=np.float64)
    if p.ndim != 1:
        raise ValueError(f"expected a vector of probabilities, got shape {p.shape}")
    if not len(p):
        return math.nan
    if not (p >= 0.0).all() or not abs(p.sum() - 1.0) <= 0.01:
        raise ValueError(f"expected probabilities >= 0 of all answers, summing to 1, got a sum of {p.sum():.6g}")
    q = p[p > 0.0] / p.sum()
    return max(0.0, float(-(q * np.log(q)).sum()))


def surprisal(logprobs: ArrayLike, tokens: ArrayLike | None = None) -> float:
    """Mean surprisal of samples: mean_i -log p(y_i), or per token: -sum_i log p(y_i) / sum_i |y_i| (Shannon 1948).

    Of samples drawn from p itself it is an unbiased estimate of p's entropy (nats an answer); of samples drawn from
    another policy it is the cross-entropy. Say with the number under which policy, context and temperature p is.

    Args:
        logprobs: (n,) log-prob of each whole sample (the sum over its tokens), nats.
        tokens: (n,) how many tokens each has; given, the result is nats a token, long samples weighing more.

    Returns:
        >= 0: 0 = every sample was certain, inf = one was impossible; NaN where there are no samples (or no tokens), or a
        log-prob is NaN.

    Raises:
        ValueError: shapes differ, a log-prob above 0 (by more than rounding), or a negative number of tokens.
    """
    logp = np.asarray(logprobs, dtype=np.float64)
    if logp.ndim != 1 or (logp > 1e-3).any():
        raise ValueError(
            f"expected a vector of log-probs <= 0, got shape {logp.shape}, largest {logp.max(initial=-np.inf)}"
        )
    if tokens is None:
        return float(np.maximum(0.0, -logp).mean()) if len(logp) else math.nan
    lengths = np.asarray(tokens, dtype=np.float64)
    if lengths.shape != logp.shape or (lengths < 0).any():
        raise ValueError(f"expected one number of tokens >= 0 a sample, got shapes {lengths.shape} and {logp.shape}")
    return float(np.maximum(0.0, -logp).sum() / lengths.sum()) if lengths.sum() > 0 else math.nan


def zero_variance_fraction(rewards: Sequence[ArrayLike]) -> float:
    """Share of groups whose rewards are all equal, so that no advantage, and no gradient, comes of them (DAPO, Yu et al. 2025).

    Args:
        rewards: one vector a group, or (groups, candidates). Equal means equal as floats: no tolerance. A group of one is
            all equal; groups without rewards (and those with a NaN reward) are left out.

    Returns:
        0..1: 0 = every group teaches, 1 = none does; NaN where no group is left.
    """
    groups = [np.asarray(group, dtype=np.float64).ravel() for group in rewards]
    known = [group for group in groups if len(group) and not np.isnan(group).any()]
    return float(np.mean([(group == group[0]).all() for group in known])) if known else math.nan
