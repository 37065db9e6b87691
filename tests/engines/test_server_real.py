"""The engine `server` on vLLM itself, started as a user starts it: weights that arrive, draws, and a server that dies."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from sesa_lab import environments, runs
from sesa_lab.config import Config, EngineConfig, PolicyConfig, SamplerConfig
from sesa_lab.engines import Sampling
from sesa_lab.engines.server_engine import ServerEngine
from sesa_lab.engines.tokens import Drawn
from sesa_lab.engines.versions import Probed, check_same
from sesa_lab.errors import InputError
from sesa_lab.policies import Policy, load_policy, pack, token_logprobs
from sesa_lab.prompts import Speaker
from sesa_lab.samplers import Request, draw
from sesa_lab.training.loop import resume, train
from sesa_lab.types import Completion

pytestmark = pytest.mark.slow

NAME = "countdown-habit"
TOLERANCE = 1e-4  # nats a token, fp32
STARTING = 600  # seconds, on a busy machine
CACHE = 16 << 20  # bytes; full after a few versions, and its pages then all in use


class Server:
    """`sesa-lab serve` in a session of its own."""

    def __init__(self, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, wait: bool = True) -> None:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "sesa_lab.cli", "serve", "--policy", NAME, "--port", str(self.port)]
            command += ["--", "--kv-cache-memory-bytes", str(CACHE)]  # vLLM takes the last of two
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        until = time.monotonic() + STARTING
        while wait and not self.healthy():
            assert self.process.poll() is None and time.monotonic() < until, self.log.read_text()[-3000:]
            time.sleep(0.5)

    def healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """As the kernel does where memory is short: without a last word. What it started is ended too."""
        if self.process is not None:
            self.process.kill()
            self._end(self.process)

    def stop(self) -> list[int]:
        """As an interrupt does; returns what it left behind, which is ended too."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(60)
        until = time.monotonic() + 10
        while self.members() and time.monotonic() < until:
            time.sleep(0.1)
        left = self.members()
        self._end(self.process)
        return left

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        for sent, seconds in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 10.0)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sent)
            until = time.monotonic() + seconds
            while self.members() and time.monotonic() < until:
                time.sleep(0.1)
        self.process = None

    def members(self) -> list[int]:
        """Processes of its session that live."""
        assert self.process is not None
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == self.process.pid and fields[0] != "Z":
                found.append(int(path.parent.name))
        return found

    def memory(self) -> float:
        """MiB that its processes hold."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.members())
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.fixture(scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server") / "log")
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def server(_server: Server) -> Server:
    if not (_server.process and _server.healthy()):
        _server.kill()
        _server.start()
    return _server


@pytest.fixture(scope="module")
def options() -> dict[str, Any]:
    return dict(environments.make("countdown").options)


def load(options: dict[str, Any], name: str = NAME) -> Policy:
    policy = load_policy(PolicyConfig(model=name, device="cpu"), "countdown", options, 0)
    change(policy, 0)
    return policy


def change(policy: Policy, number: int) -> None:
    """As an optimiser step would, and far enough to be seen."""
    generator = torch.Generator().manual_seed(number)
    with torch.no_grad():
        for name, weight in policy.model.named_parameters():
            if "lora_B" in name:
                weight += 0.02 * torch.randn(weight.shape, generator=generator)


@pytest.fixture
def policy(options: dict[str, Any]) -> Policy:
    return load(options)


@pytest.fixture
def make(server: Server, policy: Policy, tmp_path: Path) -> Iterator[Callable[..., ServerEngine]]:
    made: list[ServerEngine] = []

    def engine(policy: Policy = policy, **settings: Any) -> ServerEngine:
        chosen = {"server_url": server.url, "adapter_folder": str(tmp_path / "adapters"), **settings}
        made.append(ServerEngine(policy, EngineConfig(name="server", **chosen)))
        return made[-1]

    yield engine
    for each in made:
        each.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("sesa-lab-server")]


def streams(*numbers: int) -> list[np.random.Generator]:
    return [np.random.default_rng([23, number]) for number in numbers]


def contexts(policy: Policy, options: dict[str, Any], n: int) -> list[tuple[int, ...]]:
    environment = environments.make("countdown", **options)
    speaker = Speaker(policy.tokenizer, policy.form, "countdown", policy.stop_ids)
    return [speaker.answer(environment.task(i)) for i in range(n)]


@torch.no_grad()
def own(policy: Policy, under: list[tuple[int, ...]], drawn: list[Completion], temperature: float) -> torch.Tensor:
    """The trainer's log-probs, all tokens in a row."""
    return token_logprobs(policy, pack(under, [completion.ids for completion in drawn]), temperature)[0]


def models(server: Server) -> list[dict[str, Any]]:
    return httpx.get(f"{server.url}/v1/models", trust_env=False).json()["data"]


def said(drawn: list[Completion]) -> torch.Tensor:
    return torch.tensor([x for completion in drawn for x in completion.logprobs])


def test_after_each_of_many_updates_the_server_draws_from_the_trainer_s_weights(
    server: Server, policy: Policy, options: dict[str, Any], make: Callable[..., ServerEngine]
) -> None:
    engine, under = make(), contexts(policy, options, 8)
    sampling = Sampling(12, policy.stop_ids, 0.9)
    before = None
    for number in range(1, 23):
        with engine.synced():
            drawn = engine.start(under).sample(sampling, streams(*range(8)))
        expected = own(policy, under, drawn, 0.9)
        torch.testing.assert_close(said(drawn), expected, rtol=0, atol=TOLERANCE)
        if before is not None:
            stale = (own(policy, under, before, 0.9) - said(before)).abs().max()
            assert stale > 0.01, "the version before would not have passed"
        assert len(models(server)) == 2, "the base model and the latest version"
        before = drawn
        change(policy, number)


def test_versions_leave_nothing_behind(
    server: Server, policy: Policy, make: Callable[..., ServerEngine], tmp_path: Path
) -> None:
    engine, memory = make(), []
    for number in range(1, 31):
        with engine.synced():
            pass
        change(policy, number)
        memory.append(server.memory())
    [folder] = (tmp_path / "adapters").glob("*/*")
    size = (folder / "adapter_model.safetensors").stat().st_size / 2**20
    assert memory[-1] - memory[9] < 10 * size, "of 20 versions most are gone"
    engine.close()
    assert len(models(server)) == 1 and not list((tmp_path / "adapters").iterdir())


def test_a_row_depends_on_its_seed_and_context_only(
    policy: Policy, options: dict[str, Any], make: Callable[..., ServerEngine]
) -> None:
    # Neighbours change sums in their last bits, and so a draw that lies within them of another: once in 10^5 tokens or less.
    engine, under = make(), contexts(policy, options, 6)
    sampling = Sampling(8, policy.stop_ids)
    with engine.synced():
        together = engine.start(under).sample(sampling, streams(*range(6)))
        again = engine.start(under[::-1]).sample(sampling, streams(*range(6)[::-1]))[::-1]
        alone = [engine.start([under[i]]).sample(sampling, streams(i))[0] for i in range(6)]
        others = engine.start(under).sample(sampling, streams(*range(6, 12)))
    for other in (again, alone):
        assert [x.ids for x in other] == [x.ids for x in together]
        torch.testing.assert_close(said(other), said(together), rtol=0, atol=1e-5)
    assert [x.ids for x in others] != [x.ids for x in together]


def test_stops(policy: Policy, options: dict[str, Any], make: Callable[..., ServerEngine]) -> None:
    engine, under = make(), contexts(policy, options, 8)
    with engine.synced():
        free = engine.start(under).sample(Sampling(16, (), 1.0), streams(*range(8)))
        stopped = engine.start(under).sample(Sampling(16, policy.stop_ids, 1.0), streams(*range(8)))
        by_text = engine.start(under).sample(Sampling(16, policy.stop_ids, 1.0, "*"), streams(*range(8)))
    assert {len(x.ids) for x in free} == {16}, "an end of text that was not named ends nothing"
    assert "stop" in {x.finish for x in stopped} and "text" in {x.finish for x in by_text}
    for whole, cut in itertools.chain(zip(free, stopped, strict=True), zip(stopped, by_text, strict=True)):
        assert cut.ids == whole.ids[: len(cut.ids)]
    for x in by_text:
        assert ("*" in x.text) == (x.finish == "text") and x.text.count("*") <= 1


def test_two_stages(policy: Policy, options: dict[str, Any], make: Callable[..., ServerEngine]) -> None:
    engine = make()
    environment = environments.make("countdown", **options)
    speaker = Speaker(policy.tokenizer, policy.form, "countdown", policy.stop_ids)
    requests = [Request(task, speaker.answer(task)) for task in map(environment.task, range(2))]
    config = SamplerConfig(name="sesa", group_size=8, expansions=2, max_tokens=16, sketch_tokens=16)
    with engine.synced():
        groups = draw(engine, requests, config, speaker, lambda g, i: np.random.default_rng([29, g, i]))
    turns = [turn for group in groups for candidate in group.candidates for turn in candidate.turns]
    turns += [sketch.turn for group in groups for sketch in group.sketches]
    assert len(turns) == 2 * (8 + 4)
    under = [turn.drawn_under.ids for turn in turns]
    drawn = [turn.completion for turn in turns]
    torch.testing.assert_close(said(drawn), own(policy, under, drawn, 1.0), rtol=0, atol=TOLERANCE)
    assert engine.counters.sampled == sum(len(x.ids) for x in drawn)
    assert engine.counters.prefilled < sum(map(len, under)), "the server's prefix cache is used"


def test_another_base_model_is_refused(options: dict[str, Any], make: Callable[..., ServerEngine]) -> None:
    engine = make(load(options, "countdown-ordinary"))
    with pytest.raises(InputError, match="does not draw from the trained policy"), engine.synced():
        pass


def test_more_than_the_server_has_room_for(policy: Policy, make: Callable[..., ServerEngine]) -> None:
    engine = make()
    assert engine.longest == 2048
    with engine.synced(), pytest.raises(InputError, match=r"2049 tokens .* exceeds the 2048"):
        engine.start([(5,) * 2033]).sample(Sampling(16, ()), streams(0))


def test_a_rank_beyond_the_server_s(options: dict[str, Any], make: Callable[..., ServerEngine]) -> None:
    policy = load_policy(PolicyConfig(model=NAME, device="cpu", lora_rank=32), "countdown", options, 0)
    engine = make(policy)
    with (
        pytest.raises(InputError, match=r"LoRA rank 32 is greater than max_lora_rank 16.*--lora-rank 32"),
        engine.synced(),
    ):
        pass


def test_the_silent_trap_that_versions_avoid(
    server: Server, policy: Policy, options: dict[str, Any], make: Callable[..., ServerEngine], tmp_path: Path
) -> None:
    """New weights under an old name and path: the server says yes, and goes on with keys and values of the old weights."""
    under = [tuple((context * 3)[:97]) for context in contexts(policy, options, 1)]  # three whole blocks of its cache
    folder = str(tmp_path / "trap")

    def load_in_place(**more: Any) -> None:
        policy.model.save_pretrained(folder)
        body = {"lora_name": f"trap-{server.port}", "lora_path": folder, **more}
        answer = httpx.post(f"{server.url}/v1/load_lora_adapter", json=body, trust_env=False, timeout=60.0)
        assert answer.status_code == 200, answer.text

    def by_hand() -> list[Completion]:
        return [replace(completion) for completion in trap.start(under).sample(Sampling(8, ()), streams(0))]

    trap = make()
    load_in_place()
    with trap.synced():
        trap._loaded = replace(trap._loaded, name=f"trap-{server.port}")  # type: ignore[type-var]
        fresh = by_hand()
        torch.testing.assert_close(said(fresh), own(policy, under, fresh, 1.0), rtol=0, atol=TOLERANCE)
        change(policy, 99)
        load_in_place(load_inplace=True)
        stale = by_hand()
        wrong = (said(stale) - own(policy, under, stale, 1.0)).abs()
        assert wrong.mean() > 0.01, "vLLM has no such trap any more: Versions need not be fresh"
        with pytest.raises(InputError, match="does not draw from the trained policy"):
            check_same(policy, Probed(under[0], Drawn(stale[0].ids, stale[0].logprobs)), "the trap", 1.0)
    engine = make()
    with engine.synced():
        right = engine.start(under).sample(Sampling(8, ()), streams(0))
    torch.testing.assert_close(said(right), own(policy, under, right, 1.0), rtol=0, atol=TOLERANCE)


def test_a_server_killed_in_the_midst_of_a_draw_and_started_again(
    server: Server, policy: Policy, options: dict[str, Any], make: Callable[..., ServerEngine]
) -> None:
    # At most one row may differ: see above on neighbours. 24 rows of 32 tokens: one does in fewer than 1 of 100 runs.
    engine, under = make(connections=4, patience=float(STARTING)), contexts(policy, options, 24)
    sampling = Sampling(32, (), 1.0)
    with engine.synced():
        expected = engine.start(under).sample(sampling, streams(*range(24)))
        rows, begun = engine._row, threading.Event()

        def watched(*arguments: Any, **more: Any) -> Any:
            found = rows(*arguments, **more)
            begun.set()
            return found

        def outage() -> None:
            begun.wait(60)
            server.kill()
            server.start(wait=False)

        thread = threading.Thread(target=outage)
        thread.start()
        engine._row = watched  # type: ignore[method-assign]
        sampled = engine.counters.sampled
        found = engine.start(under).sample(sampling, streams(*range(24)))
        thread.join()
    assert server.log.read_text().count("--enable-lora") >= 2, "it was started again"
    assert sum(a.ids != b.ids for a, b in zip(found, expected, strict=True)) <= 1
    torch.testing.assert_close(said(found), own(policy, under, found, 1.0), rtol=0, atol=TOLERANCE)
    assert engine.counters.sampled - sampled == 24 * 32, "no row twice"


def test_a_server_that_is_stopped_and_stays_away(
    server: Server, policy: Policy, options: dict[str, Any], make: Callable[..., ServerEngine]
) -> None:
    engine, under = make(patience=3.0), contexts(policy, options, 24)
    left: list[int] = []
    with engine.synced():
        thread = threading.Timer(0.3, lambda: left.extend(server.stop()))
        thread.start()
        with pytest.raises(InputError, match=r"has not answered for 3 seconds .*sesa-lab serve .*sesa-lab resume"):
            for _ in range(1000):
                engine.start(under).sample(Sampling(64, (), 1.0), streams(*range(24)))
        thread.join()
    began = time.monotonic()
    engine.close()
    assert time.monotonic() - began < 10
    assert left == [], "no process of the server outlives it"


def test_a_run_on_the_server_is_killed_with_it_and_goes_on(server: Server, tmp_path: Path) -> None:
    """SESA with everything trained: no step is lost or doubled, and the engine's log-probs stay the trainer's."""
    config = Config.build(
        environment={"name": "countdown", "options": {"hard": "half"}},
        policy={"model": NAME},
        engine={"name": "server", "server_url": server.url, "patience": 3.0},
        sampler={"name": "sesa", "group_size": 4, "max_tokens": 16, "sketch_tokens": 12, "on_policy_fraction": 0.5},
        update={"conditioning": "task+sketch", "mismatch": "truncated_is", "train_sketches": "best"},
        run={"steps": 4, "groups": 4, "evaluate_every": 4, "checkpoint_every": 1},
        evaluation={"eval_tasks": 4, "eval_samples": 8},
    )

    def kill(step: int, metrics: dict[str, Any]) -> None:
        if step == 2:
            server.kill()

    with pytest.raises(InputError, match=r"sesa-lab resume RUN"):
        train(config, tmp_path / "run", kill)
    server.start()
    resume(tmp_path / "run")
    run = runs.load(tmp_path / "run")
    assert run.steps["step"].tolist() == [1, 2, 3, 4]
    assert run.rollouts.groupby("step").size().tolist() == [16] * 4
    assert run.steps["mismatch_max"].max() < TOLERANCE
    assert run.finished
