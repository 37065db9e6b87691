"""Other temperatures of a stored step, from the policy that drew it: agreement with what the run stored and logged."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from stored_runs import config as stored_config
from stored_runs import row, write
from toy_environments import ToyOptions, Walks

from sesa_lab import playground
from sesa_lab.config import Config
from sesa_lab.environments import registry
from sesa_lab.errors import InputError
from sesa_lab.playground import LossPlayground
from sesa_lab.playground.stored import Step
from sesa_lab.rescoring import Rescorer
from sesa_lab.training.loop import train

RUN: dict[str, Any] = {"steps": 2, "groups": 2, "checkpoint_every": 1, "trackers": "none"}
WAYS: dict[str, dict[str, dict[str, Any]]] = {
    "parallel": {"sampler": {"name": "parallel"}},
    "sequential, at 0.7": {"sampler": {"name": "sequential", "temperature": 0.7, "on_policy_fraction": 0.25}},
    "sketches, both likelihoods": {
        "sampler": {"name": "sesa", "expansions": 2, "on_policy_fraction": 0.25},
        "update": {"conditioning": "task+sketch", "transfer": "unsolved"},
    },
}


def trained(folder: Path, way: str) -> Path:
    chosen = WAYS[way]
    update = {"kl_coef": 0.3, "kl_estimator": "k2", "learning_rate": 0.01, **chosen.get("update", {})}
    train(Config.build(sampler={"group_size": 16, **chosen["sampler"]}, update=update, run=RUN), folder)
    return folder


class Heated:
    """A rescorer that never loads a policy: log-probs are divided by the temperature."""

    def __init__(self, step: Step) -> None:
        self.stored = step

    def at(self, temperature: float) -> Step:
        members = tuple(
            dataclasses.replace(
                one,
                old=tuple(x / temperature for x in one.old),
                base={one.known_under: tuple(x - 0.5 for x in one.old)},
            )
            for one in self.stored.members
        )
        return dataclasses.replace(self.stored, members=members)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_at_its_own_temperature_it_is_what_was_stored(way: str, tmp_path: Path) -> None:
    rescorer = Rescorer(trained(tmp_path / "run", way))
    stored = rescorer.stored
    found = rescorer.at(stored.config.sampler.temperature)
    assert stored.number == 2 and found.rescored and not stored.rescored
    for one, other in zip(found.members, stored.members, strict=True):
        np.testing.assert_allclose(one.drawn, other.drawn, rtol=0, atol=2e-5)
        np.testing.assert_allclose(one.old, other.old, rtol=0, atol=2e-5)
    # The step before it moved the policy away from its base, so that the logged loss has a KL penalty.
    known = playground.compute(found, playground.rule(found))
    guessed = playground.compute(stored, playground.rule(stored))
    assert known.loss == pytest.approx(stored.loss, abs=2e-5)
    assert abs(guessed.loss - stored.loss) > 1e-3
    assert {m.drawn_under for m in found.members} == {m.drawn_under for m in stored.members}


@pytest.mark.slow
def test_a_cold_softmax_has_less_of_a_choice(tmp_path: Path) -> None:
    rescorer = Rescorer(trained(tmp_path / "run", "parallel"), 1)
    cold, own, hot = (rescorer.at(t) for t in (0.25, 1.0, 4.0))
    assert rescorer.at(0.25) is cold and cold.config.sampler.temperature == 0.25

    def by_text(step: Step) -> pd.Series:
        return pd.Series({one.completion: sum(one.old) for one in step.members}).sort_index()

    # Of an answer's log-probs, what was the likeliest in its place becomes likelier yet in the cold, all else alike in the heat.
    assert by_text(cold).max() >= by_text(own).max() > by_text(hot).max()
    assert by_text(hot).std() < by_text(own).std() < by_text(cold).std()
    for step in (cold, own, hot):  # step 1: the adapter is fresh, so the policy is its base
        assert all(one.base["task"] == pytest.approx(one.old, abs=1e-6) for one in step.members)


@pytest.mark.slow
def test_steps_whose_policy_was_not_kept(tmp_path: Path) -> None:
    run = RUN | {"steps": 4, "checkpoint_every": 2}
    train(Config.build(sampler={"group_size": 4}, run=run), tmp_path / "run")
    assert Rescorer(tmp_path / "run").stored.number == 3
    with pytest.raises(
        InputError, match=r"the policy that drew step 4 of .* was not kept: .* drew step 1, 3; choose one"
    ):
        Rescorer(tmp_path / "run", 4)


def test_runs_that_cannot_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.REGISTRY, "walks", (ToyOptions, Walks))
    rows = [row(0), row(1), row(2)]
    own = dataclasses.replace(stored_config(), environment=Config.build(environment={"name": "walks"}).environment)
    with pytest.raises(InputError, match="walks answers in 3 turns"):
        Rescorer(write(tmp_path / "turns", rows, own))


@pytest.mark.parametrize("value", [0.05, 9, float("nan"), True, "1"])
def test_a_temperature_out_of_range(value: Any) -> None:
    rescorer = object.__new__(Rescorer)
    with pytest.raises(InputError, match=r"temperature = .*, expected a number from 0\.1 to 5"):
        rescorer.at(value)


def test_the_slider_asks_the_policy(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", [row(0), row(1), row(2)])
    step = playground.read(folder)
    bare = LossPlayground(folder)
    assert bare.controls["temperature"].disabled and "rescorer=Rescorer(run)" in bare.children[-1].value
    panel = LossPlayground(folder, rescorer=Heated(step))
    assert not panel.controls["temperature"].disabled and "exact, from the frozen base" in panel.children[-1].value
    panel.controls["temperature"].value = 2.0
    assert panel.controls["step"].disabled
    with pytest.raises(InputError, match="the policy that drew step 1 is loaded, and drew no other"):
        panel.reload()
    assert panel.result.tokens["old"].tolist() == [x / 2 for one in step.members for x in one.old]
    panel.controls["kl_coef"].value = 1.0
    assert panel.controls["drift"].disabled
    with_base = panel.result.loss
    panel.controls["drift"].disabled = False
    panel.controls["drift"].value = 0.7  # of no effect: the base is known
    assert panel.result.loss == with_base
    other = playground.read(write(tmp_path / "other", [row(0), row(1), row(2)]))
    with pytest.raises(InputError, match=r"the rescorer is of .*other, step 1, the playground of .*run, step 1"):
        LossPlayground(folder, rescorer=Heated(other))
