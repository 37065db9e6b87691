"""What a panel says, from run folders made by hand: every state, hostile texts, small figures. No training."""

from __future__ import annotations

import dataclasses
import errno
import gc
import html
import json
import os
import shutil
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from ipywidgets import Widget
from live_runs import HOSTILE, TINY, wait_for

from sesa_lab import live, runs
from sesa_lab.config import Config, sections
from sesa_lab.errors import InputError
from sesa_lab.live import folder as live_folder
from sesa_lab.live import panel as live_panel
from sesa_lab.live import process, worker
from sesa_lab.live.figure import POINTS, curves, thinned
from sesa_lab.live.folder import Folder, Status
from sesa_lab.live.run import LiveRun
from sesa_lab.live.worker import Reporter, Stopped
from sesa_lab.plots.notebook import MIMETYPE as MIME
from sesa_lab.runs import RunWriter

CONFIG = Config.build(**sections(TINY))
SECONDS = {"seconds_draw": 1.0, "seconds_score": 0.5, "seconds_update": 0.5}


def log_steps(writer: RunWriter, steps: range) -> None:
    for step in steps:
        writer.log("step", step, {"success": 0.1 * step, "distinct": 2.0, "entropy": 1.0, **SECONDS})
        writer.log("evaluation", step, {"accuracy": 0.1 * step, "coverage": 2.0, "entropy": 3.0})


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A run of a hostile name that came to step 3 of 5, checkpoint at 2; its writer is gone."""
    path = tmp_path / HOSTILE
    with RunWriter.create(path, CONFIG) as writer:
        log_steps(writer, range(1, 3))
        writer.commit(2, lambda folder: (folder / "a").write_text("a"))
        log_steps(writer, range(3, 4))
    return path


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What is displayed, and updated, instead of a front end."""
    bundles: list[dict[str, Any]] = []

    class Handle:
        def update(self, bundle: dict[str, Any], raw: bool) -> None:
            assert raw
            bundles.append(bundle)

    def display(shown: Any, raw: bool = False, display_id: bool = False) -> Handle | None:
        if raw:
            bundles.append(shown)
        return Handle() if display_id else None

    monkeypatch.setattr("sesa_lab.live.panel.display", display)
    yield bundles


def own() -> str:
    """A word of this process's command line. Asked for when needed: pytest-xdist renames its workers from test to test."""
    return psutil.Process().cmdline()[0]


def own_process(path: Path, status: str, pid: int | None = None, token: str | None = None, **more: Any) -> Folder:
    """Files as a training process leaves them: by default this very one, which is alive and has that in its command line."""
    folder = Folder.of(path)
    folder.path.mkdir(exist_ok=True)
    folder.say(Status(token or own(), status, **more))
    folder.name_process(pid or os.getpid(), token or own())
    return folder


def refreshed(live_run: LiveRun) -> Any:
    live_run.panel.refresh()
    return live_run.panel


def far(folder: Folder) -> Folder:
    """As left by a process on another machine."""
    file = folder.path / "process.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"host": "<i>far</i>"}))
    return folder


def enabled(panel: Any) -> set[str]:
    return {name for name, button in panel.buttons.items() if not button.disabled}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": -1}, "run.steps = -1"),
        ({"step": 3}, "unknown setting 'step'; did you mean 'steps'"),
        ({"environment": "path_exploratio"}, "did you mean 'path_exploration'"),
        ({"options": {"size": 3}}, "unknown option 'size'"),
        ({"preset": "big"}, "unknown preset 'big'"),
    ],
)
def test_bad_settings_are_refused_at_once_and_leave_nothing(tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        live.train(out=tmp_path / "run", **settings)
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"exists and is not empty; open its run with live\.attach"):
        live.train(out=made, **TINY)
    assert [path.name for path in tmp_path.iterdir()] == [HOSTILE]
    made.rename(tmp_path / "x.live")
    with pytest.raises(InputError, match="no place for the files about a training"):
        live.train(out=tmp_path / "x", **TINY)
    with pytest.raises(InputError, match="cannot write"):
        live.train(out=tmp_path / ("x" * 252), **TINY)  # a name that its own files have no room beside
    with pytest.raises(InputError, match="can be no folder"):
        live.attach("a\0b")
    with pytest.raises(InputError, match="no run folder at"):
        live.attach(tmp_path / "nothing")


def test_an_unfinished_run_that_nobody_trains(made: Path) -> None:
    run = live.attach(made)
    state = run.state
    assert (state.name, state.step, state.steps, state.remaining, state.pid) == ("idle", 3, 5, None, None)
    panel = refreshed(run)
    assert "nobody trains it" in panel.head.value and "checkpoint of step 2" in panel.note.value
    assert enabled(panel) == {"Resume"}
    assert not run.folder.path.exists()  # looking leaves nothing


def test_the_states_of_a_process_that_listens(made: Path) -> None:
    folder = own_process(made, "running", step=3, seconds_per_step=30.0)
    run = LiveRun(folder)
    panel = refreshed(run)
    assert panel.text.value == "step 3 of 5, 01:00 left"  # two steps of 30 s
    assert (panel.bar.value, panel.bar.max) == (3, 5)
    assert enabled(panel) == {"Pause", "Stop"} and f"process {os.getpid()}" in panel.head.value
    panel.buttons["Pause"].click()
    assert folder.wanted() == "pause" and run.state.name == "pausing" and enabled(panel) == {"Stop", "Resume"}
    folder.say(Status(own(), "paused", 3, 30.0))
    assert "01:00 left once it goes on" in refreshed(run).text.value and run.state.name == "paused"
    other = LiveRun(Folder.of(made))  # as in another kernel
    other.resume()
    assert folder.wanted() == "run"
    panel.buttons["Stop"].click()
    assert folder.wanted() == "stop" and run.state.name == "stopping" and enabled(panel) == {"Resume"}
    folder.say(Status(own(), "stopped", 3))
    assert other.state.name == "stopped" and enabled(refreshed(other)) == {"Resume"}
    with pytest.raises(InputError, match="cannot be asked to stop: stopped at step 3 of 5"):
        other.stop()
    panel.buttons["Pause"].click()  # by a click that came too late
    assert "cannot be asked to pause" in panel.refusal.value and HOSTILE not in panel.refusal.value


def test_steps_before_the_first_of_a_resumed_run_are_those_of_the_checkpoint(made: Path) -> None:
    assert LiveRun(own_process(made, "running")).state.step == 2  # the third is about to be cut away


def test_a_pid_that_is_another_process_s_by_now_is_a_killed_process(made: Path) -> None:
    run = LiveRun(own_process(made, "running", token="0" * 32, step=3))
    run.log.write_text("one\n" * 50 + "<script>last words</script>\n")
    assert run.state.name == "killed" and run.state.pid == os.getpid()
    panel = refreshed(run)
    assert "gone without a word" in panel.head.value and "checkpoint of step 2" in panel.note.value
    assert "&lt;script&gt;last words" in panel.note.value and panel.note.value.count("one\n") == 11
    assert enabled(panel) == {"Resume"}


def test_a_damaged_run_is_said_until_it_is_mended(made: Path) -> None:
    run = live.attach(made)
    text = (made / "metrics.jsonl").read_text()
    (made / "metrics.jsonl").write_text("<b>\n" + text)
    assert "line 1 is damaged" in refreshed(run).note.value and "<b>\n" not in run.panel.note.value
    (made / "metrics.jsonl").write_text(text)
    assert "damaged" not in refreshed(run).note.value


def test_what_another_process_did_since_counts(made: Path) -> None:
    """The command line resumed the run after a failure, and was interrupted: the failure is no news any more."""
    folder = own_process(made, "failed", pid=2**22 + 1, token="0" * 32, cause="old", step=3)
    assert LiveRun(folder).state.name == "failed"
    lock, said = made / ".lock", (folder.path / "status.json").stat().st_mtime
    os.utime(lock, (said + 1, said + 1))
    assert LiveRun(folder).state.name == "idle"
    lock.write_text(f"{2**22 + 1}\n")  # it was that very process which locked the run then
    os.utime(lock, (said + 1, said + 1))
    assert LiveRun(folder).state.name == "failed"


def test_a_process_of_another_machine_lives_as_long_as_it_has_a_lock(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = LiveRun(far(own_process(made, "running", step=3)))
    monkeypatch.setattr("sesa_lab.live.state.writer_of", lambda path: None)  # its pid means nothing here
    with RunWriter.resume(made):
        state = run.state
        assert (state.name, state.host, state.ended) == ("unseen", "<i>far</i>", False)
        panel = refreshed(run)
        assert "another machine" in panel.head.value and "&lt;i&gt;far" in panel.head.value and enabled(panel) == set()
        with pytest.raises(TimeoutError, match="unseen at step 2 of 5"):
            run.wait(0.0)
        with pytest.raises(InputError, match="cannot be resumed: unseen"):
            run.resume()
    state = run.state  # the container is no more, and this is another one
    assert (state.name, state.host, state.ended) == ("killed", "<i>far</i>", True)
    assert enabled(refreshed(run)) == {"Resume"}
    with pytest.raises(RuntimeError, match="killed at step 2 of 5"):
        run.wait()


def test_a_process_of_another_machine_that_reads_its_policy_has_a_lock_already(tmp_path: Path) -> None:
    folder = far(own_process(tmp_path / "run", "starting"))
    handle = folder.hold()
    assert LiveRun(folder).state.name == "unseen"
    with pytest.raises(InputError, match="another process"):
        process.begin(CONFIG, folder.run)
    os.close(handle)
    assert LiveRun(folder).state.name == "killed"


def test_where_locks_cannot_be_asked_nothing_is_taken_for_killed(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unable(path: Path) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(runs, "in_use", unable)
    assert live.attach(made).state.name == "idle"
    assert LiveRun(far(own_process(made, "running", step=3))).state.name == "unseen"


def test_a_run_that_another_machine_trains_without_a_panel(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sesa_lab.live.state.writer_of", lambda path: None)
    with RunWriter.resume(made):
        state = live.attach(made).state
        assert (state.name, state.host, state.ended) == ("unseen", "", False)
    assert live.attach(made).state.name == "idle"


@pytest.mark.parametrize(
    ("said", "wanted", "name", "words"),
    [
        ("starting", "stop", "stopping", "starting: policy and engine are being read; stops after that"),
        ("starting", "pause", "pausing", "starting: policy and engine are being read; pauses after that"),
        ("evaluating", "run", "evaluating", "starting: the policy is being evaluated before its first step"),
        ("evaluating", "stop", "stopping", "evaluated before its first step; stops after that"),
        ("running", "stop", "stopping", "running; stops after this step"),
        ("running", "pause", "pausing", "running; pauses after this step"),
        ("paused", "pause", "paused", "paused; its process keeps its memory"),
        ("stopping", "stop", "stopping", "stopping: what was done is being kept"),
        ("stopping", "run", "resuming", "is being kept; goes on from there in a moment"),
    ],
)
def test_what_a_panel_waits_for(made: Path, said: str, wanted: str, name: str, words: str) -> None:
    folder = own_process(made, said)
    folder.ask(wanted)
    run = LiveRun(folder)
    panel = refreshed(run)
    assert (run.state.name, run.state.ended) == (name, False) and f"{words}, process {os.getpid()}" in panel.head.value
    assert ("Resume" in enabled(panel)) == (wanted != "run") and ("Stop" in enabled(panel)) == (wanted != "stop")
    assert ("Pause" in enabled(panel)) == (said == name and name in live_panel.DOING)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"token": 3}', '{"pid": "1", "token": "x", "host": "h"}'])
def test_damaged_files_say_nothing(made: Path, damage: str) -> None:
    folder = own_process(made, "running")
    for name in ("process", "status", "wanted"):
        (folder.path / f"{name}.json").write_text(damage)
    assert LiveRun(folder).state.name == "idle" and folder.wanted() == "run"


def test_a_finished_run(tmp_path: Path, sent: list[dict[str, Any]]) -> None:
    path = tmp_path / "run"
    with RunWriter.create(path, CONFIG) as writer:
        log_steps(writer, range(1, 6))
        writer.commit(5, lambda folder: (folder / "a").write_text("a"))
    run = live.attach(path)
    run._ipython_display_()
    panel = run.panel
    assert (panel.bar.value, panel.bar.bar_style) == (5, "success") and enabled(panel) == set()
    assert [set(bundle) for bundle in sent] == [{MIME}]
    assert run.wait().finished
    # Once more, from the cell that waits, and something else before, as high: JupyterLab would not draw it anew.
    assert [set(bundle) for bundle in sent] == [{MIME}, {"text/html"}, {MIME}]
    assert f"height: {sent[-1][MIME]['layout']['height']}px" in sent[1]["text/html"]
    wait_for(lambda: panel._thread is not None and not panel._thread.is_alive())


def test_the_panel_of_a_run_that_grows(made: Path, sent: list[dict[str, Any]]) -> None:
    run = LiveRun(own_process(made, "running", step=3))
    run.panel.show()
    panel = run.panel
    wait_for(lambda: panel._thread is not None and panel._thread.is_alive())
    with RunWriter.resume(made) as writer:
        log_steps(writer, range(3, 5))
        run.panel._drawn_at = 0.0
        wait_for(lambda: len(sent) > 2)
    assert sent[-1][MIME]["data"][0]["x"] != sent[0][MIME]["data"][0]["x"]
    assert run.panel.inner.outputs == ()
    run.panel.here.value = True  # the page was reloaded: the figure below stands still
    assert run.panel.inner.outputs[0]["data"] == sent[-1]
    panel.close()
    assert panel._thread is not None
    panel._thread.join(10)
    assert not panel._thread.is_alive()


def following() -> int:
    return sum(thread.name == "sesa-lab-panel" for thread in threading.enumerate())


def test_a_cell_that_is_run_again_shows_the_same_panel(
    made: Path, sent: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = following()
    for cell in ["a"] * 9 + ["b"]:
        monkeypatch.setattr(live_panel, "_cell", lambda cell=cell: cell)
        live.attach(made)._ipython_display_()
    gc.collect()
    assert following() == before + 1
    run = live.attach(made)
    assert run.panel is live.attach(made).panel
    sent.clear()
    run.panel.refresh(anew=True)
    assert [MIME in bundle for bundle in sent] == [False, True] * 2  # the figures of two cells, each emptied and drawn
    panel, thread = weakref.ref(run.panel), run.panel._thread
    assert panel() is not None and thread is not None
    with pytest.MonkeyPatch.context() as patch:  # a thread that waits holds no panel
        patch.setattr(live_panel.Panel, "refresh", lambda self, anew=False: None)
        run.panel.close()
        gc.collect()
        wait_for(lambda: gc.collect() >= 0 and panel() is None)
    thread.join(10)
    assert not thread.is_alive() and following() == before
    assert run.panel._thread is None  # a new one
    run.panel.close()


def test_the_thread_ends_with_its_panel(made: Path, sent: list[dict[str, Any]]) -> None:
    panel = live.attach(made).panel
    panel.show()
    thread = panel._thread
    assert thread is not None
    Widget.close_all()  # not by the panel, which would tell its thread
    assert thread.is_alive()
    del panel
    wait_for(lambda: gc.collect() >= 0 and not thread.is_alive())


def test_a_cell_is_known_by_what_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert live_panel._cell() == ""

    class Shell:
        def get_parent(self) -> dict[str, Any]:
            return {"metadata": {"cellId": "0a1b"}}

    monkeypatch.setattr(live_panel, "get_ipython", Shell)
    assert live_panel._cell() == "0a1b"


def test_nothing_of_a_hostile_name_becomes_html(made: Path) -> None:
    run = LiveRun(own_process(made, "failed", cause=f"cause {HOSTILE}", trace=f"line one\n{HOSTILE}\u202e\x1b[0m"))
    panel = refreshed(run)
    for widget in (panel.head, panel.note):
        assert "<img" not in widget.value and "&lt;img src=x" in widget.value
        assert html.escape("&amp;") in widget.value
    assert "\u202e" not in panel.note.value and "\x1b" not in panel.note.value
    assert "<img" not in json.dumps(panel._bundle())


def test_a_name_that_is_no_text_can_be_sent(made: Path) -> None:
    path = made.rename(made.with_name(os.fsdecode(b"a\xff")))
    panel = refreshed(live.attach(path))
    panel.head.value.encode()
    assert "\\ud" not in json.dumps(panel._bundle())


def test_a_figure_stays_small_and_keeps_the_means(made: Path) -> None:
    # 1,000 values 1 .. 1000 in 300 stretches of 3 or 4: the first is steps 1-4, mean 2.5; the mean of a line stays a line.
    table = pd.DataFrame({"step": range(1, 1001), "success": [float(i) for i in range(1, 1001)]})
    xs, ys = thinned(table, "success")
    assert len(xs) == POINTS and xs == ys and xs[0] == 2.5
    assert thinned(table.head(3).assign(success=[1.0, None, 3.0]), "success") == ([1.0, 3.0], [1.0, 3.0])
    run = runs.load(made)
    long = run.steps.loc[[0] * 60_000].assign(step=range(1, 60_001))
    big = curves(dataclasses.replace(run, steps=long, evaluations=long.assign(accuracy=1 / 3, coverage=1 / 7)))
    assert len(big.to_json()) < 150_000


def test_a_reporter_measures_obeys_and_says_what_it_died_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = own_process(tmp_path / "run", "starting")
    reporter = Reporter(folder, "token")
    reporter.expect(CONFIG)
    reporter.advance(1, SECONDS)
    assert folder.status() == Status(
        "token", "running", 1, 2.0
    )  # of the first step the sum of its parts: 1 + 0.5 + 0.5
    looks = iter(["pause", "pause", "run"])
    naps: list[str] = []
    monkeypatch.setattr(Folder, "wanted", lambda self: next(looks))
    monkeypatch.setattr(worker.time, "sleep", lambda seconds: naps.append(folder.status().state))
    reporter.obey()
    assert naps == ["paused", "paused"] and folder.status().state == "running"
    monkeypatch.setattr(Folder, "wanted", lambda self: "stop")
    with pytest.raises(Stopped):
        reporter.advance(2, SECONDS)
    assert folder.status().state == "stopping"  # before the loop keeps the step
    reporter.advance(5, SECONDS)  # the last step: there is nothing left to stop
    with pytest.raises(Stopped):
        reporter.begin("running")


@pytest.mark.parametrize("asked", ["nothing", "resume", "removed"])
def test_who_resumes_a_process_that_stops_is_heeded_once_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    folder = own_process(tmp_path / "run", "running", step=3)
    run = LiveRun(folder)
    names = []

    def train(folder: Folder, reporter: Reporter) -> None:
        run.stop()
        try:
            reporter.obey()
        finally:  # the loop keeps the step now
            names.append(run.state.name)
            if asked == "resume":
                run.resume()
                names.append(run.state.name)
            elif asked == "removed":
                shutil.rmtree(folder.path)

    monkeypatch.setattr(worker, "_train", train)
    code = worker.main(str(folder.run), own())
    status = folder.status()
    assert status is not None
    if asked == "resume":
        assert (code, status) == (None, Status(own())) and names == ["stopping", "resuming"]
        assert run.state.name == "starting"
    else:
        assert (code, status.state) == (0, "stopped") and names == ["stopping"]
        assert run.state.name == "stopped"


def test_a_process_that_decides_whether_it_ends_is_waited_for(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = own_process(made, "stopping")
    folder.ask("stop")
    run = LiveRun(folder)
    started = []
    monkeypatch.setattr(process, "go_on", started.append)
    with folder.alone():
        thread = threading.Thread(target=run.resume)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        folder.say(Status(own(), "stopped"))
    thread.join(10)
    assert started == [folder] and folder.wanted() == "stop"  # the run's new process will say what is wanted
    monkeypatch.setattr(live_folder, "PATIENCE", 0.1)
    with (
        folder.alone(),
        pytest.raises(InputError, match="is being started by another kernel; try again"),
        folder.alone(),
    ):
        pass


def test_a_status_that_cannot_be_written_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = own_process(tmp_path / "run", "starting")
    reporter = Reporter(folder, own())
    reporter.expect(CONFIG)

    def full(path: Path, data: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(live_folder, "write_json", full)
        for step in (1, 2):
            reporter._said = float("-inf")
            reporter.advance(step, SECONDS)
        assert LiveRun(folder).state.name == "starting"
        patch.setattr(worker, "_train", lambda folder, reporter: {}["lacking"])
        assert worker.main(str(folder.run), own()) == 1
    said = capsys.readouterr().err
    assert said.count("No space left on device") == 2 and said.count("Training goes on") == 2  # of two reporters
    assert "KeyError: 'lacking'" in said
    reporter._said = float("-inf")
    reporter.advance(3, SECONDS)
    assert LiveRun(folder).state.step == 3


def test_a_folder_that_was_removed_is_made_anew(made: Path) -> None:
    folder = own_process(made, "running", step=2)
    reporter = Reporter(folder, own())
    reporter.expect(CONFIG)
    for step in (3, 4):
        shutil.rmtree(folder.path)
        reporter._said = float("-inf")
        reporter.advance(step, SECONDS)
        run = live.attach(made)
        assert (run.state.name, run.state.step, run.state.pid) == ("running", step, os.getpid())
        assert runs.in_use(folder.path)
    run.pause()
    assert folder.wanted() == "pause"
    assert Config.from_dict(json.loads((folder.path / "settings.json").read_text())) == CONFIG
    assert reporter._lock is not None
    os.close(reporter._lock)


def test_a_failure_keeps_its_cause_and_the_end_of_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = own_process(tmp_path / "run", "starting")

    def fail(folder: Folder, reporter: Reporter) -> None:
        try:
            {}["<key>"]
        except KeyError as error:
            raise ValueError("<b>bold</b> \udcff" + "x" * 5000) from error

    monkeypatch.setattr(worker, "_train", fail)
    assert worker.main(str(tmp_path / "run"), own()) == 1
    status = folder.status()
    assert status is not None and status.cause.startswith("ValueError: <b>bold</b>") and len(status.cause) == 2000
    assert "KeyError: '<key>'" in status.trace and "direct cause" in status.trace and not status.mistake
    panel = refreshed(LiveRun(folder))
    assert "ValueError: &lt;b&gt;bold" in panel.note.value and "KeyError: '&lt;key&gt;'" in panel.note.value
    panel.note.value.encode()  # it can be sent: no half of a character is left
    with pytest.raises(RuntimeError, match="failed at step 0 of 0: ValueError"):
        LiveRun(folder).wait()
