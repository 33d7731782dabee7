"""Which device to compute on."""

import torch


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one, else the CPU; anything else is taken at its word.

    Raises ValueError for CUDA where there is none, or a name that torch does not know.
    """
    available = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device {name!r}; expected auto, cpu or cuda") from error
    if device.type == "cuda" and not available:
        raise ValueError(f"device {name!r} was asked for but torch finds no CUDA device; expected auto or cpu")
    return device
