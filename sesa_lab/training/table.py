"""A step's candidates and sketches as rows of tables; columns are documented in CONTRIBUTING.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sesa_lab.training.batch import training_kinds
from sesa_lab.training.update import Report
from sesa_lab.types import Candidate, Scored


def rollout_rows(step: int, scored: Sequence[Scored], report: Report, conditioning: str) -> list[dict[str, Any]]:
    """One row a candidate, in the order of the report."""
    rows: list[dict[str, Any]] = []
    for g, s in enumerate(scored):
        for i, candidate in enumerate(s.group.candidates):
            n = len(rows)
            followed = [s.group.sketches[k].text for k in candidate.sketches]
            rows.append(
                {
                    "step": step,
                    "group": g,
                    "index": i,
                    "task": s.group.task.index,
                    "prompt": s.group.task.prompt,
                    "history": list(candidate.history),
                    "sketch": followed[0] if followed else None,
                    "sketches": list(candidate.sketches),
                    **_words(candidate),
                    "drawn_under": candidate.turns[0].drawn_under.kind,
                    "trained_under": "+".join(training_kinds(candidate, conditioning)),
                    "old_logprobs": report.old[n],
                    "old_entropies": report.entropies[n],
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


def _words(candidate: Candidate) -> dict[str, Any]:
    """What the candidate said, all turns in a row, and where each turn ends."""
    said = [turn.completion for turn in candidate.turns]
    return {
        "completion": candidate.text,
        "token_ids": [i for completion in said for i in completion.ids],
        "drawn_logprobs": [value for completion in said for value in completion.logprobs],
        "engine_logprobs": [value for completion in said for value in completion.engine_logprobs],
        "turns": [completion.text for completion in said],
        "turn_tokens": [len(completion.ids) for completion in said],
        "turn_rewards": list(candidate.episode.rewards) if candidate.episode is not None else [],
        "episode_seed": candidate.episode.seed if candidate.episode is not None else None,
        "finish": said[-1].finish,
    }


def sketch_rows(step: int, scored: Sequence[Scored]) -> list[dict[str, Any]]:
    """One row a sketch, groups in order, sketches in the order drafted."""
    return [
        {
            "step": step,
            "group": g,
            "index": k,
            "task": s.group.task.index,
            "text": sketch.text,
            "token_ids": list(sketch.turn.completion.ids),
            "logprobs": list(sketch.turn.completion.logprobs),
            "finish": sketch.turn.completion.finish,
            "repeats": sketch.repeats,
            "redraws": sketch.redraws,
            "sampled_tokens": sketch.sampled_tokens,
            "reward": s.sketch_rewards[k] if s.sketch_rewards else None,
            "advantage": s.sketch_advantages[k] if s.sketch_advantages else None,
        }
        for g, s in enumerate(scored)
        for k, sketch in enumerate(s.group.sketches)
    ]
