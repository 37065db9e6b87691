"""What people open: the report of an experiment, its figures as images, and the index over all reports."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import plotly.graph_objects as go

from sesa_lab.errors import InputError, first_line, writing
from sesa_lab.reports import outputs, render
from sesa_lab.reproduce import results
from sesa_lab.reproduce.plan import Plan
from sesa_lab.runs.environment import commit_of, short_commit

REPORT, INDEX, FIGURES, EXECUTED = "report.html", "index.html", "figures", "executed"
IMAGES = ("png", "svg")
_WIDTH = 1100  # pixels of an image
_WHERE = {
    True: f"The same numbers, and those of every other measure, are in `{results.JSON}`, `{results.CSV}` and `{results.LATEX}`"
    " beside this file.",
    False: f"Its numbers are those of its notebooks; `{results.JSON}` beside this file says what made it.",
}
_MOST_RUNS = 60  # listed in a report; results.json has all


def report(plan: Plan, executed: Sequence[Path], found: Mapping[str, Any]) -> Path:
    """The notebooks, and after them the numbers with what they were made from, as one offline HTML file."""
    numbers = plan.folder / EXECUTED / "numbers.ipynb"
    with writing(plan.folder, results.REMEDY):
        numbers.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(_numbers(plan, found), numbers)  # type: ignore[no-untyped-call]
        return render.render([*executed, numbers], plan.folder / REPORT, plan.experiment.title)


def _numbers(plan: Plan, found: Mapping[str, Any]) -> Any:
    """A notebook of tables, which so go the way that all outputs go: sanitised."""
    made = found["made"]
    commit = commit_of(made) or "unknown"
    cells = [
        nbformat.v4.new_markdown_cell(  # type: ignore[no-untyped-call]
            "# Numbers, and where they come from\n\n"
            f"Made by `{found['command']}` at commit `{commit}`, on {made['cpus']} cores of {made['cpu']}, Python"
            f" {made['python']}. {found['intervals'] if found['estimates'] else ''} {_WHERE[bool(found['estimates'])]}"
        )
    ]
    if found["failed"]:
        cells.append(_table("## Runs that failed", pd.DataFrame(found["failed"])))
    words = results.in_words(results.chosen(plan, pd.DataFrame(found["estimates"])))
    if len(words):
        for group, part in words.groupby("group", sort=False):
            cells.append(_table(f"## Estimates: {group}", part.drop(columns="group")))
        runs = pd.DataFrame(found["runs"]).drop(columns="reached").dropna(axis="columns", how="all")
        if "commit" in runs:
            runs["commit"] = runs["commit"].map(short_commit, na_action="ignore")
        more = f" (the first {_MOST_RUNS} of {len(runs)})" if len(runs) > _MOST_RUNS else ""
        cells.append(_table(f"## Runs{more}", runs.head(_MOST_RUNS)))
    return nbformat.v4.new_notebook(cells=cells)  # type: ignore[no-untyped-call]


def _table(title: str, table: pd.DataFrame) -> Any:
    """A code cell without code that shows a table under a title."""
    shown = [
        nbformat.v4.new_output("display_data", {"text/markdown": title}),  # type: ignore[no-untyped-call]
        nbformat.v4.new_output("display_data", {"text/html": table.to_html(index=False, border=0)}),  # type: ignore[no-untyped-call]
    ]
    return nbformat.v4.new_code_cell("", outputs=shown, execution_count=1)  # type: ignore[no-untyped-call]


def figures(executed: Sequence[Path], folder: Path, kinds: Sequence[str]) -> list[Path]:
    """Every figure of the executed notebooks as images, NOTEBOOK-NUMBER.KIND, by the chromium that kaleido finds.

    Raises:
        InputError: there is no browser, or a file cannot be written.
    """
    if not kinds:
        return []
    import kaleido

    wanted = []
    for path in executed:
        drawn = _drawn(path)
        wanted += [(go.Figure(each), f"{path.stem}-{number}") for number, each in enumerate(drawn, start=1)]
    with writing(folder, results.REMEDY):
        folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    try:
        kaleido.start_sync_server(silence_warnings=True)
        for figure, name in wanted:
            for kind in kinds:
                written.append(folder / f"{name}.{kind}")
                size = {"width": _WIDTH, "scale": 2 if kind == "png" else 1}
                kaleido.write_fig_sync(figure, written[-1], opts={"format": kind, **size})
    except Exception as error:  # of chromium, by whatever name
        name = str(written[-1]) if written else "images"
        for path in written:  # all of a kind, or none
            path.unlink(missing_ok=True)
        remedy = "install chromium, or leave --images out"
        raise InputError(f"cannot draw {name}: {first_line(error)}; {remedy}") from error
    finally:
        kaleido.stop_sync_server(silence_warnings=True)
    return written


def _drawn(path: Path) -> list[dict[str, Any]]:
    cells = nbformat.read(path, as_version=4).cells  # type: ignore[no-untyped-call]
    found = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    return [
        {key: dict(data)[outputs.PLOTLY][key] for key in ("data", "layout")} for data in found if outputs.PLOTLY in data
    ]


def index(folder: Path) -> Path:
    """The page over all reports of a preset that lie in ``folder``; one that is damaged says so and hides no other."""
    rows = []
    for path in sorted(folder.glob(f"*/{results.JSON}")):
        here = path.parent.name
        try:
            rows.append(_row(here, results.read(path), path.parent))
        except InputError as error:
            rows.append(f"<tr><td>{html.escape(here)}</td><td colspan=5>{html.escape(str(error))}</td></tr>")
    name = f"Reports: {folder.name}"
    page = render.document(name, _PAGE.format(name=html.escape(name), rows="\n".join(rows)))
    results.put(folder / INDEX, page.encode())
    return folder / INDEX


def _row(name: str, found: Mapping[str, Any], folder: Path) -> str:
    commit = commit_of(found["made"]) or "unknown"
    files = [(REPORT, "report"), (results.CSV, "CSV"), (results.LATEX, "LaTeX"), (results.JSON, "JSON")]
    links = " ".join(
        f'<a href="{html.escape(name)}/{file}">{words}</a>' for file, words in files if (folder / file).is_file()
    )
    failed = len(found["failed"])
    counted = f"{len(found['runs'])} runs" + (f", <b>{failed} failed</b>" if failed else "")
    seeds = ", ".join(map(str, found["seeds"]))
    cells = [
        f"<b>{html.escape(found['title'])}</b><br>{html.escape(found['question'])}",
        links,
        html.escape(seeds),
        counted,
        f"{html.escape(found['made']['started'][:16].replace('T', ' '))} UTC<br><code>{html.escape(commit)}</code>",
        f"<code>{html.escape(found['command'])}</code>",
    ]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


_PAGE = """<main>
<h1>{name}</h1>
<p>Every report opens without a network. Estimates have 95 % intervals; each number traces to its runs.</p>
<table>
<thead><tr><th>experiment</th><th>files</th><th>seeds</th><th>runs</th><th>made</th><th>command</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
</main>"""
