"""Small policies made on the spot in the Hugging Face format; loaded by the same code as any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

from sesa_lab.config import PolicyConfig
from sesa_lab.policies import Policy, load_policy

PAD, END, START = "<|pad|>", "<|im_end|>", "<|im_start|>"
STOP = 1  # the id of END

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Drops what earlier assistant turns said, as reasoning models' templates do with their thoughts.
REWRITING = CHATML.replace(
    "{{ message.content }}",
    "{{ '...' if message.role == 'assistant' and not loop.last else message.content }}",
)
# Ends a turn by a line break alone, so that the stop token of an answer has no place in the dialogue.
UNSTOPPED = CHATML.replace("{{ message.content }}<|im_end|>", "{{ message.content }}")


def save_tokenizer(folder: Path, template: str | None = CHATML, alphabet: list[str] | None = None) -> int:
    """A byte-level BPE without merges, one token a byte of ``alphabet`` (None: all); returns the vocabulary's size."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet()) if alphabet is None else alphabet
    raw = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate([PAD, END, START, *letters])}, merges=[]))
    raw.add_special_tokens([PAD, END, START])
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=END, pad_token=PAD)
    fast.chat_template = template
    fast.save_pretrained(folder)
    return len(fast)


def save_model(
    folder: Path,
    template: str | None = CHATML,
    alphabet: list[str] | None = None,
    kind: type = Qwen2Config,
    **shape: Any,
) -> Path:
    """A random causal language model and its tokenizer; its distributions are far from uniform."""
    size = save_tokenizer(folder, template, alphabet)
    defaults = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "initializer_range": 0.1,
    }
    config = kind(
        **{**defaults, "vocab_size": size, "bos_token_id": None, "eos_token_id": STOP, "pad_token_id": 0, **shape}
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def load(folder: Path, adapter_noise: float = 0.0, **settings: Any) -> Policy:
    """The policy in ``folder``; with ``adapter_noise`` its LoRA matrices B are not 0, as after training."""
    policy = load_policy(PolicyConfig(model=str(folder), device="cpu", **settings), "path_exploration", {}, 0)
    if adapter_noise:
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for name, weight in policy.model.named_parameters():
                if "lora_B" in name:
                    weight.copy_(adapter_noise * torch.randn(weight.shape, generator=generator))
    return policy


def full_logits(model: Any, ids: tuple[int, ...]) -> torch.Tensor:
    """(T, V) float32 logits of one ordinary forward pass over one sequence, no cache, no padding."""
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0].float()


def reference_logprobs(
    model: Any, context: tuple[int, ...], completion: tuple[int, ...], temperature: float = 1.0
) -> torch.Tensor:
    """(len(completion),) log-probs of the tempered softmax by ``full_logits``."""
    logprobs = (full_logits(model, context + completion) / temperature).log_softmax(-1)
    start = len(context)
    return torch.stack([logprobs[start + t - 1, token] for t, token in enumerate(completion)])
