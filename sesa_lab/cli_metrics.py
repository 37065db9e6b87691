"""The command ``sesa-lab metrics``: measures of exploration on anyone's samples."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from sesa_lab.cli_settings import file_of, write_file
from sesa_lab.config import numbers
from sesa_lab.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from sesa_lab.foreign import Measured, Samples

TEXT = (
    "Measure the diversity of samples that are there already: pass@k, distinct texts and strategies, effective number, unseen mass,"
    " distinct-n, self-BLEU, compression, and embeddings if asked, for each group of samples of one prompt, averaged over groups"
    " with bootstrap intervals, and by training step where there are steps. Reads JSON lines, JSON, CSV and Parquet. Logs of TRL"
    " (log_completions), verl, verifiers and of sesa-lab itself are known as they are; of others name the columns. Distinct-n and"
    " self-BLEU read a text's first 1,000 characters; self-BLEU is of at most 16 texts a group, and of about 256 groups (16 or more"
    " a step)."
)
BARS = "bars: 95 % bootstrap interval of the mean over groups"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The command's options."""
    command.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help=".jsonl, .json, .csv, .tsv (also .gz) or .parquet files, globs, folders of them, or one run folder",
    )
    for name, text in (
        ("text", "the completion: a text, or a list of chat messages, of which the assistant's are taken"),
        ("group", "what was asked; samples of one value, within one step, are compared"),
        ("correct", "whether a sample is right: true or false, or a reward; none: not judged"),
        ("strategy", "what a completion did, such as its answer, to count what differs; none: texts alone"),
        ("step", "training step; none: all steps together"),
    ):
        command.add_argument(f"--{name}", default="", metavar="COLUMN", help=f"{text} (default: found out)")
    command.add_argument(
        "--threshold",
        type=float,
        default=0.0,
        metavar="X",
        help="a reward above it counts as right (default: 0)",
    )
    command.add_argument("--k", default="1,8,64", metavar="K,K", help="values of k (default: 1,8,64)")
    command.add_argument(
        "--embed",
        default="",
        metavar="MODEL",
        help="also measure embeddings by this model of sentence-transformers; all-MiniLM-L6-v2 needs no network (default: none)",
    )
    command.add_argument(
        "--out",
        metavar="FILE",
        help="write the averages to this .csv file, and every group's measures to one beside it that ends in .groups.csv",
    )
    command.add_argument(
        "--plot", metavar="FILE", help="write a figure to this .html file, which needs no network (default: none)"
    )


def run(chosen: argparse.Namespace) -> None:
    """Read, measure, print the table, write what is asked for."""
    out, plot = file_of(chosen.out, "--out", ".csv"), file_of(chosen.plot, "--plot", ".html")
    if not math.isfinite(chosen.threshold):
        raise InputError(f"--threshold {chosen.threshold}: expected a number, such as 0 or 0.5")
    ks = sorted(set(numbers(chosen.k)))
    if ks[0] < 1:
        raise InputError(f"--k {chosen.k}: expected whole numbers >= 1, such as 1,8,64")
    from sesa_lab import foreign

    asked = foreign.Asked(chosen.text, chosen.group, chosen.correct, chosen.strategy, chosen.step)
    samples = foreign.load(chosen.files, asked, chosen.threshold)
    beside = out.with_suffix(".groups.csv") if out else None
    _spare(chosen.files, samples, {"--out": out, "--out, with its groups,": beside, "--plot": plot})
    if chosen.embed:
        print(f"embedding {len(samples.frame)} texts with {foreign.clean(chosen.embed)}", file=sys.stderr)
    found = foreign.measure(
        samples.frame, ks, chosen.embed, lambda groups: tqdm(groups, unit="group", delay=2.0, file=sys.stderr)
    )
    for line in (
        *_head(samples, found),
        *(f"note: {note}" for note in (*samples.notes, *_missing(found, samples, ks))),
    ):
        print(foreign.clean(line, 2_000))
    print()
    print(_table(found).to_string(index=False))
    if out and beside:
        write_file(out, _csv(found.averages.rename(columns={"n": "groups"})))
        write_file(beside, _csv(found.groups))
        print(foreign.clean(f"wrote {out} and {beside}", 2_000))
    if plot:
        write_file(plot, _page(samples, found))
        print(foreign.clean(f"wrote {plot}", 2_000))


def _spare(places: Sequence[str], samples: Samples, written: dict[str, Path | None]) -> None:
    """Refuses to write over what is measured, or a table among what is measured, as it would be measured the next time."""
    from sesa_lab.foreign import clean

    folders = {os.path.realpath(place) for place in (Path(each).expanduser() for each in places) if place.is_dir()}
    folders |= {os.path.join(folder, "completions") for folder in folders}
    folders |= {os.path.realpath(path) for path in samples.paths}
    for option, path in written.items():
        if path is None:
            continue
        if os.path.exists(path) and any(path.samefile(each) for each in samples.paths):
            raise InputError(f"{option} {clean(path)} is one of the files that are measured: choose another file")
        if path.suffix == ".csv" and os.path.realpath(path.parent) in folders:
            raise InputError(
                f"{option} {clean(path)} lies in a folder that is measured, and would be measured too the next time: choose"
                " another folder"
            )


def _head(samples: Samples, found: Measured) -> list[str]:
    """What was read and what was taken for what."""
    sizes = found.groups["samples"].astype(int)
    size = f"{sizes.min()}" if sizes.min() == sizes.max() else f"{sizes.min()} to {sizes.max()}"
    steps = f" at {found.groups['step'].nunique()} steps" if found.stepped else ""
    columns = samples.columns
    return [
        f"{len(samples.frame)} samples in {len(sizes)} groups of {size}{steps}, from {samples.files} file(s): {samples.kind}",
        f"text: {columns.text}; group: {columns.group}{' within ' + columns.step if columns.step else ''};"
        f" right: {samples.judged}; reward: {samples.reward or 'none'}; strategy: {columns.strategy or 'none'};"
        f" step: {columns.step or 'none'}",
    ]


def _missing(found: Measured, samples: Samples, ks: list[int]) -> list[str]:
    """Why asked-for measures have no value."""
    if not samples.columns.correct:
        return ["nothing says whether a sample is right: no success and no pass@k (--correct)"]
    largest = int(samples.frame.groupby(["step", "group"], dropna=False)["correct"].count().max())
    return [f"pass@{k} needs {k} judged samples in a group, the largest has {largest}" for k in ks if k > largest]


def _table(found: Measured) -> pd.DataFrame:
    """One row a measure; where there are steps, the first and the last."""
    import pandas as pd

    from sesa_lab.foreign import about
    from sesa_lab.statistics import text

    averages = found.averages
    ends = sorted({averages["step"].iloc[0], averages["step"].iloc[-1]}) if found.stepped else [None]
    labels = [about(measure) for measure in found.measures]
    widest = max(map(len, labels))  # pandas sets text to the right
    table: dict[str, list[Any]] = {"measure".ljust(widest): [label.ljust(widest) for label in labels]}
    for step in ends:
        rows = averages if step is None else averages[averages["step"] == step]
        name = "mean over groups [95 % interval]" if step is None else f"at step {step:g}"
        table[name] = [text(r.mean, r.low, r.high, int(r.n)) for r in rows.itertuples(index=False)]
    return pd.DataFrame(table)


def _csv(table: pd.DataFrame) -> bytes:
    return bytes(table.to_csv(index=False).encode())


def _page(samples: Samples, found: Measured) -> bytes:
    from sesa_lab.foreign import about
    from sesa_lab.plots.measures import measures

    averages = found.averages.assign(label=[about(measure) for measure in found.averages["measure"]])
    figure = measures(averages, "Measures of samples", "; ".join([*_head(samples, found), BARS]))
    return bytes(figure.to_html(include_plotlyjs=True).encode("utf-8", "replace"))
