"""From the lab to real models: notebooks 03 to 07 with a chat model and data sets of one's own, all from folders on the spot."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_models
from transformers import AutoModelForCausalLM, AutoTokenizer

from sesa_lab import environments, runs
from sesa_lab.config import Config
from sesa_lab.errors import InputError
from sesa_lab.experiments import own_data, report, stages
from sesa_lab.reports.run_notebooks import execute

ASCII = [*map(chr, range(33, 127)), "\u0120", "\u010a"]
"""What the model can say and read, blanks and line breaks included: any answer then is the text of its very tokens."""
PROBLEMS = 30
SMALL: dict[str, Any] = {
    "run": {"groups": 2, "evaluate_every": 1},
    "sampler": {"group_size": 4, "max_tokens": 10, "sketch_tokens": 6},
    "evaluation": {"eval_tasks": 2, "eval_samples": 8},
}
MODEL, SET, TRAIN = "someone/chat", "HuggingFaceH4/aime_2024", "someone/mine"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random chat model of the Qwen2 architecture, one token a letter."""
    folder = tmp_path_factory.mktemp("models") / "tiny-chat"
    return tiny_models.save_model(folder, alphabet=ASCII, max_position_embeddings=4096)


@pytest.fixture(scope="module")
def aime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty problems of ours in a folder as ``hf download HuggingFaceH4/aime_2024 --local-dir`` leaves it."""
    folder = tmp_path_factory.mktemp("sets") / "aime_2024"
    (folder / "data").mkdir(parents=True)
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    problems = [
        {
            "id": 60 + number,
            "problem": f"Let $n = {number}$. Find the remainder when $n^2 + 7n$ is divided by $1000$.",
            "solution": f"It is $\\boxed{{{(number * number + 7 * number) % 1000:03d}}}$.",
            "answer": f"{(number * number + 7 * number) % 1000:03d}",
            "url": f"https://example.org/AIME_I/Problem_{number}",
            "year": "2024",
        }
        for number in range(PROBLEMS)
    ]
    pq.write_table(pa.Table.from_pylist(problems), folder / "data" / "train-00000-of-00001.parquet")
    card = {"path": "data/train-*", "split": "train"}
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n  - {card}\n---\n")
    (folder / ".gitattributes").write_text("*.parquet filter=lfs\n")
    (folder / ".cache" / "huggingface" / ".gitignore").write_text("*")
    return folder


@pytest.fixture(scope="module")
def lessons(tmp_path_factory: pytest.TempPathFactory, aime: Path) -> Path:
    """Forty problems to be trained on, and one that is among those evaluated on."""
    own = [{"problem": f"What is ${a} + 5$?", "answer": a + 5} for a in range(40)]
    known = pq.read_table(aime / "data").to_pylist()[3]
    path = tmp_path_factory.mktemp("lessons") / "mine.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in [*own, {k: known[k] for k in ("problem", "answer")}]))
    return path


# --- what parameters come to ----------------------------------------------------------------------------------------


def test_without_a_model_nothing_is_changed() -> None:
    settings = {"run": {"groups": 2}}
    found = own_data.chosen("math", ["habit", "ordinary"], settings)
    assert (found.bases, found.settings, found.model) == (["habit", "ordinary"], settings, "")
    assert found.options == {"hard": "half", "split": "validation"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"dataset": SET}, f"dataset = '{SET}' and no model: .*set model too"),
        ({"train_dataset": SET}, f"train_dataset = '{SET}' and no model"),
        ({"model": MODEL, "dataset": SET, "train_dataset": SET}, f"train_dataset = '{SET}' is dataset too"),
        (
            {
                "model": MODEL,
                "dataset": SET,
                "settings": {"environment": {"options": {"test_dataset": SET}}},
            },
            r"settings: environment.options.test_dataset beside the parameters dataset and train_dataset",
        ),
        ({"model": MODEL, "dataset": "none.jsonl"}, "none.jsonl: no such file or folder"),
    ],
)
def test_parameters_that_do_not_go_together_are_named(given: Mapping[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        own_data.chosen("math", ["habit"], **{"settings": {}, **given})


def test_bad_parameters_are_told_before_a_notebook_begins(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dataset = 'x.jsonl' and no model"):
        report.make(
            "reasoning", tmp_path / "runs", [1], tmp_path / "a.html", 1, more={"07_math.ipynb": {"dataset": "x.jsonl"}}
        )
    assert list(tmp_path.iterdir()) == []


def test_a_model_on_sudoku_has_puzzles_and_limits_of_its_own() -> None:
    settings = {"environment": {"options": {"givens_low": 40}}, "sampler": {"max_tokens": 300}}
    found = own_data.chosen("sudoku", ["habit"], settings, MODEL)
    assert found.bases == (MODEL,) and not found.model
    jobs = stages.agent_jobs("sudoku", MODEL, "headline", [1], 3, Path("runs"), found.settings)
    for job in jobs:
        options = job.config.environment.options
        assert options == {"box": 3, "answer_format": "tags", "hard": "natural", "givens_low": 40, "seed": 1}
        assert (job.config.sampler.max_tokens, job.config.sampler.sketch_tokens) == (300, 48), "settings go before"
        assert job.config.policy.model == MODEL and job.folder.parent == Path("runs/sudoku-chat")
    assert found.options["split"] == "validation" and settings["environment"] == {"options": {"givens_low": 40}}


@pytest.mark.parametrize(("task", "turns"), [("countdown", 1), ("frozen_lake", 5), ("sokoban", 5)])
def test_a_model_on_agents_tasks_has_those_of_the_preset_paper(task: str, turns: int) -> None:
    found = own_data.chosen(task, ["habit"], {"sampler": {"sketch_tokens": 20}}, MODEL)
    assert found.bases == (MODEL,) and not found.model
    paper = Config.build("paper", environment={"name": task})
    for job in stages.agent_jobs(task, MODEL, "headline", [1], 3, Path("runs"), found.settings):
        assert job.config.policy.model == MODEL and job.folder.parent == Path(f"runs/{task}-chat")
        options = {**paper.environment.options, "hard": "half", "seed": 1}
        assert (
            environments.make(task, **job.config.environment.options).options
            == environments.make(task, **options).options
        )
        assert (job.config.sampler.max_tokens, job.config.sampler.sketch_tokens) == (paper.sampler.max_tokens, 20)
    made = environments.make(task, **found.options)
    assert made.turns == turns and made.options["split"] == "validation" and made.options["answer_format"] == "tags"
    assert all(made.solutions(made.task(place)) for place in range(16)), "what the notebook shows first"
    own = {"environment": {"options": {"preset": "lab"}}}
    plain = environments.make(task, **own_data.chosen(task, ["habit"], own, MODEL).options)
    assert plain.options["answer_format"] == "plain" and plain.turns == 1, "settings go before"


def test_data_sets_take_the_place_of_sums(aime: Path, lessons: Path) -> None:
    found = own_data.chosen("math", ["habit"], {"evaluation": {"eval_tasks": 1}}, MODEL, str(aime), str(lessons))
    assert found.bases == (MODEL,) and not found.model
    config = stages.agent_jobs("math", MODEL, "sesa-paper", [1], 3, Path("runs"), found.settings)[0].config
    assert config.evaluation.test_tasks == PROBLEMS and config.evaluation.eval_tasks == 1
    trained = environments.make("math", **config.environment.options)
    problems = {trained.task(place).data["problem"] for place in range(trained.count)}
    assert len(problems) > 20 and all(problem.startswith("What is $") for problem in problems), (
        "the known one is left out"
    )
    usual = own_data.chosen("math", ["habit"], {}, MODEL, str(aime), str(lessons)).settings["evaluation"]["eval_tasks"]
    assert usual == environments.make("math", **{**config.environment.options, "split": "validation"}).count < 32
    alone = own_data.chosen("math", ["habit"], {}, MODEL, str(aime))
    assert alone.bases == () and alone.model == MODEL and alone.options["split"] == "all"
    assert alone.settings["evaluation"] == {"test_tasks": PROBLEMS}
    sums = own_data.chosen("math", ["habit"], {}, MODEL)
    assert sums.bases == (MODEL,) and sums.settings["environment"]["options"]["answer_format"] == "boxed"


def test_a_report_asks_for_the_runs_that_its_notebooks_ask_for(aime: Path, lessons: Path) -> None:
    own = {"model": MODEL, "dataset": str(aime), "train_dataset": str(lessons)}
    given: dict[str, dict[str, Any]] = {"06_sudoku.ipynb": {}, "07_math.ipynb": own}
    jobs = report._jobs("reasoning", Path("runs"), [1], 2, given)
    assert {job.folder.parent for job in jobs} == {Path("runs/agents/sudoku-habit"), Path("runs/agents/math-chat")}
    assert len(jobs) == 2 * 7 and {job.config.environment.name for job in jobs} == {"sudoku", "math"}
    given["07_math.ipynb"] = {**own, "train_dataset": ""}
    assert len(report._jobs("reasoning", Path("runs"), [1], 2, given)) == 7, "a data set alone is not trained on"
    whole = report._jobs("reasoning", Path("runs"), [1, 2, 3, 4, 5], 60, report.FULL["reasoning"])
    made: set[Path] = set()
    for task in report.REASONING:
        stage = stages.STAGES[f"reasoning-{task}"]
        made |= {job.folder for job in stage.jobs(Path("runs"), stage.seeds, stage.steps)}
    assert {job.folder for job in whole} == made and report.OWN["reasoning"] == ((1, 2, 3, 4, 5), 60)


# --- the notebooks ----------------------------------------------------------------------------------------------------


Rows = list[list[str]]


def opened(notebook: str, folder: Path, **parameters: Any) -> tuple[str, list[Rows]]:
    """All that an executed notebook printed and showed as text, and its tables, each as rows of cells, headings first."""
    given = {"seeds": [1], "steps": 1, "runs": str(folder / "runs" / "agents"), "settings": SMALL, "workers": 1}
    done = execute(report.NOTEBOOKS / notebook, folder / notebook, {**given, "arms": "sesa-paper", **parameters})
    outputs = [
        out
        for cell in nbformat.read(done, as_version=4).cells  # type: ignore[no-untyped-call]
        if cell.cell_type == "code"
        for out in cell.outputs
    ]
    data = [out.data for out in outputs if "data" in out]
    tables = [rows(each["text/html"]) for each in data if "<table" in each.get("text/html", "")]
    words = [each.get("text/markdown", "") for each in data] + [out.text for out in outputs if "text" in out]
    return "\n".join(words), tables


def rows(table: str) -> Rows:
    """The cells of an HTML table as pandas writes it."""
    lines = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line, re.DOTALL) for line in lines]


def column(table: Rows, name: str) -> list[str]:
    """Of a table with a named index, whose headings take two lines: the values of a column."""
    place = (table[1] if name in table[1] else table[0]).index(name)
    return [line[place] for line in table[2:]]


def figures(notebook: Path) -> int:
    return notebook.read_text().count('"application/vnd.plotly.v1+json"')


def asked(model: Path, content: str) -> tuple[int, ...]:
    """Token ids of one user turn by the model's own chat template, ready for an answer."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    assert text.startswith("<|im_start|>user\n") and text.endswith("<|im_start|>assistant\n")
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def direct(run: runs.Run) -> pd.DataFrame:
    """Candidates of step 1 that were drawn given the task alone: by the model as it is, whose adapter does nothing yet."""
    drawn = run.read_rollouts(["prompt", "task", "token_ids", "drawn_logprobs", "drawn_under"], [1])
    return drawn[drawn["drawn_under"] == "task"]


def runs_in(folder: Path) -> dict[str, runs.Run]:
    """Arm -> its run."""
    found = sorted(path.parent for path in folder.rglob("metrics.jsonl"))
    return {re.sub(r"-s[0-9]+-[0-9a-f]{8}$", "", path.name): runs.load(path) for path in found}


def says_as_the_template_asks(model: Path, run: runs.Run, content: str, row: Any) -> None:
    """The log-probs that a candidate was drawn with are those of a plain forward pass under the chat template's prompt."""
    assert run.prompts and all(name.startswith("chat/") for name in run.prompts)
    plain = AutoModelForCausalLM.from_pretrained(model)
    expected = tiny_models.reference_logprobs(plain, asked(model, content), tuple(row.token_ids))
    assert list(row.drawn_logprobs) == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.slow
def test_mathematics_trained_on_one_data_set_and_tested_on_another(
    tmp_path: Path, model: Path, aime: Path, lessons: Path
) -> None:
    own = {"model": str(model), "dataset": str(aime), "train_dataset": str(lessons)}
    said, tables = opened("07_math.ipynb", tmp_path, **own)
    found = runs_in(tmp_path / "runs" / "agents" / "math-tiny-chat")
    assert set(found) == {"base", "parallel", "sesa-paper"} and all(run.finished for run in found.values())
    for name, run in found.items():
        config = run.config
        assert config.evaluation.test_tasks == PROBLEMS and sorted(run.tests["guided"]) == [False, True]
        assert config.environment.options["test_dataset"] == str(aime) and config.policy.model == str(model)
        assert len(run.steps) == (0 if name == "base" else 1)
    reply = "Think step by step, and put the final answer in \\boxed{}."
    drawn = direct(found["parallel"])
    assert len(drawn) == 2 * 4
    row = drawn.iloc[0]
    problem = environments.make("math", **found["parallel"].config.environment.options).task(row.task).data["problem"]
    assert problem.startswith("What is $")
    says_as_the_template_asks(model, found["parallel"], f"{problem}\n{reply}", row)
    named = [table for table in tables if "math, tiny-chat base" in {table[0][0], table[1][0]}]
    assert len(named) == 4, "test tasks, with sketches, beside the paper, breadth"
    assert "pass@8 / pass@1" in named[-1][0] and "not told" in column(named[2], "success over base")
    assert "no conclusion is drawn from fewer than 3 seeds" in said and "to see this, set model and dataset" in said
    assert figures(tmp_path / "07_math.ipynb") == 1 + 1 + 4 + 1 + 4 + 2 + 1
    assert not (tmp_path / "runs" / "evaluations").exists()


@pytest.mark.slow
def test_a_data_set_alone_is_evaluated_whole_and_goes_on_where_it_stopped(
    tmp_path: Path, model: Path, aime: Path
) -> None:
    own = {"model": str(model), "dataset": str(aime)}
    said, tables = opened("07_math.ipynb", tmp_path, **own)
    assert "nothing is trained, see the last section" in said and not (tmp_path / "runs" / "agents").exists()
    kept = sorted((tmp_path / "runs" / "evaluations" / "math-tiny-chat").iterdir())
    assert [re.sub(r"-s1-[0-9a-f]{8}\.parquet$", "", path.name) for path in kept] == [
        "iid-sketches",
        "parallel",
        "sesa",
    ]
    problems = set(pq.read_table(aime / "data")["problem"].to_pylist())
    for path in kept:
        samples = pq.read_table(path).to_pandas()
        assert len(samples) == PROBLEMS * 8 and {prompt.split("\n\n")[0] for prompt in samples["prompt"]} == problems
        assert samples["sketch"].isna().all() == path.name.startswith("parallel")
    assert len(tables) == 3 and figures(tmp_path / "07_math.ipynb") == 1, "the task's picture"
    for table in tables:
        assert column(table, "k") == ["1", "8"] and set(column(table, "tasks")) == {str(PROBLEMS)}
        assert set(column(table, "n")) == {"8"} and "coverage_at_k" in table[0]
    drawn = pq.read_table(next(path for path in kept if path.name.startswith("parallel"))).to_pandas()
    tokenizer, plain = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    ids = [tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in drawn["completion"]]
    ids = [own + (tiny_models.STOP,) * (how == "stop") for own, how in zip(ids, drawn["finish"], strict=True)]
    exact = drawn[[len(own) == tokens for own, tokens in zip(ids, drawn["tokens"], strict=True)]]
    assert len(exact) > 100, "those without a control token inside"
    for place in exact.index[:5]:
        row = drawn.loc[place]
        prompt = asked(model, row["prompt"].replace("\n\n", "\n"))
        expected = tiny_models.reference_logprobs(plain, prompt, ids[place]).sum().item()
        assert row["logprob"] == pytest.approx(expected, abs=1e-3)
    before = {path.name: path.stat().st_mtime_ns for path in kept}
    found = own_data.chosen("math", [], SMALL, **own)
    again = own_data.table(found, "parallel", 1, tmp_path / "runs" / "agents")
    assert again["pass_at_k"].round(3).tolist() == [float(value) for value in column(tables[0], "pass_at_k")]
    assert {path.name: path.stat().st_mtime_ns for path in kept[0].parent.iterdir()} == before, "read, not drawn again"


@pytest.mark.slow
def test_sudoku_of_nine_by_nine_by_a_chat_model(tmp_path: Path, model: Path) -> None:
    said, tables = opened("06_sudoku.ipynb", tmp_path, model=str(model), settings={**SMALL, "evaluation": FEW})
    found = runs_in(tmp_path / "runs" / "agents" / "sudoku-tiny-chat")
    assert set(found) == {"base", "parallel", "sesa-paper"} and all(run.finished for run in found.values())
    run = found["parallel"]
    row = direct(run).iloc[0]
    task = environments.make("sudoku", **run.config.environment.options).task(row.task)
    assert task.data["size"] == 9 and "<answer>the full grid" in row.prompt
    content = run.prompts["chat/sudoku.txt"]
    for word in ("rules", "grid", "format"):
        content = content.replace(f"{{{word}}}", task.data[word])
    assert content.startswith("You are solving a Sudoku puzzle") and "{" not in content
    says_as_the_template_asks(model, run, content, row)
    assert ["sudoku, tiny-chat base" in {table[0][0], table[1][0]} for table in tables].count(True) == 4
    assert "1 2 3 4 5 6 7 8 9 exactly once" in said and "no conclusion is drawn" in said
    assert figures(tmp_path / "06_sudoku.ipynb") == 1 + 1 + 4 + 1 + 4 + 2 + 1


@pytest.mark.slow
@pytest.mark.parametrize("task", ["frozen_lake", "sokoban"])
def test_agents_tasks_in_turns_by_a_chat_model(tmp_path: Path, model: Path, task: str) -> None:
    book = report.AGENTS[task]
    said, tables = opened(book, tmp_path, model=str(model), settings={**SMALL, "evaluation": FEW})
    found = runs_in(tmp_path / "runs" / "agents" / f"{task}-tiny-chat")
    assert set(found) == {"base", "parallel", "sesa-paper"} and all(run.finished for run in found.values())
    run = found["parallel"]
    assert environments.make(task, **run.config.environment.options).turns == 5
    assert all(name.startswith("chat/") for name in run.prompts) and f"chat/{task}.txt" in run.prompts
    assert set(run.read_rollouts(["turns"])["turns"].map(len)) - {1}, "episodes of several turns"
    assert "You have at most 5 turns" in said and "no conclusion is drawn" in said
    assert ["tiny-chat base" in f"{table[0][0]} {table[1][0]}" for table in tables].count(True) == 3
    assert figures(tmp_path / book) == 1 + 1 + 4 + 4 + 2 + 1


@pytest.mark.slow
def test_countdown_by_a_chat_model_under_papermill_itself_goes_on_after_an_error(
    tmp_path: Path, model: Path, root: Path
) -> None:
    folder, settings = tmp_path / "runs", {**SMALL, "evaluation": FEW}
    command = [
        sys.executable, "-m", "papermill", "notebooks/03_countdown.ipynb", str(tmp_path / "out.ipynb"),
        "-p", "seeds", "[0,1]", "-p", "model", str(model), "-p", "steps", "1", "-p", "arms", "sesa-paper",
        "-p", "workers", "1", "-p", "runs", str(folder), "-p", "settings", json.dumps(settings),
    ]  # fmt: skip
    chosen = own_data.chosen("countdown", [], settings, str(model))
    jobs = stages.agent_jobs("countdown", str(model), "sesa-paper", [0, 1], 1, folder, chosen.settings)
    with runs.RunWriter.create(jobs[2].folder, jobs[2].config.changed(run={"steps": 9})):
        pass
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode != 0 and "1 of 6 runs failed, the others are kept" in done.stderr
    partial = nbformat.read(tmp_path / "out.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(partial)  # type: ignore[no-untyped-call]
    (error,) = [output for cell in partial.cells for output in cell.get("outputs", ()) if output.output_type == "error"]
    assert error.ename == "InputError" and "remove the folder" in error.evalue
    others = [job.folder / "metrics.jsonl" for job in jobs if job is not jobs[2]]
    before = {path: path.stat().st_mtime_ns for path in others}
    shutil.rmtree(jobs[2].folder)
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in others}, "read, not made again"
    found = [runs.load(job.folder) for job in jobs]
    assert all(run.finished and run.config.policy.model == str(model) for run in found)
    assert {run.config.run.seed for run in found} == {0, 1}
    assert figures(tmp_path / "out.ipynb") == 1 + 1 + 4 + 4 + 2 + 1


FEW = {"eval_tasks": 2, "test_tasks": 2, "eval_samples": 8}
