"""Frozen lake: dynamics against Gymnasium, plans against brute force, the turn protocol by hand."""

from __future__ import annotations

import itertools
import json
import math
import random
import re
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from sesa_lab.environments import check, make
from sesa_lab.environments.frozen_lake import FrozenLake, FrozenLakeOptions, slips_of
from sesa_lab.environments.grid import Plan, cell_name, cell_names, legs, neighbours, read_actions, read_plan
from sesa_lab.environments.lake import ACTIONS, Lake
from sesa_lab.environments.pool import SPLITS
from sesa_lab.errors import InputError
from sesa_lab.prompts import task_text
from sesa_lab.types import Episode, Score, Task

TAGS = re.compile(r"<think>(.*?)</think>\s*<answer>(.*?)</answer>", re.DOTALL)  # as RAGEN reads an answer
KNOWN = {name: name for name in ACTIONS}
BASE_SLIPS = [0, 2, 2, 2, 0, 0, 1, 1, 1, 2, 1, 0]  # see test_luck_belongs_to_the_lake


def lake(**options: Any) -> FrozenLake:
    env = make("frozen_lake", **options)
    assert isinstance(env, FrozenLake)
    return env


def on(*rows: str) -> Task:
    """A task on a map of our own; this is all of a task's data that the environment reads."""
    return Task(0, "", {"map": list(rows)})


def tags(*actions: str) -> str:
    return f"<think>so</think><answer>{' || '.join(actions)}</answer>"


def random_rows(generator: random.Random, size: int) -> tuple[str, ...]:
    """A map of any kind, solvable or not."""
    cells = [generator.choice("FFFH") for _ in range(size * size)]
    start, goal = generator.sample(range(size * size), 2)
    cells[start], cells[goal] = "S", "G"
    return tuple("".join(cells[first : first + size]) for first in range(0, size * size, size))


#   aa ab ac
#   ba #  bc    the hole is bb
#   ca cb cc
SMALL = on("SFF", "FHF", "FFG")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"preset": "paper"},
        {"preset": "paper", "slippery": "no", "split": "test", "hard": "half"},
        {"slippery": "yes", "repeats": "zero", "seed": 7},
        {"size": 20, "placing": "corners", "frozen": 1.0, "tasks": 1, "max_actions": 400},
        {"answer_format": "tags", "hard": "all", "split": "validation"},
        {"answer_format": "tags", "exact_plan": "no", "max_actions": 5},
        {"exact_plan": "no"},
        {"turns": 3, "size": 7, "actions_per_turn": 6},
    ],
)
def test_keeps_the_contract(options: dict[str, Any]) -> None:
    check(make("frozen_lake", **options))


def test_paper_is_ragen_s() -> None:
    options = lake(preset="paper").options
    assert {name: options[name] for name in FrozenLakeOptions.PAPER} == {
        "size": 4, "slippery": "yes", "min_distance": 1, "turns": 5, "actions_per_turn": 5, "max_actions": 10,
        "answer_format": "tags", "invalid_penalty": 0.1, "exact_plan": "no",
    }  # fmt: skip
    assert options["frozen"] == 0.8 and options["placing"] == "random"


@pytest.mark.parametrize("slippery", [False, True])
def test_transitions_are_gymnasium_s(slippery: bool) -> None:
    generator, compared = random.Random(1), 0
    for _ in range(120):
        rows = random_rows(generator, generator.randint(2, 7))
        ours, reference = Lake(rows), FrozenLakeEnv(desc=list(rows), is_slippery=slippery)
        for cell, action in itertools.product(range(len(rows) ** 2), range(4)):
            expected = reference.P[cell][action]
            if ours.over[cell]:
                assert expected == [(1.0, cell, 0, True)]
                continue
            outcomes = ours.outcomes(cell, action, slippery)
            came = [(1 / len(outcomes), other, int(other == ours.goal), ours.over[other]) for other in outcomes]
            assert [row[1:] for row in came] == [row[1:] for row in expected]
            assert [row[0] for row in came] == pytest.approx([row[0] for row in expected], rel=1e-12)
            compared += len(expected)
    assert compared >= 5_000 * (3 if slippery else 1)


def test_whole_plans_fare_as_in_gymnasium() -> None:
    env, generator = lake(max_actions=12, exact_plan="no"), random.Random(2)
    ends: Counter[tuple[bool, bool]] = Counter()
    for _ in range(400):
        rows = random_rows(generator, generator.randint(2, 4))
        plan = [generator.randrange(4) for _ in range(12)]
        reference = FrozenLakeEnv(desc=list(rows), is_slippery=False)
        reference.reset()
        reference.s = "".join(rows).index("S")
        reward, over = 0.0, False
        for action in plan:
            cell, earned, over, _, _ = reference.step(action)
            reward += earned
            if over:
                break
        text = " ".join(ACTIONS[action] for action in plan)
        score, episode = env.score(on(*rows), text), env.step(env.reset(on(*rows)), text)
        assert score.strategy is not None and score.strategy.endswith(cell_name(int(cell), len(rows)))
        assert score == Score(reward, reward == 1.0, score.strategy) == episode.verdict
        assert (episode.terminated, episode.truncated) == (over, not over)
        ends[over, reward == 1.0] += 1
    assert min(ends.values()) >= 30 and len(ends) == 3  # at the goal, in a hole, still walking


def test_slips_are_uniform_and_independent() -> None:
    # Two moves up from the middle of open ice; 9 pairs of slips, n = 9,000 episodes: 1,000 a pair expected, standard
    # deviation sqrt(9,000 * 1/9 * 8/9) = 29.8. All 9 within 150 = 5 of them: false alarm below 1 in 100,000.
    env = lake(size=5, slippery="yes", turns=2)
    task = on("FFFFG", "FFFFF", "FFSFF", "FFFFF", "FFFFF")
    pairs: Counter[tuple[int, int]] = Counter()
    for seed in range(9_000):
        first = env.step(env.reset(task, seed), "up")
        second = env.step(first, "up")
        pairs[first.state.cell - 12, second.state.cell - first.state.cell] += 1
    assert set(pairs) == set(itertools.product((-1, -5, 1), repeat=2))  # left, up, right; never down
    assert max(abs(count - 1_000) for count in pairs.values()) < 150


def test_slips_belong_to_seed_and_number_of_the_move() -> None:
    env, task = lake(slippery="yes", turns=3, max_actions=9), on("FFFFG", "FFFFF", "FFSFF", "FFFFF", "FFFFF")
    for seed in range(50):
        at_once = env.step(env.reset(task, seed), "up down up")
        one, two = env.step(env.reset(task, seed), "up"), "down up"
        assert env.step(one, two).state.cell == at_once.state.cell
        assert env.step(env.step(env.reset(task, seed), "what"), "up down up").state.cell == at_once.state.cell
    slips = [env.step(env.reset(task, 3), " ".join(["up"] * n)).state.cell for n in range(1, 6)]
    assert slips == [env.step(env.reset(task, 3), " ".join(["up"] * n)).state.cell for n in range(1, 6)]
    assert env.score(task, "up down up left").strategy == env.step(env.reset(task), "up down up left").strategy
    assert {env.score(task, "up").strategy, *(env.step(env.reset(task, s), "up").strategy for s in range(20))} == {
        "cc-cb", "cc-bc", "cc-cd",
    }  # fmt: skip


def ringed(pattern: int) -> tuple[str, ...]:
    """Open ice of 5 x 5, the start in the middle, with holes in the outer ring by the bits of ``pattern`` (15)."""
    ring = [cell for cell in range(25) if cell // 5 in (0, 4) or cell % 5 in (0, 4)]
    cells = ["F"] * 25
    cells[12], cells[ring[-1]] = "S", "G"
    for place, cell in enumerate(ring[:-1]):
        cells[cell] = "H" if pattern >> place & 1 else "F"
    return tuple("".join(cells[first : first + 5]) for first in range(0, 25, 5))


def test_luck_over_many_lakes_is_a_third_each() -> None:
    # One answer to 6,000 lakes, all judged with seed 0. Each first slip 2,000 times, standard deviation
    # sqrt(6,000 * 1/3 * 2/3) = 36.5; each of 9 pairs of slips 667 times, sqrt(6,000 * 1/9 * 8/9) = 24.3. All within 5 of
    # these: false alarm below 1 in 100,000.
    env, lakes = lake(slippery="yes"), [ringed(pattern) for pattern in range(0, 30_000, 5)]
    ends = Counter(env.score(on(*rows), "up").strategy for rows in lakes)
    assert set(ends) == {"cc-cb", "cc-bc", "cc-cd"} and max(abs(count - 2_000) for count in ends.values()) < 183
    pairs = Counter(slips_of(rows, 0, 2) for rows in lakes)
    assert len(pairs) == 9 and max(abs(count - 6_000 / 9) for count in pairs.values()) < 122
    later = Counter(slips_of(rows, 0, 12)[11] for rows in lakes)
    assert set(later) == {0, 1, 2} and max(abs(count - 2_000) for count in later.values()) < 183


def test_luck_belongs_to_the_lake() -> None:
    # Once every lake had the slips of seed 0, so that a policy of one turn could learn that one list.
    base = ("SFFF", "FFFF", "FHFF", "FFFG")
    others = [
        ("FSFF", "FFFF", "FHFF", "FFFG"),
        ("SFFF", "FFFF", "FHFG", "FFFF"),
        ("SFFF", "FFFF", "HFFF", "FFFG"),
        ("SFFF", "FFFF", "FFFF", "FFFG"),
    ]
    # Two lists of 40 slips are equal with probability 3^-40; 2 of 3 places differ: 26.7 of 40, standard deviation 3.0
    for rows, seed in itertools.product(others, (0, 1, 2**32 - 1)):
        differ = [a != b for a, b in zip(slips_of(base, seed, 40), slips_of(rows, seed, 40), strict=True)]
        assert 11 < sum(differ) < 40
    assert len({slips_of(base, seed, 40) for seed in range(50)}) == 50
    assert slips_of(base, 3, 400)[:12] == slips_of(base, 3, 12)  # an action slips alike whatever the limit is
    # Frozen on the day they were first made (numpy 2.4); other luck makes slippery runs of one config incomparable.
    assert list(slips_of(base, 0, 12)) == BASE_SLIPS
    # Carried out in an episode: actions are numbered left, down, right, up, and slips are to number - 1, number, number + 1.
    # So of "up", 0 goes right, 1 up and 2 left.
    rows = ("FFFFF", "FFFFF", "FFSFF", "FFFFF", "FFFFG")
    env = lake(slippery="yes", turns=12, max_actions=12, actions_per_turn=1)
    episode = env.reset(on(*rows), 4)
    for slip in slips_of(rows, 4, 12):
        row, column = divmod(episode.state.cell, 5)
        episode = env.step(episode, "up")
        expected = ((row, min(column + 1, 4)), (max(row - 1, 0), column), (row, max(column - 1, 0)))[slip]
        assert divmod(episode.state.cell, 5) == expected


def test_one_lake_has_the_same_luck_each_time_it_is_scored() -> None:
    # With turns = 1 luck is part of the task: no answer changes it for the next, nor does the order of the questions.
    one, other = lake(slippery="yes"), lake(slippery="yes")
    plans = [" ".join(words) for words in itertools.product(ACTIONS, repeat=3)]
    for index in range(20):
        task = one.task(index)
        scores = [one.score(task, plan) for plan in plans]
        assert scores == [one.score(task, plan) for plan in plans]
        assert scores[::-1] == [other.score(other.task(index), plan) for plan in reversed(plans)]
        assert scores == [one.step(one.reset(task), plan).verdict for plan in plans]
        for plan, score in zip(plans, scores, strict=True):
            assert score.strategy is not None
            row, column = map(ord, score.strategy[-2:])
            last = one.render(task, plan)[-1].text.splitlines()[row - ord("a")][column - ord("a")]
            assert last in "PX√"  # the picture shows the player where the strategy ends
    luck = {slips_of(tuple(one.task(index).data["map"]), 0, 12) for index in range(200)}
    assert len(luck) == 200


def test_shortest_plans_are_all_of_them() -> None:
    # Brute force: every sequence of that many moves (at most 4^6 = 4,096), walked by Gymnasium's own table.
    env = lake(size=4, min_distance=1, frozen=0.75, tasks=150)
    numbers = Counter()
    for task in map(env.task, range(150)):
        rows = task.data["map"]
        table, start = FrozenLakeEnv(desc=rows, is_slippery=False).P, "".join(rows).index("S")
        solutions = env.solutions(task)
        assert solutions is not None and env.oracle(task) == solutions[0]
        distance = len(solutions[0].split())
        if distance > 6:
            continue
        # cells reached by every sequence, level by level; lost ones stay where they are
        reached = {(): (start, 0)}
        for length in range(1, distance + 1):
            reached = {
                (*plan, action): table[cell][action][0][1:3]
                for plan, (cell, _) in reached.items()
                for action in range(4)
            }
            found = [plan for plan, (_, reward) in reached.items() if reward]
            assert bool(found) is (length == distance)
        assert solutions == [" ".join(ACTIONS[action] for action in plan) for plan in sorted(found)]
        numbers[len(solutions)] += 1
    assert sum(numbers.values()) > 100 and len(numbers) > 4


def test_open_ice_has_binomially_many_plans() -> None:
    # From corner to corner of an n x n lake: C(2n - 2, n - 1) ways. n = 8: 3,432; n = 9: 12,870 > 5,000
    options = {"placing": "corners", "frozen": 1.0, "tasks": 1, "max_actions": 40}
    for size, expected in ((2, 2), (5, 70), (8, 3_432)):
        env = lake(size=size, min_distance=1, **options)
        found = env.solutions(env.task(0))
        assert found is not None and len(found) == len(set(found)) == expected == math.comb(2 * size - 2, size - 1)
    for size in (9, 20):
        env = lake(size=size, **options)
        assert env.solutions(env.task(0)) is None
        assert env.oracle(env.task(0)) == " ".join(["down"] * (size - 1) + ["right"] * (size - 1))


def test_solutions_succeed_by_different_walks() -> None:
    for options in ({}, {"answer_format": "tags"}, {"preset": "paper", "slippery": "no"}):
        env = lake(**options)
        for task in map(env.task, range(300)):
            solutions = env.solutions(task) or []
            scores = [env.score(task, text) for text in solutions]
            assert {score.reward for score in scores} == {1.0}
            assert len({score.strategy for score in scores}) == len(solutions) > 0


def test_solutions_on_slippery_ice_are_those_of_ice_that_is_not() -> None:
    dry, wet = lake(), lake(slippery="yes")
    for first, second in ((dry.task(i), wet.task(i)) for i in range(50)):
        assert first.data["map"] == second.data["map"] and first.prompt != second.prompt
        solutions = dry.solutions(first) or []
        assert wet.solutions(second) == solutions and wet.oracle(second) == solutions[0]
        assert [wet.sketch(second, text) for text in solutions] == [dry.sketch(first, text) for text in solutions]


@pytest.mark.parametrize(
    ("text", "reward", "strategy", "sketch"),
    [
        ("right right down down", 1.0, "aa-ab-ac-bc-cc", "right down"),
        ("  RIGHT, Right\n down ||DOWN ", 1.0, "aa-ab-ac-bc-cc", "right down"),
        ("up left right up right right down down", 1.0, "aa-ab-ac-bc-cc", "right down"),  # bumps at the border
        ("down up right left right right down down", 1.0, "aa-ab-ac-bc-cc", "right down"),  # there and back
        ("down down right right", 1.0, "aa-ba-ca-cb-cc", "down right"),
        ("right right down down left left left", 0.0, "aa-ab-ac-bc-cc", "right down"),  # goes on after the goal
        ("right down down right", 0.0, "aa-ab-bb", "right down"),  # it is over in the hole
        ("right right down left down", 0.0, "aa-ab-ac-bc-bb", "right down left"),
        ("down", 0.0, "aa-ba", "down"),
        ("left", 0.0, "aa", "stay"),
        ("down up", 0.0, "aa", "stay"),
    ],
)
def test_score_strategy_and_sketch(text: str, reward: float, strategy: str, sketch: str) -> None:
    env = lake()
    assert env.score(SMALL, text) == Score(reward, reward == 1.0, strategy)
    assert env.sketch(SMALL, text) == sketch


def test_a_plan_that_goes_on_fails_where_it_has_to_be_exact() -> None:
    exact, lenient, turns = lake(max_actions=5), lake(max_actions=5, exact_plan="no"), lake(max_actions=5, turns=2)
    to_goal, walk = "right right down down", "aa-ab-ac-bc-cc"
    won, failed = Score(1.0, True, walk), Score(0.0, False, walk)
    for text in (f"{to_goal} up", f"{to_goal} up up up", f"up {to_goal} up"):  # within the limit, beyond it, both
        assert exact.score(SMALL, text) == exact.step(exact.reset(SMALL), text).verdict == failed
        assert lenient.score(SMALL, text) == lenient.step(lenient.reset(SMALL), text).verdict == won
        assert turns.score(SMALL, text) == won and turns.step(turns.reset(SMALL), text).success  # turns = 1 only
        over = exact.step(exact.reset(SMALL), text)
        assert over.terminated and not over.truncated and over.rewards == (0.0,)
    for text in (to_goal, f"left {to_goal}"):
        assert exact.score(SMALL, text) == exact.step(exact.reset(SMALL), text).verdict == won
    # as before, the longest plan that is read at all is carried out as far as the limit
    for env in (exact, lenient):
        assert env.score(SMALL, "down up " * 10_000) == Score(0.0, False, "aa-ba")
        assert env.score(SMALL, "down up " * 13_000) == Score(0.0, False, None)  # 104,000 characters


def test_unknown_actions_are_nothing_that_goes_on() -> None:
    env = lake(answer_format="tags", max_actions=5)
    assert env.score(SMALL, tags("right", "right", "down", "down", "hop", "hop", "hop")).success
    assert env.score(SMALL, tags("right", "right", "hop", "down", "down")).success
    assert not env.score(SMALL, tags("right", "right", "down", "down", "hop", "up")).success
    # the unknown one is one of the five that count, so the last one is beyond the limit
    assert env.score(SMALL, tags("right", "hop", "left", "right", "right", "down", "down")).strategy == "aa-ab-ac"


@pytest.mark.parametrize("exact", ["no", "yes"])
@pytest.mark.parametrize("answer_format", ["plain", "tags"])
def test_a_single_turn_is_judged_as_a_plan(answer_format: str, exact: str) -> None:
    # Once they differed: score dropped unknown actions before it cut to the limit, step after that.
    env = lake(answer_format=answer_format, exact_plan=exact, max_actions=4)
    wet = lake(answer_format=answer_format, exact_plan=exact, max_actions=4, slippery="yes")
    seen: Counter[tuple[bool, bool]] = Counter()
    for words in itertools.product(["right", "down", "hop"], repeat=6):
        for said in (words, words[:5], words[:4], words[:3]):
            text = tags(*said) if answer_format == "tags" else " ".join(said)
            score = env.score(SMALL, text)
            assert env.step(env.reset(SMALL), text).verdict == score
            assert wet.step(wet.reset(SMALL), text).verdict == wet.score(SMALL, text)
            seen[score.success, score.strategy is None] += 1
    assert len(seen) == 3  # success, failure, not read


def test_plans_are_read() -> None:
    assert read_plan("left up down", KNOWN, "plain", 2) == Plan(("left", "up"), invalid=False, known=3)
    assert read_plan("left up hop", KNOWN, "plain", 1) == Plan((), invalid=True, known=0)
    assert read_plan(tags("left", "hop", "up", "down"), KNOWN, "tags", 3) == Plan(("left", "up"), invalid=True, known=3)
    assert read_plan(tags("left", "up", "hop"), KNOWN, "tags", 2) == Plan(("left", "up"), invalid=False, known=2)
    assert read_plan(tags("hop", "left"), KNOWN, "tags", 1) == Plan((), invalid=True, known=1)
    assert read_plan("", KNOWN, "plain", 2) == read_plan("left", KNOWN, "tags", 2) == Plan((), invalid=True, known=0)


def test_a_sketch_is_four_legs_at_most() -> None:
    task = on("SFFF", "FFFF", "FFFF", "FFFG")
    assert lake().sketch(task, "right down right down right down") == "right down right down"
    assert lake().sketch(task, "right right down left down right right") == "right down left down"
    assert legs([0, 1, 2, 6, 10, 9], 4) == ["right", "down", "left"]
    assert legs([5], 4) == []


@pytest.mark.parametrize(
    "text",
    ["", " \n\t\u00a0", "||", ",,\n", "go right", "right.", "right-down", "rightdown", "r", "right 1", "north", "right | down",
     "<answer>right</answer>", "right\x00", "r\u0131ght", "\uff32ight", "right\ud800"],
)  # fmt: skip
def test_what_cannot_be_read(text: str) -> None:
    env = lake()
    assert env.score(SMALL, text) == Score(0.0, False, None)
    assert env.sketch(SMALL, text) is None and len(env.render(SMALL, text)) == 1
    episode = env.step(env.reset(SMALL), text)
    assert episode.verdict == Score(0.0, False, None) and episode.truncated and not episode.terminated


def test_actions_beyond_the_limit_are_dropped() -> None:
    assert lake(max_actions=4).score(SMALL, "right right down down").success
    env = lake(max_actions=5)
    assert env.score(SMALL, "right left right right down down") == Score(0.0, False, "aa-ab-ac-bc")
    assert env.sketch(SMALL, "right left right right down down") == "right down"
    assert env.score(SMALL, "right left right right down down sideways").strategy is None


def test_the_separators() -> None:
    for text in (
        "left down",
        "left||down",
        " Left || DOWN ",
        "left,down",
        "left\r\ndown",
        "left ,|| \n down",
        "left\tdown",
    ):
        assert read_actions(text, KNOWN, "plain") == ["left", "down"]
    # a phrase that is not made of actions is one unknown action, as where RAGEN parts actions by || only
    assert read_actions("left|||down", KNOWN, "plain") == ["left", None] == read_actions("left,|down", KNOWN, "plain")
    assert read_actions("turn left || down || ||fly", KNOWN, "plain") == [None, "down", None]


WORDS_AND_SEPARATORS = st.sampled_from(["left", "UP", "|", "||", ",", " ", "\n", "\r", "\t", "\u00a0", "\u03a3", "hop"])


@settings(max_examples=500)
@given(st.lists(WORDS_AND_SEPARATORS, max_size=14).map("".join))
def test_actions_are_read_piece_by_piece(text: str) -> None:
    # The definition itself; texts without an unknown action are read by a shorter way.
    expected: list[str | None] = []
    for piece in re.split(r"\|\||[,\r\n]", text):
        words = piece.lower().split()
        expected += words if set(words) <= set(ACTIONS) else [None]
    assert read_actions(text, KNOWN, "plain") == (expected or None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think></think><answer>Left</answer>", ["left"]),
        ("<think>a</think> \n <answer> Left || up\n</answer> and more", ["left", "up"]),
        # || alone parts actions
        ("<think>a</think><answer>left up || down, up || right\nup || up</answer>", [None, None, None, "up"]),
        ("<think>a</think><answer>|| left || || up ||</answer>", ["left", "up"]),
        ("<think>a</think><answer>||</answer>", None),
        ("hm <think>a</think>b</think><answer>left</answer><answer>up</answer>", ["left"]),
        ("<think>a</think>so<answer>left</answer>", None),
        ("<answer>left</answer>", None),
        ("</think><answer>left</answer><think>", None),
        ("<think>a</think><answer>left", None),
        ("<think>a</think><answer> </answer>", None),
        ("<THINK>a</THINK><ANSWER>left</ANSWER>", None),
        ("left", None),
    ],
)
def test_both_tags_are_required(text: str, expected: list[str] | None) -> None:
    assert read_actions(text, KNOWN, "tags") == expected


PIECES = st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "left", "||", " ", "\n", "hop", ","])


@settings(max_examples=500)
@given(st.lists(PIECES, max_size=14).map("".join))
def test_tags_are_read_as_ragen_reads_them(text: str) -> None:
    match = TAGS.search(text)
    pieces = [piece.strip().lower() for piece in match[2].split("||")] if match else []
    expected = [KNOWN.get(piece) for piece in pieces if piece]
    assert read_actions(text, KNOWN, "tags") == (expected or None)


def test_unknown_actions_are_skipped_in_tags() -> None:
    env = lake(answer_format="tags")
    assert env.score(SMALL, tags("right", "hop", "right", "down", "go down", "down")).success
    assert env.score(SMALL, tags("hop", "jump")) == Score(0.0, False, None)


# The player starts at aa; the hole is bb. Ice that is not slippery, so that all can be followed by hand.
PAPER = {"preset": "paper", "slippery": "no"}


def test_a_turn_by_turn_episode() -> None:
    env = lake(**PAPER)
    start = env.reset(SMALL)
    assert start == Episode(SMALL, 0, start.state) and not start.over
    first = env.step(start, tags("Right", "Hop", "Right"))
    assert first.rewards == (-0.1,) and first.strategy == "aa-ab-ac" and not first.over
    assert first.observation == (
        "Reward:\n-0.1\n\nTurn 2:\nState:\n__P\n_O_\n__G\nYou have 8 actions left. Always output: <think> [your thoughts]"
        " </think> <answer> [your actions, separated by ||] </answer> with no extra text, like this: <think>The hole is"
        " below me, so I go right first.</think><answer>Right || Down</answer> Be brief: what is too long is cut off."
    )
    second = env.step(first, "I go down.")
    assert second.rewards == (-0.1, -0.1) and second.strategy == "aa-ab-ac" and "Turn 3" in second.observation
    won = env.step(second, tags("down", "down", "left"))
    assert won.rewards == (-0.1, -0.1, 1.0) and won.state.moves == 4  # what comes after the goal is not carried out
    assert (won.terminated, won.truncated, won.success, won.observation) == (True, False, True, "")
    assert won.verdict == Score(pytest.approx(0.8), True, "aa-ab-ac-bc-cc")
    with pytest.raises(InputError, match="episode of task 0 is over \\(terminated\\)"):
        env.step(won, tags("up"))
    lost = env.step(first, tags("left", "down"))  # gone back to, and on another way
    assert lost.rewards == (-0.1, 0.0) and lost.strategy == "aa-ab-bb"
    assert (lost.terminated, lost.truncated, lost.success) == (True, False, False)
    assert env.step(start, tags("Right", "Hop", "Right")) == first


def test_a_winning_turn_pays_its_penalty() -> None:
    env = lake(**PAPER)
    won = env.step(env.reset(SMALL), tags("right", "right", "down", "dive", "down"))
    assert won.success and won.rewards == (0.9,)


def test_limits_of_turns_and_actions() -> None:
    env = lake(**PAPER)
    bumps = env.step(env.reset(SMALL), tags(*["up"] * 9))
    assert bumps.state.moves == 5 and bumps.rewards == (0.0,)  # 5 a turn, the rest is dropped
    # the unknown action is one of the turn's five
    assert env.step(env.reset(SMALL), tags("up", "hop", "up", "up", "up", "up", "hop")).state.moves == 4
    over = env.step(bumps, tags(*["up"] * 5))
    assert over.state.moves == 10 and (over.terminated, over.truncated) == (False, True)
    # of 9 + 3 actions, 1 is left; it reaches the goal, so the task ended and no limit did
    env = lake(**PAPER, max_actions=4)
    almost = env.step(env.reset(SMALL), tags("right", "right", "down"))
    assert almost.observation.count("You have 1 actions left") == 1
    assert env.step(almost, tags("down", "up")).verdict == Score(1.0, True, "aa-ab-ac-bc-cc")
    assert env.step(almost, tags("up", "down")).truncated
    env, episode = lake(**PAPER), lake(**PAPER).reset(SMALL)
    for turn in range(5):
        assert not episode.over
        episode = env.step(episode, "nothing")
        assert episode.rewards == (-0.1,) * (turn + 1)
    assert episode.truncated and not episode.terminated and episode.strategy is None
    with pytest.raises(InputError, match="truncated"):
        env.step(episode, tags("up"))


def test_plain_turns_are_read_strictly() -> None:
    env = lake(turns=4, invalid_penalty=0.5)
    one = env.step(env.reset(SMALL), "right please right")
    assert one.state.moves == 0 and one.rewards == (-0.5,) and one.strategy is None and not one.over
    assert one.observation == "at aa left 12"
    two = env.step(one, "right right")
    assert two.rewards == (-0.5, 0.0) and two.observation == "at ac left 10"
    assert env.step(one, "right right left left left hop").state.moves == 0  # unknown, though beyond the turn's five
    # two turns of 5 actions: 10 in all, though max_actions is 12
    few = lake(turns=2)
    assert (
        few.step(few.reset(SMALL), "right").observation == "at ab left 9" and "and 10 actions in" in few.task(0).prompt
    )
    assert "like this: at bc left 6 (row b" in env.task(0).prompt and "like this: at" not in lake().task(0).prompt


@pytest.mark.parametrize("slippery", ["no", "yes"])
def test_twins_agree(slippery: str) -> None:
    options = {"preset": "paper", "slippery": slippery}
    one, other, generator = lake(**options), lake(**options), random.Random(4)
    for index in reversed(range(60)):
        other.task(index)
    for index in range(60):
        texts = [tags(*generator.choices([*ACTIONS, "hop"], k=generator.randint(0, 6))) for _ in range(5)]
        first, second = one.reset(one.task(index), index), other.reset(other.task(index), index)
        for text in texts:
            if first.over:
                break
            first, second = one.step(first, text), other.step(second, text)
            assert first == second and hash(first.state) == hash(second.state)
        assert second.over


def test_tasks_of_the_lab() -> None:
    env = lake()
    task = env.task(0)
    assert json.loads(json.dumps(task.data)) == task.data
    # Frozen on the day they were first made (numpy 2.4); other maps make runs of one config incomparable.
    assert task.data["map"] == ["FFFFF", "FGFFF", "FFFHF", "FFFFF", "FFHSF"]
    assert env.solutions(task) == ["up left left up up", "up left up left up", "up left up up left"]
    assert task.data["hard"] is True  # left, left, up, up, up meets the hole ec
    assert task_text("lab", "frozen_lake", task) == "lake from ed to bb holes cd ec"
    assert "_____\n_G___\n___O_\n_____\n__OP_" in task.prompt
    for part in (
        "5 by 5",
        "at most 12 actions; a plan that is longer, or goes on after the goal is reached, fails",
        "left, down, right, up",
        "not slippery",
        "actions only",
    ):
        assert part in task.prompt
    assert env.task(4096).data == task.data and env.task(4096).prompt == task.prompt != env.task(1).prompt
    assert task_text("lab", "frozen_lake", lake(frozen=1.0, tasks=5).task(0)).endswith(" holes none")
    assert FrozenLake(FrozenLakeOptions()).task(3) == env.task(3)


def test_the_paper_s_prompt() -> None:
    text = task_text("chat", "frozen_lake", lake(preset="paper").task(0))
    for part in (
        "P: player, _: frozen, O: hole, G: goal, X: player in hole, √: player on goal", "Left, Down, Right, Up",
        "slippery: with probability 1/3 each", "at most 5 turns, 5 actions a turn and 10 actions in all; further ones are dropped.",
        "Turn 1:\nState:\n___P\n_O_G\n__O_\n____\n", "<think> [your thoughts] </think>", "<answer>Right || Down</answer>",
    ):  # fmt: skip
        assert part in text
    assert "{" not in text


def test_ten_thousand_tasks_differ() -> None:
    env = lake(tasks=10_000)
    assert len({tuple(env.task(index).data["map"]) for index in range(10_000)}) == 10_000


def test_splits_do_not_meet() -> None:
    # The same seed, other seeds and other options: a map is in one split, whatever it was drawn with.
    maps = {
        split: {
            tuple(env.task(index).data["map"])
            for env in (
                lake(size=4, min_distance=1, split=split, seed=seed, slippery=ice)
                for seed in (0, 1)
                for ice in ("no", "yes")
            )
            for index in range(500)
        }
        for split in SPLITS
    }
    assert not maps["train"] & maps["validation"] and not maps["train"] & maps["test"]
    assert not maps["validation"] & maps["test"]


def test_hard_tasks_are_those_without_a_habitual_plan() -> None:
    env = lake(size=6, frozen=0.7)
    hard = []
    for task in map(env.task, range(400)):
        sketches = [env.sketch(task, text) for text in env.solutions(task) or []]
        hard.append(not any(env.habitual(str(sketch)) for sketch in sketches))
        assert task.data["hard"] is hard[-1]
    assert 0.2 < np.mean(hard) < 0.95
    for kind, expected in (("all", {True}), ("none", {False})):
        env = lake(hard=kind)
        assert {env.task(index).data["hard"] for index in range(100)} == expected
    env = lake(hard="half")
    assert [env.task(index).data["hard"] for index in range(8)] == [False, True] * 4


def test_the_natural_share_of_hard_tasks() -> None:
    # Measured once over 4,096 tasks: 57.3 %. 1,000 of them: standard error 1.6 %
    env = lake()
    assert abs(np.mean([env.task(index).data["hard"] for index in range(1_000)]) - 0.573) < 0.08


def test_habits() -> None:
    env = lake()
    texts = [" ".join(words) for n in range(4) for words in itertools.product([*ACTIONS, "stay"], repeat=n)]
    assert {text for text in texts if env.habitual(text)} == {
        "left", "down", "right", "up", "left up", "left down", "right up", "right down",
    }  # fmt: skip
    assert not env.habitual("RIGHT") and not env.habitual(" right") and not env.habitual("right" * 2_000_000)


def test_maps_keep_what_the_options_say() -> None:
    env = lake(placing="corners", size=6, min_distance=11, max_actions=14)
    for task in map(env.task, range(30)):
        rows = task.data["map"]
        assert rows[0][0] == "S" and rows[5][5] == "G" and (task.data["start"], task.data["goal"]) == ("aa", "ff")
        assert len(env.oracle(task).split()) in (12, 14)  # at least 11, and of even length between these corners
    # 5x5, p = 0.8: at least 4 apart; holes are rarer than 20 % since the lakes can be crossed
    env = lake(seed=5)
    tasks = [env.task(index) for index in range(300)]
    assert 0.1 < np.mean(["".join(task.data["map"]).count("H") / 25 for task in tasks]) < 0.2
    lengths = {len(env.oracle(task).split()) for task in tasks}
    assert min(lengths) == 4 and 6 < max(lengths) <= 12
    env = lake(preset="paper", frozen=0.6, max_actions=5)
    assert {env.oracle(env.task(index)).count("||") + 1 for index in range(300)} == {1, 2, 3, 4, 5}


def test_options_that_do_not_fit_together() -> None:
    with pytest.raises(InputError, match="min_distance = 13 is out of range: an episode has at most 12 actions"):
        lake(min_distance=13)
    with pytest.raises(InputError, match="at most 6 actions"):
        lake(turns=2, actions_per_turn=3, min_distance=7)
    with pytest.raises(InputError, match=r"invalid_penalty = 0\.1 needs turns > 1"):
        lake(invalid_penalty=0.1)
    with pytest.raises(InputError, match="frozen_lake: only 0 distinct tasks were found"):
        lake(size=2, min_distance=3).task(0)


def test_render() -> None:
    env = lake()
    frames = env.render(SMALL, "left right right down down right")
    assert [frame.caption for frame in frames] == [
        "start", "1. left", "2. right", "3. right", "4. down", "5. down: at the goal; the plan goes on",
    ]  # fmt: skip
    assert [frame.text for frame in frames] == [
        "P__\n_O_\n__G", "P__\n_O_\n__G", "_P_\n_O_\n__G", "__P\n_O_\n__G", "___\n_OP\n__G", "___\n_O_\n__√",
    ]  # fmt: skip
    drowned = env.render(SMALL, "down right up")
    assert [frame.caption for frame in drowned] == ["start", "1. down", "2. right: into a hole; the plan goes on"]
    assert env.render(SMALL, "right right down down")[-1].caption == "4. down: at the goal"
    assert lake(exact_plan="no").render(SMALL, "right right down down up")[-1].caption == "4. down: at the goal"
    assert lake(max_actions=4).render(SMALL, "up " * 20_000)[-1].caption == "4. up; the plan goes on"
    assert drowned[-1].text == "___\n_X_\n__G"
    assert frames[0].svg.count("<rect") == 9 and frames[0].svg.startswith("<svg ") and "×" in drowned[-1].svg
    slippery = lake(slippery="yes").render(on("FFFFG", "FFFFF", "FFSFF", "FFFFF", "FFFFF"), "up down up down up down")
    assert len(slippery) == 7 and any(frame.caption.endswith("slipped") for frame in slippery)


def test_neighbours_of_an_oblong() -> None:
    #   0 1 2      left, down, right, up of 0 are 0, 3, 1, 0; of 5 they are 4, 5, 5, 2
    #   3 4 5
    table = neighbours(2, 3)
    assert table[0] == (0, 3, 1, 0) and table[5] == (4, 5, 5, 2) and table[4] == (3, 4, 5, 1)
    assert [cell_name(cell, 3) for cell in range(6)] == ["aa", "ab", "ac", "ba", "bb", "bc"] == list(cell_names(2, 3))


ENV, TAGGED = lake(), lake(preset="paper")
WORDS = st.lists(st.sampled_from([*ACTIONS, "UP", "||", ",", "hop", "<answer>", "\n"]), max_size=30).map(" ".join)


@settings(max_examples=200)
@given(text=WORDS | st.text(alphabet=st.characters(), max_size=200), index=st.integers(0, 5))
def test_any_text_gets_a_verdict(text: str, index: int) -> None:
    for env, said in ((ENV, text), (TAGGED, text), (TAGGED, f"<think>{text}</think><answer>{text}</answer>")):
        task = env.task(index)
        score, episode = env.score(task, said), env.step(env.reset(task), said)
        if score.strategy is None:
            assert score == Score(0.0, False, None) and env.sketch(task, said) is None and episode.strategy is None
        else:
            cells = score.strategy.split("-")
            assert cells[0] == task.data["start"] and len(set(cells)) == len(cells)
            assert score.reward == float(score.success) <= (cells[-1] == task.data["goal"])
            assert env is ENV or score.success is (cells[-1] == task.data["goal"])  # paper: what comes after is dropped
        assert len(env.render(task, said)) <= 1 + env.options["max_actions"]


def test_ten_megabytes_take_no_time() -> None:
    pieces = (
        "left ",
        "left||",
        "<think>",
        "</think> ",
        "<think></think><answer>",
        "</think>\n<answer",
        "\ud800",
        ",",
        " ",
    )
    for env, piece in itertools.product((ENV, TAGGED), pieces):
        for length in (100_000, 10_000_000):
            text = piece * (length // len(piece))
            start = time.process_time()
            env.score(env.task(0), text)
            env.step(env.reset(env.task(0)), text)
            env.sketch(env.task(0), text)
            assert time.process_time() - start < 1.0


def test_thousands_of_tasks_are_made_and_solved_quickly() -> None:
    start = time.process_time()
    env = lake(seed=11)
    for task in map(env.task, range(2_000)):
        for text in env.solutions(task) or []:
            env.sketch(task, text)
    assert time.process_time() - start < 6.0  # 0.5 s where this was written
