"""Loading: the right folder, the right form, and for every mistake a message that names it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_models
import torch
from tiny_models import CHATML
from transformers import MistralConfig
from transformers.utils import logging

from sesa_lab import environments
from sesa_lab.config import Config, PolicyConfig
from sesa_lab.errors import InputError
from sesa_lab.policies import Policy, lab_policy_for, load_policy, merged
from sesa_lab.policies.load import POLICIES
from sesa_lab.training.loop import train


@pytest.fixture(scope="session", autouse=True)
def _quiet() -> None:
    logging.disable_progress_bar()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save_model(tmp_path_factory.mktemp("models") / "chat", num_hidden_layers=1)


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "model"))


def load(environment: str = "path_exploration", /, **settings: object) -> Policy:
    known = environment in environments.names()  # others are refused, whatever their options
    options = environments.make(environment).options if known else {}
    return load_policy(PolicyConfig(**{"device": "cpu", **settings}), environment, options, 0)


def refused(message: str, environment: str = "path_exploration", /, **settings: object) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(environment, **settings)
    assert len(str(caught.value).splitlines()) == 1


def adapter(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in policy.model.named_parameters() if p.requires_grad}


# --- what is loaded ---------------------------------------------------------------------------------------------------


def test_a_chat_model_is_spoken_to_by_its_template(model: Path) -> None:
    policy = load(model=str(model))
    assert (policy.form, policy.stop_ids, policy.folder) == ("chat", (tiny_models.STOP,), str(model))
    assert policy.tokenizer.decode(policy.encode("é x")) == "é x"
    assert tiny_models.STOP not in policy.encode("é x")


def test_names_under_data_policies_and_folders(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(model="path").folder == str(POLICIES / "path")
    monkeypatch.chdir(model.parent)
    assert load(model=model.name).folder == model.name
    assert load(model=f"./{model.name}").form == "chat"


def test_only_the_adapter_is_trained(model: Path) -> None:
    names = list(adapter(load(model=str(model), lora_targets="q_proj, v_proj")))
    assert names and all(".lora_A." in name or ".lora_B." in name for name in names)
    assert {name.split(".")[-4] for name in names} == {"q_proj", "v_proj"}


def test_adapters_first_weights_are_fixed_by_the_seed_alone(model: Path) -> None:
    config = PolicyConfig(model=str(model), device="cpu")
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = adapter(load_policy(config, "path_exploration", {}, 0))
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
    torch.manual_seed(12)
    second, other = (adapter(load_policy(config, "path_exploration", {}, seed)) for seed in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert all((value == 0).all() for name, value in first.items() if "lora_B" in name), "it changes nothing yet"


def test_a_saved_adapter_comes_back(model: Path, tmp_path: Path) -> None:
    policy = tiny_models.load(model, adapter_noise=0.1)
    policy.model.save_pretrained(tmp_path)
    state = torch.get_rng_state()
    back = load(model=str(model), adapter=str(tmp_path))
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
    assert adapter(policy).keys() == adapter(back).keys()
    assert all(torch.equal(value, adapter(back)[name]) for name, value in adapter(policy).items())


def test_merging_is_undone_exactly_even_after_an_error(model: Path) -> None:
    policy = tiny_models.load(model, adapter_noise=0.1)
    before = {name: value.clone() for name, value in policy.model.state_dict().items()}
    with pytest.raises(RuntimeError, match="stop"), merged(policy.model):
        raise RuntimeError("stop")
    after = policy.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_unknown_names_suggest_known_ones() -> None:
    refused(r"no model 'pth': neither a folder nor .*did you mean 'path'\? known: .*lab, .*path", model="pth")
    refused("no model '/nowhere/at/all'", model="/nowhere/at/all")
    refused("model nobody/nothing cannot be loaded", model="nobody/nothing")  # no network in tests


@pytest.mark.parametrize("relative", [False, True], ids=["absolute", "relative"])
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_incomplete_folders_are_refused(copy: Path, name: str, relative: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # An absolute path used to slip past this check: without tokenizer.json an empty tokenizer was loaded in silence.
    (copy / name).unlink()
    monkeypatch.chdir(copy.parent)
    missing = name.replace("model.safetensors", r"\*\.safetensors weights")
    refused(
        rf"model folder .*{missing} missing; expected a Hugging Face folder", model=copy.name if relative else str(copy)
    )


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_damaged_folders_are_refused(copy: Path, name: str) -> None:
    halve(copy / name)
    refused(r"model .*model cannot be loaded on cpu: .", model=str(copy))


def test_a_damaged_card_is_refused(copy: Path) -> None:
    (copy / "sesa_lab.json").write_text("{")
    refused(r"sesa_lab\.json is damaged", model=str(copy))


def test_devices_that_are_not_there_are_refused(model: Path) -> None:
    refused("cannot be loaded on nowhere", model=str(model), device="nowhere")
    refused("cannot be loaded on cuda:99", model=str(model), device="cuda:99")


def test_a_lab_policy_answers_its_own_environment_only() -> None:
    refused("is a lab policy for environment 'path_exploration', not for 'chess'", "chess", model="path")


def test_a_named_lab_policy_answers_the_tasks_it_was_made_for_only(model: Path, tmp_path: Path) -> None:
    # It used to be loaded in silence, and knew nothing of what it was asked.
    folder = Path(shutil.copytree(POLICIES / "path", tmp_path / "mine"))
    for name, message, other in (
        (
            "path-peaked",
            r"path-peaked is a lab policy for path_exploration with prior_exponent = 2\.0, not 1\.0; change",
            {},
        ),
        (
            "path",
            "with branching = '8x5x5', not '4x4x4'; change these options of the environment",
            {"branching": "4x4x4"},
        ),
        (
            str(folder),
            r"with branching = '8x5x5', not '5x5x8', hierarchy_seed = 0, not 7; .*make one: sesa-lab pretrain --environment path_",
            {"branching": "5x5x8", "hierarchy_seed": 7},
        ),
    ):
        options = environments.make("path_exploration", seed=3, **other).options
        with pytest.raises(InputError, match=message) as caught:
            load_policy(PolicyConfig(model=name, device="cpu"), "path_exploration", options, 0)
        assert " seed" not in str(caught.value), "only what it was made for has to agree"
    # What a policy was not made for in particular may differ; a model without a card is anyone's.
    options = environments.make("path_exploration", n_treasures=3, seed=5, repeats="zero").options
    assert load_policy(PolicyConfig(model=str(folder), device="cpu"), "path_exploration", options, 0).form == "lab"
    options = environments.make("sokoban", height=9).options
    assert load_policy(PolicyConfig(model=str(model), device="cpu"), "sokoban", options, 0).form == "chat"


def test_options_that_no_lab_policy_was_made_for_are_refused() -> None:
    options = environments.make("path_exploration", hierarchy="china").options
    with pytest.raises(InputError, match=r"no lab policy .*Shipped: path: .*make one: sesa-lab pretrain --environment"):
        lab_policy_for("path_exploration", options)
    with pytest.raises(InputError, match="no lab policy was pre-trained for chess"):
        lab_policy_for("chess", {})


def test_an_answer_ends_by_any_token_that_ends_a_turn(tmp_path: Path) -> None:
    """Some models end a turn by another token than their tokenizer's eos token; answers ran on past it."""
    folder = tiny_models.save_model(tmp_path / "turns", num_hidden_layers=1)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": tiny_models.PAD}))
    assert load(model=str(folder)).stop_ids == (
        tiny_models.STOP,
        0,
    )  # where the limit cut an answer, the turn is closed by it
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0]}))
    assert load(model=str(folder)).stop_ids == (tiny_models.STOP, 0, 2)
    unstopped = tiny_models.save_model(tmp_path / "unstopped", tiny_models.UNSTOPPED, num_hidden_layers=1)
    assert load(model=str(unstopped)).stop_ids == (tiny_models.STOP,), "a line break ends no answer"


def test_a_chat_model_without_template_is_refused(tmp_path: Path) -> None:
    folder = tiny_models.save_model(tmp_path / "plain", template=None, num_hidden_layers=1)
    refused("its tokenizer has no chat template; use an instruct model, or a lab policy", model=str(folder))


def test_a_tokenizer_without_stop_token_is_refused(tmp_path: Path) -> None:
    folder = tiny_models.save_model(tmp_path / "endless", kind=MistralConfig, num_hidden_layers=1)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    refused("names no eos_token", model=str(folder))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ("nowhere", "'nowhere': the model has no module 'nowhere'"),
        ("q_proj,v_prj", "the model has no module 'v_prj'"),  # peft passes over it in silence
        ("", "the model has no module ''"),
        ("input_layernorm", "is not supported"),
        ("embed_tokens", "is one matrix for input and output here"),  # merged, it drew from another distribution
        ("q_proj,lm_head", "'lm_head' is one matrix for input and output here"),
    ],
)
def test_bad_lora_targets_are_refused(model: Path, targets: str, message: str) -> None:
    refused(f"policy.lora_targets = .*{message}", model=str(model), lora_targets=targets)


def spoil_config(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "no adapter_config.json"),
        (lambda folder: (folder / "adapter_config.json").unlink(), "no adapter_config.json there"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "no adapter_model.safetensors there"),
        (lambda folder: halve(folder / "adapter_model.safetensors"), "is damaged or of another model"),
        (lambda folder: halve(folder / "adapter_config.json"), "is damaged or of another model"),
        (spoil_config, "is damaged or of another model"),
    ],
    ids=["no folder", "no config", "no weights", "half weights", "half config", "empty config"],
)
def test_bad_adapters_are_refused(model: Path, tmp_path: Path, spoil: Callable, message: str) -> None:
    folder = tmp_path / "adapter"
    load(model=str(model)).model.save_pretrained(folder)
    spoil(folder)
    refused(f"policy.adapter = .*{message}", model=str(model), adapter=str(folder))


def test_an_adapter_of_another_model_is_refused(model: Path, tmp_path: Path) -> None:
    wide = tiny_models.save_model(tmp_path / "wide", hidden_size=128, num_hidden_layers=1)
    load(model=str(wide)).model.save_pretrained(tmp_path / "adapter")
    refused("is damaged or of another model", model=str(model), adapter=str(tmp_path / "adapter"))


def test_logits_changed_after_the_head_are_refused(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import Qwen2ForCausalLM

    forward = Qwen2ForCausalLM.forward

    def capped(self: object, *arguments: object, **keywords: object) -> object:
        found = forward(self, *arguments, **keywords)
        found.logits = 3 * torch.tanh(found.logits / 3)
        return found

    monkeypatch.setattr(Qwen2ForCausalLM, "forward", capped)
    refused("transforms its logits after the output layer", model=str(copy))


# --- a chat model trains ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["parallel", "sequential"])
def test_a_chat_model_trains_a_step(sampler: str, tmp_path: Path) -> None:
    from sesa_lab import runs

    shape = {"max_position_embeddings": 4096, "num_hidden_layers": 1}
    folder = tiny_models.save_model(tmp_path / "model", template=CHATML, **shape)
    config = Config.build(
        environment={"options": {"branching": "2x2", "n_treasures": 2}},
        policy={"model": str(folder), "device": "cpu"},
        sampler={"name": sampler, "group_size": 3, "max_tokens": 5},
        update={"advantage": "mean"},
        run={"steps": 1, "groups": 2},
    )
    run = runs.load(train(config, tmp_path / "run"))
    assert run.finished and len(run.rollouts) == 6
    assert set(run.rollouts["drawn_under"]) == ({"task", "history"} if sampler == "sequential" else {"task"})
