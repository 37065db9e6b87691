"""Do solutions follow their sketches? The same tasks with sketches swapped, taken from another task, and left out.

Every arm draws its solution i of a task from the same random stream, so that arms differ by the sketch alone. Whether a sketch
*changes* what is done, rather than goes along with what would have been done, is the difference between arms:

    effect = P(method m | given sketch m) - P(method m | given another sketch of the task)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sesa_lab import engines
from sesa_lab.config import Config, SamplerConfig
from sesa_lab.environments.methods import Methods
from sesa_lab.errors import InputError
from sesa_lab.samplers import Request
from sesa_lab.samplers.dialogue import normal
from sesa_lab.samplers.sesa import draft, expand
from sesa_lab.seeding import stream
from sesa_lab.training import evaluate, held_out, room
from sesa_lab.training.fidelity_table import ARMS, Fidelity
from sesa_lab.types import Group, Sketch

WAYS = ("sesa", "iid-sketches")
"""How a task's sketches are drafted: one after another, or i.i.d."""
# Positions among the "evaluation" streams of a seed; 0 to 2 are ``held_out``'s.
_DRAWN, _SWAPS, _DONORS = 3, 4, 5


def compare(
    config: Config,
    run: str | Path | None,
    tasks: int,
    sketches: int = 8,
    samples: int = 1,
    split: str | None = None,
    way: str = "sesa",
) -> Fidelity:
    """Draft sketches to each task, and expand them in all ``ARMS``: ``sketches`` x ``samples`` solutions a task and arm.

    The policy of a run is asked by the prompts that the run recorded, as in ``evaluate_samples``.

    Args:
        config: environment, policy, engine, temperature, token limits and seed.
        run: a run folder whose last checkpoint's adapter is asked; None: the policy as ``config`` names it.
        tasks: tasks 0..tasks-1 of the split; at least 2.
        sketches: K, sketches a task, each kept as it comes; at least 2.
        samples: solutions a sketch.
        split: as in ``evaluate_samples``.
        way: one of ``WAYS``.

    Raises:
        InputError: numbers too small, an unknown way, an environment of several turns, or whatever ``evaluate_samples`` refuses.
    """
    environment = _asked(config, tasks, sketches, samples, split, way)
    policy, speaker = evaluate.opened(config, evaluate.trained(config, run), run, environment)
    sampler = dataclasses.replace(
        held_out.guided(config, sketches),
        group_size=sketches * samples,
        expansions=samples,
        drafting="iid" if way == "iid-sketches" else "sequential",
    )
    requests = [Request(task, speaker.answer(task)) for task in map(environment.task, range(tasks))]
    need = room.extent(speaker, environment, sampler, requests)
    room.check(policy, need)
    room.check_group(policy, speaker, sampler, requests, " or draft fewer sketches")
    size = max(1, room.rows_at_once(policy, need, sampler.group_size) // sampler.group_size)
    methods = Methods(environment, policy.form)
    with closing(engines.make(config.engine, policy)) as engine, engine.synced():
        bench = _Bench(engine, speaker, sampler, requests, config.run.seed, size)
        drafted = bench.drafted()
        plan = _plan(drafted, methods, config.run.seed)
        rows = [
            row
            for arm in ARMS
            for group, own, given in zip(bench.solved(drafted, plan, arm), drafted, plan[arm], strict=True)
            for row in _rows(environment, methods, arm, group, own, given, samples)
        ]
    return Fidelity(pd.DataFrame(rows))


def _asked(config: Config, tasks: int, sketches: int, samples: int, split: str | None, way: str) -> Any:
    """The environment, where what is asked for can be compared on it."""
    if tasks < 2 or sketches < 2 or samples < 1:
        raise InputError(
            f"expected tasks >= 2 and sketches >= 2, to swap them, and samples >= 1; got {tasks}, {sketches}, {samples}"
        )
    if way not in WAYS:
        raise InputError(f"way of drafting {way!r}: expected one of {', '.join(WAYS)}")
    environment = evaluate.asked(config, split)
    if environment.turns > 1:
        raise InputError(
            f"{environment.name} answers in {environment.turns} turns, and a method is read off whole answers alone; set"
            " --option turns=1"
        )
    held_out.check_enough(environment, "tasks", tasks)
    return environment


@dataclasses.dataclass(frozen=True)
class _Given:
    """What the sketches of one task are replaced by: sketch k by ``sketches[numbers[k]]``, None: by none.

    Attributes:
        sketches: those that may be given.
        numbers: one for each of the task's own.
        kept: those of the task's own that this arm speaks of.
    """

    sketches: Sequence[Sketch]
    numbers: Sequence[int | None]
    kept: frozenset[int]


@dataclasses.dataclass(frozen=True)
class _Bench:
    """Draws sketches and solutions of all tasks, ``size`` tasks side by side; streams depend on task and place alone."""

    engine: Any
    speaker: Any
    sampler: SamplerConfig
    requests: Sequence[Request]
    seed: int
    size: int

    def drafted(self) -> list[list[Sketch]]:
        count = self.sampler.group_size // self.sampler.expansions
        return [
            own
            for part, streams in self._parts()
            for own in draft(self.engine, self.requests[part], self.sampler, self.speaker, streams, count)
        ]

    def solved(self, drafted: Sequence[Sequence[Sketch]], plan: dict[str, list[_Given]], arm: str) -> list[Group]:
        """One group a task; solutions of one sketch stand together, in the order of the task's own sketches."""
        given = plan[arm]
        times = self.sampler.expansions
        return [
            group
            for part, streams in self._parts()
            for group in expand(
                self.engine, self.requests[part], [one.sketches for one in given[part]],
                [[number for number in one.numbers for _ in range(times)] for one in given[part]],
                self.sampler, self.speaker, streams,
            )
        ]  # fmt: skip

    def _parts(self) -> Any:
        for first in range(0, len(self.requests), self.size):
            yield (
                slice(first, first + self.size),
                lambda g, i, first=first: stream(self.seed, "evaluation", _DRAWN, first + g, i),
            )


def _plan(drafted: Sequence[Sequence[Sketch]], methods: Methods, seed: int) -> dict[str, list[_Given]]:
    """Which sketches each task is given in each arm; each other task's sketches go to exactly one task."""
    order = stream(seed, "evaluation", _DONORS, 0, 0).permutation(len(drafted))
    donor = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
    plan: dict[str, list[_Given]] = {arm: [] for arm in ARMS}
    for task, own in enumerate(drafted):
        places = list(range(len(own)))
        everyone = frozenset(places)
        labels = [methods.of_sketch(task, s.text) or ("text", normal(s.text)) for s in own]
        partner = swapped(labels, stream(seed, "evaluation", _SWAPS, task, 0))
        # A sketch without counterpart is expanded as it is, so that places and streams stay as they are, and left out.
        numbers = [k if other is None else other for k, other in enumerate(partner)]
        plan["own"].append(_Given(own, places, everyone))
        plan["swapped"].append(_Given(own, numbers, frozenset(k for k in places if partner[k] is not None)))
        plan["foreign"].append(_Given(drafted[donor[task]], places, everyone))
        plan["none"].append(_Given(own, [None] * len(own), everyone))
    return plan


def swapped(labels: Sequence[Any], generator: np.random.Generator) -> list[int | None]:
    """For each item another one of another label, each given once, for as many items as possible.

    Items stand label by label, labels and items in random order, and each takes the place that lies one largest label further
    on: a rotation, not a uniform draw of all ways (of ``aabbcd``, c never gets d). Where one label has more than half of the
    items, as many of them as there are others take part, chosen at random.

    Args:
        labels: hashable, one an item.
        generator: chooses.

    Returns:
        The other's number, each at most once; None: no counterpart is left.
    """
    by_label: dict[Any, list[int]] = {}
    for item in generator.permutation(len(labels)).tolist():
        by_label.setdefault(labels[item], []).append(item)
    largest = max(by_label, key=lambda label: len(by_label[label]), default=None)
    others = len(labels) - len(by_label.get(largest, []))
    if largest in by_label:
        del by_label[largest][others:]
    line = [item for items in by_label.values() for item in items]
    step = max(map(len, by_label.values()), default=0)
    found: list[int | None] = [None] * len(labels)
    for place, item in enumerate(line):
        found[item] = line[(place + step) % len(line)]
    return found


def _rows(
    environment: Any,
    methods: Methods,
    arm: str,
    group: Group,
    own: Sequence[Sketch],
    given: _Given,
    samples: int,
) -> list[dict[str, Any]]:
    task, rows = group.task.index, []
    solving = methods.of_solutions(task)
    for index, candidate in enumerate(group.candidates):
        k = index // samples
        if k not in given.kept:
            continue
        number, text = given.numbers[k], candidate.text
        told = None if number is None else given.sketches[number].text
        method = None if told is None else methods.of_sketch(task, told)
        score = environment.score(group.task, text)
        rows.append(
            {
                "task": task,
                "arm": arm,
                "index": index,
                "own": own[k].text,
                "given": told,
                "own_method": methods.of_sketch(task, own[k].text),
                "given_method": method,
                "solves": None if method is None or solving is None else method in solving,
                "method": methods.of_answer(task, text),
                "completion": text,
                "success": score.success,
                "strategy": score.strategy,
                "logprob": candidate.logprob,
            }
        )
    return rows
