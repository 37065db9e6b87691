"""Figures as a notebook stores them, and how one that is shown is drawn anew."""

from __future__ import annotations

import json
from typing import Any

import plotly.graph_objects as go

MIMETYPE = "application/vnd.plotly.v1+json"
_USUAL = 450  # pixels, plotly's own height


def bundle(figure: go.Figure) -> dict[str, Any]:
    """A figure as plain data, by its type.

    As such it is displayed raw: a figure given to ``display`` shows itself anew each time, whatever the display id.
    """
    return {MIMETYPE: json.loads(figure.to_json())}


def redraw(handle: Any, drawn: dict[str, Any]) -> None:
    """Draw a ``bundle`` in the place of the one that a display handle shows.

    JupyterLab's plotly renderer leaves a figure that it has drawn as it is, whatever comes: something else must come between.
    """
    handle.update(_blank(drawn), raw=True)
    handle.update(drawn, raw=True)


def fill(area: Any, drawn: dict[str, Any]) -> None:
    """Draw a ``bundle`` in an ``Output`` widget, as ``redraw`` does. Set, not captured: what a cell prints meanwhile stays out."""
    for data in (_blank(drawn), drawn):
        area.outputs = ({"output_type": "display_data", "data": data, "metadata": {}},)


def _blank(drawn: dict[str, Any]) -> dict[str, str]:
    """As high as the figure, so that the page does not jump."""
    return {"text/html": f"<div style='height: {drawn[MIMETYPE]['layout'].get('height', _USUAL)}px'></div>"}
