"""What an experiment at one size comes to: runs, notebooks with their parameters, and where its report lies."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sesa_lab.comparisons import in_words
from sesa_lab.config import numbers
from sesa_lab.errors import InputError, short, suggest
from sesa_lab.experiments.jobs import Job
from sesa_lab.reports.parameters import check
from sesa_lab.reports.run_notebooks import defaults
from sesa_lab.reproduce.declaration import Experiment
from sesa_lab.reproduce.matrices import MATRICES, Waves, waves
from sesa_lab.reproduce.values import WORDS

SHARED = ("seeds", "steps")


@dataclass(frozen=True)
class Plan:
    """One experiment at one size.

    Attributes:
        experiment: as declared.
        preset: the size.
        seeds: of its runs.
        options: of the matrix and the notebooks.
        waves: runs; those of a wave may begin when the waves before it are done.
        notebooks: path -> parameters.
        folder: of the report: ``report.html``, ``results.json``, ``results.csv``, ``results.tex``, ``executed/``, ``figures/``.
        runs: where run folders are.
    """

    experiment: Experiment
    preset: str
    seeds: tuple[int, ...]
    options: Mapping[str, Any]
    waves: Waves
    notebooks: Mapping[Path, Mapping[str, Any]]
    folder: Path
    runs: Path

    @property
    def jobs(self) -> list[Job]:
        """All runs."""
        return [job for wave in self.waves for job in wave]

    @property
    def name(self) -> str:
        """Of the experiment."""
        return self.experiment.name


def plan(
    experiment: Experiment,
    preset: str,
    runs: Path,
    reports: Path,
    seeds: Sequence[int] | None = None,
) -> Plan:
    """Work out what there is to do; everything a file can get wrong is told here, before anything runs.

    Args:
        experiment: what is asked.
        preset: one of its sizes.
        runs: where run folders are.
        reports: where reports are; this one's lies in ``reports / preset / name``, that of given seeds in ``reports /
            preset-seeds-0-4 / name``: a look at one seed takes no other report's place.
        seeds: in the place of the preset's.

    Raises:
        InputError: a preset or seeds that it does not have, options that neither the matrix nor a notebook takes, measures
            that are none, or runs that could not be compared with the base policy.
    """
    options = experiment.at(preset)
    own = _seeds(experiment, options.pop("seeds", None))
    chosen = tuple(own if seeds is None else seeds)
    if experiment.matrix != "none" and not chosen:
        raise InputError(f'{experiment.path}: preset {preset} has no seeds, expected e.g. seeds = "0-4"')
    made = waves(experiment, runs, chosen, options)
    arms = dict.fromkeys(job.arm for wave in made for job in wave)
    for role, arm in (("baseline", experiment.baseline), ("base", experiment.base)):
        if arm and arms and arm not in arms:
            raise InputError(f"{experiment.path}: {role} = {arm!r} is no arm of its runs; {suggest(arm, list(arms))}")
    known = {path: defaults(path) for path in experiment.notebooks}
    taken = {*SHARED, *MATRICES[experiment.matrix][1], *(name for names in known.values() for name in names)}
    for name in options:
        if name not in taken:
            raise InputError(
                f"{experiment.path}: neither its matrix nor its notebooks take {name!r}; {suggest(name, list(taken))}"
            )
    for measure in experiment.measures:
        if measure not in WORDS:
            raise InputError(f"{experiment.path}: measures has {measure!r}; {suggest(measure, list(WORDS))}")
    if experiment.baseline and not experiment.base:
        _check_before(experiment, made)
    size = preset if seeds is None else f"{preset}-seeds-{in_words(chosen).replace(' ', '')}"
    folder = reports / size / experiment.name
    given = {
        path: _parameters(experiment, path, names, chosen, {**options, "preset": preset}, runs, folder)
        for path, names in known.items()
    }
    return Plan(experiment, preset, chosen, options, made, given, folder, runs)


def _parameters(
    experiment: Experiment,
    notebook: Path,
    known: Mapping[str, Any],
    seeds: Sequence[int],
    options: Mapping[str, Any],
    runs: Path,
    folder: Path,
) -> dict[str, Any]:
    """Of the options those that a notebook takes; folders relative to it, so that an executed one can be moved with them."""
    here = runs / "agents" if experiment.matrix == "agents" else runs
    offered: dict[str, Any] = {**options, "runs": os.path.relpath(here, notebook.parent)}
    offered["experiment"] = os.path.relpath(experiment.path, notebook.parent)
    offered["reports"] = os.path.relpath(folder.parent, notebook.parent)
    if seeds:
        offered |= {"seeds": list(seeds), "seed": seeds[0]}
    given = {name: value for name, value in offered.items() if name in known}
    check(given, known, f"{experiment.path.name}, {notebook.name}")
    return given


def _check_before(experiment: Experiment, made: Waves) -> None:
    """What the baseline's runs were before training stands for the base policy: on the tasks that trained arms are judged on."""
    for job in (job for wave in made for job in wave):
        if job.arm == experiment.baseline and job.config.evaluation.test_tasks:
            raise InputError(
                f"{experiment.path}: runs are judged on test tasks (evaluation.test_tasks is not 0), which the base policy is not;"
                ' add an arm of no steps, [arms.base.run] steps = 0, and name it: base = "base"'
            )


def _seeds(experiment: Experiment, given: Any) -> list[int]:
    if given is None:
        return []
    if not isinstance(given, str):
        raise InputError(f'{experiment.path}: seeds = {short(given)}, expected text such as "0-4" or "1,3"')
    return numbers(given)
