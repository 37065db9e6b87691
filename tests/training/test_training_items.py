"""Answers of several turns, two likelihoods a candidate, and sketches: what one optimiser step trains, and with what weight.

The reference computes the gradient in float64 on a copy of the model, one turn in a forward pass of its own, by plain loops
over tokens; it shares no code with the package.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tiny_policy import STOP, VOCABULARY, rollout, scored_alone, tiny_policy, trainable

from sesa_lab.config import Config, UpdateConfig
from sesa_lab.policies import Policy, score
from sesa_lab.training import update as update_module
from sesa_lab.training.batch import Item, items_of, token_scale, training_kinds
from sesa_lab.training.credit import transfers
from sesa_lab.training.update import Report, update
from sesa_lab.types import Candidate, Completion, Context, Score, Scored, Sketch, Turn

Ids = tuple[int, ...]


def config(sampler: str = "sesa", **changes: Any) -> Config:
    """Token limits 8 (answers) and 4 (sketches); gradients are not clipped."""
    shape = {"name": sampler, "max_tokens": 8, "group_size": 6, "temperature": changes.pop("temperature", 1.0)}
    shape |= {"sketch_tokens": 4} if sampler == "sesa" else {}
    return Config.build(sampler=shape, run={"groups": 1}, update={"max_grad_norm": 1e9} | changes)


# --- candidates made by hand --------------------------------------------------------------------------------------------


class Maker:
    """Random tokens, with true log-probs under the drawing contexts."""

    def __init__(self, policy: Policy, seed: int = 0, temperature: float = 1.0) -> None:
        self.policy, self.temperature = policy, temperature
        self.random = torch.Generator().manual_seed(seed)

    def tokens(self, n: int) -> Ids:
        return tuple(torch.randint(2, VOCABULARY, (n,), generator=self.random).tolist())

    def completion(self, context: Ids, n: int) -> Completion:
        ids = (*self.tokens(n - 1), STOP)
        logprobs = scored_alone(self.policy, context, ids, self.temperature).tolist()
        return Completion(ids, tuple(logprobs), "", "stop")

    def candidate(self, bases: dict[str, Ids], lengths: Sequence[int], own: bool = False) -> Candidate:
        """Drawn under the last of ``bases``; a turn of each of ``lengths`` tokens, three observed tokens between them.

        ``own``: each later turn drafts a sketch, which stands in the drawing context only.
        """
        drawn_kind, said, made = list(bases)[-1], (), ()
        turns: list[Turn] = []
        for n, length in enumerate(lengths):
            made += self.tokens(2) if own and n else ()
            trained = {kind: Context(kind, ids + (made if kind == drawn_kind else said)) for kind, ids in bases.items()}
            drawn = trained[drawn_kind]
            turns.append(Turn(drawn, trained, self.completion(drawn.ids, length)))
            observed = self.tokens(3)
            said += (*turns[-1].completion.ids, *observed)
            made += (*turns[-1].completion.ids, *observed)
        return Candidate(tuple(turns), ("earlier",) if drawn_kind == "history" else ())

    def sketches(self, x: Ids, lengths: Sequence[int]) -> list[Sketch]:
        """A list that goes on: each drawn under those before it."""
        found, context = [], x
        for length in lengths:
            under = Context("draft", context)
            drawn = self.completion(context, length)
            found.append(Sketch(Turn(under, {"draft": under}, drawn)))
            context = (*context, *drawn.ids, 2)
        return found


ADVANTAGES = [0.7, -1.2, 0.5, 1.5, -0.4, -1.1]
SKETCH_ADVANTAGES = [0.9, -1.3, 0.4]


def mixture(policy: Policy, seed: int = 0, temperature: float = 1.0) -> list[Scored]:
    """Six candidates of one task, of 1 to 3 turns, and three sketches; the guided contexts begin with a larger token than x,
    so that packing puts their rows first."""
    make = Maker(policy, seed, temperature)
    x, guided = (3, *make.tokens(3)), [(40 + k, *make.tokens(4)) for k in range(2)]
    candidates = [
        make.candidate({"task": x}, [3]),
        make.candidate({"task": x}, [2, 4]),
        make.candidate({"task": x, "sketch": guided[0]}, [5]),
        make.candidate({"task": x, "sketch": guided[0]}, [3, 1, 2]),
        make.candidate({"task": x, "sketch": guided[1]}, [2, 2, 4], own=True),
        make.candidate({"task": x, "sketch": guided[1]}, [1]),
    ]
    sketches = make.sketches((*x, 5), [3, 2, 4])
    return rollout(candidates, ADVANTAGES, sketches=sketches, sketch_advantages=list(SKETCH_ADVANTAGES))


# --- items and weights --------------------------------------------------------------------------------------------------


def test_kinds_that_a_candidate_is_trained_under() -> None:
    make = Maker(tiny_policy())
    direct = make.candidate({"task": (3,)}, [1])
    guided = make.candidate({"task": (3,), "sketch": (4,)}, [1])
    later = make.candidate({"task": (3,), "history": (3, 4)}, [1])
    expected = {
        "task": (["task"], ["task"], ["task"]),
        "sketch": (["task"], ["sketch"], ["task"]),  # one without is trained under the task
        "history": (["task"], ["task"], ["history"]),
        "task+sketch": (["task"], ["task", "sketch"], ["task"]),
        "task+history": (["task"], ["task"], ["task", "history"]),
    }
    for conditioning, kinds in expected.items():
        assert tuple(training_kinds(c, conditioning) for c in (direct, guided, later)) == kinds, conditioning


def test_items_of_a_step() -> None:
    """First likelihoods of all candidates, then second ones of those that have one, then sketches."""
    (step,) = mixture(tiny_policy())
    rule = UpdateConfig(conditioning="task+sketch", context_weight=0.25, sketch_weight=3.0, train_sketches="best")
    items = items_of(rule, step.group.candidates, step.advantages, (), step.group.sketches, step.sketch_advantages)
    found = [(i.kind, i.member, i.advantage, i.weight, i.is_sketch, i.is_second) for i in items]
    assert found == [
        *[("task", n, ADVANTAGES[n], 1.0, False, False) for n in range(6)],
        *[("sketch", n, ADVANTAGES[n], 0.25, False, True) for n in range(2, 6)],
        *[("draft", n, SKETCH_ADVANTAGES[n], 3.0, True, False) for n in range(3)],
    ]
    for item in items:
        source = step.group.sketches[item.member].turn if item.is_sketch else None
        assert item.turns == ((source,) if source else step.group.candidates[item.member].turns)
        assert [item.context(turn) for turn in item.turns] == [turn.trained_under[item.kind] for turn in item.turns]
    assert all(item.context(item.turns[0]) == item.turns[0].drawn_under for item in items[-3:]), "their own history"


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "dapo"])
def test_weights_by_hand(loss: str) -> None:
    """Candidates of 3, 6, 5, 6, 8, 1 tokens (29), each counted once; sketches of 3, 2, 4 (9) apart from them."""
    (step,) = mixture(tiny_policy())
    settings = config(
        loss=loss, conditioning="task+sketch", context_weight=0.5, train_sketches="best", sketch_weight=3.0
    )
    items = items_of(
        settings.update, step.group.candidates, step.advantages, (), step.group.sketches, step.sketch_advantages
    )
    of_candidates = {
        "grpo": [1 / (6 * n) for n in (3, 6, 5, 6, 8, 1)],
        "dr_grpo": [1 / (6 * 8)] * 6,  # max_tokens 8
        "dapo": [1 / 29] * 6,
    }[loss]
    of_sketches = {"grpo": [1 / (3 * n) for n in (3, 2, 4)], "dr_grpo": [1 / (3 * 4)] * 3, "dapo": [1 / 9] * 3}[loss]
    expected = [*of_candidates, *[0.5 * w for w in of_candidates[2:]], *[3.0 * w for w in of_sketches]]
    assert token_scale(settings, items).tolist() == pytest.approx(expected, rel=1e-6)
    # Neither second likelihoods nor sketches change what the first ones weigh; nor does the order of items.
    assert token_scale(settings, items[:6]).tolist() == pytest.approx(of_candidates, rel=1e-6)
    assert token_scale(settings, items[10:]).tolist() == pytest.approx(expected[10:], rel=1e-6)
    turned = token_scale(settings, items[::-1]).tolist()
    assert turned[::-1] == pytest.approx(expected, rel=1e-6)


# --- the gradient of a step against float64 -------------------------------------------------------------------------------


def step_gradient(policy: Policy, settings: Config, step: list[Scored]) -> tuple[Report, torch.Tensor]:
    """What ``update`` moves the adapter by, per unit of step size; the weights are put back."""
    before = [p.detach().clone() for p in trainable(policy)]
    report = update(policy, torch.optim.SGD(trainable(policy), lr=1.0), settings, step, 1)
    moved = torch.cat([(b - p.detach()).flatten() for b, p in zip(before, trainable(policy), strict=True)])
    with torch.no_grad():
        for p, b in zip(trainable(policy), before, strict=True):
            p.copy_(b)
    return report, moved


class Reference:
    """The loss of one optimiser step with the policy as it was when the step was drawn, in float64, turn by turn."""

    def __init__(self, policy: Policy, settings: Config) -> None:
        self.model = copy.deepcopy(policy.model).double()
        self.settings, self.rule = settings, settings.update
        self.ratios: list[float] = []

    def logprobs(self, context: Ids, ids: Ids) -> tuple[torch.Tensor, torch.Tensor]:
        """(n,) log-probs and (n,) entropies at the tokens of ``ids``."""
        logits = self.model(input_ids=torch.tensor([[*context, *ids]])).logits[0] / self.settings.sampler.temperature
        every = logits[len(context) - 1 : -1].log_softmax(-1)
        return every.gather(-1, torch.tensor(ids)[:, None]).squeeze(-1), -(every.exp() * every).sum(-1)

    def term(self, turns: Sequence[Turn], kind: str, advantage: float) -> torch.Tensor:
        """Sum over all tokens of an item of -w A r + beta k3 - eta H, where r = 1 has gradient grad log p."""
        now = [self.logprobs(turn.trained_under[kind].ids, turn.completion.ids) for turn in turns]
        total = sum(float(logprob.detach().sum()) for logprob, _ in now)
        drawn = sum(sum(turn.completion.logprobs) for turn in turns)
        off_policy = any(turn.trained_under[kind] != turn.drawn_under for turn in turns)
        quotient = math.exp(total - drawn) if off_policy else 1.0
        weight = 1.0
        if self.rule.correction == "truncated_is" or (self.rule.correction == "asymmetric" and advantage < 0):
            weight = min(self.rule.truncation, quotient) if off_policy else 1.0
        if self.rule.correction == "positive_only" and (off_policy or self.rule.correction_scope == "all"):
            advantage = max(advantage, 0.0)
        self.ratios.append(quotient)
        value = torch.zeros((), dtype=torch.float64)
        for turn, (logprob, entropy) in zip(turns, now, strict=True):
            value = value - weight * advantage * (logprob - logprob.detach()).exp().sum()
            if self.rule.kl_coef:
                with torch.no_grad(), self.model.disable_adapter():
                    base = self.logprobs(turn.trained_under[kind].ids, turn.completion.ids)[0]
                value = value + self.rule.kl_coef * ((base - logprob).exp() - 1 - (base - logprob)).sum()
            value = value - self.rule.entropy_coef * entropy.sum()
        return value

    def gradient(self, parts: Sequence[tuple[float, Sequence[Turn], str, float]]) -> tuple[float, torch.Tensor]:
        """Loss and gradient of the sum of weight x term over (weight, turns, kind, advantage)."""
        self.model.zero_grad(set_to_none=True)
        loss = torch.zeros((), dtype=torch.float64)
        for weight, turns, kind, advantage in parts:
            loss = loss + weight * self.term(turns, kind, advantage)
        loss.backward()
        found = torch.cat([p.grad.flatten() for p in self.model.parameters() if p.requires_grad])
        return float(loss.detach()), found


def parts_of(step: Scored, settings: Config) -> list[tuple[float, Sequence[Turn], str, float]]:
    """Weights by the definitions of the losses, over candidates and over sketches."""
    rule = settings.update

    def weights(lengths: list[int], longest: int) -> list[float]:
        if rule.loss == "grpo":
            return [1 / (len(lengths) * n) for n in lengths]
        return [1 / (len(lengths) * longest) if rule.loss == "dr_grpo" else 1 / sum(lengths)] * len(lengths)

    candidates = step.group.candidates
    of = weights([sum(len(t.completion.ids) for t in c.turns) for c in candidates], settings.sampler.max_tokens)
    first, _, second = rule.conditioning.partition("+")
    parts: list[tuple[float, Sequence[Turn], str, float]] = []
    for c, advantage, weight in zip(candidates, step.advantages, of, strict=True):
        known = c.turns[0].trained_under
        parts.append((weight, c.turns, first if first in known else "task", advantage))
        if second in known:
            parts.append((weight * rule.context_weight, c.turns, second, advantage))
    if rule.train_sketches != "none":
        drafts = [sketch.turn for sketch in step.group.sketches]
        own = weights([len(turn.completion.ids) for turn in drafts], settings.sampler.sketch_tokens)
        for turn, advantage, weight in zip(drafts, step.sketch_advantages, own, strict=True):
            parts.append((weight * rule.sketch_weight, [turn], "draft", advantage))
    return parts


VARIANTS: list[dict[str, Any]] = [
    {"loss": "dapo"},
    {"loss": "grpo", "correction": "truncated_is", "truncation": 2.0, "kl_coef": 0.1},
    {"loss": "dr_grpo", "correction": "asymmetric", "conditioning": "task+sketch", "context_weight": 0.5},
    {"loss": "dapo", "conditioning": "sketch", "train_sketches": "best", "sketch_weight": 2.0, "entropy_coef": 0.01},
    {
        "loss": "grpo", "correction": "positive_only", "correction_scope": "off_policy", "conditioning": "task+sketch",
        "train_sketches": "mean", "kl_coef": 0.1, "temperature": 0.7,
    },
]  # fmt: skip


def name(variant: dict[str, Any]) -> str:
    return "-".join(map(str, variant.values()))


@pytest.mark.parametrize("variant", VARIANTS, ids=name)
def test_gradient_of_a_step_of_several_turns(variant: dict[str, Any]) -> None:
    policy = tiny_policy()
    settings = config(**variant)
    step = mixture(policy, temperature=settings.sampler.temperature)
    reference = Reference(policy, settings)
    loss, expected = reference.gradient(parts_of(step[0], settings))
    report, found = step_gradient(policy, settings, step)
    assert float(expected.norm()) > 0.05
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=2e-6)
    assert report.loss == pytest.approx(loss, abs=1e-6)
    assert report.grad_norm == pytest.approx(float(expected.norm()), rel=1e-4)


def test_only_the_policys_own_words_are_trained() -> None:
    """A loss made up for one candidate: three turns with advantage 1 alone, each turn scored in a forward pass of its own."""
    policy = tiny_policy()
    make = Maker(policy, 3)
    candidate = make.candidate({"task": (3, 9, 4), "sketch": (8, 7)}, [3, 2, 4], own=True)
    for conditioning, kind in (("task", "task"), ("sketch", "sketch")):
        report, found = step_gradient(policy, config(conditioning=conditioning), rollout([candidate], [1.0]))
        model = copy.deepcopy(policy.model).double()
        for turn in candidate.turns:
            context, ids = turn.trained_under[kind].ids, turn.completion.ids
            logits = model(input_ids=torch.tensor([[*context, *ids]])).logits[0].log_softmax(-1)
            for t, token in enumerate(ids):  # nine tokens of its own; none of the world's, none of a sketch
                (-logits[len(context) + t - 1, token] / 9).backward(retain_graph=True)
        expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=2e-6)
        assert report.loss == pytest.approx(-1.0, abs=1e-6)  # ratio 1, mean over nine tokens of -A
        assert [len(logprobs) for logprobs in report.old] == [9]


def test_a_weighted_sum_of_two_likelihoods_is_the_sum_of_two_losses() -> None:
    """task+sketch at weight 0.3 against: task alone, plus 0.3 x sketch alone with the direct candidates' advantages at 0."""
    policy = tiny_policy()
    (step,) = mixture(policy)
    for loss in ("grpo", "dr_grpo", "dapo"):
        both, one, other = (
            config(loss=loss, conditioning="task+sketch", context_weight=0.3),
            config(loss=loss, conditioning="task"),
            config(loss=loss, conditioning="sketch"),
        )
        guided = [0.0 if len(training_kinds(c, "task+sketch")) == 1 else a for c, a in zip(
            step.group.candidates, step.advantages, strict=True)]  # fmt: skip
        total, found = step_gradient(policy, both, [step])
        first, expected = step_gradient(policy, one, [step])
        second, more = step_gradient(policy, other, rollout(step.group.candidates, guided))
        assert float(more.norm()) > 0.02
        torch.testing.assert_close(found, expected + 0.3 * more, rtol=1e-4, atol=2e-6)
        assert total.loss == pytest.approx(first.loss + 0.3 * second.loss, abs=1e-6)


def test_sketches_add_a_term_of_their_own_and_change_no_other() -> None:
    policy = tiny_policy()
    (step,) = mixture(policy)
    for loss in ("grpo", "dr_grpo", "dapo"):
        _, without = step_gradient(policy, config(loss=loss), [step])
        report, found = step_gradient(policy, config(loss=loss, train_sketches="best", sketch_weight=0.5), [step])
        # The sketches alone: a step without any advantage but theirs.
        silent = rollout(step.group.candidates, [0.0] * 6, sketches=step.group.sketches)
        silent[0].sketch_advantages = step.sketch_advantages
        _, alone = step_gradient(policy, config(loss=loss, train_sketches="best"), silent)
        assert float(alone.norm()) > 0.05
        torch.testing.assert_close(found, without + 0.5 * alone, rtol=1e-4, atol=2e-6)
        assert len(report.old) == 6, "the report is of candidates"


def test_sketches_are_left_alone_unless_asked_for() -> None:
    policy = tiny_policy()
    (step,) = mixture(policy)
    plain = rollout(step.group.candidates, step.advantages)
    with_credit, without = (step_gradient(policy, config(), s)[1] for s in ([step], plain))
    assert torch.equal(with_credit, without)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_importance_ratio_is_over_all_turns(temperature: float) -> None:
    policy = tiny_policy()
    step = mixture(policy, temperature=temperature)
    report, _ = step_gradient(policy, config(correction="truncated_is", temperature=temperature), step)
    differ = 0
    for n, candidate in enumerate(step[0].group.candidates):
        old = [
            scored_alone(policy, turn.trained_under["task"].ids, turn.completion.ids, temperature)
            for turn in candidate.turns
        ]
        assert report.old[n] == pytest.approx(torch.cat(old).tolist(), abs=1e-5)
        drawn = sum(sum(turn.completion.logprobs) for turn in candidate.turns)
        quotient = math.exp(float(torch.cat(old).sum()) - drawn) if n >= 2 else 1.0  # the first two are on-policy
        assert report.ratio[n] == pytest.approx(quotient, rel=1e-4)
        assert report.importance[n] == pytest.approx(min(1.0, quotient), rel=1e-4)
        differ += abs(quotient - 1) > 0.05
    assert differ == 4


# --- what must not matter -------------------------------------------------------------------------------------------------


def whole_answers(policy: Policy) -> list[Scored]:
    """As ``mixture``, one turn each: then nothing is scored before the update, and weights are made part by part."""
    make = Maker(policy, 5)
    x, guided = (3, *make.tokens(3)), [(40 + k, *make.tokens(4)) for k in range(2)]
    bases: list[dict[str, Ids]] = [{"task": x}, {"task": x}, *[{"task": x, "sketch": guided[k // 2]} for k in range(4)]]
    candidates = [make.candidate(base, [1 + n]) for n, base in enumerate(bases)]
    sketches = make.sketches((*x, 5), [3, 2, 4])
    return rollout(candidates, ADVANTAGES, sketches=sketches, sketch_advantages=list(SKETCH_ADVANTAGES))


INVARIANT: list[dict[str, Any]] = [
    {"correction": "asymmetric", "conditioning": "task+sketch", "train_sketches": "best", "kl_coef": 0.1},
    {"loss": "grpo", "correction": "ppo_clip", "conditioning": "task+sketch", "entropy_coef": 0.01},
    {"loss": "dr_grpo", "correction": "truncated_is", "train_sketches": "novelty"},
]


@pytest.mark.parametrize("made", [mixture, whole_answers], ids=["several turns", "whole answers"])
@pytest.mark.parametrize("variant", INVARIANT, ids=name)
def test_micro_batches_do_not_matter(variant: dict[str, Any], made: Any) -> None:
    policy = tiny_policy()
    step = made(policy)
    whole, expected = step_gradient(policy, config(**variant), step)
    assert float(expected.norm()) > 0.05
    assert all(len(old) == c.length for old, c in zip(whole.old, step[0].group.candidates, strict=True))
    for size in (1, 2, 5, 100):
        report, found = step_gradient(policy, config(**variant, micro_batch=size), step)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-6)
        assert report.loss == pytest.approx(whole.loss, abs=1e-6)
        assert report.sums == pytest.approx(whole.sums, abs=1e-4)
        assert report.tokens_trained == whole.tokens_trained
        # Of the first likelihood, also where the second one's row comes in an earlier micro-batch.
        assert report.ratio == pytest.approx(whole.ratio, rel=1e-4)
        assert report.importance == pytest.approx(whole.importance, rel=1e-4)
        for ours, theirs in zip(report.old, whole.old, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-5)


def test_the_report_is_of_the_first_likelihood() -> None:
    policy = tiny_policy()
    for made, size in itertools.product((mixture, whole_answers), (0, 1)):
        step = made(policy)
        settings = config(conditioning="task+sketch", correction="truncated_is", micro_batch=size)
        report, _ = step_gradient(policy, settings, step)
        for n, candidate in enumerate(step[0].group.candidates):
            old = [scored_alone(policy, t.trained_under["task"].ids, t.completion.ids) for t in candidate.turns]
            assert report.old[n] == pytest.approx(torch.cat(old).tolist(), abs=1e-5)
            assert (abs(report.ratio[n] - 1) > 1e-3) == (n >= 2)


@pytest.mark.parametrize("size", [0, 1])
def test_turns_that_lie_in_different_rows(size: int) -> None:
    """Two episodes that begin with the same turn, as a collapsed policy's do: packing keeps that turn once, in the row of
    one of them. The weight of the other needs its turns from two rows all the same."""
    policy = tiny_policy()
    make = Maker(policy, 6)
    bases = {"task": (3, *make.tokens(3)), "sketch": (40, *make.tokens(3))}
    first = make.candidate(bases, [3])
    (opening,) = first.turns
    candidates = [first]
    for length in (2, 4, 2):
        observed = make.tokens(2)
        trained = {
            k: Context(k, (*c.ids, *opening.completion.ids, *observed)) for k, c in opening.trained_under.items()
        }
        later = Turn(trained["sketch"], trained, make.completion(trained["sketch"].ids, length))
        candidates.append(Candidate((opening, later)))
    settings = config(correction="truncated_is", truncation=50.0, micro_batch=size)
    step = rollout(candidates, [0.5, -1.0, 1.5, -0.7])
    loss, expected = Reference(policy, settings).gradient(parts_of(step[0], settings))
    report, found = step_gradient(policy, settings, step)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    assert report.loss == pytest.approx(loss, rel=1e-4)
    for n, c in enumerate(candidates):
        old = [scored_alone(policy, t.trained_under["task"].ids, t.completion.ids) for t in c.turns]
        assert report.old[n] == pytest.approx(torch.cat(old).tolist(), abs=1e-5)


@pytest.mark.parametrize("variant", VARIANTS[:3], ids=name)
def test_shared_contexts_and_the_order_of_candidates_do_not_matter(
    variant: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tiny_policy()
    (step,) = mixture(policy)
    whole, expected = step_gradient(policy, config(**variant), [step])
    monkeypatch.setattr(score, "SHARE", 1)
    _, found = step_gradient(policy, config(**variant), [step])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-6)
    order = [4, 0, 2, 5, 1, 3]
    turned = rollout([step.group.candidates[i] for i in order], [ADVANTAGES[i] for i in order])
    turned[0].sketch_advantages = step.sketch_advantages[::-1]
    turned[0].group = rollout(turned[0].group.candidates, [], sketches=step.group.sketches[::-1])[0].group
    report, found = step_gradient(policy, config(**variant), turned)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-6)
    assert report.ratio == pytest.approx([whole.ratio[i] for i in order], rel=1e-4)


def test_a_candidate_goes_with_all_its_items_into_one_minibatch(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy()
    step = mixture(policy)
    seen: list[list[Item]] = []
    original = update_module.make_batch

    def spied(items: Sequence[Item], scale: torch.Tensor, device: torch.device) -> Any:
        seen.append(list(items))
        return original(items, scale, device)

    monkeypatch.setattr(update_module, "make_batch", spied)
    settings = config(conditioning="task+sketch", train_sketches="best", minibatches=3, epochs=2, micro_batch=1)
    report, _ = step_gradient(policy, settings, step)
    everything, *minibatches = seen
    assert len(everything) == 6 + 4 + 3 and len(minibatches) == 2 * 3
    for epoch in (minibatches[:3], minibatches[3:]):
        dealt = [{(item.is_sketch, item.member) for item in part} for part in epoch]
        assert [sum(not is_sketch for is_sketch, _ in part) for part in dealt] == [2, 2, 2]
        assert sum(map(len, dealt)) == len(set().union(*dealt)) == 6 + 3, "nobody is torn, nobody is left out"
        assert sorted(map(id, (item for part in epoch for item in part))) == sorted(map(id, everything))
        assert [sum(is_sketch for is_sketch, _ in part) for part in dealt] == [1, 1, 1]
    assert report.sums["tokens"] == 2 * (29 + 20 + 9)  # second likelihoods of 5 + 6 + 8 + 1 tokens


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "dapo"])
def test_items_without_a_gradient_are_left_out(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive-only off-policy, one group of equal rewards: the same gradient from fewer tokens, the same report."""
    policy = tiny_policy()
    step = [*mixture(policy), *mixture(policy, seed=1)]
    step[1].advantages[:] = [0.0] * 6
    rule = {
        "loss": loss, "conditioning": "task+sketch", "correction": "positive_only", "correction_scope": "off_policy",
        "minibatches": 3,
    }  # fmt: skip
    short, moved = step_gradient(policy, config(**rule), step)
    first_look = update_module._first_look
    monkeypatch.setattr(
        update_module,
        "_first_look",
        lambda p, c, items, *rest: (first_look(p, c, items, *rest)[0], [True] * len(items)),
    )
    whole, expected = step_gradient(policy, config(**rule), step)
    assert float((moved - expected).norm() / expected.norm()) < 1e-4
    assert short.sums["tokens"] < 0.7 * whole.sums["tokens"] and short.tokens_trained < whole.tokens_trained
    assert (short.loss, short.entropy) == pytest.approx((whole.loss, whole.entropy), rel=1e-4)
    assert (short.old, short.ratio, short.importance) == (whole.old, whole.ratio, whole.importance)


@pytest.mark.parametrize("extra", [{"kl_coef": 0.1}, {"entropy_coef": 0.1}])
def test_a_penalty_on_every_token_leaves_no_item_out(extra: dict[str, float]) -> None:
    policy = tiny_policy()
    (step,) = mixture(policy)
    step.advantages[:] = [0.0] * 6
    report, moved = step_gradient(policy, config(conditioning="task+sketch", minibatches=3, **extra), [step])
    assert report.sums["tokens"] == 29 + 20
    assert extra == {"kl_coef": 0.1} or float(moved.norm()) > 0  # of the KL to itself the gradient is 0


def test_without_any_gradient_the_optimiser_goes_on_by_its_momentum() -> None:
    policy = tiny_policy()
    (step,) = mixture(policy)
    optimiser = torch.optim.Adam(trainable(policy), lr=1e-3)
    update(policy, optimiser, config(minibatches=3), [step], 1)
    before = [p.detach().clone() for p in trainable(policy)]
    step.advantages[:] = [0.0] * 6
    report = update(policy, optimiser, config(minibatches=3), [step], 2)
    assert (report.grad_norm, report.loss, report.tokens_trained) == (0.0, 0.0, 0) and report.entropy > 0
    assert any(not torch.equal(p, b) for p, b in zip(trainable(policy), before, strict=True))


def test_what_does_not_transfer_trains_under_the_sketch_only() -> None:
    policy = tiny_policy()
    (step,) = mixture(policy)
    rule = UpdateConfig(conditioning="task+sketch")
    guided = [n for n, candidate in enumerate(step.group.candidates) if "sketch" in candidate.turns[0].trained_under]
    candidates = [
        dataclasses.replace(candidate, sketches=(0,) if n in guided else ())
        for n, candidate in enumerate(step.group.candidates)
    ]
    found = transfers(candidates, [Score(1.0, True, str(n)) for n in range(6)], "unsolved")
    assert found == [n not in guided for n in range(6)] and len(guided) == 4
    items = items_of(rule, candidates, step.advantages, found)
    assert [i.advantage for i in items if i.is_second] == [ADVANTAGES[n] for n in guided]
    assert [i.advantage for i in items if not i.is_second] == [0.0 if n in guided else ADVANTAGES[n] for n in range(6)]

    failed = [Score(0.0, False, None) if n not in guided else Score(1.0, True, "a") for n in range(6)]
    assert transfers(candidates, failed, "unsolved") == [True] * 6
    assert transfers(candidates, failed, "always") == [True] * 6


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "dapo"])
def test_sketches_weigh_the_same_in_whichever_minibatch_they_lie(loss: str) -> None:
    """Three sketches in two minibatches: two and one. The one alone used to weigh as much as the other two together.

    An optimiser step has 3 / 2 of them on average. Two of 4 tokens weigh 1 / (1.5 x 4) each a token by grpo and dr_grpo (limit
    4), and so does one; by dapo the mean over 8, or 4, tokens counts 2 / 1.5, or 1 / 1.5.
    """
    make = Maker(tiny_policy())
    settings = config(loss=loss, train_sketches="best", minibatches=2)
    items = items_of(settings.update, [], [], (), make.sketches((3, 5), [4, 4, 4]), [1.0, 1.0, -2.0])
    for part in (items[:2], items[2:]):
        expected = {"dapo": (len(part) / 1.5) / (4 * len(part))}.get(loss, 1 / (1.5 * 4))
        assert expected == pytest.approx(1 / 6)
        assert token_scale(settings, part, 1.5).tolist() == pytest.approx([1 / 6] * len(part), rel=1e-6)
    assert torch.equal(token_scale(settings, items, 3.0), token_scale(settings, items)), (
        "as many as on average: untouched"
    )


def test_minibatches_of_unequal_numbers_of_sketches_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``update`` weighs the sketches by in its two minibatches, candidates apart: three equal weights."""
    policy = tiny_policy()
    make = Maker(policy)
    sketches = make.sketches((3, 5), [4, 4, 4])
    candidates = [make.candidate({"task": (3, 9)}, [2]) for _ in range(6)]
    seen: list[tuple[list[Item], torch.Tensor]] = []
    original = update_module.make_batch

    def spy(items: Sequence[Item], scale: torch.Tensor, device: torch.device) -> Any:
        seen.append((list(items), scale))
        return original(items, scale, device)

    monkeypatch.setattr(update_module, "make_batch", spy)
    step = rollout(candidates, [1.0, -1.0] * 3, sketches=sketches, sketch_advantages=[1.0, 1.0, -2.0])
    step_gradient(policy, config(loss="grpo", train_sketches="best", minibatches=2), step)
    weights = {
        (n, item.is_sketch, item.member): float(weight)
        for n, (items, scale) in enumerate(seen[1:])  # the first one is the look at all items before any pass
        for item, weight in zip(items, scale, strict=True)
    }
    assert sorted(n for n, is_sketch, _ in weights if is_sketch) in ([0, 0, 1], [0, 1, 1])
    assert [w for (_, is_sketch, _), w in weights.items() if is_sketch] == pytest.approx([1 / 6] * 3)
    assert [w for (_, is_sketch, _), w in weights.items() if not is_sketch] == pytest.approx([1 / (3 * 2)] * 6)


def test_fewer_sketches_than_minibatches() -> None:
    policy = tiny_policy()
    (step,) = mixture(policy)
    settings = config(train_sketches="best", minibatches=6)
    report, moved = step_gradient(policy, settings, [step])
    assert math.isfinite(report.loss) and report.sums["tokens"] == 29 + 9 and float(moved.norm()) > 0


def test_later_passes_keep_the_old_log_probs_of_every_turn() -> None:
    """Two passes: in the second the ratio is against the first pass's policy, in float64 by hand."""
    policy = tiny_policy()
    make = Maker(policy, 4)
    candidates = [make.candidate({"task": (3, 9)}, [3, 2]), make.candidate({"task": (3, 9), "sketch": (7, 7)}, [2, 1])]
    settings = config(epochs=2, clip_low=1.0, clip_high=1e6)
    old = [
        torch.cat([scored_alone(policy, t.trained_under["task"].ids, t.completion.ids) for t in c.turns])
        for c in candidates
    ]
    optimiser = torch.optim.SGD(trainable(policy), lr=0.2)
    report = update(policy, optimiser, settings, rollout(candidates, [1.0, -1.0]), 1)
    fresh = tiny_policy()
    reference = torch.optim.SGD(trainable(fresh), lr=0.2)
    losses = []
    for _ in range(2):
        reference.zero_grad()
        loss = torch.zeros(())
        for c, before, advantage in zip(candidates, old, (1.0, -1.0), strict=True):
            now = []
            for turn in c.turns:
                context, ids = turn.trained_under["task"].ids, turn.completion.ids
                logits = fresh.model(input_ids=torch.tensor([[*context, *ids]])).logits[0].log_softmax(-1)
                now += [logits[len(context) + t - 1, token] for t, token in enumerate(ids)]
            loss = loss - advantage * (torch.stack(now) - before).exp().sum() / 8  # 5 + 3 tokens
        loss.backward()
        reference.step()
        losses.append(float(loss.detach()))
    for ours, theirs in zip(trainable(policy), trainable(fresh), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert report.loss == pytest.approx(sum(losses) / 2, abs=1e-5)
    assert report.approx_kl > 0
    assert [len(logprobs) for logprobs in report.old] == [5, 3]
