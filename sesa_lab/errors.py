"""The one exception that a user's mistake raises."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

UNSEEN = (
    (0x00, 0x1F), (0x7F, 0x9F), (0xAD, 0xAD), (0x034F, 0x034F), (0x061C, 0x061C), (0x115F, 0x1160), (0x17B4, 0x17B5),
    (0x180B, 0x180F), (0x200B, 0x200F), (0x2028, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xD800, 0xDFFF), (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0), (0xFFF9, 0xFFFB), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE007F),
)  # fmt: skip
"""Characters, from the first to the last of each pair, that steer a terminal, change the direction of text, break a line, cannot
be written as UTF-8, or are not to be seen. The one list: ``widgets/inspector.js`` has a copy, which a test holds equal."""

_UNSEEN = re.compile("[" + "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in UNSEEN) + "]")


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


def visible(text: str) -> str:
    """What is ``UNSEEN`` as a dot, for a page: blanks of other scripts, which ``printable`` takes too, stay."""
    return _UNSEEN.sub("\u00b7", text)


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
