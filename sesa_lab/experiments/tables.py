"""Tables and sentences of the Path Exploration reports, computed from evaluations alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from sesa_lab import plots, runs, statistics
from sesa_lab.errors import InputError
from sesa_lab.experiments.jobs import Job
from sesa_lab.experiments.path_exploration import LABELS, PLAIN

MEASURES = ("accuracy", "coverage", "entropy", "valid_mass", "tokens_total")
GOALS = {"novelty": 1.6, "plain": 1.3, "revival": 1.4, "accuracy lost": 0.03}
"""Ratios of coverage that were called a success before any run, from our own pilot."""


def summary(last: pd.DataFrame) -> pd.DataFrame:
    """Arms x measures, each 'mean [low, high] (n)' over seeds."""
    rows = {
        arm: {name: statistics.text(*statistics.mean_interval(part[name])) for name in MEASURES}
        for arm, part in last.groupby("arm", sort=False)
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def table(evaluations: pd.DataFrame, step: int) -> pd.DataFrame:
    """Arms x measures at ``step``, and at step 0 as the row 'before', each 'mean [low, high] (n)' over seeds."""
    k = int(evaluations["coverage_k"].iloc[0])
    before = evaluations[(evaluations["step"] == 0) & (evaluations["arm"] == evaluations["arm"].iloc[0])]
    rows = pd.concat([before.assign(arm="before"), evaluations[evaluations["step"] == step]])
    found = summary(rows).rename(columns={"coverage": f"coverage@{k}", "entropy": "entropy (nats)"})
    return found.rename(index=LABELS).rename_axis("arm")


def labelled(evaluations: pd.DataFrame) -> pd.DataFrame:
    """The table with arms under the names that charts show."""
    return evaluations.assign(arm=evaluations["arm"].replace(LABELS))


def source(jobs: Sequence[Job], loaded: Sequence[runs.Run], bands: str = plots.BANDS) -> str:
    """The caption that names a figure's runs, commit, configs and seeds; of many arms, the headline ones are shown."""
    shown = [pair for pair in zip(jobs, loaded, strict=True) if pair[0].arm in LABELS] or list(
        zip(jobs, loaded, strict=True)
    )
    rows = [
        {"run": job.folder.name, "commit": run.commit, "config": LABELS.get(job.arm, job.arm), "seed": job.seed}
        for job, run in shown
    ]
    return plots.provenance(rows, bands)


def ratios(
    evaluations: pd.DataFrame, reference: str, column: str, budget: str = "step", at: float | None = None
) -> pd.DataFrame:
    """Each arm's ``column`` over the reference arm's, paired by seed, with a 95 % interval.

    Args:
        evaluations: tidy, with arm, seed, step, tokens_total.
        reference: the arm that is 1.
        column: a measure >= 0.
        budget: ``step`` (equal candidates) or ``tokens_total`` (equal sampled tokens; curves are read by interpolation).
        at: the budget; None: the largest that every run reached.

    Returns:
        Columns arm, mean (ratio of the means over seeds), low, high (Fieller's interval), n.
    """
    limit = evaluations.groupby(["arm", "seed"])[budget].max().min() if at is None else at
    values = {
        arm: {seed: statistics.at_tokens(run, budget, column, float(limit)) for seed, run in part.groupby("seed")}
        for arm, part in evaluations.groupby("arm", sort=False)
    }
    rows = [
        {"arm": arm, **statistics.ratio_of_means(found, values[reference])._asdict()} for arm, found in values.items()
    ]
    return pd.DataFrame(rows)


def costs(jobs: Sequence[Job], loaded: Sequence[runs.Run], tokens: pd.DataFrame) -> pd.DataFrame:
    """What each arm cost a step (medians over its first seed's steps), beside its coverage ratio at equal tokens."""
    steps = {LABELS.get(job.arm, job.arm): run.steps for job, run in reversed(list(zip(jobs, loaded, strict=True)))}
    rows = {
        row.arm: {
            "coverage over parallel's, equal tokens": statistics.text(row.mean, row.low, row.high, int(row.n)),
            "draw (s)": f"{steps[row.arm]['seconds_draw'].median():.2f}",
            "update (s)": f"{steps[row.arm]['seconds_update'].median():.2f}",
            "tokens drawn": f"{steps[row.arm]['tokens_sampled'].median():.0f}",
            "tokens read beside": f"{steps[row.arm]['tokens_prefilled'].median():.0f}",
        }
        for row in tokens.itertuples(index=False)
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm, a step")


def claims(evaluations: pd.DataFrame, step: int) -> pd.DataFrame:
    """Each arm beside the goal that was set before the runs: coverage over plain parallel's, accuracy against it."""
    found = ratios(evaluations, PLAIN, "coverage").set_index("arm")
    last = evaluations[evaluations["step"] == step]
    accuracy = {arm: part.set_index("seed")["accuracy"] for arm, part in last.groupby("arm")}
    rows = {}
    for arm, row in found.iterrows():
        if arm == PLAIN:
            continue
        goal = GOALS["novelty" if "zero" in str(arm) else "plain"]
        control = str(arm).startswith("parallel")
        lost = statistics.paired_difference(accuracy[arm], accuracy[PLAIN])
        rows[LABELS.get(str(arm), arm)] = {
            "coverage over plain parallel's": statistics.text(row["mean"], row["low"], row["high"], int(row["n"])),
            "goal": "control" if control else f">= {goal}",
            "verdict": "control" if control else verdict(row, goal, lost),
            "accuracy minus plain parallel's": statistics.text(*lost),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm")


def revivals(evaluations: pd.DataFrame, step: int) -> pd.DataFrame:
    """Each future of the dead policies beside the goal: coverage over the dead policy's, accuracy gained or lost."""
    rows = {}
    for row in growth(evaluations, "coverage", step).itertuples(index=False):
        part = evaluations[evaluations["arm"] == row.arm]
        last, first = (part[part["step"] == s].set_index("seed")["accuracy"] for s in (step, 0))
        gained = statistics.paired_difference(last, first)
        flat = "flat, as claimed" if row.low <= 1.0 <= row.high or 0.9 < row.mean < 1.1 else "not flat"
        aim = verdict({"mean": row.mean, "low": row.low, "high": row.high}, GOALS["revival"], gained)
        rows[LABELS.get(row.arm, row.arm)] = {
            "coverage over the dead policy's": statistics.text(row.mean, row.low, row.high, int(row.n)),
            "goal": "flat" if row.arm == PLAIN else f">= {GOALS['revival']}",
            "verdict": flat if row.arm == PLAIN else aim,
            "accuracy gained": statistics.text(*gained),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("future")


def picked(last: pd.DataFrame, slack: float = 0.05) -> pd.DataFrame:
    """The learning rate of each searched family, from arms named 'family@rate'.

    The rule, fixed before the search: among the rates whose mean accuracy is within ``slack`` of the family's best, the
    one of highest mean coverage.
    """
    means = last.groupby("arm", sort=False)[["accuracy", "coverage", "valid_mass"]].mean()
    means["family"], means["rate"] = zip(*(name.split("@") for name in means.index), strict=True)
    enough = means["accuracy"] >= means.groupby("family")["accuracy"].transform("max") - slack
    return means[enough].sort_values("coverage").groupby("family", sort=False).tail(1).set_index("family")


def along_axis(evaluations: pd.DataFrame, reference: str, step: int) -> pd.DataFrame:
    """Ratios to ``reference`` in every group 'zipf-a', with the exponent a: columns arm, exponent, mean, low, high, n."""
    last = evaluations[evaluations["step"] == step]
    parts = [
        labelled(ratios(part, reference, "coverage")).assign(exponent=float(str(group).removeprefix("zipf-")))
        for group, part in last.groupby("group", sort=False)
    ]
    return pd.concat(parts, ignore_index=True)


def coverage_along(evaluations: pd.DataFrame, step: int) -> pd.DataFrame:
    """Mean coverage of every arm in every group 'zipf-a': columns arm, exponent, mean, low, high (t interval), n."""
    last = evaluations[evaluations["step"] == step]
    parts = [
        labelled(statistics.summary(part, "coverage")).assign(exponent=float(str(group).removeprefix("zipf-")))
        for group, part in last.groupby("group", sort=False)
    ]
    return pd.concat(parts, ignore_index=True)


def with_best_rival(evaluations: pd.DataFrame, rivals: pd.DataFrame, step: int) -> pd.DataFrame:
    """The evaluations with ``parallel-zero-none`` of each group replaced by its best learning rate there.

    The best is chosen by mean coverage on the very seeds that are reported, which favours the rival and nobody else.

    Args:
        evaluations: columns arm, seed, step, group ('zipf-a').
        rivals: the same of arms 'parallel-zero-none@rate' in groups 'rival-a'.
        step: the step at which the best is chosen.
    """
    name = "parallel-zero-none"
    kept = [evaluations[evaluations["arm"] != name]]
    for group, part in rivals[rivals["arm"].str.startswith(name)].groupby("group", sort=False):
        best = part[part["step"] == step].groupby("arm")["coverage"].mean().idxmax()
        kept.append(part[part["arm"] == best].assign(arm=name, group=str(group).replace("rival", "zipf")))
    return pd.concat(kept, ignore_index=True)


def axis_conclusion(along: pd.DataFrame) -> str:
    """Markdown that says at which exponents drawing in sequence gains what novelty at its best learning rate does not."""
    lines = []
    for arm, part in along[along["arm"].str.startswith("sequential +")].groupby("arm", sort=False):
        more = [f"{row.exponent:g}" for row in part.itertuples() if row.low > 1.0]
        where = f"more at Zipf exponent {', '.join(more)}" if more else "nowhere more"
        lines.append(
            f"- **{arm}** covers {where} than parallel + novelty at its best learning rate (interval above 1)."
        )
    return "\n".join(lines)


def same_start(dying: pd.DataFrame, revived: pd.DataFrame, step: int) -> None:
    """Check that each revival began where its collapsed run ended.

    Raises:
        InputError: a collapsed run was made anew and its revivals were not, so they began from another policy.
    """
    ends = dying[dying["step"] == step].set_index("seed")["coverage"]
    starts = revived[revived["step"] == 0]
    for row in starts.itertuples(index=False):
        if not math.isclose(row.coverage, ends[row.seed], rel_tol=1e-6):
            raise InputError(
                f"revival {row.arm}, seed {row.seed}, began from another policy than the collapsed run ended with;"
                " remove the folder of revivals and run again"
            )


def axis_table(along: pd.DataFrame) -> pd.DataFrame:
    """The ratios of ``along_axis`` as text, arms x exponents."""
    text = [statistics.text(row.mean, row.low, row.high, int(row.n)) for row in along.itertuples(index=False)]
    return along.assign(text=text).pivot_table(
        index="arm", columns="exponent", values="text", aggfunc="first", sort=False
    )


def verdict(ratio: Mapping[str, Any], goal: float, accuracy: statistics.Interval) -> str:
    """A few words on a ratio of coverage with its interval against the goal, and on the accuracy gained with it."""
    if not math.isfinite(ratio["low"]):
        return "no interval"
    if ratio["low"] > 1.0:
        words = "reproduced" if ratio["mean"] >= goal else "partly (smaller)"
        return words if accuracy.mean >= -GOALS["accuracy lost"] else f"{words}, but accuracy lost"
    return "refuted here" if ratio["high"] < 1.0 else "not shown"


def growth(evaluations: pd.DataFrame, column: str, step: int) -> pd.DataFrame:
    """Each arm's ``column`` at ``step`` over its own at step 0, paired by seed: columns arm, mean, low, high, n."""
    rows = []
    for arm, part in evaluations.groupby("arm", sort=False):
        last, first = (part[part["step"] == s].set_index("seed")[column] for s in (step, 0))
        rows.append({"arm": arm, **statistics.ratio_of_means(last, first)._asdict()})
    return pd.DataFrame(rows)


def conclusion(evaluations: pd.DataFrame, reference: str, step: int) -> str:
    """Markdown that says, from the table alone, how each arm's coverage compares with the reference's."""
    found = ratios(evaluations, reference, "coverage")
    lines = [_sentence(row, LABELS.get(reference, reference)) for _, row in found.iterrows() if row["arm"] != reference]
    best = found.sort_values("mean").iloc[-1]["arm"]
    return "\n".join([*lines, "", f"Highest mean coverage after {step} steps: **{LABELS.get(best, best)}**."])


def revival_conclusion(evaluations: pd.DataFrame, step: int) -> str:
    """Markdown that says, from the table alone, what each future did to the dead policy's coverage."""
    return "\n".join(_sentence(row, "the dead policy") for _, row in growth(evaluations, "coverage", step).iterrows())


def _sentence(row: Mapping[str, Any], reference: str) -> str:
    ratio = statistics.text(row["mean"], row["low"], row["high"], row["n"])
    if not math.isfinite(row["low"]):
        what = "no interval, so no conclusion (too few seeds)"
    elif row["low"] > 1.0:
        what = "higher, the interval excludes 1"
    elif row["high"] < 1.0:
        what = "lower, the interval excludes 1"
    else:
        what = "no difference shown, the interval holds 1"
    return f"- **{LABELS.get(row['arm'], row['arm'])}**: coverage {ratio} times that of {reference}: {what}."
