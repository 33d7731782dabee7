"""Pure functions on binary masks.

Shape letters: N masks, H W pixels, h w cells.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def union(masks: Tensor) -> Tensor:
    """Pixels inside any mask: (N, H, W) bool to (H, W) bool. The union of no mask is empty."""
    return masks.any(dim=0)


def area(masks: Tensor) -> Tensor:
    """Foreground pixels of each mask: (N, H, W) bool to (N,) float32, exact below 2^24.

    On the CPU NumPy counts 50 times faster than torch sums (64 masks of 1024 x 1024).
    """
    if masks.device.type == "cpu":
        return torch.tensor([float(np.count_nonzero(row)) for row in masks.flatten(1).numpy()], dtype=torch.float32)
    return masks.flatten(1).float().sum(dim=1)


def filled(masks: Tensor, dim: int) -> Tensor:
    """`masks.any(dim)` of a bool tensor, 20 times faster on the CPU, where torch reduces bytes quickly and bools
    slowly.

    Raises IndexError when that dimension is empty.
    """
    return masks.view(torch.uint8).amax(dim).bool()


def not_empty(masks: Tensor) -> Tensor:
    """Which masks have a pixel: (N, H, W) bool to (N,) bool."""
    return filled(masks.flatten(1), 1) if masks.numel() else masks.new_zeros(len(masks))


def square_padding(height: int, width: int) -> tuple[int, int, int, int]:
    """Left, right, top and bottom padding, in pixels, that centres an image on a square canvas, as LLaVA pads."""
    side = max(height, width)
    left, top = (side - width) // 2, (side - height) // 2
    return left, side - width - left, top, side - height - top


def pad_to_square(images: Tensor, value: float = 0.0) -> Tensor:
    """Centre (..., H, W) on a square canvas of side max(H, W) filled with `value`."""
    return F.pad(images, square_padding(*images.shape[-2:]), value=value)


def resize_nearest(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest-neighbour resize by pixel centres: (N, H, W) bool to (N, *size) bool."""
    if masks.shape[-2:] == size:
        return masks
    if len(masks) == 0:
        return masks.new_zeros(0, *size)
    return F.interpolate(masks[:, None].to(torch.uint8), size=size, mode="nearest-exact")[:, 0].bool()


def upsample_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of mask logits, (N, h, w) to (N, *size)."""
    if len(logits) == 0:
        return logits.new_zeros(0, *size)
    return F.interpolate(logits[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
