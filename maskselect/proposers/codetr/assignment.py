"""Which query answers for which object, and what it costs not to.

Sources: Carion et al. 2020 (DETR, 2005.12872) for one-to-one assignment, L1 and GIoU; Zhang et al. 2022 (DINO,
2203.03605) for the focal cost and the weights of assignment, which are the loss's here too; Jia et al. 2022 (H-DETR,
2207.13080) for repeated objects, a plain form of the one-to-many assignment that Co-DETR's auxiliary heads bring. Shape
letters: B images, Q queries, C classes, G objects. Boxes are (centre x, centre y, width, height) as shares.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou, generalized_box_iou_loss, sigmoid_focal_loss

_CLASS, _L1, _GIOU = 2.0, 5.0, 2.0
_ALPHA, _GAMMA = 0.25, 2.0


@dataclass(frozen=True)
class Targets:
    """The objects of one image: boxes (G, 4) shares, labels (G,) int64, masks (G, H, W) bool on the canvas."""

    boxes: Tensor
    labels: Tensor
    masks: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@torch.no_grad()
def assign(logits: Tensor, boxes: Tensor, targets: Targets, repeats: int = 1) -> tuple[Tensor, Tensor]:
    """The cheapest pairs of queries and objects, each query at most once, each object `repeats` times.

    logits: (Q, C).  boxes: (Q, 4).  Returns numbers of queries and of objects, (K,) int64 each. Where there are more
    objects than queries some objects go without.
    """
    chance = logits.sigmoid()[:, targets.labels]
    found = _ALPHA * (1 - chance) ** _GAMMA * -(chance + 1e-8).log()
    missed = (1 - _ALPHA) * chance**_GAMMA * -(1 - chance + 1e-8).log()
    apart = torch.cdist(boxes, targets.boxes, p=1)
    overlap = generalized_box_iou(corners(boxes), corners(targets.boxes))
    cost = (_CLASS * (found - missed) + _L1 * apart - _GIOU * overlap).repeat(1, repeats)
    rows, columns = linear_sum_assignment(cost.float().cpu().numpy())
    queries = torch.as_tensor(rows, dtype=torch.int64, device=logits.device)
    return queries, torch.as_tensor(columns, dtype=torch.int64, device=logits.device) % max(len(targets), 1)


def set_loss(logits: Tensor, boxes: Tensor, targets: list[Targets], repeats: int = 1) -> dict[str, Tensor]:
    """Weighted losses "class", "l1" and "giou" of one layer, per object.

    logits: (B, Q, C).  boxes: (B, Q, 4).  Queries that answer for nothing are trained towards no class.
    """
    found = [assign(*one, repeats) for one in zip(logits, boxes, targets, strict=True)]
    return pair_loss(logits, boxes, targets, found)


def pair_loss(
    logits: Tensor,
    boxes: Tensor,
    targets: list[Targets],
    pairs: Sequence[tuple[Tensor, Tensor]],
    asked: Tensor | None = None,
) -> dict[str, Tensor]:
    """The losses of `set_loss` for pairs that are known.

    logits: (B, Q, C).  boxes: (B, Q, 4).  pairs: for each image numbers of queries and of objects, (K,) int64 each.
    asked: (B, Q) bool, queries whose class counts; None for all.
    """
    wanted, both = torch.zeros_like(logits), []
    for number, (target, (queries, objects)) in enumerate(zip(targets, pairs, strict=True)):
        wanted[number, queries, target.labels[objects]] = 1.0
        both.append((boxes[number, queries], target.boxes[objects]))
    found, true = (torch.cat(part) for part in zip(*both, strict=True))
    count = max(len(found), 1)
    focal = sigmoid_focal_loss(logits, wanted, _ALPHA, _GAMMA)
    focal = (focal if asked is None else focal * asked[..., None]).sum()
    overlap = generalized_box_iou_loss(corners(found), corners(true), reduction="sum")
    return {
        "class": _CLASS * focal / count,
        "l1": _L1 * (found - true).abs().sum() / count,
        "giou": _GIOU * overlap / count,
    }


def corners(boxes: Tensor) -> Tensor:
    """(..., 4) of centre and sides to (..., 4) of corners (x0, y0, x1, y1)."""
    return box_convert(boxes, "cxcywh", "xyxy")
