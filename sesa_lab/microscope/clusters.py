"""Clusters of the texts of one or two runs, in the place of strategies: for what cannot be read as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sesa_lab.diversity.embeddings import DEFAULT
from sesa_lab.embedding_map import data
from sesa_lab.embedding_map.data import Embedder
from sesa_lab.microscope.data import Selection, View, shares_of

MOST_TEXTS = 1000
"""Of a run that are embedded, which takes some ten seconds: a sample balanced over its steps, within that of the embedding map."""
_KEY = ["step", "group", "index"]
_SHOWN = ["group", "index", "task", "reward", "success", "strategy", "completion"]
_EXAMPLE = 60  # letters of a name


class Mass(NamedTuple):
    """What a policy gives to each cluster, estimated by the sampled candidates of one step.

    Attributes:
        step: which: the last one before, or at, the step asked for that has some in the sample; else the first that has.
        candidates: how many they are.
        direct: whether all of them were drawn given the task alone, which is the policy itself; no others are counted where
            there are such.
        share: one a cluster, 0..1.
        success: likewise, the part of the share that succeeded.
    """

    step: int
    candidates: int
    direct: bool
    share: list[float]
    success: list[float]


@dataclass(frozen=True, eq=False)
class Clusters:
    """k-means clusters of the embedded texts of all runs together, as the embedding map has them.

    Attributes:
        names: one a cluster, by the texts they have, most first; each with the text that is most frequent in it.
        shares: one table a run, as ``View.shares``; ``strategy`` is the name of a cluster.
        tables: one a run: its sampled candidates, what ``data.samples`` returns of them and ``step``, ``cluster`` (its name) and
            ``direct`` (drawn given the task alone).
        embedder: name of what made the vectors.
    """

    names: list[str]
    shares: list[pd.DataFrame] = field(repr=False)
    tables: list[pd.DataFrame] = field(repr=False)
    embedder: str

    def samples(self, chosen: Selection) -> pd.DataFrame:
        """The sampled candidates of a cluster, in the order drawn; columns as ``data.samples``."""
        rows = self.tables[chosen.run]
        rows = rows[(rows["step"] == chosen.step) & (rows["cluster"] == chosen.cluster)]
        return rows.loc[rows["success"] | (not chosen.success), _SHOWN].reset_index(drop=True)

    def mass(self, run: int, step: int) -> Mass:
        """The mass of each cluster at a step of the run at this place."""
        rows = self.tables[run]
        steps = rows["step"].unique()
        at = int(steps[max(0, int(np.searchsorted(steps, step, side="right")) - 1)])
        rows = rows[rows["step"] == at]
        direct = bool(rows["direct"].any())
        rows = rows[rows["direct"]] if direct else rows
        own = [rows["cluster"] == name for name in self.names]
        share = [float(there.mean()) for there in own]
        return Mass(at, len(rows), direct, share, [float((there & rows["success"]).mean()) for there in own])


def cluster(
    views: Sequence[View], embedder: Embedder = DEFAULT, most: int = MOST_TEXTS, seed: int = 0, cache: Any = None
) -> Clusters:
    """Embed a sample of each run's texts and cluster all of them together.

    Args:
        views: of ``data.read``.
        embedder: a model of ``diversity.embed``, or a function from texts to (texts, d) vectors.
        most: texts of each run.
        seed: of the samples and of k-means.
        cache: file that keeps a model's vectors; None: that of the embedding map, beside each run.

    Raises:
        InputError: an embedder that cannot.
    """
    samples = [data.read(view.run, "solutions", most, embedder, seed, cache) for view in views]
    labels = data.together(samples)
    counts: dict[int, Counter[str]] = {}
    for points, own in zip(samples, labels, strict=True):
        for number, text in zip(own.tolist(), points.table["text"], strict=True):
            counts.setdefault(number, Counter())[" ".join(text.split())[:_EXAMPLE]] += 1
    names = [f"cluster {number + 1}: {counts[number].most_common(1)[0][0]}" for number in sorted(counts)]
    tables = []
    for view, points, own in zip(views, samples, labels, strict=True):
        table = points.table.rename(columns={"text": "completion"})
        table = table.assign(cluster=[names[number] for number in own])
        drawn = view.run.read_rollouts([*_KEY, "drawn_under"], points.steps)
        table = table.merge(drawn, how="left", on=_KEY)
        tables.append(table.assign(direct=table["drawn_under"] == "task"))
    shares = [shares_of(table.assign(strategy=table["cluster"])) for table in tables]
    return Clusters(names, shares, tables, samples[0].embedder)
