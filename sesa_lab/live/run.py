"""A run whose training goes on, or may go on, in a process of its own: what a notebook holds of it."""

from __future__ import annotations

import time
from pathlib import Path

from sesa_lab import runs
from sesa_lab.errors import InputError
from sesa_lab.live import process
from sesa_lab.live.folder import Folder
from sesa_lab.live.panel import Panel
from sesa_lab.live.state import OURS, RESUMABLE, State, Watcher

LOOK_SECONDS = 0.5


class LiveRun:
    """Made by ``live.train`` and ``live.attach``. A notebook shows it as its panel; its methods do what the buttons do.

    It holds nothing of the training: there may be several of one run, in several kernels, and all show the same.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._watcher = Watcher(folder)

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder.run

    @property
    def log(self) -> Path:
        """What the training process wrote to stdout and stderr."""
        return self.folder.log

    @property
    def state(self) -> State:
        """How the training stands now."""
        return self._watcher.look()

    @property
    def run(self) -> runs.Run:
        """The run as far as it has come; an ``InputError`` where it has not begun."""
        return runs.load(self.path)

    @property
    def panel(self) -> Panel:
        """Progress, remaining time, curves and buttons: the one of this run in this kernel."""
        return Panel.of(self._watcher, {"Pause": self.pause, "Stop": self.stop, "Resume": self.resume})

    def pause(self) -> None:
        """Let the process hold after the step that it is at; before the first, after reading the policy, or evaluating it.

        It keeps its memory; ``resume`` lets it go on at once.

        Raises:
            InputError: no process of ours trains.
        """
        self._ask("pause")

    def stop(self) -> None:
        """Let the process end where ``pause`` would let it hold; ``resume`` goes on from the last checkpoint.

        Raises:
            InputError: no process of ours trains.
        """
        self._ask("stop")

    def resume(self) -> None:
        """Go on: at once where the process is paused, else in a new process, from the last checkpoint to the same end.

        A process that is ending just now begins again once it has (state ``resuming``), whether this kernel lives then or not.

        Raises:
            InputError: it is finished, or another process trains it.
        """
        if self.state.name in OURS:
            with self.folder.alone():  # nor does a process that stops decide meanwhile that nothing else is wanted
                if self.state.name in OURS:
                    return self.folder.ask("run")
        state = self.state
        if state.name not in RESUMABLE:
            raise InputError(f"{self.path} cannot be resumed: {_words(state)}")
        process.go_on(self.folder)

    def wait(self, timeout: float | None = None) -> runs.Run:
        """Wait until nobody trains the run and return it; for scripts, and notebooks that are executed as a whole.

        An interrupt (Stop in a notebook) ends the waiting, not the training.

        Args:
            timeout: seconds; None: as long as it takes, pauses included.

        Raises:
            InputError: training failed by a mistake in what it was given.
            RuntimeError: it failed by something else, or its process was killed; the message has the cause.
            TimeoutError: it goes on still.
        """
        begun = time.monotonic()
        while not (state := self.state).ended:
            if timeout is not None and time.monotonic() - begun > timeout:
                raise TimeoutError(f"{self.path} after {timeout} s: {_words(state)}")
            time.sleep(LOOK_SECONDS)
        if (panel := Panel.opened(self.path)) is not None:
            panel.refresh(anew=True)  # from this very cell: papermill drops what a thread sends
        if state.name in ("failed", "killed"):
            kind = InputError if state.mistake else RuntimeError
            raise kind(f"training of {self.path} {_words(state)}: {state.cause or 'no word in its log'}")
        return self.run

    def _ask(self, wanted: str) -> None:
        state = self.state
        if state.name not in OURS:
            raise InputError(f"{self.path} cannot be asked to {wanted}: {_words(state)}")
        self.folder.ask(wanted)

    def __repr__(self) -> str:
        return f"LiveRun({str(self.path)!r}: {_words(self.state)})"

    def _ipython_display_(self) -> None:
        self.panel.show()


def _words(state: State) -> str:
    who = f", process {state.pid}" if state.pid is not None and not state.ended else ""
    return f"{state.name} at step {state.step} of {state.steps}{who}"
