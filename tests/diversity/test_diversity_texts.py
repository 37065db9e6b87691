"""Measures on words against sacrebleu, one text at a time, counting by hand, and zlib's own bounds."""

from __future__ import annotations

import math
import zlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from sesa_lab.diversity import compression_ratio, distinct_n, self_bleu

WORDS = ["alpha", "beta,", "gam-ma", "delta.", "3.5", "x&amp;y", "(eps)", "ζ"]
HOSTILE = ["", " \t", "\x00\x1b[31m\x07", "a\ud800 b\udfff", "\u202eevil\u2028line", "word " * 200_000, "x" * 10**6]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=7).map(" ".join), max_size=7)


def test_distinct_n_by_hand() -> None:
    # Bigrams: ab, bc | ab, bd | - : 3 of 4; words: a b c d of 7; trigrams: 2 of 2.
    texts = ["a b c", "a b d", "a"]
    assert distinct_n(texts, 1) == pytest.approx(4 / 7)
    assert distinct_n(texts, 2) == pytest.approx(3 / 4)
    assert distinct_n(texts, 3) == 1.0
    assert distinct_n(["abc", "abd"], 2, split=list) == pytest.approx(3 / 4)


def test_distinct_n_of_the_extremes() -> None:
    assert distinct_n(["a b c"] * 10) == pytest.approx(1 / 10)
    assert distinct_n(["a b", "c d", "e f"]) == 1.0
    for nothing in ([], ["", "  "], ["a", "b"]):
        assert math.isnan(distinct_n(nothing))
    with pytest.raises(ValueError, match="got 0"):
        distinct_n(["a"], 0)


@given(TEXTS, st.integers(1, 4))
@settings(max_examples=50)
def test_distinct_n_against_counting(texts: list[str], n: int) -> None:
    grams = Counter(tuple(w[i : i + n]) for w in map(str.split, texts) for i in range(len(w) - n + 1))
    expected = len(grams) / grams.total() if grams else math.nan
    assert distinct_n(texts, n) == pytest.approx(expected, nan_ok=True)
    assert distinct_n(texts[::-1], n) == pytest.approx(expected, nan_ok=True)


def one_by_one(texts: list[str], bleu: BLEU) -> float:
    texts = [text for text in texts if text.strip()]
    if len(texts) < 2:
        return math.nan
    scores = [bleu.sentence_score(text, texts[:i] + texts[i + 1 :]).score for i, text in enumerate(texts)]
    return float(np.mean(scores)) / 100.0


@given(TEXTS)
@settings(max_examples=60)
def test_self_bleu_against_sacrebleu(texts: list[str]) -> None:
    expected = one_by_one(texts, BLEU(effective_order=True))
    assert self_bleu(texts) == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert self_bleu(texts[::-1]) == pytest.approx(expected, abs=1e-12, nan_ok=True)
    expected = one_by_one(texts, BLEU(effective_order=True, tokenize="none", max_ngram_order=2))
    assert self_bleu(texts, order=2, split=str.split) == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_self_bleu_by_hand() -> None:
    # "a b" against "a c": 1 of 2 words, 0 of 1 bigrams, smoothed to 1 / (2 * 1); sqrt(1/2 * 1/2), and the same back.
    assert self_bleu(["a b", "a c"]) == pytest.approx(0.5)


def test_self_bleu_of_the_extremes() -> None:
    assert self_bleu(["a b c d e"] * 6) == 1.0
    assert self_bleu(["a", "a"]) == 1.0  # shorter than the longest n-gram
    assert self_bleu(["a b", "c d", "e f"]) == 0.0
    # Two groups of equal texts: each has its twin among the others.
    assert self_bleu(["a b", "c d", "a b", "c d"]) == 1.0
    for nothing in ([], ["a b"], ["", " "], ["a b", ""]):
        assert math.isnan(self_bleu(nothing))
    with pytest.raises(ValueError, match="got 0"):
        self_bleu(["a", "b"], 0)


def test_self_bleu_leaves_no_text_in_sacrebleu_s_cache() -> None:
    self_bleu(["one long text", "and another"])
    assert Tokenizer13a.__call__.cache_info().currsize == 0


def test_compression_ratio() -> None:
    texts = ["the cat sat", "on the mat", ""]
    joined = b"\non the mat\nthe cat sat"
    assert compression_ratio(texts) == pytest.approx(len(joined) / len(zlib.compress(joined, 9)))
    assert compression_ratio(["a"]) == pytest.approx(1 / len(zlib.compress(b"a", 9)))
    assert 900 < compression_ratio(["a" * 10**6]) < 1032
    assert math.isnan(compression_ratio([])) and math.isnan(compression_ratio(["", ""]))


def test_compression_tells_copies_from_noise() -> None:
    letters = np.random.default_rng(0).integers(97, 123, (200, 60)).astype(np.uint8)
    texts = [row.tobytes().decode() for row in letters]
    # Uniform letters hold log2(26) = 4.7 of 8 bits: no better than 8 / 4.7 = 1.7.
    assert 1.4 < compression_ratio(texts) < 1.71
    assert compression_ratio(texts[:1] * 200) > 60


@given(st.lists(st.text(max_size=20), max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_order_of_texts_does_not_matter(texts: list[str], shuffle: object) -> None:
    moved = list(texts)
    shuffle.shuffle(moved)
    for measure in (distinct_n, self_bleu, compression_ratio):
        assert measure(moved) == pytest.approx(measure(texts), nan_ok=True)


def test_hostile_texts() -> None:
    assert 0.0 < distinct_n(HOSTILE) <= 1.0
    assert 0.0 <= self_bleu(HOSTILE) <= 1.0
    assert compression_ratio(HOSTILE) > 1.0
