"""Gradient checkpointing: a layer's activations are not kept for the backward pass but worked out again in it.

transformers' own switch acts in training mode alone, where dropout is on, and takes a layer's cache away, which scoring puts
the keys and values of shared contexts through. Here each layer's ``forward`` is wrapped instead: whatever it is given it is
given again, the model stays in evaluation mode, and where no gradient is wanted (drawing, evaluation) nothing differs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from sesa_lab.errors import InputError


def recompute_layers(model: Any, folder: str) -> None:
    """Keep only each layer's input for the backward pass, and what it puts into a cache.

    Args:
        model: a transformers model, with or without adapter; changed in place.
        folder: its name, for the error.

    Raises:
        InputError: it has no layers that transformers marks as ones to be computed again.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise InputError(
            f"policy.gradient_checkpointing = 'yes': model {folder} has no layers that transformers can compute again; use 'no'"
            " and a smaller update.micro_batch"
        )
    for layer in layers:
        layer.forward = partial(_forward, layer.forward)


def _forward(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    # No random state to keep: dropout is off.
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)
