"""Presets: named bundles of settings, by environment. Data only; ``Config.build`` reads them.

``paper``: the paper's rule, as far as it is known, and for the agents RAGEN's settings, which it trains with. ``lab``: what
worked best in our own measurements (reports/LOG.md).
"""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, dict[str, dict[str, Any]]]] = {
    "paper": {
        "path_exploration": {
            "sampler": {"name": "sequential"},
            "update": {"conditioning": "task", "correction": "none", "repeats": "count"},
        },
        # RAGEN's defaults: 8 groups of 16, four optimiser steps of 32, k1 KL of 0.001 in the loss, 200 steps, every 10 of
        # them 256 fixed validation tasks, each tried once at temperature 0.5. What still differs from RAGEN: LoRA instead of
        # full fine-tuning (so 1e-5 where RAGEN has 1e-6: an adapter needs about ten times the step size); no dual clip at 3;
        # our own words of the prompts, in one user turn without a system message; dialogues are not cut at 3600 tokens; the
        # reward that a turn is told holds its penalty; tasks are parted by content, so that validation never meets training;
        # Countdown's are drawn by us unless `file` names the public set.
        "": {
            "environment": {"options": {"preset": "paper"}},
            "sampler": {"name": "sesa", "group_size": 16, "max_tokens": 400, "sketch_tokens": 64, "drafting_form": "prompt"},
            "update": {
                "learning_rate": 1e-5, "conditioning": "task", "correction": "none", "repeats": "count", "kl_coef": 0.001,
                "kl_estimator": "k1", "entropy_coef": 0.001, "minibatches": 4,
            },
            "run": {"groups": 8, "steps": 200},
            "evaluation": {"eval_tasks": 256, "eval_samples": 1, "eval_temperature": 0.5},
        },
    },
    "lab": {
        "path_exploration": {
            "sampler": {"name": "sequential"},
            "update": {"conditioning": "task", "correction": "asymmetric", "repeats": "zero"},
        },
        "": {
            "sampler": {"name": "sesa", "group_size": 16, "max_tokens": 32, "on_policy_fraction": 0.75},
            "update": {
                "conditioning": "task+sketch", "correction": "positive_only", "correction_scope": "off_policy",
                "transfer": "unsolved", "repeats": "zero", "minibatches": 2, "learning_rate": 3e-4,
            },
        },
    },
}  # fmt: skip
"""Name -> environment ("": any other) -> settings that differ from the defaults."""
