"""What tasks on a grid share: names of cells, directions, reading a list of actions, pictures.

A cell is named by two letters, its row's and then its column's: ``aa`` is top left, ``bc`` row 2, column 3. Cells are
numbered row by row from 0.
"""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

from sesa_lab.environments.replies import LONGEST, inside_tags

DIRECTIONS: dict[str, tuple[int, int]] = {"left": (0, -1), "down": (1, 0), "right": (0, 1), "up": (-1, 0)}
"""Direction -> change of (row, column), in Gymnasium's order: the number of an action is its place here."""

_SEPARATORS = re.compile(r"\|\||[,\r\n]")


def cell_name(cell: int, width: int) -> str:
    """``cell`` of a grid ``width`` (at most 26) cells wide and at most 26 high: ``cell_name(7, 5)`` is ``bc``."""
    row, column = divmod(cell, width)
    return chr(ord("a") + row) + chr(ord("a") + column)


@cache
def cell_names(height: int, width: int) -> tuple[str, ...]:
    """The name of each cell (``cell_name``) of a grid of this size."""
    return tuple(cell_name(cell, width) for cell in range(height * width))


@cache
def neighbours(height: int, width: int) -> tuple[tuple[int, ...], ...]:
    """For each cell, the cells that the ``DIRECTIONS`` lead to; at the border one stays where one is."""

    def held(value: int, length: int) -> int:
        return min(max(value, 0), length - 1)

    steps = DIRECTIONS.values()
    return tuple(
        tuple(held(row + down, height) * width + held(column + across, width) for down, across in steps)
        for row in range(height)
        for column in range(width)
    )


def read_actions(text: str, known: Mapping[str, str], answer_format: str) -> list[str | None] | None:
    """The actions that ``text`` lists, in order; None where it holds no answer.

    Case does not matter. Time is linear in the length of the text.

    Args:
        text: hostile; read up to ``replies.LONGEST`` characters.
        known: what may be written, lower case -> the action meant.
        answer_format: ``plain``: the whole text is the list; actions are parted by ``||``, commas or line breaks, and what
            stands between two of these is one or more known actions parted by blanks, or else one unknown action. ``tags``,
            as RAGEN reads it: the list is inside the tags (``replies.inside_tags``), and ``||`` alone parts its actions.

    Returns:
        An action of ``known``'s values, or None for an unknown one, each. The whole is None where the text is too long,
        nothing is listed, or the tags are missing.
    """
    if len(text) > LONGEST:
        return None
    if answer_format == "tags":
        pieces = [piece.strip() for piece in inside_tags(text).lower().split("||")]
        return [known.get(piece) for piece in pieces if piece] or None
    # What separates matters only beside an unknown action; most texts hold none, and are read at once.
    actions = [known.get(word) for word in text.lower().replace("||", " ").replace(",", " ").split()]
    if None not in actions:
        return actions or None
    actions = []
    for piece in _SEPARATORS.split(text):
        words = [known.get(word) for word in piece.lower().split()]
        actions += [None] if None in words else words
    return actions or None


class Plan(NamedTuple):
    """What a text says to do.

    Attributes:
        actions: what is to be carried out: the known ones among the first actions listed, as many as count.
        invalid: whether something is wrong with those: an unknown one among them, or none known.
        known: how many known actions are listed in all, also beyond those that count.
    """

    actions: tuple[str, ...]
    invalid: bool
    known: int


def read_plan(text: str, known: Mapping[str, str], answer_format: str, most: int) -> Plan:
    """The plan in ``text``: its first ``most`` actions count, and of these the unknown ones are skipped.

    ``plain``: an unknown action anywhere makes the whole unreadable, a plan of no actions.

    Args:
        text, known, answer_format: see ``read_actions``.
        most: how many actions count.
    """
    listed = read_actions(text, known, answer_format) or []
    if None not in listed:
        return Plan(tuple(listed[:most]), not listed, len(listed))  # type: ignore[arg-type]  # there is no None
    if answer_format == "plain":
        return Plan((), invalid=True, known=0)
    first = listed[:most]
    actions = tuple(action for action in first if action is not None)
    return Plan(actions, not actions or len(actions) < len(first), len(listed) - listed.count(None))


def legs(cells: Sequence[int], width: int) -> list[str]:
    """The directions of a walk's straight stretches: of right, right, down it is ``["right", "down"]``.

    Args:
        cells: each one a neighbour of the one before.
        width: of the grid, at least 2.
    """
    names = {row * width + column: name for name, (row, column) in DIRECTIONS.items()}
    found: list[str] = []
    for one, other in itertools.pairwise(cells):
        name = names[other - one]
        if not found or found[-1] != name:
            found.append(name)
    return found


def picture(rows: Sequence[str], fills: Mapping[str, str], glyphs: Mapping[str, tuple[str, str]]) -> str:
    """An ``<svg>`` of a grid, 24 units a cell. The grid's own ground makes it readable on light and on dark.

    Args:
        rows: one symbol a cell.
        fills: symbol -> colour of its cell.
        glyphs: symbol -> what is written in its cell, and in which colour; none: nothing.
    """
    side = 24
    width, height = side * max(map(len, rows)), side * len(rows)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">']
    for row, symbols in enumerate(rows):
        for column, symbol in enumerate(symbols):
            x, y = side * column, side * row
            parts.append(
                f'<rect x="{x}" y="{y}" width="{side}" height="{side}" fill="{html.escape(fills[symbol])}"'
                ' stroke="#7f7f7f" stroke-width="0.5"/>'
            )
            if symbol in glyphs:
                glyph, colour = map(html.escape, glyphs[symbol])
                parts.append(
                    f'<text x="{x + side // 2}" y="{y + 18}" font-size="18" text-anchor="middle"'
                    f' fill="{colour}">{glyph}</text>'
                )
    return "".join([*parts, "</svg>"])
