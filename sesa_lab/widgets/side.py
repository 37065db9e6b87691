"""One of the runs that an inspector shows, and the group of it that is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sesa_lab import runs
from sesa_lab.errors import short
from sesa_lab.runs.browse import Groups
from sesa_lab.widgets import payload
from sesa_lab.widgets.expansion import Expander
from sesa_lab.widgets.frames import Stage
from sesa_lab.widgets.payload import Shown
from sesa_lab.widgets.tokens import Speller, find


class Side:
    """A run, what is read of it, and who replays and expands it.

    Attributes:
        groups: its index.
        stage: replays its candidates.
        speller: its tokenizer, where there is one.
        expander: expands its sketches, where somebody was handed in.
        shown: the group that is shown; None: there is none.
        listed: that group as the list shows it (``payload.summary``); empty: there is none.
    """

    def __init__(self, run: runs.Run | str | Path, tokenizer: str | Path | None, expander: Expander | None) -> None:
        """Read the index; no group is shown yet.

        Raises:
            InputError: no run folder, or no tokenizer at ``tokenizer``.
        """
        self.given = tokenizer
        self.expander = expander
        self.shown: Shown | None = None
        self.listed: dict[str, Any] = {}
        self.speller: Speller | None = None
        self.groups = Groups(run if isinstance(run, runs.Run) else runs.load(run))
        self.stage = Stage(self.run)
        self.open(self.groups)

    @property
    def run(self) -> runs.Run:
        return self.groups.run

    def open(self, groups: Groups) -> None:
        """Show this index of the run from now on."""
        if groups.run.config.environment != self.run.config.environment:  # it was made anew
            self.stage = Stage(groups.run)
        self.groups = groups
        if self.speller is None:
            self.speller = find(self.run, self.given)

    def show(self, step: int, group: int | None) -> None:
        """Read one group; None: there is none to be shown."""
        self.shown = None if group is None else Shown.read(self.groups, step, group)
        self.listed = {} if self.shown is None else payload.summary(self.shown)

    def compare(self, first: Side) -> None:
        """Say so where a task of the same number is another one here: its number means nothing across environments."""
        if self is first or not self.listed or self.listed["prompt"] == first.listed["prompt"]:
            return
        ours, theirs = self.run.config.environment.options, first.run.config.environment.options
        names = [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]
        other = ", ".join(f"{name} = {short(ours.get(name))}, not {short(theirs.get(name))}" for name in names)
        self.listed["note"] = f"task {self.listed['task']} is another one in this run ({other or 'prompts differ'})"
