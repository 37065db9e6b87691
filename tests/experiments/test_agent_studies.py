"""The agents' smaller studies: what is run, what is told apart, and what is shown, from runs whose measures are made up."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sesa_lab import plots
from sesa_lab.config import Config
from sesa_lab.errors import InputError
from sesa_lab.experiments import agent_studies as studies
from sesa_lab.experiments import agent_study_tables as shown
from sesa_lab.experiments import agents, stages
from sesa_lab.experiments.jobs import Job
from sesa_lab.runs import RunWriter

SEEDS = [1, 2, 3]
STEPS = 4


def stage(name: str, folder: Path) -> list[Job]:
    return stages.STAGES[name].jobs(folder, SEEDS, STEPS)


def differing(one: Config, other: Config) -> dict[str, Any]:
    """Settings of ``one`` that ``other`` has otherwise."""
    theirs = other.to_dict()
    return {k: v for name, own in one.to_dict().items() for k, v in own.items() if v != theirs[name][k]}


# --- what is run ------------------------------------------------------------------------------------------------------


def test_rivals_and_ours_have_every_rate_and_share_the_main_matrix(tmp_path: Path) -> None:
    found = stage("agents-rivals", tmp_path)
    assert {job.config.environment.name for job in found} == set(agents.TASKS)
    for task in agents.TASKS:
        own = [job for job in found if job.config.environment.name == task and job.seed == SEEDS[0]]
        assert all(job.config.policy.model == f"{task.replace('_', '-')}-habit" for job in own)
        for name in (*studies.RIVALS, *studies.OURS):
            rates = [job.config.update.learning_rate for job in own if job.arm.partition("@")[0] == name]
            every = name in studies.RATED or (name in studies.OURS and task == "frozen_lake")
            assert sorted(rates) == (sorted(agents.SEARCH_GRID) if every else [agents.rate_of(task, "habit", name)])
        main = {job.folder for job in stages.agent_policies(task, tmp_path, SEEDS, STEPS)}
        shared = {job.arm for job in own if job.folder in main}
        assert shared == {"base", *studies.OURS, *studies.RIVALS}, "each once, at the rate that was searched"


def test_rivals_are_taken_from_ours_at_every_rate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "TASKS", {"frozen_lake": agents.TASKS["frozen_lake"]})
    monkeypatch.setattr(studies, "RIVALS", ("parallel",))
    monkeypatch.setattr(studies, "RATED", ("parallel",))
    # "mixed-unsolved" gains 0.05 at every rate; "mixed-unsolved-novelty" loses 0.01 of pass@1, which is within the margin,
    # and as measures() has it 0.02 of pass@64 and some distinct strategies.
    gained = {"mixed-unsolved": 0.05, "mixed-unsolved-novelty": -0.01, "base": 0.0, "parallel": 0.0}
    for job in stage("agents-rivals", tmp_path):
        value = 0.2 + job.seed / 100 + gained[job.arm.partition("@")[0]]
        write(job, measures(0.1), measures(value))
    out = tmp_path / "rivals.csv"
    found = stages.run("agents-rivals", tmp_path, SEEDS, STEPS, out=out)
    printed = capsys.readouterr().out
    rates = len(agents.SEARCH_GRID)
    assert printed.count("0.0500 [0.0500, 0.0500]") == rates, "pass@1 of one of ours at its own rate, against each"
    lines = {line.split("  ")[0]: line.split() for line in printed.splitlines() if " of 3" in line}
    assert len(lines) == 2 * rates
    assert all(lines[name][-1] == "-" and lines[name].count("3") == 8 for name in lines if "novelty" not in name)
    lost = lines["mixed-unsolved-novelty"]
    assert " ".join(lost).startswith("mixed-unsolved-novelty 3 of 3 0 of 3 0 of 3 0 of 3 parallel,")
    assert set(found["task"]) == set(agents.TASKS) and set(found["base"]) == {"habit"}
    assert "learning rate" in out.with_suffix(".html").read_text()
    figure = shown.draw_ends(stage("agents-rivals", tmp_path))
    of = {trace.name: trace for trace in figure.data}
    assert set(of) == {"start", "parallel", "mixed, where unsolved", "mixed + novelty, where unsolved"}
    assert list(of["parallel"].x) == pytest.approx([0.22] * rates) and len(of["start"].x) == 1


def test_the_collapsed_policies_are_plain_parallel_at_the_futures_rate(tmp_path: Path) -> None:
    dying = studies.collapsed(tmp_path, SEEDS, STEPS)
    assert [(job.arm, job.seed) for job in dying] == [("parallel", seed) for seed in SEEDS]
    rates = {(job.arm, job.config.update.learning_rate) for job in [*dying, *stage("agents-revival", tmp_path)]}
    slow = agents.rate_of(studies.TASK, "ordinary", "sesa-paper")
    assert rates == {*((name, studies.REVIVAL_RATE) for name in studies.REVIVERS), (f"sesa-paper@{slow:g}", slow)}


def test_revivals_go_on_from_the_last_checkpoint_of_their_seed(tmp_path: Path) -> None:
    dying = {job.seed: job for job in studies.collapsed(tmp_path, SEEDS, STEPS)}
    found = stage("agents-revival", tmp_path)
    assert [job.arm for job in found] == [*studies.REVIVERS, "sesa-paper@0.0001"] * len(SEEDS)
    for job in found:
        last = dying[job.seed].folder / "checkpoints" / "step-000004"
        assert Path(job.config.policy.adapter) == last.resolve()
        assert job.config.policy.model == "sokoban-ordinary" and job.config.evaluation.test_tasks > 0
        assert job.config.environment == dying[job.seed].config.environment
    on = next(job for job in found if job.arm == "parallel")
    assert set(differing(on.config, dying[on.seed].config)) == {"adapter"}, "plain parallel simply goes on"


def test_drafting_is_all_that_tells_the_pair_apart(tmp_path: Path) -> None:
    found = {job.arm: job.config for job in stage("agents-drafting", tmp_path)}
    assert list(found) == ["base", "half-unsolved", "half-unsolved-iid"]
    assert {config.policy.model for config in found.values()} == {"sokoban-peaked"}
    assert differing(found["half-unsolved-iid"], found["half-unsolved"]) == {"drafting": "iid"}
    usual = agents.jobs("sokoban", studies.PEAKED, ["mixed-unsolved"], [SEEDS[-1]], STEPS, tmp_path)[0].config
    assert differing(found["half-unsolved"], usual) == {"on_policy_fraction": 0.5}


def test_the_habit_study_shares_its_ends_with_the_main_matrix(tmp_path: Path) -> None:
    found = stage("agents-habit", tmp_path)
    main = {job.folder for job in stages.agent_policies(studies.TASK, tmp_path, SEEDS, STEPS)}
    shared = {job.folder for job in found} & main
    assert {folder.parent.name for folder in shared} == {"sokoban-ordinary", "sokoban-habit"}
    assert len(shared) == 2 * len(studies.HABIT_ARMS) * len(SEEDS) and len(found) == 2 * len(shared)
    assert {job.config.policy.model for job in found} == {f"sokoban-{name}" for name in studies.HABITS}
    assert all(job.folder.parent.name == job.config.policy.model for job in found)


def test_every_option_is_one_setting_away_and_makes_sense(tmp_path: Path) -> None:
    found = {job.arm: job.config for job in stage("agents-options", tmp_path)}  # each config was built and checked
    own = found.pop(studies.REFERENCE)
    assert own.evaluation.test_tasks == 0 and own.policy.model == "sokoban-habit"
    assert list(found) == list(studies.OPTIONS)
    beside = {"transfer", "correction", "correction_scope"}
    for name, config in found.items():
        setting, _, value = name.partition("-")
        changed = differing(config, own)
        assert str(changed.pop(setting)) == value and set(changed) <= beside, name
    assert not differing(found["loss-grpo"], own).keys() - {"loss"}
    guided = found["expansions-2"].sampler
    assert guided.group_size * (1 - guided.on_policy_fraction) / guided.expansions == 2


# --- what is shown ----------------------------------------------------------------------------------------------------


def measures(value: float) -> dict[str, float]:
    """pass@64 is twice, distinct correct three times as large; hard tasks are half as often solved."""
    return {
        "accuracy": value, "pass_at_64": 2 * value, "pass_at_64_hard": value / 2, "coverage": 3 * value, "entropy": 1.0,
        "valid_mass": 1.0,
    }  # fmt: skip


def write(job: Job, first: dict[str, float], last: dict[str, float], repeats: list[list[bool]] | None = None) -> None:
    """A finished run: measures at step 0 and after the last; ``repeats``: of each step's one group, sketch by sketch."""
    steps = job.config.run.steps
    with RunWriter.create(job.folder, job.config) as writer:
        for step in range(1, steps + 1):
            writer.log("step", step, {"tokens_trained": 100, "zero_variance": 0.5})
        for step, taken in {0: first, steps: last}.items():
            writer.log("evaluation", step, {**taken, "tokens_total": 100 * step, "seconds_total": 1.0 * step})
        if job.config.evaluation.test_tasks:
            for guided in (False, True):
                writer.log("test", steps, {"guided": guided, **last, "tokens_total": 100 * steps, "seconds_total": 9.0})
        for step, group in enumerate(repeats or [], start=1):
            writer.add_sketches(
                [
                    {
                        "step": step,
                        "group": 0,
                        "index": k,
                        "task": 0,
                        "text": "up",
                        "token_ids": [],
                        "logprobs": [],
                        "finish": "stop",
                        "repeats": again,
                        "redraws": 0,
                        "sampled_tokens": 0,
                        "reward": None,
                        "advantage": None,
                    }
                    for k, again in enumerate(group)
                ]
            )
        writer.commit(steps, lambda folder: (folder / "state").write_text("x"))


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda handle: None)


def died(folder: Path) -> None:
    """pass@1 rises from 0.20 by 0.1, 0.1 and 0.1; distinct correct falls from 0.6 to 0.3."""
    for job in studies.collapsed(folder, SEEDS, STEPS):
        write(job, measures(0.2), {**measures(0.3 + job.seed / 100), "coverage": 0.3})


def test_a_revival_shows_before_and_after(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    died(tmp_path)
    for job in stage("agents-revival", tmp_path):
        before = {**measures(0.3 + job.seed / 100), "coverage": 0.3}
        gained = 0.1 if job.arm == "mixed-unsolved-novelty" else 0.0
        write(job, before, {**before, "accuracy": before["accuracy"] + gained, "coverage": 0.3 + 3 * gained})
    out = tmp_path / "revival.csv"
    stages.run("agents-revival", tmp_path, SEEDS, STEPS, out=out)
    printed = capsys.readouterr().out
    # 0.11, 0.12, 0.13: mean 0.12, s = 0.01; half width 4.3027 x 0.01 / sqrt 3 = 0.0248
    assert "4 steps of parallel: pass@1 +0.120 [0.095, 0.145]" in printed
    assert "distinct correct -0.300 [-0.300, -0.300]; it collapsed" in printed
    rows = {line.split("  ")[0].strip(): line for line in printed.splitlines()}
    assert "parallel, 4 steps" in rows and "base, not trained" in rows and "minus parallel goes on" in rows
    assert "0.100 [0.100, 0.100]" in printed and "0.300 [0.300, 0.300]" in printed
    written = pd.read_csv(out).set_index(["arm", "measure"])
    assert written.loc[("mixed-unsolved-novelty", "coverage"), "mean"] == pytest.approx(0.6)
    assert written.loc[("base", "accuracy_on_validation"), "mean"] == pytest.approx(0.2)
    assert written.loc[("parallel, 4 steps", "coverage_on_validation"), "mean"] == pytest.approx(0.3)
    assert set(written["base"]) == {"ordinary-revival"}


def test_no_collapse_is_claimed_where_none_is_shown() -> None:
    dying = pd.DataFrame(
        [{"seed": seed, "step": step, **measures(0.2 + step / 100)} for seed in SEEDS for step in (0, STEPS)]
    )
    assert shown.collapse(dying, STEPS).endswith("; no collapse is shown.")


def test_a_revival_of_a_policy_made_anew_is_refused(tmp_path: Path) -> None:
    died(tmp_path)
    jobs = stage("agents-revival", tmp_path)
    for job in jobs:
        write(job, measures(0.2), measures(0.2))
    with pytest.raises(InputError, match="began from another policy"):
        shown.show_revival(jobs, STEPS)


def test_drafting_is_told_by_distinct_sketches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for job in stage("agents-drafting", tmp_path):
        half = job.arm.startswith("half")
        # of four sketches one repeats in the first two steps and two in the last two; i.i.d.: three always
        steps = [[False, False, False, True]] * 2 + [[False, False, True, True]] * 2
        drafted = [[False, True, True, True]] * 4 if job.arm.endswith("iid") else steps
        reached = measures({"half-unsolved": 0.4, "half-unsolved-iid": 0.3}.get(job.arm, 0.2))
        write(job, measures(0.2), reached, drafted if half else None)
    found = stages.run("agents-drafting", tmp_path, SEEDS, STEPS).set_index(["arm", "measure"])["mean"]
    # fewer than 20 steps: the first and the last 20 are all four; (3 + 3 + 2 + 2) / 4 = 2.5
    assert found["half-unsolved", "distinct_sketches_first"] == 2.5
    assert found["half-unsolved-iid", "distinct_sketches_last"] == 1.0
    printed = capsys.readouterr().out
    assert "minus half mixed, where unsolved, i.i.d. sketches" in printed and "distinct sketches of 4" in printed
    assert "1.50 [1.50, 1.50]" in printed and "0.100 [0.100, 0.100]" in printed


def habits(folder: Path) -> list[Job]:
    jobs = stage("agents-habit", folder)
    for job in jobs:
        strong = {"ordinary": 0.8, "habit-15": 0.4, "habit": 0.2, "strict": 0.1}
        base = strong[job.folder.parent.name.removeprefix("sokoban-")]
        value = base / 2 + (0.1 if job.arm.startswith("mixed") else 0.0)
        reached = {**measures(value), "pass_at_64_hard": base + job.seed / 100}
        write(job, reached, reached)
    return jobs


def test_habits_are_an_axis(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "HABIT_ARMS", ("base", "parallel", "mixed-unsolved"))
    monkeypatch.setattr(studies, "HABITS", ("ordinary", "habit"))
    jobs = habits(tmp_path)
    found = shown.by_policy(jobs)
    assert [results.base for results in found] == list(studies.HABITS)
    assert [shown.strength(results) for results in found] == pytest.approx([0.82, 0.22])
    along = shown.along(found)
    assert set(along["panel"]) == {"pass@1", "pass@64", "distinct correct"}
    row = along[(along["arm"] == "mixed, where unsolved") & (along["panel"] == "distinct correct")]
    assert row[shown.STRENGTH].tolist() == pytest.approx([0.82, 0.22])
    assert row["mean"].tolist() == pytest.approx([1.5, 0.6])  # 3 x (0.4 + 0.1) and 3 x (0.1 + 0.1)
    out = tmp_path / "habit.csv"
    stages.run("agents-habit", tmp_path, SEEDS, STEPS, out=out)
    assert "habit policy, base's pass@64, hard tasks 0.220:" in capsys.readouterr().out
    assert set(pd.read_csv(out)["base"]) == set(studies.HABITS)
    page = out.with_suffix(".html").read_text()
    assert "How strong must a habit be?" in page and "Plotly.newPlot" in page
    assert "policies from left to right: habit, ordinary; runs " in page


def test_options_are_paired_with_the_reference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "OPTIONS", {name: studies.OPTIONS[name] for name in ("redraws-2", "loss-grpo")})
    for job in stage("agents-options", tmp_path):
        write(job, measures(0.2), measures(0.3 + job.seed / 100 + (0.05 if job.arm == "redraws-2" else 0.0)))
    out = tmp_path / "options.csv"
    found = stages.run("agents-options", tmp_path, SEEDS, STEPS, out=out)
    printed = capsys.readouterr().out
    assert "minus mixed, where unsolved" in printed and "tokens trained" in printed
    line = next(line for line in printed[printed.index("minus mixed") :].splitlines() if line.startswith("redraws-2"))
    assert line.split("  ")[1:] and "0.0500 [0.0500, 0.0500]" in line
    estimates = found.set_index(["arm", "measure"])
    assert estimates.loc[("redraws-2", "accuracy_on_validation"), "mean"] == pytest.approx(0.37)
    assert estimates.loc[("mixed-unsolved", "tokens_trained_on_validation"), "mean"] == 400
    assert set(found["base"]) == {"habit-options"} and len(pd.read_csv(out)) == len(found)


# --- the figure -------------------------------------------------------------------------------------------------------


def test_panels_share_their_axis_and_their_legend() -> None:
    rows = [(arm, panel, x, x + 1, x, x + 3, 3) for arm in ("a", "<b>") for panel in ("one", "two") for x in (1.0, 0.0)]
    along = pd.DataFrame(rows, columns=["arm", "panel", "x", "mean", "low", "high", "n"])
    figure = plots.panels(along, "x", "title", "caption")
    assert len(figure.data) == 4
    assert [trace.showlegend for trace in figure.data] == [True, False, True, False]
    assert {trace.name for trace in figure.data} == {"a", "&lt;b&gt;"}
    assert [axis.title.text for axis in figure.select_yaxes()] == ["one", "two"]
    first = figure.data[0]
    # sorted by x; two arms stand a hundredth of the axis apart, half of it on either side
    assert first.x.tolist() == pytest.approx([-0.005, 0.995]) and first.y.tolist() == [1.0, 2.0]
    assert first.error_y.array.tolist() == [2.0, 2.0] and first.error_y.arrayminus.tolist() == [1.0, 1.0]
    lonely = plots.panels(along[along["x"] == 0.0], "x", "title", "caption")
    assert all(math.isfinite(trace.x[0]) for trace in lonely.data)
    with pytest.raises(InputError, match="no column 'panel'"):
        plots.panels(along.drop(columns="panel"), "x", "title")


def test_a_stage_of_estimates_returns_them() -> None:
    for name, own in stages.STAGES.items():
        assert own.estimates == name.startswith(("agents-", "reasoning-", "collapse-"))
        assert own.figure is None or own.estimates, "a figure is written beside the estimates"
