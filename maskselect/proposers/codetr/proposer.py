"""`CoDetrProposer`: candidates from a Co-DETR with masks (Zong et al. 2023, 2211.12860).

The published COCO weights were trained on all of COCO train2017, which holds the images that RefCOCO, RefCOCO+,
RefCOCOg and gRefCOCO are evaluated on. Candidates for those come from a model that has seen their pictures and must be
reported so, which the evaluator does by `trained_on`; the RAS authors trained a Co-DETR of their own without them.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskselect.backends import checkpoints
from maskselect.backends.cache_keys import cache_key, weights_digest
from maskselect.backends.devices import pick_device
from maskselect.backends.training_data import card_data
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

    checkpoint: the published `.pth` file; for variant "own" a name or path as in `checkpoints.find_checkpoint`.
    variant: "coco" (80 classes, 1,500 queries), "lvis" (1,203 classes, 900 queries), or "own" for one trained here.
    score_threshold: masks of a lower score go. A score is that of the box times the predicted IoU of the mask.
    max_candidates: at most so many, by the score of the box, before masks are drawn; None for the published 1,000.
    nms_iou: boxes of one class that overlap so much have their scores lowered, in the published way.
    mask_nms_thresh: suppression by mask IoU across classes, which the published models leave out; None for none. A
        thing that is found as "cup" and as "mug" is one candidate only with it.
    regions_per_chunk: regions in the mask heads at once; bounds memory only.
    precision: "fp32", or "bf16" for the backbone and the pyramid.
    published: whether the file of variant "coco" or "lvis" is the published one, so that its training pictures are
        known; false for weights of your own under the same names.

    `trained_on` tells what the weights learned from, see `structures.provenance`: of variant "own" as far as the card
    does.

    Raises ValueError for arguments out of range, and whatever `importer.load_codetr` raises.
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
        self.trained_on = _trained_on(variant, checkpoint, published)

    @classmethod
    def needs(cls, arguments: Arguments) -> list[Need]:
        """The published file, or a checkpoint of ours."""
        return codetr_needs(arguments.get("variant", "coco"), arguments["checkpoint"])

    def cache_key(self) -> str:
        """Of the weights, the sizes and all settings but the device and those that bound memory."""
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
        """(H, W, 3) uint8 to candidates at the image's own size, by falling score.

        Columns: label (N,) int64, class from 0 on; box (N, 4) float32, the detector's corners in image pixels, cut off
        at the image's edge; box_score (N,) float32. Masks without any pixel are left out.
        Raises ValueError for an image of another form.
        """
        frame = to_frame(image, self.model.config)
        seen = self.model.detect(frame.pixels.to(self.device), frame.padding.to(self.device), precision=self.precision)
        found = self._chosen(top_detections(seen.logits[-1][0], seen.boxes[-1][0], frame.extent))
        logits, iou = self.model.segment(seen.maps, found.boxes_xyxy, found.labels, self.regions_per_chunk)
        good = found.scores * iou >= self.score_threshold
        found, logits, iou = found.keep(good), logits[good], iou[good]
        boxes = found.boxes_xyxy / found.boxes_xyxy.new_tensor([*frame.scale, *frame.scale])
        masks = paste_masks(logits, boxes, (image.shape[0], image.shape[1]))
        return self._ordered(masks, found, iou, _within(boxes, image.shape[1], image.shape[0]))

    def _chosen(self, found: Detections) -> Detections:
        """Suppression, threshold and cap. No mask can score higher than its box, so low boxes can go at once."""
        found = soft_nms(found.keep(found.scores > 0), self.nms_iou)
        found = found.keep(found.scores >= self.score_threshold)
        return found.keep(torch.arange(len(found), device=self.device)[: self.max_candidates or _LIMIT])

    def _ordered(self, masks: Tensor, found: Detections, iou: Tensor, boxes: Tensor) -> MaskSet:
        scores = (found.scores * iou).float().cpu()
        columns = {"label": found.labels.cpu(), "box": boxes.float().cpu(), "box_score": found.scores.float().cpu()}
        result = MaskSet(masks, scores, _SOURCE, columns)
        result = result.keep(not_empty(masks))
        result = result.keep(torch.sort(result.scores, descending=True, stable=True).indices)
        if self.mask_nms_thresh is not None and len(result) > 1:
            result = result.keep(mask_nms(result.masks, result.scores, self.mask_nms_thresh))
        return result


def _within(boxes_xyxy: Tensor, width: int, height: int) -> Tensor:
    return boxes_xyxy.clamp(min=0).minimum(boxes_xyxy.new_tensor([width, height, width, height]))


def _trained_on(variant: str, checkpoint: str | Path, published: bool) -> tuple[Provenance, ...]:
    if variant in _LEARNED:
        weights = f"Co-DETR's published {variant.upper()} weights"
        return (Provenance.of_dataset(weights, *_LEARNED[variant]),) if published else ()
    data = card_data(checkpoints.read_card(checkpoint))
    return (Provenance(f"Co-DETR {Path(checkpoint).stem}", tuple(data)),) if data else ()
