"""`RegionProposer`: candidates without weights.

Graph-based regions (Felzenszwalb and Huttenlocher 2004, scikit-image) at several scales. A region has similar colours
and need not be an object. A region that is stable across scales is more likely one.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from maskselect.backends import needs
from maskselect.backends.cache_keys import cache_key
from maskselect.backends.optional import require
from maskselect.backends.weightless import reads_weights
from maskselect.ops.images import size_of, working_image
from maskselect.ops.masks import resize_smooth
from maskselect.ops.overlap import mask_nms
from maskselect.structures.masks import MaskSet
from maskselect.structures.needs import Arguments, Need


class RegionProposer:
    """A `Proposer` by colour alone.

    Args:
        scales: greater scales give larger regions.
        sigma: standard deviation in pixels of the blur that comes first.
        min_size: smaller regions, in pixels, are merged with a neighbour.
        side: larger images are scaled down to this longer side.
        nms_iou: suppression by mask IoU.
        max_candidates: greatest number of candidates, by score; None for all.

    Raises:
        ValueError: a setting is out of range, or scikit-image is not installed.
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
        """The key of all settings."""
        names = ("scales", "sigma", "min_size", "side", "nms_iou", "max_candidates")
        return cache_key("RegionProposer", **{name: getattr(self, name) for name in names})

    def propose(self, image: np.ndarray) -> MaskSet:
        """Candidates at the size of the image, (H, W, 3) uint8, by falling score.

        The score is the greatest IoU of the region with a region of a neighbouring scale, in [0, 1].
        """
        frame = working_image(image, self.side)
        maps = [self._segment(frame, scale=scale, sigma=self.sigma, min_size=self.min_size) for scale in self.scales]
        masks = torch.cat(
            [torch.from_numpy(np.stack([labels == n for n in range(labels.max() + 1)])) for labels in maps]
        )
        scores = torch.from_numpy(np.concatenate(_stability(maps))).float()
        kept = mask_nms(masks, scores, self.nms_iou)[: self.max_candidates]
        resized = np.stack([resize_smooth(mask, size_of(image)) for mask in masks[kept].numpy()])
        return MaskSet(torch.from_numpy(resized), scores[kept], "regions")


def _stability(maps: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For each region of each map, its greatest IoU with a region of an adjacent map; 0 for a single map."""
    best = [np.zeros(labels.max() + 1) for labels in maps]
    for number, (first, second) in enumerate(pairwise(maps)):
        shape = first.max() + 1, second.max() + 1
        shared = np.bincount(first.ravel() * shape[1] + second.ravel(), minlength=shape[0] * shape[1]).reshape(shape)
        iou = shared / (shared.sum(1)[:, None] + shared.sum(0)[None] - shared)
        best[number] = np.maximum(best[number], iou.max(1))
        best[number + 1] = np.maximum(best[number + 1], iou.max(0))
    return best
