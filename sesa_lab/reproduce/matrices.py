"""How an experiment's arms become jobs: waves of runs, each of which may need those before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sesa_lab.errors import InputError, short, suggest
from sesa_lab.experiments import agents, collapse_lab, own_data, stages
from sesa_lab.experiments.jobs import Job
from sesa_lab.experiments.matrix import Arm, jobs_for
from sesa_lab.reproduce.declaration import BEFORE, Experiment

Waves = list[list[Job]]
Options = Mapping[str, Any]

OF_AGENTS = ("task", "bases", "arms", "settings", *own_data.PARAMETERS)


def _path(experiment: Experiment, folder: Path, seeds: Sequence[int], options: Options) -> Waves:
    jobs = stages.notebook_jobs(options.get("matrix", "headline"), folder, seeds, options["steps"])
    if options.get("axis"):
        jobs += stages.sharpness(folder, seeds, options["steps"]) + stages.rival(folder, seeds, options["steps"])
    return [jobs]


def _revival(experiment: Experiment, folder: Path, seeds: Sequence[int], options: Options) -> Waves:
    return [stage(folder, seeds, options["steps"]) for stage in (stages.collapsed, stages.revived)]


def _agents(experiment: Experiment, folder: Path, seeds: Sequence[int], options: Options) -> Waves:
    task = options.get("task", "")
    if task not in agents.LIMITS:
        raise InputError(f"{experiment.path}: task = {task!r}; {suggest(task, list(agents.LIMITS))}")
    bases = options.get("bases", ["habit"])
    if len(set(bases)) != len(bases):
        raise InputError(f"{experiment.path}: bases = {short(bases)}, expected none twice")
    given = {name: options[name] for name in own_data.PARAMETERS if name in options}
    chosen = own_data.chosen(task, bases, options.get("settings", {}), **given)
    arms = options.get("arms", "headline")
    return [
        [
            job
            for base in chosen.bases
            for job in stages.agent_jobs(task, base, arms, seeds, options["steps"], folder / "agents", chosen.settings)
        ]
    ]


def _switching(experiment: Experiment, folder: Path, seeds: Sequence[int], options: Options) -> Waves:
    return [collapse_lab.switching(folder, seeds, options["steps"], ["switch"])]


def _arms(experiment: Experiment, folder: Path, seeds: Sequence[int], options: Options) -> Waves:
    if not experiment.arms:
        raise InputError(f"{experiment.path} has no [arms.NAME]: matrix 'arms' is made of them")
    if BEFORE in experiment.arms:
        raise InputError(
            f"{experiment.path}: arms.{BEFORE} has the name of what runs were before training; call it otherwise"
        )
    arms = [Arm(name, changes) for name, changes in experiment.arms.items()]
    settings = {**experiment.settings}
    settings["run"] = {**settings.get("run", {}), "steps": options["steps"]}
    for section, values in options.get("settings", {}).items():
        settings[section] = {**settings.get(section, {}), **values}
    return [jobs_for(arms, seeds, settings, folder / experiment.name)]


def _none(experiment: Experiment, folder: Path, seeds: Sequence[int], options: Options) -> Waves:
    return []


MATRICES: dict[str, tuple[Callable[[Experiment, Path, Sequence[int], Options], Waves], tuple[str, ...]]] = {
    "path": (_path, ("matrix", "axis")),
    "revival": (_revival, ()),
    "agents": (_agents, OF_AGENTS),
    "switching": (_switching, ()),
    "arms": (_arms, ("settings",)),
    "none": (_none, ()),
}
"""Name -> what makes its waves, and the options that it takes beside seeds and steps.

``path``: Path Exploration's arms; ``revival``: their dead policies, revived; ``agents``: a task of ``agents.LIMITS`` from its
base policies or a model of yours; ``switching``: settings changed at the alarm; ``arms``: those that the file declares; ``none``:
no runs, or such as a notebook trains by itself.
"""


def waves(experiment: Experiment, folder: Path, seeds: Sequence[int], options: Options) -> Waves:
    """The jobs of an experiment.

    Args:
        experiment: whose matrix it is.
        folder: where run folders are.
        seeds: of every arm.
        options: of the matrix, and of notebooks, which are left alone here.

    Raises:
        InputError: an unknown matrix, or options that it refuses.
    """
    if experiment.matrix not in MATRICES:
        raise InputError(
            f"{experiment.path}: unknown matrix {experiment.matrix!r}; {suggest(experiment.matrix, list(MATRICES))}"
        )
    make, _ = MATRICES[experiment.matrix]
    steps = options.get("steps", 0)
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 0:
        raise InputError(f"{experiment.path}: steps = {short(steps)}, expected a whole number of 0 or more")
    if experiment.matrix != "none" and not steps:
        raise InputError(f"{experiment.path}: no steps; every preset of a matrix says how many")
    return make(experiment, folder, seeds, options)
