"""A run killed at any moment resumes from its last commit and ends byte for byte like one that was never killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import writer_process

from sesa_lab import runs
from sesa_lab.runs import RunWriter, layout

SCRIPT = Path(writer_process.__file__)
PROJECT = Path(runs.__file__).resolve().parents[2]


class Writers:
    """Starts processes that write a run, and kills them."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def run(
        self, path: Path, steps: int, *, keep: int | None = None, kill_at: int = 0, kill_when: int | None = None
    ) -> int:
        """The exit code; -9 where it was killed: by itself, or here once metrics.jsonl has ``kill_when`` bytes."""
        self.say(json.dumps({"path": str(path), "steps": steps, "keep": keep, "kill_at": kill_at}))
        pid = int(self.hear())
        if kill_when is not None:
            deadline = time.monotonic() + 30
            while size(path / "metrics.jsonl") < kill_when and time.monotonic() < deadline:
                time.sleep(0.0002)
            os.kill(pid, signal.SIGKILL)
        self.say("reap")
        return int(self.hear())

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@pytest.fixture(scope="module")
def writers() -> Iterator[Writers]:
    command = [sys.executable, str(SCRIPT)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Writers(process)


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def tree(path: Path) -> dict[str, bytes]:
    """Every file of a run by its path; what belongs to the machine and the moment left out."""
    files = {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    return {name: content for name, content in files.items() if name not in (layout.LOCK, layout.ENVIRONMENT)}


def assert_same(path: Path, reference: Path) -> None:
    ours, theirs = tree(path), tree(reference)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


def assert_equal_tables(run: runs.Run, reference: runs.Run) -> None:
    for table in ("steps", "evaluations", "tests", "rollouts", "answers"):
        assert getattr(run, table).equals(getattr(reference, table)), table
    assert run.read_sketches().equals(reference.read_sketches())


def test_killed_at_random_moments(writers: Writers, tmp_path: Path) -> None:
    reference = tmp_path / "reference"
    assert writers.run(reference, 30) == 0
    whole = size(reference / "metrics.jsonl")
    draw = random.Random(0)
    kills, advanced, finished = 0, set(), 0
    # Several runs, since one may be done before it was killed often enough; one whose next kill lies beyond its end is
    # left to finish (its file is as long already: it would be killed at once, again and again).
    while kills < 12 or not finished:
        path = tmp_path / f"run-{finished}"
        target = size(path / "metrics.jsonl") + draw.randint(1, whole // 3)
        if writers.run(path, 30, kill_when=target if kills < 12 and target <= whole else None) == 0:
            assert_same(path, reference)
            assert_equal_tables(runs.load(path), runs.load(reference))
            finished += 1
            continue
        kills += 1
        if layout.is_run(path):  # readable as the dead process left it
            run = runs.load(path)
            advanced.add((len(run.steps), len(run.checkpoints)))
            assert len(run.rollouts) == 6 * (run.checkpoints[-1][0] if run.checkpoints else 0)
    assert len(advanced) >= 5  # the kills came at different places


def test_killed_before_every_change_on_disk(writers: Writers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = runs.environment.facts(0)
    monkeypatch.setattr(runs.environment, "facts", lambda seed: facts)  # as in the processes, see there
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    reference = tmp_path / "reference"
    assert writers.run(reference, 6, keep=1) == 0
    kills = 0
    while True:
        path = tmp_path / f"run-{kills}"
        code = writers.run(path, 6, keep=1, kill_at=kills + 1)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
        if layout.is_run(path):
            runs.load(path)
        writer_process.work(path, 6, keep=1)
        # A kill between a commit's rename and its pruning may leave one checkpoint more until the next commit.
        extra = [folder for _, folder in layout.checkpoints(path)[:-1]]
        assert [folder.name for folder in extra] in ([], ["step-000003"])
        for folder in extra:
            shutil.rmtree(folder)
        assert_same(path, reference)
    assert kills > 30


def test_killed_while_it_resumes(writers: Writers, tmp_path: Path) -> None:
    reference, path = tmp_path / "reference", tmp_path / "run"
    assert writers.run(reference, 6) == 0
    assert writers.run(path, 3) == 0
    (path / "config.json").write_bytes((reference / "config.json").read_bytes())
    kills = 0
    for count in range(1, 60):  # every change of cutting and opening, one after another on the same folder
        if (path / "metrics.jsonl").read_bytes().endswith(b"\n"):
            with open(path / "metrics.jsonl", "ab") as file:
                file.write(b'{"kind": "step", "step": 4}\n{"kind": "st')
        (path / "rollouts" / "step-000006.parquet").write_bytes(b"left over")
        if writers.run(path, 6, kill_at=count) == 0:
            break
        kills += 1
        runs.load(path)
    assert kills > 20
    assert_same(path, reference)


def test_two_writers(writers: Writers, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run"
    with RunWriter.create(path, writer_process.config(6)):
        assert writers.run(path, 6) == 2
        with pytest.raises(runs.store.InputError, match=rf"another process \(pid {os.getpid()}\) is writing"):
            RunWriter.resume(path)
    assert writers.run(path, 6) == 0
    with RunWriter.resume(path) as writer:
        assert writer.step == 6
