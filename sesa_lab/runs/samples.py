"""The samples of an evaluation: one tidy Parquet file, written task by task so that a stopped evaluation goes on.

While it is made its parts lie in a folder beside it (``x.partial`` of ``x.parquet``); the file appears when all are there. What it
was made with stands in the file's own metadata, and an evaluation made otherwise is never mixed with it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sesa_lab.errors import InputError, short
from sesa_lab.runs import schema
from sesa_lab.runs.files import read_json, reading, write_atomic, write_json

KEY = b"sesa_lab"
"""Of the file's metadata: JSON of the settings."""


class SampleStore:
    """Where an evaluation's samples are kept: of any tasks, each whole."""

    def __init__(self, out: str | Path, settings: Mapping[str, Any]) -> None:
        """Find what is there already.

        Args:
            out: the file to be; ends in ``.parquet``.
            settings: JSON-able, all that the samples depend on but which tasks are asked; may be nested.

        Raises:
            InputError: another name, a folder that is not there, a damaged part, or samples made with other settings.
        """
        self.out, self.settings = Path(out), json.loads(json.dumps(settings))
        self._folder = self.out.with_suffix(".partial")
        if self.out.suffix != ".parquet":
            raise InputError(f"--out {out}: expected a file that ends in .parquet")
        if not self.out.parent.is_dir():
            raise InputError(f"--out {out} cannot be written: there is no folder {self.out.parent}")
        self._tables: list[pa.Table] = []
        if self.out.exists():
            self._keep(self.out)
        if self._folder.exists():
            self._check(read_json(self._folder / "settings.json", f"delete {self._folder}"), self._folder)
            for part in sorted(self._folder.glob("*.parquet")):
                self._keep(part)

    @property
    def done(self) -> frozenset[int]:
        """The tasks whose samples are there."""
        return frozenset(task for table in self._tables for task in table["task"].unique().to_pylist())

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep the samples of some tasks, on disk when this returns.

        Args:
            rows: columns as in ``schema.SAMPLES``; all samples of each task.

        Raises:
            InputError: they cannot be written.
        """
        table = pa.Table.from_batches([schema.batch("samples", rows)])
        try:
            if not self._folder.exists():
                self._folder.mkdir()
                write_json(self._folder / "settings.json", self.settings)
            write_atomic(self._folder / f"{rows[0]['task']:08d}.parquet", lambda file: pq.write_table(table, file))
        except OSError as error:
            raise InputError(f"--out {self.out} cannot be written: {error}") from error
        self._tables.append(table)

    def finish(self) -> pd.DataFrame:
        """All samples in order of task and sample; the file is there, the parts are gone."""
        table = pa.concat_tables(self._tables).sort_by([("task", "ascending"), ("sample", "ascending")])
        if self._folder.exists() or not self.out.exists():
            kept = table.replace_schema_metadata({KEY: json.dumps(self.settings)})
            write_atomic(self.out, lambda file: pq.write_table(kept, file))
            shutil.rmtree(self._folder, ignore_errors=True)
        return table.to_pandas()

    def _keep(self, part: Path) -> None:
        with reading(part):
            table = pq.read_table(part)
        if part == self.out:
            self._check(settings_of(part), part)
        if not table.schema.equals(schema.SAMPLES):
            raise InputError(f"{part} has other columns than samples have; choose another --out, or delete it")
        new = {*table["task"].unique().to_pylist()} - self.done
        self._tables.append(table.filter(pc.is_in(table["task"], pa.array(sorted(new), pa.int64()))))

    def _check(self, found: Mapping[str, Any], where: Path) -> None:
        was, now = _flat(found), _flat(self.settings)
        for name in [*now, *was]:
            if was.get(name) != now.get(name):
                raise InputError(
                    f"{where} holds samples made with {name} = {short(was.get(name))}, now it is {short(now.get(name))}; choose"
                    " another --out, or delete it"
                )


def settings_of(path: str | Path) -> dict[str, Any]:
    """What the samples in a file were made with.

    Raises:
        InputError: it is no such file.
    """
    with reading(Path(path)):
        metadata = pq.read_schema(path).metadata or {}
    try:
        found = json.loads(metadata[KEY])
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{path} was not written by `sesa-lab evaluate`: its metadata has no settings; choose another --out"
        ) from error
    return dict(found)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
