"""Countdown: what is an expression, when two are one strategy, what is solved, what an answer earns, where tasks come from."""

from __future__ import annotations

import ast
import json
import time
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations_with_replacement, permutations, product
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from sesa_lab import prompts
from sesa_lab.environments import check, make
from sesa_lab.environments.countdown import HABITS, Countdown, CountdownOptions
from sesa_lab.environments.expressions import MAX_TEXT, Form, canonical, forms, postfix, solve
from sesa_lab.environments.pool import split_of
from sesa_lab.errors import InputError
from sesa_lab.types import Score, Task

UNREADABLE = Score(0.0, False, None)


def countdown(**options: Any) -> Countdown:
    env = make("countdown", **options)
    assert isinstance(env, Countdown)
    return env


def asked(numbers: list[int], target: int) -> Task:
    return Task(0, "", {"numbers": numbers, "target": target})


def key(text: str) -> str:
    tokens = postfix(text)
    assert tokens is not None, text
    form = canonical(tokens)
    assert form is not None, text
    return form.text


# ---- an independent reference: Python's own parser, and multisets instead of sorted texts


def reference(text: str) -> tuple[Fraction, Any]:
    """Value and strategy; raises ZeroDivisionError. Terms and factors are multisets with signs, as the module promises."""
    return _reference(ast.parse(text.strip(), mode="eval").body)


def _reference(node: ast.AST) -> tuple[Fraction, Any]:
    if isinstance(node, ast.Constant):
        return Fraction(node.value), node.value
    assert isinstance(node, ast.BinOp)
    return together(type(node.op).__name__, _reference(node.left), _reference(node.right))


def together(name: str, left: tuple[Fraction, Any], right: tuple[Fraction, Any]) -> tuple[Fraction, Any]:
    (x, a), (y, b) = left, right
    value = {"Add": lambda: x + y, "Sub": lambda: x - y, "Mult": lambda: x * y, "Div": lambda: x / y}[name]()
    family = "sum" if name in ("Add", "Sub") else "product"
    inverse = name in ("Sub", "Div")
    parts: Counter[Any] = Counter()
    for part, turn in ((a, False), (b, inverse)):
        inside = dict(part[1]) if isinstance(part, tuple) and part[0] == family else {(part, False): 1}
        for (inner, way), times in inside.items():
            parts[inner, way ^ turn] += times
    return value, (family, frozenset(parts.items()))


NAMES = {"+": "Add", "-": "Sub", "*": "Mult", "/": "Div"}


def brute_force(numbers: tuple[int, ...], operators: str) -> dict[Fraction, set[Any]]:
    """Value -> strategies, over all orders of the numbers, all bracketings and all operators."""
    known: dict[tuple[int, ...], list[tuple[Fraction, Any]]] = {}

    def trees(row: tuple[int, ...]) -> list[tuple[Fraction, Any]]:
        if len(row) == 1:
            return [(Fraction(row[0]), row[0])]
        if row not in known:
            known[row] = [
                together(NAMES[operator], left, right)
                for cut in range(1, len(row))
                for left, right in product(trees(row[:cut]), trees(row[cut:]))
                for operator in operators
                if operator != "/" or right[0] != 0
            ]
        return known[row]

    found: dict[Fraction, set[Any]] = {}
    for row in set(permutations(numbers)):
        for value, way in trees(row):
            found.setdefault(value, set()).add(way)
    return found


def random_text(generator: np.random.Generator, numbers: list[int], operators: str) -> str:
    """All the numbers in a random order, joined by random operators in random order, with some needless parentheses."""
    texts = [str(value) for value in generator.permutation(numbers)]
    while len(texts) > 1:
        place = int(generator.integers(len(texts) - 1))
        operator = operators[int(generator.integers(len(operators)))]
        blank = " " * int(generator.integers(3))
        texts[place : place + 2] = [f"({texts[place]}{blank}{operator}{texts[place + 1]})"]
    return texts[0][1:-1] if generator.integers(2) and len(numbers) > 1 else texts[0]


@pytest.mark.parametrize("count", [1_500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_random_expressions_against_pythons_parser(count: int) -> None:
    generator = np.random.default_rng(0)
    env = countdown(operators="+-*/")
    ways: dict[str, Any] = {}
    for _ in range(count):
        numbers = generator.integers(1, 8, int(generator.integers(2, 7))).tolist()
        text = random_text(generator, numbers, "+-*/")
        target = int(generator.integers(-5, 30))
        try:
            value, way = reference(text)
        except ZeroDivisionError:
            assert env.score(asked(numbers, target), text) == UNREADABLE
            continue
        hit = value == target
        score = env.score(asked(numbers, target), text)
        assert score.strategy is not None
        assert (score.reward, score.success) == ((1.0, True) if hit else (0.1, False))
        if value.denominator == 1:
            assert env.score(asked(numbers, int(value)), text).success
        # one key for one way (whatever the wording), and the key is itself a wording of that way
        assert ways.setdefault(score.strategy, way) == way == reference(score.strategy)[1]
        assert key(score.strategy) == score.strategy
    assert len(ways) > count // 2 and len(set(ways.values())) == len(ways)  # ... and two ways never share a key


def compare_with_brute_force(numbers: tuple[int, ...], operators: str, every: int = 1) -> None:
    """All forms by value, and the solver at every ``every``-th target."""
    expected = brute_force(numbers, operators)
    found: dict[Fraction, list[Any]] = {}
    for form in forms(numbers, operators):
        value, way = reference(form.text)
        assert value == form.value
        found.setdefault(value, []).append(way)
    assert {value: len(ways) for value, ways in found.items()} == {value: len(ways) for value, ways in expected.items()}
    assert {value: set(ways) for value, ways in found.items()} == expected
    for target in sorted(int(value) for value in expected if value.denominator == 1)[::every]:
        texts = [form.text for form in solve(numbers, target, operators)]
        assert {reference(text)[1] for text in texts} == expected[Fraction(target)]
        assert texts == sorted(set(texts), key=lambda text: (len(text), text))


def test_every_way_to_every_target_is_found() -> None:
    for size in (2, 3):
        for numbers in combinations_with_replacement(range(1, 6), size):
            compare_with_brute_force(numbers, "+-*")
    for operators in ("+-*/", "+-", "*", "+*"):
        compare_with_brute_force((1, 1, 2, 3), operators)
    compare_with_brute_force((2, 3, 5, 7), "+-*")


@pytest.mark.slow
def test_every_way_to_every_target_is_found_in_hundreds_of_sets() -> None:
    generator = np.random.default_rng(1)
    for _ in range(300):
        compare_with_brute_force(tuple(sorted(generator.integers(1, 11, 4).tolist())), "+-*", every=20)
    for _ in range(25):
        compare_with_brute_force(tuple(sorted(generator.integers(1, 11, 4).tolist())), "+-*/", every=50)
    compare_with_brute_force((1, 2, 3, 4, 5), "+-*", every=100)
    compare_with_brute_force((2, 2, 3, 7, 9), "+-")


def test_counts_by_hand() -> None:
    # two numbers: a+b, a-b, b-a, a*b; with "/" also a/b, b/a; two equal ones: a+a, a-a, a*a, a/a
    assert [form.text for form in forms((2, 5), "+-*/")] == ["5+2", "2-5", "5-2", "5*2", "2/5", "5/2"]
    assert [form.text for form in forms((3, 3), "+-*/")] == ["3+3", "3-3", "3*3", "3/3"]
    # sums of n distinct numbers: a sign each, not all minus: 2^n - 1
    assert [len(forms(tuple(range(1, n + 1)), "+-")) for n in (1, 2, 3, 4, 5)] == [1, 3, 7, 15, 31]
    assert [form.text for form in solve((1, 2, 3), 6, "+-*")] == ["3*2*1", "3+2+1"]
    # 24 from 3 3 8 8 needs a fraction on the way
    assert [form.text for form in solve((3, 3, 8, 8), 24, "+-*/")] == ["8/(3-8/3)"]
    assert solve((1, 1), 5, "+-*/") == []


# ---- the canonical form


@pytest.mark.parametrize(
    ("text", "strategy"),
    [
        ("2+5", "5+2"),
        ("(2+5)", "5+2"),
        ("((2)+(5))", "5+2"),
        (" 2 +  5 ", "5+2"),
        ("1+(2+3)", "3+2+1"),
        ("9-(4-3)", "9+3-4"),
        ("9-(4+3)", "9-4-3"),
        ("3+9-4", "9+3-4"),
        ("9-4+3", "9+3-4"),
        ("2*(3*4)", "4*3*2"),
        ("8/(4/2)", "8*2/4"),
        ("8/(4*2)", "8/4/2"),
        ("2/4*8", "8*2/4"),
        ("2+3*5", "5*3+2"),
        ("4*(1+2)", "(2+1)*4"),
        ("1*(2+3+4)", "(4+3+2)*1"),
        ("9-2*3", "9-3*2"),
        ("9/(2+3)", "9/(3+2)"),
        ("(1-2)*(4-3)", "(1-2)*(4-3)"),
        ("(4-3)*(1-2)", "(1-2)*(4-3)"),
        ("2*3+4*5", "3*2+5*4"),
        ("(2+3)*4-1*2", "(3+2)*4-2*1"),
        ("7-(1-2*(3-4))", "(3-4)*2+7-1"),
        ("10+9", "10+9"),
    ],
)
def test_canonical_texts(text: str, strategy: str) -> None:
    assert key(text) == strategy == key(strategy)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2+2", "2*2"),
        ("5*1", "5/1"),
        ("4-3", "3-4"),
        ("(4-3)*(2-1)", "(3-4)*(1-2)"),
        ("9+(4-3)*2", "9-(3-4)*2"),
        ("2*(3+4)", "2*3+2*4"),
        ("3-3+5", "5+3-3*1"),
        ("8/4*2", "8/(4*2)"),
        ("6-(2-2)", "6*(2/2)"),
    ],
)
def test_different_ways_have_different_keys(one: str, other: str) -> None:
    assert key(one) != key(other)


def reworded(draw: Any, form: Form) -> str:
    """Another wording of the same way: other brackets, order and blanks; needless parentheses."""
    blank = draw(st.sampled_from(["", " ", "  "]))
    text = (
        _joined(draw, list(form.parts), *(("+", "-") if form.family == "+" else ("*", "/")))
        if form.family
        else form.text
    )
    return f"({blank}{text}{blank})" if draw(st.integers(0, 3)) == 0 else text


def _joined(draw: Any, parts: list[Any], plain: str, inverse: str) -> str:
    """Terms (or factors) as text, cut in two at random: the left side keeps its signs, the right one may be turned round."""
    if len(parts) == 1:
        inner = reworded(draw, parts[0][2])
        return f"({inner})" if parts[0][2].family else inner
    parts = draw(st.permutations(parts))
    first = next(place for place, part in enumerate(parts) if part[0] == 0)
    parts = [parts[first], *parts[:first], *parts[first + 1 :]]
    cut = draw(st.integers(1, len(parts) - 1))
    left, right = parts[:cut], parts[cut:]
    signs = {part[0] for part in right}
    turn = signs == {1} or (len(signs) == 2 and draw(st.booleans()))
    right = [(how ^ turn, rank, form) for how, rank, form in right]
    return (
        f"({_joined(draw, left, plain, inverse)}) {inverse if turn else plain} ({_joined(draw, right, plain, inverse)})"
    )


@st.composite
def wordings(draw: Any) -> tuple[str, str]:
    numbers = draw(st.lists(st.integers(1, 10), min_size=2, max_size=6))
    operators = st.sampled_from("+-*/")
    texts = [str(value) for value in numbers]
    while len(texts) > 1:
        place = draw(st.integers(0, len(texts) - 2))
        texts[place : place + 2] = [f"({texts[place]}{draw(operators)}{texts[place + 1]})"]
    tokens = postfix(texts[0])
    assert tokens is not None
    form = canonical(tokens)
    if form is None:  # a division by zero
        return "1+1", "1+1"
    return form.text, reworded(draw, form)


@settings(max_examples=150)
@given(wordings())
def test_rewording_changes_neither_strategy_nor_sketch_nor_value(pair: tuple[str, str]) -> None:
    text, other = pair
    assert key(other) == key(text) == text
    numbers = [int(token) for token in postfix(text) or () if token.isdigit()]
    env, task = countdown(operators="+-*/"), asked(numbers, 7)
    assert env.score(task, other) == env.score(task, text)
    assert env.sketch(task, other) == env.sketch(task, text)


# ---- sketches and habits


@pytest.mark.parametrize(
    ("text", "sketch", "habitual"),
    [
        ("7+3*5-2", "5*3 then + -", True),
        ("2+3+5+7", "7+5 then + +", False),
        ("7-2+3+5", "7+5 then + -", True),
        ("(9-3)*4+1", "9-3 then * +", False),
        ("9-3*(4+1)", "4+1 then * -", False),
        ("(1+2)*(3+4)", "2+1 then + *", False),  # (2+1)*(4+3): all of the left operand first
        ("9*8-7*6", "9*8 then * -", False),
        ("8/(3-8/3)", "8/3 then - /", False),
        ("3*5", "5*3", True),
        ("5-3", "5-3", False),
        ("4+5-3", "5+4 then -", True),
        ("2*3+4+5+6", "3*2 then + + +", True),
    ],
)
def test_sketches_by_hand(text: str, sketch: str, habitual: bool) -> None:
    env = countdown(operators="+-*/")
    task = asked([int(token) for token in postfix(text) or () if token.isdigit()], 10)
    assert env.sketch(task, text) == sketch  # whether or not the target is reached
    assert env.habitual(sketch) is env.habitual(f" {sketch}\n") is habitual


def test_no_sketch_where_there_is_no_strategy() -> None:
    env = countdown(operators="+-*/")
    for text in ("", "2+3", "2+3+4+4", "2+3+4/(5-5)", "5-3 then + -"):
        assert env.sketch(asked([2, 3, 4, 5], 10), text) is None


def test_what_is_no_sketch_is_no_habit() -> None:
    start = time.process_time()
    texts = ["", "+", "5*3 then", "5*3 then +-", "5*3 then + - x", "then + -", "5*3 and + -", "٣*3 then + -", "5*3+"]
    texts += ["1" * 10_000_000, "5*3 then" + " +" * 5_000_000, "5*3" + " " * 10_000_000 + "then"]
    for text in texts:
        assert not countdown().habitual(text)
    assert time.process_time() - start < 1.0


def test_habits_leave_about_half_of_natural_tasks() -> None:
    env = countdown()
    hard = []
    for index in range(400):
        task = env.task(index)
        patterns = set()
        for text in env.solutions(task) or []:
            first, *rest = (env.sketch(task, text) or "").replace(" then", "").split()
            patterns.add(first.strip("0123456789") + "".join(rest))
        hard.append(not patterns & HABITS)
        assert task.data["hard"] is hard[-1]
    assert 0.4 < np.mean(hard) < 0.6  # measured: 0.47; and each kind is there in plenty
    assert {len(pattern) for pattern in HABITS} == {1, 2, 3, 4, 5}
    assert sum(len(pattern) == 3 for pattern in HABITS) == 3


# ---- the verdict


def test_scores_by_hand() -> None:
    env, task = countdown(), asked([3, 4, 5, 9], 24)
    assert env.score(task, "(9-3)*(5-4)") == Score(0.1, False, "(5-4)*(9-3)")  # 6 * 1
    assert env.score(task, "(9-5)*3*4") == Score(0.1, False, "(9-5)*4*3")  # 48
    assert env.score(task, "9+3*4+5") == Score(0.1, False, "4*3+9+5")  # 26
    assert env.score(task, "9+4*5-3") == Score(0.1, False, "5*4+9-3")  # 26
    assert env.score(task, "9*3-(4+5)") == Score(0.1, False, "9*3-5-4")  # 18
    assert env.score(task, "(5+4)*3-9") == Score(0.1, False, "(5+4)*3-9")  # 18
    assert env.score(task, "4*9-(5*3)") == Score(0.1, False, "9*4-5*3")  # 21
    assert env.score(asked([3, 4, 5, 9], 21), "4*9-(5*3)") == Score(1.0, True, "9*4-5*3")
    assert env.score(asked([5, 5], 25), " \n5 * 5\t") == Score(1.0, True, "5*5")
    assert countdown(format_reward=0.0).score(task, "9+3*4+5") == Score(0.0, False, "4*3+9+5")


def test_values_are_exact() -> None:
    env = countdown(operators="+-*/")
    # 1/3*3: floats give 1.0; 1/49*49 gives 0.9999999999999999. And 7/2 is not 3 (reasoning-gym#478).
    assert env.score(asked([1, 49, 49], 1), "1/49*49").success
    assert not env.score(asked([7, 2], 3), "7/2").success
    assert env.score(asked([3, 3, 8, 8], 24), "8/(3-(8/3))") == Score(1.0, True, "8/(3-8/3)")


HOSTILE = {
    "a number used twice": "3+4+5+5",
    "a number left out": "3+4+5",
    "a number too many": "3+4+5+9+9",
    "another number": "3+4+5+8",
    "nothing": "",
    "blanks": " \t\n\u3000",
    "only operators": "+-*",
    "a sign in front": "-3+4+5+9",
    "a plus in front": "+3+4+5+9",
    "a sign inside": "3*-4+5+9",
    "a sign in parentheses": "(-3)+4+5+9",
    "a power": "3**4+5+9",
    "whole division": "9//3+4+5",
    "a remainder": "9%3+4+5",
    "an operator that is not allowed": "9/3+4+5",
    "a caret": "3^4+5+9",
    "a product without sign": "3(4+5)9",
    "numbers side by side": "3 4+5+9",
    "parentheses side by side": "(3+4)(5+9)",
    "a leading zero": "03+4+5+9",
    "a decimal point": "3.0+4+5+9",
    "an exponent": "3e0+4+5+9",
    "a long number": "0x3+4+5+9",
    "an underscore": "3_0+4+5+9",
    "an unclosed parenthesis": "(3+4+5+9",
    "an unopened parenthesis": "3+4+5+9)",
    "wrong way round": ")3+4(+5+9",
    "empty parentheses": "()3+4+5+9",
    "brackets": "[3+4]+5+9",
    "an equation": "3+4+5+9=21",
    "words before": "answer: 3+4+5+9",
    "words after": "3+4+5+9 is it",
    "two lines": "3+4\n+5+9",
    "two answers": "3+4+5+9\n3+4+5+9",
    "a comment": "3+4+5+9#",
    "tags": "<answer>3+4+5+9</answer>",
    "digits of another script": "\u0663+\u0664+\u0665+\u0669",
    "full-width digits": "\uff13+4+5+9",
    "superscripts": "3²+4+5+9",
    "other signs": "3×4+5+9",
    "a real minus": "9−3+4+5",
    "a no-break space inside": "3\u00a0+4+5+9",
    "a zero-width space": "3\u200b+4+5+9",
    "another script": "三加四加五加九",
    "surrogates": "\ud8003+4+5+9",
    "a null": "3+4+5+9\x00",
    "code": "__import__('os').system('exit 1')",
    "a huge literal": "9" * 100_000 + "+3+4+5",
    "a huge literal in a short text": "9" * 150 + "+3+4+5",
    "a tower": "9**9**9**9",
    "10,000 parentheses": "(" * 10_000 + "3+4+5+9" + ")" * 10_000,
    "a megabyte": "3+4+5+9+" * 125_000,
    "a good answer and a megabyte of blanks inside": "3+4+5+" + " " * 1_000_000 + "9",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_answer_earns_nothing(name: str) -> None:
    for target in (21, 24):  # 3+4+5+9 = 21
        start = time.process_time()
        assert countdown().score(asked([3, 4, 5, 9], target), HOSTILE[name]) == UNREADABLE
        assert time.process_time() - start < 0.5


def test_length_is_capped_not_depth() -> None:
    env, task = countdown(), asked([3, 4, 5, 9], 21)
    deep = (MAX_TEXT - len("3+4+5+9")) // 2
    assert env.score(task, "(" * deep + "3+4+5+9" + ")" * deep).success
    assert env.score(task, "(" * (deep + 1) + "3+4+5+9" + ")" * (deep + 1)) == UNREADABLE
    assert env.score(task, " " * 1_000_000 + "3+4+5+9").success  # blanks around do not count


def test_division_by_zero_is_no_answer() -> None:
    env = countdown(operators="+-*/")
    for text in ("9/(3-3)", "9/(3/3-3/3)", "9*(3/(3-3))"):
        numbers = [int(token) for token in postfix(text) or () if token.isdigit()]
        assert env.score(asked(numbers, 9), text) == UNREADABLE
    assert env.score(asked([3, 3, 9], 0), "(3-3)/9") == Score(1.0, True, "(3-3)/9")


@settings(max_examples=150)
@given(st.text(alphabet=st.characters(), max_size=60) | st.text("0123459+-*/() \n=", max_size=40))
def test_any_text_gets_a_verdict(text: str) -> None:
    env, task = countdown(), asked([3, 4, 5, 9], 21)
    score = env.score(task, text)
    if score.strategy is None:
        assert score == UNREADABLE
    else:
        assert sorted(token for token in postfix(text) or () if token.isdigit()) == ["3", "4", "5", "9"]
        assert score.success is (reference(text)[0] == 21)
    frames = env.render(task, text)
    assert len(frames) == (1 if not text.strip() else 2 if score.strategy is None else 4)
    for frame in frames:
        ElementTree.fromstring(frame.svg)


@pytest.mark.parametrize("tags", ["plain", "tags"])
def test_ten_megabytes_take_no_time(tags: str) -> None:
    env = countdown(answer_format=tags)
    task = env.task(0)
    for piece in ("9", "(", " ", "9+", "\ud800", "<think>", "</answer>", env.oracle(task)):
        text = piece * (10_000_000 // len(piece))
        start = time.process_time()
        assert env.score(task, text) == UNREADABLE
        assert env.sketch(task, text) is None
        env.render(task, text)
        assert time.process_time() - start < 1.0


def test_ragen_s_answers_may_use_any_operator() -> None:
    """Its operators choose the tasks alone, and its reply is in tags."""
    env, task = countdown(preset="paper"), asked([2, 5, 10], 20)
    said = {text: env.score(task, f"<think></think><answer>{text}</answer>") for text in ("5*2+10", "10/5-2", "5+2+10")}
    assert {text: (score.reward, score.success) for text, score in said.items()} == {
        "5*2+10": (1.0, True), "10/5-2": (0.1, False), "5+2+10": (0.1, False),
    }  # fmt: skip
    assert env.score(task, "5*2+10").reward == 0.0, "both tags are required"
    assert env.task(0).data["operators_text"] == "+ - * /"
    assert countdown(operators="+-", answer_operators="+-*").score(task, "5*2+10").success
    assert not countdown(operators="+-").score(task, "5*2+10").success
    for bad in ("+", "+-x", "*/", "+-**"):
        with pytest.raises(InputError, match=r"countdown\.answer_operators = "):
            countdown(operators="+-", answer_operators=bad)


def test_tags() -> None:
    env, task = countdown(answer_format="tags"), asked([3, 4, 5, 9], 21)
    good = Score(1.0, True, "9+5+4+3")
    for text in (
        "<think>hm</think><answer>3+4+5+9</answer>",
        " <think></think>\n <answer> 3+4+5+9 </answer>\n",
        "<think>9 < 10, 3*4\n\nor so</think><answer>3+4+5+9</answer>",
        # as RAGEN reads a reply: the first thought and answer, whatever stands around them
        "<think>hm</think><answer>3+4+5+9</answer> done",
        "so <think>hm</think><answer>3+4+5+9</answer><answer>1</answer>",
        "<think>an <answer> is due</think><answer>3+4+5+9</answer>",
    ):
        assert env.score(task, text) == good
    for text in (
        "3+4+5+9",
        "<answer>3+4+5+9</answer>",
        "<think>hm</think>3+4+5+9",
        "<think>hm<answer>3+4+5+9</answer>",
        "<think>hm</think><answer>3+4+5+9",
        "<think>hm</think> so <answer>3+4+5+9</answer>",
        "<answer>3+4+5+9</answer><think>hm</think>",
        "<think>hm</think><answer>1</answer><answer>3+4+5+9</answer>",
        "<think><answer>3+4+5+9</answer></think>",
        "<think>hm</think><answer></answer>",
        "<THINK>hm</THINK><ANSWER>3+4+5+9</ANSWER>",
        "<think>" + "x" * 100_000 + "</think><answer>3+4+5+9</answer>",
    ):
        assert env.score(task, text) == UNREADABLE
    plain = countdown().score
    for text in env.solutions(task) or []:
        assert text.startswith("<think></think><answer>") and env.score(task, text).success
        bare = text.removeprefix("<think></think><answer>").removesuffix("</answer>")
        assert plain(task, bare) == env.score(task, text)


# ---- tasks


@pytest.mark.parametrize(
    "options",
    [
        {"preset": "paper"},
        {"operators": "/*-+", "repeats": "zero"},
        {"answer_format": "tags", "hard": "half"},
        {"n_numbers": 5, "n_numbers_low": 2, "seed": 7},
        {"n_numbers": 6, "operators": "+-"},
        {"split": "test", "hard": "all"},
        {"split": "validation", "hard": "none"},
        {"operators": "+-", "target_low": -20, "target_high": 0},
    ],
)
def test_keeps_the_contract(options: dict[str, Any]) -> None:
    check(make("countdown", **options))


def test_options_are_resolved_and_rebuild_the_environment() -> None:
    env = countdown(operators="*-+")
    assert env.options["operators"] == "+-*"
    assert make(env.name, **env.options).options == env.options
    assert Countdown(CountdownOptions()).task(0) == countdown().task(0)
    assert env.count == 4096 and env.turns == 1 and env.enumerate(env.task(0)) is None
    assert countdown().repeats == "count" and countdown(repeats="zero").repeats == "zero"
    assert set(env.policy_options) < set(env.options) and not {"seed", "split", "hard"} & set(env.policy_options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"operators": ""}, r"countdown.operators = '': expected some of \+-\*/"),
        ({"operators": "+x"}, "operators = '\\+x'"),
        ({"operators": "++"}, "each once"),
        ({"operators": "-*"}, r"- only beside \+"),
        ({"operators": "/+"}, r"/ only beside \*"),
        ({"operators": "+-*/%"}, "expected some of"),
        ({"n_numbers": 1}, "n_numbers = 1 is out of range: expected >= 2"),
        ({"n_numbers": 7}, "n_numbers = 7 is out of range"),
        ({"n_numbers": 4, "n_numbers_low": 5}, "expected 2 <= n_numbers_low <= n_numbers"),
        ({"n_numbers_low": 1}, "n_numbers_low = 1 and countdown.n_numbers = 4"),
        ({"number_low": 11}, "number_low = 11 and countdown.number_high = 10: expected number_low <= number_high"),
        ({"target_low": 101}, "expected target_low <= target_high"),
        ({"answer_format": "box"}, "answer_format = 'box' is unknown"),
        ({"split": "dev"}, "split = 'dev' is unknown"),
        ({"file": "tasks.txt"}, "tasks.txt: expected a file that ends in .jsonl, .parquet or .csv"),
        ({"file": "nowhere.jsonl"}, "nowhere.jsonl: cannot be read"),
    ],
)
def test_bad_options(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        make("countdown", **options)


def test_tasks_are_within_their_ranges_and_can_be_solved() -> None:
    env = countdown(preset="paper")
    sizes = Counter()
    for index in range(300):
        task = env.task(index)
        numbers, target = task.data["numbers"], task.data["target"]
        sizes[len(numbers)] += 1
        assert numbers == sorted(numbers) and numbers[0] >= 1 and numbers[-1] <= 99 and 10 <= target <= 100
        # as RAGEN's has_solution: some signs before the numbers add up to the target
        assert any(np.dot(signs, numbers) == target for signs in product((1, -1), repeat=len(numbers)))
        assert all(env.score(task, text).success for text in env.solutions(task) or [])
    assert set(sizes) == {3, 4} and min(sizes.values()) > 100


def test_tasks_never_change() -> None:
    # Frozen on the day they were first made (numpy 2.4): other tasks make runs and policies of one config incomparable.
    env = countdown()
    first = [(tuple(env.task(i).data["numbers"]), env.task(i).data["target"]) for i in range(4)]
    assert first == FROZEN
    assert countdown(seed=1).task(0).data["numbers"] != list(first[0][0])


FROZEN = [((2, 3, 7, 7), 48), ((4, 6, 9, 10), 29), ((3, 5, 5, 8), 59), ((4, 5, 9, 10), 20)]


def test_splits_share_no_set_of_numbers() -> None:
    sets = {
        split: {tuple(env.task(i).data["numbers"]) for i in range(150)}
        for split in ("train", "validation", "test")
        for env in [countdown(split=split, seed=3)]
    }
    assert not sets["train"] & sets["validation"] and not sets["train"] & sets["test"]
    assert not sets["validation"] & sets["test"]
    for split, numbers in sets.items():
        assert {split_of(" ".join(map(str, row))) for row in numbers} == {split}


def test_hard_tasks_on_demand() -> None:
    def kinds(hard: str) -> list[bool]:
        env = countdown(hard=hard)
        return [env.task(index).data["hard"] for index in range(100)]

    assert kinds("all") == [True] * 100 and kinds("none") == [False] * 100 and kinds("half") == [False, True] * 50
    assert len(set(kinds("natural"))) == 2


def test_as_many_tasks_as_there_are() -> None:
    # 1+1, 1+2 and 2+2 are all there is
    expected = sum(split_of(numbers) == "train" for numbers in ("1 1", "1 2", "2 2"))
    env = countdown(n_numbers=2, number_high=2, operators="+")
    with pytest.raises(InputError, match=f"only {expected} distinct tasks were found with split = 'train'"):
        env.task(3)


def test_six_numbers_are_asked_but_their_ways_not_listed() -> None:
    env = countdown(n_numbers=6, operators="+-")
    task = env.task(0)
    assert len(task.data["numbers"]) == 6
    assert env.solutions(task) is None
    assert env.score(task, env.oracle(task)).success
    # five ones make 5 by a plain sum and as 2 * 2 + 1
    assert countdown(n_numbers=5).solutions(asked([1, 1, 1, 1, 1], 5)) == ["1+1+1+1+1", "(1+1)*(1+1)+1"]


def test_lab_texts_are_few_tokens_of_a_small_vocabulary() -> None:
    split = pre_tokenizers.Split(  # Qwen2's, which the lab policies' tokenizer uses
        Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+"), "isolated"
    )

    def tokens(text: str) -> list[str]:
        return [piece for piece, _ in split.pre_tokenize_str(text)]

    env = countdown()
    known = set()
    for index in range(300):
        task = env.task(index)
        assert len(tokens(prompts.task_text("lab", "countdown", task))) <= 18
        for answer in env.solutions(task) or []:
            sketch = env.sketch(task, answer) or ""
            assert len(tokens(sketch)) <= 8 and len(tokens(answer)) <= 11
            known |= {*tokens(sketch), *tokens(answer)}
    assert len(known) <= 30


@pytest.mark.parametrize("options", [{}, {"preset": "paper"}, {"answer_format": "tags"}])
def test_prompts_say_what_is_asked(options: dict[str, Any]) -> None:
    env = countdown(**options)
    task = env.task(0)
    lab, chat = (prompts.task_text(form, "countdown", task) for form in ("lab", "chat"))
    for text in (lab, chat, task.prompt):
        for number in (*task.data["numbers"], task.data["target"]):
            assert str(number) in text
    for text in (chat, task.prompt):
        assert " ".join(env.options["operators"]) in text
        assert ("<answer>" in text) is (env.options["answer_format"] == "tags")
    assert "\n" not in lab and lab == lab.lower() and len(lab) < 60
    assert env.oracle(task) not in json.dumps(dict(task.data))


# ---- files


ROWS = [([44, 19, 35], 98), ([63, 95, 96], 64), ([2, 3, 7], 42), ([96, 95, 63], 64), ([1, 2, 3, 4], 10)]


def written(folder: Path, kind: str) -> Path:
    table = pd.DataFrame({"nums": [nums for nums, _ in ROWS], "target": [target for _, target in ROWS]})
    path = folder / f"tasks.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps({"nums": n, "target": t, "more": 1}) + "\n" for n, t in ROWS) + "\n")
    elif kind == "parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False)
    return path


def everything(**options: Any) -> Iterator[tuple[list[int], int]]:
    """The tasks of all splits; a split without one says so."""
    for split in ("train", "validation", "test"):
        try:
            env = countdown(split=split, **options)
        except InputError as error:
            assert "none of its" in str(error) and "belongs to split" in str(error)
            continue
        tasks = [env.task(index) for index in range(env.count)]
        assert env.task(env.count).data == tasks[0].data
        yield from ((task.data["numbers"], task.data["target"]) for task in tasks)


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv"])
def test_files_of_the_public_format(kind: str, tmp_path: Path) -> None:
    path = str(written(tmp_path, kind))
    # 44+19+35 = 98; 63+96-95 = 64 (twice, in another order: one task); 2*3*7 = 42 needs *; 1+2+3+4 = 10
    solvable = [([19, 35, 44], 98), ([63, 95, 96], 64), ([1, 2, 3, 4], 10)]
    assert sorted(everything(file=path, operators="+-")) == sorted(solvable)
    assert sorted(everything(file=path)) == sorted([*solvable, ([2, 3, 7], 42)])
    first = {split_of(" ".join(map(str, sorted(nums)))): (sorted(nums), target) for nums, target in reversed(ROWS)}
    assert sorted(everything(file=path, tasks=1)) == sorted(first.values())
    check(make("countdown", file=path, operators="+-"))


def test_hard_tasks_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    rows = [
        {"nums": [a, b, a + b + 1], "target": t} for a in range(1, 12) for b in range(1, 12) for t in (2 * a + 1, 10)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    natural = countdown(file=str(path))
    hard = [natural.task(index).data["hard"] for index in range(natural.count)]
    assert 1 < sum(hard) < len(hard) - 1
    assert countdown(file=str(path), hard="all").count == sum(hard)
    assert countdown(file=str(path), hard="none").count == len(hard) - sum(hard)
    half = countdown(file=str(path), hard="half")
    assert half.count == 2 * min(sum(hard), len(hard) - sum(hard))
    assert [half.task(index).data["hard"] for index in range(half.count)] == [False, True] * (half.count // 2)
    assert countdown(file=str(path), hard="half", tasks=3).count == 3
    assert countdown(file=str(path), tasks=5).count == 5
    assert countdown(file=str(path), tasks=5).task(4).data == natural.task(4).data


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (
            "a.jsonl",
            '{"nums": [1, 2], "target": 3}\nnonsense\n',
            "a.jsonl, line 2: expected one JSON object, got 'nonsense'",
        ),
        ("a.jsonl", "[" * 100_000, "a.jsonl, line 1: expected one JSON object"),
        ("a.jsonl", "[1, 2]", "a.jsonl, line 1: expected a JSON object with nums and target"),
        ("a.jsonl", '{"target": 3}', "line 1: nums: expected 2 to 6 whole numbers from 1 to 10000, got None"),
        ("a.jsonl", '{"nums": [1, 2]}', "line 1: target: expected a whole number"),
        ("a.jsonl", '{"nums": [1], "target": 1}', r"line 1: nums: .*got \[1\]; mend or drop"),
        ("a.jsonl", '{"nums": [1, 2, 3, 4, 5, 6, 7], "target": 1}', "line 1: nums"),
        ("a.jsonl", '{"nums": [1, 0], "target": 1}', "line 1: nums"),
        ("a.jsonl", '{"nums": [1, -2], "target": 1}', "line 1: nums"),
        ("a.jsonl", '{"nums": [1, true], "target": 1}', "line 1: nums"),
        ("a.jsonl", '{"nums": [1, 2.0], "target": 1}', "line 1: nums"),
        ("a.jsonl", '{"nums": [1, "2"], "target": 1}', "line 1: nums"),
        ("a.jsonl", '{"nums": [1, 2], "target": 1.5}', "line 1: target"),
        ("a.jsonl", '{"nums": [1, 2], "target": 1000000001}', "line 1: target"),
        ("a.jsonl", "", "none of its 0 rows can be solved"),
        ("a.csv", "numbers,target\n", "a.csv, line 1: expected a header with nums and target"),
        ("a.csv", "", "a.csv, line 1: expected a header"),
        ("a.csv", 'nums,target\n"[1, 2]",3\n"[1, x]",3\n', "a.csv, line 3: nums"),
        ("a.csv", 'nums,target\n"[1 2 3]",six\n', "a.csv, line 2: target: .*got 'six'"),
        ("a.csv", 'nums,target\n"[1 2 3]"\n', "a.csv, line 2: target"),
        ("a.csv", 'nums,target\n"[1 99999999999999]",3\n', "a.csv, line 2: nums"),
        ("a.parquet", "no parquet", "a.parquet: cannot be read as parquet"),
    ],
)
def test_bad_files_are_named_with_their_line(name: str, text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        make("countdown", file=str(path))


def test_other_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pd.DataFrame({"nums": [[1, 2]], "goal": [3]}).to_parquet(path)
    with pytest.raises(InputError, match="expected columns nums and target, got"):
        make("countdown", file=str(path))
    pd.DataFrame({"nums": [[1, 2], [1]], "target": [3, 1]}).to_parquet(path)
    with pytest.raises(InputError, match=r"a\.parquet, row 2: nums"):
        make("countdown", file=str(path))
    latin = tmp_path / "a.jsonl"
    latin.write_bytes(b"\xff\xfe{}")
    with pytest.raises(InputError, match=r"a\.jsonl: cannot be read .*UTF-8"):
        make("countdown", file=str(latin))
    csv = tmp_path / "a.csv"
    csv.write_text("nums,target\n[1 2],3\n[44 19 35],98\n")  # as pandas writes arrays
    assert sorted(everything(file=str(csv))) == [([1, 2], 3), ([19, 35, 44], 98)]


# ---- pictures


def test_frames_by_hand() -> None:
    env, task = countdown(operators="+-*/"), asked([3, 4, 5, 9], 24)
    frames = env.render(task, "(9-3)/4+5")  # 6/4 = 3/2, and 5 more
    assert [frame.caption for frame in frames] == [
        "reach 24", "9 - 3 = 6", "6 / 4 = 3/2", "3/2 + 5 = 13/2, misses the target"
    ]  # fmt: skip
    assert [frame.text for frame in frames] == [
        "3 4 5 9 | target 24", "4 5 6 | target 24", "5 3/2 | target 24", "13/2 | target 24"
    ]  # fmt: skip
    assert env.render(asked([3, 5], 15), "3*5")[-1].caption == "3 * 5 = 15, hits the target"
    assert [frame.caption for frame in env.render(task)] == ["reach 24"]
    for text in ("3+4+5", "9/(5-5)+3+4", "no"):
        assert [frame.caption for frame in env.render(task, text)][1:] == ["not an expression of exactly these numbers"]


def test_the_last_frame_shows_the_tree() -> None:
    frames = countdown().render(asked([3, 4, 5, 9], 24), "(9-3)*4+5")
    drawn = [ElementTree.fromstring(frame.svg) for frame in frames]
    count = [Counter(element.tag.split("}")[1] for element in svg.iter()) for svg in drawn]
    assert [c["rect"] for c in count] == [4, 3, 2, 1]
    # 4 numbers and 3 operators have 7 nodes and 6 edges; one tile and the target are texts, too
    assert count[-1]["line"] == 6 and count[-1]["text"] == 9
    assert all(len(svg.attrib["viewBox"].split()) == 4 for svg in drawn)


def test_what_a_policy_wrote_is_escaped() -> None:
    frames = countdown().render(asked([3, 4, 5, 9], 24), "<script>\x00\ud800&amp;" + "<b>" * 1_000_000)
    assert len(frames) == 2
    assert "&lt;script&gt;\ufffd\ufffd&amp;amp;&lt;b&gt;" in frames[1].svg and "<script" not in frames[1].svg
    assert len(frames[1].svg) < 2_000 and "script" not in frames[1].caption + frames[1].text
