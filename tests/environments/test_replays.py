"""Episodes of several turns, move by move: the pictures are those of the states that the environment itself goes through."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

import pytest

from sesa_lab.environments import make
from sesa_lab.environments.contract import Replayed
from sesa_lab.environments.frozen_lake import lake_of, slips_of
from sesa_lab.environments.replays import UNREAD
from sesa_lab.environments.sokoban import room_of
from sesa_lab.environments.sokoban_rooms import DIRECTIONS, move
from sesa_lab.types import Episode, Frame, Task

FORMS: list[tuple[str, dict[str, Any]]] = [
    ("sokoban", {"turns": 4, "actions_per_turn": 5, "max_actions": 14, "invalid_penalty": 0.5}),
    ("sokoban", {"turns": 5, "actions_per_turn": 5, "answer_format": "tags", "boxes": 2, "reward": "gym", "tasks": 40}),
    ("frozen_lake", {"turns": 4, "actions_per_turn": 4, "invalid_penalty": 0.25}),
    ("frozen_lake", {"turns": 5, "actions_per_turn": 3, "slippery": "yes"}),
    ("frozen_lake", {"turns": 3, "slippery": "yes", "answer_format": "tags", "invalid_penalty": 0.1}),
]


def said(draw: random.Random, tags: bool) -> str:
    """What a policy may say in a turn: mostly actions, now and then something unknown or nothing."""
    words = [draw.choice(["up", "down", "left", "right"]) for _ in range(draw.randrange(8))]
    if draw.random() < 0.2:
        words.insert(draw.randrange(len(words) + 1), "jump")
    return f"<think>so</think><answer>{' || '.join(words)}</answer>" if tags else " ".join(words)


def played(env: Any, task: Task, texts: Sequence[str], seed: int) -> list[Episode]:
    """The environment's own play: reset, and each turn."""
    episodes = [env.reset(task, seed)]
    for text in texts:
        if not episodes[-1].over:
            episodes.append(env.step(episodes[-1], text))
    return episodes


def in_turns(env: Any, task: Task) -> list[str]:
    """The oracle's plan, as many actions a turn as count."""
    words = re.findall("up|down|left|right", env.oracle(task).lower())
    most = env.options["actions_per_turn"]
    parts = [words[first : first + most] for first in range(0, len(words), most)]
    tags = env.options["answer_format"] == "tags"
    return [f"<think></think><answer>{' || '.join(part)}</answer>" if tags else " ".join(part) for part in parts]


def picture_of(env: Any, episode: Episode) -> str:
    """The state that an episode is in, as a frame has it in plain text."""
    if env.name == "sokoban":
        return "\n".join(episode.state.room.rows())
    return "\n".join(lake_of(episode.task).drawing(episode.state.cell))


@pytest.mark.parametrize(("name", "options"), FORMS)
def test_pictures_and_verdicts_are_those_of_the_environment_s_own_play(name: str, options: dict[str, Any]) -> None:
    env, draw, ends = make(name, **options), random.Random(0), set()
    assert isinstance(env, Replayed)
    for number in range(40):
        task, seed = env.task(number % 8), draw.randrange(2**32)
        texts = [said(draw, options.get("answer_format") == "tags") for _ in range(env.turns)]
        if number % 4 == 0:
            texts = in_turns(env, task)
            seed = next((one for one in range(500) if played(env, task, texts, one)[-1].success), seed)
        own = played(env, task, texts, seed)
        told = env.replay(task, texts, seed)
        assert told[0] == env.render(task)[:1] and len(told) == len(own)
        for turn, (frames, before, after) in enumerate(zip(told[1:], own[:-1], own[1:], strict=True), start=1):
            moved = after.state.moves - before.state.moves
            assert len(frames) == max(1, moved), "a picture a move"
            assert frames[-1].text == picture_of(env, after)
            assert all(frame.svg.startswith("<svg") and frame.caption.startswith(f"turn {turn}: ") for frame in frames)
            assert f"; reward {after.rewards[-1]:g}" in frames[-1].caption
            assert moved or f": {UNREAD}; reward" in frames[-1].caption
        last = told[-1][-1].caption
        assert last.endswith("; solved" if own[-1].success else "; not solved")
        ends.add(own[-1].success)
        assert sum("solved" in frame.caption for frames in told for frame in frames) == 1, "the verdict is told once"
    assert ends == {True, False}


def test_a_slippery_lake_slips_as_the_episode_did() -> None:
    env = make("frozen_lake", turns=4, slippery="yes", size=5, min_distance=4, max_actions=12)
    task, lake, slipped = env.task(3), lake_of(env.task(3)), 0
    seen: dict[int, list[str]] = {}
    for seed in range(12):
        told = env.replay(task, ["right down", "left up", "right", "down"], seed)
        actions, cell = iter(["right", "down", "left", "up", "right", "down"]), lake.start
        luck = slips_of(lake.rows, seed, 12)
        moves = [frame for frames in told[1:] for frame in frames]
        for number, (frame, action) in enumerate(zip(moves, actions, strict=False)):
            order = ("left", "down", "right", "up").index(action)
            outcomes = lake.outcomes(cell, order, slippery=True)
            meant, cell = outcomes[1], outcomes[luck[number]]
            assert frame.text == "\n".join(lake.drawing(cell))
            assert (", slipped" in frame.caption) == (cell != meant)
            slipped += cell != meant
        seen[seed] = [frame.text for frame in moves]
    assert slipped > 10 and len({str(texts) for texts in seen.values()}) > 6, "other seeds, other luck"


def test_sokoban_moves_are_the_rules() -> None:
    env = make("sokoban", turns=6, max_actions=24)
    task = env.task(1)
    plan = env.oracle(task).split()
    told = env.replay(task, [" ".join(plan[:2]), "sideways", " ".join(plan[2:5]), " ".join(plan[5:])])
    room = room_of(task)
    frames = [frame for number, turn in enumerate(told[1:], start=1) if number != 2 for frame in turn]
    for action, frame in zip(plan, frames, strict=False):
        room, _ = move(room, DIRECTIONS.index(action))
        assert frame.text == "\n".join(room.rows())
    assert told[2] == [Frame(f"turn 2: {UNREAD}; reward 0", told[1][-1].text, told[1][-1].svg)]


def test_an_episode_that_was_left_open_says_that_it_is_not_solved() -> None:
    env = make("sokoban", turns=5)
    task = env.task(0)
    assert env.replay(task, []) == [env.render(task)[:1]]
    told = env.replay(task, ["up"])
    assert len(told) == 2 and told[1][-1].caption.endswith("; reward 0; not solved")
