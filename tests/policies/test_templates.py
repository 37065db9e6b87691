"""Which text a role has: the user's folder before the built-in one, read once, every mistake in it told at the start."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from transformers import AutoTokenizer

from sesa_lab import environments, prompts
from sesa_lab.errors import InputError
from sesa_lab.prompts import ROLES, Speaker, Templates, templates
from sesa_lab.types import Task

TASK = Task(3, "Name a colour.", {"map": 3})
ASKED = "path_exploration"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_models.save_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


def written(folder: Path, **texts: str) -> str:
    """The folder with these lab templates; a dot in a name is ``__``."""
    (folder / "lab").mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / "lab" / f"{name.replace('__', '.')}.txt").write_text(text)
    return str(folder)


def said(own: Speaker, ids: tuple[int, ...]) -> str:
    return str(own.tokenizer.decode(ids))


def refused(folder: str | Path, form: str = "lab", environment: str = ASKED) -> str:
    with pytest.raises(InputError) as caught:
        Templates.read(form, environment, str(folder))
    assert "\n" not in str(caught.value), "the command line prints one line"
    return str(caught.value)


# --- which text -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", prompts.FORMS)
@pytest.mark.parametrize("name", environments.names())
def test_without_a_folder_all_is_built_in(form: str, name: str) -> None:
    found = Templates.read(form, name)
    assert len(found.texts) == len(ROLES) + 1, "one a role, and that of the task"
    for role in ROLES:
        assert prompts.template(form, role, name) in found.texts.values()
        assert f"``{role}``" in (prompts.__doc__ or "")
    for file, path in found.files.items():
        assert path == templates.FOLDER / file and path.read_text().removesuffix("\n") == found.texts[file]
    task = environments.make(name).task(0)
    assert found.task(task) == prompts.task_text(form, name, task)


def test_a_chats_task_is_its_own_prompt_where_no_template_says_more() -> None:
    found = Templates.read("chat", ASKED)
    assert found.texts["chat/path_exploration.txt"] == "{prompt}" and "chat/path_exploration.txt" not in found.files
    assert found.task(TASK) == found.question(TASK) == "Name a colour."
    told = Task(0, "Name a colour. One word only, {braces} too.", {"format": "One word only, {braces} too."})
    assert found.task(told) == told.prompt and found.question(told) == "Name a colour."


def test_what_a_folder_holds_goes_before_the_built_in_text(tmp_path: Path, tokenizer: Any) -> None:
    folder = written(tmp_path / "mine", solve="{task} by {sketch}\n", next="\n\n")
    own = Speaker(tokenizer, "lab", ASKED, (1,), folder)
    assert said(own, own.guided(TASK, "a")) == "map 3: by a"
    assert said(own, own.between("stop")) == "\n", "a bridge may be white space; one final line break goes"
    assert said(own, own.draft(TASK, "prompt", [])) == "map 3: tried: none idea:", "the rest stays built-in"
    assert own.templates.files["lab/solve.txt"] == tmp_path / "mine" / "lab" / "solve.txt"
    assert own.templates.files["lab/sketch.txt"] == templates.FOLDER / "lab" / "sketch.txt"


def test_the_order_of_four(tmp_path: Path) -> None:
    """One's own for the environment, one's own, the built-in one for the environment (lab has one for answers), built-in."""

    def text(folder: str) -> str:
        found = Templates.read("lab", ASKED, folder)
        return found.texts.get("lab/path_exploration.answer.txt") or found.texts["lab/answer.txt"]

    folder = written(tmp_path, turn="{observation}!")
    assert text("") == text(folder) == "{task}"
    assert text(written(tmp_path, answer="mine {task}")) == "mine {task}"
    assert text(written(tmp_path, path_exploration__answer="here {task}")) == "here {task}"
    assert Templates.read("lab", "countdown", folder).texts["lab/answer.txt"] == "mine {task}"


def test_a_folder_may_be_for_several_forms_and_environments(tmp_path: Path) -> None:
    folder = written(tmp_path, countdown="n {numbers_text}", sokoban__solve="{task} {sketch}", turn="{observation}")
    assert "lab/countdown.txt" not in Templates.read("lab", ASKED, folder).texts
    assert set(prompts.folder_texts(folder, ASKED)) == {"lab/countdown.txt", "lab/sokoban.solve.txt", "lab/turn.txt"}
    assert Templates.read("lab", "countdown", folder).texts["lab/countdown.txt"] == "n {numbers_text}"


def test_an_environment_of_ones_own(tmp_path: Path, tokenizer: Any) -> None:
    none = Speaker(tokenizer, "lab", "nowhere", (1,))
    assert said(none, none.between("stop")) == " then", "what asks for no task needs none"
    asks: list[Callable[[], object]] = [
        lambda: none.answer(TASK), lambda: none.draft(TASK, "list", []), lambda: prompts.copy(tmp_path, "lab", "nowhere"),
    ]  # fmt: skip
    for ask in asks:
        with pytest.raises(InputError, match=r"no prompt template lab/nowhere\.txt in .*; lab policies need one"):
            ask()
    assert not list(tmp_path.iterdir())
    folder = written(tmp_path, nowhere="at {map}", nowhere__solve="{task}: {sketch}")
    own = Speaker(tokenizer, "lab", "nowhere", (1,), folder)
    assert said(own, own.guided(TASK, "a")) == "at 3: a"
    chat = Speaker(tokenizer, "chat", "nowhere", (1,))
    assert "Name a colour." in said(chat, chat.answer(TASK))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\\boxed{{}}", "\\boxed{}"),
        ('{{"answer": 1}}', '{"answer": 1}'),
        ("{{task}}", "{task}"),
        ("{{{{}}}}", "{{}}"),
        ("{{\n}}", "{\n}"),
    ],
)
def test_a_doubled_brace_is_a_literal_one_in_every_template(
    tmp_path: Path, tokenizer: Any, text: str, expected: str
) -> None:
    # Templates of roles had no escape, {{task}} was {map 3:} there; those of tasks followed str.format.
    folder = written(tmp_path, solve=f"{{task}} {text} {{{{{{sketch}}}}}}", path_exploration=f"{{map}} {text}")
    own = Speaker(tokenizer, "lab", ASKED, (1,), folder)
    assert said(own, own.guided(TASK, "a{b}")) == f"3 {expected} {expected} {{a{{b}}}}"


def test_a_word_of_a_task_may_have_any_name_of_its_data(tmp_path: Path) -> None:
    found = Templates.read("lab", ASKED, written(tmp_path, path_exploration="{Größe_2}, {x}, {y}: {prompt}"))
    task = Task(0, "{x}", {"Größe_2": 1.5, "x": [1, "{y}"], "y": None})
    assert found.task(task) == "1.5, [1, '{y}'], None: {x}", "as str.format writes them"


def test_the_task_with_or_without_its_format_is_for_the_template_to_say(tmp_path: Path) -> None:
    folder = written(
        tmp_path, sketch="{task} {sketches}", countdown="n {numbers_text}. {format} Go", sketch_list="{question}"
    )
    found = Templates.read("lab", "countdown", folder)
    task = Task(0, "p", {"numbers_text": "1 2", "format": "One line."})
    assert found.filled("sketch", {"sketches": "none"}, task) == "n 1 2. One line. Go none"
    assert found.filled("sketch_list", {}, task) == "n 1 2.  Go"


@pytest.mark.parametrize("words", ["", None, 3])
def test_data_without_words_on_the_format_change_nothing(words: Any) -> None:
    task = Task(0, "A question. ", {"format": words})
    assert Templates.read("chat", ASKED).question(task) == "A question. "


# --- once, and for good -----------------------------------------------------------------------------------------------------


def test_a_speaker_says_what_was_there_when_it_was_made_and_the_next_one_what_is_there_now(
    tmp_path: Path, tokenizer: Any
) -> None:
    # Texts used to be kept by the module: an edit in a running kernel did nothing.
    folder = written(tmp_path, answer="first {task}")
    first = Speaker(tokenizer, "lab", ASKED, (1,), folder)
    written(tmp_path, answer="second {task}")
    second = Speaker(tokenizer, "lab", ASKED, (1,), folder)
    assert said(first, first.answer(TASK)) == "first map 3:" and said(second, second.answer(TASK)) == "second map 3:"
    assert first != second
    (tmp_path / "lab" / "answer.txt").unlink()
    assert said(second, second.answer(TASK)) == "second map 3:"


def test_a_built_in_text_that_is_edited_is_seen_too(tmp_path: Path, tokenizer: Any, monkeypatch: Any) -> None:
    written(tmp_path, path_exploration="m {map}", **{role: prompts.template("lab", role) for role in ROLES})
    monkeypatch.setattr(templates, "FOLDER", tmp_path)
    for text in ("b", "c"):
        written(tmp_path, answer=f"{text} {{task}}")
        own = Speaker(tokenizer, "lab", ASKED, (1,))
        assert said(own, own.answer(TASK)) == f"{text} m 3"


def test_what_a_speaker_says_cannot_be_changed(tokenizer: Any) -> None:
    own = Speaker(tokenizer, "lab", ASKED, (1,))
    with pytest.raises(TypeError):
        own.templates.texts["lab/answer.txt"] = "b"  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        own.templates = Templates.read("lab", "countdown")  # type: ignore[misc]
    assert own == Speaker(tokenizer, "lab", ASKED, (1,)) and hash(own) == hash(Speaker(tokenizer, "lab", ASKED, (1,)))


# --- mistakes -----------------------------------------------------------------------------------------------------------------


def test_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "none", tmp_path / "file"):
        found = refused(path)
        assert found.startswith(f"policy.prompts = '{path}': no folder there; make one with `sesa-lab prompts {path}`")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("lab/sketchlist.txt", "did you mean 'lab/sketch_list.txt'?"),
        ("answer.txt", "did you mean '"),
        ("lab/countdwon.txt", "did you mean 'lab/countdown.txt'?"),
        ("lab/countdown.sketches.txt", "did you mean 'lab/countdown.sketch.txt'?"),
        ("lab/deeper/answer.txt", "known: "),
        ("lab/README.txt", "known: "),
        ("LAB/answer.txt", "known: "),
        ("lab/answer.TXT", "did you mean 'lab/answer.txt'?"),
    ],
)
def test_a_name_that_is_no_templates(tmp_path: Path, name: str, hint: str) -> None:
    written(tmp_path, turn="{observation}")
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("{task}")
    found = refused(tmp_path)
    assert f"{name} is no template; " in found and hint in found
    assert all(f"{role}.txt" in found for role in (ASKED, *ROLES)) and "path_exploration.sketch.txt" in found


def test_what_is_no_txt_is_not_looked_at(tmp_path: Path) -> None:
    # A README.md beside the templates made the whole folder unusable.
    folder = written(tmp_path, turn="{observation} mine")
    for name in ("README.md", "lab/notes", "lab/answer.txt~", "old/lab/answer.txt.bak", "lab/picture.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\xff")
    assert list(prompts.folder_texts(folder, ASKED)) == ["lab/turn.txt"]
    assert Templates.read("lab", ASKED, folder).texts["lab/turn.txt"] == "{observation} mine"


def test_hidden_files_are_not_looked_at(tmp_path: Path) -> None:
    folder = written(tmp_path, turn="{observation} mine")
    for name in (".DS_Store", "lab/.ipynb_checkpoints/turn-checkpoint.txt"):  # as JupyterLab's editor leaves them
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\xff")
    assert list(prompts.folder_texts(folder, ASKED)) == ["lab/turn.txt"]


def test_a_folder_of_links_is_read(tmp_path: Path) -> None:
    written(tmp_path / "there", turn="{observation} mine")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "lab").symlink_to(tmp_path / "there" / "lab")
    assert Templates.read("lab", ASKED, str(tmp_path / "here")).texts["lab/turn.txt"] == "{observation} mine"


def test_a_folder_of_which_nothing_is_used(tmp_path: Path) -> None:
    # Else a run would say in its config that it had prompts of its own, and have none.
    written(tmp_path, sokoban="r {floor}")
    assert "holds nothing that is used here (form lab, environment path_exploration), only lab/sokoban.txt;" in refused(
        tmp_path
    )
    assert "only lab/sokoban.txt; expected some of chat/answer.txt, " in refused(tmp_path, "chat")
    (tmp_path / "empty").mkdir()
    assert "only no template at all; expected some of" in refused(tmp_path / "empty")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    written(tmp_path, turn="{observation}")
    file = tmp_path / "lab" / "answer.txt"
    file.write_bytes("{task} é".encode("latin-1"))
    found = refused(tmp_path)
    assert found == f"prompt template {file} is no UTF-8 text (unexpected end of data at byte 7); save it as UTF-8"
    file.unlink()
    file.mkdir()
    assert f"prompt template {file} cannot be read: Is a directory" in refused(tmp_path)
    file.rmdir()
    file.symlink_to(tmp_path / "nowhere")
    assert f"prompt template {file} cannot be read: No such file" in refused(tmp_path)


def test_what_other_editors_write_is_read(tmp_path: Path) -> None:
    written(tmp_path, turn="")
    (tmp_path / "lab" / "turn.txt").write_bytes(b"\xef\xbb\xbfnow\r\n{observation}\r\n")
    assert Templates.read("lab", ASKED, str(tmp_path)).texts["lab/turn.txt"] == "now\n{observation}"


@pytest.mark.parametrize("role", [*ROLES, ASKED, f"{ASKED}__sketch"])
def test_empty_templates(tmp_path: Path, role: str) -> None:
    for text in ("", "\n"):
        assert f"{role.replace('__', '.')}.txt is empty; write what it should say" in refused(
            written(tmp_path, **{role: text})
        )
    if role not in ("next", "sketch_next", "turn_solve"):  # nothing asked is nothing asked
        assert "is empty" in refused(written(tmp_path, **{role: " \n\t\n"}))


@pytest.mark.parametrize(
    ("role", "text", "known"),
    [
        ("answer", "{task} {sketch}", "{task}"),
        ("answer", "{map}", "{task}"),
        ("answer", "{question}", "{task}"),
        ("solve", "{task} {sketches}", "{task}, {sketch}"),
        ("sketch", "{sketch}", "{task}, {question}, {sketches}"),
        ("sketch_list", "{number}", "{task}, {question}"),
        ("sketch_next", "{task}", "{number}"),
        ("turn", "{task}", "{observation}"),
        ("turn_sketch", "{observations}", "{observation}"),
        ("turn_solve", "{observation}", "no words to put in"),
        ("next", "{task}", "no words to put in"),
    ],
)
def test_a_role_that_asks_for_what_it_does_not_have(tmp_path: Path, role: str, text: str, known: str) -> None:
    found = refused(written(tmp_path, **{role: text}))
    assert found.startswith(f"prompt template {tmp_path}/lab/{role}.txt asks for {{")
    assert found.endswith(f"; this role has {known}; {DOUBLED}")


DOUBLED = "a brace that is meant literally is doubled, {{ or }}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\\boxed{}", "'{}'"),
        ("\\boxed{42}", "'{42}'"),
        ('Say {"answer": 1}', "'{\"answer\": 1}'"),
        ("{ map}", "'{ map}'"),
        ("{\n}", "'{'"),
        ("a\nb }", "'b }'"),
        ("{{map}", "'{{map}'"),
        ("{map}}", "'{map}}'"),
        ("{map.x}:", "'{map.x}:'"),
        ("{map[0]}", "'{map[0]}'"),
        ("{map!r}", "'{map!r}'"),
        ("{map:>3}", "'{map:>3}'"),
    ],
)
@pytest.mark.parametrize("role", [ASKED, "solve"])
def test_a_brace_that_is_no_words(tmp_path: Path, role: str, text: str, shown: str) -> None:
    # A task's {} was told as "Replacement index 0 out of range", when the policy was loaded; a role's was taken as it is.
    known = "a task has {prompt} and its data, by name" if role == ASKED else "this role has {task}, {sketch}"
    text = text.replace("map", "task") if role == "solve" else text
    shown = shown.replace("map", "task") if role == "solve" else shown
    assert refused(written(tmp_path, **{role: text})) == (
        f"prompt template {tmp_path}/lab/{role}.txt has a brace that is no word's, in {shown}; {known}; {DOUBLED}"
    )


@pytest.mark.parametrize(
    ("role", "text", "lacking"),
    [
        ("answer", "Go.", "{task}"),
        ("answer", "{{task}}", "{task}"),
        ("solve", "By {sketch}.", "{task}"),
        ("solve", "{task}", "{sketch}"),
        ("sketch", "{task}", "{sketches}"),
        ("sketch", "Tried: {sketches}", "{task} or {question}"),
        ("sketch_list", "List methods.", "{task} or {question}"),
        ("turn", "Go on.", "{observation}"),
        ("turn_sketch", "How?", "{observation}"),
        ("path_exploration__solve", "{task}", "{sketch}"),
    ],
)
def test_a_template_without_the_word_that_it_is_for(tmp_path: Path, role: str, text: str, lacking: str) -> None:
    # A run was trained on answers to "Go." without a word.
    file = f"{tmp_path}/lab/{role.replace('__', '.')}.txt"
    assert refused(written(tmp_path, **{role: text})) == (
        f"prompt template {file} does not say {lacking}, so that a policy would never see it; put {lacking} where it belongs,"
        " or remove the file for the built-in text"
    )


@pytest.mark.parametrize("text", ["map {number}:", "map {Map}"])
def test_a_task_template_that_asks_for_what_there_is_not(tmp_path: Path, text: str, tokenizer: Any) -> None:
    own = Speaker(tokenizer, "lab", ASKED, (1,), written(tmp_path, path_exploration=text))
    asks: list[Callable[[], object]] = [lambda: own.answer(TASK), lambda: own.draft(TASK, "prompt", [])]
    for ask in asks:
        with pytest.raises(InputError) as caught:
            ask()
        expected = (
            rf"prompt template {re.escape(str(tmp_path))}/lab/path_exploration\.txt asks for \{{\w+\}}; a task of"
        )
        expected += rf" path_exploration has \{{prompt\}}, \{{map\}}; {re.escape(DOUBLED)}$"
        assert re.fullmatch(expected, str(caught.value))


def test_an_installation_without_its_templates(tmp_path: Path, monkeypatch: Any) -> None:
    written(tmp_path, path_exploration="m")
    monkeypatch.setattr(templates, "FOLDER", tmp_path)
    for read in (lambda: Templates.read("lab", ASKED), lambda: prompts.template("lab", "answer")):
        with pytest.raises(InputError, match=r"no prompt template lab/answer\.txt in .*known roles: answer, next, "):
            read()
    with pytest.raises(InputError, match=r"unknown form of prompts 'lb'; did you mean 'lab'\? known: chat, lab"):
        Templates.read("lb", ASKED)


# --- a copy to be edited --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", prompts.FORMS)
@pytest.mark.parametrize("name", environments.names())
def test_a_copy_says_what_the_built_in_templates_say(tmp_path: Path, form: str, name: str) -> None:
    found = prompts.copy(tmp_path / "a" / "mine", form, name)
    built_in, own = Templates.read(form, name), Templates.read(form, name, str(tmp_path / "a" / "mine"))
    assert own.texts == built_in.texts
    assert sorted(found) == sorted(own.files.values()) == sorted(p for p in tmp_path.rglob("*") if p.is_file())
    for path in found:
        source = built_in.files.get(path.relative_to(tmp_path / "a" / "mine").as_posix())
        assert path.read_bytes() == (source.read_bytes() if source else b"{prompt}\n")


def test_a_copy_overwrites_nothing(tmp_path: Path) -> None:
    prompts.copy(tmp_path, "lab", "countdown")
    (tmp_path / "lab" / "solve.txt").write_text("{task} edited {sketch}")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.txt")}
    with pytest.raises(InputError, match=r"lab/answer\.txt exists already and is not overwritten; choose"):
        prompts.copy(tmp_path, "lab", "sokoban")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.txt")} == before, "and nothing was written"
    prompts.copy(tmp_path, "chat", "sokoban")  # another form lies beside it
    os.symlink(tmp_path / "nowhere", tmp_path / "link")
    for path in (tmp_path / "lab" / "solve.txt", tmp_path / "link"):
        with pytest.raises(InputError, match=r"cannot write .*; choose another folder"):
            prompts.copy(path, "lab", "countdown")


# --- what a run recorded ----------------------------------------------------------------------------------------------------


def test_recorded_texts_are_read_from_no_file(tmp_path: Path, tokenizer: Any) -> None:
    folder = written(tmp_path, solve="{task} by {sketch}", path_exploration="M {map}")
    before = Templates.read("lab", ASKED, folder)
    written(tmp_path, solve="{task} through {sketch}", path_exploration="N {map}")
    found = Templates.recorded(ASKED, dict(before.texts), "prompts.json")
    assert found.texts == before.texts and found.form == "lab" and not found.files
    own = Speaker(tokenizer, "lab", ASKED, (1,), "no folder", found)
    assert said(own, own.guided(TASK, "a")) == "M 3 by a"


def test_a_role_that_a_run_did_not_know_has_the_built_in_text(tokenizer: Any) -> None:
    texts = {name: text for name, text in Templates.read("lab", ASKED).texts.items() if "turn" not in name}
    found = Templates.recorded(ASKED, texts | {"lab/path_exploration.solve.txt": "{task} {sketch}"}, "prompts.json")
    assert found.texts["lab/turn.txt"] == prompts.template("lab", "turn")
    assert found.filled("solve", {"sketch": "a"}, TASK) == "map 3: a", "a role has one text, under whatever name"


def test_mistakes_in_what_was_recorded_name_its_file(tokenizer: Any) -> None:
    texts = dict(Templates.read("lab", ASKED).texts)
    for changed, message in (
        (
            {"lab/solve.txt": "{}"},
            "prompt template lab/solve.txt in x/prompts.json has a brace that is no word's, in '{}'; ",
        ),
        ({"lab/solve.txt": "{x}"}, "prompt template lab/solve.txt in x/prompts.json asks for {x}; "),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            Templates.recorded(ASKED, texts | changed, "x/prompts.json")
    with pytest.raises(InputError, match=r"x/prompts\.json: unknown form of prompts 'lob'; did you mean 'lab'"):
        Templates.recorded(ASKED, {"lob/solve.txt": "{task}"}, "x/prompts.json")
    with pytest.raises(InputError, match="recorded prompts of form 'lab', and its policy is now asked in form 'chat'"):
        Speaker(tokenizer, "chat", ASKED, (1,), "", Templates.recorded(ASKED, texts, "x/prompts.json"))


def test_a_word_that_was_not_asked_for_then_is_not_asked_for_now() -> None:
    # A run goes on as it began, even if its prompt would be refused today.
    texts = {**Templates.read("lab", ASKED).texts, "lab/path_exploration.answer.txt": "Go."}
    assert Templates.recorded(ASKED, texts, "prompts.json").filled("answer", {}, TASK) == "Go."
