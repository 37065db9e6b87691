"""How much memory a policy will take, worked out from its config alone before any weight is read; a refusal if it will not fit.

Shape legend: layers L, tokens of a gradient pass T, hidden size H, width of the queries Q and of the keys K, of the
feed-forward part I, vocabulary V; e bytes a number of the weights.

Source of the constants: measured on a CPU with the pinned versions, random Qwen2 models, adapter of rank 16 on all linear layers.
Estimate / what autograd keeps (distinct storages seen by ``torch.autograd.graph.saved_tensors_hooks``), float32 and bfloat16:
13 M parameters 1.08 and 1.16, 83 M 1.09 and 1.18; Gemma 3 0.93 and 1.00, GPT-2 0.89 and 1.28. Weights and adapter are exact.
Estimate / highest growth of the resident set over loading, two steps and a draw: 25 M parameters 0.95 (float32), 0.97 (bfloat16)
and 0.96 (gradient checkpointing), 107 M 1.06 and, with checkpointing, 0.99, where freed memory went back at once
(MALLOC_MMAP_THRESHOLD_=65536). glibc as it is by default kept what was freed: 25 M parameters in float32 0.46 to 0.52. Fused
kernels on a GPU keep no more; what a driver and its libraries take there is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from sesa_lab.config import EngineConfig, PolicyConfig
from sesa_lab.errors import InputError, first_line
from sesa_lab.policies.adapter import targets
from sesa_lab.policies.available import available, total

PART = 2048  # tokens of a gradient pass, padding included, where the caller does not say
CHUNK = 1 << 22  # logits held at once: tokens x vocabulary
ADAM = 4  # numbers a trained weight: itself, its gradient and Adam's two moments
CPU_CACHE_MB = 256  # for the keys and values of vLLM on a CPU, where engine.cache_mb does not say
LOGIT_BYTES = 32  # a logit in several precisions, with its gradients
MARGIN = 1.1  # what layers keep beside the widths counted: adapters' inner numbers, normalised queries and keys


@dataclass(frozen=True)
class Workload:
    """What a policy will do at once in this process.

    Attributes:
        tokens: of the longest dialogue, prompt and all turns; an estimate will do.
        rows: answers drawn side by side; 0: another engine draws.
        contexts: distinct prompts among them, read in together.
        trains: whether the adapter is trained.
        micro_batch: rows of a gradient pass; 0: as many as hold about ``PART`` tokens.
        vllm: of a vLLM engine in this process, which has a copy of the weights and a cache of its own; None: there is none.
    """

    tokens: int = 0
    rows: int = 0
    contexts: int = 0
    trains: bool = False
    micro_batch: int = 0
    vllm: EngineConfig | None = None


IDLE = Workload()


@dataclass(frozen=True)
class Memory:
    """Bytes, by what takes them. Updating and drawing take turns: of the two the larger counts.

    Attributes:
        weights: of the base model.
        adapter: LoRA weights, float32 whatever the base is, and, where trained, their gradients and Adam's moments.
        activations: what a gradient pass keeps for the backward pass.
        logits: of a chunk of it.
        merging: the base weights that stand by while the adapter is merged into them to draw.
        drawing: keys and values, and the logits of all rows.
        vllm: what a vLLM engine beside it takes.
    """

    weights: int
    adapter: int
    activations: int
    logits: int
    merging: int
    drawing: int
    vllm: int

    @property
    def total(self) -> int:
        turns = max(self.activations + self.logits, self.merging + self.drawing)
        return self.weights + self.adapter + self.vllm + turns

    def __str__(self) -> str:
        """One line: the sum, and its parts in GiB."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        named = ", ".join(f"{name} {_gib(size)}" for name, size in parts.items() if size)
        return f"{_gib(self.total)} GiB ({named})"


def check(shape: Any, config: PolicyConfig, folder: str, device: str, workload: Workload) -> None:
    """Refuse a policy that will not fit into what the device has free; where that cannot be told, nothing is refused.

    Args:
        shape: the model's transformers config.
        config: dtype, adapter and gradient checkpointing are used.
        folder: what it is called.
        device: where it goes.
        workload: what it will do.

    Raises:
        InputError: names what it takes, part by part, what is there, and what to change; or it cannot be worked out.
    """
    free = available(device)
    if free is None:
        return
    need = estimate(shape, config, workload, device)
    if need.total > free:
        raise InputError(
            f"model {folder} will take about {need}, and {_gib(free)} GiB are free on {device}; {_remedies(config, need)}, or"
            " load it all the same by policy.memory_check = 'no'"
        )


def estimate(shape: Any, config: PolicyConfig, workload: Workload, device: str = "cpu") -> Memory:
    """What a policy will take; its parameters are counted on torch's meta device, where they have shapes and no values.

    ``device`` is where it goes; the share of a GPU's memory that vLLM takes is a share of this one's.

    Raises:
        InputError: the model's code cannot be run without values.
    """
    dtype = getattr(torch, config.dtype)
    try:
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(
                shape, dtype=dtype, trust_remote_code=config.trust_remote_code == "yes"
            )
    except Exception as error:  # code that came with the model may do anything
        raise InputError(
            f"how much memory the model will take cannot be worked out: {first_line(error)}; policy.memory_check = 'no' loads"
            " it all the same"
        ) from error
    adapted, text = targets(model, config), shape.get_text_config()
    workload = replace(workload, tokens=min(workload.tokens, text.max_position_embeddings))
    part = _part(workload) if workload.trains else 0
    merging = sum(layer.weight.nbytes for layer in adapted) if workload.rows and dtype.itemsize == 4 else 0
    weights = sum(weight.nbytes for weight in model.parameters())
    return Memory(
        weights=weights,
        adapter=_adapter(adapted, config) * (ADAM if workload.trains else 1),
        activations=_activations(text, config, dtype.itemsize, part, workload.tokens),
        logits=min(CHUNK, part * text.vocab_size) * LOGIT_BYTES,
        merging=merging,
        drawing=_drawing(text, workload, dtype.itemsize),
        vllm=_vllm(workload.vllm, weights, device),
    )


def _vllm(engine: EngineConfig | None, weights: int, device: str) -> int:
    """On a GPU the share it is given, weights and cache included; on a CPU a copy of the weights and its cache."""
    if engine is None:
        return 0
    if device.startswith("cuda"):
        return int(engine.memory_share * total(device))
    return weights + ((engine.cache_mb or CPU_CACHE_MB) << 20)


def _part(workload: Workload) -> int:
    """Tokens of a gradient pass, padding included."""
    rows = workload.micro_batch or max(1, PART // max(1, workload.tokens))
    return rows * workload.tokens


def _adapter(adapted: list[Any], config: PolicyConfig) -> int:
    """Bytes of the LoRA weights: two matrices of ``lora_rank`` a module, or what is stored."""
    if config.adapter:
        return (Path(config.adapter) / "adapter_model.safetensors").stat().st_size
    return sum(4 * config.lora_rank * sum(layer.weight.shape) for layer in adapted)


def _activations(text: Any, config: PolicyConfig, size: int, part: int, longest: int) -> int:
    """Bytes kept for the backward pass.

    A layer keeps what its two norms read and give (4H), queries, keys and values with what attention gives (2Q + 2K), and the
    gate, its activation, the other half and their product (4I). Adapters of 16-bit weights read float32 copies of all that
    goes into a linear layer (5H + Q + I). Eager attention keeps each head's scores. With gradient checkpointing a layer keeps
    its input alone, and one layer at a time the rest.
    """
    hidden, layers = text.hidden_size, text.num_hidden_layers
    queries, keys, inner = _widths(text)
    layer = size * (4 * hidden + 2 * queries + 2 * keys + 4 * inner)
    if size < 4:
        layer += 4 * (5 * hidden + queries + inner)
    if config.attention == "eager":
        layer += 2 * size * text.num_attention_heads * longest
    kept = layer * layers
    if config.gradient_checkpointing == "yes":
        kept = size * hidden * (layers + 2) + layer
    return int(MARGIN * part * kept)


def _drawing(text: Any, workload: Workload, size: int) -> int:
    """Bytes of keys and values (twice: the cache grows by doubling), of all rows' logits, and of prompts while they are read."""
    inner = _widths(text)[2]
    kept = kept_bytes(text, size) * workload.tokens
    read = 4 * max(inner, text.hidden_size) * size * workload.tokens * workload.contexts
    return int(workload.rows * (2 * kept + LOGIT_BYTES * text.vocab_size) + read)


def kept_bytes(text: Any, size: int) -> int:
    """Bytes of the keys and values of one token, all layers together; ``size`` bytes a number."""
    return int(2 * text.num_hidden_layers * _widths(text)[1] * size)


def _widths(text: Any) -> tuple[int, int, int]:
    """Q, K and I; of experts, those that one token goes through."""
    heads = text.num_attention_heads
    head = getattr(text, "head_dim", None) or text.hidden_size // heads
    keys = (getattr(text, "num_key_value_heads", None) or heads) * head
    inner = getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None) or 4 * text.hidden_size
    experts = getattr(text, "num_experts_per_tok", None)
    if experts:
        inner = experts * (getattr(text, "moe_intermediate_size", None) or inner)
    return heads * head, keys, inner


def _remedies(config: PolicyConfig, need: Memory) -> str:
    found = ["choose another policy.device or a smaller model"]
    if config.dtype == "float32":
        found.append("set policy.dtype = 'bfloat16'")
    if need.activations and config.gradient_checkpointing == "no":
        found.append("set policy.gradient_checkpointing = 'yes'")
    lower = ["policy.lora_rank"] if not config.adapter else []
    lower += ["update.micro_batch"] if need.activations else []
    lower += ["sampler.max_tokens"] if need.activations or need.drawing else []
    lower += ["run.groups or sampler.group_size"] if need.drawing else []
    lower += ["engine.memory_share or engine.cache_mb"] if need.vllm else []
    return ", ".join([*found, *([f"lower {', '.join(lower)}"] if lower else [])])


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g}"
