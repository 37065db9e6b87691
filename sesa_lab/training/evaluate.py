"""Evaluation: the policy's exact probability of every answer of an enumerable task, and estimates from samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from sesa_lab import engines, environments, runs
from sesa_lab.config import Config
from sesa_lab.diversity import coverage_at_k, exact_measures, pass_at_k
from sesa_lab.errors import InputError
from sesa_lab.policies import Policy, load_policy, merged, pack, token_logprobs
from sesa_lab.prompts import Speaker, Templates
from sesa_lab.samplers import Request
from sesa_lab.seeding import stream
from sesa_lab.training import room
from sesa_lab.training.credit import verdicts
from sesa_lab.training.held_out import answers, check_enough, direct, in_split
from sesa_lab.training.held_out import guided as with_sketches
from sesa_lab.types import Score, Task

ROWS = 512  # answers scored in one forward pass


@torch.no_grad()
def answer_probabilities(
    policy: Policy, environment: Any, speaker: Speaker, task: Task, temperature: float = 1.0
) -> dict[str, float]:
    """p(answer | x) for every valid answer, in the environment's order.

    The probability is that of the answer's own tokenisation followed by the stop token. A policy could spell the same
    text by other tokens; that mass is counted as invalid (at most 1 - sum of what is returned).

    Raises:
        InputError: the environment cannot enumerate the task's answers.
    """
    answers = environment.enumerate(task)
    if answers is None:
        raise InputError(f"environment {environment.name} cannot enumerate its answers; exact measures need that")
    x = speaker.answer(task)
    completions = [(*policy.encode(answer), policy.stop_ids[0]) for answer in answers]
    sums = np.zeros(len(answers))
    for start in range(0, len(answers), ROWS):
        part = completions[start : start + ROWS]
        rows = pack([x] * len(part), part)
        logprobs = token_logprobs(policy, rows, temperature)[0].double().cpu().numpy()
        np.add.at(sums, start + rows.sequence.numpy(), logprobs)
    return dict(zip(answers, np.exp(sums).tolist(), strict=True))


def exact(
    policy: Policy, environment: Any, speaker: Speaker, config: Config, step: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Exact measures, averaged over the environment's distinct tasks, and every answer's probability.

    Args:
        policy: as it is now.
        environment: its answers can be enumerated.
        speaker: how the policy is asked.
        config: ``run.coverage_k`` and ``sampler.temperature`` are used.
        step: for the rows.
    """
    k, rows, measures = config.run.coverage_k, [], []
    for index in range(environment.count):
        task = environment.task(index)
        with merged(policy.model):
            probability = answer_probabilities(policy, environment, speaker, task, config.sampler.temperature)
        success = [environment.score(task, answer).success for answer in probability]
        measures.append(vars(exact_measures(list(probability.values()), success, k)))
        rows += [
            {"step": step, "task": index, "strategy": answer, "probability": p, "success": hit}
            for (answer, p), hit in zip(probability.items(), success, strict=True)
        ]
    means = {name: float(np.mean([m[name] for m in measures])) for name in measures[0]}
    return means | {"coverage_k": k}, rows


def evaluate_samples(
    config: Config,
    run: str | Path | None,
    samples: int,
    tasks: int,
    ks: Sequence[int],
    split: str | None = None,
    guided: bool = False,
) -> pd.DataFrame:
    """pass@k and coverage@k from samples drawn given the task alone, beside the exact values where answers are enumerable.

    With ``guided`` they are drawn with sketches, in the one way of ``held_out.guided``. Samples of one sketch are alike then:
    pass@k and coverage@k are of k of these samples, chosen at random, not the unbiased ones of k i.i.d. answers.

    The policy of a run is asked by the prompts that the run recorded, whatever has become of their files, unless ``config``
    names another folder or another environment.

    Args:
        config: environment, policy, temperature and seed.
        run: a run folder whose last checkpoint's adapter is evaluated; None: the policy as ``config`` names it.
        samples: n, samples a task.
        tasks: tasks 0..tasks-1 of the split are evaluated.
        ks: values of k; pass@k and coverage@k are NaN where k > n.
        split: ``train``, ``validation`` or ``test``; None: validation, or the tasks there are in an environment without splits.
        guided: draw with sketches.

    Returns:
        One row a task and k: ``task``, ``k``, ``n``, ``success`` (share), ``pass_at_k``, ``coverage_at_k`` (distinct
        successful strategies), ``exact_coverage`` and ``exact_accuracy`` (given the task alone; NaN where answers cannot be
        enumerated). With ``guided`` one more column says so.

    Raises:
        InputError: samples, tasks or k below 1; a run without a checkpoint; a split of an environment that has none.
    """
    if min(samples, tasks, *ks) < 1:
        raise InputError(f"expected samples, tasks and k of at least 1, got {samples}, {tasks}, {list(ks)}")
    environment = _asked(config, split)
    check_enough(environment, "tasks", tasks)
    chosen = config.policy if run is None else dataclasses.replace(config.policy, adapter=str(_last(run)))
    policy = load_policy(chosen, config.environment.name, environment.options, config.run.seed)
    recorded = None if run is None else recorded_prompts(runs.load(run), config)
    own = config.policy.prompts
    speaker = Speaker(policy.tokenizer, policy.form, environment.name, policy.stop_ids, own, recorded)
    sampler = with_sketches(config, samples) if guided else direct(config, samples)
    if guided:
        requests = [Request(task, speaker.answer(task)) for task in map(environment.task, range(tasks))]
        room.check_group(policy, speaker, sampler, requests, " or draw without sketches")
    if environment.enumerate(environment.task(0)) is not None:  # at the temperature of the exact values beside them
        sampler = dataclasses.replace(sampler, temperature=config.sampler.temperature)
    streams = partial(stream, config.run.seed, "evaluation")
    rows = []
    with closing(engines.make(config.engine, policy)) as engine:
        groups = answers(engine, policy, speaker, environment, range(tasks), sampler, streams)
    for group in groups:
        scores = verdicts(environment, group)
        with merged(policy.model):
            exact_at = _exact(policy, environment, speaker, group.task, sampler.temperature)
        rows += [{"task": group.task.index, **_row(scores, k), **exact_at(k)} for k in ks]
    return pd.DataFrame(rows).assign(**({"guided": True} if guided else {}))


def _asked(config: Config, split: str | None) -> Any:
    """The environment on the tasks of ``split``."""
    environment = environments.make(config.environment.name, **config.environment.options)
    if "split" not in environment.options:
        if split is not None:
            raise InputError(f"--split {split}: environment {environment.name} has no splits; leave it out")
        return environment
    return in_split(config.environment.name, environment.options, split or "validation")


def recorded_prompts(run: runs.Run, config: Config | None = None) -> Templates | None:
    """The prompts that a run recorded when it began.

    Args:
        run: the run.
        config: how its policy is asked now; None: as in the run.

    Returns:
        None where there are none (the run was made before they were recorded), or ``config`` names another folder of prompts or
        another environment than the run's.

    Raises:
        InputError: prompts.json is damaged.
    """
    own, asked = run.config, config or run.config
    other = (own.policy.prompts, own.environment.name) != (asked.policy.prompts, asked.environment.name)
    if other or not run.prompts:
        return None
    return Templates.recorded(own.environment.name, run.prompts, f"{run.path}/prompts.json")


def _last(run: str | Path) -> Path:
    checkpoints = runs.load(run).checkpoints
    if not checkpoints:
        raise InputError(f"{run} has no checkpoint yet; let it train on (sesa-lab resume {run})")
    return Path(checkpoints[-1][1])


def _row(scores: Sequence[Score], k: int) -> dict[str, float]:
    n, successes = len(scores), sum(score.success for score in scores)
    found = [score.strategy if score.success else None for score in scores]
    return {
        "k": k,
        "n": n,
        "success": successes / n,
        "pass_at_k": pass_at_k(n, successes, k),
        "coverage_at_k": coverage_at_k(found, k),
    }


def _exact(
    policy: Policy, environment: Any, speaker: Speaker, task: Task, temperature: float
) -> Callable[[int], dict[str, float]]:
    if environment.enumerate(task) is None:
        return lambda k: {"exact_accuracy": float("nan"), "exact_coverage": float("nan")}
    probability = answer_probabilities(policy, environment, speaker, task, temperature)
    success = [environment.score(task, answer).success for answer in probability]

    def at(k: int) -> dict[str, float]:
        measures = exact_measures(list(probability.values()), success, k)
        return {"exact_accuracy": measures.accuracy, "exact_coverage": measures.coverage}

    return at
