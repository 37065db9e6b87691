"""One GRPO step, ours and TRL's, on the same policy and prompts, each side in a process of its own.

What is equal: weights, tokenizer and prompt tokens; prompts, group and token limit; temperature 1 with nothing cut off;
LoRA rank, alpha and targets; float32; threads; the reward function; one optimiser step a rollout over all candidates, in
micro-batches of as many rows; loss (dapo, no KL, clip 0.2), Adam's step size, gradient norm clipped to 1; no gradient
checkpointing, nothing logged to a console or written to disk. What is not: each side draws its own candidates (the token
counts are reported) and keeps its own measures (ours the whole rollout table with log-probs, TRL its metrics).

TRL's trainer is used as it comes, with its own ``generate`` path; a callback only says when a step has ended.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from sesa_lab.config import Config
from sesa_lab.errors import InputError
from sesa_lab.types import Score, Task

STOP, PAD = "<|end|>", "<|pad|>"
CHAT = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ 'Q: ' + m['content'] + '\n' }}"
    "{% else %}{{ 'A: ' + m['content'] + '"
    + STOP
    + "' }}{% endif %}{% endfor %}{% if add_generation_prompt %}A: {% endif %}"
)
LEARNING_RATE = 1e-5  # small: the policy stays random, so that every step is the same work
LORA_RANK, LORA_ALPHA = 16, 32


@dataclass(frozen=True)
class Shape:
    """What a step is made of.

    Attributes:
        prompts: distinct prompts, one group each.
        group: candidates a prompt.
        tokens: most tokens a completion.
        layers: of the model.
        hidden: its width, a multiple of 32 (the head size).
        prompt: characters (= tokens) that each prompt is filled up to, at least; they differ in length by up to 18.
        micro_batch: rows a forward and backward pass; 0: all at once.
        threads: CPU threads of either side.
    """

    prompts: int = 8
    group: int = 16
    tokens: int = 64
    prompt: int = 32
    layers: int = 4
    hidden: int = 192
    micro_batch: int = 16
    threads: int = 1


@dataclass(frozen=True)
class Step:
    """One training step as a side reports it; token counts are of the whole step.

    Attributes:
        seconds: wall-clock.
        cpu: processor seconds of the process, all its threads; on a busy machine the steadier of the two.
        candidates: completions scored.
        tokens: their tokens, stop tokens included.
        shortest: tokens of the shortest completion.
        prompt_tokens: tokens of the prompts, counted once a candidate.
        distinct: distinct completions.
        phases: seconds by phase (ours alone).
    """

    seconds: float
    cpu: float
    candidates: int
    tokens: int
    shortest: int
    prompt_tokens: int
    distinct: int
    phases: dict[str, float]


@dataclass(frozen=True)
class Memory:
    """Resident memory of a process, MiB: now, and the most it ever had."""

    now: float
    peak: float


def make_policy(folder: Path, shape: Shape) -> int:
    """Save a random byte-level Qwen2 in the Hugging Face format; returns its number of parameters.

    Its stop token is all but impossible (one hidden channel is nearly the same everywhere, and only the stop token's logit
    looks at it), so that every completion runs to the limit and both sides draw equally many tokens.
    """
    raw = Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[])
    )
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=STOP, pad_token=PAD, chat_template=CHAT)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=2 * shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.hidden // 32,
        num_key_value_heads=shape.hidden // 32,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 0.2
        model.lm_head.weight[:, 0] = 0.0
        for token in (tokenizer.eos_token_id, tokenizer.pad_token_id):
            model.lm_head.weight[token, 0] = -4.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def questions(shape: Shape) -> list[str]:
    """The prompts, of unequal length, as text."""
    texts = []
    for i in range(shape.prompts):
        text = f"Task {i}: name one place{' far away' * (i % 3)}"
        while len(text) < shape.prompt + 9 * (i % 3) - 6:  # 6: the chat template's "Q: " and "A: "
            text += " that nobody has named before"[: shape.prompt + 9 * (i % 3) - 6 - len(text)]
        texts.append(text)
    return texts


def reward(text: str) -> float:
    """The share of capital letters: cheap, and hardly ever equal throughout a group."""
    return sum(c.isascii() and c.isupper() for c in text) / max(1, len(text))


class Questions:
    """The part of an environment that a training step asks for."""

    name = "bench"
    options: dict[str, Any] = {}  # noqa: RUF012
    repeats = "count"
    turns = 1

    def __init__(self, shape: Shape) -> None:
        self.texts = questions(shape)

    def task(self, index: int) -> Task:
        return Task(index, self.texts[index % len(self.texts)], {})

    def score(self, task: Task, text: str) -> Score:
        return Score(reward(text), False, text)


def our_config(folder: Path, shape: Shape) -> Config:
    """Our settings of the compared step."""
    return Config.build(
        policy={"model": str(folder), "device": "cpu", "lora_rank": LORA_RANK, "lora_alpha": LORA_ALPHA},
        sampler={"group_size": shape.group, "max_tokens": shape.tokens},
        update={"learning_rate": LEARNING_RATE, "loss": "dapo", "micro_batch": shape.micro_batch},
        run={"groups": shape.prompts, "threads": shape.threads},
    )


def _ours(link: Connection, folder: Path, shape: Shape) -> None:
    from sesa_lab.training.loop import Trainer

    quiet()
    trainer = Trainer(our_config(folder, shape))
    trainer.environment = Questions(shape)  # type: ignore[assignment]
    tokenizer = trainer.policy.tokenizer
    chats = [[{"role": "user", "content": text}] for text in questions(shape)]
    lengths = [len(tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]) for chat in chats]
    link.send(memory())
    number = 0
    while link.recv() == "step":
        number += 1
        begin = clock()
        metrics, tables = trainer.step(number)
        spent = since(begin)
        rows = tables["rollouts"]
        drawn = [len(row["token_ids"]) for row in rows]
        distinct = len({tuple(row["token_ids"]) for row in rows})
        phases = {name: metrics[f"seconds_{name}"] for name in ("draw", "score", "update")}
        link.send(Step(*spent, len(rows), sum(drawn), min(drawn), shape.group * sum(lengths), distinct, phases))
        link.send(memory())


def _trl(link: Connection, folder: Path, shape: Shape) -> None:
    from datasets import Dataset  # type: ignore[import-untyped]
    from datasets.utils.logging import disable_progress_bar  # type: ignore[import-untyped]
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
    from trl import GRPOTrainer  # type: ignore[attr-defined]

    quiet()
    disable_progress_bar()
    torch.set_num_threads(shape.threads)
    seen: list[tuple[int, ...]] = []

    def judge(completions: list[Any], completion_ids: list[list[int]], **_: Any) -> list[float | None]:
        seen.extend(map(tuple, completion_ids))
        return [reward(completion[0]["content"]) for completion in completions]

    class Ends(TrainerCallback):
        """Reports each step at its end, then waits until the next one is asked for."""

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            spent = since(begun[-1])
            drawn = [len(ids) for ids in seen]
            read = state.num_input_tokens_seen - counted[-1] - sum(drawn)
            counted.append(state.num_input_tokens_seen)
            link.send(Step(*spent, len(seen), sum(drawn), min(drawn), int(read), len(set(seen)), {}))
            link.send(memory())
            seen.clear()
            control.should_training_stop = link.recv() != "step"
            begun.append(clock())

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=judge,
            args=_trl_settings(scratch, shape),
            train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": q}]} for q in questions(shape)]),
            processing_class=AutoTokenizer.from_pretrained(folder),
            peft_config=LoraConfig(
                r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
            callbacks=[Ends()],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        link.send(memory())
        if link.recv() == "step":
            begun, counted = [clock()], [0]
            trainer.train()


def _trl_settings(folder: str, shape: Shape) -> Any:
    from trl import GRPOConfig  # type: ignore[attr-defined]

    candidates = shape.prompts * shape.group
    part = shape.micro_batch or candidates
    if candidates % part:
        raise InputError(f"micro_batch = {part} does not divide the {candidates} candidates of a step: TRL needs that")
    return GRPOConfig(
        output_dir=folder,
        max_steps=1_000_000,
        per_device_train_batch_size=part,
        gradient_accumulation_steps=candidates // part,  # one rollout of all candidates, one optimiser step over them
        num_generations=shape.group,
        max_completion_length=shape.tokens,
        temperature=1.0,
        num_iterations=1,
        loss_type="dapo",
        scale_rewards="group",
        beta=0.0,
        epsilon=0.2,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        gradient_checkpointing=False,  # TRL's default is True, which saves memory and costs time
        use_cpu=True,
        bf16=False,  # TRL's default is True
        report_to="none",
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
    )


def quiet() -> None:
    """No progress bars while models are loaded and saved."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def clock() -> tuple[float, float]:
    """Wall-clock and processor seconds of this process."""
    return time.perf_counter(), time.process_time()


def since(begin: tuple[float, float]) -> tuple[float, float]:
    """What has passed of both since ``begin``."""
    wall, cpu = clock()
    return wall - begin[0], cpu - begin[1]


def memory() -> Memory:
    """Of this process. Linux: VmHWM, because getrusage's peak counts what the parent had when it started this process."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        sizes = {line.split(":")[0]: line.split() for line in lines if line.startswith(("VmHWM", "VmRSS"))}
        return Memory(int(sizes["VmRSS"][1]) / 1024, int(sizes["VmHWM"][1]) / 1024)
    except (OSError, KeyError):
        unit = 2**20 if sys.platform == "darwin" else 2**10
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        return Memory(peak, peak)


SIDES = {"ours": _ours, "trl": _trl}


class Side:
    """One side in its own fresh process, which works only while a step is asked for.

    Attributes:
        loaded: memory before the first step.
        memory: memory after the last step.
    """

    def __init__(self, name: str, folder: Path, shape: Shape) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.name = name
        self.link, other = spawn.Pipe()
        self.process = spawn.Process(target=SIDES[name], args=(other, folder, shape), daemon=True)
        self.process.start()
        other.close()
        self.loaded: Memory = self._receive()
        self.memory = self.loaded

    def step(self) -> Step:
        """Train one step while the other side waits."""
        self.link.send("step")
        step: Step = self._receive()
        self.memory = self._receive()
        return step

    def close(self) -> None:
        """End the process."""
        try:
            self.link.send("stop")
            self.process.join(20)
        except OSError:
            pass
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.link.close()

    def _receive(self) -> Any:
        try:
            return self.link.recv()
        except EOFError:
            self.process.join()
            raise InputError(
                f"the process of side {self.name!r} ended (exit code {self.process.exitcode}); what it said is above"
            ) from None
