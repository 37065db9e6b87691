"""Late imports that leave the caller's random numbers alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def same_random() -> Iterator[None]:
    """Puts the state of Python's global ``random`` back after the body: scikit-learn draws from it when it is imported."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)
