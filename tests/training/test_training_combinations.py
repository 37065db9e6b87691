"""Every combination of settings that makes sense is accepted, and trains one step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from toy_environments import Colours, ToyOptions, Walks

from sesa_lab import runs
from sesa_lab.config import Config
from sesa_lab.environments import registry
from sesa_lab.errors import InputError
from sesa_lab.runs import schema
from sesa_lab.training.loop import Trainer, train

CORRECTIONS = ("none", "positive_only", "truncated_is", "asymmetric", "ppo_clip")
ON_POLICY = ("none", "positive_only")  # where every candidate is trained under what it was drawn under
SHAPE = {"group_size": 4, "max_tokens": 8}
RUN = {"groups": 1, "steps": 1, "coverage_k": 4}

Settings = dict[str, dict[str, Any]]


def parallel() -> Iterator[Settings]:
    for correction in ON_POLICY:
        yield {"sampler": {"name": "parallel", **SHAPE}, "update": {"correction": correction}}


def sequential() -> Iterator[Settings]:
    samplers = [{"on_policy_fraction": 0.5, "redraws": 1}, {}]
    for sampler, conditioning in itertools.product(samplers, ("task", "history", "task+history")):
        for correction in ON_POLICY if conditioning == "history" else CORRECTIONS:
            update = {"conditioning": conditioning, "correction": correction}
            yield {"sampler": {"name": "sequential", **SHAPE, **sampler}, "update": update}


def sesa(drafting: str, form: str) -> Iterator[Settings]:
    shape = {"name": "sesa", **SHAPE, "sketch_tokens": 6, "drafting": drafting, "drafting_form": form}
    samplers = [shape, shape | {"on_policy_fraction": 0.5, "expansions": 2, "repeated_sketch": "drop"}]
    for sampler, conditioning in itertools.product(samplers, ("task", "sketch", "task+sketch")):
        for correction in ON_POLICY if conditioning == "sketch" else CORRECTIONS:
            for rule in ("none", "best", "mean", "novelty"):
                update = {"conditioning": conditioning, "correction": correction, "train_sketches": rule}
                yield {"sampler": sampler, "update": update}


def every(samplers: Iterator[Settings]) -> list[Config]:
    """All of them; every third also in two minibatches and two passes, with both penalties, in micro-batches of one row."""
    found = []
    for number, settings in enumerate(samplers):
        if number % 3 == 0:
            several = {"minibatches": 2, "epochs": 2, "kl_coef": 0.01, "entropy_coef": 0.01, "micro_batch": 1}
            settings = settings | {"update": settings["update"] | several}
        found.append(Config.build(**settings, run=RUN, environment={"options": {"maps": 2}}))
    return found


def check_step(trainer: Trainer, config: Config) -> None:
    """One step with these settings on the trainer's policy, and what must hold of it whatever they are."""
    trainer.config = config
    sampler, update = config.sampler, config.update
    before = {name: p.detach().clone() for name, p in trainer.policy.model.named_parameters()}
    measures, tables = trainer.step(1)
    rollouts, sketches = tables["rollouts"], tables["sketches"]
    for kind, rows in tables.items():
        schema.batch(kind, rows)
    assert len(rollouts) == 4 * config.run.groups
    assert all(math.isfinite(measures[name]) for name in ("loss", "grad_norm", "entropy", "approx_kl", "weight_ess"))
    moved = {name for name, p in trainer.policy.model.named_parameters() if not torch.equal(p, before[name])}
    assert all("lora_" in name for name in moved) and (moved or measures["grad_norm"] == 0)
    direct = math.ceil(4 * sampler.on_policy_fraction) if sampler.name != "parallel" else 4
    second = update.conditioning.removeprefix("task+")
    for row in rollouts:
        own = {"parallel": "task", "sequential": "history", "sesa": "sketch"}[sampler.name]
        guided = row["index"] >= direct and (bool(row["history"]) if own == "history" else bool(row["sketches"]))
        assert row["drawn_under"] == (own if guided else "task")
        kinds = {"task", *([second] if second == own and guided else [])} if "+" in update.conditioning else None
        expected = kinds or {update.conditioning if guided else "task"}
        assert set(row["trained_under"].split("+")) == expected
        assert len(row["old_logprobs"]) == len(row["drawn_logprobs"]) == len(row["token_ids"])
        if not guided or update.conditioning == own:  # trained as drawn
            assert row["weight"] == 1.0
            assert row["old_logprobs"] == pytest.approx(row["drawn_logprobs"], abs=1e-4)
    count = (4 - direct) // sampler.expansions if sampler.name == "sesa" else 0
    assert len(sketches) == count * config.run.groups
    trained = update.train_sketches != "none"
    assert all((row["reward"] is not None) == (row["advantage"] is not None) == trained for row in sketches)
    assert measures["tokens_sampled"] == sum(row["sampled_tokens"] for row in (*rollouts, *sketches))
    assert measures["tokens_sketches"] == sum(row["sampled_tokens"] for row in sketches)


SAMPLERS: list[tuple[Any, tuple[str, ...], int]] = [
    (parallel, (), 2),
    (sequential, (), 2 * 12),
    *[(sesa, draft, 2 * 12 * 4) for draft in itertools.product(("sequential", "iid"), ("list", "prompt"))],
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("samplers", "choices", "count"), SAMPLERS, ids=["-".join((f.__name__, *chosen)) for f, chosen, _ in SAMPLERS]
)
def test_every_combination_trains_a_step(samplers: Any, choices: tuple[str, ...], count: int) -> None:
    configs = every(samplers(*choices))
    assert len(configs) == count
    trainer = Trainer(configs[0])
    for config in configs:
        check_step(trainer, config)


# one of each way of sampling, for the quick tier
QUICK = [
    {"sampler": {"name": "parallel"}, "update": {"correction": "positive_only"}},
    {"sampler": {"name": "sequential", "redraws": 1}, "update": {"conditioning": "task+history", "correction": "asymmetric"}},
    {
        "sampler": {"name": "sesa", "on_policy_fraction": 0.5, "expansions": 2, "drafting_form": "prompt"},
        "update": {"conditioning": "task+sketch", "correction": "truncated_is", "train_sketches": "novelty"},
    },
    {"sampler": {"name": "sesa", "drafting": "iid", "repeated_sketch": "drop"}, "update": {"train_sketches": "mean"}},
]  # fmt: skip


def test_each_way_of_sampling_trains_a_step() -> None:
    configs = every(iter([s | {"sampler": SHAPE | s["sampler"]} for s in QUICK]))
    trainer = Trainer(configs[0])
    for config in configs:
        check_step(trainer, config)


# --- several turns ------------------------------------------------------------------------------------------------------


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """Settings of an environment of three turns, asked in chat form of a tiny model that spells byte by byte."""
    for kind in (Walks, Colours):
        monkeypatch.setitem(registry.REGISTRY, kind.name, (ToyOptions, kind))
    folder = tiny_models.save_model(
        tmp_path / "model", max_position_embeddings=2048, hidden_size=32, num_hidden_layers=1
    )
    return {
        "environment": {"name": "walks"},
        "policy": {"model": str(folder), "device": "cpu"},
        "run": {"groups": 2, "steps": 1, "evaluate_every": 1, "checkpoint_every": 1},
        "evaluation": {"eval_tasks": 1, "eval_samples": 8, "test_tasks": 1, "test_guided": "yes"},
    }


@pytest.mark.parametrize("scope", ["episode", "turn"])
@pytest.mark.parametrize("form", ["list", "prompt"])
def test_a_run_of_several_turns(walks: Settings, scope: str, form: str, tmp_path: Path) -> None:
    """From draw to stored tables: two stages, both likelihoods, sketches trained, tests with and without sketches."""
    sampler = {
        "name": "sesa", "group_size": 6, "on_policy_fraction": 0.3, "expansions": 2, "max_tokens": 6, "sketch_tokens": 5,
        "sketch_scope": scope, "drafting_form": form,
    }  # fmt: skip
    update = {
        "conditioning": "task+sketch",
        "correction": "asymmetric",
        "train_sketches": "best",
        "learning_rate": 0.01,
    }
    run = runs.load(train(Config.build(**walks, sampler=sampler, update=update), tmp_path / "run"))
    assert run.finished and run.tests["guided"].tolist() == [False, True]
    assert run.evaluations["step"].tolist() == [0, 1] and run.evaluations["pass_at_8"].notna().all()
    assert run.evaluations["kl_uniform"].isna().all(), "not enumerable"
    table, sketches = run.read_rollouts(), run.read_sketches()
    world = Walks(ToyOptions())
    for _, row in table.iterrows():
        episode = world.reset(world.task(row["task"]), int(row["episode_seed"]))
        for text in row["turns"]:
            episode = world.step(episode, text)
        assert episode.over and list(episode.rewards) == list(row["turn_rewards"]), "an episode can be replayed"
        assert (episode.verdict.reward, episode.success, episode.strategy) == (
            row["reward"],
            row["success"],
            row["strategy"],
        )
        assert (
            sum(row["turn_tokens"]) == len(row["token_ids"]) == len(row["old_logprobs"]) == len(row["drawn_logprobs"])
        )
        own = len(row["turns"]) - 1 if scope == "turn" else 0
        assert len(row["sketches"]) == (1 + own if row["index"] >= 2 else 0)
        assert row["trained_under"] == ("task+sketch" if row["index"] >= 2 else "task")
    assert table["turn_tokens"].map(len).max() == 3 and run.steps["turns"].between(1, 3).all()
    for key, group in table.groupby(["step", "group"]):
        own_sketches = sketches[(sketches["step"] == key[0]) & (sketches["group"] == key[1])]
        assert sorted({n for numbers in group["sketches"] for n in numbers}) == own_sketches["index"].tolist()
        for _, sketch in own_sketches.iterrows():
            rewards = [r["reward"] for _, r in group.iterrows() if sketch["index"] in r["sketches"]]
            assert sketch["reward"] == max(rewards)
        first = group[group["index"] >= 2]["sketches"].map(lambda numbers: numbers[0]).tolist()
        assert first == [0, 0, 1, 1]


def test_whole_answers_in_sequence_are_refused_before_there_is_a_folder(walks: Settings, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'sequential' draws whole answers"):
        train(Config.build(**walks, sampler={"name": "sequential"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_dialogue_without_room_is_refused_before_there_is_a_folder(walks: Settings, tmp_path: Path) -> None:
    for sampler, message in (
        ({"name": "parallel", "max_tokens": 2040}, "exceeds the model's 2048"),
        ({"name": "sesa", "sketch_tokens": 2000}, "exceeds the model's 2048"),
        ({"name": "sesa", "max_tokens": 2000}, "exceeds the model's 2048"),
    ):
        with pytest.raises(InputError, match=message):
            train(Config.build(**walks, sampler=sampler), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_every_rule_trains_a_step_of_several_turns(walks: Settings) -> None:
    trainer = None
    for scope, conditioning, correction, rule in itertools.product(
        ("episode", "turn"), ("task", "sketch", "task+sketch"), CORRECTIONS, ("none", "novelty")
    ):
        if conditioning == "sketch" and correction not in ON_POLICY:
            continue
        sampler = {"name": "sesa", "group_size": 4, "max_tokens": 4, "sketch_tokens": 4, "sketch_scope": scope}
        update = {"conditioning": conditioning, "correction": correction, "train_sketches": rule, "minibatches": 2}
        config = Config.build(**walks, sampler=sampler, update=update)
        trainer = trainer or Trainer(config)
        trainer.config = config
        measures, tables = trainer.step(1)
        assert math.isfinite(measures["loss"]) and math.isfinite(measures["grad_norm"])
        assert measures["turns"] > 1 and len(tables["sketches"]) >= 8
