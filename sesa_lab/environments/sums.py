"""Sums to be worked out in few lines: a procedural task of mathematics with several methods, none of which fits every sum.

A working is some lines, each one operation on two numbers with its result: ``7*3=21 21+8=29``. A method says which lines;
whether it fits depends on the numbers, and how many lines it takes too:

=============  =====================================  ============================================================
method         example                                fits
=============  =====================================  ============================================================
``left``       2+5+9: ``2+5=7 7+9=16``                always; n numbers take n - 1 lines
``equal``      4+7+4+4: ``4*3=12 12+7=19``            where a number occurs again
``tens``       3+8+7+2+5: ``10*2=20 20+5=25``         where two or more pairs make ten
``ends``       2+4+6+8: ``2+8=10 10*2=20``            an even count, smallest and largest, second smallest ... alike
``around V``   6+7+9+6: ``7*4=28 28+0=28``            V from 2 to 10 between smallest and largest, off by 9 at most
=============  =====================================  ============================================================

A working is known by how it begins: its first operation and the sign of the second (``signature``). Where two methods would
begin alike for one sum, as ``equal`` and ``tens`` do for 10+10+3+7+4+6, the earlier one in the table counts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

OTHER = "other"
"""The method of a working that begins like none of them."""
HABITS = frozenset({"left"})
"""Methods that habit knows. Of the first 2,000 natural tasks of the default options 62 % have more numbers than it has lines for;
4.5 methods fit in the mean."""
MOST_OFF = 9
"""How far a sum may be from count x V for ``around V``: told in one digit."""
MADE = ("plain", "equal", "tens", "ends", "around")
"""How numbers are drawn, each as often: at random, or so that this method fits (mostly: the largest number has a say)."""

_LINE = re.compile(r"([0-9]{1,4}) ?([-+*]) ?([0-9]{1,4}) ?= ?([0-9]{1,6})", re.ASCII)


class Line(NamedTuple):
    """One operation: ``left sign right = result``; sign is one of ``+ - *``."""

    left: int
    sign: str
    right: int
    result: int

    def __str__(self) -> str:
        return f"{self.left}{self.sign}{self.right}={self.result}"

    @property
    def holds(self) -> bool:
        """Whether the result is right."""
        a, b = self.left, self.right
        return self.result == {"+": a + b, "-": a - b, "*": a * b}[self.sign]


Working = tuple[Line, ...]


def read_lines(text: str) -> Working:
    """All operations with results that stand in a text, right or wrong. Linear in its length."""
    return tuple(Line(int(a), sign, int(b), int(c)) for a, sign, b, c in _LINE.findall(text))


def draw(generator: np.random.Generator, low: int, high: int, largest: int) -> tuple[int, ...]:
    """``low`` to ``high`` numbers of 1 to ``largest`` in random order, made in one of the ways of ``MADE``."""
    count = int(generator.integers(low, high + 1))
    made = MADE[int(generator.integers(len(MADE)))]
    numbers = _made(generator, made, count, largest)
    return tuple(int(numbers[i]) for i in generator.permutation(count))


def _made(generator: np.random.Generator, made: str, count: int, largest: int) -> list[int]:
    drawn = [int(value) for value in generator.integers(1, largest + 1, count)]
    if made == "equal":
        few = drawn[:2]
        return [few[int(generator.integers(2))] for _ in range(count)]
    if made == "tens" and largest >= 5:
        ones = [min(max(value, 10 - largest), 9) for value in drawn[: count // 2]]
        return [*ones, *(10 - value for value in ones), *drawn[2 * len(ones) :]]
    if made == "ends":
        total = int(generator.integers(2, 2 * largest + 1))
        lowest, highest = max(1, total - largest), min(largest, total - 1)
        ones = [int(value) for value in generator.integers(lowest, highest + 1, count // 2)]
        return [*ones, *(total - value for value in ones), *drawn[2 * len(ones) :]]
    if made == "around":
        return [min(largest, max(1, drawn[0] + int(off))) for off in generator.integers(-2, 3, count)]
    return drawn


@lru_cache(maxsize=16_384)
def workings(numbers: tuple[int, ...]) -> dict[str, Working]:
    """Method -> its working, for all methods that fit, no two beginning alike; the result of the last line is the sum.

    Args:
        numbers: two or more, in the order of the task.
    """
    found: dict[str, Working] = {}
    begun = set()
    for name, work in _methods(numbers):
        if work and signature(work) not in begun:
            begun.add(signature(work))
            found[name] = work
    return found


def method_of(numbers: tuple[int, ...], working: Working) -> str:
    """The method that a working begins like, whatever its results; ``OTHER`` where there is none."""
    begun = signature(working)
    return next((name for name, work in workings(numbers).items() if signature(work) == begun), OTHER)


def signature(working: Working) -> tuple[int, str, int, str]:
    """The first operation, and the sign of the second line ("" where there is none). The working has a line at least."""
    first = working[0]
    return first.left, first.sign, first.right, working[1].sign if len(working) > 1 else ""


def _methods(numbers: Sequence[int]) -> list[tuple[str, Working]]:
    plain: dict[str, Callable[[Sequence[int]], Working]] = {
        "left": _left,
        "equal": _equal,
        "tens": _tens,
        "ends": _ends,
    }
    found = [(name, method(numbers)) for name, method in plain.items()]
    values = range(max(2, min(numbers)), min(10, max(numbers)) + 1)
    return [*found, *((f"around {value}", _around(numbers, value)) for value in values)]


def _left(numbers: Sequence[int]) -> Working:
    return _added(numbers)


def _equal(numbers: Sequence[int]) -> Working:
    counts = Counter(numbers)
    groups = [Line(value, "*", count, value * count) for value, count in counts.items() if count > 1]
    groups.sort(key=lambda line: -line.result)
    rest = [value for value, count in counts.items() if count == 1]
    return (*groups, *_added([*(line.result for line in groups), *rest])) if groups else ()


def _tens(numbers: Sequence[int]) -> Working:
    left = Counter(numbers)
    pairs = sum(min(left[value], left[10 - value]) for value in range(1, 5)) + left[5] // 2
    if pairs < 2:
        return ()
    for value in range(1, 5):
        both = min(left[value], left[10 - value])
        left[value] -= both
        left[10 - value] -= both
    left[5] %= 2
    rest = []
    for value in numbers:
        if left[value]:
            left[value] -= 1
            rest.append(value)
    first = Line(10, "*", pairs, 10 * pairs)
    return (first, *_added([first.result, *rest]))


def _ends(numbers: Sequence[int]) -> Working:
    ranked, half = sorted(numbers), len(numbers) // 2
    sums = {low + high for low, high in zip(ranked[:half], ranked[::-1], strict=False)}
    if len(numbers) % 2 or half < 2 or len(sums) > 1:
        return ()
    total = sums.pop()
    return Line(ranked[0], "+", ranked[-1], total), Line(total, "*", half, total * half)


def _around(numbers: Sequence[int], value: int) -> Working:
    total, about = sum(numbers), value * len(numbers)
    if abs(total - about) > MOST_OFF:
        return ()
    sign = "+" if total >= about else "-"
    return Line(value, "*", len(numbers), about), Line(about, sign, abs(total - about), total)


def _added(numbers: Sequence[int]) -> Working:
    """Line after line, from the left; none for a single number."""
    lines, total = [], numbers[0]
    for value in numbers[1:]:
        lines.append(Line(total, "+", value, total + value))
        total += value
    return tuple(lines)
