"""Outputs of code cells to HTML. Nothing an output says is trusted: text is escaped, tables are sanitised."""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import bleach

PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
_TAGS = frozenset(
    [
        "table",
        "caption",
        "colgroup",
        "col",
        "thead",
        "tbody",
        "tfoot",
        "tr",
        "th",
        "td",
        "p",
        "br",
        "b",
        "strong",
        "i",
        "em",
        "code",
        "pre",
        "ul",
        "ol",
        "li",
    ]
)
_ATTRIBUTES = {"th": ["colspan", "rowspan"], "td": ["colspan", "rowspan"]}
_IMAGES = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8", "image/svg+xml": b"<"}
"""Kinds of images with how their content begins."""
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
"""Colours and such; titles and links, which end with a bell, or an ESC and a backslash. No ESC inside: it took quadratic time."""


class Outputs:
    """Renders outputs and collects the figures, which the page packs together.

    Attributes:
        figures: plotly figures (``data``, ``layout``) in the order of their places on the page.
        errors: how many error outputs were met.
    """

    def __init__(self, markdown: Callable[[str], str]) -> None:
        self._markdown = markdown
        self.figures: list[dict[str, Any]] = []
        self.errors = 0

    def __call__(self, output: Mapping[str, Any]) -> str:
        """The HTML of one output of a notebook (nbformat 4)."""
        kind = output.get("output_type")
        if kind == "stream":
            return _stream(str(output.get("name")), _joined(output.get("text", "")))
        if kind == "error":
            return self._error(output)
        return self._data({key: value for key, value in output.get("data", {}).items() if value is not None})

    def _data(self, data: Mapping[str, Any]) -> str:
        """The richest form that can be shown safely; where there is none, a text that says what is missing."""
        if PLOTLY in data:
            return self._figure(data[PLOTLY])
        if WIDGET in data:
            return _note("A live widget; it works only in the notebook.")
        if "text/html" in data:
            cleaned = sanitise(_joined(data["text/html"]))
            table = f'<div class="table">{cleaned}</div>'
            return table if cleaned.strip() else _note("HTML that a report does not show.")
        for kind in _IMAGES:
            if kind in data:
                return _image(kind, _joined(data[kind]))
        if "text/markdown" in data:
            return self._markdown(_joined(data["text/markdown"]))
        if "text/plain" in data:
            return _pre(_joined(data["text/plain"]))
        return _note(f"Output of a kind that a report does not show: {', '.join(data) or 'empty'}.")

    def _figure(self, figure: Any) -> str:
        """A place for a figure; the text in it stays where no script can draw."""
        traces = figure.get("data") if isinstance(figure, dict) else None
        if not isinstance(traces, list) or not traces or not all(isinstance(trace, dict) for trace in traces):
            return _note("A figure without data.")
        layout = figure.get("layout") or {}
        title = layout.get("title") or {}
        said = (title.get("text") or "") if isinstance(title, dict) else title
        name = html.escape(html.unescape(str(said)))
        height = layout.get("height")
        style = f' style="min-height:{int(height)}px"' if isinstance(height, int | float) else ""
        self.figures.append(_plain({"data": traces, "layout": layout}))
        place = f'<div class="plot" data-figure="{len(self.figures) - 1}"{style}>'
        need = "It is drawn by a script; this needs JavaScript and a browser of 2023 or newer."
        return f'{place}<p class="note">Figure{": " if name else ""}{name}. {need}</p></div>'

    def _error(self, output: Mapping[str, Any]) -> str:
        self.errors += 1
        head = html.escape(f"{output.get('ename', 'Error')}: {output.get('evalue', '')}")
        trace = f"<details><summary>Traceback</summary>{_pre(chr(10).join(output.get('traceback', [])))}</details>"
        return f'<div class="error" role="alert"><strong>{head}</strong>{trace}</div>'


def sanitise(source: str) -> str:
    """HTML with tables and plain text marks only: no attributes but spans of cells, no style, no script, no link."""
    source = re.sub(r"<(style|script)\b.*?</\1\s*>", "", source, flags=re.S | re.I)
    return str(bleach.clean(source, tags=_TAGS, attributes=_ATTRIBUTES, strip=True, strip_comments=True))


def _stream(name: str, text: str) -> str:
    """What was printed; of lines that a progress bar wrote over, the last state; stderr folded."""
    lines = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n")]
    shown = _pre("\n".join(lines).strip("\n"))
    return f"<details><summary>Messages</summary>{shown}</details>" if name == "stderr" else shown


def _image(kind: str, data: str) -> str:
    """An image as a data address; in it not even an SVG's script runs. SVG comes as text, the others as base64."""
    try:
        content = data.encode() if kind == "image/svg+xml" else base64.b64decode("".join(data.split()), validate=True)
    except ValueError:
        content = b""
    if not content.lstrip().startswith(_IMAGES[kind]):
        return _note(f"An image ({kind}) that cannot be read.")
    return f'<img alt="output" src="data:{kind};base64,{base64.b64encode(content).decode()}">'


def _pre(text: str) -> str:
    return f"<pre>{html.escape(_ANSI.sub('', text))}</pre>"


def _note(text: str) -> str:
    return f'<p class="note">[{html.escape(text)}]</p>'


def _joined(text: Any) -> str:
    return "".join(text) if isinstance(text, list) else str(text)


def _plain(value: Any) -> Any:
    """JSON without NaN and infinities, which JSON.parse refuses."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
