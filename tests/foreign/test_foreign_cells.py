"""What cells say, hostile ones included."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sesa_lab.errors import InputError
from sesa_lab.foreign.cells import is_nothing, key_of, messages_in, number_of, numeric, text_of, verdict_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=3),
    max_leaves=8,
)
CALL = {"id": "call_7f", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("as it is\r\n\x00\u202e\ud800", "as it is\r\n\x00\u202e\ud800"),
        (None, ""),
        (math.nan, ""),
        ("", ""),
        (12, "12"),
        (True, "true"),
        (b"\xc3\xa9", "é"),
        ([], ""),
        # TRL, conversational: one message of the assistant.
        ([{"role": "assistant", "content": "yes"}], "yes"),
        # Several turns: the assistant's alone, in order.
        (
            [
                {"role": "assistant", "content": "up"},
                {"role": "user", "content": "a wall"},
                {"role": "assistant", "content": "left"},
            ],
            "up\n\nleft",
        ),
        # No assistant at all: everything there is.
        ([{"role": "user", "content": "a"}, {"content": "b"}], "a\n\nb"),
        # A tool call has no content; its random id is not part of what was said.
        ([{"role": "assistant", "content": None, "tool_calls": [CALL]}], 'add({"a": 1})'),
        # verifiers keeps calls as JSON in strings, and thoughts beside the content.
        (
            [{"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": ['{"name": "add"}']}],
            'hm\n{"name": "add"}',
        ),
        ([{"role": "assistant"}], ""),
        ([{"role": "assistant", "tool_calls": [{"name": "f", "arguments": {"x": 1}}]}], 'f({"x": 1})'),
        ([{"role": "assistant", "tool_calls": [{"function": 3}]}], '{"function": 3}'),
        # Parts: text, and pictures by their type, whatever else they hold.
        (
            [{"role": "assistant", "content": [{"type": "text", "text": "see"}, {"type": "image", "image": "x" * 99}]}],
            "see\n[image]",
        ),
        (
            [{"role": "assistant", "content": [None, "a", 3, {"odd": 1}, {"text": None, "type": "x"}]}],
            'a\n3\n{"odd": 1}\n[x]',
        ),
        ({"role": "assistant", "content": "alone"}, "alone"),
        ({"content": {"text": "part"}}, "part"),
        ({"b": 1, "a": None}, '{"a": null, "b": 1}'),
        (["one", {"content": "two"}, None, 3], "one\n\ntwo\n\n3"),
    ],
)
def test_text_of(cell: Any, text: str) -> None:
    assert text_of(cell) == text


@given(JSON)
@settings(max_examples=40)
def test_any_json_has_a_text_and_a_key(cell: Any) -> None:
    assert isinstance(text_of(cell), str)
    assert (key_of(cell) is None) == is_nothing(cell)
    assert key_of(json.loads(json.dumps(cell))) == key_of(cell)


def test_what_is_nested_thousands_deep_or_has_odd_keys_is_an_object() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    assert key_of(deep) == "[object]"
    assert isinstance(text_of(deep), str)
    assert text_of({1: "a", "b": 2}) == "[object]"


def test_key_of_is_the_same_for_json_csv_and_pandas() -> None:
    assert key_of(3) == key_of(3.0) == key_of("3") == "3"
    assert key_of(0.5) == "0.5" and key_of(True) == "true" and key_of("") == ""
    assert key_of("a\ud800") == "a\\ud800"
    assert key_of(None) is None and key_of(math.nan) is None
    assert key_of(math.inf) == "inf" and key_of(10**40) == "1" + "0" * 40
    assert key_of({"a": 1, "b": [2]}) == key_of({"b": [2], "a": 1}) != key_of({"a": 1, "b": [3]})


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        (True, 1.0), (False, 0.0), (2, 2.0), (-0.5, -0.5), (Decimal("0.25"), 0.25), (" 1e-3 ", 0.001), ("True", 1.0),
        ("FAILED", 0.0), ("", math.nan), ("NaN", math.nan), (None, math.nan), (math.nan, math.nan), ("inf", math.inf),
        (10**400, math.inf), (-(10**400), -math.inf),
    ],
)  # fmt: skip
def test_number_of(cell: Any, number: float) -> None:
    assert number_of(cell, "here") == pytest.approx(number, nan_ok=True)


@pytest.mark.parametrize("cell", ["maybe", [1.0], {"total": 1}, "1 2", b"1"])
def test_what_is_no_number(cell: Any) -> None:
    with pytest.raises(InputError, match=r"here holds .*expected a number, true or false"):
        number_of(cell, "here")


def test_numbers_count_as_right_above_the_threshold_and_truth_values_as_they_say() -> None:
    assert [verdict_of(x, 0.0, "") for x in (-1, 0, 0.1, 1, True, False, "yes", "no")] == [0, 0, 1, 1, 1, 0, 1, 0]
    assert [verdict_of(x, 1.0, "") for x in (1, 1.5, True, "true", "1")] == [0, 1, 1, 1, 0]
    assert math.isnan(verdict_of(None, 0.0, ""))


def test_numeric() -> None:
    assert numeric([None, 1, 0.5, True]) and numeric(["1", ""])
    assert numeric([1, "x"]) is False
    assert numeric([None, math.nan, ""]) is None and numeric([]) is None  # not told: another file may tell


def test_messages_in_a_text() -> None:
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": []}]
    assert messages_in(json.dumps(chat)) == messages_in(f" {json.dumps(chat, indent=1)}\n") == chat
    others = (
        "",
        "a",
        "[]",
        "[1]",
        '[{"role": "user"}]',
        '[{"role": "user", "content": "q"}, 3]',
        '[{"role": ',
        "[{" * 10**5,
    )
    for cell in (*others, str(chat), None, 3, chat, '[{"role": "user", "content": ' + "[" * 10**5):
        assert messages_in(cell) is None
