"""`CoDetrProposer`: candidates of a Co-DETR with masks (Zong et al. 2023, 2211.12860).

The published COCO weights were trained on all of COCO train2017, which holds the images of the evaluation splits of
RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO. The evaluator reports this by `trained_on`; the RAS authors trained a Co-DETR
without those images.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskselect.backends.cache_keys import cache_key, weights_digest
from maskselect.backends.devices import pick_device
from maskselect.ops.masks import not_empty
from maskselect.ops.overlap import mask_nms
from maskselect.proposers.codetr.detections import Detections, paste_masks, soft_nms, top_detections
from maskselect.proposers.codetr.frame import to_frame
from maskselect.proposers.codetr.importer import codetr_needs, load_codetr
from maskselect.proposers.codetr.model import CoDetr
from maskselect.structures.masks import MaskSet
from maskselect.structures.needs import Arguments, Need
from maskselect.structures.provenance import Provenance

_SOURCE = "codetr"
_LIMIT = 1000  # detections that the published models keep
_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
_LEARNED = {"coco": ("coco", "train2017"), "lvis": ("lvis", "train")}  # data set and split of the published weights


class CoDetrProposer:
    """A `Proposer` by Co-DETR.

    Args:
        checkpoint: the published `.pth` file, or a file with the same tensor names.
        variant: "coco" (80 classes, 1,500 queries) or "lvis" (1,203 classes, 900 queries).
        score_threshold: least score of a candidate. A score is the box score times the predicted IoU of the mask.
        max_candidates: greatest number of candidates, by box score, before masks are predicted; None for the published
            1,000.
        nms_iou: soft suppression lowers the scores of boxes of one class with at least this IoU, as published.
        mask_nms_thresh: suppression by mask IoU across classes, which the published models omit; None for none. It
            merges detections of one object with two classes, such as "cup" and "mug".
        regions_per_chunk: number of regions in the mask heads at once; bounds memory only.
        precision: "fp32", or "bf16" for the backbone and the pyramid.
        published: whether `checkpoint` is the published file, so that its training images are known.

    Attributes:
        trained_on: what the weights were trained on, see `structures.provenance`.

    Raises:
        ValueError: an argument is out of range, or as `importer.load_codetr`.
        FileNotFoundError: the checkpoint does not exist.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        variant: str = "coco",
        score_threshold: float = 0.1,
        max_candidates: int | None = 100,
        nms_iou: float = 0.8,
        mask_nms_thresh: float | None = None,
        regions_per_chunk: int = 150,
        precision: str = "fp32",
        device: str = "cpu",
        published: bool = True,
    ) -> None:
        if regions_per_chunk < 1 or (max_candidates is not None and max_candidates < 1):
            raise ValueError("regions_per_chunk and max_candidates must be at least 1")
        if not 0 <= score_threshold <= 1:
            raise ValueError(f"score_threshold must be between 0 and 1, got {score_threshold}")
        if precision not in _PRECISIONS:
            raise ValueError(f"precision must be fp32 or bf16, got {precision!r}")
        self.device = pick_device(device)
        self.model: CoDetr = load_codetr(variant, checkpoint).to(self.device)
        self.score_threshold, self.max_candidates, self.nms_iou = score_threshold, max_candidates, nms_iou
        self.mask_nms_thresh, self.regions_per_chunk = mask_nms_thresh, regions_per_chunk
        self.precision = _PRECISIONS[precision]
        weights = f"Co-DETR's published {variant.upper()} weights"
        self.trained_on = (Provenance.of_dataset(weights, *_LEARNED[variant]),) if published else ()

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The published file."""
        return codetr_needs(arguments.get("variant", "coco"), arguments["checkpoint"])

    def cache_key(self) -> str:
        """The key of the weights, the sizes and all settings but the device and those that bound memory."""
        return cache_key(
            "CoDetrProposer",
            weights=weights_digest(self.model),
            config=self.model.config,
            score_threshold=self.score_threshold,
            max_candidates=self.max_candidates,
            nms_iou=self.nms_iou,
            mask_nms_thresh=self.mask_nms_thresh,
            precision=str(self.precision),
        )

    @torch.inference_mode()
    def propose(self, image: np.ndarray) -> MaskSet:
        """Propose candidates for an image.

        Args:
            image: (H, W, 3) uint8.

        Returns:
            Candidates at the size of the image, by falling score, without empty masks. Columns: label (N,) int64, class
            from 0; box (N, 4) float32, corners in image pixels, clipped to the image; box_score (N,) float32.

        Raises:
            ValueError: the array has another shape or dtype.
        """
        frame = to_frame(image, self.model.config)
        predictions = self.model.detect(frame.pixels.to(self.device), frame.padding.to(self.device), self.precision)
        detections = self._chosen(top_detections(predictions.logits[0], predictions.boxes[0], frame.extent))
        logits, iou = self.model.segment(
            predictions.maps, detections.boxes_xyxy, detections.labels, self.regions_per_chunk
        )
        good = detections.scores * iou >= self.score_threshold
        detections, logits, iou = detections.keep(good), logits[good], iou[good]
        boxes = detections.boxes_xyxy / detections.boxes_xyxy.new_tensor([*frame.scale, *frame.scale])
        height, width = image.shape[:2]
        masks = paste_masks(logits, boxes, (height, width))
        clipped = boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))
        return self._ordered(masks, detections, iou, clipped)

    def _chosen(self, detections: Detections) -> Detections:
        """Apply suppression, threshold and limit. No mask scores higher than its box, so low boxes go at once."""
        detections = soft_nms(detections.keep(detections.scores > 0), self.nms_iou)
        detections = detections.keep(detections.scores >= self.score_threshold)
        return detections.keep(torch.arange(len(detections), device=self.device)[: self.max_candidates or _LIMIT])

    def _ordered(self, masks: Tensor, detections: Detections, iou: Tensor, boxes: Tensor) -> MaskSet:
        scores = (detections.scores * iou).float().cpu()
        columns = {
            "label": detections.labels.cpu(),
            "box": boxes.float().cpu(),
            "box_score": detections.scores.float().cpu(),
        }
        result = MaskSet(masks, scores, _SOURCE, columns)
        result = result.keep(not_empty(masks))
        result = result.keep(torch.sort(result.scores, descending=True, stable=True).indices)
        if self.mask_nms_thresh is not None and len(result) > 1:
            result = result.keep(mask_nms(result.masks, result.scores, self.mask_nms_thresh))
        return result
