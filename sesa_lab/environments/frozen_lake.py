"""Frozen lake: walk over ice to the goal and into no hole; the dynamics are Gymnasium's ``FrozenLake``.

A step off the map leaves the player where it is, a hole ends the episode with reward 0, the goal ends it with reward 1. On
slippery ice the player goes where it wants to, or to either side of that, with probability 1/3 each; the slips of an episode
are fixed by its seed and its map.

In the lab an answer is one whole plan. With ``turns`` > 1 the player is told the state after each turn, as in RAGEN
(https://github.com/RAGEN-AI/RAGEN), whose settings are ``PAPER``.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from sesa_lab.config import option
from sesa_lab.environments.contract import check_index, check_open
from sesa_lab.environments.grid import Plan, cell_name, legs, picture, read_plan
from sesa_lab.environments.lake import ACTIONS, Lake, lake_from
from sesa_lab.environments.pool import HARD, SPLITS, Pool
from sesa_lab.environments.replays import UNREAD, played_again
from sesa_lab.errors import InputError
from sesa_lab.seeding import stream
from sesa_lab.types import Episode, Frame, Score, Task

# Positions among the "environment" streams of a seed; changing one changes every run.
_MAPS, _SLIPS = 4, 6

MOST_LEGS = 4  # of a sketch
_KNOWN = {name: name for name in ACTIONS}
_NUMBERS = {name: number for number, name in enumerate(ACTIONS)}
_FILLS = {"P": "#d5ebf7", "_": "#d5ebf7", "O": "#1f4e79", "G": "#a8dba8", "X": "#1f4e79", "√": "#a8dba8"}
_GLYPHS = {"P": ("●", "#c0392b"), "G": ("★", "#1e6b1e"), "X": ("×", "#ff8a7a"), "√": ("●", "#c0392b")}


@dataclass(frozen=True)
class FrozenLakeOptions:
    """Walk over a frozen lake to the goal and into no hole."""

    PAPER: ClassVar[dict[str, Any]] = {
        "size": 4, "slippery": "yes", "min_distance": 1, "turns": 5, "actions_per_turn": 5, "max_actions": 10,
        "answer_format": "tags", "invalid_penalty": 0.1, "exact_plan": "no",
    }  # fmt: skip

    size: int = option(5, "cells a side of the square lake", low=2, high=20)
    frozen: float = option(0.8, "probability that a cell is ice and no hole", above=0.0, high=1.0)
    slippery: str = option(
        "no", "yes: each move goes where it should or to either side of that, 1/3 each", choices=("no", "yes")
    )
    min_distance: int = option(4, "least length of the shortest plan, moves", low=1, high=399)
    placing: str = option(
        "random", "start and goal: any two cells, or top left and bottom right", choices=("random", "corners")
    )
    turns: int = option(1, "most turns of an episode; 1: the answer is the whole plan", low=1, high=100)
    actions_per_turn: int = option(5, "turns > 1 only: actions of a turn beyond these are dropped", low=1, high=400)
    max_actions: int = option(12, "actions of an episode beyond these are dropped", low=1, high=400)
    exact_plan: str = option(
        "yes",
        "turns = 1 only: whether a plan that goes on after the goal, or beyond max_actions, fails",
        choices=("no", "yes"),
    )
    answer_format: str = option(
        "plain", "plain: actions only; tags: <think>...</think><answer>...</answer>", choices=("plain", "tags")
    )
    invalid_penalty: float = option(
        0.0, "turns > 1 only: cost of a turn with an unknown action, or without a known one", low=0.0, high=100.0
    )
    split: str = option(
        "train",
        "which part of all maps: train (80 %), validation or test (10 % each); a map is all of it, so that the same holes with"
        " another start or goal may lie in another part (5x5: 17 % of test lakes share their holes with a train lake, 4x4: 75 %)",
        choices=SPLITS,
    )
    hard: str = option(
        "natural",
        "natural (as drawn), half (every other one), all or none; hard: no shortest plan is straight, or goes"
        " horizontally and then vertically",
        choices=HARD,
    )
    tasks: int = option(4096, "distinct tasks; task i is task i mod tasks", low=1, high=1_000_000)
    seed: int = option(0, "fixes the maps", low=0, high=2**32 - 1)
    repeats: str = option(
        "count",
        "whether a walk that came earlier in its group earns again (count) or nothing (zero)",
        choices=("count", "zero"),
    )


class LakeState(NamedTuple):
    """Where an episode stands.

    Attributes:
        cell: the player's.
        walk: the names of the cells from the start to there, loops erased, as the strategy has them: ``aa-ab-bb``.
        slips: for each action that an episode may hold, which of ``Lake.outcomes`` it has (0, 1 or 2); empty: no slipping.
        moves: actions carried out.
    """

    cell: int
    walk: str
    slips: bytes = b""
    moves: int = 0


class FrozenLake:
    """The environment; see ``contract.Environment`` for what every environment has.

    A strategy is the walk that was made, loops erased, as names of cells (see ``grid``): bumps and detours that return do
    not count. On slippery ice solutions, oracle and sketches are those of the same lake where it is not slippery.

    Luck on slippery ice is a function of an episode's seed and its map (``slips_of``). An answer judged whole has seed 0:
    with ``turns`` = 1 the luck of a lake is part of the task, the same for every answer to it, and another on another lake.
    """

    name = "frozen_lake"
    policy_options: tuple[str, ...] = ("size", "frozen", "min_distance", "placing", "turns", "answer_format")

    def __init__(self, options: FrozenLakeOptions) -> None:
        """Nothing is drawn yet.

        Raises:
            InputError: a least distance of more than an episode's actions, or a penalty where the answer is judged whole.
        """
        self.options: dict[str, Any] = dataclasses.asdict(options)
        self.repeats: Literal["count", "zero"] = "zero" if options.repeats == "zero" else "count"
        self.turns, self.count = options.turns, options.tasks
        self._options = options
        self._slippery = options.slippery == "yes"
        self._exact = options.exact_plan == "yes" and options.turns == 1
        self._per_turn = options.actions_per_turn if options.turns > 1 else options.max_actions
        self._most_moves = min(options.max_actions, options.turns * self._per_turn)
        if options.turns == 1 and options.invalid_penalty:
            raise InputError(
                f"invalid_penalty = {options.invalid_penalty:g} needs turns > 1: a single answer that cannot be read earns 0;"
                " set it to 0"
            )
        if options.min_distance > self._most_moves:
            raise InputError(
                f"min_distance = {options.min_distance} is out of range: an episode has at most {self._most_moves} actions"
                " (max_actions, and turns times actions_per_turn); lower it or raise those"
            )
        self._pool: Pool[Lake] = Pool(
            self._draw,
            lambda lake: "/".join(lake.rows),
            Lake.hard,
            lambda number: stream(options.seed, "environment", _MAPS, number),
            split=options.split,
            hard=options.hard,
            label=self.name,
        )

    def task(self, index: int) -> Task:
        """Task ``index``: a lake on which the goal can be reached within the limits.

        Raises:
            InputError: a bad index, or options that leave fewer than ``tasks`` lakes.
        """
        index = check_index(index)
        lake = self._pool[index % self.count]
        holes = [cell_name(cell, lake.size) for cell, kind in enumerate(lake.cells) if kind == "H"]
        data = {
            "map": list(lake.rows),
            "size": lake.size,
            "start": cell_name(lake.start, lake.size),
            "goal": cell_name(lake.goal, lake.size),
            "holes": " ".join(holes) or "none",
            "grid": "\n".join(lake.drawing(lake.start)),
            "ice": _ICE[self._slippery],
            "limits": self._limits(),
            "format": self._format(),
            "hard": lake.hard(),
        }
        return Task(index, _PROMPT.format(**data), data)

    def score(self, task: Task, text: str) -> Score:
        """1.0 where the goal is reached, else 0.0. The text is one whole plan, whatever ``turns`` is.

        Where ``turns`` is 1 and ``exact_plan`` yes, a plan with actions left over, after the goal or beyond the limit, earns
        0.0 too: else wandering until the goal is met by chance would do. Its strategy is the walk that was made.

        ``plain``: a text that holds anything but actions has no strategy. ``tags``: of the actions within the limit
        unknown ones are skipped, without penalty here; without a known one there is no strategy.
        """
        plan = self._read(text, self._most_moves)
        if not plan.actions:
            return Score(0.0, False, None)
        lake = lake_of(task)
        state = _moved(lake, self._begin(lake, 0), plan.actions)
        found = state.cell == lake.goal and not self._goes_on(plan, state)
        return Score(float(found), found, state.walk)

    def reset(self, task: Task, seed: int = 0) -> Episode:
        return Episode(task, seed, self._begin(lake_of(task), seed))

    def step(self, episode: Episode, text: str) -> Episode:
        """One turn: its actions one after another, until it is over or the limits are met.

        The first ``actions_per_turn`` actions count; of these, unknown ones are skipped (``plain``: they make the whole
        turn unreadable). The reward shown with the next state is the one recorded, penalty included (``tags``; ``plain``
        tells the player's cell and the actions left). A single turn (``turns`` = 1) is judged as ``score`` judges it.
        """
        check_open(episode)
        lake, before = lake_of(episode.task), episode.state
        plan = self._turn(before, text)
        state = _moved(lake, before, plan.actions)
        found = state.cell == lake.goal and not self._goes_on(plan, state)
        reward = float(found) - (self._options.invalid_penalty if plan.invalid else 0.0)
        rewards = episode.rewards + (reward,)  # noqa: RUF005 - unpacking takes twice as long
        terminated = lake.over[state.cell]
        truncated = not terminated and (state.moves >= self._most_moves or len(rewards) >= self.turns)
        # Built anew, for dataclasses.replace would take half the time of the whole step.
        return Episode(
            episode.task,
            episode.seed,
            state,
            "" if terminated or truncated else self._observation(lake, state, rewards),
            rewards,
            terminated,
            truncated,
            found,
            state.walk if state.moves else None,
        )

    def enumerate(self, task: Task) -> list[str] | None:
        """None: walks are too many."""
        return None

    def solutions(self, task: Task) -> list[str] | None:
        """All shortest plans, in the order left, down, right, up; None if more than ``MOST_SOLUTIONS``."""
        plans = lake_of(task).plans()
        return None if plans is None else [self._written(plan) for plan in plans]

    def oracle(self, task: Task) -> str:
        """The first of the shortest plans."""
        return self._written(lake_of(task).plan())

    def sketch(self, task: Task, text: str) -> str | None:
        """The directions of the walk's legs, at most the first ``MOST_LEGS``: "right down right"; "stay" without any."""
        plan = self._read(text, self._most_moves)
        if not plan.actions:
            return None
        lake = lake_of(task)
        walk = _moved(lake, _start(lake), plan.actions).walk.split("-")
        return " ".join(legs([lake.names.index(name) for name in walk], lake.size)[:MOST_LEGS]) or "stay"

    def habitual(self, sketch: str) -> bool:
        """Whether it is straight on, or horizontal and then vertical."""
        return sketch in _HABITS

    def render(self, task: Task, text: str = "") -> list[Frame]:
        """The lake, then one frame a move, in RAGEN's symbols; chance is that of ``reset(task)``."""
        lake, plan = lake_of(task), self._read(text, self._most_moves)
        steps = _steps(lake, self._begin(lake, 0), plan.actions)
        frames = [_frame("start", lake, lake.start)]
        for number, (state, caption) in enumerate(steps, start=1):
            more = "; the plan goes on" if number == len(steps) and self._goes_on(plan, state) else ""
            frames.append(_frame(f"{caption}{more}", lake, state.cell))
        return frames

    def replay(self, task: Task, turns: Sequence[str], seed: int = 0) -> list[list[Frame]]:
        """As ``contract.Replayed``, in RAGEN's symbols; each slip is the episode's own."""
        lake = lake_of(task)

        def moves(state: LakeState, text: str) -> list[Frame]:
            steps = _steps(lake, state, self._turn(state, text).actions)
            return [_frame(caption, lake, after.cell) for after, caption in steps] or [_frame(UNREAD, lake, state.cell)]

        return played_again(self, task, turns, seed, _frame("start", lake, lake.start), moves)

    def _draw(self, generator: np.random.Generator) -> Lake | None:
        size = self._options.size
        cells = np.where(generator.random(size * size) < self._options.frozen, "F", "H").tolist()
        start, goal = 0, len(cells) - 1
        if self._options.placing == "random":
            start, goal = generator.choice(len(cells), 2, replace=False).tolist()
        cells[start], cells[goal] = "S", "G"
        lake = Lake(tuple("".join(cells[first : first + size]) for first in range(0, size * size, size)))
        fits = self._options.min_distance <= lake.distance.get(start, -1) <= self._most_moves
        return lake if fits else None

    def _read(self, text: str, most: int) -> Plan:
        return read_plan(text, _KNOWN, self._options.answer_format, most)

    def _turn(self, state: LakeState, text: str) -> Plan:
        """What one turn says to do, as far as the episode has actions left."""
        plan = self._read(text, self._per_turn)
        return Plan(plan.actions[: self._most_moves - state.moves], plan.invalid, plan.known)

    def _goes_on(self, plan: Plan, state: LakeState) -> bool:
        """Whether a plan that has to be exact has actions beyond those that led to ``state``."""
        return self._exact and plan.known > state.moves

    def _begin(self, lake: Lake, seed: int) -> LakeState:
        """The state before the first turn, with all the luck of the episode."""
        return _start(lake, slips_of(lake.rows, seed, self._most_moves) if self._slippery else b"")

    def _observation(self, lake: Lake, state: LakeState, rewards: Sequence[float]) -> str:
        left = self._most_moves - state.moves
        if self._options.answer_format == "plain":
            return f"at {lake.names[state.cell]} left {left}"
        drawing = "\n".join(lake.drawing(state.cell))
        return (
            f"Reward:\n{rewards[-1]:g}\n\nTurn {len(rewards) + 1}:\nState:\n{drawing}\n"
            f"You have {left} actions left. {self._format()}"
        )

    def _limits(self) -> str:
        most = f"{self._most_moves} actions"
        if self._exact:
            return f"at most {most}; a plan that is longer, or goes on after the goal is reached, fails"
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
            " extra text, like this: <think>The hole is below me, so I go right first.</think>"
            "<answer>Right || Down</answer> Be brief: what is too long is cut off."
        )

    def _written(self, plan: list[str]) -> str:
        if self._options.answer_format == "plain":
            return " ".join(plan)
        return f"<think></think><answer>{' || '.join(plan)}</answer>"


_HABITS = {*ACTIONS, *(f"{across} {along}" for across in ("left", "right") for along in ("up", "down"))}

_ICE = {
    False: "The ice is not slippery: you go where you want to.",
    True: "The ice is slippery: with probability 1/3 each, you go where you want to, or to either side of that.",
}
_TOLD = (
    "\nAfter each turn you are told where you are and how many actions are left, like this: at bc left 6 (row b, the second"
    " from the top; column c, the third from the left)"
)
_PROMPT = (
    "You are on a frozen lake of {size} by {size} cells. Symbols: P you, _ ice, O a hole, G the goal.\n\n{grid}\n\nReach the"
    " goal and step into no hole. Actions: left, down, right, up; a step off the lake leaves you where you are. {ice} You"
    " have {limits}. {format}"
)


def lake_of(task: Task) -> Lake:
    """The lake of a task of this environment."""
    return lake_from(tuple(task.data["map"]))


@lru_cache(maxsize=16_384)
def slips_of(rows: tuple[str, ...], seed: int, most_moves: int) -> bytes:
    """The luck of an episode: for each of its actions one of 0, 1, 2, equally likely and independent.

    Lakes that differ at all, and seeds that do, have independent slips; action i slips alike whatever ``most_moves`` is.

    Args:
        rows: the map, start and goal included.
        seed: the episode's, 0 .. 2^32 - 1.
        most_moves: how many actions an episode may hold.
    """
    digest = hashlib.sha256("/".join(rows).encode()).digest()
    words = (int.from_bytes(digest[:4]), int.from_bytes(digest[4:8]))
    return stream(seed, "environment", _SLIPS, *words).integers(3, size=most_moves, dtype=np.uint8).tobytes()


def _start(lake: Lake, slips: bytes = b"") -> LakeState:
    return LakeState(lake.start, lake.names[lake.start], slips)


def _moved(lake: Lake, state: LakeState, actions: Sequence[str]) -> LakeState:
    """The state after these actions, or after as many of them as there are until it is over; it is not over before."""
    cell, walk, slips, moves = state
    for action in actions:
        cell = lake.outcomes(cell, _NUMBERS[action], bool(slips))[slips[moves] if slips else 0]
        name = lake.names[cell]
        walk = f"{walk[: walk.index(name)]}{name}" if name in walk else f"{walk}-{name}"
        moves += 1
        if lake.over[cell]:
            break
    return LakeState(cell, walk, slips, moves)


def _steps(lake: Lake, state: LakeState, actions: Sequence[str]) -> list[tuple[LakeState, str]]:
    """The state after each action until it is over, with what happened in words."""
    found: list[tuple[LakeState, str]] = []
    for action in actions:
        before, state = state, _moved(lake, state, [action])
        meant = lake.outcomes(before.cell, _NUMBERS[action], slippery=False)
        slipped = "" if state.cell in meant else ", slipped"
        ending = {"G": ": at the goal", "H": ": into a hole"}.get(lake.cells[state.cell], "")
        found.append((state, f"{state.moves}. {action}{slipped}{ending}"))
        if lake.over[state.cell]:
            break
    return found


def _frame(caption: str, lake: Lake, player: int) -> Frame:
    rows = lake.drawing(player)
    return Frame(caption, "\n".join(rows), picture(rows, _FILLS, _GLYPHS))
