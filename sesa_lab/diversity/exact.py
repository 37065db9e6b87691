"""Exact measures from the policy's probability of every answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Exact:
    """What k samples from a policy are worth, without sampling.

    Attributes:
        accuracy: probability that one sample succeeds, 0..1.
        coverage: expected number of distinct successful answers in k independent samples, 0..number of successes.
        entropy: of the distribution over the valid answers (renormalised), nats; 0 = one answer only, log n = uniform.
        valid_mass: probability of any valid answer, 0..1.
        kl_uniform: KL(uniform over successes || policy restricted to successes), nats; 0 = all successes alike, inf = one
            of them has probability 0; NaN where no answer succeeds.
    """

    accuracy: float
    coverage: float
    entropy: float
    valid_mass: float
    kl_uniform: float


def exact_measures(probability: ArrayLike, success: ArrayLike, k: int) -> Exact:
    """Exact accuracy, coverage@k, entropy, valid mass and distance from uniform.

    Coverage@k = sum over successful answers a of 1 - (1 - p(a))^k.

    Args:
        probability: (n,) the policy's probability of each valid answer; the rest up to 1 is invalid.
        success: (n,) bool.
        k: samples, >= 1.

    Raises:
        ValueError: shapes differ, k < 1, a negative probability, or a sum above 1.01 (up to that it is rounding, as in
            bfloat16, and is divided out).
    """
    p = np.asarray(probability, dtype=np.float64)
    hit = np.asarray(success, dtype=bool)
    if p.shape != hit.shape or p.ndim != 1:
        raise ValueError(f"expected two vectors of one length, got shapes {p.shape} and {hit.shape}")
    if k < 1 or (p < 0).any() or p.sum() > 1.01:
        raise ValueError(f"expected k >= 1 and probabilities >= 0 with sum <= 1, got k = {k}, sum = {p.sum():.6g}")
    p = p / max(1.0, float(p.sum()))
    valid = float(p.sum())
    q = p[p > 0] / valid if valid > 0 else p[:0]
    found = p[hit]
    with np.errstate(divide="ignore"):
        covered = -np.expm1(k * np.log1p(-found))
        uniform = -np.log(found / found.sum()).mean() - np.log(len(found)) if found.sum() > 0 else np.nan
    return Exact(
        accuracy=float(found.sum()),
        coverage=float(covered.sum()),
        entropy=float(-(q * np.log(q)).sum()) if len(q) else float("nan"),
        valid_mass=valid,
        kl_uniform=float(uniform),
    )
