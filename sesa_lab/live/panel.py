"""The panel of a live run: progress, remaining time, curves and buttons.

The curves are a plain figure under a display id, below the widgets, not a widget: what is left in a saved notebook is the last
state drawn, and it reopens without a kernel. After the page was reloaded nothing reaches that figure any more, while widgets are
restored and go on: the button "Curves here" draws it anew inside the panel.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ipywidgets as widgets
from IPython import get_ipython
from IPython.display import display
from tqdm import tqdm

from sesa_lab.errors import InputError
from sesa_lab.live.figure import curves, sendable
from sesa_lab.live.state import OURS, RESUMABLE, State, Watcher
from sesa_lab.plots import notebook, theme

LOOK_SECONDS = 1.0
DRAW_SECONDS = 2.0
"""At least, between two drawings of the curves while the run goes on."""
COLOURS = {"finished": "success", "failed": "danger", "killed": "danger", "paused": "warning", "stopped": "warning"}
DOING = {
    "starting": ("starting: policy and engine are being read", "that"),
    "evaluating": ("starting: the policy is being evaluated before its first step", "that"),
    "running": ("running", "this step"),
}
"""What a process that listens is at, and after what it looks up."""
WORDS = {
    "paused": "paused; its process keeps its memory",
    "stopping": "stopping: what was done is being kept",
    "resuming": "stopping: what was done is being kept; goes on from there in a moment",
    "stopped": "stopped",
    "finished": "finished",
    "failed": "failed",
    "killed": "its process is gone without a word: killed, or out of memory",
    "foreign": "trained by a process that no panel started: it can be watched here, and paused or stopped only where it runs",
    "unseen": "trained by a process that cannot be seen from here: on another machine, or another user's",
    "idle": "not finished, and nobody trains it",
}


_open: weakref.WeakValueDictionary[Path, Panel] = weakref.WeakValueDictionary()  # by run folder


class Panel:
    """One for a run in a kernel (``of``), shown as often as you like: in several cells, and in one that is run again.

    Its widgets hold it, and ipywidgets holds them until they are closed, so that what a page shows goes on whether a variable holds
    it or not. The thread that follows the run holds nothing.
    """

    def __init__(self, watcher: Watcher, actions: Mapping[str, Callable[[], None]]) -> None:
        """``actions``: what the buttons ``Pause``, ``Stop`` and ``Resume`` do; an ``InputError`` of theirs is shown."""
        self.watcher = watcher
        self.head, self.text, self.note, self.refusal = (widgets.HTML() for _ in range(4))
        self.bar = widgets.IntProgress(layout={"width": "420px"})
        self.buttons = {name: widgets.Button(description=name) for name in actions}
        for name, action in actions.items():
            self.buttons[name].on_click(self._answer(action))
        self.here = widgets.ToggleButton(
            description="Curves here", tooltip="Where the figure below stands still, since the page was reloaded"
        )
        self.here.observe(lambda change: self.refresh(anew=True), "value")
        self.inner = widgets.Output()
        rows = [widgets.HBox([self.bar, self.text]), widgets.HBox([*self.buttons.values(), self.here])]
        self.box = widgets.VBox([self.head, *rows, self.refusal, self.note, self.inner])
        self.finished = False
        self._handles: dict[str, Any] = {}  # of the figures on the page, by cell: one that is run again shows a new one
        self._drawn: tuple[int, ...] = ()  # rows of the tables that the curves were drawn from
        self._drawn_at = 0.0
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @staticmethod
    def of(watcher: Watcher, actions: Mapping[str, Callable[[], None]]) -> Panel:
        """The panel of the watcher's run that is open in this kernel, else a new one."""
        panel = Panel.opened(watcher.folder.run)
        if panel is None:
            panel = _open[watcher.folder.run] = Panel(watcher, actions)
        return panel

    @staticmethod
    def opened(run: Path) -> Panel | None:
        """The panel of the run folder ``run`` that is open in this kernel."""
        return _open.get(run)

    def show(self) -> None:
        """Display it, and keep it up to date until the run is finished or the panel is closed."""
        self.refresh()
        display(self.box)  # type: ignore[no-untyped-call]
        bundle = self._bundle() or {"text/plain": ""}
        handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        if handle is not None:  # None outside of IPython
            self._handles[_cell()] = handle
        if self._thread is None or not self._thread.is_alive():
            following = (weakref.ref(self), self._closed)
            self._thread = threading.Thread(target=_follow, args=following, name="sesa-lab-panel", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Take the widgets away, for good, and stop looking; the training and the last curves stay."""
        self._closed.set()
        if _open.get(self.watcher.folder.run) is self:
            del _open[self.watcher.folder.run]
        rows = [row for row in self.box.children if isinstance(row, widgets.Box)]
        for widget in (self.box, *self.box.children, *(child for row in rows for child in row.children)):
            widget.close()

    def refresh(self, anew: bool = False) -> None:
        """Bring widgets and curves up to date; ``anew``: draw the curves whether there is news or not."""
        with self._lock:
            try:
                state = self.watcher.look()
            except InputError as error:  # damaged, or removed this moment; it is looked at again
                self.note.value = f"<b>{escape(error, 2000)}</b>"
                return
            self.finished = state.name == "finished"
            self._write(state)
            run = self.watcher.run
            rows = (len(run.steps), len(run.evaluations)) if run is not None else ()
            due = state.ended or time.monotonic() - self._drawn_at > DRAW_SECONDS
            if anew or (rows != self._drawn and due):
                self._drawn, self._drawn_at = rows, time.monotonic()
                self._draw()

    def _write(self, state: State) -> None:
        path = self.watcher.folder.run
        who = f", process {state.pid}" if state.pid is not None and not state.ended else ""
        machine = f" ({escape(state.host)})" if state.host else ""
        self.head.value = (
            f"<b>{escape(path.name)}</b>: {_words(state)}{machine}{who}"
            f"<br><small>{escape(path, 400)}; log: {escape(self.watcher.folder.log, 400)}</small>"
        )
        self.bar.max, self.bar.value = max(1, state.steps), state.step
        self.bar.bar_style = COLOURS.get(state.name, "")
        self.text.value = f"step {state.step} of {state.steps}{_remaining(state)}"
        self.buttons["Pause"].disabled = state.name not in DOING
        self.buttons["Stop"].disabled = state.name not in OURS or state.name == "stopping"
        self.buttons["Resume"].disabled = state.name not in RESUMABLE
        self.note.value = self._note(state)

    def _note(self, state: State) -> str:
        """Why it ended, and where it would go on."""
        if not state.ended or state.name == "finished":
            return ""
        if state.name not in ("failed", "killed"):
            return f"<small>{self._goes_on()}</small>"
        lines = [f"<b>{escape(state.cause, 2000)}</b>" if state.name == "failed" else "The last lines of its log:"]
        trace = state.trace if state.name == "failed" else state.cause
        if trace and not state.mistake:
            lines.append(f"<pre style='white-space: pre-wrap; line-height: 1.2'>{_lines(trace)}</pre>")
        return "<br>".join([*lines, f"<small>{self._goes_on()}</small>"])

    def _goes_on(self) -> str:
        run = self.watcher.run
        if run is None or not run.checkpoints:
            return "Resume begins at the start."
        return f"Resume goes on from the checkpoint of step {run.checkpoints[-1][0]}."

    def _answer(self, action: Callable[[], None]) -> Callable[[Any], None]:
        def clicked(button: Any) -> None:
            try:
                action()
                self.refusal.value = ""
            except InputError as error:
                self.refusal.value = f"<b>{escape(error, 2000)}</b>"
            self.refresh()

        return clicked

    def _bundle(self) -> dict[str, Any] | None:
        """The curves as what a notebook stores; None: there is nothing to draw yet."""
        run = self.watcher.run
        if run is None or not (len(run.steps) or len(run.evaluations)):
            return None
        return notebook.bundle(curves(run))

    def _draw(self) -> None:
        bundle = self._bundle()
        if bundle is None:
            return
        for handle in list(self._handles.values()):
            notebook.redraw(handle, bundle)
        if self.here.value:
            notebook.fill(self.inner, bundle)
        else:
            self.inner.outputs = ()


def _follow(panel: weakref.ref[Panel], closed: threading.Event) -> None:
    """Keep the panel up to date, as long as there is one, until its run is finished."""
    while not closed.wait(LOOK_SECONDS):
        if (shown := panel()) is None:
            return
        shown.refresh()
        if shown.finished:
            return
        del shown  # else it would be held while this waits


def _cell() -> str:
    """The id of the cell that is being run, as JupyterLab and VS Code tell it; else nothing."""
    parent: dict[str, Any] = getattr(get_ipython(), "get_parent", dict)()
    return str(parent.get("metadata", {}).get("cellId", ""))


def _words(state: State) -> str:
    """How it stands, and, where something was asked for, what it waits for."""
    if state.doing not in DOING:
        return WORDS[state.name]
    doing, after = DOING[state.doing]
    asked = {"pausing": "pauses", "stopping": "stops"}.get(state.name)
    return f"{doing}; {asked} after {after}" if asked else doing


def _remaining(state: State) -> str:
    if state.remaining is None:
        return ""
    words = f"{tqdm.format_interval(state.remaining)} left"
    return f", {words}" if state.name != "paused" else f", {words} once it goes on"


def escape(value: object, limit: int = 80) -> str:
    """Text for a page: one harmless line."""
    return theme.escape(sendable(value), limit)


def _lines(text: str) -> str:
    """Several lines for a page, each harmless; control characters shown as a dot."""
    return "\n".join(escape(line, 400) for line in text.splitlines())
