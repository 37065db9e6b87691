"""The update rule: pure functions on flat tensors of the tokens that are trained.

Shape legend: N tokens of one forward pass, C candidates. ``candidate`` (N,) says whose token it is. Log-probs carry their
labels: *now* is the policy being trained, *old* the policy when the group was drawn, both under the training context;
*drawn* is the policy when the group was drawn under the drawing context. Where a candidate is trained under the context it
was drawn under, old = drawn up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sesa_lab.config import UpdateConfig


@dataclass(frozen=True)
class Weights:
    """What the correction does to each candidate, all detached.

    Attributes:
        advantage: (C,) advantages after the correction's cut.
        importance: (C,) factor on the policy term.
        ratio: (C,) untruncated p(y|training context) / q(y|drawing context), for diagnosis.
    """

    advantage: torch.Tensor
    importance: torch.Tensor
    ratio: torch.Tensor


def per_candidate(values: torch.Tensor, candidate: torch.Tensor, count: int) -> torch.Tensor:
    """Sums of (N,) token values by candidate, (C,)."""
    return torch.zeros(count, dtype=values.dtype, device=values.device).index_add(0, candidate, values)


def correct(
    config: UpdateConfig,
    old: torch.Tensor,
    drawn: torch.Tensor,
    advantage: torch.Tensor,
    candidate: torch.Tensor,
    off_policy: torch.Tensor,
) -> Weights:
    """How candidates drawn from q(y|drawing context) enter an update of p(y|training context).

    Args:
        config: ``correction``, ``truncation`` (c) and ``correction_scope`` are used.
        old: (N,) log-probs, policy when drawn, training context.
        drawn: (N,) log-probs, policy when drawn, drawing context.
        advantage: (C,).
        candidate: (N,).
        off_policy: (C,) bool, drawn under another context than trained under.

    Returns:
        none, ppo_clip: importance 1 (ppo_clip acts inside the clipped ratio). truncated_is: min(c, p/q).
        asymmetric: 1 where the advantage is positive, min(c, p/q) where it is negative: rare good finds keep their full
        weight, candidates the trained distribution would hardly draw are punished only as much as it would draw them.
        positive_only: negative advantages become 0. p/q is over the whole completion. Candidates that are on-policy
        keep importance 1 throughout.
    """
    count = len(advantage)
    ratio = per_candidate((old - drawn).detach().double(), candidate, count).exp().to(advantage.dtype)
    ratio = torch.where(off_policy, ratio, torch.ones_like(ratio))
    importance = torch.ones_like(ratio)
    if config.correction == "truncated_is":
        importance = torch.where(off_policy, ratio.clamp(max=config.truncation), importance)
    elif config.correction == "asymmetric":
        tempered = off_policy & (advantage < 0)
        importance = torch.where(tempered, ratio.clamp(max=config.truncation), importance)
    elif config.correction == "positive_only":
        dropped = off_policy if config.correction_scope == "off_policy" else torch.ones_like(off_policy)
        advantage = torch.where(dropped, advantage.clamp(min=0.0), advantage)
    return Weights(advantage, importance, ratio)


def token_weights(config: UpdateConfig, lengths: torch.Tensor, max_tokens: int) -> torch.Tensor:
    """(C,) factor of each token of a candidate, so that the loss of an optimiser step is a plain sum over tokens.

    Args:
        config: ``loss`` is used. grpo: 1 / (C |y|); dr_grpo: 1 / (C max_tokens); dapo: 1 / (sum of |y|).
        lengths: (C,) tokens a completion, of *all* candidates of the optimiser step, so that splitting the step into
            micro-batches changes nothing.
        max_tokens: the token limit of a completion.
    """
    lengths = lengths.to(torch.float32)
    if config.loss == "grpo":
        return 1.0 / (len(lengths) * lengths.clamp(min=1))
    if config.loss == "dr_grpo":
        return torch.full_like(lengths, 1.0 / (len(lengths) * max_tokens))
    return torch.full_like(lengths, 1.0) / lengths.sum().clamp(min=1)


def policy_terms(
    config: UpdateConfig,
    now: torch.Tensor,
    old: torch.Tensor,
    drawn: torch.Tensor,
    weights: Weights,
    candidate: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Clipped policy-gradient terms (PPO's, arXiv 1707.06347, with DAPO's two clip ranges, arXiv 2503.14476).

    -w min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) with r = exp(now - old), or exp(now - drawn) for ppo_clip.

    Returns:
        (N,) terms to be minimised, and (N,) bool: tokens whose gradient the clip removed.
    """
    advantage = weights.advantage[candidate]
    ratio = (now - (drawn if config.correction == "ppo_clip" else old)).exp()
    bounded = ratio.clamp(1.0 - config.clip_low, 1.0 + config.clip_high)
    terms = -torch.minimum(ratio * advantage, bounded * advantage) * weights.importance[candidate]
    clipped = ((ratio < 1.0 - config.clip_low) & (advantage < 0)) | (
        (ratio > 1.0 + config.clip_high) & (advantage > 0)
    )  # fmt: skip
    return terms, clipped


def mismatch_weights(config: UpdateConfig, drawn: torch.Tensor, engine: torch.Tensor) -> torch.Tensor:
    """(N,) factor on each token's policy term for an engine whose log-probs are not the trainer's.

    Token-level truncated importance sampling (Yao et al., "Your efficient RL framework secretly brings you off-policy RL
    training", 2025): min(c, q / q_engine), q the trainer's and q_engine the engine's probability of the token, both under the
    drawing context, of the policy when drawn.

    Args:
        config: ``mismatch`` and ``mismatch_truncation`` (c) are used.
        drawn: (N,) log q.
        engine: (N,) log q_engine.
    """
    if config.mismatch == "none":
        return torch.ones_like(drawn)
    return (drawn - engine).exp().clamp(max=config.mismatch_truncation)


def kl_terms(now: torch.Tensor, reference: torch.Tensor, estimator: str) -> torch.Tensor:
    """(N,) per-token estimates of KL(policy || reference), nats, for tokens drawn from the policy.

    k1 = d, k2 = d^2 / 2, k3 = exp(-d) - 1 + d with d = now - reference (J. Schulman, "Approximating KL divergence", 2020).
    k1 is unbiased as a value, but as a loss its expected gradient is zero; k3 >= 0. For candidates drawn under another
    context than the one trained under, all three are estimates over the drawing distribution.
    """
    difference = now - reference
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return difference.square() / 2
    return (-difference).exp() - 1 + difference
