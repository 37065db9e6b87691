"""The command ``sesa-lab fidelity``: whether solutions follow their sketches, and what changes when sketches are swapped."""

from __future__ import annotations

import argparse
import json
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sesa_lab.cli_settings import add_asked, asked_of, file_of, write_file
from sesa_lab.config import Config
from sesa_lab.environments.pool import ALL, SPLITS
from sesa_lab.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

TEXT = (
    "Draft sketches to each task and expand every one four times: given itself, another sketch of the task, a sketch of another"
    " task, and none, from the same random streams. Reports how often solutions follow the sketch they are given, beside chance,"
    " and what the sketch changes, with 95 %% bootstrap intervals over tasks."
)
NAMES = (
    "environment", "options", "policy", "split", "way", "temperature", "max_tokens", "sketch_tokens", "tasks", "sketches",
    "samples", "seed",
)  # fmt: skip
"""Columns that say which comparison a row of the CSV file is of."""
COLUMNS = (*NAMES, "arm", "measure", "mean", "low", "high", "n")


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The command's options."""
    command.add_argument(
        "run_folder", nargs="?", metavar="RUN", help="a run: its settings (options win) and last checkpoint"
    )
    command.add_argument("--tasks", type=int, default=16, metavar="X", help="tasks 0..X-1 are asked (default: 16)")
    command.add_argument("--sketches", type=int, default=8, metavar="X", help="sketches a task (default: 8)")
    command.add_argument("--samples", type=int, default=1, metavar="X", help="solutions a sketch and arm (default: 1)")
    command.add_argument(
        "--split", choices=[*SPLITS, ALL], help="which tasks, where the environment has splits (default: validation)"
    )
    command.add_argument(
        "--way",
        choices=("sesa", "iid-sketches"),
        default="sesa",
        help="how sketches are drafted: sesa (one after another) or iid-sketches (default: sesa)",
    )
    command.add_argument("--out", metavar="FILE", help="keep every solution in this .parquet file")
    command.add_argument(
        "--csv",
        metavar="FILE",
        help="add the estimates to this .csv file; those of the same comparison are replaced (default: none)",
    )
    command.add_argument("--figure", metavar="FILE", help="draw the estimates into this .html file (default: none)")
    add_asked(command)


def run(chosen: argparse.Namespace) -> None:
    """Draw, print the table and what it says."""
    from sesa_lab.training.fidelity import compare
    from sesa_lab.training.fidelity_table import ARMS, in_words, reading

    out = file_of(chosen.out, "--out", ".parquet")
    csv, figure = file_of(chosen.csv, "--csv", ".csv"), file_of(chosen.figure, "--figure", ".html")
    there = _there(csv) if csv else None
    config = asked_of(chosen, "asked")
    found = compare(config, chosen.run_folder, chosen.tasks, chosen.sketches, chosen.samples, chosen.split, chosen.way)
    estimates = found.estimates(config.run.seed)
    table = in_words(estimates)
    for part in (table[list(ARMS)], table.drop(columns=list(ARMS))):
        print(f"{part[(part != '').any(axis=1)].to_string()}\n")
    print(reading(estimates))
    rows = estimates.assign(**_names(chosen, config))[list(COLUMNS)]
    if csv:
        _add(csv, there, rows)
    if out:
        kept = BytesIO()
        found.samples.to_parquet(kept)
        write_file(out, kept.getvalue())
        print(f"{len(found.samples)} solutions in {out}")
    if figure:
        from sesa_lab.plots.fidelity import following

        page = following(rows, caption=_caption(rows)).to_html(include_plotlyjs=True)
        write_file(figure, page.encode())


def _names(chosen: argparse.Namespace, config: Config) -> dict[str, Any]:
    adapter = f" + {Path(config.policy.adapter).name}" if config.policy.adapter else ""
    return {
        "environment": config.environment.name,
        "options": json.dumps(config.environment.options, sort_keys=True),
        "policy": Path(chosen.run_folder).name if chosen.run_folder else Path(config.policy.model).name + adapter,
        "split": chosen.split or "",
        "temperature": config.evaluation.eval_temperature or config.sampler.temperature,
        "max_tokens": config.sampler.max_tokens,
        "sketch_tokens": config.sampler.sketch_tokens,
        "seed": config.run.seed,
        **{name: getattr(chosen, name) for name in ("way", "tasks", "sketches", "samples")},
    }


def _there(csv: Path) -> pd.DataFrame | None:
    """What the file holds; None where there is none.

    Raises:
        InputError: something else than estimates.
    """
    import pandas as pd

    if not csv.exists():
        return None
    try:
        # Names are texts: a policy called 007 is not the number 7.
        kept: dict[str, Any] = dict.fromkeys((*NAMES, "arm", "measure"), str)
        missing = {n: [""] for n in ("mean", "low", "high")}
        found = pd.read_csv(csv, keep_default_na=False, na_values=missing, dtype=kept)
    except (ValueError, OSError) as error:
        raise InputError(f"--csv {csv} cannot be read: {error}; choose another file") from error
    if list(found.columns) != list(COLUMNS):
        raise InputError(f"--csv {csv} has other columns than {', '.join(COLUMNS)}; choose another file")
    return found


def _add(csv: Path, there: pd.DataFrame | None, rows: pd.DataFrame) -> None:
    """Write ``rows`` behind those that are there; earlier ones of the same comparison go."""
    import pandas as pd

    rows, names = rows.round(4), list(NAMES)
    if there is not None:
        same = (there[names] == [str(rows[name].iloc[0]) for name in names]).all(axis=1)
        rows = pd.concat([there[~same], rows], ignore_index=True)
    write_file(csv, rows.to_csv(index=False).encode())


def _caption(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    return (
        f"{first['environment']}, {first['policy']}: {first['tasks']} tasks x {first['sketches']} sketches x"
        f" {first['samples']} solutions an arm, drafted {first['way']}, seed {first['seed']}; bars: 95 % bootstrap over tasks"
    )
