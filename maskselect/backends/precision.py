"""In which precision weights are held."""

from torch import nn


def widen(module: nn.Module) -> None:
    """What trains is held in float32, whatever the files hold: half precision loses small steps."""
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
