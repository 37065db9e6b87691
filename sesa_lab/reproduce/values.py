"""What each run of an experiment reached: one tidy table, whatever the experiment is."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from sesa_lab import runs
from sesa_lab.errors import InputError
from sesa_lab.experiments.agent_tables import MEASURES, with_training
from sesa_lab.experiments.agents import LABELS as AGENTS
from sesa_lab.experiments.jobs import Job
from sesa_lab.experiments.matrix import digest
from sesa_lab.experiments.path_exploration import LABELS as PATH
from sesa_lab.reproduce.declaration import BEFORE

BY_TASK = "success_by_task"
"""The policy's probability of success on each validation task (in Path Exploration, its one task) after the last step."""
WORDS = {
    **MEASURES,
    "coverage": "distinct correct",
    "valid_mass": "readable answers",
    BY_TASK: "success, by validation task",
}
"""Measure -> its heading, the unit in brackets where it has one."""
UNITS = {"accuracy": "probability", "coverage": "strategies", "entropy": "nats", "valid_mass": "probability"}
"""Measure -> its unit; a pass@k is a share of tasks."""
COUNTED = ("tokens_total", "seconds_total", "tokens_trained")
"""Measures of cost: they are told, and not compared."""
_RUN = ["group", "arm", "seed"]
TIMED = ("seconds_total",)
"""Measures that differ from one execution of a run to the next."""


def label(arm: str) -> str:
    """What charts and tables call an arm."""
    return AGENTS.get(arm, PATH.get(arm, "base, not trained" if arm == BEFORE else arm))


def heading(measure: str, ks: Sequence[int] = ()) -> str:
    """What tables call a measure; ``ks``: of an expected coverage."""
    if measure == "coverage" and ks:
        return f"expected coverage@{ks[0]}"
    return WORDS.get(measure, measure.replace("_", " "))


def unit(measure: str) -> str:
    """What a measure is told in, for an axis."""
    return "share of tasks" if measure.startswith("pass_at") else UNITS.get(measure, "")


def values(jobs: Sequence[Job], loaded: Sequence[runs.Run], baseline: str, base: str) -> pd.DataFrame:
    """What each run reached after its last step: on test tasks without sketches where it was judged on such, else as evaluated.

    Args:
        jobs: finished ones.
        loaded: their runs, in the same order.
        baseline: arm whose state before the first step stands for the base policy, where no arm ``base`` does.
        base: the arm that is not trained; empty: none is.

    Returns:
        Columns group (the folder of a task and base policy), arm, seed, task (number; -1: a mean over tasks), measure, value.
    """
    parts = [pd.DataFrame(columns=[*_RUN, "task", "measure", "value"])] if not jobs else []
    for job, run in zip(jobs, loaded, strict=True):
        last = run.config.run.steps
        parts.append(_rows(job, job.arm, run, last))
        if not base and job.arm == baseline:
            parts.append(_rows(job, BEFORE, run, 0))
    return pd.concat(parts, ignore_index=True)


def _rows(job: Job, arm: str, run: runs.Run, step: int) -> pd.DataFrame:
    tests = run.tests
    if len(tests) and step == run.config.run.steps:
        row = with_training(tests[~tests["guided"].astype(bool)], job, run).iloc[-1]
    else:
        evaluated = run.evaluations[run.evaluations["step"] == step]
        if not len(evaluated):
            raise InputError(
                f"{job.folder} has no evaluation of step {step}, though it says it took it; remove the folder"
            )
        row = evaluated.iloc[-1]
    names = [name for name in WORDS if name in row.index and pd.notna(row[name])]
    found = pd.DataFrame({"task": -1, "measure": names, "value": [float(row[name]) for name in names]})
    answers = run.read_answers(["task", "probability", "success"], [step])
    if len(answers):
        mass = answers["probability"].where(answers["success"], 0.0)
        by_task = mass.groupby(answers["task"]).sum().rename("value").reset_index().assign(measure=BY_TASK)
        found = pd.concat([found, by_task], ignore_index=True)
    return found.assign(group=job.folder.parent.name, arm=arm, seed=job.seed)


def facts(jobs: Sequence[Job], loaded: Sequence[runs.Run], reached: pd.DataFrame) -> list[dict[str, object]]:
    """Of each run: folder, arm, seed, commit (``+``: the checkout had changes), a digest of its config, its machine.

    And what it ``reached``: measure -> value, so that a run that is gone can still be compared with any other.

    Args:
        jobs: finished ones.
        loaded: their runs, in the same order.
        reached: ``values`` of these.
    """
    means = reached[reached["task"] == -1]
    by_run = {key: dict(zip(part["measure"], part["value"], strict=True)) for key, part in means.groupby(_RUN)}
    return [
        {
            "folder": f"{job.folder.parent.name}/{job.folder.name}",
            "arm": job.arm,
            "seed": job.seed,
            "commit": run.commit,
            "config": digest(run.config),
            "steps": run.config.run.steps,
            "cpu": run.environment.get("cpu"),
            "gpu": run.environment.get("gpu"),
            "reached": by_run[job.folder.parent.name, job.arm, job.seed],
        }
        for job, run in zip(jobs, loaded, strict=True)
    ]


def ks_of(loaded: Sequence[runs.Run]) -> tuple[int, ...]:
    """The k of expected coverage, where answers can be enumerated; empty: coverage counts distinct strategies of samples."""
    found = {int(k) for run in loaded if run.exact for k in run.evaluations["coverage_k"].dropna().unique()}
    return tuple(sorted(found))
