"""Sudoku grids: their units, solving and counting solutions, drawing puzzles, reading grids that are written somehow.

Cells are numbered row by row from 0. A grid is a sequence of ``size ** 2`` numbers, 0 for a blank, where ``size`` is the square
of ``box``, the side of a box. Where several numbers fit, they are a mask: bit ``d`` stands for number ``d``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from sesa_lab.environments.replies import LONGEST

SYMBOLS = "123456789ABCDEFGHIJKLMNOP"
"""How the numbers 1, 2, ... are written, one character each: A is 10, G is 16, P is 25. Small letters are read too."""

Grid = tuple[int, ...]


class Shape(NamedTuple):
    """The units of a grid.

    Attributes:
        box: side of a box.
        size: numbers, cells of a unit, and units of each kind: ``box ** 2``.
        full: the mask of all numbers.
        units: for each cell the numbers of its row, its column and its box: rows are 0 .. size - 1, then columns, then boxes.
        members: for each of these units its cells.
    """

    box: int
    size: int
    full: int
    units: tuple[tuple[int, int, int], ...]
    members: tuple[tuple[int, ...], ...]


@cache
def shape(box: int) -> Shape:
    """The units of grids with boxes of side ``box``, 2 .. 5."""
    size = box * box
    units = tuple(
        (row, size + column, 2 * size + row // box * box + column // box)
        for row in range(size)
        for column in range(size)
    )
    members = tuple(tuple(cell for cell, own in enumerate(units) if unit in own) for unit in range(3 * size))
    return Shape(box, size, (1 << size + 1) - 2, units, members)


def written(grid: Sequence[int]) -> str:
    """A symbol a cell, 0 for a blank, nothing between."""
    return "".join("0" if not value else SYMBOLS[value - 1] for value in grid)


def clashes(grid: Sequence[int], box: int) -> bool:
    """Whether a number stands twice in a unit; blanks do not count."""
    return _taken(grid, shape(box)) is None


def free(grid: Sequence[int], box: int, cell: int) -> int:
    """The mask of the numbers that no other cell of the units of ``cell`` holds."""
    form, taken = shape(box), 0
    for unit in form.units[cell]:
        for other in form.members[unit]:
            if other != cell:
                taken |= 1 << grid[other]
    return form.full & ~taken


def solve(grid: Sequence[int], box: int, most: int = 1) -> list[Grid]:
    """The first ``most`` full grids that agree with ``grid``, found by the smallest number of candidates first."""
    form, found = shape(box), list[Grid]()
    taken = _taken(grid, form)
    if taken is not None:
        _search(list(grid), taken, form, most, found)
    return found


def unique(grid: Sequence[int], box: int) -> bool:
    """Whether exactly one full grid agrees with ``grid``."""
    return len(solve(grid, box, most=2)) == 1


def singles_fill(grid: Sequence[int], box: int, *, hidden: bool) -> bool:
    """Whether a puzzle is filled by naked singles alone (``hidden``: by naked and hidden singles).

    A naked single is a cell with one candidate left; a hidden one is a number with one place left in a unit.
    """
    form, values = shape(box), list(grid)
    taken = _taken(grid, form)
    return taken is not None and _propagated(values, taken, form, hidden=hidden) == []


def fills(grid: Sequence[int], box: int, order: Iterable[int]) -> bool:
    """Whether each blank, in this order, has one candidate left when its turn comes and is filled by that."""
    form, values = shape(box), list(grid)
    taken = _taken(grid, form)
    if taken is None:
        return False
    units, full = form.units, form.full
    for cell in order:
        if values[cell]:
            continue
        row, column, block = units[cell]
        left = full & ~(taken[row] | taken[column] | taken[block])
        if not left or left & (left - 1):
            return False
        values[cell] = 1
        taken[row] |= left
        taken[column] |= left
        taken[block] |= left
    return True


def draw_full(generator: np.random.Generator, box: int) -> Grid:
    """A random full grid: a pattern with its bands, rows, columns and numbers shuffled, then trades of two numbers.

    A trade exchanges two numbers in the smallest set of cells, around a random one, that leaves every unit whole. It is as
    likely as its reverse, so that many trades make all grids that they reach equally likely: of side 4 all 288.
    """
    form = shape(box)
    size = form.size
    lines = [np.concatenate([b * box + generator.permutation(box) for b in generator.permutation(box)]) for _ in "rc"]
    rows, columns = lines
    pattern = (rows[:, None] % box * box + rows[:, None] // box + columns[None, :]) % size
    numbers = generator.permutation(size) + 1
    values: list[int] = numbers[pattern].ravel().tolist()
    for cell, step in generator.integers((size * size, size - 1), size=(size * size // 2, 2)).tolist():
        one = values[cell]
        other = (one + step) % size + 1
        _trade(values, form, cell, one, other)
    return tuple(values)


def dig(generator: np.random.Generator, full: Grid, box: int, givens: int) -> Grid | None:
    """``full`` with cells blanked in random order, as long as its solution stays the only one, until ``givens`` are left.

    Returns:
        The puzzle; None where every cell was tried and more are left.
    """
    form, values, left = shape(box), list(full), len(full)
    for cell in generator.permutation(len(full)).tolist():
        if left == givens:
            break
        number, values[cell] = values[cell], 0
        if _forced(values, form, cell, number) or unique(values, box):
            left -= 1
        else:
            values[cell] = number
    return tuple(values) if left == givens else None


def _taken(grid: Sequence[int], form: Shape) -> list[int] | None:
    """For each unit the mask of the numbers in it; None where one stands twice."""
    taken = [0] * (3 * form.size)
    for value, own in zip(grid, form.units, strict=True):
        if value:
            bit = 1 << value
            for unit in own:
                if taken[unit] & bit:
                    return None
                taken[unit] |= bit
    return taken


def _search(values: list[int], taken: list[int], form: Shape, most: int, found: list[Grid]) -> None:
    """Add solutions to ``found`` until there are ``most``; ``values`` and ``taken`` are used up."""
    blanks = _propagated(values, taken, form, hidden=True)
    if blanks is None:
        return
    if not blanks:
        found.append(tuple(values))
        return
    masks = {cell: form.full & ~(taken[r] | taken[c] | taken[b]) for cell in blanks for r, c, b in [form.units[cell]]}
    cell = min(blanks, key=lambda blank: masks[blank].bit_count())
    for number in range(1, form.size + 1):
        if masks[cell] >> number & 1:
            guessed, marked = values.copy(), taken.copy()
            _place(guessed, marked, form, cell, 1 << number)
            _search(guessed, marked, form, most, found)
            if len(found) >= most:
                return


def _place(values: list[int], taken: list[int], form: Shape, cell: int, bit: int) -> None:
    values[cell] = bit.bit_length() - 1
    for unit in form.units[cell]:
        taken[unit] |= bit


def _propagated(values: list[int], taken: list[int], form: Shape, *, hidden: bool) -> list[int] | None:
    """Fill all singles, in place, until there are none; the blanks left, or None where nothing fits somewhere."""
    units, full = form.units, form.full
    blanks = [cell for cell, value in enumerate(values) if not value]
    while blanks:
        kept = []
        for cell in blanks:
            row, column, block = units[cell]
            left = full & ~(taken[row] | taken[column] | taken[block])
            if left & (left - 1):
                kept.append(cell)
            elif left:
                values[cell] = left.bit_length() - 1
                taken[row] |= left
                taken[column] |= left
                taken[block] |= left
            else:
                return None
        if len(kept) == len(blanks):
            if not hidden:
                return kept
            placed = _hidden_singles(kept, values, taken, form)
            if placed is None:
                return None
            if not placed:
                return kept
            kept = [cell for cell in kept if not values[cell]]
        blanks = kept
    return blanks


def _hidden_singles(blanks: list[int], values: list[int], taken: list[int], form: Shape) -> int | None:
    """Place the numbers that have one place left in a unit: how many; None where one has no place."""
    once, twice = taken.copy(), taken.copy()
    masks = []
    for cell in blanks:
        row, column, block = form.units[cell]
        left = form.full & ~(taken[row] | taken[column] | taken[block])
        masks.append(left)
        for unit in (row, column, block):
            twice[unit] |= once[unit] & left
            once[unit] |= left
    if any(mask != form.full for mask in once):
        return None
    placed = 0
    for cell, left in zip(blanks, masks, strict=True):
        row, column, block = form.units[cell]
        alone = left & ~(twice[row] & twice[column] & twice[block])
        if not alone:
            continue
        if alone & (alone - 1) or alone & (taken[row] | taken[column] | taken[block]):
            return None  # two numbers need this cell, or two cells this number
        _place(values, taken, form, cell, alone)
        placed += 1
    return placed


def _forced(values: Sequence[int], form: Shape, cell: int, number: int) -> bool:
    """Whether the blank ``cell`` is a single: no other number fits, or ``number`` fits nowhere else in one of its units."""
    left = free(values, form.box, cell)
    return not left & (left - 1) or any(
        not any(values[other] == 0 and other != cell and free(values, form.box, other) >> number & 1 for other in unit)
        for unit in (form.members[own] for own in form.units[cell])
    )


def _trade(values: list[int], form: Shape, cell: int, one: int, other: int) -> None:
    """Exchange ``one`` (that ``cell`` holds) and ``other`` in the cells that hang together with ``cell``."""
    met, waiting = {cell}, [cell]
    while waiting:
        at = waiting.pop()
        wanted = other if values[at] == one else one
        for unit in form.units[at]:
            for neighbour in form.members[unit]:
                if values[neighbour] == wanted and neighbour not in met:
                    met.add(neighbour)
                    waiting.append(neighbour)
    for at in met:
        values[at] = other if values[at] == one else one


def read_grid(text: str, box: int) -> Grid | None:
    """The last full grid in ``text``; None where there is none, or more than ``replies.LONGEST`` characters.

    A grid is a row a line, its symbols (``SYMBOLS``) next to each other or parted by blanks, commas, bars, quotes or
    brackets, with rule lines (``------+------``, box drawing) and empty lines anywhere between; nested lists, on one line or
    several; or all symbols in a row. Other text on a line spoils its row, unless a colon or a bracket parts them. Digits of
    other scripts are no symbols. Of more rows than a grid has, the last ones count that begin and end at a gap (an empty
    line, a rule, the end), or else the last ones. Time is linear in the length.
    """
    if len(text) > LONGEST:
        return None
    reader = _Reader(box * box)
    for found in _pieces(box).finditer(text):
        kind, piece = str(found.lastgroup), found[0]
        if kind == "symbols" and len(piece) == box**4 and _apart(text, *found.span()):
            kind = "grid"
        reader.take(kind, piece)
    reader.end_row()
    reader.end_run()
    return None if reader.last is None else tuple(SYMBOLS.index(symbol) + 1 for symbol in reader.last.upper())


def _apart(text: str, start: int, end: int) -> bool:
    """Whether neither a letter nor a digit touches this part of the text."""
    return not (text[start - 1 : start].isalnum() or text[end : end + 1].isalnum())


@cache
def _pieces(box: int) -> re.Pattern[str]:
    """Cuts any text into pieces; each kind is a named group. Bars are box drawing too, and come first."""
    symbols = SYMBOLS[: box * box] + SYMBOLS[9 : box * box].lower()
    between, rule = "\t \u00a0,|│┃║\"'*`", "+=─-╿-"
    return re.compile(
        rf"(?P<symbols>[{symbols}]+)|(?P<line>\r\n|[\r\n])|(?P<part>[\[(:])|(?P<close>[\])])|(?P<between>[{between}]+)"
        rf"|(?P<rule>[{rule}])|(?P<other>[^{symbols}\r\n\[\]():{between}{rule}]+)"
    )


class _Reader:
    """Puts pieces together to rows, and rows to grids; ``last`` is the last full grid that was met."""

    def __init__(self, size: int) -> None:
        self.last: str | None = None
        self._size = size
        self._rows: list[str] = []  # of one run: nothing but gaps between them
        self._gaps: list[bool] = []  # before each of them
        self._row, self._spoilt, self._gap = "", False, True

    def take(self, kind: str, piece: str) -> None:
        """One piece: of ``_pieces``, or a whole ``grid`` in a row."""
        if kind == "between":
            return
        if kind == "symbols":
            if not self._spoilt:
                self._row += piece
                if len(self._row) > self._size**2:
                    self._spoil()
        elif kind == "grid":
            self._spoil()
            self.last = piece
        elif kind in ("line", "part"):
            self.end_row()
        elif kind == "close":
            if not self._row:  # the end of a list of lists
                self.end_run()
            self.end_row()
        elif kind == "other" or (kind == "rule" and self._row):
            self._spoil()

    def _spoil(self) -> None:
        if self._rows:
            self.end_run()
        self._row, self._spoilt, self._gap = "", True, True

    def end_row(self) -> None:
        """What was taken since the last row's end is a row, a whole grid, nothing, or no part of a grid."""
        row, spoilt = self._row, self._spoilt
        self._row, self._spoilt = "", False
        if spoilt or not row:
            self._gap = True
        elif len(row) == self._size:
            self._rows.append(row)
            self._gaps.append(self._gap)
            self._gap = False
        else:
            self.end_run()
            if len(row) == self._size**2:
                self.last = row

    def end_run(self) -> None:
        """No further row belongs to those before."""
        rows, gaps, size = self._rows, [*self._gaps, True], self._size
        if len(rows) >= size:
            starts = range(len(rows) - size, -1, -1)
            first = next((start for start in starts if gaps[start] and gaps[start + size]), len(rows) - size)
            self.last = "".join(rows[first : first + size])
        self._rows, self._gaps, self._gap = [], [], True
