"""The real JupyterLab, by ``sesa-lab lab``: widgets draw, keys and buttons reach the kernel, no other machine is asked."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit

import nbformat
import pytest
from playwright.sync_api import Browser, Page, expect

from sesa_lab import live
from sesa_lab.cli_lab import START
from tests.widgets.inspector_runs import small_run

pytestmark = pytest.mark.browser
ARTEFACTS = Path(__file__).parents[2] / "reports" / "artefacts"
COMMAND = "import sys; from sesa_lab.cli import main; sys.exit(main())"
TOKEN = "of-this-test"
CELLS = (
    "from sesa_lab import live\nfrom sesa_lab.widgets import SketchInspector",
    "SketchInspector('looked-at')",
    "live.train(out='trained', steps=100_000, groups=1, group_size=2, max_tokens=8, checkpoint_every=1000, trackers='none')",
)


class Lab:
    """A server on a folder of its own, and the address that opens it."""

    def __init__(self, folder: Path, log: Path, port: int) -> None:
        self.folder = folder
        self.log = log
        self.address = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> str:
        request = urllib.request.Request(self.address + path, headers={"Authorization": f"token {TOKEN}"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            return str(answer.read().decode())

    def wait(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + 60
        while True:
            assert process.poll() is None and time.monotonic() < end, self.log.read_text()
            try:
                self.get("/api/status")
                return
            except URLError:
                time.sleep(0.1)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab with settings, kernels and files of its own; ended with all that it trains."""
    home = tmp_path_factory.mktemp("lab")
    folder = home / "notebooks"
    folder.mkdir()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, folder / START)
    small_run(folder / "looked-at")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "IPYTHON"))}
    own = {"HOME": str(home), "JUPYTER_TOKEN": TOKEN}
    found = Lab(folder, home / "log", port)
    with found.log.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "lab", str(folder), "--port", str(port), "--no-browser"],
            env={**kept, **own}, cwd=home, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        found.wait(process)
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        if (folder / "trained").exists():
            run = live.attach(folder / "trained")
            if not run.state.ended:
                run.stop()
                run.wait(30)


class Visit:
    """An open page, all that it asked for, and the errors it complained of; JupyterLab warns of its own doings."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.asked: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("websocket", lambda socket: self.asked.append(socket.url))
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def check_quiet(self) -> None:
        """Nothing complained, and nothing was asked of another machine."""
        assert self.errors == []
        local = {"127.0.0.1"}
        assert {urlsplit(url).hostname for url in self.asked if not url.startswith(("data:", "blob:"))} == local


@pytest.fixture(scope="module")
def seen(lab: Lab, browser: Browser) -> Iterator[Visit]:
    """The page that the command opens, all cells run."""
    context = browser.new_context(viewport={"width": 1400, "height": 1800})
    seen = Visit(context.new_page())
    page = seen.page
    page.goto(f"{lab.address}/?token={TOKEN}")
    # Not the notebook's own sign: it says idle before there is a kernel, and cells that are run then are not run at all.
    idle = page.locator("#jp-main-statusbar").get_by_text("| Idle")
    idle.wait_for(timeout=60_000)
    page.locator(".lm-MenuBar-item").get_by_text("Run", exact=True).click()
    page.locator(".lm-Menu-item[data-command='runmenu:run-all']").click()
    page.get_by_role("button", name="Stop", exact=True).wait_for(timeout=60_000)
    idle.wait_for()
    yield seen
    context.close()


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
