"""Runs here are written in no time, see ``quick_runs``. Toys are those of other rooms' tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from stored_runs import row, write

from sesa_lab import playground

sys.path[:0] = [str(Path(__file__).parents[1] / room) for room in ("engines", "samplers", "training")]


@pytest.fixture(scope="module", autouse=True)
def _quick(quick_runs: None) -> None:
    pass


@pytest.fixture(scope="module")
def three(_quick: None, tmp_path_factory: pytest.TempPathFactory) -> playground.Step:
    """The three candidates of ``stored_runs``; rewards, and so advantages, 2, -1 and -1."""
    return playground.read(write(tmp_path_factory.mktemp("three") / "run", [row(0), row(1), row(2)]))
