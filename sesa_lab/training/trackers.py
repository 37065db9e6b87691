"""Metrics also go to experiment trackers, through accelerate's classes for them; ``metrics.jsonl`` stays the run's own record.

A tracker is a guest: whatever it raises is said once on stderr, it is given up, and the run goes on, since ``metrics.jsonl`` has
all values. (Those that talk to a server try again by themselves before they raise.) Their accounts, servers and other settings
are their own environment variables: WANDB_PROJECT, WANDB_MODE, MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME ...
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sesa_lab.errors import InputError, suggest, writing

NONE = "none"
PROJECT = "sesa_lab"
STATE = "state.json"  # what trackers that keep their records elsewhere need when the run goes on
_OVERWRITES = ("tensorboard", "wandb")  # values of a step sent again take the place of those there, or are dropped


def names(text: str) -> list[str]:
    """The trackers named in ``text``, parted by commas; none of them twice.

    Raises:
        InputError: a name that accelerate does not know, or its package is not installed.
    """
    from accelerate import tracking

    found = list(dict.fromkeys(name.strip() for name in text.split(",")))
    if found in ([NONE], [""]):
        return []
    for name in found:
        known = tracking.LOGGER_TYPE_TO_CLASS
        if name not in known:
            raise InputError(f"run.trackers = {text!r}: no tracker {name!r}; {suggest(name, [*known, NONE])}")
        builtin = known[name].__module__ == tracking.__name__  # the package that it imports has its own name
        if builtin and not _installed(name):
            package = name.replace("_", "-")
            raise InputError(
                f"run.trackers = {text!r}: the package of {name!r} is not installed; pip install {package}, or leave it out"
            )
    return found


class Trackers:
    """The trackers of one run. Made by the one process that writes the run folder.

    Attributes:
        active: those that have not failed, by name.
    """

    def __init__(self, text: str, folder: Path, config: Mapping[str, Any], done: int | None) -> None:
        """Start them.

        Args:
            text: ``run.trackers``.
            folder: the run folder; what they write lies in its ``trackers/``.
            config: all settings, nested; they are told it flat: ``update.learning_rate``.
            done: the last committed step where a run goes on; None: nothing is committed yet. What TensorBoard has beyond it
                is marked as void, since it is made again.

        Raises:
            InputError: as ``names``, or ``trackers/`` cannot be written.
        """
        self.active: dict[str, Any] = {}
        self._folder = folder / "trackers"
        wanted = names(text)
        if not wanted:
            return
        from accelerate import PartialState

        with writing(self._folder, "mend the folder's permissions or space, or set run.trackers = 'none'"):
            self._folder.mkdir(exist_ok=True)
            self._state = self._read_state()
        PartialState()  # accelerate's classes ask it which process this is; alone, or as `accelerate launch` said
        first = 0 if done is None else done + 1
        for name in wanted:
            self._guarded(name, partial(self._start, name, folder.resolve().name, dict(flat(config)), first))

    def log(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """One record of ``metrics.jsonl``: numbers under ``kind/name``; what is undefined (None, NaN, infinite) is left out.

        The test with sketches goes under ``test_guided``.
        """
        group = f"{kind}_guided" if values.get("guided") is True else kind
        numbers = {
            f"{group}/{name}": float(value)
            for name, value in flat(values)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        }
        for name in list(self.active):
            self._guarded(name, partial(self._log, name, group, step, numbers))

    def close(self) -> None:
        """Ends all trackers' runs. Closing twice does no harm."""
        for name, tracker in list(self.active.items()):
            self._guarded(name, tracker.finish)
        self.active = {}

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _start(self, name: str, run: str, config: dict[str, Any], first: int) -> None:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        make = LOGGER_TYPE_TO_CLASS[name]
        known = self._state.setdefault(name, {})
        begun = bool(known)
        where = [str(self._folder)] if make.requires_logging_directory else []
        options = self._options(name, run, known, first)
        tracker = make(run if name == "tensorboard" else _project(name), *where, **options)
        tracker.start()
        self.active[name] = tracker
        if name == "mlflow":
            known["run"] = tracker.tracker.info.run_id
        if name == "tensorboard":  # as text: its own way puts the settings into a run of their own at each start
            tracker.log({"config": "\n".join(f"    {key} = {value}" for key, value in config.items())}, step=first)
        elif not begun:
            tracker.store_init_configuration(config)
        known.setdefault("logged", {})
        self._write_state()

    def _options(self, name: str, run: str, known: dict[str, Any], first: int) -> dict[str, Any]:
        """What a tracker needs beside the project's name so that a run that goes on is one run to it too."""
        if name == "tensorboard":
            return {"purge_step": first}
        if name in ("wandb", "trackio"):
            known.setdefault("run", f"{run}-{uuid.uuid4().hex[:8]}")
            if name == "trackio":
                return {"name": known["run"], "resume": "allow"}
            return {"id": known["run"], "name": run, "dir": str(self._folder), "resume": "allow"}
        if name == "mlflow":
            return {"run_id": known["run"]} if "run" in known else {"run_name": run}
        return {}

    def _log(self, name: str, group: str, step: int, numbers: dict[str, float]) -> None:
        logged = self._state[name]["logged"]
        if name not in _OVERWRITES:  # would have it twice
            if step <= logged.get(group, -1):
                return
            logged[group] = step
            self._write_state()
        self.active[name].log(numbers, step=step)

    def _guarded(self, name: str, call: Callable[[], object]) -> None:
        """``call()``; where it raises, whatever that is, the tracker is given up and that is said."""
        try:
            call()
        except Exception as error:
            self.active.pop(name, None)
            words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            sys.stderr.write(
                f"sesa-lab: warning: tracker {name!r} failed and is given up ({words}); the run goes on, and metrics.jsonl has all"
                " values\n"
            )

    def _read_state(self) -> dict[str, Any]:
        try:
            found = json.loads((self._folder / STATE).read_text())
        except (FileNotFoundError, ValueError):  # none yet; a torn one is worth a second record, not a run
            return {}
        return found if isinstance(found, dict) else {}

    def _write_state(self) -> None:
        kept = {name: known for name, known in self._state.items() if name not in _OVERWRITES or "run" in known}
        if kept:
            temporary = self._folder / f".tmp-{STATE}"
            temporary.write_text(json.dumps(kept, indent=2) + "\n")
            os.replace(temporary, self._folder / STATE)


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as one: ``{"a": {"b": 1}}`` gives ``("a.b", 1)``; other things than numbers become texts."""
    for key, value in values.items():
        value = value.item() if hasattr(value, "item") else value  # numpy scalars, 0-d arrays and tensors
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if value is None or isinstance(value, (bool, int, float)) else str(value)


def _project(name: str) -> str:
    return os.environ.get(f"{name.upper()}_PROJECT", PROJECT)


def _installed(module: str) -> bool:
    found = importlib.util.find_spec(module)
    return found is not None and found.origin is not None  # a folder of that name, as wandb makes, is no package
