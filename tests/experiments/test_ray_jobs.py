"""A matrix of runs on a real Ray cluster of two nodes: what comes back is what this machine alone gives, whatever was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from tenacity import Retrying, stop_after_attempt

import sesa_lab
from sesa_lab import runs
from sesa_lab.config import Config
from sesa_lab.errors import InputError
from sesa_lab.experiments import ray_jobs, ray_worker, stored_owner
from sesa_lab.experiments.jobs import Job, execute
from sesa_lab.experiments.ray_jobs import execute_on_ray
from sesa_lab.experiments.ray_shipping import Dispatch
from sesa_lab.experiments.stored_owner import OWNER, owner
from sesa_lab.experiments.stored_runs import MANIFEST
from sesa_lab.runs.lineage import find
from sesa_lab.training.loop import resume, revive, train


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a cluster of a head and one more node, a CPU each; nobody else can send it work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
        for attempt in Retrying(
            stop=stop_after_attempt(3), reraise=True
        ):  # Ray gives a node 30 s, on a busy machine too
            with attempt:
                made = Cluster(initialize_head=True, head_node_args=node)
        try:
            for attempt in Retrying(stop=stop_after_attempt(3), reraise=True):
                with attempt:
                    made.add_node(num_cpus=1, object_store_memory=80_000_000)
            yield made.address
        finally:
            made.shutdown()


@pytest.fixture(scope="module")
def connected(cluster: str) -> Iterator[str]:
    """The same, and this process stays connected: its workers, which have torch loaded, serve one test after another."""
    import ray

    ray.init(address=cluster, log_to_driver=False, logging_level="warning")
    yield cluster
    ray.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save_model(
        tmp_path_factory.mktemp("policy") / "model", max_position_embeddings=4096, num_hidden_layers=1
    )


def config(model: Path, seed: int = 0, steps: int = 4, **sections: Any) -> Config:
    given: dict[str, Any] = {
        "environment": {"options": {"branching": "2x2", "n_treasures": 2}},
        "policy": {"model": str(model), "device": "cpu"},
        "sampler": {"group_size": 3, "max_tokens": 4},
        "run": {"steps": steps, "groups": 2, "seed": seed, "checkpoint_every": 2, "evaluate_every": 2},
    }
    return Config.build(None, **{name: {**given.get(name, {}), **sections.get(name, {})} for name in given | sections})


def job(folder: Path, name: str, config: Config) -> Job:
    return Job(name, config.run.seed, config, folder / "matrix" / f"{name}-s{config.run.seed}")


def moved(jobs: list[Job], folder: Path) -> list[Job]:
    return [replace(job, folder=folder / "matrix" / job.folder.name) for job in jobs]


def assert_equal_runs(found: Path, wanted: Path) -> None:
    """All but clocks and memory."""
    ours, theirs = runs.load(found), runs.load(wanted)
    assert ours.finished and ours.config == theirs.config
    assert (found / "config.json").read_bytes() == (wanted / "config.json").read_bytes()
    assert ours.evaluations.drop(columns="seconds_total").equals(theirs.evaluations.drop(columns="seconds_total"))
    clocks = [name for name in theirs.steps if name.startswith(("seconds", "peak_memory"))]
    assert ours.steps.drop(columns=clocks).equals(theirs.steps.drop(columns=clocks))
    assert ours.rollouts.astype(str).equals(theirs.rollouts.astype(str))
    assert [step for step, _ in ours.checkpoints] == [step for step, _ in theirs.checkpoints]
    for (_, one), (_, other) in zip(ours.checkpoints, theirs.checkpoints, strict=True):
        for name in ("adapter_model.safetensors", "optimizer.pt"):
            assert (one / name).read_bytes() == (other / name).read_bytes(), f"{name} of {one}"


def alone(jobs: list[Job]) -> None:
    """In this process, without interruption."""
    for job in jobs:
        if job.origin is None:
            train(job.config, job.folder)
        else:
            revive(job.config, job.origin, job.folder)


def stored(storage: Path, job: Job) -> dict[str, Any]:
    return json.loads((storage / "matrix" / job.folder.name / MANIFEST).read_text())


def times_resumed(folder: Path) -> list[int]:
    """The steps that a run went on from."""
    return [entry["step"] for entry in runs.load(folder).environment.get("resumed", [])]


@pytest.mark.slow
def test_a_matrix_gives_what_this_machine_gives_failures_stop_nothing_and_what_is_stored_is_not_run_again(
    cluster: str, model: Path, tmp_path: Path
) -> None:
    good = [
        job(tmp_path / "local", "parallel", config(model)),
        job(tmp_path / "local", "sequential", config(model, sampler={"name": "sequential"})),
        job(tmp_path / "local", "parallel", config(model, seed=1)),
    ]
    bad = job(tmp_path / "here", "bad", config(tmp_path / "nowhere"))
    here, storage = moved(good, tmp_path / "here"), tmp_path / "storage"
    seen: list[tuple[Path, int]] = []
    failures = execute_on_ray(
        [here[0], bad, *here[1:]],
        address=cluster,
        storage=f"file://{storage}",
        report=lambda job, step: seen.append((job.folder, step)),
    )
    assert [failure.job for failure in failures] == [bad]
    assert "nowhere" in failures[0].reason and "Traceback" not in failures[0].reason
    assert not bad.folder.exists()
    execute(good, workers=2)
    for ours, theirs in zip(here, good, strict=True):
        assert_equal_runs(ours.folder, theirs.folder)
        assert [step for folder, step in seen if folder == ours.folder] == [1, 2, 3, 4]
        assert runs.load(storage / "matrix" / ours.folder.name).finished, "anybody can read the storage itself"

    # on another machine, which has none of them: fetched, without a cluster
    elsewhere = moved(good, tmp_path / "elsewhere")
    before = [stored(storage, job) for job in elsewhere]
    assert execute_on_ray(elsewhere, address="127.0.0.1:1", storage=str(storage)) == []
    for ours, theirs in zip(elsewhere, good, strict=True):
        assert_equal_runs(ours.folder, theirs.folder)
    assert [stored(storage, job) for job in elsewhere] == before, "nobody wrote there"
    assert execute_on_ray(elsewhere, address="127.0.0.1:1", storage=f"file://{tmp_path}/empty") == [], "all is here"

    # a run of other settings under the name of one that is there, or stored
    other = replace(here[0], config=config(model, update={"learning_rate": 0.5}))
    for folder in (here[0].folder, tmp_path / "third" / "matrix" / here[0].folder.name):
        refused = execute_on_ray([replace(other, folder=folder)], address="127.0.0.1:1", storage=str(storage))
        assert len(refused) == 1 and "made with other settings than its name says" in refused[0].reason


@dataclass
class Killer:
    """Kills, once, the process that writes a run, when its first checkpoint after step 0 is stored."""

    pid: Callable[[Job], int]
    killed: bool = False

    def __call__(self, job: Job, step: int) -> None:
        if step >= 3 and not self.killed:
            self.killed = True
            os.kill(self.pid(job), signal.SIGKILL)


@pytest.mark.slow
def test_a_worker_killed_mid_run_changes_nothing(connected: str, model: Path, tmp_path: Path) -> None:
    here, storage = job(tmp_path / "here", "killed", config(model, steps=24)), tmp_path / "storage"
    killer = Killer(lambda job: int(stored(storage, job)["writer"].split(":")[1]))
    assert execute_on_ray([here], address=connected, storage=str(storage), report=killer) == []
    [step] = times_resumed(here.folder)
    assert 2 <= step < 24 and step % 2 == 0, "it went on from a stored checkpoint"
    [apart] = moved([here], tmp_path / "local")
    alone([apart])
    assert_equal_runs(here.folder, apart.folder)

    # without retries the job fails, and the next call goes on from what is stored
    [again], storage = moved([here], tmp_path / "again"), tmp_path / "storage-2"
    killer = Killer(lambda job: int(stored(storage, job)["writer"].split(":")[1]))
    [lost] = execute_on_ray([again], address=connected, storage=str(storage), retries=0, report=killer)
    assert "its worker was lost" in lost.reason and not again.folder.exists()
    assert execute_on_ray([again], address=connected, storage=str(storage)) == []
    assert len(times_resumed(again.folder)) == 1
    assert_equal_runs(again.folder, apart.folder)


@pytest.mark.slow
def test_where_all_machines_share_the_folders_nothing_is_copied(connected: str, model: Path, tmp_path: Path) -> None:
    here = job(tmp_path / "here", "shared", config(model, steps=24))
    killer = Killer(lambda job: int((job.folder / ".lock").read_text()))
    assert execute_on_ray([here], address=connected, report=killer) == []
    [step] = times_resumed(here.folder)
    assert 2 <= step < 24
    [apart] = moved([here], tmp_path / "local")
    alone([apart])
    assert_equal_runs(here.folder, apart.folder)


@pytest.mark.slow
def test_what_is_half_stored_is_not_believed(connected: str, model: Path, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    jobs = [job(tmp_path / "here", name, config(model)) for name in ("lacking", "damaged", "local")]
    local = [replace(job, config=config(model, steps=2)) for job in moved(jobs, tmp_path / "made")]
    alone(local[:2])
    for made in local[:2]:
        (storage / "matrix" / made.folder.name).mkdir(parents=True)
    # files without a list: they would be those of a finished run of two steps
    for name in ("config.json", "environment.json", "metrics.jsonl"):
        (storage / "matrix" / "lacking-s0" / name).write_bytes((local[0].folder / name).read_bytes())
    entry = {"bytes": 10, "sha256": "0" * 64, "at": "config.json"}
    listed = {"writer": "a:1:b", "step": 2, "files": {"config.json": entry}}
    (storage / "matrix" / "damaged-s0" / MANIFEST).write_text(json.dumps(listed))
    # half a run that is here, and not in the storage: it goes on from there
    half = replace(jobs[2], config=config(model))

    def stop(step: int, metrics: dict[str, Any]) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(half.config, half.folder, stop)
    assert not runs.load(half.folder).finished

    [failed] = execute_on_ray(jobs, address=connected, storage=str(storage))
    assert (
        failed.job == jobs[1]
        and "its file config.json is not there" in failed.reason
        and "remove that folder" in failed.reason
    )
    assert times_resumed(jobs[0].folder) == [] and times_resumed(jobs[2].folder) == [2]
    whole = [job(tmp_path / "whole", name, config(model)) for name in ("lacking", "local")]
    alone(whole)
    assert_equal_runs(jobs[0].folder, whole[0].folder)
    assert_equal_runs(jobs[2].folder, whole[1].folder)


@pytest.mark.slow
def test_runs_that_begin_at_another_one_s_checkpoint_find_it(connected: str, model: Path, tmp_path: Path) -> None:
    first = job(tmp_path / "local", "first", config(model))
    alone([first])
    (tmp_path / "words" / "chat").mkdir(parents=True)
    (tmp_path / "words" / "chat" / "answer.txt").write_text("Now: {task}\n")
    adapter = str(first.folder / "checkpoints" / "step-000002")
    changes = {"update": {"learning_rate": 1e-3}}
    local = [
        job(tmp_path / "local", "adapted", config(model, policy={"adapter": adapter})),
        job(tmp_path / "local", "asked", config(model, policy={"prompts": str(tmp_path / "words")})),
        replace(
            job(tmp_path / "local", "revived", config(model, steps=6, **changes)), origin=find(first.folder, 2, changes)
        ),
    ]
    here = moved(local, tmp_path / "here")
    assert execute_on_ray(here, address=connected, storage=str(tmp_path / "storage")) == []
    alone(local)
    for ours, theirs in zip(here, local, strict=True):
        assert_equal_runs(ours.folder, theirs.folder)
        assert runs.load(ours.folder).prompts == runs.load(theirs.folder).prompts
    assert runs.load(here[2].folder).lineage == runs.load(local[2].folder).lineage == local[2].origin
    assert resume(here[2].folder) == here[2].folder, "it is a run like any other"


@pytest.mark.slow
def test_an_interrupt_cancels_and_what_is_stored_stays(connected: str, model: Path, tmp_path: Path) -> None:
    jobs = [job(tmp_path / "here", "many", config(model, seed=seed, steps=24)) for seed in range(4)]
    storage = tmp_path / "storage"

    def stop(job: Job, step: int) -> None:
        if step >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute_on_ray(jobs, address=connected, storage=str(storage), report=stop)
    begun = [job for job in jobs if (storage / "matrix" / job.folder.name / MANIFEST).is_file()]
    assert 0 < len(begun) < len(jobs), "two nodes of one CPU: two were not begun"
    assert not [job for job in jobs if job.folder.exists()]
    assert execute_on_ray(begun, address=connected, storage=str(storage)) == []
    assert max(len(times_resumed(job.folder)) for job in begun) == 1


class News:
    """Of a worker in this process: what it says of its steps, and what is done at each."""

    def __init__(self, look: Callable[[int], None] = lambda step: None) -> None:
        self.steps: list[int] = []
        self._look = look

    def put_nowait(self, said: tuple[int, int]) -> None:
        self.steps.append(said[1])
        self._look(said[1])


def working(dispatch: Dispatch, job: Job, news: News, stale: str | None = None) -> tuple[str | None, str]:
    return ray_worker.work(ray_worker.code(), asdict(dispatch.shipped(0, job, stale)), news)


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False], ids=["shared folders", "a storage"])
def test_a_run_that_another_invocation_is_at_is_left_to_it(model: Path, tmp_path: Path, shared: bool) -> None:
    here, root = job(tmp_path / "here", "nested", config(model)), None if shared else f"file://{tmp_path}/storage"
    first, second, third = (Dispatch(root) for _ in range(3))
    shipped = asdict(second.shipped(0, here))
    answers: list[tuple[str | None, str]] = []

    def other(step: int) -> None:
        answers.append(ray_worker.work(ray_worker.code(), shipped, None))

    news = News(other)
    assert working(first, here, news) == (None, "") and news.steps == [1, 2, 3, 4]
    last = None if shared else ray_worker.BUSY  # what is committed in the folder itself is finished
    assert answers == [(ray_worker.BUSY, "")] * 3 + [(last, "")]
    again = News()
    assert working(second, here, again) == (None, "") and again.steps == [], "finished by the other one is finished"
    third.fetch(here)
    assert times_resumed(here.folder) == []
    [apart] = moved([here], tmp_path / "local")
    alone([apart])
    assert_equal_runs(here.folder, apart.folder)


@pytest.mark.slow
def test_a_worker_that_was_taken_over_from_stops_and_says_no_reason(model: Path, tmp_path: Path) -> None:
    """As where it was cut off from the storage for longer than a lease."""
    here, root = job(tmp_path / "here", "robbed", config(model, steps=6)), f"file://{tmp_path}/storage"
    first, second, late = Dispatch(root), Dispatch(root), News()
    place = first.place(here)
    assert place is not None

    def robbed(step: int) -> None:
        if step == 3:
            assert working(second, here, late, owner(place)) == (None, "")

    early = News(robbed)
    assert working(first, here, early) == (ray_worker.BUSY, "")
    assert early.steps == [1, 2, 3] and late.steps == [3, 4, 5, 6], "it went on from the checkpoint of step 2"
    assert owner(place) is None and second.is_stored(here)
    [apart] = moved([here], tmp_path / "local")
    alone([apart])
    assert_equal_runs(here.folder, apart.folder)


@pytest.mark.slow
def test_a_run_that_another_one_finished_while_this_one_was_starting_is_no_failure(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, dispatch = job(tmp_path / "here", "late", config(model)), Dispatch(None)

    def late(job: Job, report: Any) -> None:
        alone([job])
        train(job.config, job.folder)  # as begun before that

    monkeypatch.setattr(ray_worker, "go_on", late)
    assert working(dispatch, here, News()) == (ray_worker.BUSY, ""), "to be looked at once more"
    assert working(dispatch, here, News()) == (None, "")

    bad = job(tmp_path / "here", "bad", config(model))

    def failing(job: Job, report: Any) -> None:
        if not job.folder.exists():
            runs.RunWriter.create(job.folder, job.config, {}).close()
        raise InputError("disk full")

    monkeypatch.setattr(ray_worker, "go_on", failing)
    assert [working(dispatch, bad, News()) for _ in range(2)] == [(ray_worker.BUSY, ""), ("disk full", "")]


SECOND = """
import json, sys
from pathlib import Path
from sesa_lab.config import Config
from sesa_lab.experiments.jobs import Job
from sesa_lab.experiments.ray_jobs import execute_on_ray
from sesa_lab.training import loop
given = json.loads(sys.argv[1])
jobs = [Job(arm, seed, Config.from_dict(config), Path(folder)) for arm, seed, config, folder in given["jobs"]]
steps = []
print("ready", flush=True)
sys.stdin.readline()
told = lambda job, step: steps.append([job.folder.name, step])
failures = execute_on_ray(jobs, address=given["address"], storage=given["storage"], cpus=0.5, report=told)
print(json.dumps({"steps": steps, "failures": [failure.reason for failure in failures]}), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False], ids=["shared folders", "a storage"])
def test_two_invocations_share_the_work(connected: str, model: Path, tmp_path: Path, shared: bool) -> None:
    jobs = [job(tmp_path / "here", "both", config(model, seed=seed, steps=12)) for seed in range(3)]
    storage = None if shared else f"file://{tmp_path}/storage"
    told = [(job.arm, job.seed, job.config.to_dict(), str(job.folder)) for job in reversed(jobs)]
    given = json.dumps({"jobs": told, "address": connected, "storage": storage})
    second = subprocess.Popen(
        [sys.executable, "-c", SECOND, given], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with second:
        assert second.stdout is not None and second.stdin is not None
        assert second.stdout.readline() == "ready\n"
        second.stdin.write("go\n")
        second.stdin.flush()
        steps: list[tuple[str, int]] = []
        failures = execute_on_ray(
            jobs,
            address=connected,
            storage=storage,
            cpus=0.5,
            report=lambda job, step: steps.append((job.folder.name, step)),
        )
        assert failures == []
        assert all(runs.load(job.folder).finished for job in jobs)
        others = json.loads(second.stdout.readline())
    assert second.returncode == 0 and others["failures"] == []
    taken = sorted([*steps, *((name, step) for name, step in others["steps"])])
    assert taken == sorted((job.folder.name, step) for job in jobs for step in range(1, 13)), "each step by one of them"
    assert [times_resumed(job.folder) for job in jobs] == [[], [], []]
    [apart] = moved(jobs[:1], tmp_path / "local")
    alone([apart])
    assert_equal_runs(jobs[0].folder, apart.folder)
    assert not list((tmp_path / "here").rglob(".tmp-*")) and not list(tmp_path.rglob(OWNER))


@pytest.mark.slow
def test_what_the_dead_hold_is_taken_over_when_their_lease_has_run_out(
    connected: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stored_owner, "LEASE_SECONDS", 4.0)
    monkeypatch.setattr(ray_jobs, "BEAT_SECONDS", 0.2)
    jobs = [job(tmp_path / "here", "left", config(model, seed=seed)) for seed in range(3)]
    storage = tmp_path / "storage"
    alone(moved(jobs, tmp_path / "local"))
    # of one nothing but the claim is there; one was finished, and its owner lost before it let go; one nobody is at
    assert execute_on_ray(jobs[1:2], address=connected, storage=str(storage)) == []
    for left in jobs[:2]:
        (storage / "matrix" / left.folder.name).mkdir(parents=True, exist_ok=True)
        (storage / "matrix" / left.folder.name / OWNER).write_text('{"invocation": "x", "writer": "gone", "beat": 3}\n')
    here = moved(jobs, tmp_path / "there")
    ended: list[str] = []
    began = time.monotonic()
    failures = execute_on_ray(
        here,
        address=connected,
        storage=str(storage),
        report=lambda job, step: ended.append(job.folder.name) if step == 4 else None,
    )
    assert failures == [] and time.monotonic() - began > 4.0
    assert ended == ["left-s2", "left-s0"], "the others first; what was finished is not run again"
    assert " with another invocation" in capsys.readouterr().err
    for ours, theirs in zip(here, moved(jobs, tmp_path / "local"), strict=True):
        assert_equal_runs(ours.folder, theirs.folder)
    assert not list(storage.rglob(OWNER))


@pytest.mark.slow
def test_a_run_that_is_written_here_is_waited_for(
    connected: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the local engine, say; with a storage and without one."""
    monkeypatch.setattr(ray_jobs, "BEAT_SECONDS", 0.2)
    for storage in (None, str(tmp_path / "storage")):
        mine, other = (job(tmp_path / f"here-{storage is None}", name, config(model)) for name in ("mine", "other"))
        writer = runs.RunWriter.create(other.folder, other.config, {})
        seen: list[str] = []

        def told(job: Job, step: int, seen: list[str] = seen, writer: runs.RunWriter = writer) -> None:
            seen.append(job.arm)
            if seen == ["mine"] * 4:
                writer.close()

        assert execute_on_ray([other, mine], address=connected, storage=storage, report=told) == []
        assert seen == ["mine"] * 4 + ["other"] * 4


def test_reasons_name_runs_as_the_storage_does_and_no_machine(tmp_path: Path) -> None:
    dispatch, one = Dispatch(f"file://{tmp_path}/storage"), job(tmp_path, "one", Config())
    place = dispatch.place(one)
    assert place is not None and dispatch.failure(one, f"{place.url} is damaged").reason == "matrix/one-s0 is damaged"
    assert Dispatch(None).failure(one, "as it is").reason == "as it is"


@pytest.mark.slow
def test_what_no_node_has_is_said_or_refused(connected: str, capsys: pytest.CaptureFixture[str]) -> None:
    import ray

    ray_jobs._check_room(ray, {"CPU": 1.0, "GPU": 0.0}, waits=False)
    assert capsys.readouterr().err == ""
    ray_jobs._check_room(ray, {"CPU": 1.0, "lasers": 2.0}, waits=True)
    assert "no node of the cluster has CPU 1, lasers 2 now; waiting" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"does not have what a run is to have \(CPU 1, lasers 2\)"):
        ray_jobs._check_room(ray, {"CPU": 1.0, "lasers": 2.0}, waits=False)


@pytest.mark.slow
def test_without_an_address_one_is_started_and_other_code_on_a_worker_is_a_reason(model: Path, tmp_path: Path) -> None:
    folder, script = tmp_path / "matrix" / "one", tmp_path / "script.py"
    settings = config(model).to_dict()
    script.write_text(
        "from pathlib import Path\n"
        "from sesa_lab.config import Config\n"
        "from sesa_lab.experiments import ray_jobs\n"
        "from sesa_lab.experiments.jobs import Job\n"
        f"jobs = [Job('one', 0, Config.from_dict({settings!r}), Path({str(folder)!r}))]\n"
        "ray_jobs.code = lambda: {'version': '0.0.9', 'commit': ''}\n"
        "print(ray_jobs.execute_on_ray(jobs)[0].reason)\n"
    )
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.urandom(32).hex()}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | own
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        if "timed out during startup" not in done.stderr:  # Ray gives a node 30 s, on a busy machine too
            break
    assert done.returncode == 0, done.stderr
    reason = done.stdout.strip()
    assert reason.startswith(f"a worker has sesa_lab of version {sesa_lab.__version__}, this machine 0.0.9")
    assert not folder.exists()


def test_a_commit_is_compared_where_both_know_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"version": sesa_lab.__version__, "commit": "abc"}
    monkeypatch.setattr(ray_worker, "code", lambda: own)
    assert ray_worker._differs(own) is None
    assert ray_worker._differs({**own, "commit": ""}) is None
    found = ray_worker._differs({**own, "commit": "def"})
    assert found is not None and "of commit abc, this machine def: install the same on the cluster" in found
    assert ray_worker.work({**own, "version": "9"}, {"what": "it has no such field"}, None)[0] is not None


def test_a_model_folder_that_a_worker_does_not_see_is_named(model: Path, tmp_path: Path) -> None:
    shipped = ray_worker.Shipped(0, "a", 0, config(tmp_path / "gone").to_dict(), str(tmp_path), "/", local_model=True)
    with pytest.raises(InputError, match="this worker has none there: put it where all machines see it"):
        ray_worker._check_model(shipped)


def test_two_runs_of_one_place_and_bad_numbers_are_refused(model: Path, tmp_path: Path) -> None:
    twice = [job(tmp_path / name, "one", config(tmp_path / "nowhere")) for name in ("a", "b")]
    todo, failures = Dispatch(f"file://{tmp_path}/storage").prepared(twice)
    assert list(todo.values()) == twice[:1]
    assert failures[0].job == twice[1] and "give one another name" in failures[0].reason
    with pytest.raises(InputError, match=r"cpus = -1.*none below 0"):
        execute_on_ray(twice, cpus=-1)


def test_without_ray_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'sesa_lab\[ray\]'"):
        execute_on_ray([])
