"""Everything mode of any Segment Anything model: a grid of point prompts, filters, suppression, and upsampling.

The parameters and filters are those of the package's `SamAutomaticMaskGenerator`. The order differs: filters and
suppression use low-res logits, and only the masks that stay are upsampled. In `exact` mode they use full-size masks.

Frames: *image*, the caller's pixels; *model*, the square input of the network; *low*, the decoder's logits. Shape
letters: N masks, P prompts, T tokens of a prompt, C channels, l side of the low frame.
"""

from dataclasses import dataclass, fields, replace
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
from maskselect.proposers.sam_drawing import mask_upsampler
from maskselect.proposers.sam_filter import Frame, LowCandidates, StabilityFilter
from maskselect.proposers.sam_grid import at_crop_edge, crop_boxes, point_grids, remove_small_regions
from maskselect.structures.masks import MaskSet

Mode = Literal["fast", "exact"]


class PromptNetwork(Protocol):
    """A network that everything mode can prompt."""

    source: str
    side: int
    device: torch.device
    decoder: PointDecoder

    def frame(self, size: tuple[int, int]) -> Frame:
        """The frame of an image of (height, width)."""
        ...

    def embed(self, image: np.ndarray) -> Any:
        """Image (H, W, 3) uint8 to the image embedding that the decoder takes."""
        ...

    def encode_points(self, points: Tensor) -> Tensor:
        """Foreground points (P, 2) in the model frame, one per prompt, to (P, T, C)."""
        ...

    def encode_boxes(self, corners: Tensor) -> Tensor:
        """Box corners (P, 4) in the model frame to (P, T, C)."""
        ...


@dataclass(kw_only=True, eq=False, repr=False)
class EverythingSettings:
    """Settings of everything mode. The defaults are those of SAM 2's generator.

    Attributes:
        points_per_side: side of the grid of points.
        points_per_batch: number of prompts that the decoder takes at once.
        pred_iou_thresh: masks must have a greater predicted IoU. 0 switches the filter off.
        stability_score_thresh, stability_score_offset: masks must have at least this stability. 0 switches the filter
            off.
        box_nms_thresh: suppression by box IoU within a crop. 1 switches it off.
        crop_n_layers, crop_nms_thresh, crop_overlap_ratio, crop_n_points_downscale_factor: further passes over crops,
            (2^i)^2 of them in layer i.
        min_mask_region_area: fill holes and remove islands of fewer image pixels.
        mask_nms_thresh: suppression by mask IoU on the low frame, after all other filters; None for none, as in the
            package.
        max_candidates: greatest number of candidates, by predicted IoU; None for all.
        refine: prompt for every mask again by its box and logits. The package does not do this. It helps if the model
            was trained long enough with repeated prompts.
        mode: "fast" filters on the decoder's grid; "exact" at full size, with the same masks as the package.
        decision_side: in fast mode, upsample smaller logits to this side before filtering. 0 keeps the decoder's grid,
            which is 256 for official SAM and 64 for the compact one.
        precision: of encoder and decoder. The prompt encoder and all thresholds use float32.
        memory_budget_mb: limit for the decoder's memory, by smaller batches of points. None for no limit.
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
                f"mode exact needs precision float32, got {self.precision}: lower precision gives other masks"
            )


class EverythingProposer(EverythingSettings):
    """A `PromptableProposer`: everything mode, boxes and points of one network.

    Derived classes are dataclasses. They add what they load, and pass it to `use`.
    """

    def use(self, network: PromptNetwork, weights: nn.Module, **key_parts: object) -> None:
        """Set the network, its weights, and further parts of the cache key."""
        self.network, self.side = network, network.side
        self._weights, self._key_parts = weights, key_parts
        self._least_iou = self.pred_iou_thresh if self.pred_iou_thresh > 0 else -torch.inf
        stability = StabilityFilter(self.stability_score_thresh, self.stability_score_offset, self.decision_side)
        self._stable = stability.by_size if self.mode == "exact" else stability.by_low
        self._grids = point_grids(self.points_per_side, self.crop_n_layers, self.crop_n_points_downscale_factor)

    def cache_key(self) -> str:
        """The key of the weights and all settings but those that change only speed and memory."""
        names = {field.name for field in fields(EverythingSettings)} - {"points_per_batch", "memory_budget_mb"}
        settings = {name: getattr(self, name) for name in names}
        return cache_key(type(self).__name__, weights=weights_digest(self._weights), **settings, **self._key_parts)

    @torch.inference_mode()
    def propose(self, image: np.ndarray) -> MaskSet:
        """Propose candidates for an image.

        Args:
            image: (H, W, 3) uint8.

        Returns:
            Masks at the size of the image, without empty ones, by falling predicted IoU, which is their score. Columns
            predicted_iou and stability_score, (N,) float32.

        Raises:
            ValueError: the array has another shape or dtype.
        """
        size = size_of(image)
        candidates = self._candidates(image)
        masks = self._upsample(candidates.low, candidates.crops, size, size, torch.device("cpu"))
        if self.min_mask_region_area > 0 and len(masks):
            masks, kept = self._without_small_regions(masks, self.min_mask_region_area)
            candidates = candidates.keep(kept.to(self.network.device))
        iou, stability = candidates.iou.cpu(), candidates.stability.cpu()
        columns = {"predicted_iou": iou, "stability_score": stability}
        result, nonempty = MaskSet(masks, iou, self.network.source, columns), not_empty(masks)
        return result if bool(nonempty.all()) else result.keep(nonempty)

    def segment_box(self, image: np.ndarray, box_xyxy: tuple[float, float, float, float]) -> Tensor:
        """The best mask for a box in pixels: (H, W) bool."""
        return self.segment_boxes(image, torch.tensor([box_xyxy], dtype=torch.float32)).masks[0]

    @torch.inference_mode()
    def segment_boxes(self, image: np.ndarray, boxes_xyxy: Tensor) -> MaskSet:
        """The best mask for each box (K, 4) in pixels, in their order; masks may be empty. Scores: predicted IoU."""
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
        """The mask of highest predicted IoU for each prompt (P, T, C)."""
        size = size_of(image)
        if sparse is None:
            return MaskSet.empty(size, self.network.source)
        lows, scores = [], []
        for low, iou in self.network.decoder.decode(self.network.embed(image), sparse, -torch.inf):
            best = iou.argmax(1)
            rows = torch.arange(len(best), device=best.device)
            lows.append(low[rows, best])
            scores.append(iou[rows, best].cpu())
        low = torch.cat(lows)
        crops = torch.tensor([[0, 0, size[1], size[0]]], dtype=torch.int64).expand(len(low), -1)
        masks = self._upsample(low, crops, size, size, torch.device("cpu"))
        return MaskSet(masks, torch.cat(scores), self.network.source)

    def _candidates(self, image: np.ndarray) -> LowCandidates:
        """Candidates after all filters and suppressions, by falling predicted IoU."""
        size = size_of(image)
        crops, layers = crop_boxes(size, self.crop_n_layers, self.crop_overlap_ratio)
        parts = [self._candidates_in_crop(image, c, k) for c, k in zip(crops, layers, strict=True)]
        candidates = LowCandidates.join(parts)
        if len(crops) > 1:  # smaller crops are preferred
            extent = (candidates.crops[:, 2:] - candidates.crops[:, :2]).float().prod(1)
            candidates = candidates.keep(box_nms(candidates.boxes, 1 / extent, self.crop_nms_thresh))
        candidates = candidates.keep(torch.sort(candidates.iou, descending=True, stable=True).indices)
        low, iou = candidates.low, candidates.iou
        if self.mask_nms_thresh is not None and len(iou) > 1:
            target = self.network.frame(size).low_size
            masks = self._upsample(low, candidates.crops, size, target, self.network.device, keep_low_resolution=True)
            candidates = candidates.keep(mask_nms(masks, iou, self.mask_nms_thresh))
        if self.max_candidates is None:
            return candidates
        return candidates.keep(torch.arange(len(candidates.iou), device=iou.device)[: self.max_candidates])

    def _candidates_in_crop(self, image: np.ndarray, crop: list[int], layer: int) -> LowCandidates:
        """Candidates of the grid of points in a crop. The crop and the boxes are in image pixels."""
        network, (x0, y0, x1, y1) = self.network, crop
        part = image[y0:y1, x0:x1]
        frame = network.frame((y1 - y0, x1 - x0))
        embedding = network.embed(part)
        points = torch.as_tensor(self._grids[layer] * (x1 - x0, y1 - y0), dtype=torch.float32, device=network.device)
        sparse = network.encode_points(frame.to_model(points))

        def filter_masks(low: Tensor, iou: Tensor) -> LowCandidates:
            good = iou > self._least_iou
            return self._stable(low[good], iou[good], frame)

        def suppress(some: LowCandidates) -> LowCandidates:
            some = some.keep(~at_crop_edge(some.boxes, crop, size_of(image)))
            return some.keep(box_nms(some.boxes, some.iou, self.box_nms_thresh))

        batches = network.decoder.decode(embedding, sparse, self._least_iou)
        candidates = suppress(LowCandidates.join([filter_masks(*batch) for batch in batches]))
        if self.refine and len(candidates.iou):
            if self.mask_nms_thresh is not None:
                masks = candidates.low[frame.cells] > 0
                candidates = candidates.keep(mask_nms(masks, candidates.iou, self.mask_nms_thresh))
            prompts = network.encode_boxes(_corners(frame, candidates.boxes))
            candidates = suppress(filter_masks(*network.decoder.redraw(embedding, prompts, candidates.low)))
        crops = torch.tensor([crop], dtype=torch.int64, device=network.device).expand(len(candidates.iou), -1)
        boxes = candidates.boxes + torch.tensor([x0, y0, x0, y0], dtype=torch.int64, device=network.device)
        return replace(candidates, crops=crops, boxes=boxes)

    def _upsample(
        self,
        low: Tensor,
        crops: Tensor,
        size: tuple[int, int],
        target: tuple[int, int],
        device: torch.device,
        keep_low_resolution: bool = False,
    ) -> Tensor:
        """Masks (N, *target) bool on `device`, without large logits for all masks at once.

        Args:
            low: (N, l, l) logits.
            crops: (N, 4) in pixels of the image.
            size: (H, W) of the image.
            target: (height, width) of the masks.
            device: of the masks.
            keep_low_resolution: skip resampling of logits that have the target size; the package resamples them.
        """
        masks = torch.zeros(len(low), *target, dtype=torch.bool, device=device)
        across, down = target[1] / size[1], target[0] / size[0]
        for crop in torch.unique(crops, dim=0):
            rows = (crops == crop).all(1).nonzero()[:, 0]
            left, top, right, bottom = crop.tolist()
            frame = self.network.frame((bottom - top, right - left))
            y0, y1, x0, x1 = round(top * down), round(bottom * down), round(left * across), round(right * across)
            if keep_low_resolution and (y1 - y0, x1 - x0) == frame.low_size:
                upsampled = low[rows][frame.cells] > 0
            else:
                upsampled = self._upsample_crop(low[rows], frame, (max(y1 - y0, 1), max(x1 - x0, 1)))
            masks[rows.to(device), y0:y1, x0:x1] = upsampled[:, : y1 - y0, : x1 - x0].to(device)
        return masks

    def _upsample_crop(self, low: Tensor, frame: Frame, size: tuple[int, int]) -> Tensor:
        """Masks (N, *size) bool of one crop. Exact mode upsamples as the package does, one mask at a time."""
        if self.mode != "exact":
            return mask_upsampler(frame, size)(low)
        parts = [frame.upsample(logits, size) > 0 for logits in low.split(1)]
        return torch.cat(parts) if parts else torch.zeros(0, *size, dtype=torch.bool, device=low.device)

    def _without_small_regions(self, masks: Tensor, area: int) -> tuple[Tensor, Tensor]:
        """Masks without small holes and islands, and the rows that stay after suppression, which prefers unchanged."""
        cleaned, scores = [], []
        for mask in masks.numpy():
            filled, holes = remove_small_regions(mask, area, mode="holes")
            clean, islands = remove_small_regions(filled, area, mode="islands")
            cleaned.append(torch.from_numpy(np.ascontiguousarray(clean)))
            scores.append(float(not holes and not islands))
        masks, unchanged = torch.stack(cleaned), torch.tensor(scores, dtype=torch.float32)
        kept = box_nms(masks_to_boxes_xyxy(masks), unchanged, max(self.box_nms_thresh, self.crop_nms_thresh))
        kept = kept.sort().values
        return masks[kept], kept


def _corners(frame: Frame, boxes: Tensor) -> Tensor:
    """Boxes (K, 4) in image pixels as corners (K, 4) in the model frame."""
    points = frame.to_model(rearrange(boxes, "k (corner xy) -> k corner xy", xy=2))
    return rearrange(points, "k corner xy -> k (corner xy)")


def longest_side(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(height, width) scaled so that the longer is `side`, rounded as SAM rounds, at least 1."""
    scale = side / max(size)
    height, width = (max(1, int(length * scale + 0.5)) for length in size)
    return height, width
