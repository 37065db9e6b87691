"""How many tasks, answers and steps an environment gets through in a second, beside packages that do the same.

Both sides do the same work: the same maps and rooms, the same actions, the same answers, drawn anew each round so that no
cache knows them. ``agree`` says on what share of it they came to the same result; where both draw their own tasks there is
none. Rivals run in ``.venv/rivals`` in a process of their own, which times itself (``rivals/measure.py``); each is spared
what it can be spared. A step of ours reads text and writes an observation as text; a step of gymnasium takes and gives a
number, one of gym-sokoban draws a picture of a pixel a cell.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sesa_lab import environments
from sesa_lab.environments.lake import ACTIONS
from sesa_lab.environments.sokoban_rooms import DIRECTIONS, Room, generate, parse
from sesa_lab.experiments.bench_pairs import Spent, median_spent, one, progress, ratios
from sesa_lab.experiments.bench_rivals import PACKAGES, PYTHON, Rivals
from sesa_lab.experiments.bench_trl import clock, since
from sesa_lab.seeding import stream
from sesa_lab.types import Episode, Task

LAKE = {"size": 4, "frozen": 0.8, "placing": "corners", "min_distance": 1}
ROOM = {"height": 6, "width": 6, "boxes": 1, "walk_steps": 20, "player_steps": 0, "min_pushes": 1}
COUNTDOWN = {
    "n_numbers": 4, "number_low": 1, "number_high": 10, "operators": "+-*", "target_low": 1, "target_high": 100,
}  # fmt: skip
IN_STEPS = {"turns": 100, "actions_per_turn": 1, "max_actions": 100}
_ROOMS, _PLANS = 5, 0  # positions among the "environment" and the "tasks" streams of a seed


@dataclass(frozen=True)
class Load:
    """How much of each work a round holds.

    Attributes:
        tasks: tasks, maps or rooms made.
        episodes: tasks that steps are taken in, or answers given to.
        actions: most actions of an episode.
        answers: answers a task.
    """

    tasks: int = 100
    episodes: int = 200
    actions: int = 50
    answers: int = 16


LOAD = Load()


@dataclass(frozen=True)
class Work:
    """One round's work.

    Attributes:
        ours: does it; one result a unit, JSON-able after ``said``.
        ask: what the rival is asked, see ``rivals/measure.py``; empty: it has none.
        said: a result of ours in the rival's words.
    """

    ours: Callable[[], Sequence[Any]]
    ask: Mapping[str, Any] = field(default_factory=dict)
    said: Callable[[Any], Any] = lambda result: result


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
        name: environment and unit.
        prepare: (round, load) -> its work; nothing of it is timed.
        rival: one of ``PACKAGES``, or "".
        comparable: whether results can be compared one by one.
        note: what the two sides do differently.
    """

    name: str
    prepare: Callable[[int, Load], Work]
    rival: str = ""
    comparable: bool = True
    note: str = ""


def compare(rounds: int, load: Load = LOAD, python: Path = PYTHON) -> dict[str, Any]:
    """Every subject, each round both sides one right after the other, in alternating order; round 0 is the warm-up.

    Args:
        rounds: paired rounds, at least 1.
        load: how much of each work a round holds.
        python: of the environment that the rivals are installed in; where it is not there, ours are measured alone.
    """
    if not python.exists():
        return _compare(rounds, load, None)
    rivals = Rivals(python)
    try:
        return _compare(rounds, load, rivals)
    finally:
        rivals.close()


def _compare(rounds: int, load: Load, rivals: Rivals | None) -> dict[str, Any]:
    result: dict[str, Any] = {"rivals": None if rivals is None else rivals.ask("versions", names=PACKAGES)}
    result["subjects"] = {
        subject.name: _measure(subject, rounds, load, rivals if subject.rival else None) for subject in SUBJECTS
    }
    return result


def _measure(subject: Subject, rounds: int, load: Load, rivals: Rivals | None) -> dict[str, Any]:
    """Seconds a unit on either side, and how often the results are the same."""
    ours: list[Spent] = []
    theirs: list[Spent] = []
    agree: list[float] = []
    units = 0
    for number in progress(rounds + 1, subject.name):
        work = subject.prepare(number, load)
        told = _rival(work, rivals) if number % 2 else {}
        begin = clock()
        results = work.ours()
        spent = since(begin)
        told = told or _rival(work, rivals)
        if not number:
            continue
        units = len(results)
        ours.append((spent[0] / units, spent[1] / units))
        if told:
            count = len(told["results"])
            theirs.append((told["seconds"] / count, told["cpu"] / count))
            agree.append(_agreement([work.said(result) for result in results], told["results"]))
    found: dict[str, Any] = {"rival": subject.rival, "note": subject.note, "units": units, "ours": _rate(ours)}
    if theirs:
        found |= {"theirs": _rate(theirs), "speedup": ratios(theirs, ours)}
        found["agree"] = float(np.mean(agree)) if subject.comparable else None
    return found


def _rival(work: Work, rivals: Rivals | None) -> dict[str, Any]:
    return {} if rivals is None else rivals.ask(**work.ask)


def _agreement(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    """Share of results that are the same; one that only one side has is not."""
    same = sum(bool(json.loads(json.dumps(a)) == b) for a, b in zip(ours, theirs, strict=False))
    return same / max(len(ours), len(theirs))


def _rate(spents: Sequence[Spent]) -> dict[str, float]:
    median = median_spent(spents)
    return median | {"per_second": 1 / median["seconds"]}


# --- tasks ----------------------------------------------------------------------------------------------------------


def _made(name: str, options: Mapping[str, Any], number: int, count: int) -> tuple[Any, list[Task]]:
    """An environment that nobody has asked yet, and its first tasks; rounds have tasks of their own."""
    env = environments.make(name, **options, seed=number, tasks=count)
    return env, [env.task(i) for i in range(count)]


def _making(
    name: str, options: Mapping[str, Any], ask: Callable[[int, int], dict[str, Any]]
) -> Callable[[int, Load], Work]:
    """Tasks by a fresh environment of the round's seed."""

    def prepare(number: int, load: Load) -> Work:
        return Work(
            lambda: _made(name, options, number, load.tasks)[1], ask(load.tasks, number), lambda task: task.prompt
        )

    return prepare


def _sokoban_rooms(number: int, load: Load) -> Work:
    size = {name: ROOM[name] for name in ("height", "width", "boxes", "walk_steps")}

    def ours() -> list[Room]:
        rooms: list[Room] = []
        draws = 0
        while len(rooms) < load.tasks:
            generator = stream(number, "environment", _ROOMS, draws)
            room = generate(generator, **size, search_depth=300, player_steps=0)
            rooms += [] if room is None else [room]
            draws += 1
        return rooms

    return Work(
        ours, {"work": "sokoban_rooms", "count": load.tasks, **size, "seed": number}, lambda room: room.layout()
    )


# --- steps ----------------------------------------------------------------------------------------------------------


def _random_plans(number: int, load: Load) -> list[list[int]]:
    """Numbers of random actions, one list an episode."""
    plans: list[list[int]] = stream(number, "tasks", _PLANS).integers(4, size=(load.episodes, load.actions)).tolist()
    return plans


def _walk(env: Any, episodes: Sequence[Episode], plans: Sequence[Sequence[str]]) -> list[Episode]:
    """Every episode, one action a turn, until it is over; the state after each."""
    seen = []
    for episode, plan in zip(episodes, plans, strict=True):
        for word in plan:
            episode = env.step(episode, word)
            seen.append(episode)
            if episode.over:
                break
    return seen


def _lake_steps(slippery: str) -> Callable[[int, Load], Work]:
    def prepare(number: int, load: Load) -> Work:
        env, tasks = _made("frozen_lake", {**LAKE, **IN_STEPS, "slippery": slippery}, number, load.episodes)
        plans = _random_plans(number, load)
        words = [[ACTIONS[action] for action in plan] for plan in plans]
        episodes = [env.reset(task, number * load.episodes + i) for i, task in enumerate(tasks)]
        ask: dict[str, Any] = {"work": "frozen_lake_steps", "maps": [task.data["map"] for task in tasks]}
        ask |= {"actions": plans, "slippery": slippery == "yes", "seed": number}
        return Work(lambda: _walk(env, episodes, words), ask, lambda episode: episode.state.cell)

    return prepare


def _sokoban_steps(number: int, load: Load) -> Work:
    env, tasks = _made("sokoban", {**ROOM, **IN_STEPS, "reward": "gym"}, number, load.episodes)
    plans = _random_plans(number, load)
    words = [[DIRECTIONS[action] for action in plan] for plan in plans]
    rooms = [parse(task.data["room"]) for task in tasks]
    episodes = [env.reset(task) for task in tasks]
    ask = {"work": "sokoban_steps", "width": ROOM["width"], "actions": [[a + 1 for a in plan] for plan in plans]}
    ask |= {"fixed": [ground(room) for room in rooms], "start": [digits(room) for room in rooms]}
    return Work(
        lambda: _walk(env, episodes, words), ask, lambda episode: [digits(episode.state.room), episode.rewards[-1]]
    )


def digits(room: Room) -> str:
    """A room in gym-sokoban's digits: 0 wall, 1 floor, 2 target, 3 box on target, 4 box, 5 player."""
    names = {"#": "0", "_": "1", "O": "2", "√": "3", "X": "4", "P": "5", "S": "5"}
    return "".join(names[symbol] for row in room.rows() for symbol in row)


def ground(room: Room) -> str:
    """The same without boxes and player."""
    cells = range(room.width * room.height)
    return "".join("0" if not room.floor >> cell & 1 else "2" if room.targets >> cell & 1 else "1" for cell in cells)


# --- answers --------------------------------------------------------------------------------------------------------


def _scoring(env: Any, tasks: Sequence[Task], texts: Sequence[Sequence[str]], ask: dict[str, Any]) -> Work:
    def ours() -> list[Any]:
        return [env.score(task, text) for task, own in zip(tasks, texts, strict=True) for text in own]

    return Work(ours, ask, lambda score: score.success)


def _plans_for(env: Any, tasks: Sequence[Task], number: int, load: Load) -> list[list[list[str]]]:
    """For each task its shortest plan and shuffled ones: none can succeed before its last action, so both sides judge it whole."""
    generator = stream(number, "tasks", _PLANS)
    found = []
    for task in tasks:
        plan = env.oracle(task).split()
        found.append([plan, *(generator.permutation(plan).tolist() for _ in range(load.answers - 1))])
    return found


def _lake_answers(number: int, load: Load) -> Work:
    env, tasks = _made("frozen_lake", LAKE, number, load.episodes)
    plans = _plans_for(env, tasks, number, load)
    numbers = [[[ACTIONS.index(word) for word in plan] for plan in own] for own in plans]
    ask = {"work": "frozen_lake_answers", "maps": [task.data["map"] for task in tasks], "actions": numbers}
    return _scoring(env, tasks, [[" ".join(plan) for plan in own] for own in plans], ask)


_REASONING_GYM_ROOM = str.maketrans({"#": "+", "_": "-", "O": "X", "X": "@", "√": "$", "P": "*", "S": "%"})


def _sokoban_answers(number: int, load: Load) -> Work:
    env, tasks = _made("sokoban", ROOM, number, load.episodes)
    plans = _plans_for(env, tasks, number, load)
    letters = [["".join(word[0].upper() for word in plan) for plan in own] for own in plans]
    boards = [{"gamestr": "\n".join(task.data["room"]).translate(_REASONING_GYM_ROOM)} for task in tasks]
    ask = {"work": "reasoning_gym_answers", "dataset": "sokoban", "metadata": boards, "answers": letters, "options": {}}
    return _scoring(env, tasks, [[" ".join(plan) for plan in own] for own in plans], ask)


def _countdown_answers(number: int, load: Load) -> Work:
    """Right expressions, expressions that may miss, one with a number too many, and no expression."""
    env, tasks = _made("countdown", COUNTDOWN, number, load.episodes)
    generator = stream(number, "tasks", _PLANS)
    texts = []
    for task in tasks:
        numbers = task.data["numbers"]
        own = [*(env.solutions(task) or [])[: load.answers // 2]]
        own += ["+".join(map(str, [*numbers, numbers[0]])), "I give up"][: load.answers - len(own)]
        while len(own) < load.answers:
            own.append("".join(f"{generator.choice(['+', '-', '*'])}{n}" for n in generator.permutation(numbers))[1:])
        texts.append(own)
    known = [{"numbers": task.data["numbers"], "target": task.data["target"]} for task in tasks]
    ask = {"work": "reasoning_gym_answers", "dataset": "countdown", "metadata": known, "answers": texts, "options": {}}
    return _scoring(env, tasks, texts, ask)


def _path_answers(number: int, load: Load) -> Work:
    env = environments.make("path_exploration", seed=number)
    leaves = env.enumerate(env.task(0)) or []
    chosen = stream(number, "tasks", _PLANS).integers(len(leaves), size=(load.episodes, load.answers)).tolist()
    texts = [[leaves[leaf] for leaf in own] for own in chosen]
    return _scoring(env, [env.task(i) for i in range(load.episodes)], texts, {})


# --- what is measured -----------------------------------------------------------------------------------------------


def _ask_maps(count: int, seed: int) -> dict[str, Any]:
    return {"work": "frozen_lake_maps", "count": count, "size": LAKE["size"], "frozen": LAKE["frozen"], "seed": seed}


def _ask_countdown(count: int, seed: int) -> dict[str, Any]:
    options: dict[str, Any] = {"min_numbers": 4, "max_numbers": 4, "min_value": 1, "max_value": 10}
    options |= {"min_target": 1, "max_target": 100, "operators": list("+-*"), "seed": seed * 1_000_003}
    return {"work": "reasoning_gym_tasks", "dataset": "countdown", "count": count, "options": options}


def _ask_sokoban(count: int, seed: int) -> dict[str, Any]:
    sides = {f"{end}_{side}": 6 for end in ("min", "max") for side in ("w", "h")}
    options = {**sides, "min_boxes": 1, "max_boxes": 1, "seed": seed * 1_000_003}
    return {"work": "reasoning_gym_tasks", "dataset": "sokoban", "count": count, "options": options}


SUBJECTS = (
    Subject(
        "frozen_lake task", _making("frozen_lake", LAKE, _ask_maps), "gymnasium", False,
        "ours: distinct, of one split, with distances and prompt; theirs: a map that can be solved",
    ),
    Subject(
        "frozen_lake step", _lake_steps("no"), "gymnasium",
        note="ours: text in, text out, the walk kept; theirs: a number in, a number out",
    ),
    Subject(
        "frozen_lake step, slippery", _lake_steps("yes"), "gymnasium", False,
        "as above; ours can be gone back to and replayed, its luck being fixed by seed and map",
    ),
    Subject("frozen_lake answer", _lake_answers, "gymnasium", note="ours reads text; theirs is given numbers of actions"),
    Subject("sokoban room", _sokoban_rooms, "gym-sokoban", False, "the same walk, masks and reverse play on either side"),
    Subject("sokoban task", _making("sokoban", ROOM, _ask_sokoban), "reasoning-gym", False,
        "ours: distinct, of one split, all solutions known; theirs: one solution known",
    ),
    Subject(
        "sokoban step", _sokoban_steps, "gym-sokoban",
        note="ours: text in, text out, the pushes kept; theirs: a number in, a picture out",
    ),
    Subject("sokoban answer", _sokoban_answers, "reasoning-gym"),
    Subject(
        "countdown task", _making("countdown", COUNTDOWN, _ask_countdown), "reasoning-gym", False,
        "ours: distinct, of one split, all solutions listed; theirs: one solution known",
    ),
    Subject("countdown answer", _countdown_answers, "reasoning-gym", note="theirs evaluates the text by sympy"),
    Subject("path_exploration answer", _path_answers),
)  # fmt: skip


def lines(result: Mapping[str, Any]) -> list[str]:
    """The table."""
    found = [
        "Environments: units a second, one process each; the ratio is of seconds a unit, with its interval over rounds",
        f"{'':28}{'ours':>10}{'rival':>12}  {'':15}{'agree':>6}  ours is faster by (wall-clock; processor)",
    ]
    for name, subject in result["subjects"].items():
        row = f"{name:28}{subject['ours']['per_second']:10,.0f}"
        if "theirs" in subject:
            agree = "" if subject["agree"] is None else f"{subject['agree']:.0%}"
            row += f"{subject['theirs']['per_second']:12,.0f}  {subject['rival']:15}{agree:>6}"
            row += f"  {one(subject['speedup']['seconds'])}; {one(subject['speedup']['cpu'])}"
        found.append(row)
    if result["rivals"] is None:
        found.append(
            "The environments' rivals are not installed, ours were measured alone: `make bench` installs them."
        )
        return found
    versions = ", ".join(f"{name} {version}" for name, version in result["rivals"].items())
    notes = [f"{name}: {subject['note']}" for name, subject in result["subjects"].items() if subject["note"]]
    return [*found, versions, *notes]
