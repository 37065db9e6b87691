"""Parallel sampling: every candidate i.i.d. given the task alone."""

from __future__ import annotations

from collections.abc import Sequence

from sesa_lab.config import SamplerConfig
from sesa_lab.engines import Engine, Sampling
from sesa_lab.samplers.dialogue import Dialogue, Request, Streams
from sesa_lab.types import Candidate, Context, Group


def parallel(
    engine: Engine,
    requests: Sequence[Request],
    config: SamplerConfig,
    dialogue: Dialogue,
    streams: Streams,
) -> list[Group]:
    """y_i ~ pi(. | x), i = 1..G; the prompt is read in once a group."""
    size = config.group_size
    sampling = Sampling(config.max_tokens, dialogue.stop_ids, config.temperature)
    session = engine.start([request.prompt_ids for request in requests])
    session = session.fork([g for g in range(len(requests)) for _ in range(size)])
    drawn = session.sample(sampling, [streams(g, i) for g in range(len(requests)) for i in range(size)])
    groups = []
    for g, request in enumerate(requests):
        x = Context("task", request.prompt_ids)
        members = drawn[g * size : (g + 1) * size]
        groups.append(
            Group(request.task, tuple(Candidate(x, {"task": x}, c, sampled_tokens=len(c.ids)) for c in members))
        )
    return groups
