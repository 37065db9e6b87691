"""Sokoban: what is asked, what a plan and a turn earn, what counts as one way, how it is shown."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
import time
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sesa_lab.environments import check, make, pool
from sesa_lab.environments.pool import split_of
from sesa_lab.environments.sokoban import Sokoban, SokobanOptions, room_of
from sesa_lab.environments.sokoban_rooms import DIRECTIONS, Room, cells, generate, move, parse
from sesa_lab.environments.sokoban_solver import solve
from sesa_lab.errors import InputError
from sesa_lab.prompts import task_text
from sesa_lab.seeding import stream
from sesa_lab.types import Episode, Score, Task


def env_of(preset: str = "lab", **options: Any) -> Sokoban:
    env = make("sokoban", preset, **options)
    assert isinstance(env, Sokoban)
    return env


def task_of(*rows: str) -> Task:
    """A task of this very room; scoring and stepping ask for nothing else."""
    return Task(0, "?", {"room": list(rows)})


# The shortest way: down is a walk; right pushes the box twice, onto the target.
ROOM = task_of("#######", "#P____#", "#_X_O_#", "#_____#", "#######")
SOLUTION = "down right right"
KEY = "cc:right,cd:right"


@pytest.mark.parametrize(
    "preset, options",
    [
        ("lab", {}),
        ("paper", {}),
        ("lab", {"height": 6, "width": 6, "boxes": 2, "hard": "half", "split": "test", "tasks": 50, "reward": "gym"}),
        ("lab", {"turns": 3, "actions_per_turn": 8, "invalid_penalty": 0.5, "repeats": "zero"}),
        ("paper", {"turns": 1, "invalid_penalty": 0.0, "boxes": 2, "min_pushes": 2}),
        ("lab", {"answer_format": "tags", "max_steps": 20}),
        ("lab", {"exact_plan": "no"}),
    ],
)
def test_keeps_the_contract(preset: str, options: dict[str, Any]) -> None:
    check(make("sokoban", preset, **options))


def test_options_are_resolved_and_rebuild_the_environment() -> None:
    env = env_of("paper", height=7.0, seed=3)
    assert env.options["height"] == 7 and env.options["answer_format"] == "tags" and env.turns == 5
    assert make(env.name, **env.options).options == env.options
    assert env_of().repeats == "count" and env_of(repeats="zero").repeats == "zero"
    assert Sokoban(SokobanOptions()).task(0) == env_of().task(0)
    assert set(env.policy_options) <= set(env.options)


def test_options_that_do_not_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="min_pushes = 11 is out of range: an episode has at most 10 actions"):
        env_of("paper", min_pushes=11)
    with pytest.raises(InputError, match="at most 6 actions"):
        env_of(turns=2, actions_per_turn=3, min_pushes=7)
    with pytest.raises(InputError, match=r"invalid_penalty = 0.1 makes no sense with turns = 1"):
        env_of(invalid_penalty=0.1)
    monkeypatch.setattr(pool, "MOST_DRAWS", 200)
    with pytest.raises(InputError, match="only 0 distinct tasks were found"):
        env_of(height=4, width=4, min_pushes=5).task(0)  # 2 x 2 cells: a box cannot be pushed at all


# ---- rooms


def test_rooms_never_move() -> None:
    # Frozen on the day they were first made (numpy 2.4); other rooms make runs of one config incomparable.
    assert env_of().task(0).data["room"] == FIRST_LAB_ROOM
    paper = env_of("paper")
    rooms = [paper.task(index).data["room"] for index in range(100)]
    assert hashlib.sha256(json.dumps(rooms).encode()).hexdigest()[:16] == FIRST_PAPER_ROOMS


FIRST_LAB_ROOM = ["#######", "#__####", "#___###", "#O____#", "#___XP#", "#_____#", "#######"]
FIRST_PAPER_ROOMS = "299c6f8804fd804d"


@pytest.mark.parametrize(
    "preset, options, tasks",
    [("lab", {}, 150), ("paper", {}, 150), ("paper", {"boxes": 3, "split": "test"}, 15)],
)
def test_every_room_keeps_what_the_options_promise(preset: str, options: dict[str, Any], tasks: int) -> None:
    env = env_of(preset, **options)
    height, width = env.options["height"], env.options["width"]
    border = {
        cell for cell in range(height * width) if cell // width in (0, height - 1) or cell % width in (0, width - 1)
    }
    for index in range(tasks):
        task = env.task(index)
        room = room_of(task)
        assert (room.height, room.width) == (height, width) == (len(task.data["room"]), len(task.data["room"][0]))
        assert not border & set(cells(room.floor))
        assert room.boxes.bit_count() == room.targets.bit_count() == env.options["boxes"]
        assert not room.boxes & room.targets  # every box off its target, as gym-sokoban has it
        assert (room.boxes | room.targets | 1 << room.player) & ~room.floor == 0
        assert not room.boxes >> room.player & 1
        solved = solve(room, env.options["max_actions"])
        assert solved is not None and solved.pushes >= env.options["min_pushes"]
        score = env.score(task, env.oracle(task))
        assert score.success and score.strategy is not None
        assert solved.shortest is not None and len(solved.shortest) <= env.options["max_actions"]


def test_lab_rooms_have_several_ways_and_many_need_more_than_a_habit() -> None:
    # Measured on the first 4,096 lab tasks: 41.5 % hard, 4.60 solutions a room (quartiles 1, 3, 6). Of 600: the standard
    # errors are 2.0 points and 0.2.
    env = env_of()
    tasks = [env.task(index) for index in range(600)]
    assert 0.3 < np.mean([task.data["hard"] for task in tasks]) < 0.55
    ways = [len(env.solutions(task) or []) for task in tasks]
    assert np.mean(ways) > 3.5 and min(ways) >= 1


def test_hard_means_that_no_solution_is_habitual() -> None:
    env = env_of()
    for index in range(200):
        task = env.task(index)
        sketches = [env.sketch(task, plan) for plan in env.solutions(task) or []]
        assert task.data["hard"] is not any(env.habitual(sketch or "") for sketch in sketches)
    assert all(env_of(hard="all").task(index).data["hard"] for index in range(20))
    assert not any(env_of(hard="none").task(index).data["hard"] for index in range(20))
    assert [env_of(hard="half").task(index).data["hard"] for index in range(20)] == [False, True] * 10


def test_splits_share_no_room() -> None:
    layouts = {}
    for split in ("train", "validation", "test"):
        env = env_of("paper", split=split)
        layouts[split] = {room_of(env.task(index)).layout() for index in range(80)}
        assert all(split_of(layout) == split for layout in layouts[split])
    assert len(set.union(*layouts.values())) == sum(map(len, layouts.values()))
    assert "P" not in "".join(layouts["train"]) and "S" not in "".join(layouts["train"])


def test_tasks_differ_and_come_round() -> None:
    env = env_of(tasks=300)
    rooms = {tuple(env.task(index).data["room"]) for index in range(300)}
    assert len(rooms) == 300
    assert env.task(301).data == env.task(1).data and env.task(301).prompt == env.task(1).prompt
    assert env_of(seed=1).task(0).data != env.task(0).data


@pytest.mark.slow
def test_ten_thousand_tasks_differ() -> None:
    env = env_of(tasks=10_000)
    assert len({tuple(env.task(index).data["room"]) for index in range(10_000)}) == 10_000


def test_rooms_are_made_quickly() -> None:
    start = time.process_time()
    for number in range(200):
        generate(
            stream(0, "environment", 5, number),
            height=6, width=6, boxes=1, walk_steps=20, search_depth=300, player_steps=3,
        )  # fmt: skip
    assert time.process_time() - start < 1.0  # about 0.05 s


def test_the_player_wanders_and_nothing_else() -> None:
    for number in range(50):
        options = {"height": 6, "width": 6, "boxes": 2, "walk_steps": 20, "search_depth": 300}
        still = generate(stream(0, "environment", 5, number), player_steps=0, **options)
        moved = generate(stream(0, "environment", 5, number), player_steps=3, **options)
        assert (still is None) is (moved is None)
        if still is not None and moved is not None:
            assert (still.floor, still.boxes, still.targets) == (moved.floor, moved.boxes, moved.targets)
            apart = abs(still.player % 6 - moved.player % 6) + abs(still.player // 6 - moved.player // 6)
            assert apart <= 3


def test_search_depth_bounds_the_reverse_play() -> None:
    # In 1 action from the solved room no box and player can both have left the targets by more than one pull.
    for number in range(100):
        room = generate(
            stream(0, "environment", 5, number),
            height=6, width=6, boxes=1, walk_steps=20, search_depth=2, player_steps=0,
        )  # fmt: skip
        if room is not None:
            (box,), (target,) = cells(room.boxes), cells(room.targets)
            assert abs(box - target) in (1, 6)


# ---- rules


def moved(rows: Sequence[str], direction: str) -> tuple[list[str], str]:
    after, effect = move(parse(list(rows)), DIRECTIONS.index(direction))
    return after.rows(), effect


def test_rules_by_hand() -> None:
    assert moved(["#####", "#P_X#", "#####"], "right") == (["#####", "#_PX#", "#####"], "walk")
    assert moved(["#####", "#_PX#", "#####"], "right") == (["#####", "#_PX#", "#####"], "bump")  # wall behind the box
    assert moved(["######", "#PXX_#", "######"], "right")[1] == "bump"  # a box behind the box
    assert moved(["#####", "#P__#", "#####"], "up")[1] == "bump"
    assert moved(["######", "#PXO_#", "######"], "right") == (["######", "#_P√_#", "######"], "push")
    assert moved(["######", "#P√__#", "######"], "right") == (["######", "#_SX_#", "######"], "push")
    assert moved(["#####", "#_XP#", "#####"], "right")[1] == "bump"
    assert moved(["#####", "#_XP#", "#####"], "left") == (["#####", "#XP_#", "#####"], "push")
    assert moved(["####", "#P_#", "#X_#", "#O_#", "####"], "down")[0] == ["####", "#__#", "#P_#", "#√_#", "####"]


def test_rooms_are_written_and_read() -> None:
    env = env_of(boxes=2)
    for index in range(20):
        room = room_of(env.task(index))
        assert parse(room.rows()) == room
    room = parse(["######", "#S√X_#", "######"])
    assert room == Room(6, 3, 0b011110 << 6, 0b000110 << 6, 0b001100 << 6, 7)
    assert room.layout() == "######/#O√X_#/######"
    assert room.names(room.boxes) == "bc bd" and room.name(room.player) == "bb"


# ---- answers


def test_score_of_a_plan() -> None:
    env = env_of()
    assert env.score(ROOM, SOLUTION) == Score(1.0, True, KEY)
    assert env.score(ROOM, "down right") == Score(0.0, False, "cc:right")
    assert env.score(ROOM, "up up") == Score(0.0, False, "no push")
    for text in ("", " ", "right!", "down rigth right", "push right", "I think: down right right", "down|right"):
        assert env.score(ROOM, text) == Score(0.0, False, None)


def test_wording_and_wandering_do_not_count() -> None:
    env = env_of()
    for text in (
        "DOWN Right right\n", "down,right,right", "down || right || right", "down\nright\r\nright", "down, right\tright",
        "up down right right", "right left down right right", "down right up up down right",
    ):  # fmt: skip
        assert env.score(ROOM, text) == Score(1.0, True, KEY)
    # what comes after the room is solved does not count, but must not be
    assert env.score(ROOM, SOLUTION + " right left up") == Score(0.0, False, KEY)


def test_a_plan_that_goes_on_fails_where_it_has_to_be_exact() -> None:
    exact, lenient = env_of(max_actions=4), env_of(max_actions=4, exact_plan="no")
    several = env_of(max_actions=4, turns=2)
    won, failed = Score(1.0, True, KEY), Score(0.0, False, KEY)
    for plan in (f"{SOLUTION} up", f"{SOLUTION} up up up", f"up {SOLUTION} up"):  # within the limit, beyond it, both
        episode = turns(exact, ROOM, plan)
        assert exact.score(ROOM, plan) == episode.verdict == failed
        assert episode.terminated and not episode.truncated and not episode.success  # solved, and yet it fails
        assert lenient.score(ROOM, plan) == turns(lenient, ROOM, plan).verdict == won
        assert several.score(ROOM, plan) == won and turns(several, ROOM, plan).success  # turns = 1 only
    assert exact.score(ROOM, f"up {SOLUTION}") == won
    for env in (exact, lenient):  # as before, the longest plan that is read is carried out as far as the limit
        assert env.score(ROOM, "down right up up " * 5_000) == Score(0.0, False, "cc:right")
        assert env.score(ROOM, "down right up up " * 6_000) == Score(0.0, False, None)  # 102,000 characters
    tagged_env = env_of(answer_format="tags", max_actions=4)
    assert tagged_env.score(ROOM, tagged("down || right || right || hop || hop")).success  # unknown ones are skipped
    assert not tagged_env.score(ROOM, tagged("down || right || right || hop || up")).success


def test_gym_rewards_by_hand() -> None:
    env = env_of(reward="gym")
    # 3 actions, box onto target, all solved: -0.1 -0.1 +10.9
    assert env.score(ROOM, SOLUTION).reward == pytest.approx(10.7)
    assert env_of(reward="gym", exact_plan="no").score(ROOM, SOLUTION + " up").reward == pytest.approx(10.7)
    # a plan that goes on never earns more than 0; else an unsolved one (3 actions, -0.3) would gain by it
    assert env.score(ROOM, SOLUTION + " up") == Score(0.0, False, KEY)
    assert env_of(reward="gym", max_actions=3).score(ROOM, "up up up up").reward == pytest.approx(-0.3)
    assert env.score(ROOM, "up up").reward == pytest.approx(-0.2)  # bumps are actions too
    # up: -0.1 -1 (off its target); right, right: -0.1, -0.1 + 1; then round (-0.3 of walking up, up, left) and down with
    # the last box onto its target: -0.1 + 1 + 10. See test_a_box_on_its_target_may_have_to_leave_it for the way.
    task = task_of("########", "#______#", "#______#", "#P√XO__#", "#______#", "########")
    score = env.score(task, "down right up right up up left down")
    assert score.success and score.strategy == "dc:up,dd:right,cc:down"
    assert score.reward == pytest.approx(-0.1 - 0.1 - 1.1 + 0.9 - 0.1 - 0.1 - 0.1 + 10.9)


def test_silence_earns_no_more_than_a_failed_plan() -> None:
    # Once it earned 0, and a failed plan of n actions -0.1 n: to say nothing was best for whoever could not solve the room.
    env = env_of(reward="gym")
    idle = env.score(ROOM, "up " * 24)  # 24 actions that move nothing: -0.1 * 24
    assert idle.reward == pytest.approx(-2.4) and idle.strategy == "no push"
    for text in ("", "sideways", "up sideways", "up " * 40_000):
        assert env.score(ROOM, text) == Score(idle.reward, False, None) == turns(env, ROOM, text).verdict
    assert env.score(ROOM, SOLUTION + " up").reward > idle.reward < env.score(ROOM, "up").reward
    # the limit is that of the episode: the lower of the two, or what the turns allow
    assert env_of(reward="gym", max_actions=5).score(ROOM, "").reward == pytest.approx(-0.5)
    assert env_of(reward="gym", max_steps=7).score(ROOM, "").reward == pytest.approx(-0.7)
    assert env_of("paper", turns=1, invalid_penalty=0).score(ROOM, "").reward == pytest.approx(-1.0)
    assert env_of("paper").score(ROOM, tagged("hop")).reward == pytest.approx(-1.0)  # a whole plan, whatever turns is
    assert env_of().score(ROOM, "") == Score(0.0, False, None)  # reward = success: a failed plan costs nothing either


def test_silence_turn_by_turn_costs_the_penalty() -> None:
    # RAGEN's rule, kept: 5 silent turns cost 5 * 0.1, and 10 actions that move nothing 10 * 0.1.
    env = env_of("paper")
    silent = turns(env, ROOM, *["hm"] * 5)
    idle = turns(env, ROOM, *[tagged(" || ".join(["up"] * 5))] * 2)
    assert silent.truncated and idle.truncated
    assert (silent.verdict.reward, idle.verdict.reward) == (pytest.approx(-0.5), pytest.approx(-1.0))
    # from 0.1 x actions / turns on silence is no cheaper
    env = env_of("paper", invalid_penalty=0.2)
    assert turns(env, ROOM, *["hm"] * 5).verdict.reward == pytest.approx(-1.0)


def test_limits_of_a_plan() -> None:
    env = env_of(max_actions=3)
    assert env.score(ROOM, SOLUTION).success
    assert env.score(ROOM, "up " + SOLUTION) == Score(0.0, False, "cc:right")  # the fourth action is dropped
    assert not env_of(max_steps=3).score(ROOM, "up " + SOLUTION).success
    assert env.score(ROOM, SOLUTION + " jump").strategy is None  # strict, even where it would have been dropped


def test_tags() -> None:
    env = env_of(answer_format="tags")
    answer = "<think>box right</think><answer>Down || Right || Right</answer>"
    assert env.score(ROOM, answer) == Score(1.0, True, KEY)
    assert env.score(ROOM, answer.replace("Down", "Down || jump")) == Score(
        1.0, True, KEY
    )  # the unknown one is skipped
    for text in (
        SOLUTION, f"<answer>{SOLUTION}</answer>", f"<think></think>{SOLUTION}", f"<think></think><answer>{SOLUTION}",
        "<think></think><answer></answer>", "<think></think><answer>jump</answer>", f"<think>{SOLUTION}</think>",
    ):  # fmt: skip
        assert env.score(ROOM, text) == Score(0.0, False, None)


def test_sketch() -> None:
    env = env_of()
    assert env.sketch(ROOM, SOLUTION) == "right"
    assert env.sketch(ROOM, "down right up right down down") == "right down"
    assert env.sketch(ROOM, "up") == "no push"
    assert env.sketch(ROOM, "") is None and env.sketch(ROOM, "jump") is None
    # the box goes down a stair: each push needs two steps to its other side; the first 4 of 5 legs are told
    plan = "up up up right  up right down  left down right  up right down  left down right"
    assert env.score(OPEN, plan).strategy == "cc:right,cd:down,dd:right,de:down,ee:right"
    assert env.sketch(OPEN, plan) == "right down right down"
    # of pushes that lead back only those that are left are told
    assert env.sketch(OPEN, SQUARE) == "right" and env.sketch(OPEN, THERE_AND_BACK) == "no push"


# The box is cc; the player, from fb, can walk all round it.
OPEN = task_of("########", "#______#", "#_X___O#", "#______#", "#______#", "#P_____#", "########")
THERE_AND_BACK = "up up up right  up right right down left"  # cc:right, then round it, cd:left; the player is at cd
SQUARE = "up up up right  up right down  right down left  down left up  left up right"


def test_pushes_that_lead_back_do_not_count() -> None:
    # Once a box pushed there and back made ever new keys, so that a policy could earn novelty without end.
    env = env_of(max_actions=100)
    assert env.score(OPEN, THERE_AND_BACK).strategy == "no push"
    # once more there and back: from cd round to cb by bd bc bb
    again = "up left left down right  up right right down left"
    for times in range(8):
        plan = " ".join([THERE_AND_BACK, *[again] * times])
        assert env.score(OPEN, plan) == Score(0.0, False, "no push")
        assert env.score(OPEN, f"{plan} up left down").strategy == "cc:down"  # then on, another way
    # round a square, cc cd dd dc and cc again, and on: only what comes after it is left
    assert env.score(OPEN, SQUARE).strategy == "cc:right"
    # two pushes, the second taken back: the first one is left
    plan = "up up up right right  up right right down left"
    assert env.score(OPEN, plan).strategy == "cc:right"
    # a loop is cut where turns part it, too
    env = env_of(turns=9, actions_per_turn=1, max_actions=100)
    keys = [turns(env, OPEN, *THERE_AND_BACK.split()[:length]).strategy for length in range(10)]
    assert keys == [None, "no push", "no push", "no push", *["cc:right"] * 5, "no push"]


def test_a_box_that_is_back_with_the_player_on_its_other_side_is_another_position() -> None:
    # A corridor bb .. bg with a room below its right end. The box goes from bd to bf, the player round it, and the box back
    # to bd; but the player, who was to the left of it, has come to its right: nothing is cut. Nor at be, met on either way.
    corridor = task_of("########", "#P_X__O#", "####___#", "########")
    plan = "right right right  down right right up  left left"
    assert env_of().score(corridor, plan).strategy == "bd:right,be:right,bf:left,be:left"


def test_boxes_are_not_told_apart() -> None:
    # Two boxes, cc and dc, go round a square of four cells until each stands where the other one stood.
    task = task_of("########", "#______#", "#_X__O_#", "#_X__O_#", "#______#", "#P_____#", "########")
    env, plan, seen = env_of(boxes=2, max_actions=100), "", []
    for moves in (
        "up up right",  # from fb by eb db: the lower box from dc to dd, the player at dc
        "left up up right down",  # by db cb bb bc: the upper box from cc to dc, the player at cc
        "left down down right right up",  # by cb db eb ec ed: the first box from dd to cd, the player at dd
        "right up left",  # by de ce: on from cd to cc
    ):
        plan = f"{plan} {moves}"
        seen.append(env.score(task, plan).strategy)
    assert seen == ["dc:right", "dc:right,cc:down", "dc:right,cc:down,dd:up", "no push"]


def _erased(room: Room, plan: Sequence[str]) -> list[str]:
    """Loop erasure by its definition: all positions first, then the cuts; single moves and plain sets."""
    positions: list[tuple[int, frozenset[int]]] = [(room.boxes, walkable(room))]
    pushes: list[str] = []
    for direction in plan:
        room, effect = move(room, DIRECTIONS.index(direction))
        if effect == "push":
            positions.append((room.boxes, walkable(room)))
            pushes.append(f"{room.name(room.player)}:{direction}")
        if room.solved:
            break
    kept, place = [], 0
    while place < len(pushes):
        last = max(later for later, position in enumerate(positions) if position == positions[place])
        kept += pushes[last : last + 1]
        place = last + 1
    return kept


def _random_pushes(generator: np.random.Generator, room: Room, number: int) -> list[str]:
    """Actions: ``number`` random pushes, one after another, and the walks to them; fewer where there is none left."""
    plan: list[str] = []
    for _ in range(number):
        walks, waiting = {room.player: []}, [room]  # cell -> the actions that lead there
        for here in waiting:  # grows while it is read: breadth first
            for direction in range(4):
                after, effect = move(here, direction)
                if effect == "walk" and after.player not in walks:
                    walks[after.player] = [*walks[here.player], direction]
                    waiting.append(after)
        ways = [[*walks[here.player], way] for here in waiting for way in range(4) if move(here, way)[1] == "push"]
        if not ways:
            break
        for direction in ways[generator.integers(len(ways))]:
            room = move(room, direction)[0]
            plan.append(DIRECTIONS[direction])
    return plan


def walkable(room: Room) -> frozenset[int]:
    """Where the player can walk, by single moves."""
    seen, waiting = {room.player}, [room]
    for here in waiting:  # grows while it is read
        for direction in range(4):
            after, effect = move(here, direction)
            if effect == "walk" and after.player not in seen:
                seen.add(after.player)
                waiting.append(after)
    return frozenset(seen)


@pytest.mark.parametrize("options", [{"height": 5, "width": 6}, {"height": 6, "width": 6, "boxes": 2}])
def test_loops_are_erased_as_the_definition_says(options: dict[str, Any]) -> None:
    env = env_of(exact_plan="no", max_actions=100, min_pushes=1, walk_steps=100, tasks=80, **options)
    generator, cut, kept = np.random.default_rng(3), 0, 0
    for task in map(env.task, range(80)):
        for _ in range(4):
            plan = _random_pushes(generator, room_of(task), 12)[:100]
            room, expected = room_of(task), _erased(room_of(task), plan)
            assert env.score(task, " ".join(plan)).strategy == (",".join(expected) or "no push")
            last = _played(room, plan)[-1]
            assert room.region >> room.player & 1 and set(cells(room.region)) == walkable(room)
            # what is left leads to the same position
            replayed = room
            for push in expected:
                name, _, direction = push.partition(":")
                number = DIRECTIONS.index(direction)
                cell = next(cell for cell in cells(replayed.boxes) if replayed.name(cell) == name)
                assert replayed.region >> cell - replayed.deltas[number] & 1
                replayed = dataclasses.replace(replayed, player=cell - replayed.deltas[number])
                replayed, effect = move(replayed, number)
                assert effect == "push"
            assert replayed.boxes == last.boxes and replayed.region == last.region
            pushes = sum(a.boxes != b.boxes for a, b in itertools.pairwise([room, *_played(room, plan)]))
            cut, kept = cut + (len(expected) < pushes), kept + (len(expected) == pushes > 0)
    assert cut > 20 and kept > 50


def _played(room: Room, plan: Sequence[str]) -> list[Room]:
    """The room after each action, until it is solved."""
    rooms = []
    for direction in plan:
        room = move(room, DIRECTIONS.index(direction))[0]
        rooms.append(room)
        if room.solved:
            break
    return rooms


def test_keys_of_solutions_are_all_their_pushes() -> None:
    # The solver's plans come to no position twice, so nothing of them is erased: their keys are what they always were.
    for env in (env_of(), env_of("paper", split="test"), env_of(boxes=2, height=6, width=6, min_pushes=1)):
        several = 0
        for task in map(env.task, range(60)):
            keys = []
            for plan in env.solutions(task) or []:
                room, pushes = room_of(task), []
                for direction in re.findall(r"up|down|left|right", plan):
                    room, effect = move(room, DIRECTIONS.index(direction))
                    pushes += [f"{room.name(room.player)}:{direction}"] if effect == "push" else []
                keys.append(",".join(pushes))
                assert env.score(task, plan).strategy == keys[-1]
            assert len(set(keys)) == len(keys) > 0
            several += len(keys) > 1
        assert several > 5


def test_habitual() -> None:
    env = env_of()
    habits = {"up", "down", "left", "right", "left up", "left down", "right up", "right down"}
    assert all(env.habitual(habit) for habit in habits)
    for other in (
        "",
        "no push",
        "up right",
        "right down right",
        "left right",
        "down up",
        "right  down",
        "RIGHT",
        "x" * 10**6,
    ):
        assert not env.habitual(other)


def test_solutions_and_oracle() -> None:
    env = env_of()
    for index in range(100):
        task = env.task(index)
        plans = env.solutions(task)
        assert plans is not None
        scores = [env.score(task, plan) for plan in plans]
        assert all(score.success and score.reward == 1.0 for score in scores)
        assert len({score.strategy for score in scores}) == len(plans)
        assert env.oracle(task) == plans[0]
        assert len(plans[0].split()) == min(len(plan.split()) for plan in plans)
    assert env.enumerate(env.task(0)) is None


def test_solutions_of_a_room_by_hand() -> None:
    task = task_of("#####", "#P__#", "#_XO#", "#___#", "#####")
    # cc -> cd by one push right. 3 pushes: the box may first go up (from dc), right is then a push along row b, and down
    # needs the player above: wall. Down first (from bc): right along row d, then up from below: wall. Up then down again
    # comes back to the first position. Left first (from cd): cb, then right twice: through the first position. So one way.
    env = env_of()
    assert env.solutions(task) == ["down right"]
    # With one row more above, up - right - down is a way too: stand in ec, push up, go left and right, go round and down.
    taller = task_of("#####", "#___#", "#P__#", "#_XO#", "#___#", "#####")
    keys = [env.score(taller, plan).strategy for plan in env.solutions(taller) or []]
    assert keys == ["dc:right", "dc:up,cc:right,cd:down"]


def test_a_room_that_is_no_task() -> None:
    env = env_of(max_actions=3)
    with pytest.raises(InputError, match="task 0 is no task of this environment: no solution of at most 3 actions"):
        env.oracle(task_of("########", "#P_X__O#", "########"))  # needs 4


# ---- turns


def turns(env: Sokoban, task: Task, *texts: str) -> Episode:
    episode = env.reset(task)
    for text in texts:
        episode = env.step(episode, text)
    return episode


def tagged(actions: str) -> str:
    return f"<think>hm</think><answer>{actions}</answer>"


def test_an_episode_of_turns() -> None:
    env = env_of("paper")
    first = turns(env, ROOM, tagged("Down || Right"))
    assert first.rewards == (pytest.approx(-0.2),) and not first.over and first.strategy == "cc:right"
    assert first.observation.startswith(
        "Reward:\n-0.2\n\nTurn 2:\nState:\n# # # # # # #\n# _ _ _ _ _ #\n# _ P X O _ #\n"
    )
    assert "You have 8 actions left. Always output: <think>" in first.observation
    last = env.step(first, tagged("right || up"))
    assert last.rewards == (pytest.approx(-0.2), pytest.approx(10.9))
    assert last.terminated and not last.truncated and last.success and last.observation == ""
    assert last.strategy == KEY and last.verdict.reward == pytest.approx(10.7)
    assert not first.over and first.state.moves == 2  # the earlier value is what it was
    with pytest.raises(InputError, match=r"over \(terminated\)"):
        env.step(last, "up")


def test_limits_of_turns() -> None:
    env = env_of("paper")
    # 5 actions a turn: the sixth, which would solve it, is dropped
    episode = turns(env, ROOM, tagged("up || up || up || down || right || right"))
    assert episode.state.moves == 5 and not episode.over
    # 10 actions in all: the episode is cut off after 5 more, also unsolved
    episode = env.step(episode, tagged(" || ".join(["up"] * 5)))
    assert episode.truncated and not episode.terminated and not episode.success and episode.observation == ""
    # 5 turns
    episode = turns(env, ROOM, *[tagged("up")] * 4)
    assert not episode.over and "Turn 5:" in episode.observation
    episode = env.step(episode, tagged("up"))
    assert episode.truncated and len(episode.rewards) == 5
    # solved by the last action of the last turn: terminated, not truncated
    episode = turns(env, ROOM, *[tagged("up")] * 4, tagged(SOLUTION.replace(" ", " || ")))
    assert episode.success and episode.terminated and not episode.truncated


def test_penalty_for_what_is_invalid() -> None:
    env = env_of("paper")
    # an unknown action is skipped, the others run: -0.1 for the one that runs, -0.1 penalty; two unknown cost it once
    assert turns(env, ROOM, tagged("jump || down || fly")).rewards == (pytest.approx(-0.2),)
    for text in ("", "down", tagged(""), tagged("jump"), "<answer>down</answer>"):
        episode = turns(env, ROOM, text)
        assert episode.rewards == (pytest.approx(-0.1),)
        assert episode.state.moves == 0 and episode.strategy is None and not episode.over
        assert "You have 10 actions left" in episode.observation and "Turn 2" in episode.observation
    # an unknown action takes one of the turn's 5 places
    assert turns(env, ROOM, tagged("jump || up || up || up || up || up")).state.moves == 4
    # what is solved in spite of it counts; 10.7 - 0.1
    episode = turns(env, ROOM, tagged("jump || down || right || right"))
    assert episode.success and episode.rewards == (pytest.approx(10.6),)
    # plain: one unknown word makes the turn unreadable
    episode = turns(env_of(turns=3, invalid_penalty=0.25), ROOM, "jump down", "down", "right right")
    assert episode.rewards == (-0.25, 0.0, 1.0) and episode.success


def test_plain_turns_tell_the_state_in_a_few_words() -> None:
    env = env_of(turns=3)  # of 5 actions each: 15 in all
    assert turns(env, ROOM, "down right").observation == "player cc box cd left 13"
    assert turns(env, ROOM, "jump").observation == "player bb box cc left 15"
    two = task_of("#######", "#PX__O#", "#_X_O_#", "#_____#", "#######")
    assert turns(env_of(turns=3, boxes=2), two, "right").observation == "player bc box bd cc left 14"
    assert "like this: player bb box cc left 12 (bb:" in env.task(0).prompt
    assert "like this: player" not in env_of().task(0).prompt


def test_one_turn_is_scored_as_a_plan() -> None:
    short = {"turns": 1, "invalid_penalty": 0, "max_actions": 6}
    for env in (
        env_of(),
        env_of(reward="gym"),
        env_of("paper", **short),
        env_of("paper", exact_plan="yes", **short),
        env_of(exact_plan="no", max_actions=3),
    ):
        plans = [
            SOLUTION,
            SOLUTION + " up",
            "up up up up up up hop",
            tagged(SOLUTION.replace(" ", " || ") + " || up || hop"),
            tagged("hop, hop, hop, hop, hop, hop, up"),
            "down right",
            "jump",
            "",
            tagged(SOLUTION),
            tagged("jump, up, up, up, down, right, right, right"),
        ]
        for plan in plans:
            episode = turns(env, ROOM, plan)
            assert episode.verdict == env.score(ROOM, plan) and len(episode.rewards) == 1
            assert episode.terminated is episode.state.room.solved is not episode.truncated


def test_twin_episodes_are_alike() -> None:
    texts = [tagged("down"), "?", tagged("right || hop"), tagged("right")]
    first, second = (turns(env_of("paper"), ROOM, *texts) for _ in range(2))
    assert first == second and first.success
    # nothing is left to chance, so the seed changes nothing but itself
    env = env_of("paper")
    other = env.step(env.reset(ROOM, 5), texts[0])
    assert other.state == turns(env, ROOM, texts[0]).state and other.seed == 5


# ---- what is shown


def test_prompts() -> None:
    env = env_of()
    task = env.task(0)
    assert task_text("lab", "sokoban", task) == (
        "room player ef box ee target db floor bb bc cb cc cd db dc dd de df eb ec ed ee ef fb fc fd fe ff"
    )
    chat = task_text("chat", "sokoban", env_of("paper").task(0))
    for part in ("Up, Down, Left, Right", "separated by ||]", "# # # # # #",
                 "at most 5 turns, 5 actions a turn and 10 actions in all; further ones are dropped.",
                 "<think>", "<answer>", "Turn 1:", "√: box on target"):  # fmt: skip
        assert part in chat
    for part in (
        "at most 24 actions; a plan that is longer, or goes on after the room is solved, fails",
        "up, down, left, right",
        "# # # # # # #\n# _ _ # # # #",
        "Answer with actions only",
    ):
        assert part in task.prompt
    assert "{" not in chat + task.prompt
    # A chat whose answers are plain used to be told "||" by the template and blanks by the task.
    assert "||" not in task_text("chat", "sokoban", task) and task.data["format"] in task_text("chat", "sokoban", task)
    many = task_text("lab", "sokoban", env_of(boxes=2).task(0))
    assert re.fullmatch(r"room player \w\w box \w\w \w\w target \w\w \w\w floor( \w\w)+", many)


def test_render() -> None:
    env = env_of()
    frames = env.render(ROOM, SOLUTION + " up up")
    assert [frame.caption for frame in frames] == [
        "start", "1. down: walks", "2. right: pushes a box", "3. right: pushes a box, solved; the plan goes on",
    ]  # fmt: skip
    assert frames[0].text == "\n".join(ROOM.data["room"])
    assert frames[3].text.splitlines()[2] == "#__P√_#"
    assert env.render(ROOM, "up")[1].caption == "1. up: nothing moves"
    assert env.render(ROOM, SOLUTION)[-1].caption == "3. right: pushes a box, solved"
    assert env_of(exact_plan="no").render(ROOM, SOLUTION + " up")[-1].caption == "3. right: pushes a box, solved"
    assert env_of(max_actions=3).render(ROOM, "up " * 20_000)[-1].caption == "3. up: nothing moves; the plan goes on"
    standing = env.render(task_of("######", "#PO_X#", "######"), "right")
    assert standing[1].text.splitlines()[1] == "#_S_X#"
    for frame in frames:
        root = ElementTree.fromstring(frame.svg)
        assert root.attrib["viewBox"] == "0 0 168 120"  # 7 by 5 cells of 24
        assert sum(child.tag.endswith("rect") for child in root) == 35
    for text in ("", "<script>alert(1)</script>", "\ud800", "right " * 10_000):
        shown = env.render(ROOM, text)
        assert 1 <= len(shown) <= 25 and "script" not in "".join(
            frame.svg + frame.caption + frame.text for frame in shown
        )


# ---- hostile texts

ENVS = [env_of(), env_of("paper"), env_of(boxes=2, reward="gym")]
WORDS = st.sampled_from([*DIRECTIONS, "Up", "RIGHT", "||", ",", "\n", " ", "jump", "<think>", "</think>", "<answer>",
                         "</answer>", "<think></think><answer>"])  # fmt: skip
ANY_TEXT = st.text(alphabet=st.characters(), max_size=100) | st.lists(WORDS, max_size=40).map(" ".join)


@settings(max_examples=100)
@given(text=ANY_TEXT, which=st.sampled_from(range(3)), index=st.integers(0, 3))
def test_any_text_gets_a_verdict(text: str, which: int, index: int) -> None:
    env = ENVS[which]
    task = env.task(index)
    score = env.score(task, text)
    if score.strategy is None:
        assert score == env.score(task, "") == Score(pytest.approx((0.0, -1.0, -2.4)[which]), False, None)
        assert env.sketch(task, text) is None
    else:
        assert env.sketch(task, text) and (score.strategy == "no push") == (env.sketch(task, text) == "no push")
    assert len(env.render(task, text)) <= 25
    episode = env.step(env.reset(task), text)
    assert np.isfinite(episode.rewards).all() and len(episode.rewards) == 1


def test_ten_megabytes_take_no_time() -> None:
    for env in ENVS:
        task = env.task(0)
        for piece in (
            "a",
            " ",
            "|",
            "||",
            ",",
            "up ",
            "up,",
            "<think>",
            "</think>",
            "<answer>",
            "</think> ",
            "\u202e",
            "\ud800",
        ):
            text = piece * (10_000_000 // len(piece))
            start = time.process_time()
            assert env.score(task, text).strategy is None and env.sketch(task, text) is None
            env.step(env.reset(task), text)
            env.render(task, text)
            assert time.process_time() - start < 1.0
        # as long as is read at all
        for piece in ("up ", "<think>", "</think>   <answer>", "</think> "):
            start = time.process_time()
            env.score(task, piece * (100_000 // len(piece)))
            assert time.process_time() - start < 0.5
