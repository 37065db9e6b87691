"""Tasks become token ids, and a dialogue only ever grows at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_models
from tiny_models import CHATML, REWRITING, UNSTOPPED
from transformers import AutoTokenizer

from sesa_lab import environments, prompts
from sesa_lab.errors import InputError
from sesa_lab.types import Task

TASK = Task(3, "Name a colour, é or 色.", {"map": 3})


def tokenizer(folder: Path, template: str | None = CHATML) -> Any:
    tiny_models.save_tokenizer(folder, template)
    return AutoTokenizer.from_pretrained(folder)


def test_lab_form_is_the_template_filled_with_the_tasks_data(tmp_path: Path) -> None:
    own = tokenizer(tmp_path)
    ids = prompts.task_ids(own, "lab", "path_exploration", TASK)
    assert own.decode(ids) == "map 3:"
    assert own.decode(prompts.bridge_ids(own, "lab")) == prompts.template("lab", "next")


@pytest.mark.parametrize("name", environments.names())
def test_every_environment_has_a_lab_template_that_its_tasks_fill(name: str, tmp_path: Path) -> None:
    own = tokenizer(tmp_path)
    environment = environments.make(name)
    for index in (0, 1, 10**6):
        assert prompts.task_ids(own, "lab", name, environment.task(index))


def test_a_missing_template_is_named() -> None:
    with pytest.raises(InputError, match=r"no prompt template lab/nowhere\.txt in .*add the file"):
        prompts.template("lab", "nowhere")


def test_chat_form_is_one_user_turn_of_the_template(tmp_path: Path) -> None:
    own = tokenizer(tmp_path)
    ids = prompts.task_ids(own, "chat", "path_exploration", TASK)
    turns = [{"role": "user", "content": TASK.prompt}]
    assert list(ids) == own.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert own.decode(ids) == f"<|im_start|>user\n{TASK.prompt}<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("answers", [["red"], ["red", " deep  blue\n", "色"]])
def test_the_chat_bridge_continues_the_dialogue_exactly(tmp_path: Path, answers: list[str]) -> None:
    own = tokenizer(tmp_path)
    bridge = prompts.bridge_ids(own, "chat")
    ids = list(prompts.task_ids(own, "chat", "path_exploration", TASK))
    turns = [{"role": "user", "content": TASK.prompt}]
    for answer in answers:
        ids += [*own(answer, add_special_tokens=False)["input_ids"], own.eos_token_id, *bridge]
        turns += [
            {"role": "assistant", "content": answer},
            {"role": "user", "content": prompts.template("chat", "next")},
        ]
    assert ids == own.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert own.decode(ids) == own.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)


@pytest.mark.parametrize("template", [REWRITING, UNSTOPPED], ids=["rewrites earlier turns", "no stop token"])
def test_templates_that_cannot_be_continued_are_refused(tmp_path: Path, template: str) -> None:
    own = tokenizer(tmp_path, template)
    assert prompts.task_ids(own, "chat", "path_exploration", TASK), "direct answers are possible all the same"
    with pytest.raises(InputError, match=r"cannot be continued turn by turn .*use sampler 'parallel' or another model"):
        prompts.bridge_ids(own, "chat")
