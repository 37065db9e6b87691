"""The estimate of a policy's memory against what is counted, and the refusal that names its parts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_models
import torch
from test_model_kinds import MAKES, kept_bytes
from transformers import AutoConfig, LlamaConfig

from sesa_lab import environments
from sesa_lab.config import Config, EngineConfig, PolicyConfig
from sesa_lab.errors import InputError
from sesa_lab.policies import Workload, available, load_policy, memory, pack
from sesa_lab.policies.memory import Memory, estimate
from sesa_lab.training import room

WORK = Workload(tokens=128, rows=6, contexts=2, trains=True, micro_batch=4)
WIDE = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "max_position_embeddings": 512}


def told(folder: Path, work: Workload = WORK, **settings: object) -> Memory:
    return estimate(AutoConfig.from_pretrained(folder), PolicyConfig(**settings), work)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save_model(tmp_path_factory.mktemp("memory") / "llama", kind=LlamaConfig, **WIDE)


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_and_adapter_are_counted_exactly(make: str, dtype: str, tmp_path: Path) -> None:
    kind, shape = MAKES[make]
    folder = tiny_models.save_model(tmp_path / make, kind=kind, **shape)
    policy, found = tiny_models.load(folder, dtype=dtype, lora_rank=3), told(folder, dtype=dtype, lora_rank=3)
    parameters = list(policy.model.parameters())
    assert found.weights == sum(p.nbytes for p in parameters if not p.requires_grad)
    trained = [p for p in parameters if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}, "whatever the base is"
    assert found.adapter == 4 * sum(p.nbytes for p in trained)  # weights, gradients, two moments


def test_named_targets_and_stored_adapters(folder: Path, tmp_path: Path) -> None:
    policy = tiny_models.load(folder, lora_targets="q_proj,o_proj", lora_rank=5)
    own = sum(p.nbytes for p in policy.model.parameters() if p.requires_grad)
    assert told(folder, lora_targets="q_proj, o_proj", lora_rank=5).adapter == 4 * own
    policy.model.save_pretrained(tmp_path)
    assert told(folder, adapter=str(tmp_path)).adapter == pytest.approx(4 * own, rel=0.1)  # a file has a header
    idle = told(folder, memory.IDLE, lora_targets="q_proj,o_proj", lora_rank=5)
    assert idle.adapter == own and idle.total == idle.weights + idle.adapter


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_activations_are_near_what_autograd_keeps(folder: Path, dtype: str, attention: str) -> None:
    settings = {"dtype": dtype, "attention": attention}
    policy = tiny_models.load(folder, **settings)
    rows = pack([(20 + i, *range(30, 93)) for i in range(4)], [tuple(range(100, 164))] * 4)
    assert rows.ids.shape == (4, 128)
    counted = kept_bytes(policy, rows) - 2 * 4 * 256 * len(
        policy.tokenizer
    )  # two tensors of the head's, counted as logits
    assert 0.9 < told(folder, **settings).activations / counted < 1.35
    # Computed again, each layer keeps its input: 4 x 128 tokens x 128 numbers; beside them one whole layer at a time.
    again = told(folder, gradient_checkpointing="yes", **settings)
    whole = told(folder, **settings).activations
    size = 4 if dtype == "float32" else 2
    assert again.activations == pytest.approx(1.1 * 4 * 128 * 128 * size * 6 + whole / 4, abs=2)


def test_a_gradient_pass_without_a_size_holds_so_many_tokens(folder: Path) -> None:
    by_rows = [told(folder, dataclasses.replace(WORK, micro_batch=rows)).activations for rows in (0, 16)]
    assert by_rows[0] == by_rows[1], "2048 tokens are 16 rows of 128"
    longest = told(folder, dataclasses.replace(WORK, tokens=10**6, micro_batch=1))
    assert longest == told(folder, dataclasses.replace(WORK, tokens=512, micro_batch=1)), "positions end there"


def test_drawing_by_hand(folder: Path) -> None:
    # A token's keys and values: 2 x 4 layers x 2 heads x 64 wide x 4 bytes = 4096, twice; 32 bytes a word of 259;
    # two prompts read in, 4 x 384 numbers of 4 bytes a token.
    expected = 6 * (2 * 4096 * 128 + 32 * 259) + 2 * 4 * 384 * 4 * 128
    assert told(folder).drawing == expected
    assert told(folder, dataclasses.replace(WORK, rows=0, contexts=0)).drawing == 0
    # All linear layers of 4: 4 x (4 x 128 x 128 + 3 x 128 x 384) numbers stand by while the adapter is merged.
    assert told(folder).merging == 4 * (4 * 128 * 128 + 3 * 128 * 384) * 4
    assert told(folder, dtype="bfloat16").merging == 0, "16-bit weights are not merged into"


def test_updating_and_drawing_take_turns() -> None:
    found = Memory(weights=2**30, adapter=2**29, activations=2**31, logits=2**28, merging=2**30, drawing=2**29, vllm=0)
    assert found.total == 2**30 + 2**29 + 2**31 + 2**28
    assert str(found) == ("3.75 GiB (weights 1, adapter 0.5, activations 2, logits 0.25, merging 1, drawing 0.5)")
    assert dataclasses.replace(found, drawing=2**32).total == 2**30 + 2**29 + 2**30 + 2**32


def test_vllm_in_this_process_is_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = dataclasses.replace(WORK, rows=0, contexts=0, vllm=EngineConfig(name="vllm"))
    found = told(folder, beside)
    assert found.vllm == found.weights + 256 * 2**20, "a copy of the weights, and the cache"
    assert found.total == told(folder, dataclasses.replace(beside, vllm=None)).total + found.vllm
    smaller = dataclasses.replace(beside, vllm=EngineConfig(name="vllm", cache_mb=3))
    assert told(folder, smaller).vllm == found.weights + 3 * 2**20
    monkeypatch.setattr(memory, "total", lambda device: 10 * 2**30)
    shape = AutoConfig.from_pretrained(folder)
    assert estimate(shape, PolicyConfig(), beside, "cuda").vllm == int(0.4 * 10 * 2**30), "of a GPU: its share"
    monkeypatch.setattr(memory, "available", lambda device: 0)
    with pytest.raises(InputError, match=r"vllm 0\.2.*lower .*engine\.memory_share or engine\.cache_mb"):
        memory.check(shape, PolicyConfig(), "x", "cpu", beside)


def test_the_workload_of_a_run_counts_whole_sequences_and_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = environments.make("countdown")
    prompt = len(environment.task(0).prompt) // 3 + 64
    own = {"group_size": 6, "max_tokens": 10}
    config = Config.build(sampler=own, policy={"model": "countdown-habit"}, environment={"name": "countdown"})
    assert room.workload(config, environment).tokens == prompt + 10
    sequence = config.changed(sampler={"name": "sequential"})
    assert room.workload(sequence, environment).tokens == prompt + 6 * 10
    assert room.workload(config, environment).vllm is None
    assert room.workload(config.changed(engine={"name": "vllm"}), environment).vllm == EngineConfig(name="vllm")


# --- the refusal --------------------------------------------------------------------------------------------------------


def load(folder: Path, **settings: object) -> None:
    config = PolicyConfig(**{"model": str(folder), "device": "cpu", **settings})
    load_policy(config, "path_exploration", {}, 0, WORK)


def test_what_does_not_fit_is_refused_before_it_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 2**20)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(InputError) as caught:
        load(folder)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    for part in (
        "will take about 0.", " GiB (weights 0.", ", adapter 0.", ", activations 0.", ", logits 0.", ", merging 0.", ", drawing 0.",
        "0.000977 GiB are free on cpu", "another policy.device", "policy.dtype = 'bfloat16'",
        "policy.gradient_checkpointing = 'yes'", "lower policy.lora_rank, update.micro_batch, sampler.max_tokens",
        "policy.memory_check = 'no'",
    ):  # fmt: skip
        assert part in text
    with pytest.raises(InputError) as caught:
        load(folder, dtype="bfloat16", gradient_checkpointing="yes")
    assert "bfloat16" not in str(caught.value) and "gradient_checkpointing" not in str(caught.value), "no remedy twice"


def test_the_check_can_be_left_out_and_fits_what_fits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 0)
    load(folder, memory_check="no")
    monkeypatch.setattr(memory, "available", lambda device: told(folder).total)
    load(folder)
    monkeypatch.setattr(memory, "available", lambda device: None)
    load(folder)


# --- what is there ------------------------------------------------------------------------------------------------------


def test_devices_that_are_not_there_say_nothing() -> None:
    assert available.available("nowhere") is None
    assert available.available("cuda:99") is None
    assert 0 < available.available("cpu") < 2**50


def group(root: Path, inside: str, most: str, taken: int, files: int = 0) -> None:
    folder = root / "sys/fs/cgroup" / inside
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(most)
    (folder / "memory.current").write_text(str(taken))
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {files}\n")


def test_the_tightest_control_group_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/job/step\n")
    group(tmp_path, "job", "5000", 4000, files=500)  # files can be given up
    group(tmp_path, "job/step", "max", 3000)
    assert list(available._left_by_groups(tmp_path)) == [1500]
    group(tmp_path, "job/step", "3500", 3000)
    monkeypatch.setattr(available, "ROOT", tmp_path)
    monkeypatch.setattr(available.psutil, "virtual_memory", lambda: SimpleNamespace(available=9000))
    assert available.available("cpu") == 500
    monkeypatch.setattr(available.psutil, "virtual_memory", lambda: SimpleNamespace(available=90))
    assert available.available("cpu") == 90
    group(tmp_path, "job/step", "100", 3000)
    assert available.available("cpu") == 0


def test_older_control_groups_and_none(tmp_path: Path) -> None:
    assert list(available._left_by_groups(tmp_path)) == []
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("9:cpu:/x\n4:memory:/box\n")
    folder = tmp_path / "sys/fs/cgroup/memory/box"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text("800")
    (folder / "memory.usage_in_bytes").write_text("300")
    (folder / "memory.stat").write_text("total_inactive_file 20\n")
    assert list(available._left_by_groups(tmp_path)) == [520]
