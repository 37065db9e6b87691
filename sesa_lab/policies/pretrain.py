"""Make a lab policy: a small Qwen2 trained from scratch to answer with one path, and to go on listing distinct ones.

One document is ``x y1 <stop> bridge y2 <stop> bridge y3 ...``: distinct answers drawn one after another from the
environment's prior without replacement. Its first answer follows the prior, so direct sampling is as skewed as the prior
is; every later one is conditioned on those before it. The loss covers the answers and their stop tokens only.
"""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from sesa_lab import prompts
from sesa_lab.config import PretrainConfig
from sesa_lab.errors import InputError
from sesa_lab.policies.load import CARD
from sesa_lab.seeding import stream, torch_seed

STOP = "<|end|>"
PAD = "<|endoftext|>"  # Qwen2Tokenizer adds it if it is not there, beyond the vocabulary
EMBEDDING_STD = 0.1
"""From the usual 0.02, siblings' embeddings end up with a cosine of 0.98 (they stand in the same places), and no small
change of the hidden state can tell them apart: reinforcement learning stalled at 0.4 accuracy. Large random parts keep them
apart, as in real models."""


def pretrain(
    environment: Any, folder: Path, config: PretrainConfig, progress: Callable[[int, float], None]
) -> dict[str, Any]:
    """Train a lab policy for ``environment`` and save it to ``folder``; returns what the model card says.

    Args:
        environment: made by ``sesa_lab.environments.make``; must be ``path_exploration``-like: ``leaves`` and ``prior()``.
        folder: written in the Hugging Face format; must not exist yet.
        config: size and length of the training.
        progress: called every step with the step and its loss.

    Raises:
        InputError: the folder exists, or the width does not fit.
    """
    if folder.exists():
        raise InputError(f"--out {folder} exists already; choose another folder or remove it")
    if config.hidden % 32:
        raise InputError(f"hidden = {config.hidden}: expected a multiple of 32 (the head size)")
    torch.set_num_threads(1)  # the weights depend on it in their last bits
    tokenizer = _tokenizer(environment, config)
    model = _model(tokenizer, config)
    documents = _Documents(environment, tokenizer, config)
    losses = _train(model, documents, config, progress)
    card = _evaluate(model, documents, config) | {"train_loss": round(float(np.mean(losses[-50:])), 4)}
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    card["parameters"] = sum(p.numel() for p in model.parameters())
    return write_card(folder, environment, config, card)


def _tokenizer(environment: Any, config: PretrainConfig) -> PreTrainedTokenizerFast:
    """Byte-level BPE whose merges run on until each place name, with the separator before it, is one token.

    Words are split as Qwen2's tokenizer splits them, because that is what the folder is loaded as again.
    """
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = Qwen2Tokenizer().backend_tokenizer.pre_tokenizer
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary,
        special_tokens=[PAD, STOP],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fixed = [prompts.template("lab", environment.name), prompts.template("lab", "next")]
    raw.train_from_iterator([*environment.leaves, *fixed * 10], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=STOP, pad_token=PAD)


def _model(tokenizer: PreTrainedTokenizerFast, config: PretrainConfig) -> Qwen2ForCausalLM:
    shape = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden,
        intermediate_size=2 * config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.hidden // 32,
        num_key_value_heads=config.hidden // 32,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(torch_seed(config.seed, "pretrain"))
        model = Qwen2ForCausalLM(shape)
        torch.nn.init.normal_(model.model.embed_tokens.weight, std=EMBEDDING_STD)
        return model


class _Documents:
    """Training documents as token ids and labels (-100 where there is no loss)."""

    def __init__(self, environment: Any, tokenizer: Any, config: PretrainConfig) -> None:
        self.environment, self.tokenizer, self.config = environment, tokenizer, config
        self.log_prior = np.log(environment.prior())
        stop = tokenizer.eos_token_id
        self.answers = [[*tokenizer(text, add_special_tokens=False)["input_ids"], stop] for text in environment.leaves]
        self.bridge = prompts.bridge_ids(tokenizer, "lab")

    def batch(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        ids, labels = zip(*(self._one(rng) for _ in range(self.config.batch)), strict=True)
        return _padded(ids, 0), _padded(labels, -100)

    def _one(self, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        # Gumbel top-k: the order in which draws without replacement from the prior would come.
        keys = self.log_prior + rng.gumbel(size=len(self.log_prior))
        task = self.environment.task(int(rng.integers(2**31)))
        prompt = prompts.task_ids(self.tokenizer, "lab", self.environment.name, task)
        ids, labels = list(prompt), [-100] * len(prompt)
        for k, leaf in enumerate(np.argsort(-keys)[: self.config.answers]):
            before = self.bridge if k else ()
            ids += [*before, *self.answers[leaf]]
            labels += [-100] * len(before) + self.answers[leaf]
        return ids, labels


def _padded(rows: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([list(row) + [fill] * (width - len(row)) for row in rows])


def _train(
    model: Any, documents: _Documents, config: PretrainConfig, progress: Callable[[int, float], None]
) -> list[float]:
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=config.steps + 1)
    losses = []
    for step in range(1, config.steps + 1):
        ids, labels = documents.batch(stream(config.seed, "pretrain", 1, step))
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
        progress(step, losses[-1])
    return losses


@torch.no_grad()
def _evaluate(model: Any, documents: _Documents, config: PretrainConfig) -> dict[str, Any]:
    """Loss on documents never trained on (their own stream), nats a token."""
    batches = [documents.batch(stream(config.seed, "pretrain", 2, i)) for i in range(8)]
    losses = [float(model(input_ids=ids, labels=labels).loss) for ids, labels in batches]
    return {"held_out_loss": round(float(np.mean(losses)), 4)}


def write_card(folder: Path, environment: Any, config: PretrainConfig, measured: dict[str, Any]) -> dict[str, Any]:
    """Write ``sesa_lab.json`` (read by ``load_policy``) and the model card ``README.md`` beside the weights."""
    card: dict[str, Any] = {
        "environment": environment.name,
        "options": {k: environment.options[k] for k in environment.policy_options},
        "made_with": environment.options,
        "pretrain": asdict(config),
        **measured,
        "sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
    }
    (folder / CARD).write_text(json.dumps(card, indent=2) + "\n")
    settings = [f"--{k.replace('_', '-')} {v}" for k, v in asdict(config).items()]
    options = [f"--option {k}={v}" for k, v in environment.options.items()]
    command = textwrap.fill(" ".join(["sesa-lab pretrain --environment", environment.name, *options, *settings]), 110,
                            break_on_hyphens=False, break_long_words=False).replace("\n", " \\\n      ")  # fmt: skip
    text = _CARD.format(name=folder.name, command=command, hash=card["sha256"], **card)
    (folder / "README.md").write_text(text)
    return card


_CARD = """# {name}

A lab policy of sesa_lab: a Qwen2-architecture causal language model of {parameters:,} parameters, trained from scratch on
documents drawn from the environment's own prior. It knows the places of one hierarchy, how to answer with one of them and how
to go on listing distinct ones; it has never seen a treasure. It is a teaching object and knows no language.

| | |
|---|---|
| environment | `{environment}` |
| options it was made for | `{options}` |
| data | each document: one task prompt, then distinct answers drawn from the prior without replacement |
| loss on documents never trained on | {held_out_loss} nats a token |
| loss on the last 50 training batches | {train_loss} nats a token |
| sha256 of model.safetensors | `{hash}` |

Made by (two to three minutes on one CPU core):

    {command} \\
      --out data/policies/{name}
"""
