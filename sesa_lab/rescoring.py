"""A stored step, said anew by the policy that drew it: its log-probs at any temperature, and the frozen base's beside them.

Stored log-probs are of the distribution at the run's temperature. What they would be at another depends on the logits of all
tokens, so the policy itself is asked: the one that drew step n is that of checkpoint n - 1, or the one that the run began with
where n = 1. Of other steps the policy is not there any more, and none stands in for it.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from pathlib import Path
from typing import Any

from sesa_lab import environments, runs
from sesa_lab.config import Config, PolicyConfig
from sesa_lab.errors import InputError, short
from sesa_lab.playground.stored import Member, Step, read, stored_steps
from sesa_lab.runs.browse import told
from sesa_lab.training import evaluate
from sesa_lab.training.mismatch import logprobs

LOW, HIGH = 0.1, 5.0
"""Temperatures that are looked at: beyond them a softmax is a maximum, or nearly uniform."""


class Rescorer:
    """The policy that drew a step of a run, and the base below its adapter.

    Args:
        run: a run or its folder.
        step: which; None: the last stored step whose policy is kept.

    Attributes:
        stored: the step as it is stored.

    Raises:
        InputError: no run, no such step, one whose policy was not kept (the message says of which steps it was), an environment
            of several turns, or whatever keeps a policy from being loaded.
    """

    def __init__(self, run: runs.Run | str | Path, step: int | None = None) -> None:
        found = run if isinstance(run, runs.Run) else runs.load(run)
        self.stored: Step = read(found, _kept(found, step))
        config = self.stored.config
        environment: Any = environments.make(config.environment.name, **config.environment.options)
        if environment.turns > 1:
            raise InputError(
                f"{found.path}: {environment.name} answers in {environment.turns} turns, and what stood between them is not stored;"
                " other temperatures can be looked at for answers of one turn"
            )
        chosen = _drawn_by(found, config, self.stored.number)
        self._policy, speaker = evaluate.opened(config, chosen, found.path, environment)
        self._contexts = _contexts(self.stored, environment, speaker)
        self._known: dict[float, Step] = {}

    def at(self, temperature: float) -> Step:
        """The step as if its candidates had been drawn at ``temperature``: the same words, weighed by that distribution.

        ``drawn`` and ``old`` of its members, and ``base`` beside them, are the loaded weights' own; ``engine`` equals ``drawn``,
        for what another engine would have said at that temperature nobody knows. Rewards stay.

        Args:
            temperature: of the softmax, ``LOW`` to ``HIGH``.

        Raises:
            InputError: a temperature out of range.
        """
        if isinstance(temperature, bool) or not isinstance(temperature, (int, float)) or not LOW <= temperature <= HIGH:
            raise InputError(f"temperature = {short(temperature)}, expected a number from {LOW} to {HIGH}")
        if temperature not in self._known:
            config = self.stored.config
            sampler = dataclasses.replace(config.sampler, temperature=float(temperature))
            changed = dataclasses.replace(config, sampler=sampler)
            own = self._scored(changed)
            with self._policy.model.disable_adapter():
                base = self._scored(changed)
            members = tuple(map(_anew, self.stored.members, own, base))
            self._known[temperature] = dataclasses.replace(self.stored, members=members, config=changed)
        return self._known[temperature]

    def _scored(self, config: Config) -> list[dict[str, tuple[float, ...]]]:
        """For each member, kind of context -> log-probs of its tokens (nats)."""
        wanted = [(n, kind, ids) for n, kinds in enumerate(self._contexts) for kind, ids in kinds.items()]
        tokens = [self.stored.members[n].tokens for n, _, _ in wanted]
        found = logprobs(self._policy, config, [ids for _, _, ids in wanted], tokens)
        scored: list[dict[str, tuple[float, ...]]] = [{} for _ in self._contexts]
        for (n, kind, _), own in zip(wanted, found, strict=True):
            scored[n][kind] = tuple(own.tolist())
        return scored


def _kept(run: runs.Run, step: int | None) -> int:
    """The step, where the policy that drew it is there."""
    there = sorted({*stored_steps(run)} & {1, *(number + 1 for number, _ in run.checkpoints)})
    if step is not None and step in there:
        return step
    if not there:
        raise InputError(
            f"{run.path} has no stored step whose policy is kept; train with a smaller run.checkpoint_every, below"
            f" {run.config.run.steps}"
        )
    if step is None:
        return there[-1]
    raise InputError(
        f"the policy that drew step {short(step)} of {run.path} was not kept: checkpoints hold those that drew step"
        f" {told(there)}; choose one of them, or train with a smaller run.checkpoint_every"
    )


def _drawn_by(run: runs.Run, config: Config, step: int) -> PolicyConfig:
    if step == 1:
        return config.policy
    return dataclasses.replace(config.policy, adapter=str(dict(run.checkpoints)[step - 1]))


def _contexts(step: Step, environment: Any, speaker: Any) -> list[dict[str, tuple[int, ...]]]:
    """For each member, kind of context -> its token ids, built as the sampler did."""
    by_group: dict[int, list[Member]] = defaultdict(list)
    found = []
    for member in step.members:
        task = environment.task(member.task)
        kinds = {"task": speaker.answer(task)}
        if member.drawn_under == "sketch":
            kinds["sketch"] = speaker.guided(task, member.sketch or "")
        if member.drawn_under == "history":
            earlier = by_group[member.group][-len(member.history) :]
            if tuple(one.completion for one in earlier) != member.history:
                raise InputError(
                    f"{step.run.path / 'rollouts'}, step {step.number}, group {member.group}, candidate {member.index}: its history"
                    " is not that of the candidates before it; the rows are damaged"
                )
            ids = list(kinds["task"])
            for one in earlier:
                ids += [*one.tokens, *speaker.between(one.finish)]
            kinds["history"] = tuple(ids)
        by_group[member.group].append(member)
        found.append(kinds)
    return found


def _anew(member: Member, own: dict[str, tuple[float, ...]], base: dict[str, tuple[float, ...]]) -> Member:
    drawn = own[member.drawn_under]
    return dataclasses.replace(member, drawn=drawn, engine=drawn, old=own[member.known_under], base=base)
