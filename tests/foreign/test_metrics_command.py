"""The command: what it prints and writes, and mistakes in one message."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from sesa_lab import cli_metrics
from sesa_lab.errors import InputError
from sesa_lab.plots.measures import measures

Call = Callable[..., str]
EVIL = "<script>alert(1)</script>\u202e"


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: object) -> str:
        capsys.readouterr()
        parser = argparse.ArgumentParser(description=cli_metrics.TEXT)
        cli_metrics.add_arguments(parser)
        assert "%" not in cli_metrics.TEXT  # argparse shows it doubled or single, by place
        cli_metrics.run(parser.parse_args(list(map(str, arguments))))
        return capsys.readouterr().out

    return run


@pytest.fixture
def path(lines: Callable[..., Path]) -> Path:
    draw = random.Random(0)
    rows = [
        {
            "prompt": f"q{g} {EVIL}",
            "completion": f"a {draw.randrange(4)}",
            "reward": draw.random() - 0.5,
            "way": draw.randrange(3),
        }
        for g in range(6)
        for _ in range(4 + g % 2)
    ]
    return lines(rows)


def test_table(call: Call, path: Path) -> None:
    out = call(path, "--k", "1,4,8", "--strategy", "way")
    assert "27 samples in 6 groups of 4 to 5, from 1 file(s): an unknown log" in out
    assert "right: reward true or > 0; reward: reward; strategy: way; step: none" in out
    assert "note: pass@8 needs 8 judged samples in a group, the largest has 5" in out
    table = out.split("\n\n")[1].splitlines()
    labels = [line.split("  ")[0] for line in table]
    assert {"pass@1", "pass@4", "coverage@4", "distinct strategies", "self-BLEU, low = diverse"} <= set(labels)
    assert "pass@8" not in labels
    line = next(line for line in table if line.startswith("samples a group"))
    assert "4.50 [" in line and line.endswith("(n=6)")
    assert "right: reward true or > 0.4" in call(path, "--threshold", "0.4")
    assert "nothing says whether a sample is right" in call(path, "--correct", "none")


def test_csv_and_figure(call: Call, path: Path, tmp_path: Path) -> None:
    out = call(path, "--out", tmp_path / "x.csv", "--plot", tmp_path / "x.html", "--k", "1,4")
    assert f"wrote {tmp_path / 'x.csv'} and {tmp_path / 'x.groups.csv'}" in out
    averages, groups = (pd.read_csv(tmp_path / name) for name in ("x.csv", "x.groups.csv"))
    assert list(averages.columns) == ["measure", "mean", "low", "high", "groups"]
    assert len(groups) == 6 and groups["samples"].sum() == 27
    means = averages.set_index("measure")["mean"]
    assert means["success"] == pytest.approx(groups["success"].mean())
    assert means["distinct_texts"] == pytest.approx(groups["distinct_texts"].mean())
    page = (tmp_path / "x.html").read_text()
    assert "Plotly.newPlot" in page and "alert(1)" not in page and "bootstrap interval" in page


def test_steps(call: Call, lines: Callable[..., Path], tmp_path: Path) -> None:
    for step in (1, 2, 3):
        rows = [
            {"input": f"q{g}", "output": f"a{i * g // step}", "gts": "", "score": i % 2, "step": step}
            for g in range(3)
            for i in range(4)
        ]
        lines(rows, f"{step}.jsonl")
    (tmp_path / "out").mkdir()
    out = call(tmp_path, "--out", tmp_path / "out" / "x.csv", "--plot", tmp_path / "x.html")
    assert "36 samples in 9 groups of 4 at 3 steps, from 3 file(s): verl's generations" in out
    assert "group: input within step" in out and "at step 1" in out and "at step 3" in out and "at step 2" not in out
    averages = pd.read_csv(tmp_path / "out" / "x.csv")
    assert list(averages.columns) == ["step", "measure", "mean", "low", "high", "groups"]
    assert sorted(averages["step"].unique()) == [1, 2, 3]
    assert "at step" not in call(tmp_path / "?.jsonl", "--step", "none")
    assert call(tmp_path / "1.jsonl").count("at step 1") == 1


def test_mistakes(call: Call, path: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (("--out", tmp_path / "x.txt"), "--out .*expected a file that ends in .csv"),
        (("--plot", tmp_path / "no" / "x.html"), "there is no folder .*no$"),
        (("--threshold", "nan"), "--threshold nan: expected a number"),
        (("--k", "0"), "--k 0: expected whole numbers >= 1"),
        (("--k", "some"), "'some': expected whole numbers"),
        (("--text", "complete"), "--text complete: .*did you mean 'completion'"),
    ):
        with pytest.raises(InputError, match=message):
            call(path, *arguments)
    (tmp_path / "there.csv").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*there\.csv.*; choose another file"):
        call(path, "--out", tmp_path / "there.csv")


def test_what_is_measured_is_not_written_over(call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    own = folder / "own.groups.csv"
    own.write_text("prompt,completion\np,a\n")
    link = tmp_path / "link.csv"
    link.symlink_to(own)
    (tmp_path / "link.html").symlink_to(own)
    for arguments in (
        (own, "--out", own),
        (own, "--out", folder / "own.csv"),  # whose groups would be written over it
        (own, "--out", folder / ".." / "own" / "own.groups.csv"),
        (own, "--out", link),
        (link, "--out", own),
        (own, "--plot", tmp_path / "link.html"),
        (f"{folder}/*", "--out", own),
    ):
        with pytest.raises(InputError, match="is one of the files that are measured: choose another file"):
            call(*arguments)
    # A table in the folder would be measured itself the next time; a figure would not.
    (tmp_path / "same").symlink_to(folder)
    for place, out in ((folder, folder), (tmp_path / "same", folder), (folder, tmp_path / "same")):
        with pytest.raises(InputError, match="lies in a folder that is measured"):
            call(place, "--out", out / "new.csv")
    call(folder, "--plot", folder / "new.html")
    call(own, "--out", folder / "new.csv")
    assert own.read_text() == "prompt,completion\np,a\n"
    # TRL's own folder: what lies in its completions is measured.
    (tmp_path / "trl" / "completions").mkdir(parents=True)
    own.rename(tmp_path / "trl" / "completions" / "x.csv")
    for name in ("new.csv", "completions/new.csv"):
        with pytest.raises(InputError, match="lies in a folder that is measured"):
            call(tmp_path / "trl", "--out", tmp_path / "trl" / name)


def test_places_that_the_system_refuses(call: Call, path: Path, tmp_path: Path) -> None:
    for arguments in (("--out", "~nouser-of-that-name/x.csv"), ("--plot", tmp_path / ("x" * 300) / "x.html")):
        with pytest.raises(InputError, match="cannot be written"):
            call(path, *arguments)
    with pytest.raises(InputError, match=r"cannot write .*File name too long"):
        call(path, "--out", tmp_path / ("x" * 250 + ".csv"))


def test_hostile_names(call: Call, lines: Callable[..., Path], tmp_path: Path) -> None:
    name = f"a\ud800\x1b[31m{EVIL}"
    path = lines([{name: f"text {i}", "prompt": "p", "reward": i} for i in range(4)])
    shown = f"a··[31m{EVIL[:-1]}·"
    out = call(path, "--text", shown, "--plot", tmp_path / "x.html")
    assert f"text: {shown};" in out and "\x1b" not in out
    page = (tmp_path / "x.html").read_text()
    assert "<script>alert" not in page and "alert(1)" in page
    broken = tmp_path / "b.jsonl"
    broken.write_text(json.dumps({"prompt": "p", "completion": "a"}) + '\n{"completion": "\x1b[31m')
    assert "\x1b" not in call(broken) and "line 2, the last, is cut off" in call(broken)


def test_hostile_groups_and_texts(call: Call, lines: Callable[..., Path], tmp_path: Path) -> None:
    hostile = [
        "",
        "\x00\x1b[31m",
        "\ud800",
        EVIL,
        "=1+1",
        "x" * 10**6,
        None,
        3,
        [],
        {},
        [{"content": None}],
        "\u2028",
        "\r\n",
    ]
    rows = [{"prompt": p, "completion": c, "reward": 1, "strategy": c, "step": 1} for p in hostile for c in hostile]
    out = call(lines(rows), "--out", tmp_path / "x.csv", "--plot", tmp_path / "x.html")
    assert "156 samples in 12 groups of 13 at 1 steps" in out and "note: 13 of 169 samples have no group or step" in out
    groups = pd.read_csv(tmp_path / "x.groups.csv")
    # "", None, [] and a message without content are four empty texts.
    assert (groups["distinct_texts"] == 10).all() and groups["asked"].str.len().max() == 200


def test_figure_by_steps_and_without() -> None:
    nan = float("nan")
    table = pd.DataFrame(
        {
            "measure": ["a", "a", "b", "b"],
            "label": [EVIL] * 2 + ["b" * 100] * 2,
            "step": [2, 1, 1, 2],
            "mean": [2.0, 1.0, 0.5, 0.25],
            "low": [1.5, nan, 0.25, 0.2],
            "high": [3.0, nan, 1.0, 0.3],
            "n": [3, 1, 3, 3],
        }
    )
    figure = measures(table, "t", "c")
    assert [list(trace.x) for trace in figure.data] == [[1, 2], [1, 2]]
    assert list(figure.data[0].y) == [1, 2] and list(figure.data[0].error_y.array)[1] == 1.0
    assert "<script>" not in figure.to_json().replace("\\u003c", "<").split('"annotations"')[1]
    plain = measures(table.iloc[[0, 2]].drop(columns="step"))
    assert [list(trace.text) for trace in plain.data] == [["2"], ["0.5"]]
    with pytest.raises(InputError, match="no column 'label'"):
        measures(table.drop(columns="label"))
    with pytest.raises(InputError, match="no measure has a value"):
        measures(table.iloc[:0])


@pytest.mark.slow
def test_embeddings_of_the_model_that_is_there(call: Call, lines: Callable[..., Path]) -> None:
    texts = ("the cat sat on the mat", "a cat sits on a mat", "stocks fell sharply today")
    path = lines([{"prompt": p, "completion": text} for p in "pq" for text in texts])
    out = call(path, "--embed", "all-MiniLM-L6-v2")
    assert "2.00 [2.00, 2.00] (n=2)" in next(line for line in out.splitlines() if line.startswith("clusters"))
