"""A training process with an engine on its own copy of the weights; started alone, or by `accelerate launch --use_fsdp`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sesa_lab import engines, environments
from sesa_lab.config import Config, EngineConfig
from sesa_lab.engines import Session, TorchEngine
from sesa_lab.policies import Policy, load_policy, pack, sharded, token_logprobs
from sesa_lab.team import ALONE, Team
from sesa_lab.training import loop


class CopyEngine:
    """A server's stand-in: weights of its own, to which the adapter is brought."""

    foreign = True

    def __init__(self, policy: Policy, copy: Policy) -> None:
        self.policy, self.copy = policy, copy
        self.engine = TorchEngine(copy)
        self.counters = self.engine.counters

    @contextmanager
    def synced(self) -> Iterator[None]:
        trained = [weight for weight in self.policy.model.parameters() if weight.requires_grad]
        copied = [weight for weight in self.copy.model.parameters() if weight.requires_grad]
        with torch.no_grad():
            for mine, theirs in zip(copied, trained, strict=True):
                mine.copy_(theirs)
            token_logprobs(self.policy, pack([(0,)], [(0,)]))  # as a server's version is checked, in all processes
        with self.engine.synced():
            yield

    def start(self, contexts: Sequence[Sequence[int]]) -> Session:
        return self.engine.start(contexts)

    def close(self) -> None: ...


def main(settings: str, out: str, expect: str) -> None:
    config = Config.from_dict(json.loads(Path(settings).read_text()))
    options = environments.make(config.environment.name, **config.environment.options).options

    def make(chosen: EngineConfig, policy: Policy, team: Team = ALONE) -> Any:
        assert team.sharded is sharded(policy) is (expect == "sharded")
        return CopyEngine(policy, load_policy(config.policy, config.environment.name, options, config.run.seed))

    engines.make = make
    loop.train(config, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
