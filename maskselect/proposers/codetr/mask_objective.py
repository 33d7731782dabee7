"""What the mask stages and the judge are trained on: objects in boxes that are a little off.

Sources: Zhang et al. 2021 (RefineMask, 2104.08569) for a loss on each stage; Huang et al. 2019 (Mask Scoring R-CNN,
1903.00241) for the judge's. Shape letters: B images, R regions, s cells of a region's side, H W pixels of the canvas.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from maskselect.ops.boxes import masks_to_boxes_xyxy
from maskselect.proposers.codetr.assignment import Targets
from maskselect.proposers.codetr.masks import merge_stages, region_features
from maskselect.proposers.codetr.model import CoDetr

_STAGE_WEIGHTS = (0.25, 0.5, 0.75, 1.0)  # those of RefineMask's published configuration


def mask_losses(
    model: CoDetr, maps: list[Tensor], targets: list[Targets], shift: float = 0.0, limit: int | None = None
) -> tuple[Tensor, Tensor]:
    """Mean over objects: binary cross-entropy of all stages, squared error of the predicted IoU.

    maps: (B, D, h, w) of each level.  shift: how far, in sides, a region's centre is off the object's at most; its
    sides are off by half as much again.  limit: objects of the batch, drawn at random, that take part; None for all.
    """
    config, head = model.config, model.mask_head
    masks = torch.cat([target.masks for target in targets])
    images = torch.cat([torch.full_like(target.labels, number) for number, target in enumerate(targets)])
    labels = torch.cat([target.labels for target in targets])
    if limit is not None and len(masks) > limit:
        drawn = torch.randperm(len(masks), device=masks.device)[:limit]
        masks, images, labels = masks[drawn], images[drawn], labels[drawn]
    if len(masks) == 0:
        return maps[0].sum() * 0, maps[0].sum() * 0
    boxes = shifted(masks_to_boxes_xyxy(masks), shift)
    regions = torch.cat([images[:, None].to(boxes.dtype), boxes], 1)
    features = region_features(maps, regions, config.strides, config.roi_side)
    logits = head(features, labels, regions, head.semantic_maps(maps[0]))
    # Each object's mask is an image of its own to RoIAlign.
    places = torch.cat([torch.arange(len(boxes), device=boxes.device)[:, None].to(boxes.dtype), boxes], 1)
    wanted, loss = masks[:, None], maps[0].new_zeros(())
    for weight, stage in zip(_STAGE_WEIGHTS, logits, strict=True):
        wanted = roi_align(masks[:, None].float(), places, stage.shape[-1], sampling_ratio=1, aligned=True) >= 0.5
        loss = loss + weight * F.binary_cross_entropy_with_logits(stage, wanted.float())
    found = merge_stages([stage.detach() for stage in logits[1:]]) >= 0
    return loss, F.mse_loss(model.judge(features, logits[1], labels), mask_iou(found, wanted))


def shifted(boxes_xyxy: Tensor, shift: float) -> Tensor:
    """Boxes (R, 4) moved by up to `shift` of their sides and stretched by up to one and a half times that."""
    centres, sides = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2, boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    centres = centres + (torch.rand_like(centres) * 2 - 1) * shift * sides
    sides = sides * (1 + (torch.rand_like(sides) * 2 - 1) * 1.5 * shift)
    return torch.cat([centres - sides / 2, centres + sides / 2], 1)


def mask_iou(found: Tensor, true: Tensor) -> Tensor:
    """(R, 1, s, s) bool each, to (R,) float32; two empty masks have 0."""
    shared, either = (found & true).flatten(1).sum(1), (found | true).flatten(1).sum(1)
    return shared / either.clamp(min=1)
