"""Starting the training process of a run, once, and apart from the kernel that asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

from sesa_lab import runs
from sesa_lab.config import Config
from sesa_lab.errors import InputError, writing
from sesa_lab.live.folder import SETTINGS, Folder, Status, writer_of
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
    with folder.alone():
        known, said = folder.process(), folder.own_status()
        if known is not None and known.alive and not (said is not None and said.last):
            raise InputError(f"{folder.run} is being trained already, by process {known.pid}; see live.attach")
        _check_unlocked(folder, known is not None and known.elsewhere)
        if config is not None:
            write_json(folder.path / SETTINGS, config.to_dict())
        folder.ask("run")
        folder.say(Status(token))
        lock = folder.hold()
        try:
            with open(folder.log, "ab") as log:
                child = subprocess.Popen(
                    [sys.executable, "-X", "faulthandler", "-m", "sesa_lab.live.worker", str(folder.run), token],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[lock],  # it has the lock from its first moment on
                    start_new_session=True,  # what ends a kernel, or interrupts it, is sent to its whole process group
                )
        finally:
            os.close(lock)
        folder.name_process(child.pid, token)
    reap()
    _children.append(child)


def _check_unlocked(folder: Folder, elsewhere: bool) -> None:
    """Raises ``InputError`` where a process, be it another machine's that shares the disk, writes the run or is about to."""
    run = folder.run
    if runs.in_use(run) or (elsewhere and runs.in_use(folder.path)):
        raise InputError(f"another process (pid {writer_of(run) or 'unknown'}) is writing {run}; wait for it or end it")
