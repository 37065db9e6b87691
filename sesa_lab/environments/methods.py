"""Which method a sketch names, and which one an answer follows: keys that are equal where both mean the same method."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from sesa_lab.environments.mathematics import methods_in
from sesa_lab.environments.sudoku import rules_in
from sesa_lab.environments.vocabulary import UNNAMED
from sesa_lab.types import Task


class Methods:
    """Reads sketches and answers of one environment; whatever the text, it is compared and never evaluated.

    An answer's method is ``environment.sketch``. A sketch is no answer (Sokoban's "right down" would be carried out as a plan),
    so it is read in its own way:

    - where methods are read off the words (mathematics of a data set, grids of Sudoku): those that the text names;
    - form ``lab``: the text itself, blanks aside, for lab policies were taught to draft canonical names and nothing else. One
      that no answer can follow counts as a sketch that is not followed;
    - form ``chat`` elsewhere: the method of one of the solver's solutions that the text is the name of, case and blanks aside.
      Any other prose cannot be read.
    """

    def __init__(self, environment: Any, form: str = "lab") -> None:
        """Nothing is solved yet.

        Args:
            environment: see ``contract.Environment``; answers of one turn.
            form: of the policy's prompts: ``lab`` or ``chat``.
        """
        self.environment, self.form = environment, form
        self._words = _vocabulary(environment)
        self._tasks: dict[int, Task] = {}
        self._solved: dict[int, frozenset[str] | None] = {}

    def of_sketch(self, task: int, text: str) -> str | None:
        """The method that a sketch of task ``task`` names; None where it cannot be read, or names none."""
        said = " ".join(text.split())
        if self._words is not None:
            return _named(self._words(said))
        if self.form == "lab":
            return said or None
        return {name.casefold(): name for name in self.of_solutions(task) or ()}.get(said.casefold())

    def of_answer(self, task: int, text: str) -> str | None:
        """The method that an answer to task ``task`` follows; None where it cannot be read, or names none."""
        found: str | None = self.environment.sketch(self._task(task), text)
        return found if self._words is None else _named(found)

    def of_solutions(self, task: int) -> frozenset[str] | None:
        """The methods of the solver's solutions of task ``task``.

        None where it does not list them, and where methods are words: other words may lead to the same solution.
        """
        if task not in self._solved:
            known = self._task(task)
            answers = None if self._words else self.environment.solutions(known)
            self._solved[task] = (
                None if answers is None else frozenset(map(partial(self.environment.sketch, known), answers))
            )
        return self._solved[task]

    def _task(self, index: int) -> Task:
        if index not in self._tasks:
            self._tasks[index] = self.environment.task(index)
        return self._tasks[index]


def _vocabulary(environment: Any) -> Callable[[str], str] | None:
    options = environment.options
    if environment.name == "math" and options["dataset"]:
        return methods_in
    if environment.name == "sudoku" and options["answer_format"] != "order":
        return rules_in
    return None


def _named(method: str | None) -> str | None:
    return None if method == UNNAMED else method
