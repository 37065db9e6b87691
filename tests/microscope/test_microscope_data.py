"""Shares, curves and alarms of runs that can be counted by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from microscope_runs import collapsing, config, row, two_steps, write

from sesa_lab.collapse import detect, direct_of, of_rollouts
from sesa_lab.errors import InputError
from sesa_lab.microscope import Selection, figures, heat, read, samples
from sesa_lab.microscope.data import View, paths, stretches

WATCHED = {"breadth_loss": 0.2, "live_loss": 0.0, "spread_loss": 0.0, "entropy_loss": 0.0, "success_loss": 0.0}


def test_shares_by_hand(tmp_path: Path) -> None:
    shown = heat([read(two_steps(tmp_path / "run"))])
    # Step 1 has 8 candidates: a 3 (1 succeeds), b 2 (1), c 2 (1), unreadable 1. Step 2: a 8. Mean share: a (3/8 + 1) / 2,
    # b and c 1/8 each, alike: by name.
    assert (shown.names, shown.rest, shown.solved) == (["a", "b", "c"], ["unreadable"], [True] * 3)
    assert shown.steps == [[1, 2]]
    assert shown.share[0].tolist() == [[3 / 8, 1.0], [2 / 8, 0.0], [2 / 8, 0.0], [1 / 8, 0.0]]
    assert shown.success[0].tolist() == [[1 / 8, 0.0], [1 / 8, 0.0], [1 / 8, 0.0], [0.0, 0.0]]


def test_others_are_what_is_left(tmp_path: Path) -> None:
    shown = heat([read(two_steps(tmp_path / "run"))], most=1)
    assert (shown.names, shown.rest) == (["a"], ["others", "unreadable"])
    assert shown.share[0].tolist() == [[3 / 8, 1.0], [4 / 8, 0.0], [1 / 8, 0.0]]  # b and c together
    assert shown.share[0].sum(axis=0).tolist() == [1.0, 1.0]


def test_successes_alone_keep_a_step_without_one(tmp_path: Path) -> None:
    shown = heat([read(two_steps(tmp_path / "run"))], most=2, success_only=True)
    assert (shown.names, shown.rest) == (["a", "b"], ["others"])  # what could not be read did not succeed
    assert shown.steps == [[1, 2]]
    assert shown.share[0].tolist() == [[1 / 8, 0.0], [1 / 8, 0.0], [1 / 8, 0.0]]


def test_no_success_at_all(tmp_path: Path) -> None:
    view = read(write(tmp_path / "run", [row(1, 0, i, "a", False) for i in range(4)]))
    shown = heat([view], success_only=True)
    assert (shown.names, shown.rest, shown.share[0].shape) == ([], [], (0, 1))
    assert view.training["distinct"].tolist() == [0.0]


def test_no_success_and_nothing_that_could_be_read(tmp_path: Path) -> None:
    view = read(write(tmp_path / "run", [row(1, 0, i, None, False) for i in range(4)]))
    shown = heat([view], success_only=True)
    assert (shown.names, shown.rest, shown.share[0].shape) == ([], [], (0, 1))
    assert not len(figures.heat_map([view], shown).data[0].z)
    other = read(two_steps(tmp_path / "other"))  # a second run does not bring the first one's row back
    shown = heat([view, other], success_only=True)
    assert (shown.names, shown.rest) == (["a", "b", "c"], [])
    assert shown.share[0].tolist() == [[0.0]] * 3


def test_a_longer_run_counts_no_more(tmp_path: Path) -> None:
    short = write(tmp_path / "short", [row(1, 0, i, "x" if i < 3 else "y", False) for i in range(4)])
    long = write(tmp_path / "long", [row(s, 0, i, "y" if i < 1 else "z", False) for s in range(1, 9) for i in range(4)])
    shown = heat([read(short), read(long)])
    # z 3/4 of the long run, x 3/4 of the short one, y 1/4 + 1/4; by candidates x would be last.
    assert shown.names == ["x", "z", "y"]
    assert [share.shape for share in shown.share] == [(3, 1), (3, 8)]
    assert shown.share[1][0].tolist() == [0.0] * 8


def test_names_that_are_ours(tmp_path: Path) -> None:
    names = ["others", "unreadable", None, "others"]
    view = read(write(tmp_path / "run", [row(1, 0, i, name, False) for i, name in enumerate(names)]))
    shown = heat([view])
    assert (shown.names, shown.rest) == (["others", "unreadable"], ["unreadable"])
    assert shown.share[0].ravel().tolist() == [0.5, 0.25, 0.25]
    assert len(samples(view, Selection(0, 1, "unreadable"))) == 1
    assert samples(view, Selection(0, 1, unreadable=True))["index"].tolist() == [2]


def test_exact_masses(tmp_path: Path) -> None:
    answers = [(1, 0, "a", 0.5, True), (1, 0, "b", 0.3, False), (1, 1, "a", 0.1, False), (1, 1, "b", 0.7, False)]
    logged = {1: {"accuracy": 0.25, "entropy": 0.8, "coverage": 0.4, "coverage_k": 8, "kl_uniform": 0.1}}
    view = read(write(tmp_path / "run", [row(1, 0, 0, "a", True)], answers=answers, evaluations=logged))
    assert view.exact
    shown = heat([view], "answers")
    # Means over two tasks: a (0.5 + 0.1) / 2, of it 0.5 / 2 with success; b (0.3 + 0.7) / 2; left over (0.2 + 0.2) / 2.
    assert (shown.names, shown.rest) == (["b", "a"], ["unreadable"])
    assert shown.share[0].ravel().tolist() == pytest.approx([0.5, 0.3, 0.2])
    assert shown.success[0].ravel().tolist() == pytest.approx([0.0, 0.25, 0.0])
    # Task 0 is solved with mass 0.5, task 1 never.
    row_ = view.evaluated.iloc[0]
    assert [row_["pass_1"], row_["pass_8"], row_["pass_64"]] == pytest.approx([0.25, (1 - 0.5**8) / 2, 0.5])
    assert view.fan == [1, 8, 16, 64]


def test_sampled_evaluations(tmp_path: Path) -> None:
    logged = {1: {"accuracy": 0.25, "pass_at_8": 0.5, "entropy": 3.0, "coverage": 2.0, "coverage_k": 8}}
    answers = [(1, 0, "a", 0.5, True), (1, 0, "a", 0.25, False), (1, 0, None, 0.25, False)]
    view = read(write(tmp_path / "run", [row(1, 0, 0, "a", True)], answers=answers, evaluations=logged))
    assert not view.exact
    shown = heat([view], "answers")
    assert (shown.names, shown.rest) == (["a"], ["unreadable"])
    assert [shown.share[0].ravel().tolist(), shown.success[0].ravel().tolist()] == [[0.75, 0.25], [0.5, 0.0]]
    assert view.evaluated["pass_8"].tolist() == [0.5]
    assert view.fan == [1, 8]  # fewer samples than 16 or 64


def test_the_fan_is_of_the_k_that_were_logged(tmp_path: Path) -> None:
    logged = {1: {"accuracy": 0.25, "pass_at_8": 0.5, "pass_at_16": 0.75, "pass_at_16_hard": 0.1, "pass_at_64": None}}
    view = read(write(tmp_path / "run", [row(1, 0, 0, "a", True)], evaluations=logged))
    assert view.fan == [1, 8, 16]
    other = read(
        write(tmp_path / "other", [row(1, 0, 0, "a", True)], evaluations={1: {"accuracy": 0.5, "pass_at_64": 1}})
    )
    lines = {trace.name: trace.line for trace in figures.curves([view, other]).data if trace.name.startswith("pass@")}
    assert list(lines) == ["pass@1", "pass@8", "pass@16", "pass@64"]
    assert len({(line.color, line.dash) for line in lines.values()}) == 4


def test_curves_of_training(tmp_path: Path) -> None:
    training = read(two_steps(tmp_path / "run")).training
    # Step 1: group 0 has a, group 1 has b and c: (1 + 2) / 2. Step 2: none.
    assert training["distinct"].tolist() == [1.5, 0.0]
    assert training["entropy"].tolist() == [1.0, 0.5]
    assert training["zero_variance"].tolist() == [0.5, 0.5]


def test_alarms_of_the_detector_where_nobody_watched(tmp_path: Path) -> None:
    view = read(collapsing(tmp_path / "run", 40, 4, 12, to=4.0))
    rollouts, steps = view.run.rollouts, view.run.steps
    signals = of_rollouts(
        rollouts, direct_of(view.run.config.sampler), dict(zip(steps["step"], steps["entropy"], strict=True))
    )
    expected = [(alarm.step, alarm.onset) for alarm in detect(signals)[0]]
    assert expected
    assert [tuple(alarm) for alarm in view.alarms.to_numpy().tolist()] == expected
    assert not view.watched


def test_stored_alarms_where_somebody_watched(tmp_path: Path) -> None:
    alarms = {2: {"onset": 1, "action": "report", "down": "breadth+live", **WATCHED}}
    view = read(two_steps(tmp_path / "run", settings=config(on_alarm="report"), alarms=alarms, evaluations={2: {}}))
    assert view.watched
    assert view.alarms.to_dict("records") == [{"step": 2, "onset": 1}]
    quiet = read(two_steps(tmp_path / "quiet", settings=config(on_alarm="report")))
    assert (quiet.watched, len(quiet.alarms)) == (True, 0)


@pytest.mark.parametrize(
    ("columns", "each", "count"), [(0, 1, 0), (1, 1, 1), (300, 1, 300), (301, 2, 151), (2000, 7, 286)]
)
def test_steps_are_drawn_in_stretches(columns: int, each: int, count: int) -> None:
    found = stretches(columns)
    assert len(found) == count
    assert [place for part in found for place in range(columns)[part]] == list(range(columns))
    assert all(part.stop - part.start == each for part in found[:-1])


def test_samples_of_a_cell(tmp_path: Path) -> None:
    view = read(two_steps(tmp_path / "run"))
    a = samples(view, Selection(0, 1, "a"))
    assert list(zip(a["group"], a["index"], strict=True)) == [(0, 0), (0, 1), (1, 3)]
    assert len(samples(view, Selection(0, 1, "a", success=True))) == 1
    assert len(samples(view, Selection(0, 1, unreadable=True))) == 1
    assert len(samples(view, Selection(0, 1))) == 8
    assert len(samples(view, Selection(0, 9))) == 0


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        read(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no committed candidates yet.*checkpoint_every"):
        read(write(tmp_path / "empty", []))
    view = read(two_steps(tmp_path / "run"))
    with pytest.raises(InputError, match="shares of 'candidate'; did you mean 'candidates'"):
        heat([view], "candidate")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least one run and one strategy"):
        heat([view], most=0)
    with pytest.raises(InputError, match="at least one run and one strategy"):
        heat([])


def of_places(path: Path, names: Sequence[str], steps: Sequence[int] = (1, 3)) -> View:
    mass = 1.0 / len(names)
    answers = [(step, 0, name, mass, place == 0) for step in steps for place, name in enumerate(names)]
    evaluations = {
        step: {"accuracy": mass, "entropy": 0.0, "coverage": 1.0, "coverage_k": 64, "kl_uniform": 0.0} for step in steps
    }
    rows = [row(step, group, i, names[0], True) for step in (1, 2, 3) for group in range(2) for i in range(4)]
    return read(write(path, rows, None, answers, evaluations))


@pytest.mark.parametrize(
    ("names", "separator"),
    [
        (["a-b", "a-c", "d-b"], "-"),
        (["Asia||Kobe (Hyogo)", "Asia||Nara"], "||"),
        (["a-b", "a"], None),
        (["a", "b"], None),
        (["a-b"], None),
    ],
)
def test_paths_of_one_depth_are_a_tree(tmp_path: Path, names: list[str], separator: str | None) -> None:
    found = paths([of_places(tmp_path / "run", names)])
    assert (found.separator if found else None) == separator
    assert found is None or found.leaves == sorted(names)


def test_masses_on_the_tree_are_those_of_the_last_evaluation(tmp_path: Path) -> None:
    views = [of_places(tmp_path / "a", ["a-b", "a-c"]), of_places(tmp_path / "b", ["a-b", "a-c", "d-b"], (2, 3))]
    tree = paths(views)
    assert tree is not None and tree.leaves == ["a-b", "a-c", "d-b"]
    figure = figures.tree(views, tree, 1)
    heads = [note.text for note in figure.layout.annotations[:2]]
    assert heads[0].startswith("<b>1. step 1, a seed 0") and heads[1].startswith(
        "<b>2. step 2, b"
    )  # b's first is later
    assert "mass on treasures 0.500" in heads[0] and "mass on treasures 0.333" in heads[1]
    assert list(figure.data[2].customdata[:3]) == [0.5, 0.5, 0.0] and len(figure.layout.sliders) == 0
