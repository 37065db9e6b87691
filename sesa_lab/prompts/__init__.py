"""Prompts are data: this room turns tasks, sketches and observations into token ids by the templates beside this file.

Two forms. *lab*: short texts that the lab policies were pre-trained on. *chat*: user turns of the tokenizer's own chat
template. In both a dialogue only ever grows at its end, so that an engine can keep its cache.

A template is ``<form>/<role>.txt``, or ``<form>/<environment>.<role>.txt`` for one environment alone. Roles, and what their
braces may name:

====================  =====================================================================================================
``answer``            x, what a direct answer is drawn under: {task}
``next``              bridge from one whole answer to the next, different one (sequential sampling)
``sketch_list``       asks for a list of methods; sketches follow it one after another: {task}
``sketch_next``       bridge from one sketch of the list to the next: {number}
``sketch``            asks for one more method, given those before it (repeated prompting): {task}, {sketches}
``solve``             asks for a solution by one method: {task}, {sketch}
``turn``              what the environment says after a turn: {observation}
``turn_sketch``       the same, asking for this turn's method first: {observation}
``turn_solve``        bridge from that method to the turn itself
====================  =====================================================================================================

{task} is ``<form>/<environment>.txt`` formatted with the task's data and {prompt}, its plain text; without such a file, the
plain text itself. Sketches and observations are put in as they are: text of a policy is never taken for a template, nor for
one of the tokenizer's control tokens, such as the end of a turn (a blank is put into it).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from sesa_lab.errors import InputError
from sesa_lab.types import Completion, Task

FOLDER = Path(__file__).parent
ROLES = (
    "answer", "next", "sketch_list", "sketch_next", "sketch", "solve", "turn", "turn_sketch", "turn_solve",
)  # fmt: skip
_WORD = re.compile(r"\{([a-z_]+)\}")
_MARK = "\u2063answer\u2063"  # stands for an answer while a chat template is rendered
_NONE = "none"  # what {sketches} says before the first


@cache
def template(form: str, role: str, environment: str = "") -> str:
    """The text of ``<form>/<environment>.<role>.txt`` or, without it, ``<form>/<role>.txt``; no final line break.

    Raises:
        InputError: neither is there.
    """
    own = FOLDER / form / f"{environment}.{role}.txt"
    path = own if environment and own.is_file() else FOLDER / form / f"{role}.txt"
    if not path.is_file():
        raise InputError(f"no prompt template {form}/{role}.txt in {FOLDER}; known roles: {', '.join(ROLES)}")
    return path.read_text(encoding="utf-8").removesuffix("\n")


@cache
def _task_template(form: str, environment: str) -> str | None:
    path = FOLDER / form / f"{environment}.txt"
    if path.is_file():
        return path.read_text(encoding="utf-8").removesuffix("\n")
    if form == "lab":
        raise InputError(f"no prompt template {form}/{environment}.txt in {FOLDER}; lab policies need one")
    return None


def task_text(form: str, environment: str, task: Task) -> str:
    """{task} of the templates."""
    text = _task_template(form, environment)
    if text is None:
        return task.prompt
    try:
        return text.format(**{"prompt": task.prompt, **task.data})
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        known = ", ".join(["prompt", *task.data])
        raise InputError(
            f"prompt template {form}/{environment}.txt asks for {error}; a task of {environment} has {known}"
        ) from error


def _filled(form: str, role: str, environment: str, values: Mapping[str, str]) -> str:
    """The template with its {words} replaced, all at once: what comes in is never read as a template itself."""
    parts = list(_parts(form, role, environment, tuple(values)))
    parts[1::2] = [values[name] for name in parts[1::2]]
    return "".join(parts)


@cache
def _parts(form: str, role: str, environment: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """The template cut at its {words}: text, word, text ... text.

    Raises:
        InputError: it asks for a word that the role does not have.
    """
    parts = _WORD.split(template(form, role, environment))
    for name in parts[1::2]:
        if name not in names:
            known = ", ".join(f"{{{name}}}" for name in names) or "no words to put in"
            raise InputError(f"prompt template {form}/{role}.txt asks for {{{name}}}; this role has {known}")
    return tuple(parts)


@dataclass(frozen=True)
class Speaker:
    """How one policy is spoken to about one environment: texts to token ids, nothing else.

    Attributes:
        tokenizer: the policy's.
        form: ``lab`` or ``chat``.
        environment: its name.
        stop_ids: token ids that end an answer; the first closes one that the token limit cut.
    """

    tokenizer: Any
    form: str
    environment: str
    stop_ids: tuple[int, ...]
    _kept: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def answer(self, task: Task) -> tuple[int, ...]:
        """What a direct answer is drawn under: x."""
        return self._opening("answer", {"task": task_text(self.form, self.environment, task)})

    def guided(self, task: Task, sketch: str) -> tuple[int, ...]:
        """What a solution that follows ``sketch`` is drawn under: x with the sketch."""
        values = {"task": task_text(self.form, self.environment, task), "sketch": self._flat(sketch)}
        return self._opening("solve", values)

    def between(self, finish: str) -> tuple[int, ...]:
        """What stands between an answer that ended by ``finish`` and the next, different one."""
        return (*self._closing(finish), *self._bridge("next", {}))

    def draft(self, task: Task, form: str, earlier: Sequence[Completion]) -> tuple[int, ...]:
        """What the next sketch is drawn under: the request and the ``earlier`` ones, as a ``list`` or in a ``prompt``."""
        text = task_text(self.form, self.environment, task)
        if form == "prompt":
            return self._opening("sketch", {"task": text, "sketches": self._listed([e.text for e in earlier])})
        ids = list(self._opening("sketch_list", {"task": text}) + self._list_item(1, first=True))
        for number, sketch in enumerate(earlier, 2):
            ids += [*self._as_item(sketch), *self._list_item(number)]
        return tuple(ids)

    def draft_stops(self, form: str) -> tuple[int, ...]:
        """Token ids that end a sketch: those that end an answer and, in a chat's list, all that hold a line break."""
        if form == "prompt" or self.form == "lab":
            return self.stop_ids
        return self.stop_ids + self._line_breaks

    def observed(self, finish: str, observation: str, role: str = "turn") -> tuple[int, ...]:
        """What stands between a turn that ended by ``finish`` and the next: the environment's words.

        ``role`` turn_sketch asks for a sketch first, and turn_solve stands between that sketch and the turn.
        """
        return (*self._closing(finish), *self._bridge(role, {"observation": self._harmless(observation)}))

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of plain text."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _closing(self, finish: str) -> tuple[int, ...]:
        return () if finish == "stop" else (self.stop_ids[0],)

    def _as_item(self, sketch: Completion) -> tuple[int, ...]:
        """A sketch as it stands in a list. In a chat an item ends with its line; a closed list is opened again."""
        if self.form == "lab":
            return (*sketch.ids, *self._closing(sketch.finish))
        if sketch.ids[-1] in self.stop_ids:
            return (*sketch.ids[:-1], *self.encode("\n"))
        return sketch.ids if sketch.finish == "stop" else (*sketch.ids, *self.encode("\n"))

    def _listed(self, sketches: Sequence[str]) -> str:
        flat = [self._flat(sketch) for sketch in sketches]
        if self.form == "lab":
            return ", ".join(flat) or _NONE
        return "\n".join(f"{number}. {sketch}" for number, sketch in enumerate(flat, 1)) or _NONE

    def _list_item(self, number: int, first: bool = False) -> tuple[int, ...]:
        if self.form == "lab" and first:
            return ()
        return self.encode(_filled(self.form, "sketch_next", self.environment, {"number": str(number)}))

    def _opening(self, role: str, values: Mapping[str, str]) -> tuple[int, ...]:
        text = _filled(self.form, role, self.environment, values)
        if self.form == "chat":
            text = self.tokenizer.apply_chat_template(_turns(text), tokenize=False, add_generation_prompt=True)
        return self.encode(text)

    def _bridge(self, role: str, values: Mapping[str, str]) -> tuple[int, ...]:
        text = _filled(self.form, role, self.environment, values)
        if self.form == "lab":
            return self.encode(text)
        return self._keep(("bridge", text), lambda: _chat_bridge(self.tokenizer, text))

    def _flat(self, sketch: str) -> str:
        return self._harmless(" ".join(sketch.split()))

    def _harmless(self, text: str) -> str:
        for token in self._control_tokens:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    @cached_property
    def _control_tokens(self) -> tuple[str, ...]:
        """Texts that the tokenizer reads as one token with a meaning of its own wherever they stand."""
        return tuple(token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special)

    @cached_property
    def _line_breaks(self) -> tuple[int, ...]:
        """All tokens that hold a line break, but for stop tokens."""
        texts = self.tokenizer.batch_decode([[i] for i in range(len(self.tokenizer))])
        return tuple(i for i, text in enumerate(texts) if "\n" in text and i not in self.stop_ids)

    def _keep(self, key: Any, make: Any) -> tuple[int, ...]:
        if key not in self._kept:
            if len(self._kept) > 256:  # observations differ from turn to turn
                self._kept.clear()
            self._kept[key] = make()
        found: tuple[int, ...] = self._kept[key]
        return found


def _chat_bridge(tokenizer: Any, user: str) -> tuple[int, ...]:
    """Token ids of one more user turn and the opening of the answer to it, after the stop token of an answer.

    Raises:
        InputError: the tokenizer's chat template rewrites earlier turns or ends a turn without the stop token, so that
            a dialogue cannot be continued at its end.
    """
    turns = _turns("task")
    opened = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    turns += [{"role": "assistant", "content": _MARK}, *_turns(user)]
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
