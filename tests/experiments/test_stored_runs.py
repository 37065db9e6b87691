"""Run folders in a storage: whole or not there, whatever was killed in between; nothing is believed that is not named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from sesa_lab import runs
from sesa_lab.config import Config
from sesa_lab.errors import InputError
from sesa_lab.experiments.stored_runs import MANIFEST, Busy, Manifest, Place, absolute, committed
from sesa_lab.runs import layout
from sesa_lab.runs.lineage import find

CONFIG = Config.build(run={"steps": 3})


def save(step: int) -> Callable[[Path], None]:
    def put(folder: Path) -> None:
        (folder / "adapter_model.safetensors").write_bytes(b"weights %d" % step)

    return put


@pytest.fixture(autouse=True)
def _quickly(quick_runs: None) -> None:
    pass


def begun(path: Path) -> runs.RunWriter:
    """A run with checkpoints of steps 0 and 1, and a line beyond them."""
    writer = runs.RunWriter.create(path, CONFIG, {"lab/answer.txt": "?"})
    for step in (0, 1):
        advance(writer, step)
    writer.log("step", 2, {"reward": 9.0})
    return writer


def advance(writer: runs.RunWriter, step: int) -> None:
    if step:
        writer.log("step", step, {"reward": step / 2})
    writer.log("evaluation", step, {"coverage": float(step)})
    writer.add_evaluation([{"step": step, "task": 0, "strategy": "a", "probability": 0.5, "success": True}])
    writer.commit(step, save(step))


def content(folder: Path) -> dict[str, bytes]:
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != layout.LOCK]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def stored(folder: Path, url: str, *, last: bool = False) -> Place:
    place = Place(url)
    place.claim()
    keep(place, folder, last=last)
    return place


def keep(place: Place, folder: Path, *, last: bool = False) -> None:
    found = committed(folder)
    assert found is not None
    place.keep(found[1], found[0], last=last)


def there(url: str) -> dict[str, bytes]:
    system, root = fsspec.url_to_fs(url)
    return {path.removeprefix(root).lstrip("/"): system.cat_file(path) for path in system.find(root)}


def named(url: str) -> dict[str, Any]:
    return json.loads(there(url)[MANIFEST])["files"]


def test_what_is_committed_is_cut_at_the_checkpoint(tmp_path: Path) -> None:
    with begun(tmp_path / "run") as writer:
        (tmp_path / "run" / ".tmp-half").write_text("half")
        (tmp_path / "run" / "rollouts" / "step-000002.parquet").write_bytes(b"of a commit that was not finished")
        step, files = committed(writer.path)
    assert step == 1
    assert set(files) == {
        "config.json", "environment.json", "prompts.json", "metrics.jsonl",
        "evaluations/step-000000.parquet", "evaluations/step-000001.parquet",
        *(f"checkpoints/step-00000{n}/{name}" for n in (0, 1) for name in ("adapter_model.safetensors", "state.json")),
    }  # fmt: skip
    # two evaluations and one step; the line of step 2 lies beyond the checkpoint
    assert [json.loads(line)["step"] for line in files["metrics.jsonl"].splitlines()] == [0, 1, 1]


def test_of_one_checkpoint_goes_what_a_run_needs_that_begins_there(tmp_path: Path) -> None:
    with begun(tmp_path / "run"):
        pass
    step, files = committed(tmp_path / "run", 0)
    assert step == 0 and not [path for path in files if "step-000001" in path]
    stored_at = Place(f"file://{tmp_path}/origin")
    stored_at.claim()
    stored_at.keep(files, 0)
    stored_at.fetch(tmp_path / "origin-here")
    assert find(tmp_path / "origin-here", 0, {}).adapter == find(tmp_path / "run", 0, {}).adapter


def test_a_run_without_a_checkpoint_has_nothing_to_store(tmp_path: Path) -> None:
    with runs.RunWriter.create(tmp_path / "run", CONFIG):
        assert committed(tmp_path / "run") is None


def test_what_is_fetched_resumes_and_is_what_was_committed(tmp_path: Path, url: str) -> None:
    with begun(tmp_path / "run") as writer:
        place = stored(writer.path, url)
    assert place.read().step == 1
    manifest = Place(url).fetch(tmp_path / "elsewhere" / "run")
    assert manifest.files.keys() == content(tmp_path / "elsewhere" / "run").keys()
    with runs.RunWriter.resume(tmp_path / "elsewhere" / "run") as resumed:
        assert resumed.step == 1
    assert list(runs.load(tmp_path / "elsewhere" / "run").evaluations["coverage"]) == [0.0, 1.0]


def test_a_place_where_nothing_is_stored_gives_nothing(tmp_path: Path, url: str) -> None:
    assert Place(url).read() is None
    assert Place(url).fetch(tmp_path / "run") is None
    Place(url).claim()
    assert Place(url).read() is None, "somebody is at it, and has not stored anything"
    assert Place(url).fetch(tmp_path / "run") is None and not (tmp_path / "run").exists()


def test_files_without_a_manifest_are_not_believed(tmp_path: Path, url: str) -> None:
    with begun(tmp_path / "run") as writer:
        stored(writer.path, url)
    system, root = fsspec.url_to_fs(url)
    system.rm_file(f"{root}/{MANIFEST}")
    assert len(there(url)) > 5
    assert Place(url).fetch(tmp_path / "again") is None


class Killed(BaseException):
    """What ends a process between two of its calls."""


def test_killed_at_any_moment_of_storing_what_was_stored_before_is_still_there(tmp_path: Path, url: str) -> None:
    """Every call that changes the storage is, in turn, the last one; the file of that call is left torn."""
    with begun(tmp_path / "early"):
        pass
    shutil.copytree(tmp_path / "early", tmp_path / "late")
    with runs.RunWriter.resume(tmp_path / "late") as writer:  # another environment.json, and metrics.jsonl grows
        advance(writer, 2)
    early, late = committed(tmp_path / "early"), committed(tmp_path / "late")
    assert early is not None and late is not None
    steps, calls = [], 0
    while True:
        system, root = fsspec.url_to_fs(url)
        if system.exists(root):
            system.rm(root, recursive=True)
        place = Place(url)
        place.claim()
        place.keep(early[1], 1)
        try:
            with pytest.MonkeyPatch.context() as patch:
                dying(patch, place, calls)
                place.keep(late[1], 2, last=True)
            break
        except Killed:
            calls += 1
            steps.append(Place(url).fetch(tmp_path / "fetched").step)
            assert content(tmp_path / "fetched") == read({1: early, 2: late}[steps[-1]][1])
    # put: parquet, two of the checkpoint, metrics, environment, the manifest, which is moved; what nothing names is removed;
    # two are brought under their own names, the manifest, moved, and two are removed
    assert len(steps) == 7 + 2 + 2 + 2 + 2
    assert steps == [1] * 7 + [2] * 8
    assert there(url).keys() == {*late[1], MANIFEST}, "its own names, and nothing else is left"
    assert all(entry["at"] == path for path, entry in named(url).items())


def read(files: dict[str, Any]) -> dict[str, bytes]:
    return {path: source if isinstance(source, bytes) else source.read_bytes() for path, source in files.items()}


def dying(patch: pytest.MonkeyPatch, place: Place, calls: int) -> None:
    """``place`` has ``calls`` more calls that change the storage; the next one leaves half of its file."""
    system, left = place._system, [calls]

    def counted(name: str) -> None:
        real = getattr(system, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if not left[0]:
                if name in ("put_file", "pipe_file"):
                    whole = arguments[1] if name == "pipe_file" else Path(arguments[0]).read_bytes()
                    target = arguments[0] if name == "pipe_file" else arguments[1]
                    with system.open(target, "wb") as file:
                        file.write(whole[: len(whole) // 2])
                raise Killed
            inside, left[0] = left[0] - 1, 10**6  # what the call calls in turn is not counted
            try:
                return real(*arguments, **options)
            finally:
                left[0] = inside

        patch.setattr(system, name, call)

    for name in ("put_file", "pipe_file", "mv", "rm_file"):
        counted(name)


@pytest.mark.parametrize("harm", ["missing", "torn", "changed"])
def test_a_manifest_that_names_what_is_not_there_is_refused(tmp_path: Path, url: str, harm: str) -> None:
    with begun(tmp_path / "run") as writer:
        stored(writer.path, url)
    system, root = fsspec.url_to_fs(url)
    victim = f"{root}/checkpoints/step-000001/adapter_model.safetensors"
    system.rm_file(victim)
    if harm != "missing":
        system.pipe_file(victim, b"weig" if harm == "torn" else b"weights 2")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "kept").write_text("what was here")
    wrong = "is not there" if harm == "missing" else "has another content"
    with pytest.raises(
        InputError, match=rf"damaged: its file checkpoints/step-000001/adapter.*{wrong}.*begin the run anew"
    ):
        Place(url).fetch(tmp_path / "here")
    assert content(tmp_path / "here") == {"kept": b"what was here"}
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"writer": "a", "step": 1}',
        '{"writer": "a", "step": "1", "files": {}}',
        '{"writer": "a", "step": 1, "files": {"a": {"bytes": 1, "sha256": "b"}}}',
        '{"writer": "a", "step": 1, "files": {"../a": {"bytes": 1, "sha256": "b", "at": "a"}}}',
        '{"writer": "a", "step": 1, "files": {"/a": {"bytes": 1, "sha256": "b", "at": "a"}}}',
        '{"writer": "a", "step": 1, "files": {"a": {"bytes": 1, "sha256": "b", "at": "c/../../a"}}}',
    ],
)
def test_a_manifest_of_another_kind_or_that_leads_elsewhere_is_refused(tmp_path: Path, url: str, text: str) -> None:
    system, root = fsspec.url_to_fs(url)
    system.makedirs(root, exist_ok=True)
    system.pipe_file(f"{root}/{MANIFEST}", text.encode())
    with pytest.raises(InputError, match=r"STORED\.json is no list of stored files"):
        Place(url).fetch(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_whoever_was_taken_over_from_writes_no_more(tmp_path: Path, url: str) -> None:
    with begun(tmp_path / "run") as writer:
        old = stored(writer.path, url)
        new = Place(url)
        new.claim()
        assert new.fetch(tmp_path / "there").step == 1, "what was stored is the later one's now"
        before = there(url)
        with pytest.raises(Busy, match="another process is writing"):
            keep(old, writer.path)
        assert there(url) == before
        keep(new, tmp_path / "there")
        fsspec.url_to_fs(url)[0].rm_file(f"{fsspec.url_to_fs(url)[1]}/{MANIFEST}")
        with pytest.raises(InputError, match=r"its STORED\.json was removed; run the same command again"):
            keep(new, tmp_path / "there")


def test_whoever_is_taken_over_from_while_it_stores_changes_nothing_that_is_named(tmp_path: Path, url: str) -> None:
    with begun(tmp_path / "run") as writer:
        old = stored(writer.path, url)
        for claimed_at in ("_put", "_write"):
            real, new = getattr(old, claimed_at), Place(url)
            advance(writer, writer.step + 1)
            before = new.read()
            with pytest.MonkeyPatch.context() as patch:

                def robbed(*arguments: Any, real: Any = real, new: Place = new, before: Any = before) -> None:
                    real(*arguments)
                    new._write(Manifest(new.writer, before.step, before.files))  # read before that, written after it

                patch.setattr(old, claimed_at, robbed)
                with pytest.raises(Busy):
                    keep(old, writer.path)
            assert new.fetch(tmp_path / "there").step == before.step
            old = stored(writer.path, url)


def test_what_grows_takes_no_more_room_than_once(tmp_path: Path, url: str) -> None:
    writer = begun(tmp_path / "run")
    place = stored(writer.path, url)
    for step in (2, 3, 4, 5):
        advance(writer, step)
        keep(place, writer.path)
        assert there(url).keys() == {MANIFEST, *(entry["at"] for entry in named(url).values())}
        place.fetch(tmp_path / "here")
        assert runs.load(tmp_path / "here").checkpoints[-1][0] == step
    writer.close()


def test_an_unknown_protocol_or_an_unreachable_storage_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"storage odd://here/: ValueError: Protocol not known: odd.*package"):
        absolute("odd://here/")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match=r"storage .*file/run: "):
        Place(f"file://{tmp_path}/file/run").claim()


def test_a_path_means_the_same_in_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("kept") == absolute("kept/") == f"file://{tmp_path}/kept"
    assert absolute("memory://kept/") == "memory://kept"
