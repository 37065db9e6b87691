"""Training in processes of their own: paused, stopped, killed and resumed, and every time the run that it would have been."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from live_runs import HOSTILE, TINY, assert_same_run, elsewhere, until, wait_for

import sesa_lab
from sesa_lab import live, runs
from sesa_lab.config import Config, sections
from sesa_lab.errors import InputError
from sesa_lab.live.run import LiveRun
from sesa_lab.live.state import State
from sesa_lab.live.worker import Stopped
from sesa_lab.training import loop

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of ``TINY``, trained in this process."""
    return sesa_lab.train(out=tmp_path_factory.mktemp("reference") / "run", progress=False, **TINY).path


def pause_after_a_step(run: LiveRun) -> State:
    """Its state, paused after one of its first steps."""
    until(run, "running")
    run.pause()
    state = until(run, "paused")
    assert 1 <= state.step < 5
    return state


def test_two_at_once_and_one_of_them_paused_by_another_process(reference: Path, tmp_path: Path) -> None:
    first = live.train(out=tmp_path / HOSTILE, **TINY)
    second = live.train(out=tmp_path / "second", **{**TINY, "seed": 1})
    # Asked before the policy is read: it holds at once. Asked by a process that only has the folder.
    code = "import sys; from sesa_lab import live; run = live.attach(sys.argv[1]); run.pause(); print(run.state.name)"
    assert elsewhere(code, first.path).strip() in ("pausing", "paused")
    state = until(first, "paused")
    assert (state.step, state.steps, state.remaining) == (0, 5, None)
    assert second.wait(240).finished and second.state.name == "finished"
    with pytest.raises(TimeoutError, match="paused at step 0 of 5"):
        first.wait(0.5)
    assert not first.path.exists()  # it held
    with pytest.raises(InputError, match="is being trained already"):
        live.process.go_on(first.folder)
    live.attach(first.path).resume()
    assert first.wait(240).finished
    assert_same_run(first.path, reference)
    assert runs.load(second.path).config.run.seed == 1
    with pytest.raises(InputError, match="cannot be resumed: finished at step 5 of 5"):
        first.resume()


def test_a_stopped_run_resumes_to_the_same_end(reference: Path, tmp_path: Path) -> None:
    run = live.train(out=tmp_path / "run", **TINY)
    paused = pause_after_a_step(run)
    assert paused.remaining is not None and paused.remaining > 0
    run.stop()
    state = until(run, "stopped")
    assert (state.step, state.ended) == (paused.step, True)
    with pytest.raises(InputError, match=f"cannot be asked to pause: stopped at step {paused.step} of 5"):
        run.pause()
    assert runs.load(run.path).checkpoints[-1][0] == paused.step, "the step that was done is kept"
    run.resume()
    assert until(run, "running", "finished").step <= 5
    assert run.wait(240).finished
    assert_same_run(run.path, reference)


def test_a_run_that_is_resumed_while_it_stops_goes_on_to_the_same_end(reference: Path, tmp_path: Path) -> None:
    run = live.train(out=tmp_path / "run", **TINY)
    pid = pause_after_a_step(run).pid
    assert pid is not None
    with run.folder.alone():  # it keeps its step, and cannot decide yet whether it ends
        run.stop()
        wait_for(lambda: run.state.doing == "stopping")
        os.kill(pid, signal.SIGSTOP)
    assert run.state.name == "stopping"
    run.resume()  # does not wait
    assert run.state.name == "resuming"
    os.kill(pid, signal.SIGCONT)
    assert until(run, "starting").pid == pid and runs.in_use(run.folder.path)
    assert run.wait(240).finished
    assert_same_run(run.path, reference)
    assert len(runs.load(run.path).environment["resumed"]) == 1


def test_stop_and_pause_are_obeyed_before_the_first_step(reference: Path, tmp_path: Path) -> None:
    """Here: by the loop in this very process, which is told to end where a panel would say so."""
    path, begun = tmp_path / "run", []

    def stop_at(name: str) -> Callable[[str], None]:
        def begin(state: str) -> None:
            begun.append((state, len(runs.load(path).evaluations), len(runs.load(path).checkpoints)))
            if state == name:
                raise Stopped

        return begin

    with pytest.raises(Stopped):
        loop.train(Config.build(**sections(TINY)), path, None, stop_at("evaluating"))
    with pytest.raises(Stopped):
        loop.resume(path, None, stop_at("running"))
    loop.resume(path, None, stop_at("never"))
    assert begun == [("evaluating", 0, 0), ("evaluating", 0, 0), ("running", 1, 1), ("running", 1, 1)]
    assert_same_run(path, reference)


def test_a_run_that_is_stopped_while_it_starts_resumes_to_the_same_end(reference: Path, tmp_path: Path) -> None:
    run = live.train(out=tmp_path / "run", **TINY)
    run.stop()
    assert until(run, "stopped").step == 0 and not run.path.exists()
    run.resume()
    until(run, "evaluating", "running")
    run.stop()
    assert until(run, "stopped").step < 5
    run.resume()
    assert run.wait(240).finished
    assert_same_run(run.path, reference)


def test_a_run_whose_files_about_it_are_removed_is_trained_on_and_found_again(reference: Path, tmp_path: Path) -> None:
    run = live.train(out=tmp_path / "run", **TINY)
    run.pause()
    pid = until(run, "paused").pid
    shutil.rmtree(run.folder.path)  # it goes on: nobody asks it to hold any more
    wait_for(lambda: run.state.name in ("evaluating", "running"), 240)
    again = live.attach(run.path)
    assert again.state.pid == pid
    again.pause()
    assert until(again, "paused").pid == pid
    shutil.rmtree(run.folder.path)
    assert live.attach(run.path).wait(240).finished
    assert_same_run(run.path, reference)


def test_a_killed_process_is_noticed_and_its_run_resumes_to_the_same_end(reference: Path, tmp_path: Path) -> None:
    run = live.train(out=tmp_path / "run", **TINY)
    paused = pause_after_a_step(run)
    pid = paused.pid
    assert pid is not None and runs.in_use(run.folder.path)
    os.kill(pid, signal.SIGKILL)
    state = until(run, "killed")
    assert (state.step, state.pid) == (paused.step, pid)
    wait_for(lambda: not runs.in_use(run.folder.path))  # the system takes its memory first, then its locks
    wait_for(lambda: run.state.ended and not psutil.pid_exists(pid))  # it was waited for, and leaves no zombie
    with pytest.raises(RuntimeError, match=f"killed at step {paused.step} of 5"):
        run.wait()
    run.resume()
    assert run.wait(240).finished
    assert_same_run(run.path, reference)


def test_the_process_outlives_the_one_that_started_it(reference: Path, tmp_path: Path) -> None:
    """As a kernel that is killed: by SIGKILL to its whole process group."""
    code = f"""
import os, signal, sys
from sesa_lab import live
os.setpgrp()
run = live.train(out=sys.argv[1], **{TINY!r})
print(run.state.name, flush=True)
os.killpg(0, signal.SIGKILL)
"""
    assert elsewhere(code, tmp_path / "run", ends=-signal.SIGKILL) == "starting\n"
    run = live.attach(tmp_path / "run")
    assert run.wait(240).finished
    assert_same_run(run.path, reference)


def test_what_fails_says_why_and_begins_again_when_mended(reference: Path, tmp_path: Path) -> None:
    lacking = tmp_path / "<i>no model</i>"
    run = live.train(out=tmp_path / "run", **TINY, policy=str(lacking))
    with pytest.raises(InputError, match="no model"):
        run.wait(240)
    state = run.state
    assert state.name == "failed" and state.mistake and not run.path.exists()
    run.panel.refresh()
    assert "&lt;i&gt;no model&lt;/i&gt;" in run.panel.note.value
    assert "<i>no model" not in run.panel.note.value
    assert "Traceback" in run.log.read_text()
    again = live.train(out=tmp_path / "run", **TINY)  # nothing of the failed one is in the way
    assert again.wait(240).finished
    assert_same_run(again.path, reference)


def test_a_run_of_the_command_line_is_watched_and_not_paused(tmp_path: Path) -> None:
    """Here: one that this very process writes."""
    seen = []

    def look(step: int, metrics: dict) -> None:
        run = live.attach(tmp_path / "run")
        seen.append(run.state)
        run.panel.refresh()
        assert all(button.disabled for button in run.panel.buttons.values())
        for refused in (run.pause, run.stop, run.resume):
            with pytest.raises(InputError, match=f"foreign at step {step} of 5, process {os.getpid()}"):
                refused()

    loop.train(Config.build(**sections(TINY)), tmp_path / "run", look)
    assert [(state.name, state.step, state.pid) for state in seen] == [("foreign", s, os.getpid()) for s in range(1, 6)]
    assert all(state.remaining for state in seen[:-1])
    assert live.attach(tmp_path / "run").state.name == "finished"
