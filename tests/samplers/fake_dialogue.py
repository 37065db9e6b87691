"""A dialogue without a tokenizer: every role has its own marks, so that a context shows what it was put together from.

And what the tests of all samplers share: three requests, streams, settings.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from fake_engine import STOP, FakeEngine

from sesa_lab.config import Config, SamplerConfig
from sesa_lab.samplers import Request, World, draw
from sesa_lab.types import Completion, Group, Task

BRIDGE = (7, 8)
GUIDED, GUIDED_END = 30, 31
LIST, LIST_NEXT = 40, 41
PROMPT, PROMPT_NEXT, PROMPT_END = 50, 51, 52
ROLES = {"turn": 60, "turn_sketch": 61, "turn_solve": 62}
LIST_STOP = 2


def spelled(text: str) -> tuple[int, ...]:
    return tuple(200 + ord(letter) for letter in text)


def closing(finish: str) -> tuple[int, ...]:
    """What a completion that the token limit cut is closed with."""
    return () if finish == "stop" else (STOP,)


def common(contexts: Sequence[Sequence[int]]) -> int:
    """How many tokens all contexts begin with alike."""
    columns = zip(*contexts, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))


class Words:
    """A ``samplers.Dialogue``; everything said to task i begins with the token 20 + i."""

    stop_ids = (STOP, 2)

    def between(self, finish: str) -> tuple[int, ...]:
        return (*closing(finish), *BRIDGE)

    def guided(self, task: Task, sketch: str) -> tuple[int, ...]:
        return (20 + task.index, GUIDED, *spelled(sketch), GUIDED_END)

    def draft(self, task: Task, form: str, earlier: Sequence[Completion]) -> tuple[int, ...]:
        ids = [20 + task.index, LIST if form == "list" else PROMPT]
        for sketch in earlier:
            if form == "list":
                ids += [*sketch.ids, *closing(sketch.finish), LIST_NEXT]
            else:
                ids += [*spelled(sketch.text), PROMPT_NEXT]
        return tuple(ids if form == "list" else [*ids, PROMPT_END])

    def draft_stops(self, form: str) -> tuple[int, ...]:
        return (LIST_STOP, STOP) if form == "list" else self.stop_ids

    def observed(self, finish: str, observation: str, role: str = "turn", task: Task | None = None) -> tuple[int, ...]:
        return (*closing(finish), ROLES[role], *spelled(observation))


DIALOGUE = Words()
REQUESTS = [Request(Task(index, f"task {index}", {}), (20 + index,) * (2 + index)) for index in range(3)]


def settings(name: str, group_size: int = 4, **changes: object) -> SamplerConfig:
    return Config.build(sampler={"name": name, "group_size": group_size, **changes}).sampler


def streams(group: int, number: int) -> np.random.Generator:
    return np.random.default_rng([3, group, number])


def groups(
    engine: FakeEngine, config: SamplerConfig, requests: list[Request] = REQUESTS, world: World | None = None
) -> list[Group]:
    found = draw(engine, requests, config, DIALOGUE, streams, world)
    assert [group.task for group in found] == [request.task for request in requests]
    assert [len(group.candidates) for group in found] == [config.group_size] * len(requests)
    return found
