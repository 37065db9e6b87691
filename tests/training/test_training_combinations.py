"""Every combination of settings that makes sense is accepted, and trains one step."""

from __future__ import annotations

import dataclasses
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
from sesa_lab.engines import torch_engine
from sesa_lab.environments import registry
from sesa_lab.errors import InputError
from sesa_lab.runs import schema
from sesa_lab.training import room
from sesa_lab.training.loop import Trainer, train
from sesa_lab.training.table import sketch_rows
from sesa_lab.types import Episode

CORRECTIONS = ("none", "positive_only", "truncated_is", "asymmetric", "ppo_clip")
ON_POLICY = ("none", "positive_only")  # where every candidate is trained under what it was drawn under
SHAPE = {"group_size": 4, "max_tokens": 8}
MIXED = {
    "group_size": 6,
    "on_policy_fraction": 0.3,
    "expansions": 2,
}  # two direct, two solutions of each of two sketches
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
    samplers = [shape, shape | MIXED | {"repeated_sketch": "drop"}]
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
    assert len(rollouts) == sampler.group_size * config.run.groups
    assert all(math.isfinite(measures[name]) for name in ("loss", "grad_norm", "entropy", "approx_kl", "weight_ess"))
    moved = {name for name, p in trainer.policy.model.named_parameters() if not torch.equal(p, before[name])}
    assert all("lora_" in name for name in moved) and (moved or measures["grad_norm"] == 0)
    size = sampler.group_size
    direct = math.ceil(size * sampler.on_policy_fraction) if sampler.name != "parallel" else size
    second = update.conditioning.removeprefix("task+")
    for row in rollouts:
        own = {"parallel": "task", "sequential": "history", "sesa": "sketch"}[sampler.name]
        guided = row["index"] >= direct and (bool(row["history"]) if own == "history" else bool(row["sketches"]))
        assert row["drawn_under"] == (own if guided else "task")
        kinds = {"task", *([second] if second == own and guided else [])} if "+" in update.conditioning else None
        expected = kinds or {update.conditioning if guided else "task"}
        assert set(row["trained_under"].split("+")) == expected
        assert len(row["old_logprobs"]) == len(row["drawn_logprobs"]) == len(row["token_ids"])
        assert len(row["old_entropies"]) == len(row["token_ids"]) and min(row["old_entropies"], default=0) >= -1e-6
        if not guided or update.conditioning == own:  # trained as drawn
            assert row["weight"] == 1.0
            assert row["old_logprobs"] == pytest.approx(row["drawn_logprobs"], abs=1e-4)
    spread = [value for row in rollouts for value in row["old_entropies"]]
    assert measures["entropy"] == pytest.approx(sum(spread) / len(spread), rel=1e-5)
    count = (size - direct) // sampler.expansions if sampler.name == "sesa" else 0
    assert len(sketches) == count * config.run.groups
    trained = update.train_sketches != "none"
    followed = {(row["group"], number) for row in rollouts for number in row["sketches"]}
    for row in sketches:
        assert (row["advantage"] is not None) == trained
        assert (row["reward"] is not None) == (trained and (row["group"], row["index"]) in followed)
        assert row["reward"] is not None or not row["advantage"]
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
        "sampler": {"name": "sesa", "drafting_form": "prompt", **MIXED},
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


@pytest.mark.parametrize("scope", ["episode", "turn"])
def test_an_episode_without_room_is_refused_before_there_is_a_folder(
    walks: Settings, scope: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It used to end a run in the middle of a step, and to ask for a smaller group. The bound is reached, and just fits."""

    class Endless(Walks):
        """Three turns whatever comes, and always the same to observe."""

        def step(self, episode: Episode, text: str) -> Episode:
            found = super().step(dataclasses.replace(episode, seed=26), text)  # 222 in base 3: chance ends nothing
            return dataclasses.replace(found, seed=episode.seed)

    monkeypatch.setitem(registry.REGISTRY, "walks", (ToyOptions, Endless))
    sampler = {"name": "sesa", "group_size": 2, "sketch_tokens": 40, "sketch_scope": scope}

    def build(max_tokens: int) -> Config:
        return Config.build(**walks, sampler=sampler | {"max_tokens": max_tokens})

    def need(max_tokens: int) -> int:
        trainer = Trainer(build(max_tokens))
        requests = [trainer.request(index) for index in range(2)]
        return room.extent(trainer.speaker, trainer.environment, trainer.config.sampler, requests).tokens

    longest = 300 + (2048 - need(300)) // 3
    assert 2045 < need(longest) <= 2048
    with pytest.raises(InputError, match=r"an episode may grow to .* 3 turns of at most .* exceeds the model's 2048"):
        train(build(longest + 1), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    # A policy that writes letters and never stops makes every turn, and every sketch, as long as it may be.
    trainer = Trainer(build(longest))
    letters = torch.tensor(trainer.speaker.encode("abcdefghijklmnopqrstuvwxyz"))
    original = torch_engine._draw

    def endless(logits: torch.Tensor, *rest: Any) -> Any:
        return original(torch.full_like(logits, -torch.inf).index_copy(-1, letters, logits[:, letters]), *rest)

    monkeypatch.setattr(torch_engine, "_draw", endless)
    members = [member for group in trainer.draw(1) for member in group.candidates]
    ends = [len(turn.drawn_under.ids) + len(turn.completion.ids) for member in members for turn in member.turns]
    assert max(ends) == need(longest)


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (
            {"name": "sesa", "sketch_tokens": 200},  # 16 of them: over 3200
            r"drafting may take \d+ tokens \(a request, 15 earlier .* lower sampler\.sketch_tokens, or draw fewer sketches by a"
            r" smaller sampler\.group_size or a larger sampler\.expansions$",
        ),
        (
            {"name": "sesa", "sketch_tokens": 200, "drafting_form": "prompt"},
            r"drafting may take \d+ tokens .* sampler\.sketch_tokens = 200\), which exceeds the model's 2048",
        ),
        (
            {"name": "sequential", "max_tokens": 200},
            r"a sequence of 16 answers may grow to \d+ tokens .* lower sampler\.max_tokens or sampler\.group_size$",
        ),
    ],
    ids=["list", "prompt", "sequence"],
)
def test_a_group_without_room_is_refused_before_there_is_a_folder(
    walks: Settings, sampler: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Only the first sketch, and one answer, were looked at: the run died within its first step, its folder begun."""
    settings = walks | {"environment": {"name": "colours"}, "evaluation": {}}
    with pytest.raises(InputError, match=message):
        train(Config.build(**settings, sampler={"group_size": 16, "max_tokens": 8} | sampler), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    # Half mixed, and of four solutions a sketch: two sketches. Alone in its sequence: one answer.
    fewer = {"on_policy_fraction": 0.5, "expansions": 4} if sampler["name"] == "sesa" else {"on_policy_fraction": 0.9}
    Trainer(Config.build(**settings, sampler={"group_size": 16, "max_tokens": 8} | sampler | fewer))


def test_all_sketches_of_a_guided_test_need_room(walks: Settings, tmp_path: Path) -> None:
    """It draws 8 a task; room was looked for one, and the test came after all training."""
    sampler = {"name": "parallel", "sketch_tokens": 250}
    message = r"drafting may take .* lower sampler\.sketch_tokens or set evaluation\.test_guided = 'no'$"
    with pytest.raises(InputError, match=message):
        train(Config.build(**walks, sampler=sampler), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    Trainer(Config.build(**walks | {"evaluation": {}}, sampler=sampler))


def test_validation_and_test_tasks_are_not_trained_on(walks: Settings, tmp_path: Path) -> None:
    for split in ("validation", "test"):
        other = walks | {"environment": {"name": "walks", "options": {"split": split}}}
        message = rf"split = '{split}': a run is trained on split 'train' alone; .*evaluate RUN --split"
        with pytest.raises(InputError, match=message):
            train(Config.build(**other), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    Trainer(Config.build(**walks | {"environment": {"name": "walks", "options": {"split": "train"}}}))


def test_a_sketch_a_turn_needs_turns(walks: Settings, tmp_path: Path) -> None:
    sampler = {"name": "sesa", "sketch_scope": "turn"}
    with pytest.raises(
        InputError, match=r"sketch_scope = 'turn' makes no sense with environment colours .*one turn; use"
    ):
        train(Config.build(**walks | {"environment": {"name": "colours"}}, sampler=sampler), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_guided_test_needs_room_too(walks: Settings, tmp_path: Path) -> None:
    sampler = {"name": "parallel", "sketch_tokens": 2000}
    with pytest.raises(InputError, match="exceeds the model's 2048"):
        train(Config.build(**walks, sampler=sampler), tmp_path / "run")
    Trainer(Config.build(**walks | {"evaluation": {}}, sampler=sampler))


def test_dropped_sketches_have_no_reward_and_no_advantage(walks: Settings) -> None:
    """They are left out of the group's baseline, and null in the table."""
    sampler = {"name": "sesa", "group_size": 12, "expansions": 2, "sketch_tokens": 5, "max_tokens": 6}
    update = {"train_sketches": "mean", "advantage": "mean"}
    trainer = Trainer(Config.build(**walks, sampler=sampler, update=update))
    (drawn, _) = trainer.draw(1)
    members = tuple(dataclasses.replace(c, sketches=()) if set(c.sketches) & {1, 4} else c for c in drawn.candidates)
    scored = trainer.judge(dataclasses.replace(drawn, candidates=members))
    means = {
        k: sum(scored.rewards[2 * k : 2 * k + 2]) / 2 for k in (0, 2, 3, 5)
    }  # solutions 2k and 2k + 1 follow sketch k
    centre = sum(means.values()) / 4
    assert scored.sketch_rewards == [pytest.approx(means[k]) if k in means else None for k in range(6)]
    expected = [means[k] - centre if k in means else 0.0 for k in range(6)]
    assert scored.sketch_advantages == pytest.approx(expected) and any(expected)
    stored = schema.batch("sketches", sketch_rows(1, [scored])).to_pydict()
    assert stored["reward"] == scored.sketch_rewards and stored["advantage"] == scored.sketch_advantages


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
