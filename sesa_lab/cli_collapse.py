"""The commands ``collapse``, which looks for collapse in runs, and ``revive``, which trains on from a checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from sesa_lab.cli_settings import add_settings, switch_of, write_file
from sesa_lab.config import Config, flat_fields, numbers, sections
from sesa_lab.errors import InputError
from sesa_lab.presets import PRESETS

COLLAPSE = (
    "Look for collapse in runs: when their groups lost the variety of correct answers, and what became of the runs by their"
    " evaluations. Thresholds are those that a run was watched by, unless given."
)
REVIVE = (
    "Train on from a run's checkpoint with other settings, and once more with its own, and compare the two futures. What is there"
    " already is not trained again."
)
_CHANGED = ("sampler", "update", "watch")
_RUN = ("evaluate_every", "checkpoint_every", "trackers", "threads")


def add_collapse(command: argparse.ArgumentParser) -> None:
    """The options of ``collapse``."""
    command.add_argument("folders", nargs="+", metavar="RUN", help="run folders, or folders that hold some")
    command.add_argument(
        "--plot", metavar="FILE", help="write the signals and alarms of all runs to this HTML file (default: none)"
    )
    add_settings(command, ("alarm_slack", "alarm_patience", "alarm_votes"))


def run_collapse(chosen: argparse.Namespace) -> None:
    """Print one line a run."""
    from sesa_lab import runs
    from sesa_lab.experiments import collapse_tables
    from sesa_lab.training.watch import thresholds

    names = ("alarm_slack", "alarm_patience", "alarm_votes")
    given = {name: getattr(chosen, name) for name in names if hasattr(chosen, name)}
    watch = Config.build(None, watch={"on_alarm": "report", **given}).watch
    paths = [path for folder in chosen.folders for path in runs.find(folder)]
    if not paths:
        raise InputError(f"no run folders in {', '.join(chosen.folders)}; expected some made by `sesa-lab train`")
    looked = collapse_tables.look(paths, thresholds(watch) if given else None)
    print(collapse_tables.table(looked).to_string(index=False))
    if chosen.plot:
        write_file(Path(chosen.plot), collapse_tables.figure(looked).to_html().encode())
        print(f"wrote {chosen.plot}")


def add_revive(command: argparse.ArgumentParser) -> None:
    """The options of ``revive``."""
    command.add_argument("run_folder", metavar="RUN", help="the run to train on from")
    command.add_argument("--out", required=True, metavar="DIR", help="folder of the two futures' run folders")
    command.add_argument("--at", type=int, metavar="STEP", help="step of the checkpoint (default: the last)")
    command.add_argument(
        "--more", type=int, metavar="X", help="steps from there on (default: as many as the run was to take)"
    )
    command.add_argument(
        "--seeds",
        metavar="A-B",
        help="one pair of futures a seed, e.g. 0-4 (default: the run's own alone, without interval)",
    )
    command.add_argument(
        "--preset",
        choices=sorted(PRESETS),
        help="sampler and update of this preset; sizes, temperature and, where it names none, the learning rate stay the run's;"
        " options given beside it win",
    )
    command.add_argument("--workers", type=int, metavar="X", help="processes side by side (default: cores)")
    own = [name for name, (section, _) in flat_fields().items() if section in _CHANGED or name in _RUN]
    add_settings(command, tuple(own))


def run_revive(chosen: argparse.Namespace) -> None:
    """Make both futures and print what they came to."""
    from sesa_lab import runs
    from sesa_lab.experiments.futures import compare, futures, of_preset
    from sesa_lab.experiments.jobs import execute

    changes = of_preset(chosen.preset, runs.load(chosen.run_folder).config) if chosen.preset else {}
    given = {name: getattr(chosen, name) for name in flat_fields() if hasattr(chosen, name)}
    if chosen.switch_pairs:
        given["switch"] = switch_of(chosen.switch_pairs)
    for section, values in sections(given).items():
        changes.setdefault(section, {}).update(values)
    seeds = numbers(chosen.seeds) if chosen.seeds else None
    jobs = futures(chosen.run_folder, Path(chosen.out), changes, chosen.at, chosen.more, seeds)
    execute(jobs, chosen.workers, "training both futures")
    for job in jobs:
        print(f"{job.arm}, seed {job.seed}: {job.folder}")
    print(compare(jobs).to_string())
