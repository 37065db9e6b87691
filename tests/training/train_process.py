"""Trains the run that a JSON config on stdin and a folder describe, and stops dead within one step.

In the step given, after its candidates were drawn and before they are judged, it says so and waits to be killed.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from sesa_lab.config import Config
from sesa_lab.training.loop import Trainer, train


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
