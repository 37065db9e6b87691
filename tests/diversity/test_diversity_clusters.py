"""Clusters and spread of vectors against planted groups, SciPy, scikit-learn, vendi-score and all pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.metrics import adjusted_rand_score, silhouette_score
from vendi_score import vendi

from sesa_lab.diversity import (
    agglomerative,
    cluster_entropy,
    hdbscan,
    hill_number,
    kmeans,
    mean_pairwise_distance,
    number_of_clusters,
    vendi_score,
)

WAYS = {
    "agglomerative": agglomerative,
    "kmeans": lambda x: kmeans(x, np.random.default_rng(0)),
    "hdbscan": hdbscan,
}


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def random_vectors(n: int, d: int = 6, seed: int = 0, shift: float = 0.5) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(shift, 1.0, (n, d)))


def planted(k: int, each: int, d: int = 8, noise: float = 0.05, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    truth = np.tile(np.arange(k), each)
    return unit(np.eye(d)[truth] + noise * np.random.default_rng(seed).normal(size=(k * each, d))), truth


@pytest.mark.parametrize("way", sorted(WAYS))
def test_planted_groups_are_found(way: str) -> None:
    x, truth = planted(4, 12)
    labels = WAYS[way](x)
    assert labels.dtype == np.int64
    assert labels.tolist() == truth.tolist()  # numbered in order of first appearance, as the truth is
    assert number_of_clusters(labels) == 4
    assert cluster_entropy(labels) == pytest.approx(math.log(4))
    moved = np.random.default_rng(5).permutation(len(x))
    assert adjusted_rand_score(WAYS[way](x[moved]), truth[moved]) == 1.0


@pytest.mark.parametrize("way", sorted(WAYS))
def test_all_the_same_is_one_cluster(way: str) -> None:
    labels = WAYS[way](np.tile(random_vectors(1), (9, 1)))
    assert labels.tolist() == [0] * 9
    assert (number_of_clusters(labels), cluster_entropy(labels)) == (1, 0.0)


@pytest.mark.parametrize("way", sorted(WAYS))
@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_texts(way: str, n: int) -> None:
    labels = WAYS[way](np.eye(3)[:n])
    expected = {"agglomerative": range(n), "kmeans": [0] * n, "hdbscan": [-1] * n}[way]
    assert labels.tolist() == list(expected)


def test_all_different() -> None:
    x = np.eye(9)
    assert agglomerative(x).tolist() == list(range(9))
    assert hdbscan(x).tolist() == [-1] * 9


@pytest.mark.parametrize("way", ["average", "complete", "single"])
@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.8])
def test_agglomerative_against_scipy(way: str, threshold: float) -> None:
    x = random_vectors(40)
    expected = fcluster(linkage(pdist(x, "cosine"), way), threshold, "distance")
    assert adjusted_rand_score(agglomerative(x, threshold, way), expected) == 1.0


def test_agglomerative_by_hand() -> None:
    # Angles 0, 20, 60 degrees: distances 1 - cos: 0.0603 (0, 20), 0.234 (20, 60), 0.5 (0, 60). After the first merge the
    # average to the third is 0.367, the smallest 0.234, the largest 0.5.
    angles = np.radians([0, 20, 60])
    x = np.stack([np.cos(angles), np.sin(angles)], 1)
    assert agglomerative(x, 0.05).tolist() == [0, 1, 2]
    assert agglomerative(x, 0.36).tolist() == [0, 0, 1]
    assert agglomerative(x, 0.37).tolist() == [0, 0, 0]
    assert agglomerative(x, 0.24, "single").tolist() == [0, 0, 0]
    assert agglomerative(x, 0.49, "complete").tolist() == [0, 0, 1]


def test_kmeans_takes_the_k_of_the_largest_silhouette() -> None:
    x = random_vectors(60, 3)
    seed = int(np.random.default_rng(7).integers(2**32))
    fits = [KMeans(k, n_init=10, random_state=seed).fit_predict(x) for k in range(2, 7)]
    best = max(fits, key=lambda labels: silhouette_score(x, labels))
    labels = kmeans(x, np.random.default_rng(7), most=6)
    assert adjusted_rand_score(labels, best) == 1.0
    assert np.array_equal(labels, kmeans(x, np.random.default_rng(7), most=6))


def test_hdbscan_against_scikit_learn() -> None:
    x, _ = planted(3, 10, noise=0.25)
    expected = HDBSCAN(min_cluster_size=4, copy=True).fit_predict(x)
    labels = hdbscan(x, 4)
    assert np.array_equal(labels == -1, expected == -1) and (labels == -1).any() and (labels >= 0).any()
    assert adjusted_rand_score(labels, expected) == 1.0


def test_noise_is_in_no_cluster() -> None:
    labels = [-1, 0, 0, 1, 1, 1, 1, -1, 2, 2]
    assert number_of_clusters(labels) == 3
    assert cluster_entropy(labels) == pytest.approx(math.log(hill_number([2, 4, 2], 1)))
    assert cluster_entropy(labels) == pytest.approx(1.5 * math.log(2))  # shares 1/4, 1/2, 1/4
    assert number_of_clusters([-1, -1]) == number_of_clusters([]) == 0
    assert math.isnan(cluster_entropy([-1, -1])) and math.isnan(cluster_entropy([]))


@pytest.mark.parametrize("n", [2, 3, 50])
def test_mean_pairwise_distance_is_the_mean_over_pairs(n: int) -> None:
    x = random_vectors(n)
    assert mean_pairwise_distance(x) == pytest.approx(pdist(x, "cosine").mean(), rel=1e-10)
    assert mean_pairwise_distance(x.astype(np.float32)) == pytest.approx(pdist(x, "cosine").mean(), rel=1e-5)


def test_mean_pairwise_distance_of_the_extremes() -> None:
    assert mean_pairwise_distance(np.tile(random_vectors(1), (7, 1))) == pytest.approx(0.0, abs=1e-12)
    assert mean_pairwise_distance(np.eye(5)) == 1.0
    assert mean_pairwise_distance([[1.0, 0.0], [-1.0, 0.0]]) == 2.0  # n / (n - 1) with n = 2
    k, n = 3, 12  # a text has n / k - 1 equal others, at distance 0, and the rest at 1
    assert mean_pairwise_distance(planted(k, n // k, noise=0.0)[0]) == pytest.approx(1 - (n / k - 1) / (n - 1))
    assert math.isnan(mean_pairwise_distance(np.eye(1))) and math.isnan(mean_pairwise_distance(np.zeros((0, 4))))


@pytest.mark.parametrize(("n", "d"), [(5, 40), (40, 5), (12, 12), (1, 3)])
@pytest.mark.filterwarnings("ignore:Please import `csr_matrix`:DeprecationWarning")  # of vendi-score, about SciPy
def test_vendi_score_against_its_authors(n: int, d: int) -> None:
    x = random_vectors(n, d)
    assert vendi_score(x) == pytest.approx(vendi.score_dual(x), rel=1e-9)
    assert vendi_score(x) == pytest.approx(vendi.score_K(x @ x.T), rel=1e-9)


def test_vendi_score_of_the_extremes() -> None:
    assert vendi_score(np.tile(random_vectors(1), (7, 1))) == pytest.approx(1.0)
    assert vendi_score(np.eye(6)) == pytest.approx(6.0)
    assert vendi_score(np.eye(6, 20)) == pytest.approx(6.0)
    assert vendi_score(planted(4, 50, noise=0.0)[0]) == pytest.approx(4.0)
    assert math.isnan(vendi_score(np.zeros((0, 4))))
    # Two texts of similarity c: eigenvalues (1 + c) / 2 and (1 - c) / 2.
    c = 0.6
    expected = math.exp(-sum(v * math.log(v) for v in ((1 + c) / 2, (1 - c) / 2)))
    assert vendi_score([[1.0, 0.0], [c, math.sqrt(1 - c * c)]]) == pytest.approx(expected)


@given(st.integers(2, 30), st.integers(2, 8), st.integers(0, 2**31))
@settings(max_examples=10)
def test_order_of_texts_does_not_matter(n: int, d: int, seed: int) -> None:
    x = random_vectors(n, d, seed)
    moved = np.random.default_rng(seed).permutation(n)
    assert mean_pairwise_distance(x[moved]) == pytest.approx(mean_pairwise_distance(x))
    assert vendi_score(x[moved]) == pytest.approx(vendi_score(x))
    for way in (agglomerative, hdbscan):
        assert number_of_clusters(way(x[moved])) == number_of_clusters(way(x))
    assert adjusted_rand_score(agglomerative(x[moved]), agglomerative(x)[moved]) == 1.0


@pytest.mark.parametrize("measure", [*WAYS.values(), mean_pairwise_distance, vendi_score])
def test_errors_of_vectors(measure) -> None:
    with pytest.raises(ValueError, match=r"row 1 of length 2"):
        measure([[1.0, 0.0], [0.0, 2.0]])
    with pytest.raises(ValueError, match=r"got \(2,\)"):
        measure([1.0, 0.0])
    with pytest.raises(ValueError, match="row 0 of length nan"):
        measure([[math.nan, 0.0]])


def test_errors_of_numbers() -> None:
    with pytest.raises(ValueError, match="distance > 0"):
        agglomerative(np.eye(2), 0.0)
    with pytest.raises(ValueError, match="most >= 2"):
        kmeans(np.eye(2), np.random.default_rng(0), most=1)
    with pytest.raises(ValueError, match="at least 2 texts"):
        hdbscan(np.eye(2), 1)
    with pytest.raises(ValueError, match="vector of labels"):
        number_of_clusters([[0]])
