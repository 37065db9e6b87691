"""Groups of answers whose true strategies are known: drawn from the shipped lab policies, answers as they are written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from sesa_lab import environments
from sesa_lab.config import Config
from sesa_lab.errors import InputError
from sesa_lab.experiments.agents import LIMITS
from sesa_lab.policies.load import POLICIES, read_card
from sesa_lab.training.evaluate import evaluate_samples

POLICY_NAMES: dict[str, tuple[str, ...]] = {
    "path_exploration": ("path", "path-skewed", "path-peaked", "path-sharp"),
    "countdown": ("countdown-ordinary", "countdown-habit", "countdown-strict"),
    "frozen_lake": ("frozen-lake-ordinary", "frozen-lake-habit", "frozen-lake-strict"),
    "sokoban": ("sokoban-ordinary", "sokoban-habit", "sokoban-strict"),
    "sudoku": ("sudoku-ordinary", "sudoku-habit", "sudoku-strict"),
    "math": ("math-ordinary", "math-habit", "math-strict"),
}
"""Environment -> shipped lab policies, from many strategies to few."""

SPARE = 1.5
"""How many times as many answers are drawn as are kept: those that cannot be read have no strategy."""
_LONGEST = 16  # tokens of an answer in Path Exploration, which has no limit among the agents'


@dataclass(frozen=True)
class Group:
    """Answers to one task, with their true strategies.

    Attributes:
        environment: name; that of prose says so.
        policy: who answered, or how it was worded.
        unit: number of the task: what is resampled for intervals, and parted into calibration and held-out tasks.
        texts: one an answer.
        strategies: their keys, in the same order.
    """

    environment: str
    policy: str
    unit: int
    texts: tuple[str, ...]
    strategies: tuple[str, ...]


def lab_groups(
    tasks: int, samples: int, seed: int, names: Mapping[str, Sequence[str]] = POLICY_NAMES
) -> tuple[list[Group], pd.DataFrame]:
    """Answers of the lab policies to the first validation tasks, drawn in parallel at temperature 1.

    Path Exploration has one task: its units are independent draws on that task.

    Args:
        tasks: units an environment.
        samples: readable answers a group; of the answers drawn the first so many are kept.
        seed: of the draws, the same for every policy.
        names: environment -> names of shipped policies.

    Returns:
        The groups, and one row a policy: environment, policy, tasks, strategies and texts (different ones a group, mean), left_out
        (tasks that some policy of the environment gave too few readable answers to), readable (share of answers).

    Raises:
        InputError: tasks or samples below 2.
    """
    if min(tasks, samples) < 2:
        raise InputError(f"expected 2 or more tasks and samples a task, got {tasks} and {samples}")
    groups: list[Group] = []
    rows = []
    for environment, policies in names.items():
        drawn = {policy: _drawn(environment, policy, tasks, math.ceil(samples * SPARE), seed) for policy in policies}
        whole = [unit for unit in range(tasks) if all(_readable(drawn[p][unit]) >= samples for p in policies)]
        for policy, parts in drawn.items():
            found = [_kept(parts[unit], environment, policy, unit, samples) for unit in whole]
            readable = pd.concat(parts)["strategy"].notna().mean()
            row = {"environment": environment, "policy": policy, **_size(found), "left_out": tasks - len(found)}
            rows.append({**row, "readable": readable})
            groups += found
    return groups, pd.DataFrame(rows)


def _drawn(environment: str, policy: str, tasks: int, samples: int, seed: int) -> list[pd.DataFrame]:
    """The samples of each unit."""
    card = read_card(str(POLICIES / policy))
    if card is None:
        raise InputError(f"policy {policy!r} is no lab policy, expected a name under data/policies with a card")
    options = dict(card["options"])
    tokens = LIMITS.get(environment, {}).get("max_tokens", _LONGEST)
    config = Config.build(
        environment={"name": environment, "options": options},
        policy={"model": policy, "device": "cpu"},
        sampler={"max_tokens": tokens},
        run={"seed": seed},
    )
    if environments.make(environment, **options).count > 1:
        table = evaluate_samples(config, None, samples, tasks, [1], split="validation").samples
        return [table[table["task"] == task] for task in range(tasks)]
    table = evaluate_samples(config, None, samples * tasks, 1, [1]).samples
    return [table.iloc[i * samples : (i + 1) * samples] for i in range(tasks)]


def _readable(part: pd.DataFrame) -> int:
    return int(part["strategy"].notna().sum())


def _kept(part: pd.DataFrame, environment: str, policy: str, unit: int, samples: int) -> Group:
    readable = part[part["strategy"].notna()].head(samples)
    return Group(environment, policy, unit, tuple(readable["completion"]), tuple(readable["strategy"]))


def _size(found: Sequence[Group]) -> dict[str, float]:
    counts = [(len(set(group.strategies)), len(set(group.texts))) for group in found]
    means = [sum(column) / len(found) for column in zip(*counts, strict=True)] if found else [math.nan, math.nan]
    return {"tasks": len(found), "strategies": means[0], "texts": means[1]}
