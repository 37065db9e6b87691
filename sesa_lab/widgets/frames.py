"""A candidate carried out again by the environment, picture by picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sesa_lab import environments
from sesa_lab.errors import InputError
from sesa_lab.runs import Run
from sesa_lab.types import Frame, Task

MOST = 200
"""Frames that are shown; what goes beyond is left out, and the replay says so."""


class Stage:
    """The environment of a run, made when it is first asked for. Not for two threads at once."""

    def __init__(self, run: Run) -> None:
        self._chosen = run.config.environment
        self._made: Any = None

    def replay(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """``{"frames": [{"caption", "text", "svg"}], "note": str}`` of one candidate.

        An answer judged whole has a picture a move. An episode of several turns is played again from its seed, and told
        turn by turn in the environment's own words.

        Args:
            row: ``task``, ``prompt``, ``completion``, ``turns`` and ``episode_seed`` as in the table of rollouts.
        """
        try:
            task = self._task(row)
            told = row["episode_seed"] is not None and self._made.turns > 1
            frames = self._episode(task, row) if told else self._made.render(task, row["completion"])
        except InputError as error:
            return {"frames": [], "note": str(error)}
        left_out = len(frames) - MOST
        note = f"the last {left_out} of {len(frames)} frames are left out" if left_out > 0 else ""
        return {"frames": [vars(frame) for frame in frames[:MOST]], "note": note}

    def _task(self, row: Mapping[str, Any]) -> Task:
        if self._made is None:
            self._made = environments.make(self._chosen.name, **self._chosen.options)
        task: Task = self._made.task(row["task"])
        if task.prompt != row["prompt"]:
            raise InputError(
                f"task {row['task']} of {self._chosen.name} is another one in this version than when the run was made:"
                " open the run with the version that environment.json names to see it replayed"
            )
        return task

    def _episode(self, task: Task, row: Mapping[str, Any]) -> list[Frame]:
        frames = [self._made.render(task)[0]]
        episode = self._made.reset(task, int(row["episode_seed"]))
        for number, text in enumerate(row["turns"], start=1):
            if episode.over:
                break
            episode = self._made.step(episode, text)
            ending = ("solved" if episode.success else "not solved") if episode.over else ""
            caption = f"turn {number}: reward {episode.rewards[-1]:g}{', ' + ending if ending else ''}"
            frames.append(Frame(caption, episode.observation or ending, ""))
        return frames
