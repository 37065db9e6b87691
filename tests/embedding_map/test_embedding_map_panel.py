"""The map and its panel: what is drawn, what controls and selections do, what hostile words cannot do."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sesa_lab.embedding_map import EmbeddingMap, clusters, figures, place, read
from sesa_lab.embedding_map.panel import ALL, ONE, UP_TO
from sesa_lab.errors import InputError
from sesa_lab.widgets import SketchInspector
from tests.embedding_map.map_runs import letters, of_texts
from tests.microscope.microscope_runs import row, write
from tests.microscope.plot_page import as_shown, click, deselect, select
from tests.widgets.inspector_runs import HOSTILE, small_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return of_texts(tmp_path / "run", ["aa", "b", "b"], ["aa", "c"], ["d", "e", "b"])


def rows_of(figure: Any) -> dict[str, list[int]]:
    return {trace.name: list(trace.customdata) for trace in figure.data if trace.visible is not False}


def test_colours(run: Path) -> None:
    panel = EmbeddingMap(run, embedder=letters)
    panel.controls["colour"].value = "strategy"  # the first letter of each text
    assert rows_of(panel.figure()) == {"b": [1, 2, 7], "a": [0, 3], "c": [4], "d": [5], "e": [6]}
    panel.controls["colour"].value = "step"
    (trace,) = panel.figure().data
    assert list(trace.marker.color) == [1, 1, 1, 2, 2, 3, 3, 3]
    assert (trace.marker.cmin, trace.marker.cmax) == (1, 3)
    panel.controls["colour"].value = "reward"
    assert list(panel.figure().data[0].marker.color) == [1, 0, 0, 1, 0, 1, 0, 0]
    panel.controls["colour"].value = "cluster"
    found = clusters(panel.points)
    expected = {f"cluster {number + 1}": np.flatnonzero(found == number).tolist() for number in range(found.max() + 1)}
    assert rows_of(panel.figure()) == expected


def test_rare_and_missing_strategies_are_grey(tmp_path: Path) -> None:
    names = [*"aabbccddeeffgg", "h", "i", None]
    rows = [row(1, 0, i, name, False, completion=f"{name}{i}") for i, name in enumerate(names)]
    rows[0]["reward"] = float("nan")
    points = read(write(tmp_path / "run", rows), embedder=letters)
    drawn = figures.figure(points, place(points), "strategy")
    assert list(rows_of(drawn)) == [*"abcdefg", "others", "unreadable"]
    assert [rows_of(drawn)[name] for name in ("others", "unreadable")] == [[14, 15], [16]]
    looks = {(trace.marker.color, trace.marker.symbol) for trace in drawn.data}
    assert len(looks) == len(drawn.data)  # told apart also without colours
    drawn = figures.figure(points, place(points), "reward")
    assert rows_of(drawn)["reward undefined"] == [0]


def test_axes_and_caption_say_what_is_shown(run: Path) -> None:
    drawn = EmbeddingMap(run, most=3, embedder=letters, seed=5).figure()
    assert "of the variance" in drawn.layout.xaxis.title.text
    caption = drawn.layout.annotations[-1].text.replace("<br>", " ")
    for said in (
        "runs run; commit 0123456+; config: parallel; seeds 0",
        "3 of 8 solutions",
        "letters, PCA",
        "sample 5",
    ):
        assert said in caption


def test_steps_and_successes(run: Path) -> None:
    panel = EmbeddingMap(run, embedder=letters)
    own = panel.controls

    def shown() -> list[int]:
        return sorted(row for rows in rows_of(panel.figure()).values() for row in rows)

    ranges = panel.figure().layout.xaxis.range
    assert shown() == list(range(8))
    own["step"].value = 2  # a step that is chosen is to be seen
    assert (own["steps"].value, shown()) == (UP_TO, [0, 1, 2, 3, 4])
    own["steps"].value = ONE
    assert shown() == [3, 4]
    own["success"].value = True
    assert shown() == [3]
    assert "step 2, successes only: 1 of 8 solutions shown" in panel._said.value
    assert panel.figure().layout.xaxis.range == ranges  # places are the same at every step
    own["steps"].value = ALL
    assert shown() == [0, 3, 5]


def test_what_the_panel_shows_is_its_figure(run: Path) -> None:
    panel = EmbeddingMap(run, embedder=letters)
    changes = [("colour", "strategy"), ("colour", "step"), ("step", 1), ("colour", "cluster"), ("projection", "tsne")]
    for name, value in [*changes, ("success", True), ("steps", ALL), ("colour", "reward")]:
        panel.controls[name].value = value
        assert as_shown(panel._map.plot) == as_shown(panel.figure())


def test_a_lasso_lists_rows_and_tells(run: Path) -> None:
    panel, told = EmbeddingMap(run, embedder=letters), []
    panel.controls["colour"].value = "strategy"
    panel.observe(lambda change: told.append(change["new"].index.tolist()), "selected")
    select(panel._map.plot, [(0, 1), (1, 0), (2, 0)])  # rows 2 (of b), 0 (of a) and 4 (of c)
    assert told == [[0, 2, 4]]
    assert panel.selected["text"].tolist() == ["aa", "b", "c"]
    assert "all steps: 3 of 8 solutions selected" in panel._said.value
    assert panel._samples.value.count("<tr>") == 4
    marked = {trace.name: list(trace.selectedpoints) for trace in panel.figure().data}
    assert marked == {"b": [1], "a": [0], "c": [0], "d": [], "e": []}
    panel.controls["colour"].value = "step"  # the same rows stay selected
    assert panel.selected.index.tolist() == [0, 2, 4]
    panel.controls["step"].value = 1  # of these only two are shown still
    assert told[-1] == [0, 2]
    click(panel._map.plot, 0, 1, 0.0, 0.0)
    assert told[-1] == [1]
    deselect(panel._map.plot)
    assert (told[-1], panel._samples.value) == ([], "")
    assert all(trace.selectedpoints is None for trace in panel.figure().data)


def test_select_from_code(run: Path) -> None:
    panel = EmbeddingMap(run, embedder=letters)
    panel.select([7, 1])
    assert panel.selected.index.tolist() == [7, 1]
    assert as_shown(panel._map.plot) == as_shown(panel.figure())
    panel.select([])
    assert len(panel.selected) == 0
    panel.controls["step"].value = 1
    for rows in ([3], [8], [-1]):
        with pytest.raises(InputError, match=rf"row {rows[0]} is not shown; expected one of the 3 shown points"):
            panel.select(rows)


@pytest.mark.parametrize("of", ["solutions", "sketches"])
def test_a_selection_moves_the_inspector(tmp_path: Path, of: Any) -> None:
    path = small_run(tmp_path / "run")
    inspector = SketchInspector(path)
    panel = EmbeddingMap(path, of=of, embedder=letters, inspector=inspector)
    table = panel.points.table
    (at,) = table.index[(table["step"] == 2) & (table["group"] == 1) & (table["index"] == 2)]
    panel.select([at])
    assert (inspector.step, inspector.group) == (2, 1)
    # Candidate 2 itself; sketch 2 is followed by candidate 3 alone.
    assert inspector.candidates == ([2] if of == "solutions" else [3])
    inspector.close()


def test_of_two_runs_the_first_is_moved(tmp_path: Path) -> None:
    path, other = small_run(tmp_path / "run"), small_run(tmp_path / "other", steps=2)
    inspector = SketchInspector(path, other)
    EmbeddingMap(path, embedder=letters, inspector=inspector).select([4])
    assert (inspector.step, inspector.group, inspector.candidates) == (1, 0, [4, 0])
    inspector.close()


def test_an_inspector_that_cannot_says_so(tmp_path: Path) -> None:
    path = small_run(tmp_path / "run", steps=2)
    inspector = SketchInspector(path)
    small_run(path, steps=4, first=3)
    panel = EmbeddingMap(path, embedder=letters, inspector=inspector)
    panel.select([len(panel.points.table) - 1])
    assert "1 of 1: step 4, group 1, candidate 5" in panel.link.said
    assert "not shown in the inspector: step 4 has no candidates" in panel.link.said
    assert inspector.step == 2
    panel.reload()  # and the inspector with it
    assert (inspector.step, inspector.group, inspector.candidates) == (4, 1, [5])
    assert "not shown" not in panel.link.said
    inspector.close()


def test_an_inspector_of_another_run_is_refused(tmp_path: Path) -> None:
    path, other = small_run(tmp_path / "run", steps=2), small_run(tmp_path / "other", steps=2)
    embedded: list[Sequence[str]] = []
    inspector = SketchInspector(other)
    with pytest.raises(InputError, match=r"the inspector is of .*other, the map of .*run: open the inspector on"):
        EmbeddingMap(path, embedder=lambda texts: embedded.append(texts) or letters(texts), inspector=inspector)
    assert not embedded  # said before what takes long
    EmbeddingMap(tmp_path / "other" / ".." / "other", embedder=letters, inspector=inspector)  # the same folder
    with pytest.raises(InputError, match=r"inspector = .* expected a SketchInspector"):
        EmbeddingMap(path, embedder=letters, inspector=str(path))
    inspector.close()


def test_buttons_walk_through_a_lasso(tmp_path: Path) -> None:
    path = small_run(tmp_path / "run")
    inspector = SketchInspector(path)
    panel = EmbeddingMap(path, embedder=letters, inspector=inspector)
    before, after, _ = panel.link.box.children
    assert panel.link.box.layout.display == "none"  # nothing is selected yet
    inspector.filter = {"text": "down", "low": 0.5}  # would hide two of them
    table = panel.points.table
    panel.select([2, int(table.index[(table["step"] == 1) & (table["group"] == 1)][4]), len(table) - 1])
    assert panel.link.box.layout.display is None
    assert inspector.filter == {"text": "", "strategy": None, "outcome": "all", "low": None, "high": None}
    seen = []
    for _ in range(3):
        seen.append(
            (panel.link.said, inspector.step, inspector.group, inspector.candidates, before.disabled, after.disabled)
        )
        after.click()
    assert seen == [
        ("<b>1 of 3: step 1, group 0, candidate 2</b>", 1, 0, [2], True, False),
        ("<b>2 of 3: step 1, group 1, candidate 4</b>", 1, 1, [4], False, False),
        ("<b>3 of 3: step 4, group 1, candidate 5</b>", 4, 1, [5], False, True),
    ]
    assert "3 of 3" in panel.link.said  # there is none behind the last
    before.click()
    assert (inspector.step, inspector.group, inspector.candidates) == (1, 1, [4])
    panel.select([])
    assert (panel.link.box.layout.display, panel.link.said) == ("none", "")
    inspector.close()


def test_the_second_run_of_an_inspector_is_followed_by_its_task(tmp_path: Path) -> None:
    path, other = small_run(tmp_path / "run", steps=2), small_run(tmp_path / "other")
    inspector = SketchInspector(path, other)
    panel = EmbeddingMap(other, embedder=letters, inspector=inspector)
    table = panel.points.table
    panel.select(table.index[(table["group"] == 1) & (table["index"] == 3)].tolist())
    assert (inspector.step, inspector.group, inspector.candidates[1]) == (1, 1, 3)
    panel.link.go(3)  # step 4, which the first run has not
    assert "run seed 0" in panel.link.said and "has no group with task 7 at step 4" in panel.link.said
    assert "open one with other seed 0" in panel.link.said
    assert inspector.step == 1
    inspector.close()


def test_a_map_without_an_inspector_has_no_buttons(run: Path) -> None:
    panel = EmbeddingMap(run, embedder=letters)
    panel.select([0, 1])
    assert panel.link.box.layout.display == "none"


def test_a_run_that_has_grown(tmp_path: Path) -> None:
    path = small_run(tmp_path / "run", steps=2)
    panel = EmbeddingMap(path, embedder=letters)
    own = panel.controls
    panel.select([3])
    own["colour"].value = "step"
    small_run(path, steps=4, first=3)
    panel.reload()
    assert (own["step"].options, own["step"].value, own["steps"].value) == ((1, 2, 3, 4), 4, ALL)
    assert len(panel.points.table) == 48 and panel.selected.index.tolist() == [3]
    assert as_shown(panel._map.plot) == as_shown(panel.figure())
    own["step"].value = 2
    panel.reload()
    assert own["step"].value == 2


def test_the_usual_number_of_points_is_half_a_megabyte_at_most(tmp_path: Path) -> None:
    words = "the quick brown fox <jumps> over the lazy dog & so on and on, ever and ever again " * 10
    texts = [[f"{step} {index} {words}" for index in range(100)] for step in range(25)]
    panel = EmbeddingMap(of_texts(tmp_path / "run", *texts), embedder=letters)
    for colour in figures.COLOUR:
        panel.controls["colour"].value = colour
        assert sum(len(trace.x) for trace in panel.figure().data) == 2000
        assert len(panel.figure().to_json()) < 500_000
    few = EmbeddingMap(tmp_path / "run", most=100, embedder=letters)
    assert few.figure().data[0].hovertext[0].count("<br>") == 5  # two lines of facts, four of the text


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    rows = [row(1, 0, i, HOSTILE, False, completion=f"{HOSTILE}{i}\ud800"[:-1] + "x" * 10_000) for i in range(3)]
    panel = EmbeddingMap(write(tmp_path / "run", rows), embedder=letters)
    panel.select([0])
    shown = [panel._said.value, panel._samples.value]
    for colour in figures.COLOUR:
        panel.controls["colour"].value = colour
        shown.append(json.dumps(json.loads(panel.figure().to_json()), ensure_ascii=False))
        assert max(len(text) for trace in panel.figure().data for text in trace.hovertext) < 1000
    for text in shown:
        assert not re.search(r"<(img|/?script|svg|a )|[\u202e\u2028\x00\x1b]", text)
    assert "&lt;script&gt;" in panel._samples.value


def test_bad_input(run: Path, tmp_path: Path) -> None:
    embedded: list[Sequence[str]] = []
    with pytest.raises(InputError, match="projection 'umap'"):
        EmbeddingMap(run, projection="umap", embedder=lambda texts: embedded.append(texts) or letters(texts))  # type: ignore[arg-type]
    assert not embedded  # said before what takes long
    with pytest.raises(InputError, match="no sketches"):
        EmbeddingMap(run, of="sketches", embedder=letters)
    points = read(run, embedder=letters)
    with pytest.raises(InputError, match="colour by 'colour'"):
        figures.figure(points, place(points), "colour")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="colour by cluster without clusters"):
        figures.figure(points, place(points), "cluster")
