"""Reads run folders, also while they are written. Never changes one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from sesa_lab.config import Config
from sesa_lab.errors import InputError, suggest
from sesa_lab.runs import environment, layout, lineage, schema
from sesa_lab.runs.files import reading
from sesa_lab.runs.lineage import Lineage


@dataclass(frozen=True, eq=False)
class Run:
    """A run as it was when it was loaded; load again to see a running one grow.

    ``steps`` and ``evaluations`` hold every complete line of metrics.jsonl, also those after the last checkpoint.
    Rollouts and answers are written with a checkpoint and are read when asked for.

    Attributes:
        path: the run folder.
        config: of the run.
        environment: machine, versions, commit; see ``runs/environment.py``.
        steps: one row a training step, columns as in CONTRIBUTING.md (NaN where undefined or not logged).
        evaluations: one row an evaluation, likewise.
        tests: one row an evaluation on the test split (kind ``test``), likewise.
        alarms: one row a collapse that was noticed while training (kind ``alarm``), likewise.
        checkpoints: ``(step, folder)``, oldest first.
    """

    path: Path
    config: Config = field(repr=False)
    environment: dict[str, Any] = field(repr=False)
    steps: pd.DataFrame = field(repr=False)
    evaluations: pd.DataFrame = field(repr=False)
    tests: pd.DataFrame = field(repr=False)
    alarms: pd.DataFrame = field(repr=False)
    checkpoints: list[tuple[int, Path]] = field(repr=False)

    @property
    def label(self) -> str:
        """Folder name, seed and commit (``+`` where the checkout had changes), e.g. ``lab-0 seed 0 @3f16249+``."""
        made = f" @{environment.short_commit(self.commit)}" if self.commit else ""
        return f"{self.path.resolve().name} seed {self.config.run.seed}{made}"

    def source(self, config: str) -> dict[str, Any]:
        """What a figure's caption says of it, as ``plots.provenance`` takes it; ``config`` is a short name of the settings."""
        return {
            "run": self.path.resolve().name,
            "commit": self.commit,
            "config": config,
            "seed": self.config.run.seed,
        }

    @property
    def commit(self) -> str | None:
        """Of the code that made it, with ``+`` where the checkout had changes; None: not known."""
        return environment.commit_of(self.environment)

    @property
    def exact(self) -> bool:
        """Whether its evaluations are of all answers there are; that measure alone they have then."""
        return bool(self.evaluations["kl_uniform"].notna().any())

    @property
    def switched_after(self) -> int | None:
        """The step whose alarm changed the settings (``watch.switch``): the next one had others. None: they never changed."""
        acted = self.alarms.loc[self.alarms["action"] == "switch", "step"]
        return int(acted.iloc[0]) if len(acted) else None

    def config_at(self, step: int) -> Config:
        """The settings that ``step`` was, or is to be, taken with."""
        last = self.switched_after
        return self.config if last is None or step <= last else self.config.switched()

    @property
    def finished(self) -> bool:
        """Whether the last checkpoint is of the last step."""
        return bool(self.checkpoints) and self.checkpoints[-1][0] == self.config.run.steps

    @cached_property
    def prompts(self) -> dict[str, str] | None:
        """File name -> text of the prompt templates that the run uses; None: it was made before these were recorded."""
        return layout.read_prompts(self.path)

    @cached_property
    def lineage(self) -> Lineage | None:
        """The checkpoint of another run that this one began at; None: it began by itself."""
        return lineage.read(self.path)

    @cached_property
    def rollouts(self) -> pd.DataFrame:
        """All committed candidates in the order drawn, read once. For a large run use ``read_rollouts``."""
        return self.read_rollouts()

    @cached_property
    def answers(self) -> pd.DataFrame:
        """All committed answers of the evaluations, read once."""
        return self.read_answers()

    def read_rollouts(self, columns: list[str] | None = None, steps: Iterable[int] | None = None) -> pd.DataFrame:
        """The named columns of the candidates of the given steps; only these are read from disk. None: all."""
        return self._read("rollouts", columns, steps)

    def read_sketches(self, columns: list[str] | None = None, steps: Iterable[int] | None = None) -> pd.DataFrame:
        """The named columns of the sketches of the given steps; only these are read. None: all."""
        return self._read("sketches", columns, steps)

    def read_answers(self, columns: list[str] | None = None, steps: Iterable[int] | None = None) -> pd.DataFrame:
        """The named columns of the evaluated answers of the given steps; only these are read. None: all."""
        return self._read("evaluations", columns, steps)

    def page_rollouts(
        self, columns: list[str] | None = None, steps: Iterable[int] | None = None, rows: int = 8192
    ) -> Iterator[pd.DataFrame]:
        """Like ``read_rollouts``, in tables of at most ``rows`` candidates: a large run is never in memory whole."""
        scanned = self._scan("rollouts", columns, steps, rows)
        if isinstance(scanned, ds.Scanner):
            with reading(self.path / "rollouts"):
                for batch in scanned.to_batches():
                    if batch.num_rows:
                        yield batch.to_pandas()

    def _read(self, kind: str, columns: list[str] | None, steps: Iterable[int] | None) -> pd.DataFrame:
        scanned = self._scan(kind, columns, steps, 131_072)
        with reading(self.path / kind):
            table = scanned.to_table() if isinstance(scanned, ds.Scanner) else scanned
            frame: pd.DataFrame = table.to_pandas()
        return frame

    def _scan(
        self, kind: str, columns: list[str] | None, steps: Iterable[int] | None, rows: int
    ) -> ds.Scanner | pa.Table:
        """A scanner of the committed parts; an empty table where there is none."""
        wanted = schema.SCHEMAS[kind]
        for name in columns or []:
            if name not in wanted.names:
                raise InputError(f"{self.path / kind} has no column {name!r}; {suggest(name, wanted.names)}")
        last = self.checkpoints[-1][0] if self.checkpoints else -1
        files = [str(part) for step, part in layout.parts(self.path, kind) if step <= last]
        if not files:
            return wanted.empty_table().select(wanted.names if columns is None else columns)
        with reading(self.path / kind):
            dataset = ds.dataset(files, schema=wanted, format="parquet")
            return dataset.scanner(columns=columns, filter=_filter(steps), batch_size=rows)


def load(path: str | Path) -> Run:
    """The run in the folder ``path``, finished or not. Reads only.

    Raises:
        InputError: no run folder, or a damaged file; the message names it. A torn last line of metrics.jsonl is no
            damage: the run is being written or was killed.
    """
    path = Path(path)
    layout.check_run(path)
    checkpoints = layout.checkpoints(path)  # before the metrics: what is committed then is in them
    metrics = _read_metrics(path / layout.METRICS)
    return Run(
        path=path,
        config=layout.read_config(path),
        environment=layout.read_environment(path),
        steps=_frame("step", metrics),
        evaluations=_frame("evaluation", metrics),
        tests=_frame("test", metrics),
        alarms=_frame("alarm", metrics),
        checkpoints=checkpoints,
    )


def find(path: str | Path) -> list[Path]:
    """Run folders at or below ``path``, sorted. Hidden folders and what lies inside a run are not searched.

    Raises:
        InputError: ``path`` is no folder.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"no folder at {path}; expected one that holds run folders")
    found = []
    for folder, names, _ in os.walk(path):
        if layout.is_run(Path(folder)):
            found.append(Path(folder))
            names.clear()
        names[:] = [name for name in names if not name.startswith(".")]
    return sorted(found)


def table(runs: Iterable[Run | str | Path], kind: str = "evaluation") -> pd.DataFrame:
    """The evaluations (``kind="step"``: the training steps; ``"test"``; ``"alarm"``) of many runs in one tidy table.

    Columns: ``run`` (folder), ``label``, one a setting, then those of ``Run.evaluations``. A setting's column has the
    field's name (``repeats``, ``conditioning``, ``correction``, ``seed`` ...), or its section's where that is ``name``
    (``environment``, ``sampler``), or both where a metric has the name (``update_loss``, ``sampler_redraws``).
    """
    if kind not in schema.METRICS:
        raise InputError(f"table of kind {kind!r}; {suggest(kind, list(schema.METRICS))}")
    frames = []
    for item in runs:
        run = item if isinstance(item, Run) else load(item)
        frame = {"evaluation": run.evaluations, "test": run.tests, "step": run.steps, "alarm": run.alarms}[kind]
        settings = {"run": str(run.path), "label": run.label, **_settings(run.config)}
        left = pd.DataFrame({name: [value] * len(frame) for name, value in settings.items()}, index=frame.index)
        frames.append(pd.concat([left, frame], axis=1))
    filled = [frame for frame in frames if len(frame)]
    if filled:
        return pd.concat(filled, ignore_index=True)
    return frames[0] if frames else pd.DataFrame(columns=["run", "label", *_settings(Config()), *schema.METRICS[kind]])


def _filter(steps: Iterable[int] | None) -> ds.Expression | None:
    if steps is None:
        return None
    wanted = sorted(set(steps))
    column = ds.field("step")
    expression = column.isin(pa.array(wanted, pa.int64()))
    if wanted:  # bounds let Arrow skip whole row groups by their statistics
        expression = (column >= wanted[0]) & (column <= wanted[-1]) & expression
    return expression


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; mend its permissions") from error
    rows = []
    # What follows the last newline is a line still being written.
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
            if not isinstance(row["kind"], str) or not isinstance(row["step"], int):
                raise ValueError("kind or step is of another type")
            rows.append(row)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} line {number} is damaged: {line[:60]!r}; expected one JSON object with kind and step;"
                " restore the file from a copy"
            ) from error
    return rows


def _frame(kind: str, metrics: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows of ``kind``: all documented columns first, NaN for null and for what is not there."""
    frame = pd.DataFrame([{k: v for k, v in row.items() if k != "kind"} for row in metrics if row["kind"] == kind])
    known = list(schema.METRICS[kind])
    frame = frame.reindex(columns=known + [name for name in frame.columns if name not in known])
    empty = {name: "float64" for name in frame.columns if frame[name].isna().all()}
    frame = frame.astype(empty)
    return frame.astype({"step": "int64"})


def _settings(config: Config) -> dict[str, Any]:
    metrics = {name for names in schema.METRICS.values() for name in names}
    columns: dict[str, Any] = {}
    for section, fields in asdict(config).items():
        for name, value in fields.items():
            plain = json.dumps(value, sort_keys=True) if isinstance(value, dict) else value
            clash = name in metrics or name == "options"
            columns[section if name == "name" else f"{section}_{name}" if clash else name] = plain
    return columns
