"""The classic protocol of Ref-DAVIS17: answers are made disjoint in each frame, then matched with the true objects.

Each expression of a video describes one object. `share_out` assigns each pixel to one of the soft masks; `match` finds
the best assignment of answers to objects, as the unsupervised task of DAVIS 2017 does (arXiv 1905.00737).
"""

from typing import Literal

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

MOST_OBJECTS = 20
"""Largest number of answers per video in the unsupervised task of DAVIS 2017."""
LEAST_SCORE, BACKGROUND = 0.5, 0.1
"""ReferFormer: scores below the first become 0; the second is the score of the background everywhere."""


def share_out(scores: Tensor, background: Literal["constant", "product"] = "constant") -> Tensor:
    """Assign each pixel to one object or to the background: (K, H, W) float in [0, 1] to (K, H, W) bool, disjoint.

    Of equal scores the background wins, then the earlier object.

    Args:
        scores: soft masks of the objects.
        background: "constant" (ReferFormer): scores below 0.5 count as 0, the background scores 0.1. "product"
            (InstructSeg): the background scores the product of (1 - score) over the objects.

    >>> scores = torch.tensor([0.6, 0.4, 0.0]).view(3, 1, 1)
    >>> share_out(scores).flatten().tolist(), share_out(0.6 * scores, "product").flatten().tolist()
    ([True, False, False], [False, False, False])
    """
    if len(scores) == 0:
        return scores.new_zeros(scores.shape, dtype=torch.bool)
    if background == "constant":
        scores = torch.where(scores < LEAST_SCORE, 0.0, scores)
        ground = torch.full_like(scores[:1], BACKGROUND)
    else:
        ground = (1 - scores).prod(dim=0, keepdim=True)
    owner = torch.cat([ground, scores]).argmax(dim=0)
    return owner[None] == torch.arange(1, len(scores) + 1, device=scores.device)[:, None, None]


def match(j: np.ndarray, f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Assign answers to objects for the greatest summed J + F.

    Args:
        j, f: (K, G) float64, K >= G: J and F of answer k against object g, each the mean over the frames.

    Returns:
        J and F of every object, (G,) float64 each.
    """
    answers, objects = linear_sum_assignment(j + f, maximize=True)
    order = np.argsort(objects)
    chosen = answers[order], objects[order]
    return j[chosen], f[chosen]
