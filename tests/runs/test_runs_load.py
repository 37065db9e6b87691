"""What is read back is what was written."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from writer_process import PROMPTS, answers, config, metrics, rollouts, save, sketches, write

from sesa_lab import runs
from sesa_lab.errors import InputError
from sesa_lab.runs import RunWriter, environment, layout, schema
from sesa_lab.runs.load import _settings as settings


@pytest.fixture(autouse=True)
def _facts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "git", lambda folder: {"commit": "0123456789", "dirty": True})
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # slow


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Steps 1 to 8, commits at 3 and 6; the first part has no history and no strategy anywhere."""
    write(RunWriter.create(tmp_path / "run", config(8)), 8)
    return tmp_path / "run"


def plain(frame: pd.DataFrame) -> list[dict]:
    """Rows as they were added."""
    frame = frame.astype(object).where(frame.notna(), None)
    return [
        {name: list(value) if hasattr(value, "__array__") else value for name, value in row.items()}
        for row in frame.to_dict("records")
    ]


def test_every_column_comes_back(run: Path) -> None:
    stored = runs.load(run)
    assert plain(stored.rollouts) == [row for step in range(1, 7) for row in rollouts(step)]
    assert plain(stored.answers) == [row for step in (0, 2, 4, 6) for row in answers(step)]
    assert plain(stored.read_sketches()) == [row for step in range(4, 7) for row in sketches(step)]
    assert list(stored.rollouts.columns) == schema.ROLLOUTS.names
    assert list(stored.read_sketches().columns) == schema.SKETCHES.names
    assert stored.rollouts["strategy"].isna().sum() == 3 * 6 + 3
    assert stored.rollouts is stored.rollouts


def test_undefined_numbers_are_nan_not_null(tmp_path: Path) -> None:
    row = {**rollouts(1)[1], "weight": math.nan, "advantage": None}
    with RunWriter.create(tmp_path / "run", config(1)) as writer:
        writer.add_rollouts([row])
        writer.commit(1, lambda folder: save(folder, 1))
    table = runs.load(writer.path).rollouts
    assert table[["weight", "advantage"]].isna().all(axis=None)
    assert (table[["weight", "advantage"]].dtypes == "float64").all()


def test_metrics_come_back_as_numbers(run: Path) -> None:
    stored = runs.load(run)
    assert list(stored.steps.columns) == list(schema.METRICS["step"])
    assert stored.steps["step"].tolist() == list(range(1, 9))
    assert stored.steps["reward"].tolist() == [metrics(step)["reward"] for step in range(1, 9)]
    assert stored.steps["found"].dtype == "int64"
    assert stored.evaluations["step"].tolist() == [0, 2, 4, 6, 8]
    for column in ("kl_base", "grad_norm", "loss"):  # NaN, infinity, never logged
        assert stored.steps[column].dtype == "float64" and stored.steps[column].isna().all()


def test_judgements_on_the_test_split_are_a_table_of_their_own(run: Path) -> None:
    tests = runs.load(run).tests
    assert tests["step"].tolist() == [0, 0, 4, 4, 8, 8]
    assert tests["guided"].tolist() == [False, True] * 3
    assert tests["accuracy"].tolist() == [0.0, 0.01, 0.04, 0.05, 0.08, 0.09]
    assert list(tests.columns) == [*schema.METRICS["test"], "pass_at_8"]  # what is not documented comes after
    assert tests["tokens_total"].isna().all()


def test_a_run_without_sketches_has_an_empty_table_of_them(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path / "run", config(3)) as writer:
        writer.add_rollouts(rollouts(1))
        writer.add_sketches([])
        writer.commit(1, lambda folder: save(folder, 1))
    assert not list((writer.path / "sketches").iterdir())
    table = runs.load(writer.path).read_sketches(["text", "advantage"], steps=[1])
    assert len(table) == 0 and list(table.columns) == ["text", "advantage"]


def test_a_run_made_before_there_were_sketches_reads_as_one_without(run: Path) -> None:
    """Parts that lack the newer columns: these come back empty, all others as they are."""
    newer = ["sketch", "sketches", "turns", "turn_tokens", "turn_rewards", "episode_seed"]
    for _, part in layout.parts(run, "rollouts"):
        pq.write_table(pq.read_table(part).drop_columns(newer), part)
    shutil.rmtree(run / "sketches")
    stored = runs.load(run)
    assert stored.rollouts[newer].isna().all(axis=None)
    old = [name for name in schema.ROLLOUTS.names if name not in newer]
    expected = [{name: row[name] for name in old} for step in range(1, 7) for row in rollouts(step)]
    assert plain(stored.rollouts[old]) == expected
    assert len(stored.read_sketches()) == 0


def test_a_run_that_has_just_begun_has_empty_tables_of_the_same_columns(tmp_path: Path, run: Path) -> None:
    RunWriter.create(tmp_path / "new", config(3)).close()
    new, full = runs.load(tmp_path / "new"), runs.load(run)
    for name in ("steps", "evaluations", "rollouts", "answers"):
        empty, filled = getattr(new, name), getattr(full, name)
        assert len(empty) == 0 and list(empty.columns) == list(filled.columns)
    assert (new.rollouts.dtypes == full.rollouts.dtypes).all()
    assert (new.read_sketches().dtypes == full.read_sketches().dtypes).all()
    assert not new.finished and new.checkpoints == [] and list(new.page_rollouts()) == []


def test_parts_of_the_read_can_be_asked_for(run: Path) -> None:
    stored = runs.load(run)
    whole = stored.rollouts
    some = stored.read_rollouts(["completion", "step"], steps=[2, 5, 99])
    assert some.equals(whole.loc[whole["step"].isin([2, 5]), ["completion", "step"]].reset_index(drop=True))
    assert len(stored.read_rollouts(steps=[])) == 0
    assert stored.read_rollouts(steps=range(4, 6))["step"].unique().tolist() == [4, 5]
    assert stored.read_answers(["probability"], steps=[2])["probability"].tolist() == [1 / 4, 1 / 5]
    pages = list(stored.page_rollouts(["task", "step"], rows=5))
    assert max(map(len, pages)) == 5
    assert pd.concat(pages, ignore_index=True).equals(whole[["task", "step"]])
    with pytest.raises(InputError, match="has no column 'completions'; did you mean 'completion'"):
        stored.read_rollouts(["completions"])


def test_parts_are_read_in_the_order_of_steps_beyond_six_digits(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path / "run", config(1_000_000)) as writer:
        for step in (2, 999_999, 1_000_000):
            writer.add_rollouts(rollouts(step))
            writer.commit(step, lambda folder: save(folder, 1))
    stored = runs.load(writer.path)
    assert stored.rollouts["step"].unique().tolist() == [2, 999_999, 1_000_000]
    assert stored.finished and stored.checkpoints[-1][1].name == "step-1000000"


def test_only_what_is_committed_is_shown_of_the_parts(run: Path) -> None:
    os.rename(run / "checkpoints" / "step-000006", run / "checkpoints" / ".tmp-step-000006")
    stored = runs.load(run)
    assert stored.rollouts["step"].max() == 3 and stored.answers["step"].max() == 2
    assert stored.steps["step"].max() == 8


def test_a_line_being_written_is_passed_over(run: Path) -> None:
    before = runs.load(run)
    for torn in (b'{"kind": "step", "st', b'{"kind": "step", "step": 9}', b"\x00\x00"):
        with open(run / "metrics.jsonl", "ab") as file:
            file.write(torn)
        assert runs.load(run).steps.equals(before.steps)
        os.truncate(run / "metrics.jsonl", (run / "metrics.jsonl").stat().st_size - len(torn))


@pytest.mark.parametrize(
    "damaged", [b'{"kind": "step", "st', b"[1]", b'{"kind": "step"}', b'{"step": 1}', b"\xff", b""]
)
def test_a_damaged_line_is_named(run: Path, damaged: bytes) -> None:
    lines = (run / "metrics.jsonl").read_bytes().split(b"\n")
    lines[3] = damaged
    (run / "metrics.jsonl").write_bytes(b"\n".join(lines))
    with pytest.raises(InputError, match=r"metrics\.jsonl line 4 is damaged: .*restore"):
        runs.load(run)


def test_a_damaged_part_is_named(run: Path) -> None:
    part = run / "rollouts" / "step-000003.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    stored = runs.load(run)
    with pytest.raises(InputError, match=r"cannot read .*rollouts.*step-000003\.parquet"):
        _ = stored.rollouts
    with pytest.raises(InputError, match=r"cannot read .*rollouts.*step-000003\.parquet"):
        list(stored.page_rollouts())


def test_reading_changes_nothing(run: Path) -> None:
    for name in ("evaluations", "rollouts", "sketches"):
        for _, part in layout.parts(run, name):
            part.unlink()
        (run / name).rmdir()
    (run / "metrics.jsonl").unlink()

    def look() -> list[tuple[Path, int, int]]:
        return [(path, path.stat().st_mtime_ns, path.stat().st_size) for path in [run, *sorted(run.rglob("*"))]]

    before = look()
    stored = runs.load(run)
    assert len(stored.rollouts) + len(stored.answers) + len(stored.steps) + len(stored.read_sketches()) == 0
    assert runs.find(run) == [run]
    runs.table([run])
    assert look() == before


def test_a_run_is_readable_while_it_is_written(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path / "run", config(2)) as writer:
        writer.log("step", 1, {"reward": 0.5})
        writer.add_rollouts(rollouts(1))
        early = runs.load(writer.path)
        assert early.steps["reward"].tolist() == [0.5] and len(early.rollouts) == 0
        writer.commit(1, lambda folder: save(folder, 1))
        assert len(runs.load(writer.path).rollouts) == 6 and not runs.load(writer.path).finished
        writer.commit(2, lambda folder: save(folder, 2))
    assert runs.load(writer.path).finished


def test_prompts_are_what_the_run_began_with(tmp_path: Path, run: Path) -> None:
    assert runs.load(run).prompts is None, "a run made before they were recorded"
    write(RunWriter.create(tmp_path / "new", config(3), PROMPTS), 3)
    assert runs.load(tmp_path / "new").prompts == PROMPTS
    RunWriter.resume(tmp_path / "new").close()
    RunWriter.resume(run).close()
    assert runs.load(tmp_path / "new").prompts == PROMPTS and runs.load(run).prompts is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"prompts\.json is truncated or no JSON"),
        ("[]", r"prompts\.json: expected a JSON object, got list"),
        ('{"lab/answer.txt": 3}', r"prompts\.json: expected a text for each template"),
    ],
)
def test_damaged_prompts_are_one_clear_error(run: Path, content: str, message: str) -> None:
    (run / "prompts.json").write_text(content)
    stored = runs.load(run)
    assert len(stored.rollouts), "all else can be read"
    with pytest.raises(InputError, match=message + ".*; restore it from a copy, or remove it"):
        _ = stored.prompts


def test_label(run: Path) -> None:
    assert runs.load(run).label == "run seed 0 @0123456+"
    (run / "environment.json").write_text("{}")
    assert runs.load(run).label == "run seed 0"


def test_find(tmp_path: Path) -> None:
    made = [tmp_path / "b" / "deep" / "run", tmp_path / "a"]
    for path in [*made, tmp_path / "a" / "inside", tmp_path / ".hidden"]:
        RunWriter.create(path, config(1)).close()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    assert runs.find(tmp_path) == sorted(made)
    assert runs.find(tmp_path / "model") == []
    with pytest.raises(InputError, match="no folder at"):
        runs.find(tmp_path / "none")


def test_table_of_many_runs(tmp_path: Path, run: Path) -> None:
    other, new = tmp_path / "other", tmp_path / "new"
    write(RunWriter.create(other, config(3, seed=5)), 3)
    RunWriter.create(new, config(3)).close()
    table = runs.table([runs.load(run), other, str(new)])
    assert table["step"].tolist() == [0, 2, 4, 6, 8, 0, 2]
    assert table["accuracy"].tolist() == [0.0, 0.02, 0.04, 0.06, 0.08, 0.0, 0.02]
    assert table["seed"].tolist() == [0] * 5 + [5] * 2
    assert table["run"].unique().tolist() == [str(run), str(other)]
    for name, value in {
        "environment": "path_exploration", "sampler": "sequential", "repeats": "count", "conditioning": "task",
        "correction": "none", "group_size": 3, "update_loss": "dapo", "environment_options": "{}", "coverage_k": 64,
    }.items():  # fmt: skip
        assert (table[name] == value).all(), name
    assert table.columns.is_unique
    for nothing in (runs.table([]), runs.table([new])):
        assert list(nothing.columns) == list(table.columns) and len(nothing) == 0
    steps = runs.table([run, other], kind="step")
    assert steps.columns.is_unique and steps["step"].tolist() == [*range(1, 9), *range(1, 4)]
    tests = runs.table([run, new, other], kind="test")
    assert tests.columns.is_unique and tests["step"].tolist() == [0, 0, 4, 4, 8, 8, 0, 0]
    assert tests["seed"].tolist() == [0] * 6 + [5] * 2
    with pytest.raises(InputError, match="did you mean 'step'"):
        runs.table([run], kind="steps")


def test_every_setting_has_its_own_column() -> None:
    # Field names are unique across sections but for ``name``; one more of a kind would silently overwrite a column.
    fields = sum(len(section) for section in config(1).to_dict().values())
    assert len(settings(config(1))) == fields
