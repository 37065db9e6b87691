"""A workbench for sequential sampling (SESA, arXiv 2510.15502) in reinforcement learning of language models.

import sesa_lab
run = sesa_lab.train("path_exploration", preset="lab", steps=100, seed=0, out="runs/x")
run.evaluations.plot(x="step", y="coverage", backend="plotly")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["live", "load", "resume", "train"]

if TYPE_CHECKING:
    from sesa_lab import live
    from sesa_lab.api import load, resume, train


def __getattr__(name: str) -> Any:
    """Import them on first use: torch takes seconds to load, and most rooms do without it."""
    if name == "live":
        return import_module("sesa_lab.live")
    if name in __all__:
        from sesa_lab import api

        return getattr(api, name)
    raise AttributeError(f"module 'sesa_lab' has no attribute {name!r}")
