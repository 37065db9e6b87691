"""A sketch of anyone's, expanded by the policy of a run: stage II alone, asked and judged as in the run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from threading import Lock
from typing import Any

from sesa_lab import environments, runs
from sesa_lab.config import EngineConfig, SamplerConfig
from sesa_lab.engines import make
from sesa_lab.errors import InputError, short
from sesa_lab.runs.browse import told
from sesa_lab.samplers import Request
from sesa_lab.samplers.sesa import expand
from sesa_lab.seeding import stream
from sesa_lab.training import evaluate, room
from sesa_lab.training.credit import verdicts
from sesa_lab.types import Completion, Context, Group, Sketch, Task, Turn

_EXPANDED = 6  # position among the "evaluation" streams of a seed; below it are those of ``held_out`` and ``fidelity``


@dataclasses.dataclass(frozen=True)
class Solution:
    """One answer to a task, drawn with a sketch.

    Attributes:
        policy: who answered: run and checkpoint.
        task: number of the task in the run's environment.
        sample: its number among those drawn together, from 0.
        prompt: the task in plain text.
        sketch: what was to be followed, as it was given.
        completion: what the policy said, a line a turn. Hostile text: never evaluated, always escaped.
        tokens: how many it drew, all turns together.
        logprob: sum over these tokens, nats, under the task and the sketch, of the distribution drawn from (after
            temperature).
        finish: how the last turn ended: ``stop``, ``text`` or ``length``.
        reward: as the environment gave it.
        success: whether the task counts as solved.
        strategy: key of the way taken; None: it cannot be read as one.
    """

    policy: str
    task: int
    sample: int
    prompt: str
    sketch: str
    completion: str
    tokens: int
    logprob: float
    finish: str
    reward: float
    success: bool
    strategy: str | None


class Expander:
    """The policy of a run at one of its checkpoints, which expands sketches.

    It is asked by the prompts that the run recorded, at the run's temperature and token limits, on the tasks that the run
    trains on; a run that draws without sketches is asked by the same words as one that draws with them. Answers are drawn
    on the loaded weights themselves, whatever engine the run had. Where each turn of an episode has a sketch of its own
    (``sampler.sketch_scope`` turn), the one given is the first turn's, and the policy drafts the later ones.

    Several threads may ask at once; they are answered one after another.

    Args:
        run: a run or its folder.
        step: which checkpoint; None: the last one.

    Attributes:
        label: run and checkpoint, e.g. ``lab-0 seed 0 @3f16249, step 200``.

    Raises:
        InputError: no run, no such checkpoint, or whatever keeps a policy from being loaded.
    """

    def __init__(self, run: runs.Run | str | Path, step: int | None = None) -> None:
        found = run if isinstance(run, runs.Run) else runs.load(run)
        at, folder = _checkpoint(found, step)
        config = found.config_at(at)
        self.label = f"{found.label}, step {at}"
        self._sampler = dataclasses.replace(
            config.sampler, name="sesa", on_policy_fraction=0.0, expansions=1, repeated_sketch="keep"
        )
        self._environment: Any = environments.make(config.environment.name, **config.environment.options)
        chosen = dataclasses.replace(config.policy, adapter=str(folder))
        self._policy, self._speaker = evaluate.opened(config, chosen, found.path, self._environment)
        self._engine = make(EngineConfig(), self._policy)
        self._alone = Lock()  # adapter and weights are merged while answers are drawn

    def expand(self, task: int, sketch: str, count: int = 4, seed: int = 0) -> list[Solution]:
        """``count`` solutions of a task that follow ``sketch``, drawn i.i.d.

        Solution i comes from a random stream that seed, task and i fix, and the sketch does not: two sketches with one seed
        differ by the sketch alone. The same task, sketch, seed and count give the same solutions.

        Args:
            task: its number in the run's environment.
            sketch: any text; white space at its ends, and line breaks, are no part of it.
            count: how many, at least 1.
            seed: 0 .. 2^32 - 1.

        Raises:
            InputError: an empty sketch, one that is too long for the model, no such task, or a number out of range.
        """
        _check(sketch, count, seed)
        with self._alone:
            asked: Task = self._environment.task(task)
            request = Request(asked, self._speaker.answer(asked))
            size = min(count, self._side_by_side(request, sketch, count))
            given = _as_drafted(sketch)
            found: list[Solution] = []
            with self._engine.synced():
                for first in range(0, count, size):
                    group = self._drawn(request, given, first, min(size, count - first), seed)
                    found += self._judged(group, sketch, first)
        return found

    def _side_by_side(self, request: Request, sketch: str, count: int) -> int:
        """How many may be drawn at once; ``InputError`` where the model has too few positions for one."""
        bare = room.extent(self._speaker, self._environment, self._sampler, [request])
        guided = len(self._speaker.guided(request.task, sketch))
        need = dataclasses.replace(bare, opening=guided)
        if need.tokens > self._policy.positions:
            raise InputError(
                f"the task with this sketch takes {guided} tokens, and an answer up to {need.tokens - guided} more, which"
                f" exceeds the model's {self._policy.positions}; shorten the sketch"
            )
        return room.rows_at_once(self._policy, need, count)

    def _drawn(self, request: Request, sketch: Sketch, first: int, count: int, seed: int) -> Group:
        """Solutions ``first`` to ``first + count - 1``."""
        sampler: SamplerConfig = self._sampler
        world = self._environment if self._environment.turns > 1 else None
        number = request.task.index
        return expand(
            self._engine, [request], [[sketch]], [[0] * count], sampler, self._speaker,
            lambda _, i: stream(seed, "evaluation", _EXPANDED, number, first + i), world,
        )[0]  # fmt: skip

    def _judged(self, group: Group, sketch: str, first: int) -> list[Solution]:
        scores = verdicts(self._environment, group)
        return [
            Solution(
                policy=self.label,
                task=group.task.index,
                sample=first + place,
                prompt=group.task.prompt,
                sketch=sketch,
                completion=candidate.text,
                tokens=candidate.length,
                logprob=candidate.logprob,
                finish=candidate.turns[-1].completion.finish,
                reward=float(score.reward),
                success=score.success,
                strategy=score.strategy,
            )
            for place, (candidate, score) in enumerate(zip(group.candidates, scores, strict=True))
        ]


def _checkpoint(run: runs.Run, step: int | None) -> tuple[int, Path]:
    if not run.checkpoints:
        raise InputError(f"{run.path} has no checkpoint yet; let it train on (sesa-lab resume {run.path})")
    if step is None:
        return run.checkpoints[-1]
    there = dict(run.checkpoints)
    if step not in there:
        raise InputError(f"{run.path} has no checkpoint of step {short(step)}; expected one of {told(list(there))}")
    return step, there[step]


def _check(sketch: str, count: int, seed: int) -> None:
    if not sketch.strip():
        raise InputError("the sketch is empty; write a method that the solutions are to follow")
    try:
        sketch.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the sketch has half a letter at place {error.start} ({short(sketch[error.start])}), as a text that was cut"
            " within an emoji has; remove it"
        ) from error
    if not isinstance(count, int) or count < 1:
        raise InputError(f"count = {short(count)}, expected at least 1 solution")
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise InputError(f"seed = {short(seed)}, expected a whole number from 0 to 2^32 - 1")


def _as_drafted(text: str) -> Sketch:
    """``text`` as the sampler hands sketches on; only its words are read when it is expanded, never its tokens."""
    under = Context("draft", ())
    return Sketch(Turn(under, {"draft": under}, Completion((), (), text, "stop")))
