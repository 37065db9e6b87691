"""The command ``sesa-lab evaluate``: samples of a policy, judged; pass@k and coverage@k."""

from __future__ import annotations

import argparse

from sesa_lab.cli_settings import add_asked, asked_of
from sesa_lab.config import numbers
from sesa_lab.environments.pool import ALL, SPLITS
from sesa_lab.settings import WAYS

TEXT = (
    "Sample from a policy and report pass@k and coverage@k with 95 %% bootstrap intervals over tasks, beside the exact values where"
    " there are any. Tasks are held-out ones where the environment has splits. With --out every sample is kept, and an evaluation"
    " that was stopped goes on by the same command."
)
DEPENDENT = {
    "sequential": "drawn one after another, each given those before it: pass@k is that of k of these, not the unbiased one of"
    " i.i.d. samples",
    "sesa": "drawn with sketches; samples of one sketch are alike, so pass@k is not the unbiased one of i.i.d. samples",
}
DEPENDENT["iid-sketches"] = DEPENDENT["sesa"]


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The command's options."""
    command.add_argument(
        "run_folder", nargs="?", metavar="RUN", help="a run: its settings (options win) and last checkpoint"
    )
    command.add_argument("--samples", type=int, default=256, metavar="X", help="samples a task (default: 256)")
    command.add_argument("--tasks", type=int, default=1, metavar="X", help="tasks 0..X-1 are evaluated (default: 1)")
    command.add_argument(
        "--split",
        choices=[*SPLITS, ALL],
        help="which tasks, where the environment has splits (default: validation); all: of a data set that is only evaluated",
    )
    command.add_argument(
        "--way",
        choices=WAYS,
        default="parallel",
        help="how a task's samples are drawn: parallel (i.i.d., the task alone); sequential (each given those before it); sesa (up"
        " to 8 sketches in sequence, each followed by equally many samples); iid-sketches (default: parallel)",
    )
    command.add_argument("--k", default="1,8,64", metavar="K,K", help="values of k (default: 1,8,64)")
    command.add_argument(
        "--out",
        metavar="FILE",
        help="keep every sample in this .parquet file; what is there already is not drawn again",
    )
    add_asked(command)


def run(chosen: argparse.Namespace) -> None:
    """Evaluate and print the table."""
    from sesa_lab.training.evaluate import evaluate_samples

    config = asked_of(chosen, "evaluated")
    found = evaluate_samples(
        config, chosen.run_folder, chosen.samples, chosen.tasks, numbers(chosen.k), chosen.split, chosen.way, chosen.out
    )
    if chosen.way in DEPENDENT:
        print(DEPENDENT[chosen.way])
    table = found.table(config.run.seed).dropna(axis="columns", how="all")
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4f}"))
    if chosen.out:
        print(f"{len(found.samples)} samples in {chosen.out}")
