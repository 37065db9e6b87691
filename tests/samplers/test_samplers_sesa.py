"""Two-stage sampling: what every sketch and every solution is drawn under, in which order, from which stream."""

from __future__ import annotations

from typing import Any

import fake_engine
import pytest
from fake_dialogue import DIALOGUE, LIST_STOP, REQUESTS, closing, groups, settings, spelled, streams
from fake_engine import STOP, WORDS, FakeEngine

from sesa_lab.samplers import Request
from sesa_lab.samplers.play import move, open_rows
from sesa_lab.samplers.sesa import shares
from sesa_lab.types import Completion, Context, Group

FORMS = ("list", "prompt")


def expected_draft(number: int, form: str, earlier: list[Completion]) -> tuple[int, ...]:
    """Written out by hand: 20 + i opens; 40 a list, whose items end with 41; 50 a prompt, whose items end with 51, and 52."""
    ids: tuple[int, ...] = (20 + number, 40 if form == "list" else 50)
    for sketch in earlier:
        ids += (*sketch.ids, *closing(sketch.finish), 41) if form == "list" else (*spelled(sketch.text), 51)
    return ids if form == "list" else (*ids, 52)


def drafted(group: Group) -> list[Completion]:
    return [sketch.turn.completion for sketch in group.sketches]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cut", [(), (0, 4, 5), tuple(range(40))], ids=["all stop", "some cut", "all cut"])
@pytest.mark.parametrize("expansions", [1, 2, 6])
def test_contexts_of_every_sketch_and_every_solution(form: str, cut: tuple[int, ...], expansions: int) -> None:
    engine = FakeEngine(cut)
    found = groups(engine, settings("sesa", 6, drafting_form=form, expansions=expansions))
    for number, (request, group) in enumerate(zip(REQUESTS, found, strict=True)):
        x = Context("task", request.prompt_ids)
        assert len(group.sketches) == 6 // expansions
        for k, sketch in enumerate(group.sketches):
            under = Context("draft", expected_draft(number, form, drafted(group)[:k]))
            assert (sketch.turn.drawn_under, dict(sketch.turn.trained_under)) == (under, {"draft": under})
            assert (sketch.redraws, sketch.sampled_tokens) == (0, len(sketch.turn.completion.ids))
        for index, candidate in enumerate(group.candidates):
            k = index // expansions  # the solutions of a sketch stand together
            (turn,) = candidate.turns
            guided = Context("sketch", (20 + number, 30, *spelled(group.sketches[k].text), 31))
            assert (turn.drawn_under, dict(turn.trained_under)) == (guided, {"task": x, "sketch": guided})
            assert (candidate.sketches, candidate.history, candidate.redraws) == ((k,), (), 0)
            assert candidate.sampled_tokens == len(turn.completion.ids), "sketches are counted apart"
            assert candidate.episode is None


@pytest.mark.parametrize("form", FORMS)
def test_stage_one_is_batched_over_tasks_and_stage_two_over_all(form: str) -> None:
    engine = FakeEngine()
    config = settings("sesa", 8, expansions=2, drafting_form=form, max_tokens=9, sketch_tokens=5, temperature=0.5)
    found = groups(engine, config)
    # K = 4 calls of one row a task, then one call for all 3 x 8 solutions.
    assert engine.batches == [[0, 1, 2]] * 4 + [list(range(24))]
    assert [s.max_tokens for s in engine.samplings] == [5] * 4 + [9]
    stops = (LIST_STOP, STOP) if form == "list" else DIALOGUE.stop_ids
    assert [s.stop_ids for s in engine.samplings] == [stops] * 4 + [DIALOGUE.stop_ids]
    assert {s.temperature for s in engine.samplings} == {0.5}
    # In this order the engine was asked: sketch by sketch, task after task; then task by task, candidate after candidate.
    contexts = [group.sketches[k].turn.drawn_under.ids for k in range(4) for group in found]
    contexts += [candidate.turns[0].drawn_under.ids for group in found for candidate in group.candidates]
    assert [context for context, _ in engine.drawn] == contexts
    completions = [group.sketches[k].turn.completion for k in range(4) for group in found]
    completions += [candidate.turns[0].completion for group in found for candidate in group.candidates]
    assert all(ours is theirs for ours, (_, theirs) in zip(completions, engine.drawn, strict=True))
    # The cache of stage I is begun once; stage II begins with what the contexts of a group have in common.
    assert engine.started == [[expected_draft(g, form, []) for g in range(3)], [(20 + g, 30) for g in range(3)]]


@pytest.mark.parametrize("form", FORMS)
def test_iid_sketches_are_drawn_under_the_task_alone_all_at_once(form: str) -> None:
    engine = FakeEngine()
    found = groups(engine, settings("sesa", 8, expansions=2, drafting="iid", drafting_form=form))
    assert engine.batches == [list(range(12)), list(range(24))]
    for number, group in enumerate(found):
        under = Context("draft", expected_draft(number, form, []))
        assert [(s.turn.drawn_under, dict(s.turn.trained_under)) for s in group.sketches] == [
            (under, {"draft": under})
        ] * 4
        assert [c.sketches for c in group.candidates] == [(k,) for k in range(4) for _ in range(2)]
        for candidate in group.candidates:
            text = group.sketches[candidate.sketches[0]].text
            assert candidate.turns[0].drawn_under.ids == (20 + number, 30, *spelled(text), 31)


@pytest.mark.parametrize("drafting", ["sequential", "iid"])
def test_numbers_of_the_streams(drafting: str) -> None:
    """Candidate i draws from stream i, sketch k from stream G + k: by hand, one number of a generator of its own each."""
    found = groups(
        FakeEngine(), settings("sesa", 10, on_policy_fraction=0.4, expansions=3, drafting=drafting)
    )  # 4 direct, 2 x 3
    for g, group in enumerate(found):
        drawn = [completion.text for completion in drafted(group)]
        assert drawn == [WORDS[10 + int(streams(g, 10 + k).integers(3))] for k in range(2)]
        drawn = [candidate.turns[0].completion.text for candidate in group.candidates]
        assert drawn == [WORDS[10 + int(streams(g, i).integers(3))] for i in range(10)]


@pytest.mark.parametrize("changes", [{}, {"drafting": "iid"}, {"on_policy_fraction": 0.5, "redraws": 2}])
@pytest.mark.parametrize("form", FORMS)
def test_a_group_does_not_depend_on_its_neighbours(form: str, changes: dict[str, Any]) -> None:
    config = settings("sesa", 6, drafting_form=form, **changes)
    together = groups(FakeEngine(), config)
    assert groups(FakeEngine(), config, REQUESTS[:1]) == together[:1]
    # ... nor on their order, apart from the number of the group, which names its streams.
    swapped = groups(FakeEngine(), config, [REQUESTS[0], REQUESTS[2], REQUESTS[1]])
    assert swapped[0] == together[0]


def test_a_longer_list_begins_like_a_shorter_one() -> None:
    # Streams of sketches are numbered from G on, so the comparison needs one G: 8 = 4 x 2 against 8 = 8 x 1.
    short, long = (groups(FakeEngine(), settings("sesa", 8, expansions=e)) for e in (2, 1))
    assert [group.sketches for group in short] == [group.sketches[:4] for group in long]


# --- mixed groups -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fraction", "size", "expansions", "direct", "sketches"),
    [
        (0.0, 6, 2, 0, 3),
        (0.5, 8, 2, 4, 2),
        (0.25, 8, 3, 2, 2),
        (0.3, 10, 7, 3, 1),  # 0.3 x 10 is 3.0000000000000004 in binary and means 3
        (0.01, 4, 1, 1, 3),  # rounded up
        (1.0, 4, 1, 4, 0),
    ],
)
def test_the_first_candidates_of_a_mixed_group_are_direct(
    fraction: float, size: int, expansions: int, direct: int, sketches: int
) -> None:
    config = settings("sesa", size, on_policy_fraction=fraction, expansions=expansions)
    assert shares(config) == (direct, sketches)
    engine = FakeEngine()
    found = groups(engine, config)
    alone = groups(FakeEngine(), settings("parallel", size))
    for request, group, plain in zip(REQUESTS, found, alone, strict=True):
        x = Context("task", request.prompt_ids)
        assert len(group.sketches) == sketches
        assert group.candidates[:direct] == plain.candidates[:direct], "as parallel sampling draws them"
        for candidate in group.candidates[:direct]:
            (turn,) = candidate.turns
            assert (turn.drawn_under, dict(turn.trained_under), candidate.sketches) == (x, {"task": x}, ())
        followed = [candidate.sketches for candidate in group.candidates[direct:]]
        assert followed == [(k,) for k in range(sketches) for _ in range(expansions)]
    assert len(engine.batches) == sketches + 1, "direct answers are drawn beside the guided ones"


# --- sketches that repeat ---------------------------------------------------------------------------------------------


def expected_sketches(group: int, size: int, count: int, most: int) -> list[tuple[str, int, bool]]:
    """(sketch, redraws, repeats) by the rule itself: a sketch that came before is drawn again, at most ``most`` times."""
    found: list[tuple[str, int, bool]] = []
    for k in range(count):
        own = streams(group, size + k)
        seen = {word for word, _, _ in found}
        word, thrown = WORDS[10 + int(own.integers(3))], 0
        while word in seen and thrown < most:
            word, thrown = WORDS[10 + int(own.integers(3))], thrown + 1
        found.append((word, thrown, word in seen))
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("most", [0, 1, 4])
def test_sketches_that_repeat_are_drawn_again_from_the_same_context(most: int, form: str) -> None:
    engine = FakeEngine()
    found = groups(engine, settings("sesa", 5, redraws=most, drafting_form=form))
    for g, group in enumerate(found):
        assert [(s.text, s.redraws, s.repeats) for s in group.sketches] == expected_sketches(g, 5, 5, most)
        for k, sketch in enumerate(group.sketches):
            under = sketch.turn.drawn_under.ids
            assert under == expected_draft(g, form, drafted(group)[:k]), "thrown-away draws leave no trace"
            draws = [completion for context, completion in engine.drawn if context == under]
            assert len(draws) == 1 + sketch.redraws and draws[-1] is sketch.turn.completion
            assert sketch.sampled_tokens == sum(len(completion.ids) for completion in draws)
        assert all(candidate.redraws == 0 for candidate in group.candidates)
    thrown = sum(sketch.redraws for group in found for sketch in group.sketches)
    assert (thrown > 0) == (most > 0)
    assert any(sketch.repeats for group in found for sketch in group.sketches), "five sketches, three words"


@pytest.mark.parametrize("drafting", ["sequential", "iid"])
@pytest.mark.parametrize("form", FORMS)
def test_what_is_done_about_a_sketch_that_repeats_all_the_same(form: str, drafting: str) -> None:
    changes = {"drafting_form": form, "drafting": drafting, "expansions": 2, "on_policy_fraction": 0.2}
    keep, drop = (
        groups(FakeEngine(), settings("sesa", 10, repeated_sketch=way, **changes)) for way in ("keep", "drop")
    )
    dropped = 0
    for number, (request, kept, other) in enumerate(zip(REQUESTS, keep, drop, strict=True)):
        x = Context("task", request.prompt_ids)
        assert kept.sketches == other.sketches, "stage I is the same"
        assert kept.candidates[:2] == other.candidates[:2]
        texts = [sketch.text for sketch in kept.sketches]
        assert [sketch.repeats for sketch in kept.sketches] == [text in texts[:k] for k, text in enumerate(texts)]
        for index in range(2, 10):
            k = (index - 2) // 2
            (ours,), (theirs,) = kept.candidates[index].turns, other.candidates[index].turns
            assert kept.candidates[index].sketches == (k,)
            assert ours.drawn_under.ids == (20 + number, 30, *spelled(texts[k]), 31)
            if not kept.sketches[k].repeats:
                assert kept.candidates[index] == other.candidates[index]
                continue
            dropped += 1
            assert (theirs.drawn_under, dict(theirs.trained_under)) == (x, {"task": x})
            assert other.candidates[index].sketches == ()
            assert theirs.completion.text == ours.completion.text, "the same stream; here words do not hang on contexts"
    assert dropped > 0


def test_case_and_white_space_do_not_make_a_sketch_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_engine, "WORDS", {10: "Red Car", 11: " red\ncar ", 12: "RED  CAR"})
    for changes in ({"redraws": 2}, {"drafting": "iid"}):
        for group in groups(FakeEngine(), settings("sesa", 3, **changes)):
            assert [sketch.repeats for sketch in group.sketches] == [False, True, True]
            assert [sketch.redraws for sketch in group.sketches] == [0, *[changes.get("redraws", 0)] * 2]


def test_an_empty_sketch_counts_as_a_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no method, yet used to be expanded as the first of its group: nothing came before it that it could repeat."""
    monkeypatch.setattr(fake_engine, "WORDS", {10: "red", 11: "", 12: " \n"})
    for changes in ({}, {"drafting": "iid"}, {"redraws": 30}):
        found = groups(FakeEngine(), settings("sesa", 3, repeated_sketch="drop", **changes))
        sketches = [sketch for group in found for sketch in group.sketches]
        for group in found:
            texts = [sketch.text.strip() for sketch in group.sketches]
            repeats = [sketch.repeats for sketch in group.sketches]
            assert repeats == [text in ("", *texts[:k]) for k, text in enumerate(texts)]
            assert [c.sketches == () for c in group.candidates] == repeats, "dropped"
        assert any(sketch.text.strip() == "" for sketch in sketches)
        if "redraws" in changes:  # 31 draws without a "red" have probability (2/3)^31 = 3e-6 a group
            assert [group.sketches[0].text for group in found] == ["red"] * 3
            assert any(group.sketches[0].redraws for group in found)


# --- rows that move from one context to another -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "contexts",
    [
        [[(1, 2, 3), (1, 2, 4, 5), (1, 2)], [(9,), (9, 9)]],
        [[(1, 2)] * 3],
        [[(5, 6, 7)]],
        [[(1, 2), (3, 4)], [(1, 2), (1, 2)]],  # nothing in common: as where a template begins with the sketch
    ],
)
def test_rows_are_opened_on_their_contexts_whatever_these_have_in_common(
    contexts: list[list[tuple[int, ...]]],
) -> None:
    session = open_rows(FakeEngine(), contexts)
    flat = [ids for group in contexts for ids in group]
    assert [session.context(row) for row in range(len(flat))] == flat


def test_what_the_contexts_of_a_group_begin_with_is_read_in_once() -> None:
    engine = FakeEngine()
    open_rows(engine, [[(1, 2, 3), (1, 2, 4, 5)], [(1, 2, 3)]])
    assert engine.started == [[(1, 2), (1, 2, 3)]]


@pytest.mark.parametrize(
    "targets",
    [
        [(1, 2, 3, 4), (5, 6)],  # grown, and unchanged
        [(1,), (5, 7, 8)],  # cut back, and another end
        [(1, 2), (5, 6, 6, 6)],
        [(8, 8), (5, 6)],  # nothing kept
    ],
)
def test_rows_move_to_any_context(targets: list[tuple[int, ...]]) -> None:
    engine = FakeEngine()
    session = move(engine, engine.start([(1, 2, 3), (5, 6)]), targets)
    assert [session.context(row) for row in range(2)] == targets


def test_a_request_whose_prompts_have_nothing_in_common() -> None:
    """As ``open_rows`` above, through the sampler: x of the dropped candidates begins otherwise than the guided contexts."""
    request = Request(REQUESTS[0].task, (99, 98))
    (found,) = groups(FakeEngine(), settings("sesa", 6, repeated_sketch="drop"), [request])
    kinds = {candidate.turns[0].drawn_under.kind for candidate in found.candidates}
    assert kinds == {"task", "sketch"}
