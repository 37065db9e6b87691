"""Training: credit within a group, the update rule, and the loop that joins all rooms.

``train(config, out)``, ``resume(out)`` and ``Trainer`` are the loop's; they are imported on first use, so that the pure
functions of ``credit`` and ``losses`` do not load the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["Trainer", "resume", "train"]

if TYPE_CHECKING:
    from sesa_lab.training.loop import Trainer, resume, train


def __getattr__(name: str) -> Any:
    if name in __all__:
        from sesa_lab.training import loop

        return getattr(loop, name)
    raise AttributeError(f"module 'sesa_lab.training' has no attribute {name!r}")
