"""How far experiments are, read off their folders; nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from sesa_lab import runs
from sesa_lab.errors import InputError
from sesa_lab.experiments.jobs import Job, finished
from sesa_lab.reproduce import pages, results
from sesa_lab.reproduce.plan import Plan
from sesa_lab.reproduce.work import up_to_date

STATES = ("finished", "running", "half", "missing", "damaged")
"""Of a run: at its last step; a process is at it; begun; not there; its folder cannot be read, or holds another run."""


def status(plans: Sequence[Plan]) -> pd.DataFrame:
    """One row an experiment: its runs by state, and its report: ``up to date``, ``to be made anew`` or ``none``.

    ``failed`` counts, among those that are not finished, the runs that the last report found failed.
    """
    rows = []
    for plan in plans:
        found = [state(job) for job in plan.jobs]
        lost = _failed(plan)
        failed = sum(job.folder.name in lost and each != "finished" for job, each in zip(plan.jobs, found, strict=True))
        report = plan.folder / pages.REPORT
        said = "none" if not report.is_file() else "up to date" if up_to_date(plan) else "to be made anew"
        rows.append(
            {
                "experiment": plan.name,
                "runs": len(found),
                **{name: found.count(name) for name in STATES},
                "failed": failed,
                "report": said,
            }
        )
    return pd.DataFrame(rows)


def _failed(plan: Plan) -> set[str]:
    """Names of the run folders that the results which lie there call failed."""
    try:
        return {str(each["folder"]) for each in results.read(plan.folder / results.JSON)["failed"]}
    except InputError:
        return set()


def state(job: Job) -> str:
    """One of ``STATES``."""
    if not (job.folder / "config.json").is_file():
        return "running" if job.folder.is_dir() and runs.in_use(job.folder) else "missing"
    try:
        if finished(job):
            return "finished"
    except InputError:
        return "damaged"
    return "running" if runs.in_use(job.folder) else "half"
