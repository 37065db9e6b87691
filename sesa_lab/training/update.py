"""One rollout -> optimiser steps on the LoRA weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from sesa_lab.config import Config, UpdateConfig
from sesa_lab.policies import Policy, Rows, token_logprobs
from sesa_lab.seeding import stream
from sesa_lab.team import ALONE, Team
from sesa_lab.training import losses
from sesa_lab.training.batch import Batch, Item, items_of, make_batch, token_scale
from sesa_lab.training.lockstep import in_step
from sesa_lab.types import Scored


@dataclass
class Report:
    """What an update saw.

    Token means are over every trained token of every pass; ``entropy`` is that of the policy when drawn, over all candidates'
    tokens under their first training context.

    Attributes:
        old: per candidate, log-probs of its tokens, policy when drawn, (first) training context (nats).
        importance: per candidate, the factor its policy terms got there.
        ratio: per candidate, p(y|training context) / q(y|drawing context), untruncated.
        entropies: per candidate, of the policy's distribution at each of its tokens, as ``old`` (nats).
        looked: whether these, and the entropy, were taken from all items before the first pass.
    """

    old: list[list[float]]
    importance: list[float]
    ratio: list[float]
    loss: float = 0.0
    grad_norm: float = 0.0
    entropy: float = 0.0
    approx_kl: float = 0.0
    kl_base: float = float("nan")
    clip_fraction: float = 0.0
    tokens_trained: int = 0
    looked: bool = False
    sums: dict[str, float] = field(default_factory=dict)
    entropies: list[list[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.entropies = self.entropies or [[] for _ in self.old]

    def add(self, name: str, value: float) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + value

    def add_entropy(self, items: Sequence[Item], item: torch.Tensor, entropy: torch.Tensor) -> None:
        """Add that of the tokens of candidates under their first training context; ``item`` says whose token each is."""
        counted = torch.tensor([not (i.is_sketch or i.is_second) for i in items], device=item.device)[item]
        self.add("entropy", float(entropy[counted].sum()))
        self.add("entropy_tokens", int(counted.sum()))


def update(
    policy: Policy,
    optimiser: torch.optim.Optimizer,
    config: Config,
    scored: Sequence[Scored],
    step: int,
    team: Team = ALONE,
) -> Report:
    """``epochs`` passes of ``minibatches`` optimiser steps over one rollout.

    Each process of a team differentiates the items of its own groups; scales, minibatches and the report are of all.

    Args:
        policy: its adapter is changed in place.
        optimiser: over the adapter's weights.
        config: ``update``, ``sampler`` (temperature, token limits) and ``run.seed`` are used.
        scored: all groups of the step with their advantages.
        step: the training step; fixes the order of minibatches.
        team: the processes that take this step together.
    """
    rule = config.update
    candidates = [c for s in scored for c in s.group.candidates]
    taught = scored if rule.train_sketches != "none" else ()
    items = items_of(
        rule,
        candidates,
        [a for s in scored for a in s.advantages],
        [t for s in scored for t in s.transfers],
        [sketch for s in taught for sketch in s.group.sketches],
        [a for s in taught for a in s.sketch_advantages],
    )
    report = Report([[] for _ in candidates], [1.0] * len(candidates), [1.0] * len(candidates))
    several = rule.epochs * rule.minibatches > 1
    in_turns = any(len(item.turns) > 1 for item in items)  # they may lie in different rows, weights need them all
    mine = _shared_out(items, scored, team)
    old: dict[int, torch.Tensor] = {}
    counts = [True] * len(items)
    if several or in_turns:
        old, counts = _first_look(policy, config, items, mine, report, team)
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    mean_sketches = sum(item.is_sketch for item in items) / rule.minibatches
    norms = []
    for epoch in range(rule.epochs):
        for members in _minibatches(config, items, step, epoch):
            optimiser.zero_grad(set_to_none=True)
            trained = [i for i in members if mine[i] and counts[i]]
            if trained:
                scale = token_scale(config, [items[i] for i in members], mean_sketches)
                kept_scale = scale[torch.tensor([mine[i] and counts[i] for i in members])]
                own = [items[i] for i in trained]
                kept = torch.cat([old[i] for i in trained]) if old else None
                accumulate(policy, config, make_batch(own, kept_scale, policy.device), kept, report, own, team)
            else:  # the optimiser goes on by its momentum, as after a gradient of zero
                for parameter in parameters:
                    parameter.grad = torch.zeros_like(parameter)
                with in_step(policy, config, team, 0, learning=True):
                    pass
            team.sum_gradients(parameters)
            norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, rule.max_grad_norm)))
            optimiser.step()
    return _finish(_of_all(report, team), norms)


def _shared_out(items: Sequence[Item], scored: Sequence[Scored], team: Team) -> list[bool]:
    """Which items this process differentiates: those of its groups."""
    own = set(team.share(len(scored)))
    candidates = [g in own for g, s in enumerate(scored) for _ in s.group.candidates]
    sketches = [g in own for g, s in enumerate(scored) for _ in s.group.sketches]
    return [(sketches if item.is_sketch else candidates)[item.member] for item in items]


def _of_all(report: Report, team: Team) -> Report:
    """What all processes saw, put together."""
    if team.size == 1:
        return report
    own = [n for n, old in enumerate(report.old) if old]
    seen = [(n, report.old[n], report.entropies[n], report.importance[n], report.ratio[n]) for n in own]
    for n, old, entropies, importance, ratio in team.gather(seen):
        report.old[n], report.entropies[n] = old, entropies
        report.importance[n], report.ratio[n] = importance, ratio
    whole = team.sum_counts({"loss": report.loss, "tokens_trained": report.tokens_trained})
    report.loss, report.tokens_trained = whole["loss"], whole["tokens_trained"]
    report.sums = team.sum_counts(report.sums)
    return report


def _minibatches(config: Config, items: Sequence[Item], step: int, epoch: int) -> list[list[int]]:
    """Numbers of the items of each optimiser step: candidates are dealt out at random with all their items; so are sketches."""
    parts = config.update.minibatches
    if parts == 1:
        return [list(range(len(items)))]
    part_of: dict[tuple[bool, int], int] = {}
    for sketches in (False, True):
        count = 1 + max((item.member for item in items if item.is_sketch is sketches), default=-1)
        own = (1,) if sketches else ()  # candidates are dealt out as if there were no sketches
        order = stream(config.run.seed, "minibatches", step, epoch, *own).permutation(count)
        for part, members in enumerate(np.array_split(order, parts)):
            part_of |= {(sketches, int(member)): part for member in members}
    return [
        [i for i, item in enumerate(items) if part_of[item.is_sketch, item.member] == part] for part in range(parts)
    ]


def accumulate(
    policy: Policy,
    config: Config,
    batch: Batch,
    old: torch.Tensor | None,
    report: Report,
    items: Sequence[Item],
    team: Team = ALONE,
) -> None:
    """Add the gradient of one optimiser step, micro-batch by micro-batch; the sum is the gradient of the whole.

    Args:
        policy: gradients are added to its adapter.
        config: as in ``update``.
        batch: the items of this optimiser step.
        old: (N,) log-probs, policy when drawn, training context; None: the policy has not changed since, so they are
            the present ones, detached. No turn of an item may then need another's log-probs.
        report: counts are added to it.
        items: those of the batch.
        team: the processes that do this at once.
    """
    rule = config.update
    whole = None if old is None else _weights(rule, batch, old, torch.arange(len(old), device=old.device))
    if whole is not None and old is not None and not report.looked:
        _record(report, items, batch.item[batch.rows.sequence.to(old.device)], whole, old)
    passes = batch.rows.split(rule.micro_batch)
    with in_step(policy, config, team, len(passes), learning=True):
        for rows, index in passes:
            now, entropy = token_logprobs(policy, rows, config.sampler.temperature)
            index = index.to(now.device)
            item = batch.item[rows.sequence.to(now.device)]
            before = now.detach() if old is None else old[index]
            weights = _weights(rule, batch, before, index) if whole is None else whole
            terms, clipped = losses.policy_terms(rule, now, before, batch.drawn[index], weights, item)
            terms = terms * losses.mismatch_weights(rule, batch.drawn[index], batch.engine[index])
            terms = terms - rule.entropy_coef * entropy
            if rule.kl_coef > 0:
                kl = losses.kl_terms(now, _reference(policy, rows, config), rule.kl_estimator)
                terms = terms + rule.kl_coef * kl
                report.add("kl_base", float(kl.detach().sum()))
            loss = (terms * batch.scale[item]).sum()
            loss.backward()
            report.loss += float(loss.detach())
            if whole is None:
                _record(report, items, item, weights, before, entropy.detach())
            if not report.looked:
                report.add_entropy(items, item, entropy.detach())
            change = now.detach() - before  # tokens are the old policy's, so this is k3 of KL(old || now)
            report.add("approx_kl", float((change.exp() - 1 - change).sum()))
            report.add("clipped", float(clipped.sum()))
            report.add("tokens", len(now))
    report.tokens_trained += batch.rows.tokens


def _weights(rule: UpdateConfig, batch: Batch, old: torch.Tensor, index: torch.Tensor) -> losses.Weights:
    """The correction's, from the log-probs of the batch's tokens ``index``."""
    item = batch.item[batch.rows.sequence.to(old.device)[index]]
    return losses.correct(rule, old, batch.drawn[index], batch.advantage, item, batch.off_policy)


@torch.no_grad()
def _first_look(
    policy: Policy, config: Config, items: Sequence[Item], mine: Sequence[bool], report: Report, team: Team
) -> tuple[dict[int, torch.Tensor], list[bool]]:
    """What is known before the first pass of the items of ``mine``: log-probs, and whether each can have a gradient.

    Log-probs are of an item's tokens under its training context, policy as it is now, by the item's number. An item without
    weight, of advantage 0 or dropped by the correction, has no gradient unless a KL penalty or an entropy bonus acts on every
    token. Such items are left out of the passes that follow.
    """
    rule = config.update
    report.looked = True
    counts = [False] * len(items)
    numbers = [n for n in range(len(items)) if mine[n]]
    own = [items[n] for n in numbers]
    if not own:
        with in_step(policy, config, team, 0):
            return {}, counts
    batch = make_batch(own, token_scale(config, own), policy.device)
    old, entropies = torch.empty_like(batch.drawn), torch.empty_like(batch.drawn)
    item = batch.item[batch.rows.sequence.to(old.device)]
    passes = batch.rows.split(rule.micro_batch)
    with in_step(policy, config, team, len(passes)):
        for rows, index in passes:
            logprobs, entropy = token_logprobs(policy, rows, config.sampler.temperature)
            index = index.to(old.device)
            old[index], entropies[index] = logprobs, entropy
            report.add_entropy(own, item[index], entropy)
    weights = _weights(rule, batch, old, torch.arange(len(old), device=old.device))
    _record(report, own, item, weights, old, entropies)
    lengths = [sum(len(turn.completion.ids) for turn in i.turns) for i in own]
    everywhere = rule.kl_coef > 0 or rule.entropy_coef > 0
    for n, weight in zip(numbers, (weights.advantage * weights.importance).tolist(), strict=True):
        counts[n] = everywhere or bool(weight)
    return dict(zip(numbers, old.split(lengths), strict=True)), counts


@torch.no_grad()
def _reference(policy: Policy, rows: Rows, config: Config) -> torch.Tensor:
    with policy.model.disable_adapter():
        return token_logprobs(policy, rows, config.sampler.temperature)[0]


def _record(
    report: Report,
    items: Sequence[Item],
    item: torch.Tensor,
    weights: losses.Weights,
    before: torch.Tensor,
    entropies: torch.Tensor | None = None,
) -> None:
    """Keep the first pass's old log-probs, entropies and weights of each candidate seen here, of its first item."""
    present = item.unique_consecutive().tolist()
    lengths = torch.bincount(item)[present].tolist()
    spread = [()] * len(present) if entropies is None else [part.tolist() for part in entropies.split(lengths)]
    for n, logprobs, spreads in zip(present, before.split(lengths), spread, strict=True):
        member = items[n].member
        # A second item may lie in an earlier micro-batch than the first.
        if not (items[n].is_sketch or items[n].is_second or report.old[member]):
            report.old[member], report.entropies[member] = logprobs.tolist(), list(spreads)
            report.importance[member] = float(weights.importance[n])
            report.ratio[member] = float(weights.ratio[n])


def _finish(report: Report, norms: Sequence[float]) -> Report:
    tokens = max(report.sums.get("tokens", 0.0), 1.0)
    report.grad_norm = float(np.mean(norms))
    report.loss /= len(norms)
    report.entropy = report.sums.get("entropy", 0.0) / max(report.sums.get("entropy_tokens", 0.0), 1.0)
    report.approx_kl = report.sums.get("approx_kl", 0.0) / tokens
    report.clip_fraction = report.sums.get("clipped", 0.0) / tokens
    if "kl_base" in report.sums:
        report.kl_base = report.sums["kl_base"] / tokens
    return report
