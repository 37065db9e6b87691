"""What a run depends on besides its config: machine, library versions, the commit of the code."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "transformers", "peft", "numpy", "sesa_lab")
PROJECT = Path(__file__).resolve().parents[2]
RESULTS = "reports"
"""Of a checkout: what is written from runs. A change there is no change of what makes runs."""


def facts(seed: int) -> dict[str, Any]:
    """What environment.json holds when a run starts; JSON-able.

    ``torch_threads`` and ``gpu`` are None where torch is not loaded in this process (it is not loaded for this alone).
    """
    torch = sys.modules.get("torch")
    cuda = torch is not None and torch.cuda.is_available()
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch is not None and cuda else None,
        "processes": int(os.environ.get("WORLD_SIZE", "1")),  # as `accelerate launch` starts them
        "torch_threads": torch.get_num_threads() if torch is not None else None,
        "versions": {name: _version(name) for name in LIBRARIES},
        "git": git(PROJECT),
    }


def resumed(before: dict[str, Any], now: dict[str, Any], step: int) -> dict[str, Any]:
    """``before`` with one more entry under ``resumed``: from which step, when, and which facts are others now.

    A run is the same bit for bit only on one machine with the same versions; this entry shows where that was broken.
    """
    changed = {key: value for key, value in now.items() if key != "started" and before.get(key) != value}
    entry = {"step": step, "started": now["started"], "changed": changed}
    return {**before, "resumed": [*before.get("resumed", []), entry]}


def commit_of(facts: dict[str, Any]) -> str | None:
    """Of ``facts``: the commit of the code, with ``+`` where the checkout had changes; None: not known."""
    git = facts.get("git")
    return f"{git['commit']}{'+' if git['dirty'] else ''}" if git else None


def short_commit(commit: str) -> str:
    """Seven digits, and the ``+`` of a checkout that had changes."""
    return commit[:7] + ("+" if commit.endswith("+") else "")


def git(folder: Path) -> dict[str, Any] | None:
    """``{"commit": hash, "dirty": bool}`` of the checkout whose root is ``folder``, but for ``RESULTS``; None where it is none.

    An installed copy inside somebody else's repository is not that repository's commit, hence the root.
    """
    root = _git(folder, "rev-parse", "--show-toplevel")
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--", ".", f":(exclude){RESULTS}")
    if root is None or commit is None or changes is None or Path(root).resolve() != folder.resolve():
        return None
    return {"commit": commit, "dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    # Without GIT_*: inside a git hook they would point at another repository. No optional locks: a read stays a read.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return getattr(sys.modules.get(library), "__version__", None)


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
