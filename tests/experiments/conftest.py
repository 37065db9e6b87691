"""Small policies are made by tests/engines/tiny_models.py."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "engines"))


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Of a run in a storage."""
    if request.param == "file":
        yield f"file://{tmp_path}/storage/group/run"
        return
    yield "memory://storage/group/run"
    fsspec.filesystem("memory").store.clear()
