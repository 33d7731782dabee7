"""Acc@0.5 of box grounding from masks, by the rule of Text4Seg (arXiv 2410.09855): boxes of pixel indices."""

import math

from torch import Tensor

Box = tuple[int, int, int, int]
HIT_ABOVE = 0.5


def index_box(mask: Tensor) -> Box | None:
    """Box (x0, y0, x1, y1) from the first to the last pixel of an (H, W) bool mask; None for an empty mask.

    The end is the last pixel itself, so a mask one pixel wide has a box without area.
    """
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    if len(rows) == 0:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def index_box_iou(a: Box | None, b: Box | None) -> float:
    """IoU of two boxes of `index_box`, in [0, 1]; 0 if a box is None, NaN if neither box has an area.

    >>> index_box_iou((0, 0, 3, 3), (0, 0, 3, 1))
    0.3333333333333333
    >>> index_box_iou((2, 2, 2, 2), (2, 2, 2, 2))  # the same single pixel
    nan
    """
    if a is None or b is None:
        return 0.0
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - shared
    return shared / union if union else math.nan


def is_hit(prediction: Tensor, target: Tensor) -> bool:
    """Whether the boxes of two (H, W) bool masks have an IoU > 0.5; False for NaN and for an empty mask."""
    return index_box_iou(index_box(prediction), index_box(target)) > HIT_ABOVE
