"""The card of a lab policy: ``sesa_lab.json``, which ``load_policy`` reads, and ``README.md`` for people."""

from __future__ import annotations

import hashlib
import json
import shlex
import textwrap
from pathlib import Path
from typing import Any

from sesa_lab.policies.load import CARD

_ASKED = {
    "answers": ("the task", "a solution"),
    "lists": ("the task, a list of methods", "distinct sketches of its solutions, one after another"),
    "guided": ("the task and one of those sketches", "a solution that follows it"),
    "prompted": ("the task, one more method than those named", "another of those sketches"),
}


def write(folder: Path, environment: Any, settings: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    """Write both beside the weights; returns what ``sesa_lab.json`` says.

    Args:
        folder: holds ``model.safetensors``.
        environment: what the policy was made for.
        settings: those of ``PretrainConfig`` that mattered.
        measured: what was found out about the policy, ``base`` first where it is of one.
    """
    card: dict[str, Any] = {
        "environment": environment.name,
        "options": {k: environment.options[k] for k in environment.policy_options},
        "made_with": environment.options,
        "pretrain": settings,
        **measured,
        "sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
    }
    (folder / CARD).write_text(json.dumps(card, indent=2) + "\n")
    start = f"`{settings['start']}`, sha256 `{measured['started_from']}`" if "start" in settings else "random"
    came = "trained from scratch" if start == "random" else f"trained on from {start},"
    words = {**card, "name": folder.name, "command": _command(card), "start": start, "came": came}
    text = _TAUGHT.format(**words, **_tables(card)) if "base" in card else _LISTED.format(**words)
    (folder / "README.md").write_text(text)
    return card


def _command(card: dict[str, Any]) -> str:
    """What made the policy, but for ``--out``, in lines of at most 110 characters."""
    settings = [f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in card["pretrain"].items()]
    options = [f"--option {shlex.quote(f'{name}={value}')}" for name, value in card["made_with"].items()]
    words = " ".join(["sesa-lab pretrain --environment", card["environment"], *options, *settings])
    return textwrap.fill(words, 110, break_on_hyphens=False, break_long_words=False).replace("\n", " \\\n      ")


def _tables(card: dict[str, Any]) -> dict[str, str]:
    """Words and table rows for a policy that was shown demonstrations."""
    settings, losses = card["pretrain"], card["held_out_loss"]
    forms = [
        f"| `{form}` | {asked} | {said} | {settings[f'{form}_share']:.0%} | {_figure(losses[form])} |"
        for form, (asked, said) in _ASKED.items()
    ]
    figures = [f"| {text} | {_figure(card[name])} |" for name, text in _FIGURES.items() if name in card]
    return {
        "direct": _DIRECT[card["base"]].format(settings["habit"]),
        "shown": f"{settings['steps'] * settings['batch'] * settings['demonstrations']:,}",
        "forms": "\n".join(forms),
        "figures": "\n".join(figures),
    }


def _figure(value: float | None) -> str:
    return "none such" if value is None else f"{value:.3f}"


_LISTED = """# {name}

A lab policy of sesa_lab: a Qwen2-architecture causal language model of {parameters:,} parameters, {came} on
documents drawn from the environment's own prior. It knows the places of one hierarchy, how to answer with one of them and how
to go on listing distinct ones; it has never seen a treasure. It is a teaching object and knows no language.

| | |
|---|---|
| environment | `{environment}` |
| options it was made for | `{options}` |
| data | each document: one task prompt, then distinct answers drawn from the prior without replacement |
| loss on documents never trained on | {held_out_loss} nats a token |
| loss on the last 50 training batches | {train_loss} nats a token |
| sha256 of model.safetensors | `{sha256}` |

Made by (two to three minutes on one CPU core):

    {command} \\
      --out data/policies/{name}
"""

_DIRECT = {
    "ordinary": "all solutions of a task alike",
    "habit": "with probability {:g} only solutions whose method is one of the environment's few habitual ones; tasks that"
    " have none are then left out",
}

_FIGURES = {
    "success": "direct answers that succeed",
    "success_hard": "the same on hard tasks (no habitual solution)",
    "solved_by_16": "tasks that one of 16 direct answers solves",
    "readable": "direct answers that can be read",
    "habitual": "readable direct answers whose method is habitual",
    "sketches_useful": "sketches drawn i.i.d. that some solution follows",
    "guided_follows": "answers to those sketches that follow theirs",
    "guided_success": "answers to those sketches that succeed",
    "distinct_iid": "distinct sketches among 8 drawn i.i.d.",
    "distinct_listed": "distinct sketches among 8 listed one after another",
}

_TAUGHT = """# {name}

A lab policy of sesa_lab: a Qwen2-architecture causal language model of {parameters:,} parameters, trained on
demonstrations that the solver of one environment made. It reads the short prompts of `sesa_lab/prompts/lab` for tasks of one
size, and writes their answers and sketches of a few words. It is a teaching object and knows no language.

| | |
|---|---|
| environment | `{environment}` |
| options it was made for | `{options}` |
| first weights | {start} |
| base | {base}: direct answers were shown {direct} |
| data | {shown} demonstrations of {tasks_used:,} tasks of split train; loss on what the policy says, never on prompts |
| loss on the last 50 training batches | {train_loss} nats a token |
| sha256 of model.safetensors | `{sha256}` |

| form | asked | said | share | loss on unseen tasks, nats a token |
|---|---|---|---|---|
{forms}

Drawn at temperature 1 on {tasks_unseen} tasks of split validation, which it was not trained on (16 direct answers and 8 sketches a
task):

| | |
|---|---|
{figures}

Made on one CPU core by

    {command} \\
      --out data/policies/{name}
"""
