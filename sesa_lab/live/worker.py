"""The training process: ``python -m sesa_lab.live.worker RUN TOKEN`` trains or resumes RUN and does what panels ask for.

Training itself is the ordinary one (``training.loop``), and pausing or stopping it changes no result: both happen between steps.
"""

from __future__ import annotations

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
from sesa_lab.runs.files import read_json

LOOK_SECONDS = 0.2
"""Between two looks at what is wanted, while paused."""
SAY_SECONDS = 0.25
"""Between two words about steps, at least: saying waits for the disk, and a step of a small policy is sooner done."""
RECENT = 20
"""Steps that the speed is measured on, at least; as many as from one evaluation to the next where that is more."""
TRACE_LINES, CAUSE_LETTERS = 30, 2000


class Stopped(Exception):
    """Raised between two steps where a panel asked for an end."""


class Reporter:
    """Says after every step where the run is, and does what is wanted."""

    def __init__(self, folder: Folder, token: str) -> None:
        self.folder = folder
        self.status = Status(token)
        self.steps = 0  # the run's last; what is wanted after it comes too late
        self._seconds: deque[float] = deque(maxlen=RECENT)
        self._since: float | None = None
        self._said = -SAY_SECONDS

    def expect(self, config: Config) -> None:
        """The settings of the run that is about to go on."""
        self.steps = config.run.steps
        self._seconds = deque(maxlen=max(RECENT, config.run.evaluate_every))

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
        while (wanted := self.folder.wanted()) == "pause":
            if self.status.state != "paused":
                self.say(state="paused")
            time.sleep(LOOK_SECONDS)
        if wanted == "stop":
            raise Stopped
        if self.status.state == "paused":
            self.say(state="running")

    def say(self, **changes: Any) -> None:
        """Change the status, for all who watch."""
        self.status = dataclasses.replace(self.status, **changes)
        self.folder.say(self.status)
        self._said = time.monotonic()

    def failed(self, error: BaseException) -> None:
        """Say what the run died of."""
        cause = "".join(traceback.format_exception_only(error)).strip()
        if isinstance(error, InputError):  # its message is all that its user needs
            cause = str(error)
        lines = "".join(traceback.format_exception(error)).splitlines()
        mistake = isinstance(error, InputError)
        trace = "\n".join(line[:CAUSE_LETTERS] for line in lines[-TRACE_LINES:])
        self.say(state="failed", cause=cause[:CAUSE_LETTERS], mistake=mistake, trace=trace)


def main(run: str, token: str) -> int:
    """Train or resume until the end, a stop or a failure; returns the exit code."""
    folder = Folder.of(run)
    reporter = Reporter(folder, token)
    try:
        _train(folder, reporter)
    except Stopped:
        reporter.say(state="stopped")
    except BaseException as error:  # whatever it was, those who watch are to read it
        traceback.print_exception(error)
        reporter.failed(error)
        return 1
    else:
        reporter.say(state="finished")
    return 0


def _train(folder: Folder, reporter: Reporter) -> None:
    from sesa_lab.training import (
        loop,
    )  # here: torch takes seconds to load, and a failure to load it is to be reported too

    if folder.wanted() == "stop":
        raise Stopped
    if layout.is_run(folder.run):
        reporter.expect(runs.load(folder.run).config)
        loop.resume(folder.run, reporter.advance)
    else:
        config = Config.from_dict(read_json(folder.path / SETTINGS, "start the run anew"))
        reporter.expect(config)
        loop.train(config, folder.run, reporter.advance)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main(str(Path(sys.argv[1])), sys.argv[2]))
