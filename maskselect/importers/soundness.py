"""Whether what a foreign file holds are weights that can be computed with."""

import torch
from torch import Tensor


def sound(name: str, tensor: Tensor) -> Tensor:
    """The tensor itself. Raises ValueError when it is sparse, not of floating point, or not finite everywhere."""
    if tensor.layout != torch.strided or not tensor.is_floating_point():
        layout = "" if tensor.layout == torch.strided else f"{tensor.layout} of "
        told = f"{layout}{tensor.dtype}".replace("torch.", "")
        raise ValueError(f"tensor {name} is {told}; expected a dense one of floating point")
    if not torch.isfinite(tensor).all():
        raise ValueError(f"tensor {name} holds values that are not finite; the file is damaged")
    return tensor
