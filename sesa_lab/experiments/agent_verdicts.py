"""What the agents' tables show, in words: which arm is best, and whether the aims that were set before the runs are reached."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from sesa_lab.errors import InputError
from sesa_lab.experiments.agent_tables import (
    BASE,
    MEASURES,
    PLAIN,
    Results,
    at_equal,
    difference,
    short,
    widest,
    with_sketches,
)
from sesa_lab.experiments.agents import LABELS
from sesa_lab.statistics import Interval

AIMS = {
    "habit": "more {} and more distinct correct strategies than every arm without sketches, at a pass@1 no more than 0.03 lower",
    "ordinary": "pass@1 and {} no more than 0.03, and distinct correct strategies no more than 10 %, below those of every arm"
    " without sketches",
}
"""Base -> what the best arm with sketches is to reach, set before the runs."""

MARGIN, MARGIN_DISTINCT = 0.03, 0.10
"""How much lower is still no worse: of pass@1 and pass@k, and as a share of the rival's distinct correct strategies. No worse
is shown where the whole interval of a paired difference lies above minus the margin; more, where it lies above 0."""

NO_WORSE = ("higher", "no worse")
"""What ``beside`` says of a measure that is shown to be no worse."""

SLACK = 0.02
"""How much lower than the best arm without sketches the pass@1 of the arm may be that is called best."""

FEWEST_SEEDS = 3
"""With fewer no conclusion is drawn."""


def best(results: Results) -> str:
    """The arm with sketches that comes nearest to the aim on *validation* tasks at its last step.

    Of the arms whose mean pass@1 is no more than ``SLACK`` below the highest of an arm without sketches, the one of the highest
    sum of mean pass@k (the widest k) and mean distinct correct strategies; where there is none, the one of the highest pass@1.
    Arms that have fewer seeds than others take no part. Means are over the seeds that all the rest have: a seed fixes the tasks
    too, and another one's may be easier.

    Chosen there, so that the luck of test samples has no say. The luck of training has: the same runs are judged on both.

    Raises:
        InputError: no arm draws sketches, or the arms have no seed in common.
    """
    arms, rivals = with_sketches(results), rivals_of(results)
    if not arms:
        raise InputError("no arm with sketches among the runs, expected at least one: add e.g. sesa-paper")
    counts = results.direct.groupby("arm")["seed"].nunique()
    most = counts[arms].max()
    arms, rivals = [a for a in arms if counts[a] == most], [a for a in rivals if counts[a] >= most]
    frame = results.evaluations[results.evaluations["arm"].isin([*arms, *rivals])]
    last = frame[frame["step"] == frame["step"].max()]
    wide, count = widest(last), last.groupby("seed")["arm"].nunique()
    shared = last[last["seed"].isin(count.index[count == len(arms) + len(rivals)])]
    if not len(shared):
        raise InputError(f"arms {', '.join([*arms, *rivals])} have no seed in common: run them on the same seeds")
    means = shared.groupby("arm")[["accuracy", wide, "coverage"]].mean().round(12)
    own, highest = means.loc[arms], means.loc[rivals, "accuracy"].max() if rivals else -math.inf
    enough = own[own["accuracy"] >= round(highest - SLACK, 12)]
    return str((enough[wide] + enough["coverage"]).idxmax() if len(enough) else own["accuracy"].idxmax())


def rivals_of(results: Results) -> list[str]:
    """Trained arms without sketches."""
    return [str(a) for a in results.direct["arm"].unique() if a != BASE and a not in with_sketches(results)]


def aims(results: Results, frame: pd.DataFrame | None = None) -> pd.DataFrame:
    """The best arm with sketches against every arm without: differences and what they say beside the margins.

    Args:
        results: the runs.
        frame: one row an (arm, seed) with the measures, e.g. of ``agent_tables.at_equal``; None: direct answers to test tasks.
    """
    frame, own = results.direct if frame is None else frame, best(results)
    rows = {}
    for rival in rivals_of(results):
        found = beside(frame, own, rival)
        said = "; ".join(f"{MEASURES[name]} {word}" for name, (_, word) in found.items())
        enough = min(value.n for value, _ in found.values()) >= FEWEST_SEEDS
        rows[LABELS.get(rival, rival)] = {
            **{MEASURES[name]: short(value) for name, (value, _) in found.items()},
            "so": said if enough else f"no conclusion: fewer than {FEWEST_SEEDS} seeds",
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(f"{LABELS.get(own, own)} minus")


def beside(frame: pd.DataFrame, own: str, rival: str) -> dict[str, tuple[Interval, str]]:
    """Measure -> its difference between two arms, and what that says beside its margin."""
    names = _measures(frame)
    margins = _margins(frame, own, rival, names)
    found = {name: difference(frame, own, rival, name) for name in names}
    return {name: (value, _against(value, margins[name])) for name, value in found.items()}


def conclusion(results: Results) -> str:
    """Markdown that says, from the test table alone, what training did and whether sketches helped."""
    (low, high), frame = results.seeds, results.direct
    count = f"{high} seed{'s' if high != 1 else ''}" if low == high else f"{low} to {high} seeds"
    head = f"**{results.task}, {results.base} base**, {count}, test tasks, without sketches:"
    if high < FEWEST_SEEDS:
        return f"{head} no conclusion is drawn from fewer than {FEWEST_SEEDS} seeds."
    own, wide = best(results), MEASURES[widest(frame)]
    lines = [head, ""]
    for arm, reference in ((PLAIN, BASE), (own, BASE), *((own, rival) for rival in rivals_of(results))):
        found = beside(frame, arm, reference)
        said = "; ".join(
            f"{MEASURES[name]} {word} ({short(value, sign=True)})" for name, (value, word) in found.items()
        )
        if found["accuracy"][0].n < FEWEST_SEEDS:
            said = f"no conclusion, only {found['accuracy'][0].n} seeds in common"
        lines.append(f"- **{LABELS.get(arm, arm)}** against {LABELS.get(reference, reference)}: {said}.")
    chosen = (
        f"{LABELS.get(own, own)} was chosen among the arms with sketches on validation tasks, by {wide} plus distinct correct"
        f" strategies at a pass@1 no more than {SLACK} below that of the best arm without."
    )
    return "\n".join(
        [*lines, "", f"{chosen} Intervals are 95 % each, whatever their number. {_aims(results)}".rstrip()]
    )


def _aims(results: Results) -> str:
    """Whether the aim is shown to be reached at equal candidates, and at equal tokens; nothing where too little is known."""
    parts = [_aim(results, results.direct, "at equal candidates, on test tasks")]
    if "tokens_total" in results.evaluations:
        budget, read = at_equal(results)
        parts.append(_aim(results, read, f"at equal tokens ({budget:,.0f}), on validation tasks"))
    if not all(parts):
        return ""
    rivals = ", ".join(LABELS.get(rival, rival) for rival in rivals_of(results))
    aim = AIMS[results.base].format(MEASURES[widest(results.direct)])
    return f"The aim, {aim} (here: {rivals}, each at its searched learning rate), is {'; '.join(parts)}."


def _aim(results: Results, frame: pd.DataFrame, where: str) -> str:
    """Whether the aim that was set before the runs is shown; nothing where too few seeds or another policy say nothing.

    What is to be no worse must have its whole interval above minus the margin, what is to be more above 0. Otherwise the aim is
    not shown, which is not the same as missed.
    """
    own = best(results)
    found = [beside(frame, own, rival) for rival in rivals_of(results)]
    fewest = min((values["accuracy"][0].n for values in found), default=0)
    if results.base not in AIMS or fewest < FEWEST_SEEDS:
        return ""
    of_width = NO_WORSE if results.base == "ordinary" else ("higher",)
    shown = all(
        word in (NO_WORSE if name == "accuracy" else of_width) for values in found for name, (_, word) in values.items()
    )
    return f"{'shown' if shown else 'not shown'} {where}"


def _measures(frame: pd.DataFrame) -> list[str]:
    """What the aims are of: pass@1, pass@k of the widest k, distinct correct strategies."""
    return ["accuracy", widest(frame), "coverage"]


def _margins(frame: pd.DataFrame, own: str, rival: str, names: Sequence[str]) -> dict[str, float]:
    """Measure -> how much lower than ``rival`` is still no worse; of distinct strategies by the rival's mean, paired seeds."""
    paired = set(frame[frame["arm"] == own]["seed"])
    theirs = frame[(frame["arm"] == rival) & frame["seed"].isin(paired)]
    return {name: MARGIN_DISTINCT * theirs["coverage"].mean() if name == "coverage" else MARGIN for name in names}


def _against(value: Interval, margin: float) -> str:
    """What the interval of a difference says beside a margin of how much lower is still no worse."""
    if not math.isfinite(value.low):
        return "without an interval"
    if value.low > -margin:
        return "higher" if value.low > 0.0 else "no worse"
    return "lower" if value.high < 0.0 else "undecided"
