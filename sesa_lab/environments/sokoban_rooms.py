"""Sokoban's rooms: what one is, the rules of a move, and how a random one is made.

Rules and rewards are those of gym-sokoban 0.0.6 (https://github.com/mpSchrader/gym-sokoban), and so is the way of making
rooms: a random walk carves the floor with small masks, boxes stand on their targets, and playing in reverse (pulling) takes
them away. The code is our own and draws from the generator it is given, so rooms are alike in kind and not one by one. Two
differences: a draw that comes to nothing is given up, for the caller to draw again; and reverse play enters at most
``MOST_REVERSED`` states, where gym-sokoban enters 300,000.

Cells are numbered row by row, and a set of cells is a whole number whose bit ``c`` stands for cell ``c``. A room has a wall
all round, so that a neighbour of a floor cell is always a cell of the room.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sesa_lab.environments.grid import cell_name

DIRECTIONS = ("up", "down", "left", "right")
MOST_REVERSED = 20_000  # states of reverse play; a room of one box has at most a few thousand
CHANGE_DIRECTION = 0.35  # probability a step of the walk that carves the floor; gym-sokoban's default
PER_ACTION = -0.1  # gym-sokoban's reward for an action, whatever comes of it

# What a step of the walk carves, as (row, column) offsets from where it stands.
_MASKS = (
    ((0, -1), (0, 0), (0, 1)),
    ((-1, 0), (0, 0), (1, 0)),
    ((0, -1), (0, 0), (1, 0)),
    ((0, -1), (0, 0), (1, -1), (1, 0)),
    ((0, 0), (0, 1), (1, 0)),
)
_WALK = ((1, 0), (0, 1), (-1, 0), (0, -1))

# RAGEN's symbols: (floor, target) of each.
_EMPTY, _BOX, _PLAYER = ("_", "O"), ("X", "√"), ("P", "S")
WALL = "#"


@dataclass(frozen=True)
class Room:
    """A position of the game.

    Attributes:
        width: cells a row, outer wall included.
        height: rows, outer wall included.
        floor: set of the cells that are no wall.
        targets: set of the cells where boxes belong.
        boxes: set of the cells where boxes stand.
        player: number of the player's cell.
    """

    width: int
    height: int
    floor: int
    targets: int
    boxes: int
    player: int

    @property
    def solved(self) -> bool:
        """Every box stands on a target (there are as many of the one as of the other)."""
        return self.boxes == self.targets

    @property
    def region(self) -> int:
        """The set of cells the player can walk to."""
        return region(self.floor & ~self.boxes, self.player, self.width)

    @property
    def deltas(self) -> tuple[int, int, int, int]:
        """What a step in each of ``DIRECTIONS`` adds to a cell's number."""
        return (-self.width, self.width, -1, 1)

    def rows(self) -> list[str]:
        """The room in RAGEN's symbols, one text a row."""
        return self._rows(self.player)

    def layout(self) -> str:
        """The rows without the player, parted by ``/``."""
        return "/".join(self._rows(-1))

    def name(self, cell: int) -> str:
        """Two letters, row then column: ``aa`` is the top left cell."""
        return cell_name(cell, self.width)

    def names(self, group: int) -> str:
        """The names of a set's cells in reading order, parted by blanks."""
        return " ".join(self.name(cell) for cell in cells(group))

    def _rows(self, player: int) -> list[str]:
        symbols = [self._symbol(cell, player) for cell in range(self.width * self.height)]
        return ["".join(symbols[start : start + self.width]) for start in range(0, len(symbols), self.width)]

    def _symbol(self, cell: int, player: int) -> str:
        if not self.floor >> cell & 1:
            return WALL
        on_target = self.targets >> cell & 1
        if cell == player:
            return _PLAYER[on_target]
        return (_BOX if self.boxes >> cell & 1 else _EMPTY)[on_target]


def parse(rows: list[str] | tuple[str, ...]) -> Room:
    """The room that ``Room.rows`` wrote."""
    text = "".join(rows)

    def group(symbols: str) -> int:
        return sum(1 << cell for cell, symbol in enumerate(text) if symbol in symbols)

    player = next(cell for cell, symbol in enumerate(text) if symbol in _PLAYER)
    everything = (1 << len(text)) - 1
    return Room(len(rows[0]), len(rows), everything & ~group(WALL), group("O√S"), group("X√"), player)


def cells(group: int) -> Iterator[int]:
    """The numbers of a set's cells, smallest first."""
    while group:
        lowest = group & -group
        yield lowest.bit_length() - 1
        group ^= lowest


def region(free: int, player: int, width: int) -> int:
    """The set of cells the player can walk to.

    Args:
        free: set of the floor cells without a box.
        player: where the player stands, one of them.
        width: of the room.
    """
    found = 1 << player
    while True:
        grown = (found | found << 1 | found >> 1 | found << width | found >> width) & free
        if grown == found:
            return found
        found = grown


def move(room: Room, direction: int) -> tuple[Room, str]:
    """The room after one action, and what it was: ``push``, ``walk`` or ``bump`` (nothing moves).

    A step into a box pushes it if the cell behind is floor without a box. Neither walls nor boxes are walked through.

    Args:
        room: before the action.
        direction: place in ``DIRECTIONS``.
    """
    delta = room.deltas[direction]
    ahead = room.player + delta
    if not room.floor >> ahead & 1:
        return room, "bump"
    if not room.boxes >> ahead & 1:
        return dataclasses.replace(room, player=ahead), "walk"
    behind = ahead + delta
    if not room.floor >> behind & 1 or room.boxes >> behind & 1:
        return room, "bump"
    boxes = room.boxes ^ (1 << ahead) ^ (1 << behind)
    return dataclasses.replace(room, boxes=boxes, player=ahead), "push"


def reward(before: Room, after: Room) -> float:
    """gym-sokoban's for one action: -0.1, +1 if a box came onto a target, -1 if one left its target, +10 if all stand there.

    A push from target to target is neither. The order of the sums is gym-sokoban's, so that floats are equal to the last bit.
    """
    total = PER_ACTION
    now, then = ((room.boxes & room.targets).bit_count() for room in (after, before))
    if now > then:
        total += 1
    elif now < then:
        total -= 1
    if after.solved:
        total += 10
    return total


def generate(
    generator: np.random.Generator,
    *,
    height: int,
    width: int,
    boxes: int,
    walk_steps: int,
    search_depth: int,
    player_steps: int,
) -> Room | None:
    """One random room with all boxes off their targets, solvable by construction; None where the draw came to nothing.

    Args:
        generator: all chance.
        height: rows, outer wall included; at least 4.
        width: cells a row, outer wall included; at least 4.
        boxes: how many.
        walk_steps: length of the walk that carves the floor.
        search_depth: longest line of reverse play, in actions.
        player_steps: most random steps of the player afterwards (drawn uniformly from 0 to this).
    """
    floor = _topology(generator, height, width, walk_steps)
    if floor.bit_count() <= boxes + 1:
        return None
    places = generator.choice(list(cells(floor)), size=boxes + 1, replace=False).tolist()
    targets = sum(1 << place for place in places[1:])
    found = _reverse_play(floor, tuple(sorted(places[1:])), places[0], width, search_depth)
    if found is None:
        return None
    player, standing = found
    room = Room(width, height, floor, targets, standing, player)
    return _wander(generator, room, player_steps)


def _topology(generator: np.random.Generator, height: int, width: int, steps: int) -> int:
    """The set of floor cells: where a random walk's masks fell, less the outer wall."""
    turns = (generator.random(steps) < CHANGE_DIRECTION).tolist()
    ways = generator.integers(len(_WALK), size=steps + 1).tolist()
    masks = generator.integers(len(_MASKS), size=steps).tolist()
    row, column = int(generator.integers(1, height)), int(generator.integers(1, width))
    way = ways[steps]
    carved: set[tuple[int, int]] = set()
    for turn, new_way, mask in zip(turns, ways, masks, strict=False):
        way = new_way if turn else way
        row = max(min(row + _WALK[way][0], height - 2), 1)
        column = max(min(column + _WALK[way][1], width - 2), 1)
        carved.update((row + down, column + right) for down, right in _MASKS[mask])
    return sum(1 << r * width + c for r, c in carved if 0 < r < height - 1 and 0 < c < width - 1)


def _reverse_play(floor: int, homes: tuple[int, ...], player: int, width: int, depth: int) -> tuple[int, int] | None:
    """The player's cell and the boxes where depth-first reverse play scored highest; None where no score is above 0.

    As in gym-sokoban: of the states with no box and no player on a target, the first one with the largest number of pulls
    (on the line that led there) times the sum of the boxes' Manhattan distances from the targets they stood on. A state is
    the player's cell and the set of the boxes' cells, and is entered once.

    Args:
        floor: set of floor cells.
        homes: cells of the targets.
        player: where the player stands.
        width: cells a row.
        depth: longest line, in actions.
    """
    targets = sum(1 << home for home in homes)
    deltas = (-width, width, -1, 1)
    best, best_score = None, 0
    seen: set[tuple[int, int]] = set()
    stack = [(player, targets, homes, 0, 1)]
    while stack and len(seen) < MOST_REVERSED:
        player, standing, places, pulls, line = stack.pop()
        if (player, standing) in seen:
            continue
        seen.add((player, standing))
        if not standing & targets and not targets >> player & 1:
            score = pulls * _displacement(places, homes, width)
            if score > best_score:
                best, best_score = (player, standing), score
        if line >= depth:
            continue
        pulled, walked = [], []
        for delta in deltas:
            ahead = player + delta
            if not floor >> ahead & 1 or standing >> ahead & 1:
                continue
            walked.append((ahead, standing, places, pulls, line + 1))
            behind = player - delta
            if standing >> behind & 1:
                drawn = tuple(player if place == behind else place for place in places)
                pulled.append((ahead, standing ^ (1 << behind) ^ (1 << player), drawn, pulls + 1, line + 1))
            else:
                pulled.append(walked[-1])
        stack += reversed(pulled + walked)
    return best


def _displacement(places: tuple[int, ...], homes: tuple[int, ...], width: int) -> int:
    total = 0
    for place, home in zip(places, homes, strict=True):
        total += abs(place // width - home // width) + abs(place % width - home % width)
    return total


def _wander(generator: np.random.Generator, room: Room, most: int) -> Room:
    """The room after 0 to ``most`` random steps of the player to free neighbours."""
    for _ in range(int(generator.integers(most + 1))):
        free = room.floor & ~room.boxes
        around = [room.player + delta for delta in room.deltas if free >> room.player + delta & 1]
        if around:
            room = dataclasses.replace(room, player=around[int(generator.integers(len(around)))])
    return room
