"""Pairwise intersections of masks without floats: on packed bits for dense masks, on runs for RLE.

The counts equal those of `maskselect.ops.overlap`, exact at any size. `benchmarks/overlap.py` measures the speed.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from pycocotools import mask as coco
from torch import Tensor

from maskselect.ops.overlap import pairwise_intersection
from maskselect.ops.rle import Rle, to_compressed

_WORD = 64  # bits
_BITS_IN_BYTE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1, dtype=np.uint8)
_bitwise_count: Callable[[np.ndarray], np.ndarray] | None = getattr(np, "bitwise_count", None)  # NumPy 2 and newer


def pack(masks: np.ndarray) -> np.ndarray:
    """(N, H, W) bool to (N, words) uint64 with 64 pixels per word; the last word is padded with zeros."""
    flat = masks.reshape(len(masks), masks.shape[1] * masks.shape[2])
    packed = np.packbits(flat, axis=1)
    missing = -packed.shape[1] % (_WORD // 8)
    return np.pad(packed, ((0, 0), (0, missing))).view(np.uint64)


def packed_area(words: np.ndarray) -> np.ndarray:
    """Number of ones in each row: (..., words) uint64 to (...) int64."""
    if _bitwise_count is not None:
        return _bitwise_count(words).sum(-1, dtype=np.int64)
    return _BITS_IN_BYTE[words.view(np.uint8)].sum(-1, dtype=np.int64)


def packed_intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection of every pair of packed masks: (N, words) and (M, words) uint64 to (N, M) int64.

    Raises ValueError if the image sizes differ.
    """
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"masks must share one image size, got {a.shape[1]} and {b.shape[1]} words a mask")
    out = np.zeros((len(a), len(b)), np.int64)
    for column, mask in enumerate(b):  # one column at a time, so that memory stays at the size of `a`
        out[:, column] = packed_area(a & mask)
    return out


def pairwise_counts(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection and union of every pair: (N, H, W) and (M, H, W) bool to two (N, M) int64.

    On packed bits on the CPU; by matrix products on other devices (exact below 2^24 pixels). Raises ValueError if the
    image sizes differ.
    """
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(f"masks must share one image size, got {tuple(a.shape[1:])} and {tuple(b.shape[1:])}")
    if a.device.type == "cpu" and b.device.type == "cpu":
        packed = pack(a.numpy()), pack(b.numpy())
        inter = torch.from_numpy(packed_intersection(*packed))
        areas = [torch.from_numpy(packed_area(words)) for words in packed]
    else:
        inter = pairwise_intersection(a, b).long()
        areas = [masks.flatten(1).sum(1) for masks in (a, b)]
    return inter, areas[0][:, None] + areas[1][None] - inter


def rle_iou(a: Sequence[Rle], b: Sequence[Rle]) -> np.ndarray:
    """IoU of every pair of N and M COCO RLEs, without decoding: (N, M) float64 in [0, 1]. Two empty masks have IoU 0.

    Raises ValueError if the sizes differ, or a mask is not a COCO RLE.
    """
    sizes = {(int(code["size"][0]), int(code["size"][1])) for code in [*a, *b]}
    if len(sizes) > 1:
        raise ValueError(f"masks must share one image size, got {sorted(sizes)}")
    if not a or not b:
        return np.zeros((len(a), len(b)))
    (size,) = sizes
    left, right = ([to_compressed(code, size) for code in codes] for codes in (a, b))
    return np.asarray(coco.iou(left, right, [0] * len(right)))  # no crowds: the union is the denominator
