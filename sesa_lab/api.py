"""Three lines of Python: train, resume, load. Settings go by the names of the command line's options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sesa_lab import runs
from sesa_lab.config import Config, sections
from sesa_lab.team import first
from sesa_lab.training import loop

load = runs.load


def train(
    environment: str = "path_exploration",
    *,
    out: str | Path,
    preset: str | None = None,
    progress: bool = True,
    **settings: Any,
) -> runs.Run:
    """Train a policy and return its run.

    Args:
        environment: its name; its own options go in as ``options={...}``.
        out: folder of the run; must be new or empty.
        preset: ``paper`` or ``lab``, a bundle of settings that ``settings`` may override.
        progress: a progress bar with the remaining time on stderr.
        **settings: any setting of ``sesa_lab.config`` by its flat name, e.g. ``sampler="sequential"``, ``steps=200``.

    Raises:
        InputError: an unknown or unfit setting, or ``out`` is in use.
    """
    return train_config(
        Config.build(preset, **sections({"environment": environment, **settings})), out, progress=progress
    )


def train_config(config: Config, out: str | Path, *, progress: bool = True) -> runs.Run:
    """``train`` for settings that are a ``Config`` already."""
    with _Bar(config.run.steps, 0, progress) as bar:
        return load(loop.train(config, out, bar.advance))


def resume(out: str | Path, *, progress: bool = True) -> runs.Run:
    """Continue a run from its last checkpoint to its last step and return it.

    Raises:
        InputError: not a run folder, a damaged checkpoint, or another process is writing to it.
    """
    run = runs.load(out)
    done = run.checkpoints[-1][0] if run.checkpoints else 0
    with _Bar(run.config.run.steps, done, progress) as bar:
        return load(loop.resume(out, bar.advance))


class _Bar:
    """A tqdm bar that shows the last exact evaluation beside the remaining time."""

    def __init__(self, steps: int, done: int, shown: bool) -> None:
        self.bar = tqdm(
            total=steps,
            initial=done,
            desc="training",
            unit="step",
            file=sys.stderr,
            disable=not (shown and first()),
            delay=0.01,
        )

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def advance(self, step: int, metrics: dict[str, Any]) -> None:
        self.bar.update(1)
        if "coverage" in metrics:
            self.bar.set_postfix_str(
                f"accuracy {metrics['accuracy']:.2f}, coverage@{metrics['coverage_k']} {metrics['coverage']:.1f}"
            )
