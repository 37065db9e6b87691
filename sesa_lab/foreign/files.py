"""Files of samples as columns of plain values: JSON lines, JSON, CSV, Parquet, and our own run folders.

Types are taken as they stand; nothing is guessed from other rows. Formats are told by the file's name. Pickles (RAGEN's
``val_rollouts_*.pkl`` among them) are refused: opening one runs what it says.
"""

from __future__ import annotations

import csv
import functools
import glob
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sesa_lab import runs
from sesa_lab.errors import InputError, short
from sesa_lab.runs import layout, schema
from sesa_lab.runs.files import reading

PICKLES = {".pkl", ".pickle", ".pt", ".pth", ".bin", ".npy", ".npz"}
LINES = (".jsonl", ".ndjson")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
KNOWN = (*LINES, ".json", *DELIMITERS, ".parquet")
"""Endings that are read; all but Parquet also with ``.gz`` behind."""
LONGEST_NUMBER = 4_000
"""Digits; Python refuses to make a whole number of more than 4,300."""
LONGEST_NAME = 200

Cells = list[Any]


@dataclass(frozen=True)
class Table:
    """One file.

    Attributes:
        where: the file, or run folder, as the user knows it.
        names: its columns, unique and in one line each (``clean``).
        rows: how many.
        read: the cells of one of the columns.
        notes: what was left out, one sentence each.
    """

    where: str
    names: tuple[str, ...]
    rows: int
    read: Callable[[str], Cells]
    notes: tuple[str, ...] = ()


def tables(places: Sequence[str]) -> list[Table]:
    """All files that are meant.

    Args:
        places: files, globs (``**`` goes through folders), folders or run folders. Of a folder its own files are taken: all
            JSON lines, CSV and Parquet in it, JSON files where it has none of these, and what lies in ``completions/`` (as TRL
            writes) where it has neither. Hidden files are not.

    Raises:
        InputError: nothing there, a file that cannot be read or is of another kind, or several run folders: their groups
            have the same numbers.
    """
    paths = list(dict.fromkeys(path for place in places for path in _found(place)))
    if sum(map(layout.is_run, paths)) > 1:
        raise InputError(
            "several run folders, expected one: groups are numbered afresh in each; measure them one by one"
        )
    return [_table(path) for path in paths]


def clean(text: object, most: int = LONGEST_NAME) -> str:
    """A column's name, or another text, in one line that can be shown: what is not printable becomes a dot; cut at ``most``."""
    line = "".join(c if c.isprintable() else "\u00b7" for c in str(text)[:most])
    return line or "(empty)"


def _found(place: str) -> list[Path]:
    path = Path(place).expanduser()
    if path.is_dir():
        return [path] if layout.is_run(path) else _in_folder(path)
    if path.exists():
        return [path]
    matching = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
    if not matching:
        raise InputError(f"nothing at {place}: expected files of samples, a glob or a folder; check the path")
    return [found for each in matching for found in _found(str(each)) if each.exists()]


def _in_folder(folder: Path) -> list[Path]:
    shown = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    for kinds in ((*LINES, *DELIMITERS, ".parquet"), (".json",)):
        if found := [path for path in shown if _kind(path) in kinds]:
            return found
        if (folder / "completions").is_dir():  # beside them TRL's folder has JSON files, which are its model's
            return _in_folder(folder / "completions")
    raise InputError(f"no samples in {folder}: it has no files that end in {', '.join(KNOWN)}; name the files")


def _kind(path: Path) -> str:
    """The ending that tells the format: ``.jsonl`` of ``x.jsonl.gz``."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def _table(path: Path) -> Table:
    if layout.is_run(path):
        return _run(path)
    kind = _kind(path)
    if kind in PICKLES:
        raise InputError(
            f"{path} may run code when it is opened, and is not: write its samples as JSON lines, one object a sample with its"
            " text, group and reward"
        )
    if kind not in KNOWN:
        raise InputError(f"{path} ends in {kind or 'nothing'!r}, expected one of {', '.join(KNOWN)}, or these with .gz")
    if kind == ".parquet":
        return _parquet(path)
    text = _text(path)
    if kind in LINES:
        return _lines(path, text)
    return _csv(path, text, DELIMITERS[kind]) if kind in DELIMITERS else _json(path, text)


def _text(path: Path) -> str:
    """A file's text without its byte order mark; bytes that are no UTF-8 become lone surrogates, and stay different."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.name.lower().endswith(".gz") else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {path}: {reason}; check it, or fetch it anew") from error
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{path} is UTF-16, expected UTF-8: save it as UTF-8")
    return data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")


def _lines(path: Path, text: str) -> Table:
    rows: list[Mapping[str, Any]] = []
    notes: list[str] = []
    lines = text.split("\n")  # only here: U+2028 and the like are part of a text
    last = max((number for number, line in enumerate(lines, start=1) if line.strip()), default=0)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = _parsed(line)
        except (ValueError, RecursionError) as error:
            if number < last or not rows or isinstance(error, RecursionError):
                raise InputError(
                    f"{path} line {number} is no JSON ({error}): {short(line)}; expected one object a line"
                ) from error
            notes.append(f"{path} line {number}, the last, is cut off and left out: {short(line)}")
            break
        if not isinstance(row, dict):
            raise InputError(f"{path} line {number} holds {short(row)}, expected an object; is it a .json file?")
        rows.append(row)
    return _of_rows(path, rows, notes)


def _json(path: Path, text: str) -> Table:
    """A list of objects; or an object of columns (equally long lists); or an object one of whose values is a list of objects."""
    try:
        found = _parsed(text) if text.strip() else []
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is truncated or no JSON ({error}); expected a list of objects") from error
    if isinstance(found, dict):
        inside = [value for value in found.values() if isinstance(value, list) and value and _objects(value)]
        columns = [value for value in found.values() if isinstance(value, list)]
        if len(columns) == len(found) > 1 and len({len(column) for column in columns}) == 1:
            names = _unique(found)
            return Table(str(path), names, len(columns[0]), dict(zip(names, columns, strict=True)).__getitem__)
        found = inside[0] if len(inside) == 1 else found
    if not isinstance(found, list) or not _objects(found):
        raise InputError(f"{path} holds {short(found)}, expected a list of objects, one a sample")
    return _of_rows(path, found, [])


def _objects(values: Iterable[Any]) -> bool:
    return all(isinstance(value, dict) for value in values)


def _parsed(text: str) -> Any:
    return json.loads(text, parse_int=_whole)


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= LONGEST_NUMBER else float(digits)


def _of_rows(path: Path, rows: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> Table:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    of_name = dict(zip(_unique(keys), keys, strict=True))
    return Table(
        str(path), tuple(of_name), len(rows), lambda name: [row.get(of_name[name]) for row in rows], tuple(notes)
    )


def _csv(path: Path, text: str, delimiter: str) -> Table:
    """Cells are text; an empty one is nothing."""
    limit = csv.field_size_limit(len(text) + 1)
    try:
        # Strict: a quote that never ends, as in a file that was cut off, would swallow all that follows.
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        rows = [row for row in reader if row]
    except csv.Error as error:
        raise InputError(
            f"{path} is no CSV ({error}); expected one sample a line, texts with line breaks in quotes"
        ) from error
    finally:
        csv.field_size_limit(limit)  # the limit is the whole process's
    head = rows[0] if rows else []
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(head):
            raise InputError(
                f"{path} sample {number} has {len(row)} cells, expected {len(head)} as the head has: {short(row[0])};"
                " texts with delimiters or line breaks need quotes"
            )
    place = {name: i for i, name in enumerate(_unique(head))}
    return Table(str(path), tuple(place), len(rows[1:]), lambda name: [row[place[name]] or None for row in rows[1:]])


def _parquet(path: Path) -> Table:
    with reading(path), pq.ParquetFile(path) as file:
        names, rows = file.schema_arrow.names, file.metadata.num_rows
    of_name = {name: place for place, name in enumerate(_unique(names))}
    alike = len(set(names)) < len(names)

    @functools.cache  # completions are read once for their text, and once where a column is to be found
    def read(name: str) -> Cells:
        place = of_name[name]
        # A name with a dot would be taken as a field inside a column, and one that occurs twice as both.
        only = None if alike or "." in names[place] else [names[place]]
        try:
            with reading(path), pq.ParquetFile(path) as file:
                found = file.read(columns=only)
                return _cells(found.column(place if only is None else 0))
        except (ValueError, OverflowError) as error:
            raise InputError(f"cannot read column {name!r} of {path}: {error}; write it as text or numbers") from error

    return Table(str(path), tuple(of_name), rows, read)


def _cells(column: pa.ChunkedArray) -> Cells:
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:  # text that is no UTF-8, which Parquet does not check
        if not pa.types.is_string(column.type) and not pa.types.is_large_string(column.type):
            raise
        raw = column.cast(pa.large_binary()).to_pylist()
        return [None if cell is None else cell.decode("utf-8", "surrogateescape") for cell in raw]


def _run(path: Path) -> Table:
    """The committed rollouts of one of our runs."""
    run = runs.load(path)

    @functools.cache
    def read(name: str) -> Cells:
        return list(run.read_rollouts([name])[name])

    return Table(str(path), tuple(schema.ROLLOUTS.names), len(read("step")), read)


def _unique(names: Iterable[object]) -> tuple[str, ...]:
    """Clean names; those that occur more than once get their number, so that none is taken for another."""
    cleaned = [clean(name) for name in names]
    times, seen = Counter(cleaned), Counter[str]()
    found = []
    for name in cleaned:
        seen[name] += 1
        found.append(f"{name} ({seen[name]})" if times[name] > 1 else name)
    return tuple(found)
