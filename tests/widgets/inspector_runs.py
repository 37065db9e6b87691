"""Runs to be looked at: a small one of Sokoban made by hand, and one of any size; both as the training loop writes them."""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from sesa_lab import environments
from sesa_lab.config import Config
from sesa_lab.runs import RunWriter
from sesa_lab.widgets.tokens import SHIPPED

POLICY = "sokoban-ordinary"
ATTACKS = (
    "<script>window.pwned=1</script>",
    '<img src=x onerror="window.pwned=1">',
    "</pre></script><script>window.pwned=1</script>",
    '"><svg onload=window.pwned=1>',
    "<a href='javascript:window.pwned=1'>x</a>",
    "\u2028window.pwned=1\u2029",
    "\x1b[31mred\x1b[0m",
    "nul \x00 here",
    "\u202etfel ot thgir\u202c",
    "<b><i>",
    "```js `x",
    "שלום",
)
HOSTILE = "\n".join(ATTACKS)
SKETCHES = ("down left", "<img src=x onerror=window.pwned=1>", " Down  LEFT ")
"""The second is hostile; the third repeats the first, case and white space aside."""


def config(name: str, steps: int, every: int, **options: Any) -> Config:
    return Config.build(
        None,
        environment={"name": name, "options": options},
        sampler={"name": "sesa", "group_size": 6},
        run={"steps": steps, "checkpoint_every": every},
    )


def save(folder: Path) -> None:
    """A checkpoint whose adapter says what it was made for; the folder it names is on another machine."""
    (folder / "adapter").mkdir()
    base = {"base_model_name_or_path": f"/elsewhere/data/policies/{POLICY}"}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(base))


def answers(environment: Any, task: Any) -> list[tuple[int | None, str]]:
    """Which sketch it follows, and the text, of six candidates: 0 and 3 solve alike, 2 cannot be read, 5 is hostile."""
    best = environment.oracle(task)
    return [(0, best), (0, "up"), (1, "no plan at all"), (2, best), (None, "up up down"), (None, HOSTILE)]


def rollouts(environment: Any, step: int, group: int, sketches: bool = True) -> list[dict[str, Any]]:
    tokenizer = Tokenizer.from_file(str(SHIPPED / POLICY / "tokenizer.json"))
    number = 2 * (step - 1) + group
    task, draw = environment.task(number), random.Random(number)
    rows = []
    for index, (follows, text) in enumerate(answers(environment, task)):
        ids = [*tokenizer.encode(text, add_special_tokens=False).ids, 1]
        drawn = [-draw.expovariate(1.0) for _ in ids]
        score, followed = environment.score(task, text), [] if follows is None or not sketches else [follows]
        rows.append(
            {
                "step": step, "group": group, "index": index, "task": number, "prompt": task.prompt, "history": [],
                "sketch": SKETCHES[followed[0]] if followed else None, "sketches": followed, "completion": text,
                "token_ids": ids, "turns": [text], "turn_tokens": [len(ids)], "turn_rewards": [], "episode_seed": None,
                "finish": "stop", "drawn_under": "sketch" if followed else "task", "drawn_logprobs": drawn,
                "engine_logprobs": [], "trained_under": "task", "old_logprobs": [x + draw.gauss(0, 0.3) for x in drawn],
                "old_entropies": [-x / 2 for x in drawn],
                "weight": 1.0 + index / 10, "reward": score.reward, "credited": score.reward if index < 3 else 0.0,
                "success": score.success, "strategy": score.strategy, "advantage": 0.5 - index, "redraws": 0,
                "sampled_tokens": len(ids),
            }
        )  # fmt: skip
    return rows


def sketches(environment: Any, step: int, group: int) -> list[dict[str, Any]]:
    return [
        {
            "step": step, "group": group, "index": index, "task": 2 * (step - 1) + group, "text": text,
            "token_ids": [index, 1], "logprobs": [-0.5, -0.25], "finish": "stop", "repeats": index == 2, "redraws": 0,
            "sampled_tokens": 2, "reward": None if index == 1 else 0.5, "advantage": 0.1 * index,
        }
        for index, text in enumerate(SKETCHES)
    ]  # fmt: skip


def small_run(
    path: Path, steps: int = 4, first: int = 1, with_sketches: bool = True, *, changed: Any = (), **options: Any
) -> Path:
    """Two groups a step of six candidates and three sketches, committed every second step; goes on where it has begun.

    Args:
        changed: columns of the last candidate of each group that are to be others.
        options: of the environment.
    """
    writer = (
        RunWriter.resume(path)
        if path.exists()
        else RunWriter.create(path, config("sokoban", 8, 2, answer_format="plain", **options))
    )
    environment = environments.make("sokoban", **writer.config.environment.options)
    with writer:
        for step in range(first, steps + 1):
            for group in range(2):
                rows = rollouts(environment, step, group, with_sketches)
                rows[-1] |= dict(changed)
                writer.add_rollouts(rows)
                writer.add_sketches(sketches(environment, step, group) if with_sketches else [])
            writer.log("step", step, {"reward": 0.5})
            if step % 2 == 0:
                writer.commit(step, save)
    return path


def episodes_run(path: Path, name: str, **options: Any) -> Path:
    """One group of episodes of several turns: one that goes by the oracle, one that wanders, one that mumbles in between.

    Seeds differ, and on slippery ice the first is one under which the oracle's plan, told every turn, succeeds.

    Args:
        path: of the run, made here.
        name: of the environment: one of several turns.
        options: its own; three turns, unless they say otherwise.
    """
    chosen = config(name, 2, 2, **{"turns": 3, "answer_format": "plain", **options})
    environment = environments.make(name, **chosen.environment.options)
    task = environment.task(1)
    words, told = environment.oracle(task).split(), []
    most = environment.options["actions_per_turn"]
    plan = [" ".join(words[first : first + most]) for first in range(0, 3 * most, most)]

    def play(texts: list[str], seed: int) -> Any:
        episode, said = environment.reset(task, seed), []
        for text in texts:
            if not episode.over:
                episode, _ = environment.step(episode, text), said.append(text)
        return episode, said

    lucky = next(seed for seed in range(1000) if play(plan, seed)[0].success)
    plays = [(plan, lucky), (["up left", HOSTILE, "down"], 17), (["\U0001d465" * 3_000, *plan[:2]], lucky)]
    for index, (texts, seed) in enumerate(plays):
        episode, said = play(texts, seed)
        count = 3 * len(said)
        told.append(
            {
                "step": 1, "group": 0, "index": index, "task": 1, "prompt": task.prompt, "history": [], "sketch": None,
                "sketches": [], "completion": "\n".join(said), "token_ids": [3] * count, "turns": said,
                "turn_tokens": [3] * len(said), "turn_rewards": list(episode.rewards), "episode_seed": seed, "finish": "stop",
                "drawn_under": "task", "drawn_logprobs": [-0.5] * count, "engine_logprobs": [], "trained_under": "task",
                "old_logprobs": [-0.5] * count, "old_entropies": [0.5] * count, "weight": 1.0, "reward": sum(episode.rewards),
                "credited": sum(episode.rewards), "success": episode.success, "strategy": episode.strategy,
                "advantage": 0.0, "redraws": 0, "sampled_tokens": count,
            }
        )  # fmt: skip
    with RunWriter.create(path, chosen) as writer:
        writer.add_rollouts(told)
        writer.log("step", 1, {"reward": 0.5})
        writer.log("step", 2, {"reward": 0.5})
        writer.commit(2, save)
    return path


def large_run(path: Path, steps: int, groups: int, size: int, tokens: int, every: int) -> Path:
    """``steps`` x ``groups`` x ``size`` candidates of ``tokens`` tokens each, with four sketches a group."""
    generator = np.random.default_rng(0)
    with RunWriter.create(path, config("sokoban", steps, every)) as writer:
        environment = environments.make("sokoban", **writer.config.environment.options)
        tasks = [environment.task(index) for index in range(groups)]
        for step in range(1, steps + 1):
            drawn = -generator.exponential(size=(groups, size, 2, tokens))
            ids = generator.integers(3, 300, size=(groups, size, tokens)).tolist()
            words = generator.choice(["up", "down", "left", "right"], (groups, size, tokens)).tolist()
            for group, task in enumerate(tasks):
                writer.add_rollouts(
                    [
                        {
                            "step": step, "group": group, "index": index, "task": group, "prompt": task.prompt,
                            "history": [], "sketch": f"way {index % 4}", "sketches": [index % 4],
                            "completion": (text := " ".join(words[group][index])), "token_ids": ids[group][index],
                            "turns": [text], "turn_tokens": [tokens], "turn_rewards": [], "episode_seed": None,
                            "finish": "stop", "drawn_under": "sketch", "drawn_logprobs": drawn[group, index, 0].tolist(),
                            "engine_logprobs": [], "trained_under": "task",
                            "old_logprobs": drawn[group, index, 1].tolist(),
                            "old_entropies": (-drawn[group, index, 1]).tolist(), "weight": 1.0, "reward": float(index % 3),
                            "credited": 0.0, "success": index % 3 == 0, "strategy": f"s{index % 5}", "advantage": 0.0,
                            "redraws": 0, "sampled_tokens": tokens,
                        }
                        for index in range(size)
                    ]
                )  # fmt: skip
                writer.add_sketches(
                    [
                        {
                            "step": step, "group": group, "index": index, "task": group, "text": f"way {index}",
                            "token_ids": [1, 2], "logprobs": [-0.5, -0.5], "finish": "stop", "repeats": False,
                            "redraws": 0, "sampled_tokens": 2, "reward": None, "advantage": None,
                        }
                        for index in range(4)
                    ]
                )  # fmt: skip
            writer.log("step", step, {"reward": 0.5})
            if step % every == 0:
                writer.commit(step, save, keep_checkpoints=1)
    return path


def measure(path: Path) -> None:
    """Print what a run costs to open and to leaf through, in this fresh process."""
    import psutil

    from sesa_lab.widgets import SketchInspector

    SketchInspector  # noqa: B018  # imports are paid for by the notebook's first cell
    process = psutil.Process()
    before, begun = process.memory_info().rss, time.perf_counter()
    widget = SketchInspector(path)
    opened, steps, took = time.perf_counter() - begun, widget.steps, []
    for step in random.Random(0).sample(steps, min(40, len(steps))):
        begun = time.perf_counter()
        widget.step = step
        took.append(time.perf_counter() - begun)
    pushed = len(json.dumps([widget.sides, widget.details, widget.listed, widget.groups]))
    after = process.memory_info()
    print(
        f"opened in {opened:.2f} s; a step in {np.median(took) * 1e3:.0f} ms (median), {max(took) * 1e3:.0f} ms (most)"
    )
    print(f"memory {before / 1e6:.0f} MB before, {after.rss / 1e6:.0f} MB after; {pushed / 1e3:.1f} kB pushed a step")
    widget.close()


if __name__ == "__main__":  # python -m tests.widgets.inspector_runs FOLDER: makes the run of 100,000 rollouts, measures
    where = Path(sys.argv[1])
    if not where.exists():
        large_run(where, steps=500, groups=25, size=8, tokens=30, every=10)
    measure(where)
