"""Distinct random tasks, parted by content into train, validation and test.

Which part a task belongs to is decided by a hash of its content alone, so tasks of different parts never meet, whatever
seeds and options they were drawn with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from sesa_lab.errors import InputError

Item = TypeVar("Item")

SPLITS = ("train", "validation", "test")
ALL = "all"
"""Beside them, in environments that have it: every task, so that nothing may be trained on it."""
HARD = ("natural", "half", "all", "none")
MOST_DRAWS = 20_000  # in vain, one after another, after which a pool is exhausted


def split_of(content: str) -> str:
    """``train`` (80 % of all contents), ``validation`` (10 %) or ``test`` (10 %), by a hash of ``content``."""
    tenth = int.from_bytes(hashlib.sha256(content.encode()).digest()[:8]) % 10
    return SPLITS[max(tenth - 7, 0)]


class Pool(Generic[Item]):
    """The tasks of one environment, drawn when first asked for and kept.

    Task ``i`` is the i-th draw whose content is new, in the right split and, with ``hard`` = all or none, of the right
    kind. With ``half``, even tasks are ones that habits solve and odd ones are hard.
    """

    def __init__(
        self,
        draw: Callable[[np.random.Generator], Item | None],
        content: Callable[[Item], str],
        is_hard: Callable[[Item], bool],
        streams: Callable[[int], np.random.Generator],
        *,
        split: str,
        hard: str,
        label: str,
    ) -> None:
        """Nothing is drawn yet.

        Args:
            draw: one random task, or None where the draw came to nothing.
            content: what makes the task what it is; tasks of equal content are one task. The split hashes its first line,
                so that what must never be shared between splits stands there.
            is_hard: no habitual method solves it.
            streams: the generator of the n-th draw.
            split: one of ``SPLITS``.
            hard: one of ``HARD``.
            label: the environment's name, for errors.
        """
        self._draw, self._content, self._is_hard, self._streams = draw, content, is_hard, streams
        self._split, self._hard, self._label = split, hard, label
        self._seen: set[str] = set()
        self._kept: tuple[list[Item], list[Item]] = ([], [])  # easy (or all of them), hard
        self._draws = 0
        self._last = [0, 0]  # draws made when a task of each kind was last kept

    def __getitem__(self, index: int) -> Item:
        """Task ``index``.

        Raises:
            InputError: so many distinct tasks were not found: ``MOST_DRAWS`` one after another came to nothing.
        """
        kind, place = (index % 2, index // 2) if self._hard == "half" else (0, index)
        while len(self._kept[kind]) <= place:
            if self._draws - self._last[kind] >= MOST_DRAWS:
                found = len(self._kept[kind])
                remedy = (
                    "lower `tasks`, or enlarge the task" if found else "no task is like that: loosen what it must have"
                )
                raise InputError(
                    f"{self._label}: only {found} distinct tasks were found with split = {self._split!r}, hard ="
                    f" {self._hard!r} and the other options; {remedy}"
                )
            self._add()
        return self._kept[kind][place]

    def _add(self) -> None:
        """Draw once, and keep what came if it is new, in the right split and of the right kind.

        A kind found to be exhausted stays so, even if a draw for the other kind hits it later: which tasks there are
        does not depend on the order in which they are asked for.
        """
        number, self._draws = self._draws, self._draws + 1
        item = self._draw(self._streams(number))
        if item is None:
            return
        content = self._content(item)
        if content in self._seen or split_of(content.splitlines()[0]) != self._split:
            return
        hard = self._hard != "natural" and bool(self._is_hard(item))
        if self._hard in ("all", "none") and hard is not (self._hard == "all"):
            return
        kind = int(hard) if self._hard == "half" else 0
        if number - self._last[kind] >= MOST_DRAWS:
            return
        self._seen.add(content)
        self._kept[kind].append(item)
        self._last[kind] = self._draws
