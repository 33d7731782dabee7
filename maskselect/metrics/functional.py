"""Measures of one answer against its ground truth, as pure functions.

Shape letters: M predicted masks, G ground-truth masks, N candidates, H W pixels.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from maskselect.metrics.canvas import canvas_pixels
from maskselect.ops.boxes import masks_to_boxes_xyxy, pairwise_box_iou
from maskselect.ops.overlap import pairwise_iou
from maskselect.ops.packed import pairwise_counts

EmptyRule = Literal["gres", "gsva", "refzom", "lisa", "zero"]
F1Overlap = Literal["box", "mask"]
CANVAS = 1024  # pixels a side, for ncIoU


class Overlap(NamedTuple):
    """What one sample adds to cIoU's two sums, and its own IoU in [0, 1]."""

    intersection: int
    union: int
    iou: float


def intersection_union(prediction: Tensor, target: Tensor) -> tuple[int, int]:
    """Pixels in both and in either of two (H, W) bool masks.

    Raises:
        ValueError: the sizes differ.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"masks must share one size, got {tuple(prediction.shape)} and {tuple(target.shape)}")
    return int((prediction & target).sum()), int((prediction | target).sum())


def overlap(
    intersection: int,
    union: int,
    predicted_none: bool,
    target_none: bool,
    empty_rule: EmptyRule = "gres",
    epsilon: float = 0.0,
) -> Overlap:
    """The contribution of a sample under a rule for empty answers and no-target prompts.

    Args:
        intersection, union: pixels of the united masks.
        predicted_none, target_none: whether the answer is "nothing", and whether the prompt has no target. These are
            flags because GRES counts the decision, not pixels.
        empty_rule: "gres" is gRefCOCO's evaluator (ReLA): a right "nothing" has IoU 1 and adds nothing to the sums, a
            wrong one has IoU 0, and a false alarm adds its pixels to the union. "gsva" also counts the mask of a
            rejected target. "refzom" is "gsva", but a false alarm adds nothing to the union. "lisa" counts pixels
            alone, an empty union as 1; "zero" counts it as 0 (mean IoU of LAVT and RMSIN).
        epsilon: added to the union in the sample's IoU, unless the union is empty.

    >>> overlap(0, 100, predicted_none=False, target_none=True)  # a false alarm of 100 pixels
    Overlap(intersection=0, union=100, iou=0.0)
    >>> overlap(30, 60, predicted_none=True, target_none=False)  # the decision counts
    Overlap(intersection=0, union=60, iou=0.0)
    >>> overlap(30, 60, predicted_none=True, target_none=False, empty_rule="lisa")
    Overlap(intersection=30, union=60, iou=0.5)
    """
    if empty_rule in ("gres", "gsva", "refzom"):
        if target_none and predicted_none:
            return Overlap(0, 0, 1.0)
        if target_none:
            return Overlap(0, 0 if empty_rule == "refzom" else union, 0.0)
        if predicted_none and empty_rule == "gres":
            return Overlap(0, union, 0.0)
    when_empty = 1.0 if empty_rule == "lisa" else 0.0
    return Overlap(intersection, union, intersection / (union + epsilon) if union else when_empty)


def canvas_intersection_union(prediction: Tensor, target: Tensor, side: int = CANVAS) -> tuple[int, int]:
    """`intersection_union` after both masks are stretched to a square canvas, so that image size has no weight.

    Nearest neighbour, source index rounded down, aspect not kept (LLM-Seg's ncIoU).

    Raises:
        ValueError: the sizes differ.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"masks must share one size, got {tuple(prediction.shape)} and {tuple(target.shape)}")
    inter, union = canvas_pixels(torch.stack([prediction & target, prediction | target]), side).tolist()
    return inter, union


def matched_overlaps(prediction: Tensor, targets: Tensor, by: F1Overlap = "box") -> Tensor:
    """IoU of each pair in the one-to-one assignment of greatest summed IoU (Hungarian): (min(M, G),) float32.

    Args:
        prediction: (M, H, W) bool.
        targets: (G, H, W) bool.
        by: compare the boxes of the masks, or the masks.
    """
    if by == "box":
        pairs = pairwise_box_iou(masks_to_boxes_xyxy(prediction), masks_to_boxes_xyxy(targets))
    else:
        pairs = pairwise_iou(prediction, targets)
    rows, columns = linear_sum_assignment(pairs.cpu().numpy(), maximize=True)
    return pairs[torch.as_tensor(rows), torch.as_tensor(columns)]


def f1(true_positives: Tensor, predicted: int, targets: int) -> Tensor:
    """2 TP / (predicted + targets), any shape in [0, 1]; 1 if both counts are 0.

    >>> f1(torch.tensor([2.0, 1.0]), predicted=2, targets=2)
    tensor([1.0000, 0.5000])
    >>> f1(torch.tensor(0.0), predicted=0, targets=0)
    tensor(1.)
    """
    if predicted + targets == 0:
        return torch.ones_like(true_positives)
    return 2 * true_positives / (predicted + targets)


def best_of(candidates: Tensor, intersection: Tensor, union: Tensor) -> Tensor:
    """The oracle: for each target the candidate of highest IoU, united (RAS, Table 6): (H, W) bool.

    Args:
        candidates: (N, H, W) bool.
        intersection, union: (G, N) int64, the pixels of each pair of target and candidate, from `pairwise_counts`. A
            target without an overlapping candidate contributes nothing.
    """
    if 0 in intersection.shape:
        return candidates.new_zeros(candidates.shape[1:])
    best = (intersection.float() / union.float().clamp(min=1)).max(dim=1)
    return candidates[best.indices[best.values > 0]].any(dim=0)


def best_overlaps(intersection: Tensor, union: Tensor) -> Tensor:
    """IoU of each target with its best candidate: (G, N) int64 from `pairwise_counts` to (G,) float64 in [0, 1].

    0 without candidates. float64, because 3 of 5 pixels in float32 are slightly less than 0.6.
    """
    if intersection.shape[1] == 0:
        return torch.zeros(len(intersection), dtype=torch.float64, device=intersection.device)
    return (intersection.double() / union.clamp(min=1)).amax(dim=1)


def matched_counts(intersection: Tensor, union: Tensor, limits: Sequence[float]) -> list[int]:
    """Number of targets that are matched to a candidate at each IoU limit, by the rule of COCO's evaluator.

    Each candidate in turn takes the free target of highest IoU, if the IoU reaches the limit.

    Args:
        intersection, union: (G, N) int64 from `pairwise_counts`, candidates best first.
        limits: IoU limits.

    >>> shared, joined = torch.tensor([[8, 7], [6, 0]]), torch.tensor([[10, 10], [10, 10]])
    >>> matched_counts(shared, joined, (0.5, 0.65))  # the first candidate is the best for both targets
    [1, 1]
    """
    iou = (intersection.double() / union.clamp(min=1)).T.cpu().numpy()
    counts = []
    for limit in limits:
        free = np.ones(iou.shape[1], bool)
        for overlaps in iou[(iou >= limit).any(axis=1)]:
            free_overlaps = np.where(free, overlaps, -1.0)
            if free_overlaps.max() >= limit:
                free[free_overlaps.argmax()] = False
        counts.append(int((~free).sum()))
    return counts


def one_to_one(prediction: Tensor, targets: Tensor) -> list[tuple[int, int]]:
    """Intersection and union of each pair in the one-to-one assignment of greatest summed IoU.

    Args:
        prediction: (M, H, W) bool.
        targets: (G, H, W) bool.

    Returns:
        max(M, G) pairs. The smaller side is padded with empty masks; two empty masks have an IoU of 1.
    """
    size = max(len(prediction), len(targets))
    sides = [torch.cat([side, side.new_zeros(size - len(side), *side.shape[1:])]) for side in (prediction, targets)]
    inter, union = pairwise_counts(sides[0], sides[1])
    iou = torch.where(union > 0, inter / union.clamp(min=1).double(), 1.0)
    rows, columns = linear_sum_assignment(iou.cpu().numpy(), maximize=True)
    return [(int(inter[pair]), int(union[pair])) for pair in zip(rows, columns, strict=True)]
