"""Trains the run that a JSON config on stdin and a folder describe, and stops dead within one step.

In the step given, after its candidates were drawn and before they are judged, it says so and waits to be killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sesa_lab.config import Config
from sesa_lab.training.loop import Trainer, train

PROJECT = Path(__file__).resolve().parents[2]


def kill_within(step: int, config: Config, out: Path) -> None:
    """Train into ``out`` in a process of its own, and kill it in the midst of ``step``."""
    with subprocess.Popen(
        [sys.executable, __file__, str(out), str(step)],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(config.to_dict()))
        process.stdin.close()
        assert process.stdout.readline() == "in the middle of it\n"
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def main(out: str, stop_in: int) -> None:
    draw = Trainer.draw

    def draw_and_wait(self: Trainer, number: int) -> Any:
        groups = draw(self, number)
        if number == stop_in:
            print("in the middle of it", flush=True)
            time.sleep(600)
        return groups

    Trainer.draw = draw_and_wait  # type: ignore[method-assign]
    train(Config.from_dict(json.load(sys.stdin)), out)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
