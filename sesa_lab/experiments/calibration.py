"""How well metrics that see only text recover strategies whose true keys are known. ``sesa-lab experiment calibration``.

Where an environment reads a strategy off an answer, diversity can be counted. Elsewhere one clusters embeddings, or compares
words, at some threshold, and hopes. Here both are there: every metric is applied to answers of known strategies, drawn from lab
policies (``calibration_samples``) and told in prose (``calibration_wordings``), and held against the keys.

Nothing is chosen on what is judged. Tasks of even numbers are for calibration, odd ones are held out; a parameter that is
chosen (``own``) is the best on the calibration tasks of the same environment, or (``others``) on those of all other
environments of the same kind, as one has to do where no key exists, or (``default``) what the library does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sesa_lab import diversity
from sesa_lab.errors import InputError, writing
from sesa_lab.experiments import calibration_methods as methods
from sesa_lab.experiments import calibration_tables as tables
from sesa_lab.experiments.calibration_judged import judged
from sesa_lab.experiments.calibration_samples import POLICY_NAMES, Group, lab_groups
from sesa_lab.experiments.calibration_wordings import WORDINGS, crossed_groups, prose_groups
from sesa_lab.seeding import stream

REPORT = Path("reports/results/calibration.csv")
LAB, PROSE = "lab answers", "prose"


@dataclass(frozen=True)
class Calibrated:
    """What came out.

    Attributes:
        groups: the answers with their strategies.
        drawn: one row a policy, see ``lab_groups``; empty where only prose was asked for.
        clusterings: see ``measured``.
        values: see ``measured``.
        judged: see ``calibration_judged.judged``.
    """

    groups: list[Group]
    drawn: pd.DataFrame
    clusterings: pd.DataFrame
    values: pd.DataFrame
    judged: pd.DataFrame


def main(
    tasks: int = 16,
    samples: int = 64,
    seed: int = 0,
    out: Path | None = REPORT,
    cache: Path | None = None,
    environments: Sequence[str] = (*POLICY_NAMES, *WORDINGS),
) -> pd.DataFrame:
    """``run``, print the tables and the verdict, write ``out``; returns what was written: ``calibration_judged.judged``.

    Args:
        tasks: see ``run``.
        samples: see ``run``.
        seed: see ``run``.
        out: CSV file; None: nothing is written.
        cache: see ``run``.
        environments: see ``run``.

    Raises:
        InputError: as ``run``, or ``out`` cannot be written.
    """
    found = run(environments, tasks, samples, seed, cache)
    if len(found.drawn):
        print(found.drawn.round(2).to_string(index=False), end="\n\n", flush=True)
    for title, table in tables.all_of(found.judged).items():
        print(f"{title}\n{table.to_string()}", end="\n\n", flush=True)
    print(tables.verdict(found.judged))
    if out is not None:
        with writing(out, "name a file in a folder that can be written to"):
            out.parent.mkdir(parents=True, exist_ok=True)
            found.judged.round(4).to_csv(out, index=False)
    return found.judged


def run(
    environments: Sequence[str],
    tasks: int = 16,
    samples: int = 64,
    seed: int = 0,
    cache: Path | None = None,
    resamples: int = 1_000,
) -> Calibrated:
    """Draw, measure, judge.

    Args:
        environments: names among those of ``POLICY_NAMES`` and ``WORDINGS``.
        tasks: units an environment, even: half of them choose parameters, half are judged.
        samples: answers a group.
        seed: of the draws, of k-means and of the bootstrap.
        cache: of embeddings, as ``diversity.embed`` takes it.
        resamples: of the bootstrap over tasks.

    Raises:
        InputError: no or an unknown environment, fewer than 4 tasks, or an odd number of them.
    """
    _check(tasks, environments)
    lab = {name: POLICY_NAMES[name] for name in environments if name in POLICY_NAMES}
    prose = [name for name in environments if name in WORDINGS]
    groups, drawn = lab_groups(tasks, samples, seed, lab)
    groups += prose_groups(tasks, samples, seed, prose)
    clusterings, values = measured(groups, seed, cache)
    weights = worded(tasks, seed, cache, prose)
    found = judged(clusterings, values, weights, stream(seed, "bootstrap"), resamples)
    return Calibrated(groups, drawn, clusterings, values, found)


def kind_of(environment: str) -> str:
    """``LAB`` or ``PROSE``."""
    return PROSE if environment in WORDINGS else LAB


def measured(groups: Sequence[Group], seed: int, cache: Path | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every metric on every group.

    Args:
        groups: answers with strategies.
        seed: of k-means.
        cache: of embeddings.

    Returns:
        Clusterings: kind, environment, policy, unit, method, parameter, the numbers of ``calibration_methods.agreement`` and
        ``effective`` (number of clusters, Hill 1). Values: kind, environment, policy, unit, metric, value, turned so that more
        means more diverse; among the metrics ``true number`` and ``true effective number`` of strategies.
    """
    together = _embedded(groups, cache)
    rows, values = [], []
    for place, (group, embedded) in enumerate(zip(groups, together, strict=True)):
        vectors = {methods.EMBEDDED: embedded, methods.NGRAMS: methods.ngram_vectors(group.texts)}
        of = {
            "kind": kind_of(group.environment),
            "environment": group.environment,
            "policy": group.policy,
            "unit": group.unit,
        }
        for method, parameter, labels in methods.partitions(group.texts, vectors, stream(seed, "evaluation", place)):
            effective = math.exp(diversity.cluster_entropy(labels))
            agreed = methods.agreement(group.strategies, labels)
            rows.append({**of, "method": method, "parameter": parameter, **agreed, "effective": effective})
        counts = diversity.strategy_counts(group.strategies)
        truth = {"true number": len(counts), "true effective number": diversity.hill_number(counts, 1)}
        seen = {name: value * methods.DIRECTION[name] for name, value in methods.numbers(group.texts, vectors).items()}
        values += [{**of, "metric": name, "value": value} for name, value in {**truth, **seen}.items()]
    return pd.DataFrame(rows), pd.DataFrame(values)


def worded(tasks: int, seed: int, cache: Path | None, names: Sequence[str]) -> pd.DataFrame:
    """``calibration_methods.wording_weight`` of every task told in every wording.

    Returns:
        Columns kind, environment, unit, method (a representation), value.
    """
    crossed = crossed_groups(tasks, seed, names)
    rows = []
    for (group, wordings), embedded in zip(crossed, _embedded([group for group, _ in crossed], cache), strict=True):
        vectors = {methods.EMBEDDED: embedded, methods.NGRAMS: methods.ngram_vectors(group.texts)}
        for what, x in vectors.items():
            value = methods.wording_weight(x, group.strategies, wordings)
            rows.append((PROSE, group.environment, group.unit, what, value))
    return pd.DataFrame(rows, columns=["kind", "environment", "unit", "method", "value"])


def _embedded(groups: Sequence[Group], cache: Path | None) -> list[methods.Vectors]:
    """All groups' texts at once: equal ones are embedded once."""
    if not groups:
        return []
    texts = [text for group in groups for text in group.texts]
    vectors = diversity.embed(texts, cache=cache, device="cpu").astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)  # float32 is of length 1 to seven digits only
    return np.split(vectors, np.cumsum([len(group.texts) for group in groups])[:-1])


def _check(tasks: int, environments: Sequence[str]) -> None:
    known = (*POLICY_NAMES, *WORDINGS)
    for name in environments:
        if name not in known:
            raise InputError(f"no calibration of {name!r}; expected names among {', '.join(known)}")
    if not environments or tasks < 4 or tasks % 2:
        raise InputError(
            f"{len(environments)} environments and {tasks} tasks: expected one or more, and an even number of at least 4 tasks:"
            " half of them choose parameters, the other half is judged"
        )
