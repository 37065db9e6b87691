"""Watching for collapse while training: every step's groups go to the detector; what it has seen is kept with the checkpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from sesa_lab.collapse import SIGNALS, Alarm, Detector, Drawn, Thresholds, step_signals
from sesa_lab.settings import WatchConfig
from sesa_lab.types import Scored


class Watch:
    """What is watched in one run. Nothing, where ``on_alarm`` is ``none``.

    Attributes:
        switched: the step after which training went on with ``watch.switch``; None: it has not.
    """

    def __init__(self, settings: WatchConfig) -> None:
        """Nothing was seen yet."""
        self.switched: int | None = None
        self._begin(settings)

    def _begin(self, settings: WatchConfig) -> None:
        self.settings = settings
        self._seen: list[list[float]] = []  # step and signals, of the detector at work
        self._detector = Detector(thresholds(settings))

    def look(self, step: int, scored: Sequence[Scored], entropy: float) -> Alarm | None:
        """The alarm, where this step raises it.

        Args:
            step: its number.
            scored: its groups, of all processes.
            entropy: mean token entropy of the policy when they were drawn, nats.
        """
        if self.settings.on_alarm == "none":
            return None
        signals = step_signals(map(_drawn, scored), entropy)
        self._seen.append([step, *signals.values()])
        return self._detector.update(step, signals)

    def switch(self, step: int, settings: WatchConfig) -> None:
        """Begin anew after ``step``: what is drawn in another way is not compared with what was drawn before."""
        self._begin(settings)
        self.switched = step

    def state(self) -> dict[str, Any]:
        """JSON-able; for ``restore``."""
        return {"switched": self.switched, "seen": self._seen}

    def restore(self, state: Mapping[str, Any], switched: WatchConfig) -> None:
        """Back to where ``state`` was taken; ``switched`` are the settings of a run that has been switched by then."""
        if state["switched"] is not None:
            self.switch(state["switched"], switched)
        if self.settings.on_alarm == "none":
            return
        self._seen = [list(row) for row in state["seen"]]
        for step, *values in self._seen:
            self._detector.update(int(step), dict(zip(SIGNALS, values, strict=True)))


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
