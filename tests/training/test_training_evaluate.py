"""``evaluate_samples`` on environments whose answers cannot be enumerated: which tasks, how many turns, how drawn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
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
from sesa_lab.training import evaluate, held_out
from sesa_lab.training.credit import verdicts
from sesa_lab.training.evaluate import Evaluation, evaluate_samples
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
    found = evaluate_samples(config, None, 6, 2, KS, way="sesa")
    pd.testing.assert_frame_equal(found.tasks, table(environment, drawn))
    assert list(found.samples["sketch"]) == [g.sketches[c.sketches[0]].text for g in drawn for c in g.candidates]
    assert evaluate_samples(config, None, 6, 2, KS).samples["sketch"].isna().all()


def test_sketches_without_room_are_refused(model: str) -> None:
    config = settings(model, "walks", sampler={"sketch_tokens": 400})
    with pytest.raises(
        InputError, match=r"5 earlier sketches .* lower sampler\.sketch_tokens or draw without sketches$"
    ):
        evaluate_samples(config, None, 6, 2, KS, way="sesa")


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
    found = evaluate_samples(config, None, 6, 3, KS).tasks
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
        pd.testing.assert_frame_equal(evaluate_samples(config, None, 6, 3, KS).tasks, expected)


def test_exact_values_and_samples_beside_them_have_the_samplers_temperature() -> None:
    def found(**evaluation: float) -> pd.DataFrame:
        return evaluate_samples(
            Config.build(sampler={"temperature": 0.8}, evaluation=evaluation), None, samples=16, tasks=2, ks=[1, 4]
        ).tasks

    pd.testing.assert_frame_equal(found(), found(eval_temperature=3.0))
    assert found()["exact_accuracy"].notna().all()


# --- kept samples -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["parallel", "sequential", "sesa", "iid-sketches"])
def test_a_stopped_evaluation_goes_on_and_is_the_same(
    model: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "AT_ONCE", 4)  # two tasks of two samples at a time
    config = settings(model, "colours", sampler={"sketch_tokens": 3})
    whole = evaluate_samples(config, None, 2, 5, [1, 2], way=way, out=tmp_path / "whole.parquet")
    assert whole.samples.equals(evaluate_samples(config, None, 2, 5, [1, 2], way=way).samples), "kept or not"
    stopped, judged = tmp_path / "stopped.parquet", evaluate._rows

    def stop(environment: Any, group: Group) -> list[dict[str, Any]]:
        if group.task.index == 2:
            raise KeyboardInterrupt
        return judged(environment, group)

    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "_rows", stop)
        with pytest.raises(KeyboardInterrupt):
            evaluate_samples(config, None, 2, 5, [1, 2], way=way, out=stopped)
    assert not stopped.exists() and sorted(p.name for p in (tmp_path / "stopped.partial").iterdir()) == [
        "00000000.parquet", "settings.json",
    ]  # fmt: skip
    drawn: list[int] = []
    monkeypatch.setattr(evaluate, "_rows", lambda e, g: drawn.append(g.task.index) or judged(e, g))
    again = evaluate_samples(config, None, 2, 5, [1, 2], way=way, out=stopped)
    assert drawn == [2, 3, 4], "nothing is drawn twice"
    pd.testing.assert_frame_equal(again.samples, whole.samples)
    pd.testing.assert_frame_equal(again.table(), whole.table())
    assert stopped.exists() and not (tmp_path / "stopped.partial").exists()
    assert pq.read_table(stopped).equals(pq.read_table(tmp_path / "whole.parquet"))


def test_more_tasks_draw_what_is_missing_and_all_there_loads_no_policy(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out = settings(model, "colours"), tmp_path / "x.parquet"
    few = evaluate_samples(config, None, 3, 2, [1], out=out)
    more = evaluate_samples(config, None, 3, 4, [1], out=out)
    assert len(more.samples) == 12 and more.samples[:6].equals(few.samples)
    assert len(pq.read_table(out)) == 12
    monkeypatch.setattr(evaluate, "load_policy", lambda *_: pytest.fail("loaded"))
    fewer = evaluate_samples(config, None, 3, 2, [1, 3], out=out)
    pd.testing.assert_frame_equal(fewer.samples, few.samples)
    assert list(fewer.tasks["k"]) == [1, 3, 1, 3] and len(pq.read_table(out)) == 12, "nothing kept is lost"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"run": {"seed": 3}}, r"seed = 0, now it is 3"),
        ({"sampler": {"temperature": 0.5}}, r"sampler\.temperature = 0\.9, now it is 0\.5"),
        ({"options": {"prize": "blue"}}, r"environment\.prize = 'red', now it is 'blue'"),
    ],
)
def test_samples_made_otherwise_are_not_mixed(model: str, changed: dict[str, Any], named: str, tmp_path: Path) -> None:
    out = tmp_path / "x.parquet"
    evaluate_samples(settings(model, "colours"), None, 3, 2, [1], out=out)
    before = out.read_bytes()
    with pytest.raises(InputError, match=rf"x\.parquet holds samples made with {named}; choose another --out"):
        evaluate_samples(settings(model, "colours", **changed), None, 3, 2, [1], out=out)
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda p: p / "x.json", r"expected a file that ends in \.parquet"),
        (lambda p: p / "none" / "x.parquet", r"there is no folder .*none"),
        (lambda p: written(p / "x.parquet", b"nonsense"), r"cannot read .*x\.parquet"),
        (lambda p: written(p / "x.parquet", None), r"was not written by `sesa-lab evaluate`"),
        (lambda p: damaged(p / "x.parquet"), r"settings\.json is truncated .* delete .*x\.partial"),
    ],
)  # fmt: skip
def test_a_place_that_cannot_hold_samples_is_refused_before_any_is_drawn(
    model: str, make: Any, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "load_policy", lambda *_: pytest.fail("loaded"))
    with pytest.raises(InputError, match=named):
        evaluate_samples(settings(model, "colours"), None, 3, 2, [1], out=make(tmp_path))


def written(path: Path, content: bytes | None) -> Path:
    if content is None:
        pd.DataFrame({"task": [1]}).to_parquet(path)
    else:
        path.write_bytes(content)
    return path


def damaged(path: Path) -> Path:
    path.with_suffix(".partial").mkdir()
    (path.with_suffix(".partial") / "settings.json").write_text("{")
    return path


def test_the_table_has_means_over_tasks_and_bootstrap_intervals() -> None:
    tasks = pd.DataFrame(
        {
            "task": [0, 1, 2, 3], "k": 1, "n": 8, "success": [0.0, 0.5, 1.0, 1.0], "pass_at_k": [0.0, 0.5, 1.0, 1.0],
            "coverage_at_k": [0.0, 1.0, 2.0, 3.0], "exact_accuracy": np.nan, "exact_coverage": np.nan,
        }
    )  # fmt: skip
    (row,) = Evaluation(pd.DataFrame(), tasks).table().to_dict("records")
    assert (row["k"], row["tasks"], row["n"], row["pass_at_k"], row["coverage_at_k"]) == (1, 4, 8, 0.625, 1.5)
    # All 4^4 resamples: 1/256 has every mean 0, (1 + 4)/256 = 0.0195 at most 0.125, 0.043 at most 0.25.
    assert row["pass_at_k_low"] == 0.25 and row["pass_at_k_high"] == 1.0
    assert Evaluation(pd.DataFrame(), tasks).table().equals(Evaluation(pd.DataFrame(), tasks).table())


def test_an_unknown_way_is_named(model: str) -> None:
    with pytest.raises(InputError, match=r"way of drawing 'backwards': expected one of parallel, sequential, sesa"):
        evaluate_samples(settings(model, "colours"), None, 2, 1, [1], way="backwards")
