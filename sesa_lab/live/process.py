"""Starting the training process of a run, once, and apart from the kernel that asks for it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

from sesa_lab import runs
from sesa_lab.config import Config
from sesa_lab.errors import InputError, writing
from sesa_lab.live.folder import SETTINGS, STARTER, Folder, Status, writer_of
from sesa_lab.runs.files import write_json
from sesa_lab.runs.store import UNBORN

_children: list[subprocess.Popen[bytes]] = []  # those of this kernel; what has ended must be waited for by its parent


def begin(config: Config, out: str | Path) -> Folder:
    """Start training a new run in the folder ``out``.

    Raises:
        InputError: the folder is not empty, or a run is about to begin there.
    """
    folder = Folder.of(out)
    with writing(folder.run, "choose another --out"):
        if folder.run.exists() and set(os.listdir(folder.run)) - UNBORN:
            raise InputError(
                f"{folder.run} exists and is not empty; open its run with live.attach, or choose another folder for `out`"
            )
        folder.path.mkdir(parents=True, exist_ok=True)
    _start(folder, config)
    return folder


def go_on(folder: Folder) -> None:
    """Start a process that trains on from the last checkpoint, or from the start where the run never came into being.

    Raises:
        InputError: it is being trained already.
    """
    with writing(folder.path, "mend the folder's permissions or space"):
        folder.path.mkdir(exist_ok=True)
    _start(folder, None)


def reap() -> None:
    """Wait for the processes started here that have ended, so that they do not stay as zombies."""
    _children[:] = [child for child in _children if child.poll() is None]


def _start(folder: Folder, config: Config | None) -> None:
    token = uuid.uuid4().hex
    with writing(folder.path, "mend the folder's permissions or space"), _alone(folder.path / STARTER):
        known, said = folder.process(), folder.own_status()
        if known is not None and known.alive and not (said is not None and said.last):
            raise InputError(f"{folder.run} is being trained already, by process {known.pid}; see live.attach")
        _check_unlocked(folder.run)
        if config is not None:
            write_json(folder.path / SETTINGS, config.to_dict())
        folder.ask("run")
        folder.say(Status(token))
        with open(folder.log, "ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", "-m", "sesa_lab.live.worker", str(folder.run), token],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # what ends a kernel, or interrupts it, is sent to its whole process group
            )
        folder.name_process(child.pid, token)
    reap()
    _children.append(child)


def _check_unlocked(run: Path) -> None:
    """Raises ``InputError`` where a process, be it another machine's that shares the disk, writes the run."""
    if runs.in_use(run):
        raise InputError(f"another process (pid {writer_of(run) or 'unknown'}) is writing {run}; wait for it or end it")


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Holds the lock in the file ``lock`` for the body; an ``InputError`` where another has it."""
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"training in {lock.parent} is being started by another kernel") from error
        yield
    finally:
        os.close(handle)
