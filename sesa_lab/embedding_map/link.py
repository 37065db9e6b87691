"""An inspector that follows a panel: the samples that were selected there, one after another, by two buttons."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import ipywidgets as widgets
import pandas as pd

from sesa_lab.errors import InputError, short
from sesa_lab.plots.theme import escape
from sesa_lab.runs.load import Run


class Place(NamedTuple):
    """Where a sample is in its run; ``number`` is the index of a candidate, or of a sketch."""

    step: int
    group: int
    number: int
    task: int


class Link:
    """Moves an inspector through samples of its runs.

    Attributes:
        inspector: a ``SketchInspector``; None: nobody follows.
        places: the samples that are walked through.
        at: which of them the inspector was asked for, from 0.
        box: the two buttons and a note, e.g. "2 of 3: step 8, group 4, candidate 1"; hidden while there is nothing to walk through.
    """

    def __init__(self, inspector: Any) -> None:
        """Link; whoever does so checks ``runs`` before anything is moved.

        Args:
            inspector: see ``inspector``.

        Raises:
            InputError: it is no inspector.
        """
        runs_of(inspector)  # refuses what is none
        self.inspector = inspector
        self.places: list[Place] = []
        self.at = 0
        self._of: Run | None = None
        self._wanted: Mapping[str, Any] = {}
        self._candidate: Callable[[Place], int] | None = None
        # A button may be pressed while a cell selects something else.
        self._lock = threading.RLock()
        self._note = widgets.HTML()
        wide = {"layout": {"width": "90px"}}
        self._before = widgets.Button(description="previous", tooltip="the sample before, in the inspector", **wide)
        self._after = widgets.Button(description="next", tooltip="the sample after it, in the inspector", **wide)
        self._before.on_click(lambda _: self.go(-1))
        self._after.on_click(lambda _: self.go(1))
        self.box = widgets.HBox([self._before, self._after, self._note], layout={"flex_flow": "row wrap"})
        self._tell()

    @property
    def runs(self) -> list[Run]:
        """The inspector's, as it last read them."""
        return runs_of(self.inspector)

    @property
    def said(self) -> str:
        """The note beside the buttons, as HTML."""
        return str(self._note.value)

    def follow(
        self,
        run: Run,
        rows: pd.DataFrame,
        wanted: Mapping[str, Any] | None = None,
        candidate: Callable[[Place], int] | None = None,
    ) -> None:
        """Walk through samples, and show the first.

        Args:
            run: theirs.
            rows: columns step, group, index and task; in the order of the walk; none: the inspector stays where it is.
            wanted: its filter; what is not named is reset, for it could hide what was selected.
            candidate: place of a sketch -> the candidate that stands for it; None: places are those of candidates.
        """
        with self._lock:
            columns = ["step", "group", "index", "task"]
            self.places = [Place(*map(int, row)) for row in rows[columns].itertuples(index=False)]
            self.at, self._of, self._wanted, self._candidate = 0, run, dict(wanted or {}), candidate
            self._show()

    def go(self, by: int) -> None:
        """Show the sample so many places further on; at either end the last one stays."""
        with self._lock:
            self.at = min(max(0, self.at + by), max(0, len(self.places) - 1))
            self._show()

    def refresh(self) -> None:
        """Let the inspector read its runs again."""
        if self.inspector is not None:
            self.inspector.refresh()

    def _show(self) -> None:
        why = ""
        if self.inspector is not None and self.places:
            try:
                self._move(self.places[self.at])
            except InputError as error:
                why = f"; not shown in the inspector: {error}"
        self._tell(why)

    def _move(self, place: Place) -> None:
        """Move the inspector.

        Raises:
            InputError: it cannot show this sample; it stays where it was.
        """
        assert self._of is not None
        own = [run.path.resolve() for run in self.runs]
        if (path := self._of.path.resolve()) not in own:
            raise InputError(
                f"it is of {self.runs[0].label} alone; open it on both runs, SketchInspector(first, second), to look at"
                f" samples of {self._of.label}"
            )
        side = own.index(path)
        group = self._beside(place) if side else place.group
        index = place.number if self._candidate is None else self._candidate(place)
        self.inspector.step = place.step
        self.inspector.group = group
        self.inspector.filter = dict(self._wanted)
        chosen = list(self.inspector.candidates)
        chosen[side] = index
        self.inspector.candidates = chosen

    def _beside(self, place: Place) -> int:
        """The group of the inspector's first run beside which its second run's sample is shown: that of the same task."""
        first, second = self.runs
        for run, wanted in ((second, place.group), (first, None)):
            rows = run.read_rollouts(["group", "task"], [place.step])
            there = rows.loc[rows["task"] == place.task, "group"]
            found = int(there.min()) if len(there) else None
            if found is None or (wanted is not None and found != wanted):
                lacks = f"shows group {found} for" if found is not None else "has no group with"
                raise InputError(
                    f"{run.label} {lacks} task {place.task} at step {place.step}, and the second run of an inspector follows"
                    f" the first by its task; open one with {second.label} first"
                )
        assert found is not None
        return found

    def _tell(self, why: str = "") -> None:
        last = len(self.places) - 1
        self._before.disabled, self._after.disabled = self.at <= 0, self.at >= last
        self.box.layout.display = None if self.inspector is not None and self.places else "none"
        if self.places:
            place = self.places[self.at]
            what = "candidate" if self._candidate is None else "sketch"
            said = f"{self.at + 1} of {len(self.places)}: step {place.step}, group {place.group}, {what} {place.number}"
            self._note.value = f"<b>{said}</b>{escape(why, 400)}"
        else:
            self._note.value = ""


def runs_of(inspector: Any) -> list[Run]:
    """The runs that a ``SketchInspector`` shows, the first one first; none where there is no inspector.

    Raises:
        InputError: it is none.
    """
    if inspector is None:
        return []
    found = getattr(inspector, "runs", None)
    if not isinstance(found, list):
        raise InputError(f"inspector = {short(inspector)}, expected a SketchInspector of sesa_lab.widgets, or None")
    return found


def check_among(found: Sequence[Run], known: Sequence[Run], said: str) -> None:
    """Refuse a link of panels that do not look at the same runs: the one would show other samples than the other selects.

    Args:
        found: runs that have to be among ``known``.
        known: see ``found``.
        said: what they are and how to mend it, for the message; ``{found}`` and ``{known}`` are filled in.

    Raises:
        InputError: one of them is not.
    """
    paths = {run.path.resolve() for run in known}
    if any(run.path.resolve() not in paths for run in found):
        raise InputError(said.format(found=_told(found), known=_told(known)))


def _told(runs: Sequence[Run]) -> str:
    return " and ".join(str(run.path.resolve()) for run in runs)
