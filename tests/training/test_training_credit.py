"""Credit by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_world import Walk

from sesa_lab.training.credit import advantages, credited, sketch_advantages, sketch_rewards, verdicts
from sesa_lab.types import Candidate, Completion, Context, Group, Score, Task, Turn


def scores(*pairs: tuple[float, str | None]) -> list[Score]:
    return [Score(reward, reward > 0, strategy) for reward, strategy in pairs]


def test_repeats_earn_again_or_nothing() -> None:
    group = scores((1.0, "a"), (0.5, "b"), (1.0, "a"), (0.5, "b"), (0.25, "c"))
    assert credited(group, "count") == [1.0, 0.5, 1.0, 0.5, 0.25]
    assert credited(group, "zero") == [1.0, 0.5, 0.0, 0.0, 0.25]


def test_a_repeat_is_of_any_earlier_strategy_also_of_an_unpaid_one() -> None:
    # "a" fails first (reward 0) and comes again with a reward: the strategy was taken already, whatever it earned.
    assert credited(scores((0.0, "a"), (1.0, "a"), (1.0, "a")), "zero") == [0.0, 0.0, 0.0]


def test_unreadable_answers_repeat_nothing() -> None:
    group = scores((-0.1, None), (-0.1, None), (1.0, "a"), (-0.1, None), (1.0, "a"))
    assert credited(group, "zero") == [-0.1, -0.1, 1.0, -0.1, 0.0]


def test_a_penalty_stays_with_a_repeat() -> None:
    # It used to become 0: failing a second time in the same way was paid for.
    group = scores((-1.0, "a"), (-1.0, "a"), (10.9, "b"), (0.0, "b"), (-0.2, "b"), (10.9, "b"))
    assert credited(group, "zero") == [-1.0, -1.0, 10.9, 0.0, -0.2, 0.0]


@given(st.lists(st.tuples(st.floats(-11, 11), st.sampled_from([None, "a", "b", "c"])), max_size=8))
def test_no_repeat_is_better_off_for_being_one(pairs: list[tuple[float, str | None]]) -> None:
    for score, reward in zip(scores(*pairs), credited(scores(*pairs), "zero"), strict=True):
        assert reward <= score.reward and (reward == score.reward or reward == 0.0)


def test_advantages_by_hand() -> None:
    # mean 1; deviations -1, -1, 2; squares 1 + 1 + 4 = 6; sample variance 6 / (3 - 1) = 3.
    expected = [-1 / (math.sqrt(3) + 1e-6), -1 / (math.sqrt(3) + 1e-6), 2 / (math.sqrt(3) + 1e-6)]
    assert advantages([0.0, 0.0, 3.0], "std") == pytest.approx(expected, rel=1e-12)
    assert advantages([0.0, 0.0, 3.0], "mean") == [-1.0, -1.0, 2.0]
    # mean 2, deviations -1 and 1, sample variance 2.
    assert advantages([1.0, 3.0], "std") == pytest.approx([-1 / (2**0.5 + 1e-6), 1 / (2**0.5 + 1e-6)], rel=1e-12)


@pytest.mark.parametrize("normalise", ["std", "mean"])
@pytest.mark.parametrize(
    "rewards",
    [
        [1.0] * 4,
        [0.0] * 7,
        [0.1] * 3,  # 0.1 + 0.1 + 0.1 is not 3 * 0.1 in floating point: the deviations are not exactly 0
        [0.7] * 10,
        [1e6] * 5,
        [-0.3],
    ],
)
def test_no_differences_give_exactly_zero(rewards: list[float], normalise: str) -> None:
    assert advantages(rewards, normalise) == [0.0] * len(rewards)


def test_advantages_are_plain_floats_that_sum_to_zero() -> None:
    found = advantages([0.3, 1.0, 0.0, 0.0, 2.5], "std")
    assert [type(a) for a in found] == [float] * 5
    assert sum(found) == pytest.approx(0.0, abs=1e-12)
    # Of (r - mean) / s the sample variance is 1; the 1e-6 in the denominator shrinks it by about 2e-6.
    assert sum(a * a for a in found) / 4 == pytest.approx(1.0, abs=1e-5)


def test_scale_and_shift_of_rewards_do_not_matter_under_std() -> None:
    rewards = [0.0, 1.0, 1.0, 0.0, 0.5]
    assert advantages([7 + 3 * r for r in rewards], "std") == pytest.approx(advantages(rewards, "std"), abs=1e-5)


# --- sketches -----------------------------------------------------------------------------------------------------------


def follower(*sketches: int) -> Candidate:
    x = Context("task", (1,))
    return Candidate((Turn(x, {"task": x}, Completion((2,), (-1.0,), "", "stop")),), sketches=sketches)


# A direct candidate finds "a"; sketch 0 has two solutions, sketch 1 three, sketch 2 none (it was dropped), sketch 3 one.
FOLLOWERS = [follower(), follower(0), follower(0), follower(1), follower(1), follower(1), follower(3)]
VERDICTS = scores((1.0, "a"), (0.5, "b"), (0.0, None), (0.25, "c"), (1.0, "a"), (1.0, "d"), (2.0, "b"))


def credit(rule: str, repeats: str = "count") -> list[float | None]:
    return sketch_rewards(FOLLOWERS, VERDICTS, credited(VERDICTS, repeats), 4, rule)


def test_credit_of_sketches_by_hand() -> None:
    # Rewards of the solutions: sketch 0: .5 and 0; sketch 1: .25, 1 and 1; sketch 2: none; sketch 3: 2.
    assert credit("best") == [0.5, 1.0, None, 2.0]
    assert credit("mean") == [0.25, 0.75, None, 2.0]
    # Nothing new in sketch 3 ("b" came from sketch 0); sketch 1 has found "d", its "a" came from the direct candidate.
    assert credit("novelty") == [0.5, 1.0, None, 0.0]


def test_credit_of_sketches_follows_the_rule_for_repeats() -> None:
    # Where a repeat earns nothing: sketch 1: .25, 0 and 1; sketch 3: 0. Novelty asks for new ways whatever the rule.
    assert credit("best", "zero") == [0.5, 1.0, None, 0.0]
    assert credit("mean", "zero") == [0.25, pytest.approx(1.25 / 3), None, 0.0]
    assert credit("novelty", "zero") == credit("novelty", "count")


def test_the_best_of_bad_solutions_is_bad_and_a_dropped_sketch_has_no_reward() -> None:
    # It used to have 0, which is more than either of these earned.
    bad = scores((-0.5, None), (-0.1, "a"))
    for rule, expected in (("best", -0.1), ("mean", -0.3), ("novelty", -0.1)):
        found = sketch_rewards([follower(0), follower(0)], bad, [-0.5, -0.1], 2, rule)
        assert found == [pytest.approx(expected), None]


def test_a_repeated_failure_is_no_novelty() -> None:
    # Sketch 1 only fails as sketch 0 did: its penalty stays. Sketch 2 repeats a success: nothing.
    bad = scores((-0.5, "a"), (1.0, "b"), (-0.5, "a"), (1.0, "b"))
    followers = [follower(0), follower(0), follower(1), follower(2)]
    assert sketch_rewards(followers, bad, [-0.5, 1.0, -0.5, 1.0], 3, "novelty") == [1.0, -0.5, 0.0]


def test_sketches_without_followers_are_left_out_of_the_baseline() -> None:
    # Of -1, -3 and -2: mean -2, deviations 1, -1 and 0, sample variance 1.
    rewards = [None, -1.0, None, -3.0, -2.0]
    assert sketch_advantages(rewards, "mean") == [0.0, 1.0, 0.0, -1.0, 0.0]
    assert sketch_advantages(rewards, "std") == pytest.approx([0.0, 1 / (1 + 1e-6), 0.0, -1 / (1 + 1e-6), 0.0])
    assert sketch_advantages([None, 0.5, 0.5], "std") == sketch_advantages([None, 1.0, None], "std") == [0.0] * 3
    assert sketch_advantages([None, None], "mean") == [0.0, 0.0] and sketch_advantages([], "std") == []
    known = [0.3, 1.0, 0.0, 0.0, 2.5]
    assert sketch_advantages(known, "std") == advantages(known, "std")


def test_a_candidate_of_several_sketches_pays_each() -> None:
    # Episodes whose turns drafted their own: sketch 0 guides both, 1 and 2 the later turns of one each.
    members, found = [follower(0, 1), follower(0, 2)], scores((1.0, "a"), (0.5, "b"))
    assert sketch_rewards(members, found, [1.0, 0.5], 3, "best") == [1.0, 1.0, 0.5]
    assert sketch_rewards(members, found, [1.0, 0.5], 3, "mean") == [0.75, 1.0, 0.5]
    assert sketch_rewards(members, found, [1.0, 0.5], 3, "novelty") == [1.0, 1.0, 0.5]


def test_no_sketches_no_credit() -> None:
    assert sketch_rewards([follower()], scores((1.0, "a")), [1.0], 0, "best") == []


# --- verdicts -----------------------------------------------------------------------------------------------------------


def test_an_answer_is_judged_whole_and_an_episode_by_its_rewards() -> None:
    class Length:
        def score(self, task: Task, text: str) -> Score:
            return Score(len(text) / 10, len(text) > 3, text or None)

    task, world = Task(0, "", {}), Walk()
    whole = Candidate((Turn(Context("task", (1,)), {}, Completion((2,), (-1.0,), "four", "stop")),))
    # Seed 2: 2 // 3 % 3 = 0, over after one turn with an "e". Seed 26 = 222 in base 3: never by chance, three turns.
    short = world.step(world.reset(task, 2), "yes")
    long = world.reset(task, 26)
    for text in ("yes", "no", "here"):
        long = world.step(long, text)
    played = [Candidate(whole.turns * 2, episode=episode) for episode in (short, long)]
    found = verdicts(Length(), Group(task, (whole, *played)))
    assert found == [Score(0.4, True, "four"), Score(1.0, True, "3,"), Score(1.0 - 0.25 + 1.0, False, "3,2,4,")]
