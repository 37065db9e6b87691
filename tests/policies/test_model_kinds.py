"""Models of several makes, written on the spot in the Hub's format: each is scored, drawn from and differentiated alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from transformers import Gemma2Config, Gemma3TextConfig, GPT2Config, LlamaConfig, MistralConfig, Qwen3Config

from sesa_lab.engines import Sampling, TorchEngine
from sesa_lab.errors import InputError
from sesa_lab.policies import Policy, Rows, pack, score, token_logprobs

MAKES: dict[str, tuple[type, dict]] = {
    "llama": (LlamaConfig, {"num_key_value_heads": 1}),
    "qwen3": (Qwen3Config, {"head_dim": 32, "num_key_value_heads": 1}),
    "mistral": (MistralConfig, {"sliding_window": None}),
    "gpt2": (GPT2Config, {}),  # matrices the other way round, positions that are learnt, dropout 0.1 while it trains
    "gemma3": (
        Gemma3TextConfig,
        {"head_dim": 32, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    ),
}
DRAWN = [make for make in MAKES if make != "gemma3"]
PROMPT, OTHER = tuple(range(20, 42)), tuple(range(30, 44))


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(make: str) -> Path:
        if make not in made:
            kind, shape = MAKES[make]
            target = tmp_path_factory.mktemp("kinds") / make
            made[make] = tiny_models.save_model(target, kind=kind, **shape)
        return made[make]

    return folder


def grouped(share: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Rows, list[tuple[tuple[int, ...], tuple[int, ...]]]]:
    """Answers to two prompts of different length; ``share`` 1: each prompt is run once."""
    monkeypatch.setattr(score, "SHARE", share)
    pairs = [(PROMPT, (50, 60 + i, 1)) for i in range(3)] + [(OTHER, (70 + i, 1)) for i in range(2)]
    rows = pack([context for context, _ in pairs], [ids for _, ids in pairs])
    assert len(rows.prefixes) == (2 if share == 1 else 0)
    return rows, pairs


def gradient(policy: Policy, rows: Rows) -> torch.Tensor:
    logprobs, entropy = token_logprobs(policy, rows, 0.8)
    weights = torch.linspace(-1, 1, len(logprobs))
    (logprobs * weights + 0.1 * entropy).sum().backward()
    parameters = [p for p in policy.model.parameters() if p.requires_grad]
    found = torch.cat([p.grad.flatten() for p in parameters])
    for p in parameters:
        p.grad = None
    return found


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("share", [1, 10**9], ids=["shared", "plain"])
def test_scores_are_the_models_own(
    make: str, attention: str, share: int, folder_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Eager attention added the mask of shared prompts as 0 and 1; and such a mask would hide that a window is short.
    policy = tiny_models.load(folder_of(make), adapter_noise=0.1, attention=attention)
    rows, pairs = grouped(share, monkeypatch)
    with torch.no_grad():
        found = token_logprobs(policy, rows)[0]
    expected = torch.cat([tiny_models.reference_logprobs(policy.model, *pair) for pair in pairs])
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("make", DRAWN)
def test_drawn_log_probs_are_the_models_own(make: str, folder_of: Callable) -> None:
    policy = tiny_models.load(folder_of(make), adapter_noise=0.1)
    engine = TorchEngine(policy)
    with engine.synced():
        session = engine.start([PROMPT, OTHER])
        drawn = session.sample(Sampling(6, policy.stop_ids), [np.random.default_rng(i) for i in range(2)])
    for context, completion in zip((PROMPT, OTHER), drawn, strict=True):
        expected = tiny_models.reference_logprobs(policy.model, context, completion.ids)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("make", MAKES)
def test_peft_finds_every_linear_layer_but_the_head(make: str, folder_of: Callable) -> None:
    policy = tiny_models.load(folder_of(make))
    adapted = {name.split(".")[-4] for name, p in policy.model.named_parameters() if p.requires_grad}
    own = {"c_attn", "c_proj", "c_fc"}
    usual = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert adapted == (own if make == "gpt2" else usual)


def test_a_window_is_no_model_for_the_torch_engine(folder_of: Callable) -> None:
    with pytest.raises(
        InputError, match=r"sliding_attention.*needs full attention: draw by engine.name 'vllm' or 'server'"
    ):
        TorchEngine(tiny_models.load(folder_of("gemma3")))
    with pytest.raises(InputError, match=r"set policy.attention = 'sdpa', or draw by engine.name 'vllm' or 'server'"):
        TorchEngine(tiny_models.load(folder_of("llama"), attention="eager"))


def test_soft_capped_logits_are_refused(tmp_path: Path) -> None:
    # Small logits pass a comparison: 30 tanh(x / 30) is x to 4e-4 at x = 1. So the cap is told by its name.
    folder = tiny_models.save_model(tmp_path / "gemma2", kind=Gemma2Config, head_dim=32, initializer_range=0.01)
    with pytest.raises(InputError, match=r"transforms its logits after the output layer \(soft-capped\)"):
        tiny_models.load(folder)


# --- gradient checkpointing ---------------------------------------------------------------------------------------------


def kept_bytes(policy: Policy, rows: Rows) -> int:
    """Bytes that autograd keeps for the backward pass, weights left out."""
    own = [*policy.model.parameters(), *policy.model.buffers()]
    known = {tensor.untyped_storage().data_ptr() for tensor in own}
    seen: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in known:
            seen[place] = tensor.detach()
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        token_logprobs(policy, rows)
    return sum(tensor.untyped_storage().nbytes() for tensor in seen.values())


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("share", [1, 10**9], ids=["shared", "plain"])
def test_gradients_are_the_same_and_dropout_stays_off(
    make: str, share: int, folder_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, again = (
        tiny_models.load(folder_of(make), adapter_noise=0.1, gradient_checkpointing=way) for way in ("no", "yes")
    )
    rows, _ = grouped(share, monkeypatch)
    assert not any(module.training for module in again.model.modules())
    for chunk in (score.CHUNK, 7 * len(again.tokenizer)):
        monkeypatch.setattr(score, "CHUNK", chunk)  # the head is computed again too
        first, second = gradient(again, rows), gradient(again, rows)
        assert torch.equal(first, second), "no randomness: dropout is off"
        torch.testing.assert_close(first, gradient(kept, rows), rtol=1e-5, atol=1e-6)
        assert first.abs().max() > 0


def test_every_layer_is_computed_again_once_and_keeps_little(tmp_path: Path) -> None:
    folder = tiny_models.save_model(tmp_path / "deep", kind=LlamaConfig, num_hidden_layers=6)
    kept, again = (tiny_models.load(folder, gradient_checkpointing=way) for way in ("no", "yes"))
    rows = pack([PROMPT] * 4, [tuple(range(40 + i, 140 + i)) for i in range(4)])
    counted = []
    for policy in (kept, again):
        counts = [0]

        def count(*_: object, counts: list[int] = counts) -> None:
            counts[0] += 1

        for layer in policy.decoder.layers:
            layer.mlp.act_fn.register_forward_hook(count)
        gradient(policy, rows)
        counted.append(counts[0])
    assert counted == [6, 12]
    assert kept_bytes(again, rows) < 0.25 * kept_bytes(kept, rows)


@pytest.mark.parametrize("make", DRAWN)
def test_drawing_is_the_same_bit_for_bit(make: str, folder_of: Callable) -> None:
    found = []
    for way in ("no", "yes"):
        policy = tiny_models.load(folder_of(make), adapter_noise=0.1, gradient_checkpointing=way)
        engine = TorchEngine(policy)
        with engine.synced():
            session = engine.start([PROMPT, OTHER]).fork([0, 0, 1])
            found.append(session.sample(Sampling(5, policy.stop_ids), [np.random.default_rng(i) for i in range(3)]))
    assert found[0] == found[1]


def test_a_model_whose_layers_cannot_be_computed_again_is_refused() -> None:
    from sesa_lab.policies.recompute import recompute_layers

    with pytest.raises(
        InputError, match=r"gradient_checkpointing = 'yes': model odd has no layers .*; use 'no' and a smaller"
    ):
        recompute_layers(torch.nn.Linear(2, 2), "odd")
