"""Path exploration: what is asked, where treasures lie, what is hidden, what an answer earns."""

from __future__ import annotations

import json
import time
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sesa_lab.environments import check, make
from sesa_lab.environments.path_exploration import PathExploration, PathExplorationOptions
from sesa_lab.errors import InputError
from sesa_lab.types import Episode, Score


def room(**options: Any) -> PathExploration:
    env = make("path_exploration", **options)
    assert isinstance(env, PathExploration)
    return env


def found(env: PathExploration, index: int = 0) -> set[str]:
    return {leaf for leaf, hit in zip(env.leaves, env.treasure_mask(env.task(index)), strict=True) if hit}


def parents(env: PathExploration, index: int = 0) -> int:
    return len({leaf.rsplit(env.hierarchy.separator, 1)[0] for leaf in found(env, index)})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"treasures": "clustered", "maps": 3, "repeats": "zero", "seed": 5},
        {"branching": "2x1", "n_treasures": 2},
        {"hierarchy": "china", "treasures": "clustered"},
        {"hierarchy": "world"},
    ],
)
def test_keeps_the_contract(options: dict[str, Any]) -> None:
    check(make("path_exploration", **options))


def test_options_are_resolved_and_rebuild_the_environment() -> None:
    env = room(n_treasures=5.0, seed=3)
    assert env.options["n_treasures"] == 5 and env.options["branching"] == "8x5x5"
    assert make(env.name, **env.options).options == env.options
    assert room().repeats == "count" and room(repeats="zero").repeats == "zero"


def test_the_number_of_treasures_is_exact() -> None:
    for kind in ("independent", "clustered"):
        for number in (1, 7, 120, 199, 200):
            env = room(treasures=kind, n_treasures=number)
            assert env.treasure_mask(env.task(0)).sum() == number


def test_more_treasures_than_leaves() -> None:
    with pytest.raises(InputError, match="n_treasures = 7 is out of range: the synthetic hierarchy has 6 leaves"):
        make("path_exploration", branching="3x2", n_treasures=7)
    assert len(found(room(branching="3x2", n_treasures=6))) == 6


def test_seed_moves_the_treasures_and_nothing_else() -> None:
    first, second = room(seed=0), room(seed=1)
    assert found(first) != found(second)
    assert first.leaves == second.leaves
    np.testing.assert_array_equal(first.prior(), second.prior())
    assert first.task(0) == second.task(0)  # the prompt cannot tell


def test_hierarchy_seed_moves_names_and_prior() -> None:
    first, second = room(hierarchy_seed=0), room(hierarchy_seed=1)
    assert not set(first.leaves) & set(second.leaves)
    assert (first.prior() != second.prior()).any()


def test_treasures_never_move() -> None:
    # Frozen on the day they were first made (numpy 2.4); other places make runs of one config incomparable.
    env = room()
    assert np.flatnonzero(env.treasure_mask(env.task(0)))[:6].tolist() == [0, 20, 40, 41, 45, 55]
    assert env.oracle(env.task(0)) == env.leaves[0] == "tezemu-fobubel-miri"


def test_maps() -> None:
    env = room(maps=3)
    # index mod 3: tasks 0, 3, 6 are on map 0
    assert [env.task(index).data["map"] for index in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert found(env, 0) == found(env, 3) != found(env, 1) != found(env, 2)
    assert env.task(0).prompt == env.task(3).prompt != env.task(1).prompt
    # map 0 lies where it lies without the other maps, and seed s + 1, map 0 is not seed s, map 1
    assert found(env, 0) == found(room())
    assert found(env, 1) != found(room(seed=1))


def test_clustered_treasures_fill_half_of_few_parents() -> None:
    # 40 parents of 5 leaves; half of 5, rounded up, is 3. 20 = 6 * 3 + 2 treasures lie in exactly 7 parents.
    # Independent: a parent stays empty with probability C(195, 20) / C(200, 20) = 0.585, so 40 * 0.415 = 16.6 are hit.
    clustered = [parents(room(treasures="clustered", maps=50), index) for index in range(50)]
    assert set(clustered) == {7}
    independent = [parents(room(maps=50), index) for index in range(50)]
    # 0.35 is the standard error of the mean of 50 (standard deviation below 2.5): 1.4 is 4 of them, alarm 1 in 10,000
    assert abs(np.mean(independent) - 16.6) < 1.4


def test_clustered_treasures_beyond_half_of_all() -> None:
    # 2 parents of 3 leaves take 2 each; the 5th treasure is one of the 2 leaves left
    env = room(branching="2x3", treasures="clustered", n_treasures=5, maps=4)
    for index in range(4):
        per_parent = env.treasure_mask(env.task(index)).reshape(2, 3).sum(axis=1)
        assert sorted(per_parent.tolist()) == [2, 3]
    assert parents(room(branching="2x3", treasures="clustered", n_treasures=2)) == 1


def test_independent_treasures_are_uniform() -> None:
    # 4 leaves, 1 treasure, 4,000 maps: 1,000 a leaf expected, standard deviation sqrt(4,000 * 1/4 * 3/4) = 27.4.
    # 4 leaves within 137 = 5 standard deviations: false alarm below 1 in 100,000; and the seed is fixed.
    env = room(branching="2x2", n_treasures=1, maps=4_000)
    counts = sum(env.treasure_mask(env.task(index)).astype(int) for index in range(4_000))
    assert np.abs(counts - 1_000).max() < 137


def test_prior_is_zipf() -> None:
    # 4 leaves, a = 1: weights 1, 1/2, 1/3, 1/4 sum to 25/12, so 12/25, 6/25, 4/25, 3/25
    prior = room(branching="2x2", n_treasures=1).prior()
    np.testing.assert_allclose(sorted(prior, reverse=True), [0.48, 0.24, 0.16, 0.12], rtol=1e-12)
    # a = 2: weights 1, 1/4, 1/9, 1/16 = 144, 36, 16, 9 (x 1/144), sum 205
    prior = room(branching="2x2", n_treasures=1, prior_exponent=2).prior()
    np.testing.assert_allclose(sorted(prior, reverse=True), np.array([144, 36, 16, 9]) / 205, rtol=1e-12)
    np.testing.assert_allclose(room(prior_exponent=0.0).prior(), 1 / 200, rtol=1e-12)
    for name in ("synthetic", "china", "world"):
        assert room(hierarchy=name).prior().sum() == pytest.approx(1.0, abs=1e-12)


def test_prior_ranks_are_dealt_at_random_and_kept_over_exponents() -> None:
    flat, steep = room(prior_exponent=0.5).prior(), room(prior_exponent=2.0).prior()
    np.testing.assert_array_equal(np.argsort(flat), np.argsort(steep))
    assert np.argsort(-flat).tolist() != list(range(200))


@pytest.mark.parametrize("name", ["synthetic", "china", "world"])
@pytest.mark.parametrize("kind", ["independent", "clustered"])
def test_a_task_says_nothing_of_its_treasures(name: str, kind: str) -> None:
    # The strongest form: tasks of two treasure seeds are equal, so they hold nothing of where the treasures are.
    first, second = (room(hierarchy=name, treasures=kind, seed=seed, maps=2) for seed in (0, 1))
    assert found(first) != found(second)
    assert [first.task(i) for i in range(4)] == [second.task(i) for i in range(4)]
    text = first.task(0).prompt + json.dumps(dict(first.task(0).data), ensure_ascii=False)
    assert not any(leaf in text for leaf in first.leaves)
    assert len(text) < 1_000


def test_prompt_names_levels_separator_and_form() -> None:
    prompt = room().task(0).prompt
    for part in ("region, city, district", "'-'", "region-city-district", "hidden", "20", "Answer with the path only."):
        assert part in prompt
    assert "continent > country > city" in room(hierarchy="world").task(0).prompt
    assert "北京市-北京市-district" in room(hierarchy="china").task(0).prompt


def test_score() -> None:
    env = room()
    task = env.task(0)
    hits = found(env)
    for leaf in env.leaves:
        hit = leaf in hits
        assert env.score(task, leaf) == Score(1.0 if hit else 0.0, hit, leaf)
    treasure = env.oracle(task)
    for text in (treasure.upper(), f"  {treasure}.\n", f'"{treasure}"', treasure.replace("-", " - ")):
        assert env.score(task, text) == Score(1.0, True, treasure)


def test_a_place_that_does_not_exist() -> None:
    env = room()
    region, city, district = env.leaves[0].split("-")
    other = env.leaves[-1].split("-")
    for text in (
        f"{region}-{city}-atlantis",
        f"{region}-{other[1]}-{district}",
        f"{region}-{city}",
        f"{region}-{city}-{district}-{district}",
        f"{district}-{city}-{region}",
        f"I say {env.leaves[0]}",
        f"{env.leaves[0]} {env.leaves[1]}",
    ):
        assert env.score(env.task(0), text) == Score(0.0, False, None)


ENV = room(hierarchy="world", maps=2)
TASKS = [ENV.task(0), ENV.task(1)]
ANY_TEXT = st.text(alphabet=st.characters(), max_size=200)  # lone surrogates included


@settings(max_examples=200, deadline=None)
@given(
    text=ANY_TEXT | st.builds(lambda a, b, c: f"{a}{b}{c}", ANY_TEXT, st.sampled_from(ENV.leaves), ANY_TEXT),
    index=st.integers(0, 1),
)
def test_any_text_gets_a_verdict(text: str, index: int) -> None:
    score = ENV.score(TASKS[index], text)
    if score.strategy is None:
        assert score == Score(0.0, False, None)
    else:
        position = ENV.leaves.index(score.strategy)
        hit = bool(ENV.treasure_mask(TASKS[index])[position])
        assert score == Score(float(hit), hit, score.strategy)


@settings(max_examples=100, deadline=None)
@given(
    leaf=st.sampled_from(ENV.leaves),
    left=st.text(" \t\n\r\"'", max_size=5),
    right=st.text(" \t\n\r\"'.", max_size=5),
    lower=st.booleans(),
)
def test_wording_does_not_change_the_strategy(leaf: str, left: str, right: str, lower: bool) -> None:
    text = f"{left}{leaf.lower() if lower else leaf}{right}"
    assert ENV.score(TASKS[0], text).strategy == leaf


def test_ten_megabytes_take_no_time() -> None:
    env = room()
    task = env.task(0)
    for piece in ("a", "-", " ", "\u202e", "\ud800", "\ufdfa", env.leaves[0] + "-"):
        text = piece * (10_000_000 // len(piece))
        start = time.perf_counter()
        assert env.score(task, text) == Score(0.0, False, None)
        assert time.perf_counter() - start < 0.1


def test_world_is_made_quickly() -> None:
    from sesa_lab.environments import hierarchies

    hierarchies.world.cache_clear()
    start = time.process_time()
    make("path_exploration", hierarchy="world")
    assert time.process_time() - start < 2.0


def test_arrays_cannot_be_spoilt_by_a_caller() -> None:
    env = room()
    task = env.task(0)
    before = env.score(task, env.leaves[0])
    with pytest.raises(ValueError, match="read-only"):
        env.treasure_mask(task)[:] = True
    env.prior()[:] = 0
    env.enumerate(task).clear()
    env.solutions(task).clear()
    assert env.score(task, env.leaves[0]) == before
    assert (
        len(env.enumerate(task)) == 200 and len(env.solutions(task)) == 20 and env.prior().sum() == pytest.approx(1.0)
    )
    assert env.treasure_mask(task).dtype == np.bool_ and env.prior().dtype == np.float64


def test_one_turn_and_as_many_tasks_as_maps() -> None:
    env = room(maps=3)
    assert (env.turns, env.count) == (1, 3)
    assert set(env.policy_options) == {"hierarchy", "branching", "hierarchy_seed", "prior_exponent"} < set(env.options)


def test_an_episode_is_one_answer() -> None:
    env = room()
    task = env.task(0)
    treasure, miss = env.oracle(task), next(leaf for leaf in env.leaves if leaf not in found(env))
    start = env.reset(task, 7)
    assert start == Episode(task, 7, None) and not start.over
    for text, rewards, success, strategy in (
        (f" {treasure} ", (1.0,), True, treasure),
        (miss, (0.0,), False, miss),
        ("nowhere", (0.0,), False, None),
    ):
        end = env.step(start, text)
        assert (end.task, end.seed, end.observation, end.rewards) == (task, 7, "", rewards)
        assert (end.terminated, end.truncated, end.success, end.strategy) == (True, False, success, strategy)
        assert end.verdict == env.score(task, text)
        with pytest.raises(InputError, match=r"this episode of task 0 is over \(terminated\); begin a new one"):
            env.step(end, treasure)
    assert start == env.reset(task, 7)


@pytest.mark.parametrize("kind", ["independent", "clustered"])
def test_solutions_are_the_treasures(kind: str) -> None:
    env = room(treasures=kind, maps=2)
    for index in (0, 1):
        solutions = env.solutions(env.task(index))
        assert len(solutions) == 20 and set(solutions) == found(env, index)
        assert solutions[0] == env.oracle(env.task(index))
    assert env.solutions(env.task(0)) != env.solutions(env.task(1))


def test_a_sketch_is_the_first_name() -> None:
    env, task = ENV, TASKS[0]
    assert env.sketch(task, " europe > FRANCE>paris.\n") == "Europe"
    assert env.sketch(task, "Europe > France") is env.sketch(task, "") is None
    assert {env.sketch(task, leaf) for leaf in env.leaves} == {path[0] for path in env.hierarchy.paths}
    synthetic = room()
    # 8 regions of 5 x 5 places
    assert len({synthetic.sketch(synthetic.task(0), leaf) for leaf in synthetic.leaves}) == 8
    assert not any(env.habitual(sketch) for sketch in ("Europe", "", "<b>"))


def test_a_replay_walks_down_the_path() -> None:
    env = room()
    task, treasure = env.task(0), env.oracle(env.task(0))
    region, city, district = treasure.split("-")
    frames = env.render(task, treasure.upper())
    assert [frame.text for frame in frames] == ["?", region, f"{region} > {city}", f"{region} > {city} > {district}"]
    assert [frame.caption for frame in frames] == ["where to look?", "region", "city", "a treasure"]
    miss = next(leaf for leaf in env.leaves if leaf not in found(env))
    assert env.render(task, miss)[-1].caption == "nothing here"
    assert env.render(task) == env.render(task, "<script>") == frames[:1]
    for frame, depth in zip(frames, (1, 1, 2, 3), strict=True):
        root = ElementTree.fromstring(frame.svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert [element.text for element in root] == frame.text.split(" > ") and len(root) == depth


def test_names_are_escaped_in_a_replay() -> None:
    # names of the world with an apostrophe, the only character of markup that occurs in them
    leaf = next(leaf for leaf in ENV.leaves if "'" in leaf)
    frame = ENV.render(TASKS[0], leaf)[-1]
    assert "'" not in frame.svg and "&#x27;" in frame.svg
    assert [element.text for element in ElementTree.fromstring(frame.svg)] == leaf.split(" > ")


def test_numpy_indices_are_indices() -> None:
    env = room(maps=3)
    task = env.task(np.int64(4))  # type: ignore[arg-type]
    assert task == env.task(4) and type(task.index) is int and type(task.data["map"]) is int
    with pytest.raises(InputError, match="task index"):
        env.task(True)


def test_options_have_defaults_that_work() -> None:
    assert PathExploration(PathExplorationOptions()).task(0) == room().task(0)
