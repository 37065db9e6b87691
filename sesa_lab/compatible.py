"""Settings beside each other: those that have no effect, and those that do not fit together.

What has no effect is refused, with the reason, where the user asked for it; where only a preset did, ``config.Config.build``
leaves it out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

from sesa_lab.errors import InputError
from sesa_lab.settings import EngineConfig, EvaluationConfig, RunConfig, SamplerConfig, UpdateConfig, WatchConfig

Setting = tuple[str, str]
"""(section, field)."""

_OF_SKETCHES = ("expansions", "drafting", "drafting_form", "repeated_sketch", "sketch_scope")
_OWNER = {"history": "sequential", "sketch": "sesa"}
"""Context beside the task's own -> the sampler that draws under it."""
_ENGINES_OF = {
    "server_url": ("server",),
    "patience": ("server",),
    "connections": ("server",),
    "adapter_folder": ("vllm", "server"),
}
"""Setting of engines -> those that have it; the others are vllm's alone."""
_ONE_SKETCH = "one sketch a group (sampler.expansions = all that is drawn with a sketch)"


@dataclass(frozen=True)
class Idle:
    """Settings that have no effect, or no meaning, beside the others.

    Attributes:
        settings: which.
        reason: one line that names them and says why.
    """

    settings: tuple[Setting, ...]
    reason: str


def check_together(
    sampler: SamplerConfig,
    update: UpdateConfig,
    run: RunConfig,
    evaluation: EvaluationConfig,
    engine: EngineConfig,
) -> None:
    """Refuse settings that have no effect or no meaning beside the others.

    Raises:
        InputError: with the reason.
    """
    for found in idle(sampler, update, evaluation, engine):
        raise InputError(found.reason)
    candidates = run.groups * sampler.group_size
    if candidates % update.minibatches:
        raise InputError(
            f"update.minibatches = {update.minibatches} does not divide the {candidates} candidates of a step"
            f" (run.groups {run.groups} x sampler.group_size {sampler.group_size})"
        )
    if sampler.name == "sesa" and _guided(sampler) % sampler.expansions:
        raise InputError(
            f"sampler.expansions = {sampler.expansions} does not divide the {_guided(sampler)} candidates of a group that are"
            f" drawn with a sketch (group_size {sampler.group_size}, on_policy_fraction {sampler.on_policy_fraction:g})"
        )


def check_watch(watch: WatchConfig) -> None:
    """Refuse settings of the watch that have no effect, and a switch that says not to what.

    Raises:
        InputError: with the reason.
    """
    for field in dataclasses.fields(watch):
        set_ = getattr(watch, field.name) != (field.default if field.name != "switch" else {})
        if field.name != "on_alarm" and set_ and watch.on_alarm == "none":
            raise InputError(
                f"watch.{field.name} makes no sense with watch.on_alarm = 'none': nobody watches; use 'report'"
            )
    if watch.switch and watch.on_alarm != "switch":
        raise InputError(f"watch.switch belongs to watch.on_alarm = 'switch', not to {watch.on_alarm!r}")
    if watch.on_alarm == "switch" and not watch.switch:
        raise InputError(
            "watch.on_alarm = 'switch' needs watch.switch, settings to go on with, e.g. --switch sampler=sequential"
            " --switch repeats=zero"
        )


def idle(
    sampler: SamplerConfig, update: UpdateConfig, evaluation: EvaluationConfig, engine: EngineConfig
) -> Iterator[Idle]:
    """Every setting that differs from its default and has no effect beside the others."""
    yield from _of_the_engine(engine, update)
    yield from _of_the_sampler(sampler)
    yield from _of_contexts(sampler, update)
    yield from _of_sketches(sampler, update)
    yield from _of_corrections(sampler, update)
    if update.kl_estimator != UpdateConfig.kl_estimator and update.kl_coef == 0.0:
        yield _update(f"kl_estimator = {update.kl_estimator!r} makes no sense with update.kl_coef = 0", "kl_estimator")
    if evaluation.test_guided == "yes" and not evaluation.test_tasks:
        yield Idle(
            (("evaluation", "test_guided"),),
            "evaluation.test_guided = 'yes' makes no sense with evaluation.test_tasks = 0: there is no test to draw for; set"
            " test_tasks",
        )


def _of_the_engine(engine: EngineConfig, update: UpdateConfig) -> Iterator[Idle]:
    for field in dataclasses.fields(engine):
        owners = _ENGINES_OF.get(field.name, ("vllm",))
        if field.name != "name" and engine.name not in owners and getattr(engine, field.name) != field.default:
            named = " or ".join(map(repr, owners))
            yield Idle(
                (("engine", field.name),),
                f"engine.{field.name} belongs to engine.name = {named}, not to {engine.name!r}",
            )
    if update.mismatch != "none" and engine.name == "torch":
        yield _update(
            f"mismatch = {update.mismatch!r} makes no sense with engine.name = 'torch': it draws from the trained weights"
            " themselves, and its log-probs are the trainer's",
            "mismatch",
        )
    if update.mismatch_truncation != UpdateConfig.mismatch_truncation and update.mismatch == "none":
        yield _update("mismatch_truncation makes no sense with update.mismatch = 'none'", "mismatch_truncation")


def _guided(sampler: SamplerConfig) -> int:
    """Candidates of a group that are not drawn given the task alone."""
    if sampler.name == "parallel":
        return 0
    return sampler.group_size - math.ceil(sampler.on_policy_fraction * sampler.group_size - 1e-9)


def _off_policy(sampler: SamplerConfig) -> int:
    """Candidates of a group drawn under more than the task: the first of a sequence is not."""
    return max(0, _guided(sampler) - 1) if sampler.name == "sequential" else _guided(sampler)


def _one_sketch(sampler: SamplerConfig) -> bool:
    return sampler.name == "sesa" and _guided(sampler) == sampler.expansions


def _of_the_sampler(sampler: SamplerConfig) -> Iterator[Idle]:
    if sampler.name == "parallel" and (sampler.on_policy_fraction not in (0.0, 1.0) or sampler.redraws):
        yield Idle(
            (("sampler", "on_policy_fraction"), ("sampler", "redraws")),
            "sampler.on_policy_fraction and sampler.redraws belong to sampler.name = 'sequential' or 'sesa':"
            " a parallel group is on-policy throughout and has no history to repeat",
        )
    fields = {field.name: field.default for field in dataclasses.fields(sampler)}
    names = [*_OF_SKETCHES, *(["redraws"] if sampler.name != "parallel" else [])]
    for name in (name for name in names if getattr(sampler, name) != fields[name]):
        if sampler.name != "sesa" and name in _OF_SKETCHES:
            yield Idle(
                (("sampler", name),), f"sampler.{name} belongs to sampler.name = 'sesa', not to {sampler.name!r}"
            )
        elif not _off_policy(sampler):
            yield Idle((("sampler", name),), f"sampler.{name} makes no sense with {_all_direct(sampler)}")
        elif name == "drafting" and _one_sketch(sampler):  # redraws and repeated_sketch act on it where it is empty
            yield Idle((("sampler", name),), f"sampler.drafting = 'iid' makes no sense with {_ONE_SKETCH}")
    if sampler.name == "sesa" and sampler.drafting == "iid" and sampler.redraws:
        yield Idle(
            (("sampler", "redraws"),),
            "sampler.redraws makes no sense with sampler.drafting = 'iid': sketches have no history",
        )


def _all_direct(sampler: SamplerConfig) -> str:
    return (
        f"sampler.on_policy_fraction = {sampler.on_policy_fraction:g}: all candidates of a group are drawn given the task"
        " alone" + (", as the first of a sequence is" if _guided(sampler) else "")
    )


def _of_contexts(sampler: SamplerConfig, update: UpdateConfig) -> Iterator[Idle]:
    second = update.conditioning.removeprefix("task+")
    if second in _OWNER and sampler.name != _OWNER[second]:
        yield _update(
            f"conditioning = {update.conditioning!r} makes no sense with sampler.name = {sampler.name!r}: its"
            f" candidates have no {second}; it belongs to {_OWNER[second]!r}",
            "conditioning",
        )
    elif second in _OWNER and not _off_policy(sampler):
        yield _update(
            f"conditioning = {update.conditioning!r} makes no sense with {_all_direct(sampler)}", "conditioning"
        )
    if update.context_weight != UpdateConfig.context_weight and "+" not in update.conditioning:
        yield _update(
            "context_weight belongs to update.conditioning = 'task+history' or 'task+sketch'", "context_weight"
        )
    if update.transfer == UpdateConfig.transfer:
        return
    if update.conditioning != "task+sketch":
        yield _update(
            f"transfer = {update.transfer!r} belongs to update.conditioning = 'task+sketch', not to"
            f" {update.conditioning!r}: it chooses whether the first of two likelihoods is trained",
            "transfer",
        )
    dropping = sampler.repeated_sketch == "drop" and not _one_sketch(sampler)  # then some may have no sketch, or all
    if sampler.on_policy_fraction == 0.0 and not dropping:
        yield _update(
            f"transfer = {update.transfer!r} makes no sense with sampler.on_policy_fraction = 0: without candidates"
            " drawn given the task alone, no group counts as solved",
            "transfer",
        )


def _of_sketches(sampler: SamplerConfig, update: UpdateConfig) -> Iterator[Idle]:
    if update.train_sketches != "none" and sampler.name != "sesa":
        yield _update(
            f"train_sketches: sampler.name = {sampler.name!r} has no sketches; it belongs to 'sesa'", "train_sketches"
        )
    elif update.train_sketches != "none" and not _guided(sampler):
        yield _update(f"train_sketches makes no sense with {_all_direct(sampler)}", "train_sketches")
    elif update.train_sketches != "none" and _one_sketch(sampler) and sampler.sketch_scope == "episode":
        yield _update(
            f"train_sketches makes no sense with {_ONE_SKETCH}: its reward is compared with none, so its advantage is always 0",
            "train_sketches",
        )
    if update.sketch_weight != UpdateConfig.sketch_weight and update.train_sketches == "none":
        yield _update("sketch_weight makes no sense with update.train_sketches = 'none'", "sketch_weight")


def _of_corrections(sampler: SamplerConfig, update: UpdateConfig) -> Iterator[Idle]:
    on_policy = _on_policy(sampler, update)
    if on_policy and update.correction_scope == "off_policy":
        # Where nothing is off-policy, a correction of that scope does nothing either.
        yield _update(
            f"correction_scope = 'off_policy' makes no sense with {on_policy}: no candidate is drawn off-policy; use 'all'",
            "correction_scope",
            "correction",
        )
    # Beside none and asymmetric it has no effect either, but names what they do: experiments, and their stored runs, have it.
    if update.correction_scope == "off_policy" and update.correction in ("truncated_is", "ppo_clip"):
        yield _update(
            f"correction_scope = 'off_policy' belongs to update.correction = 'positive_only', not to {update.correction!r}",
            "correction_scope",
        )
    if on_policy and update.correction in ("truncated_is", "asymmetric", "ppo_clip"):
        yield _update(
            f"correction = {update.correction!r} makes no sense with {on_policy}: candidates are trained under the context"
            " they were drawn under, so p/q = 1; use 'none' or 'positive_only'",
            "correction",
        )
    if update.truncation != UpdateConfig.truncation and update.correction not in ("truncated_is", "asymmetric"):
        yield _update(
            f"truncation belongs to update.correction = 'truncated_is' or 'asymmetric', not to {update.correction!r}",
            "truncation",
        )
    clip = [name for name in ("clip_low", "clip_high") if getattr(update, name) != getattr(UpdateConfig, name)]
    if clip and update.epochs * update.minibatches == 1 and update.correction != "ppo_clip":
        yield _update(
            f"{clip[0]} makes no sense with update.epochs = 1 and update.minibatches = 1: in the only optimiser step of a rollout"
            " the policy is the one that drew it, and no ratio is clipped",
            *clip,
        )


def _on_policy(sampler: SamplerConfig, update: UpdateConfig) -> str:
    """What makes every candidate trained under the context it was drawn under; empty: nothing does."""
    if sampler.name == "parallel":
        return "sampler.name = 'parallel'"
    if update.conditioning in _OWNER:
        return f"update.conditioning = {update.conditioning!r}"
    return "" if _off_policy(sampler) else f"sampler.on_policy_fraction = {sampler.on_policy_fraction:g}"


def _update(reason: str, *names: str) -> Idle:
    return Idle(tuple(("update", name) for name in names), f"update.{reason}")
