"""A model and data sets of one's own in the place of lab policies and their tasks: what notebooks 03 to 07 take by name.

A real model needs tasks and token limits of its own; what is set here is a beginning, and the notebooks' ``settings`` go before
it. A data set alone is evaluated on, without training: every way of drawing, samples kept so that a stopped one goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sesa_lab import environments
from sesa_lab.errors import InputError, writing
from sesa_lab.experiments import agents, stages
from sesa_lab.experiments.matrix import Sections, digest

PARAMETERS = ("model", "dataset", "train_dataset")
"""What a notebook may have beside what all notebooks of this kind have; empty texts where nothing is set."""

OPTIONS: dict[str, dict[str, Any]] = {
    **{task: {"preset": "paper", "hard": "half"} for task in agents.TASKS},
    "sudoku": {"box": 3, "answer_format": "tags", "hard": "natural"},
    "math": {"answer_format": "boxed", "hard": "natural"},
}
"""Task -> options with which a model that knows language is asked: agents' tasks as RAGEN has them, puzzles of the usual size, and
answers as such models write."""

LIMITS: dict[str, dict[str, int]] = {
    **{task: {"max_tokens": 400, "sketch_tokens": 64} for task in agents.TASKS},
    **{task: {"max_tokens": 1024, "sketch_tokens": 48} for task in agents.REASONING},
}
"""Task -> token limits of such a model, of a turn where an episode has several; the agents' are those of the preset ``paper``."""

WAYS = {
    "parallel": "in parallel, given the problem alone",
    "sesa": "with up to 8 sketches, drafted one after another",
    "iid-sketches": "with up to 8 sketches, drafted independently",
}
"""Ways of drawing that a data set is evaluated in (``settings.WAYS``), and what they are."""

KS = (1, 8, 16, 64)


@dataclass(frozen=True)
class Chosen:
    """What a notebook's parameters come to.

    Attributes:
        task: name of the environment.
        bases: policies that are trained; none where a data set is only evaluated.
        settings: changes to every arm's config, as ``stages.agent_jobs`` takes them.
        options: of the environment whose tasks are shown; never those of the test split, where something is trained.
        model: what is evaluated on a data set without training; empty: nothing.
    """

    task: str
    bases: Sequence[str]
    settings: Sections
    options: Mapping[str, Any]
    model: str = ""


def chosen(
    task: str,
    bases: Sequence[str],
    settings: Sections,
    model: str = "",
    dataset: str = "",
    train_dataset: str = "",
) -> Chosen:
    """What is trained, how, and on what.

    Args:
        task: name of the environment.
        bases: policies to start from, as ``stages.agent_jobs`` takes them; not looked at where there is a ``model``.
        settings: changes to every arm's config by section; they go before what is chosen here.
        model: a Hugging Face folder or name.
        dataset: math only: what is evaluated on, all of it; as ``math_data.read_problems`` takes it.
        train_dataset: math only: what is trained on; what stands in ``dataset`` too is left out. Empty: nothing is trained.

    Raises:
        InputError: parameters that do not go together, or a data set that cannot be read.
    """
    own = dict(settings.get("environment", {}).get("options", {}))
    _check(own, model, dataset, train_dataset)
    if not model:
        return Chosen(task, bases, settings, {"hard": "half", "split": "validation", **own})
    alone = bool(dataset) and not train_dataset
    sets = {"dataset": train_dataset or dataset, "test_dataset": "" if alone else dataset}
    options = {**OPTIONS[task], **{name: value for name, value in sets.items() if value}, **own}
    split = "all" if alone else "validation"
    derived: dict[str, dict[str, Any]] = {"environment": {"options": options}, "sampler": LIMITS[task]}
    if alone:
        derived["evaluation"] = {"test_tasks": _count(task, options, "all")}
    elif train_dataset:
        usual = agents.BASE["evaluation"]
        fields = {"test_tasks": "test", "eval_tasks": "validation"}
        derived["evaluation"] = {name: min(usual[name], _count(task, options, part)) for name, part in fields.items()}
    names = {**derived, **settings}
    together = {name: {**derived.get(name, {}), **settings.get(name, {})} for name in names}
    together["environment"]["options"] = options
    shown = {**options, "split": split}
    return Chosen(task, () if alone else (model,), together, shown, model if alone else "")


def table(found: Chosen, way: str, seed: int, folder: Path) -> pd.DataFrame:
    """``Evaluation.table`` of the model on every problem of its data set (or ``evaluation.test_tasks`` of them), untrained.

    Args:
        found: with a ``model`` that is only evaluated.
        way: one of ``WAYS``.
        seed: of the samples.
        folder: where run folders are; samples lie beside it, in ``evaluations``, by model, way, seed and settings.

    Raises:
        InputError: bad settings, a policy that cannot be loaded, or samples that cannot be written.
    """
    from sesa_lab.training.evaluate import evaluate_samples

    job = stages.agent_jobs(found.task, found.model, "sesa-paper", [seed], 0, folder, found.settings)[0]
    config, samples = job.config, job.config.evaluation.eval_samples
    same = config.changed(evaluation={"test_tasks": 0, "test_guided": "no"})  # more problems go into the same file
    out = folder.parent / "evaluations" / job.folder.parent.name / f"{way}-s{seed}-{digest(same)}.parquet"
    with writing(out.parent, "set runs to a folder beside which samples can be kept"):
        out.parent.mkdir(parents=True, exist_ok=True)
    ks, tasks = [k for k in KS if k <= samples], config.evaluation.test_tasks
    judged = evaluate_samples(config, None, samples, tasks, ks, split="all", way=way, out=out)
    return judged.table(seed).dropna(axis="columns", how="all").set_index("k")


def _check(own: Mapping[str, Any], model: str, dataset: str, train_dataset: str) -> None:
    for name, value in (("dataset", dataset), ("train_dataset", train_dataset)):
        if value and not model:
            raise InputError(
                f"{name} = {value!r} and no model: lab policies read no words; set model too, e.g. to"
                f" 'Qwen/Qwen2.5-1.5B-Instruct', or leave {name} empty"
            )
    if dataset and dataset == train_dataset:
        raise InputError(
            f"train_dataset = {train_dataset!r} is dataset too: what is evaluated on is left out of training, and nothing would"
            " remain; name another, or leave train_dataset empty"
        )
    for name in ("dataset", "test_dataset"):
        if name in own and (dataset or train_dataset):
            raise InputError(
                f"settings: environment.options.{name} beside the parameters dataset and train_dataset, which set it; leave it out"
            )


def _count(task: str, options: Mapping[str, Any], split: str) -> int:
    """How many tasks a split has."""
    return int(environments.make(task, **{**options, "split": split}).count)
