"""What a model's attention layers see, and the masks that say so in the form that its attention code takes."""

from __future__ import annotations

from typing import Any

import torch

FULL = "full_attention"


def layer_kinds(config: Any) -> list[str]:
    """The kinds of a model's layers, sorted, each once; ``full_attention`` alone: every token sees all tokens before it.

    Args:
        config: of the decoder. A model that does not list its layers is of one kind: Mistral's only sets ``sliding_window``.
    """
    listed = getattr(config, "layer_types", None)
    if listed:
        return sorted(set(listed))
    window = getattr(config, "sliding_window", None)
    return [FULL if window is None or window >= config.max_position_embeddings else "sliding_attention"]


def mask_for(config: Any, seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The mask that says ``seen`` (bool, True where a query sees a key): as it is for sdpa, else numbers to be added.

    Eager code adds whatever it is given; a boolean mask would count as 0 and 1, in silence.
    """
    if config._attn_implementation == "sdpa":
        return seen
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)
