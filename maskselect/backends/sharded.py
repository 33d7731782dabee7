"""Whether something is sharded among processes, told without importing what shards it."""

from torch import Tensor, nn


def is_sharded(module: nn.Module) -> bool:
    """Whether FSDP2 holds the module's own parameters in shards and gathers them for its forward."""
    return any(kind.__name__ == "FSDPModule" for kind in type(module).__mro__)


def is_zero3_shard(parameter: Tensor) -> bool:
    """Whether DeepSpeed's ZeRO-3 holds a parameter in shards, of which this process has one."""
    return hasattr(parameter, "ds_id")
