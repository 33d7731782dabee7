"""Losses on mask logits: focal and dice with the weights of Segment Anything, and regression of the predicted IoU.

All are per mask, so that a caller can take the minimum over several masks of a prompt.
"""

import torch.nn.functional as F
from torch import Tensor

FOCAL_WEIGHT, DICE_WEIGHT = 20.0, 1.0
"""Segment Anything, appendix A: focal to dice 20:1."""


def focal_loss(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Sigmoid focal loss (Lin et al., 2017), mean over pixels: (..., H, W) logits and targets in [0, 1] to (...).

    Targets may be fractional, for cells on an outline. A negative `alpha` means no class weight.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    probability = logits.sigmoid()
    error = probability + targets - 2 * probability * targets  # 1 - p_t
    loss = entropy * error**gamma
    if alpha >= 0:
        loss = loss * (alpha * targets + (1 - alpha) * (1 - targets))
    return loss.flatten(-2).mean(-1)


def dice_loss(logits: Tensor, targets: Tensor, smooth: float = 1.0) -> Tensor:
    """One minus the soft dice coefficient: (..., H, W) logits and targets in [0, 1] to (...).

    `smooth`, in pixels, avoids a division by zero: the loss of an empty prediction for an empty target is 0.
    """
    probability, targets = logits.sigmoid().flatten(-2), targets.flatten(-2)
    shared = (probability * targets).sum(-1)
    return 1 - (2 * shared + smooth) / (probability.sum(-1) + targets.sum(-1) + smooth)


def mask_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Focal and dice together, 20:1: (..., H, W) twice to (...)."""
    return FOCAL_WEIGHT * focal_loss(logits, targets) + DICE_WEIGHT * dice_loss(logits, targets)


def mask_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """True IoU of logits above 0 with targets of at least a half: (..., H, W) twice to (...), without gradient."""
    predicted, true = (logits > 0).flatten(-2), (targets >= 0.5).flatten(-2)
    shared = (predicted & true).sum(-1)
    return shared / (predicted | true).sum(-1).clamp(min=1)


def iou_prediction_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """Mean squared error of predicted IoU: (...) twice to a scalar. The true IoU gets no gradient."""
    return F.mse_loss(predicted, true.detach().to(predicted.dtype))
