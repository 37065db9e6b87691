"""Policies: a causal language model in the Hugging Face format, its tokenizer, and a LoRA adapter on it."""

from sesa_lab.policies.load import Policy, lab_policy_for, load_policy
from sesa_lab.policies.lora import merged
from sesa_lab.policies.memory import Workload
from sesa_lab.policies.score import Rows, pack, token_logprobs
from sesa_lab.policies.shard import shard, sharded

__all__ = [
    "Policy",
    "Rows",
    "Workload",
    "lab_policy_for",
    "load_policy",
    "merged",
    "pack",
    "shard",
    "sharded",
    "token_logprobs",
]
