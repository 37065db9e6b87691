"""Logs as TRL, verl, RAGEN, verifiers and we write them, and what is said where one cannot be read.

The rows have the columns and kinds of values that the projects' own code writes (see ``layouts``); TRL's files are made as TRL
makes them, with pandas, and by TRL itself in ``test_foreign_trl.py``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from writer_process import config, rollouts, write

from sesa_lab.errors import InputError
from sesa_lab.foreign import Asked, Samples, load
from sesa_lab.runs import RunWriter, environment, schema

Lines = Callable[..., Path]


def said(content: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": content}]


def trl(folder: Path, step: int, **columns: list[Any]) -> Path:
    """As ``GRPOTrainer.log`` does: one frame of the step, by pandas."""
    folder.mkdir(exist_ok=True)
    path = folder / f"completions_{step:05d}.parquet"
    rows = len(columns["completion"])
    pd.DataFrame({"step": [step] * rows, **columns}).to_parquet(path)
    return path


def columns(samples: Samples) -> tuple[str, ...]:
    found = samples.columns
    return found.text, found.group, found.correct, found.strategy, found.step


def test_trl_with_texts(tmp_path: Path) -> None:
    for step in (1, 2):
        trl(
            tmp_path / "completions",
            step,
            prompt=["p", "p", "q", "q"],
            completion=["a", "b", "a", "a"],
            reward=[1.0, 0.0, None, 0.5],
            advantage=[1.0, -1.0, 0.0, 0.0],
        )
    for place in (tmp_path, tmp_path / "completions", tmp_path / "completions" / "*.parquet"):
        samples = load([str(place)])
        assert samples.kind == "TRL's completions"
        assert columns(samples) == ("completion", "prompt", "reward", "", "step")
        assert list(samples.frame["text"]) == ["a", "b", "a", "a"] * 2
        assert list(samples.frame["step"]) == [1] * 4 + [2] * 4
        assert samples.frame["correct"].tolist()[:2] == [1, 0] and math.isnan(samples.frame["correct"][2])
        # What the trainer learned from is the advantage: a group is lost to it where these are equal.
        assert samples.reward == "advantage" and samples.frame["reward"].tolist()[:4] == [1, -1, 0, 0]
        assert samples.notes == ("2 samples are not judged: reward is empty there",)


def test_trl_with_chats_several_rewards_and_columns_of_their_own(tmp_path: Path) -> None:
    prompt = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "p"}]}]
    trl(
        tmp_path / "completions",
        7,
        prompt=[prompt, prompt],
        completion=[said("a"), [*said("b"), {"role": "tool", "content": "9"}, *said("c")]],
        format_reward=[1.0, 1.0],
        accuracy_reward=[0.0, 1.0],
        answer=["x", None],
        advantage=[-0.7, 0.7],
    )
    samples = load([str(tmp_path)])
    assert columns(samples) == ("completion", "prompt", "accuracy_reward", "", "step")
    assert list(samples.frame["text"]) == ["a", "b\n\nc"] and samples.frame["group"].nunique() == 1
    assert "accuracy_reward is taken for the verdict; there are also numbers in format_reward" in samples.notes[0]
    assert load([str(tmp_path)], Asked(correct="format_reward")).frame["correct"].tolist() == [1, 1]
    assert load([str(tmp_path)], Asked(correct="none")).frame["correct"].isna().all()
    # No name tells of being right: the trainer's first reward function. Older versions wrote the step as text.
    trl(tmp_path / "old", 3, prompt=["p"], completion=["a"], second=[1], first=[0], advantage=[0.0])
    frame = pd.read_parquet(tmp_path / "old").assign(step="3")
    frame.to_parquet(tmp_path / "old" / "completions_00003.parquet")
    old = load([str(tmp_path / "old")])
    assert old.columns.correct == "second" and old.frame["step"].tolist() == [3]


def test_trl_without_any_reward_of_numbers(tmp_path: Path) -> None:
    trl(tmp_path / "completions", 1, prompt=["p"], completion=["a"], judge=[None], advantage=[math.nan])
    samples = load([str(tmp_path)])
    assert samples.columns.correct == samples.reward == "" and samples.judged == "not judged"


def test_verl(tmp_path: Path, lines: Lines) -> None:
    row = {"input": "user\nq\nassistant\n", "output": "a", "gts": "4", "score": -1.0}
    for step in (1, 2, 10):
        lines([{**row, "step": step, "acc": False}, {**row, "score": 1.0, "step": step, "acc": True}], f"{step}.jsonl")
    samples = load([str(tmp_path)])
    assert samples.kind == "verl's generations"
    assert columns(samples) == ("output", "input", "acc", "", "step") and samples.reward == "score"
    assert samples.frame["correct"].tolist() == [0, 1] * 3 and samples.frame["reward"].tolist() == [-1, 1] * 3
    lines([{**row, "step": 1}], "without.jsonl")  # no `acc`: the score
    assert load([str(tmp_path / "without.jsonl")]).columns.correct == "score"


def test_ragen_dumps_through_verl_with_empty_inputs(lines: Lines) -> None:
    rows = [
        {"input": "", "output": f"[user]\nmap\n\n[assistant]\n{i}", "score": i, "step": 0, "reward": i}
        for i in range(4)
    ]
    samples = load([str(lines(rows))])
    assert samples.frame["group"].tolist() == [""] * 4
    assert any("'input' holds empty texts throughout" in note for note in samples.notes)
    told = load([str(lines([{**row, "group_id": i // 2} for i, row in enumerate(rows)]))], Asked(group="group_id"))
    assert told.frame["group"].tolist() == ["0", "0", "1", "1"] and not told.notes


def test_verifiers(tmp_path: Path, lines: Lines) -> None:
    prompt = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    row = {
        "example_id": 0, "prompt": prompt, "completion": said("a"), "answer": "4", "reward": 1.0, "error": None,
        "timing": {"total_ms": 3.0}, "is_completed": True, "is_truncated": False, "stop_condition": "done",
        "metrics": {"correct_answer": 1.0}, "tool_defs": None, "correct_answer": 1.0,
    }  # fmt: skip
    call = {"role": "assistant", "content": "", "tool_calls": ['{"id": "c", "name": "add", "arguments": "{}"}']}
    failed = {**row, "completion": None, "reward": 0.0, "error": {"error": "E"}}
    lines(
        [row, {**row, "completion": [call, {"role": "tool", "content": "9"}]}, failed, {**row, "example_id": 1}],
        "results.jsonl",
    )
    lines([{"env_id": "e"}], "metadata.json")
    samples = load([str(tmp_path)])
    assert samples.kind == "verifiers' results"
    assert columns(samples) == ("completion", "example_id", "reward", "", "")
    assert list(samples.frame["text"]) == ["a", '{"id": "c", "name": "add", "arguments": "{}"}', "", "a"]
    assert list(samples.frame["group"]) == ["0", "0", "0", "1"] and samples.frame["step"].isna().all()
    assert samples.notes == ("1 samples have no text: it is taken as empty",)


def test_our_own_evaluation(tmp_path: Path) -> None:
    row = {
        "task": 3, "sample": 0, "prompt": "p", "sketch": None, "completion": "c", "tokens": 1, "logprob": -1.0,
        "finish": "stop", "reward": 0.5, "success": False, "strategy": "s",
    }  # fmt: skip
    rows = [
        {name: row.get(name) for name in schema.SAMPLES.names} | more for more in ({}, {"sample": 1, "strategy": None})
    ]
    pq.write_table(pa.Table.from_batches([schema.batch("samples", rows)]), tmp_path / "x.parquet")
    samples = load([str(tmp_path / "x.parquet")])
    assert columns(samples) == ("completion", "task", "success", "strategy", "") and samples.reward == "reward"
    assert list(samples.frame["strategy"]) == ["s", None] and samples.frame["correct"].tolist() == [0, 0]


def test_our_own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "git", lambda folder: None)
    write(RunWriter.create(tmp_path / "run", config(9)), 6)
    expected = [row for step in range(1, 7) for row in rollouts(step)]
    for place in (tmp_path / "run", tmp_path / "run" / "rollouts"):
        samples = load([str(place)])
        assert samples.kind == "a run's rollouts"
        assert columns(samples) == ("completion", "group", "success", "strategy", "step")
        assert list(samples.frame["strategy"]) == [row["strategy"] for row in expected]
        assert samples.frame["step"].tolist() == [row["step"] for row in expected]
        assert samples.frame["correct"].tolist() == [row["success"] for row in expected]


def test_any_other_log_by_common_names_or_by_names_given(lines: Lines) -> None:
    rows = [{"question": "q", "response": "a", "is_correct": True, "score": 3}, {"question": "q", "response": "b"}]
    samples = load([str(lines(rows))])
    assert samples.kind == "an unknown log" and columns(samples) == ("response", "question", "is_correct", "", "")
    assert samples.reward == "score"
    odd = [{"x": "a", "y": 1, "z": 0.4, "w": 5, "t": 2}, {"x": "b", "y": 1, "z": 0.6, "w": None, "t": 2}]
    told = load([str(lines(odd))], Asked("x", "y", "z", "w", "t"), 0.5)
    assert told.frame.to_dict("list") == {
        "text": ["a", "b"], "group": ["1", "1"], "correct": [0, 1], "reward": [0.4, 0.6], "strategy": ["5", None],
        "step": [2, 2],
    }  # fmt: skip
    assert told.judged == "z true or > 0.5"


def test_csv_of_anyone(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("prompt,completion,correct,step\np,a,True,1\np,b,no,1\np,,,1\n")
    frame = load([str(tmp_path / "x.csv")]).frame
    assert list(frame["text"]) == ["a", "b", ""] and frame["step"].tolist() == [1, 1, 1]
    assert frame["correct"].tolist()[:2] == [1, 0] and math.isnan(frame["correct"][2])


def test_rows_of_mixed_kinds(lines: Lines) -> None:
    cells = ["a", None, 3, True, ["x"], said("m"), {"odd": {"deep": [1]}}, [], "\ud800", "\x00"]
    rows = [{"prompt": [{"role": "user", "content": "p"}], "completion": cell} for cell in cells]
    texts = list(load([str(lines(rows))]).frame["text"])
    assert texts == ["a", "", "3", "true", "x", "m", '{"odd": {"deep": [1]}}', "", "\ud800", "\x00"]


def test_samples_without_group_or_step_are_left_out_and_said(lines: Lines) -> None:
    rows = [{"prompt": "p", "completion": str(i), "step": i or None} for i in range(3)] + [
        {"completion": "x", "step": 1}
    ]
    samples = load([str(lines(rows))])
    assert list(samples.frame["text"]) == ["1", "2"]
    assert samples.notes[0] == "2 of 4 samples have no group or step, and are left out"
    assert "each group has one sample" in samples.notes[1]


def test_several_files(lines: Lines, tmp_path: Path) -> None:
    one = lines([{"prompt": "p", "completion": "a", "reward": 1}], "one.jsonl")
    two = lines([{"prompt": "p", "completion": "b"}], "two.jsonl")  # no reward in this one: not judged
    nothing = lines([], "three.jsonl")
    samples = load([str(one), str(two), str(nothing)])
    assert samples.files == 3 and list(samples.frame["text"]) == ["a", "b"]
    assert "three.jsonl is empty" in samples.notes[0] and "1 samples are not judged" in samples.notes[1]
    other = lines([{"prompt": "p", "output": "b"}], "other.jsonl")
    with pytest.raises(InputError, match=r"column 'completion': .*other.jsonl has no such column"):
        load([str(one), str(other)])


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.json"])
@pytest.mark.parametrize("content", ["", "\n", "\ufeff"])
def test_empty_files(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match="no samples in"):
        load([str(tmp_path / name)])


def test_missing_columns_are_named_with_what_is_there(lines: Lines) -> None:
    path = str(lines([{"prompt": "p", "completion": "a", "rewards_sum": 1}]))
    with pytest.raises(
        InputError, match=r"--correct reward_sum: .* no such column; did you mean 'rewards_sum'\? known: comp"
    ):
        load([path], Asked(correct="reward_sum"))
    for role in ("text", "group"):
        with pytest.raises(
            InputError, match=f"known to hold the {role}; name it with --{role}. There are prompt, completion"
        ):
            load([path], Asked(**{role: "none"}))
    wide = str(lines([{f"c{i}": i for i in range(60)}]))
    with pytest.raises(InputError, match=r"c39 and 20 more$"):
        load([wide])
    with pytest.raises(InputError, match=r"There is only$"):
        load([str(lines([{"only": 1}]))])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"reward": [1, 2]}, r"column 'reward', row 2 holds \[1, 2\], expected a number"),
        ({"reward": {"total": 1}}, "column 'reward', row 2 holds"),
        ({"reward": "good"}, "column 'reward', row 2 holds 'good'"),
        ({"step": "last"}, "column 'step', row 2 holds 'last'"),
    ],
)
def test_verdicts_and_steps_that_are_none(lines: Lines, row: dict[str, Any], message: str) -> None:
    whole = {"prompt": "p", "completion": "a", "reward": 1, "step": 1}
    with pytest.raises(InputError, match=message):
        load([str(lines([whole, whole | row]))])


def test_lists_of_texts_are_no_completions(lines: Lines) -> None:
    path = lines([{"prompt": "p", "completion": ["a", "b"]}, {"prompt": "q", "completion": ["c", "d"]}])
    with pytest.raises(InputError, match="holds lists of texts, expected one completion a row"):
        load([str(path)])


def test_a_group_that_is_empty_throughout(lines: Lines) -> None:
    with pytest.raises(InputError, match="column 'prompt' is empty throughout"):
        load([str(lines([{"prompt": None, "completion": "a"}]))])


def test_nothing_is_evaluated(tmp_path: Path, lines: Lines) -> None:
    trap = f"__import__('pathlib').Path({str(tmp_path / 'ran')!r}).touch()"
    rows = [{"prompt": trap, "completion": trap, "strategy": json.dumps(trap)}]
    assert load([str(lines(rows))]).frame["text"][0] == trap
    with pytest.raises(InputError):
        load([str(lines([rows[0] | {"reward": trap}]))])
    assert not (tmp_path / "ran").exists()
