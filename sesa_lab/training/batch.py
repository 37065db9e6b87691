"""Candidates as tensors: what one optimiser step trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sesa_lab.policies import Rows, pack
from sesa_lab.types import Candidate, Context


def training_context(candidate: Candidate, conditioning: str) -> Context:
    """The context whose likelihood is trained; a candidate drawn under the task alone has no other."""
    return candidate.trained_under.get(conditioning, candidate.trained_under["task"])


@dataclass(frozen=True)
class Batch:
    """Part of a rollout in the order given.

    Attributes:
        rows: packed sequences; ``rows.sequence`` is the index among the batch's candidates.
        drawn: (N,) log-probs, policy when drawn, drawing context.
        advantage: (C,).
        off_policy: (C,) bool, drawn under another context than trained under.
        lengths: (C,) tokens a completion.
    """

    rows: Rows
    drawn: torch.Tensor
    advantage: torch.Tensor
    off_policy: torch.Tensor
    lengths: torch.Tensor


def make_batch(
    candidates: Sequence[Candidate], advantages: Sequence[float], conditioning: str, device: torch.device
) -> Batch:
    """Pack candidates under their training contexts.

    Args:
        candidates: C of them, of any groups.
        advantages: one a candidate.
        conditioning: ``task`` or ``history``.
        device: where the loss is computed.
    """
    contexts = [training_context(c, conditioning) for c in candidates]
    off_policy = [context != c.drawn_under for context, c in zip(contexts, candidates, strict=True)]
    drawn = [logprob for c in candidates for logprob in c.completion.logprobs]
    return Batch(
        rows=pack([context.ids for context in contexts], [c.completion.ids for c in candidates]),
        drawn=torch.tensor(drawn, dtype=torch.float32, device=device),
        advantage=torch.tensor(advantages, dtype=torch.float32, device=device),
        off_policy=torch.tensor(off_policy, dtype=torch.bool, device=device),
        lengths=torch.tensor([len(c.completion.ids) for c in candidates], device=device),
    )
