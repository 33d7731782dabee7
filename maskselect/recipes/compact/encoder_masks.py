"""Masks for pretraining an encoder: those of objects, corrupted ones with a proposer's typical errors, and junk.

Shape letters: B images, K objects of an image at most, M masks of an image, R side of the masks in pixels.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

CLEAN, NOISY, JUNK = 0, 1, 2
MIN_PIXELS = 3


@dataclass(frozen=True)
class LabelledMasks:
    """Masks of a batch with their labels.

    Attributes:
        masks: (B, M, R, R) bool.
        kind: (B, M) int64, CLEAN, NOISY or JUNK.
        valid: (B, M) bool; False for padding and for masks of fewer than MIN_PIXELS pixels.
        iou: (B, M) float32, highest IoU with the visible mask of an object.
        best: (B, M) int64, index of the object that fills the largest share of the mask.
        share: (B, M) float32, that share.
    """

    masks: Tensor
    kind: Tensor
    valid: Tensor
    iou: Tensor
    best: Tensor
    share: Tensor


def object_masks(index: Tensor, count: int) -> Tensor:
    """(B, R, R) uint8 index maps, 0 for background, to (B, count, R, R) bool."""
    return index[:, None] == torch.arange(1, count + 1, dtype=torch.uint8, device=index.device)[:, None, None]


def clean_masks(index: Tensor, count: int) -> LabelledMasks:
    """The visible masks of the objects: (B, R, R) uint8 index maps to a batch with M = count."""
    masks = object_masks(index, count)
    order = torch.arange(count, device=index.device).expand(len(index), -1)
    ones = torch.ones(order.shape, device=index.device)
    return LabelledMasks(masks, torch.full_like(order, CLEAN), _large_enough(masks), ones, order, ones)


def mixed_masks(index: Tensor, count: int, junk: int) -> LabelledMasks:
    """Each object clean and corrupted, and `junk` junk masks: (B, R, R) uint8 index maps to M = 2 count + junk."""
    objects = object_masks(index, count)
    present = _large_enough(objects)
    masks = torch.cat([objects, corrupt(objects), junk_masks(index, objects, junk)], 1)
    valid = torch.cat([present, present, torch.ones(len(index), junk, dtype=torch.bool)], 1) & _large_enough(masks)
    inter = masks.flatten(2).float() @ objects.flatten(2).float().transpose(1, 2)
    areas, object_areas = masks.flatten(2).sum(2), objects.flatten(2).sum(2)
    overlap = inter / (areas[:, :, None] + object_areas[:, None] - inter).clamp(min=1)
    share, best = (inter / areas[:, :, None].clamp(min=1)).max(2)
    kind = torch.tensor([CLEAN] * count + [NOISY] * count + [JUNK] * junk).expand(len(index), -1)
    return LabelledMasks(masks, kind, valid, overlap.amax(2), best, share)


def corrupt(objects: Tensor) -> Tensor:
    """Corrupt each mask in one of seven random ways: (B, K, R, R) bool to the same."""
    batch, count = objects.shape[:2]
    flat = objects.flatten(0, 1)
    # The partner is the next object of the same image; index maps number their objects without gaps.
    present = objects.flatten(2).any(2).sum(1).clamp(min=1)
    neighbour = (torch.arange(count)[None] + 1) % present[:, None]
    partner = objects[torch.arange(batch)[:, None], neighbour].flatten(0, 1)
    out = flat.clone()
    ways = torch.randint(0, 7, (len(flat),))
    for way, change in enumerate((_erode, _dilate, _shift, _box, _cut, _stripes)):
        rows = (ways == way).nonzero()[:, 0]
        if len(rows):
            out[rows] = change(flat[rows])
    rows = (ways == 6).nonzero()[:, 0]
    out[rows] = flat[rows] | partner[rows]
    empty = ~out.flatten(1).any(1)
    out[empty] = flat[empty]
    return out.view_as(objects)


def junk_masks(index: Tensor, objects: Tensor, count: int) -> Tensor:
    """Masks of no object: ellipses, on the background or anywhere, the background, rims: (B, count, R, R) bool."""
    batch, side = len(index), index.shape[-1]
    background = (index == 0)[:, None]
    ellipses = _ellipses(batch, count, side)
    clipped = torch.rand(batch, count, 1, 1) < 0.6
    out = torch.where(clipped, ellipses & background, ellipses)
    whole_background = torch.rand(batch, 1, 1) < 0.3
    out[:, 0] = torch.where(whole_background, background[:, 0], out[:, 0])
    if count > 1 and objects.shape[1]:
        first = objects[:, 0]  # its rim is like a proposal of a shadow or an outline
        out[:, 1] = torch.where(torch.rand(batch, 1, 1) < 0.5, _dilate(first) & ~first, out[:, 1])
    return out


def _large_enough(masks: Tensor) -> Tensor:
    return masks.flatten(2).sum(2) >= MIN_PIXELS


def _grow(masks: Tensor, kernel: int) -> Tensor:
    return F.max_pool2d(masks[:, None].float(), kernel, 1, kernel // 2)[:, 0] > 0


def _random_kernel(side: int) -> int:
    radius = (int(torch.randint(1, 4, ())) * side) / 128  # 2, 4 or 6 pixels of an image of 256
    return 2 * max(1, round(radius)) + 1


def _dilate(masks: Tensor) -> Tensor:
    return _grow(masks, _random_kernel(masks.shape[-1]))


def _erode(masks: Tensor) -> Tensor:
    return ~_grow(~masks, _random_kernel(masks.shape[-1]))


def _shift(masks: Tensor) -> Tensor:
    out = torch.zeros_like(masks)
    max_shift = masks.flatten(1).sum(1).sqrt() * 0.5
    side = masks.shape[-1]
    for i, mask in enumerate(masks):
        dy, dx = ((torch.rand(2) * 2 - 1) * max_shift[i]).round().int().tolist()
        from_y, from_x = slice(max(0, -dy), side - max(0, dy)), slice(max(0, -dx), side - max(0, dx))
        to_y, to_x = slice(max(0, dy), side - max(0, -dy)), slice(max(0, dx), side - max(0, -dx))
        out[i, to_y, to_x] = mask[from_y, from_x]
    return out


def _moments(masks: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x and y (N, R, R) relative to each centroid, and their root mean squares in the mask (N, 1, 1)."""
    side = masks.shape[-1]
    line = torch.arange(side, dtype=torch.float32)
    weights = masks.float()
    total = weights.sum((1, 2), keepdim=True).clamp(min=1)
    x = line[None, None, :] - (weights.sum(1) @ line)[:, None, None] / total
    y = line[None, :, None] - (weights.sum(2) @ line)[:, None, None] / total
    spread_x = ((x.square() * weights.sum(1, keepdim=True)).sum((1, 2), keepdim=True) / total).sqrt().clamp(min=1)
    spread_y = ((y.square() * weights.sum(2, keepdim=True)).sum((1, 2), keepdim=True) / total).sqrt().clamp(min=1)
    return x, y, spread_x, spread_y


def _box(masks: Tensor) -> Tensor:
    x, y, spread_x, spread_y = _moments(masks)
    width, height = spread_x * (1.3 + torch.rand(spread_x.shape)), spread_y * (1.3 + torch.rand(spread_y.shape))
    return (x.abs() < width) & (y.abs() < height)


def _cut(masks: Tensor) -> Tensor:
    x, y, spread_x, spread_y = _moments(masks)
    angle = torch.rand(len(masks), 1, 1) * 2 * math.pi
    offset = (torch.rand(len(masks), 1, 1) * 2 - 1) * torch.maximum(spread_x, spread_y)
    return masks & (x * angle.cos() + y * angle.sin() > offset)


def _stripes(masks: Tensor) -> Tensor:
    x, y, spread_x, spread_y = _moments(masks)
    angle = torch.rand(len(masks), 1, 1) * 2 * math.pi
    period = torch.maximum(spread_x, spread_y) * (0.5 + torch.rand(len(masks), 1, 1))
    return masks & (((x * angle.cos() + y * angle.sin()) / period * 2 * math.pi).sin() > 0)


def _ellipses(batch: int, count: int, side: int) -> Tensor:
    line = (torch.arange(side) + 0.5) / side
    centre = torch.rand(2, batch, count, 1, 1)
    radius = 0.04 + 0.2 * torch.rand(2, batch, count, 1, 1).square()
    x = (line[None, None, None, :] - centre[0]) / radius[0]
    y = (line[None, None, :, None] - centre[1]) / radius[1]
    power = torch.where(torch.rand(batch, count, 1, 1) < 0.5, 2.0, 8.0)  # 8: nearly a rectangle
    return x.abs() ** power + y.abs() ** power < 1
