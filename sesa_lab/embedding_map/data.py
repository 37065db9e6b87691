"""What the map shows: a sample of a run's texts that is balanced over steps, their vectors, and two coordinates for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sesa_lab import diversity, runs
from sesa_lab.diversity.embeddings import DEFAULT
from sesa_lab.diversity.late import same_random
from sesa_lab.errors import InputError, suggest
from sesa_lab.runs.browse import nothing_yet
from sesa_lab.seeding import stream

Of = Literal["solutions", "sketches"]
Projection = Literal["pca", "tsne"]
Embedder: TypeAlias = str | Callable[[Sequence[str]], NDArray[np.floating]]

OF: tuple[Of, ...] = ("solutions", "sketches")
PROJECTIONS: tuple[Projection, ...] = ("pca", "tsne")
MOST = 10_000
"""A page draws so many points; more are slow to draw, and to embed."""
COLUMNS = ["step", "group", "index", "task", "reward", "success", "strategy", "text"]
CACHE = "embeddings.sqlite"
"""File beside a run folder that keeps vectors."""
MOST_CLUSTERS = 6
"""As many as a map has colours for."""
DISC = 64
"""Copies of a text with which the disc around its place is as wide as it gets."""
_KEY = ["step", "group", "index"]
_BEFORE_TSNE = 50  # principal components that t-SNE starts from: less noise, and faster


@dataclass(frozen=True, eq=False)
class Points:
    """A sample of a run's texts.

    Attributes:
        run: the run.
        of: what the texts are.
        table: one row a text by step, group and index, columns ``COLUMNS``. Of a sketch ``success`` says whether a candidate
            that follows it succeeded, ``strategy`` is that of the first that does (None: unreadable, or nobody follows it), and
            ``reward`` is NaN where the run has none.
        whole: how many texts the run has.
        texts: the different ones of the sample, in order of first appearance.
        which: (rows,) int64, the text of each row.
        vectors: (texts, d) float64 of length 1.
        embedder: its name.
        seed: of the sample.
    """

    run: runs.Run = field(repr=False)
    of: Of
    table: pd.DataFrame = field(repr=False)
    whole: int
    texts: list[str] = field(repr=False)
    which: NDArray[np.int64] = field(repr=False)
    vectors: NDArray[np.float64] = field(repr=False)
    embedder: str
    seed: int

    @property
    def steps(self) -> list[int]:
        """Steps with points, ascending."""
        return [int(step) for step in self.table["step"].unique()]


@dataclass(frozen=True, eq=False)
class Places:
    """Where the points of a sample lie.

    Attributes:
        x, y: (rows,) float64; copies of one text lie around its place.
        names: what the two axes are, with their unit or share.
        projection: how they were made, in words.
    """

    x: NDArray[np.float64] = field(repr=False)
    y: NDArray[np.float64] = field(repr=False)
    names: tuple[str, str]
    projection: str


def read(
    run: runs.Run | str | Path,
    of: Of = "solutions",
    most: int = 2000,
    embedder: Embedder = DEFAULT,
    seed: int = 0,
    cache: str | Path | None = None,
) -> Points:
    """Draw the sample and embed it.

    Numbers of steps and candidates are read first, then only the rows that were drawn are kept of each page.

    Args:
        run: a run or its folder.
        of: one of ``OF``.
        most: texts of the sample, 1..``MOST``; equally many a step as far as a step has them.
        embedder: a model as ``diversity.embed`` takes it, or a function from different texts to (texts, d) vectors.
        seed: of the sample.
        cache: file that keeps a model's vectors; None: ``CACHE`` beside the run folder. A function's are not kept.

    Raises:
        InputError: no run there, nothing committed, no sketches, a number out of range, or an embedder that cannot.
    """
    if of not in OF:
        raise InputError(f"a map of {of!r}; {suggest(str(of), list(OF))}")
    if not 1 <= most <= MOST:
        raise InputError(f"most = {most} texts, expected 1 .. {MOST}")
    run = run if isinstance(run, runs.Run) else runs.load(run)
    keys = run.read_rollouts(_KEY) if of == "solutions" else run.read_sketches(_KEY)
    if not len(keys):
        raise _nothing(run, of)
    drawn = _sample(keys, most, seed)
    table = _solutions(run, drawn) if of == "solutions" else _sketches(run, drawn)
    which, texts = pd.factorize(table["text"])
    words = [str(text) for text in texts]
    cache = run.path.parent / CACHE if cache is None else Path(cache)
    name, vectors = _embedded(words, embedder, cache)
    return Points(run, of, table, len(keys), words, which.astype(np.int64), vectors, name, seed)


def place(points: Points, projection: Projection = "pca") -> Places:
    """Two coordinates a point: of its text, and around it where the text has copies.

    Args:
        points: the sample.
        projection: ``pca``: the two directions in which the different texts vary most; distances far apart mean something.
            ``tsne``: neighbours stay neighbours (van der Maaten and Hinton 2008), distances and sizes mean nothing.

    Raises:
        InputError: another projection.
    """
    if projection not in PROJECTIONS:
        raise InputError(f"projection {projection!r}; {suggest(str(projection), list(PROJECTIONS))}")
    if projection == "tsne":
        at = _tsne(points.vectors, points.seed)
        names, how = ("t-SNE 1, no unit", "t-SNE 2, no unit"), "t-SNE: neighbours, not distances, mean something"
    else:
        at, shares = _pca(points.vectors, 2)
        names = (
            f"first component, {shares[0]:.0%} of the variance",
            f"second component, {shares[1]:.0%} of the variance",
        )
        how = "PCA"
    x, y = _spread(at, points.which)
    return Places(x, y, names, how)


def clusters(points: Points) -> NDArray[np.int64]:
    """(rows,) clusters by k-means of the different texts, with the k of 2..``MOST_CLUSTERS`` whose silhouette is largest.

    It measures how texts fall apart, not whether: see ``diversity.kmeans``. Numbered by the texts they have, most first.
    """
    return together([points])[0]


def together(samples: Sequence[Points]) -> list[NDArray[np.int64]]:
    """Clusters of the texts of several runs, as ``clusters`` of one: (rows,) each, a number means the same in all.

    Args:
        samples: at least one, all of one embedder; the seed is the first one's.
    """
    vectors = {text: vector for points in samples for text, vector in zip(points.texts, points.vectors, strict=True)}
    places = {text: place for place, text in enumerate(vectors)}
    which = [np.array([places[text] for text in points.texts], dtype=np.int64)[points.which] for points in samples]
    labels = diversity.kmeans(np.stack(list(vectors.values())), stream(samples[0].seed, "bootstrap", 1), MOST_CLUSTERS)
    sizes = np.bincount(labels[np.concatenate(which)], minlength=int(labels.max()) + 1)
    rank = np.empty(len(sizes), dtype=np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return [rank[labels][rows] for rows in which]


def quotas(counts: Sequence[int], most: int) -> list[int]:
    """How many of each step's texts are drawn: alike, but none more than there are; all of them where they are few enough.

    Where there are more steps than texts to draw, evenly spaced steps have one each, the first and the last among them.
    """
    found = [0] * len(counts)
    if len(counts) > most:
        for step in np.linspace(0, len(counts) - 1, most).round().astype(int):
            found[step] = 1
        return found
    left = most
    order = sorted(range(len(counts)), key=lambda step: counts[step])
    for rank, step in enumerate(order):  # what a small step cannot use goes to the larger ones
        found[step] = min(counts[step], left // (len(order) - rank))
        left -= found[step]
    return found


def _nothing(run: runs.Run, of: Of) -> InputError:
    if of == "sketches" and len(run.read_rollouts(["step"])):
        return InputError(
            f"{run.path} has no sketches (its sampler is {run.config.sampler.name}), expected a run with some;"
            " map its solutions: of='solutions'"
        )
    return nothing_yet(run, of)


def _sample(keys: pd.DataFrame, most: int, seed: int) -> pd.MultiIndex:
    ordered = keys.sort_values(_KEY, kind="stable", ignore_index=True)
    steps, starts, counts = np.unique(ordered["step"].to_numpy(), return_index=True, return_counts=True)
    rows = []
    for step, start, count, quota in zip(steps, starts, counts, quotas(counts.tolist(), most), strict=True):
        generator = stream(seed, "bootstrap", 0, int(step))
        rows.append(start + np.sort(generator.permutation(int(count))[:quota]))
    return pd.MultiIndex.from_frame(ordered.loc[np.concatenate(rows), _KEY])


def _solutions(run: runs.Run, drawn: pd.MultiIndex) -> pd.DataFrame:
    steps = drawn.unique("step").tolist()
    columns = [*COLUMNS[:-1], "completion"]
    kept = list(_kept(run.page_rollouts(columns, steps), drawn))
    table = pd.concat(kept, ignore_index=True).rename(columns={"completion": "text"})
    return _ordered(table)


def _sketches(run: runs.Run, drawn: pd.MultiIndex) -> pd.DataFrame:
    """A sketch's outcome is that of the candidates that follow it, be it in their first turn or in a later one."""
    steps = drawn.unique("step").tolist()
    # A sketch is short, and the run has no pages of them: those of the drawn steps are read at once.
    table = next(_kept(iter([run.read_sketches([*_KEY, "task", "reward", "text"], steps)]), drawn))
    found: dict[tuple[int, int, int], tuple[bool, str | None]] = {}
    for page in run.page_rollouts([*_KEY, "sketches", "success", "strategy"], steps):
        for row in page.itertuples(index=False):
            for number in row.sketches:
                key = (int(row.step), int(row.group), int(number))
                success, strategy = found.get(key, (False, None))
                known = None if pd.isna(row.strategy) else str(row.strategy)
                found[key] = (success or bool(row.success), strategy if key in found else known)
    outcomes = [found.get((int(s), int(g), int(i)), (False, None)) for s, g, i in table[_KEY].itertuples(index=False)]
    table["success"] = [success for success, _ in outcomes]
    table["strategy"] = pd.Series([strategy for _, strategy in outcomes], dtype=object, index=table.index)
    return _ordered(table)


def _kept(pages: Iterator[pd.DataFrame], drawn: pd.MultiIndex) -> Iterator[pd.DataFrame]:
    for page in pages:
        yield page[pd.MultiIndex.from_frame(page[_KEY]).isin(drawn)].copy()


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    table["strategy"] = table["strategy"].astype(object).where(table["strategy"].notna(), None)
    table["reward"] = table["reward"].astype("float64")
    return table[COLUMNS].sort_values(_KEY, kind="stable", ignore_index=True)


def _embedded(texts: list[str], embedder: Embedder, cache: Path) -> tuple[str, NDArray[np.float64]]:
    """Name of the embedder, and vectors of length 1."""
    if isinstance(embedder, str):
        name, vectors = embedder, np.asarray(diversity.embed(texts, embedder, cache), dtype=np.float64)
    else:
        name = getattr(embedder, "__name__", type(embedder).__name__)
        vectors = np.asarray(embedder(texts), dtype=np.float64)
    if vectors.ndim != 2 or len(vectors) != len(texts) or not vectors.shape[1]:
        raise InputError(
            f"embedder {name} returned vectors of shape {vectors.shape}, expected ({len(texts)}, d): one row a text"
        )
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(norms).all() and (norms > 0).all()):
        raise InputError(f"embedder {name} returned a vector that is 0 or not finite, expected a direction a text")
    return name, vectors / norms


def _pca(vectors: NDArray[np.float64], components: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n, components) coordinates and their shares of the variance; 0 for what there is not."""
    at, shares = np.zeros((len(vectors), components)), np.zeros(components)
    there = min(components, len(vectors) - 1, vectors.shape[1])
    if there < 1:
        return at, shares
    with same_random():
        from sklearn.decomposition import PCA

    model = PCA(there, svd_solver="full")
    at[:, :there] = model.fit_transform(vectors)
    variance = float(np.var(vectors, axis=0, ddof=1).sum())
    if variance > 0:
        shares[:there] = model.explained_variance_ / variance
    return at, shares


def _tsne(vectors: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    if len(vectors) < 4:  # of so few every arrangement is as good: there is no neighbourhood to keep
        return _pca(vectors, 2)[0]
    with same_random():
        from sklearn.manifold import TSNE

    small = _pca(vectors, min(_BEFORE_TSNE, len(vectors) - 1, vectors.shape[1]))[0]
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    state = int(stream(seed, "bootstrap", 2).integers(2**31))
    start = "pca" if small.shape[1] >= 2 else "random"
    return np.asarray(
        TSNE(perplexity=perplexity, init=start, random_state=state).fit_transform(small), dtype=np.float64
    )


def _spread(at: NDArray[np.float64], which: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Copies of a text in a spiral around its place, the first in the middle: else a thousand of them look like one.

    The spiral is that of a sunflower's seeds: equally dense everywhere. It is drawn closer where a text has many copies, so
    that no disc is wider than that of ``DISC``.
    """
    count = np.zeros(len(at), dtype=np.int64)
    number = np.empty(len(which), dtype=np.int64)
    for row, text in enumerate(which):
        number[row] = count[text]
        count[text] += 1
    closer = np.sqrt(np.minimum(1.0, DISC / np.maximum(1, count)))[which]
    radius, angle = np.sqrt(number) * closer, number * np.pi * (3.0 - np.sqrt(5.0))
    # Page-wise: a page is about twice as wide as high.
    span = np.where(np.ptp(at, axis=0) > 1e-9, np.ptp(at, axis=0), 1.0)
    x = at[which, 0] + 0.005 * span[0] * radius * np.cos(angle)
    y = at[which, 1] + 0.01 * span[1] * radius * np.sin(angle)
    return x, y
