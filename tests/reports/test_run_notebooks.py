"""Execution with parameters: checked before, named when it fails, in this interpreter."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
import pytest

from sesa_lab.errors import InputError
from sesa_lab.reports.parameters import check
from sesa_lab.reports.run_notebooks import NotebookError, defaults, execute
from tests.reports.samples import code, save, text

PARAMETERS = """
# how long
steps = 10
rate: float = 0.5
name = "a"
seeds = [
    0,
    1,
]
flag = False
free = None
"""


def notebook(path: Path, *sources: str) -> Path:
    return save(path, text("# T"), code(PARAMETERS, tags=("parameters",)), *[code(source) for source in sources])


def test_defaults_span_lines(tmp_path: Path) -> None:
    assert defaults(notebook(tmp_path / "a.ipynb")) == {
        "steps": 10, "rate": 0.5, "name": "a", "seeds": [0, 1], "flag": False, "free": None,
    }  # fmt: skip
    assert defaults(save(tmp_path / "b.ipynb", code("x = 1"))) == {}
    with pytest.raises(InputError, match="parameter x is not a literal"):
        defaults(save(tmp_path / "c.ipynb", code("x = f()", tags=("parameters",))))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stepz": 1}, "did you mean 'steps'"),
        ({"steps": 1.5}, r"parameter steps is 1.5 \(float\), expected int like its default 10"),
        ({"steps": True}, "expected int"),
        ({"steps": "3"}, "expected int"),
        ({"flag": 1}, "expected bool"),
        ({"rate": "x"}, "expected float"),
        ({"seeds": 3}, "expected list"),
        ({"seeds": ["a"]}, "expected list like its default"),
    ],
)
def test_bad_parameters_raise_before_anything_runs(tmp_path: Path, given: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        execute(notebook(tmp_path / "a.ipynb", "open('ran', 'w')"), tmp_path / "out.ipynb", given)
    assert not (tmp_path / "out.ipynb").exists() and not (tmp_path / "ran").exists()


def test_good_parameters_pass() -> None:
    known = {"steps": 1, "rate": 0.5, "seeds": [0], "free": None, "options": {}}
    check({"steps": 2, "rate": 1, "seeds": (), "free": "x", "options": {"a": 1}}, known, "n")


def test_bad_files_raise(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        execute(tmp_path / "no.ipynb", tmp_path / "out.ipynb")
    (tmp_path / "b.ipynb").write_text("no json")
    with pytest.raises(InputError, match="is not a notebook"):
        execute(tmp_path / "b.ipynb", tmp_path / "out.ipynb")
    with pytest.raises(InputError, match="no kernel 'julia'"):
        execute(notebook(tmp_path / "a.ipynb", "1"), tmp_path / "out.ipynb", kernel="julia")


@pytest.mark.slow
def test_runs_here_with_parameters(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = notebook(
        tmp_path / "deep" / "a.ipynb", "import sys, os", "print(sys.executable, steps, rate, os.getcwd())"
    )
    before = source.read_bytes()
    saved = nbformat.read(source, as_version=4)  # type: ignore[no-untyped-call]
    saved.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    nbformat.write(saved, source)  # type: ignore[no-untyped-call]
    before = source.read_bytes()
    out = execute(source, tmp_path / "new" / "out.ipynb", {"steps": 3, "rate": 2})
    done = nbformat.read(out, as_version=4)  # type: ignore[no-untyped-call]
    printed = "".join(output.text for cell in done.cells if cell.cell_type == "code" for output in cell.outputs)
    assert printed.split() == [sys.executable, "3", "2", str(tmp_path / "deep")]
    assert "widgets" not in done.metadata
    assert source.read_bytes() == before
    assert "a.ipynb: cell 4 of 4" in capfd.readouterr().err


@pytest.mark.slow
def test_a_failure_names_notebook_and_cell_and_keeps_the_rest(tmp_path: Path) -> None:
    source = notebook(tmp_path / "a.ipynb", "print('before')", "\n1 / 0", "print('after')")
    with pytest.raises(NotebookError, match=r"a.ipynb, cell \[3\] \('1 / 0'\): ZeroDivisionError: division by zero"):
        execute(source, tmp_path / "out.ipynb")
    saved = (tmp_path / "out.ipynb").read_text()
    assert "before" in saved and '"after\\n"' not in saved


@pytest.mark.slow
def test_a_dead_kernel_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotebookError, match="the kernel stopped"):
        execute(notebook(tmp_path / "a.ipynb", "import os; os._exit(1)"), tmp_path / "out.ipynb")
    assert (tmp_path / "out.ipynb").exists()
