"""An adapter merged into its base: a plain model folder that transformers, vLLM and ``--policy`` read without peft."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM

from sesa_lab.errors import InputError, first_line, writing
from sesa_lab.policies.adapter import check_adapter
from sesa_lab.policies.load import CARD

# What goes along from the base's folder: tokenizer, chat template, generation config, the lab policy's card, code of its own,
# licence. Not its weights, which are written anew, and not its README.
_ALONG = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.py", "LICENSE*", "NOTICE*")
_ANEW = ("config.json", "README.md", "*.index.json", "adapter_config.json")


@dataclass(frozen=True)
class Rounding:
    """What storing the merged weights costs.

    Attributes:
        dtype: what the merged matrices are stored as.
        share: norm (Frobenius, over all merged matrices) of the rounding error as a share of the adapter's change; 0 in
            float32, where the sum itself is as exact as any; NaN where the adapter changes nothing.
    """

    dtype: str
    share: float


def base_of(adapter: Path) -> str:
    """Folder or Hub name of the model that the adapter in the folder ``adapter`` was made on.

    Raises:
        InputError: no adapter there, or it does not say.
    """
    base = _lora(adapter).get("base_model_name_or_path")
    if not base:
        raise InputError(f"{adapter / 'adapter_config.json'} names no base model; name it by --policy")
    return str(base)


def _lora(adapter: Path) -> dict[str, Any]:
    """``adapter_config.json`` of a LoRA adapter."""
    check_adapter(str(adapter))
    try:
        said: dict[str, Any] = dict(json.loads((adapter / "adapter_config.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{adapter / 'adapter_config.json'} is damaged: {first_line(error)}; restore it") from error
    if said.get("peft_type") != "LORA":
        raise InputError(f"{adapter} is an adapter of kind {said.get('peft_type')}; only LoRA adapters are merged here")
    return said


def merge(adapter: Path, base: str, out: Path, dtype: str = "", trust_remote_code: bool = False) -> Rounding:
    """Write the model ``base`` with the LoRA adapter of the folder ``adapter`` merged into it to the new folder ``out``.

    Matrices that the adapter changes are read as they are stored, changed in float32, and rounded once, to the nearest: a
    relative error of at most 2**-8 in bfloat16 and 2**-11 in float16. All other weights stay bit for bit what they are, unless
    ``dtype`` asks for another type. A change of less than half a weight's last bit is lost; ``Rounding`` says how much was.

    Args:
        adapter: folder with ``adapter_config.json`` and ``adapter_model.safetensors``.
        base: folder or Hub name.
        out: must be new or empty; it is there whole or not at all.
        dtype: of the stored weights; empty: the base's own.
        trust_remote_code: run code that lies with the base to load it.

    Raises:
        InputError: no adapter, no base, one that does not fit the other, or a folder that is not empty or cannot be written.
    """
    _lora(adapter)
    out = out.expanduser()
    check_new(out)
    wanted = getattr(torch, dtype) if dtype else None
    model = _read(base, adapter, trust_remote_code)
    share = _merge_layers(model, wanted)
    plain: Any = model.unload()
    if wanted is not None:
        plain = plain.to(wanted)
    temporary = out.with_name(f".tmp-{out.name}")
    with writing(out, "choose another --out, or mend the folder's permissions or space"):
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            plain.save_pretrained(temporary)
            _take_along(base, temporary)
            if out.is_dir():
                out.rmdir()
            os.rename(temporary, out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return Rounding(str(plain.dtype).removeprefix("torch."), share)


def check_new(out: Path) -> None:
    """Raises ``InputError`` where the folder ``out`` has something in it already."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out} exists and is not empty; choose another folder")


def _read(base: str, adapter: Path, trust_remote_code: bool) -> PeftModel:
    try:
        stored: Any = AutoModelForCausalLM.from_pretrained(
            base, dtype="auto", use_safetensors=True, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # safetensors, transformers and the Hub's client each raise a kind of their own
        raise InputError(
            f"base model {base} cannot be loaded: {first_line(error)}; another one is named by --policy"
        ) from error
    first, last = stored.get_input_embeddings(), stored.get_output_embeddings()
    try:
        model = PeftModel.from_pretrained(stored, str(adapter))
    except Exception as error:
        raise InputError(f"{adapter} is damaged, or no adapter of {base}: {first_line(error)}") from error
    tied = last is not None and first.weight is last.weight
    if tied and any(layer.get_base_layer().weight is first.weight for layer in _layers(model)):
        raise InputError(f"{adapter} changes a matrix that is one for input and output in {base}; it cannot be merged")
    return model


def _layers(model: PeftModel) -> Iterator[LoraLayer]:
    for module in model.modules():
        if isinstance(module, LoraLayer):
            yield module


@torch.no_grad()
def _merge_layers(model: PeftModel, dtype: torch.dtype | None) -> float:
    """Merge each layer in float32, stored as ``dtype`` (None: as it was); returns ``Rounding.share``."""
    changed = lost = 0.0
    for layer in _layers(model):
        weight = getattr(layer.get_base_layer(), "weight", None)
        if not isinstance(weight, torch.nn.Parameter):
            raise InputError("the adapter changes something else than plain matrices; it cannot be merged here")
        stored = weight.data
        weight.data = stored.float().clone()
        try:
            layer.merge(safe_merge=True)
        except ValueError as error:
            raise InputError(f"the adapter cannot be merged: {first_line(error)}") from error
        exact = weight.data
        weight.data = exact.to(dtype or stored.dtype)
        changed += float((exact - stored.float()).double().square().sum())
        lost += float((exact - weight.data.float()).double().square().sum())
    return math.sqrt(lost / changed) if changed else math.nan


def _take_along(base: str, out: Path) -> None:
    source = Path(base)
    if not source.is_dir():
        from huggingface_hub import snapshot_download

        source = Path(snapshot_download(base, allow_patterns=list(_ALONG)))
    for file in sorted(source.iterdir()):
        if file.is_file() and any(map(file.match, _ALONG)) and not any(map(file.match, _ANEW)):
            shutil.copyfile(file, out / file.name)
    card = out / CARD
    if card.exists():  # a lab policy stays one; what it was pre-trained for holds, its hash is that of the new weights
        said = json.loads(card.read_text())
        digest = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
        card.write_text(json.dumps({**said, "merged_from": said.get("sha256"), "sha256": digest}, indent=2) + "\n")
