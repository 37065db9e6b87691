"""Tables of the agents' reports, computed from runs alone; ``agent_verdicts`` says what they show.

Measures are means over held-out tasks (``training/held_out.py``), drawn without sketches unless said. Arms are compared on
the test split, which no run looked at before its last step; curves, and comparisons at equal tokens or seconds, are of the
validation split. Everything is paired by seed: a seed fixes a run and the tasks it is trained and judged on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sesa_lab import plots, runs, statistics
from sesa_lab.diversity import effective_number_of
from sesa_lab.errors import InputError
from sesa_lab.experiments import matrix, tables
from sesa_lab.experiments.agents import LABELS, labelled
from sesa_lab.experiments.jobs import Job
from sesa_lab.statistics import Interval

BASE, PLAIN = "base", "parallel"
"""The arm that is not trained, and the one that others are compared with."""

MEASURES = {
    "accuracy": "pass@1",
    "pass_at_8": "pass@8",
    "pass_at_16": "pass@16",
    "pass_at_64": "pass@64",
    "pass_at_1_hard": "pass@1, hard tasks",
    "pass_at_16_hard": "pass@16, hard tasks",
    "pass_at_64_hard": "pass@64, hard tasks",
    "coverage": "distinct correct",
    "entropy": "entropy (nats)",
    "tokens_total": "tokens",
    "seconds_total": "seconds",
    "tokens_trained": "tokens trained",
    "zero_variance": "groups of equal rewards",
}
"""Column -> its heading. A hard task is one that no habitual method solves."""

OF_TRAINING = ("tokens_total", "seconds_total", "tokens_trained", "zero_variance")
"""What training cost, and how much it had to learn from: tokens sampled (sketches included), seconds, tokens that had a
gradient, and the share of groups that had none since all their rewards were equal. The same for every way of judging."""

COMPARED = ("accuracy", "pass_at_64", "pass_at_64_hard", "coverage")
"""What differences between arms are shown of."""

PAPER: dict[str, dict[str, float | str]] = {
    "countdown": {"gain": 0.42},
    "frozen_lake": {"gain": 0.07},
    "sokoban": {"gain": 0.25, "over": 3.11},
    "sudoku": {"accuracy": "+0.06"},
    "math": {"accuracy": "about 0", "pass_at_16": "+0.09"},
}
"""SESA in arXiv 2510.15502: success gained over the base policy, and that gain over baseline RL's where it is told (its
gain is 211 % larger); of reasoning what it has more than baseline RL (DAPO): success, and on AIME24 pass@k, k not told and
probably 16. From the abstract; that Countdown's is the 0.42 is inferred from the order named."""


@dataclass(frozen=True)
class Results:
    """The finished runs of one task and one base policy.

    Attributes:
        task: name of the environment.
        base: what the base policy is called.
        jobs: one an arm and seed.
        loaded: their runs, in the same order.
        evaluations: columns arm, seed, step and the measures, on validation tasks without sketches.
        tests: columns arm, seed, guided and the measures, on test tasks after the last step; ``tokens_trained`` (sum) and
            ``zero_variance`` (mean) are of all the run's steps.
    """

    task: str
    base: str
    jobs: Sequence[Job]
    loaded: Sequence[runs.Run]
    evaluations: pd.DataFrame
    tests: pd.DataFrame

    @property
    def direct(self) -> pd.DataFrame:
        """The test rows drawn without sketches: one an (arm, seed)."""
        return self.tests[~self.tests["guided"].astype(bool)]

    @property
    def guided(self) -> pd.DataFrame:
        """The test rows drawn with sketches."""
        return self.tests[self.tests["guided"].astype(bool)]

    @property
    def seeds(self) -> tuple[int, int]:
        """The fewest and the most seeds that an arm has."""
        counts = self.direct.groupby("arm")["seed"].nunique()
        return int(counts.min()), int(counts.max())

    def caption(self, bands: str = plots.BANDS) -> str:
        """Runs, commits, arms and seeds behind a figure."""
        return f"{self.task}, {self.base} base; {tables.source(self.jobs, self.loaded, bands)}"

    def of(self, arm: str) -> list[tuple[int, runs.Run]]:
        """Seeds and runs of one arm."""
        pairs = zip(self.jobs, self.loaded, strict=True)
        return [(job.seed, run) for job, run in pairs if job.arm == arm]


def load(jobs: Sequence[Job]) -> Results:
    """The runs of ``jobs``, all of one task and base.

    Raises:
        InputError: a run is missing or unfinished, or was not judged on test tasks.
    """
    evaluations, loaded = matrix.read(jobs)
    parts = [with_training(run.tests, job, run) for job, run in zip(jobs, loaded, strict=True)]
    for job, part in zip(jobs, parts, strict=True):
        if not len(part):
            raise InputError(f"{job.folder} was not judged on test tasks, expected evaluation.test_tasks of 1 or more")
    task = jobs[0].config.environment.name
    base = jobs[0].folder.parent.name.removeprefix(f"{task}-")
    return Results(task, base, jobs, loaded, evaluations, pd.concat(parts, ignore_index=True))


def with_training(measured: pd.DataFrame, job: Job, run: runs.Run) -> pd.DataFrame:
    """``measured``, rows of one run, with its arm and seed, and what its steps trained on: sum of tokens, mean of shares."""
    steps = run.steps
    spent = {
        "tokens_trained": float(steps["tokens_trained"].sum()),
        "zero_variance": float(steps["zero_variance"].mean()),
    }
    return measured.assign(arm=job.arm, seed=job.seed, **spent)


def trained(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of trained arms, with arms and measures under the names that charts show."""
    kept = frame[frame["arm"] != BASE]
    headings = {name: heading for name, heading in MEASURES.items() if name not in OF_TRAINING}
    return kept.assign(arm=labelled(kept["arm"])).rename(columns=headings)


def by_k(results: Results) -> pd.DataFrame:
    """pass@k at the last step, validation tasks, as a curve over k: columns arm (label), seed, k and pass@k.

    The arm that is not trained is there too. k are those of ``MEASURES`` that the samples of a task allow.
    """
    last = at_end(results.evaluations)
    columns = {"accuracy": 1, "pass_at_8": 8, "pass_at_16": 16, "pass_at_64": 64}
    names = present(last, columns)
    long = last.melt(["arm", "seed"], names, var_name="k", value_name="pass@k")
    return long.assign(arm=labelled(long["arm"]), k=long["k"].map(columns).astype(int))


def at_end(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of each run's last step."""
    return frame[frame["step"] == frame.groupby(["arm", "seed"])["step"].transform("max")]


def widest(frame: pd.DataFrame) -> str:
    """The column of pass@k of the largest k that the samples of a task allow."""
    return [name for name in ("accuracy", "pass_at_8", "pass_at_16", "pass_at_64") if name in frame][-1]


# --- what each arm reached ------------------------------------------------------------------------------------------


def estimates(results: Results) -> pd.DataFrame:
    """``estimates_of`` the test split. A measure drawn with sketches ends in ``_with_sketches``."""
    direct, guided = (estimates_of(frame, results.task, results.base) for frame in (results.direct, results.guided))
    guided = guided[~guided["measure"].isin(OF_TRAINING)]
    return pd.concat([direct, guided.assign(measure=guided["measure"] + "_with_sketches")], ignore_index=True)


def estimates_of(frame: pd.DataFrame, task: str, base: str) -> pd.DataFrame:
    """Means and 95 % t intervals over seeds, one row a measure of an arm, for a file of results.

    Columns: task, base, arm, measure, mean, low, high, n. ``frame`` has one row an (arm, seed).
    """
    rows = [
        (task, base, arm, name, *statistics.mean_interval(part[name]))
        for arm, part in frame.groupby("arm", sort=False)
        for name in present(frame, MEASURES)
    ]
    return pd.DataFrame(rows, columns=["task", "base", "arm", "measure", "mean", "low", "high", "n"])


def write(found: Iterable[pd.DataFrame], out: Path) -> Path:
    """``estimates`` of several ``Results`` as one CSV file, numbers to four decimals; returns ``out``.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        pd.concat(list(found), ignore_index=True).round(4).to_csv(out, index=False)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}): name a file in a folder that can be") from error
    return out


def table(results: Results, guided: bool = False) -> pd.DataFrame:
    """Measures x arms on the test split, each 'mean [low, high]' over seeds, and the number of seeds.

    ``guided``: as drawn with sketches; what is of training is then left out.
    """
    frame = results.guided.drop(columns=list(OF_TRAINING), errors="ignore") if guided else results.direct
    found = levels(frame).T
    if guided:  # -log p(answer | task, sketch): what the sketch itself leaves open is not in it
        found = found.rename(index={MEASURES["entropy"]: "entropy given the sketch (nats)"})
    return found.rename_axis(f"{results.task}, {results.base} base")


def levels(frame: pd.DataFrame) -> pd.DataFrame:
    """Arms x measures, each 'mean [low, high]' over seeds, and the number of seeds; one row of ``frame`` an (arm, seed)."""
    names = present(frame, MEASURES)
    rows = {
        LABELS.get(arm, arm): {
            **{MEASURES[name]: short(statistics.mean_interval(part[name])) for name in names},
            "seeds": part["seed"].nunique(),
        }
        for arm, part in frame.groupby("arm", sort=False)
    }
    return pd.DataFrame.from_dict(rows, orient="index")


# --- arms against each other ----------------------------------------------------------------------------------------


def at_equal(results: Results, spent: str = "tokens_total") -> tuple[float, pd.DataFrame]:
    """The most of ``spent`` that every trained run reached, and each run's validation measures there.

    Read off the curves by linear interpolation; one row an (arm, seed). The base, which spends none, is as it is.

    Args:
        results: the runs.
        spent: ``tokens_total`` (sampled tokens, sketches included) or ``seconds_total`` (drawing, scoring and updating;
            wall-clock of a machine that may have been busy with other runs: a rough measure, to be read beside the tokens).
    """
    evaluations = results.evaluations
    reached = evaluations[evaluations["arm"] != BASE].groupby(["arm", "seed"])[spent].max()
    budget = float(reached.min())
    names = present(evaluations, [name for name in MEASURES if name not in OF_TRAINING])
    rows = []
    for (arm, seed), curve in evaluations.groupby(["arm", "seed"], sort=False):
        at = 0.0 if arm == BASE else budget
        rows.append({"arm": arm, "seed": seed, **{n: statistics.at_tokens(curve, spent, n, at) for n in names}})
    return budget, pd.DataFrame(rows)


def difference(frame: pd.DataFrame, arm: str, reference: str, measure: str) -> Interval:
    """``measure`` of ``arm`` minus that of ``reference``, paired by seed; ``frame`` has one row an (arm, seed).

    Values are rounded to 12 decimals first: the last bits of equal values are no difference, however narrow its interval.
    """
    sides = [frame[frame["arm"] == name].set_index("seed")[measure].round(12) for name in (arm, reference)]
    return statistics.paired_difference(*sides)


def differences(frame: pd.DataFrame, reference: str = PLAIN) -> pd.DataFrame:
    """Every other arm minus ``reference``: arms x measures, 'mean [low, high]' over seeds, and the number of pairs.

    The last column is a ratio: distinct correct strategies over the reference's (of means, Fieller's interval).
    """
    names = present(frame, COMPARED)
    rows = {}
    for arm in frame["arm"].unique():
        if arm == reference:
            continue
        found = {name: difference(frame, arm, reference, name) for name in names}
        sides = [frame[frame["arm"] == name].set_index("seed")["coverage"] for name in (arm, reference)]
        rows[LABELS.get(arm, arm)] = {
            **{MEASURES[name]: short(value) for name, value in found.items()},
            "distinct correct, ratio": short(statistics.ratio_of_means(*sides)),
            "pairs": found["accuracy"].n,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(f"minus {LABELS.get(reference, reference)}")


def beside_paper(results: Results) -> pd.DataFrame:
    """Success gained over the base policy on test tasks, and that gain over plain parallel's, beside the paper's.

    Of tasks for which the paper tells what SESA has more than baseline RL: that, pass@1 and pass@16, over plain parallel's.

    No ratio of gains is shown where parallel's own gain is not shown to be above 0: it would say nothing then.
    """
    frame, told = results.direct, PAPER.get(results.task, {})
    gains = {
        arm: part.set_index("seed")["accuracy"] - frame[frame["arm"] == BASE].set_index("seed")["accuracy"]
        for arm, part in frame.groupby("arm", sort=False)
        if arm != BASE
    }
    more = [name for name in ("accuracy", "pass_at_16") if name in told and name in frame]
    rows = {}
    for arm, gain in gains.items():
        known = "parallel gained nothing sure"
        if statistics.mean_interval(gains[PLAIN]).low > 0.0:
            known = short(statistics.ratio_of_means(gain, gains[PLAIN]))
        elif len(gain) == 1:
            known = "one seed: no interval"
        rows[LABELS.get(arm, arm)] = {
            "success over base": short(statistics.mean_interval(gain)),
            "gain over parallel's gain": "" if arm == PLAIN else known,
            **{
                f"{MEASURES[name]} over parallel's": short(difference(frame, arm, PLAIN, name)) if arm != PLAIN else ""
                for name in more
            },
        }
    rows["SESA in the paper"] = {
        "success over base": f"+{told['gain']:.2f}" if "gain" in told else "not told",
        "gain over parallel's gain": f"{told['over']:.2f}" if "over" in told else "not told",
        **{f"{MEASURES[name]} over parallel's": str(told[name]) for name in more},
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(f"{results.task}, {results.base} base")


def breadth(results: Results) -> pd.DataFrame:
    """Arms x pass@1, pass@16, their ratio, and two sound counts; validation tasks at the last step, 'mean [low, high]'.

    Where a task has fewer than 16 samples, pass@k of the widest k takes the place of pass@16.

    The counts: distinct correct strategies among a task's samples, and their effective number (``diversity.effective_number``),
    means over tasks, 0 where none is correct. The ratio is one of means over tasks, a seed at a time.
    """
    rows: dict[str, dict[str, Any]] = {}
    last = at_end(results.evaluations)
    wide = "pass_at_16" if "pass_at_16" in last else widest(last)
    counted = {(job.arm, job.seed): _effective(run) for job, run in zip(results.jobs, results.loaded, strict=True)}
    for arm, part in last.groupby("arm", sort=False):
        numbers = [counted[str(arm), seed] for seed in part["seed"]]
        rows[LABELS.get(str(arm), str(arm))] = {
            "pass@1": short(statistics.mean_interval(part["accuracy"])),
            MEASURES[wide]: short(statistics.mean_interval(part[wide])),
            f"{MEASURES[wide]} / pass@1": short(statistics.mean_interval(part[wide] / part["accuracy"])),
            MEASURES["coverage"]: short(statistics.mean_interval(part["coverage"])),
            "effective number": short(statistics.mean_interval(numbers)),
            "seeds": part["seed"].nunique(),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(f"{results.task}, {results.base} base")


def _effective(run: runs.Run) -> float:
    """Mean over the last evaluation's tasks."""
    answers = run.read_answers(["task", "strategy", "probability", "success"], [run.config.run.steps])
    numbers = [
        effective_number_of(part.loc[part["success"], "probability"].to_numpy()) for _, part in answers.groupby("task")
    ]
    return float(np.mean(numbers))


def with_sketches(results: Results) -> list[str]:
    """The arms that draw sketches in training."""
    return list(dict.fromkeys(job.arm for job in results.jobs if job.config.sampler.name == "sesa"))


def short(value: Interval, sign: bool = False) -> str:
    """``statistics.text`` without the count, which has a column of its own."""
    words = statistics.text(*value).rpartition(" (")[0]
    if value.n > 1 and math.isfinite(value.mean) and not math.isfinite(value.low):
        words += " (no interval)"
    return f"+{words}" if sign and value.mean > 0.0 else words


def present(frame: pd.DataFrame, names: Iterable[str] | Mapping[str, str]) -> list[str]:
    """Those of the measures that were taken: k up to the samples of a task, hard tasks where there are some of each kind."""
    return [name for name in names if name in frame and frame[name].notna().any()]
