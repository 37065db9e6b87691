"""The matrices behind the reports, by name: ``sesa-lab experiment NAME`` runs what is missing and prints the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sesa_lab.errors import InputError
from sesa_lab.experiments import path_exploration as arms
from sesa_lab.experiments.jobs import Job, execute
from sesa_lab.experiments.matrix import jobs_for, read
from sesa_lab.experiments.tables import picked, summary


@dataclass(frozen=True)
class Stage:
    """A matrix: the jobs that must run first (or none), and those it reports."""

    first: Callable[[Path, Sequence[int], int], list[Job]]
    jobs: Callable[[Path, Sequence[int], int], list[Job]]


def _base(steps: int, **options: Any) -> dict[str, dict[str, Any]]:
    return {**arms.BASE, "run": {**arms.BASE["run"], "steps": steps}, "environment": {"options": options}}


def _search(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    return jobs_for(arms.search(), arms.SEARCH_SEEDS, _base(steps), folder / "search")


def _factorial(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    return jobs_for(arms.factorial(), seeds, _base(steps), folder / "path")


def sharpness(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    """The headline arms on base policies of ever more peaked priors."""
    return [
        job
        for exponent in arms.EXPONENTS
        for job in jobs_for(
            arms.headline(), seeds, _base(steps, prior_exponent=exponent), folder / f"zipf-{exponent:g}"
        )
    ]


def rival(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    """The arms we beat, at every learning rate of the grid, on the seeds that are reported: their best chance.

    Novelty-rewarded parallel sampling on every prior, and the paper's rule on the default one.
    """
    paper = jobs_for(arms.search(["sequential-count-none"]), seeds, _base(steps), folder / "rival-1")
    return paper + [
        job
        for exponent in (1.0, *arms.EXPONENTS)
        for job in jobs_for(
            arms.search(["parallel-zero-none"]),
            seeds,
            _base(steps, prior_exponent=exponent),
            folder / f"rival-{exponent:g}",
        )
    ]


def headline(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    """The arms of the demo; their runs are shared with the factorial."""
    return jobs_for(arms.headline(), seeds, _base(steps), folder / "path")


def collapsed(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    """The plain parallel runs, whose last policies are revived."""
    return jobs_for(arms.named(arms.PLAIN), seeds, _base(steps), folder / "path")


def revived(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    """Every headline arm, from the identical last checkpoint of ``collapsed``."""
    return arms.revival(collapsed(folder, seeds, steps), steps, folder / "revival")


def execute_all(folder: Path, seeds: Sequence[int], steps: int, workers: int | None = None) -> None:
    """All runs of the two notebooks, what is missing of them."""
    execute(headline(folder, seeds, steps), workers, "training, 1 of 2")
    execute(revived(folder, seeds, steps), workers, "reviving, 2 of 2")


def notebook_jobs(matrix: str, folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    """The jobs of notebook 01's ``matrix``.

    Raises:
        InputError: neither ``headline`` nor ``factorial``.
    """
    if matrix not in ("headline", "factorial"):
        raise InputError(f"matrix = {matrix!r}: expected 'headline' (five arms) or 'factorial' (all arms)")
    return STAGES[matrix].jobs(folder, seeds, steps)


def _none(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    return []


STAGES = {
    "search": Stage(_none, _search),
    "factorial": Stage(_none, _factorial),
    "sharpness": Stage(_none, sharpness),
    "headline": Stage(_none, headline),
    "rival": Stage(_none, rival),
    "revival": Stage(collapsed, revived),
}


def run(name: str, folder: Path, seeds: Sequence[int], steps: int, workers: int | None = None) -> pd.DataFrame:
    """Run what is missing of a stage, print and return its table: mean and 95 % t interval over seeds, last step.

    Raises:
        InputError: unknown stage, bad seeds, or a run that failed.
    """
    if name not in STAGES:
        raise InputError(f"unknown stage {name!r}; known: {', '.join(STAGES)}")
    stage = STAGES[name]
    execute(stage.first(folder, seeds, steps), workers, f"{name}, first part")
    jobs = stage.jobs(folder, seeds, steps)
    execute(jobs, workers, name)
    evaluations, _ = read(jobs)
    last = evaluations[evaluations["step"] == steps]
    found = pd.concat({group: summary(part) for group, part in last.groupby("group", sort=False)})
    print(found.to_string())
    if name == "search":
        print("\npicked:", picked(last).round(3).to_string(), sep="\n")
    return found
