"""Experiments' files: what comes with the workbench is whole, and what is wrong in one is told before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from sesa_lab.errors import InputError
from sesa_lab.reports.run_notebooks import defaults
from sesa_lab.reproduce import known, load, plan
from sesa_lab.reproduce.declaration import DECLARED, PRESETS

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SMALL = """
title = "T"
question = "Q?"
notebooks = ["10_your_experiment.ipynb"]
baseline = "plain"
[settings]
environment = { name = "path_exploration" }
[arms.plain]
[arms.mine.update]
repeats = "zero"
[presets.smoke]
seeds = "0-1"
steps = 1
"""


def written(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


FROM_THE_HUB = ("math", "paper")
"""What needs data that no machine without a network has."""
SIZES = [(name, preset) for name in known() for preset in PRESETS if (name, preset) != FROM_THE_HUB]


def test_data_that_is_not_here_is_told_with_where_to_get_it() -> None:
    with pytest.raises(InputError, match="hf download HuggingFaceH4/aime_2024 --repo-type dataset"):
        plan(load(FROM_THE_HUB[0]), FROM_THE_HUB[1], Path("runs"), Path("reports"))


@pytest.mark.parametrize(("name", "preset"), SIZES)
def test_every_experiment_has_a_plan_at_every_size(name: str, preset: str, tmp_path: Path) -> None:
    made = plan(load(name), preset, tmp_path / "runs", tmp_path / "reports")
    assert made.folder == tmp_path / "reports" / preset / name
    for notebook, parameters in made.notebooks.items():
        assert set(parameters) <= set(defaults(notebook))
        for folder in ("runs", "reports"):
            if folder in parameters:
                assert (notebook.parent / parameters[folder]).resolve().is_relative_to(tmp_path)
    arms = {job.arm for job in made.jobs}
    if arms:
        assert made.experiment.baseline in arms
        assert {job.seed for job in made.jobs} == set(made.seeds)
        assert made.experiment.base in {"", *arms}
    assert list(tmp_path.iterdir()) == [], "planning writes nothing"


def test_every_notebook_has_an_experiment_and_claims_come_last() -> None:
    shown = {path.name for name in known() for path in load(name).notebooks}
    assert shown == {path.name for path in NOTEBOOKS.glob("*.ipynb")}
    assert known()[-1] == "claims"


def test_reported_experiments_have_five_seeds() -> None:
    for name in known():
        if load(name).matrix != "none":
            assert len(plan(load(name), "lab", Path("runs"), Path("reports")).seeds) >= 5, name


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    made = plan(load(written(tmp_path, SMALL)), "smoke", tmp_path / "runs", tmp_path / "reports", [3])
    assert [(job.arm, job.seed, job.config.update.repeats) for job in made.jobs] == [
        ("plain", 3, "environment"),
        ("mine", 3, "zero"),
    ]
    assert made.jobs[0].folder.parent == tmp_path / "runs" / "mine" and made.jobs[0].config.run.steps == 1
    (parameters,) = made.notebooks.values()
    assert parameters["seeds"] == [3] and parameters["preset"] == "smoke"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("title", "titel"), "unknown key 'titel'; did you mean 'title'"),
        (('"T"', "3"), "title = 3, expected a text in quotes"),
        (('question = "Q?"', ""), "lacks question"),
        (("10_your", "11_your"), "no notebook '11_your_experiment.ipynb' beside it"),
        (("presets.smoke", "presets.smok"), "unknown preset 'smok'; did you mean 'smoke'"),
        (("steps = 1", ""), "no steps; every preset of a matrix says how many"),
        (("steps = 1", "steps = true"), "steps = True, expected a whole number"),
        (('"0-1"', '"0..1"'), "'0..1': expected whole numbers such as 0-4"),
        (('"0-1"', "[0]"), r"seeds = \[0\], expected text such as"),
        (
            ("steps = 1", "steps = 1\nstep = 2"),
            "neither its matrix nor its notebooks take 'step'; did you mean 'steps'",
        ),
        (('repeats = "zero"', 'repeats = "none"'), "update.repeats"),
        (("[arms.plain]", "[arms.plain.updat]"), "unknown config section"),
        (('baseline = "plain"', 'matrix = "agent"'), "unknown matrix 'agent'; did you mean 'agents'"),
        (('baseline = "plain"', 'baseline = "plane"'), "baseline = 'plane' is no arm"),
        (("[arms.plain]", "[arms.plain"), "is no TOML"),
        (("steps = 1", 'steps = 1\nworkers = "two"'), "parameter workers is 'two'"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    path = written(tmp_path, SMALL.replace(*change))
    with pytest.raises(InputError, match=said) as caught:
        plan(load(path), "smoke", tmp_path / "runs", tmp_path / "reports")
    assert "mine.toml" in str(caught.value) or "0..1" in said or "update.repeats" in said or "section" in said
    assert not (tmp_path / "runs").exists()


def test_unknown_names_are_told() -> None:
    with pytest.raises(InputError, match="no experiment 'countdow'; did you mean 'countdown'"):
        load("countdow")
    with pytest.raises(InputError, match=r"cannot read nowhere\.toml: No such file"):
        load("nowhere.toml")
    with pytest.raises(InputError, match="has no preset 'lab'"):
        plan(load(str(DECLARED / "group_size.toml")).__class__(**{
            **load("group_size").__dict__, "presets": {"smoke": {}},
        }), "lab", Path("runs"), Path("reports"))  # fmt: skip
