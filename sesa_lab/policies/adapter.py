"""The LoRA adapter on a model: a fresh one, or that of a checkpoint; mistakes that peft would pass over are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers.pytorch_utils import Conv1D

from sesa_lab.config import PolicyConfig
from sesa_lab.errors import InputError, first_line
from sesa_lab.seeding import torch_seed


def with_adapter(model: Any, config: PolicyConfig, seed: int) -> Any:
    """The model with the adapter of ``config.adapter``, or a fresh one whose first weights ``seed`` fixes."""
    with torch.random.fork_rng():  # peft draws first weights from the global generator, also where it then reads others
        torch.manual_seed(torch_seed(seed, "lora"))
        return _read(model, config.adapter) if config.adapter else _fresh(model, config)


def targets(model: Any, config: PolicyConfig) -> list[Any]:
    """Modules that a fresh adapter of ``config`` goes on, without making it: all linear ones but the head, or those named."""
    if config.lora_targets == "all-linear":
        head = model.get_output_embeddings()
        return [
            module for module in model.modules() if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not head
        ]
    names = tuple(f".{name.strip()}" for name in config.lora_targets.split(","))
    return [
        module for name, module in model.named_modules() if f".{name}".endswith(names) and hasattr(module, "weight")
    ]


def check_adapter(folder: str) -> None:
    """Raises ``InputError`` where ``folder`` lacks a file of an adapter."""
    missing = [f for f in ("adapter_config.json", "adapter_model.safetensors") if not (Path(folder) / f).is_file()]
    if missing:
        raise InputError(f"policy.adapter = {folder!r}: no {' and no '.join(missing)} there; name a checkpoint folder")


def _read(model: Any, folder: str) -> Any:
    try:
        return PeftModel.from_pretrained(model, folder, is_trainable=True)
    except Exception as error:  # json, safetensors, peft and torch each raise a kind of their own
        raise InputError(f"policy.adapter = {folder!r} is damaged or of another model: {first_line(error)}") from error


def _fresh(model: Any, config: PolicyConfig) -> Any:
    chosen: Any = config.lora_targets
    if chosen != "all-linear":
        chosen = [name.strip() for name in chosen.split(",")]
        for target in chosen:
            _check_target(model, target, f"policy.lora_targets = {config.lora_targets!r}")
    transposed = any(isinstance(module, Conv1D) for module in model.modules())  # GPT-2 keeps its matrices this way
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        target_modules=chosen,
        fan_in_fan_out=transposed,
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, lora)
    except ValueError as error:
        raise InputError(f"policy.lora_targets = {config.lora_targets!r}: {error}") from error


def _check_target(model: Any, target: str, label: str) -> None:
    """Refuse what peft would accept in silence: a name that fits nothing beside one that fits, and a tied matrix."""
    found = [module for name, module in model.named_modules() if target and f".{name}".endswith(f".{target}")]
    if not found:
        raise InputError(f"{label}: the model has no module {target!r}")
    first, last = model.get_input_embeddings(), model.get_output_embeddings()
    if first.weight is last.weight and any(module is first or module is last for module in found):
        raise InputError(f"{label}: {target!r} is one matrix for input and output here; LoRA cannot be merged into it")
