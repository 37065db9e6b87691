"""What the microscope shows of a run, as small tables: shares of strategies over steps, curves, alarms, and single samples."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sesa_lab import runs
from sesa_lab.collapse import COLUMNS, detect, direct_of, of_rollouts
from sesa_lab.errors import InputError, suggest
from sesa_lab.plots.theme import OTHERS, UNREADABLE
from sesa_lab.runs.browse import nothing_yet

Source = Literal["candidates", "answers"]
SOURCES: tuple[Source, ...] = ("candidates", "answers")
"""What shares are of: the candidates that a training step drew, or the evaluated answers of the policy alone."""
FAN = (1, 8, 16, 64)
"""The k of the pass@k that are worked out where all masses are known; else those that the run logged."""
COLUMNS_DRAWN = 300
"""Steps, and points of a line, that are drawn at most: more are drawn as means of stretches of equally many."""
MOST_LEAVES = 1000
"""Of a tree that is drawn."""
_SIGNS = re.compile(r"[^\w\s]+")
_SAMPLE = ["step", "group", "index", "task", "reward", "success", "strategy", "completion"]


class Selection(NamedTuple):
    """Samples that are looked at.

    Attributes:
        run: place of the run among those shown, from 0.
        step: training step.
        strategy: None: any, or where ``unreadable`` none.
        unreadable: only samples whose strategy could not be read.
        success: only samples that succeeded.
        cluster: of texts, by its name; None: any.
    """

    run: int
    step: int
    strategy: str | None = None
    unreadable: bool = False
    success: bool = False
    cluster: str | None = None


@dataclass(frozen=True, eq=False)
class View:
    """One run as the microscope sees it.

    Attributes:
        run: the run.
        shares: source -> columns step, strategy (None: unreadable), share (of the step's candidates, or of the evaluated mass,
            0..1) and success (that part of the share that succeeded).
        training: one row a step: step, entropy (nats a token), distinct (distinct correct strategies, mean over all groups),
            zero_variance (share of groups without a gradient, 0..1).
        evaluated: one row an evaluation: step, entropy (nats an answer), coverage (distinct correct among ``coverage_k``
            samples), coverage_k, and pass_K (0..1) for each K of ``fan`` and maybe others; NaN where not measured.
        alarms: columns step and onset: as noticed while training where the run was watched, else by the detector now.
        watched: which of the two.
        exact: whether ``answers`` are the mass of all answers; else shares among samples.
    """

    run: runs.Run = field(repr=False)
    shares: dict[Source, pd.DataFrame] = field(repr=False)
    training: pd.DataFrame = field(repr=False)
    evaluated: pd.DataFrame = field(repr=False)
    alarms: pd.DataFrame = field(repr=False)
    watched: bool
    exact: bool

    @property
    def steps(self) -> list[int]:
        """Steps with candidates, ascending."""
        return [int(step) for step in self.shares["candidates"]["step"].unique()]

    @property
    def fan(self) -> list[int]:
        """Those k whose pass@k some evaluation has, ascending."""
        names = [name for name in self.evaluated if name.startswith("pass_") and self.evaluated[name].notna().any()]
        return sorted(int(name.removeprefix("pass_")) for name in names)


@dataclass(frozen=True, eq=False)
class Heat:
    """Strategies x time, one pair of arrays a run; the same rows in each.

    Attributes:
        names: strategies, most frequent first.
        rest: rows below those of ``names``: some of ``OTHERS`` and ``UNREADABLE``, in this order.
        solved: one a name, whether it succeeded anywhere.
        steps: a run's columns.
        share: (rows, columns) float64, 0..1, see ``View.shares``; with ``success_only`` the part that succeeded.
        success: likewise, the part that succeeded.
    """

    names: list[str]
    rest: list[str]
    solved: list[bool]
    steps: list[list[int]]
    share: list[NDArray[np.float64]]
    success: list[NDArray[np.float64]]


class Paths(NamedTuple):
    """Answers that are places of a tree, told level by level.

    Attributes:
        leaves: all of them, as ``strategy`` names them.
        separator: what stands between two levels.
    """

    leaves: list[str]
    separator: str


def paths(views: Sequence[View]) -> Paths | None:
    """The tree whose leaves the answers are; None where their masses are not exact, or they are no paths of one depth.

    Only answers that some policy gives a mass are known. Levels are told apart by the one sign, or run of signs, that is in all
    answers equally often.
    """
    if not all(view.exact for view in views):
        return None
    known = {name for view in views for name in view.shares["answers"]["strategy"] if name is not None}
    if not 2 <= len(known) <= MOST_LEAVES:
        return None
    counts = [Counter(_SIGNS.findall(name)) for name in known]
    for sign, times in counts[0].items():
        if all(other[sign] == times for other in counts):
            return Paths(sorted(known), sign)
    return None


def read(run: runs.Run | str | Path) -> View:
    """Read a run's few columns.

    Raises:
        InputError: no run there, or it has no committed candidates.
    """
    run = run if isinstance(run, runs.Run) else runs.load(run)
    rows = run.read_rollouts(list(COLUMNS))
    if not len(rows):
        raise nothing_yet(run)
    answers = run.read_answers()
    watched = run.config.watch.on_alarm != "none"
    return View(
        run=run,
        shares={"candidates": shares_of(rows), "answers": _of_answers(answers, run.exact)},
        training=_training(run, rows),
        evaluated=_evaluated(run, answers if run.exact else None),
        alarms=run.alarms[["step", "onset"]].astype("int64") if watched else _detected(run, rows),
        watched=watched,
        exact=run.exact,
    )


def heat(views: Sequence[View], source: Source = "candidates", most: int = 12, success_only: bool = False) -> Heat:
    """The most frequent strategies of all runs together, what is left of each step, and what could not be read.

    Frequent by the mean share over a run's steps, summed over runs: a longer run counts no more than a shorter one.

    Args:
        views: of ``read``.
        source: one of ``SOURCES``.
        most: strategies with a row of their own, >= 1.
        success_only: count successes alone; shares stay shares of all.

    Raises:
        InputError: another source, no view, or ``most`` below 1.
    """
    if source not in SOURCES:
        raise InputError(f"shares of {source!r}; {suggest(str(source), list(SOURCES))}")
    if not views or most < 1:
        raise InputError(f"expected at least one run and one strategy to show, got {len(views)} and {most}")
    return heat_of([view.shares[source] for view in views], most, success_only)


def heat_of(tables: Sequence[pd.DataFrame], most: int, success_only: bool) -> Heat:
    """``heat`` of shares that are given, one table a run, columns as in ``View.shares``."""
    counted = "success" if success_only else "share"
    ranks = pd.Series(dtype="float64")
    for table in tables:
        known = table[table["strategy"].notna()]
        ranks = ranks.add(known.groupby("strategy")[counted].sum() / max(1, table["step"].nunique()), fill_value=0.0)
    ranks = ranks[ranks > 0.0]
    order = ranks.iloc[np.lexsort((ranks.index.astype(str), -ranks))]  # equal ones by name
    names = [str(name) for name in order.index[:most]]
    solved = {s for table in tables for s in table.loc[table["success"] > 0.0, "strategy"].dropna()}
    unreadable = any((table.loc[table["strategy"].isna(), counted] > 0.0).any() for table in tables)
    rest = [OTHERS] * (len(order) > most) + [UNREADABLE] * unreadable
    steps = [[int(step) for step in table["step"].unique()] for table in tables]
    return Heat(
        names=names,
        rest=rest,
        solved=[name in solved for name in names],
        steps=steps,
        share=[_matrix(table, names, rest, counted) for table in tables],
        success=[_matrix(table, names, rest, "success") for table in tables],
    )


def samples(view: View, selection: Selection) -> pd.DataFrame:
    """The selected candidates in the order drawn; only their step is read.

    Returns:
        Columns group, index, task, reward, success, strategy, completion.
    """
    rows = view.run.read_rollouts(_SAMPLE, [selection.step])
    if selection.unreadable:
        rows = rows[rows["strategy"].isna()]
    elif selection.strategy is not None:
        rows = rows[rows["strategy"] == selection.strategy]
    if selection.success:
        rows = rows[rows["success"]]
    return rows.drop(columns="step").reset_index(drop=True)


def stretches(columns: int) -> list[slice]:
    """Places of the columns that are drawn as one: equally many each, the last maybe fewer; at most ``COLUMNS_DRAWN`` of them."""
    each = max(1, -(-columns // COLUMNS_DRAWN))
    return [slice(start, min(start + each, columns)) for start in range(0, columns, each)]


def _matrix(table: pd.DataFrame, names: list[str], rest: list[str], column: str) -> NDArray[np.float64]:
    steps = table["step"].unique()
    columns = np.searchsorted(steps, table["step"].to_numpy())
    places = {name: row for row, name in enumerate(names)}
    other, unreadable = (len(places) + rest.index(name) if name in rest else -1 for name in (OTHERS, UNREADABLE))
    rows = np.array(
        [
            unreadable if missing else places.get(name, other)
            for name, missing in zip(table["strategy"], table["strategy"].isna(), strict=True)
        ],
        dtype=int,
    )
    kept = rows >= 0  # of success alone there may be no row for what is left: it has no share
    found = np.zeros((len(places) + len(rest), len(steps)))
    np.add.at(found, (rows[kept], columns[kept]), table[column].to_numpy()[kept])
    return found


def shares_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each step's candidates, as ``View.shares``; columns step, strategy and success among others."""
    size = rows.groupby("step")["step"].transform("size")
    return _shares(rows, 1.0 / size.to_numpy())


def _of_answers(answers: pd.DataFrame, exact: bool) -> pd.DataFrame:
    """Mean over the tasks of an evaluation. What an exact one leaves over is mass on what is no answer: unreadable."""
    tasks = answers.groupby("step")["task"].transform("nunique")
    found = _shares(answers, (answers["probability"] / tasks).to_numpy())
    if not exact:
        return found
    left = (1.0 - found.groupby("step")["share"].sum()).clip(lower=0.0).reset_index()
    left = left[left["share"] > 1e-9].assign(strategy=None, success=0.0)  # less is rounding
    if not len(left):
        return found
    both = pd.concat([found, left[["step", "strategy", "share", "success"]]], ignore_index=True)
    return both.sort_values("step", kind="stable", ignore_index=True)


def _shares(rows: pd.DataFrame, weights: NDArray[np.float64]) -> pd.DataFrame:
    part = pd.DataFrame({"step": rows["step"], "strategy": rows["strategy"], "share": weights})
    part["success"] = part["share"] * rows["success"]
    found = part.groupby(["step", "strategy"], dropna=False, sort=True)[["share", "success"]].sum().reset_index()
    found["strategy"] = found["strategy"].astype(object).where(found["strategy"].notna(), None)
    return found


def _training(run: runs.Run, rows: pd.DataFrame) -> pd.DataFrame:
    """A group without a success counts 0 distinct correct strategies."""
    groups = rows[["step", "group"]].drop_duplicates().groupby("step").size()
    correct = rows[rows["success"] & rows["strategy"].notna()][["step", "group", "strategy"]].drop_duplicates()
    distinct = correct.groupby("step").size().reindex(groups.index, fill_value=0) / groups
    logged = run.steps[["step", "entropy", "zero_variance"]].drop_duplicates("step", keep="last")
    return logged.merge(distinct.rename("distinct").reset_index(), how="outer", on="step").sort_values("step")


def _evaluated(run: runs.Run, answers: pd.DataFrame | None) -> pd.DataFrame:
    """pass@k as logged; of exact ``answers`` by 1 - (1 - m)^k, m the mass on a task's successes, mean over tasks."""
    logged = run.evaluations.drop_duplicates("step", keep="last")
    table = logged[["step", "entropy", "coverage", "coverage_k"]].copy()
    table["pass_1"] = logged["accuracy"]
    for name in logged.columns:
        if found := re.fullmatch(r"pass_at_(\d+)", name):
            table[f"pass_{found[1]}"] = logged[name]
    if answers is not None:
        solved = answers["probability"].where(answers["success"], 0.0)
        mass = solved.groupby([answers["step"], answers["task"]]).sum().clip(upper=1.0)
        for k in FAN[1:]:
            table[f"pass_{k}"] = table["step"].map((1.0 - (1.0 - mass) ** k).groupby("step").mean())
    return table.reset_index(drop=True)


def _detected(run: runs.Run, rows: pd.DataFrame) -> pd.DataFrame:
    """What the detector, with its defaults, says of a run that nobody watched."""
    entropy = dict(zip(run.steps["step"], run.steps["entropy"], strict=True))
    alarms, _ = detect(of_rollouts(rows, direct_of(run.config.sampler), entropy))
    found = [{"step": alarm.step, "onset": alarm.onset} for alarm in alarms]
    return pd.DataFrame(found, columns=["step", "onset"]).astype("int64")
