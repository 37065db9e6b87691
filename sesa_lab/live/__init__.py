"""Training that does not hold the notebook: a process of its own, and a panel to watch, pause, stop and resume it.

``train`` starts a run and returns at once, ``attach`` opens the panel of a run that is there already: after a kernel's restart,
in another notebook, or of one that the command line started. The process is the one that writes the run folder; this kernel and
it talk by small files alone (``folder.py``), so that either may go away without the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sesa_lab.live.run import LiveRun

__all__ = ["attach", "train"]


def train(
    environment: str = "path_exploration",
    *,
    out: str | Path,
    preset: str | None = None,
    **settings: Any,
) -> LiveRun:
    """Start a training run in a process of its own; its panel is what a notebook shows of the value returned.

    The settings are checked here, before anything is started or written; what only turns out when the policy is read (a model
    folder that is not there, too little memory) ends the process, and the panel says why. The process goes on when the
    notebook's tab is closed, and when its kernel is restarted or dies.

    Args:
        environment: its name; its own options go in as ``options={...}``.
        out: folder of the run; must be new or empty.
        preset: ``paper`` or ``lab``, a bundle of settings that ``settings`` may override.
        **settings: any setting of ``sesa_lab.config`` by its flat name, as for ``sesa_lab.train``.

    Raises:
        InputError: an unknown or unfit setting, or ``out`` is in use.
    """
    # Here and below, not above: the training process is a module of this package and does without widgets and figures.
    from sesa_lab import environments
    from sesa_lab.config import Config, sections
    from sesa_lab.live import process
    from sesa_lab.live.run import LiveRun

    config = Config.build(preset, **sections({"environment": environment, **settings}))
    environments.make(config.environment.name, **config.environment.options)
    return LiveRun(process.begin(config, out))


def attach(run: str | Path) -> LiveRun:
    """The panel of a run that is there: being trained by whichever process, paused, stopped, failed or finished.

    Args:
        run: the run folder.

    Raises:
        InputError: there is neither a run nor one that was to begin there.
    """
    from sesa_lab.live.folder import Folder
    from sesa_lab.live.run import LiveRun

    return LiveRun(Folder.of_run(run))
