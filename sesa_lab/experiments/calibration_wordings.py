"""Known strategies told in several wordings: lexical variety without a new strategy, and new strategies in the same words.

Real models write prose, the lab policies do not. Here the strategy and the wording of every text are drawn apart from each
other, so that what a metric sees of either can be told. The wordings are written by hand, six a task, and within many
wordings each text has one of six openings and of five endings too: no two texts of a group need be equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sesa_lab import environments
from sesa_lab.environments import expressions, sums
from sesa_lab.errors import InputError
from sesa_lab.experiments.calibration_samples import Group
from sesa_lab.seeding import stream

FEW, MANY = "few strategies", "many strategies"
ONE, SEVERAL = "one wording", "many wordings"
CONDITIONS = tuple(f"{number}, {wording}" for number in (FEW, MANY) for wording in (ONE, SEVERAL))
"""What stands in the place of a policy: how many strategies are told, in how many wordings."""

MOST = 10
"""Strategies a task at most; few are 1 to 3, many are all."""
LEAST = 4
"""Strategies a task must have, so that many are more than few."""

OPENINGS = (
    "",
    "Okay. ",
    "Let me think. ",
    "Hmm, let me see what we have here. ",
    "First I look at it. ",
    "Right, so. ",
)
ENDINGS = ("", " That is it.", " I am fairly sure about this.", " Done.", " This should work, as asked.")

WORDINGS: dict[str, tuple[str, ...]] = {
    "countdown, prose": (
        "The answer is {expression}.",
        "I would compute {spoken} to reach the target.",
        "Step by step: {steps}. So the expression is {expression}.",
        "We can use the numbers like this: {mirrored}, and all of them are used once.",
        "Trying a few things, I found that {steps} gets us there.",
        "Take {mirrored_spoken}; this uses each number exactly one time.",
    ),
    "math, prose": (
        "{lines}, so the sum is {total}.",
        "To add these up I take {spoken}. The total is therefore {total}.",
        "Working: {lines}. Answer: {total}",
        "A neat way to do it is this: {spoken}, which leaves {total} in the end.",
        "The result is {total}, because {lines}.",
        "I get {total}. My calculation went like this: {spoken}.",
    ),
    "frozen_lake, prose": (
        "My moves are {moves}.",
        "From the start I go {runs}, and then I stand on the goal.",
        "The safe route is {letters} if you write the first letter of every move.",
        "To avoid the holes, walk {runs}.",
        "Action sequence: {moves}. None of these cells is a hole.",
        "We should move {moves}, one cell after another, until the goal is reached.",
    ),
    "path_exploration, prose": (
        "I choose {a}, {b} and {c}.",
        "Let us travel to {a} first, visit {b} there, and search in {c}.",
        "The treasure could be in {c}, which lies in {b}, a part of {a}.",
        "Route: {a} > {b} > {c}",
        "My guess is the place called {c}; it belongs to {b} in {a}.",
        "Go to {a}. Inside it find {b}. The final stop is {c}.",
    ),
}
"""What stands in the place of an environment -> its wordings. The first is the one that all share where there is one."""


@dataclass(frozen=True)
class Told:
    """A strategy and what its wordings are filled with."""

    key: str
    words: dict[str, str]


def prose_groups(tasks: int, samples: int, seed: int, names: Sequence[str] = tuple(WORDINGS)) -> list[Group]:
    """Every task in all four ``CONDITIONS``: strategies drawn uniformly, and apart from them the words.

    Args:
        tasks: units an environment.
        samples: texts a group.
        seed: of the strategies and wordings.
        names: keys of ``WORDINGS``.
    """
    found = []
    for place, name in enumerate(names):
        for unit, told in enumerate(_pools(name, tasks, seed)):
            for number, condition in enumerate(CONDITIONS):
                generator = stream(seed, "tasks", place, unit, number)
                among = told[: 1 + unit % 3] if condition.startswith(FEW) else told
                picked = [among[i] for i in generator.integers(len(among), size=samples)]
                several = condition.endswith(SEVERAL)
                texts = [_text(WORDINGS[name], each, several, generator) for each in picked]
                found.append(Group(name, condition, unit, tuple(texts), tuple(each.key for each in picked)))
    return found


def crossed_groups(tasks: int, seed: int, names: Sequence[str] = tuple(WORDINGS)) -> list[tuple[Group, list[int]]]:
    """Every strategy of a task in every one of the six wordings, once, without openings and endings; and each text's wording."""
    found = []
    for name in names:
        for unit, told in enumerate(_pools(name, tasks, seed)):
            pairs = [(each, number) for each in told for number in range(len(WORDINGS[name]))]
            texts = tuple(WORDINGS[name][number].format(**each.words) for each, number in pairs)
            group = Group(name, "crossed", unit, texts, tuple(each.key for each, _ in pairs))
            found.append((group, [number for _, number in pairs]))
    return found


def _text(wordings: Sequence[str], told: Told, several: bool, generator: np.random.Generator) -> str:
    if not several:
        return wordings[0].format(**told.words)
    kind, opening, ending = (int(generator.integers(len(of))) for of in (wordings, OPENINGS, ENDINGS))
    return OPENINGS[opening] + wordings[kind].format(**told.words) + ENDINGS[ending]


def _pools(name: str, tasks: int, seed: int) -> list[list[Told]]:
    """For each unit ``LEAST`` to ``MOST`` strategies in random order; tasks that have fewer are passed over."""
    if name not in WORDINGS:
        raise InputError(f"no wordings for {name!r}; known: {', '.join(WORDINGS)}")
    environment = environments.make(name.removesuffix(", prose"))
    pools: list[list[Told]] = []
    for index in range(40 * tasks):
        pool = _TOLD[name](environment, index)
        if len(pool) >= LEAST:
            order = stream(seed, "environment", list(WORDINGS).index(name), index).permutation(len(pool))
            pools.append([pool[i] for i in order[:MOST]])
        if len(pools) == tasks:
            return pools
    raise InputError(f"{name}: only {len(pools)} of {tasks} tasks have {LEAST} strategies; ask for fewer tasks")


def _expressions(environment: environments.Environment, index: int) -> list[Told]:
    data = environment.task(index).data
    found = []
    for form in expressions.forms(tuple(sorted(data["numbers"])), "+-*"):
        tokens = expressions.postfix(form.text)
        assert tokens is not None  # a canonical text reads
        mirrored = _mirrored(tokens)
        words = {"expression": form.text, "mirrored": mirrored, "steps": _steps(tokens)}
        words |= {"spoken": _spoken(form.text), "mirrored_spoken": _spoken(mirrored)}
        found.append(Told(form.text, words))
    return found


def _mirrored(tokens: Sequence[str]) -> str:
    """The same strategy the other way round: the operands of every sum and product change places."""
    stack: list[tuple[str, bool]] = []  # text, and whether it is a sum
    for token in tokens:
        if token not in "+-*":
            stack.append((token, False))
            continue
        (right, right_sum), (left, left_sum) = stack.pop(), stack.pop()
        if token == "*":
            left, right = (f"({side})" if is_sum else side for side, is_sum in ((left, left_sum), (right, right_sum)))
        if token == "-":
            stack.append((f"{left}-({right})" if right_sum else f"{left}-{right}", True))
        else:
            stack.append((f"{right}{token}{left}", token == "+"))
    return stack.pop()[0]


def _steps(tokens: Sequence[str]) -> str:
    stack: list[int] = []
    said = []
    for token in tokens:
        if token not in "+-*":
            stack.append(int(token))
            continue
        right, left = stack.pop(), stack.pop()
        stack.append(int(expressions.calculated(token, left, right)))
        said.append(f"{left} {token} {right} = {stack[-1]}")
    return ", then ".join(said)


def _spoken(text: str) -> str:
    for sign, word in (("+", " plus "), ("-", " minus "), ("*", " times ")):
        text = text.replace(sign, word)
    return text


def _workings(environment: environments.Environment, index: int) -> list[Told]:
    found = []
    for method, working in sums.workings(tuple(environment.task(index).data["numbers"])).items():
        lines = ", ".join(map(str, working))
        spoken = ", then ".join(_spoken(str(line).replace("=", " makes ")) for line in working)
        found.append(Told(method, {"lines": lines, "spoken": spoken, "total": str(working[-1].result)}))
    return found


def _routes(environment: environments.Environment, index: int) -> list[Told]:
    task = environment.task(index)
    found = []
    for text in environment.solutions(task) or []:
        moves = text.split()
        runs: list[tuple[str, int]] = []
        for move in moves:
            if runs and runs[-1][0] == move:
                runs[-1] = (move, runs[-1][1] + 1)
            else:
                runs.append((move, 1))
        said = ", then ".join(f"{move} {('once', 'twice')[n - 1] if n < 3 else f'{n} times'}" for move, n in runs)
        words = {"moves": ", ".join(moves), "runs": said, "letters": " ".join(move[0].upper() for move in moves)}
        found.append(Told(str(environment.score(task, text).strategy), words))
    return found


def _places(environment: environments.Environment, index: int) -> list[Told]:
    task = environment.task(index)
    return [Told(text, dict(zip("abc", text.split("-"), strict=True))) for text in environment.enumerate(task) or []]


_TOLD: dict[str, Callable[[environments.Environment, int], list[Told]]] = {
    "countdown, prose": _expressions,
    "math, prose": _workings,
    "frozen_lake, prose": _routes,
    "path_exploration, prose": _places,
}
