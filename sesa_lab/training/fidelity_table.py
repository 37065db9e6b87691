"""What the solutions of ``training.fidelity`` come to: measures an arm, differences between arms, and a reading in words."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pandas as pd

from sesa_lab import statistics
from sesa_lab.diversity import distinct
from sesa_lab.diversity import fidelity as pure
from sesa_lab.samplers.dialogue import normal
from sesa_lab.seeding import stream
from sesa_lab.statistics import Interval

ARMS = ("own", "swapped", "foreign", "none")
"""Which sketch a solution is given: its own; another of the same task and of another method; another task's; none at all."""
MEASURES = (
    "readable", "follows", "follows_solving", "chance", "excess", "kappa", "stubborn", "information", "success", "distinct",
    "logprob",
)  # fmt: skip
EFFECTS = ("effect", "success", "same_strategy", "paraphrase_texts", "paraphrase_methods")


@dataclasses.dataclass(frozen=True, eq=False)
class Fidelity:
    """What was drawn, and what it comes to.

    Attributes:
        samples: one row a solution: ``task``, ``arm``, ``index`` (its place in its task; rows of one place have one random
            stream in all arms), ``own`` and ``given`` (texts of the sketch it began from and of the one it was given; None in
            arm ``none``), ``own_method``, ``given_method``, ``solves`` (whether the solver knows a solution by that
            method; None: unknown), ``method`` (of the solution; None: unreadable), ``completion``, ``success``, ``strategy``,
            ``logprob`` (nats, of the completion under what it was drawn under). Where a sketch has no counterpart of another
            method, arm ``swapped`` has no row.
    """

    samples: pd.DataFrame

    def estimates(self, seed: int = 0) -> pd.DataFrame:
        """One row an arm and measure: mean over tasks with its 95 % bootstrap interval over tasks.

        Columns ``arm``, ``measure``, ``mean``, ``low``, ``high``, ``n`` (tasks with a value). Of each arm:

        - ``readable``: share of solutions whose method can be read;
        - ``follows``, ``chance``, ``excess`` (the difference), ``kappa``, ``information`` (nats, less what is expected by
          chance): of the sketch that was *given*, see ``diversity.fidelity``; none in arm ``none``;
        - ``follows_solving``: ``follows``, of sketches by which the solver knows a solution: those that cannot lead to one may be
          impossible to follow at all;
        - ``stubborn``: share of readable solutions that follow the sketch they began from though it was not given; none in
          arm ``own``, and in arm ``none`` what the policy does of itself;
        - ``success``, ``distinct`` (correct strategies a task; NaN where the arm has fewer solutions than arm ``own``),
          ``logprob``;
        - of arm ``own`` also ``paraphrase_texts`` and ``paraphrase_methods``: share of pairs of other sketches that lead to the
          same strategy.

        Of ``own - swapped``, ``own - foreign`` and ``own - none``, of pairs of one stream:

        - ``effect``: P(method m | given sketch m) - P(method m | given the other sketch, or none), where the other one names
          another method; an unreadable solution is of no method and counts as 0, for leaving it out would choose by outcome.
          -1..1: 1 = the sketch decides, 0 = it changes nothing;
        - ``success``: the difference;
        - ``same_strategy``: share of pairs of readable solutions that take the same strategy all the same.

        Args:
            seed: of the bootstrap.
        """
        found = [_of_task(part) for _, part in self.samples.groupby("task")]
        names = dict.fromkeys(name for values in found for name in values)
        rows = []
        for place, (arm, measure) in enumerate(names):
            values = [own.get((arm, measure), math.nan) for own in found]
            interval = statistics.bootstrap_mean(values, stream(seed, "bootstrap", place))
            rows.append({"arm": arm, "measure": measure, **interval._asdict()})
        return pd.DataFrame(rows)

    def table(self, seed: int = 0) -> pd.DataFrame:
        """The estimates in words, see ``in_words``."""
        return in_words(self.estimates(seed))


def in_words(estimates: pd.DataFrame) -> pd.DataFrame:
    """Estimates as ``0.93 [0.91, 0.95]``: one row a measure, one column an arm or difference of arms; "" where undefined."""
    wide = estimates.assign(words=[_words(row) for row in estimates.itertuples(index=False)])
    wide = wide.pivot(index="measure", columns="arm", values="words").fillna("")
    order = dict.fromkeys((*MEASURES, *EFFECTS))
    return wide.loc[list(order), list(dict.fromkeys(estimates["arm"]))].rename_axis(index=None, columns=None)


def _words(row: Any) -> str:
    if math.isnan(row.mean):
        return ""
    return f"{row.mean:.2f}" + ("" if math.isnan(row.low) else f" [{row.low:.2f}, {row.high:.2f}]")


def reading(estimates: pd.DataFrame) -> str:
    """One paragraph on what ``Fidelity.estimates`` say; what an interval cannot tell from nothing is called so."""
    at = {(row.arm, row.measure): Interval(row.mean, row.low, row.high, row.n) for row in estimates.itertuples()}
    follows = at["own", "follows"]
    if math.isnan(follows.mean):
        return "Whether solutions follow their sketches cannot be told: no sketch and solution could be read together."
    above = _verdict(at["own", "excess"], "more than", "fewer than", "no other than")
    of_solving = at["own", "follows_solving"]
    told = [
        f"Solutions follow the sketch they are given in {_share(follows)} (if sketches were dealt at random:"
        f" {100 * at['own', 'chance'].mean:.0f} %; {above} chance)"
        + ("." if math.isnan(of_solving.mean) else f", of those that can lead to a solution in {_share(of_solving)}.")
    ]
    if not math.isnan(at["swapped", "follows"].mean):
        told.append(
            f"Given another sketch of the same task, they follow that one in {_share(at['swapped', 'follows'])} and keep to the"
            f" method of the one it replaces in {_share(at['swapped', 'stubborn'])}."
        )
        effect = at["own - swapped", "effect"]
        weight = "decides" if effect.low > 0.8 else "mostly decides" if effect.low > 0.5 else "has a say in"
        told.append(
            f"So the sketch {_verdict(effect, weight, 'works against', 'does not measurably change')} the method: its effect"
            f" on the probability of the named one is {_points(effect)}."
        )
    if not math.isnan(at["none", "stubborn"].mean):
        told.append(f"Without a sketch the same method comes up in {_share(at['none', 'stubborn'])}.")
    foreign = at["foreign", "readable"]
    told.append(
        f"With a sketch of another task {_share(foreign)} of the solutions can be read"
        + (
            "."
            if math.isnan(at["foreign", "follows"].mean)
            else f"; {_share(at['foreign', 'follows'])} follow it, of those whose sketch can be read too."
        )
    )
    gain = at["own - none", "success"]
    told.append(
        f"Success with its own sketch is {_verdict(gain, 'higher than', 'lower than', 'not measurably other than')} without"
        f" one ({_points(gain)})."
    )
    same = at["own", "paraphrase_texts"]
    if not math.isnan(same.mean):
        told.append(f"Of pairs of sketches that differ as texts {_share(same)} lead to the same strategy.")
    return " ".join(told)


def _verdict(interval: Interval, above: str, below: str, neither: str) -> str:
    return above if interval.low > 0 else below if interval.high < 0 else neither


def _share(interval: Interval) -> str:
    ends = "no interval" if math.isnan(interval.low) else f"{100 * interval.low:.0f} to {100 * interval.high:.0f}"
    return f"{100 * interval.mean:.0f} % [{ends}]"


def _points(interval: Interval) -> str:
    ends = "no interval" if math.isnan(interval.low) else f"{100 * interval.low:+.0f} to {100 * interval.high:+.0f}"
    return f"{100 * interval.mean:+.0f} points [{ends}]"


def _of_task(part: pd.DataFrame) -> dict[tuple[str, str], float]:
    """(arm, measure) -> value, of one task's samples."""
    arms = {arm: part[part["arm"] == arm].set_index("index") for arm in ARMS}
    own = arms["own"]
    found = {(arm, name): value for arm, rows in arms.items() for name, value in _of_arm(rows, len(own)).items()}
    strategies = _listed(own["strategy"])
    texts = [normal(text) for text in own["own"]]
    found["own", "paraphrase_texts"] = pure.paraphrase_share(texts, strategies)
    found["own", "paraphrase_methods"] = pure.paraphrase_share(_listed(own["own_method"]), strategies)
    for arm in ARMS[1:]:
        differences = _difference(own.loc[arms[arm].index], arms[arm])
        found |= {(f"own - {arm}", name): value for name, value in differences.items()}
    return found


def _difference(told: pd.DataFrame, other: pd.DataFrame) -> dict[str, float]:
    """Of pairs of solutions of one stream, the first given its own sketch."""
    methods = [
        (method, a, b)
        for method, given, a, b in zip(
            *map(_listed, (told["own_method"], other["given_method"], told["method"], other["method"])), strict=True
        )
        if method is not None and method != given
    ]
    strategies = zip(_listed(told["strategy"]), _listed(other["strategy"]), strict=True)
    return {
        "effect": _mean([(a == method) - (b == method) for method, a, b in methods]),
        "success": _mean(told["success"].astype(float) - other["success"].astype(float)),
        "same_strategy": _mean([a == b for a, b in strategies if a is not None and b is not None]),
    }


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _of_arm(rows: pd.DataFrame, whole: int) -> dict[str, float]:
    given, own, method = (_listed(rows[name]) for name in ("given_method", "own_method", "method"))
    follows, chance = pure.follow_rate(given, method), pure.chance_rate(given, method)
    left = [(a, b) for a, b, c in zip(own, method, given, strict=True) if a != c]
    solving = [(a, b) for a, b, solves in zip(given, method, _listed(rows["solves"]), strict=True) if solves]
    strategies = _listed(rows["strategy"])
    return {
        "readable": 1.0 - pure.unread(method),
        "follows": follows,
        "follows_solving": pure.follow_rate([a for a, _ in solving], [b for _, b in solving]),
        "chance": chance,
        "excess": follows - chance,
        "kappa": pure.kappa(given, method),
        "stubborn": pure.follow_rate([a for a, _ in left], [b for _, b in left]),
        "information": pure.excess_information(given, method),
        "success": _mean(rows["success"]),
        "distinct": float(distinct(strategies, rows["success"].tolist())) if len(rows) == whole else math.nan,
        "logprob": _mean(rows["logprob"]),
    }


def _listed(column: pd.Series) -> list[Any]:
    return [None if pd.isna(value) else value for value in column]
