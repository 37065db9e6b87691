"""The Path Exploration experiments: who is compared with whom, at equal candidates.

Every arm draws ``groups x group_size`` candidates a step for equally many steps. Learning rates were searched on seeds that
no experiment reports (``SEARCH_SEEDS``), on the same grid for every family of arms; ``LEARNING_RATES`` holds what was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sesa_lab.experiments.jobs import Job
from sesa_lab.experiments.matrix import Arm, jobs_for

SEARCH_SEEDS = (100, 101)
SEARCH_GRID = (1e-4, 3e-4, 1e-3, 3e-3)
BASE = {
    "run": {"steps": 100, "groups": 8, "evaluate_every": 10, "checkpoint_every": 50},
    "sampler": {"group_size": 16, "max_tokens": 8},
}

PLAIN = "parallel-count-none"
"""The arm that others are compared with, and whose policies collapse."""

LABELS = {
    PLAIN: "parallel",
    "parallel-zero-none": "parallel + novelty",
    "sequential-count-none": "sequential, paper's rule",
    "sequential-zero-asymmetric": "sequential + novelty, asymmetric",
    "mixed-zero-asymmetric": "mixed + novelty, asymmetric",
}
"""The headline arms, and what charts call them."""

BEST = "mixed-zero-asymmetric"
"""The rule that draws in sequence and did best on the search seeds: preset ``lab``."""

EXPONENTS = (1.5, 2.0, 3.0)
"""Zipf exponents of the base policies' priors; 1 is the default, in the other experiments."""

LEARNING_RATES: dict[str, float] = {}
"""By family, from ``sesa-lab experiment search``; see reports/LOG.md."""

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
        arms += [_arm("mixed", repeats, rule, {}) for rule in ("none", "asymmetric", "positive_only")]
    return arms


def _arm(kind: str, repeats: str, rule: str, extra: dict[str, Any], label: str = "") -> Arm:
    sampler: dict[str, str | float] = {"name": "sequential" if kind == "mixed" else kind}
    if kind == "mixed":
        sampler["on_policy_fraction"] = 0.5  # its i.i.d. half keeps its negative advantages under every rule
        extra = {**extra, "correction_scope": "off_policy"}
    name = f"{kind}-{repeats}-{label or rule}"
    rate = {"learning_rate": LEARNING_RATES[FAMILY.get(name, name)]} if LEARNING_RATES else {}
    update = {"repeats": repeats, **_RULES[rule], **rate, **extra}
    return Arm(name, {"sampler": sampler, "update": update})


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
    "mixed-zero-asymmetric",
    "mixed-zero-positive_only",
)


def named(*names: str) -> list[Arm]:
    """Arms of the factorial by name, in the order given."""
    arms = {arm.name: arm for arm in factorial()}
    return [arms[name] for name in names]


def headline() -> list[Arm]:
    """Plain and novelty-rewarded parallel, the paper's rule, and the rules that did best on the search seeds."""
    return named(*LABELS)


def revival(collapsed: Sequence[Job], steps: int, folder: Path) -> list[Job]:
    """Continue each collapsed run from its last checkpoint's adapter, once an arm; the treasures stay the same.

    The optimiser starts afresh in every arm alike.
    """
    jobs = []
    for job in collapsed:
        last = job.folder / "checkpoints" / f"step-{job.config.run.steps:06d}"
        base = job.config.changed(policy={"adapter": str(last.resolve())}, run={"steps": steps}).to_dict()
        jobs += jobs_for(headline(), [job.seed], base, folder)
    return jobs
