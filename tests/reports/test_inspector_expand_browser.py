"""An edited sketch in a real browser: to Python and back as solutions, shown where they belong; hostile text runs nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from sesa_lab.config import Config
from sesa_lab.errors import InputError
from sesa_lab.expanding import Expander
from sesa_lab.training.loop import train
from sesa_lab.widgets import SketchInspector
from tests.reports.conftest import Visit
from tests.reports.test_inspector_browser import ARTEFACTS, check_quiet
from tests.widgets.inspector_expanders import Fake
from tests.widgets.inspector_page import Kernel, page_file
from tests.widgets.inspector_runs import ATTACKS, HOSTILE, SKETCHES, small_run

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("expanded") / "run")


@pytest.fixture
def show(visit: Callable[..., Visit], tmp_path: Path) -> Iterator[Callable[..., tuple[Visit, Kernel]]]:
    widgets = []

    def shown(*runs: Path, expander: Any, waits: bool = True, **look: Any) -> tuple[Visit, Kernel]:
        widgets.append(SketchInspector(*runs, expander=expander))
        seen = visit(page_file(tmp_path), drawn=False, **look)
        kernel = Kernel(widgets[-1], waits)
        kernel.show(seen.page)
        return seen, kernel

    yield shown
    for widget in widgets:
        widget.close()


def field(page: Page) -> Any:
    return page.get_by_label("sketch to expand")


def expand(page: Page) -> Any:
    return page.get_by_role("button", name="Expand", exact=True)


def test_a_sketch_is_typed_and_its_solutions_appear(folder: Path, show: Callable[..., Any]) -> None:
    fake = Fake(folder)
    seen, _ = show(folder, expander=fake)
    page = seen.page
    expect(field(page)).to_have_value(SKETCHES[0])
    field(page).fill("up up down")
    page.get_by_label("solutions").fill("3")
    page.get_by_label("seed").fill("12")
    expand(page).click()
    expect(page.locator(".solution")).to_have_count(3)
    assert fake.asked == [(6, "up up down", 3, 12)]
    best = fake.environment.oracle(fake.environment.task(6))
    assert page.locator(".solution pre").all_inner_texts() == [best, "up up down", best]
    expect(page.locator(".expansion .by")).to_have_text("2 of 3 solved by fake, step 7 with up up down")
    heads = page.locator(".solution .head").all_inner_texts()
    score = fake.environment.score(fake.environment.task(6), best)
    assert all(
        part in heads[0]
        for part in ("\u2713 solved", f"S1 {score.strategy}", f"reward {score.reward:g}", "log p \u22121.25")
    )
    assert "\u2717 not solved" in heads[1] and "3 tokens" in heads[1] and "stop" in heads[1]
    check_quiet(seen)
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTEFACTS / "inspector-expand.png", full_page=True)


def test_without_an_expander_there_is_no_control(folder: Path, show: Callable[..., Any]) -> None:
    seen, _ = show(folder, folder, expander=[None, Fake(folder)])
    page = seen.page
    assert page.locator(".side").nth(0).locator("textarea, [data-expand]").count() == 0
    expect(page.locator(".side").nth(1).locator("textarea")).to_have_value(SKETCHES[0])
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    check_quiet(seen)


def test_an_answer_that_comes_late_stays_with_its_candidate(folder: Path, show: Callable[..., Any]) -> None:
    fake = Fake(folder)
    fake.may.clear()
    seen, kernel = show(folder, expander=fake, waits=False)
    page = seen.page
    field(page).fill("of candidate 0")
    expand(page).click()
    expect(page.locator(".expansion")).to_have_text("expanding \u2026")
    expect(expand(page)).to_be_disabled()
    page.locator(".row[data-index='4']").click()
    expect(page.locator(".chosen .title b")).to_contain_text("candidate 4")
    expect(field(page)).to_have_value("")
    expect(expand(page)).to_be_enabled()
    fake.may.set()
    kernel.catch_up(page)
    assert page.locator(".solution").count() == 0 and page.locator(".expansion").inner_text() == ""
    page.locator(".row[data-index='0']").click()
    expect(field(page)).to_have_value("of candidate 0")
    expect(page.locator(".solution")).to_have_count(4)
    page.get_by_label("task").select_option("1")
    expect(page.locator("summary", has_text="task 7")).to_be_visible()
    expect(field(page)).to_have_value(SKETCHES[0])
    assert page.locator(".solution").count() == 0
    page.get_by_label("task").select_option("0")
    expect(page.locator(".solution")).to_have_count(4)
    check_quiet(seen)


def test_what_is_typed_outlives_a_redraw_and_keys_stay_in_the_field(folder: Path, show: Callable[..., Any]) -> None:
    seen, kernel = show(folder, expander=Fake(folder))
    page = seen.page
    field(page).fill("down lft")
    field(page).press("ArrowLeft")
    field(page).press("ArrowLeft")
    page.evaluate("model.tell('change:sides')")  # as after any choice
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    expect(field(page)).to_be_focused()
    page.keyboard.type("e")
    expect(field(page)).to_have_value("down left")
    page.keyboard.type("c")  # which copies elsewhere
    expect(field(page)).to_have_value("down lecft")
    assert kernel.widget.step == 4 and kernel.widget.candidates == [0] and page.evaluate("model.log") == []
    check_quiet(seen)


@pytest.mark.parametrize("attack", [*ATTACKS, HOSTILE, "]]><script>window.pwned=1</script>", "${window.pwned=1}"])
def test_hostile_sketches_and_solutions_run_nothing(folder: Path, show: Callable[..., Any], attack: str) -> None:
    fake = Fake(folder, completion=attack, strategy=attack, finish=attack, policy=attack)
    seen, _ = show(folder, expander=fake)
    page = seen.page
    field(page).fill(attack)
    expand(page).click()
    expect(page.locator(".solution")).to_have_count(4)
    assert fake.asked[0][1] == attack, "as it was typed"
    inside = page.locator(".expand")
    assert inside.locator("script, img, a, svg, b, i").count() == 0
    said = page.locator(".solution pre").first.text_content() or ""
    assert not any(letter in said for letter in "\x00\x1b\u202e\u202c\u2028\u2029")
    check_quiet(seen)


def test_errors_are_told_as_text(folder: Path, show: Callable[..., Any]) -> None:
    fake = Fake(folder, InputError(f"no: {ATTACKS[1]}"))
    seen, _ = show(folder, expander=fake)
    page = seen.page
    expand(page).click()
    expect(page.locator(".expansion .note")).to_have_text(f"no: {ATTACKS[1]}")
    field(page).fill("<b>" * 349_526)  # 1 MB
    expand(page).click()
    expect(page.locator(".expansion .note")).to_contain_text("the sketch has 1,048,578 letters, expected at most 4,000")
    field(page).fill("down")
    page.get_by_label("solutions").fill("17")
    expand(page).click()
    expect(page.locator(".expansion .note")).to_have_text("solutions: 17, expected a whole number from 1 to 16")
    page.get_by_label("solutions").fill("")
    expand(page).click()
    expect(page.locator(".expansion .note")).to_have_text("solutions: None, expected a whole number from 1 to 16")
    expect(expand(page)).to_be_enabled()
    assert len(fake.asked) == 1
    check_quiet(seen)


@pytest.mark.slow
def test_the_policy_of_a_run_expands_what_is_typed(tmp_path: Path, show: Callable[..., Any]) -> None:
    """From the keys to the policy and back, nothing in between made up."""
    config = Config.build(
        environment={"name": "countdown", "options": {"answer_format": "plain"}},
        sampler={"name": "sesa", "group_size": 4, "max_tokens": 24},
        run={"groups": 1, "steps": 1, "trackers": "none"},
        evaluation={"eval_tasks": 1, "eval_samples": 2},
    )
    run = train(config, tmp_path / "trained")
    seen, kernel = show(run, expander=Expander(run))
    page = seen.page
    field(page).fill("10*4 then + -")
    expand(page).click()
    expect(page.locator(".solution")).to_have_count(4)
    task = kernel.widget.sides[0]["task"]
    drawn = Expander(run).expand(task, "10*4 then + -", 4)
    assert page.locator(".solution pre").all_inner_texts() == [one.completion for one in drawn]
    expect(page.locator(".expansion .by")).to_contain_text(", step 1 with 10*4 then + -")
    check_quiet(seen)
