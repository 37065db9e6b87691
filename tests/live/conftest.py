"""No training process outlives a test."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sesa_lab.live import process
from sesa_lab.live.folder import Folder


@pytest.fixture(autouse=True)
def _none_left(tmp_path: Path) -> Iterator[None]:
    yield
    for files in tmp_path.rglob("process.json"):
        known = Folder(files.parent, files.parent).process()
        if known is not None and known.alive and known.pid != os.getpid():
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(known.pid).kill()
    for child in process._children:
        child.wait(30)
    process.reap()
