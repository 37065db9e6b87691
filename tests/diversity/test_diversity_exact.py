"""Exact measures against closed forms and against every possible sequence of samples."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from sesa_lab.diversity import exact_measures


def test_uniform() -> None:
    # Four answers of 1/4, two of them successes; k = 3: each success is seen with 1 - (3/4)^3 = 37/64.
    found = exact_measures([0.25] * 4, [True, False, True, False], 3)
    assert found.accuracy == pytest.approx(0.5)
    assert found.coverage == pytest.approx(2 * 37 / 64)
    assert found.entropy == pytest.approx(math.log(4))
    assert found.valid_mass == pytest.approx(1.0)
    assert found.kl_uniform == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("k", [1, 2, 1000])
def test_all_on_one_success(k: int) -> None:
    found = exact_measures([0.0, 1.0, 0.0], [True, True, False], k)
    assert found.accuracy == found.coverage == found.valid_mass == 1.0
    assert found.entropy == 0.0
    assert found.kl_uniform == math.inf  # the other success has probability 0


def test_all_on_the_only_success() -> None:
    found = exact_measures([0.0, 1.0], [False, True], 5)
    assert found.kl_uniform == 0.0  # uniform over one answer is what the policy does


def test_all_on_a_failure() -> None:
    found = exact_measures([1.0, 0.0], [False, True], 5)
    assert (found.accuracy, found.coverage, found.valid_mass) == (0.0, 0.0, 1.0)
    assert math.isnan(found.kl_uniform)


def test_no_success_at_all() -> None:
    found = exact_measures([0.3, 0.6], [False, False], 5)
    assert (found.accuracy, found.coverage) == (0.0, 0.0)
    assert found.valid_mass == pytest.approx(0.9)
    assert found.entropy == pytest.approx(-(1 / 3) * math.log(1 / 3) - (2 / 3) * math.log(2 / 3))  # renormalised
    assert math.isnan(found.kl_uniform)


def test_nothing_valid() -> None:
    found = exact_measures([0.0, 0.0], [True, False], 5)
    assert (found.accuracy, found.coverage, found.valid_mass) == (0.0, 0.0, 0.0)
    assert math.isnan(found.entropy) and math.isnan(found.kl_uniform)


def test_distance_from_uniform_by_hand() -> None:
    # Successes 0.3 and 0.1, restricted: 3/4 and 1/4. KL(1/2, 1/2 || 3/4, 1/4) = 1/2 log(2/3) + 1/2 log 2 = 1/2 log 4/3.
    found = exact_measures([0.3, 0.5, 0.1], [True, False, True], 1)
    assert found.kl_uniform == pytest.approx(0.5 * math.log(4 / 3))
    assert found.coverage == pytest.approx(found.accuracy)  # one sample finds at most one


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_coverage_against_every_sequence_of_samples(k: int) -> None:
    probability = np.array([0.4, 0.25, 0.2, 0.1])  # the missing 0.05 is invalid: one outcome more
    success = [True, False, True, True]
    outcomes = [*probability, 0.05]
    expected = 0.0
    for sequence in itertools.product(range(5), repeat=k):
        distinct = {a for a in sequence if a < 4 and success[a]}
        expected += math.prod(outcomes[a] for a in sequence) * len(distinct)
    assert exact_measures(probability, success, k).coverage == pytest.approx(expected, rel=1e-12)


def test_tiny_probabilities_are_not_rounded_away() -> None:
    # 1 - (1 - p)^k is k p for p far below 1/k; 1 - 1e-18 is 1 in floating point.
    assert exact_measures([1e-18], [True], 1000).coverage == pytest.approx(1e-15, rel=1e-9)


def test_coverage_grows_to_all_successes() -> None:
    values = [exact_measures([0.5, 0.3, 0.2], [True, True, False], k).coverage for k in (1, 2, 5, 20, 200)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(2.0)


def test_rounding_above_one_is_taken() -> None:
    found = exact_measures([1.0 + 5e-7, 0.0], [True, False], 3)
    assert found.coverage == 1.0


@pytest.mark.parametrize(
    ("probability", "success", "k", "message"),
    [
        ([0.5, 0.5], [True], 1, r"shapes \(2,\) and \(1,\)"),
        ([[0.5, 0.5]], [[True, False]], 1, r"shapes \(1, 2\)"),
        ([0.5, 0.5], [True, False], 0, "k = 0"),
        ([-0.1, 0.5], [True, False], 1, "probabilities >= 0"),
        ([0.8, 0.3], [True, False], 1, r"sum = 1\.1"),
    ],
)
def test_errors(probability: list[float], success: list[bool], k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        exact_measures(probability, success, k)
