"""Engines turn contexts into completions: tokens in, tokens and labelled log-probs out."""

from __future__ import annotations

from sesa_lab.config import EngineConfig
from sesa_lab.engines.protocol import Counters, Engine, Sampling, Session
from sesa_lab.engines.torch_engine import TorchEngine
from sesa_lab.policies import Policy
from sesa_lab.team import ALONE, Team


def make(config: EngineConfig, policy: Policy, team: Team = ALONE) -> Engine:
    """The engine that ``config`` names, for a policy.

    Args:
        config: which, and its settings.
        policy: whose answers are drawn.
        team: the processes that train it together; the first one hands the adapter over for all.

    Raises:
        InputError: it cannot be started, or not for this policy.
    """
    if config.name == "vllm":
        from sesa_lab.engines.vllm_engine import VllmEngine

        return VllmEngine(policy, config)
    if config.name == "server":
        from sesa_lab.engines.server_engine import ServerEngine

        engine: Engine = ServerEngine(policy, config, team)
        return engine
    return TorchEngine(policy)


__all__ = ["Counters", "Engine", "Sampling", "Session", "TorchEngine", "make"]
