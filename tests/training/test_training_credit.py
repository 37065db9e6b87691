"""Credit by hand."""

from __future__ import annotations

import math

import pytest

from sesa_lab.training.credit import advantages, credited
from sesa_lab.types import Score


def scores(*pairs: tuple[float, str | None]) -> list[Score]:
    return [Score(reward, reward > 0, strategy) for reward, strategy in pairs]


def test_repeats_earn_again_or_nothing() -> None:
    group = scores((1.0, "a"), (0.5, "b"), (1.0, "a"), (0.5, "b"), (0.25, "c"))
    assert credited(group, "count") == [1.0, 0.5, 1.0, 0.5, 0.25]
    assert credited(group, "zero") == [1.0, 0.5, 0.0, 0.0, 0.25]


def test_a_repeat_is_of_any_earlier_strategy_also_of_an_unpaid_one() -> None:
    # "a" fails first (reward 0) and comes again with a reward: the strategy was taken already, whatever it earned.
    assert credited(scores((0.0, "a"), (1.0, "a"), (1.0, "a")), "zero") == [0.0, 0.0, 0.0]


def test_unreadable_answers_repeat_nothing() -> None:
    group = scores((-0.1, None), (-0.1, None), (1.0, "a"), (-0.1, None), (1.0, "a"))
    assert credited(group, "zero") == [-0.1, -0.1, 1.0, -0.1, 0.0]


def test_a_negative_reward_of_a_repeat_becomes_zero_too() -> None:
    assert credited(scores((-1.0, "a"), (-1.0, "a")), "zero") == [-1.0, 0.0]


def test_advantages_by_hand() -> None:
    # mean 1; deviations -1, -1, 2; squares 1 + 1 + 4 = 6; sample variance 6 / (3 - 1) = 3.
    expected = [-1 / (math.sqrt(3) + 1e-6), -1 / (math.sqrt(3) + 1e-6), 2 / (math.sqrt(3) + 1e-6)]
    assert advantages([0.0, 0.0, 3.0], "std") == pytest.approx(expected, rel=1e-12)
    assert advantages([0.0, 0.0, 3.0], "mean") == [-1.0, -1.0, 2.0]
    # mean 2, deviations -1 and 1, sample variance 2.
    assert advantages([1.0, 3.0], "std") == pytest.approx([-1 / (2**0.5 + 1e-6), 1 / (2**0.5 + 1e-6)], rel=1e-12)


@pytest.mark.parametrize("normalise", ["std", "mean"])
@pytest.mark.parametrize(
    "rewards",
    [
        [1.0] * 4,
        [0.0] * 7,
        [0.1] * 3,  # 0.1 + 0.1 + 0.1 is not 3 * 0.1 in floating point: the deviations are not exactly 0
        [0.7] * 10,
        [1e6] * 5,
        [-0.3],
    ],
)
def test_no_differences_give_exactly_zero(rewards: list[float], normalise: str) -> None:
    assert advantages(rewards, normalise) == [0.0] * len(rewards)


def test_advantages_are_plain_floats_that_sum_to_zero() -> None:
    found = advantages([0.3, 1.0, 0.0, 0.0, 2.5], "std")
    assert [type(a) for a in found] == [float] * 5
    assert sum(found) == pytest.approx(0.0, abs=1e-12)
    # Of (r - mean) / s the sample variance is 1; the 1e-6 in the denominator shrinks it by about 2e-6.
    assert sum(a * a for a in found) / 4 == pytest.approx(1.0, abs=1e-5)


def test_scale_and_shift_of_rewards_do_not_matter_under_std() -> None:
    rewards = [0.0, 1.0, 1.0, 0.0, 0.5]
    assert advantages([7 + 3 * r for r in rewards], "std") == pytest.approx(advantages(rewards, "std"), abs=1e-5)
