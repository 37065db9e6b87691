"""The collapse microscope: which strategies a run takes, step by step, beside the curves that tell of collapse. Reads runs.

``data`` reads a run's few columns into small tables, ``clusters`` groups its texts where strategies say too little, ``figures``
draws both, ``panel`` links one or two runs on one step.
"""

from sesa_lab.microscope.data import Heat, Selection, View, heat, read, samples
from sesa_lab.microscope.panel import CollapseMicroscope

__all__ = ["CollapseMicroscope", "Heat", "Selection", "View", "heat", "read", "samples"]
