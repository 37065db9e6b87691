"""A made-up training loop that writes a run, and a process that runs it in forked children to be killed.

As a script it reads one JSON request a line, {"path", "steps", "keep", "kill_at"}: it forks a child for it, prints the
child's pid, waits for another line, then prints the child's exit code (-9: killed). Imports are paid for once.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from sesa_lab.config import Config
from sesa_lab.errors import InputError
from sesa_lab.runs import RunWriter, environment

EVERY = 3  # steps between commits
PROMPTS = {"lab/answer.txt": "{task} é\n", "lab/path_exploration.txt": "map {map}:"}
CHANGES = {"os.rename", "os.remove", "os.truncate", "os.mkdir", "os.rmdir"}


def config(steps: int, seed: int = 0) -> Config:
    return Config.build(
        "paper",
        sampler={"group_size": 3},
        run={"steps": steps, "groups": 2, "checkpoint_every": EVERY, "seed": seed},
    )


def metrics(step: int) -> dict[str, Any]:
    return {"reward": 1 / (step + 3), "kl_base": math.nan, "found": step * 2, "grad_norm": math.inf}


def rollouts(step: int) -> list[dict[str, Any]]:
    """Six candidates in two groups; up to step 3 without any history and without any readable strategy."""
    draw = random.Random(step)
    rows = []
    for row in range(6):
        length = draw.randint(0, 4)
        logprobs = [-draw.random() for _ in range(length)]
        rows.append(
            {
                "step": step,
                "group": row // 3,
                "index": row % 3,
                "task": 10 * step + row // 3,
                "prompt": f"task {step} <b>ü</b>\n\x00",
                "history": [] if step <= 3 else [f"answer {i}" for i in range(row % 3)],
                "sketch": None if step <= 3 or row == 4 else f"idea {row} <i>{{é}}</i>",
                "sketches": [] if step <= 3 else [row % 3, *range(3, 3 + row % 2)],
                "completion": f"answer {row}" if length else "",
                "token_ids": [draw.randint(0, 150_000) for _ in range(length)],
                "turns": ["answer", f"{row}"] if length else [""],
                "turn_tokens": [1, length - 1] if length else [0],
                "turn_rewards": [] if step <= 3 else [-0.1] * (row % 3),
                "episode_seed": None if step <= 3 else 2**32 - 1 - row,
                "finish": "stop" if row else "length",
                "drawn_under": "history" if row % 3 else "task",
                "drawn_logprobs": logprobs,
                "engine_logprobs": [],
                "trained_under": "task",
                "old_logprobs": [value * 1.1 for value in logprobs],
                "old_entropies": [-value for value in logprobs],
                "weight": 0.1 + row,
                "reward": 1 / 3,
                "credited": 0.0,
                "success": row % 2 == 0,
                "strategy": None if step <= 3 or row == 5 else f"way {row}",
                "advantage": -0.7,
                "redraws": row,
                "sampled_tokens": length + row,
            }
        )
    return rows


def sketches(step: int) -> list[dict[str, Any]]:
    """Three sketches of each of two groups from step 4 on; before it there are none. Credit from step 6 on."""
    if step <= 3:
        return []
    return [
        {
            "step": step,
            "group": row // 3,
            "index": row % 3,
            "task": 10 * step + row // 3,
            "text": f"idea {row} <i>{{é}}</i>\n",
            "token_ids": [row, 149_999],
            "logprobs": [-1 / (row + 3), -0.1 * step],
            "finish": "stop" if row else "length",
            "repeats": row == 2,
            "redraws": row,
            "sampled_tokens": 2 * (row + 1),
            "reward": None if step <= 5 else row / 7,
            "advantage": None if step <= 5 else -row / 3,
        }
        for row in range(6)
    ]


def answers(step: int) -> list[dict[str, Any]]:
    return [
        {
            "step": step,
            "task": task,
            "strategy": f"way {task}",
            "probability": 1 / (task + step + 2),
            "success": task < 1,
        }
        for task in range(2)
    ]


def save(folder: Path, step: int) -> None:
    content = random.Random(step)
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(content.randbytes(20_000))
    (folder / "optimizer.pt").write_bytes(content.randbytes(40_000))


def write(writer: RunWriter, until: int, keep: int | None = None) -> None:
    """The loop: from the last committed step to ``until``, a commit every ``EVERY`` steps."""
    with writer:
        if writer.checkpoint is None:
            evaluate(writer, 0)
        for step in range(writer.step + 1, until + 1):
            writer.log("step", step, metrics(step))
            writer.add_rollouts(rollouts(step))
            writer.add_sketches(sketches(step))
            if step % 2 == 0:
                evaluate(writer, step)
            if step % EVERY == 0:
                writer.commit(step, lambda folder, step=step: save(folder, step), keep_checkpoints=keep)


def evaluate(writer: RunWriter, step: int) -> None:
    writer.log("evaluation", step, {"accuracy": step / 100, "coverage_k": 64, "kl_uniform": None})
    writer.add_evaluation(answers(step))
    if step % 4 == 0:
        for guided in (False, True):
            writer.log("test", step, {"guided": guided, "accuracy": (step + guided) / 100, "pass_at_8": 0.5})


def work(path: Path, steps: int, keep: int | None) -> None:
    """Makes the run, or goes on with it where it has begun."""
    begun = (path / "config.json").exists()
    write(RunWriter.resume(path) if begun else RunWriter.create(path, config(steps), PROMPTS), steps, keep)


def kill_at(count: int) -> None:
    """SIGKILL to oneself right before the ``count``-th change on disk (open to write, rename, cut, delete)."""
    left = count

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def child(request: dict[str, Any]) -> int:
    try:
        if request["kill_at"]:
            kill_at(request["kill_at"])
        work(Path(request["path"]), request["steps"], request["keep"])
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    facts = environment.facts(0)
    environment.facts = lambda seed: facts  # slow, and nothing to do with crashes
    os.fsync = lambda handle: None  # likewise: it is for power cuts, what a killed process wrote stays written
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(child(json.loads(line)))
        print(pid, flush=True)
        sys.stdin.readline()  # until then a dead child stays a zombie, so that its pid names nobody else
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
