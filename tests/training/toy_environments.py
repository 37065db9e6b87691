"""Environments without a lab policy: one of whole answers with splits, and one of several turns."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from toy_world import Walk

from sesa_lab.config import option
from sesa_lab.environments.contract import SingleTurn
from sesa_lab.types import Score, Task


@dataclass(frozen=True)
class ToyOptions:
    """Name a colour."""

    split: str = option("train", "which part of the tasks", choices=("train", "validation", "test"))
    prize: str = option("red", "the colour that succeeds")


class Colours(SingleTurn):
    """Red, blue and green are valid; one succeeds. Odd tasks are hard. ``asked`` keeps (split, task) of every task given."""

    name = "colours"
    policy_options: tuple[str, ...] = ()
    repeats: Literal["count", "zero"] = "count"
    count = 1000
    asked: list[tuple[str, int]] = []  # noqa: RUF012 - of the class: environments are made out of sight

    def __init__(self, options: ToyOptions) -> None:
        self.options: dict[str, Any] = dataclasses.asdict(options)

    def task(self, index: int) -> Task:
        self.asked.append((self.options["split"], index))
        return Task(index, f"Colour {index}?", {"map": index, "hard": index % 2 == 1, "split": self.options["split"]})

    def score(self, task: Task, text: str) -> Score:
        assert task.data["split"] == self.options["split"], "judged by the environment that gave the task"
        word = text.strip()
        won = word == self.options["prize"]
        return Score(float(won), won, word if word in ("red", "blue", "green") else None)

    def enumerate(self, task: Task) -> None:
        return None


class Walks(Walk, Colours):
    """``Walk`` with tasks."""

    name = "walks"
    turns = 3

    def score(self, task: Task, text: str) -> Score:
        return self.step(self.reset(task), text).verdict
