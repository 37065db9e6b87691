"""Sokoban: push every box onto a target; the rules and rewards are gym-sokoban's, the protocol of turns RAGEN's.

In the lab an answer is one whole plan. With ``turns`` > 1 the player is told the state after each turn, as in RAGEN
(https://github.com/RAGEN-AI/RAGEN), whose settings are ``PAPER``. Rules and the making of rooms are in ``sokoban_rooms``,
the search for solutions is in ``sokoban_solver``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any, ClassVar, Literal

import numpy as np

from sesa_lab.config import option
from sesa_lab.environments.contract import check_index, check_open
from sesa_lab.environments.grid import Plan, cell_name, read_plan
from sesa_lab.environments.pool import HARD, SPLITS, Pool, split_of
from sesa_lab.environments.replays import UNREAD, played_again
from sesa_lab.environments.sokoban_rooms import DIRECTIONS, PER_ACTION, Room, generate, move, parse, reward
from sesa_lab.environments.sokoban_solver import LETTERS, Solved, has_plan, solve
from sesa_lab.environments.sokoban_view import drawn, frame, told
from sesa_lab.errors import InputError
from sesa_lab.seeding import stream
from sesa_lab.types import Episode, Frame, Score, Task

_ROOMS = 5  # position among the "environment" streams of a seed; changing it changes every run

MOST_LEGS = 4  # of a sketch
NO_PUSH = "no push"
HABITS = (*DIRECTIONS, *(f"{across} {along}" for across in ("left", "right") for along in ("up", "down")))
"""Sketches that a habit knows: straight on, or across and then along."""

_KNOWN = {name: name for name in DIRECTIONS}
_WORDS = dict(zip(LETTERS, DIRECTIONS, strict=True))
_HABITUAL_LEGS = frozenset("".join(word[0] for word in habit.split()) for habit in HABITS)


@dataclass(frozen=True)
class SokobanOptions:
    """Push boxes onto targets in a room with walls.

    The defaults make rooms with 5 x 5 cells inside, 19 of them floor on average, whose shortest plan has 7 moves in the
    median (from 3 to 23). Of the first 4,096, 41.5 % are hard and a room has 4.6 solutions on average (quartiles 1, 3, 6).
    With ``PAPER`` (6x6, gym-sokoban's walk) it is 20 % and 1.3: too few ways for a lab on exploration.
    """

    PAPER: ClassVar[dict[str, Any]] = {
        "height": 6, "width": 6, "walk_steps": 20, "min_pushes": 1, "turns": 5, "actions_per_turn": 5, "max_actions": 10,
        "answer_format": "tags", "invalid_penalty": 0.1, "reward": "gym", "exact_plan": "no",
    }  # fmt: skip

    height: int = option(7, "rows of the room, outer wall included", low=4, high=12)
    width: int = option(7, "cells a row, outer wall included", low=4, high=12)
    boxes: int = option(1, "boxes, and targets", low=1, high=4)
    walk_steps: int = option(40, "steps of the random walk that carves the floor", low=1, high=1000)
    search_depth: int = option(
        300, "longest line of the reverse play that takes the boxes off their targets", low=2, high=10_000
    )
    player_steps: int = option(
        3, "most random steps of the player after that (drawn uniformly from 0)", low=0, high=100
    )
    min_pushes: int = option(3, "fewest pushes the shortest solution may have", low=1, high=100)
    turns: int = option(1, "most turns of an episode; 1: the answer is the whole plan", low=1, high=100)
    actions_per_turn: int = option(5, "turns > 1 only: actions of a turn beyond these are dropped", low=1, high=100)
    max_actions: int = option(24, "actions of an episode beyond these are dropped", low=1, high=100)
    max_steps: int = option(100, "gym-sokoban's own limit of actions; the lower of the two counts", low=1, high=100)
    exact_plan: str = option(
        "yes",
        "turns = 1 only: whether a plan that goes on after the room is solved, or beyond max_actions, fails",
        choices=("no", "yes"),
    )
    reward: str = option(
        "success",
        "success (1 where solved, else 0) or gym (-0.1 an action, +1 a box onto a target, -1 off it, +10 solved)",
        choices=("success", "gym"),
    )
    answer_format: str = option(
        "plain",
        "plain (nothing but actions) or tags (<think>...</think><answer>...</answer>)",
        choices=("plain", "tags"),
    )
    invalid_penalty: float = option(
        0.0,
        "turns > 1 only: taken from the reward of a turn that holds an unknown action, or none that is known; with reward ="
        " gym at least 0.1 x max_actions / turns, or silence is cheaper than a failed try",
        low=0.0,
        high=100.0,
    )
    split: str = option(
        "train", "which part of all rooms: train (80 %), validation or test (10 % each)", choices=SPLITS
    )
    hard: str = option(
        "natural",
        "natural (as drawn), half (every other one), all or none; hard: no solution pushes only straight on, or only"
        " horizontally and then vertically",
        choices=HARD,
    )
    tasks: int = option(4096, "distinct tasks; task i is task i mod tasks", low=1, high=1_000_000)
    seed: int = option(0, "fixes the rooms", low=0, high=2**32 - 1)
    repeats: str = option(
        "count",
        "whether pushes that came earlier in their group earn again (count) or nothing (zero)",
        choices=("count", "zero"),
    )


@dataclass(frozen=True)
class SokobanState:
    """Where an episode stands.

    Attributes:
        room: as it is now.
        pushes: the pushes so far, loops erased, each as the box's cell and the direction, e.g. ``bc:right``.
        path: the room right before each of ``pushes``.
        moves: actions carried out, those that moved nothing included.
        turns: turns taken.
        last: the last action's effect: ``push``, ``walk``, ``bump``; "" before the first.
        reward: gym-sokoban's reward for the last action.
    """

    room: Room
    pushes: tuple[str, ...] = ()
    path: tuple[Room, ...] = ()
    moves: int = 0
    turns: int = 0
    last: str = ""
    reward: float = 0.0


class Sokoban:
    """The environment; see ``contract.Environment`` for what every environment has.

    A strategy is the sequence of pushes, e.g. ``bc:right,bd:down``, loops erased: where pushes lead back to a position that
    was there before (the same set of boxes' cells, the player in the same region, as in ``sokoban_solver``), they do not
    count. Nor does wandering between pushes, nor what comes after the room is solved. A readable plan of which no push is
    left has the strategy ``no push``.
    """

    name = "sokoban"
    policy_options: tuple[str, ...] = (
        "height", "width", "boxes", "walk_steps", "min_pushes", "turns", "answer_format",
    )  # fmt: skip

    def __init__(self, options: SokobanOptions) -> None:
        """Nothing is drawn yet.

        Raises:
            InputError: more pushes are asked for than an episode has actions; a penalty that no turn could show.
        """
        self.options: dict[str, Any] = dataclasses.asdict(options)
        self.repeats: Literal["count", "zero"] = "zero" if options.repeats == "zero" else "count"
        self.turns, self.count = options.turns, options.tasks
        self._options = options
        self._exact = options.exact_plan == "yes" and options.turns == 1
        limit = min(options.max_actions, options.max_steps)
        self._per_turn = min(options.actions_per_turn, limit) if options.turns > 1 else limit
        self._most = min(limit, options.turns * self._per_turn)
        self._unread = float(sum([PER_ACTION] * self._most)) if options.reward == "gym" else 0.0
        _check_together(options, self._most)
        self._pool: Pool[Room] = Pool(
            self._draw,
            lambda room: f"{room.layout()}\n{room.player}",
            lambda room: _hard(room, self._most),
            lambda number: stream(options.seed, "environment", _ROOMS, number),
            split=options.split,
            hard=options.hard,
            label=self.name,
        )

    def task(self, index: int) -> Task:
        """Task ``index``: a room that can be solved within the limits.

        Raises:
            InputError: a bad index, or options that leave fewer than ``tasks`` rooms.
        """
        index = check_index(index)
        room = self._pool[index % self.count]
        data = {
            "room": room.rows(),
            "player": room.name(room.player),
            "boxes": room.names(room.boxes),
            "targets": room.names(room.targets),
            "floor": room.names(room.floor),
            "grid": drawn(room),
            "limits": self._limits(),
            "format": self._format(),
            "hard": _hard(room, self._most),
        }
        return Task(index, _PROMPT.format(**data), data)

    def score(self, task: Task, text: str) -> Score:
        """The verdict on one whole plan, whatever ``turns`` is; ``reward`` says what it earns.

        Where ``turns`` is 1 and ``exact_plan`` yes, a plan with actions left over, after the room is solved or beyond the
        limit, fails: else wandering until the room is solved by chance would do. It earns 0, or with gym-sokoban's rewards
        what it earned if that is less. Its strategy is that of the actions carried out.

        ``plain``: a text that holds anything but actions has no strategy. ``tags``: of the actions within the limit
        unknown ones are skipped, without penalty here; without a known one there is no strategy. What has none earns 0, or
        with gym-sokoban's rewards what all actions of an episode do that move nothing. No plan earns less (boxes begin off
        their targets), so that silence never pays better than a failed try.
        """
        plan = self._read(text, self._most)
        if not plan.actions:
            return Score(self._unread, False, None)
        states = list(_play(SokobanState(room_of(task)), plan.actions))
        return Score(*self._judged(states, plan), _key(states[-1]))

    def reset(self, task: Task, seed: int = 0) -> Episode:
        """A new episode; nothing in it is left to chance."""
        return Episode(task, seed, SokobanState(room_of(task)))

    def step(self, episode: Episode, text: str) -> Episode:
        """One turn: its actions one after another, until the room is solved or the limits are met.

        The first ``actions_per_turn`` actions count; of these, unknown ones are skipped (``plain``: they make the whole
        turn unreadable). The reward shown with the next state is the one recorded, penalty included (``tags``; ``plain``
        tells where player and boxes are and the actions left). A single turn (``turns`` = 1) is judged as ``score`` does.

        Of several turns, one that cannot be read costs ``invalid_penalty`` and no action, as in RAGEN. With gym-sokoban's
        rewards and a penalty below 0.1 x actions / turns, silence to the end therefore costs less than the worst failed
        episode: in ``PAPER``, as in RAGEN, 5 x 0.1 against 10 x 0.1.
        """
        check_open(episode)
        state, (plan, states) = episode.state, self._turn(episode.state, text)
        earned, success = self._judged(states, plan)
        earned -= self._options.invalid_penalty if plan.invalid else 0.0
        state = dataclasses.replace(states[-1] if states else state, turns=state.turns + 1)
        solved = state.room.solved
        truncated = not solved and (state.moves >= self._most or state.turns >= self.turns)
        return dataclasses.replace(
            episode,
            state=state,
            observation="" if solved or truncated else self._observation(state, earned),
            rewards=(*episode.rewards, earned),
            terminated=solved,
            truncated=truncated,
            success=success,
            strategy=_key(state) if state.moves else None,
        )

    def enumerate(self, task: Task) -> list[str] | None:
        """None: plans are too many."""
        return None

    def solutions(self, task: Task) -> list[str] | None:
        """One plan for every push sequence that ``sokoban_solver.Solved.plans`` counts, fewest moves first."""
        plans = self._solved(task).plans
        return None if plans is None else [self._written(plan.moves) for plan in plans]

    def oracle(self, task: Task) -> str:
        """A plan of fewest moves among those of few more pushes than needed (``sokoban_solver.Solved.shortest``).

        Where pushing a box away and back saves more walking than it costs (1 of 1,500 of the lab's rooms), a shorter one exists.
        """
        return self._written(str(self._solved(task).shortest))

    def sketch(self, task: Task, text: str) -> str | None:
        """The directions of the strategy's pushes, equal neighbours merged, at most the first ``MOST_LEGS``: "right down".

        With several boxes in the order of the pushes, whichever box they move. ``no push`` without any.
        """
        plan = self._read(text, self._most)
        if not plan.actions:
            return None
        *_, last = _play(SokobanState(room_of(task)), plan.actions)
        legs = [direction for direction, _ in groupby(push.partition(":")[2] for push in last.pushes)]
        return " ".join(legs[:MOST_LEGS]) or NO_PUSH

    def habitual(self, sketch: str) -> bool:
        """Whether it is straight on, or horizontal and then vertical."""
        return sketch in HABITS

    def render(self, task: Task, text: str = "") -> list[Frame]:
        """The room, then one frame a move, in RAGEN's symbols."""
        state = SokobanState(room_of(task))
        plan = self._read(text, self._most)
        states = list(_play(state, plan.actions))
        frames = [frame("start", state.room)]
        for action, after in zip(plan.actions, states, strict=False):
            solved = ", solved" if after.room.solved else ""
            more = "; the plan goes on" if after is states[-1] and self._goes_on(plan, states) else ""
            frames.append(frame(f"{told(action, after.moves, after.last)}{solved}{more}", after.room))
        return frames

    def replay(self, task: Task, turns: Sequence[str], seed: int = 0) -> list[list[Frame]]:
        """As ``contract.Replayed``, in RAGEN's symbols."""
        return played_again(self, task, turns, seed, frame("start", room_of(task)), self._moves)

    def _draw(self, generator: np.random.Generator) -> Room | None:
        options = self._options
        room = generate(
            generator,
            height=options.height,
            width=options.width,
            boxes=options.boxes,
            walk_steps=options.walk_steps,
            search_depth=options.search_depth,
            player_steps=options.player_steps,
        )
        # The pool would refuse a room of another split; not solving it first saves most of the time.
        if room is None or split_of(room.layout()) != options.split:
            return None
        solved = solve(room, self._most)
        fits = solved is not None and solved.shortest is not None and solved.pushes >= options.min_pushes
        return room if fits else None

    def _read(self, text: str, most: int) -> Plan:
        return read_plan(text, _KNOWN, self._options.answer_format, most)

    def _turn(self, state: SokobanState, text: str) -> tuple[Plan, list[SokobanState]]:
        """What one turn says to do, and the state after each action carried out."""
        plan = self._read(text, self._per_turn)
        return plan, list(_play(state, plan.actions[: self._most - state.moves]))

    def _moves(self, state: SokobanState, text: str) -> list[Frame]:
        """One turn in pictures."""
        plan, states = self._turn(state, text)
        moves = zip(plan.actions, states, strict=False)
        return [frame(told(action, s.moves, s.last), s.room) for action, s in moves] or [frame(UNREAD, state.room)]

    def _goes_on(self, plan: Plan, states: Sequence[SokobanState]) -> bool:
        """Whether a plan that has to be exact has actions beyond those that led to these states, one each."""
        return self._exact and plan.known > len(states)

    def _judged(self, states: Sequence[SokobanState], plan: Plan) -> tuple[float, bool]:
        """What the actions that led to these states, one each, earn; and whether they succeed."""
        if self.turns == 1 and not states:
            return self._unread, False
        solved = bool(states) and states[-1].room.solved
        earned = float(sum(state.reward for state in states)) if self._options.reward == "gym" else float(solved)
        return (min(0.0, earned), False) if self._goes_on(plan, states) else (earned, solved)

    def _solved(self, task: Task) -> Solved:
        solved = solve(room_of(task), self._most)
        if solved is None or solved.shortest is None:
            raise InputError(
                f"task {task.index} is no task of this environment: no solution of at most {self._most} actions was found"
            )
        return solved

    def _observation(self, state: SokobanState, earned: float) -> str:
        room, left = state.room, self._most - state.moves
        if self._options.answer_format == "plain":
            return f"player {room.name(room.player)} box {room.names(room.boxes)} left {left}"
        return (
            f"Reward:\n{earned:g}\n\nTurn {state.turns + 1}:\nState:\n{drawn(room)}\n"
            f"You have {left} actions left. {self._format()}"
        )

    def _limits(self) -> str:
        most = f"{self._most} actions"
        if self._exact:
            return f"at most {most}; a plan that is longer, or goes on after the room is solved, fails"
        if self.turns == 1:
            return f"at most {most}; further ones are dropped"
        return (
            f"at most {self.turns} turns, {self._per_turn} actions a turn and {most} in all; further ones are dropped"
        )

    def _format(self) -> str:
        if self._options.answer_format == "plain":
            told = "" if self.turns == 1 else _TOLD
            return f"Answer with actions only, separated by blanks, like this: right down{told}"
        return (
            "Always output: <think> [your thoughts] </think> <answer> [your actions, separated by ||] </answer> with no"
            " extra text, like this: <think>I go round the box and push it right.</think><answer>Down || Right</answer>"
            " Be brief: what is too long is cut off."
        )

    def _written(self, moves: str) -> str:
        words = [_WORDS[letter] for letter in moves]
        if self._options.answer_format == "plain":
            return " ".join(words)
        return f"<think></think><answer>{' || '.join(words)}</answer>"


_TOLD = (
    "\nAfter each turn you are told where you and the boxes are and how many actions are left, like this: player bb box cc"
    " left 12 (bb: second row from the top, second column from the left)"
)
_PROMPT = (
    "You are in a room with boxes. Symbols: # wall, _ floor, O target, X box, √ box on target, P you, S you on a target."
    "\n\n{grid}\n\nPush every box onto a target. Actions: up, down, left, right; a step into a box pushes it if the cell"
    " behind it is free; boxes cannot be pulled. You have {limits}. {format}"
)


def room_of(task: Task) -> Room:
    """The room of a task of this environment, as it is at first."""
    return _parsed(tuple(task.data["room"]))


@lru_cache(maxsize=16_384)
def _parsed(rows: tuple[str, ...]) -> Room:
    return parse(rows)


@lru_cache(maxsize=16_384)
def _hard(room: Room, most_moves: int) -> bool:
    """Whether no plan that the solver counts is habitual."""
    return not has_plan(room, most_moves, _HABITUAL_LEGS)


def _check_together(options: SokobanOptions, most: int) -> None:
    if options.min_pushes > most:
        raise InputError(
            f"min_pushes = {options.min_pushes} is out of range: an episode has at most {most} actions (max_actions,"
            " max_steps, and turns times actions_per_turn); lower it or raise those"
        )
    if options.turns == 1 and options.invalid_penalty:
        raise InputError(
            f"invalid_penalty = {options.invalid_penalty:g} makes no sense with turns = 1: a plan that cannot be read earns"
            " 0, or with reward = gym as little as any plan; use invalid_penalty = 0, or more turns"
        )


def _play(state: SokobanState, actions: Sequence[str]) -> Iterator[SokobanState]:
    """The state after each action, until the room is solved."""
    for action in actions:
        if state.room.solved:
            return
        before = state.room
        room, effect = move(before, DIRECTIONS.index(action))
        pushes, path = state.pushes, state.path
        if effect == "push":  # the player now stands where the box stood
            pushes, path = (*pushes, f"{cell_name(room.player, room.width)}:{action}"), (*path, before)
            back = _place(room, path)
            pushes, path = pushes[:back], path[:back]
        state = SokobanState(room, pushes, path, state.moves + 1, state.turns, effect, reward(before, room))
        yield state


def _place(room: Room, path: Sequence[Room]) -> int:
    """Where on the path the position of ``room`` was met; its length where it was not."""
    for place, other in enumerate(path):
        if other.boxes == room.boxes and other.region >> room.player & 1:
            return place
    return len(path)


def _key(state: SokobanState) -> str:
    return ",".join(state.pushes) or NO_PUSH
