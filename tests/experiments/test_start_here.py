"""The tour trains, shows and leaves figures; run once more it reads what is there."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from sesa_lab.reports.run_notebooks import execute

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
PLOTLY = "application/vnd.plotly.v1+json"


@pytest.mark.slow
def test_the_tour_runs_and_is_not_trained_again(tmp_path: Path) -> None:
    small = {"steps": 3, "groups": 2, "runs": str(tmp_path / "runs")}
    written = []
    for out in (tmp_path / "first.ipynb", tmp_path / "again.ipynb"):
        cells = nbformat.read(execute(NOTEBOOKS / "00_start_here.ipynb", out, small), as_version=4).cells
        shown = [output for cell in cells for output in cell.get("outputs", []) if PLOTLY in output.get("data", {})]
        assert len(shown) == 6, "curves of two runs, strategies, a map, the playground's figure, the signals"
        assert all(output["data"][PLOTLY]["data"] for output in shown)
        assert not [output for cell in cells for output in cell.get("outputs", []) if output.get("name") == "stderr"]
        written.append({path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("metrics*")})
    assert written[0] and written[0] == written[1]


def test_the_tour_names_every_notebook() -> None:
    text = (NOTEBOOKS / "00_start_here.ipynb").read_text()
    missing = [path.name for path in NOTEBOOKS.glob("*.ipynb") if f"({path.name})" not in text]
    assert missing == ["00_start_here.ipynb"]
