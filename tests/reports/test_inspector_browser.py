"""The inspector in a real browser: keys, filters, replays and copies go to its Python half and back; hostile text runs nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from sesa_lab.errors import UNSEEN
from sesa_lab.widgets import SketchInspector, clustering
from tests.reports.conftest import Visit
from tests.widgets.inspector_page import Kernel, page_file
from tests.widgets.inspector_runs import ATTACKS, SKETCHES, episodes_run, small_run

pytestmark = pytest.mark.browser
ARTEFACTS = Path(__file__).parents[2] / "reports" / "artefacts"
DECODED = "async i => { await i.decode(); return i.naturalWidth > 0 && decodeURIComponent(i.src.split(',')[1]); }"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("inspected") / "run")


@pytest.fixture
def show(visit: Callable[..., Visit], tmp_path: Path) -> Iterator[Callable[..., tuple[Visit, SketchInspector]]]:
    widgets = []

    def shown(
        *runs: Path, scheme: str = "light", width: int = 1280, clusters: Any = None, **chosen: Any
    ) -> tuple[Visit, SketchInspector]:
        widget = SketchInspector(*runs, clusters=clusters)
        widgets.append(widget)
        for name, value in chosen.items():
            setattr(widget, name, value)
        seen = visit(page_file(tmp_path), scheme, drawn=False, width=width)
        Kernel(widget).show(seen.page)
        return seen, widget

    yield shown
    for widget in widgets:
        widget.close()


def check_quiet(seen: Visit) -> None:
    """Nothing ran, nothing was asked for, nothing complained."""
    assert seen.page.evaluate("window.pwned") is None
    assert [url for url in seen.requests if not url.startswith(("data:", "blob:", "file:"))] == []
    assert seen.complaints == []


def chosen(page: Page) -> list[int]:
    return [int(row.get_attribute("data-index") or -1) for row in page.locator(".row[aria-selected=true]").all()]


def listed(page: Page) -> list[int]:
    return [int(row.get_attribute("data-index") or -1) for row in page.locator(".row").all()]


def test_arrows_change_step_and_candidate(folder: Path, show: Callable[..., Any]) -> None:
    seen, widget = show(folder)
    page = seen.page
    page.locator(".sesa").focus()
    assert chosen(page) == [0]
    for key, index in (("ArrowDown", 1), ("ArrowDown", 2), ("ArrowUp", 1)):
        page.keyboard.press(key)
        expect(page.locator(f".row[aria-selected=true][data-index='{index}']")).to_be_visible()
        expect(page.locator(".chosen .title b")).to_contain_text(f"candidate {index}")
    assert widget.candidates == [1]
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".bar b")).to_have_text("3 of 4")
    expect(page.locator("summary", has_text="task 4")).to_be_visible()
    assert widget.step == 3 and chosen(page) == [0]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")  # beyond the last step
    expect(page.locator(".bar b")).to_have_text("4 of 4")
    page.locator(".row[data-index='4']").click()
    expect(page.locator(".chosen .title b")).to_contain_text("candidate 4")
    page.keyboard.press("ArrowUp")  # a click leaves the keys with the widget
    expect(page.locator(".chosen .title b")).to_contain_text("candidate 3")
    page.locator("input[type=text]").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(100)
    assert widget.step == 4, "in a field the arrows move the cursor"
    check_quiet(seen)


def test_a_chosen_task_filters_and_orders(folder: Path, show: Callable[..., Any]) -> None:
    seen, widget = show(folder)
    page = seen.page
    page.get_by_label("task").select_option("1")
    expect(page.locator("summary", has_text="task 7")).to_be_visible()
    page.get_by_label("outcome").select_option("solved")
    expect(page.get_by_role("status").filter(has_text="candidates")).to_have_text("2 of 6 candidates")
    assert listed(page) == [0, 3] and page.locator(".sketch .words").all_inner_texts() == [SKETCHES[0], SKETCHES[2]]
    page.get_by_role("button", name="clear").click()
    expect(page.locator(".row")).to_have_count(6)
    page.get_by_label("text", exact=True).fill("NO PLAN")
    expect(page.locator(".row")).to_have_count(1)
    assert listed(page) == [2] and chosen(page) == [2]
    page.get_by_label("text", exact=True).fill("")
    expect(page.locator(".row")).to_have_count(6)
    page.get_by_label("reward from").fill("1")
    page.get_by_label("reward from").press("Enter")
    expect(page.locator(".row")).to_have_count(2)
    page.get_by_role("button", name="clear").click()
    page.locator(".legend button").first.click()
    expect(page.locator(".row")).to_have_count(2)
    expect(page.locator(".legend button").first).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="clear").click()
    page.get_by_label("sort").select_option("length")
    expect(page.locator(".row").first).to_have_attribute("data-index", "5")
    assert page.locator(".sketch").count() == 0 and widget.sort == "length"
    page.get_by_label("text", exact=True).fill("nowhere")
    expect(page.locator(".list .note")).to_have_text("no candidate passes the filter")
    check_quiet(seen)


def test_tokens_are_coloured_and_say_their_numbers(folder: Path, show: Callable[..., Any]) -> None:
    seen, widget = show(folder)
    page, tokens = seen.page, widget.details[0]["tokens"]
    spans = page.locator(".tokens > span")
    assert spans.all_inner_texts() == tokens["pieces"]
    first = f"token 0: id {tokens['ids'][0]}\nlog p drawn \u2212{-tokens['drawn'][0]:.3f}\nin training "
    assert (spans.first.get_attribute("title") or "").startswith(first)
    ground = "e => getComputedStyle(e).backgroundColor"
    strength = 0.65 * min(1, -tokens["drawn"][0] / 5)
    assert float(spans.first.evaluate(ground).split(",")[3].strip(" )")) == pytest.approx(strength, abs=0.003)
    page.get_by_role("button", name="ratio").click()
    expect(page.locator(".scale")).to_contain_text("p in training / p when drawn")
    up = tokens["trained"][0] > tokens["drawn"][0]
    assert spans.first.evaluate(ground).startswith("rgba(86, 180, 233" if up else "rgba(213, 94, 0")
    page.get_by_role("button", name="entropy").click()
    expect(page.locator(".scale")).to_contain_text("entropy of the next token")
    strength = 0.65 * min(1, tokens["entropies"][0] / 5)
    assert float(spans.first.evaluate(ground).split(",")[3].strip(" )")) == pytest.approx(strength, abs=0.003)
    page.get_by_role("button", name="plain").click()
    expect(page.locator(".scale")).to_have_text("")
    assert spans.first.evaluate(ground) == "rgba(0, 0, 0, 0)" and widget.colouring == "plain"
    check_quiet(seen)


def test_a_replay_goes_move_by_move(folder: Path, show: Callable[..., Any]) -> None:
    seen, widget = show(folder)
    page, frames = seen.page, widget.replays[0]["frames"]
    picture, caption = page.locator(".stage img"), page.locator(".stage .caption")
    expect(caption).to_have_text(frames[-1]["caption"])
    assert picture.evaluate(DECODED) == frames[-1]["svg"]
    page.get_by_role("button", name="\u25c0").last.click()
    expect(caption).to_have_text(frames[-2]["caption"])
    page.get_by_label("move").focus()
    page.keyboard.press("Home")
    expect(caption).to_have_text("start")
    page.keyboard.press("ArrowRight")  # the slider's own
    expect(caption).to_have_text(frames[1]["caption"])
    assert picture.evaluate(DECODED) == frames[1]["svg"] and widget.step == 4
    page.get_by_role("button", name="play").click()
    expect(caption).to_have_text("start")
    expect(caption).to_have_text(frames[-1]["caption"], timeout=10_000)
    check_quiet(seen)


def test_a_copy_is_the_stored_candidate(folder: Path, show: Callable[..., Any]) -> None:
    seen, _ = show(folder, candidates=[5])
    page = seen.page
    page.evaluate(
        "Object.defineProperty(navigator, 'clipboard', { value: { writeText: async (t) => { window.said = t; } } })"
    )
    page.locator(".sesa").focus()
    page.keyboard.press("c")
    expect(page.locator("[data-copied]")).to_have_text("copied")
    assert json.loads(page.evaluate("window.said"))["completion"] == "\n".join(ATTACKS)
    page.evaluate("() => { navigator.clipboard.writeText = async () => { throw new Error('not allowed'); }; }")
    page.get_by_role("button", name="copy as JSON").click()
    expect(page.locator("textarea")).to_be_visible()
    assert json.loads(page.locator("textarea").input_value())["index"] == 5
    check_quiet(seen)


def test_hostile_text_is_text(folder: Path, show: Callable[..., Any]) -> None:
    seen, _ = show(folder, candidates=[5])
    page = seen.page
    page.locator(".chosen summary").click()
    body = page.locator("pre.text").inner_text()
    for attack in ATTACKS[:5]:
        assert attack in body
    assert (
        "\u27e81b\u27e9[31mred" in body
        and "nul \u27e800\u27e9 here" in body
        and "\u27e8202e\u27e9tfel ot thgir" in body
    )
    assert page.locator(".sketch .words").nth(1).inner_text() == SKETCHES[1]
    inside = page.locator(".list, .tokens, pre.text")
    assert inside.locator("script, img, a, svg, b i").count() == 0
    page.keyboard.press("Escape")
    check_quiet(seen)
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTEFACTS / "inspector-hostile.png", full_page=True)


def test_a_page_of_letters_beyond_the_first_65536_loses_none(tmp_path: Path, show: Callable[..., Any]) -> None:
    """JavaScript counts two for each of them: what was shown, and what is asked for next, is counted by Python alone."""
    text = "\U0001d465=1; " * 6_000
    changed = {"completion": text, "turns": [text], "sketch": "\U0001d465" * 300, "prompt": "\U0001d465" * 7_000}
    seen, _ = show(small_run(tmp_path / "run", 2, changed=changed), candidates=[5])
    page = seen.page
    expect(page.locator(".row[aria-selected=true] .says")).to_contain_text("\u2026 (30,000 letters)")
    page.locator(".chosen summary").click()
    page.get_by_role("button", name="show more (20,000 of 30,000 shown)").click()
    expect(page.locator("[data-more='text 0']")).to_have_count(0)
    assert page.locator("pre.text").text_content() == text
    check_quiet(seen)


def test_marks_that_are_not_to_be_seen_are_shown_by_their_numbers(tmp_path: Path, show: Callable[..., Any]) -> None:
    marks = [chr(one) for pair in UNSEEN for one in pair if not 0xD800 <= one <= 0xDFFF]
    text = "".join(f"a{mark}b " for mark in marks) + "\U0001f3c6 \u05d0"
    seen, _ = show(small_run(tmp_path / "run", 2, changed={"completion": text, "turns": [text]}), candidates=[5])
    page = seen.page
    page.locator(".chosen summary").click()
    said = "".join(f"a\u27e8{ord(mark):02x}\u27e9b " for mark in marks) + "\U0001f3c6 \u05d0"
    assert page.locator("pre.text").text_content() == said
    page.evaluate(
        """() => { const [one] = model.get("replays"); model.state.replays = [{ ...one, note: "left \u200f right" }];
        model.tell("change:replays"); }"""
    )
    expect(page.locator(".stage .note")).to_have_text("left \u27e8200f\u27e9 right")
    check_quiet(seen)


def test_the_ratio_and_the_weight_are_two_numbers(folder: Path, show: Callable[..., Any]) -> None:
    seen, widget = show(folder, candidates=[1])
    page, row = seen.page, widget.sides[0]["candidates"][1]
    cells = page.locator(".row[aria-selected=true] .cells > span").all_inner_texts()
    heads = page.locator(".names > span").all_inner_texts()
    assert 0.01 < row["ratio"] < 1000
    assert cells[heads.index("p/q")] == f"{row['ratio']:.2f}" and cells[heads.index("weight")] == "1.10"
    facts = page.locator(".facts-grid")
    expect(facts).to_contain_text("weight applied (correction none)1.1000")
    expect(facts).to_contain_text(f"p/q{row['ratio']:.2f}")
    check_quiet(seen)


def test_an_episode_is_replayed_move_by_move_with_what_was_said(tmp_path: Path, show: Callable[..., Any]) -> None:
    run = episodes_run(tmp_path / "run", "frozen_lake", slippery="yes", min_distance=2)
    seen, widget = show(run, candidates=[2])
    page, replay = seen.page, widget.replays[0]
    picture, caption = page.locator(".stage img"), page.locator(".stage .caption")
    expect(caption).to_have_text(replay["frames"][-1]["caption"])
    assert picture.evaluate(DECODED) == replay["frames"][-1]["svg"]
    expect(page.locator(".stage .said pre")).to_have_text(replay["turns"][-1]["text"])
    page.get_by_label("move").focus()
    page.keyboard.press("Home")
    expect(caption).to_have_text("start")
    expect(page.locator(".stage .said pre")).to_have_count(0)
    page.keyboard.press("ArrowRight")
    expect(caption).to_have_text("turn 1: no action that can be read; reward 0")
    expect(page.locator(".stage .said")).to_contain_text("turn 1 said")
    expect(page.locator(".stage .said pre")).to_contain_text("\u2026 (3,000 letters)")
    for frame in replay["frames"][2:]:
        page.keyboard.press("ArrowRight")
        expect(caption).to_have_text(frame["caption"])
        assert picture.evaluate(DECODED) == frame["svg"]
    check_quiet(seen)
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTEFACTS / "inspector-episode.png", full_page=True)


def test_sketches_are_coloured_by_cluster_when_asked_for(
    folder: Path, show: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clustering, "by_meaning", lambda texts: [1, -1, 0])
    seen, widget = show(folder)
    page, control = seen.page, seen.page.get_by_label("colour of sketches")
    expect(control).to_have_value("strategy")
    assert "cluster" not in page.locator(".list").inner_text()
    control.select_option("cluster")
    tags = page.locator(".sketch .tag", has_text=re.compile("^(cluster|noise)"))
    expect(tags).to_have_text(["cluster 2", "noise", "cluster 1"])
    hue = "e => e.style.getPropertyValue('--hue')"
    heads = page.locator(".sketch:not(.dim)")
    assert [one.evaluate(hue) for one in heads.all()] == ["#D55E00", "", "#0072B2"]
    expect(page.locator(".legend")).to_contain_text("sketches by cluster")
    assert widget.sketch_colouring == "cluster"
    page.screenshot(path=ARTEFACTS / "inspector-clusters.png", full_page=True)
    page.get_by_role("button", name="previous step").click()
    expect(page.locator("summary", has_text="task 4")).to_be_visible()
    expect(tags).to_have_count(3)
    control.select_option("strategy")
    expect(tags).to_have_count(0)
    check_quiet(seen)


def test_wrong_clusters_are_a_note(folder: Path, show: Callable[..., Any]) -> None:
    seen, _ = show(folder, clusters=lambda texts: [0])
    expect(seen.page.locator(".legend .note")).to_contain_text("clusters returned [0], expected 3 whole numbers")
    expect(seen.page.get_by_label("colour of sketches")).to_have_value("cluster")
    check_quiet(seen)


def test_a_run_that_is_being_written_is_read_again(tmp_path: Path, show: Callable[..., Any]) -> None:
    path = small_run(tmp_path / "run", steps=2)
    seen, _ = show(path)
    page, button = seen.page, seen.page.get_by_role("button", name="reload")
    button.click()
    expect(page.get_by_role("status").filter(has_text="no new step")).to_be_visible()
    small_run(path, steps=4, first=3)
    button.click()
    expect(page.get_by_role("status").filter(has_text="2 new steps")).to_be_visible()
    expect(page.locator(".bar b")).to_have_text("2 of 4")
    expect(button).to_be_enabled()
    check_quiet(seen)


@pytest.mark.parametrize("attack", [*ATTACKS[:6], "]]><script>window.pwned=1</script>", "${window.pwned=1}"])
def test_hostile_names_run_nothing_anywhere(tmp_path: Path, show: Callable[..., Any], attack: str) -> None:
    changed = {"strategy": attack, "sketch": attack, "finish": attack, "drawn_under": attack, "trained_under": attack}
    run = small_run(
        tmp_path / "run", 2, changed={**changed, "prompt": attack, "completion": attack, "turns": [attack] * 2}
    )
    seen, widget = show(run, candidates=[5])
    expect(seen.page.locator(".stage")).to_contain_text("is another one in this version")
    seen.page.get_by_label("strategy").select_option(
        label=seen.page.get_by_label("strategy").locator("option").last.inner_text()
    )
    expect(seen.page.locator(".row")).to_have_count(1)
    assert widget.filter["strategy"] == attack
    check_quiet(seen)


def test_long_texts_are_cut_with_a_note_and_go_on(tmp_path: Path, show: Callable[..., Any]) -> None:
    text, count = "<b>x</b>" * 131_072, 4_500
    long = {"completion": text, "turns": [text], "token_ids": [3] * count, "turn_tokens": [count]}
    seen, _ = show(small_run(tmp_path / "run", 2, changed={**long, "drawn_logprobs": [-0.5] * count}), candidates=[5])
    page = seen.page
    expect(page.locator(".row[aria-selected=true] .says")).to_contain_text("\u2026 (1,048,576 letters)")
    page.locator(".chosen summary").click()
    more = page.get_by_role("button", name="show more (20,000 of 1,048,576 shown)")
    more.click()
    expect(page.get_by_role("button", name="show more (40,000 of 1,048,576 shown)")).to_be_visible()
    assert page.locator("pre.text").text_content() == text[:40_000]
    assert page.locator(".tokens > span").count() == 2_000
    page.get_by_role("button", name="show more (2,000 of 4,500 shown)").click()
    page.get_by_role("button", name="show more (4,000 of 4,500 shown)").click()
    expect(page.locator(".tokens > span")).to_have_count(count)
    assert page.locator("[data-more='tokens 0']").count() == 0
    check_quiet(seen)


def test_two_runs_side_by_side(folder: Path, tmp_path: Path, show: Callable[..., Any]) -> None:
    seen, widget = show(folder, small_run(tmp_path / "other", seed=5), width=1600)
    page = seen.page
    expect(page.locator(".side").nth(1).locator(".note").first).to_contain_text("task 6 is another one in this run")
    page.locator(".side").nth(1).locator(".row[data-index='2']").click()
    page.keyboard.press("ArrowDown")
    expect(page.locator(".side").nth(1).locator(".title b")).to_contain_text("candidate 3")
    assert widget.candidates == [0, 3] and chosen(page) == [0, 3]
    page.locator(".side").first.locator(".row[data-index='0']").click()
    page.keyboard.press("ArrowDown")
    expect(page.locator(".side").first.locator(".title b")).to_contain_text("candidate 1")
    assert chosen(page) == [1, 3]
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".side summary", has_text="task 4")).to_have_count(2)
    check_quiet(seen)
    page.screenshot(path=ARTEFACTS / "inspector-two.png", full_page=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_read_in_both_themes(folder: Path, show: Callable[..., Any], scheme: str) -> None:
    seen, _ = show(folder, scheme=scheme)
    page = seen.page
    ground = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]
    expect(page.locator(".sesa")).to_have_css("background-color", ground)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "sesa"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTEFACTS / f"inspector-{scheme}.png", full_page=True)
    check_quiet(seen)


def test_it_fits_a_narrow_page_and_goes_without_a_trace(folder: Path, show: Callable[..., Any]) -> None:
    seen, _ = show(folder, width=560)
    page = seen.page
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.get_by_role("button", name="play").click()
    page.evaluate("window.cleanup()")
    assert page.evaluate("Object.values(model.listeners).flat().length") == 0
    check_quiet(seen)
