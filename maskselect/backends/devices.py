"""Selects the device to compute on."""

import torch

from maskselect.backends.weightless import reads_weights

EXPECTED = "auto, cpu or cuda (cuda:N for one of several)"


def pick_device(name: str | torch.device) -> torch.device:
    """The device of a name; the meta device within `weightless`.

    Args:
        name: "auto" (CUDA if available, else the CPU), "cpu", "cuda" or "cuda:N".

    Raises:
        TypeError: the name is neither a string nor a device.
        ValueError: the device is not supported or not available.
    """
    if not isinstance(name, str | torch.device):
        raise TypeError(f"device is of type {type(name).__name__}; expected {EXPECTED}")
    if not reads_weights():
        return torch.device("meta")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device {name!r}; expected {EXPECTED}") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {str(name)!r} is not supported; expected {EXPECTED}")
    if device.type == "cuda" and not count:
        raise ValueError(f"device {str(name)!r} is not available: torch finds no CUDA device; expected auto or cpu")
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ValueError(f"device {str(name)!r} is not available: torch finds {count} CUDA devices, numbered from 0")
    return device
