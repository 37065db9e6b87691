"""What the machine of an invocation of ``ray_jobs`` does before and after a task: store what it needs, fetch what has ended."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sesa_lab import prompts, runs
from sesa_lab.errors import InputError, writing
from sesa_lab.experiments.jobs import Failure, Job, finished
from sesa_lab.experiments.ray_worker import Shipped, finished_there
from sesa_lab.experiments.stored_owner import let_go, owned, owner
from sesa_lab.experiments.stored_runs import Busy, Manifest, Place, Source, committed
from sesa_lab.runs import layout

ORIGINS = "begun-at"
"""Folder of the storage: checkpoints and adapters of other runs that jobs begin at."""


@dataclass(frozen=True)
class Dispatch:
    """One invocation's jobs, on their way to workers and back.

    Attributes:
        root: URL of the storage; None: all machines see the run folders.
        invocation: a name of its own.
    """

    root: str | None
    invocation: str = field(default_factory=lambda: uuid.uuid4().hex)

    def prepared(self, jobs: Sequence[Job]) -> tuple[dict[int, Job], list[Failure]]:
        """Number -> job of those to be had, the largest first; and those that cannot be. What is stored is fetched."""
        taken: dict[str, Job] = {}
        todo, failures = {}, []
        for number, job in enumerate(jobs):
            try:
                if finished(job):
                    continue
                place = self.place(job)
                if place is not None and (other := taken.setdefault(place.url, job)).folder != job.folder:
                    raise InputError(
                        f"{job.folder} and {other.folder} would both be {place.url}; give one another name"
                    )
                if not self.is_stored(job):
                    todo[number] = job
            except Busy:
                todo[number] = job
            except InputError as error:
                failures.append(self.failure(job, str(error)))
        return dict(sorted(todo.items(), key=lambda item: -item[1].config.run.steps)), failures

    def place(self, job: Job) -> Place | None:
        """Of its run in the storage."""
        folder = job.folder.absolute()
        return None if self.root is None else Place(f"{self.root}/{folder.parent.name}/{folder.name}")

    def failure(self, job: Job, reason: str) -> Failure:
        """A reason goes into reports, hence names runs as the storage does, and not the storage, which is no reader's."""
        return Failure(job, reason if self.root is None else reason.replace(f"{self.root}/", ""))

    def is_stored(self, job: Job, stale: str | None = None) -> bool:
        """Whether the run is finished in the storage, and then it is here; what is here and further than there goes there.

        Args:
            job: whose run.
            stale: as for ``stored_owner.owned``.

        Raises:
            Busy: another invocation is at the run.
            InputError: it is damaged, here or there, or another one; the storage cannot be reached.
        """
        place = self.place(job)
        if place is None:
            return False
        stored = place.read()
        if stored is not None and stored.step == job.config.run.steps:
            if owner(place) is not None:  # its last files are being named, or that is how far a lost process came
                with owned(place, self.invocation, stale):
                    pass
            self.fetch(job)
            return True
        if (job.folder / layout.CONFIG).is_file():
            _check_free(job)
            here = committed(job.folder)
            if here is not None and _is_further(here[0], stored):
                with owned(place, self.invocation, stale):
                    if _is_further(here[0], place.read()):
                        place.keep(here[1], here[0])
        return False

    def fetch(self, job: Job) -> None:
        """Bring the finished run from the storage into its folder.

        Raises:
            Busy: a process of this machine is writing that folder.
            InputError: there is none in the storage, or not finished, or another one.
        """
        place = self.place(job)
        if place is None:
            return

        def check(came: Path) -> None:
            if not finished_there(replace(job, folder=came), place.url):
                raise InputError(f"{place.url} holds no finished run; run the same command again, it goes on")

        with _in_turn(job):
            if finished(job):  # another invocation of this machine has brought it by now
                return
            _check_free(job)
            if place.fetch(job.folder, check) is None:
                raise InputError(
                    f"{place.url} holds no run that this machine can see; is it a storage that all machines reach?"
                )

    def let_go(self, job: Job) -> None:
        """A worker of this invocation that was at the run was lost, or soon is: nobody need wait for it."""
        place = self.place(job)
        if place is not None:
            with contextlib.suppress(InputError):
                let_go(place, self.invocation)

    def shipped(self, number: int, job: Job, stale: str | None = None) -> Shipped:
        """The job for a worker; what it begins at goes to the storage first.

        Args:
            number: of the job, in what the worker reports.
            job: the job.
            stale: as for ``stored_owner.owned``.

        Raises:
            Busy: another invocation is at the run here, or is storing what it begins at.
            InputError: what it begins at is not there, or cannot be stored.
        """
        _check_free(job)
        config, folder = job.config.to_dict(), str(job.folder.absolute())
        model = job.config.policy.model
        shipped = Shipped(
            number, job.arm, job.seed, config, folder, os.getcwd(), local_model=bool(model) and Path(model).is_dir(),
            invocation=self.invocation, stale=stale,
        )  # fmt: skip
        if job.origin is not None:
            shipped = replace(shipped, origin=job.origin.to_dict())
        place = self.place(job)
        if place is None:
            return shipped
        shipped = replace(shipped, place=place.url)
        if job.origin is not None:
            origin = job.origin.checked()
            begin = committed(Path(origin.run), origin.step)
            assert begin is not None  # there is one of that step
            shipped = replace(shipped, origin_place=self._keep_origin(Path(origin.run).name, begin[1], stale))
        if job.config.policy.adapter:
            adapter = Path(job.config.policy.adapter)
            if not adapter.is_dir():
                raise InputError(
                    f"policy.adapter = {str(adapter)!r}: no folder there on this machine, to be sent to the workers"
                )
            files: dict[str, Source] = {
                file.relative_to(adapter).as_posix(): file for file in adapter.rglob("*") if file.is_file()
            }
            shipped = replace(shipped, adapter_place=self._keep_origin(adapter.name, files, stale))
        if job.config.policy.prompts:
            texts = prompts.folder_texts(job.config.policy.prompts, job.config.environment.name)
            shipped = replace(shipped, prompts=texts)
        return shipped

    def _keep_origin(self, name: str, files: Mapping[str, Source], stale: str | None) -> str:
        """URL of the files in the storage, under a name of their content: jobs that begin alike share it."""
        digest = hashlib.sha256()
        for path, source in sorted(files.items()):
            content = source if isinstance(source, bytes) else source.read_bytes()
            digest.update(f"{path}\n{hashlib.sha256(content).hexdigest()}\n".encode())
        place = Place(f"{self.root}/{ORIGINS}/{name}-{digest.hexdigest()[:12]}")
        if place.read() is None:
            with owned(place, self.invocation, stale):
                if place.read() is None:
                    place.keep(files, 0, last=True)
        return place.url


def write_log(job: Job, text: str) -> None:
    """Add what a worker said to the job's log here; nothing: just make that.

    Raises:
        InputError: it cannot be written.
    """
    with writing(job.log, "mend the folder's permissions or space"):
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with open(job.log, "a", encoding="utf-8") as log:
            log.write(f"{text.rstrip()}\n" if text else "")


def _is_further(step: int, stored: Manifest | None) -> bool:
    return stored is None or stored.step is None or step > stored.step


def _check_free(job: Job) -> None:
    if runs.in_use(job.folder):
        raise Busy(job.folder)


@contextlib.contextmanager
def _in_turn(job: Job) -> Iterator[None]:
    """One at a time of this machine's invocations: holds a lock on the job's log."""
    write_log(job, "")
    with open(job.log, "rb") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        yield
