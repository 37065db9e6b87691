"""Log-probs of given tokens under a policy, with gradients where wanted.

Sequences are packed before the forward pass: a sequence that is the beginning of another, or equal to it, needs no row of
its own, because a causal model's prediction at a position depends on the tokens before it only. So the repeats of a
collapsed group cost nothing, and neither do the nested contexts of a sequentially drawn group. A long context that many
rows share is run once; its keys and values stand before each row's own tokens, and gradients flow back through them.

Shape legend: S sequences, R rows, T longest row, N scored tokens, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.cache_utils import Cache, DynamicLayer

from sesa_lab.policies.attention import FULL, layer_kinds, mask_for
from sesa_lab.policies.load import Policy
from sesa_lab.policies.memory import CHUNK, PART
from sesa_lab.policies.shard import sharded

SHARE = 1024  # tokens that sharing contexts must save, else the plain forward pass is as quick


@dataclass(frozen=True)
class Rows:
    """Packed sequences.

    Attributes:
        ids: (R, T) token ids, padded on the right with 0. Padding needs no mask: nothing scored can see it.
        row: (N,) row of each scored token.
        column: (N,) its column; its prediction is read one column earlier.
        sequence: (N,) which of the S given sequences it belongs to; tokens of one sequence stand together, in order.
        tokens: tokens that one forward pass computes, padding left out.
        lengths: (R,) tokens of each row.
        prefixes: distinct contexts that are run once; empty where sharing would save little (see ``SHARE``).
        prefix: (R,) which of them a row begins with; empty where there are none.
    """

    ids: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor
    sequence: torch.Tensor
    tokens: int
    lengths: torch.Tensor
    prefixes: tuple[tuple[int, ...], ...]
    prefix: torch.Tensor

    def split(self, size: int) -> list[tuple[Rows, torch.Tensor]]:
        """Parts of at most ``size`` rows, each with the (n,) indices of its tokens among the N.

        Size 0: as many rows as hold about ``PART`` tokens; activations then stay in the processor's cache.

        All tokens of a sequence lie in one row, hence in one part; sequence numbers stay those of the whole.
        """
        size = size or max(1, PART // self.ids.shape[1])
        if size >= len(self.ids):
            return [(self, torch.arange(len(self.row)))]
        parts = []
        for start in range(0, len(self.ids), size):
            index = ((self.row >= start) & (self.row < start + size)).nonzero().squeeze(-1)
            rows = slice(start, start + size)
            used = self.prefix[rows].unique() if self.prefixes else self.prefix
            part = Rows(
                ids=self.ids[rows],
                row=self.row[index] - start,
                column=self.column[index],
                sequence=self.sequence[index],
                tokens=0,
                lengths=self.lengths[rows],
                prefixes=tuple(self.prefixes[i] for i in used.tolist()),
                prefix=torch.searchsorted(used, self.prefix[rows]) if self.prefixes else self.prefix,
            )
            parts.append((part, index))
        return parts


def pack(contexts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> Rows:
    """Rows for S pairs of context and completion; every token of a completion is scored, none of a context.

    Raises:
        ValueError: an empty context (its first token would have no prediction), or lists of different length.
    """
    if len(contexts) != len(completions) or any(len(context) == 0 for context in contexts):
        raise ValueError("pack: expected as many non-empty contexts as completions")
    full = [(*context, *completion) for context, completion in zip(contexts, completions, strict=True)]
    order = sorted(range(len(full)), key=lambda s: full[s])
    packed: list[tuple[int, ...]] = []
    row_of = [0] * len(full)
    for s in reversed(order):  # in lexicographic order a prefix stands right before what continues it
        if not packed or packed[-1][: len(full[s])] != full[s]:
            packed.append(full[s])
        row_of[s] = len(packed) - 1
    ids = torch.zeros(len(packed), max(map(len, packed)), dtype=torch.long)
    for r, tokens in enumerate(packed):
        ids[r, : len(tokens)] = torch.tensor(tokens)
    row: list[int] = []
    column: list[int] = []
    sequence: list[int] = []
    for s, (context, completion) in enumerate(zip(contexts, completions, strict=True)):
        row += [row_of[s]] * len(completion)
        column += range(len(context), len(context) + len(completion))
        sequence += [s] * len(completion)
    lengths = [len(tokens) for tokens in packed]
    prefixes, prefix = _shared(contexts, row_of, len(packed))
    saved = sum(len(prefixes[i]) for i in prefix) - sum(map(len, prefixes))
    return Rows(
        ids=ids,
        row=torch.tensor(row),
        column=torch.tensor(column),
        sequence=torch.tensor(sequence),
        tokens=sum(lengths) - saved,
        lengths=torch.tensor(lengths),
        prefixes=prefixes,
        prefix=torch.tensor(prefix, dtype=torch.long),
    )


def _shared(
    contexts: Sequence[Sequence[int]], row_of: Sequence[int], count: int
) -> tuple[tuple[tuple[int, ...], ...], list[int]]:
    """Distinct contexts and which one each row begins with; nothing where a row holds several contexts or little is saved."""
    of_row: list[tuple[int, ...] | None] = [None] * count
    for context, r in zip(contexts, row_of, strict=True):
        if of_row[r] not in (None, tuple(context)):
            return (), []
        of_row[r] = tuple(context)
    found = [context for context in of_row if context is not None]
    prefixes = tuple(dict.fromkeys(found))
    if sum(map(len, found)) - sum(map(len, prefixes)) < SHARE:
        return (), []
    return prefixes, [prefixes.index(context) for context in found]


def token_logprobs(policy: Policy, rows: Rows, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-prob and entropy at every scored token, of the policy's softmax at ``temperature``.

    Args:
        policy: the policy as it is now (adapter on, off or merged).
        rows: packed sequences.
        temperature: the logits are divided by it, as when the tokens were drawn.

    Returns:
        (N,) log-probs and (N,) entropies over the vocabulary, nats, float32; differentiable. Logits are made in chunks
        of at most ``CHUNK`` numbers and made again in the backward pass, so no R x T x V tensor exists.
    """
    device = policy.device
    ids = rows.ids.to(device)
    # A window's mask is made by the model alone; where layers are spread over processes all must make equally many passes.
    if rows.prefixes and layer_kinds(policy.decoder.config) == [FULL] and not sharded(policy):
        selected = _hidden_after_prefixes(policy, rows, ids)
    else:
        hidden = policy.decoder(input_ids=ids, use_cache=False).last_hidden_state  # (R, T, H)
        selected = hidden[rows.row.to(device), rows.column.to(device) - 1]  # (N, H)
    targets = ids[rows.row.to(device), rows.column.to(device)]  # (N,)
    size = max(1, CHUNK // policy.head.weight.shape[0])
    if len(targets) <= size:
        return _head(selected, targets, policy.head, temperature)
    parts = [
        checkpoint(_head, h, t, policy.head, temperature, use_reentrant=False)
        for h, t in zip(selected.split(size), targets.split(size), strict=True)
    ]
    return torch.cat([logprob for logprob, _ in parts]), torch.cat([entropy for _, entropy in parts])


def _hidden_after_prefixes(policy: Policy, rows: Rows, ids: torch.Tensor) -> torch.Tensor:
    """(N, H) hidden states that predict the scored tokens; each prefix is run once, then each row's own tokens.

    U prefixes of at most P tokens; Q own tokens a row, its last one left out: nothing is predicted from it.
    """
    device = ids.device
    size = torch.tensor([len(prefix) for prefix in rows.prefixes], device=device)  # (U,)
    width = int(size.max())
    padded = torch.tensor(
        [[*prefix, *[0] * (width - len(prefix))] for prefix in rows.prefixes], device=device
    )  # (U, P)
    cache, config, dtype = _PrefixCache(policy), policy.decoder.config, policy.head.weight.dtype
    place = torch.arange(width, device=device)
    causal = (place[None, :] <= place[:, None]).expand(len(size), 1, width, width)
    first = policy.decoder(
        input_ids=padded, position_ids=place.expand(len(size), width), attention_mask=mask_for(config, causal, dtype),
        past_key_values=cache, use_cache=True,
    ).last_hidden_state  # fmt: skip
    last = first[torch.arange(len(size), device=device), size - 1]  # (U, H)

    group = rows.prefix.to(device)
    begin = size[group]  # (R,)
    own = max(int((rows.lengths.to(device) - begin).max()) - 1, 1)
    column = begin[:, None] + torch.arange(own, device=device)  # (R, Q)
    tokens = ids.gather(1, column.clamp(max=ids.shape[1] - 1))
    before = (place[None, :] < begin[:, None])[:, None, :].expand(-1, own, -1)
    within = torch.ones(own, own, dtype=torch.bool, device=device).tril().expand(len(group), own, own)
    seen = torch.cat([before, within], -1)[:, None]
    hidden = policy.decoder(
        input_ids=tokens, position_ids=column, attention_mask=mask_for(config, seen, dtype),
        past_key_values=_PrefixCache(policy, cache.kept, group), use_cache=True,
    ).last_hidden_state  # fmt: skip
    joined = torch.cat([last[group][:, None], hidden], 1)  # (R, 1 + Q, H): after the prefix, after own token 0, 1, ...
    row = rows.row.to(device)
    return joined[row, rows.column.to(device) - begin[row]]


class _PrefixCache(Cache):
    """Keeps the keys and values of a first pass, differentiably; one made of them puts them before each row's own in a second.

    Two objects, so that a layer of the first pass which is computed again in the backward pass meets what it met before.
    """

    def __init__(
        self,
        policy: Policy,
        kept: dict[int, tuple[torch.Tensor, torch.Tensor]] | None = None,
        group: torch.Tensor | None = None,
    ) -> None:
        super().__init__(layers=[DynamicLayer() for _ in range(policy.decoder.config.num_hidden_layers)])
        self.kept = {} if kept is None else kept
        self.group = group

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.group is None:
            self.kept.setdefault(layer_idx, (key_states, value_states))
            return key_states, value_states
        keys, values = (kept.index_select(0, self.group) for kept in self.kept[layer_idx])
        return torch.cat([keys, key_states], 2), torch.cat([values, value_states], 2)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0


def _head(
    hidden: torch.Tensor, targets: torch.Tensor, head: torch.nn.Module, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = head(hidden).float() / temperature  # (n, V)
    logprobs = logits.log_softmax(-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    return logprobs.gather(-1, targets[:, None]).squeeze(-1), entropy
