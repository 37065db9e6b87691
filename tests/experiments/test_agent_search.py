"""Which learning rate each arm takes, on a frame whose means are worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from sesa_lab.errors import InputError
from sesa_lab.experiments import agent_search, agents, stages
from sesa_lab.experiments.jobs import Job
from sesa_lab.runs import RunWriter

# (task, base, arm@rate) -> (pass@1, pass@64) of two seeds
SEARCHED = {
    # means over tasks and seeds: 0.3 and 0.5 at 1e-4; 0.26 and 0.65 at 1e-3, whose pass@1 is within 0.05; at 2e-3 it is not
    ("sokoban", "habit", "mixed@0.0001"): ((0.2, 0.4), (0.2, 0.4)),
    ("frozen_lake", "habit", "mixed@0.0001"): ((0.4, 0.6), (0.4, 0.6)),
    ("sokoban", "habit", "mixed@0.001"): ((0.12, 0.9), (0.32, 0.9)),
    ("frozen_lake", "habit", "mixed@0.001"): ((0.3, 0.4), (0.3, 0.4)),
    ("sokoban", "habit", "mixed@0.002"): ((0.2, 0.9), (0.2, 0.9)),
    ("frozen_lake", "habit", "mixed@0.002"): ((0.2, 0.9), (0.2, 0.9)),
    # equal pass@64: the higher pass@1, though its rate is larger
    ("sokoban", "habit", "parallel@0.002"): ((0.5, 0.6), (0.5, 0.6)),
    ("frozen_lake", "habit", "parallel@0.002"): ((0.5, 0.6), (0.5, 0.6)),
    ("sokoban", "habit", "parallel@0.0003"): ((0.48, 0.6), (0.48, 0.6)),
    ("frozen_lake", "habit", "parallel@0.0003"): ((0.48, 0.6), (0.48, 0.6)),
    ("sokoban", "ordinary", "mixed@0.0001"): ((0.2, 0.8), (0.2, 0.8)),
    ("sokoban", "ordinary", "mixed@0.001"): ((0.2, 0.7), (0.2, 0.7)),
    ("sokoban", "ordinary", "parallel@0.0001"): ((0.2, 0.8), (0.2, 0.8)),
}


def frame() -> pd.DataFrame:
    rows = [
        {
            "arm": arm, "group": f"search-{task}-{base}", "seed": seed, "step": 100, "accuracy": accuracy,
            "pass_at_64": wide,
        }
        for (task, base, arm), values in SEARCHED.items()
        for seed, (accuracy, wide) in zip((100, 101), values, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_rate_is_picked_by_pass_at_64_among_those_of_enough_pass_at_1() -> None:
    found = agent_search.picked(frame()).set_index(["base", "arm"])
    assert found["rate"].to_dict() == {
        ("habit", "mixed"): 1e-3,
        ("habit", "parallel"): 2e-3,
        ("ordinary", "mixed"): 1e-4,
        ("ordinary", "parallel"): 1e-4,
    }
    row = found.loc[("habit", "mixed")]
    assert row[["accuracy", "pass_at_64"]].tolist() == pytest.approx([0.26, 0.65])


def test_the_table_has_every_rate_and_lines_can_be_pasted() -> None:
    found = agent_search.table(frame())
    assert list(found.columns) == ["0.0001", "0.0003", "0.001", "0.002"]
    assert found.loc[("habit", "mixed"), "0.0001"] == "0.300 / 0.500"
    assert found.loc[("habit", "mixed"), "0.001"] == "0.260 / 0.650*"
    pasted = agent_search.pasted(frame())
    assert pasted == '    "mixed": (1e-4, 1e-3),\n    "parallel": (1e-4, 2e-3),'
    rates = eval(f"{{{pasted}}}", {"__builtins__": {}})
    assert {name: len(values) for name, values in rates.items()} == {"mixed": 2, "parallel": 2}


def test_rates_with_other_seeds_or_tasks_behind_them_are_not_compared() -> None:
    whole = frame()
    for gone in (("seed", 101), ("group", "search-frozen_lake-habit")):
        lacking = whole[(whole["arm"] != "mixed@0.001") | (whole[gone[0]] != gone[1])]
        with pytest.raises(InputError, match="mixed on the habit base: its rates have different tasks or seeds"):
            agent_search.picked(lacking)


def made(job: Job) -> None:
    """A run that is better the nearer its rate is to 1e-3 on the habit base, to 3e-4 on the ordinary one."""
    best = 1e-3 if job.folder.parent.name.endswith("habit") else 3e-4
    value = 0.5 - abs(job.config.update.learning_rate - best)
    with RunWriter.create(job.folder, job.config) as writer:
        for step in (0, 3):
            writer.log(
                "evaluation", step, {"accuracy": value, "pass_at_64": value if step else 0.0, "tokens_total": step}
            )
        writer.commit(3, lambda folder: (folder / "state").write_text("x"))


@pytest.mark.parametrize(("group", "task"), [("agents", "sokoban"), ("reasoning", "math")])
def test_the_stage_prints_the_table_and_what_to_paste(
    group: str, task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", lambda handle: None)
    monkeypatch.setattr(agents, "SEARCH_GRID", (3e-4, 1e-3))
    monkeypatch.setattr(agents, "TASKS", {"sokoban": agents.TASKS["sokoban"]})
    monkeypatch.setattr(agents, "REASONING", {"math": agents.REASONING["math"]})
    name = f"{group}-search"
    for job in stages.STAGES[name].jobs(tmp_path, [], 3, arms="sesa-paper"):
        made(job)
    found = stages.run(name, tmp_path, None, 3, arms="sesa-paper")
    printed = capsys.readouterr().out
    bases, rates = (["habit"], "(1e-3,)") if group == "reasoning" else (["ordinary", "habit"], "(3e-4, 1e-3)")
    for line in (
        f"* picked, in the order of {' and '.join(bases)}:", f'"parallel": {rates},', f'"sesa-paper": {rates},',
    ):  # fmt: skip
        assert line in printed
    assert list(found.columns[:7]) == ["task", "base", "arm", "rate", "seed", "accuracy", "pass_at_64"]
    row = found[(found["base"] == "habit") & (found["arm"] == "parallel") & (found["rate"] == 1e-3)]
    assert row[["task", "seed", "pass_at_64"]].to_numpy().tolist() == [[task, agents.SEARCH_SEEDS[0], 0.5]]

    figure = agent_search.draw(stages.STAGES[name].jobs(tmp_path, [], 3, arms="sesa-paper"))
    titles = [note.text for note in figure.layout.annotations][: len(bases)]
    assert titles == [f"{task}, {base} base" for base in bases]
    of = {trace.name: trace for trace in figure.data if trace.xaxis == ("x2" if len(bases) == 2 else "x")}
    assert set(of) == {"start", "parallel", "SESA, paper's rule"}
    assert list(of["parallel"].x) == list(of["parallel"].y) == pytest.approx([0.5 - 7e-4, 0.5])
    assert list(of["parallel"].customdata) == ["0.0003", "0.001"], "joined in the order of the rate"
    assert list(of["start"].y) == [0.0]
