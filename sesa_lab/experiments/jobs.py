"""Run what is missing: each job in a process of its own, several side by side, with progress and remaining time."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sesa_lab import runs
from sesa_lab.config import Config
from sesa_lab.errors import InputError, first_line, writing
from sesa_lab.runs.lineage import Lineage

LOGS = "logs"
"""Folder beside run folders: what a job's process printed, by the run folder's name."""
KILLS = 2
"""So many times a job's process may be killed before the job is given up."""

_reports: Any = None  # in a worker: the queue that says what is begun, each step that is taken, and what has ended
_BUSY = "busy"  # of a job that a process of another invocation is at


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

    @property
    def begins_at(self) -> int:
        """The step that it begins after."""
        return self.origin.step if self.origin is not None else 0

    @property
    def log(self) -> Path:
        """What its processes print goes here, after what earlier ones did."""
        return self.folder.parent / LOGS / f"{self.folder.name}.log"


@dataclass(frozen=True)
class Failure:
    """A job that did not reach its last step.

    Attributes:
        job: which.
        reason: one line.
        bug: what was raised where it is no user's mistake; its traceback is in the job's log.
    """

    job: Job
    reason: str
    bug: BaseException | None = None


def execute(
    jobs: Sequence[Job],
    workers: int | None = None,
    title: str = "training",
    watch: Callable[[], None] | None = None,
) -> None:
    """Bring every job to its last step, as ``attempt`` does.

    Raises:
        InputError: some jobs failed; the others are complete. Names the first failure and how to try again.
        Exception: a bug comes back as it was raised, when the others are complete; the same call goes on afterwards.
    """
    failures = attempt(jobs, workers, title, watch)
    for failure in failures:
        if failure.bug is not None:
            raise failure.bug
    if failures:
        raise InputError(
            f"{len(failures)} of {len(jobs)} runs failed, the others are kept; first: {failures[0].job.folder}:"
            f" {failures[0].reason}. Mend the cause and run the same command again"
        )


def attempt(
    jobs: Sequence[Job],
    workers: int | None = None,
    title: str = "training",
    watch: Callable[[], None] | None = None,
) -> list[Failure]:
    """Bring every job to its last step; finished ones are left alone, half-done ones go on from their checkpoint.

    A job that fails stops no other. One that another invocation is at is waited for, and taken over should that one end. A
    process that was killed is replaced; a job whose process was killed ``KILLS`` times is given up.

    Args:
        jobs: runs to be had; their order does not change any result.
        workers: processes side by side; None: one a core.
        title: text of the progress bar (on stderr).
        watch: called about every two seconds while runs are under way, and once at the end, e.g. ``live.LiveCurves``.

    Returns:
        The jobs that did not reach their last step.

    Raises:
        InputError: fewer than one worker.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers = {workers}: expected at least 1, or none for one a core")
    todo, refused = _missing(jobs)
    if not todo:
        if watch is not None:
            watch()
        return refused
    total = sum(_weight(job.config) * _left(job) for job in todo)
    with tqdm(total=total, desc=title, unit="", file=sys.stderr, bar_format=_FORMAT) as bar:
        crew = _Crew(todo, min(workers or os.cpu_count() or 1, len(todo)), bar)
        with crew.ending():
            while not crew.done:
                crew.look()
                if watch is not None:
                    watch()
    return refused + crew.failures


def _missing(jobs: Sequence[Job]) -> tuple[list[Job], list[Failure]]:
    """Jobs that are not finished; and those whose folder is damaged, or holds another run."""
    todo, refused = [], []
    for job in jobs:
        try:
            if not finished(job):
                todo.append(job)
        except InputError as error:
            refused.append(Failure(job, str(error)))
    return todo, refused


_FORMAT = "{desc}: {percentage:3.0f}% |{bar:24}| {elapsed} gone, {remaining} left{postfix}"


@dataclass
class _Crew:
    """The processes of one ``attempt``, and which of its jobs are where."""

    jobs: Sequence[Job]
    workers: int
    bar: Any
    failures: list[Failure] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._reports = self._context.Queue()
        self._futures: dict[Future[Any], Job] = {}
        self._elsewhere: list[Job] = []
        self._begun: set[Path] = set()
        self._kills: Counter[Path] = Counter()
        self._ended = 0
        self._pool = self._new_pool()
        for job in sorted(self.jobs, key=lambda job: -_weight(job.config)):
            self._submit(job)

    @property
    def done(self) -> bool:
        return not self._futures and not self._elsewhere

    def look(self) -> None:
        """Wait for news, for two seconds at most."""
        if self._futures:
            ended, _ = wait(self._futures, timeout=2.0, return_when=FIRST_COMPLETED)
        else:
            ended = set()
            time.sleep(2.0)
        self._drain()
        for future in ended:
            job = self._futures.pop(future, None)
            if job is None:
                continue
            try:
                self._settle(job, *future.result())
            except BrokenProcessPool:
                self._futures[future] = job
                self._mend()
                break
        self._ask_others()
        words = f"{self._ended}/{len(self.jobs)} runs"
        if self._elsewhere:
            words += f", {len(self._elsewhere)} of them with another invocation"
        self.bar.set_postfix_str(words)

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """Ctrl-C, or Stop in a notebook: what waits is not begun, what runs stops; runs resume."""
        try:
            yield
        except BaseException:
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
            self._pool.shutdown(wait=False, cancel_futures=True)
            raise
        self._pool.shutdown()
        self._drain()

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self.workers, self._context, _initialise, (self._reports, os.getpid()))

    def _submit(self, job: Job) -> None:
        self._futures[self._pool.submit(_run, job)] = job

    def _settle(self, job: Job, reason: str | None, bug: BaseException | None) -> None:
        if reason == _BUSY:
            self._elsewhere.append(job)
            return
        self._ended += 1
        if reason is not None:
            self.failures.append(Failure(job, reason, bug))

    def _mend(self) -> None:
        """A process was killed, and with it the pool: whatever had not ended begins again, in a new one."""
        self._drain()
        left = list(self._futures.values())
        self._futures.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._drain()
        self._pool = self._new_pool()
        for job in left:
            self._kills[job.folder] += job.folder in self._begun
            self._begun.discard(job.folder)
            if self._kills[job.folder] < KILLS:
                self._submit(job)
            else:
                said = f"its process, or one beside it, was killed {KILLS} times (out of memory?); its log: {job.log}"
                self._settle(job, said, None)

    def _ask_others(self) -> None:
        """Of the jobs that others are at: what they finished has ended, what they let go of is ours."""
        for job in list(self._elsewhere):
            if runs.in_use(job.folder):
                continue
            self._elsewhere.remove(job)
            try:
                ended = finished(job)
            except InputError as error:
                self._settle(job, str(error), None)
                continue
            if ended:
                self._settle(job, None, None)
                self.bar.update(_weight(job.config) * job.config.run.steps)
            else:
                self._submit(job)

    def _drain(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                word, value = self._reports.get_nowait()
                if word == "step":
                    self.bar.update(value)
                elif word == "begun":
                    self._begun.add(value)
                else:
                    self._begun.discard(value)


def _weight(config: Config) -> int:
    """Relative time of a step, for the remaining time only: a sequence of G short decodes takes about four times as long."""
    return 4 if config.sampler.name == "sequential" else 1


def _left(job: Job) -> int:
    """Steps a job still has to take."""
    begun = (job.folder / "config.json").is_file()
    checkpoints = runs.load(job.folder).checkpoints if begun else []
    return job.config.run.steps - (checkpoints[-1][0] if checkpoints else job.begins_at)


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
    if run.finished:
        runs.check_sizes(job.folder)
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


def _run(job: Job) -> tuple[str | None, BaseException | None]:
    """In a worker: train or resume; returns the reason of a failure, and what was raised where it is a bug."""
    weight = _weight(job.config)

    def report(step: int, metrics: dict[str, Any]) -> None:
        _reports.put(("step", weight))
        print(f"{_now()} step {step} of {job.config.run.steps}", flush=True)

    _reports.put(("begun", job.folder))
    try:
        with _logged(job):
            return _train(job, report)
    except InputError as error:  # the log cannot be written
        return str(error), None
    finally:
        _reports.put(("ended", job.folder))


def _train(job: Job, report: Callable[[int, dict[str, Any]], None]) -> tuple[str | None, BaseException | None]:
    try:
        if finished(job):  # by another invocation, meanwhile
            return None, None
        print(f"{_now()} process {os.getpid()}: {job.folder}", flush=True)
        go_on(job, report)
    except runs.LockedError:
        return _BUSY, None
    except InputError as error:
        begun = isinstance(error, runs.NotEmptyError) and (job.folder / "config.json").is_file()
        if begun or runs.in_use(job.folder):  # by another invocation, meanwhile, which may have let go of it already
            return _BUSY, None
        print(f"{_now()} failed: {error}", flush=True)
        return str(error), None
    except Exception as error:
        traceback.print_exc()
        said = f"{type(error).__name__}: {first_line(error)} (a bug; its traceback is in {job.log})"
        return said, _sendable(error)
    return None, None


def go_on(job: Job, report: Callable[[int, dict[str, Any]], None]) -> None:
    """In this process: begin the job's run, or resume it, up to its last step; ``report`` is told of each."""
    from sesa_lab.training.loop import resume, revive, train

    if (job.folder / "config.json").is_file():
        resume(job.folder, report)
    elif job.origin is not None:
        revive(job.config, job.origin, job.folder, report)
    else:
        train(job.config, job.folder, report)


def _sendable(error: Exception) -> Exception:
    """What was raised, if it survives the way to the parent; its traceback is in the log either way."""
    import pickle

    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


@contextlib.contextmanager
def _logged(job: Job) -> Iterator[None]:
    """What the body prints, libraries included, goes to the job's log."""
    with writing(job.log, "mend the folder's permissions or space"):
        job.log.parent.mkdir(parents=True, exist_ok=True)
        log = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    kept = [os.dup(number) for number in (1, 2)]
    try:
        for number in (1, 2):
            os.dup2(log, number)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, old in zip((1, 2), kept, strict=True):
            os.dup2(old, number)
            os.close(old)
        os.close(log)


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
