"""Problems of mathematics with their answers: from a file, a folder of a data set, or the Hub."""

from __future__ import annotations

import contextlib
import csv
import difflib
import itertools
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sesa_lab.environments.math_answers import LONGEST_ANSWER, boxed_answer, same
from sesa_lab.errors import InputError, first_line, short

PROBLEM = ("problem", "question", "prompt")
"""Columns that may hold the problem; the first that is filled counts."""
READ = (*PROBLEM, "answer", "solution")
REACH = 5.0
"""Seconds that the Hub may take to answer at all."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_SHARD = re.compile(r"-[0-9]{5}-of-[0-9]{5}$")
_WHOLE = re.compile(r"([+-]?[0-9]+)\.0+")

Rows = Iterator[tuple[str, Any]]
"""Where a row stands ("file, line 3"), and its columns: a dict unless the row is bad."""


@dataclass(frozen=True)
class Problem:
    """A problem, the text of its answer (1 to 300 characters), and where it was read: "file, line 3" or "name, row 7"."""

    problem: str
    answer: str
    where: str


def read_problems(source: str, split: str = "") -> list[Problem]:
    r"""Every problem once, in the source's order. Which format it is in makes no difference.

    A problem is the text in column ``problem``, ``question`` or ``prompt``; its answer the text or whole number in column
    ``answer`` (of a text with "####", as in GSM8K, what follows that sign) or, where that is missing or empty, the last
    ``\boxed{}`` of the column ``solution``. Other columns are not read.

    Args:
        source: a file that ends in .jsonl, .json (a list of objects), .csv or .parquet; a folder with such files, as
            ``hf download`` leaves it; a folder that ``datasets.save_to_disk`` wrote; or a data set's name on the Hub,
            "owner/name", which is read from the local caches where the Hub cannot be reached.
        split: which split of a folder or Hub data set; empty where there is only one, and for a file.

    Raises:
        InputError: there is no such source or split; a row has no problem or no answer, or is of a wrong type (names file
            and line, in .json, .parquet and data sets the row, counted from 1); one problem has two unequal answers.
    """
    path = Path(source).expanduser()
    try:
        if path.is_file():
            rows = _file(path, split)
        elif path.is_dir() and source:
            rows = _folder(path, source, split)
        elif path.suffix not in _READERS and _HUB_NAME.fullmatch(source):
            rows = _hub(source, split)
        else:
            raise InputError(
                f"{source}: no such file or folder; expected a .jsonl, .json, .csv or .parquet file, a folder of a data"
                f" set, or a data set's name on the Hub, owner/name.{_nearest(path)}"
            )
        problems = _once(_problem(where, row) for where, row in rows)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: cannot be read ({first_line(error)}); expected UTF-8 or parquet") from error
    if not problems:
        raise InputError(f"{source}: holds no problem; expected rows with the columns problem and answer")
    return problems


def _once(problems: Iterator[Problem]) -> list[Problem]:
    first: dict[str, Problem] = {}
    for each in problems:
        known = first.setdefault(each.problem, each)
        if known.answer != each.answer and not same(known.answer, each.answer):
            raise InputError(
                f"{each.where}: the same problem as at {known.where}, there with the answer {short(known.answer)}, here"
                f" with {short(each.answer)}; correct or drop one of the two"
            )
    return list(first.values())


def _problem(where: str, row: Any) -> Problem:
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected an object with problem and answer, got {short(row)}; mend or drop it")
    names = [name for name in PROBLEM if name in row]
    if not names or not row.keys() & {"answer", "solution"}:
        raise InputError(
            f"{where}: expected the columns problem (or question, or prompt) and answer (or solution), got"
            f" {short(list(row))}; rename or add a column"
        )
    name = next((name for name in names if row[name] not in (None, "")), names[0])
    problem = row[name]
    if not isinstance(problem, str) or not problem.strip():
        raise InputError(f"{where}: {name}: expected a text, not empty, got {short(problem)}; mend or drop the row")
    return Problem(problem.strip(), _answer(where, row), where)


def _answer(where: str, row: dict[Any, Any]) -> str:
    value, solution = row.get("answer"), row.get("solution")
    if value in (None, ""):
        found = boxed_answer(solution) if isinstance(solution, str) else None
        if found is None:
            given = f"got {short(value)}" if "answer" in row else "which is missing"
            raise InputError(
                f"{where}: answer: expected a text or a whole number, {given}, and solution holds no \\boxed{{...}}"
                f" to take it from (got {short(solution)}); mend or drop the row"
            )
        return found
    text = ""
    if isinstance(value, str):
        text = value.rpartition("####")[2].strip()
        text = whole[1] if (whole := _WHOLE.fullmatch(text)) else text
    elif not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer())):
        text = str(int(value))
    if not 0 < len(text) <= LONGEST_ANSWER:
        raise InputError(
            f"{where}: answer: expected a text of 1 to {LONGEST_ANSWER} characters or a whole number, got {short(value)};"
            " mend or drop the row"
        )
    return text


def _jsonl(path: Path) -> Rows:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            try:
                rows = [json.loads(line)] if line.strip() else []
            except (ValueError, RecursionError) as error:
                got = f"got {short(line.strip())} ({error})"
                raise InputError(f"{path}, line {number}: expected one JSON object, {got}; mend or drop it") from error
            yield from ((f"{path}, line {number}", row) for row in rows)


def _json(path: Path) -> Rows:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        where = f"{path}, line {error.lineno}" if isinstance(error, json.JSONDecodeError) else str(path)
        raise InputError(f"{where}: expected a list of JSON objects in UTF-8 ({error}); mend it") from error
    if not isinstance(rows, list):
        raise InputError(f"{path}: expected a list of objects, got {short(rows)}; for an object a line name it .jsonl")
    yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows, 1))


def _csv(path: Path) -> Rows:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        header: list[str] | None = None
        begin = 1
        while True:
            where = f"{path}, line {begin}"
            try:
                fields = next(reader, None)
            except csv.Error as error:
                raise InputError(f"{where}: not CSV ({error}); put texts into double quotes") from error
            if fields is None:
                return
            begin = reader.line_num + 1
            if header is None:
                header = [name.strip() for name in fields]
            elif fields and len(fields) != len(header):
                got = f"got {len(fields)}, {short(fields)}"
                raise InputError(f"{where}: expected {len(header)} fields, {got}; put texts into double quotes")
            elif fields:
                yield where, dict(zip(header, fields, strict=True))


def _parquet(path: Path) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        others = dict.fromkeys(file.schema_arrow.names)  # unread, but an error names them
        rows = file.read(columns=[name for name in others if name in READ]).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as parquet ({first_line(error)}); restore it from a copy") from error
    yield from ((f"{path}, row {number}", {**others, **row}) for number, row in enumerate(rows, 1))


_READERS: dict[str, Callable[[Path], Rows]] = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet}


def _file(path: Path, split: str) -> Rows:
    if path.suffix not in _READERS:
        raise InputError(f"{path}: expected a file that ends in {', '.join(_READERS)}")
    if split:
        raise InputError(f"{path}: a file has no splits; leave split empty, got {short(split)}")
    return _READERS[path.suffix](path)


def _chosen(source: str, splits: Mapping[str, Any], split: str) -> Any:
    listed = ", ".join(sorted(map(str, splits)))
    if split not in splits and (split or len(splits) != 1):
        raise InputError(f"{source}: split: expected one of {listed}, got {short(split)}; choose one of them")
    return splits[split] if split else next(iter(splits.values()))


def _folder(path: Path, source: str, split: str) -> Rows:
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        import datasets  # type: ignore[import-untyped]

        try:
            found = datasets.load_from_disk(str(path))
        except (OSError, ValueError, KeyError, TypeError, datasets.exceptions.DatasetsError) as error:
            raise InputError(f"{source}: not as save_to_disk wrote it ({first_line(error)}); write it again") from error
        return _data_set(source, found, split)
    return _shards(source, path, _data_files(path), split)


def _data_files(path: Path) -> list[Path]:
    """Files with rows below a folder, by name; nothing hidden, nor what ``datasets`` and the Hub keep about them."""
    inside = [file.relative_to(path) for file in sorted(path.rglob("*")) if file.suffix in _READERS and file.is_file()]
    known = {"dataset_infos.json", "dataset_info.json", "state.json", "dataset_dict.json"}
    return [file for file in inside if file.name not in known and not any(part.startswith(".") for part in file.parts)]


def _shards(source: str, path: Path, files: list[Path], split: str) -> Rows:
    if not files:
        raise InputError(f"{source}: expected files that end in {', '.join(_READERS)}, found none; name another folder")
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(_SHARD.sub("", file.stem), []).append(file)
    chosen: list[Path] = _chosen(source, splits, split)
    folders = sorted({str(path / file.parent) for file in chosen})
    if len(folders) > 1:
        raise InputError(f"{source}: has the split in several folders; choose one of them: {', '.join(folders)}")
    return itertools.chain.from_iterable(_READERS[file.suffix](path / file) for file in chosen)


def _data_set(source: str, found: Any, split: str) -> Rows:
    """Rows of a ``datasets.Dataset``, or of a split of a ``DatasetDict``."""
    if not isinstance(found, dict):
        found = {str(found.split or "train"): found}
    table = _chosen(source, found, split)
    others = dict.fromkeys(table.column_names)
    table = table.select_columns([name for name in others if name in READ])
    return ((f"{source}, row {number}", {**others, **row}) for number, row in enumerate(table, 1))


def _hub(name: str, split: str) -> Rows:
    """From the Hub; from what the caches keep of it, where it does not answer in time or not for this name."""
    import datasets
    from huggingface_hub import constants, snapshot_download

    why = _out_of_reach(name)
    with _quietly(datasets, offline=bool(why)):
        try:
            found = datasets.load_dataset(name)
        except ConnectionError as error:
            why = why or f"the Hub could not be reached ({first_line(error)})"
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            why = f"{why or 'the Hub has it'}, but datasets.load_dataset cannot read it ({first_line(error)})"
        else:
            return _data_set(name, found, split)
    with contextlib.suppress(OSError, ValueError):
        snapshot = Path(snapshot_download(name, repo_type="dataset", local_files_only=True))
        if files := _data_files(snapshot):
            return _shards(name, snapshot, files, split)
    folder = f"data/{name.rpartition('/')[2]}"
    raise InputError(
        f"{name}: {Path(name).absolute()} is no file or folder, no copy of the Hub's data set was found in"
        f" {constants.HF_HUB_CACHE} or {datasets.config.HF_DATASETS_CACHE}, and {why}. On a machine with a network:"
        f" hf download {name} --repo-type dataset --local-dir {folder}; bring that folder here and set dataset={folder}."
        f"{_nearest(Path(name))}"
    )


def _out_of_reach(name: str) -> str:
    """Why the Hub gives no data set of this name, or nothing: one question, instead of a minute of retries."""
    import datasets
    from huggingface_hub import HfApi, constants, errors

    if constants.is_offline_mode() or datasets.config.HF_HUB_OFFLINE:
        return "the Hub could not be reached (HF_HUB_OFFLINE or HF_DATASETS_OFFLINE says not to)"
    answer = [f"the Hub could not be reached (no answer within {REACH:g} seconds)"]

    def ask() -> None:
        try:
            HfApi().dataset_info(name, timeout=REACH)
            answer.append("")
        except errors.RepositoryNotFoundError:
            answer.append("the Hub has none that you may read (if it is private or gated: hf auth login)")
        except Exception as error:  # those of its HTTP library have no base class that we could name
            answer.append(f"the Hub could not be reached ({first_line(error)})")

    thread = threading.Thread(target=ask, daemon=True)  # a name server that is silent knows no limit of time
    thread.start()
    thread.join(REACH + 1)
    return answer[-1]


@contextlib.contextmanager
def _quietly(datasets: Any, *, offline: bool) -> Iterator[None]:
    """Without the libraries' warnings, and ``datasets`` in its offline mode, in which it asks its cache alone."""
    before = datasets.config.HF_HUB_OFFLINE, logging.root.manager.disable
    datasets.config.HF_HUB_OFFLINE = offline or before[0]
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before[0]
        logging.disable(before[1])


def _nearest(path: Path) -> str:
    beside = path.parent if path.parent.is_dir() else Path()
    files = itertools.chain(beside.glob("*"), itertools.islice(Path("data").rglob("*"), 1000))
    near = {str(file) for file in files if file.suffix in _READERS or file.is_dir()}
    close = difflib.get_close_matches(str(path), sorted(near), n=3, cutoff=0.5)
    return f" Nearest here: {', '.join(close)}" if close else ""
