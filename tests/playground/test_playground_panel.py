"""Figures and controls: what they show, what hostile words cannot do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from stored_runs import config, row, switched, write

from sesa_lab import playground
from sesa_lab.config import Config
from sesa_lab.errors import InputError
from sesa_lab.playground import LossPlayground, figures
from sesa_lab.playground.compute import CORRECTIONS
from sesa_lab.runs import RunWriter

HOSTILE = "<img src=x onerror=alert(1)>\u202e\n</script><script>alert(2)</script>"


def texts(figure: Any) -> str:
    return json.dumps(json.loads(figure.to_json()), ensure_ascii=False)


def press(panel: Any, name: str) -> None:
    """The button of this name."""

    def below(box: Any) -> Any:
        for child in getattr(box, "children", ()):
            yield child
            yield from below(child)

    (button,) = [one for one in below(panel) if getattr(one, "description", "") == name]
    button.click()


def test_candidates_by_kind(three: playground.Step) -> None:
    figure = figures.candidates(playground.compute(three, playground.rule(three, correction="none")), 0)
    assert [trace.name for trace in figure.data] == ["success, new", "failure, new"] * 4
    assert [trace.showlegend for trace in figure.data] == [True, True] + [False] * 6
    assert [list(trace.y) for trace in figure.data[:2]] == [[0], [1, 2]]
    advantages, weights = figure.data[:2], figure.data[4:6]
    assert [list(trace.x) for trace in advantages] == [[2.0], [-1.0, -1.0]]
    assert list(weights[0].x) == pytest.approx([0.8], rel=1e-6)  # two tokens of 0.4
    assert list(weights[1].x) == pytest.approx([-0.2, -0.4], rel=1e-6)
    titles = [figure.layout[f"xaxis{n}"].title.text for n in ("", 2, 3, 4)]
    assert ["reward units" in titles[0], "per nat" in titles[2], "nats" in titles[3]] == [True] * 3
    assert "predicted change: one plain gradient step" in figure.layout.annotations[-1].text


def test_repeats_are_hatched_and_failures_of_another_colour(tmp_path: Path) -> None:
    rows = [row(0, strategy="a"), row(1, strategy="a", success=True), row(2, strategy="a")]
    step = playground.read(write(tmp_path / "run", rows))
    traces = figures.candidates(playground.compute(step, playground.rule(step)), 0).data[:3]
    looks = {trace.name: (trace.marker.color, trace.marker.pattern.shape) for trace in traces}
    assert list(looks) == ["success, new", "success, repeat", "failure, repeat"]
    assert len(set(looks.values())) == 3


def test_every_correction_has_its_panel_on_one_axis(three: playground.Step) -> None:
    results = playground.compare(three, playground.rule(three))
    for measure in ("change", "weight", "importance"):
        figure = figures.corrections(results, 0, measure)
        assert [note.text for note in figure.layout.annotations[: len(CORRECTIONS)]] == list(CORRECTIONS)
        ranges = {figure.layout[f"xaxis{n}"].range for n in ("", 2, 3, 4, 5)}
        assert len(ranges) == 1
        for place, result in enumerate(results.values()):
            shown = [x for trace in figure.data[2 * place : 2 * place + 2] for x in trace.x]
            assert shown == list(result.items[measure])
    assert figure.layout.xaxis.range[0] == 0  # weights of importance are not negative


def test_tokens_are_cells(three: playground.Step) -> None:
    result = playground.compute(three, playground.rule(three, 0.25, correction="none"))
    figure = figures.tokens(result, 0, words=lambda ids: [f"w{i}" for i in ids])
    (cells,) = figure.data
    assert [list(line) for line in cells.text] == [["\u00d7 w11", "\u00d7 w12"], ["w13", ""], ["w14", "w15"]]
    assert [line[0] for line in cells.z] == list(result.tokens.loc[result.tokens["place"] == 0, "weight"])
    assert cells.zmin == -cells.zmax  # no weight is the colour in the middle
    plain = figures.tokens(result, 0, measure="change").data[0]
    assert plain.text[0][0] == "\u00d7 11"
    assert list(cells.x) == [0, 1]
    index, token, old, weight, change = cells.customdata[2][1].tolist()  # what a hover tells
    last = result.tokens.iloc[-1]
    assert (index, token, old) == (2, 15, -0.5)
    assert [weight, change] == pytest.approx([last["weight"], last["change"]])


def test_long_completions_are_shown_page_by_page(tmp_path: Path) -> None:
    count, length = 16, 4000
    long = {"token_ids": list(range(length)), "turn_tokens": [length], "drawn_under": "task", "history": []}
    rows = [
        row(0, index=i, reward=float(i), credited=float(i), old_logprobs=said, drawn_logprobs=said, **long)
        for i in range(count)
        if (said := [-0.1 * (1 + i)] * length)
    ]
    panel = LossPlayground(write(tmp_path / "run", rows))
    page = panel.controls["page"]
    assert [label for label, _ in page.options][:2] == ["0 to 124", "125 to 249"] and len(page.options) == 32
    assert not page.disabled
    page.value = 3875
    (cells,) = panel.strips().data
    assert (np.shape(cells.z), cells.x[0], cells.x[-1]) == ((16, 125), 3875, 3999)
    assert cells.text[3][124] == "3999"
    for figure in (panel.figure(), panel.comparison(), panel.strips()):
        assert len(figure.to_json()) < 500_000
    (output,) = panel._areas["strips"].outputs
    assert output["data"]["application/vnd.plotly.v1+json"] == json.loads(panel.strips().to_json())
    with pytest.raises(
        InputError, match=r"first = 7 begins no page of tokens; expected one of 0 \.\. 3875 \(32 of them\)"
    ):
        figures.tokens(panel.result, 0, first=7)


def test_a_page_stays_where_the_group_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MOST_TOKENS", 3)  # one token a page of three candidates, three of one candidate
    rows = [row(i) for i in range(3)] + [row(2, group=1, index=0)]
    panel = LossPlayground(write(tmp_path / "run", rows))
    page = panel.controls["page"]
    assert [value for _, value in page.options] == [0, 1]
    page.value = 1
    assert [list(line) for line in panel.strips().data[0].text] == [["12"], [""], ["15"]]
    panel.controls["loss"].value = "grpo"
    assert page.value == 1
    panel.controls["group"].value = 1
    assert ([value for _, value in page.options], page.value, page.disabled) == ([0], 0, True)


def test_groups_and_measures_that_are_not_there(three: playground.Step) -> None:
    result = playground.compute(three, playground.rule(three))
    with pytest.raises(InputError, match=r"group 3 is not in step 1; it has groups \[0\]"):
        figures.candidates(result, 3)
    with pytest.raises(InputError, match="measure 'wieght' is not one of a token; did you mean 'weight'"):
        figures.tokens(result, 0, measure="wieght")
    with pytest.raises(InputError, match="measure 'ratio' is not one of the playground"):
        figures.corrections({"none": result}, 0, "ratio")


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    rows = [row(i, completion=HOSTILE, strategy=HOSTILE, prompt=HOSTILE, history=[HOSTILE]) for i in range(3)]
    panel = LossPlayground(write(tmp_path / "<img src=y>", rows))
    result = panel.result
    shown = [panel.figure(), panel.comparison(), figures.tokens(result, 0, words=lambda ids: [HOSTILE] * len(ids))]
    areas = [json.dumps(area.outputs, ensure_ascii=False) for area in panel._areas.values()]
    said = [
        panel._said.value,
        *(str(control.options) for control in panel.controls.values() if hasattr(control, "options")),
    ]
    for text in [*map(texts, shown), *areas, *said]:
        assert not re.search(r"<(img|/?script)|\u202e", text)
    assert "&lt;img src=x onerror=alert(1)&gt;" in texts(shown[0])


def test_the_panel_begins_at_the_runs_own_settings(tmp_path: Path) -> None:
    penalty = {"kl_coef": 2.0, "kl_estimator": "k2", "clip_high": 3.0, "minibatches": 3}
    own = config(correction="truncated_is", truncation=7.5, loss="grpo", **penalty)
    panel = LossPlayground(write(tmp_path / "run", [row(0), row(1), row(2)], own))
    assert panel.rule.update == own.update
    assert panel.controls["truncation"].max == 7.5  # no slider cuts what the run has
    assert "logged under the run's own settings: 0.5" in panel._said.value


def test_controls_act(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("comparison", "strips"):  # they take time to draw, and are looked at elsewhere
        monkeypatch.setattr(LossPlayground, name, lambda self: go.Figure())
    rows = [row(i, group=g) for g in range(2) for i in range(3 - g)]
    panel = LossPlayground(write(tmp_path / "run", rows), 1)
    controls = panel.controls
    first = panel.figure().to_json()
    assert [controls[name].disabled for name in ("second", "kl_estimator", "drift")] == [True] * 3
    controls["correction"].value = "ppo_clip"
    assert panel.result.rule.update.correction == "ppo_clip"
    assert panel.figure().to_json() != first
    controls["kl_coef"].value = 0.5
    assert not controls["drift"].disabled
    controls["drift"].value = 0.1
    controls["shift"].value = 0.3
    controls["moved"].value = 2
    assert panel.result.rule == playground.rule(panel.step, 0.3, (0, 2), 0.1, correction="ppo_clip", kl_coef=0.5)
    controls["group"].value = 1  # has no candidate 2
    assert [value for _, value in controls["moved"].options] == [-1, 0, 1]
    assert controls["moved"].label == "all candidates"
    assert panel.result.rule.moved is None
    assert "group 1" in texts(panel.figure())
    controls["conditioning"].value = "task+history"
    controls["second"].value = True
    assert len(panel.figure().data[0].x) + len(panel.figure().data[1].x) == 2  # both were drawn after earlier answers
    controls["conditioning"].value = "task"
    assert (controls["second"].value, controls["second"].disabled) == (False, True)


def test_what_the_panel_shows_is_what_its_figures_are(tmp_path: Path) -> None:
    panel = LossPlayground(write(tmp_path / "run", [row(0), row(1), row(2)]))
    panel.controls["measure"].value = "weight"
    for name, area in panel._areas.items():
        (output,) = area.outputs
        assert output["data"]["application/vnd.plotly.v1+json"] == json.loads(getattr(panel, name)().to_json())


def test_what_the_engine_said_has_its_controls_where_it_is_another_ones(tmp_path: Path) -> None:
    plain = LossPlayground(write(tmp_path / "plain", [row(0), row(1), row(2)])).controls
    assert (plain["mismatch"].disabled, plain["mismatch_truncation"].disabled) == (True, True)
    rows = [row(0, engine_logprobs=[-2.0, -2.0]), row(1), row(2)]
    settings = config().to_dict()
    settings["engine"]["name"] = "vllm"
    panel = LossPlayground(write(tmp_path / "vllm", rows, Config.from_dict(settings)))
    own, before = panel.controls, panel.result.items["weight"].tolist()
    assert (own["mismatch"].disabled, own["mismatch_truncation"].disabled) == (False, True)
    own["mismatch"].value = "truncated_is"
    assert not own["mismatch_truncation"].disabled
    own["mismatch_truncation"].value = 1.5
    assert panel.result.rule.update.mismatch_truncation == 1.5
    weights = panel.result.tokens["weight"].tolist()[:2]
    assert weights == pytest.approx([0.4 * 1.5, 0.4 * 1.5], rel=1e-6)  # e^0.5 and e^1, both cut at 1.5
    assert panel.result.items["weight"].tolist()[1:] == before[1:]


def test_whose_negative_advantages_are_dropped_has_its_control(tmp_path: Path) -> None:
    panel = LossPlayground(write(tmp_path / "run", [row(0), row(1), row(2)]))
    panel.controls["correction"].value = "positive_only"
    scope = panel.controls["correction_scope"]
    assert not scope.disabled  # the last was drawn on-policy
    assert panel.result.items["weight"].tolist()[2] == 0.0
    scope.value = "off_policy"
    assert panel.result.items["weight"].tolist()[2] < 0.0
    all_off = LossPlayground(write(tmp_path / "off", [row(0), row(1)]))
    assert all_off.controls["correction_scope"].disabled


def test_another_step_and_a_run_that_has_grown(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", [row(0), row(1), row(2), *(row(i, step=2, group=4, task=9) for i in range(3))])
    panel = LossPlayground(folder)
    own = panel.controls
    assert (own["step"].options, own["step"].value, own["group"].value) == ((1, 2), 2, 4)
    own["loss"].value = "grpo"
    own["step"].value = 1
    assert (panel.step.number, own["group"].options, own["loss"].value) == (1, (("0 (task 7)", 0),), "grpo")
    assert "Step 1, group 0" in texts(panel.figure())

    def grow(step: int) -> None:
        with RunWriter.resume(folder) as writer:
            writer.add_rollouts([row(i, step=step) for i in range(3)])
            writer.log("step", step, {"loss": 0.25})
            writer.commit(step, lambda place: (place / "state").write_text("state"))

    grow(3)
    press(panel, "reload")
    assert (own["step"].options, own["step"].value) == ((1, 2, 3), 1)  # an older step stays
    own["step"].value = 3
    grow(4)
    press(panel, "reload")
    assert (panel.step.number, own["step"].value) == (4, 4)  # the last moves on
    assert "logged under the run's own settings: 0.25" in panel._said.value


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    panel = LossPlayground(write(tmp_path / "run", [row(0), row(1), row(2)]))
    notes = panel.children[-1].value
    for word in ("Temperature:", "temperature, 1;", "KL:", "Entropy bonus", "sketches", "minibatches"):
        assert word in notes


def test_a_panel_without_a_step(tmp_path: Path) -> None:
    run = write(tmp_path / "run", [row(0), row(1), row(2)])
    with pytest.raises(InputError, match=r"step 9 is not among the stored rollouts of .*; there are step 1"):
        LossPlayground(run, 9)
    with pytest.raises(InputError, match="no tokenizer at"):
        LossPlayground(run, tokenizer=tmp_path)


def test_a_step_after_an_alarms_switch_has_its_own_temperature(tmp_path: Path) -> None:
    panel = LossPlayground(switched(tmp_path / "run", temperature=2.5, repeats="zero"), 1)
    own, before = panel.controls, panel.result.tokens["change"].tolist()
    assert (own["temperature"].value, own["repeats"].value) == (1.0, "count")
    own["step"].value = 2
    assert (own["temperature"].value, own["repeats"].value) == (2.5, "count")  # what was set stays set
    assert "temperature, 2.5;" in panel.children[-1].value
    assert panel.result.tokens["change"].tolist() == pytest.approx([change / 2.5**2 for change in before])
