"""Files of every kind, whole, damaged and hostile."""

from __future__ import annotations

import csv
import gzip
import json
import pickle
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from writer_process import config, rollouts, write

from sesa_lab.errors import InputError
from sesa_lab.foreign.files import Table, clean, tables
from sesa_lab.runs import RunWriter, environment

ROWS = [{"text": "a", "n": 1}, {"text": "b\u2028c", "m": None}]
HOSTILE = ["\x00\x1b[31m", "\u202eevil", "", "x" * 10**6, "a\ud800b", "<script>", '"', "=1+1", "\r\n", "\u2028"]


def one(path: Path) -> Table:
    (table,) = tables([str(path)])
    return table


def cells(table: Table) -> dict[str, list[Any]]:
    return {name: table.read(name) for name in table.names}


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    # A byte order mark, Windows' line ends, an empty line, U+2028 inside a text, no line end at the end.
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode())
    table = one(path)
    assert (table.names, table.rows, table.notes) == (("text", "n", "m"), 2, ())
    assert cells(table) == {"text": ["a", "b\u2028c"], "n": [1, None], "m": [None, None]}


@pytest.mark.parametrize("name", ["x.jsonl.gz", "X.NDJSON.GZ", "x.json.gz", "x.csv.gz"])
def test_packed(tmp_path: Path, name: str) -> None:
    plain = {"csv": "text\na\nb\n", "json": '[{"text": "a"}, {"text": "b"}]'}
    data = plain.get(name.split(".")[1].lower(), '{"text": "a"}\n{"text": "b"}\n')
    (tmp_path / name).write_bytes(gzip.compress(data.encode()))
    assert cells(one(tmp_path / name)) == {"text": ["a", "b"]}
    (tmp_path / name).write_bytes(gzip.compress(data.encode())[:-9])
    with pytest.raises(InputError, match=r"cannot read .*ended before"):
        tables([str(tmp_path / name)])
    (tmp_path / name).write_bytes(b"not packed")
    with pytest.raises(InputError, match="cannot read"):
        tables([str(tmp_path / name)])


def test_a_last_line_that_is_cut_off_is_left_out_and_said(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a"}\n\n{"text": "b"}\n{"text": "c\n\n')
    table = one(path)
    assert table.read("text") == ["a", "b"]
    assert "x.jsonl line 4, the last, is cut off" in table.notes[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}\n{"a": \n{"a": 2}\n', "line 2 is no JSON"),
        ('{"a": ', "line 1 is no JSON"),
        ('{"a": 1}\n[2]\n', r"line 2 holds \[2\], expected an object"),
        ('{"a": 1}\n' + "[" * 200_000, "line 2 is no JSON"),
        # A list in one line, and one that was printed over several.
        ('[{"a": 1}]', "line 1 holds .*is it a .json file"),
        ('[\n {"a": 1}\n]\n', "line 1 is no JSON .*is it a .json file"),
        ('{\n "a": 1\n}\n', "line 1 is no JSON .*is it a .json file"),
    ],
)
def test_damaged_json_lines(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.jsonl").write_text(content)
    with pytest.raises(InputError, match=message):
        tables([str(tmp_path / "x.jsonl")])


def test_numbers_of_any_length(tmp_path: Path) -> None:
    # Python makes no whole number of more than 4,300 digits; what is longer becomes infinite, as any number beyond 1e308.
    numbers = ("9" * 3_000, "-" + "9" * 9_000, "NaN", "1e999")
    (tmp_path / "x.jsonl").write_text("".join(f'{{"n": {number}}}\n' for number in numbers))
    found = one(tmp_path / "x.jsonl").read("n")
    assert found[0] == 10**3000 - 1 and found[1] == -float("inf") and found[2] != found[2] and found[3] == float("inf")


@pytest.mark.parametrize(
    "content",
    [
        [{"text": "a"}, {"text": "b"}],
        {"text": ["a", "b"], "n": [1, 2]},
        {"model": "m", "results": [{"text": "a"}, {"text": "b"}], "tags": []},
    ],
)
def test_json(tmp_path: Path, content: Any) -> None:
    (tmp_path / "x.json").write_text(json.dumps(content))
    assert one(tmp_path / "x.json").read("text") == ["a", "b"]


@pytest.mark.parametrize(
    "content", ["3", '{"a": 1}', '[{"a": 1}, 2]', '[{"a": 1}', '{"a": [{}], "b": [{}, {}]}', "[" * 200_000]
)
def test_json_of_another_kind(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(InputError, match="expected a list of objects"):
        tables([str(tmp_path / "x.json")])


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b'\xef\xbb\xbftext,n,n\r\n"a,\n""b""",1,2\r\n\r\n,3,4\r\n')
    limit = csv.field_size_limit()
    table = one(path)
    # Two columns of one name: neither is taken for the other.
    assert cells(table) == {"text": ['a,\n"b"', None], "n (1)": ["1", "3"], "n (2)": ["2", "4"]}
    assert csv.field_size_limit() == limit


def test_csv_that_does_not_fit(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("a\tb\n1\t2\n1\t2\t3\n")
    with pytest.raises(InputError, match="sample 2 has 3 cells, expected 2"):
        tables([str(tmp_path / "x.tsv")])
    for damaged in ('a,b\n1,"cut off', 'a\n"b"c\n'):
        (tmp_path / "x.csv").write_text(damaged)
        with pytest.raises(InputError, match=r"x\.csv is no CSV"):
            tables([str(tmp_path / "x.csv")])


@pytest.mark.parametrize(("name", "delimiter"), [("x.csv", ";"), ("x.csv", "\t"), ("x.tsv", ",")])
def test_csv_with_another_delimiter(tmp_path: Path, name: str, delimiter: str) -> None:
    (tmp_path / name).write_text(f"prompt{delimiter}completion\np{delimiter}a, b\n")
    with pytest.raises(InputError, match=r"has one column, .*seem to be parted by .*, expected") as caught:
        tables([str(tmp_path / name)])
    assert repr(delimiter) in str(caught.value)


def test_parquet(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": [[{"role": "assistant", "content": "a"}], None],
            "a.b": [1, None],
            "a": [{"b": 9}, {"b": 8}],
            "raw": pa.array([b"\xff", b"ok"], pa.binary()),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    found = cells(one(tmp_path / "x.parquet"))
    assert found == table.to_pydict()
    pq.write_table(table.rename_columns(["t", "t", "u", "v"]), tmp_path / "x.parquet")
    assert cells(one(tmp_path / "x.parquet"))["t (2)"] == [1, None]


def test_text_in_parquet_that_is_no_utf8(tmp_path: Path) -> None:
    wrong = pa.array([b"a\xff", None, b"b"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": wrong, "deep": pa.array([[x] for x in range(3)])}), tmp_path / "x.parquet")
    assert one(tmp_path / "x.parquet").read("text") == ["a\udcff", None, "b"]
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 1, 1], pa.int32()), wrong[:1])
    pq.write_table(pa.table({"text": lists}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="cannot read column 'text'"):
        one(tmp_path / "x.parquet").read("text")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\x00" * 50 + b"PAR1"])
def test_damaged_parquet(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"cannot read .*x\.parquet"):
        tables([str(tmp_path / "x.parquet")])


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    for name in ("val_rollouts_1.pkl", "x.pt", "x.pickle.gz"):
        (tmp_path / name).write_bytes(pickle.dumps(Evil()))
        with pytest.raises(InputError, match="may run code"):
            tables([str(tmp_path / name)])
    assert not (tmp_path / "ran").exists()


def test_what_is_refused(tmp_path: Path) -> None:
    for name, message in (("x.txt", "ends in '.txt', expected one of .jsonl"), ("x", "ends in 'nothing'")):
        (tmp_path / name).write_text("a")
        with pytest.raises(InputError, match=message):
            tables([str(tmp_path / name)])
    (tmp_path / "x.csv").write_bytes("a,b\n".encode("utf-16"))
    with pytest.raises(InputError, match="UTF-16, expected UTF-8"):
        tables([str(tmp_path / "x.csv")])
    with pytest.raises(InputError, match=r"nothing at .*no/such"):
        tables([str(tmp_path / "no" / "such.jsonl")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no samples in .*empty"):
        tables([str(tmp_path / "empty")])


def test_places_that_the_system_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # pathlib raises these, OSError 36 and RuntimeError, where a place is only looked at.
    for place in ("~nouser-of-that-name/x.jsonl", str(tmp_path / ("x" * 300)), str(tmp_path / ("x" * 300 + "*"))):
        with pytest.raises(InputError, match="check the path"):
            tables([place])

    def denied(folder: Path) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(InputError, match=r"cannot look for samples at .*: Permission denied"):
        tables([str(tmp_path)])


def test_names_of_files_do_not_steer_the_terminal(tmp_path: Path) -> None:
    evil = "e\x1b[31m\u202e\nvil"
    contents = {
        ".jsonl": ("[1]", "{"), ".json": ("3", "{"), ".csv": ("a,b\n1", 'a\n"', "a;b\n"), ".parquet": ("x",),
        ".csv.gz": ("x",), ".pkl": ("x",), f".{evil}": ("x",), ".tsv": ("\xff\xfe",),
    }  # fmt: skip
    for ending, texts in contents.items():
        for text in texts:
            path = tmp_path / f"{evil}{ending}"
            path.write_text(text, encoding="latin-1")
            with pytest.raises(InputError, match=r"e·\[31m··vil") as caught:
                tables([str(path)])
            assert str(caught.value).isprintable()
    folder = tmp_path / f"{evil}d"
    folder.mkdir()
    for place in (folder, tmp_path / f"{evil}nothing"):
        with pytest.raises(InputError, match=r"e·\[31m··vil"):
            tables([str(place)])
    (folder / "config.json").write_text("{}")
    (folder / "environment.json").write_text("{")
    with pytest.raises(InputError) as caught:
        tables([str(folder)])
    assert str(caught.value).isprintable()
    cut = tmp_path / f"{evil}2.jsonl"
    cut.write_text('{"a": 1}\n{')
    assert one(cut).notes[0].isprintable() and one(cut).where.isprintable()


def test_a_file_is_never_held_as_a_whole(tmp_path: Path) -> None:
    # 40 MB, of which 8 kB are asked for: read as a whole, split and parsed it took several times its size.
    row = {"text": "x" * 10_000, "n": 1}
    for name in ("x.jsonl", "x.csv"):
        with open(tmp_path / name, "w") as file:
            line = f"{json.dumps(row)}\n" if name == "x.jsonl" else f"{row['text']},1\n"
            file.write("" if name == "x.jsonl" else "text,n\n")
            file.writelines([line] * 4_000)
        tracemalloc.start()
        assert len(one(tmp_path / name).read("n")) == 4_000
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4e6


def test_folders_and_globs(tmp_path: Path, lines: Callable[..., Path]) -> None:
    (tmp_path / "v").mkdir()
    for name in ("v/1.jsonl", "v/2.jsonl", "v/.3.jsonl", "v/metadata.json", "v/notes.txt"):
        lines([{"text": name}], name)
    # A folder's JSON lines; what lies beside them, hidden files and metadata, is not samples.
    assert [table.read("text")[0] for table in tables([str(tmp_path / "v")])] == ["v/1.jsonl", "v/2.jsonl"]
    # A file that is meant twice is read once.
    assert len(tables([str(tmp_path / "v" / "*.jsonl"), str(tmp_path / "v" / "1.jsonl"), str(tmp_path / "v")])) == 2
    assert len(tables([str(tmp_path / "**" / "1.jsonl")])) == 1
    (tmp_path / "link").symlink_to(tmp_path / "v")
    assert len(tables([str(tmp_path / "v"), str(tmp_path / "link"), str(tmp_path / "v" / ".." / "v" / "1.jsonl")])) == 2
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "x.json").write_text('[{"text": "w"}]')
    assert tables([str(tmp_path / "w")])[0].read("text") == ["w"]
    # TRL's folder: its model's JSON beside completions/.
    (tmp_path / "w" / "completions").mkdir()
    pd.DataFrame({"text": ["trl"]}).to_parquet(tmp_path / "w" / "completions" / "completions_00001.parquet")
    assert tables([str(tmp_path / "w")])[0].read("text") == ["trl"]
    # A name that is a glob too, and exists.
    lines([{"text": "[1]"}], "run[1].jsonl")
    assert tables([str(tmp_path / "run[1].jsonl")])[0].read("text") == ["[1]"]


def test_a_run_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "git", lambda folder: None)
    run = tmp_path / "run"
    write(RunWriter.create(run, config(9)), 6)
    table = one(run)
    expected = [row for step in range(1, 7) for row in rollouts(step)]
    assert table.rows == 36
    assert table.read("completion") == [row["completion"] for row in expected]
    assert len(tables([str(run / "rollouts")])) == 2  # its parts, as any Parquet
    shutil.copytree(run, tmp_path / "other")
    with pytest.raises(InputError, match="several run folders, expected one"):
        tables([str(run), str(tmp_path / "other")])


@given(st.lists(st.text() | st.sampled_from(HOSTILE), min_size=1, max_size=6))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_comes_back(tmp_path: Path, texts: list[str]) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(json.dumps({"t": text}) for text in texts))
    assert one(path).read("t") == texts
    # ``surrogatepass``: as a program writes that does not look; the bytes are no UTF-8, so they come back as other surrogates.
    with open(tmp_path / "x.csv", "w", encoding="utf-8", errors="surrogatepass", newline="") as file:
        csv.writer(file).writerows([["t", "n"], *([text, 1] for text in texts)])
    found = one(tmp_path / "x.csv").read("t")
    for came, text in zip(found, texts, strict=True):
        assert (came or "").encode("utf-8", "surrogateescape") == text.encode("utf-8", "surrogatepass").replace(
            b"", b""
        )


def test_names_of_columns_are_shown_in_one_line(tmp_path: Path) -> None:
    assert clean("a\x00\n\u202eb\ud800") == "a···b·"
    assert clean("") == "(empty)" and len(clean("x" * 999)) == 200
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"a\n": 1, "a\t": 2, "": 3}))
    assert cells(one(path)) == {"a· (1)": [1], "a· (2)": [2], "(empty)": [3]}
