"""Boxes in pixels with an exclusive end. Names state the format."""

import numpy as np
import torch
from torch import Tensor

from maskselect.ops.masks import filled


def masks_to_boxes_xyxy(masks: Tensor) -> Tensor:
    """Tight boxes: (N, H, W) bool to (N, 4) float32; (0, 0, 0, 0) for an empty mask."""
    if len(masks) == 0:
        return torch.zeros(0, 4, dtype=torch.float32, device=masks.device)
    height, width = masks.shape[1:]
    columns, rows = filled(masks, 1), filled(masks, 2)
    x0, y0 = columns.int().argmax(1), rows.int().argmax(1)
    x1, y1 = width - columns.flip(1).int().argmax(1), height - rows.flip(1).int().argmax(1)
    boxes = torch.stack([x0, y0, x1, y1], 1).float()
    return boxes * columns.any(1)[:, None]


def pairwise_box_iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Pairwise IoU of boxes in pixels with exclusive ends: (M, 4) and (G, 4) to (M, G). Empty boxes have IoU 0."""
    low = torch.maximum(a_xyxy[:, None, :2], b_xyxy[None, :, :2])
    high = torch.minimum(a_xyxy[:, None, 2:], b_xyxy[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (a_xyxy, b_xyxy)]
    return shared / (areas[0][:, None] + areas[1][None] - shared).clamp(min=1e-9)


def box_nms(boxes_xyxy: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Non-maximum suppression by box IoU: (N, 4) float32 and scores (N,) to kept indices (K,) int64, by falling score.

    A box is removed if its IoU with a kept box exceeds `threshold`. Equal scores keep their order. The result equals
    that of `torchvision.ops.nms` on the CPU, whose import takes a second.
    """
    order = torch.sort(scores, descending=True, stable=True).indices
    x0, y0, x1, y1 = boxes_xyxy[order].float().cpu().numpy().T
    areas = (x1 - x0) * (y1 - y0)
    removed = np.zeros(len(order), bool)
    kept = []
    with np.errstate(invalid="ignore", divide="ignore"):  # two boxes of area 0 have no IoU, and both stay
        for i in range(len(order)):
            if removed[i]:
                continue
            kept.append(i)
            rest = slice(i + 1, None)
            across = np.maximum(0, np.minimum(x1[i], x1[rest]) - np.maximum(x0[i], x0[rest]))
            down = np.maximum(0, np.minimum(y1[i], y1[rest]) - np.maximum(y0[i], y0[rest]))
            shared = across * down
            iou = shared / (areas[i] + areas[rest] - shared)
            removed[rest] |= iou.astype(np.float64) > threshold  # float32 would round the threshold
    return order[torch.tensor(kept, dtype=torch.long, device=order.device)]
