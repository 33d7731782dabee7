"""`SnappingProposer`: moves the outlines of another proposer's masks to the edges of the image, by GrabCut.

A small SAM predicts on a coarse grid, so its outlines are off by a few pixels. GrabCut (Rother et al. 2004, in OpenCV)
reassigns the pixels in a band around the outline by colour. This step is not in the papers; official SAM weights do not
need it.

Shape letters: N masks, H W pixels of the image, h w pixels of the scaled image.
"""

from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor

from maskselect.backends.cache_keys import cache_key
from maskselect.ops.images import size_of, working_image
from maskselect.ops.masks import resize_nearest
from maskselect.ops.overlap import mask_nms
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import PromptableProposer

_MARGIN = 12  # pixels of background around the mask that GrabCut learns colours from
_SMALLEST = 30  # pixels; smaller masks stay unchanged
_CHANGE = (0.5, 2.0)  # a mask whose area changes by a factor outside this range stays unchanged


class SnappingProposer:
    """A `PromptableProposer` around another one.

    Args:
        proposer: the inner proposer.
        side: larger images are scaled down to this longer side.
        band: half width of the band in pixels.
        iterations: number of GrabCut iterations.
        nms_iou: suppression by mask IoU after GrabCut.
    """

    def __init__(
        self, proposer: PromptableProposer, side: int = 256, band: int = 5, iterations: int = 1, nms_iou: float = 0.75
    ) -> None:
        self.proposer = proposer
        self.side, self.band, self.iterations, self.nms_iou = side, band, iterations, nms_iou

    def cache_key(self) -> str:
        """The key of the inner proposer and all settings."""
        names = ("proposer", "side", "band", "iterations", "nms_iou")
        return cache_key("SnappingProposer", **{name: getattr(self, name) for name in names})

    def propose(self, image: np.ndarray) -> MaskSet:
        """Candidates at the size of the image, (H, W, 3) uint8, in the order of the inner proposer."""
        size, frame = size_of(image), working_image(image, self.side)
        pool = self.proposer.propose(frame)
        if len(pool) == 0:
            return MaskSet.empty(size, pool.source)
        snapped = torch.stack([self._snap(frame, mask) for mask in pool.masks])
        kept = mask_nms(snapped, pool.scores, self.nms_iou).sort().values
        return replace(pool.keep(kept), masks=resize_nearest(snapped[kept], size))

    def segment_box(self, image: np.ndarray, box_xyxy: tuple[float, float, float, float]) -> Tensor:
        """The mask in a box in pixels: (H, W) bool."""
        frame, (across, down) = self._scaled(image)
        x0, y0, x1, y1 = box_xyxy
        mask = self.proposer.segment_box(frame, (x0 * across, y0 * down, x1 * across, y1 * down))
        return resize_nearest(self._snap(frame, mask)[None], size_of(image))[0]

    def segment_boxes(self, image: np.ndarray, boxes_xyxy: Tensor) -> MaskSet:
        """The masks in boxes (K, 4) in pixels, in their order, with the scores of the inner proposer."""
        (frame, scale), size = self._scaled(image), size_of(image)
        inner = self.proposer.segment_boxes(frame, boxes_xyxy * torch.tensor(scale * 2, dtype=torch.float32))
        masks = [resize_nearest(self._snap(frame, mask)[None], size) for mask in inner.masks]
        return MaskSet(torch.cat([torch.zeros(0, *size, dtype=torch.bool), *masks]), inner.scores, inner.source)

    def segment_point(self, image: np.ndarray, point_xy: tuple[float, float]) -> Tensor:
        """The mask at a point in pixels: (H, W) bool."""
        frame, (across, down) = self._scaled(image)
        mask = self.proposer.segment_point(frame, (point_xy[0] * across, point_xy[1] * down))
        return resize_nearest(self._snap(frame, mask)[None], size_of(image))[0]

    def _scaled(self, image: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
        """The image scaled down to `side`, and the scale of x and y."""
        frame = working_image(image, self.side)
        return frame, (frame.shape[1] / image.shape[1], frame.shape[0] / image.shape[0])

    def _snap(self, frame: np.ndarray, mask: Tensor) -> Tensor:
        """Apply GrabCut to one mask (h, w) bool. A mask that GrabCut cannot improve stays unchanged."""
        before = mask.cpu().numpy()
        if before.sum() < _SMALLEST:
            return mask.cpu()
        rows, columns = np.flatnonzero(before.any(1)), np.flatnonzero(before.any(0))
        window = (
            slice(max(0, rows[0] - _MARGIN), rows[-1] + _MARGIN + 1),
            slice(max(0, columns[0] - _MARGIN), columns[-1] + _MARGIN + 1),
        )
        labels = self._labels(before[window].astype(np.uint8))
        cv2.setRNGSeed(0)  # GrabCut's colour models start from random points
        try:
            pixels = np.ascontiguousarray(frame[window])
            models = np.zeros((1, 65)), np.zeros((1, 65))
            cv2.grabCut(pixels, labels, None, *models, self.iterations, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
        except cv2.error:  # the foreground or the background has no certain pixel
            return mask.cpu()
        after = np.zeros_like(before)
        after[window] = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
        change = after.sum() / before.sum()
        return torch.from_numpy(after) if _CHANGE[0] < change < _CHANGE[1] else mask.cpu()

    def _labels(self, inside: np.ndarray) -> np.ndarray:
        """GrabCut's four labels: probable in the band, certain elsewhere."""
        brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * self.band + 1, 2 * self.band + 1))
        labels = np.full(inside.shape, cv2.GC_BGD, np.uint8)
        labels[cv2.dilate(inside, brush) > 0] = cv2.GC_PR_BGD
        labels[inside > 0] = cv2.GC_PR_FGD
        labels[cv2.erode(inside, brush) > 0] = cv2.GC_FGD
        return labels
