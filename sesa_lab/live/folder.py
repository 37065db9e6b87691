"""The files by which a training process and those who watch it talk: ``NAME.live/`` beside the run folder ``NAME``.

Beside it, not in it: a run folder must be empty when a run begins, and this is there before, with what is said while the policy
is read. Removing it loses nothing of the run: the process makes it anew when it next has something to say, and what was asked of
it and not done yet is forgotten.

| file | written by | what it says |
|---|---|---|
| ``settings.json`` | who starts the run | all settings, as in the run's own config.json |
| ``process.json`` | who starts a process | ``pid``, ``token`` (in its command line, and in no other's), ``host`` |
| ``wanted.json`` | any panel | ``wanted``: ``run``, ``pause`` or ``stop`` |
| ``status.json`` | the process | where it is, see ``Status`` |
| ``training.log`` | the process | its stdout and stderr, of all starts |
| ``.lock`` | who starts a process | locked (flock) as long as that process lives |
| ``.starter`` | any | locked for the moment in which a process is started, or a stopping one decides that it ends |
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from sesa_lab.errors import InputError, writing
from sesa_lab.runs import layout
from sesa_lab.runs.files import read_json, write_json

SUFFIX = ".live"
LOG = "training.log"
SETTINGS = "settings.json"
STARTER = ".starter"
WANTED = ("run", "pause", "stop")
PATIENCE = 5.0
"""Seconds that ``Folder.alone`` waits for another; who has it holds it for as long as it takes to write a file or two."""
_REMEDY = "remove it: it says only how the training went last"
_MEND = "mend the folder's permissions or space"


@dataclass(frozen=True)
class Status:
    """What a training process last said of itself.

    Attributes:
        token: of the process.
        state: ``starting`` (policy and engine are being read), ``evaluating`` (the policy, before its first step), ``running``,
            ``paused``, ``stopping`` (the run is being left, whatever is asked for now), ``stopped``, ``finished`` or ``failed``.
        step: the last step it took; 0: none yet.
        seconds_per_step: mean of its recent steps, evaluations and checkpoints included, pauses not; 0: not known yet.
        cause: why it failed, in a line or few.
        mistake: whether the cause is a user's (an ``InputError``), not a bug or a lack of memory.
        trace: the last lines of the traceback.
    """

    token: str
    state: str = "starting"
    step: int = 0
    seconds_per_step: float = 0.0
    cause: str = ""
    mistake: bool = False
    trace: str = ""

    @property
    def last(self) -> bool:
        """Whether nothing follows: the run folder is given back, the process leaves or has left."""
        return self.state in ("stopped", "finished", "failed")


@dataclass(frozen=True)
class Folder:
    """Where a run and the files about its training are; both absolute, since a kernel may change its folder."""

    run: Path
    path: Path

    @staticmethod
    def of(run: str | Path) -> Folder:
        """That of the run folder ``run``, whether it is there or not.

        Raises:
            InputError: a run, or a name that no folder can have, is where the files would be.
        """
        run = Path(run)
        with writing(run, "choose another --out"):
            try:
                run = run.resolve()
            except (ValueError, RuntimeError) as error:  # a NUL in it, links in a circle
                raise InputError(f"{run!r} can be no folder: {error}; choose another name for the run") from error
            path = run.with_name(run.name + SUFFIX) if run.name else run
            if path == run or layout.is_run(path):
                raise InputError(f"{path} is no place for the files about a training; choose another name for the run")
        return Folder(run, path)

    @staticmethod
    def of_run(run: str | Path) -> Folder:
        """That of a run that is there, or was to be begun; else an ``InputError``."""
        folder = Folder.of(run)
        if not (folder.path / SETTINGS).is_file():
            layout.check_run(folder.run)
        return folder

    @property
    def log(self) -> Path:
        """What is written to stdout and stderr by the training process."""
        return self.path / LOG

    def ask(self, wanted: str) -> None:
        """What the process is to do after the step that it is at: one of ``WANTED``."""
        self._write("wanted", {"wanted": wanted})

    def wanted(self, otherwise: str = "run") -> str:
        """What was asked for last; ``otherwise`` where that cannot be read."""
        found = self._read("wanted").get("wanted")
        return found if found in WANTED else otherwise

    def say(self, status: Status) -> None:
        """For the process: where it is."""
        self._write("status", dataclasses.asdict(status))

    def status(self) -> Status | None:
        """What the process said last; None: there was none, or what it said cannot be read."""
        known = self._read("status")
        fields = {field.name: field.default for field in dataclasses.fields(Status)} | {"token": ""}
        if not all(type(known.get(name)) in (type(default), int) for name, default in fields.items()):
            return None
        return Status(**{name: known[name] for name in fields})

    def name_process(self, pid: int, token: str) -> None:
        """For who starts it: which process trains."""
        self._write("process", {"pid": pid, "token": token, "host": socket.gethostname()})

    def hold(self) -> int:
        """Lock ``.lock`` for the process that trains; returns the handle, which the process is to keep open.

        In a file of its own each time: the process before may have stopped and not be gone yet.
        """
        temporary = self.path / (layout.TEMPORARY + layout.LOCK)
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.replace(temporary, self.path / layout.LOCK)
        except BaseException:
            os.close(handle)
            raise
        return handle

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """For the body, no other starts a process here, and none that stops decides whether it ends.

        Raises:
            InputError: another has been at it for ``PATIENCE`` seconds, or the folder cannot be written.
        """
        with writing(self.path, _MEND):
            handle = os.open(self.path / STARTER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                _lock(handle, self.path)
                yield
            finally:
                os.close(handle)

    def own_status(self) -> Status | None:
        """``status`` where it is of the process that was started last; else None."""
        process, status = self.process(), self.status()
        return status if process is not None and status is not None and status.token == process.token else None

    def process(self) -> Process | None:
        """The process started last, be it alive or not; None: there was none."""
        known = self._read("process")
        pid, token, host = (known.get(name) for name in ("pid", "token", "host"))
        if not (isinstance(pid, int) and isinstance(token, str) and isinstance(host, str)):
            return None
        return Process(pid, token, host)

    def _read(self, name: str) -> dict[str, Any]:
        file = self.path / f"{name}.json"
        try:
            return read_json(file, _REMEDY)
        except InputError:  # not there, or damaged: then nothing is known, and a run folder says most of it
            return {}

    def _write(self, name: str, data: dict[str, Any]) -> None:
        with writing(self.path, _MEND):
            write_json(self.path / f"{name}.json", data)


@dataclass(frozen=True)
class Process:
    """A training process that was started for a panel.

    Attributes:
        pid: its number on ``host``.
        token: a word in its command line that no other process has: a pid alone may be another's by now, and the time that a
            process began at shifts when the machine's clock is set.
        host: name of the machine.
    """

    pid: int
    token: str
    host: str

    @property
    def elsewhere(self) -> bool:
        """Whether it is, or was, another machine's, so that nothing here tells whether it lives."""
        return self.host != socket.gethostname()

    @property
    def alive(self) -> bool:
        """Whether it runs on this machine. A process that has ended and was not waited for yet has no command line."""
        try:
            for _ in range(0 if self.elsewhere else 3):
                if words := psutil.Process(self.pid).cmdline():
                    return self.token in words
                time.sleep(0.01)  # nor has one, for a moment, that begins
        except psutil.Error:
            pass
        return False


def writer_of(run: Path) -> int | None:
    """The pid of the process that has the run folder locked, whoever started it; None: none of this user's on this machine.

    The number in the lock's file stays when its writer is gone; whether it has the file open is asked of the system.
    """
    lock = run / layout.LOCK
    try:
        pid = int(lock.read_text())
        return pid if any(file.path == str(lock) for file in psutil.Process(pid).open_files()) else None
    except (OSError, ValueError, psutil.Error):
        return None


def _lock(handle: int, folder: Path) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > end:
                raise InputError(f"training in {folder} is being started by another kernel; try again") from error
        time.sleep(0.02)
