"""Small policies are made by tests/engines/tiny_models.py; tests/training and tests/samplers have a world of several turns."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / room) for room in ("engines", "samplers", "training")]
