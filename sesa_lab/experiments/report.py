"""Reports: execute the notebooks on run folders (training what is missing) and render one offline HTML file."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sesa_lab import plots, runs, statistics
from sesa_lab.experiments import stages
from sesa_lab.experiments.jobs import Job
from sesa_lab.experiments.matrix import read
from sesa_lab.experiments.path_exploration import LABELS
from sesa_lab.reports.render import render
from sesa_lab.reports.run_notebooks import execute

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
REPORTS = {"path_exploration": ("01_path_exploration.ipynb", "02_reviving_a_dead_policy.ipynb")}
TITLES = {"path_exploration": "Path Exploration: does drawing in sequence keep a policy exploring?"}


def make(name: str, folder: Path, seeds: Sequence[int], out: Path, steps: int) -> Path:
    """Execute the notebooks of a report and render them to ``out``.

    Raises:
        InputError: bad parameters, before anything runs.
        NotebookError: a cell failed; the partial notebook is kept beside the report.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parameters = {"seeds": list(seeds), "steps": steps, "runs": os.path.relpath(folder, NOTEBOOKS)}
    executed = out.parent / "executed"
    done = [execute(NOTEBOOKS / book, executed / book, parameters) for book in REPORTS[name]]
    return render(done, out, TITLES[name])


def demo(folder: Path, out: Path) -> None:
    """What ``make demo`` does: train three seeds, write the report, print one table."""
    seeds, steps = [0, 1, 2], 150
    print("training (runs that exist are kept), then two notebooks; a report of curves, trees and intervals comes out")
    stages.execute_all(folder, seeds, steps)
    path = make("path_exploration", folder, seeds, out, steps)
    evaluations, _ = read(stages.headline(folder, seeds, steps))
    revived, _ = read(stages.revived(folder, seeds, steps))
    print(table(evaluations, steps).to_string())
    print("\nrevival of the collapsed parallel policy, from the identical checkpoint:")
    print(table(revived, steps).to_string())
    print(f"\nmean [95 % t interval] over {len(seeds)} seeds; figures: {path} ({path.stat().st_size / 2**20:.1f} MB)")


def table(evaluations: pd.DataFrame, step: int) -> pd.DataFrame:
    """Arms x measures at ``step``, and at step 0 as the row 'before', each 'mean [low, high] (n)' over seeds."""
    k = int(evaluations["coverage_k"].iloc[0])
    before = evaluations[(evaluations["step"] == 0) & (evaluations["arm"] == evaluations["arm"].iloc[0])]
    rows = pd.concat([before.assign(arm="before"), evaluations[evaluations["step"] == step]])
    found = stages.summary(rows).rename(columns={"coverage": f"coverage@{k}", "entropy": "entropy (nats)"})
    return found.rename(index=LABELS)


def labelled(evaluations: pd.DataFrame) -> pd.DataFrame:
    """The table with arms under the names that charts show."""
    return evaluations.assign(arm=evaluations["arm"].replace(LABELS))


def source(jobs: Sequence[Job], loaded: Sequence[runs.Run], bands: str = plots.BANDS) -> str:
    """The caption that names a figure's runs, commit, configs and seeds."""
    rows = [
        {"run": job.folder.name, "commit": _commit(run), "config": LABELS.get(job.arm, job.arm), "seed": job.seed}
        for job, run in zip(jobs, loaded, strict=True)
    ]
    return plots.provenance(rows, bands)


def ratios(
    evaluations: pd.DataFrame, reference: str, column: str, budget: str = "step", at: float | None = None
) -> pd.DataFrame:
    """Each arm's ``column`` over the reference arm's, paired by seed, with a 95 % interval.

    Args:
        evaluations: tidy, with arm, seed, step, tokens_total.
        reference: the arm that is 1.
        column: a measure > 0.
        budget: ``step`` (equal candidates) or ``tokens_total`` (equal sampled tokens; curves are read by interpolation).
        at: the budget; None: the largest that every run reached.

    Returns:
        Columns arm, mean (geometric mean ratio), low, high, n.
    """
    limit = evaluations.groupby(["arm", "seed"])[budget].max().min() if at is None else at
    values = {
        arm: {seed: statistics.at_tokens(run, budget, column, float(limit)) for seed, run in part.groupby("seed")}
        for arm, part in evaluations.groupby("arm", sort=False)
    }
    rows = [
        {"arm": arm, **statistics.paired_ratio(found, values[reference])._asdict()} for arm, found in values.items()
    ]
    return pd.DataFrame(rows)


def verdict(ratio: Mapping[str, Any], goal: float) -> str:
    """One word on a ratio with interval against the ratio that would count: reproduced, partly, or not shown."""
    if not math.isfinite(ratio["low"]):
        return "no interval"
    if ratio["low"] > 1.0:
        return "reproduced" if ratio["mean"] >= goal else "partly (smaller)"
    return "refuted here" if ratio["high"] < 1.0 else "not shown"


def _commit(run: runs.Run) -> str:
    git = run.environment.get("git") or {}
    return str(git.get("commit") or "unknown")[:7] + ("+" if git.get("dirty") else "")


def growth(evaluations: pd.DataFrame, column: str, step: int) -> pd.DataFrame:
    """Each arm's ``column`` at ``step`` over its own at step 0, paired by seed: columns arm, mean, low, high, n."""
    rows = []
    for arm, part in evaluations.groupby("arm", sort=False):
        last, first = (part[part["step"] == s].set_index("seed")[column] for s in (step, 0))
        rows.append({"arm": arm, **statistics.paired_ratio(last, first)._asdict()})
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
        what = "no interval, so no conclusion (one seed, or a coverage of 0)"
    elif row["low"] > 1.0:
        what = "higher, the interval excludes 1"
    elif row["high"] < 1.0:
        what = "lower, the interval excludes 1"
    else:
        what = "no difference shown, the interval holds 1"
    return f"- **{LABELS.get(row['arm'], row['arm'])}**: coverage {ratio} times that of {reference}: {what}."
