"""Positions and memory: extents of dialogues by hand, and the engine's own cache as the reference."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from fake_dialogue import REQUESTS, Words
from tiny_policy import tiny_policy
from toy_environments import Colours, ToyOptions, Walks
from transformers import MistralConfig

from sesa_lab.config import Config, PolicyConfig, SamplerConfig
from sesa_lab.engines import Sampling, TorchEngine, torch_engine
from sesa_lab.engines.torch_engine import TorchSession
from sesa_lab.errors import InputError
from sesa_lab.policies import Policy, load_policy
from sesa_lab.policies.load import POLICIES, read_card
from sesa_lab.prompts import Speaker
from sesa_lab.samplers import Request, draw
from sesa_lab.training import room
from sesa_lab.training.room import Extent, extent, rows_at_once
from sesa_lab.types import Episode


class Told(Walks):
    """Says more each turn: 3, 4, then 5 letters; never over before its third turn."""

    def step(self, episode: Episode, text: str) -> Episode:
        found = super().step(Episode(episode.task, 26, episode.state), text)  # 26 = 222 in base 3: never ends by chance
        return Episode(found.task, 26, found.state, "x" * (2 + found.state), truncated=found.over)


def of(environment: Any, **sampler: Any) -> Extent:
    config: SamplerConfig = Config.build(sampler={"max_tokens": 9, **sampler}).sampler
    return extent(Words(), environment, config, REQUESTS)  # type: ignore[arg-type]


def test_extents_by_hand() -> None:
    """Prompts of ``REQUESTS`` have 2, 3 and 4 tokens; ``Words.guided`` has 3 and the sketch; every letter is a token."""
    once = Colours(ToyOptions())
    assert of(once) == Extent(opening=4, turn=9, between=0, turns=1)
    assert of(once).tokens == 4 + 9
    assert of(once, name="sequential") == of(once)
    assert of(once, name="sesa", sketch_tokens=7) == Extent(3 + 7, 9, 0, 1, sketch=7)
    assert of(once, name="sesa", sketch_tokens=1) == of(once), "a prompt alone may be longer"


def test_extents_of_several_turns_by_hand() -> None:
    # Between two turns: a closing stop token, the mark of the role, and at most 5 letters.
    world = Told(ToyOptions())
    assert of(world) == Extent(opening=4, turn=9, between=1 + 1 + 5, turns=3)
    assert of(world).tokens == 4 + 3 * 9 + 2 * 7
    assert of(world, name="sesa", sketch_tokens=7) == Extent(10, 9, 7, 3, sketch=7)
    # With a sketch a turn: that too, closed, and the mark of the request to act.
    assert of(world, name="sesa", sketch_tokens=7, sketch_scope="turn") == Extent(10, 9, 7 + 7 + 2, 3, sketch=7)


def test_what_fits_just_fits() -> None:
    policy = tiny_policy()  # 256 positions
    room.check(policy, Extent(100, 156, 0, 1))
    room.check(policy, Extent(16, 60, 30, 3))
    with pytest.raises(
        InputError, match=r"^a prompt of 101 tokens and sampler\.max_tokens = 156 make 257, which exceeds the"
    ):
        room.check(policy, Extent(101, 156, 0, 1))
    message = (
        r"^an episode may grow to 257 tokens \(a prompt of 17, 3 turns of at most 60, about 30 between two turns\), which"
        r" exceeds the model's 256; lower sampler\.max_tokens or the environment's turns$"
    )
    with pytest.raises(InputError, match=message):
        room.check(policy, Extent(17, 60, 30, 3))


def test_a_sketch_that_is_too_long_is_named() -> None:
    """The advice was to lower max_tokens alone, whatever took the room."""
    policy = tiny_policy()
    message = (
        r"^a prompt of 201 tokens \(sampler\.sketch_tokens = 190 among them\) and sampler\.max_tokens = 56 make 257, .*;"
        r" lower sampler\.sketch_tokens or sampler\.max_tokens$"
    )
    with pytest.raises(InputError, match=message):
        room.check(policy, Extent(201, 56, 0, 1, sketch=190))
    with pytest.raises(
        InputError, match=r"lower sampler\.sketch_tokens, sampler\.max_tokens or the environment's turns$"
    ):
        room.check(policy, Extent(201, 28, 1, 2, sketch=190))  # 258


def fits(**sampler: Any) -> bool:
    """Whether all that is drawn one after another in a group has room within 256 positions."""
    try:
        room.check_group(tiny_policy(), Words(), Config.build(sampler=sampler).sampler, REQUESTS)  # type: ignore[arg-type]
    except InputError as error:
        assert "exceeds the model's 256" in str(error)
        return False
    return True


def test_room_for_all_sketches_by_hand() -> None:
    """256 positions. A list of ``Words`` opens with 2 tokens; each item is closed (1) and followed by 1. A prompt has 3, and 1
    after each earlier sketch. Four sketches of S tokens: 2 + 4 S + 3 x 2, and 3 + 4 S + 3."""
    four: dict[str, Any] = {"name": "sesa", "group_size": 8, "expansions": 2}
    assert fits(**four, sketch_tokens=62) and not fits(**four, sketch_tokens=63)  # 256, 260
    prompt = four | {"drafting_form": "prompt"}
    assert fits(**prompt, sketch_tokens=62) and not fits(**prompt, sketch_tokens=63)  # 254, 258
    # Each alone: 2 + S; so is the only one of a group.
    for alone in (four | {"drafting": "iid"}, four | {"expansions": 8}, four | {"on_policy_fraction": 0.75}):
        assert fits(**alone, sketch_tokens=254) and not fits(**alone, sketch_tokens=255)
    assert fits(**{**four, "expansions": 1, "on_policy_fraction": 1.0}, sketch_tokens=1000), "none are drawn"
    message = r"^drafting may take 260 tokens \(a request, 3 earlier sketches and one more, each of at most .*sketch_tokens = 63\)"
    with pytest.raises(InputError, match=message + r".*; lower sampler\.sketch_tokens or do without$"):
        sampler = Config.build(sampler=four | {"sketch_tokens": 63}).sampler
        room.check_group(tiny_policy(), Words(), sampler, REQUESTS, " or do without")  # type: ignore[arg-type]


def test_room_for_a_sequence_of_answers_by_hand() -> None:
    """The longest prompt has 4 tokens; an answer that is cut is closed (1) and followed by 2: 4 + 6 T + 5 x 3 for six."""
    six: dict[str, Any] = {"name": "sequential", "group_size": 6}
    assert fits(**six, max_tokens=39) and not fits(**six, max_tokens=40)  # 253, 259
    # Half are drawn given the task alone; three follow each other: 4 + 3 T + 2 x 3.
    assert fits(**six, on_policy_fraction=0.5, max_tokens=82) and not fits(
        **six, on_policy_fraction=0.5, max_tokens=83
    )  # 256, 259
    assert fits(name="parallel", group_size=6, max_tokens=40)


@pytest.mark.parametrize("name", ["list", "prompt", "sequence"])
def test_a_group_takes_just_what_is_reckoned_with(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A policy that writes letters and never stops makes each sketch, and answer, as long as it may be: the reference."""
    shape: dict[str, Any] = {"name": "sequential"} if name == "sequence" else {"name": "sesa", "drafting_form": name}
    sampler = Config.build(sampler=shape | {"group_size": 11, "max_tokens": 5, "sketch_tokens": 5}).sampler
    policy = tiny_models.load(tiny_models.save_model(tmp_path / "model", max_position_embeddings=2048))
    speaker = Speaker(policy.tokenizer, policy.form, "colours", policy.stop_ids)
    letters = torch.tensor(speaker.encode("abcdefghijklmnopqrstuvwxyz"))
    original = torch_engine._draw

    def endless(logits: torch.Tensor, *rest: Any) -> Any:
        return original(torch.full_like(logits, -torch.inf).index_copy(-1, letters, logits[:, letters]), *rest)

    monkeypatch.setattr(torch_engine, "_draw", endless)
    task = Colours(ToyOptions()).task(0)
    requests = [Request(task, speaker.answer(task))]
    (group,) = draw(TorchEngine(policy), requests, sampler, speaker, lambda g, i: np.random.default_rng([g, i]))
    turns = [c.turns[0] for c in group.candidates] if name == "sequence" else [s.turn for s in group.sketches]
    longest = max(len(turn.drawn_under.ids) + len(turn.completion.ids) for turn in turns)
    for positions, enough in ((longest, True), (longest - 1, False)):
        monkeypatch.setattr(Policy, "positions", positions)
        if enough:
            room.check_group(policy, speaker, sampler, requests)
        else:
            with pytest.raises(InputError, match="exceeds the model's"):
                room.check_group(policy, speaker, sampler, requests)


# --- memory -------------------------------------------------------------------------------------------------------------


def test_rows_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    # tiny_policy: one layer, one head of 16 for keys and one for values, float32: 2 x 16 x 4 = 128 bytes a token, twice;
    # 50 entries of the vocabulary x 32; its widest layer has 48 x 4 bytes, four of them for each token read at once.
    policy, need = tiny_policy(), Extent(opening=10, turn=6, between=0, turns=1)
    row = 2 * 128 * 16 + 50 * 32 + 4 * 48 * 4 * 2  # 16 tokens; 10 / 8 of the prompt, rounded up, for each of 8
    monkeypatch.setattr(room, "CPU_BYTES", 5 * row)
    assert rows_at_once(policy, need, group_size=8) == 5
    monkeypatch.setattr(room, "CPU_BYTES", 5 * row - 1)
    assert rows_at_once(policy, need, group_size=8) == 4
    assert rows_at_once(policy, need, group_size=1) == (5 * row - 1) // (row + 8 * 768), "each row reads its own prompt"
    turns = Extent(opening=10, turn=6, between=3, turns=2)  # 25 tokens; observations are each row's own
    assert rows_at_once(policy, turns, group_size=8) == (5 * row - 1) // (row + 9 * 256 + 3 * 768)
    monkeypatch.setattr(room, "CPU_BYTES", 1)
    assert rows_at_once(policy, need, group_size=8) == 1
    monkeypatch.setattr(room, "CPU_BYTES", 10**12)
    assert rows_at_once(policy, need, group_size=8) == room.ROWS == 1024


SHAPES: dict[str, dict[str, Any]] = {
    "as many heads for keys as for queries": {},
    "grouped": {"num_attention_heads": 4, "num_key_value_heads": 1, "num_hidden_layers": 3},
    "heads of a size of their own": {"kind": MistralConfig, "head_dim": 24, "num_hidden_layers": 1},
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_engines_cache_is_what_is_reckoned_with(shape: str, dtype: str, tmp_path: Path) -> None:
    """Slots of the cache x bytes a slot: never more than twice the longest dialogue, and more than half of that."""
    folder = tiny_models.save_model(tmp_path / "model", **SHAPES[shape])
    policy = tiny_models.load(folder, dtype=dtype)
    session = TorchEngine(policy).start([(7, 8, 9)] * 4)
    session.sample(Sampling(61, ()), [np.random.default_rng(i) for i in range(4)])
    assert isinstance(session, TorchSession)
    buffers = [*session.cache.keys, *session.cache.values]
    assert all(buffer is not None for buffer in buffers)
    held = sum(buffer.numel() * buffer.element_size() for buffer in buffers if buffer is not None)
    slots = next(buffer.shape[2] for buffer in buffers if buffer is not None)
    assert held == 4 * slots * room.kept_bytes(policy)
    assert 64 <= slots <= 2 * 64


@pytest.mark.parametrize("folder", sorted(p.name for p in POLICIES.iterdir() if p.is_dir()))
def test_lab_policies_draw_as_many_as_ever(folder: str) -> None:
    """Their numbers hang on it in the last bits: 1024, with room to spare for prompts of 100 tokens and answers of 64."""
    card = read_card(str(POLICIES / folder))
    assert card is not None
    policy = load_policy(PolicyConfig(model=folder, device="cpu"), card["environment"], card["options"], 0)
    for samples in (1, 8, 64):
        assert rows_at_once(policy, Extent(100, 64, 0, 1), samples) == 1024


def test_a_large_model_draws_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Qwen2.5-1.5B in bfloat16 on RAGEN's five turns: by hand, and on a GPU a quarter of its memory."""
    shape = SimpleNamespace(
        num_hidden_layers=28, num_key_value_heads=2, num_attention_heads=12, hidden_size=1536, intermediate_size=8960,
        vocab_size=151_936, max_position_embeddings=32_768,
    )  # fmt: skip
    head = SimpleNamespace(weight=torch.empty(0, dtype=torch.bfloat16))
    policy: Any = SimpleNamespace(decoder=SimpleNamespace(config=shape), head=head, device=torch.device("cpu"))
    need = Extent(opening=400, turn=400, between=150, turns=5)
    assert need.tokens == 3000
    kept = 2 * 28 * 2 * 128 * 2  # 28,672 bytes a token
    row = 2 * kept * 3000 + 32 * 151_936 + 4 * 8960 * 2 * (400 + 150)
    assert rows_at_once(policy, need, 1) == 2 * 2**30 // row == 9
    memory = SimpleNamespace(total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: memory)
    policy.device = torch.device("cuda")
    assert rows_at_once(policy, need, 1) == 20 * 2**30 // row == 99
