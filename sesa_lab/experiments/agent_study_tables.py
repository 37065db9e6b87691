"""What the agents' smaller studies (``agent_studies``) print, the estimates they return, and the figure of one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from sesa_lab import plots, runs, statistics
from sesa_lab.experiments import agent_findings, agent_studies, agent_tables, agent_verdicts, agents, tables
from sesa_lab.experiments.agent_tables import BASE, MEASURES, PLAIN, Results, short
from sesa_lab.experiments.agents import LABELS
from sesa_lab.experiments.jobs import Job
from sesa_lab.experiments.matrix import read

SHOWN = ("accuracy", "pass_at_64", "pass_at_64_hard", "coverage", "entropy")
"""Measures of a policy that the studies' tables have."""

STRENGTH = "base's pass@64, hard tasks"
"""The axis of the habit study: how often 64 direct answers of the untrained policy reach what no habitual method does."""

_ON_VALIDATION = "_on_validation"


def by_policy(jobs: Sequence[Job]) -> list[Results]:
    """The runs of each policy they start from, in the order of ``jobs``."""
    return [agent_tables.load(list(own)) for _, own in groupby(jobs, key=lambda job: job.folder.parent)]


def rows(jobs: Sequence[Job]) -> pd.DataFrame:
    """One row a run and way of asking it, from test tasks: task, base, arm, seed, guided and the measures."""
    parts = [found.tests.assign(task=found.task, base=found.base) for found in by_policy(jobs)]
    keys = ["task", "base", "arm", "seed", "guided"]
    every = pd.concat(parts, ignore_index=True)
    return every[[*keys, *agent_tables.present(every, MEASURES)]]


# --- rivals ---------------------------------------------------------------------------------------------------------


def show_rivals(jobs: list[Job], steps: int) -> pd.DataFrame:
    """Task by task, what every arm reached on test tasks at every rate, and what each of ours wins; returns the estimates."""
    found = by_policy(jobs)
    for results in found:
        print(f"{results.task}, {results.base} base:", _levels(results.direct).to_string(), sep="\n", end="\n\n")
        for own in agent_studies.OURS:
            print(minus_rivals(results.direct, own).to_string(), end="\n\n")
        print(wins(results.direct).to_string(), end="\n\n")
    return pd.concat([agent_tables.estimates(results) for results in found], ignore_index=True)


def of_names(direct: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """The arms of ``direct`` that are one of ``names``, at whatever rate."""
    return [arm for arm in direct["arm"].unique() if arm.partition("@")[0] in names]


def minus_rivals(direct: pd.DataFrame, own: str) -> pd.DataFrame:
    """``own`` minus every arm without sketches at every rate: arms x measures, 'mean [low, high]' over seeds."""
    names = agent_tables.present(direct, agent_tables.COMPARED)
    rows = {
        rival: {MEASURES[name]: short(agent_tables.difference(direct, own, rival, name)) for name in names}
        for rival in of_names(direct, agent_studies.RIVALS)
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(f"{LABELS[own]} minus")


def wins(direct: pd.DataFrame) -> pd.DataFrame:
    """Each of our arms at each rate: against how many arms without sketches, at all rates, the aim on habit bases is shown.

    Columns: pass@1 no worse, more pass@k, more distinct correct (``agent_verdicts.beside``), all three; "7 of 9" each. The last
    one names those against which not all three are shown.
    """
    rivals, rows = of_names(direct, agent_studies.RIVALS), {}
    for own in of_names(direct, agent_studies.OURS):
        said = {rival: [word for _, word in agent_verdicts.beside(direct, own, rival).values()] for rival in rivals}
        shown = {
            rival: [words[0] in agent_verdicts.NO_WORSE, *(word == "higher" for word in words[1:])]
            for rival, words in said.items()
        }
        counts = [sum(measures[place] for measures in shown.values()) for place in range(3)]
        lacking = [rival for rival in rivals if not all(shown[rival])]
        heads = (
            "pass@1 no worse",
            f"more {MEASURES[agent_tables.widest(direct)]}",
            "more distinct correct",
            "all three",
        )
        texts = [f"{count} of {len(rivals)}" for count in (*counts, len(rivals) - len(lacking))]
        rows[own] = {**dict(zip(heads, texts, strict=True)), "not against": ", ".join(lacking) or "-"}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("ours, against arms without sketches")


def draw_ends(jobs: list[Job]) -> Any:
    """The test tasks' plane of pass@1 and pass@64, a panel a task and policy: means over seeds, an arm's rates joined."""
    found = by_policy(jobs)
    measures = {name: MEASURES[name] for name in ("accuracy", "pass_at_64")}
    parts = []
    for results in found:
        means = results.direct.groupby("arm", sort=False)[list(measures)].mean().reset_index()
        names = means["arm"].str.partition("@")
        searched = [math.nan if name == BASE else agents.rate_of(results.task, results.base, name) for name in names[0]]
        rates = [float(said) if said else own for said, own in zip(names[2], searched, strict=True)]
        arms = names[0].replace({**LABELS, BASE: plots.START})
        parts.append(means.assign(arm=arms, rate=rates, panel=f"{results.task}, {results.base} base"))
    shown = pd.concat(parts, ignore_index=True).rename(columns={**measures, "rate": "learning rate"})
    marks = "test tasks, means over seeds; larger markers: larger learning rates; crosses: untrained"
    behind = tables.source(
        [job for results in found for job in results.jobs], [run for results in found for run in results.loaded], marks
    )
    x, y = measures.values()
    return plots.planes(shown, x, y, "learning rate", "Where each arm ends", behind, len(found))


# --- revival --------------------------------------------------------------------------------------------------------

GOES_ON = "parallel goes on"


def origins(jobs: Sequence[Job]) -> pd.DataFrame:
    """Evaluations of the collapsed runs that ``jobs`` began from, one run a seed: columns seed, step and the measures."""
    folders = {job.seed: Path(job.config.policy.adapter).parents[1] for job in jobs}
    return pd.concat([runs.load(folder).evaluations.assign(seed=seed) for seed, folder in folders.items()])


def before_and_after(dying: pd.DataFrame, revived: pd.DataFrame, steps: int) -> pd.DataFrame:
    """Validation measures of the base, of the collapsed policy and of each of its futures, one row an (arm, seed).

    Args:
        dying: of ``origins``.
        revived: evaluations of the futures, columns arm, seed, step and the measures.
        steps: of either training.
    """
    parts = [
        dying[dying["step"] == 0].assign(arm=BASE),
        dying[dying["step"] == steps].assign(arm=f"{LABELS[PLAIN]}, {steps} steps"),
        futures(revived[revived["step"] == steps]),
    ]
    return pd.concat(parts, ignore_index=True)


def futures(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of revivals, with plain parallel under the name that tells it from what it goes on from."""
    return frame.assign(arm=frame["arm"].replace({PLAIN: GOES_ON}))


def collapse(dying: pd.DataFrame, steps: int) -> str:
    """A sentence on what ``steps`` steps of plain parallel did to the base, paired by seed, on validation tasks."""
    first, last = (dying[dying["step"] == step].set_index("seed").sort_index() for step in (0, steps))
    names = ["accuracy", agent_tables.widest(dying), "coverage"]
    found = {name: statistics.paired_difference(last[name], first[name]) for name in names}
    said = ", ".join(f"{MEASURES[name]} {short(value, sign=True)}" for name, value in found.items())
    fell = found["accuracy"].low > 0.0 and found["coverage"].high < 0.0
    return f"{steps} steps of {LABELS[PLAIN]}: {said}; " + (
        "it collapsed: pass@1 rose while distinct correct strategies fell." if fell else "no collapse is shown."
    )


def show_revival(jobs: list[Job], steps: int) -> pd.DataFrame:
    """Before, after, and each future minus "parallel goes on", on validation and on test tasks; returns the estimates."""
    evaluations, _ = read(jobs)
    dying, results = origins(jobs), agent_tables.load(jobs)
    tables.same_start(dying, evaluations, steps)
    validation, test = before_and_after(dying, evaluations, steps), futures(results.direct)
    print(collapse(dying, steps), end="\n\n")
    for split, frame in (("validation", validation), ("test", test)):
        print(f"{split} tasks:", _levels(frame).to_string(), sep="\n", end="\n\n")
        print(agent_tables.differences(frame, GOES_ON).to_string(), end="\n\n")
    return pd.concat([agent_tables.estimates(results), _estimated(validation, results.base)], ignore_index=True)


# --- drafting -------------------------------------------------------------------------------------------------------


def show_drafting(jobs: list[Job], steps: int) -> pd.DataFrame:
    """Sketches in sequence minus i.i.d. ones: measures, and distinct sketches a group; returns the estimates."""
    results = agent_tables.load(jobs)
    last = results.evaluations[results.evaluations["step"] == steps]
    pair = [agent_studies.HALF, agent_studies.HALF_IID]
    print(agent_tables.table(results).to_string(), end="\n\n")
    for split, frame in (("test", results.direct), ("validation", last)):
        found = agent_tables.differences(frame[frame["arm"].isin(pair)], agent_studies.HALF_IID)
        print(f"{split} tasks:", found.to_string(), sep="\n", end="\n\n")
    counts = agent_findings.distinct_sketches(results)
    print(sketch_table(counts, *pair).to_string(), end="\n\n")
    rows = [
        (results.task, results.base, arm, f"distinct_sketches_{when}", *statistics.mean_interval(part[when]))
        for arm, part in counts.groupby("arm", sort=False)
        for when in ("first", "last")
    ]
    estimates = agent_tables.estimates(results)
    return pd.concat([estimates, pd.DataFrame(rows, columns=estimates.columns)], ignore_index=True)


def sketch_table(counts: pd.DataFrame, arm: str, reference: str) -> pd.DataFrame:
    """Distinct sketches a group in the first and the last steps of ``agent_findings.distinct_sketches``, and their difference."""
    headings = {"first": "first steps", "last": "last steps"}
    rows: dict[str, dict[str, Any]] = {
        LABELS.get(name, name): {
            text: short(statistics.mean_interval(counts[counts["arm"] == name][when]))
            for when, text in headings.items()
        }
        for name in (arm, reference)
    }
    rows["difference"] = {
        text: short(agent_tables.difference(counts, arm, reference, when)) for when, text in headings.items()
    }
    most = int(counts["sketches"].max())
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(f"distinct sketches of {most}")


# --- habit ----------------------------------------------------------------------------------------------------------


def show_habit(jobs: list[Job], steps: int) -> pd.DataFrame:
    """Policies and arms x measures on test tasks, policies by how much they reach; returns the estimates."""
    found = sorted(by_policy(jobs), key=lambda results: -strength(results))
    rows = {results.base: _levels(results.direct) for results in found}
    print(pd.concat(rows, names=["policy", "arm"]).to_string(), end="\n\n")
    for results in found:
        print(f"{results.base} policy, {STRENGTH} {strength(results):.3f}:")
        print(agent_tables.differences(results.direct).to_string(), end="\n\n")
    return pd.concat([agent_tables.estimates(results) for results in found], ignore_index=True)


def strength(results: Results) -> float:
    """Mean over seeds of the untrained policy's pass@64 on hard test tasks: the weaker its habit, the higher."""
    frame = results.direct
    return float(frame[frame["arm"] == BASE]["pass_at_64_hard"].mean())


def along(found: Sequence[Results], measures: Sequence[str] = ("accuracy", "pass_at_64", "coverage")) -> pd.DataFrame:
    """Every arm's measures on test tasks by the strength of the policy it began from, for ``plots.panels``.

    Returns:
        Columns arm (label), panel (heading of the measure), ``STRENGTH``, mean, low, high, n.
    """
    parts = []
    for results in found:
        estimates = agent_tables.estimates(results)
        chosen = estimates[estimates["measure"].isin(measures)]
        headings = chosen["measure"].replace(MEASURES)
        parts.append(
            chosen.assign(arm=chosen["arm"].replace(LABELS), panel=headings).assign(**{STRENGTH: strength(results)})
        )
    return pd.concat(parts, ignore_index=True)[["arm", "panel", STRENGTH, "mean", "low", "high", "n"]]


def draw_habit(jobs: list[Job]) -> Any:
    """The figure of the habit study: pass@1, pass@64 and distinct correct strategies against the strength of the habit."""
    found = sorted(by_policy(jobs), key=strength)
    loaded = {job.folder: run for results in found for job, run in zip(results.jobs, results.loaded, strict=True)}
    behind = tables.source(jobs, [loaded[job.folder] for job in jobs], "bars: 95 % t interval over seeds")
    order = ", ".join(results.base for results in found)
    caption = f"{agent_studies.TASK}, test tasks; policies from left to right: {order}; {behind}"
    return plots.panels(along(found), STRENGTH, "How strong must a habit be? Asked without sketches", caption)


# --- options --------------------------------------------------------------------------------------------------------


def show_options(jobs: list[Job], steps: int) -> pd.DataFrame:
    """Each option minus the reference, paired by seed, on validation tasks, and what it cost; returns the estimates."""
    _, loaded = read(jobs)
    parts = [
        agent_tables.with_training(run.evaluations[run.evaluations["step"] == steps], job, run)
        for job, run in zip(jobs, loaded, strict=True)
    ]
    frame = pd.concat(parts, ignore_index=True)
    print("validation tasks:", _levels(frame, agent_tables.OF_TRAINING).to_string(), sep="\n", end="\n\n")
    print(agent_tables.differences(frame, agent_studies.REFERENCE).to_string(), end="\n\n")
    return _estimated(frame, jobs[0].folder.parent.name.removeprefix(f"{agent_studies.TASK}-"))


def _levels(frame: pd.DataFrame, more: Sequence[str] = ()) -> pd.DataFrame:
    """Arms x the measures that studies show."""
    return agent_tables.levels(frame[["arm", "seed", *agent_tables.present(frame, [*SHOWN, *more])]])


def _estimated(validation: pd.DataFrame, base: str) -> pd.DataFrame:
    """Estimates of validation measures, which their names say."""
    found = agent_tables.estimates_of(validation, agent_studies.TASK, base)
    return found.assign(measure=found["measure"] + _ON_VALIDATION)
