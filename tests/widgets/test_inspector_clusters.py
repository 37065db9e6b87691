"""Colours of sketches by what they say: only where they are asked for, never in the way of a step, and checked."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inspector_runs import SKETCHES, small_run

from sesa_lab.errors import InputError
from sesa_lab.widgets import SketchInspector, clustering
from sesa_lab.widgets.clustering import by_meaning, labels

Open = Callable[..., SketchInspector]
pytestmark = pytest.mark.usefixtures("quick_runs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, quick_runs: None) -> Path:
    return small_run(tmp_path_factory.mktemp("small") / "run")


def found(widget: SketchInspector) -> list[dict[str, Any]]:
    """The labels, when they are there."""
    assert widget._clustering is not None
    widget._clustering.exception(60)
    return widget.clustered


def test_nothing_is_clustered_until_it_is_asked_for(
    folder: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def lengths(texts: Sequence[str]) -> list[int]:
        asked.append(list(texts))
        return [len(text.split()) for text in texts]

    monkeypatch.setattr(clustering, "by_meaning", lengths)
    widget = opened(folder)
    widget.step = 2
    widget.candidates = [3]
    assert widget._clustering is None and widget.clustered == [] and asked == []
    widget.set_state({"sketch_colouring": "cluster"})  # as the page does
    assert found(widget) == [{"step": 2, "group": 0, "note": "", "labels": [2, 3, 2]}] and asked == [list(SKETCHES)]
    widget.step = 3
    assert found(widget)[0]["step"] == 3 and len(asked) == 2
    widget.sketch_colouring = "strategy"
    widget.step = 4
    assert len(asked) == 2, "what is not shown is not worked out"
    with pytest.raises(InputError, match="sketch_colouring 'stratgy'; did you mean 'strategy'"):
        widget.sketch_colouring = "stratgy"


def test_a_step_does_not_wait_for_clusters(folder: Path, opened: Open) -> None:
    may, threads = threading.Event(), set()

    def slow(texts: Sequence[str]) -> list[int]:
        threads.add(threading.get_ident())
        assert may.wait(60)
        return [0] * len(texts)

    widget = opened(folder, clusters=slow)
    assert widget.sketch_colouring == "cluster", "whoever hands in clusters asks for them"
    first = widget._clustering
    widget.step = 2
    assert widget.sides[0]["task"] == 2 and widget.clustered == []
    may.set()
    assert first is not None
    first.exception(60)
    assert found(widget) == [{"step": 2, "group": 0, "note": "", "labels": [0, 0, 0]}]
    assert threads.isdisjoint({threading.get_ident()})


def test_two_runs_and_a_run_without_sketches(folder: Path, tmp_path: Path, opened: Open) -> None:
    other = small_run(tmp_path / "other", with_sketches=False)
    widget = opened(folder, other, clusters=lambda texts: range(len(texts)))
    assert [one["labels"] for one in found(widget)] == [[0, 1, 2], []]


@pytest.mark.parametrize(
    ("made", "note"),
    [
        (lambda texts: [0], r"clusters returned \[0\], expected 3 whole numbers, one a sketch"),
        (lambda texts: None, "clusters returned None, expected 3 whole numbers"),
        (lambda texts: texts, r"clusters returned \['down left', .*expected 3 whole numbers"),
        (lambda texts: [0, 1, -2], r"clusters returned \[0, 1, -2\], .*from 0 on or -1 \(noise\)"),
        (lambda texts: [0.5] * 3, r"clusters returned \[0\.5, 0\.5, 0\.5\]"),
        (lambda texts: 1 // 0, "clusters failed: ZeroDivisionError: "),
    ],
)
def test_wrong_clusters_are_told_in_the_page(folder: Path, opened: Open, made: Any, note: str) -> None:
    widget = opened(folder, clusters=made)
    (said,) = found(widget)
    assert said["labels"] == [] and re.match(note, said["note"])
    widget.step = 1
    assert widget.sides[0]["task"] == 0, "and the inspector goes on"


def test_what_cannot_be_called_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"clusters is \[0, 0, 1\], expected a function of texts"):
        SketchInspector(folder, clusters=[0, 0, 1])  # type: ignore[arg-type]


def test_labels_are_whole_numbers() -> None:
    assert labels(lambda texts: np.array([3, -1], dtype=np.int64), ["a", "b"]) == [3, -1]
    assert labels(lambda texts: pytest.fail("nothing to be asked"), []) == []


@pytest.mark.slow
def test_the_usual_clusters_are_those_of_the_embeddings() -> None:
    """The model is in a package: no network, and paraphrases lie together."""
    texts = ["Count the cases one by one.", "Count the cases, one by one", "Use modular arithmetic."]
    assert labels(by_meaning, texts) == [0, 0, 1]
