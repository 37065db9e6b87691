"""Figures and controls: what they show, what they move, what hostile words cannot do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from microscope_runs import row, two_steps, write
from plot_page import as_shown, click

from sesa_lab.errors import InputError
from sesa_lab.microscope import CollapseMicroscope, Selection, data, figures, heat, read
from sesa_lab.microscope.data import View
from sesa_lab.runs import RunWriter
from sesa_lab.widgets import SketchInspector
from tests.embedding_map.map_runs import letters

HOSTILE = "<img src=x onerror=alert(1)>\u202e\n</script><script>alert(2)</script>"
MIMETYPE = "application/vnd.plotly.v1+json"


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """Steps 1 and 2, and 1 to 3 of tasks in the other order."""
    other = [row(s, g, i, "b" if g else "d", bool(g), task=11 - g) for s in (1, 2, 3) for g in (0, 1) for i in range(4)]
    return [two_steps(tmp_path / "first"), write(tmp_path / "second", other)]


@pytest.fixture
def inspector(pair: list[Path]) -> Iterator[SketchInspector]:
    """Of both runs."""
    with closing(SketchInspector(*pair)) as found:
        yield found


def texts(figure: Any) -> str:
    return json.dumps(json.loads(figure.to_json()), ensure_ascii=False)


def test_cells_are_blue_or_orange_or_empty(tmp_path: Path) -> None:
    views = [read(two_steps(tmp_path / "run"))]
    figure = figures.heat_map(views, heat(views), step=2, row=1)
    blue, orange = (np.asarray(trace.z, dtype=float) for trace in figure.data)
    # Step 1: a, b and c succeed at times, the unreadable one does not. Step 2: a never, and nothing else is there.
    nan = np.nan
    assert np.array_equal(blue, [[3 / 8, nan], [2 / 8, nan], [2 / 8, nan], [nan, nan]], equal_nan=True)
    assert np.array_equal(orange, [[nan, 1.0], [nan, nan], [nan, nan], [1 / 8, nan]], equal_nan=True)
    assert list(figure.layout.yaxis.ticktext) == ["a \u2605", "<b>b \u2605</b>", "c \u2605", "unreadable"]
    assert figure.data[0].customdata[0][0] == 0.125  # of it with success
    hovers = [
        f"%{{y}}<br>step %{{x}}: %{{z:.3g}} of all, {some} with success<extra></extra>"
        for some in ("%{customdata:.3g}", "none")
    ]
    assert [trace.hovertemplate for trace in figure.data] == hovers
    assert [shape.x0 for shape in figure.layout.shapes] == [2]
    assert figure.layout.xaxis.title.text == "training step"


def test_both_runs_have_one_axis_of_steps(pair: list[Path]) -> None:
    views = [read(path) for path in pair]
    for figure in (figures.heat_map(views, heat(views)), figures.curves(views)):
        assert {axis.range for axis in figure.select_xaxes()} == {(0.5, 3.5)}


def test_curves_have_numbers_units_and_alarms(tmp_path: Path) -> None:
    view = read(two_steps(tmp_path / "run"))
    view.alarms.loc[0] = [2, 1]
    figure = figures.curves([view], step=1)
    lines = {trace.name: (list(trace.x), list(trace.y)) for trace in figure.data}
    assert lines["distinct correct in a group"] == ([1, 2], [1.5, 0.0])
    assert lines["entropy a token"] == ([1, 2], [1.0, 0.5])
    assert "nats" in figure.layout.yaxis.title.text
    bands = [(shape.x0, shape.x1) for shape in figure.layout.shapes if shape.type == "rect"]
    assert bands == [(1, 2)] * 4
    assert figure.layout.yaxis2.range[1] >= 1.5
    assert "by the detector now" in figure.layout.annotations[-1].text.replace("<br>", " ")


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    rows = [row(1, 0, i, HOSTILE, True, completion=HOSTILE) for i in range(4)]
    panel = CollapseMicroscope(write(tmp_path / "<img src=y>", rows))
    panel.select(1, HOSTILE)
    shown = [texts(panel.heat_map()), texts(panel.curves()), panel._said.value, panel._samples.value]
    shown += [str(control.options) for control in panel.controls.values() if hasattr(control, "options")]
    for text in shown:
        assert not re.search(r"<(img|/?script)|\u202e", text)
    assert "&lt;img src=x onerror=alert(1)&gt;" in panel._samples.value


def test_controls_act(pair: list[Path]) -> None:
    panel = CollapseMicroscope(pair)
    own = panel.controls
    assert own["step"].options == (1, 2, 3)
    assert own["step"].value == 2  # the last that both have
    assert panel.selected == Selection(0, 2)
    own["step"].value = 1
    assert panel.selected == Selection(0, 1)
    assert "step 1, all strategies: 8 candidates" in panel._said.value
    place = panel.heat.names.index("b")
    own["strategy"].value = place
    assert panel.selected == Selection(0, 1, "b")
    assert f"<b>{figures._label('b', True)}</b>" in panel.heat_map().layout.yaxis.ticktext
    own["success"].value = True
    assert panel.selected == Selection(0, 1, "b", success=True)  # whatever its row is now
    own["most"].value = 1
    assert panel.heat.names == ["b"]
    own["success"].value = False
    assert (panel.heat.names, panel.selected) == (["a"], Selection(0, 1))  # b has no row any more
    assert [label for label, _ in own["strategy"].options] == ["all", "1. a", "3. unreadable"]
    own["strategy"].value = 2
    assert panel.selected == Selection(0, 1, unreadable=True)


def test_what_the_panel_shows_is_what_its_figures_are(pair: list[Path]) -> None:
    panel = CollapseMicroscope(pair)
    for name, value in (("step", 1), ("most", 1), ("success", True), ("most", 9), ("success", False)):
        panel.controls[name].value = value
        (output,) = panel._areas["curves"].outputs
        assert output["data"][MIMETYPE] == json.loads(panel.curves().to_json())
        assert as_shown(panel._map.plot) == as_shown(panel.heat_map())


def test_a_click_chooses_run_step_and_strategy(pair: list[Path], inspector: SketchInspector) -> None:
    told: list[Selection] = []
    panel = CollapseMicroscope(pair, inspector)
    panel.observe(lambda change: told.append(change["new"]), "selected")
    assert panel.heat.rest == ["unreadable"]
    # A cell that succeeds is in the first trace of its run, another one in the second.
    click(panel._map.plot, 0, (panel.heat.names.index("c"), 0), 1, panel.heat.names.index("c"))
    assert (inspector.step, inspector.group) == (1, 1)  # c is in group 1 alone
    assert panel._samples.value.count("<tr>") == 1 + 2
    click(panel._map.plot, 1, (len(panel.heat.names), 0), 1, len(panel.heat.names))
    assert "unreadable: 1 candidates" in panel._said.value
    click(panel._map.plot, 3, (panel.heat.names.index("d"), 2), 3, panel.heat.names.index("d"))
    assert told == [Selection(0, 1, "c"), Selection(0, 1, unreadable=True), Selection(1, 3, "d")]
    assert panel._map.plot.layout.shapes[0].x0 == 3
    assert [name for name in panel._map.plot.layout.yaxis.ticktext if "<b>" in name] == ["<b>d</b>"]


def test_a_click_on_what_is_none_to_be_chosen_says_why(tmp_path: Path) -> None:
    logged = {0: {"accuracy": 0.5, "kl_uniform": 0.1}, 1: {"accuracy": 0.5, "kl_uniform": 0.1}}
    answers = [(step, 0, name, 0.5, True) for step in (0, 1) for name in ("a", "b")]
    panel = CollapseMicroscope(write(tmp_path / "run", [row(1, 0, 0, "a", True)], answers=answers, evaluations=logged))
    was = panel.selected
    click(panel._map.plot, 0, (0, 0), 0, 0)
    assert "step 0 was evaluated, but no candidates were drawn there" in panel._said.value
    panel.controls["most"].value = 1
    click(panel._map.plot, 0, (1, 1), 1, 1)
    assert "others are many strategies" in panel._said.value
    assert (panel.selected, panel._samples.value) == (was, "")


def test_a_step_that_one_run_has_not(pair: list[Path], inspector: SketchInspector) -> None:
    panel = CollapseMicroscope(pair, inspector)
    panel.controls["step"].value = 3
    assert "has no candidates at step 3</b>; its last step is 2" in panel._said.value
    assert inspector.step == 2  # stays where it was
    panel.controls["run"].value = 1
    assert "8 candidates" in panel._said.value
    assert "first seed 0" in panel.link.said and "has no group with task 11 at step 3" in panel.link.said
    assert inspector.step == 2


def test_a_selection_moves_the_inspector(pair: list[Path], inspector: SketchInspector) -> None:
    told: list[Selection] = []
    panel = CollapseMicroscope(pair, inspector)
    panel.observe(lambda change: told.append(change["new"]), "selected")
    inspector.filter = {"text": "nowhere", "low": 9.0, "high": 10.0}
    panel.select(1, "c")
    assert (inspector.step, inspector.group) == (1, 1)  # c is in group 1 alone
    plain = {"text": "", "strategy": "c", "outcome": "all", "low": None, "high": None}
    assert (inspector.filter, inspector.candidates[0]) == (plain, 1)
    panel.controls["strategy"].value = len(panel.heat.names) + panel.heat.rest.index("unreadable")
    assert (inspector.group, inspector.filter["strategy"], inspector.filter["outcome"]) == (0, None, "unreadable")
    panel.select(2, "d", run=1)  # its group 0 has task 11, which is group 1 of the first run
    assert (inspector.step, inspector.group, inspector.candidates[1]) == (2, 1, 0)
    assert told == [Selection(0, 1, "c"), Selection(0, 1, unreadable=True), Selection(1, 2, "d")]


def test_buttons_walk_through_a_cell(pair: list[Path], inspector: SketchInspector) -> None:
    panel = CollapseMicroscope(pair, inspector)
    place = panel.heat.names.index("a")
    click(panel._map.plot, 0, (place, 0), 1, place)  # a: two in group 0 and one in group 1
    seen = []
    for _ in range(3):
        seen.append((panel.link.said, inspector.group, inspector.candidates[0]))
        panel.link.box.children[1].click()
    assert seen == [
        ("<b>1 of 3: step 1, group 0, candidate 0</b>", 0, 0),
        ("<b>2 of 3: step 1, group 0, candidate 1</b>", 0, 1),
        ("<b>3 of 3: step 1, group 1, candidate 3</b>", 1, 3),
    ]
    panel.controls["most"].value = 5  # the same cell: the walk goes on
    assert "3 of 3" in panel.link.said
    inspector.filter = {"text": "nowhere"}
    click(panel._map.plot, 0, (place, 0), 1, place)  # the same again: back to the first, and the filter is reset
    assert "1 of 3" in panel.link.said and inspector.filter["text"] == ""
    panel.controls["success"].value = True
    assert ("1 of 1" in panel.link.said, inspector.filter["outcome"]) == (True, "solved")


def test_a_strategy_of_tasks_that_the_first_run_lacks(tmp_path: Path) -> None:
    first = two_steps(tmp_path / "first")
    rows = [row(s, g, i, "e", True, task=70 + g) for s in (1, 2) for g in (0, 1) for i in range(4)]
    second = write(tmp_path / "second", rows)
    with closing(SketchInspector(first, second)) as inspector:
        panel = CollapseMicroscope([first, second], inspector)
        inspector.filter = {"strategy": "b"}
        panel.select(1, "e", run=1)
        assert "8 candidates" in panel._said.value
        assert "1 of 8: step 1, group 0, candidate 0" in panel.link.said
        assert "not shown in the inspector: first seed 0" in panel.link.said
        assert "has no group with task 70 at step 1" in panel.link.said
        assert inspector.filter["strategy"] == "b"  # left as it was
    with closing(SketchInspector(second)) as inspector:  # alone: it is of the second run of the two
        panel = CollapseMicroscope([first, second], inspector)
        assert "it is of second seed 0" in panel.link.said and "alone; open it on both runs" in panel.link.said
        panel.select(1, "e", run=1)
        assert panel.link.said == "<b>1 of 8: step 1, group 0, candidate 0</b>"
        assert (inspector.step, inspector.filter["strategy"]) == (1, "e")


def test_two_groups_of_one_task_in_the_second_run(tmp_path: Path) -> None:
    first = two_steps(tmp_path / "first")
    second = write(tmp_path / "second", [row(1, g, 0, f"g{g}", True, task=10) for g in (0, 1)])
    with closing(SketchInspector(first, second)) as inspector:
        panel = CollapseMicroscope([first, second], inspector)
        panel.select(1, "g0", run=1)
        assert panel.link.said == "<b>1 of 1: step 1, group 0, candidate 0</b>"
        panel.select(1, "g1", run=1)  # beside the first run's group stands the first of the same task
        assert "second seed 0" in panel.link.said and "shows group 0 for task 10 at step 1" in panel.link.said


def test_an_inspector_of_another_run_is_refused(pair: list[Path], tmp_path: Path) -> None:
    other = two_steps(tmp_path / "other")
    for shown in ([other], [pair[0], other]):
        with (
            closing(SketchInspector(*shown)) as inspector,
            pytest.raises(InputError, match=r"the inspector is of .*other, the microscope of .*first and .*second"),
        ):
            CollapseMicroscope(pair, inspector)
    with closing(SketchInspector(*pair[::-1])) as inspector:  # the other way round is the same
        panel = CollapseMicroscope(pair, inspector)
        panel.select(
            1, "c"
        )  # of the first, which stands second there; group 1 has task 11, which is group 0 of the other
        assert (inspector.step, inspector.group, inspector.candidates[1]) == (1, 0, 1)


def test_an_inspector_that_cannot_says_so(tmp_path: Path) -> None:
    folder = two_steps(tmp_path / "run")
    with closing(SketchInspector(folder)) as inspector:
        grow(folder, 3)
        panel = CollapseMicroscope(folder, inspector)
        assert "not shown in the inspector: step 3 has no candidates" in panel.link.said
        assert inspector.step == 2
        panel.reload()
        panel.select(3)
        assert (panel.link.said, inspector.step) == ("<b>1 of 8: step 3, group 0, candidate 0</b>", 3)


def grow(folder: Path, step: int) -> None:
    """One more step and checkpoint of a run; all take strategy z."""
    with RunWriter.resume(folder) as writer:
        writer.add_rollouts([row(step, group, i, "z", True) for group in range(2) for i in range(4)])
        writer.log("step", step, {"entropy": 0.1, "zero_variance": 0.5})
        writer.commit(step, lambda place: (place / "state").write_text("state"))


def test_a_run_that_has_grown(tmp_path: Path) -> None:
    folder = two_steps(tmp_path / "run")
    panel = CollapseMicroscope(folder)
    own = panel.controls
    own["step"].value = 1
    own["strategy"].value = panel.heat.names.index("b")
    grow(folder, 3)
    panel.reload()
    assert (own["step"].options, own["step"].value) == ((1, 2, 3), 1)  # an older step stays, and so does what is chosen
    assert panel.selected == Selection(0, 1, "b") and "z" in panel.heat.names
    assert as_shown(panel._map.plot) == as_shown(panel.heat_map())
    own["step"].value = 3
    grow(folder, 4)
    panel.reload()
    assert own["step"].value == 4  # the last moves on
    (folder / "config.json").unlink()
    with pytest.raises(InputError):
        panel.reload()
    assert own["step"].value == 4


def test_rows_by_cluster_of_texts(tmp_path: Path) -> None:
    texts = ["aa", "aa", "ab", "aab", "cc", "ccd"]
    free = [
        row(step, 0, i, None, text[0] == "c", completion=text, drawn_under="task" if i else "history")
        for step in (1, 2)
        for i, text in enumerate(texts if step == 1 else ["cc"] * 3)
    ]
    other = [row(1, 0, i, None, False, completion="cc") for i in range(2)]
    runs = [write(tmp_path / "run", free), write(tmp_path / "other", other)]
    with closing(SketchInspector(*runs)) as inspector:
        panel = CollapseMicroscope(runs, inspector, embedder=letters)
        own = panel.controls
        assert (panel.heat.names, panel.heat.rest) == ([], ["unreadable"])
        own["step"].value = 1
        own["rows"].value = "clusters"
        assert panel.heat.names == ["cluster 1: cc", "cluster 2: aa"] and panel.heat.rest == []
        assert panel.heat.share[0].tolist() == [[2 / 6, 1.0], [4 / 6, 0.0]]
        assert panel.heat.share[1].tolist() == [[1.0], [0.0]]
        assert panel.heat.success[0].tolist() == [[2 / 6, 1.0], [0.0, 0.0]]
        assert (own["source"].disabled, own["strategy"].description) == (True, "cluster")
        assert "Clusters of texts" in panel.heat_map().layout.title.text
        panel.select(1, "cluster 2: aa")
        assert panel.selected == Selection(0, 1, cluster="cluster 2: aa")
        assert "cluster 2: aa: 4 sampled candidates" in panel._said.value
        assert panel.link.said == "<b>1 of 4: step 1, group 0, candidate 0</b>"
        panel.link.go(3)
        assert (inspector.step, inspector.candidates[0]) == (1, 3)
        # The policy's own mass: the first was drawn after other answers, and is not counted where others were not.
        bars = panel.masses().data
        assert [list(bar.x) for bar in bars] == [[2 / 5, 0.0], [0.0, 3 / 5], [0.0, 0.0], [1.0, 0.0]]
        assert "5 candidates drawn given the task alone" in bars[0].hovertemplate
        assert panel._areas["mass"].outputs[0]["data"][MIMETYPE] == json.loads(panel.masses().to_json())
        assert as_shown(panel._map.plot) == as_shown(panel.heat_map())
        own["success"].value = True
        assert (panel.heat.names, panel.selected) == (["cluster 1: cc"], Selection(0, 1, success=True))
        own["rows"].value = "strategies"
        assert (own["source"].disabled, own["strategy"].description) == (False, "strategy")
        assert panel._areas["mass"].outputs == ()


def test_texts_that_cannot_be_embedded_are_told(pair: list[Path]) -> None:
    panel = CollapseMicroscope(pair, embedder=lambda texts: np.zeros((len(texts), 2)))
    panel.controls["rows"].value = "clusters"
    assert "no clusters: embedder" in panel._said.value and "a vector that is 0" in panel._said.value
    assert (panel.controls["rows"].value, panel.heat.names) == ("strategies", ["a", "b", "d", "c"])


def test_a_click_on_a_stretch_of_steps_chooses_the_largest_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "COLUMNS_DRAWN", 2)
    rows = [row(s, 0, i, "a" if i < s else "b", True) for s in (1, 2, 3, 4, 5) for i in range(4)]
    panel = CollapseMicroscope(write(tmp_path / "run", rows))
    figure = panel.heat_map()
    assert list(figure.data[0].x) == [2.0, 4.5]  # steps 1 to 3, and 4 and 5
    shares = {"a": [(1 + 2 + 3) / 12, 1.0], "b": [(3 + 2 + 1) / 12, np.nan]}
    wanted = [shares[name] for name in panel.heat.names]
    assert np.array_equal(np.asarray(figure.data[0].z, dtype=float), wanted, equal_nan=True)
    assert "mean of 3 steps around step %{x:.0f}" in figure.data[0].hovertemplate
    for name, column, step in (("a", 1, 5), ("a", 0, 3), ("b", 0, 1), ("a", 1, 4)):
        place = panel.heat.names.index(name)
        click(panel._map.plot, 0, (place, column), figure.data[0].x[column], place)
        assert panel.selected == Selection(0, step, name)  # of equal ones that which was chosen before


def long_view(folder: Path, steps: int = 2000, ways: int = 40) -> View:
    """A run of many steps, each with all of many strategies, half of which succeed, and some that could not be read."""
    generator, view = np.random.default_rng(0), read(two_steps(folder))
    names = [*(f"Asia > Land {way:02d} > City {way:02d}" for way in range(ways)), None]
    share = generator.dirichlet(np.ones(len(names)), steps)
    columns = {
        "step": np.repeat(np.arange(1, steps + 1), len(names)),
        "strategy": names * steps,
        "share": share.ravel(),
    }
    shares = pd.DataFrame(columns)
    shares["success"] = shares["share"] * (np.arange(len(shares)) % 2)
    curves = {
        name: generator.random(steps)
        for name in ("entropy", "distinct", "zero_variance", "coverage", "pass_1", "pass_64")
    }
    table = pd.DataFrame({"step": np.arange(1, steps + 1), "coverage_k": 64.0, **curves})
    return replace(view, shares={"candidates": shares, "answers": shares}, training=table, evaluated=table)


def test_figures_of_a_long_run_are_small(tmp_path: Path) -> None:
    views = [long_view(tmp_path / "run")]
    shown = heat(views, most=40)
    assert len(shown.names) == 40 and len(shown.steps[0]) == 2000
    assert len(figures.heat_map(views, shown, step=1000).to_json()) < 500_000
    assert len(figures.curves(views, 1000).to_json()) < 150_000
    assert len(figures.heat_map(views * 2, heat(views * 2, most=40)).to_json()) < 500_000
    # Cells are means, and so what is in a row stays.
    cells = [np.nan_to_num(np.asarray(trace.z, dtype=float)) for trace in figures.heat_map(views, shown).data]
    assert cells[0].shape == (41, 286)
    means = (cells[0] + cells[1]).mean(axis=1)
    assert means == pytest.approx(shown.share[0].mean(axis=1), abs=2e-3)
    assert {len(line.x) for line in figures.curves(views).data} == {286}


def test_bad_input(pair: list[Path], tmp_path: Path) -> None:
    for runs in ([], [*pair, pair[0]]):
        with pytest.raises(InputError, match="expected one or two runs, got"):
            CollapseMicroscope(runs)
    with pytest.raises(InputError):
        CollapseMicroscope(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no committed candidates yet"):
        CollapseMicroscope([pair[0], write(tmp_path / "empty", [])])
    panel = CollapseMicroscope(pair[0])
    with pytest.raises(InputError, match="no paths of a tree with exact masses"):
        panel.tree()
    with pytest.raises(InputError, match="strategy 'zz' is not among the 3 shown"):
        panel.select(1, "zz")
    with pytest.raises(InputError, match=r"step 9 is not there to be chosen; expected one of 1 \.\. 2"):
        panel.select(9)
    with pytest.raises(InputError, match="no run to draw"):
        figures.curves([])
