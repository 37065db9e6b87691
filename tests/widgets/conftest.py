"""Small policies are made by tests/engines/tiny_models.py; tests/training and tests/samplers have a world of several turns."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sesa_lab.widgets import SketchInspector

sys.path[:0] = [str(Path(__file__).parents[1] / room) for room in ("engines", "samplers", "training")]


@pytest.fixture
def opened() -> Iterator[Callable[..., SketchInspector]]:
    """Opens inspectors; all of them are closed at the end, with their threads."""
    widgets = []

    def made(*args: Any, **kwargs: Any) -> SketchInspector:
        widgets.append(SketchInspector(*args, **kwargs))
        return widgets[-1]

    yield made
    for widget in widgets:
        widget.close()
