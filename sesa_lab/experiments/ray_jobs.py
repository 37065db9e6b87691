"""Run what is missing on a Ray cluster: each job one Ray task, with Ray's own resources and retries.

Only the job is shipped: the package must be installed on the cluster, at the version and commit of this machine, which each
task checks. Without a storage all machines must see the run folders under the paths they have here. With one, a worker trains
in a folder of its own and copies it there after every checkpoint (``stored_runs``); a task that Ray begins again, since its
worker or machine was lost, goes on from the last copy, and this machine fetches what has ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

import sesa_lab
from sesa_lab import prompts, runs
from sesa_lab.errors import InputError, first_line, writing
from sesa_lab.experiments.jobs import Failure, Job, finished
from sesa_lab.experiments.ray_worker import Shipped, code, finished_there, work
from sesa_lab.experiments.stored_runs import Place, Source, absolute, committed
from sesa_lab.runs import layout

STORE_BYTES = 100_000_000
"""Ray's store of objects where we start Ray: jobs and their reasons are all that goes through it."""
ORIGINS = "begun-at"
"""Folder of the storage: checkpoints and adapters of other runs that jobs begin at."""
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

    A job that fails stops no other. An interrupt cancels what is not done; what is stored stays, and the same call goes on.

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
    root = None if storage is None else absolute(storage)
    todo, failures = _prepared(jobs, root)
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
            crew = _Crew(ray, task, todo, root, bar, report)
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


# --- before and after, on this machine ------------------------------------------------------------------------------


def _prepared(jobs: Sequence[Job], root: str | None) -> tuple[dict[int, Job], list[Failure]]:
    """Number -> job of those to be run, the largest first; and those that cannot be. What is in the storage is fetched."""
    owners: dict[str, Job] = {}
    todo, failures = {}, []
    for number, job in enumerate(jobs):
        try:
            if finished(job):
                continue
            if root is not None:
                url = _url(root, job)
                if owners.setdefault(url, job).folder != job.folder:
                    raise InputError(
                        f"{job.folder} and {owners[url].folder} would both be {url}; give one another name"
                    )
                if _is_stored(url, job):
                    continue
            todo[number] = job
        except InputError as error:
            failures.append(Failure(job, str(error)))
    return dict(sorted(todo.items(), key=lambda item: -item[1].config.run.steps)), failures


def _url(root: str, job: Job) -> str:
    folder = job.folder.absolute()
    return f"{root}/{folder.parent.name}/{folder.name}"


def _is_stored(url: str, job: Job) -> bool:
    """Whether the run is finished in the storage, and then it is here; what is here and further than there goes there."""
    place = Place(url)
    stored = place.read()
    if stored is not None and stored.step == job.config.run.steps:
        _fetch(url, job)
        return True
    if (job.folder / layout.CONFIG).is_file():
        if runs.in_use(job.folder):
            raise InputError(f"another process is writing {job.folder}; wait for it or end it")
        here = committed(job.folder)
        if here is not None and (stored is None or stored.step is None or here[0] > stored.step):
            place.claim()
            place.keep(here[1], here[0])
    return False


def _fetch(url: str, job: Job) -> None:
    """Bring the finished run from the storage into its folder; an ``InputError`` where it is none, or another one."""
    if job.folder.exists() and runs.in_use(job.folder):
        raise InputError(f"another process is writing {job.folder}; wait for it or end it")

    def check(came: Path) -> None:
        if not finished_there(replace(job, folder=came), url):
            raise InputError(f"{url} holds no finished run; run the same command again, it goes on")

    if Place(url).fetch(job.folder, check) is None:
        raise InputError(f"{url} holds no run that this machine can see; is it a storage that all machines reach?")


def _shipped(number: int, job: Job, root: str | None) -> Shipped:
    """The job for a worker; what it begins at goes to the storage first."""
    config, folder = job.config.to_dict(), str(job.folder.absolute())
    model = job.config.policy.model
    shipped = Shipped(
        number, job.arm, job.seed, config, folder, os.getcwd(), local_model=bool(model) and Path(model).is_dir()
    )
    if job.origin is not None:
        shipped = replace(shipped, origin=job.origin.to_dict())
    if root is None:
        return shipped
    shipped = replace(shipped, place=_url(root, job))
    if job.origin is not None:
        origin = job.origin.checked()
        begin = committed(Path(origin.run), origin.step)
        assert begin is not None  # there is one of that step
        shipped = replace(shipped, origin_place=_keep_origin(root, Path(origin.run).name, begin[1]))
    if job.config.policy.adapter:
        adapter = Path(job.config.policy.adapter)
        if not adapter.is_dir():
            raise InputError(
                f"policy.adapter = {str(adapter)!r}: no folder there on this machine, to be sent to the workers"
            )
        files: dict[str, Source] = {
            file.relative_to(adapter).as_posix(): file for file in adapter.rglob("*") if file.is_file()
        }
        shipped = replace(shipped, adapter_place=_keep_origin(root, adapter.name, files))
    if job.config.policy.prompts:
        texts = prompts.folder_texts(job.config.policy.prompts, job.config.environment.name)
        shipped = replace(shipped, prompts=texts)
    return shipped


def _keep_origin(root: str, name: str, files: Mapping[str, Source]) -> str:
    """URL of the files in the storage, under a name of their content: jobs that begin alike share it."""
    digest = hashlib.sha256()
    for path, source in sorted(files.items()):
        content = source if isinstance(source, bytes) else source.read_bytes()
        digest.update(f"{path}\n{hashlib.sha256(content).hexdigest()}\n".encode())
    place = Place(f"{root}/{ORIGINS}/{name}-{digest.hexdigest()[:12]}")
    if place.read() is None:
        place.claim()
        place.keep(files, 0, last=True)
    return place.url


@dataclass
class _Crew:
    """The tasks of one call, and how far each job is."""

    ray: Any
    task: Callable[..., Any]
    todo: Mapping[int, Job]
    root: str | None
    bar: Any
    report: Report | None
    failures: list[Failure] = field(default_factory=list)

    def __post_init__(self) -> None:
        here = self.ray.get_runtime_context().get_node_id()
        near = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=True)
        self._news = self.ray.util.queue.Queue(actor_options={"num_cpus": 0, "scheduling_strategy": near})
        self._begun: dict[int, int] = {}  # job -> its last step
        self._ended = 0

    def run(self) -> None:
        """Send all jobs, and stay until the last has ended."""
        waiting: dict[Any, int] = {}
        try:
            for number, job in self.todo.items():
                try:
                    shipped = _shipped(number, job, self.root)
                except InputError as error:
                    self._settle(number, str(error), "")
                    continue
                named = self.task(name=f"{job.arm} seed {job.seed}")
                waiting[named.remote(code(), asdict(shipped), self._news)] = number
            while waiting:
                ended, _ = self.ray.wait(list(waiting), timeout=0.5)
                self._listen()
                for task in ended:
                    self._settle(waiting.pop(task), *self._outcome(task))
                busy = len(self._begun.keys() & set(waiting.values()))
                self.bar.set_postfix_str(f", {self._ended}/{len(self.todo)} runs, {busy} under way")
        except BaseException:
            for task in waiting:
                self.ray.cancel(task)
            raise
        finally:
            self._news.shutdown(force=True)

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

    def _outcome(self, task: Any) -> tuple[str | None, str]:
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
            return (
                f"its worker was lost, and so were those of all retries: {type(error).__name__}: {first_line(error)}",
                "",
            )

    def _settle(self, number: int, reason: str | None, trace: str) -> None:
        job = self.todo[number]
        self._ended += 1
        try:
            if trace:
                _write_log(job, trace)
            if reason is None and self.root is not None:
                _fetch(_url(self.root, job), job)
            elif reason is None and not finished(job):
                reason = (
                    f"it ended on its worker, but {job.folder} is not finished here: no shared folder; give a storage"
                )
        except InputError as error:
            reason = str(error) if reason is None else reason
        if reason is None:
            self._step(number, job.config.run.steps)
        else:
            self.failures.append(Failure(job, reason))


def _write_log(job: Job, text: str) -> None:
    with writing(job.log, "mend the folder's permissions or space"):
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with open(job.log, "a", encoding="utf-8") as log:
            log.write(text.rstrip() + "\n")
