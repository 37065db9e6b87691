"""Arms x seeds -> jobs with run folders named after what is in them; and back from folders to one table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from sesa_lab import prompts, runs
from sesa_lab.config import Config
from sesa_lab.errors import InputError, short
from sesa_lab.experiments.jobs import Job

Sections = Mapping[str, Mapping[str, Any]]

_LONGEST = 120  # bytes of an arm's name; with seed and digest a file system takes 255


@dataclass(frozen=True)
class Arm:
    """One way of training, compared with others at equal seeds.

    Attributes:
        name: short name, used in folder names.
        changes: config sections that make this arm what it is.
    """

    name: str
    changes: Sections = field(default_factory=dict)


def jobs_for(arms: Sequence[Arm], seeds: Sequence[int], base: Sections, folder: Path) -> list[Job]:
    """One job an arm and seed; a seed fixes the treasures as well as the run, so that arms are paired by it.

    The folder's name ends in a digest of the whole config: a changed setting never meets an old run.

    Raises:
        InputError: two arms of one name, a name that no folder could have, no or repeated seeds, or a config that is refused.
    """
    names = [arm.name for arm in arms]
    for name in names:
        if not (name[:1].isalnum() and name.isprintable() and len(name.encode()) <= _LONGEST) or set(name) & set("/\\"):
            raise InputError(
                f"an arm is called {short(name)}, expected a letter or digit first and no slash, at most {_LONGEST} bytes:"
                " run folders are named after it"
            )
    if len(set(names)) != len(names):
        raise InputError(f"arms must have distinct names, got {names}")
    if not seeds or len(set(seeds)) != len(seeds):
        raise InputError(f"expected at least one seed and none twice, got {list(seeds)}")
    jobs = []
    for seed in seeds:
        for arm in arms:
            config = Config.build(None, **_merge(base, arm.changes, _seeded(base, arm, seed)))
            jobs.append(Job(arm.name, seed, config, folder / f"{arm.name}-s{seed}-{digest(config)}"))
    return jobs


def digest(config: Config) -> str:
    """Eight hexadecimal digits of what in the config differs from its defaults.

    So a setting that is added later leaves the digests of old runs as they are. Of a starting adapter's path only the run,
    ``checkpoints`` and the step count: the same run seen from another folder is the same. What the run itself was is in its
    own name's digest. Of a folder of prompts its texts count, not where it lies.

    Raises:
        InputError: a folder of prompts that cannot be read.
    """
    usual = Config().to_dict()
    content = {
        section: {name: value for name, value in values.items() if value != usual[section][name]}
        for section, values in config.to_dict().items()
        if section != "watch" or values != usual[section]  # a section that came later
    }
    if config.policy.adapter:
        content["policy"]["adapter"] = "/".join(Path(config.policy.adapter).parts[-3:])
    if config.policy.prompts:
        content["policy"]["prompts"] = prompts.folder_texts(config.policy.prompts, config.environment.name)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def read(jobs: Sequence[Job]) -> tuple[pd.DataFrame, list[runs.Run]]:
    """Evaluations of all jobs as one tidy table with ``arm``, ``seed`` and ``group`` (the folder), and their runs in order.

    Raises:
        InputError: a run is missing or unfinished.
    """
    loaded, tables = [], []
    for job in jobs:
        run = runs.load(job.folder)
        if not run.finished:
            raise InputError(f"{job.folder} is unfinished; run the experiment again, it continues where it stopped")
        loaded.append(run)
        tables.append(run.evaluations.assign(arm=job.arm, seed=job.seed, group=job.folder.parent.name))
    return pd.concat(tables, ignore_index=True), loaded


def _seeded(base: Sections, arm: Arm, seed: int) -> Sections:
    options = {
        **base.get("environment", {}).get("options", {}),
        **arm.changes.get("environment", {}).get("options", {}),
    }
    return {"environment": {"options": {**options, "seed": seed}}, "run": {"seed": seed}}


def _merge(*parts: Sections) -> dict[str, dict[str, Any]]:
    merged: dict[str, dict[str, Any]] = {}
    for part in parts:
        for section, values in part.items():
            merged.setdefault(section, {}).update(values)
    return merged
