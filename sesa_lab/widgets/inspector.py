"""The sketch inspector: a group of a run, its sketches in drafting order, their solutions, token by token and move by move.

Python holds the state and reads the run; ``inspector.js`` only draws what it is sent. Synced traits carry the choices both
ways and the shown group to the browser; pages of long texts, copies and expansions of an edited sketch are asked for by
messages (``_ANSWERS``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any

import anywidget
import traitlets as t

from sesa_lab import runs
from sesa_lab.errors import InputError, first_line, short, suggest
from sesa_lab.runs.browse import Groups, nothing_yet, told
from sesa_lab.widgets import clustering, expansion, payload
from sesa_lab.widgets.clustering import Clusters
from sesa_lab.widgets.expansion import Expander
from sesa_lab.widgets.side import Side

COLOURINGS = ("surprisal", "entropy", "trained", "ratio", "plain")
"""Of tokens: -log-prob when drawn; entropy of the policy's distribution there, -log-prob, both under the training context; ratio of
the two probabilities; none."""
NO_TOKENIZER = (
    "this machine has no tokenizer of the run's model: tokens are shown by number; name its folder as tokenizer=..."
)
_HERE = Path(__file__).parent


class ChoiceError(InputError, t.TraitError):
    """A choice that the run does not have. traitlets takes back what came from the page, for it is a trait's error too."""


class SketchInspector(anywidget.AnyWidget):
    """A run, or two side by side on the same step and task, to be looked through in JupyterLab.

    Keys: left and right change the step, up and down the candidate, ``c`` copies it as JSON.

    Args:
        run: a run or its folder; read only, also while it is written (see ``refresh``).
        other: another one, shown beside it at the same step wherever it has the same task there.
        tokenizer: folder with the ``tokenizer.json`` of the model, where this machine does not find it by itself; one for
            each run, or one for both.
        clusters: labels of a group's sketches, to colour them by what they say rather than by what came of them, from their
            texts: a label each, from 0 on, -1 for noise. Asked in a thread, for the group that is shown; what it does wrong is
            told in the page. None: ``clustering.by_meaning``, and colours are those of strategies until others are asked for.
        expander: with one, the chosen candidate's sketch can be edited and expanded anew, and what comes of it is listed
            below it; e.g. ``sesa_lab.expanding.Expander(run)``, which loads the run's policy. One for all runs, or one (or
            None) for each.

    Attributes:
        step, group: what is shown; setting one reads that group, and only that.
        candidates: index of the chosen candidate, one a run; -1: none passes the filter.
        colouring: of tokens, one of ``COLOURINGS``; an older run has no entropies.
        sketch_colouring: of sketches, one of ``clustering.COLOURINGS``. Clusters are worked out only where they are chosen, or
            ``clusters`` was given, and never before a step is shown.
        sort: one of ``payload.SORTS``.
        filter: some of the keys of ``payload.NO_FILTER``; see ``payload.passing``.

    Raises:
        InputError: no run folder, a run without committed candidates, a choice that the run does not have, or ``clusters``
            that cannot be called.
    """

    _esm = _HERE / "inspector.js"
    _css = _HERE / "inspector.css"

    step = t.Int().tag(sync=True)
    group = t.Int().tag(sync=True)
    candidates = t.List(t.Int()).tag(sync=True)
    colouring = t.Unicode("surprisal").tag(sync=True)
    sketch_colouring = t.Unicode("strategy").tag(sync=True)
    sort = t.Unicode("drafting").tag(sync=True)
    filter = t.Dict().tag(sync=True)

    steps = t.List(t.Int()).tag(sync=True)
    groups: t.List[Any] = t.List().tag(sync=True)
    sides: t.List[Any] = t.List().tag(sync=True)
    listed: t.List[Any] = t.List().tag(sync=True)
    details: t.List[Any] = t.List().tag(sync=True)
    replays: t.List[Any] = t.List().tag(sync=True)
    clustered: t.List[Any] = t.List().tag(sync=True)

    _threads: tuple[ThreadPoolExecutor, ...] = ()  # also where __init__ raised: ipywidgets closes what is thrown away

    def __init__(
        self,
        run: runs.Run | str | Path,
        other: runs.Run | str | Path | None = None,
        *,
        tokenizer: str | Path | Sequence[str | Path] | None = None,
        clusters: Clusters | None = None,
        expander: Expander | Sequence[Expander | None] | None = None,
    ) -> None:
        given = [run] if other is None else [run, other]
        named = [tokenizer] * 2 if tokenizer is None or isinstance(tokenizer, (str, Path)) else list(tokenizer)
        if len(named) < len(given):
            raise InputError(f"tokenizer names {len(named)} folders for {len(given)} runs; expected one, or one each")
        if clusters is not None and not callable(clusters):
            raise InputError(f"clusters is {short(clusters)}, expected a function of texts; None: the usual one")
        expanders = expansion.each(expander, len(given))
        self._sides = [Side(*each) for each in zip(given, named, expanders, strict=False)]
        first = self._first().table
        if not len(first):
            raise nothing_yet(self._sides[0].run)
        self._clusters = clusters or clustering.by_meaning
        self._at: tuple[int, int] | None = None
        # One of its own for each: replays do not wait for a policy, nor for an embedding model.
        names = ("sketch-inspector", "sketch-expander", "sketch-clusters")
        self._threads = self._artist, self._helper, self._sorter = tuple(ThreadPoolExecutor(1, name) for name in names)
        self._drawing: Future[None] | None = None
        self._expanding: Future[None] | None = None
        self._clustering: Future[None] | None = None
        self._sending = RLock()
        super().__init__()
        self.sketch_colouring = "strategy" if clusters is None else "cluster"
        self.on_msg(self._asked)
        self._open(int(first["step"].iloc[-1]), int(first[first["step"] == first["step"].iloc[-1]]["group"].iloc[0]))

    @property
    def runs(self) -> list[runs.Run]:
        """The run that is shown, or both, as they were when they were last read."""
        return [side.run for side in self._sides]

    def refresh(self) -> None:
        """Read the runs again: what was committed since is there to choose; what is shown stays.

        A run that was made anew may lack it: then the last step is shown, or the first group of the step.

        Raises:
            InputError: a run that is gone, damaged, or has no candidates any more; what is shown stays.
        """
        read = [Groups(runs.load(side.run.path)) for side in self._sides]
        table = read[0].table
        if not len(table):
            raise nothing_yet(read[0].run)
        for side, groups in zip(self._sides, read, strict=True):
            side.open(groups)
        step = self.step if self.step in read[0].steps else read[0].steps[-1]
        there = read[0].at(step)["group"].tolist()
        self._open(step, self.group if self.group in there else int(there[0]))

    def close(self) -> None:
        """End the widget, and the threads that replay candidates, expand sketches and find clusters."""
        for thread in self._threads:
            thread.shutdown(wait=False, cancel_futures=True)
        super().close()

    @t.validate("step")
    def _known_step(self, proposal: Any) -> int:
        steps = self._first().steps
        if proposal["value"] not in steps:
            raise ChoiceError(f"step {proposal['value']} has no candidates; expected one of {told(steps)}")
        return int(proposal["value"])

    @t.validate("group")
    def _known_group(self, proposal: Any) -> int:
        there = self._first().at(self.step)["group"].tolist()
        # A step of the same message is announced after this: its groups are then looked at there.
        if proposal["value"] not in there and (self._at is None or self._at[0] == self.step):
            raise ChoiceError(f"group {proposal['value']} is not in step {self.step}; expected one of {told(there)}")
        return int(proposal["value"])

    @t.validate("colouring", "sketch_colouring", "sort")
    def _known_word(self, proposal: Any) -> str:
        name = proposal["trait"].name
        words = {"colouring": COLOURINGS, "sketch_colouring": clustering.COLOURINGS, "sort": payload.SORTS}[name]
        if proposal["value"] not in words:
            raise ChoiceError(f"{name} {short(proposal['value'])}; {suggest(proposal['value'], list(words))}")
        return str(proposal["value"])

    @t.validate("filter")
    def _known_filter(self, proposal: Any) -> dict[str, Any]:
        try:
            return payload.check_filter(proposal["value"])
        except InputError as error:
            raise ChoiceError(str(error)) from error

    @t.validate("candidates")
    def _known_candidates(self, proposal: Any) -> list[int]:
        value = list(proposal["value"])
        sizes = [side.shown.rollouts.num_rows if side.shown is not None else 0 for side in self._sides]
        if len(value) != len(sizes) or not all(-1 <= place < size for place, size in zip(value, sizes, strict=True)):
            raise ChoiceError(f"candidates {value}: expected one index a run, -1 (none) or below {sizes}")
        return value

    @t.observe("step", "group")
    def _moved(self, change: Any) -> None:
        if self._at is None or (self.step, self.group) == self._at:
            return
        there = self._first().at(self.step)["group"].tolist()
        self._open(self.step, self.group if self.group in there else int(there[0]))

    @t.observe("filter", "sort")
    def _sifted(self, change: Any) -> None:
        if self._at is not None:
            with self._one_message():
                self._sift(self.candidates)

    @t.observe("candidates")
    def _chosen(self, change: Any) -> None:
        if self._at is not None:
            with self._one_message():
                self._look()

    @t.observe("sketch_colouring")
    def _recoloured(self, change: Any) -> None:
        if self._at is not None:
            self._cluster()

    @contextmanager
    def _one_message(self) -> Iterator[None]:
        """What the body sets goes to the page at once; a replay that is done meanwhile waits."""
        with self._sending, self.hold_sync():
            yield

    def _first(self) -> Groups:
        return self._sides[0].groups

    def _open(self, step: int, group: int) -> None:
        """Read one group of each run and send it in one message: whatever was shown before is replaced."""
        there = self._first().at(step)
        task = int(there.loc[there["group"] == group, "task"].iloc[0])
        for side in self._sides:
            found = group if side is self._sides[0] else side.groups.group_of(step, task)
            side.show(step, found)
        kept = self.candidates if self._at == (step, group) else [-1] * len(self._sides)
        self._at = (step, group)
        self._sides[-1].compare(self._sides[0])
        with self._one_message():
            self.steps = self._first().steps
            with self.hold_trait_notifications():  # else the new step is announced with the old group
                self.step, self.group = step, group
            self.groups = [_group(row) for row in there.to_dict("records")]
            self.sides = [_header(side, step, task) for side in self._sides]
            self._sift(kept, anew=True)
            self._cluster()

    def _sift(self, kept: list[int], anew: bool = False) -> None:
        """List what passes the filter; of ``kept`` what is listed is chosen, else the first. ``anew``: rows were read."""
        wanted = payload.check_filter(self.filter)
        self.listed = [
            [] if side.shown is None else payload.passing(side.shown, side.listed, wanted, self.sort)
            for side in self._sides
        ]
        chosen = [old if old in there else (there or [-1])[0] for old, there in zip(kept, self.listed, strict=True)]
        if chosen != self.candidates:
            self.candidates = chosen  # which looks, by its observer
        elif anew:
            self._look()

    def _look(self) -> None:
        """Send the chosen candidates' first pages now, and their replays when they are drawn."""
        self.details = [
            {} if side.shown is None or place < 0 else payload.detail(side.shown, place, side.speller)
            for side, place in zip(self._sides, self.candidates, strict=True)
        ]
        if self._drawing is not None:
            self._drawing.cancel()
        rows = [
            None if side.shown is None or place < 0 else side.shown.row(place)
            for side, place in zip(self._sides, self.candidates, strict=True)
        ]
        self._drawing = self._artist.submit(self._draw, self._key(), rows)

    def _key(self) -> tuple[Any, ...]:
        return (self._at, tuple(self.candidates))

    def _draw(self, key: tuple[Any, ...], rows: list[dict[str, Any] | None]) -> None:
        """In a thread: a task far down the list of an environment may take seconds to make."""
        drawn: list[dict[str, Any]] = []
        try:
            for side, row in zip(self._sides, rows, strict=True):
                place = {} if row is None else {name: row[name] for name in ("step", "group", "index")}
                drawn.append(place)
                place |= {} if row is None else side.stage.replay(row)
        except Exception as error:  # a bug of ours: told in the page too, since nobody sees this thread's
            drawn[-1] |= {"frames": [], "note": f"the replay failed: {type(error).__name__}: {first_line(error)}"}
            raise
        finally:
            with self._sending:
                if key == self._key():
                    self.replays = drawn + [{}] * (len(rows) - len(drawn))

    def _cluster(self) -> None:
        """Where sketches are coloured by cluster, send the labels of those shown when they are found."""
        if self._clustering is not None:
            self._clustering.cancel()
        if self.sketch_colouring == "cluster":
            texts = [[] if side.shown is None else side.shown.sketches["text"].to_pylist() for side in self._sides]
            self._clustering = self._sorter.submit(self._label, (self.step, self.group), texts)

    def _label(self, at: tuple[int, int], texts: list[list[str]]) -> None:
        """In a thread: an embedding model may have to be loaded first, which takes seconds."""
        found: list[dict[str, Any]] = []
        note = ""
        try:
            found += [{"labels": clustering.labels(self._clusters, own)} for own in texts]
        except InputError as error:
            note = first_line(error)
        except (
            Exception
        ) as error:  # of whoever was handed in, or a bug: told in the page, since nobody sees this thread's
            note = f"clusters failed: {type(error).__name__}: {first_line(error)}"
            raise
        finally:
            with self._sending:
                if at == self._at:
                    place = {"step": at[0], "group": at[1], "note": note}
                    self.clustered = [place | one for one in found or [{"labels": []}] * len(texts)]

    def _asked(self, _: Any, content: Mapping[str, Any], buffers: Any) -> None:
        """A message of the page: ``{"kind", "side", ...}``; what cannot be answered any more is left unanswered."""
        if content.get("kind") == "reload":
            self.send({"kind": "reload", "said": self._reload()})
            return
        answer = _ANSWERS.get(content.get("kind", ""))
        number = content.get("side")
        if answer is None or not isinstance(number, int) or not 0 <= number < len(self._sides):
            return
        side, place = self._sides[number], self.candidates[number]
        if (side.shown is None or place < 0) and answer is not _expand:  # which the page waits for
            return
        head = {"kind": content["kind"], "side": number, "candidate": place}
        said = answer(side, place, content)
        if isinstance(said, dict):
            self.send(head | said)
        else:
            self._expanding = self._helper.submit(self._work, head | said.head, said.work)

    def _reload(self) -> str:
        """``refresh``, and what came of it in a few words."""
        before, shown = self.steps, self.step
        try:
            self.refresh()
        except InputError as error:
            return first_line(error)
        new = len(set(self.steps) - set(before))
        said = f"{new} new step{'s' * (new != 1)}" if new else "no new step"
        return said if shown in self.steps else f"step {shown} is gone; {said}"

    def _work(self, head: Mapping[str, Any], work: Callable[[], dict[str, Any]]) -> None:
        """In a thread: a policy answers, which may take minutes."""
        said: dict[str, Any] = {}
        try:
            said = work()
        except Exception as error:  # also of a model, or a bug: told in the page, since nobody sees this thread's
            said = {"error": expansion.failure(error)}
            if not isinstance(error, InputError):
                raise
        finally:
            with self._sending:
                self.send({**head, **said})


@dataclass(frozen=True)
class _Later:
    """An answer that takes long: ``head`` says what it is about, and ``work`` makes the rest in a thread."""

    head: dict[str, Any]
    work: Callable[[], dict[str, Any]]


def _more(side: Side, place: int, content: Mapping[str, Any]) -> dict[str, Any]:
    """The next page of a text or of tokens."""
    assert side.shown is not None
    start = max(0, int(content["start"]))
    if content["what"] == "text":
        return {"what": "text", "page": payload.text_page(side.shown, place, start)}
    return {"what": "tokens", "page": payload.token_page(side.shown, place, start, side.speller)}


def _copy(side: Side, place: int, content: Mapping[str, Any]) -> dict[str, Any]:
    """All that is stored of the candidate."""
    assert side.shown is not None
    return {"text": payload.whole(side.shown, place, side.run.label)}


def _expand(side: Side, place: int, content: Mapping[str, Any]) -> dict[str, Any] | _Later:
    """Solutions of an edited sketch, or why there are none; about the candidate that the page showed when it asked."""
    head = {name: content.get(name) for name in ("step", "group", "candidate")}
    try:
        if side.expander is None:
            raise InputError("there is nobody to expand it; open the inspector with expander=...")
        shown = side.shown
        if shown is None or place < 0 or head != {"step": shown.step, "group": shown.group, "candidate": place}:
            raise InputError("another candidate was chosen meanwhile; choose this one and expand it again")
        return _Later(head, expansion.job(side.expander, shown.row(place), content))
    except InputError as error:
        return head | {"error": expansion.failure(error)}


# What the page may ask for by message: a function here, and a button in inspector.js.
_ANSWERS: dict[str, Callable[[Side, int, Mapping[str, Any]], dict[str, Any] | _Later]] = {
    "more": _more,
    "copy": _copy,
    "expand": _expand,
}


def _header(side: Side, step: int, task: int) -> dict[str, Any]:
    """What is shown of a run: its name, and its group or why there is none."""
    head = {"run": side.run.label, "environment": side.run.config.environment.name, **side.listed}
    head["sampler"] = side.run.config.sampler.name
    head["tokens_note"] = "" if side.speller is not None else NO_TOKENIZER
    head["expands"] = 0 if side.expander is None else expansion.MOST  # how many solutions may be asked for
    head["correction"] = side.run.config_at(step).update.correction
    head["missing"] = "" if side.listed else f"this run has no group with task {task} at step {step}"
    return head


def _group(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: int(row[name]) for name in ("group", "task", "candidates", "solved")}
