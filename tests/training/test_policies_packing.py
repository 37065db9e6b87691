"""Packing changes how log-probs are computed, never what they are."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from tiny_policy import VOCABULARY, gradients, group, scored_alone, tiny_policy

from sesa_lab.policies import merged, pack, score, token_logprobs

Pairs = list[tuple[list[int], list[int]]]
# An alphabet of two tokens makes prefixes and repeats common; 0 is also the padding.
pairs = st.lists(
    st.tuples(st.lists(st.integers(0, 1), min_size=1, max_size=4), st.lists(st.integers(0, 1), min_size=1, max_size=4)),
    min_size=1,
    max_size=8,
)


@given(pairs)
@example([([0], [0, 0]), ([0, 0], [0]), ([0], [0]), ([1], [0])])
def test_structure(given_pairs: Pairs) -> None:
    contexts, completions = ([list(part) for part in side] for side in zip(*given_pairs, strict=True))
    rows = pack(contexts, completions)
    full = [c + y for c, y in given_pairs]
    # As few rows as possible: one for each distinct sequence that does not begin another one.
    longest = {tuple(s) for s in full if not any(len(o) > len(s) and o[: len(s)] == s for o in full)}
    assert len(rows.ids) == len(longest)
    assert rows.tokens == sum(map(len, longest))
    assert rows.ids.shape[1] == max(map(len, full))
    # One entry a completion token, in the order given, and before it stands exactly its own past.
    expected = [(s, len(c) + t) for s, (c, y) in enumerate(given_pairs) for t in range(len(y))]
    assert list(zip(rows.sequence.tolist(), rows.column.tolist(), strict=True)) == expected
    for r, (s, column) in zip(rows.row.tolist(), expected, strict=True):
        assert rows.ids[r, : column + 1].tolist() == full[s][: column + 1]


@given(pairs, st.integers(0, 9))
def test_split_is_a_partition(given_pairs: Pairs, size: int) -> None:
    rows = pack([c for c, _ in given_pairs], [y for _, y in given_pairs])
    parts = rows.split(size)
    assert sorted(torch.cat([index for _, index in parts]).tolist()) == list(range(len(rows.row)))
    assert torch.equal(torch.cat([part.ids for part, _ in parts]), rows.ids)
    assert all(len(part.ids) <= size for part, _ in parts if size)
    owners = [set(part.sequence.tolist()) for part, _ in parts]
    assert sum(map(len, owners)) == len(set().union(*owners))  # no sequence is torn
    for part, index in parts:
        assert torch.equal(part.sequence, rows.sequence[index])
        ours = part.ids[part.row, part.column], part.ids[part.row, part.column - 1]
        theirs = rows.ids[rows.row, rows.column][index], rows.ids[rows.row, rows.column - 1][index]
        assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


def test_errors() -> None:
    with pytest.raises(ValueError, match="non-empty contexts"):
        pack([[]], [[1]])
    with pytest.raises(ValueError, match="as many"):
        pack([[1], [2]], [[1]])


def random_pairs(seed: int) -> Pairs:
    """Nested contexts as a sequential group makes them, their answers under x alone, repeats, and loose sequences."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(n: int) -> list[int]:
        return torch.randint(0, VOCABULARY, (n,), generator=generator).tolist()

    found: Pairs = []
    x = tokens(5)
    context = list(x)
    for n in (3, 1, 4):
        y = tokens(n)
        found += [(list(context), y), (x, y)]
        context += [*y, *tokens(2)]
    found += [found[0], found[3], (x, found[1][1][:1])]
    found += [(tokens(n), tokens(9 - n)) for n in (1, 4, 8)]
    return found


@torch.no_grad()
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_packed_equals_one_by_one(temperature: float) -> None:
    policy = tiny_policy(layers=2)
    found_pairs = random_pairs(0)
    rows = pack([c for c, _ in found_pairs], [y for _, y in found_pairs])
    assert len(rows.ids) < len(found_pairs)
    logprobs, entropies = token_logprobs(policy, rows, temperature)
    alone = torch.cat([scored_alone(policy, c, y, temperature) for c, y in found_pairs])
    torch.testing.assert_close(logprobs.double(), alone, rtol=0, atol=1e-5)
    # Entropies from the whole distribution, token by token.
    at = 0
    for c, y in found_pairs:
        logits = policy.model(input_ids=torch.tensor([[*c, *y]])).logits[0].double() / temperature
        for t in range(len(y)):
            p = logits[len(c) + t - 1].softmax(-1)
            assert float(entropies[at]) == pytest.approx(float(-(p * p.log()).sum()), abs=1e-5)
            at += 1
    assert at == len(entropies)


def test_a_long_neighbour_changes_nothing() -> None:
    policy = tiny_policy()
    few = random_pairs(1)
    many = [*few, ([3] * 50, [4] * 50)]
    one, other = (token_logprobs(policy, pack([c for c, _ in p], [y for _, y in p]))[0] for p in (few, many))
    torch.testing.assert_close(other[: len(one)], one, rtol=0, atol=1e-5)


def test_chunks_of_the_head_change_neither_value_nor_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy()
    found_pairs = random_pairs(2)
    rows = pack([c for c, _ in found_pairs], [y for _, y in found_pairs])
    generator = torch.Generator().manual_seed(0)
    one, two = torch.randn(2, len(rows.row), generator=generator)

    def run(chunk: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        monkeypatch.setattr(score, "CHUNK", chunk)
        logprobs, entropies = token_logprobs(policy, rows, 0.9)
        (one * logprobs + two * entropies).sum().backward()
        return logprobs.detach(), entropies.detach(), gradients(policy)

    whole = run(1 << 22)
    for chunk in (1, VOCABULARY, 3 * VOCABULARY, 7 * VOCABULARY + 1):
        for ours, theirs in zip(run(chunk), whole, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_chunked_path_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    head = score._head

    def spy(hidden: torch.Tensor, *rest: object) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(len(hidden))
        return head(hidden, *rest)

    monkeypatch.setattr(score, "_head", spy)
    monkeypatch.setattr(score, "CHUNK", 3 * VOCABULARY)
    token_logprobs(tiny_policy(), pack([[1, 2]], [[3] * 8]))
    assert sizes == [3, 3, 2]


def test_drawn_log_probs_of_the_shared_group_are_true() -> None:
    # What other tests build on: under the drawing contexts the policy gives exactly the recorded log-probs.
    policy = tiny_policy()
    candidates, _ = group(policy)
    turns = [turn for c in candidates for turn in c.turns]
    rows = pack([turn.drawn_under.ids for turn in turns], [turn.completion.ids for turn in turns])
    recorded = torch.tensor([v for turn in turns for v in turn.completion.logprobs])
    with torch.no_grad(), merged(policy.model):
        torch.testing.assert_close(token_logprobs(policy, rows)[0], recorded, rtol=0, atol=1e-5)


@pytest.mark.parametrize("micro", [0, 3])
@pytest.mark.parametrize("sizes", [(7, 7), (7, 12)])
def test_shared_contexts_change_neither_log_probs_nor_gradients(
    monkeypatch: pytest.MonkeyPatch, micro: int, sizes: tuple[int, int]
) -> None:
    policy = tiny_policy()
    random = torch.Generator().manual_seed(3)
    words = policy.head.weight.shape[0]

    def some(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, words, (n,), generator=random).tolist())

    asked = [some(n) for n in sizes]
    contexts = [asked[i % 2] for i in range(10)]
    completions = [some(1 + i % 4) for i in range(10)]
    parameters = [p for p in policy.model.parameters() if p.requires_grad]
    weights = torch.randn(sum(map(len, completions)), generator=random)

    def measured(share: int) -> tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]:
        monkeypatch.setattr(score, "SHARE", share)
        rows = pack(contexts, completions)
        logprobs, entropies = torch.zeros_like(weights), torch.zeros_like(weights)
        for p in parameters:
            p.grad = None
        for part, index in rows.split(micro):
            logprobs_part, entropies_part = token_logprobs(policy, part, 0.8)
            logprobs[index], entropies[index] = logprobs_part.detach(), entropies_part.detach()
            (logprobs_part * weights[index]).sum().backward()
        return len(rows.prefixes), logprobs, entropies, torch.cat([p.grad.flatten() for p in parameters])

    none, *plain = measured(10**9)
    two, *shared = measured(1)
    assert (none, two) == (0, 2)
    for one, other in zip(plain, shared, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_nested_contexts_are_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "SHARE", 0)
    assert pack([(1, 2), (1, 2, 3, 4)], [(3, 4), (5,)]).prefixes == ()  # one row, two contexts
    assert pack([(1, 2), (1, 2)], [(3,), (4,)]).prefixes == ((1, 2),)
