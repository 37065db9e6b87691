"""The benchmark of measures of diversity: what it counts, and that no measure is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from sesa_lab import diversity
from sesa_lab.diversity import embeddings
from sesa_lab.experiments import bench_diversity as bench

TINY = bench.Load(texts=5, words=6, completions=64, strategies=8, group=8, vectors=(300, 8), rival=(200,))

EMBEDDED = {
    "agglomerative", "cluster_entropy", "clusters_at", "embed", "hdbscan", "kmeans", "mean_pairwise_distance",
    "number_of_clusters", "vendi_score",
}  # fmt: skip
RESAMPLED = {"LengthNull", "bootstrap", "length_matched_null", "sensitivity"}


@pytest.fixture(autouse=True)
def _fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(texts: Sequence[str]) -> Any:
        return np.asarray([[len(text), 1.0, text.count("e")] for text in texts], dtype=np.float32)

    monkeypatch.setattr(embeddings, "_encoder", lambda model, device: encode)


def test_every_measure_without_an_embedding_is_timed() -> None:
    known = set(diversity.__all__) - EMBEDDED - RESAMPLED - {"Exact"}
    assert set(bench.MEASURES) <= known
    own = {"distinct", "self_bleu", "compression_ratio", "distinct_n", "hill_number", "coverage_at_k", "pass_at_k"}
    assert own <= set(bench.MEASURES)
    found = bench.compare_measures(1, TINY)
    assert set(found["each"]) == set(bench.MEASURES) and found["completions"] == 64
    assert found["seconds"] == pytest.approx(sum(each["seconds"] for each in found["each"].values()))
    given = bench.completions(TINY, 1)
    assert len(given.texts) == len(given.strategies) == 64 and given.counts.sum() < 64
    np.testing.assert_allclose(np.exp(given.vectors).sum(1), 1.0)


def test_a_hit_is_a_text_that_the_model_was_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    found = bench.compare_embedding(2, TINY)
    assert found["hits"] == 1.0 and found["agree"]
    assert found["ratio"]["seconds"]["n"] == 2 and found["texts_per_second"] > 0
    before = embeddings._encoder
    with bench._counted() as seen:
        diversity.embed(["one", "two", "one"])
    assert sorted(seen) == ["one", "two"] and embeddings._encoder is before
    whole = embeddings.embed
    monkeypatch.setattr(diversity, "embed", lambda texts, cache, device: whole(texts), raising=False)
    assert bench.compare_embedding(1, TINY)["hits"] == 0.0, "without a cache every text is embedded again"


def test_the_vendi_score_needs_no_square_of_the_number_of_texts() -> None:
    found = bench.compare_vendi(1, TINY)
    # 300 x 300 doubles are 0.69 MiB; 300 x 8 ones 0.02, of which a few copies are made.
    assert found["square_mb"] == pytest.approx(300 * 300 * 8 / 2**20) and found["peak_mb"] < 0.2
    rival = found["rival"][200]
    assert rival["differ"] < 1e-9 and rival["memory"]["definition"] > rival["memory"]["ours"]
    x = bench.unit(50, 8, 0)
    assert bench.by_definition(x) == pytest.approx(diversity.vendi_score(x))
    assert bench.peak(np.zeros, 2**20) == pytest.approx(8.0, rel=0.01)


def test_texts_are_drawn_anew_each_round_and_alike_each_time() -> None:
    assert bench.words(3, 4, 1) == bench.words(3, 4, 1) != bench.words(3, 4, 2)
    assert all(len(text.split()) == 4 for text in bench.words(3, 4, 1, bench.PROSE))


def test_what_is_printed() -> None:
    said = "\n".join(bench.lines(bench.compare(1, TINY)))
    assert "hits 100%, bit for bit the same: True" in said
    assert "20 measures without an embedding, 64 completions x 6 words" in said
    assert "Vendi score of 300 x 8" in said and "by its definition, n = 200" in said
