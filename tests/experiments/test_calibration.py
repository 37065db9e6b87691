"""Calibration: metrics against strategies that are known, nothing chosen on what is judged."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sesa_lab import diversity, environments
from sesa_lab.environments import expressions, sums
from sesa_lab.errors import InputError
from sesa_lab.experiments import calibration, calibration_judged, calibration_samples
from sesa_lab.experiments import calibration_methods as methods
from sesa_lab.experiments import calibration_tables as tables
from sesa_lab.experiments import calibration_wordings as wordings
from sesa_lab.experiments.calibration_forms import by_size, closed_forms
from sesa_lab.experiments.calibration_judged import ALL, DEFAULT, OTHERS, OWN, best, concordant, spearman
from sesa_lab.experiments.calibration_samples import Group, lab_groups
from sesa_lab.plots.grid import grid
from sesa_lab.reports.run_notebooks import defaults, execute
from sesa_lab.seeding import stream

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "08_diversity_metrics.ipynb"


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Character counts in the place of embeddings, so that no model is loaded; and little to choose from."""
    few = {"agglomerative": (0.05, 0.3), "k-means": (4.0,), "HDBSCAN": (5.0,)}
    monkeypatch.setattr(methods, "PARAMETERS", few)

    def embed(texts: Any, model: str = "", cache: Any = None, *, device: str | None = None) -> Any:
        counts = np.asarray([[1.0, *(text.count(chr(code)) for code in range(32, 127))] for text in texts])
        return (counts / np.linalg.norm(counts, axis=1, keepdims=True)).astype(np.float32)

    monkeypatch.setattr(diversity, "embed", embed, raising=False)


# --- methods --------------------------------------------------------------------------------------------------------


def test_ngrams_tell_texts_apart_and_an_empty_one_equals_only_empty_ones() -> None:
    x = methods.ngram_vectors(["abc", "abc", "xyz", "", ""])
    # No character in common: at right angles. Rows have length 1.
    np.testing.assert_allclose(
        x @ x.T, np.kron(np.diag([1, 1, 1]), np.ones((2, 2)))[[0, 1, 2, 4, 5]][:, [0, 1, 2, 4, 5]]
    )
    assert methods.ngram_vectors(["", ""]).tolist() == [[1.0], [1.0]]
    state = random.getstate()
    methods.ngram_vectors(["ab"])
    assert random.getstate() == state


@pytest.mark.parametrize(
    ("text", "expected"),
    [(" 7 * 5. ", "7*5"), ("\uff21\uff22", "ab"), ("Straße", "strasse"), ("a.b", "a.b"), ('"x"!', "x"), ("", "")],
)
def test_normalised(text: str, expected: str) -> None:
    assert methods.normalised(text) == expected


def test_noise_becomes_clusters_of_one() -> None:
    # Two groups of five and a text that belongs to neither.
    x = np.eye(4)[[0] * 5 + [2] * 5 + [3]]
    labels = diversity.hdbscan(x, 5)
    assert labels.tolist() == [0] * 5 + [1] * 5 + [-1]
    assert methods.clustered("HDBSCAN", 5.0, x, stream(0, "evaluation")).tolist() == [0] * 5 + [1] * 5 + [2]
    # All noise: as many clusters as texts.
    assert methods.clustered("HDBSCAN", 5.0, np.eye(3), stream(0, "evaluation")).tolist() == [0, 1, 2]


def test_every_method_is_applied_with_every_parameter() -> None:
    texts = ["ab", "ab", "AB", "xyz"]
    x = methods.ngram_vectors(texts)
    found = methods.partitions(texts, {name: x for name in methods.REPRESENTATIONS}, stream(0, "evaluation"))
    assert {name for name, _, _ in found} == set(methods.METHODS)
    assert len(found) == 3 + 2 * sum(map(len, methods.PARAMETERS.values()))
    assert found[0][2].tolist() == [0, 0, 1, 2] and found[1][2].tolist() == [0, 0, 0, 1]
    assert found[2][2].tolist() == [0, 0, 0, 0]
    for way, default in methods.DEFAULTS.items():
        assert default in methods.PARAMETERS[way], "what the library does is among what is tried"


def test_agreement_by_hand() -> None:
    assert methods.agreement("xxyy", np.array([1, 1, 0, 0])) == {
        **dict.fromkeys(("ari", "homogeneity", "completeness", "v_measure", "ratio"), pytest.approx(1.0)),
        **{"over": 0.0, "under": 0.0},
    }
    # Contingency x: (2, 0), y: (1, 1). Pairs together in both: 1; in the truth 2, in the labels 3, of 6: as by chance
    # 2 * 3 / 6 = 1, so the adjusted Rand index is (1 - 1) / (2.5 - 1) = 0. H(truth) = log 2; given the labels
    # 3/4 H(1/3); H(labels) = H(1/4); given the truth 1/2 log 2.
    found = methods.agreement("xxyy", np.array([0, 0, 0, 1]))
    third = -(math.log(1 / 3) / 3 + math.log(2 / 3) * 2 / 3)
    quarter = -(math.log(1 / 4) / 4 + math.log(3 / 4) * 3 / 4)
    assert found["ari"] == pytest.approx(0.0)
    assert found["homogeneity"] == pytest.approx(1 - 0.75 * third / math.log(2))
    assert found["completeness"] == pytest.approx(1 - 0.5 * math.log(2) / quarter)
    # One strategy: all or nothing.
    assert methods.agreement("xxx", np.zeros(3, dtype=np.int64))["ari"] == 1.0
    split = methods.agreement("xxx", np.array([0, 0, 1]))
    assert (split["ari"], split["ratio"], split["over"], split["under"]) == (0.0, 2.0, 1.0, 0.0)
    assert methods.agreement("xyz", np.zeros(3, dtype=np.int64))["under"] == 1.0


@pytest.mark.parametrize(("strategy", "wording", "expected"), [(2.0, 1.0, 1.0), (1.0, 2.0, 0.0), (1.0, 1.0, 0.5)])
def test_whether_distance_sees_strategy_or_wording(strategy: float, wording: float, expected: float) -> None:
    # A text is its strategy's direction and its wording's, weighed: two texts that differ in strategy alone lie
    # strategy^2 / (strategy^2 + wording^2) apart, in wording alone wording^2 / (...).
    keys = [(s, w) for s in range(2) for w in range(3)]
    x = np.asarray([[*(strategy * np.eye(2)[s]), *(wording * np.eye(3)[w])] for s, w in keys])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    found = methods.wording_weight(x, [str(s) for s, _ in keys], [w for _, w in keys])
    assert found == expected
    assert math.isnan(methods.wording_weight(x[:3], ["0"] * 3, [0, 1, 2])), "no pair of two strategies"
    assert math.isnan(methods.wording_weight(x[::3], ["0", "1"], [0, 0])), "no pair of two wordings"


# --- samples --------------------------------------------------------------------------------------------------------


def test_answers_of_lab_policies_have_their_strategies() -> None:
    names = {"countdown": ("countdown-ordinary", "countdown-habit"), "path_exploration": ("path",)}
    groups, drawn = lab_groups(2, 6, 0, names)
    again, _ = lab_groups(2, 6, 0, names)
    assert groups == again and [g.unit for g in groups] == [0, 1, 0, 1, 0, 1]
    assert drawn["tasks"].tolist() == [2, 2, 2] and drawn["left_out"].tolist() == [0, 0, 0]
    environment = environments.make("countdown", split="validation")
    for group in groups[:4]:
        task = environment.task(group.unit)
        assert len(group.texts) == 6
        assert [environment.score(task, text).strategy for text in group.texts] == list(group.strategies)
    assert groups[4].texts != groups[5].texts, "one task: its units are draws of their own"
    assert drawn["texts"][0] == np.mean([len(set(group.texts)) for group in groups[:2]])


def test_a_task_that_one_policy_cannot_answer_is_left_out_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(environment: str, policy: str, tasks: int, samples: int, seed: int) -> list[pd.DataFrame]:
        keys = [["k"] * 3, ["k", None, None] if policy == "b" else ["k"] * 3]
        return [pd.DataFrame({"completion": ["t"] * 3, "strategy": each}) for each in keys]

    monkeypatch.setattr(calibration_samples, "_drawn", drawn)
    groups, table = lab_groups(2, 2, 0, {"e": ("a", "b")})
    assert [(g.policy, g.unit) for g in groups] == [("a", 0), ("b", 0)]
    assert table["left_out"].tolist() == [1, 1] and table["readable"].tolist() == [1.0, 4 / 6]
    groups, table = lab_groups(2, 4, 0, {"e": ("a",)})
    assert groups == [] and math.isnan(table["strategies"][0])


def test_bad_requests_for_samples() -> None:
    with pytest.raises(InputError, match="2 or more tasks"):
        lab_groups(1, 8, 0)
    with pytest.raises(InputError, match="no lab policy, expected a name under data/policies"):
        lab_groups(2, 2, 0, {"countdown": ("nobody",)})


# --- wordings -------------------------------------------------------------------------------------------------------


def test_a_mirrored_expression_is_the_same_strategy_in_other_words() -> None:
    forms = expressions.forms((2, 3, 5, 7), "+-*")
    mirrored = [wordings._mirrored(expressions.postfix(form.text) or ()) for form in forms]
    for form, text in zip(forms, mirrored, strict=True):
        again = expressions.canonical(expressions.postfix(text) or ())
        assert again is not None and again.text == form.text
    # What only subtracts from a number, such as 7-5-3-2, has nothing to exchange: four of them.
    assert sum(text == form.text for form, text in zip(forms, mirrored, strict=True)) == 4
    # (3+2)*(7-5): 2+3 = 5 comes first, then 7-5 = 2, then 5*2.
    tokens = expressions.postfix("(3+2)*(7-5)") or ()
    assert wordings._mirrored(tokens) == "(7-5)*(2+3)"
    assert wordings._mirrored(expressions.postfix("9-(3-2)") or ()) == "9-(3-2)"
    assert wordings._steps(tokens) == "3 + 2 = 5, then 7 - 5 = 2, then 5 * 2 = 10"
    assert wordings._spoken("(3+2)*7-5") == "(3 plus 2) times 7 minus 5"


@pytest.mark.parametrize("name", wordings.WORDINGS)
def test_prose_holds_its_strategy_whatever_the_wording(name: str) -> None:
    groups = wordings.prose_groups(3, 40, 5, [name])
    assert groups == wordings.prose_groups(3, 40, 5, [name]) != wordings.prose_groups(3, 40, 6, [name])
    assert [g.policy for g in groups] == list(wordings.CONDITIONS) * 3
    for group in groups:
        pairs = set(zip(group.strategies, group.texts, strict=True))
        assert len({text for _, text in pairs}) == len(pairs), "no text tells two strategies"
        if group.policy.endswith(wordings.ONE):
            assert len(pairs) == len(set(group.strategies)), "one wording: one text a strategy"
        else:
            assert len(pairs) > 20
        if group.policy.startswith(wordings.FEW):
            assert len(set(group.strategies)) <= 1 + group.unit % 3
        else:
            assert 4 <= len(set(group.strategies)) <= 10  # chance that one of 10 is missed in 40: below 15 %


def test_what_is_told_is_the_environments_own_strategy() -> None:
    for told in wordings._workings(environments.make("math"), 0):
        numbers = tuple(environments.make("math").task(0).data["numbers"])
        assert sums.method_of(numbers, sums.read_lines(told.words["lines"])) == told.key
    lake = environments.make("frozen_lake")
    routes = next(found for index in range(20) if len(found := wordings._routes(lake, index)) >= 4)
    assert len({told.key for told in routes}) == len(routes)
    for told in routes:
        moves = told.words["moves"].split(", ")
        assert told.words["letters"] == " ".join(move[0].upper() for move in moves)
        counts = {"once": 1, "twice": 2}
        said = [part.split(" ", 1) for part in told.words["runs"].split(", then ")]
        assert [move for move, n in said for _ in range(counts.get(n) or int(n.split()[0]))] == moves


@pytest.mark.parametrize("name", wordings.WORDINGS)
def test_crossed_texts_are_every_strategy_in_every_wording(name: str) -> None:
    for group, words in wordings.crossed_groups(2, 0, [name]):
        kinds = len(set(group.strategies))
        assert len(group.texts) == kinds * 6 == len(set(zip(group.strategies, words, strict=True)))
        assert len(set(group.texts)) == len(group.texts)


def test_bad_requests_for_prose(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no wordings for 'sokoban, prose'; known: countdown, prose"):
        wordings.prose_groups(2, 2, 0, ["sokoban, prose"])
    monkeypatch.setitem(wordings._TOLD, "math, prose", lambda environment, index: [])
    with pytest.raises(InputError, match="only 0 of 2 tasks have 4 strategies"):
        wordings.prose_groups(2, 2, 0, ["math, prose"])


# --- judging --------------------------------------------------------------------------------------------------------


def rows(environment: str, unit: int, ari: dict[float, float], kind: str = "lab answers") -> list[dict[str, Any]]:
    shared = {
        "kind": kind,
        "environment": environment,
        "policy": "p",
        "unit": unit,
        "method": "agglomerative, embedding",
    }
    return [{**shared, "parameter": parameter, "ari": value} for parameter, value in ari.items()]


def test_parameters_are_chosen_on_calibration_tasks_alone() -> None:
    frame = pd.DataFrame(
        [
            *rows("a", 0, {0.1: 0.9, 0.3: 0.5, 0.5: 0.9}),
            *rows("a", 1, {0.1: 0.0, 0.3: 1.0, 0.5: 0.0}),  # held out: not looked at
            *rows("b", 0, {0.1: 0.2, 0.3: 0.4, 0.5: 0.0}),
            *rows("c", 0, {0.1: 0.1, 0.3: 0.3, 0.5: 0.6}),
            *rows("a, prose", 0, {0.1: 0.0, 0.3: 0.0, 0.5: 9.0}, "prose"),
        ]
    )
    name = "agglomerative, embedding"
    assert best(frame, "a", OWN) == {name: 0.1}, "of equals the smallest"
    # Others of a are b and c, of its kind: means 0.15, 0.35, 0.3. Of c: a and b: 0.55, 0.45, 0.45.
    assert best(frame, "a", OTHERS) == {name: 0.3}
    assert best(frame, "c", OTHERS) == {name: 0.1}
    assert best(frame, "a, prose", OTHERS) == {}, "there is no other prose"
    assert best(frame, "a", DEFAULT) == {
        f"{way}, {what}": v for way, v in methods.DEFAULTS.items() for what in methods.REPRESENTATIONS
    }


def test_spearman_is_scipys_row_by_row() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.integers(0, 5, (30, 8)).astype(float), generator.normal(size=(30, 8))
    expected = [stats.spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(spearman(a, b), expected)
    constant = np.ones((1, 3))
    assert spearman(constant, np.array([[1.0, 2.0, 3.0]])).tolist() == [0.0], "a metric that never moves orders nothing"
    assert spearman(np.full((1, 3), math.nan), np.array([[1.0, 2.0, 3.0]])).tolist() == [0.0]
    assert np.isnan(spearman(np.array([[1.0, 2.0, 3.0]]), constant)).all(), "there is nothing to order"


def test_concordance_by_hand() -> None:
    truth = pd.DataFrame({"few": [1.0, 1.0, 2.0], "some": [2.0, 1.1, 2.0], "many": [8.0, 4.0, 2.0]})
    metric = pd.DataFrame({"few": [0.1, 0.1, 0.0], "some": [0.1, 0.9, 1.0], "many": [0.3, 0.5, 2.0]})
    # Task 0: few = some counts half, the other two are right: 2.5 / 3. Task 1: few and some differ by a tenth, which is
    # not clear; few < many is right, some < many is wrong: 1 / 2. Task 2: nothing differs.
    np.testing.assert_allclose(concordant(metric, truth), [2.5 / 3, 0.5, math.nan])
    nothing = metric.where(metric < 0.0)
    np.testing.assert_allclose(concordant(nothing, truth), [0.5, 0.5, math.nan])


def perfect() -> list[Group]:
    """Two environments of two policies on six tasks; every strategy has one text of its own letter, so that n-grams see it."""
    found = []
    for environment in ("countdown", "sokoban"):
        for policy, more in (("many", 2), ("few", 0)):
            for unit in range(6):
                keys = tuple("abcdefghij"[(i + unit) % (2 + unit // 2 + more)] * 3 for i in range(12))
                found.append(Group(environment, policy, unit, keys, keys))
    return found


@pytest.mark.usefixtures("_quick")
def test_what_tells_strategies_apart_is_judged_perfect() -> None:
    clusterings, values = calibration.measured(perfect(), 0)
    assert (clusterings[clusterings["method"] == methods.EXACT]["ari"] == 1.0).all()
    weights = pd.DataFrame(columns=["kind", "environment", "unit", "method", "value"])
    found = calibration_judged.judged(clusterings, values, weights, stream(0, "bootstrap"), 50)
    assert list(found.columns) == calibration_judged.COLUMNS
    table = found.set_index(["environment", "method", "chosen", "measure"]).sort_index()
    for environment in ("countdown", "sokoban", ALL):
        for method, chosen in (
            (methods.EXACT, ""),
            ("agglomerative, n-grams", OTHERS),
            ("agglomerative, n-grams", OWN),
        ):
            row = table.loc[(environment, method, chosen, "ari")]
            assert (row["mean"], row["low"], row["high"]) == pytest.approx((1.0, 1.0, 1.0))
            assert row["tasks"] == (6 if environment == ALL else 3)
            assert table.loc[(environment, method, chosen, "ratio"), "mean"] == pytest.approx(1.0)
        # One text a strategy: their number is the truth, and orders tasks and policies as it does.
        for measure in ("orders tasks", "orders tasks, number", "orders policies"):
            assert table.loc[(environment, "equal texts: number", "", measure), "mean"] == 1.0
            assert table.loc[(environment, "equal texts: duplicate rate", "", measure), "mean"] == 1.0
        assert table.loc[
            (environment, "agglomerative, embedding", OTHERS, "ari minus n-grams'"), "mean"
        ] == pytest.approx(0.0)
    assert table.loc[("countdown", "agglomerative, embedding", DEFAULT, "parameter"), "mean"] == 0.3


def test_intervals_are_over_tasks_and_the_mean_is_of_environments() -> None:
    head = {"kind": "lab answers", "method": "m", "chosen": ""}
    one = np.array([0.0, *np.linspace(0, 1, 100)])
    none = np.full(101, math.nan)
    given = [({**head, "environment": "a"}, "ari", one, 4), ({**head, "environment": "b"}, "ari", one + 1.0, 4)]
    given += [({**head, "environment": "c"}, "ari", none, 4)]
    found = pd.DataFrame(calibration_judged._with_mean(given), columns=calibration_judged.COLUMNS).set_index(
        "environment"
    )
    assert (found.loc["a", "low"], found.loc["a", "high"]) == pytest.approx((0.025, 0.975))
    assert found.loc[ALL, "mean"] == 0.5 and found.loc[ALL, "tasks"] == 12, "an environment without a value is left out"
    assert found.loc["c", ["mean", "low", "high"]].isna().all()
    ratios = [
        ({**head, "environment": name}, "ratio", np.full(3, value), 2) for name, value in (("a", 0.5), ("b", 8.0))
    ]
    found = pd.DataFrame(calibration_judged._with_mean(ratios), columns=calibration_judged.COLUMNS).set_index(
        "environment"
    )
    assert found.loc[ALL, "mean"] == pytest.approx(2.0), "the geometric mean of a half and eight"


@pytest.mark.slow
@pytest.mark.usefixtures("_quick")
def test_all_of_it_on_a_few_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results" / "calibration.csv"
    chosen = ["frozen_lake", "path_exploration", "countdown, prose", "math, prose"]
    found = calibration.main(4, 6, 0, out, None, chosen)
    pd.testing.assert_frame_equal(found.round(4), pd.read_csv(out).fillna({"chosen": ""}))
    said = capsys.readouterr().out
    assert "Which metric to trust where no key exists" in said and "frozen-lake-habit" in said
    assert set(found["environment"]) == {*chosen, ALL} and set(found["chosen"]) == {OWN, OTHERS, DEFAULT, ""}
    assert {"orders against wording", "strategy over wording", "ari in many wordings"} <= set(found["measure"])
    low, high = found["low"].dropna(), found["high"].dropna()
    assert (low <= high).all()
    # In one wording equal texts are equal strategies; in many each text is its own: 1 or about 0.
    exact = found[(found["environment"] == "countdown, prose") & (found["method"] == methods.EXACT)].set_index(
        "measure"
    )
    assert exact.loc["ari in many wordings", "mean"] < 0.3 < exact.loc["ari", "mean"]
    with pytest.raises(InputError, match="cannot write"):
        calibration.main(4, 6, 0, out / "below.csv", None, ["path_exploration, prose"])


def test_bad_calibrations() -> None:
    with pytest.raises(InputError, match="no calibration of 'lake'; expected names among path_exploration"):
        calibration.run(["lake"])
    for tasks in (2, 5):
        with pytest.raises(InputError, match="an even number of at least 4 tasks"):
            calibration.run(["countdown"], tasks)
    with pytest.raises(InputError, match="0 environments"):
        calibration.run([])


# --- tables ---------------------------------------------------------------------------------------------------------


def judged_frame() -> pd.DataFrame:
    made = [
        ("lab answers", "e", "equal texts", "", "ari", 0.2, 0.1, 0.3, 3),
        ("lab answers", ALL, "equal texts", "", "ari", 0.2, 0.1, 0.3, 3),
        ("lab answers", ALL, "k-means, embedding", OTHERS, "ari", 0.6, 0.5, 0.7, 3),
        ("lab answers", ALL, "k-means, embedding", DEFAULT, "ari", 0.9, 0.8, 1.0, 3),
        ("lab answers", ALL, "k-means, n-grams", OTHERS, "ari", 0.4, 0.3, 0.5, 3),
        ("lab answers", ALL, "k-means, embedding: effective number", OTHERS, "orders tasks", 0.5, 0.4, 0.6, 3),
        ("lab answers", ALL, "self-BLEU", "", "orders tasks", math.nan, math.nan, math.nan, 3),
    ]
    for way, low, high in (("k-means", 0.1, 0.3), ("HDBSCAN", -0.3, -0.1), ("agglomerative", -0.1, 0.1)):
        mean = (low + high) / 2
        made.append(("lab answers", ALL, f"{way}, embedding", OTHERS, "ari minus n-grams'", mean, low, high, 3))
    return pd.DataFrame(made, columns=calibration_judged.COLUMNS)


def test_the_verdict_says_what_intervals_bear_out() -> None:
    said = tables.verdict(judged_frame()).splitlines()
    assert said[0] == (
        "- ARI, lab answers: best is k-means, embedding, 0.60 [0.50, 0.70]; best with n-grams: k-means, n-grams, 0.40 [0.30, 0.50]."
    )
    assert said[1] == "- orders tasks, lab: best is k-means, embedding, 0.50 [0.40, 0.60]."
    assert "k-means, embedding: better than n-grams" in said[2] and "HDBSCAN, embedding: worse than" in said[3]
    assert "agglomerative, embedding: not shown to differ from" in said[4]


def test_what_no_metric_does_is_said_where_it_is_shown() -> None:
    head = {"kind": "prose", "environment": ALL, "method": "m", "chosen": OTHERS, "tasks": 8}
    made = [{**head, "measure": "ari in many wordings", "mean": 0.2, "low": 0.1, "high": 0.3}]
    made += [{**made[0], "method": "tuned", "chosen": OWN, "mean": 0.8, "low": 0.7, "high": 0.9}]
    made += [{**head, "measure": "orders against wording", "mean": 0.5, "low": 0.2, "high": 0.95}]
    said = tables.verdict(pd.DataFrame(made, columns=calibration_judged.COLUMNS))
    assert "No metric recovers strategies from prose in many wordings" in said and "0.20 [0.10, 0.30]" in said
    assert said.endswith("labelled, and the parameter chosen on them: tuned, 0.80 [0.70, 0.90].")
    assert "No metric tells new words" not in said, "the interval reaches 0.95"


def test_tables_of_judged_numbers() -> None:
    frame = judged_frame()
    trusted = tables.trust(frame)
    assert list(trusted.index) == ["k-means, embedding", "k-means, n-grams", "equal texts"]
    assert trusted.loc["k-means, embedding"].tolist() == [0.6, 0.5]
    wide = tables.wide(frame, "ari", "lab answers")
    assert wide.loc["equal texts", "e"] == "0.20 [0.10, 0.30]" and list(wide.columns) == ["e"]
    cells = tables.cells(frame, "ari", "lab answers")
    assert cells["environment"].tolist() == ["e", ALL, ALL, ALL] and cells["mean"].tolist() == [0.2, 0.2, 0.6, 0.4]
    assert len(tables.cells(frame, "ari", "prose")) == 0
    assert tables.short(math.nan, math.nan, math.nan) == "" and tables.short(0.5, math.nan, math.nan) == "0.50"
    assert tables.short(-0.001, -0.02, 0.01) == "0.00 [-0.02, 0.01]"


def test_clusters_by_threshold_are_geometric_means() -> None:
    shared = {"method": "agglomerative, embedding", "environment": "e"}
    made = [{**shared, "parameter": at, "ratio": ratio} for at, ratio in ((0.1, 8.0), (0.1, 0.5), (0.3, 1.0))]
    found = tables.by_threshold(pd.DataFrame([*made, {**made[0], "method": "other", "ratio": 99.0}]), shared["method"])
    # The geometric mean of 8 and a half is 2.
    assert found["arm"].tolist() == ["e", "e"] and found["seed"].tolist() == [0, 0]
    assert found["threshold"].tolist() == [0.1, 0.3] and found["ratio"].tolist() == pytest.approx([2.0, 1.0])


def test_grid_draws_every_cell_and_escapes_names() -> None:
    table = pd.DataFrame(
        {
            "method": ["<b>", "<b>", "two"],
            "case": ["x", "y", "x"],
            "mean": [0.256, math.nan, -1.0],
            "low": [0.1, math.nan, -2.0],
            "high": [0.4, math.nan, 0.0],
            "n": 3,
        }
    )
    figure = grid(table, "method", "case", "Title", "caption")
    trace = figure.data[0]
    assert [list(line) for line in trace.text] == [["0.26", ""], ["-1.00", ""]]
    assert list(trace.y) == ["&lt;b&gt;", "two"] and trace.customdata[0][0] == "0.256 [0.100, 0.400] (n=3)"
    assert figure.layout.yaxis.autorange == "reversed", "the first row is on top"
    with pytest.raises(InputError, match="no column 'high'"):
        grid(table.drop(columns="high"), "method", "case", "Title", "caption")


# --- what is known beforehand ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "k"), [(15, 3), (10, 2), (40, 8)])
def test_every_metric_has_its_closed_form(n: int, k: int) -> None:
    forms = closed_forms(n, k)
    for case in ("all same", "all different", f"{k} equal groups"):
        known = forms[forms[f"{case}, expected"].notna()]
        assert len(known) >= 15
        np.testing.assert_allclose(known[case], known[f"{case}, expected"], atol=1e-9, err_msg=case)


@pytest.mark.parametrize(("n", "k"), [(15, 1), (16, 3), (12, 3), (110, 11)])
def test_closed_forms_of_groups_that_do_not_go(n: int, k: int) -> None:
    with pytest.raises(InputError, match="expected k of 2 to 10"):
        closed_forms(n, k)


def test_metrics_by_the_number_of_samples() -> None:
    keys = ("a b", "c d", "a b", "e f", "c d", "a b", "a b", "a b")
    vectors = np.eye(3)[[0, 1, 0, 2, 1, 0, 0, 0]]
    found = by_size([Group("e", "p", 0, keys, keys)], [vectors], [2, 4, 8]).pivot(
        index="arm", columns="n", values="value"
    )
    # Strategies seen after 2, 4 and 8: 2, 3, 3. Two-word texts hold one 2-gram: 2/2, 3/4, 3/8 of them differ.
    np.testing.assert_allclose(found.loc["strategies, number"], [2 / 3, 1.0, 1.0])
    np.testing.assert_allclose(found.loc["distinct-2"], [8 / 3, 2.0, 1.0])
    assert math.isnan(found.loc["strategies, coverage@4", 2]) and found.loc["strategies, coverage@4", 8] == 1.0
    with pytest.raises(InputError, match="of groups of 8 samples"):
        by_size([Group("e", "p", 0, keys, keys)], [vectors], [9])
    with pytest.raises(InputError, match="sizes"):
        by_size([], [], [2])


# --- the notebook ---------------------------------------------------------------------------------------------------


def test_the_notebooks_parameters() -> None:
    known = defaults(NOTEBOOK)
    assert set(known["environments"]) <= {*calibration_samples.POLICY_NAMES, *wordings.WORDINGS}
    assert known["tasks"] % 2 == 0 and max(known["sizes"]) <= known["samples"]
    assert (NOTEBOOK.parent / known["results"]).resolve() == NOTEBOOK.parents[1] / calibration.REPORT


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    small = {"environments": ["countdown", "math"], "samples": 8, "sizes": [4, 8], "shuffles": 20, "resamples": 50}
    out = execute(NOTEBOOK, tmp_path / "out.ipynb", {**small, "results": "", "cache": str(tmp_path / "cache.sqlite")})
    assert "Adjusted Rand index, lab answers, here" in out.read_text()
