"""Which column of a log is what, and the one table that all logs become.

Known by their columns, without being told (checked against the projects' own code, November 2026):

- TRL 1.16, ``log_completions=True`` (``GRPOTrainer.log``): ``completions/completions_00001.parquet``, one file a logged step,
  written by pandas with ``step``, ``prompt``, ``completion``, one column a reward function, columns that reward functions log
  themselves, ``advantage``. Prompts and completions are texts or lists of messages. Which of several rewards is the verdict the
  file does not say: the first whose name tells of being right, else the first. What was generated for several optimiser
  steps is logged at each of them.
- verl (``RayPPOTrainer._dump_generations``; in its v1 trainer ``_write_generations``): ``rollout_data_dir/1.jsonl``, one file a
  step, with ``input``, ``output``, ``gts`` (not in older versions, nor in RAGEN's), ``score``, ``step``, and what the reward
  function returned beside; ``acc`` goes before ``score``, as in verl's own validation.
- RAGEN (``RayAgentTrainer._validate``) dumps through verl, with an ``input`` that is empty throughout: its samples have no
  groups unless a column names them. What ``ragen/eval.py`` saves is a pickle, which is not read.
- verifiers (``save_outputs``): ``results.jsonl``, one line a rollout with ``example_id``, ``prompt``, ``completion`` (messages),
  ``answer``, ``reward`` and more; beside it lies ``metadata.json``. Its own pass@k takes a reward from 0.5 on as right:
  ``threshold``.
- ours: what ``sesa-lab evaluate --out`` writes, and the rollouts of a run.

Anything else is read by the names that columns commonly have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from sesa_lab.errors import InputError, suggest
from sesa_lab.foreign.cells import is_nothing, key_of, number_of, numeric, text_of, verdict_of
from sesa_lab.foreign.files import Table, tables

NONE = "none"
"""Said instead of a column: there is none, and none is looked for."""
RIGHT = re.compile("accura|correct|exact|success|solved|pass", re.IGNORECASE)
MOST_NAMES = 40


@dataclass(frozen=True)
class Asked:
    """Columns that the user names; empty: found out, ``none``: not there.

    Attributes:
        text: of the completion.
        group: what was asked; within a step, samples of one group are compared.
        correct: verdict, or reward.
        strategy: what a completion did, where that is told.
        step: of training.
    """

    text: str = ""
    group: str = ""
    correct: str = ""
    strategy: str = ""
    step: str = ""


@dataclass(frozen=True)
class Layout:
    """One kind of log: the columns that tell it, and the candidates for each role, the first that is there wins."""

    name: str
    needs: frozenset[str]
    text: tuple[str, ...]
    group: tuple[str, ...]
    correct: tuple[str, ...]
    strategy: tuple[str, ...] = ()
    step: tuple[str, ...] = ()
    reward: tuple[str, ...] = ()


def _layout(
    name: str, needs: str, text: str, group: str, correct: str, strategy: str = "", step: str = "", reward: str = ""
) -> Layout:
    roles = (tuple(role.split()) for role in (text, group, correct, strategy, step, reward))
    return Layout(name, frozenset(needs.split()), *roles)


TRL = "TRL's completions"
LAYOUTS = (
    _layout("a run's rollouts", "step group index task completion drawn_under success", "completion", "group", "success",
            "strategy", "step", "reward"),
    _layout("sesa-lab evaluate's samples", "task sample completion logprob success strategy", "completion", "task",
            "success", "strategy", reward="reward"),
    _layout(TRL, "step prompt completion advantage", "completion", "prompt", "", "strategy", "step", "advantage"),
    _layout("verifiers' results", "example_id prompt completion reward", "completion", "example_id", "reward", "strategy"),
    _layout("verl's generations", "input output score step", "output", "input", "acc score", "strategy", "step", "score"),
    _layout(
        "an unknown log", "",
        "completion response output generation generated_text generated model_output prediction solution text",
        "prompt input question problem query instruction task task_id prompt_id problem_id question_id example_id group"
        " group_id uid",
        "is_correct correct success passed acc accuracy reward score", "strategy", "step global_step", "reward score",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Samples:
    """What was read.

    Attributes:
        frame: one row a sample: ``text`` (str), ``group`` (str, without lone surrogates), ``correct`` (1, 0, NaN = not
            judged), ``reward`` (a number), ``strategy`` (str or None), ``step`` (a number; NaN throughout where there is none).
        kind: of log, in words.
        columns: which column was taken for what; empty = none.
        reward: the column that tells whether the rewards of a group are all equal: what the trainer learned from where the log has
            it (of TRL's several rewards that is the advantage), else the verdict.
        threshold: a reward above it counts as right.
        files: how many were read.
        notes: what a reader of the numbers must know, one sentence each.
    """

    frame: pd.DataFrame
    kind: str
    columns: Asked
    reward: str
    threshold: float
    files: int
    notes: tuple[str, ...]

    @property
    def judged(self) -> str:
        """What counts as right, in words."""
        return f"{self.columns.correct} true or > {self.threshold:g}" if self.columns.correct else "not judged"


def load(places: Sequence[str], asked: Asked | None = None, threshold: float = 0.0) -> Samples:
    """Read samples.

    Args:
        places: files, globs, folders; see ``files.tables``.
        asked: columns by name, for what is not found out rightly.
        threshold: a reward above it counts as right.

    Raises:
        InputError: a file that cannot be read; a column that is not there, or cannot be found out; no samples.
    """
    found = tables(places)
    filled = [table for table in found if table.rows]
    notes = [note for table in found for note in table.notes]
    notes += [f"{table.where} is empty" for table in found if not table.rows and len(found) > 1]
    if not filled:
        raise InputError(f"no samples in {', '.join(map(str, places[:3]))}: expected one row or line a sample")
    layout, columns, remarks = choose(filled[0], asked or Asked())
    rewards = [name for name in layout.reward if name in filled[0].names and numeric(filled[0].read(name))]
    reward = next(iter(rewards), columns.correct)
    parts = [_part(table, columns, reward, threshold) for table in filled]
    frame = pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]
    frame, left_out = _complete(frame, columns)
    return Samples(frame, layout.name, columns, reward, threshold, len(found), (*notes, *remarks, *left_out))


def choose(table: Table, asked: Asked) -> tuple[Layout, Asked, list[str]]:
    """The kind of log, which of a table's columns is what, and remarks on the choice.

    Raises:
        InputError: a column that is not there, or none for text or group.
    """
    layout = next(layout for layout in LAYOUTS if layout.needs <= set(table.names))
    picked: dict[str, str] = {}
    remarks: list[str] = []
    for field in fields(Asked):
        name = getattr(asked, field.name)
        if name == NONE:
            name = ""
        elif name:
            _check(table, name, f"--{field.name} {name}")
        elif layout.name == TRL and field.name == "correct":
            name, remarks = _reward_of_trl(table.names, lambda column: numeric(table.read(column)))
        else:
            name = next((each for each in getattr(layout, field.name) if each in table.names), "")
        if not name and field.name in ("text", "group"):
            raise InputError(
                f"{table.where}: no column is known to hold the {field.name}; name it with --{field.name}. There"
                f" {'is' if len(table.names) == 1 else 'are'} {_names(table)}"
            )
        picked[field.name] = name
    return layout, Asked(**picked), remarks


def _reward_of_trl(names: Sequence[str], is_numeric: Callable[[str], bool]) -> tuple[str, list[str]]:
    apart = {"step", "prompt", "completion", "advantage", "image", "images", "strategy"}
    rewards = [name for name in names if name not in apart and not name.startswith("__index") and is_numeric(name)]
    if not rewards:
        return "", []
    chosen = next((name for name in rewards if RIGHT.search(name)), rewards[0])
    others = ", ".join(name for name in rewards if name != chosen)
    notes = [f"{chosen} is taken for the verdict; there are also numbers in {others} (--correct)"]
    return chosen, notes if others else []


def _check(table: Table, name: str, what: str) -> None:
    if name not in table.names:
        raise InputError(f"{what}: {table.where} has no such column; {suggest(name, list(table.names[:MOST_NAMES]))}")


def _names(table: Table) -> str:
    more = f" and {len(table.names) - MOST_NAMES} more" if len(table.names) > MOST_NAMES else ""
    return ", ".join(table.names[:MOST_NAMES]) + more


def _part(table: Table, columns: Asked, reward: str, threshold: float) -> pd.DataFrame:
    """One file's samples. Columns of objects throughout: pandas' own strings cannot hold lone surrogates."""
    for name in (columns.text, columns.group):
        _check(table, name, f"column {name!r}")
    texts = _read(table, columns.text)
    if all(isinstance(cell, list) and len(cell) > 1 and all(isinstance(x, str) for x in cell) for cell in texts):
        raise InputError(f"{table.where}: column {columns.text!r} holds lists of texts, expected one completion a row")

    def converted(name: str, convert: Callable[[Any, str], float]) -> list[float]:
        where = f"{table.where}, column {name!r}, row"
        return [convert(cell, f"{where} {row}") for row, cell in enumerate(_read(table, name), start=1)]

    return pd.DataFrame(
        {
            "text": pd.Series([text_of(cell) for cell in texts], dtype=object),
            "group": pd.Series([key_of(cell) for cell in _read(table, columns.group)], dtype=object),
            "correct": converted(columns.correct, lambda cell, where: verdict_of(cell, threshold, where)),
            "reward": converted(reward, number_of),
            "strategy": pd.Series([key_of(cell) or None for cell in _read(table, columns.strategy)], dtype=object),
            "step": converted(columns.step, number_of),
            "empty": [is_nothing(cell) for cell in texts],
        }
    )


def _read(table: Table, name: str) -> list[Any]:
    """A column's cells; nothing throughout where this file does not have it."""
    return table.read(name) if name in table.names else [None] * table.rows


def _complete(frame: pd.DataFrame, columns: Asked) -> tuple[pd.DataFrame, list[str]]:
    """The samples that have a group, and a step where others have one; and remarks on them."""
    notes = []
    known = np.isfinite(frame["step"])
    lost = frame["group"].isna() | (~known & known.any())
    if lost.any():
        notes.append(f"{int(lost.sum())} of {len(frame)} samples have no group or step, and are left out")
    kept = frame[~lost].reset_index(drop=True)
    if kept.empty:
        raise InputError(
            f"column {columns.group!r} is empty throughout, expected what was asked: name another with --group"
        )
    if kept["empty"].any():
        notes.append(f"{int(kept['empty'].sum())} samples have no text: it is taken as empty")
    if (kept["group"] == "").all():
        notes.append(
            f"column {columns.group!r} holds empty texts throughout: all samples of a step are one group (--group)"
        )
    sizes = kept.groupby(["step", "group"], dropna=False).size()
    if len(sizes) > 1 and sizes.max() == 1:
        notes.append("each group has one sample: what compares samples has no value; is --group the right column?")
    if columns.correct and kept["correct"].isna().any():
        notes.append(f"{int(kept['correct'].isna().sum())} samples are not judged: {columns.correct} is empty there")
    return kept.drop(columns="empty"), notes
