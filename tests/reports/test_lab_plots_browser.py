"""Plots in the real JupyterLab: clicks and lassos by mouse reach the kernel and move the inspector; hostile words stay words."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from sesa_lab.cli_lab import START
from tests.reports.jupyterlab import ARTEFACTS, Lab, Visit, serving, visiting, write
from tests.widgets.inspector_runs import small_run

pytestmark = [pytest.mark.browser, pytest.mark.slow]
STRATEGY = "<img src=x onerror=window.pwned=1><script>window.pwned=1</script>"
HOSTILE_ROW = {"strategy": STRATEGY}
# Letters counted: near enough for a map, and no model is loaded.
CELLS = (
    "import numpy as np\nfrom sesa_lab.embedding_map import EmbeddingMap\nfrom sesa_lab.microscope import CollapseMicroscope\n"
    "from sesa_lab.widgets import SketchInspector",
    "inspector = SketchInspector('looked-at')",
    "letters = lambda texts: np.array([[1 + text.count(letter) for letter in 'udlra<'] for text in texts])\n"
    "microscope = CollapseMicroscope('looked-at', inspector, embedder=letters)\nmicroscope",
    "the_map = EmbeddingMap('looked-at', embedder=letters, inspector=inspector)\nthe_map",
    "inspector",  # below what is clicked: it changes its height
    "microscope.heat_map().show()",
    "the_map.figure().show()",
)


@pytest.fixture(scope="module", autouse=True)
def _patient() -> Iterator[None]:
    """A click goes to a kernel and back; the machine may have other work."""
    expect.set_options(timeout=30_000)
    yield
    expect.set_options(timeout=5_000)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab on one notebook, and a run with hostile words in it."""
    home = tmp_path_factory.mktemp("plots")
    (home / "notebooks").mkdir()
    write(home / "notebooks" / START, CELLS)
    small_run(home / "notebooks" / "looked-at", changed=HOSTILE_ROW.items())
    with serving(home) as found:
        yield found


@pytest.fixture(scope="module")
def seen(lab: Lab, browser: Browser) -> Iterator[Visit]:
    """The notebook with all cells run, on a screen that is high enough to show them all."""
    with visiting(browser, lab, height=4800) as seen:
        seen.wait_for_kernel()
        seen.run_all()
        # The microscope's two, the map, and the two plain ones.
        expect(figures(seen.page)).to_have_count(5, timeout=120_000)
        seen.wait_for_kernel()
        yield seen


def figures(page: Page) -> Locator:
    return page.locator(".js-plotly-plot:has(.main-svg)")


def figure(page: Page, title: str) -> Locator:
    """The live one: it stands above the plain one of the same title."""
    return page.locator(".js-plotly-plot", has_text=title).first


def at(shown: Locator, x: float, y: float) -> tuple[float, float]:
    """Where a point of a figure's axes is on the page, in pixels."""
    place = shown.evaluate(
        """(plot, [x, y]) => {
            const box = plot.getBoundingClientRect(), { xaxis, yaxis } = plot._fullLayout;
            return [box.left + xaxis._offset + xaxis.d2p(x), box.top + yaxis._offset + yaxis.d2p(y)];
        }""",
        [x, y],
    )
    return float(place[0]), float(place[1])


def rows(panel_text: str, page: Page, count: int) -> list[list[str]]:
    """Cells of the table below the line that has this text, once it has so many rows: it follows a little later."""
    table = page.locator(".widget-vbox", has=page.get_by_text(panel_text)).last.locator("table")
    expect(table.locator("tr")).to_have_count(count + 1)
    return [[cell.inner_text() for cell in line.locator("td").all()] for line in table.locator("tr").all()[1:]]


def test_a_click_on_a_cell_lists_its_samples_and_moves_the_inspector(seen: Visit) -> None:
    page = seen.page
    bar = page.locator(".sesa .bar b")
    expect(bar).to_have_text("4 of 4")
    shown = figure(page, "Strategies: share of")
    row = shown.evaluate("plot => plot._fullLayout.yaxis.ticktext.findIndex((name) => name.includes('img'))")
    page.mouse.click(*at(shown, 2, row))
    said = "step 2, <img src=x onerror=window.pwned=1>"
    expect(page.get_by_text(said)).to_be_visible()
    # The last candidate of both groups has this strategy; the inspector shows the first of the two groups.
    listed = rows(said, page, 2)
    assert [(line[0], line[1]) for line in listed] == [("0", "5"), ("1", "5")]
    expect(bar).to_have_text("2 of 4")
    expect(page.locator(".sesa summary", has_text="task 2")).to_be_visible()
    expect(page.locator(".sesa .chosen .title b")).to_contain_text("candidate 5")
    # The chosen row is bold, and the line stands at the chosen step.
    expect(shown.locator(".ytick tspan", has_text="img")).to_have_css("font-weight", "700")
    assert shown.evaluate("plot => plot._fullLayout.shapes.map((shape) => shape.x0)") == [2]
    # Its hover label is a template filled in with numbers.
    page.mouse.move(*at(shown, 2, row))
    expect(shown.locator(".hoverlayer")).to_contain_text("step 2: 0.167 of all, none with success")
    # Two buttons walk through what the cell holds.
    expect(page.get_by_text("1 of 2: step 2, group 0, candidate 5")).to_be_visible()
    page.get_by_role("button", name="next", exact=True).first.click()
    expect(page.get_by_text("2 of 2: step 2, group 1, candidate 5")).to_be_visible()
    expect(page.locator(".sesa summary", has_text="task 3")).to_be_visible()
    expect(page.locator(".sesa .chosen .title b")).to_contain_text("candidate 5")
    page.mouse.click(*at(shown, 3, shown.evaluate("plot => plot._fullLayout.yaxis.ticktext.indexOf('unreadable')")))
    expect(page.get_by_text("step 3, unreadable: ")).to_be_visible()
    expect(bar).to_have_text("3 of 4")
    seen.check_quiet()


def test_the_heat_map_is_redrawn_in_its_place(seen: Visit) -> None:
    page = seen.page
    shown = figure(page, "Strategies: share of")
    high = shown.evaluate("plot => plot._fullLayout.height")
    boxes = page.locator("input[type=checkbox]")
    boxes.first.check()  # success only
    expect(shown.locator(".ytick text")).to_have_count(8)
    assert shown.evaluate("plot => plot._fullLayout.height") < high
    boxes.first.uncheck()
    expect(shown.locator(".ytick text", has_text="unreadable")).to_have_count(1)
    # Its table comes last, and moves all that is below it.
    rows("step 3, all strategies: 12 candidates", page, 12)  # its row was gone, so it is chosen no more
    seen.check_quiet()


def drag(page: Page, points: list[tuple[float, float]]) -> None:
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=8)
    page.mouse.up()


def test_a_lasso_lists_its_samples_and_moves_the_inspector(seen: Visit) -> None:
    page = seen.page
    shown = figure(page, "Embedding map")
    places = shown.evaluate(
        "plot => plot.data.flatMap((trace) => trace.x.map((x, i) => ({x, y: trace.y[i], text: trace.hovertext[i]})))"
    )
    hostile = [place for place in places if "pwned" in place["text"]]
    assert len(hostile) == 8
    ends = [at(shown, place["x"], place["y"]) for place in hostile]
    left, right = min(x for x, _ in ends) - 9, max(x for x, _ in ends) + 9
    top, bottom = min(y for _, y in ends) - 9, max(y for _, y in ends) + 9
    drag(page, [(left, top), (right, top), (right, bottom), (left, bottom), (left, top + 2)])
    expect(page.get_by_text("all steps: 8 of 48 solutions selected")).to_be_visible()
    listed = rows("all steps: 8 of 48 solutions selected", page, 8)
    assert [line[:4] for line in listed[:3]] == [["1", "0", "5", "0"], ["1", "1", "5", "1"], ["2", "0", "5", "2"]]
    assert "<script>window.pwned=1</script>" in listed[0][-1]
    expect(page.locator(".sesa .bar b")).to_have_text("1 of 4")
    expect(page.locator(".sesa .chosen .title b")).to_contain_text("candidate 5")
    # Its hover label shows the words.
    page.mouse.move(*at(shown, hostile[0]["x"], hostile[0]["y"]))
    expect(shown.locator(".hoverlayer")).to_contain_text("<script>")
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTEFACTS / "lab-plots.png")
    seen.check_quiet()


def test_rows_by_cluster_of_texts(seen: Visit) -> None:
    page = seen.page
    chosen = page.locator("select", has=page.locator("option", has_text="clusters of texts"))
    chosen.select_option("clusters of texts")
    shown = figure(page, "Clusters of texts: share of a step's sampled candidates")
    expect(shown.locator(".ytick text", has_text="cluster 1: ")).to_have_count(1)
    mass = figure(page, "Policy mass on clusters of texts")
    expect(mass.locator(".main-svg").first).to_be_visible()
    page.mouse.click(*at(shown, 1, 0))
    expect(page.get_by_text("step 1, cluster 1: up: 6 sampled candidates")).to_be_visible()
    expect(mass.locator(".annotation", has_text="step 1")).to_have_count(1)
    page.get_by_role("button", name="reload").first.click()
    page.screenshot(path=ARTEFACTS / "lab-clusters.png")
    chosen.select_option("strategies")
    expect(figure(page, "Strategies: share of").locator(".ytick text", has_text="unreadable")).to_have_count(1)
    expect(mass).to_have_count(0)
    seen.check_quiet()


def test_a_box_and_controls_of_the_map(seen: Visit) -> None:
    page = seen.page
    shown = figure(page, "Embedding map")
    box = page.locator(".widget-vbox", has=shown).last
    box.locator("select").nth(2).select_option("one step")
    expect(page.get_by_text("step 4: 2 of 12 solutions selected")).to_be_visible()
    expect(shown.locator(".selectionlayer path")).to_have_count(0)  # the outline was that of another figure
    box.locator("select").first.select_option("strategy")
    expect(shown.locator(".legend")).to_contain_text("unreadable")
    box.locator("select").first.select_option("reward")
    expect(shown.locator(".infolayer g[class*='cb']").first).to_be_attached()
    expect(shown.locator(".legend")).to_have_count(0)
    shown.hover()
    shown.locator(".modebar-btn[data-attr='dragmode'][data-val='select']").click()
    area = shown.locator(".nsewdrag").first.bounding_box()
    assert area is not None
    x, y, wide, high = (area[name] for name in ("x", "y", "width", "height"))
    drag(page, [(x + 14, y + 14), (x + wide - 14, y + high - 14)])
    expect(page.get_by_text("step 4: 12 of 12 solutions selected")).to_be_visible()
    expect(page.locator(".sesa .bar b")).to_have_text("4 of 4")
    page.mouse.dblclick(x + wide / 2, y + high - 30)  # inside of what was drawn
    expect(page.get_by_text("step 4: 12 of 48 solutions shown")).to_be_visible()
    # As wide as the page, whatever the page's width.
    wide_as = shown.evaluate("plot => [plot._fullLayout.width, plot.clientWidth]")
    assert wide_as[0] == wide_as[1] > 700
    expect(page.locator(".sesa .bar b")).to_have_text("4 of 4")
    assert page.evaluate("window.pwned") is None
    seen.check_quiet()


def test_a_saved_notebook_is_small_and_keeps_its_plain_plots(lab: Lab, seen: Visit) -> None:
    path = lab.folder / START
    seen.save()
    assert path.stat().st_size < 1_000_000
    saved = json.loads(path.read_text())
    assert "widgets" not in saved["metadata"]
    kept = [output["data"] for cell in saved["cells"][-2:] for output in cell["outputs"]]
    assert [list(data) for data in kept] == [["application/vnd.plotly.v1+json"]] * 2
    seen.check_quiet()


def test_a_page_that_is_loaded_again_shows_the_figures_as_they_are(seen: Visit) -> None:
    page = seen.page
    page.reload()
    shown = figure(page, "Embedding map of solutions, step 4; colour: reward")
    expect(shown.locator(".main-svg").first).to_be_visible(timeout=60_000)
    assert page.evaluate("window.pwned") is None
    seen.check_quiet()


def test_dark_pages(seen: Visit) -> None:
    page = seen.page
    page.locator(".lm-MenuBar-item").get_by_text("Settings", exact=True).click()
    page.locator(".lm-Menu-item", has_text="Theme").first.hover()
    page.locator(".lm-Menu-item", has_text="JupyterLab Dark").first.click()
    expect(page.locator("body[data-jp-theme-light='false']")).to_be_attached()
    expect(figures(page).first).to_be_visible()
    page.screenshot(path=ARTEFACTS / "lab-plots-dark.png")
    seen.check_quiet()
