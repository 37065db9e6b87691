"""Choosing parameters on calibration tasks, judging them on held-out ones, and the intervals: bootstrap over tasks."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from sesa_lab.experiments import calibration_methods as methods
from sesa_lab.experiments.calibration_wordings import FEW, MANY, ONE, SEVERAL

Values = NDArray[np.float64]

OWN, OTHERS, DEFAULT = "own", "others", "default"
AGREEMENT = ("ari", "homogeneity", "completeness", "v_measure", "ratio", "over", "under")
ALL = "mean of environments"
TRUE, EFFECTIVE = "true number", "true effective number"
WORDED = "ari in many wordings"
CLUSTERS = ": effective number"
CLEAR = 1.2
"""Policies are ordered where their true effective numbers differ by a fifth or more: less is chance of the draw."""
CROSSED = (f"{FEW}, {SEVERAL}", f"{MANY}, {ONE}")
ORDERS = {"orders tasks": EFFECTIVE, "orders tasks, number": TRUE}
"""Measure -> the true value that tasks' metrics are correlated with."""

COLUMNS = ["kind", "environment", "method", "chosen", "measure", "mean", "low", "high", "tasks"]


def judged(
    clusterings: pd.DataFrame,
    values: pd.DataFrame,
    weights: pd.DataFrame,
    generator: np.random.Generator,
    resamples: int = 1_000,
) -> pd.DataFrame:
    """All numbers of held-out tasks, with 95 % bootstrap intervals over tasks.

    Args:
        clusterings: as ``calibration.measured`` returns it.
        values: likewise.
        weights: as ``calibration.worded`` returns it.
        generator: draws the resamples, the same tasks for every metric of an environment.
        resamples: how many.

    Returns:
        Columns ``COLUMNS``. ``chosen`` says how the parameter was (``own``, ``others``, ``default``; empty: there is none).
        Environment ``ALL`` is the mean over environments of a kind, resampled within each. Measures:

        - those of ``calibration_methods.agreement``, means over tasks and policies (``ratio`` geometric);
        - ``ari in many wordings``: of those groups of prose alone, with parameters chosen for them;
        - ``ari minus n-grams'``: paired with the same clustering of n-grams; ``parameter``: what was chosen;
        - ``orders tasks``: Spearman's rho of a metric with the true effective number over tasks, mean over policies; ``orders
          tasks, number``: with the true number;
        - ``orders policies``: share of the pairs of policies on one task that the metric orders as the truth does (``concordant``);
          ``orders against wording``: of the one pair in prose in which the fewer strategies have the more wordings;
        - ``strategy over wording``: ``calibration_methods.wording_weight``.
    """
    draws = {
        name: _draws(part["unit"], generator, resamples) for name, part in held_out(clusterings).groupby("environment")
    }
    picked = pd.concat([_picked(clusterings, chosen) for chosen in (OWN, OTHERS, DEFAULT)], ignore_index=True)
    rows = _agreements(picked, draws) + _in_many_wordings(clusterings, draws) + _over_rival(picked, draws)
    rows += _rankings(_with_clusters(values, picked), draws) + _weights(held_out(weights), draws)
    return pd.DataFrame(_with_mean(rows), columns=COLUMNS)


def held_out(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of tasks of odd numbers."""
    return frame[frame["unit"] % 2 == 1]


def best(clusterings: pd.DataFrame, environment: str, chosen: str) -> dict[str, float]:
    """Method -> the parameter it is judged with on ``environment`` (NaN: it has none); methods that have no choice are left out.

    Only rows of even tasks are looked at: the largest mean of the environments' mean adjusted Rand indices; of equals the smallest
    parameter. ``others``: of the same kind, and no other form of the same task, as prose about it is.
    """
    if chosen == DEFAULT:
        return {f"{way}, {what}": value for way, value in methods.DEFAULTS.items() for what in methods.REPRESENTATIONS}
    rows = clusterings[(clusterings["unit"] % 2 == 0) & clusterings["parameter"].notna()]
    if chosen == OTHERS:
        kind = clusterings.loc[clusterings["environment"] == environment, "kind"].iloc[0]
        rows = rows[(rows["environment"] != environment) & (rows["kind"] == kind)]
    else:
        rows = rows[rows["environment"] == environment]
    mean = rows.groupby(["method", "parameter", "environment"])["ari"].mean().groupby(["method", "parameter"]).mean()
    return {method: float(part.idxmax()[1]) for method, part in mean.groupby("method")}


def _picked(clusterings: pd.DataFrame, chosen: str) -> pd.DataFrame:
    """The held-out rows with the parameters chosen; methods without one stand among ``own``, chosen by nobody."""
    parts = []
    for environment, rows in held_out(clusterings).groupby("environment", sort=False):
        for method, parameter in best(clusterings, str(environment), chosen).items():
            parts.append(rows[(rows["method"] == method) & (rows["parameter"] == parameter)].assign(chosen=chosen))
        if chosen == OWN:
            parts.append(rows[rows["parameter"].isna()].assign(chosen=""))
    return pd.concat([clusterings.head(0).assign(chosen=chosen), *parts], ignore_index=True)


# --- resampling -----------------------------------------------------------------------------------------------------

Rows = list[tuple[dict[str, Any], str, Values, int]]
"""Where a number belongs, its measure, its value on all tasks and on every resample of them, and how many tasks there are."""


def _draws(units: pd.Series, generator: np.random.Generator, resamples: int) -> Values:
    """(resamples + 1, tasks) places of tasks in order; the first row is all of them once."""
    count = units.nunique()
    return np.vstack([np.arange(count), generator.integers(count, size=(resamples, count))])


def _mean(table: Values, axis: int) -> Values:
    """Mean of what is not NaN; NaN where all is."""
    known = ~np.isnan(table)
    counts, total = known.sum(axis), np.where(known, table, 0.0).sum(axis)
    return np.asarray(np.divide(total, counts, out=np.full(counts.shape, np.nan), where=counts > 0))


def _row(head: Mapping[str, Any], measure: str, drawn: Values, tasks: int) -> list[Any]:
    """One row of ``COLUMNS``; no interval where there is no value, or none on any resample."""
    known = drawn[1:][~np.isnan(drawn[1:])]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) and not np.isnan(drawn[0]) else (np.nan, np.nan)
    place = [head[name] for name in ("kind", "environment", "method", "chosen")]
    return [*place, measure, float(drawn[0]), float(low), float(high), tasks]


def _with_mean(rows: Rows) -> list[list[Any]]:
    """The rows, and after them the mean of each kind's environments, resample by resample."""
    kinds: dict[tuple[str, str, str, str], list[tuple[Values, int]]] = {}
    for head, measure, drawn, tasks in rows:
        kinds.setdefault((head["kind"], head["method"], head["chosen"], measure), []).append((drawn, tasks))
    found = [_row(*row) for row in rows]
    for (kind, method, chosen, measure), parts in kinds.items():
        head = {"kind": kind, "environment": ALL, "method": method, "chosen": chosen}
        logs = measure == "ratio"
        table = np.vstack([np.log(drawn) if logs else drawn for drawn, _ in parts])
        mean = np.exp(_mean(table, 0)) if logs else _mean(table, 0)
        found.append(_row(head, measure, mean, sum(tasks for _, tasks in parts)))
    return found


def _over_tasks(of_unit: pd.Series, draws: Values) -> Values:
    """(resamples + 1,) means over the tasks drawn of one value a task, without NaN."""
    return _mean(of_unit.sort_index().to_numpy(dtype=np.float64)[draws], 1)


# --- what is judged -------------------------------------------------------------------------------------------------


def _agreements(picked: pd.DataFrame, draws: Mapping[Any, Values]) -> Rows:
    rows: Rows = []
    keys = ["kind", "environment", "method", "chosen"]
    for names, part in picked.assign(ratio=np.log(picked["ratio"])).groupby(keys, sort=False):
        head = dict(zip(keys, names, strict=True))
        measures = [*AGREEMENT, *(["parameter"] if part["parameter"].notna().all() else [])]
        of_unit = part.groupby("unit")[measures].mean()
        for measure in measures:
            drawn = _over_tasks(of_unit[measure], draws[head["environment"]])
            rows.append((head, measure, np.exp(drawn) if measure == "ratio" else drawn, len(of_unit)))
    return rows


def _in_many_wordings(clusterings: pd.DataFrame, draws: Mapping[Any, Values]) -> Rows:
    """Adjusted Rand index of prose in many wordings, parameters chosen for it alone."""
    worded = clusterings[clusterings["policy"].str.endswith(SEVERAL)]
    rows = _agreements(pd.concat([_picked(worded, chosen) for chosen in (OWN, OTHERS, DEFAULT)]), draws)
    return [(head, WORDED, drawn, tasks) for head, measure, drawn, tasks in rows if measure == "ari"]


def _over_rival(picked: pd.DataFrame, draws: Mapping[Any, Values]) -> Rows:
    """What embeddings have in adjusted Rand index over n-grams clustered in the same way, task by task."""
    rows: Rows = []
    keys = ["kind", "environment", "chosen"]
    for names, part in picked[picked["chosen"] != ""].groupby(keys, sort=False):
        of = part.groupby(["method", "unit"])["ari"].mean().unstack("unit")
        for way in methods.PARAMETERS:
            mine, rival = (f"{way}, {what}" for what in (methods.EMBEDDED, methods.NGRAMS))
            if mine in of.index and rival in of.index:
                head = {**dict(zip(keys, names, strict=True)), "method": mine}
                drawn = _over_tasks(of.loc[mine] - of.loc[rival], draws[head["environment"]])
                rows.append((head, "ari minus n-grams'", drawn, of.shape[1]))
    return rows


def _with_clusters(values: pd.DataFrame, picked: pd.DataFrame) -> pd.DataFrame:
    """Values of held-out tasks, and beside them each clustering's effective number of clusters as a metric."""
    names = ["kind", "environment", "policy", "unit", "metric", "chosen", "value"]
    clusters = picked.assign(metric=picked["method"] + CLUSTERS, value=picked["effective"])
    return pd.concat([held_out(values).assign(chosen="")[names], clusters[names]], ignore_index=True)


def _rankings(values: pd.DataFrame, draws: Mapping[Any, Values]) -> Rows:
    rows: Rows = []
    for (kind, environment), part in values.groupby(["kind", "environment"], sort=False):
        truths = {name: _wide(part[part["metric"] == name]) for name in (TRUE, EFFECTIVE)}
        drawn = draws[environment]
        for (metric, chosen), own in part.groupby(["metric", "chosen"], sort=False):
            if metric in truths:
                continue
            head = {"kind": kind, "environment": environment, "method": metric, "chosen": chosen}
            wide = _wide(own)
            for measure, name in ORDERS.items():
                rows.append((head, measure, _correlated(wide, truths[name], drawn), len(wide)))
            ordered = {"orders policies": list(wide.columns)}
            if set(CROSSED) <= set(wide.columns):
                ordered["orders against wording"] = list(CROSSED)
            for measure, policies in ordered.items():
                of_unit = concordant(wide[policies], truths[EFFECTIVE][policies])
                rows.append((head, measure, _over_tasks(of_unit, drawn), len(wide)))
    return rows


def _wide(rows: pd.DataFrame) -> pd.DataFrame:
    """Tasks x policies, to nine decimals: the last bits of equal values are no order."""
    return rows.pivot(index="unit", columns="policy", values="value").sort_index().round(9)


def spearman(metric: Values, truth: Values) -> Values:
    """(n,) Spearman's rank correlation of the rows of two (n, m) tables.

    Returns:
        -1..1; NaN where the truth is constant, so that there is nothing to order; 0 where the metric alone is, or has no value.
    """
    x, y = (rankdata(side, axis=1) for side in (metric, truth))
    x, y = (side - side.mean(1, keepdims=True) for side in (x, y))
    seen, known = np.square(x).sum(1), np.square(y).sum(1)
    found = np.divide((x * y).sum(1), np.sqrt(seen * known), out=np.zeros(len(x)), where=seen * known > 0)
    return np.asarray(np.where(known > 0, found, np.nan))


def _correlated(metric: pd.DataFrame, truth: pd.DataFrame, draws: Values) -> Values:
    """Mean over policies of the correlation over tasks, resample by resample; where the truth is constant there is none."""
    found = [spearman(metric[name].to_numpy()[draws], truth[name].to_numpy()[draws]) for name in truth.columns]
    return _mean(np.vstack(found), 0)


def concordant(metric: pd.DataFrame, truth: pd.DataFrame) -> pd.Series:
    """How a metric orders policies on each task.

    Args:
        metric: tasks x policies.
        truth: the same of true effective numbers, > 0.

    Returns:
        Share of pairs of policies that the metric orders as the truth does, among those whose true numbers differ by ``CLEAR`` or
        more; equal values of the metric, and missing ones, count half: 1 = all, 0.5 = as a coin; NaN where no pair differs so much.
    """
    right, known = np.zeros(len(truth)), np.zeros(len(truth))
    for one, other in combinations(truth.columns, 2):
        ratio = np.log(truth[one].to_numpy() / truth[other].to_numpy())
        seen = np.nan_to_num(np.sign(metric[one].to_numpy() - metric[other].to_numpy()))
        clear = np.abs(ratio) >= np.log(CLEAR)
        known += clear
        right += np.where(clear, (1.0 + seen * np.sign(ratio)) / 2.0, 0.0)
    return pd.Series(np.divide(right, known, out=np.full(len(right), np.nan), where=known > 0), index=truth.index)


def _weights(weights: pd.DataFrame, draws: Mapping[Any, Values]) -> Rows:
    rows: Rows = []
    keys = ["kind", "environment", "method"]
    for names, part in weights.groupby(keys, sort=False):
        head = {**dict(zip(keys, names, strict=True)), "chosen": ""}
        drawn = _over_tasks(part.set_index("unit")["value"], draws[head["environment"]])
        rows.append((head, "strategy over wording", drawn, len(part)))
    return rows
