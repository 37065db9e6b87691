"""What each engine draws in a second: ours, vLLM in this process, and transformers' ``generate``, on one policy and its prompts.

Two works. *Parallel*: every prompt's group at one go. *Drafting*: a growing list for every prompt, one short sketch after another,
each given all before it: what stage I of SESA does. ``generate`` keeps nothing between two calls and so reads each list from its
beginning; vLLM is measured with its prefix cache and with the cache emptied before every draw.

``compare_lab`` draws from shipped policies as their training does: answers end at their stop tokens, at lengths that differ.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sesa_lab import environments
from sesa_lab.config import EngineConfig, PolicyConfig
from sesa_lab.engines import Engine, Sampling, TorchEngine
from sesa_lab.engines.vllm_engine import VllmEngine
from sesa_lab.experiments.bench_pairs import Spent, both, median_spent, progress, ratios
from sesa_lab.experiments.bench_trl import Shape, clock, make_policy, our_config, since
from sesa_lab.policies import Policy, load_policy, merged
from sesa_lab.prompts import Speaker
from sesa_lab.seeding import stream

AIMS = {"torch over generate": 2.0, "vllm over emptied": 1.5}
"""What is aimed at: tokens a second of the first over those of the second."""
LAB = {"countdown": ("countdown-habit", 16), "frozen_lake": ("frozen-lake-habit", 14), "sokoban": ("sokoban-habit", 26)}
"""Environment -> a shipped policy and the token limit of its experiments."""


@dataclasses.dataclass(frozen=True)
class Work:
    """How much is drawn a round.

    Attributes:
        prompts: distinct prompts.
        prompt: tokens of each.
        group: answers a prompt, in parallel drawing.
        tokens: of an answer.
        sketches: of each list, in drafting.
        sketch: tokens of each.
    """

    prompts: int = 8
    prompt: int = 40
    group: int = 16
    tokens: int = 64
    sketches: int = 16
    sketch: int = 24


WORK = Work()
Side = Callable[[int], int]
"""Number of the round -> tokens drawn."""


def compare(rounds: int, shape: Shape, work: Work = WORK) -> dict[str, Any]:
    """Both works by every engine; one round of warm-up, then paired rounds.

    Args:
        rounds: at least 1.
        shape: of the policy; ``layers``, ``hidden`` and ``threads`` are used.
        work: what is drawn.

    Raises:
        InputError: vLLM is not installed.
    """
    longest = work.prompt + work.sketches * work.sketch
    room = EngineConfig(name="vllm", max_context=max(longest, work.prompt + work.tokens) + 64, cache_mb=512)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "policy"
        parameters = make_policy(folder, shape)
        policy = load_policy(our_config(folder, shape).policy, "bench", {}, 0)
        with closing(VllmEngine(policy, room)) as vllm:
            torch.set_num_threads(shape.threads)
            own = TorchEngine(policy)
            contexts = [
                tuple(stream(0, "sampling", i).integers(0, 256, work.prompt).tolist()) for i in range(work.prompts)
            ]
            parallel: dict[str, Side] = {
                "torch": lambda number: _parallel(own, contexts, work, number),
                "vllm": lambda number: _parallel(vllm, contexts, work, number),
                "generate": lambda number: _parallel_by_generate(policy, contexts, work, number),
            }
            drafting: dict[str, Side] = {
                "torch": lambda number: _draft(own, contexts, work, number),
                "vllm": lambda number: _draft(vllm, contexts, work, number),
                "vllm, emptied": lambda number: _draft(vllm, contexts, work, number, vllm.forget),
                "generate": lambda number: _draft_by_generate(policy, contexts, work),
            }
            found = {
                "parallel": _rounds(parallel, rounds, "parallel"),
                "drafting": _rounds(drafting, rounds, "drafting"),
            }
    return {"parameters": parameters, "work": dataclasses.asdict(work), "aims": AIMS, **found}


def compare_lab(rounds: int, prompts: int = 16, group: int = 16) -> dict[str, Any]:
    """Shipped policies, by our engine and by ``generate``: ``group`` answers to each of ``prompts`` tasks, as training draws.

    Answers end at a stop token. The two sides draw other ones, so ratios are of seconds a token, tokens after a stop not
    counted. Ours also returns every log-prob.
    """
    result: dict[str, Any] = {"prompts": prompts, "group": group, "policies": {}}
    for name, (model, limit) in LAB.items():
        environment = environments.make(name)
        policy = load_policy(PolicyConfig(model=model, device="cpu"), name, environment.options, 0)
        speaker = Speaker(policy.tokenizer, "lab", name, policy.stop_ids)
        contexts = [speaker.answer(environment.task(i)) for i in range(prompts)]
        work, stops = Work(prompts, len(contexts[0]), group, limit), policy.stop_ids
        sides: dict[str, Side] = {
            "torch": partial(_parallel, TorchEngine(policy), contexts, work, stops=stops),
            "generate": partial(_parallel_by_generate, policy, contexts, work, whole=False),
        }
        spent = {
            side: [(wall / count, cpu / count) for (wall, cpu), count in own]
            for side, own in _paired(sides, rounds, f"decoding, {model}").items()
        }
        result["policies"][model] = {
            **{side: 1 / median_spent(own)["seconds"] for side, own in spent.items()},
            "speedup": ratios(spent["generate"], spent["torch"]),
        }
    return result


def _paired(sides: Mapping[str, Side], rounds: int, title: str) -> dict[str, list[tuple[Spent, int]]]:
    """What each side took, and how many tokens it drew, a round; in alternating order, after one round of warm-up."""
    found: dict[str, list[tuple[Spent, int]]] = {name: [] for name in sides}
    for number in progress(rounds + 1, title):
        for name in list(sides) if number % 2 == 0 else list(sides)[::-1]:
            begin = clock()
            count = sides[name](number)
            if number:
                found[name].append((since(begin), count))
    return found


def _rounds(sides: Mapping[str, Side], rounds: int, title: str) -> dict[str, Any]:
    measured = _paired(sides, rounds, f"engines, {title}")
    spent = {name: [took for took, _ in own] for name, own in measured.items()}
    result: dict[str, Any] = {}
    for name, own in measured.items():
        median, per_round = median_spent(spent[name]), sum(count for _, count in own) / rounds
        result[name] = median | {"tokens": per_round, "tokens_per_second": per_round / median["seconds"]}
    over = {"torch over generate": ("generate", "torch"), "vllm over generate": ("generate", "vllm")}
    over |= {"vllm over torch": ("torch", "vllm")}
    if "vllm, emptied" in sides:
        over["vllm over emptied"] = ("vllm, emptied", "vllm")
    result["speedups"] = {name: ratios(spent[slow], spent[quick]) for name, (slow, quick) in over.items()}
    return result


def _parallel(
    engine: Engine, contexts: Sequence[Sequence[int]], work: Work, number: int, stops: Sequence[int] = ()
) -> int:
    rows = work.prompts * work.group
    with engine.synced():
        session = engine.start(contexts).fork([g for g in range(work.prompts) for _ in range(work.group)])
        drawn = session.sample(
            Sampling(work.tokens, tuple(stops)), [stream(number, "sampling", i) for i in range(rows)]
        )
    return sum(len(completion.ids) for completion in drawn)


def _draft(
    engine: Engine,
    contexts: Sequence[Sequence[int]],
    work: Work,
    number: int,
    before: Callable[[], object] | None = None,
) -> int:
    streams, count = [stream(number, "sampling", i) for i in range(work.prompts)], 0
    with engine.synced():
        session = engine.start(contexts)
        for _ in range(work.sketches):
            if before is not None:
                before()
            count += sum(len(completion.ids) for completion in session.sample(Sampling(work.sketch, ()), streams))
    return count


def _parallel_by_generate(
    policy: Policy, contexts: Sequence[Sequence[int]], work: Work, number: int, whole: bool = True
) -> int:
    """``whole``: no answer ends before the limit. Tokens after a stop are not counted."""
    with merged(policy.model):
        drawn = generate(policy, [c for c in contexts for _ in range(work.group)], work.tokens, whole)
    stops = (drawn == policy.stop_ids[0]).int()
    return int((stops.cumsum(1) - stops == 0).sum())


def _draft_by_generate(policy: Policy, contexts: Sequence[Sequence[int]], work: Work) -> int:
    rows, count = [list(context) for context in contexts], 0
    with merged(policy.model):
        for _ in range(work.sketches):
            drawn = generate(policy, rows, work.sketch, whole=True).tolist()
            rows = [row + new for row, new in zip(rows, drawn, strict=True)]
            count += sum(map(len, drawn))
    return count


@torch.no_grad()
def generate(policy: Policy, rows: Sequence[Sequence[int]], limit: int, whole: bool = False) -> torch.Tensor:
    """What transformers' ``generate`` draws under each row, (n, T); rows are given left-padded, as TRL does.

    Args:
        policy: its base weights draw; merge the adapter first.
        rows: contexts.
        limit: most tokens of a completion.
        whole: no completion ends before.
    """
    width = max(map(len, rows))
    pad = policy.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows])
    seen = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    drawn: torch.Tensor = policy.model.get_base_model().generate(
        input_ids=ids, attention_mask=seen, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=limit,
        min_new_tokens=limit if whole else None, eos_token_id=policy.stop_ids[0], pad_token_id=pad,
    )[:, width:]  # fmt: skip
    return drawn


def lines(result: Mapping[str, Any]) -> list[str]:
    """The two tables and the ratios."""
    work = result["work"]
    found = [
        f"Engines: random Qwen2 of {result['parameters']:,} parameters, float32; {work['prompts']} prompts of {work['prompt']}"
        " tokens; torch and vllm also return the log-prob of every token"
    ]
    titles = {
        "parallel": f"parallel: {work['group']} answers a prompt of {work['tokens']} tokens",
        "drafting": f"drafting: {work['sketches']} sketches of {work['sketch']} tokens one after another, {work['prompts']} lists",
    }
    for name, title in titles.items():
        part = result[name]
        found += [title, f"{'':16}{'s':>9}{'cpu s':>9}{'tokens/s':>10}{'tokens':>8}"]
        for side in (side for side in part if side != "speedups"):
            s = part[side]
            found.append(f"{side:16}{s['seconds']:9.2f}{s['cpu']:9.2f}{s['tokens_per_second']:10.0f}{s['tokens']:8.0f}")
        for pair, ratio in part["speedups"].items():
            aim = f" (aim: {result['aims'][pair]:g})" if pair in result["aims"] else ""
            found.append(f"{pair}: {both(ratio)}{aim}")
    return found


def lab_lines(result: Mapping[str, Any]) -> list[str]:
    """The table of ``compare_lab``."""
    found = [
        f"Decoding, shipped policies: {result['prompts']} tasks x {result['group']} answers each,"
        " up to their stop tokens; tokens a second",
        f"{'':20}{'torch':>9}{'generate':>10}  torch over generate (aim: {AIMS['torch over generate']:g})",
    ]
    for model, part in result["policies"].items():
        found.append(f"{model:20}{part['torch']:9.0f}{part['generate']:10.0f}  {both(part['speedup'])}")
    return found
