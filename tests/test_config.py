"""Every setting is checked where it enters: the message names the field, the value and what is allowed."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sesa_lab.config import SECTIONS, Config, EnvironmentConfig
from sesa_lab.errors import InputError, suggest
from sesa_lab.experiments import agents
from sesa_lab.presets import PRESETS

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


@pytest.mark.parametrize("environment", ["path_exploration", "sokoban", "one's own"])
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_build(preset: str, environment: str) -> None:
    data = Config.build(preset, environment={"name": environment}).to_dict()
    defaults = Config(EnvironmentConfig(environment)).to_dict()
    for section, values in PRESETS[preset].get(environment, PRESETS[preset][""]).items():
        for name, value in values.items():
            assert data[section].pop(name) == value
            defaults[section].pop(name)
    assert data == defaults, "a preset changes only what it names"


def test_a_preset_is_that_of_the_environment() -> None:
    # Whole short answers follow each other; longer ones are drafted first.
    for preset in ("paper", "lab"):
        assert Config.build(preset).sampler.name == "sequential"
        assert Config.build(preset, environment={"name": "countdown"}).sampler.name == "sesa"
    paper = Config.build("paper", environment={"name": "countdown"})
    assert (paper.update.conditioning, paper.update.correction, paper.update.train_sketches) == ("task", "none", "none")
    assert paper.environment.options == {"preset": "paper"}


def test_options_of_the_environment_go_before_the_presets_one_by_one() -> None:
    config = Config.build("paper", environment={"name": "countdown", "options": {"tasks": 9}})
    assert config.environment.options == {"preset": "paper", "tasks": 9}, "still the paper's task"
    config = Config.build("paper", environment={"name": "countdown", "options": {"preset": "lab"}})
    assert config.environment.options == {"preset": "lab"}
    assert PRESETS["paper"][""]["environment"]["options"] == {"preset": "paper"}, "the preset itself is as it was"
    wrong = {"name": "sokoban", "options": 3}
    refused(r"^environment\.options: expected a mapping, got 3$", "paper", environment=wrong)


def test_what_is_asked_for_goes_before_the_preset() -> None:
    config = Config.build("paper", update={"repeats": "zero"})
    assert (config.sampler.name, config.update.repeats, config.update.conditioning) == ("sequential", "zero", "task")


def test_ragens_settings() -> None:
    """RAGEN validates on 256 fixed tasks x 1 rollout at temperature 0.5, every 10 of 200 steps."""
    config = Config.build("paper", environment={"name": "frozen_lake"})
    assert (config.evaluation.eval_tasks, config.evaluation.eval_samples, config.evaluation.eval_temperature) == (
        256,
        1,
        0.5,
    )
    assert (config.run.steps, config.run.evaluate_every, config.update.learning_rate) == (200, 10, 1e-5)
    assert config.run.groups * config.sampler.group_size // config.update.minibatches == 32


def test_preset_lab_is_an_arm_of_the_experiments() -> None:
    config = Config.build("lab", environment={"name": "sokoban"}).to_dict()
    arm = agents.arm("sokoban", "habit", "mixed-unsolved-novelty").changes
    update = {**agents.BASE["update"], **arm["update"]}
    assert config["update"] | update == config["update"]
    assert (
        config["sampler"] | {**arm["sampler"], "sketch_tokens": config["sampler"]["sketch_tokens"]} == config["sampler"]
    )


PLAIN = {"name": "parallel"}


@pytest.mark.parametrize("environment", ["path_exploration", "sokoban"])
@pytest.mark.parametrize("preset", ["lab", "paper"])
def test_with_another_sampler_what_belongs_to_the_presets_is_left_out(preset: str, environment: str) -> None:
    """What remains is plain GRPO with the preset's other settings."""
    of_preset = PRESETS[preset].get(environment, PRESETS[preset][""])
    config = Config.build(preset, environment={"name": environment}, sampler=PLAIN)
    kept = {
        "environment": {"name": environment, **of_preset.get("environment", {})},
        "sampler": PLAIN
        | {k: v for k, v in of_preset["sampler"].items() if k in ("group_size", "max_tokens", "sketch_tokens")},
        "update": {
            k: v
            for k, v in of_preset["update"].items()
            if k not in ("conditioning", "correction", "correction_scope", "transfer")
        },
        **{section: of_preset.get(section, {}) for section in ("run", "evaluation")},
    }
    assert config == Config.build(**kept)
    assert (config.update.correction, config.update.conditioning) == ("none", "task")


def test_between_samplers_with_a_history_what_fits_both_stays() -> None:
    config = Config.build("lab", environment={"name": "countdown"}, sampler=SEQUENTIAL)
    assert (config.sampler.on_policy_fraction, config.update.correction_scope) == (0.75, "off_policy")
    assert config.update.conditioning == "task", "no candidate of a sequence has a sketch"
    assert Config.build("lab", sampler=SESA).update.correction == "asymmetric"


def test_what_is_asked_for_is_never_left_out() -> None:
    sokoban = {"name": "sokoban"}
    refused(
        r"^sampler\.expansions belongs to sampler\.name = 'sesa', not to 'parallel'$",
        "lab", environment=sokoban, sampler=PLAIN | {"expansions": 2},
    )  # fmt: skip
    message = r"^update\.conditioning = 'task\+sketch' makes no sense with sampler\.name = 'parallel'"
    refused(message, "lab", environment=sokoban, sampler=PLAIN, update={"conditioning": "task+sketch"})
    refused(message, **Config.build("lab", environment=sokoban).to_dict() | {"sampler": PLAIN})
    # The scope was the preset's, the correction was not: it acts on all candidates.
    config = Config.build("lab", environment=sokoban, sampler=PLAIN, update={"correction": "positive_only"})
    assert (config.update.correction, config.update.correction_scope) == ("positive_only", "all")


def test_a_preset_gives_way_in_other_settings_too() -> None:
    sokoban = {"name": "sokoban"}
    assert Config.build("paper", environment=sokoban, update={"kl_coef": 0.0}).update.kl_estimator == "k3"
    # Nothing is off-policy: the correction would do nothing, and must not begin to act on all candidates.
    config = Config.build("lab", environment=sokoban, update={"conditioning": "sketch"})
    assert (config.update.correction, config.update.correction_scope) == ("none", "all")
    direct = Config.build("lab", environment=sokoban, sampler={"on_policy_fraction": 1.0})
    assert (direct.sampler.name, direct.update.conditioning, direct.update.correction) == ("sesa", "task", "none")
    # What does not divide is no setting without effect: it is for the user to mend.
    refused(
        r"update\.minibatches = 4 does not divide the 15",
        "paper",
        environment=sokoban,
        run={"groups": 3},
        sampler={"group_size": 5},
    )


def test_unknown_names_get_a_suggestion() -> None:
    refused(r"unknown preset 'papr'; did you mean 'paper'\? known: lab, paper", "papr")
    refused(
        r"unknown config section 'samplr'; did you mean 'sampler'\? known: engine, environment, evaluation, policy",
        samplr={},
    )
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
    message = rf"^{label(case)} = '{re.escape(wrong)}' is unknown; did you mean '[\w+]+'\? known: {re.escape(known)}$"
    refused(message, **{section: {field.name: wrong}})


@pytest.mark.parametrize("value", [1, 1.5, None, True, ["lab"]])
@pytest.mark.parametrize("case", TEXTS, ids=label)
def test_text_is_text(case: tuple, value: object) -> None:
    refused(rf"^{label(case)}: expected text, got {re.escape(repr(value))}$", **{case[0]: {case[1].name: value}})


def test_a_folder_may_come_as_a_path_object() -> None:
    # policy.prompts refused what `out` and prompts.copy take.
    for name in ("model", "adapter", "prompts"):
        assert getattr(Config.build(policy={name: Path("a") / "b"}).policy, name) == "a/b", (
            "kept as text, for config.json"
        )
    refused(r"^policy\.device: expected text, got PosixPath\('cpu'\)$", policy={"device": Path("cpu")})


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
SESA = {"name": "sesa"}


@pytest.mark.parametrize("sampler", [{"on_policy_fraction": 0.5}, {"redraws": 1}])
def test_settings_of_samplers_with_a_history(sampler: dict) -> None:
    message = (
        r"on_policy_fraction and sampler\.redraws belong to sampler\.name = 'sequential' or 'sesa': a parallel group is"
        " on-policy throughout"
    )
    refused(message, sampler=sampler)
    for name in (SEQUENTIAL, SESA):
        Config.build(sampler=name | sampler)


@pytest.mark.parametrize(
    "setting",
    [
        {"expansions": 2}, {"drafting": "iid"}, {"drafting_form": "prompt"}, {"repeated_sketch": "drop"},
        {"sketch_scope": "turn"},
    ],
    ids=lambda setting: next(iter(setting)),
)  # fmt: skip
def test_settings_of_two_stages(setting: dict) -> None:
    (name,) = setting
    for other in ("parallel", "sequential"):
        message = rf"^sampler\.{name} belongs to sampler\.name = 'sesa', not to '{other}'$"
        refused(message, sampler={"name": other} | setting)
    Config.build(sampler=SESA | setting)


def test_sketch_tokens_may_be_set_beside_any_sampler() -> None:
    # A guided test draws sketches whatever the run was trained with.
    for name in ("parallel", "sequential", "sesa"):
        assert Config.build(sampler={"name": name, "sketch_tokens": 5}).sampler.sketch_tokens == 5


def test_expansions_divide_what_is_drawn_with_a_sketch() -> None:
    # 10 candidates, ceil(0.25 x 10) = 3 of them direct: 7 are left, of which 1 and 7 are the only divisors.
    shape = SESA | {"group_size": 10, "on_policy_fraction": 0.25}
    for expansions in (2, 5, 10):
        message = (
            rf"^sampler\.expansions = {expansions} does not divide the 7 candidates of a group that are drawn with a sketch"
            r" \(group_size 10, on_policy_fraction 0\.25\)$"
        )
        refused(message, sampler=shape | {"expansions": expansions})
    for expansions in (1, 7):
        Config.build(sampler=shape | {"expansions": expansions})
    # 0.3 x 10 is 3.0000000000000004 in binary and means 3: again 7.
    Config.build(sampler=shape | {"on_policy_fraction": 0.3, "expansions": 7})


def test_sketches_drawn_iid_have_no_history_to_repeat() -> None:
    sampler = SESA | {"drafting": "iid"}
    message = r"^sampler\.redraws makes no sense with sampler\.drafting = 'iid': sketches have no history$"
    refused(message, sampler=sampler | {"redraws": 1})
    Config.build(sampler=sampler)
    Config.build(sampler=SESA | {"redraws": 1})


def test_a_parallel_group_is_on_policy_throughout() -> None:
    for fraction in (0.0, 1.0):
        Config.build(sampler={"on_policy_fraction": fraction})


@pytest.mark.parametrize(
    ("conditioning", "second", "owner"),
    [
        ("history", "history", "sequential"), ("task+history", "history", "sequential"), ("sketch", "sketch", "sesa"),
        ("task+sketch", "sketch", "sesa"),
    ],
)  # fmt: skip
def test_contexts_that_only_one_sampler_has(conditioning: str, second: str, owner: str) -> None:
    update = {"conditioning": conditioning}
    for other in {"parallel", "sequential", "sesa"} - {owner}:
        message = (
            rf"conditioning = '{re.escape(conditioning)}' makes no sense with sampler\.name = '{other}': its candidates"
            rf" have no {second}; it belongs to '{owner}'$"
        )
        refused(message, sampler={"name": other}, update=update)
    Config.build(sampler={"name": owner}, update=update)


def test_a_second_weight_needs_a_second_likelihood() -> None:
    message = r"^update\.context_weight belongs to update\.conditioning = 'task\+history' or 'task\+sketch'$"
    for sampler, alone, both in ((SEQUENTIAL, "history", "task+history"), (SESA, "sketch", "task+sketch")):
        for conditioning in ("task", alone):
            refused(message, sampler=sampler, update={"conditioning": conditioning, "context_weight": 0.5})
        Config.build(sampler=sampler, update={"conditioning": both, "context_weight": 0.5})


@pytest.mark.parametrize("rule", ["best", "mean", "novelty"])
def test_sketches_are_trained_where_there_are_some(rule: str) -> None:
    for other in ("parallel", "sequential"):
        message = rf"^update\.train_sketches: sampler\.name = '{other}' has no sketches; it belongs to 'sesa'$"
        refused(message, sampler={"name": other}, update={"train_sketches": rule})
    Config.build(sampler=SESA, update={"train_sketches": rule, "sketch_weight": 0.5})
    message = r"^update\.sketch_weight makes no sense with update\.train_sketches = 'none'$"
    refused(message, sampler=SESA, update={"sketch_weight": 0.5})


def test_only_groups_that_are_drawn_off_policy_have_that_scope() -> None:
    update = {"correction": "positive_only", "correction_scope": "off_policy"}
    message = r"correction_scope = 'off_policy' makes no sense with {}: no candidate is drawn off-policy; use 'all'$"
    refused(message.format(r"sampler\.name = 'parallel'"), update=update)
    for sampler, own in ((SEQUENTIAL, "history"), (SESA, "sketch")):
        alone = update | {"conditioning": own}
        refused(message.format(rf"update\.conditioning = '{own}'"), sampler=sampler, update=alone)
        direct = sampler | {"on_policy_fraction": 1.0}
        refused(message.format(r"sampler\.on_policy_fraction = 1"), sampler=direct, update=update)
        Config.build(sampler=sampler, update=update)
        Config.build(sampler=sampler, update=update | {"conditioning": f"task+{own}"})


@pytest.mark.parametrize("correction", ["truncated_is", "asymmetric", "ppo_clip"])
def test_corrections_need_something_to_correct(correction: str) -> None:
    update = {"correction": correction}
    message = rf"correction = '{correction}' makes no sense with {{}}: .* so p/q = 1; use 'none' or 'positive_only'$"
    refused(message.format(r"sampler\.name = 'parallel'"), update=update)
    for sampler, own in ((SEQUENTIAL, "history"), (SESA, "sketch")):
        refused(
            message.format(rf"update\.conditioning = '{own}'"), sampler=sampler, update=update | {"conditioning": own}
        )
        direct = sampler | {"on_policy_fraction": 1.0}
        refused(message.format(r"sampler\.on_policy_fraction = 1"), sampler=direct, update=update)
        assert Config.build(sampler=sampler, update=update).update.correction == correction
        Config.build(sampler=sampler, update=update | {"conditioning": f"task+{own}"})


@pytest.mark.parametrize("correction", ["none", "positive_only"])
def test_corrections_that_always_make_sense(correction: str) -> None:
    Config.build(update={"correction": correction})
    Config.build(sampler=SEQUENTIAL, update={"correction": correction, "conditioning": "history"})
    Config.build(sampler=SESA, update={"correction": correction, "conditioning": "sketch"})


DIRECT = (
    r"makes no sense with sampler\.on_policy_fraction = {}: all candidates of a group are drawn given the task alone$"
)


# 0.9 of 8 candidates is 7.2, rounded up: all of them.
@pytest.mark.parametrize("fraction", [1.0, 0.9])
@pytest.mark.parametrize(
    "setting",
    [
        {"expansions": 2}, {"drafting": "iid"}, {"drafting_form": "prompt"}, {"repeated_sketch": "drop"},
        {"sketch_scope": "turn"}, {"redraws": 1},
    ],
    ids=lambda setting: next(iter(setting)),
)  # fmt: skip
def test_a_group_drawn_directly_has_no_sketches(setting: dict, fraction: float) -> None:
    sampler, (name,) = SESA | {"group_size": 8, "on_policy_fraction": fraction}, setting
    refused(rf"^sampler\.{name} {DIRECT.format(f'{fraction:g}')}", sampler=sampler | setting)
    assert Config.build(sampler=sampler).sampler.on_policy_fraction == fraction, "a way to draw in parallel"
    Config.build(sampler=sampler | setting | {"on_policy_fraction": 0.75})


def test_a_group_drawn_directly_has_no_second_context_and_no_history() -> None:
    all_of_them = {"on_policy_fraction": 1.0}
    for conditioning, sampler in (
        ("sketch", SESA), ("task+sketch", SESA), ("history", SEQUENTIAL), ("task+history", SEQUENTIAL),
    ):  # fmt: skip
        message = rf"^update\.conditioning = '{re.escape(conditioning)}' {DIRECT.format(1)}"
        refused(message, sampler=sampler | all_of_them, update={"conditioning": conditioning})
    refused(
        rf"^update\.train_sketches {DIRECT.format(1)}", sampler=SESA | all_of_them, update={"train_sketches": "best"}
    )
    refused(rf"^sampler\.redraws {DIRECT.format(1)}", sampler=SEQUENTIAL | all_of_them | {"redraws": 2})


@pytest.mark.parametrize("correction", ["truncated_is", "ppo_clip"])
def test_a_scope_belongs_to_dropping_negative_advantages(correction: str) -> None:
    # It used to be accepted and to change nothing: these act on off-policy candidates whatever it says.
    update = {"correction": correction, "correction_scope": "off_policy"}
    message = (
        r"^update\.correction_scope = 'off_policy' belongs to update\.correction = 'positive_only', not to"
        rf" '{correction}'$"
    )
    for sampler in (SEQUENTIAL, SESA):
        refused(message, sampler=sampler, update=update)
    config = Config.build("lab", environment={"name": "sokoban"}, update={"correction": correction})
    assert (config.update.correction, config.update.correction_scope) == (correction, "all"), (
        "the scope was the preset's"
    )


def test_a_scope_that_stored_runs_have_is_still_read() -> None:
    # Mixed arms of Path Exploration carry it under every rule, and the names of their folders hang on it.
    for correction in ("none", "asymmetric", "positive_only"):
        Config.build(sampler=SEQUENTIAL, update={"correction": correction, "correction_scope": "off_policy"})


def test_one_sketch_is_compared_with_none_and_follows_none() -> None:
    # 4 candidates, one sketch: its advantage is 0 whatever it earns, and drafting it "in sequence" is drafting it i.i.d.
    one, two = (SESA | {"group_size": 4, "expansions": e} for e in (4, 2))
    mixed = SESA | {"group_size": 4, "expansions": 2, "on_policy_fraction": 0.5}
    of_one = r"makes no sense with one sketch a group \(sampler\.expansions = all that is drawn with a sketch\)"
    for sampler in (one, mixed):
        for rule in ("best", "mean", "novelty"):
            refused(rf"^update\.train_sketches {of_one}: .*always 0$", sampler=sampler, update={"train_sketches": rule})
        refused(rf"^sampler\.drafting = 'iid' {of_one}$", sampler=sampler | {"drafting": "iid"})
        # A turn's own sketches are trained, and compared with it; an empty one is drawn again, or dropped.
        Config.build(sampler=sampler | {"sketch_scope": "turn"}, update={"train_sketches": "best"})
        Config.build(sampler=sampler | {"redraws": 1, "repeated_sketch": "drop"})
    Config.build(sampler=two | {"drafting": "iid"}, update={"train_sketches": "best"})


def test_the_first_of_a_sequence_follows_nothing() -> None:
    # 7 of 8 candidates are direct, and the eighth, alone in its sequence, is drawn given the task too.
    alone, two = (SEQUENTIAL | {"group_size": 8, "on_policy_fraction": fraction} for fraction in (0.875, 0.75))
    direct = r"makes no sense with sampler\.on_policy_fraction = 0\.875"
    why = "all candidates of a group are drawn given the task alone, as the first of a sequence is$"
    for conditioning in ("history", "task+history"):
        message = rf"^update\.conditioning = '{re.escape(conditioning)}' {direct}: {why}"
        refused(message, sampler=alone, update={"conditioning": conditioning})
        Config.build(sampler=two, update={"conditioning": conditioning})
    for correction in ("truncated_is", "asymmetric", "ppo_clip"):
        refused(
            rf"^update\.correction = '{correction}' {direct}: .*p/q = 1",
            sampler=alone,
            update={"correction": correction},
        )
        Config.build(sampler=two, update={"correction": correction})
    scope = {"correction": "positive_only", "correction_scope": "off_policy"}
    refused(rf"^update\.correction_scope = 'off_policy' {direct}: no candidate", sampler=alone, update=scope)
    refused(rf"^sampler\.redraws {direct}: {why}", sampler=alone | {"redraws": 1})
    Config.build(sampler=two | {"redraws": 1}, update=scope)
    Config.build(sampler=alone, update={"correction": "positive_only"})
    assert Config.build("lab", sampler={"group_size": 8, "on_policy_fraction": 0.875}).update.correction == "none"


def test_a_clip_range_needs_a_second_optimiser_step() -> None:
    # In the first one now = old, and the ratio is 1.
    message = r"^update\.{} makes no sense with update\.epochs = 1 and update\.minibatches = 1: .* no ratio is clipped$"
    for name, value in (("clip_low", 0.1), ("clip_high", 0.28)):
        for correction in ("none", "asymmetric"):
            refused(message.format(name), sampler=SEQUENTIAL, update={name: value, "correction": correction})
        Config.build(sampler=SEQUENTIAL, update={name: value, "correction": "ppo_clip"})  # against q
        Config.build(update={name: value, "epochs": 2})
        Config.build(update={name: value, "minibatches": 2})


def test_a_bound_needs_a_weight_to_bound() -> None:
    for correction in ("none", "positive_only", "ppo_clip"):
        message = rf"^update\.truncation belongs to update\.correction = 'truncated_is' or 'asymmetric', not to '{correction}'$"
        refused(message, sampler=SEQUENTIAL, update={"correction": correction, "truncation": 2.0})
    for correction in ("truncated_is", "asymmetric"):
        Config.build(sampler=SEQUENTIAL, update={"correction": correction, "truncation": 2.0})


@pytest.mark.parametrize("estimator", ["k1", "k2"])
def test_an_estimator_needs_something_to_estimate(estimator: str) -> None:
    refused(
        rf"^update\.kl_estimator = '{estimator}' makes no sense with update\.kl_coef = 0$",
        update={"kl_estimator": estimator},
    )
    Config.build(update={"kl_estimator": estimator, "kl_coef": 0.1})


def test_a_guided_test_needs_tasks() -> None:
    message = (
        r"^evaluation\.test_guided = 'yes' makes no sense with evaluation\.test_tasks = 0: there is no test to draw for"
    )
    refused(message, evaluation={"test_guided": "yes"})
    Config.build(evaluation={"test_guided": "yes", "test_tasks": 1})


@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_transfer_needs_two_likelihoods_and_candidates_without_sketch(fraction: float) -> None:
    update, sampler = {"transfer": "unsolved", "conditioning": "task+sketch"}, SESA | {"on_policy_fraction": fraction}
    if fraction:
        Config.build(sampler=sampler, update=update)
    else:
        refused(
            r"^update\.transfer = 'unsolved' makes no sense with sampler\.on_policy_fraction = 0",
            sampler=sampler,
            update=update,
        )
    for conditioning in ("task", "sketch"):
        message = (
            rf"^update\.transfer = 'unsolved' belongs to update\.conditioning = 'task\+sketch', not to '{conditioning}'"
        )
        refused(message, sampler=sampler, update=update | {"conditioning": conditioning})


def test_solutions_of_dropped_sketches_are_candidates_without_sketch() -> None:
    # It used to be refused, though a group may be solved by them. Of one sketch all solutions are dropped, or none.
    update = {"transfer": "unsolved", "conditioning": "task+sketch"}
    Config.build(sampler=SESA | {"repeated_sketch": "drop"}, update=update)
    message = r"^update\.transfer = 'unsolved' makes no sense with sampler\.on_policy_fraction = 0"
    for sampler in ({"repeated_sketch": "keep"}, {"repeated_sketch": "drop", "expansions": 16}):
        refused(message, sampler=SESA | sampler, update=update)


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
        assert re.search("belongs? to|makes no sense|does not divide", str(error))
        return
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
