"""A notebook's parameters: read from its source, held to what its defaults are, and settled in its kernel."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shlex
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from sesa_lab.errors import InputError, suggest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
"""Those of the workbench, where the package lies in a checkout."""

_INJECTED = "# Parameters\n"
"""How the cell begins that papermill puts behind the one tagged ``parameters``."""


def settle(executed: Sequence[str] | None = None, names: MutableMapping[str, Any] | None = None) -> None:
    """Make of a notebook's parameters what they mean; a notebook calls it before anything is trained.

    What papermill was given is held to the notebook's own parameters: papermill itself only warns of a name that a notebook
    does not have, and takes any value. Where the default is a list, tuple or dict, a text (``-p seeds "[0, 1]"``) is read as
    JSON or, where it is none, as a Python literal.

    A default that begins with ``../`` is seen from the workbench's notebooks, wherever the kernel was started; what was
    given is seen from the kernel's folder. In a kernel that runs there, and where the package was installed without its
    notebooks, defaults stay as they are.

    Args:
        executed: sources of the cells executed so far, the notebook's own parameters first; None: those of this kernel.
        names: the notebook's variables, changed in place; None: those of this kernel.

    Raises:
        InputError: an unknown parameter, or a value of another type than its default.
    """
    if executed is None or names is None:
        from IPython import get_ipython

        names = get_ipython().user_ns
        executed = list(names["In"])
    injected = [place for place, source in enumerate(executed) if source.startswith(_INJECTED)]
    if not injected:
        with contextlib.suppress(InputError, SyntaxError):  # in JupyterLab any cell may have been executed first
            _anchor(literals(next(filter(None, executed), ""), "this notebook"), names)
        return
    known = literals(executed[injected[0] - 1], "this notebook")
    came = literals(executed[injected[-1]], "papermill")
    given = {name: _read(value, known.get(name)) for name, value in came.items()}
    check(given, known, "this notebook", _mend)
    names.update({name: value for name, value in given.items() if value is not came[name]})
    _anchor({name: value for name, value in known.items() if name not in given}, names)


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


def check(
    given: Mapping[str, Any],
    known: Mapping[str, Any],
    name: str,
    mend: Callable[[str, Any], str] = lambda key, default: "",
) -> None:
    """Hold parameters to those that a notebook has.

    An int will do for a float; a bool is no int. Members of a list, tuple or dict must be like the default's first. A
    default of None takes anything.

    Args:
        given: parameters by name.
        known: defaults by name.
        name: what has them, for the message.
        mend: of a parameter and its default, what a message about its type ends in.

    Raises:
        InputError: a parameter that is not in ``known`` or not of its default's type.
    """
    for key, value in given.items():
        if key not in known:
            raise InputError(f"{name} has no parameter {key!r}; {suggest(key, list(known))}")
        if not _alike(value, known[key]):
            raise InputError(
                f"{name}: parameter {key} is {value!r} ({type(value).__name__}), expected"
                f" {type(known[key]).__name__} like its default {known[key]!r}{mend(key, known[key])}"
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


def _read(value: Any, default: Any) -> Any:
    """What papermill left as text, where the default is a list, tuple or dict; a text that is no literal stays one."""
    if not isinstance(value, str) or not isinstance(default, list | tuple | dict):
        return value
    for reader in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            found = reader(value)
            both = isinstance(found, list | tuple) and isinstance(default, list | tuple)
            return type(default)(found) if both else found
    return value


def _mend(key: str, default: Any) -> str:
    """How papermill is given a parameter of its default's type."""
    if isinstance(default, str):
        return f"; -r {key} VALUE gives text as it stands"
    if not isinstance(default, list | tuple | dict):
        return ""
    shown = json.dumps(default, default=str)
    return f"; give e.g. -p {key} {shlex.quote(shown)} or -y {shlex.quote(f'{{{key}: {shown}}}')}"


def _anchor(defaults: Mapping[str, Any], names: MutableMapping[str, Any]) -> None:
    """Rebind defaults that are seen from the workbench's notebooks to what they are in the kernel's folder."""
    here = Path.cwd()
    if here == NOTEBOOKS or not (NOTEBOOKS / "00_start_here.ipynb").is_file():
        return
    for name, value in defaults.items():
        if isinstance(value, str) and value.startswith("../") and names.get(name) == value:
            path = Path(os.path.normpath(NOTEBOOKS / value))
            names[name] = str(path.relative_to(here) if path.is_relative_to(here) else path)
