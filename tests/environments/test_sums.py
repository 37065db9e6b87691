"""Sums and their methods: workings by hand, and thousands of random lists against accounts that share no code with them."""

from __future__ import annotations

import functools
import time
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chi2

from sesa_lab.environments import sums
from sesa_lab.environments.sums import OTHER, Line, Working, draw, method_of, read_lines, signature, workings

FALSE_ALARM = 1e-6

Numbers = tuple[int, ...]


def text(working: Working) -> str:
    return " ".join(map(str, working))


def known(*numbers: int) -> dict[str, str]:
    return {name: text(working) for name, working in workings(numbers).items()}


# ---- by hand


@pytest.mark.parametrize(
    ("numbers", "method", "expected"),
    [
        ((2, 5, 9), "left", "2+5=7 7+9=16"),
        ((7, 1), "left", "7+1=8"),
        ((4, 7, 4, 4), "equal", "4*3=12 12+7=19"),
        ((9, 9, 9), "equal", "9*3=27"),
        ((3, 5, 3, 5, 2), "equal", "5*2=10 3*2=6 10+6=16 16+2=18"),  # the larger product first
        ((2, 3, 2, 3, 2), "equal", "2*3=6 3*2=6 6+6=12"),  # equal products: whose number comes first
        ((3, 2, 2, 3, 2), "equal", "3*2=6 2*3=6 6+6=12"),
        ((8, 1, 6, 1), "equal", "1*2=2 2+8=10 10+6=16"),  # the others in the order of the task
        ((3, 8, 7, 2, 5), "tens", "10*2=20 20+5=25"),
        ((1, 9, 4, 6), "tens", "10*2=20"),
        ((5, 5, 5, 1, 9), "tens", "10*2=20 20+5=25"),  # 5+5 and 1+9; a third 5 is left
        ((5, 5, 5, 5, 5, 5), "tens", "10*3=30"),
        ((8, 2, 2, 7, 3, 1), "tens", "10*2=20 20+2=22 22+1=23"),
        ((4, 10, 6, 7, 12, 3), "tens", "10*2=20 20+10=30 30+12=42"),  # 10 and more are in no pair
        ((2, 4, 6, 8), "ends", "2+8=10 10*2=20"),
        ((5, 1, 7, 3), "ends", "1+7=8 8*2=16"),
        ((1, 2, 3, 4, 5, 6), "ends", "1+6=7 7*3=21"),
        ((4, 4, 4, 4), "ends", "4+4=8 8*2=16"),
        ((6, 7, 9, 6), "around 7", "7*4=28 28+0=28"),
        ((6, 7, 9, 6), "around 6", "6*4=24 24+4=28"),
        ((6, 7, 9, 6), "around 9", "9*4=36 36-8=28"),
        ((2, 11), "around 2", "2*2=4 4+9=13"),  # off by 9
        ((3, 12, 12), "around 10", "10*3=30 30-3=27"),
    ],
)
def test_workings_by_hand(numbers: Numbers, method: str, expected: str) -> None:
    assert known(*numbers)[method] == expected


@pytest.mark.parametrize(
    ("numbers", "methods"),
    [
        ((6, 7, 9, 6), ["left", "equal", "around 6", "around 7", "around 8", "around 9"]),
        ((1, 9, 4, 6), ["left", "tens", "ends", *(f"around {value}" for value in range(3, 8))]),  # 20: from 11 to 29
        ((1, 1), ["left", "equal"]),  # V is 2 or more
        ((11, 12), ["left"]),  # ... and 10 or less
        ((2, 12), ["left", *(f"around {value}" for value in range(3, 11))]),  # 2*2 is off by 10
        ((1, 9, 2, 7), ["left", *(f"around {value}" for value in range(3, 8))]),  # one pair of tens is none
        ((1, 3, 5), ["left", "around 2", "around 3", "around 4", "around 5"]),  # an odd count has no ends
        ((1, 2, 4, 8), ["left", "around 2", "around 3", "around 4", "around 5", "around 6"]),  # 1+8 is not 2+4
    ],
)
def test_methods_that_fit_by_hand(numbers: Numbers, methods: list[str]) -> None:
    assert list(workings(numbers)) == methods


# ---- against accounts of their own


@functools.cache
def tens(numbers: Numbers) -> int:
    """Most pairs that make ten, by trying every partner of the first number."""
    if not numbers:
        return 0
    first, *rest = numbers
    partners = [place for place, value in enumerate(rest) if first + value == 10]
    return max(tens(tuple(rest)), *(1 + tens(tuple(rest[:at] + rest[at + 1 :])) for at in partners), 0)


def fits(method: str, numbers: Numbers) -> bool:
    """The table's third column."""
    ranked = sorted(numbers)
    if method == "left":
        return True
    if method == "equal":
        return len(set(numbers)) < len(numbers)
    if method == "tens":
        return tens(numbers) >= 2
    if method == "ends":
        sums_of_pairs = {one + other for one, other in zip(ranked, reversed(ranked), strict=True)}
        return len(numbers) % 2 == 0 and len(numbers) >= 4 and len(sums_of_pairs) == 1
    value = int(method.removeprefix("around "))
    return ranked[0] <= value <= ranked[-1] and abs(sum(numbers) - value * len(numbers)) <= 9


def spent(pool: Counter[int], lines: Working) -> Counter[int]:
    """What is left when each line's two operands are taken and its result is put back."""
    left = Counter(pool)
    for line in lines:
        assert line.sign == "+"
        left.subtract([line.left, line.right])
        assert min(left.values()) >= 0, f"{line} adds what is not there"
        left[line.result] += 1
    return +left


def check_working(method: str, working: Working, numbers: Numbers) -> None:
    """The operands come from where the table says, and are used once each."""
    total = sum(numbers)
    if method == "left":
        assert spent(Counter(numbers), working) == Counter([total]) and len(working) == len(numbers) - 1
        assert [working[0].left, *(line.right for line in working)] == list(numbers)
    elif method == "equal":
        products = [line for line in working if line.sign == "*"]
        assert working[: len(products)] == tuple(products)
        repeated = {value: count for value, count in Counter(numbers).items() if count > 1}
        assert {line.left: line.right for line in products} == repeated and len(products) == len(repeated)
        pool = Counter([line.result for line in products]) + Counter(v for v in numbers if v not in repeated)
        assert spent(pool, working[len(products) :]) == Counter([total])
    elif method == "tens":
        first, *others = working
        assert (first.left, first.sign, first.right) == (10, "*", tens(numbers))
        rest = Counter(line.right for line in others)
        paired = Counter(numbers) - rest
        assert rest <= Counter(numbers) and tens(tuple(paired.elements())) * 2 == paired.total() == 2 * first.right
        assert spent(rest + Counter([first.result]), tuple(others)) == Counter([total])
    elif method == "ends":
        first, second = working
        assert (first.left, first.sign, first.right) == (min(numbers), "+", max(numbers))
        assert (second.left, second.sign, second.right) == (first.result, "*", len(numbers) // 2)
    else:
        first, second = working
        assert (first.left, first.sign, first.right) == (int(method.removeprefix("around ")), "*", len(numbers))
        assert second.left == first.result and 0 <= second.right <= 9 and second.sign in "+-"


def result_of(line: Line) -> int:
    return {"+": line.left + line.right, "-": line.left - line.right, "*": line.left * line.right}[line.sign]


def random_lists(count: int, largest: int, seed: int) -> list[Numbers]:
    """Half at random, half made so that methods fit."""
    generator = np.random.default_rng(seed)
    plain = [
        tuple(generator.integers(1, largest + 1, int(generator.integers(2, 9))).tolist()) for _ in range(count // 2)
    ]
    return plain + [draw(generator, 2, 8, largest) for _ in range(count - len(plain))]


@pytest.mark.parametrize("largest", [3, 9, 12, 99])
def test_workings_of_random_lists(largest: int) -> None:
    seen: Counter[str] = Counter()
    for numbers in random_lists(2_000, largest, largest):
        found = workings(numbers)
        expected = ["left", "equal", "tens", "ends", *(f"around {value}" for value in range(2, 11))]
        expected = [method for method in expected if fits(method, numbers)]
        hidden = [method for method in expected if method not in found]
        assert list(found) == [method for method in expected if method in found]
        assert not hidden or (hidden == ["tens"] and numbers.count(10) == tens(numbers))  # begins like equal's tens
        begun = set()
        for method, working in found.items():
            assert all(line.result == result_of(line) for line in working)
            assert working[-1].result == sum(numbers)
            check_working(method, working, numbers)
            begun.add(signature(working))
            assert method_of(numbers, working) == method
            wrong = tuple(line._replace(result=line.result + 1) for line in working)
            assert method_of(numbers, wrong) == method, "whatever its results"
            seen[method.partition(" ")[0]] += 1
        assert len(begun) == len(found), "no two begin alike"
    assert min(seen[method] for method in ("left", "equal", "ends", "around")) > 50
    assert seen["tens"] > 50 or largest < 5


# ---- which method a working is


def test_two_methods_never_begin_alike_though_ten_is_among_the_numbers() -> None:
    # equal 10*2=20 20+3 ..., tens 10*2=20 20+10 ...: both were listed as solutions, and had one strategy.
    numbers = (10, 10, 3, 7, 4, 6)
    assert "tens" not in workings(numbers) and method_of(numbers, read_lines("10*2=20 20+10=30 30+10=40")) == "equal"
    assert known(10, 3, 7, 4, 6)["tens"] == "10*2=20 20+10=30"


@pytest.mark.parametrize(
    ("working", "method"),
    [
        ("2+5=7 7+9=16", "left"),
        ("2+5=8 8+9=17", "left"),  # wrong results
        ("2+5=7 7+1=8 8+8=16", "left"),  # goes on in another way
        ("2+5=7", OTHER),  # no second line
        ("5+2=7 7+9=16", OTHER),
        ("2+9=11 11+5=16", OTHER),
        ("2+5=7 7*2=14", OTHER),
        ("2-5=3 3+9=12", OTHER),
        ("5*3=15 15+1=16", "around 5"),
        ("5*3=15 15-1=14", OTHER),
        ("5*3=15", OTHER),
        ("3*5=15 15+1=16", OTHER),
    ],
)
def test_a_working_is_known_by_how_it_begins(working: str, method: str) -> None:
    assert method_of((2, 5, 9), read_lines(working)) == method


def test_lines_are_read_wherever_they_stand() -> None:
    lines = (Line(7, "*", 3, 21), Line(21, "-", 8, 13))
    for said in ("7*3=21 21-8=13", "First 7 * 3 = 21,\nthen 21-8=13.", "07*003=021 (21-8=0013)"):
        assert read_lines(said) == lines
    assert [str(line) for line in lines] == ["7*3=21", "21-8=13"]
    for said in (
        "",
        "7*3",
        "7*3=",
        "7/3=2",
        "7x3=21",
        "7  * 3=21",
        "7*3==21",
        "\uff17*3=21",
        "7*3=\u0662",
        "7*3=\x0021",
    ):
        assert read_lines(said) == ()
    assert read_lines("7*3=22") == (Line(7, "*", 3, 22),), "wrong ones too"


def test_lines_are_read_in_linear_time() -> None:
    start = time.process_time()
    counts = {piece: len(read_lines(piece * 200_000)) for piece in ("1", "1+", "1 + 1 ", " ", "=", "1+1=", "1+1=1 ")}
    # each line of 1+1=1+1=1+1= ... ends with the number that the next would begin with
    assert counts == {"1": 0, "1+": 0, "1 + 1 ": 0, " ": 0, "=": 0, "1+1=": 100_000, "1+1=1 ": 200_000}
    assert time.process_time() - start < 5.0


# ---- how lists are drawn


@pytest.mark.parametrize("largest", [2, 3, 4, 5, 6, 8, 9, 10, 50, 99])
@pytest.mark.parametrize(("low", "high"), [(2, 2), (2, 5), (4, 8), (24, 24)])
def test_drawn_numbers_are_in_range(low: int, high: int, largest: int) -> None:
    # Pairs that make ten once brought a 9 where the largest number was to be 2.
    generator = np.random.default_rng(0)
    drawn = [draw(generator, low, high, largest) for _ in range(400)]
    assert {len(numbers) for numbers in drawn} == set(range(low, high + 1))
    assert {type(value) for numbers in drawn for value in numbers} == {int}
    values = {value for numbers in drawn for value in numbers}
    assert min(values) == 1 and max(values) <= largest and (max(values) == largest or largest > 50)


@pytest.mark.parametrize("largest", [5, 7, 9, 30])
def test_lists_are_made_so_that_their_method_fits(largest: int) -> None:
    generator = np.random.default_rng(1)
    for _ in range(300):
        for count in (4, 6, 8):
            assert {"equal", "tens", "ends"} == {
                method
                for method in ("equal", "tens", "ends")
                if fits(method, tuple(sums._made(generator, method, count, largest)))
            }
            near = sums._made(generator, "around", count, largest)
            assert max(near) - min(near) <= 4
    assert tens(tuple(sums._made(generator, "tens", 7, largest))) >= 3, "an odd one is left over"


def test_each_way_of_making_is_as_frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    made: Counter[str] = Counter()
    real = sums._made

    def noted(generator: np.random.Generator, way: str, count: int, largest: int) -> list[int]:
        made[way] += 1
        return real(generator, way, count, largest)

    monkeypatch.setattr(sums, "_made", noted)
    generator = np.random.default_rng(2)
    for _ in range(3_000):
        draw(generator, 4, 8, 9)
    assert set(made) == set(sums.MADE)
    assert sum((count - 600) ** 2 / 600 for count in made.values()) < chi2.isf(FALSE_ALARM, df=4)


def test_order_is_drawn_too() -> None:
    generator = np.random.default_rng(3)
    drawn = [draw(generator, 2, 2, 99) for _ in range(2_000)]
    falling = sum(one > other for one, other in drawn)
    apart = sum(one != other for one, other in drawn)
    # binomial(apart, 1/2): beyond 4.9 sigma once in a million
    assert abs(falling - apart / 2) < 4.9 * np.sqrt(apart / 4)
