"""How a run's training stands, put together from what its process says, whether that lives, and what the run folder holds."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sesa_lab import runs
from sesa_lab.errors import InputError
from sesa_lab.live.folder import SETTINGS, Folder, Process, Status, writer_of
from sesa_lab.live.process import reap
from sesa_lab.runs import layout
from sesa_lab.runs.files import read_json, reading

RECENT = 20
PATIENCE = 10
"""A growing run is read again after so many times what the last reading took, so that long runs do not keep a kernel busy."""
LOG_BYTES, LOG_LINES = 4096, 12
OURS = ("starting", "evaluating", "running", "pausing", "paused", "stopping", "resuming")
"""States of a process that listens to panels."""
RESUMABLE = ("pausing", "paused", "stopping", "stopped", "failed", "killed", "idle")


@dataclass(frozen=True)
class State:
    """How a run's training stands.

    Attributes:
        name: ``starting`` (policy and engine are being read), ``evaluating`` (the policy, before its first step), ``running``,
            ``pausing`` and ``stopping`` (asked for; ``doing`` is under way), ``paused``, ``resuming`` (it stops, and was asked
            since to go on: it begins again once it has), ``stopped``, ``finished``, ``failed`` (its process said why), ``killed``
            (its process is gone and said nothing), ``foreign`` (a process that no panel started, which so does not listen),
            ``unseen`` (a process that cannot be seen from here has the lock of the run: another machine's, or another user's),
            ``idle`` (not finished, and nobody trains it).
        step: the last step taken; ``steps``: the last one to take.
        remaining: seconds to the end at the speed of the recent steps; None: nobody trains, or no step was taken yet.
        pid: of the process that trains, or trained last where that is known.
        host: of its machine, where that is another one.
        cause: why it failed; of a killed one the last lines of its log.
        trace: the last lines of the traceback.
        mistake: whether the cause is a user's mistake, so that the trace tells nothing more.
        doing: of a process that listens, what it says that it does: a state of ``folder.Status``.
    """

    name: str
    step: int = 0
    steps: int = 0
    remaining: float | None = None
    pid: int | None = None
    host: str = ""
    cause: str = ""
    trace: str = ""
    mistake: bool = False
    doing: str = ""

    @property
    def ended(self) -> bool:
        """Whether no process is known to train."""
        return self.name not in (*OURS, "foreign", "unseen")


class Watcher:
    """Looks at one run again and again; its folder is read only when it has changed.

    Of a process on this machine its command line tells whether it lives. Whether one of another machine does, or of a container
    that is no more, only locks (flock) tell, and these are taken to hold for all who share the disk: so it is on one machine's
    own disks, on NFS as Linux mounts it, and on Lustre mounted with ``flock``. Where a mount keeps them to each machine
    (``nolock``, ``local_lock``, ``localflock``), a process that lives elsewhere is taken for killed: do not resume it here.

    Attributes:
        run: as it was last read; None: there is none yet.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.run: runs.Run | None = None
        self._seen: tuple[Any, ...] | None = None
        self._lock = threading.Lock()  # a panel's thread looks too
        self._next = 0.0
        self._steps = 0  # that the settings ask for, while there is no run

    def look(self) -> State:
        """How it stands now.

        Raises:
            InputError: the run's files are damaged.
        """
        with self._lock:
            return self._look()

    def _look(self) -> State:
        reap()
        process = self.folder.process()
        alive = process is not None and process.alive
        said = self.folder.own_status()  # after that: of a process that has ended it is the last word
        alive = alive and not (said is not None and said.last)
        writer = None if alive else writer_of(self.folder.run)
        self._read(patient=alive or writer is not None)  # after that: what a process wrote before it ended is in it
        if process is not None and alive:
            return self._training(process, said or Status(process.token))
        if writer is not None:
            return State("foreign", self._done(), self._last(), self._speed() * self._left() or None, writer)
        return self._ended(process, said if not self._outdated(process) else None)

    def _training(self, process: Process, status: Status) -> State:
        wanted, name = self.folder.wanted(), status.state
        if name == "stopping":
            name = "stopping" if self.folder.wanted("stop") == "stop" else "resuming"
        elif wanted == "stop":
            name = "stopping"
        elif wanted == "pause" and name != "paused":
            name = "pausing"
        # Before its first step, lines beyond the checkpoint are an earlier process's, and about to be cut away.
        step = max(status.step, self._done()) if status.step else self._committed()
        left = (self._last() - step) * status.seconds_per_step if status.seconds_per_step else None
        return State(name, step, self._last(), left, process.pid, doing=status.state)

    def _ended(self, process: Process | None, status: Status | None) -> State:
        step, last, pid = self._done(), self._last(), process.pid if process is not None else None
        if self.run is not None and self.run.finished:
            return State("finished", last, last)
        if process is None or status is None:
            return State("unseen" if self._held(unknown=False) else "idle", step, last)
        if status.state in ("stopped", "failed"):
            return State(status.state, step, last, None, pid, "", status.cause, status.trace, status.mistake)
        if process.elsewhere and self._held(unknown=True):
            return State("unseen", step, last, None, pid, process.host)
        return State("killed", step, last, None, pid, process.host if process.elsewhere else "", self._log())

    def _held(self, unknown: bool) -> bool:
        """Whether some process has the run, or is about to; ``unknown``: the answer where the locks cannot be asked."""
        try:
            return runs.in_use(self.folder.path) or runs.in_use(self.folder.run)
        except OSError:
            return unknown

    def _outdated(self, process: Process | None) -> bool:
        """Whether another process trained the run after the one that was started for a panel."""
        try:
            lock = self.folder.run / layout.LOCK
            said = (self.folder.path / "status.json").stat().st_mtime_ns
            return process is None or (lock.stat().st_mtime_ns > said and lock.read_text().strip() != str(process.pid))
        except OSError:
            return False

    def _read(self, patient: bool) -> None:
        folder = self.folder.run
        if not layout.is_run(folder):
            self.run, self._seen = None, None
            return
        begun = time.monotonic()
        with reading(folder):
            seen = (_stamp(folder / layout.METRICS), _stamp(folder / layout.CONFIG), layout.checkpoints(folder))
            if seen != self._seen and not (patient and begun < self._next):
                self.run, self._seen = runs.load(folder), seen
                now = time.monotonic()
                self._next = now + PATIENCE * (now - begun)

    def _last(self) -> int:
        if self.run is not None:
            return self.run.config.run.steps
        if not self._steps:
            try:
                steps = read_json(self.folder.path / SETTINGS, "")["run"]["steps"]
            except (InputError, KeyError, TypeError):  # damaged: whoever trains from it will say so
                steps = 0
            self._steps = steps if isinstance(steps, int) else 0
        return self._steps

    def _committed(self) -> int:
        return self.run.checkpoints[-1][0] if self.run is not None and self.run.checkpoints else 0

    def _done(self) -> int:
        logged = int(self.run.steps["step"].iloc[-1]) if self.run is not None and len(self.run.steps) else 0
        return max(logged, self._committed())

    def _left(self) -> int:
        return self._last() - self._done()

    def _speed(self) -> float:
        """Seconds a step, evaluations and checkpoints left out, as the run's own lines say; 0 where there is none."""
        if self.run is None or not len(self.run.steps):
            return 0.0
        spent: pd.DataFrame = self.run.steps[["seconds_draw", "seconds_score", "seconds_update"]].tail(RECENT)
        return float(spent.sum(axis=1).mean())

    def _log(self) -> str:
        try:
            with open(self.folder.log, "rb") as file:
                file.seek(max(0, self.folder.log.stat().st_size - LOG_BYTES))
                text = file.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-LOG_LINES:])


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
