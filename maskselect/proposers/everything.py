"""Everything mode of any Segment Anything model: a grid of points, filters, suppression, and drawing what is left.

The parameters and filters are those of the package's `SamAutomaticMaskGenerator`. The order of work differs: an image
is encoded once, stability, boxes and suppression are decided on low-res logits, and only what survives is drawn at full
size. In `exact` mode they are decided at full size.

Frames: *image*, the caller's pixels; *model*, the square that the network reads; *low*, the decoder's logits. Shape
letters: N masks, P prompts, T tokens of a prompt, C channels, l side of the low frame.
"""

from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor

from maskselect.backends.sam_points import PointDecoder, Precision
from maskselect.ops.boxes import box_nms, masks_to_boxes_xyxy
from maskselect.ops.images import size_of
from maskselect.ops.masks import not_empty
from maskselect.ops.overlap import mask_nms
from maskselect.proposers.sam_drawing import drawing_of
from maskselect.proposers.sam_filter import Found, Frame, StabilityFilter
from maskselect.proposers.sam_grid import at_crop_edge, crop_boxes, point_grids, remove_small_regions
from maskselect.structures.masks import MaskSet

Mode = Literal["fast", "exact"]


class PromptNetwork(Protocol):
    """What everything mode asks of a network."""

    source: str
    side: int
    device: torch.device
    decoder: PointDecoder

    def frame(self, size: tuple[int, int]) -> Frame:
        """Where an image of (height, width) lies in the model's square and in the logits'."""
        ...

    def embed(self, image: np.ndarray) -> Any:
        """(H, W, 3) uint8 to what the decoder takes as the image's embedding."""
        ...

    def encode_points(self, points: Tensor) -> Tensor:
        """(P, 2) points in the model frame, one a prompt, inside what is looked for, to (P, T, C)."""
        ...

    def encode_boxes(self, corners: Tensor) -> Tensor:
        """(P, 4) corners in the model frame to (P, T, C)."""
        ...


class EverythingMode:
    """Candidates of an image, and the masks of given prompts.

    network: which network.  The other arguments: see `proposers.sam.SamProposer`.
    """

    def __init__(
        self,
        network: PromptNetwork,
        points_per_side: int,
        pred_iou_thresh: float,
        stability: StabilityFilter,
        box_nms_thresh: float,
        crop_n_layers: int,
        crop_nms_thresh: float,
        crop_overlap_ratio: float,
        crop_n_points_downscale_factor: int,
        min_mask_region_area: int,
        mask_nms_thresh: float | None,
        max_candidates: int | None,
        refine: bool,
        mode: Mode,
    ) -> None:
        self.network = network
        self.least_iou = pred_iou_thresh if pred_iou_thresh > 0 else -torch.inf
        self.exact = mode == "exact"
        self.decide = stability.by_size if mode == "exact" else stability.by_low
        self.box_nms_thresh = box_nms_thresh
        self.crop_n_layers, self.crop_nms_thresh = crop_n_layers, crop_nms_thresh
        self.crop_overlap_ratio = crop_overlap_ratio
        self.min_mask_region_area = min_mask_region_area
        self.mask_nms_thresh = mask_nms_thresh
        self.max_candidates = max_candidates
        self.refine = refine
        self._grids = point_grids(points_per_side, crop_n_layers, crop_n_points_downscale_factor)

    @torch.inference_mode()
    def propose(self, image: np.ndarray, size: tuple[int, int]) -> MaskSet:
        """(H, W, 3) uint8 to candidates at `size` by falling predicted IoU, which is their score.

        Columns predicted_iou and stability_score, (N,) float32. Raises ValueError for another kind of array.
        """
        height, width = size_of(image)
        found = self._find(image)
        masks = self._draw(found.low, found.crops, (height, width), size, torch.device("cpu"))
        if self.min_mask_region_area > 0 and len(masks):
            masks, kept = self._mended(masks, self.min_mask_region_area * (size[0] * size[1]) / (height * width))
            found = found.keep(kept.to(self.network.device))
        shown = not_empty(masks)
        iou, stability = found.iou.cpu(), found.stability.cpu()
        columns = {"predicted_iou": iou, "stability_score": stability}
        result = MaskSet(masks, iou, self.network.source, columns)
        return result if bool(shown.all()) else result.keep(shown)

    @torch.inference_mode()
    def at_boxes(self, image: np.ndarray, boxes_xyxy: Tensor) -> MaskSet:
        """The best mask for each box in pixels, (K, 4), in their order, some perhaps empty. Scores: predicted IoU."""
        frame = self.network.frame(size_of(image))
        corners = frame.to_model(boxes_xyxy.float().reshape(-1, 2, 2).to(self.network.device)).flatten(1)
        return self._best(image, self.network.encode_boxes(corners) if len(corners) else None)

    @torch.inference_mode()
    def at_point(self, image: np.ndarray, point_xy: tuple[float, float]) -> MaskSet:
        """The best mask for a point in pixels: a set of one."""
        point = torch.tensor([point_xy], dtype=torch.float32, device=self.network.device)
        return self._best(image, self.network.encode_points(self.network.frame(size_of(image)).to_model(point)))

    def _best(self, image: np.ndarray, sparse: Tensor | None) -> MaskSet:
        """Of the masks for each prompt (P, T, C) the one of highest predicted IoU."""
        size = size_of(image)
        if sparse is None:
            return MaskSet.empty(size, self.network.source)
        lows, scores = [], []
        for low, iou in self.network.decoder.decode(self.network.embed(image), sparse, -torch.inf):
            chosen = iou.argmax(1)
            rows = torch.arange(len(chosen), device=chosen.device)
            lows.append(low[rows, chosen])
            scores.append(iou[rows, chosen].cpu())
        low = torch.cat(lows)
        crops = torch.tensor([[0, 0, size[1], size[0]]], dtype=torch.int64).expand(len(low), -1)
        masks = self._draw(low, crops, size, size, torch.device("cpu"))
        return MaskSet(masks, torch.cat(scores), self.network.source)

    def _find(self, image: np.ndarray) -> Found:
        """All filters and suppressions, by falling predicted IoU."""
        size = size_of(image)
        crops, layers = crop_boxes(size, self.crop_n_layers, self.crop_overlap_ratio)
        found = Found.join([self._find_in_crop(image, c, k) for c, k in zip(crops, layers, strict=True)])
        if len(crops) > 1:
            extent = (found.crops[:, 2:] - found.crops[:, :2]).float().prod(1)
            found = found.keep(box_nms(found.boxes, 1 / extent, self.crop_nms_thresh))  # smaller crops are preferred
        found = found.keep(torch.sort(found.iou, descending=True, stable=True).indices)
        if self.mask_nms_thresh is not None and len(found.iou) > 1:
            low_size = self.network.frame(size).low_size
            masks = self._draw(found.low, found.crops, size, low_size, self.network.device, as_they_are=True)
            found = found.keep(mask_nms(masks, found.iou, self.mask_nms_thresh))
        if self.max_candidates is None:
            return found
        return found.keep(torch.arange(len(found.iou), device=found.iou.device)[: self.max_candidates])

    def _find_in_crop(self, image: np.ndarray, crop: list[int], layer: int) -> Found:
        """What the grid of points finds within a crop, its corners in image pixels; boxes in image pixels too."""
        network, (x0, y0, x1, y1) = self.network, crop
        part = image[y0:y1, x0:x1]
        frame = network.frame((y1 - y0, x1 - x0))
        embedding = network.embed(part)
        points = torch.as_tensor(self._grids[layer] * (x1 - x0, y1 - y0), dtype=torch.float32, device=network.device)
        sparse = network.encode_points(frame.to_model(points))

        def filtered(low: Tensor, iou: Tensor) -> Found:
            good = iou > self.least_iou
            return self.decide(low[good], iou[good], frame)

        def thinned(found: Found) -> Found:
            found = found.keep(~at_crop_edge(found.boxes, crop, size_of(image)))
            return found.keep(box_nms(found.boxes, found.iou, self.box_nms_thresh))

        found = thinned(Found.join([filtered(*d) for d in network.decoder.decode(embedding, sparse, self.least_iou)]))
        if self.refine and len(found.iou):
            if self.mask_nms_thresh is not None:
                found = found.keep(mask_nms(found.low[frame.cells] > 0, found.iou, self.mask_nms_thresh))
            asked = network.encode_boxes(frame.to_model(found.boxes.unflatten(1, (2, 2))).flatten(1))
            found = thinned(filtered(*network.decoder.redraw(embedding, asked, found.low)))
        crops = torch.tensor([crop], dtype=torch.int64, device=network.device).expand(len(found.iou), -1)
        boxes = found.boxes + torch.tensor([x0, y0, x0, y0], dtype=torch.int64, device=network.device)
        return Found(found.low, crops, found.iou, found.stability, boxes)

    def _draw(
        self,
        low: Tensor,
        crops: Tensor,
        size: tuple[int, int],
        target: tuple[int, int],
        device: torch.device,
        as_they_are: bool = False,
    ) -> Tensor:
        """Masks (N, *target) bool on `device`, without a pile of large logits.

        size: (H, W) of the image, in whose pixels `crops` are.
        as_they_are: logits of just the drawn size are not enlarged and shrunk again, which the package would do.
        """
        masks = torch.zeros(len(low), *target, dtype=torch.bool, device=device)
        across, down = target[1] / size[1], target[0] / size[0]
        for crop in torch.unique(crops, dim=0):
            rows = (crops == crop).all(1).nonzero()[:, 0]
            left, top, right, bottom = crop.tolist()
            frame = self.network.frame((bottom - top, right - left))
            y0, y1, x0, x1 = round(top * down), round(bottom * down), round(left * across), round(right * across)
            if as_they_are and (y1 - y0, x1 - x0) == frame.low_size:
                drawn = low[rows][frame.cells] > 0
            else:
                drawn = self._drawn(low[rows], frame, (max(y1 - y0, 1), max(x1 - x0, 1)))
            masks[rows.to(device), y0:y1, x0:x1] = drawn[:, : y1 - y0, : x1 - x0].to(device)
        return masks

    def _drawn(self, low: Tensor, frame: Frame, size: tuple[int, int]) -> Tensor:
        """Masks (N, *size) bool of one crop; in exact mode enlarged just as the package does, one at a time."""
        if not self.exact:
            return drawing_of(frame, size).draw(low)
        parts = [frame.enlarged(logits, size) > 0 for logits in low.split(1)]
        return torch.cat(parts) if parts else torch.zeros(0, *size, dtype=torch.bool, device=low.device)

    def _mended(self, masks: Tensor, area: float) -> tuple[Tensor, Tensor]:
        """Masks without small holes and islands, and which rows stay after suppression, unchanged ones preferred."""
        mended, scores = [], []
        for mask in masks.numpy():
            filled, holes = remove_small_regions(mask, area, mode="holes")
            clean, islands = remove_small_regions(filled, area, mode="islands")
            mended.append(torch.from_numpy(np.ascontiguousarray(clean)))
            scores.append(float(not holes and not islands))
        result = torch.stack(mended)
        kept = box_nms(
            masks_to_boxes_xyxy(result),
            torch.tensor(scores, dtype=torch.float32),
            max(self.box_nms_thresh, self.crop_nms_thresh),
        )
        kept = kept.sort().values
        return result[kept], kept


class EverythingProposer:
    """A `PromptableProposer`: everything mode, boxes and points of one network. Settings: those of `EverythingMode`."""

    def __init__(self, network: PromptNetwork, **settings: Any) -> None:
        self.side = network.side
        self._everything = EverythingMode(network, **settings)

    def propose(self, image: np.ndarray) -> MaskSet:
        """(H, W, 3) uint8 to candidates at the image's own size by falling predicted IoU.

        Scores are predicted IoU; columns predicted_iou and stability_score, (N,) float32. The masks take N * H * W
        bytes; where that may be too much, use `propose_low` and draw only what is chosen.
        """
        return self._everything.propose(image, size_of(image))

    def propose_low(self, image: np.ndarray) -> MaskSet:
        """As `propose`, with masks at the size of `model_size(image)`. Memory does not grow with the image."""
        return self._everything.propose(image, self.model_size(image))

    def model_size(self, image: np.ndarray) -> tuple[int, int]:
        """(h, w) of the image with its longer side brought to the encoder's, rounded as SAM rounds."""
        return longest_side(size_of(image), self.side)

    def segment_box(self, image: np.ndarray, box_xyxy: tuple[float, float, float, float]) -> Tensor:
        """The best mask for a box in pixels: (H, W) bool."""
        return self.segment_boxes(image, torch.tensor([box_xyxy], dtype=torch.float32)).masks[0]

    def segment_boxes(self, image: np.ndarray, boxes_xyxy: Tensor) -> MaskSet:
        """The best mask for each box in pixels, (K, 4), in their order, some perhaps empty. Scores: predicted IoU."""
        return self._everything.at_boxes(image, boxes_xyxy)

    def segment_point(self, image: np.ndarray, point_xy: tuple[float, float]) -> Tensor:
        """The best mask for a point in pixels: (H, W) bool."""
        return self._everything.at_point(image, point_xy).masks[0]


def longest_side(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(height, width) with the longer brought to `side`, rounded as SAM rounds, at least 1."""
    scale = side / max(size)
    height, width = (max(1, int(length * scale + 0.5)) for length in size)
    return height, width


def check_settings(points_per_side: int, points_per_batch: int, mode: Mode, precision: str) -> None:
    """Raises ValueError for settings that cannot be, before any weights are read."""
    if points_per_side < 1 or points_per_batch < 1:
        raise ValueError("points_per_side and points_per_batch must be at least 1")
    for name, value, known in (("mode", mode, get_args(Mode)), ("precision", precision, get_args(Precision))):
        if value not in known:
            raise ValueError(f"{name} {value!r} is unknown; expected one of {', '.join(known)}")
    if mode == "exact" and precision != "float32":
        raise ValueError(f"mode exact needs precision float32, got {precision}: half the digits give other masks")
