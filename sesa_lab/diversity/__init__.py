"""Measures of exploration: unbiased estimates from samples, and exact values where answers can be enumerated."""

from sesa_lab.diversity.exact import Exact, exact_measures
from sesa_lab.diversity.sampled import (
    coverage_at_k,
    duplicate_rate,
    effective_number_of,
    effective_sample_size,
    pass_at_k,
)

__all__ = [
    "Exact",
    "coverage_at_k",
    "duplicate_rate",
    "effective_number_of",
    "effective_sample_size",
    "exact_measures",
    "pass_at_k",
]
