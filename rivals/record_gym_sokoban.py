"""Records gym-sokoban 0.0.6 for test_sokoban_reference.py; run once, in the rivals' own environment.

    make bench    # once: makes .venv/rivals
    .venv/rivals/bin/python rivals/record_gym_sokoban.py tests/environments/gym_sokoban_0.0.6.json.gz

The file holds episodes of gym-sokoban's own rooms under random actions (more often than not one that pushes, so that boxes
come onto targets and leave them), with every state, reward and flag, and rooms of RAGEN's size alone. Symbols are
gym-sokoban's: 0 wall, 1 floor, 2 target, 3 box on target, 4 box, 5 player; ``fixed`` is the room without boxes and player.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np

EPISODES = {(6, 6, 1): 220, (7, 9, 1): 60, (7, 7, 2): 100, (9, 8, 3): 50}  # height, width, boxes -> how many
MAX_STEPS = 40
ROOMS = 1_000
WALK_STEPS = 20


def text(room: Any) -> str:
    """One digit a cell, row by row."""
    return "".join(str(int(cell)) for cell in np.asarray(room).ravel())


def fresh(height: int, width: int, boxes: int) -> Any:
    """A gym-sokoban environment with a new room."""
    from gym_sokoban.envs.sokoban_env import SokobanEnv

    env = SokobanEnv((height, width), max_steps=MAX_STEPS, num_boxes=boxes, num_gen_steps=WALK_STEPS, reset=False)
    env.reset(render_mode="tiny_rgb_array")
    return env


def pushing(env: Any) -> list[int]:
    """The actions that would push a box."""
    found = []
    for action, change in enumerate(((-1, 0), (1, 0), (0, -1), (0, 1)), 1):
        ahead = env.player_position + change
        if env.room_state[tuple(ahead)] in (3, 4) and env.room_state[tuple(ahead + change)] in (1, 2):
            found.append(action)
    return found


def episode(height: int, width: int, boxes: int, chance: random.Random) -> dict[str, Any]:
    """One episode until it is done."""
    env = fresh(height, width, boxes)
    record: dict[str, Any] = {
        "height": height, "width": width, "fixed": text(env.room_fixed), "start": text(env.room_state),
        "actions": "", "states": [], "rewards": [], "solved": False,
    }  # fmt: skip
    done = False
    while not done:
        pushes = pushing(env)
        action = chance.choice(pushes) if pushes and chance.random() < 0.6 else chance.randint(1, 4)
        _, earned, done, info = env.step(action, observation_mode="tiny_rgb_array")
        record["actions"] += str(action)
        record["states"].append(text(env.room_state))
        record["rewards"].append(float(earned))
        record["solved"] = bool(info.get("all_boxes_on_target", False))
    return record


def main() -> None:
    """Record and write to the path given."""
    random.seed(20251123)
    np.random.seed(20251123)  # noqa: NPY002 - gym-sokoban draws from the global generators
    chance = random.Random(1)
    episodes = [episode(*size, chance) for size, count in EPISODES.items() for _ in range(count)]
    made = [fresh(6, 6, 1) for _ in range(ROOMS)]
    rooms = [{"fixed": text(env.room_fixed), "start": text(env.room_state)} for env in made]
    record = {"package": "gym-sokoban 0.0.6", "max_steps": MAX_STEPS, "episodes": episodes, "rooms": rooms}
    content = json.dumps(record, separators=(",", ":")).encode()
    Path(sys.argv[1]).write_bytes(gzip.compress(content, 9, mtime=0))
    steps = sum(len(one["actions"]) for one in episodes)
    print(
        f"{len(episodes)} episodes, {steps} steps, {sum(one['solved'] for one in episodes)} solved, {len(rooms)} rooms"
    )


if __name__ == "__main__":
    main()
