"""The command line: every setting is an option, every mistake is one line and exit code 2."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sesa_lab import api, cli, environments, runs
from sesa_lab.config import Config, PretrainConfig, flat_fields
from sesa_lab.errors import InputError
from sesa_lab.experiments import stages
from sesa_lab.prompts import Templates

COMMANDS = [
    "environments",
    "prompts",
    "pretrain",
    "train",
    "resume",
    "evaluate",
    "fidelity",
    "lab",
    "metrics",
    "collapse",
    "revive",
    "serve",
    "merge",
    "report",
    "reproduce",
    "status",
    "experiment",
    "demo",
    "bench",
]
TINY = ["--option", "n_treasures=5", "--group-size", "3", "--groups", "2", "--steps", "2", "--device", "cpu"]

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch, call: Call) -> Callable[..., Config]:
    """The config that ``train`` would train with."""
    found: list[Config] = []
    monkeypatch.setattr(api, "train_config", lambda config, out: found.append(config))
    monkeypatch.setattr(cli, "_summary", lambda run: None)

    def run(*arguments: object) -> Config:
        code, _, err = call("train", "--out", "unused", *arguments)
        assert (code, err) == (0, "")
        return found.pop()

    return run


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("", "COMMAND"),
        ("trian", "'trian'"),
        ("train", "--out"),
        ("train --out OUT --environment path_explor", "unknown environment 'path_explor'; did you mean"),
        ("train --out OUT --option n_tresures=3", "unknown option 'n_tresures' .*did you mean 'n_treasures'"),
        ("train --out OUT --option n_treasures=many", "n_treasures: expected a whole number, got 'many'"),
        ("train --out OUT --option n_treasures=9999", "n_treasures = 9999 is out of range"),
        ("train --out OUT --option n_treasures", "--option 'n_treasures': expected NAME=VALUE"),
        ("train --out OUT --option =3", "--option '=3': expected NAME=VALUE"),
        ("train --out OUT --grop-size 3", "--grop-size"),
        ("train --out OUT --group-size -3", "group_size = -3 is out of range"),
        ("train --out OUT --group-size many", "--group-size: invalid int value: 'many'"),
        ("train --out OUT --learning-rate nan", "learning_rate: expected a finite number"),
        ("train --out OUT --sampler seqential", "'seqential' is unknown; did you mean 'sequential'"),
        ("train --out OUT --preset papr", "'papr'"),
        ("train --out OUT --policy pth", "no model 'pth'.*did you mean 'path'"),
        ("train --out OUT --policy OUT/weightless", r"weightless: .*safetensors weights missing"),
        ("train --out OUT --adapter OUT/none", "policy.adapter = .*none.*no adapter_config.json"),
        ("train --out OUT --option hierarchy=china", "no lab policy was pre-trained for path_exploration"),
        ("train --out OUT --config OUT/none.json", "--config .*none.json: expected a JSON file"),
        ("train --out OUT --config OUT/list.json", "--config .*list.json: expected a JSON file"),
        ("train --out OUT --config OUT/options.json", "--config .*options.json: expected a JSON file"),
        (
            "train --out OUT --config OUT/preset.json",
            "unknown section 'preset'; .*known: engine, environment, evaluation, policy",
        ),
        ("resume OUT/none", "no run folder at .*none"),
        ("resume OUT/weightless", "weightless is no run folder: it has no environment.json"),
        ("resume OUT/truncated", "truncated/config.json"),
        ("evaluate OUT/none", "no run folder at .*none"),
        ("evaluate OUT/truncated", "truncated/config.json"),
        ("evaluate OUT/begun", "begun has no checkpoint yet"),
        ("evaluate --samples 0", "samples, tasks and k of at least 1, got 0"),
        ("evaluate --k 5-3", "'5-3': expected whole numbers"),
        ("evaluate --k all", "'all': expected whole numbers"),
        ("evaluate --split test", "--split test: environment path_exploration has no splits"),
        ("evaluate --environment sokoban --option split=test", "which tasks are evaluated is said by --split"),
        ("evaluate --split half", "'half'"),
        (
            "train --out OUT --environment sokoban --option split=test",
            "split = 'test': a run is trained on split 'train' alone",
        ),
        (
            "train --out OUT --policy path-peaked",
            "for path_exploration with prior_exponent = 2.0, not 1.0; change these options",
        ),
        (
            "train --out OUT --sampler sesa --sketch-scope turn",
            "sketch_scope = 'turn' makes no sense with environment path_expl",
        ),
        ("environments chess", "unknown environment 'chess'"),
        (
            "train --out OUT/new --prompts OUT/none",
            "policy.prompts = '.*none': no folder there; make one with `sesa-lab prompts",
        ),
        (
            "train --out OUT/new --prompts OUT",
            "policy.prompts = '.*OUT' holds nothing that is used here .*, only no template at all; expected some of lab/next",
        ),
        ("evaluate --samples 2 --prompts OUT/none", "policy.prompts = '.*none': no folder there"),
        ("prompts OUT/new --environment chess", "unknown environment 'chess'; known: countdown"),
        ("prompts OUT/new --form lob", "'lob'"),
        ("prompts OUT/list.json", "cannot write .*list.json.*; choose another folder"),
        ("prompts", "OUT"),
        ("pretrain --out OUT", "OUT exists already"),
        ("pretrain --out OUT/new --hidden 33", "hidden = 33: expected a multiple of 32"),
        ("pretrain --out OUT/new --steps 0", "--steps = 0 is out of range"),
        ("experiment all", "'all'"),
        ("experiment headline --runs OUT --workers 0", "--workers = 0 is out of range"),
        ("experiment calibration --runs OUT --steps 5", "calibration trains nothing and takes one seed: leave --steps"),
        ("experiment calibration --runs OUT --seeds 1-3", "calibration trains nothing and takes one seed"),
        ("experiment headline --runs OUT --seeds 3-1", "'3-1': expected whole numbers"),
        ("experiment headline --runs OUT --seeds 1,1", "none twice"),
        ("report path_exploration --seeds one", "'one': expected whole numbers"),
        (
            "reproduce tour --runs OUT --out OUT --cpus 8",
            "--cpus 8 has no effect with --engine local; add --engine ray",
        ),
        ("reproduce tour --runs OUT --out OUT --gpus 0.5 --dry-run", "--gpus 0.5 has no effect with --engine local"),
        ("reproduce tour --runs OUT --out OUT --retries 0", "--retries 0 has no effect with --engine local"),
        ("reproduce tour --runs OUT --out OUT --address auto", "--address auto has no effect with --engine local"),
        ("reproduce tour --runs OUT --out OUT --storage s3://x", "--storage s3://x has no effect with --engine local"),
        (
            "reproduce tour --runs OUT --out OUT --engine ray --jobs 2",
            "--jobs 2 has no effect with --engine ray; leave it out: as many",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: str, named: str, call: Call, tmp_path: Path) -> None:
    out = tmp_path / "OUT"
    for name in ("weightless", "truncated"):
        (out / name).mkdir(parents=True)
        (out / name / "config.json").write_text("{}" if name == "weightless" else '{"environment": {"na')
    (out / "weightless" / "tokenizer.json").write_text("{}")
    (out / "truncated" / "environment.json").write_text("{}")
    (out / "list.json").write_text("[1]")
    (out / "options.json").write_text('{"environment": {"options": 3}}')
    (out / "preset.json").write_text('{"preset": {}}')
    if "begun" in arguments:
        with runs.RunWriter.create(out / "begun", Config()):
            pass
    before = sorted(out.rglob("*"))
    code, printed, err = call(*re.sub(r"\bOUT\b", str(out), arguments).split())
    assert (code, printed) == (2, "")
    assert len(err.splitlines()) == 1 and err.startswith("sesa-lab"), err
    assert re.search(named, err), err
    assert sorted(out.rglob("*")) == before, "nothing is left behind"


# --- help -------------------------------------------------------------------------------------------------------------


def documented(call: Call, monkeypatch: pytest.MonkeyPatch, *command: str) -> str:
    monkeypatch.setenv("COLUMNS", "100")
    code, out, err = call(*command, "--help")
    assert (code, err) == (0, "")
    return " ".join(out.split())


def test_help_lists_every_command(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    text = documented(call, monkeypatch)
    assert all(f" {command} " in text for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_defaults(command: str, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    text = documented(call, monkeypatch, command)
    options = re.findall(r" (--[a-z-]+) [A-Z,=-]+ ", text.partition("options:")[2])
    for option in set(options) - {"--out", "--option", "--preset", "--config"}:
        after = text.partition("options:")[2].partition(f" {option} ")[2]
        assert "(default: " in re.split(r" --[a-z]", after)[0], f"{command} {option}"


def test_train_documents_every_setting_with_its_default(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    text = documented(call, monkeypatch, "train")
    for name, (_, field) in flat_fields().items():
        if name in ("options", "switch"):
            assert f"--{name.removesuffix('s')} NAME=VALUE" in text
            continue
        option = f"--{name.replace('_', '-')}"
        default = "none" if field.default == "" else field.default
        assert re.search(rf" {option} (X|NAME) .*?\(default: {re.escape(str(default))}\)", text), option


def test_pretrain_documents_every_setting_with_its_default(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    text = documented(call, monkeypatch, "pretrain")
    for field in dataclasses.fields(PretrainConfig):
        default = "none" if field.default == "" else re.escape(str(field.default))
        name = field.name.replace("_", "-")
        assert re.search(rf" --{name} (X|NAME) .*?\(default: {default}\)", text), field.name


def test_experiments_are_those_there_are(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = re.search(r"\{(search,[^}]*)\}", documented(call, monkeypatch, "experiment"))
    assert listed is not None and sorted(listed[1].split(",")) == sorted([*stages.STAGES, "calibration"])


def test_an_experiment_has_seeds_of_its_own_unless_others_are_given(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []
    monkeypatch.setattr(stages, "run", lambda name, folder, seeds, *rest: found.append(seeds))
    assert call("experiment", "agents-sokoban")[0] == call("experiment", "agents-sokoban", "--seeds", "4-6")[0] == 0
    assert found == [None, [4, 5, 6]]


# --- settings ---------------------------------------------------------------------------------------------------------


def another(field: dataclasses.Field[Any]) -> Any:
    """A valid value that is not the default."""
    if field.metadata["choices"]:
        return [choice for choice in field.metadata["choices"] if choice != field.default][-1]
    if field.type == "int":
        return field.default + 1
    if field.type == "float":
        return field.default / 2 or 0.5
    return "another"


SESA = {"sampler": {"name": "sesa"}}
BESIDE: dict[str, dict[str, dict[str, Any]]] = {
    "sampler": {},
    **dict.fromkeys(
        (
            "expansions",
            "drafting",
            "drafting_form",
            "repeated_sketch",
            "sketch_scope",
            "conditioning",
            "train_sketches",
        ),
        SESA,
    ),
    "context_weight": {**SESA, "update": {"conditioning": "task+sketch"}},
    "sketch_weight": {**SESA, "update": {"train_sketches": "best"}},
    "transfer": {
        "sampler": {"name": "sesa", "on_policy_fraction": 0.5},
        "update": {"conditioning": "task+sketch"},
    },
    "truncation": {"sampler": {"name": "sequential"}, "update": {"correction": "asymmetric"}},
    "clip_low": {"update": {"epochs": 2}},
    "clip_high": {"update": {"epochs": 2}},
    "kl_estimator": {"update": {"kl_coef": 0.5}},
    "test_guided": {"evaluation": {"test_tasks": 3}},
    **{
        key: {"engine": {"name": "server"}}
        for key in ("server_url", "adapter_folder", "patience", "connections", "mismatch")
    },
    **{
        key: {"engine": {"name": "vllm"}}
        for key in ("max_context", "cache_mb", "memory_share", "prefix_caching", "tensor_parallel")
    },
    "on_alarm": {},
    **{key: {"watch": {"on_alarm": "report"}} for key in ("alarm_slack", "alarm_patience", "alarm_votes")},
    "mismatch_truncation": {"engine": {"name": "vllm"}, "update": {"mismatch": "truncated_is"}},
}
"""What a setting needs beside it to make sense; others: a sequential sampler."""
VALUES = {"on_alarm": "snapshot"}
"""Of settings whose last choice needs more than one option beside it."""


@pytest.mark.parametrize("name", [name for name in flat_fields() if name not in ("options", "switch")])
def test_every_setting_is_an_option(name: str, captured: Callable[..., Config]) -> None:
    section, field = flat_fields()[name]
    value = VALUES.get(name) or another(field)
    beside = BESIDE.get(name, {"sampler": {"name": "sequential"}})
    needed = [
        part
        for own, values in beside.items()
        for key, chosen in values.items()
        for part in (f"--{(own if key == 'name' else key).replace('_', '-')}", chosen)
    ]
    config = captured(*needed, f"--{name.replace('_', '-')}", value)
    assert getattr(getattr(config, section), field.name) == value
    rest = config.changed(**{section: {field.name: field.default}})
    assert rest == Config.build(None, **beside), "nothing else is changed"


def test_environment_options_are_numbers_truth_values_or_text(captured: Callable[..., Config]) -> None:
    pairs = ["seed=3", "prior_exponent=1.5", "hierarchy=china", "a=true", "b=null", "c=[1]", "branching=2x2", "d=x=y"]
    config = captured(*(part for pair in pairs for part in ("--option", pair)))
    assert config.environment.options == {
        "seed": 3, "prior_exponent": 1.5, "hierarchy": "china", "a": True, "b": "null", "c": "[1]", "branching": "2x2",
        "d": "x=y",
    }  # fmt: skip


def test_a_switch_is_a_handful_of_settings(captured: Callable[..., Config]) -> None:
    pairs = ("sampler=sequential", "repeats=zero", "correction=asymmetric", "learning-rate=0.002")
    config = captured("--on-alarm", "switch", *(part for pair in pairs for part in ("--switch", pair)))
    assert config.watch.switch == {
        "sampler": "sequential", "repeats": "zero", "correction": "asymmetric", "learning_rate": 0.002,
    }  # fmt: skip
    assert config.switched().update.learning_rate == 0.002


def test_a_config_file_is_overridden_setting_by_setting(captured: Callable[..., Config], tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    base = Config.build(
        "lab", environment={"options": {"seed": 4, "n_treasures": 7}}, run={"steps": 9, "groups": 2}
    )  # fmt: skip
    file.write_text(json.dumps(base.to_dict()))
    assert captured("--config", file) == base
    config = captured("--config", file, "--steps", 3, "--option", "seed=5", "--preset", "paper")
    assert config == base.changed(environment={"options": {"seed": 5, "n_treasures": 7}}, run={"steps": 3})


def test_presets_are_weaker_than_options(captured: Callable[..., Config]) -> None:
    config = captured("--preset", "paper", "--repeats", "zero")
    assert config == Config.build("paper", update={"repeats": "zero"})


@pytest.mark.parametrize("environment", ["path_exploration", "sokoban"])
@pytest.mark.parametrize("preset", ["lab", "paper"])
def test_another_sampler_beside_a_preset(preset: str, environment: str, captured: Callable[..., Config]) -> None:
    # It used to be refused because of the preset's own settings of sketches or histories.
    config = captured("--preset", preset, "--environment", environment, "--sampler", "parallel")
    assert config == Config.build(preset, environment={"name": environment}, sampler={"name": "parallel"})
    assert (config.update.conditioning, config.update.correction) == ("task", "none")


def test_environments_shows_options_defaults_and_ranges(call: Call) -> None:
    code, out, err = call("environments")
    assert (code, err) == (0, "")
    for name, about in environments.describe().items():
        assert f"{name}: {about['text']}" in out
        for key, option in about["options"].items():
            assert f"  {key}={option['default']}  {option['text']}" in out
    assert "[synthetic | china | world]" in out and "[>= 1]" in out
    code, one, err = call("environments", "path_exploration")
    assert (code, err) == (0, "")
    assert one in out and "countdown:" not in one


def test_prompts_are_copied_to_be_edited(call: Call, tmp_path: Path) -> None:
    code, out, err = call("prompts", tmp_path / "mine", "--environment", "countdown")
    assert (code, err) == (0, "")
    found = Templates.read("chat", "countdown", str(tmp_path / "mine"))
    assert out.split() == [str(path) for path in found.files.values()] and "mine/chat/countdown.txt" in out
    assert found.texts == Templates.read("chat", "countdown").texts
    code, _, err = call("prompts", tmp_path / "mine", "--environment", "countdown")
    assert code == 2 and "exists already and is not overwritten" in err
    assert call("prompts", tmp_path / "mine", "--form", "lab")[0] == 0


# --- the whole way ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps on the shipped policy, by the command line."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert cli.main(["train", "--out", str(out), "--sampler", "sequential", *TINY]) == 0
    return out


def evaluation(out: str) -> list[list[str]]:
    return [line.split() for line in out.strip().splitlines()]


@pytest.mark.slow
def test_train_then_resume_then_evaluate(trained: Path, call: Call, tmp_path: Path) -> None:
    run = runs.load(trained)
    assert run.finished and len(run.steps) == 2 and len(run.rollouts) == 12
    kept = [path for path in trained.rglob("*") if path.is_file() and path.name not in (".lock", "environment.json")]
    content = {path: path.read_bytes() for path in kept}

    code, out, _ = call("resume", trained)
    assert code == 0 and f"{trained}: coverage is coverage@64" in out
    assert [row[0] for row in evaluation(out)[1:]] == ["step", "0", "2"]
    assert content == {path: path.read_bytes() for path in content}, "a finished run is left alone"

    code, out, _ = call("evaluate", trained, "--samples", 8, "--k", "1,4", "--out", tmp_path / "x.parquet")
    assert code == 0
    header, *rows, last = evaluation(out)
    assert header[:3] == ["k", "tasks", "n"] and [row[:3] for row in rows] == [["1", "1", "8"], ["4", "1", "8"]]
    assert " ".join(last) == f"8 samples in {tmp_path / 'x.parquet'}"
    exact = float(run.evaluations["accuracy"].iloc[-1])
    shown = float(rows[0][header.index("exact_accuracy")])
    assert shown == pytest.approx(exact, abs=1e-4), "the last checkpoint is what is evaluated"


@pytest.mark.slow
def test_evaluate_takes_settings_beside_a_run(trained: Path, call: Call) -> None:
    # They used to be passed over in silence. Near temperature 0 all samples are the same answer.
    code, out, _ = call("evaluate", trained, "--samples", 8, "--k", "1", "--temperature", 0.001)
    header, row = evaluation(out)
    assert code == 0 and float(row[header.index("pass_at_k")]) in (0.0, 1.0)
    code, _, err = call("evaluate", trained, "--samples", 2, "--k", "1", "--out", trained / "none" / "x.parquet")
    assert code == 2 and "--out" in err.splitlines()[-1]


@pytest.mark.slow
def test_evaluate_with_sketches_says_what_pass_at_k_then_is(trained: Path, call: Call) -> None:
    code, out, _ = call("evaluate", trained, "--samples", 8, "--k", "1,4", "--way", "sesa", "--sketch-tokens", 4)
    assert code == 0
    assert out.splitlines()[0] == (
        "drawn with sketches; samples of one sketch are alike, so pass@k is not the unbiased one of i.i.d. samples"
    )
    assert [row[0] for row in evaluation(out.partition("\n")[2])] == ["k", "1", "4"]


@pytest.mark.slow
def test_evaluate_at_the_temperature_that_is_asked_for(
    trained: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's own evaluations may have had another one; an option goes before it."""
    found: list[Config] = []

    def evaluated(config: Config, *_: object) -> Any:
        found.append(config)
        raise InputError("seen")

    monkeypatch.setattr("sesa_lab.training.evaluate.evaluate_samples", evaluated)
    run = runs.load(trained)
    other = dataclasses.replace(run, config=run.config.changed(evaluation={"eval_temperature": 0.5}))
    monkeypatch.setattr(runs, "load", lambda path: other)
    assert [call("evaluate", trained, *more)[0] for more in ((), ("--temperature", 2.0))] == [2, 2]
    assert [c.evaluation.eval_temperature for c in found] == [0.5, 0.0]
    assert [c.sampler.temperature for c in found] == [1.0, 2.0]


def test_the_closing_line_names_the_k_that_coverage_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    # It used to name run.coverage_k, also where coverage is that of evaluation.eval_samples samples.
    columns = {"accuracy": 0.5, "coverage": 2.5, "entropy": 1.0, "valid_mass": 1.0, "tokens_total": 9}
    table = pd.DataFrame([{"step": step, "coverage_k": 8, **columns} for step in (0, 5, 10)])

    class Run:
        path, config, evaluations = "runs/x", Config.build(run={"coverage_k": 64}), table

    cli._summary(Run())
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == "runs/x: coverage is coverage@8, entropy in nats"
    assert [line.split()[0] for line in rest] == ["step", "0", "10"] and rest[1].split()[2] == "2.500"


@pytest.mark.slow
def test_a_damaged_checkpoint_is_one_line(trained: Path, call: Call, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    weights = next(iter(sorted((copy / "checkpoints").iterdir())[-1:])) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    for command in ("resume", "evaluate"):
        code, _, err = call(command, copy)
        last = err.replace("\r", "\n").strip().splitlines()[-1]
        assert code == 2 and last.startswith("sesa-lab: error:") and str(copy) in last and "damaged" in last


@pytest.mark.slow
def test_pretrain_makes_a_policy_that_trains(call: Call, tmp_path: Path) -> None:
    options = ["--option", "branching=2x2", "--option", "n_treasures=2"]
    small = ["--steps", 2, "--batch", 2, "--answers", 2, "--hidden", 32, "--layers", 1]
    code, out, _ = call("pretrain", "--out", tmp_path / "mine", *options, *small)
    assert code == 0 and json.loads(out)["pretrain"]["hidden"] == 32
    arguments = ["--policy", tmp_path / "mine", *options, "--group-size", 2, "--steps", 1, "--device", "cpu"]
    code, _, _ = call("train", "--out", tmp_path / "run", *arguments)
    assert code == 0 and runs.load(tmp_path / "run").finished


@pytest.mark.slow
def test_three_lines_of_python(tmp_path: Path, trained: Path) -> None:
    import sesa_lab

    run = sesa_lab.train(
        "path_exploration", out=tmp_path / "run", sampler="sequential", group_size=3, groups=2, steps=2, device="cpu",
        options={"n_treasures": 5}, progress=False,
    )  # fmt: skip
    same = runs.load(trained)
    assert run.config == same.config
    ours, theirs = (table.drop(columns="seconds_total") for table in (run.evaluations, same.evaluations))
    assert ours.equals(theirs), "the command line and Python give the same run"
    assert sesa_lab.load(tmp_path / "run").finished
