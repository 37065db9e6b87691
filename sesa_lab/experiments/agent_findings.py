"""What the agents' policies found: strategies of a held-out task, sketches by draft, episodes to replay.

Texts are what policies wrote; whoever shows them escapes them (pandas and ``plots`` do).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from sesa_lab import environments, plots, runs
from sesa_lab.experiments.agent_tables import Results, with_sketches
from sesa_lab.experiments.agents import LABELS, labelled
from sesa_lab.types import Frame, Task

_SAMPLED = ["step", "task", "sketch", "completion", "turns", "episode_seed", "success", "strategy"]


def held_out(run: runs.Run) -> Any:
    """The environment whose tasks the run's evaluations are of (see ``training/held_out.py``)."""
    chosen = run.config.environment
    made = environments.make(chosen.name, **chosen.options)
    if "split" not in made.options:
        return made
    return environments.make(chosen.name, **{**made.options, "split": "validation"})


def ways(environment: Any, task: Task, most: int = 4) -> list[plots.Replay]:
    """The first ``most`` ways to succeed that the environment's own solver knows, each with its sketch."""
    return [
        plots.Replay(
            f"way {number}",
            environment.render(task, text),
            f"task {task.index}; sketch: {environment.sketch(task, text)}; answer: {text}",
        )
        for number, text in enumerate((environment.solutions(task) or [environment.oracle(task)])[:most], start=1)
    ]


def strategies(results: Results, arms: Sequence[str], top: int = 10) -> tuple[Task, pd.DataFrame]:
    """One validation task, and how each arm's last policy shares its samples among strategies; of the first seed.

    The task is the one on which all the arms together have the most distinct correct strategies: chosen alike for all.

    Returns:
        The task, and the ``top`` strategies, correct ones first: columns correct (yes or no) and one share an arm.
    """
    seed, run = results.of(arms[0])[0]
    last = {arm: _last(results, arm, seed) for arm in arms}
    answers = pd.concat(
        [found.read_answers(steps=[found.config.run.steps]).assign(arm=arm) for arm, found in last.items()]
    )
    correct = answers[answers["success"]].groupby("task")["strategy"].nunique()
    chosen = int(correct.reindex(sorted(answers["task"].unique()), fill_value=0).idxmax())
    part = answers[answers["task"] == chosen].fillna({"strategy": "(unreadable)"})
    wide = part.pivot_table("probability", ["success", "strategy"], "arm", aggfunc="sum", fill_value=0.0, sort=False)
    wide = wide.reindex(columns=list(arms), fill_value=0.0)
    order = wide.assign(most=wide.max(axis=1)).sort_values(["success", "most"], ascending=False, kind="stable").index
    shown = wide.loc[order[:top]].rename(columns=LABELS).reset_index("success")
    shown.insert(0, "correct", shown.pop("success").map({True: "yes", False: "no"}))
    return held_out(run).task(chosen), shown.round(3).rename_axis(columns=None)


def sketches(results: Results, steps: int = 20) -> pd.DataFrame:
    """By draft: do sketches repeat earlier ones of their group, and do the solutions that follow them succeed?

    Returns:
        Columns arm (label), seed, draft (1 is the first), repeats and success (shares over the last ``steps`` steps).
    """
    parts = []
    for arm in with_sketches(results):
        for seed, run in results.of(arm):
            drafted = run.read_sketches(["index", "repeats"], _window(run, steps))
            solved = run.read_rollouts(["sketches", "success"], _window(run, steps))
            solved = solved[solved["sketches"].map(len) > 0]
            first = solved["sketches"].map(lambda followed: followed[0])
            shares = pd.DataFrame(
                {
                    "repeats": drafted["repeats"].groupby(drafted["index"]).mean(),
                    "success": solved["success"].groupby(first).mean(),
                }
            )
            shares.insert(0, "draft", shares.index + 1)
            parts.append(shares.assign(arm=arm, seed=seed))
    found = pd.concat(parts, ignore_index=True)
    return found.assign(arm=labelled(found["arm"]))


def distinct_sketches(results: Results, steps: int = 20) -> pd.DataFrame:
    """How many sketches of a group differ from all earlier ones of it, over the first and the last ``steps`` steps.

    Returns:
        Columns arm, seed, first and last (mean distinct sketches a group), sketches (a group's all together).
    """
    rows = []
    for arm in with_sketches(results):
        for seed, run in results.of(arm):
            found = {}
            for name, window in (("first", range(1, steps + 1)), ("last", _window(run, steps))):
                drafted = run.read_sketches(["step", "group", "repeats"], window).groupby(["step", "group"])["repeats"]
                found[name] = float((drafted.size() - drafted.sum()).mean())
                found["sketches"] = float(drafted.size().mean())
            rows.append({"arm": arm, "seed": seed, **found})
    return pd.DataFrame(rows)


def common_sketches(results: Results, arm: str, top: int = 10, steps: int = 20) -> pd.DataFrame:
    """The sketches that most solutions of the last ``steps`` steps follow, all seeds together, and how these fare."""
    parts = [run.read_rollouts(["sketch", "success"], _window(run, steps)).dropna() for _, run in results.of(arm)]
    found = pd.concat(parts).groupby("sketch")["success"].agg(["size", "mean"])
    found["size"] = found["size"] / max(1, found["size"].sum())
    found = found.sort_values("size", ascending=False, kind="stable").head(top)
    return found.round(3).rename(columns={"size": "share of the guided solutions", "mean": "success"})


def replays(results: Results, arms: Sequence[str], solved: int = 2, steps: int = 10) -> list[plots.Replay]:
    """Episodes of one training task: of each arm up to ``solved`` ways that succeed and one that fails; the first seed's.

    The task is, among those of the last ``steps`` steps, the one with the most kinds of episodes (each arm solved and
    failed), then with the most correct ways, then the latest. All arms meet the same tasks at the same step.
    """
    seed, run = results.of(arms[0])[0]
    options = run.config.environment
    environment = environments.make(options.name, **options.options)
    last = {arm: _last(results, arm, seed) for arm in arms}
    drawn = pd.concat(
        [found.read_rollouts(_SAMPLED, _window(found, steps)).assign(arm=arm) for arm, found in last.items()]
    )
    ways = drawn[drawn["success"]].groupby(["step", "task"])["strategy"].nunique()
    kinds = drawn.drop_duplicates(["step", "task", "arm", "success"]).groupby(["step", "task"]).size()
    scores = pd.DataFrame({"kinds": kinds, "ways": ways.reindex(kinds.index, fill_value=0)}).reset_index()
    step, number = scores.sort_values(["kinds", "ways", "step"], kind="stable")[["step", "task"]].iloc[-1]
    part = drawn[(drawn["step"] == step) & (drawn["task"] == number)]
    task = environment.task(int(number))
    found = []
    for arm in arms:
        own = part[part["arm"] == arm]
        won = own[own["success"]].drop_duplicates("strategy").head(solved)
        for place, row in enumerate(won.itertuples(index=False), start=1):
            found.append(_replay(environment, task, row, f"{LABELS.get(arm, arm)}: solved, way {place}"))
        for row in own[~own["success"]].head(1).itertuples(index=False):
            found.append(_replay(environment, task, row, f"{LABELS.get(arm, arm)}: failed"))
    return found


def _replay(environment: Any, task: Task, row: Any, label: str) -> plots.Replay:
    followed = f"sketch: {row.sketch}; " if isinstance(row.sketch, str) else ""
    words = f"task {task.index}; {followed}answer: {row.completion}"
    if environment.turns == 1:
        return plots.Replay(label, environment.render(task, row.completion), words)
    return plots.Replay(label, _told(environment, task, row.turns, int(row.episode_seed)), words)


def _told(environment: Any, task: Task, turns: Sequence[str], seed: int) -> list[Frame]:
    """An episode of several turns, played again: what the environment says after each."""
    frames = [environment.render(task)[0]]
    episode = environment.reset(task, seed)
    for number, text in enumerate(turns, start=1):
        episode = environment.step(episode, text)
        ending = ("solved" if episode.success else "not solved") if episode.over else ""
        frames.append(plots.text_frame(f"turn {number}: reward {episode.rewards[-1]:g}", episode.observation or ending))
    return frames


def _last(results: Results, arm: str, seed: int) -> runs.Run:
    """The run of one arm and seed."""
    return dict(results.of(arm))[seed]


def _window(run: runs.Run, steps: int) -> range:
    last = run.config.run.steps
    return range(max(1, last - steps + 1), last + 1)
