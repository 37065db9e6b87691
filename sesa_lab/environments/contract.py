"""What every environment is; ``checker.check`` holds one to it.

One contract for tasks of one answer and of several turns: an episode begins by ``reset``, each turn of the policy is a
``step``, and an ``Episode`` is a value that can be kept, gone back to and replayed. A task of one answer is an episode of
one turn (``SingleTurn``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from sesa_lab.errors import InputError
from sesa_lab.types import Episode, Frame, Score, Task


class Environment(Protocol):
    """Gives tasks and judges answers. Every method is a pure function of the options and its arguments.

    What a method returns belongs to the caller: a list kept for later calls is copied first. Text that is told (strategy,
    sketch, observation, frames) can be written as UTF-8, whatever the policy wrote.

    Attributes:
        name: the name ``make`` knows it by.
        options: all options with their values, defaults included, JSON-able; ``make(name, **options)`` builds an equal
            environment (same tasks, same verdicts).
        policy_options: names of the options a lab policy is pre-trained for; the others may differ from its card.
        repeats: the task's own rule, read by the trainer: whether a strategy that came earlier in its group earns its
            reward again (``count``) or nothing (``zero``). ``score`` itself judges each answer alone.
        turns: most turns of an episode; 1: the policy answers once.
        count: how many distinct tasks there are; task ``i`` is task ``i`` mod ``count``. Where tasks are drawn when first
            asked for, fewer may exist: asking for more then raises ``InputError``.
    """

    name: str
    options: dict[str, Any]
    policy_options: tuple[str, ...]
    repeats: Literal["count", "zero"]
    turns: int
    count: int

    def task(self, index: int) -> Task:
        """The task ``index`` = 0, 1, 2, ...; the first ``count`` differ in content (prompt and data).

        Where ``data`` has ``hard``, it says whether none of the ``solutions`` has a ``habitual`` sketch.

        Raises:
            InputError: ``index`` is negative or not a whole number.
        """
        ...

    def score(self, task: Task, text: str) -> Score:
        """The verdict on a whole answer: finite reward; strategy None and no success where it cannot be read.

        All that cannot be read earns the same: at most 0, and no more than any answer that can be read. Else a policy that
        fails would do better to say nothing.

        Never raises, whatever the text, and takes time at most linear in its length. Text is hostile: never evaluated.
        Where chance has a say, it is that of ``reset(task)``.
        """
        ...

    def reset(self, task: Task, seed: int = 0) -> Episode:
        """A new episode. ``seed`` (0 .. 2^32 - 1) fixes all chance in it."""
        ...

    def step(self, episode: Episode, text: str) -> Episode:
        """The episode after one more turn of the policy; over after ``turns`` of them at the latest.

        Never raises on any text. An episode is terminated or truncated, never both, and succeeds only where terminated.
        Where ``turns`` is 1 and the seed 0, its verdict is that of ``score``.

        Raises:
            InputError: the episode is over.
        """
        ...

    def enumerate(self, task: Task) -> list[str] | None:
        """One text for every valid answer, each of another strategy; None where they are too many or not finite."""
        ...

    def solutions(self, task: Task) -> list[str] | None:
        """One text for every way to succeed that the solver knows, each of another strategy; None where too many."""
        ...

    def oracle(self, task: Task) -> str:
        """An answer that succeeds (where chance has a say: that may)."""
        ...

    def sketch(self, task: Task, text: str) -> str | None:
        """The method that an answer follows, in a few words and canonical; None where the answer cannot be read.

        One line of at most 200 characters, parted by single blanks; equal for answers that differ only in wording.
        """
        ...

    def habitual(self, sketch: str) -> bool:
        """Whether the method is one of the few that a *habit* lab policy's direct answers know."""
        ...

    def render(self, task: Task, text: str = "") -> list[Frame]:
        """The task (first frame) and then the answer carried out, one frame a move, as far as it can be read.

        At most 2,000 frames. The first is the same for every text; pictures are shapes and text alone: no script, handler
        or link that leads out of them.
        """
        ...


@runtime_checkable
class Replayed(Protocol):
    """What an environment of several turns may have besides: its episodes can be seen move by move."""

    def replay(self, task: Task, turns: Sequence[str], seed: int = 0) -> list[list[Frame]]:
        """The episode that ``reset(task, seed)`` and a ``step`` on each of ``turns`` play, chance included.

        Returns:
            First ``[the task]``, the first frame of ``render``; then one list a turn that was taken: a frame a move, and one
            where nothing moved. The last frame of a turn tells its reward, and the last of all the verdict, in its caption.
        """
        ...


class SingleTurn:
    """``turns``, ``reset`` and ``step`` of a task of one answer: a base class for environments that only have ``score``."""

    turns = 1

    def reset(self, task: Task, seed: int = 0) -> Episode:
        return Episode(task, seed, None)

    def step(self: Any, episode: Episode, text: str) -> Episode:
        check_open(episode)
        score: Score = self.score(episode.task, text)
        return dataclasses.replace(
            episode, rewards=(score.reward,), terminated=True, success=score.success, strategy=score.strategy
        )


def check_open(episode: Episode) -> None:
    """For the first line of every ``Environment.step``.

    Raises:
        InputError: the episode is over.
    """
    if episode.over:
        how = "terminated" if episode.terminated else "truncated"
        raise InputError(f"this episode of task {episode.task.index} is over ({how}); begin a new one with reset(task)")


def check_index(index: Any) -> int:
    """``index`` as an int; for the first line of every ``Environment.task``.

    Raises:
        InputError: negative or not a whole number.
    """
    if isinstance(index, bool) or not isinstance(index, (int, np.integer)) or index < 0:
        raise InputError(f"task index: expected a whole number >= 0, got {index!r}")
    return int(index)
