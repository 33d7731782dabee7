"""Whether a module is sharded among processes, told without importing what shards it."""

from torch import nn


def is_sharded(module: nn.Module) -> bool:
    """Whether FSDP2 holds the module's own parameters in shards and gathers them for its forward."""
    return any(kind.__name__ == "FSDPModule" for kind in type(module).__mro__)
