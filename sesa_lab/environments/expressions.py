"""Arithmetic over given numbers: reading it, its canonical form, and every way to reach a target.

A text is an expression if it is made of ASCII digits, the allowed ones of ``+ - * /``, round parentheses and blanks, without
signs in front of numbers. It is read into postfix notation, where an operator stands after its two operands: ``3*5+2`` is
``3 5 * 2 +``. The operators of the postfix notation, left to right, are the **order of evaluation** used throughout: first
all of the left operand, then all of the right one, then the operator that joins them (the innermost leftmost first).

**Canonical form.** Two expressions are one *strategy* if they turn into one another by these rules, read either way:

- a sum is a multiset of terms, each added or taken away: ``a+b = b+a``, ``(a+b)+c = a+(b+c)``, ``a-(b-c) = a-b+c``;
- a product is a multiset of factors, each multiplied or divided by: ``a*b = b*a``, ``a/(b/c) = a/b*c``;
- parentheses that change nothing fall away; equal numbers are the same number.

Nothing else is merged: not what merely has an equal value (``2+2`` and ``2*2``, ``5*1`` and ``5/1``), no factor is multiplied
out (``a*(b+c)`` and ``a*b+a*c``), no sign is moved through a product (``(a-b)*(c-d)`` and ``(b-a)*(d-c)``).

The canonical text has no blanks and as few parentheses as can be. In a sum what is added comes before what is taken away, in a
product what is multiplied before what is divided by; within each, parts of more numbers come first (in the order of their
texts where they have equally many), then single numbers, largest first. Reading a canonical text gives that text again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

MAX_TEXT = 200
"""Characters, blanks around the text left out; six numbers of five digits with every parenthesis they need take fewer."""
OPERATORS = "+-*/"

Rank = tuple[int, int, int, str]
Value = int | Fraction

_TOKEN = re.compile(r"[0-9]+|[^ ]")
_BINDS = {"+": 1, "-": 1, "*": 2, "/": 2}


class Form(NamedTuple):
    """An expression in canonical form.

    Attributes:
        text: the canonical text.
        value: exact; a whole number is an int.
        family: ``+`` for a sum, ``*`` for a product, empty for a number.
        parts: terms or factors in canonical order, each with 0 (added, multiplied) or 1 (taken away, divided by) and its
            rank; empty for a number.
        rank: sorts the parts of a larger form.
    """

    text: str
    value: Value
    family: str
    parts: tuple[tuple[int, Rank, Form], ...]
    rank: Rank


def postfix(text: str, operators: str = OPERATORS) -> tuple[str, ...] | None:
    """The numbers (as written) and operators of ``text`` in postfix notation; None where it is no expression.

    Takes time at most linear in the length of the text, needs no recursion and never raises.
    """
    text = text.strip()
    if len(text) > MAX_TEXT:
        return None
    output: list[str] = []
    waiting: list[str] = []  # operators and opening parentheses
    operand_due = True
    for token in _TOKEN.findall(text):
        if (token == "(" or token[0] in "0123456789") is not operand_due:
            return None
        if token == "(":
            waiting.append(token)
        elif token == ")":
            while waiting and waiting[-1] != "(":
                output.append(waiting.pop())
            if not waiting:
                return None
            waiting.pop()
        elif token in _BINDS:
            if token not in operators:
                return None
            while waiting and waiting[-1] != "(" and _BINDS[waiting[-1]] >= _BINDS[token]:
                output.append(waiting.pop())
            waiting.append(token)
            operand_due = True
        elif operand_due:
            output.append(token)
            operand_due = False
        else:
            return None
    if operand_due or "(" in waiting:
        return None
    return (*output, *reversed(waiting))


def canonical(tokens: Sequence[str]) -> Form | None:
    """The canonical form of an expression in postfix notation; None where it divides by zero as it is written."""
    stack: list[Form] = []
    for token in tokens:
        if token not in _BINDS:
            stack.append(number(int(token)))
            continue
        right, left = stack.pop(), stack.pop()
        if token == "/" and right.value == 0:
            return None
        stack.append(joined(token, left, right))
    return stack.pop()


def number(value: int) -> Form:
    """A number >= 0 as a form."""
    return Form(str(value), value, "", (), (1, -1, -value, ""))


def calculated(operator: str, left: Value, right: Value) -> Value:
    """Exact; whole results are ints.

    Raises:
        ZeroDivisionError: ``right`` is zero and the operator is ``/``.
    """
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    result = left * right if operator == "*" else Fraction(left) / Fraction(right)
    return int(result) if result.denominator == 1 else result


def joined(operator: str, left: Form, right: Form) -> Form:
    """The canonical form of ``(left) operator (right)``; ``right`` is not zero where it divides."""
    family = "+" if operator in "+-" else "*"
    turned = int(operator in "-/")
    parts = list(left.parts) if left.family == family else [(0, left.rank, left)]
    if right.family == family:
        parts += [(how ^ turned, rank, form) for how, rank, form in right.parts]
    else:
        parts.append((turned, right.rank, right))
    parts.sort()
    signs = "+-" if family == "+" else "*/"
    inner = [f"({form.text})" if family == "*" and form.family == "+" else form.text for _, _, form in parts]
    text = "".join(signs[part[0]] + part_text for part, part_text in zip(parts, inner, strict=True))[1:]
    size = sum(rank[1] for _, rank, _ in parts)  # minus how many numbers
    return Form(text, calculated(operator, left.value, right.value), family, tuple(parts), (0, size, 0, text))


def solve(numbers: tuple[int, ...], target: int, operators: str) -> list[Form]:
    """Every canonical form that uses each of ``numbers`` (sorted, two or more) once and has the value ``target``.

    Shortest text first, equally long ones in the order of their texts. Four numbers take well under a millisecond once
    the triples are known, five some 20 ms (100 ms with ``/``), six about a second (several with ``/``).
    """
    found: dict[str, Form] = {}
    for left, right in _splits(numbers):
        rights = forms(right, operators)
        for a in forms(left, operators):
            for b in rights:
                for operator, x, y in _ways(a, b, operators):
                    if calculated(operator, x.value, y.value) == target:
                        form = joined(operator, x, y)
                        found[form.text] = form
    return sorted(found.values(), key=lambda form: (len(form.text), form.text))


def forms(numbers: tuple[int, ...], operators: str) -> tuple[Form, ...]:
    """Every canonical form that uses each of ``numbers`` (sorted) once and divides by no zero."""
    if len(numbers) <= 3:
        return _forms_of_few(numbers, operators)
    return _forms_of_four(numbers, operators) if len(numbers) == 4 else _forms(numbers, operators)


def _forms(numbers: tuple[int, ...], operators: str) -> tuple[Form, ...]:
    if len(numbers) == 1:
        return (number(numbers[0]),)
    found: dict[str, Form] = {}
    for left, right in _splits(numbers):
        rights = forms(right, operators)
        for a in forms(left, operators):
            for b in rights:
                for operator, x, y in _ways(a, b, operators):
                    form = joined(operator, x, y)
                    found.setdefault(form.text, form)
    return tuple(found.values())


# Four numbers have 38 or so forms a triple and hundreds themselves, thousands with "/": sizes that fit in memory.
_forms_of_few = lru_cache(maxsize=2048)(_forms)
_forms_of_four = lru_cache(maxsize=64)(_forms)


def _ways(a: Form, b: Form, operators: str) -> Iterator[tuple[str, Form, Form]]:
    for operator in operators:
        if operator in "+*":
            yield operator, a, b
        else:
            if operator == "-" or b.value != 0:
                yield operator, a, b
            if operator == "-" or a.value != 0:
                yield operator, b, a


def _splits(numbers: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Every way to part ``numbers`` into two, the order of the two aside."""
    rest = range(1, len(numbers))
    found: dict[tuple[tuple[int, ...], tuple[int, ...]], None] = {}
    for size in range(len(numbers) - 1):
        for chosen in combinations(rest, size):
            left = (numbers[0], *(numbers[place] for place in chosen))
            right = tuple(numbers[place] for place in rest if place not in chosen)
            found[left, right] = None
    return list(found)
