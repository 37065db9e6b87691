"""Writes a run folder so that a run killed at any moment resumes from its last commit and ends bit for bit the same.

The order within a commit: metrics to disk, parquet parts, then the checkpoint by one atomic rename. The checkpoint
records how long metrics.jsonl was; on resume everything beyond is cut away and made again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sesa_lab.config import Config
from sesa_lab.errors import InputError, writing
from sesa_lab.runs import checkpoint, environment, layout, schema
from sesa_lab.runs.files import sync, write_atomic, write_json
from sesa_lab.runs.lineage import Lineage

ROW_GROUP = 2048
"""Rows a parquet row group: a reader of one step reads no more than this beside it."""

# What a killed ``create`` can leave: such a folder counts as empty.
_FIRST = (layout.ENVIRONMENT, layout.PROMPTS, layout.LINEAGE, layout.CONFIG)
UNBORN = {layout.LOCK, *_FIRST[:-1], *(layout.TEMPORARY + name for name in _FIRST)}


class RunWriter:
    """The one writer of a run folder. Use as a context manager, or ``close()`` it.

    Attributes:
        path: the run folder.
        config: of the run.
        step: the last committed step; 0 where nothing is committed.
        checkpoint: folder of the last committed checkpoint; None where nothing is committed.
    """

    def __init__(self, path: Path, config: Config, lock: int, committed: tuple[Path, checkpoint.State] | None) -> None:
        """For ``create`` and ``resume``, which hold the lock and have written or checked the folder."""
        self.path = path
        self.config = config
        self.checkpoint: Path | None = committed[0] if committed else None
        self.step = committed[1].step if committed else 0
        self._highest = -1  # of the steps logged or added since the last commit
        self._buffers: dict[str, list[pa.RecordBatch]] = {kind: [] for kind in schema.SCHEMAS}
        self._lock: int | None = lock
        for folder in (*schema.SCHEMAS, layout.CHECKPOINTS):
            (path / folder).mkdir(exist_ok=True)
        self._metrics = os.open(path / layout.METRICS, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        sync(path)

    @classmethod
    def create(
        cls,
        path: str | Path,
        config: Config,
        prompts: Mapping[str, str] | None = None,
        lineage: Lineage | None = None,
    ) -> RunWriter:
        """Makes the run folder ``path`` with config.json, environment.json and prompts.json, and locks it.

        Args:
            path: must be new or empty.
            config: of the run.
            prompts: file name -> text of the templates that it uses; None: nobody is asked, and prompts.json is not written.
            lineage: the other run's checkpoint that it begins at; None: it begins by itself.

        Raises:
            InputError: the folder exists and is not empty, another process is at it, or it cannot be written.
        """
        path = Path(path)
        facts = environment.facts(config.run.seed)  # before the lock: it starts processes, which must not inherit it
        with writing(path, "choose another --out, or mend the folder's permissions or space"):
            path.mkdir(parents=True, exist_ok=True)
            _check_empty(path)
            with _locked(path) as lock:
                _check_empty(path)
                write_json(path / layout.ENVIRONMENT, facts)
                if prompts is not None:
                    write_json(path / layout.PROMPTS, dict(prompts))
                if lineage is not None:
                    write_json(path / layout.LINEAGE, lineage.to_dict())
                write_json(path / layout.CONFIG, config.to_dict())  # last: it makes the folder a run folder
                return cls(path, config, lock, None)

    @classmethod
    def resume(cls, path: str | Path) -> RunWriter:
        """Opens an existing run at its newest checkpoint, locks it and cuts away everything beyond.

        Raises:
            InputError: no run folder; another process writes it; config.json, the newest checkpoint or metrics.jsonl
                is damaged (the message names the file and the fix); the folder cannot be written.
        """
        path = Path(path)
        layout.check_run(path)
        config = layout.read_config(path)
        facts = environment.facts(config.run.seed)
        with writing(path, "mend the folder's permissions or space, then resume again"), _locked(path) as lock:
            committed = checkpoint.newest(path)
            before = layout.read_environment(path)
            _cut(path, committed)
            now = environment.resumed(before, facts, committed[1].step if committed else 0)
            write_json(path / layout.ENVIRONMENT, now)
            return cls(path, config, lock, committed)

    def log(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Appends one line to metrics.jsonl, at once visible to readers.

        Args:
            kind: ``step``, ``evaluation``, ``test`` or ``alarm``.
            step: beyond the last committed step.
            values: numbers, also numpy scalars and 0-d tensors; NaN and infinities become null.
        """
        if kind not in schema.METRICS or values.keys() & {"kind", "step"}:
            expected = f"expected one of {list(schema.METRICS)} and neither 'kind' nor 'step' among the keys"
            raise ValueError(f"log of kind {kind!r} with keys {sorted(values)}: {expected}")
        self._note(step, step)
        plain = {"kind": kind, "step": int(step)} | {key: _plain(value) for key, value in values.items()}
        line = json.dumps(plain, allow_nan=False).encode() + b"\n"
        with writing(self.path / layout.METRICS, self._remedy()):
            size = os.fstat(self._metrics).st_size
            try:
                if os.write(self._metrics, line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:  # never leave half a line that the next one would be glued to
                with contextlib.suppress(OSError):
                    os.ftruncate(self._metrics, size)
                raise

    def add_rollouts(self, rows: list[dict[str, Any]]) -> None:
        """Keeps candidates, one dict of all columns of ``schema.ROLLOUTS`` each, until the next commit."""
        self._add("rollouts", rows)

    def add_sketches(self, rows: list[dict[str, Any]]) -> None:
        """Keeps sketches, one dict of all columns of ``schema.SKETCHES`` each, until the next commit."""
        self._add("sketches", rows)

    def add_evaluation(self, rows: list[dict[str, Any]]) -> None:
        """Keeps answers, one dict of all columns of ``schema.EVALUATIONS`` each, until the next commit."""
        self._add("evaluations", rows)

    def commit(self, step: int, save: Callable[[Path], None], *, keep_checkpoints: int | None = None) -> Path:
        """Makes everything up to ``step`` permanent and returns the checkpoint folder.

        Args:
            step: the last finished step; beyond the last committed one (0 is allowed first).
            save: puts the adapter's and the optimiser's files into the folder it is given.
            keep_checkpoints: how many checkpoints stay, the new one included; None: all.

        Raises:
            ValueError: a step that is committed already, or below one that was logged.
            InputError: the folder cannot be written. What was committed before stays, and so do the buffers.
        """
        folder = checkpoint.folder(self.path, step)
        if keep_checkpoints is not None and keep_checkpoints < 1:
            raise ValueError(f"keep_checkpoints = {keep_checkpoints}: expected None or >= 1")
        if step < self._highest or folder.exists():
            raise ValueError(f"commit of step {step}: it exists, or a later step ({self._highest}) was logged already")
        self._note(step, step)
        with writing(self.path, self._remedy()):
            try:
                os.fsync(self._metrics)
                parts = [self._write_part(kind, step, batches) for kind, batches in self._buffers.items() if batches]
                checkpoint.write(self.path, step, save, os.fstat(self._metrics).st_size, parts)
            finally:  # the rename decides, also where an interrupt came right after it
                self._settle(step, folder)
            if keep_checkpoints is not None:
                checkpoint.prune(self.path, keep_checkpoints)
        return folder

    def close(self) -> None:
        """Releases the lock. What was not committed is cut away on resume."""
        if self._lock is not None:
            os.close(self._metrics)
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _note(self, first: int, last: int) -> None:
        if self._lock is None:
            raise ValueError(f"the writer of {self.path} is closed")
        if first < 0 or (self.checkpoint is not None and first <= self.step):
            raise ValueError(f"step {first}: expected one beyond the last committed step, {self.step}")
        self._highest = max(self._highest, last)

    def _add(self, kind: str, rows: list[dict[str, Any]]) -> None:
        if rows:
            batch = schema.batch(kind, rows)  # typed now: a wrong row fails where it is made, and arrays are smaller
            steps = batch.column("step").to_pylist()
            self._note(min(steps), max(steps))
            self._buffers[kind].append(batch)

    def _write_part(self, kind: str, step: int, batches: list[pa.RecordBatch]) -> Path:
        path = layout.part(self.path, kind, step)
        table = pa.Table.from_batches(batches, schema=schema.SCHEMAS[kind])
        write_atomic(path, lambda file: pq.write_table(table, file, compression="zstd", row_group_size=ROW_GROUP))
        return path

    def _settle(self, step: int, folder: Path) -> None:
        if folder.exists():
            self.step, self.checkpoint, self._highest = step, folder, -1
            self._buffers = {kind: [] for kind in schema.SCHEMAS}
            return
        for kind in schema.SCHEMAS:  # a later commit writes these rows again under its own name
            with contextlib.suppress(OSError):
                layout.part(self.path, kind, step).unlink(missing_ok=True)

    def _remedy(self) -> str:
        where = "nothing is committed yet" if self.checkpoint is None else f"the run is intact up to step {self.step}"
        return f"{where}: mend space or permissions, then `sesa-lab resume {self.path}`"


class NotEmptyError(InputError):
    """A run was to begin in a folder that holds something, perhaps a run that another process began meanwhile."""


class LockedError(InputError):
    """Another process is writing the run folder."""


def _check_empty(path: Path) -> None:
    if set(os.listdir(path)) - UNBORN:
        raise NotEmptyError(
            f"{path} exists and is not empty; continue its run with `sesa-lab resume {path}`, or choose another --out"
        )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Holds the run's lock; the kernel releases it when the process dies. Closed only where the body fails."""
    handle = os.open(path / layout.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
            raise LockedError(
                f"another process (pid {holder}) is writing {path}; wait for it or end it, or choose another --out"
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield handle
    except BaseException:
        os.close(handle)
        raise


def in_use(path: str | Path) -> bool:
    """Whether a process is writing the run folder ``path``, on this machine or where file locks are shared.

    Its lock is tried for a moment: a run that is begun right then may be told that another process is at it.
    """
    try:
        handle = os.open(Path(path) / layout.LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _cut(path: Path, committed: tuple[Path, checkpoint.State] | None) -> None:
    """Deletes what lies beyond the last commit: metrics lines, parts, half-written files."""
    step = committed[1].step if committed else -1
    length = committed[1].metrics_bytes if committed else 0
    metrics = path / layout.METRICS
    _check_metrics(metrics, length, committed)
    for folder in (path, *(path / name for name in (*schema.SCHEMAS, layout.CHECKPOINTS))):
        for leftover in folder.glob(layout.TEMPORARY + "*"):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()
    for kind in schema.SCHEMAS:
        for part_step, part in layout.parts(path, kind):
            if part_step > step:
                part.unlink()
    if metrics.exists():
        os.truncate(metrics, length)
        sync(metrics)


def _check_metrics(metrics: Path, length: int, committed: tuple[Path, checkpoint.State] | None) -> None:
    if not length or committed is None:
        return
    remedy = f"restore it from a copy, or delete the folder {committed[0]} to resume from the checkpoint before it"
    size = metrics.stat().st_size if metrics.exists() else 0
    if size < length:
        raise InputError(f"{metrics} has {size} bytes, but had {length} when {committed[0]} was written; {remedy}")
    with open(metrics, "rb") as file:
        file.seek(length - 1)
        if file.read(1) != b"\n":
            raise InputError(f"{metrics} was changed: no line ends where {committed[0]} was written; {remedy}")


def _plain(value: Any) -> Any:
    """JSON-able; None for NaN and infinities."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):  # numpy.float64 is one
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):  # numpy scalars, 0-d arrays and tensors
        return _plain(value.item())
    raise TypeError(f"metric value {value!r} of type {type(value).__name__}: expected a number")
