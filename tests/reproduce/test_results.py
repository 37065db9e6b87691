"""Numbers of a report: whole, traced, and read back; verdicts on claims by their rule."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import pandas as pd
import pytest

from sesa_lab import comparisons
from sesa_lab.errors import InputError
from sesa_lab.reproduce import claims, results
from sesa_lab.reproduce.claims import Estimate, judge

ROOT = Path(__file__).parents[2]


def shown(low: float, high: float, mean: float | None = None, arm: str = "sesa-paper") -> Estimate:
    return Estimate(arm, (low + high) / 2 if mean is None else mean, low, high, 5, "1-5", p=0.01)


UP, DOWN, FLAT = shown(0.1, 0.3), shown(-0.3, -0.1), shown(-0.1, 0.1)
ONE = Estimate("sesa-paper", 0.5, math.nan, math.nan, 1, "1")


@pytest.mark.parametrize(
    ("paper", "ours", "controls", "size", "margin", "verdict", "why"),
    [
        (UP, [], [], None, None, "reproduced", "by the paper's rule"),
        (UP, [], [], 0.4, None, "reproduced", "by the paper's rule"),
        (UP, [], [], 0.5, None, "partly", "smaller than reported"),
        (UP, [], [shown(0.1, 0.2, arm="parallel")], None, None, "reproduced", "without sequence too: parallel"),
        (DOWN, [UP], [], None, None, "partly", "not by the paper's rule"),
        (DOWN, [shown(0.1, 0.3)], [], 0.5, None, "partly", "smaller than reported"),
        (FLAT, [FLAT], [UP], None, None, "not", "does not show it, nor does one of ours show it; without sequence too"),
        (DOWN, [FLAT], [], None, None, "not", "the paper's rule has less"),
        (DOWN, [shown(-0.1, 0.3)], [], None, None, "not", "(undecided: SESA, paper's rule)"),
        (ONE, [ONE], [], None, None, "untestable here", "one seed has no interval"),
        (ONE, [UP], [], None, None, "partly", "not by the paper's rule"),
        (None, [], [UP], None, None, "untestable here", "no runs"),
        (None, [UP], [], None, None, "partly", "the paper's rule was not run; by SESA"),
        (None, [FLAT], [], None, None, "not", "the paper's rule was not run, and none of ours shows it"),
        (replace(UP, p=0.06), [], [], None, None, "not", "does not show it"),
        (replace(UP, p=math.nan), [], [], None, None, "not", "does not show it"),
        (DOWN, [UP], [replace(UP, p=0.06)], None, None, "partly", "by SESA, paper's rule"),
        (shown(-0.02, 0.1), [], [], None, 0.03, "reproduced", "by the paper's rule"),
        (shown(-0.04, 0.1), [], [], None, 0.03, "not", "does not show it"),
    ],
)
def test_verdicts(paper, ours, controls, size, margin, verdict, why) -> None:
    said = judge(paper, ours, controls, size, margin)
    assert said[0] == verdict and why in said[1]


def test_two_equal_seeds_show_nothing() -> None:
    found = comparisons.paired_difference([0.5, 0.75], [0.25, 0.5])
    assert found.interval.low == found.interval.high == 0.25
    alike = Estimate("sesa-paper", *found.interval[:3], 2, "1, 2", p=found.p)
    assert judge(alike, [], [])[0] == "not", "an interval of width 0 is not certain: p is 0.5"


def test_where_there_is_no_room_nothing_is_judged() -> None:
    high = replace(FLAT, reference=0.985)
    assert judge(high, [DOWN], [], most=1.0) == ("untestable here", "no room: it is 0.985 of 1 before")
    assert judge(replace(high, reference=0.9), [DOWN], [], most=1.0)[0] == "not"
    assert judge(high, [DOWN], [])[0] == "not", "a number of strategies has no bound"


def test_every_claim_names_an_experiment_that_runs_its_arms(tmp_path: Path) -> None:
    import tomllib

    from sesa_lab.reproduce import known, load, plan

    for claim in tomllib.loads(claims.FILE.read_text())["claim"]:
        assert claim["experiment"] in known() and claim["of"] in ("diff", "diff_base")
        for preset in {"lab", "paper"} - ({"paper"} if claim["experiment"] == "math" else set()):  # AIME is on the Hub
            made = plan(load(claim["experiment"]), preset, tmp_path, tmp_path)
            arms = {job.arm for job in made.jobs}
            own = {arm for arm in claim["controls"] if "/" not in arm}
            assert {claim["paper"], *claim["ours"], *own} <= arms, (claim["name"], preset)
            groups = {job.folder.parent.name for job in made.jobs}
            assert any(fnmatch(group, claim.get("group", "*")) for group in groups), (claim["name"], preset)
        for arm in set(claim["controls"]) - own:
            experiment, _, name = arm.rpartition("/")
            assert name in {job.arm for job in plan(load(experiment), "lab", tmp_path, tmp_path).jobs}


def test_results_at_the_papers_size_are_judged_too(tmp_path: Path) -> None:
    """Groups are named after a language model there, and AIME is no longer untestable."""
    for path in LAB.glob("*/results.json"):
        content = json.loads(path.read_text()) | {"preset": "paper"}
        for row in content["estimates"]:
            row["group"] = row["group"].replace("-habit", "-Qwen2.5-0.5B-Instruct")
        (tmp_path / path.parent.name).mkdir()
        (tmp_path / path.parent.name / results.JSON).write_text(json.dumps(content))
    lab, paper = ({claim.name: claim for claim in claims.read(folder)} for folder in (LAB, tmp_path))
    assert paper["aime-pass-16"].paper == lab["maths-pass-16"].paper is not None
    assert lab["aime-pass-16"].paper is None and lab["aime-pass-16"].why.startswith("a language model and a GPU")
    assert paper["maths-pass-16"].why == "no runs"
    for name in set(paper) - {"maths-pass-1", "maths-pass-16", "aime-pass-1", "aime-pass-16"}:
        assert (paper[name].verdict, paper[name].why) == (lab[name].verdict, lab[name].why)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no results.json"),
        ("[]", "it holds no estimates"),
        ('{"estimates": [], "schema": 99}', "is of version 99"),
        (
            '{"estimates": [], "schema": 1, "title": ""}',
            "it has no question, preset, seeds, command, made, runs, failed",
        ),
    ],
)
def test_damaged_results_are_told(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / results.JSON
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        results.read(path)
    with pytest.raises(InputError, match="no results at"):
        results.read(tmp_path / "nowhere.json")


def test_claims_without_results_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no results in .* make them with `sesa-lab reproduce all`"):
        claims.read(tmp_path)


def test_where_nothing_is_estimated_there_are_no_tables(tmp_path: Path) -> None:
    from sesa_lab.reproduce import load, plan

    made = plan(load("tour"), "smoke", tmp_path / "runs", tmp_path / "reports")
    made.folder.mkdir(parents=True)
    (made.folder / results.LATEX).write_text("of another time")
    found = results.work_out(made, [], "sesa-lab reproduce tour")
    results.write(found, made)
    assert [path.name for path in made.folder.iterdir()] == [results.JSON]
    assert results.read(made.folder / results.JSON)["estimates"] == []


def test_words_have_n_and_seeds_and_no_interval_from_one_seed() -> None:
    row = {
        "group": "g", "measure": "accuracy", "heading": "pass@1", "label": "a", "n_seeds": 1, "seeds": "3", "mean": 0.5,
        "low": None, "high": None, "diff": None, "n_pairs": 0, "p_holm": None,
    }  # fmt: skip
    five = {
        **row,
        "n_seeds": 5,
        "n_pairs": 3,
        "seeds": "1-5",
        "low": 0.4,
        "high": 0.6,
        "boot_low": 0.45,
        "boot_high": 0.55,
    }
    words = results.in_words(pd.DataFrame([row, five]))
    assert words["mean"].tolist() == ["0.500", "0.500 [0.400, 0.600]"]
    assert words["mean, bootstrap"].tolist() == ["", "[0.450, 0.550]"]
    assert words["n"].tolist() == ["1", "5 (3 pairs)"] and words["seeds"].tolist() == ["3", "1-5"]


def test_what_is_comparable_leaves_out_time_and_machine() -> None:
    found = {
        "made": {"started": "now"}, "command": "x", "estimates": [{"measure": "seconds_total"}, {"measure": "accuracy"}],
        "runs": [{"folder": "a", "cpu": "one", "commit": "1"}],
    }  # fmt: skip
    other = json.loads(json.dumps(found)) | {"made": {}, "command": "y"}
    other["runs"][0] |= {"cpu": "two", "commit": "2"}
    other["estimates"][0]["value"] = 3
    assert results.comparable(found) == results.comparable(other)
    other["estimates"][1]["mean"] = 1.0
    assert results.comparable(found) != results.comparable(other)


LAB = ROOT / "reports" / "lab"


@pytest.mark.parametrize("path", sorted(LAB.glob("*/results.json")), ids=lambda path: path.parent.name)
def test_shipped_results_are_whole_and_traced(path: Path) -> None:
    found = results.read(path)
    assert found["preset"] == "lab" and found["failed"] == [] and found["made"]["git"]["dirty"] is False
    assert found["command"].startswith("sesa-lab reproduce ")
    if found["runs"]:
        assert len(found["seeds"]) >= 5
        for arm in {run["arm"] for run in found["runs"]}:
            assert {run["seed"] for run in found["runs"] if run["arm"] == arm} == set(found["seeds"])
        assert all(run["commit"] and not run["commit"].endswith("+") for run in found["runs"])
        table = pd.read_csv(path.with_name(results.CSV))
        assert len(table) == len(found["estimates"])


def test_the_readme_shows_the_shipped_claims() -> None:
    readme = (ROOT / "README.md").read_text()
    assert claims.markdown(claims.read(LAB)) in readme, "python -m sesa_lab.reproduce.claims prints the table anew"
