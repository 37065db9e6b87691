"""Problems from files, folders and the Hub's caches: one list whatever the format, and errors that name file and line."""

from __future__ import annotations

import functools
import itertools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sesa_lab.environments.math_answers import boxed_answer
from sesa_lab.environments.math_data import Problem, read_problems
from sesa_lab.errors import InputError

ROWS = [
    {"id": 1, "problem": "What is $6 \\cdot 7$?", "answer": "42", "solution": "It is \\boxed{41}."},
    {"id": 2, "problem": 'Two lines,\nwith "quotes" and é', "answer": "\\frac{1}{2}", "solution": None},
    {"id": 3, "problem": "Three dots", "answer": "a long way\n#### 1,000", "solution": ""},
    {"id": 4, "problem": "Only solved", "answer": None, "solution": "\\boxed{1} or rather $\\boxed{\\frac{3}{4}}$."},
    {"id": 5, "problem": "What is $6 \\cdot 7$?", "answer": "042", "solution": "again"},
]
READ = [
    ("What is $6 \\cdot 7$?", "42"),
    ('Two lines,\nwith "quotes" and é', "\\frac{1}{2}"),
    ("Three dots", "1,000"),
    ("Only solved", "\\frac{3}{4}"),
]


def pairs(problems: list[Problem]) -> list[tuple[str, str]]:
    return [(each.problem, each.answer) for each in problems]


def as_jsonl(path: Path, rows: list) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def as_json(path: Path, rows: list) -> None:
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def as_csv(path: Path, rows: list) -> None:
    pd.DataFrame(rows).to_csv(path, index=False)


def as_parquet(path: Path, rows: list) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


WRITERS: dict[str, Callable[[Path, list], None]] = {
    "jsonl": as_jsonl,
    "json": as_json,
    "csv": as_csv,
    "parquet": as_parquet,
}


@pytest.mark.parametrize(
    ("ending", "where"),
    [
        ("jsonl", ["line 1", "line 2", "line 3", "line 4"]),
        ("json", ["row 1", "row 2", "row 3", "row 4"]),
        ("csv", ["line 2", "line 3", "line 5", "line 7"]),  # a header; rows 2 and 3 take two lines each
        ("parquet", ["row 1", "row 2", "row 3", "row 4"]),
    ],
)
def test_every_format_gives_the_same_problems(tmp_path: Path, ending: str, where: list[str]) -> None:
    path = tmp_path / f"problems.{ending}"
    WRITERS[ending](path, ROWS)
    problems = read_problems(str(path))
    assert pairs(problems) == READ  # the fifth repeats the first, its answer written otherwise
    assert [each.where for each in problems] == [f"{path}, {place}" for place in where]


@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize(("values", "read"), [([7, -8, 0], ["7", "-8", "0"]), ([7.0, 1e3, -0.0], ["7", "1000", "0"])])
def test_whole_numbers_are_answers(tmp_path: Path, ending: str, values: list, read: list[str]) -> None:
    path = tmp_path / f"numbers.{ending}"
    WRITERS[ending](path, [{"question": f"number {index}", "answer": value} for index, value in enumerate(values)])
    answers = [each.answer for each in read_problems(str(path))]
    # pandas writes -0.0 with its sign, which is no other answer
    assert [answer.replace("-0", "0") for answer in answers] == read


@pytest.mark.parametrize("ending", WRITERS)
def test_columns_by_other_names(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"others.{ending}"
    WRITERS[ending](path, [{"prompt": "p", "solution": "so \\boxed{5}"}])
    assert pairs(read_problems(str(path))) == [("p", "5")]


def test_a_byte_order_mark_empty_lines_and_other_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "windows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"problem": "p", "answer": 1}\r\n\r\n{"problem": "q", "answer": "2"}\r\n')
    assert read_problems(str(path)) == [Problem("p", "1", f"{path}, line 1"), Problem("q", "2", f"{path}, line 3")]
    path = tmp_path / "windows.csv"
    path.write_bytes(b"\xef\xbb\xbfproblem, answer\r\np,1\r\n\r\nq,2\r\n")
    assert read_problems(str(path)) == [Problem("p", "1", f"{path}, line 2"), Problem("q", "2", f"{path}, line 4")]


GOOD = {"problem": "fine", "answer": "1"}
BAD = {
    "empty problem": ({"problem": " ", "answer": "1"}, "problem: expected a text, not empty, got ' '"),
    "no problem": ({"problem": None, "answer": "1"}, "problem: expected a text, not empty, got "),
    "no answer": ({"problem": "p", "answer": None}, "answer: expected a text or a whole number, got "),
    "blank answer": ({"problem": "p", "answer": " "}, "answer: expected a text of 1 to 300 characters .* got ' '"),
    "nothing after the sign": ({"problem": "p", "answer": "so ####"}, "answer: expected .* got 'so ####'"),
    "long answer": ({"problem": "p", "answer": "1" * 301}, "answer: expected a text of 1 to 300 characters"),
}
BAD_IN_JSON = {
    "number as problem": ({"problem": 5, "answer": "1"}, "problem: expected a text, not empty, got 5"),
    "messages": ({"prompt": [{"role": "user"}], "answer": "1"}, "prompt: expected a text, not empty, got "),
    "truth": ({"problem": "p", "answer": True}, "answer: expected .* whole number, got True"),
    "fraction": ({"problem": "p", "answer": 0.5}, "answer: expected .* whole number, got 0.5"),
    "not a number": ({"problem": "p", "answer": math.nan}, "answer: expected .* whole number, got nan"),
    "list": ({"problem": "p", "answer": ["1"]}, "answer: expected .* whole number, got "),
    "unsolved": (
        {"problem": "p", "solution": "it is 5"},
        "answer: .* which is missing, and solution holds no .*'it is 5'",
    ),
    "column of the problem": ({"task": "p", "answer": "1"}, r"expected the columns problem .*got \['task', 'answer'\]"),
    "column of the answer": ({"problem": "p", "id": 1}, r"expected the columns .*got \['problem', 'id'\]"),
    "text": ("p", "expected an object with problem and answer, got 'p'"),
    "nothing": (None, "expected an object with problem and answer, got None"),
}


@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_named(tmp_path: Path, ending: str, name: str) -> None:
    row, message = BAD[name]
    path = tmp_path / f"bad.{ending}"
    WRITERS[ending](path, [GOOD, row])
    where = {"jsonl": "line 2", "json": "row 2", "csv": "line 3", "parquet": "row 2"}[ending]
    with pytest.raises(InputError, match=rf"bad\.{ending}, {where}: {message}.*; mend or drop"):
        read_problems(str(path))


@pytest.mark.parametrize("ending", ["jsonl", "json"])
@pytest.mark.parametrize("name", BAD_IN_JSON)
def test_a_bad_row_of_another_type_is_named(tmp_path: Path, ending: str, name: str) -> None:
    row, message = BAD_IN_JSON[name]
    path = tmp_path / f"bad.{ending}"
    WRITERS[ending](path, [GOOD, row])
    with pytest.raises(InputError, match=rf"bad\.{ending}, (line|row) 2: {message}"):
        read_problems(str(path))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_missing_columns_name_those_found(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"bad.{ending}"
    WRITERS[ending](path, [{"task": "p", "answer": "1", "year": 2024}])
    with pytest.raises(InputError, match=r"(line 2|row 1): .*got \['task', 'answer', 'year'\]; rename"):
        read_problems(str(path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "bad.jsonl",
            b'{"problem": "p", "answer": 1}\n{"problem": \n',
            "line 2: expected one JSON object, got '{\"problem",
        ),
        ("bad.jsonl", b'{"problem": "p", "answer": ' + b"1" * 5000 + b"}", "line 1: expected one JSON object"),
        ("bad.jsonl", b"[" * 100_000, "line 1: expected one JSON object"),
        ("bad.jsonl", b"\xff\xfe", "cannot be read .*UTF-8"),
        ("bad.jsonl", b"\n\n", "holds no problem"),
        ("bad.json", b'[{"problem": "p"},\n{"problem"]', "line 2: expected a list of JSON objects"),
        ("bad.json", b'{"problem": "p"}', "expected a list of objects, got "),
        ("bad.json", b"[]", "holds no problem"),
        ("bad.json", b"\xff", "bad.json: expected a list of JSON objects in UTF-8"),
        ("bad.csv", b"problem,answer\np,1\nq\n", r"line 3: expected 2 fields, got 1, \['q'\]"),
        ("bad.csv", b"problem,answer\np,1,2\n", r"line 2: expected 2 fields, got 3"),
        ("bad.csv", b'problem,answer\np,1\n"q,2\nr,3\n', "line 3: not CSV"),
        ("bad.csv", b'"problem,answer', "line 1: not CSV"),
        ("bad.csv", b"problem,answer\n" + b"p" * 200_000 + b",1\n", "line 2: not CSV .*field limit"),
        ("bad.csv", b"", "holds no problem"),
        ("bad.parquet", b"PAR1 and then nothing", "cannot be read as parquet"),
        ("bad.txt", b"p", "expected a file that ends in .jsonl, .json, .csv, .parquet"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_problems(str(tmp_path / name))
    assert str(caught.value).startswith(str(tmp_path / name)) and "\n" not in str(caught.value)


def test_one_problem_with_two_answers_names_both_places(tmp_path: Path) -> None:
    path = tmp_path / "two.jsonl"
    rows = [{"problem": "p", "answer": "1/2"}, {"problem": " p", "answer": "0.5"}, {"problem": "p", "answer": "0.6"}]
    as_jsonl(path, rows[:2])
    assert read_problems(str(path)) == [Problem("p", "1/2", f"{path}, line 1")]
    as_jsonl(path, rows)
    with pytest.raises(
        InputError, match=r"two.jsonl, line 3: the same problem as at .*two.jsonl, line 1, .*'1/2'.*'0.6'"
    ):
        read_problems(str(path))


def test_a_saved_data_set(tmp_path: Path) -> None:
    import datasets

    table = datasets.Dataset.from_list(ROWS)
    table.save_to_disk(str(tmp_path / "one"))
    problems = read_problems(str(tmp_path / "one"))
    assert pairs(problems) == READ
    assert [each.where for each in problems] == [f"{tmp_path / 'one'}, row {number}" for number in (1, 2, 3, 4)]

    several = datasets.DatasetDict({"train": table, "test": table.select([1])})
    several.save_to_disk(str(tmp_path / "several"))
    assert pairs(read_problems(str(tmp_path / "several"), "train")) == READ
    assert pairs(read_problems(str(tmp_path / "several"), "test")) == READ[1:2]
    with pytest.raises(InputError, match="several: split: expected one of test, train, got ''"):
        read_problems(str(tmp_path / "several"))
    with pytest.raises(InputError, match="expected one of test, train, got 'dev'"):
        read_problems(str(tmp_path / "several"), "dev")

    table.rename_column("problem", "task").save_to_disk(str(tmp_path / "renamed"))
    with pytest.raises(InputError, match=r"renamed, row 1: expected the columns .*'id', 'task', 'answer', 'solution'"):
        read_problems(str(tmp_path / "renamed"))

    (tmp_path / "one" / "dataset_info.json").write_text("{")
    with pytest.raises(InputError, match="one: not as save_to_disk wrote it"):
        read_problems(str(tmp_path / "one"))


def snapshot(folder: Path) -> None:
    """What ``hf download --repo-type dataset --local-dir`` leaves: shards, a card, its own notes."""
    (folder / "data").mkdir(parents=True)
    as_parquet(folder / "data" / "train-00000-of-00002.parquet", ROWS[:2])
    as_parquet(folder / "data" / "train-00001-of-00002.parquet", ROWS[2:])
    (folder / "README.md").write_text("a card")
    (folder / "dataset_infos.json").write_text("{}")
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    as_json(folder / ".cache" / "huggingface" / "notes.json", [1])


def test_a_snapshot_folder(tmp_path: Path) -> None:
    snapshot(tmp_path)
    problems = read_problems(str(tmp_path))
    assert pairs(problems) == READ
    assert problems[2].where == f"{tmp_path / 'data' / 'train-00001-of-00002.parquet'}, row 1"
    assert read_problems(str(tmp_path), "train") == problems

    as_jsonl(tmp_path / "test.jsonl", ROWS[1:2])
    assert pairs(read_problems(str(tmp_path), "test")) == READ[1:2]
    with pytest.raises(InputError, match="split: expected one of test, train, got ''"):
        read_problems(str(tmp_path))

    (tmp_path / "other").mkdir()
    as_csv(tmp_path / "other" / "train.csv", ROWS[:1])
    with pytest.raises(InputError, match=r"has the split in several folders; choose one of them: .*data, .*other"):
        read_problems(str(tmp_path), "train")


def test_what_is_not_there_or_has_no_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: expected files that end in \.jsonl.*found none"):
        read_problems("empty")
    as_jsonl(tmp_path / "sample.jsonl", [GOOD])
    with pytest.raises(InputError, match="a file has no splits; leave split empty, got 'train'"):
        read_problems("sample.jsonl", "train")
    with pytest.raises(
        InputError, match=r"sampel.jsonl: no such file or folder; expected .*Nearest here: sample\.jsonl"
    ):
        read_problems("sampel.jsonl")
    for name in ("", "gsm8k", "a/b/c", "/no/such/folder", "owner/file.json", "\0", "x" * 5000):
        with pytest.raises(InputError, match=r"no such file or folder|cannot be read"):
            read_problems(name)


def alone(folder: Path, source: str, **environment: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """Reads ``source`` in a process whose caches are in ``folder``; conftest.py sets nothing there; no network."""
    script = (
        "import sys\nfrom sesa_lab.environments.math_data import read_problems\nfrom sesa_lab.errors import InputError\n"
        "try:\n    print([(each.problem, each.answer, each.where) for each in read_problems(sys.argv[1])])\n"
        "except InputError as error:\n    print('InputError', error)\n"
        "assert 'torch' not in sys.modules\n"
    )
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    # A proxy that refuses: on a machine with a network, too, nothing is reached
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "https_proxy", "http_proxy"), "http://127.0.0.1:9")
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script, source],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
        env={**inherited, **proxies, "HF_HOME": str(folder / "hf"), **environment},
    )
    return done, time.monotonic() - began


@pytest.mark.parametrize("offline", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", ""])
def test_without_network_or_copy_one_error_comes_at_once(tmp_path: Path, offline: str) -> None:
    done, seconds = alone(tmp_path, "HuggingFaceH4/aime_2024", **({offline: "1"} if offline else {}))
    assert done.stderr == "" and done.returncode == 0 and done.stdout.count("\n") == 1
    for part in (
        f"InputError HuggingFaceH4/aime_2024: {tmp_path / 'HuggingFaceH4' / 'aime_2024'} is no file or folder",
        str(tmp_path / "hf" / "hub"),
        str(tmp_path / "hf" / "datasets"),
        "the Hub could not be reached (",
        "hf download HuggingFaceH4/aime_2024 --repo-type dataset --local-dir data/aime_2024",
        "dataset=data/aime_2024",
    ):
        assert part in done.stdout
    assert seconds < 40  # retries take a minute and more; importing alone takes 20 seconds on a machine under load


@pytest.mark.parametrize("offline", ["1", "0"])
def test_a_snapshot_in_the_hub_s_cache_is_read(tmp_path: Path, offline: str) -> None:
    # The layout of huggingface_hub's cache: refs/main names the snapshot
    repository = tmp_path / "hf" / "hub" / "datasets--owner--some_problems"
    snapshot(repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    done, _ = alone(tmp_path, "owner/some_problems", HF_HUB_OFFLINE=offline)
    assert done.stderr == ""
    assert repr(READ[1][1]) in done.stdout and "train-00001-of-00002.parquet, row 1" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("offline", ["1", "0"])
def test_a_data_set_in_the_cache_of_datasets_is_read(tmp_path: Path, offline: str) -> None:
    # `load_dataset` of local files leaves what it leaves for a Hub name, but for the folder's name: owner___name
    source = tmp_path / "some_problems"
    source.mkdir()
    as_jsonl(source / "train.jsonl", ROWS)
    made = "import sys, datasets\ndatasets.load_dataset(sys.argv[1], cache_dir=sys.argv[2])"
    cache = tmp_path / "hf" / "datasets"
    subprocess.run([sys.executable, "-c", made, source, cache], check=True, capture_output=True, timeout=60)
    (cache / "some_problems").rename(cache / "owner___some_problems")
    for folder in (cache / "owner___some_problems").glob("*"):
        folder.rename(folder.with_name("default"))
    done, _ = alone(tmp_path, "owner/some_problems", HF_HUB_OFFLINE=offline)
    assert done.stderr == ""
    assert "'\\\\frac{1}{2}', 'owner/some_problems, row 2')" in done.stdout


def inradius() -> int:
    area = math.sqrt(21 * (21 - 13) * (21 - 14) * (21 - 15))  # Heron's formula
    return round(area / 21)


def walks() -> int:
    @functools.cache
    def ways(x: int, y: int) -> int:
        if min(x, y) < 0 or (x, y) == (2, 2):
            return 0
        return 1 if (x, y) == (0, 0) else ways(x - 1, y) + ways(x, y - 1)

    return ways(5, 4)


def cells_inside() -> int:
    corners = [(0, 0), (12, 0), (15, 8), (3, 14)]
    sides = list(itertools.pairwise([*corners, corners[0]]))
    middles = [((x + 0.5) / 10, (y + 0.5) / 10) for x in range(160) for y in range(150)]
    inside = [all((bx - ax) * (y - ay) >= (by - ay) * (x - ax) for (ax, ay), (bx, by) in sides) for x, y in middles]
    return round(sum(inside) / 100)


# In the file's order: each answer by enumeration, without the solution's idea
BRUTE: list[Callable[[], int]] = [
    lambda: sum(360 % d == 0 for d in range(1, 361)),
    lambda: pow(7, 100) % 13,
    lambda: sum(n for n in range(1, 101) if n % 7 == 2),
    lambda: next(n for n in itertools.count(1) if (n % 5, n % 7, n % 9) == (3, 4, 1)),
    lambda: sum(map(int, str(2**20))),
    lambda: len(str(math.factorial(130))) - len(str(math.factorial(130)).rstrip("0")),
    lambda: sum(x * y == 4 * (x + y) for x in range(1, 100) for y in range(1, 100)),
    lambda: sum(all(n % p for p in (2, 3, 5)) for n in range(1, 601)),
    lambda: len(set(itertools.permutations("LEVEL"))),
    lambda: sum("11" not in f"{n:08b}" for n in range(256)),
    lambda: sum(sum(dice) == 10 for dice in itertools.product(range(1, 7), repeat=3)),
    lambda: sum(0 < sum(each < 5 for each in four) < 4 for four in itertools.combinations(range(11), 4)),
    walks,
    lambda: sum(all(p[i] != i for i in range(5)) for p in itertools.permutations(range(5))),
    lambda: sum(sum(three) % 2 == 0 for three in itertools.combinations(range(1, 11), 3)),
    lambda: next(x**3 + y**3 for x in range(-99, 99) for y in range(-99, 99) if x + y == 9 and x * y == 14),
    lambda: next(n for n in itertools.count(1) if sum(range(n + 1)) == 1275),
    lambda: functools.reduce(lambda a, _: 2 * a - 1, range(8), 3),
    lambda: math.prod(x for x in range(-99, 99) if abs(x * x - 10) == 6),
    lambda: sum(x**4 for x in range(-99, 99) if x**3 - 6 * x**2 + 11 * x - 6 == 0),
    lambda: sum(sum(Fraction(1, k * (k + 1)) for k in range(1, 100)).as_integer_ratio()),
    lambda: max(c for c in range(1, 1000) for b in range(1, c) if b * b + 400 == c * c),
    cells_inside,
    lambda: sum((b - a) % 14 not in (1, 13) for a, b in itertools.combinations(range(14), 2)),
    inradius,
]


def test_the_sample_is_right(root: Path) -> None:
    path = root / "data" / "math" / "sample.jsonl"
    problems = read_problems(str(path))
    assert [int(each.answer) for each in problems] == [answer() for answer in BRUTE]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["id"] for row in rows] == list(range(1, len(BRUTE) + 1))
    assert all(row.keys() == {"id", "problem", "solution", "answer"} for row in rows)
    assert all(boxed_answer(row["solution"]) == row["answer"] and 0 <= int(row["answer"]) <= 999 for row in rows)
