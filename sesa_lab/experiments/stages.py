"""The matrices behind the reports, by name: ``sesa-lab experiment NAME`` runs what is missing and prints the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sesa_lab import statistics
from sesa_lab.errors import InputError
from sesa_lab.experiments import path_exploration as arms
from sesa_lab.experiments.jobs import Job, execute
from sesa_lab.experiments.matrix import jobs_for, read

MEASURES = ("accuracy", "coverage", "entropy", "valid_mass", "tokens_total")


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
    return jobs_for(arms.factorial(), seeds, _base(steps), folder / "factorial")


def _sharpness(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    jobs = []
    for exponent in arms.EXPONENTS:
        named = [arms.renamed(arm, f"{arm.name}@{exponent:g}") for arm in arms.AXIS]
        jobs += jobs_for(named, seeds, _base(steps, prior_exponent=exponent), folder / "sharpness")
    return jobs


def headline(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    """The four arms of the demo: plain and novelty-rewarded parallel, the paper's rule, our best rule."""
    return jobs_for(arms.HEADLINE, seeds, _base(steps), folder / "headline")


def collapsed(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    """The plain parallel runs, whose last policies are revived."""
    return jobs_for([arms.PARALLEL], seeds, _base(steps), folder / "headline")


def revived(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    """Every headline arm, from the identical last checkpoint of ``collapsed``."""
    return arms.revival(collapsed(folder, seeds, steps), steps, folder / "revival")


def execute_all(folder: Path, seeds: Sequence[int], steps: int, workers: int | None = None) -> None:
    """All runs of the two notebooks, what is missing of them."""
    execute(headline(folder, seeds, steps), workers, "training, 1 of 2")
    execute(revived(folder, seeds, steps), workers, "reviving, 2 of 2")


def _none(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    return []


STAGES = {
    "search": Stage(_none, _search),
    "factorial": Stage(_none, _factorial),
    "sharpness": Stage(_none, _sharpness),
    "headline": Stage(_none, headline),
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
    found = summary(evaluations[evaluations["step"] == steps])
    print(found.to_string())
    return found


def summary(last: pd.DataFrame) -> pd.DataFrame:
    """Arms x measures, each 'mean [low, high] (n)' over seeds."""
    rows = {
        arm: {name: statistics.text(*statistics.mean_interval(part[name])) for name in MEASURES}
        for arm, part in last.groupby("arm", sort=False)
    }
    return pd.DataFrame.from_dict(rows, orient="index")
