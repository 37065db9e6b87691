"""Sokoban's rules, rewards and rooms against gym-sokoban 0.0.6, as rivals/record_gym_sokoban.py recorded it."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import chi2_contingency

from sesa_lab.environments import make
from sesa_lab.environments.sokoban_rooms import DIRECTIONS, Room, generate, move, reward
from sesa_lab.environments.sokoban_solver import solve
from sesa_lab.seeding import stream
from sesa_lab.types import Task

RECORDING = Path(__file__).parent / "gym_sokoban_0.0.6.json.gz"


@cache
def recording() -> dict[str, Any]:
    with gzip.open(RECORDING) as file:
        loaded: dict[str, Any] = json.load(file)
    return loaded


def room_of(fixed: str, state: str, width: int) -> Room:
    """gym-sokoban's digits: 0 wall, 1 floor, 2 target, 3 box on target, 4 box, 5 player."""

    def group(text: str, symbols: str) -> int:
        return sum(1 << cell for cell, symbol in enumerate(text) if symbol in symbols)

    return Room(width, len(fixed) // width, group(fixed, "12"), group(fixed, "2"), group(state, "34"), state.index("5"))


def digits(room: Room) -> str:
    names = {"#": "0", "_": "1", "O": "2", "√": "3", "X": "4", "P": "5", "S": "5"}
    return "".join(names[symbol] for row in room.rows() for symbol in row)


def test_the_recording_is_worth_something() -> None:
    rewards = [earned for episode in recording()["episodes"] for earned in episode["rewards"]]
    assert len(rewards) >= 10_000
    # every kind: a plain action, a box onto a target, a box off one, the solving one
    kinds = {round(earned, 6) for earned in rewards}
    assert kinds == {-0.1, 0.9, -1.1, 10.9}
    assert min(sum(round(earned, 6) == kind for earned in rewards) for kind in kinds) >= 50
    assert {(e["height"], e["width"]) for e in recording()["episodes"]} == {(6, 6), (7, 9), (7, 7), (9, 8)}


def test_states_and_rewards_are_those_of_gym_sokoban() -> None:
    for episode in recording()["episodes"]:
        room = room_of(episode["fixed"], episode["start"], episode["width"])
        for action, state, earned in zip(episode["actions"], episode["states"], episode["rewards"], strict=True):
            assert not room.solved
            after, effect = move(room, int(action) - 1)
            assert digits(after) == state
            assert reward(room, after) == earned  # to the last bit
            assert effect == ("bump" if after == room else "walk" if after.boxes == room.boxes else "push")
            room = after
        assert room.solved is episode["solved"]
        assert room.solved or len(episode["actions"]) == recording()["max_steps"]


def test_whole_plans_earn_what_gym_sokoban_gives() -> None:
    limit = recording()["max_steps"]
    env = make("sokoban", reward="gym", max_actions=100, max_steps=limit, exact_plan="no")
    for episode in recording()["episodes"]:
        room = room_of(episode["fixed"], episode["start"], episode["width"])
        plan = " ".join(DIRECTIONS[int(action) - 1] for action in episode["actions"])
        score = env.score(Task(0, "?", {"room": room.rows()}), plan + " up" * limit)
        assert (score.reward, score.success) == (sum(episode["rewards"]), episode["solved"])


def test_rooms_are_of_the_kind_that_gym_sokoban_makes() -> None:
    # 1,000 of its rooms (6x6, one box, a walk of 20 steps) and 4,000 of ours have the same distribution of the fewest
    # pushes and of the floor's size by chi-square tests; each would raise a false alarm once in 1,000, and seeds are fixed.
    theirs = [room_of(room["fixed"], room["start"], 6) for room in recording()["rooms"]]
    drawn = (
        generate(
            stream(3, "environment", 5, n), height=6, width=6, boxes=1, walk_steps=20, search_depth=300, player_steps=0
        )
        for n in range(5_000)
    )
    ours = [room for room in drawn if room is not None][:4_000]
    assert len(theirs) == 1_000 and len(ours) == 4_000

    def pushes(room: Room) -> int:
        solved = solve(room, 100)
        assert solved is not None
        return min(solved.pushes, 4)

    def size(room: Room) -> int:
        return min(max(room.floor.bit_count(), 6), 15)

    for measure in (pushes, size):
        counts = [np.bincount([measure(room) for room in rooms], minlength=16) for rooms in (theirs, ours)]
        table = np.array(counts)[:, np.sum(counts, axis=0) > 0]
        assert chi2_contingency(table).pvalue > 0.001
