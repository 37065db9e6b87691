"""The pool of tasks: distinct, parted by content, the same in whatever order they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from sesa_lab.environments import pool as pool_module
from sesa_lab.environments.pool import HARD, SPLITS, Pool, split_of
from sesa_lab.errors import InputError
from sesa_lab.seeding import stream


def rooms(split: str = "train", hard: str = "natural", seed: int = 0, number: int = 100) -> Pool[tuple[int, int]]:
    """Pairs (room, player) of ``number`` x 10; every third room is hard, and every seventh draw comes to nothing."""

    def draw(generator: np.random.Generator) -> tuple[int, int] | None:
        vain, room, player = generator.integers(0, (7, number, 10)).tolist()
        return None if vain == 0 else (room, player)

    return Pool(
        draw,
        lambda item: f"room {item[0]}\nplayer {item[1]}",
        lambda item: item[0] % 3 == 0,
        lambda n: stream(seed, "environment", 77, n),
        split=split,
        hard=hard,
        label="rooms",
    )


def scripted(items: Sequence[str | None], hard: str = "natural", is_hard: Any = str.isupper) -> Pool[str]:
    """The n-th draw is the n-th item; capitals are hard; nothing after the last. All are taken for training."""
    numbers: Callable[[int], Any] = lambda n: n  # noqa: E731
    draw: Callable[[Any], str | None] = lambda n: items[n] if n < len(items) else None  # noqa: E731
    return Pool(draw, in_training, is_hard, numbers, split="train", hard=hard, label="script")


def in_training(item: str) -> str:
    """``item`` on the second line; on the first a word that the hash puts into training."""
    return f"train\n{item}"


def everything(pool: Pool[Any]) -> list[Any]:
    found: list[Any] = []
    with pytest.raises(InputError, match="distinct tasks were found"):
        while True:
            found.append(pool[len(found)])
    return found


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exhausted after 10 draws in vain."""
    monkeypatch.setattr(pool_module, "MOST_DRAWS", 10)


def test_shares_of_the_splits() -> None:
    # 20,000 contents: 16,000, 2,000 and 2,000 are expected, with standard deviations sqrt(20,000 * 0.8 * 0.2) = 56.6 and
    # sqrt(20,000 * 0.1 * 0.9) = 42.4. 5 of them are 283 and 212: with random contents a false alarm in a million.
    counts = {split: 0 for split in SPLITS}
    for number in range(20_000):
        counts[split_of(f"content {number}")] += 1
    assert abs(counts["train"] - 16_000) < 283
    assert abs(counts["validation"] - 2_000) < 212
    assert abs(counts["test"] - 2_000) < 212


def test_the_split_of_a_content_never_changes() -> None:
    # The first 16 hexadecimal digits of SHA-256, as a number, mod 10: 8 is validation, 9 test. Another rule would put
    # tasks that policies were trained on into the test split.
    expected = ["train"] * 8 + ["validation", "test"]
    for number in range(200):
        content = f"content {number} √"
        last = int(hashlib.sha256(content.encode()).hexdigest()[:16], 16) % 10
        assert split_of(content) == expected[last]
    assert split_of("train") == split_of("") == "train"


def test_splits_are_disjoint_and_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    # 400 pairs; 5,000 draws in vain miss a pair that is left with probability (1 - 6/7 / 400)^5,000 = 2e-5
    monkeypatch.setattr(pool_module, "MOST_DRAWS", 5_000)
    parts = {split: everything(rooms(split, number=40)) for split in SPLITS}
    for split, items in parts.items():
        assert len(set(items)) == len(items) > 0
        assert {split_of(f"room {room}") for room, _ in items} == {split}
    assert {item for items in parts.values() for item in items} == {(r, p) for r in range(40) for p in range(10)}
    assert sum(map(len, parts.values())) == 400


def test_a_first_line_is_never_shared_whatever_seed_and_kind() -> None:
    first, second = rooms("train", seed=1, number=5_000), rooms("test", hard="half", seed=2, number=5_000)
    assert not {first[i][0] for i in range(300)} & {second[i][0] for i in range(300)}


@pytest.mark.parametrize("hard", HARD)
def test_tasks_are_distinct_and_of_the_kind_asked_for(hard: str) -> None:
    pool = rooms(hard=hard)
    items = [pool[index] for index in range(200)]
    assert len(set(items)) == 200
    kinds = [room % 3 == 0 for room, _ in items]
    if hard == "half":
        assert kinds == [False, True] * 100  # even tasks are solved by habits, odd ones are hard
    elif hard == "natural":
        # The kinds among the rooms of the training split, about a third hard; 50 to 90 of 200 are within 2.4 standard
        # deviations (6.7) of that, and the seed is fixed.
        assert 50 < sum(kinds) < 90
    else:
        assert set(kinds) == {hard == "all"}


def test_a_kind_keeps_the_order_of_the_draws() -> None:
    # what "all", "none" and "half" keep are the hard and the easy ones of what "natural" keeps
    natural, only_easy, only_hard, half = (rooms(hard=hard) for hard in ("natural", "none", "all", "half"))
    items = [natural[index] for index in range(300)]
    easy, hard = ([item for item in items if (item[0] % 3 == 0) is kind][:60] for kind in (False, True))
    assert [only_easy[index] for index in range(60)] == easy
    assert [only_hard[index] for index in range(60)] == hard
    assert [half[index] for index in range(120)] == [item for pair in zip(easy, hard, strict=True) for item in pair]


@pytest.mark.parametrize("hard", HARD)
def test_the_order_of_asking_does_not_matter(hard: str) -> None:
    forwards, backwards, far = rooms(hard=hard), rooms(hard=hard), rooms(hard=hard)
    expected = [forwards[index] for index in range(101)]
    assert far[100] == expected[100]
    assert [backwards[index] for index in range(100, -1, -1)] == expected[::-1]
    assert [forwards[index] for index in range(101)] == expected
    assert [rooms(hard=hard)[index] for index in (7, 50)] == [expected[7], expected[50]]


def test_seeds_give_other_tasks() -> None:
    first, second = rooms(seed=0), rooms(seed=1)
    assert [first[index] for index in range(20)] != [second[index] for index in range(20)]


def test_what_is_drawn_again_or_to_nothing_is_passed_over() -> None:
    pool = scripted(["a", None, "a", "b", "A", "b", None, "c"])
    assert [pool[index] for index in range(4)] == ["a", "b", "A", "c"]
    halves = scripted(["A", "b", "C", None, "b", "d", "E"], hard="half")
    assert [halves[index] for index in range(4)] == ["b", "A", "d", "C"]


def test_hardness_may_be_a_numpy_bool() -> None:
    # np.bool_(True) `is not` True: a pool that compared by identity kept nothing with hard = all
    pool = scripted(["a", "B", "C"], hard="all", is_hard=lambda item: np.bool_(item.isupper()))
    assert [pool[0], pool[1]] == ["B", "C"]


@pytest.mark.usefixtures("small")
def test_an_exhausted_pool_says_how_many_there_are() -> None:
    pool = scripted(["a", "b", *["a"] * 20, "c"])
    says = (
        r"^script: only 2 distinct tasks were found with split = 'train', hard = 'natural' and the other options;"
        r" lower `tasks`, or enlarge the task$"
    )
    with pytest.raises(InputError, match=says):
        pool[2]
    with pytest.raises(InputError, match=says):
        pool[1_000_000]
    assert [pool[0], pool[1]] == ["a", "b"]


@pytest.mark.usefixtures("small")
def test_ten_draws_in_vain_are_one_too_many() -> None:
    assert scripted(["a", *["a"] * 9, "b"])[1] == "b"
    with pytest.raises(InputError, match="only 1 distinct"):
        scripted(["a", *["a"] * 10, "b"])[1]
    with pytest.raises(InputError, match=r"only 0 distinct tasks were found .* hard = 'all'"):
        scripted(["a"] * 30, hard="all")[0]


@pytest.mark.usefixtures("small")
def test_an_exhausted_pool_draws_no_further() -> None:
    # it once drew MOST_DRAWS times more at each question, and could find at last what it had said was not there
    drawn: list[int] = []

    def is_hard(item: str) -> bool:
        drawn.append(1)
        return item.isupper()

    pool = scripted([*"abcdefghijklmnopqrstuvwxyz", "A"], hard="all", is_hard=is_hard)
    for _ in range(3):
        with pytest.raises(InputError, match="only 0 distinct"):
            pool[0]
    assert len(drawn) == 10


@pytest.mark.usefixtures("small")
def test_which_tasks_there_are_does_not_depend_on_the_order_of_asking() -> None:
    # Easy ones are drawn 0th and 15th, with 14 hard ones between them: asked for alone, the second is 10 draws too far.
    # Drawing on for hard ones must not find it either.
    items = ["a", *"BCDEFGHIJKLMNO", "p", *"QRST"]
    alone, after = scripted(items, hard="half"), scripted(items, hard="half")
    assert [after[index] for index in range(1, 36, 2)] == list("BCDEFGHIJKLMNOQRST")
    for pool in (alone, after):
        assert pool[0] == "a"
        with pytest.raises(InputError, match=r"only 1 distinct tasks were found .* hard = 'half'"):
            pool[2]
    assert alone[35] == "T"
