"""Boxes. The format is in every name; coordinates are pixels with an exclusive end."""

import numpy as np
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


def box_nms(boxes_xyxy: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Indices kept by greedy suppression on box IoU, by falling score: (N, 4) float32, (N,) to (K,) int64.

    A box goes when its IoU with a kept box of higher score exceeds `threshold`. Equal scores keep their order. The
    result is that of `torchvision.ops.nms` on the CPU, which takes a second to import.
    """
    order = torch.sort(scores, descending=True, stable=True).indices
    x0, y0, x1, y1 = boxes_xyxy[order].float().cpu().numpy().T
    areas = (x1 - x0) * (y1 - y0)
    gone = np.zeros(len(order), bool)
    kept = []
    with np.errstate(invalid="ignore", divide="ignore"):  # two boxes without extent have no IoU and both stay
        for i in range(len(order)):
            if gone[i]:
                continue
            kept.append(i)
            rest = slice(i + 1, None)
            across = np.maximum(0, np.minimum(x1[i], x1[rest]) - np.maximum(x0[i], x0[rest]))
            down = np.maximum(0, np.minimum(y1[i], y1[rest]) - np.maximum(y0[i], y0[rest]))
            shared = across * down
            iou = shared / (areas[i] + areas[rest] - shared)
            gone[rest] |= iou.astype(np.float64) > threshold  # float32 would round the threshold
    return order[torch.tensor(kept, dtype=torch.long, device=order.device)]
