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
        assert samples.notes == (
            "2 samples are not judged: reward is empty there",
            "reward has values such as 0.5; all above 0 count as right (--threshold)",
        )


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


@pytest.mark.parametrize("other", ["incorrect_format", "inaccuracy", "compass", "passages", "correction", "inCorrect"])
@pytest.mark.parametrize(
    "right", ["is_correct", "accuracy", "reward_accurate", "tests_passed", "pass", "exact_match", "isCorrect"]
)
def test_trl_rewards_that_only_sound_right(tmp_path: Path, other: str, right: str) -> None:
    rewards: dict[str, list[Any]] = {other: [1.0], right: [0.0]}
    trl(tmp_path / "completions", 1, prompt=["p"], completion=["a"], **rewards, advantage=[0.0])
    assert load([str(tmp_path)]).columns.correct == right


def test_trl_rewards_that_begin_empty(tmp_path: Path) -> None:
    # accuracy is None throughout at step 1: the first file alone would leave the format as the only reward, without a note.
    for step, accuracy in ((1, None), (2, 1.0)):
        rewards: dict[str, list[Any]] = {"format": [1.0], "accuracy": [accuracy]}
        trl(tmp_path / "completions", step, prompt=["p"], completion=["a"], **rewards, advantage=[0.0])
    samples = load([str(tmp_path)])
    assert samples.columns.correct == "accuracy" and any("also numbers in format" in note for note in samples.notes)


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
    assert told.frame["group"].tolist() == ["0", "0", "1", "1"]
    assert told.notes == ("score has values such as 2, 3; all above 0 count as right (--threshold)",)


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


def test_zero_variance_is_of_verifiers_reward_whatever_is_the_verdict(lines: Lines) -> None:
    row = {"example_id": 0, "prompt": "q", "completion": said("a")}
    rows = [{**row, "reward": 0.25, "format": True}, {**row, "reward": 0.75, "format": True}]
    samples = load([str(lines(rows))], Asked(correct="format"))
    assert samples.reward == "reward" and samples.frame["reward"].tolist() == [0.25, 0.75]
    assert not samples.notes  # the verdict was named: nothing is to be said of the reward's values


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


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (("input", "instruction"), "instruction"),  # Alpaca's input is often empty
        (("task", "task_id"), "task_id"),
        (("task", "problem_id", "input"), "problem_id"),
        (("input", "question"), "question"),
        (("task", "problem"), "problem"),
        (("prompt", "task_id"), "prompt"),
    ],
)
def test_what_tells_a_group_best(lines: Lines, names: tuple[str, ...], chosen: str) -> None:
    path = lines([{**dict.fromkeys(names, "x"), "completion": "a"}])
    assert load([str(path)]).columns.group == chosen


def test_rewards_that_are_no_verdicts_are_said(lines: Lines) -> None:
    def notes(*rewards: Any, threshold: float = 0.0, asked: str = "") -> tuple[str, ...]:
        path = lines([{"prompt": "p", "completion": "a", "reward": reward} for reward in rewards])
        return load([str(path)], Asked(correct=asked), threshold).notes

    said = ("reward has values such as 0.2, 1.2; all above 0 count as right (--threshold)",)
    assert notes(0, 0.2, 1, 1.2) == notes(-1, 0.2, 0.3, "1.2") == said
    for verdicts in ((0, 1), (-1, 1), (0.0, 1.0), (True, False), ("yes", "no")):
        assert not notes(*verdicts)
    # Who names the column or the threshold knows.
    assert not notes(0, 0.2, asked="reward") and not notes(0, 0.2, threshold=0.1)


def test_csv_of_anyone(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("prompt,completion,correct,step\np,a,True,1\np,b,no,1\np,,,1\n")
    frame = load([str(tmp_path / "x.csv")]).frame
    assert list(frame["text"]) == ["a", "b", ""] and frame["step"].tolist() == [1, 1, 1]
    assert frame["correct"].tolist()[:2] == [1, 0] and math.isnan(frame["correct"][2])


def test_chats_in_csv_are_json(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "q"}, *said("a")]
    for cell, text, note in (
        (json.dumps(chat), "a", "holds chat messages as JSON; what the assistant says is taken"),
        (str(chat), str(chat), "holds lists as Python prints them"),  # never evaluated
    ):
        pd.DataFrame({"prompt": ["p"], "completion": [cell]}).to_csv(tmp_path / "x.csv", index=False)
        samples = load([str(tmp_path / "x.csv")])
        assert samples.frame["text"].tolist() == [text] and note in samples.notes[0]
    # Elsewhere a text that looks so is a text.
    pd.DataFrame({"prompt": ["p"], "completion": [json.dumps(chat)]}).to_parquet(tmp_path / "x.parquet")
    assert load([str(tmp_path / "x.parquet")]).frame["text"].tolist() == [json.dumps(chat)]


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
    assert [path.name for path in samples.paths] == ["one.jsonl", "two.jsonl", "three.jsonl"]
    assert "three.jsonl is empty" in samples.notes[0]
    assert "two.jsonl lacks the column 'reward': it is taken as empty there" in samples.notes[1]
    assert samples.notes[2].startswith("1 groups are in several files and are taken as one: prompt says the same")
    assert samples.notes[3] == "1 samples are not judged: reward is empty there"
    other = lines([{"prompt": "p", "output": "b"}], "other.jsonl")
    with pytest.raises(InputError, match=r"column 'completion': .*other.jsonl has no such column"):
        load([str(one), str(other)])


@pytest.mark.parametrize("group", ["example_id", "task", "group", "index", "my_id", "x"])
def test_numbers_of_groups_begin_anew_in_each_file(lines: Lines, tmp_path: Path, group: str) -> None:
    # Two evaluations of tasks 0 and 1 became two groups of four, without a word; `x` is known by its values.
    for name in ("one.jsonl", "two.jsonl"):
        lines([{group: g, "completion": f"{name} {i}"} for g in (0, 1) for i in (0, 1)], name)
    samples = load([str(tmp_path)], Asked(group=group))
    assert samples.frame.groupby("group")["text"].apply(list).to_dict() == {
        f"{g} in {tmp_path / name}": [f"{name} 0", f"{name} 1"] for g in (0, 1) for name in ("one.jsonl", "two.jsonl")
    }
    assert samples.notes[0].startswith(f"2 values of {group} are in several files and are kept apart by file")
    assert "file" not in samples.frame.columns


def test_groups_of_one_number_at_different_steps_are_not_in_several_files(lines: Lines, tmp_path: Path) -> None:
    for step in (1, 2):
        lines([{"group": 0, "completion": str(i), "step": step} for i in (0, 1)], f"{step}.jsonl")
    samples = load([str(tmp_path)])
    assert samples.frame["group"].tolist() == ["0"] * 4 and not samples.notes


def test_rollouts_of_two_runs_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "git", lambda folder: None)
    for name in "ab":
        write(RunWriter.create(tmp_path / name, config(9)), 6)
    alone = load([str(tmp_path / "a" / "rollouts")])
    both = load([str(tmp_path / name / "rollouts") for name in "ab"])
    groups = [samples.frame.groupby(["step", "group"]).ngroups for samples in (alone, both)]
    assert groups[1] == 2 * groups[0] and "kept apart by file" in both.notes[0]


def test_the_order_of_files_changes_nothing(lines: Lines) -> None:
    one = lines([{"question": "q", "completion": "a", "reward": 1}], "one.jsonl")
    two = lines([{"question": "q", "completion": "b", "reward": 1, "correct": False, "step": 3}], "two.jsonl")
    there, back = load([str(one), str(two)]), load([str(two), str(one)])
    assert there.columns == back.columns == Asked("completion", "question", "correct", "", "step")
    assert there.reward == back.reward == "reward" and set(there.notes) == set(back.notes)
    assert sum("one.jsonl lacks the column" in note for note in there.notes) == 2  # `correct` and `step`
    named = Asked(correct="corect")
    with pytest.raises(InputError, match=r"one.jsonl and 1 more has no such column; did you mean 'correct'"):
        load([str(one), str(two)], named)


def test_some_groups_that_are_empty_texts_are_counted(lines: Lines) -> None:
    path = lines([{"input": text, "completion": "a"} for text in ("", "x", "")])
    assert load([str(path)]).notes == (
        "column 'input' holds empty texts in 2 of 3 samples: those of a step are one group (--group)",
    )


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
    for names, meant in (
        (("Prompt", "Completion"), "Completion"),
        (("prompt", "completions"), "completions"),
        (("Prompt", "completion"), "Prompt"),
        (("prompt", "modelOutput"), "modelOutput"),
    ):
        with pytest.raises(InputError, match=rf"--(text|group) \(did you mean '{meant}'\?\)\. There are"):
            load([str(lines([dict.fromkeys(names, "a")]))])
    # Data sets have their own solutions in `solution`: these are nobody's samples.
    with pytest.raises(InputError, match=r"hold the text; name it .*There are problem, solution$"):
        load([str(lines([{"problem": "p", "solution": "s"}]))])


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
    # One row is enough: others may have one completion, or none.
    for cells in ([["a", "b"], ["c", "d"]], [["a"], "b", None, ["c", "d", None]]):
        path = lines([{"prompt": "p", "completion": cell} for cell in cells])
        with pytest.raises(
            InputError, match=r"column 'completion', row [14] holds [23] texts, expected one completion a row"
        ):
            load([str(path)])


def test_a_group_that_is_empty_throughout(lines: Lines) -> None:
    with pytest.raises(InputError, match="column 'prompt' is empty throughout"):
        load([str(lines([{"prompt": None, "completion": "a"}]))])
    # It is the steps that are missing, not the groups.
    rows = [{"prompt": "p", "completion": "a"}, {"prompt": None, "completion": "b", "step": 1}]
    with pytest.raises(InputError, match=r"both a group \(column 'prompt'\) and a step \(column 'step'\)"):
        load([str(lines(rows))])


def test_nothing_is_evaluated(tmp_path: Path, lines: Lines) -> None:
    trap = f"__import__('pathlib').Path({str(tmp_path / 'ran')!r}).touch()"
    rows = [{"prompt": trap, "completion": trap, "strategy": json.dumps(trap)}]
    assert load([str(lines(rows))]).frame["text"][0] == trap
    with pytest.raises(InputError):
        load([str(lines([rows[0] | {"reward": trap}]))])
    assert not (tmp_path / "ran").exists()
