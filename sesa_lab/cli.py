"""The command line: every setting of ``sesa_lab.config`` is an option, made from the field's own documentation."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

from sesa_lab import (
    cli_collapse,
    cli_evaluate,
    cli_fidelity,
    cli_lab,
    cli_metrics,
    cli_models,
    cli_reproduce,
    environments,
    prompts,
    serving,
)
from sesa_lab.cli_settings import add_option, add_settings, allowed, config_of, options_of, read_config
from sesa_lab.config import PretrainConfig, check_value, numbers
from sesa_lab.errors import InputError, NotebookError, printable, suggest
from sesa_lab.presets import PRESETS


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line and exit code 2; the usage is a ``--help`` away."""
        sys.stderr.write(f"{self.prog}: error: {' '.join(message.split())} (see {self.prog} --help)\n")
        raise SystemExit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, or 2 for a user's mistake."""
    parser = build_parser()
    chosen = parser.parse_args(arguments)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        run: Callable[[argparse.Namespace], None] = chosen.run
        run(chosen)
    except InputError as error:
        sys.stderr.write(f"sesa-lab: error: {_line(error)}\n")
        return 2
    except NotebookError as error:
        sys.stderr.write(f"sesa-lab: error: {_line(error)}\n")
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.stderr.write(
            "\nstopped; a run goes on from its last checkpoint by `sesa-lab resume RUN`, an experiment by the same command\n"
        )
        return 130
    return 0


def _line(error: Exception) -> str:
    """A message in one line."""
    return printable(" ".join(str(error).split()))


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = _Parser(
        prog="sesa-lab",
        description="Find out whether drawing candidates in sequence keeps exploration alive in reinforcement learning.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    _environments(commands)
    _prompts(commands)
    _pretrain(commands)
    _train(commands)
    _resume(commands)
    cli_evaluate.add_arguments(_command(commands, "evaluate", cli_evaluate.TEXT, cli_evaluate.run))
    cli_fidelity.add_arguments(_command(commands, "fidelity", cli_fidelity.TEXT, cli_fidelity.run))
    cli_metrics.add_arguments(_command(commands, "metrics", cli_metrics.TEXT, cli_metrics.run))
    revive = _command(commands, "revive", cli_collapse.REVIVE, cli_collapse.run_revive)
    cli_collapse.add_revive(revive)
    collapse = _command(commands, "collapse", cli_collapse.COLLAPSE, cli_collapse.run_collapse)
    cli_collapse.add_collapse(collapse)
    serving.add_arguments(_command(commands, "serve", serving.TEXT, serving.run))
    cli_models.add_arguments(_command(commands, "merge", cli_models.TEXT, cli_models.run))
    cli_lab.add_arguments(_command(commands, "lab", cli_lab.TEXT, cli_lab.run))
    _report(commands)
    cli_reproduce.add_reproduce(_command(commands, "reproduce", cli_reproduce.REPRODUCE, cli_reproduce.run_reproduce))
    cli_reproduce.add_status(_command(commands, "status", cli_reproduce.STATUS, cli_reproduce.run_status))
    _experiment(commands)
    _demo(commands)
    _bench(commands)
    return parser


def _command(commands: Any, name: str, text: str, run: Callable[[argparse.Namespace], None]) -> Any:
    command = commands.add_parser(
        name, help=text, description=text.replace("%%", "%"), formatter_class=argparse.HelpFormatter
    )
    command.set_defaults(run=run)
    return command


# --- environments ---------------------------------------------------------------------------------------------------


def _environments(commands: Any) -> None:
    def run(chosen: argparse.Namespace) -> None:
        for name, about in environments.describe().items():
            if chosen.name not in (None, name):
                continue
            print(f"{name}: {about['text']}")
            for key, option in about["options"].items():
                print(f"  {key}={option['default']}  {option['text']}{allowed(option)}")
        if chosen.name is not None:
            environments.make(chosen.name)

    command = _command(commands, "environments", "List the environments and their options.", run)
    command.add_argument("name", nargs="?", help="only this one")


def _prompts(commands: Any) -> None:
    def run(chosen: argparse.Namespace) -> None:
        if chosen.environment not in environments.names():
            raise InputError(
                f"unknown environment {chosen.environment!r}; {suggest(chosen.environment, environments.names())}"
            )
        for path in prompts.copy(chosen.out, chosen.form, chosen.environment):
            print(path)

    text = (
        "Copy the prompt templates of one form and environment to a folder, to be edited and used by `train --prompts`."
    )
    command = _command(commands, "prompts", text, run)
    command.add_argument("out", metavar="OUT", help="folder; what is in it is not overwritten")
    command.add_argument(
        "--form",
        choices=prompts.FORMS,
        default="chat",
        help="chat: models with a chat template; lab: the lab policies, which know the built-in texts alone (default: chat)",
    )
    command.add_argument("--environment", default="path_exploration", help="environment (default: path_exploration)")


# --- one policy, one run --------------------------------------------------------------------------------------------


def _pretrain(commands: Any) -> None:
    fields = dataclasses.fields(PretrainConfig)

    def run(chosen: argparse.Namespace) -> None:
        from sesa_lab.policies.pretrain import pretrain

        environment = environments.make(chosen.environment, **options_of(chosen.option))
        values = {f.name: check_value(f"--{f.name}", f, getattr(chosen, f.name)) for f in fields}
        recipe = PretrainConfig(**values)
        with tqdm(total=recipe.steps, desc="pre-training", unit="step", file=sys.stderr, delay=0.01) as bar:
            card = pretrain(
                environment,
                Path(chosen.out),
                recipe,
                progress=lambda step, loss: _trained(bar, recipe.steps, step, loss),
                solving=lambda done, total: _solved(bar, done, total),
            )
        print(json.dumps(card, indent=2))

    text = "Train a small policy on what an environment's own prior or solver shows, into a Hugging Face folder."
    command = _command(commands, "pretrain", text, run)
    command.add_argument("--environment", default="path_exploration", help="environment (default: path_exploration)")
    add_option(command)
    command.add_argument("--out", required=True, help="new folder, e.g. data/policies/mine")
    for field in fields:
        kind: Any = {"int": int, "float": float, "str": str}[str(field.type)]
        default = "none" if field.default == "" else field.default
        text = f"{field.metadata['text']}{allowed(field.metadata)} (default: {default})"
        command.add_argument(
            f"--{field.name.replace('_', '-')}", type=kind, default=field.default, metavar="X", help=text
        )


def _solved(bar: Any, done: int, total: int) -> None:
    if done == 1:
        bar.unit = "task"
        bar.set_description("solving tasks", refresh=False)
        bar.reset(total)
    bar.update(1)


def _trained(bar: Any, steps: int, step: int, loss: float) -> None:
    if step == 1:
        bar.unit = "step"
        bar.set_description("pre-training", refresh=False)
        bar.reset(steps)
    bar.update(1)
    bar.set_postfix_str(f"loss {loss:.3f} nats a token")


def _train(commands: Any) -> None:
    def run(chosen: argparse.Namespace) -> None:
        from sesa_lab import api

        config = config_of(chosen, read_config(chosen.config) if chosen.config else {})
        _summary(api.train_config(config, chosen.out))

    text = "Train a policy with GRPO into a new run folder."
    command = _command(commands, "train", text, run)
    command.add_argument("--out", required=True, help="run folder; must be new or empty")
    command.add_argument("--preset", choices=sorted(PRESETS), help="bundle of settings; options given beside it win")
    command.add_argument("--config", metavar="FILE", help="a JSON file as a run's config.json; options win over it")
    add_settings(command)


def _resume(commands: Any) -> None:
    def run(chosen: argparse.Namespace) -> None:
        from sesa_lab import api

        _summary(api.resume(chosen.out))

    text = "Continue a run from its last checkpoint; the result is that of an uninterrupted run."
    _command(commands, "resume", text, run).add_argument("out", metavar="RUN", help="run folder")


def _summary(run: Any) -> None:
    from sesa_lab.team import first

    if not first():
        return
    columns = ["step", "accuracy", "coverage", "entropy", "valid_mass", "tokens_total"]
    first_last = run.evaluations.iloc[[0, -1]]
    print(f"{run.path}: coverage is coverage@{first_last['coverage_k'].iloc[-1]:.0f}, entropy in nats")
    print(first_last[columns].to_string(index=False, float_format=lambda value: f"{value:.3f}"))


# --- many runs ------------------------------------------------------------------------------------------------------


def _report(commands: Any) -> None:
    def run(chosen: argparse.Namespace) -> None:
        from sesa_lab.experiments import report

        out = Path(chosen.out or f"reports/{chosen.name}.html")
        seeds = numbers(chosen.seeds) if chosen.seeds else None
        path = report.make(chosen.name, Path(chosen.runs), seeds, out, chosen.steps, chosen.full)
        print(f"wrote {path} ({path.stat().st_size / 2**20:.1f} MB)")

    text = "Execute a report's notebooks (training what is missing) and render them as one offline HTML file."
    command = _command(commands, "report", text, run)
    command.add_argument("name", choices=["path_exploration", "agents", "reasoning"], help="which report")
    _add_many(command)
    command.add_argument("--out", metavar="FILE", help="HTML file (default: reports/NAME.html)")
    command.add_argument(
        "--full",
        action="store_true",
        help="path_exploration: with the factorial and the axis of sharpness (half an hour of five seeds);"
        " agents: from both base policies, with all arms (three hours; without it 45 minutes); reasoning: with all arms (80"
        " minutes)",
    )


def _experiment(commands: Any) -> None:
    def run(chosen: argparse.Namespace) -> None:
        from sesa_lab.experiments import stages

        if chosen.workers is not None and chosen.workers < 1:
            raise InputError(f"--workers = {chosen.workers} is out of range: expected >= 1")
        out = Path(chosen.out) if chosen.out else None
        seeds = numbers(chosen.seeds) if chosen.seeds else None
        if chosen.name == "calibration":  # no runs: samples of the shipped policies
            from sesa_lab.experiments import calibration

            if chosen.steps is not None or chosen.arms or chosen.workers is not None or len(seeds or [0]) > 1:
                raise InputError(
                    "calibration trains nothing and takes one seed: leave --steps, --arms and --workers out, and name one in"
                    " --seeds"
                )
            cache = Path(chosen.runs) / "embeddings.sqlite"
            calibration.main(seed=seeds[0] if seeds else 0, out=out or calibration.REPORT, cache=cache)
            return
        stages.run(chosen.name, Path(chosen.runs), seeds, chosen.steps, chosen.workers, chosen.arms, out)

    text = "Run one matrix of the experiments (what is missing of it) and print its table."
    command = _command(commands, "experiment", text, run)
    names = ["search", "factorial", "sharpness", "headline", "rival", "revival"]
    names += ["agents-countdown", "agents-frozen_lake", "agents-sokoban", "agents-search", "agents-rivals"]
    names += ["agents-revival", "agents-drafting", "agents-habit", "agents-options"]
    names += ["collapse-detector", "collapse-switching"]
    names += ["calibration"]
    names += ["reasoning-sudoku", "reasoning-math", "reasoning-search"]
    command.add_argument("name", choices=names, help="which matrix")
    _add_many(command)
    command.add_argument(
        "--workers", type=int, default=None, metavar="X", help="processes side by side (default: cores)"
    )
    command.add_argument(
        "--arms",
        default="",
        metavar="NAME,NAME",
        help="agents: these arms only, or 'headline', or 'all', of which the paper's rule and the ablations are run on the"
        " first three seeds (default: all)",
    )
    command.add_argument(
        "--out", metavar="FILE", help="agents: also write the estimates (of the search: the runs) to this CSV file"
    )


def _add_many(command: Any) -> None:
    command.add_argument("--runs", default="runs", metavar="DIR", help="where run folders are (default: runs)")
    command.add_argument(
        "--seeds",
        metavar="A-B",
        help="seeds, e.g. 0-4 (default: 0-2; of the agents 1-5, and 1-3 in some of their studies)",
    )
    command.add_argument("--steps", type=int, metavar="X", help="training steps a run (default: 100; of the agents 60)")


def _demo(commands: Any) -> None:
    def run(chosen: argparse.Namespace) -> None:
        from sesa_lab.experiments import report

        report.demo(Path("runs"), Path("reports/path_exploration.html"))

    text = "Path Exploration on the shipped policy, three seeds: train, report, and one table. What `make demo` runs."
    _command(commands, "demo", text, run)


def _bench(commands: Any) -> None:
    def run(chosen: argparse.Namespace) -> None:
        from sesa_lab.experiments import bench

        bench.main(chosen.rounds)

    text = "Throughput and memory of a GRPO step against TRL's GRPOTrainer, paired in one run (extra: bench)."
    command = _command(commands, "bench", text, run)
    command.add_argument("--rounds", type=int, default=5, metavar="X", help="paired rounds (default: 5)")


if __name__ == "__main__":
    raise SystemExit(main())
