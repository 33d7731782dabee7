"""Mask pooling: the mean of a feature map under each mask (RAS, section 3.2).

A mask is brought to the map's own grid first. `area` keeps, for every cell, the share of it that the mask covers, so a
mask smaller than a cell still weighs something; `nearest` samples one pixel a cell, which is the plain reading of the
paper, and loses small masks (3 to 12 % of them on grids of 24 to 37 cells).

LLM-Seg's released code goes the other way: the map is brought to the masks, both four times as fine as the map's own
grid. Bilinear enlarging is linear, so the sum over the fine grid of w times the enlarged map U f equals the sum over
cells of U^T w times f; `fine` gives those weights, and no map is ever enlarged.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

MaskResize = Literal["area", "nearest", "fine", "fine_aliased"]
"""`fine` brings masks to the fine grid with antialiasing, as LLM-Seg evaluates and trains on ReasonSeg; `fine_aliased`
without, as its code trains on the other sets."""

MASK_RESIZES: tuple[MaskResize, ...] = get_args(MaskResize)
FINENESS = 4
"""Of LLM-Seg: masks of 256 x 256 on maps of 64 x 64."""

_MASKS_AT_ONCE = 16  # as floats, at the size of the image


def cell_weights(masks: Tensor, grid: tuple[int, int], how: MaskResize = "area") -> Tensor:
    """Weight of each cell of `grid` under each mask: (N, H, W) bool to (N, h, w) float32 from 0, up to 1 or, for a
    cell of the fine grids, up to about FINENESS squared.

    The masks must already be framed as the image was (same padding), so that grid and mask cover the same field.
    """
    if len(masks) == 0:
        return torch.zeros(0, *grid, dtype=torch.float32, device=masks.device)
    if how == "area":
        return F.adaptive_avg_pool2d(masks[:, None].float(), grid)[:, 0]
    if how != "nearest":
        return _fine_weights(masks, grid, antialias=how == "fine")
    return F.interpolate(masks[:, None].float(), size=grid, mode="nearest-exact")[:, 0]


def mask_pool(features: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of a map under each mask: (C, h, w) and (N, h, w) to (N, C).

    A mask without any weight gives zeros.
    """
    flat = rearrange(weights, "n h w -> n (h w)").to(features.dtype)
    return (flat @ rearrange(features, "c h w -> (h w) c")) / flat.sum(1, keepdim=True).clamp(min=1e-6)


def _fine_weights(masks: Tensor, grid: tuple[int, int], antialias: bool) -> Tensor:
    """U^T w: soft masks on the fine grid, gathered into the cells by which bilinear enlarging would spread a map."""
    fine = (grid[0] * FINENESS, grid[1] * FINENESS)
    rows, columns = (_enlarging(cells, masks.device) for cells in grid)
    found = []
    for some in masks.split(_MASKS_AT_ONCE):
        given = some[:, None].float()
        soft = F.interpolate(given, fine, mode="bilinear", align_corners=False, antialias=antialias)[:, 0]
        found.append(rows.T @ soft @ columns)
    return torch.cat(found)


def _enlarging(cells: int, device: torch.device) -> Tensor:
    """The matrix of bilinear enlarging along one side: (cells * FINENESS, cells), each of its rows sums to 1."""
    unit = torch.eye(cells, dtype=torch.float32, device=device)[None]
    return F.interpolate(unit, size=cells * FINENESS, mode="linear", align_corners=False)[0].T
