"""Episodes of several turns in the inspector: every move of every turn, what was said beside it, and the stored verdict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from inspector_runs import episodes_run

from sesa_lab import environments, runs
from sesa_lab.environments.replays import UNREAD
from sesa_lab.runs import browse
from sesa_lab.widgets import SketchInspector
from sesa_lab.widgets.frames import MOST, TURN, Stage

pytestmark = pytest.mark.usefixtures("quick_runs")
SLIPPERY = {"slippery": "yes", "min_distance": 2}


@pytest.fixture(scope="module", params=["frozen_lake", "sokoban"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, quick_runs: None) -> Path:
    options = SLIPPERY if request.param == "frozen_lake" else {}
    return episodes_run(tmp_path_factory.mktemp("episodes") / request.param, request.param, **options)


def rows(folder: Path) -> list[dict[str, Any]]:
    return list(browse.Groups(runs.load(folder)).rollouts(1, 0).to_pylist())


def test_every_move_of_every_turn_is_a_picture(folder: Path) -> None:
    run = runs.load(folder)
    stage, chosen = Stage(run), run.config.environment
    environment = environments.make(chosen.name, **chosen.options)
    verdicts = set()
    for row in rows(folder):
        shown = stage.replay(row)
        frames, turns = shown["frames"], shown["turns"]
        assert shown["note"] == "" and all(frame["svg"].startswith("<svg xmlns") for frame in frames)
        episode = environment.reset(environment.task(row["task"]), int(row["episode_seed"]))
        for number, text in enumerate(row["turns"], start=1):
            before = episode.state.moves
            episode = environment.step(episode, text)
            own = [frame for frame in frames if frame["turn"] == number]
            assert len(own) == max(1, episode.state.moves - before)
            assert turns[number - 1] == {"text": text[:TURN], "chars": len(text), "cut": len(text) > TURN}
        assert [frame["turn"] for frame in frames] == sorted(frame["turn"] for frame in frames)
        assert frames[0]["caption"] == "start" and frames[0]["turn"] == 0 and len(turns) == len(row["turns"])
        assert frames[-1]["caption"].endswith("; solved" if row["success"] else "; not solved"), "as it is stored"
        verdicts.add(row["success"])
    assert verdicts == {True, False}
    assert any(UNREAD in frame["caption"] for row in rows(folder) for frame in stage.replay(row)["frames"])


def test_the_page_gets_the_pictures(folder: Path, opened: Callable[..., SketchInspector]) -> None:
    widget = opened(folder)
    assert widget._drawing is not None
    widget._drawing.result(60)
    (replay,) = widget.replays
    assert replay["index"] == 0 and replay["frames"] == Stage(runs.load(folder)).replay(rows(folder)[0])["frames"]


def test_an_episode_that_ends_otherwise_now_is_told(folder: Path) -> None:
    row = next(row for row in rows(folder) if row["success"])
    shown = Stage(runs.load(folder)).replay(row | {"success": False})
    assert shown["frames"][-1]["caption"].endswith("; solved")
    assert shown["note"].startswith("not solved when the run was made, and solved in this version")


def test_a_long_episode_is_cut_with_a_note(tmp_path: Path) -> None:
    options = {"max_actions": 400, "actions_per_turn": 400, "turns": 2, "slippery": "no"}
    run = runs.load(episodes_run(tmp_path / "run", "frozen_lake", **options))
    row = next(row for row in rows(run.path) if row["index"] == 0)
    environment = environments.make("frozen_lake", **run.config.environment.options)
    bump = next(
        word
        for word in ("left", "up", "right", "down")
        if len(environment.render(environment.task(row["task"]), f"{word} " * 300)) > 300
    )
    shown = Stage(run).replay(row | {"turns": [f"{bump} " * 300], "success": False})
    assert len(shown["frames"]) == MOST and shown["note"] == f"the last {301 - MOST} of 301 frames are left out"
