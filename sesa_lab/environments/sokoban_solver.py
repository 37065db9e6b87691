"""Search in Sokoban's rooms: the fewest pushes, the plan of fewest moves, and all push sequences that are nearly shortest.

A *position* is the set of the boxes' cells and the region the player can walk in; walking within it changes nothing. A* over
positions finds the fewest pushes: the bound is the cheapest assignment of boxes to targets by single-box push distances (a
box alone in the room, the player anywhere), which a push changes by at most 1, so it is consistent and every position is
met first by a shortest way. Dead cells, from where a box alone could reach no target, are those of infinite distance; a
position with a box there, or with no assignment of finite cost, is cut. Boxes that hold each other fast need no rule of
their own: such a position has no way on, and the search leaves it. Positions that lie on a way of at most ``SLACK`` more
pushes than the fewest are all expanded, and how many pushes each still needs is then read off backwards, exactly.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from typing import NamedTuple

from sesa_lab.environments.sokoban_rooms import Room, cells, region

SLACK = 2  # pushes that a solution may have beyond the fewest
MOST_SOLUTIONS = 2_000
MOST_POSITIONS = 20_000  # expanded by one search, before a room counts as too large to be proved
MOST_NODES = 200_000  # of the walk through all plans, before they count as too many
LETTERS = "udlr"  # a plan is a text of these, in the order of DIRECTIONS
_FAR = 1 << 20  # a push distance that no room has

Position = tuple[int, int]
"""Set of the boxes' cells, set of the cells the player can walk to."""
Edge = tuple[int, int, Position]
"""A push: the box's cell, the direction, the position after it."""


class Plan(NamedTuple):
    """One way to solve a room."""

    moves: str
    """Texts of ``LETTERS``."""
    legs: str
    """The directions of its pushes, equal neighbours merged."""


@dataclass(frozen=True)
class Solved:
    """What the solver says of a room.

    Attributes:
        pushes: the fewest that solve it.
        plans: for every push sequence that solves the room with at most ``SLACK`` more pushes than the fewest and at most
            the given number of moves, and that comes to no position twice, its plan of fewest moves; fewest moves first,
            then in the order of the search. None where there are more than ``MOST_SOLUTIONS`` or too many to look for.
        shortest: the first of ``plans``; where that is None, a plan of fewest moves among those of at most ``SLACK`` more
            pushes than the fewest. None where even that has more moves than allowed.
    """

    pushes: int
    plans: tuple[Plan, ...] | None
    shortest: str | None


@lru_cache(maxsize=8192)
def solve(room: Room, most_moves: int) -> Solved | None:
    """The room's solutions; None where it has none or is too large (``MOST_POSITIONS``).

    Args:
        room: unsolved.
        most_moves: moves a plan may have.
    """
    search = Search(room)
    if search.pushes is None:
        return None
    plans = search.plans(most_moves)
    if plans is not None:
        return Solved(search.pushes, tuple(plans), plans[0].moves if plans else None)
    shortest = search.fewest_moves()
    if shortest is not None and len(shortest) > most_moves:
        shortest = None
    return Solved(search.pushes, None, shortest)


def has_plan(room: Room, most_moves: int, legs: frozenset[str]) -> bool:
    """Whether one of the room's plans, counted as in ``Solved.plans``, has one of these ``legs``.

    Args:
        room: unsolved and solvable.
        most_moves: moves a plan may have.
        legs: wanted values of ``Plan.legs``, none with a direction and its opposite (so that no position can come twice);
            with each, its beginnings must be there too.
    """
    solved = solve(room, most_moves)
    if solved is not None and solved.plans is not None:
        return any(plan.legs in legs for plan in solved.plans)
    moves = Search(room).fewest_moves(legs)
    return moves is not None and len(moves) <= most_moves


class Search:
    """A* over the positions of one room, and what is read off it.

    Attributes:
        pushes: the fewest that solve the room; None where none do, or the room is too large.
    """

    def __init__(self, room: Room) -> None:
        """Search at once.

        Args:
            room: any.
        """
        self._room = room
        self._deltas = room.deltas
        self._distances = push_distances(room)
        self._alive = sum(1 << cell for cell in cells(room.floor) if any(cell in found for found in self._distances))
        self._bounds: dict[int, int] = {}
        self._walks: dict[tuple[int, int], dict[int, str]] = {}
        self._edges: dict[Position, list[Edge]] = {}
        self._start = (room.boxes, self._region(room.boxes, room.player))
        self.pushes = self._expand_all()
        self._to_go = self._backwards()

    def plans(self, most_moves: int) -> list[Plan] | None:
        """All plans as ``Solved.plans`` has them; None where they are too many.

        Args:
            most_moves: moves a plan may have.
        """
        if self.pushes is None:
            return []
        found: list[Plan] = []
        limit = self.pushes + SLACK
        nodes = 0
        # An entry: the position, the player's cell, the moves so far, legs so far, and the positions on the way.
        stack = [(self._start, self._room.player, "", "", frozenset([self._start]))]
        while stack:
            position, player, moves, way, path = stack.pop()
            nodes += 1
            if nodes > MOST_NODES:
                return None
            if position[0] == self._room.targets:
                found.append(Plan(moves, way))
                if len(found) > MOST_SOLUTIONS:
                    return None
                continue
            walks = self._walk(position[0], player)
            for cell, direction, after in reversed(self._edges.get(position, ())):
                to_go = self._to_go.get(after, _FAR)
                if after in path or len(path) + to_go > limit:  # as many pushes as positions before the one to come
                    continue
                letter = LETTERS[direction]
                longer = moves + walks[cell - self._deltas[direction]] + letter
                turned = way if way.endswith(letter) else way + letter
                if len(longer) + to_go <= most_moves:
                    stack.append((after, cell, longer, turned, path | {after}))
        return sorted(found, key=lambda plan: len(plan.moves))

    def fewest_moves(self, legs: frozenset[str] | None = None) -> str | None:
        """A plan of fewest moves among those of at most ``SLACK`` more pushes than the fewest; by Dijkstra's algorithm.

        Args:
            legs: only plans with these ``Plan.legs``; beginnings of a wanted one must be there too. None: all plans.

        Returns:
            A text of ``LETTERS``, the first one in alphabetical order; None where there is no such plan.
        """
        if self.pushes is None:
            return None
        limit = self.pushes + SLACK
        queue = [(0, "", 0, "", self._start, self._room.player)]
        seen = set()
        while queue:
            _, moves, pushes, way, position, player = heapq.heappop(queue)
            if position[0] == self._room.targets:
                return moves
            wanted = "" if legs is None else way  # ways differ only where they are asked for
            if (position[0], player, pushes, wanted) in seen:
                continue
            seen.add((position[0], player, pushes, wanted))
            walks = self._walk(position[0], player)
            for cell, direction, after in self._edges.get(position, ()):
                letter = LETTERS[direction]
                turned = way if way.endswith(letter) else way + letter
                possible = pushes + 1 + self._to_go.get(after, _FAR) <= limit
                if possible and (legs is None or turned in legs):
                    longer = moves + walks[cell - self._deltas[direction]] + letter
                    heapq.heappush(queue, (len(longer), longer, pushes + 1, turned, after, cell))
        return None

    def _expand_all(self) -> int | None:
        """Fill ``_edges``; the fewest pushes."""
        fewest: int | None = None
        queue = [(self._bound(self._start[0]), 0, self._start)]
        while queue:
            total, pushes, position = heapq.heappop(queue)
            if total >= _FAR or (fewest is not None and total > fewest + SLACK):
                break
            if position in self._edges:
                continue
            if len(self._edges) >= MOST_POSITIONS:
                return None
            if position[0] == self._room.targets:
                fewest = pushes if fewest is None else fewest
                self._edges[position] = []
                continue
            self._edges[position] = edges = self._pushes(position)
            for _, _, after in edges:
                if after not in self._edges:
                    heapq.heappush(queue, (pushes + 1 + self._bound(after[0]), pushes + 1, after))
        return fewest

    def _backwards(self) -> dict[Position, int]:
        """How many more pushes each expanded position needs, as far as it lies on a way of allowed length."""
        before: dict[Position, list[Position]] = {}
        for position, edges in self._edges.items():
            for _, _, after in edges:
                before.setdefault(after, []).append(position)
        edge_of_known = [position for position in self._edges if position[0] == self._room.targets]
        to_go = dict.fromkeys(edge_of_known, 0)
        for position in edge_of_known:  # grows while it is read: breadth first
            for earlier in before.get(position, ()):
                if earlier not in to_go:
                    to_go[earlier] = to_go[position] + 1
                    edge_of_known.append(earlier)
        return to_go

    def _pushes(self, position: Position) -> list[Edge]:
        """Every push that leaves a box on no dead cell, boxes in reading order, then in the order of ``DIRECTIONS``."""
        boxes, reached = position
        free = self._alive & ~boxes
        edges = []
        for cell in cells(boxes):
            for direction, delta in enumerate(self._deltas):
                if reached >> cell - delta & 1 and free >> cell + delta & 1:
                    after = boxes ^ (1 << cell) ^ (1 << cell + delta)
                    edges.append((cell, direction, (after, self._region(after, cell))))
        return edges

    def _region(self, boxes: int, player: int) -> int:
        """The set of cells the player can walk to."""
        return region(self._room.floor & ~boxes, player, self._room.width)

    def _bound(self, boxes: int) -> int:
        """A lower bound of the pushes still needed; at least ``_FAR`` where there is no way."""
        if boxes not in self._bounds:
            places = list(cells(boxes))
            self._bounds[boxes] = min(
                sum(found.get(place, _FAR) for place, found in zip(places, order, strict=True))
                for order in permutations(self._distances)
            )
        return self._bounds[boxes]

    def _walk(self, boxes: int, player: int) -> dict[int, str]:
        """A shortest walk to each cell the player can reach, as a text of ``LETTERS``; the first one found breadth first."""
        key = (boxes, player)
        if key not in self._walks:
            free = self._room.floor & ~boxes
            walks = {player: ""}
            queue = [player]
            for cell in queue:  # grows while it is read: breadth first
                for letter, delta in zip(LETTERS, self._deltas, strict=True):
                    ahead = cell + delta
                    if free >> ahead & 1 and ahead not in walks:
                        walks[ahead] = walks[cell] + letter
                        queue.append(ahead)
            self._walks[key] = walks
        return self._walks[key]


def push_distances(room: Room) -> list[dict[int, int]]:
    """For each target in reading order: the fewest pushes that bring a box there from each cell, in an otherwise empty room.

    The player may step anywhere between pushes, so true numbers are never smaller. Cells from where no push sequence leads
    to the target are missing; cells missing for every target are dead.
    """
    found = []
    for target in cells(room.targets):
        distances = {target: 0}
        queue = [target]
        for cell in queue:  # grows while it is read: breadth first
            for delta in room.deltas:
                # A push in this direction brings the box here from `source`; the player stands one cell before that.
                source = cell - delta
                if source not in distances and room.floor >> source & 1 and room.floor >> source - delta & 1:
                    distances[source] = distances[cell] + 1
                    queue.append(source)
        found.append(distances)
    return found
