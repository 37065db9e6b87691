"""Which answer a reply declares, and whether two answers are equal: math-verify's rules, and no text that breaks them."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sesa_lab.environments import math_answers
from sesa_lab.environments.math_answers import boxed_answer, final_answer, same


@pytest.fixture(scope="module", autouse=True)
def _no_process_left() -> Iterator[None]:
    yield
    math_answers._stop()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so \\boxed{42}.", "42"),
        ("\\boxed{1} and then \\boxed{2}", "2"),
        ("\\boxed{1} then \\fbox{2}", "2"),
        ("\\fbox{2} then \\boxed{1}", "1"),
        ("\\boxed{\\frac{1}{\\sqrt{2}}}", "\\frac{1}{\\sqrt{2}}"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{\\left\\{x : x > 1\\right.}", "\\left\\{x : x > 1\\right"),  # braces of the text do not count
        ("\\boxed{x = \\boxed{5}}", "5"),
        ("\\boxed {7}", "7"),
        ("$\\boxed{$7$}$", "7"),
        ("a } stray one, \\boxed{7}, and { another", "7"),
        ("\\boxed{5}, no, \\boxed{6", "5"),  # cut off: never closed
        ("\\boxed{5", None),
        ("\\boxed{}", None),
        ("\\boxed{ $ $ }", None),
        ("answer: 5, or rather \\boxed{}", None),
        ("\\boxedsomething{5}", None),
        ("\\boxed{" + "1" * 300 + "}", "1" * 300),
        ("\\boxed{" + "1" * 301 + "}", None),
        ("Answer: 5, in a box \\boxed{6}; answer: 7", "6"),
        ("The final answer is 42. I hope it is correct.", "42"),
        ("The final answer is $\\frac{1}{2}$.", "\\frac{1}{2}"),
        ("the answer is: 3.5 metres.\nGood luck", "3.5 metres"),
        ("Answer: 7", "7"),
        ("**Answer:** 7", "7"),
        ("**Final Answer**: $7$", "7"),
        ("Answer = .5.", ".5"),
        ("ANSWER:\n\n$$42$$", "42"),
        ("ANSWER:\n\\[ 42 \\]", "42"),
        ("Answer: \\(42\\).", "42"),
        ("answer: 1\nanswer: 2\n", "2"),
        ("He has 3 + 4 = 7 apples.\n#### 7", "7"),
        ("#### 1,000", "1,000"),
        ("Answer: 5\n#### Check\nfine", "5"),  # a heading
        ("Answer:", None),
        ("The answer is", None),
        ("answers: 5", None),
        ("42", None),
        ("", None),
        ("\0\x1b\ud800", None),
        ("\\boxed{5}" + " " * 99_991, "5"),
        ("\\boxed{5}" + " " * 99_992, None),  # the last 100,000 characters are read
    ],
)
def test_final_answer(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


def test_boxed_answer_reads_boxes_alone() -> None:
    assert boxed_answer("answer: 4, so \\boxed{5} is the answer: 6") == "5"
    assert boxed_answer("answer: 4") is None
    assert boxed_answer("\\boxed{}") is None


@pytest.mark.parametrize(
    ("expected", "answer", "equal"),
    [
        # fractions and decimals
        ("\\frac{1}{2}", "0.5", True),
        ("\\frac{1}{2}", "1/2", True),
        ("1/2", "\\frac{2}{4}", True),
        ("0.5", "\\dfrac12", True),
        ("\\frac{1}{2}", "-\\frac{1}{2}", False),
        ("1/3", "0.333333", True),  # six decimals
        ("1/3", "0.3333", False),
        ("1\\frac12", "3/2", True),
        ("0.10", "0.1", True),
        ("1", "0.9999", False),
        ("42", "42.0", True),
        # sets, intervals, pairs
        ("\\{1,2\\}", "\\{2,1\\}", True),
        ("\\{1,2\\}", "2, 1", True),
        ("\\{1,2\\}", "\\{1,2,3\\}", False),
        ("\\{1,2\\}", "1", False),
        ("(1,2)", "(1,2)", True),
        ("(1,2)", "(2,1)", False),
        ("[1,2)", "[1,2)", True),
        ("[1,2]", "(1,2)", False),
        ("x \\le 2", "(-\\infty,2]", True),
        ("\\pm 5", "5,-5", True),
        ("5", "\\pm 5", False),
        ("42", "41 or 42", False),  # one who names several has not answered
        # units, percent, degrees, currency
        ("42", "42 \\text{ cm}", True),
        ("42", "42 cm", True),
        ("42", "42^\\circ", True),
        ("42", "\\$42", True),
        ("50\\%", "50%", True),
        ("50\\%", "0.5", True),
        ("50", "50\\%", True),
        ("50", "51\\%", False),
        # integers
        ("42", "042", True),
        ("042", "42", True),
        ("0", "-0", True),
        ("-0", "+000", True),
        ("42", "+42", True),
        ("42", "-42", False),
        ("42", "43", False),
        ("1000", "1,000", True),
        ("1,234,567", "1234567", True),
        ("1000", "1{,}000", True),
        ("1000", "+1,000", True),
        ("1000", "1,00", False),
        ("42", " $42$. ", True),
        ("9" * 100_000, "0" + "9" * 100_000, True),
        ("9" * 100_000, "9" * 99_999 + "8", False),
        # forms of LaTeX and of arithmetic
        ("\\sqrt{2}", "\\sqrt2", True),
        ("\\frac{\\sqrt{3}}{2}", "\\frac{3}{2\\sqrt{3}}", True),
        ("42", "\\text{42}", True),
        ("42", "\\boxed{42}", True),
        ("42", "6 \\cdot 7", True),
        ("10^{3}", "1000", True),
        ("2^{10}", "1024", True),
        ("2\\pi", "6.283185", True),
        ("x^2+2x+1", "(x+1)^2", True),
        ("x^2", "y^2", False),
        ("6", "3!", True),
        ("42", "x = 42", True),
        ("x = 42", "42", True),
        ("x = 42", "y = 42", False),
        ("\\text{(A)}", "A", True),
        ("A", "B", False),
        # text around is not answered by the number in it
        ("42", "The number is 42", False),
        ("42", "I do not know, 41 or 42", False),
        # nothing, and what only looks like a number
        ("42", "", False),
        ("", "", False),
        ("42", "$", False),
        ("42", "None", False),
        ("42", "٤٢", False),  # ARABIC-INDIC digits
        ("42", "４２", False),  # noqa: RUF001  full-width digits
        ("42", "1" * 301 + "x", False),
    ],
)
def test_same(expected: str, answer: str, equal: bool) -> None:
    assert same(expected, answer) is equal


def test_whole_numbers_are_judged_as_math_verify_judges_them() -> None:
    # Both paths on 60 pairs; every third is one number written in two ways. (A plus sign before commas is left out:
    # math-verify reads "+1,000" as the set {1, 0}.)
    draw = random.Random(0)

    def written(number: int) -> str:
        digits = draw.choice(["{}", "{:,}", "0{}", "00{}"]).format(abs(number))
        digits = digits.lstrip("0") or "0" if "," in digits else digits
        return ("-" if number < 0 else draw.choice(["", "+"]) if "," not in digits else "") + digits

    outcomes = set()
    for index in range(60):
        number = draw.randint(-(10 ** draw.randint(1, 12)), 10 ** draw.randint(1, 12))
        other = number if index % 3 == 0 else number + draw.choice([-number, 1, -1, -2 * number])
        one, two = written(number), written(other)
        fast = same(one, two)
        assert fast is (number == other) is math_answers._judged(one, two), (one, two)
        outcomes.add(fast)
    assert outcomes == {True, False}


HOSTILE = {
    "python tower": "9**9**9**9**9",
    "unread braces": "\\boxed{" * 40,
    "sums": "+".join(["x"] * 140),
    "control characters": "\0\1\2\x1b[31m\r\n",
    "a lone surrogate": "\ud800",
    "backslashes": "\\" * 299 + "x",
    "environments": "\\begin{pmatrix}" * 15,
    "ones": "1," * 140 + "1",
}
SLOW = {
    "deep brackets": "[(" * 100,
    "bars": "|" * 299,
    "tower": "9^{9^{9^{9^{9}}}}",
    "large power": "9^{9^{9}}",
    "factorial": "(10^9)!",
    "binomial": "\\binom{10^9}{5\\cdot 10^8}",
    "deep parentheses": "(" * 140 + "42" + ")" * 140,
    "chain of powers": "x^" * 140 + "x",
}


def judged_right_again() -> bool:
    # Uncached, so that the process itself must answer
    math_answers._judged.cache_clear()
    return same("1/2", "0.5") and not same("1/2", "0.6")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers_equal_nothing(name: str) -> None:
    assert same("42", HOSTILE[name]) is False
    assert judged_right_again()


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_endless_answers_end_and_the_next_is_judged(name: str) -> None:
    began = time.monotonic()
    assert same("42", SLOW[name]) is False
    assert time.monotonic() - began < math_answers.PATIENCE + 1
    assert judged_right_again()


def test_an_endless_answer_ends_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    # The same guard with less patience: the clock's, which needs nothing of the other process
    assert judged_right_again()
    before = math_answers._judge
    monkeypatch.setattr(math_answers, "PATIENCE", 0.5)
    began = time.monotonic()
    assert same("42", "9^{9^{9^{9}}} + 1") is False
    assert time.monotonic() - began < 3
    monkeypatch.undo()
    assert judged_right_again() and math_answers._judge is not before


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 10**6,
        "{" * 10**6,
        "answer " * 150_000,
        "answer is " * 100_000,
        "#### " * 200_000,
        "\\boxed" + " " * 10**6,
        "answer" + " " * 10**6,
        "\\(" * 500_000,
        "$." * 500_000,
        "\\boxed{" * 40_000 + "}" * 20_000,
        "1" * 10**6,
        "(" * 10**6,
    ],
    ids=lambda text: text[:9],
)
def test_a_megabyte_is_read_at_once(text: str) -> None:
    began = time.process_time()
    assert final_answer(text) is None
    assert same("42", text) is False
    assert time.process_time() - began < 1.5


def test_a_killed_process_is_replaced() -> None:
    assert judged_right_again()
    judge = math_answers._judge
    assert judge is not None
    judge._process.send_signal(signal.SIGKILL)
    assert judged_right_again()
    assert math_answers._judge is not judge and judge._process.returncode == -signal.SIGKILL


def test_a_large_process_that_asks_does_not_make_the_other_one_seem_large() -> None:
    # On Linux the peak that getrusage tells a child begins with its parent's: it was replaced after every answer.
    held = bytearray(math_answers.MEMORY // 4 + (64 << 20))
    held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])
    math_answers._stop()
    assert judged_right_again()
    judge = math_answers._judge
    assert judge is not None and judged_right_again() and math_answers._judge is judge


def test_an_interrupted_question_does_not_answer_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judged_right_again()

    def interrupted(self: math_answers._Judge, seconds: float) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(math_answers._Judge, "_reply", interrupted)
        with pytest.raises(KeyboardInterrupt):
            same("1/2", "0.50")
    assert math_answers._judge is None
    assert judged_right_again()


def test_a_library_that_is_missing_is_an_error_and_not_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    math_answers._stop()
    math_answers._judged.cache_clear()
    monkeypatch.setattr(math_answers, "__file__", str(Path(math_answers.__file__).with_name("no_such_file.py")))
    with pytest.raises(RuntimeError, match=r"math-verify.*cannot be started: exit code 2"):
        same("1/2", "0.5")
    monkeypatch.undo()
    assert judged_right_again()


def test_threads_share_the_process() -> None:
    math_answers._judged.cache_clear()
    wrong: list[int] = []

    def judge(thread: int) -> None:
        for number in range(1, 20):
            equal = same(f"{number}/97", f"\\frac{{{2 * number + thread % 2}}}{{194}}")
            if equal is not (thread % 2 == 0):
                wrong.append(number)

    threads = [threading.Thread(target=judge, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def _in_a_child(queue: multiprocessing.SimpleQueue) -> None:
    math_answers._judged.cache_clear()
    right = same("3/4", "0.75") and not same("3/4", "0.76")
    judge = math_answers._judge
    assert judge is not None
    queue.put((right, judge._process.pid))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_child_process_has_one_of_its_own(method: str) -> None:
    assert judged_right_again()
    ours = math_answers._judge
    assert ours is not None
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    child = context.Process(target=_in_a_child, args=(queue,))
    child.start()
    child.join(60)
    right, theirs = queue.get()
    assert child.exitcode == 0 and right and theirs != ours._process.pid
    assert not psutil.pid_exists(theirs), "it ended with the child"
    assert math_answers._judge is ours and judged_right_again() and math_answers._judge is ours


ENDINGS = {
    "an ordinary end": "",
    "an error": "raise SystemExit(3)",
    "os._exit": "os._exit(0)",
    "killed": "os.kill(os.getpid(), 9)",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_process_outlives_the_one_that_asked(ending: str) -> None:
    script = (
        "import os, sys\nfrom sesa_lab.environments import math_answers\nassert math_answers.same('1/2', '0.5')\n"
        "assert 'torch' not in sys.modules and 'math_verify' not in sys.modules and 'sympy' not in sys.modules\n"
        f"print(math_answers._judge._process.pid, flush=True)\n{ENDINGS[ending]}"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == "" and done.returncode == {"an error": 3, "killed": -9}.get(ending, 0)
    pid = int(done.stdout)

    def runs() -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE  # one of init's: not ours to wait for
        except psutil.NoSuchProcess:
            return False

    until = time.monotonic() + 10
    while runs() and time.monotonic() < until:
        time.sleep(0.02)
    assert not runs()


def test_no_zombie_of_ours_after_many_replacements() -> None:
    for _ in range(3):
        assert judged_right_again()
        math_answers._stop()
    children = psutil.Process(os.getpid()).children()
    assert not [child for child in children if child.status() == psutil.STATUS_ZOMBIE]
    assert not [child for child in children if "math_answers.py" in " ".join(child.cmdline())]
