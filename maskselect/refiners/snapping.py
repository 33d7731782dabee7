"""`SnappingRefiner`: replaces a coarse mask by a union of proposals. This refiner is ours.

Shape letters: M masks, h w their size, H W pixels of the image, N proposals.
"""

from typing import Literal

import numpy as np
from torch import Tensor

from maskselect.backends.cache_keys import cache_key
from maskselect.ops.masks import area, resize_nearest, resize_smooth
from maskselect.ops.overlap import pairwise_iop
from maskselect.refiners.last_image import LastImage, refine_each
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import Proposer


class SnappingRefiner:
    """Replaces a mask by the union of some proposals.

    Args:
        proposer: computes proposals if the caller has none.
        rule: which proposals are used. "match": one after another the proposal that raises the IoU of the union and the
            coarse mask most, at the size of the image, until none raises it. "inside": all that lie mostly within the
            coarse mask.
        threshold: for "inside", a proposal is used if a larger share of its area is within the coarse mask; in [0, 1).
        least_iou: minimum IoU of the union and the coarse mask; in [0, 1]. Below it the proposals show something else,
            and the coarse mask is kept, enlarged. It is also kept if no proposal is used. None is 0.1 for "match" and
            0.7 for "inside".
        grid: side of the square of cells on which this IoU is computed, so that it does not depend on whether the
            caller enlarged the coarse mask, nor on the fineness of outlines that a coarse mask cannot have. Best is the
            grid of the system; the default holds for all.

    Raises:
        ValueError: a setting is out of range.
    """

    name = "snap"

    def __init__(
        self,
        proposer: Proposer,
        rule: Literal["match", "inside"] = "match",
        threshold: float = 0.5,
        least_iou: float | None = None,
        grid: int = 16,
    ) -> None:
        if least_iou is None:
            least_iou = 0.1 if rule == "match" else 0.7
        if not 0 <= threshold < 1 or not 0 <= least_iou <= 1:
            raise ValueError(f"threshold must be in [0, 1) and least_iou in [0, 1], got {threshold} and {least_iou}")
        if grid < 1:
            raise ValueError(f"grid must be at least 1, got {grid}")
        self.proposer, self.rule, self.threshold, self.least_iou, self.grid = proposer, rule, threshold, least_iou, grid
        self._images: LastImage[MaskSet] = LastImage()

    def cache_key(self) -> str:
        """Depends on the proposer and all settings."""
        settings = {"threshold": self.threshold, "least_iou": self.least_iou, "grid": self.grid}
        return cache_key("SnappingRefiner", proposer=self.proposer, rule=self.rule, **settings)

    def refine(self, image: np.ndarray, masks: Tensor, proposals: MaskSet | None = None) -> Tensor:
        """See `structures.refiner.Refiner`. The proposer runs only if `proposals` is None."""

        def refined(coarse: Tensor) -> Tensor:
            size = (image.shape[0], image.shape[1])
            pool = self._images(image, self.proposer.propose) if proposals is None else proposals
            return self._snapped(coarse, resize_nearest(coarse, size), resize_nearest(pool.masks.cpu(), size))

        return refine_each(image, masks, refined)

    def _snapped(self, coarse: Tensor, enlarged: Tensor, pool: Tensor) -> Tensor:
        """Snap masks: (M, h, w), the same enlarged to (M, H, W), and proposals (N, H, W), all bool, to (M, H, W)."""
        if not len(pool):
            return enlarged
        out = enlarged.clone()
        cells = min(self.grid, coarse.shape[1]), min(self.grid, coarse.shape[2])
        inside = self.threshold < pairwise_iop(pool, enlarged).T if self.rule == "inside" else None
        for number, large in enumerate(enlarged):
            union = _best_union(large, pool) if inside is None else pool[inside[number]].any(0)
            mask = resize_smooth(coarse[number].numpy(), cells)
            small = resize_smooth(union.numpy(), cells)
            overlap, total = np.count_nonzero(small & mask), np.count_nonzero(small | mask)
            if union.any() and overlap >= self.least_iou * total:
                out[number] = union
        return out


def _best_union(mask: Tensor, pool: Tensor) -> Tensor:
    """The union of masks (N, H, W) bool that a greedy search finds for its IoU with a mask (H, W) bool."""
    pool = pool[(pool & mask).flatten(1).any(1)]
    union, best = mask.new_zeros(mask.shape), 0.0
    while len(pool):
        unions = pool | union
        ious = area(unions & mask) / area(unions | mask)
        first = int(ious.argmax())
        if float(ious[first]) <= best:
            break
        union, best = unions[first], float(ious[first])
    return union
