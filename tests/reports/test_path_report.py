"""The two notebooks from training to the offline page, at the smallest size that runs every cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from sesa_lab.experiments import report

pytestmark = [pytest.mark.slow, pytest.mark.browser]


def test_both_notebooks_run_and_their_report_opens_offline(tmp_path: Path, visit) -> None:
    out = report.make("path_exploration", tmp_path / "runs", [0, 1], tmp_path / "report.html", steps=2)
    assert out.stat().st_size <= 3 * 2**20
    opened = visit(out)
    page = opened.page
    # 01: live, coverage, accuracy, entropy, tokens, bars, tree; 02: live, coverage, accuracy, distance, bars, tree
    assert page.locator(".js-plotly-plot .main-svg").count() >= 13
    assert page.locator(".js-plotly-plot").count() == 13
    text = page.inner_text("body")
    assert "stopped with an error" not in text and "Traceback" not in text
    assert text.count("Conclusion") >= 2 and "times that of parallel" in text
    assert "seeds 0-1" in text or "seeds 0, 1" in text  # captions say where figures come from
    assert "95 %" in text and "commit" in text
    assert opened.requests == [out.as_uri()] and opened.complaints == []


def test_a_second_report_trains_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "runs"
    report.make("path_exploration", folder, [3], tmp_path / "one.html", steps=1)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("metrics.jsonl")}
    report.make("path_exploration", folder, [3], tmp_path / "two.html", steps=1)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("metrics.jsonl")}
    assert len(before) == 10  # five arms, trained and then revived


def test_an_unknown_parameter_is_refused_before_training(tmp_path: Path) -> None:
    from sesa_lab.errors import InputError
    from sesa_lab.reports.run_notebooks import execute

    book = report.NOTEBOOKS / "01_path_exploration.ipynb"
    with pytest.raises(InputError, match="has no parameter 'sed'"):
        execute(book, tmp_path / "out.ipynb", {"sed": [0]})
    assert not (tmp_path / "out.ipynb").exists()
