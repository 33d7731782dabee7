"""The precision of weights."""

from torch import nn


def upcast(module: nn.Module) -> None:
    """Convert trainable parameters to float32, because half precision loses small updates."""
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
