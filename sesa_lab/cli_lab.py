"""The command ``sesa-lab lab``: JupyterLab on the notebooks, with what they need of its settings."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from sesa_lab.errors import InputError

TEXT = (
    "Open JupyterLab on the notebooks, at the one to start with. Widgets answer when no cell runs (a callback inside a running"
    " cell would change what it works on), and JupyterLab asks no website for news; its settings menu changes both."
)
START = "00_start_here.ipynb"
CONFIG = Path(__file__).parent / "jupyter"
"""A folder of Jupyter configuration. ``labconfig/`` in it are defaults, which a user's own settings override."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The command's options."""
    command.add_argument(
        "folder", nargs="?", metavar="FOLDER", default="notebooks", help="the notebooks (default: notebooks)"
    )
    command.add_argument("--port", type=int, metavar="N", help="port on this machine (default: 8888, or the next free)")
    command.add_argument("--no-browser", action="store_true", help="print the address, open nothing")


def run(chosen: argparse.Namespace) -> None:
    """Become JupyterLab: from here on this process is its server, Ctrl-C included.

    Raises:
        InputError: no such folder, or no such port.
    """
    command = command_of(chosen, root=os.geteuid() == 0)
    os.execve(command[0], command, environment(os.environ))


def command_of(chosen: argparse.Namespace, *, root: bool) -> list[str]:
    """The command line of JupyterLab; ``root``: the user is root, whom it refuses unless told otherwise.

    Raises:
        InputError: no such folder, or no such port.
    """
    folder = Path(chosen.folder)
    if not folder.is_dir():
        raise InputError(
            f"no folder {chosen.folder!r} here; expected that of the notebooks: go to the checkout, or name it"
        )
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder.resolve()}"]
    if (folder / START).is_file():
        command.append(f"--LabApp.default_url=/lab/tree/{START}")
    if chosen.port is not None:
        if not 1 <= chosen.port <= 65_535:
            raise InputError(f"--port {chosen.port}; expected 1 to 65535")
        command.append(f"--ServerApp.port={chosen.port}")
    return command + ["--no-browser"] * chosen.no_browser + ["--allow-root"] * root


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """``given``, with our defaults of JupyterLab's settings before those of other places."""
    others = given.get("JUPYTER_CONFIG_PATH")
    return {**given, "JUPYTER_CONFIG_PATH": os.pathsep.join([str(CONFIG), *([others] if others else [])])}
