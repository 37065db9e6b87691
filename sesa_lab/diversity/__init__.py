"""Measures of exploration: pure functions on strategies, texts, vectors and probabilities.

Unbiased estimates from samples and exact values where answers can be enumerated (``sampled``, ``exact``), strategies
(``strategies``), the policy's own probabilities (``policy``), words (``texts``), embeddings and how far they lie apart
(``embeddings``, ``clusters``), whether solutions follow their sketches (``fidelity``), and how sure and how fair such a
number is (``resampling``).

Undefined is NaN; no function touches a global generator: those that draw take one. What needs more than NumPy is imported
on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sesa_lab.diversity.exact import Exact, exact_measures
from sesa_lab.diversity.policy import sequence_entropy, surprisal, token_entropy, zero_variance_fraction
from sesa_lab.diversity.sampled import (
    coverage_at_k,
    duplicate_rate,
    effective_number_of,
    effective_sample_size,
    pass_at_k,
)
from sesa_lab.diversity.strategies import (
    distinct,
    hill_number,
    novelty_by_index,
    richness,
    saturation,
    strategy_counts,
    unseen_mass,
)
from sesa_lab.diversity.texts import compression_ratio, distinct_n, self_bleu

if TYPE_CHECKING:
    from sesa_lab.diversity.clusters import (
        agglomerative,
        cluster_entropy,
        hdbscan,
        kmeans,
        mean_pairwise_distance,
        number_of_clusters,
        vendi_score,
    )
    from sesa_lab.diversity.embeddings import embed
    from sesa_lab.diversity.fidelity import (
        chance_rate,
        excess_information,
        expected_information,
        follow_rate,
        information,
        kappa,
        paraphrase_share,
    )
    from sesa_lab.diversity.resampling import LengthNull, bootstrap, clusters_at, length_matched_null, sensitivity

__all__ = [
    "Exact",
    "LengthNull",
    "agglomerative",
    "bootstrap",
    "chance_rate",
    "cluster_entropy",
    "clusters_at",
    "compression_ratio",
    "coverage_at_k",
    "distinct",
    "distinct_n",
    "duplicate_rate",
    "effective_number_of",
    "effective_sample_size",
    "embed",
    "exact_measures",
    "excess_information",
    "expected_information",
    "follow_rate",
    "hdbscan",
    "hill_number",
    "information",
    "kappa",
    "kmeans",
    "length_matched_null",
    "mean_pairwise_distance",
    "novelty_by_index",
    "number_of_clusters",
    "paraphrase_share",
    "pass_at_k",
    "richness",
    "saturation",
    "self_bleu",
    "sensitivity",
    "sequence_entropy",
    "strategy_counts",
    "surprisal",
    "token_entropy",
    "unseen_mass",
    "vendi_score",
    "zero_variance_fraction",
]

_LATE = {
    "clusters": (
        "agglomerative",
        "cluster_entropy",
        "hdbscan",
        "kmeans",
        "mean_pairwise_distance",
        "number_of_clusters",
        "vendi_score",
    ),
    "embeddings": ("embed",),
    "fidelity": (
        "chance_rate",
        "excess_information",
        "expected_information",
        "follow_rate",
        "information",
        "kappa",
        "paraphrase_share",
    ),
    "resampling": ("LengthNull", "bootstrap", "clusters_at", "length_matched_null", "sensitivity"),
}


def __getattr__(name: str) -> Any:
    """Import on first use what pandas, scikit-learn and sentence-transformers stand behind."""
    for module, names in _LATE.items():
        if name in names:
            return getattr(import_module(f"sesa_lab.diversity.{module}"), name)
    raise AttributeError(f"module 'sesa_lab.diversity' has no attribute {name!r}")
