"""make, names, describe."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sesa_lab import environments
from sesa_lab.config import option
from sesa_lab.environments.pool import HARD, SPLITS
from sesa_lab.environments.registry import REGISTRY
from sesa_lab.errors import InputError


def test_names() -> None:
    assert environments.names() == sorted(REGISTRY)
    assert "path_exploration" in environments.names()


POOLED = [name for name in environments.names() if name != "path_exploration"]
RESOLVED = {"math": {"answer_format": "plain"}}
"""Options whose default says that others decide: as what they are told of the environment made."""


def here(name: str, preset: str, root: Path) -> dict[str, Any]:
    """What the preset must be told where nothing can be fetched: the paper's data set of mathematics is on the Hub."""
    sample = root / "data" / "math" / "sample.jsonl"
    return {"dataset": str(sample)} if (name, preset) == ("math", "paper") else {}


@pytest.mark.parametrize("preset", ["lab", "paper"])
@pytest.mark.parametrize("name", environments.names())
def test_every_environment_keeps_the_contract(name: str, preset: str, root: Path) -> None:
    env = environments.make(name, preset, **here(name, preset, root))
    assert env.name == name
    environments.check(env)


@pytest.mark.parametrize("name", environments.names())
def test_the_papers_preset_changes_its_options_and_no_others(name: str, root: Path) -> None:
    kind = REGISTRY[name][0]
    paper: dict[str, Any] = getattr(kind, "PAPER", {})
    lab = environments.make(name).options
    assert lab == {**dataclasses.asdict(kind()), **RESOLVED.get(name, {})}
    given = here(name, "paper", root)
    assert set(given) <= set(paper)
    assert environments.make(name, "paper", **given).options == {**lab, **paper, **given}


@pytest.mark.parametrize("name", POOLED)
def test_options_that_environments_with_a_pool_share(name: str) -> None:
    described = environments.describe()[name]["options"]
    assert described["split"]["choices"] == [*SPLITS, *(["all"] if name == "math" else [])]
    assert described["split"]["default"] == "train"
    assert described["hard"]["choices"] == list(HARD) and described["hard"]["default"] == "natural"
    assert described["repeats"]["choices"] == ["count", "zero"] and described["repeats"]["default"] == "count"
    assert (described["seed"]["low"], described["seed"]["high"]) == (0, 2**32 - 1)
    env = environments.make(name, tasks=3)
    assert env.count == 3 and environments.make(name).count == described["tasks"]["default"] == 4096
    assert type(env.task(0).data["hard"]) is bool


@dataclass(frozen=True)
class ToyOptions:
    """A toy."""

    PAPER: ClassVar[dict[str, Any]] = {"size": 9}

    size: int = option(3, "cells", low=1, high=10)
    seed: int = option(0, "fixes the draws", low=0)


@dataclass(frozen=True)
class BareOptions:
    """A toy without settings of the paper."""

    size: int = option(3, "cells", low=1, high=10)


def test_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY, "toy", (ToyOptions, lambda options: options))
    monkeypatch.setitem(REGISTRY, "bare", (BareOptions, lambda options: options))
    made: Any = environments.make  # these factories give the options themselves
    assert made("toy") == made("toy", "lab") == made("toy", preset="lab") == ToyOptions(3, 0)
    assert made("toy", "paper") == made("toy", preset="paper") == ToyOptions(9, 0)
    assert made("toy", "paper", seed=4) == ToyOptions(9, 4)
    assert made("toy", preset="paper", size=5) == ToyOptions(5, 0)  # what is asked for comes before the preset
    assert made("bare", "paper") == BareOptions(3)
    assert ToyOptions.PAPER == {"size": 9}
    assert list(environments.describe()["toy"]["options"]) == ["size", "seed"]  # PAPER is no option


@pytest.mark.parametrize(
    ("paper", "says"),
    [
        ({"sise": 9}, "unknown option 'sise' of environment toy; did you mean 'size'"),
        ({"size": 11}, "toy.size = 11 is out of range"),
    ],
)
def test_a_presets_options_are_checked(paper: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = dataclass(frozen=True)(type("Options", (ToyOptions,), {"PAPER": paper}))
    monkeypatch.setitem(REGISTRY, "toy", (kind, lambda options: options))
    with pytest.raises(InputError, match=says):
        environments.make("toy", "paper")


def test_unknown_presets() -> None:
    with pytest.raises(
        InputError, match="unknown preset 'papr' of environment path_exploration; expected 'lab' or 'pa"
    ):
        environments.make("path_exploration", preset="papr")


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("path_exploraton", {}, "unknown environment 'path_exploraton'; did you mean 'path_exploration'"),
        ("path_exploration", {"n_treasure": 3}, "unknown option 'n_treasure' .* did you mean 'n_treasures'"),
        ("path_exploration", {"hierarchy": "mars"}, "path_exploration.hierarchy = 'mars' is unknown; known: china,"),
        ("path_exploration", {"n_treasures": 0}, "n_treasures = 0 is out of range: expected >= 1"),
        ("path_exploration", {"n_treasures": "20"}, "expected a whole number, got '20'"),
        ("path_exploration", {"seed": -1}, "seed = -1 is out of range"),
        ("path_exploration", {"seed": 0.5}, "expected a whole number, got 0.5"),
        ("path_exploration", {"maps": True}, "expected a whole number, got True"),
        ("path_exploration", {"prior_exponent": float("nan")}, "expected a finite number"),
        ("path_exploration", {"repeats": "environment"}, "'environment' is unknown; known: count, zero"),
        ("path_exploration", {"branching": 8}, "expected text, got 8"),
        ("path_exploration", {"branching": "8,5,5"}, "e.g. '8x5x5'"),
    ],
)
def test_bad_options(name: str, options: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        environments.make(name, **options)


def test_describe_documents_every_option() -> None:
    described = environments.describe()
    assert json.loads(json.dumps(described)) == described
    assert list(described) == environments.names()
    for name, entry in described.items():
        assert entry["text"] and "\n" not in entry["text"]
        defaults = {key: option["default"] for key, option in entry["options"].items()}
        assert {**defaults, **RESOLVED.get(name, {})} == environments.make(name).options
        assert all(option["text"] for option in entry["options"].values())
    option = described["path_exploration"]["options"]["treasures"]
    assert option["type"] == "str" and option["choices"] == ["independent", "clustered"]
    option = described["path_exploration"]["options"]["n_treasures"]
    assert (option["default"], option["low"], option["high"], option["choices"]) == (20, 1, None, None)
