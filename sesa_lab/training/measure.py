"""What one step looked like, from its scored groups and its update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sesa_lab.diversity import effective_sample_size
from sesa_lab.training.update import Report
from sesa_lab.types import Scored


def step_measures(scored: Sequence[Scored], report: Report) -> dict[str, Any]:
    """Means over all candidates of the step; keys and units are documented in CONTRIBUTING.md."""
    scores = [score for s in scored for score in s.scores]
    candidates = [c for s in scored for c in s.group.candidates]
    keys = [[score.strategy for score in s.scores if score.strategy is not None] for s in scored]
    valid, distinct = sum(map(len, keys)), [len(set(group)) for group in keys]
    ratio = np.asarray(report.ratio)
    return {
        "reward": _mean([score.reward for score in scores]),
        "credited": _mean([reward for s in scored for reward in s.rewards]),
        "success": _mean([score.success for score in scores]),
        "valid": valid / len(scores),
        "distinct": _mean(distinct),
        "duplicates": 1.0 - sum(distinct) / valid if valid else float("nan"),
        "redraws": sum(c.redraws for c in candidates),
        "length": _mean([len(c.completion.ids) for c in candidates]),
        "truncated": _mean([c.completion.finish == "length" for c in candidates]),
        "zero_variance": _mean([not any(s.advantages) for s in scored]),
        "entropy": report.entropy,
        "approx_kl": report.approx_kl,
        "kl_base": report.kl_base,
        "clip_fraction": report.clip_fraction,
        "weight_mean": float(ratio.mean()),
        "weight_ess": effective_sample_size(ratio),
        "grad_norm": report.grad_norm,
        "loss": report.loss,
        "tokens_trained": report.tokens_trained,
    }


def _mean(values: Sequence[Any]) -> float:
    return float(np.mean(values))
