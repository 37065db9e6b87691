"""``sesa-lab fidelity`` on a shipped policy: what it prints, keeps and refuses."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sesa_lab import cli_fidelity
from sesa_lab.errors import InputError
from sesa_lab.training import fidelity
from sesa_lab.training.fidelity_table import Fidelity

ASKED = "--environment countdown --policy countdown-habit"


def call(line: str) -> None:
    parser = argparse.ArgumentParser()
    cli_fidelity.add_arguments(parser)
    cli_fidelity.run(parser.parse_args(shlex.split(line)))


def sample(task: int, arm: str, **more: Any) -> dict[str, Any]:
    texts = {"own": "a", "given": None if arm == "none" else "b", "completion": "<b>hostile</b>\x00"}
    methods = {"own_method": "a", "given_method": texts["given"], "method": "a", "strategy": None, "solves": None}
    return {"task": task, "arm": arm, "index": 0, **texts, **methods, "success": False, "logprob": -1.0, **more}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """``compare`` is not done; its arguments are kept."""
    kept: list[tuple[Any, ...]] = []
    rows = [sample(task, "own", given="a", given_method="a") for task in (0, 1)]
    rows += [sample(task, arm) for task in (0, 1) for arm in ("swapped", "foreign", "none")]

    def compare(*arguments: Any) -> Fidelity:
        kept.append(arguments)
        return Fidelity(pd.DataFrame(rows))

    monkeypatch.setattr(fidelity, "compare", compare)
    return kept


def test_a_shipped_policy(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "x.parquet"
    call(f"{ASKED} --tasks 2 --sketches 3 --out {shlex.quote(str(out))}")
    said = capsys.readouterr().out
    assert "Solutions follow the sketch they are given in" in said and f"solutions in {out}" in said
    kept = pd.read_parquet(out)
    assert set(kept["arm"]) == {"own", "swapped", "foreign", "none"} and set(kept["task"]) == {0, 1}
    assert f"{len(kept)} solutions" in said


def test_settings_reach_the_comparison(asked: list[tuple[Any, ...]]) -> None:
    call(f"{ASKED} --tasks 3 --sketches 4 --samples 2 --split test --way iid-sketches --temperature 0.5 --seed 7")
    ((config, run, *rest),) = asked
    assert run is None and rest == [3, 4, 2, "test", "iid-sketches"]
    assert (config.sampler.temperature, config.evaluation.eval_temperature, config.run.seed) == (0.5, 0.0, 7)


def test_estimates_are_added_and_those_of_the_same_comparison_replaced(
    asked: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    place, csv = shlex.quote(str(tmp_path / "x.csv")), tmp_path / "x.csv"
    call(f"{ASKED} --csv {place}")
    once = pd.read_csv(csv)
    call(f"{ASKED} --csv {place}")
    pd.testing.assert_frame_equal(pd.read_csv(csv), once)
    call(f"{ASKED} --csv {place} --option n_numbers=4 --adapter /some/where/step-60")
    twice = pd.read_csv(csv)
    assert len(twice) == 2 * len(once) and set(twice["policy"]) == {"countdown-habit", "countdown-habit + step-60"}
    assert "/some" not in csv.read_text(), "no machine's paths"
    pd.testing.assert_frame_equal(twice[: len(once)], once)


def test_the_figure_is_a_page_of_its_own(asked: list[tuple[Any, ...]], tmp_path: Path) -> None:
    call(f"{ASKED} --figure {shlex.quote(str(tmp_path / 'x.html'))}")
    page = (tmp_path / "x.html").read_text()
    assert "follows the sketch given" in page and "<b>hostile" not in page


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--out x.csv", r"--out x\.csv: expected a file that ends in \.parquet"),
        ("--csv none/x.csv", r"there is no folder none"),
        ("--figure x.png", r"ends in \.html"),
        ("--option split=test", r"which tasks are asked is said by --split"),
        ("none", r"no run folder at .*none"),
    ],
)
def test_what_cannot_be_done_is_refused_first(asked: list[tuple[Any, ...]], options: str, named: str) -> None:
    with pytest.raises(InputError, match=named):
        call(f"{ASKED} {options}")
    assert not asked


@pytest.mark.parametrize(("content", "named"), [("a,b\n1,2\n", "has other columns than"), ("", "cannot be read")])
def test_a_file_of_something_else_is_left_as_it_is(
    asked: list[tuple[Any, ...]], tmp_path: Path, content: str, named: str
) -> None:
    csv = tmp_path / "x.csv"
    csv.write_text(content)
    with pytest.raises(InputError, match=named):
        call(f"{ASKED} --csv {shlex.quote(str(csv))}")
    assert csv.read_text() == content and not asked


def test_names_that_look_like_numbers_stay_names(asked: list[tuple[Any, ...]], tmp_path: Path) -> None:
    place = shlex.quote(str(tmp_path / "x.csv"))
    for _ in range(2):
        call(f"--environment countdown --policy 007 --csv {place}")
    kept = pd.read_csv(tmp_path / "x.csv", dtype=str)
    assert set(kept["policy"]) == {"007"}
    assert not kept.duplicated(["policy", "arm", "measure"]).any(), "the first was replaced"
    call(f"--environment countdown --policy 007 --max-tokens 9 --csv {place}")
    assert len(pd.read_csv(tmp_path / "x.csv")) == 2 * len(kept), "another length is another comparison"


def test_a_csv_of_a_header_alone_is_added_to(asked: list[tuple[Any, ...]], tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(",".join(cli_fidelity.COLUMNS) + "\n")
    call(f"{ASKED} --csv {shlex.quote(str(tmp_path / 'x.csv'))}")
    assert len(pd.read_csv(tmp_path / "x.csv")) > 0


@pytest.mark.parametrize(("option", "suffix"), [("out", ".parquet"), ("csv", ".csv"), ("figure", ".html")])
def test_a_folder_in_the_place_of_a_file_is_told_before_anything_is_drawn(
    asked: list[tuple[Any, ...]], tmp_path: Path, option: str, suffix: str
) -> None:
    (tmp_path / f"x{suffix}").mkdir()
    with pytest.raises(InputError, match="it is a folder"):
        call(f"{ASKED} --{option} {shlex.quote(str(tmp_path / f'x{suffix}'))}")
    assert not asked
