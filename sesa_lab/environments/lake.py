"""A frozen lake's map: where an action may lead, and the shortest plans. Chance and episodes are ``frozen_lake``'s."""

from __future__ import annotations

from collections import deque
from functools import cache, lru_cache

from sesa_lab.environments.grid import DIRECTIONS, cell_names, neighbours

ACTIONS = tuple(DIRECTIONS)
MOST_SOLUTIONS = 5_000


class Lake:
    """A map, with what follows from it.

    Attributes:
        rows: as in Gymnasium, of S (start), F (frozen), H (hole), G (goal).
        size: cells a side.
        start, goal: cells, numbered row by row.
        names: of the cells, see ``grid.cell_name``.
        over: of each cell, whether the episode ends there.
        distance: cell -> length of the shortest plan from there to the goal, moves; of cells that have one.
    """

    def __init__(self, rows: tuple[str, ...]) -> None:
        cells = "".join(rows)
        self.rows, self.size, self.cells = rows, len(rows), cells
        self.start, self.goal = cells.index("S"), cells.index("G")
        self.over = tuple(map("GH".__contains__, cells))
        self.names = cell_names(self.size, self.size)
        self._next = neighbours(self.size, self.size)
        self._outcomes = _outcomes(self.size)
        self.distance = self._distances()

    def outcomes(self, cell: int, action: int, slippery: bool) -> tuple[int, ...]:
        """Where an action may lead, each cell listed as likely as any other: one cell, or three on slippery ice.

        Args:
            cell: neither a hole nor the goal (there it is over).
            action: place in ``ACTIONS``.
            slippery: whether the ice is.
        """
        return self._outcomes[slippery][cell][action]

    def plans(self) -> list[list[str]] | None:
        """All shortest plans, without slipping, in the order of ``ACTIONS``; None if more than ``MOST_SOLUTIONS``."""
        if self._count() > MOST_SOLUTIONS:
            return None
        found: list[list[str]] = []
        open_ends: list[tuple[int, list[str]]] = [(self.start, [])]
        while open_ends:
            cell, plan = open_ends.pop()
            if cell == self.goal:
                found.append(plan)
            onwards = [(other, [*plan, ACTIONS[action]]) for action, other in self._nearer(cell)]
            open_ends += reversed(onwards)
        return found

    def plan(self) -> list[str]:
        """The first of the shortest plans."""
        cell, plan = self.start, []
        while cell != self.goal:
            action, cell = self._nearer(cell)[0]
            plan.append(ACTIONS[action])
        return plan

    def hard(self) -> bool:
        """Whether no shortest plan is habitual: the way along the start's row, then the goal's column, meets a hole.

        Where that way is open it is a shortest one, having the least moves two cells can be apart.
        """
        (row, column), (last_row, last_column) = divmod(self.start, self.size), divmod(self.goal, self.size)
        across = self.rows[row][min(column, last_column) : max(column, last_column) + 1]
        along = [line[last_column] for line in self.rows[min(row, last_row) : max(row, last_row) + 1]]
        return "H" in across or "H" in along

    def drawing(self, player: int) -> list[str]:
        """The rows in RAGEN's symbols with the player somewhere."""
        here = {"H": "X", "G": "√"}.get(self.cells[player], "P")
        symbols = self.cells.translate({ord("S"): "_", ord("F"): "_", ord("H"): "O"})
        symbols = symbols[:player] + here + symbols[player + 1 :]
        return [symbols[first : first + self.size] for first in range(0, len(symbols), self.size)]

    def _nearer(self, cell: int) -> list[tuple[int, int]]:
        """The actions that lead nearer to the goal, and where they lead."""
        wanted = self.distance[cell] - 1
        return [(action, other) for action, other in enumerate(self._next[cell]) if self.distance.get(other) == wanted]

    def _count(self) -> int:
        """How many shortest plans there are."""
        ways = {self.goal: 1}
        for cell in sorted(self.distance, key=self.distance.__getitem__)[1:]:
            ways[cell] = sum(ways[other] for _, other in self._nearer(cell))
        return ways[self.start]

    def _distances(self) -> dict[int, int]:
        """Breadth-first from the goal; over ice, every way can be walked in both directions."""
        distance, waiting = {self.goal: 0}, deque([self.goal])
        while waiting:
            cell = waiting.popleft()
            for other in self._next[cell]:
                if other not in distance and self.cells[other] != "H":
                    distance[other] = distance[cell] + 1
                    waiting.append(other)
        return distance


@cache
def _outcomes(size: int) -> tuple[tuple[tuple[tuple[int, ...], ...], ...], ...]:
    """Where an action may lead, by whether the ice is slippery (0, 1), cell and action."""
    table = neighbours(size, size)
    straight = tuple(tuple((other,) for other in around) for around in table)
    aside = tuple(
        tuple((around[action - 1], around[action], around[(action + 1) % 4]) for action in range(4)) for around in table
    )
    return straight, aside


@lru_cache(maxsize=16_384)
def lake_from(rows: tuple[str, ...]) -> Lake:
    """The lake of a Gymnasium map."""
    return Lake(rows)
