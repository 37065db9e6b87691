"""Anyone's samples: logs of TRL, verl, verifiers and others, and our own, as one table, and what can be measured on it.

``files`` turns a file into columns, ``cells`` a cell into a text, a verdict or a key, ``layouts`` finds out which column is what
and makes the table, ``measures`` measures it group by group. Nothing that is read is ever evaluated: no pickle, no ``eval``.
"""

from sesa_lab.foreign.files import clean
from sesa_lab.foreign.layouts import Asked, Samples, load
from sesa_lab.foreign.measures import Measured, about, measure

__all__ = ["Asked", "Measured", "Samples", "about", "clean", "load", "measure"]
