"""Intervals that cover, a null that sees length, tables that see thresholds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sesa_lab.diversity import (
    agglomerative,
    bootstrap,
    length_matched_null,
    mean_pairwise_distance,
    number_of_clusters,
    sensitivity,
)
from sesa_lab.errors import InputError


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_bootstrap_of_a_mean_by_numpy() -> None:
    values = rng(1).normal(size=25)
    found = bootstrap(values, np.mean, rng(2), level=0.9, resamples=300)
    means = values[rng(2).integers(0, 25, (300, 25))].mean(1)
    low, high = np.quantile(means, [0.05, 0.95]) - means.mean() + values.mean()
    assert found == pytest.approx((values.mean(), low, high, 25))


def test_bootstrap_of_a_list_is_that_of_an_array() -> None:
    values = rng(1).normal(size=25)
    found = bootstrap(values.tolist(), lambda part: sum(part) / len(part), rng(2), resamples=50)
    assert found == pytest.approx(bootstrap(values, np.mean, rng(2), resamples=50))


def test_bootstrap_covers_the_distance_of_pairs() -> None:
    # Texts are one of two vectors at right angles, with probability 0.3: the expected distance of a pair is 2 * 0.3 * 0.7.
    # 150 intervals of 95 %: a true coverage of 0.95 gives fewer than 0.88 of them (132) with probability 1e-4; the plain
    # percentile interval would lie low by 1/n of the distance.
    generator, covered = rng(3), 0
    for _ in range(150):
        texts = np.eye(2)[(generator.random(40) < 0.3).astype(int)]
        found = bootstrap(texts, mean_pairwise_distance, generator, resamples=150)
        covered += found.low <= 0.42 <= found.high
    assert covered >= 132


def test_bootstrap_stays_around_what_repeats_would_lower() -> None:
    # Twenty different texts: a resample holds some 13 of them, and the plain interval would not even hold 20.
    found = bootstrap([f"text {i}" for i in range(20)], lambda part: len(set(part)), rng(), resamples=200)
    assert found.low < found.mean == 20.0 < found.high


def test_bootstrap_without_an_interval() -> None:
    assert bootstrap([], len, rng())[3] == 0 and math.isnan(bootstrap([], len, rng()).mean)
    one = bootstrap([3.0], np.mean, rng())
    assert one.mean == 3.0 and math.isnan(one.low) and one.n == 1
    none = bootstrap([1.0, 2.0], lambda _: math.nan, rng())
    assert math.isnan(none.mean) and math.isnan(none.high)
    same = bootstrap([2.0] * 5, np.mean, rng(), resamples=20)
    assert same == pytest.approx((2.0, 2.0, 2.0, 5))


def test_bootstrap_leaves_resamples_without_a_value_out() -> None:
    # Of two different items, half of the resamples hold one of them twice: their distance is 0; "both" only has a value.
    found = bootstrap([1.0, 2.0], lambda part: sum(part) if len(set(part)) == 2 else math.nan, rng(), resamples=50)
    assert found == pytest.approx((3.0, 3.0, 3.0, 2))


def test_bootstrap_errors() -> None:
    for wrong in ({"level": 1.0}, {"level": 0.0}, {"resamples": 0}):
        with pytest.raises(ValueError, match="expected a level"):
            bootstrap([1.0, 2.0], np.mean, rng(), **wrong)


def test_null_keeps_what_length_alone_gives() -> None:
    # The statistic is the mean length itself: groups of the same lengths have it whatever their words.
    groups = [["x" * n for n in range(1, 41)], ["y" * n for n in range(60, 100)]]
    lengths = [[len(text) for text in group] for group in groups]
    found = length_matched_null(groups, lengths, lambda part: float(np.mean([len(t) for t in part])), rng(), bands=40)
    assert found.observed.tolist() == [20.5, 79.5]
    assert found.mean.tolist() == found.observed.tolist()  # no band of two reaches from one group into the other
    # Without bands anything changes places with anything, and both tend to the mean of all.
    loose = length_matched_null(groups, lengths, lambda part: float(np.mean([len(t) for t in part])), rng(), bands=1)
    assert loose.mean == pytest.approx([50.0, 50.0], abs=2.0)


@pytest.mark.parametrize("bands", [1, 10, 40])
def test_null_mixes_content_of_one_length(bands: int) -> None:
    # 20 copies beside 20 different texts of one length. Shuffled, each group has 10 copies on average, which count once:
    # 10 + 1 distinct. The number of copies has variance 20 / 4 * 20 / 39 (hypergeometric), so the mean of 300 shuffles has
    # a standard error of 1.6 / sqrt(300) = 0.09. Equal lengths share a band, however many bands.
    groups = [["same"] * 20, [f"t{i:03d}" for i in range(20)]]
    found = length_matched_null(
        groups, [[4] * 20] * 2, lambda part: float(len(set(part))), rng(bands), shuffles=300, bands=bands
    )
    assert found.observed.tolist() == [1.0, 20.0]
    assert found.mean == pytest.approx([11.0, 11.0], abs=0.45)
    assert (found.low > 1.0).all() and (found.high < 20.0).all()


def test_null_of_vectors_and_of_what_has_no_value() -> None:
    groups = [np.eye(4)[[0, 0, 0]], np.eye(4)[[1, 2]], np.eye(4)[[3]]]
    found = length_matched_null(groups, [[1, 1, 1], [1, 1], [1]], mean_pairwise_distance, rng(), bands=1)
    assert found.observed[:2].tolist() == [0.0, 1.0] and math.isnan(found.observed[2])
    # A pair is equal if both are of the three copies: 3 of 15 pairs; a group of one has no pair.
    assert found.mean[:2] == pytest.approx([0.8, 0.8], abs=0.12)
    assert math.isnan(found.mean[2]) and math.isnan(found.low[2]) and math.isnan(found.high[2])


def test_null_is_the_generator_s() -> None:
    groups, lengths = [["a", "bb", "ccc"], ["dd", "e"]], [[1, 2, 3], [2, 1]]
    first, second = (length_matched_null(groups, lengths, lambda part: float(len("".join(part))), rng(4)) for _ in "ab")
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_null_errors() -> None:
    with pytest.raises(ValueError, match="two or more groups"):
        length_matched_null([["a"]], [[1]], len, rng())
    with pytest.raises(ValueError, match=r"groups of \[1, 2\] texts"):
        length_matched_null([["a"], ["b", "c"]], [[1], [1]], len, rng())
    with pytest.raises(ValueError, match="bands >= 1"):
        length_matched_null([["a"], ["b"]], [[1], [1]], len, rng(), bands=0)


def by_angle(texts, model: str) -> np.ndarray:
    """Texts are degrees; the model "half" sees half of them."""
    angles = np.radians([float(text) for text in texts]) * (0.5 if model == "half" else 1.0)
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def test_sensitivity_by_hand() -> None:
    # Distances of neighbours 1 - cos: 60 degrees 0.5, 30 degrees 0.134; of 0 and 120 degrees 1.5, halved 0.5. Average
    # linkage: after the first pair the third is at (0.5 + 1.5) / 2 = 1, halved (0.134 + 0.5) / 2 = 0.317.
    table = sensitivity(["0", "60", "120"], [0.1, 0.4, 0.6, 1.1], ["whole", "half"], embedder=by_angle)
    assert table.columns.tolist() == ["model", "threshold", "value"]
    assert table["model"].tolist() == ["whole"] * 4 + ["half"] * 4
    assert table["threshold"].tolist() == [0.1, 0.4, 0.6, 1.1] * 2
    assert table["value"].tolist() == [3, 3, 2, 1, 3, 1, 1, 1]


def test_sensitivity_of_another_statistic() -> None:
    table = sensitivity(
        ["0", "10"], [1, 2], ["whole"], lambda x, scale: scale * number_of_clusters(agglomerative(x)), embedder=by_angle
    )
    assert table["value"].tolist() == [1.0, 2.0]
    assert sensitivity([], [0.3], ["whole"], embedder=lambda *_: np.zeros((0, 2)))["value"].tolist() == [0.0]


def test_sensitivity_says_which_model_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: str, device: str | None) -> None:
        raise InputError(f"cannot load the embedding model {model!r}")

    monkeypatch.setattr("sesa_lab.diversity.embeddings._encoder", refuse)
    with pytest.raises(InputError, match="'no/such'"):
        sensitivity(["a"], [0.3], ["no/such"])
