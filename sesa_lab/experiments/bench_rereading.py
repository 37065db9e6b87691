"""An engine that keeps nothing, to measure what the kept cache is worth."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from sesa_lab.engines import Counters, Sampling, Session
from sesa_lab.types import Completion


class Rereading:
    """Before every draw the whole context is read in again."""

    foreign = False

    def __init__(self, engine: Any) -> None:
        """Draw by a ``TorchEngine``."""
        self.engine = engine
        self.counters: Counters = engine.counters

    def synced(self) -> AbstractContextManager[None]:
        synced: AbstractContextManager[None] = self.engine.synced()
        return synced

    def close(self) -> None:
        self.engine.close()

    def start(self, contexts: Sequence[Sequence[int]]) -> RereadingSession:
        return RereadingSession(self.engine, [list(context) for context in contexts])


class RereadingSession:
    """See ``engines.Session``."""

    def __init__(self, engine: Any, ids: list[list[int]]) -> None:
        self.engine, self.ids = engine, ids

    def context(self, row: int) -> tuple[int, ...]:
        return tuple(self.ids[row])

    def fork(self, rows: Sequence[int]) -> Session:
        return RereadingSession(self.engine, [list(self.ids[row]) for row in rows])

    def append(self, tokens: Sequence[Sequence[int]]) -> None:
        for row, new in zip(self.ids, tokens, strict=True):
            row.extend(new)

    def rewind(self, row: int, length: int) -> None:
        del self.ids[row][length:]

    def sample(
        self, sampling: Sampling, streams: Sequence[np.random.Generator], rows: Sequence[int] | None = None
    ) -> list[Completion]:
        chosen = list(range(len(self.ids)) if rows is None else rows)
        completions: list[Completion] = self.engine.start([self.ids[row] for row in chosen]).sample(sampling, streams)
        for row, completion in zip(chosen, completions, strict=True):
            self.ids[row].extend(completion.ids)
        return completions
