"""Geometry of everything mode: point grids, crops, boxes at the edge of a crop, small holes and islands.

The rules are those of the `segment_anything` package, which tests compare.
"""

import math
from itertools import product
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

Crop = list[int]
"""Left, top, right and bottom in image pixels."""

_EDGE = 20.0  # pixels


def point_grids(side: int, layers: int, downscale: int) -> list[np.ndarray]:
    """Grids of points for the image and for each layer of crops: (side^2, 2) float64, x and y in [0, 1].

    Args:
        side: points per side for the image.
        layers: number of crop layers.
        downscale: factor by which `side` falls from layer to layer.
    """
    grids = []
    for layer in range(layers + 1):
        count = int(side / downscale**layer)
        line = np.linspace(1 / (2 * count), 1 - 1 / (2 * count), count)
        grids.append(np.stack(np.meshgrid(line, line), -1).reshape(-1, 2))
    return grids


def crop_boxes(size: tuple[int, int], layers: int, overlap_ratio: float) -> tuple[list[Crop], list[int]]:
    """The whole image and (2^i)^2 overlapping crops for each further layer i, and the layer of each.

    Args:
        size: (H, W).
        layers: number of crop layers.
        overlap_ratio: overlap in the first crop layer, relative to the shorter side.
    """
    height, width = size
    crops, numbers = [[0, 0, width, height]], [0]
    for layer in range(1, layers + 1):
        count = 2**layer
        overlap = int(overlap_ratio * min(size) * (2 / count))
        across, down = (math.ceil((overlap * (count - 1) + side) / count) for side in (width, height))
        for column, row in product(range(count), range(count)):
            left, top = (across - overlap) * column, (down - overlap) * row
            crops.append([left, top, min(left + across, width), min(top + down, height)])
            numbers.append(layer)
    return crops, numbers


def at_crop_edge(boxes: Tensor, crop: Crop, size: tuple[int, int]) -> Tensor:
    """Whether boxes (N, 4) in crop pixels end near an edge of the crop that is no edge of the image: (N,) bool."""
    crop_edges = torch.tensor(crop, dtype=torch.float32, device=boxes.device)
    image_edges = torch.tensor([0, 0, size[1], size[0]], dtype=torch.float32, device=boxes.device)
    boxes = (boxes + crop_edges[:2].repeat(2)).float()
    return (((boxes - crop_edges).abs() <= _EDGE) & ((boxes - image_edges).abs() > _EDGE)).any(1)


def remove_small_regions(mask: np.ndarray, area: float, mode: Literal["holes", "islands"]) -> tuple[np.ndarray, bool]:
    """A mask (H, W) bool without holes or islands of fewer pixels than `area`, and whether it had any.

    If all islands are smaller, the largest stays.
    """
    holes = mode == "holes"
    count, regions, stats, _ = cv2.connectedComponentsWithStats((holes ^ mask).astype(np.uint8), connectivity=8)
    sizes = stats[1:, cv2.CC_STAT_AREA]  # row 0 is the background
    small = [number for number, size in enumerate(sizes, 1) if size < area]
    if not small:
        return mask, False
    if holes:
        kept = [0, *small]
    else:
        kept = [number for number in range(1, count) if number not in small] or [int(sizes.argmax()) + 1]
    return np.isin(regions, kept), True
