"""Judging a policy by samples on tasks it is not trained on: pass@k, distinct correct strategies, entropy."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from sesa_lab import environments
from sesa_lab.config import Config, SamplerConfig
from sesa_lab.diversity import pass_at_k
from sesa_lab.engines import Engine
from sesa_lab.policies import Policy, merged
from sesa_lab.prompts import Speaker
from sesa_lab.samplers import Request, draw
from sesa_lab.seeding import stream
from sesa_lab.training.credit import verdicts
from sesa_lab.types import Group, Score

KS = (1, 8, 16, 64)
ROWS = 1024  # answers drawn side by side
SKETCHES = 8  # most sketches a task where the policy is judged with sketches
# Positions among the "evaluation" streams of a seed.
_VALIDATION, _TEST, _TEST_GUIDED = 0, 1, 2


class Judge:
    """Draws from the policy as it is now on the validation or test split of its environment.

    The environment's options are those of training but for ``split``; one without splits is judged on its own tasks.
    """

    def __init__(self, config: Config, environment: Any, engine: Engine, policy: Policy, speaker: Speaker) -> None:
        """Make the environments that will be asked, before anything is trained.

        Raises:
            InputError: a split without tasks (of a file, say).
        """
        self.config, self.engine, self.policy, self.speaker = config, engine, policy, speaker
        splits = ("validation", "test") if config.evaluation.test_tasks else ("validation",)
        self._environments = {split: self._made(environment, split) for split in splits}

    def validation(self, step: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Measures without sketches, and one row a task and strategy: its share of the samples."""
        environment = self._environments["validation"]
        evaluation = self.config.evaluation
        groups = self._draw(environment, evaluation.eval_tasks, self._direct(), _VALIDATION)
        scores = [verdicts(environment, group) for group in groups]
        return measures(groups, scores), _shares(step, groups, scores)

    def test(self) -> list[dict[str, Any]]:
        """Measures on the test split: direct and, if asked for, with sketches (``guided`` says which)."""
        evaluation = self.config.evaluation
        if not evaluation.test_tasks:
            return []
        ways = [(False, self._direct(), _TEST)]
        if evaluation.test_guided == "yes":
            ways.append((True, self._guided(), _TEST_GUIDED))
        environment = self._environments["test"]
        found = []
        for guided, sampler, position in ways:
            groups = self._draw(environment, evaluation.test_tasks, sampler, position)
            scores = [verdicts(environment, group) for group in groups]
            found.append({"guided": guided} | measures(groups, scores))
        return found

    def _direct(self) -> SamplerConfig:
        own = self.config.sampler
        return SamplerConfig(
            group_size=self.config.evaluation.eval_samples, temperature=own.temperature, max_tokens=own.max_tokens
        )

    def _guided(self) -> SamplerConfig:
        """As many sketches as divide the samples, ``SKETCHES`` at most; drafted as in training if that has sketches."""
        samples = self.config.evaluation.eval_samples
        count = max(k for k in range(1, SKETCHES + 1) if samples % k == 0)
        return dataclasses.replace(
            self.config.sampler, name="sesa", group_size=samples, expansions=samples // count, on_policy_fraction=0.0
        )

    def _made(self, training: Any, split: str) -> Any:
        options = dict(training.options)
        if "split" in options:
            options["split"] = split
        return environments.make(self.config.environment.name, **options)

    def _draw(self, environment: Any, tasks: int, sampler: SamplerConfig, position: int) -> list[Group]:
        counters = self.engine.counters
        before = dataclasses.replace(counters)
        world = environment if environment.turns > 1 else None
        size = max(1, ROWS // sampler.group_size)
        groups: list[Group] = []
        with merged(self.policy.model):
            for start in range(0, tasks, size):
                part = [environment.task(i) for i in range(start, min(start + size, tasks))]
                requests = [Request(task, self.speaker.answer(task)) for task in part]
                groups += draw(
                    self.engine, requests, sampler, self.speaker,
                    partial(_stream, self.config.run.seed, position, start), world,
                )  # fmt: skip
        counters.sampled, counters.prefilled = before.sampled, before.prefilled  # judging costs the run nothing
        return groups


def _stream(seed: int, position: int, start: int, group: int, number: int) -> np.random.Generator:
    return stream(seed, "evaluation", position, start + group, number)


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
    surprise = [-sum(sum(turn.completion.logprobs) for turn in c.turns) for group in groups for c in group.candidates]
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
