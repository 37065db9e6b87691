"""Sokoban's solver against plain searches that know only the rules of a move."""

from __future__ import annotations

import heapq
from collections import deque

import pytest

from sesa_lab.environments import sokoban_solver
from sesa_lab.environments.sokoban_rooms import DIRECTIONS, Room, cell_name, cells, generate, move, parse
from sesa_lab.environments.sokoban_solver import LETTERS, SLACK, Search, has_plan, push_distances, solve
from sesa_lab.seeding import stream


def drawn(number: int, *, size: int = 6, boxes: int = 1, walk_steps: int = 20, seed: int = 7) -> list[Room]:
    """``number`` random rooms."""
    found: list[Room] = []
    draw = 0
    while len(found) < number:
        room = generate(
            stream(seed, "environment", 5, draw),
            height=size, width=size, boxes=boxes, walk_steps=walk_steps, search_depth=300, player_steps=3,
        )  # fmt: skip
        found += [] if room is None else [room]
        draw += 1
    return found


SMALL = [*drawn(60), *drawn(30, boxes=2), *drawn(10, boxes=3, walk_steps=30), *drawn(20, size=7, walk_steps=30)]


def cheapest(room: Room) -> tuple[int, int]:
    """Dijkstra over single moves: the fewest pushes, and the fewest moves with at most ``SLACK`` more pushes."""
    fewest = _dijkstra(room, by_pushes=True, budget=1000)
    return fewest, _dijkstra(room, by_pushes=False, budget=fewest + SLACK)


def _dijkstra(room: Room, *, by_pushes: bool, budget: int) -> int:
    queue = [(0, 0, 0, room.boxes, room.player)]
    seen = set()
    while queue:
        cost, pushes, _, boxes, player = heapq.heappop(queue)
        here = Room(room.width, room.height, room.floor, room.targets, boxes, player)
        if here.solved:
            return cost
        key = (boxes, player) if by_pushes else (boxes, player, pushes)
        if key in seen:
            continue
        seen.add(key)
        for direction in range(4):
            after, effect = move(here, direction)
            pushed = effect == "push"
            if effect != "bump" and pushes + pushed <= budget:
                step = int(pushed) if by_pushes else 1
                heapq.heappush(queue, (cost + step, pushes + pushed, len(seen), after.boxes, after.player))
    raise AssertionError("no solution")


def carried_out(room: Room, plan: str) -> tuple[Room, tuple[str, ...]]:
    """The room after a plan, and the pushes on the way."""
    pushes: list[str] = []
    for letter in plan:
        assert not room.solved, "moves after the end"
        room, effect = move(room, LETTERS.index(letter))
        if effect == "push":
            pushes.append(f"{cell_name(room.player, room.width)}:{letter}")
    return room, tuple(pushes)


def region(room: Room) -> frozenset[int]:
    """Where the player can walk, by single moves."""
    seen, waiting = {room.player}, deque([room])
    while waiting:
        here = waiting.popleft()
        for direction in range(4):
            after, effect = move(here, direction)
            if effect == "walk" and after.player not in seen:
                seen.add(after.player)
                waiting.append(after)
    return frozenset(seen)


def test_fewest_pushes_and_moves_are_those_of_a_plain_search() -> None:
    for room in SMALL:
        solved = solve(room, 100)
        assert solved is not None and solved.shortest is not None
        assert (solved.pushes, len(solved.shortest)) == cheapest(room)
        assert carried_out(room, solved.shortest)[0].solved


@pytest.mark.slow
@pytest.mark.parametrize("size, boxes, walk_steps, number", [(7, 1, 40, 300), (7, 2, 30, 40), (6, 3, 30, 40)])
def test_fewest_pushes_and_moves_in_larger_rooms(size: int, boxes: int, walk_steps: int, number: int) -> None:
    for room in drawn(number, size=size, boxes=boxes, walk_steps=walk_steps, seed=8):
        solved = solve(room, 100)
        assert solved is not None and solved.shortest is not None
        assert (solved.pushes, len(solved.shortest)) == cheapest(room)


def test_plans_are_all_there_are() -> None:
    """Every text of at most 8 moves is played; what solves the room is compared with the solver's plans."""
    longest = 8
    several = 0
    for room in SMALL:
        solved = solve(room, longest)
        if solved is None or not solved.plans:
            continue
        expected = _by_brute_force(room, longest, solved.pushes + SLACK)
        plans = {carried_out(room, plan.moves)[1]: len(plan.moves) for plan in solved.plans}
        assert plans == expected
        several += len(plans) > 1
    assert several >= 15


def _by_brute_force(room: Room, longest: int, most_pushes: int) -> dict[tuple[str, ...], int]:
    """Push sequence -> least moves, of all texts of moves that solve the room and come to no position twice."""
    found: dict[tuple[str, ...], int] = {}
    level = {(room, (), frozenset([(room.boxes, region(room))]))}
    for length in range(1, longest + 1):
        onwards = set()
        for here, pushes, seen in level:
            for direction in range(4):
                after, effect = move(here, direction)
                if effect == "bump":
                    continue
                if effect == "walk":
                    onwards.add((after, pushes, seen))
                    continue
                position = (after.boxes, region(after))
                longer = (*pushes, f"{cell_name(after.player, room.width)}:{LETTERS[direction]}")
                if position in seen or len(longer) > most_pushes:
                    continue
                if after.solved:
                    found.setdefault(longer, length)
                else:
                    onwards.add((after, longer, seen | {position}))
        level = onwards
    return found


def test_plans_solve_and_differ() -> None:
    for room in SMALL:
        solved = solve(room, 24)
        if solved is None or solved.plans is None or not solved.plans:
            continue
        ends = [carried_out(room, plan.moves) for plan in solved.plans]
        assert all(end.solved for end, _ in ends)
        assert len({pushes for _, pushes in ends}) == len(ends)
        assert all(solved.pushes <= len(pushes) <= solved.pushes + SLACK for _, pushes in ends)
        lengths = [len(plan.moves) for plan in solved.plans]
        assert lengths == sorted(lengths) and lengths[-1] <= 24 and solved.shortest == solved.plans[0].moves
        for plan, (_, pushes) in zip(solved.plans, ends, strict=True):
            directions = [push[-1] for push in pushes]
            legs = [one for one, before in zip(directions, [None, *directions], strict=False) if one != before]
            assert plan.legs == "".join(legs)


def test_dead_cells_by_hand() -> None:
    # A box in a corner, or along the upper wall (no target there), can never come to the target in row c.
    room = parse(["######", "#_PX_#", "#___O#", "#____#", "######"])
    (distances,) = push_distances(room)
    by_name = {cell_name(cell, 6): distance for cell, distance in distances.items()}
    # To the target ce a box comes from cd and cc by pushes right; from cb not, where the player would stand in the wall.
    # From be and de it would come by a push down or up, with the player in the wall. So rows b and d are dead.
    assert by_name == {"ce": 0, "cd": 1, "cc": 2}
    assert solve(room, 100) is None


def test_dead_cells_are_those_of_a_plain_search() -> None:
    for room in SMALL[:90]:
        targets = list(cells(room.targets))
        for target, distances in zip(targets, push_distances(room), strict=True):
            for cell in cells(room.floor):
                assert distances.get(cell) == _pushes_with_a_flying_player(room, cell, target)


def _pushes_with_a_flying_player(room: Room, box: int, target: int) -> int | None:
    """The fewest pushes of a lone box, the player set down before each push wherever there is floor; forwards."""
    distance, waiting = {box: 0}, deque([box])
    while waiting:
        here = waiting.popleft()
        if here == target:
            return distance[here]
        for direction, delta in enumerate(room.deltas):
            stand = here - delta
            if room.floor >> stand & 1:
                before = Room(room.width, room.height, room.floor, 1 << target, 1 << here, stand)
                after, effect = move(before, direction)
                (there,) = cells(after.boxes)
                if effect == "push" and there not in distance:
                    distance[there] = distance[here] + 1
                    waiting.append(there)
    return None


def test_rooms_without_a_solution() -> None:
    cornered = parse(["#####", "#X__#", "#_PO#", "#####"])
    # the player cannot come to the box's other side: alive cells, no way
    walled = parse(["#######", "#P#_X_#", "#_#_O_#", "#_#___#", "#######"])
    # two boxes side by side along a wall hold each other, though neither cell is dead: targets are below the first
    blocked = parse(["######", "#_XX_#", "#_OO_#", "#_P__#", "######"])
    for room in (cornered, walled, blocked):
        assert solve(room, 100) is None
        assert Search(room).pushes is None and Search(room).plans(100) == [] and Search(room).fewest_moves() is None


def test_a_box_on_its_target_may_have_to_leave_it() -> None:
    # In a corridor the left box, which is at home, cannot make way for the player.
    assert solve(parse(["########", "#P√XO__#", "########"]), 100) is None
    # Here it is pushed up (player: down, right, up), the other one right, and the first one down again from above
    # (up, up, left, down): 3 pushes, 3 + 1 + 4 = 8 moves. Row b and row e are dead, so it cannot go down first.
    room = parse(["########", "#______#", "#______#", "#P√XO__#", "#______#", "########"])
    solved = solve(room, 100)
    assert solved is not None and (solved.pushes, solved.shortest) == (3, "druruuld")


def test_too_many_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where plans are not listed, the shortest one and the question about legs are answered by another search: the same."""
    legs = frozenset(["", "u", "d", "l", "r", "lu", "ld", "ru", "rd"])
    listed = [(solve(room, 30), has_plan(room, 30, legs)) for room in SMALL]
    solve.cache_clear()
    monkeypatch.setattr(sokoban_solver, "MOST_SOLUTIONS", -1)
    found = set()
    for room, (before, had) in zip(SMALL, listed, strict=True):
        after = solve(room, 30)
        assert before is not None and after is not None
        assert after.pushes == before.pushes
        if before.plans:
            assert after.plans is None and before.shortest is not None and after.shortest is not None
            assert len(after.shortest) == len(before.shortest)
        assert has_plan(room, 30, legs) is had
        found.add(had)
    solve.cache_clear()
    assert found == {True, False}


def test_a_room_with_thousands_of_plans() -> None:
    rows = ["#########", "#_______#", "#_X_X_X_#", "#_______#", "#_______#", "#_O_O_O_#", "#___P___#", "#########"]
    room = parse(rows)
    solved = solve(room, 100)
    assert solved is not None and solved.plans is None and solved.shortest is not None
    # Each box goes 3 down: 9 pushes, in 9! / (3! 3! 3!) = 1,680 orders, and many more with 2 pushes aside.
    assert solved.pushes == 9
    assert carried_out(room, solved.shortest)[0].solved
    assert has_plan(room, 100, frozenset(["", "d"])) and not has_plan(room, 100, frozenset(["", "u"]))


def test_a_room_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sokoban_solver, "MOST_POSITIONS", 2)
    solve.cache_clear()
    room = parse(["########", "#P_X__O#", "########"])
    assert solve(room, 100) is None
    solve.cache_clear()


def test_directions_and_letters_go_together() -> None:
    assert [direction[0] for direction in DIRECTIONS] == list(LETTERS)
