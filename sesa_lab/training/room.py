"""How much room an answer takes: positions of the model, and memory while many are drawn side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sesa_lab.config import SamplerConfig
from sesa_lab.errors import InputError
from sesa_lab.policies import Policy
from sesa_lab.prompts import Speaker
from sesa_lab.samplers import Request
from sesa_lab.types import Task

ROWS = 1024  # most answers drawn side by side
CPU_BYTES = 2 * 2**30  # what they may take on a CPU; on a GPU a share of its memory
GPU_SHARE = 0.25
# Both are fixed numbers, not what is free at the moment: how many rows share a forward pass shows in the last bits.


@dataclass(frozen=True)
class Extent:
    """The longest dialogue, in tokens.

    Attributes:
        opening: the prompt, with the sketch to be followed where there is one.
        turn: what the policy says in one turn.
        between: what comes between two turns: an observation and, where each turn drafts its own, a sketch.
        turns: how many turns.
    """

    opening: int
    turn: int
    between: int
    turns: int

    @property
    def tokens(self) -> int:
        return self.opening + self.turns * self.turn + (self.turns - 1) * self.between


def extent(speaker: Speaker, environment: Any, sampler: SamplerConfig, requests: Sequence[Request]) -> Extent:
    """The longest dialogue of these requests, every turn as long as it may be.

    Prompts are exact. A sketch counts with its token limit; observations are those of the first request's episode if nothing
    is said in it, which is an estimate. Earlier answers of a sequence are not counted.
    """
    opening = max(len(request.prompt_ids) for request in requests)
    if sampler.name == "sesa":
        guided = max(len(speaker.guided(request.task, "")) for request in requests)
        opening = max(opening, guided + sampler.sketch_tokens)
    between = _between(speaker, environment, sampler, requests[0].task) if environment.turns > 1 else 0
    return Extent(opening, sampler.max_tokens, between, environment.turns)


def _between(speaker: Speaker, environment: Any, sampler: SamplerConfig, task: Task) -> int:
    drafts = sampler.name == "sesa" and sampler.sketch_scope == "turn"
    longest, episode = 0, environment.reset(task)
    while not episode.over:
        episode = environment.step(episode, "")
        heard = speaker.observed("length", episode.observation, "turn_sketch" if drafts else "turn", task)
        longest = max(longest, len(heard))
    return longest + (sampler.sketch_tokens + len(speaker.observed("length", "", "turn_solve")) if drafts else 0)


def check(policy: Policy, need: Extent) -> None:
    """Refuse dialogues that the model's positions cannot hold.

    Raises:
        InputError: names the parts, and what to lower.
    """
    longest = int(policy.decoder.config.max_position_embeddings)
    if need.tokens <= longest:
        return
    if need.turns == 1:
        raise InputError(
            f"a prompt of {need.opening} tokens and sampler.max_tokens = {need.turn} make {need.tokens}, which exceeds the"
            f" model's {longest}; lower sampler.max_tokens"
        )
    raise InputError(
        f"an episode may grow to {need.tokens} tokens (a prompt of {need.opening}, {need.turns} turns of at most {need.turn},"
        f" about {need.between} between two turns), which exceeds the model's {longest}; lower sampler.max_tokens or the"
        " environment's turns"
    )


def rows_at_once(policy: Policy, need: Extent, group_size: int) -> int:
    """How many answers are drawn side by side: 1 .. ``ROWS``, as many as stay within the memory set aside for them.

    Bytes of one row: keys and values of all its tokens, twice, since the engine's cache grows by doubling; some 32 for each
    entry of the vocabulary, whose log-probs are worked out in several precisions; and four of the model's widest layers for
    each token read at once: its share of a prompt that ``group_size`` rows have in common, and an observation.
    """
    config = policy.decoder.config
    widest = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    read = math.ceil(need.opening / group_size) + need.between
    row = 2 * kept_bytes(policy) * need.tokens + 32 * config.vocab_size + 4 * widest * _item_bytes(policy) * read
    return max(1, min(ROWS, int(_budget(policy.device) // row)))


def kept_bytes(policy: Policy) -> int:
    """Bytes of the keys and values of one token, all layers together."""
    config = policy.decoder.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * width * _item_bytes(policy))


def _item_bytes(policy: Policy) -> int:
    return int(policy.head.weight.element_size())


def _budget(device: torch.device) -> float:
    if device.type == "cuda":
        return GPU_SHARE * float(torch.cuda.get_device_properties(device).total_memory)
    return float(CPU_BYTES)
