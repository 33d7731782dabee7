"""Whether something is sharded among processes, told without importing what shards it."""

from torch import nn


def is_sharded(module: nn.Module) -> bool:
    """Whether FSDP2 holds the module's own parameters in shards and gathers them for its forward."""
    return any(kind.__name__ == "FSDPModule" for kind in type(module).__mro__)


def in_zero3_shards(module: nn.Module) -> bool:
    """Whether DeepSpeed's ZeRO-3 holds the module's parameters in shards, of which this process has one."""
    return any(hasattr(parameter, "ds_id") for parameter in module.parameters())
