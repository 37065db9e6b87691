"""Executes a notebook with parameters in this interpreter's environment and keeps what it printed and drew."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellControlSignal, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from sesa_lab.errors import InputError, NotebookError, suggest
from sesa_lab.reports.parameters import check, literals

HERE = "python3"
"""The kernel that means: the interpreter that runs this, whatever is registered under that name."""


class _HereKernelManager(AsyncKernelManager):
    """Starts ipykernel by ``sys.executable``: a registered kernelspec may point into another environment."""

    @property
    def kernel_spec(self) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="Python 3", language="python")


def execute(
    notebook: Path,
    out: Path,
    parameters: Mapping[str, Any] | None = None,
    kernel: str = HERE,
    folder: Path | None = None,
) -> Path:
    """Runs all cells; progress goes to stderr, one line a code cell.

    Args:
        notebook: with one cell tagged ``parameters``, assignments of literals.
        out: where the executed notebook goes, also when a cell fails (up to that cell). Widget state is dropped.
        parameters: by name; each must be in the tagged cell and of its default's type.
        kernel: ``python3`` is this interpreter; another name is looked up among the registered kernels.
        folder: the kernel's working folder; None: the notebook's own, as in JupyterLab.

    Returns:
        ``out``.

    Raises:
        InputError: before anything runs: no such notebook, an unknown parameter or a value of another type.
        NotebookError: a cell failed or the kernel died.
    """
    notebook, out, given = Path(notebook).resolve(), Path(out).resolve(), dict(parameters or {})
    cells = _read(notebook).cells
    check(given, defaults(notebook), notebook.name)
    total = sum(cell.cell_type == "code" for cell in cells) + bool(given)
    done = iter(range(1, total + 1))

    def progress(cell: Any, cell_index: int) -> None:
        print(f"{notebook.name}: cell {next(done, total)} of {total}", file=sys.stderr, flush=True)

    options: dict[str, Any] = {"kernel_manager_class": _HereKernelManager} if kernel == HERE else {}
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            notebook, out, parameters=given, kernel_name=kernel, language="python", progress_bar=False,
            cwd=folder or notebook.parent, on_cell_execute=progress, **options,
        )  # fmt: skip
    except PapermillExecutionError as error:
        head = next((line for line in error.source.splitlines() if line.strip()), "")
        raise NotebookError(
            f"{notebook.name}, cell [{error.exec_count}] ({head.strip()!r}): {error.ename}: {error.evalue};"
            f" the notebook up to there is in {out}"
        ) from error
    except (DeadKernelError, CellControlSignal) as error:
        raise NotebookError(f"{notebook.name}: the kernel stopped ({error}); what it wrote is in {out}") from error
    except NoSuchKernel as error:
        known = sorted(KernelSpecManager().find_kernel_specs())
        raise InputError(f"no kernel {kernel!r}; {suggest(kernel, known)}") from error
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}; mend the folder's permissions or space") from error
    finally:
        if out.exists():
            _strip(out)
    return out


def defaults(notebook: Path) -> dict[str, Any]:
    """The literals of the cell tagged ``parameters``, by name; empty where no cell has the tag."""
    cells = [cell for cell in _read(notebook).cells if "parameters" in cell.metadata.get("tags", [])]
    return literals(cells[0].source, Path(notebook).name) if cells else {}


def _read(notebook: Path) -> Any:
    try:
        return nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    except FileNotFoundError:
        raise InputError(f"{notebook} does not exist, expected a notebook (.ipynb)") from None
    except (nbformat.reader.NotJSONError, UnicodeDecodeError, AttributeError) as error:
        raise InputError(f"{notebook} is not a notebook ({type(error).__name__}), expected an .ipynb file") from error


def _strip(path: Path) -> None:
    """Drops widget state from an executed notebook: megabytes that no report shows."""
    try:
        notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    except nbformat.reader.NotJSONError:  # half written; why is being told
        return
    if notebook.metadata.pop("widgets", None) is not None:
        nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
