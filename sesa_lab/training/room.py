"""How much room an answer takes: positions of the model, and memory while many are drawn side by side."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sesa_lab.config import Config, SamplerConfig
from sesa_lab.errors import InputError
from sesa_lab.policies import Policy, memory
from sesa_lab.policies.memory import Workload
from sesa_lab.prompts import Speaker
from sesa_lab.samplers import Request
from sesa_lab.samplers.sesa import shares
from sesa_lab.types import Completion, Task

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
        sketch: how many tokens of the opening are a sketch's.
    """

    opening: int
    turn: int
    between: int
    turns: int
    sketch: int = 0

    @property
    def tokens(self) -> int:
        return self.opening + self.turns * self.turn + (self.turns - 1) * self.between


def extent(speaker: Speaker, environment: Any, sampler: SamplerConfig, requests: Sequence[Request]) -> Extent:
    """The longest dialogue of these requests, every turn as long as it may be.

    Prompts are exact. A sketch counts with its token limit; observations are those of the first request's episode if nothing
    is said in it, which is an estimate. What is drawn before it in its group is not counted (``check_group``).
    """
    opening, sketch = _longest_prompt(requests), 0
    if sampler.name == "sesa":
        guided = max(len(speaker.guided(request.task, "")) for request in requests) + sampler.sketch_tokens
        opening, sketch = (guided, sampler.sketch_tokens) if guided > opening else (opening, 0)
    between = _between(speaker, environment, sampler, requests[0].task) if environment.turns > 1 else 0
    return Extent(opening, sampler.max_tokens, between, environment.turns, sketch)


def _longest_prompt(requests: Sequence[Request]) -> int:
    return max(len(request.prompt_ids) for request in requests)


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
    longest = policy.positions
    if need.tokens <= longest:
        return
    among = f" (sampler.sketch_tokens = {need.sketch} among them)" if need.sketch else ""
    if need.turns == 1:
        raise InputError(
            f"a prompt of {need.opening} tokens{among} and sampler.max_tokens = {need.turn} make {need.tokens}, which exceeds"
            f" the model's {longest}; lower {'sampler.sketch_tokens or ' if need.sketch else ''}sampler.max_tokens"
        )
    raise InputError(
        f"an episode may grow to {need.tokens} tokens (a prompt of {need.opening}{among}, {need.turns} turns of at most"
        f" {need.turn}, about {need.between} between two turns), which exceeds the model's {longest}; lower"
        f" {'sampler.sketch_tokens, ' if need.sketch else ''}sampler.max_tokens or the environment's turns"
    )


def check_group(
    policy: Policy, speaker: Speaker, sampler: SamplerConfig, requests: Sequence[Request], otherwise: str = ""
) -> None:
    """Refuse groups whose sketches, or whole answers in sequence, would outgrow the model's positions together.

    Each as long as it may be: a list takes its request + K x ``sketch_tokens`` and K - 1 bridges; a prompt that shows the
    earlier ones about as much, for they are read in anew as text; a sequence of n answers its prompt + n x ``max_tokens`` and
    n - 1 bridges. Sketches drawn i.i.d. stand alone.

    Args:
        policy: its positions are used.
        speaker: how it is asked.
        sampler: how a group is drawn.
        requests: tasks with their prompts.
        otherwise: what else would do, where sketches are drawn for another reason than ``sampler`` in a run's settings.

    Raises:
        InputError: says how it comes about, and what to lower.
    """
    count, longest = shares(sampler)[1], policy.positions
    if sampler.name == "sequential" and count:
        prompt, between = _longest_prompt(requests), len(speaker.between("length"))
        need = prompt + count * sampler.max_tokens + (count - 1) * between
        if need > longest:
            raise InputError(
                f"a sequence of {count} answers may grow to {need} tokens (a prompt of {prompt}, answers of at most"
                f" sampler.max_tokens = {sampler.max_tokens}, {between} between two), which exceeds the model's {longest};"
                " lower sampler.max_tokens or sampler.group_size"
            )
    if sampler.name == "sesa" and count:
        shown = 0 if sampler.drafting == "iid" else count - 1
        need = max(_draft(speaker, request.task, sampler, shown) for request in requests) + sampler.sketch_tokens
        if need > longest:
            fewer = ", or draw fewer sketches by a smaller sampler.group_size or a larger sampler.expansions"
            raise InputError(
                f"drafting may take {need} tokens (a request, {shown} earlier sketches and one more, each of at most"
                f" sampler.sketch_tokens = {sampler.sketch_tokens}), which exceeds the model's {longest}; lower"
                f" sampler.sketch_tokens{otherwise or (fewer if shown else '')}"
            )


def _draft(speaker: Speaker, task: Task, sampler: SamplerConfig, shown: int) -> int:
    """Tokens of what a sketch is drawn under after ``shown`` others of full length."""
    if sampler.drafting_form == "prompt":
        empty = Completion((), (), "", "stop")
        return len(speaker.draft(task, "prompt", [empty] * shown)) + shown * sampler.sketch_tokens
    cut = Completion((-1,) * sampler.sketch_tokens, (), "", "length")  # counted, never read: no token has this id
    return len(speaker.draft(task, "list", [cut] * shown))


def workload(config: Config, environment: Any, processes: int = 1) -> Workload:
    """What a run's policy will do at once, before it is loaded and prompts can be counted: a token is taken to be three letters.

    Args:
        config: of the run; of its settings and those it may switch to, the larger counts.
        environment: on whose tasks it is trained.
        processes: that share the groups out.
    """
    found = [_workload(phase, environment, processes) for phase in config.phases]
    larger = {name: max(getattr(each, name) for each in found) for name in ("tokens", "rows", "micro_batch")}
    return dataclasses.replace(found[0], **larger)


def _workload(config: Config, environment: Any, processes: int) -> Workload:
    sampler, groups = config.sampler, math.ceil(config.run.groups / processes)
    prompt = len(environment.task(0).prompt) // 3 + 64
    before = {"sesa": sampler.sketch_tokens, "sequential": sampler.max_tokens}.get(sampler.name, 0)
    drawn = shares(sampler)[1] * before  # all sketches of a list, or all answers of a sequence
    return Workload(
        tokens=prompt + max(environment.turns * sampler.max_tokens, drawn),
        rows=groups * sampler.group_size if config.engine.name == "torch" else 0,
        contexts=groups if config.engine.name == "torch" else 0,
        trains=True,
        micro_batch=config.update.micro_batch,
        vllm=config.engine if config.engine.name == "vllm" else None,
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
    row = (
        2 * kept_bytes(policy) * need.tokens
        + memory.LOGIT_BYTES * config.vocab_size
        + 4 * widest * _item_bytes(policy) * read
    )
    return max(1, min(ROWS, int(_budget(policy.device) // row)))


def kept_bytes(policy: Policy) -> int:
    """Bytes of the keys and values of one token, all layers together."""
    return memory.kept_bytes(policy.decoder.config, _item_bytes(policy))


def _item_bytes(policy: Policy) -> int:
    return int(policy.head.weight.element_size())


def _budget(device: torch.device) -> float:
    if device.type == "cuda":
        return GPU_SHARE * float(torch.cuda.get_device_properties(device).total_memory)
    return float(CPU_BYTES)
