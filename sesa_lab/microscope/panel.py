"""The panel: controls, and below them what they change; a click on a cell chooses it. Reads runs; nothing is trained."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import plotly.graph_objects as go
import traitlets as t

from sesa_lab.diversity.embeddings import DEFAULT
from sesa_lab.embedding_map.data import Embedder
from sesa_lab.embedding_map.link import Link, check_among
from sesa_lab.errors import InputError
from sesa_lab.microscope import figures
from sesa_lab.microscope.clusters import Clusters, cluster
from sesa_lab.microscope.data import SOURCES, Heat, Selection, View, heat, heat_of, paths, read, samples, stretches
from sesa_lab.plots import notebook
from sesa_lab.plots.live_figure import Hit, LiveFigure
from sesa_lab.plots.panel import Panel, cut, reload_button, sample_table
from sesa_lab.plots.theme import OTHERS, UNREADABLE, escape
from sesa_lab.runs.load import Run

_ALL = -1  # of a dropdown None means that nothing is chosen


class CollapseMicroscope(Panel):
    """One run, or two linked on one training step: strategies x time, curves with alarms, and the samples behind a cell.

    Where answers are places of a tree (``path_exploration``), the policy's mass on it stands below; where rows are clusters of
    texts, its mass on these.

    A click on a cell chooses its run, step and strategy; the controls and ``select`` do the same. Where a cell of a long run is
    several steps, a click chooses the one with the largest share.

    A live panel is gone from an exported notebook: end a cell with ``microscope.heat_map().show()`` (or ``curves()``) to keep
    what it shows.

    Attributes:
        views: the runs as they were read.
        controls: the controls by the name of what they set.
        heat: strategies and shares that are shown.
        selected: the chosen samples, a ``Selection``; observe it to be told.
        link: moves the inspector through them, if there is one.
    """

    selected = t.Instance(Selection, allow_none=True)

    def __init__(
        self,
        shown: Run | str | Path | Sequence[Run | str | Path],
        inspector: Any = None,
        *,
        embedder: Embedder = DEFAULT,
    ) -> None:
        """Read the runs and draw.

        Args:
            shown: one or two runs, or their folders.
            inspector: a ``SketchInspector`` of one of these, or of both; it is moved to the first of what is selected, and by two
                buttons through the others. Of its second run it shows the samples of a task that its first run has at that step
                too.
            embedder: model of ``diversity.embed``, or a function from texts to (texts, d) vectors, for rows that are clusters.

        Raises:
            InputError: no run or more than two, no run there, one without committed candidates, or an inspector of another run.
        """
        given = [shown] if isinstance(shown, (Run, str, Path)) else list(shown)
        if not 1 <= len(given) <= 2:
            raise InputError(f"expected one or two runs, got {len(given)}")
        self.views: list[View] = [read(run) for run in given]
        self.link = Link(inspector)
        said = "the inspector is of {found}, the microscope of {known}: open both on the same runs"
        check_among(self.link.runs, [view.run for view in self.views], said)
        self._embedder = embedder
        self._clusters: Clusters | None = None
        self._by_cluster = False  # whether the rows of ``heat`` are clusters
        self._followed: Selection | None = None
        self.controls = _controls(self.views)
        self._lock = (
            threading.RLock()
        )  # callbacks may come from a thread of their own, beside a cell that sets a control
        self._drawn: dict[str, dict[str, Any]] = {}
        self._said = widgets.HTML()
        self._samples = widgets.HTML()
        self._areas = {"curves": widgets.Output(), "mass": widgets.Output()}
        self._paths = paths(self.views)
        self.heat: Heat = self._heat()
        self._list(self._selection())
        self._map = LiveFigure(self.heat_map(), on_click=self._clicked)
        wide = {"layout": {"flex_flow": "row wrap"}}
        first = widgets.HBox([self.controls[name] for name in ("step", "rows", "source", "most", "success")], **wide)
        second = widgets.HBox(
            [*(self.controls[name] for name in ("run", "strategy")), reload_button(self.reload)], **wide
        )
        below = [self._said, self.link.box, self._samples]
        super().__init__([first, second, self._map.plot, *self._areas.values(), *below])
        for control in self.controls.values():
            control.observe(self._changed, names="value")
        self._show()

    def heat_map(self) -> go.Figure:
        """The strategies under the present settings."""
        row = self.controls["strategy"].value
        source: Any = "clusters" if self._by_cluster else self.controls["source"].value
        return figures.heat_map(self.views, self.heat, source, self._step, row if row >= 0 else None)

    def curves(self) -> go.Figure:
        """The curves, with the chosen step."""
        return figures.curves(self.views, self._step)

    def tree(self) -> go.Figure:
        """The policy's mass on the tree of places at the chosen step.

        Raises:
            InputError: the answers are no places of a tree, or their masses are not known.
        """
        if self._paths is None:
            raise InputError(
                "these runs' answers are no paths of a tree with exact masses, as those of path_exploration are; look at"
                " heat_map() instead"
            )
        return figures.tree(self.views, self._paths, self._step)

    def masses(self) -> go.Figure:
        """The policy's mass on clusters of texts at the chosen step; the texts are embedded now where they were not yet.

        Raises:
            InputError: they cannot be embedded.
        """
        return figures.masses(self.views, self._grouped(), self._step)

    def reload(self) -> None:
        """Read the runs again, for they may have grown. What is chosen stays; at the last step it moves on to the new last one.

        Raises:
            InputError: a run is not there any more, or damaged; nothing is changed then.
        """
        with self._lock:
            views, own, chosen = [read(view.run.path) for view in self.views], self.controls, self._selection()
            clusters = cluster(views, self._embedder) if self._by_cluster else None
            self.link.refresh()
            steps, step, source = _steps(views), own["step"].value, own["source"].value
            last = step == own["step"].options[-1]
            self.views, self._clusters, self._paths = views, clusters, paths(views)
            with self._quietly():
                own["step"].options, own["step"].value = steps, steps[-1] if last else step
                own["source"].options, own["source"].value = _sources(views), source
            self.heat = self._heat()
            self._list(chosen)
            self._show()

    def select(self, step: int, strategy: str | None = None, run: int = 0) -> None:
        """Choose a cell from code.

        Args:
            step: one that some run has.
            strategy: one of those shown, or the name of a cluster where rows are clusters; None: all.
            run: place of the run among those shown.

        Raises:
            InputError: what is not there to be chosen.
        """
        with self._lock:
            place = _ALL
            if strategy is not None:
                if strategy not in self.heat.names:
                    raise InputError(
                        f"strategy {strategy!r} is not among the {len(self.heat.names)} shown; show more of them"
                    )
                place = self.heat.names.index(strategy)
            self._choose({"step": step, "run": run, "strategy": place})

    def _choose(self, wanted: Mapping[str, int]) -> None:
        """Set several controls at once.

        Raises:
            InputError: what is not there to be chosen; nothing is changed then.
        """
        with self._lock:
            for name, value in wanted.items():
                known = [option[1] if isinstance(option, tuple) else option for option in self.controls[name].options]
                if value not in known:
                    raise InputError(
                        f"{name} {value} is not there to be chosen; expected one of {known[0]} .. {known[-1]}"
                    )
            with self._quietly():
                for name, value in wanted.items():
                    self.controls[name].value = value
            self._show(anew=True)

    def _clicked(self, hit: Hit) -> None:
        """Choose the cell; where its step or its row is none to be chosen, say why and leave everything as it is."""
        with self._lock:
            assert isinstance(hit.point, tuple)  # of a heat map
            run, (row, column) = hit.trace // figures.TRACES_A_RUN, hit.point
            part = stretches(len(self.heat.steps[run]))[column]
            share = dict(zip(self.heat.steps[run][part], self.heat.share[run][row, part], strict=True))
            known = [step for step in share if step in self.controls["step"].options]
            names = [*self.heat.names, *self.heat.rest]
            why = ""
            if not known:
                when = "step " + " to ".join(str(step) for step in dict.fromkeys([min(share), max(share)]))
                why = f"{when} was evaluated, but no candidates were drawn there: choose another step"
            elif row >= len(self.heat.names) and names[row] == OTHERS:
                why = f"others are many {self.controls['rows'].value}: show more of them to choose one"
            if why:
                self._said.value = f"<b>{escape(why, 200)}</b>"
                self._samples.value = ""
                return
            step = max(known, key=lambda one: (share[one], one == self._step))
            self._choose({"run": run, "step": step, "strategy": row})

    @property
    def _step(self) -> int:
        return int(self.controls["step"].value)

    def _grouped(self) -> Clusters:
        if self._clusters is None:
            self._said.value = "<b>embedding a sample of the texts ...</b>"  # may take a minute
            self._clusters = cluster(self.views, self._embedder)
        return self._clusters

    def _heat(self) -> Heat:
        own = self.controls
        if own["rows"].value == "clusters":
            shares = self._grouped().shares
            self._by_cluster = True
            return heat_of(shares, own["most"].value, own["success"].value)
        self._by_cluster = False
        return heat(self.views, own["source"].value, own["most"].value, own["success"].value)

    def _changed(self, change: Any) -> None:
        with self._lock:
            if self._quiet:
                return
            own = self.controls
            if change["owner"] in (own["rows"], own["source"], own["most"], own["success"]):
                chosen = self._selection()  # by the rows as they were
                try:
                    self.heat = self._heat()
                except InputError as error:  # of what embeds the texts
                    with self._quietly():
                        own["rows"].value = "strategies"
                    self._said.value = f"<b>no clusters: {escape(error, 400)}</b>"
                    return
                own["source"].disabled = self._by_cluster  # evaluated texts are not stored
                own["strategy"].description = "cluster" if self._by_cluster else "strategy"
                self._list(chosen)
            self._show()

    def _list(self, chosen: Selection) -> None:
        """List the strategies that have a row; the chosen one stays chosen where it has one."""
        names, rest = self.heat.names, self.heat.rest
        listed = list(enumerate(names))
        # Others are not to be chosen: who they are depends on how many are shown.
        listed += [(len(names) + rest.index(UNREADABLE), UNREADABLE)] if UNREADABLE in rest else []
        row = chosen.cluster if self._by_cluster else chosen.strategy
        kept = names.index(row) if row in names else _ALL
        if chosen.unreadable and UNREADABLE in rest:
            kept = listed[-1][0]
        control = self.controls["strategy"]
        with self._quietly():
            control.options = [("all", _ALL), *((f"{place + 1}. {escape(name, 60)}", place) for place, name in listed)]
            control.value = kept

    def _show(self, anew: bool = False) -> None:
        """Draw, list the samples, tell the inspector and who observes; ``anew``: the inspector also of what it was told before."""
        self._map.draw(self.heat_map())
        self._fill("curves", self.curves())
        self._fill("mass", self.masses() if self._by_cluster else self.tree() if self._paths is not None else None)
        chosen = self._selection()
        view = self.views[chosen.run]
        rows = samples(view, chosen) if chosen.cluster is None else self._grouped().samples(chosen)
        self._said.value = _said(view, chosen, len(rows))
        self._samples.value = sample_table(rows)
        if anew or chosen != self._followed:
            self._followed = chosen
            outcome = "unreadable" if chosen.unreadable else "solved" if chosen.success else "all"
            wanted = {"strategy": chosen.strategy, "outcome": outcome}
            self.link.follow(view.run, rows.assign(step=chosen.step), wanted)
        self.selected = chosen

    def _fill(self, name: str, figure: go.Figure | None) -> None:
        """Draw in an area what is not there yet; None: nothing."""
        drawn = {} if figure is None else notebook.bundle(figure)
        if self._drawn.get(name, {}) != drawn:
            self._drawn[name] = drawn
            if drawn:
                notebook.fill(self._areas[name], drawn)
            else:
                self._areas[name].outputs = ()

    def _selection(self) -> Selection:
        place, own = self.controls["strategy"].value, self.controls
        named = self.heat.names[place] if 0 <= place < len(self.heat.names) else None
        return Selection(
            run=own["run"].value,
            step=self._step,
            strategy=None if self._by_cluster else named,
            unreadable=place != _ALL and named is None,
            success=own["success"].value,
            cluster=named if self._by_cluster else None,
        )


def _steps(views: Sequence[View]) -> list[int]:
    return sorted({step for view in views for step in view.steps})


def _sources(views: Sequence[View]) -> list[tuple[str, str]]:
    """Those that all runs have."""
    names = {"candidates": "candidates of a step", "answers": "evaluated answers"}
    return [(names[source], source) for source in SOURCES if all(len(view.shares[source]) for view in views)]


def _controls(views: Sequence[View]) -> dict[str, Any]:
    steps, sources = _steps(views), _sources(views)
    shared = sorted(set.intersection(*(set(view.steps) for view in views)))
    # Exact masses show the policy itself, not what a few draws took.
    start = "answers" if len(sources) > 1 and all(view.exact for view in views) else "candidates"
    labels = [(f"{place + 1}. {escape(view.run.label, 60)}", place) for place, view in enumerate(views)]
    style = {"description_width": "70px"}
    return {
        "step": widgets.SelectionSlider(
            options=steps, value=(shared or steps)[-1], description="step", continuous_update=False, style=style,
            layout={"width": "420px"},
        ),
        "rows": widgets.Dropdown(
            options=[("strategies", "strategies"), ("clusters of texts", "clusters")], value="strategies", description="rows",
            style=style, layout={"width": "240px"},
        ),
        "source": widgets.Dropdown(options=sources, value=start, description="shares of", style=style, layout={"width": "270px"}),
        "most": widgets.BoundedIntText(
            value=12, min=1, max=60, description="strategies", style=style, layout={"width": "140px"}
        ),
        "success": widgets.Checkbox(value=False, description="success only", indent=False, layout={"width": "130px"}),
        "run": widgets.Dropdown(options=labels, value=0, description="run", style=style, layout={"width": "420px"}),
        "strategy": widgets.Dropdown(
            options=[("all", _ALL)], value=_ALL, description="strategy", style=style, layout={"width": "420px"}
        ),
    }  # fmt: skip


def _said(view: View, chosen: Selection, found: int) -> str:
    if chosen.step not in view.steps:
        return f"<b>{escape(view.run.label)} has no candidates at step {chosen.step}</b>; its last step is {view.steps[-1]}"
    named = chosen.strategy if chosen.cluster is None else chosen.cluster
    who = "unreadable" if chosen.unreadable else "all strategies" if named is None else escape(named)
    only = ", successes only" if chosen.success else ""
    what = "candidates" if chosen.cluster is None else "sampled candidates"
    return f"<b>{escape(view.run.label)}, step {chosen.step}, {who}{only}: {found} {what}</b>{cut(found)}"
