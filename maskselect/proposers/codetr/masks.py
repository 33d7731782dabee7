"""The mask heads of Co-DETR's instance segmentation models: three stages from 14 to 112 cells, and a mask IoU head.

Source: Zhang et al. 2021 (RefineMask, 2104.08569) for stages, fusion and boundary-aware merging; Huang et al. 2019
(Mask Scoring R-CNN, 1903.00241) for the mask IoU head. Shape letters: R regions, D channels, C channels of a stage, s
side of a region in cells, h w cells of the finest map. Regions are rows (0, x0, y0, x1, y1) in canvas pixels.
"""

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torchvision.ops import roi_align

from maskselect.proposers.codetr.config import LEVELS, CoDetrConfig

STAGES = 3
_DILATIONS = (1, 3, 5)


class ConvNorm(nn.Sequential):
    """3x3 convolution without bias, channel LayerNorm, ReLU."""

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__(nn.Conv2d(channels, out, 3, stride, 1, bias=False), LayerNorm2d(out), nn.ReLU())


class MultiBranchFusion(nn.Module):
    """Sum of three dilated convolutions and the mean over the region, then a 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dilated = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=d, dilation=d) for d in _DILATIONS)
        self.merge = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(R, C, s, s) to the same."""
        parts = [F.relu(conv(x)) for conv in self.dilated]
        return F.relu(self.merge(torch.stack([*parts, x.mean((2, 3), keepdim=True).expand_as(x)]).sum(0)))


class FusionStage(nn.Module):
    """One stage: fuses instance features, semantic features and the coarse mask into features for the next stage.

    Args:
        channels: C, of the input features.
        semantic_channels: D, of the map that all stages share.
        side: s, of the input features.
        last: whether to keep the resolution.
    """

    def __init__(self, channels: int, semantic_channels: int, side: int, last: bool) -> None:
        super().__init__()
        self.side, self.last = side, last
        self.semantic = nn.Conv2d(semantic_channels, channels, 1)
        self.mix = nn.Conv2d(2 * channels + 1, channels, 1)
        self.fuse = MultiBranchFusion(channels)
        self.out = nn.Conv2d(channels, channels // 2 - 1, 1)

    def forward(self, x: Tensor, logits: Tensor, semantic: Tensor, regions: Tensor, scale: float) -> Tensor:
        """Features for the next stage: (R, C / 2, 2s, 2s), or (R, C / 2, s, s) from the last stage.

        Args:
            x: (R, C, s, s).
            logits: (R, 1, s, s), of the coarse mask.
            semantic: (1, C, h, w), from `MaskHead.semantic_maps`.
            regions: (R, 5).
            scale: cells of that map per pixel.
        """
        mask = logits.sigmoid()
        local = roi_align(semantic, regions, self.side, scale, sampling_ratio=0, aligned=True)
        x = F.relu(self.mix(torch.cat([x, local, mask], 1)))
        x = torch.cat([F.relu(self.out(self.fuse(x))), mask], 1)
        return x if self.last else F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class MaskHead(nn.Module):
    """From region features to mask logits at 14, 28, 56 and 112 cells."""

    def __init__(self, config: CoDetrConfig) -> None:
        super().__init__()
        dim, self.scale = config.dim, 1 / config.strides[0]
        widths = [dim // 2**k for k in range(STAGES + 1)]
        self.instance = ConvNorm(dim, dim)
        self.semantic = nn.Sequential(ConvNorm(dim, dim), ConvNorm(dim, dim))
        self.stages = nn.ModuleList(
            FusionStage(widths[k], dim, config.roi_side * 2**k, last=k == STAGES - 1) for k in range(STAGES)
        )
        self.class_logits = nn.ModuleList(nn.Conv2d(width, config.classes, 1) for width in widths[:STAGES])
        self.final = nn.Conv2d(widths[STAGES], 1, 1)

    def semantic_maps(self, finest: Tensor) -> list[Tensor]:
        """Semantic map (1, C, h, w) for each stage, from the finest map (1, D, h, w). Computed once per image."""
        shared = self.semantic(finest)
        return [F.relu(stage.semantic(shared)) for stage in self.stages]  # type: ignore[operator]

    def forward(self, features: Tensor, labels: Tensor, regions: Tensor, semantic: list[Tensor]) -> list[Tensor]:
        """Logits (R, 1, s, s) of the labels' classes for s = 14, 28, 56, and class-agnostic logits for s = 112.

        Args:
            features: (R, D, 14, 14).
            labels: (R,) int64.
            regions: (R, 5).
            semantic: from `semantic_maps`.
        """
        x, logits = self.instance(features), []
        for stage, classes, map_ in zip(self.stages, self.class_logits, semantic, strict=True):
            logits.append(_of_class(classes, x, labels))
            x = stage(x, logits[-1], map_, regions, self.scale)
        logits.append(F.interpolate(self.final(x), scale_factor=2.0, mode="bilinear", align_corners=True))
        return logits


def _of_class(classes: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """A 1x1 convolution with one output channel per region, that of its label: (R, C, s, s) to (R, 1, s, s)."""
    assert isinstance(classes, nn.Conv2d) and classes.bias is not None
    weight, bias = classes.weight[labels, :, 0, 0], classes.bias
    return torch.einsum("rchw,rc->rhw", x, weight)[:, None] + bias[labels, None, None, None]


class MaskIouHead(nn.Module):
    """Predicts the IoU of a mask with its object."""

    def __init__(self, config: CoDetrConfig) -> None:
        super().__init__()
        dim, side = config.dim, -(-config.roi_side // 2)
        self.convs = nn.Sequential(ConvNorm(dim + 1, dim), ConvNorm(dim, dim, stride=2))
        self.hidden = nn.Linear(dim * side * side, config.iou_dim)
        self.out = nn.Linear(config.iou_dim, config.classes)

    def forward(self, features: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Features (R, D, 14, 14), second-stage logits (R, 1, 28, 28) and labels (R,) to IoU (R,) in [0, 1]."""
        masks = F.max_pool2d(logits.sigmoid(), 2)
        x = self.convs(torch.cat([features, masks], 1)).flatten(1)
        return self.out(F.relu(self.hidden(x))).gather(1, labels[:, None])[:, 0].sigmoid()


def region_features(maps: list[Tensor], regions: Tensor, strides: tuple[int, ...], side: int) -> Tensor:
    """Features (R, D, side, side), each region from the map that fits its size.

    The finest map serves regions narrower than twice `side` of its cells; each doubling of the size takes the next
    level (Lin et al. 2017, 1612.03144, Equation 1).
    """
    sizes = (regions[:, 3:] - regions[:, 1:3]).prod(1).clamp(min=0).sqrt()
    levels = torch.floor(torch.log2(sizes / (side * strides[0]) + 1e-6)).clamp(0, LEVELS - 1)
    result = maps[0].new_zeros(len(regions), maps[0].shape[1], side, side)
    for level, (cells, stride) in enumerate(zip(maps, strides, strict=True)):
        rows = (levels == level).nonzero()[:, 0]
        if len(rows):
            features = roi_align(cells.contiguous(), regions[rows], side, 1 / stride, sampling_ratio=0, aligned=True)
            result = result.index_copy(0, rows, features)
    return result


def merge_stages(logits: list[Tensor]) -> Tensor:
    """Merge logits (R, 1, s, s) of all stages, coarse to fine, into logits of the finest size.

    Finer logits count only near the outline of the coarser mask; elsewhere the upsampled coarse logits stay, as in
    RefineMask.
    """
    merged = logits[0]
    for finer in logits[1:]:
        size = finer.shape[-2:]
        inner = F.interpolate((~outline(merged >= 0)).float(), size=size, mode="bilinear", align_corners=True) >= 0.5
        coarse = F.interpolate(merged, size=size, mode="bilinear", align_corners=True)
        merged = torch.where(inner, coarse, finer)
    return merged


def outline(masks: Tensor) -> Tensor:
    """Pixels on both sides of the outline (8-connected; empty beyond the region): (R, 1, s, s) bool."""
    inside = F.pad(masks.float(), (1, 1, 1, 1))
    grown, kept = F.max_pool2d(inside, 3, 1), 1 - F.max_pool2d(1 - inside, 3, 1)
    return grown > kept
