"""Futures of a checkpoint, what the detector says of stored runs, and the matrices of the collapse lab."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sesa_lab import cli, runs
from sesa_lab.collapse import Thresholds
from sesa_lab.config import Config
from sesa_lab.errors import InputError
from sesa_lab.experiments import collapse_lab, collapse_tables, collapse_tuning, futures
from sesa_lab.experiments import path_exploration as path
from sesa_lab.experiments.jobs import execute
from sesa_lab.plots import collapse as plot
from sesa_lab.reports.run_notebooks import defaults
from sesa_lab.reports.run_notebooks import execute as run_notebook
from sesa_lab.training.loop import train

NOVELTY = {"update": {"repeats": "zero"}}
HAIR = Thresholds(slack={**Thresholds().slack, "breadth": 0.0}, patience=0.01, votes=1)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = Config.build(
        sampler={"group_size": 8, "max_tokens": 8},
        run={"steps": 8, "groups": 2, "evaluate_every": 2, "checkpoint_every": 4, "coverage_k": 8, "trackers": "none"},
    )
    return train(config, tmp_path_factory.mktemp("lab") / "parent <b>run")


def test_pairs_share_seed_and_checkpoint(parent: Path, tmp_path: Path) -> None:
    jobs = futures.futures(parent, tmp_path, NOVELTY, at=4, more=3, seeds=[0, 5])
    assert [(job.arm, job.seed) for job in jobs] == [("as-before", 0), ("revived", 0), ("as-before", 5), ("revived", 5)]
    assert {job.config.run.steps for job in jobs} == {7}
    assert {job.origin.step for job in jobs if job.origin} == {4}
    assert len({job.folder for job in jobs}) == 4
    before, revived = jobs[2], jobs[3]
    assert before.origin is not None and revived.origin is not None
    assert before.origin.changes == {"run": {"steps": 7, "seed": 5}}
    assert revived.origin.changes == {"run": {"steps": 7, "seed": 5}, "update": {"repeats": "zero"}}
    assert before.config.environment == revived.config.environment, "the treasures stay where they are"


def test_as_many_steps_as_the_run_was_to_take_from_its_last_checkpoint(parent: Path, tmp_path: Path) -> None:
    jobs = futures.futures(parent, tmp_path, NOVELTY)
    assert {job.config.run.steps for job in jobs} == {16}
    assert [job.seed for job in jobs] == [0, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"changes": {}}, "nothing is changed"),
        ({"changes": {"update": {"repeats": "environment"}}}, "nothing is changed"),
        ({"at": 3}, "no checkpoint of step 3; there are those of steps 0, 4, 8"),
        ({"more": 0}, "expected at least 1, got 0"),
        ({"seeds": [1, 1]}, "none twice"),
        ({"seeds": []}, "at least one seed"),
        ({"changes": {"sampler": {"expansions": 2}}}, "belongs to sampler.name = 'sesa'"),
        ({"changes": {"sampling": {}}}, "unknown config section 'sampling'"),
        ({"changes": {"run": {"evaluate_every": 1}}}, "nothing is changed"),
        ({"changes": {"sampler": {"temperature": 2.0}}}, "temperature cannot be changed here"),
    ],
)
def test_futures_that_cannot_be_are_refused(
    parent: Path, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        futures.futures(parent, tmp_path, **{"changes": NOVELTY, **arguments})
    assert not list(tmp_path.iterdir())


def test_how_a_run_is_taken_is_the_same_in_both_futures(parent: Path, tmp_path: Path) -> None:
    changes = {**NOVELTY, "run": {"evaluate_every": 1, "threads": 2}}
    before, revived = futures.futures(parent, tmp_path, changes, at=4)
    assert before.config.run == revived.config.run
    assert (before.config.run.evaluate_every, before.config.run.threads) == (1, 2)


def test_a_preset_gives_its_sampler_and_update_and_keeps_sizes() -> None:
    """From one preset to the other and back: nothing of the first is left that the second says otherwise, or says nothing of."""
    paper = Config.build(
        "paper", environment={"name": "countdown"}, sampler={"group_size": 8}, update={"learning_rate": 2e-4}
    )
    lab = paper.changed(**futures.of_preset("lab", paper))
    assert (lab.update.kl_coef, lab.update.entropy_coef, lab.sampler.drafting_form) == (0.0, 0.0, "list")
    assert (lab.sampler.on_policy_fraction, lab.update.transfer) == (0.75, "unsolved")
    assert (lab.sampler.group_size, lab.sampler.max_tokens) == (16, 32), "the preset names both"
    assert lab.update.learning_rate == 3e-4, "as the preset says"
    back = lab.changed(**futures.of_preset("paper", lab))
    assert (back.update.transfer, back.update.correction, back.sampler.drafting_form) == ("always", "none", "prompt")
    path_run = Config.build(None, sampler={"group_size": 8, "max_tokens": 8}, update={"learning_rate": 3e-4})
    found = path_run.changed(**futures.of_preset("lab", path_run))
    assert (found.sampler.name, found.sampler.group_size, found.sampler.max_tokens) == ("sequential", 8, 8)
    assert (found.update.correction, found.update.learning_rate) == ("asymmetric", 3e-4), "none is named: it stays"
    with pytest.raises(InputError, match="unknown preset 'best'"):
        futures.of_preset("best", paper)


@pytest.mark.slow
def test_the_command_makes_both_futures_and_compares_them(
    parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The future as before, with the run's own seed, is the run's own: its end is the run's end."""
    arguments = ["revive", str(parent), "--out", str(tmp_path / "two"), "--at", "4", "--more", "4", "--repeats", "zero"]
    assert cli.main([*arguments, "--workers", "2"]) == 0
    told = capsys.readouterr().out
    assert "as-before, seed 0:" in told and "revived, seed 0:" in told
    jobs = futures.futures(parent, tmp_path / "two", NOVELTY, at=4, more=4)
    own, before = (runs.load(folder) for folder in (parent, jobs[0].folder))
    columns = ["step", "accuracy", "coverage", "tokens_total"]
    pd.testing.assert_frame_equal(
        before.evaluations[columns], own.evaluations[own.evaluations["step"] >= 4][columns].reset_index(drop=True)
    )
    table = futures.compare(jobs)
    gained = runs.load(jobs[1].folder).evaluations["coverage"].iloc[-1] - own.evaluations["coverage"].iloc[-1]
    assert float(table.loc["coverage", "difference"].split()[0]) == pytest.approx(gained, abs=5e-3)
    assert "[" not in table.loc["coverage", "difference"], "one seed has no interval"
    assert "tokens" in table.index
    stamp = [folder.stat().st_mtime_ns for folder in (tmp_path / "two").iterdir()]
    assert cli.main(arguments) == 0
    assert [folder.stat().st_mtime_ns for folder in (tmp_path / "two").iterdir()] == stamp, "nothing is trained twice"
    looked = collapse_tables.look([job.folder for job in jobs])
    assert all(each.outcome is not None for each in looked)


@pytest.mark.slow
def test_what_became_of_a_future_is_told_with_its_past(parent: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(parent, tmp_path / "parent"))
    jobs = futures.futures(own, tmp_path / "two", NOVELTY, more=2)
    execute(jobs[:1], 1)
    seen = collapse_tables.look([jobs[0].folder])[0]
    child = runs.load(jobs[0].folder)
    joined = collapse_tables._with_past(child)
    assert joined["step"].tolist() == [0, 2, 4, 6, 8, 10]
    assert seen.outcome is not None
    assert seen.outcome.kept == pytest.approx(joined["coverage"].iloc[-1] / joined["coverage"].max())
    weights = own / "checkpoints" / "step-000008" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert collapse_tables._with_past(child)["step"].tolist() == [8, 10], "a past that is another's is left out"
    shutil.rmtree(own)
    assert collapse_tables._with_past(child)["step"].tolist() == [8, 10], "and so is one that is gone"


def test_runs_of_one_name_are_told_apart(parent: Path, tmp_path: Path) -> None:
    for place in "AB":
        shutil.copytree(parent, tmp_path / place / "s0")
    looked = collapse_tables.look([tmp_path / "A" / "s0", tmp_path / "B" / "s0"])
    assert collapse_tables.table(looked)["run"].tolist() == ["A/s0", "B/s0"]
    assert len(collapse_tables.figure(looked).data) == 2 * len(plot.NAMES)
    assert collapse_tables.table(looked[:1])["run"].tolist() == ["s0"]


@pytest.mark.slow
def test_a_switched_run_is_looked_at_as_it_was_watched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its own thresholds, and anew from the switch on: every alarm is one that was logged."""
    config = Config.build(
        sampler={"group_size": 8, "max_tokens": 8},
        run={"steps": 16, "groups": 2, "evaluate_every": 8, "coverage_k": 8, "trackers": "none"},
        watch={
            "on_alarm": "switch", "switch": {"sampler": "sequential", "repeats": "zero"},
            "alarm_slack": 0.0, "alarm_patience": 0.01, "alarm_votes": 1,
        },
    )  # fmt: skip
    run = runs.load(train(config, tmp_path / "run"))
    seen = collapse_tables.look([tmp_path / "run"])[0]
    assert [(alarm.step, alarm.onset) for alarm in seen.alarms] == list(
        zip(run.alarms["step"], run.alarms["onset"].astype(int), strict=True)
    )
    assert len(seen.alarms) > 1, "after the switch there was another"
    assert seen.signals["step"].tolist() == list(range(1, 17))
    assert cli.main(["collapse", str(tmp_path / "run"), "--plot", str(tmp_path / "no" / "x.html")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_the_collapse_command_prints_a_line_a_run(
    parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plotted = tmp_path / "signals.html"
    options = ["--alarm-slack", "0", "--alarm-patience", "0.01", "--alarm-votes", "1"]
    assert cli.main(["collapse", str(parent.parent), *options, "--plot", str(plotted)]) == 0
    told = capsys.readouterr().out
    assert "parent <b>run" in told
    looked = collapse_tables.look([parent], HAIR)[0]
    assert looked.alarms, "the first loss is one"
    assert f"{looked.alarms[0].step}" in told
    assert "<b>run" not in plotted.read_text().replace("\\u003c", "<"), "names of folders are escaped"
    assert cli.main(["collapse", str(tmp_path)]) == 2
    assert "no run folders" in capsys.readouterr().err


def test_the_figure_shows_signals_as_shares_of_their_best() -> None:
    table = pd.DataFrame({"step": [1, 2], **{f"{name}_loss": [0.0, 0.25] for name in plot.NAMES}})
    both = pd.concat([table.assign(run=f"<img onerror=x> {i}") for i in range(5)])
    figure = plot.signals(both, [("<img onerror=x> 1", 1, 2)])
    assert len(figure.data) == 5 * len(plot.NAMES)
    assert [float(y) for y in figure.data[0].y] == [1.0, 0.75]
    assert len(figure.layout.shapes) == 2, "the stretch and the alarm"
    assert "<img" not in figure.to_json()
    with pytest.raises(InputError, match="no column 'breadth_loss'"):
        plot.signals(table.drop(columns="breadth_loss").assign(run="a"), [])
    with pytest.raises(InputError, match="no runs to draw"):
        collapse_tables.figure([])


def test_a_run_without_a_step_has_nothing_to_draw(parent: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(parent, tmp_path / "run"))
    for kind in ("rollouts", "checkpoints"):
        shutil.rmtree(own / kind)
        (own / kind).mkdir()
    looked = collapse_tables.look([own])
    assert collapse_tables.table(looked)["steps"].tolist() == [0]
    with pytest.raises(InputError, match="has a committed step yet"):
        collapse_tables.figure(looked)


# --- the matrices -----------------------------------------------------------------------------------------------------


def test_the_detector_is_judged_on_seeds_it_was_not_tuned_on(tmp_path: Path) -> None:
    judged = collapse_lab.detector(tmp_path, collapse_lab.SEEDS, collapse_lab.STEPS)
    tuned = collapse_lab.tuning(tmp_path)
    assert not {job.seed for job in judged} & {job.seed for job in tuned}
    assert not {job.folder for job in judged} & {job.folder for job in tuned}
    first = [job for job in judged if job.folder.parent.name == "test"]
    assert len(first) == 60
    expected = {arm: rate for arm, rate in (*collapse_lab.COLLAPSING, *collapse_lab.HEALTHY)}
    assert {job.config.update.learning_rate for job in first} >= set(expected.values())
    tasks = {job.folder.parent.name: job.config.environment.name for job in judged}
    assert set(tasks.values()) == {"path_exploration", "countdown", "frozen_lake"}
    assert all(job.config.evaluation.test_tasks == 0 for job in judged), "the test split is left alone"


def test_the_rule_that_chose_the_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid of breadth by patience by votes, errors as given: what errs, or lies beside what errs, is not chosen."""
    points = [(b, p, v) for b in (0.1, 0.2, 0.3) for p in (0.5, 1.0, 2.0) for v in (1, 2)]
    found = pd.DataFrame(points, columns=["breadth", "patience", "votes"])
    found = found.assign(live=0.2, spread=0.5, entropy=0.5, smoothing=5.0, delay=1.0, errors_near=0)
    found["delay_high"] = 10.0 * found["breadth"] + found["patience"]
    found.loc[(found["breadth"] == 0.1) & (found["patience"] == 1.0), "errors_near"] = 1
    # patience 0.5 is the least, votes 1 too few; (0.1, 1.0) errs nearby; of the others (0.1, 2.0) and (0.2, 1.0) have 3.0
    found.loc[(found["breadth"] == 0.2) & (found["patience"] == 1.0), "delay"] = 0.5
    best = collapse_tuning.chosen(found)
    assert (best.slack["breadth"], best.patience, best.votes, best.smoothing) == (0.2, 1.0, 2, 5.0)


def test_the_grid_knows_its_neighbours(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        collapse_tuning, "GRID", {**{name: values[:1] for name, values in collapse_tuning.GRID.items()},
        "breadth": (0.0, 0.1, 0.9), "patience": (0.01, 50.0)},
    )  # fmt: skip
    monkeypatch.setattr(collapse_tuning, "_scores", lambda looked, row: {
        "collapsed": 1, "detected": int(row["breadth"] > 0.0), "healthy": 1, "false_alarms": 0, "delay": 0.0, "delay_high": 0.0,
    })  # fmt: skip
    found = collapse_tuning.grid([])
    assert found.set_index(["breadth", "patience"])["errors"].to_dict() == {
        (b, p): int(b == 0.0) for b in (0.0, 0.1, 0.9) for p in (0.01, 50.0)
    }
    assert found.groupby("breadth")["errors_near"].max().to_dict() == {0.0: 1, 0.1: 1, 0.9: 0}


def test_switching_is_compared_with_none_and_with_the_rule_from_the_start(tmp_path: Path) -> None:
    jobs = collapse_lab.switching(tmp_path, [0], 100)
    by_arm = {job.arm: job.config for job in jobs if job.folder.parent.name == "switch"}
    assert list(by_arm) == [*collapse_lab.SWITCHES, *collapse_lab.FROM_START]
    plain = by_arm["no switch"]
    for name in ("switch to novelty", "switch to sequential + novelty"):
        assert (by_arm[name].sampler, by_arm[name].update, by_arm[name].run) == (plain.sampler, plain.update, plain.run)
    later = by_arm["switch to sequential + novelty"].switched()
    best = path.named(path.BEST)[0].changes
    assert later.sampler.name == best["sampler"]["name"]
    assert all(getattr(later.update, name) == value for name, value in best["update"].items())
    start = by_arm["sequential + novelty from the start"]
    assert (start.sampler, start.update) == (later.sampler, later.update)
    novelty = by_arm["switch to novelty"].switched()
    assert (novelty.sampler, novelty.update) == (
        by_arm["novelty from the start"].sampler,
        by_arm["novelty from the start"].update,
    )


def test_detection_by_hand() -> None:
    rows = pd.DataFrame(
        {
            "task": ["a", "a", "b"],
            "outcome": ["collapsed", "healthy", "collapsed"],
            "kept": [0.2, 1.0, 0.3],
            "good": [5.0, np.nan, 10.0],
            "alarm": [12.0, np.nan, np.nan],
            "onset": [10.0, np.nan, 20.0],
        }
    )
    found = collapse_lab.detection(rows)
    assert found.loc["a", ["collapsed", "detected", "healthy", "false_alarms", "delay"]].tolist() == [1, 1, 1, 0, 2]
    assert found.loc["all", ["collapsed", "detected", "delay_high"]].tolist() == [2, 1, 2]


@pytest.mark.slow
def test_small_matrices_run_and_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collapse_lab, "TASKS", ())
    jobs = [job for job in collapse_lab.detector(tmp_path, [7], 6) if job.arm.startswith("parallel-count")][:1]
    switching = [job for job in collapse_lab.switching(tmp_path, [7, 8], 6) if job.folder.parent.name == "switch"]
    switching = [job for job in switching if job.arm in ("no switch", "novelty from the start")]
    execute([*jobs, *switching], 2)
    rows = collapse_lab.judged(jobs)
    assert rows[["task", "arm", "seed"]].to_numpy().tolist() == [["test", jobs[0].arm, 7]]
    assert set(rows["outcome"]) <= {"collapsed", "healthy", "neither"}
    ends = collapse_lab.ends(switching)
    shown = collapse_lab.switched(ends)
    assert shown.index.tolist() == [("switch", "no switch"), ("switch", "novelty from the start")]
    assert shown.loc[("switch", "no switch"), "coverage gained"].startswith("0")
    assert "(n=2)" in shown.loc[("switch", "novelty from the start"), "coverage gained"]


def test_what_switching_gained_by_hand() -> None:
    names = (*collapse_lab.SWITCHES, *collapse_lab.FROM_START)
    rows = pd.DataFrame(
        [
            {
                "place": "switch", "arm": arm, "seed": seed, "alarm": 40.0 if i < 5 else np.nan, "accuracy": 0.9 - 0.1 * (i == 1),
                "coverage": 1.0 + i + 0.1 * seed * i, "tokens_total": 100.0,
            }
            for i, arm in enumerate(names)
            for seed in (0, 1)
        ]
    )  # fmt: skip
    # arm i gains i and 1.1 i over arm 0, seeds 0 and 1: mean 1.05 i, half width t(1) 0.05 i = 12.7062 x 0.05 i = 0.635 i
    assert collapse_lab.gained(rows, "switch", names[2], "coverage") == pytest.approx(
        (2.1, 0.8294, 3.3706, 2), abs=1e-4
    )
    shown = collapse_lab.switched(rows)
    assert shown.loc[("switch", "no switch"), "alarm at steps"] == "40 to 40, 2 of 2 runs"
    assert shown.loc[("switch", names[5]), "alarm at steps"] == ""
    told = collapse_lab.conclusion(rows)
    # arm 1: 1.05 more coverage, interval above 0; 0.1 less accuracy in both seeds
    assert "A switch to novelty changes coverage by 1.05 [0.41, 1.69] (n=2): more" in told
    assert "accuracy by -0.1" in told and ": less against no switch" in told
    assert "raised in 2 of 2 runs" in told
    one = collapse_lab.conclusion(rows[rows["seed"] == 0])
    assert "more" not in one and "of one seed" in one


NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "09_collapse_lab.ipynb"


def test_the_notebooks_table_is_there_and_whole() -> None:
    """86 runs, those of the stage; none of a tuning seed."""
    known = defaults(NOTEBOOK)
    rows = pd.read_csv((NOTEBOOK.parent / known["results"]).resolve())
    jobs = collapse_lab.detector(Path("runs"), collapse_lab.SEEDS, collapse_lab.STEPS)
    expected = [(job.folder.parent.name, job.arm, job.seed) for job in jobs]
    assert list(rows[["task", "arm", "seed"]].itertuples(index=False, name=None)) == expected
    found = collapse_lab.detection(rows).loc["all"]
    assert found["collapsed"] >= 20 and found["healthy"] >= 20


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    small = {
        "seeds": [0],
        "steps": 6,
        "more": 2,
        "policies": ["countdown-habit"],
        "tasks": 2,
        "runs": str(tmp_path / "runs"),
    }
    out = run_notebook(NOTEBOOK, tmp_path / "out.ipynb", small)
    said = out.read_text()
    assert "Signals of collapse" in said and "as before" in said and "changes coverage by" in said
