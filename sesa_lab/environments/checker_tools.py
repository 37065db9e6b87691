"""What the parts of the contract checker share: how a breach is told, guarded calls, and texts that must be stood."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

from sesa_lab.environments.contract import Environment
from sesa_lab.errors import InputError

Result = TypeVar("Result")

SECONDS = 2.0
"""CPU seconds one call on one text may take; 10 MB are dealt with in milliseconds where time is linear."""

MARKUP = "<script>alert(1)</script>"
ATTRIBUTE = "\"'><img src=x onerror=alert(1)>"
HOSTILE = {
    "nothing": "",
    "blanks": " \n\t\u00a0\u3000",
    "control characters": "\x00\x01\x1b[31m\x7f\r\x08",
    "direction marks": "\u202e\u200f\u200e\u2066",
    "emoji": "🏆👩\u200d👩\u200d👧🏳\ufe0f",
    "lone surrogates": "\ud800\udfff",
    "code": "__import__('os').system('exit 1')",
    "markup": MARKUP + "{{7*7}}%s%n{0}",
    "the end of an attribute": ATTRIBUTE,
    "a tower of powers": "9**9**9**9",
    "digits of other scripts": "٣²Ⅷ",
    "deep parentheses": "(" * 20_000 + ")" * 20_000,
    "a number of 100,000 digits": "9" * 100_000,
}
GARBAGE = ("a", "(", " ", "9+", "a-", "a > ")
GARBAGE_LENGTHS = (10_000, 40_000, 160_000, 640_000, 2_500_000, 10_000_000)
_PLACES = 12  # of an answer, at which markup is put into it
_NOT_STORED = "text is passed through that cannot be stored: lone surrogates, no text at all"


def fail(env: Environment, came: str, expected: str, cause: str) -> NoReturn:
    """Tell a breach.

    Raises:
        InputError: always.
    """
    raise InputError(f"environment {env.name!r}: {came}; expected {expected}; likely cause: {cause}")


def equal(env: Environment, what: str, came: Any, expected: Any, cause: str) -> None:
    """Fail unless ``came`` equals ``expected``."""
    try:
        differs = bool(came != expected)
    except (TypeError, ValueError) as error:  # arrays
        fail(env, f"{what} cannot be compared by == ({error})", "plain values", "a numpy array among them")
    if differs:
        fail(env, f"{what}: {short(came)}", short(expected), cause)


def short(value: Any) -> str:
    """``value`` for a message: at most 200 ASCII characters."""
    text = ascii(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def check_text(env: Environment, what: str, value: Any) -> None:
    """Fail unless ``value`` is text that can be written to a file: UTF-8 has no lone surrogates."""
    try:
        value.encode()
    except (AttributeError, UnicodeEncodeError):
        fail(env, f"{what} is {short(value)}", "text that UTF-8 can write", _NOT_STORED)


def guarded(env: Environment, method: str, label: str, call: Callable[[], Result]) -> Result:
    """What ``call`` gives; fail where it raises or takes more than ``SECONDS``.

    Args:
        env: what is checked.
        method: the method called, for the message.
        label: the text it is called on, in words.
        call: takes nothing.
    """
    start = time.process_time()
    try:
        result = call()
    except Exception as error:
        fail(env, f"{method} raises {type(error).__name__} on {label} ({short(str(error))})", "no error on any text",
             "the text is parsed without a guard: length, recursion, int() of many digits, encoding")  # fmt: skip
    seconds = time.process_time() - start
    if seconds > SECONDS:
        fail(env, f"{method} takes {seconds:.1f} CPU s on {label}", f"at most {SECONDS} s", "a loop or regex of more than"
             " linear time; cap the length of the text before anything else")  # fmt: skip
    return result


def hostile_texts(answer: str) -> dict[str, str]:
    """Label -> text: ``HOSTILE``, and ``answer`` spoilt by it in every way the checker knows."""
    after = {f"an answer with {label}": answer + text for label, text in HOSTILE.items() if len(text) < 100}
    places = sorted({len(answer) * place // _PLACES for place in range(_PLACES)})
    within = {
        f"an answer with markup at character {place}": answer[:place] + markup + answer[place:]
        for place in places
        for markup in (MARKUP, ATTRIBUTE)
    }
    return {**HOSTILE, **after, **within, "an answer 1,000 times over": answer * 1_000}


def garbage_texts() -> Iterator[tuple[str, str]]:
    """Label and text; longer and longer, so that what is slow is caught while it is still quick."""
    for piece in GARBAGE:
        for length in GARBAGE_LENGTHS:
            yield f"{length:,} characters of {piece!r}", piece * (length // len(piece))
