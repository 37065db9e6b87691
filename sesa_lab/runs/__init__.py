"""Run folders: written by the training loop, read by everything else. CONTRIBUTING.md says what they hold."""

from sesa_lab.runs.load import Run, find, load, table
from sesa_lab.runs.store import RunWriter, in_use

__all__ = ["Run", "RunWriter", "find", "in_use", "load", "table"]
