"""Reports: execute the notebooks on run folders (training what is missing) and render one offline HTML file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sesa_lab.experiments import stages, tables
from sesa_lab.experiments.jobs import finished
from sesa_lab.experiments.matrix import read
from sesa_lab.reports.render import render
from sesa_lab.reports.run_notebooks import execute

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
REPORTS = {"path_exploration": ("01_path_exploration.ipynb", "02_reviving_a_dead_policy.ipynb")}
TITLES = {"path_exploration": "Path Exploration: does drawing in sequence keep a policy exploring?"}


def make(name: str, folder: Path, seeds: Sequence[int], out: Path, steps: int, full: bool = False) -> Path:
    """Execute the notebooks of a report and render them to ``out``; ``full``: the factorial and the axis too.

    Raises:
        InputError: bad parameters, before anything runs.
        NotebookError: a cell failed; the partial notebook is kept beside the report.
    """
    for job in stages.headline(folder, seeds, steps) + stages.revived(folder, seeds, steps):
        finished(job)  # bad seeds, settings or run folders are told before a notebook begins
    folder.mkdir(parents=True, exist_ok=True)
    parameters = {"seeds": list(seeds), "steps": steps, "runs": os.path.relpath(folder, NOTEBOOKS)}
    executed = out.parent / "executed"
    more = {"01_path_exploration.ipynb": {"matrix": "factorial", "axis": True}} if full else {}
    done = [execute(NOTEBOOKS / book, executed / book, parameters | more.get(book, {})) for book in REPORTS[name]]
    return render(done, out, TITLES[name])


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
