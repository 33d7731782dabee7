"""Losses of LLM-Seg (arXiv 2404.08767, section 3.4): ranking by IoU, and regression of IoP.

Shape letters: R rows (one per prompt), N candidates.
"""

from typing import Literal

import torch
from torch import Tensor

Divergence = Literal["released", "paper"]


def alignment_loss(
    similarity: Tensor, iou: Tensor, valid: Tensor, temperature: float = 0.05, divergence: Divergence = "released"
) -> Tensor:
    """Kullback-Leibler divergence between the softmax of similarity and that of IoU (Equation 1), mean over rows.

    Args:
        similarity: (R, N).
        iou: (R, N) in [0, 1].
        valid: (R, N) bool, False for padding; a row without candidates counts 0.
        temperature: of both softmaxes.
        divergence: "released" is KL(IoU || similarity), as in the published code; "paper" is KL(similarity || IoU), as
            in Equation 1.
    """
    logs = [_log_softmax(values.float() / temperature, valid) for values in (similarity, iou)]
    predicted, target = logs if divergence == "released" else logs[::-1]
    terms = torch.where(valid, target.exp() * (target - predicted), 0.0)
    return terms.sum(-1).mean()


def _log_softmax(values: Tensor, valid: Tensor) -> Tensor:
    """Log-softmax over valid entries. Padding has a probability of 0 and a finite logarithm."""
    return values.masked_fill(~valid, torch.finfo(values.dtype).min / 4).log_softmax(-1)


def iop_loss(predicted: Tensor, iop: Tensor, valid: Tensor) -> Tensor:
    """Squared error with the weight 1 / e^(1 - IoP) (Equation 3), mean over the candidates of a row, then over rows.

    Args:
        predicted, iop: (R, N) in [0, 1].
        valid: (R, N) bool, False for padding; a row without candidates counts 0.
    """
    errors = (iop - 1).exp() * (predicted.float() - iop) ** 2
    counted = valid.to(errors.dtype)
    return ((errors * counted).sum(-1) / counted.sum(-1).clamp(min=1)).mean()
