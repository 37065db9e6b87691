"""What each loss and correction would make of one stored step: weights of tokens, and the change of log-probs they predict.

Weights come by autograd through ``training.losses`` itself, on the stored log-probs as a leaf; no formula of the update is
written again here. Float64, on the CPU.

Legend: I items (one likelihood of one candidate each: a candidate trained under two contexts is two items), N their tokens.

**The prediction, and what it assumes.** The policy is a *table*: every prefix s (prompt, context, tokens so far) has logits of its
own, z_s, for the next token, p(a|s) = softmax(z_s / T)_a, and learning at one prefix changes nothing at another. One step of plain
gradient descent of size eta on the logits then changes log p(y) of a completion, to first order in eta, as follows. Let
W_sa be the sum of dL/dlog p over the tokens of the step that are the action a at s, and W_s their sum over a. As in the trainer,
p is the softmax of the logits divided by the temperature T: dlog p(a|s)/dz_sb = ([a = b] - p(b|s)) / T, the step is

    g_sb = -dL/dz_sb = -(W_sb - p(b|s) W_s) / T,        log p(a|s) changes by eta (g_sa - sum_b p(b|s) g_sb) / T,

and log p(y) by the sum over its tokens. The stored step knows p(b|s) for the tokens drawn at s alone; the sum leaves out the
others, whose share of it is W_s sum_b p(b|s)^2 / T^2: at most |W_s| / T^2 times the mass left squared, next to nothing where that
is spread over many tokens, and exactly nothing where W_s = 0. Answers of one token are the textbook's softmax bandit. A network
does not learn so: it generalises over prefixes, Adam rescales its gradient, and a norm is clipped. Signs and order within a group
are what to read.

**What is left out.** The entropy bonus acts on whole distributions, of which only the drawn tokens' log-probs are stored; sketches'
own loss; and minibatches: all of the step is one optimiser step here. Temperature: stored log-probs are of the distribution at the
run's temperature, and what p(a|s) would be at another depends on all logits at s, not on that of the drawn token; the policy that
drew the step knows (``rescoring.Rescorer``), and the frozen base's log-probs besides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch

from sesa_lab.config import UpdateConfig
from sesa_lab.errors import InputError, suggest
from sesa_lab.playground.stored import Member, Step
from sesa_lab.settings import check_value
from sesa_lab.training import losses

_FIELDS = {field.name: field for field in dataclasses.fields(UpdateConfig)}
CORRECTIONS: tuple[str, ...] = _FIELDS["correction"].metadata["choices"]
"""In the order of the settings."""


@dataclass(frozen=True)
class Rule:
    """What the step is looked at under.

    Attributes:
        update: loss, correction, clip range and so on.
        shift: how far the policy has moved since it drew, nats a token, so that the clip acts: log p now = log p when drawn +
            shift, and never above 0. 0: the first optimiser step.
        moved: (group, index) of the one candidate that has; None: all have.
        drift: how far log p when drawn is above the frozen base's, nats a token, for the KL penalty. The base's log-probs are not
            stored; 0 is exact at the first step of a run that began with a fresh adapter. Of a rescored step they are known, and
            it has no effect.
    """

    update: UpdateConfig
    shift: float = 0.0
    moved: tuple[int, int] | None = None
    drift: float = 0.0


def rule(
    step: Step, shift: float = 0.0, moved: tuple[int, int] | None = None, drift: float = 0.0, **update: Any
) -> Rule:
    """The step's own settings with fields of ``update`` changed; those that have no effect together are allowed here.

    Raises:
        InputError: an unknown field, a value out of range, a candidate that is not there.
    """
    for name, value in update.items():
        if name not in _FIELDS:
            raise InputError(f"unknown option update.{name}; {suggest(name, list(_FIELDS))}")
        update[name] = check_value(f"update.{name}", _FIELDS[name], value)
    changed = dataclasses.replace(step.config.update, **update)
    if changed.conditioning not in step.conditionings:
        raise InputError(
            f"update.conditioning = {changed.conditioning!r}: the run stored log-probs for {', '.join(step.conditionings)} alone"
        )
    if not (np.isfinite(shift) and np.isfinite(drift)):
        raise InputError(f"shift = {shift!r}, drift = {drift!r}: expected finite numbers, in nats a token")
    if moved is not None and all((member.group, member.index) != moved for member in step.members):
        raise InputError(
            f"moved = {moved!r}: step {step.number} has no such (group, index); it has groups {step.groups}"
        )
    return Rule(changed, float(shift), moved, float(drift))


@dataclass(frozen=True, eq=False)
class Result:
    """One rule on one step.

    Attributes:
        step: which.
        rule: which.
        loss: of all items, without the entropy bonus and the sketches' loss.
        items: one row an item: ``group``, ``index``, ``kind`` (context trained under), ``second`` (of two likelihoods),
            ``completion``, ``strategy``, ``success``, ``repeat``, ``advantage`` (before the correction), ``importance`` (of its
            policy terms), ``ratio`` (p/q of the whole completion, untruncated), ``weight`` (sum of its tokens'), ``change``
            (predicted, of its log-prob, nats at step size 1), ``clipped`` (share of tokens the clip leaves no policy gradient).
        tokens: one row a token of an item: ``group``, ``index``, ``second``, ``place``, ``token``, ``old`` (nats), ``weight``
            = -dL/dlog p (positive: pushed up), ``change`` (nats at step size 1), ``clipped``.
    """

    step: Step
    rule: Rule
    loss: float
    items: pd.DataFrame
    tokens: pd.DataFrame


def compute(step: Step, rule: Rule) -> Result:
    """The loss of the step under ``rule``, its gradient at every token, and what that predicts."""
    flat = _flat(step, rule.update.conditioning)
    advantage = torch.tensor(step.advantages(rule.update), dtype=torch.float64)[flat.member]
    counts = torch.tensor(step.transfers(rule.update))[flat.member] | flat.second
    advantage = torch.where(counts, advantage, torch.zeros_like(advantage))
    has_moved = torch.tensor([rule.moved in (None, (m.group, m.index)) for m in step.members])[flat.member]
    now = (flat.old + rule.shift * has_moved[flat.item]).clamp(max=0.0).requires_grad_()
    weights = losses.correct(rule.update, flat.old, flat.drawn, advantage, flat.item, flat.off_policy)
    terms, clipped = losses.policy_terms(rule.update, now, flat.old, flat.drawn, weights, flat.item)
    terms = terms * losses.mismatch_weights(rule.update, flat.drawn, flat.engine)
    if rule.update.kl_coef > 0:
        reference = flat.old - rule.drift if flat.base is None else flat.base
        terms = terms + rule.update.kl_coef * losses.kl_terms(now, reference, rule.update.kl_estimator)
    scale = losses.token_weights(rule.update, flat.lengths, step.config.sampler.max_tokens)[flat.member]
    scale = torch.where(flat.second, scale * rule.update.context_weight, scale)
    loss = (terms * scale[flat.item]).sum()
    (slope,) = torch.autograd.grad(loss, now)
    change = predicted(slope, now.detach().exp(), flat.action, flat.prefix, step.config.sampler.temperature)
    tokens = flat.tokens.assign(weight=-slope.numpy(), change=change.numpy(), clipped=clipped.numpy())
    items = _items(step, flat, tokens, advantage, weights)
    return Result(step, rule, float(loss.detach()), items, tokens)


def compare(step: Step, rule: Rule) -> dict[str, Result]:
    """Every correction, all else as in ``rule``."""
    found = {}
    for correction in CORRECTIONS:
        update = dataclasses.replace(rule.update, correction=correction)
        found[correction] = compute(step, dataclasses.replace(rule, update=update))
    return found


def predicted(
    slope: torch.Tensor, p: torch.Tensor, action: torch.Tensor, prefix: torch.Tensor, temperature: float
) -> torch.Tensor:
    """(N,) first-order change of each token's log-prob by one gradient step of size 1 on a table of logits (see the module).

    Args:
        slope: (N,) dL/dlog p of each token.
        p: (N,) its probability, at ``temperature``.
        action: (N,) which pair of prefix and token it is, 0..A-1.
        prefix: (A,) which prefix a pair belongs to.
        temperature: of the softmax of the logits; both the step on them and its effect are divided by it.
    """
    count, prefixes = len(prefix), int(prefix.max()) + 1 if len(prefix) else 0
    of_action = losses.per_candidate(slope, action, count)
    # A pair that occurs more than once has one probability; means take out rounding, and a shift of one occurrence alone.
    times = losses.per_candidate(torch.ones_like(p), action, count)
    p_action = losses.per_candidate(p, action, count) / times
    step = -(of_action - p_action * losses.per_candidate(of_action, prefix, prefixes)[prefix])
    mean = losses.per_candidate(p_action * step, prefix, prefixes)
    return (step - mean[prefix])[action] / temperature**2


@dataclass(frozen=True, eq=False)
class _Flat:
    """What does not change with a slider: items of a step under one conditioning, as tensors."""

    member: torch.Tensor  # (I,)
    kinds: list[str]  # (I,)
    second: torch.Tensor  # (I,) bool
    off_policy: torch.Tensor  # (I,) bool
    lengths: torch.Tensor  # (members,) tokens
    item: torch.Tensor  # (N,)
    old: torch.Tensor  # (N,)
    drawn: torch.Tensor  # (N,)
    engine: torch.Tensor  # (N,)
    base: torch.Tensor | None  # (N,)
    action: torch.Tensor  # (N,)
    prefix: torch.Tensor  # (A,)
    tokens: pd.DataFrame  # (N rows)


@lru_cache(maxsize=8)  # a slider moves on one step and its five corrections
def _flat(step: Step, conditioning: str) -> _Flat:
    numbered = [
        (n, m, kind, place > 0) for n, m in enumerate(step.members) for place, kind in enumerate(m.kinds(conditioning))
    ]
    numbered.sort(key=lambda entry: entry[3])  # first likelihoods of all, then second ones, as the trainer has them
    owners, values = [m for _, m, _, _ in numbered], ("old", "drawn", "engine")
    under = {"old": [m.under(kind) for _, m, kind, _ in numbered]} | {
        v: [getattr(m, v) for m in owners] for v in values[1:]
    }
    if step.rescored:
        under["base"] = [m.base[kind] for _, m, kind, _ in numbered]
    flat = {v: torch.tensor([x for row in rows for x in row], dtype=torch.float64) for v, rows in under.items()}
    table = _Table()
    action = [place for _, m, kind, _ in numbered for place in table.walk(m, kind)]
    sizes = [len(m.tokens) for m in owners]
    item = torch.arange(len(owners)).repeat_interleave(torch.tensor(sizes, dtype=torch.int64))
    tokens = pd.DataFrame(
        {
            "item": item.numpy(),
            "group": np.repeat([m.group for m in owners], sizes),
            "index": np.repeat([m.index for m in owners], sizes),
            "second": np.repeat([second for _, _, _, second in numbered], sizes),
            "place": [t for size in sizes for t in range(size)],
            "token": [token for m in owners for token in m.tokens],
            "old": flat["old"].numpy(),
        }
    )
    return _Flat(
        member=torch.tensor([n for n, _, _, _ in numbered]),
        kinds=[kind for _, _, kind, _ in numbered],
        second=torch.tensor([second for _, _, _, second in numbered]),
        off_policy=torch.tensor([kind != m.drawn_under for _, m, kind, _ in numbered]),
        lengths=torch.tensor([len(m.tokens) for m in step.members]),
        item=item,
        old=flat["old"],
        drawn=flat["drawn"],
        engine=flat["engine"],
        base=flat.get("base"),
        action=torch.tensor(action, dtype=torch.int64),
        prefix=torch.tensor(table.prefix_of, dtype=torch.int64),
        tokens=tokens,
    )


class _Table:
    """Numbers prefixes, and pairs of a prefix and the token that follows it, in the order they are met."""

    def __init__(self) -> None:
        self.prefixes: dict[Hashable, int] = {}
        self.actions: dict[tuple[int, int], int] = {}
        self.prefix_of: list[int] = []

    def walk(self, member: Member, kind: str) -> list[int]:
        """The pair that each of the member's tokens is, under the context ``kind``."""
        starts = set(np.cumsum(member.turns[:-1]).tolist())
        prefix, found = self._prefix(member.context(kind)), []
        for place, token in enumerate(member.tokens):
            if (
                place in starts
            ):  # the environment answered; what it said follows from the words so far and the episode's seed
                prefix = self._prefix((prefix, "turn", member.seed))
            action = self.actions.setdefault((prefix, token), len(self.prefix_of))
            if action == len(self.prefix_of):
                self.prefix_of.append(prefix)
            found.append(action)
            prefix = self._prefix(("after", action))
        return found

    def _prefix(self, key: Hashable) -> int:
        return self.prefixes.setdefault(key, len(self.prefixes))


def _items(
    step: Step, flat: _Flat, tokens: pd.DataFrame, advantage: torch.Tensor, weights: losses.Weights
) -> pd.DataFrame:
    owners = [step.members[n] for n in flat.member.tolist()]
    sums = tokens.groupby("item")[["weight", "change", "clipped"]].sum().reindex(range(len(owners)), fill_value=0)
    return pd.DataFrame(
        {
            "group": [m.group for m in owners],
            "index": [m.index for m in owners],
            "kind": flat.kinds,
            "second": flat.second.numpy(),
            "completion": [m.completion for m in owners],
            "strategy": [m.score.strategy for m in owners],
            "success": [m.score.success for m in owners],
            "repeat": [m.repeat for m in owners],
            "advantage": advantage.numpy(),
            "importance": weights.importance.numpy(),
            "ratio": weights.ratio.numpy(),
            "weight": sums["weight"].to_numpy(),
            "change": sums["change"].to_numpy(),
            "clipped": sums["clipped"].to_numpy(dtype=float) / [max(1, len(m.tokens)) for m in owners],
        }
    )
