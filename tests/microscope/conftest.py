"""Runs without what costs time: facts about the checkout, and waiting for the disk."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from sesa_lab.runs import environment


@pytest.fixture(scope="module", autouse=True)
def _facts() -> Iterator[None]:
    # Of a module: what follows in other rooms has its own facts again.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "git", lambda folder: {"commit": "0123456789", "dirty": True})
        patch.setattr(os, "fsync", lambda handle: None)
        yield
