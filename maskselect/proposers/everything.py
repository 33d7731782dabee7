"""Everything mode of any Segment Anything model: a grid of points, filters, suppression, and drawing what is left.

The parameters and filters are those of the package's `SamAutomaticMaskGenerator`. The order of work differs: an image
is encoded once, stability, boxes and suppression are decided on low-res logits, and only what survives is drawn at full
size. In `exact` mode they are decided at full size.

Frames: *image*, the caller's pixels; *model*, the square that the network reads; *low*, the decoder's logits. Shape
letters: N masks, P prompts, T tokens of a prompt, C channels, l side of the low frame.
"""

from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from maskselect.backends.cache_keys import cache_key, weights_digest
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


@dataclass(kw_only=True, eq=False, repr=False)
class EverythingSettings:
    """Settings of everything mode. The defaults are those of SAM 2's own generator.

    Attributes:
        points_per_side: the grid of prompts.
        points_per_batch: how many prompts go through the decoder together.
        pred_iou_thresh: a mask stays if its predicted IoU is above. 0 switches the filter off.
        stability_score_thresh, stability_score_offset: a mask stays if its stability is at or above. 0 switches the
            filter off.
        box_nms_thresh: suppression by box IoU within a crop. 1 switches it off.
        crop_n_layers, crop_nms_thresh, crop_overlap_ratio, crop_n_points_downscale_factor: further passes over crops,
            (2^i)^2 of them in layer i.
        min_mask_region_area: holes and islands smaller than this many image pixels are mended.
        mask_nms_thresh: suppression by mask IoU after all the others, on the low frame; None for none, as in the
            package.
        max_candidates: at most so many, those of highest predicted IoU; None for all.
        refine: ask for every mask once more, by its own box and logits. The package does not do it; it pays if the
            model was trained long enough in further rounds.
        mode: "fast" decides on the decoder's grid; "exact" at full size, which gives the package's own masks.
        decision_side: in fast mode, logits of a smaller side are enlarged to it first. 0 takes the decoder's own grid,
            which is 256 for official SAM and 64 for the compact one.
        precision: of encoder and decoder. Prompts are encoded, and logits compared with thresholds, in float32.
        memory_budget_mb: most memory that the decoder may take; batches of points shrink to it. None for no limit.
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.8
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    min_mask_region_area: int = 0
    mask_nms_thresh: float | None = None
    max_candidates: int | None = None
    refine: bool = False
    mode: Mode = "fast"
    decision_side: int = 0
    precision: Precision = "float32"
    memory_budget_mb: int | None = None

    def check(self) -> None:
        """Check the settings before any weights are read.

        Raises:
            ValueError: a value is out of range.
        """
        if self.points_per_side < 1 or self.points_per_batch < 1:
            raise ValueError("points_per_side and points_per_batch must be at least 1")
        choices = (("mode", self.mode, get_args(Mode)), ("precision", self.precision, get_args(Precision)))
        for name, value, known in choices:
            if value not in known:
                raise ValueError(f"{name} {value!r} is unknown; expected one of {', '.join(known)}")
        if self.mode == "exact" and self.precision != "float32":
            raise ValueError(
                f"mode exact needs precision float32, got {self.precision}: half the digits give other masks"
            )


class EverythingProposer(EverythingSettings):
    """A `PromptableProposer`: everything mode, boxes and points of one network.

    Derived classes are dataclasses: they add what they load, and call `use` with it.
    """

    def use(self, network: PromptNetwork, weights: nn.Module, **declared: object) -> None:
        """Begin with a network, its weights, and what else decides its masks."""
        self.network, self.side = network, network.side
        self._weights, self._declared = weights, declared
        self._least_iou = self.pred_iou_thresh if self.pred_iou_thresh > 0 else -torch.inf
        stability = StabilityFilter(self.stability_score_thresh, self.stability_score_offset, self.decision_side)
        self._decide = stability.by_size if self.mode == "exact" else stability.by_low
        self._grids = point_grids(self.points_per_side, self.crop_n_layers, self.crop_n_points_downscale_factor)

    def cache_key(self) -> str:
        """Of the weights and all settings but those that change only speed and memory."""
        names = {field.name for field in fields(EverythingSettings)} - {"points_per_batch", "memory_budget_mb"}
        settings = {name: getattr(self, name) for name in names}
        return cache_key(type(self).__name__, weights=weights_digest(self._weights), **settings, **self._declared)

    @torch.inference_mode()
    def propose(self, image: np.ndarray) -> MaskSet:
        """Candidates of an image.

        Args:
            image: (H, W, 3) uint8.

        Returns:
            Masks at the image's own size, which take N * H * W bytes, by falling predicted IoU, which is their score.
            Columns predicted_iou and stability_score, (N,) float32.

        Raises:
            ValueError: the array is of another kind.
        """
        size = size_of(image)
        found = self._find(image)
        masks = self._draw(found.low, found.crops, size, size, torch.device("cpu"))
        if self.min_mask_region_area > 0 and len(masks):
            masks, kept = self._mended(masks, self.min_mask_region_area)
            found = found.keep(kept.to(self.network.device))
        shown = not_empty(masks)
        iou, stability = found.iou.cpu(), found.stability.cpu()
        columns = {"predicted_iou": iou, "stability_score": stability}
        result = MaskSet(masks, iou, self.network.source, columns)
        return result if bool(shown.all()) else result.keep(shown)

    def segment_box(self, image: np.ndarray, box_xyxy: tuple[float, float, float, float]) -> Tensor:
        """The best mask for a box in pixels: (H, W) bool."""
        return self.segment_boxes(image, torch.tensor([box_xyxy], dtype=torch.float32)).masks[0]

    @torch.inference_mode()
    def segment_boxes(self, image: np.ndarray, boxes_xyxy: Tensor) -> MaskSet:
        """The best mask for each box in pixels, (K, 4), in their order, some perhaps empty. Scores: predicted IoU."""
        frame = self.network.frame(size_of(image))
        corners = _corners(frame, boxes_xyxy.float().to(self.network.device))
        return self._best(image, self.network.encode_boxes(corners) if len(corners) else None)

    @torch.inference_mode()
    def segment_point(self, image: np.ndarray, point_xy: tuple[float, float]) -> Tensor:
        """The best mask for a point in pixels: (H, W) bool."""
        point = torch.tensor([point_xy], dtype=torch.float32, device=self.network.device)
        frame = self.network.frame(size_of(image))
        return self._best(image, self.network.encode_points(frame.to_model(point))).masks[0]

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
            masks = self._draw(found.low, found.crops, size, low_size, self.network.device, keep_low_resolution=True)
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
            good = iou > self._least_iou
            return self._decide(low[good], iou[good], frame)

        def thinned(found: Found) -> Found:
            found = found.keep(~at_crop_edge(found.boxes, crop, size_of(image)))
            return found.keep(box_nms(found.boxes, found.iou, self.box_nms_thresh))

        found = thinned(Found.join([filtered(*d) for d in network.decoder.decode(embedding, sparse, self._least_iou)]))
        if self.refine and len(found.iou):
            if self.mask_nms_thresh is not None:
                found = found.keep(mask_nms(found.low[frame.cells] > 0, found.iou, self.mask_nms_thresh))
            asked = network.encode_boxes(_corners(frame, found.boxes))
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
        keep_low_resolution: bool = False,
    ) -> Tensor:
        """Masks (N, *target) bool on `device`, without a pile of large logits.

        size: (H, W) of the image, in whose pixels `crops` are.
        keep_low_resolution: logits of just the drawn size are not enlarged and shrunk again, as the package would.
        """
        masks = torch.zeros(len(low), *target, dtype=torch.bool, device=device)
        across, down = target[1] / size[1], target[0] / size[0]
        for crop in torch.unique(crops, dim=0):
            rows = (crops == crop).all(1).nonzero()[:, 0]
            left, top, right, bottom = crop.tolist()
            frame = self.network.frame((bottom - top, right - left))
            y0, y1, x0, x1 = round(top * down), round(bottom * down), round(left * across), round(right * across)
            if keep_low_resolution and (y1 - y0, x1 - x0) == frame.low_size:
                drawn = low[rows][frame.cells] > 0
            else:
                drawn = self._drawn(low[rows], frame, (max(y1 - y0, 1), max(x1 - x0, 1)))
            masks[rows.to(device), y0:y1, x0:x1] = drawn[:, : y1 - y0, : x1 - x0].to(device)
        return masks

    def _drawn(self, low: Tensor, frame: Frame, size: tuple[int, int]) -> Tensor:
        """Masks (N, *size) bool of one crop; in exact mode enlarged just as the package does, one at a time."""
        if self.mode != "exact":
            return drawing_of(frame, size).draw(low)
        parts = [frame.enlarged(logits, size) > 0 for logits in low.split(1)]
        return torch.cat(parts) if parts else torch.zeros(0, *size, dtype=torch.bool, device=low.device)

    def _mended(self, masks: Tensor, area: int) -> tuple[Tensor, Tensor]:
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


def _corners(frame: Frame, boxes: Tensor) -> Tensor:
    """Boxes (K, 4) in image pixels as corners (K, 4) in the model frame."""
    points = frame.to_model(rearrange(boxes, "k (corner xy) -> k corner xy", xy=2))
    return rearrange(points, "k corner xy -> k (corner xy)")


def longest_side(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(height, width) with the longer brought to `side`, rounded as SAM rounds, at least 1."""
    scale = side / max(size)
    height, width = (max(1, int(length * scale + 0.5)) for length in size)
    return height, width
