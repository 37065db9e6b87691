"""Runs of a second or so, processes that look at them, and what a run is compared by."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file

from sesa_lab import runs
from sesa_lab.live.run import LiveRun
from sesa_lab.live.state import State

PROJECT = Path(runs.__file__).resolve().parents[2]
TINY: dict[str, Any] = {
    "steps": 5, "groups": 2, "group_size": 4, "max_tokens": 8,
    "evaluate_every": 3, "checkpoint_every": 2, "coverage_k": 8, "trackers": "none",
}  # fmt: skip
CLOCK = {"seconds_draw", "seconds_score", "seconds_update", "seconds_total", "peak_memory_mb"}
HOSTILE = "<img src=x onerror=alert(1)>&amp; $x$"


def until(live: LiveRun, *names: str, seconds: float = 240.0) -> State:
    """The state of the run as soon as it has one of these names."""
    end = time.monotonic() + seconds
    while (state := live.state).name not in names:
        assert time.monotonic() < end and (not state.ended or state.name == "idle"), f"waited for {names}: {state}"
        time.sleep(0.05)
    return state


def elsewhere(code: str, *arguments: object, ends: int = 0) -> str:
    """What another Python process prints that runs ``code`` with these arguments, and ends with this exit status."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(PROJECT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == ends, done.stderr
    return done.stdout


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def assert_same_run(path: Path, reference: Path) -> None:
    """Bit for bit: metrics (but the clock), tables, adapter and optimiser."""
    assert _metrics(path) == _metrics(reference)
    ours, theirs = runs.load(path), runs.load(reference)
    for table in ("read_rollouts", "read_answers"):
        pd.testing.assert_frame_equal(getattr(ours, table)(), getattr(theirs, table)(), check_exact=True)
    folders = [run.checkpoints[-1][1] for run in (ours, theirs)]
    adapters = [load_file(folder / "adapter_model.safetensors") for folder in folders]
    assert adapters[0].keys() == adapters[1].keys()
    assert all(torch.equal(adapters[0][name], adapters[1][name]) for name in adapters[0])
    moments = [torch.load(folder / "optimizer.pt", weights_only=True)["state"] for folder in folders]
    assert all(torch.equal(moments[0][p][m], moments[1][p][m]) for p in moments[0] for m in moments[0][p])


def _metrics(path: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in CLOCK} for line in lines]
