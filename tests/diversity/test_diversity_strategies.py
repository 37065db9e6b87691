"""Measures on strategies against closed forms, hand-derived cases and enumeration of all samples."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesa_lab.diversity import (
    coverage_at_k,
    distinct,
    effective_number_of,
    hill_number,
    novelty_by_index,
    richness,
    saturation,
    strategy_counts,
    unseen_mass,
)

DRAWN = ["a", "b", None, "a", "c", "b", "a"]


def test_distinct() -> None:
    assert distinct(DRAWN) == 3
    assert distinct(DRAWN, [True, False, True, True, False, False, True]) == 1  # only "a" was ever correct
    assert distinct(DRAWN, [False] * 7) == 0
    assert distinct([]) == distinct([None, None]) == 0
    assert distinct([("a", 1), ("a", 2), 3]) == 3
    assert distinct(DRAWN) == coverage_at_k(DRAWN, len(DRAWN))


def test_counts() -> None:
    assert strategy_counts(DRAWN).tolist() == [3, 2, 1]
    assert strategy_counts(DRAWN, [True, True, True, True, False, True, False]).tolist() == [2, 2]
    assert strategy_counts([]).shape == (0,)
    with pytest.raises(ValueError, match="got 2 for 7 samples"):
        distinct(DRAWN, [True, False])


def test_hill_numbers_by_hand() -> None:
    # Shares 1/2, 1/4, 1/4: order 0: 3; order 1: exp(1/2 log 2 + 1/2 log 4) = 2^1.5; order 2: 1 / (1/4 + 2/16) = 8/3;
    # order 3: (1/8 + 2/64)^(1 / -2) = sqrt(32/5); infinite: 1 / (1/2).
    for order, expected in [(0, 3.0), (1, 2**1.5), (2, 8 / 3), (3, math.sqrt(32 / 5)), (math.inf, 2.0)]:
        assert hill_number([4, 2, 2], order) == pytest.approx(expected, rel=1e-12)
    assert hill_number([4, 2, 2], 1) == effective_number_of([4, 2, 2])


@pytest.mark.parametrize("order", [0, 0.5, 1, 1.5, 2, 10, 1000, math.inf])
def test_hill_numbers_of_the_extremes(order: float) -> None:
    assert hill_number([7], order) == hill_number([7, 0, 0], order) == pytest.approx(1.0)
    assert hill_number([3] * 6, order) == pytest.approx(6.0)
    assert hill_number([], order) == hill_number([0, 0], order) == 0.0


def test_orders_near_one_approach_the_entropy() -> None:
    counts = [5, 3, 1, 1]
    assert hill_number(counts, 1 - 1e-7) == pytest.approx(hill_number(counts, 1), rel=1e-6)
    assert hill_number(counts, 1 + 1e-7) == pytest.approx(hill_number(counts, 1), rel=1e-6)


def test_order_two_is_the_inverse_chance_that_two_agree() -> None:
    counts = [5, 3, 1]
    samples = np.repeat(range(3), counts)
    agree = np.mean([a == b for a, b in itertools.product(samples, samples)])
    assert hill_number(counts, 2) == pytest.approx(1 / agree)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12).filter(any), st.randoms(use_true_random=False))
def test_hill_numbers_fall_with_the_order_and_know_no_order_of_strategies(counts: list[int], shuffle: object) -> None:
    values = [hill_number(counts, order) for order in (0, 0.5, 1, 2, 5, math.inf)]
    assert all(a >= b - 1e-9 for a, b in itertools.pairwise(values))
    assert values[0] == pytest.approx(np.count_nonzero(counts))
    moved = list(counts)
    shuffle.shuffle(moved)
    assert [hill_number(moved, order) for order in (0, 0.5, 1, 2, 5, math.inf)] == pytest.approx(values)
    assert unseen_mass(moved) == unseen_mass(counts) and richness(moved) == richness(counts)


def test_unseen_mass_by_hand() -> None:
    assert unseen_mass([3, 2, 1, 1, 0]) == pytest.approx(2 / 7)
    assert unseen_mass([2, 2]) == 0.0
    assert unseen_mass([1] * 9) == 1.0
    assert math.isnan(unseen_mass([])) and math.isnan(unseen_mass([0]))


@pytest.mark.parametrize("n", [1, 2, 4, 6])
def test_unseen_mass_is_unbiased_for_one_sample_less(n: int) -> None:
    # Over all 3^n samples, the mean of f1 / n is the probability that the n-th strategy is new: sum p (1 - p)^(n - 1).
    p = [0.6, 0.3, 0.1]
    mean = sum(
        math.prod(p[s] for s in sample) * unseen_mass(list(Counter(sample).values()))
        for sample in itertools.product(range(3), repeat=n)
    )
    assert mean == pytest.approx(sum(each * (1 - each) ** (n - 1) for each in p), rel=1e-12)


def test_richness_by_hand() -> None:
    assert richness([4, 2, 2, 1, 1, 1]) == pytest.approx(6 + 3 * 2 / (2 * 3))  # f1 = 3, f2 = 2
    assert richness([4, 2, 2]) == richness([4, 2, 2, 0]) == 3.0
    assert richness([9]) == richness([1]) == 1.0
    assert richness([1] * 5) == 15.0  # 5 * 6 / 2
    assert math.isnan(richness([])) and math.isnan(richness([0]))


@pytest.mark.parametrize(
    ("p", "n"), [([0.25] * 4, 3), ([0.25] * 4, 6), ([1 / 3] * 3, 7), ([0.7, 0.1, 0.1, 0.1], 5), ([0.5, 0.5], 2)]
)
def test_richness_is_a_lower_bound_on_average(p: list[float], n: int) -> None:
    seen = mean = 0.0
    for sample in itertools.product(range(len(p)), repeat=n):
        chance, counts = math.prod(p[s] for s in sample), list(Counter(sample).values())
        mean += chance * richness(counts)
        seen += chance * len(counts)
    assert seen < mean <= len(p) + 1e-9


def test_novelty_by_index_by_hand() -> None:
    groups = [["a", "b", "a", "c"], ["a", "a", "b"], [None, "a", None, "b"]]
    # First drafts: new in 2 of 3 (the third group's is unreadable); second: b, -, a; third: -, b, -; fourth: c, b of 2.
    assert novelty_by_index(groups).tolist() == pytest.approx([2 / 3, 2 / 3, 1 / 3, 1.0])
    assert novelty_by_index([["a"] * 3, ["b"] * 3]).tolist() == [1.0, 0.0, 0.0]
    assert novelty_by_index([["a", "b", "c"], [1, 2, 3]]).tolist() == [1.0, 1.0, 1.0]
    assert novelty_by_index([]).shape == novelty_by_index([[], []]).shape == (0,)


@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=6), max_size=6),
    st.randoms(use_true_random=False),
)
def test_novelty_sums_to_distinct_and_knows_no_order_of_groups(groups: list[list[str | None]], shuffle: object) -> None:
    found = novelty_by_index(groups)
    drafted = [sum(len(group) > i for group in groups) for i in range(len(found))]
    assert float(found @ drafted) == pytest.approx(sum(map(distinct, groups)))
    moved = list(groups)
    shuffle.shuffle(moved)
    assert novelty_by_index(moved).tolist() == found.tolist()


def test_saturation() -> None:
    assert saturation([1.0, 0.8, 0.4, 0.6, 0.2, 0.1]) == 4.0  # the fourth is the last that reaches one half
    assert saturation([1.0, 0.8, 0.4, 0.6, 0.2, 0.1], share=0.7) == 2.0
    assert saturation([1.0, 0.0, 0.0]) == 1.0
    assert saturation([0.3, 0.1]) == 0.0
    assert saturation([1.0, 1.0]) == math.inf  # not within what was drawn
    assert math.isnan(saturation([]))


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, math.nan])
def test_saturation_errors(share: float) -> None:
    with pytest.raises(ValueError, match="share in"):
        saturation([1.0], share)


@pytest.mark.parametrize("counts", [[-1, 2], [[1, 2]], [math.nan], [math.inf]])
def test_errors_of_counts(counts: list) -> None:
    for measure in (unseen_mass, richness, lambda c: hill_number(c, 2)):
        with pytest.raises(ValueError, match="vector of counts"):
            measure(counts)


def test_shares_are_no_counts() -> None:
    for measure in (unseen_mass, richness):
        with pytest.raises(ValueError, match="whole numbers"):
            measure([0.5, 0.5])
    with pytest.raises(ValueError, match="order >= 0"):
        hill_number([1], -1)
    assert hill_number([0.5, 0.5], 2) == pytest.approx(2.0)
