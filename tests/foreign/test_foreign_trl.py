"""TRL's own trainer writes its completions, and they are read as they are."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sesa_lab.foreign import load, measure


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # TRL's and its libraries' own
def test_what_trl_writes_is_read_without_a_word(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from datasets import Dataset
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from trl import GRPOConfig, GRPOTrainer

        from sesa_lab.experiments.bench_trl import Shape, make_policy

    make_policy(tmp_path / "policy", Shape(layers=1, hidden=32))
    said: list[str] = []
    right: list[float] = []

    def format_reward(completions: list[Any], log_extra: Callable[..., None], **_: Any) -> list[float | None]:
        log_extra("letters", [len(completion[0]["content"]) for completion in completions])
        return [None] * len(completions)

    def accuracy(completions: list[Any], **_: Any) -> list[float]:
        texts = [completion[0]["content"] for completion in completions]
        said.extend(texts)
        right.extend(float(len(text.encode()) % 2) for text in texts)
        return right[-len(texts) :]

    questions = [[{"role": "user", "content": question}] for question in ("one", "two", "three", "four")]
    GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(tmp_path / "policy", dtype=torch.float32),
        reward_funcs=[format_reward, accuracy],
        args=GRPOConfig(
            output_dir=str(tmp_path / "out"), max_steps=2, per_device_train_batch_size=8, num_generations=4,
            max_completion_length=6, use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none",
            logging_steps=1, log_completions=True, save_strategy="no", disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list([{"prompt": question} for question in questions]),
        processing_class=AutoTokenizer.from_pretrained(tmp_path / "policy"),
    ).train()  # fmt: skip

    samples = load([str(tmp_path / "out")])
    assert samples.kind == "TRL's completions" and samples.files == 2
    assert samples.columns.correct == "accuracy" and samples.reward == "advantage"
    assert list(samples.frame["text"]) == said and samples.frame["correct"].tolist() == right
    found = measure(samples.frame, [1, 4])
    # Two prompts a step, four completions each; TRL's own share of groups without variance is that of equal rewards.
    assert found.groups[["step", "samples"]].values.tolist() == [[1, 4], [1, 4], [2, 4], [2, 4]]
    rewards = pd.Series(right).groupby([i // 4 for i in range(16)])
    assert found.groups["zero_variance"].tolist() == (rewards.nunique() == 1).astype(float).tolist()
    assert found.groups["success"].tolist() == pytest.approx(rewards.mean().tolist())
