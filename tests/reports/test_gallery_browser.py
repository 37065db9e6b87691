"""Episodes replayed in a report from disk: the menu, the slider, the pictures, with no network and no kernel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest
from playwright.sync_api import Locator, Page, expect

from sesa_lab import environments, plots
from sesa_lab.reports.render import render
from tests.reports.conftest import Visit
from tests.reports.samples import ATTACKS, code, save, shown

pytestmark = pytest.mark.browser
DECODED = (
    "async href => { const image = new Image(); image.src = href; await image.decode(); return image.naturalWidth; }"
)


def replays() -> list[plots.Replay]:
    """Two ways on one lake, one of which fails, and a room."""
    found = []
    for name, answers in (("frozen_lake", ("", "left")), ("sokoban", ("",))):
        environment = environments.make(name)
        task = environment.task(0)
        for text in (answer or environment.oracle(task) for answer in answers):
            found.append(plots.Replay(f"{name}: {text}", environment.render(task, text), text))
    return found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery")
    book = save(folder / "a.ipynb", code("x", shown(plots.gallery(replays(), "Episodes", "runs a; seed 0"))))
    return render([book], folder / "report.html", "Replays")


def picture(page: Page) -> str:
    """The picture drawn now, decoded."""
    href = page.locator(".js-plotly-plot .imagelayer image").get_attribute("href") or ""
    assert page.evaluate(DECODED, href) > 0, "the browser can read it as an image"
    return unquote(href.partition(",")[2])


def slide(page: Page, share: float) -> None:
    rail = page.locator(".slider-rail-touch-rect")
    rail.scroll_into_view_if_needed()
    box = rail.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + share * (box["width"] - 6) + 3, box["y"] + box["height"] / 2)


def choose(page: Page, place: int) -> None:
    page.locator(".updatemenu-header").click()
    page.locator(".updatemenu-dropdown-button").nth(place).click()


def notes(page: Page) -> Locator:
    return page.locator(".js-plotly-plot .annotation-text")


def test_a_slider_replays_and_a_menu_changes_the_episode(report: Path, visit: Callable[..., Visit]) -> None:
    seen, episodes = visit(report), replays()
    page = seen.page
    assert picture(page) == episodes[0].frames[0].svg
    before = page.locator(".js-plotly-plot").screenshot()
    slide(page, 1.0)
    expect(notes(page).nth(1)).to_have_text(episodes[0].frames[-1].caption)
    assert picture(page) == episodes[0].frames[-1].svg
    assert page.locator(".js-plotly-plot").screenshot() != before
    choose(page, 2)
    expect(notes(page).nth(0)).to_contain_text(episodes[2].label)
    assert picture(page) == episodes[2].frames[0].svg, "from its start, wherever the last episode was left"
    expect(page.locator(".slider-label").first).to_have_text("move 0")
    slide(page, 1.0)
    expect(notes(page).nth(1)).to_have_text(episodes[2].frames[-1].caption)
    assert picture(page) == episodes[2].frames[-1].svg
    choose(page, 0)
    expect(page.locator(".slider-label").first).to_have_text("move 0")
    assert picture(page) == episodes[0].frames[0].svg
    outside = [url for url in seen.requests if not url.startswith(("data:", "blob:"))]
    assert outside == [report.as_uri()] and seen.complaints == []


def test_the_menu_is_read_on_a_dark_page(report: Path, visit: Callable[..., Visit]) -> None:
    page = visit(report, "dark").page
    page.locator(".updatemenu-header").click()
    entry = page.locator(".updatemenu-dropdown-button").first
    expect(entry.locator("text")).to_have_css("fill", "rgb(31, 35, 40)")
    assert entry.locator("rect").evaluate("e => getComputedStyle(e).fill") in (
        "rgb(244, 250, 255)",
        "rgb(238, 242, 246)",
    )


@pytest.mark.parametrize("attack", ATTACKS)
def test_hostile_words_run_nothing(tmp_path: Path, visit: Callable[..., Visit], attack: str) -> None:
    frames = [plots.text_frame(attack, attack), plots.text_frame(attack, attack)]
    figure = plots.gallery([plots.Replay(attack, frames, attack), plots.Replay("b" + attack, frames)], attack, attack)
    seen = visit(render([save(tmp_path / "a.ipynb", code("x", shown(figure)))], tmp_path / "a.html", attack))
    choose(seen.page, 1)
    slide(seen.page, 1.0)
    expect(seen.page.locator(".slider-label").first).to_have_text("move 1")
    picture(seen.page)
    assert seen.page.evaluate("window.pwned") is None
    assert [url for url in seen.requests if not url.startswith(("data:", "blob:", "file:"))] == []
    assert seen.complaints == []
