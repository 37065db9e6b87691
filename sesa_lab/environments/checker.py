"""``check`` holds an environment to the contract, with messages that name the likely cause of a breach.

Here are attributes, tasks and verdicts; episodes are played in ``checker_episodes``, sketches and frames looked at in
``checker_views``.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from typing import Any

import numpy as np

from sesa_lab.environments.checker_episodes import chance, check_episodes, checked_step
from sesa_lab.environments.checker_tools import (
    HOSTILE,
    check_text,
    equal,
    fail,
    garbage_texts,
    guarded,
    hostile_texts,
    short,
)
from sesa_lab.environments.checker_views import check_view, check_views
from sesa_lab.environments.contract import Environment
from sesa_lab.environments.registry import REGISTRY, make
from sesa_lab.errors import InputError
from sesa_lab.types import Score, Task

INDICES = (0, 1, 2)
FAR = 1_000  # times round all tasks: of an index far beyond ``count``
BAD_INDICES = (-1, 0.5, "0", None)
_ROUNDING = 1e-9  # of rewards that are sums
_DISTINCT = 20  # first tasks that are compared with each other
_ATTRIBUTES = (
    "name", "options", "policy_options", "repeats", "turns", "count", "task", "score", "reset", "step", "enumerate",
    "solutions", "oracle", "sketch", "habitual", "render",
)  # fmt: skip


def check(env: Environment, twin: Environment | None = None) -> None:
    """Hold ``env`` to the contract; silent where it keeps it.

    Where chance has a say (``checker_episodes.chance`` finds out), answers of the oracle and the solver need not succeed,
    but must be readable.

    Args:
        env: what is checked.
        twin: another object of the same options; None: built by ``make(env.name, **env.options)``.

    Raises:
        InputError: the first breach, with what came, what was expected and the likely cause.
    """
    before = _global_generators()
    _check_attributes(env)
    twin = _twin(env) if twin is None else twin
    equal(env, "options of the twin", twin.options, env.options, "an option that is not stored as it was resolved")
    options = json.dumps(env.options)
    tasks = _check_tasks(env, twin)
    for task in tasks:
        data = json.dumps(dict(task.data))
        _check_oracle(env, task)
        valid = _check_enumerate(env, twin, task)
        _check_hostile(env, task)
        check_episodes(env, twin, task)
        _check_solutions(env, twin, task, valid)
        check_views(env, twin, task)
        equal(env, "task.data after use", json.dumps(dict(task.data)), data, "a method edits the task")
    _check_order(env, twin, tasks)
    _check_garbage(env, tasks[0])
    equal(env, "options after use", json.dumps(env.options), options, "a method edits self.options")
    if _global_generators() != before:
        fail(env, "the global generator of random or numpy was used", "untouched", "random.* or np.random.* is called"
             " or seeded; draw from seeding.stream(seed, 'environment', ...)")  # fmt: skip


def _global_generators() -> tuple[Any, ...]:
    behind_numpy = np.random.mtrand.get_bit_generator().state  # of np.random.random() and the like
    return random.getstate(), json.dumps(behind_numpy, default=np.ndarray.tolist)


def _check_attributes(env: Environment) -> None:
    for attribute in _ATTRIBUTES:
        if not hasattr(env, attribute):
            raise InputError(f"{type(env).__name__} has no {attribute!r}; expected all of contract.Environment")
    if not isinstance(env.name, str) or not env.name:
        raise InputError(f"{type(env).__name__}.name: expected a name, got {env.name!r}")
    _check_json(env, "options", env.options)
    if env.repeats not in ("count", "zero"):
        fail(env, f"repeats = {env.repeats!r}", "'count' or 'zero'", "an option passed through unchecked")
    if not isinstance(env.policy_options, tuple) or not set(env.policy_options) <= set(env.options):
        fail(env, f"policy_options = {env.policy_options!r}", f"a tuple of names among {', '.join(env.options)}",
             "an option renamed here and not there, or a text instead of a tuple")  # fmt: skip
    for name in ("turns", "count"):
        value = getattr(env, name)
        if type(value) is not int or value < 1:
            fail(env, f"{name} = {value!r}", "a whole number >= 1", "an option passed through unchecked")


def _check_json(env: Environment, what: str, value: Any) -> None:
    cause = "a tuple, a set, a numpy value, a NaN or a key that is not text"
    if not isinstance(value, Mapping):
        fail(env, f"{what} is a {type(value).__name__}", "a mapping", "a list or an options object instead of a dict")
    try:
        same = json.loads(json.dumps(dict(value), allow_nan=False)) == dict(value)
    except (TypeError, ValueError) as error:
        fail(env, f"{what} cannot be written as JSON ({error})", "JSON-able values", cause)
    if not same:
        fail(env, f"{what} comes back from JSON changed: {short(dict(value))}", "equal values", cause)


def _twin(env: Environment) -> Environment:
    if env.name not in REGISTRY:
        raise InputError(
            f"environment {env.name!r} is not registered, so check cannot build its twin;"
            " pass check(env, twin=another object of the same options)"
        )
    return make(env.name, **env.options)


def _check_tasks(env: Environment, twin: Environment) -> list[Task]:
    """The tasks that the rest of the check is about; the twin is asked for them backwards."""
    indices = (*INDICES, INDICES[-1] + 1 + FAR * env.count)
    tasks = [_check_task(env, index) for index in indices]
    for task in reversed(tasks):
        equal(env, f"task({task.index}) of a twin of the same options", twin.task(task.index), task, "draws that the"
              " options do not fix: a generator without a seed, a set's order, the clock, what was asked before")  # fmt: skip
    _check_bad_indices(env)
    _check_count(env)
    return tasks


def _check_task(env: Environment, index: int) -> Task:
    task = env.task(index)
    if not isinstance(task, Task) or task.index != index or not isinstance(task.prompt, str) or not task.prompt:
        fail(env, f"task({index}) is {short(task)}", f"a Task of index {index} with a prompt", "index not passed on")
    _check_json(env, f"task({index}).data", task.data)
    env.task(index + 1)
    equal(env, f"task({index}) asked again", env.task(index), task, "state is kept between calls, or a generator is"
          " shared by all tasks; make one by seeding.stream(seed, 'environment', index)")  # fmt: skip
    return task


def _check_bad_indices(env: Environment) -> None:
    for index in BAD_INDICES:
        try:
            env.task(index)  # type: ignore[arg-type]
        except InputError:
            continue
        except Exception as error:
            fail(env, f"task({index!r}) raises {type(error).__name__}", "InputError", "no call of check_index(index)")
        fail(env, f"task({index!r}) gives a task", "InputError", "no call of check_index(index)")


def _check_count(env: Environment) -> None:
    """The first ``count`` tasks differ, and come again from there on."""
    seen: dict[str, int] = {}
    for index in range(min(env.count, _DISTINCT)):
        content = _content(env.task(index))
        if content in seen:
            fail(env, f"tasks {seen[content]} and {index} are the same: {short(content)}", f"count = {env.count} distinct"
                 " tasks", "tasks are drawn without a look at those before; see pool.Pool")  # fmt: skip
        seen[content] = index
    for index in INDICES:
        later = index + env.count
        equal(env, f"content of task {later}", _content(env.task(later)), _content(env.task(index)), f"task i is not task"
              f" i mod count ({env.count}), or prompt or data tell the index itself")  # fmt: skip


def _content(task: Task) -> str:
    return json.dumps([task.prompt, dict(task.data)], sort_keys=True)


def _verdict(env: Environment, task: Task, text: str, label: str) -> Score:
    """``env.score`` with its type, range and time checked."""
    score = guarded(env, "score", label, lambda: env.score(task, text))
    if not isinstance(score, Score) or not isinstance(score.reward, (int, float)) or not math.isfinite(score.reward):
        fail(env, f"score of {label} is {short(score)}", "a Score of finite reward", "a numpy value, or 0/0")
    if not isinstance(score.success, bool) or not (score.strategy is None or isinstance(score.strategy, str)):
        fail(env, f"score of {label} is {short(score)}", "success a bool, strategy text or None", "a numpy bool")
    if score.strategy is None and (score.reward > 0 or score.success):
        fail(env, f"score of {label} is {short(score)}", "no success and at most reward 0 without a strategy",
             "a reward for answers that cannot be read")  # fmt: skip
    if score.strategy is not None:
        check_text(env, f"strategy of {label}", score.strategy)
    _check_silence(env, task, score, label)
    return score


def _check_silence(env: Environment, task: Task, score: Score, label: str) -> None:
    """An answer that cannot be read earns what nothing does, and one that can be read no less."""
    silence = guarded(env, "score", "nothing", lambda: env.score(task, ""))
    if not isinstance(silence, Score) or silence.strategy is not None:
        return  # told where it is checked itself
    if score.strategy is None and score.reward != silence.reward:
        fail(env, f"reward of {label}, which cannot be read, is {score.reward!r}", f"that of nothing, {silence.reward!r}",
             "a penalty for some answers that cannot be read and not for others")  # fmt: skip
    if score.reward < silence.reward - _ROUNDING:
        fail(env, f"reward of {label}, which can be read, is {score.reward!r}", f"at least that of nothing,"
             f" {silence.reward!r}", "failing costs more than saying nothing; let what cannot be read earn the least")  # fmt: skip


def _check_oracle(env: Environment, task: Task) -> None:
    answer = env.oracle(task)
    label = f"the oracle's answer to task {task.index}, {short(answer)}"
    score = _verdict(env, task, answer, label)
    if score.strategy is None or (not score.success and not chance(env, task)):
        fail(env, f"score of {label} is {short(score)}", "success", "oracle and score disagree about the format")
    padded = _verdict(env, task, f" \n\t{answer}\r\n ", label)
    equal(env, f"score of {label} with blanks around it", padded, score, "the text is not stripped before it is read")
    for text in (answer.upper(), answer.lower(), answer.swapcase()):
        strategy = _verdict(env, task, text, f"{label} in another case").strategy
        if strategy not in (None, score.strategy):
            fail(env, f"strategy of {short(text)} is {short(strategy)}", f"{short(score.strategy)} or None",
                 "the strategy is the text as written, not a canonical form of it")  # fmt: skip


def _listed(env: Environment, twin: Environment, task: Task, method: str) -> list[str] | None:
    """What ``enumerate`` or ``solutions`` gives, the same each time and whatever a caller does with it."""
    answers: list[str] | None = getattr(env, method)(task)
    what = f"{method} of task {task.index}"
    equal(env, f"{what} by a twin", getattr(twin, method)(task), answers, "a set's order")
    if answers is None:
        return None
    if not isinstance(answers, list):
        fail(env, f"{what} is {short(answers)}", "a list of texts, or None", "a generator, or a tuple")
    kept = list(answers)
    answers.clear()
    equal(env, f"{what} after a caller emptied the list", getattr(env, method)(task), kept, "the list kept for later calls"
          " is handed out itself; give a copy")  # fmt: skip
    return kept


def _check_enumerate(env: Environment, twin: Environment, task: Task) -> set[str] | None:
    """The strategies of all valid answers; None where they are too many."""
    answers = _listed(env, twin, task, "enumerate")
    if answers is None:
        return None
    seen: dict[str, str] = {}
    successes = 0
    for answer in answers:
        score = _verdict(env, task, answer, f"the enumerated {short(answer)}")
        if score.strategy is None:
            fail(env, f"score cannot read the enumerated {short(answer)}", "a strategy", "two formats of an answer")
        _check_new(env, seen, score.strategy, answer, "enumerate")
        successes += score.success
    strategy = env.score(task, env.oracle(task)).strategy
    if not successes or strategy not in seen:
        fail(env, f"enumerate of task {task.index} lacks the oracle's {short(strategy)}", "every valid answer",
             "enumerate is not complete; give None where it cannot be")  # fmt: skip
    return set(seen)


def _check_new(env: Environment, seen: dict[str, str], strategy: str, answer: str, method: str) -> None:
    if strategy in seen:
        fail(env, f"{short(answer)} and {short(seen[strategy])} are one strategy, {short(strategy)}",
             "distinct strategies", f"{method} lists one way in two wordings")  # fmt: skip
    seen[strategy] = answer


def _check_solutions(env: Environment, twin: Environment, task: Task, valid: set[str] | None) -> None:
    """Every solution can be read. Each succeeds by a way of its own, unless chance has a say.

    Args:
        env: what is checked.
        twin: of the same options.
        task: what is asked.
        valid: the strategies of all valid answers, where ``enumerate`` lists them.
    """
    answers = _listed(env, twin, task, "solutions")
    if answers is None:
        return
    risky = chance(env, task)
    seen: dict[str, str] = {}
    for answer in answers:
        label = f"the solution {short(answer)} of task {task.index}"
        score = _verdict(env, task, answer, label)
        if score.strategy is None or not (score.success or risky):
            fail(env, f"score of {label} is {short(score)}", "success", "solver and score judge by different rules")
        if valid is not None and score.strategy not in valid:
            fail(env, f"{label} is not among the enumerated", "every valid answer there", "two lists of answers")
        if not risky:
            _check_new(env, seen, score.strategy, answer, "solutions")
    oracle = env.oracle(task)
    strategy = env.score(task, oracle).strategy
    if not risky and strategy not in seen:
        fail(env, f"solutions of task {task.index} lack the oracle's {short(strategy)}", "every way that is known",
             "oracle and solutions search apart")  # fmt: skip
    if len(set(answers)) < len(answers) or not answers:
        fail(env, f"solutions of task {task.index}: {short(answers)}", "distinct texts, at least one", "no solution found"
             " for a task that has one, or one listed twice")  # fmt: skip


def _check_hostile(env: Environment, task: Task) -> None:
    for label, text in hostile_texts(env.oracle(task)).items():
        score = _verdict(env, task, text, label)
        if label in HOSTILE and (score.success or (score.strategy is not None and not text.strip())):
            fail(env, f"score of {label} is {short(score)}", "no success, and no strategy in nothing",
                 "an empty or unreadable answer is taken for a default")  # fmt: skip


def _check_order(env: Environment, twin: Environment, tasks: list[Task]) -> None:
    """Same verdicts forwards by ``env`` and backwards by ``twin``."""
    pairs = [(task, text) for task in tasks for text in (env.oracle(task), "", *(env.enumerate(task) or [])[:100])]
    forwards = [env.score(task, text) for task, text in pairs]
    backwards = [twin.score(task, text) for task, text in reversed(pairs)][::-1]
    for (task, text), came, expected in zip(pairs, backwards, forwards, strict=True):
        equal(env, f"score of {short(text)} in task {task.index} by a twin asked in another order", came, expected,
              "verdicts depend on what was scored before; repeats are the trainer's business")  # fmt: skip


def _check_garbage(env: Environment, task: Task) -> None:
    start = env.reset(task)
    for label, text in garbage_texts():
        if _verdict(env, task, text, label).success or checked_step(env, start, text, label).success:
            fail(env, f"{label} succeed", "no success", "the answer is searched for in the text instead of being read"
                 " whole")  # fmt: skip
        check_view(env, task, text, label)
