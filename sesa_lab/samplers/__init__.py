"""Samplers choose the contexts that a group's candidates are drawn under, and nothing else.

To add one, write a module with a function of ``Draw``'s type and name it in ``SAMPLERS``. ``play`` is how all of them let a
candidate answer, in one go or turn by turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sesa_lab.config import SamplerConfig
from sesa_lab.engines import Engine
from sesa_lab.samplers.dialogue import Dialogue, Request, Streams, World
from sesa_lab.samplers.parallel import parallel
from sesa_lab.samplers.sequential import sequential
from sesa_lab.samplers.sesa import sesa
from sesa_lab.types import Group


class Draw(Protocol):
    """Draws one group for each request, all groups side by side."""

    def __call__(
        self,
        engine: Engine,
        requests: Sequence[Request],
        config: SamplerConfig,
        dialogue: Dialogue,
        streams: Streams,
        world: World | None = None,
    ) -> list[Group]: ...


SAMPLERS: dict[str, Draw] = {"parallel": parallel, "sequential": sequential, "sesa": sesa}


def draw(
    engine: Engine,
    requests: Sequence[Request],
    config: SamplerConfig,
    dialogue: Dialogue,
    streams: Streams,
    world: World | None = None,
) -> list[Group]:
    """One group of ``config.group_size`` candidates a request, by the sampler that ``config`` names.

    Args:
        engine: where completions come from; its weights must not change meanwhile.
        requests: tasks with their prompts' token ids.
        config: which sampler, how many candidates, temperature, token limit.
        dialogue: the token ids that join answers, sketches and turns into one growing context.
        streams: each candidate's own random stream, so that a group does not depend on the groups beside it.
        world: the environment, where answers take several turns; None: one answer each.
    """
    return SAMPLERS[config.name](engine, requests, config, dialogue, streams, world)


__all__ = ["SAMPLERS", "Dialogue", "Draw", "Request", "Streams", "World", "draw", "parallel", "sequential", "sesa"]
