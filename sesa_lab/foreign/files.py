"""Files of samples as columns of plain values: JSON lines, JSON, CSV, Parquet, and our own run folders.

Types are taken as they stand; nothing is guessed from other rows. Formats are told by the file's name. Pickles (RAGEN's
``val_rollouts_*.pkl`` among them) are refused: opening one runs what it says.

A file is gone through twice, line by line where it has lines: once for its columns' names, once for the cells of those that are
needed. So a log that is larger than the memory can be measured where its completions are not.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import glob
import gzip
import io
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from sesa_lab import runs
from sesa_lab.errors import InputError, printable, short
from sesa_lab.runs import layout, schema

PICKLES = {".pkl", ".pickle", ".pt", ".pth", ".bin", ".npy", ".npz"}
LINES = (".jsonl", ".ndjson")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
KNOWN = (*LINES, ".json", *DELIMITERS, ".parquet")
"""Endings that are read; all but Parquet also with ``.gz`` behind."""
LONGEST_NUMBER = 4_000
"""Digits; Python refuses to make a whole number of more than 4,300."""
LONGEST_NAME, LONGEST_PATH = 200, 1_000
LONGEST_CELL = 2**31 - 1
"""Characters of a CSV file's cell; the most that every system's csv module takes."""

Cells = list[Any]
Records = Callable[[Path, list[str]], Iterable[Mapping[str, Any]]]
"""Goes through a file's samples, and adds to the notes what it leaves out."""


@dataclass(frozen=True)
class Table:
    """One file.

    Attributes:
        path: the file, or run folder.
        names: its columns, unique and in one line each (``clean``).
        rows: how many.
        columns: reads the cells of some columns, all in one pass.
        notes: what was left out, one sentence each.
    """

    path: Path
    names: tuple[str, ...]
    rows: int
    columns: Callable[[Sequence[str]], list[Cells]]
    notes: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """The file, as it can be shown."""
        return shown(self.path)

    @property
    def flat(self) -> bool:
        """Whether all cells are texts, as in CSV, so that lists are written out."""
        return _kind(self.path) in DELIMITERS

    def read(self, name: str) -> Cells:
        """The cells of one column."""
        return self.columns([name])[0]


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
    found: dict[str, Path] = {}  # by what they are: one file by two names would be counted twice
    for path in (path for place in places for path in _paths(place)):
        found.setdefault(os.path.realpath(path), path)
    paths = list(found.values())
    if sum(map(layout.is_run, paths)) > 1:
        raise InputError(
            "several run folders, expected one: groups are numbered afresh in each; measure them one by one"
        )
    return [_table(path) for path in paths]


def clean(text: object, most: int = LONGEST_NAME) -> str:
    """A column's name, or another text, in one line that can be shown: what is not printable becomes a dot; cut at ``most``."""
    return printable(str(text)[:most]) or "(empty)"


def shown(path: object) -> str:
    """A path, or a message that names one, as it can be shown: names of files may hold what steers a terminal."""
    return clean(path, LONGEST_PATH)


def _paths(place: str) -> list[Path]:
    try:
        return _found(place)
    except (OSError, RuntimeError) as error:  # a name that is too long; a home that nobody has
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot look for samples at {shown(place)}: {shown(reason)}; check the path") from error


def _found(place: str) -> list[Path]:
    path = Path(place).expanduser()
    if path.is_dir():
        return [path] if layout.is_run(path) else _in_folder(path)
    if path.exists():
        return [path]
    matching = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
    if not matching:
        raise InputError(f"nothing at {shown(place)}: expected files of samples, a glob or a folder; check the path")
    return [found for each in matching for found in _found(str(each)) if each.exists()]


def _in_folder(folder: Path) -> list[Path]:
    visible = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    for kinds in ((*LINES, *DELIMITERS, ".parquet"), (".json",)):
        if found := [path for path in visible if _kind(path) in kinds]:
            return found
        if (folder / "completions").is_dir():  # beside them TRL's folder has JSON files, which are its model's
            return _in_folder(folder / "completions")
    raise InputError(f"no samples in {shown(folder)}: it has no files that end in {', '.join(KNOWN)}; name the files")


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
            f"{shown(path)} may run code when it is opened, and is not: write its samples as JSON lines, one object a sample"
            " with its text, group and reward"
        )
    if kind not in KNOWN:
        raise InputError(
            f"{shown(path)} ends in {clean(kind) if kind else 'nothing'!r}, expected one of {', '.join(KNOWN)}, or these with .gz"
        )
    if kind == ".parquet":
        return _parquet(path)
    if kind in LINES:
        return _of_records(path, _lines)
    return _of_records(path, functools.partial(_csv, delimiter=DELIMITERS[kind]) if kind in DELIMITERS else _json)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns an error of the system, of Arrow or of what unpacks into one ``InputError`` that names ``path``."""
    try:
        yield
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {shown(path)}: {shown(reason)}; check it, or fetch it anew") from error


@contextlib.contextmanager
def _text(path: Path, newline: str = "\n") -> Iterator[TextIO]:
    """A file's text without its byte order mark; bytes that are no UTF-8 become lone surrogates, and stay different."""
    packed = path.name.lower().endswith(".gz")
    with _reading(path), gzip.open(path) if packed else open(path, "rb") as data:
        if data.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise InputError(f"{shown(path)} is UTF-16, expected UTF-8: save it as UTF-8")
        yield io.TextIOWrapper(data, encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def _of_records(path: Path, records: Records) -> Table:
    notes: list[str] = []
    keys: dict[str, None] = {}
    rows = 0
    for row in records(path, notes):
        rows += 1
        keys.update(dict.fromkeys(row))
    of_name = dict(zip(_unique(keys), keys, strict=True))

    def columns(names: Sequence[str]) -> list[Cells]:
        found: list[Cells] = [[] for _ in names]
        wanted = [(of_name[name], cells) for name, cells in zip(names, found, strict=True)]
        for row in records(path, []):
            for key, cells in wanted:
                cells.append(row.get(key))
        return found

    return Table(path, tuple(of_name), rows, columns, tuple(notes))


def _lines(path: Path, notes: list[str]) -> Iterator[Mapping[str, Any]]:
    rows = 0
    wrong, cut_off = None, ""
    with _text(path) as file:  # lines end in \n only: U+2028 and the like are part of a text
        for number, line in enumerate(map(str.strip, file), start=1):
            if not line:
                continue
            if wrong is not None:
                raise wrong
            try:
                row = _parsed(line)
            except (ValueError, RecursionError) as error:
                wrong = InputError(
                    f"{shown(path)} line {number} is no JSON ({error}): {short(line)}; expected one object a line"
                    f"{'; is it a .json file?' if line in ('[', '{', '[{') else ''}"
                )
                if isinstance(error, RecursionError):
                    raise wrong from error
                cut_off = f"{shown(path)} line {number}, the last, is cut off and left out: {short(line)}"
                continue
            if not isinstance(row, dict):
                raise InputError(
                    f"{shown(path)} line {number} holds {short(row)}, expected an object; is it a .json file?"
                )
            rows += 1
            yield row
    if wrong is not None and not rows:
        raise wrong
    notes += [cut_off] if cut_off else []


def _json(path: Path, notes: list[str]) -> Iterable[Mapping[str, Any]]:
    """A list of objects; or an object of columns (equally long lists); or an object one of whose values is a list of objects."""
    with _text(path) as file:
        text = file.read()
    try:
        found = _parsed(text) if text.strip() else []
    except (ValueError, RecursionError) as error:
        raise InputError(f"{shown(path)} is truncated or no JSON ({error}); expected a list of objects") from error
    if isinstance(found, dict):
        inside = [value for value in found.values() if isinstance(value, list) and value and _objects(value)]
        columns = [value for value in found.values() if isinstance(value, list)]
        if len(columns) == len(found) > 1 and len({len(column) for column in columns}) == 1:
            return [dict(zip(found, row, strict=True)) for row in zip(*columns, strict=True)]
        found = inside[0] if len(inside) == 1 else found
    if not isinstance(found, list) or not _objects(found):
        raise InputError(f"{shown(path)} holds {short(found)}, expected a list of objects, one a sample")
    return found


def _objects(values: Iterable[Any]) -> bool:
    return all(isinstance(value, dict) for value in values)


def _parsed(text: str) -> Any:
    return json.loads(text, parse_int=_whole)


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= LONGEST_NUMBER else float(digits)


def _csv(path: Path, notes: list[str], delimiter: str) -> Iterator[Mapping[str, Any]]:
    """Cells are text; an empty one is nothing."""
    limit = csv.field_size_limit(LONGEST_CELL)
    head: tuple[str, ...] = ()
    try:
        with _text(path, newline="") as file:
            # Strict: a quote that never ends, as in a file that was cut off, would swallow all that follows.
            for number, row in enumerate(filter(None, csv.reader(file, delimiter=delimiter, strict=True))):
                if number == 0:
                    head = _head(path, row, delimiter)
                    continue
                if len(row) != len(head):
                    raise InputError(
                        f"{shown(path)} sample {number} has {len(row)} cells, expected {len(head)} as the head has:"
                        f" {short(row[0])}; texts with delimiters or line breaks need quotes"
                    )
                yield {name: cell or None for name, cell in zip(head, row, strict=True)}
    except csv.Error as error:
        raise InputError(
            f"{shown(path)} is no CSV ({error}); expected one sample a line, texts with line breaks in quotes"
        ) from error
    finally:
        csv.field_size_limit(limit)  # the limit is the whole process's


def _head(path: Path, row: Sequence[str], delimiter: str) -> tuple[str, ...]:
    other = next((each for each in ";\t,|" if each != delimiter and each in row[0]), "")
    if len(row) == 1 and other:
        raise InputError(
            f"{shown(path)} has one column, {short(row[0])}: its cells seem to be parted by {other!r}, expected {delimiter!r}"
            f" ({_kind(path)}); save it so"
        )
    return _unique(row)


def _parquet(path: Path) -> Table:
    with _reading(path), pq.ParquetFile(path) as file:
        names, rows = file.schema_arrow.names, file.metadata.num_rows
    of_name = {name: place for place, name in enumerate(_unique(names))}

    def columns(wanted: Sequence[str]) -> list[Cells]:
        places = [of_name[name] for name in wanted]
        # A name with a dot would be taken as a field inside a column, and one that occurs twice as both.
        plain = len(set(names)) == len(names) and not any("." in names[place] for place in places)
        with _reading(path), pq.ParquetFile(path) as file:
            found = file.read(columns=[names[place] for place in places] if plain else None)
        return [
            _cells(found.column(names[place] if plain else place), f"column {name!r} of {shown(path)}")
            for name, place in zip(wanted, places, strict=True)
        ]

    return Table(path, tuple(of_name), rows, columns)


def _cells(column: pa.ChunkedArray, what: str) -> Cells:
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError) as error:
        if isinstance(error, UnicodeDecodeError) and (
            pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        ):  # text that is no UTF-8, which Parquet does not check
            raw = column.cast(pa.large_binary()).to_pylist()
            return [None if cell is None else cell.decode("utf-8", "surrogateescape") for cell in raw]
        raise InputError(f"cannot read {what}: {shown(error)}; write it as text or numbers") from error


def _run(path: Path) -> Table:
    """The committed rollouts of one of our runs."""
    try:
        run = runs.load(path)
        rows = len(run.read_rollouts(["step"])["step"])
    except InputError as error:
        raise InputError(shown(error)) from error

    def columns(names: Sequence[str]) -> list[Cells]:
        found = run.read_rollouts(list(dict.fromkeys(names)))
        return [list(found[name]) for name in names]

    return Table(path, tuple(schema.ROLLOUTS.names), rows, columns)


def _unique(names: Iterable[object]) -> tuple[str, ...]:
    """Clean names; those that occur more than once get their number, so that none is taken for another."""
    cleaned = [clean(name) for name in names]
    times, seen = Counter(cleaned), Counter[str]()
    found = []
    for name in cleaned:
        seen[name] += 1
        found.append(f"{name} ({seen[name]})" if times[name] > 1 else name)
    return tuple(found)
