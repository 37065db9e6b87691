"""What RunWriter writes, refuses and mends."""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from writer_process import PROMPTS, config, rollouts, save, write

from sesa_lab import runs
from sesa_lab.errors import InputError
from sesa_lab.runs import RunWriter, checkpoint, environment, layout


@pytest.fixture(autouse=True)
def _facts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "git", lambda folder: {"commit": "0123456789", "dirty": True})
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # slow


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Steps 1 to 6, commits at 3 and 6."""
    write(RunWriter.create(tmp_path / "run", config(9)), 6)
    return tmp_path / "run"


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_create_says_what_the_run_is_and_where_it_runs(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path / "a" / "run", config(6, seed=7)) as writer:
        assert (writer.step, writer.checkpoint) == (0, None)
    stored = runs.load(writer.path)
    assert stored.config == config(6, seed=7)
    facts = stored.environment
    assert facts["seed"] == 7 and facts["started"].endswith("+00:00") and facts["cpus"] == os.cpu_count()
    assert facts["versions"]["numpy"] == np.__version__ and set(facts["versions"]) == set(environment.LIBRARIES)
    assert not (writer.path / "prompts.json").exists()
    with RunWriter.create(tmp_path / "asked", config(6), PROMPTS) as writer:
        assert json.loads((writer.path / "prompts.json").read_text()) == PROMPTS, "there when the run starts"


def test_create_takes_an_empty_or_an_unborn_folder_and_no_other(tmp_path: Path, run: Path) -> None:
    with pytest.raises(InputError, match=r"is not empty; continue its run with `sesa-lab resume .*--out"):
        RunWriter.create(run, config(6))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(InputError, match="is not empty"):
        RunWriter.create(tmp_path / "full", config(6))
    assert os.listdir(tmp_path / "full") == ["thesis.tex"]
    (tmp_path / "empty").mkdir()
    RunWriter.create(tmp_path / "empty", config(6)).close()
    (tmp_path / "empty" / "config.json").unlink()
    for name in ("rollouts", "sketches", "evaluations", "checkpoints"):
        (tmp_path / "empty" / name).rmdir()
    (tmp_path / "empty" / "metrics.jsonl").unlink()
    RunWriter.create(tmp_path / "empty", config(6)).close()


def test_a_file_in_the_way_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError, match=r"cannot write .*file.*: (File exists|Not a directory); choose another"):
            RunWriter.create(path, config(6))


def test_log_makes_json_of_what_training_has(run: Path) -> None:
    with RunWriter.resume(run) as writer:
        writer.log("step", 7, {
            "a": np.float32(0.5), "b": np.int64(3), "c": np.array(2.0), "d": np.bool_(True), "e": -math.inf,
            "f": np.float64("nan"), "g": [np.float32("inf"), 1], "h": np.float32("nan"),
        })  # fmt: skip
        assert lines(run)[-1] == {
            "kind": "step", "step": 7, "a": 0.5, "b": 3, "c": 2.0, "d": True, "e": None, "f": None, "g": [None, 1],
            "h": None,
        }  # fmt: skip
        with pytest.raises(TypeError, match="expected a number"):
            writer.log("step", 7, {"a": object()})


def test_steps_only_grow(run: Path) -> None:
    def keep(folder: Path) -> None:
        save(folder, 7)

    with RunWriter.resume(run) as writer:
        with pytest.raises(ValueError, match="commit of step 6: it exists"):
            writer.commit(6, keep)
        for early in (5, 6, -1):
            with pytest.raises(ValueError, match="beyond the last committed step, 6"):
                writer.log("step", early, {})
        with pytest.raises(ValueError, match="beyond the last committed step, 6"):
            writer.add_rollouts(rollouts(6))
        writer.add_rollouts(rollouts(8))
        with pytest.raises(ValueError, match="a later step \\(8\\) was logged"):
            writer.commit(7, keep)
        with pytest.raises(ValueError, match="log of kind 'steps'"):
            writer.log("steps", 8, {})
        with pytest.raises(ValueError, match="neither 'kind' nor 'step'"):
            writer.log("step", 8, {"step": 8})
        with pytest.raises(ValueError, match="keep_checkpoints = 0"):
            writer.commit(8, keep, keep_checkpoints=0)
        assert writer.commit(8, keep) == run / "checkpoints" / "step-000008" == writer.checkpoint
        assert writer.step == 8
    with pytest.raises(ValueError, match="is closed"):
        writer.log("step", 9, {})
    writer.close()


def test_step_0_may_be_committed(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path / "run", config(0)) as writer:
        writer.log("evaluation", 0, {"accuracy": 0.5})
        writer.commit(0, lambda folder: save(folder, 0))
    assert runs.load(writer.path).finished
    with RunWriter.resume(writer.path) as writer:
        assert writer.step == 0 and writer.checkpoint is not None and len(lines(writer.path)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("weight"), r"row 0: missing columns \['weight'\]"),
        (lambda row: row.update(extra=1), r"unknown columns \['extra'\]"),
        (lambda row: row.update(token_ids=["a"]), "column 'token_ids': expected list<"),
        (lambda row: row.update(success=None), "column 'success': 1 null values, expected none"),
        (lambda row: row.update(reward="high"), "column 'reward': expected double"),
    ],
)
def test_a_wrong_row_fails_where_it_is_added(run: Path, change: Callable[[dict], object], message: str) -> None:
    row = rollouts(7)[0]
    change(row)
    with RunWriter.resume(run) as writer, pytest.raises(ValueError, match=message):
        writer.add_rollouts([row])


def test_old_checkpoints_are_pruned_never_the_newest(run: Path) -> None:
    with RunWriter.resume(run) as writer:
        writer.commit(7, lambda folder: save(folder, 7), keep_checkpoints=2)
        assert [step for step, _ in layout.checkpoints(run)] == [6, 7]
        writer.commit(8, lambda folder: save(folder, 8), keep_checkpoints=1)
    assert os.listdir(run / "checkpoints") == ["step-000008"]
    assert [step for step, _ in layout.parts(run, "rollouts")] == [3, 6]


def test_all_is_on_disk_before_the_rename_that_commits_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, at_rename, rename = set(), set(), os.rename

    def note(source: Path, target: Path) -> None:
        at_rename.update(synced)
        rename(source, target)

    monkeypatch.setattr(os, "fsync", lambda handle: synced.add(os.readlink(f"/proc/self/fd/{handle}")))
    monkeypatch.setattr(os, "rename", note)
    with RunWriter.resume(run) as writer:
        writer.add_rollouts(rollouts(7))
        synced.clear()
        folder = writer.commit(7, lambda folder: save(folder, 7))
    temporary = folder.with_name(".tmp-step-000007")
    files = [temporary / file.relative_to(folder) for file in folder.rglob("*")]
    rollout = run / "rollouts" / ".tmp-step-000007.parquet"
    assert at_rename >= {str(path) for path in (run / "metrics.jsonl", rollout, run / "rollouts", temporary, *files)}
    assert str(folder.parent) in synced - at_rename


def test_resume_without_a_checkpoint_cuts_everything(tmp_path: Path) -> None:
    write(RunWriter.create(tmp_path / "run", config(9)), 2)
    assert lines(tmp_path / "run")
    with RunWriter.resume(tmp_path / "run") as writer:
        assert (writer.step, writer.checkpoint, writer.config) == (0, None, config(9))
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == b""


def test_what_a_crash_leaves_beyond_the_checkpoint_is_cut(run: Path) -> None:
    kept = {file: file.read_bytes() for file in run.rglob("*") if file.is_file() and file.name != "environment.json"}
    shutil.copy(run / "rollouts" / "step-000006.parquet", run / "rollouts" / "step-000009.parquet")
    shutil.copy(run / "evaluations" / "step-000006.parquet", run / "evaluations" / "step-000009.parquet")
    (run / "evaluations" / ".tmp-step-000009.parquet").write_bytes(b"half")
    (run / ".tmp-environment.json").write_bytes(b"{")
    shutil.copytree(run / "checkpoints" / "step-000006", run / "checkpoints" / ".tmp-step-000009")
    with open(run / "metrics.jsonl", "ab") as file:
        file.write(b'{"kind": "step", "step": 7}\n{"kind": "st')
    RunWriter.resume(run).close()
    left = {file: file.read_bytes() for file in run.rglob("*") if file.is_file() and file.name != "environment.json"}
    assert left == kept
    assert not (run / "checkpoints" / ".tmp-step-000009").exists()


def test_resuming_elsewhere_leaves_a_note(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunWriter.resume(run).close()
    monkeypatch.setattr(environment, "git", lambda folder: None)
    RunWriter.resume(run).close()
    first, second = runs.load(run).environment["resumed"]
    assert (first["step"], first["changed"], second["changed"]) == (6, {}, {"git": None})


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def change_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


LAST = "checkpoints/step-000006"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (f"{LAST}/state.json", cut_short, "state.json is truncated or no JSON"),
        (f"{LAST}/state.json", Path.unlink, "state.json: No such file"),
        (f"{LAST}/state.json", lambda path: path.write_text("{}"), "state.json is no checkpoint state"),
        (f"{LAST}/state.json", lambda path: path.write_text("[]"), "state.json: expected a JSON object, got list"),
        (
            f"{LAST}/state.json",
            lambda path: shutil.copy(path.parents[1] / "step-000003/state.json", path),
            "is of step 3",
        ),
        (f"{LAST}/adapter/adapter_model.safetensors", Path.unlink, "damaged: .*adapter_model.safetensors is missing"),
        (f"{LAST}/optimizer.pt", cut_short, "damaged: .*optimizer.pt has 20000 bytes, 40000 were written"),
        (f"{LAST}/optimizer.pt", change_byte, "damaged: .*optimizer.pt has other content"),
        ("rollouts/step-000006.parquet", Path.unlink, "damaged: .*rollouts/step-000006.parquet is missing"),
        ("metrics.jsonl", cut_short, r"metrics.jsonl has \d+ bytes, but had \d+ when"),
        ("metrics.jsonl", lambda path: path.write_text("x" * 10_000), "metrics.jsonl was changed: no line ends"),
    ],
)
def test_a_damaged_commit_is_never_passed_over(
    run: Path, name: str, damage: Callable[[Path], object], message: str
) -> None:
    damage(run / name)
    before = sorted(run.rglob("*"))
    with pytest.raises(InputError, match=message) as caught:
        RunWriter.resume(run)
    assert f"delete the folder {run / LAST} to resume from" in str(caught.value)
    assert sorted(run.rglob("*")) == before
    if name != "metrics.jsonl":  # doing what the message says helps
        shutil.rmtree(run / LAST)
        with RunWriter.resume(run) as writer:
            assert writer.step == 3
        assert [step for step, _ in layout.parts(run, "rollouts")] == [3]
        assert runs.load(run).steps["step"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b'{"run": {"ste', r"config.json is truncated or no JSON \(.*\); restore"),
        ("config.json", b'{"run": {"stepps": 3}}', "config.json does not hold a config .* did you mean 'steps'"),
        ("config.json", b'{"run": 3}', "config.json does not hold a config"),
        ("environment.json", b"", "environment.json is truncated or no JSON"),
    ],
)
def test_damaged_settings_are_one_clear_error(run: Path, name: str, content: bytes, message: str) -> None:
    (run / name).write_bytes(content)
    for read in (RunWriter.resume, runs.load):
        with pytest.raises(InputError, match=message):
            read(run)


def test_only_run_folders_are_resumed_or_loaded(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")  # as a model folder has one
    for read in (RunWriter.resume, runs.load):
        with pytest.raises(InputError, match="nothing readable is there"):
            read(tmp_path / "none")
        with pytest.raises(InputError, match=r"is no run folder: it has no environment\.json"):
            read(tmp_path)
        with pytest.raises(InputError, match=r"is no run folder: it has no config\.json"):
            read(tmp_path / "config.json")
    assert os.listdir(tmp_path) == ["config.json"]


def test_a_commit_that_cannot_be_written_leaves_the_last_one_and_can_be_repeated(run: Path) -> None:
    with RunWriter.resume(run) as writer:
        writer.log("step", 7, {"reward": 1})
        writer.add_rollouts(rollouts(7))
        (run / "rollouts").rename(run / "aside")
        (run / "rollouts").touch()
        with pytest.raises(
            InputError, match=r"cannot write .*rollouts.*: Not a directory; the run is intact up to step 6"
        ):
            writer.commit(7, lambda folder: save(folder, 7))
        (run / "rollouts").unlink()
        (run / "aside").rename(run / "rollouts")
        assert (writer.step, [step for step, _ in layout.checkpoints(run)]) == (6, [3, 6])
        writer.commit(7, lambda folder: save(folder, 7))
    assert len(runs.load(run).rollouts) == 7 * 6


def test_a_full_disk_tears_nothing(run: Path) -> None:
    # A limit on file sizes stands in for a full disk: it binds root, too.
    before = (run / "metrics.jsonl").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with RunWriter.resume(run) as writer:
        writer.add_rollouts(rollouts(7))
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))
            with pytest.raises(InputError, match=r"cannot write .*metrics\.jsonl: No space left"):
                writer.log("step", 7, {"reward": 1})
            with pytest.raises(InputError, match=r"cannot write .*: File too large; the run is intact up to step 6"):
                writer.commit(7, lambda folder: save(folder, 7))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (run / "metrics.jsonl").read_bytes() == before
        assert not list(run.rglob(".tmp-*")) and layout.parts(run, "rollouts")[-1][0] == 6
        writer.log("step", 8, {"reward": 1})
        writer.commit(8, lambda folder: save(folder, 8))
    stored = runs.load(run)
    assert stored.steps["step"].tolist() == [1, 2, 3, 4, 5, 6, 8] and stored.rollouts["step"].max() == 7


def test_an_interrupt_right_after_the_rename_counts_as_committed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(path: Path) -> None:
        if path == run / "checkpoints":
            raise KeyboardInterrupt

    with RunWriter.resume(run) as writer:
        writer.add_rollouts(rollouts(7))
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(checkpoint, "sync", interrupt)
            writer.commit(7, lambda folder: save(folder, 7))
        assert writer.step == 7
        writer.commit(8, lambda folder: save(folder, 8))
    assert len(runs.load(run).rollouts) == 7 * 6
    RunWriter.resume(run).close()


def test_the_commit_is_that_of_the_project_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)

    def git(*arguments: str) -> None:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    assert environment.git(tmp_path) is None
    git("init")
    assert environment.git(tmp_path) is None  # no commit yet
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").touch()
    git("add", ".")
    git("commit", "-m", "one")
    clean = environment.git(tmp_path)
    assert clean is not None and len(clean["commit"]) == 40 and clean["dirty"] is False
    (tmp_path / "sub" / "file").write_text("changed")
    assert environment.git(tmp_path) == {**clean, "dirty": True}
    assert environment.git(tmp_path / "sub") is None  # inside another repository
