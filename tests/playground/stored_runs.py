"""Runs of a few rows, written as the trainer writes them, whose weights can be worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from sesa_lab.config import Config
from sesa_lab.runs import RunWriter

# Three candidates of 2, 1 and 2 tokens, drawn after earlier answers, after earlier answers, and given the task alone.
TOKENS = ((11, 12), (13,), (14, 15))
OLD = ((-1.0, -2.0), (-0.3,), (-0.5, -0.5))
DRAWN = ((-1.5, -1.0), (-1.0,), (-0.5, -0.5))
HISTORY = (("x",), ("x", "y"), ())


def config(**update: Any) -> Config:
    return Config.build(
        sampler={"name": "sequential", "group_size": 3, "max_tokens": 8, "on_policy_fraction": 0.3},
        update={"advantage": "mean", "repeats": "count", **update},
        run={"steps": 4, "groups": 1, "trackers": "none"},
    )


def row(number: int, **values: Any) -> dict[str, Any]:
    place = number % 3
    return {
        "step": 1, "group": 0, "index": number, "task": 7, "prompt": "find them", "history": list(HISTORY[place]), "sketch": None,
        "sketches": [], "completion": f"answer {number}", "token_ids": list(TOKENS[place]), "turns": [f"answer {number}"],
        "turn_tokens": [len(TOKENS[place])], "turn_rewards": [], "episode_seed": None, "finish": "stop",
        "drawn_under": "history" if HISTORY[place] else "task", "drawn_logprobs": list(DRAWN[place]), "engine_logprobs": [],
        "trained_under": "task", "old_logprobs": list(OLD[place]), "old_entropies": [],
        "weight": 1.0, "reward": (2.0, -1.0, -1.0)[place],
        "credited": (2.0, -1.0, -1.0)[place], "success": place == 0, "strategy": f"s{number}", "advantage": 0.0, "redraws": 0,
        "sampled_tokens": 2,
    } | values  # fmt: skip


def write(path: Path, rows: Sequence[Mapping[str, Any]], settings: Config | None = None, loss: float = 0.5) -> Path:
    """A run with one checkpoint after the last step that has rows."""
    with RunWriter.create(path, settings or config()) as writer:
        for step in sorted({r["step"] for r in rows}):
            writer.log("step", step, {"loss": loss})
            writer.add_rollouts([dict(r) for r in rows if r["step"] == step])
            writer.commit(step, lambda folder: (folder / "state").write_text("state"))
    return path


def without(path: Path, *columns: str) -> Path:
    """The run at ``path`` as one made before these columns of its candidates were kept."""
    for part in (path / "rollouts").glob("*.parquet"):
        pq.write_table(pq.read_table(part).drop_columns(list(columns)), part)
    return path


def switched(path: Path, **changes: Any) -> Path:
    """A run of two steps; the alarm after the first changes its settings to these."""
    settings = Config.from_dict(config().to_dict() | {"watch": {"on_alarm": "switch", "switch": changes}})
    with RunWriter.create(path, settings) as writer:
        for step in (1, 2):
            writer.add_rollouts([row(i, step=step) for i in range(3)])
            writer.log("step", step, {"loss": 0.5})
            if step == 1:
                writer.log("alarm", 1, {"action": "switch"})
        writer.commit(2, lambda folder: (folder / "state").write_text("state"))
    return path
