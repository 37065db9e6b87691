"""The benchmarks of environments and of sketches: both sides do the same work, and the numbers say what was done."""

from __future__ import annotations

import ast
import gzip
import importlib.util
import inspect
import json
import math
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sesa_lab import environments
from sesa_lab.environments.sokoban_rooms import DIRECTIONS, Room, parse
from sesa_lab.errors import InputError
from sesa_lab.experiments import bench_environments as envs
from sesa_lab.experiments import bench_rivals, bench_sketches
from sesa_lab.experiments.bench_pairs import both, median_spent, ratios
from sesa_lab.experiments.bench_rivals import Rivals
from sesa_lab.experiments.bench_sketches import Drafting, Drawer
from sesa_lab.experiments.bench_trl import Shape, memory
from sesa_lab.types import Group, Task

TINY = envs.Load(tasks=4, episodes=6, actions=8, answers=6)
SUBJECTS = {subject.name: subject for subject in envs.SUBJECTS}
RECORDING = Path(__file__).parents[1] / "environments" / "gym_sokoban_0.0.6.json.gz"


# --- environments ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gymnasium() -> Iterator[Rivals]:
    """The rivals' script in this environment, which has gymnasium."""
    rivals = Rivals(sys.executable)
    yield rivals
    rivals.close()


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("measure", bench_rivals.SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["frozen_lake step", "frozen_lake answer"])
def test_gymnasium_comes_to_the_same_on_the_same_lakes(gymnasium: Rivals, name: str) -> None:
    for number in (1, 2):
        work = SUBJECTS[name].prepare(number, TINY)
        told = gymnasium.ask(**work.ask)
        said = [work.said(result) for result in work.ours()]
        assert said == told["results"]
        assert told["seconds"] > 0 and told["cpu"] > 0
    # What is compared has some substance: every answer is judged, of both kinds; some walks end before their last action.
    if name == "frozen_lake answer":
        assert len(said) == TINY.episodes * TINY.answers and set(said) == {True, False}
    else:
        assert TINY.episodes < len(said) < TINY.episodes * TINY.actions and len(set(said)) > 4


def test_slippery_lakes_are_the_same_ones_with_slips_on_both_sides(gymnasium: Rivals) -> None:
    plain, slippery = (SUBJECTS[name].prepare(1, TINY) for name in ("frozen_lake step", "frozen_lake step, slippery"))
    assert slippery.ask == {**plain.ask, "slippery": True}
    without, ours = ([work.said(episode) for episode in work.ours()] for work in (plain, slippery))
    for states in (ours, gymnasium.ask(**slippery.ask)["results"]):
        assert set(states) <= set(range(16)) and states != without


def test_gymnasium_makes_as_many_maps_of_the_same_size(gymnasium: Rivals) -> None:
    work = SUBJECTS["frozen_lake task"].prepare(1, TINY)
    tasks, maps = work.ours(), gymnasium.ask(**work.ask)["results"]
    assert len(tasks) == len(maps) == TINY.tasks
    for rows in [*maps, *(task.data["map"] for task in tasks)]:
        assert [len(row) for row in rows] == [4] * 4
        assert rows[0][0] == "S" and rows[3][3] == "G"


def room_of(fixed: str, state: str, width: int) -> Room:
    """gym-sokoban's digits read by hand: walls 0, targets 2 of the fixed room, boxes 3 and 4, the player 5."""
    names = {"0": "#", "1": "_", "2": "O", "3": "√", "4": "X", "5": "P"}
    symbols = ["S" if cell == "5" and ground == "2" else names[cell] for ground, cell in zip(fixed, state, strict=True)]
    return parse(["".join(symbols[start : start + width]) for start in range(0, len(symbols), width)])


def test_steps_are_those_gym_sokoban_took() -> None:
    with gzip.open(RECORDING) as file:
        episodes = [e for e in json.load(file)["episodes"] if (e["height"], e["width"]) == (6, 6)][:60]
    env = environments.make("sokoban", **envs.ROOM, **envs.IN_STEPS, reward="gym")
    rooms = [room_of(e["fixed"], e["start"], 6) for e in episodes]
    # What gym-sokoban would be given is the room that it began with.
    assert [envs.ground(room) for room in rooms] == [e["fixed"] for e in episodes]
    assert [envs.digits(room) for room in rooms] == [e["start"] for e in episodes]
    begun = [env.reset(Task(0, "?", {"room": room.rows()})) for room in rooms]
    plans = [[DIRECTIONS[int(action) - 1] for action in e["actions"]] for e in episodes]
    walked = envs._walk(env, begun, plans)
    assert [envs.digits(episode.state.room) for episode in walked] == [s for e in episodes for s in e["states"]]
    assert [episode.rewards[-1] for episode in walked] == [r for e in episodes for r in e["rewards"]]


def test_sokoban_steps_ask_for_the_actions_that_ours_takes() -> None:
    work = SUBJECTS["sokoban step"].prepare(1, TINY)
    walked = work.ours()
    # gym-sokoban numbers pushes up, down, left, right from 1; a step's change of the player's cell tells what was tried.
    own = [episode for episode in walked if episode.task.index == 0]
    first = list(zip(work.ask["actions"][0], own, strict=False))  # solved before its last action, it has fewer
    assert len(first) == TINY.actions or own[-1].success
    cell = work.ask["start"][0].index("5")
    for action, episode in first:
        moved = episode.state.room.player - cell
        assert moved in (0, {1: -6, 2: 6, 3: -1, 4: 1}[action])
        cell = episode.state.room.player


def letters_solve(board: str, letters: str) -> bool:
    """reasoning-gym's rules, written down anew: + wall, - floor, X goal, @ box, $ box on goal, * player, % player on goal."""
    grid = {(r, c): symbol for r, row in enumerate(board.split("\n")) for c, symbol in enumerate(row)}
    goals = {place for place, symbol in grid.items() if symbol in "X$%"}
    boxes = {place for place, symbol in grid.items() if symbol in "@$"}
    player = next(place for place, symbol in grid.items() if symbol in "*%")
    for letter in letters:
        down, right = {"U": (-1, 0), "D": (1, 0), "L": (0, -1), "R": (0, 1)}[letter]
        ahead, behind = ((player[0] + n * down, player[1] + n * right) for n in (1, 2))
        if grid[ahead] == "+" or (ahead in boxes and (grid[behind] == "+" or behind in boxes)):
            continue
        if ahead in boxes:
            boxes = boxes - {ahead} | {behind}
        player = ahead
    return boxes == goals


def test_sokoban_answers_are_judged_alike_by_a_referee() -> None:
    verdicts = []
    for number in range(3):
        work = SUBJECTS["sokoban answer"].prepare(number, TINY)
        said = [work.said(result) for result in work.ours()]
        boards = [one["gamestr"] for one in work.ask["metadata"]]
        pairs = [(b, text) for b, texts in zip(boards, work.ask["answers"], strict=True) for text in texts]
        assert said == [letters_solve(*pair) for pair in pairs]
        verdicts += said
    # Of each task's six answers one is a shortest plan; shuffled ones seldom solve it.
    assert len(verdicts) == 3 * TINY.episodes * TINY.answers
    assert sum(verdicts) >= 3 * TINY.episodes and not all(verdicts)


def reaches(text: str, numbers: list[int], target: int) -> bool:
    """Python's own arithmetic on texts that were made here: each number once, and the value."""
    if not re.fullmatch(r"[0-9+*() -]+", text) or sorted(map(int, re.findall(r"\d+", text))) != sorted(numbers):
        return False
    value = eval(compile(ast.parse(text, mode="eval"), "answer", "eval"), {"__builtins__": {}})
    return bool(value == target)


def test_countdown_answers_are_judged_alike_by_a_referee() -> None:
    verdicts = []
    for number in range(3):
        work = SUBJECTS["countdown answer"].prepare(number, TINY)
        said = [work.said(result) for result in work.ours()]
        pairs = list(zip(work.ask["metadata"], work.ask["answers"], strict=True))
        assert [len(texts) for _, texts in pairs] == [TINY.answers] * TINY.episodes
        assert said == [reaches(text, known["numbers"], known["target"]) for known, texts in pairs for text in texts]
        assert all("I give up" in texts for _, texts in pairs)
        verdicts += said
    assert 0.1 < np.mean(verdicts) < 0.9


@pytest.mark.parametrize("name", list(SUBJECTS))
def test_every_round_has_work_of_its_own_and_the_rival_is_asked_in_its_words(script: Any, name: str) -> None:
    subject = SUBJECTS[name]
    first, second, again = (subject.prepare(number, TINY) for number in (1, 2, 1))
    if subject.rival:
        assert subject.rival in bench_rivals.PACKAGES
        asked = {key: value for key, value in first.ask.items() if key != "work"}
        inspect.signature(script.WORK[first.ask["work"]]).bind(**asked)
        assert json.loads(json.dumps(first.ask)) == json.loads(json.dumps(again.ask)) != second.ask
    else:
        assert not first.ask
    said = [[work.said(result) for result in work.ours()] for work in (first, second, again)]
    assert said[0] == said[2] and len(said[0]) >= TINY.tasks
    if not name.endswith("answer"):
        assert said[0] != said[1]


@pytest.mark.parametrize("name", ["sokoban room", "sokoban task", "countdown task"])
def test_made_tasks_are_as_many_and_as_large_as_the_rival_is_asked_for(name: str) -> None:
    work = SUBJECTS[name].prepare(1, TINY)
    made = work.ours()
    assert len(made) == work.ask["count"] == TINY.tasks
    if name == "countdown task":
        assert all(len(task.data["numbers"]) == work.ask["options"]["max_numbers"] == 4 for task in made)
        assert all(1 <= n <= work.ask["options"]["max_value"] == 10 for task in made for n in task.data["numbers"])
        return
    rooms = made if name == "sokoban room" else [parse(task.data["room"]) for task in made]
    sides = (work.ask["height"], work.ask["width"]) if name == "sokoban room" else (6, 6)
    assert {(room.height, room.width) for room in rooms} == {sides} == {(6, 6)}
    assert all(room.boxes.bit_count() == 1 and not room.solved for room in rooms)


def test_agreement_counts_what_only_one_side_has_against_it() -> None:
    assert envs._agreement([1, (2, 0.5)], [1, [2, 0.5]]) == 1.0  # tuples are lists in JSON
    assert envs._agreement([1, 2, 3], [1, 5]) == pytest.approx(1 / 3)


def test_a_measure_holds_both_sides_seconds_a_unit(gymnasium: Rivals) -> None:
    found = envs._measure(SUBJECTS["frozen_lake answer"], 2, TINY, gymnasium)
    assert found["agree"] == 1.0 and found["units"] == TINY.episodes * TINY.answers
    assert found["ours"]["per_second"] == pytest.approx(1 / found["ours"]["seconds"])
    ratio = found["speedup"]["seconds"]
    assert ratio["n"] == 2 and 0 < ratio["low"] < ratio["mean"] < ratio["high"]
    slippery = envs._measure(SUBJECTS["frozen_lake step, slippery"], 1, TINY, gymnasium)
    assert slippery["agree"] is None and slippery["speedup"]["seconds"]["low"] is None


def test_without_rivals_ours_are_measured_and_one_line_says_how_to_get_them(tmp_path: Path) -> None:
    result = envs.compare(1, TINY, tmp_path / "no" / "python")
    assert result["rivals"] is None and set(result["subjects"]) == set(SUBJECTS)
    assert not any("theirs" in subject for subject in result["subjects"].values())
    assert all(subject["ours"]["per_second"] > 0 for subject in result["subjects"].values())
    printed = envs.lines(json.loads(json.dumps(result)))
    assert [line for line in printed if "`make bench` installs them" in line] == printed[-1:]
    assert all(any(line.startswith(name) for line in printed) for name in SUBJECTS)


def test_the_table_shows_both_sides() -> None:
    ratio = {"mean": 2.0, "low": 1.5, "high": 2.5, "n": 3}
    subject = {
        "rival": "gymnasium", "note": "differs so", "units": 3, "ours": {"per_second": 1234.4},
        "theirs": {"per_second": 617.2}, "speedup": {"seconds": ratio, "cpu": ratio}, "agree": 1.0,
    }  # fmt: skip
    lines = envs.lines({"rivals": {"gymnasium": "1.4.0"}, "subjects": {"lake step": subject}})
    row = next(line for line in lines if line.startswith("lake step "))
    assert row.split()[2:6] == ["1,234", "617", "gymnasium", "100%"] and row.count("2.00 [1.50, 2.50] (n=3)") == 2
    assert lines[-2:] == ["gymnasium 1.4.0", "lake step: differs so"]


def test_a_rival_that_ends_is_reported_with_its_last_words(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit('no such package')\n")
    rivals = Rivals(sys.executable, broken)
    with pytest.raises(InputError, match=r"'frozen_lake_maps' \(no such package\); `make bench`"):
        rivals.ask("frozen_lake_maps", count=1, size=4, frozen=0.8, seed=0)
    rivals.close()


def test_rivals_are_pinned_and_where_the_makefile_puts_them(root: Path) -> None:
    lines = (root / "rivals" / "requirements.txt").read_text().splitlines()
    pins = dict(line.split("#")[0].strip().split("==") for line in lines if line and not line.startswith("#"))
    assert set(bench_rivals.PACKAGES) <= set(pins)
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert f"gymnasium=={pins['gymnasium']}" in extras["test"], "tests compare with the version that is measured"
    makefile = (root / "Makefile").read_text()
    assert re.search(r"^bench: .*\$\(RIVALS\)", makefile, re.M)
    stamp = re.search(r"^RIVALS := (.*)$", makefile, re.M)
    assert stamp is not None and (root / stamp[1]).parent == bench_rivals.PYTHON.parents[1]
    assert "rivals/requirements.txt" in makefile


# --- sketches -------------------------------------------------------------------------------------------------------

SHAPE = Shape(prompts=2, layers=1, hidden=32)
DRAFTING = Drafting(group=4, sketch=3, solutions=(6,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sketches") / "policy"
    bench_sketches.make_lab_policy(folder, SHAPE)
    return folder


@pytest.fixture(scope="module")
def drawer(folder: Path) -> Callable[[str], Drawer]:
    return lambda name: Drawer(bench_sketches.WAYS[name], DRAFTING, folder, SHAPE, 6)


def test_a_sketch_reads_back_as_it_was_drawn(drawer: Callable[[str], Drawer]) -> None:
    trainer = drawer("list").trainer
    assert trainer.policy.form == "lab"
    for group in trainer.draw(1):
        texts = [sketch.text for sketch in group.sketches]
        assert len(set(texts)) == 4 and all(re.fullmatch(r"[!-~]{3}", text) for text in texts)
        for candidate, text in zip(group.candidates, texts, strict=True):
            assert [trainer.policy.encode(s.text) for s in group.sketches] == [
                s.turn.completion.ids for s in group.sketches
            ]
            guided = trainer.speaker.guided(group.task, text)
            assert candidate.turns[0].drawn_under.ids == guided
            assert candidate.turns[0].trained_under["task"].ids == trainer.speaker.answer(group.task)


@pytest.mark.parametrize("name", list(bench_sketches.WAYS))
def test_every_way_draws_equally_many_solutions_of_equal_length(drawer: Callable[[str], Drawer], name: str) -> None:
    took = drawer(name).take(1)
    drafted = [] if name == "parallel" else [3] * (2 * 4)
    assert took.solutions == [6] * (2 * 4) and took.sketches == drafted
    # 2 prompts x 4 solutions of 6 tokens, and as many sketches of 3.
    assert took.counts["sampled"] == 2 * 4 * 6 + sum(drafted) and sum(drafted) in (0, 24)
    assert 0 < took.draw[0] <= took.step[0] and 0 < took.draw[1] <= took.step[1]


def common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    return next((t for t, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def read_with_cache(group: Group) -> int:
    """Tokens read in: what a row does not already hold of its next context; what solutions' contexts share, once."""
    tokens, held = 0, ()
    for sketch in group.sketches:
        turn = sketch.turn
        tokens += len(turn.drawn_under.ids) - common(held, turn.drawn_under.ids)
        held = (*turn.drawn_under.ids, *turn.completion.ids)
    contexts = [candidate.turns[0].drawn_under.ids for candidate in group.candidates]
    shared = min(common(a, b) for a in contexts for b in contexts)
    return tokens + shared + sum(len(ids) - shared for ids in contexts)


def read_anew(group: Group) -> int:
    """Tokens read in where nothing is kept: every context whole."""
    turns = [*(sketch.turn for sketch in group.sketches), *(c.turns[0] for c in group.candidates)]
    return sum(len(turn.drawn_under.ids) for turn in turns)


@pytest.mark.parametrize("form", ["list", "prompt"])
def test_with_a_kept_cache_the_same_is_drawn_and_less_is_read(drawer: Callable[[str], Drawer], form: str) -> None:
    kept, again = drawer(form).trainer, drawer(f"{form}, rereading").trainer
    groups, others = kept.draw(1), again.draw(1)
    for one, other in zip(groups, others, strict=True):
        assert [s.turn.completion.ids for s in one.sketches] == [s.turn.completion.ids for s in other.sketches]
        assert [c.turns[0].completion.ids for c in one.candidates] == [
            c.turns[0].completion.ids for c in other.candidates
        ]
    assert kept.engine.counters.prefilled == sum(map(read_with_cache, groups))
    assert again.engine.counters.prefilled == sum(map(read_anew, groups))
    assert kept.engine.counters.prefilled < again.engine.counters.prefilled / 2


def test_the_paper_s_update_is_as_much_work_with_sketches_as_without(drawer: Callable[[str], Drawer]) -> None:
    # x and its answer are trained, whatever the answer was drawn under: prompts are the same, and so are lengths.
    trained = {
        name: drawer(name).take(1).counts["trained"] for name in ("parallel", "list", "prompt", "list, x + sketch")
    }
    assert trained["parallel"] == trained["list"] == trained["prompt"] < trained["list, x + sketch"]


def test_the_result_holds_ratios_shares_and_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        bench_sketches, "WAYS", {name: bench_sketches.WAYS[name] for name in ("parallel", "list", "sketches i.i.d.")}
    )
    result = json.loads(json.dumps(bench_sketches.compare(2, SHAPE, DRAFTING)))
    ways = result["solutions"]["6"]
    assert result["sketches"] == 4 and list(ways) == ["parallel", "list", "sketches i.i.d."]
    assert (ways["list"]["solutions"], ways["list"]["sketches"], ways["list"]["share"]) == (48, 24, 0.5)
    assert ways["parallel"]["share"] == 0 and ways["parallel"]["verdict"] == ""
    assert ways["list"]["verdict"] == "no aim"  # half the solutions' tokens is more than 15 %
    assert ways["parallel"]["draw"]["over_parallel"]["seconds"]["mean"] == 1.0
    assert all(way[part]["over_parallel"]["cpu"]["n"] == 2 for way in ways.values() for part in ("draw", "step"))
    printed = "\n".join(bench_sketches.lines(result))
    for words in ("4 sketches a prompt of 3 tokens", "solutions of 6 tokens; sketches have 50.0%", "no aim", "i.i.d."):
        assert words in printed


def test_half_as_many_sketches_where_each_is_expanded_twice(folder: Path) -> None:
    twice = Drafting(group=4, expansions=2, sketch=3, solutions=(6,))
    took = Drawer(bench_sketches.WAYS["list"], twice, folder, SHAPE, 6).take(1)
    assert len(took.sketches) == 2 * 2 and took.solutions == [6] * 8


@pytest.mark.parametrize(
    ("mean", "low", "high", "share", "expected"),
    [
        (1.2, 1.15, 1.25, 0.125, "met"),
        (1.2, 1.1, 1.3, 0.125, "open"),
        (1.3, 1.26, 1.34, 0.15, "not met"),
        (1.2, None, None, 0.1, "met"),
        (1.3, None, None, 0.1, "not met"),
        (1.1, 1.0, 1.2, 0.5, "no aim"),
        (1.0, 1.0, 1.0, 0.0, ""),
    ],
)
def test_verdicts(mean: float, low: float | None, high: float | None, share: float, expected: str) -> None:
    assert bench_sketches.verdict({"mean": mean, "low": low, "high": high, "n": 3}, share) == expected


def test_a_new_peak_of_memory_holds_what_came_after_it() -> None:
    # Linux with glibc tells; elsewhere there is no number, and none is made up.
    if not bench_sketches._forget_peak():
        assert not (sys.platform == "linux" and Path("/proc/self/clear_refs").exists())
        return
    before = memory().now
    assert len(np.ones(64 << 17)) == 64 << 17  # 64 MiB of float64, gone again at once
    assert 60 < memory().peak - before < 90
    assert bench_sketches._forget_peak() and memory().peak - before < 30


def test_ratios_are_of_the_pairs() -> None:
    found = ratios([(2.0, 1.0), (8.0, 1.0)], [(1.0, 1.0), (2.0, 1.0)])
    # The geometric mean of 2 / 1 and 8 / 2.
    assert found["seconds"]["mean"] == pytest.approx(math.sqrt(2 * 4)) and found["cpu"]["mean"] == 1.0
    assert median_spent([(1.0, 4.0), (3.0, 5.0), (20.0, 6.0)]) == {"seconds": 3.0, "cpu": 5.0}
    assert both(ratios([(2.0, 1.0)], [(1.0, 1.0)])).startswith("2.00 (n=1, no interval) in wall-clock, 1.00")
