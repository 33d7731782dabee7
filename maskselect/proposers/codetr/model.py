"""`CoDetr`: the network, from pixels to boxes and from boxes to masks."""

import torch
from torch import Tensor, nn

from maskselect.proposers.codetr.backbone import SimplePyramid, WindowedViT
from maskselect.proposers.codetr.config import CoDetrConfig
from maskselect.proposers.codetr.masks import MaskHead, MaskJudge, merge_stages, region_features
from maskselect.proposers.codetr.queries import Predictions, QueryHead


class CoDetr(nn.Module):
    """Co-DETR with a ViT and masks (Zong et al. 2023, 2211.12860), what it needs at inference and no more.

    The auxiliary heads that give the method its name exist only while the published models are trained.
    """

    def __init__(self, config: CoDetrConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = WindowedViT(config)
        self.neck = SimplePyramid(config)
        self.query_head = QueryHead(config)
        self.mask_head = MaskHead(config)
        self.judge = MaskJudge(config)

    def detect(
        self, images: Tensor, padding: Tensor, every_layer: bool = False, precision: torch.dtype = torch.float32
    ) -> Predictions:
        """(B, 3, H, W) normalised images, padding (B, H, W) bool, to scored boxes and the maps for `segment`.

        precision: torch.bfloat16 runs the backbone, most of the work, under autocast.
        """
        with torch.autocast(images.device.type, precision, enabled=precision != torch.float32):
            maps = self.neck(self.backbone(images))
        return self.query_head([m.float() for m in maps], padding, every_layer)

    def segment(self, maps: list[Tensor], boxes_xyxy: Tensor, labels: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
        """Masks inside boxes of one image: logits (R, 112, 112) over each box, and predicted IoU (R,).

        maps: (1, D, h, w) of each level, from `detect`.  boxes_xyxy: (R, 4) pixels of the canvas.  labels: (R,) int64.
        chunk: boxes at once; it bounds memory and changes nothing else.
        """
        side = 8 * self.config.roi_side
        if len(boxes_xyxy) == 0:
            return boxes_xyxy.new_zeros(0, side, side), boxes_xyxy.new_zeros(0)
        regions = torch.cat([boxes_xyxy.new_zeros(len(boxes_xyxy), 1), boxes_xyxy], 1)
        semantic = self.mask_head.semantic_maps(maps[0])
        parts = [
            self._segment_part(maps, part, of, semantic)
            for part, of in zip(regions.split(chunk), labels.split(chunk), strict=True)
        ]
        return torch.cat([masks for masks, _ in parts]), torch.cat([iou for _, iou in parts])

    def _segment_part(
        self, maps: list[Tensor], regions: Tensor, labels: Tensor, semantic: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        features = region_features(maps, regions, self.config.strides, self.config.roi_side)
        logits = self.mask_head(features, labels, regions, semantic)
        return merge_stages(logits[1:])[:, 0], self.judge(features, logits[1], labels)
