"""Each claim of the paper beside what our runs show: an estimate with its interval, a verdict by rule, the command at full size."""

from __future__ import annotations

import fnmatch
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sesa_lab import statistics
from sesa_lab.errors import InputError
from sesa_lab.reproduce import results
from sesa_lab.reproduce.values import label, unit

FILE = Path(__file__).with_name("claims.toml")
VERDICTS = ("reproduced", "partly", "not", "untestable here")
RULE = (
    "An arm *shows* a claim where the 95 % interval of its difference lies above 0 and its p value, by Holm's method corrected over"
    " the arms of that measure, is below 0.05 (a claim of equality: where the interval, uncorrected, lies above minus its margin)."
    " **reproduced**: the paper's rule, as far as it is known, shows it, and its mean is at least half of what the paper reports,"
    " where it reports a size. **partly**: it shows it and is smaller; or it does not, and a rule of ours that draws in sequence,"
    " too, does. **not**: neither shows it. **untestable here**: no runs of two seeds or more, or no room above what is compared"
    " with."
)
SIGNIFICANT = 0.05
LEAST_ROOM = 0.02
"""Of a probability that is to rise: where what it is compared with is nearer to 1, nothing could show a rise."""


@dataclass(frozen=True)
class Estimate:
    """What one arm shows.

    Attributes:
        arm: its name.
        mean, low, high: of the difference; the ends are NaN where there is no interval.
        n: pairs behind it.
        seeds: of the arm, in words.
        p: of the difference, by Holm's method corrected over the arms of its measure, in [0, 1]; NaN: there is none.
        reference: what it is a difference from, in the measure's unit; NaN: not known.
    """

    arm: str
    mean: float
    low: float
    high: float
    n: int
    seeds: str
    p: float = math.nan
    reference: float = math.nan

    @property
    def text(self) -> str:
        """``0.17 [0.12, 0.21] (n=5)``."""
        return statistics.text(self.mean, self.low, self.high, self.n)


@dataclass(frozen=True)
class Claim:
    """A claim, and what became of it here.

    Attributes:
        name, text: of the claim.
        experiment: whose results are looked at.
        of, measure, group: which number; group is a pattern, of several that fit the first is meant.
        size: what the paper reports; None: no number.
        margin: of a claim of equality; None: it is none.
        paper: the estimate of the paper's rule; None: not run.
        ours, controls: estimates of our rules that draw in sequence, and of arms that do not.
        verdict: one of ``VERDICTS``.
        why: in a few words.
    """

    name: str
    text: str
    experiment: str
    of: str
    measure: str
    group: str
    size: float | None
    margin: float | None
    paper: Estimate | None
    ours: tuple[Estimate, ...]
    controls: tuple[Estimate, ...]
    verdict: str
    why: str

    @property
    def best(self) -> Estimate | None:
        """Of our rules the one of the highest mean."""
        return max(self.ours, key=lambda estimate: estimate.mean, default=None)

    @property
    def best_control(self) -> Estimate | None:
        """Of the controls the one of the highest mean."""
        return max(self.controls, key=lambda estimate: estimate.mean, default=None)

    @property
    def at_paper_size(self) -> str:
        """The command."""
        return f"sesa-lab reproduce {self.experiment} --preset paper"


def read(folder: Path) -> list[Claim]:
    """Every claim, judged by the results that lie in ``folder`` (``NAME/results.json``).

    Raises:
        InputError: a results.json that cannot be read.
    """
    told = tomllib.loads(FILE.read_text(encoding="utf-8"))["claim"]
    others = (arm.rpartition("/")[0] for claim in told for arm in claim.get("controls", []))
    names = dict.fromkeys([*(claim["experiment"] for claim in told), *(name for name in others if name)])
    paths = {name: Path(folder) / name / results.JSON for name in names}
    if not any(path.is_file() for path in paths.values()):
        raise InputError(
            f"no results in {folder}, expected e.g. {paths['sokoban']}; make them with `sesa-lab reproduce all`"
        )
    found = {name: results.read(path) for name, path in paths.items() if path.is_file()}
    tables = {
        name: pd.DataFrame(content["estimates"]).assign(preset=content["preset"]) for name, content in found.items()
    }
    return [_judged(claim, tables) for claim in told]


def _judged(claim: Mapping[str, Any], found: Mapping[str, pd.DataFrame]) -> Claim:
    kinds = {"paper": [claim["paper"]], "ours": claim.get("ours", []), "controls": claim.get("controls", [])}
    estimates = {
        kind: tuple(e for arm in arms if (e := _estimate(found, claim, arm)) is not None)
        for kind, arms in kinds.items()
    }
    paper = estimates["paper"][0] if estimates["paper"] else None
    size, margin = claim.get("size"), claim.get("margin")
    most = 1.0 if margin is None and unit(claim["measure"]) in ("probability", "share of tasks") else None
    verdict, why = judge(paper, estimates["ours"], estimates["controls"], size, margin, most)
    if paper is None and not estimates["ours"]:
        why = claim.get("needs", why)
    return Claim(
        claim["name"], claim["text"], claim["experiment"], claim["of"], claim["measure"], claim.get("group", ""), size, margin,
        paper, estimates["ours"], estimates["controls"], verdict, why,
    )  # fmt: skip


def _estimate(found: Mapping[str, pd.DataFrame], claim: Mapping[str, Any], arm: str) -> Estimate | None:
    """What an arm shows; one of another experiment, with the same baseline, is written EXPERIMENT/ARM."""
    experiment, _, name = arm.rpartition("/")
    table = found.get(experiment or claim["experiment"], pd.DataFrame())
    if not len(table):
        return None
    rows = table[(table["measure"] == claim["measure"]) & (table["arm"] == name)]
    if "presets" in claim:
        rows = rows[rows["preset"].isin(claim["presets"])]
    if claim.get("group") and not experiment:
        rows = rows[[fnmatch.fnmatchcase(str(group), claim["group"]) for group in rows["group"]]]
    if not len(rows):
        return None
    row, of = rows.iloc[0], claim["of"]
    p = "p_holm" if of == "diff" else "p_base_holm"
    mean, low, high, p_value, reached = (
        math.nan if row.get(key) is None else float(row[key]) for key in (of, f"{of}_low", f"{of}_high", p, "mean")
    )
    if math.isnan(mean):
        return None
    pairs = row.get("n_pairs" if of == "diff" else "n_pairs_base", row["n_seeds"])
    return Estimate(name, mean, low, high, int(pairs), str(row["seeds"]), p_value, reached - mean)


def judge(
    paper: Estimate | None,
    ours: Sequence[Estimate],
    controls: Sequence[Estimate],
    size: float | None = None,
    margin: float | None = None,
    most: float | None = None,
) -> tuple[str, str]:
    """A verdict by ``RULE``, and why, in a few words.

    Args:
        paper, ours, controls: estimates of the paper's rule, of ours that draw in sequence, and of arms that do not.
        size, margin: as in ``Claim``.
        most: what the measure is at most; None: it has no bound.
    """
    asked = [estimate for estimate in (paper, *ours) if estimate is not None]
    if not asked:
        return "untestable here", "no runs"
    if all(math.isnan(estimate.low) for estimate in asked):
        return "untestable here", "one seed has no interval"
    full = [e.reference for e in asked if most is not None and e.reference > most - LEAST_ROOM]
    if full:
        return "untestable here", f"no room: it is {full[0]:.3f} of {most:g} before"
    above = -margin if margin is not None else 0.0

    def shows(estimate: Estimate) -> bool:
        return estimate.low > above and (margin is not None or estimate.p < SIGNIFICANT)

    alike = [estimate for estimate in controls if shows(estimate)]
    beside = f"; without sequence too: {label(_highest(alike).arm)}" if alike else ""
    if paper is not None and shows(paper):
        if size is None or margin is not None or paper.mean >= size / 2:
            return "reproduced", f"by the paper's rule{beside}"
        return "partly", f"by the paper's rule, smaller than reported{beside}"
    shown = [estimate for estimate in ours if shows(estimate)]
    if shown:
        best = _highest(shown)
        small = ", smaller than reported" if size is not None and margin is None and best.mean < size / 2 else ""
        first = "not by the paper's rule" if paper is not None else "the paper's rule was not run"
        return "partly", f"{first}; by {label(best.arm)}{small}{beside}"
    if paper is None:
        first = "the paper's rule was not run, and none of ours shows it"
    else:
        said = "has less" if paper.high < above else "does not show it"
        first = f"the paper's rule {said}, nor does one of ours show it"
    unsure = [estimate for estimate in ours if estimate.high > above and estimate.mean > above]
    undecided = f" (undecided: {label(_highest(unsure).arm)})" if unsure else ""
    return "not", f"{first}{undecided}{beside}"


def _highest(estimates: Sequence[Estimate]) -> Estimate:
    return max(estimates, key=lambda estimate: estimate.mean)


def table(claims: Sequence[Claim]) -> pd.DataFrame:
    """One row a claim, as text: what the paper reports, the estimates, the verdict and why."""
    rows = []
    for claim in claims:
        best, control = claim.best, claim.best_control
        rows.append(
            {
                "claim": claim.text,
                "the paper's rule": claim.paper.text if claim.paper else "not run",
                "ours, best": f"{best.text}, {label(best.arm)}" if best else "not run",
                "control, best": f"{control.text}, {label(control.arm)}" if control else "not run",
                "verdict": claim.verdict,
                "why": claim.why,
            }
        )
    return pd.DataFrame(rows)


def commands(claims: Sequence[Claim]) -> pd.DataFrame:
    """How each claim is run at the paper's size."""
    return pd.DataFrame([{"claim": claim.text, "at the paper's size": claim.at_paper_size} for claim in claims])


def markdown(claims: Sequence[Claim]) -> str:
    """``table`` as a Markdown table, for a README."""
    found = table(claims)
    lines = [" | ".join(found.columns), " | ".join("---" for _ in found.columns)]
    lines += [" | ".join(str(value).replace("|", "\\|") for value in row) for row in found.itertuples(index=False)]
    return "\n".join(f"| {line} |" for line in lines)


def main(folder: str = "reports/lab") -> None:
    """Print the table of the README: ``python -m sesa_lab.reproduce.claims``."""
    print(markdown(read(Path(folder))))


if __name__ == "__main__":
    main()
