"""Expanders without a policy: what they were asked is kept, what they answer is known, and they can be made to wait."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from threading import Event, get_ident
from typing import Any

from sesa_lab import environments, runs


@dataclass(frozen=True)
class Said:
    """A solution, as ``widgets.expansion.Solution`` has it."""

    policy: str
    prompt: str
    completion: str
    tokens: int
    logprob: float
    finish: str
    reward: float
    success: bool
    strategy: str | None


class Fake:
    """Solution i of a task is its shortest one where i is even, else the sketch itself as an answer; judged by the environment.

    Args:
        run: on whose tasks.
        error: raised instead of an answer.
        changed: fields of every solution that are to be others.

    Attributes:
        asked: (task, sketch, count, seed) of every call.
        threads: that called.
        may: answers wait for it; set from the start.
        begun: set when a call has come.
    """

    def __init__(self, run: Path, error: Exception | None = None, **changed: Any) -> None:
        chosen = runs.load(run).config.environment
        self.environment = environments.make(chosen.name, **chosen.options)
        self.error, self.changed = error, changed
        self.asked: list[tuple[int, str, int, int]] = []
        self.threads: set[int] = set()
        self.may, self.begun = Event(), Event()
        self.may.set()

    def expand(self, task: int, sketch: str, count: int = 4, seed: int = 0) -> list[Said]:
        self.asked.append((task, sketch, count, seed))
        self.threads.add(get_ident())
        self.begun.set()
        assert self.may.wait(60), "nobody let it answer"
        if self.error is not None:
            raise self.error
        made = self.environment.task(task)
        texts = [sketch if number % 2 else self.environment.oracle(made) for number in range(count)]
        scores = [self.environment.score(made, text) for text in texts]
        return [
            Said(
                **{
                    "policy": "fake, step 7", "prompt": made.prompt, "completion": text, "tokens": 3, "logprob": -1.25,
                    "finish": "stop", "reward": float(score.reward), "success": score.success, "strategy": score.strategy,
                    **self.changed,
                }
            )
            for text, score in zip(texts, scores, strict=True)
        ]  # fmt: skip
