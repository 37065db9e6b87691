"""Merge a LoRA adapter into its base for fast rollouts, and take it out again exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch.distributed.tensor import DTensor


@contextmanager
def merged(model: Any) -> Iterator[None]:
    """Within the block the adapter is part of the base weights; after it the base is bit for bit what it was.

    peft's own ``unmerge`` subtracts what ``merge`` added, which leaves rounding errors that grow over a run; here the
    original weights are kept and put back.

    16-bit weights are left as they are, and the adapter stays beside them: added to such a weight, a change of less than half
    its last bit is lost, so that early in training the policy that draws would not be the one that is trained. Weights that are
    spread over processes stay as they are too.

    Args:
        model: a peft model with LoRA layers.
    """
    layers: list[tuple[str, Any]] = [
        (name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)
    ]
    bases = [layer.get_base_layer().weight for _, layer in layers]
    if any(isinstance(weight, DTensor) or weight.element_size() < 4 for weight in bases):
        yield
        return
    kept = [layer.get_base_layer().weight.detach().clone() for _, layer in layers]
    with torch.no_grad():
        for _, layer in layers:
            layer.merge()
    for name, layer in layers:  # the plain linear layers in their places: no adapter code on the way of a token
        model.set_submodule(name, layer.get_base_layer())
    try:
        yield
    finally:
        with torch.no_grad():
            for (name, layer), weight in zip(layers, kept, strict=True):
                model.set_submodule(name, layer)
                layer.get_base_layer().weight.copy_(weight)
                layer.merged_adapters.clear()
