"""Mathematics: what a reply earns and how it is called, sums and data sets, splits, bad input, pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from tokenizers import Regex, pre_tokenizers

from sesa_lab import prompts
from sesa_lab.environments import check, make, math_answers, sums
from sesa_lab.environments.mathematics import METHODS, Math, MathOptions, methods_in
from sesa_lab.environments.pool import SPLITS, split_of
from sesa_lab.environments.vocabulary import UNNAMED
from sesa_lab.errors import InputError
from sesa_lab.types import Score, Task

UNREADABLE = Score(0.0, False, None)
FORMATS = ("plain", "boxed", "tags")
TASK = Task(0, "", {"problem": "What is 2 + 5 + 9?", "answer": "16", "numbers": [2, 5, 9]})
PROBLEM = Task(0, "", {"problem": "What is half of $48$?", "answer": "24"})


@pytest.fixture(scope="module", autouse=True)
def _no_process_left() -> Iterator[None]:
    yield
    math_answers._stop()


@pytest.fixture(scope="session")
def sample(root: Path) -> str:
    return str(root / "data" / "math" / "sample.jsonl")


def math(**options: Any) -> Math:
    env = make("math", **options)
    assert isinstance(env, Math)
    return env


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def problems(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"problem": f"What is {n} plus one?", "answer": n + 1} for n in range(first, first + count)]


def told(env: Math) -> list[str]:
    """The problems of all tasks, in order."""
    return [env.task(index).data["problem"] for index in range(env.count)]


# ---- the contract


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"answer_format": "boxed"},
        {"answer_format": "tags"},
        {"hard": "half", "repeats": "zero", "seed": 7},
        {"hard": "all", "split": "test"},
        {"hard": "none", "split": "validation"},
        {"value_high": 3},  # numbers that make ten are out of range
        {"numbers_low": 6, "numbers_high": 6, "value_high": 10},  # equal and tens may begin alike
        {"numbers_low": 2, "numbers_high": 24, "value_high": 99, "most_lines": 24},
        {"numbers_low": 2, "numbers_high": 2, "most_lines": 1},
    ],
)
def test_sums_keep_the_contract(options: dict[str, Any]) -> None:
    check(math(**options))


@pytest.mark.parametrize("answer_format", ["boxed", "tags"])
def test_data_sets_keep_the_contract(answer_format: str, sample: str) -> None:
    check(math(dataset=sample, split="all", answer_format=answer_format))


def test_options_are_resolved_and_rebuild_the_environment(sample: str) -> None:
    for env, answer_format in ((math(), "plain"), (math(dataset=sample), "boxed")):
        assert env.options["answer_format"] == answer_format
        assert make(env.name, **env.options).options == env.options
        assert set(env.policy_options) < set(env.options)
        assert not {"seed", "split", "hard", "tasks", "repeats"} & set(env.policy_options)
        assert env.turns == 1 and env.enumerate(env.task(0)) is None and env.repeats == "count"
    assert math().count == 4096 and math(repeats="zero").repeats == "zero"
    assert Math(MathOptions()).task(0) == math().task(0)


# ---- what a sum's reply earns


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("2+5=7 7+9=16 16", Score(1.0, True, "left")),
        (" 2+5=7 7+9=16 16\n", Score(1.0, True, "left")),
        ("02+005=07 7+9=0016 000016", Score(1.0, True, "left")),
        ("2+5=8 8+9=17 16", Score(1.0, True, "left")),  # the answer counts, not the lines
        ("2+5=7 7+9=16 17", Score(0.0, False, "left")),
        ("2+5=7 7+9=16 7", Score(0.0, False, "left")),
        ("5*3=15 15+1=16 16", Score(1.0, True, "around 5")),
        ("5+9=14 14+2=16 16", Score(1.0, True, "other")),
        ("2+5=7 7+9=16 16+0=16 16+0=16 16", Score(1.0, True, "left")),
        ("2+5=7 7+9=16 16+0=16 16+0=16 16+0=16 16", Score(0.0, False, "left")),  # five lines are too many
        ("16", UNREADABLE),
        ("", UNREADABLE),
        ("2+5=7 7+9=16", UNREADABLE),
        ("2+5=7  7+9=16 16", UNREADABLE),
        ("2+5=7, 7+9=16, 16", UNREADABLE),
        ("2 + 5 = 7 7 + 9 = 16 16", UNREADABLE),
        ("the sum: 2+5=7 7+9=16 16", UNREADABLE),
        ("2+5=7 7+9=16 16.", UNREADABLE),
        ("2+5=7 7+9=16 +16", UNREADABLE),
        ("2+5=7\n7+9=16\n16", UNREADABLE),
        ("2+5=7 7/1=7 16", UNREADABLE),
        ("2+5=7 7+9=16 \\boxed{16}", UNREADABLE),
        ("2+5=7 7+9=16 \uff11\uff16", UNREADABLE),
        ("2+5=7 7+9=16 1\u0666", UNREADABLE),
        ("\x002+5=7 7+9=16 16", UNREADABLE),
        ("2+5=7 7+9=16\x0016", UNREADABLE),
        ("20000+5=7 7+9=16 16", UNREADABLE),
        ("2+5=7 " * 33 + "16", UNREADABLE),
        ("2+5=7 7+9=16 16" + "0" * 400, UNREADABLE),
        ("2+5=7 7+9=16 16\ud800", UNREADABLE),
    ],
)
def test_plain_replies(text: str, score: Score) -> None:
    env = math()
    assert env.score(TASK, text) == score
    assert env.sketch(TASK, text) == score.strategy


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("First 2+5=7, then 7 + 9 = 16. So \\boxed{16}", Score(1.0, True, "left")),
        ("2+5=7\n7+9=16\nThe answer is 16.", Score(1.0, True, "left")),
        ("2+5=7 7+9=16 \\boxed{32/2}", Score(1.0, True, "left")),
        ("2+5=7 7+9=16 \\boxed{016}", Score(1.0, True, "left")),
        ("5*3=15, 15+1=16: \\boxed{$16$}", Score(1.0, True, "around 5")),
        ("\\boxed{16}, for 2+5=7 and 7+9=16", Score(1.0, True, "left")),
        ("2+5=7 7+9=16 \\boxed{17}", Score(0.0, False, "left")),
        ("2+5=7 7+9=16 \\boxed{sixteen apples}", Score(0.0, False, "left")),
        ("2+5=7 7+9=16 16+0=16 16+0=16 16+0=16 \\boxed{16}", Score(0.0, False, "left")),
        ("\\boxed{16}", UNREADABLE),  # no working
        ("2+5=7 7+9=16 16", UNREADABLE),  # no answer
        ("2+5=7 7+9=16 \\boxed{}", UNREADABLE),
        ("2+5=7 7+9=16 \\boxed{16", UNREADABLE),
        ("\uff12+5=7 \\boxed{16}", UNREADABLE),
        ("2+5=7 \\boxed{16}" + " " * 100_000, UNREADABLE),
        ("", UNREADABLE),
    ],
)
def test_boxed_replies(text: str, score: Score) -> None:
    env = math(answer_format="boxed")
    assert env.score(TASK, text) == score
    assert env.sketch(TASK, text) == score.strategy


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("<think>2+5=7 7+9=16</think><answer>16</answer>", Score(1.0, True, "left")),
        ("<think>2+5=7 7+9=16</think>\n<answer> 0016. </answer>.", Score(1.0, True, "left")),
        ("<think>2+5=7 7+9=16</think><answer>\\boxed{16}</answer>", Score(1.0, True, "left")),
        ("<think>2+5=7 7+9=16</think><answer>the answer is 16</answer>", Score(1.0, True, "left")),
        ("<think>2+5=7, so \\boxed{16}</think><answer>17</answer>", Score(0.0, False, "other")),
        ("<think>2+5=7 7+9=16</think><answer>17</answer>", Score(0.0, False, "left")),
        ("<think></think><answer>2+5=7 7+9=16 16</answer>", Score(0.0, False, "left")),
        ("<think></think><answer>16</answer>", UNREADABLE),
        ("<answer>16</answer> 2+5=7", UNREADABLE),
        ("<think>2+5=7 7+9=16</think><answer></answer>", UNREADABLE),
        ("<think>2+5=7 7+9=16</think> 16", UNREADABLE),
        ("2+5=7 7+9=16 \\boxed{16}", UNREADABLE),
        ("2+5=7 7+9=16 16", UNREADABLE),
        ("", UNREADABLE),
    ],
)
def test_replies_in_tags(text: str, score: Score) -> None:
    env = math(answer_format="tags")
    assert env.score(TASK, text) == score
    assert env.sketch(TASK, text) == score.strategy


def test_how_many_lines_count_is_an_option() -> None:
    text = "2+5=7 7+9=16 16"
    for most, right in ((1, False), (2, True), (24, True)):
        assert math(most_lines=most).score(TASK, text) == Score(float(right), right, "left")


HOSTILE = {
    "control characters": "".join(map(chr, range(32))) * 50,
    "a megabyte of digits": "1" * 1_000_000,
    "a megabyte of lines": "2+5=7 " * 170_000,
    "a megabyte of lines and an answer": "2+5=7 " * 170_000 + "\\boxed{16}",
    "a megabyte of methods": "case " * 200_000 + "\\boxed{24}",
    "open boxes": "2+5=7 " + "\\boxed{" * 100_000,
    "deep boxes": "2+5=7 " + "\\boxed{" * 7_000 + "16" + "}" * 7_000,
    "deep braces": "2+5=7 \\boxed{" + "{" * 20 + "16" + "}" * 20 + "}",
    "deep parentheses": "2+5=7 \\boxed{" + "(" * 20 + "16" + ")" * 20 + "}",
    "a number beyond Python's limit": "2+5=7 \\boxed{" + "9" * 290 + "}",
    "unicode digits": "\u0662+\u0665=\u0667 \\boxed{\u0661\u0666}",
    "surrogates": "2+5=7 \\boxed{\ud800}",
    "code": "2+5=7 \\boxed{__import__('os').abort()}",
    "markup": "2+5=7 \\boxed{</text><script>alert(1)</script>}",
    "tags without end": "<think>" * 10_000 + "</think><answer>" * 10_000,
    "deep braces in tags": "<think>2+5=7</think><answer>" + "{" * 30_000 + "</answer>",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_replies_never_raise(name: str, sample: str) -> None:
    text = HOSTILE[name]
    for answer_format in FORMATS:
        for task, options in ((TASK, {}), (PROBLEM, {"dataset": sample, "split": "all"})):
            if options and answer_format == "plain":
                continue
            env = math(answer_format=answer_format, **options)
            start = time.process_time()
            score = env.score(task, text)
            frames = env.render(task, text)
            assert env.sketch(task, text) == score.strategy
            assert time.process_time() - start < 2.0
            assert score.reward == 0.0 or name in (
                "deep boxes",
                "deep braces",
                "deep parentheses",
                "a megabyte of methods",
            )
            assert score.success is (score.reward == 1.0)
            for frame in frames:
                assert "<script" not in frame.svg + frame.text and len(frame.svg) < 10_000
                ElementTree.fromstring(frame.svg)
                frame.text.encode()


# ---- tasks of sums


def test_solutions_are_one_a_method_and_succeed_in_every_format() -> None:
    environments = [math(answer_format=answer_format) for answer_format in FORMATS]
    for index in range(200):
        numbers = tuple(environments[0].task(index).data["numbers"])
        expected = [name for name, working in sums.workings(numbers).items() if len(working) <= 4]
        for env in environments:
            task = env.task(index)
            texts = env.solutions(task) or []
            scores = [env.score(task, text) for text in texts]
            assert scores == [Score(1.0, True, name) for name in expected]
            assert [env.sketch(task, text) for text in texts] == expected and env.oracle(task) == texts[0]
    assert math().solutions(Task(0, "", {**TASK.data, "numbers": [5, 2, 5]})) == [
        "5+2=7 7+5=12 16", "5*2=10 10+2=12 16", "2*3=6 6+6=12 16", "3*3=9 9+3=12 16", "4*3=12 12+0=12 16",
        "5*3=15 15-3=12 16",
    ]  # fmt: skip


def test_habits_leave_as_many_tasks_as_their_docstring_says() -> None:
    env = math()
    hard, methods = [], []
    for index in range(2_000):
        task = env.task(index)
        names = [env.sketch(task, text) or "" for text in env.solutions(task) or []]
        methods.append(len(names))
        hard.append(not any(map(env.habitual, names)))
        assert task.data["hard"] is hard[-1] is (len(task.data["numbers"]) > 5)  # "left" takes n - 1 lines, four count
        assert min(task.data["numbers"]) >= 1 and max(task.data["numbers"]) <= 9
        assert task.data["answer"] == str(sum(task.data["numbers"]))
    assert f"{np.mean(hard):.2f} {np.mean(methods):.1f}" == "0.62 4.5"
    lengths = Counter(len(env.task(index).data["numbers"]) for index in range(2_000))
    assert set(lengths) == {4, 5, 6, 7, 8} and min(lengths.values()) > 200


def test_only_sums_have_habits(sample: str) -> None:
    env = math()
    assert env.habitual("left") and env.habitual(" left\n")
    for sketch in ("", "equal", "tens", "ends", "around 5", "other", "left left", "l" * 1_000_000):
        assert not env.habitual(sketch)
    assert not math(dataset=sample).habitual("left")


def test_hard_tasks_on_demand() -> None:
    def kinds(hard: str) -> list[bool]:
        env = math(hard=hard)
        return [env.task(index).data["hard"] for index in range(100)]

    assert kinds("all") == [True] * 100 and kinds("none") == [False] * 100 and kinds("half") == [False, True] * 50
    assert len(set(kinds("natural"))) == 2


def test_splits_share_no_multiset_of_numbers() -> None:
    sets = {
        split: {tuple(sorted(env.task(index).data["numbers"])) for index in range(400)}
        for seed, split in enumerate(SPLITS)
        for env in [math(split=split, seed=seed, numbers_high=6)]
    }
    assert not sets["train"] & sets["validation"] and not sets["train"] & sets["test"]
    assert not sets["validation"] & sets["test"]
    for split, numbers in sets.items():
        assert {split_of(" ".join(map(str, row))) for row in numbers} == {split}
    env = math(numbers_high=4)
    orders = [tuple(env.task(index).data["numbers"]) for index in range(1_000)]
    assert len(set(orders)) == 1_000 > len(set(map(tuple, map(sorted, orders)))), "other orders are other tasks"


FROZEN = [(9, 9, 9, 9, 9, 9, 9, 9), (4, 6, 9, 1), (3, 7, 4, 6), (1, 2, 3, 4)]


def test_tasks_never_change() -> None:
    # Frozen on the day they were first made (numpy 2.4): other tasks make runs and policies of one config incomparable.
    assert [tuple(math().task(index).data["numbers"]) for index in range(4)] == FROZEN


def test_a_task_is_fixed_by_seed_and_index() -> None:
    one, other = math(seed=5), math(seed=5)
    backwards = [other.task(index) for index in reversed(range(50))]
    assert [one.task(index) for index in range(50)] == backwards[::-1]
    assert math(seed=6).task(0).data["numbers"] != one.task(0).data["numbers"]
    few = math(seed=5, tasks=3)
    assert few.task(4).data == few.task(1).data == one.task(1).data and few.task(4).index == 4


def test_as_many_tasks_as_there_are() -> None:
    # 1+1, 1+2, 2+1 and 2+2 are all there is; the split goes by the sorted numbers
    expected = sum(split_of(numbers) == "train" for numbers in ("1 1", "1 2", "1 2", "2 2"))
    env = math(numbers_low=2, numbers_high=2, value_high=2)
    with pytest.raises(InputError, match=f"math: only {expected} distinct tasks were found with split = 'train'"):
        env.task(4)


@pytest.mark.parametrize("answer_format", FORMATS)
def test_prompts_say_what_is_asked(answer_format: str) -> None:
    env = math(answer_format=answer_format, most_lines=5)
    task = env.task(0)
    lab, chat = (prompts.task_text(form, "math", task) for form in ("lab", "chat"))
    assert lab == f"sum {' '.join(map(str, task.data['numbers']))}"
    for text in (chat, task.prompt):
        assert " + ".join(map(str, task.data["numbers"])) in text and "at most 5 lines" in text
        assert ("<answer>" in text) is (answer_format == "tags") and ("\\boxed{}" in text) is (answer_format == "boxed")
        assert task.data["format"] in text
    assert env.oracle(task) not in json.dumps(dict(task.data))


def test_prompts_of_data_sets_are_for_chat_models(sample: str) -> None:
    task = math(dataset=sample, split="all").task(0)
    text = prompts.task_text("chat", "math", task)
    assert text == (
        "How many positive divisors does $360$ have?\nThink step by step, and put the final answer in \\boxed{}."
    )
    with pytest.raises(InputError, match=r"lab/math\.txt asks for \{numbers_text\}; a task of math has"):
        prompts.task_text("lab", "math", task)


def test_lab_texts_are_few_tokens_of_a_small_vocabulary() -> None:
    split = pre_tokenizers.Split(  # Qwen2's, which the lab policies' tokenizer uses
        Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+"), "isolated"
    )

    def tokens(text: str) -> list[str]:
        return [piece for piece, _ in split.pre_tokenize_str(text)]

    env = math()
    most, known = Counter[str](), set()
    for index in range(500):
        task = env.task(index)
        for answer in env.solutions(task) or []:
            sketch = env.sketch(task, answer) or ""
            most |= Counter(sketch=len(tokens(sketch)), answer=len(tokens(answer)))
            known |= {*tokens(sketch), *tokens(answer)}
    assert most == {"sketch": 3, "answer": 34}
    assert len(known) <= 21


# ---- data sets: what a reply earns and how it is called


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Half of 48 is \\boxed{24}", Score(1.0, True, UNNAMED)),
        ("By substitution, the answer is 24.", Score(1.0, True, "substitution")),
        ("\\boxed{25}, or rather \\boxed{24}", Score(1.0, True, UNNAMED)),
        ("\\boxed{\\frac{48}{2}}", Score(1.0, True, UNNAMED)),
        ("\\boxed{x = 024.0}", Score(1.0, True, UNNAMED)),
        ("By symmetry \\boxed{25}", Score(0.0, False, "symmetry")),
        ("24", UNREADABLE),
        ("By substitution I find nothing.", UNREADABLE),
        ("\\boxed{}", UNREADABLE),
        ("", UNREADABLE),
    ],
)
def test_boxed_replies_to_problems(text: str, score: Score, sample: str) -> None:
    env = math(dataset=sample, split="all")
    assert env.score(PROBLEM, text) == score
    assert env.sketch(PROBLEM, text) == score.strategy


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("<think>By symmetry.</think><answer>24</answer>", Score(1.0, True, "symmetry")),
        ("<think></think><answer>\\boxed{24}</answer>", Score(1.0, True, UNNAMED)),
        ("<think>\\boxed{24}</think><answer>23</answer>", Score(0.0, False, UNNAMED)),
        ("\\boxed{24}", UNREADABLE),
        ("<think>24</think><answer> $ </answer>", UNREADABLE),
        ("<answer>24</answer>", UNREADABLE),
    ],
)
def test_replies_to_problems_in_tags(text: str, score: Score, sample: str) -> None:
    env = math(dataset=sample, split="all", answer_format="tags")
    assert env.score(PROBLEM, text) == score
    assert env.sketch(PROBLEM, text) == score.strategy


@pytest.mark.parametrize(
    ("text", "methods"),
    [
        ("Substituting y = x", "substitution"),
        ("SUBSTITUTE it", "substitution"),
        ("it factors as", "factoring"),
        ("factorisation", "factoring"),
        ("the factorial 5!", UNNAMED),
        ("Case 1: x > 0", "casework"),
        ("a showcase", UNNAMED),
        ("leaves remainder 3", "modular arithmetic"),
        ("$a \\equiv 4 \\pmod{12}$", "modular arithmetic"),
        ("$a \\bmod 7$", "modular arithmetic"),
        ("a modest model", UNNAMED),
        ("by induction on n", "induction"),
        ("the recurrence $a_n$", "recursion"),
        ("$\\binom{9}{2}=36$", "counting"),
        ("stars and bars", "counting"),
        ("inclusion-exclusion", "counting"),
        ("count the complement", "complement"),
        ("symmetric", "symmetry"),
        ("its generating function", "generating function"),
        ("Vieta's formulas", "Vieta"),
        ("Vietas", "Vieta"),
        ("completing the square", "quadratic formula"),
        ("AM-GM", "inequality"),
        ("the Law of Cosines", "trigonometry"),
        ("similar triangles", "similar triangles"),
        ("in coordinates", "coordinates"),
        ("the derivative vanishes", "calculus"),
        ("by calculus", "calculus"),
        ("a contradiction", "contradiction"),
        ("by brute force, list them", "enumeration"),
        ("", UNNAMED),
        ("\x00\ud800 \u0660", UNNAMED),
        ("subst\u0131tution", UNNAMED),  # a letter that lower case makes of no ASCII one
        # each once, and in one order whatever the text's
        ("modulo 7, by cases; then cases modulo 5", "casework + modular arithmetic"),
        ("cases; modulo", "casework + modular arithmetic"),
        ("contradiction, then substitution", "substitution + contradiction"),
    ],
)
def test_methods_that_a_text_names(text: str, methods: str) -> None:
    assert methods_in(text) == methods


def test_every_method_but_counting_is_named_by_its_name() -> None:
    assert {name: methods_in(name) for name in METHODS} == {name: name for name in METHODS} | {"counting": UNNAMED}


def test_a_text_that_names_every_method_has_a_sketch_of_lawful_length(sample: str) -> None:
    # All of them are 268 characters, and contract.Environment.sketch allows 200.
    names = list(METHODS)
    words = " ".join(["choose", *reversed(names)])
    assert methods_in(words) == " + ".join(names[:10])
    assert len(" + ".join(sorted(names, key=len)[-10:])) <= 200, "any ten fit"
    sketch = math(dataset=sample, split="all").sketch(PROBLEM, f"{words} \\boxed{{24}}")
    assert sketch == methods_in(words)


def test_methods_are_found_in_linear_time() -> None:
    start = time.process_time()
    for text in ("case " * 200_000, "substitut" * 100_000, "list all " * 100_000, "a" * 1_000_000):
        assert methods_in(text) in ("casework", "enumeration", UNNAMED)
    assert methods_in("case " + " " * 100_000) == UNNAMED, "the last 100,000 characters are read"
    assert time.process_time() - start < 3.0


def test_the_only_solution_of_a_problem_is_its_answer(sample: str) -> None:
    env = math(dataset=sample, split="all")
    task = env.task(0)
    assert env.solutions(task) == ["\\boxed{24}"] and env.oracle(task) == "\\boxed{24}"
    assert env.score(task, env.oracle(task)) == Score(1.0, True, UNNAMED)
    tags = math(dataset=sample, split="all", answer_format="tags")
    assert tags.oracle(task) == "<think></think><answer>24</answer>"
    assert "hard" not in task.data and task.data["where"].endswith("sample.jsonl, line 1")


# ---- data sets: which problems


def test_splits_of_a_data_set_part_it(tmp_path: Path) -> None:
    rows = problems(1_000)
    path = written(tmp_path / "a.jsonl", rows)
    parts = {split: told(math(dataset=path, split=split)) for split in SPLITS}
    every = told(math(dataset=path, split="all"))
    assert every == [row["problem"] for row in rows], "in the source's order"
    assert sorted(every) == sorted(problem for part in parts.values() for problem in part)
    for split, part in parts.items():
        assert part == [problem for problem in every if split_of(problem.casefold()) == split]
        share = 0.8 if split == "train" else 0.1
        # binomial(1000, share): beyond 4.9 sigma once in a million
        assert abs(len(part) - 1_000 * share) < 4.9 * np.sqrt(1_000 * share * (1 - share))
    # ... by their words alone: in another file and order, wherever they stand
    other = written(tmp_path / "b.jsonl", rows[:500:-1])
    assert set(told(math(dataset=other, split="test"))) == set(parts["test"]) & {row["problem"] for row in rows[501:]}


def test_no_more_tasks_than_asked_for(tmp_path: Path, sample: str) -> None:
    path = written(tmp_path / "a.jsonl", problems(100))
    whole, few = math(dataset=path), math(dataset=path, tasks=5)
    assert few.count == 5 and told(few) == told(whole)[:5]
    assert few.task(7).data == few.task(2).data and few.task(7).index == 7
    assert math(dataset=sample, split="all").count == 25 and math(dataset=sample, split="all", tasks=25).count == 25


def test_a_test_set_is_never_trained_on(tmp_path: Path) -> None:
    rows = problems(300)
    # Every third problem stands in the test set too, there or here in other cases and with other blanks
    test = [{**row, "problem": row["problem"].upper().replace(" ", "  ")} for row in rows[::3]]
    spaced = [{**row, "problem": f"\n{row['problem']}\t".replace(" plus ", "\nPLUS ")} for row in rows]
    paths = {"dataset": written(tmp_path / "a.jsonl", spaced), "test_dataset": written(tmp_path / "t.jsonl", test)}

    def content(split: str) -> list[str]:
        return [" ".join(problem.split()).casefold() for problem in told(math(split=split, **paths))]

    expected = [row["problem"].casefold() for row in rows]
    assert content("test") == expected[::3], "all of it, and nothing of the other"
    others = [problem for place, problem in enumerate(expected) if place % 3]
    assert content("validation") == [problem for problem in others if split_of(problem) == "validation"] != []
    assert content("train") == [problem for problem in others if split_of(problem) != "validation"]
    assert math(split="test", tasks=7, **paths).count == 7


def test_splits_of_folders_are_passed_on(tmp_path: Path) -> None:
    for folder, first in (("a", 0), ("b", 100)):
        (tmp_path / folder).mkdir()
        written(tmp_path / folder / "one.jsonl", problems(20, first))
        written(tmp_path / folder / "two.jsonl", problems(20, first + 50))
    options = {"dataset": str(tmp_path / "a"), "dataset_split": "two"}
    assert told(math(split="all", **options))[0] == "What is 50 plus one?"
    options |= {"test_dataset": str(tmp_path / "b"), "test_dataset_split": "one"}
    assert told(math(split="test", **options))[0] == "What is 100 plus one?"
    with pytest.raises(InputError, match="split: expected one of one, two, got ''"):
        math(dataset=str(tmp_path / "a"))
    with pytest.raises(InputError, match="b: split: expected one of one, two, got 'three'"):
        math(**{**options, "test_dataset_split": "three"})


# ---- bad input


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"dataset": "SAMPLE", "answer_format": "plain"},
            "answer_format = 'plain' is the form of sums; .*'boxed' or 'tags'",
        ),
        ({"dataset": "SAMPLE", "hard": "half"}, "math.hard = 'half': which problems .* leave it 'natural'"),
        (
            {"dataset_split": "train"},
            "math.dataset_split = 'train' is for data sets; set math.dataset too, or leave it out",
        ),
        ({"test_dataset": "SAMPLE"}, r"math.test_dataset = '.*sample\.jsonl' is for data sets; set math.dataset"),
        ({"split": "all"}, "math.split = 'all' is for data sets; set math.dataset"),
        (
            {"dataset": "SAMPLE", "test_dataset_split": "x"},
            "test_dataset_split = 'x': expected math.test_dataset beside it",
        ),
        (
            {"dataset": "SAMPLE", "test_dataset": "SAMPLE", "split": "all"},
            "split = 'all' is for one data set; leave math.test",
        ),
        ({"numbers_low": 9}, "numbers_low = 9 and math.numbers_high = 8: expected numbers_low <= numbers_high"),
        ({"numbers_low": 1}, "numbers_low = 1 is out of range: expected >= 2"),
        ({"numbers_high": 25}, "numbers_high = 25 is out of range"),
        ({"value_high": 100}, "value_high = 100 is out of range"),
        ({"most_lines": 0}, "most_lines = 0 is out of range: expected >= 1"),
        (
            {"answer_format": "box"},
            "answer_format = 'box' is unknown; did you mean 'boxed'.* known: boxed, plain, tags, usual",
        ),
        ({"split": "dev"}, "split = 'dev' is unknown; known: all, test, train, validation"),
        ({"tasks": 0}, "tasks = 0 is out of range"),
        ({"datset": "x"}, "unknown option 'datset' of environment math; did you mean 'dataset'"),
        ({"dataset": "nowhere.jsonl"}, r"nowhere\.jsonl: no such file or folder; expected a \.jsonl"),
        ({"dataset": "SAMPLE", "test_dataset": "nowhere.csv"}, r"nowhere\.csv: no such file or folder"),
        (
            {"dataset": "SAMPLE", "dataset_split": "test"},
            r"sample\.jsonl: a file has no splits; leave split empty, got 'test'",
        ),
    ],
)
def test_bad_options(options: dict[str, Any], says: str, sample: str) -> None:
    with pytest.raises(InputError, match=says):
        math(**{name: sample if value == "SAMPLE" else value for name, value in options.items()})


def test_a_split_without_a_problem_is_an_error(tmp_path: Path) -> None:
    rows = problems(1)
    path = written(tmp_path / "a.jsonl", rows)
    own = split_of(rows[0]["problem"].casefold())
    for split in SPLITS:
        if split == own:
            assert told(math(dataset=path, split=split)) == [rows[0]["problem"]]
            continue
        says = (
            f"a.jsonl: none of its 1 problems belongs to split = '{split}'; take a larger data set, or, .*split = 'all'"
        )
        with pytest.raises(InputError, match=says):
            math(dataset=path, split=split)
    # what the test set holds as well does not count
    with pytest.raises(InputError, match="none of its 0 problems belongs to split = 'train'"):
        math(dataset=path, test_dataset=path)
    assert math(dataset=path, test_dataset=path, split="test").count == 1


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("nonsense", "line 2: expected one JSON object, got 'nonsense'"),
        ('{"problem": "a"}', "line 2: expected the columns problem"),
        ('{"problem": "", "answer": 1}', "line 2: problem: expected a text, not empty"),
        ('{"problem": "a", "answer": null}', "line 2: answer: expected a text or a whole number, got None"),
        (
            '{"problem": "What is 0 plus one?", "answer": 2}',
            "line 2: the same problem as at .*line 1, there with the answer '1'",
        ),
        # Half a character in JSON is legal there and cannot be written anywhere else: it ended in a UnicodeEncodeError.
        ('{"problem": "What is \\ud800?", "answer": 1}', "line 2: holds half a character .*; mend or drop the row"),
        ('{"problem": "What?", "answer": "\\udc00"}', "line 2: holds half a character"),
    ],
)
@pytest.mark.parametrize("place", ["dataset", "test_dataset"])
def test_a_bad_row_is_named_with_its_file_and_line(
    place: str, row: str, says: str, tmp_path: Path, sample: str
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(f"{json.dumps(problems(1)[0])}\n{row}\n")
    with pytest.raises(InputError, match=rf"{path}, {says}"):
        math(**{"dataset": sample, place: str(path)})


def test_the_papers_preset_without_a_network_is_one_clear_error(tmp_path: Path) -> None:
    # In a process of its own: the Hub's libraries read these variables when they are imported.
    script = "from sesa_lab.environments import make\nfrom sesa_lab.errors import InputError\n"
    script += "try:\n    make('math', preset='paper')\nexcept InputError as error:\n    print(error)\n"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
    )
    assert done.returncode == 0 and done.stderr == "" and done.stdout.count("\n") == 1
    for part in (
        "HuggingFaceH4/aime_2024: ", "is no file or folder", str(tmp_path / "hf" / "hub"), "HF_HUB_OFFLINE",
        "hf download HuggingFaceH4/aime_2024 --repo-type dataset --local-dir data/aime_2024",
        "dataset=data/aime_2024",
    ):  # fmt: skip
        assert part in done.stdout


def test_the_papers_preset_with_a_data_set_that_is_here(sample: str) -> None:
    env = math(preset="paper", dataset=sample)
    assert (env.options["split"], env.options["answer_format"], env.count) == ("all", "boxed", 25)


# ---- pictures


def captions(env: Math, task: Task, text: str) -> list[str]:
    return [frame.caption for frame in env.render(task, text)]


def test_frames_of_a_sum_by_hand() -> None:
    env = math()
    frames = env.render(TASK, "2+5=7 7+9=17 16")
    assert [frame.caption for frame in frames] == [
        "the problem",
        "line 1: right",
        "line 2: wrong",
        "the answer is right",
    ]
    assert [frame.text for frame in frames] == [
        "What is 2 + 5 + 9?",
        "What is 2 + 5 + 9?\n2+5=7",
        "What is 2 + 5 + 9?\n2+5=7\n7+9=17",
        "What is 2 + 5 + 9?\n2+5=7\n7+9=17\nanswer: 16",
    ]
    last = [element for element in ElementTree.fromstring(frames[-1].svg) if element.tag.endswith("text")]
    colours = [element.get("fill") for element in last]
    assert [element.text for element in last] == frames[-1].text.splitlines()
    assert len(set(colours)) == 4 and colours[2] != colours[1], "grey, right, wrong, success"
    missed = ElementTree.fromstring(env.render(TASK, "2+5=7 7+9=16 17")[-1].svg)
    assert missed[-1].get("fill") == colours[2], "a wrong answer is as red as a wrong line"
    assert captions(env, TASK, "9-5=4 5*3=15 2-5=3 16")[1:] == [
        "line 1: right", "line 2: right", "line 3: wrong", "the answer is right"
    ]  # fmt: skip


def test_captions_say_how_a_reply_fared(sample: str) -> None:
    env = math()
    assert captions(env, TASK, "") == captions(env, TASK, " \n") == ["the problem"]
    assert captions(env, TASK, "2+5=7 17")[-1] == "the answer is wrong"
    assert captions(env, TASK, "2+5=7 7+9=16 16+0=16 16+0=16 16+0=16 16")[-1] == (
        "the answer is right, but below too many lines"
    )
    assert captions(env, TASK, "sixteen") == ["the problem", "no answer can be read"]
    assert captions(math(answer_format="boxed"), TASK, "2+5=7 7+9=16 \\boxed{16}")[-2:] == [
        "line 2: right", "the answer is right"
    ]  # fmt: skip
    assert captions(math(answer_format="boxed"), TASK, "\\boxed{16}")[-1] == "no answer can be read", (
        "there is no working"
    )
    data = math(dataset=sample, split="all")
    assert captions(data, PROBLEM, "\\boxed{24}") == ["the problem", "the answer is right"]
    assert captions(data, PROBLEM, "\\boxed{25}") == ["the problem", "the answer is wrong"]
    assert captions(data, PROBLEM, "24") == ["the problem", "no answer can be read"]
    assert data.render(PROBLEM, "\\boxed{24}")[-1].text == "What is half of $48$?\nanswer: 24"


def test_a_reply_of_any_length_is_drawn_at_once() -> None:
    # All of it was made printable before it was cut: seconds for ten million characters.
    start = time.process_time()
    for text in ("a" * 10_000_000, "\x00" * 10_000_000):
        assert len(math().render(TASK, text)[-1].text) < 100
    assert time.process_time() - start < 1.0


def test_what_a_policy_wrote_is_escaped(sample: str) -> None:
    data = math(dataset=sample, split="all")
    for text in ("<script>\x00\ud800&amp;" + "<b>" * 1_000_000, "\\boxed{<script>\x00\ud800&amp;<b>}"):
        frames = data.render(PROBLEM, text)
        assert len(frames) == 2 and "&lt;script&gt;\ufffd\ufffd&amp;amp;&lt;b&gt;" in frames[1].svg
        assert "<script" not in frames[1].svg and len(frames[1].svg) < 2_000
        assert "<" not in frames[1].text and "script" not in frames[1].caption
        ElementTree.fromstring(frames[1].svg)


def test_what_a_data_set_holds_is_escaped_and_long_problems_are_cut(tmp_path: Path) -> None:
    rows = [
        {"problem": "Is 1 < 2 & 3 </text>\x07? " + "many words " * 2_000, "answer": "<b>1</b>"},
        {"problem": "x" * 50_000, "answer": "1"},
    ]
    env = math(dataset=written(tmp_path / "a.jsonl", rows), split="all")
    for index in range(2):
        task = env.task(index)
        for frame in env.render(task, env.oracle(task)):
            texts = [element.text or "" for element in ElementTree.fromstring(frame.svg)]
            assert len(texts) <= 41 and max(map(len, texts)) <= 70 and "\x07" not in frame.svg
            assert len(frame.text) < 4_000
    assert "Is 1 &lt; 2 &amp; 3 &lt;/text&gt;\ufffd?" in env.render(env.task(0))[0].svg
