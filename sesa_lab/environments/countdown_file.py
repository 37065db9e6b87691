"""Countdown tasks from a file in the format of the public set Jiayi-Pan/Countdown-Tasks-3to4: columns nums and target."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sesa_lab.errors import InputError, short

MOST_NUMBERS = 6
LARGEST_NUMBER = 10_000
LARGEST_TARGET = 1_000_000_000

_LIST = re.compile(r"\[?\s*[0-9]+(?:[\s,]+[0-9]+)*\s*\]?")
_INT = re.compile(r"-?[0-9]{1,10}")


def read_rows(path: str) -> list[tuple[tuple[int, ...], int]]:
    """Every row as its numbers, sorted, and its target, in the file's order.

    Args:
        path: a .jsonl file (one JSON object a line), a .parquet file or a .csv file with a header line (there, nums is
            written "[44, 19, 35]", the commas may be left out).

    Raises:
        InputError: the file cannot be read, or a row is not 2 to 6 whole numbers from 1 to 10,000 and a whole target of at
            most a billion either way; names file and line (in a parquet file: row, counted from 1).
    """
    readers = {".jsonl": _jsonl, ".parquet": _parquet, ".csv": _csv}
    source = Path(path)
    if source.suffix not in readers:
        raise InputError(f"{path}: expected a file that ends in .jsonl, .parquet or .csv")
    try:
        return [_checked(where, nums, target) for where, nums, target in readers[source.suffix](source)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); expected columns nums and target, text in UTF-8"
        ) from error


def _checked(where: str, nums: Any, target: Any) -> tuple[tuple[int, ...], int]:
    good = isinstance(nums, list) and 2 <= len(nums) <= MOST_NUMBERS
    if not good or not all(_whole(value) and 1 <= value <= LARGEST_NUMBER for value in nums):
        raise InputError(
            f"{where}: nums: expected 2 to {MOST_NUMBERS} whole numbers from 1 to {LARGEST_NUMBER}, got {short(nums)};"
            " mend or drop the row"
        )
    if not _whole(target) or abs(target) > LARGEST_TARGET:
        raise InputError(
            f"{where}: target: expected a whole number of at most {LARGEST_TARGET} either way, got {short(target)};"
            " mend or drop the row"
        )
    return tuple(sorted(nums)), target


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _jsonl(path: Path) -> Iterator[tuple[str, Any, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}, line {number}"
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{where}: expected one JSON object, got {short(line.strip())} ({error})") from error
            if not isinstance(row, dict):
                raise InputError(f"{where}: expected a JSON object with nums and target, got {short(row)}")
            yield where, row.get("nums"), row.get("target")


def _csv(path: Path) -> Iterator[tuple[str, Any, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = {"nums", "target"} - set(reader.fieldnames or ())
        if missing:
            raise InputError(f"{path}, line 1: expected a header with nums and target, got {short(reader.fieldnames)}")
        for row in reader:
            nums, target = row["nums"] or "", row["target"] or ""
            parts: Any = (
                [int(part[:10]) for part in re.findall("[0-9]+", nums)] if _LIST.fullmatch(nums.strip()) else nums
            )
            found = int(target) if _INT.fullmatch(target.strip()) else target
            yield f"{path}, line {reader.line_num}", parts, found


def _parquet(path: Path) -> Iterator[tuple[str, Any, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as parquet ({error}); restore it from a copy") from error
    missing = {"nums", "target"} - set(table.column_names)
    if missing:
        raise InputError(f"{path}: expected columns nums and target, got {short(table.column_names)}")
    columns = zip(table["nums"].to_pylist(), table["target"].to_pylist(), strict=True)
    for number, (nums, target) in enumerate(columns, 1):
        yield f"{path}, row {number}", nums, target
