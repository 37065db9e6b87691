"""Watching for collapse while training: every step's groups go to the detector; what it has seen is kept with the checkpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from sesa_lab.collapse import SIGNALS, Alarm, Detector, Drawn, Thresholds, direct_of, step_signals
from sesa_lab.config import Config
from sesa_lab.settings import WatchConfig
from sesa_lab.types import Scored


class Watch:
    """What is watched in one run. Nothing, where ``on_alarm`` is ``none``.

    Attributes:
        switched: the step after which training went on with ``watch.switch``; None: it has not.
    """

    def __init__(self, config: Config) -> None:
        """Nothing was seen yet.

        Args:
            config: of the run; its ``watch``, and what its sampler draws.
        """
        self.switched: int | None = None
        self._begin(config)

    def _begin(self, config: Config) -> None:
        self._watching = config.watch.on_alarm != "none"
        self._direct = direct_of(config.sampler)
        self._detector = Detector(thresholds(config.watch))

    def look(self, step: int, scored: Sequence[Scored], entropy: float) -> Alarm | None:
        """The alarm, where this step raises it.

        Args:
            step: its number.
            scored: its groups, of all processes.
            entropy: mean token entropy of the policy when they were drawn, nats.
        """
        if not self._watching:
            return None
        return self._detector.update(step, step_signals(map(_drawn, scored), self._direct, entropy))

    def switch(self, step: int, config: Config) -> None:
        """Begin anew after ``step`` with other settings: what is drawn otherwise is not compared with what was drawn before."""
        self._begin(config)
        self.switched = step

    def state(self) -> dict[str, Any]:
        """JSON-able; for ``restore``."""
        return {"switched": self.switched, "detector": self._detector.state()}

    def restore(self, state: Mapping[str, Any], config: Config) -> None:
        """Back to where ``state`` was taken; ``config`` is what the run had then."""
        self._begin(config)
        self.switched = state["switched"]
        self._detector.restore(state["detector"])


def thresholds(settings: WatchConfig) -> Thresholds:
    """The detector's, as a run has set them."""
    usual = Thresholds()
    slack = {**usual.slack, "breadth": settings.alarm_slack}
    return dataclasses.replace(usual, slack=slack, patience=settings.alarm_patience, votes=settings.alarm_votes)


def alarm_row(alarm: Alarm, action: str) -> dict[str, Any]:
    """An alarm as a line of metrics.jsonl; keys and units are documented in CONTRIBUTING.md."""
    return {
        "onset": alarm.onset,
        "action": action,
        "down": "+".join(alarm.down),
        **{f"{name}_loss": alarm.loss[name] for name in SIGNALS},
    }


def _drawn(scored: Scored) -> Drawn:
    return Drawn(
        strategies=[score.strategy for score in scored.scores],
        correct=[score.success for score in scored.scores],
        credited=scored.rewards,
        contexts=[candidate.turns[0].drawn_under.kind for candidate in scored.group.candidates],
    )
