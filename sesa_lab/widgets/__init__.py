"""Widgets for notebooks: they read run folders, and never see a trainer or a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["SketchInspector"]

if TYPE_CHECKING:
    from sesa_lab.widgets.inspector import SketchInspector


def __getattr__(name: str) -> Any:
    """Import a widget on first use: ipywidgets is not loaded by whoever only asks for data."""
    if name == "SketchInspector":
        from sesa_lab.widgets.inspector import SketchInspector

        return SketchInspector
    raise AttributeError(f"module 'sesa_lab.widgets' has no attribute {name!r}")
