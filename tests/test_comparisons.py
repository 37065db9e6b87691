"""Arms beside each other: references of rliable and statsmodels, coverage of the intervals, properties, hostile names."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from sesa_lab import comparisons, statistics
from sesa_lab.errors import InputError

# Stored, for rliable 1.2.0 needs arch < 8, whose 7.2.0 cannot be imported beside pandas 3. Made with rliable 1.2.0, arch 7.2.0,
# pandas 2.3.3, numpy 2.4.6, scipy 1.17.1 (pip install rliable "pandas<3"), after np.random.seed(0):
#   from rliable import library, metrics
#   for f in (metrics.aggregate_mean, metrics.aggregate_iqm):
#       for s in (X, Y):
#           library.get_interval_estimates({"s": s}, lambda z: np.array([f(z)]), reps=50_000)
#   library.get_interval_estimates({"xy": (X, Y)}, lambda a, b: np.array([metrics.probability_of_improvement(a, b)]), reps=20_000)
X = np.array(
    [
        [0.6, 0.66, 0.55, 0.42],
        [0.51, 0.4, 0.61, 0.87],
        [0.5, 0.48, 0.7, 0.67],
        [0.62, 0.41, 0.59, 0.74],
        [0.33, 0.51, 0.22, 0.34],
    ]
)
Y = np.array(
    [
        [0.6, 0.45, 0.25, 0.55],
        [0.53, 0.46, 0.7, 0.39],
        [0.49, 0.52, 0.19, 0.4],
        [0.3, 0.34, 0.71, 0.34],
        [0.49, 0.68, 0.38, 0.48],
        [0.52, 0.51, 0.25, 0.52],
    ]
)
RLIABLE = {
    ("mean", "x"): (0.5365, 0.4705, 0.5985),
    ("mean", "y"): (0.46041667, 0.40875, 0.51458333),
    ("iqm", "x"): (0.539, 0.463, 0.606),
    ("iqm", "y"): (0.4675, 0.41083333, 0.51666667),
    ("poi", "xy"): (0.59166667, 0.4125, 0.76666667),
}
NEAR = (
    0.004  # ends of two bootstraps of 20,000 and more resamples: a percentile's standard error here is 0.0005 to 0.001
)

scores = arrays.arrays(
    float, st.tuples(st.integers(2, 6), st.integers(1, 4)), elements=st.integers(-50, 50).map(lambda k: k / 8)
)
few = settings(max_examples=25, deadline=None)


@pytest.mark.parametrize(("measure", "name"), [key for key in RLIABLE if key[0] != "poi"])
def test_aggregates_as_rliable(measure: str, name: str) -> None:
    value, low, high = RLIABLE[measure, name]
    found = comparisons.aggregate(X if name == "x" else Y, measure, resamples=20_000)
    assert found.mean == pytest.approx(value, abs=1e-8)
    assert (found.low, found.high) == pytest.approx((low, high), abs=NEAR)
    assert found.n == (5 if name == "x" else 6)


def test_probability_of_improvement_as_rliable() -> None:
    value, low, high = RLIABLE["poi", "xy"]
    found = comparisons.probability_of_improvement(X, Y, resamples=20_000)
    assert found.mean == pytest.approx(value, abs=1e-8)
    # probabilities here come in steps of 1 / (5 x 6 x 4 x 2) = 0.0042
    assert (found.low, found.high) == pytest.approx((low, high), abs=2.5 / 240)
    assert found.n == 5


@few
@given(scores)
def test_point_estimates_as_scipy(values: np.ndarray) -> None:
    iqm = comparisons.aggregate(values, "iqm", resamples=50)
    assert iqm.mean == pytest.approx(stats.trim_mean(values, 0.25, axis=None), abs=1e-12)
    other = values[: max(1, len(values) - 1)] + 0.5
    u = stats.mannwhitneyu(values, other, axis=0).statistic / (len(values) * len(other))
    assert comparisons.probability_of_improvement(values, other, resamples=50).mean == pytest.approx(u.mean())


def test_probability_of_improvement_by_hand() -> None:
    # task 1: of 2 x 2 pairs 3 > 1, 3 > 2, 2 > 1 are won and 2 = 2 counts half: 3.5 / 4; task 2: all equal, 1/2
    found = comparisons.probability_of_improvement([[3, 7], [2, 7]], [[1, 7], [2, 7]])
    assert found.mean == (0.875 + 0.5) / 2
    swapped = comparisons.probability_of_improvement([[1, 7], [2, 7]], [[3, 7], [2, 7]])
    assert swapped.mean == 1 - found.mean
    assert comparisons.probability_of_improvement([5, 6, 7], [1, 2]) == (1.0, 1.0, 1.0, 2)


def test_one_seed_has_no_interval() -> None:
    for resample in ("stratified", "hierarchical"):
        for measure in ("mean", "iqm"):
            found = comparisons.aggregate([[1.0, 2.0, 3.0, 4.0]], measure, resample)
            assert (found.mean, found.n) == (2.5, 1)
            assert math.isnan(found.low) and math.isnan(found.high)
            nothing = comparisons.aggregate([[math.nan]], measure, resample)
            assert nothing.n == 0 and math.isnan(nothing.mean)
    found = comparisons.probability_of_improvement([1.0], [0.0, 2.0])
    assert (found.mean, found.n) == (0.5, 1) and math.isnan(found.low)
    pair = comparisons.paired_difference([[3.0, 5.0]], [[1.0, 1.0]])
    assert pair.interval[:1] == pair.bootstrap[:1] == (3.0,)
    assert all(math.isnan(end) for end in (*pair.interval[1:3], *pair.bootstrap[1:3], pair.p))


def test_missing_values() -> None:
    nan = math.nan
    # seeds' means 2 and 4; the third seed has no value
    ragged = [[1.0, nan, 3.0], [nan, nan, 4.0], [nan, nan, nan]]
    found = comparisons.aggregate(ragged, "mean", "hierarchical")
    assert (found.mean, found.n) == (3.0, 2)
    assert 1.0 <= found.low < found.high <= 4.0
    # 8 cells: the lowest two and the highest two are cut, (3 + 4 + 5 + 6) / 4
    eight = [[1.0, 2.0, 3.0, 4.0, nan], [5.0, 6.0, 7.0, nan, 100.0]]
    assert comparisons.aggregate(eight, "iqm", "hierarchical").mean == 4.5
    with pytest.raises(InputError, match="some tasks only"):
        comparisons.aggregate(ragged)
    with pytest.raises(InputError, match="some tasks only"):
        comparisons.probability_of_improvement(ragged, ragged)
    # pairs: seed 0 by its first task alone, 1 - 0; seed 1 not at all
    pair = comparisons.paired_difference([[1.0, 9.0], [5.0, nan], [4.0, 4.0]], [[0.0, nan], [nan, 5.0], [1.0, 1.0]])
    assert (pair.interval.mean, pair.interval.n) == (2.0, 2)


def test_bad_values_raise() -> None:
    for call, words in (
        (lambda: comparisons.aggregate([1.0, math.inf]), "infinite"),
        (lambda: comparisons.aggregate([[1.0], [2.0, 3.0]]), "no table of numbers"),
        (lambda: comparisons.aggregate(["a", "b"]), "no table of numbers"),
        (lambda: comparisons.aggregate(np.zeros((2, 2, 2))), "shape"),
        (lambda: comparisons.aggregate([1.0, 2.0], "median"), "known: iqm, mean"),
        (lambda: comparisons.aggregate([1.0, 2.0], "mean", "strata"), "stratified"),
        (lambda: comparisons.aggregate([1.0, 2.0], level=95), "level 95"),
        (lambda: comparisons.aggregate([1.0, 2.0], resamples=0), "0 resamples"),
        (lambda: comparisons.probability_of_improvement([[1, 2], [1, 2]], [1, 2]), "2 and 1 tasks"),
        (lambda: comparisons.paired_difference([1.0, 2.0], [1.0]), r"\(2, 1\) and \(1, 1\)"),
        (lambda: comparisons.holm([0.1, 1.1]), "1.1"),
    ):
        with pytest.raises(InputError, match=words):
            call()


def test_paired_difference_by_hand() -> None:
    # seeds' mean differences 1, 2, 3: mean 2, s = 1, half width t(2 d.o.f., 97.5 %) / sqrt(3) = 2.48414;
    # t = 2 sqrt(3) = 3.4641 with 2 d.o.f.: p = 1 - t / sqrt(2 + t^2) = 0.0742
    a, b = [[2.0, 4.0], [1.0, 5.0], [9.0, 3.0]], [[0.0, 4.0], [0.0, 2.0], [3.0, 3.0]]
    found = comparisons.paired_difference(a, b)
    assert found.interval.mean == 2.0
    assert (found.interval.low, found.interval.high) == pytest.approx((-0.48414, 4.48414), abs=1e-5)
    assert found.p == pytest.approx(1 - math.sqrt(12 / 14), abs=1e-12)
    # of the nested bootstrap: lowest means are of task 2 of seed 0 (0), highest of task 1 of seed 2 (6)
    assert 0.0 <= found.bootstrap.low < 2.0 < found.bootstrap.high <= 6.0


def test_equal_differences_are_not_taken_for_certainty() -> None:
    a = np.array([0.3, 0.4, 0.5, 0.6, 0.7])
    assert comparisons.paired_difference(a, a).p == 1.0
    b = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    assert len(set(a - b)) > 1, "0.3 - 0.1 and 0.4 - 0.2 differ in floating point"
    found = comparisons.paired_difference(a, b)
    assert found.p == 1 / 16  # five equal signs: 2 / 2^5
    assert found.interval.mean == pytest.approx(0.2)


def test_nested_bootstrap_has_the_spread_that_theory_gives() -> None:
    # Of the mean, given the data: variance of the n seeds' means (divided by n) / n, and of tasks within seeds, on average
    # over seeds (divided by m) / (n m). 20,000 resamples: the standard deviation is known to 0.5 %.
    draws = np.random.default_rng(2).normal(size=(6, 4))
    expected = draws.mean(axis=1).var() / 6 + draws.var(axis=1).mean() / 24
    found = comparisons.aggregate(draws, "mean", "hierarchical", level=0.6827, resamples=20_000)
    assert (found.high - found.low) / 2 == pytest.approx(
        math.sqrt(expected), rel=0.05
    )  # +- 1 sd of a nearly normal one


@pytest.mark.parametrize(
    ("n", "nested", "stratified"), [(3, (0.74, 0.87), 0.62), (5, (0.82, 0.92), 0.68), (10, (0.88, 0.96), 0.71)]
)
def test_coverage(n: int, nested: tuple[float, float], stratified: float) -> None:
    # Normal seed effects and task noise of sd 1, 8 tasks. The module's table (10,000 repetitions) has for n = 3, 5, 10
    # Student's t 0.951, 0.949, 0.951, nested 0.809, 0.876, 0.925, stratified 0.523, 0.578, 0.615. Of 400 repetitions a share
    # has an sd of 0.011 at 0.95 and at most 0.025: limits are 2.5 to 4 sd off, and the draws are fixed.
    draws = np.random.default_rng(n)
    hits = np.zeros(3)
    for repetition in range(400):
        a = draws.normal(0.5, 1.0, (n, 1)) + draws.normal(0.0, 1.0, (n, 8))
        pair = comparisons.paired_difference(a, np.zeros((n, 8)), resamples=300, seed=repetition)
        rliable = comparisons.aggregate(a, resamples=300, seed=repetition)
        hits += [each.low <= 0.5 <= each.high for each in (pair.interval, pair.bootstrap, rliable)]
    assert hits[0] / 400 >= 0.92, "the interval that is recommended"
    assert nested[0] < hits[1] / 400 < nested[1]
    assert hits[2] / 400 < stratified


def test_p_values_are_uniform_where_nothing_differs() -> None:
    # 1,000 pairs of 5 seeds: false alarms ~ Binomial(1000, 0.05), sd 6.9; 50 -+ 28 is 4 sd
    draws = np.random.default_rng(4).normal(size=(1000, 2, 5, 3))
    alarms = sum(comparisons.paired_difference(a, b, resamples=1).p < 0.05 for a, b in draws)
    assert abs(alarms - 50) <= 28


@few
@given(scores, st.integers(-20, 20), st.sampled_from(["stratified", "hierarchical"]), st.sampled_from(["mean", "iqm"]))
def test_a_shift_shifts_aggregates(values: np.ndarray, by: int, resample: str, measure: str) -> None:
    here = comparisons.aggregate(values, measure, resample, resamples=200)
    there = comparisons.aggregate(values + by, measure, resample, resamples=200)
    assert np.array(there[:3]) == pytest.approx(np.array(here[:3]) + by, abs=1e-9)
    assert here.low <= here.high and values.min() <= here.low and here.high <= values.max()


@few
@given(scores, st.randoms(use_true_random=False))
def test_the_order_of_seeds_changes_nothing(values: np.ndarray, random: object) -> None:
    order = list(range(len(values)))
    random.shuffle(order)
    mixed, zero = values[order], np.zeros_like(values)
    for resample in ("stratified", "hierarchical"):
        here = comparisons.aggregate(values, "iqm", resample, resamples=200)
        assert comparisons.aggregate(mixed, "iqm", resample, resamples=200) == pytest.approx(here, abs=1e-12)
    here = comparisons.probability_of_improvement(values, zero, resamples=200)
    assert comparisons.probability_of_improvement(mixed, zero, resamples=200) == here
    pair, other = (comparisons.paired_difference(each, zero, resamples=200) for each in (values, mixed))
    assert other.interval == pytest.approx(pair.interval, abs=1e-9)
    assert other.bootstrap == pytest.approx(pair.bootstrap, abs=1e-9)
    assert other.p == pytest.approx(pair.p)


@few
@given(scores, st.integers(0, 5))
def test_swapped_sides_flip_the_sign(values: np.ndarray, seed: int) -> None:
    b = np.random.default_rng(seed).normal(size=values.shape)
    one, two = comparisons.paired_difference(values, b), comparisons.paired_difference(b, values)
    assert two.interval[:3] == pytest.approx((-one.interval.mean, -one.interval.high, -one.interval.low), abs=1e-9)
    assert two.p == pytest.approx(one.p)
    # other resamples: their ends agree as well as 10,000 of them can tell, and exactly what is in between
    width = 0.15 * (one.bootstrap.high - one.bootstrap.low) + 1e-9
    assert two.bootstrap[1:3] == pytest.approx((-one.bootstrap.high, -one.bootstrap.low), abs=width)


def test_a_seed_fixes_the_bootstrap() -> None:
    one, same, other = (comparisons.aggregate(X, resamples=500, seed=seed) for seed in (0, 0, 1))
    assert one == same != other
    table = pd.DataFrame({"arm": ["a", "a", "b", "b"], "seed": [0, 1, 0, 1], "value": [1.0, 2.0, 4.0, 3.0]})
    pd.testing.assert_frame_equal(comparisons.compare(table, "a"), comparisons.compare(table, "a"))


def test_batches_change_nothing_that_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = comparisons.aggregate(X, "iqm", resamples=5001)
    monkeypatch.setattr(comparisons, "_MOST_CELLS", 20 * 1000)  # five batches of 1,000 and one of 1
    assert comparisons.aggregate(X, "iqm", resamples=5001) == pytest.approx(whole, abs=NEAR)


def test_holm() -> None:
    # statsmodels 0.15.0, multipletests([0.01, 0.04, 0.03, 0.005, 0.6], method="holm")[1]; by hand: sorted 0.005 x 5,
    # 0.01 x 4, 0.03 x 3, then max(0.04 x 2, 0.09) and 0.6
    assert comparisons.holm([0.01, 0.04, 0.03, 0.005, 0.6]) == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.6])
    assert comparisons.holm([]) == []
    # NaN is no test: two are left, 0.02 x 2 and 0.5
    found = comparisons.holm([0.5, math.nan, 0.02])
    assert found[::2] == [0.5, 0.04] and math.isnan(found[1])


@settings(deadline=None)
@given(st.lists(st.floats(0.0, 1.0) | st.just(math.nan), max_size=8))
def test_holm_is_monotone_and_never_below(values: list[float]) -> None:
    found = comparisons.holm(values)
    pairs = [(p, q) for p, q in zip(values, found, strict=True) if not math.isnan(p)]
    assert all(math.isnan(p) == math.isnan(q) for p, q in zip(values, found, strict=True))
    assert all(p <= q <= min(1.0, p * len(pairs) * (1 + 1e-12)) for p, q in pairs)
    assert [q for _, q in sorted(pairs)] == sorted(q for _, q in pairs)


def tidy(arms: dict[str, dict[int, list[float]]]) -> pd.DataFrame:
    rows = [
        {"arm": arm, "seed": seed, "task": task, "value": value}
        for arm, seeds in arms.items()
        for seed, values in seeds.items()
        for task, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_compare() -> None:
    table = tidy(
        {
            "parallel": {1: [0.0, 2.0], 2: [1.0, 3.0], 3: [3.0, 3.0], 5: [4.0, 4.0]},
            "sesa": {3: [5.0, 6.0], 1: [2.0, 3.0], 2: [4.0, 4.0], 7: [9.0, 9.0]},
            "before": {1: [0.0, 0.0], 2: [0.0, 0.0]},
            "apart": {8: [1.0, 1.0], 9: [2.0, 2.0, 5.0]},
        }
    )
    found = comparisons.compare(table, "parallel", "before").set_index("arm")
    assert list(found.index) == ["parallel", "sesa", "before", "apart"]
    assert found["seeds"].tolist() == ["1-3, 5", "1-3, 7", "1, 2", "8, 9"]
    assert found["n_seeds"].tolist() == [4, 4, 2, 2]
    assert found["n_tasks"].tolist() == ["2", "2", "2", "2-3"]
    assert found["n_pairs"].tolist() == [0, 3, 2, 0]
    assert found["n_pairs_base"].tolist() == [2, 2, 0, 0]
    # sesa - parallel by seed: 2.5 - 1, 4 - 2, 5.5 - 3; and over the base 2.5 and 4
    sesa = found.loc["sesa"]
    assert (sesa["diff"], sesa["diff_base"]) == (2.0, 3.25)
    pair = comparisons.paired_difference([[2, 3], [4, 4], [5, 6]], [[0, 2], [1, 3], [3, 3]])
    assert tuple(sesa[["diff", "diff_low", "diff_high"]]) == pytest.approx(pair.interval[:3])
    assert tuple(sesa[["diff_boot_low", "diff_boot_high"]]) == pytest.approx(pair.bootstrap[1:3])
    assert sesa["p"] == pytest.approx(pair.p)
    # one arm is compared with the baseline, sesa: the base is no rival, the baseline itself and ``apart`` have no p
    assert found["p_holm"].tolist() == pytest.approx([math.nan, sesa["p"], math.nan, math.nan], nan_ok=True)
    assert found["p"].isna().tolist() == [True, False, False, True]
    assert tuple(sesa[["mean", "low", "high"]]) == pytest.approx(statistics.mean_interval([2.5, 4.0, 5.5, 9.0])[:3])
    assert sesa["boot_low"] < sesa["mean"] < sesa["boot_high"]
    # cells 2 3 4 4 5 6 9 9 without two at each end: (4 + 4 + 5 + 6) / 4
    assert sesa["iqm"] == 4.75 and sesa["iqm_low"] < 4.75 < sesa["iqm_high"]
    # seeds' means 2.5 4 5.5 9 against 1 2 3 4: won 2 + 3 + 4 + 4, and 4 = 4 half
    assert sesa["poi"] == (2 + 3.5 + 4 + 4) / 16
    assert found["poi"].isna().tolist() == [True, False, False, False]


def test_compare_pairs_by_task() -> None:
    # only task 0 of seed 1 and task 1 of seed 2 are on both sides: 1 and 3
    rows = [
        ("b", 1, 0, 1.0),
        ("b", 2, 1, 2.0),
        ("b", 2, 2, 50.0),
        ("a", 1, 0, 2.0),
        ("a", 1, 1, 70.0),
        ("a", 2, 1, 5.0),
    ]
    table = pd.DataFrame(rows, columns=["arm", "seed", "task", "success"])
    found = comparisons.compare(table, "b", value="success").set_index("arm").loc["a"]
    assert (found["diff"], found["n_pairs"]) == (2.0, 2)


def test_compare_without_tasks_baseline_or_values() -> None:
    table = pd.DataFrame({"arm": ["a", "a", "b"], "seed": ["s", "t", "s"], "value": [1.0, 3.0, math.nan]})
    found = comparisons.compare(table, None)
    assert found["mean"].tolist() == pytest.approx([2.0, math.nan], nan_ok=True)
    assert found["n_seeds"].tolist() == [2, 0]
    assert found["seeds"].tolist() == ["s, t", ""]
    assert found["n_tasks"].tolist() == ["1", "0"]
    assert found[["diff", "p", "p_holm", "poi"]].isna().all(axis=None)
    assert found["n_pairs"].tolist() == [0, 0]
    assert not [name for name in found if "base" in name]
    assert comparisons.compare(table, "a")["n_pairs"].tolist() == [0, 0]


def test_compare_does_not_depend_on_the_order_of_rows() -> None:
    table = tidy({"a": {1: [0.0, 2.0], 2: [1.0, 3.0]}, "b": {1: [4.0, 2.0], 2: [1.0, 9.0], 3: [1.0, 1.0]}})
    found = comparisons.compare(table.iloc[::-1], "a").sort_values("arm", ignore_index=True)
    pd.testing.assert_frame_equal(found, comparisons.compare(table, "a"))


def test_compare_refuses_what_it_cannot_read() -> None:
    table = tidy({"parallel": {1: [1.0]}, "sesa": {1: [2.0]}})
    for bad, names, words in (
        (table, ("paralel",), "baseline 'paralel' is no arm.*did you mean 'parallel'"),
        (table, ("sesa", "before"), "base 'before' is no arm.*known: parallel, sesa"),
        (table, ("sesa", None, "valu"), "no column 'valu'.*did you mean 'value'"),
        (table.drop(columns="seed"), ("sesa",), "no column 'seed'"),
        (pd.concat([table, table]), ("sesa",), "arm 'parallel', seed 1, task 0 has several rows"),
        (pd.concat([table, table]).drop(columns="task"), ("sesa",), "arm 'parallel', seed 1 has several rows"),
        (table.assign(seed=[1.0, math.nan]), ("sesa",), "no seed"),
        (table.assign(value=["x", "y"]), ("sesa",), "numbers"),
        (table.assign(value=math.inf), ("sesa",), "infinite"),
        (table.iloc[:0], (None,), "empty"),
    ):
        with pytest.raises(InputError, match=words):
            comparisons.compare(bad, *names)


NAMES = "backslash|asciitilde|asciicircum|less|greater|bar"
TOKEN = re.compile(rf"\\text(?:{NAMES})\{{\}}|\\[&%$#_{{}}]|\{{[\[*]\}}|[^\\&%$#_{{}}~^<>|\[*\n]")
MEANT = dict(zip(NAMES.split("|"), "\\~^<>|", strict=True))


def read(cell: str) -> str:
    """The text that a cell shows; fails where anything in it is neither text nor one of the known escapes."""
    found, place = [], 0
    while place < len(cell):
        match = TOKEN.match(cell, place)
        assert match, f"not text: {cell[place:]!r}"
        token, place = match[0], match.end()
        named = re.fullmatch(rf"\\text({NAMES})\{{\}}", token)
        found.append(MEANT[named[1]] if named else token.strip("{}") if token[0] == "{" else token[-1])
    return "".join(found)


def cells(row: str) -> list[str]:
    assert row.endswith(r" \\")
    return [read(cell) for cell in re.split(r"(?<!\\) & ", row.removesuffix(r" \\"))]


HOSTILE = r"a\b & c % $d$ #e _f {g} ~h ^i <j> |k| [1cm] *"


def test_latex() -> None:
    table = pd.DataFrame({"arm": [HOSTILE, r"\input{x}", "[9pt]"], "n": [1, 2, 3], "p": ["0.5", None, math.nan]})
    lines = comparisons.latex(table).splitlines()
    assert lines[0] == r"\begin{tabular}{lll}" and lines[-1] == r"\end{tabular}"
    assert [lines[1], lines[3], lines[-2]] == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert cells(lines[2]) == ["arm", "n", "p"]
    assert [cells(line) for line in lines[4:7]] == [[HOSTILE, "1", "0.5"], [r"\input{x}", "2", ""], ["[9pt]", "3", ""]]
    assert lines[6].startswith("{[}"), r"\\ and [ would be a length"
    chosen = comparisons.latex(table, {"n": "seeds_n", "arm": "100 %"}).splitlines()
    assert cells(chosen[2]) == ["seeds_n", "100 %"] and cells(chosen[5]) == ["2", r"\input{x}"]
    assert cells(comparisons.latex(table, ["p", "n"]).splitlines()[2]) == ["p", "n"]


def test_latex_refuses_what_is_not_there() -> None:
    table = pd.DataFrame({"arm": ["a"]})
    with pytest.raises(InputError, match=r"no column 'arms'.*did you mean 'arm'"):
        comparisons.latex(table, ["arms"])
    for none in (comparisons.latex, lambda empty: comparisons.latex(table, [])):
        with pytest.raises(InputError, match="without columns"):
            none(pd.DataFrame())


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=20) | st.text("\\&%$#_{}~^<>|[]* \n%a", max_size=20), st.text(max_size=5))
def test_whatever_a_name_is_it_stays_text(name: str, heading: str) -> None:
    text = comparisons.latex(pd.DataFrame({heading: [name]}))
    lines = text.split("\n")
    assert len(lines) == 8 and lines[7] == "", "no line break gets through"
    shown = [cells(lines[2]), cells(lines[4])]
    for (got,), given_text in zip(shown, (heading, name), strict=True):
        words = " ".join(given_text.split())
        assert len(got) == len(words)
        assert all(a == b or (a == "\u00b7" and not b.isprintable()) for a, b in zip(got, words, strict=True))
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
