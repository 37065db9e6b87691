"""Checkpoint folders: written under a temporary name, described, synced, renamed once; checked before they are used."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sesa_lab.errors import InputError
from sesa_lab.runs import layout
from sesa_lab.runs.files import describe, difference, read_json, sync, write_json


@dataclass(frozen=True)
class State:
    """state.json of a checkpoint.

    Attributes:
        step: the last step it holds.
        metrics_bytes: length of metrics.jsonl when it was made; what lies beyond belongs to no commit.
        files: size and sha256 of its files, by path within the checkpoint folder.
        parts: the same of the parquet parts committed with it, by path within the run folder.
    """

    step: int
    metrics_bytes: int
    files: dict[str, dict[str, Any]]
    parts: dict[str, dict[str, Any]]


def folder(path: Path, step: int) -> Path:
    """Where the checkpoint of ``step`` lies in the run folder ``path``."""
    return path / layout.CHECKPOINTS / layout.step_name(step)


def write(path: Path, step: int, save: Callable[[Path], None], metrics_bytes: int, parts: list[Path]) -> None:
    """Makes the checkpoint of ``step`` in the run folder ``path``.

    ``save(folder)`` puts the adapter's and the optimiser's files there, subfolders allowed. Anything that fails before
    the one rename leaves no checkpoint.
    """
    final = folder(path, step)
    temporary = final.with_name(layout.TEMPORARY + final.name)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        save(temporary)
        files = sorted(file for file in temporary.rglob("*") if file.is_file())
        state = {
            "step": step,
            "metrics_bytes": metrics_bytes,
            "files": {file.relative_to(temporary).as_posix(): describe(file) for file in files},
            "parts": {part.relative_to(path).as_posix(): describe(part) for part in parts},
        }
        write_json(temporary / layout.STATE, state)
        for entry in [*temporary.rglob("*"), temporary]:
            sync(entry)
        os.rename(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync(final.parent)


def prune(path: Path, keep: int) -> None:
    """Deletes all but the newest ``keep`` checkpoints; renamed first, so that none is ever seen half deleted."""
    for _, old in layout.checkpoints(path)[:-keep]:
        doomed = old.with_name(layout.TEMPORARY + old.name)
        os.rename(old, doomed)
        shutil.rmtree(doomed)


def newest(path: Path) -> tuple[Path, State] | None:
    """The newest checkpoint of the run folder ``path``, verified; None where there is none.

    Raises:
        InputError: it is damaged. An older one is never taken silently: the message says what to delete for that.
    """
    found = layout.checkpoints(path)
    if not found:
        return None
    step, latest = found[-1]
    older = f"step {found[-2][0]}" if len(found) > 1 else "the start (there is no older one)"
    remedy = f"restore it from a copy, or delete the folder {latest} to resume from {older}"
    return latest, _verified(path, step, latest, remedy)


def verified(path: Path, step: int) -> State:
    """The checkpoint of ``step`` of the run folder ``path``.

    Raises:
        InputError: it is not there, or damaged.
    """
    own = folder(path, step)
    if not own.is_dir():
        raise InputError(f"no checkpoint at {own}; restore it from a copy")
    return _verified(path, step, own, "restore it from a copy")


def check_sizes(path: Path) -> None:
    """A look at whether what the newest checkpoint committed is still there: sizes, not contents. Quick, for many runs.

    Raises:
        InputError: metrics.jsonl or a part of it is missing or of another size.
    """
    found = layout.checkpoints(path)
    if not found:
        return
    own = found[-1][1]
    remedy = "restore it from a copy, or remove the run folder to have it made anew"
    state = _read(own, remedy)
    sizes = {name: entry["bytes"] for name, entry in state.parts.items()}
    for name, expected in {**sizes, layout.METRICS: state.metrics_bytes}.items():
        file = path / name
        size = file.stat().st_size if file.is_file() else 0
        if size < expected or (name in sizes and size > expected):
            raise InputError(f"{file} has {size} bytes, but had {expected} when {own} was written; {remedy}")


def _verified(path: Path, step: int, own: Path, remedy: str) -> State:
    state = _read(own, remedy)
    if state.step != step:
        raise InputError(f"{own / layout.STATE} is of step {state.step}, expected {step}; {remedy}")
    checks = [(own / name, expected) for name, expected in state.files.items()]
    checks += [(path / name, expected) for name, expected in state.parts.items()]
    for file, expected in checks:
        wrong = difference(file, expected)
        if wrong:
            raise InputError(f"checkpoint {own} is damaged: {wrong}; {remedy}")
    return state


def _read(latest: Path, remedy: str) -> State:
    file = latest / layout.STATE
    data = read_json(file, remedy)
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
        state = State(int(data["step"]), int(data["metrics_bytes"]), data["files"], data["parts"])
        described = [*state.files.values(), *state.parts.values()]
        if all({"bytes", "sha256"} == entry.keys() for entry in described):
            return state
    raise InputError(f"{file} is no checkpoint state: expected step, metrics_bytes, files and parts; {remedy}")
