"""One group of a large run at a time: a light index of what there is, and the rows of the group that is asked for.

The index holds a row a group, made of five narrow columns. A group's rows are contiguous in the one part that was committed
with its step, or with the next commit after it: of that part's row groups only those whose statistics admit the group are
opened, and of these only the batches with the group in them are decoded. So what a group costs depends neither on the
length of the run nor on the number of its parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sesa_lab.errors import InputError
from sesa_lab.runs import layout, schema
from sesa_lab.runs.files import reading
from sesa_lab.runs.load import Run

BATCH = 64
"""Rows decoded at once: of candidates of thousands of tokens a whole row group would take hundreds of megabytes."""
_INDEXED = ["step", "group", "task", "success", "reward"]


def nothing_yet(run: Run, what: str = "candidates") -> InputError:
    """Of a run that has committed none of what was wanted: the error that says so, to be raised."""
    return InputError(
        f"{run.path} has no committed {what} yet; they come with its first checkpoint"
        f" (run.checkpoint_every = {run.config.run.checkpoint_every})"
    )


class Groups:
    """Where the groups of a run lie. Reads only; holds as much as was committed when the run was loaded.

    Attributes:
        run: the run.
        table: one row a group, by step and group: ``step``, ``group``, ``task``, ``candidates``, ``solved`` (how many
            succeeded), ``reward`` (mean; NaN where all are undefined).
        steps: the steps that have groups, ascending.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        frame = run.read_rollouts(_INDEXED)
        grouped = frame.groupby(["step", "group"], sort=True)
        self.table: pd.DataFrame = grouped.agg(
            task=("task", "first"), candidates=("task", "size"), solved=("success", "sum"), reward=("reward", "mean")
        ).reset_index()
        self.steps: list[int] = [int(step) for step in self.table["step"].unique()]

    def at(self, step: int) -> pd.DataFrame:
        """The rows of ``table`` of one step; none where the step has no group."""
        low, high = np.searchsorted(self.table["step"].to_numpy(), [step, step + 1])
        return self.table.iloc[low:high]

    def group_of(self, step: int, task: int) -> int | None:
        """The first group of ``step`` whose task is ``task``; None where there is none."""
        there = self.at(step)
        found = there.loc[there["task"] == task, "group"]
        return int(found.iloc[0]) if len(found) else None

    def rollouts(self, step: int, group: int) -> pa.Table:
        """The candidates of one group, all columns of ``schema.ROLLOUTS``, in the order drawn.

        Raises:
            InputError: the run has no such group.
        """
        there = self.at(step)
        if group not in set(there["group"]):
            known = f"its groups are {there['group'].tolist()}" if len(there) else f"its steps are {told(self.steps)}"
            raise InputError(f"{self.run.path} has no group {group} at step {step}: {known}; choose one of these")
        return self._rows("rollouts", step, group)

    def sketches(self, step: int, group: int) -> pa.Table:
        """The sketches of one group, all columns of ``schema.SKETCHES``, in the order drafted; none where it has none."""
        return self._rows("sketches", step, group)

    def _rows(self, kind: str, step: int, group: int) -> pa.Table:
        wanted = pa.schema([field.with_nullable(True) for field in schema.SCHEMAS[kind]])  # an older run lacks columns
        file = self._part(kind, step)
        if file is None:
            return wanted.empty_table()
        with reading(file), pq.ParquetFile(file) as part:
            found = pa.Table.from_batches(list(_batches(part, wanted, step, group)), schema=wanted)
        return found.sort_by("index")

    def _part(self, kind: str, step: int) -> Path | None:
        """The part that has the rows of ``step``: the first that was committed with that step or a later one."""
        last = self.run.checkpoints[-1][0] if self.run.checkpoints else -1
        parts = layout.parts(self.run.path, kind)
        return next((path for committed, path in parts if step <= committed <= last), None)


def told(values: list[int]) -> str:
    """``'1, 2, 3'``, or ``'1 .. 900 (450 of them)'`` where they are many; ``'none'`` where there is none."""
    if len(values) <= 12:
        return ", ".join(map(str, values)) or "none"
    return f"{values[0]} .. {values[-1]} ({len(values)} of them)"


def row_groups(part: pq.ParquetFile, step: int, group: int) -> list[int]:
    """Numbers of the row groups that may have rows of this step and group, by their statistics."""
    metadata, names = part.metadata, part.schema.names  # of the leaves, as statistics are numbered
    places = (names.index("step"), step), (names.index("group"), group)

    def may(number: int) -> bool:
        for column, value in places:
            statistics = metadata.row_group(number).column(column).statistics
            if statistics is not None and statistics.has_min_max and not statistics.min <= value <= statistics.max:
                return False
        return True

    return [number for number in range(metadata.num_row_groups) if may(number)]


def _batches(part: pq.ParquetFile, wanted: pa.Schema, step: int, group: int) -> Iterator[pa.RecordBatch]:
    """The rows of the group, typed as ``wanted``; columns that an older run lacks are null."""
    columns = [name for name in wanted.names if name in part.schema_arrow.names]
    for number in row_groups(part, step, group):
        keys = part.read_row_group(number, columns=["step", "group"])
        there = np.flatnonzero((keys["step"].to_numpy() == step) & (keys["group"].to_numpy() == group))
        if not len(there):
            continue
        start = 0
        for batch in part.iter_batches(BATCH, row_groups=[number], columns=columns):
            inside = there[(there >= start) & (there < start + batch.num_rows)] - start
            if len(inside):
                yield _typed(batch.take(pa.array(inside)), wanted)
            start += batch.num_rows
            if start > there[-1]:
                break


def _typed(batch: pa.RecordBatch, wanted: pa.Schema) -> pa.RecordBatch:
    arrays = [
        batch.column(field.name).cast(field.type)
        if field.name in batch.schema.names
        else pa.nulls(batch.num_rows, field.type)
        for field in wanted
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=wanted)
