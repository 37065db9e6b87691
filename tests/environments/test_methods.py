"""Methods of sketches and answers: canonical names, words in prose, and what cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sesa_lab import environments
from sesa_lab.environments.methods import Methods

HOSTILE = [
    "",
    "   \n",
    "\x00",
    "<script>alert(1)</script>",
    "__import__('os').system('true')",
    "\u202egnp",
    "a" * 10_000,
]
MAKES: dict[str, dict[str, Any]] = {
    "countdown": {}, "frozen_lake": {}, "math": {}, "path_exploration": {}, "sokoban": {}, "sudoku": {},
    "sudoku grid": {"answer_format": "grid"},
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(MAKES))
@pytest.mark.parametrize("form", ["lab", "chat"])
def test_a_solutions_own_sketch_names_its_method(name: str, form: str) -> None:
    environment = environments.make(name.split()[0], **MAKES[name])
    methods = Methods(environment, form)
    answers = environment.solutions(environment.task(0)) or []
    assert answers
    for answer in answers[:5]:
        sketch = environment.sketch(environment.task(0), answer)
        assert methods.of_answer(0, answer) == sketch == methods.of_sketch(0, f"  {sketch.replace(' ', '  ')}\n")
        shouted = methods.of_sketch(0, sketch.upper())
        assert shouted == (sketch.upper() if form == "lab" and name != "sudoku grid" else sketch)


@pytest.mark.parametrize("name", sorted(MAKES))
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_compared_and_never_run(name: str, text: str) -> None:
    environment = environments.make(name.split()[0], **MAKES[name])
    assert Methods(environment, "chat").of_sketch(0, text) is None
    lab = Methods(environment, "lab")
    assert lab.of_sketch(0, text) == (None if name == "sudoku grid" else " ".join(text.split()) or None)
    assert lab.of_answer(0, text) is None


def test_a_sketch_that_is_also_a_plan_is_not_carried_out() -> None:
    """As an answer "right down" of a lake walks; as a sketch it names legs of any length."""
    environment = environments.make("frozen_lake")
    assert Methods(environment).of_sketch(0, "right down right down right") == "right down right down right"


def test_methods_are_read_off_words_where_answers_are() -> None:
    methods = Methods(environments.make("sudoku", answer_format="grid"))
    assert methods.of_sketch(0, "Start with naked singles, then guess.") == "naked single + backtracking"
    assert methods.of_sketch(0, "fill it somehow") is None, "no method named is none, not one that all share"
    grid = (methods.environment.solutions(methods.environment.task(0)) or [""])[0].split("\n\n")[1]
    assert methods.of_answer(0, f"I guess.\n{grid}") == "backtracking" and methods.of_answer(0, grid) is None
    assert methods.of_answer(0, "I guess.") is None, "no answer"


def test_methods_of_solutions(tmp_path: Path) -> None:
    environment = environments.make("countdown")
    task = environment.task(3)
    found = Methods(environment).of_solutions(3)
    assert found == {environment.sketch(task, text) for text in environment.solutions(task) or []}
    (tmp_path / "x.jsonl").write_text('{"problem": "1 + 1?", "answer": "2"}\n')
    problems = Methods(environments.make("math", dataset=str(tmp_path / "x.jsonl"), split="all"), "chat")
    assert problems.of_sketch(0, "Use modular arithmetic, then induction.") is not None
    assert problems.of_solutions(0) is None
