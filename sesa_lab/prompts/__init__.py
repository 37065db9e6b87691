"""Prompts are data: this room turns a task into token ids by the templates that lie beside this file.

Two forms. *lab*: the short form the lab policies were pre-trained on, ``lab/<environment>.txt`` formatted with the task's
data. *chat*: the task's plain text as one user turn of the tokenizer's own chat template. In both forms a dialogue only
ever grows at its end, so that an engine can keep its cache: an answer is followed by its stop token and then by a *bridge*
that asks for one more, different answer.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from sesa_lab.errors import InputError
from sesa_lab.types import Task

FOLDER = Path(__file__).parent
_MARK = "\u2063answer\u2063"  # stands for an answer while a chat template is rendered


@cache
def template(form: str, name: str) -> str:
    """The text of ``<form>/<name>.txt``, without its final line break."""
    path = FOLDER / form / f"{name}.txt"
    if not path.is_file():
        raise InputError(
            f"no prompt template {form}/{name}.txt in {FOLDER}; add the file to use this environment there"
        )
    return path.read_text(encoding="utf-8").removesuffix("\n")


def task_ids(tokenizer: Any, form: str, environment: str, task: Task) -> tuple[int, ...]:
    """Token ids of x, the task's prompt: what a direct answer is drawn under."""
    if form == "lab":
        text = template("lab", environment).format(**task.data)
    else:
        text = tokenizer.apply_chat_template(_turns(task.prompt), tokenize=False, add_generation_prompt=True)
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def bridge_ids(tokenizer: Any, form: str) -> tuple[int, ...]:
    """Token ids between the stop token of one answer and the first token of the next.

    Raises:
        InputError: the tokenizer's chat template rewrites earlier turns or ends a turn without the stop token, so that
            a dialogue cannot be continued at its end.
    """
    if form == "lab":
        return tuple(tokenizer(template("lab", "next"), add_special_tokens=False)["input_ids"])
    return _chat_bridge(tokenizer)


def _chat_bridge(tokenizer: Any) -> tuple[int, ...]:
    turns = _turns("task")
    opened = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    turns += [{"role": "assistant", "content": _MARK}, *_turns(template("chat", "next"))]
    full = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    start = f"{opened}{_MARK}{tokenizer.eos_token}"
    if not full.startswith(start):
        raise InputError(
            "this tokenizer's chat template cannot be continued turn by turn (it rewrites earlier turns, or does not end"
            f" a turn with its eos token {tokenizer.eos_token!r}); use sampler 'parallel' or another model"
        )
    return tuple(tokenizer(full[len(start) :], add_special_tokens=False)["input_ids"])


def _turns(user: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": user}]
