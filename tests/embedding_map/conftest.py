"""Runs here are written in no time, see ``quick_runs``."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def _quick(quick_runs: None) -> None:
    pass
