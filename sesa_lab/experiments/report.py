"""Reports: execute the notebooks on run folders (training what is missing) and render one offline HTML file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sesa_lab.experiments import agents, own_data, stages, tables
from sesa_lab.experiments.jobs import Job, finished
from sesa_lab.experiments.matrix import read
from sesa_lab.reports.render import render
from sesa_lab.reports.run_notebooks import defaults, execute

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
AGENTS = {
    "countdown": "03_countdown.ipynb",
    "frozen_lake": "04_frozen_lake.ipynb",
    "sokoban": "05_sokoban.ipynb",
}
REASONING = {"sudoku": "06_sudoku.ipynb", "math": "07_math.ipynb"}
GROUPS = {"agents": AGENTS, "reasoning": REASONING}
"""Reports alike: name -> task -> its notebook. The runs of both lie in one folder, ``agents``."""
REPORTS = {
    "path_exploration": ("01_path_exploration.ipynb", "02_reviving_a_dead_policy.ipynb"),
    **{name: tuple(books.values()) for name, books in GROUPS.items()},
}
TITLES = {
    "path_exploration": "Path Exploration: does drawing in sequence keep a policy exploring?",
    "agents": "Countdown, FrozenLake and Sokoban: do sketches drawn in sequence keep a policy exploring?",
    "reasoning": "Sudoku and mathematics: do sketches drawn in sequence keep a policy's answers broad?",
}
OWN: dict[str, tuple[tuple[int, ...], int]] = {
    "path_exploration": ((0, 1, 2), 100),
    **dict.fromkeys(GROUPS, (agents.SEEDS, agents.BASE["run"]["steps"])),
}
"""Seeds and steps of a report where none are given: its runs are then those of the experiments."""
FULL: dict[str, dict[str, dict[str, Any]]] = {
    "path_exploration": {"01_path_exploration.ipynb": {"matrix": "factorial", "axis": True}},
    **{
        name: {book: {"bases": list(agents.bases_of(task)), "arms": "all"} for task, book in books.items()}
        for name, books in GROUPS.items()
    },
}
"""Parameters of the notebooks in a full report."""


def make(
    name: str,
    folder: Path,
    seeds: Sequence[int] | None,
    out: Path,
    steps: int | None,
    full: bool = False,
    more: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Execute the notebooks of a report and render them to ``out``.

    Args:
        name: a key of ``REPORTS``.
        folder: where run folders are.
        seeds: of every arm; None: those of ``OWN``.
        out: the HTML file.
        steps: of training; None: those of ``OWN``.
        full: path_exploration: the factorial and the axis too; agents: both base policies and all arms; reasoning: all arms.
        more: further parameters by notebook; they win over those of ``full``.

    Raises:
        InputError: bad parameters, before anything runs.
        NotebookError: a cell failed; the partial notebook is kept beside the report.
    """
    seeds, steps = OWN[name][0] if seeds is None else seeds, OWN[name][1] if steps is None else steps
    given = {
        book: {**(FULL[name].get(book, {}) if full else {}), **(more or {}).get(book, {})} for book in REPORTS[name]
    }
    for job in _jobs(name, folder, seeds, steps, given):
        finished(job)  # bad seeds, settings or run folders are told before a notebook begins
    folder = folder / "agents" if name in GROUPS else folder
    folder.mkdir(parents=True, exist_ok=True)
    shared = {"seeds": list(seeds), "steps": steps, "runs": os.path.relpath(folder, NOTEBOOKS)}
    executed = out.parent / "executed"
    done = [execute(NOTEBOOKS / book, executed / book, {**shared, **given[book]}) for book in REPORTS[name]]
    return render(done, out, TITLES[name])


def _jobs(
    name: str, folder: Path, seeds: Sequence[int], steps: int, given: Mapping[str, Mapping[str, Any]]
) -> list[Job]:
    """The runs that a report's notebooks are about to ask for."""
    if name == "path_exploration":
        return stages.headline(folder, seeds, steps) + stages.revived(folder, seeds, steps)
    jobs = []
    for task, book in GROUPS[name].items():
        known = {**defaults(NOTEBOOKS / book), **given[book]}
        own = {key: known[key] for key in own_data.PARAMETERS if key in known}
        chosen = own_data.chosen(task, known["bases"], known["settings"], **own)
        for base in chosen.bases:
            jobs += stages.agent_jobs(task, base, known["arms"], seeds, steps, folder / "agents", chosen.settings)
    return jobs


def demo(folder: Path, out: Path) -> None:
    """What ``make demo`` does: train three seeds, write the report, print one table."""
    seeds, steps = [0, 1, 2], 100
    print("training (runs that exist are kept), then two notebooks; a report of curves, trees and intervals comes out")
    stages.execute_all(folder, seeds, steps)
    path = make("path_exploration", folder, seeds, out, steps)
    evaluations, _ = read(stages.headline(folder, seeds, steps))
    revived, _ = read(stages.revived(folder, seeds, steps))
    print(tables.table(evaluations, steps).to_string())
    print("\nrevival of the collapsed parallel policy, from the identical checkpoint:")
    print(tables.table(revived, steps).to_string())
    print(f"\nmean [95 % t interval] over {len(seeds)} seeds; figures: {path} ({path.stat().st_size / 2**20:.1f} MB)")
