"""What drafting sketches costs: SESA over parallel at equal numbers of solutions, in tokens, seconds and memory.

A random byte-level policy is asked Countdown's tasks by the lab's prompts. It draws printable letters only, so that a sketch
read back has as many tokens as it was drawn with, and all but never stops, so that lengths are what they are set to. Each way
of drawing is a trainer; in each round every way trains one step, in alternating order. The draw is timed apart from the step:
a step also scores and updates, and that is what a user pays.

The aim: where a group's sketches have at most ``SHARE`` of the tokens of its solutions, drawing takes at most ``AIM`` times
as long as drawing in parallel.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen2ForCausalLM

from sesa_lab.config import Config
from sesa_lab.experiments.bench_pairs import Spent, median_spent, one, progress, ratios
from sesa_lab.experiments.bench_rereading import Rereading
from sesa_lab.experiments.bench_trl import Shape, clock, make_policy, memory, our_config, reward, since
from sesa_lab.policies import load_policy
from sesa_lab.policies.load import CARD
from sesa_lab.training.loop import Trainer
from sesa_lab.types import Group, Score, Task

AIM, SHARE = 1.25, 0.15
ENVIRONMENT = "countdown"


@dataclass(frozen=True)
class Drafting:
    """What is drawn.

    Attributes:
        group: solutions a prompt.
        expansions: solutions of a sketch; there are group / expansions sketches.
        sketch: tokens of a sketch.
        solutions: tokens of a solution, one comparison each.
    """

    group: int = 8
    expansions: int = 1
    sketch: int = 8
    solutions: tuple[int, ...] = (16, 64, 128)


DRAFTING = Drafting()


@dataclass(frozen=True)
class Way:
    """A way of drawing a group.

    Attributes:
        sampler: settings that differ from the defaults.
        update: the same.
        kept: whether the engine keeps its cache from one draw to the next.
    """

    sampler: Mapping[str, Any] = field(default_factory=dict)
    update: Mapping[str, Any] = field(default_factory=dict)
    kept: bool = True


_LIST = {"name": "sesa"}
_PROMPT = {"name": "sesa", "drafting_form": "prompt"}
WAYS: dict[str, Way] = {
    "parallel": Way(),
    "list": Way(_LIST),
    "prompt": Way(_PROMPT),
    "list, rereading": Way(_LIST, kept=False),
    "prompt, rereading": Way(_PROMPT, kept=False),
    "sketches i.i.d.": Way({"name": "sesa", "drafting": "iid"}),
    "list, x + sketch": Way(_LIST, {"conditioning": "task+sketch"}),
}
"""Name -> what it is; the update trains x alone, as the paper's, where it does not say otherwise."""


@dataclass(frozen=True)
class Took:
    """One training step.

    Attributes:
        draw: seconds of the draw alone.
        step: of the whole step.
        draw_mb: most resident memory during the draw beyond that before it, MiB; NaN where the system does not tell.
        step_mb: the same during the step.
        solutions: tokens of each solution.
        sketches: tokens of each sketch.
        counts: tokens sampled, prefilled (read into the cache) and trained (computed by a forward pass of the update).
    """

    draw: Spent
    step: Spent
    draw_mb: float
    step_mb: float
    solutions: list[int]
    sketches: list[int]
    counts: dict[str, int]


class Puzzles:
    """Countdown's tasks, judged as a random policy's answers can be told apart by: the share of capital letters."""

    def __init__(self, environment: Any) -> None:
        self.name, self.options, self.turns = environment.name, environment.options, 1
        self.repeats = "count"
        self._environment = environment

    def task(self, index: int) -> Task:
        task: Task = self._environment.task(index)
        return task

    def score(self, task: Task, text: str) -> Score:
        return Score(reward(text), False, text)


def make_lab_policy(folder: Path, shape: Shape) -> int:
    """``make_policy``'s, which speaks the lab form and draws printable letters only; returns its number of parameters."""
    count = make_policy(folder, shape)
    (folder / CARD).write_text(json.dumps({"environment": ENVIRONMENT, "options": {}}))
    model = Qwen2ForCausalLM.from_pretrained(folder)
    policy = load_policy(our_config(folder, shape).policy, ENVIRONMENT, {}, 0)
    letters = {policy.encode(chr(code))[0] for code in range(33, 127)}
    with torch.no_grad():
        for token in set(range(model.config.vocab_size)) - letters:
            model.lm_head.weight[token, 0] = -4.0  # as the stop token there
    model.save_pretrained(folder)
    return count


def settings(way: Way, drafting: Drafting, folder: Path, shape: Shape, tokens: int) -> Config:
    """The run that ``way`` is, with solutions of ``tokens`` tokens and micro-batches as they are by default."""
    sampler: dict[str, Any] = {"max_tokens": tokens, **way.sampler}
    if way.sampler:
        sampler |= {"sketch_tokens": drafting.sketch, "expansions": drafting.expansions}
    common = our_config(folder, dataclasses.replace(shape, group=drafting.group, micro_batch=0))
    return common.changed(environment={"name": ENVIRONMENT}, sampler=sampler, update=dict(way.update))


class Drawer:
    """A way of drawing, step by step."""

    def __init__(self, way: Way, drafting: Drafting, folder: Path, shape: Shape, tokens: int) -> None:
        self.trainer = Trainer(settings(way, drafting, folder, shape, tokens))
        self.trainer.environment = Puzzles(self.trainer.environment)  # type: ignore[assignment]
        if not way.kept:
            self.trainer.engine = Rereading(self.trainer.engine)
        self._draw = self.trainer.draw
        self.trainer.draw = self._timed  # type: ignore[method-assign]
        self._drawn: tuple[Spent, float] = ((0.0, 0.0), 0.0)

    def _timed(self, number: int) -> list[Group]:
        begin = clock()
        groups = self._draw(number)
        self._drawn = since(begin), memory().peak
        return groups

    def take(self, number: int) -> Took:
        """Train step ``number``."""
        before = memory().now if _forget_peak() else math.nan
        begin = clock()
        metrics, tables = self.trainer.step(number)
        step = since(begin)
        (draw, peak), last = self._drawn, memory().peak
        solutions, sketches = ([len(row["token_ids"]) for row in tables[kind]] for kind in ("rollouts", "sketches"))
        counts = {kind: metrics[f"tokens_{kind}"] for kind in ("sampled", "prefilled", "trained")}
        return Took(draw, step, peak - before, last - before, solutions, sketches, counts)


def _forget_peak() -> bool:
    """Give freed memory back to the system and begin a new peak; False where that cannot be done (it takes Linux and glibc)."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (AttributeError, OSError):
        return False
    return True


def compare(rounds: int, shape: Shape, drafting: Drafting = DRAFTING) -> dict[str, Any]:
    """Every way at every length of the solutions; the first step of each is a warm-up.

    Args:
        rounds: paired rounds, at least 1.
        shape: of the policy; ``prompts`` and ``threads`` are used, too, and nothing else.
        drafting: what is drawn.
    """
    result: dict[str, Any] = {"aim": AIM, "share": SHARE, "prompts": shape.prompts, "group": drafting.group}
    result |= {"sketches": drafting.group // drafting.expansions, "sketch_tokens": drafting.sketch, "solutions": {}}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "policy"
        result["parameters"] = make_lab_policy(folder, shape)
        for tokens in drafting.solutions:
            result["solutions"][str(tokens)] = _compare_ways(rounds, drafting, folder, shape, tokens)
    return result


def _compare_ways(rounds: int, drafting: Drafting, folder: Path, shape: Shape, tokens: int) -> dict[str, Any]:
    drawers = {name: Drawer(way, drafting, folder, shape, tokens) for name, way in WAYS.items()}
    found: dict[str, list[Took]] = {name: [] for name in WAYS}
    for number in progress(rounds + 1, f"sketches, solutions of {tokens}"):
        for name in list(WAYS) if number % 2 == 0 else list(WAYS)[::-1]:
            took = drawers[name].take(number + 1)
            if number:
                found[name].append(took)
    return {name: _way(taken, found["parallel"]) for name, taken in found.items()}


def _way(taken: Sequence[Took], parallel: Sequence[Took]) -> dict[str, Any]:
    """What one way took, and its ratios over parallel."""
    last = taken[-1]
    tokens = {kind: sum(getattr(last, kind)) for kind in ("solutions", "sketches")}
    share = tokens["sketches"] / tokens["solutions"]
    result: dict[str, Any] = {"candidates": len(last.solutions), "shortest": min(last.solutions), **tokens}
    result |= {"drafted": len(last.sketches), "share": share, **last.counts}
    for what in ("draw", "step"):
        spent = [getattr(took, what) for took in taken]
        over = ratios(spent, [getattr(took, what) for took in parallel])
        peak = float(np.median([getattr(took, f"{what}_mb") for took in taken]))
        result[what] = median_spent(spent) | {"memory_mb": None if math.isnan(peak) else peak, "over_parallel": over}
    result["verdict"] = verdict(result["draw"]["over_parallel"]["seconds"], share)
    return result


def verdict(ratio: Mapping[str, Any], share: float) -> str:
    """Whether a draw's ratio over parallel keeps to ``AIM``: ``met``, ``not met``, ``open`` where its interval holds both.

    Without an interval the mean decides. "" where there are no sketches; ``no aim`` where they are longer than ``SHARE``.
    """
    if share == 0:
        return ""
    if share > SHARE:
        return "no aim"
    low, high = (ratio["mean"] if ratio[end] is None else ratio[end] for end in ("low", "high"))
    return "met" if high <= AIM else "not met" if low > AIM else "open"


def lines(result: Mapping[str, Any]) -> list[str]:
    """The tables, one a length of the solutions."""
    found = [
        f"Sketches: {result['prompts']} prompts x {result['group']} solutions, {result['sketches']} sketches a prompt of"
        f" {result['sketch_tokens']} tokens, random policy of {result['parameters']:,} parameters.",
        f"Aim: the draw takes at most {result['aim']} times parallel's where sketches have at most {result['share']:.0%} of the"
        " solutions' tokens. MiB: most resident memory beyond that before the step.",
    ]
    for tokens, ways in result["solutions"].items():
        found += _table(tokens, ways)
    return found


def _table(tokens: str, ways: Mapping[str, Any]) -> list[str]:
    found = [
        "",
        f"solutions of {tokens} tokens; sketches have {ways['list']['share']:.1%} of that",
        f"{'':18}{'draw s':>8}{'step s':>8}{'sampled':>9}{'prefilled':>11}{'trained':>9}{'draw MiB':>10}{'step MiB':>10}"
        f"  {'draw over parallel':28}{'in processor s':28}{'step over parallel':28}aim",
    ]
    for name, way in ways.items():
        draw, step = way["draw"], way["step"]
        row = f"{name:18}{draw['seconds']:8.2f}{step['seconds']:8.2f}{way['sampled']:9d}{way['prefilled']:11d}{way['trained']:9d}"
        row += "".join(f"{'?' if part['memory_mb'] is None else round(part['memory_mb']):>10}" for part in (draw, step))
        if name != "parallel":
            over = [draw["over_parallel"]["seconds"], draw["over_parallel"]["cpu"], step["over_parallel"]["seconds"]]
            row += "  " + "".join(f"{one(ratio):28}" for ratio in over) + way["verdict"]
        found.append(row)
    return found
