"""``check`` holds an environment to the contract, with messages that name the likely cause of a breach."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from sesa_lab.environments.contract import Environment
from sesa_lab.environments.registry import REGISTRY, make
from sesa_lab.errors import InputError
from sesa_lab.types import Score, Task

INDICES = (0, 1, 2, 1_000_003)
BAD_INDICES = (-1, 0.5, "0", None)
HOSTILE = {
    "nothing": "",
    "blanks": " \n\t\u00a0\u3000",
    "control characters": "\x00\x01\x1b[31m\x7f\r\x08",
    "direction marks": "\u202e\u200f\u200e\u2066",
    "emoji": "🏆👩\u200d👩\u200d👧🏳\ufe0f",
    "lone surrogates": "\ud800\udfff",
    "code": "__import__('os').system('exit 1')",
    "markup": "<script>alert(1)</script>{{7*7}}%s%n{0}",
    "a tower of powers": "9**9**9**9",
    "digits of other scripts": "٣²Ⅷ",
    "deep parentheses": "(" * 20_000 + ")" * 20_000,
    "a number of 100,000 digits": "9" * 100_000,
}
GARBAGE = ("a", "(", " ", "9+", "a-", "a > ")
GARBAGE_LENGTHS = (10_000, 40_000, 160_000, 640_000, 2_500_000, 10_000_000)
SECONDS = 2.0
"""CPU seconds one answer may take; 10 MB are scored in milliseconds where scoring is linear."""


def check(env: Environment, twin: Environment | None = None) -> None:
    """Hold ``env`` to the contract; silent where it keeps it.

    Args:
        env: what is checked.
        twin: another object of the same options; None: built by ``make(env.name, **env.options)``.

    Raises:
        InputError: the first breach, with what came, what was expected and the likely cause.
    """
    before = _global_generators()
    _check_attributes(env)
    twin = _twin(env) if twin is None else twin
    _equal(env, "options of the twin", twin.options, env.options, "an option that is not stored as it was resolved")
    options = json.dumps(env.options)
    tasks = [_check_task(env, twin, index) for index in INDICES]
    _check_bad_indices(env)
    for task in tasks:
        data = json.dumps(dict(task.data))
        _check_oracle(env, task)
        _check_enumerate(env, twin, task)
        _check_hostile(env, task)
        _equal(env, "task.data after scoring", json.dumps(dict(task.data)), data, "score or oracle edits the task")
    _check_order(env, twin, tasks)
    _check_garbage(env, tasks[0])
    _equal(env, "options after use", json.dumps(env.options), options, "a method edits self.options")
    if _global_generators() != before:
        _fail(env, "the global generator of random or numpy was used", "untouched", "random.* or np.random.* is called"
              " or seeded; draw from seeding.stream(seed, 'environment', ...)")  # fmt: skip


def _fail(env: Environment, came: str, expected: str, cause: str) -> NoReturn:
    raise InputError(f"environment {env.name!r}: {came}; expected {expected}; likely cause: {cause}")


def _equal(env: Environment, what: str, came: Any, expected: Any, cause: str) -> None:
    if came != expected:
        _fail(env, f"{what}: {_short(came)}", _short(expected), cause)


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _global_generators() -> tuple[Any, ...]:
    behind_numpy = np.random.mtrand.get_bit_generator().state  # of np.random.random() and the like
    return random.getstate(), json.dumps(behind_numpy, default=np.ndarray.tolist)


def _check_attributes(env: Environment) -> None:
    for attribute in ("name", "options", "repeats", "task", "score", "enumerate", "oracle"):
        if not hasattr(env, attribute):
            raise InputError(f"{type(env).__name__} has no {attribute!r}; expected all of contract.Environment")
    if not isinstance(env.name, str) or not env.name:
        raise InputError(f"{type(env).__name__}.name: expected a name, got {env.name!r}")
    _check_json(env, "options", env.options)
    if env.repeats not in ("count", "zero"):
        _fail(env, f"repeats = {env.repeats!r}", "'count' or 'zero'", "an option passed through unchecked")


def _check_json(env: Environment, what: str, value: Any) -> None:
    cause = "a tuple, a set, a numpy value, a NaN or a key that is not text"
    if not isinstance(value, Mapping):
        _fail(env, f"{what} is a {type(value).__name__}", "a mapping", "a list or an options object instead of a dict")
    try:
        same = json.loads(json.dumps(dict(value), allow_nan=False)) == dict(value)
    except (TypeError, ValueError) as error:
        _fail(env, f"{what} cannot be written as JSON ({error})", "JSON-able values", cause)
    if not same:
        _fail(env, f"{what} comes back from JSON changed: {_short(dict(value))}", "equal values", cause)


def _twin(env: Environment) -> Environment:
    if env.name not in REGISTRY:
        raise InputError(
            f"environment {env.name!r} is not registered, so check cannot build its twin;"
            " pass check(env, twin=another object of the same options)"
        )
    return make(env.name, **env.options)


def _check_task(env: Environment, twin: Environment, index: int) -> Task:
    task = env.task(index)
    if not isinstance(task, Task) or task.index != index or not isinstance(task.prompt, str) or not task.prompt:
        _fail(env, f"task({index}) is {_short(task)}", f"a Task of index {index} with a prompt", "index not passed on")
    _check_json(env, f"task({index}).data", task.data)
    env.task(index + 1)
    _equal(env, f"task({index}) asked again", env.task(index), task, "state is kept between calls, or a generator is"
           " shared by all tasks; make one by seeding.stream(seed, 'environment', index)")  # fmt: skip
    _equal(env, f"task({index}) of a twin of the same options", twin.task(index), task, "draws that the options do not"
           " fix: a generator without a seed, a set's order, the clock")  # fmt: skip
    return task


def _check_bad_indices(env: Environment) -> None:
    for index in BAD_INDICES:
        try:
            env.task(index)  # type: ignore[arg-type]
        except InputError:
            continue
        except Exception as error:
            _fail(env, f"task({index!r}) raises {type(error).__name__}", "InputError", "no call of check_index(index)")
        _fail(env, f"task({index!r}) gives a task", "InputError", "no call of check_index(index)")


def _verdict(env: Environment, task: Task, text: str, label: str) -> Score:
    """``env.score`` with its type, range and time checked."""
    start = time.process_time()
    try:
        score = env.score(task, text)
    except Exception as error:
        _fail(env, f"score raises {type(error).__name__} on {label} ({_short(str(error))})", "a verdict on any text",
              "the text is parsed without a guard: length, recursion, int() of many digits, encoding")  # fmt: skip
    seconds = time.process_time() - start
    if seconds > SECONDS:
        _fail(env, f"score takes {seconds:.1f} CPU s on {label}", f"at most {SECONDS} s", "a loop or regex of more than"
              " linear time; cap the length of the text before anything else")  # fmt: skip
    if not isinstance(score, Score) or not isinstance(score.reward, (int, float)) or not math.isfinite(score.reward):
        _fail(env, f"score of {label} is {_short(score)}", "a Score of finite reward", "a numpy value, or 0/0")
    if not isinstance(score.success, bool) or not (score.strategy is None or isinstance(score.strategy, str)):
        _fail(env, f"score of {label} is {_short(score)}", "success a bool, strategy text or None", "a numpy bool")
    if score.strategy is None and (score.reward != 0 or score.success):
        _fail(env, f"score of {label} is {_short(score)}", "reward 0 and no success without a strategy",
              "a penalty or a reward for answers that cannot be read")  # fmt: skip
    return score


def _check_oracle(env: Environment, task: Task) -> None:
    answer = env.oracle(task)
    label = f"the oracle's answer to task {task.index}, {_short(answer)}"
    score = _verdict(env, task, answer, label)
    if not score.success or score.strategy is None:
        _fail(env, f"score of {label} is {_short(score)}", "success", "oracle and score disagree about the format")
    padded = _verdict(env, task, f" \n\t{answer}\r\n ", label)
    _equal(env, f"score of {label} with blanks around it", padded, score, "the text is not stripped before it is read")
    for text in (answer.upper(), answer.lower(), answer.swapcase()):
        strategy = _verdict(env, task, text, f"{label} in another case").strategy
        if strategy not in (None, score.strategy):
            _fail(env, f"strategy of {_short(text)} is {_short(strategy)}", f"{_short(score.strategy)} or None",
                  "the strategy is the text as written, not a canonical form of it")  # fmt: skip


def _check_enumerate(env: Environment, twin: Environment, task: Task) -> None:
    answers = env.enumerate(task)
    _equal(env, f"enumerate of task {task.index} by a twin", twin.enumerate(task), answers, "a set's order")
    if answers is None:
        return
    seen: dict[str, str] = {}
    successes = 0
    for answer in answers:
        score = _verdict(env, task, answer, f"the enumerated {_short(answer)}")
        if score.strategy is None:
            _fail(env, f"score cannot read the enumerated {_short(answer)}", "a strategy", "two formats of an answer")
        if score.strategy in seen:
            both = f"{_short(answer)} and {_short(seen[score.strategy])}"
            _fail(env, f"{both} are one strategy, {_short(score.strategy)}",
                  "distinct strategies", "enumerate lists one way in two wordings")  # fmt: skip
        seen[score.strategy] = answer
        successes += score.success
    strategy = env.score(task, env.oracle(task)).strategy
    if not successes or strategy not in seen:
        _fail(env, f"enumerate of task {task.index} lacks the oracle's {_short(strategy)}", "every valid answer",
              "enumerate is not complete; give None where it cannot be")  # fmt: skip


def _check_hostile(env: Environment, task: Task) -> None:
    answer = env.oracle(task)
    mixed = {f"an answer with {label}": answer + text for label, text in HOSTILE.items() if len(text) < 100}
    for label, text in {**HOSTILE, **mixed, "an answer 1,000 times over": answer * 1_000}.items():
        score = _verdict(env, task, text, label)
        if label in HOSTILE and (score.success or (score.strategy is not None and not text.strip())):
            _fail(env, f"score of {label} is {_short(score)}", "no success, and no strategy in nothing",
                  "an empty or unreadable answer is taken for a default")  # fmt: skip


def _check_order(env: Environment, twin: Environment, tasks: list[Task]) -> None:
    """Same verdicts forwards by ``env`` and backwards by ``twin``, which has so far scored nothing."""
    pairs = [(task, text) for task in tasks for text in (env.oracle(task), "", *(env.enumerate(task) or [])[:100])]
    forwards = [env.score(task, text) for task, text in pairs]
    backwards = [twin.score(task, text) for task, text in reversed(pairs)][::-1]
    for (task, text), came, expected in zip(pairs, backwards, forwards, strict=True):
        _equal(env, f"score of {_short(text)} in task {task.index} by a twin asked in another order", came, expected,
               "verdicts depend on what was scored before; repeats are the trainer's business")  # fmt: skip


def _check_garbage(env: Environment, task: Task) -> None:
    for piece in GARBAGE:
        for length in GARBAGE_LENGTHS:
            text = piece * (length // len(piece))
            score = _verdict(env, task, text, f"{length:,} characters of {piece!r}")
            if score.success:
                _fail(env, f"{length:,} characters of {piece!r} succeed", "no success", "the answer is searched for in"
                      " the text instead of being read whole")  # fmt: skip
