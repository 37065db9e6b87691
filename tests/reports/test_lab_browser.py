"""The real JupyterLab, by ``sesa-lab lab``: widgets draw, keys and buttons reach the kernel, no other machine is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, expect

from sesa_lab import live
from sesa_lab.cli_lab import START
from tests.reports.jupyterlab import ARTEFACTS, Lab, Visit, serving, visiting, write
from tests.widgets.inspector_runs import small_run

pytestmark = pytest.mark.browser
CELLS = (
    "from sesa_lab import live\nfrom sesa_lab.widgets import SketchInspector",
    "SketchInspector('looked-at')",
    "live.train(out='trained', steps=100_000, groups=1, group_size=2, max_tokens=8, checkpoint_every=1000, trackers='none')",
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab on the one notebook that it begins with, and a run to be looked at."""
    home = tmp_path_factory.mktemp("lab")
    (home / "notebooks").mkdir()
    write(home / "notebooks" / START, CELLS)
    small_run(home / "notebooks" / "looked-at")
    with serving(home) as found:
        yield found


@pytest.fixture(scope="module")
def seen(lab: Lab, browser: Browser) -> Iterator[Visit]:
    """The page that the command opens, all cells run."""
    with visiting(browser, lab) as seen:
        seen.wait_for_kernel()
        seen.run_all()
        seen.page.get_by_role("button", name="Stop", exact=True).wait_for(timeout=60_000)
        seen.wait_for_kernel()
        yield seen


def test_the_command_opens_the_first_notebook_with_our_settings(lab: Lab, seen: Visit) -> None:
    assert urlsplit(seen.page.url).path == f"/lab/tree/{START}"
    place = "/lab/api/settings/@jupyterlab/apputils-extension:"
    kernels, news = (
        json.loads(lab.get(place + name))["schema"]["properties"] for name in ("kernels-settings", "notification")
    )
    assert kernels["commsOverSubshells"]["default"] == "disabled"
    assert news["fetchNews"]["default"] == "false" and news["checkForUpdates"]["default"] is False


def test_keys_reach_the_inspector_and_its_kernel(seen: Visit) -> None:
    inspector = seen.page.locator(".sesa")
    expect(inspector.locator(".bar b")).to_have_text("4 of 4")
    expect(inspector.locator(".stage img")).to_be_visible()
    inspector.focus()
    seen.page.keyboard.press("ArrowLeft")
    expect(inspector.locator(".bar b")).to_have_text("3 of 4")
    expect(inspector.locator("summary", has_text="task 4")).to_be_visible()
    seen.page.keyboard.press("ArrowDown")
    expect(inspector.locator(".chosen .title b")).to_contain_text("candidate 1")
    seen.check_quiet()


def test_stop_ends_the_training(lab: Lab, seen: Visit) -> None:
    page, run = seen.page, live.attach(lab.folder / "trained")
    expect(page.get_by_text("running, process")).to_be_visible(timeout=60_000)
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible(timeout=30_000)
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_text("trained: stopped")).to_be_visible(timeout=30_000)
    expect(page.get_by_role("button", name="Resume", exact=True)).to_be_enabled()
    assert run.state.name == "stopped" and run.state.step > 0
    seen.check_quiet()
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTEFACTS / "lab.png")
