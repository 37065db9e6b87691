"""The rivals' side of `sesa-lab bench`: does the work it is asked for, times itself, tells the seconds and the results.

Runs in an environment of its own (requirements.txt; `make bench` makes it) and imports nothing of sesa_lab. One JSON object
a line on stdin, one on stdout: ``{"work": name, ...}`` is answered by ``{"seconds": wall-clock, "cpu": processor seconds,
"results": [one a unit of work]}``. What is not work (making environments, setting up rooms) is done before the clock
starts, and results are put into words after it stops. Rivals are used by the calls that are cheapest for them: bare classes
without wrappers, the small picture where there must be one, actions as numbers.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

Job = tuple[Callable[[], list[Any]], Callable[[Any], Any]]
"""The work itself, and how one of its results is said in JSON."""


def plain(value: Any) -> Any:
    """A result that is JSON already."""
    return value


def frozen_lake_maps(count: int, size: int, frozen: float, seed: int) -> Job:
    """Gymnasium's random maps that can be solved."""
    from gymnasium.envs.toy_text.frozen_lake import generate_random_map

    return lambda: [generate_random_map(size, frozen, seed * 1_000_003 + i) for i in range(count)], plain


def frozen_lake_steps(maps: list[list[str]], actions: list[list[int]], slippery: bool, seed: int) -> Job:
    """Gymnasium's states, step by step, each episode until it ends."""

    def run() -> list[int]:
        seen = []
        for env, plan in zip(envs, actions, strict=True):
            for action in plan:
                state, _, terminated, _, _ = env.step(action)
                seen.append(state)
                if terminated:
                    break
        return seen

    envs = list(_lakes(maps, slippery, seed))
    return run, int


def frozen_lake_answers(maps: list[list[str]], actions: list[list[list[int]]]) -> Job:
    """Whether each plan of each map reaches the goal."""

    def run() -> list[bool]:
        verdicts = []
        for env, plans in zip(envs, actions, strict=True):
            for plan in plans:
                env.reset()
                reward = 0
                for action in plan:
                    _, reward, terminated, _, _ = env.step(action)
                    if terminated:
                        break
                verdicts.append(reward == 1)
        return verdicts

    envs = list(_lakes(maps, False, 0))
    return run, bool


def _lakes(maps: list[list[str]], slippery: bool, seed: int) -> Iterator[Any]:
    from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv

    for number, rows in enumerate(maps):
        env = FrozenLakeEnv(desc=rows, is_slippery=slippery)
        env.reset(seed=seed * 1_000_003 + number)
        yield env


def sokoban_rooms(count: int, height: int, width: int, boxes: int, walk_steps: int, seed: int) -> Job:
    """gym-sokoban's random rooms; draws that come to nothing are made again, as its own ``reset`` does."""
    import numpy
    from gym_sokoban.envs.room_utils import generate_room

    def run() -> list[Any]:
        rooms: list[Any] = []
        while len(rooms) < count:
            try:
                rooms.append(generate_room(dim=(height, width), num_steps=walk_steps, num_boxes=boxes)[1])
            except (RuntimeError, RuntimeWarning):
                continue
        return rooms

    random.seed(seed)
    numpy.random.seed(seed)  # noqa: NPY002 - gym-sokoban draws from the global generators
    return run, _digits


def sokoban_steps(fixed: list[str], start: list[str], width: int, actions: list[list[int]]) -> Job:
    """gym-sokoban's room and reward after each action, each episode until it ends."""

    def run() -> list[tuple[Any, float]]:
        seen = []
        for env, plan in zip(envs, actions, strict=True):
            for action in plan:
                _, reward, done, _ = env.step(action, observation_mode="tiny_rgb_array")
                seen.append((env.room_state.copy(), reward))
                if done:
                    break
        return seen

    envs = [_room(*pair, width) for pair in zip(fixed, start, strict=True)]
    return run, lambda pair: [_digits(pair[0]), float(pair[1])]


def _room(fixed: str, start: str, width: int) -> Any:
    """gym-sokoban's environment in a given room; its own ``reset`` would draw one."""
    import numpy
    from gym_sokoban.envs.sokoban_env import SokobanEnv

    boxes = sum(start.count(symbol) for symbol in "34")
    env = SokobanEnv((len(fixed) // width, width), max_steps=10**6, num_boxes=boxes, reset=False)
    env.room_fixed, env.room_state = (numpy.array(list(map(int, text))).reshape(-1, width) for text in (fixed, start))
    env.player_position = numpy.argwhere(env.room_state == 5)[0]
    env.num_env_steps, env.reward_last, env.boxes_on_target = 0, 0, 0
    return env


def _digits(room: Any) -> str:
    return "".join(str(int(cell)) for cell in room.ravel())


def reasoning_gym_tasks(dataset: str, count: int, options: dict[str, Any]) -> Job:
    """Questions of one of reasoning-gym's data sets."""
    tasks = _dataset(dataset, count, options)
    return lambda: [tasks[i] for i in range(count)], lambda entry: entry["question"]


def reasoning_gym_answers(
    dataset: str, metadata: list[dict[str, Any]], answers: list[list[str]], options: dict[str, Any]
) -> Job:
    """Whether each answer to each task is right."""
    judge = _dataset(dataset, 1, options)

    def run() -> list[bool]:
        entries = [{"metadata": one} for one in metadata]
        return [
            judge.score_answer(text, entry) == 1.0
            for entry, texts in zip(entries, answers, strict=True)
            for text in texts
        ]

    return run, bool


def _dataset(name: str, size: int, options: dict[str, Any]) -> Any:
    from reasoning_gym import create_dataset

    lists = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    return create_dataset(name, size=size, **lists)


WORK: dict[str, Callable[..., Job]] = {
    "frozen_lake_maps": frozen_lake_maps,
    "frozen_lake_steps": frozen_lake_steps,
    "frozen_lake_answers": frozen_lake_answers,
    "sokoban_rooms": sokoban_rooms,
    "sokoban_steps": sokoban_steps,
    "reasoning_gym_tasks": reasoning_gym_tasks,
    "reasoning_gym_answers": reasoning_gym_answers,
}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Do one piece of work and time it; ``{"work": "versions", "names": [...]}`` asks what is installed."""
    work = request.pop("work")
    if work == "versions":
        return {name: importlib.metadata.version(name) for name in request["names"]}
    run, say = WORK[work](**request)
    wall, cpu = time.perf_counter(), time.process_time()
    results = run()
    spent = time.perf_counter() - wall, time.process_time() - cpu
    return {"seconds": spent[0], "cpu": spent[1], "results": [say(result) for result in results]}


def main() -> None:
    """Answer until stdin ends. Whatever a rival prints goes to stderr."""
    link = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=link, flush=True)


if __name__ == "__main__":
    main()
