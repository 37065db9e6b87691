"""The panel: controls, and below them what they change. A moved slider computes the step anew; nothing is trained."""

from __future__ import annotations

import dataclasses
import math
import threading
from pathlib import Path
from typing import Any, Protocol

import ipywidgets as widgets
import plotly.graph_objects as go

from sesa_lab.config import UpdateConfig
from sesa_lab.errors import InputError
from sesa_lab.playground import figures
from sesa_lab.playground.compute import Result, Rule, compare, compute, rule
from sesa_lab.playground.stored import Step, read, stored_steps
from sesa_lab.plots import notebook
from sesa_lab.plots.panel import Panel, reload_button
from sesa_lab.plots.theme import escape
from sesa_lab.runs.load import Run, load
from sesa_lab.widgets.tokens import find

_FIELDS = {field.name: field for field in dataclasses.fields(UpdateConfig)}
_UPDATE = (
    "loss", "correction", "correction_scope", "conditioning", "repeats", "advantage", "clip_low", "clip_high", "truncation",
    "mismatch", "mismatch_truncation", "kl_coef", "kl_estimator",
)  # fmt: skip
_ALL = -1  # of a dropdown None means that nothing is chosen
_ROWS = (
    ("step", "group", "measure", "page"),
    ("conditioning", "second", "repeats", "advantage"),
    ("correction", "correction_scope", "loss"),
    ("clip_low", "clip_high", "truncation"),
    ("temperature", "shift", "moved"),
    ("kl_coef", "kl_estimator", "drift"),
    ("mismatch", "mismatch_truncation"),
)
_NO_POLICY = (
    "<i>Temperature:</i> stored log-probs are of the distribution at this run's temperature, {temperature:g}; what they would be at"
    " another depends on the logits of all tokens, not on that of the drawn one: give the policy, as"
    " <code>rescorer=Rescorer(run)</code> of <code>sesa_lab.rescoring</code>. <i>KL:</i> the frozen base's log-probs are not"
    " stored either; <i>drift</i> says how far log p is above them, alike for all tokens (0 is exact at the first step of a fresh"
    " adapter). "
)
_WITH_POLICY = (
    "<i>Temperature:</i> the same words, weighed at that temperature by the policy that drew them; at another one it would have"
    " drawn others. What another engine would have said there is taken to be the same. <i>KL:</i> exact, from the frozen base. "
)
_LEFT_OUT = (
    "<b>What no slider can show.</b> {policy}<i>Entropy bonus, the sketches' own loss, minibatches:</i> not in this loss; the whole"
    " step is one optimiser step. <i>Trained under:</i> only contexts whose log-probs the run stored."
)


class Rescorer(Protocol):
    """What ``rescoring.Rescorer`` is: the policy that drew a step."""

    stored: Step

    def at(self, temperature: float) -> Step:
        """The step at another temperature."""
        ...


class LossPlayground(Panel):
    """One stored step under every loss and correction.

    The controls begin at the run's own settings. A live panel is gone from an exported notebook: end a cell with
    ``playground.figure().show()`` (or ``comparison()``, ``strips()``) to keep what it shows.

    Attributes:
        step: the stored step; another one by ``controls["step"]``, where no policy is asked.
        controls: the controls by the name of what they set.
        result: what the present settings make of the step.
    """

    def __init__(
        self,
        run: Run | str | Path,
        step: int | None = None,
        tokenizer: str | Path | None = None,
        rescorer: Rescorer | None = None,
    ) -> None:
        """Read the step, compute and draw.

        Args:
            run: a run, or its folder.
            step: None: the last one stored.
            tokenizer: a folder with a ``tokenizer.json``, or that file; None: that of the run's model where this machine has it,
                else token ids are shown.
            rescorer: the policy that drew the step, e.g. ``rescoring.Rescorer(run, step)``: the temperature can be moved, and the
                KL penalty is exact. None: from what is stored alone. Where no step is named it is the rescorer's.

        Raises:
            InputError: no run there, no such step (the message says which there are), no tokenizer there, a rescorer of another
                run or step.
        """
        self.step: Step = read(run, rescorer.stored.number if step is None and rescorer is not None else step)
        self._rescorer = rescorer
        if rescorer is not None:
            _check(rescorer, self.step)
            self.step = rescorer.at(self.step.config.sampler.temperature)
        self.controls = _controls(self.step, stored_steps(self.step.run))
        self.controls["temperature"].disabled = rescorer is None
        self.controls["step"].disabled = rescorer is not None  # it has the policy of that one
        self.result: Result = compute(self.step, self.rule)
        speller = find(self.step.run, tokenizer)
        self._words: figures.Words | None = speller.pieces if speller is not None else None
        self._lock = (
            threading.RLock()
        )  # callbacks may come from a thread of their own, beside a cell that sets a control
        self._said = widgets.HTML()
        self._areas = {name: widgets.Output() for name in ("figure", "comparison", "strips")}
        rows = [
            widgets.HBox([self.controls[name] for name in names], layout={"flex_flow": "row wrap"}) for names in _ROWS
        ]
        again = reload_button(self.reload)
        again.children[0].disabled = rescorer is not None
        rows[-1].children = (*rows[-1].children, again)
        self._notes = widgets.HTML(_notes(self.step, rescorer is not None))
        super().__init__([*rows, self._said, *self._areas.values(), self._notes])
        for control in self.controls.values():
            control.observe(self._changed, names="value")
        self._changed(None)

    @property
    def rule(self) -> Rule:
        """The present settings."""
        values = {name: control.value for name, control in self.controls.items()}
        moved = None if values["moved"] == _ALL else (values["group"], values["moved"])
        return rule(self.step, values["shift"], moved, values["drift"], **{name: values[name] for name in _UPDATE})

    def figure(self) -> go.Figure:
        """The chosen group's candidates under the present settings."""
        return figures.candidates(self.result, *self._chosen)

    def comparison(self) -> go.Figure:
        """The chosen group under every correction, the other settings as they are."""
        found = compare(self.step, self.result.rule)
        group, second = self._chosen
        return figures.corrections(found, group, self.controls["measure"].value, second)

    def strips(self) -> go.Figure:
        """The chosen group's tokens under the present settings."""
        own = self.controls
        return figures.tokens(self.result, *self._chosen, self._words, own["measure"].value, own["page"].value)

    def reload(self) -> None:
        """Read the run again, for it may have grown. The step stays; at the last one it moves on to the new last one.

        Raises:
            InputError: the run is not there any more, or damaged, or a policy is asked, which is that of one step.
        """
        with self._lock:
            if self._rescorer is not None:
                raise InputError(
                    f"the policy that drew step {self.step.number} is loaded, and drew no other; for a newer step make another"
                    " playground, LossPlayground(run, rescorer=Rescorer(run))"
                )
            own, run = self.controls["step"], load(self.step.run.path)
            there = stored_steps(run)
            number = own.value if own.value in there and own.value != own.options[-1] else None
            self._open(read(run, number), there)
            self._changed(None)

    @property
    def _chosen(self) -> tuple[int, bool]:
        return self.controls["group"].value, self.controls["second"].value

    def _open(self, step: Step, there: list[int]) -> None:
        """Another step: what can be chosen of it; the settings stay where they can."""
        self.step, own = step, step.config.update
        groups, at = _groups(step), step.config.sampler.temperature
        self._notes.value = _notes(step, False)
        heat = self.controls["temperature"]
        with self._quietly():
            heat.min, heat.max, heat.value = min(heat.min, at), max(heat.max, at), at  # others after an alarm's switch
            self.controls["step"].options, self.controls["step"].value = there, step.number
            for name, options, value in (
                ("conditioning", step.conditionings, own.conditioning),
                ("repeats", step.repeats, own.repeats),
                ("group", groups, groups[0][1]),
            ):
                control = self.controls[name]
                known = [option[1] if isinstance(option, tuple) else option for option in options]
                kept = control.value if control.value in known else value
                control.options, control.value = options, kept

    def _changed(self, change: Any) -> None:
        """Compute and draw anew; where another page of tokens was turned to, draw that."""
        with self._lock:
            if self._quiet:
                return
            owner = change["owner"] if change else None
            if owner is self.controls["page"]:
                notebook.fill(self._areas["strips"], notebook.bundle(self.strips()))
                return
            if owner is self.controls["step"]:
                self._open(read(self.step.run, owner.value), list(owner.options))
            self._fit()
            if self._rescorer is not None:
                self.step = self._rescorer.at(self.controls["temperature"].value)
            self.result = compute(self.step, self.rule)
            self._turn()
            self._said.value = _said(self.result)
            for name, area in self._areas.items():
                notebook.fill(area, notebook.bundle(getattr(self, name)()))

    def _turn(self) -> None:
        """The pages of the group's tokens; the same one stays, where there is one."""
        page = self.controls["page"]
        options = tuple((f"{first} to {last}", first) for first, last in figures.pages(self.result, *self._chosen))
        if page.options != options:
            kept = page.value if page.value in [first for _, first in options] else 0
            with self._quietly():
                page.options, page.value = options, kept
        page.disabled = len(options) == 1

    def _fit(self) -> None:
        """What other controls have to follow: candidates of the group, the second likelihood, what has an effect."""
        with self._quietly():
            self._follow()
        own, members = self.controls, self.step.members
        kinds = [(kind, member.drawn_under) for member in members for kind in member.kinds(own["conditioning"].value)]
        own["correction_scope"].disabled = all(kind != drawn for kind, drawn in kinds)  # all are off-policy
        own["mismatch"].disabled = all(member.engine == member.drawn for member in members)
        own["mismatch_truncation"].disabled = own["mismatch"].disabled or own["mismatch"].value == "none"

    def _follow(self) -> None:
        group, moved, second = (self.controls[name] for name in ("group", "moved", "second"))
        here = [member.index for member in self.step.members if member.group == group.value]
        options = (("all candidates", _ALL), *((f"candidate {index}", index) for index in here))
        if moved.options != options:
            moved.options = options  # and so "all"
        second.disabled = "+" not in self.controls["conditioning"].value
        if second.disabled:
            second.value = False
        without = self.controls["kl_coef"].value == 0
        self.controls["kl_estimator"].disabled = without
        self.controls["drift"].disabled = without or self.step.rescored  # then the base's log-probs are known


def _check(rescorer: Rescorer, step: Step) -> None:
    """Raises ``InputError`` where the rescorer is not of this step of this run."""
    one, other = rescorer.stored, step
    if (one.run.path.resolve(), one.number) != (other.run.path.resolve(), other.number):
        raise InputError(
            f"the rescorer is of {one.run.path}, step {one.number}, the playground of {other.run.path}, step {other.number};"
            " make it of the same run and step, Rescorer(run, step)"
        )


def _notes(step: Step, policy: bool) -> str:
    """What no slider can show."""
    without = _NO_POLICY.format(temperature=step.config.sampler.temperature)
    return _LEFT_OUT.format(policy=_WITH_POLICY if policy else without)


def _groups(step: Step) -> list[tuple[str, int]]:
    tasks = {member.group: member.task for member in step.members}
    return [(f"{group} (task {tasks[group]})", group) for group in step.groups]


def _controls(step: Step, there: list[int]) -> dict[str, Any]:
    own = step.config.update
    choices = {
        name: list(_FIELDS[name].metadata["choices"])
        for name in ("loss", "correction", "correction_scope", "advantage", "mismatch", "kl_estimator")
    }
    choices |= {"conditioning": step.conditionings, "repeats": step.repeats}
    names = {"conditioning": "trained under", "kl_estimator": "KL estimator"}
    names |= {"correction_scope": "of candidates", "mismatch": "engine's error"}
    controls: dict[str, Any] = {
        name: _dropdown(names.get(name, name), values, getattr(own, name), _FIELDS[name].metadata["text"])
        for name, values in choices.items()
    }
    controls["step"] = _dropdown("step", there, step.number, "one of those whose candidates are stored")
    controls["group"] = _dropdown("group", _groups(step), step.groups[0])
    controls["page"] = _dropdown("tokens", [("0 to 0", 0)], 0, "which part of long completions the token strips show")
    measures = [("predicted change", "change"), ("weight", "weight")]
    controls["measure"] = _dropdown("bars show", measures, "change", "what the comparison and the tokens show")
    controls["moved"] = _dropdown("moved", [("all candidates", _ALL)], _ALL, "who has moved by that much")
    controls["second"] = widgets.Checkbox(
        value=False, description="show the second likelihood", indent=False, layout={"width": "220px"}
    )
    for name, label, start, high in (
        ("clip_low", "clip low", own.clip_low, 1.0),
        ("clip_high", "clip high", own.clip_high, 1.0),
        ("kl_coef", "KL weight", own.kl_coef, 1.0),
    ):
        controls[name] = _slider(label, start, 0.0, high, 0.01, _FIELDS[name].metadata["text"])
    controls["truncation"] = _slider(
        "truncation c", own.truncation, 0.05, 5.0, 0.05, _FIELDS["truncation"].metadata["text"]
    )
    controls["mismatch_truncation"] = _slider(
        "engine's error c", own.mismatch_truncation, 0.05, 5.0, 0.05, _FIELDS["mismatch_truncation"].metadata["text"]
    )
    controls["temperature"] = _slider(
        "temperature", step.config.sampler.temperature, 0.1, 2.0, 0.01,
        "of the softmax that the candidates are weighed by; needs the policy that drew them (rescorer=)",
    )  # fmt: skip
    controls["shift"] = _slider(
        "shift, nats a token",
        0.0,
        -1.0,
        1.0,
        0.01,
        "how far the policy has moved since it drew; the clip acts beyond its range",
    )
    controls["drift"] = _slider(
        "drift, nats a token",
        0.0,
        -1.0,
        1.0,
        0.01,
        "how far log p when drawn is above the frozen base's (not stored: a guess)",
    )
    return controls


def _dropdown(label: str, options: Any, value: Any, tooltip: str = "") -> Any:
    return widgets.Dropdown(
        options=options, value=value, description=label, tooltip=tooltip,
        style={"description_width": "92px"}, layout={"width": "232px"},
    )  # fmt: skip


def _slider(label: str, value: float, low: float, high: float, step: float, tooltip: str) -> Any:
    """Its range takes in the run's own value, whatever that is."""
    return widgets.FloatSlider(
        value=value, min=min(low, value), max=max(high, value), step=step, description=label, tooltip=tooltip,
        continuous_update=False, readout_format=".3g",
        style={"description_width": "130px"}, layout={"width": "316px"},
    )  # fmt: skip


def _said(result: Result) -> str:
    """The loss beside the one that the run logged, and what the clip and the correction do, in one line."""
    first = result.items[~result.items["second"]]
    logged = "not logged" if math.isnan(result.step.loss) else f"{result.step.loss:.6g}"
    parts = [
        f"<b>{escape(result.step.run.label)}, step {result.step.number}</b>"
        + (f" at temperature {result.step.config.sampler.temperature:g}" if result.step.rescored else ""),
        f"loss {result.loss:.6g} (logged under the run's own settings: {logged})",
        f"clipped {result.tokens['clipped'].mean():.0%} of tokens",
        f"mean importance weight {first['importance'].mean():.3g}",
    ]
    return "; ".join(parts)
