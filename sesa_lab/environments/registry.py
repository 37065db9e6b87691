"""Environments by name. To add one: an options dataclass, a factory, one line in ``REGISTRY``.

The defaults of the options are lab-size: small enough for the lab policies. Settings of the paper's own benchmark, where it
has others, are the options dataclass's class attribute ``PAPER`` (a dict) and are asked for by ``preset="paper"``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from sesa_lab.config import check_value
from sesa_lab.environments.contract import Environment
from sesa_lab.environments.countdown import Countdown, CountdownOptions
from sesa_lab.environments.frozen_lake import FrozenLake, FrozenLakeOptions
from sesa_lab.environments.mathematics import Math, MathOptions
from sesa_lab.environments.path_exploration import PathExploration, PathExplorationOptions
from sesa_lab.environments.sokoban import Sokoban, SokobanOptions
from sesa_lab.environments.sudoku import Sudoku, SudokuOptions
from sesa_lab.errors import InputError, suggest

REGISTRY: dict[str, tuple[type, Callable[[Any], Environment]]] = {
    "countdown": (CountdownOptions, Countdown),
    "frozen_lake": (FrozenLakeOptions, FrozenLake),
    "math": (MathOptions, Math),
    "path_exploration": (PathExplorationOptions, PathExploration),
    "sokoban": (SokobanOptions, Sokoban),
    "sudoku": (SudokuOptions, Sudoku),
}
"""name -> (dataclass of documented options, factory taking one). The dataclass's docstring is the one-line text."""


def names() -> list[str]:
    """All environments, sorted."""
    return sorted(REGISTRY)


def make(name: str, preset: str = "lab", **options: Any) -> Environment:
    """The environment ``name``; options left out take their defaults.

    Args:
        name: one of ``names()``.
        preset: ``lab`` (the defaults) or ``paper`` (the benchmark as the paper's experiments had it).
        **options: these come before the preset's.

    Raises:
        InputError: unknown name, preset or option; a value of the wrong type or out of range; values that do not fit
            together.
    """
    if name not in REGISTRY:
        raise InputError(f"unknown environment {name!r}; {suggest(str(name), names())}")
    if preset not in ("lab", "paper"):
        raise InputError(f"unknown preset {preset!r} of environment {name}; expected 'lab' or 'paper'")
    kind, factory = REGISTRY[name]
    if preset == "paper":
        options = {**getattr(kind, "PAPER", {}), **options}
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in options:
        if key not in fields:
            raise InputError(f"unknown option {key!r} of environment {name}; {suggest(key, list(fields))}")
    return factory(kind(**{key: check_value(f"{name}.{key}", fields[key], value) for key, value in options.items()}))


def describe() -> dict[str, dict[str, Any]]:
    """What there is: name -> ``{"text": one line, "options": {option: ...}}``, JSON-able.

    An option has ``text``, ``type``, ``default``, ``choices`` (or None) and its range: ``low`` <= value <= ``high`` and
    value > ``above`` (None: no such bound).
    """
    return {name: {"text": _first_line(REGISTRY[name][0]), "options": _options(REGISTRY[name][0])} for name in names()}


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0]


def _options(kind: type) -> dict[str, dict[str, Any]]:
    found = {}
    for field in dataclasses.fields(kind):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        choices = field.metadata["choices"]
        found[field.name] = {
            "text": field.metadata["text"],
            "type": str(field.type),
            "default": default,
            "choices": list(choices) if choices else None,
            **{bound: field.metadata[bound] for bound in ("low", "high", "above")},
        }
    return found
