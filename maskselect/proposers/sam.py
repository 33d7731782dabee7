"""`SamProposer`: everything mode and prompts of a Segment Anything model.

The parameters and filters are those of the package's `SamAutomaticMaskGenerator`. The order of work differs: the
decoder's image side is computed once (`backends/sam_attention.py`), prompts whose masks all fail by predicted IoU are
never upscaled, stability, boxes and suppression are decided on low-res logits, and only what survives is drawn at full
size. In `exact` mode they are decided at full size.

Frames: *image*, the caller's pixels; *model*, the image with its longer side resized to the encoder's side; *low*, the
decoder's logits, a quarter of the model frame. Shape letters: N masks, P points, l side of the low frame.
"""

from pathlib import Path
from typing import Literal

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

from maskselect.backends.sam import load_sam
from maskselect.backends.sam_points import PointDecoder, Precision
from maskselect.ops.boxes import masks_to_boxes_xyxy
from maskselect.ops.masks import upsample_logits
from maskselect.ops.overlap import mask_nms
from maskselect.proposers.sam_filter import LOW, Found, Frame, StabilityFilter
from maskselect.structures.masks import MaskSet


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
    mode: "fast" decides on the decoder's grid; "exact" at full size, which gives the package's own masks.
    decision_side: in fast mode, logits of a smaller side are enlarged to it first. 0 takes the decoder's own grid,
        which is 256 for official SAM and 64 for the compact one.
    precision: of encoder and decoder. Logits are compared with thresholds in float32 either way.
    compile: run encoder and decoder through torch.compile, which takes half a minute once and pays after a few images.
    memory_budget_mb: most memory that the decoder may take; batches of points shrink to it. None for no limit.
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
        mode: Literal["fast", "exact"] = "fast",
        decision_side: int = 0,
        precision: Precision = "float32",
        compile: bool = False,
        memory_budget_mb: int | None = None,
        device: str = "cpu",
    ) -> None:
        if points_per_side < 1 or points_per_batch < 1:
            raise ValueError("points_per_side and points_per_batch must be at least 1")
        if mode == "exact" and precision != "float32":
            raise ValueError(f"mode exact needs precision float32, got {precision}: half the digits give other masks")
        self.sam = load_sam(model_type, checkpoint).to(device)
        self.decoder = PointDecoder(self.sam, points_per_batch, precision, compile, memory_budget_mb)
        self.pred_iou_thresh = pred_iou_thresh
        self.stability = StabilityFilter(stability_score_thresh, stability_score_offset, decision_side)
        self.mode = mode
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
        return self._best(image, self.sam.prompt_encoder(None, corners, None)[0] if len(corners) else None)

    @torch.inference_mode()
    def segment_point(self, image: np.ndarray, point_xy: tuple[float, float]) -> Tensor:
        """The best mask for a point in pixels: (H, W) bool."""
        point = self._to_model(torch.tensor(point_xy, device=self.device).reshape(1, 1, 2), image)
        label = torch.ones(1, 1, device=self.device)
        return self._best(image, self.sam.prompt_encoder((point, label), None, None)[0]).masks[0]

    def _best(self, image: np.ndarray, sparse: Tensor | None) -> MaskSet:
        """Of the three multimask outputs for each prompt (K, T, C), the one of highest predicted IoU."""
        size = (image.shape[0], image.shape[1])
        if sparse is None:
            return MaskSet.empty(size, "sam")
        lows, scores = [], []
        for low, iou in self.decoder.decode(self._embed(image), sparse, -torch.inf):
            chosen = iou.argmax(1)
            rows = torch.arange(len(chosen), device=chosen.device)
            lows.append(low[rows, chosen])
            scores.append(iou[rows, chosen].cpu())
        low, crop = torch.cat(lows), torch.tensor([[0, 0, size[1], size[0]]])
        return MaskSet(self._draw(low, crop.expand(len(low), -1), size, size), torch.cat(scores), "sam")

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

    def _find(self, image: np.ndarray) -> Found:
        """All filters and suppressions, by falling predicted IoU."""
        crops, layers = generate_crop_boxes(image.shape[:2], self.crop_n_layers, self.crop_overlap_ratio)
        found = Found.join([self._find_in_crop(image, c, k) for c, k in zip(crops, layers, strict=True)])
        if len(crops) > 1:
            extent = (found.crops[:, 2:] - found.crops[:, :2]).float().prod(1)
            found = found.keep(nms(found.boxes, 1 / extent, self.crop_nms_thresh))  # smaller crops are preferred
        found = found.keep(torch.sort(found.iou, descending=True, stable=True).indices)
        if self.mask_nms_thresh is not None and len(found.iou) > 1:
            height, width = (-(-side // LOW) for side in self.model_size(image))
            masks = self._draw(found.low, found.crops, image.shape[:2], (height, width))
            found = found.keep(mask_nms(masks, found.iou, self.mask_nms_thresh))
        return found if self.max_candidates is None else found.keep(torch.arange(len(found.iou))[: self.max_candidates])

    def _find_in_crop(self, image: np.ndarray, crop: list[int], layer: int) -> Found:
        x0, y0, x1, y1 = crop
        part = image[y0:y1, x0:x1]
        frame = Frame((y1 - y0, x1 - x0), self.model_size(part), self.side)
        embedding = self._embed(part)
        points = torch.as_tensor(self._grids[layer] * (x1 - x0, y1 - y0), dtype=torch.float32, device=self.device)
        labels = torch.ones(len(points), 1, device=self.device)
        sparse = self.sam.prompt_encoder((self._to_model(points[:, None], part), labels), None, None)[0]

        def filtered(low: Tensor, iou: Tensor) -> Found:
            good = iou > self._least_iou
            decide = self.stability.by_size if self.mode == "exact" else self.stability.by_low
            return decide(low[good], iou[good], frame)

        def thinned(found: Found) -> Found:
            whole = [0, 0, image.shape[1], image.shape[0]]
            found = found.keep(~is_box_near_crop_edge(found.boxes, crop, whole))
            return found.keep(nms(found.boxes, found.iou, self.box_nms_thresh))

        found = thinned(Found.join([filtered(*d) for d in self.decoder.decode(embedding, sparse, self._least_iou)]))
        if self.refine and len(found.iou):
            if self.mask_nms_thresh is not None:
                found = found.keep(mask_nms(found.low[frame.cells] > 0, found.iou, self.mask_nms_thresh))
            corners = self._to_model(found.boxes.unflatten(1, (2, 2)), part).flatten(1)
            asked = self.sam.prompt_encoder(None, corners, None)[0]
            found = thinned(filtered(*self.decoder.redraw(embedding, asked, found.low)))
        crops = torch.tensor([crop]).expand(len(found.iou), -1)
        boxes = found.boxes + torch.tensor([x0, y0, x0, y0], device=self.device)
        return Found(found.low, crops, found.iou, found.stability, boxes)

    @property
    def _least_iou(self) -> float:
        return self.pred_iou_thresh if self.pred_iou_thresh > 0 else -torch.inf

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
            if (y1 - y0, x1 - x0) == (-(-height // LOW), -(-width // LOW)):
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
        return self.decoder.embed(self.sam.preprocess(pixels.float()))


def _checked(image: np.ndarray) -> np.ndarray:
    """The image, or ValueError when it is not (H, W, 3) uint8 with at least one pixel."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"image must be (H, W, 3) uint8 and not empty, got {image.shape} {image.dtype}")
    return image
