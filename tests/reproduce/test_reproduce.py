"""From a file to a report: once, again, killed anywhere, on a full disk, by two calls at once, with a run that fails."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from sesa_lab import runs
from sesa_lab.reproduce import load, plan, results
from sesa_lab.reproduce.status import status

EXPERIMENT = """
title = "T <script>alert(1)</script>"
question = "Q?"
notebooks = ["small.ipynb"]
baseline = "plain"
measures = ["accuracy", "coverage"]
[settings]
environment = { name = "path_exploration" }
run = { groups = 2, trackers = "none", checkpoint_every = 2, evaluate_every = 2 }
sampler = { group_size = 3, max_tokens = 8 }
policy = { device = "cpu" }
[arms.plain]
[arms."more_% & more"]
update = { repeats = "zero" }
[presets.smoke]
seeds = "0-1"
steps = 4
"""
CODE = """
from pathlib import Path
from sesa_lab import plots, reproduce
from sesa_lab.experiments import read
this = reproduce.plan(reproduce.load(experiment), "smoke", Path(runs), Path("reports"), seeds)
evaluations, loaded = read(this.jobs)
plots.curves(evaluations, "coverage", title="Coverage", unit="treasures")
"""
COMMAND = "import sys; from sesa_lab.cli import main; sys.exit(main())"
LIMITED = (
    "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); from sesa_lab.cli import main; sys.exit(main())"
)


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    cells = [
        nbformat.v4.new_code_cell('experiment = ""\nruns = ""\nseeds = [0]', metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(CODE),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "small.ipynb")
    path = tmp_path / "mine.toml"
    path.write_text(EXPERIMENT)
    return path


def command(experiment: Path, place: Path, *more: str, code: str = COMMAND) -> list[str]:
    where = ["--runs", str(place / "runs"), "--out", str(place / "reports")]
    return [sys.executable, "-c", code, "reproduce", str(experiment), "--preset", "smoke", *where, *more]


def done(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=280, check=False)


def numbers(place: Path) -> dict:
    return results.comparable(results.read(place / "reports" / "smoke" / "mine" / results.JSON))


def times(place: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (place / "runs").rglob("metrics.jsonl")}


@pytest.mark.slow
def test_a_report_is_made_once_and_what_it_says_is_traced(experiment: Path, tmp_path: Path) -> None:
    first = done(command(experiment, tmp_path))
    assert first.returncode == 0, first.stderr
    folder = tmp_path / "reports" / "smoke" / "mine"
    assert f"wrote {folder / 'report.html'}" in first.stdout and len(times(tmp_path)) == 4
    found = results.read(folder / results.JSON)
    assert {run["arm"] for run in found["runs"]} == {"plain", "more_% & more"}
    for run in found["runs"]:
        there = runs.load(tmp_path / "runs" / run["folder"])
        assert there.finished and there.commit == run["commit"]
        assert run["reached"]["coverage"] == there.evaluations["coverage"].iloc[-1]
    (row,) = [
        row
        for row in found["estimates"]
        if row["arm"] != "before" and row["measure"] == "coverage" and row["diff"] is not None
    ]
    assert row["n_pairs"] == 2 and row["seeds"] == "0, 1" and row["diff_low"] <= row["diff"] <= row["diff_high"]
    assert "more\\_\\% \\& more" in (folder / results.LATEX).read_text()
    page, index = ((folder / name).read_text() for name in ("report.html", "../index.html"))
    assert "<script>alert(1)" not in page + index and "T &lt;script&gt;" in index

    before, report = times(tmp_path), (folder / "report.html").stat().st_mtime_ns
    again = done(command(experiment, tmp_path))
    assert again.returncode == 0 and f"up to date: {folder / 'report.html'}" in again.stdout
    assert times(tmp_path) == before and (folder / "report.html").stat().st_mtime_ns == report

    made = plan(load(str(experiment)), "smoke", tmp_path / "runs", tmp_path / "reports")
    assert status([made])[["finished", "report"]].to_numpy().tolist() == [[4, "up to date"]]
    experiment.write_text(EXPERIMENT.replace("Q?", "Another?"))
    made = plan(load(str(experiment)), "smoke", tmp_path / "runs", tmp_path / "reports")
    assert status([made])[["finished", "report"]].to_numpy().tolist() == [[4, "to be made anew"]]

    full = done(command(experiment, tmp_path, code=LIMITED))  # no file may grow beyond 3,000 bytes
    assert full.returncode in (1, 2) and "File too large" in full.stderr.splitlines()[-1]
    assert "Traceback" not in full.stderr
    assert times(tmp_path) == before
    assert results.read(folder / results.JSON)["question"] == "Q?"
    assert (folder / "report.html").read_text() == page


@pytest.mark.slow
def test_what_lies_about_is_mended_or_told_and_images_cost_no_second_execution(
    experiment: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "reports" / "smoke" / "mine"
    left = folder / ".tmp-executed" / "old.ipynb"  # as a failed notebook of another name is left, to be read
    left.parent.mkdir(parents=True)
    left.write_text("{}")
    first = done(command(experiment, tmp_path))
    assert first.returncode == 0, first.stderr
    assert not left.parent.exists()

    drawn = done(command(experiment, tmp_path, "--images", "svg"))
    assert drawn.returncode == 0 and "notebook 1 of 1" not in drawn.stderr, drawn.stderr
    assert [path.name for path in (folder / "figures").iterdir()] == ["small-1.svg"]
    again = done(command(experiment, tmp_path, "--images", "svg"))
    assert "up to date" in again.stdout and "up to date" in done(command(experiment, tmp_path)).stdout

    # A finished run that has lost lines is told, not read; the others' numbers are kept, and the report stays.
    made = plan(load(str(experiment)), "smoke", tmp_path / "runs", tmp_path / "reports")
    metrics = made.jobs[0].folder / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[:-200])
    assert status([made])[["finished", "damaged"]].to_numpy().tolist() == [[3, 1]]
    torn = done(command(experiment, tmp_path))
    assert torn.returncode == 1 and "Traceback" not in torn.stderr
    assert "or remove the run folder to have it made anew" in torn.stderr.splitlines()[-1]
    assert len(results.read(folder / results.JSON)["runs"]) == 3 and (folder / "report.html").is_file()
    assert status([made])[["damaged", "failed", "report"]].to_numpy().tolist() == [[1, 1, "to be made anew"]]


@pytest.mark.slow
def test_killed_at_ten_random_moments_it_comes_to_the_same(experiment: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    start = time.monotonic()
    assert done(command(experiment, whole)).returncode == 0
    took = time.monotonic() - start
    moments = random.Random(1)
    for _ in range(10):
        process = subprocess.Popen(
            command(experiment, killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            process.wait(moments.uniform(0.05, 0.9) * took)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    last = done(command(experiment, killed))
    assert last.returncode == 0, last.stderr
    assert numbers(killed) == numbers(whole)
    for run in runs.find(killed / "runs"):
        assert runs.load(run).steps["step"].tolist() == [1, 2, 3, 4]


@pytest.mark.slow
def test_two_calls_at_once_share_the_work(experiment: Path, tmp_path: Path) -> None:
    calls = [subprocess.Popen(command(experiment, tmp_path), stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [call.communicate(timeout=280)[0] for call in calls]
    assert [call.returncode for call in calls] == [0, 0]
    assert sum("wrote" in text for text in said) == 1 and sum("up to date" in text for text in said) == 1
    logs = [log.read_text() for log in (tmp_path / "runs" / "mine" / "logs").iterdir()]
    assert sum(log.count(" of 4\n") for log in logs) == 16, "of 4 runs, each step was taken once"


@pytest.mark.slow
def test_a_run_that_fails_costs_no_other(experiment: Path, tmp_path: Path) -> None:
    experiment.write_text(EXPERIMENT + '[arms.broken.policy]\nadapter = "nowhere"\n')
    found = done(command(experiment, tmp_path))
    assert found.returncode == 1 and "2 runs failed, 1 of 1 reports are not whole" in found.stderr
    assert found.stderr.count("failed: ") >= 2 and "nowhere" in found.stderr and "Traceback" not in found.stderr
    kept = results.read(tmp_path / "reports" / "smoke" / "mine" / results.JSON)
    assert len(kept["runs"]) == 4 and len(kept["failed"]) == 2


def test_no_place_to_write_is_told_before_anything_runs(experiment: Path, tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("a file")
    found = done(command(experiment, tmp_path))
    assert found.returncode == 2 and found.stderr.count("\n") == 1
    assert "reports" in found.stderr and "name another folder by --out" in found.stderr
    assert not (tmp_path / "runs").exists()


def test_one_that_cannot_be_planned_stops_no_other(experiment: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(EXPERIMENT.replace("steps = 4", "steps = true"))
    asked = command(experiment, tmp_path, "--dry-run")
    place = asked.index(str(experiment))
    asked.insert(place, str(tmp_path / "bad.toml"))
    both = done(asked)
    assert both.returncode == 0 and "mine (smoke, seeds 0, 1): 4 runs: 4 missing" in both.stdout
    assert "bad: cannot be planned: " in both.stdout and "steps = True, expected a whole number" in both.stdout
    table = done([each if each != "reproduce" else "status" for each in asked if each != "--dry-run"])
    assert table.returncode == 0 and "bad: cannot be planned: " in table.stdout and "mine" in table.stdout
    asked.remove(str(experiment))
    alone = done(asked)
    assert alone.returncode == 2 and "steps = True, expected a whole number" in alone.stderr

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.toml").write_text(EXPERIMENT)
    twice = done([*asked[:place], str(experiment), str(tmp_path / "other" / "mine.toml"), *asked[place + 1 :]])
    assert twice.returncode == 2 and "two experiments are called 'mine'" in twice.stderr


@pytest.mark.slow
def test_on_a_ray_cluster_it_comes_to_the_same(experiment: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    local = done(command(experiment, here))
    assert local.returncode == 0, local.stderr
    cluster = done(command(experiment, there, "--engine", "ray", "--storage", (tmp_path / "kept").as_uri()))
    assert cluster.returncode == 0, cluster.stderr
    assert numbers(there) == numbers(here)
    assert len(list((tmp_path / "kept").rglob("metrics.jsonl"))) == 4
    again = done(command(experiment, there, "--engine", "ray"))
    assert again.returncode == 0 and "up to date: " in again.stdout


def test_options_of_a_cluster_without_one_are_refused(experiment: Path, tmp_path: Path) -> None:
    found = done(command(experiment, tmp_path, "--storage", "s3://bucket"))
    assert found.returncode == 2 and "--storage s3://bucket has no effect with --engine local" in found.stderr
