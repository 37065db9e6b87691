"""Countdown: reach a target from given numbers, each used exactly once; the answer is a bare arithmetic expression.

A generated task joins random numbers by random operators in random order and takes the value as the target, so that every
task can be solved. Tasks of one set of numbers all lie in one split; with the default options 569 sets with 23,633 tasks lie in
train, 73 with 3,202 in validation and 73 with 3,280 in test. ``expressions`` says what is read as an expression, when
two expressions are one strategy, and in which order an expression is evaluated.

A sketch is the first operation carried out and then the operators still to come: ``5*3 then + -`` is the sketch of
``7+3*5-2``. It is that of the canonical text (here ``5*3+7-2``), so that all wordings of one strategy have one sketch.
"""

from __future__ import annotations

import dataclasses
import html
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np

from sesa_lab.config import option
from sesa_lab.environments.contract import SingleTurn, check_index
from sesa_lab.environments.countdown_file import read_rows
from sesa_lab.environments.expressions import (
    MAX_TEXT,
    OPERATORS,
    Form,
    Value,
    calculated,
    canonical,
    postfix,
    solve,
)
from sesa_lab.environments.pool import HARD, SPLITS, Pool, split_of
from sesa_lab.environments.replies import inside_tags
from sesa_lab.errors import InputError
from sesa_lab.seeding import stream
from sesa_lab.types import Frame, Score, Task

Item = tuple[tuple[int, ...], int]
"""Sorted numbers, target."""

MOST_SOLVED = 5
"""Most numbers whose solutions are listed: with six there are hundreds."""
HABITS = frozenset({"+", "*", "*+", "*-", "+-", "*++", "*+-", "++-", "*+++", "*++-", "+++-", "*++++", "*+++-", "++++-"})
"""Operators in order of evaluation that habit knows: a product or a sum first, then sums, and at last a number taken away or,
after a product, added. Sums alone are not among them, but of two numbers. Of the first 4,096 tasks of the default options
these leave 48 % unsolved."""

_POSITION = 3  # among the "environment" streams of a seed; changing it changes every task
_SKETCH = re.compile(r"[0-9]+([-+*/])[0-9]+(?: then ([-+*/](?: [-+*/])*))?")
_GREY, _ACCENT, _HIT, _MISS = "#7f7f7f", "#d97706", "#2f9e44", "#e03131"


@dataclass(frozen=True)
class CountdownOptions:
    """Reach a target number from given numbers by + - * /, each number used exactly once."""

    n_numbers: int = option(4, "numbers a task has (the most, where n_numbers_low is lower)", low=2, high=6)
    n_numbers_low: int = option(0, "fewest numbers a task has; 0: always n_numbers", low=0, high=6)
    number_low: int = option(1, "smallest number", low=1, high=10_000)
    number_high: int = option(10, "largest number", low=1, high=10_000)
    operators: str = option(
        "+-*",
        "operators that tasks are made with: some of +-*/, - only beside + and / only beside *",
    )
    answer_operators: str = option(
        "", "operators that answers may use, all of `operators` among them; empty: the same ones"
    )
    target_low: int = option(1, "smallest target", low=-1_000_000_000, high=1_000_000_000)
    target_high: int = option(100, "largest target", low=-1_000_000_000, high=1_000_000_000)
    file: str = option(
        "",
        "take tasks from this .jsonl, .parquet or .csv file with columns nums and target (those that the operators can"
        " solve; numbers and targets as they stand there); empty: generate them",
    )
    format_reward: float = option(
        0.1, "reward of an expression that uses exactly the given numbers and misses the target", low=0.0, high=1.0
    )
    answer_format: str = option(
        "plain",
        "plain: the answer is the bare expression; tags: <think>...</think><answer>the expression</answer>",
        choices=("plain", "tags"),
    )
    split: str = option("train", "which part of all tasks, parted by their numbers", choices=SPLITS)
    hard: str = option(
        "natural",
        "share of tasks that no habitual method solves: natural (as they fall), half (every other one), all, none",
        choices=HARD,
    )
    tasks: int = option(4096, "distinct tasks (from a file: at most)", low=1, high=1_000_000)
    seed: int = option(0, "fixes which tasks are drawn", low=0, high=2**32 - 1)
    repeats: str = option(
        "count",
        "whether a strategy that came earlier in its group earns again (count) or nothing (zero)",
        choices=("count", "zero"),
    )

    PAPER: ClassVar[dict[str, Any]] = {
        "n_numbers": 4, "n_numbers_low": 3, "number_high": 99, "operators": "+-", "answer_operators": "+-*/",
        "target_low": 10, "answer_format": "tags",
    }  # fmt: skip
    """As RAGEN: tasks of 3 or 4 numbers that + and - can solve, though an answer, in tags, may use any operator; numbers and
    targets in the ranges of the public set Jiayi-Pan/Countdown-Tasks-3to4 (which ``file`` reads)."""


class Countdown(SingleTurn):
    """The environment; see ``contract.Environment`` for what every environment has."""

    name = "countdown"
    policy_options: tuple[str, ...] = (
        "n_numbers", "n_numbers_low", "number_low", "number_high", "operators", "target_low", "target_high",
        "answer_format",
    )  # fmt: skip

    def __init__(self, options: CountdownOptions) -> None:
        """Read the file, if there is one; generated tasks are drawn when first asked for.

        Raises:
            InputError: options that do not fit together; a file that cannot be read or has no task that fits.
        """
        operators = _operators("operators", options.operators)
        self._allowed = _operators("answer_operators", options.answer_operators or operators)
        if not set(operators) <= set(self._allowed):
            raise InputError(
                f"countdown.answer_operators = {options.answer_operators!r}: expected all of operators = {operators!r} among"
                " them, for tasks are made with these"
            )
        options = dataclasses.replace(options, operators=operators)
        fewest = options.n_numbers_low or options.n_numbers
        _check_range("n_numbers_low", fewest, "n_numbers", options.n_numbers, least=2)
        _check_range("number_low", options.number_low, "number_high", options.number_high)
        _check_range("target_low", options.target_low, "target_high", options.target_high)
        self.options: dict[str, Any] = dataclasses.asdict(options)
        self.repeats: Literal["count", "zero"] = "zero" if options.repeats == "zero" else "count"
        self.count = options.tasks
        self._options = options
        self._items: Pool[Item] | list[Item]
        if options.file:
            self._items = _chosen(read_rows(options.file), options)
            self.count = len(self._items)
        else:
            self._items = Pool(
                lambda generator: _draw(generator, options),
                _content,
                lambda item: _is_hard(*item, operators),
                lambda place: stream(options.seed, "environment", _POSITION, place),
                split=options.split,
                hard=options.hard,
                label=self.name,
            )

    def task(self, index: int) -> Task:
        """Task ``index`` mod ``count``; its numbers are sorted."""
        index = check_index(index)
        numbers, target = self._items[index % self.count]
        shown = ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}"
        operators = " ".join(self._allowed)
        reply = (
            "Answer with the expression alone, without '=' or words."
            if self._options.answer_format == "plain"
            else "Reply with <think>your thoughts</think><answer>the expression alone</answer>."
        )
        prompt = (
            f"Countdown: reach {target} with the numbers {shown}. Write one expression that uses each of these numbers"
            f" exactly once, with the operators {operators} and parentheses where you need them. {reply}"
        )
        data = {
            "numbers": list(numbers),
            "target": target,
            "numbers_text": " ".join(map(str, numbers)),
            "operators_text": operators,
            "format": reply,
            "hard": _is_hard(numbers, target, self._options.operators),
        }
        return Task(index, prompt, data)

    def score(self, task: Task, text: str) -> Score:
        """1.0 at the target, ``format_reward`` beside it, 0.0 where exactly the given numbers are not used.

        Strategy: the canonical text of an expression of exactly the given numbers, else None; None too where it divides
        by zero.
        """
        form = self._read(task, text)
        if form is None:
            return Score(0.0, False, None)
        hit = form.value == task.data["target"]
        return Score(1.0 if hit else self._options.format_reward, hit, form.text)

    def enumerate(self, task: Task) -> None:
        """None: an answer has too many wordings for the probabilities of canonical ones to be those of strategies."""
        return None

    def solutions(self, task: Task) -> list[str] | None:
        """The canonical texts that reach the target by the operators that answers may use, shortest first.

        None where there are more than 5 numbers.
        """
        if len(task.data["numbers"]) > MOST_SOLVED:
            return None
        return [self._reply(text) for text in self._solved(task)]

    def oracle(self, task: Task) -> str:
        """The first of the shortest canonical texts that reach the target."""
        return self._reply(self._solved(task)[0])

    def sketch(self, task: Task, text: str) -> str | None:
        """The first operation and then the other operators, in the order of evaluation of the canonical text."""
        form = self._read(task, text)
        return None if form is None else _sketch(form.text)

    def habitual(self, sketch: str) -> bool:
        """Whether the operators in order of evaluation are one of ``HABITS``."""
        sketch = sketch.strip()
        found = _SKETCH.fullmatch(sketch) if len(sketch) <= MAX_TEXT else None
        return found is not None and found[1] + (found[2] or "").replace(" ", "") in HABITS

    def render(self, task: Task, text: str = "") -> list[Frame]:
        """Tiles of the numbers and the target, then one frame an operation, in the order the text has them evaluated."""
        target = task.data["target"]
        tiles: list[Value] = list(task.data["numbers"])
        frames = [_tiles(f"reach {target}", tiles, target)]
        if not text.strip():
            return frames
        tokens = None if self._read(task, text) is None else self._tokens(text)
        if tokens is None:
            shown = "".join(c if c.isprintable() else "\ufffd" for c in text.strip()[:60])
            return [*frames, _tiles("not an expression of exactly these numbers", tiles, target, note=shown)]
        stack: list[Value] = []
        for place, token in enumerate(tokens):
            if token not in OPERATORS:
                stack.append(int(token))
                continue
            right, left = stack.pop(), stack.pop()
            value = calculated(token, left, right)
            stack.append(value)
            tiles.remove(left)
            tiles.remove(right)
            tiles.append(value)
            caption = f"{left} {token} {right} = {value}"
            if place < len(tokens) - 1:
                frames.append(_tiles(caption, tiles, target, new=True))
            else:
                verdict = "hits the target" if value == target else "misses the target"
                frames.append(_tiles(f"{caption}, {verdict}", tiles, target, new=True, tree=tokens))
        return frames

    def _tokens(self, text: str) -> tuple[str, ...] | None:
        """What the answer says in postfix notation, whatever its numbers."""
        if self._options.answer_format == "tags":
            text = inside_tags(text)
        return postfix(text, self._allowed)

    def _read(self, task: Task, text: str) -> Form | None:
        """The answer in canonical form; None where it is no expression of exactly the given numbers or has no value."""
        tokens = self._tokens(text)
        if tokens is None:
            return None
        # Compared as text: "03" is not 3, and no long row of digits is ever turned into a number.
        given = sorted(map(str, task.data["numbers"]))
        if sorted(token for token in tokens if token not in OPERATORS) != given:
            return None
        return canonical(tokens)

    def _reply(self, text: str) -> str:
        return text if self._options.answer_format == "plain" else f"<think></think><answer>{text}</answer>"

    def _solved(self, task: Task) -> tuple[str, ...]:
        return _solutions(tuple(task.data["numbers"]), task.data["target"], self._allowed)


def _operators(name: str, text: str) -> str:
    """The operators of an option in the usual order.

    Raises:
        InputError: other characters, one twice, or such that canonical texts would need another one.
    """
    found = "".join(operator for operator in OPERATORS if operator in text)
    whole = ("-" not in found or "+" in found) and ("/" not in found or "*" in found)
    if not found or len(found) != len(text) or not whole:
        raise InputError(
            f"countdown.{name} = {text!r}: expected some of +-*/, each once, - only beside + and / only beside *"
            " (a-(b-c) is the strategy a+c-b), e.g. '+-*'"
        )
    return found


def _check_range(low_name: str, low: int, high_name: str, high: int, least: int | None = None) -> None:
    if low > high or (least is not None and low < least):
        raise InputError(
            f"countdown.{low_name} = {low} and countdown.{high_name} = {high}: expected"
            f" {f'{least} <= ' if least is not None else ''}{low_name} <= {high_name}"
        )


def _content(item: Item) -> str:
    """The numbers in the first line, which decides the split; then the target."""
    numbers, target = item
    return f"{' '.join(map(str, numbers))}\n{target}"


def _draw(generator: np.random.Generator, options: CountdownOptions) -> Item | None:
    """Random numbers and the value of a random expression of them; None where that is no target in range."""
    size = int(generator.integers(options.n_numbers_low or options.n_numbers, options.n_numbers + 1))
    numbers = generator.integers(options.number_low, options.number_high + 1, size).tolist()
    values: list[Value] = list(numbers)
    while len(values) > 1:
        left = values.pop(int(generator.integers(len(values))))
        right = values.pop(int(generator.integers(len(values))))
        operator = options.operators[int(generator.integers(len(options.operators)))]
        if operator == "/" and right == 0:
            return None
        values.append(calculated(operator, left, right))
    value = values[0]
    if not isinstance(value, int) or not options.target_low <= value <= options.target_high:
        return None
    return tuple(sorted(numbers)), value


def _chosen(rows: list[Item], options: CountdownOptions) -> list[Item]:
    """The first ``tasks`` distinct rows that can be solved and are of the right split and kind, in the file's order.

    Raises:
        InputError: there is none.
    """
    kinds: tuple[list[Item], list[Item]] = ([], [])
    for numbers, target in dict.fromkeys(rows):
        if options.hard == "half" and min(map(len, kinds)) * 2 >= options.tasks:
            break
        if options.hard != "half" and len(kinds[0]) >= options.tasks:
            break
        if split_of(" ".join(map(str, numbers))) != options.split:
            continue
        if not _solutions(numbers, target, options.operators):
            continue
        hard = _is_hard(numbers, target, options.operators)
        if options.hard in ("natural", "half") or hard is (options.hard == "all"):
            kinds[int(hard) if options.hard == "half" else 0].append((numbers, target))
    pairs = [item for pair in zip(*kinds, strict=False) for item in pair]
    chosen = pairs[: options.tasks] if options.hard == "half" else kinds[0]
    if not chosen:
        raise InputError(
            f"{options.file}: none of its {len(rows)} rows can be solved with {options.operators} and belongs to split ="
            f" {options.split!r}, hard = {options.hard!r}; take another file, split or kind, or more operators"
        )
    return chosen


# Every task is asked for its solutions several times: by `hard`, by oracle, by demonstrations.
@lru_cache(maxsize=8192)
def _solutions(numbers: tuple[int, ...], target: int, operators: str) -> tuple[str, ...]:
    return tuple(form.text for form in solve(numbers, target, operators))


@lru_cache(maxsize=8192)
def _is_hard(numbers: tuple[int, ...], target: int, operators: str) -> bool:
    return not any(_pattern(text) in HABITS for text in _solutions(numbers, target, operators))


def _pattern(text: str) -> str:
    """All operators of an expression in order of evaluation."""
    return "".join(token for token in postfix(text) or () if token in OPERATORS)


def _sketch(text: str) -> str:
    """Of a canonical text; see the head of this module."""
    tokens = postfix(text)
    assert tokens is not None, text
    # In postfix notation nothing but numbers stands before the first operator, and its operands right before it.
    first = next(place for place, token in enumerate(tokens) if token in OPERATORS)
    start = f"{tokens[first - 2]}{tokens[first]}{tokens[first - 1]}"
    rest = [token for token in tokens[first + 1 :] if token in OPERATORS]
    return f"{start} then {' '.join(rest)}" if rest else start


def _tiles(
    caption: str, tiles: list[Value], target: int, *, new: bool = False, note: str = "", tree: tuple[str, ...] = ()
) -> Frame:
    """One picture: tiles in a row (the last one marked where it is ``new``), the target, a note or an expression tree."""
    marks, x = [], 8
    for place, value in enumerate(tiles):
        label = str(value)
        width = 16 + 9 * len(label)
        colour = _GREY
        if new and place == len(tiles) - 1:
            colour = _ACCENT if not tree else _HIT if value == target else _MISS
        marks.append(
            f'<rect x="{x}" y="8" width="{width}" height="30" rx="5" fill="none" stroke="{colour}" stroke-width="2"/>'
            + _label(x + width / 2, 28, label, colour)
        )
        x += width + 8
    goal = f"target {target}"
    width = max(x, 24 + 9 * len(goal), 240)
    marks.append(f'<text x="8" y="60" font-size="14" fill="{_GREY}">{goal}</text>')
    height = 70
    if note:
        marks.append(f'<text x="8" y="80" font-size="12" fill="{_GREY}">{html.escape(note)}</text>')
        height, width = 90, max(width, 16 + 8 * len(note))
    if tree:
        drawn, right, bottom = _tree(tree, 70)
        marks += drawn
        height, width = bottom, max(width, right)
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{"".join(marks)}</svg>'
    return Frame(caption, f"{' '.join(map(str, tiles))} | target {target}", svg)


def _tree(tokens: tuple[str, ...], top: int) -> tuple[list[str], int, int]:
    """The expression as a tree, numbers in a row below; the marks, their right and their lower edge."""
    stack: list[tuple[float, int]] = []  # x, height above the row of numbers
    lines, nodes, leaves = [], [], 0
    for token in tokens:
        if token not in OPERATORS:
            leaves += 1
            nodes.append((54.0 * leaves - 26, 0, token))
        else:
            right, left = stack.pop(), stack.pop()
            nodes.append(((left[0] + right[0]) / 2, max(left[1], right[1]) + 1, token))
            lines += [(nodes[-1][:2], left), (nodes[-1][:2], right)]
        stack.append(nodes[-1][:2])
    step, levels = 34, stack[0][1]
    heights = [top + 16 + step * (levels - level) for level in range(levels + 1)]
    marks = [
        f'<line x1="{x}" y1="{heights[a] + 5}" x2="{u}" y2="{heights[b] - 14}" stroke="{_GREY}"/>'
        for (x, a), (u, b) in lines
    ]
    marks += [_label(x, heights[level], token, _GREY if level == 0 else _ACCENT) for x, level, token in nodes]
    return marks, 54 * leaves + 4, heights[0] + 12


def _label(x: float, y: float, text: str, colour: str) -> str:
    return f'<text x="{x}" y="{y}" font-size="15" text-anchor="middle" fill="{colour}">{html.escape(text)}</text>'
