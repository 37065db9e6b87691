"""What happens to a matrix: processes are killed, code raises, another invocation is at it, a folder is damaged."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sesa_lab import runs
from sesa_lab.errors import InputError
from sesa_lab.experiments import jobs as module
from sesa_lab.experiments.jobs import Failure, Job, attempt, execute, finished
from sesa_lab.experiments.matrix import Arm, jobs_for

BASE = {
    "policy": {"device": "cpu"}, "sampler": {"group_size": 3}, "run": {"steps": 2, "groups": 2, "trackers": "none"},
    "environment": {"options": {"n_treasures": 5}},
}  # fmt: skip
LONG = {**BASE, "run": {**BASE["run"], "steps": 400, "checkpoint_every": 1}}


def of(folder: Path, seeds: list[int], base: dict[str, Any] = BASE) -> list[Job]:
    return jobs_for([Arm("parallel")], seeds, base, folder)


def kill(job: Job) -> None:
    """The process that writes the job's run."""
    os.kill(int((job.folder / ".lock").read_text()), signal.SIGKILL)
    wait_for(lambda: not runs.in_use(job.folder))


def wait_for(said: Any, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not said():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_damaged_folder_is_told_and_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = of(tmp_path, [0])[0]
    with runs.RunWriter.create(job.folder, job.config.changed(run={"steps": 9})):
        pass
    monkeypatch.setattr(module, "ProcessPoolExecutor", None)  # nothing else is to be run
    (failure,) = attempt([job])
    assert failure.job is job and "was made with other settings" in failure.reason and failure.bug is None
    with pytest.raises(InputError, match="1 of 1 runs failed"):
        execute([job])


def test_a_run_that_another_invocation_began_meanwhile_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is still at it, or took all steps and let go before this one could begin."""
    job = of(tmp_path, [0])[0]
    monkeypatch.setattr(module, "finished", lambda job: False)  # it was not there when this one looked
    monkeypatch.setattr(module, "go_on", lambda job, report: runs.RunWriter.create(job.folder, job.config))
    with runs.RunWriter.create(job.folder, job.config):
        assert module._train(job, lambda *_: None) == (module._BUSY, None)
    assert not runs.in_use(job.folder)
    assert module._train(job, lambda *_: None) == (module._BUSY, None)
    (job.folder / "config.json").unlink()
    said, _ = module._train(job, lambda *_: None)
    assert said is not None and "exists and is not empty" in said, "what is in the way is no run"


def test_a_run_that_has_lost_what_it_committed_is_told(tmp_path: Path) -> None:
    job = of(tmp_path, [0])[0]
    execute([job])
    metrics = job.folder / "metrics.jsonl"
    whole = metrics.read_bytes()
    metrics.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match=r"metrics\.jsonl has \d+ bytes, but had \d+ when .* or remove the run folder"):
        finished(job)
    (failure,) = attempt([job])
    assert "metrics.jsonl" in failure.reason
    metrics.write_bytes(whole)
    assert finished(job)
    next((job.folder / "rollouts").iterdir()).unlink()
    with pytest.raises(InputError, match=r"rollouts/.* has 0 bytes"):
        finished(job)


def test_a_lock_is_seen_while_it_is_held(tmp_path: Path) -> None:
    job = of(tmp_path, [0])[0]
    assert not runs.in_use(job.folder)
    with runs.RunWriter.create(job.folder, job.config):
        assert runs.in_use(job.folder)
    assert not runs.in_use(job.folder)


@pytest.mark.slow
def test_a_killed_process_is_replaced_and_its_run_goes_on(tmp_path: Path) -> None:
    few = {**LONG, "run": {**LONG["run"], "steps": 40}}
    (killed,), (whole,) = of(tmp_path / "killed", [0], few), of(tmp_path / "whole", [0], few)
    begun = killed.folder / "checkpoints" / "step-000002"

    def once() -> None:
        wait_for(begun.is_dir)
        kill(killed)

    thread = threading.Thread(target=once)
    thread.start()
    assert attempt([killed], 1) == []
    thread.join()
    assert attempt([whole], 1) == []
    ours, theirs = (runs.load(job.folder) for job in (killed, whole))
    drop = ["seconds_total"]
    assert ours.evaluations.drop(columns=drop).equals(theirs.evaluations.drop(columns=drop))
    assert killed.log.read_text().count(" process ") == 2, "begun twice"


@pytest.mark.slow
def test_a_job_whose_process_is_killed_again_and_again_is_given_up(tmp_path: Path) -> None:
    hopeless, fine = of(tmp_path / "hopeless", [0], LONG), of(tmp_path / "fine", [0, 1])
    over = threading.Event()

    def killer() -> None:
        while not over.is_set():
            if runs.in_use(hopeless[0].folder):
                kill(hopeless[0])
            time.sleep(0.02)

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        failures = attempt([*hopeless, *fine], 1)
    finally:
        over.set()
        thread.join()
    assert [failure.job for failure in failures] == hopeless
    assert "was killed 2 times" in failures[0].reason and str(hopeless[0].log) in failures[0].reason
    assert all(map(finished, fine))


@pytest.mark.slow
def test_a_bug_is_told_with_its_traceback_in_the_log_and_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, fine = of(tmp_path / "broken", [0]), of(tmp_path / "fine", [0])
    site = tmp_path / "site"
    site.mkdir()
    # Read by the spawned processes when they begin: the loop of one run fails in them, as a bug would.
    (site / "sitecustomize.py").write_text(
        "import sesa_lab.training.loop as loop\nreal = loop.train\n\n"
        "def train(config, out, report=None):\n"
        "    if 'broken' in str(out):\n        raise ZeroDivisionError('of the test')\n"
        "    return real(config, out, report)\n\nloop.train = train\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{Path(__file__).parents[2]}")
    failures = attempt([*broken, *fine], 2)
    assert [failure.job for failure in failures] == broken and finished(fine[0])
    assert failures[0].reason.startswith("ZeroDivisionError: of the test (a bug; its traceback is in ")
    assert "Traceback" in broken[0].log.read_text()
    with pytest.raises(ZeroDivisionError, match="of the test"):
        execute(broken, 1)


def _other(jobs: list[Job], begun: Any) -> None:
    begun.set()
    failures: list[Failure] = attempt(jobs, 1)
    assert failures == []


@pytest.mark.slow
def test_two_invocations_share_the_work(tmp_path: Path) -> None:
    jobs = of(tmp_path, [0, 1, 2, 3])
    context = multiprocessing.get_context("spawn")
    begun = context.Event()
    other = context.Process(target=_other, args=(list(reversed(jobs)), begun))
    other.start()
    begun.wait(60)
    assert attempt(jobs, 1) == []
    other.join(120)
    assert other.exitcode == 0
    assert all(map(finished, jobs))
    starts = [job.log.read_text().count(" process ") for job in jobs]
    assert all(run.steps["step"].tolist() == [1, 2] for run in map(runs.load, (job.folder for job in jobs)))
    assert sum(starts) < 2 * len(jobs), "each did some, neither did all"
    assert not any("failed" in job.log.read_text() for job in jobs)
