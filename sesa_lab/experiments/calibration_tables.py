"""The calibration as tables and in words: which metric to trust where no key exists."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from sesa_lab.experiments.calibration_judged import ALL, CLUSTERS, OTHERS, OWN, WORDED

TRUST = {
    ("lab answers", "ari"): "ARI, lab answers",
    ("lab answers", "orders tasks"): "orders tasks, lab",
    ("lab answers", "orders policies"): "orders policies, lab",
    ("prose", WORDED): "ARI, many wordings",
    ("prose", "orders tasks"): "orders tasks, prose",
    ("prose", "orders against wording"): "orders against wording",
}
"""(kind, measure) -> its heading in the table that sums up."""


def all_of(found: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Title -> table, methods x environments, 'mean [low, high]'; those without a number are left out."""
    shown = {
        "Adjusted Rand index, parameter chosen on other environments": "ari",
        "Adjusted Rand index in many wordings alone, parameter chosen for it": WORDED,
        "Clusters / strategies (geometric mean)": "ratio",
        "Share of groups with more clusters than strategies": "over",
        "Share of groups with fewer": "under",
        "V-measure": "v_measure",
        "Adjusted Rand index of embeddings minus that of n-grams": "ari minus n-grams'",
        "Spearman's rho with the true effective number of strategies, over tasks": "orders tasks",
        "Pairs of policies in the true order": "orders policies",
        "Few strategies in many wordings below many strategies in one wording": "orders against wording",
        "A new strategy lies farther than a new wording (0.5 = chance)": "strategy over wording",
    }
    tables = {
        f"{title}; {kind}": wide(found, measure, kind) for title, measure in shown.items() for kind in _kinds(found)
    }
    tables["Adjusted Rand index in many wordings, parameter chosen on other tasks alike; prose"] = wide(
        found, WORDED, "prose", OWN
    )
    tables["Which metric to trust where no key exists"] = trust(found)
    return {title: table for title, table in tables.items() if len(table)}


def wide(found: pd.DataFrame, measure: str, kind: str, chosen: str = OTHERS) -> pd.DataFrame:
    """One measure as methods x environments, the mean of environments last.

    Args:
        found: as ``calibration_judged.judged`` returns it.
        measure: one of its measures.
        kind: one of its kinds.
        chosen: how parameters were; methods without any are always there.
    """
    rows = found[(found["measure"] == measure) & (found["kind"] == kind) & found["chosen"].isin([chosen, ""])]
    texts = rows.assign(text=[short(*row) for row in rows[["mean", "low", "high"]].itertuples(index=False)])
    names = [name for name in texts["environment"].unique() if name != ALL]
    table = texts.pivot(index="method", columns="environment", values="text")
    return table.reindex(index=texts["method"].unique(), columns=[*names, *([ALL] if len(names) > 1 else [])])


def cells(found: pd.DataFrame, measure: str, kind: str, chosen: str = OTHERS) -> pd.DataFrame:
    """One measure of a kind for ``plots.grid``: columns method, environment (the mean of all last), mean, low, high, n (tasks)."""
    rows = found[(found["measure"] == measure) & (found["kind"] == kind) & found["chosen"].isin([chosen, ""])]
    rows = rows.assign(last=rows["environment"] == ALL).sort_values("last", kind="stable")
    return rows.rename(columns={"tasks": "n"})[["method", "environment", "mean", "low", "high", "n"]].reset_index(
        drop=True
    )


def by_threshold(clusterings: pd.DataFrame, method: str) -> pd.DataFrame:
    """Clusters over strategies of one method at each of its parameters, geometric means over tasks and policies.

    Args:
        clusterings: as ``calibration.measured`` returns it.
        method: one with a parameter.

    Returns:
        For ``plots.curves``: columns arm (the environment), seed (0: one line, no band), threshold, ratio.
    """
    rows = clusterings[clusterings["method"] == method].assign(ratio=lambda part: np.log(part["ratio"]))
    means = rows.groupby(["environment", "parameter"], sort=False)["ratio"].mean().reset_index()
    means = means.rename(columns={"environment": "arm", "parameter": "threshold"})
    return means.assign(ratio=np.exp(means["ratio"]), seed=0)


def trust(found: pd.DataFrame, chosen: str = OTHERS) -> pd.DataFrame:
    """Metrics x the columns of ``TRUST``, means of environments, best mean rank first.

    A clustering's adjusted Rand index stands beside how its effective number of clusters orders tasks and policies.
    """
    means = _means(found, chosen)
    order = means.rank(ascending=False).mean(axis=1, skipna=True).sort_values(kind="stable").index
    return means.loc[order].round(2)


def verdict(found: pd.DataFrame, chosen: str = OTHERS) -> str:
    """In a few lines what the numbers say; only what the intervals bear out is called better."""
    lines = []
    for (kind, measure), heading in TRUST.items():
        rows = _overall(found, chosen)
        rows = rows[(rows["kind"] == kind) & (rows["measure"] == measure)].dropna(subset=["mean"])
        if not len(rows):
            continue
        rows = rows.sort_values("mean", ascending=False, kind="stable")
        first = rows.iloc[0]
        words = f"- {heading}: best is {first['method']}, {short(*first[['mean', 'low', 'high']])}"
        for what in ("embedding", "n-grams"):
            others = rows[rows["method"].str.contains(what, regex=False)]
            if len(others) and what not in first["method"]:
                row = others.iloc[0]
                words += f"; best with {what}: {row['method']}, {short(*row[['mean', 'low', 'high']])}"
        lines.append(words + ".")
    for kind in _kinds(found):
        rows = found[(found["kind"] == kind) & (found["environment"] == ALL) & (found["chosen"] == chosen)]
        for row in rows[rows["measure"] == "ari minus n-grams'"].itertuples(index=False):
            sure = "better than" if row.low > 0 else "worse than" if row.high < 0 else "not shown to differ from"
            difference = short(row.mean, row.low, row.high)
            lines.append(f"- {kind}, {row.method}: {sure} n-grams clustered alike, difference of ARI {difference}.")
    return "\n".join([*lines, *_warnings(found, chosen)])


def _warnings(found: pd.DataFrame, chosen: str) -> list[str]:
    """What no metric does, where that is shown: the best one's interval lies below what would be of use."""
    limits = {
        WORDED: (
            0.5,
            "No metric recovers strategies from prose in many wordings, with a parameter from elsewhere: count keys.",
        ),
        "orders against wording": (
            0.9,
            "No metric tells new words from new strategies: compare policies of one style only.",
        ),
    }
    said = []
    for measure, (limit, words) in limits.items():
        rows = _of(found, measure, chosen)
        if not len(rows) or rows["high"].max() >= limit:
            continue
        said.append(f"- **{words}** The best: {short(*rows.iloc[0][['mean', 'low', 'high']])}.")
        own = _of(found, measure, OWN)
        if measure == WORDED and len(own):
            best = f"{own.iloc[0]['method']}, {short(*own.iloc[0][['mean', 'low', 'high']])}"
            said.append(
                f"- Where some tasks of the same environment are labelled, and the parameter chosen on them: {best}."
            )
    return said


def _of(found: pd.DataFrame, measure: str, chosen: str) -> pd.DataFrame:
    """Means of environments that there are of one measure, best first."""
    rows = _overall(found, chosen)
    return rows[rows["measure"] == measure].dropna(subset=["mean"]).sort_values("mean", ascending=False, kind="stable")


def short(mean: float, low: float, high: float) -> str:
    """``0.62 [0.55, 0.70]``; empty where there is no value."""
    if math.isnan(mean):
        return ""
    mean, low, high = (round(value, 2) + 0.0 for value in (mean, low, high))  # no -0.00
    return f"{mean:.2f}" if math.isnan(low) else f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def _kinds(found: pd.DataFrame) -> list[str]:
    return list(found["kind"].unique())


def _overall(found: pd.DataFrame, chosen: str) -> pd.DataFrame:
    """The means of environments, a clustering and its effective number under one name."""
    rows = found[(found["environment"] == ALL) & found["chosen"].isin([chosen, ""])]
    return rows.assign(method=rows["method"].str.removesuffix(CLUSTERS))


def _means(found: pd.DataFrame, chosen: str) -> pd.DataFrame:
    rows = _overall(found, chosen)
    table = rows.pivot(index="method", columns=["kind", "measure"], values="mean")
    table = table[[name for name in TRUST if name in table.columns]]
    table.columns = [TRUST[name] for name in table.columns]
    return table.dropna(how="all")
