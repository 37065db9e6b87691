"""Figures and controls: what they show, what they move, what hostile words cannot do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import traitlets as t
from microscope_runs import row, two_steps, write
from plot_page import as_shown, click

from sesa_lab.errors import InputError
from sesa_lab.microscope import CollapseMicroscope, Selection, figures, heat, read

HOSTILE = "<img src=x onerror=alert(1)>\u202e\n</script><script>alert(2)</script>"
MIMETYPE = "application/vnd.plotly.v1+json"


class FakeInspector(t.HasTraits):  # type: ignore[misc]
    """The three traits of the inspector that are set; knows steps 1 and 2."""

    step = t.Int(0)
    group = t.Int(-1)
    filter = t.Dict({"text": "kept"})

    @t.validate("step")
    def _known(self, proposal: Any) -> int:
        if proposal["value"] not in (1, 2):
            raise InputError(f"step {proposal['value']} has no candidates")
        return int(proposal["value"])


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """Steps 1 and 2, and 1 to 3 of tasks in the other order."""
    other = [row(s, g, i, "b" if g else "d", bool(g), task=11 - g) for s in (1, 2, 3) for g in (0, 1) for i in range(4)]
    return [two_steps(tmp_path / "first"), write(tmp_path / "second", other)]


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
    assert figure.data[0].customdata[0][0] == "a<br>step 1: 0.375 of all, 0.125 with success"
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
        (output,) = panel._below.outputs
        assert output["data"][MIMETYPE] == json.loads(panel.curves().to_json())
        assert as_shown(panel._map.plot) == as_shown(panel.heat_map())


def test_a_click_chooses_run_step_and_strategy(pair: list[Path]) -> None:
    inspector, told = FakeInspector(), []
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


def test_a_step_that_one_run_has_not(pair: list[Path]) -> None:
    inspector = FakeInspector()
    panel = CollapseMicroscope(pair, inspector)
    panel.controls["step"].value = 3
    assert "has no candidates at step 3</b>; its last step is 2" in panel._said.value
    assert inspector.step == 2  # stays where it was
    panel.controls["run"].value = 1
    assert "8 candidates" in panel._said.value


def test_a_selection_moves_the_inspector(pair: list[Path]) -> None:
    inspector, told = FakeInspector(), []
    panel = CollapseMicroscope(pair, inspector)
    panel.observe(lambda change: told.append(change["new"]), "selected")
    panel.select(1, "c")
    assert (inspector.step, inspector.group) == (1, 1)  # c is in group 1 alone
    assert inspector.filter == {"text": "kept", "strategy": "c", "outcome": "all"}
    panel.controls["strategy"].value = len(panel.heat.names) + panel.heat.rest.index("unreadable")
    assert (inspector.group, inspector.filter["strategy"], inspector.filter["outcome"]) == (0, None, "unreadable")
    panel.select(2, "d", run=1)  # its group 0 has task 11, which is group 1 of the first run
    assert (inspector.step, inspector.group) == (2, 1)
    assert told == [Selection(0, 1, "c"), Selection(0, 1, unreadable=True), Selection(1, 2, "d")]


def test_an_inspector_that_cannot_says_so(pair: list[Path]) -> None:
    inspector = FakeInspector()
    panel = CollapseMicroscope(pair[::-1], inspector)
    panel.controls["step"].value = 3
    assert "inspector: step 3 has no candidates" in panel._said.value


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
