"""`sesa-lab reproduce all --preset smoke`: every notebook executed, every report opened from disk without a network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sesa_lab.reproduce import known, results
from tests.reports.conftest import Visit

pytestmark = [pytest.mark.slow, pytest.mark.browser]
ARTEFACTS = Path(__file__).parents[2] / "reports" / "artefacts" / "reproduced"
COMMAND = "import sys; from sesa_lab.cli import main; sys.exit(main())"
MOST_BYTES = 3 * 2**20


def reproduce(place: Path) -> str:
    """Everything, at its smallest, below ``place``; what the command prints."""
    asked = ["reproduce", "all", "--preset", "smoke", "--runs", str(place / "runs"), "--out", str(place / "reports")]
    done = subprocess.run([sys.executable, "-c", COMMAND, *asked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("smoke")
    reproduce(place)
    return place / "reports" / "smoke"


@pytest.mark.parametrize("name", known())
def test_a_report_is_whole_with_nothing_but_its_file(name: str, reports: Path, visit: Callable[..., Visit]) -> None:
    path = reports / name / "report.html"
    assert path.stat().st_size <= MOST_BYTES
    seen = visit(path)
    plots = seen.page.locator("div.plot")
    assert plots.count() > 0
    for place in plots.all():
        assert place.locator(".main-svg").first.is_visible()
        assert place.locator(".trace, .hm image, .table-control-view, .barlayer .point, .heatmaplayer > *").count() > 0
    assert seen.page.locator(".error").all_inner_texts() == []
    assert seen.page.locator("nav a").count() >= 3
    assert seen.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    seen.page.screenshot(path=ARTEFACTS / f"{name}.png", full_page=True)
    assert len(seen.page.pdf(path=ARTEFACTS / f"{name}.pdf", format="A4")) > 30_000
    assert [url for url in seen.requests if not url.startswith(("data:", "blob:"))] == [path.as_uri()]
    assert seen.complaints == []


def test_the_index_leads_to_every_report(reports: Path, visit: Callable[..., Visit]) -> None:
    seen = visit(reports / "index.html", drawn=False)
    for name in known():
        assert seen.page.locator(f'a[href="{name}/report.html"]').count() == 1
        assert results.read(reports / name / results.JSON)["failed"] == []
    seen.page.locator('a[href="sokoban/report.html"]').click()
    seen.page.wait_for_selector("html[data-drawn=yes]")
    assert "Sokoban" in seen.page.title()
    assert seen.complaints == []


def test_a_second_call_finds_all_of_it_up_to_date(reports: Path) -> None:
    assert reproduce(reports.parents[1]).count("up to date: ") == len(known())
