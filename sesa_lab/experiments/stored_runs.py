"""Run folders in a storage that fsspec reaches (``s3://``, ``gs://``, ``file://`` ...), safe against being killed midway.

A copy is whole or it is not there. Data files come first; ``STORED.json``, which names each with its size and sha256, comes
last, under another name, and is moved to its own in one go. No file that the present ``STORED.json`` names is ever written
over: what grew (metrics.jsonl) lies under a second name until the next one names it, and what nothing names is removed
after that. Reading takes only what is named, and checks it. When a run has ended all its files lie under their own names, so
that the folder in the storage is a run folder for anybody.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from sesa_lab.errors import InputError, first_line, printable, writing
from sesa_lab.runs import checkpoint, layout, schema
from sesa_lab.runs.files import describe, difference

MANIFEST = "STORED.json"
_REMEDY = "restore it from a copy, or remove that folder from the storage to begin the run anew"

Source = Path | bytes
"""A file, or its content."""


@dataclass(frozen=True)
class Entry:
    """A stored file.

    Attributes:
        bytes: its size.
        sha256: of its content.
        at: where it lies, relative to the manifest.
    """

    bytes: int
    sha256: str
    at: str


@dataclass(frozen=True)
class Manifest:
    """What ``STORED.json`` holds.

    Attributes:
        writer: who may write there now: ``host:pid:token``. Whoever claims it later takes over.
        step: of the last checkpoint; None: nothing is stored yet.
        files: by path within the run folder.
    """

    writer: str
    step: int | None
    files: dict[str, Entry]


class Busy(InputError):
    """Another process is at a run.

    Attributes:
        place: where in a storage; None: it is the run folder that is in use.
    """

    def __init__(self, where: object, place: Place | None = None) -> None:
        super().__init__(f"another process is writing {where}; wait for it or end it")
        self.place = place


def absolute(storage: str) -> str:
    """``storage`` as every process understands it: a local path, which depends on the working directory, as ``file://``.

    Raises:
        InputError: fsspec does not know the protocol, or lacks the package for it.
    """
    with _reaching(storage):
        system, path = fsspec.url_to_fs(storage)
        return str(system.unstrip_protocol(path)) if isinstance(system, LocalFileSystem) else storage.rstrip("/")


def committed(folder: Path, step: int | None = None) -> tuple[int, dict[str, Source]] | None:
    """What of a run folder belongs to its last checkpoint: its step, and path -> source; None where there is no checkpoint.

    Left out are the lock, half-written files and whatever lies beyond the checkpoint; metrics.jsonl is cut there.

    Args:
        folder: a run folder; while it is read nobody may write to it.
        step: of the one checkpoint that is wanted, with just what is needed to begin another run at it; None: the last, with
            all before it.

    Raises:
        InputError: the checkpoint is damaged, or there is none of that step.
    """
    if step is None:
        newest = checkpoint.newest(folder)
        if newest is None:
            return None
        state = newest[1]
    else:
        state = checkpoint.verified(folder, step)
    own = checkpoint.folder(folder, state.step).relative_to(folder).as_posix()
    found: dict[str, Source] = {}
    for file in sorted(folder.rglob("*")):
        path = file.relative_to(folder)
        half = any(part.startswith(layout.TEMPORARY) for part in path.parts)
        if half or path.name == layout.LOCK or not file.is_file():
            continue
        name = path.as_posix()
        if path.parts[0] in schema.SCHEMAS:
            later = path.name > layout.part(folder, path.parts[0], state.step).name
            wanted = name in state.parts if step is not None else not later
        elif path.parts[0] == layout.CHECKPOINTS:
            wanted = step is None or name.startswith(f"{own}/")
        else:
            wanted = step is None or len(path.parts) == 1
        if wanted:
            found[name] = file
    with open(folder / layout.METRICS, "rb") as lines:
        found[layout.METRICS] = lines.read(state.metrics_bytes)
    return state.step, found


class Place:
    """Where one run, or another folder of files, lies in a storage.

    Attributes:
        url: of the folder.
        writer: who this is, in the manifests that it writes.
    """

    def __init__(self, url: str) -> None:
        """Touches nothing yet.

        Raises:
            InputError: fsspec does not know the protocol, or lacks the package for it.
        """
        self.url = url
        self.writer = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
        with _reaching(url):
            self._system, self._root = fsspec.url_to_fs(url)
        self._alike: set[str] = set()  # paths whose stored content is that of the local folder, known without a look
        self._made: set[str] = set()  # folders that are there

    def read(self) -> Manifest | None:
        """The manifest; None where there is none, or none that names a file: nothing there is to be trusted.

        Raises:
            InputError: it is no manifest, or the storage cannot be reached.
        """
        found = self._manifest()
        return None if found is None or found.step is None else found

    def fetch(self, folder: Path, check: Callable[[Path], None] | None = None) -> Manifest | None:
        """Copy what is stored to the local ``folder``, in place of what is there, when all of it has come and is as named.

        Args:
            folder: its parents are made.
            check: called with the folder that came, before it is put in place; raises where it is not what was wanted.

        Returns:
            The manifest; None, and nothing is done, where nothing is stored.

        Raises:
            InputError: a file that the manifest names is not there or has another content; the storage cannot be reached, or
                ``folder`` not be written. What was in ``folder`` is still there then.
        """
        found = self.read()
        if found is None:
            return None
        coming = folder.with_name(layout.TEMPORARY + folder.name)
        with writing(folder, "mend the folder's permissions or space"):
            shutil.rmtree(coming, ignore_errors=True)
            coming.mkdir(parents=True)
            try:
                for path, entry in found.files.items():
                    self._get(path, entry, coming / path)
                if check is not None:
                    check(coming)
                _replace(coming, folder)
            finally:
                shutil.rmtree(coming, ignore_errors=True)
        self._alike = set(found.files)
        return found

    def claim(self) -> None:
        """From here on this process writes here, and no other: whoever did is refused at its next ``keep``.

        So a worker that was thought dead, and another one took over from, spoils nothing.
        """
        before = self._manifest()
        self._write(Manifest(self.writer, *((before.step, before.files) if before else (None, {}))))

    def keep(self, files: Mapping[str, Source], step: int, *, last: bool = False) -> None:
        """Make ``files`` what is stored; until that is done, what was stored before stays what is stored.

        Args:
            files: path -> source, all of them (``committed``).
            step: of the checkpoint that they belong to.
            last: nothing more will come: every file is brought under its own name.

        Raises:
            Busy: another process has claimed the place since.
            InputError: the manifest was removed, or the storage cannot be reached.
        """
        before = self._claimed()
        taken = {entry.at for entry in before.files.values()}
        entries = {}
        for path, source in sorted(files.items()):
            known = before.files.get(path)
            if known is not None and path in self._alike and _immutable(path):
                entries[path] = known
                continue
            said = _described(source)
            if known is None or (known.bytes, known.sha256) != (said["bytes"], said["sha256"]):
                at = path if path not in taken else f"{path}.{said['sha256'][:16]}"
                self._put(source, at)
                known = Entry(said["bytes"], said["sha256"], at)
            entries[path] = known
        self._claimed()  # still, for that may have taken long
        self._write(Manifest(self.writer, step, entries))
        self._alike = set(entries)
        self._claimed()  # else the manifest may be the former one again: whoever claimed the place had read it before
        self.remove(taken - {entry.at for entry in entries.values()})
        moved = {path for path, entry in entries.items() if entry.at != path}
        if last and moved:
            for path in moved:  # the file of that name is named no more
                self._put(files[path], path)
            own = {path: Entry(entry.bytes, entry.sha256, path) for path, entry in entries.items()}
            self._write(Manifest(self.writer, step, own))
            self.remove({entries[path].at for path in moved})

    def content(self, name: str) -> bytes | None:
        """Of one file; None where it is not there."""
        with _reaching(self.url):
            try:
                return bytes(self._system.cat_file(self._at(name)))
            except FileNotFoundError:
                return None

    def move_in(self, text: str, name: str) -> None:
        """Make ``text`` what the file ``name`` holds, in one go."""
        half = f".tmp-{name}.{self.writer.rpartition(':')[2]}"
        self._put(text.encode(), half)
        with _reaching(self.url):  # a rename, or of an object store a copy: both all or nothing
            self._system.mv(self._at(half), self._at(name))

    def remove(self, names: Iterable[str]) -> None:
        """These files; those that are not there are passed over."""
        with _reaching(self.url):
            for name in sorted(names):
                with contextlib.suppress(FileNotFoundError):
                    self._system.rm_file(self._at(name))

    def _claimed(self) -> Manifest:
        """The manifest, which names this process as its writer."""
        found = self._manifest()
        if found is None:
            raise InputError(
                f"this process no longer writes {self.url}: its {MANIFEST} was removed; run the same command again to begin anew"
            )
        if found.writer != self.writer:
            raise Busy(self.url, self)
        return found

    def _manifest(self) -> Manifest | None:
        content = self.content(MANIFEST)
        return None if content is None else _parsed(content, f"{self.url}/{MANIFEST}")

    def _write(self, manifest: Manifest) -> None:
        self.move_in(json.dumps(asdict(manifest), indent=1) + "\n", MANIFEST)

    def _get(self, path: str, entry: Entry, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _reaching(self.url):
            try:
                self._system.get_file(self._at(entry.at), str(target))
            except FileNotFoundError:
                target.unlink(missing_ok=True)
        if difference(target, {"bytes": entry.bytes, "sha256": entry.sha256}):
            wrong = "has another content than was stored" if target.is_file() else "is not there"
            raise InputError(f"{self.url} is damaged: its file {printable(entry.at)} {wrong}; {_REMEDY}")

    def _put(self, source: Source, at: str) -> None:
        target = self._at(at)
        parent = target.rpartition("/")[0]
        with _reaching(self.url):
            if parent not in self._made:
                self._system.makedirs(parent, exist_ok=True)
                self._made.add(parent)
            if isinstance(source, bytes):
                self._system.pipe_file(target, source)
            else:
                self._system.put_file(str(source), target)

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"


def _immutable(path: str) -> bool:
    """What a run writes once and in one go: files of checkpoints, and parquet parts."""
    return path.startswith(f"{layout.CHECKPOINTS}/") or path.partition("/")[0] in schema.SCHEMAS


def _described(source: Source) -> dict[str, Any]:
    if isinstance(source, bytes):
        return {"bytes": len(source), "sha256": hashlib.sha256(source).hexdigest()}
    return describe(source)


def _replace(coming: Path, folder: Path) -> None:
    """``coming`` becomes ``folder``; what was there goes when that is done."""
    old = folder.with_name(f"{layout.TEMPORARY}old-{folder.name}")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    try:
        os.rename(coming, folder)
    except OSError:
        if old.exists():
            os.rename(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _parsed(content: bytes, where: str) -> Manifest:
    try:
        data = json.loads(content)
        files = {path: Entry(**entry) for path, entry in data.pop("files").items()}
        found = Manifest(**data, files=files)
        typed = isinstance(found.writer, str) and (found.step is None or isinstance(found.step, int))
        if typed and all(_inside(path) and _sound(entry) for path, entry in files.items()):
            return found
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise InputError(f"{where} is no list of stored files (writer, step, files: bytes, sha256, at); {_REMEDY}")


def _sound(entry: Entry) -> bool:
    return isinstance(entry.bytes, int) and isinstance(entry.sha256, str) and _inside(entry.at)


def _inside(path: object) -> bool:
    """Whether ``path`` is that of a file below a folder: a storage is others' to write, too."""
    if not isinstance(path, str) or not path or "\\" in path or "\0" in path:
        return False
    parts = PurePosixPath(path).parts
    return bool(parts) and parts[0] != "/" and ".." not in parts and parts != (MANIFEST,)


@contextlib.contextmanager
def _reaching(url: str) -> Iterator[None]:
    """Turns whatever a storage's library raises into one ``InputError`` that names the storage."""
    try:
        yield
    except Exception as error:  # each library has exceptions of its own
        raise InputError(
            f"storage {url}: {type(error).__name__}: {first_line(error)}; check the address, the rights to it, and that the"
            " package for its protocol is installed (s3fs, gcsfs, adlfs ...)"
        ) from error
