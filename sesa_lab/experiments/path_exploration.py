"""The Path Exploration experiments: who is compared with whom, at equal candidates.

Every arm draws ``groups x group_size`` candidates a step for equally many steps. Learning rates were searched on seeds that
no experiment reports (``SEARCH_SEEDS``), on the same grid for every family of arms; ``LEARNING_RATES`` holds what was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sesa_lab.experiments.jobs import Job
from sesa_lab.experiments.matrix import Arm, jobs_for

PARALLEL = Arm("parallel", {"sampler": {"name": "parallel"}, "update": {"repeats": "count"}})
PARALLEL_NOVELTY = Arm("parallel-novelty", {"sampler": {"name": "parallel"}, "update": {"repeats": "zero"}})
SEQUENTIAL_PAPER = Arm("sequential-paper", {"sampler": {"name": "sequential"}, "update": {"repeats": "count"}})
SEQUENTIAL = Arm(
    "sequential", {"sampler": {"name": "sequential"}, "update": {"repeats": "zero", "correction": "asymmetric"}}
)  # fmt: skip

LABELS = {
    "parallel": "parallel",
    "parallel-novelty": "parallel + novelty",
    "sequential-paper": "sequential, paper's rule",
    "sequential": "sequential, asymmetric + novelty",
}
"""What charts call the headline arms."""

HEADLINE = (PARALLEL, PARALLEL_NOVELTY, SEQUENTIAL_PAPER, SEQUENTIAL)

SEARCH_SEEDS = (100, 101)
SEARCH_GRID = (1e-4, 3e-4, 1e-3)
BASE = {"run": {"steps": 150, "groups": 8, "evaluate_every": 10, "checkpoint_every": 50}, "sampler": {"group_size": 16, "max_tokens": 8}}

EXPONENTS = (1.0, 1.5, 2.0, 3.0)
AXIS = (PARALLEL, PARALLEL_NOVELTY, SEQUENTIAL)

_RULES: dict[str, dict[str, str]] = {
    "none": {},
    "truncated_is": {"correction": "truncated_is"},
    "positive_only": {"correction": "positive_only"},
    "asymmetric": {"correction": "asymmetric"},
    "ppo_clip": {"correction": "ppo_clip"},
    "history": {"conditioning": "history"},
    "history+positive_only": {"conditioning": "history", "correction": "positive_only"},
}


def factorial() -> list[Arm]:
    """{parallel, sequential, mixed} x {repeats count, zero} x every correction and conditioning that makes sense."""
    arms = []
    for repeats in ("count", "zero"):
        for rule in ("none", "positive_only"):
            arms.append(_arm("parallel", repeats, rule, {}))
        arms.append(_arm("parallel", repeats, "none", {"entropy_coef": 0.02}, "entropy"))
        arms += [_arm("sequential", repeats, rule, {}) for rule in _RULES]
        arms.append(_arm("mixed", repeats, "asymmetric", {}))
    return arms


def _arm(kind: str, repeats: str, rule: str, extra: dict[str, float], label: str = "") -> Arm:
    sampler: dict[str, str | float] = {"name": "sequential" if kind == "mixed" else kind}
    if kind == "mixed":
        sampler["on_policy_fraction"] = 0.5
    update = {"repeats": repeats, **_RULES[rule], **extra}
    return Arm(f"{kind}-{repeats}-{label or rule}", {"sampler": sampler, "update": update})


def renamed(arm: Arm, name: str) -> Arm:
    """The same arm under another name."""
    return Arm(name, arm.changes)


def search() -> list[Arm]:
    """One arm a family and learning rate of the grid."""
    families = [arm for arm in factorial() if arm.name in SEARCHED]
    return [
        Arm(f"{arm.name}@{rate:g}", {**arm.changes, "update": {**arm.changes["update"], "learning_rate": rate}})
        for arm in families
        for rate in SEARCH_GRID
    ]


SEARCHED = (
    "parallel-count-none",
    "parallel-zero-none",
    "sequential-count-none",
    "sequential-count-asymmetric",
    "sequential-zero-asymmetric",
    "sequential-zero-positive_only",
    "sequential-zero-history",
)


def revival(collapsed: Sequence[Job], steps: int, folder: Path, arms: Sequence[Arm] = HEADLINE) -> list[Job]:
    """Continue each collapsed run from its last checkpoint's adapter, once an arm; the treasures stay the same.

    The optimiser starts afresh in every arm alike.
    """
    jobs = []
    for job in collapsed:
        last = job.folder / "checkpoints" / f"step-{job.config.run.steps:06d}"
        base = job.config.changed(policy={"adapter": str(last)}, run={"steps": steps}).to_dict()
        jobs += jobs_for(arms, [job.seed], base, folder)
    return jobs
