"""Answers to tasks, in one go or turn by turn; and the moving of a row from one context to another on its kept cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sesa_lab.engines import Engine, Sampling, Session
from sesa_lab.samplers.dialogue import Dialogue, World
from sesa_lab.types import Candidate, Completion, Context, Episode, Sketch, Task, Turn


@dataclass
class Player:
    """One candidate in the making.

    Attributes:
        task: what is asked.
        drawn: kind and ids of the context its first turn is drawn under.
        trained: base contexts it may be trained under, by kind; ``task`` is among them.
        stream: its own generator.
        sketches: numbers, within its group, of the sketches it follows.
        turns: what it has said.
        episode: how it stands, in an environment of several turns.
        drafted: sketches made on the way (``sketch_scope`` turn).
    """

    task: Task
    drawn: Context
    trained: Mapping[str, Context]
    stream: np.random.Generator
    sketches: tuple[int, ...] = ()
    turns: list[Turn] = field(default_factory=list)
    episode: Episode | None = None
    drafted: list[Sketch] = field(default_factory=list)

    def candidate(self, sketches: tuple[int, ...]) -> Candidate:
        tokens = sum(len(turn.completion.ids) for turn in self.turns)
        return Candidate(tuple(self.turns), sampled_tokens=tokens, sketches=sketches, episode=self.episode)


@dataclass(frozen=True)
class Table:
    """What all players share.

    Attributes:
        sampling: of answers and turns.
        drafting: of sketches made on the way; None: there are none.
        dialogue: the words between turns.
        world: the environment; None: one answer each, judged whole elsewhere.
    """

    sampling: Sampling
    dialogue: Dialogue
    world: World | None = None
    drafting: Sampling | None = None


def open_rows(engine: Engine, groups: Sequence[Sequence[tuple[int, ...]]]) -> Session:
    """A session with one row a context, in order; what the contexts of a group begin with alike is read in once."""
    shared = [_common(contexts) for contexts in groups]
    if not all(shared):  # a prompt may begin with the sketch, and no row can begin empty
        return engine.start([ids for contexts in groups for ids in contexts])
    session = engine.start([contexts[0][:length] for contexts, length in zip(groups, shared, strict=True)])
    session = session.fork([g for g, contexts in enumerate(groups) for _ in contexts])
    rest = [ids[length:] for contexts, length in zip(groups, shared, strict=True) for ids in contexts]
    if any(rest):
        session.append(rest)
    return session


def move(engine: Engine, session: Session, contexts: Sequence[tuple[int, ...]]) -> Session:
    """The session with every row at its new context; what it begins with alike stays in the cache."""
    kept = [_common([session.context(row), ids]) for row, ids in enumerate(contexts)]
    if not all(kept):
        return engine.start(contexts)
    for row, length in enumerate(kept):
        session.rewind(row, length)
    rest = [ids[length:] for ids, length in zip(contexts, kept, strict=True)]
    if any(rest):
        session.append(rest)
    return session


def _common(contexts: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all begin with alike."""
    first, last = min(contexts), max(contexts)  # in lexicographic order these two differ soonest
    length = min(map(len, contexts))
    return next((t for t in range(length) if first[t] != last[t]), length)


def play(session: Session, players: Sequence[Player], table: Table) -> None:
    """Every player answers: once, or turn by turn until its episode is over. Rows of the session are the players in order."""
    if table.world is None:
        drawn = session.sample(table.sampling, [player.stream for player in players])
        for player, completion in zip(players, drawn, strict=True):
            player.turns.append(Turn(player.drawn, player.trained, completion))
        return
    for player in players:
        player.episode = table.world.reset(player.task, int(player.stream.integers(2**32)))
    said: list[list[int]] = [[] for _ in players]  # turns and observations so far: what every context ends with
    active = list(range(len(players)))
    while active:
        before = {row: session.context(row) for row in active}
        drawn = session.sample(table.sampling, [players[row].stream for row in active], active)
        for row, completion in zip(active, drawn, strict=True):
            _take(players[row], before[row], said[row], completion, table.world)
        active = [row for row in active if not _episode(players[row]).over]
        _observe(session, players, active, said, table)


def _take(player: Player, before: tuple[int, ...], said: list[int], completion: Completion, world: World) -> None:
    """One turn: its contexts are the player's bases with all that was said since."""
    drawn = Context(player.drawn.kind, before)
    trained = {kind: Context(base.kind, (*base.ids, *said)) for kind, base in player.trained.items()}
    if drawn.kind in trained:
        trained[drawn.kind] = drawn  # sketches made on the way stand in the drawing context only
    player.turns.append(Turn(drawn, trained, completion))
    player.episode = world.step(_episode(player), completion.text)
    said += completion.ids


def _observe(
    session: Session, players: Sequence[Player], active: Sequence[int], said: list[list[int]], table: Table
) -> None:
    """Tell the active rows what the environment answered; with ``table.drafting`` each first drafts this turn's sketch."""
    words = {row: (players[row].turns[-1].completion.finish, _episode(players[row]).observation) for row in active}
    for row in active:
        said[row] += table.dialogue.observed(*words[row])
    guided = [row for row in active if table.drafting is not None and players[row].sketches]
    plain = {row: table.dialogue.observed(*words[row]) for row in active if row not in guided}
    asked = {row: table.dialogue.observed(*words[row], role="turn_sketch", task=players[row].task) for row in guided}
    session.append([plain.get(row) or asked.get(row) or () for row in range(len(players))])
    if not guided or table.drafting is None:
        return
    contexts = {row: session.context(row) for row in guided}
    drawn = session.sample(table.drafting, [players[row].stream for row in guided], guided)
    bridges: list[tuple[int, ...]] = [() for _ in players]
    for row, completion in zip(guided, drawn, strict=True):
        context = Context("draft", contexts[row])
        turn = Turn(context, {"draft": context}, completion)
        players[row].drafted.append(Sketch(turn, sampled_tokens=len(completion.ids)))
        bridges[row] = table.dialogue.observed(completion.finish, "", role="turn_solve")
    session.append(bridges)


def _episode(player: Player) -> Episode:
    assert player.episode is not None
    return player.episode
