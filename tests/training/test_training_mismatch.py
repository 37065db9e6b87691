"""Engines whose log-probs are not the trainer's: what is measured of the difference, and what is done about it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from tiny_policy import gradients, group, rollout, scored_alone, tiny_policy

from sesa_lab.config import Config
from sesa_lab.errors import InputError
from sesa_lab.policies import Policy
from sesa_lab.training import losses
from sesa_lab.training.batch import items_of, make_batch, token_scale
from sesa_lab.training.mismatch import mismatch_measures, recomputed
from sesa_lab.training.update import Report, accumulate
from sesa_lab.types import Candidate, Completion, Context, Sketch, Turn

SERVER = {"name": "server"}


def config(**changes: Any) -> Config:
    sampler = {"name": "sequential", "max_tokens": 8, "group_size": 7, "temperature": changes.pop("temperature", 1.0)}
    return Config.build(sampler=sampler, run={"groups": 2}, engine=SERVER, update=changes)


def said_otherwise(candidate: Candidate, by: float) -> Candidate:
    """As an engine reports it whose log-prob of every token is lower than the trainer's by ``by`` nats."""
    turns = []
    for turn in candidate.turns:
        own = turn.completion.logprobs
        completion = dataclasses.replace(turn.completion, engine_logprobs=tuple(value - by for value in own))
        turns.append(dataclasses.replace(turn, completion=completion))
    return dataclasses.replace(candidate, turns=tuple(turns))


def gradient(policy: Policy, settings: Config, candidates: list[Candidate], advantages: list[float]) -> torch.Tensor:
    items = items_of(settings.update, candidates, advantages)
    report = Report([[] for _ in candidates], [1.0] * len(candidates), [1.0] * len(candidates))
    accumulate(policy, settings, make_batch(items, token_scale(settings, items), policy.device), None, report, items)
    return gradients(policy)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_trainers_own_log_probs_take_the_place_of_the_engines(temperature: float) -> None:
    policy = tiny_policy()
    candidates, advantages = group(policy)
    lied = []
    for candidate in candidates:
        (turn,) = candidate.turns
        wrong = dataclasses.replace(turn.completion, logprobs=tuple(-5.0 for _ in turn.completion.ids))
        lied.append(dataclasses.replace(candidate, turns=(dataclasses.replace(turn, completion=wrong),)))
    draft = Turn(
        Context("draft", (7, 8)), {"draft": Context("draft", (7, 8))}, Completion((9, 10), (-1.0, -2.0), "", "stop")
    )
    (scored,) = rollout(lied, advantages)
    scored = dataclasses.replace(scored, group=dataclasses.replace(scored.group, sketches=(Sketch(draft),)))
    (found,) = recomputed(policy, config(temperature=temperature), [scored])
    for before, after in zip(lied, found.group.candidates, strict=True):
        (old,), (new,) = before.turns, after.turns
        expected = scored_alone(policy, new.drawn_under.ids, new.completion.ids, temperature)
        assert new.completion.logprobs == pytest.approx(expected, abs=1e-5)
        assert new.completion.engine_logprobs == old.completion.logprobs
        assert (new.completion.ids, new.drawn_under, new.trained_under) == (
            old.completion.ids,
            old.drawn_under,
            old.trained_under,
        )
    own = found.group.sketches[0].turn.completion
    assert own.logprobs == pytest.approx(scored_alone(policy, (7, 8), (9, 10), temperature), abs=1e-5)
    assert own.engine_logprobs == (-1.0, -2.0)
    assert found.advantages == scored.advantages


def test_measures_are_worked_out_by_hand() -> None:
    def one(own: tuple[float, ...], engine: tuple[float, ...]) -> Candidate:
        x = Context("task", (3,))
        return Candidate((Turn(x, {"task": x}, Completion(tuple(range(len(own))), own, "", "stop", engine)),))

    # Differences: .1, -.2 | 0 | .4: mean |.| = .7 / 4, max .4. Weights of candidates: e^-.1, 1, e^.4.
    candidates = [one((-1.0, -2.0), (-1.1, -1.8)), one((-1.0,), (-1.0,)), one((-0.5,), (-0.9,))]
    found = mismatch_measures(rollout(candidates, [0.0] * 3))
    weights = [math.exp(-0.1), 1.0, math.exp(0.4)]
    assert found["mismatch_mean"] == pytest.approx(0.175)
    assert found["mismatch_max"] == pytest.approx(0.4)
    assert found["mismatch_ess"] == pytest.approx(sum(weights) ** 2 / sum(w * w for w in weights) / 3)


def test_there_is_nothing_to_measure_where_the_trained_weights_draw() -> None:
    candidates, advantages = group(tiny_policy())
    assert all(math.isnan(value) for value in mismatch_measures(rollout(candidates, advantages)).values())


def test_weights_are_truncated_ratios_of_tokens() -> None:
    drawn, engine = torch.tensor([-1.0, -1.0, -1.0]), torch.tensor([-1.0 - math.log(4), -1.0 - math.log(1.5), -0.5])
    found = losses.mismatch_weights(config(mismatch="truncated_is").update, drawn, engine)
    torch.testing.assert_close(found, torch.tensor([2.0, 1.5, math.exp(-0.5)]))
    capped = config(mismatch="truncated_is", mismatch_truncation=1.2).update
    torch.testing.assert_close(losses.mismatch_weights(capped, drawn, engine), torch.tensor([1.2, 1.2, math.exp(-0.5)]))
    assert losses.mismatch_weights(config().update, drawn, engine).tolist() == [1.0, 1.0, 1.0]


def test_the_correction_weighs_policy_terms_and_nothing_else() -> None:
    """Every token half as likely to the engine: policy terms count 1.5-fold at c = 1.5, the KL penalty as before."""
    policy = tiny_policy()
    candidates, advantages = group(policy)
    halved = [said_otherwise(candidate, math.log(2)) for candidate in candidates]
    plain = gradient(policy, config(), candidates, advantages)
    penalty = gradient(policy, config(kl_coef=0.1), candidates, [0.0] * len(candidates))
    rule = {"mismatch": "truncated_is", "mismatch_truncation": 1.5}
    torch.testing.assert_close(gradient(policy, config(**rule), halved, advantages), 1.5 * plain, rtol=1e-4, atol=1e-6)
    both = gradient(policy, config(kl_coef=0.1, **rule), halved, advantages)
    torch.testing.assert_close(both, 1.5 * plain + penalty, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradient(policy, config(), halved, advantages), plain)  # measured, and left alone


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"update": {"mismatch": "truncated_is"}}, "makes no sense with engine.name = 'torch'"),
        ({"engine": SERVER, "update": {"mismatch_truncation": 3.0}}, "makes no sense with update.mismatch = 'none'"),
        ({"engine": {"patience": 5.0}}, "engine.patience belongs to engine.name = 'server', not to 'torch'"),
        (
            {"engine": {"name": "server", "cache_mb": 5}},
            "engine.cache_mb belongs to engine.name = 'vllm', not to 'server'",
        ),
        ({"engine": {"name": "vllm", "server_url": "http://x"}}, "engine.server_url belongs to engine.name = 'server'"),
    ],
)
def test_settings_without_effect_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Config.build(**settings)
