"""The packages that environments are compared with, in a virtual environment and a process of their own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from sesa_lab.errors import InputError
from sesa_lab.runs.environment import PROJECT

PYTHON = PROJECT / ".venv" / "rivals" / "bin" / "python"  # made by `make bench` from rivals/requirements.txt
SCRIPT = PROJECT / "rivals" / "measure.py"
PACKAGES = ("gymnasium", "gym-sokoban", "reasoning-gym")


class Rivals:
    """The process of ``rivals/measure.py``; it works only while it is asked."""

    def __init__(self, python: Path | str = PYTHON, script: Path = SCRIPT) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [str(python), "-I", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def ask(self, work: str, **load: Any) -> dict[str, Any]:
        """Have it do some work.

        Raises:
            InputError: the process ended, with the last thing it said.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"work": work, **load}) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise InputError(
                f"the rivals' process ended at {work!r} ({self._last_words()}); `make bench` installs what it needs"
            )
        found: dict[str, Any] = json.loads(answer)
        return found

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().strip().splitlines()
        return said[-1] if said else f"exit code {code}"

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # what a process that is gone has not read
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._errors.close()
