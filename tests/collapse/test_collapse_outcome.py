"""What became of a run, and how alarms are scored, by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from sesa_lab.collapse import Outcome, outcome, score_alarms
from sesa_lab.errors import InputError


def evaluated(*coverage: float) -> pd.DataFrame:
    return pd.DataFrame({"step": [10 * i for i in range(len(coverage))], "coverage": coverage})


@pytest.mark.parametrize(
    ("coverage", "expected"),
    [
        ((2.0, 4.0, 5.0), Outcome("healthy", 1.0, None)),
        ((2.0, 5.0, 4.0), Outcome("healthy", 0.8, None)),  # not below 0.8 x 5
        ((2.0, 5.0, 3.5), Outcome("neither", 0.7, 20)),
        ((2.0, 5.0, 3.0), Outcome("collapsed", 0.6, 20)),
        ((2.0, 5.0, 1.0, 1.0), Outcome("collapsed", 0.2, 20)),
        ((2.0, 5.0, 1.0, 4.5, 1.0), Outcome("collapsed", 0.2, 40)),  # it came back once: what lasts began at 40
        ((5.0, 1.0, 1.0), Outcome("collapsed", 0.2, 10)),
        ((5.0, 1.0, 5.0), Outcome("healthy", 1.0, None)),
    ],
)
def test_outcomes(coverage: tuple[float, ...], expected: Outcome) -> None:
    found = outcome(evaluated(*coverage))
    assert (found.kind, found.onset) == (expected.kind, expected.onset)
    assert found.kept == pytest.approx(expected.kept)


def test_nothing_found_ever_is_neither() -> None:
    found = outcome(evaluated(0.0, 0.0))
    assert (found.kind, found.onset) == ("neither", None)
    assert math.isnan(found.kept)


def test_one_evaluation_is_too_few() -> None:
    with pytest.raises(InputError, match="two evaluations or more, got 1"):
        outcome(evaluated(1.0))


def test_scores_by_hand() -> None:
    kinds = ["collapsed", "collapsed", "collapsed", "healthy", "healthy", "neither"]
    found = score_alarms(kinds, [12, 18, None, None, 30, 5], [10, 20, 20, None, None, 10])
    assert found == {
        "collapsed": 3, "detected": 2, "healthy": 2, "false_alarms": 1, "neither": 1,
        "delay": 0.0, "delay_low": -2.0, "delay_high": 2.0,
    }  # fmt: skip


def test_no_run_detected_has_no_delay() -> None:
    found = score_alarms(["healthy"], [None], [None])
    assert (found["detected"], found["false_alarms"]) == (0, 0)
    assert all(math.isnan(found[name]) for name in ("delay", "delay_low", "delay_high"))
