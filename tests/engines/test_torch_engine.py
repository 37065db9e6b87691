"""The engine's cache, batching and sampling against ordinary forward passes of transformers' own model."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from scipy import stats
from tiny_models import STOP, reference_logprobs
from transformers import AutoModelForCausalLM, GPT2Config, MistralConfig

from sesa_lab.engines import Sampling, TorchEngine
from sesa_lab.engines.tokens import completes
from sesa_lab.errors import InputError
from sesa_lab.policies import Policy, merged
from sesa_lab.types import Completion

TOLERANCE = 1e-5  # nats
CONTEXTS = [(5, 6, 7, 8) * 4, (9,), (40, 41, 42), (9,), tuple(range(3, 30)), (60, 61)]
SAMPLING = Sampling(max_tokens=14, stop_ids=(STOP,))


@pytest.fixture(scope="module")
def policy(qwen_folder: Path) -> Policy:
    """Its LoRA matrices are not zero."""
    return tiny_models.load(qwen_folder, adapter_noise=0.05)


@pytest.fixture(scope="module")
def plain(qwen_folder: Path) -> Policy:
    """A fresh adapter, which changes nothing."""
    return tiny_models.load(qwen_folder)


@pytest.fixture
def engine(plain: Policy) -> TorchEngine:
    return TorchEngine(plain)


@pytest.fixture(scope="module")
def reference(qwen_folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(qwen_folder)


def streams(*numbers: int) -> list[np.random.Generator]:
    return [np.random.default_rng([17, number]) for number in numbers]


def close(completion: Completion, logprobs: torch.Tensor) -> None:
    torch.testing.assert_close(torch.tensor(completion.logprobs), logprobs, rtol=0, atol=TOLERANCE)


def same(left: Completion, right: Completion) -> None:
    assert (left.ids, left.text, left.finish) == (right.ids, right.text, right.finish)
    np.testing.assert_allclose(left.logprobs, right.logprobs, rtol=0, atol=TOLERANCE)


# --- log-probs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_a_full_forward_pass(engine: TorchEngine, reference: Any, temperature: float) -> None:
    sampling = Sampling(14, (STOP,), temperature)
    drawn = engine.start(CONTEXTS).sample(sampling, streams(*range(len(CONTEXTS))))
    assert sum(len(completion.ids) for completion in drawn) > 30
    for context, completion in zip(CONTEXTS, drawn, strict=True):
        assert len(completion.logprobs) == len(completion.ids) >= 1
        close(completion, reference_logprobs(reference, context, completion.ids, temperature))


@pytest.mark.parametrize("shape", [{"num_key_value_heads": 1}, {"num_hidden_layers": 1, "tie_word_embeddings": False}])
def test_logprobs_with_shared_key_value_heads_and_with_an_untied_head(tmp_path: Path, shape: dict) -> None:
    folder = tiny_models.save_model(tmp_path / "model", **shape)
    own = TorchEngine(tiny_models.load(folder))
    model = AutoModelForCausalLM.from_pretrained(folder)
    for context, completion in zip(CONTEXTS, own.start(CONTEXTS).sample(SAMPLING, streams(*range(6))), strict=True):
        close(completion, reference_logprobs(model, context, completion.ids))


def test_merged_adapter_draws_what_the_unmerged_one_does_and_leaves_no_trace(policy: Policy, reference: Any) -> None:
    engine = TorchEngine(policy)
    unmerged = engine.start(CONTEXTS).sample(SAMPLING, streams(*range(6)))
    with merged(policy.model):
        fused = engine.start(CONTEXTS).sample(SAMPLING, streams(*range(6)))
    again = engine.start(CONTEXTS).sample(SAMPLING, streams(*range(6)))
    assert again == unmerged, "the base is bit for bit what it was"
    for context, left, right in zip(CONTEXTS, unmerged, fused, strict=True):
        assert left.ids == right.ids
        np.testing.assert_allclose(left.logprobs, right.logprobs, rtol=0, atol=TOLERANCE)
        close(left, reference_logprobs(policy.model, context, left.ids))
    base = reference_logprobs(reference, CONTEXTS[0], unmerged[0].ids)
    assert (torch.tensor(unmerged[0].logprobs) - base).abs().max() > 0.01, "the adapter does something here"


def test_as_temperature_vanishes_the_likeliest_token_is_drawn(engine: TorchEngine, reference: Any) -> None:
    drawn = engine.start(CONTEXTS).sample(Sampling(6, (STOP,), 1e-4), streams(*range(6)))
    for context, completion in zip(CONTEXTS, drawn, strict=True):
        ids = tuple(context)
        for token in completion.ids:
            assert token == int(tiny_models.full_logits(reference, ids)[-1].argmax())
            ids += (token,)
        np.testing.assert_allclose(completion.logprobs, 0.0, atol=1e-3)


# --- frequencies ------------------------------------------------------------------------------------------------------


def answers(policy: Policy, context: tuple[int, ...], temperature: float) -> dict[tuple[int, ...], float]:
    """Exact probability of every completion of at most three tokens, by ordinary forward passes."""
    found: dict[tuple[int, ...], float] = {}
    begun: dict[tuple[int, ...], float] = {(): 1.0}
    for length in range(1, 4):
        grown: dict[tuple[int, ...], float] = {}
        for ids, mass in begun.items():
            last = tiny_models.full_logits(policy.model, context + ids)[-1].double() / temperature
            for token, p in enumerate(last.softmax(-1).tolist()):
                over = token == STOP or length == 3
                (found if over else grown)[(*ids, token)] = mass * p
        begun = grown
    return found


def chi_square(counts: dict[tuple[int, ...], int], exact: dict[tuple[int, ...], float]) -> tuple[float, int]:
    """Pearson's statistic and degrees of freedom; cells expected fewer than 5 times are taken together."""
    total = sum(counts.values())
    cells = [(counts.get(ids, 0), total * p) for ids, p in exact.items()]
    rare = [cell for cell in cells if cell[1] < 5]
    kept = [cell for cell in cells if cell[1] >= 5]
    if sum(expected for _, expected in rare) >= 5:
        kept.append((sum(count for count, _ in rare), sum(expected for _, expected in rare)))
    return sum((count - expected) ** 2 / expected for count, expected in kept), len(kept) - 1


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_answers_come_as_often_as_their_exact_probability_says(tmp_path: Path, temperature: float) -> None:
    # A right sampler fails with probability 1e-4 over seeds; the seed is fixed, so it passes always or never.
    policy = tiny_models.load(tiny_models.save_model(tmp_path / "letters", alphabet=["a", "b"], initializer_range=0.1))
    context, n = (3, 4, 4), 6000
    exact = answers(policy, context, temperature)
    assert sum(exact.values()) == pytest.approx(1.0, abs=1e-6)
    session = TorchEngine(policy).start([context]).fork([0] * n)
    counts: dict[tuple[int, ...], int] = {}
    for completion in session.sample(Sampling(3, (STOP,), temperature), streams(*range(n))):
        counts[completion.ids] = counts.get(completion.ids, 0) + 1
    assert counts.keys() <= exact.keys()
    statistic, freedom = chi_square(counts, exact)
    assert freedom >= 10
    assert statistic < stats.chi2.ppf(1 - 1e-4, freedom)
    wrong, freedom = chi_square(counts, answers(policy, context, 1.7 - temperature))
    assert wrong > stats.chi2.ppf(1 - 1e-4, freedom), "the test can tell the two temperatures apart"


# --- ends -------------------------------------------------------------------------------------------------------------


def test_the_stop_token_is_kept_and_the_limit_is_told_apart(engine: TorchEngine) -> None:
    # Two of three tokens end an answer, so that both ends occur.
    stops = tuple(token for token in range(vocabulary(engine)) if token % 3)
    drawn = engine.start([(9,)]).fork([0] * 64).sample(Sampling(3, stops), streams(*range(64)))
    assert {completion.finish for completion in drawn} == {"stop", "length"}
    for completion in drawn:
        stopped = completion.ids[-1] in stops
        assert completion.finish == ("stop" if stopped else "length")
        assert not set(completion.ids[:-1]) & set(stops)
        assert stopped or len(completion.ids) == 3


def vocabulary(engine: TorchEngine) -> int:
    return int(engine.policy.head.weight.shape[0])


def test_a_stop_token_at_the_very_limit_is_a_stop(engine: TorchEngine) -> None:
    everything = tuple(range(vocabulary(engine)))
    [completion] = engine.start([(9,)]).sample(Sampling(1, everything), streams(0))
    assert (completion.finish, len(completion.ids)) == ("stop", 1)


def test_text_is_the_ids_without_special_tokens(engine: TorchEngine) -> None:
    tokenizer = engine.policy.tokenizer
    for completion in engine.start(CONTEXTS).sample(SAMPLING, streams(*range(6))):
        assert completion.text == tokenizer.decode(completion.ids, skip_special_tokens=True)
        assert "<|im_end|>" not in completion.text


# --- rows are independent ---------------------------------------------------------------------------------------------


def test_ragged_rows_draw_what_each_draws_alone(engine: TorchEngine) -> None:
    together = engine.start(CONTEXTS).sample(SAMPLING, streams(*range(6)))
    for row, completion in enumerate(together):
        [alone] = engine.start([CONTEXTS[row]]).sample(SAMPLING, streams(row))
        same(alone, completion)


def test_neighbours_and_their_order_change_nothing(engine: TorchEngine) -> None:
    together = engine.start(CONTEXTS).sample(SAMPLING, streams(*range(6)))
    for order in ([5, 4, 3, 2, 1, 0], [2, 0, 4]):
        mixed = engine.start([CONTEXTS[row] for row in order]).sample(SAMPLING, streams(*order))
        for row, completion in zip(order, mixed, strict=True):
            same(together[row], completion)


def test_rows_of_one_context_with_one_stream_are_equal_and_with_others_differ(engine: TorchEngine) -> None:
    first, second, other = engine.start([(9,)]).fork([0, 0, 0]).sample(SAMPLING, streams(3, 3, 4))
    same(first, second)
    assert other.ids != first.ids


def test_sampling_some_rows_leaves_the_others_alone(engine: TorchEngine) -> None:
    session = engine.start(CONTEXTS)
    drawn = session.sample(SAMPLING, streams(4, 1), rows=[4, 1])
    for row, context in enumerate(CONTEXTS):
        grown = {4: drawn[0].ids, 1: drawn[1].ids}.get(row, ())
        assert session.context(row) == (*context, *grown)
    rest = session.sample(SAMPLING, streams(0, 2, 3, 5), rows=[0, 2, 3, 5])
    together = engine.start(CONTEXTS).sample(SAMPLING, streams(*range(6)))
    for row, completion in zip([4, 1, 0, 2, 3, 5], [*drawn, *rest], strict=True):
        same(together[row], completion)


# --- one growing cache ------------------------------------------------------------------------------------------------


def test_going_on_after_append_equals_starting_anew(engine: TorchEngine, reference: Any) -> None:
    session = engine.start(CONTEXTS)
    bridges: list[tuple[int, ...]] = [(50, 51, 52), (), (53,), (54,) * 7, (), (STOP, 55)]
    for turn in range(3):
        session.sample(SAMPLING, streams(*range(10 * turn, 10 * turn + 6)))
        session.append(bridges)
    contexts = [session.context(row) for row in range(6)]
    assert contexts[3][-7:] == (54,) * 7
    continued = session.sample(SAMPLING, streams(*range(6)))
    anew = engine.start(contexts).sample(SAMPLING, streams(*range(6)))
    for context, left, right in zip(contexts, continued, anew, strict=True):
        same(left, right)
        close(left, reference_logprobs(reference, context, left.ids))


def test_rewinding_forgets(engine: TorchEngine) -> None:
    session = engine.start(CONTEXTS)
    first = session.sample(SAMPLING, streams(*range(6)))
    session.append([(70, 71)] * 6)
    session.sample(SAMPLING, streams(*range(20, 26)))
    for row, context in enumerate(CONTEXTS):
        session.rewind(row, len(context))
        assert session.context(row) == context
    for left, right in zip(first, session.sample(SAMPLING, streams(*range(6))), strict=True):
        same(left, right)


def test_rewinding_into_the_prompt_and_one_row_only(engine: TorchEngine) -> None:
    session = engine.start(CONTEXTS)
    session.sample(SAMPLING, streams(*range(6)))
    session.rewind(0, 5)
    session.rewind(4, 1)
    contexts = [session.context(row) for row in range(6)]
    assert contexts[0] == CONTEXTS[0][:5] and contexts[4] == CONTEXTS[4][:1]
    anew = engine.start(contexts).sample(SAMPLING, streams(*range(6)))
    for left, right in zip(session.sample(SAMPLING, streams(*range(6))), anew, strict=True):
        same(left, right)


def test_forks_are_copies(engine: TorchEngine) -> None:
    session = engine.start(CONTEXTS)
    fork = session.fork([4, 0, 4])
    drawn = fork.sample(SAMPLING, streams(4, 0, 9))
    assert [session.context(row) for row in range(6)] == CONTEXTS
    together = session.sample(SAMPLING, streams(*range(6)))
    same(drawn[0], together[4])
    same(drawn[1], together[0])


def test_a_prompt_is_read_in_once_for_each_distinct_context(engine: TorchEngine) -> None:
    seen = 0

    def count(_: Any, __: Any, keywords: dict) -> None:
        nonlocal seen
        seen += keywords["input_ids"].numel()

    hook = engine.policy.decoder.register_forward_pre_hook(count, with_kwargs=True)
    try:
        session = engine.start([CONTEXTS[0]] * 5).fork([0] * 10)
        assert seen == len(CONTEXTS[0]) - 1, "its last token is read when the first one is drawn"
        session.sample(Sampling(1, (STOP,)), streams(*range(10)))
        assert seen == len(CONTEXTS[0]) - 1 + 10
    finally:
        hook.remove()
    assert engine.counters.prefilled == len(CONTEXTS[0])
    engine.start([CONTEXTS[1], CONTEXTS[2], CONTEXTS[1]])
    assert engine.counters.prefilled == len(CONTEXTS[0]) + len(CONTEXTS[1]) + len(CONTEXTS[2])


def test_counters_count_what_is_appended_and_what_is_drawn(engine: TorchEngine) -> None:
    session = engine.start(CONTEXTS)
    before = engine.counters.prefilled
    drawn = session.sample(SAMPLING, streams(*range(6)))
    session.append([(70, 71)] * 6)
    again = session.sample(SAMPLING, streams(0), rows=[0])
    assert engine.counters.prefilled == before + 12
    assert engine.counters.sampled == sum(len(completion.ids) for completion in [*drawn, *again])


# --- work not done ----------------------------------------------------------------------------------------------------


def test_finished_rows_leave_the_batch_and_logits_are_made_for_one_token_a_row(engine: TorchEngine) -> None:
    policy = engine.policy
    batches: list[int] = []
    heads: list[torch.Size] = []
    hooks = [
        policy.decoder.register_forward_pre_hook(
            lambda _, __, keywords: batches.append(len(keywords["input_ids"])), with_kwargs=True
        ),
        policy.head.register_forward_pre_hook(lambda _, arguments: heads.append(arguments[0].shape)),
    ]
    try:
        session = engine.start(CONTEXTS).fork([0, 1, 2, 3, 4, 5] * 4)
        batches.clear()
        stops = tuple(range(0, vocabulary(engine), 4))
        drawn = session.sample(Sampling(14, stops), streams(*range(24)))
    finally:
        for hook in hooks:
            hook.remove()
    active = [sum(len(completion.ids) > step for completion in drawn) for step in range(14)]
    assert batches == [rows for rows in active if rows]
    assert batches[-1] < batches[0] == 24
    assert heads == [torch.Size([rows, 64]) for rows in batches], "never a row for a token of the context"


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_context_beyond_the_models_positions_is_refused(engine: TorchEngine) -> None:
    engine.start([(9,) * 242]).sample(SAMPLING, streams(0))  # 242 + 14 = 256 positions
    with pytest.raises(InputError, match=r"257 tokens .* exceeds the model's 256; use a smaller sampler\.group_size"):
        engine.start([(9,), (9,) * 243]).sample(SAMPLING, streams(0, 1))
    with pytest.raises(InputError, match="a context of 300 tokens"):
        engine.start([(9,) * 300])


@pytest.mark.parametrize("contexts", [[], [(1, 2), ()]])
def test_nothing_to_start_from_is_refused(engine: TorchEngine, contexts: list) -> None:
    with pytest.raises(ValueError, match="at least one context, none of them empty"):
        engine.start(contexts)


def test_append_and_rewind_check_their_arguments(engine: TorchEngine) -> None:
    session = engine.start(CONTEXTS)
    with pytest.raises(ValueError, match="expected 6 lists of tokens, got 1"):
        session.append([(1,)])
    for length in (0, 2, -1):
        with pytest.raises(ValueError, match="row 1 has 1 tokens, cannot keep"):
            session.rewind(1, length)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        session.sample(SAMPLING, streams(0))


@pytest.mark.parametrize(
    "shape",
    [
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0},
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
        {"kind": MistralConfig, "sliding_window": 8},  # lists no layer types: log-probs were 5 nats off, in silence
    ],
    ids=["all layers", "some layers", "unlisted"],
)
def test_sliding_windows_are_refused(tmp_path: Path, shape: dict) -> None:
    policy = tiny_models.load(tiny_models.save_model(tmp_path / "model", **shape))
    with pytest.raises(InputError, match=r"sliding_attention.*; this engine needs full attention"):
        TorchEngine(policy)


def test_a_window_as_wide_as_the_model_is_none(tmp_path: Path) -> None:
    folder = tiny_models.save_model(tmp_path / "model", kind=MistralConfig, sliding_window=256)
    model = AutoModelForCausalLM.from_pretrained(folder)
    drawn = TorchEngine(tiny_models.load(folder)).start(CONTEXTS).sample(SAMPLING, streams(*range(6)))
    close(drawn[0], reference_logprobs(model, CONTEXTS[0], drawn[0].ids))


def test_another_kind_of_attention_code_is_refused(qwen_folder: Path) -> None:
    # Eager attention adds the boolean mask as if it were numbers: log-probs were 1 nat off, in silence.
    policy = tiny_models.load(qwen_folder)
    policy.model.get_base_model().set_attn_implementation("eager")
    with pytest.raises(InputError, match="computes attention by 'eager'; this engine needs 'sdpa'"):
        TorchEngine(policy)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")  # peft mends it itself
def test_padding_does_not_reach_beyond_learned_positions(tmp_path: Path) -> None:
    # A long row beside one that is read in anew: its padding stood at positions the model has no embedding for.
    folder = tiny_models.save_model(tmp_path / "gpt2", kind=GPT2Config, max_position_embeddings=64)
    engine = TorchEngine(tiny_models.load(folder))
    model = AutoModelForCausalLM.from_pretrained(folder)
    session = engine.start([(9,) * 40, (8,)])
    session.append([(), (7,) * 50])
    contexts = [session.context(0), session.context(1)]
    for context, completion in zip(contexts, session.sample(Sampling(10, (STOP,)), streams(0, 1)), strict=True):
        close(completion, reference_logprobs(model, context, completion.ids))


def test_every_uniform_number_gives_a_token_of_positive_probability() -> None:
    from sesa_lab.engines.torch_engine import _draw

    logits = torch.tensor([-np.inf, 0.0, -np.inf, np.log(3.0), -np.inf], dtype=torch.float32)
    u = [0.0, 0.2499, 0.2501, 0.5, float(np.nextafter(1.0, 0.0))]
    tokens, logprobs = _draw(logits.expand(len(u), -1), torch.tensor(u, dtype=torch.float64), 1.0)
    assert tokens == [1, 1, 3, 3, 3]  # a quarter of the mass is on token 1, three quarters on token 3
    np.testing.assert_allclose(logprobs, np.log([0.25, 0.25, 0.75, 0.75, 0.75]), atol=1e-6)


def test_lengths_of_all_combinations_agree(engine: TorchEngine) -> None:
    """Every pair of context lengths 1..4 side by side: no off-by-one between slots, positions and masks."""
    alone = {n: engine.start([tuple(range(10, 10 + n))]).sample(SAMPLING, streams(n))[0] for n in range(1, 5)}
    for left, right in itertools.product(range(1, 5), repeat=2):
        pair = [tuple(range(10, 10 + n)) for n in (left, right)]
        for n, completion in zip((left, right), engine.start(pair).sample(SAMPLING, streams(left, right)), strict=True):
            same(alone[n], completion)


def test_a_text_ends_an_answer_and_is_kept(plain: Policy) -> None:
    """The text lies across two tokens; what follows it is not drawn."""
    free = TorchEngine(plain).start([(9,)]).fork([0] * 64).sample(Sampling(40, (STOP,)), streams(*range(64)))
    text = next(c.text[at : at + 2] for c in free for at in range(3, len(c.text) - 9) if c.text[at : at + 2].isascii())
    drawn = TorchEngine(plain).start([(9,)]).fork([0] * 64)
    found = drawn.sample(Sampling(40, (STOP,), stop_text=text), streams(*range(64)))
    for completion, whole in zip(found, free, strict=True):
        assert whole.ids[: len(completion.ids)] == completion.ids  # the same draws, cut where the text is complete
        assert text not in plain.tokenizer.decode(completion.ids[:-1], skip_special_tokens=True)
        assert completion.text == plain.tokenizer.decode(completion.ids, skip_special_tokens=True)
        assert (completion.finish == "text") is (text in completion.text)
    assert any(completion.finish == "text" for completion in found)
    assert any(completion.finish != "text" for completion in found)


@pytest.mark.parametrize(
    ("ids", "text", "expected"),
    [("ab</", "</", True), ("ab<", "</", False), ("</ab", "</", False), ("ab", "", False), ("é", "é", True)],
)
def test_when_a_text_is_complete(plain: Policy, ids: str, text: str, expected: bool) -> None:
    assert completes(plain.tokenizer, plain.tokenizer(ids)["input_ids"], text) is expected
