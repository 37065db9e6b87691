"""What lab policies are trained on: documents made from an environment's own solver or prior, as token ids.

Every document is what a sampler would ask, by the same ``prompts.Speaker``, and then what the policy should say. Losses
cover what the policy would say (answers, sketches and their stop tokens), never a prompt.

=============  ==============================================================  ==================================
form           asked                                                           said
=============  ==============================================================  ==================================
``answers``    x                                                               a solution
``lists``      x, a list of methods; then the bridge after each of them        distinct sketches of its solutions
``guided``     x and one of those sketches                                     a solution that follows it
``prompted``   x, one more method than the 0 or more that are named            another of those sketches
=============  ==============================================================  ==================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sesa_lab.config import PretrainConfig
from sesa_lab.errors import InputError
from sesa_lab.prompts import Speaker
from sesa_lab.types import Completion, Task

FORMS = ("answers", "lists", "guided", "prompted")


@dataclass(frozen=True)
class Document:
    """One demonstration.

    Attributes:
        ids: token ids, context first.
        said: for each of them whether the policy says it; those are trained.
    """

    ids: tuple[int, ...]
    said: tuple[bool, ...]


@dataclass(frozen=True)
class Solved:
    """A task and the ways to solve it.

    Attributes:
        task: what is asked.
        ways: sketch -> texts of the solutions that follow it; neither is empty. Most preferred sketch first (``preference``).
    """

    task: Task
    ways: dict[str, tuple[str, ...]]


def preference(sketch: str, seed: int) -> bytes:
    """What sketches are sorted by, everywhere alike: it knows nothing of tasks."""
    return hashlib.sha256(f"{seed} {sketch}".encode()).digest()


def solve(environment: Any, tasks: int, seed: int, progress: Callable[[int, int], None]) -> list[Solved]:
    """The first ``tasks`` tasks (at most as many as there are) with all solutions; those with too many to list are left out.

    Args:
        environment: see ``environments.contract.Environment``.
        tasks: how many are asked for.
        seed: fixes the order of preference among sketches.
        progress: called after each task with how many are done, and how many there are.

    Raises:
        InputError: no task at all could be solved.
    """
    found, wanted = [], min(tasks, environment.count)
    for index in range(wanted):
        task = environment.task(index)
        ways: dict[str, list[str]] = {}
        for text in environment.solutions(task) or ():
            sketch = environment.sketch(task, text)
            assert sketch is not None, f"{environment.name}: the solver's {text!r} has no sketch"
            ways.setdefault(sketch, []).append(text)
        if ways:
            order = sorted(ways, key=lambda sketch: preference(sketch, seed))
            found.append(Solved(task, {sketch: tuple(ways[sketch]) for sketch in order}))
        progress(index + 1, wanted)
    if not found:
        raise InputError(
            f"{environment.name}: its solver lists no solutions for these options (too many ways a task?), so there is"
            " nothing to train on; choose smaller tasks"
        )
    return found


class Demonstrations:
    """Draws documents of the four forms from solved tasks."""

    def __init__(
        self, solved: Sequence[Solved], speaker: Speaker, config: PretrainConfig, habitual: Callable[[str], bool]
    ) -> None:
        """Texts become ids once, here or when first drawn.

        Args:
            solved: the tasks.
            speaker: how the policy is asked.
            config: shares of the forms, how peaked sketches are, how habitual direct answers.
            habitual: whether a sketch is one of those that habits know.

        Raises:
            InputError: habits are to be shown, and there are none.
        """
        self.solved, self.speaker, self.config = solved, speaker, config
        self._shares = np.cumsum([config.answers_share, config.lists_share, config.guided_share, config.prompted_share])
        self._habitual = [[way for way in one.ways if habitual(way)] for one in solved]
        if config.habit and not any(self._habitual):
            raise InputError(
                f"habit = {config.habit}: no task has a habitual solution; leave it out or change the tasks"
            )
        self._ids: dict[str, tuple[int, ...]] = {}
        self._asked: dict[tuple[Any, ...], tuple[int, ...]] = {}
        self._bridges: list[tuple[int, ...]] = []

    def row(self, rng: np.random.Generator) -> list[Document]:
        """``config.demonstrations`` demonstrations of one task; fewer, not none, where it has no habitual solution."""
        documents: list[Document] = []
        while not documents:
            place = int(rng.integers(len(self.solved)))
            shares = rng.random(self.config.demonstrations) * self._shares[-1]
            forms = np.searchsorted(self._shares, shares, side="right")
            drawn = [self.draw(place, FORMS[form], rng) for form in forms]
            documents = [document for document in drawn if document is not None]
        return documents

    def draw(self, place: int, form: str, rng: np.random.Generator) -> Document | None:
        """A demonstration of one form for the task at ``place``; None: none that is habitual, where one should be."""
        draw: Callable[[int, np.random.Generator], Document | None] = getattr(self, f"_{form}")
        return draw(place, rng)

    def _answers(self, place: int, rng: np.random.Generator) -> Document | None:
        one = self.solved[place]
        only_habits = rng.random() < self.config.habit
        texts = [text for way in (self._habitual[place] if only_habits else one.ways) for text in one.ways[way]]
        if not texts:
            return None
        asked = self._kept((place, "answers"), lambda: self.speaker.answer(one.task))
        return _document(asked, self._said(_any(texts, rng)))

    def _lists(self, place: int, rng: np.random.Generator) -> Document:
        task = self.solved[place].task
        parts = [self._kept((place, "lists"), lambda: self.speaker.draft(task, "list", ()))]
        for number, sketch in enumerate(self._order(place, rng)[: self.config.sketches]):
            parts += [self._bridge(task, number), self._said(sketch)] if number else [self._said(sketch)]
        return _document(*parts)

    def _guided(self, place: int, rng: np.random.Generator) -> Document:
        one = self.solved[place]
        sketch = _any(list(one.ways), rng)
        asked = self._kept((place, "guided", sketch), lambda: self.speaker.guided(one.task, sketch))
        return _document(asked, self._said(_any(one.ways[sketch], rng)))

    def _prompted(self, place: int, rng: np.random.Generator) -> Document:
        order = self._order(place, rng)[: self.config.sketches]
        earlier = int(rng.integers(len(order)))
        given = [self._completion(sketch) for sketch in order[:earlier]]
        return _document(self.speaker.draft(self.solved[place].task, "prompt", given), self._said(order[earlier]))

    def _order(self, place: int, rng: np.random.Generator) -> list[str]:
        """All sketches of a task as draws without replacement would come, weights rank^-a in the order of preference."""
        ways = list(self.solved[place].ways)
        # Gumbel top-k: adding Gumbel noise to log-weights and sorting draws one after another without replacement.
        keys = -self.config.sketch_exponent * np.log(np.arange(1, len(ways) + 1)) + rng.gumbel(size=len(ways))
        return [ways[i] for i in np.argsort(-keys)]

    def _said(self, text: str) -> tuple[int, ...]:
        if text not in self._ids:
            self._ids[text] = (*self.speaker.encode(text), self.speaker.stop_ids[0])
        return self._ids[text]

    def _completion(self, sketch: str) -> Completion:
        ids = self._said(sketch)
        return Completion(ids, (0.0,) * len(ids), sketch, "stop")

    def _bridge(self, task: Task, number: int) -> tuple[int, ...]:
        """What the speaker puts between sketch ``number`` (1, 2, ...) of a list and the next."""
        while len(self._bridges) < number:  # the same for all tasks, so made once
            earlier = [self._completion("a")] * (len(self._bridges) + 1)
            shorter = len(self.speaker.draft(task, "list", earlier[1:])) + len(earlier[0].ids)
            self._bridges.append(self.speaker.draft(task, "list", earlier)[shorter:])
        return self._bridges[number - 1]

    def _kept(self, key: tuple[Any, ...], ask: Callable[[], tuple[int, ...]]) -> tuple[int, ...]:
        if key not in self._asked:
            self._asked[key] = ask()
        return self._asked[key]


def _any(items: Sequence[str], rng: np.random.Generator) -> str:
    return items[int(rng.integers(len(items)))]


def _document(*parts: tuple[int, ...]) -> Document:
    """Asked, said, asked, said, ..."""
    ids = tuple(token for part in parts for token in part)
    return Document(ids, tuple(bool(place % 2) for place, part in enumerate(parts) for _ in part))
