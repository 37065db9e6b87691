"""A notebook's parameters: read from its source, and held to what its defaults are."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from sesa_lab.errors import InputError, suggest

_INJECTED = "# Parameters\n"
"""How the cell begins that papermill puts behind the one tagged ``parameters``."""


def check_given(executed: Sequence[str] | None = None) -> None:
    """Hold what papermill was given to the notebook's own parameters; a notebook calls it before anything is trained.

    papermill itself only warns of a name that a notebook does not have, and takes any value. Where no parameters were given,
    as in JupyterLab, nothing is checked.

    Args:
        executed: sources of the cells executed so far; None: those of this kernel.

    Raises:
        InputError: an unknown parameter, or a value of another type than its default.
    """
    if executed is None:
        from IPython import get_ipython

        executed = list(get_ipython().user_ns["In"])
    for own, given in itertools.pairwise(executed):
        if given.startswith(_INJECTED):
            check(literals(given, "papermill"), literals(own, "this notebook"), "this notebook")


def literals(source: str, name: str) -> dict[str, Any]:
    """The assignments of literals in a cell, by name.

    Read by ``ast``: ``papermill.inspect_notebook`` goes line by line and misses a list over several lines.

    Raises:
        InputError: an assignment of something else; ``name`` is the notebook's, for the message.
    """
    found: dict[str, Any] = {}
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign):
            target: ast.expr = statement.targets[0]
        elif isinstance(statement, ast.AnnAssign):
            target = statement.target
        else:
            continue
        if not isinstance(target, ast.Name) or statement.value is None:
            continue
        try:
            found[target.id] = ast.literal_eval(statement.value)
        except ValueError:
            raise InputError(f"{name}: parameter {target.id} is not a literal, expected a plain value") from None
    return found


def check(given: Mapping[str, Any], known: Mapping[str, Any], name: str) -> None:
    """Raises InputError on a parameter that is not in ``known`` or not of its default's type.

    An int will do for a float; a bool is no int. Members of a list, tuple or dict must be like the default's first. A
    default of None takes anything.
    """
    for key, value in given.items():
        if key not in known:
            raise InputError(f"{name} has no parameter {key!r}; {suggest(key, list(known))}")
        if not _alike(value, known[key]):
            raise InputError(
                f"{name}: parameter {key} is {value!r} ({type(value).__name__}), expected"
                f" {type(known[key]).__name__} like its default {known[key]!r}"
            )


def _alike(value: Any, default: Any) -> bool:
    if default is None:
        return True
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, list | tuple):
        return isinstance(value, list | tuple) and all(_alike(item, default[0]) for item in value if default)
    if isinstance(default, dict):
        return isinstance(value, dict)
    return type(value) is type(default)
