"""The metrics that are calibrated: clusterings of texts, and numbers of a group of texts, with and without an embedding.

Every way of clustering is applied to two representations with the same tuning: embeddings, and character n-grams, which need no
model. Equality of texts, as written or without case and blanks, needs no clustering at all; all in one cluster is what any of
them must beat.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sesa_lab import diversity
from sesa_lab.diversity.late import same_random

Vectors = NDArray[np.float64]
Labels = NDArray[np.int64]

EMBEDDED, NGRAMS = "embedding", "n-grams"
REPRESENTATIONS = (EMBEDDED, NGRAMS)

PARAMETERS: dict[str, tuple[float, ...]] = {
    "agglomerative": (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8),
    "k-means": (10.0,),
    "HDBSCAN": (2.0, 3.0, 5.0, 8.0),
}
"""Way of clustering -> what is tried on calibration tasks: cosine distance; most clusters (the silhouette
chooses how many); fewest texts of a cluster."""

DEFAULTS = {"agglomerative": 0.3, "k-means": 10.0, "HDBSCAN": 5.0}
"""What the functions of ``sesa_lab.diversity`` do where nothing is said."""

EXACT, NORMALISED, LUMPED = "equal texts", "equal texts, normalised", "all in one cluster"
METHODS = (EXACT, NORMALISED, LUMPED, *(f"{way}, {what}" for what in REPRESENTATIONS for way in PARAMETERS))

DIRECTION = {
    "equal texts: number": 1.0,
    "equal texts: duplicate rate": -1.0,
    "distinct-2": 1.0,
    "self-BLEU": -1.0,
    "compression ratio": -1.0,
    **{f"{name}, {what}": 1.0 for what in REPRESENTATIONS for name in ("mean distance", "Vendi")},
}
"""Numbers of a group that need no clusters -> 1 where more of it should mean more strategies, -1 where less."""


def ngram_vectors(texts: Sequence[str]) -> Vectors:
    """(n, d) TF-IDF weights of character n-grams of 1 to 3, rows of length 1, fitted to these texts alone.

    Case counts. A text without any character is a direction of its own, so that it equals other empty texts only.
    """
    with same_random():
        from sklearn.feature_extraction.text import TfidfVectorizer  # loads for seconds

    empty = np.asarray([[float(not text)] for text in texts])
    if all(not text for text in texts):
        return empty
    found = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), lowercase=False).fit_transform(texts)
    return np.hstack([np.asarray(found.toarray(), dtype=np.float64), empty])


def normalised(text: str) -> str:
    """In Unicode's form NFKC, without case and white space, and without marks at its ends: ``" 7 * 5."`` is ``7*5``."""
    bare = "".join(unicodedata.normalize("NFKC", text).casefold().split())
    return bare.strip(".,;:!?\"'`")


def equal(texts: Sequence[str]) -> Labels:
    """Labels by equality, numbered in order of first appearance."""
    known: dict[str, int] = {}
    return np.asarray([known.setdefault(text, len(known)) for text in texts], dtype=np.int64)


def clustered(way: str, parameter: float, vectors: Vectors, generator: np.random.Generator) -> Labels:
    """Labels of a clustering; what HDBSCAN calls noise becomes clusters of one text each, so that every text has a strategy.

    Args:
        way: a key of ``PARAMETERS``.
        parameter: see there.
        vectors: (n, d), of length 1.
        generator: of k-means.
    """
    if way == "agglomerative":
        return diversity.agglomerative(vectors, parameter)
    if way == "k-means":
        return diversity.kmeans(vectors, generator, int(parameter))
    labels = diversity.hdbscan(vectors, int(parameter))
    noise = np.flatnonzero(labels < 0)
    labels[noise] = labels.max(initial=-1) + 1 + np.arange(len(noise))
    return labels


def partitions(
    texts: Sequence[str], vectors: Mapping[str, Vectors], generator: np.random.Generator
) -> list[tuple[str, float, Labels]]:
    """Every method with every parameter (NaN: it has none) on one group.

    Args:
        texts: of the group.
        vectors: representation -> (n, d).
        generator: of k-means.
    """
    none = float("nan")
    found = [(EXACT, none, equal(texts)), (NORMALISED, none, equal([normalised(text) for text in texts]))]
    found.append((LUMPED, none, np.zeros(len(texts), dtype=np.int64)))
    for what in REPRESENTATIONS:
        for way, parameters in PARAMETERS.items():
            for parameter in parameters:
                labels = clustered(way, parameter, vectors[what], generator)
                found.append((f"{way}, {what}", parameter, labels))
    return found


def agreement(strategies: Sequence[str], labels: Labels) -> dict[str, float]:
    """How a clustering agrees with the true strategies of one group.

    Returns:
        ``ari`` (adjusted Rand index, Hubert and Arabie 1985: 1 = the same partition, 0 = as by chance, down to -0.5; where the
        truth is one strategy: 1 or 0, all or nothing); ``homogeneity``, ``completeness`` and their harmonic mean ``v_measure``
        (Rosenberg and Hirschberg 2007, 0..1: clusters of one strategy each, strategies in one cluster each); ``ratio``
        (clusters / strategies, > 0), ``over`` and ``under`` (1.0 where it is above, below 1).
    """
    with same_random():
        from sklearn.metrics import adjusted_rand_score, homogeneity_completeness_v_measure

    truth = equal(strategies)
    homogeneity, completeness, v = homogeneity_completeness_v_measure(truth, labels)
    ratio = diversity.number_of_clusters(labels) / len(set(strategies))
    return {
        "ari": float(adjusted_rand_score(truth, labels)),
        "homogeneity": float(homogeneity),
        "completeness": float(completeness),
        "v_measure": float(v),
        "ratio": ratio,
        "over": float(ratio > 1.0),
        "under": float(ratio < 1.0),
    }


def numbers(texts: Sequence[str], vectors: Mapping[str, Vectors]) -> dict[str, float]:
    """The metrics of ``DIRECTION`` on one group, as they are (not turned)."""
    found = {
        "equal texts: number": float(len(set(texts))),
        "equal texts: duplicate rate": diversity.duplicate_rate(texts),
        "distinct-2": diversity.distinct_n(texts, 2),
        "self-BLEU": diversity.self_bleu(texts),
        "compression ratio": diversity.compression_ratio(texts),
    }
    for what in REPRESENTATIONS:
        found[f"mean distance, {what}"] = diversity.mean_pairwise_distance(vectors[what])
        found[f"Vendi, {what}"] = diversity.vendi_score(vectors[what])
    return found


def wording_weight(vectors: Vectors, strategies: Sequence[str], wordings: Sequence[Any]) -> float:
    """How often a new strategy in the same wording lies farther than a new wording of the same strategy; ties count half.

    The probability that a pair of texts of the first sort has a larger cosine distance than one of the second (the area under the
    ROC curve, Mann and Whitney 1947, over the pairs of one group). It needs no threshold: far below 1/2, every threshold that
    merges paraphrases merges strategies too.

    Args:
        vectors: (n, d), of length 1.
        strategies: one a text.
        wordings: one a text.

    Returns:
        0..1: 1 = distance tells strategy from wording, 0.5 = chance, 0 = it sees wording alone; NaN where either kind of pair is
        missing.
    """
    from scipy.stats import rankdata

    first, second = np.triu_indices(len(strategies), 1)
    method, words = equal([str(s) for s in strategies]), equal([str(w) for w in wordings])
    same_method, same_words = method[first] == method[second], words[first] == words[second]
    distance = (1.0 - vectors @ vectors.T)[first, second].round(9)
    across, within = distance[~same_method & same_words], distance[same_method & ~same_words]
    if not len(across) or not len(within):
        return float("nan")
    ranks = rankdata(np.concatenate([across, within]))[: len(across)]
    n, m = len(across), len(within)
    return float((ranks.sum() - n * (n + 1) / 2) / (n * m))
