"""Streams are named: distinct places never share one, and no draw depends on what was drawn before."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesa_lab.seeding import PURPOSES, stream, torch_seed

POSITIONS = st.lists(st.integers(0, 2**32 - 1), max_size=4).map(tuple)
PLACES = st.tuples(st.integers(0, 2**32 - 1), st.sampled_from(sorted(PURPOSES)), POSITIONS)


def first(seed: int, purpose: str, *position: int) -> int:
    """The first 64 bits of a stream. Two of n streams agree by chance with probability < n^2 / 2^65."""
    return int(stream(seed, purpose, *position).integers(0, 2**64, dtype=np.uint64))


def test_ids_are_fixed() -> None:
    # A change here changes every run ever made: add purposes, never renumber them.
    known = {"environment": 1, "tasks": 2, "sampling": 3, "evaluation": 4}
    known |= {"lora": 5, "minibatches": 6, "pretrain": 7, "bootstrap": 8}
    assert {name: PURPOSES[name] for name in known} == known
    assert len(set(PURPOSES.values())) == len(PURPOSES)
    assert all(isinstance(value, int) and value > 0 for value in PURPOSES.values())


def test_golden_values() -> None:
    # What numpy's SeedSequence and PCG64 give for these words. Both are specified and kept stable by numpy
    # (NEP 19), so a change means that the words changed.
    assert first(0, "environment") == 0xE3C5EBE285AC1625
    assert first(0, "tasks", 0) == 0x84DCBE33F7B64E86
    assert first(1, "sampling", 3, 2, 1) == 0x852B94F356C2AD64
    assert first(4294967295, "bootstrap", 7) == 0xAA85556475720837
    assert torch_seed(0, "evaluation", 5) == 6141381810009453598
    assert stream(0, "tasks", 1).random(2).tolist() == [0.9849855852445146, 0.7844414079150019]


def test_neighbouring_places_never_share_a_stream() -> None:
    # 3 seeds x 8 purposes x (1 + 6 + 36 + 36 positions) = 1896 places (more with more purposes); a chance
    # collision has probability < 1896^2 / 2^65 = 1e-13. `seed + i` schemes fail here at once.
    positions = [(), *itertools.product(range(6)), *itertools.product(range(6), repeat=2)]
    positions += [(step, group, 0) for step, group in itertools.product(range(6), repeat=2)]
    places = [(seed, name, *at) for seed in (0, 1, 2) for name in PURPOSES for at in positions]
    draws = {first(*place) for place in places}
    assert len(draws) == len(places)
    assert len({torch_seed(*place) for place in places}) == len(places)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((0, "tasks"), (0, "tasks", 0)),  # SeedSequence pads with zeros: the length is a word for that reason
        ((0, "tasks", 0), (0, "tasks", 0, 0)),
        ((0, "tasks", 1, 2), (0, "tasks", 2, 1)),
        ((0, "tasks", 1), (1, "tasks", 0)),
        ((1, "tasks"), (2, "environment")),
    ],
)
def test_places_that_careless_mixing_confuses(one: tuple, other: tuple) -> None:
    assert first(*one) != first(*other)


@given(one=PLACES, other=PLACES)
def test_equal_draws_mean_equal_places(one: tuple, other: tuple) -> None:
    (a, p, at), (b, q, bt) = one, other
    assert (first(a, p, *at) == first(b, q, *bt)) == (one == other)


@given(places=st.lists(PLACES, min_size=1, max_size=5, unique=True), draws=st.integers(0, 50))
def test_a_stream_does_not_depend_on_what_was_drawn_before(places: list, draws: int) -> None:
    forward = [stream(seed, name, *at).random(3).tolist() for seed, name, at in places]
    backward = []
    for seed, name, at in reversed(places):
        stream(seed, name, *at).random(draws)  # another reader of the same stream takes nothing away
        backward.append(stream(seed, name, *at).random(3).tolist())
    assert forward == backward[::-1]


def test_the_global_generators_are_left_alone() -> None:
    import random

    import torch

    random.seed(1)
    torch.manual_seed(1)
    before = random.getstate(), torch.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002
    stream(0, "sampling", 1, 2).random(100)
    torch_seed(0, "sampling", 1, 2)
    assert before[0] == random.getstate()
    assert torch.equal(before[1], torch.get_rng_state())
    assert before[2] == repr(np.random.get_state())  # noqa: NPY002


@given(place=PLACES)
def test_torch_takes_every_seed(place: tuple) -> None:
    import torch

    seed, name, at = place
    value = torch_seed(seed, name, *at)
    assert 0 <= value < 2**63 - 1
    assert torch.Generator().manual_seed(value).initial_seed() == value


def test_streams_of_neighbouring_rows_are_unrelated() -> None:
    # 200 rows of 50 uniforms: the correlation of neighbouring rows' first draws is N(0, 1/sqrt(199)); 5 sigma is a
    # false alarm of 6e-7, fixed for ever by the seed.
    rows = np.array([stream(0, "sampling", 1, row).random(50) for row in range(200)])
    correlation = np.corrcoef(rows[:-1].ravel(), rows[1:].ravel())[0, 1]
    assert abs(correlation) < 5 / np.sqrt(199 * 50)
    assert abs(rows.mean() - 0.5) < 5 * np.sqrt(1 / 12 / rows.size)


@pytest.mark.parametrize(("seed", "position"), [(-1, ()), (0, (-1,))])
def test_negative_words_are_refused(seed: int, position: tuple) -> None:
    with pytest.raises(ValueError):
        stream(seed, "tasks", *position)


def test_an_unknown_purpose_is_a_bug() -> None:
    with pytest.raises(KeyError):
        stream(0, "smapling")
