"""What a fresh policy's card says of it, against samples whose figures are counted by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from sesa_lab.policies import measure
from sesa_lab.policies.documents import Solved
from sesa_lab.types import Completion, Score, Task


class Toy:
    """Answers are ``method:number``; the task's number is right. Method ``a`` is habitual."""

    name = "toy"

    def score(self, task: Task, text: str) -> Score:
        method, _, number = text.partition(":")
        return Score(float(number == str(task.index)), number == str(task.index), method if number else None)

    def sketch(self, task: Task, text: str) -> str | None:
        return self.score(task, text).strategy

    def habitual(self, sketch: str) -> bool:
        return sketch == "a"


class Voice:
    stop_ids = (0,)

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(range(1, len(text) + 1))

    def answer(self, task: Task) -> tuple[Any, ...]:
        return ("answer", task.index)

    def draft(self, task: Task, form: str, earlier: Sequence[Completion]) -> tuple[Any, ...]:
        assert form == "list"
        return ("list", task.index, *(sketch.text for sketch in earlier))

    def guided(self, task: Task, sketch: str) -> tuple[Any, ...]:
        return ("guided", task.index, sketch)


SOLVED = [Solved(Task(0, "", {}), {"a": ("a:0",), "b": ("b:0",)}), Solved(Task(1, "", {}), {"b": ("b:1",)})]


class Script:
    """Stands for the sampler: what is drawn under which context."""

    def __init__(self, policy: Any, speaker: Any, seed: int, most: int) -> None:
        self.speaker = speaker
        assert (policy, seed, most) == ("policy", 7, 2 * 4)  # twice the longest solution, 3 tokens, and its stop token

    def __call__(self, contexts: Sequence[tuple[Any, ...]], count: int, *position: int) -> list[list[Completion]]:
        return [
            [Completion((0,), (), self.say(*context, turn=turn), "stop") for turn in range(count)]
            for context in contexts
        ]

    def say(self, kind: str, task: int, *words: str, turn: int) -> str:
        if kind == "answer":  # task 0: 4 of 16 right, all habitual; task 1: 1 of 16 right, 8 cannot be read
            return ("a:0" if turn < 4 else "a:5") if task == 0 else ("b:1" if turn == 0 else "c:5" if turn < 8 else "?")
        if kind == "list" and not words:  # i.i.d.: four a's, four b's
            return "ab"[turn % 2]
        if kind == "list":
            return str(len(words))
        return f"{words[0]}:{task}" if words[0] == "a" else "c:1"  # a is followed and right, b is not followed


def test_figures_are_those_counted_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_Sampler", Script)
    found = measure.sampled(Toy(), SOLVED, "policy", Voice(), 7)
    assert found == {
        "success": 0.1562,  # (4/16 + 1/16) / 2 = 0.15625
        "success_hard": 0.0625,  # task 1 has no habitual solution: 1/16
        "solved_by_16": 1.0,
        "readable": 0.75,  # 16 of 16 and 8 of 16
        "habitual": 0.6667,  # 16 a's of the 24 that can be read
        # Sketches: 4 a and 4 b a task. Task 0 knows both, task 1 only b.
        "sketches_useful": 0.75,
        "guided_follows": 0.5,  # the answers to a's
        "guided_success": 0.75,  # a:0, a:1, and c:1 to the b's of task 1
        "distinct_listed": 8.0,  # a (after nothing), 1, 2, ..., 7
        "distinct_iid": 2.0,
    }


def test_where_there_is_nothing_to_count_the_figure_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mute(Script):
        def say(self, kind: str, task: int, *words: str, turn: int) -> str:
            return "?"

    monkeypatch.setattr(measure, "_Sampler", Mute)
    found = measure.sampled(Toy(), SOLVED[:1], "policy", Voice(), 7)
    assert found["success_hard"] is None, "no hard task"
    assert found["habitual"] is None, "no readable answer"
    assert (found["success"], found["readable"], found["distinct_listed"], found["guided_follows"]) == (0, 0, 1, 0)
