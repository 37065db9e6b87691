"""Entropies and surprisal against closed forms, SciPy and torch; groups that teach nothing."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import entropy

from sesa_lab.diversity import (
    exact_measures,
    sequence_entropy,
    surprisal,
    token_entropy,
    zero_variance_fraction,
)


def logprobs(*shape: int) -> np.ndarray:
    p = np.random.default_rng(3).dirichlet(np.ones(shape[-1]), shape[:-1])
    return np.log(p)


def test_token_entropy_of_the_extremes() -> None:
    assert token_entropy(np.full((2, 5, 8), -math.log(8))) == pytest.approx(math.log(8))
    assert token_entropy([[0.0, -np.inf, -np.inf]] * 4) == 0.0
    # One certain token, one of two alike: mean (0 + log 2) / 2.
    assert token_entropy([[0.0, -np.inf], [-math.log(2)] * 2]) == pytest.approx(math.log(2) / 2)


def test_token_entropy_against_scipy_and_a_mask() -> None:
    logp = logprobs(3, 4, 7)
    each = entropy(np.exp(logp), axis=-1)
    assert token_entropy(logp) == pytest.approx(each.mean())
    mask = np.arange(12).reshape(3, 4) % 3 == 0
    assert token_entropy(logp, mask) == pytest.approx(each[mask].mean())
    padded = np.where(mask[..., None], logp, np.nan)  # what does not count may be anything
    assert token_entropy(padded, mask) == token_entropy(logp, mask)


def test_token_entropy_of_nothing() -> None:
    assert math.isnan(token_entropy(logprobs(2, 3), [False, False]))
    assert math.isnan(token_entropy(np.zeros((0, 5))))


def test_token_entropy_errors() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3,\)"):
        token_entropy(logprobs(2, 3), [True] * 3)
    with pytest.raises(ValueError, match="sum off by"):
        token_entropy([[-1.0, -2.0, -3.0]])  # log-probs of three sampled tokens, not of one place
    with pytest.raises(ValueError, match="sum off by nan"):
        token_entropy([[math.nan, 0.0]])


def test_sequence_entropy() -> None:
    assert sequence_entropy([0.25] * 4) == pytest.approx(math.log(4))
    assert sequence_entropy([1.0, 0.0]) == 0.0
    p = [0.5, 0.3, 0.2]
    assert sequence_entropy(p) == pytest.approx(entropy(p))
    assert sequence_entropy(p) == pytest.approx(exact_measures(p, [True] * 3, 1).entropy)
    assert math.isnan(sequence_entropy([]))


def test_sequence_entropy_is_the_sum_over_tokens() -> None:
    # Two independent tokens: the entropy of the pair is the sum of both.
    first, second = [0.7, 0.3], [0.2, 0.5, 0.3]
    pairs = [a * b for a, b in itertools.product(first, second)]
    assert sequence_entropy(pairs) == pytest.approx(entropy(first) + entropy(second))


@pytest.mark.parametrize("probability", [[0.5, 0.3], [0.9, 0.9], [1.1, -0.1], [math.nan], [[0.5, 0.5]]])
def test_sequence_entropy_errors(probability: list) -> None:
    with pytest.raises(ValueError, match="expected"):
        sequence_entropy(probability)


def test_surprisal_by_hand() -> None:
    assert surprisal([-1.0, -3.0]) == 2.0
    assert surprisal([-1.0, -3.0], tokens=[1, 7]) == 0.5  # 4 nats over 8 tokens
    assert surprisal([0.0, 0.0]) == 0.0
    assert surprisal([-1.0, -np.inf]) == math.inf
    assert math.isnan(surprisal([])) and math.isnan(surprisal([0.0], tokens=[0])) and math.isnan(surprisal([np.nan]))
    assert surprisal([1e-7]) == 0.0  # rounding


def test_surprisal_is_unbiased_for_the_entropy() -> None:
    # Over all pairs of samples from p, the mean surprisal of a pair is p's entropy.
    p = np.array([0.5, 0.3, 0.2])
    mean = sum(p[a] * p[b] * surprisal(np.log(p[[a, b]])) for a, b in itertools.product(range(3), repeat=2))
    assert mean == pytest.approx(sequence_entropy(p))


def test_surprisal_errors() -> None:
    with pytest.raises(ValueError, match=r"largest 0\.5"):
        surprisal([0.5])
    with pytest.raises(ValueError, match=r"\(1,\) and \(2,\)"):
        surprisal([-1.0, -1.0], tokens=[3])


def test_zero_variance_fraction() -> None:
    assert zero_variance_fraction([[1, 1], [0, 0, 0], [0, 1], [0.5]]) == 0.75
    assert zero_variance_fraction(np.zeros((3, 4))) == 1.0
    assert zero_variance_fraction([[0.0, 1e-12]]) == 0.0  # no tolerance
    assert zero_variance_fraction([[], [math.nan, 1.0], [0.0, 1.0]]) == 0.0
    assert math.isnan(zero_variance_fraction([])) and math.isnan(zero_variance_fraction([[], [math.nan]]))
