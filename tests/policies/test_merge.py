"""A merged folder is the policy that was trained, to rounding; adapters and merged models are read by others' code too."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import vllm_process
from datasets import Dataset
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from tiny_models import CHATML, full_logits, load, save_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from sesa_lab import runs
from sesa_lab.cli import main
from sesa_lab.config import Config, PolicyConfig
from sesa_lab.errors import InputError
from sesa_lab.policies import load_policy, model_card
from sesa_lab.policies.load import POLICIES, read_card
from sesa_lab.policies.merge import Rounding, base_of, merge
from sesa_lab.training.loop import train

PROMPTS = [(5, 9, 13, 7), (40, 41, 42, 43, 44, 45, 46)]
CONFIG = Config.build(sampler={"name": "sesa", "expansions": 2}, run={"steps": 9, "seed": 4})
UNIT = {"bfloat16": 2.0**-8, "float16": 2.0**-11}  # half a last bit, of a significand of 8 and of 11 bits


def stored_as(folder: Path, dtype: torch.dtype) -> Path:
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(dtype).save_pretrained(folder)
    return folder


def adapter_of(base: Path, folder: Path, noise: float = 0.05, **settings: Any) -> Path:
    """A LoRA adapter as a checkpoint has it."""
    policy = load(base, noise, **settings)
    policy.model.save_pretrained(folder)
    model_card.write_adapter(folder, CONFIG, str(base), 7, {"step": 5, "accuracy": 0.25}, "abc")
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapter_of(base, tmp_path_factory.mktemp("adapters") / "adapter")


@pytest.fixture(scope="module")
def merged_model(base: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("merged") / "model"
    rounding = merge(adapter, str(base), out)
    assert rounding == Rounding("float32", 0.0)
    return out


def test_float32_logits_are_those_of_the_adapter(base: Path, adapter: Path, merged_model: Path) -> None:
    policy, plain = load(base, adapter=str(adapter)), AutoModelForCausalLM.from_pretrained(merged_model)
    for ids in PROMPTS:
        ours, theirs = full_logits(plain, ids), full_logits(policy.model, ids)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
        with policy.model.disable_adapter():
            assert (full_logits(policy.model, ids) - ours).abs().max() > 0.1, "the adapter changes something"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bit_weights_are_the_float32_sum_rounded_once(dtype: str, tmp_path: Path) -> None:
    kind = getattr(torch, dtype)
    base = stored_as(save_model(tmp_path / "base"), kind)
    adapter = adapter_of(base, tmp_path / "adapter", dtype=dtype)
    rounding = merge(adapter, str(base), tmp_path / "out")
    weights, before, lora = (
        load_file(folder / name)
        for folder, name in (
            (tmp_path / "out", "model.safetensors"),
            (base, "model.safetensors"),
            (adapter, "adapter_model.safetensors"),
        )
    )
    assert weights.keys() == before.keys()
    changed = lost = 0.0
    for name, weight in weights.items():
        assert weight.dtype == kind
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{stem}.lora_A.weight" not in lora:
            assert torch.equal(weight, before[name]), "what the adapter does not touch stays"
            continue
        # W + (alpha / r) B A with alpha 32, r 16
        change = 2.0 * lora[f"{stem}.lora_B.weight"].double() @ lora[f"{stem}.lora_A.weight"].double()
        exact = before[name].double() + change
        error = (weight.double() - exact).abs()
        assert (error <= 1.001 * UNIT[dtype] * exact.abs() + 1e-6).all()  # 1e-6: float32's own, and fp16's subnormals
        changed, lost = changed + change.square().sum().item(), lost + error.square().sum().item()
    assert rounding.dtype == dtype and rounding.share == pytest.approx((lost / changed) ** 0.5, rel=1e-2)
    policy = load(base, adapter=str(adapter), dtype=dtype)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    wide = load(base, adapter=str(adapter))  # the same weights, computed in float32
    spread = max((full_logits(policy.model, ids) - full_logits(wide.model, ids)).abs().max() for ids in PROMPTS)
    for ids in PROMPTS:  # storing the sum costs no more than computing in that type does
        assert (full_logits(plain, ids) - full_logits(wide.model, ids)).abs().max() <= spread


def test_another_type_is_rounded_to_once_from_the_stored_one(base: Path, adapter: Path, tmp_path: Path) -> None:
    assert merge(adapter, str(base), tmp_path / "half", "bfloat16").share > 0
    assert merge(adapter, str(base), tmp_path / "whole", "float32").share == 0
    half, whole = (load_file(tmp_path / name / "model.safetensors") for name in ("half", "whole"))
    assert all(torch.equal(half[name], whole[name].bfloat16()) for name in whole)
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"


def test_all_that_belongs_to_a_model_goes_along(base: Path, merged_model: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (merged_model / name).read_bytes() == (base / name).read_bytes()
    tokenizer = AutoTokenizer.from_pretrained(merged_model)
    assert tokenizer.chat_template == CHATML and tokenizer.eos_token_id == 1
    assert not list(merged_model.glob("adapter*")) and not list(merged_model.parent.glob(".tmp-*"))
    policy = load(merged_model)
    assert policy.form == "chat"


def test_a_trained_lab_policy_stays_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = tmp_path / "run", tmp_path / "model"
    settings = {
        "steps": 2,
        "groups": 4,
        "evaluate_every": 2,
        "checkpoint_every": 1,
        "coverage_k": 4,
        "trackers": "none",
    }
    config = Config.build(sampler={"group_size": 16}, update={"learning_rate": 0.01}, run=settings)
    train(config, run)
    assert main(["merge", str(run), "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    environment = config.environment
    options = {**read_card(str(out))["made_with"], **environment.options}
    last = runs.load(run).checkpoints[-1][1]
    shipped = base_of(last)
    assert Path(shipped).parent == POLICIES
    trained = load_policy(PolicyConfig(model="lab", adapter=str(last), device="cpu"), environment.name, options, 0)
    plain = load_policy(PolicyConfig(model=str(out), device="cpu"), environment.name, options, 0)
    assert plain.form == "lab" and plain.stop_ids == trained.stop_ids
    for ids in PROMPTS:
        torch.testing.assert_close(full_logits(plain.model, ids), full_logits(trained.model, ids), rtol=0, atol=1e-5)
    before, after = read_card(shipped), read_card(str(out))
    assert after["merged_from"] == before["sha256"] != after["sha256"]
    assert {k: v for k, v in after.items() if k not in ("sha256", "merged_from")} == {
        k: v for k, v in before.items() if k != "sha256"
    }
    text = (out / "README.md").read_text()
    row = runs.load(run).evaluations.iloc[-1]
    assert f"| accuracy | {row['accuracy']:.6g} |" in text and "evaluated after step 2" in text
    assert "seconds" not in text and "2 of 2, 4 groups each" in text and "added in float32, stored as\nfloat32." in text
    # The checkpoint alone says where its base is, and is merged to the same.
    assert main(["merge", str(last), "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    # The card is the run's, and that of the same run again.
    train(config, tmp_path / "twin")
    twin = runs.load(tmp_path / "twin").checkpoints[-1][1]
    card = (last / "README.md").read_text()
    assert (twin / "README.md").read_text() == card and f"| accuracy | {row['accuracy']:.6g} |" in card


def test_the_card_of_an_adapter(base: Path, adapter: Path) -> None:
    text = (adapter / "README.md").read_text()
    for line in (
        f"base_model: {base}",
        "license: unknown",
        "| environment | path_exploration |",
        "| sampler | sesa: group_size 16, temperature 1.0, max_tokens 16, expansions 2 |",
        "| steps | 7 of 9, 8 groups each |",
        "| seed | 4 |",
        "| code | commit abc |",
        "| evaluated after step 5 | |",
        "| accuracy | 0.25 |",
        "Licence: unknown: that of the base model.",
        f'llm = LLM("{base}", dtype="float32", enable_lora=True, max_lora_rank=16)',
    ):
        assert line in text.splitlines()
    assert '"truncated_is"' not in text and 'correction "none"' in text, "what matters, and what is not as usual"
    assert "More Information Needed" not in text


def test_the_base_is_named_so_that_it_is_found_from_anywhere(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(base, tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    folder = adapter_of(Path("here"), tmp_path / "adapter")
    monkeypatch.chdir("/")
    assert base_of(folder) == str(tmp_path / "here")
    model_card.write_adapter(folder, CONFIG, "Owner/Name", 0, {})
    assert base_of(folder) == "Owner/Name"
    assert "It was not evaluated." in (folder / "README.md").read_text()


def test_peft_and_transformers_load_an_adapter(base: Path, adapter: Path, merged_model: Path) -> None:
    expected = [full_logits(AutoModelForCausalLM.from_pretrained(merged_model), ids) for ids in PROMPTS]
    by_transformers = AutoModelForCausalLM.from_pretrained(base)
    by_transformers.load_adapter(str(adapter))
    by_path = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter))
    for model in (AutoPeftModelForCausalLM.from_pretrained(adapter), by_path, by_transformers.eval()):
        for ids, logits in zip(PROMPTS, expected, strict=True):
            torch.testing.assert_close(full_logits(model, ids), logits, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_trl_trains_an_adapter_on(adapter: Path, base: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where vLLM is installed TRL imports it too, and both have something to say
        from trl import GRPOConfig, GRPOTrainer

        model = AutoPeftModelForCausalLM.from_pretrained(adapter, is_trainable=True)
        before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
        assert before and all("lora_" in name for name in before)
        arguments = GRPOConfig(
            output_dir=str(tmp_path), per_device_train_batch_size=4, num_generations=4, max_completion_length=4,
            max_steps=1, learning_rate=1e-2, report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False,
            disable_tqdm=True, save_strategy="no",
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=lambda completions, **_: [float(i) for i in range(len(completions))],
            args=arguments,
            train_dataset=Dataset.from_list([{"prompt": "ab"}] * 4),
            processing_class=AutoTokenizer.from_pretrained(base),
        )
        trainer.train()
    moved = [
        name for name, p in trainer.model.named_parameters() if name in before and not torch.equal(p, before[name])
    ]
    assert moved, "one step changes the adapter"


@pytest.mark.slow
def test_vllm_loads_an_adapter_and_a_merged_model(base: Path, adapter: Path, merged_model: Path) -> None:
    command = [sys.executable, vllm_process.__file__, str(base), str(adapter), str(merged_model)]
    done = subprocess.run(command, input=json.dumps(PROMPTS), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    plain = AutoModelForCausalLM.from_pretrained(merged_model)
    for answers in found:
        for ids, (tokens, logprobs) in zip(PROMPTS, answers, strict=True):
            logits = full_logits(plain, (*ids, *tokens)).log_softmax(-1)[len(ids) - 1 : -1]
            own = logits.gather(1, torch.tensor(tokens)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(logprobs), own, rtol=0, atol=1e-4)
            torch.testing.assert_close(own, logits.max(-1).values, rtol=0, atol=1e-4)  # greedy


@pytest.mark.parametrize("filled", ["file", "folder"])
def test_what_is_there_is_not_overwritten(filled: str, base: Path, adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if filled == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "mine").write_text("mine")
    with pytest.raises(InputError, match="exists and is not empty"):
        merge(adapter, str(base), out)
    assert (out if filled == "file" else out / "mine").read_text() == "mine"


def test_an_empty_folder_is_filled(base: Path, adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    merge(adapter, str(base), tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["merge", *arguments]) == 2
    return capsys.readouterr().err


def test_mistakes_are_said(base: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    assert "neither a run folder nor one with a LoRA adapter" in told([str(tmp_path / "none"), "--out", out], capsys)
    assert "neither a run folder nor one with a LoRA adapter" in told([str(base), "--out", out], capsys)
    assert "expected one of float32" in told([str(adapter), "--out", out, "--dtype", "int8"], capsys)
    assert "another one is named by --policy" in told([str(adapter), "--out", out, "--policy", "nobody/none"], capsys)
    other = save_model(tmp_path / "other", hidden_size=128, num_attention_heads=4, num_key_value_heads=4)
    assert "no adapter of" in told([str(adapter), "--out", out, "--policy", str(other)], capsys)
    copy = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    said = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps(said | {"base_model_name_or_path": None}))
    assert "names no base model; name it by --policy" in told([str(copy), "--out", out], capsys)
    (copy / "adapter_config.json").write_text('{"peft_type": "LO')
    assert "is damaged" in told([str(copy), "--out", out], capsys)
    (copy / "adapter_config.json").write_text(json.dumps(said | {"peft_type": "IA3"}))
    assert "only LoRA adapters" in told([str(copy), "--out", out], capsys)
    assert "only LoRA adapters" in told([str(copy), "--out", out, "--policy", str(base)], capsys)
    (copy / "adapter_model.safetensors").unlink()
    assert "no adapter_model.safetensors" in told([str(copy), "--out", out], capsys)
    assert not Path(out).exists() and not list(tmp_path.glob(".tmp-*"))


def test_a_damaged_or_unborn_checkpoint_is_not_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = tmp_path / "run", str(tmp_path / "out")
    settings = {"steps": 0, "groups": 1, "coverage_k": 4, "trackers": "none"}
    train(Config.build(sampler={"group_size": 4}, run=settings), run)
    weights = runs.load(run).checkpoints[-1][1] / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "is damaged" in told([str(run), "--out", out], capsys)
    shutil.rmtree(weights.parent)
    assert "has no checkpoint yet" in told([str(run), "--out", out], capsys)


def test_weights_that_overflow_are_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    copy = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    weights = load_file(copy / "adapter_model.safetensors")
    weights[next(name for name in weights if "lora_B" in name)].fill_(float("nan"))
    save_file(weights, copy / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="cannot be merged"):
        merge(copy, str(base), tmp_path / "out")
    assert not (tmp_path / "out").exists()
