"""An edited sketch, expanded anew: what the inspector asks and answers, and what the policy of a real run draws."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny_models
import torch
from inspector_expanders import Fake
from inspector_runs import ATTACKS, HOSTILE, SKETCHES, small_run
from toy_environments import Colours, ToyOptions, Walks

from sesa_lab import environments, expanding, runs
from sesa_lab.config import Config
from sesa_lab.environments import registry
from sesa_lab.environments.methods import Methods
from sesa_lab.errors import InputError
from sesa_lab.expanding import Expander
from sesa_lab.policies import load_policy, merged
from sesa_lab.prompts import Speaker
from sesa_lab.training.loop import train
from sesa_lab.widgets import SketchInspector, expansion, payload

Open = Callable[..., SketchInspector]
AT = {"step": 4, "group": 0, "candidate": 0}  # what the page shows at first
pytestmark = pytest.mark.usefixtures("quick_runs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, quick_runs: None) -> Path:
    return small_run(tmp_path_factory.mktemp("small") / "run")


def ask(widget: SketchInspector, sketch: Any = "down left", **changed: Any) -> list[dict[str, Any]]:
    """All answers to one message, as JSON; the thread is waited for."""
    answers: list[Any] = []
    widget.send = answers.append
    said = {"kind": "expand", "side": 0, **AT, "sketch": sketch, "count": 2, "seed": 0, **changed}
    widget._handle_custom_msg(json.loads(json.dumps(said)), [])
    if widget._expanding is not None:
        widget._expanding.exception(60)
    return list(json.loads(json.dumps(answers, allow_nan=False)))


# ---- the inspector, with an expander that is known ----------------------------------------------------------------------


def test_a_sketch_is_expanded_for_the_task_that_is_shown(folder: Path, opened: Open) -> None:
    fake = Fake(folder)
    widget = opened(folder, expander=fake)
    assert [side["expands"] for side in widget.sides] == [expansion.MOST]
    assert widget.details[0]["sketch"] == {"text": SKETCHES[0], "end": 9, "total": 9}
    (answer,) = ask(widget, "left, then up", count=3, seed=9)
    assert fake.asked == [(6, "left, then up", 3, 9)]
    best = fake.environment.oracle(fake.environment.task(6))
    assert {name: answer[name] for name in ("kind", "side", *AT)} == {"kind": "expand", "side": 0, **AT}
    assert (answer["sketch"], answer["policy"]) == ("left, then up", "fake, step 7")
    assert [one["text"] for one in answer["solutions"]] == [best, "left, then up", best]
    assert [one["success"] for one in answer["solutions"]] == [True, False, True]
    first = answer["solutions"][0]
    score = fake.environment.score(fake.environment.task(6), best)
    assert first == {
        "text": best, "chars": len(best), "cut": False, "tokens": 3, "logprob": -1.25, "finish": "stop", "reward": score.reward,
        "success": True, "strategy": score.strategy,
    }  # fmt: skip


def test_without_an_expander_nothing_is_offered(folder: Path, opened: Open) -> None:
    widget = opened(folder)
    assert widget.sides[0]["expands"] == 0
    (answer,) = ask(widget)
    assert "open the inspector with expander=..." in answer["error"]


def test_a_candidate_drawn_without_a_sketch_begins_with_an_empty_one(folder: Path, opened: Open) -> None:
    widget = opened(folder, expander=Fake(folder))
    widget.candidates = [4]
    assert widget.details[0]["sketch"] == {"text": "", "end": 0, "total": 0}


def test_the_kernel_does_not_wait_for_a_policy(folder: Path, opened: Open) -> None:
    """While one answers, choices and replays go on; its answer says whom it is about."""
    fake = Fake(folder)
    fake.may.clear()
    widget = opened(folder, expander=fake)
    answers: list[Any] = []
    widget.send = answers.append
    widget._handle_custom_msg({"kind": "expand", "side": 0, **AT, "sketch": "down", "count": 1, "seed": 0}, [])
    assert fake.begun.wait(60) and answers == []
    widget.group = 1
    widget.candidates = [3]
    assert widget._drawing is not None
    widget._drawing.result(60)
    assert widget.replays[0]["index"] == 3 and widget.sides[0]["task"] == 7
    fake.may.set()
    assert widget._expanding is not None
    widget._expanding.result(60)
    assert [{name: answer[name] for name in AT} for answer in answers] == [AT]
    assert fake.threads.isdisjoint({threading.get_ident()})


def test_what_was_shown_before_is_not_expanded(folder: Path, opened: Open) -> None:
    """The page was behind: its step, group or candidate is no longer Python's. It is told, and no policy is asked."""
    fake = Fake(folder)
    widget = opened(folder, expander=fake)
    for change in ({"step": 3}, {"group": 1}, {"candidate": 2}, {"candidate": None}, {"step": "4"}):
        (answer,) = ask(widget, **change)
        assert answer["error"].startswith("another candidate was chosen meanwhile")
        assert {name: answer[name] for name in AT} == AT | change
    widget.filter = {"text": "nowhere"}
    (answer,) = ask(widget)
    assert answer["error"].startswith("another candidate was chosen meanwhile")
    (answer,) = ask(widget, candidate=-1)
    assert answer["error"].startswith("another candidate was chosen meanwhile")
    assert fake.asked == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sketch": "x" * 1_048_576}, "the sketch has 1,048,576 letters, expected at most 4,000; shorten it"),
        ({"sketch": None}, "the sketch is None, expected a text"),
        ({"sketch": ["down"]}, "expected a text"),
        ({"count": 0}, "solutions: 0, expected a whole number from 1 to 16"),
        ({"count": 17}, "solutions: 17, expected a whole number from 1 to 16"),
        ({"count": 2.5}, "solutions: 2.5, expected a whole number"),
        ({"count": None}, "solutions: None, expected a whole number"),
        ({"count": True}, "solutions: True, expected a whole number"),
        ({"seed": -1}, "seed: -1, expected a whole number from 0 to 4294967295"),
        ({"seed": 2**32}, "seed: 4294967296, expected a whole number"),
    ],
)
def test_what_cannot_be_meant_is_told_in_one_line(
    folder: Path, opened: Open, change: dict[str, Any], message: str
) -> None:
    fake = Fake(folder)
    (answer,) = ask(opened(folder, expander=fake), **change)
    assert message in answer["error"] and "\n" not in answer["error"] and len(answer["error"]) < 200
    assert fake.asked == [] and {name: answer[name] for name in AT} == AT


@pytest.mark.parametrize("attack", [*ATTACKS, HOSTILE])
def test_hostile_sketches_come_through_as_they_are(folder: Path, opened: Open, attack: str) -> None:
    fake = Fake(folder)
    (answer,) = ask(opened(folder, expander=fake), attack)
    assert fake.asked[0][1] == answer["sketch"] == answer["solutions"][1]["text"] == attack


def test_long_sketches_and_solutions_are_cut_for_the_page(tmp_path: Path, opened: Open) -> None:
    run = small_run(tmp_path / "run", 2, changed={"sketch": "<b>" * 100_000})
    fake = Fake(run, completion="y" * 1_000_000, strategy="s" * 10_000, logprob=math.nan, reward=math.inf)
    widget = opened(run, expander=fake)
    widget.candidates = [5]
    assert widget.details[0]["sketch"] == {"text": ("<b>" * 100_000)[: payload.SKETCH], "end": 4_000, "total": 300_000}
    (answer,) = ask(widget, "x" * payload.SKETCH, step=2, candidate=5, count=16)
    assert len(answer["solutions"]) == 16 and len(json.dumps(answer)) < 100_000
    one = answer["solutions"][0]
    assert (len(one["text"]), one["chars"], len(one["strategy"])) == (expansion.ANSWER, 1_000_000, payload.EXCERPT)
    assert one["logprob"] is None and one["reward"] is None


def test_errors_of_the_expander_are_told_and_bugs_are_kept(folder: Path, opened: Open) -> None:
    widget = opened(folder, expander=Fake(folder, InputError("too long\nby far")))
    (answer,) = ask(widget)
    assert answer["error"] == "too long" and "solutions" not in answer
    assert widget._expanding is not None and widget._expanding.exception(60) is None
    broken = opened(folder, expander=Fake(folder, ZeroDivisionError("by <b>nought</b>")))
    (answer,) = ask(broken)
    assert answer["error"] == "the expansion failed: ZeroDivisionError: by <b>nought</b>"
    assert broken._expanding is not None
    with pytest.raises(ZeroDivisionError):
        broken._expanding.result(60)
    (answer,) = ask(broken, "again")
    assert "ZeroDivisionError" in answer["error"], "the thread goes on"


def test_a_task_that_is_another_one_for_the_policy_is_refused(folder: Path, tmp_path: Path, opened: Open) -> None:
    other = small_run(tmp_path / "other", seed=5)
    (answer,) = ask(opened(folder, expander=Fake(other)))
    assert answer["error"].startswith(
        "task 6 is another one for fake, step 7: expand with the policy of a run on the same"
    )


def test_each_run_has_its_expander_or_all_have_one(folder: Path, opened: Open) -> None:
    first, second = Fake(folder), Fake(folder)
    widget = opened(folder, folder, expander=[first, second])
    (answer,) = ask(widget, side=1)
    assert (len(first.asked), len(second.asked), answer["side"]) == (0, 1, 1)
    shared = opened(folder, folder, expander=first)
    ask(shared, side=0)
    ask(shared, side=1)
    assert len(first.asked) == 2
    half = opened(folder, folder, expander=[None, second])
    assert [side["expands"] for side in half.sides] == [0, expansion.MOST]
    with pytest.raises(InputError, match="expander names 1 for 2 runs"):
        SketchInspector(folder, folder, expander=[first])
    with pytest.raises(InputError, match="has no method expand"):
        SketchInspector(folder, expander=str(folder))  # type: ignore[arg-type]


def test_a_closed_inspector_ends_what_waits(folder: Path, opened: Open) -> None:
    fake = Fake(folder)
    fake.may.clear()
    widget = opened(folder, expander=fake)
    answers: list[Any] = []
    widget.send = answers.append
    message = {"kind": "expand", "side": 0, **AT, "sketch": "down", "count": 1, "seed": 0}
    widget._handle_custom_msg(message, [])
    under_way = widget._expanding
    widget._handle_custom_msg(message, [])
    assert fake.begun.wait(60) and under_way is not None and widget._expanding is not None
    widget.close()
    assert widget._expanding.cancelled()
    fake.may.set()
    under_way.result(60)
    assert len(fake.asked) == 1


# ---- the policy of a run ------------------------------------------------------------------------------------------------

COUNTDOWN: dict[str, Any] = {
    "environment": {"name": "countdown", "options": {"answer_format": "plain"}},
    "sampler": {"name": "sesa", "group_size": 4, "temperature": 0.8, "max_tokens": 24},
    "update": {"learning_rate": 1e-3, "entropy_coef": 0.1},
    "run": {"groups": 1, "steps": 2, "evaluate_every": 2, "checkpoint_every": 1, "trackers": "none"},
    "evaluation": {"eval_tasks": 1, "eval_samples": 2},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, quick_runs: None) -> Path:
    return train(Config.build(**COUNTDOWN), tmp_path_factory.mktemp("trained") / "run")


@pytest.fixture(scope="module")
def expander(trained: Path) -> Expander:
    return Expander(trained)


def methods(run: Path) -> tuple[Methods, list[str]]:
    """Of task 0: what reads them, and two that can be told apart, one that solves it and one that does not."""
    config = runs.load(run).config.environment
    environment = environments.make(config.name, **config.options)
    solving = environment.solutions(environment.task(0))
    found = Methods(environment, "lab")
    drafted = runs.load(run).read_sketches()["text"].tolist()
    ends = found.of_solutions(0)
    assert solving and ends
    wrong = next(text for text in drafted if found.of_sketch(0, text) not in {None, *ends})
    return found, [sorted(ends)[0], wrong]


def test_solutions_follow_the_sketch_that_is_given(trained: Path, expander: Expander) -> None:
    """The lab policy for countdown does what it is told (all of 48 did when this was written)."""
    reader, texts = methods(trained)
    for text in texts:
        found = expander.expand(0, text, 8)
        assert [solution.sample for solution in found] == list(range(8))
        followed = [reader.of_answer(0, one.completion) == reader.of_sketch(0, text) for one in found]
        assert sum(followed) >= 7
        assert {one.sketch for one in found} == {text} and {one.policy for one in found} == {expander.label}
    assert expander.label.endswith(", step 2")


def test_the_same_call_gives_the_same_solutions(trained: Path, expander: Expander) -> None:
    text = "down left"  # no method of this environment: what comes of it varies
    first = expander.expand(3, text, 6, seed=1)
    expander.expand(2, "another", 3)
    assert expander.expand(3, text, 6, seed=1) == first == Expander(trained).expand(3, text, 6, seed=1)
    assert [one.completion for one in expander.expand(3, text, 6, seed=2)] != [one.completion for one in first]
    some = expander.expand(3, text, 2, seed=1)
    assert [one.completion for one in some] == [one.completion for one in first[:2]], "each from a stream of its own"


@pytest.mark.parametrize("step", [0, 2])
def test_verdicts_and_log_probs_are_those_of_the_checkpoint(trained: Path, step: int) -> None:
    """Beside the environment's own, and one plain forward pass over prompt and answer, at the run's temperature."""
    run = runs.load(trained)
    config = run.config
    environment = environments.make(config.environment.name, **config.environment.options)
    chosen = dataclasses.replace(config.policy, adapter=str(dict(run.checkpoints)[step]))
    policy = load_policy(chosen, "countdown", environment.options, 0)
    speaker = Speaker(policy.tokenizer, policy.form, "countdown", policy.stop_ids)
    task, sketch = environment.task(5), "10*4 then + -"
    with merged(policy.model):
        for one in Expander(trained, step).expand(5, sketch, 5):
            score = environment.score(task, one.completion)
            assert (one.reward, one.success, one.strategy) == (score.reward, score.success, score.strategy)
            assert one.prompt == task.prompt and one.finish == "stop"
            ids = (*policy.encode(one.completion), policy.stop_ids[0])
            each = tiny_models.reference_logprobs(policy.model, speaker.guided(task, sketch), ids, temperature=0.8)
            assert one.tokens == len(ids) and one.logprob == pytest.approx(float(each.sum()), abs=1e-4)


def test_checkpoints_answer_as_they_were(trained: Path, expander: Expander) -> None:
    """Training moved the policy by more than the reference above may be off, so that it is the adapter asked for that answers."""
    first = Expander(trained, 0)
    assert first.label.endswith(", step 0")
    old, new = (each.expand(5, "10*4 then + -", 5) for each in (first, expander))
    assert max(abs(a.logprob - b.logprob) for a, b in zip(old, new, strict=True)) > 1e-2
    with pytest.raises(InputError, match=r"has no checkpoint of step 7; expected one of 0, 1, 2"):
        Expander(trained, 7)


def test_many_are_drawn_in_parts_where_memory_is_short(expander: Expander, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = expander.expand(0, "9*4 then - -", 7)
    monkeypatch.setattr(expanding.room, "rows_at_once", lambda *_: 3)
    parts = expander.expand(0, "9*4 then - -", 7)
    assert [one.sample for one in parts] == list(range(7))
    assert [one.completion for one in parts] == [one.completion for one in whole]
    for a, b in zip(parts, whole, strict=True):
        assert a.logprob == pytest.approx(b.logprob, abs=1e-4)


def test_threads_are_answered_one_after_another(expander: Expander) -> None:
    alone = [expander.expand(task, "9*4 then - -", 3) for task in range(4)]
    together: dict[int, Any] = {}

    def draw(task: int) -> None:
        together[task] = expander.expand(task, "9*4 then - -", 3)

    threads = [threading.Thread(target=draw, args=(task,)) for task in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [together[task] for task in range(4)] == alone


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ((0, " \n\t"), "the sketch is empty"),
        ((0, "a\ud800b"), r"half a letter at place 1 \('\\ud800'\)"),
        (
            (0, "x " * 10_000),
            r"the task with this sketch takes \d+ tokens.*exceeds the model's \d+; shorten the sketch",
        ),
        ((0, "down", 0), "count = 0, expected at least 1 solution"),
        ((0, "down", 1, -1), r"seed = -1, expected a whole number from 0 to 2\^32 - 1"),
        ((-1, "down"), "task index: expected a whole number >= 0, got -1"),
    ],
)
def test_what_cannot_be_expanded_is_refused(expander: Expander, call: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        expander.expand(*call)


@pytest.mark.parametrize("attack", ATTACKS)
def test_hostile_sketches_are_words_to_the_policy(expander: Expander, attack: str) -> None:
    (one,) = expander.expand(0, attack, 1)
    assert one.sketch == attack and one.tokens >= 1


def test_a_run_without_checkpoints_or_policy_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no run folder"):
        Expander(tmp_path)
    with pytest.raises(InputError, match="no checkpoint yet; let it train on"):
        Expander(small_run(tmp_path / "new", steps=1))
    with pytest.raises(InputError, match=r"adapter_model\.safetensors"):
        Expander(folder)  # made by hand: its checkpoints hold no weights


def test_a_run_that_draws_without_sketches_expands_them_alike(trained: Path, tmp_path: Path) -> None:
    """Before the first update both runs have the same policy: how a run draws its groups makes no difference here."""
    shape = {**COUNTDOWN["sampler"], "name": "parallel"}
    path = train(Config.build(**{**COUNTDOWN, "sampler": shape}), tmp_path / "run")
    found, beside = (Expander(run, 0).expand(0, "10*4 then + -", 4) for run in (path, trained))
    assert [one.completion for one in found] == [one.completion for one in beside]
    assert [one.logprob for one in found] == [one.logprob for one in beside]


def test_the_recorded_prompts_are_asked(trained: Path, tmp_path: Path) -> None:
    """A run's own stage-II words, whatever the built-in ones are by now."""
    path = tmp_path / "run"
    shutil.copytree(trained, path)
    texts = json.loads((path / "prompts.json").read_text())
    name = next(name for name in texts if name.endswith("solve.txt"))
    said = Expander(path, 2).expand(0, "9*4 then - -", 4)
    texts[name] = texts[name].replace("{sketch}", "10 {sketch}")
    (path / "prompts.json").write_text(json.dumps(texts))
    assert [one.logprob for one in Expander(path, 2).expand(0, "9*4 then - -", 4)] != [one.logprob for one in said]


@pytest.fixture
def walks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setitem(registry.REGISTRY, "walks", (ToyOptions, Walks))
    Colours.asked.clear()
    model = tiny_models.save_model(
        tmp_path / "model", max_position_embeddings=2048, hidden_size=32, num_hidden_layers=1
    )
    return {
        "environment": {"name": "walks"},
        "policy": {"model": str(model), "device": "cpu"},
        "run": {"groups": 1, "steps": 1, "evaluate_every": 1, "checkpoint_every": 1, "trackers": "none"},
        "evaluation": {"eval_tasks": 1, "eval_samples": 2},
    }


@pytest.mark.parametrize("scope", ["episode", "turn"])
def test_episodes_of_several_turns_are_played(walks: dict[str, Any], scope: str, tmp_path: Path) -> None:
    """A chat model in a world of three turns: each solution is an episode, judged by the environment."""
    sampler = {"name": "sesa", "group_size": 4, "max_tokens": 6, "sketch_tokens": 5, "sketch_scope": scope}
    made = Expander(train(Config.build(**walks, sampler=sampler), tmp_path / "run"))
    found = made.expand(2, "go <|im_end|> east", 8)
    turns = [one.strategy.count(",") for one in found if one.strategy is not None]
    assert len(turns) == 8 and max(turns) == 3 and min(turns) < 3, "some end early, by chance"
    for one, played in zip(found, turns, strict=True):
        assert -0.25 * played <= one.reward <= played and one.tokens <= 6 * played and one.logprob < 0
        assert one.success == (one.reward == played)
    assert made.expand(2, "go <|im_end|> east", 8) == found


def test_the_inspector_with_the_policy_of_its_run(trained: Path, opened: Open) -> None:
    """The whole way: a run that was trained, its inspector, a message, solutions by the run's own policy."""
    widget = opened(trained, expander=Expander(trained))
    assert widget.step == 2
    row = runs.load(trained).read_rollouts(steps=[2]).iloc[0]
    assert isinstance(row, pd.Series) and widget.details[0]["sketch"]["text"] == row["sketch"]
    reader, _ = methods(trained)
    edited = sorted(reader.of_solutions(int(row["task"])) or [])[0]
    (answer,) = ask(widget, edited, step=2, candidate=0, count=4)
    assert "error" not in answer and answer["policy"].endswith(", step 2")
    assert len(answer["solutions"]) == 4 and sum(one["success"] for one in answer["solutions"]) >= 3
    assert torch.is_grad_enabled()
