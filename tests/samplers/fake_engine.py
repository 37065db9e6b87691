"""An engine without a model: what it draws is read off the row's stream, and everything asked of it is written down."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from sesa_lab.engines import Counters, Sampling
from sesa_lab.types import Completion

STOP = 1
WORDS = {10: "red", 11: "blue", 12: "green"}


class FakeEngine:
    """Answers one of ``WORDS`` and the stop token, or with ``cut`` three words that the token limit cuts.

    Attributes:
        drawn: (context, completion) of every draw, in order.
        rewound: (length before, length after) of every rewind.
        batches: rows of every call of sample.
        started: contexts of every session.
        samplings: how, for every call of sample.
    """

    foreign = False

    def __init__(self, cut: Sequence[int] = ()) -> None:
        self.counters = Counters()
        self.cut = set(cut)  # numbers of the draws that the token limit cuts, counted over all rows
        self.drawn: list[tuple[tuple[int, ...], Completion]] = []
        self.rewound: list[tuple[int, int]] = []
        self.batches: list[list[int]] = []
        self.started: list[list[tuple[int, ...]]] = []
        self.samplings: list[Sampling] = []

    def synced(self) -> AbstractContextManager[None]:
        return nullcontext()

    def close(self) -> None: ...

    def start(self, contexts: Sequence[Sequence[int]]) -> FakeSession:
        assert all(contexts), "an engine has nothing to predict from in an empty context"
        self.started.append([tuple(context) for context in contexts])
        self.counters.prefilled += sum(map(len, contexts))
        return FakeSession(self, [list(context) for context in contexts])


class FakeSession:
    def __init__(self, engine: FakeEngine, ids: list[list[int]]) -> None:
        self.engine, self.ids = engine, ids

    def context(self, row: int) -> tuple[int, ...]:
        return tuple(self.ids[row])

    def fork(self, rows: Sequence[int]) -> FakeSession:
        return FakeSession(self.engine, [list(self.ids[row]) for row in rows])

    def append(self, tokens: Sequence[Sequence[int]]) -> None:
        for row, new in zip(self.ids, tokens, strict=True):
            row.extend(new)

    def rewind(self, row: int, length: int) -> None:
        assert 1 <= length <= len(self.ids[row])
        self.engine.rewound.append((len(self.ids[row]), length))
        del self.ids[row][length:]

    def sample(
        self, sampling: Sampling, streams: Sequence[np.random.Generator], rows: Sequence[int] | None = None
    ) -> list[Completion]:
        rows = list(range(len(self.ids)) if rows is None else rows)
        self.engine.batches.append(rows)
        self.engine.samplings.append(sampling)
        found = []
        for row, stream in zip(rows, streams, strict=True):
            word = 10 + int(stream.integers(3))
            cut = len(self.engine.drawn) in self.engine.cut
            ids = (word,) * 3 if cut else (word, sampling.stop_ids[0])
            text = " ".join([WORDS[word]] * (3 if cut else 1))
            completion = Completion(ids, tuple(-0.5 for _ in ids), text, "length" if cut else "stop")
            self.engine.drawn.append((self.context(row), completion))
            self.engine.counters.sampled += len(ids)
            self.ids[row].extend(ids)
            found.append(completion)
        return found
