"""Forward passes in step: where base weights are spread over processes (FSDP), each pass needs all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sesa_lab.config import Config
from sesa_lab.policies import Policy, pack, token_logprobs
from sesa_lab.team import Team


@contextmanager
def in_step(policy: Policy, config: Config, team: Team, passes: int, *, learning: bool = False) -> Iterator[None]:
    """Within the block this process makes its own ``passes``; after it, as many empty ones as another has more.

    Args:
        policy: as in the passes.
        config: ``update.kl_coef`` says whether each learning pass has one of the frozen base beside it.
        team: all must enter at once. Without FSDP nothing happens.
        passes: forward passes that will be made.
        learning: they have a backward pass each.
    """
    most = max(team.gather([passes])) if team.sharded else passes  # before the first: all must ask at the same moment
    yield
    rows = pack([(0,)], [(0,)])
    for _ in range(most - passes):
        with torch.set_grad_enabled(learning):
            now = token_logprobs(policy, rows)[0]
        if learning and config.update.kl_coef > 0:
            with torch.no_grad(), policy.model.disable_adapter():
                token_logprobs(policy, rows)
        if learning:
            (0.0 * now.sum()).backward()
