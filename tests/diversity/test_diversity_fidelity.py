"""Fidelity of solutions to sketches: hand-derived values, scikit-learn, all pairings enumerated, and what order must not change."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, mutual_info_score
from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

from sesa_lab.diversity import fidelity as f

# Sketches a, a, b, c and solutions a, b, b, a: the first and the third follow.
SKETCHES, SOLUTIONS = list("aabc"), list("abba")
MEASURES = (
    f.follow_rate, f.chance_rate, f.kappa, f.information, f.expected_information, f.excess_information,
    f.paraphrase_share,
)  # fmt: skip
METHODS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcd")), min_size=1, max_size=12)


def test_by_hand() -> None:
    assert f.follow_rate(SKETCHES, SOLUTIONS) == 2 / 4
    # a: 2 sketches x 2 solutions, b: 1 x 2, c: 1 x 0; over 16
    assert f.chance_rate(SKETCHES, SOLUTIONS) == 6 / 16
    assert f.kappa(SKETCHES, SOLUTIONS) == pytest.approx((1 / 2 - 3 / 8) / (1 - 3 / 8))
    # Cells aa, ab, bb, ca hold 1 of 4 each; log(n n_kl / (a_k b_l)): log 1, log 1, log 2, log 2
    assert f.information(SKETCHES, SOLUTIONS) == pytest.approx(math.log(2) / 2)
    # All pairs but the first two have other sketches; of these five the first and last (a) and the middle two (b) agree.
    assert f.paraphrase_share(SKETCHES, SOLUTIONS) == 2 / 5
    assert f.unread(["a", None, None, "b"]) == 0.5


def test_extremes() -> None:
    assert f.follow_rate("abc", "abc") == f.kappa("abc", "abc") == 1.0
    assert f.follow_rate("ab", "ba") == 0.0 and f.kappa("ab", "ba") == -1.0  # chance 1/2
    assert f.follow_rate("aa", "aa") == f.chance_rate("aa", "aa") == 1.0 and math.isnan(f.kappa("aa", "aa"))
    # Another method than named, but the same for each: nothing is followed, all is told.
    assert f.follow_rate("aabb", "ccdd") == 0.0 and f.information("aabb", "ccdd") == pytest.approx(math.log(2))
    # No two pairs share a method: any pairing tells as much.
    assert f.information("abcd", "abcd") == pytest.approx(math.log(4))
    assert f.excess_information("abcd", "abcd") == pytest.approx(0.0, abs=1e-12)
    assert f.expected_information("aaaa", "abcd") == 0.0 == f.information("aaaa", "abcd")
    assert f.paraphrase_share("abc", "xxx") == 1.0 and f.paraphrase_share("abc", "xyz") == 0.0


def test_undefined_is_nan() -> None:
    for measure in MEASURES:
        assert math.isnan(measure([], [])) and math.isnan(measure([None, "a"], ["a", None])), measure.__name__
    assert math.isnan(f.unread([])) and math.isnan(f.paraphrase_share("aa", "xy"))


@pytest.mark.parametrize("measure", MEASURES)
def test_unequal_lengths_are_refused(measure: Callable[..., float]) -> None:
    with pytest.raises(ValueError, match="expected one sketch a solution, got 1 sketches for 2 solutions"):
        measure(["a"], ["a", "b"])


@given(METHODS)
def test_agrees_with_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    sketches, solutions = zip(*pairs, strict=True)
    assert f.information(sketches, solutions) == pytest.approx(mutual_info_score(sketches, solutions), abs=1e-12)
    table = contingency_matrix(sketches, solutions, sparse=True)
    expected = expected_mutual_information(table, len(pairs))
    assert f.expected_information(sketches, solutions) == pytest.approx(expected, abs=1e-9)
    if f.chance_rate(sketches, solutions) < 1.0:
        assert f.kappa(sketches, solutions) == pytest.approx(cohen_kappa_score(sketches, solutions), abs=1e-12)


@given(METHODS, st.randoms(use_true_random=False))
def test_order_and_what_cannot_be_read_make_no_difference(pairs: list[tuple[str, str]], random: Random) -> None:
    mixed = [*pairs, (None, "a"), ("a", None), (None, None)]
    random.shuffle(mixed)
    for measure in MEASURES:
        one, other = measure(*zip(*pairs, strict=True)), measure(*zip(*mixed, strict=True))
        assert one == pytest.approx(other, abs=1e-12, nan_ok=True), measure.__name__


@pytest.mark.parametrize(("sketches", "solutions"), [("aabc", "abba"), ("abcde", "aabbc"), ("aaabb", "xyxyx")])
def test_chance_is_the_mean_over_all_pairings(sketches: str, solutions: str) -> None:
    """All n! pairings, not a sample of them."""
    paired = list(itertools.permutations(solutions))
    rates = [f.follow_rate(sketches, order) for order in paired]
    told = [f.information(sketches, order) for order in paired]
    assert f.chance_rate(sketches, solutions) == pytest.approx(np.mean(rates))
    assert f.expected_information(sketches, solutions) == pytest.approx(np.mean(told))


def test_one_that_never_looks_at_the_sketch_has_what_chance_gives() -> None:
    """4,000 tasks of 8 solutions drawn without the sketch: the mean excess is 0 but for 4 standard errors (1 in 16,000)."""
    rng = np.random.default_rng(5)
    sketches = rng.choice(list("abcd"), (4000, 8), p=[0.5, 0.3, 0.1, 0.1]).tolist()
    solutions = rng.choice(list("abcd"), (4000, 8), p=[0.7, 0.1, 0.1, 0.1]).tolist()
    pairs = list(zip(sketches, solutions, strict=True))
    for values in (
        [f.follow_rate(a, b) - f.chance_rate(a, b) for a, b in pairs],
        [f.excess_information(a, b) for a, b in pairs[:500]],
    ):
        assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(len(values))


def rollouts() -> pd.DataFrame:
    """Step 1: group 0 with two sketches that differ, followed, and one direct answer; group 1 unreadable. Step 2: direct."""
    rows = [
        (1, 0, 7, "Go  Left", "left!", "L"),
        (1, 0, 7, "go left", "left!", "L"),
        (1, 0, 7, "go right", "left!", "L"),
        (1, 0, 7, None, "right!", "R"),
        (1, 1, 8, "<script>alert(1)</script>", "\x00';DROP", None),
        (2, 0, 7, None, "left!", "L"),
    ]
    return pd.DataFrame(rows, columns=["step", "group", "task", "sketch", "completion", "strategy"])


def of_sketch(task: int, text: str) -> str | None:
    assert task in (7, 8)
    return text.split()[-1].lower() if text.lower().startswith("go") else None


def of_answer(task: int, text: str) -> str | None:
    return text.rstrip("!") if text.endswith("!") else None


def test_a_run_by_step() -> None:
    (row,) = f.of_rollouts(rollouts(), of_sketch, of_answer).to_dict("records")
    # Group 0: left, left, right answered left, left, left: 2/3 follow, chance (2 x 3) / 9 = 2/3 too. Group 1 has no value.
    assert (row["step"], row["groups"], row["n"]) == (1, 2, 4)
    assert (row["unread_sketches"], row["unread_solutions"]) == (0.5, 0.5)
    assert row["follows"] == row["chance"] == 2 / 3 and row["excess"] == 0.0 and row["kappa"] == 0.0
    # Two of three pairs differ as texts (case and blanks aside) and as methods; all take L.
    assert row["paraphrase_texts"] == row["paraphrase_methods"] == 1.0 and row["information"] == 0.0


def test_a_run_without_sketches_has_no_rows() -> None:
    frame = rollouts()
    found = f.of_rollouts(frame[frame["sketch"].isna()], of_sketch, of_answer)
    assert len(found) == 0 and list(found.columns[:5]) == [
        "step", "groups", "n", "unread_sketches", "unread_solutions",
    ]  # fmt: skip
