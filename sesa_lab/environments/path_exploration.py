"""Path exploration: treasures are hidden at some leaves of a tree of places; an answer names one leaf.

With ``independent`` treasures nothing but memory of what was tried helps: each leaf is as likely as any other. With
``clustered`` ones there is structure to find: parents of leaves are taken in random order, and of each, half of its
leaves (rounded up, drawn at random) hold treasures, until all are placed. So a sibling of a treasure is a treasure
about every second time, except in the last parent, which may be unfinished: one of the world's largest countries may
take all. (Once every parent is half full, the halves left follow.)
"""

from __future__ import annotations

import dataclasses
import html
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sesa_lab.config import option
from sesa_lab.environments.contract import SingleTurn, check_index
from sesa_lab.environments.hierarchies import Hierarchy, china, synthetic, world
from sesa_lab.errors import InputError
from sesa_lab.seeding import stream
from sesa_lab.types import Frame, Score, Task

# Positions among the "environment" streams of a seed (hierarchies.py has 0); changing one changes every run.
_PRIOR, _TREASURES = 1, 2


@dataclass(frozen=True)
class PathExplorationOptions:
    """Name one leaf of a tree of places; treasures are hidden at some of them."""

    hierarchy: str = option(
        "synthetic",
        "the tree: synthetic (made-up names), china (province-city-district), world (continent > country > city)",
        choices=("synthetic", "china", "world"),
    )
    branching: str = option("8x5x5", "synthetic only: children of a node, level by level; 2 to 5 levels")
    hierarchy_seed: int = option(0, "fixes synthetic names and which leaves the prior favours", low=0, high=2**32 - 1)
    n_treasures: int = option(20, "leaves that hold a treasure; at most the number of leaves", low=1)
    treasures: str = option(
        "independent",
        "where they lie: independent (uniform over leaves) or clustered (half of the leaves of a few parents)",
        choices=("independent", "clustered"),
    )
    seed: int = option(0, "fixes which leaves hold the treasures", low=0, high=2**32 - 1)
    maps: int = option(1, "distinct treasure maps; task i is on map i mod maps", low=1, high=10_000)
    prior_exponent: float = option(
        1.0, "a of the Zipf prior over leaves, rank^-a, that a lab policy is pre-trained with", low=0.0, high=20.0
    )
    repeats: str = option(
        "count",
        "whether a path named earlier in its group earns again (count) or nothing (zero)",
        choices=("count", "zero"),
    )


class PathExploration(SingleTurn):
    """The environment; see ``contract.Environment`` for what every environment has.

    Attributes:
        hierarchy: the tree.
        leaves: canonical path texts, in the order of all arrays here.
        policy_options: the options a lab policy is pre-trained for; the others may differ from its card.
    """

    name = "path_exploration"
    policy_options: tuple[str, ...] = ("hierarchy", "branching", "hierarchy_seed", "prior_exponent")

    def __init__(self, options: PathExplorationOptions) -> None:
        """Build the tree; treasures are placed when first asked for.

        Raises:
            InputError: more treasures than leaves, or a branching that cannot be read.
        """
        self.options: dict[str, Any] = dataclasses.asdict(options)
        self.repeats: Literal["count", "zero"] = "zero" if options.repeats == "zero" else "count"
        self.hierarchy = _hierarchy(options)
        self.leaves = list(self.hierarchy.leaves)
        if options.n_treasures > len(self.leaves):
            raise InputError(
                f"n_treasures = {options.n_treasures} is out of range: the {options.hierarchy} hierarchy has"
                f" {len(self.leaves)} leaves; take fewer treasures or a larger tree"
            )
        self.count = options.maps
        self._options = options
        self._masks: dict[int, np.ndarray] = {}

    def task(self, index: int) -> Task:
        """Task ``index``: where to look on map ``index`` mod ``maps``. Says nothing of where the treasures are."""
        index = check_index(index)
        number = index % self._options.maps
        tree = self.hierarchy
        prompt = (
            f"Treasure map {number}: {self._options.n_treasures} treasures are hidden among {len(self.leaves)} places."
            f" A place is a path of {len(tree.levels)} names, {', '.join(tree.levels)}, joined by {tree.separator!r}:"
            f" {tree.separator.join(tree.levels)}. {tree.about} Name the one place where you look for a treasure."
            " Answer with the path only."
        )
        return Task(index, prompt, {"map": number, "levels": list(tree.levels), "separator": tree.separator})

    def score(self, task: Task, text: str) -> Score:
        """1.0 at a treasure, else 0.0; strategy is the leaf's canonical text. ``Hierarchy.find`` says what is read."""
        position = self.hierarchy.find(text)
        if position is None:
            return Score(0.0, False, None)
        found = bool(self.treasure_mask(task)[position])
        return Score(float(found), found, self.leaves[position])

    def enumerate(self, task: Task) -> list[str]:
        """All leaves."""
        return list(self.leaves)

    def solutions(self, task: Task) -> list[str]:
        """The leaves that hold a treasure."""
        return [leaf for leaf, found in zip(self.leaves, self.treasure_mask(task), strict=True) if found]

    def oracle(self, task: Task) -> str:
        """The first leaf that holds a treasure."""
        return self.leaves[int(np.flatnonzero(self.treasure_mask(task))[0])]

    def sketch(self, task: Task, text: str) -> str | None:
        """The region to look in: the first name of the path."""
        position = self.hierarchy.find(text)
        return None if position is None else self.leaves[position].split(self.hierarchy.separator)[0]

    def habitual(self, sketch: str) -> bool:
        """No region is a habit: skew is the prior's business here."""
        return False

    def render(self, task: Task, text: str = "") -> list[Frame]:
        """The question, then the path, one level a frame."""
        score = self.score(task, text)
        names = [] if score.strategy is None else score.strategy.split(self.hierarchy.separator)
        verdict = "a treasure" if score.success else "nothing here"
        frames = [_signpost("where to look?", ["?"])]
        for depth in range(1, len(names) + 1):
            frames.append(
                _signpost(verdict if depth == len(names) else self.hierarchy.levels[depth - 1], names[:depth])
            )
        return frames

    def prior(self) -> np.ndarray:
        """What a lab policy is pre-trained to answer: P(leaf) = rank^-a / sum of all, float64 (leaves,), sums to 1.

        Ranks 1, 2, ... are dealt to the leaves at random, fixed by ``hierarchy_seed``; they know nothing of ``seed``.
        """
        weights = np.arange(1, len(self.leaves) + 1, dtype=np.float64) ** -self._options.prior_exponent
        prior = np.empty_like(weights)
        order = stream(self._options.hierarchy_seed, "environment", _PRIOR).permutation(len(self.leaves))
        prior[order] = weights / weights.sum()
        return prior

    def treasure_mask(self, task: Task) -> np.ndarray:
        """Which leaves hold a treasure in ``task``: bool (leaves,), read-only."""
        number = task.data["map"]
        if number not in self._masks:
            mask = np.zeros(len(self.leaves), dtype=np.bool_)
            mask[self._order(number)[: self._options.n_treasures]] = True
            mask.flags.writeable = False
            self._masks[number] = mask
        return self._masks[number]

    def _order(self, number: int) -> np.ndarray:
        """All leaves in the order in which map ``number`` hides treasures at them: int64 (leaves,)."""
        generator = stream(self._options.seed, "environment", _TREASURES, number)
        if self._options.treasures == "independent":
            return generator.permutation(len(self.leaves))
        siblings = self.hierarchy.siblings
        first, rest = [], []
        for parent in generator.permutation(len(siblings)):
            leaves = generator.permutation(siblings[parent])
            half = (len(leaves) + 1) // 2
            first.append(leaves[:half])
            rest.append(leaves[half:])
        return np.concatenate(first + rest)


def _signpost(caption: str, names: list[str]) -> Frame:
    lines = "".join(
        f'<text x="{8 + 12 * depth}" y="{20 + 18 * depth}" font-size="13" fill="#7f7f7f">{html.escape(name)}</text>'
        for depth, name in enumerate(names)
    )
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 240 {14 + 18 * len(names)}">{lines}</svg>'
    return Frame(caption, " > ".join(names), svg)


def _hierarchy(options: PathExplorationOptions) -> Hierarchy:
    if options.hierarchy == "china":
        return china()
    if options.hierarchy == "world":
        return world()
    return synthetic(options.branching, options.hierarchy_seed)
