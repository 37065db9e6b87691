"""How fast a GRPO step is: against TRL's, phase by phase, and what drawing in sequence costs. `make bench`.

Beside it: environments against packages that do the same (``bench_environments``), engines against each other
(``bench_engines``), what sketches cost (``bench_sketches``), and measures of diversity (``bench_diversity``).

Every comparison is paired: in each round both sides do the same work one right after the other, in alternating order, and
the ratio's interval is over rounds. So what else the machine does slows both sides alike. Ratios are given twice, of
wall-clock and of processor seconds; on a machine that is otherwise idle they agree.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sesa_lab import environments
from sesa_lab.config import PolicyConfig, SamplerConfig
from sesa_lab.engines import Counters, TorchEngine
from sesa_lab.errors import InputError
from sesa_lab.experiments import bench_diversity, bench_engines, bench_environments, bench_sketches
from sesa_lab.experiments.bench_engines import WORK, Work
from sesa_lab.experiments.bench_environments import LOAD, Load
from sesa_lab.experiments.bench_pairs import Spent, both, median_spent, progress, ratios, say
from sesa_lab.experiments.bench_rereading import Rereading
from sesa_lab.experiments.bench_sketches import DRAFTING, Drafting
from sesa_lab.experiments.bench_trl import Questions, Shape, Side, Step, clock, make_policy, our_config, quiet, since
from sesa_lab.policies import Policy, load_policy, merged
from sesa_lab.prompts import Speaker
from sesa_lab.runs.environment import facts
from sesa_lab.samplers import Request, draw
from sesa_lab.seeding import stream
from sesa_lab.types import Group

REPORT = Path("reports/bench.json")
STEPS = 2  # timed training steps of each side a round
SHAPES = {"short prompts": Shape(prompt=32), "long prompts": Shape(prompt=120)}
RIVALS = ("trl", "datasets", "accelerate")


def main(
    rounds: int,
    out: Path = REPORT,
    shapes: Mapping[str, Shape] = SHAPES,
    load: Load = LOAD,
    drafting: Drafting = DRAFTING,
    work: Work = WORK,
    diversity: bench_diversity.Load = bench_diversity.LOAD,
) -> dict[str, Any]:
    """Measure everything, print the table part by part, write ``out``; returns what was written.

    Args:
        rounds: paired rounds of every comparison; an interval needs two.
        out: JSON file.
        shapes: the training steps to compare, by name; drawing and sketches are measured on the first.
        load: how much the environments do a round.
        drafting: the sketches, and the solutions drawn with and without them.
        work: what every engine draws.
        diversity: what the measures of diversity are timed on.

    Raises:
        InputError: TRL is not installed, or rounds below 1.
    """
    if rounds < 1:
        raise InputError(f"--rounds {rounds}: expected at least 1, and 2 for intervals")
    if importlib.util.find_spec("trl") is None:
        raise InputError("TRL, the rival, is not installed: `make bench` installs it (pip install -e '.[bench]')")
    first = next(iter(shapes.values()))
    torch.set_num_threads(first.threads)
    quiet()
    machine = facts(0)
    machine["versions"] |= {name: importlib.metadata.version(name) for name in RIVALS}
    result: dict[str, Any] = {"machine": machine, "rounds": rounds, "steps": {}, "drawing": {}}
    result["shapes"] = {name: dataclasses.asdict(shape) for name, shape in shapes.items()}
    say(_head(result))
    result["environments"] = bench_environments.compare(rounds, load)
    say(bench_environments.lines(result["environments"]))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "policy"
        result["parameters"] = make_policy(folder, first)
        say(_policy_lines(result))
        for name, shape in shapes.items():
            steps = result["steps"][name] = compare_steps(folder, shape, rounds, name)
            say(_step_lines(name, result["shapes"][name], steps))
        policy = load_policy(our_config(folder, first).policy, "bench", {}, 0)
        for name, drawn in {"shipped policy": shipped(first), "bench policy": made(policy, first)}.items():
            drawing = result["drawing"][name] = compare_drawing(*drawn, rounds, name)
            say(_drawing_lines(name, drawing))
    result["decoding"] = bench_engines.compare_lab(rounds)
    say(bench_engines.lab_lines(result["decoding"]))
    result["engines"] = bench_engines.compare(rounds, first, work)
    say(bench_engines.lines(result["engines"]))
    result["sketches"] = bench_sketches.compare(rounds, first, drafting)
    say(bench_sketches.lines(result["sketches"]))
    result["diversity"] = bench_diversity.compare(rounds, diversity)
    say(bench_diversity.lines(result["diversity"]))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    say([f"written to {out}"])
    return result


def compare_steps(folder: Path, shape: Shape, rounds: int, name: str = "steps") -> dict[str, Any]:
    """A training step of ours and of TRL's, each side in its own process, ``STEPS`` of each a round after one of warm-up."""
    sides = [Side(which, folder, shape) for which in ("ours", "trl")]
    try:
        for side in sides:
            side.step()
        found: dict[str, list[list[Step]]] = {side.name: [] for side in sides}
        for number in progress(rounds, f"step, {name}"):
            for side in sides if number % 2 == 0 else sides[::-1]:
                found[side.name].append([side.step() for _ in range(STEPS)])
        memory = {side.name: (side.loaded, side.memory) for side in sides}
    finally:
        for side in sides:
            side.close()
    spent = {which: [_mean_spent(steps) for steps in rows] for which, rows in found.items()}
    result: dict[str, Any] = {"speedup": ratios(spent["trl"], spent["ours"])}
    for which, rows in found.items():
        steps = [step for part in rows for step in part]
        loaded, last = memory[which]
        result[which] = _side(steps) | {"memory_loaded_mb": loaded.peak, "memory_peak_mb": last.peak}
    phases = [step.phases for part in found["ours"] for step in part]
    total = {phase: sum(p[phase] for p in phases) for phase in phases[0]}
    result["phases"] = {phase: seconds / sum(total.values()) for phase, seconds in total.items()}
    return result


def _side(steps: Sequence[Step]) -> dict[str, Any]:
    """Medians over steps (a busy machine's outliers say nothing), and what the steps were made of."""
    seconds = float(np.median([step.seconds for step in steps]))
    return {
        "seconds": seconds,
        "cpu": float(np.median([step.cpu for step in steps])),
        "tokens_per_second": float(np.mean([step.tokens for step in steps])) / seconds,
        "candidates": float(np.mean([step.candidates for step in steps])),
        "tokens": float(np.mean([step.tokens for step in steps])),
        "shortest": min(step.shortest for step in steps),
        "prompt_tokens": float(np.mean([step.prompt_tokens for step in steps])),
        "distinct": float(np.mean([step.distinct for step in steps])),
    }


def _mean_spent(steps: Sequence[Step]) -> Spent:
    return float(np.mean([step.seconds for step in steps])), float(np.mean([step.cpu for step in steps]))


@dataclasses.dataclass(frozen=True)
class Bridged(Speaker):
    """Speaks as the lab form does, with ``bridge`` between two answers whatever the model's own form."""

    bridge: tuple[int, ...] = ()

    def between(self, finish: str) -> tuple[int, ...]:
        """See ``Speaker.between``."""
        return (*(() if finish == "stop" else self.stop_ids[:1]), *self.bridge)


Drawn = tuple[Policy, list[Request], SamplerConfig, tuple[int, ...]]
"""A policy, what it is asked, how many and how long answers, and the token ids between two answers of a sequence."""


def shipped(shape: Shape) -> Drawn:
    """The lab policy of Path Exploration on its own prompt, its answers as long as it makes them."""
    environment = environments.make("path_exploration")
    policy = load_policy(PolicyConfig(device="cpu"), environment.name, environment.options, 0)
    tasks = [environment.task(i) for i in range(shape.prompts)]
    speaker = Speaker(policy.tokenizer, policy.form, environment.name, policy.stop_ids)
    requests = [Request(task, speaker.answer(task)) for task in tasks]
    return policy, requests, SamplerConfig(group_size=shape.group), speaker.between("stop")


def made(policy: Policy, shape: Shape) -> Drawn:
    """The random policy of the compared step: every answer runs to the token limit."""
    # The chat form's own bridge is a whole sentence, which a byte-level tokenizer would read letter by letter.
    bridge = policy.encode("\nQ: one more\nA: ")
    tasks = [Questions(shape).task(i) for i in range(shape.prompts)]
    speaker = Speaker(policy.tokenizer, policy.form, "bench", policy.stop_ids)
    requests = [Request(task, speaker.answer(task)) for task in tasks]
    return policy, requests, SamplerConfig(group_size=shape.group, max_tokens=shape.tokens), bridge


def compare_drawing(
    policy: Policy,
    requests: Sequence[Request],
    sampler: SamplerConfig,
    bridge: tuple[int, ...],
    rounds: int,
    name: str = "drawing",
) -> dict[str, Any]:
    """Equal numbers of candidates drawn in parallel, in sequence, and in sequence without a kept cache.

    Prompt and history make a sequential candidate's context longer and its answers cannot be drawn side by side within a
    group, so the ratio depends on answers' length and on the machine. Nothing is drawn again (``redraws`` 0).
    """
    engine = TorchEngine(policy)
    dialogue = Bridged(policy.tokenizer, policy.form, "bench", policy.stop_ids, bridge=bridge)
    in_sequence = dataclasses.replace(sampler, name="sequential")
    ways: dict[str, Callable[[int], list[Group]]] = {
        "parallel": lambda n: draw(engine, requests, sampler, dialogue, _streams(n)),
        "sequential": lambda n: draw(engine, requests, in_sequence, dialogue, _streams(n)),
        "rereading": lambda n: draw(Rereading(engine), requests, in_sequence, dialogue, _streams(n)),
    }
    found, counts = _alternate(ways, engine.counters, policy, rounds, f"draw, {name}")
    result: dict[str, Any] = {
        "sequential_over_parallel": ratios(found["sequential"], found["parallel"]),
        "rereading_over_sequential": ratios(found["rereading"], found["sequential"]),
    }
    for way in ways:
        result[way] = median_spent(found[way]) | counts[way]
    return result


def _alternate(
    ways: Mapping[str, Callable[[int], list[Group]]], counters: Counters, policy: Policy, rounds: int, name: str
) -> tuple[dict[str, list[Spent]], dict[str, dict[str, float]]]:
    """Seconds of each way by round, and its mean candidates and tokens; round 0 is the warm-up."""
    found: dict[str, list[Spent]] = {way: [] for way in ways}
    totals = {way: np.zeros(4) for way in ways}
    with merged(policy.model):
        for number in progress(rounds + 1, name):
            for way in list(ways) if number % 2 == 0 else list(ways)[::-1]:
                before = dataclasses.replace(counters)
                begin = clock()
                groups = ways[way](number)
                spent = since(begin)
                candidates = [candidate for group in groups for candidate in group.candidates]
                sampled, read = counters.sampled - before.sampled, counters.prefilled - before.prefilled
                if number:
                    found[way].append(spent)
                    totals[way] += [
                        len(candidates),
                        sampled,
                        read,
                        len({c.turns[0].completion.ids for c in candidates}),
                    ]
    names = ("candidates", "sampled", "prefilled", "distinct")
    return found, {way: dict(zip(names, (total / rounds).tolist(), strict=True)) for way, total in totals.items()}


def _streams(number: int) -> Callable[[int, int], np.random.Generator]:
    return lambda group, index: stream(0, "sampling", number, group, index)


def _head(result: Mapping[str, Any]) -> list[str]:
    machine = result["machine"]
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in ("torch", "transformers", "trl"))
    threads = sorted({shape["threads"] for shape in result["shapes"].values()})
    return [
        f"{machine['cpu']}, {machine['cpus']} cores, {', '.join(map(str, threads))} thread(s) a side; {versions}",
        f"{result['rounds']} paired rounds, ratios with 95 % intervals over rounds, times are medians. Where other work shares",
        "the processor, read the ratios of processor seconds.",
    ]


def _policy_lines(result: Mapping[str, Any]) -> list[str]:
    return [
        f"random Qwen2 of {result['parameters']:,} parameters, LoRA r=16 on all linears, float32; candidates are distinct, so",
        "packing repeats gains nothing here, and all run to the token limit, so that finished rows leave the batch gains",
        "nothing either.",
    ]


def _step_lines(name: str, shape: Mapping[str, Any], steps: Mapping[str, Any]) -> list[str]:
    lines = [
        f"GRPO step, {name}: {shape['prompts']} prompts x {shape['group']} x <= {shape['tokens']} tokens,"
        f" {steps['ours']['prompt_tokens'] / steps['ours']['candidates']:.0f} tokens a prompt,"
        f" micro-batches of {shape['micro_batch'] or 'all'} rows",
        f"{'':12}{'s/step':>9}{'cpu s':>9}{'tokens/s':>10}{'candidates':>12}{'distinct':>10}{'tokens':>8}{'shortest':>10}"
        f"{'peak MiB':>10}{'of it loaded':>14}",
    ]
    for side in ("ours", "trl"):
        s = steps[side]
        lines.append(
            f"{side:12}{s['seconds']:9.2f}{s['cpu']:9.2f}{s['tokens_per_second']:10.0f}{s['candidates']:12.0f}"
            f"{s['distinct']:10.0f}{s['tokens']:8.0f}{s['shortest']:10d}{s['memory_peak_mb']:10.0f}"
            f"{s['memory_loaded_mb']:14.0f}"
        )
    phases = ", ".join(f"{phase} {share:.0%}" for phase, share in steps["phases"].items())
    return [*lines, f"ours is faster by {both(steps['speedup'])}", f"our step: {phases}"]


def _drawing_lines(name: str, drawing: Mapping[str, Any]) -> list[str]:
    lines = [
        f"Drawing, {name}",
        f"{'':12}{'s':>9}{'cpu s':>9}{'candidates':>12}{'distinct':>10}{'sampled':>9}{'prefilled':>11}",
    ]
    for way in ("parallel", "sequential", "rereading"):
        w = drawing[way]
        lines.append(
            f"{way:12}{w['seconds']:9.2f}{w['cpu']:9.2f}{w['candidates']:12.0f}{w['distinct']:10.0f}{w['sampled']:9.0f}"
            f"{w['prefilled']:11.0f}"
        )
    return [
        *lines,
        f"sequential over parallel: {both(drawing['sequential_over_parallel'])}",
        f"without the kept cache (rereading) over sequential: {both(drawing['rereading_over_sequential'])}",
    ]
