"""Training in processes of their own: paused, stopped, killed and resumed, and every time the run that it would have been."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
from live_runs import HOSTILE, TINY, assert_same_run, elsewhere, until, wait_for

import sesa_lab
from sesa_lab import live, runs
from sesa_lab.errors import InputError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of ``TINY``, trained in this process."""
    return sesa_lab.train(out=tmp_path_factory.mktemp("reference") / "run", progress=False, **TINY).path


def test_two_at_once_and_one_of_them_paused_by_another_process(reference: Path, tmp_path: Path) -> None:
    first = live.train(out=tmp_path / HOSTILE, **TINY)
    second = live.train(out=tmp_path / "second", **{**TINY, "seed": 1})
    # Asked for while the policy is being read: it holds after its first step. Asked by a process that only has the folder.
    code = "import sys; from sesa_lab import live; run = live.attach(sys.argv[1]); run.pause(); print(run.state.name)"
    assert elsewhere(code, first.path).strip() in ("pausing", "paused")
    state = until(first, "paused")
    assert (state.step, state.steps) == (1, 5)
    assert state.remaining is not None and state.remaining > 0
    assert second.wait(240).finished and second.state.name == "finished"
    with pytest.raises(TimeoutError, match="paused at step 1 of 5"):
        first.wait(0.5)
    assert len(runs.load(first.path).steps) == 1  # it held
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
    run.pause()
    until(run, "paused")
    run.stop()
    state = until(run, "stopped")
    assert (state.step, state.ended) == (1, True)
    with pytest.raises(InputError, match="cannot be asked to pause: stopped at step 1 of 5"):
        run.pause()
    assert runs.load(run.path).checkpoints[-1][0] == 1, "the step that was done is kept"
    run.resume()
    assert until(run, "running", "finished").step <= 5
    assert run.wait(240).finished
    assert_same_run(run.path, reference)


def test_a_killed_process_is_noticed_and_its_run_resumes_to_the_same_end(reference: Path, tmp_path: Path) -> None:
    run = live.train(out=tmp_path / "run", **TINY)
    run.pause()
    pid = until(run, "paused").pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    state = until(run, "killed")
    assert (state.step, state.pid) == (1, pid)
    wait_for(lambda: run.state.ended and not psutil.pid_exists(pid))  # it was waited for, and leaves no zombie
    with pytest.raises(RuntimeError, match=r"killed at step 1 of 5"):
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

    from sesa_lab.config import Config, sections
    from sesa_lab.training import loop

    loop.train(Config.build(**sections(TINY)), tmp_path / "run", look)
    assert [(state.name, state.step, state.pid) for state in seen] == [("foreign", s, os.getpid()) for s in range(1, 6)]
    assert all(state.remaining for state in seen[:-1])
    assert live.attach(tmp_path / "run").state.name == "finished"
