"""Tables and sentences of the agents' reports, computed from runs alone.

Measures are means over held-out tasks (``training/held_out.py``), drawn without sketches unless said. Arms are compared on
the test split, which no run looked at before its last step; curves, and comparisons at equal tokens, are of the validation
split. Everything is paired by seed: a seed fixes a run and the tasks it is trained and judged on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sesa_lab import plots, runs, statistics
from sesa_lab.errors import InputError
from sesa_lab.experiments import matrix, tables
from sesa_lab.experiments.agents import LABELS
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
}
"""Column -> its heading. A hard task is one that no habitual method solves."""

SPENT = ("tokens_total", "seconds_total")
"""What training cost."""

COMPARED = ("accuracy", "pass_at_64", "pass_at_64_hard", "coverage")
"""What differences between arms are shown of."""

PAPER = {"countdown": {"gain": 0.42}, "frozen_lake": {"gain": 0.07}, "sokoban": {"gain": 0.25, "over": 3.11}}
"""SESA in arXiv 2510.15502: success gained over the base policy, and that gain over baseline RL's where it is told (its
gain is 211 % larger). From the abstract; that Countdown's is the 0.42 is inferred from the order named."""

AIMS = {
    "habit": "more {} and more distinct correct strategies than every arm without sketches, pass@1 not shown lower",
    "ordinary": "neither {}, nor distinct correct strategies, nor pass@1 shown lower than an arm's without sketches",
}
"""Base -> what the best arm with sketches is to reach, set before the runs."""

FEWEST_SEEDS = 3
"""With fewer no conclusion is drawn."""


@dataclass(frozen=True)
class Results:
    """The finished runs of one task and one base policy.

    Attributes:
        task: name of the environment.
        base: what the base policy is called.
        jobs: one an arm and seed.
        loaded: their runs, in the same order.
        evaluations: columns arm, seed, step and the measures, on validation tasks without sketches.
        tests: columns arm, seed, guided and the measures, on test tasks after the last step.
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
    parts = [run.tests.assign(arm=job.arm, seed=job.seed) for job, run in zip(jobs, loaded, strict=True)]
    for job, part in zip(jobs, parts, strict=True):
        if not len(part):
            raise InputError(f"{job.folder} was not judged on test tasks, expected evaluation.test_tasks of 1 or more")
    task = jobs[0].config.environment.name
    base = jobs[0].folder.parent.name.removeprefix(f"{task}-")
    return Results(task, base, jobs, loaded, evaluations, pd.concat(parts, ignore_index=True))


def trained(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of trained arms, with arms and measures under the names that charts show."""
    kept = frame[frame["arm"] != BASE]
    headings = {name: heading for name, heading in MEASURES.items() if name not in SPENT}
    return kept.assign(arm=kept["arm"].replace(LABELS)).rename(columns=headings)


def widest(frame: pd.DataFrame) -> str:
    """The column of pass@k of the largest k that the samples of a task allow."""
    return [name for name in ("accuracy", "pass_at_8", "pass_at_16", "pass_at_64") if name in frame][-1]


# --- what each arm reached ------------------------------------------------------------------------------------------


def estimates(results: Results) -> pd.DataFrame:
    """Means and 95 % t intervals over seeds on the test split, one row a measure of an arm, for a file of results.

    Columns: task, base, arm, measure, mean, low, high, n. A measure drawn with sketches ends in ``_with_sketches``.
    """
    rows = [
        (results.task, results.base, arm, name + ending, *statistics.mean_interval(part[name]))
        for frame, ending in ((results.direct, ""), (results.guided, "_with_sketches"))
        for arm, part in frame.groupby("arm", sort=False)
        for name in _present(frame, MEASURES)
        if not ending or name not in SPENT
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

    ``guided``: as drawn with sketches; what training cost is then left out.
    """
    frame = results.guided if guided else results.direct
    names = [n for n in _present(frame, MEASURES) if not guided or n not in SPENT]
    columns = {
        LABELS.get(arm, arm): {
            **{MEASURES[name]: _short(statistics.mean_interval(part[name])) for name in names},
            "seeds": part["seed"].nunique(),
        }
        for arm, part in frame.groupby("arm", sort=False)
    }
    return pd.DataFrame(columns).rename_axis(f"{results.task}, {results.base} base")


# --- arms against each other ----------------------------------------------------------------------------------------


def at_equal_tokens(results: Results) -> tuple[float, pd.DataFrame]:
    """The largest number of sampled tokens that every trained run reached, and each run's validation measures there.

    Read off the curves by linear interpolation; one row an (arm, seed). The base, which spends none, is as it is.
    """
    evaluations = results.evaluations
    spent = evaluations[evaluations["arm"] != BASE].groupby(["arm", "seed"])["tokens_total"].max()
    budget = float(spent.min())
    names = _present(evaluations, COMPARED)
    rows = []
    for (arm, seed), curve in evaluations.groupby(["arm", "seed"], sort=False):
        at = 0.0 if arm == BASE else budget
        rows.append(
            {"arm": arm, "seed": seed, **{n: statistics.at_tokens(curve, "tokens_total", n, at) for n in names}}
        )
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
    names = _present(frame, COMPARED)
    rows = {}
    for arm in frame["arm"].unique():
        if arm == reference:
            continue
        found = {name: difference(frame, arm, reference, name) for name in names}
        sides = [frame[frame["arm"] == name].set_index("seed")["coverage"] for name in (arm, reference)]
        rows[LABELS.get(arm, arm)] = {
            **{MEASURES[name]: _short(value) for name, value in found.items()},
            "distinct correct, ratio": _short(statistics.ratio_of_means(*sides)),
            "pairs": found["accuracy"].n,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(f"minus {LABELS.get(reference, reference)}")


def beside_paper(results: Results) -> pd.DataFrame:
    """Success gained over the base policy on test tasks, and that gain over plain parallel's, beside the paper's.

    No ratio of gains is shown where parallel's own gain does not differ from 0: any number would do then.
    """
    frame = results.direct
    gains = {
        arm: part.set_index("seed")["accuracy"] - frame[frame["arm"] == BASE].set_index("seed")["accuracy"]
        for arm, part in frame.groupby("arm", sort=False)
        if arm != BASE
    }
    rows = {}
    for arm, gain in gains.items():
        over = statistics.ratio_of_means(gain, gains[PLAIN])
        known = _short(over) if math.isfinite(over.low) else "parallel's may be 0"
        rows[LABELS.get(arm, arm)] = {
            "success over base": _short(statistics.mean_interval(gain)),
            "gain over parallel's gain": "" if arm == PLAIN else known,
        }
    told = PAPER.get(results.task, {})
    rows["SESA in the paper"] = {
        "success over base": f"+{told['gain']:.2f}" if "gain" in told else "",
        "gain over parallel's gain": f"{told['over']:.2f}" if "over" in told else "not told",
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(f"{results.task}, {results.base} base")


def best(results: Results) -> str:
    """The arm with sketches of the highest mean pass@k (the widest k) on *validation* tasks at its last step.

    Chosen there, so that what is said of it on test tasks is not the luck of the choice.

    Raises:
        InputError: no arm draws sketches.
    """
    arms = with_sketches(results)
    if not arms:
        raise InputError("no arm with sketches among the runs, expected at least one: add e.g. sesa-paper")
    frame = results.evaluations[results.evaluations["arm"].isin(arms)]
    last = frame[frame["step"] == frame["step"].max()]
    return str(last.groupby("arm", sort=False)[widest(last)].mean().idxmax())


def aims(results: Results) -> pd.DataFrame:
    """The best arm with sketches against every arm without, on test tasks: differences and what they say."""
    frame, own = results.direct, best(results)
    names = ["accuracy", widest(frame), "coverage"]
    rows = {}
    for rival in _rivals(results):
        found = {name: difference(frame, own, rival, name) for name in names}
        said = [f"{MEASURES[name]} {_word(found[name])}" for name in names]
        enough = min(value.n for value in found.values()) >= FEWEST_SEEDS
        rows[LABELS.get(rival, rival)] = {
            **{MEASURES[name]: _short(value) for name, value in found.items()},
            "so": "; ".join(said) if enough else f"no conclusion: fewer than {FEWEST_SEEDS} seeds",
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(f"{LABELS.get(own, own)} minus")


def conclusion(results: Results) -> str:
    """Markdown that says, from the test table alone, what training did and whether sketches helped."""
    (low, high), frame = results.seeds, results.direct
    count = f"{high} seed{'s' if high != 1 else ''}" if low == high else f"{low} to {high} seeds"
    head = f"**{results.task}, {results.base} base**, {count}, test tasks, without sketches:"
    if high < FEWEST_SEEDS:
        return f"{head} no conclusion is drawn from fewer than {FEWEST_SEEDS} seeds."
    own, wide = best(results), widest(frame)
    lines = [head, ""]
    for arm, reference in ((PLAIN, BASE), (own, BASE), *((own, rival) for rival in _rivals(results))):
        found = {name: difference(frame, arm, reference, name) for name in ("accuracy", wide, "coverage")}
        said = "; ".join(
            f"{MEASURES[name]} {_word(value)} ({_short(value, sign=True)})" for name, value in found.items()
        )
        if found["accuracy"].n < FEWEST_SEEDS:
            said = f"no conclusion, only {found['accuracy'].n} seeds in common"
        lines.append(f"- **{LABELS.get(arm, arm)}** against {LABELS.get(reference, reference)}: {said}.")
    chosen = f"{LABELS.get(own, own)} was chosen among the arms with sketches by {MEASURES[wide]} on validation tasks."
    return "\n".join([*lines, "", f"{chosen} Intervals are 95 % each, whatever their number. {_aim(results)}".rstrip()])


def _aim(results: Results) -> str:
    """Whether the aim that was set before the runs is met; nothing where too few seeds or another policy say nothing."""
    frame, own = results.direct, best(results)
    found = [
        {name: difference(frame, own, rival, name) for name in ("accuracy", widest(frame), "coverage")}
        for rival in _rivals(results)
    ]
    if results.base not in AIMS or min(values["accuracy"].n for values in found) < FEWEST_SEEDS:
        return ""
    wanted = {"higher"} if results.base == "habit" else {"higher", "no difference shown"}
    met = all(
        {_word(values[widest(frame)]), _word(values["coverage"])} <= wanted and _word(values["accuracy"]) != "lower"
        for values in found
    )
    return f"The aim, {AIMS[results.base].format(MEASURES[widest(frame)])}, is {'met' if met else 'not met'} here."


def _rivals(results: Results) -> list[str]:
    """Trained arms without sketches."""
    return [str(a) for a in results.direct["arm"].unique() if a != BASE and a not in with_sketches(results)]


def with_sketches(results: Results) -> list[str]:
    """The arms that draw sketches in training."""
    return list(dict.fromkeys(job.arm for job in results.jobs if job.config.sampler.name == "sesa"))


def _word(value: Interval) -> str:
    """What the interval of a difference says; "not shown" where it holds 0."""
    if not math.isfinite(value.low):
        return "without an interval"
    if value.low > 0.0:
        return "higher"
    return "lower" if value.high < 0.0 else "no difference shown"


def _short(value: Interval, sign: bool = False) -> str:
    """``statistics.text`` without the count, which has a column of its own."""
    words = statistics.text(*value).rpartition(" (")[0]
    if value.n > 1 and math.isfinite(value.mean) and not math.isfinite(value.low):
        words += " (no interval)"
    return f"+{words}" if sign and value.mean > 0.0 else words


def _present(frame: pd.DataFrame, names: Iterable[str] | Mapping[str, str]) -> list[str]:
    """Those of the measures that were taken: k up to the samples of a task, hard tasks where there are some of each kind."""
    return [name for name in names if name in frame and frame[name].notna().any()]
