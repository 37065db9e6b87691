r"""Prompts are data: this room turns tasks, sketches and observations into token ids by the templates beside this file.

Two forms. *lab*: short texts that the lab policies were pre-trained on. *chat*: user turns of the tokenizer's own chat
template. In both a dialogue only ever grows at its end, so that an engine can keep its cache.

A template is ``<form>/<role>.txt``, or ``<form>/<environment>.<role>.txt`` for one environment alone. Roles, and what their
braces name (all of it, but of two words parted by "or" one; {number} alone may be left out):

====================  =====================================================================================================
``answer``            x, what a direct answer is drawn under: {task}
``next``              bridge from one whole answer to the next, different one (sequential sampling)
``sketch_list``       asks for a list of methods; sketches follow it one after another: {question} or {task}
``sketch_next``       bridge from one sketch of the list to the next: {number}
``sketch``            asks for one more method, given those before it (repeated prompting): {question} or {task}, {sketches}
``solve``             asks for a solution by one method: {task}, {sketch}
``turn``              what the environment says after a turn: {observation}
``turn_sketch``       the same, asking for this turn's method first: {observation}, in a chat without the answer format
``turn_solve``        bridge from that method to the turn itself
====================  =====================================================================================================

{task} is ``<form>/<environment>.txt`` formatted with the task's data and {prompt}, its plain text; without such a file, the
plain text itself. {question} is {task} without the words on how an answer must look (the task's {format}), for a method is no
answer. A brace that is meant literally is doubled in a template, that of {task} included: ``\boxed{{}}``, ``{{"answer": 1}}``.

Sketches and observations are put in as they are: what comes in is never taken for a template, nor for one of the tokenizer's
control tokens, such as the end of a turn (a blank is put into it). A sketch, which a policy writes, has no markup that the
tokenizer reads as one token either (``</think>``, ``<tool_call>``); an observation may, for an environment asks for tags.

To edit them: ``prompts.copy(folder, form="chat", environment="countdown")`` writes those that apply into a folder, and the
setting ``policy.prompts`` names it; what does not end in .txt may lie there too. ``templates`` says which text goes before
which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from sesa_lab.errors import InputError
from sesa_lab.prompts import chat
from sesa_lab.prompts.templates import (
    FORMS,
    ROLES,
    Templates,
    copy,
    folder_texts,
    task_text,
    template,
    without_format,
)
from sesa_lab.types import Completion, Task

__all__ = ["FORMS", "ROLES", "Speaker", "Templates", "copy", "folder_texts", "task_text", "template"]

_NONE = "none"  # what {sketches} says before the first
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Speaker:
    """How one policy is spoken to about one environment: texts to token ids, nothing else.

    The templates are read when it is made; whoever edits one makes a new speaker.

    Attributes:
        tokenizer: the policy's.
        form: ``lab`` or ``chat``.
        environment: its name.
        stop_ids: token ids that end an answer; the first closes one that the token limit cut.
        folder: the user's own templates (``policy.prompts``); empty: the built-in ones alone.
        recorded: what a run recorded; where it is given, no file is read.
        templates: the texts.
    """

    tokenizer: Any
    form: str
    environment: str
    stop_ids: tuple[int, ...]
    folder: str = ""
    recorded: Templates | None = field(default=None, repr=False, compare=False)
    templates: Templates = field(init=False, repr=False, hash=False)
    _kept: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Read the templates.

        Raises:
            InputError: see ``Templates.read``; or what was recorded is of another form than the policy.
        """
        found = self.recorded or Templates.read(self.form, self.environment, self.folder)
        if found.form != self.form:
            raise InputError(
                f"the run recorded prompts of form {found.form!r}, and its policy is now asked in form {self.form!r}; put"
                " back the tokenizer, with or without a chat template, that it was trained with"
            )
        object.__setattr__(self, "templates", found)

    def answer(self, task: Task) -> tuple[int, ...]:
        """What a direct answer is drawn under: x."""
        return self._opening("answer", task)

    def guided(self, task: Task, sketch: str) -> tuple[int, ...]:
        """What a solution that follows ``sketch`` is drawn under: x with the sketch."""
        return self._opening("solve", task, {"sketch": self._flat(sketch)})

    def between(self, finish: str) -> tuple[int, ...]:
        """What stands between an answer that ended by ``finish`` and the next, different one."""
        return (*self._closing(finish), *self._bridge("next"))

    def draft(self, task: Task, form: str, earlier: Sequence[Completion]) -> tuple[int, ...]:
        """What the next sketch is drawn under: the request and the ``earlier`` ones, as a ``list`` or in a ``prompt``."""
        if form == "prompt":
            return self._opening("sketch", task, {"sketches": self._listed([e.text for e in earlier])})
        ids = list(self._opening("sketch_list", task) + self._list_item(1, first=True))
        for number, sketch in enumerate(earlier, 2):
            ids += [*self._as_item(sketch), *self._list_item(number)]
        return tuple(ids)

    def draft_stops(self, form: str) -> tuple[int, ...]:
        """Token ids that end a sketch: those that end an answer and, in a chat's list, all that hold a line break."""
        if form == "prompt" or self.form == "lab":
            return self.stop_ids
        return self.stop_ids + self._line_breaks

    def observed(self, finish: str, observation: str, role: str = "turn", task: Task | None = None) -> tuple[int, ...]:
        """What stands between a turn that ended by ``finish`` and the next: the environment's words.

        ``role`` turn_sketch asks for a sketch first, in a chat without the answer format of ``task``, which the observation
        may repeat; turn_solve stands between that sketch and the turn.
        """
        if role == "turn_solve":
            return (*self._closing(finish), *self._bridge(role))
        if role == "turn_sketch" and self.form == "chat" and task is not None:
            observation = without_format(observation, task)
        observation = _broken(observation, self._control_tokens)
        return (*self._closing(finish), *self._bridge(role, {"observation": observation}))

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
            return (*sketch.ids[:-1], *self._further("\n"))
        return sketch.ids if sketch.finish == "stop" else (*sketch.ids, *self._further("\n"))

    def _listed(self, sketches: Sequence[str]) -> str:
        flat = [self._flat(sketch) for sketch in sketches]
        if self.form == "lab":
            return ", ".join(flat) or _NONE
        return "\n".join(f"{number}. {sketch}" for number, sketch in enumerate(flat, 1)) or _NONE

    def _list_item(self, number: int, first: bool = False) -> tuple[int, ...]:
        if self.form == "lab" and first:
            return ()
        text = self.templates.filled("sketch_next", {"number": str(number)})
        return self.encode(text) if self.form == "lab" else self._further(text)

    def _further(self, text: str) -> tuple[int, ...]:
        """Token ids of text that goes on behind other text: some tokenizers put a blank before all that begins."""
        letter, both = self.encode("a"), self.encode(f"a{text}")
        return both[len(letter) :] if both[: len(letter)] == letter else self.encode(text)

    def _opening(self, role: str, task: Task, values: Mapping[str, str] = _NOTHING) -> tuple[int, ...]:
        text = self.templates.filled(role, values, task)
        if self.form == "chat":
            text = chat.opening(self.tokenizer, text)
        return self.encode(text)

    def _bridge(self, role: str, values: Mapping[str, str] = _NOTHING) -> tuple[int, ...]:
        text = self.templates.filled(role, values)
        if self.form == "lab":
            return self.encode(text)
        return self._keep(("bridge", text), lambda: chat.bridge(self.tokenizer, text, self.stop_ids))

    def _flat(self, sketch: str) -> str:
        return _broken(" ".join(sketch.split()), self._control_tokens + self._markup)

    @cached_property
    def _control_tokens(self) -> tuple[str, ...]:
        """Texts that the tokenizer reads as one token with a meaning of its own wherever they stand."""
        return tuple(token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special)

    @cached_property
    def _markup(self) -> tuple[str, ...]:
        """Further ones, that are added without being called special: </think>, <tool_call>, <|fim_prefix|>."""
        added = [token.content for token in self.tokenizer.added_tokens_decoder.values() if not token.special]
        return tuple(text for text in added if text.startswith("<") and text.endswith(">"))

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


def _broken(text: str, tokens: Sequence[str]) -> str:
    """``text`` with a blank in each of ``tokens`` that it spells out, so that it is read letter by letter."""
    for token in tokens:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text
