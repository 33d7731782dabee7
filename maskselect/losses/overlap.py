"""Losses of LLM-Seg (arXiv 2404.08767, section 3.4): masks ranked by IoU, and regressed to IoP.

Shape letters: R rows (a prompt each), N candidates.
"""

from typing import Literal

import torch
from torch import Tensor

Divergence = Literal["released", "paper"]


def alignment_loss(
    similarity: Tensor, iou: Tensor, valid: Tensor, temperature: float = 0.05, divergence: Divergence = "released"
) -> Tensor:
    """Kullback-Leibler divergence of softmaxed similarities and softmaxed IoU (Equation 1), mean over rows.

    similarity, iou: (R, N); IoU in [0, 1].  valid: (R, N) bool, False on padding; a row without any counts 0.
    temperature: of both softmaxes.
    divergence: "released" is KL(IoU || similarity), what the published code computes; "paper" is KL(similarity || IoU),
        as Equation 1 is written.
    """
    logs = [_log_softmax(values.float() / temperature, valid) for values in (similarity, iou)]
    found, wanted = logs if divergence == "released" else logs[::-1]
    terms = torch.where(valid, wanted.exp() * (wanted - found), 0.0)
    return terms.sum(-1).mean()


def _log_softmax(values: Tensor, valid: Tensor) -> Tensor:
    """Over the valid ones; padding gets no share, and nothing is infinite."""
    return values.masked_fill(~valid, torch.finfo(values.dtype).min / 4).log_softmax(-1)


def iop_loss(predicted: Tensor, iop: Tensor, valid: Tensor) -> Tensor:
    """Squared error weighted by 1 / e^(1 - IoP), so that pure candidates count more (Equation 3): mean over the
    candidates of a row, then over rows.

    predicted, iop: (R, N) in [0, 1].  valid: (R, N) bool; a row without any counts 0.
    """
    errors = (iop - 1).exp() * (predicted.float() - iop) ** 2
    counted = valid.to(errors.dtype)
    return ((errors * counted).sum(-1) / counted.sum(-1).clamp(min=1)).mean()
