"""Parallel sampling: every candidate i.i.d. given the task alone."""

from __future__ import annotations

from collections.abc import Sequence

from sesa_lab.config import SamplerConfig
from sesa_lab.engines import Engine, Sampling
from sesa_lab.samplers.dialogue import Dialogue, Request, Streams, World
from sesa_lab.samplers.play import Player, Table, play
from sesa_lab.types import Context, Group


def parallel(
    engine: Engine,
    requests: Sequence[Request],
    config: SamplerConfig,
    dialogue: Dialogue,
    streams: Streams,
    world: World | None = None,
) -> list[Group]:
    """y_i ~ pi(. | x), i = 1..G; the prompt is read in once a group."""
    size = config.group_size
    session = engine.start([request.prompt_ids for request in requests])
    session = session.fork([g for g in range(len(requests)) for _ in range(size)])
    players = []
    for g, request in enumerate(requests):
        x = Context("task", request.prompt_ids)
        players += [Player(request.task, x, {"task": x}, streams(g, i)) for i in range(size)]
    play(
        session,
        players,
        Table(Sampling(config.max_tokens, dialogue.stop_ids, config.temperature, config.stop_text), dialogue, world),
    )
    members = [player.candidate(()) for player in players]
    return [
        Group(request.task, tuple(members[g * size : (g + 1) * size])) for g, request in enumerate(requests)
    ]  # fmt: skip
