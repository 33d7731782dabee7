"""`SamProposer`: everything mode and prompts of a Segment Anything model.

The parameters and filters are those of the package's `SamAutomaticMaskGenerator`. The order of work differs: predicted
IoU, stability, boxes and suppression are all decided on low-res logits, and only what survives is drawn at full size.
Prompts whose masks all fail by predicted IoU are never drawn at all.

Frames: *image*, the caller's pixels; *model*, the image with its longer side resized to the encoder's side; *low*, the
decoder's logits, a quarter of the model frame. Shape letters: N masks, P points, l side of the low frame.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from segment_anything.utils.amg import (
    build_all_layer_point_grids,
    generate_crop_boxes,
    is_box_near_crop_edge,
    remove_small_regions,
)
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor
from torchvision.ops import nms

from maskselect.backends.sam import attend_prompts, draw_masks, load_sam
from maskselect.ops.boxes import masks_to_boxes_xyxy
from maskselect.ops.masks import upsample_logits
from maskselect.ops.overlap import mask_nms
from maskselect.structures.masks import MaskSet

_LOW = 4  # model pixels a low-res cell


@dataclass(frozen=True)
class _Found:
    """Candidates of one image before they are drawn.

    low: (N, l, l) float32 logits; crops: (N, 4) int64, corners of the crop that each came from, image pixels.
    iou, stability: (N,) float32.  boxes: (N, 4) float32, corners in image pixels.
    """

    low: Tensor
    crops: Tensor
    iou: Tensor
    stability: Tensor
    boxes: Tensor

    def keep(self, index: Tensor) -> "_Found":
        return _Found(self.low[index], self.crops[index], self.iou[index], self.stability[index], self.boxes[index])

    @staticmethod
    def join(parts: list["_Found"]) -> "_Found":
        names = ("low", "crops", "iou", "stability", "boxes")
        return _Found(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


class SamProposer:
    """A `PromptableProposer` by SAM.

    checkpoint, model_type: see `backends.sam.load_sam`.
    points_per_side, points_per_batch: the grid of prompts, and how many go through the decoder together.
    pred_iou_thresh, stability_score_thresh, stability_score_offset: a mask stays when its predicted IoU is above and
        its stability at or above these. 0 switches a filter off.
    box_nms_thresh: suppression by box IoU within a crop. 1 switches it off.
    crop_n_layers, crop_nms_thresh, crop_overlap_ratio, crop_n_points_downscale_factor: further passes over crops,
        (2^i)^2 of them in layer i.
    min_mask_region_area: holes and islands smaller than this many image pixels are mended.
    mask_nms_thresh: suppression by mask IoU after all the others, on the low frame; None for none, as in the package.
    refine: ask for every mask once more, by its own box and logits. The package does not do it; it pays where the model
        was trained long enough in further rounds.
    max_candidates: at most so many, those of highest predicted IoU; None for all.

    The defaults are tuned for the shipped compact SAM on generated scenes. Official weights want the package's: 32
    points, thresholds 0.88 and 0.95, box suppression 0.7, no mask suppression.
    """

    def __init__(
        self,
        checkpoint: str | Path = "sam",
        model_type: str = "compact",
        points_per_side: int = 12,
        points_per_batch: int = 64,
        pred_iou_thresh: float = 0.3,
        stability_score_thresh: float = 0.4,
        stability_score_offset: float = 1.0,
        box_nms_thresh: float = 0.95,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        min_mask_region_area: int = 0,
        mask_nms_thresh: float | None = 0.8,
        max_candidates: int | None = 64,
        refine: bool = False,
        device: str = "cpu",
    ) -> None:
        if points_per_side < 1 or points_per_batch < 1:
            raise ValueError("points_per_side and points_per_batch must be at least 1")
        self.sam = load_sam(model_type, checkpoint).to(device)
        self.points_per_batch = points_per_batch
        self.pred_iou_thresh = pred_iou_thresh
        self.stability_score_thresh = stability_score_thresh
        self.stability_score_offset = stability_score_offset
        self.box_nms_thresh = box_nms_thresh
        self.crop_n_layers = crop_n_layers
        self.crop_nms_thresh = crop_nms_thresh
        self.crop_overlap_ratio = crop_overlap_ratio
        self.min_mask_region_area = min_mask_region_area
        self.mask_nms_thresh = mask_nms_thresh
        self.max_candidates = max_candidates
        self.refine = refine
        self.device = torch.device(device)
        self.side: int = self.sam.image_encoder.img_size
        self._grids = build_all_layer_point_grids(points_per_side, crop_n_layers, crop_n_points_downscale_factor)

    def propose(self, image: np.ndarray) -> MaskSet:
        """(H, W, 3) uint8 to candidates at the image's own size by falling predicted IoU.

        Scores are predicted IoU; columns predicted_iou and stability_score, (N,) float32. The masks take N * H * W
        bytes; where that may be too much, use `propose_low` and draw only what is chosen.
        """
        return self._propose(image, *_checked(image).shape[:2])

    def propose_low(self, image: np.ndarray) -> MaskSet:
        """As `propose`, with masks at the size of `model_size(image)`. Memory does not grow with the image."""
        return self._propose(image, *self.model_size(image))

    def model_size(self, image: np.ndarray) -> tuple[int, int]:
        """(h, w) of the image with its longer side brought to the encoder's, rounded as SAM rounds."""
        return self._model_size(*_checked(image).shape[:2])

    def _model_size(self, height: int, width: int) -> tuple[int, int]:
        height, width = ResizeLongestSide.get_preprocess_shape(height, width, self.side)
        return max(height, 1), max(width, 1)

    def segment_box(self, image: np.ndarray, box_xyxy: tuple[float, float, float, float]) -> Tensor:
        """The best mask for a box in pixels: (H, W) bool."""
        return self.segment_boxes(image, torch.tensor([box_xyxy])).masks[0]

    @torch.inference_mode()
    def segment_boxes(self, image: np.ndarray, boxes_xyxy: Tensor) -> MaskSet:
        """The best mask for each box in pixels, (K, 4), in their order, some perhaps empty. Scores: predicted IoU."""
        corners = boxes_xyxy.float().reshape(-1, 2, 2).to(self.device)
        corners = self._to_model(corners, image).reshape(-1, 4)
        return self._best(image, [self.sam.prompt_encoder(None, c, None)[0] for c in self._batches(corners)])

    @torch.inference_mode()
    def segment_point(self, image: np.ndarray, point_xy: tuple[float, float]) -> Tensor:
        """The best mask for a point in pixels: (H, W) bool."""
        point = self._to_model(torch.tensor(point_xy, device=self.device).reshape(1, 1, 2), image)
        label = torch.ones(1, 1, device=self.device)
        return self._best(image, [self.sam.prompt_encoder((point, label), None, None)[0]]).masks[0]

    def _best(self, image: np.ndarray, prompts: list[Tensor]) -> MaskSet:
        """Of the three multimask outputs for each prompt, the one of highest predicted IoU."""
        size = (image.shape[0], image.shape[1])
        embedding, lows, scores = self._embed(image), [], []
        for sparse in prompts:
            tokens, pixels, iou = attend_prompts(self.sam, embedding, sparse[None])
            chosen = 1 + iou[:, 1:].argmax(1)
            rows = torch.arange(len(chosen), device=chosen.device)
            lows.append(draw_masks(self.sam, tokens, pixels)[rows, chosen])
            scores.append(iou[rows, chosen].float().cpu())
        if not lows:
            return MaskSet.empty(size, "sam")
        low, crop = torch.cat(lows), torch.tensor([[0, 0, size[1], size[0]]])
        return MaskSet(self._draw(low, crop.expand(len(low), -1), size, size), torch.cat(scores), "sam")

    def _batches(self, prompts: Tensor) -> tuple[Tensor, ...]:
        return prompts.split(self.points_per_batch) if len(prompts) else ()

    @torch.inference_mode()
    def _propose(self, image: np.ndarray, height: int, width: int) -> MaskSet:
        size = image.shape[:2]
        found = self._find(image)
        masks = self._draw(found.low, found.crops, size, (height, width))
        if self.min_mask_region_area > 0 and len(masks):
            masks, kept = self._mended(masks, self.min_mask_region_area * (height * width) / (size[0] * size[1]))
            found = found.keep(kept)
        shown = masks.flatten(1).any(1)
        result = MaskSet(masks, found.iou, "sam", {"predicted_iou": found.iou, "stability_score": found.stability})
        return result if bool(shown.all()) else result.keep(shown)

    def _find(self, image: np.ndarray) -> _Found:
        """All filters and suppressions, by falling predicted IoU."""
        crops, layers = generate_crop_boxes(image.shape[:2], self.crop_n_layers, self.crop_overlap_ratio)
        found = _Found.join([self._find_in_crop(image, c, k) for c, k in zip(crops, layers, strict=True)])
        if len(crops) > 1:
            extent = (found.crops[:, 2:] - found.crops[:, :2]).float().prod(1)
            found = found.keep(nms(found.boxes, 1 / extent, self.crop_nms_thresh))  # smaller crops are preferred
        found = found.keep(torch.sort(found.iou, descending=True, stable=True).indices)
        if self.mask_nms_thresh is not None and len(found.iou) > 1:
            height, width = (-(-side // _LOW) for side in self.model_size(image))
            masks = self._draw(found.low, found.crops, image.shape[:2], (height, width))
            found = found.keep(mask_nms(masks, found.iou, self.mask_nms_thresh))
        return found if self.max_candidates is None else found.keep(torch.arange(len(found.iou))[: self.max_candidates])

    def _find_in_crop(self, image: np.ndarray, crop: list[int], layer: int) -> _Found:
        x0, y0, x1, y1 = crop
        part = image[y0:y1, x0:x1]
        embedding = self._embed(part)
        height, width = self.model_size(part)
        valid = (slice(None), slice(-(-height // _LOW)), slice(-(-width // _LOW)))
        points = torch.as_tensor(self._grids[layer] * (x1 - x0, y1 - y0), dtype=torch.float32, device=self.device)
        decoded = self._decoded(embedding, self._to_model(points[:, None], part))
        found = _Found.join([self._filtered(low, iou, valid) for low, iou in decoded])
        scale = torch.tensor([(x1 - x0) / width, (y1 - y0) / height], device=self.device).repeat(2) * _LOW

        def thinned(found: _Found) -> _Found:
            whole = [0, 0, image.shape[1], image.shape[0]]
            found = found.keep(~is_box_near_crop_edge(found.boxes * scale, crop, whole))
            return found.keep(nms(found.boxes, found.iou, self.box_nms_thresh))

        found = thinned(found)
        if self.refine and len(found.iou):
            if self.mask_nms_thresh is not None:
                found = found.keep(mask_nms(found.low[valid] > 0, found.iou, self.mask_nms_thresh))
            found = thinned(self._filtered(*self._refined(embedding, found), valid))
        crops = torch.tensor([crop]).expand(len(found.iou), -1)
        boxes = found.boxes * scale + torch.tensor([x0, y0, x0, y0], device=self.device)
        return _Found(found.low, crops, found.iou, found.stability, boxes)

    def _refined(self, embedding: Tensor, found: _Found) -> tuple[Tensor, Tensor]:
        """Logits (N, l, l) and IoU (N,) of the same objects, asked for again by the box and mask that were found."""
        lows, ious = [], []
        for boxes, low in zip(
            found.boxes.split(self.points_per_batch), found.low.split(self.points_per_batch), strict=True
        ):
            sparse = self.sam.prompt_encoder(None, boxes * _LOW, None)[0]
            tokens, pixels, iou = attend_prompts(self.sam, embedding, sparse[None], low[None])
            lows.append(draw_masks(self.sam, tokens, pixels)[:, 0])
            ious.append(iou[:, 0])
        low, iou = torch.cat(lows), torch.cat(ious)
        good = iou > self.pred_iou_thresh if self.pred_iou_thresh > 0 else iou > -torch.inf
        return low[good], iou[good]

    def _decoded(self, embedding: Tensor, points: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Multimask logits (n, l, l) and IoU (n,) above the threshold, for points (P, 1, 2) in the model frame."""
        results = []
        for batch in points.split(self.points_per_batch):
            labels = torch.ones(len(batch), 1, device=self.device)
            sparse = self.sam.prompt_encoder((batch, labels), None, None)[0]
            tokens, pixels, iou = attend_prompts(self.sam, embedding, sparse[None])
            good = iou[:, 1:] > self.pred_iou_thresh if self.pred_iou_thresh > 0 else iou[:, 1:] > -torch.inf
            drawn = good.any(1)
            low = draw_masks(self.sam, tokens[drawn], pixels[drawn])[:, 1:]
            results.append((low[good[drawn]], iou[:, 1:][good]))
        return results

    def _filtered(self, low: Tensor, iou: Tensor, valid: tuple[slice, slice, slice]) -> _Found:
        """Stability and boxes in the low frame, padding left out."""
        seen = low[valid]
        inner = (seen > self.stability_score_offset).flatten(1).sum(1)
        outer = (seen > -self.stability_score_offset).flatten(1).sum(1)
        stability = inner / outer.clamp(min=1)
        boxes = masks_to_boxes_xyxy(seen > 0)
        found = _Found(low, torch.zeros(len(low), 4, dtype=torch.int64), iou, stability, boxes)
        stable = stability >= self.stability_score_thresh if self.stability_score_thresh > 0 else stability >= 0
        return found.keep(stable & (boxes[:, 2] > boxes[:, 0]))

    def _draw(self, low: Tensor, crops: Tensor, size: tuple[int, int], frame: tuple[int, int]) -> Tensor:
        """Masks (N, *frame) bool on the CPU, one at a time, so that no pile of large logits exists.

        size: (H, W) of the image, in whose pixels `crops` are. Upsampled in SAM's two steps, by way of the model frame.
        """
        masks = torch.zeros(len(low), *frame, dtype=torch.bool)
        scale = (frame[1] / size[1], frame[0] / size[0])
        for mask, logits, crop in zip(masks, low, crops.tolist(), strict=True):
            height, width = self._model_size(crop[3] - crop[1], crop[2] - crop[0])
            x0, x1 = round(crop[0] * scale[0]), round(crop[2] * scale[0])
            y0, y1 = round(crop[1] * scale[1]), round(crop[3] * scale[1])
            if (y1 - y0, x1 - x0) == (-(-height // _LOW), -(-width // _LOW)):
                mask[y0:y1, x0:x1] = logits[: y1 - y0, : x1 - x0] > 0  # already the low frame
                continue
            model = upsample_logits(logits[None].float(), (self.side, self.side))[:, :height, :width]
            if (y1 - y0, x1 - x0) != (height, width):
                model = upsample_logits(model, (max(y1 - y0, 1), max(x1 - x0, 1)))
            mask[y0:y1, x0:x1] = model[0, : y1 - y0, : x1 - x0] > 0
        return masks

    def _mended(self, masks: Tensor, area: float) -> tuple[Tensor, Tensor]:
        """Masks without small holes and islands, and which rows stay after suppression, unchanged ones preferred."""
        mended, scores = [], []
        for mask in masks.numpy():
            filled, holes = remove_small_regions(mask, area, mode="holes")
            clean, islands = remove_small_regions(filled, area, mode="islands")
            mended.append(torch.from_numpy(np.ascontiguousarray(clean)))
            scores.append(float(not holes and not islands))
        result = torch.stack(mended)
        kept = nms(masks_to_boxes_xyxy(result), torch.tensor(scores), max(self.box_nms_thresh, self.crop_nms_thresh))
        kept = kept.sort().values
        return result[kept], kept

    def _to_model(self, points: Tensor, image: np.ndarray) -> Tensor:
        """(..., 2) image pixels to pixels of the model frame."""
        height, width = self.model_size(image)
        return points * torch.tensor([width / image.shape[1], height / image.shape[0]], device=points.device)

    def _embed(self, image: np.ndarray) -> Tensor:
        """(1, C, h, w) image embedding."""
        height, width = self.model_size(image)
        if image.shape[:2] != (height, width):
            image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        pixels = torch.tensor(image).permute(2, 0, 1)[None].to(self.device)
        return self.sam.image_encoder(self.sam.preprocess(pixels.float()))


def _checked(image: np.ndarray) -> np.ndarray:
    """The image, or ValueError when it is not (H, W, 3) uint8 with at least one pixel."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"image must be (H, W, 3) uint8 and not empty, got {image.shape} {image.dtype}")
    return image
