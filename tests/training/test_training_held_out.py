"""Judging by samples: measures by hand, and which tasks, contexts and streams they come from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_dialogue import Words, spelled
from fake_engine import WORDS, FakeEngine
from tiny_policy import tiny_policy
from toy_environments import Colours, ToyOptions, Walks

from sesa_lab import environments
from sesa_lab.config import Config, SamplerConfig
from sesa_lab.environments import registry
from sesa_lab.errors import InputError
from sesa_lab.seeding import stream
from sesa_lab.training import room
from sesa_lab.training.held_out import Judge, guided, measures
from sesa_lab.types import Candidate, Completion, Context, Group, Score, Task, Turn

# --- measures -----------------------------------------------------------------------------------------------------------


def made(index: int, results: list[tuple[bool, str | None]], hard: bool | None = None) -> tuple[Group, list[Score]]:
    """A group whose candidates came out so; candidate i has 1 + i % 2 turns of two tokens, log-prob -0.5 each."""
    x = Context("task", (1,))
    turn = Turn(x, {"task": x}, Completion((2, 3), (-0.5, -0.5), "", "stop"))
    data = {} if hard is None else {"hard": hard}
    group = Group(Task(index, "", data), tuple(Candidate((turn,) * (1 + i % 2)) for i in range(len(results))))
    return group, [Score(float(won), won, strategy) for won, strategy in results]


def wins(n: int, won: int, ways: int = 1) -> list[tuple[bool, str | None]]:
    """``won`` of n succeed, in ``ways`` different ways; the others fail in a way of their own."""
    return [(i < won, f"way {i % ways}" if i < won else "no way") for i in range(n)]


def test_measures_by_hand() -> None:
    # Eight samples a task. Task 0: two successes of one strategy, a valid failure and five unreadable answers;
    # task 1: three successes of two strategies; task 2: none, all unreadable.
    first = [(True, "a"), (False, "b"), (True, "a"), *[(False, None)] * 5]
    second = [(True, "a"), (True, "b"), (True, "a"), *[(False, "c")] * 5]
    third: list[tuple[bool, str | None]] = [(False, None)] * 8
    groups, scores = zip(*(made(i, results) for i, results in enumerate((first, second, third))), strict=True)
    assert measures(groups, scores) == pytest.approx({
        "accuracy": (2 / 8 + 3 / 8 + 0) / 3,
        "pass_at_8": 2 / 3,
        "coverage": (1 + 2 + 0) / 3,  # distinct strategies that succeeded
        "coverage_k": 8,
        "entropy": 1.5,  # -log p of an answer: two or four tokens at 0.5 nats, every other one
        "valid_mass": (3 + 8 + 0) / 24,
    })  # fmt: skip


def test_pass_at_every_k_against_binomials() -> None:
    """1 - C(n - c, k) / C(n, k) with n = 64."""
    groups, scores = zip(*(made(i, wins(64, won)) for i, won in enumerate((0, 1, 3, 20, 64))), strict=True)
    found = measures(groups, scores)
    for k, name in ((1, "accuracy"), (8, "pass_at_8"), (16, "pass_at_16"), (64, "pass_at_64")):
        each = [1 - math.comb(64 - won, k) / math.comb(64, k) for won in (0, 1, 3, 20, 64)]
        assert found[name] == pytest.approx(sum(each) / 5, rel=1e-12), k
    assert "pass_at_1" not in found, "that is accuracy"


@pytest.mark.parametrize(
    ("n", "names"), [(1, []), (7, []), (8, [8]), (63, [8, 16]), (64, [8, 16, 64]), (100, [8, 16, 64])]
)
def test_only_estimable_ks(n: int, names: list[int]) -> None:
    group, scores = made(0, wins(n, 1))
    found = measures([group], [scores])
    assert [key for key in found if key.startswith("pass_at")] == [f"pass_at_{k}" for k in names]
    assert found["coverage_k"] == n and found["accuracy"] == pytest.approx(1 / n)


def test_hard_tasks_apart() -> None:
    # Easy: 8 of 8 and 0 of 8; hard: 2 of 8 and 0 of 8.
    parts = [
        made(0, wins(8, 8), False),
        made(1, wins(8, 2), True),
        made(2, wins(8, 0), False),
        made(3, wins(8, 0), True),
    ]
    groups, scores = zip(*parts, strict=True)
    found = measures(groups, scores)
    assert found["accuracy"] == pytest.approx((1 + 0.25) / 4)
    assert found["pass_at_1_hard"] == pytest.approx(0.25 / 2)
    assert (found["pass_at_8"], found["pass_at_8_hard"]) == (0.5, 0.5)


@pytest.mark.parametrize("hard", [None, False, True])
def test_where_all_tasks_are_of_one_kind_there_is_no_hard_split(hard: bool | None) -> None:
    groups, scores = zip(made(0, wins(8, 2), hard), made(1, wins(8, 3), hard), strict=True)
    assert not [name for name in measures(groups, scores) if name.endswith("_hard")]


# --- the judge ------------------------------------------------------------------------------------------------------------


class Told(Words):
    def answer(self, task: Task) -> tuple[int, ...]:
        return (20 + task.index, 99)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for kind in (Colours, Walks):
        monkeypatch.setitem(registry.REGISTRY, kind.name, (ToyOptions, kind))
    Colours.asked.clear()
    yield
    Colours.asked.clear()


def judge(
    sampler: dict[str, Any] | None = None, environment: str = "colours", seed: int = 0, **evaluation: Any
) -> Judge:
    config = Config.build(
        environment={"name": environment}, sampler=sampler or {}, run={"seed": seed},
        evaluation={"eval_tasks": 5, "eval_samples": 8} | evaluation,
    )  # fmt: skip
    training = environments.make(environment, prize="blue")
    return Judge(config, training, FakeEngine(), tiny_policy(), Told())  # type: ignore[arg-type]


def words(seed: int, position: int, task: int, samples: int = 8) -> list[str]:
    """What ``FakeEngine`` draws, from the streams as they are documented: one a task and sample."""
    return [WORDS[10 + int(stream(seed, "evaluation", position, task, i).integers(3))] for i in range(samples)]


def test_validation_draws_directly_from_streams_of_its_own() -> None:
    one = judge({"name": "sesa", "group_size": 4, "temperature": 0.5, "max_tokens": 9})
    found, rows = one.validation(30)
    engine: Any = one.engine
    assert engine.batches == [list(range(5 * 8))], "all tasks side by side"
    assert [context for context, _ in engine.drawn] == [(20 + task, 99) for task in range(5) for _ in range(8)]
    assert {(s.temperature, s.max_tokens, s.stop_ids) for s in engine.samplings} == {(0.5, 9, one.speaker.stop_ids)}
    drawn = [words(0, 0, task) for task in range(5)]
    blue = [own.count("blue") for own in drawn]  # the training environment's prize, as its options say
    assert found["accuracy"] == pytest.approx(sum(blue) / 40)
    assert found["coverage"] == pytest.approx(sum(won > 0 for won in blue) / 5)
    assert found["entropy"] == pytest.approx(1.0) and found["valid_mass"] == 1.0  # two tokens at -0.5
    assert found["pass_at_1_hard"] == pytest.approx((blue[1] + blue[3]) / 16)
    shares = {(row["task"], row["strategy"]): row["probability"] for row in rows}
    assert shares == {(t, word): drawn[t].count(word) / 8 for t in range(5) for word in set(drawn[t])}
    assert all(row["success"] == (row["strategy"] == "blue") and row["step"] == 30 for row in rows)
    assert sum(shares.values()) == pytest.approx(5.0)


def test_unreadable_answers_have_a_share_too() -> None:
    one = judge(eval_tasks=1)
    one.engine.cut |= {0, 3}  # type: ignore[attr-defined]
    found, rows = one.validation(1)
    (lost,) = [row for row in rows if row["strategy"] is None]
    assert lost["probability"] == 2 / 8 and not lost["success"]
    assert found["valid_mass"] == 6 / 8


def test_what_is_judged_is_never_a_training_task() -> None:
    one = judge(test_tasks=3, test_guided="yes")
    assert Colours.asked == [("validation", 4), ("test", 2)], "whether there are enough"
    Colours.asked.clear()
    one.validation(1)
    assert Colours.asked == [("validation", task) for task in range(5)]
    Colours.asked.clear()
    one.test()
    assert Colours.asked == [("test", task) for task in range(3)] * 2


def test_a_split_without_tasks_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoTest(Colours):
        def __init__(self, options: ToyOptions) -> None:
            if options.split == "test":
                raise InputError("no task of the file is in split 'test'")
            super().__init__(options)

    monkeypatch.setitem(registry.REGISTRY, "colours", (ToyOptions, NoTest))
    judge().validation(1)
    with pytest.raises(InputError, match="no task of the file is in split 'test'"):
        judge(test_tasks=1)


def test_too_few_tasks_are_told_before_any_training() -> None:
    """They came to light at the last step once, after all training, and again on each resume."""

    def lakes(tasks: int, **evaluation: int) -> Judge:
        config = Config.build(environment={"name": "frozen_lake"}, evaluation={"eval_samples": 4} | evaluation)
        training = environments.make("frozen_lake", tasks=tasks)
        return Judge(config, training, FakeEngine(), tiny_policy(), Told())  # type: ignore[arg-type]

    lakes(9, eval_tasks=9, test_tasks=9)
    with pytest.raises(
        InputError, match=r"evaluation\.test_tasks = 10, and .*split 'test' has 9 tasks; lower evaluation"
    ):
        lakes(9, eval_tasks=9, test_tasks=10)
    # Of two numbers up to 10 there are few tasks, whatever `tasks` says.
    config = Config.build(environment={"name": "countdown"}, evaluation={"eval_tasks": 64})
    training = environments.make("countdown", n_numbers=2)
    with pytest.raises(InputError, match=r"evaluation\.eval_tasks = 64, .*only 14 distinct tasks were found"):
        Judge(config, training, FakeEngine(), tiny_policy(), Told())  # type: ignore[arg-type]


def test_a_policy_is_never_trained_on_all_tasks(tmp_path: Path) -> None:
    """Among them are those that it is judged on."""
    file = tmp_path / "ten.jsonl"
    file.write_text("".join(f'{{"problem": "{n} + 1?", "answer": {n + 1}}}\n' for n in range(40)))
    config = Config.build(environment={"name": "math"}, evaluation={"eval_tasks": 1, "eval_samples": 4})
    with pytest.raises(
        InputError, match=r"math\.split = 'all' holds the tasks that a policy is judged on .* test_dataset"
    ):
        Judge(config, environments.make("math", dataset=str(file), split="all"), FakeEngine(), tiny_policy(), Told())  # type: ignore[arg-type]
    Judge(config, environments.make("math", dataset=str(file)), FakeEngine(), tiny_policy(), Told())  # type: ignore[arg-type]


def test_an_environment_without_splits_is_judged_on_its_own_tasks() -> None:
    config = Config.build(evaluation={"eval_tasks": 2, "eval_samples": 4})
    training = environments.make("path_exploration", maps=3, seed=5)
    one = Judge(config, training, FakeEngine(), tiny_policy(), Told())  # type: ignore[arg-type]
    found, rows = one.validation(1)
    assert found["valid_mass"] == 0.0  # colours are no paths
    assert [(row["task"], row["strategy"], row["probability"]) for row in rows] == [(0, None, 1.0), (1, None, 1.0)]


def test_every_evaluation_draws_the_same_numbers_and_another_seed_others() -> None:
    one = judge(test_tasks=5)
    first, again = one.validation(1), one.validation(2)
    assert first[0] == again[0]
    assert [row["probability"] for row in first[1]] == [row["probability"] for row in again[1]]
    drawn = lambda found: [completion.text for _, completion in found.engine.drawn]  # noqa: E731
    other = judge(seed=1)
    other.validation(1)
    assert drawn(other) == [word for task in range(5) for word in words(1, 0, task)] != drawn(one)[:40]
    one.test()
    assert drawn(one)[80:] == [word for task in range(5) for word in words(0, 1, task)] != drawn(one)[:40]


@pytest.mark.parametrize(
    ("rows", "batches"),
    [
        (1, [1] * 40),
        (3, [3, 3, 2] * 5),  # a group that is too large is drawn in parts
        (8, [8] * 5),
        (20, [16, 16, 8]),
        (39, [32, 8]),
        (1024, [40]),
    ],
)
def test_many_answers_are_drawn_in_parts_with_the_same_result(
    rows: int, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = judge().validation(1)
    monkeypatch.setattr(room, "ROWS", rows)
    one = judge()
    assert one.validation(1) == whole
    assert [len(batch) for batch in one.engine.batches] == batches  # type: ignore[attr-defined]


def test_sketches_keep_a_group_together(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = judge(test_tasks=3, test_guided="yes").test()
    monkeypatch.setattr(room, "ROWS", 3)
    one = judge(test_tasks=3, test_guided="yes")
    assert one.test() == whole
    assert [len(batch) for batch in one.engine.batches] == [3, 3, 2] * 3 + [*[1] * 8, 8] * 3  # type: ignore[attr-defined]


def test_episodes_are_drawn_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = judge(environment="walks").validation(1)
    monkeypatch.setattr(room, "ROWS", 3)
    assert judge(environment="walks").validation(1) == whole


def test_what_the_model_has_no_room_for_is_refused() -> None:
    # tiny_policy has 256 positions; a prompt has 2 tokens.
    with pytest.raises(
        InputError, match=r"a prompt of 2 tokens and sampler\.max_tokens = 255 make 257, which exceeds .* 256"
    ):
        judge({"max_tokens": 255}).validation(1)
    judge({"max_tokens": 254}).validation(1)


def test_judging_costs_the_run_nothing() -> None:
    one = judge(test_tasks=2, test_guided="yes")
    one.engine.counters.sampled, one.engine.counters.prefilled = 7, 3
    one.validation(1)
    one.test()
    assert (one.engine.counters.sampled, one.engine.counters.prefilled) == (7, 3)


def test_without_test_tasks_nothing_is_asked_of_the_test_split() -> None:
    assert judge().test() == []
    assert Colours.asked == [("validation", 4)]


@pytest.mark.parametrize(("samples", "sketches"), [(64, 8), (12, 6), (8, 8), (13, 1), (7, 7), (1, 1)])
def test_sketches_of_a_guided_test(samples: int, sketches: int) -> None:
    """As many sketches as divide the samples, 8 at most; direct samples beside them on the same tasks."""
    one = judge({"sketch_tokens": 5}, eval_samples=samples, test_tasks=2, test_guided="yes")
    direct, guided = one.test()
    assert (direct["guided"], guided["guided"]) == (False, True)
    engine: Any = one.engine
    assert [len(batch) for batch in engine.batches] == [2 * samples, *[2] * sketches, 2 * samples]
    assert [s.max_tokens for s in engine.samplings] == [16, *[5] * sketches, 16]
    texts = [
        [WORDS[10 + int(stream(0, "evaluation", 2, task, samples + k).integers(3))] for k in range(sketches)]
        for task in range(2)
    ]
    contexts = [context for context, _ in engine.drawn[2 * samples + 2 * sketches :]]
    assert contexts == [
        (20 + task, 30, *spelled(text), 31)
        for task in range(2) for text in texts[task] for _ in range(samples // sketches)
    ]  # fmt: skip
    drawn = [words(0, 2, task, samples) for task in range(2)]
    assert guided["accuracy"] == pytest.approx(np.mean([own.count("blue") / samples for own in drawn]))
    assert direct["coverage_k"] == guided["coverage_k"] == samples


@pytest.mark.parametrize(
    "sampler",
    [
        {"name": "parallel"},
        {"name": "sequential", "redraws": 2},
        {"name": "sesa", "group_size": 10, "on_policy_fraction": 0.4, "expansions": 3, "drafting": "iid"},
        {"name": "sesa", "drafting_form": "prompt", "redraws": 3, "repeated_sketch": "drop"},
    ],
    ids=lambda sampler: "-".join(map(str, sampler.values())),
)
def test_a_guided_test_is_the_same_however_the_run_drew_its_groups(sampler: dict[str, Any]) -> None:
    """Arms are compared on equal terms: in sequence, as one list, nothing drawn again, repeats kept."""
    shared = {"sketch_tokens": 5, "max_tokens": 9, "temperature": 0.7}
    reference, one = (judge(own | shared, test_tasks=2, test_guided="yes") for own in ({}, sampler))
    assert one.test() == reference.test()
    for name in ("batches", "samplings", "drawn", "started"):
        assert getattr(one.engine, name) == getattr(reference.engine, name)
    assert guided(one.config, 12) == SamplerConfig(
        name="sesa", group_size=12, expansions=2, sketch_tokens=5, max_tokens=9, temperature=0.7
    )


@pytest.mark.parametrize(("asked", "used"), [(0.0, 0.7), (0.5, 0.5)])
def test_samples_have_a_temperature_of_their_own_or_the_samplers(asked: float, used: float) -> None:
    one = judge({"temperature": 0.7}, eval_temperature=asked, test_tasks=2, test_guided="yes")
    one.validation(1)
    one.test()
    assert {sampling.temperature for sampling in one.engine.samplings} == {used}  # type: ignore[attr-defined]


def test_episodes_are_judged_by_their_own_verdicts() -> None:
    one = judge(environment="walks", eval_tasks=3)
    found, rows = one.validation(1)
    # By hand: a candidate's stream gives the episode's seed, then the words of its turns; Walks judges them.
    world, success, strategies = Walks(ToyOptions()), 0, []
    for task in range(3):
        for i in range(8):
            own = stream(0, "evaluation", 0, task, i)
            episode = world.reset(world.task(task), int(own.integers(2**32)))
            while not episode.over:
                episode = world.step(episode, WORDS[10 + int(own.integers(3))])
            success += episode.success
            strategies.append((task, episode.strategy))
    assert found["accuracy"] == pytest.approx(success / 24)
    assert {(row["task"], row["strategy"]) for row in rows} == set(strategies)
