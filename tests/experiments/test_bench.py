"""The benchmark on a tiny shape: both sides do the same amount of work, and the table says what was measured."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from sesa_lab.errors import InputError
from sesa_lab.experiments import bench, bench_diversity, bench_engines
from sesa_lab.experiments.bench_trl import Shape, Side, make_policy, our_config, questions, reward
from sesa_lab.policies import Policy, load_policy

TINY = Shape(prompts=2, group=4, tokens=6, prompt=40, layers=1, hidden=32, micro_batch=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "policy"
    make_policy(folder, TINY)
    return folder


@pytest.fixture(scope="module")
def policy(folder: Path) -> Policy:
    return load_policy(our_config(folder, TINY).policy, "bench", {}, 0)


def test_the_policy_all_but_never_stops_and_is_random_otherwise(policy: Policy) -> None:
    ids = torch.tensor([policy.encode("Q: Task 0: name one place\nA: ")])
    with torch.no_grad():
        p = policy.model(ids).logits[0].softmax(-1)
    # 256 bytes and two special tokens: uniform is 1/258. The stop token must be rarer than once in 100 steps of the
    # benchmark (128 x 64 tokens each), else lengths differ; no byte may dominate, else candidates repeat.
    assert p[:, policy.stop_ids[0]].max() < 1e-6
    assert p.max() < 0.05


def test_prompts_are_distinct_and_as_long_as_asked() -> None:
    texts = questions(Shape(prompt=120))
    assert len(set(texts)) == 8
    # 6 characters of a prompt are the chat template's; every third prompt has 9 and every third 18 more.
    assert [len(text) + 6 for text in texts] == [120 + 9 * (i % 3) for i in range(8)]
    assert reward("Ab1") == pytest.approx(1 / 3) and reward("") == 0.0


def test_drawing_counts_equal_candidates_and_what_was_read(policy: Policy) -> None:
    found = bench.compare_drawing(*bench.made(policy, TINY), 1)
    for way in ("parallel", "sequential", "rereading"):
        assert found[way]["candidates"] == 8
        assert found[way]["sampled"] == 8 * 6
    _, requests, _, between = bench.made(policy, TINY)
    prompts = sum(len(request.prompt_ids) for request in requests)
    bridge = len(between)
    assert found["parallel"]["prefilled"] == prompts
    # Kept cache: each prompt once, then a closing stop token and the bridge between the 4 answers of 2 groups.
    assert found["sequential"]["prefilled"] == prompts + 2 * 3 * (1 + bridge)
    # Read again: answer i of 4 sees the prompt and i answers of 6 tokens, each closed and bridged; 0 + 1 + 2 + 3 = 6.
    assert found["rereading"]["prefilled"] == 4 * prompts + 2 * 6 * (6 + 1 + bridge)
    ratio = found["sequential_over_parallel"]["seconds"]
    assert ratio["n"] == 1 and ratio["low"] is None and ratio["mean"] > 0


def test_an_engine_that_rereads_draws_the_same(policy: Policy) -> None:
    _, requests, sampler, bridge = bench.made(policy, TINY)
    dialogue = bench.Bridged(policy.tokenizer, policy.form, "bench", policy.stop_ids, bridge=bridge)
    engine = bench.TorchEngine(policy)
    sequential = bench.dataclasses.replace(sampler, name="sequential")
    kept, again = (
        bench.draw(e, requests, sequential, dialogue, bench._streams(1)) for e in (engine, bench.Rereading(engine))
    )
    assert [[c.turns[0].completion.ids for c in g.candidates] for g in kept] == [
        [c.turns[0].completion.ids for c in g.candidates] for g in again
    ]


def test_decoding_counts_what_both_sides_draw_up_to_the_stop_token(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    for side in ("_parallel", "_parallel_by_generate"):
        drawing = getattr(bench_engines, side)
        monkeypatch.setattr(bench_engines, side, lambda *a, _f=drawing, **k: counts.append(_f(*a, **k)) or counts[-1])
    found = bench_engines.compare_lab(rounds=1, prompts=2, group=8)
    assert set(found["policies"]) == {"countdown-habit", "frozen-lake-habit", "sokoban-habit"}
    assert len(counts) == 3 * 2 * 2
    # 16 answers of 3 to 16 tokens, whichever side draws them; never all of them up to the limit.
    assert all(
        16 * 3 <= count < 16 * limit for count, limit in zip(counts, [16] * 4 + [14] * 4 + [26] * 4, strict=True)
    )
    assert all(part["speedup"]["seconds"]["n"] == 1 and part["torch"] > 0 for part in found["policies"].values())


def test_without_trl_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="make bench"):
        bench.main(1, tmp_path / "bench.json")


def test_rounds_below_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--rounds 0"):
        bench.main(0, tmp_path / "bench.json")


@pytest.mark.slow
def test_a_side_that_dies_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'ours' ended"):
        Side("ours", tmp_path / "nothing", TINY)


@pytest.mark.slow
def test_both_sides_do_the_same_work_and_the_table_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "reports" / "bench.json"
    work = bench.Work(prompts=2, prompt=9, group=3, tokens=5, sketches=2, sketch=4)
    few = bench_diversity.Load(texts=5, words=6, completions=64, strategies=8, group=8, vectors=(300, 8), rival=(200,))
    bench.main(1, out, {"tiny": TINY}, work=work, diversity=few)
    result = json.loads(out.read_text())
    for kind, tokens in (("parallel", 2 * 3 * 5), ("drafting", 2 * 2 * 4)):
        sides = {name: side for name, side in result["engines"][kind].items() if name != "speedups"}
        assert {side["tokens"] for side in sides.values()} == {tokens}
        assert set(sides) >= {"torch", "vllm", "generate"}
    steps = result["steps"]["tiny"]
    for name in ("candidates", "tokens", "shortest", "prompt_tokens", "distinct"):
        assert steps["ours"][name] == steps["trl"][name], name
    assert steps["ours"]["candidates"] == 8 and steps["ours"]["tokens"] == 8 * 6
    assert sum(steps["phases"].values()) == pytest.approx(1.0)
    assert min(steps[side][name] for side in ("ours", "trl") for name in ("seconds", "cpu", "memory_peak_mb")) > 0
    assert result["machine"]["versions"]["trl"]
    printed = capsys.readouterr().out
    for words in ("GRPO step, tiny", "tokens/s", "peak MiB", "our step: draw", "sequential over parallel", "Decoding"):
        assert words in printed
