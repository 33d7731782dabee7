"""The classic protocol of Ref-DAVIS17: one mask an object, merged frame by frame, then matched with the true objects.

All expressions of a video are answered, one an object; their soft masks share each frame out (`share_out`), and the
unsupervised task of DAVIS 2017 (arXiv 1905.00737) looks for the best assignment of answers to objects (`match`).
"""

from typing import Literal

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

MOST_OBJECTS = 20
"""As many answers a video as DAVIS 2017 takes in its unsupervised task."""
LEAST_SCORE, BACKGROUND = 0.5, 0.1
"""ReferFormer: scores below the first become 0, and the background scores the second everywhere."""


def share_out(scores: Tensor, background: Literal["constant", "product"] = "constant") -> Tensor:
    """Gives each pixel to one object or to the background: (K, H, W) float in [0, 1] to (K, H, W) bool, disjoint.

    background: "constant" is ReferFormer's: scores below 0.5 count as 0, and the background scores 0.1. "product" is
        InstructSeg's: the background scores the product of (1 - score) over the objects.
    Where two are equal the earlier one has the pixel, and the background before all objects.

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
    """The assignment of answers to objects of greatest summed mean of J and F.

    j, f: (K, G) float64, J and F of answer k against object g, each the mean over the frames.
    Gives J and F of every object, (G,) float64 each; with fewer answers than objects, pad with empty answers before.
    """
    answers, objects = linear_sum_assignment(j + f, maximize=True)
    order = np.argsort(objects)
    chosen = answers[order], objects[order]
    return j[chosen], f[chosen]
