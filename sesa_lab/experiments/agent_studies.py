"""The agents' smaller studies, most of them on Sokoban: a question, and the runs that answer it.

``agent_study_tables`` shows them.
All runs are under ``runs/agents``, a folder for each policy they start from. Those that the stages ``agents-TASK`` have too
are the same runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sesa_lab.experiments import agents
from sesa_lab.experiments.jobs import Job
from sesa_lab.experiments.matrix import Arm, Sections, jobs_for

TASK = "sokoban"

SEEDS = (1, 2, 3)
"""The first three of those of the main matrix."""

# --- rivals: do sketches win by a learning rate? ---------------------------------------------------------------------

RIVALS = ("parallel", "parallel-novelty", "parallel-positive")
"""The arms without sketches."""

RATED = ("parallel-novelty", "parallel-positive")
"""Those of them that are run at every rate. Plain parallel sampling is not: in the search none took it off its habit."""

OURS = ("mixed-unsolved", "mixed-unsolved-novelty")
"""What they are compared with: at the searched rates, and at every rate on the task where these do not reach the aim."""

OURS_RATED = "frozen_lake"
"""That task."""


def rivals(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    """The arms without sketches at every learning rate of the grid, on the habit bases and the seeds that are reported.

    So they do not lose by the rule that searched their rate: whoever picks the best of them picks by what is reported.
    """
    found = []
    for task in agents.TASKS:
        arms = [agents.arm(task, "habit", "base")]
        for name in (*OURS, *RIVALS):
            arms.append(agents.arm(task, "habit", name))
            if name in RATED or (name in OURS and task == OURS_RATED):
                rates = [rate for rate in agents.SEARCH_GRID if rate != agents.rate_of(task, "habit", name)]
                arms += [agents.arm(task, "habit", name, rate) for rate in rates]
        shared = agents.base_of(task, "habit", steps)
        found += jobs_for(arms, seeds, shared, folder / "agents" / f"{task}-habit")
    return found


# --- revival: can a collapsed policy be brought back to life? -------------------------------------------------------

REVIVERS = ("parallel", "parallel-novelty", "mixed-unsolved-novelty")
"""How the collapsed policy is trained on; the first one is what it collapsed under. The paper's rule is the fourth."""

REVIVAL_RATE = 1e-3
"""Learning rate of the collapse and of these futures: the top of the searched grid, at which plain parallel collapses soonest.
The paper's rule has its own, smaller rate: larger ones cost it more in the search."""


def collapsed(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    """Plain parallel runs from the ordinary base: pass@1 rises while distinct correct strategies fall."""
    shared = agents.base_of(TASK, "ordinary", steps)
    return jobs_for(_revivers("parallel"), seeds, shared, folder / "agents" / f"{TASK}-ordinary-collapse")


def revived(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    """As many steps more, from the identical last checkpoint of ``collapsed``; the optimiser starts afresh in every arm alike.

    Tasks of training are those that the collapsed run has seen; those of validation and test are its own too.
    """
    arms = [*_revivers(*REVIVERS), _paper()]
    found = []
    for job in collapsed(folder, seeds, steps):
        last = job.folder / "checkpoints" / f"step-{steps:06d}"
        shared = agents.base_of(TASK, "ordinary", steps)
        shared["policy"]["adapter"] = str(last.resolve())
        found += jobs_for(arms, [job.seed], shared, folder / "agents" / f"{TASK}-ordinary-revival")
    return found


def _revivers(*names: str) -> list[Arm]:
    return [Arm(name, agents.arm(TASK, "ordinary", name, REVIVAL_RATE).changes) for name in names]


def _paper() -> Arm:
    """The paper's rule at the learning rate that was searched for it."""
    rate = agents.rate_of(TASK, "ordinary", "sesa-paper")
    return agents.arm(TASK, "ordinary", "sesa-paper", rate)


# --- drafting: does it matter that sketches are drawn in sequence? --------------------------------------------------

PEAKED = "peaked"
"""A policy whose sketches are drawn from few: i.i.d. ones repeat each other, those in sequence need not."""

HALF, HALF_IID = "half-unsolved", "half-unsolved-iid"
"""``mixed-unsolved`` and its i.i.d. sibling with 8 sketches a group rather than 4."""


def drafting(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    """Sketches in sequence against i.i.d. ones, 8 a group."""
    half: Sections = {"sampler": {"on_policy_fraction": 0.5}}
    arms = [agents.arm(TASK, PEAKED, "base")]
    for name, of in ((HALF, "mixed-unsolved"), (HALF_IID, "mixed-unsolved-iid")):
        arms.append(agents.variant(agents.arm(TASK, PEAKED, of), name, half))
    return jobs_for(arms, seeds, agents.base_of(TASK, PEAKED, steps), folder / "agents" / f"{TASK}-{PEAKED}")


# --- habit: how strong must one be? ---------------------------------------------------------------------------------

HABITS = ("ordinary", "habit-15", "habit", "strict")
"""Policies by the strength of their habit: the ordinary one, the same after 15 and after 150 steps of training on habitual
answers, and one that never saw another direct answer."""

HABIT_ARMS = ("base", "parallel", "parallel-novelty", "mixed-unsolved", "mixed-unsolved-novelty")


def habit(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    """The same arms from policies of ever stronger habits."""
    return [job for base in HABITS for job in agents.jobs(TASK, base, HABIT_ARMS, seeds, steps, folder / "agents")]


# --- options: what does each setting of the best rule do? -----------------------------------------------------------

REFERENCE = "mixed-unsolved"
"""The arm whose settings are changed one at a time."""

OPTIONS: dict[str, Sections] = {
    "on_policy_fraction-0.5": {"sampler": {"on_policy_fraction": 0.5}},
    "on_policy_fraction-0.875": {"sampler": {"on_policy_fraction": 0.875}},
    "expansions-2": {"sampler": {"expansions": 2}},
    "drafting_form-prompt": {"sampler": {"drafting_form": "prompt"}},
    "redraws-2": {"sampler": {"redraws": 2}},
    "repeated_sketch-drop": {"sampler": {"repeated_sketch": "drop"}},
    "sketch_tokens-3": {"sampler": {"sketch_tokens": 3}},
    "transfer-always": {"update": {"transfer": "always"}},
    "conditioning-task": {"update": {"conditioning": "task", "transfer": "always"}},
    "conditioning-sketch": {
        "update": {"conditioning": "sketch", "transfer": "always", "correction": "none", "correction_scope": "all"}
    },
    "correction-none": {"update": {"correction": "none", "correction_scope": "all"}},
    "correction-truncated_is": {"update": {"correction": "truncated_is", "correction_scope": "all"}},
    "correction-asymmetric": {"update": {"correction": "asymmetric", "correction_scope": "all"}},
    "correction-ppo_clip": {"update": {"correction": "ppo_clip", "correction_scope": "all"}},
    "train_sketches-best": {"update": {"train_sketches": "best"}},
    "train_sketches-mean": {"update": {"train_sketches": "mean"}},
    "train_sketches-novelty": {"update": {"train_sketches": "novelty"}},
    "context_weight-0.5": {"update": {"context_weight": 0.5}},
    "loss-grpo": {"update": {"loss": "grpo"}},
    "loss-dr_grpo": {"update": {"loss": "dr_grpo"}},
    "minibatches-1": {"update": {"minibatches": 1}},
}
"""Name -> what differs from ``REFERENCE``: one setting, and what makes no sense beside it."""


def options(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    """``REFERENCE`` and every option on the habit base, at the reference's learning rate, judged on validation tasks alone."""
    own = agents.arm(TASK, "habit", REFERENCE)
    arms: list[Arm] = [own, *(agents.variant(own, name, changes) for name, changes in OPTIONS.items())]
    shared = agents.on_validation(agents.base_of(TASK, "habit", steps))
    return jobs_for(arms, seeds, shared, folder / "agents" / f"{TASK}-habit-options")
