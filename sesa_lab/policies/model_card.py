"""Cards for people: ``README.md`` of a checkpoint's adapter and of a merged model. No times in them: one seed, one card."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sesa_lab.config import Config
from sesa_lab.policies.merge import Rounding

README = "README.md"
LICENCE = "unknown: that of the base model"
# What says how a run was made even where it is as usual; beside these, what is not as usual.
_ALWAYS = {
    "sampler": ("group_size", "temperature", "max_tokens"),
    "update": ("loss", "advantage", "repeats", "conditioning", "correction", "learning_rate"),
}
_CLOCK = ("seconds", "peak_memory")  # measures that begin so differ from one run of a seed to the next


def write_adapter(
    folder: Path, config: Config, base: str, step: int, evaluation: Mapping[str, Any], commit: str = ""
) -> None:
    """The card of an adapter that ``save_pretrained`` has just put into ``folder``, in place of peft's template.

    ``adapter_config.json`` there is made to name the base so that it is found from anywhere: by its full path, or on the Hub.

    Args:
        folder: holds ``adapter_config.json``.
        config: of the run.
        base: folder or Hub name that the policy was loaded from.
        step: steps taken.
        evaluation: ``step`` and measures of the last evaluation; empty: there was none.
        commit: of the code; empty: unknown.
    """
    base = str(Path(base).resolve()) if Path(base).is_dir() else base
    file = folder / "adapter_config.json"
    said = json.loads(file.read_text()) | {"base_model_name_or_path": base}
    file.write_text(json.dumps(said, indent=2, sort_keys=True))
    words = {
        "base": base,
        "licence": LICENCE,
        "rank": said["r"],
        "dtype": config.policy.dtype,
        "training": training(config, step, evaluation, commit),
    }
    (folder / README).write_text(_ADAPTER.format(**words))


def write_merged(folder: Path, base: str, adapter: str, rounding: Rounding, trained: str = "") -> None:
    """The card of the model that ``merge`` has put into ``folder``; ``trained``: what ``training`` says, where it is known."""
    exact = rounding.dtype == "float32" or math.isnan(rounding.share)
    cost = "" if exact else f"; the rounding is {rounding.share:.2g} of the adapter's change (ratio of norms)"
    words = {"name": folder.name, "base": base, "adapter": adapter, "dtype": rounding.dtype, "cost": cost}
    told = trained or "How the adapter was trained says its own card, where it has one."
    (folder / README).write_text(_MERGED.format(**words, licence=LICENCE, training=told))


def training(config: Config, step: int, evaluation: Mapping[str, Any], commit: str = "") -> str:
    """How a policy was trained and what it can do, as two Markdown tables."""
    rows = {
        "environment": _with(
            config.environment.name, {key: value for key, value in config.environment.options.items()}
        ),
        "sampler": _with(config.sampler.name, _telling(config.sampler, _ALWAYS["sampler"])),
        "update rule": _with("", _telling(config.update, _ALWAYS["update"])),
        "policy": _with("", _telling(config.policy, ("lora_rank", "lora_alpha", "lora_targets", "dtype"))),
        "steps": f"{step} of {config.run.steps}, {config.run.groups} groups each",
        "seed": str(config.run.seed),
        "code": f"commit {commit}" if commit else "commit unknown",
    }
    table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows.items())])
    measures = {
        name: value
        for name, value in evaluation.items()
        if name != "step" and not name.startswith(_CLOCK) and isinstance(value, (int, float)) and math.isfinite(value)
    }
    if not measures:
        return f"{table}\n\nIt was not evaluated."
    lines = [f"| {name} | {value:.6g} |" for name, value in measures.items()]
    return "\n".join([table, "", f"| evaluated after step {evaluation['step']:.0f} | |", "|---|---|", *lines])


def _telling(section: Any, always: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a section that ``always`` names, then those with another value than the default."""
    defaults = {field.name: field.default for field in dataclasses.fields(section)}
    named = {name: getattr(section, name) for name in always}
    hidden = {"name", "model", "adapter", "options"}
    other = {name: getattr(section, name) for name in defaults if name not in hidden and name not in named}
    return named | {name: value for name, value in other.items() if value != defaults[name]}


def _with(name: str, settings: Mapping[str, Any]) -> str:
    told = ", ".join(f"{key} {json.dumps(value)}" for key, value in settings.items())
    text = ": ".join(part for part in (name, told) if part)
    return text.replace("|", "\\|").replace("\n", " ")


_ADAPTER = """---
base_model: {base}
library_name: peft
license: unknown
pipeline_tag: text-generation
tags:
- lora
- grpo
- sesa_lab
---

# A policy of sesa_lab: LoRA adapter of {base}

{training}

Licence: {licence}.

## How to load it

FOLDER is where this file lies. One plain model of it, for everything else: `sesa-lab merge FOLDER --out MODEL`.

```python
# peft
from peft import AutoPeftModelForCausalLM
model = AutoPeftModelForCausalLM.from_pretrained("FOLDER")

# transformers
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained("{base}")
model.load_adapter("FOLDER")

# vLLM, which without dtype computes float32 models in 16 bits
from vllm import LLM
from vllm.lora.request import LoRARequest
llm = LLM("{base}", dtype="{dtype}", enable_lora=True, max_lora_rank={rank})
llm.generate("...", lora_request=LoRARequest("policy", 1, "FOLDER"))

# TRL: training goes on
from peft import AutoPeftModelForCausalLM
from trl import GRPOTrainer
model = AutoPeftModelForCausalLM.from_pretrained("FOLDER", is_trainable=True)
trainer = GRPOTrainer(model=model, reward_funcs=..., train_dataset=...)
```
"""

_MERGED = """---
base_model: {base}
library_name: transformers
license: unknown
pipeline_tag: text-generation
tags:
- grpo
- sesa_lab
---

# {name}

`{base}` with the LoRA adapter `{adapter}` merged into it by `sesa-lab merge`: added in float32, stored as
{dtype}{cost}.

{training}

Licence: {licence}.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained("FOLDER"), AutoTokenizer.from_pretrained("FOLDER")

from vllm import LLM  # without dtype it computes float32 models in 16 bits
llm = LLM("FOLDER", dtype="{dtype}")
```

    sesa-lab train --policy FOLDER ...
"""
