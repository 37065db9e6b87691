"""Log-probs of given tokens under a policy, with gradients where wanted.

Sequences are packed before the forward pass: a sequence that is the beginning of another, or equal to it, needs no row of
its own, because a causal model's prediction at a position depends on the tokens before it only. So the repeats of a
collapsed group cost nothing, and neither do the nested contexts of a sequentially drawn group.

Shape legend: S sequences, R rows, T longest row, N scored tokens, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.utils.checkpoint import checkpoint

from sesa_lab.policies.load import Policy

PART = 2048  # tokens of a forward pass, padding included, where the caller does not say
CHUNK = 1 << 22  # logits held at once: tokens x vocabulary


@dataclass(frozen=True)
class Rows:
    """Packed sequences.

    Attributes:
        ids: (R, T) token ids, padded on the right with 0. Padding needs no mask: nothing scored can see it.
        row: (N,) row of each scored token.
        column: (N,) its column; its prediction is read one column earlier.
        sequence: (N,) which of the S given sequences it belongs to; tokens of one sequence stand together, in order.
        tokens: tokens in the rows without padding, the work of one forward pass.
    """

    ids: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor
    sequence: torch.Tensor
    tokens: int

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
            ids = self.ids[start : start + size]
            parts.append((Rows(ids, self.row[index] - start, self.column[index], self.sequence[index], 0), index))
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
    return Rows(ids, torch.tensor(row), torch.tensor(column), torch.tensor(sequence), sum(map(len, packed)))


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


def _head(
    hidden: torch.Tensor, targets: torch.Tensor, head: torch.nn.Module, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = head(hidden).float() / temperature  # (n, V)
    logprobs = logits.log_softmax(-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    return logprobs.gather(-1, targets[:, None]).squeeze(-1), entropy
