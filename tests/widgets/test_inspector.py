"""The inspector's traits: what a choice reads, what is sent, and what is refused."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from inspector_runs import ATTACKS, HOSTILE, config, large_run, save, small_run

from sesa_lab import environments, plots, runs, widgets
from sesa_lab.errors import UNSEEN, InputError
from sesa_lab.runs import RunWriter, environment
from sesa_lab.widgets import SketchInspector, frames, payload
from sesa_lab.widgets.frames import MOST, Stage

Open = Callable[..., SketchInspector]


@pytest.fixture(autouse=True)
def _facts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "git", lambda folder: {"commit": "0123456789", "dirty": False})  # slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("small") / "run")


def drawn(widget: SketchInspector) -> list[dict[str, Any]]:
    """The replays, when they are there."""
    assert widget._drawing is not None
    widget._drawing.result(60)
    return widget.replays


def sent(widget: SketchInspector) -> str:
    """All that the page has, as JSON."""
    drawn(widget)
    state = {name: value for name, value in widget.get_state().items() if name in widget.trait_names(sync=True)}
    return json.dumps({name: state[name] for name in state if not name.startswith("_") and name != "layout"})


def test_it_opens_at_the_last_step(folder: Path, opened: Open) -> None:
    widget = opened(folder)
    assert (widget.step, widget.group, widget.steps) == (4, 0, [1, 2, 3, 4])
    assert widget.groups == [{"group": g, "task": 6 + g, "candidates": 6, "solved": 2} for g in range(2)]
    assert widget.candidates == [0] and widget.listed == [[0, 1, 2, 3, 4, 5]]
    assert widget.sides[0]["run"].startswith("run seed 0") and widget.sides[0]["missing"] == ""
    assert widget.details[0]["candidate"] == 0 and widget.details[0]["text"]["start"] == 0


def test_a_run_that_is_loaded_does_as_well(folder: Path, opened: Open) -> None:
    assert sent(opened(runs.load(folder))) == sent(opened(str(folder)))


def test_a_choice_swaps_the_payload(folder: Path, opened: Open) -> None:
    widget, environment = opened(folder), environments.make("sokoban")
    widget.group = 1
    widget.candidates = [4]
    assert widget.sides[0]["task"] == 7 and widget.details[0]["text"]["text"] == "up up down"
    widget.step = 2
    assert (widget.group, widget.sides[0]["task"]) == (1, 3), "the group of the same number, where there is one"
    assert widget.candidates == [0], "another group begins at its first candidate"
    text = sent(widget)
    assert json.dumps(environment.task(3).prompt)[1:-1] in text
    for other in (0, 1, 2, 4, 5, 6, 7):
        assert json.dumps(environment.task(other).prompt)[1:-1] not in text, "only the shown group is in the page"


def test_a_step_change_reads_one_group_and_sends_one_message(
    folder: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    widget = opened(folder)
    drawn(widget)
    messages: list[set[str]] = []
    read: list[tuple[int, int]] = []
    real = payload.Shown.read
    monkeypatch.setattr(
        payload.Shown, "read", lambda groups, step, group: read.append((step, group)) or real(groups, step, group)
    )
    monkeypatch.setattr(
        widget, "send_state", lambda key=None: messages.append(set(key) if not isinstance(key, str) else {key})
    )
    with widget._sending:  # the replay waits
        widget.set_state({"step": 2})
        assert read == [(2, 0)]
        changed = {"sides", "groups", "details"}
        assert [message for message in messages if message & changed] == [messages[-1]] and messages[-1] >= changed
    drawn(widget)
    assert messages[-1] == {"replays"}


def test_the_page_gets_no_more_of_a_large_run(tmp_path: Path, opened: Open) -> None:
    sizes = []
    for steps in (4, 40):
        path = large_run(tmp_path / str(steps), steps=steps, groups=5, size=8, tokens=20, every=steps)
        widget = opened(path)
        sizes.append(len(sent(widget)))
    assert sizes[1] < sizes[0] + 300, "ten times the candidates: 36 more numbers in the list of steps, and labels"


def test_refresh_finds_what_was_committed_since(tmp_path: Path, opened: Open) -> None:
    path = small_run(tmp_path / "run", steps=2)
    widget = opened(path)
    widget.step = 1
    widget.candidates = [3]
    small_run(path, steps=4, first=3)
    assert widget.steps == [1, 2]
    widget.refresh()
    assert widget.steps == [1, 2, 3, 4] and widget.step == 1 and widget.candidates == [3]
    widget.step = 4
    assert widget.sides[0]["task"] == 6


def test_refresh_of_a_run_that_was_made_anew(tmp_path: Path, opened: Open) -> None:
    """Fewer steps, another environment: the last step is shown, and replayed by the environment that the run has now."""
    path = small_run(tmp_path / "run", steps=4)
    widget = opened(path)
    widget.group = 1
    widget.candidates = [3]
    drawn(widget)
    shutil.rmtree(path)
    small_run(path, steps=2, seed=5)
    widget.refresh()
    assert (widget.steps, widget.step, widget.group) == ([1, 2], 2, 1)
    task = environments.make("sokoban", seed=5).task(3)
    assert widget.sides[0]["prompt"]["text"] == task.prompt
    assert drawn(widget)[0]["frames"][0] == vars(environments.make("sokoban", seed=5).render(task)[0])


def test_refresh_of_a_run_that_is_gone_or_empty_leaves_what_is_shown(tmp_path: Path, opened: Open) -> None:
    path = small_run(tmp_path / "run", steps=2)
    widget = opened(path)
    before = sent(widget)
    shutil.rmtree(path)
    with pytest.raises(InputError, match="no run folder at"):
        widget.refresh()
    with RunWriter.create(path, config("sokoban", 4, 2)) as writer:
        writer.log("step", 1, {})
    with pytest.raises(InputError, match="no committed candidates yet"):
        widget.refresh()
    assert sent(widget) == before
    widget.candidates = [1]
    assert widget.details[0]["candidate"] == 1


def test_the_page_can_have_the_run_read_again(tmp_path: Path, opened: Open) -> None:
    path = small_run(tmp_path / "run", steps=2)
    widget = opened(path)
    answers: list[Any] = []
    widget.send = answers.append

    def reload() -> str:
        widget._handle_custom_msg({"kind": "reload"}, [])
        assert answers[-1].keys() == {"kind", "said"} and answers[-1]["kind"] == "reload"
        return str(answers[-1]["said"])

    assert reload() == "no new step"
    small_run(path, steps=4, first=3)
    assert reload() == "2 new steps" and widget.steps == [1, 2, 3, 4] and widget.step == 2
    widget.step = 4
    shutil.rmtree(path)
    assert reload().startswith("no run folder at") and widget.step == 4
    small_run(path, steps=2)
    assert reload() == "step 4 is gone; no new step" and widget.step == 2


def test_what_a_correction_applied_is_told_with_its_name(folder: Path, opened: Open) -> None:
    widget = opened(folder)
    assert widget.sides[0]["correction"] == runs.load(folder).config.update.correction == "none"


def test_a_folder_whose_name_is_not_utf_8_is_refused(folder: Path, tmp_path: Path) -> None:
    other = os.fsencode(tmp_path) + b"/run\xff"
    shutil.copytree(os.fsencode(folder), other)
    with pytest.raises(InputError, match=r"cannot read '.*run\\udcff.*its name is not UTF-8.*rename") as raised:
        SketchInspector(os.fsdecode(other))
    assert str(raised.value).isascii()


def test_the_page_marks_what_figures_mark() -> None:
    """One list of what is not to be seen, written twice: in Python, and in the page's JavaScript."""
    script = (Path(widgets.__file__).parent / "inspector.js").read_text()
    (listed,) = re.findall(r"^const UNSEEN = \[$(.*?)^\];$", script, re.MULTILINE | re.DOTALL)
    pairs = re.findall(r"\[(0x[0-9a-f]+), (0x[0-9a-f]+)\],", listed)
    assert tuple((int(first, 16), int(last, 16)) for first, last in pairs) == UNSEEN
    assert listed.count("[") == len(pairs), "all of them were read"
    (hues,) = re.findall(r"^const HUES = (\[.*?\]);", script, re.MULTILINE)
    assert tuple(json.loads(hues)) == plots.COLOURS


def test_a_run_without_sketches(tmp_path: Path, opened: Open) -> None:
    widget = opened(small_run(tmp_path / "run", with_sketches=False))
    assert widget.sides[0]["sketches"] == []
    assert [row["sketch"] for row in widget.sides[0]["candidates"]] == [None] * 6
    assert widget.listed == [[0, 1, 2, 3, 4, 5]]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run folder at"):
        SketchInspector(tmp_path / "none")
    with RunWriter.create(tmp_path / "new", config("sokoban", 4, 2)) as writer:
        writer.log("step", 1, {})
    with pytest.raises(InputError, match=r"no committed candidates yet; .*checkpoint_every = 2"):
        SketchInspector(tmp_path / "new")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("step", 9, r"step 9 has no candidates; expected one of 1, 2, 3, 4"),
        ("group", 5, r"group 5 is not in step 4; expected one of 0, 1"),
        ("candidates", [6], r"candidates \[6\]: expected one index a run"),
        ("candidates", [0, 0], r"candidates \[0, 0\]"),
        ("sort", "rewrd", "did you mean 'reward'"),
        ("colouring", "spread", "colouring 'spread'; .*known: entropy, plain, ratio, surprisal, trained"),
        ("filter", {"outcome": 3}, "filter: outcome 3"),
    ],
)
def test_a_wrong_choice_is_refused(folder: Path, opened: Open, name: str, value: Any, message: str) -> None:
    widget = opened(folder)
    before = sent(widget)
    with pytest.raises(InputError, match=message):
        setattr(widget, name, value)
    assert sent(widget) == before


def test_filters_keep_the_chosen_candidate_where_they_can(folder: Path, opened: Open) -> None:
    widget = opened(folder)
    widget.candidates = [3]
    widget.filter = {"outcome": "solved"}
    assert widget.listed == [[0, 3]] and widget.candidates == [3]
    widget.filter = {"outcome": "unreadable"}
    assert widget.listed == [[2, 5]] and widget.candidates == [2] and widget.details[0]["candidate"] == 2
    widget.filter = {"text": "nowhere"}
    assert widget.listed == [[]] and widget.candidates == [-1] and widget.details == [{}] and drawn(widget) == [{}]
    widget.filter = {}
    widget.sort = "length"
    assert widget.listed[0][0] == 5 and widget.filter == payload.NO_FILTER


def test_hostile_text_is_plain_json(folder: Path, opened: Open) -> None:
    widget = opened(folder)
    widget.candidates = [5]
    assert json.loads(sent(widget))["details"][0]["text"]["text"] == HOSTILE
    for attack in ATTACKS[:4]:
        assert not any(attack in frame["svg"] for frame in drawn(widget)[0]["frames"])


def test_long_texts_come_in_pages_and_copies_whole(tmp_path: Path, opened: Open) -> None:
    text = "<b>x</b>" * 131_072 + "end"
    count = 5_000
    long = {"completion": text, "turns": [text], "token_ids": [3] * count, "turn_tokens": [count]}
    widget = opened(
        small_run(tmp_path / "run", 2, changed={**long, "drawn_logprobs": [-0.5] * count, "weight": float("nan")})
    )
    widget.candidates = [5]
    assert len(sent(widget)) < 300_000
    answers: list[Any] = []
    widget.send = answers.append
    page, said = widget.details[0]["text"], widget.details[0]["text"]["text"]
    assert page["total"] == len(text) and len(said) == payload.TEXT
    while len(said) < page["total"]:
        widget._handle_custom_msg({"kind": "more", "side": 0, "what": "text", "start": len(said)}, [])
        assert answers[-1]["candidate"] == 5 and answers[-1]["page"]["start"] == len(said)
        said += answers[-1]["page"]["text"]
    assert said == text
    widget._handle_custom_msg({"kind": "more", "side": 0, "what": "tokens", "start": 4_000}, [])
    assert answers[-1]["page"]["ids"] == [3] * 1_000 and answers[-1]["page"]["total"] == count
    widget._handle_custom_msg({"kind": "copy", "side": 0}, [])
    copied = json.loads(answers[-1]["text"], parse_constant=pytest.fail)
    assert copied["completion"] == text and copied["weight"] is None and copied["run"] == "run seed 0 @0123456"
    done = len(answers)
    for nonsense in ({}, {"kind": "run", "side": 0}, {"kind": "copy", "side": 7}, {"kind": "copy", "side": "0"}):
        widget._handle_custom_msg(nonsense, [])
    assert len(answers) == done


def test_a_copy_has_the_sketches_that_are_followed(folder: Path, opened: Open) -> None:
    widget = opened(folder)
    answers: list[Any] = []
    widget.send = answers.append
    widget._handle_custom_msg({"kind": "copy", "side": 0}, [])
    copied = json.loads(answers[-1]["text"])
    assert [sketch["text"] for sketch in copied["followed_sketches"]] == ["down left"] == [copied["sketch"]]
    assert copied["strategy"] == runs.load(folder).rollouts.query("step == 4 and group == 0")["strategy"].iloc[0]


def test_a_candidate_is_replayed_by_its_environment(folder: Path, opened: Open) -> None:
    widget, environment = opened(folder), environments.make("sokoban")
    task = environment.task(6)
    for index, text in ((0, environment.oracle(task)), (4, "up up down")):
        widget.candidates = [index]
        shown = drawn(widget)[0]
        assert (shown["step"], shown["group"], shown["index"], shown["note"]) == (4, 0, index, "")
        assert shown["frames"] == [vars(frame) for frame in environment.render(task, text)]


def test_a_task_that_is_another_one_now_is_not_replayed(tmp_path: Path, opened: Open) -> None:
    widget = opened(small_run(tmp_path / "run", 2, changed={"prompt": "another"}))
    widget.candidates = [5]
    assert drawn(widget)[0]["frames"] == [] and "is another one in this version" in drawn(widget)[0]["note"]


def test_a_bug_in_a_replay_is_told_and_kept(folder: Path, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    widget = opened(folder)
    drawn(widget)

    def broken(self: Stage, row: Any) -> Any:
        raise ZeroDivisionError("by <b>nought</b>")

    monkeypatch.setattr(Stage, "replay", broken)
    widget.candidates = [1]
    with pytest.raises(ZeroDivisionError):
        drawn(widget)
    assert widget.replays[0]["note"] == "the replay failed: ZeroDivisionError: by <b>nought</b>"
    assert widget.replays[0]["index"] == 1


def test_an_episode_is_told_turn_by_turn_where_the_environment_shows_no_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "Replayed", str)  # so that the lake is none
    chosen = config("frozen_lake", 2, 2, turns=3, answer_format="plain", slippery="yes")
    with RunWriter.create(tmp_path / "run", chosen) as writer:
        writer.commit(2, save)
    made = environments.make("frozen_lake", **chosen.environment.options)
    task, texts = made.task(2), ["right", "down", "left"]
    episode, said = made.reset(task, 17), []
    for text in texts:
        episode = made.step(episode, text)
        said.append(episode.observation)
        if episode.over:
            break
    row = {"task": 2, "prompt": task.prompt, "completion": "\n".join(texts), "turns": texts, "episode_seed": 17.0}
    shown = Stage(runs.load(tmp_path / "run")).replay(row)
    assert shown["frames"][0] == vars(made.render(task)[0]) | {"turn": 0}
    assert [frame["text"] for frame in shown["frames"][1:-1]] == said[:-1] and len(shown["frames"]) == 1 + len(said)
    assert [frame["svg"] for frame in shown["frames"][1:]] == [""] * len(said)
    assert shown["frames"][1]["caption"].startswith("turn 1: reward ")
    assert shown["frames"][-1]["caption"].endswith("solved") == episode.over


def test_a_long_replay_is_cut_and_says_so(folder: Path) -> None:
    stage = Stage(runs.load(folder))
    task = environments.make("sokoban").task(0)
    row = {"task": 0, "prompt": task.prompt, "completion": "", "turns": [""], "episode_seed": None}
    stage._task(row)
    frame = stage._made.render(task)[0]
    stage._made.render = lambda task, text: [frame] * (MOST + 7)
    shown = stage.replay(row)
    assert len(shown["frames"]) == MOST and shown["note"] == f"the last 7 of {MOST + 7} frames are left out"


def test_two_runs_show_the_same_task(folder: Path, tmp_path: Path, opened: Open) -> None:
    other = small_run(tmp_path / "other", steps=2)
    widget = opened(folder, other)
    assert widget.sides[1]["missing"] == "this run has no group with task 6 at step 4" and widget.candidates == [0, -1]
    assert drawn(widget)[1] == {}
    widget.step = 2
    assert [side["task"] for side in widget.sides] == [2, 2] and "note" not in widget.sides[1]
    widget.candidates = [0, 4]
    assert [detail["candidate"] for detail in widget.details] == [0, 4]
    assert [replay["index"] for replay in drawn(widget)] == [0, 4]
    widget.filter = {"outcome": "failed"}
    assert widget.listed == [[1, 2, 4, 5]] * 2 and widget.candidates == [1, 4]


def test_tasks_of_one_number_that_differ_are_told_apart(folder: Path, tmp_path: Path, opened: Open) -> None:
    widget = opened(folder, small_run(tmp_path / "other", seed=5))
    assert widget.sides[1]["note"] == "task 6 is another one in this run (seed = 5, not None)"
    assert "note" not in widget.sides[0]


def test_tokenizers_are_one_or_one_each(folder: Path, opened: Open) -> None:
    from sesa_lab.widgets.tokens import SHIPPED

    widget = opened(folder, folder, tokenizer=[SHIPPED / "sokoban-ordinary", SHIPPED / "path"])
    assert widget.details[0]["tokens"]["pieces"] is not None and widget.details[1]["tokens"]["pieces"] is None
    with pytest.raises(InputError, match="tokenizer names 1 folders for 2 runs"):
        SketchInspector(folder, folder, tokenizer=[folder])


def test_it_is_imported_late_and_never_sees_a_model() -> None:
    code = (
        "import sys, sesa_lab.widgets as w; assert 'anywidget' not in sys.modules; w.SketchInspector;"
        " print([m for m in sys.modules if m.split('.')[0] in ('torch', 'transformers', 'peft') or m.split('.')[:2]"
        " in (['sesa_lab', 'training'], ['sesa_lab', 'policies'], ['sesa_lab', 'engines'], ['sesa_lab', 'samplers'])])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(found.stdout) == []
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        getattr(widgets, "Nothing")  # noqa: B009  # the very call is what is tested


def test_a_page_that_is_behind_does_not_break_it(folder: Path, opened: Open) -> None:
    """A step that came over the wire and is not there is refused as one set by hand, and the next choice works."""
    widget = opened(folder)
    with pytest.raises(InputError, match="step 77 has no candidates"):
        widget.set_state({"step": 77})
    widget.set_state({"step": 2})
    assert widget.sides[0]["task"] == 2 and widget.step == 2
    widget.set_state({"step": 3, "group": 1, "candidates": [4]})
    assert (widget.step, widget.group, widget.sides[0]["task"]) == (3, 1, 5)


def test_a_damaged_part_is_named(folder: Path, tmp_path: Path, opened: Open) -> None:
    path = tmp_path / "damaged"
    shutil.copytree(folder, path)
    widget = opened(path)
    part = path / "rollouts" / "step-000002.parquet"
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"cannot read .*step-000002\.parquet.*restore it from a copy"):
        widget.step = 1
    widget.step = 3
    assert widget.sides[0]["task"] == 4


@pytest.mark.parametrize("name", environments.names())
def test_every_environment_is_replayed(tmp_path: Path, name: str) -> None:
    with RunWriter.create(tmp_path / "run", config(name, 2, 2)) as writer:
        writer.commit(2, save)
    made = environments.make(name)
    task = made.task(0)
    row = {"task": 0, "prompt": task.prompt, "completion": made.oracle(task), "turns": [], "episode_seed": None}
    shown = Stage(runs.load(tmp_path / "run")).replay(row)
    assert len(shown["frames"]) > 1 and shown["note"] == ""
    assert all(frame["svg"].startswith("<svg xmlns") for frame in shown["frames"]), "else an <img> stays blank"
