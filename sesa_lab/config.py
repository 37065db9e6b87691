"""Every setting of a run: one frozen dataclass a concern, one documented field a setting.

The metadata of a field (text, choices, range) is the only source: ``Config.build`` validates by it and the command line
makes its options from it. Presets are named bundles of changes to the defaults.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sesa_lab.errors import InputError, suggest


def option(
    default: Any,
    text: str,
    *,
    choices: tuple[str, ...] | None = None,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
) -> Any:
    """A documented field: ``choices`` or a range ``low <= value <= high`` (``above`` excludes the bound)."""
    metadata = {"text": text, "choices": choices, "low": low, "high": high, "above": above}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class EnvironmentConfig:
    """What is asked."""

    name: str = option("path_exploration", "environment, see `sesa-lab environments`")
    options: dict[str, Any] = option({}, "options of the environment, NAME=VALUE")


@dataclass(frozen=True)
class PolicyConfig:
    """Who answers."""

    model: str = option(
        "lab",
        "'lab' (the lab policy shipped for the environment), a name under data/policies, a local folder in the"
        " Hugging Face format, or a model name on the Hub",
    )
    adapter: str = option("", "start from the LoRA adapter of this checkpoint folder; empty: a fresh adapter")
    dtype: str = option("float32", "weights' data type", choices=("float32", "bfloat16", "float16"))
    device: str = option("auto", "'auto' (cuda if there is one, else cpu), 'cpu', 'cuda', 'cuda:1' ...")
    lora_rank: int = option(16, "rank of the LoRA matrices", low=1, high=1024)
    lora_alpha: int = option(32, "LoRA scale is alpha / rank", low=1)
    lora_targets: str = option("all-linear", "modules LoRA is put on: 'all-linear' or names parted by commas")


@dataclass(frozen=True)
class SamplerConfig:
    """How a group is drawn."""

    name: str = option(
        "parallel",
        "parallel: all candidates i.i.d. given the task; sequential: each given the task and the answers before it",
        choices=("parallel", "sequential"),
    )
    group_size: int = option(16, "candidates a group (G)", low=2, high=4096)
    temperature: float = option(1.0, "softmax temperature; log-probs are of the tempered distribution", above=0.0)
    max_tokens: int = option(16, "most tokens a completion, the stop token included", low=1, high=1_000_000)
    on_policy_fraction: float = option(
        0.0, "sequential only: share of the group drawn i.i.d. given the task alone (rounded up)", low=0.0, high=1.0
    )
    redraws: int = option(
        0,
        "sequential only: an answer that repeats its history is drawn again up to this often; its log-probs stay those of"
        " one draw, so p/q is a little too large for it",
        low=0,
        high=100,
    )


@dataclass(frozen=True)
class UpdateConfig:
    """How rewards become a gradient."""

    learning_rate: float = option(1e-3, "Adam's step size for the LoRA weights", above=0.0, high=1.0)
    loss: str = option(
        "dapo",
        "how token terms are averaged: grpo (mean over tokens, then over candidates), dr_grpo (sum over tokens, divided"
        " by candidates x max_tokens), dapo (mean over all tokens of the optimiser step)",
        choices=("grpo", "dr_grpo", "dapo"),
    )
    advantage: str = option(
        "std",
        "reward minus the group's mean, divided by the group's standard deviation (std) or not (mean)",
        choices=("std", "mean"),
    )
    repeats: str = option(
        "environment",
        "what a strategy already seen earlier in its group earns: its reward again (count), nothing (zero), or as the"
        " environment's own rule says (environment)",
        choices=("environment", "count", "zero"),
    )
    conditioning: str = option(
        "task",
        "whose likelihood is trained: of the answer given the task alone (task, the paper) or given the context it was"
        " drawn under (history)",
        choices=("task", "history"),
    )
    correction: str = option(
        "none",
        "what is done about p(y|trained context) differing from q(y|drawing context): none; truncated_is: weight"
        " min(c, p/q); positive_only: negative advantages dropped; asymmetric: min(c, p/q) on negative advantages only;"
        " ppo_clip: the clipped ratio is taken against q instead of the old p",
        choices=("none", "truncated_is", "positive_only", "asymmetric", "ppo_clip"),
    )
    correction_scope: str = option(
        "all",
        "positive_only drops the negative advantages of all candidates, or only of those drawn off_policy",
        choices=("all", "off_policy"),
    )
    truncation: float = option(1.0, "c, the upper bound of importance weights", above=0.0)
    clip_low: float = option(0.2, "the policy ratio is clipped below at 1 - clip_low", low=0.0, high=1.0)
    clip_high: float = option(0.2, "the policy ratio is clipped above at 1 + clip_high", low=0.0)
    kl_coef: float = option(0.0, "weight of the KL penalty to the frozen base (adapter off)", low=0.0)
    kl_estimator: str = option(
        "k3", "per-token estimator of that KL: k1 = log p/r, k2 = (log p/r)^2 / 2, k3 = r/p - 1 - log r/p",
        choices=("k1", "k2", "k3"),
    )  # fmt: skip
    entropy_coef: float = option(0.0, "weight of the bonus on the token entropy (nats)", low=0.0)
    epochs: int = option(1, "passes over each rollout", low=1, high=100)
    minibatches: int = option(1, "optimiser steps a pass; must divide the candidates of a step", low=1)
    micro_batch: int = option(
        0, "rows a forward pass; 0: as many as hold about 2048 tokens. Gradients are the same either way", low=0
    )
    max_grad_norm: float = option(1.0, "gradient norm is clipped to this", above=0.0)


@dataclass(frozen=True)
class RunConfig:
    """How long, how often, from which seed."""

    steps: int = option(200, "rollout-and-update steps", low=0, high=10_000_000)
    groups: int = option(8, "tasks (groups) a step", low=1, high=100_000)
    seed: int = option(0, "run seed: fixes the run bit for bit on one machine", low=0, high=2**32 - 1)
    evaluate_every: int = option(10, "steps between exact evaluations", low=1)
    checkpoint_every: int = option(50, "steps between checkpoints, the units a killed run resumes from", low=1)
    coverage_k: int = option(64, "k of coverage@k, samples", low=1)
    threads: int = option(1, "CPU threads; part of what fixes a run bit for bit", low=1, high=1024)


@dataclass(frozen=True)
class PretrainConfig:
    """How a lab policy is made (`sesa-lab pretrain`); not part of a run."""

    steps: int = option(500, "optimiser steps", low=1)
    batch: int = option(32, "documents a step", low=1)
    answers: int = option(24, "distinct answers a document", low=1)
    learning_rate: float = option(3e-3, "peak step size of AdamW, one-cycle schedule", above=0.0)
    seed: int = option(0, "fixes data and weights", low=0)
    hidden: int = option(128, "width of the model, a multiple of 32", low=32)
    layers: int = option(2, "depth of the model", low=1)
    vocabulary: int = option(
        4096, "most entries of the tokenizer's vocabulary; merges stop when every name is one token"
    )


SECTIONS: dict[str, type] = {
    "environment": EnvironmentConfig,
    "policy": PolicyConfig,
    "sampler": SamplerConfig,
    "update": UpdateConfig,
    "run": RunConfig,
}

# A section's main field goes by the section's own name wherever settings are given flat.
_SPOKEN = {("environment", "name"): "environment", ("sampler", "name"): "sampler", ("policy", "model"): "policy"}


def flat_fields() -> dict[str, tuple[str, dataclasses.Field[Any]]]:
    """Flat name (of a command-line option or keyword) -> its section and field; names are unique over all sections."""
    return {
        _SPOKEN.get((section, field.name), field.name): (section, field)
        for section, kind in SECTIONS.items()
        for field in dataclasses.fields(kind)
    }


def sections(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Flat settings, e.g. ``{"sampler": "sequential", "steps": 200}``, sorted into their sections.

    Raises:
        InputError: an unknown name.
    """
    fields = flat_fields()
    sorted_in: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        if name not in fields:
            raise InputError(f"unknown setting {name!r}; {suggest(name, list(fields))}")
        section, field = fields[name]
        sorted_in.setdefault(section, {})[field.name] = value
    return sorted_in


# What is known of the paper's rule, and what worked best in our own measurements (reports/LOG.md).
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {
        "sampler": {"name": "sequential"},
        "update": {"conditioning": "task", "correction": "none", "repeats": "count"},
    },
    "lab": {
        "sampler": {"name": "sequential"},
        "update": {"conditioning": "task", "correction": "asymmetric", "repeats": "zero"},
    },
}


@dataclass(frozen=True)
class Config:
    """All settings of one run."""

    environment: EnvironmentConfig = EnvironmentConfig()
    policy: PolicyConfig = PolicyConfig()
    sampler: SamplerConfig = SamplerConfig()
    update: UpdateConfig = UpdateConfig()
    run: RunConfig = RunConfig()

    @staticmethod
    def build(preset: str | None = None, /, **sections: Mapping[str, Any]) -> Config:
        """A validated config: defaults, then the preset, then ``sections``, e.g. ``sampler={"name": "sequential"}``.

        Raises:
            InputError: unknown preset, section or field; a value of the wrong type or out of range; fields that do not
                make sense together.
        """
        if preset is not None and preset not in PRESETS:
            raise InputError(f"unknown preset {preset!r}; {suggest(preset, list(PRESETS))}")
        unknown = [name for name in sections if name not in SECTIONS]
        if unknown:
            raise InputError(f"unknown config section {unknown[0]!r}; {suggest(unknown[0], list(SECTIONS))}")
        parts = {}
        for name, kind in SECTIONS.items():
            values = {**PRESETS.get(preset or "", {}).get(name, {}), **dict(sections.get(name, {}))}
            parts[name] = _section(name, kind, values)
        config = Config(**parts)
        _check_together(config)
        return config

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Config:
        """The inverse of ``to_dict``; unknown keys raise ``InputError``."""
        if not isinstance(data, Mapping):
            raise InputError(f"config: expected a mapping of sections, got {type(data).__name__}")
        return Config.build(**data)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """JSON-able."""
        return dataclasses.asdict(self)

    def changed(self, **sections: Mapping[str, Any]) -> Config:
        """This config with some fields replaced, validated again."""
        merged = self.to_dict()
        for name, values in sections.items():
            merged.setdefault(name, {}).update(values)
        return Config.from_dict(merged)


def _section(section: str, kind: type, values: Mapping[str, Any]) -> Any:
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for name in values:
        if name not in fields:
            raise InputError(f"unknown option {section}.{name}; {suggest(name, list(fields))}")
    return kind(**{name: check_value(f"{section}.{name}", fields[name], value) for name, value in values.items()})


def check_value(label: str, field: dataclasses.Field[Any], value: Any) -> Any:
    """``value`` as the field's type, or an ``InputError`` that names the field, the value and what is allowed."""
    meta = field.metadata
    kind = str(field.type)
    if kind.startswith("dict"):
        if not isinstance(value, Mapping):
            raise InputError(f"{label}: expected a mapping, got {value!r}")
        return dict(value)
    if kind == "str":
        if not isinstance(value, str):
            raise InputError(f"{label}: expected text, got {value!r}")
        if meta["choices"] and value not in meta["choices"]:
            raise InputError(f"{label} = {value!r} is unknown; {suggest(value, meta['choices'])}")
        return value
    return _check_number(label, kind, meta, value)


def _check_number(label: str, kind: str, meta: Mapping[str, Any], value: Any) -> int | float:
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not numeric or not math.isfinite(value) or (kind == "int" and int(value) != value):
        expected = "a whole number" if kind == "int" else "a finite number"
        raise InputError(f"{label}: expected {expected}, got {value!r}")
    number: int | float = int(value) if kind == "int" else float(value)
    low, high, above = meta["low"], meta["high"], meta["above"]
    if (
        (low is not None and number < low)
        or (high is not None and number > high)
        or (above is not None and number <= above)
    ):
        bounds = [f"> {above}" if above is not None else "", f">= {low}" if low is not None else ""]
        bounds.append(f"<= {high}" if high is not None else "")
        raise InputError(f"{label} = {number} is out of range: expected {' and '.join(b for b in bounds if b)}")
    return number


def _check_together(config: Config) -> None:
    sampler, update = config.sampler, config.update
    if sampler.name == "parallel":
        if sampler.on_policy_fraction not in (0.0, 1.0) or sampler.redraws:
            raise InputError(
                "sampler.on_policy_fraction and sampler.redraws belong to sampler.name = 'sequential':"
                " a parallel group is on-policy throughout and has no history to repeat"
            )
        if update.correction_scope == "off_policy":
            raise InputError(
                "update.correction_scope = 'off_policy' makes no sense with sampler.name = 'parallel': no candidate is"
                " drawn off-policy; use 'all'"
            )
        if update.conditioning == "history":
            raise InputError(
                "update.conditioning = 'history' makes no sense with sampler.name = 'parallel': its candidates are"
                " drawn given the task alone; use 'task'"
            )
        if update.correction in ("truncated_is", "asymmetric", "ppo_clip"):
            raise InputError(
                f"update.correction = {update.correction!r} makes no sense with sampler.name = 'parallel': candidates"
                " are trained under the context they were drawn under, so p/q = 1; use 'none' or 'positive_only'"
            )
    if update.conditioning == "history" and update.correction in ("truncated_is", "asymmetric", "ppo_clip"):
        raise InputError(
            f"update.correction = {update.correction!r} makes no sense with update.conditioning = 'history':"
            " candidates are trained under the context they were drawn under, so p/q = 1"
        )
    candidates = config.run.groups * sampler.group_size
    if candidates % update.minibatches:
        raise InputError(
            f"update.minibatches = {update.minibatches} does not divide the {candidates} candidates of a step"
            f" (run.groups {config.run.groups} x sampler.group_size {sampler.group_size})"
        )
