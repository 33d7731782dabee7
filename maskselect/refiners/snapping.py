"""`SnappingRefiner`: replaces a coarse mask by a union of proposals. This refiner is ours.

Where a system also estimates which cells its targets cover, this estimate weights the comparison, and adds targets that
the masks leave out.

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
from maskselect.ops.pooling import cell_weights, mask_pool
from maskselect.refiners.last_image import LastImage, refine_each
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import Proposer

_FINENESS = 4
_FLOOR = 0.1  # weight of a place that nothing covers; _FLOOR to _RISE were chosen on validation scenes
_WRITTEN = 0.25  # weight of the written masks beside the coverage where targets are added
_OUTSIDE = 0.5  # share of an added proposal that no other mask covers
_RISE = 0.02


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
        covered: minimum mean coverage under a proposal that is added for a target without a mask; in [0, 1], and 1 adds
            none. It is used for "match" with blur, and for systems that give `Answer.coverage`.
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
        covered: float = 0.4,
    ) -> None:
        blur = blur if rule == "match" else 0.0
        if least is None:
            least = 0.7 if rule == "inside" else 0.3 if blur else 0.1
        if not 0 <= threshold < 1 or not 0 <= least <= 1 or not 0 <= covered <= 1:
            raise ValueError(
                f"threshold must be in [0, 1), least and covered in [0, 1], got {threshold}, {least} and {covered}"
            )
        if grid < 1 or blur < 0:
            raise ValueError(f"grid must be at least 1 and blur at least 0, got {grid} and {blur}")
        self.proposer, self.rule, self.threshold = proposer, rule, threshold
        self.least, self.grid, self.blur, self.covered = least, grid, blur, covered
        self._images: LastImage[MaskSet] = LastImage()

    def cache_key(self) -> str:
        """Depends on the proposer and all settings."""
        names = ("threshold", "least", "grid", "blur", "covered")
        settings = {name: getattr(self, name) for name in names}
        return cache_key("SnappingRefiner", proposer=self.proposer, rule=self.rule, **settings)

    def refine(self, image: np.ndarray, masks: Tensor, proposals: MaskSet | None = None) -> Tensor:
        """See `structures.refiner.Refiner`. The proposer runs only if `proposals` is None."""

        def refined(coarse: Tensor) -> Tensor:
            return self._snapped(coarse, resize_nearest(coarse, image.shape[:2]), self._pool(image, proposals))

        return refine_each(image, masks, refined)

    def refine_covered(
        self, image: np.ndarray, masks: Tensor, coverage: Tensor, proposals: MaskSet | None = None
    ) -> Tensor:
        """See `structures.refiner.CoverageRefiner`.

        The coverage weights the mask that is compared with unions. Then proposals are added one after another, as long
        as the agreement of the union of all masks with the coverage rises by `_RISE`.
        """
        if not self.blur or not len(masks):
            return self.refine(image, masks, proposals)
        pool = self._pool(image, proposals)
        if not len(pool):
            return self.refine(image, masks, proposals)
        weights = self._blurred_map(coverage.numpy())

        def refined(coarse: Tensor) -> Tensor:
            return self._snapped(coarse, resize_nearest(coarse, image.shape[:2]), pool, _FLOOR + weights)

        found = refine_each(image, masks, refined)
        written = self._blurred(resize_nearest(masks.cpu(), image.shape[:2])).max(0)
        return torch.cat([found, self._left_out(found, pool, coverage, weights + _WRITTEN * written)])

    def _left_out(self, found: Tensor, pool: Tensor, coverage: Tensor, wanted: np.ndarray) -> Tensor:
        """Proposals (K, H, W) for targets without a mask.

        Args:
            found: (M, H, W) bool.
            pool: (N, H, W) bool, the proposals.
            coverage: (h, w).
            wanted: (values,) float32, the blurred map that all masks together should match.
        """
        mean = mask_pool(coverage[None], cell_weights(pool, (coverage.shape[0], coverage.shape[1])))[:, 0]
        pool = pool[mean >= self.covered] if self.covered < 1 else pool[:0]
        union, chosen = found.any(0), []
        blurred, size = self._blurred(union[None])[0], area(pool).clamp(min=1)
        best = float(_similarity(blurred[None], wanted)[0])
        maps = self._blurred(pool) if len(pool) else np.zeros((0, len(blurred)), np.float32)
        while len(pool):
            similarity = _similarity(np.maximum(maps, blurred), wanted)
            similarity[(area(pool & ~union) < _OUTSIDE * size).numpy()] = -1.0
            first = int(similarity.argmax())
            if similarity[first] <= best + _RISE:
                break
            best, blurred = float(similarity[first]), np.maximum(maps[first], blurred)
            union = union | pool[first]
            chosen.append(first)
        return pool[chosen]

    def _pool(self, image: np.ndarray, proposals: MaskSet | None) -> Tensor:
        """The proposals, (N, H, W) bool on the CPU."""
        pool = self._images(image, self.proposer.propose) if proposals is None else proposals
        return resize_nearest(pool.masks.cpu(), image.shape[:2])

    def _snapped(self, coarse: Tensor, enlarged: Tensor, pool: Tensor, weights: np.ndarray | None = None) -> Tensor:
        """Snap masks: (M, h, w), the same enlarged to (M, H, W), and proposals (N, H, W), all bool, to (M, H, W).

        With `weights` (values,), blurred masks are multiplied by them before they are compared.
        """
        if not len(pool):
            return enlarged
        out = enlarged.clone()
        cells = min(self.grid, coarse.shape[1]), min(self.grid, coarse.shape[2])
        inside = self.threshold < pairwise_iop(pool, enlarged).T if self.rule == "inside" else None
        blurred = self._blurred(pool) if self.blur else None
        for number, large in enumerate(enlarged):
            if blurred is not None:
                mask = self._blurred(large[None])[0]
                union, agreement = _nearest_union(mask if weights is None else mask * weights, blurred, pool)
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
        small = [
            cv2.resize(mask.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA) for mask in masks.numpy()
        ]
        return np.stack([self._blur(mask, self.blur) for mask in small])

    def _blurred_map(self, values: np.ndarray) -> np.ndarray:
        """A map (h, w) float32 on a coarse grid, with half the blur, as its cells are coarse already: (values,)."""
        side = self.grid * _FINENESS
        return self._blur(cv2.resize(values, (side, side), interpolation=cv2.INTER_LINEAR), self.blur / 2)

    def _blur(self, values: np.ndarray, cells: float) -> np.ndarray:
        return cv2.GaussianBlur(values, (0, 0), cells * _FINENESS, borderType=cv2.BORDER_CONSTANT).ravel()


def _nearest_union(mask: np.ndarray, blurred: np.ndarray, pool: Tensor) -> tuple[Tensor, float]:
    """The union that a greedy search finds for its cosine similarity with a mask, and this similarity.

    Args:
        mask: (values,) float32, blurred.
        blurred: (N, values) float32, the proposals; a union is their maximum.
        pool: (N, H, W) bool, the proposals.
    """
    union, best, chosen = np.zeros_like(mask), 0.0, torch.zeros(pool.shape[1:], dtype=torch.bool)
    while True:
        unions = np.maximum(blurred, union)
        similarity = _similarity(unions, mask)
        first = int(similarity.argmax())
        if similarity[first] <= best:
            return chosen, best
        union, best, chosen = unions[first], float(similarity[first]), chosen | pool[first]


def _similarity(maps: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The cosine similarity of maps (N, values) with a map (values,): (N,)."""
    return maps @ wanted / np.maximum(np.linalg.norm(maps, axis=1) * float(np.linalg.norm(wanted)), 1e-9)


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
