"""An experiment's file: what is asked, which runs answer it, which notebooks show them, at which sizes. TOML, to be copied."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sesa_lab.errors import InputError, short, suggest

DECLARED = Path(__file__).parent / "declared"
"""The experiments that come with the workbench, one file each."""
PRESETS = ("smoke", "lab", "paper")
"""Sizes: seen to work, in minutes; what is reported, on a laptop; as the paper, on a GPU."""
BEFORE = "before"
"""The arm that stands for what the baseline's runs were before their first step."""

_KEYS: dict[str, type] = {
    "title": str,
    "question": str,
    "matrix": str,
    "notebooks": list,
    "baseline": str,
    "base": str,
    "measures": list,
    "fixed": dict,
    "settings": dict,
    "arms": dict,
    "presets": dict,
}
_NEEDED = ("title", "question", "notebooks", "presets")


@dataclass(frozen=True)
class Experiment:
    """What a file says. Names of arms, matrices and notebooks are checked where they are used.

    Attributes:
        name: of the file, without its ending.
        path: the file.
        title, question: of the report.
        matrix: how its runs are made, a key of ``matrices.MATRICES``; ``none``: its notebooks train what they need themselves.
        notebooks: paths, in reading order.
        baseline: the arm of baseline RL that others are compared with; empty: none.
        base: the arm that is not trained, likewise; empty: what the baseline's runs were before their first step.
        measures: which are written to the table of results, in this order; empty: all.
        fixed: options of the matrix and parameters of the notebooks that all presets share.
        settings: config sections that all arms share (matrix ``arms``).
        arms: name -> config sections that make it what it is (matrix ``arms``).
        presets: name -> seeds, and options as in ``fixed``.
    """

    name: str
    path: Path
    title: str
    question: str
    matrix: str
    notebooks: tuple[Path, ...]
    presets: Mapping[str, Mapping[str, Any]]
    baseline: str = ""
    base: str = ""
    measures: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    arms: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)

    def at(self, preset: str) -> dict[str, Any]:
        """Seeds and options of one preset, those that all share included.

        Raises:
            InputError: a preset that the file does not have.
        """
        if preset not in self.presets:
            raise InputError(f"{self.path.name} has no preset {preset!r}; {suggest(preset, list(self.presets))}")
        return {**self.fixed, **self.presets[preset]}


def known() -> list[str]:
    """Names of the experiments that come with the workbench, by their notebooks: what reads others' results comes last."""
    files = {path.stem: tomllib.loads(path.read_text(encoding="utf-8")) for path in DECLARED.glob("*.toml")}
    return sorted(files, key=lambda name: (files[name]["notebooks"], name))


def load(name: str) -> Experiment:
    """An experiment by its name, or by the path of its file (which ends in .toml).

    Raises:
        InputError: an unknown name, or a file that cannot be read, says something it should not, or is named as one that
            comes with the workbench.
    """
    own = name.endswith(".toml")
    if own and Path(name).stem in known() and Path(name).resolve() != (DECLARED / Path(name).name).resolve():
        raise InputError(
            f"{name} has the name of an experiment of the workbench, and its report would take that one's place; call it otherwise"
        )
    if not own and name not in known():
        raise InputError(f"no experiment {name!r}; {suggest(name, known())}; or the path of a file of yours, NAME.toml")
    path = Path(name) if own else DECLARED / f"{name}.toml"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; expected an experiment's file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no TOML: {error}; mend it, beginning from a copy of {DECLARED}") from error
    return _read(path, content)


def _read(path: Path, content: Mapping[str, Any]) -> Experiment:
    for key, value in content.items():
        if key not in _KEYS:
            raise InputError(f"{path}: unknown key {key!r}; {suggest(key, list(_KEYS))}")
        if not isinstance(value, _KEYS[key]):
            raise InputError(f"{path}: {key} = {short(value)}, expected a {_WORDS[_KEYS[key]]}")
    missing = [key for key in _NEEDED if not content.get(key)]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}; every experiment says these")
    for key in ("settings", "arms", "presets"):
        _tables(path, key, content.get(key, {}))
    for arm, sections in content.get("arms", {}).items():
        _tables(path, f'arms."{arm}"', sections)
    _options(path, "fixed", content.get("fixed", {}))
    for name, options in content["presets"].items():
        _options(path, f"presets.{name}", options)
    for key in ("notebooks", "measures"):
        if not all(isinstance(item, str) for item in content.get(key, [])):
            raise InputError(f"{path}: {key} = {short(content[key])}, expected names in quotes")
    for name in content["presets"]:
        if name not in PRESETS:
            raise InputError(f"{path}: unknown preset {name!r}; {suggest(name, PRESETS)}")
    return Experiment(
        name=path.stem,
        path=path,
        notebooks=tuple(_notebook(path, name) for name in content["notebooks"]),
        matrix=content.get("matrix", "arms" if content.get("arms") else "none"),
        measures=tuple(content.get("measures", ())),
        **{key: value for key, value in content.items() if key not in ("notebooks", "matrix", "measures")},
    )


def _tables(path: Path, where: str, content: Mapping[str, Any]) -> None:
    """Each value is a table, such as a section of a config."""
    for name, value in content.items():
        if not isinstance(value, dict):
            raise InputError(f"{path}: {where}.{name} = {short(value)}, expected a table [{where}.{name}]")


_OPTIONS: dict[str, type] = {"task": str, "arms": str, "matrix": str, "model": str, "bases": list, "settings": dict}


def _options(path: Path, where: str, options: Mapping[str, Any]) -> None:
    """What matrices take; notebooks hold the rest to their own defaults."""
    for name, kind in _OPTIONS.items():
        value = options.get(name, kind())
        if not isinstance(value, kind):
            raise InputError(f"{path}: {where}.{name} = {short(value)}, expected a {_WORDS[kind]}")
        if isinstance(value, list) and not all(isinstance(item, str) for item in value):
            raise InputError(f"{path}: {where}.{name} = {short(value)}, expected texts in quotes")
    _tables(path, f"{where}.settings", options.get("settings", {}))


_WORDS: dict[type, str] = {str: "text in quotes", list: "list", dict: "table"}
_NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def _notebook(path: Path, name: str) -> Path:
    """Beside the experiment's file, or one of the workbench's."""
    for folder in (path.parent, _NOTEBOOKS):
        if (folder / name).is_file():
            return (folder / name).resolve()
    raise InputError(f"{path}: no notebook {name!r} beside it or in {_NOTEBOOKS}")
