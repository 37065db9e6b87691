"""What trackers are told is what metrics.jsonl says, also of a run that was killed and went on; none of them can end a run."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import train_process
from accelerate import tracking
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sesa_lab import runs
from sesa_lab.config import Config
from sesa_lab.errors import InputError
from sesa_lab.training.loop import resume, train
from sesa_lab.training.trackers import Trackers, flat, names

PROJECT = Path(runs.__file__).resolve().parents[2]
CONFIG = {"update": {"learning_rate": 0.001}, "environment": {"options": {"depth": 3}}, "policy": {"adapter": ""}}


class Fake(tracking.GeneralTracker):
    """Keeps what it is told, over all that are made; ``breaks`` names the methods that raise."""

    name = "fake"
    requires_logging_directory = False
    told: list[Any] = []  # noqa: RUF012 - emptied by the fixture
    breaks: str = ""

    def __init__(self, run_name: str) -> None:
        super().__init__()
        self.run_name = run_name

    @property
    def tracker(self) -> Any:
        return self

    def _do(self, method: str, *what: Any) -> None:
        if method in self.breaks:
            raise ConnectionError("the server is away")
        self.told.append((method, *what))

    def start(self) -> None:
        self._do("start", self.run_name)

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self._do("settings", values)

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        self._do("log", step, values)

    def finish(self) -> None:
        self._do("finish")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Fake]]:
    monkeypatch.setattr(Fake, "told", [])
    monkeypatch.setattr(Fake, "breaks", "")
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "fake", Fake)
    yield Fake


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value) of all event files below, as TensorBoard shows them."""
    found = {}
    for run in sorted({path.parent for path in folder.rglob("events.out.tfevents.*")}):
        reader = EventAccumulator(str(run), size_guidance={"scalars": 0})
        reader.Reload()
        for tag in reader.Tags()["scalars"]:
            assert tag not in found, "one run"
            found[tag] = [(event.step, event.value) for event in reader.Scalars(tag)]
    return found


def logged(path: Path) -> dict[str, list[tuple[int, float]]]:
    """The same of metrics.jsonl: what is a number there."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in map(json.loads, (path / "metrics.jsonl").read_text().splitlines()):
        kind, step = line.pop("kind"), line.pop("step")
        group = f"{kind}_guided" if line.pop("guided", None) is True else kind
        for name, value in line.items():
            if value is not None:
                found.setdefault(f"{group}/{name}", []).append((step, value))
    return found


def assert_same(ours: dict[str, list[tuple[int, float]]], theirs: dict[str, list[tuple[int, float]]]) -> None:
    assert ours.keys() == theirs.keys()
    for tag, values in ours.items():
        assert [step for step, _ in values] == [step for step, _ in theirs[tag]], tag
        np.testing.assert_allclose(  # event files hold single precision
            [value for _, value in values], [value for _, value in theirs[tag]], rtol=1e-6, err_msg=tag
        )


@pytest.mark.slow
def test_tensorboard_shows_a_killed_run_as_metrics_jsonl_has_it(tmp_path: Path) -> None:
    path = tmp_path / "run"
    config = Config.build(
        sampler={"name": "sesa", "group_size": 4, "expansions": 2},
        run={"steps": 3, "groups": 1, "evaluate_every": 1, "checkpoint_every": 2, "coverage_k": 4},
        evaluation={"test_tasks": 1, "eval_samples": 8, "test_guided": "yes"},
    )
    train_process.kill_within(2, config, path)
    assert [step for step, _ in events(path / "trackers")["step/reward"]] == [1], "told, and not committed"
    time.sleep(1.1)  # TensorBoard reads files in the order of their names, which tell the second they were begun in
    resume(path)
    shown = events(path / "trackers")
    assert_same(shown, logged(path))
    assert [step for step, _ in shown["step/reward"]] == [1, 2, 3]
    assert {"evaluation/accuracy", "test/accuracy", "test_guided/accuracy"} <= shown.keys()
    assert len(list((path / "trackers").rglob("events.out.tfevents.*"))) == 2, "one file a process, no runs beside it"


def test_what_lies_beyond_the_last_checkpoint_is_void(tmp_path: Path) -> None:
    for done, steps, shift in ((None, (0, 1, 2, 3), 0.0), (1, (2, 3), 0.5)):
        with Trackers("tensorboard", tmp_path, CONFIG, done) as trackers:
            for step in steps:
                trackers.log("step", step, {"loss": step + shift})
    assert events(tmp_path / "trackers") == {"step/loss": [(0, 0.0), (1, 1.0), (2, 2.5), (3, 3.5)]}


def test_numbers_alone_are_told_and_the_settings_flat(tmp_path: Path, fake: type[Fake]) -> None:
    with Trackers("fake", tmp_path, CONFIG, None) as trackers:
        trackers.log("step", 1, {"loss": np.float32(0.5), "kl": math.nan, "ratio": math.inf, "base": None, "text": "x"})
        trackers.log("test", 1, {"guided": True, "accuracy": 1, "by": {"task": {"3": 0.25}}})
    assert fake.told == [
        ("start", "sesa_lab"),
        ("settings", {"update.learning_rate": 0.001, "environment.options.depth": 3, "policy.adapter": ""}),
        ("log", 1, {"step/loss": 0.5}),
        ("log", 1, {"test_guided/accuracy": 1.0, "test_guided/by.task.3": 0.25}),
        ("finish",),
    ]
    trackers.close()
    assert Counter(entry[0] for entry in fake.told)["finish"] == 1


def test_one_that_keeps_its_records_elsewhere_is_told_nothing_twice(tmp_path: Path, fake: type[Fake]) -> None:
    for done, steps in ((None, (0, 1, 2, 3)), (1, (2, 3, 4))):
        with Trackers("fake", tmp_path, CONFIG, done) as trackers:
            for step in steps:
                trackers.log("step", step, {"loss": step})
                trackers.log("evaluation", step, {"accuracy": step})
    told = [(step, *values) for method, step, values in (e for e in fake.told if e[0] == "log")]
    assert told == [(step, name) for step in range(5) for name in ("step/loss", "evaluation/accuracy")]
    assert [entry[0] for entry in fake.told].count("settings") == 1


@pytest.mark.parametrize("breaks", ["start", "settings", "log", "finish"])
def test_one_that_fails_is_given_up_and_said_once(
    breaks: str, tmp_path: Path, fake: type[Fake], capsys: pytest.CaptureFixture[str]
) -> None:
    fake.breaks = breaks
    with Trackers("fake,tensorboard", tmp_path, CONFIG, None) as trackers:
        for step in range(3):
            trackers.log("step", step, {"loss": 1.0})
        assert list(trackers.active) == (["fake", "tensorboard"] if breaks == "finish" else ["tensorboard"])
    written = capsys.readouterr().err.splitlines()
    assert len(written) == 1 and "'fake' failed and is given up (ConnectionError: the server is away)" in written[0]
    assert events(tmp_path / "trackers") == {"step/loss": [(0, 1.0), (1, 1.0), (2, 1.0)]}, "the other goes on"


def test_none_writes_nothing(tmp_path: Path) -> None:
    for text in ("none", ""):
        with Trackers(text, tmp_path, CONFIG, None) as trackers:
            trackers.log("step", 1, {"loss": 1.0})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tensorbord", "no tracker 'tensorbord'; did you mean 'tensorboard'"),
        ("tensorboard,none", "no tracker 'none'"),
        ("tensorboard,,", "no tracker ''"),
        ("comet_ml", "pip install comet-ml"),
    ],
)
def test_names_that_cannot_be_used(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        names(text)
    with pytest.raises(InputError, match=message):
        Trackers(text, tmp_path, CONFIG, None)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_the_package_s_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb").mkdir()  # as wandb itself makes where it runs
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match="pip install wandb"):
        names("wandb")


def test_a_run_starts_no_tracker_that_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'mlflow'"):
        train(Config.build(run={"steps": 1, "trackers": "mlfow"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_torn_state_costs_no_run(tmp_path: Path, fake: type[Fake]) -> None:
    (tmp_path / "trackers").mkdir()
    (tmp_path / "trackers" / "state.json").write_text('{"fake": {"lo')
    with Trackers("fake", tmp_path, CONFIG, 1) as trackers:
        trackers.log("step", 2, {"loss": 1.0})
    assert ("log", 2, {"step/loss": 1.0}) in fake.told


def test_flat() -> None:
    nested = {"a": {"b": {"c": 1}, "d": None}, "e": (1, 2), "f": np.int64(3)}
    assert dict(flat(nested)) == {"a.b.c": 1, "a.d": None, "e": "(1, 2)", "f": 3}
