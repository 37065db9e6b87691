"""Sudoku: fill a grid so that each row, each column and each box holds every number once.

Every puzzle has one solution. Puzzles of one full grid all lie in one split. In the lab form (``answer_format`` order) an answer
names an *order* of filling and then writes the whole grid in it: ``columns 1324...``. An order *works* for a puzzle where each
blank has one candidate left when its turn comes, by the givens and what was filled before: then nothing has to be foreseen or
taken back. Puzzles for which no order works are not drawn in this form. A strategy, and a sketch, is the name of the order.

In the other forms an answer is a grid in any usual layout (``sudoku_grid.read_grid``), and its strategy is the rules that the
text says it fills by (``RULES``), each named once and in their order here: ``naked single + hidden single``, or ``unnamed``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from sesa_lab.config import option
from sesa_lab.environments.contract import SingleTurn, check_index
from sesa_lab.environments.pool import HARD, SPLITS, Pool, split_of
from sesa_lab.environments.replies import LONGEST, inside_tags
from sesa_lab.environments.sudoku_grid import (
    SYMBOLS,
    Grid,
    clashes,
    dig,
    draw_full,
    fills,
    free,
    read_grid,
    singles_fill,
    solve,
    written,
)
from sesa_lab.environments.sudoku_view import clash, cut, drawing, picture, place
from sesa_lab.environments.vocabulary import Vocabulary
from sesa_lab.errors import InputError
from sesa_lab.seeding import stream
from sesa_lab.types import Frame, Score, Task

Item = tuple[Grid, Grid]
"""Full grid, givens."""

BACKWARDS = {
    "rows": "upward", "columns": "leftward", "boxes": "crates", "snake": "adder", "spiral": "unwind", "checkers": "draughts",
}  # fmt: skip
"""The orders of filling (``orders``), and the name of each one backwards."""
HABITS = frozenset({"rows", "columns", "snake"})
"""Orders that habit knows: rows, and those that begin like it at the top left. Of the first 2,000 natural tasks of the default
options 54 % are hard, that is none of these works; of the 12 orders 3.9 work in the mean, and 1 alone for 16 % of the tasks."""

RULES = {
    "rows": r"row by row|rows",
    "columns": r"column by column|columns",
    "boxes": r"box by box|boxes|block by block|blocks",
    "digits": r"digit by digit|number by number|one (?:digit|number) at a time|(?:digits|numbers) one by one",
    "naked single": r"naked singles?|sole candidates?",
    "hidden single": r"hidden singles?|unique candidates?",
    "elimination": r"eliminat(?:e[sd]?|ing|ion)|candidates|pencil marks",
    "backtracking": r"backtrack(?:s|ed|ing)?|guess(?:es|ed|ing)?|trial and error",
}
"""Rule -> whole words that name it, in any case; see ``rules_in``."""
HABITUAL_RULES = frozenset({"naked single"})
"""What habit fills by in the other forms. There a task is hard where naked singles alone do not fill it: no puzzle of 4x4 that
was met, and 37 % of the first 300 of the paper's preset."""

GIVENS = {
    "order": {2: (6, 8), 3: (58, 64), 4: (212, 224), 5: (550, 575)},
    "grid": {2: (5, 7), 3: (30, 36), 4: (125, 140), 5: (340, 370)},
}
"""For each box the usual numbers of givens, fewest and most."""
FEWEST = {"order": {2: 4, 3: 50, 4: 200, 5: 530}, "grid": {2: 4, 3: 22, 4: 105, 5: 320}}
"""Fewest givens that draws get to often enough: fewer would take too long to find."""

_POSITION = 9  # among the "environment" streams of a seed; changing it changes every task
_RULES = Vocabulary(RULES)


@dataclass(frozen=True)
class SudokuOptions:
    """Fill a grid so that each row, each column and each box holds every number once."""

    box: int = option(2, "side of a box: 2 is a grid of 4 by 4 cells, 3 of 9 by 9", low=2, high=5)
    givens_low: int = option(
        0,
        "fewest givens of a task; 0: usual for box and answer_format (4x4: 6, or 5 where a grid is asked for)",
        low=0,
        high=624,
    )
    givens_high: int = option(0, "most givens of a task; 0: usual (4x4: 8, or 7 for a grid)", low=0, high=624)
    answer_format: str = option(
        "order",
        "order: the name of an order of filling, then all cells in that order; grid: a full grid anywhere in the text, the last"
        " one counts; tags: <think>...</think><answer>the grid</answer>",
        choices=("order", "grid", "tags"),
    )
    partial_credit: float = option(
        0.0,
        "a readable full grid that is wrong earns this times the share of the blanks that it fills as the solution does; 0 if it"
        " changes a given",
        low=0.0,
        high=1.0,
    )
    split: str = option("train", "which part of all tasks, parted by their solutions", choices=SPLITS)
    hard: str = option(
        "natural",
        "share of tasks that no habitual method solves: natural (as they fall), half (every other one), all, none",
        choices=HARD,
    )
    tasks: int = option(4096, "distinct tasks", low=1, high=1_000_000)
    seed: int = option(0, "fixes which tasks are drawn", low=0, high=2**32 - 1)
    repeats: str = option(
        "count",
        "whether a strategy that came earlier in its group earns again (count) or nothing (zero)",
        choices=("count", "zero"),
    )

    PAPER: ClassVar[dict[str, Any]] = {"box": 3, "givens_low": 30, "givens_high": 36, "answer_format": "tags"}
    """Puzzles of the usual size with a usual number of givens, asked for as the other tasks are. The paper does not publish its
    Sudoku data: numbers measured on these puzzles are not comparable with its own."""


class Reading(NamedTuple):
    """What an answer says: its strategy, and the full grid row by row."""

    strategy: str
    grid: Grid


class Sudoku(SingleTurn):
    """The environment; see ``contract.Environment`` for what every environment has."""

    name = "sudoku"
    policy_options: tuple[str, ...] = ("box", "givens_low", "givens_high", "answer_format")

    def __init__(self, options: SudokuOptions) -> None:
        """Puzzles are drawn when first asked for.

        Raises:
            InputError: numbers of givens that are out of order or that no puzzle of this size has.
        """
        self.options: dict[str, Any] = dataclasses.asdict(options)
        self.repeats: Literal["count", "zero"] = "zero" if options.repeats == "zero" else "count"
        self.count = options.tasks
        self._options, self._box = options, options.box
        self._ordered = options.answer_format == "order"
        low, high = _givens(options, "order" if self._ordered else "grid")
        self._pool: Pool[Item] = Pool(
            lambda generator: self._draw(generator, low, high),
            lambda item: f"{written(item[0])}\n{written(item[1])}",
            lambda item: self._is_hard(item[1]),
            lambda number: stream(options.seed, "environment", _POSITION, number),
            split=options.split,
            hard=options.hard,
            label=self.name,
        )

    def task(self, index: int) -> Task:
        """Task ``index`` mod ``count``."""
        index = check_index(index)
        givens = self._pool[index % self.count][1]
        size = self._box**2
        rules, reply = self._rules(), self._reply()
        grid = drawing(givens, self._box)
        data = {
            "box": self._box,
            "size": size,
            "givens": [list(givens[first : first + size]) for first in range(0, size * size, size)],
            "grid_text": written(givens),
            "grid": grid,
            "rules": rules,
            "format": reply,
            "hard": self._is_hard(givens),
        }
        return Task(index, f"Sudoku: fill the empty cells of the grid. {rules}\n\n{grid}\n\n{reply}", data)

    def score(self, task: Task, text: str) -> Score:
        """1.0 for a full grid that keeps the givens and has every number once in each unit.

        A full grid that does not earns ``partial_credit`` times the share of the blanks that hold the solution's numbers, and
        0.0 where it changes a given; what cannot be read earns 0.0 and has no strategy.
        """
        reading = self._read(text)
        if reading is None:
            return Score(0.0, False, None)
        givens = _givens_of(task)
        if any(given not in (0, value) for given, value in zip(givens, reading.grid, strict=True)):
            return Score(0.0, False, reading.strategy)
        if not clashes(reading.grid, self._box):
            return Score(1.0, True, reading.strategy)
        blanks = [cell for cell, given in enumerate(givens) if not given]
        solution = _solution(givens, self._box)
        right = sum(reading.grid[cell] == solution[cell] for cell in blanks)
        return Score(self._options.partial_credit * right / len(blanks), False, reading.strategy)

    def enumerate(self, task: Task) -> list[str] | None:
        """None: grids are too many."""
        return None

    def solutions(self, task: Task) -> list[str] | None:
        """One text for every order that works, in the order of ``orders``.

        In the other forms one text: the simplest rules that fill the puzzle, and the grid, a row a line.
        """
        givens = _givens_of(task)
        solution = _solution(givens, self._box)
        if self._ordered:
            ways = orders(self._box)
            return [
                f"{name} {written([solution[cell] for cell in ways[name]])}" for name in _working(givens, self._box)
            ]
        size = self._box**2
        symbols = written(solution)
        grid = "\n".join(" ".join(symbols[first : first + size]) for first in range(0, size * size, size))
        said = " + ".join(_needed(givens, self._box)).capitalize()
        if self._options.answer_format == "tags":
            return [f"<think>{said}</think><answer>\n{grid}\n</answer>"]
        return [f"{said}\n\n{grid}"]

    def oracle(self, task: Task) -> str:
        """The first of the ``solutions``."""
        return (self.solutions(task) or [])[0]

    def sketch(self, task: Task, text: str) -> str | None:
        """The strategy: the name of the order, or the rules that the text names."""
        reading = self._read(text)
        return None if reading is None else reading.strategy

    def habitual(self, sketch: str) -> bool:
        """Whether it is one of ``HABITS`` (in the other forms: of ``HABITUAL_RULES``)."""
        return sketch.strip() in (HABITS if self._ordered else HABITUAL_RULES)

    def render(self, task: Task, text: str = "") -> list[Frame]:
        """The puzzle, then one frame a blank filled, in the order of the answer; in the other forms one with the whole grid.

        Wrong numbers, and givens that the answer changes, are red; captions say which units they clash in.
        """
        givens, box = _givens_of(task), self._box
        frames = [picture("the puzzle", givens, givens, box)]
        if not text.strip():
            return frames
        reading = self._read(text)
        if reading is None:
            return [*frames, picture("no full grid can be read", givens, givens, box)]
        solution = _solution(givens, box)
        changed = [cell for cell, value in enumerate(reading.grid) if value != givens[cell]]
        wrong = frozenset(cell for cell in changed if reading.grid[cell] != solution[cell])
        verdict = "not solved" if wrong else "solved"
        if not self._ordered:
            told = "; ".join(clash(reading.grid, box, cell) for cell in sorted(wrong)[:2])
            caption = f"{reading.strategy}: {verdict}" + (f" ({len(wrong)} wrong: {told})" if wrong else "")
            return [*frames, picture(cut(caption), givens, reading.grid, box, wrong)]
        values = list(givens)
        filled = [cell for cell in orders(box)[reading.strategy] if reading.grid[cell] != givens[cell]]
        for number, cell in enumerate(filled, 1):
            left = free(values, box, cell)
            values[cell] = reading.grid[cell]
            caption = f"{number}. {place(cell, box)}: {SYMBOLS[values[cell] - 1]}"
            if givens[cell]:
                caption += ", but a given stands there"
            if cell in wrong:
                caption += f", {clash(values, box, cell, named=False)}"
            elif not left & (left - 1):
                caption += ", the only candidate"
            else:
                caption += f", one of {left.bit_count()} candidates"
            if number == len(filled):
                caption += f"; {verdict}"
            frames.append(picture(cut(caption), givens, values, box, wrong, new=cell))
        return frames

    def _draw(self, generator: np.random.Generator, low: int, high: int) -> Item | None:
        givens = int(generator.integers(low, high + 1))
        full = draw_full(generator, self._box)
        if split_of(written(full)) != self._options.split:
            return None  # the pool would drop it, after all the digging
        puzzle = dig(generator, full, self._box, givens)
        if puzzle is None or (self._ordered and not _working(puzzle, self._box)):
            return None
        return full, puzzle

    def _is_hard(self, givens: Grid) -> bool:
        if self._ordered:
            return HABITS.isdisjoint(_working(givens, self._box))
        return _needed(givens, self._box) != ("naked single",)

    def _read(self, text: str) -> Reading | None:
        if len(text) > LONGEST:
            return None
        if self._ordered:
            return _read_order(text, self._box)
        grid = read_grid(inside_tags(text) if self._options.answer_format == "tags" else text, self._box)
        return None if grid is None else Reading(rules_in(text), grid)

    def _rules(self) -> str:
        symbols = " ".join(SYMBOLS[: self._box**2])
        rules = (
            f"Each row, each column and each box of {self._box} by {self._box} cells must hold each of {symbols} exactly once."
            " A dot is an empty cell; the others stay as they are."
        )
        return f"{rules} {_ORDERS_TEXT}" if self._ordered else rules

    def _reply(self) -> str:
        cells = self._box**4
        if self._ordered:
            return (
                f"Answer with the name of the order that you fill the grid in and then all {cells} cells in that order, nothing"
                f" between them, like this: columns {SYMBOLS[: self._box**2]}..."
            )
        if self._options.answer_format == "grid":
            return "Answer with the full grid, one row a line."
        return "Reply with <think>your thoughts</think><answer>the full grid, one row a line</answer>."


_ORDERS_TEXT = (
    "A grid is filled in one of these orders: rows (from the top, each from the left), columns (from the left, each from the"
    " top), boxes (from the top right to the left, row by row, and so within each), snake (rows, every other one from the right),"
    " spiral (from the top left, clockwise, inwards), checkers (like the fields of a chess board: those of the top left cell's"
    " colour, then the others); or one of these backwards, from its end to its beginning: "
    + ", ".join(f"{name} ({forwards})" for forwards, name in BACKWARDS.items())
    + "."
)


@cache
def orders(box: int) -> dict[str, tuple[int, ...]]:
    """Name -> all cells in the order of filling; each one is followed by the same backwards (``BACKWARDS``).

    Orders that begin in one corner tend to work for the same puzzles, so that they begin in all four: ``boxes`` goes from right
    to left.
    """
    size = box * box

    def boxes(cell: int) -> tuple[int, ...]:
        row, column = divmod(cell, size)
        return row // box, -(column // box), row, -column

    def snake(cell: int) -> tuple[int, ...]:
        row, column = divmod(cell, size)
        return row, -column if row % 2 else column

    def spiral(cell: int) -> tuple[int, ...]:
        row, column = divmod(cell, size)
        ring = min(row, column, size - 1 - row, size - 1 - column)
        if row == ring:
            return ring, 0, column
        if column == size - 1 - ring:
            return ring, 1, row
        return (ring, 2, -column) if row == size - 1 - ring else (ring, 3, -row)

    keys = {
        "rows": lambda cell: (cell,),
        "columns": lambda cell: (cell % size, cell),
        "boxes": boxes,
        "snake": snake,
        "spiral": spiral,
        "checkers": lambda cell: ((cell // size + cell % size) % 2, cell),
    }
    found = {}
    for name, key in keys.items():
        found[name] = tuple(sorted(range(size * size), key=key))
        found[BACKWARDS[name]] = found[name][::-1]
    return found


def rules_in(text: str) -> str:
    """The ``RULES`` that a text names, joined by " + " in their order there; ``unnamed`` where it names none."""
    return _RULES.named(text)


def _givens(options: SudokuOptions, form: str) -> tuple[int, int]:
    """The range of the number of givens.

    Raises:
        InputError: out of order, or out of reach for the box and the form.
    """
    usual = GIVENS[form][options.box]
    low, high = options.givens_low or usual[0], options.givens_high or usual[1]
    least, most = FEWEST[form][options.box], options.box**4 - 1
    if not least <= low <= high <= most:
        raise InputError(
            f"sudoku.givens_low = {options.givens_low} and sudoku.givens_high = {options.givens_high}: expected {least} <="
            f" givens_low <= givens_high <= {most} with box = {options.box} and answer_format = {options.answer_format!r};"
            f" 0 stands for the usual {usual[0]} and {usual[1]}"
        )
    return low, high


def _read_order(text: str, box: int) -> Reading | None:
    """A name of ``orders`` in any case, then all symbols, with or without blanks between."""
    words = text.split(maxsplit=1)
    name, symbols = (words[0].lower(), "".join(words[1].split())) if len(words) == 2 else ("", "")
    if name not in orders(box) or len(symbols) != box**4 or not symbols.isascii():  # some letters' capitals are ASCII
        return None
    symbols = symbols.upper()
    if not set(symbols) <= set(SYMBOLS[: box * box]):
        return None
    grid = [0] * box**4
    for cell, symbol in zip(orders(box)[name], symbols, strict=True):
        grid[cell] = SYMBOLS.index(symbol) + 1
    return Reading(name, tuple(grid))


def _givens_of(task: Task) -> Grid:
    return tuple(value for row in task.data["givens"] for value in row)


# A puzzle is asked for these several times: when drawn, by its answers' scores, by solutions and frames.
@lru_cache(maxsize=8192)
def _solution(givens: Grid, box: int) -> Grid:
    return solve(givens, box)[0]


@lru_cache(maxsize=8192)
def _working(givens: Grid, box: int) -> tuple[str, ...]:
    return tuple(name for name, cells in orders(box).items() if fills(givens, box, cells))


@lru_cache(maxsize=8192)
def _needed(givens: Grid, box: int) -> tuple[str, ...]:
    """The simplest rules that fill a puzzle."""
    rules = ("naked single", "hidden single", "backtracking")
    steps = [singles_fill(givens, box, hidden=hidden) for hidden in (False, True)]
    return rules[: 1 + steps.index(True) if True in steps else 3]
