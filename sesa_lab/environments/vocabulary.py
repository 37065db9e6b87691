"""Methods that a text names: a strategy for answers of which nothing else can be read off. It sees words, not reasoning."""

from __future__ import annotations

import re
from collections.abc import Mapping

UNNAMED = "unnamed"
"""What a text that names no method follows."""


class Vocabulary:
    """Methods, and the words that name them."""

    def __init__(self, methods: Mapping[str, str]) -> None:
        """Args: ``methods``: name -> a pattern of the whole words, in any case, that stand for it; earlier ones go first."""
        self._names = tuple(methods)
        parts = (rf"(?P<m{place}>\b(?:{words})\b)" for place, words in enumerate(methods.values()))
        self._pattern = re.compile("|".join(parts), re.IGNORECASE | re.ASCII)

    def named(self, text: str, most: int | None = None) -> str:
        """The methods that a text names, at most ``most`` of them, in their own order, joined by `` + ``; or ``UNNAMED``."""
        met = {found.lastgroup for found in self._pattern.finditer(text)}
        return " + ".join([name for place, name in enumerate(self._names) if f"m{place}" in met][:most]) or UNNAMED
