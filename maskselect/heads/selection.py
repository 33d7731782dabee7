"""Selects the candidates of the group: chosen, not empty, without duplicates, by falling score.

Shape letters: N candidates, M masks of the group.
"""

import torch
from torch import Tensor

from maskselect.ops.masks import not_empty
from maskselect.ops.overlap import mask_nms


def select(masks: Tensor, scores: Tensor, chosen: Tensor, duplicates_iou: float | None) -> Tensor:
    """Indices of the candidates in the group, by falling score: (M,) int64.

    Args:
        masks: (N, h, w) bool candidates.
        scores: (N,) float32.
        chosen: (N,) bool, the candidates that the system chose.
        duplicates_iou: suppression by mask IoU among chosen candidates; None for none.
    """
    group = (chosen & not_empty(masks).cpu()).nonzero()[:, 0]
    group = group[torch.sort(scores[group], descending=True, stable=True).indices]
    if duplicates_iou is not None and len(group):
        group = group[mask_nms(masks[group], scores[group], duplicates_iou)]
    return group
