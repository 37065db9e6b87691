"""The figure of follow rates: what is drawn is what was estimated, and hostile names stay text."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from sesa_lab.errors import InputError
from sesa_lab.plots.fidelity import ARMS, MARKS, following


def estimates(*policies: str) -> pd.DataFrame:
    rows = [
        (policy, arm, measure, mean, mean - 0.1, mean + 0.05, 32)
        for policy in policies
        for arm in ARMS
        for measure, mean in (("follows", 0.8), ("stubborn", 0.2), ("chance", 0.15), ("success", 0.5))
        if (arm, measure) not in {("own", "stubborn"), ("none", "follows"), ("none", "chance")}
    ]
    rows.append((policies[0], "own - swapped", "effect", 0.6, 0.5, 0.7, 32))
    return pd.DataFrame(rows, columns=["policy", "arm", "measure", "mean", "low", "high", "n"])


def drawn(figure: Any) -> list[Any]:
    return [trace for trace in figure.data if trace.x[0] is not None]


def test_marks_stand_at_the_means_with_their_intervals() -> None:
    figure = following(estimates("a policy"))
    traces = {trace.name: trace for trace in drawn(figure)}
    assert set(traces) == {name for name, _ in MARKS.values()}, "success and effects are not drawn"
    follows = traces["follows the sketch given"]
    assert follows.x.tolist() == [0.8] * 3 and follows.error_x.array == pytest.approx([0.05] * 3)
    assert (
        follows.error_x.arrayminus == pytest.approx([0.1] * 3)
        and "0.800 [0.700, 0.850] (n=32)" in follows.customdata[0]
    )
    assert [round(y) for y in follows.y] == [3, 2, 1], "own, swapped, foreign, from the top down"
    assert [round(y) for y in traces["follows its own sketch, not given"].y] == [2, 1, 0]
    assert traces["as often by chance"].error_x.array is None
    assert figure.layout.yaxis.ticktext == tuple(reversed(ARMS.values()))
    assert [trace.name for trace in figure.data if trace.showlegend is not False] == [
        name for name, _ in MARKS.values()
    ]


def test_a_panel_a_policy_and_hostile_names_are_escaped() -> None:
    figure = following(estimates("<b>x</b>", "b", "c", "d"), title="<i>t</i>", caption="<script>")
    assert len(drawn(figure)) == 12 and figure.layout.xaxis4 is not None
    said = [annotation.text for annotation in figure.layout.annotations]
    assert "&lt;b&gt;x&lt;/b&gt;" in said and "&lt;script&gt;" in said
    assert figure.layout.title.text == "&lt;i&gt;t&lt;/i&gt;"


def test_what_is_undefined_is_not_drawn() -> None:
    table = estimates("a").assign(mean=math.nan, low=math.nan, high=math.nan)
    assert drawn(following(table)) == []
    alone = estimates("a").assign(low=math.nan, high=math.nan)  # one task: no interval
    assert len(drawn(following(alone))) == 3


def test_a_missing_column_is_named() -> None:
    with pytest.raises(InputError, match="no column 'measure'"):
        following(estimates("a").drop(columns="measure"))
