"""`RegionProposer`: candidates without any weights, for machines and pictures that no checkpoint knows.

Graph-based regions (Felzenszwalb and Huttenlocher 2004, scikit-image's) at several scales. They are patches of like
colour, not things; what is a patch at many scales is the likelier thing.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import torch

from maskselect.backends import needs
from maskselect.backends.cache_keys import cache_key
from maskselect.backends.optional import require
from maskselect.backends.weightless import reads_weights
from maskselect.ops.masks import resize_smooth
from maskselect.ops.overlap import mask_nms
from maskselect.structures.masks import MaskSet
from maskselect.structures.needs import Arguments, Need


class RegionProposer:
    """A `Proposer` by colour alone.

    Args:
        scales: a larger one gives larger regions.
        sigma: width in pixels of the blur before.
        min_size: regions of fewer pixels join a neighbour.
        side: longer side of the frame in which regions are found; larger images are scaled down to it.
        nms_iou: of two regions that overlap more, the steadier stays.
        max_candidates: at most so many, the steadiest; None for all.

    Raises ValueError for settings that cannot be, or when scikit-image is not installed.
    """

    def __init__(
        self,
        scales: Sequence[float] = (50, 100, 200, 400, 800),
        sigma: float = 0.8,
        min_size: int = 40,
        side: int = 256,
        nms_iou: float = 0.8,
        max_candidates: int | None = 64,
    ) -> None:
        if not scales or min(scales) <= 0 or sigma < 0 or min_size < 1 or side < 1:
            raise ValueError("scales must be above 0, sigma at least 0, min_size and side at least 1")
        self._segment: Any = require("skimage.segmentation", "regions").felzenszwalb if reads_weights() else None
        self.scales, self.sigma, self.min_size = sorted(scales), sigma, min_size
        self.side, self.nms_iou, self.max_candidates = side, nms_iou, max_candidates

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """scikit-image."""
        return needs.package("skimage", "scikit-image", "regions")

    def cache_key(self) -> str:
        """Of all its settings."""
        names = ("scales", "sigma", "min_size", "side", "nms_iou", "max_candidates")
        return cache_key("RegionProposer", **{name: getattr(self, name) for name in names})

    def propose(self, image: np.ndarray) -> MaskSet:
        """(H, W, 3) uint8 to candidates at the image's own size.

        Scores: the IoU of a region with the most like region of a neighbouring scale, falling, in [0, 1].
        """
        height, width = image.shape[:2]
        factor = min(1.0, self.side / max(height, width))
        size = max(1, round(width * factor)), max(1, round(height * factor))
        frame = image if factor == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        maps = [self._segment(frame, scale=scale, sigma=self.sigma, min_size=self.min_size) for scale in self.scales]
        masks = torch.cat(
            [torch.from_numpy(np.stack([labels == n for n in range(labels.max() + 1)])) for labels in maps]
        )
        scores = torch.from_numpy(np.concatenate(_steadiness(maps))).float()
        kept = mask_nms(masks, scores, self.nms_iou)[: self.max_candidates]
        return MaskSet(_enlarged(masks[kept], (height, width)), scores[kept], "regions")


def _steadiness(maps: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Of each region of each map its best IoU with one of the map before or behind; 0 where there is no other map."""
    best = [np.zeros(labels.max() + 1) for labels in maps]
    for number, (first, second) in enumerate(pairwise(maps)):
        shape = first.max() + 1, second.max() + 1
        shared = np.bincount(first.ravel() * shape[1] + second.ravel(), minlength=shape[0] * shape[1]).reshape(shape)
        iou = shared / (shared.sum(1)[:, None] + shared.sum(0)[None] - shared)
        best[number] = np.maximum(best[number], iou.max(1))
        best[number + 1] = np.maximum(best[number + 1], iou.max(0))
    return best


def _enlarged(masks: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(N, h, w) bool to (N, H, W) bool, edges interpolated."""
    if tuple(masks.shape[1:]) == size:
        return masks
    large = [resize_smooth(mask, size) for mask in masks.numpy()]
    return torch.from_numpy(np.stack(large)) if large else torch.zeros(0, *size, dtype=torch.bool)
