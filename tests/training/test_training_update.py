"""One rollout through the real model: what must not matter does not, and what is trained is what the config says."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny_policy import STOP, candidate, gradients, group, rollout, scored_alone, tiny_policy, trainable

from sesa_lab.config import Config
from sesa_lab.policies import Policy
from sesa_lab.runs import schema
from sesa_lab.training import losses
from sesa_lab.training import update as update_module
from sesa_lab.training.batch import Batch, items_of, make_batch, token_scale, training_kinds
from sesa_lab.training.measure import step_measures
from sesa_lab.training.table import rollout_rows, sketch_rows
from sesa_lab.training.update import Report, accumulate, update
from sesa_lab.types import Candidate, Completion, Context, Episode, Group, Score, Scored, Sketch, Task, Turn


def config(**changes: Any) -> Config:
    """Sequential, 14 candidates' worth of minibatch choices, token limit 8."""
    sampler = {"name": "sequential", "max_tokens": 8, "group_size": 7, "temperature": changes.pop("temperature", 1.0)}
    return Config.build(sampler=sampler, run={"groups": 2}, update=changes)


def gradient(
    policy: Policy, settings: Config, candidates: list[Candidate], advantages: list[float]
) -> tuple[Report, torch.Tensor]:
    items = items_of(settings.update, candidates, advantages)
    report = Report([[] for _ in candidates], [1.0] * len(candidates), [1.0] * len(candidates))
    accumulate(policy, settings, make_batch(items, token_scale(settings, items), policy.device), None, report, items)
    return report, gradients(policy)


def batch_of(settings: Config, candidates: list[Candidate], advantages: list[float]) -> Batch:
    items = items_of(settings.update, candidates, advantages)
    return make_batch(items, token_scale(settings, items), torch.device("cpu"))


def sgd(policy: Policy, rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(trainable(policy), lr=rate)


def flat(policy: Policy) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainable(policy)]).clone()


VARIANTS: list[dict[str, Any]] = [
    {"loss": "grpo", "correction": "truncated_is"},
    {"loss": "dr_grpo", "correction": "asymmetric", "kl_coef": 0.1},
    {"loss": "dapo", "correction": "ppo_clip", "entropy_coef": 0.01},
    {"loss": "dapo", "conditioning": "history", "kl_coef": 0.1, "kl_estimator": "k2", "temperature": 0.7},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v.values())))
def test_micro_batches_do_not_matter(variant: dict[str, Any]) -> None:
    policy = tiny_policy()
    candidates, advantages = group(policy)
    whole, expected = gradient(policy, config(**variant), candidates, advantages)
    assert float(expected.norm()) > 0.01
    rows = len(batch_of(config(**variant), candidates, advantages).rows.ids)
    assert rows < len(candidates)  # some share a row
    for size in (1, 2, 3, rows, 100):
        report, found = gradient(policy, config(**variant, micro_batch=size), candidates, advantages)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        assert report.loss == pytest.approx(whole.loss, rel=1e-6, abs=1e-6)
        assert report.sums == pytest.approx(whole.sums, abs=1e-5)
        assert report.tokens_trained == whole.tokens_trained
        assert report.ratio == pytest.approx(whole.ratio, rel=1e-5)
        assert report.importance == pytest.approx(whole.importance, rel=1e-5)
        for ours, theirs in zip(report.old, whole.old, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v.values())))
def test_the_order_of_candidates_does_not_matter(variant: dict[str, Any]) -> None:
    policy = tiny_policy()
    candidates, advantages = group(policy)
    whole, expected = gradient(policy, config(**variant), candidates, advantages)
    order = [4, 0, 6, 2, 1, 5, 3]
    report, found = gradient(
        policy, config(**variant), [candidates[i] for i in order], [advantages[i] for i in order]
    )  # fmt: skip
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert report.loss == pytest.approx(whole.loss, rel=1e-6, abs=1e-6)
    assert report.ratio == pytest.approx([whole.ratio[i] for i in order], rel=1e-5)
    for ours, i in zip(report.old, order, strict=True):
        assert ours == pytest.approx(whole.old[i], abs=1e-5)


def test_padding_does_not_matter() -> None:
    # A long completion with advantage 0 adds nothing but padding. Under dr_grpo every weight is 1 / (C max_tokens), so
    # seven candidates' gradient is 8/7 of what they give among eight.
    policy = tiny_policy()
    candidates, advantages = group(policy)
    settings = config(loss="dr_grpo")
    _, alone = gradient(policy, settings, candidates, advantages)
    long = candidate([9] * 20, [], [7] * 60, [-1.0] * 60)
    _, padded = gradient(policy, settings, [*candidates, long], [*advantages, 0.0])
    torch.testing.assert_close(padded * 8 / 7, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("conditioning", ["task", "history"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_old_log_probs_are_of_the_training_context(conditioning: str, temperature: float) -> None:
    policy = tiny_policy()
    candidates, advantages = group(policy, temperature=temperature)
    settings = config(conditioning=conditioning, temperature=temperature)
    report, _ = gradient(policy, settings, candidates, advantages)
    differ = 0
    for c, found, ratio in zip(candidates, report.old, report.ratio, strict=True):
        context = c.turns[0].drawn_under if conditioning == "history" else c.turns[0].trained_under["task"]
        expected = scored_alone(policy, context.ids, c.turns[0].completion.ids, temperature)
        assert found == pytest.approx(expected.tolist(), abs=1e-5)
        quotient = math.exp(float(expected.sum()) - sum(c.turns[0].completion.logprobs))
        if c.turns[0].drawn_under.kind == "task" or conditioning == "history":
            assert ratio == 1.0
        else:
            assert ratio == pytest.approx(quotient, rel=1e-4)
            differ += abs(quotient - 1) > 0.05
    assert differ == (4 if conditioning == "task" else 0)


def test_history_trains_under_the_drawing_context() -> None:
    """The policy gradient by hand: sum over candidates of A / tokens x grad log p(y | drawing context)."""
    policy = tiny_policy()
    candidates, advantages = group(policy)
    for conditioning in ("history", "task"):
        report, found = gradient(policy, config(loss="dapo", conditioning=conditioning), candidates, advantages)
        tokens = sum(len(c.turns[0].completion.ids) for c in candidates)
        for c, advantage in zip(candidates, advantages, strict=True):
            context = c.turns[0].drawn_under if conditioning == "history" else c.turns[0].trained_under["task"]
            ids = torch.tensor([[*context.ids, *c.turns[0].completion.ids]])
            logprobs = policy.model(input_ids=ids).logits[0].log_softmax(-1)
            start = len(context.ids)
            for t, token in enumerate(c.turns[0].completion.ids):
                (-advantage * logprobs[start + t - 1, token] / tokens).backward(retain_graph=True)
        torch.testing.assert_close(found, gradients(policy), rtol=1e-4, atol=1e-6)
        # The ratio is 1 everywhere: the loss is minus the token mean of the advantages.
        mean = sum(a * len(c.turns[0].completion.ids) for a, c in zip(advantages, candidates, strict=True)) / tokens
        assert report.loss == pytest.approx(-mean, abs=1e-6)


def test_contexts_and_flags_of_a_batch() -> None:
    policy = tiny_policy()
    candidates, advantages = group(policy)
    task, history = (batch_of(config(conditioning=kind), candidates, advantages) for kind in ("task", "history"))
    # In each of the two sequences the first was drawn under x; the last of all was drawn under x apart.
    assert task.off_policy.tolist() == [False, True, True, False, True, True, False]
    assert not history.off_policy.any()
    assert torch.bincount(task.item[task.rows.sequence]).tolist() == [3, 1, 6, 3, 1, 6, 6]  # tokens of each
    # dapo: every token weighs 1 / (3 + 1 + 6 + 3 + 1 + 6 + 6)
    assert task.scale.tolist() == history.scale.tolist() == pytest.approx([1 / 26] * 7)
    assert task.drawn.tolist() == pytest.approx(
        [v for c in candidates for v in c.turns[0].completion.logprobs], abs=1e-6
    )
    assert training_kinds(candidates[0], "history") == ["task"]  # there is no other
    assert training_kinds(candidates[1], "history") == ["history"]
    for item in items_of(config(conditioning="history").update, candidates[:2], advantages[:2]):
        turn = candidates[item.member].turns[0]
        assert item.context(turn) == turn.drawn_under


def test_penalty_is_to_the_policy_without_adapter() -> None:
    policy = tiny_policy()
    candidates, _ = group(policy)
    settings = config(loss="dapo", kl_coef=0.5, kl_estimator="k3")
    report = update(policy, sgd(policy, 0.1), settings, rollout(candidates, [0.0] * 7), 1)
    policy = tiny_policy()  # the update changed the other one
    terms = []
    for c in candidates:
        x = c.turns[0].trained_under["task"].ids
        now = scored_alone(policy, x, c.turns[0].completion.ids)
        with policy.model.disable_adapter():
            d = now - scored_alone(policy, x, c.turns[0].completion.ids)
        terms.append((-d).exp() - 1 + d)
    mean = float(torch.cat(terms).mean())
    assert mean > 0.01
    assert report.kl_base == pytest.approx(mean, rel=1e-4)
    assert report.loss == pytest.approx(0.5 * mean, rel=1e-4)  # with advantages 0 there is nothing else
    assert math.isnan(update(policy, sgd(policy, 0.1), config(), rollout(candidates, [0.0] * 7), 1).kl_base)


def test_penalty_pulls_towards_the_base() -> None:
    policy = tiny_policy()
    candidates, _ = group(policy)
    optimiser = sgd(policy, 0.3)
    values = [
        update(policy, optimiser, config(kl_coef=1.0, kl_estimator="k2"), rollout(candidates, [0.0] * 7), s).kl_base
        for s in range(20)
    ]
    assert values[-1] < 0.5 * values[0]


def test_frozen_weights_stay_and_the_adapter_moves() -> None:
    policy = tiny_policy()
    candidates, advantages = group(policy)
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    update(policy, sgd(policy, 0.5), config(kl_coef=0.1), rollout(candidates, advantages), 1)
    for name, p in policy.model.named_parameters():
        assert torch.equal(p, before[name]) == ("lora_" not in name), name


def test_gradient_norm_is_clipped_and_reported_unclipped() -> None:
    policy = tiny_policy()
    candidates, advantages = group(policy)
    _, expected = gradient(policy, config(), candidates, advantages)
    before = flat(policy)
    limit = float(expected.norm()) / 4
    report = update(policy, sgd(policy, 1.0), config(max_grad_norm=limit), rollout(candidates, advantages), 1)
    assert report.grad_norm == pytest.approx(float(expected.norm()), rel=1e-5)
    torch.testing.assert_close(before - flat(policy), expected / 4, rtol=1e-3, atol=1e-6)


class Spy:
    """Records what ``losses.policy_terms`` is given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]] = []
        original = losses.policy_terms

        def spied(
            rule: Any, now: torch.Tensor, old: torch.Tensor, drawn: torch.Tensor, weights: Any, who: torch.Tensor
        ) -> Any:
            self.calls.append((now.detach().clone(), old.clone(), weights.advantage[who].clone(), drawn.clone()))
            return original(rule, now, old, drawn, weights, who)

        monkeypatch.setattr(update_module.losses, "policy_terms", spied)


def test_later_passes_keep_the_old_log_probs(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy()
    candidates, advantages = group(policy)
    spy = Spy(monkeypatch)
    settings = config(epochs=3, max_grad_norm=100.0, clip_low=0.05, clip_high=0.1)
    report = update(policy, sgd(policy, 0.5), settings, rollout(candidates, advantages), 1)
    (first, *_), (second, *_), (third, *_) = spy.calls
    olds = [old for _, old, *_ in spy.calls]
    assert torch.equal(olds[0], olds[1]) and torch.equal(olds[0], olds[2])
    torch.testing.assert_close(first, olds[0], rtol=0, atol=1e-6)
    assert float((second - olds[0]).abs().max()) > 0.05
    assert float((third - second).abs().max()) > 0.01
    # The report, by hand over the tokens of all three passes.
    change, clipped = [], []
    for now, old, advantage, _ in spy.calls:
        d, ratio = (now - old).double(), (now - old).double().exp()
        change.append(d.exp() - 1 - d)
        clipped.append(((ratio > 1.1) & (advantage > 0)) | ((ratio < 0.95) & (advantage < 0)))
    assert report.approx_kl == pytest.approx(float(torch.cat(change).mean()), rel=1e-3)
    assert report.clip_fraction == pytest.approx(float(torch.cat(clipped).double().mean()))
    assert 0 < report.clip_fraction < 1
    assert report.sums["tokens"] == 3 * 26
    fresh = tiny_policy()
    for c, found in zip(candidates, report.old, strict=True):
        expected = scored_alone(fresh, c.turns[0].trained_under["task"].ids, c.turns[0].completion.ids)
        assert found == pytest.approx(expected.tolist(), abs=1e-5)


def test_one_pass_over_all_is_on_policy() -> None:
    policy = tiny_policy()
    candidates, advantages = group(policy)
    report = update(policy, sgd(policy, 1.0), config(), rollout(candidates, advantages), 1)
    assert (report.approx_kl, report.clip_fraction) == (0.0, 0.0)


def test_minibatches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven optimiser steps of two candidates, twice: each candidate once a pass, its own old log-probs beside it."""
    policy = tiny_policy()
    candidates, advantages = group(policy)
    candidates, advantages = candidates * 2, [*advantages, *(-a for a in advantages)]
    spy = Spy(monkeypatch)
    settings = config(minibatches=7, epochs=2, micro_batch=1, correction="truncated_is", max_grad_norm=100.0)
    report = update(policy, sgd(policy, 0.1), settings, rollout(candidates, advantages), 5)
    fresh = tiny_policy()
    expected = [
        scored_alone(fresh, c.turns[0].trained_under["task"].ids, c.turns[0].completion.ids) for c in candidates
    ]
    for found, ours in zip(report.old, expected, strict=True):
        assert found == pytest.approx(ours.tolist(), abs=1e-5)
    tokens = sum(len(c.turns[0].completion.ids) for c in candidates)
    half = len(spy.calls) // 2
    passes = [torch.cat([old for _, old, *_ in calls]) for calls in (spy.calls[:half], spy.calls[half:])]
    everything = torch.cat(expected).float().sort().values
    for seen in passes:
        torch.testing.assert_close(seen.sort().values, everything, rtol=0, atol=1e-5)
    assert not torch.equal(passes[0], passes[1])  # another order in the second pass
    assert report.sums["tokens"] == 2 * tokens
    assert report.approx_kl > 0
    for c, importance, ratio, logprobs in zip(candidates, report.importance, report.ratio, expected, strict=True):
        off = c.turns[0].drawn_under.kind == "history"
        quotient = math.exp(float(logprobs.sum()) - sum(c.turns[0].completion.logprobs)) if off else 1.0
        assert ratio == pytest.approx(quotient, rel=1e-4)
        assert importance == pytest.approx(min(1.0, quotient), rel=1e-4)


def test_minibatches_and_micro_batches_give_one_result() -> None:
    after = []
    for size in (0, 1, 2):
        policy = tiny_policy()
        candidates, advantages = group(policy)
        settings = config(minibatches=2, epochs=2, micro_batch=size, correction="asymmetric")
        reports = [
            update(policy, sgd(policy, 0.2), settings, rollout(candidates * 2, advantages * 2), step) for step in (1, 2)
        ]  # fmt: skip
        after.append((flat(policy), reports))
    for weights, reports in after[1:]:
        torch.testing.assert_close(weights, after[0][0], rtol=1e-4, atol=1e-5)
        for ours, theirs in zip(reports, after[0][1], strict=True):
            assert ours.loss == pytest.approx(theirs.loss, abs=1e-5)
            assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-4)


def test_the_step_fixes_the_order_of_minibatches() -> None:
    def after(step: int) -> torch.Tensor:
        policy = tiny_policy()
        candidates, advantages = group(policy)
        update(policy, sgd(policy, 0.2), config(minibatches=7), rollout(candidates, advantages), step)
        return flat(policy)

    assert torch.equal(after(1), after(1))
    assert not torch.equal(after(1), after(2))


def test_no_advantage_no_gradient() -> None:
    policy = tiny_policy()
    candidates, _ = group(policy)
    before = flat(policy)
    report = update(policy, torch.optim.Adam(trainable(policy), lr=0.1), config(), rollout(candidates, [0.0] * 7), 1)
    assert (report.loss, report.grad_norm) == (0.0, 0.0)
    assert torch.equal(flat(policy), before)


def test_the_update_raises_what_was_good_and_lowers_what_was_bad() -> None:
    policy = tiny_policy()
    x = [5, 6, 7]
    good, bad = [9, 11, STOP], [13, 8, STOP]
    candidates = [candidate(x, [], y, scored_alone(policy, x, y)) for y in (good, bad)]
    before = [float(scored_alone(policy, x, y).sum()) for y in (good, bad)]
    update(policy, sgd(policy, 0.5), config(), rollout(candidates, [1.0, -1.0]), 1)
    after = [float(scored_alone(policy, x, y).sum()) for y in (good, bad)]
    assert after[0] > before[0] and after[1] < before[1]


# --- what is logged of a step ----------------------------------------------------------------------------------------


def scored_step() -> tuple[list[Scored], Report]:
    """Two groups: a, a again (worth 0 then), one unreadable; and two failures of one way, drawn under x each."""
    x = Context("task", (3,))

    def made(ids: tuple[int, ...], history: bool, redraws: int, finish: Any) -> Candidate:
        context = Context("history", (3, 4)) if history else x
        completion = Completion(ids, (-0.5,) * len(ids), "".join(map(chr, ids)), finish)
        earlier = ("a",) if history else ()
        turn = Turn(context, {"task": x, context.kind: context}, completion)
        return Candidate((turn,), earlier, redraws, len(ids) + redraws)

    tasks = [Task(7, "seven", {}), Task(8, "eight", {})]
    first = Group(
        tasks[0], (made((97, 1), False, 0, "stop"), made((97, 1), True, 2, "stop"), made((98,) * 5, True, 1, "length"))
    )
    second = Group(tasks[1], (made((99, 1), False, 0, "stop"), made((99, 1), False, 0, "stop")))
    yes, no = Score(1.0, True, "a"), Score(0.0, False, "c")
    scored = [
        Scored(first, [yes, yes, Score(0.0, False, None)], [1.0, 0.0, 0.0], [1.2, -0.6, -0.6]),
        Scored(second, [no, no], [0.0, 0.0], [0.0, 0.0]),
    ]
    old = [[-0.5, -0.5], [-1.0, -1.0], [-2.0] * 5, [-0.5, -0.5], [-0.5, -0.5]]
    ratio = [1.0, 3.0, 0.0, 1.0, 1.0]
    return scored, Report(old, [1.0, 1.0, 0.0, 1.0, 1.0], ratio, loss=0.25, grad_norm=2.0, tokens_trained=17)


def test_measures_of_a_step() -> None:
    found = step_measures(*scored_step())
    expected = {
        "reward": 2 / 5,  # as the environment gave it
        "credited": 1 / 5,
        "success": 2 / 5,
        "valid": 4 / 5,
        "distinct": 1.0,  # one way in each group
        "duplicates": 1 - 2 / 4,  # four readable answers, one and one distinct
        "redraws": 3,
        "length": 13 / 5,
        "truncated": 1 / 5,
        "zero_variance": 1 / 2,
        "turns": 1.0,
        "tokens_sketches": 0,
        "weight_mean": 6 / 5,
        "weight_ess": 36 / (5 * 12),  # (1 + 3 + 0 + 1 + 1)^2 / (5 (1 + 9 + 0 + 1 + 1))
        "loss": 0.25,
        "grad_norm": 2.0,
        "tokens_trained": 17,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    for name in ("kl_base", "success_guided", "sketch_repeats", "sketch_length"):
        assert math.isnan(found[name]), name
    assert found["success_direct"] == 2 / 5  # no candidate had a sketch


def test_rows_of_the_rollout_table() -> None:
    scored, report = scored_step()
    rows = rollout_rows(4, scored, report, "task")
    assert [(r["step"], r["group"], r["index"], r["task"]) for r in rows] == [
        (4, 0, 0, 7), (4, 0, 1, 7), (4, 0, 2, 7), (4, 1, 0, 8), (4, 1, 1, 8)
    ]  # fmt: skip
    assert rows[1] == {
        "step": 4,
        "group": 0,
        "index": 1,
        "task": 7,
        "prompt": "seven",
        "history": ["a"],
        "sketch": None,
        "sketches": [],
        "completion": "a\x01",
        "token_ids": [97, 1],
        "turns": ["a\x01"],
        "turn_tokens": [2],
        "turn_rewards": [],
        "episode_seed": None,
        "finish": "stop",
        "drawn_under": "history",
        "drawn_logprobs": [-0.5, -0.5],
        "engine_logprobs": [],
        "trained_under": "task",
        "old_logprobs": [-1.0, -1.0],
        "old_entropies": [],
        "weight": 1.0,
        "reward": 1.0,
        "credited": 0.0,
        "success": True,
        "strategy": "a",
        "advantage": -0.6,
        "redraws": 2,
        "sampled_tokens": 4,
    }
    under = [r["trained_under"] for r in rollout_rows(4, scored, report, "history")]
    assert under == ["task", "history", "history", "task", "task"]
    assert [len(r["old_logprobs"]) for r in rows] == [len(r["token_ids"]) for r in rows]
    assert sketch_rows(4, scored) == []


def two_stages() -> tuple[list[Scored], Report]:
    """One group: a direct episode of two turns, two that follow a sketch (one of them cut), and the two sketches' credit."""
    x, guided = Context("task", (3,)), Context("sketch", (3, 7))
    task = Task(9, "nine", {})

    def turn(base: Context, said: tuple[int, ...], ids: tuple[int, ...], finish: Any = "stop") -> Turn:
        completion = Completion(ids, (-0.25,) * len(ids), "".join(map(chr, ids)), finish)
        trained = {kind.kind: Context(kind.kind, (*kind.ids, *said)) for kind in {x: 0, base: 0}}
        return Turn(trained[base.kind], trained, completion)

    def draft(context: tuple[int, ...], text: str, tokens: int, **more: Any) -> Sketch:
        under = Context("draft", context)
        drawn = Turn(under, {"draft": under}, Completion((8, 1), (-0.5, -0.125), text, "stop"))
        return Sketch(drawn, sampled_tokens=tokens, **more)

    def episode(*rewards: float, success: bool) -> Episode:
        return Episode(
            task, 5, None, rewards=rewards, terminated=True, success=success, strategy="s" if success else None
        )

    candidates = (
        Candidate(
            (turn(x, (), (97, 1)), turn(x, (97, 1, 4), (98, 99, 1))), (), 0, 5, (), episode(0.0, 1.0, success=True)
        ),
        Candidate((turn(guided, (), (97, 1)),), (), 0, 2, (0,), episode(-0.5, success=False)),
        Candidate((turn(guided, (), (98,) * 4, "length"),), (), 0, 4, (1,), episode(2.0, success=True)),
    )
    sketches = (draft((3, 6), "one", 2), draft((3, 6, 8, 1, 6), " One", 6, repeats=True, redraws=2))
    group = Group(task, candidates, sketches)
    scores = [c.episode.verdict for c in candidates]
    found = Scored(group, scores, [1.0, -0.5, 0.0], [0.9, -1.1, 0.2], [-0.5, 0.0], [-0.7, 0.7])
    return [found], Report([[-1.0] * 5, [-2.0] * 2, [-3.0] * 4], [1.0, 0.5, 1.0], [1.0, 0.5, 2.0])


def test_measures_of_two_stages_and_several_turns() -> None:
    found = step_measures(*two_stages())
    expected = {
        "reward": (1.0 - 0.5 + 2.0) / 3,  # of an episode: the sum over its turns
        "credited": 0.5 / 3,
        "success": 2 / 3,
        "success_direct": 1.0,
        "success_guided": 1 / 2,
        "length": (5 + 2 + 4) / 3,
        "truncated": 1 / 3,
        "turns": 4 / 3,
        "sketch_repeats": 1 / 2,
        "sketch_length": 2.0,
        "tokens_sketches": 8,  # thrown-away draws included
        "redraws": 2,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_rows_of_several_turns_and_of_sketches() -> None:
    scored, report = two_stages()
    rows = rollout_rows(2, scored, report, "task+sketch")
    assert [row["trained_under"] for row in rows] == ["task", "task+sketch", "task+sketch"]
    assert [row["drawn_under"] for row in rows] == ["task", "sketch", "sketch"]
    assert [(row["sketch"], row["sketches"]) for row in rows] == [(None, []), ("one", [0]), (" One", [1])]
    first = {
        "completion": "a\x01\nbc\x01", "token_ids": [97, 1, 98, 99, 1], "turns": ["a\x01", "bc\x01"], "turn_tokens": [2, 3],
        "turn_rewards": [0.0, 1.0], "episode_seed": 5, "finish": "stop", "drawn_logprobs": [-0.25] * 5, "engine_logprobs": [],
        "old_logprobs": [-1.0] * 5, "reward": 1.0, "sampled_tokens": 5,
    }  # fmt: skip
    assert {name: rows[0][name] for name in first} == first
    assert rows[2]["finish"] == "length" and rows[2]["turn_rewards"] == [2.0]
    assert sketch_rows(2, scored)[1] == {
        "step": 2, "group": 0, "index": 1, "task": 9, "text": " One", "token_ids": [8, 1], "logprobs": [-0.5, -0.125],
        "finish": "stop", "repeats": True, "redraws": 2, "sampled_tokens": 6, "reward": 0.0, "advantage": 0.7,
    }  # fmt: skip
    scored[0].sketch_rewards, scored[0].sketch_advantages = [], []  # where sketches are not trained they have no credit
    assert [(row["reward"], row["advantage"]) for row in sketch_rows(2, scored)] == [(None, None)] * 2
    for kind, made in (("rollouts", rows), ("sketches", sketch_rows(2, scored))):
        schema.batch(kind, made)  # every column, of its type
