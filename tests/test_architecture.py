"""The arrows between the rooms of CONTRIBUTING.md, read off the import statements; lazy imports count too."""

from __future__ import annotations

import ast
from collections.abc import Collection
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "sesa_lab"
BOTTOM = {"types", "errors", "settings", "config", "compatible", "presets", "seeding"}
MOST_LINES_A_MODULE = 450
MOST_LINES_A_FUNCTION = 80

# room -> what nothing in it may reach, directly or through other rooms. Names with no sesa_lab module are packages.
FORBIDDEN = {
    "environments": {"engines", "samplers", "training", "policies", "runs", "torch", "transformers"},
    "engines": {"environments", "samplers", "training", "runs"},
    "samplers": {"environments", "training", "runs", "diversity"},
    "diversity": {"training", "engines", "samplers", "policies"},
    "training": {"plots", "reports", "experiments"},
    "runs": {"training", "engines", "samplers", "policies", "plots", "reports", "experiments"},
    "foreign": {"training", "engines", "samplers", "policies", "environments", "plots", "reports", "experiments"},
    "collapse": {
        "training",
        "engines",
        "samplers",
        "policies",
        "environments",
        "runs",
        "plots",
        "reports",
        "experiments",
    },
    "statistics": {"training", "engines", "samplers", "policies", "runs"},
    "comparisons": {"training", "engines", "samplers", "policies", "runs"},
    "plots": {"training", "engines", "samplers", "policies"},
    "reports": {"training", "engines", "samplers", "policies"},
    "live": {"reports", "experiments"},
    "expanding": {"widgets", "plots", "reports", "experiments"},
    "rescoring": {"reports", "experiments"},
    "playground": {"environments", "engines", "samplers", "policies", "reports", "experiments"},
    "microscope": {"training", "environments", "engines", "samplers", "policies", "reports", "experiments"},
    "embedding_map": {"training", "environments", "engines", "samplers", "policies", "reports", "experiments"},
    "widgets": {
        "expanding",
        "training",
        "engines",
        "samplers",
        "policies",
        "torch",
        "transformers",
        "plots",
        "reports",
        "experiments",
    },
}

# What a room may call although it reaches further: what stands behind it is loaded only when somebody asks, by a click.
ASKED_FOR = {"widgets": {"sesa_lab.diversity.embeddings"}}


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}


def room(module: str) -> str:
    """``sesa_lab.training.loop`` is in the room ``training``; ``torch.nn`` in ``torch``."""
    parts = module.split(".")
    return parts[1] if parts[0] == "sesa_lab" and len(parts) > 1 else parts[0]


def imports_of(module: str, tree: ast.AST, *, is_package: bool) -> set[str]:
    """Modules of ours, or top-level packages, that a module's import statements name."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                own = module.split(".") if is_package else module.split(".")[:-1]
                base = ".".join([*own[: len(own) - node.level + 1], *filter(None, [base])])
            for (
                alias
            ) in node.names:  # `from sesa_lab import plots` names a module, `from sesa_lab.plots import tree` not
                full = f"{base}.{alias.name}"
                found.add(full if full in FILES else base)
    return {name if name in FILES else name.split(".")[0] for name in found} - {module}


GRAPH = {name: imports_of(name, tree, is_package=FILES[name].name == "__init__.py") for name, tree in TREES.items()}


def chains(start: str, closed: Collection[str] = ()) -> dict[str, list[str]]:
    """What ``start`` reaches, each with a shortest chain of imports leading there; ``closed`` ones are not gone through."""
    known = {start: [start]}
    queue = [start]
    for module in queue:
        for target in sorted(GRAPH.get(module, ())) if module not in closed else ():
            if target not in known:
                known[target] = [*known[module], target]
                queue.append(target)
    return known


def test_the_reader_of_imports_sees_every_form() -> None:
    source = """
import os.path
import sesa_lab.config
from sesa_lab import errors
from sesa_lab.types import Task
from . import seeding
from .types import Score
def late():
    import torch.nn
"""
    found = imports_of("sesa_lab.room", ast.parse(source), is_package=False)
    assert found == {"os", "sesa_lab.config", "sesa_lab.errors", "sesa_lab.types", "sesa_lab.seeding", "torch"}


def test_the_bottom_stands_on_nothing() -> None:
    for name in BOTTOM:
        ours = {room(target) for target in GRAPH[f"sesa_lab.{name}"] if target.startswith("sesa_lab")}
        assert ours <= BOTTOM, f"{name} is at the bottom, but imports {ours - BOTTOM}"
        assert not GRAPH[f"sesa_lab.{name}"] & {"torch", "transformers", "pandas"}


@pytest.mark.parametrize("name", sorted(FORBIDDEN))
def test_arrows_between_rooms(name: str) -> None:
    for module in (module for module in FILES if room(module) == name and module != "sesa_lab"):
        for target, chain in chains(module, ASKED_FOR.get(name, ())).items():
            assert room(target) not in FORBIDDEN[name], f"{name} must not reach {room(target)}: {' -> '.join(chain)}"


def test_no_cycles() -> None:
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")


def test_nothing_imports_notebooks_or_tests() -> None:
    for module, targets in GRAPH.items():
        assert not {target.split(".")[0] for target in targets} & {"notebooks", "tests", "conftest"}, module


@pytest.mark.parametrize("name", sorted(FILES))
def test_modules_and_functions_stay_readable(name: str) -> None:
    lines = len(FILES[name].read_text().splitlines())
    assert lines <= MOST_LINES_A_MODULE, f"{name} has {lines} lines: one responsibility a module"
    for node in ast.walk(TREES[name]):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MOST_LINES_A_FUNCTION, f"{name}.{node.name} has {length} lines"
