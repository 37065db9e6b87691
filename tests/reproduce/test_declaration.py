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
        (
            ('[arms.mine.update]\nrepeats = "zero"', "[arms.mine]\nupdate = 3"),
            'arms."mine".update = 3, expected a table',
        ),
        (("environment = {", "update = 3\nenvironment = {"), "settings.update = 3, expected a table"),
        (("steps = 1", "steps = 1\nsettings = 3"), r"presets\.smoke\.settings = 3, expected a table"),
        (("steps = 1", 'steps = 1\nbases = "habit"'), r"presets\.smoke\.bases = 'habit', expected a list"),
        (("steps = 1", "steps = 1\nbases = [1]"), r"presets\.smoke\.bases = \[1\], expected texts in quotes"),
        (("steps = 1", 'steps = 1\narms = ["mine"]'), r"presets\.smoke\.arms = \['mine'\], expected a text"),
        (
            ('baseline = "plain"', 'baseline = "plain"\nmeasures = ["acuracy"]'),
            "measures has 'acuracy'; did you mean 'acc",
        ),
        (("[arms.mine.", "[arms.before."), "arms.before has the name of what runs were before training"),
        (
            ("steps = 1", "steps = 1\nsettings = { evaluation = { test_tasks = 4 } }"),
            "runs are judged on test tasks .* add an arm of no steps",
        ),
        *(
            (("[arms.mine.", f"[arms.{name!r}."), "an arm is called .* expected a letter or digit first and no slash")
            for name in ("a/b", "../../x", "=cmd|x", "", "n" * 200, "tab\tbed")
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    path = written(tmp_path, SMALL.replace(*change))
    with pytest.raises(InputError, match=said) as caught:
        plan(load(path), "smoke", tmp_path / "runs", tmp_path / "reports")
    assert "mine.toml" in str(caught.value) or any(
        part in said for part in ("0..1", "update.repeats", "section", "called")
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('task = "sokoban"', 'task = "sokban"'), "task = 'sokban'; did you mean 'sokoban'"),
        (("steps = 2\n", 'steps = 2\nbases = ["habit", "habit"]\n'), "bases = .* expected none twice"),
    ],
)
def test_what_is_wrong_with_a_copy_of_an_agents_file(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    path = written(tmp_path, (DECLARED / "sokoban.toml").read_text().replace(*change))
    with pytest.raises(InputError, match=said):
        plan(load(path), "smoke", tmp_path / "runs", tmp_path / "reports")


def test_no_report_takes_the_place_of_another(tmp_path: Path) -> None:
    """One of other seeds has a folder of its own, and a copy must have another name."""
    where = tmp_path / "runs", tmp_path / "reports"
    own, other = (plan(load("sokoban"), "lab", *where, seeds) for seeds in (None, [0, 1, 2, 7]))
    assert own.folder == tmp_path / "reports" / "lab" / "sokoban"
    assert other.folder == tmp_path / "reports" / "lab-seeds-0-2,7" / "sokoban"
    mine = plan(load(written(tmp_path, SMALL)), "smoke", *where, [3])
    assert next(iter(mine.notebooks.values()))["preset"] == "smoke"

    copy = tmp_path / "sokoban.toml"
    copy.write_text((DECLARED / "sokoban.toml").read_text())
    with pytest.raises(InputError, match=r"sokoban\.toml has the name of an experiment .* call it otherwise"):
        load(str(copy))
    assert load(str(DECLARED / "sokoban.toml")).name == "sokoban"


def test_unknown_names_are_told() -> None:
    with pytest.raises(InputError, match="no experiment 'countdow'; did you mean 'countdown'"):
        load("countdow")
    with pytest.raises(InputError, match=r"cannot read nowhere\.toml: No such file"):
        load("nowhere.toml")
    with pytest.raises(InputError, match="has no preset 'lab'"):
        plan(load(str(DECLARED / "group_size.toml")).__class__(**{
            **load("group_size").__dict__, "presets": {"smoke": {}},
        }), "lab", Path("runs"), Path("reports"))  # fmt: skip
