"""Estimates from samples against enumeration of subsets and of all possible samples."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import entropy

from sesa_lab.diversity import (
    coverage_at_k,
    duplicate_rate,
    effective_number_of,
    effective_sample_size,
    exact_measures,
    pass_at_k,
)


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_pass_at_k_is_the_share_of_subsets_with_a_success(n: int) -> None:
    for successes, k in itertools.product(range(n + 1), range(1, n + 1)):
        subsets = list(itertools.combinations([True] * successes + [False] * (n - successes), k))
        expected = sum(map(any, subsets)) / len(subsets)
        assert pass_at_k(n, successes, k) == pytest.approx(expected, abs=1e-12)


def test_pass_at_k_by_hand() -> None:
    # 4 samples, 1 success, k = 2: 3 of the 6 pairs hold it.
    assert pass_at_k(4, 1, 2) == pytest.approx(0.5)
    assert pass_at_k(4, 1, 1) == pytest.approx(0.25)
    assert pass_at_k(4, 1, 4) == 1.0


@pytest.mark.parametrize("n", [3, 64, 1000, 10**6])
def test_pass_at_k_is_exact_at_its_ends(n: int) -> None:
    for k in (1, 2, 3):
        assert pass_at_k(n, 0, k) == 0.0
        assert pass_at_k(n, n, k) == 1.0
        assert pass_at_k(n, n // 3, 1) == pytest.approx((n // 3) / n, rel=1e-9)


def test_pass_at_k_of_many_samples_against_whole_numbers() -> None:
    for n, successes, k in [(1000, 3, 100), (5000, 40, 64), (20_000, 1, 500)]:
        exact = 1 - Fraction(math.comb(n - successes, k), math.comb(n, k))
        assert pass_at_k(n, successes, k) == pytest.approx(float(exact), rel=1e-9)


def test_pass_at_k_is_unbiased() -> None:
    # Over every outcome of n = 6 samples that succeed with 0.3 each, the mean estimate is 1 - 0.7^k.
    n, p = 6, 0.3
    for k in range(1, n + 1):
        mean = sum(math.comb(n, c) * p**c * (1 - p) ** (n - c) * pass_at_k(n, c, k) for c in range(n + 1))
        assert mean == pytest.approx(1 - 0.7**k, rel=1e-12)


def test_more_than_was_sampled_cannot_be_estimated() -> None:
    assert math.isnan(pass_at_k(4, 2, 5))
    assert math.isnan(coverage_at_k(["a", "b"], 3))
    assert math.isnan(coverage_at_k([], 1))


@pytest.mark.parametrize(("n", "successes", "k"), [(4, 2, 0), (4, 5, 2), (4, -1, 2)])
def test_pass_at_k_errors(n: int, successes: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"n = {n}, successes = {successes}, k = {k}"):
        pass_at_k(n, successes, k)


def test_coverage_at_k_errors() -> None:
    with pytest.raises(ValueError, match="got 0"):
        coverage_at_k(["a"], 0)


@pytest.mark.parametrize(
    "strategies",
    [
        ["a", "b", "c"],
        ["a", "a", "a", "a"],
        ["a", "b", None, "a", None, "c", "b"],
        [None, None],
        [("a", 1), ("a", 2), None],
    ],
)
def test_coverage_at_k_is_the_mean_over_subsets(strategies: list[str | None]) -> None:
    for k in range(1, len(strategies) + 1):
        subsets = list(itertools.combinations(strategies, k))
        expected = sum(len(set(subset) - {None}) for subset in subsets) / len(subsets)
        assert coverage_at_k(strategies, k) == pytest.approx(expected, abs=1e-12)


def test_coverage_at_k_is_unbiased() -> None:
    """Over all 4^5 possible samples of size 5, the mean estimate is the exact expectation of coverage at each k."""
    probability, n = {"a": 0.5, "b": 0.2, "c": 0.1, None: 0.2}, 5
    valid = [p for strategy, p in probability.items() if strategy is not None]
    samples = list(itertools.product(probability, repeat=n))
    chances = [math.prod(probability[s] for s in sample) for sample in samples]
    for k in range(1, n + 1):
        mean = sum(chance * coverage_at_k(sample, k) for chance, sample in zip(chances, samples, strict=True))
        assert mean == pytest.approx(exact_measures(valid, [True] * 3, k).coverage, rel=1e-12)


def test_coverage_of_one_strategy_is_pass_at_k() -> None:
    strategies = ["a"] * 3 + [None] * 5
    assert [coverage_at_k(strategies, k) for k in range(1, 9)] == [pass_at_k(8, 3, k) for k in range(1, 9)]


def test_duplicate_rate() -> None:
    assert duplicate_rate(["a", "b", "c"]) == 0.0
    assert duplicate_rate(["a", "a", "b", None]) == pytest.approx(1 / 3)  # three valid, two distinct
    assert duplicate_rate(["a"] * 4) == 0.75
    assert math.isnan(duplicate_rate([None, None]))
    assert math.isnan(duplicate_rate([]))


def test_effective_number_by_hand() -> None:
    assert effective_number_of([1.0]) == effective_number_of([7, 0, 0]) == 1.0  # all alike
    for k in (2, 3, 64, 1000):
        assert effective_number_of([3.0] * k) == pytest.approx(k, rel=1e-12)
    # shares 1/2, 1/4, 1/4: entropy 1/2 ln 2 + 2 x 1/4 ln 4 = 3/2 ln 2
    assert effective_number_of([2, 1, 1]) == pytest.approx(2**1.5, rel=1e-12)
    assert effective_number_of([]) == effective_number_of([0.0, 0.0]) == 0.0
    assert type(effective_number_of([1, 2])) is float


def test_effective_number_is_exp_of_the_entropy_of_shares() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        weights = generator.random(int(generator.integers(1, 20))) * (generator.random() < 0.9)
        weights *= generator.random(len(weights)) < 0.7
        expected = np.exp(entropy(weights)) if weights.any() else 0.0  # scipy makes shares of them too
        assert effective_number_of(weights) == pytest.approx(expected, rel=1e-12)
        for scale in (1e-9, 1e9):
            assert effective_number_of(weights * scale) == pytest.approx(expected, rel=1e-9)
        assert effective_number_of(generator.permutation(weights)) == pytest.approx(expected, rel=1e-12)
        assert expected <= np.count_nonzero(weights) + 1e-9, "never more than there are"


def test_effective_sample_size() -> None:
    assert effective_sample_size([2.0] * 5) == pytest.approx(1.0)
    assert effective_sample_size([0.0, 7.0, 0.0, 0.0]) == pytest.approx(1 / 4)
    assert effective_sample_size([1.0, 3.0]) == pytest.approx(0.8)  # 4^2 / (2 (1 + 9))
    assert effective_sample_size([1e-3, 3e-3]) == pytest.approx(0.8)  # the scale does not matter
    assert math.isnan(effective_sample_size([]))
    assert math.isnan(effective_sample_size([0.0, 0.0]))
