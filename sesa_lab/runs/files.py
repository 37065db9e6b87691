"""Files that are either all there or not at all, and errors that name the file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from sesa_lab.errors import InputError


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns an error of Arrow or the system in the body into one ``InputError`` that names ``path``."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise InputError(
            f"cannot read {str(path)!a}: its name is not UTF-8, and Arrow reads no such path; rename the folder"
        ) from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}; restore it from a copy, or make the run again") from error


def write_atomic(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """``write(file)`` into a temporary file, on disk, then renamed to ``path``; a failure leaves ``path`` as it was."""
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_json(path: Path, data: Any) -> None:
    """``data`` as JSON a person can read, atomically."""
    text = json.dumps(data, indent=2, allow_nan=False) + "\n"
    write_atomic(path, lambda file: file.write(text.encode()))


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """The JSON object in ``path``; an ``InputError`` with file and ``remedy`` where it cannot be read."""
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; {remedy}") from error
    except ValueError as error:
        raise InputError(f"{path} is truncated or no JSON ({error}); {remedy}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(data).__name__}; {remedy}")
    return data


def sync(path: Path) -> None:
    """Forces a file, or the entries of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def describe(path: Path) -> dict[str, Any]:
    """``{"bytes": size, "sha256": hex digest}`` of a file."""
    with open(path, "rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def difference(path: Path, expected: dict[str, Any]) -> str | None:
    """How the file differs from what ``describe`` said of it, in words; None where it does not."""
    if not path.is_file():
        return f"{path} is missing"
    if path.stat().st_size != expected["bytes"]:
        return f"{path} has {path.stat().st_size} bytes, {expected['bytes']} were written"
    return None if describe(path) == expected else f"{path} has other content than was written (sha256 differs)"
