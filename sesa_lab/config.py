"""All settings of a run together: built from a preset and changes, checked, written and read.

What there is to set, with units and ranges, stands in ``settings``; its names are importable from here too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sesa_lab.compatible import check_together, check_watch, idle
from sesa_lab.errors import InputError, suggest
from sesa_lab.presets import PRESETS
from sesa_lab.settings import (
    EngineConfig,
    EnvironmentConfig,
    EvaluationConfig,
    PolicyConfig,
    PretrainConfig,
    RunConfig,
    SamplerConfig,
    UpdateConfig,
    WatchConfig,
    check_value,
    option,
)

__all__ = [
    "SECTIONS", "Config", "EngineConfig", "EnvironmentConfig", "EvaluationConfig", "PolicyConfig", "PretrainConfig", "RunConfig",
    "SamplerConfig", "UpdateConfig", "WatchConfig", "check_value", "flat_fields", "option", "sections",
]  # fmt: skip

SECTIONS: dict[str, type] = {
    "environment": EnvironmentConfig,
    "policy": PolicyConfig,
    "engine": EngineConfig,
    "sampler": SamplerConfig,
    "update": UpdateConfig,
    "run": RunConfig,
    "evaluation": EvaluationConfig,
    "watch": WatchConfig,
}

# A section's main field goes by the section's own name wherever settings are given flat.
_SPOKEN = {
    ("environment", "name"): "environment",
    ("sampler", "name"): "sampler",
    ("policy", "model"): "policy",
    ("engine", "name"): "engine",
}


def flat_fields() -> dict[str, tuple[str, dataclasses.Field[Any]]]:
    """Flat name (of a command-line option or keyword) -> its section and field; names are unique over all sections."""
    return {
        _SPOKEN.get((section, field.name), field.name): (section, field)
        for section, kind in SECTIONS.items()
        for field in dataclasses.fields(kind)
    }


def sections(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Flat settings, e.g. ``{"sampler": "sequential", "steps": 200}``, sorted into their sections.

    Raises:
        InputError: an unknown name.
    """
    fields = flat_fields()
    sorted_in: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        if name not in fields:
            raise InputError(f"unknown setting {name!r}; {suggest(name, list(fields))}")
        section, field = fields[name]
        sorted_in.setdefault(section, {})[field.name] = value
    return sorted_in


@dataclass(frozen=True)
class Config:
    """All settings of one run."""

    environment: EnvironmentConfig = EnvironmentConfig()
    policy: PolicyConfig = PolicyConfig()
    engine: EngineConfig = EngineConfig()
    sampler: SamplerConfig = SamplerConfig()
    update: UpdateConfig = UpdateConfig()
    run: RunConfig = RunConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    watch: WatchConfig = WatchConfig()

    @staticmethod
    def build(preset: str | None = None, /, **sections: Mapping[str, Any]) -> Config:
        """A validated config: defaults, then the preset, then ``sections``, e.g. ``sampler={"name": "sequential"}``.

        Where ``sections`` take the effect from something that the preset says (of sketches, with another sampler), that is
        left out, as if the preset did not say it; what ``sections`` say themselves is refused in that case.

        Raises:
            InputError: unknown preset, section or field; a value of the wrong type or out of range; fields that do not
                make sense together.
        """
        if preset is not None and preset not in PRESETS:
            raise InputError(f"unknown preset {preset!r}; {suggest(preset, list(PRESETS))}")
        unknown = [name for name in sections if name not in SECTIONS]
        if unknown:
            raise InputError(f"unknown config section {unknown[0]!r}; {suggest(unknown[0], list(SECTIONS))}")
        of_preset: dict[str, dict[str, Any]] = {}
        if preset is not None:
            asked = str(dict(sections.get("environment", {})).get("name", EnvironmentConfig.name))
            chosen = PRESETS[preset].get(asked, PRESETS[preset][""])
            of_preset = {name: dict(values) for name, values in chosen.items()}
        config = _together(of_preset, sections)
        while idle_here := _idle_of_preset(config, of_preset, sections):
            for section, name in idle_here:
                del of_preset[section][name]
            config = _together(of_preset, sections)
        check_together(config.sampler, config.update, config.run, config.evaluation, config.engine)
        check_watch(config.watch)
        if config.watch.switch:
            config.switched()
        return config

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Config:
        """The inverse of ``to_dict``; unknown keys raise ``InputError``."""
        if not isinstance(data, Mapping):
            raise InputError(f"config: expected a mapping of sections, got {type(data).__name__}")
        return Config.build(**data)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """JSON-able."""
        return dataclasses.asdict(self)

    @property
    def phases(self) -> tuple[Config, ...]:
        """These settings, and where ``watch.switch`` names others, those that they may be switched to."""
        return (self, self.switched()) if self.watch.switch else (self,)

    def switched(self) -> Config:
        """These settings as they are after the alarm: those of ``watch.switch`` in their place, and no further switch.

        Raises:
            InputError: ``watch.switch`` names what is no setting of sampler or update, or does not fit the others.
        """
        try:
            changes = sections(self.watch.switch)
            for section, values in changes.items():
                if section not in ("sampler", "update"):
                    raise InputError(
                        f"{section}.{next(iter(values))} cannot change on the way; expected settings of sampler and update"
                    )
            return self.changed(**changes, watch={"on_alarm": "snapshot", "switch": {}})
        except InputError as error:
            raise InputError(f"watch.switch = {self.watch.switch}: {error}") from error

    def changed(self, **sections: Mapping[str, Any]) -> Config:
        """This config with some fields replaced, validated again."""
        merged = self.to_dict()
        for name, values in sections.items():
            merged.setdefault(name, {}).update(values)
        return Config.from_dict(merged)


def numbers(text: str) -> list[int]:
    """'0-4', '0,1,2' or '7' -> numbers."""
    found: list[int] = []
    try:
        for part in text.split(","):
            low, dash, high = part.partition("-")
            found += list(range(int(low), int(high) + 1)) if dash else [int(low)]
    except ValueError:
        found = []
    if not found:
        raise InputError(f"{text!r}: expected whole numbers such as 0-4 or 1,8,64")
    return found


def _together(of_preset: Mapping[str, Mapping[str, Any]], given: Mapping[str, Mapping[str, Any]]) -> Config:
    """Defaults, then the preset, then what was given; not yet checked for what makes sense together."""
    parts = {}
    for name, kind in SECTIONS.items():
        values = {**of_preset.get(name, {}), **dict(given.get(name, {}))}
        if name == "environment" and isinstance(values.get("options"), Mapping):  # one by one, not all or nothing
            values["options"] = {**of_preset.get(name, {}).get("options", {}), **values["options"]}
        parts[name] = _section(name, kind, values)
    return Config(**parts)


def _idle_of_preset(
    config: Config, of_preset: Mapping[str, Mapping[str, Any]], given: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, str]]:
    """The first settings without effect that only the preset asks for; one by one, since leaving some out may mend others."""
    for found in idle(config.sampler, config.update, config.evaluation, config.engine):
        weak = [(s, n) for s, n in found.settings if n in of_preset.get(s, {}) and n not in given.get(s, {})]
        if weak:
            return weak
    return []


def _section(section: str, kind: type, values: Mapping[str, Any]) -> Any:
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for name in values:
        if name not in fields:
            raise InputError(f"unknown option {section}.{name}; {suggest(name, list(fields))}")
    return kind(**{name: check_value(f"{section}.{name}", fields[name], value) for name, value in values.items()})
