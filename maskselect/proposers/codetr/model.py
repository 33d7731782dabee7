"""`CoDetr`: the network, from pixels to boxes and from boxes to masks."""

import torch
from torch import Tensor, nn

from maskselect.proposers.codetr.backbone import SimplePyramid, WindowedViT
from maskselect.proposers.codetr.config import CoDetrConfig
from maskselect.proposers.codetr.masks import MaskHead, MaskIouHead, merge_stages, region_features
from maskselect.proposers.codetr.queries import Predictions, QueryHead


class CoDetr(nn.Module):
    """Co-DETR with a ViT and masks (Zong et al. 2023, 2211.12860): the parts that inference needs.

    The auxiliary heads that give the method its name exist only in training.
    """

    def __init__(self, config: CoDetrConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = WindowedViT(config)
        self.neck = SimplePyramid(config)
        self.query_head = QueryHead(config)
        self.mask_head = MaskHead(config)
        self.judge = MaskIouHead(config)

    def detect(self, images: Tensor, padding: Tensor, precision: torch.dtype = torch.float32) -> Predictions:
        """Predict scored boxes, and the feature maps for `segment`.

        Args:
            images: (B, 3, H, W) normalised.
            padding: (B, H, W) bool.
            precision: torch.bfloat16 runs the backbone, which is most of the work, under autocast.
        """
        with torch.autocast(images.device.type, precision, enabled=precision != torch.float32):
            maps = self.neck(self.backbone(images))
        return self.query_head([m.float() for m in maps], padding)

    def segment(self, maps: list[Tensor], boxes_xyxy: Tensor, labels: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
        """Predict the masks inside boxes of one image.

        Args:
            maps: (1, D, h, w) for each level, from `detect`.
            boxes_xyxy: (R, 4) in canvas pixels.
            labels: (R,) int64.
            chunk: number of boxes at once; bounds memory only.

        Returns:
            Logits (R, 112, 112) over each box, and predicted IoU (R,).
        """
        side = 8 * self.config.roi_side
        if len(boxes_xyxy) == 0:
            return boxes_xyxy.new_zeros(0, side, side), boxes_xyxy.new_zeros(0)
        regions = torch.cat([boxes_xyxy.new_zeros(len(boxes_xyxy), 1), boxes_xyxy], 1)
        semantic = self.mask_head.semantic_maps(maps[0])
        masks, ious = [], []
        for part, classes in zip(regions.split(chunk), labels.split(chunk), strict=True):
            features = region_features(maps, part, self.config.strides, self.config.roi_side)
            logits = self.mask_head(features, classes, part, semantic)
            masks.append(merge_stages(logits[1:])[:, 0])
            ious.append(self.judge(features, logits[1], classes))
        return torch.cat(masks), torch.cat(ious)
