"""Samplers choose contexts: which ones, in which order, and what a candidate says of its own."""

from __future__ import annotations

import fake_engine
import pytest
from fake_dialogue import BRIDGE, DIALOGUE, REQUESTS, groups, settings, streams
from fake_engine import STOP, WORDS, FakeEngine

from sesa_lab import environments
from sesa_lab.config import PolicyConfig, SamplerConfig
from sesa_lab.engines import TorchEngine
from sesa_lab.errors import InputError
from sesa_lab.policies import load_policy, merged
from sesa_lab.prompts import Speaker
from sesa_lab.samplers import SAMPLERS, Request, draw
from sesa_lab.seeding import stream
from sesa_lab.types import Candidate, Completion, Context, Group, Turn


def turn_of(candidate: Candidate) -> Turn:
    """The one turn of a whole answer."""
    (turn,) = candidate.turns
    return turn


def said(candidate: Candidate) -> Completion:
    return turn_of(candidate).completion


def test_every_sampler_of_the_config_is_there() -> None:
    choices = SamplerConfig.__dataclass_fields__["name"].metadata["choices"]
    assert set(SAMPLERS) == set(choices)


# --- parallel ---------------------------------------------------------------------------------------------------------


def test_parallel_draws_every_candidate_under_the_task_alone() -> None:
    engine = FakeEngine()
    found = groups(engine, settings("parallel"))
    assert [context for context, _ in engine.drawn] == [request.prompt_ids for request in REQUESTS for _ in range(4)]
    assert engine.started == [[request.prompt_ids for request in REQUESTS]], "read in once a group"
    drawn = iter(engine.drawn)
    for request, group in zip(REQUESTS, found, strict=True):
        x = Context("task", request.prompt_ids)
        for candidate in group.candidates:
            turn = turn_of(candidate)
            assert turn.completion is next(drawn)[1]
            assert (turn.drawn_under, dict(turn.trained_under)) == (x, {"task": x})
            assert (candidate.history, candidate.redraws) == ((), 0)
            assert (candidate.sketches, candidate.episode, group.sketches) == ((), None, ())
            assert candidate.sampled_tokens == candidate.length == len(turn.completion.ids)


# --- sequential -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [(), (0, 4, 5), tuple(range(12))], ids=["all stop", "some cut", "all cut"])
def test_sequential_contexts_are_the_task_and_all_earlier_answers(cut: tuple[int, ...]) -> None:
    engine = FakeEngine(cut)
    found = groups(engine, settings("sequential"))
    for request, group in zip(REQUESTS, found, strict=True):
        context, history = request.prompt_ids, ()
        x = Context("task", request.prompt_ids)
        for index, candidate in enumerate(group.candidates):
            turn = turn_of(candidate)
            assert turn.drawn_under == Context("history" if index else "task", context)
            expected = {"task": x, "history": Context("history", context)} if index else {"task": x}
            assert dict(turn.trained_under) == expected
            assert candidate.history == history
            # An answer that the token limit cut is closed by the stop token, so that the dialogue reads on as usual.
            closing = () if turn.completion.finish == "stop" else (STOP,)
            context += (*turn.completion.ids, *closing, *BRIDGE)
            history += (turn.completion.text,)
    assert [len(rows) for rows in engine.batches] == [3] * 4, "all groups side by side"
    assert engine.started == [[request.prompt_ids for request in REQUESTS]], "one cache, never begun again"
    # The engine saw what the candidates say: index by index, group after group.
    assert [context for context, _ in engine.drawn] == [
        turn_of(group.candidates[index]).drawn_under.ids for index in range(4) for group in found
    ]


def test_whole_answers_do_not_follow_each_other_in_an_environment_of_several_turns() -> None:
    with pytest.raises(
        InputError, match=r"'sequential' draws whole answers .* several turns needs 'parallel' or 'sesa'"
    ):
        draw(FakeEngine(), REQUESTS, settings("sequential"), DIALOGUE, streams, object())  # type: ignore[arg-type]


def test_a_candidate_has_its_own_stream_whatever_the_groups_beside_it() -> None:
    for name in SAMPLERS:
        together = groups(FakeEngine(), settings(name))
        first = groups(FakeEngine(), settings(name), REQUESTS[:1])
        assert first == together[:1]


def test_a_longer_group_begins_like_a_shorter_one() -> None:
    for name in ("parallel", "sequential"):
        short, long = (groups(FakeEngine(), settings(name, size)) for size in (3, 7))
        assert [group.candidates for group in short] == [group.candidates[:3] for group in long]


# --- redraws ----------------------------------------------------------------------------------------------------------


def expected_redraws(group: int, size: int, most: int) -> list[tuple[str, int]]:
    """(answer, redraws) by the rule itself: a word that came before is drawn again, at most ``most`` times."""
    found: list[tuple[str, int]] = []
    for index in range(size):
        own = streams(group, index)
        seen = {word for word, _ in found}
        word, thrown = WORDS[10 + int(own.integers(3))], 0
        while word in seen and thrown < most:
            word, thrown = WORDS[10 + int(own.integers(3))], thrown + 1
        found.append((word, thrown))
    return found


@pytest.mark.parametrize("most", [0, 1, 4])
def test_repeats_are_drawn_again_from_the_same_context(most: int) -> None:
    engine = FakeEngine()
    found = groups(engine, settings("sequential", 5, redraws=most))
    for g, group in enumerate(found):
        assert [(said(c).text, c.redraws) for c in group.candidates] == expected_redraws(g, 5, most)
        for candidate in group.candidates:
            under = turn_of(candidate).drawn_under.ids
            draws = [completion for context, completion in engine.drawn if context == under]
            assert len(draws) == 1 + candidate.redraws
            assert draws[-1] is said(candidate), "the last draw is kept"
            assert candidate.sampled_tokens == sum(len(completion.ids) for completion in draws)
    thrown = sum(candidate.redraws for group in found for candidate in group.candidates)
    assert len(engine.rewound) == thrown
    assert all(before - after == 2 for before, after in engine.rewound), "two tokens a thrown-away answer"
    assert (thrown > 0) == (most > 0)


def test_only_rows_that_repeat_are_drawn_again() -> None:
    engine = FakeEngine()
    groups(engine, settings("sequential", 5, redraws=4))
    assert any(0 < len(rows) < 3 for rows in engine.batches)


def test_case_and_white_space_do_not_make_an_answer_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_engine, "WORDS", {10: "Red Car", 11: " red\ncar ", 12: "RED  CAR"})
    found = groups(FakeEngine(), settings("sequential", 3, redraws=2))
    for group in found:
        assert [candidate.redraws for candidate in group.candidates] == [0, 2, 2]


# --- mixed groups -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fraction", "size", "direct"),
    # ceil(fraction x size): 2.5 -> 3; 0.3 x 10 is 3.0000000000000004 in binary and means 3, 0.07 x 100 likewise 7
    [(0.25, 4, 1), (0.5, 4, 2), (0.5, 5, 3), (0.01, 4, 1), (0.3, 10, 3), (0.07, 100, 7), (1.0, 4, 4)],
)
def test_part_of_a_group_is_drawn_directly_and_the_sequence_does_not_see_it(
    fraction: float, size: int, direct: int
) -> None:
    engine = FakeEngine()
    found = groups(engine, settings("sequential", size, on_policy_fraction=fraction))
    for request, group in zip(REQUESTS, found, strict=True):
        x = Context("task", request.prompt_ids)
        for candidate in group.candidates[:direct]:
            turn = turn_of(candidate)
            assert (turn.drawn_under, dict(turn.trained_under), candidate.history) == (x, {"task": x}, ())
        sequence = group.candidates[direct:]
        for index, candidate in enumerate(sequence):
            assert turn_of(candidate).drawn_under.kind == ("history" if index else "task")
            assert candidate.history == tuple(said(c).text for c in sequence[:index])
            assert len(turn_of(candidate).drawn_under.ids) == len(request.prompt_ids) + index * (2 + len(BRIDGE))
    assert len(engine.started) == (1 if direct == size else 2)


def test_an_entirely_direct_group_is_a_parallel_one() -> None:
    mixed = groups(FakeEngine(), settings("sequential", on_policy_fraction=1.0))
    assert mixed == groups(FakeEngine(), settings("parallel"))


# --- the real engine --------------------------------------------------------------------------------------------------


def real(name: str, number: int, **changes: object) -> tuple[list[Group], TorchEngine, int]:
    """Eight groups of 24 from the shipped policy, its engine, and the length of the bridge."""
    environment = environments.make("path_exploration")
    policy = load_policy(PolicyConfig(model="path", device="cpu"), environment.name, environment.options, 0)
    engine = TorchEngine(policy)
    speaker = Speaker(policy.tokenizer, policy.form, environment.name, policy.stop_ids)
    tasks = [environment.task(index) for index in range(8)]
    requests = [Request(task, speaker.answer(task)) for task in tasks]
    with merged(policy.model):
        found = draw(
            engine,
            requests,
            settings(name, 24, **changes),
            speaker,
            lambda group, index: stream(0, "sampling", number, group, index),
        )
    return found, engine, len(speaker.between("stop"))


def duplicates(found: list[Group]) -> float:
    texts = [[said(candidate).text for candidate in group.candidates] for group in found]
    return 1 - sum(len(set(group)) for group in texts) / sum(map(len, texts))


def test_the_shipped_policy_repeats_itself_far_less_in_sequence() -> None:
    parallel, engine, _ = real("parallel", 1)
    sequential, other, bridge = real("sequential", 1)
    # 24 draws from the Zipf prior over 200 leaves repeat about every third time, a sequence almost never.
    assert duplicates(parallel) > 0.15
    assert duplicates(sequential) < 0.4 * duplicates(parallel)
    prompt = turn_of(parallel[0].candidates[0]).drawn_under.ids
    assert engine.counters.prefilled == len(prompt), "all groups ask the same thing: read in once"
    closed = sum(said(c).finish == "length" for group in sequential for c in group.candidates[:-1])
    assert other.counters.prefilled == len(prompt) + 8 * 23 * bridge + closed, "the cache is continued"
    for found, used in ((parallel, engine), (sequential, other)):
        assert used.counters.sampled == sum(c.sampled_tokens for group in found for c in group.candidates)


def test_redraws_with_the_shipped_policy_continue_the_cache_too() -> None:
    found, engine, bridge = real("sequential", 2, redraws=3, temperature=1.5)
    candidates = [c for group in found for c in group.candidates]
    assert sum(c.redraws for c in candidates) > 0
    assert engine.counters.sampled == sum(c.sampled_tokens for c in candidates)
    assert engine.counters.sampled > sum(len(said(c).ids) for c in candidates)
    closed = sum(said(c).finish == "length" for group in found for c in group.candidates[:-1])
    prompt = turn_of(found[0].candidates[0]).drawn_under.ids
    assert engine.counters.prefilled == len(prompt) + 8 * 23 * bridge + closed
