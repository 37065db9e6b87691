"""Sudoku grids in words and pictures."""

from __future__ import annotations

from collections.abc import Sequence, Set

from sesa_lab.environments.sudoku_grid import SYMBOLS, shape, written
from sesa_lab.types import Frame

_GREY, _ACCENT, _NEW, _WRONG = "#7f7f7f", "#d97706", "#2f9e44", "#e03131"  # to be read on light and on dark
_SIDE = 24


def picture(
    caption: str,
    givens: Sequence[int],
    grid: Sequence[int],
    box: int,
    wrong: Set[int] = frozenset(),
    new: int | None = None,
) -> Frame:
    """A grid of 24 units a cell: givens bold, what was filled in colour, the ``new`` cell and the ``wrong`` ones in others.

    Args:
        caption: plain text.
        givens: of the puzzle, 0 for a blank.
        grid: what stands there now.
        box: side of a box.
        wrong: cells whose numbers are marked as wrong, where they differ from the given.
        new: the cell filled last.
    """
    size = box * box
    parts = []
    for cell, value in enumerate(grid):
        if not value:
            continue
        kept = value == givens[cell]
        colour = _GREY if kept else _WRONG if cell in wrong else _NEW if cell == new else _ACCENT
        x, y = _SIDE * (cell % size) + _SIDE // 2, _SIDE * (cell // size) + 18
        bold = ' font-weight="bold"' if kept else ""
        parts.append(f'<text x="{x}" y="{y}" fill="{colour}"{bold}>{SYMBOLS[value - 1]}</text>')
    side = _SIDE * size
    thin = [line for line in range(size + 1) if line % box]
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-2 -2 {side + 4} {side + 4}">'
        f'<path d="{_lines(thin, side)}" stroke="{_GREY}" stroke-width="0.5"/>'
        f'<path d="{_lines(range(0, size + 1, box), side)}" stroke="{_GREY}" stroke-width="2.5"/>'
        f'<g font-size="16" text-anchor="middle">{"".join(parts)}</g></svg>'
    )
    return Frame(caption, drawing(grid, box), svg)


def drawing(grid: Sequence[int], box: int) -> str:
    """The grid with bars and rules between boxes and dots for blanks."""
    size, lines = box * box, []
    rule = "+".join(["-" * (2 * box + 1)] * box)[1:-1]
    for row in range(size):
        if row and row % box == 0:
            lines.append(rule)
        symbols = written(grid[row * size : (row + 1) * size]).replace("0", ".")
        lines.append(" | ".join(" ".join(symbols[first : first + box]) for first in range(0, size, box)))
    return "\n".join(lines)


def place(cell: int, box: int) -> str:
    """``row 1, column 2``."""
    row, column = divmod(cell, box * box)
    return f"row {row + 1}, column {column + 1}"


def clash(grid: Sequence[int], box: int, cell: int, *, named: bool = True) -> str:
    """In which units the number of ``cell`` stands twice; ``named``: with the cell's place before it."""
    form = shape(box)
    found = [
        f"{kind} {unit % form.size + 1}"
        for kind, unit in zip(("row", "column", "box"), form.units[cell], strict=True)
        if any(other != cell and grid[other] == grid[cell] for other in form.members[unit])
    ]
    told = f"clashes in {' and '.join(found)}" if found else "wrong, though nothing clashes with it yet"
    return f"{place(cell, box)} {told}" if named else told


def cut(caption: str) -> str:
    """``caption`` as far as a caption may go."""
    return caption if len(caption) <= 200 else f"{caption[:197]}..."


def _lines(places: Sequence[int], side: int) -> str:
    return "".join(f"M0 {_SIDE * at}H{side}M{_SIDE * at} 0V{side}" for at in places)
