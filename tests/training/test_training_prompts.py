"""A run asks by the prompts that it was given, records them, and goes on with what it recorded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_models

import sesa_lab
from sesa_lab import prompts, runs
from sesa_lab.config import Config
from sesa_lab.errors import InputError
from sesa_lab.prompts import Templates, templates
from sesa_lab.training import evaluate
from sesa_lab.training.evaluate import evaluate_samples, recorded_prompts
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
        run={"steps": 1, "groups": 1, "coverage_k": 2, **more.pop("run", {})},
        **more,
    )


def lines(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without clocks."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in CLOCK} for line in found]


def weights(run: Path) -> bytes:
    return (runs.load(run).checkpoints[-1][1] / "adapter_model.safetensors").read_bytes()


class Stopped(Exception):
    """A run is cut off."""


def after_the_first_step(step: int, _: dict[str, Any]) -> None:
    raise Stopped


def begun(config: Config, out: Path) -> Path:
    """A run that is cut off after its first step."""
    with pytest.raises(Stopped):
        train(config, out, after_the_first_step)
    return out


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
    assert lines(found[0].path) == lines(found[1].path) and found[0].prompts == found[1].prompts
    assert weights(found[0].path) == weights(found[1].path)


@pytest.mark.parametrize("fate", ["edited", "gone", "elsewhere"])
def test_a_run_goes_on_with_the_prompts_that_it_recorded(
    model: str, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fate: str
) -> None:
    # It was refused, although prompts.json has the texts: a folder that was edited for the next run, that was removed, or
    # that was named from another working directory made a stopped run useless.
    (mine / "chat" / "answer.txt").write_text("Before. {task}\n")
    (mine / "chat" / "sketch_next.txt").write_text("\nNo. {number}:\n")
    monkeypatch.chdir(tmp_path)
    sampler = {"name": "sesa", "sketch_tokens": 3}
    config = settings(model, "mine", sampler=sampler, run={"steps": 2, "checkpoint_every": 1})
    whole, run = train(config, tmp_path / "whole"), begun(config, tmp_path / "run")
    before = runs.load(run).prompts
    if fate == "edited":
        for role in ("answer", "sketch_next"):
            (mine / "chat" / f"{role}.txt").write_text("{task} other" if role == "answer" else "other")
    elif fate == "gone":
        shutil.rmtree(mine)
    else:
        (tmp_path / "there").mkdir()
        monkeypatch.chdir(tmp_path / "there")
    resume(run)
    assert lines(run) == lines(whole) and weights(run) == weights(whole), "bit for bit"
    assert runs.load(run).prompts == before == runs.load(whole).prompts
    assert runs.load(run).read_rollouts(["prompt"]).equals(runs.load(whole).read_rollouts(["prompt"]))


def test_a_built_in_prompt_that_changed_does_not_change_a_run_that_began(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(model, run={"steps": 2, "checkpoint_every": 1})
    whole, run = train(config, tmp_path / "whole"), begun(config, tmp_path / "run")
    shutil.copytree(templates.FOLDER, tmp_path / "other", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    (tmp_path / "other" / "chat" / "answer.txt").write_text("Another {task}")
    monkeypatch.setattr(templates, "FOLDER", tmp_path / "other")
    assert Templates.read("chat", "path_exploration").texts["chat/answer.txt"] == "Another {task}"
    resume(run)
    assert lines(run) == lines(whole) and weights(run) == weights(whole)


def test_a_run_from_before_prompts_were_recorded_goes_on_with_those_that_are_there(
    model: str, mine: Path, tmp_path: Path
) -> None:
    run = train(settings(model, mine), tmp_path / "run")
    (run / "prompts.json").unlink()
    (mine / "chat" / "answer.txt").write_text("{task}!")
    resume(run)
    assert runs.load(run).prompts is None, "what it began with is not known"
    evaluate_samples(settings(model, mine), run, 1, 1, [1])
    shutil.rmtree(mine)
    with pytest.raises(InputError, match=r"policy\.prompts = .*mine': no folder there"):
        resume(run)


def test_a_trained_policy_is_evaluated_by_the_prompts_it_was_trained_with(
    model: str, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def heard(engine: Any, policy: Any, speaker: Any, environment: Any, *_: Any) -> list[Any]:
        ids = speaker.answer(environment.task(0))
        asked.append(policy.tokenizer.decode(ids).partition("user\n")[2].partition(" ")[0])
        return []

    monkeypatch.setattr(evaluate, "answers", heard)

    def word(folder: Path | str, run: Path | None) -> str:
        """How the question begins."""
        evaluate_samples(settings(model, folder), run, 1, 1, [1])
        return asked.pop()

    (mine / "chat" / "answer.txt").write_text("Trained {task}")
    run = train(settings(model, mine), tmp_path / "run")
    (mine / "chat" / "answer.txt").write_text("Edited {task}")
    shutil.copytree(mine, tmp_path / "other")
    assert word(mine, run) == "Trained", "it was refused, although prompts.json has the text"
    assert word(tmp_path / "other", run) == "Edited", "another folder is asked for by name"
    assert word(mine, None) == "Edited", "no run: nothing was recorded"
    shutil.rmtree(mine)
    assert word(mine, run) == "Trained"
    (run / "prompts.json").unlink()
    with pytest.raises(InputError, match="no folder there"):
        word(mine, run)


def test_recorded_prompts_are_those_of_the_runs_own_environment(model: str, tmp_path: Path) -> None:
    run = runs.load(train(settings(model), tmp_path / "run"))
    found = recorded_prompts(run)
    assert found is not None and found.texts == run.prompts
    assert recorded_prompts(run, run.config.changed(environment={"name": "countdown", "options": {}})) is None


def test_damaged_prompts_are_told_before_the_run_is_touched(model: str, tmp_path: Path) -> None:
    run = begun(settings(model, run={"steps": 2, "checkpoint_every": 1}), tmp_path / "run")
    texts = runs.load(run).prompts or {}
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file() and file.name != "prompts.json"}
    (run / "prompts.json").write_text(json.dumps(texts | {"chat/solve.txt": "{task} {sketch} \\boxed{}"}))
    with pytest.raises(
        InputError, match=r"chat/solve\.txt in .*run/prompts\.json has a brace .*meant literally is doubled"
    ):
        resume(run)
    assert all(file.read_bytes() == text for file, text in before.items())


def test_a_folder_of_prompts_may_be_a_path_object(model: str, mine: Path, tmp_path: Path) -> None:
    # out and prompts.copy took one, the setting said "expected text".
    (mine / "chat" / "answer.txt").write_text("Mine {task}")
    run = sesa_lab.train(
        out=tmp_path / "run", policy=Path(model), prompts=mine, options={"branching": "2x2", "n_treasures": 2}, device="cpu",
        group_size=2, max_tokens=3, steps=1, groups=1, coverage_k=2, progress=False,
    )  # fmt: skip
    assert run.prompts is not None and run.prompts["chat/answer.txt"] == "Mine {task}"
    assert run.config.policy.prompts == str(mine), "recorded as text"


def test_a_mistake_in_the_prompts_is_told_before_there_is_a_run(model: str, mine: Path, tmp_path: Path) -> None:
    for name, text, message in (
        (
            "path_exploration",
            "{prompts}",
            r"mine/chat/path_exploration\.txt asks for \{prompts\}; .* has \{prompt\}, \{map\}, ",
        ),
        ("turn_sketch", "\n", r"mine/chat/turn_sketch\.txt is empty"),
        ("solve", "{task} {idea}", r"mine/chat/solve\.txt asks for \{idea\}; this role has \{task\}, \{sketch\}"),
        ("answer", "Go.", r"mine/chat/answer\.txt does not say \{task\}"),
        ("path_exploration", '{prompt} {"answer": 1}', r"mine/chat/path_exploration\.txt has a brace .* is doubled"),
    ):
        kept = (mine / "chat" / f"{name}.txt").read_text()
        (mine / "chat" / f"{name}.txt").write_text(text)
        with pytest.raises(InputError, match=message):
            train(settings(model, mine), tmp_path / "run")
        (mine / "chat" / f"{name}.txt").write_text(kept)
    assert not (tmp_path / "run").exists()
