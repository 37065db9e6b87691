"""What travels along the road: task -> context -> completion -> candidate -> group.

The one idea of the package: a candidate is *drawn under* one context and *trained under* one or several. A sampler only
chooses contexts, an engine only turns contexts into completions, an environment only judges, and the update rule sees
log-probs with their labels and never asks which sampler it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

ContextKind = Literal["task", "history"]
"""``task``: the task's prompt alone, x. ``history``: x followed by earlier answers of the same group."""


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
        finish: ``stop`` (a stop token was drawn) or ``length`` (the token limit came first).
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish: Literal["stop", "length"]


@dataclass(frozen=True)
class Candidate:
    """One member of a group: a completion, the context it was drawn under, the contexts it may be trained under.

    Attributes:
        drawn_under: the context the completion was sampled from.
        trained_under: by kind; always holds ``task``. Where drawn_under.kind is ``task`` there is no other.
        completion: what was drawn.
        history: texts of the earlier answers that the drawing context showed, oldest first.
        redraws: how many draws were thrown away because they repeated the history.
        sampled_tokens: tokens drawn for this candidate, thrown-away draws included.
    """

    drawn_under: Context
    trained_under: Mapping[str, Context]
    completion: Completion
    history: tuple[str, ...] = ()
    redraws: int = 0
    sampled_tokens: int = 0


@dataclass(frozen=True)
class Group:
    """The candidates of one task in the order drawn; advantages are normalised within it."""

    task: Task
    candidates: tuple[Candidate, ...]


@dataclass
class Scored:
    """A group with its verdicts and credit; every list has one entry a candidate, in order.

    Attributes:
        group: what was drawn.
        scores: the environment's verdicts.
        rewards: after the rule for repeats.
        advantages: group-normalised; all 0 where the group's rewards do not differ.
    """

    group: Group
    scores: list[Score]
    rewards: list[float] = field(default_factory=list)
    advantages: list[float] = field(default_factory=list)
