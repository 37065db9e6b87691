"""The agents' experiments: who is compared with whom on Countdown, FrozenLake and Sokoban, at equal candidates.

Every arm starts from the same lab policy, draws ``groups x group_size`` candidates a step for equally many steps and is
judged without sketches on tasks of the test split, which nothing else reads. Learning rates were searched on validation
tasks with seeds that no experiment reports, on one grid for every arm; ``LEARNING_RATES`` holds what was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sesa_lab.experiments.jobs import Job
from sesa_lab.experiments.matrix import Arm, jobs_for

TASKS: dict[str, dict[str, int]] = {
    "countdown": {"max_tokens": 16, "sketch_tokens": 12},
    "frozen_lake": {"max_tokens": 14, "sketch_tokens": 6},
    "sokoban": {"max_tokens": 26, "sketch_tokens": 6},
}
"""Environment -> token limits that its answers and sketches stay well below."""

BASES = ("ordinary", "habit")
"""Lab policies of each task: direct answers reach every strategy, or only a few that sketches go beyond."""

SEARCH_SEEDS = (100,)
SEARCH_GRID = (3e-4, 1e-3, 3e-3)

BASE: dict[str, dict[str, Any]] = {
    "run": {"steps": 100, "groups": 16, "evaluate_every": 20, "checkpoint_every": 100},
    "sampler": {"group_size": 16},
    "update": {"minibatches": 2},
    "evaluation": {"eval_tasks": 32, "eval_samples": 64, "test_tasks": 128, "test_guided": "yes"},
}

_OFF = {"correction": "positive_only", "correction_scope": "off_policy"}
_MIXED = {"name": "sesa", "on_policy_fraction": 0.75}

ARMS: dict[str, dict[str, dict[str, Any]]] = {
    "base": {"run": {"steps": 0}},
    "parallel": {"update": {"repeats": "count"}},
    "parallel-novelty": {"update": {"repeats": "zero"}},
    "parallel-positive": {"update": {"repeats": "count", "correction": "positive_only"}},
    "sesa-paper": {"sampler": {"name": "sesa"}, "update": {"repeats": "count"}},
    "sesa-positive": {
        "sampler": {"name": "sesa"},
        "update": {"repeats": "zero", "conditioning": "task+sketch", **_OFF},
    },
    "mixed": {"sampler": _MIXED, "update": {"repeats": "count", "conditioning": "task+sketch", **_OFF}},
    "mixed-iid": {
        "sampler": {**_MIXED, "drafting": "iid"},
        "update": {"repeats": "count", "conditioning": "task+sketch", **_OFF},
    },
    "mixed-novelty": {"sampler": _MIXED, "update": {"repeats": "zero", "conditioning": "task+sketch", **_OFF}},
}
"""Name -> what makes the arm what it is."""

LABELS = {
    "base": "base, not trained",
    "parallel": "parallel",
    "parallel-novelty": "parallel + novelty",
    "parallel-positive": "parallel, positive only",
    "sesa-paper": "SESA, paper's rule",
    "sesa-positive": "SESA + novelty, positive only",
    "mixed": "mixed",
    "mixed-iid": "mixed, i.i.d. sketches",
    "mixed-novelty": "mixed + novelty",
}
"""What charts call the arms."""

HEADLINE = ("base", "parallel", "parallel-novelty", "sesa-paper", "mixed-novelty")
"""The arms of the notebooks' defaults, and those that are run on every seed."""

LEARNING_RATES: dict[str, float] = dict.fromkeys(ARMS, 1e-3)


def base_of(task: str, base: str, steps: int) -> dict[str, dict[str, Any]]:
    """Config sections that all arms of one task and base policy share."""
    return {
        "environment": {"name": task, "options": {"hard": "half"}},
        "policy": {"model": f"{task.replace('_', '-')}-{base}"},
        "run": {**BASE["run"], "steps": steps},
        "sampler": {**BASE["sampler"], "max_tokens": TASKS[task]["max_tokens"]},
        "update": BASE["update"],
        "evaluation": BASE["evaluation"],
    }


def arm(task: str, name: str, rate: float | None = None) -> Arm:
    """The arm ``name`` for one task, at its searched learning rate or at ``rate``."""
    changes = {section: dict(values) for section, values in ARMS[name].items()}
    if changes.get("sampler", {}).get("name") == "sesa":
        changes["sampler"]["sketch_tokens"] = TASKS[task]["sketch_tokens"]
    if name != "base":
        changes.setdefault("update", {})["learning_rate"] = LEARNING_RATES[name] if rate is None else rate
    return Arm(name if rate is None else f"{name}@{rate:g}", changes)


def jobs(task: str, base: str, names: Sequence[str], seeds: Sequence[int], steps: int, folder: Path) -> list[Job]:
    """One job an arm and seed."""
    return jobs_for([arm(task, name) for name in names], seeds, base_of(task, base, steps), folder / f"{task}-{base}")


def search(task: str, base: str, names: Sequence[str], steps: int, folder: Path) -> list[Job]:
    """One job an arm and learning rate of the grid, on the search's own seeds; the test split is left alone."""
    arms = [arm(task, name, rate) for name in names for rate in SEARCH_GRID if name != "base"]
    shared = base_of(task, base, steps)
    shared["evaluation"] = {**shared["evaluation"], "test_tasks": 0, "test_guided": "no", "eval_tasks": 64}
    return jobs_for(arms, SEARCH_SEEDS, shared, folder / f"search-{task}-{base}")
