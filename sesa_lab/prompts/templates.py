"""The texts of prompts: which file holds which, a user's folder before the built-in one; read once, and checked.

A user's folder (``policy.prompts``) has the layout and the names of this one. What it holds goes before the built-in text of
the same use, its ``<form>/<role>.txt`` also before a built-in ``<form>/<environment>.<role>.txt``; the rest stays built-in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sesa_lab.errors import InputError, suggest
from sesa_lab.prompts.words import TASK, WORDS, check_needed, cut, filled, role_of, without_value
from sesa_lab.types import Task

FOLDER = Path(__file__).parent
FORMS = ("chat", "lab")
ROLES = tuple(WORDS)
_Chosen = tuple[str, str | None, Path | None]  # name, text and file of what a role uses


@dataclass(frozen=True)
class Templates:
    """What one form and one environment use, as it was when it was read; later edits of the files change nothing here.

    Attributes:
        form: ``lab`` or ``chat``.
        environment: its name.
        texts: file name -> text without its final line break, e.g. ``chat/sketch.txt``: one a role, and that of {task}. Of a lab
            form's {task} there may be none, for a speaker that is asked for no task.
        files: file name -> where that text was read; {task} of a chat may have no file, it is ``{prompt}`` then, and what a run
            recorded has none.
    """

    form: str
    environment: str
    texts: Mapping[str, str]
    files: Mapping[str, Path]
    _parts: Mapping[str, tuple[str, ...]] = field(repr=False)  # role -> text, word, text ... text

    @classmethod
    def read(cls, form: str, environment: str, folder: str = "") -> Templates:
        """The templates as they are now.

        Args:
            form: ``lab`` or ``chat``.
            environment: its name.
            folder: the user's own; empty: the built-in ones alone.

        Raises:
            InputError: the folder cannot be read, holds a template of an unknown name or nothing that is used here; a template
                is empty, has a brace that is no word's, asks for a word that its role does not have, or lacks one that it needs.
        """
        _check_form(form)
        own = folder_texts(folder, environment) if folder else {}
        found = cls._of(form, environment, {r: _chosen(form, environment, r, own, folder) for r in (TASK, *ROLES)})
        for name in found.texts:
            role = role_of(name)
            check_needed(role, found._parts[role], str(found.files.get(name, name)))
        if folder and not own.keys() & found.texts.keys():
            raise InputError(
                f"policy.prompts = {folder!r} holds nothing that is used here (form {form}, environment {environment}), only"
                f" {', '.join(sorted(own)) or 'no template at all'}; expected some of {', '.join(sorted(found.texts))}"
            )
        return found

    @classmethod
    def recorded(cls, environment: str, texts: Mapping[str, str], where: str) -> Templates:
        """The templates that a run recorded when it began, whatever has become of their files.

        A role that it has no text of, being older than that role, has the built-in one.

        Args:
            environment: the run's.
            texts: ``texts`` of then, of one form.
            where: the file that holds them, for errors.

        Raises:
            InputError: names of no form; a text that ``read`` would refuse, but for a word that it lacks.
        """
        form = next(iter(texts), "").partition("/")[0]
        _check_form(form, f"{where}: ")
        kept: dict[str, _Chosen] = {role_of(name): (name, text, None) for name, text in texts.items()}
        chosen = {r: kept.get(r) or _chosen(form, environment, r, {}, "") for r in (TASK, *ROLES)}
        return cls._of(form, environment, chosen, f" in {where}")

    @classmethod
    def _of(cls, form: str, environment: str, chosen: Mapping[str, _Chosen], place: str = "") -> Templates:
        texts, files, parts = {}, {}, {}
        for role, (name, text, file) in chosen.items():
            if file is not None:
                files[name] = file
            if text is not None:
                texts[name], parts[role] = text, cut(role, text, str(file or f"{name}{place}"))
        return cls(form, environment, MappingProxyType(texts), MappingProxyType(files), MappingProxyType(parts))

    def filled(self, role: str, values: Mapping[str, str], task: Task | None = None) -> str:
        """The role's template with its {words} replaced by ``values``, and by the ``task``."""
        parts, found = self._parts[role], dict(values)
        if task is not None and "task" in parts[1::2]:
            found["task"] = self.task(task)
        if task is not None and "question" in parts[1::2]:
            found["question"] = self.question(task)
        return filled(parts, found)

    def task(self, task: Task) -> str:
        """{task}: its template formatted with the task's data and {prompt}.

        Raises:
            InputError: the template asks for what the task does not have, or a lab form has none for this environment.
        """
        return self._formatted({"prompt": task.prompt, **task.data})

    def question(self, task: Task) -> str:
        """{question}: {task} without the task's answer format (``data["format"]``); {task} itself where that is not named."""
        if not _answer_format(task):
            return self.task(task)
        return self._formatted({"prompt": without_format(task.prompt, task), **task.data, "format": ""}).rstrip()

    def _formatted(self, values: Mapping[str, Any]) -> str:
        name = f"{self.form}/{self.environment}.txt"
        if name not in self.texts:
            raise _no_task(name)
        try:
            return filled(self._parts[TASK], values)
        except KeyError as error:
            where = str(self.files.get(name, name))
            raise without_value(where, error.args[0], self.environment, values) from error


def template(form: str, role: str, environment: str = "") -> str:
    """The built-in text of ``<form>/<environment>.<role>.txt`` or, without it, ``<form>/<role>.txt``; no final line break.

    Raises:
        InputError: neither is there.
    """
    own = FOLDER / form / f"{environment}.{role}.txt"
    path = own if environment and own.is_file() else FOLDER / form / f"{role}.txt"
    if not path.is_file():
        raise _no_role(f"{form}/{role}.txt")
    return _read(path)


def task_text(form: str, environment: str, task: Task) -> str:
    """{task} by the built-in templates."""
    return Templates.read(form, environment).task(task)


def copy(folder: str | Path, form: str = "chat", environment: str = "path_exploration") -> list[Path]:
    """Write the built-in templates that one form and environment use to ``folder``, to be edited there.

    Args:
        folder: made if it is not there; it then goes into ``policy.prompts``.
        form: ``chat`` (any model with a chat template) or ``lab`` (the lab policies).
        environment: its name.

    Returns:
        The files written.

    Raises:
        InputError: one of them is there already (nothing is written then), the folder cannot be written, or the lab form does
            not know the environment.
    """
    target, found = Path(folder).expanduser(), Templates.read(form, environment).texts
    if f"{form}/{environment}.txt" not in found:
        raise _no_task(f"{form}/{environment}.txt")
    texts = {target / name: text for name, text in found.items()}
    there = [path for path in texts if os.path.lexists(path)]
    if there:
        raise InputError(f"{there[0]} exists already and is not overwritten; choose another folder, or remove it")
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {error.filename or target}: {error.strerror}; choose another folder") from error
    return list(texts)


def folder_texts(folder: str, environment: str) -> dict[str, str]:
    """File name -> text of all templates in a user's folder, of any form.

    Hidden files (a notebook's copies) and those that do not end in .txt (a README.md) are not read.

    Raises:
        InputError: no such folder, a name that is no template's, or a file that cannot be read.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise InputError(
            f"policy.prompts = {folder!r}: no folder there; make one with `sesa-lab prompts {folder}`, or leave it out for the"
            " built-in prompts"
        )
    environments = {environment, *(path.stem.split(".")[0] for path in (FOLDER / "lab").glob("*.txt"))} - {*ROLES}
    stems = {*ROLES, *environments, *(f"{name}.{role}" for name in environments for role in ROLES)}
    known = {f"{form}/{stem}.txt" for form in FORMS for stem in stems}
    found = {}
    for name in _names_in(root, folder):
        if name not in known:
            close = suggest(name, sorted(known)).partition("known: ")[0]
            raise InputError(
                f"policy.prompts = {folder!r}: {name} is no template; {close}known: {environment}.txt (the task),"
                f" {'.txt, '.join(ROLES)}.txt, each of these also for one environment ({environment}.sketch.txt), in a folder"
                f" {' or '.join(FORMS)}"
            )
        found[name] = _read(root / name)
    return found


def without_format(text: str, task: Task) -> str:
    """``text``, which the task's environment wrote, without the words on how an answer must look."""
    words = _answer_format(task)
    return text.replace(words, "").rstrip() if words and words in text else text


def _answer_format(task: Task) -> str:
    words = task.data.get("format", "")
    return words if isinstance(words, str) else ""


def _chosen(form: str, environment: str, role: str, own: Mapping[str, str], folder: str) -> _Chosen:
    """What a role uses. No file: a chat's {task} is the task's own prompt, unless a template says more."""
    names = [f"{form}/{environment}.{role}.txt", f"{form}/{role}.txt"] if role else [f"{form}/{environment}.txt"]
    for name in names:
        if name in own:
            return name, own[name], Path(folder).expanduser() / name
    for name in names:
        if (FOLDER / name).is_file():
            return name, _read(FOLDER / name), FOLDER / name
    if role == TASK:
        return names[0], "{prompt}" if form == "chat" else None, None
    raise _no_role(names[-1])


def _check_form(form: str, where: str = "") -> None:
    if form not in FORMS:
        raise InputError(f"{where}unknown form of prompts {form!r}; {suggest(form, FORMS)}")


def _no_role(name: str) -> InputError:
    return InputError(f"no prompt template {name} in {FOLDER}; known roles: {', '.join(ROLES)}")


def _no_task(name: str) -> InputError:
    return InputError(
        f"no prompt template {name} in {FOLDER}, nor in a folder that policy.prompts names; lab policies need one"
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"prompt template {path} is no UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    except OSError as error:
        raise InputError(f"prompt template {path} cannot be read: {error.strerror}; mend or remove it") from error


def _names_in(root: Path, folder: str) -> Iterator[str]:
    """Relative names of all .txt files and folders below ``root`` but hidden ones, top first."""

    def refuse(error: OSError) -> None:
        raise InputError(f"policy.prompts = {folder!r}: cannot read {error.filename}: {error.strerror}") from error

    for at, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        odd = [name for name in folders if name.endswith(".txt")]
        for name in sorted(name for name in [*files, *odd] if not name.startswith(".")):
            if name.lower().endswith(".txt"):
                yield (Path(at) / name).relative_to(root).as_posix()
