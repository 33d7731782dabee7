"""`PixelHead`: teaches a backbone that starts from nothing where things are, before any query asks.

Published Co-DETRs start from a backbone that has seen millions of pictures. This stands in for that at compact scale:
each pixel says whether a thing is there, whether its outline is near, and how far the sides of the thing's box are
(Tian et al. 2019, FCOS, 1904.01355, Equation 1, on visible pixels in place of boxes). One 1x1 convolution on the
backbone's map does it, so that steps of this loss alone cost a small part of a whole one. Shape letters: B images, G
objects, C channels, h w cells of the backbone, H W pixels of the canvas, S L rows and columns of the finer grid.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss

from maskselect.ops.boxes import masks_to_boxes_xyxy
from maskselect.proposers.codetr.assignment import Targets

_FINER = 4  # rows and columns of pixels that a cell answers for, as on the finest map of the pyramid
_REACH = 4.0  # pixels to each side of a box that an untrained head says, about


class PixelHead(nn.Module):
    """channels: C, of the backbone's map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.maps = nn.Conv2d(channels, 6 * _FINER**2, 1)

    def loss(self, features: Tensor, targets: list[Targets]) -> Tensor:
        """features: (B, C, h, w). Returns a scalar: cross-entropy of things and outlines, GIoU of boxes per object."""
        found = F.pixel_shuffle(self.maps(features).float(), _FINER)
        size = (found.shape[-2], found.shape[-1])
        index, boxes = _grid_targets(targets, size)
        thing, edge = (index >= 0).float(), _outlines(index).float()
        loss = F.binary_cross_entropy_with_logits(found[:, :2], torch.stack([thing, edge], 1))
        there = (index >= 0).nonzero()
        if len(there) == 0:
            return loss
        images, rows, columns = there.unbind(1)
        reach = F.softplus(found[images, 2:, rows, columns]) * (_REACH / 0.7)
        centres = torch.stack([columns, rows], 1) + 0.5
        said = torch.cat([centres - reach[:, :2], centres + reach[:, 2:]], 1)
        objects = index[images, rows, columns]
        apart = generalized_box_iou_loss(said, boxes[objects])
        # Small things are to count as much as large ones.
        return loss + (apart / objects.bincount(minlength=len(boxes))[objects]).sum() / len(objects.unique())


def _grid_targets(targets: list[Targets], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Number of the batch's object at each pixel of the grid, or -1, (B, *size) int64; boxes of all in its pixels."""
    index, boxes, before = [], [], 0
    for target in targets:
        height, width = target.masks.shape[-2:]
        found = torch.full((1, *size), -1, dtype=torch.int64, device=target.masks.device)
        if len(target):
            masks = F.interpolate(target.masks[None].float(), size=size, mode="nearest-exact")[0] > 0.5
            numbers = torch.arange(before, before + len(target), device=masks.device)[:, None, None]
            found = torch.where(masks, numbers, -1).amax(0, keepdim=True)
        index.append(found)
        scale = torch.tensor([size[1] / width, size[0] / height] * 2, dtype=torch.float32, device=found.device)
        boxes.append(masks_to_boxes_xyxy(target.masks) * scale)
        before += len(target)
    return torch.cat(index), torch.cat(boxes)


def _outlines(index: Tensor) -> Tensor:
    """(B, S, L) numbers to bool: the pixel above or to the left belongs to something else."""
    edge = torch.zeros_like(index, dtype=torch.bool)
    edge[:, 1:] |= index[:, 1:] != index[:, :-1]
    edge[:, :, 1:] |= index[:, :, 1:] != index[:, :, :-1]
    return edge
