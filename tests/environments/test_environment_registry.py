"""make, names, describe."""

from __future__ import annotations

import json

import pytest

from sesa_lab import environments
from sesa_lab.environments.registry import REGISTRY
from sesa_lab.errors import InputError


def test_names() -> None:
    assert environments.names() == sorted(REGISTRY)
    assert "path_exploration" in environments.names()


@pytest.mark.parametrize("name", environments.names())
def test_every_environment_keeps_the_contract(name: str) -> None:
    env = environments.make(name)
    assert env.name == name
    environments.check(env)


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
        assert {key: option["default"] for key, option in entry["options"].items()} == environments.make(name).options
        assert all(option["text"] for option in entry["options"].values())
    option = described["path_exploration"]["options"]["treasures"]
    assert option["type"] == "str" and option["choices"] == ["independent", "clustered"]
    option = described["path_exploration"]["options"]["n_treasures"]
    assert (option["default"], option["low"], option["high"], option["choices"]) == (20, 1, None, None)
