"""What is run to load a model: code in its folder only where it is asked for, pickles never, attention code by its name."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_models
import torch
from safetensors.torch import load_file
from transformers import CodeGenConfig, LlamaConfig

from sesa_lab.errors import InputError
from sesa_lab.policies import Policy

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
(Path({folder!r}) / "it_ran").touch()
class OddConfig(LlamaConfig):
    model_type = "odd"
class OddModel(LlamaForCausalLM):
    config_class = OddConfig
"""
OWN = {"AutoConfig": "modeling_odd.OddConfig", "AutoModelForCausalLM": "modeling_odd.OddModel"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_models.save_model(tmp_path / "model", kind=LlamaConfig, num_hidden_layers=1)


@pytest.fixture
def with_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Policy]:
    """Load the model with code of its own beside it, which leaves a file behind when it runs."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(folder.parent / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    config = json.loads((folder / "config.json").read_text())

    def load(kind: str, **settings: str) -> Policy:
        (folder / "modeling_odd.py").write_text(CODE.format(folder=str(folder)))
        (folder / "config.json").write_text(json.dumps(config | {"model_type": kind, "auto_map": OWN}))
        return tiny_models.load(folder, **settings)

    return load


def test_code_in_a_folder_is_not_run_unless_asked(with_code: Callable, folder: Path) -> None:
    with pytest.raises(
        InputError, match=r"needs code of its own, .* policy.trust_remote_code = 'yes'; set it if you trust"
    ) as caught:
        with_code("odd")
    assert len(str(caught.value).splitlines()) == 1
    assert not (folder / "it_ran").exists()


def test_code_beside_a_known_model_is_passed_over(with_code: Callable, folder: Path) -> None:
    policy = with_code("llama")
    assert type(policy.model.get_base_model()).__name__ == "LlamaForCausalLM"
    assert not (folder / "it_ran").exists()


def test_code_is_run_where_it_is_trusted(with_code: Callable, folder: Path) -> None:
    policy = with_code("odd", trust_remote_code="yes")
    assert type(policy.model.get_base_model()).__name__ == "OddModel"
    assert (folder / "it_ran").exists()


class Bomb:
    """Unpickled, it would leave a file behind."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("beside", [(), ("adapter_model.safetensors",)], ids=["alone", "beside an adapter"])
def test_pickled_weights_are_refused_and_not_opened(folder: Path, beside: tuple[str, ...]) -> None:
    weights = load_file(folder / "model.safetensors")
    for name in beside:
        shutil.copy(folder / "model.safetensors", folder / name)
    (folder / "model.safetensors").unlink()
    torch.save({**weights, "bomb": Bomb(folder / "it_ran")}, folder / "pytorch_model.bin")
    message = (
        r"safetensors"
        if beside
        else r"pytorch_model\.bin may hold code, and is not read: save the model anew with safetensors"
    )
    with pytest.raises(InputError, match=message) as caught:
        tiny_models.load(folder, trust_remote_code="yes")
    assert len(str(caught.value).splitlines()) == 1
    assert not (folder / "it_ran").exists()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_is_computed_as_asked(folder: Path, attention: str) -> None:
    assert tiny_models.load(folder, attention=attention).decoder.config._attn_implementation == attention


def test_a_model_without_sdpa_is_refused_by_the_settings_name(tmp_path: Path) -> None:
    folder = tiny_models.save_model(
        tmp_path / "old", kind=CodeGenConfig, num_hidden_layers=1, num_attention_heads=4, rotary_dim=8
    )
    with pytest.raises(InputError, match=r"policy\.attention = 'eager'"):
        tiny_models.load(folder)
    assert tiny_models.load(folder, attention="eager").form == "chat"


def test_an_adapters_own_dropout_is_off(folder: Path, tmp_path: Path) -> None:
    # peft puts a loaded adapter's dropout in training mode: it would have acted in scores and in training, not in drawing.
    tiny_models.load(folder).model.save_pretrained(tmp_path / "adapter")
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(settings | {"lora_dropout": 0.5}))
    policy = tiny_models.load(folder, adapter=str(tmp_path / "adapter"))
    assert any(isinstance(module, torch.nn.Dropout) for module in policy.model.modules())
    assert not any(module.training for module in policy.model.modules())


def test_a_template_without_a_switch_for_thinking_is_refused(folder: Path) -> None:
    with pytest.raises(
        InputError, match=r"policy.thinking = 'no': the chat template of .* has no switch .*enable_thinking"
    ):
        tiny_models.load(folder, thinking="no")


def test_thinking_is_switched_off_by_the_templates_own_switch(tmp_path: Path) -> None:
    switch = "{% if add_generation_prompt and enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}"
    folder = tiny_models.save_model(tmp_path / "thinks", tiny_models.CHATML + switch, num_hidden_layers=1)
    asked = [{"role": "user", "content": "x"}]
    for way, ends in (("template", False), ("no", True)):
        tokenizer = tiny_models.load(folder, thinking=way).tokenizer
        text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        assert text.endswith("<think></think>") == ends
