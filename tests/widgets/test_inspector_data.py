"""One group of a run is read, and no more; and what it says is what the run stored."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inspector_runs import HOSTILE, POLICY, SKETCHES, config, large_run, small_run

from sesa_lab import runs
from sesa_lab.errors import InputError
from sesa_lab.runs import RunWriter, browse, environment, layout
from sesa_lab.runs.browse import Groups
from sesa_lab.widgets import payload
from sesa_lab.widgets.payload import NO_FILTER, Shown
from sesa_lab.widgets.tokens import SHIPPED, Pieces, find


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("small") / "run")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8,750 candidates in two parts of 4,375: three row groups each."""
    return large_run(tmp_path_factory.mktemp("many") / "run", steps=50, groups=25, size=7, tokens=3, every=25)


def shown(folder: Path, step: int = 3, group: int = 1) -> Shown:
    return Shown.read(Groups(runs.load(folder)), step, group)


def test_the_index_has_one_row_a_group(folder: Path) -> None:
    groups = Groups(runs.load(folder))
    assert groups.steps == [1, 2, 3, 4]
    assert groups.table[["step", "group", "task"]].to_numpy().tolist() == [
        [step, group, 2 * (step - 1) + group] for step in range(1, 5) for group in range(2)
    ]
    assert groups.table["candidates"].eq(6).all() and groups.table["solved"].eq(2).all()
    assert groups.at(2)["task"].tolist() == [2, 3] and len(groups.at(9)) == 0
    assert groups.group_of(2, 3) == 1 and groups.group_of(2, 4) is None


def test_a_group_has_exactly_its_rows(folder: Path, many: Path) -> None:
    for path in (folder, many):
        run = runs.load(path)
        groups = Groups(run)
        for step in groups.steps[:: max(1, len(groups.steps) // 4)]:
            for kind, read in (("rollouts", groups.rollouts), ("sketches", groups.sketches)):
                wanted = getattr(run, f"read_{kind}")(steps=[step])
                for group in (0, 1):
                    expected = wanted[wanted["group"] == group].reset_index(drop=True)
                    assert read(step, group).to_pandas().to_dict("list").keys() == expected.to_dict("list").keys()
                    for name in expected.columns:
                        assert list(map(str, read(step, group).to_pandas()[name])) == list(map(str, expected[name]))


def test_one_row_group_of_one_part_is_decoded(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, decoded = [], []
    real = pq.ParquetFile

    class Watched(real):  # type: ignore[misc, valid-type]
        def __init__(self, path: Any) -> None:
            opened.append(Path(path).name)
            super().__init__(path)

        def iter_batches(self, *args: Any, **kwargs: Any) -> Any:
            for batch in super().iter_batches(*args, **kwargs):
                decoded.append(batch.num_rows)
                yield batch

    groups = Groups(runs.load(many))
    monkeypatch.setattr(browse.pq, "ParquetFile", Watched)
    # 25 x 7 = 175 rows a step; step 30 is the fifth of its part, so group 2 has rows 714 to 720 of it: in the first of the row
    # groups of 2,048, and in the twelfth batch of 64
    assert groups.rollouts(30, 2).num_rows == 7
    assert opened == ["step-000050.parquet"] and decoded == [browse.BATCH] * 12
    with real(many / "rollouts" / "step-000050.parquet") as part:
        assert part.metadata.num_row_groups == 3
        assert browse.row_groups(part, 30, 2) == [0]
        assert browse.row_groups(part, 37, 0) == [0, 1]  # rows 1,925 to 2,099
        assert browse.row_groups(part, 38, 0) == [1]
        assert browse.row_groups(part, 7, 0) == []


def test_a_group_across_two_row_groups_is_whole(many: Path) -> None:
    # step 12 begins at row 1,925 of its part, so its group 17 has rows 2,044 to 2,050, and row 2,048 begins a row group
    groups = Groups(runs.load(many))
    assert groups.rollouts(12, 17)["index"].to_pylist() == list(range(7))


def test_what_is_not_committed_is_not_there(tmp_path: Path) -> None:
    path = small_run(tmp_path / "run", steps=3)  # step 3 was never committed
    assert Groups(runs.load(path)).steps == [1, 2]
    before = Groups(runs.load(path))
    small_run(path, steps=4, first=3)
    assert before.steps == [1, 2]
    assert Groups(runs.load(path)).steps == [1, 2, 3, 4]


def test_a_group_that_is_not_there_is_refused(folder: Path) -> None:
    groups = Groups(runs.load(folder))
    with pytest.raises(InputError, match=r"no group 7 at step 2: its groups are \[0, 1\]"):
        groups.rollouts(2, 7)
    with pytest.raises(InputError, match=r"no group 0 at step 9: its steps are 1, 2, 3, 4"):
        groups.rollouts(9, 0)
    assert browse.told(list(range(1, 31))) == "1 .. 30 (30 of them)"


def test_a_run_without_sketches_and_without_newer_columns_is_read(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "old"
    shutil.copytree(folder, path)
    shutil.rmtree(path / "sketches")
    for _, part in layout.parts(path, "rollouts"):
        newer = ["sketch", "sketches", "turns", "turn_tokens", "turn_rewards", "episode_seed"]
        pq.write_table(pq.read_table(part).drop_columns(newer), part)
    found = shown(path)
    assert found.sketches.num_rows == 0 and found.rollouts["sketch"].null_count == 6
    listed = payload.summary(found)
    assert listed["sketches"] == [] and [row["sketch"] for row in listed["candidates"]] == [None] * 6
    assert payload.detail(found, 0, None)["tokens"]["turns"] == []


def test_novelty_of_sketches_and_strategies(folder: Path) -> None:
    listed = payload.summary(shown(folder))
    # Sketch 0 is expanded into candidates 0 (solves) and 1, sketch 1 into the unreadable 2, sketch 2 (which repeats 0) into
    # 3, whose answer is 0's. Candidate 4 has no sketch; 5 is hostile and unreadable.
    assert [(one["repeats"], one["of"], one["novelty"]) for one in listed["sketches"]] == [
        (False, None, "new"),
        (False, None, "unreadable"),
        (True, 0, "known"),
    ]
    numbers = [row["strategy"] for row in listed["candidates"]]
    assert numbers[0] == numbers[3] == 0 and numbers[2] is None and numbers[5] is None
    assert [row["of"] for row in listed["candidates"]][3] == 0
    assert [one["strategy"] for one in listed["sketches"]] == [0, None, 0]
    assert [one["logprob"] for one in listed["sketches"]] == [-0.75] * 3
    assert [row["sketch"] for row in listed["candidates"]] == [0, 0, 1, 2, None, None]


def test_an_unused_sketch(tmp_path: Path) -> None:
    found = shown(small_run(tmp_path / "run"), 1, 0)
    alone = Shown(1, 0, found.rollouts.filter(pa.array([False, False, False, True, True, True])), found.sketches)
    listed = payload.summary(alone)
    assert [one["novelty"] for one in listed["sketches"]] == ["unused", "unused", "new"]


def test_the_importance_ratio_is_that_of_the_log_probs_and_not_the_weight(tmp_path: Path) -> None:
    found = shown(small_run(tmp_path / "run"))
    rows = payload.summary(found)["candidates"]
    assert [row["weight"] for row in rows] == [1.0, 1.1, 1.2, 1.3, 1.4, 1.5], "what the correction applied, as stored"
    for row in rows[:4]:  # drawn under a sketch, trained under the task
        stored = found.row(row["index"])
        by_hand = sum(p - q for p, q in zip(stored["old_logprobs"], stored["drawn_logprobs"], strict=True))
        assert row["log_ratio"] == pytest.approx(by_hand) and row["ratio"] == pytest.approx(math.exp(by_hand))
        assert abs(by_hand) > 1e-3
    # 4 and 5 were drawn under the task and trained under it: p = q by construction, whatever rounding says
    assert [(row["log_ratio"], row["ratio"]) for row in rows[4:]] == [(0.0, 1.0)] * 2


@pytest.mark.parametrize(
    ("drawn_under", "trained_under", "drawn", "old", "log", "ratio"),
    [
        ("sketch", "task", [-1.0, -2.0], [-1.5, -2.0], -0.5, math.exp(-0.5)),
        ("sketch", "task+sketch", [-1.0], [-3.0], -2.0, math.exp(-2.0)),
        ("sketch", "sketch+task", [-1.0], [-1.0001], 0.0, 1.0),
        ("task", "task", [], [], 0.0, 1.0),
        ("sketch", "task", [-1.0, -2.0], [], None, None),  # an older run
        ("sketch", "task", [], [], None, None),
        (None, None, [-1.0], [-3.0], -2.0, math.exp(-2.0)),  # contexts unknown: what is stored
        ("sketch", "task", [-900.0], [-1.0], 899.0, None),  # beyond all floats
        ("sketch", "task", [-1.0], [-900.0], -899.0, 0.0),
        ("sketch", "task", [-1.0], [-math.inf], None, 0.0),
    ],
)
def test_a_ratio_of_two_contexts(
    drawn_under: Any, trained_under: Any, drawn: Any, old: Any, log: float | None, ratio: float | None
) -> None:
    found = payload.ratio(drawn_under, trained_under, np.array(drawn), np.array(old))
    assert found == {"log_ratio": pytest.approx(log), "ratio": pytest.approx(ratio)}


def test_letters_are_counted_once_however_far_they_lie(tmp_path: Path) -> None:
    """Python counts code points and says where a page ends and whether a text was cut: the page need not count."""
    text = "\U0001d465=1; " * 6_000
    found = shown(small_run(tmp_path / "run", changed={"completion": text, "turns": [text], "sketch": text}))
    pages = [payload.text_page(found, 5, 0)]
    while pages[-1]["end"] < pages[-1]["total"]:
        pages.append(payload.text_page(found, 5, pages[-1]["end"]))
    assert "".join(page["text"] for page in pages) == text and pages[0]["end"] == payload.TEXT
    row = payload.summary(found)["candidates"][5]
    assert (row["text"], row["chars"], row["cut"]) == (text[: payload.EXCERPT], 30_000, True)
    detail = payload.detail(found, 5, None)
    assert detail["sketch"] == {"text": text[: payload.SKETCH], "end": payload.SKETCH, "total": 30_000}
    assert payload.excerpt("\U0001d465" * 10, 10) == {"text": "\U0001d465" * 10, "chars": 10, "cut": False}
    tokens = payload.token_page(found, 5, 0, None)
    assert tokens["end"] == tokens["total"] == len(tokens["ids"])
    assert payload.token_page(found, 5, 10**6, None)["ids"] == []


def test_filters_and_orders(folder: Path) -> None:
    found = shown(folder)
    listed = payload.summary(found)

    def kept(sort: str = "drafting", **wanted: Any) -> list[int]:
        return payload.passing(found, listed, {**NO_FILTER, **wanted}, sort)

    assert kept() == [0, 1, 2, 3, 4, 5]
    assert kept(outcome="solved") == [0, 3]
    assert kept(outcome="failed") == [1, 2, 4, 5]
    assert kept(outcome="unreadable") == [2, 5]
    assert kept(text="NO PLAN") == [2] and kept(text=SKETCHES[1][:9]) == [2, 5]  # in a sketch, in an answer
    assert kept(text="pwned", outcome="solved") == []
    assert kept(strategy=listed["strategies"][0]) == [0, 3] and kept(strategy="none such") == []
    top = listed["candidates"][0]["reward"]
    assert kept(low=top) == [0, 3] and kept(high=top - 0.5) == [1, 2, 4, 5] and kept(low=top, high=top) == [0, 3]
    assert kept("advantage") == [0, 1, 2, 3, 4, 5]  # 0.5, -0.5, -1.5 ...
    assert kept("length")[0] == 5 and kept("strategy")[-2:] == [2, 5]
    listed["candidates"][0]["reward"] = None
    assert kept("reward")[-1] == 0 and kept(low=0.0)[:1] != [0]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"strateg": "a"}, "unknown key 'strateg'; did you mean 'strategy'"),
        ({"outcome": "solvd"}, "did you mean 'solved'"),
        ({"low": "1"}, "low = '1', expected a reward or None"),
        ({"high": True}, "high = True"),
    ],
)
def test_a_wrong_filter_is_refused(wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        payload.check_filter(wanted)


def test_tokens_are_the_completion_in_pieces(folder: Path) -> None:
    run = runs.load(folder)
    speller = find(run)  # the adapter names a folder of another machine; the policy of that name is shipped
    assert speller is not None
    found = shown(folder)
    for index in range(6):
        page = payload.token_page(found, index, 0, speller)
        row = found.row(index)
        assert "".join(page["pieces"]) == row["completion"] + "<|end|>"
        assert page["ids"] == row["token_ids"] and page["total"] == len(page["pieces"])
        assert page["drawn"] == [round(value, 4) for value in row["drawn_logprobs"]]
        assert page["trained"] == [round(value, 4) for value in row["old_logprobs"]]
        assert page["entropies"] == [round(value, 4) for value in row["old_entropies"]]


def test_the_letters_of_several_tokens_stay_whole() -> None:
    speller = Pieces(SHIPPED / POLICY / "tokenizer.json")
    ids = speller._tokenizer.encode("a ☃ é", add_special_tokens=False).ids
    pieces = speller.pieces(ids)
    assert "".join(pieces) == "a ☃ é" and len(pieces) == len(ids) > 5
    assert speller.fits(ids, "a ☃ é and more") and not speller.fits(ids, "b")


def test_tokens_of_a_tokenizer_that_is_another_or_away_are_numbers(folder: Path, tmp_path: Path) -> None:
    found = shown(folder)
    other = Pieces(SHIPPED / "path" / "tokenizer.json")
    assert payload.token_page(found, 0, 0, other)["pieces"] is None
    assert payload.token_page(found, 0, 0, None)["pieces"] is None
    path = tmp_path / "run"
    with RunWriter.create(path, config("sokoban", 2, 2)) as writer:
        writer.commit(2, lambda made: None)
    assert find(runs.load(path)) is None  # its model is called `lab`, and no checkpoint says more
    with pytest.raises(InputError, match=r"no tokenizer at .*expected a tokenizer\.json"):
        find(runs.load(path), tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="is no tokenizer"):
        find(runs.load(path), tmp_path)


def test_log_probs_that_are_not_one_a_token_are_left_out(tmp_path: Path) -> None:
    found = shown(small_run(tmp_path / "run", changed={"old_logprobs": []}), 1, 0)
    page = payload.token_page(found, 5, 0, None)
    assert page["trained"] is None and page["drawn"] is not None
    found = shown(small_run(tmp_path / "older", changed={"old_entropies": []}), 1, 0)
    assert payload.token_page(found, 5, 0, None)["entropies"] is None


def test_hostile_text_is_data(folder: Path) -> None:
    found = shown(folder)
    assert payload.summary(found)["candidates"][5]["text"] == HOSTILE[: payload.EXCERPT]
    assert payload.text_page(found, 5, 0) == {
        "start": 0, "end": len(HOSTILE), "text": HOSTILE, "total": len(HOSTILE),
    }  # fmt: skip


@pytest.fixture(autouse=True)
def _facts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "git", lambda folder: {"commit": "0123456789", "dirty": False})  # slow
