"""The client of a vLLM server against a small server of the same words: what it asks, survives, and refuses.

``test_server_real.py`` holds the same engine to vLLM itself.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from fake_server import Answer, FakeServer, error
from tiny_models import STOP, reference_logprobs

from sesa_lab import cli, engines, serving
from sesa_lab.config import EngineConfig
from sesa_lab.engines import Sampling, client, server_engine
from sesa_lab.engines.server_engine import ServerEngine
from sesa_lab.engines.versions import room_for
from sesa_lab.errors import InputError
from sesa_lab.policies import Policy

CONTEXTS = [(5, 6, 7, 8) * 5, (9,), (40, 41, 42), (9,), tuple(range(3, 20))]
SAMPLING = Sampling(max_tokens=6, stop_ids=(STOP,), temperature=0.8)

Make = Callable[..., ServerEngine]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save_model(tmp_path_factory.mktemp("models") / "tiny", num_hidden_layers=1)


@pytest.fixture
def policy(folder: Path) -> Policy:
    return tiny_models.load(folder, adapter_noise=0.05)


@pytest.fixture
def server(policy: Policy) -> Iterator[FakeServer]:
    with FakeServer(policy) as fake:
        yield fake


@pytest.fixture
def make(policy: Policy, server: FakeServer, tmp_path: Path) -> Iterator[Make]:
    """Engines that are closed afterwards; none of their threads is left."""
    made: list[ServerEngine] = []

    def engine(**settings: Any) -> ServerEngine:
        chosen = {"server_url": server.url, "adapter_folder": str(tmp_path / "adapters"), "patience": 20.0, **settings}
        found = engines.make(EngineConfig(name="server", **chosen), policy)
        assert isinstance(found, ServerEngine)
        made.append(found)
        return found

    yield engine
    for each in made:
        each.close()
        each.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("sesa-lab-server")]


def streams(*numbers: int) -> list[np.random.Generator]:
    return [np.random.default_rng([17, number]) for number in numbers]


def draw(engine: ServerEngine, sampling: Sampling = SAMPLING) -> list[Any]:
    with engine.synced():
        return engine.start(CONTEXTS).sample(sampling, streams(*range(len(CONTEXTS))))


def change(policy: Policy, size: float = 0.05) -> None:
    """As an optimiser step would."""
    with torch.no_grad():
        for name, weight in policy.model.named_parameters():
            if "lora_B" in name:
                weight += size


# --- draws ------------------------------------------------------------------------------------------------------------


def test_completions_come_in_order_with_the_trainer_s_logprobs(make: Make, policy: Policy) -> None:
    engine = make(connections=3)
    drawn = draw(engine)
    for context, completion in zip(CONTEXTS, drawn, strict=True):
        expected = reference_logprobs(policy.model, context, completion.ids, SAMPLING.temperature)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, rtol=0, atol=1e-5)
        assert completion.finish == ("stop" if completion.ids[-1] == STOP else "length")
    assert engine.counters.sampled == sum(len(completion.ids) for completion in drawn)
    # the fake server's cache holds whole blocks of 16 tokens: one of the first context's 20, one of the last one's 17
    assert engine.counters.prefilled == sum(map(len, CONTEXTS)) - 32
    assert draw(engine) == drawn, "the same seeds draw the same"
    alone = engine.start([CONTEXTS[2]]).sample(SAMPLING, streams(2))
    assert alone == [drawn[2]]


def test_a_session_goes_on_with_what_was_drawn_and_appended(make: Make) -> None:
    engine = make()
    with engine.synced():
        session = engine.start([(5, 6), (7,)])
        first = session.sample(SAMPLING, streams(0), rows=[1])[0]
        session.append([[], [30, 31]])
        assert session.context(1) == (7, *first.ids, 30, 31)
        fork = session.fork([1, 0])
        second = fork.sample(SAMPLING, streams(1, 2))[0]
        again = engine.start([(7, *first.ids, 30, 31)]).sample(SAMPLING, streams(1))[0]
    assert second == again


def test_nothing_is_left_to_the_server_s_defaults(make: Make, server: FakeServer) -> None:
    draw(make(), dataclasses.replace(SAMPLING, stop_text="</answer>"))
    body = [body for path, body in server.asked if path == "/v1/completions"][-1]
    expected = {
        "temperature": 0.8,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "ignore_eos": True,
    }
    assert {**body, **expected} == body
    assert (body["stop_token_ids"], body["stop"], body["max_tokens"]) == ([STOP], ["</answer>"], 6)


def test_a_text_ends_a_completion(make: Make) -> None:
    engine = make()
    plain = draw(engine, Sampling(12, (), 2.0))
    end = next(letter for letter in plain[1].text[1:] if letter.isascii())
    for whole, cut in zip(plain, draw(engine, Sampling(12, (), 2.0, stop_text=end)), strict=True):
        assert cut.ids == whole.ids[: len(cut.ids)] and cut.logprobs == whole.logprobs[: len(cut.ids)]
        assert cut.finish == ("text" if end in whole.text else "length")
        assert cut.finish == "length" or (end in cut.text and len(cut.text.partition(end)[2]) == 0)


def test_a_context_beyond_the_server_s_room(make: Make) -> None:
    engine = make()
    with engine.synced(), pytest.raises(InputError, match=r"201 tokens .* exceeds the 200 that .*--max-context"):
        engine.start([(5,) * 195]).sample(SAMPLING, streams(0))


def test_a_draw_outside_synced_is_a_bug(make: Make) -> None:
    with pytest.raises(AssertionError, match="within `synced`"):
        make().start([(5,)]).sample(SAMPLING, streams(0))


# --- the adapter ------------------------------------------------------------------------------------------------------


def test_each_version_has_a_name_and_a_path_of_its_own_and_old_ones_go(
    make: Make, server: FakeServer, policy: Policy, tmp_path: Path
) -> None:
    engine = make()
    for _ in range(3):
        draw(engine)
        draw(engine)  # unchanged: not loaded again
        [(name, path)] = server.adapters.items()
        assert [str(found) for found in (tmp_path / "adapters").glob("*/*")] == [path]
        assert all(body["model"] == name for p, body in server.asked[-len(CONTEXTS) :] if p == "/v1/completions")
        change(policy)
    loads = [body for path, body in server.asked if path == "/v1/load_lora_adapter"]
    assert len({body["lora_name"] for body in loads}) == len({body["lora_path"] for body in loads}) == len(loads) == 3
    assert not any("load_inplace" in body for body in loads), "in place, vLLM goes on with stale keys and values"
    engine.close()
    assert server.adapters == {} and not list((tmp_path / "adapters").iterdir())


def test_log_probs_before_temperature_are_refused_each_time(make: Make, server: FakeServer) -> None:
    server.raw = True
    engine = make()
    for _ in range(2):  # a version that failed its check is not taken for loaded
        with pytest.raises(InputError, match=r"does not draw from the trained policy.*processed_logprobs"):
            draw(engine)
    server.raw = False
    draw(engine)


def test_another_model_is_refused(folder: Path, tmp_path: Path, server: FakeServer, make: Make) -> None:
    other = tiny_models.save_model(tmp_path / "other", num_hidden_layers=1, initializer_range=0.2)
    server.policy = tiny_models.load(other)
    with pytest.raises(InputError, match=r"server at http://127.* does not draw from the trained policy: .* nats"):
        draw(make())


def test_a_server_that_goes_on_with_old_weights_is_refused(make: Make, server: FakeServer, policy: Policy) -> None:
    server.policy = tiny_models.load(Path(policy.folder), adapter_noise=0.05)  # whatever it is told to load
    engine = make()
    draw(engine)
    change(policy)
    with pytest.raises(InputError, match="does not draw from the trained policy"):
        draw(engine)


def test_the_room_for_a_rank() -> None:
    assert [room_for(rank) for rank in (1, 8, 9, 16, 300, 512)] == [8, 8, 16, 16, 320, 512]
    with pytest.raises(InputError, match=r"policy.lora_rank = 513: vLLM takes at most 512"):
        room_for(513)


# --- a server that goes away ------------------------------------------------------------------------------------------


def sometimes(path: str, answers: list[Answer | type[Exception] | None]) -> Callable[[str, dict], Answer | None]:
    """The next of ``answers`` to each request for ``path``, and then the usual."""
    left = list(answers)
    lock = threading.Lock()

    def fault(asked: str, body: dict) -> Answer | None:
        with lock:
            instead = left.pop(0) if asked == path and left else None
        if isinstance(instead, type):
            raise instead
        return instead

    return fault


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/models", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"])
def test_failures_that_pass_are_waited_for(path: str, make: Make, server: FakeServer, policy: Policy) -> None:
    expected = draw(make())
    loading = path == "/v1/load_lora_adapter"  # there a failure of a healthy server is no passing one
    server.fault = sometimes(
        path, [ConnectionAbortedError] * 2 if loading else [error(503, "busy"), ConnectionAbortedError]
    )
    engine = make()
    assert draw(engine) == expected
    change(policy)
    draw(engine)


def test_a_load_whose_answer_was_lost_is_done(make: Make, server: FakeServer) -> None:
    def loaded_in_silence(path: str, body: dict) -> Answer | None:
        if path == "/v1/load_lora_adapter" and body["lora_name"] not in server.adapters:
            server.adapters[body["lora_name"]] = body["lora_path"]
            raise ConnectionAbortedError
        return None

    server.fault = loaded_in_silence
    draw(make())
    assert server.count("/v1/load_lora_adapter") == 2


def test_a_server_that_was_started_anew_gets_the_adapter_again(make: Make, server: FakeServer) -> None:
    engine = make(connections=2)
    expected = draw(engine)
    names = set(server.adapters)
    server.kill()
    server.start()
    assert draw(engine) == expected
    assert set(server.adapters) == names and server.count("/v1/load_lora_adapter") == 2, "once for all rows"


def test_a_server_killed_in_the_midst_and_started_later(
    make: Make, server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make(connections=2)
    expected = draw(engine)
    begun = threading.Event()

    def outage() -> None:
        begun.wait()
        server.fault = lambda path, body: None
        server.kill()
        time.sleep(0.5)
        server.start()

    def slow(path: str, body: dict) -> None:
        begun.set()
        time.sleep(0.3)

    thread = threading.Thread(target=outage)
    thread.start()
    server.fault = slow
    assert draw(engine) == expected
    thread.join()
    assert [r.message for r in caplog.records if "waiting up to 20 seconds for the server" in r.message]


def test_a_server_that_comes_back_with_another_model_is_refused(make: Make, server: FakeServer, tmp_path: Path) -> None:
    engine = make()
    draw(engine)
    server.kill()
    server.policy = tiny_models.load(
        tiny_models.save_model(tmp_path / "other", num_hidden_layers=1, initializer_range=0.2)
    )
    server.start()
    with pytest.raises(InputError, match="does not draw from the trained policy"):
        draw(engine)


def test_a_server_that_stays_away_is_given_up(make: Make, server: FakeServer) -> None:
    engine = make(patience=0.7)
    draw(engine)
    server.kill()
    began = time.monotonic()
    with pytest.raises(InputError) as raised:
        draw(engine)
    assert 0.7 <= time.monotonic() - began < 10
    said = str(raised.value)
    assert f"the server at {server.url} has not answered for 0.7 seconds (ConnectError" in said
    assert f"sesa-lab serve --policy {engine.policy.folder} --dtype float32 --lora-rank 16 --port {server.port}" in said
    assert "`sesa-lab resume RUN`" in said


def test_no_server_at_all(policy: Policy, server: FakeServer, tmp_path: Path) -> None:
    server.kill()
    with pytest.raises(InputError, match=r"has not answered for 0 seconds \(ConnectError"):
        ServerEngine(policy, EngineConfig(name="server", server_url=server.url, patience=0.0))


def test_a_server_that_does_not_answer(make: Make, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make(patience=0.5)
    draw(engine)
    release = threading.Event()

    def hang(path: str, body: dict) -> None:
        release.wait(30)

    server.fault = hang
    monkeypatch.setattr(server_engine, "ANSWER", -5.8)  # and a second a token: 0.2
    with pytest.raises(InputError, match=r"has not answered for 0.5 seconds \(ReadTimeout"):
        draw(engine)
    release.set()


def test_a_server_that_ends_and_leaves_its_requests_unanswered(
    make: Make, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make(patience=0.5)
    draw(engine)
    release = threading.Event()

    def hang(path: str, body: dict) -> None:
        release.wait(30)

    server.fault = hang
    monkeypatch.setattr(client, "PULSE", 0.1)
    threading.Timer(0.3, server.turn_away).start()
    began = time.monotonic()
    with pytest.raises(InputError, match=r"has not answered for 0.5 seconds"):
        draw(engine)
    assert time.monotonic() - began < 10
    release.set()


def test_time_that_an_answer_took_before_it_broke_off_is_not_counted(make: Make, server: FakeServer) -> None:
    engine = make(patience=0.4)
    expected = draw(engine)

    def late(path: str, body: dict) -> None:
        server.fault = lambda path, body: None
        time.sleep(0.6)
        raise ConnectionAbortedError

    server.fault = late
    assert draw(engine) == expected


@pytest.mark.parametrize("hanging", [True, False])
def test_an_interrupt_ends_all_requests_at_once(make: Make, server: FakeServer, hanging: bool) -> None:
    engine = make(connections=2, patience=60.0)
    expected = draw(engine)
    release = threading.Event()

    def fault(path: str, body: dict) -> Answer | None:
        if hanging:
            release.wait(30)
            return None
        return error(503, "busy")

    server.fault = fault
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is deaf to it
    try:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            draw(engine)
        assert time.monotonic() - began < 5
    finally:
        signal.signal(signal.SIGINT, before)
    release.set()
    server.fault = lambda path, body: None
    assert draw(engine) == expected, "the engine can be used again"


# --- a server that refuses --------------------------------------------------------------------------------------------


def test_a_refusal_is_raised_at_once_with_the_server_s_words(make: Make, server: FakeServer) -> None:
    engine = make(connections=1)
    draw(engine)
    before = server.count("/v1/completions")
    words = "not {today}\n\x1b[31m" + "x" * 5000
    server.fault = lambda path, body: error(400, words) if path == "/v1/completions" else None
    with pytest.raises(
        InputError, match=r"refused a request for a completion \(HTTP 400: not \{today\} \[31mxxx"
    ) as raised:
        draw(engine)
    assert len(str(raised.value)) < 1000 and str(raised.value).isprintable()
    assert server.count("/v1/completions") <= before + 2, "the rows that wait are not sent"


@pytest.mark.parametrize(
    ("path", "answer", "hint"),
    [
        ("/v1/load_lora_adapter", (404, {"detail": "Not Found"}), "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"),
        ("/v1/load_lora_adapter", error(404, "No adapter found for /x"), "engine.adapter_folder"),
        ("/v1/load_lora_adapter", error(500, "LoRA rank 16 is greater than max_lora_rank 8."), "--lora-rank 16"),
        ("/v1/load_lora_adapter", error(400, "lora_path must be provided"), "sesa-lab serve"),
        ("/v1/models", (401, {"error": "Unauthorized"}), "VLLM_API_KEY"),
    ],
)
def test_what_to_mend(path: str, answer: Answer, hint: str, make: Make, server: FakeServer) -> None:
    server.fault = lambda asked, body: answer if asked == path else None
    began = time.monotonic()
    with pytest.raises(InputError, match=f"refused .*HTTP {answer[0]}.*{hint}"):
        draw(make())
    assert time.monotonic() - began < 5, "no use in waiting"


def test_a_key_is_sent(make: Make, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    make()
    assert server.headers[-1]["Authorization"] == "Bearer secret"


def changed(**parts: Any) -> Callable[[dict], Any]:
    return lambda answer: {**answer, "choices": [{**answer["choices"][0], **parts}]}


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (lambda answer: "<html>", "without token ids"),
        (lambda answer: {**answer, "choices": []}, "without token ids"),
        (changed(token_ids=None), "without token ids"),
        (changed(logprobs=None), "without token ids"),
        (changed(token_ids=[]), "0 tokens with"),
        (changed(logprobs={"token_logprobs": [-1.0]}), "with 1 log-probs"),
        (changed(prompt_token_ids=[5]), "under a context of 1 tokens"),
        (changed(logprobs={"token_logprobs": [float("nan")] * 8}), "not finite, or above 0"),
        (changed(logprobs={"token_logprobs": [0.5] * 8}), "not finite, or above 0"),
        (changed(token_ids=[7], logprobs={"token_logprobs": [-1.0]}), "ends after 1 tokens for no reason"),
    ],
)
def test_answers_that_are_not_what_was_asked_for(
    alter: Callable[[dict], Any], said: str, make: Make, server: FakeServer
) -> None:
    server.fault = lambda path, body: (200, alter(server.completion(body))) if path == "/v1/completions" else None
    engine = make()
    with pytest.raises(InputError, match=f"the server at .* gave .*{said}.*sesa-lab serve"):
        draw(engine, Sampling(6, (), 1.0))


def test_something_else_than_vllm(policy: Policy, server: FakeServer) -> None:
    for answer in ("hello", {"data": []}, {"data": ["base"]}, {"object": "list"}):
        server.fault = lambda path, body, answer=answer: (200, answer)
        with pytest.raises(InputError, match="gave something else than a list of models"):
            ServerEngine(policy, EngineConfig(name="server", server_url=server.url))


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://here", "http://", "http://a:port", ""])
def test_a_url_that_is_none(url: str, policy: Policy) -> None:
    with pytest.raises(InputError, match=r"engine.server_url = .*expected a URL such as"):
        ServerEngine(policy, EngineConfig(name="server", server_url=url, patience=0.0))


def test_the_path_of_the_api_may_stand_in_the_url(make: Make, server: FakeServer) -> None:
    assert make(server_url=server.url + "/v1/").longest == 200


def test_foreign_words_are_one_printable_line() -> None:
    assert client.words("a\n\tb\x00c\x1b[0m") == "a b c [0m"
    assert len(client.words("x" * 10_000)) == client.WORDS


# --- sesa-lab serve ---------------------------------------------------------------------------------------------------


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[Any, ...]]:
    """Exit code, command and variables that would be executed, what was printed, and the error."""

    def run(*arguments: object) -> tuple[Any, ...]:
        found: list[Any] = [None, None]
        monkeypatch.setattr(
            os, "execve", lambda path, command, variables: found.__setitem__(slice(2), [command, variables])
        )
        monkeypatch.setattr(serving.importlib.util, "find_spec", lambda name: object())
        code = cli.main(["serve", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, *found, out, err

    return run


def test_serve_says_what_it_runs_and_runs_it(
    served: Callable[..., tuple[Any, ...]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    extra = ["--tensor-parallel-size", "2", "--max-loras", "8"]
    code, command, variables, out, err = served(
        "--policy", folder, "--lora-rank", 9, "--max-context", 128, "--", *extra
    )
    assert (code, err) == (0, "")
    assert shlex.split(out)[-len(command) :] == command
    assert command[:3] == [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    assert command[-4:] == extra, "vLLM takes the last of two"
    said = dict(itertools.pairwise(command))
    assert (said["--model"], said["--max-lora-rank"], said["--max-model-len"]) == (str(folder), "16", "128")
    assert (said["--logprobs-mode"], said["--host"]) == ("processed_logprobs", "127.0.0.1")
    assert variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True" and "--enforce-eager" in command
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "--enforce-eager" not in served("--policy", folder)[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--policy", "nothing-such"], "no model 'nothing-such'"),
        (["--environment", "nothing"], "unknown environment"),
        (["--port", "70000"], "--port 70000 is out of range"),
        (["--lora-rank", "600"], "vLLM takes at most 512"),
        (["--dtype", "int8"], "--dtype int8: expected float32"),
    ],
)
def test_serve_refuses(arguments: list[str], said: str, served: Callable[..., tuple[Any, ...]]) -> None:
    code, command, _, out, err = served(*arguments)
    assert (code, command, out) == (2, None, "") and said in err and len(err.splitlines()) == 1


def test_serve_without_vllm(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(serving.importlib.util, "find_spec", lambda name: None)
    assert cli.main(["serve", "--policy", str(folder)]) == 2
    assert "vLLM is not installed" in capsys.readouterr().err
