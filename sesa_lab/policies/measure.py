"""What a fresh lab policy can do, by samples on tasks it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sesa_lab.engines import Sampling, TorchEngine
from sesa_lab.policies.documents import Solved
from sesa_lab.policies.load import Policy
from sesa_lab.prompts import Speaker
from sesa_lab.seeding import stream
from sesa_lab.types import Completion

SAMPLES = 16  # direct answers a task
SKETCHES = 8  # a task, of each way of drafting
_ANSWERS, _IID, _LISTED, _GUIDED = range(4)


def sampled(environment: Any, solved: Sequence[Solved], policy: Policy, speaker: Speaker, seed: int) -> dict[str, Any]:
    """Success of direct and of guided answers, and how distinct sketches are; temperature 1, for the model card.

    Args:
        environment: judges.
        solved: tasks, not trained on.
        policy: as loaded.
        speaker: how it is asked.
        seed: fixes the samples.

    Returns:
        Means over tasks: ``success`` (share of direct answers that succeed) and the same on hard tasks only
        (``success_hard``; no habitual solution; None where there are none), ``solved_by_16`` (share of tasks that one of
        16 direct answers solves), ``readable`` (share of direct answers that can be read), ``habitual`` (share of
        readable ones whose sketch is habitual), ``guided_success`` and ``guided_follows`` (answers to sketches drawn
        i.i.d.: share that succeed, share whose own sketch is the one given), ``sketches_useful`` (share of those sketches that a
        solution has), ``distinct_listed`` and ``distinct_iid`` (distinct sketches among 8).
    """
    longest = max(len(speaker.encode(text)) + 1 for one in solved for texts in one.ways.values() for text in texts)
    draw = _Sampler(policy, speaker, seed, 2 * longest)
    tasks = [one.task for one in solved]
    answers = draw([speaker.answer(task) for task in tasks], SAMPLES, _ANSWERS)
    direct = [[_judged(environment, task, c) for c in own] for task, own in zip(tasks, answers, strict=True)]
    readable = [one for own in direct for one in own if one[1] is not None]
    hard = [not any(map(environment.habitual, one.ways)) for one in solved]
    iid = draw([speaker.draft(task, "list", ()) for task in tasks], SKETCHES, _IID)
    guided_by = [(place, sketch.text) for place, own in enumerate(iid) for sketch in own]
    expanded = draw([speaker.guided(tasks[place], sketch) for place, sketch in guided_by], 1, _GUIDED)
    guided = [_judged(environment, tasks[g[0]], own[0]) for g, own in zip(guided_by, expanded, strict=True)]
    rate = [np.mean([won for won, _ in own]) for own in direct]
    values = {
        "success": np.mean(rate),
        "success_hard": np.mean([r for r, h in zip(rate, hard, strict=True) if h]) if any(hard) else None,
        "solved_by_16": np.mean([r > 0 for r in rate]),
        "readable": len(readable) / (len(tasks) * SAMPLES),
        "habitual": np.mean([environment.habitual(sketch) for _, sketch in readable]) if readable else None,
        "guided_success": np.mean([won for won, _ in guided]),
        "guided_follows": np.mean([own == given for (_, own), (_, given) in zip(guided, guided_by, strict=True)]),
        "sketches_useful": np.mean([sketch in solved[place].ways for place, sketch in guided_by]),
        "distinct_listed": _distinct(_listed(draw, tasks)),
        "distinct_iid": _distinct(iid),
    }
    return {name: None if value is None else round(float(value), 4) for name, value in values.items()}


def _judged(environment: Any, task: Any, completion: Completion) -> tuple[bool, str | None]:
    """Whether an answer succeeds, and its sketch."""
    return environment.score(task, completion.text).success, environment.sketch(task, completion.text)


def _listed(draw: _Sampler, tasks: Sequence[Any]) -> list[list[Completion]]:
    """One list of sketches a task, drawn one after another."""
    found: list[list[Completion]] = [[] for _ in tasks]
    for number in range(SKETCHES):
        contexts = [draw.speaker.draft(task, "list", own) for task, own in zip(tasks, found, strict=True)]
        for own, (new,) in zip(found, draw(contexts, 1, _LISTED, number), strict=True):
            own.append(new)
    return found


def _distinct(drawn: Sequence[Sequence[Completion]]) -> float:
    return float(np.mean([len({sketch.text for sketch in own}) for own in drawn]))


class _Sampler:
    """Draws ``count`` completions of at most ``most`` tokens under each context."""

    def __init__(self, policy: Policy, speaker: Speaker, seed: int, most: int) -> None:
        self.engine, self.speaker, self.seed = TorchEngine(policy), speaker, seed
        self.sampling = Sampling(most, speaker.stop_ids)

    def __call__(self, contexts: Sequence[tuple[int, ...]], count: int, *position: int) -> list[list[Completion]]:
        session = self.engine.start(contexts).fork([row for row in range(len(contexts)) for _ in range(count)])
        streams = [stream(self.seed, "pretrain", 3, *position, row) for row in range(len(contexts) * count)]
        drawn = session.sample(self.sampling, streams)
        return [drawn[begin : begin + count] for begin in range(0, len(drawn), count)]
