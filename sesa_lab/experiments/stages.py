"""The matrices behind the reports, by name: ``sesa-lab experiment NAME`` runs what is missing and prints the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from sesa_lab.errors import InputError, suggest
from sesa_lab.experiments import agent_search, agent_studies, agent_tables, agent_verdicts, agents, collapse_lab
from sesa_lab.experiments import agent_study_tables as shown
from sesa_lab.experiments import path_exploration as arms
from sesa_lab.experiments.jobs import Job, execute
from sesa_lab.experiments.matrix import jobs_for, read
from sesa_lab.experiments.tables import picked, summary


@dataclass(frozen=True)
class Stage:
    """A matrix of runs.

    Attributes:
        first: (folder, seeds, steps) -> the jobs that must run first, or none.
        jobs: likewise those it reports; an agents' stage takes ``arms`` as well.
        show: (jobs, steps) -> prints what came out and returns it as a table.
        by_arm: whether ``jobs`` takes ``arms``.
        estimates: whether the table, of estimates (``agent_tables.estimates_of``) or of runs, can be written to a file.
        figure: jobs -> a plotly figure that is written beside that file.
        rows: jobs -> one row a run, written beside it as well, so that runs that are gone can still be counted.
        seeds, steps: where none are given.
    """

    first: Callable[[Path, Sequence[int], int], list[Job]]
    jobs: Callable[..., list[Job]]
    show: Callable[[list[Job], int], pd.DataFrame]
    by_arm: bool = False
    estimates: bool = False
    figure: Callable[[list[Job]], Any] | None = None
    rows: Callable[[Sequence[Job]], pd.DataFrame] | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 100


def _base(steps: int, **options: Any) -> dict[str, dict[str, Any]]:
    return {**arms.BASE, "run": {**arms.BASE["run"], "steps": steps}, "environment": {"options": options}}


def _search(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    return jobs_for(arms.search(), arms.SEARCH_SEEDS, _base(steps), folder / "search")


def _factorial(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    return jobs_for(arms.factorial(), seeds, _base(steps), folder / "path")


def sharpness(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    """The headline arms on base policies of ever more peaked priors."""
    return [
        job
        for exponent in arms.EXPONENTS
        for job in jobs_for(
            arms.headline(), seeds, _base(steps, prior_exponent=exponent), folder / f"zipf-{exponent:g}"
        )
    ]


def rival(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    """The arms we beat, at every learning rate of the grid, on the seeds that are reported: their best chance.

    Novelty-rewarded parallel sampling on every prior, and the paper's rule on the default one.
    """
    paper = jobs_for(arms.search(["sequential-count-none"]), seeds, _base(steps), folder / "rival-1")
    return paper + [
        job
        for exponent in (1.0, *arms.EXPONENTS)
        for job in jobs_for(
            arms.search(["parallel-zero-none"]),
            seeds,
            _base(steps, prior_exponent=exponent),
            folder / f"rival-{exponent:g}",
        )
    ]


def headline(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    """The arms of the demo; their runs are shared with the factorial."""
    return jobs_for(arms.headline(), seeds, _base(steps), folder / "path")


def collapsed(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    """The plain parallel runs, whose last policies are revived."""
    return jobs_for(arms.named(arms.PLAIN), seeds, _base(steps), folder / "path")


def revived(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    """Every headline arm, from the identical last checkpoint of ``collapsed``."""
    return arms.revival(collapsed(folder, seeds, steps), steps, folder / "revival")


def execute_all(folder: Path, seeds: Sequence[int], steps: int, workers: int | None = None) -> None:
    """All runs of the two notebooks, what is missing of them."""
    execute(headline(folder, seeds, steps), workers, "training, 1 of 2")
    execute(revived(folder, seeds, steps), workers, "reviving, 2 of 2")


def notebook_jobs(matrix: str, folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    """The jobs of notebook 01's ``matrix``.

    Raises:
        InputError: neither ``headline`` nor ``factorial``.
    """
    if matrix not in ("headline", "factorial"):
        raise InputError(f"matrix = {matrix!r}: expected 'headline' (five arms) or 'factorial' (all arms)")
    return STAGES[matrix].jobs(folder, seeds, steps)


def _none(folder: Path, seeds: Sequence[int], steps: int) -> list[Job]:
    return []


# --- the agents -----------------------------------------------------------------------------------------------------

OTHERS_SEEDS = 3
"""With ``arms`` = "all", arms that are not among ``agents.EVERY_SEED`` run on so many of the seeds only."""


def chosen_arms(text: str) -> list[str]:
    """Names of arms: "headline", "all", or names parted by commas; base and parallel are always among them.

    Raises:
        InputError: an unknown name, or no arm with sketches.
    """
    named = {"headline": agents.HEADLINE, "all": tuple(agents.ARMS)}
    wanted = {"base", "parallel", *named.get(text, [name.strip() for name in text.split(",")])}
    for name in sorted(wanted):
        if name not in agents.ARMS:
            raise InputError(f"unknown arm {name!r} in {text!r}; {suggest(name, [*named, *agents.ARMS])}")
    if not any(agents.ARMS[name].get("sampler", {}).get("name") == "sesa" for name in wanted):
        raise InputError(f"arms = {text!r}: none draws sketches, expected at least one such as sesa-paper: add it")
    return [name for name in agents.ARMS if name in wanted]


def agent_jobs(
    task: str,
    base: str,
    arms: str,
    seeds: Sequence[int],
    steps: int,
    folder: Path,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Job]:
    """One task from one base policy: a job an arm and seed, in ``folder / task-base``.

    Args:
        task: an environment of ``agents.LIMITS``.
        base: ``ordinary`` or ``habit``, the task's lab policies; or a policy of your own, as ``--policy`` takes it.
        arms: as ``chosen_arms`` takes them. With "all", those not of ``agents.EVERY_SEED`` have the first three seeds only.
        seeds: each fixes a run and its tasks.
        steps: of training; the arm ``base`` has none.
        folder: where the runs of all tasks are.
        settings: changes to the config of every arm, by section; they win over the arm's own.

    Raises:
        InputError: unknown arms, bad seeds or settings.
    """
    if "steps" in (settings or {}).get("run", {}):
        raise InputError("settings: run.steps has a parameter of its own; leave it out and give steps")
    names, shared = chosen_arms(arms), agents.base_of(task, base, steps)
    policy = base
    if base not in agents.BASES:
        shared["policy"], policy = {"model": base}, Path(base).name
        policy = f"own-{policy}" if policy in agents.BASES else policy  # never among the runs of a lab policy
    fewer = [name for name in names if arms == "all" and name not in agents.EVERY_SEED]
    parts = (([name for name in names if name not in fewer], seeds), (fewer, seeds[:OTHERS_SEEDS]))
    return [
        job
        for part, own in parts
        for job in jobs_for(
            [agents.variant(agents.arm(task, base, name), name, settings or {}) for name in part],
            own,
            shared,
            folder / f"{task}-{policy}",
        )
    ]


def agent_policies(task: str, folder: Path, seeds: Sequence[int], steps: int, arms: str = "all") -> list[Job]:
    """One task from its lab policies."""
    bases = agents.bases_of(task)
    return [job for base in bases for job in agent_jobs(task, base, arms, seeds, steps, folder / "agents")]


def _agent_search(group: str, folder: Path, seeds: Sequence[int], steps: int, arms: str = "all") -> list[Job]:
    names, tasks = chosen_arms(arms), agents.REASONING if group == "reasoning" else agents.TASKS
    return [
        job
        for task in tasks
        for base in agents.bases_of(task)
        for job in agents.search(task, base, names, steps, folder / "agents")
    ]


# --- what is shown --------------------------------------------------------------------------------------------------


def _show(jobs: list[Job], steps: int) -> pd.DataFrame:
    """Mean and 95 % t interval over seeds at the last step, arms of each folder."""
    last = _last(jobs, steps)
    found = pd.concat({group: summary(part) for group, part in last.groupby("group", sort=False)})
    print(found.to_string())
    return found


def _show_search(jobs: list[Job], steps: int) -> pd.DataFrame:
    """The same, and the learning rate picked for each family of arms, folder by folder."""
    found, last = _show(jobs, steps), _last(jobs, steps)
    for group, part in last.groupby("group", sort=False):
        print(f"\npicked, {group}:", picked(part).round(3).to_string(), sep="\n")
    return found


def _last(jobs: list[Job], steps: int) -> pd.DataFrame:
    evaluations, _ = read(jobs)
    return evaluations[evaluations["step"] == steps]


def _show_agent_search(jobs: list[Job], steps: int) -> pd.DataFrame:
    """Every rate of every arm on either base, and the rates that are picked, ready to be pasted; returns one row a run."""
    last = _last(jobs, steps)
    print(agent_search.table(last).to_string())
    searched = [base for base in agents.BASES if base in set(agent_search.cells(last)["base"])]
    print(f"\n* picked, in the order of {' and '.join(searched)}:\n{agent_search.pasted(last)}")
    kept = ["task", "base", "arm", "rate", "seed", *(name for name in agent_tables.MEASURES if name in last)]
    return agent_search.cells(last)[kept].reset_index(drop=True)


def _show_agents(jobs: list[Job], steps: int) -> pd.DataFrame:
    """What each arm reached on test tasks and what it differs from parallel by, base by base; returns all estimates."""
    parts = []
    for results in shown.by_policy(jobs):
        direct = agent_tables.differences(results.direct)
        for found in (agent_tables.table(results), direct, agent_tables.table(results, guided=True)):
            print(found.to_string(), end="\n\n")
        for spent, unit in (("tokens_total", "sampled tokens"), ("seconds_total", "seconds (of a shared machine)")):
            budget, read_off = agent_tables.at_equal(results, spent)
            print(f"validation tasks, at {budget:,.0f} {unit}:")
            print(agent_tables.differences(read_off).to_string(), end="\n\n")
        print(agent_verdicts.conclusion(results), end="\n\n")
        parts.append(agent_tables.estimates(results))
    return pd.concat(parts, ignore_index=True)


def _show_detector(jobs: list[Job], steps: int) -> pd.DataFrame:
    """Detection, delays and false alarms, one row a task; returns one row a run."""
    rows = collapse_lab.judged(jobs)
    print(collapse_lab.detection(rows).to_string())
    return rows


def _show_switching(jobs: list[Job], steps: int) -> pd.DataFrame:
    """What switching at the alarm brought; returns one row a run."""
    rows = collapse_lab.ends(jobs)
    print(collapse_lab.switched(rows).to_string())
    print(collapse_lab.conclusion(rows))
    return rows


GROUPS = {"agents": agents.TASKS, "reasoning": agents.REASONING}
"""Of experiments alike: name -> their tasks."""
_STEPS = agents.BASE["run"]["steps"]
_study = partial(Stage, estimates=True, seeds=agents.SEEDS, steps=_STEPS)
_small = partial(Stage, estimates=True, seeds=agent_studies.SEEDS, steps=_STEPS)

STAGES = {
    "search": Stage(_none, _search, _show_search),
    "factorial": Stage(_none, _factorial, _show),
    "sharpness": Stage(_none, sharpness, _show),
    "headline": Stage(_none, headline, _show),
    "rival": Stage(_none, rival, _show),
    "revival": Stage(collapsed, revived, _show),
    **{
        f"{group}-{task}": _study(
            _none, partial(agent_policies, task), _show_agents, by_arm=True, figure=shown.draw_ends, rows=shown.rows
        )
        for group, tasks in GROUPS.items()
        for task in tasks
    },
    **{
        f"{group}-search": _study(
            _none, partial(_agent_search, group), _show_agent_search, by_arm=True, figure=agent_search.draw
        )
        for group in GROUPS
    },
    "collapse-detector": Stage(
        _none, collapse_lab.detector, _show_detector, estimates=True, seeds=collapse_lab.SEEDS, steps=collapse_lab.STEPS
    ),
    "collapse-switching": Stage(
        _none, collapse_lab.switching, _show_switching, estimates=True, seeds=collapse_lab.SEEDS[: collapse_lab.FEW]
    ),
    "agents-rivals": _small(_none, agent_studies.rivals, shown.show_rivals, figure=shown.draw_ends, rows=shown.rows),
    "agents-revival": _small(agent_studies.collapsed, agent_studies.revived, shown.show_revival),
    "agents-drafting": _small(_none, agent_studies.drafting, shown.show_drafting),
    "agents-habit": _small(_none, agent_studies.habit, shown.show_habit, figure=shown.draw_habit, rows=shown.rows),
    "agents-options": _small(_none, agent_studies.options, shown.show_options),
}


def run(
    name: str,
    folder: Path,
    seeds: Sequence[int] | None,
    steps: int | None,
    workers: int | None = None,
    arms: str = "",
    out: Path | None = None,
) -> pd.DataFrame:
    """Run what is missing of a stage, print and return its table: means and 95 % t intervals over seeds.

    Args:
        name: a key of ``STAGES``.
        folder: where run folders are.
        seeds: of every arm; None: the stage's own. Searches have theirs whatever is given.
        steps: of training; None: the stage's own.
        workers: processes side by side; None: one a core.
        arms: a stage ``by_arm``: as ``chosen_arms`` takes them; empty: all.
        out: a stage of ``estimates``: also write them to this CSV file, and beside it, where it has them, its rows (as
            NAME.runs.csv) and its figure (as HTML).

    Raises:
        InputError: unknown stage or arms, bad seeds, options that do not belong to the stage, or a run that failed.
    """
    if name not in STAGES:
        raise InputError(f"unknown stage {name!r}; known: {', '.join(STAGES)}")
    stage = STAGES[name]
    for option, given, takes in (("--arms", arms, "by_arm"), ("--out", out, "estimates")):
        if given and not getattr(stage, takes):
            known = ", ".join(other for other, its in STAGES.items() if getattr(its, takes))
            raise InputError(f"stage {name} takes no {option}; those that do: {known}")
    seeds = stage.seeds if seeds is None else seeds
    steps = stage.steps if steps is None else steps
    jobs = stage.jobs(folder, seeds, steps, **({"arms": arms} if arms else {}))
    execute(stage.first(folder, seeds, steps), workers, f"{name}, first part")
    execute(jobs, workers, name)
    found = stage.show(jobs, steps)
    if out is not None:
        agent_tables.write([found], out)
        if stage.rows is not None:
            agent_tables.write([stage.rows(jobs)], out.with_suffix(".runs.csv"))
        if stage.figure is not None:
            stage.figure(jobs).write_html(out.with_suffix(".html"))
    return found
