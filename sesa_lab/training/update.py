"""One rollout -> optimiser steps on the LoRA weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from sesa_lab.config import Config
from sesa_lab.policies import Policy, Rows, token_logprobs
from sesa_lab.seeding import stream
from sesa_lab.training import losses
from sesa_lab.training.batch import Batch, make_batch
from sesa_lab.types import Candidate


@dataclass
class Report:
    """What an update saw; token means are over every token of every pass.

    Attributes:
        old: per candidate, log-probs of its tokens, policy when drawn, training context (nats).
        importance: per candidate, the factor its policy terms got.
        ratio: per candidate, p(y|training context) / q(y|drawing context), untruncated.
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
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + value


def update(
    policy: Policy,
    optimiser: torch.optim.Optimizer,
    config: Config,
    candidates: Sequence[Candidate],
    advantages: Sequence[float],
    step: int,
) -> Report:
    """``epochs`` passes of ``minibatches`` optimiser steps over one rollout.

    Args:
        policy: its adapter is changed in place.
        optimiser: over the adapter's weights.
        config: ``update``, ``sampler.temperature``, ``sampler.max_tokens`` and ``run.seed`` are used.
        candidates: all candidates of the step.
        advantages: one a candidate.
        step: the training step; fixes the order of minibatches.
    """
    rule = config.update
    count = len(candidates)
    report = Report([[] for _ in range(count)], [1.0] * count, [1.0] * count)
    single = rule.epochs * rule.minibatches == 1
    old = None if single else _old_logprobs(policy, config, candidates)
    norms = []
    for epoch in range(rule.epochs):
        order = np.arange(count)
        if rule.minibatches > 1:
            order = stream(config.run.seed, "minibatches", step, epoch).permutation(count)
        for part in np.split(order, rule.minibatches):
            members = [int(i) for i in part]
            batch = make_batch(
                [candidates[i] for i in members], [advantages[i] for i in members], rule.conditioning, policy.device
            )
            kept = None if old is None else torch.cat([old[i] for i in members])
            optimiser.zero_grad(set_to_none=True)
            accumulate(policy, config, batch, kept, report, members)
            parameters = [p for group in optimiser.param_groups for p in group["params"]]
            norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, rule.max_grad_norm)))
            optimiser.step()
    return _finish(report, norms)


def accumulate(
    policy: Policy, config: Config, batch: Batch, old: torch.Tensor | None, report: Report, members: Sequence[int]
) -> None:
    """Add the gradient of one optimiser step, micro-batch by micro-batch; the sum is the gradient of the whole.

    Args:
        policy: gradients are added to its adapter.
        config: as in ``update``.
        batch: the candidates of this optimiser step.
        old: (N,) log-probs, policy when drawn, training context; None: the policy has not changed since, so they are
            the present ones, detached.
        report: counts are added to it.
        members: for each candidate of the batch, its number in the report.
    """
    rule = config.update
    scale = losses.token_weights(rule, batch.lengths, config.sampler.max_tokens)
    for rows, index in batch.rows.split(rule.micro_batch):
        now, entropy = token_logprobs(policy, rows, config.sampler.temperature)
        candidate = rows.sequence.to(now.device)
        before = now.detach() if old is None else old[index.to(now.device)]
        drawn = batch.drawn[index.to(now.device)]
        weights = losses.correct(rule, before, drawn, batch.advantage, candidate, batch.off_policy)
        terms, clipped = losses.policy_terms(rule, now, before, drawn, weights, candidate)
        terms = terms - rule.entropy_coef * entropy
        if rule.kl_coef > 0:
            kl = losses.kl_terms(now, _reference(policy, rows, config), rule.kl_estimator)
            terms = terms + rule.kl_coef * kl
            report.add("kl_base", float(kl.detach().sum()))
        loss = (terms * scale[candidate]).sum()
        loss.backward()
        report.loss += float(loss.detach())
        _record(report, members, candidate, before, weights)
        change = now.detach() - before  # tokens are the old policy's, so this is k3 of KL(old || now)
        report.add("approx_kl", float((change.exp() - 1 - change).sum()))
        report.add("entropy", float(entropy.detach().sum()))
        report.add("clipped", float(clipped.sum()))
        report.add("tokens", len(now))
    report.tokens_trained += batch.rows.tokens


def _old_logprobs(policy: Policy, config: Config, candidates: Sequence[Candidate]) -> list[torch.Tensor]:
    batch = make_batch(candidates, [0.0] * len(candidates), config.update.conditioning, policy.device)
    found = torch.empty_like(batch.drawn)
    with torch.no_grad():
        for rows, index in batch.rows.split(config.update.micro_batch):
            found[index] = token_logprobs(policy, rows, config.sampler.temperature)[0]
    return list(found.split(batch.lengths.tolist()))


@torch.no_grad()
def _reference(policy: Policy, rows: Rows, config: Config) -> torch.Tensor:
    with policy.model.disable_adapter():
        return token_logprobs(policy, rows, config.sampler.temperature)[0]


def _record(
    report: Report, members: Sequence[int], candidate: torch.Tensor, before: torch.Tensor, weights: losses.Weights
) -> None:
    """Keep the first pass's old log-probs and weights of each candidate seen here."""
    present = candidate.unique_consecutive().tolist()
    lengths = torch.bincount(candidate)[present].tolist()
    for c, logprobs in zip(present, before.split(lengths), strict=True):
        if not report.old[members[c]]:
            report.old[members[c]] = logprobs.tolist()
            report.importance[members[c]] = float(weights.importance[c])
            report.ratio[members[c]] = float(weights.ratio[c])


def _finish(report: Report, norms: Sequence[float]) -> Report:
    tokens = max(report.sums.get("tokens", 0.0), 1.0)
    report.grad_norm = float(np.mean(norms))
    report.loss /= len(norms)
    report.entropy = report.sums.get("entropy", 0.0) / tokens
    report.approx_kl = report.sums.get("approx_kl", 0.0) / tokens
    report.clip_fraction = report.sums.get("clipped", 0.0) / tokens
    if "kl_base" in report.sums:
        report.kl_base = report.sums["kl_base"] / tokens
    return report
