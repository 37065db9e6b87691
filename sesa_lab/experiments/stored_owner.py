"""Who is at a run in a storage: whoever it is says so every few seconds, and other invocations leave the run to it.

``OWNER.json`` beside a manifest names the invocation and the process, and counts the beats. It keeps work from being done twice,
and is no lock, since storages have none: should two processes both take themselves for the owner (the storage was slow, or one
was cut off for longer than a lease), the manifest names but one of them as its writer, and the other one is refused.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sesa_lab.errors import InputError
from sesa_lab.experiments.stored_runs import Busy, Place

OWNER = "OWNER.json"
BEAT_SECONDS = 5.0
"""So often whoever is at a place writes ``OWNER.json`` anew."""
LEASE_SECONDS = 120.0
"""Whoever has left ``OWNER.json`` as it is for so long was lost, and is taken over from. Those who wait count by their own clock,
from when they first saw it so: the clocks of two machines are never compared, and may differ by any amount. Longer than the
minute for which a network file system may show what it has read before."""
_SETTLE_SECONDS = 1.0  # of several that come at once each looks so much later who was the last: it is that one's


def owner(place: Place) -> str | None:
    """What ``OWNER.json`` holds; None: nobody is at the place."""
    content = place.content(OWNER)
    return None if content is None else content.decode(errors="replace")


@contextlib.contextmanager
def owned(place: Place, invocation: str, stale: str | None = None) -> Iterator[Callable[[], None]]:
    """While the body runs this process is at the place: it says so, and has claimed it.

    Args:
        place: of a run, or of what runs begin at.
        invocation: on whose behalf. An earlier process of the same one is taken over from at once: it was lost.
        stale: what ``OWNER.json`` has held for ``LEASE_SECONDS``: whoever left it there is taken over from.

    Yields:
        What raises ``Busy`` where another process has taken over since; to be called now and then.

    Raises:
        Busy: a process of another invocation is at the place.
        InputError: the storage cannot be reached.
    """
    found = owner(place)
    if found not in (None, stale) and _said(found, "invocation") != invocation:
        raise Busy(place.url, place)
    over, lost = threading.Event(), threading.Event()
    beats = threading.Thread(target=_beat, args=(place, invocation, over, lost), daemon=True)

    def check() -> None:
        if lost.is_set():
            raise Busy(place.url, place)

    try:
        _say(place, invocation, 0)
        time.sleep(_SETTLE_SECONDS)
        if not _is_own(place):
            raise Busy(place.url, place)
        beats.start()
        place.claim()
        yield check
    finally:
        over.set()
        if beats.is_alive():
            beats.join()
        with contextlib.suppress(InputError):  # then others wait until the lease has run out
            if _is_own(place):
                place.remove([OWNER])


def let_go(place: Place, invocation: str) -> None:
    """What a lost process of ``invocation`` left there, others need not wait for."""
    if _said(owner(place), "invocation") == invocation:
        place.remove([OWNER])


@dataclass
class Watch:
    """Of a run that another invocation is at.

    Attributes:
        place: where; None: nothing is said anywhere.
        seen: what ``OWNER.json`` held at the last look.
        since: the first look, by this machine's clock, at which it held that.
    """

    place: Place | None
    seen: str | None = None
    since: float = field(default_factory=time.monotonic)

    def over(self) -> bool:
        """Have a look: whether nobody is at the place any more, or whoever was has not stirred for ``LEASE_SECONDS``."""
        found = None if self.place is None else owner(self.place)
        if found != self.seen:
            self.seen, self.since = found, time.monotonic()
        return found is None or time.monotonic() - self.since >= LEASE_SECONDS


def _beat(place: Place, invocation: str, over: threading.Event, lost: threading.Event) -> None:
    for beat in itertools.count(1):
        if over.wait(BEAT_SECONDS):
            return
        with contextlib.suppress(InputError):  # out of reach for now: the next beat tries again
            if not _is_own(place):
                lost.set()
                return
            _say(place, invocation, beat)


def _say(place: Place, invocation: str, beat: int) -> None:
    place.move_in(json.dumps({"invocation": invocation, "writer": place.writer, "beat": beat}) + "\n", OWNER)


def _is_own(place: Place) -> bool:
    return _said(owner(place), "writer") == place.writer


def _said(found: str | None, key: str) -> object:
    """What an ``OWNER.json`` says; None where it is none: whoever wrote that has a lease like others."""
    try:
        return json.loads(found or "")[key]
    except (ValueError, KeyError, TypeError):
        return None
