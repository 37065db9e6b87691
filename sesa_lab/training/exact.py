"""The policy's exact probability of every answer of an enumerable task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sesa_lab.config import Config
from sesa_lab.diversity import exact_measures
from sesa_lab.errors import InputError
from sesa_lab.policies import Policy, merged, pack, token_logprobs
from sesa_lab.prompts import Speaker
from sesa_lab.types import Task

UNKNOWN = {"exact_accuracy": float("nan"), "exact_coverage": float("nan")}
"""What ``exact_at`` gives where answers cannot be enumerated."""
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


def exact_at(
    policy: Policy, environment: Any, speaker: Speaker, task: Task, temperature: float
) -> Callable[[int], dict[str, float]]:
    """How well k samples do, exactly: k -> accuracy and coverage; NaN where answers cannot be enumerated."""
    if environment.enumerate(task) is None:
        return lambda k: UNKNOWN
    probability = answer_probabilities(policy, environment, speaker, task, temperature)
    success = [environment.score(task, answer).success for answer in probability]

    def at(k: int) -> dict[str, float]:
        measures = exact_measures(list(probability.values()), success, k)
        return {"exact_accuracy": measures.accuracy, "exact_coverage": measures.coverage}

    return at
