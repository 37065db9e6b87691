"""Which column of a log is what, and the one table that all logs become.

Known by their columns, without being told (checked against the projects' own code, November 2026):

- TRL 1.16, ``log_completions=True`` (``GRPOTrainer.log``): ``completions/completions_00001.parquet``, one file a logged step,
  written by pandas with ``step``, ``prompt``, ``completion``, one column a reward function, columns that reward functions log
  themselves, ``advantage``. Prompts and completions are texts or lists of messages. Which of several rewards is the verdict the
  files do not say: the first whose name tells of being right, else the first. What was generated for several optimiser
  steps is logged at each of them.
- verl (``RayPPOTrainer._dump_generations``; in its v1 trainer ``_write_generations``): ``rollout_data_dir/1.jsonl``, one file a
  step, with ``input``, ``output``, ``gts`` (not in older versions, nor in RAGEN's), ``score``, ``step``, and what the reward
  function returned beside; ``acc`` goes before ``score``, as in verl's own validation.
- RAGEN (``RayAgentTrainer._validate``) dumps through verl, with an ``input`` that is empty throughout: its samples have no
  groups unless a column names them. What ``ragen/eval.py`` saves is a pickle, which is not read.
- verifiers (``save_outputs``): ``results.jsonl``, one line a rollout with ``example_id``, ``prompt``, ``completion`` (messages),
  ``answer``, ``reward`` and more; beside it lies ``metadata.json``. Its own pass@k takes a reward from 0.5 on as right; here a
  reward is right strictly above ``threshold``, so that the same is had by one a little below: 0.4999.
- ours: what ``sesa-lab evaluate --out`` writes, and the rollouts of a run.

Anything else is read by the names that columns commonly have. Columns are chosen once for all files, from what any of them has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sesa_lab.errors import InputError, short, suggest
from sesa_lab.foreign.cells import is_nothing, key_of, messages_in, number_of, numeric, text_of, verdict_of
from sesa_lab.foreign.files import Table, clean, shown, tables

NONE = "none"
"""Said instead of a column: there is none, and none is looked for."""
RIGHT = re.compile(
    r"(?:(?<![A-Za-z])|(?<![Ii]n)(?<=[a-z])(?=[A-Z]))"  # a word's beginning, in snake_case or camelCase
    r"(?i:accura|correct(?!ion)|success|solved|(?:exact|pass|passed|passes)(?![a-z]))"
)
"""Of a reward that tells of being right: not ``incorrect``, ``inaccurate``, ``compass`` or ``passages``."""
NUMBERED = re.compile(r"task|group|(.*_)?(id|idx|index)", re.IGNORECASE)
"""Columns of groups whose values commonly begin anew in each file."""
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
    _layout("verifiers' results", "example_id prompt completion reward", "completion", "example_id", "reward", "strategy",
            reward="reward"),
    _layout("verl's generations", "input output score step", "output", "input", "acc score", "strategy", "step", "score"),
    _layout(
        "an unknown log", "",
        # No `solution`: data sets have their own there. `input` may be empty, `task` a kind of task: they come last.
        "completion response output generation generated_text generated model_output prediction text",
        "prompt question problem query prompt_id question_id problem_id task_id example_id group_id uid instruction group"
        " input task",
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
        paths: the files, or the run folder, that were read.
        notes: what a reader of the numbers must know, one sentence each.
    """

    frame: pd.DataFrame
    kind: str
    columns: Asked
    reward: str
    threshold: float
    paths: tuple[Path, ...]
    notes: tuple[str, ...]

    @property
    def files(self) -> int:
        """How many were read."""
        return len(self.paths)

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
        raise InputError(f"no samples in {shown(', '.join(places[:3]))}: expected one row or line a sample")
    layout, columns, remarks = choose(filled, asked or Asked())
    reward = next((name for name in layout.reward if _numeric(filled, name)), columns.correct)
    notes += [*remarks, *_lacking(filled, (columns.correct, reward, columns.strategy, columns.step))]
    parts = []
    for number, table in enumerate(filled):
        part, remarks = _part(table, columns, reward, threshold)
        parts.append(part.assign(file=number))
        notes += remarks
    frame, left_out = _complete(pd.concat(parts, ignore_index=True), columns)
    frame, moved = _by_file(frame, columns.group, [table.where for table in filled])
    notes += [*left_out, *moved, *_remarks(frame, columns)]
    if columns.correct and threshold == 0.0 and not (asked and asked.correct):
        notes += _partial(frame["value"], columns.correct)
    frame = frame.drop(columns=["empty", "value", "file"])
    return Samples(frame, layout.name, columns, reward, threshold, tuple(table.path for table in found), tuple(notes))


def choose(files: Sequence[Table], asked: Asked) -> tuple[Layout, Asked, list[str]]:
    """The kind of log, which column is what, and remarks on the choice; from the columns of all files, whatever their order.

    Raises:
        InputError: a column that is not there, or none for text or group.
    """
    names = tuple(dict.fromkeys(name for table in files for name in table.names))
    layout = next(layout for layout in LAYOUTS if layout.needs <= set(names))
    where = files[0].where if len(files) == 1 else f"{files[0].where} and {len(files) - 1} more"
    picked: dict[str, str] = {}
    remarks: list[str] = []
    for field in fields(Asked):
        name = getattr(asked, field.name)
        known = getattr(layout, field.name)
        meant = "" if name == NONE else _meant(names, known)
        if name == NONE:
            name = ""
        elif name:
            _check(names, name, f"--{field.name} {clean(name)}: {where}")
        elif layout.name == TRL and field.name == "correct":
            name, remarks = _reward_of_trl(names, lambda column: _numeric(files, column))
        else:
            name = next((each for each in known if each in names), "")
        if not name and field.name in ("text", "group"):
            raise InputError(
                f"{where}: no column is known to hold the {field.name}; name it with --{field.name}"
                f"{f' (did you mean {meant!r}?)' if meant else ''}. There {'is' if len(names) == 1 else 'are'} {_listed(names)}"
            )
        picked[field.name] = name
    return layout, Asked(**picked), remarks


def _numeric(files: Sequence[Table], name: str) -> bool:
    """Whether a column holds numbers, which the first file tells where it is not empty."""
    told = (numeric(table.read(name)) for table in files if name in table.names)
    return next((bool(each) for each in told if each is not None), False)


def _reward_of_trl(names: Sequence[str], is_numeric: Callable[[str], bool]) -> tuple[str, list[str]]:
    apart = {"step", "prompt", "completion", "advantage", "image", "images", "strategy"}
    rewards = [name for name in names if name not in apart and not name.startswith("__index") and is_numeric(name)]
    if not rewards:
        return "", []
    chosen = next((name for name in rewards if RIGHT.search(name)), rewards[0])
    others = ", ".join(name for name in rewards if name != chosen)
    notes = [f"{chosen} is taken for the verdict; there are also numbers in {others} (--correct)"]
    return chosen, notes if others else []


def _meant(names: Sequence[str], known: Sequence[str]) -> str:
    """A name that is a known one but for capitals, underscores and a plural."""

    def bare(name: str) -> str:
        return re.sub("[^a-z]", "", name.lower()).removesuffix("s")

    return next((name for name in names if bare(name) in map(bare, known)), "")


def _check(names: Sequence[str], name: str, where: str) -> None:
    if name not in names:
        raise InputError(f"{where} has no such column; {suggest(name, list(names[:MOST_NAMES]))}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")


def _lacking(files: Sequence[Table], chosen: Sequence[str]) -> list[str]:
    """Which files lack a column that others have; it is empty for them."""
    notes = []
    for name in filter(None, dict.fromkeys(chosen)):
        lack = [table.where for table in files if name not in table.names]
        if lack:
            more = f" and {len(lack) - 1} more of {len(files)} files" if len(lack) > 1 else ""
            notes.append(f"{lack[0]}{more} lack{'' if more else 's'} the column {name!r}: it is taken as empty there")
    return notes


def _part(table: Table, columns: Asked, reward: str, threshold: float) -> tuple[pd.DataFrame, list[str]]:
    """One file's samples, and remarks on them. Columns of objects: pandas' own strings cannot hold lone surrogates."""
    for name in (columns.text, columns.group):
        _check(table.names, name, f"column {name!r}: {table.where}")
    roles = (columns.text, columns.group, columns.correct, reward, columns.strategy, columns.step)
    names = [name for name in dict.fromkeys(roles) if name in table.names]
    cells = dict(zip(names, table.columns(names), strict=True))
    nothing = [None] * len(cells[columns.text])
    texts, notes = _texts(table, columns.text, cells[columns.text])
    same: dict[str | None, str | None] = {}  # one text for all samples of a prompt

    def keys(name: str) -> list[str | None]:
        return [same.setdefault(key, key) for key in map(key_of, cells.get(name, nothing))]

    def converted(name: str, convert: Callable[[Any, str], float]) -> list[float]:
        where = f"{table.where}, column {name!r}, row"
        return [convert(cell, f"{where} {row}") for row, cell in enumerate(cells.get(name, nothing), start=1)]

    frame = pd.DataFrame(
        {
            "text": pd.Series([text_of(cell) for cell in texts], dtype=object),
            "group": pd.Series(keys(columns.group), dtype=object),
            "correct": converted(columns.correct, lambda cell, where: verdict_of(cell, threshold, where)),
            "reward": converted(reward, number_of),
            "strategy": pd.Series([key or None for key in keys(columns.strategy)], dtype=object),
            "step": converted(columns.step, number_of),
            "empty": [is_nothing(cell) for cell in texts],
            "value": converted(columns.correct, number_of),
        }
    )
    return frame, notes


def _texts(table: Table, name: str, cells: list[Any]) -> tuple[list[Any], list[str]]:
    """Completions, each one text or the messages of one chat, which CSV holds as JSON."""
    for row, cell in enumerate(cells, start=1):
        if isinstance(cell, list) and sum(isinstance(each, str) for each in cell) > 1:
            raise InputError(
                f"{table.where}, column {name!r}, row {row} holds {len(cell)} texts, expected one completion a row: {short(cell)}"
            )
    if not table.flat:
        return cells, []
    read = [messages_in(cell) or cell for cell in cells]
    notes = []
    if any(isinstance(cell, list) for cell in read):
        notes.append(f"{table.where}: {name} holds chat messages as JSON; what the assistant says is taken")
    if any(isinstance(cell, str) and re.match(r"\s*\[\s*\{'", cell) for cell in read):
        notes.append(f"{table.where}: {name} holds lists as Python prints them, measured letter by letter: write JSON")
    return read, notes


def _complete(frame: pd.DataFrame, columns: Asked) -> tuple[pd.DataFrame, list[str]]:
    """The samples that have a group, and a step where others have one."""
    known = np.isfinite(frame["step"])
    lost = frame["group"].isna() | (~known & known.any())
    if frame["group"].isna().all():
        raise InputError(
            f"column {columns.group!r} is empty throughout, expected what was asked: name another with --group"
        )
    if lost.all():
        raise InputError(
            f"no sample has both a group (column {columns.group!r}) and a step (column {columns.step!r}): name others with"
            " --group or --step, or leave steps out by --step none"
        )
    notes = [f"{int(lost.sum())} of {len(frame)} samples have no group or step, and are left out"] if lost.any() else []
    return frame[~lost].reset_index(drop=True), notes


def _by_file(frame: pd.DataFrame, name: str, wheres: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Groups of several files: one prompt is one group; numbers begin anew in each file, and groups are kept apart."""
    files = frame.groupby(["step", "group"], dropna=False)["file"].nunique()
    shared = int((files > 1).sum())
    if not shared:
        return frame, []
    if not NUMBERED.fullmatch(name) and not frame["group"].str.fullmatch(r"[0-9]+").all():
        return frame, [
            f"{shared} groups are in several files and are taken as one: {name} says the same; measure files one by one"
            " to keep them apart"
        ]
    apart = [f"{group} in {wheres[file]}" for group, file in zip(frame["group"], frame["file"], strict=True)]
    return frame.assign(group=pd.Series(apart, dtype=object)), [
        f"{shared} values of {name} are in several files and are kept apart by file: they seem to be numbered anew in each;"
        " join the files if they are one log"
    ]


def _remarks(frame: pd.DataFrame, columns: Asked) -> list[str]:
    """What a reader of the numbers must know."""
    notes = []
    if frame["empty"].any():
        notes.append(f"{int(frame['empty'].sum())} samples have no text: it is taken as empty")
    unasked = int((frame["group"] == "").sum())
    if unasked:
        how_many = "throughout" if unasked == len(frame) else f"in {unasked} of {len(frame)} samples"
        notes.append(f"column {columns.group!r} holds empty texts {how_many}: those of a step are one group (--group)")
    sizes = frame.groupby(["step", "group"], dropna=False).size()
    if len(sizes) > 1 and sizes.max() == 1:
        notes.append("each group has one sample: what compares samples has no value; is --group the right column?")
    if columns.correct and frame["correct"].isna().any():
        notes.append(f"{int(frame['correct'].isna().sum())} samples are not judged: {columns.correct} is empty there")
    return notes


def _partial(values: pd.Series, name: str) -> list[str]:
    """Said where a reward is more than a verdict (0 or 1, -1 or 1), and nobody said from where on it is right."""
    odd = sorted(set(values.dropna()) - {-1.0, 0.0, 1.0})
    few = ", ".join(f"{value:g}" for value in dict.fromkeys([*odd[:1], *odd[-1:]]))
    return [f"{name} has values such as {few}; all above 0 count as right (--threshold)"] if odd else []
