"""Losses of mask selection."""

import torch
import torch.nn.functional as F
from torch import Tensor


def selection_loss(logits: Tensor, labels: Tensor, valid: Tensor, positive_weight: float = 5.0) -> Tensor:
    """Binary cross entropy over candidates, positives weighted (RAS, section 3.3): a scalar.

    logits, labels: (..., N); valid: (..., N) bool, False on padding. Mean over the candidates of a prompt, then over
    prompts; a prompt without candidates counts 0.
    """
    weight = torch.tensor(positive_weight, device=logits.device)
    losses = F.binary_cross_entropy_with_logits(logits, labels, pos_weight=weight, reduction="none")
    counted = valid.to(losses.dtype)
    return ((losses * counted).sum(-1) / counted.sum(-1).clamp(min=1)).mean()
