"""Settings that make no sense beside each other, refused with the reason."""

from __future__ import annotations

import dataclasses
import math

from sesa_lab.errors import InputError
from sesa_lab.settings import RunConfig, SamplerConfig, UpdateConfig


def check_together(sampler: SamplerConfig, update: UpdateConfig, run: RunConfig) -> None:
    """Refuse settings that have no effect or no meaning beside the others, with the reason."""
    _check_sampler(sampler)
    _check_contexts(sampler, update)
    candidates = run.groups * sampler.group_size
    if candidates % update.minibatches:
        raise InputError(
            f"update.minibatches = {update.minibatches} does not divide the {candidates} candidates of a step"
            f" (run.groups {run.groups} x sampler.group_size {sampler.group_size})"
        )


def _check_sampler(sampler: SamplerConfig) -> None:
    if sampler.name == "parallel" and (sampler.on_policy_fraction not in (0.0, 1.0) or sampler.redraws):
        raise InputError(
            "sampler.on_policy_fraction and sampler.redraws belong to sampler.name = 'sequential' or 'sesa':"
            " a parallel group is on-policy throughout and has no history to repeat"
        )
    if sampler.name != "sesa":
        fields = {f.name: f.default for f in dataclasses.fields(sampler)}
        for name in ("expansions", "drafting", "drafting_form", "repeated_sketch", "sketch_scope"):
            if getattr(sampler, name) != fields[name]:
                raise InputError(f"sampler.{name} belongs to sampler.name = 'sesa', not to {sampler.name!r}")
        return
    guided = sampler.group_size - math.ceil(sampler.on_policy_fraction * sampler.group_size - 1e-9)
    if guided % sampler.expansions:
        raise InputError(
            f"sampler.expansions = {sampler.expansions} does not divide the {guided} candidates of a group that are drawn"
            f" with a sketch (group_size {sampler.group_size}, on_policy_fraction {sampler.on_policy_fraction:g})"
        )
    if sampler.drafting == "iid" and sampler.redraws:
        raise InputError("sampler.redraws makes no sense with sampler.drafting = 'iid': sketches have no history")


def _check_contexts(sampler: SamplerConfig, update: UpdateConfig) -> None:
    second = update.conditioning.removeprefix("task+")
    owner = {"history": "sequential", "sketch": "sesa"}
    if second in owner and sampler.name != owner[second]:
        raise InputError(
            f"update.conditioning = {update.conditioning!r} makes no sense with sampler.name = {sampler.name!r}: its"
            f" candidates have no {second}; it belongs to {owner[second]!r}"
        )
    if update.context_weight != 1.0 and "+" not in update.conditioning:
        raise InputError("update.context_weight belongs to update.conditioning = 'task+history' or 'task+sketch'")
    if update.train_sketches != "none" and sampler.name != "sesa":
        raise InputError(
            f"update.train_sketches: sampler.name = {sampler.name!r} has no sketches; it belongs to 'sesa'"
        )
    if update.sketch_weight != 1.0 and update.train_sketches == "none":
        raise InputError("update.sketch_weight makes no sense with update.train_sketches = 'none'")
    weighted = update.correction in ("truncated_is", "asymmetric", "ppo_clip")
    if sampler.name == "parallel" and update.correction_scope == "off_policy":
        raise InputError(
            "update.correction_scope = 'off_policy' makes no sense with sampler.name = 'parallel': no candidate is"
            " drawn off-policy; use 'all'"
        )
    if sampler.name == "parallel" and weighted:
        raise InputError(
            f"update.correction = {update.correction!r} makes no sense with sampler.name = 'parallel': candidates"
            " are trained under the context they were drawn under, so p/q = 1; use 'none' or 'positive_only'"
        )
    if update.conditioning in owner and weighted:
        raise InputError(
            f"update.correction = {update.correction!r} makes no sense with update.conditioning = {update.conditioning!r}:"
            " candidates are trained under the context they were drawn under, so p/q = 1"
        )
