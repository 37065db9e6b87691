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
        "redraws": sum(c.redraws for c in candidates) + sum(k.redraws for s in scored for k in s.group.sketches),
        "length": _mean([c.length for c in candidates]),
        "truncated": _mean([c.turns[-1].completion.finish == "length" for c in candidates]),
        "turns": _mean([len(c.turns) for c in candidates]),
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
    } | _sketch_measures(scored)


def _sketch_measures(scored: Sequence[Scored]) -> dict[str, Any]:
    """NaN where there are no sketches, or no candidates without."""
    sketches = [sketch for s in scored for sketch in s.group.sketches]
    pairs = [pair for s in scored for pair in zip(s.group.candidates, s.scores, strict=True)]
    guided = [score.success for candidate, score in pairs if candidate.sketches]
    direct = [score.success for candidate, score in pairs if not candidate.sketches]
    return {
        "success_guided": _mean(guided) if guided else float("nan"),
        "success_direct": _mean(direct) if direct else float("nan"),
        "sketch_repeats": _mean([sketch.repeats for sketch in sketches]) if sketches else float("nan"),
        "sketch_length": _mean([len(sketch.turn.completion.ids) for sketch in sketches]) if sketches else float("nan"),
        "tokens_sketches": sum(sketch.sampled_tokens for sketch in sketches),
    }


def _mean(values: Sequence[Any]) -> float:
    return float(np.mean(values))
