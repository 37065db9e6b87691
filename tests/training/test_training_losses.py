"""The update rule's pure functions on numbers that can be checked with a pocket calculator."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sesa_lab.config import UpdateConfig
from sesa_lab.training import losses

# Three candidates of 2, 1 and 2 tokens.
CANDIDATE = torch.tensor([0, 0, 1, 2, 2])
OLD = torch.tensor([-1.0, -2.0, -0.3, -0.5, -0.5], dtype=torch.float64)
DRAWN = torch.tensor([-1.5, -1.0, -1.0, -0.6, -0.5], dtype=torch.float64)
# log p/q: 0: (-1 + 1.5) + (-2 + 1) = -0.5; 1: -0.3 + 1 = 0.7; 2: 0.1, but drawn on-policy: counts as 0.
LOW, HIGH = math.exp(-0.5), math.exp(0.7)  # 0.6065, 2.0138
OFF = torch.tensor([True, True, False])


def rule(**changes: Any) -> UpdateConfig:
    return UpdateConfig(**changes)


def corrected(advantage: list[float], **changes: Any) -> losses.Weights:
    return losses.correct(rule(**changes), OLD, DRAWN, torch.tensor(advantage, dtype=torch.float64), CANDIDATE, OFF)


def near(expected: list[float]) -> Any:
    return pytest.approx(expected, rel=1e-12)


def test_sums_by_candidate() -> None:
    values = torch.tensor([1.0, 2.0, 4.0, 8.0])
    found = losses.per_candidate(values, torch.tensor([2, 0, 2, 0]), 4)
    assert found.tolist() == [10.0, 0.0, 5.0, 0.0]  # 2 + 8, nothing, 1 + 4, nothing


@pytest.mark.parametrize("correction", ["none", "ppo_clip"])
def test_no_weights(correction: str) -> None:
    found = corrected([1.0, -1.0, -0.5], correction=correction)
    assert found.advantage.tolist() == [1.0, -1.0, -0.5]
    assert found.importance.tolist() == [1.0, 1.0, 1.0]
    assert found.ratio.tolist() == near([LOW, HIGH, 1.0])


@pytest.mark.parametrize(
    ("truncation", "expected"), [(1.0, [LOW, 1.0, 1.0]), (1.5, [LOW, 1.5, 1.0]), (5.0, [LOW, HIGH, 1.0])]
)
def test_truncated_importance(truncation: float, expected: list[float]) -> None:
    found = corrected([1.0, -1.0, -0.5], correction="truncated_is", truncation=truncation)
    assert found.advantage.tolist() == [1.0, -1.0, -0.5]
    assert found.importance.tolist() == near(expected)
    assert found.ratio.tolist() == near([LOW, HIGH, 1.0])  # for diagnosis: never truncated


@pytest.mark.parametrize(
    ("advantage", "truncation", "expected"),
    [
        ([1.0, -1.0, -0.5], 1.0, [1.0, 1.0, 1.0]),  # 0 is a good find: full weight; 1: min(1, 2.01); 2: on-policy
        ([-1.0, 1.0, -0.5], 1.0, [LOW, 1.0, 1.0]),
        ([-1.0, -1.0, 0.5], 5.0, [LOW, HIGH, 1.0]),
        ([0.0, -1.0, 1.0], 1.5, [1.0, 1.5, 1.0]),  # advantage 0 is not negative
    ],
)
def test_asymmetric(advantage: list[float], truncation: float, expected: list[float]) -> None:
    found = corrected(advantage, correction="asymmetric", truncation=truncation)
    assert found.advantage.tolist() == advantage
    assert found.importance.tolist() == near(expected)


def test_asymmetric_leaves_on_policy_candidates_alone_whatever_the_bound() -> None:
    """A bound below 1 tells ``off_policy & (advantage < 0)`` from ``advantage < 0`` alone: min(0.5, p/q = 1) is not 1."""
    found = corrected([-1.0, -1.0, -0.5], correction="asymmetric", truncation=0.5)
    assert found.importance.tolist() == [0.5, 0.5, 1.0]  # min(0.5, 0.61), min(0.5, 2.01), on-policy


def test_positive_only() -> None:
    everywhere = corrected([-1.0, 2.0, -0.5], correction="positive_only")
    assert everywhere.advantage.tolist() == [0.0, 2.0, 0.0]
    off_policy = corrected([-1.0, 2.0, -0.5], correction="positive_only", correction_scope="off_policy")
    assert off_policy.advantage.tolist() == [0.0, 2.0, -0.5]  # the last was drawn on-policy
    assert everywhere.importance.tolist() == off_policy.importance.tolist() == [1.0, 1.0, 1.0]


def test_scope_belongs_to_positive_only() -> None:
    for correction in ("none", "truncated_is", "asymmetric", "ppo_clip"):
        one, other = (
            corrected([-1.0, 2.0, -0.5], correction=correction, correction_scope=scope)
            for scope in ("all", "off_policy")
        )
        assert torch.equal(one.advantage, other.advantage) and torch.equal(one.importance, other.importance)


@pytest.mark.parametrize("correction", ["none", "truncated_is", "positive_only", "asymmetric", "ppo_clip"])
def test_on_policy_candidates_weigh_exactly_one(correction: str) -> None:
    # Their old and drawn log-probs differ by rounding only; a weight of 0.9999998 would make equal runs differ.
    nobody = torch.zeros(3, dtype=torch.bool)
    advantage = torch.tensor([-1.0, 1.0, -0.5], dtype=torch.float64)
    found = losses.correct(rule(correction=correction, truncation=1.0), OLD, DRAWN, advantage, CANDIDATE, nobody)
    assert found.importance.tolist() == found.ratio.tolist() == [1.0, 1.0, 1.0]


def test_asymmetric_is_none_without_negative_advantages() -> None:
    one, other = (corrected([0.0, 1.0, 0.5], correction=correction) for correction in ("asymmetric", "none"))
    assert torch.equal(one.advantage, other.advantage) and torch.equal(one.importance, other.importance)


@pytest.mark.parametrize("truncation", [1.0, 3.0])
@pytest.mark.parametrize("correction", ["truncated_is", "asymmetric"])
def test_equal_distributions_need_no_correction(correction: str, truncation: float) -> None:
    advantage, everybody = torch.tensor([-1.0, 1.0, -0.5]), torch.ones(3, dtype=torch.bool)
    settings = rule(correction=correction, truncation=truncation)
    assert losses.correct(settings, OLD, OLD, advantage, CANDIDATE, everybody).importance.tolist() == [1.0, 1.0, 1.0]


def test_long_completions_neither_overflow_nor_carry_gradients() -> None:
    # 2000 tokens, log p/q = -0.1 and -1 each: e^-200 and e^-2000 are 0 in float32; no NaN may come of it.
    count = 2000
    candidate = torch.arange(2).repeat_interleave(count)
    old = torch.cat([torch.full((count,), -1.1), torch.full((count,), -2.0)]).requires_grad_()
    drawn = torch.full((2 * count,), -1.0)
    everybody = torch.ones(2, dtype=torch.bool)
    found = losses.correct(rule(correction="truncated_is"), old, drawn, torch.tensor([-1.0, 1.0]), candidate, everybody)
    assert found.importance.tolist() == [0.0, 0.0]
    assert not found.importance.requires_grad and not found.ratio.requires_grad


def test_token_weights() -> None:
    lengths = torch.tensor([2, 3, 5])
    # grpo: 1 / (3 * 2), 1 / (3 * 3), 1 / (3 * 5). dr_grpo: 1 / (3 * 8). dapo: 1 / (2 + 3 + 5).
    assert losses.token_weights(rule(loss="grpo"), lengths, 8).tolist() == pytest.approx([1 / 6, 1 / 9, 1 / 15])
    assert losses.token_weights(rule(loss="dr_grpo"), lengths, 8).tolist() == pytest.approx([1 / 24] * 3)
    assert losses.token_weights(rule(loss="dapo"), lengths, 8).tolist() == pytest.approx([1 / 10] * 3)


def test_the_three_losses_differ_by_length_alone() -> None:
    # Equal lengths that use the whole limit: all three are the mean over tokens, 1 / (4 * 6).
    lengths = torch.full((4,), 6)
    for loss in ("grpo", "dr_grpo", "dapo"):
        assert losses.token_weights(rule(loss=loss), lengths, 6).tolist() == pytest.approx([1 / 24] * 4)


def test_clipping_on_both_sides() -> None:
    # Clip range [0.8, 1.3]. Ratios 1.5, 0.5, 1.5, 0.5, 1.1, 0.9, 1.5; advantages + + - - + - 0.
    #   + 1.5: min(1.5, 1.3) = 1.3, held back   + 0.5: min(0.5, 0.8) = 0.5, free: it may come up again
    #   - 1.5: min(-1.5, -1.3) = -1.5, free     - 0.5: min(-0.5, -0.8) = -0.8, held back
    ratio = torch.tensor([1.5, 0.5, 1.5, 0.5, 1.1, 0.9, 1.5], dtype=torch.float64)
    now = ratio.log().requires_grad_()
    advantage = torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0, -1.0, 0.0], dtype=torch.float64)
    weights = losses.Weights(advantage, torch.ones(7, dtype=torch.float64), torch.ones(7, dtype=torch.float64))
    old = torch.zeros(7, dtype=torch.float64)
    settings = rule(clip_low=0.2, clip_high=0.3)
    terms, clipped = losses.policy_terms(settings, now, old, old, weights, torch.arange(7))
    assert terms.tolist() == near([-1.3, -0.5, 1.5, 0.8, -1.1, 0.9, 0.0])
    assert clipped.tolist() == [True, False, False, True, False, False, False]
    terms.sum().backward()
    # d/dnow of -A exp(now - old) is -A r; nothing where the clip holds.
    assert now.grad is not None
    assert now.grad.tolist() == near([0.0, -0.5, 1.5, 0.0, -1.1, 0.9, 0.0])


def test_policy_terms_by_hand() -> None:
    # Candidates 0 (A = 2, weight 0.5) with two tokens, 1 (A = -1, weight 1) with one; ratios 1.1, 1.0 and 0.9.
    now = torch.tensor([1.1, 1.0, 0.9], dtype=torch.float64).log()
    advantage, importance = torch.tensor([2.0, -1.0]).double(), torch.tensor([0.5, 1.0]).double()
    old, candidate = torch.zeros(3).double(), torch.tensor([0, 0, 1])
    weights = losses.Weights(advantage, importance, importance)
    terms, clipped = losses.policy_terms(rule(), now, old, old - 9, weights, candidate)
    assert terms.tolist() == near([-1.1, -1.0, 0.9])  # -0.5 * 1.1 * 2, -0.5 * 1 * 2, -1 * 0.9 * -1
    assert not clipped.any()


def test_ppo_clip_takes_the_ratio_against_the_drawing_distribution() -> None:
    # now / old = 1.0 and 1.0, now / drawn = 2 and 0.5; clip range [0.8, 1.2], A = 1 and -1: both held back.
    now = torch.tensor([-1.0, -2.0], dtype=torch.float64, requires_grad=True)
    drawn = torch.tensor([-1.0 - math.log(2), -2.0 + math.log(2)], dtype=torch.float64)
    weights = losses.Weights(*torch.tensor([[1.0, -1.0], [1.0, 1.0], [2.0, 0.5]], dtype=torch.float64))
    old = now.detach()
    terms, clipped = losses.policy_terms(rule(correction="ppo_clip"), now, old, drawn, weights, torch.arange(2))
    assert terms.tolist() == near([-1.2, 0.8])
    assert clipped.tolist() == [True, True]
    terms, clipped = losses.policy_terms(rule(correction="none"), now, old, drawn, weights, torch.arange(2))
    assert terms.tolist() == near([-1.0, 1.0])
    assert clipped.tolist() == [False, False]


def test_a_candidate_drawn_by_the_trained_policy_gets_the_plain_policy_gradient() -> None:
    # At now = old the gradient of the term is -A w, whatever the clip range.
    now = torch.tensor([-1.0, -0.2, -3.0], dtype=torch.float64, requires_grad=True)
    weights = losses.Weights(*torch.tensor([[2.0, -1.0], [0.5, 1.0], [0.5, 1.0]], dtype=torch.float64))
    terms, _ = losses.policy_terms(rule(), now, now.detach(), now.detach(), weights, torch.tensor([0, 1, 1]))
    terms.sum().backward()
    assert now.grad is not None
    assert now.grad.tolist() == [-1.0, 1.0, 1.0]


def test_kl_estimators_by_hand() -> None:
    # d = log 2 and -log 2. k1 = d; k2 = d^2 / 2; k3 = e^-d - 1 + d: 1/2 - 1 + log 2 and 2 - 1 - log 2.
    two = math.log(2)
    now, reference = torch.tensor([[-1.0, -1.0 - two], [-1.0 - two, -1.0]], dtype=torch.float64)
    assert losses.kl_terms(now, reference, "k1").tolist() == near([two, -two])
    assert losses.kl_terms(now, reference, "k2").tolist() == near([two * two / 2, two * two / 2])
    assert losses.kl_terms(now, reference, "k3").tolist() == near([two - 0.5, 1 - two])
    for estimator in ("k1", "k2", "k3"):
        assert losses.kl_terms(now, now, estimator).tolist() == [0.0, 0.0]


def kl_example() -> tuple[torch.Tensor, torch.Tensor, float]:
    """Logits of a policy over three tokens, log-probs of a reference, and the exact KL(policy || reference)."""
    p, r = [0.5, 0.3, 0.2], [0.25, 0.25, 0.5]
    exact = 0.5 * math.log(2) + 0.3 * math.log(1.2) + 0.2 * math.log(0.4)  # 0.21801
    logits, reference = torch.tensor([p, r], dtype=torch.float64).log()
    return logits.clone().requires_grad_(), reference, exact


def test_k1_and_k3_are_unbiased_and_k2_is_not() -> None:
    logits, reference, exact = kl_example()
    now = logits.detach().log_softmax(-1)
    mean = {e: float((now.exp() * losses.kl_terms(now, reference, e)).sum()) for e in ("k1", "k2", "k3")}
    assert mean["k1"] == pytest.approx(exact, rel=1e-12)
    assert mean["k3"] == pytest.approx(exact, rel=1e-12)
    squares = 0.5 * math.log(2) ** 2 + 0.3 * math.log(1.2) ** 2 + 0.2 * math.log(0.4) ** 2
    assert mean["k2"] == pytest.approx(squares / 2, rel=1e-12)
    assert abs(mean["k2"] - exact) > 0.005  # 0.2091 against 0.2180


def test_expected_gradients_of_the_kl_estimators() -> None:
    """Tokens are drawn from p and then held: the gradient goes through the log-probs only.

    With s = grad log p and E[s] = 0: k1 gives E[s] = 0; k2 gives E[d s] = grad KL(p || r);
    k3 gives E[s - (r/p) s] = -sum r s = grad KL(r || p).
    """

    def gradient(value: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(value, logits)[0]

    logits, reference, _ = kl_example()
    exact = {
        "k1": lambda now: 0 * now.sum(),
        "k2": lambda now: (now.exp() * (now - reference)).sum(),
        "k3": lambda now: (reference.exp() * (reference - now)).sum(),
    }
    for estimator, value in exact.items():
        now = logits.log_softmax(-1)
        sampled = gradient((now.exp().detach() * losses.kl_terms(now, reference, estimator)).sum())
        torch.testing.assert_close(sampled, gradient(value(logits.log_softmax(-1))), rtol=1e-9, atol=1e-12)
