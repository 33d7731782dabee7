"""Pairwise overlap of binary masks by matrix products, in chunks within a memory budget.

IoU is intersection over union; IoP is intersection over the area of the *candidate* (LLM-Seg, Equation 2).
"""

import torch
from torch import Tensor

from maskselect.ops.masks import area

MEMORY_BUDGET_MB = 256


def pairwise_intersection(a: Tensor, b: Tensor, memory_budget_mb: int = MEMORY_BUDGET_MB) -> Tensor:
    """Intersection of every pair: (N, H, W) and (M, H, W) bool to (N, M) float32, exact below 2^24 pixels.

    Raises ValueError if the image sizes differ.
    """
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(f"masks must share one image size, got {tuple(a.shape[1:])} and {tuple(b.shape[1:])}")
    out = torch.zeros(len(a), len(b), dtype=torch.float32, device=a.device)
    if len(a) == 0 or len(b) == 0:
        return out
    pixels = a[0].numel()
    step = max(1, memory_budget_mb * 2**20 // (4 * pixels) - len(b))
    flat_b = b.flatten(1).float().T
    for start in range(0, len(a), step):
        out[start : start + step] = a[start : start + step].flatten(1).float() @ flat_b
    return out


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union, (N, M) float32 in [0, 1]. Two empty masks have IoU 0."""
    inter = pairwise_intersection(a, b)
    unions = area(a)[:, None] + area(b)[None] - inter
    return inter / unions.clamp(min=1)


def pairwise_iop(candidates: Tensor, targets: Tensor) -> Tensor:
    """Intersection over candidate area, (N, M) float32 in [0, 1]. An empty candidate has IoP 0."""
    inter = pairwise_intersection(candidates, targets)
    return inter / area(candidates)[:, None].clamp(min=1)


def mask_nms(masks: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Non-maximum suppression by mask IoU: (N, H, W) bool and scores (N,) to kept indices (K,) int64, by falling score.

    A mask is removed if its IoU with a kept mask exceeds `threshold`. Equal scores keep their order.
    """
    order = torch.sort(scores, descending=True, stable=True).indices
    overlaps = pairwise_iou(masks[order], masks[order]) > threshold
    kept: list[int] = []
    for i in range(len(order)):
        if not overlaps[i, kept].any():
            kept.append(i)
    return order[torch.tensor(kept, dtype=torch.long, device=order.device)]
