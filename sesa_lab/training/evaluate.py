"""Exact evaluation: the policy's probability of every answer of an enumerable task."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sesa_lab import prompts
from sesa_lab.errors import InputError
from sesa_lab.policies import Policy, pack, token_logprobs
from sesa_lab.types import Task

ROWS = 512  # answers scored in one forward pass


@torch.no_grad()
def answer_probabilities(policy: Policy, environment: Any, task: Task, temperature: float = 1.0) -> dict[str, float]:
    """p(answer | x) for every valid answer, in the environment's order.

    The probability is that of the answer's own tokenisation followed by the stop token. A policy could spell the same
    text by other tokens; that mass is counted as invalid (at most 1 - sum of what is returned).

    Raises:
        InputError: the environment cannot enumerate the task's answers.
    """
    answers = environment.enumerate(task)
    if answers is None:
        raise InputError(f"environment {environment.name} cannot enumerate its answers; exact measures need that")
    x = prompts.task_ids(policy.tokenizer, policy.form, environment.name, task)
    completions = [(*policy.encode(answer), policy.stop_ids[0]) for answer in answers]
    sums = np.zeros(len(answers))
    for start in range(0, len(answers), ROWS):
        part = completions[start : start + ROWS]
        rows = pack([x] * len(part), part)
        logprobs = token_logprobs(policy, rows, temperature)[0].double().cpu().numpy()
        np.add.at(sums, start + rows.sequence.numpy(), logprobs)
    return dict(zip(answers, np.exp(sums).tolist(), strict=True))
