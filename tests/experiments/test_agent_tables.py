"""The agents' tables, sentences, strategies, sketches and replays, from hand-made measures and a hand-written run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sesa_lab import environments, runs
from sesa_lab.config import Config
from sesa_lab.errors import InputError
from sesa_lab.experiments import agent_findings as findings
from sesa_lab.experiments import agent_tables as tables
from sesa_lab.experiments import agent_verdicts as verdicts
from sesa_lab.experiments.jobs import Job
from sesa_lab.runs import RunWriter

T2 = 4.302653  # Student's t quantile at 0.975 of two degrees of freedom


def job(arm: str, seed: int = 0, folder: Path = Path("x"), environment: str = "frozen_lake") -> Job:
    sampler = {"name": "sesa"} if arm.startswith(("sesa", "mixed")) else {}
    config = Config.build(environment={"name": environment}, sampler=sampler, run={"seed": seed, "steps": 4})
    return Job(arm, seed, config, folder / f"{environment}-habit" / f"{arm}-{seed}")


def results(
    direct: Mapping[str, Sequence[float]],
    validation: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    base: str = "habit",
) -> tables.Results:
    """Arms with one accuracy a seed on test tasks; pass@64 is twice, distinct correct ten times as large.

    ``validation``: accuracies at steps 0 and 4; left out: 0.1 and the test's. Tokens: 100 a step, with sketches 200; seconds:
    half as many.
    """
    jobs = [job(arm, seed) for arm, values in direct.items() for seed in range(len(values))]
    tests = [
        {"arm": arm, "seed": seed, "guided": guided, **taken(value / (2 if guided else 1)), "tokens_total": 400.0}
        for arm, values in direct.items() for seed, value in enumerate(values) for guided in (False, True)
    ]  # fmt: skip
    curves = validation or {arm: [(0.1, value) for value in values] for arm, values in direct.items()}
    rows = [
        {
            "arm": arm, "seed": seed, "step": step, **taken(value), "tokens_total": step * price(arm),
            "seconds_total": step * price(arm) / 2,
        }
        for arm, pairs in curves.items() for seed, pair in enumerate(pairs)
        for step, value in zip((0, 4) if arm != "base" else (0,), pair, strict=False)
    ]  # fmt: skip
    return tables.Results("sokoban", base, jobs, [], pd.DataFrame(rows), pd.DataFrame(tests))


def taken(value: float) -> dict[str, float]:
    return {"accuracy": value, "pass_at_64": 2 * value, "coverage": 10 * value, "pass_at_64_hard": math.nan}


def price(arm: str) -> int:
    return 200 if arm.startswith(("sesa", "mixed")) else 100


THREE = {
    "base": [0.10, 0.10, 0.10],
    "parallel": [0.20, 0.21, 0.22],
    "sesa-paper": [0.15, 0.15, 0.15],
    "mixed": [0.30, 0.32, 0.34],
}


def test_estimates_are_means_and_t_intervals_over_seeds() -> None:
    found = tables.estimates(results(THREE)).set_index(["arm", "measure"])
    # 0.20, 0.21, 0.22: mean 0.21, s = 0.01, half width t s / sqrt 3
    half = T2 * 0.01 / math.sqrt(3)
    row = found.loc[("parallel", "accuracy")]
    assert row[["mean", "low", "high"]].tolist() == pytest.approx([0.21, 0.21 - half, 0.21 + half])
    assert (row["task"], row["base"], row["n"]) == ("sokoban", "habit", 3)
    assert found.loc[("parallel", "coverage"), "mean"] == pytest.approx(2.1)
    assert found.loc[("parallel", "accuracy_with_sketches"), "mean"] == pytest.approx(0.105)
    assert ("parallel", "tokens_total") in found.index, "training has its cost once"
    assert ("parallel", "tokens_total_with_sketches") not in found.index
    assert not [name for _, name in found.index if "hard" in name], "no hard tasks were told apart: no row"


def test_estimates_are_written_as_one_file(tmp_path: Path) -> None:
    parts = [tables.estimates(results(THREE, base=base)) for base in ("ordinary", "habit")]
    written = pd.read_csv(tables.write(parts, tmp_path / "deep" / "a.csv"))
    assert list(written.columns) == ["task", "base", "arm", "measure", "mean", "low", "high", "n"]
    assert len(written) == sum(map(len, parts)) and not written.duplicated(["base", "arm", "measure"]).any()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        tables.write(parts, tmp_path / "file" / "a.csv")


def test_the_table_has_measures_by_arms() -> None:
    found = tables.table(results(THREE))
    assert list(found.columns) == ["base, not trained", "parallel", "SESA, paper's rule", "mixed"]
    assert found.loc["pass@1", "parallel"] == "0.210 [0.185, 0.235]"
    assert found.loc["pass@1", "base, not trained"] == "0.100 [0.100, 0.100]"
    assert found.loc["seeds"].tolist() == [3, 3, 3, 3]
    guided = tables.table(results(THREE), guided=True)
    assert guided.loc["pass@1", "mixed"].startswith("0.16") and "tokens" not in guided.index


def test_what_training_had_to_learn_from_stands_beside_what_came_out() -> None:
    found = results(THREE)
    tests = found.tests.assign(tokens_trained=500.0, zero_variance=[0.5, math.nan] * 12)
    shown = tables.table(dataclasses.replace(found, tests=tests))
    assert shown.loc["tokens trained", "mixed"] == "500 [500, 500]"
    assert shown.loc["groups of equal rewards", "mixed"] == "0.500 [0.500, 0.500]"
    assert "tokens trained" not in tables.table(dataclasses.replace(found, tests=tests), guided=True).index


def test_one_seed_has_no_interval() -> None:
    found = tables.table(results({arm: values[:1] for arm, values in THREE.items()}))
    assert found.loc["pass@1", "parallel"] == "0.200" and found.loc["seeds", "parallel"] == 1


def test_differences_are_paired_by_seed() -> None:
    found = tables.differences(results(THREE).direct)
    # mixed - parallel: 0.10, 0.11, 0.12: mean 0.11, s = 0.01
    assert found.loc["mixed", "pass@1"] == "0.110 [0.085, 0.135]"
    assert found.loc["mixed", "pairs"] == 3 and "parallel" not in found.index
    assert found.loc["mixed", "distinct correct, ratio"].startswith("1.52")  # 3.2 / 2.1
    against_base = tables.differences(results(THREE).direct, tables.BASE)
    assert against_base.loc["SESA, paper's rule", "pass@1"] == "0.0500 [0.0500, 0.0500]"
    fewer = tables.differences(results({**THREE, "mixed": [0.3, 0.32]}).direct)
    assert fewer.loc["mixed", "pairs"] == 2 and fewer.loc["SESA, paper's rule", "pairs"] == 3


def test_equal_tokens_are_what_every_run_reached() -> None:
    found = results(THREE)
    budget, read = tables.at_equal(found)
    assert budget == 400.0  # parallel: 4 steps of 100; mixed has drawn 800 by then
    at = read.set_index(["arm", "seed"])["accuracy"]
    assert at["parallel", 0] == pytest.approx(0.20)
    assert at["mixed", 0] == pytest.approx(0.20)  # half way from 0.1 at 0 tokens to 0.3 at 800
    assert at["base", 0] == pytest.approx(0.10)
    assert tables.differences(read).loc["mixed", "pass@1"] == "0.00 [0.00, 0.00]"


def test_equal_seconds_are_read_off_the_same_way() -> None:
    budget, read = tables.at_equal(results(THREE), "seconds_total")
    assert budget == 200.0  # half of the 400 tokens
    assert read.set_index(["arm", "seed"])["accuracy"]["mixed", 1] == pytest.approx(0.21)  # half way from 0.1 to 0.32


def test_gains_stand_beside_the_paper_s() -> None:
    found = tables.beside_paper(results(THREE))
    assert found.loc["mixed", "success over base"] == "0.220 [0.170, 0.270]"
    assert found.loc["mixed", "gain over parallel's gain"].startswith("2.00")  # 0.22 / 0.11
    assert found.loc["SESA in the paper"].tolist() == ["+0.25", "3.11"]


def test_of_reasoning_the_paper_tells_what_it_has_more_than_parallel() -> None:
    found = results(THREE)
    tests = found.tests.assign(pass_at_16=found.tests["accuracy"] * 1.5)
    maths = tables.beside_paper(dataclasses.replace(found, task="math", tests=tests))
    assert maths.index.name == "math, habit base"
    one, wide = "pass@1 over parallel's", "pass@16 over parallel's"
    assert list(maths.columns) == ["success over base", "gain over parallel's gain", one, wide]
    # mixed - parallel: 0.10, 0.11, 0.12, and half as much again: half width t 0.015 / sqrt 3 = 0.0373
    assert maths.loc["mixed", one] == "0.110 [0.085, 0.135]"
    assert maths.loc["mixed", wide] == "0.165 [0.128, 0.202]"
    assert maths.loc["parallel", [one, wide]].tolist() == ["", ""]
    assert maths.loc["SESA in the paper"].tolist() == ["not told", "not told", "about 0", "+0.09"]
    few = tables.beside_paper(dataclasses.replace(found, task="math"))  # fewer than 16 samples a task
    assert one in few and wide not in few
    sudoku = tables.beside_paper(dataclasses.replace(found, task="sudoku", tests=tests))
    assert list(sudoku.columns) == ["success over base", "gain over parallel's gain", one]
    assert sudoku.loc["SESA in the paper"].tolist() == ["not told", "not told", "+0.06"]
    agent = tables.beside_paper(dataclasses.replace(found, tests=tests))
    assert list(agent.columns) == ["success over base", "gain over parallel's gain"]


def test_no_gain_is_measured_by_one_that_may_be_nothing() -> None:
    found = results({**THREE, "parallel": [0.05, 0.10, 0.16]})  # gains -0.05, 0, 0.06
    assert tables.beside_paper(found).loc["mixed", "gain over parallel's gain"] == "parallel gained nothing sure"
    one = results({arm: values[:1] for arm, values in THREE.items()})
    assert tables.beside_paper(one).loc["mixed", "gain over parallel's gain"] == "one seed: no interval"
    lost = results({**THREE, "parallel": [0.05, 0.05, 0.05]})
    assert tables.beside_paper(lost).loc["mixed", "gain over parallel's gain"] == "parallel gained nothing sure"
    unstable = {"base": [0.0, 0.0, 0.3], "parallel": [0.1, 0.1, 0.1], "mixed": [0.2, 0.2, 0.2]}
    ratio = tables.differences(results(unstable).direct, tables.BASE).loc["mixed", "distinct correct, ratio"]
    assert ratio == "2.00 (no interval)"  # 0.2 over a mean of 0.1 that does not differ from 0


def chosen(**validation: tuple[float, float, float]) -> tables.Results:
    """Two seeds an arm whose validation measures at step 4 are (pass@1, pass@64, distinct correct); 0 on test tasks."""
    jobs = [job(arm.replace("_", "-"), seed) for arm in validation for seed in (1, 2)]
    names, nothing = ("accuracy", "pass_at_64", "coverage"), (0.0, 0.0, 0.0)
    rows = [
        {"arm": each.arm, "seed": each.seed, "step": step, **dict(zip(names, values, strict=True))}
        for each in jobs
        for step, values in ((0, nothing), (4, validation[each.arm.replace("-", "_")]))
    ]
    tests = [{"arm": each.arm, "seed": each.seed, "guided": False, **taken(0.0)} for each in jobs]
    return tables.Results("sokoban", "habit", jobs, [], pd.DataFrame(rows), pd.DataFrame(tests))


def test_the_best_arm_is_the_widest_whose_pass_at_1_keeps_up_on_validation_tasks() -> None:
    rivals = {"parallel": (0.30, 0.5, 0.8), "parallel_novelty": (0.32, 0.6, 1.0)}
    # 0.30 is 0.02 below the better of the two rivals: still enough; 0.29 is not, however wide.
    found = chosen(**rivals, mixed=(0.30, 0.8, 1.6), mixed_novelty=(0.29, 0.9, 2.0), sesa_paper=(0.40, 0.7, 1.2))
    assert verdicts.best(found) == "mixed"
    # pass@64 + distinct: 0.9 + 1.4 = 2.3 beats 0.7 + 1.5 = 2.2
    assert verdicts.best(chosen(**rivals, mixed=(0.4, 0.7, 1.5), sesa_paper=(0.31, 0.9, 1.4))) == "sesa-paper"
    # none keeps up: the highest pass@1, 0.29
    assert verdicts.best(chosen(**rivals, mixed=(0.29, 0.4, 0.7), sesa_paper=(0.2, 0.9, 2.0))) == "mixed"
    with pytest.raises(InputError, match="no arm with sketches"):
        verdicts.best(chosen(**rivals))


def test_the_best_arm_is_chosen_on_validation_tasks_and_on_seeds_that_all_arms_have() -> None:
    validation = {arm: [(0.1, 0.2)] * 3 for arm in THREE} | {"sesa-paper": [(0.1, 0.3)] * 3}
    assert verdicts.best(results(THREE)) == "mixed"
    assert verdicts.best(results(THREE, validation)) == "sesa-paper", "though mixed is better on test tasks"
    # mixed and sesa-paper have seeds 0 and 1; seed 2, the rival's best, has no say in what their pass@1 is held against.
    easy = {**THREE, "parallel": [0.2, 0.2, 0.9], "sesa-paper": [0.25, 0.25], "mixed": [0.3, 0.3]}
    assert verdicts.best(results(easy)) == "mixed"
    # Who has fewer seeds than others takes no part, however good.
    assert verdicts.best(results({**easy, "sesa-paper": [0.15, 0.15, 0.15]})) == "sesa-paper"
    apart = chosen(parallel=(0.3, 0.5, 0.8), mixed=(0.3, 0.5, 0.9))
    apart.evaluations.loc[apart.evaluations["arm"] == "mixed", "seed"] += 7
    with pytest.raises(InputError, match="mixed, parallel have no seed in common"):
        verdicts.best(apart)


def test_aims_are_told_arm_by_arm() -> None:
    found = verdicts.aims(results(THREE))
    assert list(found.index) == ["parallel"] and found.index.name == "mixed minus"
    assert found.loc["parallel", "so"] == "pass@1 higher; pass@64 higher; distinct correct higher"
    two = verdicts.aims(results({arm: values[:2] for arm, values in THREE.items()}))
    assert two.loc["parallel", "so"] == "no conclusion: fewer than 3 seeds"


def test_the_conclusion_says_what_the_intervals_say() -> None:
    said = verdicts.conclusion(results(THREE))
    assert said.startswith("**sokoban, habit base**, 3 seeds, test tasks, without sketches:")
    assert "- **parallel** against base, not trained: pass@1 higher (+0.110 [0.085, 0.135]); pass@64 higher" in said
    assert "- **mixed** against parallel: pass@1 higher" in said
    assert (
        "at a pass@1 no more than 0.03 lower (here: parallel, each at its searched learning rate), is shown at" in said
    )
    # 400 tokens are half of what mixed sampled: it has gone half way from 0.1 to 0.3, as far as parallel got
    assert said.endswith(
        "is shown at equal candidates, on test tasks; not shown at equal tokens (400), on validation tasks."
    )
    wide = {**THREE, "mixed": [0.1, 0.3, 0.8]}
    said = verdicts.conclusion(results(wide))
    # mixed - parallel: -0.1, 0.09, 0.58: mean 0.19, s = 0.351, half width 0.872
    assert "- **mixed** against parallel: pass@1 undecided (+0.19 [-0.68, 1.06])" in said
    assert "is not shown at equal candidates" in said
    worse = verdicts.conclusion(results({**THREE, "mixed": [0.15, 0.16, 0.17]}))
    assert "- **mixed** against parallel: pass@1 lower (-0.0500 [-0.0500, -0.0500])" in worse
    assert "chosen among the arms with sketches on validation tasks, by pass@64 plus distinct correct" in said
    assert "aim" not in verdicts.conclusion(results(THREE, base="mine"))


def test_no_worse_is_shown_by_an_interval_above_the_margin() -> None:
    def said(*mixed: float, parallel: float = 0.4) -> str:
        found = results({"base": [0.1] * 3, "parallel": [parallel] * 3, "mixed": list(mixed)}, base="ordinary")
        return verdicts.conclusion(found).partition(", on test tasks")[0]

    # pass@64 is twice pass@1, so its difference of -0.02 is above -0.03; of -0.04 it is not.
    # distinct: ten times, so 3.9 against 4.0: -0.1, above -10 % of 4.0 = -0.4.
    assert said(0.39, 0.39, 0.39).endswith("each at its searched learning rate), is shown at equal candidates")
    assert said(0.38, 0.38, 0.38).endswith("is not shown at equal candidates"), "pass@64 is 0.04 lower"
    # Not lower, and yet not shown to be no worse: -0.1, 0, 0.1 have a mean of 0 and an interval of +- 0.25.
    assert said(0.3, 0.4, 0.5).endswith("is not shown at equal candidates")
    # Of 0.05 x 10 = 0.5 distinct strategies, 10 % are 0.05: 0.44 is 0.06 lower, though pass@1 is only 0.006 lower.
    assert said(0.044, 0.044, 0.044, parallel=0.05).endswith("is not shown at equal candidates")
    assert said(0.046, 0.046, 0.046, parallel=0.05).endswith("is shown at equal candidates")


def test_on_the_ordinary_base_aims_speak_of_margins() -> None:
    def so(*mixed: float) -> str:
        found = results({"base": [0.1] * 3, "parallel": [0.4] * 3, "mixed": list(mixed)}, base="ordinary")
        return str(verdicts.aims(found).loc["parallel", "so"])

    assert so(0.38, 0.38, 0.38) == "pass@1 no worse; pass@64 lower; distinct correct no worse"
    assert so(0.3, 0.4, 0.5) == "pass@1 undecided; pass@64 undecided; distinct correct undecided"
    assert so(0.5, 0.5, 0.5) == "pass@1 higher; pass@64 higher; distinct correct higher"


def test_too_few_seeds_conclude_nothing() -> None:
    said = verdicts.conclusion(results({arm: values[:2] for arm, values in THREE.items()}))
    assert said == (
        "**sokoban, habit base**, 2 seeds, test tasks, without sketches: no conclusion is drawn from fewer than 3 seeds."
    )
    few = {"base": THREE["base"], "parallel": THREE["parallel"], "mixed": [0.3, 0.4]}
    mixed = verdicts.conclusion(results(few))
    assert "2 to 3 seeds" in mixed and "- **mixed** against parallel: no conclusion, only 2 seeds in common." in mixed
    assert "aim" not in mixed


def test_policies_that_never_succeed_have_tables_too() -> None:
    nothing = results({arm: [0.0] * 3 for arm in THREE})
    assert tables.differences(nothing.direct).loc["mixed", "distinct correct, ratio"] == "no value"
    assert tables.beside_paper(nothing).loc["mixed", "gain over parallel's gain"] == "parallel gained nothing sure"
    assert "pass@1 no worse (0.00 [0.00, 0.00])" in verdicts.conclusion(nothing)


def test_charts_show_trained_arms_under_their_labels() -> None:
    shown = tables.trained(results(THREE).evaluations)
    assert set(shown["arm"]) == {"parallel", "SESA, paper's rule", "mixed"}
    assert {"pass@1", "distinct correct", "tokens_total", "step", "seed"} <= set(shown.columns)


# --- texts, from runs in folders --------------------------------------------------------------------------------------

LAKE = environments.make("frozen_lake")
MANY = next(i for i in range(1, 64) if len(LAKE.solutions(LAKE.task(i)) or []) > 1)
WAYS = LAKE.solutions(LAKE.task(MANY)) or []


def row(step: int, group: int, index: int, completion: str, sketch: tuple[int, str] | None = None) -> dict[str, Any]:
    """Group 1 is of the task ``MANY``, which has several ways; group 0 of task 0."""
    task = LAKE.task(MANY * group)
    score = LAKE.score(task, completion)
    return {
        "step": step, "group": group, "index": index, "task": task.index, "prompt": task.prompt, "history": [],
        "sketch": sketch[1] if sketch else None, "sketches": [sketch[0]] if sketch else [], "completion": completion,
        "token_ids": [], "turns": [completion], "turn_tokens": [0], "turn_rewards": [], "episode_seed": None,
        "finish": "stop", "drawn_under": "sketch" if sketch else "task", "drawn_logprobs": [],
        "engine_logprobs": [], "trained_under": "task",
        "old_logprobs": [], "old_entropies": [],
        "weight": 1.0, "reward": score.reward, "credited": score.reward, "success": score.success,
        "strategy": score.strategy, "advantage": 0.0, "redraws": 0, "sampled_tokens": 0,
    }  # fmt: skip


def drafted(step: int, index: int, text: str, repeats: bool) -> dict[str, Any]:
    return {
        "step": step, "group": 0, "index": index, "task": 0, "text": text, "token_ids": [], "logprobs": [],
        "finish": "stop", "repeats": repeats, "redraws": 0, "sampled_tokens": 0, "reward": None, "advantage": None,
    }  # fmt: skip


def answered(strategy: str | None, probability: float, success: bool, task: int = 0) -> dict[str, Any]:
    return {"step": 4, "task": task, "strategy": strategy, "probability": probability, "success": success}


def write(
    chosen: Job, rollouts: list[dict[str, Any]], sketches: list[dict[str, Any]], answers: list[dict[str, Any]]
) -> runs.Run:
    last = chosen.config.run.steps
    with RunWriter.create(chosen.folder, chosen.config) as writer:
        writer.log("evaluation", last, {**taken(0.5), "tokens_total": 100})
        writer.log("test", last, {"guided": False, **taken(0.5), "tokens_total": 100})
        writer.add_rollouts(rollouts)
        writer.add_sketches(sketches)
        writer.add_evaluation(answers)
        writer.commit(last, lambda folder: (folder / "state").write_text("x"))
    return runs.load(chosen.folder)


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tables.Results:
    """Two arms at step 4, and a lonely earlier candidate; group 1 of step 4 has every kind of episode."""
    monkeypatch.setattr("os.fsync", lambda handle: None)
    right, wrong = WAYS, "left <b>"
    parallel = [
        row(3, 0, 0, LAKE.oracle(LAKE.task(0))), row(4, 0, 0, wrong), row(4, 1, 0, right[0]), row(4, 1, 1, right[0]),
        row(4, 1, 2, wrong),
    ]  # fmt: skip
    mixed = [
        row(4, 0, 0, wrong, (0, "up")), row(4, 1, 0, right[0], (0, "up")), row(4, 1, 1, right[-1], (1, "<i>down</i>")),
        row(4, 1, 2, wrong, (1, "<i>down</i>")), row(4, 1, 3, wrong),
    ]  # fmt: skip
    sketches = [
        drafted(4, 0, "up", False), drafted(4, 1, "down", False), drafted(4, 0, "up", False), drafted(4, 1, "up", True)
    ]  # fmt: skip
    answers = {
        "parallel": [answered("aa-ab", 0.75, True), answered(None, 0.25, False), answered("aa-ba", 1.0, False, task=1)],
        "mixed": [
            answered("aa-ab", 0.25, True), answered("aa-ba-bb", 0.5, True), answered("aa-ba", 0.25, False),
            answered("aa-ba", 1.0, True, task=1),
        ],
    }  # fmt: skip
    jobs = [job(arm, folder=tmp_path) for arm in ("parallel", "mixed")]
    for chosen, rows, drafts in zip(jobs, (parallel, mixed), ([], sketches), strict=True):
        write(chosen, rows, drafts, answers[chosen.arm])
    return tables.load(jobs)


def test_results_are_read_from_folders(stored: tables.Results) -> None:
    assert (stored.task, stored.base, stored.seeds) == ("frozen_lake", "habit", (1, 1))
    assert stored.direct["arm"].tolist() == ["parallel", "mixed"] and len(stored.guided) == 0
    assert stored.caption().startswith("frozen_lake, habit base; runs parallel-0, mixed-0; commit ")
    assert "seeds 0; n = 1" in stored.caption()


def test_breadth_counts_correct_strategies_of_stored_answers(stored: tables.Results) -> None:
    found = tables.breadth(stored)
    assert list(found.index) == ["parallel", "mixed"] and found["seeds"].tolist() == [1, 1]
    assert found["pass@1"].tolist() == ["0.500", "0.500"]
    # parallel: one correct of task 0, none of task 1: (1 + 0) / 2. mixed: 1/3 and 2/3 of what is correct of task 0,
    # exp(ln 3 - 2/3 ln 2) = 1.8899, and one of task 1: (1.8899 + 1) / 2
    assert found["effective number"].tolist() == ["0.500", "1.44"]


def test_strategies_of_the_task_with_most_correct_ones(stored: tables.Results) -> None:
    task, found = findings.strategies(stored, ["parallel", "mixed"])
    assert task == environments.make("frozen_lake", split="validation").task(
        0
    )  # two correct strategies, task 1 has one
    assert found.index.tolist() == ["aa-ab", "aa-ba-bb", "(unreadable)", "aa-ba"]
    assert found["correct"].tolist() == ["yes", "yes", "no", "no"]
    assert found["parallel"].tolist() == [0.75, 0.0, 0.25, 0.0] and found["mixed"].tolist() == [0.25, 0.5, 0.0, 0.25]
    assert findings.strategies(stored, ["parallel", "mixed"], top=1)[1].index.tolist() == ["aa-ab"]


def test_sketches_by_draft(stored: tables.Results) -> None:
    found = findings.sketches(stored).set_index("draft")
    assert set(found["arm"]) == {"mixed"} and set(found["seed"]) == {0}
    assert found["repeats"].to_dict() == {1: 0.0, 2: 0.5}
    # draft 1 is followed by a failure (of task 0) and a success; draft 2 by one of each
    assert found["success"].to_dict() == {1: 0.5, 2: 0.5}
    # four drafts of one group, one of which repeats
    distinct = findings.distinct_sketches(stored).to_dict("records")
    assert distinct == [{"arm": "mixed", "seed": 0, "first": 3.0, "sketches": 4.0, "last": 3.0}]
    common = findings.common_sketches(stored, "mixed")
    assert common["share of the guided solutions"].to_dict() == {"up": 0.5, "<i>down</i>": 0.5}


def test_replays_show_both_arms_on_one_task(stored: tables.Results) -> None:
    found = findings.replays(stored, ["parallel", "mixed"])
    assert [replay.label for replay in found] == [
        "parallel: solved, way 1", "parallel: failed", "mixed: solved, way 1", "mixed: solved, way 2", "mixed: failed",
    ]  # fmt: skip
    assert found[0].words == f"task {MANY}; answer: {WAYS[0]}"
    assert found[3].words == f"task {MANY}; sketch: <i>down</i>; answer: {WAYS[-1]}", "escaped where it is drawn"
    assert found[3].frames == LAKE.render(LAKE.task(MANY), WAYS[-1])


def test_ways_of_the_solver() -> None:
    task = LAKE.task(MANY)
    found = findings.ways(LAKE, task, most=2)
    assert [replay.label for replay in found] == ["way 1", "way 2"]
    assert found[1].words == f"task {MANY}; sketch: {LAKE.sketch(task, WAYS[1])}; answer: {WAYS[1]}"


def test_an_episode_of_several_turns_is_told_turn_by_turn() -> None:
    lake = environments.make("frozen_lake", turns=4, actions_per_turn=1)
    task = lake.task(0)
    first, *rest = lake.oracle(task).split()
    frames = findings._told(lake, task, [first, "nonsense"], seed=0)
    after = lake.step(lake.reset(task, 0), first)
    assert [frame.caption for frame in frames] == ["start", "turn 1: reward 0", "turn 2: reward 0"]
    assert frames[1].text == after.observation and rest
