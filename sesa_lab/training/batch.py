"""Candidates and sketches as tensors: what one optimiser step trains.

An *item* is one likelihood to be trained: all the policy's tokens of a candidate under one kind of context, or those of a
sketch. A candidate trained under a weighted sum of two likelihoods is two items. A turn of an item is a packed sequence of
its own; turns of an episode nest in one another, so packing runs them as one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sesa_lab.config import Config, UpdateConfig
from sesa_lab.policies import Rows, pack
from sesa_lab.training import losses
from sesa_lab.types import Candidate, Context, Sketch, Turn


@dataclass(frozen=True)
class Item:
    """One likelihood to be trained.

    Attributes:
        turns: the policy's words.
        kind: the context they are trained under.
        member: number of the candidate, or of the sketch, among those of the optimiser step.
        advantage: of its group's rewards.
        weight: factor of its loss.
        is_sketch: a sketch's item.
        is_second: the second likelihood of a candidate that has two.
    """

    turns: tuple[Turn, ...]
    kind: str
    member: int
    advantage: float
    weight: float = 1.0
    is_sketch: bool = False
    is_second: bool = False

    def context(self, turn: Turn) -> Context:
        return turn.trained_under[self.kind]


def training_kinds(candidate: Candidate, conditioning: str) -> list[str]:
    """Kinds of the contexts a candidate is trained under, the first one first.

    ``task+sketch`` names two. A candidate without the second, drawn under the task alone, has the first only; one that lacks
    the only one named is trained under the task.
    """
    known = candidate.turns[0].trained_under
    first, _, second = conditioning.partition("+")
    return [first if first in known else "task", *([second] if second in known else [])]


def items_of(
    config: UpdateConfig,
    candidates: Sequence[Candidate],
    advantages: Sequence[float],
    transfers: Sequence[bool] = (),
    sketches: Sequence[Sketch] = (),
    sketch_advantages: Sequence[float] = (),
) -> list[Item]:
    """All items of an optimiser step: first terms of all candidates, then second ones, then sketches.

    Args:
        config: ``conditioning`` and the weights are used.
        candidates: of all groups.
        advantages: theirs.
        transfers: whether each one's advantage counts for its first likelihood; empty: all do.
        sketches: those that are trained.
        sketch_advantages: theirs.
    """
    first, second = [], []
    counts = transfers or [True] * len(candidates)
    for n, (candidate, advantage, transfer) in enumerate(zip(candidates, advantages, counts, strict=True)):
        kind, *more = training_kinds(candidate, config.conditioning)
        first.append(Item(candidate.turns, kind, n, advantage if transfer else 0.0))
        second += [Item(candidate.turns, other, n, advantage, config.context_weight, is_second=True) for other in more]
    drafts = [
        Item((sketch.turn,), "draft", n, advantage, config.sketch_weight, is_sketch=True)
        for n, (sketch, advantage) in enumerate(zip(sketches, sketch_advantages, strict=True))
    ]
    return first + second + drafts


@dataclass(frozen=True)
class Batch:
    """The items of one optimiser step in the order given.

    Attributes:
        rows: packed sequences; ``rows.sequence`` is the number of a turn, counted through all items.
        item: (turns,) the item that a turn belongs to.
        drawn: (N,) log-probs, policy when drawn, drawing context.
        advantage: (I,).
        off_policy: (I,) bool, drawn under another context than trained under.
        scale: (I,) factor of each of its tokens' terms, so that the loss of the step is a plain sum over tokens.
        engine: (N,) what the engine said of the tokens where its log-probs are not the trainer's, else as ``drawn``.
    """

    rows: Rows
    item: torch.Tensor
    drawn: torch.Tensor
    advantage: torch.Tensor
    off_policy: torch.Tensor
    scale: torch.Tensor
    engine: torch.Tensor


def make_batch(items: Sequence[Item], scale: torch.Tensor, device: torch.device) -> Batch:
    """Pack items under their training contexts.

    Args:
        items: of one optimiser step, or those of them that have a gradient.
        scale: (I,) theirs, as ``token_scale`` gives it for the whole optimiser step.
        device: where the loss is computed.
    """
    turns = [(n, item, turn) for n, item in enumerate(items) for turn in item.turns]
    off_policy = [any(item.context(turn) != turn.drawn_under for turn in item.turns) for item in items]
    drawn = [logprob for _, _, turn in turns for logprob in turn.completion.logprobs]
    engine = [p for _, _, turn in turns for p in turn.completion.engine_logprobs or turn.completion.logprobs]
    return Batch(
        rows=pack([item.context(turn).ids for _, item, turn in turns], [turn.completion.ids for _, _, turn in turns]),
        item=torch.tensor([n for n, _, _ in turns], device=device),
        drawn=torch.tensor(drawn, dtype=torch.float32, device=device),
        advantage=torch.tensor([item.advantage for item in items], dtype=torch.float32, device=device),
        off_policy=torch.tensor(off_policy, dtype=torch.bool, device=device),
        scale=scale.to(device),
        engine=torch.tensor(engine, dtype=torch.float32, device=device),
    )


def token_scale(config: Config, items: Sequence[Item], mean_sketches: float | None = None) -> torch.Tensor:
    """(I,) factor of each of an item's tokens: its weight x its member's token weight.

    Token weights are worked out over the candidates, each counted once however many items it is, and apart from them over the
    sketches: so a second likelihood, or sketches, change nothing in the first one's term.

    Args:
        config: ``update``, ``sampler.max_tokens`` and ``sampler.sketch_tokens`` are used.
        items: those of a whole optimiser step.
        mean_sketches: sketches an optimiser step, on average over the minibatches, which need not divide them as they do the
            candidates. Where this step has fewer or more, their mean weighs in proportion, so that each sketch counts the same
            in whichever it lies. None: as many as this step has.
    """
    scale = torch.empty(len(items))
    for sketches, longest in ((False, config.sampler.max_tokens), (True, config.sampler.sketch_tokens)):
        lengths = {item.member: _length(item) for item in items if item.is_sketch is sketches}
        if lengths:
            weights = losses.token_weights(config.update, torch.tensor(list(lengths.values())), longest)
            if sketches and mean_sketches is not None:
                weights = weights * (len(lengths) / mean_sketches)
            of_member = dict(zip(lengths, weights, strict=True))
            for n, item in enumerate(items):
                if item.is_sketch is sketches:
                    scale[n] = of_member[item.member] * item.weight
    return scale


def _length(item: Item) -> int:
    return sum(len(turn.completion.ids) for turn in item.turns)
