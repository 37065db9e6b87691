"""What panels that list a run's samples share: controls that are set together, and the list itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ipywidgets as widgets
import pandas as pd

from sesa_lab.errors import InputError
from sesa_lab.plots.theme import UNREADABLE, escape

MOST_LISTED = 12
"""Samples in a panel."""


class Panel(widgets.VBox):  # type: ignore[misc]  # ipywidgets is not annotated
    """A box of controls and what they change; whoever observes a control asks ``_quiet`` first."""

    _quiet = False

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Controls that are set in the body change nothing that is shown: it follows once, when all of them are set."""
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False


def cut(found: int) -> str:
    """What a heading says where more samples were found than are listed; else nothing."""
    return f"; the first {MOST_LISTED}:" if found > MOST_LISTED else ""


def sample_table(rows: pd.DataFrame) -> str:
    """The first samples as an HTML table, every text escaped; columns reward, success and strategy among others."""
    if not len(rows):
        return ""
    cells = ["".join(f"<th style='text-align: left; padding: 0 8px'>{name}</th>" for name in rows.columns)]
    for row in rows.head(MOST_LISTED).to_dict("records"):
        row["reward"] = "undefined" if pd.isna(row["reward"]) else f"{row['reward']:.3g}"
        row["success"] = "yes" if row["success"] else "no"
        row["strategy"] = UNREADABLE if pd.isna(row["strategy"]) else row["strategy"]
        cells.append("".join(f"<td style='padding: 0 8px'>{escape(value, 90)}</td>" for value in row.values()))
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in cells)}</table>"


def reload_button(reload: Callable[[], None]) -> Any:
    """A small button that reads a run again; where that fails it says why, beside itself."""
    button = widgets.Button(
        description="reload", tooltip="read again what has been written since", layout={"width": "80px"}
    )
    said = widgets.HTML()

    def pressed(_: Any) -> None:
        try:
            reload()
            said.value = ""
        except InputError as error:
            said.value = f"<small>{escape(error, 300)}</small>"

    button.on_click(pressed)
    return widgets.HBox([button, said])
