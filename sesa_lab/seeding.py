"""One run seed, named independent streams.

Every random draw of a run comes from ``stream(seed, name, *position)``: a generator fixed by the run seed, the purpose
and the place (step, group, row ...), never by how many numbers were drawn before. So a resumed run needs no saved
generator state, and no row's draws depend on its neighbours. ``seed + i`` would make streams collide across runs;
``numpy.random.SeedSequence`` mixes the words properly.
"""

from __future__ import annotations

import numpy as np

# Fixed ids: changing or reusing one changes every run ever made with it.
PURPOSES = {
    "environment": 1,
    "tasks": 2,
    "sampling": 3,
    "evaluation": 4,
    "lora": 5,
    "minibatches": 6,
    "pretrain": 7,
    "bootstrap": 8,
}


def stream(seed: int, purpose: str, *position: int) -> np.random.Generator:
    """The generator for ``purpose`` at ``position`` of the run ``seed``.

    Args:
        seed: non-negative run seed.
        purpose: a key of ``PURPOSES``.
        position: integers, e.g. (step, group, row).

    Raises:
        ValueError: a seed or position outside 0 .. 2^32 - 1 (larger words would be split, and streams could collide).
    """
    if not all(0 <= word < 2**32 for word in (seed, *position)):
        raise ValueError(f"expected seed and position in 0 .. 2^32 - 1, got {(seed, *position)}")
    words = np.random.SeedSequence([seed, PURPOSES[purpose], len(position), *position])
    return np.random.Generator(np.random.PCG64(words))


def torch_seed(seed: int, purpose: str, *position: int) -> int:
    """A 63-bit seed for a ``torch.Generator``, from the same named stream."""
    return int(stream(seed, purpose, *position).integers(0, 2**63 - 1))
