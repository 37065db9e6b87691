"""What the browser gets: one group as plain JSON, its long texts in pages. Model text is data here, and never markup."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sesa_lab.errors import InputError, short, suggest
from sesa_lab.runs.browse import Groups
from sesa_lab.widgets.tokens import Speller

EXCERPT = 240
"""Letters of an answer or a sketch in the list."""
PROMPT = 6_000
"""Letters of the task that are shown."""
TEXT = 20_000
"""Letters a page of a whole text."""
TOKENS = 2_000
"""Tokens a page."""
SKETCH = 4_000
"""Letters of a sketch that may be edited, and of an edited one."""
SORTS = ("drafting", "reward", "credited", "advantage", "logprob", "length", "strategy")
OUTCOMES = ("all", "solved", "failed", "unreadable")
NO_FILTER: dict[str, Any] = {"text": "", "strategy": None, "outcome": "all", "low": None, "high": None}


@dataclass(frozen=True, eq=False)
class Shown:
    """The rows of one group, as ``runs.browse`` read them."""

    step: int
    group: int
    rollouts: pa.Table
    sketches: pa.Table

    @classmethod
    def read(cls, groups: Groups, step: int, group: int) -> Shown:
        """Only this group's rows are read."""
        return cls(step, group, groups.rollouts(step, group), groups.sketches(step, group))

    def row(self, place: int) -> dict[str, Any]:
        """All columns of the candidate at ``place`` (its ``index``)."""
        found: dict[str, Any] = self.rollouts.slice(place, 1).to_pylist()[0]
        return found


def excerpt(text: str, most: int, name: str = "text") -> dict[str, Any]:
    """``{name: its first letters, "chars": letters in all, "cut": whether there are more}``.

    Letters are code points, as Python counts them. JavaScript counts UTF-16 units: it is told what it would have to count.
    """
    return {name: text[:most], "chars": len(text), "cut": len(text) > most}


def summary(shown: Shown) -> dict[str, Any]:
    """The group as the list shows it: task, strategies by first appearance, sketches in drafting order, candidates.

    A strategy is told by its number in ``strategies``. Of a sketch, ``repeats`` is the run's own flag and ``of`` the first
    sketch with the same words; ``novelty`` is about the strategies of its own solutions: ``new`` (no solution of an earlier
    sketch has one of them), ``known``, ``unreadable``, or ``unused`` (nobody expands it). Of a candidate, ``of`` is the
    first candidate of the group with its strategy, where that is another; ``weight`` is the factor that the correction applied,
    and ``ratio`` the importance ratio p/q itself (see ``ratio``).
    """
    candidates = _candidates(shown)
    names: dict[str, int] = {}
    for row in sorted(candidates, key=lambda row: (row["sketch"] is None, row["sketch"] or 0, row["index"])):
        if row["strategy"] is not None:
            row["strategy"] = names.setdefault(row["strategy"], len(names))
    first: dict[int, int] = {}
    for row in candidates:
        if row["strategy"] is not None:
            earlier = first.setdefault(row["strategy"], row["index"])
            row["of"] = None if earlier == row["index"] else earlier
    prompt = shown.rollouts["prompt"][0].as_py() or ""
    return {
        "step": shown.step,
        "group": shown.group,
        "task": shown.rollouts["task"][0].as_py(),
        "prompt": excerpt(prompt, PROMPT),
        "strategies": [name[:EXCERPT] for name in names],
        "sketches": _sketches(shown, candidates),
        "candidates": candidates,
    }


def _candidates(shown: Shown) -> list[dict[str, Any]]:
    kept = ["index", "strategy", "success", "reward", "credited", "advantage", "weight", "finish", "redraws"]
    kept += ["sampled_tokens", "drawn_under", "trained_under", "sketches", "completion", "turns", "history"]
    drawn, old = (_vectors(shown.rollouts[name]) for name in ("drawn_logprobs", "old_logprobs"))
    sums = _sums(shown.rollouts["drawn_logprobs"])
    lengths = [len(ids) for ids in _vectors(shown.rollouts["token_ids"])]
    rows = []
    for place, row in enumerate(shown.rollouts.select(kept).to_pylist()):
        text, followed = row.pop("completion") or "", row.pop("sketches") or []
        rows.append(
            {name: finite(value) for name, value in row.items()}
            | {
                "sketch": followed[0] if followed else None,
                "later": followed[1:],
                "of": None,
                "turns": len(row["turns"] or []),
                "history": len(row["history"] or []),
                "tokens": lengths[place],
                "logprob": finite(sums[place]),
                **ratio(row["drawn_under"], row["trained_under"], drawn[place], old[place]),
                **excerpt(text, EXCERPT),
            }
        )
    return rows


def ratio(drawn_under: str | None, trained_under: str | None, drawn: Any, old: Any) -> dict[str, float | None]:
    """p/q of a whole completion: p under its first training context, q under the drawing one, policy when drawn.

    Where the two contexts are one, p = q by construction: 1, as the update has it, whatever rounding says.

    Args:
        drawn_under, trained_under: kinds of context, as in the table of rollouts; None in runs that lack them.
        drawn, old: log-probs, one a token.

    Returns:
        ``log_ratio`` (nats) and ``ratio``; None where a log-prob a token is not stored, and where it is beyond all numbers.
    """
    if drawn_under == (trained_under or "").partition("+")[0]:
        return {"log_ratio": 0.0, "ratio": 1.0}
    if len(drawn) != len(old) or not len(old):
        return {"log_ratio": None, "ratio": None}
    log = float(np.sum(old - drawn))
    return {"log_ratio": finite(log), "ratio": math.exp(log) if log < 700.0 else None}


def _sketches(shown: Shown, candidates: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    kept = ["index", "text", "finish", "repeats", "redraws", "sampled_tokens", "reward", "advantage"]
    rows = shown.sketches.select(kept).to_pylist()
    sums, lengths = _sums(shown.sketches["logprobs"]), [len(ids) for ids in _vectors(shown.sketches["token_ids"])]
    words: dict[str, int] = {}
    seen: set[int] = set()
    found = []
    for place, row in enumerate(rows):
        own = [one for one in candidates if one["sketch"] == row["index"]]
        reached = [one["strategy"] for one in own if one["strategy"] is not None]
        unread = "unreadable" if own else "unused"
        text = row.pop("text")
        earlier = words.setdefault(_plain(text), row["index"])
        found.append(
            {name: finite(value) for name, value in row.items()}
            | {
                **excerpt(text, 2 * EXCERPT),
                "of": None if earlier == row["index"] else earlier,
                "novelty": ("known" if seen.issuperset(reached) else "new") if reached else unread,
                "strategy": Counter(reached).most_common(1)[0][0] if reached else None,
                "tokens": lengths[place],
                "logprob": finite(sums[place]),
            }
        )
        seen.update(reached)
    return found


def check_filter(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """``wanted`` over the defaults of ``NO_FILTER``.

    Raises:
        InputError: an unknown key or outcome, or a bound that is no number.
    """
    for key in wanted:
        if key not in NO_FILTER:
            raise InputError(f"filter has an unknown key {key!r}; {suggest(str(key), list(NO_FILTER))}")
    filled = {**NO_FILTER, **wanted}
    if filled["outcome"] not in OUTCOMES:
        raise InputError(
            f"filter: outcome {short(filled['outcome'])}; {suggest(str(filled['outcome']), list(OUTCOMES))}"
        )
    for key in ("low", "high"):
        value = filled[key]
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise InputError(f"filter: {key} = {short(value)}, expected a reward or None: no bound")
    return filled


def passing(shown: Shown, listed: Mapping[str, Any], wanted: Mapping[str, Any], sort: str) -> list[int]:
    """Indices of the candidates that pass the filter, in the order asked for.

    Args:
        shown: whole texts are searched, not excerpts.
        listed: its ``summary``.
        wanted: ``text`` (in completion, sketch or strategy; case aside), ``strategy`` (its name; None: any), ``outcome``
            (one of ``OUTCOMES``), ``low`` and ``high`` (bounds of the reward, inclusive; None: none).
        sort: one of ``SORTS``; numbers from high to low, undefined ones last; ``drafting`` is by sketch, then as drawn.
    """
    needle = str(wanted["text"]).casefold()
    kept = [row for row in listed["candidates"] if _passes(row, listed, wanted)]
    if needle:
        columns = shown.rollouts.select(["completion", "sketch", "strategy"]).to_pylist()
        kept = [
            row for row in kept if any(needle in (text or "").casefold() for text in columns[row["index"]].values())
        ]
    return [row["index"] for row in sorted(kept, key=_key(sort))]


def _passes(row: Mapping[str, Any], listed: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    if wanted["strategy"] is not None:
        name = None if row["strategy"] is None else listed["strategies"][row["strategy"]]
        if name != str(wanted["strategy"])[:EXCERPT]:
            return False
    outcome = wanted["outcome"]
    if outcome == "unreadable" and row["strategy"] is not None:
        return False
    if outcome in ("solved", "failed") and bool(row["success"]) != (outcome == "solved"):
        return False
    if wanted["low"] is None and wanted["high"] is None:
        return True
    low = -math.inf if wanted["low"] is None else wanted["low"]
    high = math.inf if wanted["high"] is None else wanted["high"]
    return row["reward"] is not None and low <= row["reward"] <= high


def _key(sort: str) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    if sort == "drafting":
        return lambda row: (row["sketch"] is None, row["sketch"] or 0, row["index"])
    if sort == "strategy":
        return lambda row: (row["strategy"] is None, row["strategy"] or 0, row["index"])
    name = "tokens" if sort == "length" else sort
    return lambda row: (row[name] is None, -(row[name] or 0.0), row["index"])


def detail(shown: Shown, index: int, speller: Speller | None) -> dict[str, Any]:
    """The first pages of one candidate: its text, its tokens with their log-probs, and the sketch it follows."""
    sketch = shown.rollouts["sketch"][index].as_py() or ""
    return {
        "candidate": index,
        "text": text_page(shown, index, 0),
        "tokens": token_page(shown, index, 0, speller),
        "sketch": {"text": sketch[:SKETCH], "end": min(len(sketch), SKETCH), "total": len(sketch)},
    }


def text_page(shown: Shown, index: int, start: int) -> dict[str, Any]:
    """``TEXT`` letters of the completion from ``start`` on, where these end, and how many it has. All count code points."""
    text = shown.rollouts["completion"][index].as_py() or ""
    said = text[start : start + TEXT]
    return {"start": start, "end": start + len(said), "text": said, "total": len(text)}


def token_page(shown: Shown, index: int, start: int, speller: Speller | None) -> dict[str, Any]:
    """``TOKENS`` tokens from ``start`` on.

    Returns:
        ``pieces`` (None: no tokenizer, or not the one that made this text), ``ids``, ``drawn`` and ``trained`` (log-probs,
        nats, policy when drawn, under the drawing and the first training context; None where the run has none), ``entropies``
        (of the latter's distributions, nats; None in runs made before they were kept), ``turns`` (places where a turn begins),
        ``end`` (the token after the last of the page) and ``total``.
    """
    stored = ("token_ids", "drawn_logprobs", "old_logprobs", "old_entropies")
    row = {name: _vectors(shown.rollouts[name])[index] for name in stored}
    ids = row["token_ids"].tolist()
    total, end = len(ids), start + TOKENS
    lengths = (shown.rollouts["turn_tokens"][index].as_py() or [])[:-1]
    fits = speller is not None and speller.fits(ids[: (lengths or [total])[0]], _first_turn(shown, index))
    return {
        "start": start,
        "end": max(start, min(end, total)),
        "total": total,
        "ids": ids[start:end],
        "pieces": speller.pieces(ids)[start:end] if speller is not None and fits else None,
        "drawn": _rounded(row["drawn_logprobs"], total, start, end),
        "trained": _rounded(row["old_logprobs"], total, start, end),
        "entropies": _rounded(row["old_entropies"], total, start, end),
        "turns": [int(place) for place in np.cumsum(lengths)],
    }


def whole(shown: Shown, index: int, run: str) -> str:
    """Everything stored of one candidate as JSON a person can read, with its sketches."""
    row = shown.row(index)
    followed = [one for one in shown.sketches.to_pylist() if one["index"] in (row["sketches"] or [])]
    return json.dumps(_finite({"run": run, **row, "followed_sketches": followed}), indent=1, ensure_ascii=False)


def _first_turn(shown: Shown, index: int) -> str:
    turns = shown.rollouts["turns"][index]
    return str(turns[0]) if turns.is_valid and len(turns) else str(shown.rollouts["completion"][index])


def _rounded(values: Any, total: int, start: int, end: int) -> list[float | None] | None:
    """Four decimals, which is more than a colour or a hover shows; None where there is not one a token."""
    if len(values) != total:
        return None
    return [finite(value) for value in np.round(values[start:end], 4).tolist()]


def _vectors(column: pa.ChunkedArray) -> list[Any]:
    """One numpy vector a row; an older run's null is empty."""
    return [np.empty(0) if not cell.is_valid else cell.values.to_numpy(zero_copy_only=False) for cell in column]


def _sums(column: pa.ChunkedArray) -> list[float | None]:
    return [float(vector.sum()) if len(vector) else None for vector in _vectors(column)]


def finite(value: Any) -> Any:
    """``value``; of NaN and infinities, which are no JSON, None."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else finite(value)


def _plain(text: str) -> str:
    """What makes two sketches the same: case and white space aside, as when they were drawn."""
    return " ".join(text.split()).casefold()
