"""Run folders: written by the training loop, read by everything else. CONTRIBUTING.md says what they hold."""

from sesa_lab.runs.checkpoint import check_sizes
from sesa_lab.runs.load import Run, find, load, table
from sesa_lab.runs.store import LockedError, NotEmptyError, RunWriter, in_use

__all__ = ["LockedError", "NotEmptyError", "Run", "RunWriter", "check_sizes", "find", "in_use", "load", "table"]
