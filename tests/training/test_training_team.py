"""Several processes under `accelerate launch`: the update of one process at the same global batch."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sesa_lab import environments, runs
from sesa_lab.config import Config
from sesa_lab.errors import InputError
from sesa_lab.team import ALONE, Team
from sesa_lab.training.loop import Trainer, resume, train

SESA = {
    "environment": {"name": "countdown", "options": {"hard": "half"}},
    "policy": {"model": "countdown-habit"},
    "sampler": {"name": "sesa", "group_size": 8, "max_tokens": 16, "sketch_tokens": 12, "on_policy_fraction": 0.5},
    "update": {
        "conditioning": "task+sketch", "correction": "positive_only", "correction_scope": "off_policy", "repeats": "zero",
        "train_sketches": "mean", "minibatches": 2, "epochs": 2, "learning_rate": 3e-4,
    },
    "run": {"steps": 3, "groups": 6, "evaluate_every": 3, "checkpoint_every": 1},
    "evaluation": {"eval_tasks": 5, "eval_samples": 8},
}  # fmt: skip
PARALLEL = {
    "environment": {"name": "sokoban"},
    "policy": {"model": "sokoban-habit"},
    "sampler": {"group_size": 4, "max_tokens": 26},
    "update": {"kl_coef": 0.01, "entropy_coef": 0.001, "loss": "grpo", "learning_rate": 3e-4},
    "run": {"steps": 2, "groups": 4, "evaluate_every": 2, "checkpoint_every": 2},
    "evaluation": {"eval_tasks": 2, "eval_samples": 4},
}
EXACT = 1e-6
"""By how much a weight may differ after one update: Adam divides a gradient by its size, and so makes much of rounding errors in
one that is close to 0."""
TIMES = {"seconds_draw", "seconds_score", "seconds_update", "seconds_total", "peak_memory_mb"}


def launch(processes: int, *arguments: str) -> None:
    """`accelerate launch` of the command line, on CPUs by gloo."""
    start(processes, ["--multi_gpu"], "-m", "sesa_lab.cli", *arguments)


def start(processes: int, how: list[str], *arguments: str) -> None:
    command = [
        sys.executable, "-m", "accelerate.commands.launch", *how, "--num_machines=1", f"--num_processes={processes}",
        "--num_cpu_threads_per_process=1", "--mixed_precision=no", "--dynamo_backend=no",
        "--main_process_port=0", *arguments,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "ACCELERATE_USE_CPU": "true"})
    assert done.returncode == 0, done.stderr[-3000:]


def updates(config: Config, steps: int) -> int:
    return steps * config.update.epochs * config.update.minibatches


def weights(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / f"step-{step:06d}" / "adapter_model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("settings", [SESA, PARALLEL], ids=["sesa", "parallel"])
def test_two_processes_take_the_steps_of_one(settings: dict[str, Any], tmp_path: Path) -> None:
    config = Config.build(**settings)
    train(config, tmp_path / "one")
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    launch(2, "train", "--config", str(tmp_path / "config.json"), "--out", str(tmp_path / "two"))
    one, two = runs.load(tmp_path / "one"), runs.load(tmp_path / "two")
    assert (one.environment["processes"], two.environment["processes"]) == (1, 2)
    last = config.run.steps
    begun = weights(one.path, 0)
    for name, weight in weights(one.path, last).items():
        torch.testing.assert_close(weights(two.path, last)[name], weight, rtol=0, atol=EXACT * updates(config, last))
        assert (weight - begun[name]).abs().max() > 1e-4  # there was something to differ in
    for mine, other in ((one.steps, two.steps), (one.evaluations, two.evaluations)):
        kept = [name for name in mine.columns if name not in TIMES]
        assert list(mine.columns) == list(other.columns)
        torch.testing.assert_close(
            torch.tensor(mine[kept].to_numpy(float)), torch.tensor(other[kept].to_numpy(float)),
            rtol=1e-4, atol=1e-5, equal_nan=True,
        )  # fmt: skip
    assert one.rollouts["completion"].tolist() == two.rollouts["completion"].tolist()
    assert one.rollouts["group"].tolist() == two.rollouts["group"].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("settings", [SESA, PARALLEL], ids=["sesa", "parallel"])
def test_base_weights_spread_over_two_processes_change_nothing(settings: dict[str, Any], tmp_path: Path) -> None:
    config = Config.build(**settings, engine={"name": "server"}).changed(update={"micro_batch": 5})
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    process = str(Path(__file__).with_name("team_process.py"))
    command = [sys.executable, process, str(tmp_path / "config.json"), str(tmp_path / "one"), "whole"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    start(
        2, ["--use_fsdp", "--fsdp_version=2"], process, str(tmp_path / "config.json"), str(tmp_path / "two"), "sharded"
    )
    one, two = tmp_path / "one", tmp_path / "two"
    last = config.run.steps
    for name, weight in weights(one, last).items():
        torch.testing.assert_close(weights(two, last)[name], weight, rtol=0, atol=EXACT * updates(config, last))
        assert (weight - weights(one, 0)[name]).abs().max() > 1e-4
    assert runs.load(one).rollouts["completion"].tolist() == runs.load(two).rollouts["completion"].tolist()


def test_engines_without_the_whole_model_are_refused() -> None:
    with pytest.raises(InputError, match=r"engine.name = 'torch' with --use_fsdp: no process has the whole model"):
        Trainer(Config.build(**SESA), team=Team(0, 2, sharded=True))


@pytest.mark.slow
def test_a_run_of_two_processes_is_resumed_by_one_and_by_two(tmp_path: Path) -> None:
    config = Config.build(**SESA)
    train(config, tmp_path / "whole")
    half = config.changed(run={"steps": 2})
    for name, processes in (("by-one", 1), ("by-two", 2)):
        train(half, tmp_path / name)
        (tmp_path / name / "config.json").write_text(json.dumps(config.to_dict()))
        if processes == 1:
            resume(tmp_path / name)
        else:
            launch(processes, "resume", str(tmp_path / name))
        for key, weight in weights(tmp_path / "whole", 3).items():
            torch.testing.assert_close(
                weights(tmp_path / name, 3)[key], weight, rtol=0, atol=EXACT * updates(config, 1)
            )


def test_groups_are_dealt_out_in_one_stretch_each() -> None:
    for size in (1, 2, 3, 5):
        for count in (0, 1, 4, 7):
            shares = [Team(rank, size).share(count) for rank in range(size)]
            assert [i for share in shares for i in share] == list(range(count))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_groups_that_cannot_be_dealt_out_evenly_are_refused() -> None:
    config = Config.build(**SESA)
    with pytest.raises(
        InputError, match=r"run.groups = 6 cannot be dealt out to 4 processes evenly; choose a multiple of 4"
    ):
        Trainer(config, team=Team(0, 4))


def test_vllm_in_each_of_several_processes_is_refused() -> None:
    config = Config.build(**SESA, engine={"name": "vllm"})
    with pytest.raises(InputError, match="start one server"):
        Trainer(config, team=Team(0, 2))


@pytest.mark.parametrize("name", ["countdown", "frozen_lake", "sokoban"])
def test_an_episode_can_be_sent_to_another_process(name: str) -> None:
    environment = environments.make(name, preset="paper")
    episode = environment.step(environment.reset(environment.task(0)), "up")
    assert ALONE.gather([episode]) == [episode]
    assert pickle.loads(pickle.dumps(episode)) == episode


def test_alone_nothing_is_waited_for() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.ones(2)
    ALONE.sum_gradients([parameter])
    assert parameter.grad.tolist() == [1.0, 1.0]
    assert ALONE.gather([1, 2]) == [1, 2]
    assert ALONE.sum_counts({"a": 1}) == {"a": 1}
    ALONE.wait()
