"""How fast measures of diversity are: embeddings with and without their cache, all that needs no embedding, the Vendi score.

Texts are drawn anew each round, words by Zipf's law. The cache is a file of its own a round: the first pass embeds everything,
the second reads; how many texts the model itself was given is counted, so that a hit is a text that it was not.

The aim: all measures that need no embedding take at most ``AIM`` seconds together on 10,000 completions. The Vendi score needs
the eigenvalues of an n x n matrix; ours are those of the d x d one where that is smaller. Its rival is the definition.
"""

from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sesa_lab import diversity
from sesa_lab.diversity import embeddings
from sesa_lab.experiments.bench_pairs import Spent, both, median_spent, progress, ratios
from sesa_lab.experiments.bench_trl import clock, since
from sesa_lab.experiments.calibration_wordings import ENDINGS, OPENINGS, WORDINGS
from sesa_lab.seeding import stream

AIM = 10.0
"""Seconds that all measures without an embedding may take on the completions of ``LOAD``."""

LETTERS = tuple(f"w{number}" for number in range(5_000))
PROSE = tuple(
    dict.fromkeys(" ".join(chain(OPENINGS, ENDINGS, *WORDINGS.values())).replace("{", "").replace("}", "").split())
)
"""Words of completions: many, whatever they are; and words that an embedding model knows, mostly a token each."""


@dataclass(frozen=True)
class Load:
    """How much a round holds.

    Attributes:
        texts: that are embedded.
        words: of such a text, and of a completion.
        completions: that the measures without an embedding are of.
        strategies: among the completions.
        group: completions of a group.
        vectors: (n, d) that the Vendi score is of.
        rival: numbers of vectors, of width d, at which it is compared with its definition.
    """

    texts: int = 256
    words: int = 40
    completions: int = 10_000
    strategies: int = 500
    group: int = 16
    vectors: tuple[int, int] = (10_000, 384)
    rival: tuple[int, ...] = (500, 1_000, 2_000)


LOAD = Load()


@dataclass(frozen=True)
class Completions:
    """What the measures without an embedding take.

    Attributes:
        texts: one a completion.
        strategies: one a completion; some None.
        correct: whether it succeeded.
        groups: the strategies by group.
        counts: how many completions took each strategy.
        logprobs: of each completion, nats.
        vectors: (tokens, vocabulary) log-probs of every token of a few completions.
    """

    texts: list[str]
    strategies: list[int | None]
    correct: NDArray[np.bool_]
    groups: list[list[int | None]]
    counts: NDArray[np.int64]
    logprobs: NDArray[np.float64]
    vectors: NDArray[np.float64]


Measure = Callable[[Completions], Any]
MEASURES: dict[str, Measure] = {
    "distinct": lambda c: diversity.distinct(c.strategies, c.correct.tolist()),
    "strategy_counts": lambda c: diversity.strategy_counts(c.strategies),
    "hill_number": lambda c: [diversity.hill_number(c.counts, order) for order in (0, 1, 2)],
    "effective_number_of": lambda c: diversity.effective_number_of(c.counts),
    "unseen_mass": lambda c: diversity.unseen_mass(c.counts),
    "richness": lambda c: diversity.richness(c.counts),
    "novelty_by_index": lambda c: diversity.novelty_by_index(c.groups),
    "saturation": lambda c: diversity.saturation(diversity.novelty_by_index(c.groups)),
    "duplicate_rate": lambda c: diversity.duplicate_rate(c.strategies),
    "coverage_at_k": lambda c: diversity.coverage_at_k(c.strategies, 64),
    "pass_at_k": lambda c: diversity.pass_at_k(len(c.correct), int(c.correct.sum()), 64),
    "zero_variance_fraction": lambda c: diversity.zero_variance_fraction(np.array_split(c.correct, len(c.groups))),
    "surprisal": lambda c: diversity.surprisal(c.logprobs),
    "sequence_entropy": lambda c: diversity.sequence_entropy(c.counts / c.counts.sum()),
    "token_entropy": lambda c: diversity.token_entropy(c.vectors),
    "effective_sample_size": lambda c: diversity.effective_sample_size(np.exp(c.logprobs)),
    "exact_measures": lambda c: diversity.exact_measures(c.counts / c.counts.sum(), c.counts > 1, 64),
    "distinct_n": lambda c: [diversity.distinct_n(c.texts, n) for n in (1, 2, 3, 4)],
    "self_bleu": lambda c: diversity.self_bleu(c.texts),
    "compression_ratio": lambda c: diversity.compression_ratio(c.texts),
}
"""Everything in ``sesa_lab.diversity`` that gives a number without an embedding and without resampling."""


def compare(rounds: int, load: Load = LOAD) -> dict[str, Any]:
    """All three, one round of warm-up and then ``rounds``.

    Args:
        rounds: at least 1.
        load: how much a round holds.
    """
    return {
        "embedding": compare_embedding(rounds, load),
        "measures": compare_measures(rounds, load),
        "vendi": compare_vendi(rounds, load),
    }


def compare_embedding(rounds: int, load: Load) -> dict[str, Any]:
    """Texts embedded into an empty cache, and then the same ones again; ``hits`` are those of the second pass."""
    first: list[Spent] = []
    second: list[Spent] = []
    embedded: list[int] = []
    agree = True
    with tempfile.TemporaryDirectory() as scratch:
        for number in progress(rounds + 1, "embedding"):
            texts, cache = words(load.texts, load.words, number, PROSE), Path(scratch) / f"{number}.sqlite"
            embed = partial(diversity.embed, texts, cache=cache, device="cpu")
            with _counted() as seen:
                spent, new = _timed(embed)
                before = len(seen)
                again, old = _timed(embed)
            if number:
                first.append(spent)
                second.append(again)
                embedded.append(len(seen) - before)
                agree &= np.array_equal(new, old)
    found: dict[str, Any] = {"first": median_spent(first), "second": median_spent(second), "texts": load.texts}
    found |= {"ratio": ratios(first, second), "hits": 1.0 - float(np.mean(embedded)) / load.texts, "agree": agree}
    return found | {"words": load.words, "texts_per_second": load.texts / found["first"]["seconds"]}


def compare_measures(rounds: int, load: Load) -> dict[str, Any]:
    """Seconds of every measure of ``MEASURES``, and of all of them together."""
    spent: dict[str, list[Spent]] = {name: [] for name in MEASURES}
    for number in progress(rounds + 1, "measures"):
        given = completions(load, number)
        for name, measure in MEASURES.items():
            seconds, _ = _timed(partial(measure, given))
            if number:
                spent[name].append(seconds)
    found = {name: median_spent(each) for name, each in spent.items()}
    together = float(sum(each["seconds"] for each in found.values()))
    return {"each": found, "seconds": together, "completions": load.completions, "words": load.words, "aim": AIM}


def compare_vendi(rounds: int, load: Load) -> dict[str, Any]:
    """Seconds and memory on all vectors; on fewer, the definition's over ours, paired."""
    n, width = load.vectors
    full = unit(n, width, 0)
    spent = [_timed(partial(diversity.vendi_score, full))[0] for _ in range(rounds + 1)][1:]
    found: dict[str, Any] = {"vectors": [n, width], **median_spent(spent), "peak_mb": peak(diversity.vendi_score, full)}
    found["square_mb"] = n * n * 8 / 2**20
    found["rival"] = {}
    sides: dict[str, Callable[[NDArray[np.float64]], float]] = {
        "ours": diversity.vendi_score,
        "definition": by_definition,
    }
    for count in load.rival:
        times: dict[str, list[Spent]] = {name: [] for name in sides}
        differ = 0.0
        for number in progress(rounds + 1, f"Vendi, {count}"):
            x = unit(count, width, number + 1)
            values = {}
            for name in list(sides) if number % 2 == 0 else list(sides)[::-1]:
                seconds, values[name] = _timed(partial(sides[name], x))
                if number:
                    times[name].append(seconds)
            differ = max(differ, abs(values["ours"] / values["definition"] - 1.0))
        memory = {name: peak(side, x) for name, side in sides.items()}
        found["rival"][count] = {
            "ratio": ratios(times["definition"], times["ours"]),
            "memory": memory,
            "differ": differ,
        }
    return found


def by_definition(vectors: NDArray[np.float64]) -> float:
    """The Vendi score from all n eigenvalues of the n x n similarities."""
    eigenvalues = np.linalg.eigvalsh(vectors @ vectors.T / len(vectors))
    return diversity.effective_number_of(np.maximum(0.0, eigenvalues))


def words(count: int, length: int, number: int, vocabulary: Sequence[str] = LETTERS) -> list[str]:
    """Texts of so many words by Zipf's law, for round ``number``; no two are equal but by chance."""
    generator = stream(0, "sampling", number)
    shares = 1.0 / np.arange(1, len(vocabulary) + 1)
    drawn = generator.choice(len(vocabulary), (count, length), p=shares / shares.sum())
    return [" ".join(vocabulary[word] for word in row) for row in drawn.tolist()]


def completions(load: Load, number: int) -> Completions:
    """What the measures are of in round ``number``; one completion in ten cannot be read."""
    generator, n = stream(0, "tasks", number), load.completions
    drawn = np.minimum(generator.zipf(1.5, n), load.strategies).tolist()
    strategies = [None if bad else int(each) for each, bad in zip(drawn, generator.random(n) < 0.1, strict=True)]
    groups = [strategies[i : i + load.group] for i in range(0, n, load.group)]
    logits = generator.normal(size=(load.words * load.group, 512))
    return Completions(
        words(n, load.words, number),
        strategies,
        generator.random(n) < 0.3,
        groups,
        diversity.strategy_counts(strategies),
        -generator.exponential(5.0, n),
        logits - np.log(np.exp(logits).sum(1, keepdims=True)),
    )


def unit(count: int, width: int, number: int) -> NDArray[np.float64]:
    """(count, width) vectors of length 1 in a few dozen loose groups."""
    generator = stream(0, "environment", number)
    centres = generator.normal(size=(40, width))
    x = centres[generator.integers(40, size=count)] + generator.normal(size=(count, width))
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def peak(function: Callable[[Any], Any], argument: Any) -> float:
    """MiB that a call allocates at most at one time, beyond what there was."""
    tracemalloc.start()
    try:
        function(argument)
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def _timed(call: Callable[[], Any]) -> tuple[Spent, Any]:
    begin = clock()
    value = call()
    return since(begin), value


@contextmanager
def _counted() -> Iterator[list[str]]:
    """The texts that a model is given inside, whichever model it is."""
    seen: list[str] = []
    load = embeddings._encoder

    def counting(model: str, device: str | None) -> embeddings.Encode:
        encode = load(model, device)

        def counted(texts: Sequence[str]) -> embeddings.Vectors:
            seen.extend(texts)
            return encode(texts)

        return counted

    embeddings._encoder = counting  # type: ignore[assignment]
    try:
        yield seen
    finally:
        embeddings._encoder = load


def lines(result: Mapping[str, Any]) -> list[str]:
    """The table that is printed."""
    e, m, v = result["embedding"], result["measures"], result["vendi"]
    n, width = v["vectors"]
    slowest = sorted(m["each"].items(), key=lambda item: -item[1]["seconds"])[:4]
    found = [
        f"Measures of diversity: embeddings of {e['texts']} texts x {e['words']} words, {e['texts_per_second']:.0f} texts/s",
        f"first pass over the cache's second: {both(e['ratio'])}; hits {e['hits']:.0%}, bit for bit the same: {e['agree']}",
        f"{len(m['each'])} measures without an embedding, {m['completions']:,} completions x {m['words']} words:"
        f" {m['seconds']:.2f} s together (aim: {m['aim']:.0f} s)",
        "the slowest: " + ", ".join(f"{name} {each['seconds']:.2f} s" for name, each in slowest),
        f"Vendi score of {n:,} x {width}: {v['seconds']:.2f} s, {v['peak_mb']:.0f} MiB at most (n x n alone: {v['square_mb']:.0f})",
    ]
    for count, rival in v["rival"].items():
        memory = rival["memory"]
        found.append(
            f"  by its definition, n = {int(count):,}: {both(rival['ratio'])}; {memory['definition']:.0f} MiB against"
            f" {memory['ours']:.0f}; values differ by {rival['differ']:.0e} at most"
        )
    return found
