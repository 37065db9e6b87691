"""Stage II on its own: any sketch, drafted for the task or not, under any candidate."""

from __future__ import annotations

from fake_dialogue import DIALOGUE, REQUESTS, settings, spelled, streams
from fake_engine import FakeEngine

from sesa_lab.samplers import draw
from sesa_lab.samplers.sesa import draft, expand
from sesa_lab.types import Context


def test_both_stages_apart_are_the_whole() -> None:
    config = settings("sesa", 8, expansions=2, on_policy_fraction=0.25)
    whole = draw(FakeEngine(), REQUESTS, config, DIALOGUE, streams)
    engine = FakeEngine()
    sketches = draft(engine, REQUESTS, config, DIALOGUE, streams, 3)
    followed = [[None, None, 0, 0, 1, 1, 2, 2]] * 3
    assert expand(engine, REQUESTS, sketches, followed, config, DIALOGUE, streams) == whole


def test_given_sketches_decide_the_context_and_nothing_else() -> None:
    config = settings("sesa", 2)
    sketches = draft(FakeEngine(), REQUESTS, config, DIALOGUE, streams, 2)
    foreign = [sketches[1], sketches[2], sketches[0]]
    found = expand(FakeEngine(), REQUESTS, foreign, [[1, None], [0, 1], [1, 1]], config, DIALOGUE, streams)
    for number, (group, given) in enumerate(zip(found, foreign, strict=True)):
        assert group.task == REQUESTS[number].task and group.sketches == tuple(given)
    drawn = [[candidate.turns[0].drawn_under for candidate in group.candidates] for group in found]
    assert drawn[0] == [
        Context("sketch", (20, 30, *spelled(sketches[1][1].text), 31)), Context("task", REQUESTS[0].prompt_ids),
    ]  # fmt: skip
    assert [candidate.sketches for group in found for candidate in group.candidates] == [
        (1,),
        (),
        (0,),
        (1,),
        (1,),
        (1,),
    ]
    own = expand(FakeEngine(), REQUESTS, sketches, [[0, 1]] * 3, config, DIALOGUE, streams)
    texts = [[[c.text for c in group.candidates] for group in groups] for groups in (own, found)]
    assert texts[0] == texts[1], "the fake engine looks at streams alone, and these are the candidates' own"
