"""A run asks by the prompts that it was given, says which they were, and goes on with no others."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_models

from sesa_lab import prompts, runs
from sesa_lab.config import Config
from sesa_lab.errors import InputError
from sesa_lab.prompts import Templates, templates
from sesa_lab.training.evaluate import evaluate_samples
from sesa_lab.training.loop import Trainer, resume, train

CLOCK = ["seconds_draw", "seconds_score", "seconds_update", "seconds_total", "peak_memory_mb"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    shape = {"max_position_embeddings": 2048, "num_hidden_layers": 1}
    return str(tiny_models.save_model(tmp_path_factory.mktemp("models") / "chat", **shape))


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Prompts to be edited."""
    prompts.copy(tmp_path / "mine", "chat", "path_exploration")
    return tmp_path / "mine"


def settings(model: str, folder: Path | str = "", **more: Any) -> Config:
    return Config.build(
        environment={"options": {"branching": "2x2", "n_treasures": 2}},
        policy={"model": model, "device": "cpu", "prompts": str(folder)},
        sampler={"group_size": 2, "max_tokens": 3, **more.pop("sampler", {})},
        run={"steps": 1, "groups": 1, "coverage_k": 2},
        **more,
    )


def content(path: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_run_asks_by_its_prompts_and_records_them(model: str, mine: Path, tmp_path: Path) -> None:
    (mine / "chat" / "answer.txt").write_text("Before.\n{task}\nAfter é.\n")
    config = settings(model, mine)
    trainer = Trainer(config)
    asked = trainer.policy.tokenizer.decode(trainer.request(0).prompt_ids)
    task = trainer.environment.task(0)
    assert asked == f"<|im_start|>user\nBefore.\n{task.prompt}\nAfter é.<|im_end|>\n<|im_start|>assistant\n"
    assert trainer.judge_of.speaker is trainer.speaker, "evaluations ask alike"
    run = runs.load(train(config, tmp_path / "run"))
    assert run.prompts == dict(Templates.read("chat", "path_exploration", str(mine)).texts)
    assert run.prompts["chat/answer.txt"] == "Before.\n{task}\nAfter é." and len(run.prompts) == len(prompts.ROLES) + 1


def test_a_copy_of_the_built_in_prompts_gives_the_same_run(model: str, mine: Path, tmp_path: Path) -> None:
    sampler = {"name": "sesa", "sketch_tokens": 3, "drafting_form": "prompt"}
    found = [runs.load(train(settings(model, f, sampler=sampler), tmp_path / n)) for f, n in ((mine, "a"), ("", "b"))]
    lines = [[json.loads(line) for line in (r.path / "metrics.jsonl").read_text().splitlines()] for r in found]
    first, second = ([{k: v for k, v in line.items() if k not in CLOCK} for line in own] for own in lines)
    assert first == second and found[0].prompts == found[1].prompts
    weights = [run.checkpoints[-1][1] / "adapter_model.safetensors" for run in found]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.parametrize("role", ["answer", "sketch"])
def test_a_run_goes_on_with_no_other_prompts(model: str, mine: Path, tmp_path: Path, role: str) -> None:
    train(settings(model, mine), tmp_path / "run")
    file = mine / "chat" / f"{role}.txt"
    text = file.read_text()
    file.write_text(f"Please: {text}")
    before = content(tmp_path)
    with pytest.raises(InputError) as caught:
        resume(tmp_path / "run")
    assert str(caught.value).startswith(
        f"{tmp_path}/run began with another text of the prompt template chat/{role}.txt (see its prompts.json) than {file} has"
    )
    assert str(caught.value).endswith("put that text back there, or start a new run with another --out")
    assert content(tmp_path) == before, "nothing was cut or noted"
    file.write_text(runs.load(tmp_path / "run").prompts[f"chat/{role}.txt"])  # what the message says helps
    resume(tmp_path / "run")
    shutil.rmtree(mine)
    with pytest.raises(InputError, match=r"policy\.prompts = .*mine': no folder there"):
        resume(tmp_path / "run")


def test_a_built_in_prompt_that_changed_is_told_too(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(settings(model), tmp_path / "run")
    shutil.copytree(templates.FOLDER, tmp_path / "other", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    monkeypatch.setattr(templates, "FOLDER", tmp_path / "other")
    resume(tmp_path / "run")
    (tmp_path / "other" / "chat" / "next.txt").write_text("Another.")
    with pytest.raises(InputError, match=re.escape(f"than {tmp_path}/other/chat/next.txt has now")):
        resume(tmp_path / "run")


def test_a_run_from_before_prompts_were_recorded_goes_on(model: str, mine: Path, tmp_path: Path) -> None:
    train(settings(model, mine), tmp_path / "run")
    (tmp_path / "run" / "prompts.json").unlink()
    (mine / "chat" / "answer.txt").write_text("{task}!")
    resume(tmp_path / "run")
    assert runs.load(tmp_path / "run").prompts is None, "what it began with is not known"
    evaluate_samples(settings(model, mine), tmp_path / "run", 1, 1, [1])


def test_a_trained_policy_is_evaluated_by_the_prompts_it_was_trained_with(
    model: str, mine: Path, tmp_path: Path
) -> None:
    config = settings(model, mine)
    run = train(config, tmp_path / "run")
    (mine / "chat" / "sketch.txt").write_text("{task} {sketches}")
    evaluate_samples(config, run, 1, 1, [1])  # asks for no sketch
    (mine / "chat" / "path_exploration.txt").write_text("{prompt}!")
    with pytest.raises(
        InputError, match=r"run was trained with another text of .* chat/path_exploration\.txt .*--prompts"
    ):
        evaluate_samples(config, run, 1, 1, [1])
    shutil.copytree(mine, tmp_path / "asked")
    evaluate_samples(settings(model, tmp_path / "asked"), run, 1, 1, [1])  # asked for by name
    evaluate_samples(config, None, 1, 1, [1])  # no run: nothing to differ from


def test_a_mistake_in_the_prompts_is_told_before_there_is_a_run(model: str, mine: Path, tmp_path: Path) -> None:
    for name, text, message in (
        ("path_exploration", "{prompts}", r"mine/chat/path_exploration\.txt asks for 'prompts'; .* has prompt, map"),
        ("turn_sketch", "\n", r"mine/chat/turn_sketch\.txt is empty"),
        ("solve", "{task} {idea}", r"mine/chat/solve\.txt asks for \{idea\}; this role has \{task\}, \{sketch\}"),
    ):
        kept = (mine / "chat" / f"{name}.txt").read_text()
        (mine / "chat" / f"{name}.txt").write_text(text)
        with pytest.raises(InputError, match=message):
            train(settings(model, mine), tmp_path / "run")
        (mine / "chat" / f"{name}.txt").write_text(kept)
    assert not (tmp_path / "run").exists()
