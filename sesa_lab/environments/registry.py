"""Environments by name. To add one: an options dataclass, a factory, one line in ``REGISTRY``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from sesa_lab.config import check_value
from sesa_lab.environments.contract import Environment
from sesa_lab.environments.path_exploration import PathExploration, PathExplorationOptions
from sesa_lab.errors import InputError, suggest

REGISTRY: dict[str, tuple[type, Callable[[Any], Environment]]] = {
    "path_exploration": (PathExplorationOptions, PathExploration),
}
"""name -> (dataclass of documented options, factory taking one). The dataclass's docstring is the one-line text."""


def names() -> list[str]:
    """All environments, sorted."""
    return sorted(REGISTRY)


def make(name: str, **options: Any) -> Environment:
    """The environment ``name``; options left out take their defaults.

    Raises:
        InputError: unknown name or option; a value of the wrong type or out of range; values that do not fit together.
    """
    if name not in REGISTRY:
        raise InputError(f"unknown environment {name!r}; {suggest(str(name), names())}")
    kind, factory = REGISTRY[name]
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
