"""A sketch that was edited in the page, expanded by whoever was handed in: what is asked, checked; what comes back, as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from sesa_lab.errors import InputError, first_line, short
from sesa_lab.widgets.payload import EXCERPT, SKETCH, excerpt, finite

MOST = 16
"""Solutions asked for at once."""
ANSWER = 4_000
"""Letters of a solution that are shown."""


class Solution(Protocol):
    """What the page shows of one solution; ``expanding.Solution`` says what each means."""

    @property
    def policy(self) -> str: ...
    @property
    def prompt(self) -> str: ...
    @property
    def completion(self) -> str: ...
    @property
    def tokens(self) -> int: ...
    @property
    def logprob(self) -> float: ...
    @property
    def finish(self) -> str: ...
    @property
    def reward(self) -> float: ...
    @property
    def success(self) -> bool: ...
    @property
    def strategy(self) -> str | None: ...


class Expander(Protocol):
    """Draws solutions that follow a sketch; ``expanding.Expander`` is one, of a run's policy."""

    def expand(self, task: int, sketch: str, count: int = 4, seed: int = 0) -> Sequence[Solution]:
        """``count`` solutions of the task; the same seed gives the same ones.

        Raises:
            InputError: what is asked for cannot be drawn; the page shows the message.
        """
        ...


def each(expander: Expander | Sequence[Expander | None] | None, runs: int) -> list[Expander | None]:
    """One for each of ``runs`` runs, or the one for all of them.

    Raises:
        InputError: fewer than there are runs, or something that cannot expand.
    """
    given: list[Any] = list(expander) if isinstance(expander, Sequence) else [expander] * runs
    if len(given) < runs:
        raise InputError(f"expander names {len(given)} for {runs} runs; expected one, or one each (None: none)")
    for one in given:
        if one is not None and not callable(getattr(one, "expand", None)):
            raise InputError(
                f"expander {short(one)} has no method expand; expected e.g. sesa_lab.expanding.Expander(run)"
            )
    return given[:runs]


def job(expander: Expander, row: Mapping[str, Any], content: Mapping[str, Any]) -> Callable[[], dict[str, Any]]:
    """What is to be done, in a thread, about a page's request; its result is the answer.

    Args:
        expander: draws.
        row: the candidate: ``task`` and ``prompt`` as in the table of rollouts.
        content: ``sketch`` (text), ``count`` and ``seed``, as the page sent them.

    Raises:
        InputError: a request that cannot be meant: too long a sketch, a number out of range.
    """
    sketch = content.get("sketch")
    if not isinstance(sketch, str):
        raise InputError(f"the sketch is {short(sketch)}, expected a text")
    if len(sketch) > SKETCH:
        raise InputError(f"the sketch has {len(sketch):,} letters, expected at most {SKETCH:,}; shorten it")
    count = _whole("solutions", content.get("count"), 1, MOST)
    seed = _whole("seed", content.get("seed"), 0, 2**32 - 1)

    def work() -> dict[str, Any]:
        found = expander.expand(row["task"], sketch, count, seed)
        for solution in found:
            if solution.prompt != row["prompt"]:
                raise InputError(
                    f"task {row['task']} is another one for {solution.policy}: expand with the policy of a run on the same"
                    " environment and options, and with the version that the run was made with"
                )
        return {"sketch": sketch, "policy": found[0].policy if found else "", "solutions": list(map(_told, found))}

    return work


def _whole(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"{name}: {short(value)}, expected a whole number from {low} to {high}")
    return value


def failure(error: Exception) -> str:
    """One line for the page: what is wrong with the request, or that something broke."""
    if isinstance(error, InputError):
        return first_line(error)
    return f"the expansion failed: {type(error).__name__}: {first_line(error)}"


def _told(solution: Solution) -> dict[str, Any]:
    strategy = solution.strategy
    return {
        **excerpt(solution.completion, ANSWER),
        "tokens": solution.tokens,
        "logprob": finite(solution.logprob),
        "finish": solution.finish,
        "reward": finite(solution.reward),
        "success": bool(solution.success),
        "strategy": None if strategy is None else strategy[:EXCERPT],
    }
