"""Pictures of a `MaskBatch` in the top left corner of a square of grey, as Mask2Former and Segment Anything pad."""

import torch
from torch import Tensor

from maskselect.ops.images import CORNER_GREY
from maskselect.structures.batches import MaskBatch


def cornered(batch: MaskBatch, flips: bool = False) -> tuple[Tensor, list[Tensor]]:
    """Move the pictures of a batch from the centre of their squares to the top left corner.

    Args:
        batch: B pictures in squares of side S.
        flips: flip pictures from left to right at random.

    Returns:
        Images (B, 3, S, S) uint8, and for each image masks (N, S, S) bool, without empty ones.
    """
    side = batch.images.shape[-1]
    images = torch.full_like(batch.images, CORNER_GREY)
    targets = []
    for frame, image, masks, size in zip(images, batch.images, batch.masks, batch.sizes.tolist(), strict=True):
        height, width = size
        top, left = (side - height) // 2, (side - width) // 2
        inside = (..., slice(top, top + height), slice(left, left + width))
        picture, truth = image[inside], masks[inside]
        if flips and torch.rand(()) < 0.5:
            picture, truth = picture.flip(-1), truth.flip(-1)
        frame[:, :height, :width] = picture
        target = masks.new_zeros(masks.shape)
        target[:, :height, :width] = truth
        targets.append(target[target.flatten(1).any(1)])
    return images, targets
