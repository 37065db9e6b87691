"""The page as text: what is escaped, folded, dropped, kept, and how large it gets."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest

from sesa_lab.errors import InputError
from sesa_lab.reports.markdown import Markdown, mathml
from sesa_lab.reports.outputs import Outputs, sanitise
from sesa_lab.reports.render import render
from tests.reports.samples import ATTACKS, NB, code, gallery, save, shown, table_output, text

OWN_SCRIPTS = 3  # the figures' data, plotly's bundle, report.js
URLS = {"src", "href", "action", "data", "poster", "srcset", "xlink:href", "formaction"}


class Elements(HTMLParser):
    """All start tags of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def assert_inert(page: str, scripts: int) -> None:
    """Only our own scripts, no event handlers, no address that loads or runs anything."""
    elements = Elements(page).found
    assert sum(tag == "script" for tag, _ in elements) == scripts
    for tag, attributes in elements:
        assert tag not in {"iframe", "object", "embed", "svg", "base", "form"}, tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in URLS or (value or "").startswith(("#", "data:", "https://")), (tag, name, value)


def hostile_cells(attack: str) -> list[Any]:
    frame = pd.DataFrame({attack: [attack]}, index=[attack])
    raw = f"<table><tr><td>{attack}</td></tr></table>{attack}"
    figure = go.Figure(go.Scatter(x=[1, 2], y=[1, 2], name=attack, text=[attack, attack]), layout={"title": attack})
    return [
        text(f"# {attack}\n\n{attack} and ![x](http://example.org/a.png)"),
        text(f"and $\\text{{{attack}}}$\n\n$$ \\href{{{attack}}}{{a}} $$"),
        code(attack, NB.new_output("stream", name="stdout", text=attack)),
        code("t", NB.new_output("stream", name="stderr", text=attack)),
        code("frame", table_output(frame)),
        code("frame", NB.new_output("display_data", {"text/html": raw, "text/plain": attack})),
        code("md", NB.new_output("display_data", {"text/markdown": attack})),
        code("png", NB.new_output("display_data", {"image/png": attack})),
        code("svg", NB.new_output("display_data", {"image/svg+xml": f"<svg>{attack}</svg>"})),
        code("odd", NB.new_output("display_data", {attack: "x"})),
        code("raise", NB.new_output("error", ename=attack, evalue=attack, traceback=[attack])),
        code("figure", shown(figure)),
        NB.new_raw_cell(attack),
    ]


@pytest.mark.parametrize("attack", ATTACKS)
def test_hostile_text_is_inert(tmp_path: Path, attack: str) -> None:
    page = render([save(tmp_path / "a.ipynb", *hostile_cells(attack))], tmp_path / "a.html", attack).read_text("utf-8")
    assert_inert(page, OWN_SCRIPTS)
    assert "window.pwned=1" in page  # the reader sees the text itself


def test_policy_forbids_all_but_our_scripts(tmp_path: Path) -> None:
    page = render([save(tmp_path / "a.ipynb", text("hello"))], tmp_path / "a.html", "t").read_text("utf-8")
    assert "default-src 'none'" in page and "script-src 'none'" in page
    assert_inert(page, 0)
    assert len(page) < 10_000  # no figure, no bundle
    webgl = shown(go.Figure(go.Scatter3d(x=[1], y=[1], z=[1])))
    page = render([save(tmp_path / "a.ipynb", code("f", webgl))], tmp_path / "a.html", "t").read_text("utf-8")
    assert "'unsafe-eval'" in page[:2000]


def test_size_of_two_notebooks_with_six_figures(tmp_path: Path) -> None:
    figures = gallery(["parallel", "sequential", "mixed"])
    paths = [
        save(tmp_path / "one.ipynb", *[code("show", shown(f)) for f in figures[:3]]),
        save(tmp_path / "two.ipynb", *[code("show", shown(f)) for f in (*figures[2:], figures[0])]),
    ]
    out = render(paths, tmp_path / "deep" / "report.html", "Report")
    assert out.stat().st_size < 3_000_000
    first = out.read_bytes()
    assert render(paths, out, "Report").read_bytes() == first  # same notebooks, same bytes


def test_errors_show_in_red_and_on_top(tmp_path: Path) -> None:
    error = NB.new_output("error", ename="ValueError", evalue="no <b>", traceback=["\x1b[31mline 1\x1b[0m"])
    mark = NB.new_markdown_cell("<span>papermill's mark</span>", metadata={"tags": ["papermill-error-cell-tag"]})
    path = save(tmp_path / "bad.ipynb", mark, text("# Title"), code("f()", error))
    page = render([path], tmp_path / "a.html", "t").read_text("utf-8")
    assert page.index("bad.ipynb stopped with an error") < page.index("Title</h2>")
    assert "<strong>ValueError: no &lt;b&gt;</strong>" in page
    assert "<pre>line 1</pre>" in page and "papermill&#x27;s mark" not in page


def test_what_cannot_be_shown_says_so() -> None:
    outputs = Outputs(str)
    display: Callable[[dict[str, Any]], str] = lambda data: outputs({"output_type": "display_data", "data": data})  # noqa: E731
    assert "live widget" in display({"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "W"})
    assert "does not show: application/x-odd" in display({"application/x-odd": "1"})
    assert "without data" in display({"application/vnd.plotly.v1+json": {"data": [], "layout": {}}})
    assert "without data" in display({"application/vnd.plotly.v1+json": "oops"})
    assert "does not show" in display({"text/html": "<script>1</script>"})
    assert "does not show: empty" in display({})
    assert "without data" in display({"application/vnd.plotly.v1+json": {"data": [None]}})
    assert "cannot be read" in display({"image/png": "<b>"}) and "cannot be read" in display({"image/png": "AAAA"})
    assert "data:image/png;base64,iVBORw0KGgo=" in display({"image/png": "iVBORw0K\nGgo="})
    drawn = display(
        {"application/vnd.plotly.v1+json": {"data": [{"y": [float("nan"), 1]}], "layout": {"title": {"text": "T"}}}}
    )
    assert "Figure: T. It is drawn by a script" in drawn
    assert outputs.figures == [{"data": [{"y": [None, 1]}], "layout": {"title": {"text": "T"}}}]


def test_progress_bars_leave_one_line() -> None:
    output = {"output_type": "stream", "name": "stdout", "text": "10%\r50%\r100%\ndone\r\n"}
    assert Outputs(str)(output) == "<pre>100%\ndone</pre>"


def test_cells(tmp_path: Path) -> None:
    parts = [NB.new_output("stream", name="stdout", text=t) for t in ("a", "b\n")]
    path = save(tmp_path / "a.ipynb", text("# One\n## Two\n# One"), code("x = 1", *parts, tags=("parameters",)))
    page = render([path], tmp_path / "a.html", "t").read_text("utf-8")
    assert "<pre>ab</pre>" in page
    assert "<summary>Parameters</summary><pre><code>x = 1</code></pre></details>" in page
    for link in ('<a href="#s-one">One</a>', '<a href="#s-two">Two</a>', '<a href="#s-one-2">One</a>'):
        assert link in page


def test_notebook_without_results_or_title(tmp_path: Path) -> None:
    path = save(tmp_path / "plain.ipynb", NB.new_code_cell("1"))
    page = render([path], tmp_path / "a.html", "t").read_text("utf-8")
    assert "was not executed" in page and ">plain</h2>" in page


def test_bad_notebooks_raise(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one"):
        render([], tmp_path / "a.html", "t")
    with pytest.raises(InputError, match="does not exist"):
        render([tmp_path / "no.ipynb"], tmp_path / "a.html", "t")
    for content in ("no json", "[]", "{}"):
        (tmp_path / "b.ipynb").write_text(content)
        with pytest.raises(InputError, match="is not a notebook"):
            render([tmp_path / "b.ipynb"], tmp_path / "a.html", "t")


def test_tables_keep_their_cells() -> None:
    cleaned = sanitise(pd.DataFrame({"a": [1.5], "b": ["x < y"]})._repr_html_())
    assert "<th>a</th>" in cleaned and "<td>1.5</td>" in cleaned and "x &lt; y" in cleaned
    assert "style" not in cleaned and "tbody tr th:only" not in cleaned and "class" not in cleaned
    assert '<td colspan="2">1</td>' in sanitise(
        '<table><tr><td colspan="2" onclick="f()" style="x">1</td></tr></table>'
    )


def test_mathml() -> None:
    assert "<mfrac><mrow><mi>a</mi></mrow><mrow><mi>b</mi></mrow></mfrac>" in mathml(r"\frac{a}{b}", "inline")
    assert "≤" in mathml(r"a \le b", "block") and 'display="block"' in mathml("a", "block")
    assert mathml("x^<^b", "inline") == "<code>x^&lt;^b</code>"
    assert "<script" not in mathml(r"\text{<script>1</script>}", "inline")
    assert "href" not in mathml(r"\href{https://example.org}{a}", "inline")


def test_markdown() -> None:
    markdown = Markdown()
    assert "<math" in markdown("Let $x_1$ be") and "<math" in markdown("$$\nx^2\n$$")
    assert "<table>" in markdown("|a|b|\n|-|-|\n|1|2|")
    assert "costs $5 and $6" in markdown("costs $5 and $6")
    assert "[image left out: plan]" in markdown("![plan](https://example.org/p.png)")
    assert '<img src="data:image/png;base64,AA==" alt="dot"' in markdown("![dot](data:image/png;base64,AA==)")
