"""Bring experiments about: runs that are missing, then notebooks, then reports; killed anywhere, the same call goes on."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sesa_lab.errors import InputError, NotebookError, first_line, writing
from sesa_lab.experiments.jobs import Failure, Job, attempt
from sesa_lab.reports.run_notebooks import execute
from sesa_lab.reproduce import pages, results
from sesa_lab.reproduce.declaration import DECLARED
from sesa_lab.reproduce.plan import Plan

Trainer = Callable[[Sequence[Job], str], list[Failure]]
"""Brings jobs to their last step: (jobs, title of the progress bar) -> those that failed."""
STAMP, LOCK = ".stamp.json", ".lock"
_REMEDY = "name another folder by --out, or mend its permissions or space"


@dataclass
class Outcome:
    """What came of a call.

    Attributes:
        reports: written, or found up to date.
        failures: runs that did not finish.
        broken: name of an experiment -> why its report could not be made; one line.
        kept: names of reports that were up to date.
    """

    reports: list[Path] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)


def reproduce(
    plans: Sequence[Plan],
    workers: int | None = None,
    images: Sequence[str] = (),
    command: str = "",
    train: Trainer | None = None,
) -> Outcome:
    """Train what is missing, execute the notebooks, write reports; what is there and up to date is left alone.

    A run that fails costs those that begin at it, and no other; an experiment with failed runs has its numbers written, and a
    report of as many notebooks as can be executed without them. Two calls at once share the work: a run, and a report, is made
    by one of them.

    Args:
        plans: in the order of their reports. Runs that several share are had once.
        workers: processes side by side; None: one a core.
        images: kinds of ``pages.IMAGES`` that figures are also written as.
        command: as given, for the reports.
        train: how jobs are brought about; None: here, ``workers`` at a time.

    Raises:
        InputError: where nothing can be written.
    """
    bring = train or (lambda jobs, title: attempt(jobs, workers, title))
    for plan in plans:  # told before anything is trained
        with writing(plan.folder, _REMEDY):
            plan.folder.mkdir(parents=True, exist_ok=True)
            (plan.folder / LOCK).touch()
    outcome = Outcome(failures=_train(plans, bring))
    for plan in plans:
        with _alone(plan.folder):
            try:
                _report(plan, outcome, images, command)
            except (InputError, NotebookError) as error:
                outcome.broken[plan.name] = str(error)
            except Exception as error:  # a bug in one report costs no other
                traceback.print_exc()
                outcome.broken[plan.name] = f"{type(error).__name__}: {first_line(error)} (a bug; traceback above)"
    for folder in dict.fromkeys(plan.folder.parent for plan in plans):
        with _alone(folder):
            pages.index(folder)
    return outcome


def _train(plans: Sequence[Plan], bring: Trainer) -> list[Failure]:
    """All runs of all plans, wave by wave."""
    failures: list[Failure] = []
    seen: set[Path] = set()
    waves = max((len(plan.waves) for plan in plans), default=0)
    for number in range(waves):
        lost = {failure.job.folder.resolve() for failure in failures}
        jobs = []
        for job in (job for plan in plans if number < len(plan.waves) for job in plan.waves[number]):
            if job.folder.resolve() in seen:
                continue
            seen.add(job.folder.resolve())
            needed = _needed(job)
            if needed is not None and needed.resolve() in lost:
                failures.append(Failure(job, f"it begins at {needed}, which failed"))
            else:
                jobs.append(job)
        if jobs:
            failures += bring(jobs, f"training {number + 1} of {waves}" if waves > 1 else "training")
    return failures


def _needed(job: Job) -> Path | None:
    """The run folder that a job begins at."""
    adapter = Path(job.config.policy.adapter) if job.config.policy.adapter else None
    return adapter.parents[1] if adapter is not None and adapter.parent.name == "checkpoints" else None


def _report(plan: Plan, outcome: Outcome, images: Sequence[str], command: str) -> None:
    own = {job.folder for job in plan.jobs}
    failed = [failure for failure in outcome.failures if failure.job.folder in own]
    stamp = _stamp(plan, failed)
    if _fresh(plan, stamp):
        drawn = pages.figures(_executed(plan), plan.folder / pages.FIGURES, _undrawn(plan, images))
        if not drawn:
            outcome.kept.append(plan.name)
        outcome.reports.append(plan.folder / pages.REPORT)
        return
    with contextlib.suppress(FileNotFoundError):
        (plan.folder / STAMP).unlink()
    found = results.work_out(plan, failed, command)
    if failed:
        results.write(found, plan)
        raise InputError(
            f"{len(failed)} of {len(own)} runs failed, first {failed[0].job.folder}: {failed[0].reason}; the numbers of the"
            f" others are in {plan.folder / results.JSON}. Mend the cause and give the same command again"
        )
    executed = _execute(plan)
    report = pages.report(plan, executed, found)
    results.write(found, plan)
    with writing(plan.folder, results.REMEDY), contextlib.suppress(FileNotFoundError):
        shutil.rmtree(plan.folder / pages.FIGURES)  # of another report
    results.put(plan.folder / STAMP, json.dumps(stamp).encode())
    pages.figures(executed, plan.folder / pages.FIGURES, images)
    outcome.reports.append(report)


def _execute(plan: Plan) -> list[Path]:
    """The notebooks with their parameters; those that lie there from before are replaced by whole ones only."""
    folder = plan.folder / pages.EXECUTED
    fresh = folder.with_name(f".tmp-{folder.name}")
    executed = []
    with writing(folder, results.REMEDY):
        folder.mkdir(exist_ok=True)
        if fresh.is_dir():  # a failed notebook was left here to be read
            shutil.rmtree(fresh)
        for number, (notebook, parameters) in enumerate(plan.notebooks.items(), start=1):
            print(f"{plan.name}: notebook {number} of {len(plan.notebooks)}", file=sys.stderr, flush=True)
            made = execute(notebook, fresh / notebook.name, parameters)
            executed.append(made.replace(folder / notebook.name))
        fresh.rmdir()
    return executed


def _executed(plan: Plan) -> list[Path]:
    """The notebooks of the report that is there."""
    return [plan.folder / pages.EXECUTED / notebook.name for notebook in plan.notebooks]


def _undrawn(plan: Plan, images: Sequence[str]) -> list[str]:
    """Kinds of images that the report that is there does not have yet."""
    return [kind for kind in images if not any((plan.folder / pages.FIGURES).glob(f"*.{kind}"))]


def _fresh(plan: Plan, stamp: dict[str, Any]) -> bool:
    """Whether a whole report of just these runs, notebooks, parameters and code is there."""
    try:
        return bool(json.loads((plan.folder / STAMP).read_text()) == stamp) and (plan.folder / pages.REPORT).is_file()
    except (OSError, ValueError):
        return False


def up_to_date(plan: Plan) -> bool:
    """Whether the report that lies there is of the runs, notebooks, parameters and code as they are."""
    return _fresh(plan, _stamp(plan, []))


def _stamp(plan: Plan, failed: Sequence[Failure]) -> dict[str, Any]:
    """What a report is made from."""
    lost = {failure.job.folder for failure in failed}
    made = hashlib.sha256()
    for job in plan.jobs:
        metrics = job.folder / "metrics.jsonl"
        made.update(f"{job.folder.name} {job.folder in lost}".encode())
        made.update(metrics.read_bytes() if metrics.is_file() else b"")
    books = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in plan.notebooks}
    parameters = {path.name: dict(values) for path, values in plan.notebooks.items()}
    if any("reports" in values for values in parameters.values()):  # a notebook that reads other reports' numbers
        for path in sorted(plan.folder.parent.glob(f"*/{results.JSON}")):
            made.update(path.read_bytes() if path.parent != plan.folder else b"")
    said = plan.experiment.path.read_text(encoding="utf-8")
    stamp = {
        "runs": made.hexdigest(), "notebooks": books, "parameters": parameters, "declared": said, "code": _code(),
    }  # fmt: skip
    return dict(json.loads(json.dumps(stamp)))


def _code() -> str:
    """A digest of the package's own files: sources, claims, templates, styles; each experiment's file counts for itself."""
    package, found = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and path.parent != DECLARED:
            found.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return found.hexdigest()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder of reports; where another call has it, waits and says so."""
    with writing(folder, _REMEDY), open(folder / LOCK, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another call is making {folder}; waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
