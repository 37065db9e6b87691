"""The signals against values worked out by hand, and against what a run's own metrics say."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesa_lab.collapse import COLUMNS, SIGNALS, Drawn, direct_of, of_rollouts, step_signals
from sesa_lab.errors import InputError
from sesa_lab.settings import SamplerConfig


def direct(strategies: list[str | None], correct: list[bool], credited: list[float] | None = None) -> Drawn:
    credits = [float(hit) for hit in correct] if credited is None else credited
    return Drawn(strategies, correct, credits, ["task"] * len(correct))


def test_a_step_worked_out_by_hand() -> None:
    # Group 1: correct a, a, b, c: shares 1/2, 1/4, 1/4, entropy 1.5 log 2, effective number 2^1.5. Group 2: all in one way: 1.
    # Group 3: nothing correct: no breadth.
    groups = [
        direct(["a", "a", "b", "c", "d", None], [True, True, True, True, False, False]),
        direct(["a"] * 6, [True] * 6),
        direct(["a", "b", None, None, "b", "c"], [False] * 6),
    ]
    found = step_signals(groups, True, entropy=0.7)
    assert tuple(found) == SIGNALS
    assert found["breadth"] == pytest.approx((2**1.5 + 1.0) / 2)
    assert found["live"] == pytest.approx(1 / 3), "only the first group's rewards differ"
    # two of three groups have a success; 4 + 6 + 0 of 18 candidates are correct
    assert found["spread"] == pytest.approx(2 / 3 - (4 / 6 + 1.0) / 3)
    assert found["entropy"] == 0.7
    assert found["success"] == pytest.approx((4 / 6 + 1.0) / 3)


@pytest.mark.parametrize("k", [1, 2, 4, 8])
def test_k_equally_common_ways_are_k(k: int) -> None:
    found = step_signals([direct([str(i % k) for i in range(8)], [True] * 8)], True)
    assert found["breadth"] == pytest.approx(k)
    assert (found["live"], found["spread"]) == (0.0, 0.0)
    assert math.isnan(found["entropy"])


def test_nothing_to_say_is_nan() -> None:
    assert all(math.isnan(value) for value in step_signals([], True).values())
    found = step_signals([direct([None, None], [False, False])], True)
    assert math.isnan(found["breadth"])
    assert (found["live"], found["spread"]) == (0.0, 0.0)
    unkeyed = step_signals([direct([None, None], [True, True])], True)
    assert math.isnan(unkeyed["breadth"]), "correct answers without a strategy say nothing of variety"


def test_credit_decides_what_is_live() -> None:
    """Under novelty a group that is correct throughout still has a gradient where it repeats itself."""
    found = step_signals([direct(["a", "a"], [True, True], [1.0, 0.0])], True)
    assert found["live"] == 1.0


def test_what_was_drawn_given_the_task_alone_is_read_where_a_run_draws_enough_of_it() -> None:
    mixed = Drawn(["a", "a", "b", "c"], [True] * 4, [1.0, 1.0, 1.0, 0.0], ["task", "task", "sketch", "sketch"])
    assert step_signals([mixed], True)["breadth"] == 1.0, "the two direct ones agree"
    assert step_signals([mixed], True)["live"] == 1.0, "a gradient is one of the whole group"
    # a a b c: 2^1.5
    assert step_signals([mixed], False)["breadth"] == pytest.approx(2**1.5), "whatever a step happens to hold"
    guided = Drawn(["a", "b"], [True] * 2, [1.0] * 2, ["sketch", "sketch"])
    assert step_signals([guided, mixed], True)["breadth"] == 1.0, "a group without direct candidates is left out"


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        ({"name": "parallel"}, True),
        ({"name": "sequential"}, False),  # its first candidate alone
        ({"name": "sequential", "on_policy_fraction": 0.25}, True),  # 2 of 8
        ({"name": "sesa", "on_policy_fraction": 0.125}, False),
        ({"name": "sesa", "on_policy_fraction": 0.13}, True),  # rounded up
        ({"name": "sesa", "repeated_sketch": "drop"}, False),  # some steps hold direct ones, and some none
    ],
)
def test_which_runs_show_their_policy(sampler: dict[str, Any], expected: bool) -> None:
    assert direct_of(SamplerConfig(group_size=8, **sampler)) is expected


@given(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.booleans()), min_size=2, max_size=12), st.randoms())
def test_order_within_a_group_does_not_matter(rows: list[tuple[str | None, bool]], random: object) -> None:
    mixed = list(rows)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    one, two = (step_signals([direct([s for s, _ in own], [c for _, c in own])], True) for own in (rows, mixed))
    assert one == pytest.approx(two, nan_ok=True)


def test_stored_candidates_give_the_same_step_by_step() -> None:
    rows = [
        (2, 0, True, "a", 1.0, "task"),
        (2, 0, True, "b", 1.0, "task"),
        (1, 1, False, None, 0.0, "task"),
        (1, 1, False, "b", 0.0, "task"),
        (1, 0, True, "a", 1.0, "task"),
        (1, 0, False, None, 0.0, "task"),
    ]
    frame = pd.DataFrame(rows, columns=["step", "group", "success", "strategy", "credited", "drawn_under"])
    found = of_rollouts(frame, True, {1: 0.25}).set_index("step")
    assert list(found.index) == [1, 2]
    first = step_signals([direct(["a", None], [True, False]), direct([None, "b"], [False, False])], True, 0.25)
    assert found.loc[1].to_dict() == pytest.approx(first)
    assert found.loc[2, "breadth"] == pytest.approx(2.0)
    assert math.isnan(found.loc[2, "entropy"])


def test_no_rollouts_give_an_empty_table() -> None:
    assert list(of_rollouts(pd.DataFrame(columns=list(COLUMNS)), True).columns) == ["step", *SIGNALS]


def test_a_missing_column_is_named() -> None:
    with pytest.raises(InputError, match="no column 'strategy'"):
        of_rollouts(pd.DataFrame(columns=[name for name in COLUMNS if name != "strategy"]), True)
