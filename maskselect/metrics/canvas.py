"""Resizing masks to a square canvas, for protocols that compare masks there."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


def letterbox(masks: Tensor, side: int) -> Tensor:
    """(K, H, W) bool to (K, side, side) bool: the longer side fills the canvas, the other is centred, margins empty.

    The rule of SegEarth-R1's `preprocess_mask`: the longer side becomes exactly `side`, the other is rounded down, and
    OpenCV resizes by nearest neighbour from the upper left corner of each pixel. A square has the exact height and the
    rounded width, which is 1023 of 1024 for sizes such as 49 x 49.

    >>> letterbox(torch.ones(1, 2, 4, dtype=torch.bool), 4)[0].int()
    tensor([[0, 0, 0, 0],
            [1, 1, 1, 1],
            [1, 1, 1, 1],
            [0, 0, 0, 0]], dtype=torch.int32)
    """
    height, width = masks.shape[1:]
    if width > height:
        new_height, new_width = max(1, int(height * (side / width))), side
    else:
        new_height, new_width = side, max(1, int(width * (side / height)))
    rows, columns = _corners(height, new_height).to(masks.device), _corners(width, new_width).to(masks.device)
    top, left = (side - new_height) // 2, (side - new_width) // 2
    out = masks.new_zeros(len(masks), side, side)
    out[:, top : top + new_height, left : left + new_width] = masks[:, rows][:, :, columns]
    return out


def stretch(masks: Tensor, side: int) -> Tensor:
    """(K, H, W) bool to (K, side, side) bool, nearest neighbour by the centres of pixels, aspect not kept.

    Exactly as Pillow resizes (LAVT, RMSIN). A centre between two pixels, as in 640 to 480, falls to the side of the
    rounding error of Pillow's running sum; torch takes the other one.
    """
    rows, columns = (_centres(size, side).to(masks.device) for size in masks.shape[1:])
    return masks[:, rows][:, :, columns]


def stretch_floor(masks: Tensor, side: int) -> Tensor:
    """(K, H, W) bool to (K, side, side) bool, aspect not kept: place i takes source index floor(i * size / side).

    Equal to `torch.nn.functional.interpolate(mode="nearest")` (LLM-Seg).

    >>> stretch_floor(torch.tensor([[[True, False, False]]]), 4)[0, 0].int()
    tensor([1, 1, 0, 0], dtype=torch.int32)
    """
    rows, columns = (_floors(size, side).to(masks.device) for size in masks.shape[1:])
    return masks[:, rows][:, :, columns]


def canvas_pixels(masks: Tensor, side: int) -> Tensor:
    """Pixels of each mask after `stretch_floor`: (K, H, W) bool to (K,) int64, without the canvas in memory.

    A pixel is copied to (rows of the canvas that take its row) x (columns that take its column) pixels, so the count is
    a weighted sum at the mask's own size. Exact up to a side of 4096.
    """
    rows, columns = (torch.bincount(_floors(size, side), minlength=size).float() for size in masks.shape[1:])
    return (masks.float() @ columns.to(masks.device) @ rows.to(masks.device)).long()


def _corners(size: int, new_size: int) -> Tensor:
    """Source index of each of `new_size` pixels, (new_size,) int64, in float64 as OpenCV computes it."""
    inverse = 1.0 / (new_size / size)
    return (torch.arange(new_size, dtype=torch.float64) * inverse).floor().long().clamp(max=size - 1)


@lru_cache(maxsize=256)
def _centres(size: int, new_size: int) -> Tensor:
    """Source index of each of `new_size` pixels, (new_size,) int64, by Pillow's running sum in float64."""
    steps = np.full(new_size, size / new_size)
    steps[0] /= 2
    return torch.from_numpy(np.cumsum(steps).astype(np.int64))


@lru_cache(maxsize=256)
def _floors(size: int, new_size: int) -> Tensor:
    """Source index of each of `new_size` pixels, (new_size,) int64, rounded down exactly."""
    return torch.arange(new_size) * size // new_size
