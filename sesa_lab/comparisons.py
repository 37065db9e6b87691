"""Arms beside each other: aggregates with bootstrap intervals, paired differences, corrected p values. Pure functions on numbers.

``scores`` are seeds x tasks: one row a run (its seed), one column a task; a plain sequence is one task. ``level`` of confidence is
in (0, 1); ``seed`` fixes the ``resamples`` of a bootstrap, which do not depend on the order of seeds. As in ``statistics``, NaN
means "no value" and is dropped, ``n`` counts the seeds that were kept, one seed has no interval (NaN), infinite values raise.

Which interval to believe: one over seeds, for the seed is what was repeated, and all tasks of a run share one trained policy.
With few seeds percentile bootstraps are too narrow: n values do not show the tails that they came from. How often intervals that
say 95 % hold the truth, for normal effects of seed and task, both of standard deviation 1, and 8 tasks a seed (10,000
repetitions, standard error 0.005 or less; ``tests/test_comparisons.py`` repeats it with fewer):

================================================= ===== ===== ======
interval                                          n = 3 n = 5 n = 10
================================================= ===== ===== ======
Student's t over the seeds' means (recommended)   0.951 0.949 0.951
hierarchical bootstrap (seeds, tasks within)      0.809 0.876 0.925
bootstrap of the seeds' means                     0.750 0.836 0.903
stratified bootstrap, rliable's (within tasks)    0.523 0.578 0.615
================================================= ===== ===== ======

rliable's is meant for runs that are independent from task to task, as one training run a game; here it would take the tasks of
one policy for as many policies. It serves comparison with published tables, and with one column it is the bootstrap of seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from sesa_lab.errors import InputError, printable, suggest
from sesa_lab.seeding import stream
from sesa_lab.statistics import Interval, mean_interval

Array: TypeAlias = npt.NDArray[np.float64]

METHOD = (
    "Means and differences have 95 % intervals of Student's t over seeds, which hold the truth as often as they say with few seeds;"
    " beside them stand 95 % percentile intervals of a hierarchical bootstrap (seeds, and tasks within a seed where values are"
    " kept by task), too narrow with ten seeds or fewer. Differences are of the runs of one seed on the same tasks; their p values"
    " are the paired t test's, by Holm's method corrected over the arms of a measure. Interquartile means (IQM, by bootstrap) and"
    " the probability of improvement, that a run of the arm is better than one of the baseline (bootstrap over seeds; [1, 1] only"
    " says that no two runs overlapped), are of seeds' means."
)
"""What ``compare`` does, for a report."""

_MOST_CELLS = 2_000_000  # of one batch of resamples, to bound memory


class Difference(NamedTuple):
    """A paired difference.

    Attributes:
        interval: mean with Student's t interval over seeds: the one to believe.
        bootstrap: the same mean with the hierarchical percentile interval.
        p: of the two-sided paired t test of "the mean is 0", in [0, 1]; NaN below two seeds.
    """

    interval: Interval
    bootstrap: Interval
    p: float


def aggregate(
    scores: npt.ArrayLike,
    measure: Literal["mean", "iqm"] = "mean",
    resample: Literal["stratified", "hierarchical"] = "stratified",
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """One number for all runs and tasks, with a percentile bootstrap interval.

    Args:
        scores: seeds x tasks, any unit.
        measure: ``mean``, or ``iqm``: the interquartile mean, what is left of all cells after the lowest and the highest
            quarter (rounded down to whole cells) are cut: ``scipy.stats.trim_mean(scores, 0.25, axis=None)``.
        resample: ``stratified``: runs within each task, independently from task to task, as rliable does (Agarwal et al. 2021,
            "Deep reinforcement learning at the edge of the statistical precipice"); too narrow where seeds have an effect
            (see above). ``hierarchical``: seeds, then tasks within each resampled seed, for tasks nested in seeds.

    Returns:
        (value, low, high, n seeds). No interval (NaN) below two seeds. A seed without values is dropped. With
        ``hierarchical`` other NaN cells are left out, and the mean is that of the seeds' means.

    Raises:
        InputError: a hole in a row with ``stratified``, infinite values, or settings out of range.
    """
    _check(level, resamples)
    for name, known in ((measure, ["mean", "iqm"]), (resample, ["stratified", "hierarchical"])):
        if name not in known:
            raise InputError(f"{name!r} is neither of two; {suggest(str(name), known)}")
    statistic = _iqm if measure == "iqm" else _mean
    cells = _cells(scores, whole=resample == "stratified")
    n = len(cells)
    value = float(statistic(cells[None])[0]) if n else math.nan
    if n < 2:
        return Interval(value, math.nan, math.nan, n)
    draw = _stratified if resample == "stratified" else _hierarchical
    generator = stream(seed, "bootstrap")
    found = _batches(lambda size: statistic(draw(cells, generator, size)), cells.size, resamples)
    return _percentiles(value, found, level, n)


def probability_of_improvement(
    x: npt.ArrayLike, y: npt.ArrayLike, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Chance that a run of x is better than an independent run of y, ties counted half, mean over tasks (as in rliable).

    In each task it is Mann and Whitney's U / (n_x n_y). 0.5: none is better; 1: all runs of x are above all of y. The
    interval resamples the runs of x and of y independently within each task. Where no run of one overlaps the other, every
    resample gives the same and the interval has width 0: the bootstrap cannot show how little that says with few runs.

    Args:
        x: seeds x tasks, larger is better.
        y: the same tasks, any number of seeds: runs are not paired.

    Returns:
        (probability, low, high, n), n the smaller number of seeds. NaN for n = 0; no interval for n = 1.

    Raises:
        InputError: other numbers of tasks, holes in a row, infinite values.
    """
    _check(level, resamples)
    first, second = _cells(x, whole=True), _cells(y, whole=True)
    n = min(len(first), len(second))
    if first.shape[1] != second.shape[1]:
        raise InputError(
            f"{first.shape[1]} and {second.shape[1]} tasks, expected the same: choose those that both have"
        )
    # won[task, i, j]: run i of x against run j of y. Sorted, so that the order of seeds does not matter.
    above, below = (np.sort(side, axis=0).T for side in (first, second))
    won = (above[:, :, None] > below[:, None, :]) + 0.5 * (above[:, :, None] == below[:, None, :])
    value = float(won.mean(axis=(1, 2)).mean()) if n else math.nan
    if n < 2:
        return Interval(value, math.nan, math.nan, n)
    generator = stream(seed, "bootstrap")
    tasks, n_x, n_y = won.shape

    def draw(size: int) -> Array:
        # how often each run is drawn; (tasks, size, runs)
        of_x, of_y = (generator.multinomial(k, np.full(k, 1 / k), (tasks, size)).astype(float) for k in (n_x, n_y))
        return np.asarray(((of_x @ won) * of_y).sum(axis=2).mean(axis=0) / (n_x * n_y))

    return _percentiles(value, _batches(draw, tasks * (n_x + n_y), resamples), level, n)


def paired_difference(
    a: npt.ArrayLike, b: npt.ArrayLike, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Difference:
    """Mean of a - b over cells of the same seed and the same task.

    Tasks are nested in seeds: a seed fixes a run and its tasks, so the tasks in one column may differ from seed to seed, and
    only the two cells of one place are the same task. Each seed counts alike: the mean is that of the seeds' means.

    Two intervals. ``interval`` is Student's t on the seeds' mean differences: these are independent, and means of many
    tasks, so near to normal; then it holds the truth as often as it says, whatever the sizes of the effects of seed and task.
    ``bootstrap`` resamples seeds, and tasks within each resampled seed; it is too narrow for ten seeds and fewer (see the
    module). No bootstrap-t: of three to five seeds a resample is often one seed several times, without any spread to divide by.

    Args:
        a: seeds x tasks; NaN where there is no value.
        b: the same shape, and in each cell the same seed and task.

    Returns:
        See ``Difference``; n counts the seeds with a pair. p is 1 where all differences are 0. Where the seeds' differences are
        equal and not 0 the t test would divide by 0 and be certain; p is then 2^(1 - n), the exact test's of their signs.

    Raises:
        InputError: shapes that differ, infinite values.
    """
    _check(level, resamples)
    first, second = _matrix(a), _matrix(b)
    if first.shape != second.shape:
        raise InputError(f"shapes are {first.shape} and {second.shape}, expected the same seeds and tasks on each side")
    cells = _cells(first - second)
    n = len(cells)
    means = np.nanmean(cells, axis=1) if n else np.empty(0)
    interval = mean_interval(means, level)
    if n < 2:
        return Difference(interval, Interval(interval.mean, math.nan, math.nan, n), math.nan)
    generator = stream(seed, "bootstrap")
    found = _batches(lambda size: _mean(_hierarchical(cells, generator, size)), cells.size, resamples)
    # differences that are equal on paper differ by rounding of the values they are between
    size = max(np.nanmax(np.abs(first)), np.nanmax(np.abs(second)))
    if float(np.ptp(means)) <= 1e-12 * size:
        p = 1.0 if abs(interval.mean) <= 1e-12 * size else 2.0 ** (1 - n)
    else:
        p = float(stats.ttest_1samp(means, 0.0).pvalue)
    return Difference(interval, _percentiles(interval.mean, found, level, n), p)


def holm(p_values: Iterable[float]) -> list[float]:
    """Holm's (1979) step-down adjustment: the chance of any false alarm among all is at most that at which one rejects.

    The k-th smallest of m is multiplied by m - k + 1 (k from 1), and made no smaller than those before it, and at most 1.

    Args:
        p_values: each in [0, 1], or InputError; NaN (no test) stays NaN and is not counted.

    Returns:
        Adjusted values, in the order given.
    """
    given = np.asarray([math.nan if p is None else p for p in p_values], dtype=np.float64)
    wrong = given[(given < 0.0) | (given > 1.0)]
    if len(wrong):
        raise InputError(f"a p value is {wrong[0]}, expected numbers in [0, 1] or NaN")
    adjusted = np.full(len(given), math.nan)
    order = np.argsort(given)[: int(np.isfinite(given).sum())]  # NaN is sorted last
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(given[order] * factors), 1.0)
    return [float(value) for value in adjusted]


def compare(
    table: pd.DataFrame,
    baseline: str | None,
    base: str | None = None,
    value: str = "value",
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """All arms beside a baseline, with 95 % intervals.

    Args:
        table: one row a value: columns ``arm``, ``seed``, ``value`` and, where a run has several tasks, ``task``. Rows without a
            value are left out.
        baseline: the arm that the others are compared with, such as ``parallel``; None: there is none, and what compares
            is NaN.
        base: another such arm, the policy before training.
        value: name of the column.

    Returns:
        One row an arm, in order of appearance: ``arm``; ``n_seeds``, ``seeds`` (``1-5``), ``n_tasks`` (of a seed, as text;
        ``6-8`` where it varies); ``mean``, ``low``, ``high`` (Student's t over seeds' means), ``boot_low``, ``boot_high``
        (hierarchical bootstrap); ``iqm``, ``iqm_low``, ``iqm_high`` (over all cells, hierarchical bootstrap). Against the
        baseline, all NaN or 0 in its own row: ``n_pairs``, the seeds that both have, with a common task; of these ``diff``,
        ``diff_low``, ``diff_high``, ``diff_boot_low``, ``diff_boot_high``, ``p``, as in ``paired_difference``, and ``p_holm``, of
        arms but ``base``; of all seeds of either, paired or not, ``poi``, ``poi_low``, ``poi_high``: probability of improvement
        of seeds' means. With ``base`` the same again, ``poi`` left out: ``n_pairs_base``, ``diff_base``, ``diff_base_low``,
        ``diff_base_high``, ``diff_base_boot_low``, ``diff_base_boot_high``, ``p_base``, ``p_base_holm``.

    Raises:
        InputError: no rows, a column or an arm that is not there, two rows of one cell, values that are no finite numbers.
    """
    settings = {"resamples": resamples, "seed": seed}
    parts = _tidy(table, value).groupby("arm", sort=False)
    arms = {arm: part.pivot(index="seed", columns="task", values="value") for arm, part in parts}
    for role, name in (("baseline", baseline), ("base", base)):
        if name is not None and name not in arms:
            raise InputError(f"{role} {name!r} is no arm of the table; {suggest(str(name), [*map(str, arms)])}")
    rows = []
    for arm, scores in arms.items():
        row = {"arm": arm, **_alone(scores, **settings)}
        row |= _against(scores, None if arm == baseline else arms.get(baseline), "", **settings)
        if base is not None:
            row |= _against(scores, None if arm == base else arms[base], "_base", **settings)
        rows.append(row)
    result = pd.DataFrame(rows)
    for name in ["p"] if base is None else ["p", "p_base"]:
        result.insert(result.columns.get_loc(name) + 1, f"{name}_holm", holm(result[name].where(result["arm"] != base)))
    return result


def latex(table: pd.DataFrame, columns: Sequence[str] | Mapping[str, str] | None = None) -> str:
    r"""A booktabs ``tabular`` of text cells, whatever the texts are: nothing in them can be a command.

    Args:
        table: any; NaN and None become empty cells.
        columns: which, in this order; a mapping also gives their headings. None: all.

    Returns:
        LaTeX that needs ``\usepackage{booktabs}``. Line breaks become spaces, what cannot be printed a dot. Letters beyond
        Latin ones need XeLaTeX or LuaLaTeX.

    Raises:
        InputError: a column is not there, or there is none at all.
    """
    wanted = table.columns if columns is None else columns
    chosen = dict(wanted) if isinstance(wanted, Mapping) else {name: str(name) for name in wanted}
    if not chosen:
        raise InputError("a table without columns, expected at least one: name columns that it has")
    for name in chosen:
        if name not in table.columns:
            raise InputError(f"no column {name!r} in the table; {suggest(str(name), [str(c) for c in table.columns])}")
    rows = [chosen.values(), *table[list(chosen)].to_numpy(object)]
    lines = [" & ".join(map(_escaped, row)) + r" \\" for row in rows]
    inside = ["\\toprule", lines[0], "\\midrule", *lines[1:], "\\bottomrule"]
    return "\n".join([f"\\begin{{tabular}}{{{'l' * len(chosen)}}}", *inside, "\\end{tabular}", ""])


_NAMED = {"\\": "backslash", "~": "asciitilde", "^": "asciicircum", "<": "less", ">": "greater", "|": "bar"}
_LATEX = {
    **{mark: f"\\text{name}{{}}" for mark, name in _NAMED.items()},
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    **{mark: f"{{{mark}}}" for mark in "[*"},  # after a row's end, these would be an argument of it
}


def _escaped(cell: object) -> str:
    if pd.api.types.is_scalar(cell) and pd.isna(cell):
        return ""
    return "".join(_LATEX.get(letter, letter) for letter in printable(" ".join(str(cell).split())))


def _check(level: float, resamples: int) -> None:
    if not 0.0 < level < 1.0 or resamples < 1:
        raise InputError(
            f"level {level}, {resamples} resamples; expected such as 0.95 in (0, 1), and 10000, at least 1"
        )


def _matrix(scores: npt.ArrayLike) -> Array:
    """Seeds x tasks as float64, checked."""
    try:
        found = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"values are no table of numbers ({error}); write NaN where there is no value") from error
    if found.ndim not in (1, 2):
        raise InputError(f"scores have the shape {found.shape}, expected seeds x tasks, or one value a seed")
    if np.isinf(found).any():
        raise InputError("a value is infinite, expected finite numbers or NaN: look for a division by zero upstream")
    return found[:, None] if found.ndim == 1 else found


def _cells(scores: npt.ArrayLike, *, whole: bool = False) -> Array:
    """Without seeds that have no value; ``whole``: those that are left must have one in each task."""
    found = _matrix(scores)
    found = found[~np.isnan(found).all(axis=1)]
    if whole and np.isnan(found).any():
        raise InputError("a seed has values in some tasks only, expected all or none: leave tasks out, or give means")
    return found


def _mean(draws: Array) -> Array:
    """(resamples, seeds, tasks) -> (resamples,): the mean of seeds' means."""
    by_seed = np.nanmean(draws, axis=2) if np.isnan(draws).any() else draws.mean(axis=2)
    return np.asarray(by_seed.mean(axis=1))


def _iqm(draws: Array) -> Array:
    """(resamples, seeds, tasks) -> (resamples,): the mean of the cells between the quarters."""
    flat = np.sort(draws.reshape(len(draws), -1), axis=1)  # NaN is sorted last
    count = np.isfinite(flat).sum(axis=1, keepdims=True)
    cut = count // 4
    place = np.arange(flat.shape[1])
    kept = (place >= cut) & (place < count - cut)
    return np.asarray(np.where(kept, flat, 0.0).sum(axis=1) / kept.sum(axis=1))


def _stratified(cells: Array, generator: np.random.Generator, size: int) -> Array:
    """(size, seeds, tasks): each task's runs drawn with replacement, apart from the other tasks'."""
    ordered = np.sort(cells, axis=0)
    return np.take_along_axis(ordered[None], generator.integers(0, len(cells), (size, *cells.shape)), axis=1)


def _hierarchical(cells: Array, generator: np.random.Generator, size: int) -> Array:
    """(size, seeds, tasks): seeds drawn with replacement, and within each drawn seed as many of its tasks as it has."""
    packed = np.sort(cells, axis=1)  # values first, NaN behind them
    packed = packed[np.lexsort(packed.T[::-1])]
    counts = np.isfinite(packed).sum(axis=1)
    packed = packed[:, : counts.max()]
    seeds = generator.integers(0, len(packed), (size, len(packed)))[:, :, None]
    tasks = generator.integers(0, counts[seeds], (*seeds.shape[:2], packed.shape[1]))
    # a seed with fewer tasks than others has as many draws as tasks
    return np.where(np.arange(packed.shape[1]) < counts[seeds], packed[seeds, tasks], math.nan)


def _batches(draw: Callable[[int], Array], cells: int, resamples: int) -> Array:
    """``resamples`` draws, not all in memory at once; ``cells``: of one."""
    size = max(1, min(resamples, _MOST_CELLS // max(1, cells)))
    sizes = [size] * (resamples // size) + ([resamples % size] if resamples % size else [])
    return np.concatenate([draw(each) for each in sizes])


def _percentiles(value: float, found: Array, level: float, n: int) -> Interval:
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), n)


def _tidy(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """Columns arm, seed, task, value (finite numbers or NaN), one row a cell."""
    for name in ("arm", "seed", value):
        if name not in table.columns:
            raise InputError(f"no column {name!r} in the table; {suggest(name, [str(c) for c in table.columns])}")
    keys = table[["arm", "seed"]].assign(task=table["task"] if "task" in table.columns else 0)
    for name in keys:
        if keys[name].isna().any():
            raise InputError(f"a row has no {name}, expected one in each row: drop it, or fill it in")
    if not len(keys):
        raise InputError("the table is empty, expected a row for each arm and seed: are there finished runs?")
    twice = keys.duplicated()
    if twice.any():
        row = keys[twice].iloc[0]
        where = f"arm {row['arm']!r}, seed {row['seed']}" + (f", task {row['task']}" if "task" in table.columns else "")
        raise InputError(f"{where} has several rows, expected one: choose a step first")
    return keys.assign(value=_matrix(table[value])[:, 0])


def _alone(scores: pd.DataFrame, **settings: int) -> dict[str, Any]:
    """What is said of one arm."""
    kept = scores.dropna(how="all")
    counts = sorted({int(count) for count in kept.notna().sum(axis=1)})
    mean = mean_interval(kept.mean(axis=1))
    boot = aggregate(kept, "mean", "hierarchical", **settings)
    iqm = aggregate(kept, "iqm", "hierarchical", **settings)
    return {
        "n_seeds": mean.n,
        "seeds": in_words(list(kept.index)),
        "n_tasks": "-".join(str(count) for count in (counts if len(counts) < 2 else [counts[0], counts[-1]])) or "0",
        **{"mean": mean.mean, "low": mean.low, "high": mean.high, "boot_low": boot.low, "boot_high": boot.high},
        **{"iqm": iqm.mean, "iqm_low": iqm.low, "iqm_high": iqm.high},
    }


def _against(scores: pd.DataFrame, other: pd.DataFrame | None, suffix: str, **settings: int) -> dict[str, Any]:
    """What is said of an arm beside another; None: there is none to compare with."""
    mine, theirs = scores.align(other if other is not None else scores.iloc[:0], join="inner")
    found = paired_difference(mine, theirs, **settings)
    diff, boot = found.interval, found.bootstrap
    row = {
        f"n_pairs{suffix}": diff.n,
        **{f"diff{suffix}": diff.mean, f"diff{suffix}_low": diff.low, f"diff{suffix}_high": diff.high},
        **{f"diff{suffix}_boot_low": boot.low, f"diff{suffix}_boot_high": boot.high},
        f"p{suffix}": found.p,
    }
    if not suffix:
        means = [() if side is None else side.mean(axis=1).dropna() for side in (scores, other)]
        poi = probability_of_improvement(*means, **settings)
        row |= {"poi": poi.mean, "poi_low": poi.low, "poi_high": poi.high}
    return row


def in_words(seeds: Sequence[Any]) -> str:
    """Seeds as text, ``1-3, 7``: neighbours joined from three on; other than whole numbers as they are."""
    if not all(isinstance(each, int | np.integer) for each in seeds):
        return ", ".join(map(str, seeds))
    runs: list[list[int]] = []
    for each in sorted(map(int, seeds)):
        if not runs or each != runs[-1][-1] + 1:
            runs.append([])
        runs[-1].append(each)
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)
