"""The loss playground: one stored step under every loss and correction, with sliders. Reads runs, never a policy.

``stored`` reads the step, ``compute`` puts it through ``training.losses`` and ``training.credit``, ``figures`` draws the result and
``panel`` has the controls.
"""

from sesa_lab.playground.compute import CORRECTIONS, Result, Rule, compare, compute, rule
from sesa_lab.playground.panel import LossPlayground
from sesa_lab.playground.stored import Step, read

__all__ = ["CORRECTIONS", "LossPlayground", "Result", "Rule", "Step", "compare", "compute", "read", "rule"]
