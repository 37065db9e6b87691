"""Runs of given texts, and an embedder that counts letters: vectors that can be worked out by hand, and no model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.microscope.microscope_runs import row, write


def letters(texts: Sequence[str]) -> np.ndarray:
    """How often each of five letters is in a text, and one."""
    return np.array([[1.0, *(text.count(letter) for letter in "abcde")] for text in texts])


def of_texts(path: Path, *steps: Sequence[str]) -> Path:
    """A run with these completions, step by step in one group each."""
    rows = [
        row(step, 0, index, text[:1] or None, index == 0, completion=text)
        for step, texts in enumerate(steps, start=1)
        for index, text in enumerate(texts)
    ]
    return write(path, rows)
