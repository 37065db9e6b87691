"""Who is at a run in a storage: one invocation at a time, the others leave it alone, and what the dead hold is taken over."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from sesa_lab.errors import InputError
from sesa_lab.experiments import stored_owner
from sesa_lab.experiments.stored_owner import OWNER, Watch, let_go, owned, owner
from sesa_lab.experiments.stored_runs import MANIFEST, Busy, Place


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_owner, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(stored_owner, "_SETTLE_SECONDS", 0.1)


def put(url: str, text: str) -> None:
    system, root = fsspec.url_to_fs(url)
    system.makedirs(root, exist_ok=True)
    system.pipe_file(f"{root}/{OWNER}", text.encode())


def wait_for(said: Callable[[], Any]) -> None:
    end = time.monotonic() + 30
    while not said():
        assert time.monotonic() < end
        time.sleep(0.01)


def beat(url: str) -> int:
    return int(json.loads(owner(Place(url)) or "{}").get("beat", -1))


def test_others_leave_it_alone_while_the_body_runs_and_nothing_is_left_of_it(url: str) -> None:
    with owned(Place(url), "one") as check:
        before = Place(url).content(MANIFEST)
        with (
            pytest.raises(Busy, match=r"another process is writing .*run; wait for it or end it"),
            owned(Place(url), "two"),
        ):
            pass
        assert Place(url).content(MANIFEST) == before
        wait_for(lambda: beat(url) >= 2)
        check()
    assert owner(Place(url)) is None
    with owned(Place(url), "two") as check:
        check()
    system, root = fsspec.url_to_fs(url)
    assert [Path(path).name for path in system.find(root)] == [MANIFEST]


@pytest.mark.parametrize("how", ["of the same invocation", "held to be dead"])
def test_whoever_was_taken_over_from_notices_and_takes_nothing_back(url: str, how: str) -> None:
    with owned(Place(url), "one") as old:
        wait_for(lambda: beat(url) >= 1)
        with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
            patch.setattr(stored_owner, "BEAT_SECONDS", 30.0)  # of the new one, that its record may be compared
            for attempt in Retrying(retry=retry_if_exception_type(Busy), stop=stop_after_attempt(100)):
                with attempt:  # the old one beats on: it may stir while it is taken over from
                    invocation, stale = ("two", owner(Place(url))) if how == "held to be dead" else ("one", None)
                    check = stack.enter_context(owned(Place(url), invocation, stale))
            seen = owner(Place(url))
            with pytest.raises(Busy):
                wait_for(old)
            check()
            leave = stack.pop_all()
    assert owner(Place(url)) == seen, "the old one's end is not the new one's"
    leave.close()
    assert owner(Place(url)) is None


def test_of_several_that_come_at_once_one_has_it(url: str) -> None:
    came, had = threading.Barrier(4), []

    def come(number: int) -> None:
        came.wait()
        try:
            with owned(Place(url), str(number)) as check:
                had.append(number)
                wait_for(lambda: len(had) + len(refused) == 4)
                check()
        except Busy:
            refused.append(number)

    refused: list[int] = []
    threads = [threading.Thread(target=come, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(had) == 1 and len(refused) == 3
    assert owner(Place(url)) is None


def test_a_watch_is_over_when_it_was_let_go_of_or_has_not_stirred_for_a_lease(url: str) -> None:
    watch = Watch(Place(url))
    assert watch.over(), "nobody is there"
    with owned(Place(url), "one"):
        assert not watch.over()
        for last in (0, 1):
            watch.since -= stored_owner.LEASE_SECONDS  # so long ago was the last look
            wait_for(lambda last=last: beat(url) > last)
            assert not watch.over(), "it has stirred since"
    assert watch.over() and watch.seen is None
    put(url, '{"invocation": "one", "writer": "gone", "beat": 7}')
    assert not watch.over(), "seen for the first time just now, however long it has been there"
    watch.since -= stored_owner.LEASE_SECONDS
    assert watch.over()
    with pytest.raises(Busy), owned(Place(url), "two", '{"invocation": "one", "writer": "gone", "beat": 6}'):
        pass
    with owned(Place(url), "two", watch.seen) as check:
        check()
    assert Watch(None).over(), "a folder here has its lock, and no record"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"beat": 3}', "\udcff"])
def test_a_record_that_says_nothing_has_a_lease_like_others(url: str, text: str) -> None:
    put(url, "") if not text else put(url, text.encode("utf-8", "surrogateescape").decode("latin-1"))
    with pytest.raises(Busy), owned(Place(url), "one"):
        pass
    with owned(Place(url), "one", owner(Place(url))):
        pass
    assert owner(Place(url)) is None


def test_of_a_lost_process_its_own_invocation_alone_lets_go(url: str) -> None:
    let_go(Place(url), "one")
    put(url, '{"invocation": "one", "writer": "gone", "beat": 7}')
    let_go(Place(url), "two")
    assert owner(Place(url)) is not None
    let_go(Place(url), "one")
    assert owner(Place(url)) is None


def test_a_storage_that_is_away_for_a_while_costs_beats_alone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(url)
    with owned(place, "one") as check:
        wait_for(lambda: beat(url) >= 1)
        away = [0]

        def gone(name: str) -> bytes:
            away[0] += 1
            raise InputError("storage away")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(place, "content", gone)
            wait_for(lambda: away[0] >= 3)
        last = beat(url)
        wait_for(lambda: beat(url) > last)
        check()
