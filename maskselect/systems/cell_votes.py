"""Image tokens that predict what the targets cover vote for masks (ours, see `InstructSeg`).

Shape letters: R rows (one for each prompt), Q masks, h w the grid of the image tokens, S side of the square whose top
left corner a picture fills, H W a grid over the square.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from maskselect.ops.pooling import cell_weights, mask_pool

Size = tuple[int, int]


def place_cells(cells: Tensor, inner: Sequence[Size], side: int, grid: Size) -> Tensor:
    """Values of the cells of pictures, (R, h, w), on a grid over the square: (R, H, W), 0 outside the picture.

    Args:
        cells: of whole pictures.
        inner: height and width of the picture of each row in the square.
        side: S.
        grid: H and W.
    """
    placed = cells.new_zeros(len(cells), *grid)
    for size in set(inner):
        rows = [row for row, own in enumerate(inner) if own == size]
        height, width = (max(1, round(length * cut / side)) for length, cut in zip(size, grid, strict=True))
        scaled = F.interpolate(cells[rows][None], (height, width), mode="bilinear", align_corners=False)
        placed[rows, :height, :width] = scaled[0]
    return placed


def cell_votes(placed: Tensor, masks: Tensor) -> Tensor:
    """The mean under each mask of the result of `place_cells`: (R, Q).

    Args:
        placed: (R, H, W).
        masks: (R, Q, H, W) in [0, 1]; or (Q, H, W), the same for all rows.
    """
    return mask_pool(placed[:, None], masks)[..., 0]


def cell_loss(cells: Tensor, targets: Sequence[Tensor], inner: Sequence[Size]) -> Tensor:
    """Binary cross entropy of logits (R, h, w) with the share of each cell that the targets cover.

    Args:
        cells: logits.
        targets: of each row (N, S, S) bool.
        inner: see `place_cells`.
    """
    grid = (cells.shape[1], cells.shape[2])
    covered = [
        cell_weights(own[:, : size[0], : size[1]].any(0)[None], grid) for own, size in zip(targets, inner, strict=True)
    ]
    return F.binary_cross_entropy_with_logits(cells, torch.cat(covered).to(cells.device))
