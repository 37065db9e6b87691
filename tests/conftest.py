"""What holds for every test: one thread, no network, no model hub, no luck."""

from __future__ import annotations

import os

# Before anything imports torch: sums are then added in one order, and xdist's workers do not fight for cores.
# Subprocesses inherit all of it.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")
# Ray, which vLLM imports too, reads these once: a cluster of the tests obeys nobody else, and reports to nobody.
os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="token")
os.environ.setdefault("RAY_AUTH_TOKEN", os.urandom(32).hex())

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("lab", derandomize=True, deadline=None, database=None)
settings.load_profile("lab")

ROOT = Path(__file__).resolve().parents[1]
LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1"}


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def browser_path() -> str:
    """A Chromium, for tests marked ``browser``; `make test` installs one."""
    names = (os.environ.get("SESA_LAB_BROWSER", ""), "chromium", "chromium-browser", "google-chrome")
    found = [path for path in map(shutil.which, filter(None, names)) if path]
    if not found:
        pytest.fail("no chromium: run `make test`, or (as root) apt-get install -y chromium")
    return found[0]


@pytest.fixture(scope="module")
def quick_runs() -> Iterator[None]:
    """Runs without what costs time: facts about the checkout, and waiting for the disk. Of a module: others have their own."""
    from sesa_lab.runs import environment

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "git", lambda folder: {"commit": "0123456789", "dirty": True})
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for another machine fails at once, with the address in the message."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOCAL_HOSTS:
            raise AssertionError(f"a test tried to connect to {address}: tests run without network")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)
