"""Mask pooling: the mean of a feature map under each mask (RAS, section 3.2).

A mask is brought to the map's own grid first. `area` keeps, for every cell, the share of it that the mask covers, so a
mask smaller than a cell still weighs something; `nearest` samples one pixel a cell, which is the plain reading of the
paper, and loses small masks (3 to 12 % of them on grids of 24 to 37 cells).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

MaskResize = Literal["area", "nearest"]


def cell_weights(masks: Tensor, grid: tuple[int, int], how: MaskResize = "area") -> Tensor:
    """Weight of each cell of `grid` under each mask: (N, H, W) bool to (N, h, w) float32 in [0, 1].

    The masks must already be framed as the image was (same padding), so that grid and mask cover the same field.
    """
    if len(masks) == 0:
        return torch.zeros(0, *grid, device=masks.device)
    if how == "area":
        return F.adaptive_avg_pool2d(masks[:, None].float(), grid)[:, 0]
    return F.interpolate(masks[:, None].float(), size=grid, mode="nearest-exact")[:, 0]


def mask_pool(features: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of a map under each mask: (C, h, w) and (N, h, w) to (N, C).

    A mask without any weight gives zeros.
    """
    flat = weights.flatten(1).to(features.dtype)
    return (flat @ features.flatten(1).T) / flat.sum(1, keepdim=True).clamp(min=1e-6)
