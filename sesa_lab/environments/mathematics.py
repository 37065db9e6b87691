"""Mathematics: a problem in words, a reply that declares an answer. Problems are made (``sums``) or come from a data set.

*Sums* (no ``dataset``): numbers to be added in few lines of working, which several methods do in different ways. A reply is its
lines and the answer; its strategy, and sketch, is the method that the lines begin like. Sums of the same numbers all lie in one
split. *Data sets*: any file, folder or Hub data set of problems and answers (``math_data``). What a reply declares
(``math_answers``) is judged by math-verify; its strategy is the methods that its text names (``METHODS``), each once and in their
order here: ``substitution + modular arithmetic``, or ``unnamed``. That key is crude: it sees words, not reasoning.
"""

from __future__ import annotations

import dataclasses
import html
import re
import textwrap
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from sesa_lab.config import option
from sesa_lab.environments import sums
from sesa_lab.environments.contract import SingleTurn, check_index
from sesa_lab.environments.math_answers import final_answer, same
from sesa_lab.environments.math_data import Problem, read_problems
from sesa_lab.environments.pool import ALL, HARD, SPLITS, Pool, split_of
from sesa_lab.environments.replies import LONGEST, inside_tags
from sesa_lab.environments.vocabulary import Vocabulary
from sesa_lab.errors import InputError, first_line
from sesa_lab.seeding import stream
from sesa_lab.types import Frame, Score, Task

METHODS = {
    "substitution": r"substitut(?:e[sd]?|ing|ion)",
    "factoring": r"factor(?:s|ed|ing|i[sz](?:e|es|ed|ing|ation))?",
    "casework": r"casework|case by case|cases?",
    "modular arithmetic": r"modul(?:o|ar|us)|[bp]?mod|congruen(?:t|ce|ces)|remainders?",
    "induction": r"induction|inductive(?:ly)?",
    "recursion": r"recurs(?:ion|ive|ively)|recurrences?",
    "counting": r"binom(?:ials?)?|combinations?|permutations?|choose|stars and bars|inclusion[- ]exclusion",
    "complement": r"complement(?:s|ary)?",
    "symmetry": r"symmetr(?:y|ic|ical)",
    "generating function": r"generating functions?",
    "Vieta": r"vieta(?:'?s)?",
    "quadratic formula": r"quadratic formula|discriminant|completing the square",
    "inequality": r"AM-?GM|cauchy|inequalit(?:y|ies)|jensen",
    "trigonometry": r"trigonometr(?:y|ic)|law of (?:sines?|cosines?)",
    "similar triangles": r"similar triangles?|similarity",
    "coordinates": r"coordinates?|coordinate system",
    "calculus": r"calculus|derivatives?|differentiat(?:e|ing|ion)|integral|integrat(?:e|ing|ion)",
    "contradiction": r"contradiction",
    "enumeration": r"brute[- ]force|enumerat(?:e|ed|ing|ion)|list(?:ing)? (?:all|them)|trial and error|try(?:ing)? values",
}
"""Method -> whole words that name it, in any case, those of LaTeX (``\\pmod``, ``\\binom``) included."""

_POSITION = 10  # among the "environment" streams of a seed; changing it changes every task
_MOST_TEXT = 400  # characters of a plain reply
_MOST_NAMED = 10  # methods of one strategy: a sketch has at most 200 characters, and any ten of them fit
_PLAIN = re.compile(r"(?:[0-9]{1,4}[-+*][0-9]{1,4}=[0-9]{1,6} ){1,32}([0-9]{1,6})", re.ASCII)
_NAMED = Vocabulary(METHODS)
_GREY, _ACCENT, _HIT, _MISS = "#7f7f7f", "#d97706", "#2f9e44", "#e03131"

Sum = tuple[int, ...]


@dataclass(frozen=True)
class MathOptions:
    """Work out an answer: sums in few lines, or the problems of a data set such as AIME."""

    dataset: str = option(
        "",
        "take problems from this .jsonl, .json, .csv or .parquet file, folder, or data set on the Hub, with columns problem and"
        " answer (e.g. HuggingFaceH4/aime_2024); empty: sums",
    )
    dataset_split: str = option("", "which split of that data set; empty: the only one")
    test_dataset: str = option(
        "", "take the tasks of split test from here, all of it; what stands there too is left out of the other splits"
    )
    test_dataset_split: str = option("", "which split of that data set; empty: the only one")
    numbers_low: int = option(4, "sums: fewest numbers", low=2, high=24)
    numbers_high: int = option(8, "sums: most numbers", low=2, high=24)
    value_high: int = option(9, "sums: largest number", low=2, high=99)
    most_lines: int = option(4, "sums: most lines of working that count", low=1, high=24)
    answer_format: str = option(
        "usual",
        "plain: lines of working and the number, nothing else (sums only); boxed: anything, the answer in \\boxed{}; tags:"
        " <think>...</think><answer>...</answer>; usual: plain for sums, boxed for data sets",
        choices=("usual", "plain", "boxed", "tags"),
    )
    split: str = option(
        "train",
        "which part of all tasks, parted by their content; all: every problem of a data set that is only evaluated",
        choices=(*SPLITS, ALL),
    )
    hard: str = option(
        "natural",
        "sums: share of tasks that no habitual method solves: natural (as they fall), half (every other one), all, none",
        choices=HARD,
    )
    tasks: int = option(4096, "distinct tasks (of a data set: at most)", low=1, high=1_000_000)
    seed: int = option(0, "sums: fixes which are drawn", low=0, high=2**32 - 1)
    repeats: str = option(
        "count",
        "whether a strategy that came earlier in its group earns again (count) or nothing (zero)",
        choices=("count", "zero"),
    )

    PAPER: ClassVar[dict[str, Any]] = {"dataset": "HuggingFaceH4/aime_2024", "split": ALL, "answer_format": "boxed"}
    """AIME 2024, 30 problems with whole answers from 0 to 999, to be evaluated on. What the paper trained on it does not say."""


class Math(SingleTurn):
    """The environment; see ``contract.Environment`` for what every environment has."""

    name = "math"
    policy_options: tuple[str, ...] = (
        "dataset", "numbers_low", "numbers_high", "value_high", "most_lines", "answer_format",
    )  # fmt: skip

    def __init__(self, options: MathOptions) -> None:
        """Data sets are read, sums are drawn when first asked for.

        Raises:
            InputError: options that do not fit together; a data set that cannot be read or has no problem in this split.
        """
        options = _resolved(options)
        self.options: dict[str, Any] = dataclasses.asdict(options)
        self.repeats: Literal["count", "zero"] = "zero" if options.repeats == "zero" else "count"
        self.count = options.tasks
        self._options = options
        self._plain, self._tags = options.answer_format == "plain", options.answer_format == "tags"
        self._problems: list[Problem] = []
        self._sums: Pool[Sum] | None = None
        if options.dataset:
            self._problems = _chosen(options)
            self.count = len(self._problems)
        else:
            self._sums = Pool(
                self._draw,
                lambda numbers: f"{' '.join(map(str, sorted(numbers)))}\n{' '.join(map(str, numbers))}",
                self._is_hard,
                lambda number: stream(options.seed, "environment", _POSITION, number),
                split=options.split,
                hard=options.hard,
                label=self.name,
            )

    def task(self, index: int) -> Task:
        """Task ``index`` mod ``count``."""
        index = check_index(index)
        reply = self._reply()
        if self._sums is None:
            found = self._problems[index % self.count]
            data: dict[str, Any] = {
                "problem": found.problem,
                "answer": found.answer,
                "where": found.where,
                "format": reply,
            }
            return Task(index, f"{found.problem}\n\n{reply}", data)
        numbers = self._sums[index % self.count]
        problem = (
            f"What is {' + '.join(map(str, numbers))}? Show your working in at most {self._options.most_lines} lines. A line is one"
            " operation on two numbers, with + - or *, and its result, such as 7*3=21."
        )
        data = {
            "problem": problem,
            "answer": str(sum(numbers)),
            "numbers": list(numbers),
            "numbers_text": " ".join(map(str, numbers)),
            "format": reply,
            "hard": self._is_hard(numbers),
        }
        return Task(index, f"{problem}\n\n{reply}", data)

    def score(self, task: Task, text: str) -> Score:
        """1.0 where the declared answer is right (sums: and stands below a working that is not too long), else 0.0."""
        if self._sums is None:
            answer = self._declared(text)
            if answer is None:
                return Score(0.0, False, None)
            right = same(task.data["answer"], answer)
            return Score(float(right), right, methods_in(text))
        found = self._worked(text)
        if found is None:
            return Score(0.0, False, None)
        working, answer = found
        right = len(working) <= self._options.most_lines and same(task.data["answer"], answer)
        return Score(float(right), right, sums.method_of(tuple(task.data["numbers"]), working))

    def enumerate(self, task: Task) -> list[str] | None:
        """None: a method has too many wordings, right and wrong ones."""
        return None

    def solutions(self, task: Task) -> list[str] | None:
        """Sums: one text for every method that fits in few enough lines. Data sets: the answer alone."""
        if self._sums is None:
            return [self._said("", task.data["answer"])]
        return [
            self._said(" ".join(map(str, working)), task.data["answer"])
            for working in self._fitting(tuple(task.data["numbers"])).values()
        ]

    def oracle(self, task: Task) -> str:
        """The first of the ``solutions``."""
        return (self.solutions(task) or [])[0]

    def sketch(self, task: Task, text: str) -> str | None:
        """The strategy: the method of a sum, or those that the text names."""
        if self._sums is None:
            return None if self._declared(text) is None else methods_in(text)
        found = self._worked(text)
        return None if found is None else sums.method_of(tuple(task.data["numbers"]), found[0])

    def habitual(self, sketch: str) -> bool:
        """Sums: whether it is one of ``sums.HABITS``. Of data sets no habits are known."""
        return self._sums is not None and sketch.strip() in sums.HABITS

    def render(self, task: Task, text: str = "") -> list[Frame]:
        """The problem; then a sum's working, line by line, wrong results in red; last what is declared as the answer."""
        problem = textwrap.wrap(_printable(task.data["problem"]), 44)[:40]
        frames = [_card("the problem", problem, [])]
        if not text.strip():
            return frames
        found = self._worked(text) if self._sums is not None else None
        answer = found[1] if found else (self._declared(text) if self._sums is None else None)
        if answer is None:
            return [*frames, _card("no answer can be read", problem, [(_printable(text.strip()[:60]), _GREY)])]
        told: list[tuple[str, str]] = []
        for number, line in enumerate(found[0][:32] if found else (), 1):
            told = [*told, (str(line), _ACCENT if line.holds else _MISS)]
            frames.append(_card(f"line {number}: {'right' if line.holds else 'wrong'}", problem, told))
        success = self.score(task, text).success
        verdict = (
            "right" if success else "right, but below too many lines" if same(task.data["answer"], answer) else "wrong"
        )
        told = [*told, (f"answer: {_printable(answer)[:60]}", _HIT if success else _MISS)]
        return [*frames, _card(f"the answer is {verdict}", problem, told)]

    def _draw(self, generator: Any) -> Sum | None:
        options = self._options
        numbers = sums.draw(generator, options.numbers_low, options.numbers_high, options.value_high)
        return numbers if self._fitting(numbers) else None

    def _fitting(self, numbers: Sum) -> dict[str, sums.Working]:
        found = sums.workings(numbers)
        return {name: working for name, working in found.items() if len(working) <= self._options.most_lines}

    def _is_hard(self, numbers: Sum) -> bool:
        return sums.HABITS.isdisjoint(self._fitting(numbers))

    def _declared(self, text: str) -> str | None:
        if not self._tags:
            return final_answer(text)
        inside = inside_tags(text).strip()
        return final_answer(inside) or final_answer(f"\\boxed{{{inside}}}")

    def _worked(self, text: str) -> tuple[sums.Working, str] | None:
        """A sum's lines and answer; None where there is no line or no answer."""
        if self._plain:
            text = text.strip()
            found = _PLAIN.fullmatch(text) if len(text) <= _MOST_TEXT else None
            return None if found is None else (sums.read_lines(text), found[1])
        if len(text) > LONGEST:
            return None
        answer, working = self._declared(text), sums.read_lines(text)
        return None if answer is None or not working else (working, answer)

    def _said(self, working: str, answer: str) -> str:
        if self._plain:
            return f"{working} {answer}"
        if self._tags:
            return f"<think>{working}</think><answer>{answer}</answer>"
        return f"{working} \\boxed{{{answer}}}".strip()

    def _reply(self) -> str:
        if self._plain:
            return "Reply with the lines and then the sum, blanks between them and nothing else."
        if self._tags:
            return "Reply with <think>your thoughts</think><answer>the answer alone</answer>."
        return "Think step by step, and put the final answer in \\boxed{}."


def methods_in(text: str) -> str:
    """The methods that a text names, the first ten in the order of ``METHODS``, joined by `` + ``; ``UNNAMED`` without any."""
    return _NAMED.named(text[-LONGEST:], _MOST_NAMED)


def _resolved(options: MathOptions) -> MathOptions:
    """With the format that is usual here.

    Raises:
        InputError: options that do not fit together.
    """
    if options.answer_format == "usual":
        options = dataclasses.replace(options, answer_format="boxed" if options.dataset else "plain")
    if options.dataset and options.answer_format == "plain":
        raise InputError(
            "math.answer_format = 'plain' is the form of sums; with math.dataset expected 'boxed' or 'tags'"
        )
    if options.dataset and options.hard != "natural":
        raise InputError(
            f"math.hard = {options.hard!r}: which problems of a data set are hard is not known; leave it 'natural'"
        )
    without = {
        "math.dataset_split": options.dataset_split,
        "math.test_dataset": options.test_dataset,
        "math.split": options.split == ALL and ALL,
    }
    for name, value in without.items():
        if value and not options.dataset:
            raise InputError(f"{name} = {value!r} is for data sets; set math.dataset too, or leave it out")
    if options.test_dataset_split and not options.test_dataset:
        raise InputError(
            f"math.test_dataset_split = {options.test_dataset_split!r}: expected math.test_dataset beside it"
        )
    if options.split == ALL and options.test_dataset:
        raise InputError("math.split = 'all' is for one data set; leave math.test_dataset out, or choose another split")
    if options.numbers_low > options.numbers_high:
        raise InputError(
            f"math.numbers_low = {options.numbers_low} and math.numbers_high = {options.numbers_high}: expected numbers_low <="
            " numbers_high"
        )
    return options


def _chosen(options: MathOptions) -> list[Problem]:
    """The first ``tasks`` problems of the split, in the source's order.

    Raises:
        InputError: there is none, or a data set cannot be read.
    """
    test = _written(options.test_dataset, options.test_dataset_split) if options.test_dataset else []
    if test and options.split == "test":
        return test[: options.tasks]
    kept_out = {_content(one) for one in test}
    found = [one for one in _written(options.dataset, options.dataset_split) if _content(one) not in kept_out]
    total = len(found)
    if test:  # the test split is elsewhere, so that its share is trained on
        found = [one for one in found if (split_of(_content(one)) == "validation") is (options.split == "validation")]
    elif options.split != ALL:
        found = [one for one in found if split_of(_content(one)) == options.split]
    if not found:
        raise InputError(
            f"{options.dataset}: none of its {total} problems belongs to split = {options.split!r}; take a larger data set, or,"
            " for one that is only evaluated, split = 'all'"
        )
    return found[: options.tasks]


def _written(source: str, split: str) -> list[Problem]:
    """``read_problems``, all of which can be written as UTF-8: JSON may hold halves of characters.

    Raises:
        InputError: one cannot; else as ``read_problems``.
    """
    found = read_problems(source, split)
    for one in found:
        try:
            f"{one.problem}{one.answer}".encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"{one.where}: holds half a character ({first_line(error)}); mend or drop the row"
            ) from error
    return found


def _content(one: Problem) -> str:
    """What makes a problem what it is: its words, however they are spaced."""
    return " ".join(one.problem.split()).casefold()


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def _card(caption: str, problem: list[str], told: list[tuple[str, str]]) -> Frame:
    """Text in lines: the problem in grey, below it what was said, each line with its colour."""
    rows = [*((line, _GREY) for line in problem), *told]
    marks = [
        f'<text x="8" y="{20 + 18 * place}" font-size="14" fill="{colour}">{html.escape(line)}</text>'
        for place, (line, colour) in enumerate(rows)
    ]
    width = max(240, 16 + 8 * max(len(line) for line, _ in rows))
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {18 * len(rows) + 14}">{"".join(marks)}</svg>'
    return Frame(caption, "\n".join([*problem, *(html.escape(line) for line, _ in told)]), svg)
