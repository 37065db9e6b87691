"""What holds for every measure: no global generator, no n x n matrix, light imports, a docstring that says it all."""

from __future__ import annotations

import functools
import inspect
import random
import re
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch

from sesa_lab import diversity
from sesa_lab.diversity import (
    agglomerative,
    bootstrap,
    cluster_entropy,
    compression_ratio,
    coverage_at_k,
    distinct,
    distinct_n,
    hdbscan,
    hill_number,
    kmeans,
    length_matched_null,
    mean_pairwise_distance,
    novelty_by_index,
    richness,
    saturation,
    self_bleu,
    sequence_entropy,
    strategy_counts,
    surprisal,
    token_entropy,
    unseen_mass,
    vendi_score,
    zero_variance_fraction,
)

MANY = 10_000


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def texts(n: int, words: int = 6) -> list[str]:
    return [" ".join(f"w{word}" for word in row) for row in rng().integers(0, 2_000, (n, words))]


def vectors(n: int, d: int = 384) -> np.ndarray:
    x = rng().standard_normal((n, d), dtype=np.float32) + 0.1
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@functools.cache
def every_measure(n: int) -> dict[str, object]:
    """Each measure that must work on a whole run's completions, as a call without arguments."""
    words, strategies, x = texts(n), rng().integers(0, 500, n).tolist(), vectors(n)
    counts, groups = strategy_counts(strategies), np.asarray(strategies).reshape(-1, 10).tolist()
    p = np.full((n, 8), 1 / 8)
    halves = [np.arange(n)[: n // 2], np.arange(n)[n // 2 :]]
    return {
        "distinct": lambda: distinct(strategies),
        "coverage_at_k": lambda: coverage_at_k(strategies, 8),
        "hill_number": lambda: [hill_number(counts, order) for order in (0, 1, 2)],
        "unseen_mass": lambda: unseen_mass(counts),
        "richness": lambda: richness(counts),
        "novelty_by_index": lambda: saturation(novelty_by_index(groups)),
        "token_entropy": lambda: token_entropy(np.log(p)),
        "sequence_entropy": lambda: sequence_entropy(np.full(n, 1 / n)),
        "surprisal": lambda: surprisal(np.log(p[:, 0])),
        "zero_variance_fraction": lambda: zero_variance_fraction(groups),
        "distinct_n": lambda: distinct_n(words),
        "self_bleu": lambda: self_bleu(words),
        "compression_ratio": lambda: compression_ratio(words),
        "cluster_entropy": lambda: cluster_entropy(strategies),
        "mean_pairwise_distance": lambda: mean_pairwise_distance(x),
        "vendi_score": lambda: vendi_score(x),
        "bootstrap": lambda: bootstrap(
            groups, lambda part: float(np.mean([len(set(g)) for g in part])), rng(), resamples=3
        ),
        "length_matched_null": lambda: length_matched_null(
            halves, halves, lambda part: float(part[0]), rng(), shuffles=3
        ),
    }


@pytest.mark.parametrize("name", sorted(every_measure(10)))
def test_ten_thousand_completions_need_no_matrix_of_pairs(name: str) -> None:
    measure = every_measure(MANY)[name]
    tracemalloc.start()  # NumPy's arrays included
    try:
        measure()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # One byte a pair would be 100 MB. The vectors in float64 are 31 MB.
    assert peak < 80e6, f"{name} took {peak / 1e6:.0f} MB"


def test_no_global_generator_is_touched() -> None:
    calls = dict(every_measure(200))
    x = vectors(60, 5)
    calls |= {
        "agglomerative": lambda: agglomerative(x),
        "kmeans": lambda: kmeans(x, rng()),
        "hdbscan": lambda: hdbscan(x),
    }
    for name, measure in calls.items():
        states = random.getstate(), repr(np.random.mtrand.get_bit_generator().state), torch.get_rng_state()
        first, second = measure(), measure()
        assert repr(first) == repr(second), f"{name} is not fixed by its arguments"
        assert states[0] == random.getstate(), name
        assert states[1] == repr(np.random.mtrand.get_bit_generator().state), name
        assert torch.equal(states[2], torch.get_rng_state()), name


FRESH = """
import random, sys
import numpy as np
from sesa_lab.diversity import agglomerative, embed, hdbscan, kmeans

x = np.eye(6)[np.arange(30) % 3]
calls = {
    "agglomerative": lambda: agglomerative(x),
    "kmeans": lambda: kmeans(x, np.random.default_rng(0)),
    "hdbscan": lambda: hdbscan(x),
    "embed": lambda: embed(["a text"], device="cpu"),
}
before = random.getstate(), repr(np.random.mtrand.get_bit_generator().state)
calls[sys.argv[1]]()
assert before == (random.getstate(), repr(np.random.mtrand.get_bit_generator().state))
"""


@pytest.mark.parametrize(
    "name",
    [
        "agglomerative",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("kmeans", "hdbscan", "embed")),
    ],
)
def test_the_first_call_of_a_process_touches_no_global_generator_either(name: str) -> None:
    # scikit-learn draws from Python's global generator when it is imported, which only the first call does.
    subprocess.run([sys.executable, "-c", FRESH, name], check=True)


def test_importing_the_library_is_light() -> None:
    heavy = "pandas", "scipy", "sklearn", "sacrebleu", "sentence_transformers", "torch", "transformers"
    script = f"import sys, sesa_lab.diversity; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_everything_exported_is_there_and_says_what_it_returns() -> None:
    assert diversity.__all__ == sorted(diversity.__all__)
    late = [name for names in diversity._LATE.values() for name in names]
    assert sorted(late + [name for name in vars(diversity) if name in diversity.__all__ and name not in late]) == (
        diversity.__all__
    )
    for name in diversity.__all__:
        text = inspect.getdoc(getattr(diversity, name)) or ""
        assert re.search(r"\d|NaN", text), f"{name}: the docstring gives neither a range nor a shape"
    with pytest.raises(AttributeError, match="no attribute 'vendi'"):
        _ = diversity.vendi
