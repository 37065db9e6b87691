"""The tokenizer's own chat template: how a dialogue opens, how it goes on behind an answer, and which tokens end one.

A dialogue only grows at its end. So what a policy said stays as it said it, its thoughts included, although templates of
reasoning models leave those of earlier turns out; and a template's date is always the same day, for a run must be asked the
same thing when it is resumed.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sesa_lab.errors import InputError, first_line

_MARK = "\u2063answer\u2063"  # stands for an answer while a chat template is rendered
_DATE = datetime.date(2024, 7, 26)  # what Llama's templates say where they are given no date
_THOUGHT = "<think>"  # an opening may begin one, or hold an empty one, that earlier turns are shown without


def opening(tokenizer: Any, user: str) -> str:
    """One user turn, and the opening of the answer to it.

    Raises:
        InputError: the template cannot be rendered so.
    """
    return _rendered(tokenizer, [_said("user", user)], True)


def bridge(tokenizer: Any, user: str, stop_ids: Sequence[int]) -> tuple[int, ...]:
    """Token ids of one more user turn and the opening of the answer to it, after the token that ended an answer.

    They are taken from the whole dialogue's: some tokenizers read the beginning of a text in another way than its middle.

    Raises:
        InputError: the template rewrites earlier turns or ends a turn without a stop token, so that a dialogue cannot be
            continued at its end; or it cannot be rendered.
    """
    opened = opening(tokenizer, "task")
    turns = [_said("user", "task"), _said("assistant", _MARK), _said("user", user)]
    before, _, after = _rendered(tokenizer, turns, True).partition(_MARK)
    ids = tokenizer(after, add_special_tokens=False)["input_ids"]
    kept = before.rstrip()  # some set a blank before an answer, which then is the answer's own
    dropped = opened[len(kept) :].strip()
    if (
        not ids
        or ids[0] not in stop_ids
        or not opened.startswith(kept)
        or (dropped and not dropped.startswith(_THOUGHT))
    ):
        ends = " or ".join(repr(tokenizer.decode([i])) for i in stop_ids)
        raise InputError(
            "this tokenizer's chat template cannot be continued turn by turn (it rewrites earlier turns, or does not end"
            f" a turn by a token that ends an answer, {ends}); use sampler 'parallel' or another model"
        )
    return tuple(ids[1:])


def stops(tokenizer: Any, named: Iterable[int] = ()) -> tuple[int, ...]:
    """Ids of all tokens that end an answer: the end of a turn in the template, the tokenizer's eos token, those ``named``.

    Some models end a turn by a token that is not their tokenizer's eos token (Gemma's <end_of_turn>, Phi's <|end|>); without it
    answers would run on. It comes first: where the token limit cut an answer, it closes the turn.

    Raises:
        InputError: the template cannot be rendered.
    """
    turns = [_said("user", "task"), _said("assistant", _MARK)]
    after = _rendered(tokenizer, turns, False).rpartition(_MARK)[2].lstrip()
    ends = tokenizer(after, add_special_tokens=False)["input_ids"][:1]
    ends = [end for end in ends if end in tokenizer.added_tokens_decoder]  # no template ends a turn by an ordinary word
    return tuple(dict.fromkeys([*ends, tokenizer.eos_token_id, *named]))


def without_thinking(template: str) -> str | None:
    """The template with its own switch for thinking off; None: it has none."""
    return "{%- set enable_thinking = false %}" + template if "enable_thinking" in template else None


def _rendered(tokenizer: Any, turns: Sequence[Mapping[str, str]], opened: bool) -> str:
    try:
        text: str = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=opened, date_string=_day("%d %b %Y"), strftime_now=_day
        )
    except Exception as error:  # a template raises what it likes, jinja what it must
        said = " and ".join(turn["role"] for turn in turns)
        raise InputError(
            f"this tokenizer's chat template refuses a dialogue of {said}: {first_line(error)}; use another model, or mend the"
            " template in its folder"
        ) from error
    return text


def _day(pattern: str) -> str:
    return _DATE.strftime(pattern)


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
