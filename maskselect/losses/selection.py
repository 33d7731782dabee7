"""The loss of mask selection."""

import torch
import torch.nn.functional as F
from torch import Tensor


def selection_loss(logits: Tensor, labels: Tensor, valid: Tensor, positive_weight: float = 5.0) -> Tensor:
    """Binary cross entropy with weighted positives (RAS, section 3.3), mean over candidates, then over prompts.

    Args:
        logits, labels: (..., N).
        valid: (..., N) bool, False for padding; a prompt without candidates counts 0.
        positive_weight: weight of positive candidates.
    """
    weight = torch.tensor(positive_weight, device=logits.device)
    losses = F.binary_cross_entropy_with_logits(logits, labels, pos_weight=weight, reduction="none")
    counted = valid.to(losses.dtype)
    return ((losses * counted).sum(-1) / counted.sum(-1).clamp(min=1)).mean()
