"""Batch reproduction: declared experiments -> runs -> notebooks -> reports and numbers, resumable anywhere.

``declaration`` reads an experiment's file, ``plan`` says which runs and notebooks it comes to, ``matrices`` how arms are made,
``work`` brings them about, ``results`` works out the numbers, ``pages`` writes the files that people open.
"""

from sesa_lab.reproduce.declaration import Experiment, known, load
from sesa_lab.reproduce.plan import Plan, plan
from sesa_lab.reproduce.work import reproduce

__all__ = ["Experiment", "Plan", "known", "load", "plan", "reproduce"]
