"""Sokoban's rooms in words and pictures."""

from __future__ import annotations

from sesa_lab.environments.grid import picture
from sesa_lab.environments.sokoban_rooms import Room
from sesa_lab.types import Frame

_GROUND, _GOAL = "#f1ece0", "#cfe8cf"
_FILLS = {"#": "#5d5d5d", "_": _GROUND, "O": _GOAL, "X": _GROUND, "√": _GOAL, "P": _GROUND, "S": _GOAL}
_GLYPHS = {
    "O": ("◎", "#2e7d32"), "X": ("■", "#a0692a"), "√": ("■", "#1b5e20"), "P": ("●", "#c0392b"), "S": ("●", "#c0392b"),
}  # fmt: skip
_EFFECTS = {"push": "pushes a box", "walk": "walks", "bump": "nothing moves"}


def drawn(room: Room) -> str:
    """The room for a prompt, cells parted by blanks so that tokenizers do not merge them."""
    return "\n".join(" ".join(row) for row in room.rows())


def told(action: str, number: int, effect: str) -> str:
    """Caption of the move ``number``; ``effect`` as ``SokobanState.last`` has it."""
    return f"{number}. {action}: {_EFFECTS[effect]}"


def frame(caption: str, room: Room) -> Frame:
    """A picture in RAGEN's symbols; ``caption`` is plain text."""
    rows = room.rows()
    return Frame(caption, "\n".join(rows), picture(rows, _FILLS, _GLYPHS))
