"""Reports in a real browser, from disk, with no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from sesa_lab import plots
from sesa_lab.reports.render import render
from tests.reports.conftest import Visit
from tests.reports.samples import ATTACKS, code, evaluations, gallery, save, shown, table_output, text
from tests.reports.samples import learning_curves as table
from tests.reports.test_render import hostile_cells

pytestmark = pytest.mark.browser
ARTEFACTS = Path(__file__).parents[2] / "reports" / "artefacts"
NODES = "e => [...e.querySelectorAll('.scatterlayer .trace:last-child .points path')].map(p => p.style.fill)"


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    curves, tokens, bars, tree = gallery(["parallel", "sequential", "mixed"])
    prose = (
        "# Does drawing in sequence keep finding?\n\nThe clipped ratio is $r_t = \\frac{\\pi_\\theta(y_t \\mid x)}"
        "{\\pi_{\\text{old}}(y_t \\mid x)}$, and the loss\n\n$$\nL = -\\frac{1}{G}\\sum_{i=1}^{G} \\min(r_i A_i,"
        " \\operatorname{clip}(r_i, 1-\\epsilon, 1+\\epsilon) A_i)\n$$\n\n## What came out\n\n- one\n- two"
    )
    summary = table(["parallel", "sequential"], seeds=2, steps=3)
    first = save(
        folder / "01_path_exploration.ipynb", text(prose), code("steps = 200", tags=("parameters",)),
        code("curves(table)", shown(curves)), code("table", table_output(summary)), code("tokens", shown(tokens)),
    )  # fmt: skip
    second = save(folder / "02_tree.ipynb", text("# The tree"), code("bars", shown(bars)), code("tree", shown(tree)))
    return render([first, second], folder / "report.html", "Path Exploration")


def test_all_is_drawn_with_nothing_but_the_file(report: Path, visit: Callable[..., Visit]) -> None:
    seen = visit(report)
    plots = seen.page.locator(".js-plotly-plot")
    assert plots.count() == seen.page.locator("div.plot").count() == 4
    for i in range(4):
        assert plots.nth(i).locator(".main-svg").first.is_visible()
        assert plots.nth(i).locator(".scatterlayer .trace path").count() > 0
    assert [url for url in seen.requests if not url.startswith(("data:", "blob:"))] == [report.as_uri()]
    assert seen.complaints == []
    assert seen.page.locator(".modebar-btn").count() > 4
    assert seen.page.locator(".modebar-btn[data-title^=Share]").count() == 0
    assert seen.page.locator("math").count() == 2 and seen.page.locator("nav a").count() == 3
    assert seen.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    seen.page.screenshot(path=ARTEFACTS / "light.png", full_page=True)


def test_slider_recolours_all_panels(report: Path, visit: Callable[..., Visit]) -> None:
    seen = visit(report)
    tree = seen.page.locator(".js-plotly-plot", has=seen.page.locator(".slider-container"))
    panels = tree.locator(".cartesianlayer > .subplot")
    assert panels.count() == 3
    before = [panels.nth(i).evaluate(NODES) for i in range(3)]
    assert all(len(colours) == 249 for colours in before)
    rail = tree.locator(".slider-rail-touch-rect")
    rail.scroll_into_view_if_needed()
    box = rail.bounding_box()
    assert box is not None
    seen.page.mouse.click(box["x"] + 3, box["y"] + box["height"] / 2)
    expect(tree.locator(".slider-label").first).to_have_text("training step 0")
    after = [panels.nth(i).evaluate(NODES) for i in range(3)]
    # the first arm's policy does not change (gain 0); the others move mass to the treasures
    assert after[0] == before[0] and after[1] != before[1] and after[2] != before[2]
    assert seen.complaints == []


def test_dark_page_and_change_of_theme(report: Path, visit: Callable[..., Visit]) -> None:
    seen = visit(report, "dark")
    style = "([s, p]) => getComputedStyle(document.querySelector(s))[p]"
    ink = ".js-plotly-plot .gtitle"
    assert seen.page.evaluate(style, ["body", "backgroundColor"]) == "rgb(20, 23, 27)"
    assert seen.page.evaluate(style, [ink, "fill"]) == "rgb(228, 232, 236)"
    seen.page.screenshot(path=ARTEFACTS / "dark.png", full_page=True)
    panel = seen.page.locator(".slider-container >> xpath=ancestor::*[contains(@class,'js-plotly-plot')]")
    dark = panel.locator(".cartesianlayer > .subplot").first.evaluate(NODES)
    # the root, after the 200 leaves, has mass 1: the brightest of MASS_DARK. A scale of bare colours was once ignored
    assert dark[200] == "rgb(255, 246, 194)"
    seen.page.emulate_media(color_scheme="light")
    expect(seen.page.locator(ink).first).to_have_css("fill", "rgb(31, 35, 40)")
    assert panel.locator(".cartesianlayer > .subplot").first.evaluate(NODES) != dark
    assert seen.complaints == []


def test_prints(report: Path, visit: Callable[..., Visit]) -> None:
    assert len(visit(report, "dark").page.pdf()) > 30_000


@pytest.mark.parametrize("attack", ATTACKS)
def test_hostile_text_runs_nothing(tmp_path: Path, visit: Callable[..., Visit], attack: str) -> None:
    arms = [attack, "b" + attack]
    paths = [f"{attack}||{leaf}" for leaf in "abcd"]
    curves, _, bars, _ = gallery(arms)
    tree = plots.tree(paths, {arm: evaluations(paths, 2.0, steps=3) for arm in arms}, title=attack, caption=attack)
    cells = [*hostile_cells(attack), *[code("show", shown(figure)) for figure in (curves, bars, tree)]]
    seen = visit(render([save(tmp_path / "a.ipynb", *cells)], tmp_path / "a.html", attack))
    assert seen.page.locator(".js-plotly-plot .main-svg").first.is_visible()
    for point in seen.page.locator(".js-plotly-plot .nsewdrag").all():
        point.hover(force=True)
    seen.page.wait_for_timeout(200)
    assert seen.page.evaluate("window.pwned") is None
    outside = [url for url in seen.requests if not url.startswith(("data:", "blob:", "file:"))]
    assert outside == []
    # a policy violation would be a complaint: the escaping held alone
    assert seen.complaints == []


def test_a_figure_that_cannot_be_drawn_says_so(tmp_path: Path, visit: Callable[..., Visit]) -> None:
    output = shown(gallery(["a"])[0])
    # a template that is no object makes plotly throw
    output["data"]["application/vnd.plotly.v1+json"]["layout"] = {"shapes": [None], "xaxis": {"range": 7}, "meta": 1}
    output["data"]["application/vnd.plotly.v1+json"]["data"] = [{"type": "scatter", "x": {"dtype": "f9", "bdata": "!"}}]
    seen = visit(render([save(tmp_path / "a.ipynb", code("x", output))], tmp_path / "a.html", "t"))
    assert seen.page.locator(".plot .error").inner_text().startswith("This figure could not be drawn")


def test_without_javascript_there_is_text(report: Path, browser: object) -> None:
    context = browser.new_context(java_script_enabled=False)  # type: ignore[attr-defined]
    page = context.new_page()
    page.goto(report.as_uri())
    assert "Figure: Coverage while training. It is drawn by a script" in page.inner_text("main")
    context.close()
