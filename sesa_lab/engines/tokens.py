"""What engines have in common: when a text ends a completion, and sessions of engines that find shared work by content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from sesa_lab.engines.protocol import Sampling
from sesa_lab.types import Completion


def completes(tokenizer: Any, ids: Sequence[int], text: str) -> bool:
    """Whether the last of ``ids`` completes ``text`` (no: it is empty).

    Only as many tokens are decoded as ``text`` has bytes, and one more: no token stands for less than one.
    """
    return bool(text) and text in tokenizer.decode(list(ids[-len(text.encode()) - 1 :]), skip_special_tokens=True)


def completion(tokenizer: Any, ids: Sequence[int], logprobs: Sequence[float], sampling: Sampling) -> Completion:
    """What was drawn, with its text and why it ended."""
    ids = tuple(ids)
    finish = "length"
    if ids[-1] in sampling.stop_ids:
        finish = "stop"
    elif completes(tokenizer, ids, sampling.stop_text):
        finish = "text"
    return Completion(ids, tuple(logprobs), tokenizer.decode(ids, skip_special_tokens=True), finish)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Drawn:
    """Token ids and their log-probs, of the distribution sampled from."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]


class Completer(Protocol):
    """An engine that takes whole contexts, and itself remembers what it has read."""

    tokenizer: Any

    def complete(self, contexts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]) -> list[Drawn]:
        """One completion a context, each by its own seed."""


def check_contexts(contexts: Sequence[Sequence[int]]) -> None:
    """Raises ``ValueError`` where no session can be started with these."""
    if not contexts or any(len(context) == 0 for context in contexts):
        raise ValueError("start: expected at least one context, none of them empty")


class TokenSession:
    """See ``protocol.Session``. Rows are lists of tokens; what they share is for the engine's prefix cache to find."""

    def __init__(self, engine: Completer, ids: list[list[int]]) -> None:
        self.engine = engine
        self.ids = ids

    @classmethod
    def start(cls, engine: Completer, contexts: Sequence[Sequence[int]]) -> TokenSession:
        """One row a context."""
        check_contexts(contexts)
        return cls(engine, [list(context) for context in contexts])

    def context(self, row: int) -> tuple[int, ...]:
        return tuple(self.ids[row])

    def fork(self, rows: Sequence[int]) -> TokenSession:
        return TokenSession(self.engine, [list(self.ids[row]) for row in rows])

    def append(self, tokens: Sequence[Sequence[int]]) -> None:
        if len(tokens) != len(self.ids):
            raise ValueError(f"append: expected {len(self.ids)} lists of tokens, got {len(tokens)}")
        for row, new in zip(self.ids, tokens, strict=True):
            row.extend(new)

    def rewind(self, row: int, length: int) -> None:
        if not 1 <= length <= len(self.ids[row]):
            raise ValueError(f"rewind: row {row} has {len(self.ids[row])} tokens, cannot keep {length}")
        del self.ids[row][length:]

    def sample(
        self, sampling: Sampling, streams: Sequence[np.random.Generator], rows: Sequence[int] | None = None
    ) -> list[Completion]:
        """See ``protocol.Session``. Each row's generator gives the engine one seed."""
        active = list(range(len(self.ids)) if rows is None else rows)
        seeds = [int(stream.integers(2**63)) for stream in streams]
        drawn = self.engine.complete([self.ids[row] for row in active], sampling, seeds)
        found = []
        for row, own in zip(active, drawn, strict=True):
            self.ids[row].extend(own.ids)
            found.append(completion(self.engine.tokenizer, own.ids, own.logprobs, sampling))
        return found
