"""How far texts lie apart as vectors: clusters, their number and entropy, mean distance, Vendi score.

All take (n, d) vectors of length 1, one a text, as ``embed`` makes them; distance is 1 - cosine similarity, 0..2. Labels are
(n,) int64, numbered from 0 in order of first appearance; -1 is noise. Clusters depend on a threshold or a number that
nobody knows: see ``sensitivity``.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sesa_lab.diversity.late import same_random
from sesa_lab.diversity.sampled import effective_number_of

Labels: TypeAlias = NDArray[np.int64]
Linkage: TypeAlias = Literal["average", "complete", "single"]

NOISE = -1
_SILHOUETTE_ROWS = 1_000  # at most so many enter a silhouette, whose cost is their square


def agglomerative(vectors: ArrayLike, threshold: float = 0.3, linkage: Linkage = "average") -> Labels:
    """Clusters merged from the bottom while the closest two are nearer than a threshold (Sokal and Michener 1958).

    Memory and time grow with n^2, for the distances of all pairs: for a task's samples, not for a whole run's.

    Args:
        vectors: (n, d), of length 1.
        threshold: cosine distance, > 0, at which two clusters stay apart.
        linkage: distance of two clusters: of their pairs the mean, the largest (``complete``) or the smallest
            (``single``).

    Returns:
        Labels without noise: one cluster where all texts are the same, n where all lie at least ``threshold`` apart.

    Raises:
        ValueError: vectors not of length 1, or a threshold not above 0.
    """
    x = unit_rows(vectors)
    if not threshold > 0.0:
        raise ValueError(f"expected a distance > 0, such as 0.3, got {threshold}")
    if len(x) < 2:
        return np.zeros(len(x), dtype=np.int64)
    with same_random():
        from sklearn.cluster import AgglomerativeClustering  # loads for seconds

    tree = AgglomerativeClustering(n_clusters=None, metric="cosine", linkage=linkage, distance_threshold=threshold)
    return _renumbered(tree.fit_predict(x))


def kmeans(vectors: ArrayLike, generator: np.random.Generator, most: int = 10) -> Labels:
    """k-means with the k of 2..``most`` that has the largest mean silhouette (Lloyd 1982; Rousseeuw 1987).

    Of vectors of length 1, the squared Euclidean distance that k-means lessens is twice the cosine distance. The silhouette
    is that of at most 1,000 texts, the same for every k; it does not exist for k = 1, which is returned only where it must
    be. So this measures how texts fall apart, not whether.

    Args:
        vectors: (n, d), of length 1.
        generator: chooses starts, and the texts of the silhouette.
        most: largest k, >= 2.

    Returns:
        Labels without noise: one cluster where all texts are the same, or fewer than three; else 2..min(most, n - 1,
        different texts).

    Raises:
        ValueError: vectors not of length 1, or ``most`` below 2.
    """
    x = unit_rows(vectors)
    if most < 2:
        raise ValueError(f"expected most >= 2 clusters, got {most}")
    seed = int(generator.integers(2**32))  # drawn whatever follows: what the caller draws next does not depend on x
    rows = np.sort(generator.permutation(len(x))[:_SILHOUETTE_ROWS])
    largest = min(most, len(x) - 1, len(np.unique(x, axis=0)))
    best, labels = -math.inf, np.zeros(len(x), dtype=np.int64)
    if largest < 2:
        return labels
    with same_random():
        from sklearn.cluster import KMeans
        from sklearn.metrics import silhouette_score

    for k in range(2, largest + 1):
        found = KMeans(k, n_init=10, random_state=seed).fit_predict(x)
        if not 2 <= len(np.unique(found[rows])) < len(rows):
            continue
        score = float(silhouette_score(x[rows], found[rows]))
        if score > best:
            best, labels = score, found
    return _renumbered(labels)


def hdbscan(vectors: ArrayLike, smallest: int = 5) -> Labels:
    """HDBSCAN: clusters that persist over a range of densities, the rest noise (Campello, Moulavi and Sander 2013).

    Args:
        vectors: (n, d), of length 1; distances are Euclidean, which order pairs as cosine distances do.
        smallest: texts that make a cluster, >= 2.

    Returns:
        Labels, -1 = noise. All noise where n < ``smallest``, or nothing is denser than the rest; one cluster where all texts
        are the same. A single cluster of differing texts is not found: it is noise.

    Raises:
        ValueError: vectors not of length 1, or ``smallest`` below 2.
    """
    x = unit_rows(vectors)
    if smallest < 2:
        raise ValueError(f"expected at least 2 texts a cluster, got {smallest}")
    if len(x) < smallest:
        return np.full(len(x), NOISE, dtype=np.int64)
    if (x == x[0]).all():
        return np.zeros(len(x), dtype=np.int64)
    with same_random():
        from sklearn.cluster import HDBSCAN

    return _renumbered(HDBSCAN(min_cluster_size=smallest, copy=True).fit_predict(x))


def number_of_clusters(labels: ArrayLike) -> int:
    """Number of different labels, noise (-1) not counted: 0..n, 0 = all is noise (or nothing is there)."""
    return len(_sizes(labels))


def cluster_entropy(labels: ArrayLike) -> float:
    """Entropy of the clusters' shares of the texts, noise (-1) left out: -sum_c p_c log p_c (Shannon 1948).

    Its exp is the effective number of clusters (``hill_number`` of order 1).

    Returns:
        Nats, 0..log(number of clusters): 0 = one cluster has all, log k = k equal ones; NaN where there is none.
    """
    sizes = _sizes(labels)
    return math.log(effective_number_of(sizes)) if len(sizes) else math.nan


def mean_pairwise_distance(vectors: ArrayLike) -> float:
    """Mean cosine distance of two different texts: 1 - (|sum_i v_i|^2 - n) / (n (n - 1)).

    The sum of all pairs' similarities is the squared length of the sum of vectors: O(n d), no pair is formed. It is the
    unbiased estimate of the expected distance of two texts drawn (a U-statistic, Hoeffding 1948; as a measure of texts'
    diversity Tevet and Berant 2021, arXiv 2004.02990). It sees spread alone: k equal groups at right angles have
    1 - (n / k - 1) / (n - 1), not k times as much as one.

    Args:
        vectors: (n, d), of length 1.

    Returns:
        0..n / (n - 1): 0 = all the same, 1 = all at right angles; NaN for n < 2.
    """
    x = unit_rows(vectors)
    n = len(x)
    if n < 2:
        return math.nan
    same = (float(np.square(x.sum(0)).sum()) - float(np.square(x).sum())) / (n * (n - 1))
    return max(0.0, 1.0 - same)


def vendi_score(vectors: ArrayLike) -> float:
    """Effective number of different texts: exp(-sum_i l_i log l_i), l the eigenvalues of K / n, K_ij = v_i . v_j.

    (Friedman and Dieng 2023, arXiv 2210.02410, order 1.) The smaller of the n x n and the d x d Gram matrix is used: their
    eigenvalues other than 0 are the same, and n may be large.

    Args:
        vectors: (n, d), of length 1.

    Returns:
        1..min(n, d): 1 = all the same, n = all at right angles, k = k equal groups at right angles; NaN for n = 0. It grows
        with n: compare equally many texts. Similarities of related texts far above 0 keep it well below their number.
    """
    x = unit_rows(vectors)
    if not len(x):
        return math.nan
    gram = x @ x.T if len(x) < x.shape[1] else x.T @ x
    return max(1.0, effective_number_of(np.maximum(0.0, np.linalg.eigvalsh(gram))))


def unit_rows(vectors: ArrayLike) -> NDArray[np.float64]:
    """(n, d) float64 with rows scaled to length 1 exactly; they must have it within 1 % (float16's rounding).

    Raises:
        ValueError: not two dimensions, or a row of another length, or not finite.
    """
    x = np.asarray(vectors, dtype=np.float64)
    if x.ndim != 2:
        raise ValueError(f"expected vectors of shape (n, d), got {x.shape}")
    norms = np.sqrt(np.square(x).sum(1, keepdims=True))
    wrong = np.flatnonzero(~(np.abs(norms[:, 0] - 1.0) <= 0.01))
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(f"expected vectors of length 1, as embed() makes, got row {row} of length {norms[row, 0]:.6g}")
    return np.asarray(x / norms)


def _sizes(labels: ArrayLike) -> Labels:
    found = np.asarray(labels, dtype=np.int64)
    if found.ndim != 1:
        raise ValueError(f"expected a vector of labels, got shape {found.shape}")
    return np.unique(found[found != NOISE], return_counts=True)[1]


def _renumbered(labels: Any) -> Labels:
    """Clusters numbered in order of first appearance, so that equal partitions have equal labels; -1 stays."""
    found = np.asarray(labels, dtype=np.int64)
    _, first, where = np.unique(found, return_index=True, return_inverse=True)
    order = np.argsort(np.where(found[first] == NOISE, -1, first))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - int((found == NOISE).any())
    return rank[where]
