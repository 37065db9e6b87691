"""Labels of a group's sketches by what they say, to colour them by: worked out when asked for, and checked."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from sesa_lab.errors import InputError, short

Clusters = Callable[[Sequence[str]], Sequence[int]]
"""Texts of a group's sketches -> a label each, from 0 on, -1 for noise."""

COLOURINGS = ("strategy", "cluster")
"""Of sketches: by the strategy that most of their solutions have, or by what they say."""


def by_meaning(texts: Sequence[str]) -> list[int]:
    """``diversity.agglomerative`` of ``diversity.embed``, both as they are by default; no network is asked.

    Raises:
        InputError: the embedding model cannot be loaded.
    """
    from sesa_lab import diversity  # its embedding model, and with it torch, loads for seconds the first time

    found: list[int] = diversity.agglomerative(diversity.embed(texts, device="cpu")).tolist()
    return found


def labels(clusters: Clusters, texts: Sequence[str]) -> list[int]:
    """One label a text; none for no texts, without asking.

    Raises:
        InputError: what ``clusters`` returned is no such list.
    """
    if not texts:
        return []
    found: Any = clusters(list(texts))
    expected = (
        f"expected {len(texts)} whole numbers, one a sketch, from 0 on or -1 (noise);"
        " e.g. lambda texts: diversity.agglomerative(diversity.embed(texts))"
    )
    try:
        numbers = [operator.index(label) for label in found]
    except TypeError as error:
        raise InputError(f"clusters returned {short(found)}, {expected}") from error
    if len(numbers) != len(texts) or min(numbers) < -1:
        raise InputError(f"clusters returned {short(numbers)}, {expected}")
    return numbers
