"""The collapse lab's experiments: how well does the detector tell collapsing from healthy runs, and what does switching bring?

The detector's thresholds were chosen on runs of other seeds (``TUNING``) and on Sokoban; what is reported are runs that it has
never seen: Path Exploration on new seeds and with a sharper prior, and two tasks that no tuning run was of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sesa_lab import runs, statistics
from sesa_lab.collapse import Outcome, score_alarms
from sesa_lab.experiments import agents
from sesa_lab.experiments import path_exploration as path
from sesa_lab.experiments.collapse_tables import Looked, look
from sesa_lab.experiments.jobs import Job
from sesa_lab.experiments.matrix import Arm, Sections, jobs_for
from sesa_lab.experiments.tables import MEASURES

TUNING, TUNING_SOKOBAN = (200, 201, 202, 203), (21, 22, 23)
"""Seeds that the thresholds were chosen on."""
SEEDS, STEPS = tuple(range(10)), 100
TASK_SEEDS, TASK_STEPS = 4, 60
"""The other tasks' runs take longer: so many of the seeds, and steps."""
TASKS = ("countdown", "frozen_lake")
FEW = 5
"""Seeds of the sharper prior, and of switching."""
SHARP = 2.0
"""Its Zipf exponent."""

COLLAPSING = (("parallel-count-none", 3e-4), ("parallel-count-none", 1e-3), ("parallel-count-positive_only", 1e-3))
HEALTHY = (("parallel-zero-none", 3e-4), ("parallel-zero-none", 3e-3), ("mixed-zero-asymmetric", 3e-3))
"""Arms and learning rates that were expected to collapse, or to stay healthy; what did is said by each run's evaluations."""


def rated(name: str, rate: float) -> Arm:
    """An arm of Path Exploration's factorial at another learning rate."""
    arm = path.named(name)[0]
    return Arm(f"{name}@{rate:g}", {**arm.changes, "update": {**arm.changes["update"], "learning_rate": rate}})


def tuning(folder: Path, seeds: Sequence[int] = TUNING, steps: int = STEPS) -> list[Job]:
    """The runs that the thresholds were chosen on: Path Exploration, and Sokoban from its ordinary base."""
    arms = [rated(*each) for each in (*COLLAPSING, *HEALTHY)]
    found = jobs_for(arms, seeds, _base(steps, 10), folder / "collapse" / "tune")
    shared = dict(agents.on_validation(agents.base_of("sokoban", "ordinary", min(steps, TASK_STEPS))))
    for place, tasks, pairs in (
        ("tune-sokoban", 64, (("parallel", 1e-3), ("parallel-novelty", 1e-3))),
        ("tune-sokoban2", 32, (("parallel-novelty", 1e-4), ("mixed-unsolved-novelty", 3e-4))),
    ):
        shared["evaluation"] = {**shared["evaluation"], "eval_tasks": tasks}
        made = [Arm(name, agents.arm("sokoban", "ordinary", name, rate).changes) for name, rate in pairs]
        found += jobs_for(made, TUNING_SOKOBAN, shared, folder / "collapse" / place)
    return found


def detector(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    """The runs that the detector is judged on: Path Exploration, the same with a sharper prior, Countdown and FrozenLake."""
    arms = [rated(*each) for each in (*COLLAPSING, *HEALTHY)]
    own = folder / "collapse"
    found = jobs_for(arms, seeds, _base(steps, 5), own / "test")
    sharp = _base(steps, 5, prior_exponent=SHARP)
    found += jobs_for([rated(*COLLAPSING[0]), rated(*HEALTHY[1])], seeds[:FEW], sharp, own / "test-zipf")
    for task in TASKS:
        found += _task(task, [seed + 1 for seed in seeds[:TASK_SEEDS]], min(steps, TASK_STEPS), own / f"test-{task}")
    return found


def _task(task: str, seeds: Sequence[int], steps: int, folder: Path) -> list[Job]:
    """A task that no threshold was chosen on, from its ordinary base: what collapses soonest, and what best keeps it alive."""
    shared = dict(agents.on_validation(agents.base_of(task, "ordinary", steps)))
    shared["evaluation"] = {**shared["evaluation"], "eval_tasks": 32}
    shared["run"] = {**shared["run"], "evaluate_every": 10}
    arms = [
        Arm(name, agents.arm(task, "ordinary", name, rate).changes)
        for name, rate in (("parallel", 1e-3), ("parallel-novelty", 3e-4))
    ]
    return jobs_for(arms, seeds, shared, folder)


def _base(steps: int, evaluate_every: int, **options: Any) -> dict[str, dict[str, Any]]:
    run = {**path.BASE["run"], "steps": steps, "evaluate_every": evaluate_every}
    return {**path.BASE, "run": run, "environment": {"options": options}}


def judged(jobs: Sequence[Job]) -> pd.DataFrame:
    """One row a run, ready for ``detection``.

    Columns: task (its folder), arm, seed, outcome, kept (coverage), onset and good (the last evaluation before it), alarm (the
    first), change_point, down.
    """
    rows = []
    for job, seen in zip(jobs, look(job.folder for job in jobs), strict=True):
        rows.append({"task": job.folder.parent.name, "arm": job.arm, "seed": job.seed, **_row(seen)})
    return pd.DataFrame(rows)


def _row(seen: Looked) -> dict[str, Any]:
    alarm, became = (seen.alarms[0] if seen.alarms else None), seen.outcome
    assert became is not None, "runs of this experiment are evaluated at least twice"
    return {
        "outcome": became.kind,
        "kept": became.kept,
        "good": became.good,
        "onset": became.onset,
        "alarm": alarm.step if alarm else None,
        "change_point": alarm.onset if alarm else None,
        "down": "+".join(alarm.down) if alarm else "",
    }


def detection(rows: pd.DataFrame) -> pd.DataFrame:
    """``score_alarms``, one row a task and one of all runs.

    Args:
        rows: what ``judged`` returns, or its CSV file.
    """
    found = {}
    for name, part in {**dict(list(rows.groupby("task", sort=False))), "all": rows}.items():
        whole = {
            column: [None if pd.isna(v) else int(v) for v in part[column]] for column in ("alarm", "onset", "good")
        }
        outcomes = [
            Outcome(kind, kept, onset, good)
            for kind, kept, onset, good in zip(
                part["outcome"], part["kept"], whole["onset"], whole["good"], strict=True
            )
        ]
        found[name] = score_alarms(outcomes, whole["alarm"])
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("runs")


# --- switching ------------------------------------------------------------------------------------------------------


def _novelty(rate: float) -> Sections:
    return {"sampler": {}, "update": {"repeats": "zero", "learning_rate": rate}}


SWITCHES: dict[str, Sections] = {
    "no switch": {},
    "switch to novelty": _novelty(path.LEARNING_RATES["parallel-zero-none"]),
    "switch to novelty, rate 1e-3": _novelty(1e-3),
    "switch to novelty, rate 3e-4": _novelty(3e-4),
    "switch to sequential + novelty": path.named(path.BEST)[0].changes,
}
"""What plain parallel sampling goes on with after the alarm: at the learning rate that was searched for the rule, from the base.
The control pays for novelty and draws as before; it has two more rates, that of the sequential rule and the run's own, and so its
best chance: what suits a base need not suit a policy, and an optimiser, in collapse."""

FROM_START = {"novelty from the start": "parallel-zero-none", "sequential + novelty from the start": path.BEST}
"""The same rules without a collapse before them."""
LATE, EARLY = "switch to sequential + novelty", "sequential + novelty from the start"
"""One rule, begun at the alarm or at the start."""


PLACES: dict[str, dict[str, Any]] = {"switch": {}, "switch-zipf": {"prior_exponent": SHARP}}
"""Folder of runs -> options of the environment."""


def switching(folder: Path, seeds: Sequence[int], steps: int, places: Sequence[str] = tuple(PLACES)) -> list[Job]:
    """Plain parallel sampling, watched, which goes on as it is or with other settings after the alarm; and those from the start."""
    plain = path.named(path.PLAIN)[0]
    arms = [Arm(name, {**plain.changes, "watch": _watch(changes)}) for name, changes in SWITCHES.items()]
    arms += [Arm(name, path.named(arm)[0].changes) for name, arm in FROM_START.items()]
    return [
        job
        for place in places
        for job in jobs_for(arms, seeds, _base(steps, 10, **PLACES[place]), folder / "collapse" / place)
    ]


def _watch(changes: Sections) -> dict[str, Any]:
    flat = {("sampler" if name == "name" else name): value for part in changes.values() for name, value in part.items()}
    return {"on_alarm": "switch", "switch": flat} if flat else {"on_alarm": "snapshot"}


def ends(jobs: Sequence[Job]) -> pd.DataFrame:
    """One row a run: place (its folder), arm, seed, step of its first alarm (NaN: none), and its measures at the end."""
    rows = []
    for job in jobs:
        run = runs.load(job.folder)
        first = float(run.alarms["step"].iloc[0]) if len(run.alarms) else float("nan")
        kept = run.evaluations.iloc[-1][[*MEASURES]].to_dict()
        rows.append({"place": job.folder.parent.name, "arm": job.arm, "seed": job.seed, "alarm": first, **kept})
    return pd.DataFrame(rows)


def gained(rows: pd.DataFrame, place: str, arm: str, measure: str) -> statistics.Interval:
    """What an arm has more than no switch at the end, paired by seed: mean and 95 % t interval."""
    values = {name: part.set_index("seed")[measure] for name, part in rows[rows["place"] == place].groupby("arm")}
    return statistics.paired_difference(values[arm], values["no switch"])


def switched(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a place and arm: measures at the end, 'mean [low, high] (n)', what it gained on no switch, steps of the alarms."""
    found = {}
    for (place, arm), part in rows.groupby(["place", "arm"], sort=False):
        alarms = part["alarm"].dropna()
        names = ("coverage", "accuracy")
        found[place, arm] = {
            **{name: statistics.text(*statistics.mean_interval(part[name])) for name in names},
            **{f"{name} gained": statistics.text(*gained(rows, place, arm, name)) for name in names},
            "alarm at steps": f"{alarms.min():.0f} to {alarms.max():.0f}, {len(alarms)} of {len(part)} runs"
            if len(alarms)
            else "",
            "tokens": statistics.text(*statistics.mean_interval(part["tokens_total"]), 0),
        }
    return pd.DataFrame.from_dict(found, orient="index").rename_axis(["runs", "arm"])


def conclusion(rows: pd.DataFrame) -> str:
    """What switching at the alarm brought, a sentence a switch, by the intervals alone."""
    lines = []
    for place, part in rows.groupby("place", sort=False):
        noticed = part[part["arm"] == "no switch"]["alarm"]
        lines.append(
            f"`{place}`: the alarm was raised in {noticed.notna().sum()} of {len(noticed)} runs without a switch."
        )
        for arm in [name for name in SWITCHES if name != "no switch"]:
            coverage, accuracy = (gained(rows, str(place), arm, name) for name in ("coverage", "accuracy"))
            lines.append(
                f"A {arm} changes coverage by {_told(coverage)} and accuracy by {_told(accuracy)} against no switch."
            )
        late, early = (gained(part, str(place), arm, "coverage") for arm in (LATE, EARLY))
        lines.append(
            f"From the start the same rule gains {statistics.text(*early)}; after the alarm {statistics.text(*late)}."
        )
    return " ".join(lines)


def _told(found: statistics.Interval) -> str:
    way = "more" if found.low > 0 else "less" if found.high < 0 else "not told apart"
    return f"{statistics.text(*found)}" + (f": {way}" if math.isfinite(found.low) else ", of one seed")
