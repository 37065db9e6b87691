"""Curves of pass@k over k, and how broad a policy is, from hand-made measures and hand-written runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sesa_lab import plots, runs
from sesa_lab.config import Config
from sesa_lab.experiments import agent_tables as tables
from sesa_lab.experiments.jobs import Job
from sesa_lab.runs import RunWriter

PASSED = {"accuracy": 0.25, "pass_at_8": 0.5, "pass_at_16": 0.75, "pass_at_64": 1.0}


def results(rows: list[dict[str, Any]], jobs: list[Job] | None = None, loaded: list[runs.Run] | None = None) -> Any:
    frame = pd.DataFrame(rows)
    return tables.Results("sudoku", "habit", jobs or [], loaded or [], frame, frame.assign(guided=False))


def measured(arm: str, seed: int, step: int, times: float = 1.0, **more: float) -> dict[str, Any]:
    return {
        "arm": arm, "seed": seed, "step": step, **{k: times * v for k, v in PASSED.items()}, "coverage": 2.0, **more
    }  # fmt: skip


def test_pass_at_k_is_a_curve_over_k_of_the_last_step_base_included() -> None:
    rows = [measured("base", 1, 0, 0.5), measured("parallel", 1, 0, 0.1), measured("parallel", 1, 4)]
    found = tables.by_k(results([*rows, measured("parallel", 2, 0), measured("parallel", 2, 4, 0.8)]))
    assert list(found.columns) == ["arm", "seed", "k", "pass@k"] and len(found) == 3 * 4
    values = found.assign(arm=found["arm"].astype(str)).set_index(["arm", "seed", "k"])["pass@k"].sort_index()
    assert values["base, not trained", 1].to_dict() == {1: 0.125, 8: 0.25, 16: 0.375, 64: 0.5}
    assert values["parallel", 1].to_dict() == {1: 0.25, 8: 0.5, 16: 0.75, 64: 1.0}
    assert values["parallel", 2].tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8])
    figure = plots.curves(found, "pass@k", x="k", caption="x")
    lines = {trace.name: trace for trace in figure.data if trace.name}
    assert list(lines["parallel"].x) == [1, 8, 16, 64]
    assert lines["parallel"].y.tolist() == pytest.approx([0.225, 0.45, 0.675, 0.9])
    assert sum(trace.fill == "toself" for trace in figure.data) == 1, "a band where there are two seeds"


def test_k_that_the_samples_do_not_allow_are_left_out() -> None:
    rows = [{**measured("base", 1, 0), "pass_at_64": math.nan}, measured("parallel", 1, 4, pass_at_64=math.nan)]
    assert sorted(set(tables.by_k(results(rows))["k"])) == [1, 8, 16]


def stored(folder: Path, arm: str, answers: list[tuple[int, str | None, float, bool]]) -> tuple[Job, runs.Run]:
    steps = 0 if arm == "base" else 4
    config = Config.build(environment={"name": "sudoku"}, run={"steps": steps})
    job = Job(arm, 1, config, folder / f"{arm}-1")
    with RunWriter.create(job.folder, config) as writer:
        writer.add_evaluation(
            [
                {"step": steps, "task": task, "strategy": strategy, "probability": share, "success": success}
                for task, strategy, share, success in answers
            ]
        )
        writer.commit(steps, lambda where: (where / "state").write_text("x"))
    return job, runs.load(job.folder)


def test_breadth_tells_the_ratio_from_sound_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda handle: None)
    # Task 0: two strategies alike, effective number 2; task 1: nothing correct, 0. Mean 1.
    base = stored(tmp_path, "base", [(0, "rows", 0.1, True), (0, "boxes", 0.1, True), (1, "rows", 1.0, False)])
    # Task 0: 3 to 1, exp(-(3/4 ln 3/4 + 1/4 ln 1/4)) = 1.7548; wrong ones do not count. Task 1: one alone, 1. Mean 1.3774.
    trained = stored(
        tmp_path,
        "parallel",
        [(0, "rows", 0.6, True), (0, "boxes", 0.2, True), (0, "snake", 0.2, False), (1, "rows", 1.0, True)],
    )
    rows = [measured("base", 1, 0), measured("parallel", 1, 0), measured("parallel", 1, 4, accuracy=0.5)]
    jobs, loaded = zip(base, trained, strict=True)
    found = tables.breadth(results(rows, list(jobs), list(loaded)))
    assert found.index.name == "sudoku, habit base"
    assert found["pass@16 / pass@1"].tolist() == ["3.00", "1.50"], (
        "it falls as pass@1 rises, though pass@16 is the same"
    )
    assert found["pass@16"].tolist() == ["0.750", "0.750"]
    assert found["effective number"].tolist() == ["1.00", "1.38"]
    few = [{k: v for k, v in row.items() if k not in ("pass_at_16", "pass_at_64")} for row in rows]
    found = tables.breadth(results(few, list(jobs), list(loaded)))
    assert found["pass@8 / pass@1"].tolist() == ["2.00", "1.00"], "the widest k that the samples allow"
