"""The agents' matrices: who is compared with whom, from what, and on which seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sesa_lab import environments, plots
from sesa_lab.cli import main
from sesa_lab.errors import InputError
from sesa_lab.experiments import agent_tables, agents, live, path_exploration, report, stages
from sesa_lab.experiments.jobs import Job
from sesa_lab.experiments.matrix import Arm, jobs_for
from sesa_lab.runs import RunWriter


def jobs(arms: str = "all", seeds: tuple[int, ...] = (0,), **more: Any) -> list[Job]:
    return stages.agent_jobs(
        more.pop("task", "countdown"), more.pop("base", "habit"), arms, seeds, 7, Path("x"), more.pop("settings", None)
    )


def sections(job: Job) -> dict[str, dict[str, Any]]:
    return job.config.to_dict()


@pytest.mark.parametrize("task", agents.LIMITS)
@pytest.mark.parametrize("base", agents.BASES)
def test_arms_differ_in_how_groups_are_drawn_and_credited_and_in_nothing_else(task: str, base: str) -> None:
    found = {job.arm: job for job in jobs(task=task, base=base)}
    assert list(found) == [*agents.EVERY_SEED, *(name for name in agents.ARMS if name not in agents.EVERY_SEED)]
    shared = [
        (
            c["environment"], c["policy"], c["evaluation"], {k: v for k, v in c["run"].items() if k != "steps"},
            c["sampler"]["group_size"], c["sampler"]["temperature"], c["sampler"]["max_tokens"],
        )
        for c in map(sections, found.values())
    ]  # fmt: skip
    assert all(each == shared[0] for each in shared)
    assert {name: job.config.run.steps for name, job in found.items()} == {
        name: 0 if name == "base" else 7 for name in agents.ARMS
    }
    assert shared[0][1]["model"] == f"{task.replace('_', '-')}-{base}"
    assert all(job.folder.parent == Path("x") / f"{task}-{base}" for job in found.values())
    assert len({job.folder for job in found.values()}) == len(found)


def test_headline_and_all_agree_on_the_runs_they_share() -> None:
    headline = {job.folder for job in jobs("headline")}
    assert headline < {job.folder for job in jobs("all")} and len(headline) == len(agents.HEADLINE)
    assert headline == {job.folder for job in agents.jobs("countdown", "habit", agents.HEADLINE, [0], 7, Path("x"))}


def test_of_all_arms_the_others_have_the_first_three_seeds() -> None:
    seeds: dict[str, list[int]] = {}
    for job in jobs("all", (4, 3, 2, 1, 0)):
        seeds.setdefault(job.arm, []).append(job.seed)
        assert job.config.run.seed == job.config.environment.options["seed"] == job.seed
    assert {arm: own == [4, 3, 2, 1, 0] for arm, own in seeds.items()} == {
        arm: arm not in ("sesa-paper", "sesa-positive", "mixed-unsolved-iid") for arm in agents.ARMS
    }
    assert all(own == [4, 3, 2] for arm, own in seeds.items() if arm not in agents.EVERY_SEED)
    assert [job.seed for job in jobs("sesa-paper", (4, 3, 2, 1, 0)) if job.arm == "sesa-paper"] == [4, 3, 2, 1, 0]


def test_siblings_differ_in_the_one_thing_their_names_say() -> None:
    found = {job.arm: sections(job) for job in jobs()}
    drafted = {name: found[name]["sampler"].pop("drafting") for name in ("mixed-unsolved", "mixed-unsolved-iid")}
    assert drafted == {"mixed-unsolved": "sequential", "mixed-unsolved-iid": "iid"}
    assert found["mixed-unsolved-iid"] == found["mixed-unsolved"], "at the same learning rate"
    rewarded = {name: found[name]["update"]["repeats"] for name in ("mixed-unsolved", "mixed-unsolved-novelty")}
    assert rewarded == {"mixed-unsolved": "count", "mixed-unsolved-novelty": "zero"}
    for name in rewarded:
        assert (found[name]["update"]["transfer"], found[name]["sampler"]["on_policy_fraction"]) == ("unsolved", 0.75)


def test_each_arm_has_a_rate_of_its_own_or_its_siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = [name for name in agents.ARMS if name != "base"]
    searched = [name for name in trained if name not in agents.SIBLINGS]
    for known, bases in (
        (agents.LEARNING_RATES, agents.BASES),
        (agents.REASONING_RATES, agents.REASONING_BASES),
    ):
        assert set(known) == {(base, name) for base in bases for name in searched}
    assert set(agents.SIBLINGS.values()) <= set(searched)
    assert all(name in searched for name in trained if "sampler" not in agents.ARMS[name]), "every arm without sketches"
    rates = {pair: 1e-4 * number for number, pair in enumerate(agents.LEARNING_RATES, start=1)}
    others = {pair: 1e-5 * number for number, pair in enumerate(agents.REASONING_RATES, start=1)}
    monkeypatch.setattr(agents, "LEARNING_RATES", rates)
    monkeypatch.setattr(agents, "REASONING_RATES", others)
    for task in agents.LIMITS:
        for base in (*agents.BASES, "/models/mine", "habit-15"):
            own, bases = (others, agents.REASONING_BASES) if task in agents.REASONING else (rates, agents.BASES)
            for job in jobs(task=task, base=base):
                if job.arm == "base":
                    continue
                name = agents.SIBLINGS.get(job.arm, job.arm)
                rate = own[base if base in bases else "habit", name]
                assert job.config.update.learning_rate == rate == agents.rate_of(task, base, job.arm)


def test_agents_and_reasoning_are_apart() -> None:
    assert not set(agents.TASKS) & set(agents.REASONING)
    assert {**agents.TASKS, **agents.REASONING} == agents.LIMITS
    assert {*agents.LIMITS, "path_exploration"} == set(environments.names())


def test_every_arm_has_a_label_and_live_curves_know_it() -> None:
    assert set(agents.ARMS) <= set(agents.LABELS) and len(set(agents.LABELS.values())) == len(agents.LABELS)
    assert not set(agents.LABELS) & set(path_exploration.LABELS)
    assert live.LABELS == agents.LABELS | path_exploration.LABELS


def test_arms_by_name_come_with_the_base_and_parallel() -> None:
    assert stages.chosen_arms("mixed-unsolved, sesa-paper") == ["base", "parallel", "sesa-paper", "mixed-unsolved"]
    assert stages.chosen_arms("all") == list(agents.ARMS)
    with pytest.raises(InputError, match="unknown arm 'paralel' in 'paralel,base'; did you mean 'parallel'"):
        stages.chosen_arms("paralel,base")
    with pytest.raises(InputError, match="none draws sketches"):
        stages.chosen_arms("parallel-novelty")


def test_settings_win_over_every_arm_s_own() -> None:
    settings = {"update": {"learning_rate": 1e-5}, "evaluation": {"test_tasks": 9}}
    for job in jobs(settings=settings):
        assert job.config.update.learning_rate == 1e-5 and job.config.evaluation.test_tasks == 9
        assert job.config.update.repeats == agents.ARMS[job.arm].get("update", {}).get("repeats", "environment")
        assert job.config.run.steps == (0 if job.arm == "base" else 7), "the base stays untrained"
    with pytest.raises(InputError, match=r"run\.steps has a parameter of its own"):
        jobs(settings={"run": {"steps": 3}})
    with pytest.raises(InputError, match="unknown option"):
        jobs(settings={"update": {"rate": 1}})


def test_a_policy_of_one_s_own_takes_a_lab_policy_s_place() -> None:
    for job in jobs(base="/models/mine"):
        assert job.config.policy.model == "/models/mine" and job.folder.parent == Path("x/countdown-mine")


def test_a_policy_of_one_s_own_is_never_taken_for_a_lab_policy() -> None:
    assert {job.folder.parent for job in jobs(base="/models/habit")} == {Path("x/countdown-own-habit")}


def test_a_full_report_without_seeds_or_steps_shows_the_runs_of_the_experiments() -> None:
    seeds, steps = report.OWN["agents"]
    shown = {job.folder for job in report._jobs("agents", Path("runs"), seeds, steps, report.FULL["agents"])}
    made: set[Path] = set()
    for task in agents.TASKS:
        stage = stages.STAGES[f"agents-{task}"]
        made |= {job.folder for job in stage.jobs(Path("runs"), stage.seeds, stage.steps)}
    assert shown == made and len(shown) == 6 * (6 * 5 + 3 * 3)  # six arms on five seeds, three on three
    books: dict[str, dict[str, Any]] = {book: {} for book in report.REPORTS["agents"]}
    few = {job.folder for job in report._jobs("agents", Path("runs"), seeds[:3], steps, books)}
    assert few < made, "the notebooks as they are show some of the same"


def test_an_arm_keeps_its_colour_whatever_else_a_chart_shows() -> None:
    def looks(*arms: str) -> dict[str, tuple[str, str]]:
        frame = pd.DataFrame([{"arm": arm, "seed": 1, "step": x, "y": 0.5} for arm in arms for x in (0, 1)])
        figure = plots.curves(frame.assign(arm=agents.labelled(frame["arm"])), "y")
        return {trace.name: (trace.line.color, trace.line.dash) for trace in figure.data if trace.name}

    every, few = looks(*agents.ARMS, "mine"), looks("mixed-unsolved", "parallel")
    assert len(set(every.values())) == len(agents.ARMS) + 1, "each its own"
    assert list(few) == ["mixed, where unsolved", "parallel"] and all(every[name] == few[name] for name in few)


@pytest.mark.parametrize("group", stages.GROUPS)
def test_a_search_is_on_seeds_and_tasks_that_nothing_reports(group: str) -> None:
    tasks = {"agents": agents.TASKS, "reasoning": agents.REASONING}[group]
    bases = {"agents": agents.BASES, "reasoning": agents.REASONING_BASES}[group]
    found = stages.STAGES[f"{group}-search"].jobs(Path("x"), [0, 1], 3, arms="sesa-paper")
    assert {job.seed for job in found} == set(agents.SEARCH_SEEDS) and not {job.seed for job in found} & set(range(50))
    assert all(job.config.evaluation.test_tasks == 0 for job in found)
    rates = {job.config.update.learning_rate for job in found if job.arm.startswith("sesa-paper@")}
    assert rates == set(agents.SEARCH_GRID)
    assert {job.arm.partition("@")[0] for job in found} == {"parallel", "sesa-paper"}
    assert len(found) == len(tasks) * len(bases) * 2 * len(agents.SEARCH_GRID) * len(agents.SEARCH_SEEDS)
    assert {job.folder.parent for job in found} == {
        Path("x/agents") / f"search-{task}-{base}" for task in tasks for base in bases
    }


def test_siblings_are_not_searched() -> None:
    names = [job.arm.partition("@")[0] for job in agents.search("countdown", "habit", list(agents.ARMS), 3, Path("x"))]
    assert set(names) == {name for _, name in agents.LEARNING_RATES}
    alone = agents.search("countdown", "habit", ["mixed-unsolved", "mixed-unsolved-iid"], 3, Path("x"))
    assert {job.arm.partition("@")[0] for job in alone} == {"mixed-unsolved"}, "one search for both"
    assert len(alone) == len(agents.SEARCH_GRID) * len(agents.SEARCH_SEEDS)


def test_seeds_of_the_agents_are_those_no_policy_was_made_with() -> None:
    seeds = {name: stage.seeds for name, stage in stages.STAGES.items() if name.startswith(("agents-", "reasoning-"))}
    assert all(0 not in own for own in seeds.values())
    assert seeds["agents-countdown"] == seeds["reasoning-math"] == (1, 2, 3, 4, 5) and seeds["agents-options"] == (
        1,
        2,
        3,
    )
    assert stages.STAGES["headline"].seeds == (0, 1, 2)


@pytest.mark.parametrize("task", agents.REASONING)
def test_a_stage_of_reasoning_covers_the_base_that_was_searched(task: str) -> None:
    found = stages.STAGES[f"reasoning-{task}"].jobs(Path("runs"), [1], 60, arms="headline")
    assert {job.folder.parent for job in found} == {
        Path("runs/agents") / f"{task}-{base}" for base in agents.REASONING_BASES
    }
    assert {job.arm for job in found} == set(agents.HEADLINE) and len(found) == len(agents.HEADLINE)
    for job in found:
        assert (
            job.config.environment.name == task
            and job.config.sampler.max_tokens == agents.REASONING[task]["max_tokens"]
        )
        if job.config.sampler.name == "sesa":
            assert job.config.sampler.sketch_tokens == agents.REASONING[task]["sketch_tokens"]


@pytest.mark.parametrize("task", agents.TASKS)
def test_a_stage_covers_both_bases_and_the_notebooks_find_its_runs(task: str) -> None:
    found = stages.STAGES[f"agents-{task}"].jobs(Path("runs"), [0], 100, arms="headline")
    notebook = report._jobs("agents", Path("runs"), [0], 100, {book: {} for book in report.REPORTS["agents"]})
    folders = {job.folder for job in found}
    assert {job.folder.parent.name for job in found} == {f"{task}-{base}" for base in agents.BASES}
    own = {job.folder for job in notebook if job.config.environment.name == task}
    assert own < folders and {folder.parent for folder in own} == {Path("runs") / "agents" / f"{task}-habit"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("experiment agents-countdown --runs OUT --arms mixd", "unknown arm 'mixd'"),
        ("experiment headline --runs OUT --arms parallel", "takes no --arms; those that do: agents-countdown,"),
        ("experiment headline --runs OUT --out OUT/a.csv", "takes no --out; those that do: agents-countdown,"),
        ("experiment agents-sokoban --runs OUT --seeds 1,1", "none twice"),
        ("report agents --runs OUT --out OUT/a.html --seeds 1,1", "none twice"),
        ("report agent --runs OUT", "invalid choice: 'agent'"),
    ],
)
def test_bad_lines_run_nothing(
    line: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def begun(jobs: object, *_: object, **__: object) -> None:
        raise AssertionError("runs were begun")  # a matrix takes an hour: fail at once

    monkeypatch.setattr(stages, "execute", begun)
    monkeypatch.setattr(report, "execute", begun)
    words = [word.replace("OUT", str(tmp_path / "out")) for word in line.split()]
    try:
        code = main(words)
    except SystemExit as left:
        code = int(left.code or 0)
    assert code == 2 and said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def finished(job: Job, accuracy: float) -> None:
    """The folder of a run whose measures are made up."""
    taken = {"accuracy": accuracy, "pass_at_64": min(1.0, 2 * accuracy), "coverage": 3 * accuracy, "entropy": 1.0}
    spent = {"tokens_total": 100 * job.config.run.steps, "seconds_total": 2.0 * job.config.run.steps, "valid_mass": 1.0}
    with RunWriter.create(job.folder, job.config) as writer:
        for step in range(1, job.config.run.steps + 1):
            writer.log("step", step, {"tokens_trained": 10 * step, "zero_variance": 0.25})
        for step in sorted({0, job.config.run.steps}):
            writer.log("evaluation", step, {**taken, **spent, "tokens_total": 100 * step, "seconds_total": 2.0 * step})
        for guided in (False, True):
            writer.log("test", job.config.run.steps, {"guided": guided, **taken, **spent})
        writer.commit(job.config.run.steps, lambda folder: (folder / "state").write_text("x"))


def test_a_stage_prints_what_its_runs_hold_and_writes_the_estimates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", lambda handle: None)
    for job in stages.STAGES["agents-sokoban"].jobs(tmp_path, [0, 1, 2], 4, arms="sesa-paper"):
        finished(job, 0.1 if job.arm == "base" else 0.2 + 0.01 * job.seed + 0.1 * (job.arm == "sesa-paper"))
    out = tmp_path / "results" / "agents-sokoban.csv"
    line = f"experiment agents-sokoban --runs {tmp_path} --seeds 0-2 --steps 4 --arms sesa-paper --out {out}"
    assert main(line.split()) == 0
    printed = capsys.readouterr().out
    for words in (
        "sokoban, ordinary base", "sokoban, habit base", "minus parallel", "SESA, paper's rule",
        "at 400 sampled tokens:", "at 8 seconds (of a shared machine):",
    ):  # fmt: skip
        assert words in printed
    written = pd.read_csv(out)
    assert list(written.columns) == ["task", "base", "arm", "measure", "mean", "low", "high", "n"]
    keys = ["task", "base", "arm", "measure"]
    assert not written.duplicated(keys).any()
    counts = written.set_index(keys)["n"]
    assert counts.pop(("sokoban", "habit", "base", "zero_variance")) == 0, "no step, no share"
    assert counts.pop(("sokoban", "ordinary", "base", "zero_variance")) == 0 and set(counts) == {3}
    row = written.set_index(keys).loc[("sokoban", "habit", "parallel", "accuracy")]
    # 0.20, 0.21, 0.22: mean 0.21, s 0.01, t(2) = 4.3027: half width 4.3027 * 0.01 / sqrt(3) = 0.0248
    assert row[["mean", "low", "high"]].tolist() == pytest.approx([0.21, 0.1852, 0.2348], abs=1e-4)
    measures = written.set_index(keys)["mean"]
    assert ("sokoban", "habit", "parallel", "accuracy_with_sketches") in measures.index
    assert measures["sokoban", "habit", "parallel", "tokens_trained"] == 10 + 20 + 30 + 40
    assert measures["sokoban", "ordinary", "sesa-paper", "zero_variance"] == 0.25
    assert measures["sokoban", "habit", "base", "tokens_trained"] == 0
    single = pd.read_csv(tmp_path / "results" / "agents-sokoban.runs.csv")
    assert list(single.columns[:6]) == ["task", "base", "arm", "seed", "guided", "accuracy"]
    assert len(single) == 2 * 3 * 3 * 2  # policies, arms, seeds, ways of asking
    own = single[(single["base"] == "habit") & (single["arm"] == "parallel") & ~single["guided"]]
    assert own["accuracy"].tolist() == pytest.approx([0.20, 0.21, 0.22])


def test_a_run_without_test_tasks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda handle: None)
    job = jobs_for([Arm("parallel")], [0], {"run": {"steps": 0}}, tmp_path / "path_exploration-x")[0]
    with RunWriter.create(job.folder, job.config) as writer:
        writer.log("evaluation", 0, {"accuracy": 0.5, "tokens_total": 0})
        writer.commit(0, lambda folder: (folder / "state").write_text("x"))
    with pytest.raises(InputError, match=r"expected evaluation\.test_tasks of 1 or more"):
        agent_tables.load([job])
