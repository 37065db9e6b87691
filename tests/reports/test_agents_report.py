"""The notebooks of the agents and of reasoning from training to the offline page, from policies that know nothing yet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from sesa_lab.config import PretrainConfig
from sesa_lab.environments import make
from sesa_lab.errors import InputError
from sesa_lab.experiments import report
from sesa_lab.policies.pretrain import pretrain
from sesa_lab.reports.run_notebooks import defaults
from tests.reports.conftest import Visit

SMALL = {
    "run": {"groups": 2, "evaluate_every": 1},
    "sampler": {"group_size": 4},
    "evaluation": {"eval_tasks": 2, "test_tasks": 2},
}
FIGURES = {"agents": 1 + 1 + 4 + 4 + 2 + 1, "reasoning": 1 + 1 + 1 + 4 + 4 + 2 + 1}
"""A notebook and base: the solver's ways, live, of reasoning pass@k over k, curves, curves against tokens, sketches by draft,
episodes."""
PARAMETERS = {"seeds", "steps", "bases", "arms", "runs", "workers", "settings", "model"}
OWN = {"07_math.ipynb": {"dataset", "train_dataset"}}
TOLD = {"agents": ("+0.42", "3.11"), "reasoning": ("+0.06", "about 0", "+0.09")}
"""What the paper reports, in the words of the tables."""
TASKS = {task: book for books in report.GROUPS.values() for task, book in books.items()}


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Task -> a lab policy after one step."""
    folder = tmp_path_factory.mktemp("policies")
    recipe = PretrainConfig(steps=1, batch=2, hidden=32, layers=1, tasks=20)
    for task in TASKS:
        pretrain(make(task), folder / task, recipe, lambda step, loss: None)
    return {task: folder / task for task in TASKS}


@pytest.mark.parametrize("book", TASKS.values())
def test_notebooks_take_what_reports_give_them(book: str) -> None:
    known = defaults(report.NOTEBOOKS / book)
    own = OWN.get(book, set())
    assert set(known) == PARAMETERS | own and all(known[name] == "" for name in {"model", *own})
    assert known["seeds"] == [1, 2, 3], "a conclusion needs three seeds"
    name = next(name for name, books in report.REPORTS.items() if book in books)
    assert set(report.FULL[name][book]) <= set(known)


def test_bad_parameters_are_told_before_a_notebook_begins(tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    for more, said in (
        ({"arms": "mixd"}, "unknown arm 'mixd'"),
        ({"settings": {"runn": {}}}, "unknown config section"),
    ):
        with pytest.raises(InputError, match=said):
            report.make("agents", tmp_path / "runs", [0], out, 1, more={"05_sokoban.ipynb": more})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("name", report.GROUPS)
def test_the_notebooks_run_and_their_report_opens_offline(
    tmp_path: Path, visit: Callable[..., Visit], policies: dict[str, Path], name: str
) -> None:
    books = report.GROUPS[name]
    more: dict[str, Any] = {
        book: {"bases": [str(policies[task])], "arms": "sesa-paper,mixed-unsolved", "settings": SMALL}
        for task, book in books.items()
    }
    out = report.make(name, tmp_path / "runs", [0, 1], tmp_path / "report.html", steps=1, more=more)
    assert out.stat().st_size <= 3 * 2**20
    opened = visit(out)
    page = opened.page
    assert page.locator(".js-plotly-plot").count() == len(books) * FIGURES[name]
    assert page.locator(".js-plotly-plot .imagelayer image").count() == 2 * len(
        books
    )  # the solver's ways, the episodes
    text = page.inner_text("body")
    assert "stopped with an error" not in text and "Traceback" not in text
    assert text.count("no conclusion is drawn from fewer than 3 seeds") == len(books)
    assert "SESA in the paper" in text and all(words in text for words in TOLD[name])
    assert "seeds 0, 1; n = 2" in text and "commit" in text
    replay = page.locator(".js-plotly-plot", has=page.locator(".gtitle", has_text="s of training")).last
    replay.scroll_into_view_if_needed()
    replay.locator(".updatemenu-header").click()
    last = page.locator(".updatemenu-dropdown-button").last
    label = last.text_content() or "no label"
    last.click()
    expect(replay.locator(".annotation-text").first).to_contain_text(label)
    assert opened.requests[:1] == [out.as_uri()] and opened.complaints == []
    assert not [url for url in opened.requests if not url.startswith(("file:", "data:", "blob:"))]
    runs = list((tmp_path / "runs" / "agents").rglob("metrics.jsonl"))
    assert len(runs) == len(books) * 2 * 4  # two seeds; base, parallel and the two named
