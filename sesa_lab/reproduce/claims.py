"""Each claim of the paper beside what our runs show: an estimate with its interval, a verdict by rule, the command at full size."""

from __future__ import annotations

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
from sesa_lab.reproduce.values import label

FILE = Path(__file__).with_name("claims.toml")
VERDICTS = ("reproduced", "partly", "not", "untestable here")
RULE = (
    "**reproduced**: the 95 % interval of the paper's rule, as far as it is known, lies above 0 and its mean is at least half of"
    " what the paper reports, where it reports a size (of equality: the interval lies above minus its margin). **partly**: it"
    " lies above 0 and is smaller; or the paper's rule does not show it and a rule of ours that draws in sequence, too, does."
    " **not**: neither shows it. **untestable here**: no runs."
)


@dataclass(frozen=True)
class Estimate:
    """What one arm shows.

    Attributes:
        arm: its name.
        mean, low, high: of the difference; the ends are NaN where there is no interval.
        n: pairs behind it.
        seeds: of the arm, in words.
    """

    arm: str
    mean: float
    low: float
    high: float
    n: int
    seeds: str

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
        of, measure, group: which number.
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
    names = dict.fromkeys(claim["experiment"] for claim in told)
    paths = {name: Path(folder) / name / results.JSON for name in names}
    if not any(path.is_file() for path in paths.values()):
        raise InputError(
            f"no results in {folder}, expected e.g. {paths['sokoban']}; make them with `sesa-lab reproduce all`"
        )
    found = {name: pd.DataFrame(results.read(path)["estimates"]) for name, path in paths.items() if path.is_file()}
    return [_judged(claim, found) for claim in told]


def _judged(claim: Mapping[str, Any], found: Mapping[str, pd.DataFrame]) -> Claim:
    table = found.get(claim["experiment"], pd.DataFrame())
    known = len(table) > 0 and "needs" not in claim
    estimates = {
        kind: tuple(e for arm in arms if (e := _estimate(table, claim, arm)) is not None) if known else ()
        for kind, arms in (
            ("paper", [claim["paper"]]),
            ("ours", claim.get("ours", [])),
            ("controls", claim.get("controls", [])),
        )
    }
    paper = estimates["paper"][0] if estimates["paper"] else None
    size, margin = claim.get("size"), claim.get("margin")
    verdict, why = judge(paper, estimates["ours"], estimates["controls"], size, margin)
    return Claim(
        claim["name"], claim["text"], claim["experiment"], claim["of"], claim["measure"], claim.get("group", ""), size, margin,
        paper, estimates["ours"], estimates["controls"], verdict, claim.get("needs", why),
    )  # fmt: skip


def _estimate(table: pd.DataFrame, claim: Mapping[str, Any], arm: str) -> Estimate | None:
    rows = table[(table["measure"] == claim["measure"]) & (table["arm"] == arm)]
    if claim.get("group"):
        rows = rows[rows["group"] == claim["group"]]
    if not len(rows):
        return None
    row, of = rows.iloc[0], claim["of"]
    mean, low, high = (
        math.nan if row.get(name) is None else float(row[name]) for name in (of, f"{of}_low", f"{of}_high")
    )
    if math.isnan(mean):
        return None
    pairs = row.get("n_pairs" if of == "diff" else "n_pairs_base", row["n_seeds"])
    return Estimate(arm, mean, low, high, int(pairs), str(row["seeds"]))


def judge(
    paper: Estimate | None,
    ours: Sequence[Estimate],
    controls: Sequence[Estimate],
    size: float | None = None,
    margin: float | None = None,
) -> tuple[str, str]:
    """A verdict by ``RULE``, and why, in a few words."""
    if paper is None and not ours:
        return "untestable here", "no runs"
    above = -margin if margin is not None else 0.0
    shown = [estimate for estimate in ours if estimate.low > above]
    alike = [estimate for estimate in controls if estimate.low > above]
    beside = f"; without sequence, so does {label(max(alike, key=lambda e: e.mean).arm)}" if alike else ""
    if paper is not None and paper.low > above:
        if size is None or margin is not None or paper.mean >= size / 2:
            return "reproduced", f"by the paper's rule{beside}"
        return "partly", f"by the paper's rule, smaller than reported{beside}"
    if shown:
        best = max(shown, key=lambda estimate: estimate.mean)
        small = size is not None and margin is None and best.mean < size / 2
        return (
            "partly",
            f"not by the paper's rule; by {label(best.arm)}{', smaller than reported' if small else ''}{beside}",
        )
    worse = paper is not None and paper.high < above
    return "not", f"the paper's rule {'has less' if worse else 'does not show it'}, nor does one of ours{beside}"


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
