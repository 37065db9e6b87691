"""The detector against sums worked out by hand, and its rule: breadth and as many others as are asked for."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sesa_lab.collapse import SIGNALS, Alarm, Detector, Thresholds, detect
from sesa_lab.errors import InputError

PLAIN = Thresholds(smoothing=1.0, slack=dict.fromkeys(SIGNALS, 0.25), patience=1.0, votes=1, warmup=0)
"""No smoothing, one slack: what is summed up can be read off the values."""


def table(**columns: Any) -> pd.DataFrame:
    """Steps from 1; signals that are not given stay at 1."""
    length = len(next(iter(columns.values())))
    return pd.DataFrame({"step": range(1, length + 1), **{name: columns.get(name, [1.0] * length) for name in SIGNALS}})


def test_the_sum_by_hand() -> None:
    # best 4; losses 0, .5, .75, 1, so S = 0, .25, .75, 1.5: down at step 4, since step 2
    alarms, trace = detect(table(breadth=[4.0, 2.0, 1.0, 0.0]), PLAIN)
    assert trace["breadth_loss"].tolist() == pytest.approx([0.0, 0.5, 0.75, 1.0])
    assert trace["breadth_total"].tolist() == pytest.approx([0.0, 0.25, 0.75, 1.5])
    assert [(alarm.step, alarm.onset, alarm.down) for alarm in alarms] == [(4, 2, ("breadth",))]
    assert alarms[0].loss["breadth"] == 1.0
    assert str(alarms[0]) == "collapse noticed at step 4, from step 2 on: breadth -100% of the best so far"


def test_smoothing_by_hand() -> None:
    # weight 2 / (3 + 1) = 1/2: means 4, 3, 2.5; losses of the best, 4: 0, 1/4, 3/8
    trace = detect(table(breadth=[4.0, 2.0, 2.0]), Thresholds(3.0, PLAIN.slack, 1.0, 1, 0))[1]
    assert trace["breadth_loss"].tolist() == pytest.approx([0.0, 0.25, 0.375])


def test_what_is_lost_within_the_slack_never_counts() -> None:
    alarms, trace = detect(table(breadth=[4.0] + [3.0] * 500), PLAIN)
    assert not alarms
    assert trace["breadth_total"].max() == 0.0


def test_a_shallow_loss_is_told_late_and_a_deep_one_soon() -> None:
    # beyond the slack .05 a step: after 20 of them; .75 a step: after 2
    steps = [detect(table(breadth=[1.0] + [value] * 40), PLAIN)[0][0].step for value in (0.7, 0.0)]
    assert steps == [21, 3]


def test_a_dip_is_forgotten() -> None:
    alarms, trace = detect(table(breadth=[4.0, 0.0, 4.0, 4.0, 4.0]), PLAIN)
    assert not alarms
    assert trace["breadth_total"].tolist() == pytest.approx([0.0, 0.75, 0.5, 0.25, 0.0])


def test_without_breadth_there_is_no_alarm() -> None:
    gone = [1.0] + [0.0] * 20
    assert not detect(table(live=gone, spread=gone, entropy=gone), PLAIN)[0]


@pytest.mark.parametrize(("votes", "alarmed"), [(1, True), (2, True), (3, True), (4, False)])
def test_votes_count_breadth_and_others(votes: int, alarmed: bool) -> None:
    gone = [1.0] + [0.0] * 20
    found, _ = detect(table(breadth=gone, live=gone, spread=gone), Thresholds(1.0, PLAIN.slack, 1.0, votes, 0))
    assert bool(found) == alarmed
    if found:
        assert found[0].down == ("breadth", "live", "spread")


def test_lost_success_is_an_alarm_by_itself() -> None:
    """Where nothing is solved any more, breadth has no value and nothing to lose."""
    right = [0.8] * 10 + [0.0] * 10
    undefined = [2.0] * 10 + [math.nan] * 10
    found, _ = detect(table(breadth=undefined, success=right), Thresholds(1.0, PLAIN.slack, 1.0, 4, 0))
    # loss 1 from step 11 on, 0.75 beyond the slack: 0.75, 1.5
    assert [(alarm.step, alarm.onset, alarm.down) for alarm in found] == [(12, 11, ("success",))]
    assert str(found[0]).startswith("failure noticed at step 12, from step 11 on: success -100%")


def test_success_is_no_vote() -> None:
    gone = [1.0] + [0.0] * 3
    slow = Thresholds(1.0, {**PLAIN.slack, "success": 0.9}, 1.0, 2, 0)
    assert not detect(table(breadth=gone, success=[1.0, 0.05, 0.05, 0.05]), slow)[0]


def test_an_alarm_waits_for_the_votes() -> None:
    slow, gone = [1.0] * 10 + [0.0] * 10, [1.0] + [0.0] * 19
    found, _ = detect(table(breadth=gone, entropy=slow), Thresholds(1.0, PLAIN.slack, 1.0, 2, 0))
    assert [(alarm.step, alarm.onset) for alarm in found] == [(12, 2)], "entropy is down at 12; breadth fell at 2"


def test_one_alarm_a_collapse_and_another_after_a_recovery() -> None:
    # S is capped at 2, so that breadth is back after 8 good steps, whatever came before
    down, up = [0.0] * 30, [4.0] * 8
    alarms, trace = detect(table(breadth=[4.0, *down, *up, *down]), PLAIN)
    assert trace["breadth_total"].max() == 2.0
    assert [alarm.step for alarm in alarms] == [3, 41]
    assert [alarm.step for alarm in detect(table(breadth=[4.0, *down, *up[:-1], *down]), PLAIN)[0]] == [3], "not back"


def test_undefined_values_change_nothing() -> None:
    with_gaps = [4.0, math.nan, 2.0, math.nan, 1.0, 0.0]
    without = [4.0, 2.0, 1.0, 0.0]
    assert detect(table(breadth=with_gaps), PLAIN)[0][0].step == 6
    assert detect(table(breadth=without), PLAIN)[0][0].step == 4
    alarms, trace = detect(table(breadth=[math.nan] * 9), PLAIN)
    assert not alarms
    assert trace["breadth_loss"].isna().all()


def test_what_was_never_there_is_not_lost() -> None:
    assert detect(table(breadth=[0.0] * 50), PLAIN)[1]["breadth_loss"].tolist() == [0.0] * 50


def test_nothing_is_compared_during_the_warmup() -> None:
    settings = Thresholds(1.0, PLAIN.slack, 1.0, 1, 3)
    alarms, trace = detect(table(breadth=[9.0, 9.0, 9.0] + [1.0] * 30), settings)
    assert not alarms, "the high values were before"
    assert trace["breadth_loss"].isna().tolist() == [True] * 3 + [False] * 30


def test_scale_does_not_matter() -> None:
    rows = np.random.default_rng(3).uniform(0.1, 1.0, (80, 5)) * np.linspace(1.0, 0.05, 80)[:, None]
    one, ten = (
        detect(table(**{name: (rows[:, i] * factor).tolist() for i, name in enumerate(SIGNALS)}))[0]
        for factor in (1.0, 10.0)
    )
    assert one
    assert [(alarm.step, alarm.onset, alarm.down) for alarm in one] == [(a.step, a.onset, a.down) for a in ten]


def test_step_by_step_is_all_at_once() -> None:
    rows = np.random.default_rng(4).uniform(0.1, 1.0, (60, 5)) * np.linspace(1.0, 0.05, 60)[:, None]
    frame = table(**{name: rows[:, i].tolist() for i, name in enumerate(SIGNALS)})
    detector = Detector()
    found: list[Alarm] = []
    for step, row in enumerate(rows, start=1):
        alarm = detector.update(step, dict(zip(SIGNALS, row.tolist(), strict=True)))
        found += [alarm] if alarm else []
    assert found == detect(frame)[0]
    assert found


def test_what_was_seen_is_kept_in_few_numbers() -> None:
    rows = np.random.default_rng(6).uniform(0.1, 1.0, (60, 5)) * np.linspace(1.0, 0.05, 60)[:, None]
    whole, first = Detector(), Detector()
    told = [whole.update(step, dict(zip(SIGNALS, row.tolist(), strict=True))) for step, row in enumerate(rows, start=1)]
    for step, row in enumerate(rows[:30], start=1):
        first.update(step, dict(zip(SIGNALS, row.tolist(), strict=True)))
    second = Detector()
    second.restore(json.loads(json.dumps(first.state())))
    later = [
        second.update(step, dict(zip(SIGNALS, row.tolist(), strict=True)))
        for step, row in enumerate(rows[30:], start=31)
    ]
    assert later == told[30:]
    assert second.state() == whole.state()
    assert json.loads(json.dumps(Detector().state())).keys() == {"seen", "alarmed", "signals"}


@pytest.mark.parametrize(("noise", "most"), [(0.05, 0), (0.1, 15)])
def test_noise_alone_raises_few_alarms(noise: float, most: int) -> None:
    """300 runs of 200 steps in which nothing changes: breadth 2 with a standard deviation of 5 or 10 % of it a step.

    The best so far is the best of noise, so that a noisy signal seems to lose a little for ever: at 10 % an alarm in some 2.5 %.
    """
    generator = np.random.default_rng(5)
    raised = 0
    for _ in range(300):
        breadth = generator.normal(2.0, 2.0 * noise, 200).clip(1.0)
        live, spread = generator.binomial(8, 0.8, 200) / 8, generator.normal(0.4, 0.1, 200).clip(0.0)
        raised += bool(detect(table(breadth=breadth.tolist(), live=live.tolist(), spread=spread.tolist()))[0])
    assert raised <= most


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"smoothing": 0.5}, "smoothing >= 1"),
        ({"patience": 0.0}, "patience > 0"),
        ({"warmup": -1}, "warmup >= 0"),
        ({"votes": 5}, r"votes = 5 is out of range: expected 1\.\.4"),
        ({"slack": {"breadth": 0.1}}, "slack lacks live, spread, entropy, success"),
        ({"slack": {**PLAIN.slack, "variety": 0.1}}, "no such signal"),
        ({"slack": {**PLAIN.slack, "live": 1.0}}, r"slack of live = 1\.0 is out of range"),
        ({"slack": {**PLAIN.slack, "live": math.nan}}, "slack of live = nan"),
    ],
)
def test_thresholds_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Thresholds(**changes)


def test_a_missing_signal_is_named() -> None:
    with pytest.raises(InputError, match="no column 'spread'"):
        detect(table(breadth=[1.0]).drop(columns="spread"))
