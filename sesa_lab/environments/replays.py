"""Episodes of several turns, played again picture by picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from sesa_lab.environments.contract import Environment
from sesa_lab.types import Frame, Task

UNREAD = "no action that can be read"
"""Caption of a turn in which nothing happens."""


def played_again(
    env: Environment,
    task: Task,
    turns: Sequence[str],
    seed: int,
    start: Frame,
    moves: Callable[[Any, str], Sequence[Frame]],
) -> list[list[Frame]]:
    """The frames of ``contract.Replayed.replay``: verdicts are those of ``env.step``, pictures those of ``moves``.

    Args:
        env: plays.
        task: what was asked.
        turns: what was said.
        seed: the episode's.
        start: the first picture.
        moves: from the state before a turn and its text to a frame a move, and at least one.
    """
    episode, told = env.reset(task, seed), [[start]]
    for number, text in enumerate(turns, start=1):
        if episode.over:
            break
        frames = [
            dataclasses.replace(one, caption=f"turn {number}: {one.caption}") for one in moves(episode.state, text)
        ]
        episode = env.step(episode, text)
        said = f"{frames[-1].caption}; reward {episode.rewards[-1]:g}"
        if episode.over or number == len(turns):
            said += "; solved" if episode.success else "; not solved"
        told.append([*frames[:-1], dataclasses.replace(frames[-1], caption=said)])
    return told
