"""Who is compared with whom, at equal candidates: the agents (Countdown, FrozenLake, Sokoban), and reasoning (Sudoku, maths).

Every arm starts from the same lab policy, draws ``groups x group_size`` candidates a step for equally many steps and is
judged without sketches on tasks of the test split, which nothing else reads. Learning rates are searched on validation
tasks with seeds that no experiment reports, on one grid for every arm; ``LEARNING_RATES`` holds what is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sesa_lab.experiments.jobs import Job
from sesa_lab.experiments.matrix import Arm, Sections, jobs_for

TASKS: dict[str, dict[str, int]] = {
    "countdown": {"max_tokens": 16, "sketch_tokens": 12},
    "frozen_lake": {"max_tokens": 14, "sketch_tokens": 6},
    "sokoban": {"max_tokens": 26, "sketch_tokens": 6},
}
"""Agents' environment -> token limits that its answers and sketches stay well below."""

REASONING: dict[str, dict[str, int]] = {
    "sudoku": {"max_tokens": 20, "sketch_tokens": 3},
    "math": {"max_tokens": 40, "sketch_tokens": 5},
}
"""The same of reasoning. Learning rates are searched apart, one for its two tasks together."""

LIMITS = {**TASKS, **REASONING}

BASES = ("ordinary", "habit")
"""Lab policies of each task: direct answers reach every strategy, or only a few that sketches go beyond."""

REASONING_BASES = ("habit",)
"""Those that reasoning is searched and reported from."""

SEEDS = (1, 2, 3, 4, 5)
"""Of the arms that are reported. 0 is left out: the lab policies, and their demonstrations, were made with it."""

SEARCH_SEEDS = (100,)
SEARCH_GRID = (1e-4, 3e-4, 1e-3)
"""Learning rates, the same for every arm. 3e-3, tried on Sokoban from its strict base, wrecks every arm alike."""

SIBLINGS = {"sesa-positive": "mixed-unsolved-novelty", "mixed-unsolved-iid": "mixed-unsolved"}
"""Arm that is not searched itself -> the one whose learning rate it takes."""

BASE: dict[str, dict[str, Any]] = {
    "run": {"steps": 60, "groups": 16, "evaluate_every": 15, "checkpoint_every": 60},
    "sampler": {"group_size": 16},
    "update": {"minibatches": 2},
    "evaluation": {"eval_tasks": 32, "eval_samples": 64, "test_tasks": 128, "test_guided": "yes"},
}

_OFF = {"correction": "positive_only", "correction_scope": "off_policy"}
_MIXED = {"name": "sesa", "on_policy_fraction": 0.75}
_BOTH = {"conditioning": "task+sketch", **_OFF}
_UNSOLVED = {**_BOTH, "transfer": "unsolved"}

ARMS: dict[str, dict[str, dict[str, Any]]] = {
    "base": {"run": {"steps": 0}},
    "parallel": {"update": {"repeats": "count"}},
    "parallel-novelty": {"update": {"repeats": "zero"}},
    "parallel-positive": {"update": {"repeats": "count", "correction": "positive_only"}},
    "sesa-paper": {"sampler": {"name": "sesa"}, "update": {"repeats": "count"}},
    "sesa-positive": {"sampler": {"name": "sesa"}, "update": {"repeats": "zero", **_BOTH}},
    "mixed-unsolved": {"sampler": _MIXED, "update": {"repeats": "count", **_UNSOLVED}},
    "mixed-unsolved-iid": {"sampler": {**_MIXED, "drafting": "iid"}, "update": {"repeats": "count", **_UNSOLVED}},
    "mixed-unsolved-novelty": {"sampler": _MIXED, "update": {"repeats": "zero", **_UNSOLVED}},
}
"""Name -> what makes the arm what it is. "mixed": 12 of 16 candidates are drawn without a sketch, 4 with one. What a guided
candidate found is trained given its sketch; given the task alone too: in every group, or ("unsolved") only where no
candidate drawn without a sketch succeeded."""

LABELS = {
    "parallel": "parallel",
    "parallel-novelty": "parallel + novelty",
    "parallel-positive": "parallel, positive only",
    "sesa-paper": "SESA, paper's rule",
    "mixed-unsolved": "mixed, where unsolved",
    "mixed-unsolved-novelty": "mixed + novelty, where unsolved",
    "sesa-positive": "SESA + novelty, positive only",
    "mixed-unsolved-iid": "mixed, where unsolved, i.i.d. sketches",
    "half-unsolved": "half mixed, where unsolved",
    "half-unsolved-iid": "half mixed, where unsolved, i.i.d. sketches",
    "base": "base, not trained",
}
"""What charts call the arms, those of ``agent_studies`` included; their order gives the colours, to the headline arms first."""


def labelled(arms: pd.Series) -> pd.Series:
    """What charts call arms, as categories of all of them in the order of ``LABELS``: an arm keeps its colour in all charts."""
    names = arms.map(lambda arm: LABELS.get(arm, arm))
    others = [name for name in names.unique() if name not in LABELS.values()]
    return names.astype(pd.CategoricalDtype([*LABELS.values(), *others]))


HEADLINE = (
    "base", "parallel", "parallel-novelty", "parallel-positive", "sesa-paper", "mixed-unsolved", "mixed-unsolved-novelty",
)  # fmt: skip
"""The arms of the notebooks' defaults."""

EVERY_SEED = tuple(name for name in HEADLINE if name != "sesa-paper")
"""Of all arms, those that are run on every seed; the others, which lose or only tell parts of the method apart, on three."""

# One line an arm, one column a base (ordinary, habit), as `sesa-lab experiment agents-search` prints it.
_RATES: dict[str, tuple[float, ...]] = {
    "parallel": (3e-4, 1e-4),
    "parallel-novelty": (3e-4, 1e-4),
    "parallel-positive": (1e-4, 1e-3),
    "sesa-paper": (1e-4, 1e-4),
    "mixed-unsolved": (3e-4, 1e-3),
    "mixed-unsolved-novelty": (1e-4, 3e-4),
}

# The same of reasoning, as `sesa-lab experiment reasoning-search` prints it.
_RATES_REASONING: dict[str, tuple[float, ...]] = {
    "parallel": (1e-4,),
    "parallel-novelty": (1e-4,),
    "parallel-positive": (3e-4,),
    "sesa-paper": (1e-4,),
    "mixed-unsolved": (3e-4,),
    "mixed-unsolved-novelty": (1e-4,),
}


def _rates(printed: Mapping[str, tuple[float, ...]], bases: Sequence[str]) -> dict[tuple[str, str], float]:
    return {(base, name): rate for name, rates in printed.items() for base, rate in zip(bases, rates, strict=True)}


LEARNING_RATES, REASONING_RATES = _rates(_RATES, BASES), _rates(_RATES_REASONING, REASONING_BASES)
"""(base, arm) -> its learning rate, one for the tasks of ``TASKS`` together, and one for those of ``REASONING``. ``rate_of`` says
what the other arms and bases have."""


def bases_of(task: str) -> tuple[str, ...]:
    """The base policies that a task is searched and reported from."""
    return REASONING_BASES if task in REASONING else BASES


def rate_of(task: str, base: str, name: str) -> float:
    """The learning rate of an arm on a task and base policy, its own or its sibling's (``SIBLINGS``).

    Every arm without sketches is searched itself, and so is the paper's rule. Arms of i.i.d. sketches take the rate of the same
    arm with sequential ones, so that how sketches are drafted is all that tells the two apart. A base that was not searched
    (none of ``bases_of``) takes the rates of the habit base.
    """
    rates = REASONING_RATES if task in REASONING else LEARNING_RATES
    return rates[base if base in bases_of(task) else "habit", SIBLINGS.get(name, name)]


def base_of(task: str, base: str, steps: int) -> dict[str, dict[str, Any]]:
    """Config sections that all arms of one task and base policy share."""
    return {
        "environment": {"name": task, "options": {"hard": "half"}},
        "policy": {"model": f"{task.replace('_', '-')}-{base}"},
        "run": {**BASE["run"], "steps": steps},
        "sampler": {**BASE["sampler"], "max_tokens": LIMITS[task]["max_tokens"]},
        "update": BASE["update"],
        "evaluation": BASE["evaluation"],
    }


def arm(task: str, base: str, name: str, rate: float | None = None) -> Arm:
    """The arm ``name`` for one task and base policy, at the learning rate of ``rate_of`` or at ``rate``."""
    changes = {section: dict(values) for section, values in ARMS[name].items()}
    if changes.get("sampler", {}).get("name") == "sesa":
        changes["sampler"]["sketch_tokens"] = LIMITS[task]["sketch_tokens"]
    if name != "base":
        changes.setdefault("update", {})["learning_rate"] = rate_of(task, base, name) if rate is None else rate
    return Arm(name if rate is None else f"{name}@{rate:g}", changes)


def variant(of: Arm, name: str, changes: Sections) -> Arm:
    """The arm ``of`` under another name, with some settings changed."""
    return Arm(name, {key: {**of.changes.get(key, {}), **changes.get(key, {})} for key in {**of.changes, **changes}})


def jobs(task: str, base: str, names: Sequence[str], seeds: Sequence[int], steps: int, folder: Path) -> list[Job]:
    """One job an arm and seed."""
    arms = [arm(task, base, name) for name in names]
    return jobs_for(arms, seeds, base_of(task, base, steps), folder / f"{task}-{base}")


def on_validation(shared: Sections) -> Sections:
    """Config sections by which runs are judged on more validation tasks, and the test split is left alone."""
    own = {**shared["evaluation"], "test_tasks": 0, "test_guided": "no", "eval_tasks": 64}
    return {**shared, "evaluation": own}


def search(task: str, base: str, names: Sequence[str], steps: int, folder: Path) -> list[Job]:
    """One job an arm and learning rate of the grid, on the search's own seeds; the test split is left alone.

    An arm that is not searched itself stands for the sibling whose rate it takes. Runs are judged at their end only.
    """
    searched = dict.fromkeys(SIBLINGS.get(name, name) for name in names if name != "base")
    arms = [arm(task, base, name, rate) for name in searched for rate in SEARCH_GRID]
    shared = on_validation(base_of(task, base, steps))
    shared = {**shared, "run": {**shared["run"], "evaluate_every": steps}}
    return jobs_for(arms, SEARCH_SEEDS, shared, folder / f"search-{task}-{base}")
