"""Weights that can be checked with a pocket calculator, and predictions against the exact step of a table."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stored_runs import config, row, switched, without, write

from sesa_lab import playground
from sesa_lab.config import Config
from sesa_lab.errors import InputError
from sesa_lab.playground.compute import CORRECTIONS, predicted
from sesa_lab.runs import RunWriter
from sesa_lab.training import losses

# p/q of the whole answers: exp((-1 + 1.5) + (-2 + 1)), exp(-0.3 + 1), and 1 for the one drawn on-policy.
LOW, HIGH = math.exp(-0.5), math.exp(0.7)


def near(expected: list[float], **tolerance: float) -> Any:
    return pytest.approx(expected, **({"rel": 1e-6, "abs": 1e-12} | tolerance))  # token weights are float32


def weights(step: playground.Step, shift: float = 0.0, drift: float = 0.0, **update: Any) -> list[float]:
    found = playground.compute(step, playground.rule(step, shift, None, drift, **update))
    return list(found.tokens["weight"])


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        # -dL/dlog p = A w / 5 a token: dapo divides by the step's 2 + 1 + 2 tokens. A = 2, -1, -1.
        ({"correction": "none"}, [0.4, 0.4, -0.2, -0.2, -0.2]),
        ({"correction": "truncated_is", "truncation": 1.0}, [0.4 * LOW, 0.4 * LOW, -0.2, -0.2, -0.2]),
        ({"correction": "truncated_is", "truncation": 5.0}, [0.4 * LOW, 0.4 * LOW, -0.2 * HIGH, -0.2, -0.2]),
        ({"correction": "positive_only"}, [0.4, 0.4, 0.0, 0.0, 0.0]),
        ({"correction": "positive_only", "correction_scope": "off_policy"}, [0.4, 0.4, 0.0, -0.2, -0.2]),
        ({"correction": "asymmetric", "truncation": 1.0}, [0.4, 0.4, -0.2, -0.2, -0.2]),
        ({"correction": "asymmetric", "truncation": 1.5}, [0.4, 0.4, -0.3, -0.2, -0.2]),
        # The ratio is p/q token by token: e^0.5 > 1.2 with A > 0 is held back; e^-1 is free, and so is e^0.7 with A < 0.
        ({"correction": "ppo_clip"}, [0.0, 0.4 * math.exp(-1), -0.2 * HIGH, -0.2, -0.2]),
        # A w / (3 |y|), and A w / (3 x 8).
        ({"correction": "none", "loss": "grpo"}, [1 / 3, 1 / 3, -1 / 3, -1 / 6, -1 / 6]),
        ({"correction": "none", "loss": "dr_grpo"}, [1 / 12, 1 / 12, -1 / 24, -1 / 24, -1 / 24]),
    ],
)
def test_weights_by_hand(three: playground.Step, update: dict[str, Any], expected: list[float]) -> None:
    assert weights(three, **update) == near(expected)


def test_asymmetric_spares_good_finds_alone(tmp_path: Path) -> None:
    # Rewards, and so advantages, -1, 2, -1: the first is punished by e^-0.5 of its weight, the second has all of it.
    rewards = (-1.0, 2.0, -1.0)
    rows = [row(i, reward=r, credited=r) for i, r in enumerate(rewards)]
    step = playground.read(write(tmp_path / "run", rows))
    assert weights(step, correction="asymmetric") == near([-0.2 * LOW, -0.2 * LOW, 0.4, -0.2, -0.2])
    items = playground.compute(step, playground.rule(step, correction="asymmetric")).items
    assert list(items["importance"]) == near([LOW, 1.0, 1.0])
    assert list(items["ratio"]) == near([LOW, HIGH, 1.0])
    assert list(items["advantage"]) == list(rewards)
    assert list(items["weight"]) == near([-0.4 * LOW, 0.4, -0.4])


def test_loss_by_hand(three: playground.Step) -> None:
    # Ratios are 1: minus the sum of A / 5 over the tokens, -(2 * 2 - 1 - 2 * 1) / 5.
    assert playground.compute(three, playground.rule(three)).loss == pytest.approx(-0.2, rel=1e-6)


def test_the_clip_acts_beyond_its_boundary(three: playground.Step) -> None:
    # Log-ratio = shift. Above log 1.2 tokens with A > 0 have no gradient; with A < 0 it is A r / 5 on both sides.
    for shift, first in ((math.log(1.2) - 1e-6, 0.4 * 1.2), (math.log(1.2) + 1e-6, 0.0)):
        found = playground.compute(three, playground.rule(three, shift, correction="none"))
        assert list(found.tokens["weight"]) == near([first, first, -0.24, -0.24, -0.24], rel=1e-5)
        assert list(found.tokens["clipped"]) == [first == 0.0] * 2 + [False] * 3
        assert list(found.items["clipped"]) == [float(first == 0.0), 0.0, 0.0]
    for shift, others in ((math.log(0.8) + 1e-6, -0.2 * 0.8), (math.log(0.8) - 1e-6, 0.0)):
        assert weights(three, shift, correction="none") == near([0.32, 0.32, others, others, others], rel=1e-5)
    assert weights(three, 0.25, correction="none", clip_high=0.3)[:2] == near([0.4 * math.exp(0.25)] * 2)


def test_a_probability_never_moves_above_one(three: playground.Step) -> None:
    # The second answer has log p = -0.3: moved by 0.7 it stays at log-ratio 0.3.
    assert weights(three, 0.7, correction="none")[2] == pytest.approx(-0.2 * math.exp(0.3), rel=1e-6)


def test_one_candidate_may_move_alone(three: playground.Step) -> None:
    found = playground.compute(three, playground.rule(three, 0.1, (0, 2), correction="none"))
    assert list(found.tokens["weight"]) == near([0.4, 0.4, -0.2, *[-0.2 * math.exp(0.1)] * 2])


@pytest.mark.parametrize(("estimator", "slope"), [("k1", 1.0), ("k2", 0.5), ("k3", 1 - math.exp(-0.5))])
def test_kl_penalty_by_hand(three: playground.Step, estimator: str, slope: float) -> None:
    # d = log p - log r = drift = 0.5. Of k1 = d, k2 = d^2 / 2, k3 = e^-d - 1 + d the slopes are 1, d and 1 - e^-d.
    plain = weights(three, drift=0.5, correction="none")
    found = weights(three, drift=0.5, correction="none", kl_coef=0.1, kl_estimator=estimator)
    assert found == near([value - 0.1 * slope / 5 for value in plain])


def test_repeats_and_advantages(tmp_path: Path) -> None:
    # The second takes the first's strategy. count: 3, 3, 0 less 2; zero: 3, 0, 0 less 1, whatever the run's own rule was.
    rows = [row(i, reward=r, credited=r, strategy=s) for i, (r, s) in enumerate([(3.0, "a"), (3.0, "a"), (0.0, None)])]
    step = playground.read(write(tmp_path / "run", rows))
    assert [member.repeat for member in step.members] == [False, True, False]
    assert step.repeats == ["count", "zero"]
    found = {r: playground.compute(step, playground.rule(step, repeats=r)).items["advantage"] for r in step.repeats}
    assert {r: list(a) for r, a in found.items()} == {"count": [1.0, 1.0, -2.0], "zero": [2.0, -1.0, -1.0]}
    scaled = playground.compute(step, playground.rule(step, repeats="zero", advantage="std")).items["advantage"]
    assert list(scaled) == near([2 / 3**0.5, -1 / 3**0.5, -1 / 3**0.5])  # s.d. (n - 1) of 3, 0, 0: sqrt(3)


def test_the_environments_own_rule_is_known_by_what_it_credited(tmp_path: Path) -> None:
    rows = [row(i, reward=3.0, credited=c, strategy="a") for i, c in enumerate([3.0, 0.0, 0.0])]
    own = playground.read(write(tmp_path / "own", rows, config(repeats="environment")))
    assert own.repeats == ["environment", "count", "zero"]
    assert list(playground.compute(own, playground.rule(own)).items["advantage"]) == [2.0, -1.0, -1.0]
    other = playground.read(write(tmp_path / "other", rows))
    with pytest.raises(InputError, match=r"repeats = 'environment'.*choose from count, zero"):
        playground.compute(other, playground.rule(other, repeats="environment"))


def test_other_contexts_that_the_run_stored(three: playground.Step) -> None:
    assert three.conditionings == ["task", "history", "task+history"]
    # Under what they were drawn under all are on-policy, and no correction acts.
    for correction in CORRECTIONS:
        if correction != "positive_only":
            assert weights(three, conditioning="history", correction=correction) == near([0.4, 0.4, -0.2, -0.2, -0.2])
    # Both: first terms, then those of the two that have a second one, weighted; scales count each candidate once.
    both = playground.compute(
        three, playground.rule(three, conditioning="task+history", context_weight=0.5, correction="truncated_is")
    )
    assert list(both.items["kind"]) == ["task", "task", "task", "history", "history"]
    assert list(both.items["second"]) == [False] * 3 + [True] * 2
    assert list(both.tokens["weight"]) == near([0.4 * LOW, 0.4 * LOW, -0.2, -0.2, -0.2, 0.2, 0.2, -0.1])


def test_transfer_leaves_the_first_likelihood_of_guided_answers_out_where_one_without_a_sketch_succeeded(
    tmp_path: Path,
) -> None:
    settings = Config.build(
        sampler={"name": "sesa", "group_size": 3, "max_tokens": 8, "on_policy_fraction": 0.3},
        update={"conditioning": "task+sketch", "transfer": "unsolved", "advantage": "mean", "repeats": "count"},
        run={"groups": 1, "trackers": "none"},
    )
    guided = {"history": [], "sketch": "so", "drawn_under": "sketch", "trained_under": "task+sketch", "success": False}
    rows = [row(n, sketches=[n], **guided) for n in range(2)] + [row(2, success=True)]
    step = playground.read(write(tmp_path / "solved", rows, settings))
    # Second terms keep A = 2 and -1; of the first ones only that of the answer drawn without a sketch is left.
    assert weights(step) == near([0.0, 0.0, 0.0, -0.2, -0.2, 0.4, 0.4, -0.2])
    assert weights(step, conditioning="task") == near(
        [0.4, 0.4, -0.2, -0.2, -0.2]
    )  # the rule belongs to two likelihoods
    rows[2]["success"] = False
    step = playground.read(write(tmp_path / "unsolved", rows, settings))
    assert weights(step) == near([0.4, 0.4, -0.2, -0.2, -0.2, 0.4, 0.4, -0.2])


def test_contexts_that_the_run_did_not_store(tmp_path: Path) -> None:
    rows = [row(i, trained_under="history" if i < 2 else "task") for i in range(3)]
    step = playground.read(write(tmp_path / "run", rows, config(conditioning="history")))
    assert step.conditionings == ["history"]
    with pytest.raises(InputError, match=r"conditioning = 'task': the run stored log-probs for history alone"):
        playground.rule(step, conditioning="task")


def test_groups_without_a_difference_have_weight_zero(tmp_path: Path) -> None:
    rows = [row(i, reward=1.0, credited=1.0) for i in range(3)] + [row(3, group=1, index=0, token_ids=[], old_logprobs=[],
            drawn_logprobs=[], turn_tokens=[0], completion="")]  # fmt: skip
    step = playground.read(write(tmp_path / "run", rows))  # the second group is one candidate that said nothing
    for result in playground.compare(step, playground.rule(step, advantage="std")).values():
        assert (result.tokens[["weight", "change"]] == 0).all(axis=None)
        assert result.items[["advantage", "weight", "change", "clipped"]].notna().all(axis=None)
        assert abs(result.loss) == 0.0


def test_a_correction_changes_nothing_else(three: playground.Step) -> None:
    found = playground.compare(three, playground.rule(three))
    assert tuple(found) == CORRECTIONS
    for correction, result in found.items():
        assert list(result.tokens["weight"]) == weights(three, correction=correction)


# --- the prediction ---


def exact(
    table: dict[tuple[int, ...], torch.Tensor],
    answers: list[tuple[int, ...]],
    advantage: torch.Tensor,
    eta: float,
    temperature: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(slope, p, action, prefix) of every token, and the change of its log-prob by one exact step of size ``eta``."""
    logits = {prefix: values.clone().requires_grad_() for prefix, values in table.items()}
    places = [(answer[:t], answer[t]) for answer in answers for t in range(len(answer))]
    item = torch.tensor([n for n, answer in enumerate(answers) for _ in answer])

    def logprobs() -> torch.Tensor:
        return torch.stack([(logits[prefix] / temperature).log_softmax(-1)[token] for prefix, token in places])

    now = logprobs()
    drawn = now.detach() + torch.linspace(-0.5, 0.5, len(now), dtype=torch.float64)
    rule = config(correction="truncated_is").update
    everybody = torch.ones(len(answers), dtype=torch.bool)
    corrected = losses.correct(rule, now.detach(), drawn, advantage, item, everybody)
    loss = losses.policy_terms(rule, now, now.detach(), drawn, corrected, item)[0].sum()
    slope = torch.autograd.grad(loss, now, retain_graph=True)[0]
    loss.backward()
    with torch.no_grad():
        for values in logits.values():
            values -= eta * (values.grad if values.grad is not None else 0)
        change = (logprobs() - now.detach()) / eta
    pairs = {pair: n for n, pair in enumerate(dict.fromkeys(places))}
    prefixes = {prefix: n for n, prefix in enumerate(dict.fromkeys(prefix for prefix, _ in pairs))}
    action = torch.tensor([pairs[place] for place in places])
    return slope, now.detach().exp(), action, torch.tensor([prefixes[prefix] for prefix, _ in pairs]), change


def table(width: int) -> dict[tuple[int, ...], torch.Tensor]:
    """Logits of a policy over words of two tokens out of ``width``."""
    draw = torch.Generator().manual_seed(0)
    prefixes: list[tuple[int, ...]] = [(), *((a,) for a in range(width))]
    return {prefix: torch.randn(width, generator=draw, dtype=torch.float64) for prefix in prefixes}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_prediction_is_the_exact_step_of_a_table_where_all_tokens_were_drawn(temperature: float) -> None:
    answers = [*itertools.product(range(3), repeat=2), (0, 1), (2, 2)]  # all of them, two twice
    advantage = torch.linspace(-1.0, 2.0, len(answers), dtype=torch.float64)
    # What is left out is of order eta: halved steps have half the error.
    errors = []
    for eta in (1e-4, 5e-5):
        slope, p, action, prefix, change = exact(table(3), answers, advantage, eta, temperature)
        found = predicted(slope, p, action, prefix, temperature)
        assert float(found.abs().max()) > 0.1
        errors.append(float((found - change).abs().max()))
    assert errors[0] < 1e-3 * max(1.0, temperature**-4)
    assert errors[1] / errors[0] == pytest.approx(0.5, abs=0.02)


def test_prediction_is_within_its_bound_where_tokens_were_not_drawn() -> None:
    answers = [(0, 1), (0, 2), (3, 1), (5, 5)]
    slope, p, action, prefix, change = exact(table(6), answers, torch.tensor([1.0, -0.5, 2.0, -1.0]).double(), 1e-6)
    found = predicted(slope, p, action, prefix, 1.0)
    for n in range(int(prefix.max()) + 1):
        here = prefix[action] == n
        left = 1 - float(p[here].sum()) if len(set(action[here].tolist())) == int(here.sum()) else None
        if left is None:  # the root: (0,) is drawn twice there
            left = 1 - sum(float(p[action == a][0]) for a in set(action[here].tolist()))
        bound = abs(float(slope[here].sum())) * left**2
        assert float((found - change)[here].abs().max()) <= bound + 1e-4


def test_one_token_answers_are_the_softmax_bandit() -> None:
    # p = 0.5, 0.3, 0.2; L = -log p_0: W = (-1, 0, 0), g = (0.5, -0.3, -0.2), sum p g = 0.12.
    found = predicted(
        torch.tensor([-1.0, 0.0, 0.0]),
        torch.tensor([0.5, 0.3, 0.2]),
        torch.tensor([0, 1, 2]),
        torch.zeros(3, dtype=torch.int64),
        1.0,
    )
    assert found.tolist() == pytest.approx([0.38, -0.42, -0.32])


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_prediction_is_at_the_steps_own_temperature(three: playground.Step, temperature: float) -> None:
    own = dataclasses.replace(three.config.sampler, temperature=temperature)
    tempered = dataclasses.replace(three, config=dataclasses.replace(three.config, sampler=own))
    found, at_one = (playground.compute(step, playground.rule(step)).tokens for step in (tempered, three))
    # The same log-probs have the same weights; a step on logits, and what it does, are both divided by T.
    assert list(found["weight"]) == list(at_one["weight"])
    assert list(found["change"]) == near([change / temperature**2 for change in at_one["change"]])
    assert at_one["change"].abs().min() > 0.01


def test_answers_that_begin_alike_share_what_they_begin_with(tmp_path: Path) -> None:
    # Answers (1, 2) and (1, 3): what raises the first token of one raises that of the other; the second tokens part.
    pair = {"history": [], "drawn_under": "task", "old_logprobs": [-0.7, -0.7], "drawn_logprobs": [-0.7, -0.7]}
    rows = [row(0, token_ids=[1, 2], **pair), row(2, index=1, token_ids=[1, 3], turn_tokens=[2], **pair)]
    step = playground.read(write(tmp_path / "run", rows))
    first, _, second, _ = playground.compute(step, playground.rule(step)).tokens["change"]
    assert first == second == pytest.approx(0.0)  # rewards 2 and -1: advantages 1.5 and -1.5 cancel
    apart = [dict(r, history=[f"h{n}"], drawn_under="history", trained_under="history") for n, r in enumerate(rows)]
    other = playground.read(write(tmp_path / "other", apart, config(conditioning="history")))
    first, _, second, _ = playground.compute(other, playground.rule(other)).tokens["change"]
    assert first > 0 > second  # after other histories: other prefixes


def test_turns_of_other_episodes_are_other_prefixes(tmp_path: Path) -> None:
    # The same words in two turns; seeds 1 and 2: after the first turn the environment may have said something else.
    turns = {"token_ids": [1, 2], "turns": ["a", "b"], "turn_tokens": [1, 1], "history": [], "drawn_under": "task",
             "old_logprobs": [-0.7, -0.7], "drawn_logprobs": [-0.7, -0.7], "turn_rewards": [0.0, 0.0]}  # fmt: skip
    rows = [row(0, episode_seed=1.0, **turns), row(2, index=1, episode_seed=2.0, **turns)]
    step = playground.read(write(tmp_path / "run", rows))
    changes = list(playground.compute(step, playground.rule(step)).tokens["change"])
    assert changes[0] == changes[2] == pytest.approx(0.0)
    assert changes[1] > 0 > changes[3]


# --- what cannot be read ---


def test_steps_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        playground.read(tmp_path / "nowhere")
    run = write(tmp_path / "run", [row(0), row(1), row(2), *(row(i, step=4) for i in range(3))])
    assert playground.read(run).number == 4
    assert playground.read(run, 1).number == 1
    for number in (2, 5, -1, True):
        with pytest.raises(InputError, match=rf"step {number} is not among .*; there are step 1, 4"):
            playground.read(run, number)
    with RunWriter.create(tmp_path / "empty", config()) as writer:
        writer.commit(0, lambda folder: (folder / "state").write_text("state"))
    with pytest.raises(InputError, match="no stored rollouts yet"):
        playground.read(tmp_path / "empty")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"reward": math.nan}, "reward is not finite"),
        ({"credited": None}, "credited is not finite"),
        ({"old_logprobs": [-1.0]}, "1 old_logprobs for 2 tokens"),
        ({"drawn_logprobs": [-1.0, -math.inf]}, "drawn_logprobs is not finite"),
    ],
)
def test_rows_that_cannot_be_weighed(tmp_path: Path, values: dict[str, Any], said: str) -> None:
    run = write(tmp_path / "run", [row(0, **values), row(1), row(2)])
    with pytest.raises(InputError, match=f"group 0, candidate 0: {said}"):
        playground.read(run)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"corection": "none"}, "unknown option update.corection; did you mean 'correction'"),
        ({"correction": "clip"}, "update.correction = 'clip' is unknown"),
        ({"clip_low": 1.5}, "update.clip_low = 1.5 is out of range"),
        ({"truncation": math.nan}, "update.truncation: expected a finite number"),
        ({"shift": math.inf}, "expected finite numbers"),
        ({"moved": (0, 9)}, r"moved = \(0, 9\): step 1 has no such"),
    ],
)
def test_rules_that_make_no_sense(three: playground.Step, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        playground.rule(three, **arguments)


def test_an_older_run_has_no_log_probs_of_an_engine(tmp_path: Path) -> None:
    rows = [row(0), row(1), row(2)]
    older = playground.read(without(write(tmp_path / "older", rows), "engine_logprobs"))
    newer = playground.read(write(tmp_path / "newer", rows))
    assert older.members == newer.members
    assert older.members[0].engine == older.members[0].drawn


def test_a_run_that_is_too_old_says_what_it_lacks(tmp_path: Path) -> None:
    run = without(write(tmp_path / "run", [row(0), row(1), row(2)]), "turn_tokens", "old_logprobs")
    with pytest.raises(InputError, match=r"group 0, candidate 0: no turn_tokens, old_logprobs; .* choose a newer run"):
        playground.read(run)


def test_settings_after_a_switch_are_those_of_the_switch(tmp_path: Path) -> None:
    run = switched(tmp_path / "run", correction="positive_only")
    before, after = (playground.read(run, number).config.update for number in (1, 2))
    assert (before.correction, after.correction) == ("none", "positive_only")
    assert dataclasses.replace(after, correction="none") == before


def test_mismatch_with_an_engine_weighs_as_the_run_did(tmp_path: Path) -> None:
    # Trainer's q / engine's q = e^0.5 and e^1 on the first answer's tokens, cut at 2.
    rows = [row(0, engine_logprobs=[-2.0, -2.0]), row(1), row(2)]
    settings = config().to_dict()
    settings["engine"]["name"], settings["update"]["mismatch"] = "vllm", "truncated_is"
    step = playground.read(write(tmp_path / "run", rows, Config.from_dict(settings)))
    assert weights(step, correction="none") == near([0.4 * math.exp(0.5), 0.4 * 2.0, -0.2, -0.2, -0.2])


def test_tables_are_whole(three: playground.Step) -> None:
    found = playground.compute(three, playground.rule(three))
    assert list(found.tokens["token"]) == [11, 12, 13, 14, 15]
    assert list(found.tokens["place"]) == [0, 1, 0, 0, 1]
    sums = found.tokens.groupby("item")[["weight", "change"]].sum()
    np.testing.assert_allclose(sums, found.items[["weight", "change"]], rtol=0, atol=1e-15)
