"""A step's candidates as rows of the rollout table; columns are documented in CONTRIBUTING.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sesa_lab.training.batch import training_context
from sesa_lab.training.update import Report
from sesa_lab.types import Scored


def rollout_rows(step: int, scored: Sequence[Scored], report: Report, conditioning: str) -> list[dict[str, Any]]:
    """One row a candidate, in the order of the report."""
    rows: list[dict[str, Any]] = []
    for g, s in enumerate(scored):
        for i, candidate in enumerate(s.group.candidates):
            n = len(rows)
            rows.append(
                {
                    "step": step,
                    "group": g,
                    "index": i,
                    "task": s.group.task.index,
                    "prompt": s.group.task.prompt,
                    "history": list(candidate.history),
                    "completion": candidate.completion.text,
                    "token_ids": list(candidate.completion.ids),
                    "finish": candidate.completion.finish,
                    "drawn_under": candidate.drawn_under.kind,
                    "drawn_logprobs": list(candidate.completion.logprobs),
                    "trained_under": training_context(candidate, conditioning).kind,
                    "old_logprobs": report.old[n],
                    "weight": report.importance[n],
                    "reward": s.scores[i].reward,
                    "credited": s.rewards[i],
                    "success": s.scores[i].success,
                    "strategy": s.scores[i].strategy,
                    "advantage": s.advantages[i],
                    "redraws": candidate.redraws,
                    "sampled_tokens": candidate.sampled_tokens,
                }
            )
    return rows
