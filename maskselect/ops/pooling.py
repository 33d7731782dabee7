"""Mask pooling: the mean of a feature map under each mask (RAS, section 3.2).

A mask is resized to the grid of the map first. `area` weighs each cell by the part that the mask covers, so masks
smaller than a cell count; `nearest` samples one pixel per cell, as the paper says, and loses small masks (3 to 12 % of
them on grids of 24 to 37 cells).

LLM-Seg's released code resizes both masks and map to a grid four times as fine. Bilinear upsampling U is linear, so the
sum over the fine grid of w times U f equals the sum over cells of U^T w times f. `fine` computes these weights without
upsampling the map.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

MaskResize = Literal["area", "nearest", "fine", "fine_aliased"]
"""`fine` resizes masks to the fine grid with antialiasing, as LLM-Seg does in evaluation and in training on ReasonSeg;
`fine_aliased` does it without, as LLM-Seg does in training on other data sets."""

MASK_RESIZES: tuple[MaskResize, ...] = get_args(MaskResize)
FINENESS = 4
"""LLM-Seg has masks of 256 x 256 for maps of 64 x 64."""

_CHUNK = 16  # masks that are converted to float at once


def cell_weights(masks: Tensor, grid: tuple[int, int], how: MaskResize = "area") -> Tensor:
    """Weight of each cell of `grid` for each mask: (N, H, W) bool to (N, h, w) float32.

    Weights are in [0, 1], for the fine grids up to about FINENESS squared. The masks must have the same padding as the
    image.
    """
    if len(masks) == 0:
        return torch.zeros(0, *grid, dtype=torch.float32, device=masks.device)
    if how == "area":
        return F.adaptive_avg_pool2d(masks[:, None].float(), grid)[:, 0]
    if how != "nearest":
        return _fine_weights(masks, grid, antialias=how == "fine")
    return F.interpolate(masks[:, None].float(), size=grid, mode="nearest-exact")[:, 0]


def mask_pool(features: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of a map for each mask: (..., C, h, w) and (..., N, h, w) to (..., N, C).

    It is zero for a mask without weight.
    """
    flat = rearrange(weights, "... n h w -> ... n (h w)").to(features.dtype)
    return (flat @ rearrange(features, "... c h w -> ... (h w) c")) / flat.sum(-1, keepdim=True).clamp(min=1e-6)


def _fine_weights(masks: Tensor, grid: tuple[int, int], antialias: bool) -> Tensor:
    """U^T w for soft masks w on the fine grid."""
    fine = (grid[0] * FINENESS, grid[1] * FINENESS)
    rows, columns = (_upsampling(cells, masks.device) for cells in grid)
    weights = []
    for part in masks.split(_CHUNK):
        soft = F.interpolate(part[:, None].float(), fine, mode="bilinear", align_corners=False, antialias=antialias)
        weights.append(rows.T @ soft[:, 0] @ columns)
    return torch.cat(weights)


def _upsampling(cells: int, device: torch.device) -> Tensor:
    """The matrix of bilinear upsampling along one axis, (cells * FINENESS, cells); each row sums to 1."""
    unit = torch.eye(cells, dtype=torch.float32, device=device)[None]
    return F.interpolate(unit, size=cells * FINENESS, mode="linear", align_corners=False)[0].T
