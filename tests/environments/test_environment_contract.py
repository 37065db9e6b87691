"""The contract checker: silent on a sound environment, and each rule catches the environment that breaks it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sesa_lab.environments import check
from sesa_lab.environments import checker as contract_module
from sesa_lab.environments.contract import check_index
from sesa_lab.errors import InputError
from sesa_lab.types import Score, Task


class Toy:
    """Sound: 'which of a, b, c?', where b and c are right."""

    name = "toy"

    def __init__(self) -> None:
        self.options: Any = {"size": 3}
        self.repeats: Any = "count"

    def task(self, index: int) -> Task:
        return Task(check_index(index), f"a, b or c? (question {index})", {"right": ["b", "c"]})

    def score(self, task: Task, text: str) -> Score:
        answer = text[:50].strip().lower() if len(text) < 50 else ""
        if answer not in ("a", "b", "c"):
            return Score(0.0, False, None)
        return Score(float(answer in task.data["right"]), answer in task.data["right"], answer)

    def enumerate(self, task: Task) -> Any:
        return ["a", "b", "c"]

    def oracle(self, task: Task) -> str:
        return task.data["right"][0]


def test_a_sound_environment_passes() -> None:
    check(Toy(), Toy())


def test_an_environment_without_enumeration_passes() -> None:
    class Endless(Toy):
        def enumerate(self, task: Task) -> Any:
            return None

    check(Endless(), Endless())


def test_the_checker_leaves_the_global_generators_alone() -> None:
    before = contract_module._global_generators()
    check(Toy(), Toy())
    assert contract_module._global_generators() == before


def test_an_unregistered_environment_needs_a_twin() -> None:
    with pytest.raises(InputError, match=r"'toy' is not registered.*twin="):
        check(Toy())


def toy(**methods: Any) -> Callable[[], Any]:
    """A class of environments like Toy with some methods or attributes broken."""
    return type("Broken", (Toy,), methods)


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


FIRST = [0]

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
    "penalty for the unreadable": (changed(lambda t: t == "", Score(-0.1, False, None)), "reward 0 and no success"),
    "success without strategy": (changed(lambda t: t == "b", Score(0.0, True, None)), "reward 0 and no success"),
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
    "data edited": (toy(oracle=edit_data), "task.data after scoring.*edits the task"),
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


def test_missing_methods() -> None:
    class Nothing:
        name = "nothing"

    with pytest.raises(InputError, match="Nothing has no 'options'"):
        check(Nothing(), Nothing())  # type: ignore[arg-type]


def test_a_twin_of_other_options() -> None:
    with pytest.raises(InputError, match=r"options of the twin: \{'size': 4\}; expected \{'size': 3\}"):
        check(Toy(), with_attributes(options={"size": 4})())


def test_slow_scoring(monkeypatch: pytest.MonkeyPatch) -> None:
    # Quadratic, but only 10,000 characters are needed to see it: the lengths grow, so the test ends soon.
    def quadratic(self: Toy, task: Task, text: str) -> Score:
        for _ in range(len(text) // 100):
            text.count("b")
        return Toy.score(self, task, text)

    monkeypatch.setattr(contract_module, "SECONDS", 0.05)
    with pytest.raises(InputError, match=r"CPU s on .*more than linear time; cap the length"):
        check(toy(score=quadratic)(), toy(score=quadratic)())


@pytest.mark.parametrize("index", [-1, 0.0, 1.5, "1", None, True, [0]])
def test_bad_indices(index: Any) -> None:
    with pytest.raises(InputError, match="expected a whole number >= 0, got"):
        check_index(index)


def test_good_indices() -> None:
    assert [check_index(index) for index in (0, 7, np.int64(3), 10**30)] == [0, 7, 3, 10**30]
