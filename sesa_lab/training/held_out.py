"""Judging a policy by samples on tasks it is not trained on: pass@k, distinct correct strategies, entropy."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from sesa_lab import environments
from sesa_lab.config import Config, SamplerConfig
from sesa_lab.diversity import pass_at_k
from sesa_lab.engines import Engine
from sesa_lab.environments.pool import ALL
from sesa_lab.errors import InputError
from sesa_lab.policies import Policy
from sesa_lab.prompts import Speaker
from sesa_lab.samplers import Request, Streams, draw
from sesa_lab.seeding import stream
from sesa_lab.team import ALONE, Team
from sesa_lab.training import room
from sesa_lab.training.credit import verdicts
from sesa_lab.types import Group, Score

KS = (1, 8, 16, 64)
SKETCHES = 8  # most sketches a task where the policy is judged with sketches
# Positions among the "evaluation" streams of a seed.
_VALIDATION, _TEST, _TEST_GUIDED = 0, 1, 2


class Judge:
    """Draws from the policy as it is now on the validation or test split of its environment.

    The environment's options are those of training but for ``split``; one without splits is judged on its own tasks.
    """

    def __init__(
        self,
        config: Config,
        environment: Any,
        engine: Engine,
        policy: Policy,
        speaker: Speaker,
        team: Team = ALONE,
    ) -> None:
        """Make the environments that will be asked, before anything is trained.

        Raises:
            InputError: a split with fewer tasks than are to be asked: of a file, or of options that leave few; a policy that would
                be trained on all tasks, those that it is judged on among them.
        """
        self.config, self.engine, self.policy, self.speaker = config, engine, policy, speaker
        self.team = team
        splits = ("validation", "test") if config.evaluation.test_tasks else ("validation",)
        name = config.environment.name
        if environment.options.get("split") == ALL:
            raise InputError(
                f"{name}.split = {ALL!r} holds the tasks that a policy is judged on too, so it is for `sesa-lab evaluate` alone;"
                " train on split = 'train', and name what is judged on as test_dataset"
            )
        self._environments = {split: in_split(name, environment.options, split) for split in splits}
        for split, made in self._environments.items():
            field = {"validation": "eval_tasks", "test": "test_tasks"}[split]
            check_enough(made, f"evaluation.{field}", getattr(config.evaluation, field))

    def validation(self, step: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Measures without sketches, and one row a task and strategy: its share of the samples."""
        environment = self._environments["validation"]
        evaluation = self.config.evaluation
        sampler = direct(self.config, evaluation.eval_samples)
        groups = self._draw(environment, evaluation.eval_tasks, sampler, _VALIDATION)
        scores = [verdicts(environment, group) for group in groups]
        return measures(groups, scores), _shares(step, groups, scores)

    def test(self) -> list[dict[str, Any]]:
        """Measures on the test split: direct and, if asked for, with sketches (``guided`` says which)."""
        evaluation = self.config.evaluation
        if not evaluation.test_tasks:
            return []
        ways = [(False, direct(self.config, evaluation.eval_samples), _TEST)]
        if evaluation.test_guided == "yes":
            ways.append((True, guided(self.config, evaluation.eval_samples), _TEST_GUIDED))
        environment = self._environments["test"]
        found = []
        for with_sketches, sampler, position in ways:
            groups = self._draw(environment, evaluation.test_tasks, sampler, position)
            scores = [verdicts(environment, group) for group in groups]
            found.append({"guided": with_sketches} | measures(groups, scores))
        return found

    def _draw(self, environment: Any, tasks: int, sampler: SamplerConfig, position: int) -> list[Group]:
        counters = self.engine.counters
        before = dataclasses.replace(counters)
        streams = partial(stream, self.config.run.seed, "evaluation", position)
        own = self.team.share(tasks)
        groups = answers(self.engine, self.policy, self.speaker, environment, own, sampler, streams) if own else []
        groups = self.team.gather(groups)
        counters.sampled, counters.prefilled = before.sampled, before.prefilled  # judging costs the run nothing
        return groups


def check_enough(environment: Any, setting: str, tasks: int) -> None:
    """Ask an environment that has splits for the last task that will be needed: now, rather than after all training.

    Args:
        environment: of the split that will be asked.
        setting: what says how many tasks, for the error.
        tasks: so many, each of its own.

    Raises:
        InputError: there are fewer tasks.
    """
    if not tasks or "split" not in environment.options:
        return
    try:
        if environment.count < tasks:
            raise InputError(
                f"{environment.name}: split {environment.options['split']!r} has {environment.count} tasks"
            )
        environment.task(tasks - 1)
    except InputError as error:
        raise InputError(f"{setting} = {tasks}, and there are not so many tasks: {error}; lower {setting}") from error


def in_split(name: str, options: Mapping[str, Any], split: str) -> Any:
    """The environment ``name`` on the tasks of another split; one without splits as it is."""
    return environments.make(name, **{**options, "split": split} if "split" in options else options)


def direct(config: Config, samples: int) -> SamplerConfig:
    """How a policy is judged: ``samples`` answers i.i.d. given the task alone."""
    own = config.sampler
    return SamplerConfig(
        group_size=samples, temperature=_temperature(config), max_tokens=own.max_tokens, stop_text=own.stop_text
    )


def guided(config: Config, samples: int) -> SamplerConfig:
    """How a policy is judged with sketches, one way for all runs, however each draws its own groups.

    As many sketches as divide the samples, ``SKETCHES`` at most, one after another in one list, each kept as it comes.
    """
    count = max(k for k in range(1, SKETCHES + 1) if samples % k == 0)
    return SamplerConfig(
        name="sesa",
        group_size=samples,
        temperature=_temperature(config),
        max_tokens=config.sampler.max_tokens,
        stop_text=config.sampler.stop_text,
        expansions=samples // count,
        drafting="sequential",
        drafting_form="list",
        sketch_tokens=config.sampler.sketch_tokens,
        repeated_sketch="keep",
    )


def _temperature(config: Config) -> float:
    return config.evaluation.eval_temperature or config.sampler.temperature


def answers(
    engine: Engine,
    policy: Policy,
    speaker: Speaker,
    environment: Any,
    tasks: Sequence[int],
    sampler: SamplerConfig,
    streams: Streams,
) -> list[Group]:
    """One group a task, drawn from the weights as they are now.

    As many rows side by side as memory allows (``room.rows_at_once``), but for sketches never less than a whole group.
    Where the parts are cut changes results in the last bits at most.

    Args:
        engine: on the policy's weights.
        policy: whose answers.
        speaker: how it is asked.
        environment: where the tasks come from; of several turns: it plays along.
        tasks: which ones, one after another.
        sampler: how a group is drawn.
        streams: (task, number within the group) -> a generator of its own.

    Raises:
        InputError: the model has too few positions.
    """
    world = environment if environment.turns > 1 else None
    asked = [environment.task(index) for index in tasks]
    requests = [Request(task, speaker.answer(task)) for task in asked]
    need = room.extent(speaker, environment, sampler, requests)
    room.check(policy, need)
    rows = room.rows_at_once(policy, need, sampler.group_size)
    size = max(1, rows // sampler.group_size)  # tasks side by side
    most = min(rows, sampler.group_size) if sampler.name == "parallel" else sampler.group_size
    cuts = [(first, min(most, sampler.group_size - first)) for first in range(0, sampler.group_size, most)]
    groups: list[Group] = []
    with engine.synced():
        for start in range(0, len(tasks), size):
            drawn = [
                draw(
                    engine, requests[start : start + size], dataclasses.replace(sampler, group_size=count), speaker,
                    partial(_shifted, streams, tasks[start], first), world,
                )
                for first, count in cuts
            ]  # fmt: skip
            groups += [_joined(parts) for parts in zip(*drawn, strict=True)]
    return groups


def _shifted(streams: Streams, start: int, first: int, group: int, number: int) -> np.random.Generator:
    return streams(start + group, first + number)


def _joined(parts: Sequence[Group]) -> Group:
    """Parts of one i.i.d. group, drawn one after another, as the group."""
    members = tuple(candidate for part in parts for candidate in part.candidates)
    return dataclasses.replace(parts[0], candidates=members)


def measures(groups: Sequence[Group], scores: Sequence[Sequence[Score]]) -> dict[str, Any]:
    """Means over tasks; keys and units are documented in CONTRIBUTING.md.

    Args:
        groups: equally many candidates a task, drawn i.i.d. where pass@k is to be unbiased.
        scores: the verdicts on them.
    """
    n = len(groups[0].candidates)
    wins = [sum(score.success for score in own) for own in scores]
    hard = [bool(group.task.data.get("hard", False)) for group in groups]
    ks = [k for k in KS if k <= n]
    passed = {k: np.array([pass_at_k(n, won, k) for won in wins]) for k in ks}
    distinct = [len({s.strategy for s in own if s.success}) for own in scores]
    surprise = [-c.logprob for group in groups for c in group.candidates]
    found: dict[str, Any] = {
        "accuracy": float(passed[1].mean()),
        "coverage": float(np.mean(distinct)),
        "coverage_k": n,
        "entropy": float(np.mean(surprise)),
        "valid_mass": float(np.mean([s.strategy is not None for own in scores for s in own])),
    }
    found |= {f"pass_at_{k}": float(values.mean()) for k, values in passed.items() if k > 1}
    if any(hard) and not all(hard):
        found |= {f"pass_at_{k}_hard": float(values[hard].mean()) for k, values in passed.items()}
    return found


def _shares(step: int, groups: Sequence[Group], scores: Sequence[Sequence[Score]]) -> list[dict[str, Any]]:
    rows = []
    for group, own in zip(groups, scores, strict=True):
        counts = Counter((score.strategy, score.success) for score in own)
        rows += [
            {
                "step": step,
                "task": group.task.index,
                "strategy": strategy,
                "probability": count / len(own),
                "success": success,
            }
            for (strategy, success), count in counts.items()
        ]
    return rows
