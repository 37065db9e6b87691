"""The one exception that a user's mistake raises."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


class InputError(ValueError):
    """Bad input from outside: a config, a task file, a model folder, a run folder, a parameter.

    The message says what came, what was expected and how to mend it. The command line prints it in one line and exits
    with code 2; everything else (a bug of ours) stays an ordinary traceback.
    """


class NotebookError(RuntimeError):
    """A cell of an executed notebook failed; the message names notebook, cell and error, and the partial output."""


def suggest(name: str, known: list[str] | tuple[str, ...]) -> str:
    """``'did you mean X? known: A, B, X'`` for an unknown ``name`` among ``known``."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(sorted(known))}"


def printable(text: str) -> str:
    """What is not printable, and would steer a terminal, as a dot: names of files, and what others wrote, may hold it."""
    return "".join(c if c.isprintable() else "\u00b7" for c in text)


def first_line(error: Exception) -> str:
    """What another library's error says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def short(value: object) -> str:
    """A value that came, for a message: ASCII, at most 80 characters."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


@contextlib.contextmanager
def writing(path: Path, remedy: str) -> Iterator[None]:
    """Turns an ``OSError`` of the body (disk full, no permission ...) into one ``InputError`` with path and remedy."""
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, (str, Path)) else path
        raise InputError(f"cannot write {where}: {error.strerror or error}; {remedy}") from error
