"""Engines turn contexts into completions: tokens in, tokens and labelled log-probs out."""

from sesa_lab.engines.protocol import Counters, Engine, Sampling, Session
from sesa_lab.engines.torch_engine import TorchEngine

__all__ = ["Counters", "Engine", "Sampling", "Session", "TorchEngine"]
