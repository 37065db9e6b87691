"""The whole loss and its gradient against a second implementation, written in another style.

The reference below shares no code with the package: padded (B, T) arrays, plain loops, one scalar at a time, formulas from
the papers. Logits are free parameters in float64, so that both sides agree to rounding and finite differences are sharp.
Lengths are powers of two that sum to one, because the package makes the averaging weights in float32, where 1/16 is exact
and 1/15 is not.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from sesa_lab.config import Config, SamplerConfig, UpdateConfig
from sesa_lab.policies import Rows, pack
from sesa_lab.training import update as update_module
from sesa_lab.training.batch import Batch, Item, token_scale
from sesa_lab.training.update import Report, accumulate
from sesa_lab.types import Completion, Context, Turn

WIDTH, LONGEST, MAX_TOKENS, TEMPERATURE = 5, 8, 16, 0.8
LOSSES = ("grpo", "dr_grpo", "dapo")
CORRECTIONS = ("none", "truncated_is", "positive_only", "asymmetric", "ppo_clip")
KL = ((0.0, "k1"), (0.3, "k1"), (0.3, "k2"), (0.3, "k3"))
ENTROPY = (0.0, 0.05)


@dataclass
class Problem:
    """Four candidates; lists are (B, T), cut at each candidate's length."""

    ids: list[list[int]]
    old: list[list[float]]
    drawn: list[list[float]]
    advantage: list[float]
    off_policy: list[bool]
    contexts: list[list[int]]
    logits: torch.Tensor
    reference: torch.Tensor


def problem(seed: int) -> Problem:
    draw = random.Random(seed)
    lengths = draw.sample([8, 4, 2, 2], 4)
    generator = torch.Generator().manual_seed(seed)
    logits, reference = torch.randn(2, 4, LONGEST, WIDTH, generator=generator, dtype=torch.float64)
    ids = [[draw.randrange(WIDTH) for _ in range(n)] for n in lengths]
    present = (logits / TEMPERATURE).log_softmax(-1)
    # Some 0.4 nats from the present log-probs: ratios fall on both sides of the clip range and inside it.
    old = [[float(present[b, t, i]) + draw.gauss(0, 0.4) for t, i in enumerate(row)] for b, row in enumerate(ids)]
    off_policy = [draw.random() < 0.7 for _ in range(4)]
    drawn = [[v + draw.gauss(0, 0.5) if off_policy[b] else v + 1e-7 for v in row] for b, row in enumerate(old)]
    advantage = [1.3, -0.8, 0.0, -1.1]
    draw.shuffle(advantage)
    contexts = [[draw.randrange(WIDTH) for _ in range(draw.randint(1, 3))] for _ in range(4)]
    return Problem(ids, old, drawn, advantage, off_policy, contexts, logits, reference)


# --- the reference ---------------------------------------------------------------------------------------------------


def log_probability(logits: torch.Tensor, token: int) -> torch.Tensor:
    scaled = logits / TEMPERATURE
    return scaled[token] - torch.log(sum(torch.exp(scaled[v]) for v in range(WIDTH)))


def entropy(logits: torch.Tensor) -> torch.Tensor:
    logprobs = [log_probability(logits, v) for v in range(WIDTH)]
    return -sum(torch.exp(a) * a for a in logprobs)


def reference_loss(p: Problem, rule: UpdateConfig, old: list[list[float]], logits: torch.Tensor) -> torch.Tensor:
    total = torch.zeros((), dtype=torch.float64)
    all_tokens = sum(len(row) for row in p.ids)
    for b in range(len(p.ids)):
        weight, advantage = importance(p, rule, old, b)
        inner = torch.zeros((), dtype=torch.float64)
        for t in range(LONGEST):
            if t >= len(p.ids[b]):
                continue  # padding
            now = log_probability(logits[b, t], p.ids[b][t])
            base = p.drawn[b][t] if rule.correction == "ppo_clip" else old[b][t]
            ratio = torch.exp(now - base)
            # min(r A, clip(r) A), case by case: a good token counts up to 1 + high, a bad one down to 1 - low.
            low, high = 1 - rule.clip_low, 1 + rule.clip_high
            held = high if advantage > 0 and ratio > high else low if advantage < 0 and ratio < low else ratio
            value = -weight * held * advantage
            if rule.kl_coef:
                value = value + rule.kl_coef * kl(
                    now, log_probability(p.reference[b, t], p.ids[b][t]), rule.kl_estimator
                )
            inner = inner + value - rule.entropy_coef * entropy(logits[b, t])
        if rule.loss == "grpo":
            total = total + inner / len(p.ids[b]) / len(p.ids)
        elif rule.loss == "dr_grpo":
            total = total + inner / MAX_TOKENS / len(p.ids)
        else:
            total = total + inner / all_tokens
    return total


def importance(p: Problem, rule: UpdateConfig, old: list[list[float]], b: int) -> tuple[float, float]:
    advantage, quotient = p.advantage[b], 1.0
    if p.off_policy[b]:
        for pv, qv in zip(old[b], p.drawn[b], strict=True):
            quotient *= math.exp(pv) / math.exp(qv)
    if rule.correction == "positive_only":
        cut = rule.correction_scope == "all" or p.off_policy[b]
        return 1.0, max(advantage, 0.0) if cut else advantage
    if rule.correction == "truncated_is" or (rule.correction == "asymmetric" and advantage < 0):
        return min(rule.truncation, quotient), advantage
    return 1.0, advantage


def kl(now: torch.Tensor, reference: torch.Tensor, estimator: str) -> torch.Tensor:
    if estimator == "k1":
        return now - reference
    if estimator == "k2":
        return 0.5 * (now - reference) ** 2
    r = torch.exp(reference - now)
    return r - 1 - torch.log(r)


# --- the package on the same problem ---------------------------------------------------------------------------------


@dataclass
class Table:
    """Stands in for a policy: the logits of every token are its parameters; the 'model' switches to the reference."""

    logits: torch.Tensor
    reference: torch.Tensor
    starts: list[int]
    off: bool = False
    model: Any = field(init=False)

    def __post_init__(self) -> None:
        self.model = self

    @contextlib.contextmanager
    def disable_adapter(self) -> Iterator[None]:
        self.off = True
        yield
        self.off = False


def table_logprobs(policy: Table, rows: Rows, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    logits = policy.reference if policy.off else policy.logits
    step = rows.column - torch.tensor(policy.starts)[rows.sequence]
    logprobs = (logits[rows.sequence, step] / temperature).log_softmax(-1)
    found = logprobs.gather(-1, rows.ids[rows.row, rows.column][:, None]).squeeze(-1)
    return found, -(logprobs.exp() * logprobs).sum(-1)


def package_loss(
    p: Problem, rule: UpdateConfig, given: bool, logits: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> tuple[float, Report]:
    monkeypatch.setattr(update_module, "token_logprobs", table_logprobs)

    def flat(values: list[list[float]]) -> torch.Tensor:
        return torch.tensor(list(itertools.chain.from_iterable(values)), dtype=torch.float64)

    config = Config(update=rule, sampler=SamplerConfig(temperature=TEMPERATURE, max_tokens=MAX_TOKENS))
    items = [
        Item((Turn(Context("task", ()), {}, Completion(tuple(ids), (), "", "stop")),), "task", b, p.advantage[b])
        for b, ids in enumerate(p.ids)
    ]
    batch = Batch(
        rows=pack(p.contexts, p.ids),
        drawn=flat(p.drawn),
        advantage=torch.tensor(p.advantage, dtype=torch.float64),
        off_policy=torch.tensor(p.off_policy),
        item=torch.arange(4),
        scale=token_scale(config, items).double(),
        engine=flat(p.drawn),
    )
    report = Report([[] for _ in p.ids], [1.0] * 4, [1.0] * 4)
    policy: Any = Table(logits, p.reference, [len(c) for c in p.contexts])
    accumulate(policy, config, batch, flat(p.old) if given else None, report, items)
    return report.loss, report


def present(p: Problem) -> list[list[float]]:
    """Old log-probs where the policy has not changed since the rollout."""
    return [[float(log_probability(p.logits[b, t], i)) for t, i in enumerate(row)] for b, row in enumerate(p.ids)]


@pytest.mark.parametrize("correction", [*CORRECTIONS, "positive_only off_policy", "truncated_is 2.5"])
@pytest.mark.parametrize("loss", LOSSES)
def test_loss_and_gradient(loss: str, correction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, _, option = correction.partition(" ")
    extra: dict[str, Any] = {"correction": name}
    extra |= {"correction_scope": option} if name == "positive_only" and option else {}
    extra |= {"truncation": float(option)} if name == "truncated_is" and option else {}
    cases = itertools.product(KL, ENTROPY, (True, False))
    for seed, ((coefficient, estimator), bonus, given) in enumerate(cases):
        p = problem(1000 * len(correction) + seed)
        rule = UpdateConfig(
            loss=loss, kl_coef=coefficient, kl_estimator=estimator, entropy_coef=bonus,
            clip_low=0.2, clip_high=0.28, micro_batch=seed % 3, **extra,
        )  # fmt: skip
        theirs = p.logits.clone().requires_grad_()
        expected = reference_loss(p, rule, p.old if given else present(p), theirs)
        expected.backward()
        ours = p.logits.clone().requires_grad_()
        value, _ = package_loss(p, rule, given, ours, monkeypatch)
        assert value == pytest.approx(float(expected.detach()), rel=1e-10, abs=1e-12)
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)
        assert float(ours.grad.abs().max()) > 1e-3 or name == "positive_only"


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_finite_differences(loss: str, correction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Central differences with h = 1e-5: error of order h^2 from the third derivative, 1e-11 from rounding."""
    p = problem(7)
    rule = UpdateConfig(loss=loss, correction=correction, kl_coef=0.3, entropy_coef=0.05)
    logits = p.logits.clone().requires_grad_()
    package_loss(p, rule, True, logits, monkeypatch)
    draw, h = random.Random(0), 1e-5
    for _ in range(6):
        b = draw.randrange(4)
        where = (b, draw.randrange(len(p.ids[b])), draw.randrange(WIDTH))
        values = []
        for sign in (1, -1):
            moved = p.logits.clone()
            moved[where] += sign * h
            values.append(package_loss(p, rule, True, moved.requires_grad_(), monkeypatch)[0])
        assert float(logits.grad[where]) == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-6, abs=1e-8)


def test_what_the_report_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Means over the 16 tokens and values a candidate, recomputed token by token."""
    p = problem(3)
    rule = UpdateConfig(correction="truncated_is", truncation=2.0, kl_coef=0.3, kl_estimator="k2", micro_batch=1)
    _, report = package_loss(p, rule, True, p.logits.clone().requires_grad_(), monkeypatch)
    change, kls, entropies, clipped = [], [], [], 0
    for b, row in enumerate(p.ids):
        for t, i in enumerate(row):
            now = float(log_probability(p.logits[b, t], i))
            d = now - p.old[b][t]
            change.append(math.exp(d) - 1 - d)  # k3 of KL(old || now): the tokens are the old policy's
            kls.append((now - float(log_probability(p.reference[b, t], i))) ** 2 / 2)
            entropies.append(float(entropy(p.logits[b, t])))
            ratio, advantage = math.exp(d), p.advantage[b]
            clipped += (ratio < 0.8 and advantage < 0) or (ratio > 1.2 and advantage > 0)
    assert report.sums["tokens"] == 16
    assert report.sums["approx_kl"] == pytest.approx(sum(change), rel=1e-10)
    assert report.sums["kl_base"] == pytest.approx(sum(kls), rel=1e-10)
    assert report.sums["entropy"] == pytest.approx(sum(entropies), rel=1e-10)
    assert report.sums["clipped"] == clipped > 0
    assert report.old == p.old
    for b in range(4):
        quotient = math.exp(sum(p.old[b]) - sum(p.drawn[b])) if p.off_policy[b] else 1.0
        assert report.ratio[b] == pytest.approx(quotient, rel=1e-12)
        assert report.importance[b] == pytest.approx(min(2.0, quotient), rel=1e-12)
