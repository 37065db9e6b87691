"""Matrices of runs: folders named after their content, run where missing, failures told apart."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_models

from sesa_lab import runs
from sesa_lab.config import Config
from sesa_lab.errors import InputError
from sesa_lab.experiments import jobs as module
from sesa_lab.experiments import path_exploration as arms
from sesa_lab.experiments import stages
from sesa_lab.experiments.jobs import Job, execute
from sesa_lab.experiments.matrix import Arm, digest, jobs_for, read

ARMS = [Arm("parallel"), Arm("sequential", {"sampler": {"name": "sequential"}})]
BASE = {"sampler": {"group_size": 3}, "run": {"steps": 2, "groups": 2}, "environment": {"options": {"n_treasures": 5}}}


def test_one_job_an_arm_and_seed_paired_by_treasures(tmp_path: Path) -> None:
    jobs = jobs_for(ARMS, [0, 7], BASE, tmp_path)
    assert [(job.arm, job.seed) for job in jobs] == [
        ("parallel", 0), ("sequential", 0), ("parallel", 7), ("sequential", 7),
    ]  # fmt: skip
    for job in jobs:
        assert job.config.run.seed == job.config.environment.options["seed"] == job.seed
        assert job.config.environment.options["n_treasures"] == 5
        assert job.config.sampler.name == job.arm and job.config.sampler.group_size == 3
        assert job.folder == tmp_path / f"{job.arm}-s{job.seed}-{digest(job.config)}"
    assert BASE["environment"]["options"] == {"n_treasures": 5}, "what was given is not changed"


@pytest.mark.parametrize(
    "changes", [{"update": {"learning_rate": 2e-3}}, {"environment": {"options": {"n_treasures": 6}}}]
)
def test_another_setting_is_another_folder(tmp_path: Path, changes: dict) -> None:
    first = jobs_for(ARMS, [0], BASE, tmp_path)
    assert jobs_for(ARMS, [0], BASE, tmp_path) == first
    other = jobs_for(ARMS, [0], {**BASE, **changes}, tmp_path)
    assert not {job.folder for job in first} & {job.folder for job in other}


def test_a_digest_is_of_the_content_not_of_the_order() -> None:
    left = Config.build(environment={"options": {"a": 1, "b": 2}})
    right = Config.build(environment={"options": {"b": 2, "a": 1}})
    assert digest(left) == digest(right) and len(digest(left)) == 8
    assert digest(left) != digest(Config())


def test_a_digest_knows_the_run_a_policy_starts_from_wherever_it_lies() -> None:
    def started(path: str) -> str:
        return digest(Config.build(policy={"adapter": path}))

    assert started("/a/run-1/checkpoints/step-000150") == started("../b/run-1/checkpoints/step-000150")
    assert started("/a/run-1/checkpoints/step-000150") != started("/a/run-2/checkpoints/step-000150")
    assert started("/a/run-1/checkpoints/step-000150") != started("/a/run-1/checkpoints/step-000100")
    assert started("") == digest(Config())


def test_a_digest_knows_what_prompts_say_wherever_they_lie(tmp_path: Path) -> None:
    def asked(name: str, text: str) -> str:
        (tmp_path / name / "chat").mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "chat" / "answer.txt").write_text(text)
        return digest(Config.build(policy={"prompts": str(tmp_path / name)}))

    first = asked("a", "{task}!")
    assert first == asked("b", "{task}!\n"), "the same text elsewhere"
    assert len({first, asked("a", "{task}?"), digest(Config())}) == 3
    with pytest.raises(InputError, match="no folder there"):
        digest(Config.build(policy={"prompts": str(tmp_path / "none")}))


def test_ambiguous_matrices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="distinct names"):
        jobs_for([*ARMS, Arm("parallel")], [0], BASE, tmp_path)
    for seeds in ([], [1, 1]):
        with pytest.raises(InputError, match="at least one seed and none twice"):
            jobs_for(ARMS, seeds, BASE, tmp_path)
    with pytest.raises(InputError, match="unknown option"):
        jobs_for([Arm("odd", {"update": {"rate": 1}})], [0], BASE, tmp_path)


@pytest.mark.parametrize("matrix", [arms.factorial(), arms.search()], ids=["factorial", "search"])
def test_the_experiments_matrices_make_sense(matrix: list[Arm], tmp_path: Path) -> None:
    jobs = jobs_for(matrix, [0], arms.BASE, tmp_path)
    configs = [job.config for job in jobs]
    assert all(left != right for i, left in enumerate(configs) for right in configs[:i]), "no arm is run twice"
    assert len({(c.run.steps, c.run.groups, c.sampler.group_size) for c in configs}) == 1, "equal candidates"


@pytest.mark.parametrize("name", stages.STAGES)
def test_every_stage_has_jobs_in_folders_of_their_own(name: str, tmp_path: Path) -> None:
    stage = stages.STAGES[name]
    jobs = [*stage.first(tmp_path, [0, 1], 3), *stage.jobs(tmp_path, [0, 1], 3)]
    assert len({job.folder for job in jobs}) == len(jobs) > 0
    assert all(job.config.run.steps == (0 if job.arm == "base" else 3) for job in jobs)


def test_an_unknown_stage_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown stage 'all'; known: search"):
        stages.run("all", tmp_path, [0], 1)


def test_missing_and_unfinished_runs_are_not_read(tmp_path: Path) -> None:
    jobs = jobs_for(ARMS[:1], [0], BASE, tmp_path)
    with pytest.raises(InputError, match="no run folder at"):
        read(jobs)
    with runs.RunWriter.create(jobs[0].folder, jobs[0].config):
        pass
    with pytest.raises(InputError, match="is unfinished; run the experiment again"):
        read(jobs)


def forbidden(*_: object) -> None:
    raise AssertionError("nothing was left to run")


@pytest.mark.slow
def test_what_is_missing_is_run_once_and_failures_do_not_stop_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = {**BASE, "policy": {"device": "cpu"}}
    good = jobs_for(ARMS, [0], base, tmp_path)
    bad = jobs_for([Arm("bad", {"policy": {"adapter": str(tmp_path / "nowhere")}})], [0], base, tmp_path)
    with pytest.raises(
        InputError, match=r"1 of 3 runs failed, the others are kept; first: .*bad-s0-.*nowhere"
    ) as caught:
        execute([good[0], bad[0], good[1]], workers=2)
    assert "run the same command again" in str(caught.value) and "Traceback" not in str(caught.value)
    assert not bad[0].folder.exists()

    monkeypatch.setattr(module, "ProcessPoolExecutor", forbidden)
    execute(good, workers=2)
    table, loaded = read(good)
    assert [run.path for run in loaded] == [job.folder for job in good]
    assert set(zip(table["arm"], table["seed"], table["step"], strict=True)) == {
        (arm, 0, step) for arm in ("parallel", "sequential") for step in (0, 2)
    }
    with pytest.raises(InputError, match="no run folder at"):
        read([*good, *bad])


@pytest.mark.slow
def test_a_worker_gives_what_this_process_gives(tmp_path: Path) -> None:
    from sesa_lab.training.loop import train

    folder = tiny_models.save_model(tmp_path / "model", max_position_embeddings=4096, num_hidden_layers=1)
    options = {"branching": "2x2", "n_treasures": 2}
    config = Config.build(
        environment={"options": options},
        policy={"model": str(folder), "device": "cpu"},
        sampler={"group_size": 3, "max_tokens": 4},
        run={"steps": 2, "groups": 2},
    )
    execute([Job("one", 0, config, tmp_path / "there")], workers=1)
    there, here = runs.load(tmp_path / "there"), runs.load(train(config, tmp_path / "here"))
    ours, theirs = (run.evaluations.drop(columns="seconds_total") for run in (there, here))
    assert ours.equals(theirs)
    assert (
        there.rollouts.drop(columns=["token_ids"])
        .astype(str)
        .equals(here.rollouts.drop(columns=["token_ids"]).astype(str))
    )


@pytest.mark.slow
def test_an_interrupt_begins_nothing_more(tmp_path: Path) -> None:
    jobs = jobs_for([Arm("parallel", {})], list(range(8)), {"run": {"steps": 3}}, tmp_path)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(jobs, workers=1, watch=stop)
    begun = [job for job in jobs if job.folder.exists()]
    assert len(begun) < len(jobs)
    time.sleep(3)  # a pool that went on would begin the next ones
    assert [job for job in jobs if job.folder.exists()] == begun


def test_a_worker_that_began_after_its_parent_was_killed_stops_too() -> None:
    """It took the parent's number when it began: of a parent killed before that, the number of whoever adopts orphans."""
    code = "from sesa_lab.experiments import jobs; jobs._initialise(None, -1); import time; time.sleep(60)"
    assert subprocess.run([sys.executable, "-c", code], timeout=50, check=False).returncode == 1
