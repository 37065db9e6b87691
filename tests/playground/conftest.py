"""Runs without what costs time: facts about the checkout, and waiting for the disk. Toys are those of other rooms' tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stored_runs import row, write

from sesa_lab import playground
from sesa_lab.runs import environment

sys.path[:0] = [str(Path(__file__).parents[1] / room) for room in ("engines", "samplers", "training")]


@pytest.fixture(scope="module", autouse=True)
def _facts() -> Iterator[None]:
    # Of a module: what follows in other rooms has its own facts again.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "git", lambda folder: {"commit": "0123456789", "dirty": True})
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="module")
def three(_facts: None, tmp_path_factory: pytest.TempPathFactory) -> playground.Step:
    """The three candidates of ``stored_runs``; rewards, and so advantages, 2, -1 and -1."""
    return playground.read(write(tmp_path_factory.mktemp("three") / "run", [row(0), row(1), row(2)]))
