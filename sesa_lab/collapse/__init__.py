"""The collapse lab: what a run's own groups tell about collapse, when it began, and what became of the run.

Signals are read off the groups that training draws (``signals``), a detector says when they have collapsed (``detector``), and a
run's evaluations say whether they had (``outcome``). Nothing here sees a model; ``training.watch`` asks it while training.
"""

from sesa_lab.collapse.detector import Alarm, Detector, Thresholds, detect
from sesa_lab.collapse.outcome import COLLAPSED, HEALTHY, Outcome, outcome, score_alarms
from sesa_lab.collapse.signals import COLUMNS, SIGNALS, Drawn, direct_of, of_rollouts, step_signals

__all__ = [
    "COLLAPSED",
    "COLUMNS",
    "HEALTHY",
    "SIGNALS",
    "Alarm",
    "Detector",
    "Drawn",
    "Outcome",
    "Thresholds",
    "detect",
    "direct_of",
    "of_rollouts",
    "outcome",
    "score_alarms",
    "step_signals",
]
