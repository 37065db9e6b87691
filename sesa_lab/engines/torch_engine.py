"""The in-process engine: plain torch on the policy's own weights.

Slot t of a row's key-value cache holds the token at position t of that row, whatever its neighbours' lengths. So rows of
different length need no padding inside the cache, a row continues where it stopped, going back is setting its length, and
finished rows simply leave the batch: those that go on are swapped to the front of the cache, so that it is read in place.

Shape legend: n rows in a forward pass, q new tokens a row, L slots, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache, DynamicLayer

from sesa_lab.engines.protocol import Counters, Sampling
from sesa_lab.engines.tokens import check_contexts, completes, completion
from sesa_lab.errors import InputError
from sesa_lab.policies import Policy, merged
from sesa_lab.policies.attention import FULL, layer_kinds
from sesa_lab.types import Completion


class TorchEngine:
    """Draws from a policy's weights as they are at the time of the call, within ``synced`` the sooner."""

    foreign = False

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.counters = Counters()
        config = policy.decoder.config
        self.longest = policy.positions
        kinds = layer_kinds(config)
        if kinds != [FULL]:
            raise InputError(
                f"model {policy.folder} has layers of kind {kinds}; this engine needs full attention: draw by engine.name"
                " 'vllm' or 'server'"
            )
        attention = getattr(config, "_attn_implementation", "sdpa")
        if attention != "sdpa":  # others add the boolean mask made below as numbers, or pass over it
            raise InputError(
                f"model {policy.folder} computes attention by {attention!r}; this engine needs 'sdpa': set policy.attention ="
                " 'sdpa', or draw by engine.name 'vllm' or 'server'"
            )

    def synced(self) -> AbstractContextManager[None]:
        """The adapter merged into the base: the weights are the policy's anyway."""
        return merged(self.policy.model)

    def close(self) -> None:
        """Nothing to give back: the weights are the policy's."""

    @torch.inference_mode()
    def start(self, contexts: Sequence[Sequence[int]]) -> TorchSession:
        """A session with one row a context. Equal contexts are read in once."""
        check_contexts(contexts)
        self.check_room(max(map(len, contexts)))
        unique = list(dict.fromkeys(tuple(context) for context in contexts))
        session = TorchSession(self, _SlotCache(self.policy, len(unique)), [[] for _ in unique])
        session.append(unique)
        session.prefill()
        return session.fork([unique.index(tuple(context)) for context in contexts])

    def check_room(self, tokens: int) -> None:
        """Raises ``InputError`` where the model has fewer than ``tokens`` positions."""
        if tokens > self.longest:
            raise InputError(
                f"a context of {tokens} tokens (history and sampler.max_tokens included) exceeds the model's"
                f" {self.longest}; use a smaller sampler.group_size or sampler.max_tokens"
            )


class TorchSession:
    """See ``protocol.Session``. A row's last token is read in when the next one is drawn, with all that came between."""

    def __init__(self, engine: TorchEngine, cache: _SlotCache, ids: list[list[int]]) -> None:
        self.engine = engine
        self.cache = cache
        self.ids = ids
        self.read = [0] * len(ids)  # how many of a row's tokens are in the cache

    def context(self, row: int) -> tuple[int, ...]:
        return tuple(self.ids[row])

    def prefill(self) -> None:
        """Read in every row but its last token, so that forks share the work."""
        rows = self.cache.to_front([row for row, ids in enumerate(self.ids) if len(ids) > 1])
        if rows:
            self._read_in(rows, [self.ids[row][:-1] for row in rows])

    @torch.inference_mode()
    def fork(self, rows: Sequence[int]) -> TorchSession:
        copy = TorchSession(self.engine, self.cache.select(rows), [list(self.ids[row]) for row in rows])
        copy.read = [self.read[row] for row in rows]
        return copy

    def append(self, tokens: Sequence[Sequence[int]]) -> None:
        if len(tokens) != len(self.ids):
            raise ValueError(f"append: expected {len(self.ids)} lists of tokens, got {len(tokens)}")
        for row, new in zip(self.ids, tokens, strict=True):
            row.extend(new)
            self.engine.counters.prefilled += len(new)

    def rewind(self, row: int, length: int) -> None:
        if not 1 <= length <= len(self.ids[row]):
            raise ValueError(f"rewind: row {row} has {len(self.ids[row])} tokens, cannot keep {length}")
        del self.ids[row][length:]
        self.read[row] = min(self.read[row], length)

    @torch.inference_mode()
    def sample(
        self, sampling: Sampling, streams: Sequence[np.random.Generator], rows: Sequence[int] | None = None
    ) -> list[Completion]:
        active = list(range(len(self.ids)) if rows is None else rows)
        self.engine.check_room(max(len(self.ids[row]) for row in active) + sampling.max_tokens)
        uniforms = {row: stream.random(sampling.max_tokens) for row, stream in zip(active, streams, strict=True)}
        start = {row: len(self.ids[row]) for row in active}
        logprobs: dict[int, list[float]] = {row: [] for row in active}
        order, step = list(active), 0
        while active:
            active = self.cache.to_front(active)
            hidden = self._read_in(active, [self.ids[row] for row in active])
            u = torch.tensor([uniforms[row][step] for row in active], dtype=torch.float64)
            tokens, drawn = _draw(self.engine.policy.head(hidden), u, sampling.temperature)
            for row, token, logprob in zip(active, tokens, drawn, strict=True):
                self.ids[row].append(token)
                logprobs[row].append(logprob)
            step += 1
            active = [
                row for row in active if step < sampling.max_tokens and not self._stopped(row, start[row], sampling)
            ]  # fmt: skip
        return [self._completion(row, start[row], logprobs[row], sampling) for row in order]

    def _stopped(self, row: int, start: int, sampling: Sampling) -> bool:
        ids = self.ids[row][start:]
        return ids[-1] in sampling.stop_ids or completes(self.engine.policy.tokenizer, ids, sampling.stop_text)

    def _completion(self, row: int, start: int, logprobs: list[float], sampling: Sampling) -> Completion:
        ids = tuple(self.ids[row][start:])
        self.engine.counters.sampled += len(ids)
        return completion(self.engine.policy.tokenizer, ids, logprobs, sampling)

    def _read_in(self, rows: Sequence[int], ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """Bring the cache of ``rows``, its first ones, up to their ``ids``; (n, H) hidden states at the last of them."""
        device = self.engine.policy.device
        begin = [min(self.read[row], len(tokens) - 1) for row, tokens in zip(rows, ids, strict=True)]
        new = [list(tokens[b:]) for tokens, b in zip(ids, begin, strict=True)]
        width = max(map(len, new))
        padded = torch.tensor([tokens + [0] * (width - len(tokens)) for tokens in new], device=device)  # (n, q)
        # Padding goes to slots beyond the row's end; no query of the row sees them before they are written again.
        slots = torch.tensor(begin, device=device)[:, None] + torch.arange(width, device=device)  # (n, q)
        extent = self.cache.aim(begin, slots)
        seen = torch.arange(extent, device=device)[None, None, None, :] <= slots[:, None, :, None]  # (n, 1, q, L)
        positions = slots.clamp(max=self.engine.longest - 1)  # only padding can lie beyond the last position
        hidden = self.engine.policy.decoder(
            input_ids=padded, position_ids=positions, attention_mask=seen, past_key_values=self.cache, use_cache=True
        ).last_hidden_state
        for row, tokens in zip(rows, ids, strict=True):
            self.read[row] = len(tokens)
        last = torch.tensor([len(tokens) - 1 for tokens in new], device=device)
        return hidden[torch.arange(len(rows), device=device), last]  # type: ignore[no-any-return]


def _draw(logits: torch.Tensor, u: torch.Tensor, temperature: float) -> tuple[list[int], list[float]]:
    """Inverse-CDF sampling: (n, V) logits, (n,) uniforms in [0, 1) -> token ids and their log-probs."""
    logprobs = (logits.float() / temperature).log_softmax(-1)
    cumulative = logprobs.double().exp().cumsum(-1)
    point = u.to(cumulative.device)[:, None] * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, point, right=True).clamp_(max=logits.shape[-1] - 1)
    return tokens.squeeze(-1).tolist(), logprobs.gather(-1, tokens).squeeze(-1).tolist()


class _SlotCache(Cache):
    """Keys and values by slot: one (rows, heads, L, D) buffer a layer, grown by doubling.

    Rows lie in any order (``place`` of each), so that those which a forward pass needs can be the first ones.
    """

    def __init__(self, policy: Policy, rows: int) -> None:
        self.depth = int(policy.decoder.config.num_hidden_layers)
        super().__init__(layers=[DynamicLayer() for _ in range(self.depth)])
        self.place = list(range(rows))
        self.keys: list[torch.Tensor | None] = [None] * self.depth
        self.values: list[torch.Tensor | None] = [None] * self.depth
        self.target: tuple[torch.Tensor, int | None, int] | None = None

    def to_front(self, rows: Sequence[int]) -> list[int]:
        """Make ``rows`` the first ones, moving as few as can be; returns them in the order in which they then lie."""
        wanted = set(rows)
        late = [row for row in rows if self.place[row] >= len(rows)]
        early = [row for row, place in enumerate(self.place) if place < len(rows) and row not in wanted]
        if late:
            here = [self.place[row] for row in (*late, *early)]
            there = [self.place[row] for row in (*early, *late)]
            for buffer in (*self.keys, *self.values):
                if buffer is not None:
                    buffer[there] = buffer[here]
            for a, b in zip(late, early, strict=True):
                self.place[a], self.place[b] = self.place[b], self.place[a]
        return sorted(rows, key=self.place.__getitem__)

    def aim(self, begin: Sequence[int], slots: torch.Tensor) -> int:
        """Say where the next forward pass of the first n rows writes: (n, q) ``slots``, each row's from ``begin`` on.

        Returns L, the slots it reads.
        """
        extent = max(begin) + slots.shape[1]
        self.target = (slots, begin[0] if min(begin) == max(begin) else None, extent)
        return extent

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._put(self.keys, key_states, layer_idx), self._put(self.values, value_states, layer_idx)

    def _put(self, buffers: list[torch.Tensor | None], new: torch.Tensor, layer: int) -> torch.Tensor:
        assert self.target is not None
        slots, common, extent = self.target
        buffer = buffers[layer]
        if buffer is None or buffer.shape[2] < extent:
            heads, size = new.shape[1], new.shape[3]
            grown = new.new_zeros(len(self.place), heads, max(32, 2 * extent), size)
            if buffer is not None:
                grown[:, :, : buffer.shape[2]] = buffer
            buffers[layer] = buffer = grown
        if common is not None:  # all rows stand at one slot: a plain copy, which is quicker
            buffer[: len(new), :, common:extent] = new
        else:
            index = torch.arange(len(new), device=new.device)
            buffer[index[:, None], :, slots] = new.transpose(1, 2)  # (n, q, heads, D)
        return buffer[: len(new), :, :extent]

    def select(self, rows: Sequence[int]) -> _SlotCache:
        """A copy whose row i is row ``rows[i]``."""
        copy = object.__new__(_SlotCache)
        copy.__dict__.update(self.__dict__)
        index = torch.tensor([self.place[row] for row in rows])
        copy.place, copy.target = list(range(len(rows))), None
        copy.keys = [None if k is None else k.index_select(0, index.to(k.device)) for k in self.keys]
        copy.values = [None if v is None else v.index_select(0, index.to(v.device)) for v in self.values]
        return copy

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0 if self.target is None else self.target[2]
