"""What travels along the road: task -> context -> completion -> candidate -> group.

The one idea of the package: a candidate is *drawn under* one context and *trained under* one or several. A sampler only
chooses contexts, an engine only turns contexts into completions, an environment only judges, and the update rule sees
log-probs with their labels and never asks which sampler it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

ContextKind = Literal["task", "history", "sketch", "draft"]
"""What a context holds besides the episode so far. ``task``: the task's prompt alone, x. ``history``: x and earlier answers of
the same group. ``sketch``: x and the sketch to be followed. ``draft``: x, the request for a sketch, and earlier sketches."""


@dataclass(frozen=True)
class Task:
    """One question to the policy.

    Attributes:
        index: which task of its environment; with the environment's options it fixes the task.
        prompt: the task in plain text, as a person would read it.
        data: what defines the task, JSON-able; lab prompts are formatted from it.
    """

    index: int
    prompt: str
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Score:
    """An environment's verdict on one answer.

    Attributes:
        reward: in reward units of the environment, finite.
        success: whether the task counts as solved.
        strategy: canonical key of the way taken, equal for answers that differ only in wording; None where the answer
            cannot be read as a valid way at all.
    """

    reward: float
    success: bool
    strategy: str | None


@dataclass(frozen=True)
class Episode:
    """An episode under way, or over. Immutable: ``environment.step`` returns the next one, and any may be gone back to.

    Attributes:
        task: what is asked.
        seed: fixes the environment's own chance (slippery ice), so that an episode can be replayed.
        state: the environment's own, immutable.
        observation: what the environment says after the last turn, the next turn's user message; "" before the first turn
            (the prompt shows that state) and where the episode is over.
        rewards: one a turn, finite, in reward units of the environment.
        terminated: the task itself has ended (solved, or lost for good).
        truncated: a limit (turns, actions) ended the episode before the task did.
        success: the task counts as solved.
        strategy: canonical key of the way taken so far; None while nothing valid was done.
    """

    task: Task
    seed: int
    state: Any
    observation: str = ""
    rewards: tuple[float, ...] = ()
    terminated: bool = False
    truncated: bool = False
    success: bool = False
    strategy: str | None = None

    @property
    def over(self) -> bool:
        return self.terminated or self.truncated

    @property
    def verdict(self) -> Score:
        """The episode as one verdict: the sum of its rewards."""
        return Score(sum(self.rewards), self.success, self.strategy)


@dataclass(frozen=True)
class Frame:
    """One picture of a replay. Whatever a policy wrote is escaped in it.

    Attributes:
        caption: what happened, a few words of plain text.
        text: the state in plain text.
        svg: the same as one ``<svg>`` element with a viewBox, readable on light and on dark ground.
    """

    caption: str
    text: str
    svg: str


@dataclass(frozen=True)
class Context:
    """Token ids a completion is drawn or trained under, labelled by what they hold."""

    kind: ContextKind
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Completion:
    """What an engine drew under one context.

    Attributes:
        ids: sampled token ids, the stop token included where there is one.
        logprobs: one a token, nats: log-prob of that token under the policy as it was when drawn, under the drawing
            context, *of the distribution sampled from* (after temperature).
        text: the ids decoded without special tokens. Hostile text: never evaluated, always escaped.
        finish: ``stop`` (a stop token was drawn), ``text`` (a text that ends answers was completed) or ``length`` (the token
            limit came first).
        engine_logprobs: what the engine said of the tokens, where ``logprobs`` are the trainer's own of the same weights,
            context and temperature (``training.mismatch``); empty: the two are one.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish: Literal["stop", "text", "length"]
    engine_logprobs: tuple[float, ...] = ()


@dataclass(frozen=True)
class Turn:
    """A stretch of the policy's own tokens.

    Attributes:
        drawn_under: the context the completion was sampled from.
        trained_under: contexts whose likelihood of the completion may be trained, by kind.
        completion: what was drawn.
    """

    drawn_under: Context
    trained_under: Mapping[str, Context]
    completion: Completion


@dataclass(frozen=True)
class Sketch:
    """A method drafted in stage I of SESA.

    Attributes:
        turn: its tokens. Drawn and trained under x and the sketches before it (kind ``draft``).
        repeats: it equals an earlier sketch of its group (case and white space aside), or is empty.
        redraws: how many draws were thrown away because they did; 0 for a sketch made on the way.
        sampled_tokens: tokens drawn for it, thrown-away draws included.
    """

    turn: Turn
    repeats: bool = False
    redraws: int = 0
    sampled_tokens: int = 0

    @property
    def text(self) -> str:
        return self.turn.completion.text


@dataclass(frozen=True)
class Candidate:
    """One member of a group: what the policy said, turn by turn.

    Attributes:
        turns: at least one; a single-turn task has exactly one. ``trained_under`` of each holds ``task``, without sketch.
        history: texts of the earlier answers that the drawing context showed, oldest first.
        redraws: how many draws were thrown away because they repeated the history.
        sampled_tokens: tokens drawn for this candidate, thrown-away draws included, sketches left out.
        sketches: which of its group's sketches it follows: the one it expands and, where each turn has its own, the later
            ones; empty: drawn without any.
        episode: how it went, where the environment was asked turn by turn; None: the answer is judged whole.
    """

    turns: tuple[Turn, ...]
    history: tuple[str, ...] = ()
    redraws: int = 0
    sampled_tokens: int = 0
    sketches: tuple[int, ...] = ()
    episode: Episode | None = None

    @property
    def length(self) -> int:
        """Tokens that the policy drew and that count, all turns together."""
        return sum(len(turn.completion.ids) for turn in self.turns)

    @property
    def text(self) -> str:
        """What the policy said, a line a turn. Hostile text."""
        return "\n".join(turn.completion.text for turn in self.turns)

    @property
    def logprob(self) -> float:
        """Of all that it said, under what it was drawn under, nats."""
        return float(sum(sum(turn.completion.logprobs) for turn in self.turns))


@dataclass(frozen=True)
class Group:
    """The candidates of one task in the order drawn; advantages are normalised within it.

    Attributes:
        task: what is asked.
        candidates: in the order drawn.
        sketches: those of stage I, in the order drafted.
    """

    task: Task
    candidates: tuple[Candidate, ...]
    sketches: tuple[Sketch, ...] = ()


@dataclass
class Scored:
    """A group with its verdicts and credit; every list has one entry a candidate, in order.

    Attributes:
        group: what was drawn.
        scores: the environment's verdicts.
        rewards: after the rule for repeats.
        advantages: group-normalised; all 0 where the group's rewards do not differ.
        sketch_rewards: one a sketch, from the rewards of its solutions, None where it has none; empty where sketches are not
            trained.
        sketch_advantages: the same, normalised over the group's sketches; 0 where the reward is None.
        transfers: whether a candidate's advantage counts for the first of its likelihoods (``update.transfer``); empty: all do.
    """

    group: Group
    scores: list[Score]
    rewards: list[float] = field(default_factory=list)
    advantages: list[float] = field(default_factory=list)
    sketch_rewards: list[float | None] = field(default_factory=list)
    sketch_advantages: list[float] = field(default_factory=list)
    transfers: list[bool] = field(default_factory=list)
