"""Notebooks under papermill itself, from any folder: parameters as the command line leaves them, and where defaults lie."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from sesa_lab.errors import InputError
from sesa_lab.reports import parameters
from sesa_lab.reports.parameters import settle
from tests.reports.samples import code, save

OWN = "seeds = [0, 1]  # of runs\nsteps = 20\nruns = '../runs/agents'\nsettings = {}\npair = (1, 2)\nfree = None"


def given(values: str) -> dict[str, Any]:
    """The variables of a notebook after papermill was given some, in a kernel that runs in the current folder."""
    names: dict[str, Any] = {}
    for source in (OWN, values):
        exec(source, names)
    settle(["", OWN, *([f"# Parameters\n{values}\n"] if values else []), "import os"], names)
    return {name: value for name, value in names.items() if name != "__builtins__"}


# --- what was given -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "name", "read"),
    [
        ("seeds = '[0,1]'", "seeds", [0, 1]),
        ("seeds = '(3,)'", "seeds", [3]),
        ("seeds = '0, 1'", "seeds", [0, 1]),
        ("seeds = []", "seeds", []),
        ("pair = '[3, 4]'", "pair", (3, 4)),
        ("settings = '{\"run\": {\"groups\": 2}, \"deep\": [true, null]}'", "settings",
         {"run": {"groups": 2}, "deep": [True, None]}),
        ("settings = \"{'sampler': {'max_tokens': 8}}\"", "settings", {"sampler": {"max_tokens": 8}}),
        ("free = '[0, 1]'", "free", "[0, 1]"),
        ("runs = '[0, 1]'", "runs", "[0, 1]"),
        ("steps = 5", "steps", 5),
    ],
)  # fmt: skip
def test_text_is_read_where_the_default_is_a_list_tuple_or_dict(values: str, name: str, read: object) -> None:
    found = given(values)[name]
    assert found == read and type(found) is type(read)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("stesp = 5", "this notebook has no parameter 'stesp'; did you mean 'steps'"),
        ("seeds = 3", r"seeds is 3 \(int\), expected list like its default \[0, 1\]; give e.g. -p seeds '\[0, 1\]' or"),
        ("seeds = '0-4'", r"seeds is '0-4' \(str\), expected list .* or -y '\{seeds: \[0, 1\]\}'$"),
        ("seeds = '[0,1'", r"seeds is '\[0,1' \(str\), expected list"),
        ("seeds = '[\"a\"]'", r"seeds is \['a'\] \(list\), expected list"),
        ("seeds = '3'", r"seeds is 3 \(int\), expected list"),
        ("seeds = '{0, 1}'", r"seeds is \{0, 1\} \(set\), expected list"),
        ('settings = \'list(open("ran", "w"))\'', r"settings is .* \(str\), expected dict .* -p settings '\{\}'"),
        ("steps = '20'", r"steps is '20' \(str\), expected int like its default 20$"),
        ("runs = 7", r"runs is 7 \(int\), expected str like its default '../runs/agents'; -r runs VALUE gives text"),
    ],
)
def test_what_cannot_be_read_is_one_error_that_names_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said):
        given(values)
    assert list(tmp_path.iterdir()) == [], "read, never evaluated"


@pytest.mark.parametrize("text", ["[" * 100_000, "\0", "{[]: 1}", "9" * 5_000, "-" * 100_000 + "1"])
def test_hostile_text_is_no_more_than_a_text(text: str) -> None:
    with pytest.raises(InputError, match="expected list like its default"):
        given(f"seeds = {text!r}")


def test_of_cells_executed_again_the_last_that_was_given_counts() -> None:
    names: dict[str, Any] = {"seeds": "[5]"}
    bad, good = "# Parameters\nseeds = 'a'\n", "# Parameters\nseeds = '[5]'\n"
    settle(["", OWN, bad, "import os\nx = f()", good, "import os\nx = f()"], names)
    assert names == {"seeds": [5]}


# --- where defaults lie ---------------------------------------------------------------------------------------------


def test_a_default_is_seen_from_the_notebooks_and_what_is_given_from_the_kernel_s_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    for folder, expected in (
        (root, "runs/agents"),
        (root / "notebooks", "../runs/agents"),
        (root / "tests" / "reports", str(root / "runs" / "agents")),
        (tmp_path, str(root / "runs" / "agents")),
    ):
        monkeypatch.chdir(folder)
        assert given("")["runs"] == given("steps = 5")["runs"] == expected
        assert given("runs = '../runs/agents'")["runs"] == "../runs/agents"
        assert given("free = '../x'")["free"] == "../x"


def test_an_installed_package_without_notebooks_leaves_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parameters, "NOTEBOOKS", tmp_path / "site-packages" / "notebooks")
    assert given("")["runs"] == "../runs/agents"
    (tmp_path / "site-packages" / "notebooks").mkdir(parents=True)
    assert given("")["runs"] == "../runs/agents", "a folder of that name that is not ours"


@pytest.mark.parametrize("first", ["", "x = f()", "1 +", "%%time\nx"])
def test_whatever_is_executed_first_in_jupyterlab_is_let_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"runs": "../runs/agents"}
    settle(["", first], names)
    settle(["", "runs = '../other'"], names)
    assert names == {"runs": "../runs/agents"}, "rebound since"


# --- papermill itself -----------------------------------------------------------------------------------------------


def papermill(folder: Path, notebook: Path | str, *given: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "papermill", str(notebook), *given]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=400, check=False)


def outputs(path: Path) -> list[Any]:
    """All outputs of an executed notebook."""
    cells = nbformat.read(path, as_version=4).cells  # type: ignore[no-untyped-call]
    return [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.mark.slow
@pytest.mark.parametrize("told", [True, False])
def test_variables_are_those_that_were_settled(tmp_path: Path, root: Path, told: bool) -> None:
    source = save(
        tmp_path / "a.ipynb",
        code(OWN, tags=("parameters",)),
        code("from sesa_lab.reports import parameters\n\nparameters.settle()"),
        code("print(repr((seeds, steps, runs, settings)))"),
    )
    more = ("-p", "seeds", "[3,4]", "-p", "steps", "5", "-p", "settings", '{"a": 1}') if told else ()
    values = ([3, 4], 5, {"a": 1}) if told else ([0, 1], 20, {})
    for folder, runs in ((root, "runs/agents"), (tmp_path, str(root / "runs" / "agents"))):
        done = papermill(folder, source, str(tmp_path / "out.ipynb"), "-k", "python3", "-l", "python", *more)
        assert done.returncode == 0, done.stderr
        assert eval(outputs(tmp_path / "out.ipynb")[-1].text) == (*values[:2], runs, values[2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("notebook", "more", "said"),
    [
        ("01_path_exploration.ipynb", ("-p", "sedes", "3"), "did you mean 'seeds'"),
        ("03_countdown.ipynb", ("-p", "seeds", "[0,1", "-p", "model", "m"), "give e.g. -p seeds '[1, 2, 3]' or -y"),
        (
            "03_countdown.ipynb",
            ("-p", "seeds", "[0,1]", "-p", "model", "7"),
            "parameter model is 7 (int), expected str",
        ),
    ],
)
def test_a_bad_parameter_is_refused_before_any_training_and_the_notebook_so_far_is_kept(
    tmp_path: Path, root: Path, notebook: str, more: tuple[str, ...], said: str
) -> None:
    out = tmp_path / "out.ipynb"
    done = papermill(root, f"notebooks/{notebook}", str(out), "-p", "runs", str(tmp_path / "runs"), *more)
    assert done.returncode != 0 and said in done.stderr
    (error,) = [output for output in outputs(out) if output.output_type == "error"]
    assert error.ename == "InputError" and said in error.evalue
    assert sorted(tmp_path.iterdir()) == [out]


@pytest.mark.slow
def test_the_claims_notebook_needs_no_parameters_anywhere(tmp_path: Path, root: Path) -> None:
    for place, folder in enumerate((root, tmp_path)):
        out = tmp_path / f"out-{place}.ipynb"
        done = papermill(folder, root / "notebooks" / "11_claims.ipynb", str(out))
        assert done.returncode == 0, done.stderr
        assert any("<table" in output.get("data", {}).get("text/html", "") for output in outputs(out))
    assert str(root) not in "".join(str(output) for output in outputs(tmp_path / "out-0.ipynb"))
