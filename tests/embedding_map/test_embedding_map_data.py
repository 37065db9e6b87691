"""Samples, outcomes, vectors and places of runs that can be counted by hand."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sesa_lab import diversity
from sesa_lab.embedding_map import clusters, place, read
from sesa_lab.embedding_map.data import CACHE, DISC, quotas
from sesa_lab.errors import InputError
from tests.embedding_map.map_runs import letters, of_texts
from tests.microscope.microscope_runs import write
from tests.widgets.inspector_runs import SKETCHES, small_run


@pytest.mark.parametrize(
    ("counts", "most", "expected"),
    [
        ([5, 5, 5], 20, [5, 5, 5]),
        ([10, 10], 6, [3, 3]),
        ([2, 10, 10], 12, [2, 5, 5]),  # what the first leaves over goes to the others
        ([1, 1, 9], 7, [1, 1, 5]),
        ([3, 3, 3], 4, [1, 1, 2]),
        ([4] * 5, 3, [1, 0, 1, 0, 1]),  # more steps than texts: evenly, both ends among them
        ([7], 1, [1]),
    ],
)
def test_a_sample_is_balanced_over_steps(counts: list[int], most: int, expected: list[int]) -> None:
    assert quotas(counts, most) == expected


def test_a_small_run_is_there_whole_and_in_order(tmp_path: Path) -> None:
    points = read(of_texts(tmp_path / "run", ["b", "a", "b"], ["a", "c"]), embedder=letters)
    assert points.table["text"].tolist() == ["b", "a", "b", "a", "c"]
    assert list(zip(points.table["step"], points.table["index"], strict=True)) == [
        (1, 0),
        (1, 1),
        (1, 2),
        (2, 0),
        (2, 1),
    ]
    assert points.table["success"].tolist() == [True, False, False, True, False]
    assert (points.texts, points.which.tolist()) == (["b", "a", "c"], [0, 1, 0, 1, 2])
    assert (points.whole, points.steps, points.embedder) == (5, [1, 2], "letters")
    assert np.linalg.norm(points.vectors, axis=1) == pytest.approx(1.0)


def test_a_sample_has_a_fixed_seed(tmp_path: Path) -> None:
    run = of_texts(tmp_path / "run", *([f"a{i}" for i in range(40)] for _ in range(5)))
    first, again, other = (read(run, most=50, embedder=letters, seed=seed) for seed in (3, 3, 4))
    assert first.table.equals(again.table)
    assert not first.table.equals(other.table)
    for points in (first, other):
        assert Counter(points.table["step"]) == {step: 10 for step in range(1, 6)}
        assert not points.table.duplicated(["step", "group", "index"]).any()
        assert points.whole == 200


def test_only_different_texts_are_embedded(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def spying(texts: Sequence[str]) -> np.ndarray:
        seen.append(list(texts))
        return letters(texts)

    read(of_texts(tmp_path / "run", ["a", "a", "b"], ["b", "", "a"]), embedder=spying)
    assert seen == [["a", "b", ""]]


def test_sketches_have_the_outcome_of_who_follows_them(tmp_path: Path) -> None:
    points = read(small_run(tmp_path / "run", steps=2), of="sketches", embedder=letters)
    # Candidates 0 and 1 follow sketch 0 and the first of them solves; nobody can read the one that follows sketch 1;
    # candidate 3 follows sketch 2 and solves.
    first = points.table.head(3)
    assert first["text"].tolist() == list(SKETCHES)
    assert first["success"].tolist() == [True, False, True]
    assert first["strategy"].notna().tolist() == [True, False, True]
    assert first["reward"].isna().tolist() == [False, True, False]
    assert (len(points.table), points.whole, len(points.texts)) == (12, 12, 3)


def test_equal_texts_and_few_of_them(tmp_path: Path) -> None:
    one, two = of_texts(tmp_path / "one", ["a"]), of_texts(tmp_path / "two", ["a", "b"])
    same = of_texts(tmp_path / "same", ["a"] * 9)
    for projection in ("pca", "tsne"):
        for run, count in ((one, 1), (two, 2), (same, 9)):
            points = read(run, embedder=letters)
            places = place(points, projection)  # type: ignore[arg-type]
            assert np.isfinite(places.x).all() and np.isfinite(places.y).all()
            assert len(set(zip(places.x, places.y, strict=True))) == count  # copies do not hide each other
    assert clusters(read(same, embedder=letters)).tolist() == [0] * 9
    assert clusters(read(one, embedder=letters)).tolist() == [0]


def test_pca_is_that_of_the_different_texts(tmp_path: Path) -> None:
    texts = ["a", "b", "ab", "aab", "c", "bcd", "e"]
    points = read(of_texts(tmp_path / "run", texts), embedder=letters)
    places = place(points)
    # By the singular values of the centred vectors; the sign of a direction is arbitrary.
    centred = points.vectors - points.vectors.mean(0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :2] * values[:2]
    assert np.abs(places.x) == pytest.approx(np.abs(expected[:, 0]))
    assert np.abs(places.y) == pytest.approx(np.abs(expected[:, 1]))
    share = values[0] ** 2 / np.square(values).sum()
    assert places.names[0] == f"first component, {share:.0%} of the variance"


def test_copies_lie_around_their_text_and_no_disc_grows_for_ever(tmp_path: Path) -> None:
    few, many = 5, 10 * DISC
    points = read(of_texts(tmp_path / "run", ["a"] * few + ["b"] * many + ["c"]), embedder=letters)
    places = place(points)

    def disc(text: str) -> tuple[float, float]:
        """How far its copies lie from the first, and how far apart the first two lie."""
        own = np.flatnonzero(points.table["text"] == text)
        away = np.hypot(places.x[own] - places.x[own[0]], places.y[own] - places.y[own[0]])
        return float(away.max()), float(away[1])

    assert disc("a")[0] < disc("b")[0]
    assert disc("b")[1] < disc("a")[1]  # closer together
    wide = np.hypot(np.ptp(places.x), np.ptp(places.y))
    assert disc("b")[0] < 0.1 * wide


def test_tsne_keeps_neighbours_and_is_the_same_again(tmp_path: Path) -> None:
    texts = ["a" * n for n in range(1, 9)] + ["b" * n for n in range(1, 9)]
    points = read(of_texts(tmp_path / "run", texts), embedder=letters)
    state = random.getstate()
    places, again = place(points, "tsne"), place(points, "tsne")
    assert random.getstate() == state
    assert np.array_equal(places.x, again.x) and np.array_equal(places.y, again.y)
    at = np.stack([places.x, places.y], axis=1)
    apart = np.linalg.norm(at[:, None] - at[None], axis=2) + np.diag([np.inf] * len(at))
    assert (np.argmin(apart[1:8], axis=1) < 8).all() and (np.argmin(apart[9:], axis=1) >= 8).all()  # ends have a choice


def test_clusters_are_of_texts_numbered_by_their_copies(tmp_path: Path) -> None:
    run = of_texts(tmp_path / "run", ["a" * 9, "a" * 8, "b" * 9, "b" * 8] + ["b" * 9] * 3)
    assert clusters(read(run, embedder=letters)).tolist() == [1, 1, 0, 0, 0, 0, 0]


@pytest.mark.slow
def test_the_default_embedder_and_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = of_texts(tmp_path / "run", ["a cat", "a kitten", "the stock market"])
    points = read(run)
    close = points.vectors @ points.vectors.T
    assert close[0, 1] > close[0, 2]
    assert points.embedder == "all-MiniLM-L6-v2"
    assert (tmp_path / CACHE).is_file() and not list((tmp_path / "run").glob("*.sqlite"))
    # What is kept needs no model.
    monkeypatch.setattr(diversity.embeddings, "_encoder", None)
    assert np.array_equal(read(run).vectors, points.vectors)


def test_bad_input(tmp_path: Path) -> None:
    run = of_texts(tmp_path / "run", ["a", "b"])
    with pytest.raises(InputError):
        read(tmp_path / "nowhere", embedder=letters)
    with pytest.raises(InputError, match=r"no committed solutions yet.*checkpoint_every"):
        read(write(tmp_path / "empty", []), embedder=letters)
    with pytest.raises(InputError, match=r"has no sketches \(its sampler is parallel\).*of='solutions'"):
        read(run, of="sketches", embedder=letters)
    with pytest.raises(InputError, match="a map of 'sketch'; did you mean 'sketches'"):
        read(run, of="sketch", embedder=letters)  # type: ignore[arg-type]
    for most in (0, 10_001):
        with pytest.raises(InputError, match=rf"most = {most} texts, expected 1 \.\. 10000"):
            read(run, most=most, embedder=letters)
    with pytest.raises(InputError, match="projection 'umap'"):
        place(read(run, embedder=letters), "umap")  # type: ignore[arg-type]
    for wrong, told in (
        (np.ones(2), r"shape \(2,\)"),
        (np.ones((1, 3)), r"shape \(1, 3\)"),
        (np.zeros((2, 3)), "0 or not"),
    ):
        with pytest.raises(InputError, match=told):
            read(run, embedder=lambda texts, wrong=wrong: wrong)
