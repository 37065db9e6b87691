"""What samplers need to know of prompts and of environments: token ids, and episodes that they hand on unread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sesa_lab.types import Completion, Episode, Task

Streams = Callable[[int, int], np.random.Generator]
"""(group, number) -> a generator of its own: numbers 0..G-1 are the candidates, those from G on the sketches."""


@dataclass(frozen=True)
class Request:
    """A task and x, the token ids of its prompt."""

    task: Task
    prompt_ids: tuple[int, ...]


class Dialogue(Protocol):
    """How a policy is asked; ``prompts.Speaker`` is one.

    Attributes:
        stop_ids: token ids that end an answer.
    """

    @property
    def stop_ids(self) -> tuple[int, ...]: ...

    def between(self, finish: str) -> tuple[int, ...]:
        """What stands between an answer that ended by ``finish`` (``stop`` or ``length``) and the next, different one."""
        ...

    def guided(self, task: Task, sketch: str) -> tuple[int, ...]:
        """The prompt x with a sketch to be followed."""
        ...

    def draft(self, task: Task, form: str, earlier: Sequence[Completion]) -> tuple[int, ...]:
        """What the next sketch is drawn under."""
        ...

    def draft_stops(self, form: str) -> tuple[int, ...]:
        """Token ids that end a sketch."""
        ...

    def observed(self, finish: str, observation: str, role: str = "turn", task: Task | None = None) -> tuple[int, ...]:
        """What stands between a turn that ended by ``finish`` and the policy's next words; ``task`` says what is played."""
        ...


class World(Protocol):
    """The environment, where an answer takes several turns."""

    def reset(self, task: Task, seed: int = 0) -> Episode: ...

    def step(self, episode: Episode, text: str) -> Episode: ...


def normal(text: str) -> str:
    """``text`` without what makes no difference when repeats are looked for: case and white space."""
    return " ".join(text.split()).casefold()
