"""What samplers need to know of prompts, as token ids only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sesa_lab.types import Task

Streams = Callable[[int, int], np.random.Generator]
"""(group, index in group) -> the candidate's own generator."""


@dataclass(frozen=True)
class Request:
    """A task and x, the token ids of its prompt."""

    task: Task
    prompt_ids: tuple[int, ...]


@dataclass(frozen=True)
class Dialogue:
    """How one growing context holds several answers.

    Attributes:
        stop_ids: token ids that end an answer; the first closes an answer that the token limit cut.
        bridge_ids: what stands between an answer's stop token and the next answer; asks for a different one.
    """

    stop_ids: tuple[int, ...]
    bridge_ids: tuple[int, ...]

    def between(self, finish: str) -> tuple[int, ...]:
        """What is appended after an answer that ended by ``finish`` (``stop`` or ``length``)."""
        return self.bridge_ids if finish == "stop" else (self.stop_ids[0], *self.bridge_ids)
