"""`PointMaskProposer`: the masks of a `PointMaskDecoder` at all cells of its levels, in one pass.

The masks of all cells are ranked by their predicted IoU before any is drawn; those that are drawn are ranked by it and
by how sure their pixels are.

Shape letters: N candidates, K masks of a point, S side of the square that the encoder reads, h w the grid of the masks.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskselect.backends import needs
from maskselect.backends.building import beside, build
from maskselect.backends.cache_keys import cache_key
from maskselect.backends.checkpoints import find_checkpoint, load_strictly, read_card, read_tensors
from maskselect.backends.config_tree import arguments_of
from maskselect.backends.devices import pick_device
from maskselect.backends.weightless import reads_weights
from maskselect.ops.boxes import masks_to_boxes_xyxy, pairwise_box_iou
from maskselect.ops.images import cornered_image, size_of
from maskselect.ops.masks import mean_inside, not_empty, upsample_logits
from maskselect.ops.overlap import mask_nms
from maskselect.structures.features import finest_first
from maskselect.structures.masks import MaskSet
from maskselect.structures.needs import Arguments, Need

SYSTEM = "point_masks"
"""`system` in the cards of checkpoints of `PointMasksTask`."""

_SUPPRESSED = 768
"""Greatest number of masks, by score, that take part in the suppression, which compares all pairs."""


class PointMaskProposer:
    """A `PromptableProposer` by the masks of points.

    Args:
        checkpoint: shipped name or path of a checkpoint of `PointMasksTask`.
        drawn: greatest number of points whose masks are drawn for each level of the decoder, by predicted IoU.
        pred_iou_thresh: candidates must have at least this predicted IoU.
        mask_nms_thresh: suppression by mask IoU, on the grid of the masks; None for none.
        max_candidates: greatest number of candidates, by score; None for all.
        device: auto, cpu or cuda.

    Raises:
        FileNotFoundError: the checkpoint, or that of its encoder, does not exist.
        ValueError: the checkpoint is of another kind, or a setting is out of range.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        drawn: int = 128,
        pred_iou_thresh: float = 0.1,
        mask_nms_thresh: float | None = 0.6,
        max_candidates: int | None = 64,
        device: str = "cpu",
    ) -> None:
        if drawn < 1 or not 0 <= pred_iou_thresh <= 1:
            raise ValueError("drawn must be at least 1, and pred_iou_thresh between 0 and 1")
        self.device = pick_device(device)
        self.encoder, self.decoder, self._arguments = _network(find_checkpoint(checkpoint))
        self.encoder.to(self.device)
        self.decoder.to(self.device).eval().requires_grad_(False)
        self.side: int = self.encoder.info.input_size
        self.stride: int = min(level.stride for level in self.encoder.info.levels)
        self.drawn, self.pred_iou_thresh, self.mask_nms_thresh = drawn, pred_iou_thresh, mask_nms_thresh
        self.max_candidates = max_candidates

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The checkpoint."""
        return needs.checkpoint(arguments["checkpoint"], "point mask decoder")

    def cache_key(self) -> str:
        """The key of encoder and decoder and all settings but the device."""
        names = ("encoder", "decoder", "drawn", "pred_iou_thresh", "mask_nms_thresh", "max_candidates")
        return cache_key("PointMaskProposer", sizes=self._arguments, **{name: getattr(self, name) for name in names})

    @torch.inference_mode()
    def propose(self, image: np.ndarray) -> MaskSet:
        """Candidates at the size of the image, (H, W, 3) uint8, by falling score, without empty masks.

        The score, in [0, 1], is the predicted IoU times the mean probability of the pixels of the mask.

        Raises:
            ValueError: the array has another shape or dtype.
        """
        size = size_of(image)
        features, inner = self._features(image)
        logits, iou = self._draw(features, self._points(features, (0.0, 0.0, float(inner[1]), float(inner[0]))))
        kept = (iou >= self.pred_iou_thresh).nonzero()[:, 0]
        logits, iou = logits[kept], iou[kept]
        scores = iou * mean_inside(logits)  # 0 for an empty mask
        kept = scores.argsort(descending=True, stable=True)[:_SUPPRESSED]
        if self.mask_nms_thresh is not None and len(kept) > 1:
            kept = kept[mask_nms(logits[kept] > 0, scores[kept], self.mask_nms_thresh)]
        kept = kept[: self.max_candidates]
        masks = self._resized(logits[kept], inner, size) > 0
        result = MaskSet(masks.cpu(), scores[kept].cpu(), SYSTEM)
        return result.keep(not_empty(result.masks).nonzero()[:, 0])

    def segment_box(self, image: np.ndarray, box_xyxy: tuple[float, float, float, float]) -> Tensor:
        """The best mask for a box in pixels: (H, W) bool."""
        return self.segment_boxes(image, torch.tensor([box_xyxy], dtype=torch.float32)).masks[0]

    @torch.inference_mode()
    def segment_boxes(self, image: np.ndarray, boxes_xyxy: Tensor) -> MaskSet:
        """The best mask for each box (K, 4) in pixels, in their order; scores are predicted IoU.

        Of the masks of the points in a box it is the one with the greatest product of predicted IoU and IoU of its own
        box with the given one.
        """
        size = size_of(image)
        if len(boxes_xyxy) == 0:
            return MaskSet.empty(size, SYSTEM)
        features, inner = self._features(image)
        best, scores = [], []
        for box in boxes_xyxy.float().to(self.device) * (inner[1] / size[1]):
            x0, y0, x1, y1 = box.tolist()
            logits, iou = self._draw(features, self._points(features, (x0, y0, x1, y1)))
            found = masks_to_boxes_xyxy(logits > 0).float() * self.stride
            number = (iou * pairwise_box_iou(found, box[None])[:, 0]).argmax()
            best.append(logits[number])
            scores.append(iou[number])
        masks = self._resized(torch.stack(best), inner, size) > 0
        return MaskSet(masks.cpu(), torch.stack(scores).cpu(), SYSTEM)

    @torch.inference_mode()
    def segment_point(self, image: np.ndarray, point_xy: tuple[float, float]) -> Tensor:
        """The mask of highest predicted IoU at a point in pixels: (H, W) bool."""
        size = size_of(image)
        features, inner = self._features(image)
        x, y = (place * inner[1] / size[1] for place in point_xy)
        logits, iou = self._draw(features, self._points(features, (x, y, x, y)))
        return (self._resized(logits[iou.argmax()][None], inner, size) > 0)[0].cpu()

    def _features(self, image: np.ndarray) -> tuple[Any, tuple[int, int]]:
        """What all points share, and the size (h, w) of the image in the encoder's square."""
        picture, inner = cornered_image(image, self.side)
        maps = self.encoder.encode(picture[None].to(self.device).float() / 255)
        features = self.decoder(finest_first(maps))
        height, width = (-(-side // self.stride) for side in inner)
        return replace(features, mask_features=features.mask_features[..., :height, :width]), inner

    def _points(self, features: Any, box_xyxy: tuple[float, float, float, float]) -> Tensor:
        """Points (N, 4), see `PointMaskDecoder.decode`: cells within a box in pixels of the encoder's square.

        For each level those of the highest predicted IoU, and at least one.
        """
        x0, y0, x1, y1 = box_xyxy
        found = []
        for level, iou in enumerate(self.decoder.predicted_iou(features)):
            best = iou[0].amax(0)
            cell = self.side / best.shape[0]
            rows, columns = (_cells(low, high, cell, best.shape[0]) for low, high in ((y0, y1), (x0, x1)))
            values = best[rows, columns]
            top = values.flatten().topk(min(self.drawn, values.numel())).indices
            places = [top // values.shape[1] + rows.start, top % values.shape[1] + columns.start]
            found.append(torch.stack([torch.zeros_like(top), torch.full_like(top, level), *places], 1))
        return torch.cat(found)

    def _draw(self, features: Any, points: Tensor) -> tuple[Tensor, Tensor]:
        """All masks of points: logits (N, h, w) and predicted IoU (N,)."""
        logits, iou = self.decoder.decode(features, points)
        return logits.flatten(0, 1), iou.flatten()

    def _resized(self, logits: Tensor, inner: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Logits (N, h, w) at the size of the image, (N, *size)."""
        height, width = logits.shape[1] * self.stride, logits.shape[2] * self.stride
        return upsample_logits(upsample_logits(logits, (height, width))[:, : inner[0], : inner[1]], size)


def _cells(low: float, high: float, cell: float, count: int) -> slice:
    """The cells of a row whose centres lie between two places in pixels; if there are none, that of their middle."""
    first, last = max(0, math.ceil(low / cell - 0.5)), min(count, math.floor(high / cell + 0.5))
    if first < last:
        return slice(first, last)
    middle = min(count - 1, max(0, int((low + high) / 2 / cell)))
    return slice(middle, middle + 1)


def _network(file: Path) -> tuple[Any, Any, Any]:
    """Encoder and decoder of a checkpoint, and the arguments of the decoder."""
    config: Any = arguments_of(beside(file, read_card(file, SYSTEM).get("config")))
    if not {"encoder", "decoder"} <= config.keys():
        raise ValueError(f"card of checkpoint {file} names no encoder and decoder; was it written by training?")
    encoder: Any = build(config["encoder"])
    decoder: Any = build(config["decoder"])
    if reads_weights():
        load_strictly(decoder, read_tensors(file), str(file))
    return encoder, decoder, arguments_of(config["decoder"])
