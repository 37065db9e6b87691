"""Loss, gradient and clip fraction against TRL's GRPOTrainer on the same model and batch.

Theirs is the trainer as it comes, built on a model and a data set made here, and its own ``compute_loss``. Where the two
define a thing differently by intent, the test says so: TRL's entropy bonus is a mean over all tokens whatever the loss,
which is ours under dapo alone; TRL has no counterpart to the corrections, and by default weighs the KL penalty by the
ratio.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tiny_policy import STOP, VOCABULARY, candidate, gradients, scored_alone, tiny_policy
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from sesa_lab.config import Config
from sesa_lab.policies import Policy
from sesa_lab.training.batch import items_of, make_batch, token_scale
from sesa_lab.training.credit import advantages
from sesa_lab.training.update import Report, accumulate
from sesa_lab.types import Candidate

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # where vLLM is installed TRL imports it too, and both have something to say
    from trl import GRPOConfig, GRPOTrainer

MAX_TOKENS, PAD = 8, 0
LENGTHS = (3, 1, 8, 5, 2, 8, 4, 1)
ADVANTAGES = [1.4, -0.9, 0.3, -0.8, 1.1, -1.6, 0.0, 0.5]


@dataclass
class Sample:
    """Eight completions of two prompts of unequal length; ``old`` and ``base`` are log-probs by completion."""

    candidates: list[Candidate]
    old: list[torch.Tensor]
    base: list[torch.Tensor]


def sample(policy: Policy, temperature: float, spread: float) -> Sample:
    """``spread``: how far (nats) the old log-probs lie from the present ones."""
    generator = torch.Generator().manual_seed(3)
    prompts = [torch.randint(2, VOCABULARY, (n,), generator=generator).tolist() for n in (4, 7)]
    found = Sample([], [], [])
    for i, length in enumerate(LENGTHS):
        x, ids = prompts[i // 4], [*torch.randint(2, VOCABULARY, (length - 1,), generator=generator).tolist(), STOP]
        now = scored_alone(policy, x, ids, temperature)
        found.old.append((now + spread * torch.randn(length, generator=generator)).float())
        with policy.model.disable_adapter():
            found.base.append(scored_alone(policy, x, ids, temperature).float())
        found.candidates.append(candidate(x, [], ids, found.old[-1].tolist()))
    return found


def tokenizer() -> PreTrainedTokenizerFast:
    words = {"<pad>": PAD, "<end>": STOP} | {f"w{i}": i for i in range(2, VOCABULARY)}
    raw = Tokenizer(models.WordLevel(words, unk_token="w2"))
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<end>")


def trl_trainer(folder: Path, policy: Policy, accumulation: int = 1, **settings: Any) -> GRPOTrainer:
    arguments = GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=8 // accumulation,
        gradient_accumulation_steps=accumulation,
        steps_per_generation=accumulation,
        num_generations=4,
        max_completion_length=MAX_TOKENS,
        report_to="none",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        use_bias_correction_kl=False,  # TRL's default multiplies k3 by the ratio; ours is GRPO's own penalty, without it
        **settings,
    )
    data = Dataset.from_list([{"prompt": "w2"}] * 4)
    trainer = GRPOTrainer(
        model=policy.model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=arguments,
        train_dataset=data,
        processing_class=tokenizer(),
    )
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = accumulation
    return trainer


def trl_inputs(s: Sample, members: range, given: bool) -> dict[str, torch.Tensor]:
    """TRL's layout: prompts padded on the left, completions on the right."""

    def padded(rows: list[Any], left: bool, fill: float, kind: torch.dtype) -> torch.Tensor:
        width = max(map(len, rows))
        filled = [[fill] * (width - len(r)) * left + list(r) + [fill] * (width - len(r)) * (not left) for r in rows]
        return torch.tensor(filled, dtype=kind)

    prompts = [s.candidates[i].turns[0].trained_under["task"].ids for i in members]
    completions = [s.candidates[i].turns[0].completion.ids for i in members]
    inputs = {
        "prompt_ids": padded(prompts, True, PAD, torch.long),
        "prompt_mask": padded([[1] * len(p) for p in prompts], True, 0, torch.long),
        "completion_ids": padded(completions, False, PAD, torch.long),
        "completion_mask": padded([[1] * len(c) for c in completions], False, 0, torch.long),
        "advantages": torch.tensor([ADVANTAGES[i] for i in members]),
        "ref_per_token_logps": padded([s.base[i].tolist() for i in members], False, 0.0, torch.float32),
        "num_items_in_batch": torch.tensor(float(sum(LENGTHS))),  # of the whole generation batch
    }
    if given:
        inputs["old_per_token_logps"] = padded([s.old[i].tolist() for i in members], False, 0.0, torch.float32)
    return inputs


def ours(policy: Policy, s: Sample, given: bool, temperature: float, **update: Any) -> tuple[Report, torch.Tensor]:
    settings = Config.build(sampler={"max_tokens": MAX_TOKENS, "temperature": temperature}, update=update)
    items = items_of(settings.update, s.candidates, ADVANTAGES)
    batch = make_batch(items, token_scale(settings, items), policy.device)
    report = Report([[] for _ in LENGTHS], [1.0] * 8, [1.0] * 8)
    accumulate(policy, settings, batch, torch.cat(s.old) if given else None, report, items)
    return report, gradients(policy)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "dapo"])
@pytest.mark.parametrize(
    ("kl", "given", "temperature", "accumulation"),
    [(0.0, False, 1.0, 1), (0.0, True, 1.0, 1), (0.2, False, 1.0, 1), (0.2, True, 0.7, 1), (0.2, True, 0.7, 2)],
    ids=["plain", "clipped", "penalty", "all", "all-accumulated"],
)
def test_as_trl(loss: str, kl: float, given: bool, temperature: float, accumulation: int, tmp_path: Path) -> None:
    """``given``: the old log-probs lie some 0.4 nats off, so that ratios leave the clip range on both sides."""
    one, other = tiny_policy(), tiny_policy()
    s = sample(one, temperature, 0.4)
    bonus = 0.03 if loss == "dapo" and accumulation == 1 else 0.0
    trainer = trl_trainer(
        tmp_path, other, accumulation, loss_type=loss, beta=kl, epsilon=0.2, epsilon_high=0.28, entropy_coef=bonus,
        temperature=temperature,
    )  # fmt: skip
    total = 0.0
    for part in range(accumulation):
        members = range(8 * part // accumulation, 8 * (part + 1) // accumulation)
        value = trainer.compute_loss(trainer.model, trl_inputs(s, members, given))
        value.backward()
        total += float(value.detach())
    theirs = torch.cat([p.grad.flatten() for n, p in other.model.named_parameters() if p.requires_grad])
    report, found = ours(
        one, s, given, temperature, loss=loss, kl_coef=kl, clip_low=0.2, clip_high=0.28, entropy_coef=bonus, epochs=2
    )  # fmt: skip
    assert float(theirs.norm()) > 0.01
    assert report.loss == pytest.approx(total, abs=1e-5)
    torch.testing.assert_close(found, theirs, rtol=1e-5, atol=1e-5)
    measured = trainer._metrics["train"]
    if accumulation == 1:
        clip = report.sums["clipped"] / report.sums["tokens"]
        assert clip == pytest.approx(measured["clip_ratio/region_mean"][0], abs=1e-6)
        assert (clip > 0.1) == given
        assert report.sums["entropy"] / report.sums["tokens"] == pytest.approx(measured["entropy"][0], abs=1e-5)
        if kl:
            assert report.sums["kl_base"] / report.sums["tokens"] == pytest.approx(measured["kl"][0], abs=1e-5)


@pytest.mark.slow
def test_trl_clips_this_batch_on_both_sides(tmp_path: Path) -> None:
    # Without this the agreement above could hold with one side of the clip never reached.
    policy = tiny_policy()
    s = sample(policy, 1.0, 0.4)
    trainer = trl_trainer(tmp_path, policy, loss_type="dapo", beta=0.0, epsilon=0.2, epsilon_high=0.28)
    trainer.compute_loss(trainer.model, trl_inputs(s, range(8), True))
    assert trainer._metrics["train"]["clip_ratio/low_mean"][0] > 0.05
    assert trainer._metrics["train"]["clip_ratio/high_mean"][0] > 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("ours", "theirs"), [("std", "group"), ("mean", "none")])
def test_advantages_as_trl(ours: str, theirs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rewards of two groups through the trainer's own scoring; it adds 1e-4 to the standard deviation, we 1e-6."""
    rewards = [1.0, 0.0, 0.25, 1.0, 0.5, 0.5, 0.5, 0.5]
    trainer = trl_trainer(tmp_path, tiny_policy(), loss_type="dapo", beta=0.0, scale_rewards=theirs)
    monkeypatch.setattr(trainer, "_calculate_rewards", lambda *_: torch.tensor(rewards)[:, None])
    found = trainer._generate_and_score_completions([{"prompt": "w2"}] * 8)["advantages"]
    expected = [*advantages(rewards[:4], ours), *advantages(rewards[4:], ours)]
    assert found.tolist() == pytest.approx(expected, abs=1e-3)
    assert expected[4:] == [0.0] * 4
