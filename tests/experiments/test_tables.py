"""Tables and verdicts from hand-made evaluations."""

from __future__ import annotations

import pandas as pd
import pytest

from sesa_lab.errors import InputError
from sesa_lab.experiments import tables
from sesa_lab.experiments.path_exploration import PLAIN
from sesa_lab.statistics import Interval


def evaluations(values: dict[str, list[tuple[float, float]]], group: str = "path") -> pd.DataFrame:
    """arm -> (coverage at step 0, coverage at step 10) of seeds 0, 1, ...; accuracy is a tenth of the coverage."""
    rows = [
        {"arm": arm, "seed": seed, "step": step, "coverage": coverage, "accuracy": coverage / 10, "tokens_total": step * 100,
         "group": group, "entropy": 1.0, "valid_mass": 1.0, "coverage_k": 64}
        for arm, seeds in values.items() for seed, pair in enumerate(seeds) for step, coverage in zip((0, 10), pair, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_ratios_are_of_means_and_paired_by_seed() -> None:
    table = evaluations({PLAIN: [(1.0, 2.0), (1.0, 4.0)], "other": [(1.0, 6.0), (1.0, 9.0)]})
    found = tables.ratios(table, PLAIN, "coverage").set_index("arm")
    assert found.loc["other", "mean"] == pytest.approx(7.5 / 3.0)
    assert found.loc[PLAIN, "mean"] == 1.0 and found.loc["other", "n"] == 2
    # At 500 tokens both curves stand half way between steps 0 and 10: (3.5 + 5) / (1.5 + 2.5).
    half = tables.ratios(table, PLAIN, "coverage", "tokens_total", 500.0).set_index("arm")
    assert half.loc["other", "mean"] == pytest.approx(8.5 / 4.0)


@pytest.mark.parametrize(
    ("mean", "low", "high", "gained", "expected"),
    [
        (2.0, 1.5, 2.5, 0.0, "reproduced"),
        (1.2, 1.1, 1.3, 0.0, "partly (smaller)"),
        (2.0, 1.5, 2.5, -0.04, "reproduced, but accuracy lost"),
        (1.2, 0.9, 1.5, 0.0, "not shown"),
        (0.5, 0.3, 0.7, 0.0, "refuted here"),
        (2.0, float("nan"), float("nan"), 0.0, "no interval"),
    ],
)
def test_verdict(mean: float, low: float, high: float, gained: float, expected: str) -> None:
    ratio = {"mean": mean, "low": low, "high": high}
    assert tables.verdict(ratio, 1.6, Interval(gained, gained, gained, 5)) == expected


def test_picked_takes_the_broadest_rate_that_is_accurate_enough() -> None:
    last = pd.DataFrame(
        {"arm": ["a@0.1", "a@0.2", "a@0.3", "b@0.1"], "accuracy": [0.90, 0.94, 0.80, 0.1], "coverage": [5.0, 4.0, 9.0, 1.0],
         "valid_mass": 1.0}
    )  # fmt: skip
    # a: best accuracy .94, so .90 is within .05 and .80 is not; of the two the first covers more.
    assert tables.picked(last)["rate"].to_dict() == {"a": "0.1", "b": "0.1"}


def test_the_rival_gets_its_best_rate() -> None:
    ours = evaluations({"parallel-zero-none": [(1.0, 2.0)], "mine": [(1.0, 8.0)]}, "zipf-2")
    rivals = evaluations({"parallel-zero-none@0.1": [(1.0, 3.0)], "parallel-zero-none@0.2": [(1.0, 4.0)]}, "rival-2")
    found = tables.with_best_rival(ours, rivals, 10)
    last = found[found["step"] == 10].set_index("arm")["coverage"]
    assert last.to_dict() == {"mine": 8.0, "parallel-zero-none": 4.0}
    assert set(found["group"]) == {"zipf-2"}


def test_a_revival_must_begin_where_its_run_ended() -> None:
    dying = evaluations({PLAIN: [(5.0, 1.0), (5.0, 2.0)]})
    tables.same_start(dying, evaluations({"x": [(1.0, 3.0), (2.0, 3.0)]}), 10)
    with pytest.raises(InputError, match="revival x, seed 1, began from another policy"):
        tables.same_start(dying, evaluations({"x": [(1.0, 3.0), (2.5, 3.0)]}), 10)


def test_revivals_judge_plain_parallel_by_being_flat() -> None:
    seeds = [(1.0, 1.01), (1.0, 0.99), (1.0, 1.0)]
    found = tables.revivals(evaluations({PLAIN: seeds, "x": [(1.0, 3.0), (1.0, 3.1), (1.0, 2.9)]}), 10)
    assert found.loc["parallel", "verdict"] == "flat, as claimed"
    assert found.loc["x", "verdict"] == "reproduced"


def test_conclusions_say_what_the_interval_says() -> None:
    table = evaluations({PLAIN: [(1.0, 2.0), (1.0, 2.1), (1.0, 1.9)], "wide": [(1.0, 1.0), (1.0, 5.0), (1.0, 2.0)]})
    assert "no difference shown, the interval holds 1" in tables.conclusion(table, PLAIN, 10)
