"""Sequential sampling of whole answers: each given the task and the answers before it (arXiv 2510.15502)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from sesa_lab.config import SamplerConfig
from sesa_lab.engines import Engine, Sampling, Session
from sesa_lab.errors import InputError
from sesa_lab.samplers.dialogue import Dialogue, Request, Streams, World, normal
from sesa_lab.samplers.parallel import parallel
from sesa_lab.types import Candidate, Completion, Context, Group, Turn


def sequential(
    engine: Engine,
    requests: Sequence[Request],
    config: SamplerConfig,
    dialogue: Dialogue,
    streams: Streams,
    world: World | None = None,
) -> list[Group]:
    """y_1 ~ pi(. | x), y_i ~ pi(. | x, y_1 .. y_{i-1}), all groups side by side on one growing cache.

    The prompt asks for an answer that differs from those before it; an answer that repeats one (as text, case and white
    space aside) is drawn again up to ``config.redraws`` times, then kept. With ``config.on_policy_fraction`` the first
    ceil(fraction x G) candidates are drawn i.i.d. given x; the rest form one sequence that does not see them.

    Raises:
        InputError: the environment answers turn by turn; whole answers cannot follow each other there.
    """
    check_world(world)
    direct = math.ceil(config.on_policy_fraction * config.group_size - 1e-9)
    groups = [Group(request.task, ()) for request in requests]
    if direct:
        groups = parallel(engine, requests, dataclasses.replace(config, group_size=direct), dialogue, streams)
    if direct == config.group_size:
        return groups
    session = engine.start([request.prompt_ids for request in requests])
    sampling = Sampling(config.max_tokens, dialogue.stop_ids, config.temperature, config.stop_text)
    histories: list[list[str]] = [[] for _ in requests]
    members: list[list[Candidate]] = [list(group.candidates) for group in groups]
    for index in range(direct, config.group_size):
        rows = [streams(g, index) for g in range(len(requests))]
        contexts = [session.context(g) for g in range(len(requests))]
        drawn = draw_distinct(session, sampling, rows, histories, config.redraws)
        for g, (completion, redraws, tokens) in enumerate(drawn):
            members[g].append(
                _candidate(requests[g].prompt_ids, contexts[g], completion, histories[g], redraws, tokens)
            )
            histories[g].append(completion.text)
        if index + 1 < config.group_size:
            session.append([dialogue.between(completion.finish) for completion, _, _ in drawn])
    return [Group(request.task, tuple(found)) for request, found in zip(requests, members, strict=True)]


def check_world(world: World | None) -> None:
    """Raises ``InputError`` where answers take several turns."""
    if world is not None:
        raise InputError(
            "sampler.name = 'sequential' draws whole answers one after another; an environment of several turns needs"
            " 'parallel' or 'sesa'"
        )


def draw_distinct(
    session: Session,
    sampling: Sampling,
    streams: Sequence[np.random.Generator],
    histories: Sequence[Sequence[str]],
    redraws: int,
) -> list[tuple[Completion, int, int]]:
    """(completion, draws thrown away, tokens sampled) for each row."""
    starts = [len(session.context(row)) for row in range(len(streams))]
    completions = session.sample(sampling, streams)
    thrown, tokens = [0] * len(streams), [len(c.ids) for c in completions]
    seen = [{normal(text) for text in history} for history in histories]
    for _ in range(redraws):
        again = [row for row, c in enumerate(completions) if normal(c.text) in seen[row]]
        if not again:
            break
        for row in again:
            session.rewind(row, starts[row])
        for row, completion in zip(again, session.sample(sampling, [streams[r] for r in again], again), strict=True):
            completions[row] = completion
            thrown[row] += 1
            tokens[row] += len(completion.ids)
    return list(zip(completions, thrown, tokens, strict=True))


def _candidate(
    prompt: tuple[int, ...],
    context: tuple[int, ...],
    completion: Completion,
    history: Sequence[str],
    redraws: int,
    tokens: int,
) -> Candidate:
    x = Context("task", prompt)
    if not history:  # the first of a sequence is drawn under x itself
        return Candidate((Turn(x, {"task": x}, completion),), (), redraws, tokens)
    drawn_under = Context("history", context)
    turn = Turn(drawn_under, {"task": x, "history": drawn_under}, completion)
    return Candidate((turn,), tuple(history), redraws, tokens)
