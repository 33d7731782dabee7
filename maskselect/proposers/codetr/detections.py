"""From scored queries to boxes, and from masks in boxes to masks of an image.

Shape letters: Q queries, C classes, R detections, s cells of a mask's side, H W pixels of the image.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_convert, box_iou


@dataclass(frozen=True)
class Detections:
    """R boxes of one image.

    Attributes:
        boxes_xyxy: (R, 4) float32 in canvas pixels.
        scores: (R,) float32.
        labels: (R,) int64.
    """

    boxes_xyxy: Tensor
    scores: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.scores)

    def keep(self, index: Tensor) -> "Detections":
        """The rows that `index`, (K,) int64 or (R,) bool, selects."""
        return Detections(self.boxes_xyxy[index], self.scores[index], self.labels[index])


def top_detections(logits: Tensor, boxes: Tensor, extent: tuple[int, int]) -> Detections:
    """The best Q pairs of a query and a class, by falling score. A query may have several classes, or none.

    Args:
        logits: (Q, C).
        boxes: (Q, 4) centre, width and height, relative to `extent`.
        extent: (width, height) in canvas pixels.
    """
    scores, places = logits.sigmoid().flatten().topk(len(logits))
    corners = box_convert(boxes, "cxcywh", "xyxy") * boxes.new_tensor([*extent, *extent])
    corners = corners.clamp(min=0).minimum(boxes.new_tensor([*extent, *extent]))
    return Detections(corners[places // logits.shape[1]], scores, places % logits.shape[1])


def soft_nms(detections: Detections, iou: float = 0.8, floor: float = 1e-3) -> Detections:
    """Linear soft suppression within each class (Bodla et al. 2017, 1704.04503), by falling reduced score.

    Each step keeps the best detection and multiplies the scores of others of its class by 1 - IoU, if the IoU is at
    least `iou`. Detections with a score below `floor` are removed; the very best one always stays.
    """
    boxes, labels = detections.boxes_xyxy, detections.labels
    overlap = box_iou(boxes, boxes)
    same = labels[:, None] == labels[None]
    factors = torch.where(same & (overlap >= iou), 1 - overlap, 1.0).cpu().numpy()
    left = detections.scores.float().cpu().numpy().copy()
    kept: list[int] = []
    scores: list[float] = []
    while len(kept) < len(left):
        best = int(left.argmax())
        if left[best] == -np.inf:
            break
        kept.append(best)
        scores.append(float(left[best]))
        left[best] = -np.inf
        others = left > -np.inf
        left[others] *= factors[best][others]
        left[others & (left < floor)] = -np.inf
    index = torch.tensor(kept, dtype=torch.long, device=labels.device)
    return Detections(boxes[index], detections.scores.new_tensor(scores), labels[index])


def paste_masks(logits: Tensor, boxes_xyxy: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits (R, s, s) over boxes (R, 4) in image pixels to masks (R, *size) bool on the CPU.

    A pixel is inside if the probability at its centre is at least one half, bilinear between cells and zero outside the
    box. So only the pixels of a box need computing.
    """
    masks = torch.zeros(len(logits), *size, dtype=torch.bool)
    probabilities = logits.float().sigmoid()[:, None, None]
    for mask, probability, box in zip(masks, probabilities, boxes_xyxy.tolist(), strict=True):
        x0, y0, x1, y1 = box
        if x1 <= x0 or y1 <= y0:
            continue
        columns, across = _centres(x0, x1, size[1], logits.device)
        rows, down = _centres(y0, y1, size[0], logits.device)
        grid = torch.stack(torch.broadcast_tensors(across[None], down[:, None]), -1)[None]
        if grid.numel():
            inside = F.grid_sample(probability, grid, align_corners=False)[0, 0] >= 0.5
            mask[rows, columns] = inside.cpu()
    return masks


def _centres(start: float, end: float, size: int, device: torch.device) -> tuple[slice, Tensor]:
    """Pixels of a box along an axis, and their centres relative to the box: -1 at its start, 1 at its end."""
    first, last = max(int(np.floor(start)) - 1, 0), min(int(np.ceil(end)) + 1, size)
    pixels = torch.arange(first, max(last, first), dtype=torch.float32, device=device)
    return slice(first, max(last, first)), (pixels + 0.5 - start) / (end - start) * 2 - 1
