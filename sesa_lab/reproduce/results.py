"""The numbers of a report: estimates with intervals, traced to runs; as JSON, CSV and LaTeX."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sesa_lab import comparisons, runs, statistics
from sesa_lab.errors import InputError, writing
from sesa_lab.experiments.jobs import Failure, Job
from sesa_lab.reproduce import values as of_runs
from sesa_lab.reproduce.declaration import BEFORE
from sesa_lab.reproduce.plan import Plan
from sesa_lab.reproduce.values import BY_TASK, COUNTED, TIMED
from sesa_lab.runs import environment
from sesa_lab.runs.files import write_atomic

JSON, CSV, LATEX = "results.json", "results.csv", "results.tex"
REMEDY = "mend the folder's permissions or space and give the same command again; runs are kept"
SCHEMA = 1
"""Of results.json; it grows where a reader of older files would misread new ones."""
_WHOLE = ("title", "question", "preset", "seeds", "command", "made", "runs", "failed")


def work_out(plan: Plan, failures: Sequence[Failure], command: str) -> dict[str, Any]:
    """All that results.json says.

    Args:
        plan: whose runs are counted: those that are finished.
        failures: what did not finish, and why.
        command: that makes it.
    """
    lost = {failure.job.folder for failure in failures}
    jobs = [job for job in plan.jobs if job.folder not in lost]
    loaded = [runs.load(job.folder) for job in jobs]
    reached = _values(plan, jobs, loaded)
    table = _compared(plan, reached, loaded)
    facts = environment.facts(plan.seeds[0] if plan.seeds else 0)
    return {
        "schema": SCHEMA,
        "experiment": plan.name,
        "title": plan.experiment.title,
        "question": plan.experiment.question,
        "preset": plan.preset,
        "seeds": list(plan.seeds),
        "options": dict(plan.options),
        "baseline": plan.experiment.baseline,
        "base": plan.experiment.base or BEFORE,
        "command": command,
        "made": {key: facts[key] for key in ("started", "python", "platform", "cpu", "cpus", "versions", "git")},
        "intervals": comparisons.METHOD,
        "estimates": json.loads(table.to_json(orient="records")),
        "runs": of_runs.facts(jobs, loaded, reached),
        "failed": [{"folder": str(f.job.folder.name), "reason": f.reason} for f in failures],
    }


def estimates(plan: Plan, jobs: Sequence[Job], loaded: Sequence[runs.Run]) -> pd.DataFrame:
    """One row a group, measure and arm: ``comparisons.compare``, with the arms' and measures' names in words.

    Holm's correction is over the arms that are compared in one measure of one group.
    """
    return _compared(plan, _values(plan, jobs, loaded), loaded)


def _values(plan: Plan, jobs: Sequence[Job], loaded: Sequence[runs.Run]) -> pd.DataFrame:
    return of_runs.values(jobs, loaded, plan.experiment.baseline, plan.experiment.base)


def _compared(plan: Plan, long: pd.DataFrame, loaded: Sequence[runs.Run]) -> pd.DataFrame:
    """The estimates of ``values``."""
    if not len(long):
        return pd.DataFrame()
    experiment, parts = plan.experiment, []
    base, ks = experiment.base or BEFORE, of_runs.ks_of(loaded)
    for (group, measure), part in long.groupby(["group", "measure"], sort=False):
        arms = set(part["arm"])
        plain = experiment.baseline if experiment.baseline in arms else None
        table = part if measure == BY_TASK else part.drop(columns="task")
        found = comparisons.compare(table, plain, base if base in arms else None)
        if measure in COUNTED:
            found = found.drop(columns=[name for name in found if str(name).startswith(("diff", "poi", "p_", "iqm"))])
            found = found.drop(columns="p", errors="ignore")
        found.insert(0, "measure", measure)
        found.insert(0, "group", group)
        found.insert(3, "label", [of_runs.label(str(arm)) for arm in found["arm"]])
        found.insert(4, "heading", of_runs.heading(str(measure), ks))
        parts.append(found)
    return pd.concat(parts, ignore_index=True)


def chosen(plan: Plan, table: pd.DataFrame) -> pd.DataFrame:
    """Of ``estimates`` the measures that the experiment names, in its order; all where it names none."""
    wanted = plan.experiment.measures
    if not len(table) or not wanted:
        return table
    place = {name: number for number, name in enumerate(wanted)}
    kept = table[table["measure"].isin(wanted)]
    ordered = kept.assign(_place=kept["measure"].map(place)).sort_values(["group", "_place"], kind="stable")
    return ordered.drop(columns="_place")


def in_words(table: pd.DataFrame) -> pd.DataFrame:
    """Estimates as text, one row a group, measure and arm: every number with its interval, n and seeds beside it."""
    rows = []
    for row in table.to_dict("records"):
        words = {"group": row["group"], "measure": row["heading"], "arm": row["label"]}
        n = int(row["n_seeds"])
        for name, title in (
            ("mean", "mean"), ("diff", "over baseline RL"), ("diff_base", "over base"), ("iqm", "IQM"),
            ("poi", "P(better than baseline RL)"),
        ):  # fmt: skip
            words[title] = interval(row, name, int(row.get("n_pairs") or 0) if name in ("diff", "poi") else n)
        p = row.get("p_holm")
        words["mean, bootstrap"], words["over baseline RL, bootstrap"] = bounds(row, "boot"), bounds(row, "diff_boot")
        words["p (Holm)"] = "" if p is None or not math.isfinite(p) else f"{p:.3f}" if p >= 0.001 else "< 0.001"
        pairs = int(row.get("n_pairs") or 0)
        words["n"] = f"{n} ({pairs} pairs)" if 0 < pairs < n else str(n)
        words["seeds"] = str(row["seeds"])
        rows.append(words)
    return pd.DataFrame(rows)


def interval(row: dict[str, Any], name: str, n: int) -> str:
    """``0.71 [0.66, 0.75]``; empty where there is no value."""
    prefix = "" if name == "mean" else f"{name}_"
    mean, low, high = (row.get(key) for key in (name, f"{prefix}low", f"{prefix}high"))
    if mean is None or not math.isfinite(mean):
        return ""
    low, high = (math.nan if end is None else end for end in (low, high))
    return statistics.text(mean, low, high, n).rpartition(" (")[0]


def bounds(row: dict[str, Any], name: str) -> str:
    """``[0.66, 0.75]``; empty where there is no interval."""
    low, high = (row.get(f"{name}_{end}") for end in ("low", "high"))
    if low is None or high is None or not math.isfinite(low):
        return ""
    return statistics.text(low, low, high, 0).removesuffix(" (n=0)").partition(" ")[2]


def write(found: dict[str, Any], plan: Plan) -> None:
    """results.json, results.csv (all estimates) and results.tex (those that the experiment names), each whole or not at all.

    An experiment whose notebooks train what they need has no estimates of its own, and no tables.

    Raises:
        InputError: a file cannot be written; what was there is as it was.
    """
    table = pd.DataFrame(found["estimates"])
    words = in_words(chosen(plan, table))
    shown = words.drop(columns=["IQM", "mean, bootstrap", "over baseline RL, bootstrap"], errors="ignore")
    csv, tex = table.to_csv(index=False) if len(table) else "", comparisons.latex(shown) if len(shown) else ""
    for name, text in ((CSV, csv), (LATEX, tex)):
        if text:
            put(plan.folder / name, text.encode())
        else:
            with writing(plan.folder, REMEDY):
                (plan.folder / name).unlink(missing_ok=True)
    put(plan.folder / JSON, (json.dumps(found, indent=1, allow_nan=False) + "\n").encode())


def put(path: Path, data: bytes) -> None:
    """Write a file whole, or leave what was there and raise one ``InputError``."""
    with writing(path, REMEDY):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda file: file.write(data))


def read(path: Path) -> dict[str, Any]:
    """A results.json.

    Raises:
        InputError: there is none, it is damaged, or of a later version.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not isinstance(found.get("estimates"), list):
            raise ValueError("it holds no estimates")
        missing = [name for name in _WHOLE if name not in found]
        if missing and found.get("schema") == SCHEMA:
            raise ValueError(f"it has no {', '.join(missing)}")
    except FileNotFoundError:
        raise InputError(f"no results at {path}; make them with `sesa-lab reproduce`") from None
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is no results.json ({error}); make it anew with `sesa-lab reproduce`") from error
    if found.get("schema") != SCHEMA:
        raise InputError(f"{path} is of version {found.get('schema')!r}, expected {SCHEMA}; make it anew")
    return found


def comparable(found: dict[str, Any]) -> dict[str, Any]:
    """What two executions of the same runs must agree on: all but when and where they were made, and how long they took."""
    kept = {key: value for key, value in found.items() if key not in ("made", "command")}
    kept["estimates"] = [row for row in found["estimates"] if row["measure"] not in TIMED]
    kept["runs"] = [{k: v for k, v in run.items() if k not in ("cpu", "gpu", "commit")} for run in found["runs"]]
    for run in kept["runs"]:
        run["reached"] = {name: value for name, value in run.get("reached", {}).items() if name not in TIMED}
    return kept
