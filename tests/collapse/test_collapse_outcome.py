"""What became of a run, and how alarms are scored, by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from scipy.stats import beta

from sesa_lab.collapse import Outcome, outcome, score_alarms
from sesa_lab.errors import InputError


def evaluated(*coverage: float) -> pd.DataFrame:
    return pd.DataFrame({"step": [10 * i for i in range(len(coverage))], "coverage": coverage})


@pytest.mark.parametrize(
    ("coverage", "expected"),
    [
        ((2.0, 4.0, 5.0), Outcome("healthy", 1.0, None)),
        ((2.0, 5.0, 4.0), Outcome("healthy", 0.8, None)),  # not below 0.8 x 5
        ((2.0, 5.0, 3.5), Outcome("neither", 0.7, 20, 10)),
        ((2.0, 5.0, 3.0), Outcome("collapsed", 0.6, 20, 10)),
        ((2.0, 5.0, 1.0, 1.0), Outcome("collapsed", 0.2, 20, 10)),
        ((2.0, 5.0, 1.0, 4.5, 1.0), Outcome("collapsed", 0.2, 40, 30)),  # it came back once: what lasts began at 40
        ((5.0, 1.0, 1.0), Outcome("collapsed", 0.2, 10, 0)),
        ((5.0, 1.0, 5.0), Outcome("healthy", 1.0, None)),
    ],
)
def test_outcomes(coverage: tuple[float, ...], expected: Outcome) -> None:
    found = outcome(evaluated(*coverage))
    assert (found.kind, found.onset, found.good) == (expected.kind, expected.onset, expected.good)
    assert found.kept == pytest.approx(expected.kept)


def test_nothing_found_ever_is_neither() -> None:
    found = outcome(evaluated(0.0, 0.0))
    assert (found.kind, found.onset) == ("neither", None)
    assert math.isnan(found.kept)


def test_one_evaluation_is_too_few() -> None:
    with pytest.raises(InputError, match="two evaluations or more, got 1"):
        outcome(evaluated(1.0))


def test_scores_by_hand() -> None:
    fell = [Outcome("collapsed", 0.2, onset, onset - 10) for onset in (10, 20, 20, 90)]
    outcomes = [*fell, Outcome("healthy", 1.0, None), Outcome("healthy", 0.9, None), Outcome("neither", 0.7, 10, 0)]
    found = score_alarms(outcomes, [12, 18, None, 6, None, 30, 5])
    # delays 2, -2 (after the good evaluation of step 10, before that of 20) and -84, which comes before the good one of step 80
    counts = ("collapsed", "detected", "premature", "healthy", "false_alarms", "neither", "neither_alarms")
    assert [found[name] for name in counts] == [4, 3, 1, 2, 1, 1, 1]
    assert [found[name] for name in ("delay", "delay_low", "delay_high")] == [-2.0, -84.0, 2.0]
    # 3 of 4: the exact interval of scipy, and by its beta quantiles
    ends = beta.ppf([0.025, 0.975], [3, 4], [2, 1])
    assert [found["detected_low"], found["detected_high"]] == pytest.approx(ends.tolist())


def test_no_run_detected_has_no_delay() -> None:
    found = score_alarms([Outcome("healthy", 1.0, None)], [None])
    assert (found["detected"], found["false_alarms"]) == (0, 0)
    assert all(math.isnan(found[name]) for name in ("delay", "delay_low", "delay_high", "detected_low"))
    assert found["false_low"] == 0.0 and found["false_high"] == pytest.approx(0.975), "1 - 0.025 for none of one"
