"""Runs of a few rows whose shares can be worked out by hand, and one of any size that collapses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sesa_lab.config import Config
from sesa_lab.runs import RunWriter


def config(sampler: str = "parallel", steps: int = 500, **watch: Any) -> Config:
    return Config.build(
        sampler={"name": sampler, "group_size": 4},
        run={"steps": steps, "groups": 2, "trackers": "none"},
        watch=watch,
    )


def row(step: int, group: int, index: int, strategy: str | None, success: bool, **values: Any) -> dict[str, Any]:
    return {
        "step": step, "group": group, "index": index, "task": 10 + group, "prompt": "find", "history": [], "sketch": None,
        "sketches": [], "completion": f"answer {index}", "token_ids": [1], "turns": ["a"], "turn_tokens": [1],
        "turn_rewards": [], "episode_seed": None, "finish": "stop", "drawn_under": "task", "drawn_logprobs": [-1.0],
        "engine_logprobs": [], "trained_under": "task", "old_logprobs": [-1.0], "old_entropies": [],
        "weight": 1.0, "reward": float(success),
        "credited": float(success), "success": success, "strategy": strategy, "advantage": 0.0, "redraws": 0,
        "sampled_tokens": 1,
    } | values  # fmt: skip


def write(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    settings: Config | None = None,
    answers: Sequence[tuple[int, int, str | None, float, bool]] = (),
    evaluations: Mapping[int, Mapping[str, Any]] | None = None,
    alarms: Mapping[int, Mapping[str, Any]] | None = None,
) -> Path:
    """A run with one checkpoint, after its last step.

    Args:
        rows: candidates.
        settings: None: ``config()``.
        answers: (step, task, strategy, probability, success).
        evaluations: step -> what is logged.
        alarms: likewise.
    """
    columns = ("step", "task", "strategy", "probability", "success")
    evaluations, alarms = evaluations or {}, alarms or {}
    with RunWriter.create(path, settings or config()) as writer:
        last = 0
        for step in sorted({r["step"] for r in rows} | set(evaluations)):
            last = step
            own = [dict(r) for r in rows if r["step"] == step]
            if own:
                writer.log("step", step, {"entropy": 1.0 / step, "zero_variance": 0.5})
            writer.add_rollouts(own)
            writer.add_evaluation([dict(zip(columns, a, strict=True)) for a in answers if a[0] == step])
            if step in evaluations:
                writer.log("evaluation", step, evaluations[step])
            if step in alarms:
                writer.log("alarm", step, alarms[step])
        writer.commit(last, lambda folder: (folder / "state").write_text("state"))
    return path


def two_steps(path: Path, name: str = "a", **options: Any) -> Path:
    """Step 1: ``name`` three times (one succeeds), b and c twice (one succeeds each), one unreadable. Step 2: no success."""
    first = [(0, name, True), (0, name, False), (0, "b", False), (0, None, False)]
    first += [(1, "b", True), (1, "c", True), (1, "c", False), (1, name, False)]
    rows = [row(1, group, i % 4, s, hit) for i, (group, s, hit) in enumerate(first)]
    rows += [row(2, group, i, name, False) for group in range(2) for i in range(4)]
    return write(path, rows, **options)


def collapsing(
    path: Path,
    steps: int,
    groups: int,
    size: int,
    sampler: str = "parallel",
    ways: int = 20,
    to: float = 3.0,
    seed: int = 0,
) -> Path:
    """Strategies drawn from a Zipf law whose exponent goes from 0.3 up to ``to``; every second one succeeds."""
    generator, rows, evaluations, answers = np.random.default_rng(seed), [], {}, []
    for step in range(1, steps + 1):
        p = np.arange(1, ways + 1) ** -(0.3 + (to - 0.3) * step / steps)
        p /= p.sum()
        drawn = generator.choice(ways, size=(groups, size), p=p)
        rows += [
            row(
                step,
                g,
                i,
                f"Asia > Land {w:02d} > City {w:02d}" if w < ways - 1 else None,
                w % 2 == 0,
                completion=f"way {w}",
            )
            for g in range(groups)
            for i, w in enumerate(drawn[g].tolist())
        ]
        if step % 5 == 0 or step == 1:
            mass = float(p[::2].sum())
            evaluations[step] = {
                "accuracy": mass, "entropy": float(-(p * np.log(p)).sum()), "coverage": float((1 - (1 - p[::2]) ** 64).sum()),
                "coverage_k": 64, "kl_uniform": 0.1,
            }  # fmt: skip
            answers += [(step, 0, f"Asia > Land {w:02d} > City {w:02d}", float(p[w]), w % 2 == 0) for w in range(ways)]
    return write(path, rows, config(sampler, steps), answers, evaluations)
