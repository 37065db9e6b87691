"""Watching, switching and reviving on the shipped lab policy: what follows an alarm, and that nothing depends on interruptions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sesa_lab import runs
from sesa_lab.collapse import COLUMNS, SIGNALS, Detector, detect, of_rollouts
from sesa_lab.config import Config
from sesa_lab.errors import InputError
from sesa_lab.experiments.futures import futures
from sesa_lab.runs import RunWriter, lineage
from sesa_lab.training.loop import Trainer, resume, revive, train
from sesa_lab.training.watch import Watch, thresholds

CLOCK = ("seconds_draw", "seconds_score", "seconds_update", "seconds_total", "peak_memory_mb")
STEPS = 14
SWITCH = {"sampler": "sequential", "repeats": "zero", "correction": "asymmetric", "learning_rate": 2e-3}
HAIR = {"alarm_slack": 0.0, "alarm_patience": 0.01, "alarm_votes": 1}
"""The first loss after the warm-up is an alarm: these tests need one soon, not a collapse."""


def settings(**watch: Any) -> Config:
    return Config.build(
        sampler={"group_size": 8, "max_tokens": 8},
        update={"learning_rate": 1e-3},
        run={
            "steps": STEPS,
            "groups": 2,
            "evaluate_every": 4,
            "checkpoint_every": 5,
            "coverage_k": 8,
            "trackers": "none",
        },
        watch=watch,
    )


def lines(path: Path, after: int = -1) -> list[dict[str, Any]]:
    """metrics.jsonl without times."""
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in CLOCK} for row in rows if row["step"] > after]


def same_end(a: Path, b: Path) -> None:
    """The last checkpoints' adapters are equal bit for bit."""
    one, two = (load_file(runs.load(p).checkpoints[-1][1] / "adapter_model.safetensors") for p in (a, b))
    assert one.keys() == two.keys()
    assert all(one[name].equal(two[name]) for name in one)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(settings(), tmp_path_factory.mktemp("watch") / "plain")


@pytest.fixture(scope="module")
def switched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(settings(on_alarm="switch", switch=SWITCH, **HAIR), tmp_path_factory.mktemp("watch") / "switched")


@pytest.mark.slow
def test_after_the_alarm_training_goes_on_with_the_other_settings(switched: Path, plain: Path) -> None:
    run = runs.load(switched)
    first = run.alarms.iloc[0]
    step = int(first["step"])
    assert 5 < step < STEPS - 1
    assert first["action"] == "switch"
    assert "breadth" in first["down"].split("+")
    assert step in [number for number, _ in run.checkpoints], "a checkpoint is kept"
    kinds = run.rollouts.groupby("step")["drawn_under"].agg(set)
    assert all(kinds[s] == {"task"} for s in range(1, step + 1))
    assert all("history" in kinds[s] for s in range(step + 1, STEPS + 1))
    assert (run.alarms["action"].iloc[1:] == "snapshot").all(), "it switches once"
    before = [row for row in lines(switched) if row["step"] <= step and row["kind"] != "alarm"]
    assert before == [row for row in lines(plain) if row["step"] <= step], "until then nothing is different"


@pytest.mark.slow
def test_the_alarm_is_what_the_stored_candidates_give(switched: Path) -> None:
    run = runs.load(switched)
    step = int(run.alarms["step"].iloc[0])
    entropy = dict(zip(run.steps["step"], run.steps["entropy"], strict=True))
    signals = of_rollouts(run.read_rollouts(list(COLUMNS)), True, entropy)
    found = detect(signals[signals["step"] <= step], thresholds(run.config.watch))[0]
    assert [(alarm.step, alarm.onset) for alarm in found] == [(step, int(run.alarms["onset"].iloc[0]))]
    assert found[0].loss["breadth"] == pytest.approx(run.alarms["breadth_loss"].iloc[0], abs=0.0)


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["before the alarm", "at the alarm", "after it"])
def test_a_watched_run_ends_the_same_wherever_it_is_resumed(switched: Path, tmp_path: Path, kept: str) -> None:
    step = int(runs.load(switched).alarms["step"].iloc[0])
    last = {"before the alarm": 5, "at the alarm": step, "after it": 10 if step < 10 else STEPS}[kept]
    copy = Path(shutil.copytree(switched, tmp_path / "copy"))
    for number, folder in runs.load(copy).checkpoints:
        if number > last:
            shutil.rmtree(folder)
    resume(copy)
    assert lines(copy) == lines(switched)
    same_end(copy, switched)
    assert runs.load(copy).rollouts.equals(runs.load(switched).rollouts)


@pytest.mark.slow
@pytest.mark.parametrize("action", ["report", "snapshot"])
def test_watching_changes_nothing_of_a_run(plain: Path, tmp_path: Path, action: str) -> None:
    watched = train(settings(on_alarm=action, **HAIR), tmp_path / "watched")
    run = runs.load(watched)
    assert set(run.alarms["action"]) == {action}
    assert [row for row in lines(watched) if row["kind"] != "alarm"] == lines(plain)
    steps = {number for number, _ in run.checkpoints} - {0, 5, 10, STEPS}
    assert (steps == set(run.alarms["step"]) - {5, 10, STEPS}) == (action == "snapshot") or not steps
    assert bool(steps) == (action == "snapshot")


@pytest.mark.slow
def test_a_revived_run_with_the_same_settings_is_the_run_itself(plain: Path, tmp_path: Path) -> None:
    origin = lineage.find(plain, 5, {})
    child = revive(runs.load(plain).config, origin, tmp_path / "child")
    own = [row for row in lines(plain) if row["step"] > 5]
    assert [row for row in lines(child) if row["step"] > 5] == own
    same_end(child, plain)
    assert runs.load(child).lineage == origin
    assert runs.load(child).checkpoints[0][0] == 5


@pytest.mark.slow
def test_another_future_begins_with_the_same_policy(plain: Path, tmp_path: Path) -> None:
    update = {"repeats": "zero", "correction": "asymmetric", "learning_rate": 2e-3}
    config = settings().changed(sampler={"name": "sequential"}, update=update, run={"steps": 8})
    child = revive(config, lineage.find(plain, 5, {"sampler": {"name": "sequential"}}), tmp_path / "child")
    same_start = (
        load_file(runs.load(p).checkpoints[i][1] / "adapter_model.safetensors") for p, i in ((plain, 1), (child, 0))
    )
    one, two = same_start
    assert all(one[name].equal(two[name]) for name in one)
    run = runs.load(child)
    assert run.steps["step"].tolist() == [6, 7, 8]
    parent = runs.load(plain)
    before = parent.steps.set_index("step")
    assert run.evaluations["tokens_total"].iloc[0] == before.loc[5, "tokens_total"], "what its past cost is counted"
    assert run.steps["found"].iloc[0] >= before.loc[5, "found"]
    grandchild = lineage.find(child, None, {})
    assert grandchild.step == 8
    assert [past["step"] for past in grandchild.before] == [5]


@pytest.mark.slow
def test_killed_before_its_first_checkpoint_a_revived_run_begins_again(plain: Path, tmp_path: Path) -> None:
    origin = lineage.find(plain, 5, {})
    config = runs.load(plain).config
    with RunWriter.create(tmp_path / "child", config, runs.load(plain).prompts, origin):
        pass  # what is there when it is killed now
    resume(tmp_path / "child")
    assert [row for row in lines(tmp_path / "child") if row["step"] > 5] == [
        row for row in lines(plain) if row["step"] > 5
    ]


def rate(folder: Path) -> float:
    """Adam's step size as a checkpoint has it."""
    return float(torch.load(folder / "optimizer.pt", weights_only=True)["param_groups"][0]["lr"])


@pytest.mark.slow
def test_the_step_size_goes_with_the_settings(switched: Path, plain: Path, tmp_path: Path) -> None:
    checkpoints = dict(runs.load(switched).checkpoints)
    step = int(runs.load(switched).alarms["step"].iloc[0])
    assert {number: rate(folder) for number, folder in checkpoints.items()} == {
        number: 1e-3 if number < step else 2e-3 for number in checkpoints
    }
    trainer = Trainer(settings(on_alarm="switch", switch=SWITCH, **HAIR), checkpoints[STEPS])
    assert trainer.optimiser.param_groups[0]["lr"] == trainer.config.update.learning_rate == 2e-3
    trainer.close()
    other = Trainer(settings().changed(update={"learning_rate": 5e-4}), runs.load(plain).checkpoints[1][1], anew=True)
    assert other.optimiser.param_groups[0]["lr"] == 5e-4, "not that of the run it comes from"
    other.close()


@pytest.mark.slow
@pytest.mark.parametrize("at", ["before the switch", "after it"])
def test_the_future_as_before_of_a_switched_run_is_its_own(switched: Path, tmp_path: Path, at: str) -> None:
    """Settings, and what the detector had seen, are those at the checkpoint: it switches at the same step, or has done."""
    begin = 5 if at == "before the switch" else 10
    jobs = futures(switched, tmp_path, {"update": {"entropy_coef": 0.1}}, begin, STEPS - begin)
    before, revived = jobs[0], jobs[1]
    assert before.config.sampler.name == ("parallel" if begin == 5 else "sequential")
    assert before.origin is not None and not before.origin.otherwise
    assert revived.origin is not None and revived.origin.changes == {"update": {"entropy_coef": 0.1}}
    child = revive(before.config, before.origin, before.folder)
    assert lines(child, after=begin) == lines(switched, after=begin)
    same_end(child, switched)


@pytest.mark.slow
def test_a_switch_of_temperature_leaves_the_ruler_as_it_is(tmp_path: Path) -> None:
    """A policy that hardly changes is judged alike before and after, though it is drawn from otherwise."""
    still = {"learning_rate": 1e-9}
    config = settings(on_alarm="switch", switch={"temperature": 3.0}, **HAIR).changed(update=still)
    run = runs.load(train(config, tmp_path / "hot"))
    assert run.alarms["action"].iloc[0] == "switch"
    assert run.evaluations["accuracy"].to_numpy() == pytest.approx(run.evaluations["accuracy"].iloc[0], rel=1e-3)
    step = int(run.alarms["step"].iloc[0])
    entropy = run.steps.set_index("step")["entropy"]
    assert entropy[step + 1 :].min() > 1.2 * entropy[:step].max(), "hotter from the step after the alarm on"


def test_what_may_be_switched_to_is_checked_before_the_run() -> None:
    config = settings(on_alarm="switch", switch={"sampler": "sesa", "sketch_scope": "turn"})
    with pytest.raises(InputError, match="'turn' makes no sense with environment path_exploration"):
        Trainer(config)
    with pytest.raises(InputError, match="exceeds the model's 2048"):
        Trainer(settings(on_alarm="switch", switch={"sampler": "sequential", "max_tokens": 5000}))


@pytest.mark.slow
def test_a_revived_run_needs_a_step_to_take_and_a_whole_checkpoint(plain: Path, tmp_path: Path) -> None:
    parent = Path(shutil.copytree(plain, tmp_path / "parent"))
    origin = lineage.find(parent, 5, {})
    with pytest.raises(InputError, match="expected more than the checkpoint's 5"):
        revive(settings().changed(run={"steps": 5}), origin, tmp_path / "child")
    optimizer = origin.folder / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:100])
    with pytest.raises(InputError, match=r"damaged: .*optimizer\.pt"):
        revive(settings(), origin, tmp_path / "child")
    assert not (tmp_path / "child").exists()


@pytest.mark.slow
def test_a_changed_or_missing_origin_is_told(plain: Path, tmp_path: Path) -> None:
    parent = Path(shutil.copytree(plain, tmp_path / "parent"))
    origin = lineage.find(parent, 5, {})
    with RunWriter.create(tmp_path / "child", runs.load(parent).config, None, origin):
        pass
    weights = origin.folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="is damaged"):
        resume(tmp_path / "child")
    shutil.rmtree(origin.folder)
    with pytest.raises(InputError, match=r"no checkpoint at .*step-000005"):
        resume(tmp_path / "child")
    with pytest.raises(InputError, match=r"no checkpoint of step 5; there are those of steps 0, 10, 14"):
        lineage.find(parent, 5, {})


def test_nobody_watches_by_default() -> None:
    watch = Watch(settings())
    assert watch.look(1, [], 0.0) is None
    assert watch.state()["detector"]["seen"] == 0


def test_what_a_watch_has_seen_is_restored() -> None:
    config, detector = settings(on_alarm="report"), Detector(thresholds(settings(on_alarm="report").watch))
    for step in range(1, 12):
        detector.update(step, {**dict.fromkeys(SIGNALS, 1.0), "breadth": 4.0 / step})
    watch = Watch(config)
    watch.restore({"switched": 3, "detector": detector.state()}, config)
    assert watch.state() == {"switched": 3, "detector": detector.state()}


@pytest.mark.parametrize(
    ("watch", "message"),
    [
        ({"on_alarm": "switch"}, "needs watch.switch"),
        ({"on_alarm": "report", "switch": SWITCH}, "belongs to watch.on_alarm = 'switch'"),
        ({"alarm_votes": 3}, "nobody watches"),
        ({"switch": SWITCH}, "nobody watches"),
        ({"on_alarm": "switch", "switch": {"steps": 3}}, r"run\.steps cannot change on the way"),
        (
            {"on_alarm": "switch", "switch": {"sampler": "serial"}},
            r"watch\.switch = .*sampler\.name = 'serial' is unknown",
        ),
        ({"on_alarm": "switch", "switch": {"expansions": 2}}, r"watch\.switch = .*belongs to sampler\.name = 'sesa'"),
        ({"on_alarm": "switch", "switch": {"sampla": "sesa"}}, r"unknown setting 'sampla'"),
    ],
)
def test_a_watch_that_makes_no_sense_is_refused(watch: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        settings(**watch)


def test_after_the_switch_there_is_no_further_one() -> None:
    later = settings(on_alarm="switch", switch=SWITCH).switched()
    assert (later.sampler.name, later.update.learning_rate) == ("sequential", 2e-3)
    assert (later.watch.on_alarm, later.watch.switch) == ("snapshot", {})
    assert later.run == settings().run
