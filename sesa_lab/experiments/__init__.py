"""Experiments: matrices of runs, executed where missing, read as one table."""

from sesa_lab.experiments.jobs import Job, execute
from sesa_lab.experiments.matrix import Arm, jobs_for, read

__all__ = ["Arm", "Job", "execute", "jobs_for", "read"]
