"""One stored step of a run as the losses need it: read from the rollouts table alone, no policy, no environment."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from sesa_lab.config import Config, UpdateConfig
from sesa_lab.errors import InputError
from sesa_lab.runs.load import Run, load
from sesa_lab.training import credit
from sesa_lab.types import Candidate, Score

COLUMNS = [
    "group", "index", "task", "prompt", "history", "sketch", "sketches", "completion", "token_ids", "turn_tokens",
    "episode_seed", "finish", "drawn_under", "drawn_logprobs", "engine_logprobs", "trained_under", "old_logprobs", "reward",
    "credited", "success", "strategy",
]  # fmt: skip
_LISTS = ("token_ids", "turn_tokens", "history", "sketches", "drawn_logprobs", "old_logprobs")
"""Of ``COLUMNS``, those that hold a list in every run that can be looked at; null in a run without the column."""
_DRAWN_BY = {"sequential": "history", "sesa": "sketch"}
"""Sampler -> the kind of context that it draws under, beside the task's own."""


@dataclass(frozen=True)
class Member:
    """A candidate as it is stored.

    Attributes:
        group: of which group of the step.
        index: its place in the group, in the order drawn.
        task: number of the task.
        prompt: the task's, plain text.
        history: earlier answers that its drawing context showed.
        sketch: text of the sketch it expands, None without one.
        sketches: numbers of those it follows.
        completion: what it said. Hostile text.
        tokens: ids, all turns in a row.
        turns: tokens of each turn.
        seed: of its episode; None: judged whole.
        finish: how its last turn ended: ``stop``, ``text`` or ``length``.
        drawn_under: kind of the context it was drawn under.
        known_under: kind of the context that ``old`` belongs to, the run's own (first) training context.
        drawn: log-probs, policy when drawn, drawing context, after temperature (nats).
        old: the same under ``known_under``.
        engine: what the engine said of the same as ``drawn``; ``drawn`` itself where none is stored: with engine torch, and in runs
            made before it was.
        score: the environment's verdict.
        credited: reward after the run's own rule for repeats.
        repeat: an earlier candidate of the group took its strategy.
        base: kind of context -> log-probs of its tokens, the frozen base (nats). A run does not store them; ``rescoring`` has them.
    """

    group: int
    index: int
    task: int
    prompt: str
    history: tuple[str, ...]
    sketch: str | None
    sketches: tuple[int, ...]
    completion: str
    tokens: tuple[int, ...]
    turns: tuple[int, ...]
    seed: int | None
    finish: str
    drawn_under: str
    known_under: str
    drawn: tuple[float, ...]
    old: tuple[float, ...]
    engine: tuple[float, ...]
    score: Score
    credited: float
    repeat: bool
    base: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def kinds(self, conditioning: str) -> list[str]:
        """Kinds of the contexts it is trained under, as ``training.batch.training_kinds`` has them."""
        first, _, second = conditioning.partition("+")
        known = ("task", self.drawn_under)
        return [first if first in known else "task", *([second] if second in known and second else [])]

    def under(self, kind: str) -> tuple[float, ...]:
        """Log-probs of its tokens, policy when drawn, under the context ``kind``.

        Under the drawing context these are ``drawn``: the same policy, context and tokens.
        """
        if kind == self.known_under:
            return self.old
        if kind == self.drawn_under:
            return self.drawn
        raise InputError(
            f"group {self.group}, candidate {self.index}: log-probs under the context {kind!r} are not stored, only under"
            f" {self.known_under!r}: the run was trained so, and others need its policy"
        )

    def context(self, kind: str) -> Hashable:
        """What tells its context of that kind from others of the step."""
        if kind == "history":
            return self.prompt, kind, self.history
        if kind == "sketch":  # one drafted on the way stands in later turns alone, and its text is not in the table
            return self.prompt, kind, self.sketch, (self.group, *self.sketches) if len(self.sketches) > 1 else ()
        return self.prompt, kind


@dataclass(frozen=True, eq=False)
class Step:
    """All candidates of one training step.

    Attributes:
        number: the step, from 1.
        members: group by group, in the order drawn.
        config: settings of that step: the run's own, or those after the switch of an alarm.
        loss: as the run logged it; NaN where it did not.
        run: where it comes from.
    """

    number: int
    members: tuple[Member, ...]
    config: Config
    loss: float
    run: Run

    @property
    def groups(self) -> list[int]:
        """Numbers of the groups."""
        return sorted({member.group for member in self.members})

    @property
    def rescored(self) -> bool:
        """Whether its log-probs are a loaded policy's (``rescoring.Rescorer``), and the base's are known."""
        return all(member.base for member in self.members)

    @property
    def conditionings(self) -> list[str]:
        """Values of ``update.conditioning`` that the stored log-probs know all of, the run's own among them.

        Log-probs under the drawing context are always stored; those under the task alone where the run trained these.
        """
        own, drawn_by = self.config.update.conditioning, _DRAWN_BY.get(self.config.sampler.name)
        if not own.startswith("task") or drawn_by is None:
            return [own]
        return ["task", drawn_by, f"task+{drawn_by}"]

    @property
    def repeats(self) -> list[str]:
        """Rules for repeats that need no environment: the run's own, by what it credited, and the two that count by themselves."""
        return list(dict.fromkeys([self.config.update.repeats, "count", "zero"]))

    def advantages(self, update: UpdateConfig) -> list[float]:
        """One a member, under ``update.repeats`` and ``update.advantage``: ``training.credit`` on the stored verdicts."""
        found: list[float] = []
        for members in self._by_group():
            found += credit.advantages(self._rewards(members, update.repeats), update.advantage)
        return found

    def transfers(self, update: UpdateConfig) -> list[bool]:
        """Whether each member's advantage counts for the first of its likelihoods (``update.transfer``)."""
        found: list[bool] = []
        rule = update.transfer if "+" in update.conditioning else "always"
        for members in self._by_group():
            candidates = [Candidate((), sketches=member.sketches) for member in members]
            found += credit.transfers(candidates, [member.score for member in members], rule)
        return found

    def _by_group(self) -> list[list[Member]]:
        return [[member for member in self.members if member.group == group] for group in self.groups]

    def _rewards(self, members: Sequence[Member], repeats: str) -> list[float]:
        if repeats == self.config.update.repeats:
            return [member.credited for member in members]
        if repeats not in self.repeats:
            raise InputError(f"repeats = {repeats!r}: what the environment's own rule pays is not stored in this run, which"
                             f" has {self.config.update.repeats!r}; choose from {', '.join(self.repeats)}")  # fmt: skip
        return credit.credited([member.score for member in members], repeats)


def stored_steps(run: Run) -> list[int]:
    """The steps whose candidates are stored, ascending."""
    return sorted(run.read_rollouts(columns=["step"])["step"].unique().tolist())


def read(run: Run | str | Path, number: int | None = None) -> Step:
    """The candidates of step ``number`` of a run; None: of the last step that is stored.

    Raises:
        InputError: no run there, no such step (the message says which there are), or damaged rows.
    """
    run = run if isinstance(run, Run) else load(run)
    there = stored_steps(run)
    if not there:
        raise InputError(
            f"{run.path} has no stored rollouts yet; they are written with a checkpoint: let it train to the first"
        )
    number = there[-1] if number is None else number
    if isinstance(number, bool) or number not in there:
        raise InputError(f"step {number!r} is not among the stored rollouts of {run.path}; there are {_named(there)}")
    logged = run.steps.loc[run.steps["step"] == number, "loss"]
    frame = run.read_rollouts(columns=COLUMNS, steps=[number]).sort_values(["group", "index"], kind="stable")
    return Step(
        number,
        _members(frame, run.path),
        run.config_at(number),
        float(logged.iloc[-1]) if len(logged) else math.nan,
        run,
    )


def _named(steps: Sequence[int]) -> str:
    whole = steps[-1] - steps[0] == len(steps) - 1
    if len(steps) == 1 or (not whole and len(steps) <= 12):
        return f"step {', '.join(map(str, steps))}"
    return f"{len(steps)} steps, {steps[0]} to {steps[-1]}{'' if whole else ', not all between them'}"


def _members(frame: pd.DataFrame, path: Path) -> tuple[Member, ...]:
    seen: dict[int, set[str]] = {}
    members = []
    for row in frame.to_dict("records"):
        strategy, taken = (
            row["strategy"] if isinstance(row["strategy"], str) else None,
            seen.setdefault(row["group"], set()),
        )
        members.append(_member(row, strategy, strategy in taken, path))
        if strategy is not None:
            taken.add(strategy)
    return tuple(members)


def _member(row: dict[str, Any], strategy: str | None, repeat: bool, path: Path) -> Member:
    where = f"{path / 'rollouts'}, group {row['group']}, candidate {row['index']}"
    row = row | {
        "engine_logprobs": () if row["engine_logprobs"] is None else row["engine_logprobs"]
    }  # an older run's null
    if missing := [name for name in _LISTS if row[name] is None]:
        raise InputError(
            f"{where}: no {', '.join(missing)}; the run was made before these were kept, and without them a step cannot be weighed:"
            " choose a newer run"
        )
    values = {name: tuple(map(float, row[name])) for name in ("drawn_logprobs", "old_logprobs", "engine_logprobs")}
    values["engine_logprobs"] = values["engine_logprobs"] or values["drawn_logprobs"]
    for name, logprobs in values.items():
        if len(logprobs) != len(row["token_ids"]):
            raise InputError(f"{where}: {len(logprobs)} {name} for {len(row['token_ids'])} tokens; the row is damaged")
    for name, numbers in (values | {"reward": (row["reward"],), "credited": (row["credited"],)}).items():
        if not all(map(math.isfinite, numbers)):
            raise InputError(
                f"{where}: {name} is not finite, so it has no advantage and no weight; choose another step"
            )
    return Member(
        group=int(row["group"]),
        index=int(row["index"]),
        task=int(row["task"]),
        prompt=row["prompt"],
        history=tuple(row["history"]),
        sketch=row["sketch"] if isinstance(row["sketch"], str) else None,
        sketches=tuple(map(int, row["sketches"])),
        completion=row["completion"],
        tokens=tuple(map(int, row["token_ids"])),
        turns=tuple(map(int, row["turn_tokens"])),
        seed=None if pd.isna(row["episode_seed"]) else int(row["episode_seed"]),
        finish=row["finish"],
        drawn_under=row["drawn_under"],
        known_under=row["trained_under"].partition("+")[0],
        drawn=values["drawn_logprobs"],
        old=values["old_logprobs"],
        engine=values["engine_logprobs"],
        score=Score(float(row["reward"]), bool(row["success"]), strategy),
        credited=float(row["credited"]),
        repeat=repeat,
    )
