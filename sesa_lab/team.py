"""The processes that train one policy together, as ``accelerate launch`` starts them; without it: this process alone.

Each process draws, scores and differentiates its own share of the step's groups, and has the whole policy. Two things are shared:
the groups, which all processes then have in one order, so that token weights, minibatches and metrics are those of the whole
step; and the sum of the gradients of the adapter, after which every process takes the same optimiser step. An update is so that of
one process at the same global batch, whatever lies where; a wrapper that averages gradients as they come (DDP's) would need equally
many forward passes everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from sesa_lab.errors import InputError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Team:
    """Which of how many processes this is.

    Attributes:
        rank: 0 .. size - 1; 0 writes the run.
        size: how many train together.
        sharded: the base weights are spread over them (``accelerate launch --use_fsdp``).
    """

    rank: int = 0
    size: int = 1
    sharded: bool = False

    @staticmethod
    def join(device: str = "auto") -> Team:
        """Those that were launched together with this process; alone where none were.

        Args:
            device: ``policy.device``; with "auto" or "cuda" each process takes a GPU of its own.

        Raises:
            InputError: several processes, and a device that they would share.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return ALONE
        from accelerate import PartialState

        launched = int(os.environ["WORLD_SIZE"])
        state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
        if state.num_processes != launched:  # each would take itself for the only one, and all would write one folder
            raise InputError(
                f"launched as one of {launched} processes, but accelerate knows of {state.num_processes}: start all of them by"
                " `accelerate launch` in a fresh shell"
            )
        if state.device.type != "cpu" and device not in ("auto", "cuda"):
            raise InputError(
                f"policy.device = {device!r} with {state.num_processes} processes: expected 'auto', which gives each its own GPU"
            )
        fsdp = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
        if fsdp:  # else transformers reads the weights in the first process alone, and leaves the others with what is in memory
            os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
        return Team(state.process_index, state.num_processes, fsdp)

    @property
    def main(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def check(self, groups: int) -> None:
        """Raises ``InputError`` where ``groups`` a step cannot be dealt out evenly."""
        if groups % self.size:
            raise InputError(
                f"run.groups = {groups} cannot be dealt out to {self.size} processes evenly; choose a multiple of {self.size}"
            )

    def share(self, count: int) -> range:
        """This process's part of 0 .. ``count`` - 1: one stretch; the parts of all, by rank, are the whole."""
        return range(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def gather(self, own: Sequence[Item]) -> list[Item]:
        """Everybody's lists, one after another by rank; picklable. All processes must call it."""
        if self.size == 1:
            return list(own)
        from accelerate.utils import gather_object

        found: list[Item] = gather_object(list(own))
        return found

    def tell(self, what: Item) -> Item:
        """What the first process has, to all; picklable. All processes must call it."""
        return what if self.size == 1 else self.gather([what])[0]

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Put the sum over all processes into each ``grad``; a parameter without one here counts as zero."""
        if self.size == 1:
            return
        from accelerate.utils import reduce

        own = list(parameters)
        flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in own])
        whole = reduce(flat, reduction="sum")
        for parameter, gradient in zip(own, whole.split([p.numel() for p in own]), strict=True):
            parameter.grad = gradient.view_as(parameter).clone()

    def sum_counts(self, counts: dict[str, Any]) -> dict[str, Any]:
        """Numbers by name, summed over all processes; a name missing here counts as zero."""
        found: dict[str, Any] = {}
        for own in self.gather([counts]):
            for name, value in own.items():
                found[name] = found.get(name, 0) + value
        return found

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()


ALONE = Team()
"""One process."""


def first() -> bool:
    """Whether this process speaks for all that were launched with it; before they have joined, too."""
    return os.environ.get("RANK", "0") == "0"
