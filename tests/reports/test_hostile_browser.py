"""What a model may have said, in every kind of our figures and outputs: shown as it is under the mouse, and nothing runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest
from playwright.sync_api import Locator, Page, expect

from sesa_lab import plots
from sesa_lab.experiments.report import NOTEBOOKS
from sesa_lab.plots.claims import forest
from sesa_lab.plots.collapse import signals
from sesa_lab.plots.fidelity import following
from sesa_lab.plots.grid import grid
from sesa_lab.plots.measures import measures
from sesa_lab.plots.plane import planes
from sesa_lab.reports.render import render
from tests.reports.conftest import Visit
from tests.reports.samples import NB, code, evaluations, save, shown, table_output, text

pytestmark = [pytest.mark.slow, pytest.mark.browser]
SAID = {
    "image": "<img src=x onerror=window.hacked=1>",
    "script": "</text></svg><script>window.hacked=1</script>",
    "link": "<a href='javascript:window.hacked=1'>ok</a>",
    "entities": "&lt;img src=x onerror=window.hacked=1&gt;",
    "template": "%{x} %{customdata:<img src=x onerror=window.hacked=1>}<extra><b>x</b></extra>",
    "right to left": "\u202egnp\u202c \u2067abc\u2069 \u200fx",
    "ansi": "\x1b[31mred\x1b[0m \x1b]8;;http://example.org\x07link\x1b]8;;\x07",
    "markdown": "**[x](javascript:window.hacked=1) `|--|\n```\n# a\n$\\frac{$ <b",
    "long": "x" * 1_000_000,
}
"""Name -> text of a candidate, a sketch, an arm or a policy."""
PLACES = """plot => {
  const box = plot.getBoundingClientRect(), places = [];
  for (const trace of plot._fullData) {
    const x = plot._fullLayout[trace.xaxis.replace('x', 'xaxis')], y = plot._fullLayout[trace.yaxis.replace('y', 'yaxis')];
    const xs = [...(trace.x || [])], ys = [...(trace.y || [])];
    const ends = [[xs[0], ys[0]], [xs[xs.length - 1], ys[ys.length - 1]]];
    if (trace.hoverinfo === 'skip' || !xs.length || xs[0] === null) continue;
    for (const [a, b] of ends)
      places.push([box.x + x._offset + x.d2p(a), box.y + y._offset + y.d2p(b)]);
  }
  return places;
}"""
"""Of a drawn plot: where on the page the first and the last point of each trace are."""


@dataclass
class Interval:
    """An estimate as a claim has it."""

    text: str
    mean: float = 0.2
    low: float = 0.1
    high: float = 0.3


@dataclass
class Claim:
    """A claim with an estimate of each kind."""

    text: str
    verdict: str
    paper: Interval
    best: Interval
    best_control: Interval
    measure: str = "accuracy"
    size: float | None = 0.25


def figures(said: str) -> Iterator[go.Figure]:
    """Every kind of figure with ``said`` wherever a text from outside gets to: arms, seeds, cells, policies, units, captions."""
    arms = [said, "b" + said]
    around = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 3}
    points = pd.DataFrame([{"arm": arm, "step": step, "seed": 0, "y": step / 9} for arm in arms for step in (1, 5, 9)])
    yield plots.curves(points, "y", title=said, unit=said, caption=said)
    yield plots.curves(points.rename(columns={"y": said}), said, caption="c")
    bars = pd.DataFrame([{"arm": arm, **around} for arm in arms])
    seeds = pd.DataFrame([{"arm": arm, "seed": said, "value": 0.45} for arm in arms])
    yield plots.bars(bars, seeds=seeds, label=said, title=said, caption=said)
    along = pd.DataFrame([{"arm": arm, "panel": said, said: x, **around} for arm in arms for x in (1.0, 2.0)])
    yield plots.axis(along, said, said, said)
    yield plots.panels(along, said, said, said)
    plane = along.rename(columns={"mean": "a", "high": "b"})
    yield planes(plane, "a", "b", said, said, said)
    yield grid(along[along[said] == 1.0], "arm", "panel", said, said)
    yield measures(pd.DataFrame([{"measure": "m", "label": said, "step": s, **around} for s in (1, 2)]), said, said)
    losses = {f"{name}_loss": 0.2 for name in ("breadth", "live", "spread", "entropy")}
    lost = pd.DataFrame([{"run": said, "step": step, **losses} for step in (1, 2, 3)])
    yield signals(lost, [(said, 2, 3)], said)
    shares = pd.DataFrame(
        [{"policy": said, "arm": arm, "measure": "follows", **around} for arm in ("own", "swapped", "foreign")]
    )
    yield following(shares, said, said)
    yield forest([Claim(said, said, *(Interval(said) for _ in range(3)))], said)
    leaves = [f"{said}||{leaf}" for leaf in "ab"]
    yield plots.tree(leaves, {arm: evaluations(leaves, 1.0, steps=2) for arm in arms}, title=said, caption=said)


@pytest.mark.parametrize("name", SAID)
def test_under_the_mouse_it_is_text(tmp_path: Path, visit: Callable[..., Visit], name: str) -> None:
    made = list(figures(SAID[name]))
    book = save(tmp_path / "a.ipynb", *(code("show", shown(figure)) for figure in made))
    assert book.stat().st_size < 10**6, "labels are cut"
    seen = visit(render([book], tmp_path / "a.html", "Hostile"))
    page = seen.page
    for place in range(len(made)):
        plot = page.locator(".js-plotly-plot").nth(place)
        labels = hovered(page, plot)
        assert labels, f"figure {place} says something under the mouse"
        if name not in ("right to left", "ansi", "markdown"):  # their signs are shown as dots, their lines as one
            assert visible(SAID[name])[:8] in "".join([*labels, plot.text_content() or ""])
    assert (
        page.evaluate("[...document.querySelectorAll('.js-plotly-plot :is(a, script, img, foreignObject)')].length")
        == 0
    )
    check_harmless(seen)


def visible(said: str) -> str:
    """The letters of what was said, without those that a label's wrapping may move."""
    return said.split()[0] if said.split() else said


def hovered(page: Page, plot: Locator) -> list[str]:
    """What is said under the mouse over the points of a plot."""
    plot.scroll_into_view_if_needed()
    labels = []
    for x, y in plot.evaluate(PLACES):
        page.mouse.move(0, 0)
        page.mouse.move(x, y, steps=2)
        page.wait_for_function(
            "() => new Promise(done => requestAnimationFrame(() => setTimeout(() => done(true), 60)))"
        )
        labels += plot.locator(".hoverlayer .hovertext").all_text_contents()
    return labels


def check_harmless(seen: Visit) -> None:
    """Nothing ran, nothing was asked for, nothing complained, and the page is not wider than the window."""
    assert seen.page.evaluate("window.hacked") is None
    assert [url for url in seen.requests if not url.startswith(("data:", "blob:", "file:"))] == []
    assert seen.complaints == []
    assert seen.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize("name", SAID)
def test_in_outputs_it_is_text(tmp_path: Path, visit: Callable[..., Visit], name: str) -> None:
    """As outputs of cells hold it, markdown included, with what follows as it should be."""
    said = SAID[name]
    frame = pd.DataFrame({"answer": [said, "plain words"]})
    with pd.option_context("display.max_colwidth", None):
        table: Any = table_output(frame)
    cells = [
        code("print", NB.new_output("stream", name="stdout", text=f"{said}\nplain words")),
        code("table", table),
        code("prose", NB.new_output("display_data", {"text/markdown": said})),
        code("raise", NB.new_output("error", ename="E", evalue=said, traceback=[said])),
        text("# After all of it"),
    ]
    seen = visit(render([save(tmp_path / "a.ipynb", *cells)], tmp_path / "a.html", "Hostile"), drawn=False)
    page = seen.page
    expect(page.get_by_role("heading", name="After all of it")).to_be_visible()
    for place in (page.locator("pre", has_text="plain words").first, page.locator("td", has_text="plain words")):
        assert place.evaluate(LEFT_TO_RIGHT, "plain words"), "in its own direction"
    check_harmless(seen)


LEFT_TO_RIGHT = """(element, words) => {
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT), range = document.createRange();
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const start = node.data.indexOf(words);
    if (start < 0) continue;
    const at = place => { range.setStart(node, place); range.setEnd(node, place + 1); return range.getBoundingClientRect(); };
    const first = at(start), last = at(start + words.length - 1);
    return first.top === last.top && first.left < last.left;
  }
  return false;
}"""


def test_many_beginnings_of_a_link_of_a_terminal_are_soon_read(tmp_path: Path) -> None:
    """Each was once looked for to the end of the text: a megabyte of them took hours."""
    output = NB.new_output(
        "stream", name="stdout", text="\x1b]" * 500_000 + "\x1b]8;;http://example.org\x1b\\link\x1b]8;;\x1b\\ end"
    )
    page = render([save(tmp_path / "a.ipynb", code("print", output))], tmp_path / "a.html", "Hostile")
    assert "link end</pre>" in page.read_text("utf-8")


def test_notebooks_style_no_text_unescaped() -> None:
    """pandas escapes the cells of a table, but not those of a styled one: notebook 08 once showed answers so."""
    for path in NOTEBOOKS.glob("*.ipynb"):
        styled = [line for line in path.read_text(encoding="utf-8").splitlines() if ".style." in line]
        assert [line for line in styled if "escape=" not in line and "{:.3f}" not in line] == [], path.name
