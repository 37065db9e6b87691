"""``evaluate_samples`` on environments whose answers cannot be enumerated: which tasks, how many turns, how drawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny_models
from toy_environments import Colours, ToyOptions, Walks

from sesa_lab import environments
from sesa_lab.config import Config
from sesa_lab.diversity import coverage_at_k, pass_at_k
from sesa_lab.engines import TorchEngine
from sesa_lab.environments import registry
from sesa_lab.errors import InputError
from sesa_lab.policies import load_policy, merged
from sesa_lab.prompts import Speaker
from sesa_lab.samplers import Request, draw
from sesa_lab.seeding import stream
from sesa_lab.training import held_out
from sesa_lab.training.credit import verdicts
from sesa_lab.training.evaluate import evaluate_samples
from sesa_lab.types import Group

KS = [1, 3, 9]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Spells byte by byte, at random."""
    folder = tmp_path_factory.mktemp("models") / "model"
    return str(tiny_models.save_model(folder, max_position_embeddings=2048, hidden_size=32, num_hidden_layers=1))


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for kind in (Colours, Walks):
        monkeypatch.setitem(registry.REGISTRY, kind.name, (ToyOptions, kind))
    Colours.asked.clear()
    yield
    Colours.asked.clear()


def settings(model: str, environment: str, **more: Any) -> Config:
    return Config.build(
        environment={"name": environment, "options": more.pop("options", {})},
        policy={"model": model, "device": "cpu"},
        sampler={"max_tokens": 8, "temperature": 0.9, **more.pop("sampler", {})},
        **more,
    )


def groups(config: Config, environment: Any, samples: int, tasks: int, temperature: float) -> list[Group]:
    """The reference: drawn task by task, by the sampler itself, from the documented streams."""
    policy = load_policy(config.policy, environment.name, environment.options, config.run.seed)
    speaker = Speaker(policy.tokenizer, policy.form, environment.name, policy.stop_ids)
    sampler = Config.build(sampler={"group_size": samples, "max_tokens": 8, "temperature": temperature}).sampler
    world = environment if environment.turns > 1 else None
    found = []
    with merged(policy.model):
        for index in range(tasks):
            task = environment.task(index)
            found += draw(
                TorchEngine(policy), [Request(task, speaker.answer(task))], sampler, speaker,
                lambda g, i, index=index: stream(config.run.seed, "evaluation", index, i), world,
            )  # fmt: skip
    return found


def test_with_sketches_in_the_one_way_of_held_out(model: str) -> None:
    """Whatever the run's sampler is; the table says so, and says nothing of it otherwise. Streams are those of direct samples."""
    config = settings(model, "walks", sampler={"name": "sesa", "drafting": "iid", "sketch_tokens": 5})
    environment = environments.make("walks", split="validation")
    policy = load_policy(config.policy, environment.name, environment.options, config.run.seed)
    speaker = Speaker(policy.tokenizer, policy.form, environment.name, policy.stop_ids)
    drawn = []
    with merged(policy.model):
        for index in range(2):
            task = environment.task(index)
            drawn += draw(
                TorchEngine(policy), [Request(task, speaker.answer(task))], held_out.guided(config, 6), speaker,
                lambda g, i, index=index: stream(config.run.seed, "evaluation", index, i), environment,
            )  # fmt: skip
    assert [len(group.sketches) for group in drawn] == [6, 6]
    found = evaluate_samples(config, None, 6, 2, KS, guided=True)
    pd.testing.assert_frame_equal(found, table(environment, drawn).assign(guided=True))
    assert "guided" not in evaluate_samples(config, None, 6, 2, KS)


def test_sketches_without_room_are_refused(model: str) -> None:
    config = settings(model, "walks", sampler={"sketch_tokens": 400})
    with pytest.raises(
        InputError, match=r"5 earlier sketches .* lower sampler\.sketch_tokens or draw without sketches$"
    ):
        evaluate_samples(config, None, 6, 2, KS, guided=True)


def table(environment: Any, drawn: list[Group]) -> pd.DataFrame:
    rows = []
    for group in drawn:
        scores = verdicts(environment, group)
        n, won = len(scores), sum(score.success for score in scores)
        ways = [score.strategy if score.success else None for score in scores]
        rows += [
            {
                "task": group.task.index, "k": k, "n": n, "success": won / n, "pass_at_k": pass_at_k(n, won, k),
                "coverage_at_k": coverage_at_k(ways, k), "exact_accuracy": np.nan, "exact_coverage": np.nan,
            }
            for k in KS
        ]  # fmt: skip
    return pd.DataFrame(rows)


def test_several_turns_are_played(model: str) -> None:
    # Each answer used to be judged as the first turn alone.
    config = settings(model, "walks", run={"seed": 4})
    environment = environments.make("walks", split="validation")
    drawn = groups(config, environment, 6, 3, 0.9)
    assert {len(c.turns) for group in drawn for c in group.candidates} == {1, 2, 3}, "by chance; seed fixed"
    found = evaluate_samples(config, None, 6, 3, KS)
    pd.testing.assert_frame_equal(found, table(environment, drawn))
    assert 0 < found["success"].mean() < 1 and found["pass_at_k"].isna().sum() == 3  # k = 9 of 6 samples


@pytest.mark.parametrize("own", [{}, {"split": "train"}, {"split": "test"}])
@pytest.mark.parametrize(("asked", "split"), [(None, "validation"), *((s, s) for s in ("train", "validation", "test"))])
def test_tasks_are_held_out_unless_others_are_asked_for(
    model: str, own: dict[str, str], asked: str | None, split: str
) -> None:
    # They used to be those that the run is trained on.
    evaluate_samples(settings(model, "colours", options={"prize": "blue", **own}), None, 2, 3, [1], asked)
    assert {task for part, task in Colours.asked if part == split} == {0, 1, 2}
    assert {part for part, _ in Colours.asked} == {split}


def test_an_environment_without_splits_has_none_to_choose() -> None:
    with pytest.raises(InputError, match=r"--split test: environment path_exploration has no splits; leave it out"):
        evaluate_samples(Config.build(), None, 2, 1, [1], "test")


def test_the_temperature_is_that_of_evaluations(model: str) -> None:
    environment = environments.make("walks", split="validation")
    for asked, used in ((0.3, 0.3), (0.0, 0.9)):
        config = settings(model, "walks", evaluation={"eval_temperature": asked})
        expected = table(environment, groups(config, environment, 6, 3, used))
        pd.testing.assert_frame_equal(evaluate_samples(config, None, 6, 3, KS), expected)


def test_exact_values_and_samples_beside_them_have_the_samplers_temperature() -> None:
    def found(**evaluation: float) -> pd.DataFrame:
        return evaluate_samples(
            Config.build(sampler={"temperature": 0.8}, evaluation=evaluation), None, samples=16, tasks=2, ks=[1, 4]
        )

    pd.testing.assert_frame_equal(found(), found(eval_temperature=3.0))
    assert found()["exact_accuracy"].notna().all()
