"""`SnappingRefiner`: replaces a coarse mask by the union of the proposals within it. This refiner is ours.

Shape letters: M masks, h w their size, H W pixels of the image, N proposals.
"""

import numpy as np
from torch import Tensor

from maskselect.backends.cache_keys import cache_key
from maskselect.ops.masks import resize_nearest, resize_smooth
from maskselect.refiners.last_image import LastImage, refine_each
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import Proposer


class SnappingRefiner:
    """Replaces a mask by the union of all proposals that lie mostly within it.

    Args:
        proposer: computes proposals if the caller has none.
        threshold: a proposal is used if a larger share of its area is within the coarse mask; in [0, 1).
        least_iou: minimum IoU of the union and the coarse mask; in [0, 1]. Below it the proposals show something else,
            and the coarse mask is kept, enlarged. It is also kept if no proposal is used.
        grid: side of the square of cells on which this IoU is computed, so that it does not depend on whether the
            caller enlarged the coarse mask, nor on the fineness of outlines that a coarse mask cannot have. Best is the
            grid of the system; the default holds for all.

    Raises:
        ValueError: a setting is out of range.
    """

    name = "snap"

    def __init__(self, proposer: Proposer, threshold: float = 0.5, least_iou: float = 0.7, grid: int = 16) -> None:
        if not 0 <= threshold < 1 or not 0 <= least_iou <= 1:
            raise ValueError(f"threshold must be in [0, 1) and least_iou in [0, 1], got {threshold} and {least_iou}")
        if grid < 1:
            raise ValueError(f"grid must be at least 1, got {grid}")
        self.proposer, self.threshold, self.least_iou, self.grid = proposer, threshold, least_iou, grid
        self._images: LastImage[MaskSet] = LastImage()

    def cache_key(self) -> str:
        """Depends on the proposer and all settings."""
        settings = {"threshold": self.threshold, "least_iou": self.least_iou, "grid": self.grid}
        return cache_key("SnappingRefiner", proposer=self.proposer, **settings)

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
        pixels = pool.flatten(1).float()
        shares = enlarged.flatten(1).float() @ pixels.T / pixels.sum(1).clamp(min=1)
        out = enlarged.clone()
        cells = min(self.grid, coarse.shape[1]), min(self.grid, coarse.shape[2])
        for number, used in enumerate(shares > self.threshold):
            union = pool[used].any(0)
            mask = resize_smooth(coarse[number].numpy(), cells)
            small = resize_smooth(union.numpy(), cells)
            overlap, total = np.count_nonzero(small & mask), np.count_nonzero(small | mask)
            if union.any() and overlap >= self.least_iou * total:
                out[number] = union
        return out
