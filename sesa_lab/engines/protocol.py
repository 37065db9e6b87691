"""What every engine offers. A dialogue only grows at its end, so an engine may keep whatever it computed of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sesa_lab.types import Completion


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn: from softmax(logits / temperature), nothing cut off.

    Attributes:
        max_tokens: most tokens a completion, the stop token included.
        stop_ids: token ids that end a completion; the stop token is kept as its last token.
        temperature: softmax temperature, > 0.
        stop_text: a text that ends a completion too; the token that completes it is the last one. Empty: none.
    """

    max_tokens: int
    stop_ids: tuple[int, ...]
    temperature: float = 1.0
    stop_text: str = ""


@dataclass
class Counters:
    """What an engine has done so far: tokens read into its cache without being drawn, and tokens drawn."""

    prefilled: int = 0
    sampled: int = 0


class Session(Protocol):
    """Rows of tokens under way, each with its own length."""

    def context(self, row: int) -> tuple[int, ...]:
        """All token ids of a row so far."""

    def fork(self, rows: Sequence[int]) -> Session:
        """A new session whose row i is a copy of row ``rows[i]``; shared work is not done again."""

    def sample(
        self, sampling: Sampling, streams: Sequence[np.random.Generator], rows: Sequence[int] | None = None
    ) -> list[Completion]:
        """Draw one completion for each of ``rows`` (all rows if None) and append it to the row.

        Args:
            sampling: how.
            streams: one generator a drawn row. A row's draws depend on its own generator and context only, never on
                the rows beside it.
            rows: distinct row numbers.

        Returns:
            Completions with log-probs under the current weights and this row's context, of the distribution sampled
            from (after temperature).
        """

    def append(self, tokens: Sequence[Sequence[int]]) -> None:
        """Append given tokens to every row (one list a row, possibly empty)."""

    def rewind(self, row: int, length: int) -> None:
        """Forget everything of a row beyond its first ``length`` tokens (1 <= length <= its length)."""


class Engine(Protocol):
    """Starts sessions.

    Attributes:
        counters: what it has done.
        foreign: its log-probs are computed by other code than the trainer's, on a copy of the weights: an update measures by
            how much they differ (``training.mismatch``).
    """

    counters: Counters
    foreign: bool

    def synced(self) -> AbstractContextManager[None]:
        """Within the block the engine draws from the policy's weights as they were when it was entered.

        Sessions are started, and drawn from, within one block.

        Raises:
            InputError: the weights cannot be brought to where they are drawn from.
        """

    def close(self) -> None:
        """Gives back memory, folders and processes. The engine is not used afterwards; closing twice does no harm."""

    def start(self, contexts: Sequence[Sequence[int]]) -> Session:
        """A session with one row a context, read in once."""
