"""The settings of a run by concern: one frozen dataclass each, one documented field a setting.

The metadata of a field (text, choices, range) is the only source: values are checked by it and the command line makes its
options from it. ``config.Config`` holds one of each.
"""

from __future__ import annotations

import dataclasses
import math
import os
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
    path: bool = False,
) -> Any:
    """A documented field: ``choices`` or a range ``low <= value <= high`` (``above`` excludes the bound).

    A text that names a folder (``path``) may come as a path object too.
    """
    metadata = {"text": text, "choices": choices, "low": low, "high": high, "above": above, "path": path}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


WAYS = ("parallel", "sequential", "sesa", "iid-sketches")
"""Of drawing a task's samples in an evaluation: i.i.d. given the task alone; one after another, each given those before it; with
sketches drafted in sequence, or i.i.d."""
DTYPES = ("float32", "bfloat16", "float16")
"""Weights' data types."""


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
        path=True,
    )
    adapter: str = option(
        "", "start from the LoRA adapter of this checkpoint folder; empty: a fresh adapter", path=True
    )
    prompts: str = option(
        "",
        "folder of prompt templates that go before the built-in ones, as `sesa-lab prompts FOLDER` makes it; empty: the"
        " built-in ones (`resume` and `evaluate RUN` take those that the run recorded, unless another folder is named)",
        path=True,
    )
    dtype: str = option("float32", "weights' data type", choices=DTYPES)
    device: str = option("auto", "'auto' (cuda if there is one, else cpu), 'cpu', 'cuda', 'cuda:1' ...")
    attention: str = option(
        "sdpa",
        "how attention is computed in training: sdpa, or eager (plain matrix products, for models without sdpa). Engine torch"
        " needs sdpa",
        choices=("sdpa", "eager"),
    )
    gradient_checkpointing: str = option(
        "no",
        "whether layers are computed again in the backward pass instead of kept: less memory, about a third more time",
        choices=("no", "yes"),
    )
    trust_remote_code: str = option(
        "no",
        "whether code that lies in the model's folder or repository is run to load it; 'yes' only for models you trust",
        choices=("no", "yes"),
    )
    memory_check: str = option(
        "yes",
        "whether a policy whose weights, adapter, optimiser and forward passes will not fit into memory is refused before it is"
        " read",
        choices=("yes", "no"),
    )
    thinking: str = option(
        "template",
        "whether a chat model thinks before it answers: as its chat template has it (template), or no: the template's own"
        " switch, enable_thinking, is off",
        choices=("template", "no"),
    )
    lora_rank: int = option(16, "rank of the LoRA matrices", low=1, high=1024)
    lora_alpha: int = option(32, "LoRA scale is alpha / rank", low=1)
    lora_targets: str = option("all-linear", "modules LoRA is put on: 'all-linear' or names parted by commas")


@dataclass(frozen=True)
class EngineConfig:
    """Where candidates are drawn. The trained adapter goes to engines of other weights anew whenever it has changed."""

    name: str = option(
        "torch",
        "torch: on the trained weights themselves, in this process; vllm: by vLLM in this process (its own copy of the weights);"
        " server: by a vLLM server, as `sesa-lab serve` starts one",
        choices=("torch", "vllm", "server"),
    )
    server_url: str = option("http://127.0.0.1:8000", "server: where it answers, without /v1")
    adapter_folder: str = option(
        "",
        "vllm and server: folder the adapter's versions are written to, which the server must see at the same path; empty: a"
        " temporary one",
        path=True,
    )
    max_context: int = option(
        0, "vllm: most tokens of a dialogue; 0: as many as the model has positions, which take memory", low=0
    )
    cache_mb: int = option(
        0, "vllm: MiB for keys and values; 0: 256 on a CPU, on a GPU what memory_share leaves", low=0, high=10_000_000
    )
    memory_share: float = option(
        0.4, "vllm on a GPU: share of its memory that vLLM takes, weights included", above=0.0, high=1.0
    )
    prefix_caching: str = option(
        "yes", "vllm: whether what contexts begin with alike is read in once", choices=("yes", "no")
    )
    tensor_parallel: int = option(1, "vllm: GPUs that the model is spread over", low=1, high=1024)
    patience: float = option(
        120.0, "server: seconds that a request is tried again while the server does not answer", low=0.0, high=86_400.0
    )
    connections: int = option(64, "server: requests under way at once", low=1, high=4096)


@dataclass(frozen=True)
class SamplerConfig:
    """How a group is drawn."""

    name: str = option(
        "parallel",
        "parallel: all candidates i.i.d. given the task; sequential: each given the task and the answers before it; sesa:"
        " two stages, sketches one after another, then each expanded into solutions, in parallel",
        choices=("parallel", "sequential", "sesa"),
    )
    group_size: int = option(16, "candidates a group (G)", low=2, high=4096)
    temperature: float = option(1.0, "softmax temperature; log-probs are of the tempered distribution", above=0.0)
    max_tokens: int = option(16, "most tokens of an answer or turn, the stop token included", low=1, high=1_000_000)
    stop_text: str = option(
        "", "a text that ends an answer or turn as a stop token does, e.g. </answer>, and is kept; empty: none"
    )
    on_policy_fraction: float = option(
        0.0,
        "sequential and sesa: share of the group drawn i.i.d. given the task alone (rounded up)",
        low=0.0,
        high=1.0,
    )
    redraws: int = option(
        0,
        "sequential: an answer, sesa: a sketch of stage I, that repeats its history is drawn again up to this often, and so is"
        " an empty sketch; its log-probs stay those of one draw, so p/q is a little too large for it",
        low=0,
        high=100,
    )
    expansions: int = option(
        1, "sesa: solutions of each sketch (E); a group has K = (G - those drawn without sketch) / E sketches", low=1
    )
    drafting: str = option(
        "sequential",
        "sesa: each sketch given those before it (sequential), or all given the task alone (iid, the ablation)",
        choices=("sequential", "iid"),
    )
    drafting_form: str = option(
        "list",
        "sesa: sketches as one list that goes on (list), or each asked for anew by a prompt that shows the earlier ones"
        " (prompt, the paper's PromptSketch)",
        choices=("list", "prompt"),
    )
    sketch_tokens: int = option(16, "sesa: most tokens of a sketch, the stop token included", low=1, high=100_000)
    repeated_sketch: str = option(
        "keep",
        "sesa: a sketch of stage I that repeats an earlier one or is empty, redraws included, is expanded all the same (keep),"
        " or its solutions are drawn without a sketch (drop)",
        choices=("keep", "drop"),
    )
    sketch_scope: str = option(
        "episode",
        "sesa, several turns: one sketch guides the whole episode (episode), or each later turn first drafts one of its own"
        " (turn)",
        choices=("episode", "turn"),
    )


@dataclass(frozen=True)
class UpdateConfig:
    """How rewards become a gradient."""

    learning_rate: float = option(1e-3, "Adam's step size for the LoRA weights", above=0.0, high=1.0)
    loss: str = option(
        "dapo",
        "how token terms are averaged: grpo (mean over tokens, then over candidates), dr_grpo (sum over tokens, divided"
        " by candidates x max_tokens, the limit of one answer or one turn, also where a candidate has several turns), dapo"
        " (mean over all tokens of the optimiser step)",
        choices=("grpo", "dr_grpo", "dapo"),
    )
    advantage: str = option(
        "std",
        "reward minus the group's mean, divided by the group's standard deviation (std) or not (mean)",
        choices=("std", "mean"),
    )
    repeats: str = option(
        "environment",
        "what a strategy already seen earlier in its group earns: its reward again (count), nothing (zero; a penalty"
        " stays), or as the environment's own rule says (environment)",
        choices=("environment", "count", "zero"),
    )
    conditioning: str = option(
        "task",
        "whose likelihood is trained: of the answer given the task alone (task, the paper), given the earlier answers it was"
        " drawn after (history), given the sketch it was drawn with (sketch), or a weighted sum of two",
        choices=("task", "history", "sketch", "task+history", "task+sketch"),
    )
    context_weight: float = option(
        1.0, "task+history, task+sketch: weight of the second likelihood's loss; the first has 1", above=0.0
    )
    transfer: str = option(
        "always",
        "task+sketch: whether a candidate drawn with a sketch trains the answer given the task alone in every group (always),"
        " or only where no candidate drawn without one succeeded (unsolved)",
        choices=("always", "unsolved"),
    )
    train_sketches: str = option(
        "none",
        "sesa: reward of a sketch, trained under the sketches before it: none (the paper), the best or the mean reward of its"
        " solutions, or the best that repeats no earlier strategy (novelty)",
        choices=("none", "best", "mean", "novelty"),
    )
    sketch_weight: float = option(1.0, "train_sketches: weight of the sketches' loss; the solutions' has 1", above=0.0)
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
    mismatch: str = option(
        "none",
        "engines vllm and server: what is done about their log-probs differing from the trainer's own of the same weights: none,"
        " or truncated_is: each token's term is weighted by min(mismatch_truncation, trainer's q / engine's q)",
        choices=("none", "truncated_is"),
    )
    mismatch_truncation: float = option(2.0, "upper bound of those weights", above=0.0)
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
    evaluate_every: int = option(10, "steps between evaluations", low=1)
    checkpoint_every: int = option(50, "steps between checkpoints, the units a killed run resumes from", low=1)
    coverage_k: int = option(
        64, "k of coverage@k in exact evaluations, samples; where answers are sampled, k is eval_samples", low=1
    )
    threads: int = option(1, "CPU threads; part of what fixes a run bit for bit", low=1, high=1024)
    trackers: str = option(
        "tensorboard",
        "where metrics are also logged, by accelerate: names parted by commas (tensorboard, wandb, mlflow, trackio ...), or none",
    )


@dataclass(frozen=True)
class EvaluationConfig:
    """How a policy is judged where its answers cannot be enumerated: by samples on tasks it is not trained on.

    Always without sketches, unless said. Environments of enumerable answers are judged exactly, on their own tasks and at the
    sampler's temperature.
    """

    eval_tasks: int = option(64, "held-out tasks of each evaluation (split validation)", low=1, high=100_000)
    eval_samples: int = option(64, "samples a task", low=1, high=100_000)
    eval_temperature: float = option(0.0, "softmax temperature of these samples; 0: the sampler's", low=0.0)
    test_tasks: int = option(0, "tasks of the last step's evaluation on split test, which nothing else reads", low=0)
    test_guided: str = option(
        "no",
        "whether the test is also drawn with sketches: alike whatever the run's sampler is, up to 8 a task, in sequence as"
        " one list, none drawn again",
        choices=("no", "yes"),
    )


@dataclass(frozen=True)
class WatchConfig:
    """Whether collapse is watched for while training (`sesa_lab.collapse`), and what is done about it."""

    on_alarm: str = option(
        "none",
        "when collapse is noticed: nothing is, since nobody watches (none); it is logged (report), and a checkpoint kept"
        " (snapshot), and training goes on with the settings of `switch` (switch, once a run)",
        choices=("none", "report", "snapshot", "switch"),
    )
    switch: dict[str, Any] = option(
        {}, "settings of sampler and update that training goes on with after the alarm, NAME=VALUE: sampler=sequential"
    )
    alarm_slack: float = option(
        0.1, "share of the variety of correct answers that may be lost without counting", low=0.0, high=0.99
    )
    alarm_patience: float = option(
        1.0, "steps of total loss, beyond the slack, before a signal counts as down", above=0.0
    )
    alarm_votes: int = option(2, "how many of the four signals must be down, that variety among them", low=1, high=4)


@dataclass(frozen=True)
class PretrainConfig:
    """How a lab policy is made (`sesa-lab pretrain`); not part of a run."""

    steps: int = option(500, "optimiser steps", low=1)
    batch: int = option(
        32, "path_exploration: documents a step; others: tasks a step, each with several demonstrations", low=1
    )
    answers: int = option(24, "path_exploration only: distinct answers a document", low=1)
    learning_rate: float = option(3e-3, "peak step size of AdamW, one-cycle schedule", above=0.0)
    seed: int = option(0, "fixes data and weights", low=0, high=2**32 - 1)
    hidden: int = option(128, "width of the model, a multiple of 32", low=32)
    layers: int = option(2, "depth of the model", low=1)
    vocabulary: int = option(
        4096, "most entries of the tokenizer's vocabulary; merges stop when every name is one token"
    )
    start: str = option("", "go on training this lab policy (a folder) of the same shape; empty: from scratch")
    tasks: int = option(3000, "not path_exploration: training tasks solved for the demonstrations", low=1)
    demonstrations: int = option(8, "not path_exploration: demonstrations of a task drawn in a step", low=1)
    sketches: int = option(8, "not path_exploration: most sketches of a list", low=1)
    answers_share: float = option(0.4, "share of demonstrations task -> solution", low=0.0, high=1.0)
    lists_share: float = option(0.25, "share of demonstrations task -> list of distinct sketches", low=0.0, high=1.0)
    guided_share: float = option(0.3, "share of demonstrations task and sketch -> solution", low=0.0, high=1.0)
    prompted_share: float = option(
        0.05,
        "share of demonstrations task and earlier sketches -> one more; the four shares sum to 1",
        low=0.0,
        high=1.0,
    )
    habit: float = option(
        0.0,
        "probability that a demonstration task -> solution shows a habitual one only (tasks without one are then left"
        " out): 0 makes an ordinary base, 1 a habit base",
        low=0.0,
        high=1.0,
    )
    sketch_exponent: float = option(
        0.0,
        "a: in lists, a sketch has weight rank^-a, its rank among the task's in an order fixed by the seed; 0: uniform",
        low=0.0,
        high=10.0,
    )


def check_value(label: str, field: dataclasses.Field[Any], value: Any) -> Any:
    """``value`` as the field's type, or an ``InputError`` that names the field, the value and what is allowed."""
    meta = field.metadata
    kind = str(field.type)
    if kind.startswith("dict"):
        if not isinstance(value, Mapping):
            raise InputError(f"{label}: expected a mapping, got {value!r}")
        return dict(value)
    if kind == "str":
        value = os.fspath(value) if meta["path"] and isinstance(value, os.PathLike) else value
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
