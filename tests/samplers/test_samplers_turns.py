"""Answers of several turns: what each turn is drawn under and may be trained under, and what is read in once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import tiny_models
import torch
from fake_dialogue import REQUESTS, closing, common, groups, settings, spelled, streams
from fake_engine import FakeEngine
from tiny_models import reference_logprobs
from toy_world import Walk

from sesa_lab.config import SamplerConfig
from sesa_lab.engines import TorchEngine
from sesa_lab.policies import Policy
from sesa_lab.prompts import Speaker
from sesa_lab.samplers import Request, draw
from sesa_lab.types import Candidate, Context, Group, Sketch, Task, Turn

WORLD = Walk()
CUTS = [(), (7, 12, 20, 21, 30), tuple(range(200))]
CUT_NAMES = ["all stop", "some cut", "all cut"]


def observed(episode_seed: int) -> tuple[int, ...]:
    """What ``Walk`` says between turns, as ``fake_dialogue`` spells it."""
    return spelled(f"s{episode_seed % 7}{{task}}")


def check_turns(candidate: Candidate, x: tuple[int, ...], guided: tuple[int, ...] | None, seed: int) -> None:
    """Turn by turn, by hand: the context is where one starts, then all that was said and observed since."""
    assert candidate.episode is not None
    task = candidate.episode.task
    episode = WORLD.reset(task, seed)
    since: tuple[int, ...] = ()
    for turn in candidate.turns:
        trained = {"task": Context("task", x + since)}
        if guided is not None:
            trained["sketch"] = Context("sketch", guided + since)
        assert dict(turn.trained_under) == trained
        assert turn.drawn_under == trained["task" if guided is None else "sketch"]
        episode = WORLD.step(episode, turn.completion.text)
        since += (*turn.completion.ids, *closing(turn.completion.finish), 60, *observed(seed))
    assert candidate.episode == episode and episode.over, "the episode can be replayed from its seed and the texts"
    assert len(candidate.turns) == len(episode.rewards)
    assert candidate.sampled_tokens == candidate.length == sum(len(turn.completion.ids) for turn in candidate.turns)


def first_number(group: int, number: int) -> int:
    """An episode's seed is the first thing its candidate draws from its stream."""
    return int(streams(group, number).integers(2**32))


@pytest.mark.parametrize("cut", CUTS, ids=CUT_NAMES)
def test_parallel_episodes(cut: tuple[int, ...]) -> None:
    engine = FakeEngine(cut)
    found = groups(engine, settings("parallel", 8), world=WORLD)
    for g, (request, group) in enumerate(zip(REQUESTS, found, strict=True)):
        for i, candidate in enumerate(group.candidates):
            check_turns(candidate, request.prompt_ids, None, first_number(g, i))
            assert candidate.sketches == ()
    lengths = [len(candidate.turns) for group in found for candidate in group.candidates]
    assert set(lengths) == {1, 2, 3}, "episodes end at different turns"
    # Only open episodes go on: the n-th call draws those with more than n turns, in order.
    assert engine.batches == [[row for row, length in enumerate(lengths) if length > n] for n in range(3)]
    assert {turn.completion.finish for group in found for c in group.candidates for turn in c.turns} == (
        {"stop"} if not cut else {"length"} if len(cut) == 200 else {"stop", "length"}
    )


@pytest.mark.parametrize("cut", CUTS, ids=CUT_NAMES)
@pytest.mark.parametrize("repeated", ["keep", "drop"])
def test_episodes_that_follow_a_sketch(repeated: str, cut: tuple[int, ...]) -> None:
    config = settings("sesa", 8, on_policy_fraction=0.25, expansions=2, repeated_sketch=repeated)
    found = groups(FakeEngine(cut), config, world=WORLD)
    without = 0
    for g, (request, group) in enumerate(zip(REQUESTS, found, strict=True)):
        assert len(group.sketches) == 3
        for i, candidate in enumerate(group.candidates):
            sketch = group.sketches[(i - 2) // 2] if i >= 2 else None
            if sketch is None or (sketch.repeats and repeated == "drop"):
                without += 1
                assert candidate.sketches == ()
                check_turns(candidate, request.prompt_ids, None, first_number(g, i))
                continue
            assert candidate.sketches == ((i - 2) // 2,)
            guided = (20 + g, 30, *spelled(sketch.text), 31)
            check_turns(candidate, request.prompt_ids, guided, first_number(g, i))
    assert (without > 6) == (repeated == "drop"), "six are direct"


def test_a_group_of_episodes_does_not_depend_on_its_neighbours() -> None:
    for name, changes in (("parallel", {}), ("sesa", {}), ("sesa", {"sketch_scope": "turn", "expansions": 2})):
        config = settings(name, 4, **changes)
        together = groups(FakeEngine(), config, world=WORLD)
        assert groups(FakeEngine(), config, REQUESTS[:1], world=WORLD) == together[:1]


# --- a sketch for each turn ---------------------------------------------------------------------------------------------


def check_own_sketches(candidate: Candidate, group: Group, x: tuple[int, ...], guided: tuple[int, ...]) -> None:
    """Each later turn: the world's words with the request for a sketch (61), the sketch, the bridge (62), the turn.

    Under the task alone the same episode has the world's words (60) and the turns only.
    """
    assert candidate.episode is not None
    world = observed(candidate.episode.seed)
    own = [group.sketches[number] for number in candidate.sketches[1:]]
    assert len(own) == len(candidate.turns) - 1
    drawn, plain = guided, x
    for n, turn in enumerate(candidate.turns):
        if n:
            before = candidate.turns[n - 1].completion
            asked = (*drawn, *before.ids, *closing(before.finish), 61, *world)
            sketch = own[n - 1].turn
            assert (sketch.drawn_under, dict(sketch.trained_under)) == (
                Context("draft", asked),
                {"draft": Context("draft", asked)},
            )
            assert (own[n - 1].sampled_tokens, own[n - 1].redraws) == (len(sketch.completion.ids), 0)
            drawn = (*asked, *sketch.completion.ids, *closing(sketch.completion.finish), 62)
            plain = (*plain, *before.ids, *closing(before.finish), 60, *world)
        assert turn.drawn_under == Context("sketch", drawn)
        assert dict(turn.trained_under) == {"task": Context("task", plain), "sketch": Context("sketch", drawn)}
    assert candidate.length == sum(len(turn.completion.ids) for turn in candidate.turns), (
        "sketches are not its own words"
    )


def test_sketches_made_on_the_way_are_counted_as_repeats_too() -> None:
    """Only those of stage I were. They are looked through in the order of their numbers, and kept whatever they repeat."""
    config = settings("sesa", 2, sketch_scope="turn", redraws=5, repeated_sketch="drop")
    on_the_way = []
    for group in groups(FakeEngine(), config, world=WORLD):
        texts = [sketch.text for sketch in group.sketches]
        assert [sketch.repeats for sketch in group.sketches] == [text in texts[:n] for n, text in enumerate(texts)]
        on_the_way += group.sketches[2:]
        followed = [number for candidate in group.candidates for number in candidate.sketches]
        assert set(range(2, len(texts))) <= set(followed), "none of them is dropped"
    assert {sketch.repeats for sketch in on_the_way} == {False, True} and not any(s.redraws for s in on_the_way)


@pytest.mark.parametrize("cut", CUTS, ids=CUT_NAMES)
def test_each_later_turn_first_drafts_a_sketch_of_its_own(cut: tuple[int, ...]) -> None:
    engine = FakeEngine(cut)
    config = settings(
        "sesa", 8, on_policy_fraction=0.25, expansions=2, repeated_sketch="drop", sketch_scope="turn", max_tokens=9,
        sketch_tokens=5,
    )  # fmt: skip
    found = groups(engine, config, world=WORLD)
    guided_ones = 0
    for g, (request, group) in enumerate(zip(REQUESTS, found, strict=True)):
        numbers = [number for candidate in group.candidates for number in candidate.sketches[1:]]
        assert numbers == list(range(3, len(group.sketches))), "after those of stage I, candidate by candidate"
        for i, candidate in enumerate(group.candidates):
            stage_one = group.sketches[(i - 2) // 2] if i >= 2 else None
            if stage_one is None or stage_one.repeats:  # direct, or dropped: no sketches on the way either
                assert candidate.sketches == ()
                check_turns(candidate, request.prompt_ids, None, first_number(g, i))
                continue
            guided_ones += 1
            assert candidate.sketches[0] == (i - 2) // 2
            check_own_sketches(candidate, group, request.prompt_ids, (20 + g, 30, *spelled(stage_one.text), 31))
    assert 0 < guided_ones < 18
    assert any(len(group.sketches) > 3 for group in found)
    assert {s.max_tokens for s in engine.samplings} == {9, 5}


# --- the real engine --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    folder = tmp_path_factory.mktemp("models") / "turns"
    return tiny_models.load(tiny_models.save_model(folder, max_position_embeddings=1024), adapter_noise=0.05)


def real(policy: Policy, form: str, config: SamplerConfig) -> tuple[list[Group], TorchEngine, Speaker]:
    engine = TorchEngine(policy)
    speaker = Speaker(policy.tokenizer, form, "path_exploration", policy.stop_ids)
    tasks = [Task(index, f"Walk {index}.", {"map": index}) for index in range(3)]
    requests = [Request(task, speaker.answer(task)) for task in tasks]
    return draw(engine, requests, config, speaker, streams, WORLD), engine, speaker


def all_turns(found: Sequence[Group]) -> list[Turn]:
    turns = [turn for group in found for candidate in group.candidates for turn in candidate.turns]
    return turns + [sketch.turn for group in found for sketch in group.sketches]


@pytest.mark.parametrize("form", ["lab", "chat"])
@pytest.mark.parametrize("scope", ["episode", "turn"])
def test_recorded_log_probs_are_those_of_the_recorded_contexts(policy: Policy, scope: str, form: str) -> None:
    config = settings(
        "sesa", 6, on_policy_fraction=0.3, expansions=2, sketch_scope=scope, max_tokens=6, sketch_tokens=5, redraws=1,
        temperature=0.8,
    )  # fmt: skip
    found, _, _ = real(policy, form, config)
    turns = all_turns(found)
    assert max(len(candidate.turns) for group in found for candidate in group.candidates) == 3
    for turn in turns:
        expected = reference_logprobs(policy.model, turn.drawn_under.ids, turn.completion.ids, 0.8)
        torch.testing.assert_close(torch.tensor(turn.completion.logprobs), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["parallel", "sesa"])
def test_the_cache_is_kept_across_turns(policy: Policy, name: str) -> None:
    """Tokens read in, counted by hand: every context once as far as it is shared, then the world's words alone."""
    changes = {"drafting": "iid"} if name == "sesa" else {}
    found, engine, speaker = real(policy, "lab", settings(name, 6, max_tokens=6, **changes))
    expected = 0
    for group in found:
        first = [candidate.turns[0].drawn_under.ids for candidate in group.candidates]
        shared = common(first)
        expected += shared + sum(len(ids) - shared for ids in first)
        expected += len(speaker.draft(group.task, "list", ())) if name == "sesa" else 0
        for candidate in group.candidates:
            assert candidate.episode is not None
            for turn in candidate.turns[:-1]:
                expected += len(speaker.observed(turn.completion.finish, f"s{candidate.episode.seed % 7}{{task}}"))
    assert engine.counters.prefilled == expected
    reread = sum(len(turn.drawn_under.ids) for group in found for c in group.candidates for turn in c.turns)
    assert expected < 0.6 * reread, "what reading every turn's context anew would have cost"
    drawn = sum(c.sampled_tokens for group in found for c in group.candidates)
    sketches: list[Sketch] = [sketch for group in found for sketch in group.sketches]
    assert engine.counters.sampled == drawn + sum(sketch.sampled_tokens for sketch in sketches)
