"""A candidate carried out again by the environment, picture by picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sesa_lab import environments
from sesa_lab.environments.contract import Replayed
from sesa_lab.errors import InputError
from sesa_lab.runs import Run
from sesa_lab.types import Frame, Task
from sesa_lab.widgets.payload import excerpt

MOST = 200
"""Frames that are shown; what goes beyond is left out, and the replay says so."""
TURN = 2_000
"""Letters of a turn that are shown beside its pictures."""


class Stage:
    """The environment of a run, made when it is first asked for. Not for two threads at once."""

    def __init__(self, run: Run) -> None:
        self._chosen = run.config.environment
        self._made: Any = None

    def replay(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """``{"frames": [{"caption", "text", "svg", "turn"}], "turns": [excerpt], "note": str}`` of one candidate.

        An answer judged whole has a picture a move. So has an episode of several turns, played again from its seed, where the
        environment shows it (``contract.Replayed``); another environment tells it turn by turn in its own words. ``turns`` are
        what the policy said in each, and a frame's ``turn`` counts them from 1; both only of an episode, and 0 is its start.

        Args:
            row: ``task``, ``prompt``, ``completion``, ``turns`` and ``episode_seed`` as in the table of rollouts; ``success``,
                where it is there, is compared with how the episode ends now.
        """
        try:
            task = self._task(row)
            whole = row["episode_seed"] is None or self._made.turns == 1
            told = [self._made.render(task, row["completion"])] if whole else self._episode(task, row)
        except InputError as error:
            return {"frames": [], "turns": [], "note": str(error)}
        frames = [vars(frame) | ({} if whole else {"turn": turn}) for turn, one in enumerate(told) for frame in one]
        notes = [] if whole else self._doubts(task, row)
        if len(frames) > MOST:
            notes.append(f"the last {len(frames) - MOST} of {len(frames)} frames are left out")
        turns = [] if whole else [excerpt(text, TURN) for text in row["turns"][: len(told) - 1]]
        return {"frames": frames[:MOST], "turns": turns, "note": "; ".join(notes)}

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

    def _episode(self, task: Task, row: Mapping[str, Any]) -> list[list[Frame]]:
        """The start, then one list a turn that was taken."""
        if isinstance(self._made, Replayed):
            return self._made.replay(task, row["turns"], int(row["episode_seed"]))
        told = [[self._made.render(task)[0]]]
        episode = self._made.reset(task, int(row["episode_seed"]))
        for number, text in enumerate(row["turns"], start=1):
            if episode.over:
                break
            episode = self._made.step(episode, text)
            ending = ("solved" if episode.success else "not solved") if episode.over else ""
            caption = f"turn {number}: reward {episode.rewards[-1]:g}{', ' + ending if ending else ''}"
            told.append([Frame(caption, episode.observation or ending, "")])
        return told

    def _doubts(self, task: Task, row: Mapping[str, Any]) -> list[str]:
        """A note where the episode now ends otherwise than it is stored."""
        episode = self._made.reset(task, int(row["episode_seed"]))
        for text in row["turns"]:
            if not episode.over:
                episode = self._made.step(episode, text)
        if episode.success == row.get("success", episode.success):
            return []
        then, now = ("solved" if success else "not solved" for success in (row["success"], episode.success))
        return [f"{then} when the run was made, and {now} in this version: open the run with the one that made it"]
