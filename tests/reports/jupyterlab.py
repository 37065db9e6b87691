"""The real JupyterLab, by ``sesa-lab lab``: a server on a folder of its own, and pages that remember what they ask for."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import quote, urlsplit

import nbformat
from playwright.sync_api import Browser, Locator, Page, expect

from sesa_lab import live

ARTEFACTS = Path(__file__).parents[2] / "reports" / "artefacts"
COMMAND = "import sys; from sesa_lab.cli import main; sys.exit(main())"
TOKEN = "of-this-test"
POINTS = (
    "e => (e._fullData || []).filter(t => t.hoverinfo !== 'skip').map(t => [...(t.x || [])].map(Number))"
    ".reduce((found, x) => ({count: found.count + x.length, last: Math.max(found.last, ...x)}), {count: 0, last: -1})"
)
"""Of a plot that is drawn: how many points its lines have, and the largest x among them; -1: none."""

ALL_RAN = """() => {
  const prompts = [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")].map(e => e.textContent);
  return prompts.some(text => /[0-9]/.test(text)) && !prompts.some(text => text.includes("*"));
}"""


class Lab:
    """A server on a folder of its own, and the address that opens it."""

    def __init__(self, folder: Path, log: Path, port: int) -> None:
        self.folder = folder
        self.log = log
        self.address = f"http://127.0.0.1:{port}"

    def get(self, path: str, method: str = "GET") -> str:
        request = urllib.request.Request(
            self.address + path, headers={"Authorization": f"token {TOKEN}"}, method=method
        )
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

    def shut_kernels_down(self) -> None:
        for session in json.loads(self.get("/api/sessions")):
            self.get(f"/api/sessions/{session['id']}", "DELETE")


@contextlib.contextmanager
def serving(home: Path) -> Iterator[Lab]:
    """JupyterLab with settings, kernels and files of its own, on ``home / "notebooks"``; ended with all that it trains."""
    folder = home / "notebooks"
    folder.mkdir(exist_ok=True)
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
        for started in folder.rglob("*.live"):
            run = live.attach(started.with_suffix(""))
            if not run.state.ended:
                run.stop()
                run.wait(30)


def write(path: Path, sources: Sequence[str]) -> None:
    """A notebook of code cells, for the kernel of this interpreter."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]  # type: ignore[no-untyped-call]
    notebook: Any = nbformat.v4.new_notebook(cells=cells)  # type: ignore[no-untyped-call]
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]


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

    def check_quiet(self, known: str = "") -> None:
        """Nothing complained but of what is ``known``, and nothing was asked of another machine."""
        errors = [error for error in self.errors if not known or known not in error]
        assert errors == [], errors
        local = {"127.0.0.1"}
        assert {urlsplit(url).hostname for url in self.asked if not url.startswith(("data:", "blob:"))} == local

    def wait_for_kernel(self, timeout: float = 120_000) -> None:
        """Until the kernel is there and runs nothing."""
        # Not the notebook's own sign: it says idle before there is a kernel, and cells that are run then are not run at all.
        self.page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for(timeout=timeout)

    def choose(self, menu: str, command: str) -> None:
        """An entry of a menu of the page."""
        self.page.locator(".lm-MenuBar-item").get_by_text(menu, exact=True).click()
        self.page.locator(f".lm-Menu-item[data-command='{command}']").click()

    def run_all(self) -> None:
        """All cells, from the first; returns at once."""
        self.choose("Run", "runmenu:run-all")

    def cell(self, place: int) -> Locator:
        """The cell of this place, from 0; prose counts too."""
        return self.page.locator(f".jp-Notebook .jp-Cell[data-windowed-list-index='{place}']")

    def run(self, place: int) -> Locator:
        """Run one cell; returns it at once."""
        cell = self.cell(place)
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Shift+Enter")
        return cell

    def wait_for_cells(self, timeout: float = 240_000) -> None:
        """Until all that was asked to run has run, or was given up after an error."""
        self.page.wait_for_function(ALL_RAN, timeout=timeout)

    def save(self) -> None:
        """Write the notebook, and wait until it is written."""
        self.page.keyboard.press("Control+s")
        expect(self.page.locator("#jp-main-dock-panel .lm-TabBar-tab.jp-mod-dirty")).to_have_count(0)


@contextlib.contextmanager
def visiting(browser: Browser, lab: Lab, path: str = "", height: int = 1800) -> Iterator[Visit]:
    """A page of a user who was never here: a notebook in a workspace of its own; without ``path`` what the command opens."""
    context = browser.new_context(viewport={"width": 1400, "height": height})
    seen = Visit(context.new_page())
    place = f"/lab/workspaces/{Path(path).stem}/tree/{quote(path)}?reset&token={TOKEN}" if path else f"/?token={TOKEN}"
    seen.page.goto(lab.address + place)
    try:
        yield seen
    finally:
        context.close()
