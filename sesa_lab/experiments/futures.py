"""Two futures of one checkpoint: its run going on as before, and with other settings; what the change did."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sesa_lab import runs, statistics
from sesa_lab.config import Config
from sesa_lab.errors import InputError
from sesa_lab.experiments.jobs import Job
from sesa_lab.experiments.matrix import digest
from sesa_lab.presets import PRESETS
from sesa_lab.runs import lineage

AS_BEFORE, REVIVED = "as-before", "revived"
"""Names of the two, and what their folders begin with."""

MEASURES = ("accuracy", "coverage", "entropy", "pass_at_8", "pass_at_64")
"""Of evaluations; those that a run has are compared."""


KEPT = {
    "sampler": ("group_size", "max_tokens", "temperature", "stop_text", "sketch_tokens"),
    "update": ("learning_rate", "loss", "advantage", "micro_batch", "max_grad_norm"),
}
"""Settings that a preset's future takes from the run where the preset does not name them: sizes, and how far a step goes."""


def futures(
    run: Path | str,
    out: Path | str,
    changes: Mapping[str, Mapping[str, Any]],
    at: int | None = None,
    more: int | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Job]:
    """The jobs of both futures, one pair a seed; ``execute`` makes them.

    Both begin with adapter, optimiser and counters of the very checkpoint; steps count on. A pair shares its seed and so its tasks.
    As before means: with the settings that the run had at the checkpoint, a switch that had happened by then included, and watched
    on where it was. With the run's own seed that future is the run's own, bit for bit, as far as that has come.

    Args:
        run: the run folder.
        out: folder of the futures' run folders.
        changes: section -> setting -> value, what the revived future has otherwise, at least one of them; those of section ``run``
            both futures have.
        at: step of the checkpoint; None: the last.
        more: steps to take from there; None: as many as the run was to take in all.
        seeds: of the sampling from there on; None: the run's own. The environment and its tasks stay.

    Raises:
        InputError: no run folder, no or a damaged checkpoint, settings that do not fit, or nothing is changed.
    """
    parent = runs.load(run)
    origin = lineage.find(run, at, {})
    had = parent.config_at(origin.step + 1)
    steps = origin.step + (had.run.steps if more is None else more)
    if steps <= origin.step:
        raise InputError(f"steps to take from step {origin.step}: expected at least 1, got {more}")
    own = {section: dict(values) for section, values in changes.items()}
    if "temperature" in own.get("sampler", {}):
        raise InputError(
            "temperature cannot be changed here: evaluations are made at it, and both futures' would differ by that alone"
        )
    before = had.changed(run={**own.pop("run", {}), "steps": steps})
    revived = before.changed(**own)
    if revived == before:
        raise InputError(
            "nothing is changed: both futures would be one; name a setting, e.g. --sampler sesa or --preset lab"
        )
    numbers = [had.run.seed] if seeds is None else list(seeds)
    if not numbers or len(set(numbers)) != len(numbers):
        raise InputError(f"expected at least one seed and none twice, got {numbers}")
    found = []
    for seed in numbers:
        for arm, config in ((AS_BEFORE, before), (REVIVED, revived)):
            seeded = config.changed(run={"seed": seed})
            begins = dataclasses.replace(origin, changes=_differences(had, seeded))
            name = f"{arm}-s{seed}-{digest(seeded)}-{origin.adapter[:8]}"  # a checkpoint made anew is another origin
            found.append(Job(arm, seed, seeded, Path(out) / name, begins))
    return found


def of_preset(name: str, had: Config) -> dict[str, dict[str, Any]]:
    """Sampler and update of a preset, for ``futures``; what is in ``KEPT`` and not named by the preset stays as the run had it.

    Args:
        name: of the preset.
        had: the run's settings.

    Raises:
        InputError: an unknown preset.
    """
    environment = had.environment.name
    built = Config.build(name, environment={"name": environment}).to_dict()
    named = PRESETS[name].get(environment, PRESETS[name][""])
    return {
        section: {
            setting: value
            for setting, value in built[section].items()
            if setting not in KEPT[section] or setting in named.get(section, {})
        }
        for section in KEPT
    }


def compare(jobs: Sequence[Job]) -> pd.DataFrame:
    """Both futures at their end, beside the checkpoint, as a reader wants it.

    Returns:
        One row a measure: the checkpoint's value, that of each future, and the difference revived minus as before, paired by
        seed: 'mean [low, high] (n)'; of one seed without an interval. ``tokens`` are those sampled since the checkpoint.
    """
    ends: dict[str, dict[int, pd.Series]] = {AS_BEFORE: {}, REVIVED: {}}
    starts: dict[int, pd.Series] = {}
    for job in jobs:
        evaluations = runs.load(job.folder).evaluations
        if job.arm == AS_BEFORE:
            starts[job.seed] = evaluations.iloc[0]
        end = evaluations.iloc[-1].copy()
        end["tokens"] = end["tokens_total"] - evaluations["tokens_total"].iloc[0]
        ends[job.arm][job.seed] = end
    rows = {}
    for name in (*MEASURES, "tokens"):
        values = {
            arm: {seed: float(end.get(name, float("nan"))) for seed, end in own.items()} for arm, own in ends.items()
        }
        if not all(value == value for own in values.values() for value in own.values()):
            continue
        digits = 0 if name == "tokens" else 3
        shown = {arm: statistics.text(*statistics.mean_interval(own.values()), digits) for arm, own in values.items()}
        at = [float(start[name]) for start in starts.values()] if name != "tokens" else [0.0]
        difference = statistics.paired_difference(pd.Series(values[REVIVED]), pd.Series(values[AS_BEFORE]))
        rows[name] = {
            "at the checkpoint": f"{sum(at) / len(at):.{digits}f}",
            "as before": shown[AS_BEFORE],
            "revived": shown[REVIVED],
            "difference": statistics.text(*difference, digits),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("measure")


def _differences(before: Config, after: Config) -> dict[str, dict[str, Any]]:
    old, found = before.to_dict(), {}
    for section, values in after.to_dict().items():
        changed = {name: value for name, value in values.items() if value != old[section][name]}
        if changed:
            found[section] = changed
    return found
