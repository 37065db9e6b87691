"""What lies in data/policies: weights as their card says, loadable by anyone, able to spell every answer."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from sesa_lab import cli, environments, prompts
from sesa_lab.config import PolicyConfig, PretrainConfig, SamplerConfig
from sesa_lab.policies import lab_policy_for, load_policy
from sesa_lab.policies.load import CARD, POLICIES

FOLDERS = sorted(path.parent for path in POLICIES.glob(f"*/{CARD}"))


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def card(folder: Path) -> dict[str, Any]:
    return json.loads((folder / CARD).read_text())


def test_there_is_one_for_every_environments_default_options() -> None:
    for name in environments.names():
        assert lab_policy_for(name, environments.make(name).options) in FOLDERS
    assert [path for path in POLICIES.iterdir() if path.is_dir() and path not in FOLDERS] == [], "a folder without card"


def test_weights_are_those_of_the_card_and_small(folder: Path, card: dict) -> None:
    assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() == card["sha256"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8_000_000


def test_anyone_can_load_it(folder: Path, card: dict) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert sum(p.numel() for p in model.parameters()) == card["parameters"]
    assert tokenizer.eos_token_id == model.config.eos_token_id
    environment = environments.make(card["environment"], **card["options"])
    ids = prompts.task_ids(tokenizer, "lab", environment.name, environment.task(0))
    drawn = model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        do_sample=False,
        max_new_tokens=16,
    )
    answer = tokenizer.decode(drawn[0, len(ids) :], skip_special_tokens=True)
    assert environment.score(environment.task(0), answer).strategy is not None, "its likeliest answer is a leaf"


def test_it_spells_every_answer_shortly(folder: Path, card: dict) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    environment = environments.make(card["environment"], **card["options"])
    answers = environment.enumerate(environment.task(0))
    spelt = [tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in answers]
    assert [tokenizer.decode(ids) for ids in spelt] == answers
    assert len(set(map(tuple, spelt))) == len(answers)
    levels = environment.task(0).data["levels"]
    assert max(map(len, spelt)) <= 2 * len(levels), "a place name, with the separator before it, is a token or two"
    assert max(map(len, spelt)) < SamplerConfig().max_tokens, "the default limit leaves room for the stop token"
    size = AutoConfig.from_pretrained(folder).vocab_size  # transformers adds a token of its own beyond it, never used
    assert max(map(max, spelt)) < size and tokenizer.eos_token_id < size


def test_it_is_chosen_by_the_options_it_was_made_for(folder: Path, card: dict) -> None:
    options = environments.make(card["environment"], **card["options"], n_treasures=3, seed=9).options
    assert lab_policy_for(card["environment"], options) == folder
    policy = load_policy(PolicyConfig(device="cpu"), card["environment"], options, 0)
    assert (policy.folder, policy.form) == (str(folder), "lab")


def test_its_readme_holds_the_very_command(folder: Path, card: dict) -> None:
    readme = (folder / "README.md").read_text()
    assert readme.startswith(f"# {folder.name}\n") and card["sha256"] in readme
    [command] = re.findall(r"^ +(sesa-lab pretrain (?:.*\\\n)*.*)$", readme, re.M)
    program, *arguments = shlex.split(command.replace("\\\n", " "))
    chosen = cli.build_parser().parse_args(arguments)
    assert (program, chosen.environment, Path(chosen.out)) == (
        "sesa-lab",
        card["environment"],
        folder.relative_to(POLICIES.parents[1]),
    )
    assert {field.name: getattr(chosen, field.name) for field in fields(PretrainConfig)} == card["pretrain"]
    options = environments.make(chosen.environment, **cli._options(chosen.option)).options
    assert {key: options[key] for key in card["options"]} == card["options"]
