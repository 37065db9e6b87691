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
SEARCH_GRID = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
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
    "sequential-zero-positive_only": "sequential + novelty, positive only",
}
"""The headline arms, and what charts call them."""

BEST = "sequential-zero-asymmetric"
"""The rule that draws in sequence and did best on the search seeds: preset ``lab``."""

EXPONENTS = (1.5, 2.0, 3.0)
"""Zipf exponents of the base policies' priors; 1 is the default, in the other experiments."""

LEARNING_RATES = {
    "parallel-count-none": 3e-4,
    "parallel-zero-none": 3e-3,
    "sequential-count-none": 1e-3,
    "sequential-count-asymmetric": 3e-4,
    "sequential-zero-asymmetric": 1e-3,
    "sequential-zero-positive_only": 1e-3,
    "sequential-zero-history": 3e-4,
    "mixed-zero-asymmetric": 3e-3,
    "mixed-zero-positive_only": 3e-3,
}
"""By family, as ``sesa-lab experiment search`` picked them; see reports/LOG.md."""

NEAREST = {
    "parallel": "parallel-{repeats}-none",
    "sequential-none": "sequential-count-none",
    "sequential-ppo_clip": "sequential-count-none",
    "sequential-truncated_is": "sequential-{repeats}-asymmetric",
    "sequential-positive_only": "sequential-zero-positive_only",
    "sequential-history": "sequential-zero-history",
    "sequential-history+positive_only": "sequential-zero-history",
    "mixed-none": "mixed-zero-asymmetric",
    "mixed-asymmetric": "mixed-zero-asymmetric",
    "mixed-positive_only": "mixed-zero-positive_only",
}
"""Sampler, or sampler and rule -> the searched family whose learning rate an arm takes that was not searched itself."""

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
    family = name if name in LEARNING_RATES else NEAREST[kind if kind == "parallel" else f"{kind}-{rule}"]
    rate = LEARNING_RATES[family.format(repeats=repeats)]
    update = {"repeats": repeats, "learning_rate": rate, **_RULES[rule], **extra}
    return Arm(name, {"sampler": sampler, "update": update})


def search(families: Sequence[str] = tuple(LEARNING_RATES)) -> list[Arm]:
    """One arm a family and learning rate of the grid."""
    return [
        Arm(f"{arm.name}@{rate:g}", {**arm.changes, "update": {**arm.changes["update"], "learning_rate": rate}})
        for arm in named(*families)
        for rate in SEARCH_GRID
    ]


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
