"""Measures of groups by hand, averages over groups, what bounds their cost, and hostile texts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sesa_lab import diversity
from sesa_lab.errors import InputError
from sesa_lab.foreign import about, measure, measures
from sesa_lab.seeding import stream
from sesa_lab.statistics import bootstrap_mean


def frame(*rows: tuple[Any, ...]) -> pd.DataFrame:
    """Rows of (group, text, correct, strategy, step), the last ones left out where they are nothing."""
    filled = [
        (*row, math.nan, None, math.nan)[:5] if len(row) == 2 else (*row, *(None, math.nan)[len(row) - 3 :])
        for row in rows
    ]
    columns = ("group", "text", "correct", "strategy", "step")
    made = pd.DataFrame({name: pd.Series([row[i] for row in filled], dtype=object) for i, name in enumerate(columns)})
    made["reward"] = made["correct"] = made["correct"].astype(float)
    return made.assign(step=made["step"].astype(float))


def values(found: measures.Measured) -> dict[str, float]:
    (row,) = found.groups.to_dict("records")
    return row


def test_a_group_by_hand() -> None:
    nan = math.nan
    found = values(
        measure(frame(("q", "a", 1, "s"), ("q", "a", 0, "s"), ("q", "b", 1, "t"), ("q", "c", nan, None)), [1, 2, 4])
    )
    expected = {
        "samples": 4,
        # Three are judged, two of them right; of two of the three one is right for certain; of four there are not enough.
        "success": 2 / 3, "pass_at_1": 2 / 3, "pass_at_2": 1, "pass_at_4": nan,
        # s and t were each right once in three: 1/3 + 1/3, and 2 (1 - C(2, 2) / C(3, 2)) = 4/3.
        "coverage_at_1": 2 / 3, "coverage_at_2": 4 / 3, "coverage_at_4": nan,
        # s twice, t once: 1 / (4/9 + 1/9) = 9/5, exp(log 3 - 2/3 log 2); Chao1 2 + 1 * 0 / ... = 2.
        "distinct_strategies": 2, "distinct_strategies_correct": 2, "duplicate_strategies": 1 / 3,
        "effective_strategies": 3 / 2 ** (2 / 3), "hill_2_strategies": 9 / 5, "unseen_strategies": 1 / 3,
        "richness_strategies": 2,
        # a twice, b and c once: shares 1/2, 1/4, 1/4: 2^1.5; 1 / (3/8); f1 = 2, f2 = 1: 3 + 2 * 1 / (2 * 2).
        "distinct_texts": 3, "distinct_texts_correct": 2, "duplicate_texts": 1 / 4, "effective_texts": 2**1.5,
        "hill_2_texts": 8 / 3, "unseen_texts": 1 / 2, "richness_texts": 3.5,
        "zero_variance": nan,  # one reward is not known
        "distinct_1": 3 / 4, "distinct_2": nan, "characters": 1,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == pytest.approx(expected, nan_ok=True)
    assert found["self_bleu"] == diversity.self_bleu(["a", "a", "b", "c"])
    assert found["compression_ratio"] == diversity.compression_ratio(["a", "a", "b", "c"])
    assert set(found) == {*expected, "group", "asked", "self_bleu", "compression_ratio"}
    assert found["group"] == 0 and found["asked"] == "q"


def test_without_strategies_and_verdicts() -> None:
    found = measure(frame(("q", "a b"), ("q", "a b"), ("r", "c d"), ("r", "e f")))
    assert not [name for name in found.groups if "strateg" in name or "coverage" in name]
    # What has no value in any group is not among the averages.
    assert not {"success", "pass_at_1", "zero_variance", "distinct_texts_correct"} & set(found.measures)
    means = found.averages.set_index("measure")["mean"]
    assert means["distinct_texts"] == 1.5 and means["duplicate_texts"] == 0.25
    assert found.measures[:2] == ["samples", "distinct_texts"] and not found.stepped


def test_zero_variance_and_groups_of_several_sizes() -> None:
    rows = [("p", "a", 1), ("p", "b", 1), ("q", "a", 0), ("q", "b", 1), ("q", "c", 1), ("r", "z", 0)]
    found = measure(frame(*rows), [1, 2, 3])
    assert list(found.groups["samples"]) == [2, 3, 1]
    assert list(found.groups["zero_variance"]) == [1, 0, 1]
    averages = found.averages.set_index("measure")
    # pass@2 has a value in p and q alone: 1 and 1 - C(1, 2) / C(3, 2) = 1; pass@3 in q alone: no interval.
    assert averages.loc["pass_at_2", ["mean", "n"]].tolist() == [1, 2]
    assert averages.loc["pass_at_3", "n"] == 1 and math.isnan(averages.loc["pass_at_3", "low"])
    assert averages.loc["success", "mean"] == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_intervals_are_of_groups_and_the_same_for_the_same_values() -> None:
    rows = [(str(g), f"{g} {i}", int(i < g % 5)) for g in range(30) for i in range(4)]
    found = measure(frame(*rows), [1, 4]).averages.set_index("measure")
    success = [sum(i < g % 5 for i in range(4)) / 4 for g in range(30)]
    expected = bootstrap_mean(success, stream(0, "bootstrap", 0), resamples=1_000)
    assert found.loc["success", ["mean", "low", "high", "n"]].tolist() == pytest.approx(list(expected))
    assert found.loc["pass_at_1", ["low", "high"]].tolist() == pytest.approx(list(expected[1:3]))
    other = measure(frame(*rows), [2]).averages.set_index("measure")  # whatever else is measured
    pd.testing.assert_series_equal(found.loc["self_bleu"], other.loc["self_bleu"])


def test_one_group_has_no_interval() -> None:
    averages = measure(frame(("q", "a b", 1), ("q", "a c", 0))).averages
    assert averages[["low", "high"]].isna().all(axis=None) and (averages["n"] == 1).all()


def test_steps() -> None:
    rows = [
        ("p", "a", 1, None, 2),
        ("p", "b", 1, None, 2),
        ("q", "a", 0, None, 2),
        ("p", "a", 0, None, 1),
        ("p", "a", 0, None, 1),
    ]
    found = measure(frame(*rows), [1])
    assert found.stepped
    # The same prompt at two steps is two groups, with one number; steps are in order, and whole.
    assert found.groups[["step", "group", "samples"]].values.tolist() == [[1, 0, 2], [2, 0, 2], [2, 1, 1]]
    assert found.groups["step"].dtype == np.int64
    by_step = found.averages.set_index(["step", "measure"])["mean"]
    assert by_step[1, "success"] == 0 and by_step[2, "success"] == 0.5
    assert by_step[1, "distinct_texts"] == 1 and by_step[2, "distinct_texts"] == 1.5
    halves = measure(frame(*((*row[:4], row[4] / 2) for row in rows)), [1])
    assert list(halves.groups["step"]) == [0.5, 1.0, 1.0]


def test_order_of_rows_and_names_of_groups_do_not_matter() -> None:
    generator = np.random.default_rng(3)
    rows = [
        (str(g), " ".join(generator.choice(list("abcd"), 5)), int(generator.integers(2)))
        for g in range(5)
        for _ in range(6)
    ]
    found = measure(frame(*rows)).groups.drop(columns=["group", "asked"])
    shuffled = measure(frame(*(rows[i] for i in generator.permutation(len(rows))))).groups
    renamed = measure(frame(*((f"group {row[0]}", *row[1:]) for row in rows))).groups.drop(columns=["group", "asked"])
    pd.testing.assert_frame_equal(found, renamed)
    back = shuffled.sort_values("asked", ignore_index=True).drop(columns=["group", "asked"])
    pd.testing.assert_frame_equal(found, back)


def test_self_bleu_is_of_some_texts_and_some_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(str(g), f"word{g} word{i} same", 1, None, s) for s in (1, 2) for g in range(6) for i in range(5)]
    monkeypatch.setattr(measures, "MOST_WORDED_GROUPS", 8)
    monkeypatch.setattr(measures, "FEWEST_WORDED_GROUPS", 3)
    found = measure(frame(*rows), [1]).groups
    # 8 groups over 2 steps: 4 of the 6 of each.
    assert found.groupby("step")["self_bleu"].count().tolist() == [4, 4]
    monkeypatch.setattr(measures, "MOST_WORDED_GROUPS", 2)
    assert measure(frame(*rows), [1]).groups.groupby("step")["self_bleu"].count().tolist() == [3, 3]
    # Of two texts of five; any two of a group share two of three words.
    monkeypatch.setattr(measures, "MOST_WORDED", 2)
    few = measure(frame(*rows), [1]).groups["self_bleu"].dropna()
    assert few.tolist() == pytest.approx([diversity.self_bleu(["word1 word2 same", "word1 word3 same"])] * len(few))
    # Of the first characters alone.
    monkeypatch.setattr(measures, "MOST_READ", 3)
    cut = values(measure(frame(("q", "abc def"), ("q", "abc xyz"))))
    assert cut["self_bleu"] == pytest.approx(1.0) and cut["distinct_1"] == 0.5 and cut["characters"] == 7


def test_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    place = {"east": [1, 0], "north": [0, 1], "": [0, 0]}

    def embed(texts: list[str], model: str) -> np.ndarray:
        assert model == "m"
        return np.asarray([place[text] for text in texts], dtype=np.float32)

    monkeypatch.setattr(diversity, "embed", embed)
    rows = [("p", "east"), ("q", ""), ("p", "east"), ("p", "north"), ("p", "")]
    found = measure(frame(*rows), model="m").groups
    # Vectors east, east, north (nothing is seen in the empty text): sum (2, 1), 1 - (5 - 3) / 6 = 2/3; the eigenvalues of
    # K / 3 are 2/3 and 1/3, and the exp of their entropy 3 / 2^(2/3); two clusters.
    assert found.loc[0, ["pairwise_distance", "vendi", "clusters"]].tolist() == pytest.approx(
        [2 / 3, 3 / 2 ** (2 / 3), 2]
    )
    assert found.loc[1, ["pairwise_distance", "vendi", "clusters"]].isna().all()
    monkeypatch.setattr(measures, "MOST_CLUSTERED", 1)
    assert measure(frame(*rows), model="m").groups.loc[0, ["vendi", "clusters"]].tolist() == [1, 1]


def test_progress_and_the_caller_s_frame() -> None:
    seen: list[int] = []
    made = frame(("p", "a"), ("q", "b"), ("p", "c"))[lambda rows: rows["text"] != "b"]
    copy = made.copy()
    measure(made, watch=lambda groups: (seen.append(len(groups)), groups)[1])
    assert seen == [1]
    pd.testing.assert_frame_equal(made, copy)


def test_bad_k() -> None:
    for ks in ([], [0, 8]):
        with pytest.raises(InputError, match="expected whole numbers >= 1"):
            measure(frame(("q", "a")), ks)


@pytest.mark.parametrize("group", ["", "\x00\u202e\n", "=cmd()", "-1", "+x", "x" * 10**6, "<b>"])
def test_hostile_texts(group: str) -> None:
    texts = ["", " ", "\x00\x1b[31m", "\u202e\u2028", "\ud800", "x" * 10**6, "a " * 10**5, "<script>alert(1)</script>"]
    found = measure(frame(*((group, text, 1, text or None) for text in texts)))
    row = values(found)
    assert row["distinct_texts"] == 8 and row["distinct_strategies"] == 7
    shown = row["asked"]
    assert shown.isprintable() and len(shown) <= 201 and not shown.startswith(("=", "+"))
    assert shown == {"": "(empty)", "=cmd()": "'=cmd()", "+x": "'+x"}.get(group, shown)
    assert found.groups.to_csv(index=False).encode()


def test_names_of_measures() -> None:
    found = measure(frame(("q", "a b", 1, "s"), ("q", "a c", 0, "t")), [1, 2])
    names = {name: about(name) for name in found.measures}
    assert names["pass_at_2"] == "pass@2" and names["coverage_at_1"] == "coverage@1"
    assert not [label for name, label in names.items() if "_" in label or "{" in label]
    assert len(set(names.values())) == len(names)
