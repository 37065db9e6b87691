"""Two-stage sampling with real engines: what is recorded is true, the cache is kept, and draws have the right frequencies."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from fake_dialogue import common, settings
from scipy import stats
from tiny_models import STOP, reference_logprobs

from sesa_lab import environments
from sesa_lab.config import PolicyConfig, SamplerConfig
from sesa_lab.engines import TorchEngine
from sesa_lab.policies import Policy, load_policy, merged
from sesa_lab.prompts import Speaker
from sesa_lab.samplers import Request, draw
from sesa_lab.seeding import stream
from sesa_lab.types import Completion, Group, Task

FORMS = ("list", "prompt")


def streams(group: int, number: int) -> np.random.Generator:
    return stream(0, "sampling", 1, group, number)


# --- the shipped policy -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> tuple[Policy, list[Request], Speaker]:
    """Three maps, so that the three requests differ."""
    environment = environments.make("path_exploration", maps=3)
    policy = load_policy(PolicyConfig(model="path", device="cpu"), environment.name, environment.options, 0)
    speaker = Speaker(policy.tokenizer, policy.form, environment.name, policy.stop_ids)
    return policy, [Request(task, speaker.answer(task)) for task in map(environment.task, range(3))], speaker


def sampled(shipped: tuple[Policy, list[Request], Speaker], config: SamplerConfig) -> tuple[list[Group], TorchEngine]:
    policy, requests, speaker = shipped
    engine = TorchEngine(policy)
    with merged(policy.model):
        return draw(engine, requests, config, speaker, streams), engine


@pytest.mark.parametrize("drafting", ["sequential", "iid"])
@pytest.mark.parametrize("form", FORMS)
def test_the_history_of_sketches_is_never_read_in_again(
    shipped: tuple[Policy, list[Request], Speaker], form: str, drafting: str
) -> None:
    """Tokens read in, counted by hand: of each context only what goes beyond the row's tokens so far."""
    _, requests, speaker = shipped
    count, expansions = 8, 2
    config = settings("sesa", count * expansions, expansions=expansions, drafting_form=form, drafting=drafting)
    found, engine = sampled(shipped, config)
    expected = reread = 0
    for request, group in zip(requests, found, strict=True):
        contexts = [sketch.turn.drawn_under.ids for sketch in group.sketches]
        reread += sum(map(len, contexts))
        row: tuple[int, ...] = ()
        for context, sketch in zip(contexts, group.sketches, strict=True):
            if drafting == "sequential" or not row:
                expected += len(context) - common([row, context])
            row = (*context, *sketch.turn.completion.ids)
        guided = [speaker.guided(request.task, sketch.text) for sketch in group.sketches for _ in range(expansions)]
        shared = common(guided)
        expected += shared + sum(len(ids) - shared for ids in guided)
        reread += sum(map(len, guided))
    assert engine.counters.prefilled == expected
    if drafting == "sequential" and form == "list":
        # Of each further context the bridge alone, and a closing stop token where the sketch before it was cut.
        opening = sum(len(speaker.draft(request.task, form, ())) for request in requests)
        cut = sum(s.turn.completion.finish == "length" for group in found for s in group.sketches[:-1])
        bridge = len(speaker.encode(" then"))
        stage_two = sum(len(ids) for ids in _opened(found, speaker))
        assert expected == opening + 3 * (count - 1) * bridge + cut + stage_two
    if drafting == "sequential":
        assert expected < 0.6 * reread
    drawn = [*(c for group in found for c in group.candidates), *(s for group in found for s in group.sketches)]
    assert engine.counters.sampled == sum(one.sampled_tokens for one in drawn)


def _opened(found: Sequence[Group], speaker: Speaker) -> list[tuple[int, ...]]:
    """What stage II reads in: of each group the common beginning, then each candidate's rest."""
    parts = []
    for group in found:
        contexts = [candidate.turns[0].drawn_under.ids for candidate in group.candidates]
        shared = common(contexts)
        parts += [contexts[0][:shared], *(ids[shared:] for ids in contexts)]
    return parts


@pytest.mark.parametrize("drafting", ["sequential", "iid"])
@pytest.mark.parametrize("form", FORMS)
def test_recorded_log_probs_are_those_of_the_recorded_contexts(
    shipped: tuple[Policy, list[Request], Speaker], form: str, drafting: str
) -> None:
    redraws = {} if drafting == "iid" else {"redraws": 2}
    config = settings(
        "sesa", 6, on_policy_fraction=0.3, expansions=2, drafting_form=form, drafting=drafting, temperature=0.7,
        sketch_tokens=3, **redraws,
    )  # fmt: skip
    found, _ = sampled(shipped, config)
    turns = [turn for group in found for candidate in group.candidates for turn in candidate.turns]
    turns += [sketch.turn for group in found for sketch in group.sketches]
    assert len(turns) == 3 * (6 + 2) and {turn.completion.finish for turn in turns} == {"stop", "length"}
    for turn in turns:
        expected = reference_logprobs(shipped[0].model, turn.drawn_under.ids, turn.completion.ids, 0.7)
        torch.testing.assert_close(torch.tensor(turn.completion.logprobs), expected, rtol=0, atol=1e-5)


def test_a_real_group_does_not_depend_on_its_neighbours(shipped: tuple[Policy, list[Request], Speaker]) -> None:
    policy, requests, speaker = shipped
    for form in FORMS:
        config = settings("sesa", 4, drafting_form=form, redraws=1)
        together, _ = sampled(shipped, config)
        alone, _ = sampled((policy, requests[:1], speaker), config)
        for ours, theirs in zip(alone[0].candidates, together[0].candidates, strict=True):
            assert ours.turns[0].completion.ids == theirs.turns[0].completion.ids
            assert ours.turns[0].drawn_under == theirs.turns[0].drawn_under
            assert ours.turns[0].completion.logprobs == pytest.approx(theirs.turns[0].completion.logprobs, abs=1e-5)
        assert [s.turn.drawn_under for s in alone[0].sketches] == [s.turn.drawn_under for s in together[0].sketches]


# --- frequencies --------------------------------------------------------------------------------------------------------

LETTERS = (3, 4, 5)
TOKENS = (0, STOP, 2, *LETTERS)
ONE: tuple[tuple[int, ...], ...] = ((STOP,), *itertools.product([t for t in TOKENS if t != STOP], TOKENS))
"""Everything a completion of at most two tokens can be: 1 + 5 x 6 = 31."""


class Small:
    """A dialogue within six tokens. A list goes on behind a 2; a prompt shows the earlier sketches between 2 and 0."""

    stop_ids = (STOP,)

    def draft_stops(self, form: str) -> tuple[int, ...]:
        return self.stop_ids

    def draft(self, task: Task, form: str, earlier: Sequence[Completion]) -> tuple[int, ...]:
        return self.after(form, [sketch.ids for sketch in earlier])

    def after(self, form: str, earlier: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        if form == "list":
            return (3, 4, *(t for ids in earlier for t in (*ids, 2)))
        return (3, 5, *(t for ids in earlier for t in (2, *(i for i in ids if i in LETTERS))), 0)

    def guided(self, task: Task, sketch: str) -> tuple[int, ...]:
        return (3, 3, *("abc".index(letter) + 3 for letter in sketch), 0)

    def between(self, finish: str) -> tuple[int, ...]:
        raise AssertionError("no whole answers follow each other here")

    def observed(self, finish: str, observation: str, role: str = "turn", task: Task | None = None) -> tuple[int, ...]:
        raise AssertionError("one turn")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    folder = tmp_path_factory.mktemp("models") / "small"
    return tiny_models.load(tiny_models.save_model(folder, alphabet=list("abc"), initializer_range=0.2))


def exact(policy: Policy, context: tuple[int, ...]) -> dict[tuple[int, ...], float]:
    """P(completion | context) of all 31 completions, from a plain forward pass."""
    rows = torch.tensor([[*context, t] for t in TOKENS])
    with torch.no_grad():
        logits = policy.model(rows, use_cache=False).logits.double()  # (6, T, 6); a token's id is its place here
    first, second = logits[0, -2].softmax(-1), logits[:, -1].softmax(-1)
    found = {ids: float(first[ids[0]] * (1.0 if ids == (STOP,) else second[ids])) for ids in ONE}
    assert math.isclose(sum(found.values()), 1.0, rel_tol=1e-9)
    return found


def p_value(drawn: Sequence[Any], probability: dict[Any, float]) -> float:
    """Of Pearson's chi-square test; outcomes expected fewer than five times are taken together."""
    n, counts = len(drawn), Counter(drawn)
    assert counts.keys() <= probability.keys()
    often = [outcome for outcome, p in probability.items() if n * p >= 5]
    observed = [counts[outcome] for outcome in often]
    expected = [n * probability[outcome] for outcome in often]
    rest = n - sum(expected)
    if rest >= 5:
        observed, expected = [*observed, n - sum(observed)], [*expected, rest]
    expected = [e * sum(observed) / sum(expected) for e in expected]
    return float(stats.chisquare(observed, expected).pvalue)


def text_of(ids: tuple[int, ...]) -> str:
    return "".join("abc"[i - 3] for i in ids if i in LETTERS)


@pytest.mark.parametrize("drafting", ["sequential", "iid"])
@pytest.mark.parametrize("form", FORMS)
def test_frequencies_of_sketches_and_of_solutions_given_a_sketch(small: Policy, form: str, drafting: str) -> None:
    """1,500 groups of two sketches and their solutions against exact probabilities.

    Three chi-square tests in each of four cases, threshold 1e-4: false alarms 1.2e-3 in all; seeds are fixed.
    """
    dialogue, task = Small(), Task(0, "", {})
    requests = [Request(task, (3, 4))] * 1500
    config = settings("sesa", 2, drafting_form=form, drafting=drafting, sketch_tokens=2, max_tokens=2)
    found = draw(TorchEngine(small), requests, config, dialogue, streams)
    pairs = [tuple(sketch.turn.completion.ids for sketch in group.sketches) for group in found]

    first = exact(small, dialogue.after(form, []))
    second = {s: exact(small, dialogue.after(form, [s])) if drafting == "sequential" else first for s in ONE}
    assert p_value(pairs, {(s, t): p * second[s][t] for s, p in first.items() for t in ONE}) > 1e-4

    for number in (0, 1):
        texts: dict[str, float] = {}
        for s, p in first.items():
            for t, q in second[s].items():
                text = text_of((s, t)[number])
                texts[text] = texts.get(text, 0.0) + p * q
        drawn = [(group.sketches[number].text, group.candidates[number].turns[0].completion.ids) for group in found]
        solution = {text: exact(small, dialogue.guided(task, text)) for text in texts}
        probability = {(text, y): p * q for text, p in texts.items() for y, q in solution[text].items()}
        assert p_value(drawn, probability) > 1e-4


def test_the_test_of_frequencies_sees_a_wrong_context(small: Policy) -> None:
    # With sketches drawn i.i.d. the probabilities of drafting in sequence do not fit, and the other way round.
    requests = [Request(Task(0, "", {}), (3, 4))] * 800
    first = exact(small, Small().after("list", []))
    given = {s: exact(small, Small().after("list", [s])) for s in ONE}
    in_sequence = {(s, t): p * given[s][t] for s, p in first.items() for t in ONE}
    alone = {(s, t): p * first[t] for s, p in first.items() for t in ONE}
    for drafting, wrong in (("iid", in_sequence), ("sequential", alone)):
        config = settings("sesa", 2, drafting=drafting, sketch_tokens=2, max_tokens=2)
        found = draw(TorchEngine(small), requests, config, Small(), streams)
        pairs = [tuple(sketch.turn.completion.ids for sketch in group.sketches) for group in found]
        assert p_value(pairs, wrong) < 1e-6
