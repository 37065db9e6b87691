"""What a Ray task of ``ray_jobs`` does on its worker: check the code, fetch what the run begins at, train, store."""

from __future__ import annotations

import contextlib
import json
import tempfile
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import sesa_lab
from sesa_lab import runs
from sesa_lab.config import Config
from sesa_lab.errors import InputError, first_line
from sesa_lab.experiments.jobs import Job, finished, go_on
from sesa_lab.experiments.stored_owner import owned
from sesa_lab.experiments.stored_runs import Busy, Place, Source, committed
from sesa_lab.runs import environment, layout
from sesa_lab.runs.lineage import Lineage

BUSY = "busy"
"""In place of a reason: the run is left to another process, which is at it."""


@dataclass(frozen=True)
class Shipped:
    """What goes to a worker, in plain values.

    Attributes:
        number: of the job, in what the worker reports.
        arm, seed, config: the job's.
        folder: its run folder on this machine, absolute.
        directory: this machine's working directory, which relative paths in the config start from.
        place: the run's URL in the storage; None: the folder itself is written.
        origin: the job's lineage.
        origin_place: URL of that checkpoint in the storage.
        adapter_place: URL of the folder ``policy.adapter`` in the storage.
        prompts: file name -> text of what is in the folder ``policy.prompts``.
        local_model: whether ``policy.model`` is a folder on this machine.
        invocation: whose job it is: a worker of the same one that was at it was lost.
        stale: another invocation's ``OWNER.json`` that is to be passed over (``stored_owner.owned``).
    """

    number: int
    arm: str
    seed: int
    config: dict[str, Any]
    folder: str
    directory: str
    place: str | None = None
    origin: dict[str, Any] | None = None
    origin_place: str | None = None
    adapter_place: str | None = None
    prompts: dict[str, str] | None = None
    local_model: bool = False
    invocation: str = field(default_factory=lambda: uuid.uuid4().hex)
    stale: str | None = None


def code() -> dict[str, str]:
    """Version of the package, and commit of its checkout where it is one."""
    return {"version": sesa_lab.__version__, "commit": (environment.git(environment.PROJECT) or {}).get("commit", "")}


def _differs(theirs: Mapping[str, str]) -> str | None:
    """In words, how the code of this process differs from that of the driver; None: not that one could tell."""
    own = code()
    for what in ("version", "commit"):
        if own[what] != theirs[what] and (what == "version" or (own[what] and theirs[what])):
            return f"a worker has sesa_lab of {what} {own[what]}, this machine {theirs[what]}: install the same on the cluster"
    return None


def work(theirs: dict[str, str], shipped: dict[str, Any], news: Any) -> tuple[str | None, str]:
    """In a task: train or resume; returns the reason of a failure, or ``BUSY``, and the traceback where it is a bug."""
    differs = _differs(theirs)  # before anything is made of what came
    if differs is not None:
        return differs, ""
    task = Shipped(**shipped)

    def tell(step: int) -> None:
        with contextlib.suppress(Exception):  # the queue is for a bar alone; it is gone where the driver is
            news.put_nowait((task.number, step))

    directory = Path(task.directory)
    try:
        with contextlib.chdir(directory) if directory.is_dir() else contextlib.nullcontext():
            _check_model(task)
            if task.place is None:
                _train_here(task, tell)
            else:
                _train_apart(task, task.place, tell)
    except Busy:
        return BUSY, ""
    except InputError as error:
        return str(error), ""
    except Exception as error:
        said = f"{type(error).__name__}: {first_line(error)} (a bug; its traceback is in the run's log)"
        return said, traceback.format_exc()
    return None, ""


def _check_model(task: Shipped) -> None:
    model = task.config["policy"]["model"]
    if task.local_model and not Path(model).is_dir():
        raise InputError(
            f"policy.model = {model!r} is a folder on the machine that sent the job, and this worker has none there: put it"
            " where all machines see it, or name a model of the Hub"
        )


def _job(task: Shipped, folder: Path) -> Job:
    origin = None
    if task.origin is not None:
        origin = Lineage(**{**task.origin, "before": tuple(task.origin["before"])})
    return Job(task.arm, task.seed, Config.from_dict(task.config), folder, origin)


def _train_here(task: Shipped, tell: Callable[[int], None]) -> None:
    """In the run folder itself, on a file system that all machines share."""
    job = _job(task, Path(task.folder))
    import_module("sesa_lab.training.loop")  # takes long: before the look at what others have done
    begun = (job.folder / layout.CONFIG).is_file()
    try:
        if not finished(job):
            go_on(job, lambda step, metrics: tell(step))
    except InputError as error:
        # In use: or its lock outlives a killed worker a little. Begun by now: by another process, or it will fail once more.
        if runs.in_use(job.folder) or (not begun and (job.folder / layout.CONFIG).is_file()):
            raise Busy(job.folder) from error
        raise


def _train_apart(task: Shipped, url: str, tell: Callable[[int], None]) -> None:
    """In a folder of this worker's own, copied to the storage after every checkpoint."""
    place = Place(url)
    with owned(place, task.invocation, task.stale) as check, tempfile.TemporaryDirectory(prefix="sesa-lab-") as scratch:
        job = _job(task, Path(scratch) / Path(task.folder).name)
        kept = place.fetch(job.folder)
        stored = -1 if kept is None or kept.step is None else kept.step
        if kept is not None and finished_there(job, url):
            return
        local = _with_origins(task, job, Path(scratch)) if kept is None else job

        def keep(last: bool = False) -> None:
            nonlocal stored
            at = layout.checkpoints(job.folder)
            if at and (last or at[-1][0] > stored):
                found = committed(job.folder)
                assert found is not None
                place.keep(found[1] | _said(job, found[1]), found[0], last=last)
                stored = found[0]

        def progress(step: int, metrics: dict[str, Any]) -> None:
            check()
            keep()
            tell(step)

        try:
            go_on(local, progress)
        except Busy:
            raise
        except InputError as error:
            raise InputError(str(error).replace(str(job.folder), url)) from error
        keep(last=True)


def finished_there(job: Job, url: str) -> bool:
    """``finished``, of a job whose folder is a copy of what is at ``url``: an error names that."""
    try:
        return finished(job)
    except InputError as error:
        raise InputError(str(error).replace(str(job.folder), url)) from error


def _said(job: Job, files: Mapping[str, Source]) -> dict[str, Source]:
    """Of the files that say where the run began: as they are where it was sent from, not with this worker's paths."""
    said: dict[str, Any] = {layout.CONFIG: job.config.to_dict()}
    if job.origin is not None and layout.LINEAGE in files:
        said[layout.LINEAGE] = job.origin.to_dict()
    return {name: (json.dumps(data, indent=2, allow_nan=False) + "\n").encode() for name, data in said.items()}


def _with_origins(task: Shipped, job: Job, scratch: Path) -> Job:
    """The job with what it begins at, fetched from the storage or out of what came with it, in this worker's folder."""
    policy: dict[str, Any] = {}
    if task.adapter_place is not None:
        adapter = scratch / "adapter" / Path(job.config.policy.adapter).name
        _fetch_origin(task.adapter_place, adapter)
        policy["adapter"] = str(adapter)
    if task.prompts is not None:
        policy["prompts"] = str(scratch / "prompts")
        for name, text in task.prompts.items():
            file = scratch / "prompts" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text + "\n", encoding="utf-8")
    origin = job.origin
    if origin is not None and task.origin_place is not None:
        _fetch_origin(task.origin_place, scratch / "origin")
        origin = replace(origin, run=str(scratch / "origin"))
    config = job.config.changed(policy=policy) if policy else job.config
    return replace(job, config=config, origin=origin)


def _fetch_origin(url: str, folder: Path) -> None:
    folder.parent.mkdir(exist_ok=True)
    if Place(url).fetch(folder) is None:
        raise InputError(f"what the run begins at is not in the storage any more: {url}; send the job again")
