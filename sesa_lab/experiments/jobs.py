"""Run what is missing: each job in a process of its own, several side by side, with progress and remaining time."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sesa_lab import runs
from sesa_lab.config import Config
from sesa_lab.errors import InputError
from sesa_lab.runs.lineage import Lineage

_reports: Any = None  # in a worker: the queue that finished steps are reported to


@dataclass(frozen=True)
class Job:
    """One training run to be had.

    Attributes:
        arm: name of the arm it belongs to.
        seed: its seed.
        config: all settings.
        folder: the run folder.
        origin: the checkpoint of another run that it begins at; None: it begins by itself.
    """

    arm: str
    seed: int
    config: Config
    folder: Path
    origin: Lineage | None = None


def execute(
    jobs: Sequence[Job],
    workers: int | None = None,
    title: str = "training",
    watch: Callable[[], None] | None = None,
) -> None:
    """Bring every job to its last step; finished ones are left alone, half-done ones go on from their checkpoint.

    Args:
        jobs: runs to be had; their order does not change any result.
        workers: processes side by side; None: one a core.
        title: text of the progress bar (on stderr).
        watch: called about every two seconds while runs are under way, and once at the end, e.g. ``live.LiveCurves``.

    Raises:
        InputError: some jobs failed; the others are complete. Names the first failure and how to try again.
        Exception: a bug stops the whole matrix and comes back as it was raised; the same call goes on afterwards.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers = {workers}: expected at least 1, or none for one a core")
    todo = [job for job in jobs if not finished(job)]
    if not todo:
        if watch is not None:
            watch()
        return
    workers = min(workers or os.cpu_count() or 1, len(todo))
    context = multiprocessing.get_context("spawn")
    reports = context.Queue()
    total = sum(_weight(job.config) * _left(job) for job in todo)
    pool = ProcessPoolExecutor(workers, context, _initialise, (reports, os.getpid()))
    with tqdm(total=total, desc=title, unit="", file=sys.stderr, bar_format=_FORMAT) as bar:
        try:
            futures = {pool.submit(_run, job): job for job in sorted(todo, key=lambda job: -_weight(job.config))}
            failures = _wait(futures, reports, bar, watch)
        except BaseException:  # Ctrl-C, or Stop in a notebook: what waits is not begun, what runs stops; runs resume
            for process in list((pool._processes or {}).values()):
                process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        pool.shutdown()
    if failures:
        job, reason = failures[0]
        raise InputError(
            f"{len(failures)} of {len(todo)} runs failed, the others are kept; first: {job.folder}: {reason}."
            " Mend the cause and run the same command again"
        )


_FORMAT = "{desc}: {percentage:3.0f}% |{bar:24}| {elapsed} gone, {remaining} left{postfix}"


def _wait(
    futures: dict[Future[str | None], Job], reports: Any, bar: Any, watch: Callable[[], None] | None
) -> list[tuple[Job, str]]:
    pending, failures, done = set(futures), [], 0
    while pending:
        ended, pending = wait(pending, timeout=2.0, return_when=FIRST_COMPLETED)
        _drain(reports, bar)
        if watch is not None:
            watch()
        for future in ended:
            reason = future.result()  # a bug of ours comes back as it was raised
            if reason is not None:
                failures.append((futures[future], reason))
            done += 1
            bar.set_postfix_str(f", {done}/{len(futures)} runs")
    _drain(reports, bar)
    return failures


def _drain(reports: Any, bar: Any) -> None:
    done = 0
    with contextlib.suppress(queue.Empty):
        while True:
            done += reports.get_nowait()
    bar.update(done)


def _weight(config: Config) -> int:
    """Relative time of a step, for the remaining time only: a sequence of G short decodes takes about four times as long."""
    return 4 if config.sampler.name == "sequential" else 1


def _left(job: Job) -> int:
    """Steps a job still has to take."""
    begun = (job.folder / "config.json").is_file()
    checkpoints = runs.load(job.folder).checkpoints if begun else []
    first = job.origin.step if job.origin else 0
    return job.config.run.steps - (checkpoints[-1][0] if checkpoints else first)


def finished(job: Job) -> bool:
    """Whether a job has taken its last step.

    Raises:
        InputError: its folder is damaged, or holds a run of other settings.
    """
    if not (job.folder / "config.json").is_file():
        return False
    run = runs.load(job.folder)
    if _comparable(run.config) != _comparable(job.config):
        raise InputError(f"{job.folder} was made with other settings than its name says; remove the folder")
    return run.finished


def _comparable(config: Config) -> dict[str, Any]:
    content = config.to_dict()
    content["policy"]["adapter"] = Path(config.policy.adapter).name
    return content


def _initialise(reports: Any, parent: int) -> None:
    global _reports
    _reports = reports
    threading.Thread(target=_leave_with_parent, args=(parent,), daemon=True).start()


def _leave_with_parent(parent: int) -> None:
    """A worker whose parent was killed, be it before the worker began, stops too: the next invocation needs its locks."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _run(job: Job) -> str | None:
    """In a worker: train or resume; returns the reason of a failure."""
    from sesa_lab.training.loop import resume, revive, train

    weight = _weight(job.config)

    def report(step: int, metrics: dict[str, Any]) -> None:
        _reports.put(weight)

    try:
        if (job.folder / "config.json").is_file():
            resume(job.folder, report)
        elif job.origin is not None:
            revive(job.config, job.origin, job.folder, report)
        else:
            train(job.config, job.folder, report)
    except InputError as error:
        return str(error)
    return None
