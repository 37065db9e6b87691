"""Published models' chat templates: every environment can be asked in every role, turns open and close as the model has it."""

from __future__ import annotations

import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from chat_templates import PUBLISHED, Published, tokenizer

from sesa_lab import environments
from sesa_lab.errors import InputError
from sesa_lab.prompts import Speaker, Templates, chat
from sesa_lab.types import Completion, Task

NAMES = sorted(PUBLISHED)
TASK = Task(3, "Name a colour.", {"map": 3})
QWEN3 = PUBLISHED["qwen3"]


def speaker(published: Published, environment: str = "path_exploration", template: str | None = None) -> Speaker:
    own = tokenizer(published, template)
    return Speaker(own, "chat", environment, chat.stops(own))


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def rendered(own: Any, *texts: str, opened: bool = True) -> str:
    return str(
        own.apply_chat_template(turns(*texts), tokenize=False, add_generation_prompt=opened, date_string="26 Jul 2024")
    )


def ids_of(own: Any, text: str) -> tuple[int, ...]:
    return tuple(own(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("name", [name for name in NAMES if PUBLISHED[name].whole])
def test_the_cut_templates_say_what_the_whole_ones_say(name: str) -> None:
    published = PUBLISHED[name]
    spec = find_spec("trl")
    assert spec is not None and spec.origin is not None
    whole = (Path(spec.origin).parent / "chat_templates" / f"{published.whole}.jinja").read_text()
    cut, full = tokenizer(published), tokenizer(published, whole)
    for texts in (("x",), ("x", "y"), ("x", "y", "z"), ("x", "<think>\nwhy\n</think>\n\ny", "z", "w")):
        for opened in (True, False):
            assert rendered(cut, *texts, opened=opened) == rendered(full, *texts, opened=opened)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("environment", environments.names())
def test_every_environment_is_asked_in_every_role(name: str, environment: str) -> None:
    published = PUBLISHED[name]
    own = speaker(published, environment)
    task = environments.make(environment).task(0)
    templates = Templates.read("chat", environment)
    end, control = own.stop_ids[0], set(ids_of(own.tokenizer, "".join(published.tokens)))
    # The control tokens of one user turn and the opening of an answer, each read as one token.
    frame = [i for i in ids_of(own.tokenizer, published.before + "x" + published.opened) if i in control]
    sketch = Completion((*own.encode("go left"), end), (-1.0,) * 9, "go left", "stop")
    asked = templates.task(task)
    openings = {
        "answer": (own.answer(task), asked),
        "solve": (own.guided(task, "go left"), f"{asked}\n\nFollow this method: go left"),
        "sketch": (own.draft(task, "prompt", [sketch]), templates.question(task)),
    }
    for role, (ids, words) in openings.items():
        text = own.tokenizer.decode(ids)
        assert [i for i in ids if i in control] == frame, role
        assert ids == ids_of(own.tokenizer, f"{published.before}{_words(own, task, role, sketch)}{published.opened}"), (
            role
        )
        assert words in text, role
    listed = own.draft(task, "list", [sketch, sketch])
    assert [i for i in listed if i in control] == frame, "an item's stop token is taken back"
    start = own.draft(task, "list", [])
    assert own.tokenizer.decode(start).endswith("1.")
    item = "1. go left" if published.pieces != "bytes" else "1.go left"
    assert own.tokenizer.decode(listed).endswith(f"{item}\n2.{item[2:]}\n3.")


def _words(own: Speaker, task: Task, role: str, sketch: Completion) -> str:
    values = {"sketch": sketch.text, "sketches": f"1. {sketch.text}"}
    return own.templates.filled(role, values, task).strip()


@pytest.mark.parametrize("name", NAMES)
def test_the_end_of_a_turn_ends_an_answer_and_closes_a_cut_one(name: str) -> None:
    published = PUBLISHED[name]
    own = tokenizer(published)
    found = chat.stops(own, [7])
    assert own.convert_ids_to_tokens(found[0]) == published.end
    assert set(found) == {*own.convert_tokens_to_ids([published.end, published.eos]), 7}
    asked = speaker(published)
    assert asked.between("length") == (found[0], *asked.between("stop"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("role", ["next", "turn", "turn_sketch", "turn_solve"])
def test_a_dialogue_goes_on_as_the_model_has_it(name: str, role: str) -> None:
    # Gemma, Phi (no turn ends by their eos token) and Mistral (a blank before answers) were refused; Phi's line breaks came twice.
    published = PUBLISHED[name]
    own = speaker(published)
    said = own.templates.filled(role, {"observation": "P at 3\n_ _ O"}).strip()
    blank = " " if name == "mistral-v0.3" else ""  # the model's own
    ids, texts = own.answer(TASK), [TASK.prompt]
    for answer in ("red", "deep blue"):
        answered = ids_of(own.tokenizer, rendered(own.tokenizer, *texts) + blank + answer)
        assert answered[: len(ids)] == ids
        further = own.between("stop") if role == "next" else own.observed("stop", "P at 3\n_ _ O", role)
        ids = (*answered, own.stop_ids[0], *further)
        texts += [answer, said]
        assert ids == ids_of(own.tokenizer, rendered(own.tokenizer, *texts))


@pytest.mark.parametrize("name", ["mistral-v0.3", "phi3.5"])
def test_a_list_has_no_blanks_that_no_one_wrote(name: str) -> None:
    # SentencePiece tokenizers put a blank before whatever text begins: a line of the list would end, and the next begin, by it.
    own = speaker(PUBLISHED[name])
    cut = Completion(ids_of(own.tokenizer, "x"), (-1.0,) * 2, "x", "length")
    start, further = own.draft(TASK, "list", []), own.draft(TASK, "list", [cut])
    assert further[: len(start)] == start
    assert own.tokenizer.convert_ids_to_tokens(further[len(start) + len(cut.ids) :]) == ["<0x0A>", "2", "."]
    assert set(own.draft_stops("list")) >= {own.tokenizer.convert_tokens_to_ids("<0x0A>"), *own.stop_ids}


def test_a_resumed_run_is_asked_the_same_on_another_day() -> None:
    # Llama's template says the day's date: prompts, and with them a run resumed on another day, were others.
    own = speaker(PUBLISHED["llama3.2"])
    other = speaker(PUBLISHED["qwen2.5"], template="{{ strftime_now('%Y-%m-%d') }} " + PUBLISHED["qwen2.5"].template)
    assert "Today Date: 26 Jul 2024\n" in own.tokenizer.decode(own.answer(TASK))
    assert other.tokenizer.decode(other.answer(TASK)).startswith("2024-07-26")
    assert datetime.date.today() > datetime.date(2024, 7, 26)


# --- thoughts -----------------------------------------------------------------------------------------------------------


def test_a_thinking_model_opens_its_thought_itself() -> None:
    own = speaker(QWEN3)
    assert own.tokenizer.decode(own.answer(TASK)).endswith("<|im_start|>assistant\n")
    # What it thinks stays in the dialogue, which only grows; the template would leave it out of earlier turns.
    answer = own.encode("<think>\nwhy\n</think>\n\nred")
    ids = (*own.answer(TASK), *answer, own.stop_ids[0], *own.between("stop"))
    assert own.tokenizer.decode(ids).count("why") == 1


def test_without_thinking_every_answer_opens_behind_an_empty_thought() -> None:
    template = chat.without_thinking(QWEN3.template)
    own = speaker(QWEN3, template=template)
    empty = "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    ids = (*own.answer(TASK), *own.encode("red"), own.stop_ids[0], *own.between("stop"))
    text = own.tokenizer.decode(ids)
    assert text.endswith(empty) and text.count(empty) == 2, "what opened an answer stays before it"
    assert own.stop_ids == speaker(QWEN3).stop_ids
    assert chat.without_thinking(PUBLISHED["qwen2.5"].template) is None


def test_an_opening_that_begins_a_thought_can_be_continued() -> None:
    # As DeepSeek-R1's distilled models have it: earlier turns are shown without.
    own = speaker(
        PUBLISHED["qwen2.5"], template=PUBLISHED["qwen2.5"].template.replace("assistant\\n'", "assistant\\n<think>\\n'")
    )
    assert own.tokenizer.decode(own.answer(TASK)).endswith("assistant\n<think>\n")
    assert own.tokenizer.decode(own.between("stop")).endswith("assistant\n<think>\n")


# --- refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("assistant\\n' }}", "assistant\\nAnswer: ' }}"),  # words before an answer that later turns would lack
        ("+ message.content +", "+ ('' if message.role == 'assistant' else message.content) +"),
        ("message.content + '<|im_end|>'", "message.content"),
    ],
    ids=["an opening of its own", "answers left out", "no end"],
)
def test_what_cannot_be_continued_is_refused(old: str, new: str) -> None:
    template = PUBLISHED["qwen2.5"].template
    assert old in template
    own = speaker(PUBLISHED["qwen2.5"], template=template.replace(old, new))
    assert own.answer(TASK), "one user turn is possible all the same"
    with pytest.raises(InputError, match=r"cannot be continued turn by turn .*'<\|im_end\|>'.*use sampler 'parallel'"):
        own.between("stop")


@pytest.mark.parametrize(
    "template",
    [
        "{% if messages[0].role != 'system' %}{{ raise_exception('a system turn is needed') }}{% endif %}",
        "{% if messages | length > 1 %}{{ raise_exception('a system turn is needed') }}{% endif %}x",
        "{{ nothing.at.all }} a system turn is needed",
    ],
)
def test_a_template_that_fails_is_refused_with_its_words(template: str) -> None:
    own = tokenizer(PUBLISHED["qwen2.5"], template)
    with pytest.raises(
        InputError, match=r"chat template refuses a dialogue of user and assistant: .*; use another model"
    ) as caught:
        chat.stops(own)
    assert len(str(caught.value).splitlines()) == 1
