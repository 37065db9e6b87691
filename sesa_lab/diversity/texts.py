"""Measures on the words of texts, without a model: distinct-n, self-BLEU, compression ratio.

All three depend on length as well as on diversity (longer texts repeat words more): compare texts of similar length, or see
``length_matched_null``. Any string is taken: control characters, lone surrogates, empty ones.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Split: TypeAlias = Callable[[str], Sequence[str]]
"""How a text becomes words."""
Numbers: TypeAlias = NDArray[np.int64]


def distinct_n(texts: Sequence[str], n: int = 2, split: Split = str.split) -> float:
    """Distinct n-grams of words as a share of all n-grams, over all texts together (Li et al. 2016, arXiv 1510.03055).

    It falls with the number of texts and their length, whatever their diversity.

    Args:
        texts: in any order; those of fewer than n words hold no n-gram.
        n: words, >= 1.
        split: text to words; default: at white space.

    Returns:
        1 / (number of n-grams)..1: 1 = none occurs twice; m equal texts: 1/m of what one alone has; NaN where there is no
        n-gram.

    Raises:
        ValueError: n < 1.
    """
    if n < 1:
        raise ValueError(f"expected n >= 1 words, got {n}")
    _, grams, _ = _ngrams(*_numbered(texts, split), n)[-1]
    return (int(grams.max()) + 1) / len(grams) if len(grams) else math.nan  # kinds are numbered without gaps


def self_bleu(texts: Sequence[str], order: int = 4, split: Split | None = None) -> float:
    """Mean BLEU of each text against all the others as references (Zhu et al. 2018, arXiv 1802.01886); low = diverse.

    BLEU is sacrebleu's sentence BLEU (Post 2018): exponential smoothing, effective order, length penalty by the closest
    reference. All pairs are compared by the two largest counts of each n-gram, in time and memory linear in the words,
    and the result is that of comparing each with all others one by one.

    Args:
        texts: in any order; those without words are left out.
        order: longest n-gram, >= 1.
        split: text to words; None: sacrebleu's default, 13a.

    Returns:
        0..1: 1 = all the same, 0 = no text shares a word with another; NaN below two texts with words.

    Raises:
        ValueError: order < 1.
    """
    if order < 1:
        raise ValueError(f"expected an order >= 1, got {order}")
    from sacrebleu.metrics.bleu import BLEU  # loads for a second

    words, lengths = _numbered(texts, split or _split_13a())
    lengths = lengths[lengths > 0]  # a text without words has none in `words` either
    count = len(lengths)
    if count < 2:
        return math.nan
    correct = np.zeros((count, order), dtype=np.int64)
    for n, grams, owners in _ngrams(words, lengths, order):
        correct[:, n - 1] = _matched(grams, owners, count)
    total = np.maximum(0, lengths[:, None] - np.arange(order))
    closest = _closest_others(lengths)
    scores = [
        BLEU.compute_bleu(
            correct[i].tolist(),
            total[i].tolist(),
            int(lengths[i]),
            int(closest[i]),
            smooth_method="exp",
            effective_order=True,
            max_ngram_order=order,
        ).score
        for i in range(count)
    ]
    return min(1.0, math.fsum(scores) / count / 100.0)


def compression_ratio(texts: Sequence[str]) -> float:
    """Bytes of all texts / bytes after zlib, level 9 (Shaib et al. 2024, arXiv 2403.00553); low = diverse.

    The texts are sorted and put on a line each, so that their order does not matter; zlib sees repeats within 32 KB, and
    sorting brings texts of equal beginnings together. Lone surrogates count their three bytes.

    Returns:
        About 0.1 (a few bytes, which zlib's frame outweighs)..1032 (zlib's own bound: one letter over and over). English
        prose compresses to about 2-3; NaN where all texts are empty.
    """
    compressor = zlib.compressobj(9)
    raw = packed = 0
    for i, encoded in enumerate(sorted(text.encode("utf-8", "surrogatepass") for text in texts)):
        line = b"\n" + encoded if i else encoded
        raw += len(line)
        packed += len(compressor.compress(line))
    packed += len(compressor.flush())
    return raw / packed if any(texts) else math.nan


def _split_13a() -> Split:
    """Tokeniser 13a of sacrebleu, whose two caches would otherwise hold up to 65,536 texts each, of any size."""
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
    from sacrebleu.tokenizers.tokenizer_re import TokenizerRegexp

    tokenizer = Tokenizer13a()

    def split(text: str) -> list[str]:
        words = str(tokenizer(text.rstrip())).split()
        Tokenizer13a.__call__.cache_clear()
        TokenizerRegexp.__call__.cache_clear()
        return words

    return split


def _numbered(texts: Sequence[str], split: Split) -> tuple[Numbers, Numbers]:
    """All words one after another as numbers, and (texts,) how many each text has."""
    known: dict[str, int] = {}
    pieces = [
        np.fromiter((known.setdefault(word, len(known)) for word in split(text)), dtype=np.int64) for text in texts
    ]
    lengths = np.asarray([len(piece) for piece in pieces], dtype=np.int64)
    return np.concatenate([np.zeros(0, dtype=np.int64), *pieces]), lengths


def _ngrams(words: Numbers, lengths: Numbers, most: int) -> list[tuple[int, Numbers, Numbers]]:
    """For n = 1..most: n, the number of every n-gram's kind, and which text it stands in."""
    owners = np.repeat(np.arange(len(lengths)), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(words))  # words from here to the end of the text
    grams, starts, found = words, np.arange(len(words)), []
    for n in range(1, most + 1):
        if n > 1:
            kept = left[starts] >= n
            starts = starts[kept]
            # A longer n-gram is the pair (kind of the shorter one, next word); kinds are numbered afresh to stay small.
            pairs = grams[kept] * (int(words.max(initial=0)) + 1) + words[starts + n - 1]
            grams = np.unique(pairs, return_inverse=True)[1].reshape(-1)
        found.append((n, grams, owners[starts]))
    return found


def _matched(grams: Numbers, owners: Numbers, count: int) -> Numbers:
    """(count,) how many of each text's n-grams occur in another text, each at most as often as in the richest other."""
    pairs, times = np.unique(grams * count + owners, return_counts=True)
    kinds, texts = np.divmod(pairs, count)
    order = np.lexsort((-times, kinds))
    kinds, texts, times = kinds[order], texts[order], times[order]
    first = np.flatnonzero(np.r_[True, kinds[1:] != kinds[:-1]][: len(kinds)])
    size = np.diff(np.r_[first, len(kinds)])
    second = np.where(size > 1, times[np.minimum(first + 1, len(times) - 1)] if len(times) else 0, 0)
    best = np.repeat(times[first], size)
    best[first] = second  # who holds the largest count is compared with the next
    return np.bincount(texts, weights=np.minimum(times, best), minlength=count).astype(np.int64)


def _closest_others(lengths: Numbers) -> Numbers:
    """(n,) the length among the other texts that is closest to each one's own; of two, the shorter."""
    values, counts = np.unique(lengths, return_counts=True)
    below = np.r_[-(2**62), values[:-1]]
    above = np.r_[values[1:], 2**62]
    others = np.where(values - below <= above - values, below, above)
    return np.asarray(np.where(counts > 1, values, others)[np.searchsorted(values, lengths)])
