"""What lives in JupyterLab while a process or a cell trains: a panel attached after the kernel's restart, curves that grow."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, expect

from sesa_lab import live
from tests.reports.jupyterlab import POINTS, Lab, serving, visiting, write

pytestmark = [pytest.mark.slow, pytest.mark.browser]
RESTARTED, GROWING = "restarted.ipynb", "growing.ipynb"
TRAINED = (
    "from sesa_lab import live",
    "live.train(out='trained', steps=100_000, groups=1, group_size=2, max_tokens=8, checkpoint_every=1000, trackers='none')",
    "live.attach('trained')",
    "live.attach('trained')",
    "import threading; 'following: %d' % sum(thread.name == 'sesa-lab-panel' for thread in threading.enumerate())",
)
GROWN = (
    "from pathlib import Path\n"
    "from sesa_lab.experiments import execute, path_exploration as arms\n"
    "from sesa_lab.experiments.live import LiveCurves\n"
    "from sesa_lab.experiments.matrix import jobs_for",
    "base = {**arms.BASE, 'run': {'groups': 1, 'steps': 100_000, 'evaluate_every': 5, 'checkpoint_every': 1000}}\n"
    "jobs = jobs_for(arms.named(arms.PLAIN), [0], base, Path('runs'))\n"
    "execute(jobs, 1, 'training', LiveCurves(jobs, 'coverage', 'treasures'))",
)
PLOT = ".js-plotly-plot:has(.main-svg)"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    home = tmp_path_factory.mktemp("lab")
    (home / "notebooks").mkdir()
    write(home / "notebooks" / RESTARTED, TRAINED)
    write(home / "notebooks" / GROWING, GROWN)
    with serving(home) as found:
        yield found


def grown(cell: Locator, beyond: float) -> float:
    """Wait until the cell's plot shows an x beyond this one; returns the last that it shows then."""
    asked = f"([cell, beyond]) => {{ const plot = cell.querySelector('{PLOT}'); return plot && ({POINTS})(plot).last > beyond; }}"
    cell.page.wait_for_function(asked, arg=[cell.element_handle(), beyond], timeout=120_000)
    return float(cell.locator(PLOT).evaluate(POINTS)["last"])


def test_a_panel_is_attached_after_the_kernel_was_restarted(lab: Lab, browser: Browser) -> None:
    with visiting(browser, lab, RESTARTED) as seen:
        page = seen.page
        seen.wait_for_kernel()
        seen.run(0)
        before = seen.run(1)
        reached = grown(before, beyond=1)
        process = live.attach(lab.folder / "trained").state.pid
        seen.choose("Kernel", "kernelmenu:restart")
        page.get_by_role("button", name="Confirm Kernel Restart").click()
        seen.wait_for_kernel()
        expect(before.locator(".jp-InputPrompt")).to_have_text("[2]:")
        seen.run(0)
        panel = seen.run(2)
        expect(panel.get_by_text(f"running, process {process}")).to_be_visible(timeout=60_000)
        expect(panel.locator(".widget-hprogress")).to_be_visible()
        after = grown(panel, beyond=reached)
        grown(panel, beyond=after)
        other = seen.run(3)
        for _ in range(3):
            panel = seen.run(2)  # again: the cell shows the same panel
            expect(panel.get_by_text(f"running, process {process}")).to_be_visible(timeout=60_000)
        reached = max(grown(panel, beyond=after), grown(other, beyond=after))
        for cell in (panel, other):
            expect(cell.locator(".widget-hprogress")).to_have_count(1)
            grown(cell, beyond=reached)
        expect(seen.run(4).get_by_text("following: 1")).to_be_visible(timeout=60_000)
        panel.get_by_role("button", name="Stop", exact=True).click()
        expect(panel.get_by_text("trained: stopped")).to_be_visible(timeout=60_000)
        state = live.attach(lab.folder / "trained").state
        assert state.name == "stopped" and state.step > reached
        seen.check_quiet()


def test_curves_grow_while_a_cell_trains(lab: Lab, browser: Browser) -> None:
    with visiting(browser, lab, GROWING) as seen:
        seen.wait_for_kernel()
        seen.run(0)
        cell = seen.run(1)
        shown = [0.0]
        for _ in range(3):
            shown.append(grown(cell, beyond=shown[-1]))
            expect(cell.locator(".jp-InputPrompt")).to_have_text("[*]:")
        first, last = shown[1], shown[-1]
        assert last > first
        expect(cell.locator(PLOT).locator(".gtitle")).to_contain_text("live: coverage, 1 of 1 runs begun")
        seen.choose("Kernel", "kernelmenu:interrupt")
        expect(cell.locator(".jp-OutputArea-output").last).to_contain_text("KeyboardInterrupt", timeout=60_000)
        expect(cell.locator(PLOT)).to_be_visible()
        seen.check_quiet()
