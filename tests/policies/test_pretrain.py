"""Making a lab policy: the same bytes every time, into a folder that loads."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sesa_lab import environments
from sesa_lab.config import PolicyConfig, PretrainConfig
from sesa_lab.errors import InputError
from sesa_lab.policies import load_policy
from sesa_lab.policies.pretrain import pretrain

TINY = PretrainConfig(steps=3, batch=2, answers=3, hidden=32, layers=1, vocabulary=300)


@pytest.fixture(scope="module")
def environment() -> Any:
    return environments.make("path_exploration", branching="2x2", n_treasures=2)


def silent(step: int, loss: float) -> None:
    pass


@pytest.fixture(scope="module")
def made(environment: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, list]:
    folder = tmp_path_factory.mktemp("policies") / "tiny"
    seen: list[tuple[int, float]] = []
    return folder, pretrain(environment, folder, TINY, lambda step, loss: seen.append((step, loss))), seen


def test_the_folder_loads_and_says_what_it_is(made: tuple, environment: Any) -> None:
    folder, card, seen = made
    assert json.loads((folder / "sesa_lab.json").read_text()) == card
    assert card["pretrain"] == dataclasses.asdict(TINY)
    assert card["options"] == {key: environment.options[key] for key in environment.policy_options}
    assert [step for step, _ in seen] == [1, 2, 3]
    assert all(np.isfinite(loss) and loss > 0 for _, loss in seen)
    policy = load_policy(PolicyConfig(model=str(folder), device="cpu"), environment.name, environment.options, 0)
    assert policy.form == "lab"
    assert [policy.tokenizer.decode(policy.encode(leaf)) for leaf in environment.leaves] == environment.leaves


def test_the_same_settings_give_the_same_bytes_and_another_seed_others(
    made: tuple, environment: Any, tmp_path: Path
) -> None:
    torch.manual_seed(123)
    state = torch.get_rng_state()
    again = pretrain(environment, tmp_path / "again", TINY, silent)
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
    assert again == made[1]
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (made[0] / name).read_bytes()
    other = pretrain(environment, tmp_path / "other", dataclasses.replace(TINY, seed=1), silent)
    assert other["sha256"] != again["sha256"]


def test_an_existing_folder_is_left_alone(made: tuple, environment: Any) -> None:
    before = {path.name: path.read_bytes() for path in made[0].iterdir()}
    with pytest.raises(InputError, match=r"tiny exists already; choose another folder or remove it"):
        pretrain(environment, made[0], TINY, silent)
    assert {path.name: path.read_bytes() for path in made[0].iterdir()} == before


def test_a_width_that_is_no_multiple_of_the_head_size_is_refused(environment: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="hidden = 33: expected a multiple of 32"):
        pretrain(environment, tmp_path / "new", dataclasses.replace(TINY, hidden=33), silent)
    assert not (tmp_path / "new").exists()
