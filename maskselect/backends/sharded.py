"""Detects sharded modules without importing the packages that shard them."""

from torch import nn


def is_sharded(module: nn.Module) -> bool:
    """Whether FSDP2 shards the module's own parameters and gathers them for its forward."""
    return any(kind.__name__ == "FSDPModule" for kind in type(module).__mro__)


def in_zero3_shards(module: nn.Module) -> bool:
    """Whether DeepSpeed's ZeRO-3 shards the module's parameters."""
    return any(hasattr(parameter, "ds_id") for parameter in module.parameters())
