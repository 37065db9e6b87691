"""Merging the adapter for rollouts leaves no trace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_policy import gradients, tiny_policy

from sesa_lab.policies import Policy, merged, pack, token_logprobs

IDS = torch.tensor([[5, 9, 3, 17, 30, 2]])


def weights(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in policy.model.state_dict().items()}


def outputs(policy: Policy) -> torch.Tensor:
    with torch.no_grad():
        return policy.model(input_ids=IDS).logits


def assert_untouched(policy: Policy, before: dict[str, torch.Tensor], modules: list[str], logits: torch.Tensor) -> None:
    after = policy.model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert [name for name, _ in policy.model.named_modules()] == modules
    assert torch.equal(outputs(policy), logits)


def test_bit_for_bit_as_before() -> None:
    policy = tiny_policy(layers=2)
    before, modules, logits = weights(policy), [name for name, _ in policy.model.named_modules()], outputs(policy)
    parameters = [name for name, _ in policy.model.named_parameters()]
    with policy.model.disable_adapter():
        base = outputs(policy)
    assert float((logits - base).abs().max()) > 0.1  # the adapter matters
    for _ in range(20):  # peft's own unmerge would drift
        with merged(policy.model):
            torch.testing.assert_close(outputs(policy), logits, rtol=0, atol=1e-5)
    assert_untouched(policy, before, modules, logits)
    assert [name for name, _ in policy.model.named_parameters()] == parameters
    with policy.model.disable_adapter():
        assert torch.equal(outputs(policy), base)


def test_16_bit_weights_are_not_merged() -> None:
    """Merged into bfloat16, a change below half a weight's last bit vanished: drawn by one policy, trained as another."""
    policy = tiny_policy()
    policy.model.to(torch.bfloat16)
    for name, parameter in policy.model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
            if (
                "lora_B" in name
            ):  # a change of 2^-12 of weights around 0.02 to 0.1, whose bfloat16 steps are 2^-14 to 2^-11
                parameter.data.fill_(2.0**-12)
    with policy.model.disable_adapter():
        base = outputs(policy)
    logits = outputs(policy)
    assert not torch.equal(logits, base)
    with merged(policy.model):
        assert torch.equal(outputs(policy), logits)
    assert torch.equal(outputs(policy), logits)


def test_an_exception_inside_restores_too() -> None:
    policy = tiny_policy()
    before, modules, logits = weights(policy), [name for name, _ in policy.model.named_modules()], outputs(policy)
    with pytest.raises(RuntimeError, match="in the block"), merged(policy.model):
        raise RuntimeError("in the block")
    assert_untouched(policy, before, modules, logits)


def test_a_block_within_a_block() -> None:
    policy = tiny_policy()
    before, modules, logits = weights(policy), [name for name, _ in policy.model.named_modules()], outputs(policy)
    with merged(policy.model):
        with pytest.raises(KeyError), merged(policy.model):
            torch.testing.assert_close(outputs(policy), logits, rtol=0, atol=1e-5)
            raise KeyError
        torch.testing.assert_close(outputs(policy), logits, rtol=0, atol=1e-5)  # the adapter counts once
    assert_untouched(policy, before, modules, logits)


def test_the_adapter_trains_as_if_it_had_never_been_merged() -> None:
    policy: Any = tiny_policy()
    rows = pack([[3, 4]], [[5, 6, 7]])

    def gradient() -> torch.Tensor:
        token_logprobs(policy, rows)[0].sum().backward()
        return gradients(policy)

    expected = gradient()
    with merged(policy.model):
        pass
    assert torch.equal(gradient(), expected)
