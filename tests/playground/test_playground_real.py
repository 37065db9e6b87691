"""Agreement with the trainer: its logged loss, its stored weights and its gradient, on runs of one step."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from toy_environments import ToyOptions, Walks

from sesa_lab import playground
from sesa_lab.config import Config
from sesa_lab.environments import registry
from sesa_lab.policies import token_logprobs
from sesa_lab.training.batch import items_of, make_batch, token_scale
from sesa_lab.training.loop import Trainer, train
from sesa_lab.training.update import Report, accumulate

pytestmark = pytest.mark.slow
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "parallel, count": {"sampler": {"name": "parallel"}, "update": {"repeats": "count"}},
    "asymmetric": {
        "sampler": {"name": "sequential", "on_policy_fraction": 0.25},
        "update": {"correction": "asymmetric", "repeats": "zero"},
    },
    "truncated, dr_grpo, KL": {
        "sampler": {"name": "sequential"},
        "update": {"correction": "truncated_is", "truncation": 1.5, "loss": "dr_grpo", "kl_coef": 0.1, "advantage": "mean"},
    },
    "ppo_clip, grpo": {"sampler": {"name": "sequential"}, "update": {"correction": "ppo_clip", "loss": "grpo"}},
    "positive_only": {
        "sampler": {"name": "sequential"},
        "update": {"correction": "positive_only", "correction_scope": "off_policy"},
    },
    "sketches, both likelihoods": {
        "sampler": {"name": "sesa", "on_policy_fraction": 0.25, "expansions": 2},
        "update": {"conditioning": "task+sketch", "context_weight": 0.5, "transfer": "unsolved", "repeats": "zero"},
    },
}  # fmt: skip


def settings(name: str) -> Config:
    chosen = SETTINGS[name]
    return Config.build(
        sampler={"group_size": 16, **chosen["sampler"]},
        update=chosen["update"],
        run={"steps": 1, "groups": 2, "trackers": "none"},
    )


@pytest.mark.parametrize("name", SETTINGS)
def test_the_loss_is_the_one_that_was_logged(name: str, tmp_path: Path) -> None:
    step = playground.read(train(settings(name), tmp_path / "run"))
    found = playground.compute(step, playground.rule(step))
    assert found.tokens["weight"].abs().sum() > 0.01  # some group has rewards that differ
    assert found.loss == pytest.approx(step.loss, abs=1e-6)
    stored = step.run.rollouts
    first = found.items[~found.items["second"]]
    np.testing.assert_allclose(first["importance"], stored["weight"], rtol=1e-5)
    assert step.advantages(step.config.update) == list(stored["advantage"])
    kinds = found.items.groupby(["group", "index"])["kind"].agg("+".join)
    assert list(kinds) == list(stored["trained_under"])


def test_several_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns of an answer lie in other rows than each other; its importance weight is over all of them."""
    monkeypatch.setitem(registry.REGISTRY, "walks", (ToyOptions, Walks))
    model = tiny_models.save_model(
        tmp_path / "model", max_position_embeddings=2048, hidden_size=32, num_hidden_layers=1
    )
    config = Config.build(
        environment={"name": "walks"},
        policy={"model": str(model), "device": "cpu"},
        sampler={"name": "sesa", "group_size": 16, "max_tokens": 6, "sketch_tokens": 5},
        update={"correction": "truncated_is", "truncation": 2.0, "loss": "grpo"},
        evaluation={"eval_tasks": 1, "eval_samples": 2},
        run={"groups": 2, "steps": 1, "trackers": "none"},
    )
    step = playground.read(train(config, tmp_path / "run"))
    found = playground.compute(step, playground.rule(step))
    assert max(len(member.turns) for member in step.members) == 3
    assert found.tokens["weight"].abs().sum() > 0.01
    assert found.loss == pytest.approx(step.loss, abs=1e-6)
    np.testing.assert_allclose(found.items["importance"], step.run.rollouts["weight"], rtol=1e-5)


@pytest.mark.parametrize("name", ["asymmetric", "sketches, both likelihoods"])
def test_weights_times_slopes_are_the_trainers_gradient(name: str, tmp_path: Path) -> None:
    """sum over tokens of -weight x dlog p/dtheta = dL/dtheta, on the very groups that the run drew."""
    config = settings(name)
    step = playground.read(train(config, tmp_path / "run"))
    weights = playground.compute(step, playground.rule(step)).tokens["weight"].to_numpy()
    with closing(Trainer(config)) as trainer:
        scored = [trainer.judge(group) for group in trainer.draw(1)]
        candidates = [c for s in scored for c in s.group.candidates]
        assert [list(c.turns[0].completion.ids) for c in candidates] == [list(m.tokens) for m in step.members]
        advantages, transfers = [a for s in scored for a in s.advantages], [t for s in scored for t in s.transfers]
        items = items_of(config.update, candidates, advantages, transfers)
        parameters = [p for group in trainer.optimiser.param_groups for p in group["params"]]
        batch = make_batch(items, token_scale(config, items), trainer.policy.device)
        report = Report([[] for _ in candidates], [1.0] * len(candidates), [1.0] * len(candidates))
        accumulate(trainer.policy, config, batch, None, report, items)
        wanted = [p.grad.clone() for p in parameters if p.grad is not None]
        for p in parameters:
            p.grad = None
        now, _ = token_logprobs(trainer.policy, batch.rows, config.sampler.temperature)
        (-torch.tensor(weights, dtype=torch.float32) * now).sum().backward()
        found = [p.grad for p in parameters if p.grad is not None]
    assert len(found) == len(wanted) and sum(float(g.abs().sum()) for g in wanted) > 1e-3
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)
