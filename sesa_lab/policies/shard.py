"""Base weights spread over the processes that train together (FSDP), for models that one GPU cannot hold beside its activations.

Only the frozen base weights of the decoder's layers are spread, each layer put together while it is computed. The adapter, the
embeddings and the head are whole everywhere: the adapter is small, its gradients are summed like without FSDP, and so its update,
its checkpoints and its optimiser are the same.
"""

from __future__ import annotations

from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from sesa_lab.errors import InputError
from sesa_lab.policies.load import Policy


def shard(policy: Policy, processes: int) -> None:
    """Spread the base weights of ``policy`` over all ``processes``; every one of them must call it, and compute in step.

    Raises:
        InputError: the model has no list of layers.
    """
    layers = getattr(policy.decoder, "layers", None)
    if layers is None:
        raise InputError(
            f"FSDP: model {policy.folder} has no `layers` to spread; start the processes without --use_fsdp"
        )
    mesh = init_device_mesh(policy.device.type, (processes,))
    for layer in layers:
        adapter = {weight for weight in layer.parameters() if weight.requires_grad}
        # Left to itself it would keep the whole layer after a pass without gradient: memory, and in the first process alone not,
        # for saving the adapter takes it apart again; the next pass would wait there for the others.
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=adapter)


def sharded(policy: Policy) -> bool:
    """Whether ``shard`` was at the policy."""
    layers = getattr(policy.decoder, "layers", None) or [None]
    return isinstance(layers[0], FSDPModule)
