"""From scored queries to boxes, and from masks in boxes to masks in an image.

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
    """R boxes of one image: boxes_xyxy (R, 4) float32 in canvas pixels, scores (R,) float32, labels (R,) int64."""

    boxes_xyxy: Tensor
    scores: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.scores)

    def keep(self, index: Tensor) -> "Detections":
        """The rows that (K,) int64 or (R,) bool names."""
        return Detections(self.boxes_xyxy[index], self.scores[index], self.labels[index])


def top_detections(logits: Tensor, boxes: Tensor, extent: tuple[int, int]) -> Detections:
    """The best pairs of a query and a class, as many as there are queries, by falling score.

    logits: (Q, C).  boxes: (Q, 4) centre, width and height as shares of `extent`, (width, height) in canvas pixels.
    A query may appear with several classes, or not at all.
    """
    scores, places = logits.sigmoid().flatten().topk(len(logits))
    corners = box_convert(boxes, "cxcywh", "xyxy") * boxes.new_tensor([*extent, *extent])
    corners = corners.clamp(min=0).minimum(boxes.new_tensor([*extent, *extent]))
    return Detections(corners[places // logits.shape[1]], scores, places % logits.shape[1])


def soft_nms(found: Detections, iou: float = 0.8, floor: float = 1e-3) -> Detections:
    """Linear soft suppression within each class (Bodla et al. 2017, 1704.04503), by falling score that is left.

    Time and again the best is kept, and those of its class that it overlaps by `iou` or more are multiplied by
    1 - overlap. What falls below `floor` goes; the very best stays in any case.
    """
    same = found.labels[:, None] == found.labels[None]
    overlap = box_iou(found.boxes_xyxy, found.boxes_xyxy)
    factors = torch.where(same & (overlap >= iou), 1 - overlap, 1.0).cpu().numpy()
    left = found.scores.float().cpu().numpy().copy()
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
    index = torch.tensor(kept, dtype=torch.long, device=found.labels.device)
    return Detections(found.boxes_xyxy[index], found.scores.new_tensor(scores), found.labels[index])


def paste_masks(logits: Tensor, boxes_xyxy: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits (R, s, s) over boxes (R, 4) in image pixels to masks (R, *size) bool on the CPU.

    A pixel is inside when the probability at its centre, bilinear between cells and zero outside the box, is at least
    one half. Only the pixels of a box are looked at: outside it the probability is below one half.
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
    """Pixels that a box touches along an axis, and where their centres are in it: -1 at its start, 1 at its end."""
    first, last = max(int(np.floor(start)) - 1, 0), min(int(np.ceil(end)) + 1, size)
    pixels = torch.arange(first, max(last, first), dtype=torch.float32, device=device)
    return slice(first, max(last, first)), (pixels + 0.5 - start) / (end - start) * 2 - 1
