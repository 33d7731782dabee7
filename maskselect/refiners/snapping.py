"""`SnappingRefiner`: replaces a coarse mask by a union of proposals. This refiner is ours.

Shape letters: M masks, h w their size, H W pixels of the image, N proposals.
"""

from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from maskselect.backends.cache_keys import cache_key
from maskselect.ops.masks import area, resize_nearest, resize_smooth
from maskselect.ops.overlap import pairwise_iop
from maskselect.refiners.last_image import LastImage, refine_each
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import Proposer

_FINENESS = 4


class SnappingRefiner:
    """Replaces a mask by the union of some proposals.

    Args:
        proposer: computes proposals if the caller has none.
        rule: which proposals are used. "match": one after another the proposal that raises the agreement of the union
            and the coarse mask most, until none raises it. "inside": all that lie mostly within the coarse mask.
        blur: for "match", standard deviation in cells of `grid` of the Gaussian that blurs both masks, whose cosine
            similarity is then the agreement; a mask that is written one cell too far still finds its object. 0 is
            without, and the agreement is the IoU at the size of the image.
        threshold: for "inside", a proposal is used if a larger share of its area is within the coarse mask; in [0, 1).
        least: minimum agreement of the union and the coarse mask; in [0, 1]. Without blur, and for "inside", it is
            their IoU on `grid`. Below it the proposals show something else, and the coarse mask is kept, enlarged. It
            is also kept if no proposal is used. None is 0.3 with blur, else 0.1 for "match" and 0.7 for "inside".
        grid: side of the square of cells on which masks are compared, so that the result does not depend on whether
            the caller enlarged the coarse mask, nor on the fineness of outlines that a coarse mask cannot have. Best is
            the grid of the system; the default holds for all.

    Raises:
        ValueError: a setting is out of range.
    """

    name = "snap"

    def __init__(
        self,
        proposer: Proposer,
        rule: Literal["match", "inside"] = "match",
        threshold: float = 0.5,
        least: float | None = None,
        grid: int = 16,
        blur: float = 1.0,
    ) -> None:
        blur = blur if rule == "match" else 0.0
        if least is None:
            least = 0.7 if rule == "inside" else 0.3 if blur else 0.1
        if not 0 <= threshold < 1 or not 0 <= least <= 1:
            raise ValueError(f"threshold must be in [0, 1) and least in [0, 1], got {threshold} and {least}")
        if grid < 1 or blur < 0:
            raise ValueError(f"grid must be at least 1 and blur at least 0, got {grid} and {blur}")
        self.proposer, self.rule, self.threshold = proposer, rule, threshold
        self.least, self.grid, self.blur = least, grid, blur
        self._images: LastImage[MaskSet] = LastImage()

    def cache_key(self) -> str:
        """Depends on the proposer and all settings."""
        settings = {"threshold": self.threshold, "least": self.least, "grid": self.grid, "blur": self.blur}
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
        blurred = self._blurred(pool) if self.blur else None
        for number, large in enumerate(enlarged):
            if blurred is not None:
                union, agreement = _nearest_union(self._blurred(large[None])[0], blurred, pool)
            else:
                union = _best_union(large, pool) if inside is None else pool[inside[number]].any(0)
                mask, small = (resize_smooth(one.numpy(), cells) for one in (coarse[number], union))
                agreement = int(np.count_nonzero(small & mask)) / max(int(np.count_nonzero(small | mask)), 1)
            if union.any() and agreement >= self.least:
                out[number] = union
        return out

    def _blurred(self, masks: Tensor) -> np.ndarray:
        """Masks (N, H, W) bool, blurred, at `_FINENESS` values along a cell: (N, values) float32."""
        side = self.grid * _FINENESS
        sigma = self.blur * _FINENESS
        small = [
            cv2.resize(mask.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA) for mask in masks.numpy()
        ]
        border = cv2.BORDER_CONSTANT
        return np.stack([cv2.GaussianBlur(mask, (0, 0), sigma, borderType=border).ravel() for mask in small])


def _nearest_union(mask: np.ndarray, blurred: np.ndarray, pool: Tensor) -> tuple[Tensor, float]:
    """The union that a greedy search finds for its cosine similarity with a mask, and this similarity.

    Args:
        mask: (values,) float32, blurred.
        blurred: (N, values) float32, the proposals; a union is their maximum.
        pool: (N, H, W) bool, the proposals.
    """
    union, best, chosen = np.zeros_like(mask), 0.0, torch.zeros(pool.shape[1:], dtype=torch.bool)
    length = float(np.linalg.norm(mask))
    while True:
        unions = np.maximum(blurred, union)
        similarity = unions @ mask / np.maximum(np.linalg.norm(unions, axis=1) * length, 1e-9)
        first = int(similarity.argmax())
        if similarity[first] <= best:
            return chosen, best
        union, best, chosen = unions[first], float(similarity[first]), chosen | pool[first]


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
