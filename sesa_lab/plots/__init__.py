"""Figures from tables: curves with bands, estimates with intervals, the tree of places, episodes. Nothing here reads a run.

One template for all, transparent and mid-grey so that it reads on a light and on a dark page; arms are told apart by
the Okabe-Ito colours (colour-blind safe) and by dashes. Every text that may hold a model's words is escaped here.
A report recolours figures for dark pages; ``layout.meta["dark"]`` holds what a figure wants changed there.
"""

from sesa_lab.plots.gallery import Replay, gallery, text_frame
from sesa_lab.plots.lines import axis, bars, curves, panels
from sesa_lab.plots.plane import START, planes
from sesa_lab.plots.theme import BANDS, BARS, COLOURS, TEMPLATE, escape, provenance
from sesa_lab.plots.tree import MASS_DARK, MASS_LIGHT, tree

__all__ = [
    "BANDS",
    "BARS",
    "COLOURS",
    "MASS_DARK",
    "MASS_LIGHT",
    "START",
    "TEMPLATE",
    "Replay",
    "axis",
    "bars",
    "curves",
    "escape",
    "gallery",
    "panels",
    "planes",
    "provenance",
    "text_frame",
    "tree",
]
