"""The contract checker: silent on a sound environment, and each rule catches the environment that breaks it."""

from __future__ import annotations

import dataclasses
import html
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sesa_lab.environments import check, checker, checker_tools, make
from sesa_lab.environments.checker_episodes import chance
from sesa_lab.environments.contract import SingleTurn, check_index, check_open
from sesa_lab.errors import InputError
from sesa_lab.seeding import stream
from sesa_lab.types import Episode, Frame, Score, Task


class Toy(SingleTurn):
    """Sound, of one turn: 'which of a, b, c?', where b and c are right."""

    name = "toy"

    def __init__(self) -> None:
        self.options: Any = {"size": 3, "seed": 0}
        self.policy_options: Any = ("size",)
        self.repeats: Any = "count"
        self.count: Any = 3

    def task(self, index: int) -> Task:
        number = check_index(index) % 3
        return Task(
            int(index), f"a, b or c? (question {number})", {"right": ["b", "c"], "number": number, "hard": False}
        )

    def score(self, task: Task, text: str) -> Score:
        answer = text[:50].strip().lower() if len(text) < 50 else ""
        if answer not in ("a", "b", "c"):
            return Score(0.0, False, None)
        return Score(float(answer in task.data["right"]), answer in task.data["right"], answer)

    def enumerate(self, task: Task) -> Any:
        return ["a", "b", "c"]

    def solutions(self, task: Task) -> Any:
        return ["b", "c"]

    def oracle(self, task: Task) -> str:
        return task.data["right"][0]

    def sketch(self, task: Task, text: str) -> Any:
        answer = self.score(task, text).strategy
        return None if answer is None else f"letter {answer}"

    def habitual(self, sketch: str) -> Any:
        return sketch == "letter c"

    def render(self, task: Task, text: str = "") -> Any:
        said = [] if self.score(task, text).strategy is None else [text[:50]]
        return [picture("question", "?"), *(picture("answer", word) for word in said)]


def picture(caption: str, text: str) -> Frame:
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><text>{html.escape(text)}</text></svg>'
    return Frame(caption, html.escape(text), svg)


class Ladder(Toy):
    """Sound, of up to 3 turns: climb 2 rungs. A turn is a few times 'up' or 'down'; the first action of it counts."""

    name = "ladder"
    turns = 3
    slips = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.options = {"rungs": 2}
        self.policy_options = ("rungs",)

    def task(self, index: int) -> Task:
        number = check_index(index) % 3
        return Task(int(index), f"climb 2 rungs (ladder {number})", {"rungs": 2, "ladder": number})

    def read(self, text: str) -> list[str] | None:
        words = text.lower().split() if len(text) < 100 else []
        return words if words and set(words) <= {"up", "down"} else None

    def climbed(self, words: Any, seed: int) -> int:
        height = 0
        for number, word in enumerate(words):
            stays = stream(seed, "environment", 9, number).random() < self.slips
            height = height if stays or height == 2 else max(height + (1 if word == "up" else -1), 0)
        return height

    def score(self, task: Task, text: str) -> Score:
        words = self.read(text)
        if words is None:
            return Score(0.0, False, None)
        found = self.climbed(words, 0) == 2
        return Score(float(found), found, " ".join(words))

    def step(self, episode: Episode, text: str) -> Any:
        check_open(episode)
        words = (*(episode.state or ()), *(self.read(text) or [])[:1])
        height, turns = self.climbed(words, episode.seed), len(episode.rewards) + 1
        over = height == 2 or turns == 3
        return dataclasses.replace(
            episode,
            state=words,
            observation="" if over else f"on rung {height}",
            rewards=(*episode.rewards, float(height == 2) if self.read(text) else -0.1),
            terminated=height == 2,
            truncated=turns == 3 and height != 2,
            success=height == 2,
            strategy=" ".join(words) or None,
        )

    def enumerate(self, task: Task) -> Any:
        return None

    def solutions(self, task: Task) -> Any:
        return ["up up", "up down up up"]

    def oracle(self, task: Task) -> str:
        return "up up"

    def sketch(self, task: Task, text: str) -> Any:
        words = self.read(text)
        return None if words is None else words[0]

    def habitual(self, sketch: str) -> Any:
        return False


class Slippery(Ladder):
    """Sound; chance has a say: 4 of 5 moves come to nothing, and so do the solutions under seed 0."""

    slips = 0.8


class Costly(Toy):
    """Sound; failing costs 0.5, and so silence, as whatever cannot be read, costs 1."""

    def score(self, task: Task, text: str) -> Score:
        score = super().score(task, text)
        return score if score.success else dataclasses.replace(score, reward=-1.0 if score.strategy is None else -0.5)


@pytest.mark.parametrize("kind", [Toy, Ladder, Slippery, Costly])
def test_sound_environments_pass(kind: Callable[[], Any]) -> None:
    check(kind(), kind())


@pytest.mark.parametrize(("kind", "expected"), [(Toy, False), (Ladder, False), (Slippery, True)])
def test_chance_is_found_out(kind: Callable[[], Any], expected: bool) -> None:
    env = kind()
    assert chance(env, env.task(0)) is expected


def test_where_chance_has_a_say_solutions_need_not_succeed() -> None:
    env = Slippery()
    # the moves that stay under seed 0; else this test would show nothing
    assert not env.score(env.task(0), env.oracle(env.task(0))).success
    # but they must be readable, and be several
    for solutions, says in (
        (["up up", "jump"], r"the solution 'jump' of task 0 is Score\(reward=0.0.*expected success"),
        (["up up", "up up"], "expected distinct texts, at least one"),
        ([], "expected distinct texts, at least one"),
    ):
        kind = type("Broken", (Slippery,), {"solutions": lambda self, task, texts=solutions: list(texts)})
        with pytest.raises(InputError, match=says):
            check(kind(), kind())


def test_an_environment_without_enumeration_passes() -> None:
    class Endless(Toy):
        def enumerate(self, task: Task) -> Any:
            return None

        def solutions(self, task: Task) -> Any:
            return None

    check(Endless(), Endless())


def test_the_checker_leaves_the_global_generators_alone() -> None:
    before = checker._global_generators()
    check(Toy(), Toy())
    assert checker._global_generators() == before


def test_an_unregistered_environment_needs_a_twin() -> None:
    with pytest.raises(InputError, match=r"'toy' is not registered.*twin="):
        check(Toy())


def toy(**methods: Any) -> Callable[[], Any]:
    """A class of environments like Toy with some methods or attributes broken."""
    return type("Broken", (Toy,), methods)


def ladder(**methods: Any) -> Callable[[], Any]:
    return type("Broken", (Ladder,), methods)


def with_attributes(**values: Any) -> Callable[[], Any]:
    def build() -> Toy:
        env = Toy()
        for name, value in values.items():
            setattr(env, name, value)
        return env

    return build


class Unseeded(Toy):
    generator = np.random.default_rng()  # shared and without a fixed seed: never the same twice

    def __init__(self) -> None:
        super().__init__()
        self.word = str(self.generator.random())

    def task(self, index: int) -> Task:
        return Task(check_index(index), self.word, {"right": ["b"]})


class Counting(Toy):
    calls = 0

    def task(self, index: int) -> Task:
        self.calls += 1
        return Task(check_index(index), f"question {self.calls}", {"right": ["b"]})


class Remembering(Toy):
    """Judges an answer by what came before it, which is the trainer's business."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, str]] = set()

    def score(self, task: Task, text: str) -> Score:
        score = super().score(task, text)
        key = (task.index, score.strategy or "")
        if text == "a" and key in self.seen and len(self.seen) == 4:
            return Score(0.5, False, "a")
        if text == "a":
            self.seen.add(key)
        return score


class AskedBackwards(Toy):
    """Tasks depend on the highest index asked for so far."""

    highest = 0

    def task(self, index: int) -> Task:
        self.highest = max(self.highest, check_index(index)) if is_twin(self) else 0
        return Task(index, "low" if self.highest < 5 else "high", {"right": ["b"], "number": index % 3})


def scoring(rule: Callable[[Toy, Task, str], Any]) -> Callable[[], Any]:
    return toy(score=rule)


def changed(text_is: Callable[[str], bool], verdict: Any) -> Callable[[], Any]:
    """Toy, but ``verdict`` (a value, or a function of the text) where ``text_is`` holds."""

    def rule(self: Toy, task: Task, text: str) -> Any:
        if text_is(text):
            return verdict(text) if callable(verdict) else verdict
        return Toy.score(self, task, text)

    return scoring(rule)


def fail_with(error: Exception) -> Callable[[str], Any]:
    def fail(text: str) -> Any:
        raise error

    return fail


def as_written(self: Toy, task: Task, text: str) -> Score:
    answer = text.strip()
    hit = len(answer) < 50 and answer.lower() in task.data["right"]
    known = hit or answer in ("a", "A")
    return Score(float(hit), hit, answer if known else None)


def draw_globally(self: Toy, task: Task) -> str:
    random.random()
    return "b"


def draw_globally_by_numpy(self: Toy, task: Task) -> str:
    np.random.Generator(
        np.random.mtrand.get_bit_generator()
    ).random()  # as np.random.random(), which the linter forbids
    return "b"


def edit_options(self: Toy, task: Task) -> str:
    self.options["calls"] = self.options.get("calls", 0) + 1
    return "b"


def edit_data(self: Toy, task: Task) -> str:
    task.data["right"].append("b")
    return "b"


def bare_task(self: Toy, index: int) -> Task:
    return Task(index, "a?", {"right": ["b"]})


def task_of_ints(self: Toy, index: int) -> Task:
    return Task(int("x" if index is None else index), "a?", {"right": ["b"]})


def not_passed_on(self: Toy, index: int) -> Task:
    return Task(check_index(index) * 0, "a?", {"right": ["b"]})


def task_with(data: Any) -> Callable[[Toy, int], Task]:
    return lambda self, index: Task(check_index(index), "a?", data)


def order_of_a_set(self: Toy, task: Task) -> list[str]:
    return ["a", "b", "c"] if id(self) == FIRST[0] else ["c", "b", "a"]


FIRST = [0]  # id of the environment under test, which is not its twin


def is_twin(env: Toy) -> bool:
    return id(env) != FIRST[0]


def listing(number: int) -> Callable[[Toy], list[str]]:
    """A method that hands out the very list it keeps."""

    def method(self: Any, task: Task) -> list[str]:
        if not hasattr(self, "kept"):
            self.kept = ["b", "c", "a"][:number]
        return list(self.kept) if is_twin(self) else self.kept

    return method


def starting(**changes: Any) -> Callable[[], Any]:
    """Ladder, but an episode starts with ``changes`` (values, or functions of the environment)."""

    def reset(self: Ladder, task: Task, seed: int = 0) -> Episode:
        values = {name: value(self) if callable(value) else value for name, value in changes.items()}
        return dataclasses.replace(Episode(task, seed, None), **values)

    return ladder(reset=reset)


def stepping(when: Callable[[Ladder, Episode, str], bool] = lambda env, after, text: True, **changes: Any) -> Any:
    """Ladder, but the episode after a turn is changed by ``changes`` (values, or functions of it) where ``when`` holds."""

    def step(self: Ladder, episode: Episode, text: str) -> Any:
        after = Ladder.step(self, episode, text)
        if not when(self, after, text):
            return after
        return dataclasses.replace(after, **{k: v(after) if callable(v) else v for k, v in changes.items()})

    return ladder(step=step)


def step_anyway(self: Ladder, episode: Episode, text: str) -> Episode:
    """Goes on after the end."""
    return Ladder.step(self, dataclasses.replace(episode, terminated=False, truncated=False, success=False), text)


def step_by_assertion(self: Ladder, episode: Episode, text: str) -> Episode:
    assert not episode.over
    return Ladder.step(self, episode, text)


def step_on_ascii(self: Ladder, episode: Episode, text: str) -> Episode:
    text.encode("ascii")
    return Ladder.step(self, episode, text)


def step_echoing(self: Ladder, episode: Episode, text: str) -> Episode:
    after = Ladder.step(self, episode, text)
    return dataclasses.replace(after, observation="" if after.over else f"you said {text}")


def step_in_place(self: Ladder, episode: Episode, text: str) -> Episode:
    state = [] if episode.state is None else episode.state
    after = Ladder.step(self, dataclasses.replace(episode, state=tuple(state)), text)
    state[:] = after.state
    return dataclasses.replace(after, state=state)


def step_on_own_board(self: Any, episode: Episode, text: str) -> Episode:
    """Keeps how far it is in the environment."""
    state = () if not episode.rewards else getattr(self, "board", ())
    after = Ladder.step(self, dataclasses.replace(episode, state=state), text)
    self.board = after.state
    return after


def step_with_chance_of_its_own(self: Ladder, episode: Episode, text: str) -> Episode:
    after = Ladder.step(self, episode, text)
    return dataclasses.replace(after, rewards=(*episode.rewards, -0.5)) if is_twin(self) else after


class Board:
    """A state without ``==``."""


def frames_of(change: Callable[[str, list[Frame]], Any]) -> Callable[[], Any]:
    """Toy, but its frames are changed."""
    return toy(render=lambda self, task, text="": change(text, Toy.render(self, task, text)))


def more(**changes: Any) -> Callable[[], Any]:
    """Toy, with one more frame at the end, its values changed: to others, or to functions of the text answered."""

    def change(text: str, frames: list[Frame]) -> list[Frame]:
        values = {name: value(text) if callable(value) else value for name, value in changes.items()}
        return [*frames, dataclasses.replace(frames[-1], **values)]

    return frames_of(change)


def drawn(inner: str, box: str = "0 0 9 9") -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">{inner}</svg>'


def entities(number: int = 30) -> str:
    """An SVG whose text is 2^30 characters, if its entities are followed."""
    more = "".join(f'<!ENTITY e{i} "&e{i - 1};&e{i - 1};">' for i in range(1, number + 1))
    return f'<!DOCTYPE svg [<!ENTITY e0 "x">{more}]><svg viewBox="0 0 9 9"><text>&e{number};</text></svg>'


def sketching(rule: Callable[[Toy, Task, str], Any]) -> Callable[[], Any]:
    return toy(sketch=rule)


def sketched(text_is: Callable[[str], bool], sketch: Any) -> Callable[[], Any]:
    """Toy, but ``sketch`` (a value, or a function of the text) where ``text_is`` holds."""

    def rule(self: Toy, task: Task, text: str) -> Any:
        if text_is(text):
            return sketch(text) if callable(sketch) else sketch
        return Toy.sketch(self, task, text)

    return sketching(rule)


RULES: dict[str, tuple[Callable[[], Any], str]] = {
    "no name": (with_attributes(name=""), "expected a name"),
    "options not a dict": (with_attributes(options=[1]), "options is a list; expected a mapping"),
    "options not JSON-able": (with_attributes(options={"a": {1}}), "options cannot be written as JSON"),
    "options with NaN": (with_attributes(options={"a": float("nan")}), "options cannot be written as JSON"),
    "options with a tuple": (with_attributes(options={"a": (1,)}), "comes back from JSON changed.*a tuple"),
    "unknown rule for repeats": (with_attributes(repeats="environment"), "'environment'; expected 'count' or 'zero'"),
    "task is no Task": (toy(task=lambda self, index: "a?"), "expected a Task"),
    "index not passed on": (toy(task=not_passed_on), "task\\(1\\) is .*index not passed on"),
    "data is no mapping": (toy(task=task_with([1])), "task\\(0\\).data is a list"),
    "data with numpy": (toy(task=task_with({"right": np.ones(2)})), "task\\(0\\).data cannot be written as JSON"),
    "data with int keys": (toy(task=task_with({1: "b"})), "comes back from JSON changed.*a key that is not text"),
    "negative indices": (toy(task=bare_task), "task\\(-1\\) gives a task; expected InputError.*check_index"),
    "indices raise something else": (
        toy(task=lambda self, index: task_of_ints(self, check_index(index) if index != 0.5 else "x")),
        "task\\(0.5\\) raises ValueError; expected InputError",
    ),
    "state between calls": (Counting, "asked again.*state is kept between calls"),
    "no seed": (Unseeded, "twin of the same options.*generator without a seed"),
    "score raises": (changed(lambda t: len(t) == 0, fail_with(IndexError("no"))), "raises IndexError on nothing"),
    "score raises on surrogates": (
        changed(lambda t: True, lambda t: (t.encode(), Toy().score(Toy().task(0), t))[1]),
        "raises UnicodeEncodeError on lone surrogates.*encoding",
    ),
    "score parses long numbers": (
        changed(lambda t: t.isascii() and t.isdigit(), lambda t: Score(0.0, False, str(int(t)))),
        "raises ValueError on a number of 100,000 digits",
    ),
    "score raises on blanks of 10 MB": (
        changed(lambda t: len(t) > 5_000_000, fail_with(MemoryError())),
        "raises MemoryError on 10,000,000 characters",
    ),
    "no Score": (changed(lambda t: t == "b", (1.0, True, "b")), "expected a Score"),
    "NaN": (changed(lambda t: t == "c", Score(float("nan"), False, "c")), "enumerated 'c'.*finite reward"),
    "infinite": (changed(lambda t: t == "c", Score(float("inf"), True, "c")), "enumerated 'c'.*finite reward"),
    "numpy bool": (changed(lambda t: t == "c", Score(1.0, np.bool_(True), "c")), "success a bool.*numpy bool"),
    "strategy no text": (changed(lambda t: t == "c", Score(1.0, True, 3)), "strategy text or None"),  # type: ignore[arg-type]
    "penalty for some of the unreadable": (
        changed(lambda t: t == "", Score(-0.1, False, None)),
        "reward of .*, which cannot be read, is 0.0; expected that of nothing, -0.1",
    ),
    "reward for the unreadable": (
        changed(lambda t: t not in ("a", "b", "c"), Score(0.1, False, None)),
        "expected no success and at most reward 0 without a strategy",
    ),
    "silence pays": (
        changed(lambda t: t == "a", Score(-0.1, False, "a")),
        "reward of the enumerated 'a', which can be read, is -0.1; expected at least that of nothing, 0.0",
    ),
    "success without strategy": (
        changed(lambda t: t == "b", Score(0.0, True, None)),
        "expected no success and at most reward 0 without a strategy",
    ),
    "empty answer has a strategy": (changed(lambda t: t == "", Score(0.0, False, "a")), "taken for a default"),
    "code succeeds": (changed(lambda t: "__import__" in t, Score(1.0, True, "b")), "score of code is"),
    "answer searched in garbage": (
        changed(lambda t: len(t) > 5_000 and "a" in t[:9], Score(1.0, True, "b")),
        "succeed; expected no success",
    ),
    "oracle fails": (toy(oracle=lambda self, task: "a"), "expected success.*oracle and score disagree"),
    "blanks count": (changed(lambda t: t[:1] == " ", Score(0.0, False, None)), "with blanks around it.*not stripped"),
    "case counts": (scoring(as_written), "strategy of 'B' is 'B'; expected 'b' or None.*as written"),
    "enumerate in no order": (toy(enumerate=order_of_a_set), "enumerate of task 0 by a twin.*a set's order"),
    "enumerate unreadable": (toy(enumerate=lambda s, t: ["a", "b", "d"]), "cannot read the enumerated 'd'"),
    "enumerate twice": (toy(enumerate=lambda s, t: ["b", "B"]), "'B' and 'b' are one strategy"),
    "enumerate incomplete": (toy(enumerate=lambda s, t: ["a", "c"]), "lacks the oracle's 'b'"),
    "enumerate empty": (toy(enumerate=lambda s, t: []), "lacks the oracle's 'b'"),
    "score remembers": (Remembering, "asked in another order.*repeats are the trainer's business"),
    "random": (toy(oracle=draw_globally), "global generator of random or numpy was used"),
    "numpy.random": (toy(oracle=draw_globally_by_numpy), "global generator of random or numpy was used"),
    "options edited": (toy(oracle=edit_options), "options after use.*edits self.options"),
    "data edited": (toy(oracle=edit_data), "task.data after use.*edits the task"),
    "policy options unknown": (with_attributes(policy_options=("size", "sise")), "a tuple of names among size, seed"),
    "policy options one text": (with_attributes(policy_options="size"), "policy_options = 'size'; expected a tuple"),
    "count no number": (with_attributes(count=3.0), "count = 3.0; expected a whole number >= 1"),
    "turns 0": (with_attributes(turns=0), "turns = 0; expected a whole number >= 1"),
    "count too high": (with_attributes(count=4), "tasks 0 and 3 are the same.*expected count = 4 distinct"),
    "count too low": (with_attributes(count=2), "content of task 2: .*task i is not task i mod count \\(2\\)"),
    "prompt tells the index": (
        toy(task=lambda self, index: dataclasses.replace(Toy.task(self, index), prompt=f"a? ({index})")),
        "content of task 3: .*prompt or data tell the index",
    ),
    "asked backwards": (AskedBackwards, "of a twin of the same options.*what was asked before"),
    "strategy with surrogates": (
        changed(lambda t: "\ud800" in t, Score(0.0, False, "\ud800")),
        "strategy of lone surrogates is .*text that UTF-8 can write",
    ),
    "enumerate no list": (toy(enumerate=lambda s, t: ("a", "b", "c")), "expected a list of texts, or None"),
    "enumerate's own list": (toy(enumerate=listing(3)), "enumerate of task 0 after a caller emptied.*give a copy"),
    "solutions no list": (toy(solutions=lambda s, t: ("b", "c")), "expected a list of texts, or None"),
    "solutions' own list": (toy(solutions=listing(2)), "solutions of task 0 after a caller emptied.*give a copy"),
    "solutions in no order": (
        toy(solutions=lambda s, t: ["b", "c"] if is_twin(s) else ["c", "b"]),
        "solutions of task 0 by a twin.*a set's order",
    ),
    "a solution fails": (
        toy(solutions=lambda s, t: ["b", "a"]),
        "solution 'a' of task 0 is .*expected success; likely cause: solver and score judge",
    ),
    "a solution unreadable": (toy(solutions=lambda s, t: ["b", "b!"]), "solution 'b!' of task 0 is .*expected success"),
    "a solution twice": (toy(solutions=lambda s, t: ["b", "c", "B"]), "'B' and 'b' are one strategy.*solutions lists"),
    "solutions lack the oracle's": (toy(solutions=lambda s, t: ["c"]), "solutions of task 0 lack the oracle's 'b'"),
    "no solutions": (toy(solutions=lambda s, t: []), "solutions of task 0 lack the oracle's 'b'"),
    "a solution not enumerated": (
        toy(enumerate=lambda s, t: ["a", "b"]),
        "solution 'c' of task 0 is not among the enumerated",
    ),
    "reset gives no Episode": (
        ladder(reset=lambda s, t, seed=0: (t, {})),
        "reset\\(task, 0\\) is .*expected an Episode",
    ),
    "reset drops the seed": (starting(seed=0), "reset\\(task, 1\\) is of another task or seed"),
    "reset tells the state": (starting(observation="go"), "the first state told as an observation"),
    "reset has rewards": (starting(rewards=(0.0,), observation="go"), "an open episode without rewards"),
    "reset by chance": (starting(state=is_twin), "reset\\(task, 0\\) by a twin.*the seed does not fix"),
    "another default seed": (
        ladder(reset=lambda s, t, seed=5: Episode(t, seed, None)),
        "reset\\(task\\): .*another default than seed = 0",
    ),
    "step raises": (ladder(step=step_on_ascii), "step raises UnicodeEncodeError on .*no error on any text"),
    "step gives a tuple": (ladder(step=lambda s, e, t: ("", 0.0, True)), "expected an Episode.*as in Gymnasium"),
    "step takes another task": (
        stepping(task=lambda after: dataclasses.replace(after.task, prompt="other")),
        "changes task or seed",
    ),
    "step drops the seed": (stepping(seed=7), "changes task or seed"),
    "two rewards a turn": (stepping(rewards=lambda after: (*after.rewards, 0.0)), "one more at the end"),
    "earlier rewards dropped": (stepping(rewards=lambda after: after.rewards[-1:]), "earlier rewards dropped"),
    "rewards a list": (stepping(rewards=lambda after: list(after.rewards)), "a tuple of finite numbers.*a list"),
    "a reward NaN": (stepping(rewards=lambda after: (*after.rewards[:-1], np.nan)), "a tuple of finite numbers"),
    "terminated a numpy bool": (stepping(terminated=lambda after: np.bool_(after.terminated)), "three bools"),
    "terminated and truncated": (
        stepping(truncated=lambda after: len(after.rewards) == 3 or after.terminated),
        "is terminated and truncated",
    ),
    "success while open": (stepping(success=lambda after: after.state == ("up",)), "succeeds, but is not terminated"),
    "no observation": (stepping(observation=""), "which is open: ''; expected text while it is open"),
    "observation after the end": (stepping(observation="the end"), "which is over: 'the end'"),
    "observation no text": (stepping(observation=None), "observation of .* is None; expected text that UTF-8"),
    "observation echoes": (
        ladder(step=step_echoing),
        r"observation of .* is 'you said \\ud800.*text that UTF-8 can write",
    ),
    "an episode's strategy no text": (
        stepping(strategy=lambda after: list(after.state)),
        "strategy of the episode after",
    ),
    "no end": (
        stepping(truncated=False, observation=lambda after: "" if after.over and not after.truncated else "go"),
        "not over after 3 turns of nothing.*no turn limit",
    ),
    "goes on after the end": (ladder(step=step_anyway), "step on an episode that is over gives another.*check_open"),
    "asserts at the end": (ladder(step=step_by_assertion), "over raises AssertionError; expected InputError"),
    "step edits the state": (
        type("InPlace", (Ladder,), {"reset": lambda s, t, seed=0: Episode(t, seed, []), "step": step_in_place}),
        "step edits the state",
    ),
    "state without ==": (stepping(state=lambda after: Board()), "a copy of an episode: .*its state has no =="),
    "state an array": (stepping(state=lambda after: np.ones(2)), "cannot be compared by == .*a numpy array"),
    "state a generator": (stepping(state=lambda after: (word for word in "ab")), "state cannot be copied"),
    "the environment keeps the board": (ladder(step=step_on_own_board), "keeps the state of play"),
    "a twin's episode differs": (ladder(step=step_with_chance_of_its_own), "the episode after turn 1 .* by a twin"),
    "one turn judged apart": (
        toy(step=lambda s, e, t: dataclasses.replace(SingleTurn.step(s, e, t), rewards=(0.25,))),
        "verdict of the episode of one turn.*step and score judge apart",
    ),
    "garbage succeeds in step": (
        toy(step=lambda s, e, t: SingleTurn.step(s, e, "b" if len(t) > 5_000_000 else t)),
        "10,000,000 characters of 'a' succeed",
    ),
    "no sketch of the oracle's": (sketched(lambda t: True, None), "sketch of 'b' is None; expected text for what"),
    "no sketch of a solution": (sketched(lambda t: t == "c", None), "sketch of 'c' is None; expected text for what"),
    "sketch of two lines": (sketched(lambda t: t == "b", "a\nb"), "on one line, parted by single blanks"),
    "sketch empty": (sketched(lambda t: t == "b", ""), "expected 1 to 200 characters on one line"),
    "sketch no text": (sketched(lambda t: t == "b", ("letter",)), "sketch of 'b' is .*text that UTF-8 can write"),
    "sketch as written": (
        sketched(lambda t: t.strip() in ("B", "b"), lambda t: f"letter {t.strip()}"),
        "sketch of 'B' is 'letter B'; expected 'letter b', as of 'b'.*as written",
    ),
    "sketch lost by blanks": (sketched(lambda t: t[:1] == " ", None), "is None; expected 'letter b', as of 'b'"),
    "sketch by a twin": (
        sketching(lambda s, t, text: Toy.sketch(s, t, text) and f"letter {is_twin(s)}"),
        "sketch of 'b' by a twin",
    ),
    "sketch of nothing": (sketched(lambda t: not t, "none"), "sketch of nothing is 'none'; expected None"),
    "sketch raises": (
        sketched(lambda t: "(((" in t, fail_with(RecursionError())),
        "sketch raises RecursionError on deep",
    ),
    "sketch of garbage raises": (
        sketched(lambda t: len(t) > 5_000_000, fail_with(MemoryError())),
        "sketch raises MemoryError on 10,000,000 characters",
    ),
    "sketch passes text on": (
        sketched(lambda t: len(t) > 10_000, lambda t: " ".join(t.split()) or None),
        "sketch of deep parentheses is .*text of the answer passed through",
    ),
    "habitual no bool": (toy(habitual=lambda s, sketch: None), "habitual of the sketch .* is None; expected a bool"),
    "habitual by a twin": (toy(habitual=lambda s, sketch: is_twin(s)), "habitual\\('letter b'\\) by a twin"),
    "habitual raises": (
        toy(habitual=lambda s, sketch: sketch[0] == "l" and sketch[-1] == "c"),
        "habitual raises IndexError on nothing",
    ),
    "hard by other rules": (
        toy(task=lambda s, i: Task(check_index(i), str(i % 3), {**Toy.task(s, i).data, "hard": True})),
        "hard of task 0 is True; expected False: 1 of its 2 solutions are habitual",
    ),
    "hard not asked": (
        toy(habitual=lambda s, sketch: False),
        "hard of task 0 is False; expected True: 0 of its 2 solutions",
    ),
    "render raises": (
        frames_of(lambda text, frames: frames if text else [][0]),
        "render raises IndexError on the task",
    ),
    "no frames": (frames_of(lambda text, frames: []), "expected a list of at least one Frame"),
    "frames are texts": (frames_of(lambda text, frames: ["svg"]), "expected a list of at least one Frame"),
    "answer not shown": (frames_of(lambda text, frames: frames[:1]), "has 1 frame; expected the task, then one"),
    "task not shown first": (
        frames_of(lambda text, frames: [picture("answer", "!"), *frames][-2:] if "<" in text else frames),
        "the first frame for markup",
    ),
    "random ids": (
        toy(render=lambda s, t, text="": [*Toy.render(s, t, text), picture("id", f"{id(s)}")]),
        "render of the oracle's answer by a twin",
    ),
    "too many frames": (
        frames_of(lambda text, frames: frames * (len(text) + 1)),
        "has \\d+ frames; expected at most 2000",
    ),
    "caption no text": (more(caption=None), "caption of frame 1 of the task alone is None"),
    "caption empty": (more(caption=""), "caption of frame 1 of the task alone is empty"),
    "caption with surrogates": (more(caption=lambda t: t or "?"), "caption of .* of lone surrogates is"),
    "caption too long": (more(caption="x" * 201), "has a caption of 201"),
    "text passed through": (more(text=lambda t: "?" * (10 * len(t) + 1)), "text of the answer passed through"),
    "markup in the caption": (more(caption=lambda t: ascii(t)[:100]), "caption of .* holds markup of the answer"),
    "markup in the svg": (
        more(svg=lambda t: drawn("<text/>" + t if t.startswith("<") else "")),
        "svg of .* holds markup of the answer.*html.escape",
    ),
    "not well-formed": (more(svg="<svg><g></svg>"), "svg of frame 1 of the task alone is not well-formed .*mismatched"),
    "control characters in the svg": (
        more(svg=lambda t: drawn(f"<text>{html.escape(t)}</text>" if "\x1b" in t else "")),
        "svg of frame 1 of control characters is not well-formed",
    ),
    "no svg": (more(svg='<div viewBox="0 0 9 9"/>'), "begins with .*expected one <svg> element"),
    "svg of another name": (more(svg='<svgs viewBox="0 0 9 9"/>'), "begins with .*expected one <svg> element"),
    "entities": (more(svg=entities()), "begins with .*expected one <svg> element.*DOCTYPE"),
    "no viewBox": (more(svg='<svg width="9"/>'), "viewBox of frame 1 of the task alone is None"),
    "viewBox of width 0": (more(svg=drawn("", "0 0 0 9")), "viewBox .*expected 4 numbers, the last two positive"),
    "a handler": (more(svg=drawn('<rect onclick="go()"/>')), "holds <rect .*shapes and text only"),
    "a link": (more(svg=drawn('<a href="https://example.org"/>')), "holds <a .*shapes and text only"),
    "a picture from elsewhere": (more(svg=drawn("<image/>")), "holds <image .*shapes and text only"),
}


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_catches_what_breaks_it(rule: str) -> None:
    build, says = RULES[rule]
    state, words = random.getstate(), np.random.mtrand.get_bit_generator().state
    try:
        env, twin = build(), build()
        FIRST[0] = id(env)
        with pytest.raises(InputError, match=f"(?s){says}"):
            check(env, twin)
    finally:
        random.setstate(state)
        np.random.mtrand.get_bit_generator().state = words


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("countdown", {}),
        ("countdown", {"format_reward": 0.0}),
        ("frozen_lake", {}),
        ("frozen_lake", {"slippery": "yes"}),
        ("path_exploration", {}),
        ("sokoban", {}),
        ("sokoban", {"reward": "gym"}),
        ("sokoban", {"reward": "gym", "boxes": 2, "exact_plan": "no", "max_actions": 7}),
    ],
)
def test_silence_never_pays_better_than_a_failed_try(name: str, options: dict[str, Any]) -> None:
    # Once 0 was paid for silence where a failed try in Sokoban cost 0.1 an action.
    env, generator, failed = make(name, **options), random.Random(6), 0

    def some_answer(task: Task) -> str:
        if name == "countdown":
            return "+".join(map(str, task.data["numbers"]))
        if name == "path_exploration":
            return generator.choice(env.enumerate(task) or [])
        return " ".join(generator.choices(["left", "down", "right", "up"], k=generator.randint(1, 30)))

    for task in map(env.task, range(60)):
        silence = env.score(task, "")
        assert silence.strategy is None and not silence.success
        for _ in range(20):
            score = env.score(task, some_answer(task))
            assert score.strategy is not None and score.reward >= silence.reward - 1e-9
            failed += not score.success
        assert env.score(task, env.oracle(task)).reward > silence.reward or options.get("slippery")
    assert failed > 500


def test_missing_methods() -> None:
    class Nothing:
        name = "nothing"

    with pytest.raises(InputError, match="Nothing has no 'options'"):
        check(Nothing(), Nothing())  # type: ignore[arg-type]


def test_a_twin_of_other_options() -> None:
    with pytest.raises(InputError, match=r"options of the twin: \{'size': 4, .*; expected \{'size': 3, "):
        check(Toy(), with_attributes(options={"size": 4, "seed": 0})())


@pytest.mark.parametrize("method", ["score", "step", "sketch", "render", "habitual"])
def test_what_is_slow(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Quadratic: the first of the long texts, of 40,000 or 100,000 characters, shows it in a fraction of a second.
    def quadratic(self: Toy, *arguments: Any) -> Any:
        for _ in range(len(arguments[-1]) // 5 if arguments else 0):
            arguments[-1].count("b")
        return getattr(Toy, method)(self, *arguments)

    monkeypatch.setattr(checker_tools, "SECONDS", 0.05)
    with pytest.raises(InputError, match=rf"{method} takes \d+\.\d CPU s on .*more than linear time; cap the length"):
        check(toy(**{method: quadratic})(), toy(**{method: quadratic})())


@pytest.mark.parametrize("index", [-1, 0.0, 1.5, "1", None, True, [0]])
def test_bad_indices(index: Any) -> None:
    with pytest.raises(InputError, match="expected a whole number >= 0, got"):
        check_index(index)


def test_good_indices() -> None:
    assert [check_index(index) for index in (0, 7, np.int64(3), 10**30)] == [0, 7, 3, 10**30]
