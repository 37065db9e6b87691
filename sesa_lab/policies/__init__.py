"""Policies: a causal language model in the Hugging Face format, its tokenizer, and a LoRA adapter on it."""

from sesa_lab.policies.load import Policy, lab_policy_for, load_policy
from sesa_lab.policies.lora import merged
from sesa_lab.policies.score import Rows, pack, token_logprobs

__all__ = ["Policy", "Rows", "lab_policy_for", "load_policy", "merged", "pack", "token_logprobs"]
