"""Boxes. The format is in every name; coordinates are pixels with an exclusive end."""

import torch
from torch import Tensor

from maskselect.ops.masks import filled


def masks_to_boxes_xyxy(masks: Tensor) -> Tensor:
    """Tight boxes: (N, H, W) bool to (N, 4) float32, exclusive right and bottom. An empty mask gives (0, 0, 0, 0)."""
    if len(masks) == 0:
        return torch.zeros(0, 4, dtype=torch.float32, device=masks.device)
    height, width = masks.shape[1:]
    columns, rows = filled(masks, 1), filled(masks, 2)
    x0, y0 = columns.int().argmax(1), rows.int().argmax(1)
    x1, y1 = width - columns.flip(1).int().argmax(1), height - rows.flip(1).int().argmax(1)
    boxes = torch.stack([x0, y0, x1, y1], 1).float()
    return boxes * columns.any(1)[:, None]
