"""Answers as vLLM's server gives them: its paths, words and numbers, made by the trainer's own model, and faults on demand."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_models import full_logits

from sesa_lab.policies import Policy

Answer = tuple[int, Any]  # HTTP's number; a dict or list as JSON, or a text
Fault = Callable[[str, dict], Answer | None]
"""(path, body) -> what is answered instead; None: the usual. It may raise ``ConnectionAbortedError``: no answer at all."""


def error(status: int, message: str) -> Answer:
    return status, {"error": {"message": message, "type": "Error", "param": None, "code": status}}


class FakeServer:
    """Answers at ``url`` within ``with``; ``kill`` and ``start`` let it go and come back, without its adapters.

    Attributes:
        fault: see ``Fault``.
        raw: log-probs are of the distribution before temperature, vLLM's own default.
        asked: (path, body) of every request.
        longest: max_model_len.
    """

    def __init__(self, policy: Policy, longest: int = 200) -> None:
        self.policy, self.longest = policy, longest
        self.fault: Fault = lambda path, body: None
        self.raw = False
        self.asked: list[tuple[str, dict]] = []
        self.headers: list[dict[str, str]] = []
        self.adapters: dict[str, str] = {}
        self.port = 0
        self.open: set[socket.socket] = set()
        self.lock = threading.Lock()
        self.http: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> FakeServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        self.adapters = {}
        self.http = _Server(("127.0.0.1", self.port), _handler(self))
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def turn_away(self) -> None:
        """Take no more connections, as a server that is ending; those there are stay open."""
        assert self.http is not None
        self.http.shutdown()
        self.http.server_close()

    def kill(self) -> None:
        """With all connections, whatever goes on in them."""
        if self.http is None:
            return
        self.http.shutdown()
        with self.lock:
            for each in self.open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        self.http.server_close()
        self.http = None

    def count(self, path: str) -> int:
        return sum(asked == path for asked, _ in self.asked)

    def answer(self, path: str, body: dict) -> Answer:
        instead = self.fault(path, body)
        if instead is not None:
            return instead
        if path == "/v1/models":
            base = {"id": "base", "root": self.policy.folder, "parent": None, "max_model_len": self.longest}
            return 200, {"data": [base, *({"id": n, "root": p, "parent": "base"} for n, p in self.adapters.items())]}
        if path == "/v1/load_lora_adapter":
            if body["lora_name"] in self.adapters:
                return error(400, f"The lora adapter '{body['lora_name']}' has already been loaded.")
            if not (Path(body["lora_path"]) / "adapter_model.safetensors").is_file():
                return error(404, f"Loading lora {body['lora_name']} failed: No adapter found for {body['lora_path']}")
            self.adapters[body["lora_name"]] = body["lora_path"]
            return 200, "Success"
        if path == "/v1/unload_lora_adapter":
            known = self.adapters.pop(body["lora_name"], None)
            return (200, "Success") if known else error(404, "The lora adapter cannot be found.")
        if path == "/v1/completions":
            if body["model"] not in self.adapters:
                return error(404, f"The model `{body['model']}` does not exist.")
            return 200, self.completion(body)
        return (200, "") if path == "/health" else (404, {"detail": "Not Found"})

    def completion(self, body: dict) -> dict:
        ids: list[int] = []
        logprobs: list[float] = []
        rng, text = np.random.default_rng(body["seed"]), ""
        while True:
            logits = full_logits(self.policy.model, (*body["prompt"], *ids))[-1]
            tempered = (logits / body["temperature"]).log_softmax(-1)
            token = int((tempered + torch.from_numpy(rng.gumbel(size=len(tempered)))).argmax())
            ids.append(token)
            logprobs.append(float((logits.log_softmax(-1) if self.raw else tempered)[token]))
            text = self.policy.tokenizer.decode(ids, skip_special_tokens=True)
            if token in body["stop_token_ids"] or any(stop in text for stop in body["stop"]):
                finish = "stop"
                break
            if len(ids) == body["max_tokens"]:
                finish = "length"
                break
        choice = {"token_ids": ids, "prompt_token_ids": body["prompt"], "logprobs": {"token_logprobs": logprobs}}
        details = {"cached_tokens": len(body["prompt"]) // 16 * 16}
        return {"choices": [{**choice, "finish_reason": finish}], "usage": {"prompt_tokens_details": details}}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is no news."""


def _handler(fake: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections stay open

        def setup(self) -> None:
            super().setup()
            with fake.lock:
                fake.open.add(self.connection)

        def finish(self) -> None:
            with fake.lock:
                fake.open.discard(self.connection)
            super().finish()

        def do_GET(self) -> None:
            self.reply({})

        def do_POST(self) -> None:
            self.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def reply(self, body: dict) -> None:
            fake.asked.append((self.path, body))
            fake.headers.append(dict(self.headers))
            try:
                status, content = fake.answer(self.path, body)
            except ConnectionAbortedError:
                self.close_connection = True
                return
            data = (content if isinstance(content, str) else json.dumps(content)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(content, str) else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
