"""Columns of the tables in a run folder, with fixed types.

Types are never guessed from values: a part whose histories are all empty or whose strategies are all null has the same
schema as any other, so parts always concatenate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

# Columns of metrics.jsonl by kind; CONTRIBUTING.md says what each means. Other keys may be logged and come after these.
METRICS: dict[str, tuple[str, ...]] = {
    "step": (
        "step", "reward", "credited", "success", "valid", "found", "distinct", "duplicates", "redraws", "length",
        "truncated", "turns", "success_guided", "success_direct", "sketch_repeats", "sketch_length", "entropy",
        "approx_kl", "kl_base", "clip_fraction", "weight_mean", "weight_ess", "mismatch_mean", "mismatch_max",
        "mismatch_ess", "zero_variance", "grad_norm", "loss", "tokens_sampled", "tokens_sketches", "tokens_prefilled",
        "tokens_trained", "tokens_total", "seconds_draw", "seconds_score", "seconds_update", "peak_memory_mb",
    ),
    "evaluation": (
        "step", "accuracy", "coverage", "coverage_k", "entropy", "valid_mass", "kl_uniform", "tokens_total",
        "seconds_total",
    ),
    "test": ("step", "guided", "accuracy", "entropy", "tokens_total", "seconds_total"),
    "alarm": (
        "step", "onset", "action", "down", "breadth_loss", "live_loss", "spread_loss", "entropy_loss", "success_loss",
    ),
}  # fmt: skip


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


# float64 throughout: what was computed is what is stored. Nullable: strategy, and numbers that may be undefined.
ROLLOUTS = pa.schema(
    [
        _required("step", pa.int64()),
        _required("group", pa.int64()),
        _required("index", pa.int64()),
        _required("task", pa.int64()),
        _required("prompt", pa.string()),
        _required("history", pa.list_(pa.string())),
        pa.field("sketch", pa.string()),
        _required("sketches", pa.list_(pa.int32())),
        _required("completion", pa.string()),
        _required("token_ids", pa.list_(pa.int32())),
        _required("turns", pa.list_(pa.string())),
        _required("turn_tokens", pa.list_(pa.int32())),
        _required("turn_rewards", pa.list_(pa.float64())),
        pa.field("episode_seed", pa.float64()),  # whole, below 2^32; null where the answer was judged whole
        _required("finish", pa.string()),
        _required("drawn_under", pa.string()),
        _required("drawn_logprobs", pa.list_(pa.float64())),
        _required("engine_logprobs", pa.list_(pa.float64())),
        _required("trained_under", pa.string()),
        _required("old_logprobs", pa.list_(pa.float64())),
        _required("old_entropies", pa.list_(pa.float64())),
        pa.field("weight", pa.float64()),
        pa.field("reward", pa.float64()),
        pa.field("credited", pa.float64()),
        _required("success", pa.bool_()),
        pa.field("strategy", pa.string()),
        pa.field("advantage", pa.float64()),
        _required("redraws", pa.int64()),
        _required("sampled_tokens", pa.int64()),
    ]
)
SKETCHES = pa.schema(
    [
        _required("step", pa.int64()),
        _required("group", pa.int64()),
        _required("index", pa.int64()),
        _required("task", pa.int64()),
        _required("text", pa.string()),
        _required("token_ids", pa.list_(pa.int32())),
        _required("logprobs", pa.list_(pa.float64())),
        _required("finish", pa.string()),
        _required("repeats", pa.bool_()),
        _required("redraws", pa.int64()),
        _required("sampled_tokens", pa.int64()),
        pa.field("reward", pa.float64()),
        pa.field("advantage", pa.float64()),
    ]
)
EVALUATIONS = pa.schema(
    [
        _required("step", pa.int64()),
        _required("task", pa.int64()),
        pa.field("strategy", pa.string()),
        pa.field("probability", pa.float64()),
        _required("success", pa.bool_()),
    ]
)
SAMPLES = pa.schema(
    [
        _required("task", pa.int64()),
        _required("sample", pa.int64()),
        _required("prompt", pa.string()),
        pa.field("sketch", pa.string()),
        _required("completion", pa.string()),
        _required("tokens", pa.int64()),
        _required("logprob", pa.float64()),
        _required("finish", pa.string()),
        _required("reward", pa.float64()),
        _required("success", pa.bool_()),
        pa.field("strategy", pa.string()),
    ]
)
SCHEMAS: dict[str, pa.Schema] = {"rollouts": ROLLOUTS, "sketches": SKETCHES, "evaluations": EVALUATIONS}
"""By the name of the folder that holds the parts."""


def batch(kind: str, rows: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """``rows`` as one typed batch of the table ``kind``: a key of ``SCHEMAS``, or ``samples``.

    Raises:
        ValueError: a missing or unknown key, a value that does not fit its column, a null where none may be. The
            message names the column.
    """
    schema = SAMPLES if kind == "samples" else SCHEMAS[kind]
    for i, row in enumerate(rows):
        if row.keys() != set(schema.names):
            missing, unknown = set(schema.names) - row.keys(), row.keys() - set(schema.names)
            raise ValueError(f"{kind} row {i}: missing columns {sorted(missing)}, unknown columns {sorted(unknown)}")
    arrays = []
    for field in schema:
        try:
            array = pa.array([row[field.name] for row in rows], type=field.type)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{kind} column {field.name!r}: expected {field.type}: {error}") from error
        if array.null_count and not field.nullable:
            raise ValueError(f"{kind} column {field.name!r}: {array.null_count} null values, expected none")
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
