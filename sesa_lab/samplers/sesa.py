"""Two-stage SESA (arXiv 2510.15502): sketches drafted one after another, then expanded into solutions in parallel."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from sesa_lab.config import SamplerConfig
from sesa_lab.engines import Engine, Sampling
from sesa_lab.samplers.dialogue import Dialogue, Request, Streams, World, normal
from sesa_lab.samplers.play import Player, Table, move, open_rows, play
from sesa_lab.samplers.sequential import draw_distinct
from sesa_lab.types import Candidate, Completion, Context, Group, Sketch, Turn


def sesa(
    engine: Engine,
    requests: Sequence[Request],
    config: SamplerConfig,
    dialogue: Dialogue,
    streams: Streams,
    world: World | None = None,
) -> list[Group]:
    """Stage I: s_k ~ pi(. | x, s_1 .. s_{k-1}). Stage II: y_i ~ pi(. | x, its sketch), all in parallel.

    With ``config.on_policy_fraction`` the first ceil(fraction x G) candidates are drawn i.i.d. given x, without sketches;
    the rest are ``config.expansions`` solutions of each of K sketches, in the order drafted. All tasks go side by side:
    while one drafts its third sketch, so do the others.
    """
    direct, count = shares(config)
    sketches = draft(engine, requests, config, dialogue, streams, count)
    followed = [None] * direct + [k for k in range(count) for _ in range(config.expansions)]
    return expand(engine, requests, sketches, [followed] * len(requests), config, dialogue, streams, world)


def shares(config: SamplerConfig) -> tuple[int, int]:
    """Candidates drawn without sketch, and K, the sketches of a group; G = direct + K x expansions."""
    direct = math.ceil(config.on_policy_fraction * config.group_size - 1e-9)
    return direct, (config.group_size - direct) // config.expansions


def draft(
    engine: Engine,
    requests: Sequence[Request],
    config: SamplerConfig,
    dialogue: Dialogue,
    streams: Streams,
    count: int,
) -> list[list[Sketch]]:
    """Stage I: ``count`` sketches a request.

    One row a request on a kept cache: each further sketch costs its own tokens, never a second reading of the history.
    With ``drafting`` iid all are drawn under the request alone. A sketch that repeats an earlier one, or is empty, is drawn
    again up to ``redraws`` times.
    """
    sampling = Sampling(config.sketch_tokens, dialogue.draft_stops(config.drafting_form), config.temperature)
    form, first = config.drafting_form, config.group_size
    opening = [dialogue.draft(request.task, form, ()) for request in requests]
    found: list[list[Sketch]] = [[] for _ in requests]
    if not count:
        return found
    if config.drafting == "iid":
        session = engine.start(opening).fork([g for g in range(len(requests)) for _ in range(count)])
        drawn = session.sample(sampling, [streams(g, first + k) for g in range(len(requests)) for k in range(count)])
        for row, completion in enumerate(drawn):
            g = row // count
            found[g].append(_sketch(opening[g], completion, found[g], 0, len(completion.ids)))
        return found
    session = engine.start(opening)
    for k in range(count):
        if k:
            asked = [dialogue.draft(r.task, form, _texts(found[g])) for g, r in enumerate(requests)]
            session = move(engine, session, asked)
        contexts = [session.context(g) for g in range(len(requests))]
        histories = [["", *(sketch.text for sketch in earlier)] for earlier in found]
        rows = [streams(g, first + k) for g in range(len(requests))]
        drawn_k = draw_distinct(session, sampling, rows, histories, config.redraws)
        for g, (completion, redraws, tokens) in enumerate(drawn_k):
            found[g].append(_sketch(contexts[g], completion, found[g], redraws, tokens))
    return found


def expand(
    engine: Engine,
    requests: Sequence[Request],
    sketches: Sequence[Sequence[Sketch]],
    followed: Sequence[Sequence[int | None]],
    config: SamplerConfig,
    dialogue: Dialogue,
    streams: Streams,
    world: World | None = None,
) -> list[Group]:
    """Stage II: candidate i of request g is drawn under the sketch ``sketches[g][followed[g][i]]``, from ``streams(g, i)``.

    Args:
        engine: where completions come from.
        requests: tasks with their prompts.
        sketches: for each request those that may be followed; they need not be drafted for it.
        followed: for each request one number a candidate; None: without a sketch.
        config: how solutions are drawn.
        dialogue: how the policy is asked.
        streams: each candidate's own random stream.
        world: the environment, where answers take several turns.
    """
    players = [
        [_player(request, given, k, config, dialogue, streams(g, i)) for i, k in enumerate(numbers)]
        for g, (request, given, numbers) in enumerate(zip(requests, sketches, followed, strict=True))
    ]
    session = open_rows(engine, [[player.drawn.ids for player in group] for group in players])
    play(session, [player for group in players for player in group], _table(config, dialogue, world))
    found = []
    for request, own, given in zip(requests, players, sketches, strict=True):
        members, all_sketches = _gather(own, given)
        found.append(Group(request.task, tuple(members), all_sketches))
    return found


def _texts(sketches: Sequence[Sketch]) -> list[Completion]:
    return [sketch.turn.completion for sketch in sketches]


def _sketch(
    context: tuple[int, ...], completion: Completion, earlier: Sequence[Sketch], redraws: int, tokens: int
) -> Sketch:
    under = Context("draft", context)
    repeats = normal(completion.text) in {"", *(normal(sketch.text) for sketch in earlier)}  # an empty one is no method
    return Sketch(Turn(under, {"draft": under}, completion), repeats, redraws, tokens)


def _player(
    request: Request,
    sketches: Sequence[Sketch],
    number: int | None,
    config: SamplerConfig,
    dialogue: Dialogue,
    stream: np.random.Generator,
) -> Player:
    """Who expands sketch ``number``; None, or a repeated sketch that is dropped: who answers without one."""
    x = Context("task", request.prompt_ids)
    if number is None or (sketches[number].repeats and config.repeated_sketch == "drop"):
        return Player(request.task, x, {"task": x}, stream)
    guided = Context("sketch", dialogue.guided(request.task, sketches[number].text))
    return Player(request.task, guided, {"task": x, "sketch": guided}, stream, (number,))


def _table(config: SamplerConfig, dialogue: Dialogue, world: World | None) -> Table:
    answers = Sampling(config.max_tokens, dialogue.stop_ids, config.temperature, config.stop_text)
    a_turn = Sampling(config.sketch_tokens, dialogue.stop_ids, config.temperature)
    return Table(answers, dialogue, world, a_turn if config.sketch_scope == "turn" else None)


def _gather(players: Sequence[Player], sketches: Sequence[Sketch]) -> tuple[list[Candidate], tuple[Sketch, ...]]:
    """Candidates, and all sketches: those of stage I, then those made on the way, candidate by candidate.

    Each is marked as a repeat where it repeats one before it in this order. ``redraws`` and ``repeated_sketch`` act on stage I
    alone: one made on the way is kept as it comes.
    """
    everything, members = list(sketches), []
    seen = {"", *(normal(sketch.text) for sketch in sketches)}
    for player in players:
        own = range(len(everything), len(everything) + len(player.drafted))
        for sketch in player.drafted:
            said = normal(sketch.text)
            everything.append(dataclasses.replace(sketch, repeats=said in seen))
            seen.add(said)
        members.append(player.candidate((*player.sketches, *own)))
    return members, tuple(everything)
