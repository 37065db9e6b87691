"""Evaluation by samples: any policy, any environment, drawn in any way; pass@k and coverage@k with intervals over tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from sesa_lab import engines, environments, runs, statistics
from sesa_lab.config import Config, PolicyConfig, SamplerConfig
from sesa_lab.diversity import coverage_at_k, pass_at_k
from sesa_lab.errors import InputError
from sesa_lab.policies import Policy, load_policy, merged
from sesa_lab.prompts import Speaker, Templates
from sesa_lab.runs import schema
from sesa_lab.runs.files import describe
from sesa_lab.runs.samples import SampleStore
from sesa_lab.samplers import Request
from sesa_lab.seeding import stream
from sesa_lab.settings import WAYS
from sesa_lab.training import held_out, room
from sesa_lab.training.credit import verdicts
from sesa_lab.training.exact import UNKNOWN, exact_at
from sesa_lab.training.held_out import answers, check_enough, in_split
from sesa_lab.types import Group

AT_ONCE = 1024  # samples after which an evaluation is kept on disk, or those of one task


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What was drawn, and what it comes to.

    Attributes:
        samples: one row a sample, columns as in ``runs.schema.SAMPLES``; ``logprob`` is the sum over its tokens, nats, under what
            it was drawn under.
        tasks: one row a task and k: ``task``, ``k``, ``n`` (samples), ``success`` (share), ``pass_at_k``, ``coverage_at_k``
            (distinct successful strategies), ``exact_accuracy`` and ``exact_coverage`` (given the task alone; NaN where answers
            cannot be enumerated). pass@k and coverage@k are NaN where k > n.
    """

    samples: pd.DataFrame
    tasks: pd.DataFrame

    def table(self, seed: int = 0) -> pd.DataFrame:
        """One row a k: means over tasks, of pass@k and coverage@k with 95 % bootstrap intervals over tasks (``_low``, ``_high``).

        Columns: ``k``, ``tasks``, ``n``, the two and their intervals, and the means of the exact values.

        Args:
            seed: of the bootstrap.
        """
        rows = []
        for k, part in self.tasks.groupby("k", sort=False):
            row: dict[str, Any] = {"k": k, "tasks": len(part), "n": part["n"].iloc[0]}
            for place, name in enumerate(("pass_at_k", "coverage_at_k")):
                found = statistics.bootstrap_mean(part[name], stream(seed, "bootstrap", place))
                row |= {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
            exact = {name: part[name].mean() for name in ("exact_accuracy", "exact_coverage")}
            rows.append(row | exact)
        return pd.DataFrame(rows)


def evaluate_samples(
    config: Config,
    run: str | Path | None,
    samples: int,
    tasks: int,
    ks: Sequence[int],
    split: str | None = None,
    way: str = "parallel",
    out: str | Path | None = None,
) -> Evaluation:
    """Draw ``samples`` answers to each task and judge them.

    Drawn in parallel pass@k and coverage@k are unbiased. Drawn in another way a task's samples depend on each other: they are
    then those of k of these samples, chosen at random, not of k drawn so.

    The policy of a run is asked by the prompts that the run recorded, whatever has become of their files, unless ``config``
    names another folder or another environment.

    Args:
        config: environment, policy, engine, temperature and seed.
        run: a run folder whose last checkpoint's adapter is evaluated; None: the policy as ``config`` names it.
        samples: n, samples a task.
        tasks: tasks 0..tasks-1 of the split are evaluated.
        ks: values of k.
        split: ``train``, ``validation`` or ``test`` (or another that the environment has); None: validation, or the tasks there
            are in an environment without splits.
        way: one of ``settings.WAYS``.
        out: keep the samples in this Parquet file, some tasks at a time: an evaluation that was stopped goes on where it was,
            and one of more tasks draws those that are not there yet.

    Raises:
        InputError: samples, tasks or k below 1; an unknown way; a run without a checkpoint; a split of an environment that has
            none; ``out`` holds samples made otherwise.
    """
    if min(samples, tasks, *ks) < 1:
        raise InputError(f"expected samples, tasks and k of at least 1, got {samples}, {tasks}, {list(ks)}")
    if way not in WAYS:
        raise InputError(f"way of drawing {way!r}: expected one of {', '.join(WAYS)}")
    environment = asked(config, split)
    check_enough(environment, "tasks", tasks)
    chosen = trained(config, run)
    sampler = _sampler(config, samples, way)
    exact = environment.enumerate(environment.task(0)) is not None
    if exact:  # at the temperature of the exact values beside them
        sampler = dataclasses.replace(sampler, temperature=config.sampler.temperature)
    store = None if out is None else SampleStore(out, _settings(config, environment, chosen, sampler))
    done = frozenset() if store is None else store.done
    missing = [task for task in range(tasks) if task not in done]
    drawn: list[dict[str, Any]] = []
    exact_values: dict[int, Any] = {}
    if missing or exact:
        policy, speaker = opened(config, chosen, run, environment)
        for rows in _drawn(config, policy, speaker, environment, sampler, missing) if missing else ():
            drawn += rows
            if store is not None:
                store.add(rows)
        if exact:
            with merged(policy.model):
                for task in range(tasks):
                    at = exact_at(policy, environment, speaker, environment.task(task), sampler.temperature)
                    exact_values[task] = {k: at(k) for k in ks}
    found = schema.batch("samples", drawn).to_pandas() if store is None else store.finish()
    found = found[found["task"] < tasks].reset_index(drop=True)
    measured = [
        {"task": task, **_row(part, k), **exact_values.get(int(task), {}).get(k, UNKNOWN)}
        for task, part in found.groupby("task")
        for k in ks
    ]
    return Evaluation(found, pd.DataFrame(measured))


def _sampler(config: Config, samples: int, way: str) -> SamplerConfig:
    if way in ("sesa", "iid-sketches"):
        sampler = held_out.guided(config, samples)
        return sampler if way == "sesa" else dataclasses.replace(sampler, drafting="iid")
    sampler = held_out.direct(config, samples)
    return sampler if way == "parallel" else dataclasses.replace(sampler, name="sequential")


def _settings(config: Config, environment: Any, policy: Any, sampler: SamplerConfig) -> dict[str, Any]:
    """All that samples depend on, as it is kept with them. Of a trained policy the adapter's content, not its place."""
    adapter = {}
    if policy.adapter:
        adapter = {"sha256": describe(Path(policy.adapter) / "adapter_model.safetensors")["sha256"]}
    names = ("model", "prompts", "dtype", "thinking")
    return {
        "environment": {"name": environment.name, **environment.options},
        "policy": {**{name: getattr(policy, name) for name in names}, "adapter": adapter},
        "engine": config.engine.name,
        "sampler": dataclasses.asdict(sampler),
        "seed": config.run.seed,
    }


def _drawn(
    config: Config, policy: Policy, speaker: Speaker, environment: Any, sampler: SamplerConfig, tasks: Sequence[int]
) -> Any:
    """The samples of some tasks after another, as rows; how many tasks at a time depends on the number of samples alone."""
    if sampler.name != "parallel":
        requests = [Request(task, speaker.answer(task)) for task in map(environment.task, tasks)]
        room.check_group(policy, speaker, sampler, requests, " or draw without sketches")
    size = max(1, AT_ONCE // sampler.group_size)
    streams = partial(stream, config.run.seed, "evaluation")
    with closing(engines.make(config.engine, policy)) as engine:
        first = 0
        while first < len(tasks):  # neighbours only: streams count on from the first
            last = first + 1
            while last < min(first + size, len(tasks)) and tasks[last] == tasks[last - 1] + 1:
                last += 1
            groups = answers(engine, policy, speaker, environment, tasks[first:last], sampler, streams)
            yield [row for group in groups for row in _rows(environment, group)]
            first = last


def _rows(environment: Any, group: Group) -> list[dict[str, Any]]:
    rows = []
    for number, (candidate, score) in enumerate(zip(group.candidates, verdicts(environment, group), strict=True)):
        rows.append(
            {
                "task": group.task.index,
                "sample": number,
                "prompt": group.task.prompt,
                "sketch": group.sketches[candidate.sketches[0]].text if candidate.sketches else None,
                "completion": candidate.text,
                "tokens": candidate.length,
                "logprob": candidate.logprob,
                "finish": candidate.turns[-1].completion.finish,
                "reward": float(score.reward),
                "success": score.success,
                "strategy": score.strategy,
            }
        )
    return rows


def asked(config: Config, split: str | None) -> Any:
    """The environment on the tasks of ``split``; None: validation, or the tasks there are in an environment without splits.

    Raises:
        InputError: a split of an environment that has none.
    """
    environment = environments.make(config.environment.name, **config.environment.options)
    if "split" not in environment.options:
        if split is not None:
            raise InputError(f"--split {split}: environment {environment.name} has no splits; leave it out")
        return environment
    return in_split(config.environment.name, environment.options, split or "validation")


def recorded_prompts(run: runs.Run, config: Config | None = None) -> Templates | None:
    """The prompts that a run recorded when it began.

    Args:
        run: the run.
        config: how its policy is asked now; None: as in the run.

    Returns:
        None where there are none (the run was made before they were recorded), or ``config`` names another folder of prompts or
        another environment than the run's.

    Raises:
        InputError: prompts.json is damaged.
    """
    own, asked = run.config, config or run.config
    other = (own.policy.prompts, own.environment.name) != (asked.policy.prompts, asked.environment.name)
    if other or not run.prompts:
        return None
    return Templates.recorded(own.environment.name, run.prompts, f"{run.path}/prompts.json")


def trained(config: Config, run: str | Path | None) -> PolicyConfig:
    """Which policy is judged: that of ``config``, with the last checkpoint's adapter where a run is named.

    Raises:
        InputError: no run, or one without a checkpoint.
    """
    if run is None:
        return config.policy
    checkpoints = runs.load(run).checkpoints
    if not checkpoints:
        raise InputError(f"{run} has no checkpoint yet; let it train on (sesa-lab resume {run})")
    return dataclasses.replace(config.policy, adapter=str(checkpoints[-1][1]))


def opened(config: Config, chosen: PolicyConfig, run: str | Path | None, environment: Any) -> tuple[Policy, Speaker]:
    """The policy that ``trained`` chose, loaded, and how it is asked: by the prompts the run recorded, where there are any."""
    policy = load_policy(chosen, config.environment.name, environment.options, config.run.seed)
    recorded = None if run is None else recorded_prompts(runs.load(run), config)
    speaker = Speaker(policy.tokenizer, policy.form, environment.name, policy.stop_ids, config.policy.prompts, recorded)
    return policy, speaker


def _row(part: pd.DataFrame, k: int) -> dict[str, float]:
    n, successes = len(part), int(part["success"].sum())
    found = [strategy if hit else None for strategy, hit in zip(part["strategy"], part["success"], strict=True)]
    return {
        "k": k,
        "n": n,
        "success": successes / n,
        "pass_at_k": pass_at_k(n, successes, k),
        "coverage_at_k": coverage_at_k(found, k),
    }
