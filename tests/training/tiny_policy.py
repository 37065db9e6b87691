"""What the tests of training share: a policy of a few thousand weights, and candidates made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen2Config, Qwen2ForCausalLM

from sesa_lab.policies import Policy
from sesa_lab.types import Candidate, Completion, Context, Group, Scored, Task, Turn

VOCABULARY = 50
STOP = 1


def tiny_policy(seed: int = 0, layers: int = 1) -> Policy:
    """Hidden size 32; adapter and base are both random, so that adapter on, off and merged differ visibly."""
    shape = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        initializer_range=0.3,  # the usual 0.02 would predict almost uniformly
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=STOP,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        lora = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(Qwen2ForCausalLM(shape).eval(), lora)
        for name, weight in model.named_parameters():
            if "lora_B" in name:  # zero at first, where the adapter would change nothing
                torch.nn.init.normal_(weight, std=0.1)
    return Policy(model, None, "lab", (STOP,), "tiny")


def trainable(policy: Policy) -> list[torch.nn.Parameter]:
    return [p for p in policy.model.parameters() if p.requires_grad]


def gradients(policy: Policy) -> torch.Tensor:
    """All gradients of the adapter in one vector, taken away from it."""
    found = torch.cat([p.grad.flatten() for p in trainable(policy)])
    for p in trainable(policy):
        p.grad = None
    return found


@torch.no_grad()
def scored_alone(
    policy: Policy, context: Sequence[int], completion: Sequence[int], temperature: float = 1.0
) -> torch.Tensor:
    """Log-probs of one completion, by one forward pass of its own and the model's own output layer."""
    ids = torch.tensor([[*context, *completion]])
    logits = policy.model(input_ids=ids).logits[0].double() / temperature
    start = len(context)
    return torch.stack(
        [logits[start + t - 1].log_softmax(-1)[token] for t, token in enumerate(completion)]
    )  # fmt: skip


def candidate(
    x: Sequence[int],
    history: Sequence[int],
    ids: Sequence[int],
    logprobs: Sequence[float],
) -> Candidate:
    """Drawn under x alone where ``history`` is empty, else under x and history."""
    task = Context("task", tuple(x))
    completion = Completion(tuple(ids), tuple(map(float, logprobs)), "", "stop")
    if not history:
        return Candidate((Turn(task, {"task": task}, completion),))
    drawn = Context("history", (*x, *history))
    return Candidate((Turn(drawn, {"task": task, "history": drawn}, completion),), ("earlier",))


def group(policy: Policy, seed: int = 0, temperature: float = 1.0) -> tuple[list[Candidate], list[float]]:
    """Seven candidates of two tasks with advantages: nested histories, one repeat, lengths 1 to 6, true drawn log-probs."""
    random = torch.Generator().manual_seed(seed)

    def tokens(n: int) -> list[int]:
        return torch.randint(2, VOCABULARY, (n,), generator=random).tolist()

    found = []
    for x in (tokens(4), tokens(3)):
        history: list[int] = []
        for length in (3, 1, 6):
            ids = [*tokens(length - 1), STOP]
            drawn = scored_alone(policy, [*x, *history], ids, temperature)
            found.append(candidate(x, history, ids, drawn))
            history += [*ids, 2]
    last = found[-1].turns[0]
    x = last.trained_under["task"].ids
    found.append(candidate(x, [], last.completion.ids, scored_alone(policy, x, last.completion.ids, temperature)))
    return found, [0.7, -1.2, 0.5, 1.5, -0.4, -1.1, 0.9]


def rollout(candidates: Sequence[Candidate], advantages: Sequence[float], **more: Any) -> list[Scored]:
    """What ``update`` takes: one group with these advantages; ``more`` are fields of ``Scored`` or the group's sketches."""
    group = Group(Task(0, "", {}), tuple(candidates), tuple(more.pop("sketches", ())))
    return [Scored(group, [], [], list(advantages), **more)]
