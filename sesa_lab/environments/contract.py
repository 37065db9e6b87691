"""What every environment is; ``checker.check`` holds one to it.

This is the contract of single-turn environments; those with several turns will have one of their own beside it.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np

from sesa_lab.errors import InputError
from sesa_lab.types import Score, Task


class Environment(Protocol):
    """Gives tasks and judges answers. Every method is a pure function of the options and its arguments.

    Attributes:
        name: the name ``make`` knows it by.
        options: all options with their values, defaults included, JSON-able; ``make(name, **options)`` builds an equal
            environment (same tasks, same verdicts).
        repeats: the task's own rule, read by the trainer: whether a strategy that came earlier in its group earns its
            reward again (``count``) or nothing (``zero``). ``score`` itself judges each answer alone.
    """

    name: str
    options: dict[str, Any]
    repeats: Literal["count", "zero"]

    def task(self, index: int) -> Task:
        """The task ``index`` = 0, 1, 2, ... without end.

        Raises:
            InputError: ``index`` is negative or not a whole number.
        """
        ...

    def score(self, task: Task, text: str) -> Score:
        """The verdict on an answer: finite reward; strategy None, reward 0 and no success where it cannot be read.

        Never raises, whatever the text, and takes time at most linear in its length. Text is hostile: never evaluated.
        """
        ...

    def enumerate(self, task: Task) -> list[str] | None:
        """One text for every valid answer, each of another strategy; None where they are too many or not finite."""
        ...

    def oracle(self, task: Task) -> str:
        """An answer that succeeds."""
        ...


def check_index(index: Any) -> int:
    """``index`` as an int; for the first line of every ``Environment.task``.

    Raises:
        InputError: negative or not a whole number.
    """
    if isinstance(index, bool) or not isinstance(index, (int, np.integer)) or index < 0:
        raise InputError(f"task index: expected a whole number >= 0, got {index!r}")
    return int(index)
