"""What a cell of somebody's log says: the text of a completion, a verdict, a number, the key of a group.

A cell is what JSON, CSV or Parquet give: text, a number, true or false, nothing, a list, an object. Completions of chats are lists
of messages, ``{"role": ..., "content": ...}``, whose content is a text, nothing, or a list of parts (text, image ...), beside
which there may be ``reasoning_content`` and ``tool_calls`` (objects, or JSON in a string, as verifiers writes them).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from sesa_lab.errors import InputError, short

WORDS = {
    **dict.fromkeys(("true", "yes", "correct", "pass", "passed"), 1.0),
    **dict.fromkeys(("false", "no", "incorrect", "fail", "failed"), 0.0),
}
NOTHING = ("", "nan", "none", "null", "n/a")


def is_nothing(cell: Any) -> bool:
    """Whether a cell is empty: None or NaN. An empty text is a text."""
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def text_of(cell: Any) -> str:
    """The text of a completion.

    Of messages, what the assistant said: thoughts, contents and tool calls of all its turns, without what users and tools answered;
    all messages where none is the assistant's. Parts that are no text stand as their type in brackets: ``[image]``. Nothing is an
    empty text; objects that are no message are their JSON.
    """
    if isinstance(cell, str):
        return cell
    if isinstance(cell, list):
        said = [each for each in cell if isinstance(each, Mapping) and each.get("role") == "assistant"]
        return "\n\n".join(filter(None, map(_message, said or cell)))
    return "" if is_nothing(cell) else _message(cell)


def messages_in(cell: Any) -> list[Any] | None:
    """The chat messages that a text holds as JSON, which is how CSV can hold them; None where a cell is anything else."""
    if not isinstance(cell, str) or not re.match(r"\s*\[\s*\{", cell):
        return None
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError):
        return None
    return found if all(isinstance(each, dict) and {"role", "content"} <= each.keys() for each in found) else None


def key_of(cell: Any) -> str | None:
    """What tells a group, or a strategy, from others; None where the cell is empty.

    Numbers are equal to their texts, and 3.0 to 3: CSV has texts where JSON has numbers, and pandas floats where some are missing.
    Lone surrogates are written out, since pandas cannot sort by them.
    """
    if is_nothing(cell):
        return None
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, (list, Mapping)):
        return _json(cell)
    return _plain(cell).encode("utf-8", "backslashreplace").decode()


def number_of(cell: Any, where: str) -> float:
    """A cell as a number: true is 1, false 0, an empty cell NaN; numbers and verdicts may be written out.

    Args:
        cell: any.
        where: named in the message.

    Raises:
        InputError: a list, an object, or a text that is neither a number nor a verdict.
    """
    if is_nothing(cell):
        return math.nan
    if isinstance(cell, str):
        word = cell.strip().lower()
        if word in NOTHING:
            return math.nan
        if word in WORDS:
            return WORDS[word]
    if isinstance(cell, (str, bool, int, float, Decimal)):
        try:
            return float(cell)
        except ValueError:
            pass
        except OverflowError:  # whole numbers beyond 1e308
            return math.inf if cell > 0 else -math.inf  # type: ignore[operator]
    raise InputError(
        f"{where} holds {short(cell)}, expected a number, true or false, or nothing: choose another column, or mend the file"
    )


def verdict_of(cell: Any, threshold: float, where: str) -> float:
    """Whether a sample is right: 1, 0, or NaN where it was not judged.

    Truth values and their words are what they say, whatever the threshold; a number counts as right above it.

    Raises:
        InputError: as ``number_of``.
    """
    number = number_of(cell, where)
    if math.isnan(number):
        return math.nan
    said = isinstance(cell, bool) or (isinstance(cell, str) and cell.strip().lower() in WORDS)
    return float(number > (0.0 if said else threshold))


def numeric(cells: Sequence[Any]) -> bool | None:
    """Whether a column holds numbers or verdicts and nothing else; None where it is empty throughout."""
    try:
        return None if all([math.isnan(number_of(cell, "")) for cell in cells]) else True
    except InputError:
        return False


def _message(message: Any) -> str:
    """What one message says, its parts a line each."""
    if not isinstance(message, Mapping):
        return _part(message)
    if not {"role", "content", "tool_calls", "reasoning_content"} & message.keys():
        return _part(message)
    thoughts = message.get("reasoning_content")
    content = message.get("content")
    calls = message.get("tool_calls")
    said = [thoughts if isinstance(thoughts, str) else ""]
    said += map(_part, content) if isinstance(content, list) else [_part(content)]
    said += map(_call, calls) if isinstance(calls, list) else [_part(calls)]
    return "\n".join(filter(None, said))


def _part(part: Any) -> str:
    """A part of a message's content."""
    if isinstance(part, Mapping):
        if isinstance(part.get("text"), str):
            return str(part["text"])
        return f"[{_plain(part['type'])}]" if isinstance(part.get("type"), str) else _json(part)
    return "" if is_nothing(part) else _plain(part)


def _call(call: Any) -> str:
    """A tool call as its name and arguments; without its id, which is random."""
    if isinstance(call, Mapping):
        function = call.get("function", call)
        if isinstance(function, Mapping) and "name" in function:
            return f"{_plain(function['name'])}({_plain(function.get('arguments') or '')})"
    return _plain(call)


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, bool):
        return "true" if value else "false"
    return _json(value) if isinstance(value, (list, Mapping)) else str(value)


def _json(value: Any) -> str:
    """The same text for equal values; ASCII, so that it can be shown."""
    try:
        return json.dumps(value, sort_keys=True, default=str)
    except (RecursionError, TypeError):  # nested thousands deep; keys of several types
        return "[object]"
