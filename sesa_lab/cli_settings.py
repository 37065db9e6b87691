"""Settings as options of a command: made from the fields of ``sesa_lab.config``, and read back into one ``Config``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sesa_lab.config import SECTIONS, Config, flat_fields, sections
from sesa_lab.errors import InputError, suggest, writing
from sesa_lab.presets import PRESETS


def add_settings(command: Any, only: tuple[str, ...] | None = None) -> None:
    """One option a setting; ``only`` those named, where given."""
    groups: dict[str, Any] = {}
    for name, (section, field) in flat_fields().items():
        if only is not None and name not in only:
            continue
        group = groups.setdefault(section, command.add_argument_group(section))
        if name == "options":
            add_option(group)
            continue
        if name == "switch":
            group.add_argument(
                "--switch", dest="switch_pairs", action="append", metavar="NAME=VALUE", default=[],
                help=f"{field.metadata['text']}; may be given several times (default: none)",
            )  # fmt: skip
            continue
        kind: Any = {"int": int, "float": float}.get(str(field.type), str)
        default = "none" if field.default == "" else field.default
        text = f"{field.metadata['text']}{allowed(field.metadata)} (default: {default})"
        group.add_argument(
            f"--{name.replace('_', '-')}", dest=name, type=kind, metavar="X" if kind is not str else "NAME",
            default=argparse.SUPPRESS, help=text.replace("%", "%%"),
        )  # fmt: skip


def add_option(group: Any) -> None:
    """``--option NAME=VALUE``, of the environment."""
    group.add_argument(
        "--option", dest="option", action="append", metavar="NAME=VALUE", default=[],
        help="an option of the environment, see `sesa-lab environments`; may be given several times",
    )  # fmt: skip


def options_of(
    pairs: Sequence[str], flag: str = "--option", example: str = "--option n_treasures=10"
) -> dict[str, Any]:
    """NAME=VALUE pairs; a value that is a JSON number or true/false is taken as one, anything else as text."""
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InputError(f"{flag} {pair!r}: expected NAME=VALUE, e.g. {example}")
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = value
        options[name] = parsed if isinstance(parsed, (int, float, bool)) else value
    return options


def switch_of(pairs: Sequence[str]) -> dict[str, Any]:
    """``--switch NAME=VALUE`` pairs, names written as the options are or as in Python."""
    found = options_of(pairs, "--switch", "--switch sampler=sequential")
    return {name.replace("-", "_"): value for name, value in found.items()}


def config_of(chosen: argparse.Namespace, base: dict[str, dict[str, Any]]) -> Config:
    """``base`` with what was chosen in its place; options of the environment are replaced one by one."""
    given = {name: getattr(chosen, name) for name in flat_fields() if hasattr(chosen, name)}
    if chosen.option:
        given["options"] = {**base.get("environment", {}).get("options", {}), **options_of(chosen.option)}
    if getattr(chosen, "switch_pairs", []):
        given["switch"] = switch_of(chosen.switch_pairs)
    for section, values in sections(given).items():
        base.setdefault(section, {}).update(values)
    return Config.build(chosen.preset, **base)


_ASKED = (
    "environment", "options", "policy", "adapter", "prompts", "dtype", "device", "engine", "server_url",
    "adapter_folder", "max_context", "cache_mb", "memory_share", "temperature", "max_tokens", "stop_text",
    "sketch_tokens", "seed",
)  # fmt: skip
"""Settings of a command that asks a policy, and trains nothing."""


def add_asked(command: Any) -> None:
    """The settings of a command that asks a policy; ``asked_of`` reads them."""
    command.add_argument("--preset", choices=sorted(PRESETS), help=argparse.SUPPRESS)
    add_settings(command, _ASKED)


def asked_of(chosen: argparse.Namespace, verb: str) -> Config:
    """The settings by which the policy of ``chosen.run_folder``, or the one that is named, is asked; options win over a run's.

    Args:
        chosen: has ``run_folder``, and the options of ``add_asked``.
        verb: what is done with tasks, for the error.

    Raises:
        InputError: no run there, settings that do not fit, or a split as an option of the environment.
    """
    from sesa_lab import runs

    if "split" in options_of(chosen.option):
        raise InputError(f"--option split=...: which tasks are {verb} is said by --split")
    base: dict[str, Any] = runs.load(chosen.run_folder).config.to_dict() if chosen.run_folder else {}
    if hasattr(chosen, "engine") and base:  # the run's own engine settings are another engine's
        base["engine"] = {}
        base["update"] = {k: v for k, v in base["update"].items() if not k.startswith("mismatch")}
    config = config_of(chosen, base)
    if hasattr(chosen, "temperature"):  # asked for here, it goes before what the run's evaluations had
        config = config.changed(evaluation={"eval_temperature": 0.0})
    return config


def file_of(name: str | None, option: str, suffix: str) -> Path | None:
    """Where a command writes a file; None: nowhere. What cannot be is told before any work.

    Raises:
        InputError: another ending, no such folder, or a folder of that name.
    """
    if name is None:
        return None
    try:
        path = Path(name).expanduser()
        there, taken = path.parent.is_dir(), path.is_dir()
    except (OSError, RuntimeError) as error:  # a name that is too long; a home that nobody has
        raise InputError(f"{option} {name} cannot be written: {error}; choose another file") from error
    if path.suffix != suffix:
        raise InputError(f"{option} {name}: expected a file that ends in {suffix}")
    if not there:
        raise InputError(f"{option} {name} cannot be written: there is no folder {path.parent}")
    if taken:
        raise InputError(f"{option}: cannot write {name}: it is a folder; choose another file")
    return path


def write_file(path: Path, data: bytes) -> None:
    """Write a command's file whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    from sesa_lab.runs.files import write_atomic

    with writing(path, "choose another file"):
        write_atomic(path, lambda file: file.write(data))


def read_config(path: str) -> dict[str, dict[str, Any]]:
    """The sections of a JSON file as a run's config.json.

    Raises:
        InputError: no such file, or one that holds something else.
    """
    try:
        found = {name: dict(values) for name, values in json.loads(Path(path).read_text()).items()}
        dict(found.get("environment", {}).get("options", {}))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"--config {path}: expected a JSON file as a run's config.json ({error})") from error
    unknown = [name for name in found if name not in SECTIONS]
    if unknown:
        raise InputError(f"--config {path}: unknown section {unknown[0]!r}; {suggest(unknown[0], list(SECTIONS))}")
    return found


def allowed(meta: Any) -> str:
    """Choices or range of a setting, in brackets."""
    if meta["choices"]:
        return f" [{' | '.join(meta['choices'])}]"
    bounds = [("> ", meta["above"]), (">= ", meta["low"]), ("<= ", meta["high"])]
    return "".join(f" [{sign}{bound:g}]" for sign, bound in bounds if bound is not None)
