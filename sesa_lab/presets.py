"""Presets: named bundles of settings, by environment. Data only; ``Config.build`` reads them."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, dict[str, dict[str, Any]]]] = {
    "paper": {
        "path_exploration": {
            "sampler": {"name": "sequential"},
            "update": {"conditioning": "task", "correction": "none", "repeats": "count"},
        },
        # RAGEN's defaults, which SESA trains with: 8 groups of 16, four optimiser steps of 32, KL in the loss.
        "": {
            "environment": {"options": {"preset": "paper"}},
            "sampler": {"name": "sesa", "group_size": 16, "max_tokens": 400, "sketch_tokens": 64, "drafting_form": "prompt"},
            "update": {
                "conditioning": "task", "correction": "none", "repeats": "count", "kl_coef": 0.001, "kl_estimator": "k1",
                "entropy_coef": 0.001, "minibatches": 4,
            },
            "run": {"groups": 8, "steps": 200},
        },
    },
    "lab": {
        "path_exploration": {
            "sampler": {"name": "sequential"},
            "update": {"conditioning": "task", "correction": "asymmetric", "repeats": "zero"},
        },
        "": {
            "sampler": {"name": "sesa", "group_size": 16, "max_tokens": 32, "on_policy_fraction": 0.5},
            "update": {
                "conditioning": "task+sketch", "correction": "positive_only", "correction_scope": "off_policy",
                "repeats": "zero",
            },
        },
    },
}  # fmt: skip
"""Name -> environment ("": any other) -> settings that differ from the defaults."""
