"""Every setting is checked where it enters: the message names the field, the value and what is allowed."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesa_lab.config import PRESETS, SECTIONS, Config
from sesa_lab.errors import InputError, suggest

FIELDS = [(section, field) for section, kind in SECTIONS.items() for field in dataclasses.fields(kind)]
NUMBERS = [(section, field) for section, field in FIELDS if field.type in ("int", "float")]
TEXTS = [(section, field) for section, field in FIELDS if field.type == "str"]
CHOICES = [(section, field) for section, field in TEXTS if field.metadata["choices"]]


def label(case: tuple) -> str:
    return f"{case[0]}.{case[1].name}"


def refused(message: str, preset: str | None = None, /, **sections: dict) -> None:
    with pytest.raises(InputError) as caught:
        Config.build(preset, **sections)
    assert re.search(message, str(caught.value)), f"{message!r} not in {str(caught.value)!r}"
    assert "\n" not in str(caught.value), "the command line prints one line"


def test_defaults_build_and_are_what_they_say() -> None:
    config = Config.build()
    assert config == Config()
    assert (config.sampler.name, config.sampler.group_size, config.update.loss) == ("parallel", 16, "dapo")


def test_the_config_itself_has_a_field_for_each_section() -> None:
    assert [field.name for field in dataclasses.fields(Config)] == list(SECTIONS)


@pytest.mark.parametrize("case", FIELDS, ids=label)
def test_every_field_is_documented_typed_and_allows_its_own_default(case: tuple) -> None:
    section, field = case
    assert len(field.metadata["text"].split()) >= 2
    assert field.type in ("int", "float", "str", "dict[str, Any]")
    default = getattr(getattr(Config(), section), field.name)
    assert getattr(getattr(Config.build(**{section: {field.name: default}}), section), field.name) == default


def test_configs_cannot_be_changed_by_accident() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config.build().run.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_build(preset: str) -> None:
    data = Config.build(preset).to_dict()
    defaults = Config().to_dict()
    for section, values in PRESETS[preset].items():
        for name, value in values.items():
            assert data[section].pop(name) == value
            defaults[section].pop(name)
    assert data == defaults, "a preset changes only what it names"


def test_what_is_asked_for_goes_before_the_preset() -> None:
    config = Config.build("paper", update={"repeats": "zero"})
    assert (config.sampler.name, config.update.repeats, config.update.conditioning) == ("sequential", "zero", "task")


def test_unknown_names_get_a_suggestion() -> None:
    refused(r"unknown preset 'papr'; did you mean 'paper'\? known: lab, paper", "papr")
    refused(r"unknown config section 'samplr'; did you mean 'sampler'\? known: environment, policy", samplr={})
    refused(
        r"unknown option sampler\.group_sise; did you mean 'group_size'\? known: .*temperature",
        sampler={"group_sise": 4},
    )
    refused(r"unknown option run\.qqq; known: checkpoint_every", run={"qqq": 4})


def test_suggest_without_a_close_name_lists_the_known_ones() -> None:
    assert suggest("zzz", ["b", "a"]) == "known: a, b"
    assert suggest("bat", ("bar", "qqq")) == "did you mean 'bar'? known: bar, qqq"


@pytest.mark.parametrize("case", CHOICES, ids=label)
def test_choices(case: tuple) -> None:
    section, field = case
    wrong = field.metadata["choices"][-1] + "x"
    known = ", ".join(sorted(field.metadata["choices"]))
    message = rf"^{label(case)} = '{wrong}' is unknown; did you mean '\w+'\? known: {known}$"
    refused(message, **{section: {field.name: wrong}})


@pytest.mark.parametrize("value", [1, 1.5, None, True, ["lab"]])
@pytest.mark.parametrize("case", TEXTS, ids=label)
def test_text_is_text(case: tuple, value: object) -> None:
    refused(rf"^{label(case)}: expected text, got {re.escape(repr(value))}$", **{case[0]: {case[1].name: value}})


@pytest.mark.parametrize("value", ["3", None, True, False, [1], math.nan, math.inf, -math.inf, 1j])
@pytest.mark.parametrize("case", NUMBERS, ids=label)
def test_numbers_are_finite_numbers(case: tuple, value: object) -> None:
    section, field = case
    expected = "a whole number" if field.type == "int" else "a finite number"
    refused(rf"^{label(case)}: expected {expected}, got {re.escape(repr(value))}$", **{section: {field.name: value}})


@pytest.mark.parametrize("case", [case for case in NUMBERS if case[1].type == "int"], ids=label)
def test_whole_numbers_are_never_rounded(case: tuple) -> None:
    section, field = case
    refused(rf"^{label(case)}: expected a whole number, got 2\.5$", **{section: {field.name: 2.5}})


def test_a_whole_number_may_come_as_a_float_and_a_float_as_a_whole_number() -> None:
    # YAML and JSON write 1e3 and 8.0 for what is a whole number
    config = Config.build(run={"steps": 1e3}, sampler={"temperature": 1})
    assert (config.run.steps, type(config.run.steps)) == (1000, int)
    assert (config.sampler.temperature, type(config.sampler.temperature)) == (1.0, float)


def bounds() -> list[tuple]:
    """(section, field, value just outside, what the message says)"""
    cases = []
    for section, field in NUMBERS:
        whole = field.type == "int"
        for key, sign, text in (("low", ">=", "-1"), ("high", "<=", "+1"), ("above", ">", "0")):
            limit = field.metadata[key]
            if limit is None:
                continue
            step = {"-1": -1, "+1": 1, "0": 0}[text]
            outside = limit + step if whole or step == 0 else math.nextafter(limit, step * math.inf)
            cases.append(
                pytest.param(section, field, outside, f"{sign} {limit}", id=f"{section}.{field.name}{sign}{limit}")
            )
    return cases


@pytest.mark.parametrize(("section", "field", "outside", "allowed"), bounds())
def test_ranges_end_where_they_say(section: str, field: dataclasses.Field, outside: float, allowed: str) -> None:
    value = outside if field.type == "int" else float(outside)
    message = rf"^{section}\.{field.name} = {re.escape(str(value))} is out of range: expected .*{re.escape(allowed)}"
    refused(message, **{section: {field.name: outside}})


def test_every_number_has_a_bound_below() -> None:
    assert not [label((s, f)) for s, f in NUMBERS if f.metadata["low"] is None and f.metadata["above"] is None]


def test_options_of_the_environment_are_a_mapping() -> None:
    refused(r"^environment\.options: expected a mapping, got \['a=1'\]$", environment={"options": ["a=1"]})
    given_options = {"depth": 3}
    config = Config.build(environment={"options": given_options})
    given_options["depth"] = 4
    assert config.environment.options == {"depth": 3}, "a copy: later changes outside do not reach in"
    assert Config().environment.options is not Config.build().environment.options or Config().environment.options == {}


def test_from_dict_wants_a_mapping() -> None:
    with pytest.raises(InputError, match=r"config: expected a mapping of sections, got list"):
        Config.from_dict([])  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"unknown config section 'seed'"):
        Config.from_dict({"seed": 3})


# every combination that makes no sense, and its nearest neighbour that does
SEQUENTIAL = {"name": "sequential"}


@pytest.mark.parametrize("sampler", [{"on_policy_fraction": 0.5}, {"redraws": 1}])
def test_sequential_only_settings_of_the_sampler(sampler: dict) -> None:
    refused(r"on_policy_fraction and sampler\.redraws belong to sampler\.name = 'sequential'", sampler=sampler)
    Config.build(sampler=SEQUENTIAL | sampler)


def test_a_parallel_group_is_on_policy_throughout() -> None:
    for fraction in (0.0, 1.0):
        Config.build(sampler={"on_policy_fraction": fraction})


def test_history_needs_a_history() -> None:
    refused(
        r"conditioning = 'history' makes no sense with sampler\.name = 'parallel'", update={"conditioning": "history"}
    )
    Config.build(sampler=SEQUENTIAL, update={"conditioning": "history"})


@pytest.mark.parametrize("correction", ["truncated_is", "asymmetric", "ppo_clip"])
def test_corrections_need_something_to_correct(correction: str) -> None:
    update = {"correction": correction}
    refused(rf"correction = '{correction}' makes no sense with sampler\.name = 'parallel'", update=update)
    history = update | {"conditioning": "history"}
    refused(
        rf"correction = '{correction}' makes no sense with update\.conditioning", sampler=SEQUENTIAL, update=history
    )
    assert Config.build(sampler=SEQUENTIAL, update=update).update.correction == correction


@pytest.mark.parametrize("correction", ["none", "positive_only"])
def test_corrections_that_always_make_sense(correction: str) -> None:
    Config.build(update={"correction": correction})
    Config.build(sampler=SEQUENTIAL, update={"correction": correction, "conditioning": "history"})


def test_minibatches_divide_and_are_never_floored() -> None:
    shape = {"run": {"groups": 3}, "sampler": {"group_size": 4}}
    message = r"update\.minibatches = 5 does not divide the 12 candidates of a step \(run\.groups 3 x .*group_size 4\)"
    refused(message, **shape, update={"minibatches": 5})
    for minibatches in (1, 2, 3, 4, 6, 12):
        assert Config.build(**shape, update={"minibatches": minibatches}).update.minibatches == minibatches
    refused(r"update\.minibatches = 24 does not divide", **shape, update={"minibatches": 24})


def test_changed_is_validated_and_leaves_the_rest() -> None:
    config = Config.build("paper", run={"seed": 7})
    other = config.changed(run={"steps": 3})
    assert (other.run.steps, other.run.seed, other.sampler.name) == (3, 7, "sequential")
    assert config.run.steps == 200, "the first is as it was"
    with pytest.raises(InputError, match=r"sampler\.group_size = 1 is out of range: expected >= 2 and <= 4096"):
        config.changed(sampler={"group_size": 1})
    with pytest.raises(InputError, match="unknown config section 'smapler'"):
        config.changed(smapler={"group_size": 4})
    with pytest.raises(InputError, match="correction"):
        Config.build("lab").changed(sampler={"name": "parallel"})


def field_values(field: dataclasses.Field) -> st.SearchStrategy:
    meta = field.metadata
    if field.type.startswith("dict"):
        return st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.booleans(), max_size=3)
    if field.type == "str":
        return st.sampled_from(meta["choices"]) if meta["choices"] else st.text(max_size=8)
    if field.type == "int":
        return st.integers(int(meta["low"]), int(meta["high"] or 10**6))
    low = meta["low"] if meta["low"] is not None else meta["above"]
    high = meta["high"] or 1e6
    return st.floats(low, high, exclude_min=meta["above"] is not None)


@given(data=st.data(), preset=st.sampled_from([None, *PRESETS]))
def test_round_trip_through_json(data: st.DataObject, preset: str | None) -> None:
    chosen = data.draw(st.lists(st.sampled_from(FIELDS), max_size=4, unique_by=label))
    sections: dict[str, dict] = {}
    for section, field in chosen:
        sections.setdefault(section, {})[field.name] = data.draw(field_values(field), label=label((section, field)))
    try:
        config = Config.build(preset, **sections)
    except InputError as error:  # in range each, refused together: the only reason left
        assert re.search("belong to|makes no sense|does not divide", str(error))
        return
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
