"""Run what is missing on a Ray cluster: each job one Ray task, with Ray's own resources and retries.

Only the job is shipped: the package must be installed on the cluster, at the version and commit of this machine, which each
task checks. Without a storage all machines must see the run folders under the paths they have here. With one, a worker trains
in a folder of its own and copies it there after every checkpoint (``stored_runs``); a task that Ray begins again, since its
worker or machine was lost, goes on from the last copy, and this machine fetches what has ended.

Several invocations share the work: a run that a process of another one is at is left to it until it lets go of it (the lock of
the run folder, or ``stored_owner`` in a storage).
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from tqdm import tqdm

import sesa_lab
from sesa_lab import runs
from sesa_lab.errors import InputError, first_line
from sesa_lab.experiments.jobs import Failure, Job, finished
from sesa_lab.experiments.ray_shipping import Dispatch, write_log
from sesa_lab.experiments.ray_worker import BUSY, code, work
from sesa_lab.experiments.stored_owner import BEAT_SECONDS, Watch
from sesa_lab.experiments.stored_runs import Busy, absolute

STORE_BYTES = 100_000_000
"""Ray's store of objects where we start Ray: jobs and their reasons are all that goes through it."""
_FORMAT = "{desc}: {percentage:3.0f}% |{bar:24}| {n}/{total} steps, {elapsed} gone, {remaining} left{postfix}"

Report = Callable[[Job, int], None]


def execute_on_ray(
    jobs: Sequence[Job],
    *,
    address: str | None = None,
    storage: str | None = None,
    cpus: float = 1.0,
    gpus: float = 0.0,
    resources: Mapping[str, float] | None = None,
    retries: int = 3,
    title: str = "training",
    report: Report | None = None,
) -> list[Failure]:
    """Bring every job to its last step on a Ray cluster; finished ones are left alone, half-done ones go on.

    A job that fails stops no other. One that another invocation is at is waited for, after all others, and taken over should
    that one end, or be lost (``stored_owner.LEASE_SECONDS``). An interrupt cancels what is not done; what is stored stays, and
    the same call goes on.

    Args:
        jobs: runs to be had; their order does not change any result.
        address: of the cluster; ``auto``: that of the environment; None: one is started on this machine, and ended. Where Ray is
            connected already (``ray.init``), that connection is used.
        storage: where runs are kept, as GROUP/RUN after the last two names of a run folder: any URL of fsspec, or a path that all
            machines see. Finished runs are fetched from it into their folders here. None: all machines see the run folders.
        cpus: of Ray's logical CPUs, for each run.
        gpus: likewise; parts of one may be shared.
        resources: likewise of resources that nodes of the cluster were given by name.
        retries: so often Ray begins a run again whose worker was lost (killed, out of memory, its machine gone).
        title: text of the progress bar (on stderr).
        report: called with a job and a step after every step, on this machine; not twice for a step that is taken again.

    Returns:
        The jobs that did not reach their last step, as ``attempt`` does; a bug's traceback is added to the job's log here.

    Raises:
        InputError: Ray is not installed, the cluster or the storage cannot be reached, or an argument is out of range.
    """
    ray = _ray()
    if min(cpus, gpus, retries, 0, *(resources or {}).values()) < 0:
        raise InputError(
            f"cpus = {cpus}, gpus = {gpus}, resources = {resources}, retries = {retries}: expected none below 0"
        )
    dispatch = Dispatch(None if storage is None else absolute(storage))
    todo, failures = dispatch.prepared(jobs)
    if not todo:
        return failures
    with _connected(ray, address):
        _check_room(ray, {"CPU": cpus, "GPU": gpus, **(resources or {})}, waits=address is not None)
        try:
            options = {"num_cpus": cpus, "num_gpus": gpus, "resources": dict(resources or {}), "max_retries": retries}
            # A process a run: one that was interrupted midway, be it in an import, must not serve another.
            task = partial(ray.remote(max_calls=1)(work).options, **options)
            task()
        except ValueError as error:
            raise InputError(f"Ray refuses gpus = {gpus}, resources = {resources}: {first_line(error)}") from error
        total = sum(job.config.run.steps - job.begins_at for job in todo.values())
        with tqdm(total=total, desc=title, unit="", file=sys.stderr, bar_format=_FORMAT) as bar:
            crew = _Crew(ray, task, todo, dispatch, bar, report)
            crew.run()
    return failures + crew.failures


def _ray() -> Any:
    """Ray itself. It is told before anything starts that nothing is to be sent to its makers."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.util.queue
    except ImportError as error:
        raise InputError(
            f"Ray is not installed ({error}): pip install 'sesa_lab[ray]', or use the local engine"
        ) from error
    return ray


@contextlib.contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
    if address is None:
        quiet |= {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    try:
        ray.init(address="local" if address is None else address, **quiet)
    except Exception as error:  # of many kinds, bare ones too: a node that took too long to start
        where = "on this machine" if address is None else f"at {address!r}"
        raise InputError(
            f"no Ray cluster {where}: {type(error).__name__}: {first_line(error)}; start one (`ray start --head`), or leave the"
            " address out to have one on this machine"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_room(ray: Any, needed: Mapping[str, float], *, waits: bool) -> None:
    """Says, or where no node can ever come raises, that no node has what a run needs."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(all(has.get(name, 0) >= amount for name, amount in needed.items()) for has in nodes):
        return
    wanted = ", ".join(f"{name} {amount:g}" for name, amount in needed.items() if amount)
    if not waits:
        raise InputError(
            f"this machine does not have what a run is to have ({wanted}); ask for less, or name a cluster"
        )
    tqdm.write(f"no node of the cluster has {wanted} now; waiting for one that has", file=sys.stderr)


@dataclass
class _Crew:
    """The tasks of one call, and how far each job is."""

    ray: Any
    task: Callable[..., Any]
    todo: Mapping[int, Job]
    dispatch: Dispatch
    bar: Any
    report: Report | None
    failures: list[Failure] = field(default_factory=list)

    def __post_init__(self) -> None:
        here = self.ray.get_runtime_context().get_node_id()
        near = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=True)
        self._news = self.ray.util.queue.Queue(actor_options={"num_cpus": 0, "scheduling_strategy": near})
        self._begun: dict[int, int] = {}  # job -> its last step
        self._sent: dict[Any, int] = {}  # task -> its job
        self._elsewhere: dict[int, Watch] = {}  # job that another invocation is at
        self._next_look = 0.0
        self._ended = 0

    def run(self) -> None:
        """Send all jobs, and stay until the last has ended."""
        try:
            for number in self.todo:
                self._send(number)
            while self._sent or self._elsewhere:
                self._look()
        except BaseException:
            for task in self._sent:
                self.ray.cancel(task)
            for number in self._begun.keys() & set(self._sent.values()):
                self.dispatch.let_go(self.todo[number])
            raise
        finally:
            self._news.shutdown(force=True)

    def _look(self) -> None:
        """Wait for news, for half a second at most."""
        if not self._sent:
            time.sleep(0.5)
        ended, _ = self.ray.wait(list(self._sent), timeout=0.5)
        self._listen()
        for task in ended:
            number = self._sent.pop(task)
            self._settle(number, *self._outcome(number, task))
        self._ask_others()
        busy = len(self._begun.keys() & set(self._sent.values()))
        words = f", {self._ended}/{len(self.todo)} runs, {busy} under way"
        if self._elsewhere:
            words += f", {len(self._elsewhere)} with another invocation"
        self.bar.set_postfix_str(words)

    def _send(self, number: int, stale: str | None = None) -> None:
        job = self.todo[number]
        try:
            shipped = self.dispatch.shipped(number, job, stale)
        except Busy as error:
            self._elsewhere[number] = Watch(error.place)
        except InputError as error:
            self._settle(number, str(error))
        else:
            named = self.task(name=f"{job.arm} seed {job.seed}")
            self._sent[named.remote(code(), asdict(shipped), self._news)] = number

    def _ask_others(self) -> None:
        """Of the jobs that others are at: what they finished has ended, what they let go of, or were lost over, is ours."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + BEAT_SECONDS
        for number, watch in list(self._elsewhere.items()):
            job = self.todo[number]
            try:
                if runs.in_use(job.folder) or not watch.over():
                    continue
                del self._elsewhere[number]
                if finished(job) or self.dispatch.is_stored(job, watch.seen):
                    self._settle(number, None)
                else:
                    self._send(number, watch.seen)
            except Busy as error:
                self._elsewhere[number] = Watch(error.place)
            except InputError as error:
                self._elsewhere.pop(number, None)
                self._settle(number, str(error))

    def _listen(self) -> None:
        """Steps that were taken. Should Ray lose the queue, the bar stands still and the runs go on."""
        try:
            news = self._news.get_nowait_batch(self._news.qsize())
        except self.ray.exceptions.RayError:
            return
        for number, step in news:
            if self._step(number, step) and self.report is not None:
                self.report(self.todo[number], step)

    def _step(self, number: int, step: int) -> bool:
        """Moves the bar; whether the job had not been so far before."""
        last = self._begun.setdefault(number, self.todo[number].begins_at)
        if step <= last:
            return False
        self._begun[number] = step
        self.bar.update(step - last)
        return True

    def _outcome(self, number: int, task: Any) -> tuple[str | None, str]:
        errors = self.ray.exceptions
        try:
            reason, trace = self.ray.get(task)
            return reason, trace
        except errors.RayTaskError as error:  # not of the job: that is caught on the worker
            return (
                f"a worker could not begin it: {str(error).strip().splitlines()[-1]}; is sesa_lab {sesa_lab.__version__} installed"
                " on the cluster?"
            ), str(error)
        except errors.RayError as error:
            self.dispatch.let_go(self.todo[number])
            return (
                f"its worker was lost, and so were those of all retries: {type(error).__name__}: {first_line(error)}",
                "",
            )

    def _settle(self, number: int, reason: str | None, trace: str = "") -> None:
        job = self.todo[number]
        if reason == BUSY:
            self._elsewhere[number] = Watch(self.dispatch.place(job))
            return
        try:
            if trace:
                write_log(job, trace)
            if reason is None:
                self.dispatch.fetch(job)
            if reason is None and not finished(job):
                reason = (
                    f"it ended on its worker, but {job.folder} is not finished here: no shared folder; give a storage"
                )
        except Busy as error:
            self._elsewhere[number] = Watch(error.place)
            return
        except InputError as error:
            reason = str(error) if reason is None else reason
        self._ended += 1
        if reason is None:
            self._step(number, job.config.run.steps)
        else:
            self.failures.append(self.dispatch.failure(job, reason))
