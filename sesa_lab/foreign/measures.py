"""What is measured on anyone's samples: group by group, then averaged over groups.

A group is what was asked, within one step. Each group counts once, however many samples it has; groups where a measure has no value
(NaN) are left out of its average, and ``n`` counts those that are in. Most measures of diversity grow or fall with the number of
samples: compare logs whose groups are of one size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sesa_lab import diversity
from sesa_lab.errors import InputError
from sesa_lab.foreign.files import clean
from sesa_lab.seeding import stream
from sesa_lab.statistics import bootstrap_mean

T = TypeVar("T")
Same = Callable[[Iterable[T]], Iterable[T]]

RESAMPLES = 1_000
MOST_WORDED = 16
"""Self-BLEU, which is most of the work, is of at most so many of a group's texts, drawn at random, the same in every run."""
MOST_WORDED_GROUPS, FEWEST_WORDED_GROUPS = 256, 16
"""And of at most so many groups, drawn likewise, spread evenly over the steps, but at least so many a step; ``n`` tells."""
MOST_CLUSTERED = 512
"""Embeddings of a group are clustered, and scored, up to so many, drawn likewise."""
MOST_READ = 1_000
"""Characters of a text, from its beginning, that distinct-n and self-BLEU read."""
CLUSTER_DISTANCE = 0.3

KINDS = ("texts", "strategies")
WORDS = {
    "samples": "samples a group",
    "characters": "mean length, characters",
    "success": "success: share of judged samples that are right",
    "zero_variance": "groups whose rewards are all equal, share",
    "distinct_{kind}": "distinct {kind}",
    "distinct_{kind}_correct": "distinct {kind} among the right samples",
    "duplicate_{kind}": "duplicate rate of {kind}: share that came earlier",
    "effective_{kind}": "effective number of {kind} (Hill 1)",
    "hill_2_{kind}": "effective number of {kind} (Hill 2)",
    "unseen_{kind}": "unseen mass of {kind} (Good-Turing)",
    "richness_{kind}": "number of {kind}, unseen ones included (Chao1)",
    "distinct_1": "distinct-1: distinct words, share",
    "distinct_2": "distinct-2: distinct pairs of words, share",
    "self_bleu": "self-BLEU, low = diverse",
    "compression_ratio": "compression ratio, low = diverse",
    "pairwise_distance": "mean cosine distance of two texts' embeddings",
    "vendi": "Vendi score: effective number by embeddings",
    "clusters": f"clusters of embeddings (average linkage, distance {CLUSTER_DISTANCE:g})",
}
LABELS = {name.format(kind=kind): words.format(kind=kind) for kind in KINDS for name, words in WORDS.items()}


@dataclass(frozen=True)
class Measured:
    """What was found.

    Attributes:
        groups: one row a group: ``step`` (where there is one), ``group`` (0, 1 ... in order of first appearance), ``asked``, and
            one column a measure.
        averages: one row a (step, measure): ``mean`` over groups, ``low`` and ``high`` of its 95 % bootstrap interval (NaN
            where one group has a value), ``n`` groups with a value. Measures without any value are not there.
    """

    groups: pd.DataFrame
    averages: pd.DataFrame

    @property
    def measures(self) -> list[str]:
        """Those that have a value, in order."""
        return list(self.averages["measure"].unique())

    @property
    def stepped(self) -> bool:
        """Whether there are steps."""
        return "step" in self.groups.columns


def about(measure: str) -> str:
    """What a measure is, in words: that of ``pass_at_8`` is ``pass@8``."""
    return LABELS.get(measure, measure.replace("_at_", "@"))


def measure(
    frame: pd.DataFrame, ks: Sequence[int] = (1, 8, 64), model: str = "", watch: Same[Any] = lambda groups: groups
) -> Measured:
    """Measure all groups.

    pass@k is of the judged samples, and where there are strategies coverage@k of the distinct strategies among right ones; both
    without bias, and only in groups of at least k. Texts and strategies are compared as they are, letter by letter.

    Args:
        frame: as in ``Samples``.
        ks: of pass@k.
        model: that embeds texts, as ``diversity.embed`` takes it; empty: nothing is embedded.
        watch: goes around the groups, to show progress.

    Raises:
        InputError: a k below 1, or a model that cannot be loaded.
    """
    if not ks or min(ks) < 1:
        raise InputError(f"k = {', '.join(map(str, ks))}: expected whole numbers >= 1, such as 1,8,64")
    frame = frame.reset_index(drop=True)  # its numbers are places in `vectors`
    stepped = bool(frame["step"].notna().any())
    whole = stepped and bool((frame["step"] % 1 == 0).all())
    with_strategies = bool(frame["strategy"].notna().any())
    vectors = diversity.embed(list(frame["text"]), model) if model else None
    asked: dict[str, int] = {}
    rows: list[dict[str, Any]] = []
    parts = list(frame.groupby(["step", "group"] if stepped else ["group"], sort=False))
    worded = _worded([key[0] if stepped else None for key, _ in parts])
    for key, part in watch(parts):
        number = asked.setdefault(key[-1], len(asked))
        place: dict[str, Any] = {"group": number, "asked": _shown(key[-1])}
        if stepped:
            place = {"step": int(key[0]) if whole else key[0], **place}
        generator = stream(0, "evaluation", len(rows))  # of the caps: the same whatever else is measured
        found = _of_group(part, ks, with_strategies)
        found |= _of_words(list(part["text"]), generator if len(rows) in worded else None)
        if vectors is not None:
            found |= _of_vectors(vectors[part.index.to_numpy()], generator)
        rows.append(place | found)
    groups = pd.DataFrame(rows)
    if stepped:
        groups = groups.sort_values("step", kind="stable", ignore_index=True)
    return Measured(groups, _averages(groups, stepped))


def _shown(asked: str) -> str:
    """The beginning of what was asked, in one line; a spreadsheet takes it for a text, not for a formula."""
    line = clean(asked)
    return f"'{line}" if line[0] in "=+-@" and not re.fullmatch(r"[+-]?[0-9.]+", line) else line


def _worded(steps: Sequence[Any]) -> set[int]:
    """The groups, by number, whose self-BLEU is measured."""
    different = list(dict.fromkeys(steps))
    most = max(FEWEST_WORDED_GROUPS, MOST_WORDED_GROUPS // len(different))
    of_step: dict[Any, list[int]] = {step: [] for step in different}
    for number, step in enumerate(steps):
        of_step[step].append(number)
    chosen: set[int] = set()
    for i, numbers in enumerate(of_step.values()):
        chosen |= {numbers[place] for place in _some(len(numbers), most, stream(0, "tasks", i))}
    return chosen


def _of_group(part: pd.DataFrame, ks: Sequence[int], with_strategies: bool) -> dict[str, float]:
    texts = list(part["text"])
    correct = part["correct"].to_numpy(dtype=float)
    judged = correct[~np.isnan(correct)]
    right = correct == 1.0
    found: dict[str, float] = {
        "samples": len(texts),
        "success": float(judged.mean()) if len(judged) else math.nan,
    }
    hits = int(judged.sum())
    found |= {f"pass_at_{k}": diversity.pass_at_k(len(judged), hits, k) if len(judged) else math.nan for k in ks}
    if with_strategies:
        known = list(part["strategy"])
        solved = [s if hit else None for s, hit in zip(known, right, strict=True)]
        solved = [s for s, value in zip(solved, correct, strict=True) if not math.isnan(value)]
        found |= {f"coverage_at_{k}": diversity.coverage_at_k(solved, k) if len(judged) else math.nan for k in ks}
        found |= _of_kinds("strategies", known, right, len(judged) > 0)
    found |= _of_kinds("texts", texts, right, len(judged) > 0)
    found["zero_variance"] = diversity.zero_variance_fraction([part["reward"].to_numpy(dtype=float)])
    return found


def _of_kinds(kind: str, values: Sequence[str | None], right: NDArray[np.bool_], judged: bool) -> dict[str, float]:
    """Of strategies, or of texts taken as such; no value where no sample of the group has one."""
    counts = diversity.strategy_counts(values)
    some = len(counts) > 0
    return {
        f"distinct_{kind}": float(len(counts)),
        f"distinct_{kind}_correct": float(diversity.distinct(values, list(right))) if judged else math.nan,
        f"duplicate_{kind}": diversity.duplicate_rate(values),
        f"effective_{kind}": diversity.hill_number(counts, 1) if some else math.nan,
        f"hill_2_{kind}": diversity.hill_number(counts, 2) if some else math.nan,
        f"unseen_{kind}": diversity.unseen_mass(counts),
        f"richness_{kind}": diversity.richness(counts),
    }


def _of_words(texts: Sequence[str], generator: Any | None) -> dict[str, float]:
    """``generator``: chooses the texts of self-BLEU; None: it is not measured."""
    read = [text[:MOST_READ] for text in texts]
    most = MOST_WORDED if generator is not None else 0
    return {
        "distinct_1": diversity.distinct_n(read, 1),
        "distinct_2": diversity.distinct_n(read, 2),
        "self_bleu": diversity.self_bleu([read[i] for i in _some(len(read), most, generator)]),
        "compression_ratio": diversity.compression_ratio(texts),
        "characters": float(np.mean([len(text) for text in texts])),
    }


def _of_vectors(vectors: NDArray[np.float32], generator: Any) -> dict[str, float]:
    """Texts in which the model sees nothing have a vector of zeros, and are left out."""
    seen = vectors[np.abs(vectors).sum(axis=1) > 0]
    some = seen[_some(len(seen), MOST_CLUSTERED, generator)]
    return {
        "pairwise_distance": diversity.mean_pairwise_distance(seen),
        "vendi": diversity.vendi_score(some),
        "clusters": float(diversity.number_of_clusters(diversity.agglomerative(some, CLUSTER_DISTANCE)))
        if len(some)
        else math.nan,
    }


def _some(count: int, most: int, generator: Any) -> NDArray[np.int64]:
    """At most ``most`` of 0..count-1, in order."""
    if count <= most or most == 0:
        return np.arange(min(count, most))
    return np.sort(generator.choice(count, most, replace=False))


def _averages(groups: pd.DataFrame, stepped: bool) -> pd.DataFrame:
    """One row a (step, measure). All measures of a step see the same resamples: success and pass@1 have one interval."""
    names = [name for name in groups.columns if name not in ("step", "group", "asked") and groups[name].notna().any()]
    parts = list(groups.groupby("step", sort=True)) if stepped else [(None, groups)]
    rows = []
    for number, (step, part) in enumerate(parts):
        for name in names:
            generator = stream(0, "bootstrap", number)
            interval = bootstrap_mean(part[name], generator, resamples=RESAMPLES)
            rows.append(({"step": step} if stepped else {}) | {"measure": name, **interval._asdict()})
    return pd.DataFrame(rows)
