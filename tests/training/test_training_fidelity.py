"""Swapped sketches: policies that always follow, that never look and that do both are told apart by hand-known numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny_models
from fake_dialogue import GUIDED, GUIDED_END, LIST, Words
from fake_engine import STOP, FakeSession
from toy_environments import Colours, ToyOptions, Walks

from sesa_lab import environments
from sesa_lab.config import Config
from sesa_lab.engines import Counters, Sampling, TorchEngine
from sesa_lab.environments import registry
from sesa_lab.errors import InputError
from sesa_lab.policies import load_policy, merged
from sesa_lab.prompts import Speaker
from sesa_lab.samplers import Request, draw
from sesa_lab.seeding import stream
from sesa_lab.training import evaluate, fidelity, held_out, room
from sesa_lab.training.fidelity import compare, swapped
from sesa_lab.training.fidelity_table import ARMS, Fidelity, reading
from sesa_lab.types import Completion, Task

COLOURS = ("red", "blue", "green", "grey")  # grey is no colour: it can be named, and no answer follows it


class Sketched(Colours):
    """The method is the colour."""

    def sketch(self, task: Task, text: str) -> str | None:
        return self.score(task, text).strategy

    def solutions(self, task: Task) -> list[str]:
        return [self.options["prize"]]


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(registry.REGISTRY, "colours", (ToyOptions, Sketched))
    monkeypatch.setitem(registry.REGISTRY, "walks", (ToyOptions, Walks))
    yield
    Colours.asked.clear()


class Asked(Words):
    """Prompts of any task that is asked."""

    stop_ids = (STOP,)

    def answer(self, task: Task) -> tuple[int, ...]:
        return (20 + task.index, 1000)


class Painter:
    """An engine that says one colour: of ``drafts`` as a sketch; as an answer its sketch's with probability ``obeys``, else any."""

    foreign = False

    def __init__(self, obeys: float, drafts: Sequence[str] = COLOURS[:3]) -> None:
        self.obeys, self.drafts, self.counters = obeys, drafts, Counters()
        self.rewound: list[tuple[int, int]] = []

    def synced(self) -> AbstractContextManager[None]:
        return nullcontext()

    def close(self) -> None: ...

    def start(self, contexts: Sequence[Sequence[int]]) -> PainterSession:
        return PainterSession(self, [list(context) for context in contexts])  # type: ignore[arg-type]


class PainterSession(FakeSession):
    engine: Any

    def fork(self, rows: Sequence[int]) -> PainterSession:
        return PainterSession(self.engine, [list(self.ids[row]) for row in rows])

    def sample(
        self, sampling: Sampling, streams: Sequence[np.random.Generator], rows: Sequence[int] | None = None
    ) -> list[Completion]:
        found = []
        chosen = range(len(self.ids)) if rows is None else rows
        for row, generator in zip(chosen, streams, strict=True):
            ids, luck = self.ids[row], generator.random()
            word = str(generator.choice(self.engine.drafts if ids[1] == LIST else COLOURS[:3]))
            if ids[1] == GUIDED and luck < self.engine.obeys:
                word = "".join(chr(i - 200) for i in ids[2 : ids.index(GUIDED_END, 2)])
            said = (*(ord(letter) + 500 for letter in word), STOP)
            ids.extend(said)
            found.append(Completion(said, (-1.0,) * len(said), word, "stop"))
        return found


def painted(
    monkeypatch: pytest.MonkeyPatch, obeys: float, drafts: Sequence[str] = COLOURS[:3], rows: int = 1000, **more: Any
) -> Fidelity:
    policy = SimpleNamespace(positions=10_000, form="lab")
    monkeypatch.setattr(evaluate, "opened", lambda *_: (policy, Asked()))
    monkeypatch.setattr(fidelity.engines, "make", lambda *_: Painter(obeys, drafts))
    monkeypatch.setattr(room, "rows_at_once", lambda *_: rows)
    asked = {"tasks": 40, "sketches": 6, **more}
    return compare(Config.build(environment={"name": "colours"}), None, **asked)


@cache
def estimates_of(found: Fidelity) -> pd.DataFrame:
    return found.estimates()


def mean(found: Fidelity, arm: str, measure: str) -> float:
    estimates = estimates_of(found)
    return float(estimates[(estimates["arm"] == arm) & (estimates["measure"] == measure)]["mean"].iloc[0])


def test_one_that_always_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    found = painted(monkeypatch, 1.0)
    for arm in ARMS[:3]:
        assert mean(found, arm, "follows") == mean(found, arm, "readable") == 1.0, arm
    assert mean(found, "swapped", "stubborn") == mean(found, "foreign", "stubborn") == 0.0
    assert mean(found, "own - swapped", "effect") == mean(found, "own - foreign", "effect") == 1.0
    assert mean(found, "own - swapped", "same_strategy") == 0.0
    assert mean(found, "own", "paraphrase_texts") == mean(found, "own", "paraphrase_methods") == 0.0
    # An arm's success is the share of red among the sketches it was given.
    own = found.samples[found.samples["arm"] == "own"]
    shares = (own["given"] == "red").groupby(own["task"]).mean()
    assert mean(found, "own", "success") == pytest.approx(shares.mean())
    assert "So the sketch decides the method" in reading(estimates_of(found))
    assert math.isnan(mean(found, "none", "follows")) and math.isnan(mean(found, "own", "stubborn"))


def test_one_that_never_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal streams: what it says is the same in all arms, so that every difference is exactly 0."""
    found = painted(monkeypatch, 0.0)
    for arm in ARMS[1:]:
        assert mean(found, f"own - {arm}", "effect") == mean(found, f"own - {arm}", "success") == 0.0, arm
        assert mean(found, f"own - {arm}", "same_strategy") == 1.0, arm
    # Colours of sketch and answer are independent: P(follow) = 1/3, the excess is 0. 240 answers; 4 standard errors.
    assert mean(found, "own", "follows") == pytest.approx(1 / 3, abs=4 * math.sqrt(2 / 9 / 240))
    estimates = estimates_of(found)
    (excess,) = estimates[(estimates["arm"] == "own") & (estimates["measure"] == "excess")].itertuples()
    assert excess.low < 0.0 < excess.high and excess.n == 40
    told = reading(estimates)
    assert "no other than chance" in told and "the sketch does not measurably change the method" in told


def test_one_that_follows_half_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """q = 1/2: P(m | given m) = q + (1 - q) / 3 = 2/3, P(m | given another) = (1 - q) / 3 = 1/6: effect q. 4 standard errors."""
    found = painted(monkeypatch, 0.5, tasks=60)
    for arm, measure, value in (
        ("own", "follows", 2 / 3), ("swapped", "follows", 2 / 3), ("swapped", "stubborn", 1 / 6),
        ("none", "stubborn", 1 / 3), ("own - swapped", "effect", 1 / 2), ("own - none", "effect", 1 / 3),
    ):  # fmt: skip
        assert mean(found, arm, measure) == pytest.approx(value, abs=4 * 0.5 / math.sqrt(300)), (arm, measure)
    assert "the sketch has a say in the method" in reading(estimates_of(found))


def test_what_stands_in_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    found = painted(monkeypatch, 1.0, tasks=7, samples=2).samples
    own, other, foreign, none = (found[found["arm"] == arm].set_index(["task", "index"]) for arm in ARMS)
    assert len(own) == len(foreign) == len(none) == 7 * 12
    assert own["given"].equals(own["own"]) and none["given"].isna().all()
    assert (other["given"] != other["own"]).all() and other["own"].equals(own["own"].loc[other.index])
    for task, part in own.groupby("task"):
        assert (part["own"].to_numpy()[::2] == part["own"].to_numpy()[1::2]).all(), "two solutions a sketch"
        mine = other.loc[task]
        assert sorted(mine["given"]) == sorted(mine["own"]), "swapped among themselves"
    drafted = {task: part["own"].tolist() for task, part in own.groupby("task")}
    given = [part["given"].tolist() for _, part in foreign.groupby("task")]
    assert sorted(given) == sorted(drafted.values()), "each task's sketches go to one other task"
    assert (own["logprob"] == [-len(text) - 1.0 for text in own["completion"]]).all()
    assert (own["success"] == (own["completion"] == "red")).all()


@pytest.mark.parametrize("way", fidelity.WAYS)
def test_how_many_tasks_are_drawn_at_a_time_makes_no_difference(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    whole = painted(monkeypatch, 0.5, tasks=5, way=way).samples
    for rows in (1, 13):
        pd.testing.assert_frame_equal(painted(monkeypatch, 0.5, tasks=5, rows=rows, way=way).samples, whole)


def test_tasks_of_one_sketch_only_have_nothing_to_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    found = painted(monkeypatch, 1.0, drafts=["red"], tasks=3)
    assert Counter(found.samples["arm"]) == {"own": 18, "foreign": 18, "none": 18}
    estimates = estimates_of(found).set_index(["arm", "measure"])
    assert estimates.loc[("own", "follows"), "mean"] == estimates.loc[("own", "chance"), "mean"] == 1.0
    for lost in (("swapped", "follows"), ("swapped", "distinct"), ("own - swapped", "effect"), ("own", "kappa")):
        assert math.isnan(estimates.loc[lost, "mean"]) and estimates.loc[lost, "n"] == 0
    told = reading(estimates_of(found))
    assert "Given another sketch" not in told and "differ as texts" not in told and "no other than chance" in told


def test_a_sketch_that_no_answer_follows_is_not_followed_and_unreadable_answers_are_reported_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = painted(monkeypatch, 1.0, drafts=["grey", "red"], tasks=20)
    own = found.samples[found.samples["arm"] == "own"]
    grey = own["own"] == "grey"
    assert own["method"][grey].isna().all() and not own["success"][grey].any()
    assert mean(found, "own", "readable") == pytest.approx(1 - grey.groupby(own["task"]).mean().mean())
    assert mean(found, "own", "follows") == 1.0, "of the solutions that can be read"
    assert (own["solves"] == ~grey).all(), "red is the solver's one solution"
    # Effect over pairs of both kinds: told red 1 - 0, told grey 0 - 0; equally many of each are swapped.
    assert mean(found, "own - swapped", "effect") == 0.5


def test_sketches_that_solve_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of red, blue and green only red solves: all of red's solutions are red, whatever the others are."""
    found = painted(monkeypatch, 1.0, tasks=5)
    blue = (found.samples["given"] == "blue") & (found.samples["arm"] == "own")
    found.samples.loc[blue, "method"] = "green"
    assert mean(found, "own", "follows_solving") == 1.0 > mean(found, "own", "follows")
    assert "of those that can lead to a solution in 100 % [100 to 100]" in reading(estimates_of(found))
    unknown = Fidelity(found.samples.assign(solves=None))
    assert math.isnan(mean(unknown, "own", "follows_solving"))
    assert "can lead to a solution" not in reading(estimates_of(unknown))


def test_nothing_to_read_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    found = painted(monkeypatch, 1.0, drafts=["grey", "<b>"], tasks=3)
    assert "cannot be told" in reading(estimates_of(found))
    assert found.table().loc["follows", "own"] == "" and found.table().loc["readable", "own"] == "0.00 [0.00, 0.00]"


def test_the_table_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    found = painted(monkeypatch, 1.0, tasks=2)
    table = found.table()
    assert table.loc["follows", "own"] == "1.00 [1.00, 1.00]" and table.loc["follows", "none"] == ""
    assert list(table.columns) == [*ARMS, "own - swapped", "own - foreign", "own - none"]
    assert set(table.index) == set(estimates_of(found)["measure"]), "every measure is shown"
    one = Fidelity(found.samples[found.samples["task"] == 0])
    assert one.table().loc["follows", "own"] == "1.00" and "[no interval]" in reading(one.estimates())


def test_the_bootstrap_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    found = painted(monkeypatch, 0.5, tasks=9)
    assert found.estimates(3).equals(found.estimates(3)) and not found.estimates(3).equals(found.estimates(4))


@pytest.mark.parametrize(
    ("effect", "words"),
    [
        ((0.9, 0.85, 0.95), "the sketch decides the method"),
        ((0.9, 0.75, 0.95), "the sketch mostly decides the method"),
        ((0.2, 0.1, 0.3), "the sketch has a say in the method"),
        ((0.1, -0.1, 0.3), "the sketch does not measurably change the method"),
        ((-0.2, -0.3, -0.1), "the sketch works against the method"),
    ],
)
def test_words_depend_on_intervals(
    monkeypatch: pytest.MonkeyPatch, effect: tuple[float, float, float], words: str
) -> None:
    estimates = estimates_of(painted(monkeypatch, 1.0, tasks=2))
    here = (estimates["arm"] == "own - swapped") & (estimates["measure"] == "effect")
    estimates = estimates.copy()
    estimates.loc[here, ["mean", "low", "high"]] = effect
    assert words in reading(estimates) and f"[{100 * effect[1]:+.0f} to {100 * effect[2]:+.0f}]" in reading(estimates)


# --- swapping -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["ab", "aabb", "abcdefgh", "aaabbc", "aaaab", "aaaaaabc", "aaaa", "a", ""])
def test_swapped_leaves_no_label_in_place_and_out_as_few_as_possible(labels: str) -> None:
    most = max(Counter(labels).values(), default=0)
    expected = min(len(labels), 2 * (len(labels) - most))  # of a majority, as many as there are others
    for seed in range(50):
        found = swapped(list(labels), np.random.default_rng(seed))
        taken = [other for other in found if other is not None]
        assert len(taken) == len(set(taken)) == expected and len(found) == len(labels)
        assert all(other is None or labels[k] != labels[other] for k, other in enumerate(found))
        assert {k for k, other in enumerate(found) if other is not None} == set(taken), "among themselves"


def test_swapped_may_give_any_counterpart_where_labels_differ() -> None:
    """Four labels: each of the others about as often, 1/3; 3,000 draws, 4 standard errors."""
    given = Counter(swapped(list("abcd"), np.random.default_rng(seed))[0] for seed in range(3000))
    assert set(given) == {1, 2, 3} and all(abs(n / 3000 - 1 / 3) < 4 * math.sqrt(2 / 9 / 3000) for n in given.values())


# --- a real policy ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Spells byte by byte, at random."""
    folder = tmp_path_factory.mktemp("models") / "model"
    return str(tiny_models.save_model(folder, max_position_embeddings=2048, hidden_size=32, num_hidden_layers=1))


def settings(model: str, environment: str = "colours", **sampler: Any) -> Config:
    return Config.build(
        environment={"name": environment}, policy={"model": model, "device": "cpu"},
        sampler={"max_tokens": 8, "temperature": 0.9, "sketch_tokens": 5, **sampler},
    )  # fmt: skip


def test_a_real_policys_own_arm_is_plain_sesa(model: str) -> None:
    """Bit for bit as the sampler draws it from the same streams."""
    config = settings(model)
    found = compare(config, None, 2, 3, 2).samples
    environment = environments.make("colours", split="validation")
    policy = load_policy(config.policy, "colours", environment.options, config.run.seed)
    speaker = Speaker(policy.tokenizer, policy.form, "colours", policy.stop_ids)
    sampler = Config.build(
        sampler={
            "name": "sesa", "group_size": 6, "expansions": 2, "max_tokens": 8, "sketch_tokens": 5, "temperature": 0.9,
        }
    ).sampler  # fmt: skip
    assert sampler == held_out.dataclasses.replace(held_out.guided(config, 3), group_size=6, expansions=2)
    tasks = [environment.task(index) for index in range(2)]
    with merged(policy.model):
        groups = draw(
            TorchEngine(policy), [Request(task, speaker.answer(task)) for task in tasks], sampler, speaker,
            lambda g, i: stream(config.run.seed, "evaluation", 3, g, i),
        )  # fmt: skip
    own = found[found["arm"] == "own"]
    candidates = [candidate for group in groups for candidate in group.candidates]
    assert own["completion"].tolist() == [candidate.text for candidate in candidates]
    assert own["logprob"].tolist() == [candidate.logprob for candidate in candidates]
    assert own["given"].tolist() == [g.sketches[c.sketches[0]].text for g in groups for c in g.candidates]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"tasks": 1}, r"tasks >= 2 and sketches >= 2.*got 1, 2, 1"),
        ({"sketches": 1}, r"got 2, 1, 1"),
        ({"samples": 0}, r"got 2, 2, 0"),
        ({"way": "parallel"}, r"way of drafting 'parallel': expected one of sesa, iid-sketches"),
        ({"environment": "walks"}, r"walks answers in 3 turns.*set --option turns=1"),
        ({"tasks": 2000}, r"not so many tasks"),
        ({"max_tokens": 3000}, r"exceeds the model's 2048"),
        ({"sketch_tokens": 1000, "sketches": 4}, r"or draft fewer sketches"),
    ],
)
def test_what_cannot_be_compared_is_refused(model: str, changes: dict[str, Any], named: str) -> None:
    asked = {"tasks": 2, "sketches": 2, "samples": 1} | changes
    sampler = {name: asked.pop(name) for name in ("max_tokens", "sketch_tokens") if name in asked}
    config = settings(model, asked.pop("environment", "colours"), **sampler)
    with pytest.raises(InputError, match=named):
        compare(config, None, **asked)


def test_what_no_foreign_sketch_can_tell_is_left_out_of_the_words() -> None:
    measures = ("readable", "follows", "chance", "excess", "follows_solving", "stubborn", "success", "paraphrase_texts")
    rows = [
        {"arm": arm, "measure": name, "mean": 0.5, "low": 0.4, "high": 0.6, "n": 9}
        for arm in ("own", "swapped", "foreign", "none", "own - swapped", "own - none")
        for name in (*measures, "effect")
    ]
    known = pd.DataFrame(rows)
    assert "50 % [40 to 60] follow it, of those whose sketch can be read too" in reading(known)
    unknown = known.copy()
    unknown.loc[(known["arm"] == "foreign") & (known["measure"] == "follows"), ["mean", "low", "high"]] = float("nan")
    assert "nan" not in reading(unknown)
    assert "With a sketch of another task 50 % [40 to 60] of the solutions can be read." in reading(unknown)
