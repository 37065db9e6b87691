"""The commands ``reproduce``, which brings experiments and their reports about, and ``status``, which says how far they are."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sesa_lab.config import numbers
from sesa_lab.errors import InputError, NotebookError, suggest

if TYPE_CHECKING:
    from sesa_lab.experiments.jobs import Failure, Job
    from sesa_lab.reproduce import Plan

REPRODUCE = (
    "Train what is missing of experiments, execute their notebooks, write reports, numbers and an index. Killed anywhere, the same"
    " command goes on."
)
STATUS = "How far experiments are: runs by state, and whether their reports are up to date. Changes nothing."


def add_reproduce(command: argparse.ArgumentParser) -> None:
    """The options of ``reproduce``."""
    _add_which(command)
    command.add_argument("--jobs", type=int, metavar="X", help="local: runs side by side (default: one a core)")
    command.add_argument(
        "--images",
        default="",
        metavar="KIND,KIND",
        help="write figures as png and svg too (default: none; needs chromium)",
    )
    command.add_argument(
        "--engine", choices=["local", "ray"], default="local", help="where runs are trained: here, or on a Ray cluster"
        " (default: local; extra: ray)",
    )  # fmt: skip
    command.add_argument(
        "--address", metavar="HOST:PORT", help="ray: of the cluster, or auto (default: a cluster of this machine alone)"
    )
    command.add_argument(
        "--storage",
        metavar="URL",
        help="ray: any fsspec URL that runs are kept at, where workers do not share this file system (default: none)",
    )
    command.add_argument("--cpus", type=float, metavar="X", help="ray: cores a run (default: 1)")
    command.add_argument("--gpus", type=float, metavar="X", help="ray: GPUs a run (default: 0)")
    command.add_argument("--retries", type=int, metavar="X", help="ray: of a run whose worker is lost (default: 3)")
    command.add_argument("--dry-run", action="store_true", help="print what would be done, do nothing")


def add_status(command: argparse.ArgumentParser) -> None:
    """The options of ``status``."""
    _add_which(command, "*")


def _add_which(command: argparse.ArgumentParser, many: str = "+") -> None:
    command.add_argument(
        "names", nargs=many, metavar="NAME", help="experiments, or files of yours (NAME.toml), or all"
        + (" (default: all)" if many == "*" else ""),
    )  # fmt: skip
    command.add_argument("--preset", default="lab", metavar="SIZE", help="smoke, lab or paper (default: lab)")
    command.add_argument("--seeds", metavar="A-B", help="seeds, e.g. 0-4 (default: the preset's)")
    command.add_argument("--runs", default="runs", metavar="DIR", help="where run folders are (default: runs)")
    command.add_argument(
        "--out", default="reports", metavar="DIR", help="where reports are, by preset and experiment (default: reports)"
    )


def run_reproduce(chosen: argparse.Namespace) -> None:
    """Bring about what is asked.

    Raises:
        InputError: bad input; or, when all else is done, runs that failed.
        NotebookError: likewise, reports that could not be made.
    """
    images = _images(chosen.images)
    if chosen.jobs is not None and chosen.jobs < 1:
        raise InputError(f"--jobs {chosen.jobs}: expected at least 1")
    trainer = _trainer(chosen)
    plans, unplanned = _plans(chosen)
    if chosen.dry_run:
        for plan in plans:
            _tell(plan)
        _tell_unplanned(unplanned)
        return
    from sesa_lab.reproduce import reproduce

    command = shlex.join(["sesa-lab", *sys.argv[1:]]) if sys.argv[1:] else "sesa-lab reproduce"
    outcome = reproduce(plans, chosen.jobs, images, command, trainer)
    outcome.broken |= unplanned
    for report in outcome.reports:
        name = report.parent.name
        print(
            f"{'up to date: ' if name in outcome.kept else 'wrote '}{report} ({report.stat().st_size / 2**20:.1f} MB)"
        )
    for folder in dict.fromkeys(plan.folder.parent for plan in plans):
        print(f"index: {folder / 'index.html'}")
    if outcome.failures or outcome.broken:
        for failure in outcome.failures:
            print(f"failed: {failure.job.folder}: {failure.reason}", file=sys.stderr)
        first = next(iter(outcome.broken.items()), ("", ""))
        total = len(plans) + len(unplanned)
        said = f"{len(outcome.failures)} runs failed, {len(outcome.broken)} of {total} reports are not whole"
        raise NotebookError(f"{said}; first, {first[0]}: {first[1]}" if first[0] else said)


def run_status(chosen: argparse.Namespace) -> None:
    """Print the table."""
    from sesa_lab.reproduce.status import status

    chosen.names = chosen.names or ["all"]
    plans, unplanned = _plans(chosen)
    print(status(plans).to_string(index=False))
    _tell_unplanned(unplanned)


def _plans(chosen: argparse.Namespace) -> tuple[list[Plan], dict[str, str]]:
    """What is asked; and of experiments that cannot be planned, such as by a data set out of reach, why: they stop no other.

    Raises:
        InputError: bad options; or, the first reason, where nothing can be planned.
    """
    from sesa_lab.reproduce import known, load, plan
    from sesa_lab.reproduce.declaration import PRESETS

    if chosen.preset not in PRESETS:
        raise InputError(f"--preset {chosen.preset!r}; {suggest(chosen.preset, PRESETS)}")
    names = [each for name in chosen.names for each in (known() if name == "all" else [name])]
    seeds = numbers(chosen.seeds) if chosen.seeds else None
    asked = list(dict.fromkeys(names))
    stems = [Path(name).stem for name in asked]
    for name, stem in zip(asked, stems, strict=True):
        if stems.count(stem) > 1:
            raise InputError(
                f"{name}: two experiments are called {stem!r}, and their reports would lie in one folder; rename one"
            )
    found = [load(name) for name in asked]
    plans, unplanned = [], {}
    for experiment in found:
        try:
            plans.append(plan(experiment, chosen.preset, Path(chosen.runs), Path(chosen.out), seeds))
        except InputError as error:
            if len(found) == 1:
                raise
            unplanned[experiment.name] = str(error)
    if not plans:
        raise InputError(next(iter(unplanned.values())))
    return plans, unplanned


def _images(text: str) -> list[str]:
    from sesa_lab.reproduce.pages import IMAGES

    kinds = [kind.strip() for kind in text.split(",") if kind.strip()]
    for kind in kinds:
        if kind not in IMAGES:
            raise InputError(f"--images {text!r}: {suggest(kind, IMAGES)}")
    return kinds


def _tell(plan: Plan) -> None:
    from sesa_lab.reproduce.status import state

    states = [state(job) for job in plan.jobs]
    counted = ", ".join(f"{states.count(name)} {name}" for name in dict.fromkeys(states)) or "none of its own"
    print(f"{plan.name} ({plan.preset}, seeds {', '.join(map(str, plan.seeds)) or '-'}): {len(states)} runs: {counted}")
    for notebook, parameters in plan.notebooks.items():
        print(f"  {notebook.name}: {dict(parameters)}")
    print(f"  -> {plan.folder}")


def _tell_unplanned(unplanned: Mapping[str, str]) -> None:
    for name, reason in unplanned.items():
        print(f"{name}: cannot be planned: {reason}")


def _trainer(chosen: argparse.Namespace) -> Any:
    """How runs are trained; None: here."""
    asked = {name: getattr(chosen, name) for name in ("address", "storage", "cpus", "gpus", "retries")}
    given = {name: value for name, value in asked.items() if value is not None}
    if chosen.engine == "local":
        for name, value in given.items():
            said = f"{value:g}" if isinstance(value, float) else value
            raise InputError(f"--{name} {said} has no effect with --engine local; add --engine ray")
        return None
    if chosen.jobs is not None:
        raise InputError(
            f"--jobs {chosen.jobs} has no effect with --engine ray; leave it out: as many runs go side by side as --cpus and"
            " --gpus leave room for"
        )
    from sesa_lab.experiments.ray_jobs import execute_on_ray

    def train(jobs: Sequence[Job], title: str) -> list[Failure]:
        return execute_on_ray(jobs, title=title, **given)

    return train
