"""Answers to problems of mathematics: which one a reply declares, and whether two are equal, by the library math-verify.

math-verify runs in one process of its own a process that asks: it computes what stands in the text, and a tower of powers
neither ends nor hears a signal handler. This file is that process's program too, so it imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.util import Finalize

LONGEST_TEXT = 100_000
"""Characters of a reply that are read, from its end."""
LONGEST_ANSWER = 300
"""Characters of an answer that is judged; a longer one is none (whole numbers may be of any length)."""
LIMIT = 3.0
"""Seconds of processor time that math-verify has for one pair of answers. Not of the clock: a busy machine judges alike."""
PATIENCE = 15.0
"""Seconds of the clock after which it is given up all the same."""
START = 120.0
"""Seconds of the clock that the process may take to begin."""
MEMORY = 2 << 30
"""Bytes of address space of that process, where the platform has such a limit."""
CACHED = 16_384
"""Pairs of answers whose judgement is kept."""

_BOX = re.compile(r"(\\(?:boxed|fbox)\s*\{)|\\.|[{}]", re.DOTALL)
_DECLARED = re.compile(
    r"(?:\banswer[\s*]*(?:is\b[\s*]*:?|:|=)|^####(?=[ \t]*[-+$\\(.0-9]))(?:[\s*$]|\\\[)*", re.IGNORECASE | re.MULTILINE
)
_SENTENCE_ENDS = re.compile(r"\n|\.\s")
_INTEGER = re.compile(r"([+-]?)([0-9]+|[1-9][0-9]{0,2}(?:,[0-9]{3})+)")
_EDGE = " \t\r\n\f\v$*"


def final_answer(text: str) -> str | None:
    r"""The answer that a reply declares; None where there is none, or where it is empty or longer than 300 characters.

    That is what the last ``\boxed{...}`` or ``\fbox{...}`` holds; without one, what follows the last "answer is",
    "answer:", "answer =" or, at the start of a line before a number, "####" (as in GSM8K), up to the end of its line or
    sentence. Signs around it ($, white space, asterisks, a final full stop) are left out. A box that is never closed is
    none. Only the last 100,000 characters are read; time is linear in their number.
    """
    text = text[-LONGEST_TEXT:]
    found = _last_box(text)
    return _usable(_declared(text) if found is None else found)


def boxed_answer(text: str) -> str | None:
    r"""As ``final_answer``, but from the last ``\boxed{...}`` or ``\fbox{...}`` alone."""
    return _usable(_last_box(text[-LONGEST_TEXT:]) or "")


def same(expected: str, answer: str) -> bool:
    r"""Whether an answer equals the expected one as mathematics. Any text may come; what cannot be read equals nothing.

    Whole numbers in ASCII digits, with a sign, leading zeros or commas at the thousands if they like, are compared as text
    without a conversion, whatever their length. All else is wrapped in ``\boxed{}``, and math-verify reads and compares the
    two by its own rules: 1/2 equals 0.5 and 50 %, 42 equals x = 42 and 42 cm, 1/3 equals 0.333333 (six decimals). False
    where one of them is empty or longer than 300 characters, or where math-verify takes more than 3 seconds of processor
    time, too much memory, or crashes. Judgements are cached. For any thread and process.

    Raises:
        RuntimeError: math-verify cannot be started at all.
    """
    expected, answer = _trimmed(expected), _trimmed(answer)
    left, right = _INTEGER.fullmatch(expected), _INTEGER.fullmatch(answer)
    if left and right:
        return _canonical(left) == _canonical(right)
    if not expected or not answer or max(len(expected), len(answer)) > LONGEST_ANSWER:
        return False
    return _judged(expected, answer)


def _last_box(text: str) -> str | None:
    opened: list[int] = []  # where the braces that are open began: what a box holds from there, -1 for braces of no box
    last, found = -1, None
    for match in _BOX.finditer(text):
        if match[1]:
            opened.append(match.end())
        elif match[0] == "{":
            opened.append(-1)
        elif match[0] == "}" and opened:
            begin = opened.pop()
            if begin > last:
                last, found = begin, (begin, match.start())
    return None if found is None else text[slice(*found)]


def _declared(text: str) -> str:
    end = -1
    for match in _DECLARED.finditer(text):
        end = match.end()
    return "" if end < 0 else _SENTENCE_ENDS.split(text[end:], maxsplit=1)[0]


def _usable(text: str) -> str | None:
    answer = _trimmed(text)
    return answer if 0 < len(answer) <= LONGEST_ANSWER else None


def _trimmed(text: str) -> str:
    text = text.strip(_EDGE).rstrip(_EDGE + ".\\")
    text = text.removeprefix("\\(").removeprefix("\\[").removesuffix("\\)").removesuffix("\\]")
    return text.strip().rstrip(_EDGE + ".\\")


def _canonical(whole: re.Match[str]) -> str:
    digits = whole[2].replace(",", "").lstrip("0") or "0"
    return f"-{digits}" if whole[1] == "-" and digits != "0" else digits


class _Judge:
    """The process that math-verify runs in, as the process that asks sees it: one line to it, one line back."""

    def __init__(self) -> None:
        # -P: this file's folder is not a place to import from. A fixed order of sets: what sympy does depends on it.
        command = [sys.executable, "-P", "-W", "ignore", __file__]
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        self._process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        assert self._process.stdin and self._process.stdout
        self._to, self._from = self._process.stdin, self._process.stdout
        try:
            reply = self._reply(START)
        except BaseException:
            self.stop()
            raise
        if reply != b"ready\n":
            self.stop()
            reason = reply.decode(errors="replace").strip() or f"exit code {self._process.returncode}"
            raise RuntimeError(f"math-verify, which judges answers, cannot be started: {reason}")

    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: bytes) -> bytes:
        """The reply's line, or nothing: it crashed, was out of time, or was dead before."""
        with contextlib.suppress(BrokenPipeError):
            self._to.write(request)
        return self._reply(PATIENCE)

    def was_killed(self) -> bool:
        """Whether somebody else ended it: no fault of the answer that it was asked about."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(0.1) in (-signal.SIGKILL, -signal.SIGTERM)
        return False

    def _reply(self, seconds: float) -> bytes:
        reply = b""
        with selectors.DefaultSelector() as ready:
            ready.register(self._from, selectors.EVENT_READ)
            while not reply.endswith(b"\n"):
                if not ready.select(seconds) or not (read := os.read(self._from.fileno(), 4096)):
                    return b""
                reply += read
        return reply

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self.forget()

    def forget(self) -> None:
        """Closes this side's ends; in a forked child, whose process it is not, that is all to be done."""
        self._process.returncode = self._process.returncode or 0
        for end in (self._to, self._from):
            with contextlib.suppress(OSError):
                end.close()


_lock = threading.Lock()
_judge: _Judge | None = None


@functools.lru_cache(maxsize=CACHED)
def _judged(expected: str, answer: str) -> bool:
    global _judge
    request = json.dumps([expected, answer]).encode() + b"\n"
    with _lock:
        for _ in range(2):
            if _judge is None or not _judge.alive():
                _stop()
                _judge = _Judge()
                Finalize(None, _stop, exitpriority=10)  # at exit; multiprocessing's children, too, which skip atexit
            try:
                reply = _judge.ask(request)
            except BaseException:  # an interrupt: a reply that nobody read must not answer the next question
                _stop()
                raise
            if reply or not _judge.was_killed():
                break
        if reply not in (b"1\n", b"0\n"):
            _stop()
    return reply.startswith(b"1")


def _stop() -> None:
    global _judge
    judge, _judge = _judge, None
    if judge is not None:
        judge.stop()


def _after_fork() -> None:
    global _judge, _lock
    _lock = threading.Lock()
    judge, _judge = _judge, None
    if judge is not None:
        judge.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _serve() -> None:
    """The other process: reads pairs as lines of JSON, answers 1 or 0 a line, with a mark when it should be replaced."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks; this one ends with its pipe
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints must not look like a reply
    _set_limits()
    try:
        equal = _comparison()
        equal("1/2", "0.5")  # the first one compiles patterns
    except BaseException as error:
        replies.write(f"{type(error).__name__}: {error}".replace("\n", " ").encode(errors="replace")[:500] + b"\n")
        return
    replies.write(b"ready\n")
    for line in sys.stdin.buffer:
        expected, answer = json.loads(line)
        # The system ends the process when its time is up: no Python code needs to run for that, and none could.
        signal.setitimer(signal.ITIMER_PROF, LIMIT)
        found = equal(expected, answer)
        signal.setitimer(signal.ITIMER_PROF, 0)
        replies.write((b"1" if found else b"0") + (b" replace me\n" if _swollen() else b"\n"))


def _set_limits() -> None:
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        most = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _swollen() -> bool:
    """Whether it ever held a quarter of the memory it may have: sympy's caches could then starve the next answers."""
    return _peak() > MEMORY // 4


def _peak() -> int:
    """Most bytes of memory that this process has held. What getrusage tells begins, on Linux, with the peak of its parent."""
    with contextlib.suppress(OSError), open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _comparison() -> Callable[[str, str], bool]:
    import logging

    logging.disable(logging.CRITICAL)
    from math_verify import LatexExtractionConfig, parse, verify

    # Of the text nothing but the box, as a whole: no number is dug out of words that are not understood.
    only_the_box = [LatexExtractionConfig(try_extract_without_anchor=False, boxed_match_priority=0)]

    def read(text: str) -> list[object]:
        return list(parse(f"\\boxed{{{text}}}", only_the_box, parsing_timeout=None))

    def equal(expected: str, answer: str) -> bool:
        try:
            return bool(verify(read(expected), read(answer), timeout_seconds=None))
        except Exception:  # RecursionError, MemoryError ...: not understood
            return False

    return equal


if __name__ == "__main__":
    _serve()
