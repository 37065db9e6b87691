"""Every notebook in JupyterLab: it runs, is saved small, and reopens with its plots, with no kernel and no other machine."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Browser, expect

from sesa_lab import reproduce
from sesa_lab.reports.run_notebooks import defaults
from sesa_lab.reproduce import claims, results
from tests.reports.jupyterlab import ARTEFACTS, Lab, Visit, serving, visiting

pytestmark = [pytest.mark.slow, pytest.mark.browser]
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NAMES = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))
PLOTLY = "application/vnd.plotly.v1+json"
LARGEST = 10**6  # bytes of a notebook with its outputs
PLOTS = ".jp-Cell-outputArea > .jp-OutputArea-child > .jp-RenderedPlotly"
"""Outputs of cells; not what widgets show, which need a kernel."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab on copies of all notebooks, at their smallest."""
    home = tmp_path_factory.mktemp("lab")
    (home / "notebooks").mkdir()
    given = smallest(home / "runs", home / "reports")
    for name in NAMES:
        copy(NOTEBOOKS / name, home / "notebooks" / name, given[name])
    some_results(home / "reports")
    with serving(home) as found:
        yield found


def smallest(runs: Path, reports: Path) -> dict[str, dict[str, Any]]:
    """Notebook -> parameters: those of the size `smoke`, of one seed and one arm beside the base and baseline RL."""
    found: dict[str, dict[str, Any]] = {}
    for name in reproduce.known():
        plan = reproduce.plan(reproduce.load(name), "smoke", runs, reports)
        for path, parameters in plan.notebooks.items():
            own = {"runs": str(runs), "reports": str(reports), "experiment": str(plan.experiment.path)}
            own |= {"seeds": list(plan.seeds[:1]), "arms": "sesa-paper", "steps": 2, "results": _absolute(path)}
            known = defaults(path)
            found[path.name] = {**parameters, **{key: value for key, value in own.items() if key in known}}
    return found


def _absolute(notebook: Path) -> str:
    """The file of stored results that a notebook names, from wherever it is run."""
    named = defaults(notebook).get("results", "")
    return str((notebook.parent / named).resolve()) if named else ""


def copy(notebook: Path, to: Path, parameters: dict[str, Any]) -> None:
    """A notebook with other parameters."""
    book: Any = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    cell = next(cell for cell in book.cells if "parameters" in cell.metadata.get("tags", []))
    cell.source = "\n".join([cell.source, *(f"{name} = {value!r}" for name, value in parameters.items())])
    nbformat.write(book, to)  # type: ignore[no-untyped-call]


def some_results(folder: Path) -> None:
    """What `sesa-lab reproduce all` would leave, of one arm of each experiment that a claim asks for."""
    told = tomllib.loads(claims.FILE.read_text(encoding="utf-8"))["claim"]
    for name in {claim["experiment"] for claim in told}:
        rows = [
            {
                "group": claim.get("group", ""), "measure": claim["measure"], "arm": claim["paper"], "n_seeds": 3,
                "seeds": "0-2", "mean": 0.7, "diff": 0.2, "diff_low": 0.1, "diff_high": 0.3, "n_pairs": 3, "p_holm": 0.01,
                "diff_base": 0.2, "diff_base_low": 0.1, "diff_base_high": 0.3, "n_pairs_base": 3, "p_base_holm": 0.01,
            }
            for claim in told
            if claim["experiment"] == name
        ]  # fmt: skip
        found = {
            "schema": results.SCHEMA, "estimates": rows, "preset": "smoke", "title": name, "question": "?",
            "runs": [{"commit": "0123456789", "folder": name}], "seeds": [0, 1, 2], "failed": [], "made": {},
            "command": f"sesa-lab reproduce {name}",
        }  # fmt: skip
        (folder / name).mkdir(parents=True)
        (folder / name / results.JSON).write_text(json.dumps(found))


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_and_reopens_with_its_plots(lab: Lab, browser: Browser, name: str) -> None:
    path = lab.folder / name
    with visiting(browser, lab, name) as seen:
        seen.wait_for_kernel()
        seen.run_all()
        seen.wait_for_cells()
        seen.wait_for_kernel()
        seen.save()
        outputs = outputs_of(path)
        assert [each["evalue"] for each in outputs if each["output_type"] == "error"] == []
        stored = [each["data"][PLOTLY] for each in outputs if PLOTLY in each.get("data", {})]
        all_drawn(seen, len(stored))
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        seen.page.screenshot(path=ARTEFACTS / f"notebook-{path.stem}.png")
        seen.check_quiet()
    assert len(stored) >= 1 and all(figure["data"] for figure in stored)
    scripts = [each for each in outputs if "<script" in "".join(each.get("data", {}).get("text/html", ""))]
    assert scripts == [] and path.stat().st_size < LARGEST
    assert not [each for each in outputs if {PLOTLY, "image/png"} <= set(each.get("data", {}))], "no second copy"
    lab.shut_kernels_down()
    with visiting(browser, lab, name) as again:
        all_drawn(again, len(stored))
        again.check_quiet("widget model not found")  # JupyterLab says so in the place of each: they live in a kernel
    lab.shut_kernels_down()
    assert outputs_of(path) == outputs, "opening it ran nothing"


def outputs_of(path: Path) -> list[Any]:
    book = json.loads(path.read_text(encoding="utf-8"))
    return [output for cell in book["cells"] for output in cell.get("outputs", [])]


def all_drawn(seen: Visit, plots: int) -> None:
    """Every plot is drawn and alive; the page is then as high as its notebook, so that all of it is seen at once."""
    page = seen.page
    expect(page.locator(PLOTS)).to_have_count(plots, timeout=30_000)
    for place in range(plots):
        page.locator(PLOTS).nth(place).scroll_into_view_if_needed()
        expect(page.locator(PLOTS).nth(place).locator(".main-svg").first).to_be_visible(timeout=30_000)
    height = page.locator(".jp-WindowedPanel-viewport").first.evaluate("e => e.scrollHeight")
    page.set_viewport_size({"width": 1400, "height": min(16_000, int(height) + 200)})
    page.locator(".jp-Notebook .jp-Cell").first.scroll_into_view_if_needed()
