"""Means, intervals and paired comparisons: values by hand and against SciPy."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sesa_lab import statistics
from sesa_lab.errors import InputError


def test_interval_by_hand() -> None:
    # mean 2, s = 1, t(2 d.o.f., 97.5 %) = 4.30265: half width 4.30265 / sqrt(3) = 2.48414
    mean, low, high, n = statistics.mean_interval([1.0, 2.0, 3.0])
    assert (mean, n) == (2.0, 3)
    assert low == pytest.approx(2.0 - 2.48414, abs=1e-5)
    assert high == pytest.approx(2.0 + 2.48414, abs=1e-5)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_interval_as_scipy(level: float) -> None:
    values = np.random.default_rng(3).normal(5.0, 2.0, 9)
    _, low, high, _ = statistics.mean_interval(values, level)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(level)
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_interval_covers_as_often_as_it_says() -> None:
    # 2,000 samples of 5 normal values: hits ~ Binomial(2000, 0.95), sd 9.7; 1,900 -+ 44 is 4.5 sd (false alarm 7e-6)
    draws = np.random.default_rng(0).normal(1.0, 3.0, (2000, 5))
    hits = sum(low <= 1.0 <= high for _, low, high, _ in map(statistics.mean_interval, draws))
    assert abs(hits - 1900) <= 44


def test_no_interval_from_one_seed_and_nan_is_not_counted() -> None:
    assert statistics.mean_interval([])[3] == 0
    assert math.isnan(statistics.mean_interval([])[0])
    mean, low, high, n = statistics.mean_interval([math.nan, 4.0])
    assert (mean, n) == (4.0, 1)
    assert math.isnan(low) and math.isnan(high)
    assert statistics.mean_interval([1.0, math.nan, 3.0])[:1] == (2.0,)
    assert statistics.mean_interval([2.0, 2.0]) == (2.0, 2.0, 2.0, 2)


def test_bad_values_raise() -> None:
    with pytest.raises(InputError, match="infinite"):
        statistics.mean_interval([1.0, math.inf])
    with pytest.raises(InputError, match="level is 95"):
        statistics.mean_interval([1.0, 2.0], 95)


def test_ratio_by_hand_and_by_scipy() -> None:
    # ratios 2 and 8: geometric mean 4; logs log 2 and log 8 differ from log 4 by log 2: s / sqrt(2) = log 2
    ratio, low, high, n = statistics.paired_ratio([2.0, 8.0], [1.0, 1.0])
    half = stats.t.ppf(0.975, 1) * math.log(2.0)
    assert ratio == pytest.approx(4.0) and n == 2
    assert (low, high) == pytest.approx((4.0 * math.exp(-half), 4.0 * math.exp(half)))
    a, b = [3.0, 4.0, 6.0, 2.5], [1.0, 3.0, 2.0, 2.0]
    expected = stats.ttest_rel(np.log(a), np.log(b)).confidence_interval(0.95)
    assert statistics.paired_ratio(a, b)[1:3] == pytest.approx((math.exp(expected.low), math.exp(expected.high)))


def test_ratio_inverts_when_sides_swap() -> None:
    a, b = [3.0, 4.0, 6.0], [1.0, 3.0, 2.0]
    ratio, low, high, _ = statistics.paired_ratio(a, b)
    assert statistics.paired_ratio(b, a)[:3] == pytest.approx((1 / ratio, 1 / high, 1 / low))


def test_ratio_of_a_zero_has_no_value() -> None:
    result = statistics.paired_ratio([0.0, 2.0], [1.0, 1.0])
    assert math.isnan(result.mean) and math.isnan(result.low) and result.n == 2


def test_pairs_by_seed_ignore_order_and_unpaired() -> None:
    # seeds 1 and 2 are on both sides with values: differences 5 - 1 = 4 and 7 - 1 = 6
    a = pd.Series([7.0, 5.0, 100.0, 9.0], index=[2, 1, 3, 4])
    b = {1: 1.0, 2: 1.0, 4: math.nan, 9: 5.0}
    mean, _, _, n = statistics.paired_difference(a, b)
    assert (mean, n) == (5.0, 2)


def test_pairs_that_do_not_fit_raise() -> None:
    with pytest.raises(InputError, match="2 and 1 values"):
        statistics.paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(InputError, match="keyed by seed"):
        statistics.paired_difference({0: 1.0}, [1.0])
    with pytest.raises(InputError, match="twice"):
        statistics.paired_difference(pd.Series([1.0, 2.0], index=[0, 0]), {0: 1.0})


def test_curve_at_a_budget() -> None:
    # from (100, 1) to (300, 2): at 150 a quarter of the way, 1.25
    frame = pd.DataFrame({"tokens_total": [300, 100, 200], "coverage": [2.0, 1.0, math.nan]})
    assert statistics.at_tokens(frame, "tokens_total", "coverage", 150) == 1.25
    assert statistics.at_tokens(frame, "tokens_total", "coverage", 300) == 2.0
    assert math.isnan(statistics.at_tokens(frame, "tokens_total", "coverage", 301))
    assert math.isnan(statistics.at_tokens(frame, "tokens_total", "coverage", 99))
    assert math.isnan(statistics.at_tokens(frame.iloc[:0], "tokens_total", "coverage", 99))
    with pytest.raises(InputError, match="did you mean 'coverage'"):
        statistics.at_tokens(frame, "tokens_total", "coverag", 1)
    with pytest.raises(InputError, match="twice"):
        statistics.at_tokens(pd.concat([frame, frame]), "tokens_total", "coverage", 1)


def test_summary() -> None:
    table = pd.DataFrame({"arm": ["b", "b", "a"], "seed": [0, 1, 0], "y": [1.0, 3.0, 5.0]})
    result = statistics.summary(table, "y")
    assert result["arm"].tolist() == ["b", "a"]
    assert result["mean"].tolist() == [2.0, 5.0]
    assert result["n"].tolist() == [2, 1]
    assert math.isnan(result["low"][1])
    with pytest.raises(InputError, match="several rows"):
        statistics.summary(pd.concat([table, table]), "y")
    with pytest.raises(InputError, match="no column 'z'"):
        statistics.summary(table, "z")


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((14.71, 13.92, 15.5, 5), "14.7 [13.9, 15.5] (n=5)"),
        ((0.5, 0.25, 0.75, 3), "0.500 [0.250, 0.750] (n=3)"),
        ((1234.5, 1200.0, 1269.0, 3), "1234 [1200, 1269] (n=3)"),
        ((2.0e-7, 1.0e-7, 3.0e-7, 3), "2.00e-07 [1.00e-07, 3.00e-07] (n=3)"),
        ((0.0, 0.0, 0.0, 2), "0.00 [0.00, 0.00] (n=2)"),
        ((14.7, math.nan, math.nan, 1), "14.7 (n=1, no interval)"),
        ((math.nan, math.nan, math.nan, 0), "no value (n=0)"),
    ],
)
def test_text(numbers: tuple[float, float, float, int], expected: str) -> None:
    assert statistics.text(*numbers) == expected


def test_ratio_of_means_by_hand() -> None:
    # a = (4, 6), b = (2, 2): means 5 and 2, ratio 2.5. a - rho b = (4 - 2 rho, 6 - 2 rho): mean 5 - 2 rho, variance 2,
    # standard error sqrt(2 / 2) = 1; t(1, 0.975) = 12.7062: |5 - 2 rho| <= 12.7062, so rho = (5 -+ 12.7062) / 2.
    ratio, low, high, n = statistics.ratio_of_means([4.0, 6.0], [2.0, 2.0])
    assert (ratio, n) == (2.5, 2)
    assert (low, high) == pytest.approx(((5 - 12.70620474) / 2, (5 + 12.70620474) / 2))


def test_ratio_of_means_bounds_are_where_the_paired_t_test_turns() -> None:
    a, b = [4.0, 6.5, 5.0, 7.0], [2.0, 2.2, 1.7, 2.4]
    _, low, high, _ = statistics.ratio_of_means(a, b)
    for bound in (low, high):
        test = stats.ttest_1samp([x - bound * y for x, y in zip(a, b, strict=True)], 0.0)
        assert test.pvalue == pytest.approx(0.05, abs=1e-9)


def test_ratio_of_means_takes_zeros_and_says_where_it_has_no_interval() -> None:
    ratio, low, high, n = statistics.ratio_of_means([0.0, 0.0, 3.0], [2.0, 2.1, 1.9])
    assert ratio == pytest.approx(0.5) and low < 0.5 < high and n == 3
    assert math.isnan(statistics.ratio_of_means([1.0], [2.0]).low)  # one seed
    noisy = statistics.ratio_of_means([1.0, 2.0], [-1.0, 4.0])  # the denominator's mean does not differ from 0
    assert noisy.mean == 1.0 and math.isnan(noisy.low) and math.isnan(noisy.high)
    assert math.isnan(statistics.ratio_of_means([1.0, 2.0], [0.0, 0.0]).mean)


def test_bootstrap_of_two_values_is_one_of_three_means_and_repeats() -> None:
    # Means of resamples of (0, 1): 0 and 1 with probability 1/4 each, else 1/2; so the 2.5 % and 97.5 % points are the ends.
    found = statistics.bootstrap_mean([0.0, 1.0, math.nan], np.random.default_rng(0))
    assert found == (0.5, 0.0, 1.0, 2)
    assert statistics.bootstrap_mean([0.0, 1.0], np.random.default_rng(0), level=0.4) == (0.5, 0.5, 0.5, 2)
    many = np.random.default_rng(1).normal(3.0, 2.0, 400)
    mean, low, high, n = statistics.bootstrap_mean(many, np.random.default_rng(2))
    t = statistics.mean_interval(many)
    assert (mean, n) == (pytest.approx(t.mean), 400) and (low, high) == (
        pytest.approx(t.low, abs=0.02),
        pytest.approx(t.high, abs=0.02),
    )
    assert statistics.bootstrap_mean(many, np.random.default_rng(2)) == (mean, low, high, n)


@pytest.mark.parametrize(("values", "mean"), [([], math.nan), ([2.0], 2.0)])
def test_bootstrap_of_fewer_than_two_values_has_no_interval(values: list[float], mean: float) -> None:
    found = statistics.bootstrap_mean(values, np.random.default_rng(0))
    assert found.n == len(values) and math.isnan(found.low) and math.isnan(found.high)
    assert found.mean == mean or math.isnan(mean)
