"""Where things lie in a run folder, and how its small files are read. Reads only."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from sesa_lab.config import Config
from sesa_lab.errors import InputError
from sesa_lab.runs.files import read_json

CONFIG = "config.json"
ENVIRONMENT = "environment.json"
PROMPTS = "prompts.json"
LINEAGE = "lineage.json"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
STATE = "state.json"
LOCK = ".lock"
TEMPORARY = ".tmp-"
"""Files and folders whose name starts so are half written and belong to no commit."""


def step_name(step: int) -> str:
    """``step-000050``; more digits where six do not do."""
    return f"step-{step:06d}"


def part(path: Path, kind: str, step: int) -> Path:
    """The parquet part of ``kind`` that is committed with ``step``."""
    return path / kind / f"{step_name(step)}.parquet"


def numbered(folder: Path, suffix: str = "") -> list[tuple[int, Path]]:
    """``(step, path)`` of the entries ``step-<digits><suffix>`` in ``folder``, by step; empty where it is no folder."""
    if not folder.is_dir():
        return []
    pattern = re.compile(r"step-(\d{6,})" + re.escape(suffix))
    found = [(int(match[1]), folder / name) for name in os.listdir(folder) if (match := pattern.fullmatch(name))]
    return sorted(found)


def checkpoints(path: Path) -> list[tuple[int, Path]]:
    """``(step, folder)`` of the checkpoints of the run folder ``path``, oldest first."""
    return numbered(path / CHECKPOINTS)


def parts(path: Path, kind: str) -> list[tuple[int, Path]]:
    """``(step, file)`` of the parquet parts of ``kind`` (``rollouts`` or ``evaluations``), oldest first."""
    return numbered(path / kind, ".parquet")


def is_run(path: Path) -> bool:
    """Whether ``path`` is a run folder. A model folder has a config.json too, so environment.json must be there."""
    return os.path.isfile(path / CONFIG) and os.path.isfile(path / ENVIRONMENT)


def check_run(path: Path) -> None:
    """Raises ``InputError`` where ``path`` is no run folder."""
    if not os.path.exists(path):
        raise InputError(
            f"no run folder at {path}: nothing readable is there; check the path, or make one with `sesa-lab train`"
        )
    if not is_run(path):
        lacking = ENVIRONMENT if os.path.isfile(path / CONFIG) else CONFIG
        raise InputError(f"{path} is no run folder: it has no {lacking}; expected a folder made by `sesa-lab train`")


def read_config(path: Path) -> Config:
    """The config of the run folder ``path``; an ``InputError`` naming config.json where it is damaged or unknown."""
    file = path / CONFIG
    data = read_json(file, "restore it from a copy, or start the run anew with another --out")
    try:
        return Config.from_dict(data)
    except (ValueError, TypeError) as error:
        raise InputError(f"{file} does not hold a config of this version: {error}; mend it by hand") from error


def read_prompts(path: Path) -> dict[str, str] | None:
    """prompts.json of the run folder ``path``; None where a run has none; an ``InputError`` naming it where it is damaged."""
    file = path / PROMPTS
    if not file.exists():
        return None
    remedy = "restore it from a copy, or remove it (what is lost is what the policy was asked)"
    texts = read_json(file, remedy)
    if not all(isinstance(text, str) for text in texts.values()):
        raise InputError(f"{file}: expected a text for each template; {remedy}")
    return texts


def read_environment(path: Path) -> dict[str, Any]:
    """environment.json of the run folder ``path``; an ``InputError`` naming it where it is damaged."""
    return read_json(path / ENVIRONMENT, "restore it from a copy, or write {} into it (what is lost are its facts)")
