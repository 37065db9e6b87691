r"""The {words} of templates: which ones a role's braces may name and must name, and how a text is cut at them.

One rule for all templates, those of {task} too: ``{word}`` is replaced, ``{{`` and ``}}`` are one brace each, and any other
brace is a mistake (``\boxed{}``, ``{"answer": 1}``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from sesa_lab.errors import InputError

WORDS: Mapping[str, tuple[str, ...]] = {
    "answer": ("task",),
    "next": (),
    "sketch_list": ("task", "question"),
    "sketch_next": ("number",),
    "sketch": ("task", "question", "sketches"),
    "solve": ("task", "sketch"),
    "turn": ("observation",),
    "turn_sketch": ("observation",),
    "turn_solve": (),
}
"""Role -> what its braces may name."""
NEEDED: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "answer": (("task",),),
    "sketch_list": (("task", "question"),),
    "sketch": (("task", "question"), ("sketches",)),
    "solve": (("task",), ("sketch",)),
    "turn": (("observation",),),
    "turn_sketch": (("observation",),),
}
"""Role -> what its text must name, one word of each group: without it the policy would be asked about nothing."""
TASK = ""
"""Stands for a role: the template of {task} itself, ``<form>/<environment>.txt``."""
_BRIDGES = ("next", "sketch_next", "turn_solve")  # these may be white space alone, but not nothing
_BRACES = re.compile(r"\{\{|\}\}|\{([^\W\d]\w*)\}|[{}]")
_DOUBLED = "a brace that is meant literally is doubled, {{ or }}"


def cut(role: str, text: str, where: str) -> tuple[str, ...]:
    """The template cut at its {words}: text, word, text ... text; doubled braces are single ones there.

    Args:
        role: one of ``WORDS``, or ``TASK``, whose words are the task's own and not looked at here.
        text: the template.
        where: what an error calls it.

    Raises:
        InputError: nothing is in it, a brace is no word's, or the role has no such word.
    """
    if not (text if role in _BRIDGES else text.strip()):
        raise InputError(
            f"prompt template {where} is empty; write what it should say, or remove the file for the built-in text"
        )
    parts, done = [""], 0
    for found in _BRACES.finditer(text):
        parts[-1] += text[done : found.start()]
        done = found.end()
        if found[1]:
            parts += [found[1], ""]
        elif len(found[0]) == 2:
            parts[-1] += found[0][0]
        else:
            raise InputError(
                f"prompt template {where} has a brace that is no word's, in {_around(text, found.start())!r};"
                f" {_known(role)}; {_DOUBLED}"
            )
    parts[-1] += text[done:]
    for name in parts[1::2] if role != TASK else ():
        if name not in WORDS[role]:
            raise InputError(f"prompt template {where} asks for {{{name}}}; {_known(role)}; {_DOUBLED}")
    return tuple(parts)


def check_needed(role: str, parts: tuple[str, ...], where: str) -> None:
    """Raises ``InputError`` where a template, as ``cut`` gives it, lacks a word that its role makes no sense without."""
    for group in NEEDED.get(role, ()):
        if not {*group} & {*parts[1::2]}:
            words = " or ".join(f"{{{name}}}" for name in group)
            raise InputError(
                f"prompt template {where} does not say {words}, so that a policy would never see it; put {words} where it"
                " belongs, or remove the file for the built-in text"
            )


def filled(parts: tuple[str, ...], values: Mapping[str, object]) -> str:
    """A template, as ``cut`` gives it, with its words replaced, all at once: what comes in is never read as a template.

    Raises:
        KeyError: a word without a value.
    """
    return "".join(f"{values[part]}" if place % 2 else part for place, part in enumerate(parts))


def without_value(where: str, name: str, environment: str, values: Mapping[str, object]) -> InputError:
    """The mistake of a {task} template that asks for ``name``, which a task of ``environment`` does not have."""
    known = ", ".join(f"{{{value}}}" for value in values)
    return InputError(f"prompt template {where} asks for {{{name}}}; a task of {environment} has {known}; {_DOUBLED}")


def role_of(name: str) -> str:
    """The role of ``<form>/<role>.txt`` and ``<form>/<environment>.<role>.txt``; ``TASK`` of ``<form>/<environment>.txt``."""
    last = name.rpartition("/")[2].removesuffix(".txt").rpartition(".")[2]
    return last if last in WORDS else TASK


def _known(role: str) -> str:
    if role == TASK:
        return "a task has {prompt} and its data, by name"
    return f"this role has {', '.join(f'{{{name}}}' for name in WORDS[role]) or 'no words to put in'}"


def _around(text: str, place: int) -> str:
    """What is shown of a brace's line: from an opening one on, up to a closing one."""
    if text[place] == "{":
        return text[place : place + 24].splitlines()[0]
    return text[max(0, place - 23) : place + 1].splitlines()[-1]
