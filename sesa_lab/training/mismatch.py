"""Engines that compute log-probs by other code than the trainer: by how much the two differ, measured on every step.

An engine with its own copy of the weights rounds otherwise, or stores them in fewer bits. Candidates are then drawn from
q_engine, while the update's ratios are of the trainer's policy. Here the trainer works out q, its own log-probs of the same tokens
under the same drawing context, and these take the place of the engine's: everything after says what it says with engine torch,
and q / q_engine is a correction of its own (``update.mismatch``), apart from that for the contexts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from sesa_lab.config import Config
from sesa_lab.diversity import effective_sample_size
from sesa_lab.policies import Policy, pack, token_logprobs
from sesa_lab.team import ALONE, Team
from sesa_lab.training.lockstep import in_step
from sesa_lab.types import Completion, Scored, Turn


def recomputed(policy: Policy, config: Config, scored: Sequence[Scored], team: Team = ALONE) -> list[Scored]:
    """The same groups with the trainer's log-probs in place of the engine's, which are kept as ``engine_logprobs``.

    Args:
        policy: as it was when the groups were drawn.
        config: ``sampler.temperature`` and ``update.micro_batch`` are used.
        scored: groups drawn by an engine of other weights.
        team: those that call this at once, each with its own groups.
    """
    turns = [turn for s in scored for turn in _turns(s)]
    contexts, completions = [turn.drawn_under.ids for turn in turns], [turn.completion.ids for turn in turns]
    parts = iter(logprobs(policy, config, contexts, completions, team))
    return [_replaced(s, parts) for s in scored]


@torch.no_grad()
def logprobs(
    policy: Policy,
    config: Config,
    contexts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    team: Team = ALONE,
) -> tuple[torch.Tensor, ...]:
    """Log-probs of the tokens of each completion under its context (nats), on the CPU.

    Args:
        policy: as it is now.
        config: as in ``recomputed``.
        contexts, completions: token ids, one pair a completion.
        team: as in ``recomputed``.
    """
    rows = pack(contexts, completions)
    own = torch.empty(len(rows.row))
    passes = rows.split(config.update.micro_batch)
    with in_step(policy, config, team, len(passes)):
        for part, index in passes:
            own[index] = token_logprobs(policy, part, config.sampler.temperature)[0].cpu()
    found: tuple[torch.Tensor, ...] = own.split([len(completion) for completion in completions])
    return found


def _turns(scored: Scored) -> Iterator[Turn]:
    yield from (turn for candidate in scored.group.candidates for turn in candidate.turns)
    yield from (sketch.turn for sketch in scored.group.sketches)


def _replaced(scored: Scored, own: Iterator[torch.Tensor]) -> Scored:
    """Takes as many of ``own`` as ``_turns`` gives, in that order."""
    candidates = tuple(
        dataclasses.replace(candidate, turns=tuple(_turn(turn, next(own)) for turn in candidate.turns))
        for candidate in scored.group.candidates
    )
    sketches = tuple(dataclasses.replace(s, turn=_turn(s.turn, next(own))) for s in scored.group.sketches)
    return dataclasses.replace(
        scored, group=dataclasses.replace(scored.group, candidates=candidates, sketches=sketches)
    )


def _turn(turn: Turn, own: torch.Tensor) -> Turn:
    said = turn.completion
    kept = dataclasses.replace(said, logprobs=tuple(own.tolist()), engine_logprobs=said.logprobs)
    return dataclasses.replace(turn, completion=kept)


def mismatch_measures(scored: Sequence[Scored]) -> dict[str, float]:
    """How far the engine's log-probs are from the trainer's, of the same tokens, weights and contexts.

    ``mismatch_mean`` and ``mismatch_max``: absolute difference, nats a token, over all that was drawn, sketches included.
    ``mismatch_ess``: effective sample size of the candidates weighted by q / q_engine over all their tokens, as a share: 1 where
    the two agree, 1 / n where a single candidate outweighs all others. NaN where the engine draws from the trained weights.
    """
    said = [turn.completion for s in scored for turn in _turns(s)]
    if not said or not said[0].engine_logprobs:
        return dict.fromkeys(("mismatch_mean", "mismatch_max", "mismatch_ess"), float("nan"))
    difference = np.abs(np.concatenate([_difference(completion) for completion in said]))
    whole = [
        sum(_difference(turn.completion).sum() for turn in candidate.turns)
        for s in scored
        for candidate in s.group.candidates
    ]
    return {
        "mismatch_mean": float(difference.mean()),
        "mismatch_max": float(difference.max()),
        "mismatch_ess": effective_sample_size(np.exp(whole)),
    }


def _difference(completion: Completion) -> np.ndarray:
    """(tokens,) log q - log q_engine."""
    return np.subtract(completion.logprobs, completion.engine_logprobs)
