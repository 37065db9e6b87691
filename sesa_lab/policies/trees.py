"""Several documents of one task in one row: what they have in common is computed once.

A row is a stem, the longest beginning that all its documents share, and one branch a document. A token sees the stem and its
own branch up to itself; branches begin at the same position. So every prediction is the one that the document alone would
get, at a fraction of the work.

Shape legend: R rows, T longest row, N trained tokens, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from sesa_lab.policies.documents import Document

PART = 1024  # tokens of a forward pass, padding included; larger ones leave the cache and pad more: 30 % slower at 4096


@dataclass(frozen=True)
class Trees:
    """Rows of documents, padded.

    Attributes:
        ids: (R, T) token ids, 0 in the padding.
        positions: (R, T) position of each token in its own document.
        sees: (R, 1, T, T) bool, [r, 0, q, k] whether token q sees token k. Padding sees itself only.
        row: (N,) row of each trained token.
        source: (N,) column of the token that it is predicted from.
        target: (N,) its id.
        tokens: R x T less the padding.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    sees: torch.Tensor
    row: torch.Tensor
    source: torch.Tensor
    target: torch.Tensor
    tokens: int


@dataclass
class _Row:
    ids: list[int]
    positions: list[int]
    branch: list[int]  # 0: the stem
    source: list[int]
    target: list[int]


def _row(documents: Sequence[Document]) -> _Row:
    stem = _stem(documents)
    first = documents[0]
    row = _Row(list(first.ids[:stem]), list(range(stem)), [0] * stem, [], [])
    for number, document in enumerate(documents, 1):
        begin = len(row.ids)
        for place in range(stem, len(document.ids)):
            if document.said[place]:
                row.source.append(stem - 1 if place == stem else begin + place - stem - 1)
                row.target.append(document.ids[place])
        row.ids += document.ids[stem:]
        row.positions += range(stem, len(document.ids))
        row.branch += [number] * (len(document.ids) - stem)
    return row


def _stem(documents: Sequence[Document]) -> int:
    """How many first tokens all documents share before any of them says something."""
    least = min(document.said.index(True) for document in documents)
    first, last = (order(document.ids for document in documents) for order in (min, max))  # they differ first
    return next((place for place in range(least) if first[place] != last[place]), least)


def pack_trees(rows: Sequence[Sequence[Document]], part: int = PART) -> list[Trees]:
    """One tree a non-empty row of documents, in parts of rows of about equal length.

    Args:
        rows: documents that go into one row each; best of one task.
        part: tokens of a part, padding included; a longer row is a part of its own.
    """
    made = sorted((_row(documents) for documents in rows if documents), key=lambda row: len(row.ids))
    if not made:
        return []
    cuts = [0]
    for place, row in enumerate(made):
        if (place + 1 - cuts[-1]) * len(row.ids) > part and place > cuts[-1]:
            cuts.append(place)
    return [_padded(made[begin:end]) for begin, end in pairwise([*cuts, len(made)])]


def _padded(rows: Sequence[_Row]) -> Trees:
    width = max(len(row.ids) for row in rows)
    branch = _matrix([row.branch for row in rows], width, -1)  # (R, T)
    same = branch[:, :, None] == branch[:, None, :]
    before = torch.ones(width, width, dtype=torch.bool).tril()
    stem = (branch == 0)[:, None, :] & (branch >= 0)[:, :, None]
    sees = (same & (branch >= 0)[:, :, None] | stem) & before | torch.eye(width, dtype=torch.bool)
    return Trees(
        ids=_matrix([row.ids for row in rows], width, 0),
        positions=_matrix([row.positions for row in rows], width, 0),
        sees=sees[:, None],
        row=torch.tensor([r for r, row in enumerate(rows) for _ in row.target]),
        source=torch.tensor([column for row in rows for column in row.source]),
        target=torch.tensor([token for row in rows for token in row.target]),
        tokens=sum(len(row.ids) for row in rows),
    )


def _matrix(rows: Sequence[Sequence[int]], width: int, fill: int) -> torch.Tensor:
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])


def nll(model: Any, trees: Trees) -> torch.Tensor:
    """Summed negative log-prob of the trained tokens, nats; a scalar with gradient.

    Args:
        model: a ``transformers`` causal language model with full attention.
        trees: documents.
    """
    hidden = model.model(
        input_ids=trees.ids, position_ids=trees.positions, attention_mask=trees.sees, use_cache=False
    ).last_hidden_state  # (R, T, H)
    logits = model.lm_head(hidden[trees.row, trees.source])  # (N, V)
    return torch.nn.functional.cross_entropy(logits, trees.target, reduction="sum")
