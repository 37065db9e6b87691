"""When does a run collapse? A cumulative sum of what each signal has lost, and a rule which must have lost it.

Every signal (``signals.SIGNALS``) is smoothed and compared with the best it has been. Its relative loss beyond a slack is
summed up (Page's CUSUM, Biometrika 1954), so that a deep loss is told soon, a shallow one later, and a chance dip not at all:

    m_t = m_{t-1} + (x_t - m_{t-1}) 2 / (smoothing + 1)
    loss_t = 1 - m_t / max_{u <= t} m_u                                      (0 = as good as ever, 1 = all is gone)
    S_t = min(2 patience, max(0, S_{t-1} + loss_t - slack))

The signal is *down* while S_t >= patience; its change point is the step after S was last 0. An alarm is one of two:

- collapse: ``breadth`` is down, and with it at least ``votes`` - 1 of ``live``, ``spread`` and ``entropy``. Breadth is needed
  because the others fall in healthy training too: a policy that has learnt its tasks is surer of its words, and solves most groups
  with all candidates.
- failure: ``success`` is down. Where nothing is solved any more there is no breadth to lose.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from sesa_lab.collapse.signals import SIGNALS
from sesa_lab.errors import InputError, suggest

NEEDED, FAILURE = "breadth", "success"
"""The signal without which there is no collapse, and the one whose loss is an alarm by itself."""
_VOTING = tuple(name for name in SIGNALS if name != FAILURE)


@dataclass(frozen=True)
class Thresholds:
    """What counts as collapse. The defaults were chosen on runs apart (reports/LOG.md), to be early without false alarms there.

    Of 200 steps in which nothing changes, and breadth has a standard deviation of a tenth of its mean, 2.5 % raise an alarm: the
    best so far is the best of noise. More candidates a step, or more slack, make them fewer.

    Attributes:
        smoothing: steps, >= 1, that an exponential average spans; 1: none.
        slack: signal -> relative loss, 0..1, that is not counted.
        patience: steps of total loss beyond the slack, > 0, after which a signal is down: with a loss of ``slack`` + 0.1,
            ten times as many steps.
        votes: signals, 1..4, that must be down, breadth among them and success not counted.
        warmup: steps, >= 0, before which nothing is compared: early averages are of few groups.
    """

    smoothing: float = 5.0
    slack: Mapping[str, float] = field(
        default_factory=lambda: {"breadth": 0.1, "live": 0.2, "spread": 0.5, "entropy": 0.5, "success": 0.5}
    )
    patience: float = 1.0
    votes: int = 2
    warmup: int = 5

    def __post_init__(self) -> None:
        """Raises ``InputError`` where a value is out of range."""
        for name, share in self.slack.items():
            if name not in SIGNALS:
                raise InputError(f"slack of {name!r}: no such signal; {suggest(name, list(SIGNALS))}")
            if not 0.0 <= share < 1.0:
                raise InputError(f"slack of {name} = {share} is out of range: expected a relative loss in [0, 1)")
        missing = [name for name in SIGNALS if name not in self.slack]
        if missing:
            raise InputError(f"slack lacks {', '.join(missing)}; expected one for each of {', '.join(SIGNALS)}")
        if not self.smoothing >= 1.0 or not self.patience > 0.0 or self.warmup < 0:
            raise InputError(
                f"expected smoothing >= 1, patience > 0 and warmup >= 0, got {self.smoothing}, {self.patience} and {self.warmup}"
            )
        if not 1 <= self.votes <= len(_VOTING):
            raise InputError(f"votes = {self.votes} is out of range: expected 1..{len(_VOTING)}, one a signal")


@dataclass(frozen=True)
class Alarm:
    """A collapse or failure, as it was noticed.

    Attributes:
        step: at which it was.
        onset: the change point of ``breadth`` (of a failure: of ``success``): the first step of the loss that led to the alarm;
            at most ``step``.
        down: signals that were down, in the order of ``SIGNALS``.
        loss: signal -> its relative loss at ``step``, 0..1; NaN where the signal was never defined.
    """

    step: int
    onset: int
    down: tuple[str, ...]
    loss: Mapping[str, float]

    def __str__(self) -> str:
        """One line for a reader."""
        lost = ", ".join(f"{name} -{self.loss[name]:.0%}" for name in self.down)
        kind = "collapse" if NEEDED in self.down else "failure"
        return f"{kind} noticed at step {self.step}, from step {self.onset} on: {lost} of the best so far"


@dataclass
class _State:
    """One signal so far."""

    mean: float = math.nan
    best: float = math.nan
    total: float = 0.0
    onset: int | None = None

    def update(self, step: int, value: float, weight: float, slack: float, cap: float, counted: bool) -> None:
        """Takes the value of one step; NaN changes nothing."""
        if math.isnan(value):
            return
        self.mean = value if math.isnan(self.mean) else self.mean + (value - self.mean) * weight
        if not counted:
            return
        self.best = self.mean if math.isnan(self.best) else max(self.best, self.mean)
        self.total = min(cap, max(0.0, self.total + self.loss - slack))
        if self.total == 0.0:
            self.onset = None
        elif self.onset is None:
            self.onset = step

    @property
    def loss(self) -> float:
        """0..1; NaN before there is a value. A signal that never was above 0 has nothing to lose."""
        if math.isnan(self.best):
            return math.nan
        return 1.0 - self.mean / self.best if self.best > 0.0 else 0.0


class Detector:
    """Watches a run step by step. What it says depends on the values given so far alone."""

    def __init__(self, thresholds: Thresholds | None = None) -> None:
        """Nothing was seen yet; None: the defaults."""
        self.thresholds = thresholds or Thresholds()
        self._states = {name: _State() for name in SIGNALS}
        self._seen = 0
        self._alarmed = False

    @property
    def totals(self) -> dict[str, float]:
        """Signal -> S_t, 0..2 ``patience``."""
        return {name: state.total for name, state in self._states.items()}

    @property
    def losses(self) -> dict[str, float]:
        """Signal -> its relative loss now, 0..1; NaN before it has a value."""
        return {name: state.loss for name, state in self._states.items()}

    def update(self, step: int, signals: Mapping[str, float]) -> Alarm | None:
        """Take one step's signals; returns the alarm where this step raises it.

        An alarm is raised once. After it, the next one can come when breadth and success have both been back (S at 0) in between.

        Args:
            step: its number, higher than the one before.
            signals: as ``step_signals`` makes them.
        """
        own = self.thresholds
        self._seen += 1
        for name, state in self._states.items():
            state.update(
                step, signals[name], 2.0 / (own.smoothing + 1.0), own.slack[name], 2.0 * own.patience,
                self._seen > own.warmup,
            )  # fmt: skip
        down = tuple(name for name in SIGNALS if self._states[name].total >= own.patience)
        collapsed = NEEDED in down and len([name for name in down if name in _VOTING]) >= own.votes
        cause = NEEDED if collapsed else FAILURE if FAILURE in down else None
        if all(self._states[name].onset is None for name in (NEEDED, FAILURE)):
            self._alarmed = False
        onset = self._states[cause].onset if cause is not None else None
        if self._alarmed or onset is None:
            return None
        self._alarmed = True
        return Alarm(step, onset, down, self.losses)

    def state(self) -> dict[str, Any]:
        """JSON-able, of constant size; for ``restore``."""
        return {
            "seen": self._seen,
            "alarmed": self._alarmed,
            "signals": {name: [s.mean, s.best, s.total, s.onset] for name, s in self._states.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Back to where ``state`` was taken."""
        self._seen, self._alarmed = state["seen"], state["alarmed"]
        self._states = {name: _State(*state["signals"][name]) for name in SIGNALS}


def detect(signals: pd.DataFrame, thresholds: Thresholds | None = None) -> tuple[list[Alarm], pd.DataFrame]:
    """All alarms of a run, and how they came about.

    Args:
        signals: columns ``step`` and ``SIGNALS``, one row a step, in order (``signals.of_rollouts``).
        thresholds: None: the defaults.

    Returns:
        The alarms, and one row a step: ``step``, the signals, and of each its relative loss (``*_loss``) and S_t (``*_total``).

    Raises:
        InputError: a column is missing.
    """
    for name in ("step", *SIGNALS):
        if name not in signals:
            raise InputError(f"signals have no column {name!r}; {suggest(name, [str(c) for c in signals.columns])}")
    detector, alarms = Detector(thresholds), []
    rows: list[dict[str, Any]] = []
    for row in signals[["step", *SIGNALS]].to_dict("records"):
        alarm = detector.update(int(row["step"]), {name: float(row[name]) for name in SIGNALS})
        alarms += [alarm] if alarm else []
        rows.append(
            {str(name): value for name, value in row.items()}
            | {f"{name}_loss": value for name, value in detector.losses.items()}
            | {f"{name}_total": value for name, value in detector.totals.items()}
        )
    extra = [f"{name}_{what}" for what in ("loss", "total") for name in SIGNALS]
    return alarms, pd.DataFrame(rows, columns=["step", *SIGNALS, *extra])
