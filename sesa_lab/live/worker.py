"""The training process: ``python -m sesa_lab.live.worker RUN TOKEN`` trains or resumes RUN and does what panels ask for.

Training itself is the ordinary one (``training.loop``), and pausing or stopping it changes no result: both happen between steps.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import os
import sys
import time
import traceback
from collections import deque
from pathlib import Path
from typing import Any

from sesa_lab import runs
from sesa_lab.config import Config
from sesa_lab.errors import InputError
from sesa_lab.live.folder import SETTINGS, Folder, Status
from sesa_lab.runs import layout
from sesa_lab.runs.files import read_json, write_json

LOOK_SECONDS = 0.2
"""Between two looks at what is wanted, while paused."""
SAY_SECONDS = 0.25
"""Between two words about steps, at least: saying waits for the disk, and a step of a small policy is sooner done."""
RECENT = 20
"""Steps that the speed is measured on, at least; as many as from one evaluation to the next where that is more."""
TRACE_LINES, CAUSE_LETTERS = 30, 2000


class Stopped(Exception):
    """Raised between two steps, or before the first, where a panel asked for an end."""


class Reporter:
    """Says where the run is, and does what is wanted: before the policy is read, before what follows, and after every step."""

    def __init__(self, folder: Folder, token: str) -> None:
        self.folder = folder
        self.status = Status(token)
        self.config: Config | None = None
        self.steps = 0  # the run's last; what is wanted after it comes too late
        self._seconds: deque[float] = deque(maxlen=RECENT)
        self._since: float | None = None
        self._said = -SAY_SECONDS
        self._lock: int | None = None  # that of a folder that was made anew
        self._complained = False

    def expect(self, config: Config) -> None:
        """The settings of the run that is about to go on."""
        self.config, self.steps = config, config.run.steps
        self._seconds = deque(maxlen=max(RECENT, config.run.evaluate_every))

    def begin(self, state: str) -> None:
        """Before what comes ahead of the first step, and before that: the loop's ``Begin``.

        Raises:
            Stopped: a panel asked for it.
        """
        self.obey()
        self.say(state=state)

    def advance(self, step: int, metrics: dict[str, Any]) -> None:
        """After every step: the loop's ``Progress``.

        Raises:
            Stopped: a panel asked for it.
        """
        own = sum(metrics[name] for name in ("seconds_draw", "seconds_score", "seconds_update"))
        self._seconds.append(own if self._since is None else time.monotonic() - self._since)
        speed = sum(self._seconds) / len(self._seconds)
        self.status = dataclasses.replace(self.status, state="running", step=step, seconds_per_step=speed)
        if time.monotonic() - self._said >= SAY_SECONDS:
            self.say()
        if step < self.steps:
            self.obey()
        self._since = time.monotonic()

    def obey(self) -> None:
        """Hold while a pause is wanted; raise ``Stopped`` where a stop is."""
        before = self.status.state
        while (wanted := self.folder.wanted()) == "pause":
            if self.status.state != "paused":
                self.say(state="paused")
            time.sleep(LOOK_SECONDS)
        if wanted == "stop":
            self.say(state="stopping")  # before the step is kept: what is wanted from here on is for the time after it
            raise Stopped
        if self.status.state == "paused":
            self.say(state=before)

    def say(self, **changes: Any) -> None:
        """Change the status, for all who watch. Where it cannot be written, training goes on, and its log says so once."""
        self.status = dataclasses.replace(self.status, **changes)
        self._said = time.monotonic()
        try:
            if self.folder.process() is None:  # the folder was removed
                self._name()
            self.folder.say(self.status)
        except (InputError, OSError) as error:
            if not self._complained:
                _log(f"{error}\nTraining goes on; panels show what was said before.")
            self._complained = True

    def _name(self) -> None:
        """Make the folder and the files by which panels find this process."""
        self.folder.path.mkdir(parents=True, exist_ok=True)
        if self.config is not None:
            write_json(self.folder.path / SETTINGS, self.config.to_dict())
        held, self._lock = self._lock, self.folder.hold()
        if held is not None:
            os.close(held)
        self.folder.name_process(os.getpid(), self.status.token)

    def ended(self) -> bool:
        """Whether nobody has wanted it to go on since it was told to stop; either way, those who watch are told.

        Nobody asks in the middle of this: ``LiveRun.resume`` comes before, and is heeded, or after, and starts a process.
        """
        try:
            with self.folder.alone():
                if self.folder.wanted("stop") != "stop":
                    self.status = Status(self.status.token)
                    self.say()
                    return False
                self.say(state="stopped")
        except InputError:  # the folder was removed, or cannot be written
            self.say(state="stopped")
        return True

    def failed(self, error: BaseException) -> None:
        """Say what the run died of."""
        cause = "".join(traceback.format_exception_only(error)).strip()
        if isinstance(error, InputError):  # its message is all that its user needs
            cause = str(error)
        lines = "".join(traceback.format_exception(error)).splitlines()
        mistake = isinstance(error, InputError)
        trace = "\n".join(line[:CAUSE_LETTERS] for line in lines[-TRACE_LINES:])
        self.say(state="failed", cause=cause[:CAUSE_LETTERS], mistake=mistake, trace=trace)


def main(run: str, token: str) -> int | None:
    """Train or resume until the end, a stop or a failure.

    Returns:
        the exit code; None: stopped, and asked to go on while it was stopping, which is for a process of an empty memory.
    """
    folder = Folder.of(run)
    reporter = Reporter(folder, token)
    try:
        _train(folder, reporter)
    except Stopped:
        return 0 if reporter.ended() else None
    except BaseException as error:  # whatever it was, those who watch are to read it
        _log("".join(traceback.format_exception(error)))
        reporter.failed(error)
        return 1
    else:
        reporter.say(state="finished")
    return 0


def _train(folder: Folder, reporter: Reporter) -> None:
    stored = runs.load(folder.run).config if layout.is_run(folder.run) else None
    config = stored or Config.from_dict(read_json(folder.path / SETTINGS, "start the run anew"))
    reporter.expect(config)

    from sesa_lab.training import (
        loop,
    )  # here: torch takes seconds to load, and a failure to load it is to be reported too

    reporter.obey()
    if stored is not None:
        loop.resume(folder.run, reporter.advance, reporter.begin)
    else:
        loop.train(config, folder.run, reporter.advance, reporter.begin)


def _log(text: str) -> None:
    with contextlib.suppress(OSError):  # the disk is full
        print(text.rstrip(), file=sys.stderr, flush=True)


def _begin_again(wished: list[bool]) -> None:
    """Become the process that this one was at its start: of the same number, name and lock, and of an empty memory."""
    if wished:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    wishes: list[bool] = []
    atexit.register(_begin_again, wishes)  # registered first, so called last
    code = main(str(Path(sys.argv[1])), sys.argv[2])
    if code is None:
        wishes.append(True)
    sys.exit(code)
