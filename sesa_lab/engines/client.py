"""HTTP to a server of completions: many requests at once, tried again while the server is away, ended at once by an error.

Threads rather than asyncio, whose loop a notebook's own would forbid. A thread that waits for an answer cannot be told to
stop; its socket can be shut, so the client keeps account of the sockets.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any, TypeVar

import httpx
import tenacity

from sesa_lab.errors import InputError

Result = TypeVar("Result")

CONNECT = 5.0  # seconds for a connection to be accepted
ANSWER = 600.0  # seconds for an answer, unless it is long
PULSE = 5.0  # seconds between looks whether the server that is waited for still listens
KEPT_OPEN = 2.0  # seconds of an idle connection; vLLM's server closes it after 5
WORDS = 300  # characters that are quoted of what a server says
KEY = "VLLM_API_KEY"  # environment variable that vLLM's server reads its key from, too

log = logging.getLogger(__name__)


class Away(Exception):
    """The server did not answer, or could not just now.

    Attributes:
        lost: seconds that this attempt waited in vain.
    """

    def __init__(self, words: str, lost: float = 0.0) -> None:
        super().__init__(words)
        self.lost = lost


class Refused(Exception):
    """The server answered that it will not.

    Attributes:
        status: HTTP's number.
        words: the server's own, in one line, shortened. Foreign text: quoted, never evaluated.
    """

    def __init__(self, status: int, words: str) -> None:
        super().__init__(f"HTTP {status}: {words}")
        self.status, self.words = status, words


def passing(refused: Refused) -> bool:
    """Whether a refusal is the kind that goes by: the server's own failure, or too many requests."""
    return refused.status >= 500 or refused.status in (408, 425, 429)


class Client:
    """Asks one server, by up to ``connections`` threads."""

    def __init__(self, url: str, connections: int, patience: float, remedy: str) -> None:
        """Open nothing yet.

        Args:
            url: scheme, host and port; a final /v1 is left out.
            connections: requests under way at once.
            patience: seconds, from its first failure on, that a request is tried again.
            remedy: what to do where the server stays away, for the error.

        Raises:
            InputError: no such URL.
        """
        self.url = url.rstrip("/").removesuffix("/v1")
        self.patience, self.remedy = patience, remedy
        key = os.environ.get(KEY, "")
        try:
            if httpx.URL(self.url).scheme not in ("http", "https") or not httpx.URL(self.url).host:
                raise ValueError("it has no http:// or no host")
            self._http = httpx.Client(
                base_url=self.url,
                headers={"Authorization": f"Bearer {key}"} if key else {},
                limits=httpx.Limits(
                    max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=KEPT_OPEN
                ),
                trust_env=False,  # no proxy between here and there
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise InputError(
                f"engine.server_url = {url!r}: {error}; expected a URL such as http://127.0.0.1:8000"
            ) from error
        self._pool = ThreadPoolExecutor(connections, thread_name_prefix="sesa-lab-server")
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._missed = False

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        stop: threading.Event | None = None,
        again: Callable[[Refused], bool] = passing,
        seconds: float = ANSWER,
    ) -> Any:
        """One answer, tried again while there is none.

        Args:
            method: GET or POST.
            path: from the server's root.
            body: sent as JSON.
            stop: when it is set, nothing is tried again.
            again: whether a refusal is a reason to try again; it may first mend its cause.
            seconds: most that one answer takes.

        Returns:
            The answer: of JSON, or a text.

        Raises:
            InputError: no answer for as long as patience lasts.
            Refused: an answer, but a refusal.
        """
        stop = stop or threading.Event()
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Away),
            stop=_patience(self.patience, stop),
            wait=tenacity.wait_exponential(multiplier=0.2, max=5.0),
            sleep=tenacity.sleep_using_event(stop),
            before_sleep=self._say,
            reraise=True,
        )
        try:
            answer = retrying(self.once, method, path, body, stop=stop, again=again, seconds=seconds)
        except Away as error:
            raise InputError(
                f"the server at {self.url} has not answered for {self.patience:g} seconds ({error}); {self.remedy}"
            ) from error
        self._missed = False
        return answer

    def once(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        stop: threading.Event | None = None,
        again: Callable[[Refused], bool] = passing,
        seconds: float = ANSWER,
    ) -> Any:
        """One attempt of ``ask``.

        Raises:
            Away: no answer, or a refusal that is a reason to try again.
            Refused: any other refusal.
        """
        began = time.monotonic()
        try:
            answer = self._http.request(
                method,
                path,
                json=body,
                timeout=httpx.Timeout(seconds, connect=CONNECT, pool=None),
                extensions={"trace": partial(self._opened, stop or threading.Event())},
            )
        except httpx.TimeoutException as error:
            lost = time.monotonic() - began
            raise Away(f"{type(error).__name__} after {lost:.0f} seconds", lost) from error
        except httpx.RequestError as error:
            raise Away(f"{type(error).__name__}: {words(str(error))}") from error
        if not answer.is_success:
            refused = Refused(answer.status_code, _said(answer))
            if again(refused):
                raise Away(str(refused))
            raise refused
        try:
            return answer.json()
        except ValueError:
            return answer.text

    def side_by_side(self, tasks: Sequence[Callable[[threading.Event], Result]]) -> list[Result]:
        """Results of all tasks, in order. Each is given the event that tells it to stop.

        An error in one, or an interrupt here, ends all of them before it is raised. A server that no longer takes connections is
        ending, and may leave what it was asked unanswered: whoever waits for that tries again.
        """
        stop = threading.Event()
        futures: list[Future[Result]] = []
        try:
            futures += [self._pool.submit(task, stop) for task in tasks]
            pending = set(futures)
            while pending:
                done, pending = wait(pending, PULSE, FIRST_EXCEPTION)
                for future in done:
                    future.result()
                if pending and not self._listens():
                    self._hang_up()
            return [future.result() for future in futures]
        except BaseException:
            stop.set()
            for future in futures:
                future.cancel()
            self._hang_up()
            wait(futures)
            raise

    def close(self) -> None:
        """End threads and connections."""
        self._hang_up()
        self._pool.shutdown(cancel_futures=True)
        self._http.close()

    def _say(self, state: tenacity.RetryCallState) -> None:
        """One line an outage; a connection that the server had just closed is none."""
        with self._lock:
            if self._missed or state.attempt_number == 1:
                return
            self._missed = True
        error = state.outcome.exception() if state.outcome else None
        log.warning("waiting up to %g seconds for the server at %s (%s)", self.patience, self.url, error)

    def _opened(self, stop: threading.Event, event: str, info: dict[str, Any]) -> None:
        """What httpx calls at each stage of a request: keeps the sockets it opens, TLS's in the place of plain ones."""
        if event not in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            return
        opened = info["return_value"].get_extra_info("socket")
        with self._lock:
            self._sockets = {known for known in self._sockets if known.fileno() >= 0} | {opened}
        if stop.is_set():
            _shut(opened)

    def _listens(self) -> bool:
        """No only where a connection is refused: a busy server may be slow to take one."""
        url = httpx.URL(self.url)
        try:
            socket.create_connection((url.host, url.port or (443 if url.scheme == "https" else 80)), CONNECT).close()
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
        return True

    def _hang_up(self) -> None:
        """Whoever waits for an answer gets an error."""
        with self._lock:
            for known in self._sockets:
                _shut(known)
            self._sockets = set()


def _said(answer: httpx.Response) -> str:
    """An error's message, where it has the usual form; else all of it."""
    try:
        found = answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        found = answer.text
    return words(str(found)) or "no words"


def words(text: str) -> str:
    """Foreign text in one printable line of at most ``WORDS`` characters."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text[: 4 * WORDS]).split())
    return line if len(line) <= WORDS else line[: WORDS - 4] + " ..."


def _patience(seconds: float, stop: threading.Event) -> Callable[[tenacity.RetryCallState], bool]:
    """Whether to give up: ``seconds`` have passed since the first failure began, or ``stop`` is set.

    Time that went into an answer which then broke off does not count; time that an answer did not come does.
    """
    first: list[float] = []

    def over(state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        first.append(time.monotonic() - (error.lost if isinstance(error, Away) else 0.0))
        return stop.is_set() or time.monotonic() - first[0] >= seconds

    return over


def _shut(opened: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed meanwhile
        opened.shutdown(socket.SHUT_RDWR)
