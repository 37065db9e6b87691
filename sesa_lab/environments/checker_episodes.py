"""The part of the contract checker that plays episodes: ``reset`` and ``step``."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

from sesa_lab.environments.checker_tools import HOSTILE, check_text, equal, fail, guarded, hostile_texts, short
from sesa_lab.environments.contract import Environment
from sesa_lab.errors import InputError
from sesa_lab.types import Episode, Task

SEEDS = (0, 1, 2**32 - 1)
CHANCE_SEEDS = 32
"""Episodes compared to tell whether chance has a say. Where one move goes where it should with probability 1/3 or 2/3, all
of them go the same way with probability at most (2/3)^31 + (1/3)^31 < 4 in a million."""


def chance(env: Environment, task: Task) -> bool:
    """Whether chance has a say in ``task``: the oracle's answer, given every turn, fares otherwise under another seed."""
    answer = env.oracle(task)
    traces = [_trace(env, task, seed, answer) for seed in range(CHANCE_SEEDS)]
    return traces != traces[:1] * CHANCE_SEEDS


def check_episodes(env: Environment, twin: Environment, task: Task) -> None:
    """Play episodes of ``task``; silent where they keep the contract."""
    _check_reset(env, twin, task)
    answer = env.oracle(task)
    solutions = env.solutions(task) or []
    for seed in SEEDS:
        _play(env, twin, env.reset(task, seed), [answer], "the oracle's answer, given every turn")
    plays = {
        "nothing, said every turn": [""],
        "the solutions one after another": [*solutions[: env.turns], answer],
        "the oracle's answer after nothing": ["", answer],
        "hostile texts one after another": list(HOSTILE.values()),
    }
    for label, texts in plays.items():
        _play(env, twin, env.reset(task), texts, label)
    start = env.reset(task)
    for label, text in hostile_texts(answer).items():
        _check_verdict(env, checked_step(env, start, text, label), text, label)


def checked_step(env: Environment, episode: Episode, text: str, label: str) -> Episode:
    """``env.step``, with what it gives held to the contract, and what it was given found unchanged."""
    given = _copy(env, episode)
    after = guarded(env, "step", label, lambda: env.step(episode, text))
    _check_episode(env, after, f"the episode after {label}")
    if after.task != given.task or after.seed != given.seed:
        fail(env, f"step on {label} changes task or seed of the episode", "both passed on", "an Episode built anew; use"
             " dataclasses.replace(episode, ...)")  # fmt: skip
    if len(after.rewards) != len(given.rewards) + 1 or after.rewards[:-1] != given.rewards:
        fail(env, f"rewards after {label}: {short(after.rewards)} from {short(given.rewards)}", "one more at the end",
             "a reward an action instead of a turn, or earlier rewards dropped")  # fmt: skip
    kept = _copy(env, after)
    again = env.step(episode, text)
    equal(env, f"the episode before {label}, after step", episode, given, "step edits the state it is given; make a new"
          " one of tuples and frozen dataclasses")  # fmt: skip
    equal(env, f"step on {label} from the same episode again", again, kept, "the environment keeps the state of play"
          " itself, or draws from a generator that the episode's seed does not fix")  # fmt: skip
    return after


def _play(env: Environment, twin: Environment, start: Episode, texts: list[str], label: str) -> None:
    """An episode to its end, turn ``i`` saying ``texts[i mod their number]``, alongside a twin's."""
    episode, other = start, twin.reset(start.task, start.seed)
    for turn in range(env.turns):
        text, where = texts[turn % len(texts)], f"turn {turn + 1} of {label} (seed {start.seed})"
        episode = checked_step(env, episode, text, where)
        other = twin.step(other, text)
        equal(env, f"the episode after {where} by a twin", other, episode, "draws that task, seed and texts do not fix:"
              " a generator without a seed, a set's order, what was played before")  # fmt: skip
        _check_verdict(env, episode, text, where)
        if episode.over:
            _check_over(env, episode)
            return
    fail(env, f"the episode is not over after {env.turns} turns of {label}", f"at most {env.turns} (turns)", "no turn"
         " limit: truncated is to be True after the last turn")  # fmt: skip


def _check_reset(env: Environment, twin: Environment, task: Task) -> None:
    for seed in SEEDS:
        start = env.reset(task, seed)
        _check_episode(env, start, f"reset(task, {seed})")
        if start.task != task or start.seed != seed:
            fail(env, f"reset(task, {seed}) is of another task or seed", "the task and the seed given", "an argument not"
                 " passed on")  # fmt: skip
        if start.over or start.rewards or start.observation or start.strategy is not None:
            fail(env, f"reset(task, {seed}) is {short(start)}", "an open episode without rewards, strategy and observation",
                 "the first state told as an observation; the prompt shows it")  # fmt: skip
        equal(env, f"reset(task, {seed}) by a twin", twin.reset(task, seed), start, "draws that the seed does not fix")
    equal(env, "reset(task)", env.reset(task), env.reset(task, 0), "another default than seed = 0")


def _check_episode(env: Environment, episode: Any, what: str) -> None:
    """Types, ranges, and which of them go together."""
    if not isinstance(episode, Episode):
        fail(env, f"{what} is {short(episode)}", "an Episode", "a tuple as in Gymnasium")
    rewards, flags = episode.rewards, (episode.terminated, episode.truncated, episode.success)
    if not isinstance(rewards, tuple) or not all(isinstance(r, (int, float)) and math.isfinite(r) for r in rewards):
        fail(env, f"rewards of {what}: {short(rewards)}", "a tuple of finite numbers", "a list, a numpy value, or 0/0")
    if not all(isinstance(flag, bool) for flag in flags):
        fail(env, f"terminated, truncated, success of {what}: {flags}", "three bools", "a numpy bool")
    if episode.terminated and episode.truncated:
        fail(env, f"{what} is terminated and truncated", "one of them", "the limit is asked after the task has ended;"
             " truncated means that it has not")  # fmt: skip
    if episode.success and not episode.terminated:
        fail(env, f"{what} succeeds, but is not terminated", "success only where the task has ended", "success means the"
             " task solved; then it is terminated")  # fmt: skip
    check_text(env, f"observation of {what}", episode.observation)
    if episode.strategy is not None:
        check_text(env, f"strategy of {what}", episode.strategy)
    if episode.rewards and bool(episode.observation) is episode.over:
        fail(env, f"observation of {what}, which is {'over' if episode.over else 'open'}: {short(episode.observation)}",
             "text while it is open, and '' when it is over", "no next state told, or one told after the end")  # fmt: skip


def _check_verdict(env: Environment, episode: Episode, text: str, label: str) -> None:
    """Where there is one turn, the whole answer is that turn."""
    if env.turns == 1 and episode.seed == 0:
        equal(env, f"verdict of the episode of one turn, {label}", episode.verdict, env.score(episode.task, text),
              "step and score judge apart, or score takes its chance from another seed than 0")  # fmt: skip


def _check_over(env: Environment, episode: Episode) -> None:
    for text in ("", env.oracle(episode.task)):
        try:
            env.step(episode, text)
        except InputError:
            continue
        except Exception as error:
            fail(env, f"step on an episode that is over raises {type(error).__name__}", "InputError", "no call of"
                 " check_open(episode)")  # fmt: skip
        fail(env, "step on an episode that is over gives another", "InputError", "no call of check_open(episode)")


def _copy(env: Environment, episode: Episode) -> Episode:
    try:
        twin = copy.deepcopy(episode, {id(episode.task): episode.task})
    except Exception as error:
        fail(env, f"the episode's state cannot be copied ({short(str(error))})", "a plain value", "a generator, a file or"
             " a lock kept in it")  # fmt: skip
    equal(env, "a copy of an episode", twin, episode, "its state has no ==; make it of frozen dataclasses and tuples")
    return twin


def _trace(env: Environment, task: Task, seed: int, answer: str) -> list[tuple[Any, ...]]:
    """All that is told of an episode, turn by turn."""
    episode = env.reset(task, seed)
    trace: list[tuple[Any, ...]] = []
    while not episode.over and len(trace) < env.turns:
        episode = guarded(env, "step", "the oracle's answer", partial(env.step, episode, answer))
        trace.append((episode.observation, episode.verdict, episode.terminated, episode.truncated))
    return trace
