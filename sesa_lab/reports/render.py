"""Executed notebooks to one HTML file that opens from disk, with no network and no server.

Everything is inside the file. plotly's bundle and the figures' JSON are gzip in base64 (base64 cannot close a script
element, so no text of a figure can either); a content security policy allows the two scripts by their hashes and no
request at all, should anything hostile get past the escaping.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from plotly.offline import get_plotlyjs

from sesa_lab.errors import InputError
from sesa_lab.reports.markdown import Heading, Markdown
from sesa_lab.reports.outputs import Outputs
from sesa_lab.runs.files import write_atomic

_HERE = Path(__file__).parent
_ERROR_MARKS = {"papermill-error-cell-tag"}
"""Cells that papermill adds around an error; the report has its own banner."""
_NEED_EVAL = ("gl", "3d", "surface", "splom", "parcoords", "isosurface", "volume", "cone", "streamtube")
"""Ends of trace types that are drawn by WebGL; its library compiles functions, which the policy must then allow."""


def render(executed_notebooks: Sequence[Path], out: Path, title: str) -> Path:
    """Writes the report; returns ``out``.

    Args:
        executed_notebooks: in reading order; errors in them are shown in red, not raised.
        out: the HTML file; its folder is made.
        title: of the page.

    Raises:
        InputError: no notebook, or a file that is none.
    """
    if not executed_notebooks:
        raise InputError("no notebook to render, expected at least one: execute a notebook first")
    markdown = Markdown()
    outputs, sections = Outputs(markdown), []
    for path in executed_notebooks:
        before = outputs.errors
        body = _section(_read(path), path, markdown, outputs)
        if outputs.errors > before:
            body = _banner(f"{path.name} stopped with an error; what follows is incomplete.") + body
        sections.append(f"<section>{body}</section>")
    page = _page(title, markdown.headings, "\n".join(sections), outputs.figures)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, lambda file: file.write(page.encode()))
    return out


def _read(path: Path) -> Any:
    """A notebook, brought to nbformat 4."""
    try:
        return nbformat.reads(Path(path).read_text(encoding="utf-8"), as_version=4)  # type: ignore[no-untyped-call]
    except FileNotFoundError:
        raise InputError(f"{path} does not exist, expected an executed notebook: execute it first") from None
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, UnicodeDecodeError, AttributeError, KeyError) as e:
        raise InputError(f"{path} is not a notebook ({type(e).__name__}), expected an .ipynb file") from e


def _section(notebook: Any, path: Path, markdown: Markdown, outputs: Outputs) -> str:
    """One notebook: its own title or the file's name, when it ran, its cells."""
    cells = [cell for cell in notebook.cells if not _ERROR_MARKS & set(cell.metadata.get("tags", []))]
    parts = []
    if not (cells and cells[0].cell_type == "markdown" and cells[0].source.lstrip().startswith("# ")):
        parts.append(markdown.heading(html.escape(path.stem), 2))
    parts += [_cell(cell, markdown, outputs) for cell in cells]
    code = [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]
    if code and not any(cell.get("execution_count") for cell in code):
        parts.insert(0, _banner(f"{path.name} was not executed; it has no results."))
    ran = notebook.metadata.get("papermill", {})
    when = f", started {ran['start_time'][:19]} UTC" if ran.get("start_time") else ""
    took = f", {ran['duration']:.0f} s" if ran.get("duration") else ""
    return "\n".join([*parts, f'<p class="note">Notebook {html.escape(path.name + when + took)}.</p>'])


def _cell(cell: Any, markdown: Markdown, outputs: Outputs) -> str:
    """A cell: Markdown rendered, code folded with its outputs below, raw cells as text."""
    if cell.cell_type == "markdown":
        return markdown(cell.source)
    if cell.cell_type != "code":
        return f"<pre>{html.escape(cell.source)}</pre>"
    results = "\n".join(outputs(output) for output in _merged(cell.outputs))
    if not cell.source.strip():
        return results
    tags = set(cell.metadata.get("tags", []))
    name = "Parameters" if tags & {"parameters", "injected-parameters"} else "Code"
    code = f"<pre><code>{html.escape(cell.source)}</code></pre>"
    return f'<details class="code"><summary>{name}</summary>{code}</details>\n{results}'


def _merged(outputs: Sequence[Any]) -> list[dict[str, Any]]:
    """Outputs with the pieces of one stream joined, so that a progress bar is one text."""
    result: list[dict[str, Any]] = []
    for output in outputs:
        last = result[-1] if result else {}
        if output.output_type == "stream" and (last.get("output_type"), last.get("name")) == ("stream", output.name):
            last["text"] += output.text
        else:
            result.append(dict(output))
    return result


def _page(title: str, headings: Sequence[Heading], body: str, figures: list[dict[str, Any]]) -> str:
    """The whole file."""
    script = (_HERE / "report.js").read_text(encoding="utf-8")
    bundle = get_plotlyjs() if figures else ""
    packed = (
        f'<script type="text/plain" id="figures">{_pack(json.dumps(figures, allow_nan=False))}</script>\n'
        f'<script type="text/plain" id="plotly">{_pack(bundle)}</script>\n<script>{script}</script>'
        if figures
        else ""
    )
    allowed = f"{_hash(script)} {_hash(bundle)}" if figures else "'none'"
    types = {str(trace.get("type", "scatter")) for figure in figures for trace in figure["data"]}
    evaluating = " 'unsafe-eval'" if any(kind.endswith(_NEED_EVAL) for kind in types) else ""
    policy = f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {allowed}{evaluating}"
    entries = "\n".join(
        f'<li class="level-{h.level}"><a href="#{h.anchor}">{h.title}</a></li>' for h in headings if h.level <= 3
    )
    inner = f"""<nav aria-label="Contents"><strong>Contents</strong><ol>
{entries}
</ol></nav>
<main>
<h1>{html.escape(title)}</h1>
{body}
</main>
{packed}"""
    return document(title, inner, policy)


def document(title: str, body: str, policy: str = "") -> str:
    """A page of its own: no request is allowed, and nothing beyond what ``policy`` says.

    Args:
        title: plain text.
        body: HTML.
        policy: content security policy, but for bases and forms, which no page has; empty: images in the page itself alone.
    """
    style = (_HERE / "report.css").read_text(encoding="utf-8")
    policy = policy or "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{html.escape(title)}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def _banner(text: str) -> str:
    return f'<div class="error" role="alert"><strong>{html.escape(text)}</strong></div>\n'


def _pack(text: str) -> str:
    """Packed by gzip (without a time stamp: same input, same file) in base64."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def _hash(script: str) -> str:
    """A script's entry in the content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
