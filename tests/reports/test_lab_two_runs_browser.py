"""In the real JupyterLab: the temperature slider asks a policy, and one microscope looks at two runs by one slider."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from sesa_lab.cli_lab import START
from sesa_lab.config import Config
from sesa_lab.training.loop import train
from tests.reports.jupyterlab import ARTEFACTS, Lab, Visit, serving, visiting, write

pytestmark = [pytest.mark.browser, pytest.mark.slow]
CELLS = (
    "from sesa_lab.microscope import CollapseMicroscope\nfrom sesa_lab.playground import LossPlayground\n"
    "from sesa_lab.rescoring import Rescorer",
    "playground = LossPlayground('drawn-in-sequence', rescorer=Rescorer('drawn-in-sequence'))\nplayground",
    "microscope = CollapseMicroscope(['drawn-in-parallel', 'drawn-in-sequence'])\nmicroscope",
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab on one notebook, and two runs of three steps beside it."""
    home = tmp_path_factory.mktemp("two")
    (home / "notebooks").mkdir()
    write(home / "notebooks" / START, CELLS)
    for name, sampler, correction in (("parallel", "parallel", "none"), ("sequence", "sequential", "truncated_is")):
        config = Config.build(
            sampler={"name": sampler, "group_size": 6, "max_tokens": 8},
            update={"correction": correction},
            run={"steps": 3, "groups": 2, "checkpoint_every": 1, "evaluate_every": 1, "trackers": "none"},
        )
        train(config, home / "notebooks" / f"drawn-in-{name}")
    with serving(home) as found:
        yield found


@pytest.fixture(scope="module")
def seen(lab: Lab, browser: Browser) -> Iterator[Visit]:
    with visiting(browser, lab, height=4400) as seen:
        seen.wait_for_kernel()
        seen.run_all()
        expect(seen.page.locator(".js-plotly-plot:has(.main-svg)")).to_have_count(6, timeout=120_000)
        seen.wait_for_kernel()
        yield seen


def slider(page: Page, name: str) -> Locator:
    return page.locator(".widget-slider", has=page.get_by_text(name, exact=True)).first


def test_a_token_tells_its_numbers(seen: Visit) -> None:
    page = seen.page
    strips = page.locator(".js-plotly-plot", has_text=re.compile(r"tokens under")).first
    place = strips.evaluate(
        """plot => {
            const box = plot.getBoundingClientRect(), { xaxis, yaxis } = plot._fullLayout;
            return [box.left + xaxis._offset + xaxis.d2p(0), box.top + yaxis._offset + yaxis.d2p(1)];
        }"""
    )
    page.mouse.move(*place)
    hover = strips.locator(".hoverlayer")
    expect(hover).to_contain_text(re.compile(r"candidate 1, token 0: .+ \(id \d+\)"))
    expect(hover).to_contain_text(re.compile(r"log p when drawn \S+ nats"))
    expect(hover).to_contain_text(re.compile(r"weight \S+; predicted change \S+ nats"))
    seen.check_quiet()


def test_the_temperature_slider_weighs_the_same_words_anew(seen: Visit) -> None:
    page = seen.page
    expect(page.get_by_text("exact, from the frozen base")).to_be_visible()
    said = page.get_by_text(re.compile(r"mean importance weight [\d.e-]+"))
    weight = said.inner_text().rpartition(" ")[2]
    control = slider(page, "temperature")
    expect(control.locator(".widget-readout")).to_have_text("1.00")
    handle = control.locator(".noUi-handle")
    handle.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    expect(control.locator(".widget-readout")).not_to_have_text("1.00")
    expect(said).to_contain_text(re.compile(r"at temperature 1\.\d+"), timeout=30_000)
    assert said.inner_text().rpartition(" ")[2] != weight
    seen.check_quiet()


def test_two_runs_on_one_slider(seen: Visit) -> None:
    page = seen.page
    heat = page.locator(".js-plotly-plot", has_text="Strategies: share of").first
    assert heat.locator(".cartesianlayer > .subplot").count() == 2  # side by side
    at = "plot => plot._fullLayout.shapes.map((shape) => shape.x0)"
    assert set(heat.evaluate(at)) == {3}
    expect(page.get_by_text(re.compile(r"parallel.*step 3, all strategies: 12 candidates"))).to_be_visible()
    place = heat.evaluate(
        """plot => {
            const box = plot.getBoundingClientRect(), { xaxis2, yaxis } = plot._fullLayout;
            return [box.left + xaxis2._offset + xaxis2.d2p(2), box.top + yaxis._offset + yaxis.d2p(0)];
        }"""
    )
    page.mouse.click(*place)  # in the second run's panel
    expect(page.get_by_text(re.compile(r"sequential.*step 2, "))).to_be_visible(timeout=30_000)
    assert set(heat.evaluate(at)) == {2}, "both panels follow"
    tree = page.locator(".js-plotly-plot", has_text="Policy mass on the tree of places")
    expect(tree.locator(".annotation", has_text="step 2")).to_have_count(2)
    assert tree.locator(".cartesianlayer > .subplot").count() == 2 and tree.locator(".slider-container").count() == 0
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTEFACTS / "lab-two-runs.png")
    seen.check_quiet()
