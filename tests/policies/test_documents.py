"""What demonstrations hold, token for token, and how rows of several are computed."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from transformers import Qwen2Config, Qwen2ForCausalLM

from sesa_lab import environments
from sesa_lab.config import PretrainConfig
from sesa_lab.environments.registry import make
from sesa_lab.errors import InputError
from sesa_lab.policies.documents import FORMS, Demonstrations, Document, Solved, preference, solve
from sesa_lab.policies.trees import nll, pack_trees
from sesa_lab.policies.vocabulary import demonstration_texts, new_tokenizer
from sesa_lab.prompts import Speaker
from sesa_lab.types import Completion, Task

AGENTS: dict[str, dict[str, Any]] = {
    "countdown": {"n_numbers": 3},
    "frozen_lake": {"size": 4},
    "math": {},
    "sokoban": {},
    "sudoku": {},
}
CONFIG = PretrainConfig(sketches=5)
FALSE_ALARM = 1e-6


@dataclasses.dataclass(frozen=True)
class Lesson:
    environment: Any
    solved: list[Solved]
    speaker: Speaker

    def demonstrations(self, **settings: Any) -> Demonstrations:
        config = dataclasses.replace(CONFIG, **settings)
        return Demonstrations(self.solved, self.speaker, config, self.environment.habitual)


@pytest.fixture(scope="module", params=sorted(AGENTS))
def lesson(request: pytest.FixtureRequest) -> Lesson:
    environment = make(request.param, **AGENTS[request.param])
    solved = solve(environment, 12, 0, lambda done, total: None)
    tokenizer = new_tokenizer(demonstration_texts(environment, solved), 4096)
    return Lesson(environment, solved, Speaker(tokenizer, "lab", request.param, (tokenizer.eos_token_id,)))


def rng(number: int = 0) -> np.random.Generator:
    return np.random.default_rng(number)


def spoken(document: Document) -> list[list[int]]:
    """Stretches of ids, asked and said in turn."""
    stretches: list[list[int]] = []
    for place, (token, said) in enumerate(zip(document.ids, document.said, strict=True)):
        if place == 0 or said != document.said[place - 1]:
            stretches.append([])
        stretches[-1].append(token)
    return stretches


# --- what is asked and said -----------------------------------------------------------------------------------------


def test_every_environment_but_path_exploration_is_taught_here() -> None:
    assert set(AGENTS) == {name for name in environments.names() if not hasattr(make(name), "prior")}


def test_answers_are_solutions_after_x(lesson: Lesson) -> None:
    speaker, shown = lesson.speaker, lesson.demonstrations()
    for place, one in enumerate(lesson.solved):
        document = shown.draw(place, "answers", rng(place))
        assert document is not None
        asked, said = spoken(document)
        assert tuple(asked) == speaker.answer(one.task)
        assert said[-1:] == list(speaker.stop_ids)
        text = speaker.tokenizer.decode(said[:-1])
        assert text in lesson.environment.solutions(one.task)
        assert lesson.environment.score(one.task, text).success


def test_lists_are_distinct_sketches_each_under_the_context_of_the_sampler(lesson: Lesson) -> None:
    speaker, shown = lesson.speaker, lesson.demonstrations()
    for place, one in enumerate(lesson.solved):
        document = shown.draw(place, "lists", rng(place))
        assert document is not None
        earlier: list[Completion] = []
        ids: list[int] = []
        stretches = spoken(document)
        for asked, said in zip(stretches[::2], stretches[1::2], strict=True):
            ids += asked
            assert tuple(ids) == speaker.draft(one.task, "list", earlier), "token for token what stage I draws under"
            ids += said
            assert said[-1] == speaker.stop_ids[0]
            earlier.append(Completion(tuple(said), (), speaker.tokenizer.decode(said[:-1]), "stop"))
        texts = [sketch.text for sketch in earlier]
        assert len(set(texts)) == len(texts) == min(5, len(one.ways)), "as many as asked for, or all there are"
        assert set(texts) <= set(one.ways)


def test_guided_answers_follow_their_sketch(lesson: Lesson) -> None:
    speaker, shown = lesson.speaker, lesson.demonstrations()
    for place, one in enumerate(lesson.solved):
        document = shown.draw(place, "guided", rng(place))
        assert document is not None
        asked, said = spoken(document)
        [sketch] = [sketch for sketch in one.ways if speaker.guided(one.task, sketch) == tuple(asked)]
        text = speaker.tokenizer.decode(said[:-1])
        assert lesson.environment.sketch(one.task, text) == sketch
        assert lesson.environment.score(one.task, text).success


def test_prompted_sketches_are_none_of_those_named(lesson: Lesson) -> None:
    speaker, shown = lesson.speaker, lesson.demonstrations()
    counts = set()
    for number in range(60):
        place = number % len(lesson.solved)
        one = lesson.solved[place]
        document = shown.draw(place, "prompted", rng(number))
        assert document is not None
        asked, said = spoken(document)
        named = speaker.tokenizer.decode(asked).split(" tried: ")[1].removesuffix(" idea:")
        earlier = [] if named == "none" else named.split(", ")
        given = [Completion((0,), (), sketch, "stop") for sketch in earlier]
        assert tuple(asked) == speaker.draft(one.task, "prompt", given)
        assert set(earlier) <= set(one.ways) and len(set(earlier)) == len(earlier)
        assert speaker.tokenizer.decode(said[:-1]) in set(one.ways) - set(earlier)
        counts.add(len(earlier))
    assert counts == set(range(min(5, max(len(one.ways) for one in lesson.solved)))), "0, 1, ... earlier ones all occur"


def test_a_row_is_of_one_task_and_has_the_forms_asked_for(lesson: Lesson) -> None:
    asked_by = {
        "answers": "answer:", "lists": "ideas:", "guided": "answer:", "prompted": "idea:",
    }  # fmt: skip
    for form in FORMS:
        shares = {f"{name}_share": float(name == form) for name in FORMS}
        documents = lesson.demonstrations(**shares).row(rng())
        assert len(documents) == CONFIG.demonstrations
        openings = [lesson.speaker.tokenizer.decode(spoken(document)[0]) for document in documents]
        assert all(opening.endswith(asked_by[form]) for opening in openings)
        assert all((" idea: " in opening) is (form == "guided") for opening in openings)
        assert len({opening.split(" idea")[0].split(" tried")[0] for opening in openings}) == 1, "one task"


def test_shares_are_frequencies(lesson: Lesson) -> None:
    shares = {"answers_share": 0.5, "lists_share": 0.2, "guided_share": 0.0, "prompted_share": 0.3}
    shown = lesson.demonstrations(**shares, demonstrations=1000)
    openings = [lesson.speaker.tokenizer.decode(spoken(document)[0]) for document in shown.row(rng(1))]
    found = [sum(opening.endswith(end) for opening in openings) for end in ("answer:", "ideas:", "idea:")]
    assert not any(" idea: " in opening for opening in openings)
    expected = 1000 * np.array([0.5, 0.2, 0.3])
    assert ((found - expected) ** 2 / expected).sum() < chi2.isf(FALSE_ALARM, df=2)


# --- which of them --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three() -> Lesson:
    """One Countdown task of which three sketches are kept, with 2, 1 and 1 solutions."""
    environment = make("countdown")
    task = Task(0, "", {"numbers_text": "1 2 3 4", "target": 9})
    ways = {"3+4 then + -": ("3+4+2", "4+3+2"), "1*2 then + +": ("1*2+3+4",), "2-1 then * *": ("(2-1)*3*4",)}
    solved = [Solved(task, ways)]
    tokenizer = new_tokenizer([text for texts in ways.values() for text in texts], 300)
    return Lesson(environment, solved, Speaker(tokenizer, "lab", "countdown", (tokenizer.eos_token_id,)))


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_sketches_come_like_draws_without_replacement_by_rank(three: Lesson, exponent: float) -> None:
    # w_r = r^-a; the pair (i, j) comes first with probability w_i / W x w_j / (W - w_i).
    weights = np.array([1.0, 2.0, 3.0]) ** -exponent
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    expected = np.array([weights[i] / weights.sum() * weights[j] / (weights.sum() - weights[i]) for i, j in pairs])
    shown = three.demonstrations(sketch_exponent=exponent, sketches=2)
    ways = [three.speaker.encode(sketch) for sketch in three.solved[0].ways]
    generator, counts = rng(3), dict.fromkeys(pairs, 0)
    for _ in range(3000):
        document = shown.draw(0, "lists", generator)
        assert document is not None
        first, second = (tuple(said[:-1]) for said in spoken(document)[1::2])
        counts[ways.index(first), ways.index(second)] += 1
    statistic = ((np.array(list(counts.values())) - 3000 * expected) ** 2 / (3000 * expected)).sum()
    assert statistic < chi2.isf(FALSE_ALARM, df=5)


def test_direct_answers_are_uniform_over_solutions_and_guided_ones_over_sketches(three: Lesson) -> None:
    texts = [text for texts in three.solved[0].ways.values() for text in texts]
    expected = {
        "answers": [0.25, 0.25, 0.25, 0.25],
        "guided": [1 / 6, 1 / 6, 1 / 3, 1 / 3],
    }  # 1/3 x 1/2 of the first two
    for form, shares in expected.items():
        shown, generator, counts = three.demonstrations(), rng(4), [0] * 4
        for _ in range(2000):
            document = shown.draw(0, form, generator)
            assert document is not None
            counts[texts.index(three.speaker.tokenizer.decode(spoken(document)[1][:-1]))] += 1
        wanted = 2000 * np.array(shares)
        assert ((counts - wanted) ** 2 / wanted).sum() < chi2.isf(FALSE_ALARM, df=3)


def test_habit_shows_habitual_answers_only_and_leaves_out_tasks_without(three: Lesson) -> None:
    habits = {"1*2 then + +"}
    shown = Demonstrations(
        three.solved, three.speaker, dataclasses.replace(CONFIG, habit=1.0), habits.__contains__
    )  # fmt: skip
    only = (*three.speaker.answer(three.solved[0].task), *three.speaker.encode("1*2+3+4"), *three.speaker.stop_ids)
    assert {document.ids for document in (shown.draw(0, "answers", rng(i)) for i in range(50)) if document} == {only}
    guided = {document.ids for document in (shown.draw(0, "guided", rng(i)) for i in range(99)) if document}
    assert len(guided) == 4, "sketches and the answers to them are as before"
    half = Demonstrations(three.solved, three.speaker, dataclasses.replace(CONFIG, habit=0.5), habits.__contains__)
    generator = rng(6)
    drawn = [half.draw(0, "answers", generator) for _ in range(2000)]
    found = sum(document is not None and document.ids == only for document in drawn)
    # 1/2 + 1/2 x 1/4 = 0.625; binomial(2000, 0.625) is beyond 4.9 sigma once in a million.
    assert abs(found - 1250) < 4.9 * np.sqrt(2000 * 0.625 * 0.375)


def test_a_task_that_habit_leaves_nothing_of_makes_room_for_another(three: Lesson) -> None:
    without = Solved(three.solved[0].task, {"3+4 then + -": ("3+4+2",)})
    config = dataclasses.replace(
        CONFIG, habit=1.0, answers_share=1.0, lists_share=0.0, guided_share=0.0, prompted_share=0.0
    )
    shown = Demonstrations([without, three.solved[0]], three.speaker, config, lambda sketch: sketch == "1*2 then + +")
    assert all(shown.draw(0, "answers", rng(i)) is None for i in range(20))
    assert all(len(shown.row(rng(i))) == CONFIG.demonstrations for i in range(20))
    with pytest.raises(InputError, match=r"habit = 1.0: no task has a habitual solution"):
        Demonstrations([without], three.speaker, config, lambda sketch: False)


def test_the_order_of_preference_is_one_for_all_tasks_and_fixed_by_the_seed(lesson: Lesson) -> None:
    for one in lesson.solved:
        keys = [preference(sketch, 0) for sketch in one.ways]
        assert keys == sorted(keys)
    sketches = sorted({sketch for one in lesson.solved for sketch in one.ways})
    orders = [sorted(sketches, key=lambda sketch, seed=seed: preference(sketch, seed)) for seed in (0, 1)]
    assert orders[0] != orders[1]


# --- solving --------------------------------------------------------------------------------------------------------


def test_solved_tasks_have_every_solution_under_its_sketch(lesson: Lesson) -> None:
    environment = lesson.environment
    assert [one.task.index for one in lesson.solved] == list(range(12))
    for one in lesson.solved:
        assert sorted(text for texts in one.ways.values() for text in texts) == sorted(environment.solutions(one.task))
        assert all(environment.sketch(one.task, text) == sketch for sketch, texts in one.ways.items() for text in texts)


class TooMany:
    """Every other task has more solutions than can be listed, or all of them."""

    name, count = "toy", 5

    def __init__(self, every: bool) -> None:
        self.every = every

    def task(self, index: int) -> Task:
        return Task(index, str(index), {})

    def solutions(self, task: Task) -> list[str] | None:
        return None if self.every or task.index % 2 else ["a", "b"]

    def sketch(self, task: Task, text: str) -> str:
        return text.upper()


def test_tasks_without_a_list_of_solutions_are_left_out() -> None:
    seen: list[tuple[int, int]] = []
    solved = solve(TooMany(every=False), 99, 0, lambda done, total: seen.append((done, total)))
    assert [one.task.index for one in solved] == [0, 2, 4]
    assert all(
        {frozenset(one.ways.items()) for one in solved} == {frozenset({("A", ("a",)), ("B", ("b",))})} for _ in "x"
    )
    assert seen == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)], "as many as there are, at most as many as asked for"
    with pytest.raises(InputError, match="toy: its solver lists no solutions"):
        solve(TooMany(every=True), 3, 0, lambda done, total: None)


# --- the tokenizer --------------------------------------------------------------------------------------------------


def test_texts_survive_the_tokenizer_and_words_are_one_token(lesson: Lesson) -> None:
    tokenizer = lesson.speaker.tokenizer
    for one in lesson.solved:
        for sketch, texts in one.ways.items():
            for text in (sketch, *texts):
                assert tokenizer.decode(lesson.speaker.encode(text)) == text
            words = [piece for word in sketch.split() for piece in ([word] if word.isalpha() else word)]
            blanks = sum(
                word[0].isdigit() for word in sketch.split()[1:]
            )  # a blank before a digit is a token of its own
            found = len(lesson.speaker.encode(sketch))
            assert found == len(words) + blanks, "a word is one token, and so is a digit or a sign"
    signs = set("+-*/(),:=")
    for token in tokenizer.get_vocab():
        assert len(token.removeprefix("\u0120")) == 1 or not set(token) & signs, (
            f"{token!r} would spell one thing in two ways"
        )


# --- rows of several documents --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(three: Lesson) -> Any:
    shape = Qwen2Config(
        vocab_size=len(three.speaker.tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, initializer_range=0.2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Qwen2ForCausalLM(shape).double()


def one_by_one(model: Any, documents: list[Document]) -> torch.Tensor:
    """Summed negative log-prob of what is said, each document by itself."""
    total = torch.zeros((), dtype=torch.float64)
    for document in documents:
        logprobs = model(torch.tensor([document.ids])).logits[0].log_softmax(-1)
        for place, said in enumerate(document.said):
            if said:
                total = total - logprobs[place - 1, document.ids[place]]
    return total


def made_up() -> list[list[Document]]:
    def document(ids: str, asked: int) -> Document:
        return Document(tuple(map(ord, ids)), tuple(place >= asked for place in range(len(ids))))

    return [
        [
            document("abcXY", 3),
            document("abcXZ", 3),
            document("abcXY", 3),
        ],  # asked alike: the stem predicts three tokens
        [
            document("abdeQ", 4),
            document("abfgRST", 4),
            document("zQ", 1),
        ],  # the last has nothing in common with the others
        [document("abcdefghijk", 2)],
        [],
        [Document(tuple(map(ord, "abXcdYZ")), (False, False, True, False, False, True, True)), document("abc", 2)],
    ]


def test_rows_give_the_loss_and_gradient_of_the_documents_by_themselves(three: Lesson, model: Any) -> None:
    rows = [*made_up(), *(three.demonstrations().row(rng(number)) for number in range(4))]
    everything = [document for row in rows for document in row]
    expected = one_by_one(model, everything)
    wanted = torch.autograd.grad(expected, list(model.parameters()))
    for part in (1, 60, 10_000):
        trees = pack_trees(rows, part)
        found = sum(nll(model, tree) for tree in trees)
        assert torch.allclose(found, expected, rtol=1e-12)
        for one, other in zip(torch.autograd.grad(found, list(model.parameters())), wanted, strict=True):
            assert torch.allclose(one, other, rtol=1e-5, atol=1e-6 * float(other.abs().max())), "norms are in float32"
        assert sum(len(tree.target) for tree in trees) == sum(sum(document.said) for document in everything)


def test_a_stem_is_computed_once_and_parts_are_as_large_as_allowed() -> None:
    # Stems and branches: abc + XY, XZ, XY = 9 (the stem ends where something is said); nothing in common: 5 + 7 + 2 = 14;
    # 11 alone; ab + XcdYZ, c = 8. In order of length 8, 9, 11, 14.
    trees = pack_trees(made_up(), 10_000)
    assert [(tree.tokens, tree.ids.shape) for tree in trees] == [(8 + 9 + 11 + 14, (4, 14))]
    # At most 27 tokens with padding: 8, 9 -> 2 x 9; 3 x 11 is too many. 11, 14 -> 2 x 14 is too many.
    assert [tuple(tree.ids.shape) for tree in pack_trees(made_up(), 27)] == [(2, 9), (1, 11), (1, 14)]
    assert [tuple(tree.ids.shape) for tree in pack_trees(made_up(), 1)] == [(1, 8), (1, 9), (1, 11), (1, 14)]
    assert pack_trees([[], []]) == []
