"""Does a solution follow its sketch? Agreement of their methods, what chance alone would give, and paraphrases.

A method is any canonical label that is read off a sketch and off a solution alike (``environments.methods``); None: it could
not be read. Pairs with a None on either side are left out of every measure and are counted apart (``unread``). All measures
are of the solutions of *one task*, for methods of different tasks are not comparable; means over tasks are the caller's
(``of_rollouts`` takes them). Undefined is NaN. None depends on the order of the pairs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from scipy.special import gammaln

Methods: TypeAlias = Sequence[Hashable | None]
"""One a solution: its sketch's, or its own; None where it cannot be read."""
Key: TypeAlias = Callable[[int, str], str | None]
"""(task, text) -> method."""


def unread(methods: Methods) -> float:
    """Share of ``methods`` that could not be read: 0 = all can be, 1 = none; NaN without any."""
    return sum(method is None for method in methods) / len(methods) if len(methods) else math.nan


def follow_rate(sketches: Methods, solutions: Methods) -> float:
    """Share of solutions whose method is that of their sketch: sum_i [a_i = b_i] / n.

    Args:
        sketches: a_i, the method of the sketch that solution i was given.
        solutions: b_i, the method of solution i.

    Returns:
        0..1: 1 = all follow, 0 = none does; NaN without a pair that can be read. Compare it with ``chance_rate``: where all
        sketches and solutions are of one method it is 1 whether or not a sketch is looked at.

    Raises:
        ValueError: not as many sketches as solutions.
    """
    pairs = _pairs(sketches, solutions)
    return sum(a == b for a, b in pairs) / len(pairs) if pairs else math.nan


def chance_rate(sketches: Methods, solutions: Methods) -> float:
    """What ``follow_rate`` is on average if the task's solutions are paired with its sketches at random.

    The exact mean over all n! pairings: E = sum_k a_k b_k / n^2, where a_k sketches and b_k solutions are of method k (each
    solution meets each sketch with probability 1 / n). It is p_e of Cohen's kappa.

    Returns:
        0..1: 0 = no method is both a sketch's and a solution's, 1 = all are of one method; NaN without a pair.

    Raises:
        ValueError: not as many sketches as solutions.
    """
    pairs = _pairs(sketches, solutions)
    given, found = _counts(pairs)
    return sum(count * found[method] for method, count in given.items()) / len(pairs) ** 2 if pairs else math.nan


def kappa(sketches: Methods, solutions: Methods) -> float:
    """Cohen's kappa: (p_o - p_e) / (1 - p_e), with p_o = ``follow_rate`` and p_e = ``chance_rate`` (Cohen 1960).

    Returns:
        -1..1: 1 = all follow, 0 = as many as by chance, < 0 = fewer; NaN without a pair, and where all are of one method
        (chance alone is 1, and nothing is left to explain).

    Raises:
        ValueError: not as many sketches as solutions.
    """
    chance = chance_rate(sketches, solutions)
    if math.isnan(chance) or chance == 1.0:
        return math.nan
    return (follow_rate(sketches, solutions) - chance) / (1.0 - chance)


def information(sketches: Methods, solutions: Methods) -> float:
    """Plug-in mutual information of sketch and solution: sum_kl n_kl / n log(n n_kl / (a_k b_l)), in nats.

    Unlike ``follow_rate`` it asks whether the solution depends on the sketch, not whether it does as told: a policy that
    always takes another method than the one named, but the same for each, has much of it. Biased upwards: of few pairs it is
    far above 0 by chance. ``excess_information`` takes that off.

    Returns:
        0..log(pairs), and at most the entropy of either side; NaN without a pair.

    Raises:
        ValueError: not as many sketches as solutions.
    """
    pairs = _pairs(sketches, solutions)
    if not pairs:
        return math.nan
    (given, found), n = _counts(pairs), len(pairs)
    joint = Counter(pairs).items()
    return max(0.0, sum(count / n * math.log(n * count / (given[a] * found[b])) for (a, b), count in joint))


def expected_information(sketches: Methods, solutions: Methods) -> float:
    """What ``information`` is on average if solutions are paired with sketches at random, in nats: the exact mean over n!.

    Cell (k, l) of a random pairing is hypergeometric: n_kl ~ H(n, a_k, b_l) (Vinh, Epps & Bailey 2010).

    Returns:
        0..``log(pairs)``: 0 = one side has one method only, log(pairs) = no two pairs share a method on either side; NaN
        without a pair.

    Raises:
        ValueError: not as many sketches as solutions.
    """
    pairs = _pairs(sketches, solutions)
    if not pairs:
        return math.nan
    n, total = len(pairs), 0.0
    margins = [Counter(side.values()) for side in _counts(pairs)]  # equal cells are worked out once
    for a, a_times in margins[0].items():
        for b, b_times in margins[1].items():
            cell = np.arange(max(1, a + b - n), min(a, b) + 1)
            ways = gammaln([a + 1, b + 1, n - a + 1, n - b + 1]).sum() - gammaln(n + 1)
            log_p = ways - sum(gammaln(left + 1) for left in (cell, a - cell, b - cell, n - a - b + cell))
            total += a_times * b_times * float((cell / n * np.log(n * cell / (a * b)) * np.exp(log_p)).sum())
    return max(0.0, total)


def excess_information(sketches: Methods, solutions: Methods) -> float:
    """``information`` less what chance alone gives (``expected_information``), in nats.

    Returns:
        At most log(pairs): 0 on average where solutions do not depend on the sketch, and exactly 0 where no two pairs share a
        method (draw several solutions a sketch: then any pairing tells as much); somewhat below 0 by chance; NaN without a
        pair.

    Raises:
        ValueError: not as many sketches as solutions.
    """
    return information(sketches, solutions) - expected_information(sketches, solutions)


def paraphrase_share(sketches: Methods, strategies: Methods) -> float:
    """Among pairs of solutions whose sketches differ, the share that take the same strategy.

    sum_{i<j} [a_i != a_j and b_i = b_j] / sum_{i<j} [a_i != a_j]: each pair counts once, so that the number of solutions does
    not bias it. Of sketch *texts* it says how many differences are wording alone (with a solution that ignores its sketch, all
    are); of sketch *methods* how often a method that differs changes nothing.

    Args:
        sketches: a_i, text or method of the sketch of solution i.
        strategies: b_i, what solution i does.

    Returns:
        0..1: 0 = each other sketch brings another strategy, 1 = none does; NaN where no two sketches differ.

    Raises:
        ValueError: not as many sketches as strategies.
    """
    pairs = _pairs(sketches, strategies)
    given, found = _counts(pairs)
    both = _twos(Counter(pairs))
    differ = math.comb(len(pairs), 2) - _twos(given)
    return (_twos(found) - both) / differ if differ else math.nan


def of_rollouts(rollouts: pd.DataFrame, of_sketch: Key, of_answer: Key) -> pd.DataFrame:
    """The measures of a run by training step: each a mean over the step's groups, of candidates that follow a sketch.

    Args:
        rollouts: columns ``step``, ``group``, ``task``, ``sketch``, ``completion``, ``strategy`` as a run keeps them.
        of_sketch: (task, sketch) -> the method it names; ``environments.methods.Methods`` has both.
        of_answer: (task, completion) -> the method it follows.

    Returns:
        One row a step that has such candidates: ``step``, ``groups``, ``n`` (candidates with a sketch), ``unread_sketches`` and
        ``unread_solutions`` (shares), ``follows``, ``chance``, ``excess`` (the difference), ``kappa``, ``information``
        (``excess_information``, nats), ``paraphrase_texts`` and ``paraphrase_methods``. NaN where no group has a value; groups
        without one are left out of that mean.
    """
    guided = rollouts[rollouts["sketch"].notna()]
    found: list[dict[str, Any]] = []
    for (step, _), part in guided.groupby(["step", "group"]):
        texts = [" ".join(text.split()).casefold() for text in part["sketch"]]
        given = [of_sketch(task, text) for task, text in zip(part["task"], part["sketch"], strict=True)]
        followed = [of_answer(task, text) for task, text in zip(part["task"], part["completion"], strict=True)]
        strategies = [None if pd.isna(strategy) else strategy for strategy in part["strategy"]]
        found.append({"step": step, "n": len(part), **measures(texts, given, followed, strategies)})
    table = pd.DataFrame(found, columns=["step", "n", *_MEASURES])
    by_step = table.groupby("step")
    counts = by_step["n"].agg(groups="size", n="sum")
    return pd.concat([counts, by_step[list(_MEASURES)].mean()], axis=1).reset_index()


_MEASURES = (
    "unread_sketches", "unread_solutions", "follows", "chance", "excess", "kappa", "information", "paraphrase_texts",
    "paraphrase_methods",
)  # fmt: skip


def measures(texts: Methods, sketches: Methods, solutions: Methods, strategies: Methods) -> dict[str, float]:
    """All measures of one task's solutions, by name (see ``of_rollouts``).

    Args:
        texts: the sketch of each, as text.
        sketches: its method.
        solutions: the solution's method.
        strategies: the solution's strategy, which may be finer than its method.

    Raises:
        ValueError: not as many of one as of another.
    """
    follows, chance = follow_rate(sketches, solutions), chance_rate(sketches, solutions)
    values = (
        unread(sketches), unread(solutions), follows, chance, follows - chance, kappa(sketches, solutions),
        excess_information(sketches, solutions), paraphrase_share(texts, strategies),
        paraphrase_share(sketches, strategies),
    )  # fmt: skip
    return dict(zip(_MEASURES, values, strict=True))


def _pairs(first: Methods, second: Methods) -> list[tuple[Hashable, Hashable]]:
    """Those that can be read on both sides."""
    if len(first) != len(second):
        raise ValueError(f"expected one sketch a solution, got {len(first)} sketches for {len(second)} solutions")
    return [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]


def _counts(pairs: Sequence[tuple[Hashable, Hashable]]) -> tuple[Counter[Hashable], Counter[Hashable]]:
    return Counter(a for a, _ in pairs), Counter(b for _, b in pairs)


def _twos(counts: Counter[Any]) -> int:
    """How many pairs of equal things there are."""
    return sum(math.comb(count, 2) for count in counts.values())
