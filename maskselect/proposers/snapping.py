"""`SnappingProposer`: another proposer's masks, pulled to the edges of the picture by GrabCut.

A small SAM decides on a coarse grid, so its masks are right about the thing and a few pixels wrong about its outline.
GrabCut (Rother et al. 2004, OpenCV's) settles those few pixels: in a band around the outline each pixel goes to the
side whose colours it fits. This step is ours, not the papers'; official SAM weights do not need it.

Shape letters: N masks, H W pixels of the image, h w of the frame in which masks are cut.
"""

import cv2
import numpy as np
import torch
from torch import Tensor

from maskselect.backends.cache_keys import cache_key
from maskselect.ops.masks import resize_nearest
from maskselect.ops.overlap import mask_nms
from maskselect.structures.masks import MaskSet
from maskselect.structures.protocols import PromptableProposer

_MARGIN = 12  # pixels of background around the mask from which its colours are learned
_SMALLEST = 30  # pixels; fewer have no colours to speak of
_CHANGE = (0.5, 2.0)  # a mask whose area changes by more was not cut, it was lost


class SnappingProposer:
    """A `PromptableProposer` around another one.

    Args:
        proposer: who finds the masks.
        side: longer side of the frame in which masks are found and cut; larger images are scaled down to it.
        band: half width in pixels of the band in which pixels are decided anew.
        iterations: rounds of GrabCut.
        nms_iou: masks that overlap more after cutting are one; the better scored stays.
    """

    def __init__(
        self, proposer: PromptableProposer, side: int = 256, band: int = 5, iterations: int = 1, nms_iou: float = 0.75
    ) -> None:
        self.proposer = proposer
        self.side, self.band, self.iterations, self.nms_iou = side, band, iterations, nms_iou

    def cache_key(self) -> str:
        """Of the inner proposer and all settings."""
        names = ("proposer", "side", "band", "iterations", "nms_iou")
        return cache_key("SnappingProposer", **{name: getattr(self, name) for name in names})

    def propose(self, image: np.ndarray) -> MaskSet:
        """(H, W, 3) uint8 to candidates at the image's own size, in the order of the inner proposer."""
        frame, _ = self._framed(image)
        found = self.proposer.propose(frame)
        if len(found) == 0:
            return MaskSet.empty((image.shape[0], image.shape[1]), found.source)
        cut = torch.stack([self._cut(frame, mask) for mask in found.masks])
        kept = mask_nms(cut, found.scores, self.nms_iou).sort().values
        own = MaskSet(_enlarged(cut[kept], image), found.scores[kept], found.source)
        return MaskSet(own.masks, own.scores, own.source, {k: v[kept] for k, v in found.columns.items()})

    def segment_box(self, image: np.ndarray, box_xyxy: tuple[float, float, float, float]) -> Tensor:
        """The mask inside a box given in pixels: (H, W) bool."""
        frame, (across, down) = self._framed(image)
        x0, y0, x1, y1 = box_xyxy
        found = self.proposer.segment_box(frame, (x0 * across, y0 * down, x1 * across, y1 * down))
        return _enlarged(self._cut(frame, found)[None], image)[0]

    def segment_boxes(self, image: np.ndarray, boxes_xyxy: Tensor) -> MaskSet:
        """The masks inside boxes (K, 4) given in pixels, in their order, with the inner proposer's scores."""
        frame, scale = self._framed(image)
        found = self.proposer.segment_boxes(frame, boxes_xyxy * torch.tensor(scale * 2, dtype=torch.float32))
        masks = [_enlarged(self._cut(frame, mask)[None], image) for mask in found.masks]
        size = (image.shape[0], image.shape[1])
        return MaskSet(torch.cat([torch.zeros(0, *size, dtype=torch.bool), *masks]), found.scores, found.source)

    def segment_point(self, image: np.ndarray, point_xy: tuple[float, float]) -> Tensor:
        """The mask under a point given in pixels: (H, W) bool."""
        frame, (across, down) = self._framed(image)
        found = self.proposer.segment_point(frame, (point_xy[0] * across, point_xy[1] * down))
        return _enlarged(self._cut(frame, found)[None], image)[0]

    def _framed(self, image: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
        """The image within the frame's side, and the scale of x and y."""
        height, width = image.shape[:2]
        factor = min(1.0, self.side / max(height, width))
        size = max(1, round(width * factor)), max(1, round(height * factor))
        frame = image if factor == 1.0 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(frame), (size[0] / width, size[1] / height)

    def _cut(self, frame: np.ndarray, mask: Tensor) -> Tensor:
        """One mask (h, w) bool, its outline decided anew; unchanged where there is nothing to decide by."""
        inside = mask.cpu().numpy()
        if inside.sum() < _SMALLEST:
            return mask.cpu()
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        window = (
            slice(max(0, rows[0] - _MARGIN), rows[-1] + _MARGIN + 1),
            slice(max(0, columns[0] - _MARGIN), columns[-1] + _MARGIN + 1),
        )
        labels = self._labels(inside[window].astype(np.uint8))
        cv2.setRNGSeed(0)  # its colour models start from random points
        try:
            pixels = np.ascontiguousarray(frame[window])
            models = np.zeros((1, 65)), np.zeros((1, 65))
            cv2.grabCut(pixels, labels, None, *models, self.iterations, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
        except cv2.error:  # no sure pixel of one side
            return mask.cpu()
        cut = np.zeros_like(inside)
        cut[window] = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
        change = cut.sum() / inside.sum()
        return torch.from_numpy(cut) if _CHANGE[0] < change < _CHANGE[1] else mask.cpu()

    def _labels(self, inside: np.ndarray) -> np.ndarray:
        """GrabCut's four labels: sure within and beyond the band, likely inside it."""
        brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * self.band + 1, 2 * self.band + 1))
        labels = np.full(inside.shape, cv2.GC_BGD, np.uint8)
        labels[cv2.dilate(inside, brush) > 0] = cv2.GC_PR_BGD
        labels[inside > 0] = cv2.GC_PR_FGD
        labels[cv2.erode(inside, brush) > 0] = cv2.GC_FGD
        return labels


def _enlarged(masks: Tensor, image: np.ndarray) -> Tensor:
    """(N, h, w) bool to the image's own size."""
    return resize_nearest(masks, (image.shape[0], image.shape[1]))
